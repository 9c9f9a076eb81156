//! What the tests of this crate share.

use proto::order::{Address, CreateOrder, Item};

/// What the one item costs.
pub(crate) const EUR_PRICE: i64 = 1_999;

/// Two of one item.
pub(crate) fn create(order: &str) -> CreateOrder {
    CreateOrder {
        order_id: order.into(),
        customer_id: "c-1".into(),
        items: vec![Item { sku: "sku-1".into(), name: "Lamp".into(), quantity: 2, unit_price: EUR_PRICE }],
        currency: "EUR".into(),
        payment_method: proto::tokens::GOOD_PAYMENT_METHOD.into(),
        address: Some(Address {
            street: "1 Harbour Road".into(),
            city: "Kiel".into(),
            postal_code: "24103".into(),
            country: "DE".into(),
        }),
    }
}
