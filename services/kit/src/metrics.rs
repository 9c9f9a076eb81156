//! Numbers of one service instance, for Prometheus. Every instance has a registry of its own: many run in one process.
//!
//! The names are the usual ones of the field: received, handled, errors by class, dead letters, retries, time per
//! message. Text order is the client library's; do not put it into a trace.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::{ReadTables, Store, StoreError, StoreExt, outbox, saga};

/// Seconds; a message that makes no call takes less than the first, one that is retried more than the last.
const BUCKETS: [f64; 10] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// The numbers. Cheap to clone: clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    registry: Registry,
    received: Family<TopicLabel, Counter>,
    handled: Family<TopicLabel, Counter>,
    skipped: Family<TopicLabel, Counter>,
    errors: Family<ErrorLabels, Counter>,
    retries: Family<TopicLabel, Counter>,
    dead_letters: Family<ErrorLabels, Counter>,
    panics: Counter,
    seconds: Family<TopicLabel, Histogram, fn() -> Histogram>,
    relayed: Counter,
    relay_failures: Counter,
    running: Gauge,
    outbox: Gauge,
    sagas_started: Gauge,
    sagas_open: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TopicLabel {
    topic: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    topic: String,
    class: String,
}

fn topic(topic: &str) -> TopicLabel {
    TopicLabel { topic: topic.to_owned() }
}

fn error(topic: &str, class: &str) -> ErrorLabels {
    ErrorLabels { topic: topic.to_owned(), class: class.to_owned() }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Metrics {
        let mut registry = Registry::default();
        let histogram: fn() -> Histogram = || Histogram::new(BUCKETS);
        let mut inner = Inner {
            registry: Registry::default(),
            received: Family::default(),
            handled: Family::default(),
            skipped: Family::default(),
            errors: Family::default(),
            retries: Family::default(),
            dead_letters: Family::default(),
            panics: Counter::default(),
            seconds: Family::new_with_constructor(histogram),
            relayed: Counter::default(),
            relay_failures: Counter::default(),
            running: Gauge::default(),
            outbox: Gauge::default(),
            sagas_started: Gauge::default(),
            sagas_open: Gauge::default(),
        };
        registry.register("messages_received", "Deliveries, repeats included", inner.received.clone());
        registry.register("messages_handled", "Deliveries that came to an end", inner.handled.clone());
        registry.register("messages_skipped", "Deliveries that the inbox knew", inner.skipped.clone());
        registry.register("messages_errors", "Tries that failed, by class", inner.errors.clone());
        registry.register("messages_retries", "Tries after the first", inner.retries.clone());
        registry.register("messages_dead_letters", "Messages given up, by class", inner.dead_letters.clone());
        registry.register("handler_panics", "Handlers that panicked", inner.panics.clone());
        registry.register("message_processing_seconds", "From delivery to its end", inner.seconds.clone());
        registry.register("outbox_relayed", "Records that the relay saw acknowledged", inner.relayed.clone());
        registry.register("outbox_failures", "Sends of the relay that failed", inner.relay_failures.clone());
        registry.register("messages_in_progress", "Deliveries in progress", inner.running.clone());
        registry.register("outbox_waiting", "Records that wait to be sent", inner.outbox.clone());
        registry.register("sagas_started", "Sagas in the store", inner.sagas_started.clone());
        registry.register("sagas_open", "Sagas that are not at their end", inner.sagas_open.clone());
        inner.registry = registry;
        Metrics { inner: Arc::new(inner) }
    }

    /// Looks into the service's store for what only it knows: what waits in the outbox, and how the sagas stand.
    ///
    /// # Errors
    /// The store's own.
    pub fn look(&self, store: &dyn Store) -> Result<(), StoreError> {
        let waiting = outbox::depth(store)?;
        let sagas = |tables: &dyn ReadTables| Ok((saga::started(tables)?, saga::open(tables)?));
        let (started, open) = store.read_with::<_, StoreError>(sagas)?;
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.inner.outbox.set(number(waiting));
        self.inner.sagas_started.set(number(started));
        self.inner.sagas_open.set(number(open));
        Ok(())
    }

    /// All numbers in Prometheus's text format (OpenMetrics); those of the store as [`Metrics::look`] found them last.
    pub fn text(&self) -> String {
        self.text_with(&Registry::default())
    }

    /// The same, and those of `more` behind them: what the service's host knows and the service does not. Their names must be
    /// others.
    pub fn text_with(&self, more: &Registry) -> String {
        let mut text = String::new();
        let written = encode_registry(&mut text, &self.inner.registry)
            .and_then(|()| encode_registry(&mut text, more))
            .and_then(|()| encode_eof(&mut text));
        written.expect("text is written to memory");
        text
    }

    /// A delivery began.
    pub fn received(&self, of: &str) {
        self.inner.received.get_or_create(&topic(of)).inc();
        self.inner.running.inc();
    }

    /// A delivery came to an end, or was given up.
    pub fn ended(&self, of: &str, took: Duration, settled: bool) {
        self.inner.running.dec();
        self.inner.seconds.get_or_create(&topic(of)).observe(took.as_secs_f64());
        if settled {
            self.inner.handled.get_or_create(&topic(of)).inc();
        }
    }

    /// The inbox knew a delivery.
    pub fn skipped(&self, of: &str) {
        self.inner.skipped.get_or_create(&topic(of)).inc();
    }

    /// A try failed.
    pub fn failed(&self, of: &str, class: &str) {
        self.inner.errors.get_or_create(&error(of, class)).inc();
    }

    /// A message is tried again.
    pub fn retried(&self, of: &str) {
        self.inner.retries.get_or_create(&topic(of)).inc();
    }

    /// A message was given up.
    pub fn dead_lettered(&self, of: &str, class: &str) {
        self.inner.dead_letters.get_or_create(&error(of, class)).inc();
    }

    /// A handler panicked.
    pub fn panicked(&self) {
        self.inner.panics.inc();
    }

    /// The relay saw so many records acknowledged.
    pub fn relayed(&self, records: u64) {
        self.inner.relayed.inc_by(records);
    }

    /// A send of the relay failed.
    pub fn relay_failed(&self) {
        self.inner.relay_failures.inc();
    }

    /// Handlers that panicked so far.
    pub fn panics(&self) -> u64 {
        self.inner.panics.get()
    }
}
