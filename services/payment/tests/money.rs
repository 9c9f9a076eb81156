//! Money is conserved against the gateway's ledger, whatever is delivered, lost, repeated, overtaken or killed.
//!
//! The real handler runs against the real ledger, over a network in memory that the test holds in its hands: it says
//! which delivery goes on, which request arrives, which answer gets lost, which replica dies. A request whose sender died
//! is still on its way, and may arrive last of all.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll, Waker};

use async_trait::async_trait;
use broker::TopicPartition;
use context::real::RealHost;
use context::{Context, Seed, Timestamp};
use kit::{
    Handler, HandlerError, MemStore, Message, Naive, NaiveSwitch, Scope, StoreError, StoreExt, Unit, inbox,
    outbox,
};
use outside::gateway::{ChargeRequest, RefundRequest, Request, Response};
use payment::payment::{Captured, ChargeFate};
use payment::{Gateway, PAYMENTS, Payments, Status};
use proptest::prelude::*;
use proto::payment::{ChargePayment, Command, Event, RefundPayment};
use proto::{MessageId, PaymentId, headers};
use shakedown_payment as payment;

const AMOUNT: i64 = 1999;

/// Requests on their way, and the ledger at the other end.
#[derive(Default)]
struct Network {
    ledger: outside::Gateway,
    on_the_way: Vec<(Request, Slot)>,
    arrived: u64,
}

/// Where an answer is awaited, if anybody still does.
type Slot = Arc<Mutex<Option<Response>>>;

impl Network {
    /// Lets a request arrive. Its answer reaches whoever waits for it.
    fn deliver(&mut self, place: usize) {
        if self.on_the_way.is_empty() {
            return;
        }
        let (request, slot) = self.on_the_way.remove(place % self.on_the_way.len());
        self.arrived += 1;
        let response = self.ledger.handle(Timestamp::from_millis(self.arrived), request);
        *slot.lock().unwrap() = Some(response);
    }
}

#[derive(Clone, Default)]
struct RemoteGateway(Arc<Mutex<Network>>);

impl RemoteGateway {
    async fn ask(&self, request: Request) -> Response {
        let slot = Slot::default();
        self.0.lock().unwrap().on_the_way.push((request, slot.clone()));
        poll_fn(|_| slot.lock().unwrap().take().map_or(Poll::Pending, Poll::Ready)).await
    }
}

fn fate(response: Response) -> Result<ChargeFate, HandlerError> {
    match response {
        Response::Captured { charge, .. } => Ok(ChargeFate::Captured(Captured {
            charge_id: charge.charge_id,
            amount_minor: charge.amount_minor,
            currency: charge.currency,
        })),
        Response::Declined(decline) => Ok(ChargeFate::Declined(decline.reason)),
        Response::Voided { .. } => Ok(ChargeFate::Voided),
        other => Err(HandlerError::Business(format!("{other:?}"))),
    }
}

#[async_trait]
impl Gateway for RemoteGateway {
    async fn charge(&self, key: &str, charge: &ChargePayment) -> Result<ChargeFate, HandlerError> {
        let charge = ChargeRequest {
            payment_id: charge.payment_id.clone(),
            order_id: charge.order_id.clone(),
            amount_minor: charge.amount,
            currency: charge.currency.clone(),
            card_token: charge.payment_method.clone(),
        };
        fate(self.ask(Request::Charge { key: key.into(), charge }).await)
    }

    async fn void(&self, key: &str) -> Result<ChargeFate, HandlerError> {
        fate(self.ask(Request::Void { key: key.into() }).await)
    }

    async fn refund(&self, key: &str, captured: &Captured) -> Result<(), HandlerError> {
        let refund =
            RefundRequest { charge_id: captured.charge_id.clone(), amount_minor: captured.amount_minor };
        match self.ask(Request::Refund { key: key.into(), refund }).await {
            Response::Refunded(_) => Ok(()),
            other => Err(HandlerError::Business(format!("{other:?}"))),
        }
    }
}

