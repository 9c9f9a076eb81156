//! The service as it is, on a store, against a model of its participants: correct ones behind a mail that loses, doubles
//! and reorders.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use broker::{ConsumerRecord, ProducerRecord, TopicPartition};
use context::Context;
use kit::saga::Status;
use kit::store::{MemStore, StoreExt};
use kit::timer::Timer as _;
use kit::{Handler as _, HandlerError, Message, Outgoing, Prepared, StoreError, Unit, outbox};
use proptest::prelude::*;
use proto::inventory::{CommitRefused, ReservationRefused, StockCommitted, StockReleased, StockReserved};
use proto::notification::{CustomerNotified, NoticeKind};
use proto::order::{CancelOrder, CancelReason, Event, OrderStatus};
use proto::payment::{PaymentCaptured, PaymentDeclined, PaymentRefunded};
use proto::shipping::{ShipmentCancelled, ShipmentRefused, ShipmentScheduled};
use proto::{Contract, MessageId, OrderId, inventory, notification, payment, shipping, topics};

use crate::service::{Orders, Projection};
use crate::testing::{StillHost, create};
use crate::{Config, Defect, history, saga, view};

/// What a participant may refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Refuses {
    Reserve,
    Charge,
    Ship,
    Commit,
}

/// What there is of the order at one participant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Effect {
    #[default]
    None,
    Done,
    Committed,
    /// Undone, and never to be done again.
    Gone,
}

/// All participants, each idempotent, with undos that commute.
#[derive(Debug, Default)]
struct Participants {
    refuses: BTreeSet<Refuses>,
    stock: Effect,
    payment: Effect,
    shipment: Effect,
    notices: BTreeSet<NoticeKind>,
}

impl Participants {
    /// Takes a command, gives the answer: with the saga and step of the command, as the kit's participants do.
    fn handle(&mut self, command: &Message) -> Outgoing {
        let (kind, payload) = (command.kind.as_str(), command.payload.as_ref());
        let mut answer = match command.topic() {
            topics::INVENTORY_COMMANDS => self.inventory(inventory::Command::decode(kind, payload).unwrap()),
            topics::PAYMENT_COMMANDS => self.payment(payment::Command::decode(kind, payload).unwrap()),
            topics::SHIPPING_COMMANDS => self.shipping(shipping::Command::decode(kind, payload).unwrap()),
            topics::NOTIFICATION_COMMANDS => {
                let notification::Command::NotifyCustomer(notify) =
                    notification::Command::decode(kind, payload).unwrap();
                self.notices.insert(notify.kind());
                Outgoing::of(&CustomerNotified {
                    order_id: notify.order_id,
                    customer_id: notify.customer_id,
                    kind: notify.kind,
                })
            }
            other => panic!("nobody reads `{other}`"),
        };
        answer.saga_id.clone_from(&command.saga_id);
        answer.step.clone_from(&command.step);
        answer
    }

    fn inventory(&mut self, command: inventory::Command) -> Outgoing {
        let reason = String::from("no");
        match command {
            inventory::Command::ReserveStock(reserve) => {
                let order_id = reserve.order_id;
                match self.stock {
                    Effect::Gone => Outgoing::of(&ReservationRefused { order_id, reason }),
                    Effect::None if self.refuses.contains(&Refuses::Reserve) => {
                        Outgoing::of(&ReservationRefused { order_id, reason })
                    }
                    Effect::None | Effect::Done | Effect::Committed => {
                        self.stock = if self.stock == Effect::None { Effect::Done } else { self.stock };
                        Outgoing::of(&StockReserved { order_id, ..StockReserved::default() })
                    }
                }
            }
            inventory::Command::CommitStock(commit) => {
                let order_id = commit.order_id;
                match self.stock {
                    Effect::Done if self.refuses.contains(&Refuses::Commit) => {
                        Outgoing::of(&CommitRefused { order_id, reason })
                    }
                    Effect::Done | Effect::Committed => {
                        self.stock = Effect::Committed;
                        Outgoing::of(&StockCommitted { order_id, ..StockCommitted::default() })
                    }
                    Effect::None | Effect::Gone => Outgoing::of(&CommitRefused { order_id, reason }),
                }
            }
            inventory::Command::ReleaseStock(release) => {
                self.stock = Effect::Gone;
                Outgoing::of(&StockReleased { order_id: release.order_id, ..StockReleased::default() })
            }
        }
    }

