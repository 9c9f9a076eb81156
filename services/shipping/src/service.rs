//! The handler: commands in, carrier calls, one transaction.

use async_trait::async_trait;
use kit::store::Json;
use kit::{Handler, HandlerError, Message, Outgoing, Prepared, Scope, Table, Unit};
use proto::shipping::{CancelShipment, Command, Event, ScheduleShipment};
use proto::{OrderId, ShipmentId};

use crate::carrier::Carrier;
use crate::shipment::{BookingFate, NothingCarried, Shipment};

/// All shipments ever decided, by order: an order has at most one.
pub const SHIPMENTS: Table<OrderId, Shipment, Json> = Table::new("shipments");

/// Handles `shipping.commands`.
#[derive(Debug)]
pub struct Shipments {
    carrier: Carrier,
}

/// What `prepare` found out.
enum Outcome {
    Schedule(ScheduleShipment, BookingFate),
    Cancel(CancelShipment, NothingCarried),
}

impl Shipments {
    /// A handler that books with `carrier`.
    pub fn new(carrier: Carrier) -> Shipments {
        Shipments { carrier }
    }
}

/// The key of an order's booking: it derives from the order, so that a second command of whatever id books nothing more.
fn booking_key(scope: &Scope, order_id: &OrderId) -> String {
    scope.idempotency_key(ShipmentId::of(order_id).as_str())
}

#[async_trait]
impl Handler for Shipments {
    async fn prepare(&self, scope: &Scope, message: &Message) -> Result<Prepared, HandlerError> {
        let command = Command::decode(&message.kind, &message.payload)?;
        let key = booking_key(scope, &command.order_id()?);
        Ok(Prepared::new(match command {
            Command::ScheduleShipment(command) => {
                let fate = self.carrier.book(&key, &command).await?;
                Outcome::Schedule(command, fate)
            }
            // The carrier is asked even if this service knows of no booking: its answer may have been lost.
            Command::CancelShipment(command) => {
                let confirmed = self.carrier.cancel(&key).await?;
                Outcome::Cancel(command, confirmed)
            }
        }))
    }

    fn apply(&self, unit: &mut Unit<'_>, message: &Message, prepared: Prepared) -> Result<(), HandlerError> {
        let outcome: Outcome = prepared.take();
        let order_id = OrderId::new(match &outcome {
            Outcome::Schedule(command, _) => &command.order_id,
            Outcome::Cancel(command, _) => &command.order_id,
        })?;
        let known = SHIPMENTS.get(unit.tables(), &order_id)?;
        let (shipment, event) = match outcome {
            Outcome::Schedule(command, fate) => Shipment::scheduled(known, &command, fate),
            Outcome::Cancel(command, confirmed) => Shipment::cancelled(known, &command, confirmed),
        };
        SHIPMENTS.put(unit.tables(), &order_id, &shipment)?;
        unit.note(format_args!("{} for {order_id}", event.kind()));
        unit.send(Outgoing::new(Event::TOPIC, message.key.as_str(), event.kind(), event.encode()))?;
        Ok(())
    }
}
