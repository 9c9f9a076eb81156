//! Two replicas on a simulated Kafka, with a carrier that crashes: one shipment for an order, none for a cancelled one.

#[path = "../../payment/tests/town/mod.rs"]
mod town;

use std::sync::Arc;

use kit::{MemStore, Outgoing, outbox};
use outside::{Carrier, Provider};
use proto::order::Address;
use proto::shipping::{CancelShipment, Event, ScheduleShipment};
use proto::{OrderId, ShipmentId, tokens};
use shakedown_shipping as shipping;
use town::Town;

const ORDERS: u32 = 120;

fn is_cancelled(order: u32) -> bool {
    order.is_multiple_of(3)
}

fn is_unserved(order: u32) -> bool {
    order % 10 == 1
}

fn commands() -> Vec<Outgoing> {
    let mut commands = Vec::new();
    for order in 0..ORDERS {
        let id = OrderId::new(format!("o-{order}")).expect("a plain id");
        let (order_id, shipment_id) = (id.as_str().to_owned(), ShipmentId::of(&id).as_str().to_owned());
        let postal_code = if is_unserved(order) { tokens::UNSERVED_POSTAL_CODE } else { "H91" };
        let address = Address {
            street: "1 Quay Street".into(),
            city: "Galway".into(),
            postal_code: postal_code.into(),
            country: "IE".into(),
        };
        commands.push(Outgoing::of(&ScheduleShipment {
            order_id: order_id.clone(),
            shipment_id: shipment_id.clone(),
            address: Some(address),
            items: Vec::new(),
        }));
        if is_cancelled(order) {
            let reason = "a change of mind".into();
            commands.push(Outgoing::of(&CancelShipment { order_id, shipment_id, reason }));
        }
    }
    commands
}

#[test]
fn an_order_is_shipped_once_or_not_at_all_though_all_crash() {
    for seed in 0..3 {
        let carrier = Arc::new(Provider::new(Carrier::new()));
        let store = MemStore::new("shipping");
        let shared = store.clone();
        let replica: town::Replica = Arc::new(move |context, broker| {
            Box::pin(shipping::run(context, broker, Arc::new(shared.clone()), shipping::Config::default()))
        });
        let outside = (outside::carrier::HOST, carrier.program());
        let mut town = Town::new(seed, "shipping", replica, Some(outside), commands());
        town.with_faults();

        let ledger = carrier.ledger();
        for order in 0..ORDERS {
            let of_order =
                ledger.shipments().iter().filter(|shipment| shipment.order_id == format!("o-{order}"));
            let cancelled: Vec<bool> = of_order.map(|shipment| shipment.cancelled_at.is_some()).collect();
            let expected = if is_unserved(order) { vec![] } else { vec![is_cancelled(order)] };
            assert_eq!(cancelled, expected, "seed {seed}, shipments of order {order}");
        }
        let told = town.told.lock().unwrap();
        assert_eq!(told.len(), commands().len(), "seed {seed}: every command is answered, once");
        for message in told.values() {
            if let Event::ShipmentScheduled(told) =
                Event::decode(&message.kind, &message.payload).expect("an event")
            {
                let known =
                    ledger.shipments().iter().find(|shipment| shipment.tracking_number == told.tracking);
                assert_eq!(known.map(|shipment| &shipment.order_id), Some(&told.order_id), "seed {seed}");
            }
        }
        assert_eq!(outbox::depth(&store), Ok(0), "seed {seed}: all is said");
        assert_eq!(carrier.open_calls(), 0, "seed {seed}: nothing is asked any more");
    }
}
