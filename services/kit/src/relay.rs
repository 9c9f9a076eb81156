//! Sends what waits in the outbox, in order, and deletes what is acknowledged.
//!
//! # Order
//! Of each lane (a topic with a key) at most one record is in flight; lanes do not wait for each other. So a record that
//! fails is never overtaken by a later one of its key, whatever the client does with what it has in flight, and a lane
//! that cannot be sent (a topic that is not there) holds up no other.
//!
//! # One relay at a time
//! The replicas of a service share the store, and each runs a relay; a lease row says which one sends. A relay that gets
//! nothing through for a while (a partition between it and the brokers) yields to another that wants the lease. The lease
//! is by time, so a replica that was paused may go on sending for a moment after another took over. That does no harm: each
//! relay sends a lane from its first unacknowledged record on, so the *first* appearance of every record is in order;
//! what comes again has the same message id, and the inbox of its reader knows it. The same goes for a crash between the
//! acknowledgement and the delete.
//!
//! Absent on purpose: batches (the producer lingers by itself) and transactions (a reader's inbox does their work).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use broker::{Broker, Producer, ProducerRecord, Properties};
use bytes::Bytes;
use context::{BoxFuture, Context, Rng, Timestamp};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use serde::{Deserialize, Serialize};

use crate::backoff::Backoff;
use crate::metrics::Metrics;
use crate::store::Json;
use crate::{Store, StoreError, StoreExt, Table, outbox};

const LEASE: Table<(), Lease, Json> = Table::new("kit.outbox.lease");

/// How long a lease lasts: the time for which a crashed relay holds up the others.
const LEASE_TIME: Duration = Duration::from_secs(3);
/// How long a relay may get nothing through before it yields to another that waits. Longer than a leader's election, which
/// would hold up the other as well.
const PATIENCE: Duration = Duration::from_secs(5);
/// Records that the relay holds in memory.
const WINDOW: usize = 1024;
/// Waits after a failed send, of its lane only; and after a store or a broker that fails, of all.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));

/// Who sends, and until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Lease {
    /// A host's name: its next incarnation takes the lease over at once.
    holder: String,
    /// In Unix milliseconds.
    until_ms: u64,
    /// The last to ask for it in vain.
    wanted_by: Option<String>,
}

/// The producer's properties that the relay needs: idempotence, hence `acks=all`.
pub fn properties() -> Properties {
    Properties::new().set("enable.idempotence", true).set("acks", "all")
}

/// Runs a relay until the host stops. `overrides` go over [`properties`].
pub async fn run(
    context: Context,
    broker: Arc<dyn Broker>,
    store: Arc<dyn Store>,
    overrides: Properties,
    metrics: Metrics,
) {
    let properties = properties().set("client.id", context.name()).with(&overrides);
    let mut rng = context.rng("relay");
    let mut failed = 0;
    loop {
        // Before there is anything to send: an idempotent producer of librdkafka has no id, and sends nothing, for half a
        // second, and the first event after a start should not wait for that at each of its hops.
        let producer = match broker.producer(&properties).await {
            Ok(producer) => producer,
            Err(error) => {
                failed += 1;
                metrics.relay_failed();
                context.trouble(format_args!("relay: no producer: {error}"));
                context.sleep(BACKOFF.wait(failed, &mut rng)).await;
                continue;
            }
        };
        take_lease_in_the_end(&context, &store, &mut failed, &mut rng).await;
        let mut relay = Relay::new(&context, &store, producer, &metrics);
        let ended = relay.send_all().await;
        let text = format!("relay: stopped after {} records: {ended}", relay.landed);
        match ended {
            // Another replica sends; that is how it should be.
            Stop::LeaseLost(_) | Stop::Yielded(_) => context.note(format_args!("{text}")),
            _ => context.trouble(format_args!("{text}")),
        }
        // After progress this is a new trouble, not the old one again.
        failed = if relay.landed > 0 { 1 } else { failed + 1 };
        if !matches!(ended, Stop::LeaseLost(_) | Stop::Yielded(_)) {
            context.sleep(BACKOFF.wait(failed, &mut rng)).await;
        }
    }
}

/// Waits until there is something to send and this replica may send it.
async fn take_lease_in_the_end(context: &Context, store: &Arc<dyn Store>, failed: &mut u32, rng: &mut Rng) {
    loop {
        // Cheap when there is nothing to do: no lease.
        until_not_empty(store).await;
        match take_lease(context, store) {
            Ok(Held::Mine(_)) => return,
            Ok(Held::Other(until)) => context.sleep_until(until).await,
            Err(error) => {
                *failed += 1;
                context.trouble(format_args!("relay: no lease: {error}"));
                context.sleep(BACKOFF.wait(*failed, rng)).await;
            }
        }
    }
}