    fn payment(&mut self, command: payment::Command) -> Outgoing {
        match command {
            payment::Command::ChargePayment(charge) => {
                let (order_id, payment_id) = (charge.order_id, charge.payment_id);
                let refused = self.payment == Effect::None && self.refuses.contains(&Refuses::Charge);
                if refused || self.payment == Effect::Gone {
                    Outgoing::of(&PaymentDeclined { order_id, payment_id, reason: "no".into() })
                } else {
                    self.payment = Effect::Done;
                    let (amount, currency) = (charge.amount, charge.currency);
                    Outgoing::of(&PaymentCaptured { order_id, payment_id, amount, currency })
                }
            }
            payment::Command::RefundPayment(refund) => {
                self.payment = Effect::Gone;
                let (order_id, payment_id) = (refund.order_id, refund.payment_id);
                Outgoing::of(&PaymentRefunded { order_id, payment_id, ..PaymentRefunded::default() })
            }
        }
    }

    fn shipping(&mut self, command: shipping::Command) -> Outgoing {
        match command {
            shipping::Command::ScheduleShipment(schedule) => {
                let (order_id, shipment_id) = (schedule.order_id, schedule.shipment_id);
                let refused = self.shipment == Effect::None && self.refuses.contains(&Refuses::Ship);
                if refused || self.shipment == Effect::Gone {
                    Outgoing::of(&ShipmentRefused { order_id, shipment_id, reason: "no".into() })
                } else {
                    self.shipment = Effect::Done;
                    Outgoing::of(&ShipmentScheduled { order_id, shipment_id, tracking: "T-1".into() })
                }
            }
            shipping::Command::CancelShipment(cancel) => {
                self.shipment = Effect::Gone;
                let (order_id, shipment_id) = (cancel.order_id, cancel.shipment_id);
                Outgoing::of(&ShipmentCancelled { order_id, shipment_id, tracking: String::new() })
            }
        }
    }
}

/// What chance does next; numbers pick one of what is under way.
#[derive(Clone, Copy, Debug)]
enum Act {
    Deliver(usize),
    DeliverTwice(usize),
    Lose(usize),
    Answer(usize),
    AnswerTwice(usize),
    LoseAnswer(usize),
    WaitSeconds(u64),
    CustomerCancels,
    CustomerAsksAgain,
    ReplicaCrashes,
    ReservationExpires,
}

fn act() -> impl Strategy<Value = Act> {
    let any = || any::<u16>().prop_map(usize::from);
    prop_oneof![
        6 => any().prop_map(Act::Deliver),
        1 => any().prop_map(Act::DeliverTwice),
        1 => any().prop_map(Act::Lose),
        6 => any().prop_map(Act::Answer),
        1 => any().prop_map(Act::AnswerTwice),
        1 => any().prop_map(Act::LoseAnswer),
        2 => (1_u64..40).prop_map(Act::WaitSeconds),
        1 => Just(Act::CustomerCancels),
        1 => Just(Act::CustomerAsksAgain),
        1 => Just(Act::ReplicaCrashes),
        1 => Just(Act::ReservationExpires),
    ]
}

/// One order, the service, and everything around it.
struct Play {
    host: Arc<StillHost>,
    context: Context,
    store: MemStore,
    config: Config,
    orders: Orders,
    participants: Participants,
    order: OrderId,
    /// Commands to participants that are under way.
    commands: Vec<Message>,
    /// Their answers that are under way.
    answers: Vec<Message>,
    /// What `order.events` holds.
    events: Vec<Message>,
    relayed: u64,
    messages: i64,
}

impl Play {
    fn new(refuses: impl IntoIterator<Item = Refuses>, defects: impl IntoIterator<Item = Defect>) -> Play {
        let host = StillHost::new();
        let config =
            Config { snapshot_every: 2, defects: defects.into_iter().collect(), ..Config::default() };
        let mut play = Play {
            context: Context::new(host.clone()),
            host,
            store: MemStore::new("order"),
            orders: Orders::new(config.clone()),
            config,
            participants: Participants { refuses: refuses.into_iter().collect(), ..Participants::default() },
            order: OrderId::new("o-1").unwrap(),
            commands: Vec::new(),
            answers: Vec::new(),
            events: Vec::new(),
            relayed: 0,
            messages: 0,
        };
        play.customer(&create("o-1"));
        play
    }

    /// A message as it would be read; each has an id and an offset of its own.
    fn message(&mut self, outgoing: Outgoing) -> Message {
        let id = MessageId::derived(&format!("play/{}", self.messages));
        self.read(outgoing.into_record(id, id, None, self.context.now()))
    }

