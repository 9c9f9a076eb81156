use context::Timestamp;
use payment::payment::Captured;

use super::*;

const AT: Timestamp = Timestamp::ZERO;

fn placed(status: OrderStatus) -> Placed {
    let pieces = [("sku-001".to_owned(), 2)].into();
    Placed { status, currency: "EUR".into(), total: 500, pieces, saga_ended: true }
}

fn charge(order: &str, amount_minor: i64) -> Charge {
    Charge {
        charge_id: format!("ch-{order}"),
        key: format!("key-{order}"),
        payment_id: format!("pay-{order}"),
        order_id: order.into(),
        amount_minor,
        currency: "EUR".into(),
        at: AT,
    }
}

fn notice(order: &str, kind: &str) -> Notice {
    Notice {
        notice_id: format!("n-{order}"),
        key: format!("{order}/{kind}"),
        order_id: order.into(),
        kind: kind.into(),
        to: "c-001".into(),
        text: String::new(),
        at: AT,
    }
}

fn reservation(order: &str, status: Stage) -> (String, Reservation) {
    let lines = [("sku-001".to_owned(), 2)].into();
    (order.to_owned(), Reservation { order_id: order.into(), lines, expires_at_ms: 0, status })
}

fn view(order: &str, status: &str) -> (String, OrderView) {
    (order.to_owned(), OrderView { total: 500, status: status.into(), ..OrderView::default() })
}

/// One confirmed order, and one that was cancelled after it was paid.
fn books() -> Books {
    let address = outside::carrier::Address {
        street: "1 Quay Street".into(),
        city: "Galway".into(),
        postal_code: "H91".into(),
        country: "IE".into(),
    };
    let captured = Captured { charge_id: "ch-yes".into(), amount_minor: 500, currency: "EUR".into() };
    let payment =
        |order: &str, status| Payment { payment_id: format!("pay-{order}"), order_id: order.into(), status };
    let totals = [
        ("orders accepted", 2),
        ("orders confirmed", 1),
        ("orders cancelled", 1),
        ("ordered EUR", 1_000),
        ("captured EUR", 1_000),
        ("refunded EUR", 500),
        ("pieces shipped", 2),
        ("shipments", 1),
        ("notices confirmed", 1),
        ("notices cancelled", 1),
    ];
    Books {
        orders: [
            ("yes".into(), placed(OrderStatus::Confirmed)),
            ("no".into(), placed(OrderStatus::Cancelled)),
        ]
        .into(),
        waiting: [(Part::Order, 0)].into(),
        charges: vec![charge("yes", 500), charge("no", 500)],
        refunds: vec![Refund {
            refund_id: "re-no".into(),
            key: "refund-no".into(),
            charge_id: "ch-no".into(),
            order_id: "no".into(),
            amount_minor: 500,
            at: AT,
        }],
        shipments: vec![Shipment {
            key: "yes".into(),
            order_id: "yes".into(),
            address,
            tracking_number: "TRACK-1".into(),
            at: AT,
            cancelled_at: None,
        }],
        notices: vec![notice("yes", "confirmed"), notice("no", "cancelled")],
        payments: vec![
            payment("yes", payment::Status::Captured(captured.clone())),
            payment("no", payment::Status::Refunded(captured)),
        ],
        reservations: [reservation("yes", Stage::Committed), reservation("no", Stage::Released)].into(),
        stock: [("sku-001".into(), Stock { initial: 10, available: 8, reserved: 0, shipped: 2 })].into(),
        views: [view("yes", "confirmed"), view("no", "cancelled")].into(),
        totals: totals.map(|(name, number)| (name.to_owned(), number)).into(),
    }
}

/// What is said of books with something planted in them.
fn planted(plant: impl FnOnce(&mut Books)) -> Vec<String> {
    let mut books = books();
    plant(&mut books);
    books.disagreements(Some(2))
}

#[test]
fn books_that_agree_have_nothing_to_say() {
    assert_eq!(planted(|_| ()), [] as [&str; 0]);
}

#[test]
fn planted_a_second_charge_is_found() {
    let found = planted(|books| books.charges.push(charge("yes", 500)));
    assert_eq!(found[0], "yes was charged 2 times");
    assert!(
        found.contains(&"1500 captured less 500 given back is not the 500 that confirmed orders cost".into())
    );
}

#[test]
fn planted_money_that_the_payment_service_does_not_know_of_is_found() {
    let found = planted(|books| books.payments.retain(|payment| payment.order_id != "yes"));
    assert_eq!(found, ["the payment service believes None of yes, and the gateway has 500"]);
}

#[test]
fn planted_a_piece_that_vanished_is_found() {
    let found = planted(|books| books.stock.get_mut("sku-001").unwrap().available -= 1);
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("confirmed orders bought 2 of sku-001, and its shelf says"), "{found:?}");
}

#[test]
fn planted_a_customer_who_was_told_twice_is_found() {
    let found = planted(|books| books.notices.push(notice("no", "cancelled")));
    assert_eq!(found[0], r#"no is cancelled, and its customer was told ["cancelled", "cancelled"]"#);
}

#[test]
fn planted_a_parcel_of_nobody_and_one_too_many_are_found() {
    let found = planted(|books| books.shipments[0].order_id = "stranger".into());
    assert_eq!(found[0], "yes is confirmed, and 0 parcels are under way");
    assert_eq!(found[1], "stranger was never taken, and something was done for it");
}

#[test]
fn planted_an_order_that_is_missing_and_one_that_stands_still_are_found() {
    let found = planted(|books| {
        books.orders.insert("no".into(), placed(OrderStatus::Paid));
        books.orders.remove("yes");
    });
    assert_eq!(found[0], "there are 1 orders, and must be 2");
    assert_eq!(found[1], "no is paid, and goes no further");
}

#[test]
fn planted_a_read_side_and_totals_that_lag_and_a_record_that_waits_are_found() {
    let found = planted(|books| {
        books.views.remove("no");
        books.totals.insert("shipments".into(), 0);
        books.waiting.insert(Part::Order, 1);
    });
    assert_eq!(
        found,
        [
            "order has 1 records that were never sent",
            "no is cancelled at 500, and the read side shows None",
            "analytics counts 0 shipments, and there are 1",
        ]
    );
}

#[test]
fn planted_views_and_totals_of_what_never_was_are_found() {
    let found = planted(|books| {
        books.views.extend([view("stranger", "confirmed")]);
        books.totals.extend([("refunded USD".into(), 500), ("orders expired".into(), 1)]);
    });
    assert_eq!(
        found,
        [
            "the read side shows stranger, which has no saga",
            "analytics counts 2 orders that were cancelled, and there are 1",
            "analytics counts 500 refunded USD, and there are 0",
        ]
    );
}

#[test]
fn books_in_which_nothing_is_agree_only_where_that_is_wanted() {
    assert_eq!(Books::default().disagreements(Some(0)), [] as [&str; 0]);
    assert_eq!(Books::default().disagreements(None).len(), 1);
}

#[test]
fn planted_goods_that_stay_reserved_are_found() {
    let found = planted(|books| books.reservations.extend([reservation("no", Stage::Reserved)]));
    assert_eq!(found, ["no is cancelled, and its goods are Some(Reserved)"]);
}
