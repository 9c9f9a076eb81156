//! `[probe]`: the harness's own clients.

use std::collections::BTreeMap;
use std::time::Duration;

use broker::{Error, Properties};

use crate::scenario::diagnostic::Invalid;
use crate::scenario::table::Table;
use crate::scenario::{Probe, Rate, values};

const KEYS: &[&str] = &["writers", "count", "arrival", "transactions", "aborts", "properties"];

pub(super) fn read(top: &Table<'_>) -> Result<Option<Probe>, Invalid> {
    let Some(section) = top.get("probe") else { return Ok(None) };
    let section = section.table("`[probe]`", KEYS, &[], "[probe]")?;
    let mut probe = Probe {
        writers: 1,
        count: 200,
        arrival: Rate { count: 20, per: Duration::from_secs(1) },
        transactions: false,
        abort_ppm: 0,
        properties: BTreeMap::new(),
    };
    if let Some(writers) = section.get("writers") {
        probe.writers = writers.whole(1..=99)?;
    }
    if let Some(count) = section.get("count") {
        probe.count = count.whole(1..=1_000_000)?;
    }
    if let Some(arrival) = section.get("arrival") {
        probe.arrival = arrival.parse("arrival = \"20/s\"", values::rate)?;
    }
    if let Some(transactions) = section.get("transactions") {
        probe.transactions = transactions.boolean()?;
    }
    if let Some(aborts) = section.get("aborts") {
        if !probe.transactions {
            let says = "`aborts` says nothing without `transactions = true`";
            return Err(Invalid::new(aborts.key_span(), says, "leave this out"));
        }
        probe.abort_ppm = aborts.parse("aborts = \"20%\"", values::percent)?;
    }
    if let Some(properties) = section.get("properties") {
        let example = "properties = { \"request.timeout.ms\" = 2000 }";
        let placed = Properties::new().set("bootstrap.servers", "broker-1:9092");
        for entry in properties.named("`properties`", example)?.entries() {
            let value = entry.setting()?;
            let refused =
                |error: Error| Invalid::new(entry.key_span(), error.message, "no client takes this");
            client::check(&placed.clone().set(entry.key, &value)).map_err(refused)?;
            probe.properties.insert(entry.key.to_owned(), value);
        }
        // Each may be sound by itself, and not beside the others.
        let refused =
            |error: Error| Invalid::new(properties.span(), error.message, "no producer takes these");
        client::check(&placed.with(&probe.producer_properties(1))).map_err(refused)?;
    }
    Ok(Some(probe))
}