    fn read(&mut self, record: ProducerRecord) -> Message {
        self.messages += 1;
        Message::parse(&ConsumerRecord {
            partition: TopicPartition::new(record.topic, 0),
            offset: self.messages,
            leader_epoch: None,
            timestamp: record.timestamp.unwrap_or_default(),
            key: record.key,
            value: record.value,
            headers: record.headers,
        })
        .unwrap()
    }

    fn customer<M: Contract>(&mut self, command: &M) {
        let message = self.message(Outgoing::of(command));
        self.handle(&message);
    }

    /// One message, one transaction, then the relay.
    fn handle(&mut self, message: &Message) {
        let (context, orders) = (&self.context, &self.orders);
        self.store
            .transact_with::<_, HandlerError>(context, |tables| {
                let mut unit = Unit::caused_by(context, tables, "order", message);
                orders.apply(&mut unit, message, Prepared::nothing())
            })
            .unwrap();
        self.relay();
    }

    /// Sends what is in the outbox on its way.
    fn relay(&mut self) {
        let rows = self.store.read_with::<_, StoreError>(|tables| outbox::pending(tables, self.relayed, 100));
        for (sequence, record) in rows.unwrap() {
            self.relayed = sequence + 1;
            let message = self.read(record);
            if message.topic() == topics::ORDER_EVENTS {
                self.events.push(message);
            } else {
                self.commands.push(message);
            }
        }
    }

    fn wake(&mut self) {
        let (context, sagas) = (&self.context, self.orders.sagas());
        let due = |play: &Play| {
            let next = play.store.read_with::<_, StoreError>(|tables| sagas.next(tables)).unwrap();
            next.is_some_and(|deadline| deadline <= context.now())
        };
        if due(self) {
            self.store
                .transact_with::<_, HandlerError>(context, |tables| {
                    sagas.fire(context, tables, context.now())
                })
                .unwrap();
            self.relay();
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Deliver(at) => {
                if let Some(command) = take(&mut self.commands, at) {
                    self.deliver(&command);
                }
            }
            Act::DeliverTwice(at) => {
                if let Some(command) = take(&mut self.commands, at) {
                    self.deliver(&command);
                    self.commands.push(command);
                }
            }
            Act::Answer(at) => {
                if let Some(answer) = take(&mut self.answers, at) {
                    self.handle(&answer);
                }
            }
            Act::AnswerTwice(at) => {
                if let Some(answer) = take(&mut self.answers, at) {
                    self.handle(&answer);
                    self.answers.push(answer);
                }
            }
            Act::Lose(at) => drop(take(&mut self.commands, at)),
            Act::LoseAnswer(at) => drop(take(&mut self.answers, at)),
            Act::WaitSeconds(seconds) => {
                self.host.wait(Duration::from_secs(seconds));
                self.wake();
            }
            Act::CustomerCancels => {
                let order_id = self.order.as_str().to_owned();
                self.customer(&CancelOrder { order_id, reason: "changed my mind".into() });
            }
            Act::CustomerAsksAgain => self.customer(&create("o-1")),
            // All that it knew is in the store.
            Act::ReplicaCrashes => self.orders = Orders::new(self.config.clone()),
            Act::ReservationExpires => {
                if self.participants.stock == Effect::Done {
                    self.participants.stock = Effect::Gone;
                    let order_id = self.order.as_str().to_owned();
                    let expired = StockReleased { order_id, expired: true, ..StockReleased::default() };
                    let message = self.message(Outgoing::of(&expired));
                    self.answers.push(message);
                }
            }
        }
    }

    fn deliver(&mut self, command: &Message) {
        let answer = self.participants.handle(command);
        let answer = self.message(answer);
        self.answers.push(answer);
    }

    /// The world is well again: everything arrives, time goes on.
    fn heal(&mut self) {
        for _ in 0..100 {
            while !self.commands.is_empty() || !self.answers.is_empty() {
                self.act(Act::Deliver(0));
                self.act(Act::Answer(0));
            }
            if self.status().is_terminal() {
                return;
            }
            self.act(Act::WaitSeconds(10));
        }
    }

    fn status(&self) -> Status {
        let saga = proto::SagaId::of(&self.order);
        let saga = self.store.read_with::<_, StoreError>(|tables| kit::saga::get(tables, &saga)).unwrap();
        saga.expect("every accepted order has a saga").status
    }

    fn order(&self) -> crate::aggregate::Order {
        self.store.read_with::<_, StoreError>(|tables| history::load(tables, &self.order)).unwrap()
    }

