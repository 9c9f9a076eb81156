//! Hosts of the six as processes of their own, and how the harness sees what they keep.
//!
//! Such a host keeps one store in a file: a service its tables, an outside system the journal of what it was asked. The
//! process tells what it finds there when it starts; from then on every commit is recorded with its writes. The harness's
//! own [`Parts`] follow: the same stores in memory, the same ledgers, so that windows, checks and measurements are those
//! of a simulated run. What a killed process has committed and not said, its successor tells.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use context::{Context, Program};
use harness::system::{Home, News, Setup};
use kit::store::journal::{self, Write};
use kit::store::{RedbStore, Survives};
use kit::{MemStore, Store};
use outside::{Carrier, Gateway, Ledger, Mail, Provider};

use super::parts::Parts;

/// How often an outside system looks whether its open calls are others than it has told.
const CALLS_EVERY: Duration = Duration::from_millis(50);

/// What a host told, by its first byte: all that its store holds, as the bytes of a commit.
const CONTENTS: u8 = 0;
/// How many calls an outside system has open, little-endian.
const CALLS: u8 = 1;

/// What this host runs as a process of its own.
pub(super) fn program(setup: &Setup<'_>, host: &str, home: &Home) -> Result<Program, String> {
    let path = home.folder.join("store.redb");
    let name = service_of(host).to_owned();
    // Faults kill processes here and never the machine: what the kernel has is safe.
    let store =
        RedbStore::open(name.as_str(), path, Survives::ProcessCrash).map_err(|error| error.to_string())?;
    let contents = store.dump().map_err(|error| error.to_string())?;
    let writes = contents.into_iter().map(|(table, key, value)| Write { table, key, value: Some(value) });
    let mut news = vec![CONTENTS];
    news.extend(journal::encode(&writes.collect::<Vec<_>>()));
    home.tell(&news);

    let store: Arc<dyn Store> = Arc::new(store);
    match name.as_str() {
        outside::gateway::HOST => provider(Gateway::new(), store, home),
        outside::carrier::HOST => provider(Carrier::new(), store, home),
        outside::mail::HOST => provider(Mail::new(), store, home),
        service => Ok(Parts::new(setup).service_program(service, &setup.clients, store)),
    }
}

fn provider<L: Ledger>(ledger: L, store: Arc<dyn Store>, home: &Home) -> Result<Program, String> {
    let provider = Arc::new(Provider::open(ledger, store).map_err(|error| error.to_string())?);
    let home = home.clone();
    Ok(context::program(move |context: Context| {
        context.spawn("calls", tell_calls(context.clone(), provider.clone(), home.clone()));
        provider.program()(context)
    }))
}

async fn tell_calls<L: Ledger>(context: Context, provider: Arc<Provider<L>>, home: Home) {
    let mut told = 0;
    loop {
        let open = provider.open_calls() as u64;
        if open != told {
            let mut news = vec![CALLS];
            news.extend(open.to_le_bytes());
            home.tell(&news);
            told = open;
        }
        context.sleep(CALLS_EVERY).await;
    }
}

/// `order-1` is a replica of `order`; an outside system is its own host.
fn service_of(host: &str) -> &str {
    match host.rsplit_once('-') {
        Some((service, number)) if number.parse::<u32>().is_ok() => service,
        _ => host,
    }
}

/// What hosts in processes of their own keep, as far as [`Parts`] have no place for it.
#[derive(Debug)]
pub(super) struct Mirror {
    /// The journals of the outside systems, by host.
    journals: BTreeMap<&'static str, MemStore>,
    /// Their open calls.
    calls: BTreeMap<&'static str, AtomicU64>,
}

impl Mirror {
    pub(super) fn new() -> Mirror {
        let hosts = [outside::gateway::HOST, outside::carrier::HOST, outside::mail::HOST];
        Mirror {
            journals: hosts.map(|host| (host, MemStore::new(host))).into(),
            calls: hosts.map(|host| (host, AtomicU64::new(0))).into(),
        }
    }

    /// The calls that are open in other processes.
    pub(super) fn calls_open(&self) -> u64 {
        self.calls.values().map(|calls| calls.load(Ordering::Relaxed)).sum()
    }

    /// Takes news into `parts`. See [`harness::system::Deployment::mirror`].
    pub(super) fn hear(&self, parts: &Parts, host: &str, news: News<'_>) -> Result<Option<String>, String> {
        let service = service_of(host);
        match news {
            News::Committed(bytes) => {
                self.follow(parts, service, &read(bytes)?)?;
                Ok(None)
            }
            News::Told([CONTENTS, bytes @ ..]) => {
                let missed = missed(self.store(parts, service)?, read(bytes)?);
                self.follow(parts, service, &missed)?;
                if let Some(calls) = self.calls.get(service) {
                    // Those of its predecessor are gone with it.
                    calls.store(0, Ordering::Relaxed);
                }
                let said = || format!("{service} wrote {} that it could not tell of before", missed.len());
                Ok((!missed.is_empty()).then(said))
            }
            News::Told([CALLS, bytes @ ..]) => {
                let calls = self.calls.get(service).ok_or_else(|| format!("`{host}` takes no calls"))?;
                let open = bytes.try_into().map_err(|_| format!("`{host}` tells no number of calls"))?;
                calls.store(u64::from_le_bytes(open), Ordering::Relaxed);
                Ok(None)
            }
            News::Told(_) => Err(format!("`{host}` tells what nobody knows")),
        }
    }

