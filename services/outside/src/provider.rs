//! A ledger behind HTTP: what all three systems have in common.
//!
//! In a simulated world a ledger outlives its host because it is made outside of it. As a program of its own a system keeps
//! a journal ([`Provider::open`]): every request that may have an effect is written down, with its time, before it is done and
//! answered, and a start does them again in their order. A ledger is a function of what it was asked, so that it is then what
//! it was; hence its rules may be extended, but not changed under a journal.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use context::{Context, Program, Rng, Timestamp};
use kit::http::{Endpoint, Method, Request, Response, StatusCode, serve};
use kit::store::Key;
use kit::store::journal::Write;
use kit::{Store, StoreError, StoreExt, Table};
use prost::Message as _;
use rand::RngExt as _;
use serde::Serializer;

use crate::{PORT, wire};

/// What a system was asked, in the order in which it was done.
const JOURNAL: Table<u64, Asked> = Table::new("journal");

/// A request as it is written down.
#[derive(Clone, PartialEq, prost::Message)]
struct Asked {
    /// The time on the system's clock, in microseconds since the Unix epoch.
    #[prost(uint64, tag = "1")]
    at_us: u64,
    #[prost(string, tag = "2")]
    method: String,
    #[prost(string, tag = "3")]
    path: String,
    #[prost(string, optional, tag = "4")]
    key: Option<String>,
    #[prost(bytes = "bytes", tag = "5")]
    body: Bytes,
}

/// A ledger that answers requests: pure, as all cores are.
pub trait Ledger: Send + 'static {
    /// Applies one request at `now` and answers it.
    fn answer(&mut self, now: Timestamp, request: &Request) -> Response;
}

/// One outside system. It outlives the host that serves it, as a company outlives a machine: keep it in an [`Arc`]
/// and serve it anew at every start of the host.
pub struct Provider<L> {
    ledger: Mutex<L>,
    /// Where requests are written down; none if the ledger outlives its host anyway.
    journal: Option<Journal>,
    service_time: ServiceTime,
    open: AtomicUsize,
}

/// A store, and the place of the next request in it.
struct Journal {
    store: Arc<dyn Store>,
    next: AtomicU64,
}

impl Journal {
    /// The caller holds the ledger: nobody else writes.
    fn write(&self, context: &Context, at: Timestamp, request: &Request) -> Result<(), StoreError> {
        let asked = Asked {
            at_us: at.as_micros(),
            method: request.method.to_string(),
            path: request.path.clone(),
            key: request.idempotency_key.clone(),
            body: request.body.clone(),
        };
        let number = self.next.load(Ordering::Relaxed);
        self.store.transact_with::<_, StoreError>(context, |tables| JOURNAL.put(tables, &number, &asked))?;
        self.next.store(number + 1, Ordering::Relaxed);
        Ok(())
    }
}

impl Asked {
    fn request(self, number: u64) -> Result<(Timestamp, Request), StoreError> {
        let method = self.method.parse().map_err(|_| StoreError::Corrupt {
            table: JOURNAL.name().to_owned(),
            cause: format!("request {number} has the method `{}`", self.method),
        })?;
        let request = Request { method, path: self.path, idempotency_key: self.key, body: self.body };
        Ok((Timestamp::from_micros(self.at_us), request))
    }
}

/// How long a system takes for a request. Half of it passes before the effect and half after, so that a caller can
/// lose the answer of a request that was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceTime {
    /// In milliseconds: at least.
    pub ms_min: u64,
    /// In milliseconds: at most.
    pub ms_max: u64,
}

impl Default for ServiceTime {
    /// 2 to 8 ms: a provider in the same region, on a good day.
    fn default() -> ServiceTime {
        ServiceTime { ms_min: 2, ms_max: 8 }
    }
}

impl<L: Ledger> Provider<L> {
    /// A system with this ledger and the default service time.
    pub fn new(ledger: L) -> Provider<L> {
        Provider {
            ledger: Mutex::new(ledger),
            journal: None,
            service_time: ServiceTime::default(),
            open: AtomicUsize::new(0),
        }
    }

    /// A system whose ledger begins as `ledger`, and is where the journal in `store` leads. It goes on writing there. The store
    /// belongs to this system alone.
    ///
    /// # Errors
    /// [`StoreError`] if the journal does not read.
    pub fn open(mut ledger: L, store: Arc<dyn Store>) -> Result<Provider<L>, StoreError> {
        let asked = store.read_with::<_, StoreError>(|tables| JOURNAL.all(tables))?;
        let journal = Journal { store, next: AtomicU64::new(asked.last().map_or(0, |(last, _)| last + 1)) };
        for (number, asked) in asked {
            let (at, request) = asked.request(number)?;
            ledger.answer(at, &request);
        }
        Ok(Provider { journal: Some(journal), ..Provider::new(ledger) })
    }