/// Waits until the outbox has rows. A store that cannot be read counts as not empty: the next step will say so.
async fn until_not_empty(store: &Arc<dyn Store>) {
    let changed = store.changed();
    loop {
        // Before the look, so that no commit goes unseen between the look and the wait.
        let mut committed = std::pin::pin!(changed.notified());
        committed.as_mut().enable();
        if outbox::depth(&**store).is_ok_and(|depth| depth == 0) {
            committed.await;
        } else {
            return;
        }
    }
}

enum Held {
    Mine(Lease),
    Other(Timestamp),
}

impl Lease {
    fn until(&self) -> Timestamp {
        Timestamp::from_millis(self.until_ms)
    }

    /// The lease of `holder` from now on.
    fn begin(holder: &str, now: Timestamp) -> Lease {
        Lease { holder: holder.to_owned(), until_ms: (now + LEASE_TIME).as_millis(), wanted_by: None }
    }
}

/// Takes the lease if it is free, renews it in its second half, and asks for it if another holds it.
fn take_lease(context: &Context, store: &Arc<dyn Store>) -> Result<Held, StoreError> {
    let (me, now) = (context.name(), context.now());
    // Mostly there is nothing to write: a look spares a transaction.
    let lease = store.read_with::<_, StoreError>(|tables| LEASE.get(tables, &()))?;
    if let Some(lease) = lease {
        let mine = lease.holder == me;
        if mine && lease.until() > now + LEASE_TIME / 2 {
            return Ok(Held::Mine(lease));
        }
        if !mine && lease.until() > now && lease.wanted_by.is_some() {
            return Ok(Held::Other(lease.until()));
        }
    }
    store.transact_with(context, |tables| {
        let lease = match LEASE.get(tables, &())? {
            Some(mut lease) if lease.holder != me && lease.until() > now => {
                lease.wanted_by = Some(me.to_owned());
                LEASE.put(tables, &(), &lease)?;
                return Ok(Held::Other(lease.until()));
            }
            Some(lease) if lease.holder == me => {
                Lease { wanted_by: lease.wanted_by, ..Lease::begin(me, now) }
            }
            Some(lease) => {
                context.note(format_args!("relay: takes over from {}", lease.holder));
                Lease::begin(me, now)
            }
            None => Lease::begin(me, now),
        };
        LEASE.put(tables, &(), &lease)?;
        Ok(Held::Mine(lease))
    })
}

/// A topic with a key.
type Lane = (Arc<str>, Option<Bytes>);

/// What the relay holds in memory while it has the lease.
struct Relay<'a> {
    context: &'a Context,
    store: &'a Arc<dyn Store>,
    producer: Arc<dyn Producer>,
    metrics: &'a Metrics,
    /// The next row to read.
    next: u64,
    /// Rows read and not yet deleted.
    held: usize,
    /// Rows acknowledged and deleted.
    landed: u64,
    /// When a row last landed, or was launched with no other in flight.
    moved_at: Timestamp,
    /// Rows that wait behind the one in flight of their lane. A lane is here exactly while it has one in flight.
    lanes: BTreeMap<Lane, VecDeque<(u64, ProducerRecord)>>,
    flights: FuturesUnordered<BoxFuture<'static, Flight>>,
}

/// The end of a record's flight.
struct Flight {
    lane: Lane,
    sequence: u64,
    result: Result<(), broker::Error>,
}

/// Why a relay starts anew.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("the producer is done: {0}")]
    Producer(broker::Error),
    #[error("another replica holds the lease until {0:?}")]
    LeaseLost(Timestamp),
    #[error("nothing went through for {PATIENCE:?}, and {0} waits for the lease")]
    Yielded(String),
}

