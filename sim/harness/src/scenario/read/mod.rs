//! From text to a [`Scenario`]: the grammar of a file, section by section.
//!
//! Each section is read in one function that names its keys, checks its words and fills in its defaults, so that the
//! grammar can be read from top to bottom. The faults and the expectations have files of their own.

#![expect(clippy::disallowed_methods, reason = "a scenario file is read before anything runs")]

mod expect;
mod faults;
mod probe;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use kafka::{ConfigError, Settings};
use toml::de::DeTable;

use super::diagnostic::{Invalid, did_you_mean, listed};
use super::hosts::Hosts;
use super::table::Table;
use super::{
    Cluster, Delivery, Probe, Rate, Run, Scenario, ScenarioError, ServiceSettings, ServiceWords,
    USUAL_LATENCY, Vocabulary, values,
};
use world::LatencyRange;

const SECTIONS: &[&str] =
    &["claim", "run", "refusals", "cluster", "probe", "services", "network", "fault", "expect"];

impl Scenario {
    /// Reads one file.
    ///
    /// # Errors
    /// [`ScenarioError::Unreadable`], or [`ScenarioError::Invalid`] for the first thing that is wrong in it.
    pub fn load(file: &Path, vocabulary: &Vocabulary) -> Result<Scenario, ScenarioError> {
        let unreadable = |source| ScenarioError::Unreadable { path: file.to_owned(), source };
        let text = fs::read_to_string(file).map_err(unreadable)?;
        Scenario::parse(file, &text, vocabulary)
    }

    /// Reads all scenarios that `paths` name, in that order; a folder's by name.
    ///
    /// # Errors
    /// As [`Scenario::load`], and [`ScenarioError::NoScenario`] for a folder without one.
    pub fn load_all(paths: &[PathBuf], vocabulary: &Vocabulary) -> Result<Vec<Scenario>, ScenarioError> {
        let mut scenarios = Vec::new();
        for path in paths {
            if path.is_dir() {
                for file in files_of(path)? {
                    scenarios.push(Scenario::load(&file, vocabulary)?);
                }
            } else {
                scenarios.push(Scenario::load(path, vocabulary)?);
            }
        }
        Ok(scenarios)
    }

    /// Reads a file's text; `file` gives the scenario its name and stands in errors.
    ///
    /// # Errors
    /// [`ScenarioError::Invalid`] for the first thing that is wrong in it.
    pub fn parse(file: &Path, text: &str, vocabulary: &Vocabulary) -> Result<Scenario, ScenarioError> {
        read(file, text, vocabulary).map_err(|invalid| invalid.show(file, text))
    }
}

/// The scenarios of a folder: its own `*.toml` files, in the order of their names.
fn files_of(folder: &Path) -> Result<Vec<PathBuf>, ScenarioError> {
    let unreadable = |source| ScenarioError::Unreadable { path: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() { Err(ScenarioError::NoScenario { folder: folder.to_owned() }) } else { Ok(files) }
}

fn read(file: &Path, text: &str, vocabulary: &Vocabulary) -> Result<Scenario, Invalid> {
    let document = DeTable::parse(text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        Invalid::new(span, format!("this is not TOML: {}", error.message()), "here")
            .help("the format is described at https://toml.io")
    })?;
    // What is missing at the top is missing at the beginning of the file.
    let top = Table::new("a scenario", document.get_ref(), 0..0, SECTIONS, &[])?;

    let claim = claim(&top)?;
    let probe = probe::read(&top)?;
    let run = run(&top, probe.is_some())?;
    let refusals = refusals(&top, &run, vocabulary)?;
    let cluster = cluster(&top)?;
    let services = services(&top, vocabulary)?;
    let latency = network(&top)?;
    let hosts = Hosts::new(cluster.brokers, &services, probe.as_ref(), vocabulary);
    let topics = vocabulary.topics.iter().cloned().chain(probe.as_ref().map(|_| Probe::TOPIC.to_owned()));
    let topics: Vec<String> = topics.collect();
    let world =
        faults::World { cluster: &cluster, services: &services, hosts: &hosts, topics: &topics, vocabulary };
    let faults = faults::read(&top, text, &world)?;
    let expect = expect::read(&top, &faults, &cluster, vocabulary)?;

    let name = file.file_stem().unwrap_or(file.as_os_str()).to_string_lossy().into_owned();
    let (file, text) = (file.to_owned(), text.to_owned());
    Ok(Scenario { name, file, text, claim, run, refusals, cluster, probe, services, latency, faults, expect })
}

fn claim(top: &Table<'_>) -> Result<String, Invalid> {
    let example = "claim = \"no order is charged twice when a broker crashes\"";
    let claim = top.need("claim", example)?;
    let text = claim.string(example)?;
    if text.trim().is_empty() || text.contains('\n') {
        return Err(
            Invalid::new(claim.span(), "`claim` must be one sentence", "one line of text").help(example)
        );
    }
    Ok(text.to_owned())
}