    /// Does the requests that another process of this system has written down, by the writes of a commit to its journal: so
    /// that this ledger follows that one. What other tables were written says nothing to it.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if they do not read.
    pub fn follow(&self, writes: &[Write]) -> Result<(), StoreError> {
        let corrupt = |cause: String| StoreError::Corrupt { table: JOURNAL.name().to_owned(), cause };
        for write in writes.iter().filter(|write| write.table == JOURNAL.name()) {
            let number = <u64 as Key>::decode(&write.key)
                .ok_or_else(|| corrupt("a request has no number".to_owned()))?;
            // A journal only grows.
            let Some(value) = &write.value else {
                return Err(corrupt(format!("request {number} was deleted")));
            };
            let asked = Asked::decode(value.clone()).map_err(|error| corrupt(error.to_string()))?;
            let (at, request) = asked.request(number)?;
            self.ledger().answer(at, &request);
        }
        Ok(())
    }

    /// Does a request, once it is written down.
    fn answer(&self, context: &Context, request: &Request) -> Response {
        // Held over the writing, so that the journal has the requests in the order in which they are done.
        let mut ledger = self.ledger();
        let now = context.now();
        if let Some(journal) = &self.journal
            && request.method != Method::GET
            && let Err(error) = journal.write(context, now, request)
        {
            let message = format!("nothing was done: the journal cannot be written: {error}");
            return wire::failure(StatusCode::SERVICE_UNAVAILABLE, "journal_failed", &message);
        }
        ledger.answer(now, request)
    }

    /// With another service time.
    ///
    /// # Panics
    /// If its minimum is above its maximum.
    #[must_use]
    pub fn with_service_time(self, service_time: ServiceTime) -> Provider<L> {
        assert!(service_time.ms_min <= service_time.ms_max, "a service time ends before it begins");
        Provider { service_time, ..self }
    }

    /// The ledger, to look into. Hold it briefly: requests wait.
    pub fn ledger(&self) -> MutexGuard<'_, L> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many requests it works on now: 0 when it is quiet.
    pub fn open_calls(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Serves requests on [`PORT`] until the host stops.
    ///
    /// # Errors
    /// If nothing can listen there.
    pub async fn run(self: Arc<Self>, context: Context) -> io::Result<()> {
        self.run_on(context, PORT).await
    }

    /// Serves requests on another port: where 80 is not to be had.
    ///
    /// # Errors
    /// If nothing can listen there.
    pub async fn run_on(self: Arc<Self>, context: Context, port: u16) -> io::Result<()> {
        let pace = Mutex::new(context.rng("service-time"));
        serve(context, port, Arc::new(Counter { provider: self, pace })).await
    }

    /// The program of a host that serves it.
    pub fn program(self: &Arc<Self>) -> Program {
        let provider = self.clone();
        context::program(move |context: Context| {
            let provider = provider.clone();
            async move {
                let served = provider.run(context.clone()).await;
                panic!("{} cannot listen: {served:?}", context.name());
            }
        })
    }
}

impl<L> fmt::Debug for Provider<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Provider<{}>({} open)", std::any::type_name::<L>(), self.open.load(Ordering::Relaxed))
    }
}

/// Where a provider takes its requests: one for each start of the host.
struct Counter<L> {
    provider: Arc<Provider<L>>,
    pace: Mutex<Rng>,
}

impl<L: Ledger> Counter<L> {
    /// The two halves of a request's service time.
    fn draw(&self) -> (Duration, Duration) {
        let ServiceTime { ms_min, ms_max } = self.provider.service_time;
        let ms = self.pace.lock().unwrap_or_else(PoisonError::into_inner).random_range(ms_min..=ms_max);
        (Duration::from_millis(ms / 2), Duration::from_millis(ms - ms / 2))
    }
}

#[async_trait]
impl<L: Ledger> Endpoint for Counter<L> {
    async fn call(&self, context: &Context, request: Request) -> Response {
        let _open = Open::count(&self.provider.open);
        let (before, after) = self.draw();
        context.sleep(before).await;
        let response = self.provider.answer(context, &request);
        context.note(format_args!(
            "{} {} -> {} {}",
            request.method,
            request.path,
            response.status.as_u16(),
            String::from_utf8_lossy(&response.body)
        ));
        context.sleep(after).await;
        response
    }
}

/// Counts a call as open while it lives; a killed host drops its calls.
struct Open<'a>(&'a AtomicUsize);

impl<'a> Open<'a> {
    fn count(open: &'a AtomicUsize) -> Open<'a> {
        open.fetch_add(1, Ordering::Relaxed);
        Open(open)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A time on the wire: Unix milliseconds.
pub(crate) fn millis<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(at.as_millis())
}

/// A time that may not have come: Unix milliseconds, or null.
pub(crate) fn millis_or_null<S: Serializer>(
    at: &Option<Timestamp>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => serializer.serialize_some(&at.as_millis()),
        None => serializer.serialize_none(),
    }
}