/// A delivery of a message to a replica, as far as it got.
type Delivery = Pin<Box<dyn Future<Output = Result<(), HandlerError>>>>;

/// One payment service, its gateway, and what is delivered to it.
struct Bench {
    gateway: RemoteGateway,
    handler: Arc<Payments<RemoteGateway>>,
    scope: Scope,
    store: MemStore,
    deliveries: Vec<Delivery>,
}

impl Bench {
    fn new(naive: Naive) -> Bench {
        let context = RealHost::new("payment-1", Seed(1)).into_context();
        let store = MemStore::new("payment");
        let gateway = RemoteGateway::default();
        Bench {
            handler: Arc::new(Payments::new(Arc::new(gateway.clone()))),
            scope: Scope {
                context,
                store: Arc::new(store.clone()),
                group: "payment".into(),
                attempt: 0,
                naive,
            },
            gateway,
            store,
            deliveries: Vec::new(),
        }
    }

    fn start(&mut self, message: &Message) {
        let (handler, scope, message) = (self.handler.clone(), self.scope.clone(), message.clone());
        self.deliveries.push(Box::pin(async move { deliver(&*handler, &scope, &message).await }));
    }

    /// Lets a delivery go on until it waits for an answer.
    fn go_on(&mut self, place: usize) {
        if self.deliveries.is_empty() {
            return;
        }
        let place = place % self.deliveries.len();
        let polled = self.deliveries[place].as_mut().poll(&mut TaskContext::from_waker(Waker::noop()));
        if let Poll::Ready(result) = polled {
            drop(self.deliveries.remove(place));
            match result {
                // What is transient is delivered again in the end.
                Ok(()) | Err(HandlerError::Transient(_)) => {}
                Err(error) => panic!("a delivery ended as a dead letter: {error}"),
            }
        }
    }

    /// Kills the replica that handles a delivery. What it has sent is on its way all the same.
    fn kill(&mut self, place: usize) {
        if !self.deliveries.is_empty() {
            let place = place % self.deliveries.len();
            drop(self.deliveries.remove(place));
        }
    }

    /// Delivers a message to its end, with a network that works, as a broker does sooner or later.
    fn settle(&mut self, message: &Message) {
        self.start(message);
        let last = self.deliveries.len() - 1;
        for _ in 0..20 {
            if self.deliveries.len() <= last {
                return;
            }
            self.go_on(last);
            let newest = self.network(|network| network.on_the_way.len());
            if newest > 0 {
                self.network(|network| network.deliver(newest - 1));
            }
        }
        panic!("{message} has no end");
    }

    fn network<T>(&self, look: impl FnOnce(&mut Network) -> T) -> T {
        look(&mut self.gateway.0.lock().unwrap())
    }

    fn captured(&self) -> i64 {
        self.network(|network| network.ledger.charges().iter().map(|charge| charge.amount_minor).sum())
    }

    fn refunded(&self) -> i64 {
        self.network(|network| network.ledger.refunds().iter().map(|refund| refund.amount_minor).sum())
    }

    /// What the service has told, in order.
    fn told(&self) -> Vec<Event> {
        let pending = self.store.read_with::<_, StoreError>(|tables| outbox::pending(tables, 0, usize::MAX));
        let event = |record: broker::ProducerRecord| {
            let kind = record.headers.text(headers::EVENT_TYPE).unwrap().to_owned();
            Event::decode(&kind, &record.value.unwrap()).unwrap()
        };
        pending.unwrap().into_iter().map(|(_, record)| event(record)).collect()
    }

    fn status(&self) -> Option<Status> {
        let id = PaymentId::new("pay-o-1").unwrap();
        let payment = self.store.read_with::<_, StoreError>(|tables| PAYMENTS.get(tables, &id)).unwrap();
        payment.map(|payment| payment.status)
    }
}