fn run(top: &Table<'_>, has_probe: bool) -> Result<Run, Invalid> {
    const KEYS: &[&str] = &["seeds", "orders", "arrival", "customers", "items"];
    let mut run = Run {
        seeds: 10,
        // A probe is a workload; whoever wants orders beside it says so.
        orders: if has_probe { 0 } else { 100 },
        arrival: Rate { count: 20, per: std::time::Duration::from_secs(1) },
        customers: 20,
        items: 10,
    };
    let Some(section) = top.get("run") else { return Ok(run) };
    let section = section.table("`[run]`", KEYS, &[], "[run]")?;
    if let Some(seeds) = section.get("seeds") {
        run.seeds = u64::from(seeds.whole(1..=1_000_000)?);
    }
    if let Some(orders) = section.get("orders") {
        run.orders = orders.whole(u32::from(!has_probe)..=1_000_000)?;
    }
    if let Some(arrival) = section.get("arrival") {
        run.arrival = arrival.parse("arrival = \"20/s\"", values::rate)?;
    }
    if let Some(customers) = section.get("customers") {
        run.customers = customers.whole(1..=1_000_000)?;
    }
    if let Some(items) = section.get("items") {
        run.items = items.whole(1..=10_000)?;
    }
    Ok(run)
}

fn refusals(top: &Table<'_>, run: &Run, vocabulary: &Vocabulary) -> Result<BTreeMap<String, u32>, Invalid> {
    let mut refusals: BTreeMap<String, u32> =
        vocabulary.refusals.iter().map(|kind| (kind.clone(), 0)).collect();
    let Some(section) = top.get("refusals") else { return Ok(refusals) };
    let known: Vec<&str> = vocabulary.refusals.iter().map(String::as_str).collect();
    let section = section.table("`[refusals]`", &known, &[], "[refusals]")?;
    let mut total: u64 = 0;
    for entry in section.entries() {
        let orders = entry.whole(0..=1_000_000)?;
        total += u64::from(orders);
        if total > u64::from(run.orders) {
            let says = format!("{total} orders are to be refused, but only {} are sent", run.orders);
            let help = "each order meets one refusal at most: raise `orders` under `[run]`, or refuse fewer";
            return Err(Invalid::new(entry.span(), says, "more than there are orders").help(help));
        }
        refusals.insert(entry.key.to_owned(), orders);
    }
    Ok(refusals)
}

fn cluster(top: &Table<'_>) -> Result<Cluster, Invalid> {
    const KEYS: &[&str] = &[
        "brokers",
        "replication_factor",
        "min_insync_replicas",
        "partitions",
        "transaction_version",
        "config",
        "features",
    ];
    let mut cluster = Cluster {
        brokers: 3,
        replication_factor: 1,
        min_insync_replicas: 1,
        partitions: 3,
        config: BTreeMap::new(),
        features: BTreeMap::new(),
    };
    let Some(section) = top.get("cluster") else { return Ok(cluster) };
    let section = section.table("`[cluster]`", KEYS, &[], "[cluster]")?;
    if let Some(brokers) = section.get("brokers") {
        cluster.brokers = brokers.whole(1..=99)?;
    }
    if let Some(factor) = section.get("replication_factor") {
        cluster.replication_factor = factor.whole(1..=99)?;
        if cluster.replication_factor > cluster.brokers {
            let brokers = cluster.brokers;
            let says = format!("`replication_factor` is above the number of brokers, which is {brokers}");
            let help = "each replica of a partition is on a broker of its own";
            return Err(Invalid::new(factor.span(), says, "too many").help(help));
        }
    }
    if let Some(replicas) = section.get("min_insync_replicas") {
        cluster.min_insync_replicas = replicas.whole(1..=99)?;
        if cluster.min_insync_replicas > cluster.replication_factor {
            let factor = cluster.replication_factor;
            let says = format!("`min_insync_replicas` is above the replication factor, which is {factor}");
            let help = "no write with `acks=all` could ever succeed";
            return Err(Invalid::new(replicas.span(), says, "too many").help(help));
        }
    }
    if let Some(partitions) = section.get("partitions") {
        cluster.partitions = partitions.whole(1..=1_000)?;
    }
    if let Some(config) = section.get("config") {
        let example = "config = { \"broker.session.timeout.ms\" = 9000 }";
        for entry in config.broker_settings("`config`", kafka::SETTING_NAMES, example)?.entries() {
            cluster.config.insert(entry.key.to_owned(), entry.setting()?);
            // What the brokers will say to it, said now.
            if let Err(error) = Settings::of_cluster(&cluster.config, cluster.brokers as usize) {
                let span = match error {
                    ConfigError::NoSuchBroker { .. } => entry.key_span(),
                    _ => entry.span(),
                };
                return Err(Invalid::new(span, error.to_string(), "the brokers refuse this"));
            }
        }
    }
    if let Some(version) = section.get("transaction_version") {
        let level = i16::try_from(version.whole(0..=2)?).expect("it is at most 2");
        cluster.features.insert("transaction.version".to_owned(), level);
    }
    if let Some(features) = section.get("features") {
        let example = "features = { \"eligible.leader.replicas.version\" = 0 }";
        for entry in features.table("`features`", &kafka::Features::NAMES, &[], example)?.entries() {
            if cluster.features.contains_key(entry.key) {
                let says = "the level of `transaction.version` is given twice";
                let help = "keep `transaction_version` or its entry in `features`";
                return Err(Invalid::new(entry.key_span(), says, "one too many").help(help));
            }
            let level = i16::try_from(entry.whole(0..=i16::MAX as u32)?).expect("it is within its range");
            cluster.features.insert(entry.key.to_owned(), level);
            kafka::Features::parse(&cluster.features)
                .map_err(|error| Invalid::new(entry.span(), error.to_string(), "the brokers refuse this"))?;
        }
    }
    Ok(cluster)
}

