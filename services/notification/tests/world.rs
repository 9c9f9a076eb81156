//! Two replicas on a simulated Kafka, with a mail provider that crashes: a customer is told once.

#[path = "../../payment/tests/town/mod.rs"]
mod town;

use std::collections::BTreeMap;
use std::sync::Arc;

use kit::{MemStore, Outgoing, outbox};
use outside::{Mail, Provider};
use proto::notification::{NoticeKind, NotifyCustomer};
use shakedown_notification as notification;
use town::Town;

const ORDERS: u32 = 120;

fn commands() -> Vec<Outgoing> {
    let command = |order: u32| {
        let kind = if order.is_multiple_of(3) { NoticeKind::Cancelled } else { NoticeKind::Confirmed };
        Outgoing::of(&NotifyCustomer {
            order_id: format!("o-{order}"),
            customer_id: format!("c-{}", order % 7),
            kind: kind.into(),
            text: "about your order".into(),
        })
    };
    (0..ORDERS).map(command).collect()
}

#[test]
fn a_customer_is_told_once_though_all_crash() {
    for seed in 0..3 {
        let mail = Arc::new(Provider::new(Mail::new()));
        let store = MemStore::new("notification");
        let shared = store.clone();
        let replica: town::Replica = Arc::new(move |context, broker| {
            Box::pin(notification::run(
                context,
                broker,
                Arc::new(shared.clone()),
                notification::Config::default(),
            ))
        });
        let outside = (outside::mail::HOST, mail.program());
        let mut town = Town::new(seed, "notification", replica, Some(outside), commands());
        town.with_faults();

        let ledger = mail.ledger();
        let mut sent = BTreeMap::<&str, Vec<&str>>::new();
        for notice in ledger.notices() {
            sent.entry(&notice.order_id).or_default().push(&notice.kind);
        }
        for order in 0..ORDERS {
            let kind = if order.is_multiple_of(3) { "cancelled" } else { "confirmed" };
            let told = sent.get(format!("o-{order}").as_str());
            assert_eq!(told, Some(&vec![kind]), "seed {seed}, notices of order {order}");
        }
        let told = town.told.lock().unwrap();
        assert_eq!(told.len(), commands().len(), "seed {seed}: every command is answered, once");
        assert_eq!(outbox::depth(&store), Ok(0), "seed {seed}: all is said");
        assert_eq!(mail.open_calls(), 0, "seed {seed}: nothing is asked any more");
    }
}
