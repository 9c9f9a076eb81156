use context::real::RealHost;
use context::{Context, Seed};
use kit::StoreError;
use kit::store::{MemStore, StoreExt};
use proptest::prelude::*;
use proto::OrderId;
use proto::inventory::{Line, StockCommitted, StockReleased};
use proto::notification::{CustomerNotified, NoticeKind};
use proto::order::{CancelReason, OrderCancelled, OrderConfirmed, OrderCreated};
use proto::payment::{PaymentCaptured, PaymentRefunded};
use proto::shipping::{ShipmentCancelled, ShipmentScheduled};

use crate::facts::{Event, Totals, fold};
use crate::service::{DAYS, TOTALS, learn};

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

fn id(number: usize) -> OrderId {
    OrderId::new(format!("o-{number}")).unwrap()
}

/// What the services say of an order, one list a topic: within a topic an order's events keep their order.
fn topics(number: usize, confirmed: bool) -> Vec<Vec<Event>> {
    let order_id = format!("o-{number}");
    let created = OrderCreated {
        order_id: order_id.clone(),
        currency: "EUR".into(),
        total: 1_000,
        created_at_ms: (number as u64 % 2) * DAY_MS,
        ..OrderCreated::default()
    };
    let end = if confirmed {
        OrderConfirmed { order_id: order_id.clone(), confirmed_at_ms: 5 }.into()
    } else {
        let reason = CancelReason::ShipmentRefused.into();
        OrderCancelled { order_id: order_id.clone(), reason, ..OrderCancelled::default() }.into()
    };
    let money = |amount| (order_id.clone(), format!("pay-{order_id}"), amount, "EUR".to_owned());
    let (order, payment_id, amount, currency) = money(1_000);
    let mut payment =
        vec![Event::Payment(PaymentCaptured { order_id: order, payment_id, amount, currency }.into())];
    let mut shipping = vec![Event::Shipping(
        ShipmentScheduled { order_id: order_id.clone(), ..ShipmentScheduled::default() }.into(),
    )];
    let mut inventory = vec![Event::Inventory(
        StockCommitted {
            order_id: order_id.clone(),
            lines: vec![Line { sku: "sku-1".into(), quantity: 2 }],
            ..StockCommitted::default()
        }
        .into(),
    )];
    if !confirmed {
        // Answered twice, as a participant does that was asked twice.
        for amount in [1_000, 0] {
            let (order_id, payment_id, amount, currency) = money(amount);
            payment.push(Event::Payment(PaymentRefunded { order_id, payment_id, amount, currency }.into()));
        }
        shipping.push(Event::Shipping(
            ShipmentCancelled { order_id: order_id.clone(), ..ShipmentCancelled::default() }.into(),
        ));
        inventory.push(Event::Inventory(
            StockReleased { order_id: order_id.clone(), ..StockReleased::default() }.into(),
        ));
    }
    let kind = if confirmed { NoticeKind::Confirmed } else { NoticeKind::Cancelled };
    let notice = CustomerNotified { order_id, kind: kind.into(), ..CustomerNotified::default() };
    vec![
        vec![Event::Order(created.into()), Event::Order(end)],
        inventory,
        payment,
        shipping,
        vec![Event::Notification(notice.into())],
    ]
}

fn in_a_store(events: &[(OrderId, Event)]) -> (Totals, Vec<(u64, Totals)>) {
    let context: Context = RealHost::new("analytics-1", Seed(1)).into_context();
    let store = MemStore::new("analytics");
    for (order, event) in events {
        store.transact_with::<_, StoreError>(&context, |tables| learn(tables, order, event)).unwrap();
    }
    store
        .read_with::<_, StoreError>(|tables| {
            Ok((TOTALS.get(tables, &())?.unwrap_or_default(), DAYS.all(tables)?))
        })
        .unwrap()
}

/// The topics of all orders read one after the other.
fn one_after_the_other(orders: &[bool]) -> Vec<(OrderId, Event)> {
    let of = |(number, confirmed): (usize, &bool)| {
        topics(number, *confirmed).into_iter().flatten().map(move |event| (id(number), event))
    };
    orders.iter().enumerate().flat_map(of).collect()
}

#[test]
fn totals_say_what_became_of_the_orders() {
    let (totals, days) = in_a_store(&one_after_the_other(&[true, true, false]));
    let shown: Vec<String> = totals.0.iter().map(|(name, number)| format!("{name}: {number}")).collect();
    insta::assert_snapshot!(shown.join("\n"), @r"
    captured EUR: 3000
    notices cancelled: 1
    notices confirmed: 2
    ordered EUR: 3000
    orders accepted: 3
    orders confirmed: 2
    orders shipment refused: 1
    pieces shipped: 4
    refunded EUR: 1000
    shipments: 2
    ");
    assert_eq!(days.len(), 2);
    assert_eq!(days[0].1.get("orders accepted"), 2);
    assert_eq!(days[1].1.get("captured EUR"), 1_000);
}

proptest! {
    #[test]
    fn the_totals_are_the_fold_of_all_events_however_they_come(
        orders in prop::collection::vec(any::<bool>(), 1..6),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 100),
        repeats in prop::collection::vec(any::<bool>(), 100),
    ) {
        let straight = one_after_the_other(&orders);
        // Interleave: each pick takes the next event of one order's topic, sometimes twice.
        let mut lanes: Vec<(OrderId, Vec<Event>)> = Vec::new();
        for (number, confirmed) in orders.iter().enumerate() {
            lanes.extend(topics(number, *confirmed).into_iter().map(|lane| (id(number), lane)));
        }
        let mut mixed = Vec::new();
        let mut chance = picks.iter().zip(&repeats).cycle();
        while !lanes.is_empty() {
            let (pick, again) = chance.next().unwrap();
            let lane = pick.index(lanes.len());
            let (order, events) = &mut lanes[lane];
            let event = events.remove(0);
            for _ in 0..=usize::from(*again) {
                mixed.push((order.clone(), event.clone()));
            }
            if events.is_empty() {
                lanes.remove(lane);
            }
        }
        let expected = fold(straight.iter().map(|(order, event)| (order.clone(), event)));
        prop_assert_eq!(&in_a_store(&mixed).0, &expected);
        prop_assert_eq!(in_a_store(&mixed), in_a_store(&straight), "the days too");
    }
}