fn services(top: &Table<'_>, vocabulary: &Vocabulary) -> Result<BTreeMap<String, ServiceSettings>, Invalid> {
    let usual =
        ServiceSettings { replicas: 1, delivery: Delivery::Outbox, naive: Vec::new(), step_timeout: None };
    let mut services: BTreeMap<String, ServiceSettings> =
        vocabulary.services.keys().map(|name| (name.clone(), usual.clone())).collect();
    let Some(section) = top.get("services") else { return Ok(services) };
    for entry in section.named("`[services]`", "[services.payment]")?.entries() {
        let names = || vocabulary.services.keys().map(String::as_str);
        let Some(words) = vocabulary.services.get(entry.key) else {
            let says = format!("there is no service `{}`", entry.key);
            let help = format!("the services are {}", listed(names()));
            return Err(Invalid::new(entry.key_span(), says, did_you_mean(entry.key, names())).help(help));
        };
        let title = format!("`[services.{}]`", entry.key);
        const KEYS: &[&str] = &["replicas", "delivery", "naive", "step_timeout"];
        let table = entry.table(&title, KEYS, &[], "[services.payment]")?;
        services.insert(entry.key.to_owned(), service(&table, entry.key, words, usual.clone())?);
    }
    Ok(services)
}

fn service(
    table: &Table<'_>,
    name: &str,
    words: &ServiceWords,
    mut settings: ServiceSettings,
) -> Result<ServiceSettings, Invalid> {
    if let Some(replicas) = table.get("replicas") {
        settings.replicas = replicas.whole(1..=99)?;
    }
    if let Some(delivery) = table.get("delivery") {
        settings.delivery = match delivery.string("delivery = \"outbox\"")? {
            "outbox" => Delivery::Outbox,
            "transactions" => {
                let says = "the services deliver through an outbox so far: transactions come later";
                let invalid = Invalid::new(delivery.span(), says, "not yet");
                return Err(invalid.help("write `delivery = \"outbox\"`"));
            }
            other => {
                let label = did_you_mean(other, ["outbox"]);
                let invalid = Invalid::new(delivery.span(), format!("there is no delivery `{other}`"), label);
                return Err(invalid.help("write `delivery = \"outbox\"`"));
            }
        };
    }
    if let Some(naive) = table.get("naive") {
        for (flaw, span) in naive.strings("naive = [\"no_inbox\"]")? {
            if !words.flaws.contains_key(flaw) {
                let says = format!("`{name}` has no flaw `{flaw}`");
                let flaws = || words.flaws.keys().map(String::as_str);
                let help = match words.flaws.is_empty() {
                    true => format!("`{name}` has no planted flaws; leave `naive` out"),
                    false => format!("the flaws of `{name}` are {}", listed(flaws())),
                };
                return Err(Invalid::new(span, says, did_you_mean(flaw, flaws())).help(help));
            }
            settings.naive.push(flaw.to_owned());
        }
    }
    if let Some(timeout) = table.get("step_timeout") {
        if !words.has_steps {
            let says = format!("`{name}` runs no sagas, so that `step_timeout` says nothing");
            return Err(Invalid::new(timeout.key_span(), says, "leave this out"));
        }
        settings.step_timeout = Some(timeout.parse("step_timeout = \"10s\"", values::duration)?);
    }
    Ok(settings)
}

fn network(top: &Table<'_>) -> Result<LatencyRange, Invalid> {
    let Some(section) = top.get("network") else { return Ok(USUAL_LATENCY) };
    let section = section.table("`[network]`", &["latency"], &[], "[network]")?;
    match section.get("latency") {
        Some(latency) => latency.parse("latency = \"1ms..5ms\"", values::latency),
        None => Ok(USUAL_LATENCY),
    }
}