impl<'a> Relay<'a> {
    fn new(
        context: &'a Context,
        store: &'a Arc<dyn Store>,
        producer: Arc<dyn Producer>,
        metrics: &'a Metrics,
    ) -> Relay<'a> {
        Relay {
            context,
            store,
            producer,
            metrics,
            next: 0,
            held: 0,
            landed: 0,
            moved_at: context.now(),
            lanes: BTreeMap::new(),
            flights: FuturesUnordered::new(),
        }
    }

    /// Sends until something ends it.
    async fn send_all(&mut self) -> Stop {
        loop {
            if let Err(stop) = self.step().await {
                return stop;
            }
        }
    }

    async fn step(&mut self) -> Result<(), Stop> {
        let changed = self.store.changed();
        let mut committed = std::pin::pin!(changed.notified());
        committed.as_mut().enable();
        if self.flights.is_empty() {
            if !self.has_more()? {
                // Idle: the lease may run out, and another replica may take it.
                committed.await;
                return Ok(());
            }
            self.moved_at = self.context.now();
        }
        let lease = match take_lease(self.context, self.store)? {
            Held::Mine(lease) => lease,
            Held::Other(until) => return Err(Stop::LeaseLost(until)),
        };
        let until = lease.until();
        self.yield_lease(lease)?;
        self.read()?;
        tokio::select! {
            biased;
            Some(flight) = self.flights.next() => self.land(flight),
            () = committed => Ok(()),
            // Time to renew the lease, though nothing else happens.
            () = self.context.sleep_until(until - LEASE_TIME / 4) => Ok(()),
        }
    }

    /// Gives the lease to another that wants it, if nothing goes through here.
    fn yield_lease(&self, lease: Lease) -> Result<(), Stop> {
        let now = self.context.now();
        match lease.wanted_by {
            Some(other) if now.since(self.moved_at) >= PATIENCE => {
                let lease = Lease::begin(&other, now);
                self.store
                    .transact_with::<_, StoreError>(self.context, |tables| LEASE.put(tables, &(), &lease))?;
                Err(Stop::Yielded(other))
            }
            _ => Ok(()),
        }
    }

    fn has_more(&self) -> Result<bool, StoreError> {
        let rows = self.store.read_with(|tables| outbox::pending(tables, self.next, 1))?;
        Ok(!rows.is_empty())
    }

    /// Reads rows into the window, and sends those whose lane is free.
    fn read(&mut self) -> Result<(), StoreError> {
        let room = WINDOW - self.held;
        let rows =
            self.store.read_with::<_, StoreError>(|tables| outbox::pending(tables, self.next, room))?;
        for (sequence, record) in rows {
            self.next = sequence + 1;
            self.held += 1;
            let lane = (record.topic.clone(), record.key.clone());
            match self.lanes.get_mut(&lane) {
                Some(waiting) => waiting.push_back((sequence, record)),
                None => {
                    self.lanes.insert(lane.clone(), VecDeque::new());
                    self.launch(lane, sequence, record);
                }
            }
        }
        Ok(())
    }

    /// Sends a record until it is acknowledged, or the producer is done.
    fn launch(&self, lane: Lane, sequence: u64, record: ProducerRecord) {
        let (producer, context, metrics) =
            (self.producer.clone(), self.context.clone(), self.metrics.clone());
        // Queued now, so that the sends of one reading go out in its order.
        let mut delivery = producer.send(record.clone());
        self.flights.push(Box::pin(async move {
            let mut rng = None;
            let mut failed = 0;
            loop {
                let error = match delivery.await {
                    Ok(_) => return Flight { lane, sequence, result: Ok(()) },
                    Err(error) => error,
                };
                metrics.relay_failed();
                if error.is_fatal() || error.code == broker::ErrorCode::Closed {
                    return Flight { lane, sequence, result: Err(error) };
                }
                failed += 1;
                let rng = rng.get_or_insert_with(|| context.rng(&format!("relay/{sequence}")));
                let wait = BACKOFF.wait(failed, rng);
                context.trouble(format_args!(
                    "relay: a record for {} failed, try {failed}, again in {wait:?}: {error}",
                    record.topic
                ));
                context.sleep(wait).await;
                delivery = producer.send(record.clone());
            }
        }));
    }

    /// Deletes what has landed, and sends the next of each lane.
    fn land(&mut self, first: Flight) -> Result<(), Stop> {
        let mut landed = vec![first];
        // Others may have landed at the same moment: one transaction for all.
        while let Some(Some(flight)) = futures_util::FutureExt::now_or_never(self.flights.next()) {
            landed.push(flight);
        }
        let done: Vec<u64> =
            landed.iter().filter(|flight| flight.result.is_ok()).map(|flight| flight.sequence).collect();
        self.store.transact_with(self.context, |tables| outbox::delete(tables, &done))?;
        self.metrics.relayed(done.len() as u64);
        self.held -= done.len();
        self.landed += done.len() as u64;
        if !done.is_empty() {
            self.moved_at = self.context.now();
        }
        for flight in landed {
            flight.result.map_err(Stop::Producer)?;
            let waiting =
                self.lanes.get_mut(&flight.lane).expect("a lane is there while it has a record in flight");
            match waiting.pop_front() {
                Some((sequence, record)) => self.launch(flight.lane, sequence, record),
                None => drop(self.lanes.remove(&flight.lane)),
            }
        }
        Ok(())
    }
}