    fn store<'a>(&'a self, parts: &'a Parts, service: &str) -> Result<&'a MemStore, String> {
        let of_service =
            || parts.stores.all().into_iter().find(|(name, _)| *name == service).map(|(_, store)| store);
        let store = self.journals.get(service).or_else(of_service);
        store.ok_or_else(|| format!("there is no service `{service}`"))
    }

    fn follow(&self, parts: &Parts, service: &str, writes: &[Write]) -> Result<(), String> {
        self.store(parts, service)?.follow(writes);
        let followed = match service {
            outside::gateway::HOST => parts.gateway.follow(writes),
            outside::carrier::HOST => parts.carrier.follow(writes),
            outside::mail::HOST => parts.mail.follow(writes),
            _ => Ok(()),
        };
        followed.map_err(|error| error.to_string())
    }
}

fn read(bytes: &[u8]) -> Result<Vec<Write>, String> {
    journal::decode(bytes).ok_or_else(|| "a commit does not read".to_owned())
}

/// The writes that make `store` what it is said to be.
fn missed(store: &MemStore, contents: Vec<Write>) -> Vec<Write> {
    let known = store.dump().into_iter().map(|(table, key, value)| ((table, key), value));
    let mut known: BTreeMap<_, _> = known.collect();
    let mut missed: Vec<Write> = contents
        .into_iter()
        .filter(|write| known.remove(&(write.table.clone(), write.key.clone())) != write.value)
        .collect();
    missed.extend(known.into_keys().map(|(table, key)| Write { table, key, value: None }));
    missed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::six::plan::Plan;

    fn nothing() -> Plan {
        Plan { orders: Vec::new(), initial_stock: BTreeMap::new() }
    }

    fn write(table: &str, key: &'static str, value: Option<&'static str>) -> Write {
        Write { table: table.into(), key: key.into(), value: value.map(Into::into) }
    }

    fn told(contents: &[Write]) -> Vec<u8> {
        [&[CONTENTS][..], &journal::encode(contents)].concat()
    }

    #[test]
    fn a_store_is_mirrored_by_its_commits_and_what_was_not_told_is_told_by_the_successor() {
        let (mirror, parts) = (Mirror::new(), Parts::still(nothing()));
        let first = [write("a", "1", Some("x")), write("a", "2", Some("y"))];
        assert_eq!(mirror.hear(&parts, "payment-1", News::Told(&told(&[]))), Ok(None));
        assert_eq!(mirror.hear(&parts, "payment-1", News::Committed(&journal::encode(&first))), Ok(None));
        assert_eq!(parts.stores.payment.dump().len(), 2);
        assert_eq!(mirror.hear(&parts, "payment-1", News::Told(&told(&first))), Ok(None), "it knew all");

        let then = [write("a", "2", Some("z")), write("b", "3", Some("new"))];
        let said = mirror.hear(&parts, "payment-1", News::Told(&told(&then))).unwrap();
        assert_eq!(said.as_deref(), Some("payment wrote 3 that it could not tell of before"));
        let dump = parts.stores.payment.dump();
        let dump: Vec<_> =
            dump.iter().map(|(table, key, value)| (table.as_str(), &key[..], &value[..])).collect();
        assert_eq!(dump, [("a", &b"2"[..], &b"z"[..]), ("b", b"3", b"new")]);
    }

    #[test]
    fn calls_are_those_of_the_process_that_runs() {
        let (mirror, parts) = (Mirror::new(), Parts::still(nothing()));
        let calls = |open: u64| [&[CALLS][..], &open.to_le_bytes()].concat();
        mirror.hear(&parts, "gateway", News::Told(&calls(3))).unwrap();
        mirror.hear(&parts, "mail", News::Told(&calls(1))).unwrap();
        assert_eq!(mirror.calls_open(), 4);
        mirror.hear(&parts, "gateway", News::Told(&told(&[]))).unwrap();
        assert_eq!(mirror.calls_open(), 1);
    }

    #[test]
    fn what_nobody_keeps_is_an_error() {
        let (mirror, parts) = (Mirror::new(), Parts::still(nothing()));
        for (host, news) in [("nobody-1", &told(&[])[..]), ("order-1", &[7]), ("order-1", &[CONTENTS, 1])] {
            assert!(mirror.hear(&parts, host, News::Told(news)).is_err(), "{host}");
        }
    }
}