/// What the kit does with a delivery: inbox, prepare, and one transaction of inbox, state and outbox.
async fn deliver(handler: &impl Handler, scope: &Scope, message: &Message) -> Result<(), HandlerError> {
    let record = broker::ConsumerRecord {
        partition: message.partition.clone(),
        offset: message.offset,
        leader_epoch: None,
        timestamp: message.timestamp,
        key: None,
        value: None,
        headers: Default::default(),
    };
    let with_inbox = !scope.naive.is_on(NaiveSwitch::NoInbox);
    let settled = |tables: &dyn kit::ReadTables| inbox::is_settled(tables, &scope.group, message.id, &record);
    if with_inbox && scope.store.read_with::<_, StoreError>(settled)? {
        return Ok(());
    }
    let prepared = handler.prepare(scope, message).await?;
    scope.store.transact_with(&scope.context, |tables| {
        if with_inbox {
            if inbox::is_settled(tables, &scope.group, message.id, &record)? {
                return Ok(());
            }
            let now = scope.context.now();
            inbox::settle(tables, &scope.group, message.id, &record, inbox::Fate::Applied, now)?;
        }
        let mut unit = Unit::caused_by(&scope.context, tables, &scope.group, message);
        handler.apply(&mut unit, message, prepared)
    })
}

fn message(name: &str, command: impl Into<Command>) -> Message {
    let command = command.into();
    Message {
        id: MessageId::derived(name),
        kind: command.kind().into(),
        key: "o-1".into(),
        correlation_id: MessageId::derived("request"),
        causation_id: None,
        saga_id: None,
        step: None,
        schema_version: 1,
        timestamp: Timestamp::ZERO,
        partition: TopicPartition::new(Command::TOPIC, 0),
        offset: 0,
        payload: command.encode().into(),
    }
}

fn charge(name: &str, payment_method: &str) -> Message {
    let (order_id, payment_id) = ("o-1".into(), "pay-o-1".into());
    let payment_method = payment_method.into();
    message(
        name,
        ChargePayment { order_id, payment_id, amount: AMOUNT, currency: "EUR".into(), payment_method },
    )
}

fn refund(name: &str) -> Message {
    let (order_id, payment_id) = ("o-1".into(), "pay-o-1".into());
    message(name, RefundPayment { order_id, payment_id, reason: "compensation".into() })
}

/// One thing that happens. Numbers choose among what there is.
#[derive(Clone, Copy, Debug)]
enum Step {
    Start(usize),
    GoOn(usize),
    Arrive(usize),
    Kill(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0..8_usize).prop_map(Step::Start),
        5 => (0..8_usize).prop_map(Step::GoOn),
        4 => (0..8_usize).prop_map(Step::Arrive),
        1 => (0..8_usize).prop_map(Step::Kill),
    ];
    prop::collection::vec(step, 0..60)
}

/// Anything happens, then all replicas die, then every message is delivered once more, and at the very last all that
/// was still on its way arrives.
fn run(bench: &mut Bench, messages: &[Message], steps: &[Step], reversed: bool) {
    for step in steps {
        match *step {
            Step::Start(choice) => bench.start(&messages[choice % messages.len()]),
            Step::GoOn(place) => bench.go_on(place),
            Step::Arrive(place) => bench.network(|network| network.deliver(place)),
            Step::Kill(place) => bench.kill(place),
        }
    }
    bench.deliveries.clear();
    let mut left: Vec<_> = messages.iter().collect();
    if reversed {
        left.reverse();
    }
    left.into_iter().for_each(|message| bench.settle(message));
    while bench.network(|network| !network.on_the_way.is_empty()) {
        bench.network(|network| network.deliver(0));
    }
}

