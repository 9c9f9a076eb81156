//! A world with replicas of one service, one store, and the fake broker.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use broker::Broker;
use context::{Context, Event, Recorder, Seed};
use kit::store::{Json, ReadWork, Work};
use kit::{
    Handler, HandlerError, MemStore, Message, Prepared, Scope, Service, ServiceConfig, ServiceHandle, Store,
    StoreError, StoreExt, Subscription, Table, Unit, outbox,
};
use proto::order::{CancelOrder, OrderCancelled};
use proto::{MessageId, topics};
use tokio::sync::Notify;
use world::{Change, Engine, LatencyRange, World, WorldConfig};

use crate::fake::{FakeBroker, FakeKafka};

/// The notes of a run, as `host: text`.
#[derive(Default)]
pub(crate) struct Notes(Mutex<Vec<String>>);

impl Recorder for Notes {
    fn record(&self, event: Event<'_>) {
        if event.kind.is_note() {
            let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            notes.push(format!("{}: {}", event.host, event.text));
        }
    }
}

/// The store, with commits that fail when a claim asks for it.
#[derive(Clone)]
pub(crate) struct Flaky {
    inner: MemStore,
    failures: Arc<Mutex<u32>>,
}

impl Flaky {
    /// The next so many transactions fail.
    pub(crate) fn fail(&self, times: u32) {
        *self.failures.lock().unwrap_or_else(PoisonError::into_inner) = times;
    }
}

impl Store for Flaky {
    fn transact(&self, context: &Context, work: Work<'_>) -> Result<(), StoreError> {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if *failures > 0 {
            *failures -= 1;
            return Err(StoreError::Failed("on purpose".into()));
        }
        drop(failures);
        self.inner.transact(context, work)
    }

    fn read(&self, work: ReadWork<'_>) -> Result<(), StoreError> {
        self.inner.read(work)
    }

    fn changed(&self) -> Arc<Notify> {
        self.inner.changed()
    }
}

/// Everything a claim looks at.
pub(crate) struct Bed {
    world: Box<dyn World>,
    pub(crate) kafka: FakeKafka,
    pub(crate) store: Flaky,
    notes: Arc<Notes>,
    handles: Arc<Mutex<Vec<ServiceHandle>>>,
    closed: Arc<Mutex<Vec<String>>>,
    replicas: usize,
}

/// Adds what is under test to a service.
pub(crate) type Outfit = Arc<dyn Fn(&Context, Service) -> Service + Send + Sync>;

impl Bed {
    /// `replicas` of a service, called `svc-1` and so on; `outfit` adds subscriptions and timers.
    pub(crate) fn new(
        replicas: usize,
        config: ServiceConfig,
        outfit: impl Fn(&Context, Service) -> Service + Send + Sync + 'static,
    ) -> Bed {
        let notes = Arc::new(Notes::default());
        let world_config =
            WorldConfig { seed: Seed(7), latency: LatencyRange::millis(1, 5), recorder: notes.clone() };
        let mut world = world::build(Engine::Jump, world_config).expect("built with tokio_unstable");
        let kafka = FakeKafka::default();
        let store = Flaky { inner: MemStore::new("svc"), failures: Arc::default() };
        let handles: Arc<Mutex<Vec<ServiceHandle>>> = Arc::default();
        let closed: Arc<Mutex<Vec<String>>> = Arc::default();
        let outfit: Outfit = Arc::new(outfit);
        for replica in 1..=replicas {
            let (kafka, store, config, outfit) =
                (kafka.clone(), store.clone(), config.clone(), outfit.clone());
            let (handles, closed) = (handles.clone(), closed.clone());
            let program = context::program(move |context: Context| {
                let broker: Arc<dyn Broker> = Arc::new(FakeBroker::new(kafka.clone(), context.clone()));
                let service = Service::new(context.clone(), broker, Arc::new(store.clone()), config.clone());
                let service = outfit(&context, service);
                handles.lock().unwrap_or_else(PoisonError::into_inner).push(service.handle());
                let closed = closed.clone();
                async move {
                    service.run().await;
                    closed.lock().unwrap_or_else(PoisonError::into_inner).push(context.name().to_owned());
                }
            });
            world.add_host(&format!("svc-{replica}"), program);
        }
        Bed { world, kafka, store, notes, handles, closed, replicas }
    }

    /// Lets `span` pass.
    pub(crate) fn pass(&mut self, span: Duration) {
        self.world.run_until(self.world.now() + span);
    }

    pub(crate) fn pass_ms(&mut self, ms: u64) {
        self.pass(Duration::from_millis(ms));
    }

