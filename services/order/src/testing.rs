//! What the tests of this crate share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use context::{BoxFuture, Host, Net, NoRecorder, Recorder, Seed, TaskHandle, Timestamp};
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

/// A host whose clock is moved by hand, and which has neither network nor tasks.
pub(crate) struct StillHost {
    now_micros: AtomicU64,
}

impl StillHost {
    /// Its clock stands at one second.
    pub(crate) fn new() -> Arc<StillHost> {
        Arc::new(StillHost { now_micros: AtomicU64::new(1_000_000) })
    }

    /// Moves its clock.
    pub(crate) fn wait(&self, span: Duration) {
        self.now_micros.fetch_add(u64::try_from(span.as_micros()).unwrap(), Ordering::Relaxed);
    }
}

impl Host for StillHost {
    fn name(&self) -> &str {
        "order-1"
    }

    fn incarnation(&self) -> u64 {
        0
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.now_micros.load(Ordering::Relaxed))
    }

    fn spawn(&self, name: &'static str, _: BoxFuture<'static, ()>) -> TaskHandle {
        panic!("`{name}` is spawned where nothing runs")
    }

    fn net(&self) -> Arc<dyn Net> {
        panic!("there is no network here")
    }

    fn seed(&self) -> Seed {
        Seed(1)
    }

    fn recorder(&self) -> Arc<dyn Recorder> {
        Arc::new(NoRecorder)
    }
}