proptest! {
    #[test]
    fn a_refund_leaves_nothing_of_its_charge_whatever_happens(steps in steps(), reversed: bool, declined: bool) {
        let mut bench = Bench::new(Naive::none());
        let card = if declined { outside::gateway::DECLINED_TOKEN } else { "tok_visa" };
        let messages = [charge("charge", card), charge("charge again", card), refund("refund"), refund("refund again")];
        run(&mut bench, &messages, &steps, reversed);

        prop_assert_eq!(bench.captured(), bench.refunded());
        prop_assert!(bench.captured() <= AMOUNT, "charged more than once: {}", bench.captured());
        prop_assert!(!matches!(bench.status(), Some(Status::Captured(_)) | None), "{:?}", bench.status());
        let told = bench.told();
        prop_assert_eq!(told.len(), messages.len(), "one answer for each message");
        for event in told {
            if let Event::PaymentRefunded(told) = event {
                prop_assert_eq!(told.amount, bench.refunded(), "what is told is what happened");
            }
        }
    }

    #[test]
    fn a_charge_takes_its_money_once_whatever_happens(steps in steps(), reversed: bool) {
        let mut bench = Bench::new(Naive::none());
        let messages = [charge("charge", "tok_visa"), charge("charge again", "tok_visa")];
        run(&mut bench, &messages, &steps, reversed);

        prop_assert_eq!((bench.captured(), bench.refunded()), (AMOUNT, 0));
        let captured = |event: &Event| matches!(event, Event::PaymentCaptured(told) if told.amount == AMOUNT);
        prop_assert!(bench.told().iter().all(captured), "{:?}", bench.told());
    }
}

/// A replica dies with its charge on the way, and the refund is handled first.
#[test]
fn a_charge_that_arrives_after_its_refund_takes_nothing() {
    let mut bench = Bench::new(Naive::none());
    bench.start(&charge("charge", "tok_visa"));
    bench.go_on(0);
    bench.kill(0);
    bench.settle(&refund("refund"));
    bench.network(|network| network.deliver(0));
    assert_eq!((bench.captured(), bench.status()), (0, Some(Status::Voided)));
}

/// The gateway took the money, the answer was lost with the replica, and the refund is the first that this service
/// hears of the payment.
#[test]
fn a_refund_finds_the_charge_whose_answer_was_lost() {
    let mut bench = Bench::new(Naive::none());
    bench.start(&charge("charge", "tok_visa"));
    bench.go_on(0);
    bench.network(|network| network.deliver(0));
    bench.kill(0);
    bench.settle(&refund("refund"));
    assert_eq!((bench.captured(), bench.refunded()), (AMOUNT, AMOUNT));
    bench.settle(&charge("charge", "tok_visa"));
    let told = bench.told();
    assert!(matches!(&told[0], Event::PaymentRefunded(told) if told.amount == AMOUNT), "{told:?}");
    assert!(matches!(&told[1], Event::PaymentDeclined(_)), "{told:?}");
    assert_eq!(bench.captured(), AMOUNT);
}

/// The defect that the harness must find: it has to be one.
#[test]
fn fresh_keys_without_an_inbox_charge_twice() {
    let naive = Naive::none().with(NaiveSwitch::NoInbox).with(NaiveSwitch::FreshKeys);
    let mut bench = Bench::new(naive);
    let charge = charge("charge", "tok_visa");
    bench.settle(&charge);
    bench.settle(&charge);
    assert_eq!(bench.captured(), 2 * AMOUNT);
}

/// Each protection alone is not enough to do harm when it is off: the other still holds for a plain repeat.
#[test]
fn either_protection_holds_a_plain_repeat() {
    for switch in NaiveSwitch::ALL {
        let mut bench = Bench::new(Naive::none().with(switch));
        let charge = charge("charge", "tok_visa");
        bench.settle(&charge);
        bench.settle(&charge);
        assert_eq!(bench.captured(), AMOUNT, "{}", switch.name());
    }
}

/// A context is handed around; the compiler should say so if it cannot cross threads.
#[test]
fn the_handler_runs_on_any_thread() {
    fn assert_send<T: Send>(_: &T) {}
    let bench = Bench::new(Naive::none());
    let message = charge("charge", "tok_visa");
    let context: &Context = &bench.scope.context;
    assert_send(context);
    assert_send(&deliver(&*bench.handler, &bench.scope, &message));
}
