//! The handler against the carrier's ledger, over loopback TCP: at most one shipment for an order, whatever is repeated,
//! lost or overtaken.

use std::sync::Arc;
use std::time::Duration;

use broker::TopicPartition;
use context::real::RealHost;
use context::{Seed, Timestamp};
use kit::{
    Handler, HandlerError, MemStore, Message, Naive, NaiveSwitch, Scope, StoreError, StoreExt, Unit, http,
    outbox,
};
use outside::{Provider, ServiceTime};
use proto::order::Address;
use proto::shipping::{CancelShipment, Command, Event, ScheduleShipment};
use proto::{MessageId, headers, tokens};
use shakedown_shipping::{Carrier, Shipments};

/// A shipping service and its carrier.
struct Bench {
    handler: Shipments,
    scope: Scope,
    store: MemStore,
    outside: Arc<Provider<outside::Carrier>>,
    /// Its tasks end with it.
    _host: Arc<RealHost>,
}

impl Bench {
    async fn new(naive: Naive) -> Bench {
        let outside = Arc::new(
            Provider::new(outside::Carrier::new()).with_service_time(ServiceTime { ms_min: 0, ms_max: 0 }),
        );
        let (server, host) = RealHost::new("carrier", Seed(1)).start();
        let port = server.listen(0).await.expect("loopback has a free port").port();
        let serving = outside.clone().run_on(server.clone(), port);
        server.spawn("serve", async move { serving.await.expect("the port is free") });
        let context = RealHost::new("shipping-1", Seed(2)).with_name("carrier", "127.0.0.1").into_context();
        let client = http::Client::new(context.clone(), "carrier", port);
        while client.get("/").await.is_err() {
            context.sleep(Duration::from_millis(1)).await;
        }
        let store = MemStore::new("shipping");
        Bench {
            handler: Shipments::new(Carrier::new(client)),
            scope: Scope {
                context,
                store: Arc::new(store.clone()),
                group: "shipping".into(),
                attempt: 0,
                naive,
            },
            store,
            outside,
            _host: host,
        }
    }

    /// Handles a command to its end, and gives what is told. There is no inbox: every delivery is handled.
    async fn handle(&self, command: impl Into<Command>) -> Event {
        let message = message(command);
        let prepared = self.handler.prepare(&self.scope, &message).await.expect("the carrier answers");
        let handled = self.store.transact_with::<_, HandlerError>(&self.scope.context, |tables| {
            let mut unit = Unit::caused_by(&self.scope.context, tables, &self.scope.group, &message);
            self.handler.apply(&mut unit, &message, prepared)
        });
        handled.expect("the transaction commits");
        let pending = self.store.read_with::<_, StoreError>(|tables| outbox::pending(tables, 0, usize::MAX));
        let (_, record) = pending.unwrap().pop().expect("every command is answered");
        assert_eq!(record.key.as_deref(), Some(&b"o-1"[..]));
        Event::decode(record.headers.text(headers::EVENT_TYPE).unwrap(), &record.value.unwrap()).unwrap()
    }

    /// Asks the carrier and dies before anything is written down.
    async fn die_after_asking(&self, command: impl Into<Command>) {
        drop(self.handler.prepare(&self.scope, &message(command)).await.expect("the carrier answers"));
    }

    /// Shipments under way, and cancelled ones.
    fn carried(&self) -> (usize, usize) {
        let ledger = self.outside.ledger();
        let cancelled = ledger.shipments().iter().filter(|shipment| shipment.cancelled_at.is_some()).count();
        (ledger.shipments().len() - cancelled, cancelled)
    }
}

fn message(command: impl Into<Command>) -> Message {
    let command = command.into();
    Message {
        id: MessageId::derived(command.kind()),
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

fn schedule(shipment_id: &str, postal_code: &str) -> ScheduleShipment {
    let address = Address {
        street: "1 Quay Street".into(),
        city: "Galway".into(),
        postal_code: postal_code.into(),
        country: "IE".into(),
    };
    ScheduleShipment {
        order_id: "o-1".into(),
        shipment_id: shipment_id.into(),
        address: Some(address),
        items: Vec::new(),
    }
}

fn cancel() -> CancelShipment {
    CancelShipment { order_id: "o-1".into(), shipment_id: "ship-o-1".into(), reason: "compensation".into() }
}

#[tokio::test]
async fn a_repeated_schedule_is_one_shipment_and_tells_the_carriers_tracking_number() {
    let bench = Bench::new(Naive::none()).await;
    let first = bench.handle(schedule("ship-o-1", "H91")).await;
    let tracking = bench.outside.ledger().shipments()[0].tracking_number.clone();
    assert!(matches!(&first, Event::ShipmentScheduled(told) if told.tracking == tracking), "{first:?}");
    assert_eq!(bench.handle(schedule("ship-o-1", "H91")).await, first);
    // Another id does not make it another order.
    assert_eq!(bench.handle(schedule("ship-again", "H91")).await, first);
    assert_eq!(bench.carried(), (1, 0));
}

#[tokio::test]
async fn an_address_that_is_not_served_is_refused() {
    let bench = Bench::new(Naive::none()).await;
    let refused = bench.handle(schedule("ship-o-1", tokens::UNSERVED_POSTAL_CODE)).await;
    assert!(
        matches!(&refused, Event::ShipmentRefused(told) if told.reason == "address_unserved"),
        "{refused:?}"
    );
    let cancelled = bench.handle(cancel()).await;
    assert!(
        matches!(&cancelled, Event::ShipmentCancelled(told) if told.tracking.is_empty()),
        "{cancelled:?}"
    );
    assert_eq!(bench.carried(), (0, 0));
}

#[tokio::test]
async fn a_cancellation_finds_the_booking_whose_answer_was_lost() {
    let bench = Bench::new(Naive::none()).await;
    bench.die_after_asking(schedule("ship-o-1", "H91")).await;
    assert_eq!(bench.carried(), (1, 0));
    bench.handle(cancel()).await;
    assert_eq!(bench.carried(), (0, 1));
}

#[tokio::test]
async fn a_schedule_that_comes_after_its_cancellation_books_nothing() {
    let bench = Bench::new(Naive::none()).await;
    bench.handle(cancel()).await;
    let late = bench.handle(schedule("ship-o-1", "H91")).await;
    assert!(matches!(late, Event::ShipmentRefused(_)), "{late:?}");
    assert_eq!(bench.carried(), (0, 0));
}

#[tokio::test]
async fn a_request_that_the_carrier_cannot_read_is_no_answer_but_an_error() {
    let bench = Bench::new(Naive::none()).await;
    let nowhere = message(ScheduleShipment { address: None, ..schedule("ship-o-1", "H91") });
    let error = bench.handler.prepare(&bench.scope, &nowhere).await.unwrap_err();
    assert!(matches!(&error, HandlerError::Business(text) if text.contains("postal_code")), "{error:?}");
}

/// The defect that the harness must find: it has to be one.
#[tokio::test]
async fn fresh_keys_book_twice() {
    let bench = Bench::new(Naive::none().with(NaiveSwitch::FreshKeys)).await;
    bench.handle(schedule("ship-o-1", "H91")).await;
    bench.handle(schedule("ship-o-1", "H91")).await;
    assert_eq!(bench.carried(), (2, 0));
}