    fn effects(&self) -> [Effect; 3] {
        let Participants { stock, payment, shipment, .. } = self.participants;
        [stock, payment, shipment]
    }

    /// The decoded `order.events`.
    fn told(&self) -> Vec<Event> {
        self.events.iter().map(|message| Event::decode(&message.kind, &message.payload).unwrap()).collect()
    }
}

fn take(queue: &mut Vec<Message>, at: usize) -> Option<Message> {
    let at = at.checked_rem(queue.len())?;
    Some(queue.remove(at))
}

fn kinds(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| message.kind.as_str()).collect()
}

const NO_EFFECT: [Effect; 3] = [Effect::Gone; 3];
const ALL_EFFECTS: [Effect; 3] = [Effect::Committed, Effect::Done, Effect::Done];

#[test]
fn an_order_goes_through_its_steps_and_the_customer_is_told() {
    let mut play = Play::new([], []);
    assert_eq!(kinds(&play.commands), ["ReserveStock"]);
    play.heal();
    assert_eq!(play.status(), Status::Completed);
    assert_eq!(play.effects(), ALL_EFFECTS);
    assert_eq!(play.participants.notices, BTreeSet::from([NoticeKind::Confirmed]));
    assert_eq!(
        kinds(&play.events),
        ["OrderCreated", "OrderStatusChanged", "OrderStatusChanged", "OrderStatusChanged", "OrderConfirmed"]
    );
}

#[test]
fn a_refusal_undoes_what_was_done_before_it_and_names_the_reason() {
    let reasons = [
        (Refuses::Reserve, CancelReason::OutOfStock, [Effect::None; 3]),
        (Refuses::Charge, CancelReason::PaymentDeclined, [Effect::Gone, Effect::None, Effect::None]),
        (Refuses::Ship, CancelReason::ShipmentRefused, [Effect::Gone, Effect::Gone, Effect::None]),
        (Refuses::Commit, CancelReason::OutOfStock, NO_EFFECT),
    ];
    for (refuses, reason, effects) in reasons {
        let mut play = Play::new([refuses], []);
        play.heal();
        assert_eq!(play.status(), Status::Compensated, "{refuses:?}");
        assert_eq!(play.effects(), effects, "{refuses:?}");
        assert_eq!(play.order().cancel_reason(), reason);
        assert_eq!(play.participants.notices, BTreeSet::from([NoticeKind::Cancelled]));
    }
}

#[test]
fn a_step_without_an_answer_is_undone_too_since_it_may_have_happened() {
    let mut play = Play::new([], []);
    play.act(Act::Deliver(0));
    play.act(Act::Answer(0));
    assert_eq!(kinds(&play.commands), ["ChargePayment"]);
    play.act(Act::Deliver(0));
    play.act(Act::LoseAnswer(0));
    play.act(Act::WaitSeconds(29));
    assert_eq!(play.order().status(), OrderStatus::Reserved);
    play.act(Act::WaitSeconds(1));
    assert_eq!(kinds(&play.commands), ["RefundPayment"]);
    play.heal();
    assert_eq!(play.effects(), [Effect::Gone, Effect::Gone, Effect::None]);
    assert_eq!(play.order().cancel_reason(), CancelReason::StepTimedOut);
}

#[test]
fn an_undo_is_repeated_until_it_is_acknowledged() {
    let mut play = Play::new([], []);
    play.act(Act::CustomerCancels);
    for _ in 0..20 {
        play.commands.clear();
        play.act(Act::WaitSeconds(30));
        assert_eq!(kinds(&play.commands), ["ReleaseStock"]);
    }
    play.heal();
    assert_eq!(play.status(), Status::Compensated);
}

#[test]
fn a_cancellation_is_too_late_once_the_order_is_confirmed_and_says_so() {
    let mut play = Play::new([], []);
    play.heal();
    play.act(Act::CustomerCancels);
    let Some(Event::OrderCancelRefused(refused)) = play.told().pop() else { panic!("no answer") };
    assert_eq!(refused.reason, "the order is already confirmed");
    assert_eq!(play.effects(), ALL_EFFECTS);
}

#[test]
fn a_cancellation_of_an_order_nobody_placed_is_refused() {
    let mut play = Play::new([], []);
    play.customer(&CancelOrder { order_id: "o-2".into(), reason: "?".into() });
    let Some(Event::OrderCancelRefused(refused)) = play.told().pop() else { panic!("no answer") };
    assert_eq!(refused.reason, "there is no such order");
}

