//! Two replicas on a simulated Kafka, with a gateway that crashes: money is taken once, and given back where it was asked.

mod town;

use std::collections::BTreeMap;
use std::sync::Arc;

use kit::{MemStore, Naive, NaiveSwitch, Outgoing, ServiceConfig, outbox};
use outside::{Gateway, Provider};
use proto::payment::{ChargePayment, Event, RefundPayment};
use proto::{OrderId, PaymentId, tokens};
use shakedown_payment as payment;
use town::Town;

const ORDERS: u32 = 120;
const AMOUNT: i64 = 1999;

fn is_refunded(order: u32) -> bool {
    order.is_multiple_of(3)
}

fn is_declined(order: u32) -> bool {
    order % 10 == 1
}

fn commands() -> Vec<Outgoing> {
    let mut commands = Vec::new();
    for order in 0..ORDERS {
        let id = OrderId::new(format!("o-{order}")).expect("a plain id");
        let (order_id, payment_id) = (id.as_str().to_owned(), PaymentId::of(&id).as_str().to_owned());
        let token =
            if is_declined(order) { tokens::DECLINED_PAYMENT_METHOD } else { tokens::GOOD_PAYMENT_METHOD };
        commands.push(Outgoing::of(&ChargePayment {
            order_id: order_id.clone(),
            payment_id: payment_id.clone(),
            amount: AMOUNT,
            currency: "EUR".into(),
            payment_method: token.into(),
        }));
        if is_refunded(order) {
            commands.push(Outgoing::of(&RefundPayment {
                order_id,
                payment_id,
                reason: "a change of mind".into(),
            }));
        }
    }
    commands
}

/// One run, and what outlives its hosts.
struct Run {
    town: Town,
    gateway: Arc<Provider<Gateway>>,
    store: MemStore,
}

impl Run {
    fn new(seed: u64, naive: Naive) -> Run {
        let gateway = Arc::new(Provider::new(Gateway::new()));
        let store = MemStore::new("payment");
        let service = ServiceConfig { naive, ..ServiceConfig::default() };
        let (config, shared) = (payment::Config { service, ..payment::Config::default() }, store.clone());
        let replica: town::Replica = Arc::new(move |context, broker| {
            Box::pin(payment::run(context, broker, Arc::new(shared.clone()), config.clone()))
        });
        let outside = (outside::gateway::HOST, gateway.program());
        let mut town = Town::new(seed, "payment", replica, Some(outside), commands());
        town.with_faults();
        Run { town, gateway, store }
    }

    /// Charges and refunds of each order at the gateway, in minor units.
    fn books(&self) -> BTreeMap<String, (Vec<i64>, i64)> {
        let ledger = self.gateway.ledger();
        let mut books = BTreeMap::<String, (Vec<i64>, i64)>::new();
        for charge in ledger.charges() {
            books.entry(charge.order_id.clone()).or_default().0.push(charge.amount_minor);
        }
        for refund in ledger.refunds() {
            books.entry(refund.order_id.clone()).or_default().1 += refund.amount_minor;
        }
        books
    }
}

#[test]
fn money_is_taken_once_and_given_back_where_asked_though_all_crash() {
    for seed in 0..3 {
        let run = Run::new(seed, Naive::none());
        let books = run.books();
        for order in 0..ORDERS {
            let (charges, refunded) = books.get(&format!("o-{order}")).cloned().unwrap_or_default();
            let captured = if is_declined(order) { vec![] } else { vec![AMOUNT] };
            assert_eq!(charges, captured, "seed {seed}, charges of order {order}");
            let owed_back = if is_refunded(order) { charges.iter().sum() } else { 0 };
            assert_eq!(refunded, owed_back, "seed {seed}, refunds of order {order}");
        }
        let told = run.town.told.lock().unwrap();
        assert_eq!(told.len(), commands().len(), "seed {seed}: every command is answered, once");
        let event =
            |message: &kit::Message| Event::decode(&message.kind, &message.payload).expect("an event");
        let given_back = told.values().filter_map(|message| match event(message) {
            Event::PaymentRefunded(refunded) => Some(refunded.amount),
            _ => None,
        });
        let refunded: i64 = books.values().map(|(_, refunded)| *refunded).sum();
        assert_eq!(given_back.sum::<i64>(), refunded, "seed {seed}: what is told is what happened");
        assert_eq!(outbox::depth(&run.store), Ok(0), "seed {seed}: all is said");
        assert_eq!(run.gateway.open_calls(), 0, "seed {seed}: nothing is asked any more");
    }
}

/// The defect that the harness must find: it has to be one, here as there.
#[test]
fn fresh_keys_without_an_inbox_charge_twice() {
    let run = Run::new(0, Naive::none().with(NaiveSwitch::NoInbox).with(NaiveSwitch::FreshKeys));
    assert!(run.books().values().any(|(charges, _)| charges.len() > 1), "no order was charged twice");
}
