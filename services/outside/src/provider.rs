//! A ledger behind HTTP: what all three systems have in common.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use context::{Context, Program, Rng, Timestamp};
use kit::http::{Endpoint, Request, Response, serve};
use rand::RngExt as _;
use serde::Serializer;

use crate::PORT;

/// A ledger that answers requests: pure, as all cores are.
pub trait Ledger: Send + 'static {
    /// Applies one request at `now` and answers it.
    fn answer(&mut self, now: Timestamp, request: &Request) -> Response;
}

/// One outside system. It outlives the host that serves it, as a company outlives a machine: keep it in an [`Arc`]
/// and serve it anew at every start of the host.
pub struct Provider<L> {
    ledger: Mutex<L>,
    service_time: ServiceTime,
    open: AtomicUsize,
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
            service_time: ServiceTime::default(),
            open: AtomicUsize::new(0),
        }
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
        let response = self.provider.ledger().answer(context.now(), &request);
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