#[test]
fn an_order_that_cannot_be_is_rejected_and_starts_no_saga() {
    let mut play = Play::new([], []);
    let mut command = create("o-2");
    command.items.clear();
    play.customer(&command);
    let Some(Event::OrderRejected(rejected)) = play.told().pop() else { panic!("no answer") };
    assert_eq!(rejected.reason, "the order has no items");
    let sagas = play.store.read_with::<_, StoreError>(|tables| kit::saga::all(tables)).unwrap();
    assert_eq!(sagas.len(), 1, "only that of the first order");
}

#[test]
fn an_item_ordered_twice_is_reserved_as_one_line() {
    let mut command = create("o-9");
    command.items.push(command.items[0].clone());
    let mut play = Play::new([], []);
    play.customer(&command);
    let reserve: inventory::ReserveStock = play.commands.last().unwrap().decode().unwrap();
    assert_eq!(reserve.lines, [inventory::Line { sku: "sku-1".into(), quantity: 4 }]);
}

#[test]
fn planted_orders_that_are_cancelled_without_compensation_keep_their_effects() {
    let mut play = Play::new([Refuses::Ship], [Defect::NoCompensation]);
    play.heal();
    assert_eq!(play.status(), Status::Compensated);
    assert_eq!(play.effects(), [Effect::Done, Effect::Done, Effect::None]);
}

#[test]
fn the_read_side_shows_an_order_and_finds_it_by_its_customer() {
    let mut play = Play::new([Refuses::Charge], []);
    play.heal();
    let views = MemStore::new("view");
    for message in &play.events {
        views
            .transact_with::<_, HandlerError>(&play.context, |tables| {
                let mut unit = Unit::caused_by(&play.context, tables, "order-view", message);
                Projection.apply(&mut unit, message, Prepared::nothing())
            })
            .unwrap();
    }
    let customer = proto::CustomerId::new("c-1").unwrap();
    let found = views.read_with::<_, StoreError>(|tables| view::orders_of(tables, &customer)).unwrap();
    let told = play.told();
    let folded: BTreeMap<_, _> = view::fold(told.iter().map(|event| (play.order.clone(), event)));
    assert_eq!(found.clone().into_iter().collect::<BTreeMap<_, _>>(), folded);
    let shown: Vec<_> = found[0].1.history.iter().map(|(status, _)| status.as_str()).collect();
    assert_eq!(shown, ["accepted", "reserved", "being cancelled", "cancelled"]);
    assert_eq!(found[0].1.remark, "no");
}

#[test]
fn steps_that_can_be_undone_have_their_time_from_the_participant_they_ask() {
    let timing = saga::Timing { payment: Duration::from_secs(7), ..saga::Timing::default() };
    let definition = saga::inventory_first(&timing);
    let charge = definition.steps.iter().find(|step| step.name == saga::CHARGE).unwrap();
    assert_eq!(charge.timeout, Duration::from_secs(7));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_saga_ends_with_all_of_its_effects_or_none(
        refuses in prop::collection::btree_set(
            prop::sample::select(vec![Refuses::Reserve, Refuses::Charge, Refuses::Ship, Refuses::Commit]), 0..2),
        acts in prop::collection::vec(act(), 0..60),
    ) {
        let mut play = Play::new(refuses, []);
        for act in acts {
            play.act(act);
        }
        play.heal();
        let (status, order, effects) = (play.status(), play.order(), play.effects());
        let told = if status == Status::Completed {
            prop_assert_eq!(order.status(), OrderStatus::Confirmed);
            prop_assert_eq!(effects, ALL_EFFECTS);
            NoticeKind::Confirmed
        } else {
            prop_assert_eq!(status, Status::Compensated, "stuck");
            prop_assert_eq!(order.status(), OrderStatus::Cancelled);
            prop_assert!(effects.iter().all(|one| matches!(one, Effect::None | Effect::Gone)), "{:?}", effects);
            NoticeKind::Cancelled
        };
        prop_assert_eq!(&play.participants.notices, &BTreeSet::from([told]));
        // Its history, with and without snapshots, and its topic tell of the same order.
        let replayed = play.store.read_with::<_, StoreError>(|tables| history::replay(tables, &play.order));
        prop_assert_eq!(&order, &replayed.unwrap());
        let told = play.told();
        let history = told.iter().filter(|event| !matches!(event, Event::OrderCancelRefused(_)));
        prop_assert_eq!(&order, &crate::aggregate::Order::from_history(history));
    }
}