    /// Lets time pass until `holds`.
    ///
    /// # Panics
    /// If it does not within 10 minutes.
    pub(crate) fn pass_until(&mut self, what: &str, mut holds: impl FnMut(&Bed) -> bool) {
        let end = self.world.now() + Duration::from_secs(600);
        while !holds(self) {
            assert!(self.world.now() < end, "not within 10 minutes: {what}\n{}", self.notes().join("\n"));
            self.pass_ms(5);
        }
    }

    pub(crate) fn now(&self) -> context::Timestamp {
        self.world.now()
    }

    pub(crate) fn change(&mut self, change: Change) {
        self.world.change(&change).expect("the change fits");
    }

    pub(crate) fn kill(&mut self, host: &str) {
        self.change(Change::Kill { host: host.into() });
        // The fake hears of a dead process as a broker does: its connections break.
        self.kafka.client_gone(host);
    }

    pub(crate) fn restart(&mut self, host: &str) {
        self.change(Change::Restart { host: host.into() });
    }

    pub(crate) fn notes(&self) -> Vec<String> {
        self.notes.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn noted(&self, text: &str) -> usize {
        self.notes().iter().filter(|note| note.contains(text)).count()
    }

    /// The latest incarnation of the only replica.
    pub(crate) fn handle(&self) -> ServiceHandle {
        let handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        handles.last().expect("a service was started").clone()
    }

    pub(crate) fn close_all(&self) {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(ServiceHandle::close);
    }

    pub(crate) fn all_closed(&self) -> bool {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner).len() == self.replicas
    }

    pub(crate) fn depth(&self) -> u64 {
        outbox::depth(&self.store).expect("the store reads")
    }

    pub(crate) fn committed<T>(
        &self,
        read: impl FnOnce(&dyn kit::ReadTables) -> Result<T, kit::StoreError>,
    ) -> T {
        self.store.read_with(read).expect("the store reads")
    }
}

/// Cancels orders; what a message's `reason` says it does first:
/// `business`, `panic`; `busy N`: transient errors at the first N tries; `slow N`: N ms.
pub(crate) struct Cancelling;

#[async_trait]
impl Handler for Cancelling {
    async fn prepare(&self, scope: &Scope, message: &Message) -> Result<Prepared, HandlerError> {
        let cancel: CancelOrder = message.decode()?;
        let (word, number) = cancel.reason.split_once(' ').unwrap_or((&cancel.reason, "0"));
        let number: u32 = number.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0);
        match word {
            "busy" if scope.attempt < number => Err(HandlerError::Transient("busy".into())),
            "slow" => {
                scope.context.sleep(Duration::from_millis(number.into())).await;
                Ok(Prepared::nothing())
            }
            _ => Ok(Prepared::nothing()),
        }
    }

    fn apply(&self, unit: &mut Unit<'_>, message: &Message, _: Prepared) -> Result<(), HandlerError> {
        let CancelOrder { order_id, reason } = message.decode()?;
        let before = CANCELLED.get(unit.tables(), &order_id)?.unwrap_or(0);
        CANCELLED.put(unit.tables(), &order_id, &(before + 1))?;
        unit.publish(&OrderCancelled { order_id, detail: reason.clone(), ..OrderCancelled::default() })?;
        match reason.as_str() {
            "business" => Err(HandlerError::Business("no".into())),
            // Not `panic!`: that prints through the hook, and this one is expected.
            "panic" => std::panic::resume_unwind(Box::new("on purpose")),
            _ => Ok(()),
        }
    }
}

/// A service that cancels orders.
pub(crate) fn cancelling(replicas: usize, config: ServiceConfig) -> Bed {
    Bed::new(replicas, config, |_, service| {
        service.subscribe(Subscription::new("svc", [topics::ORDER_COMMANDS], Cancelling))
    })
}

/// What went out about cancelled orders: order and detail, in the order of their offsets, partition after partition.
pub(crate) fn published(bed: &Bed) -> Vec<(String, String)> {
    let read = |record| {
        let event: OrderCancelled = Message::parse(&record).unwrap().decode().unwrap();
        (event.order_id, event.detail)
    };
    bed.kafka.records(topics::ORDER_EVENTS).into_iter().map(read).collect()
}

/// How often each order was cancelled: an effect that shows repeats.
pub(crate) const CANCELLED: Table<String, u32, Json> = Table::new("cancelled");

/// Puts a `CancelOrder` on its topic. The same order and reason again are the same message.
pub(crate) fn send_cancel(kafka: &FakeKafka, order: &str, reason: &str) {
    let cancel = CancelOrder { order_id: order.into(), reason: reason.into() };
    let id = MessageId::derived(&format!("{order} {reason}"));
    let record = kit::Outgoing::of(&cancel).into_record(id, id, None, world::EPOCH);
    kafka.append(record);
}

/// How often `order` was cancelled.
pub(crate) fn cancelled(bed: &Bed, order: &str) -> u32 {
    bed.committed(|tables| CANCELLED.get(tables, &order.to_owned())).unwrap_or(0)
}
