//! The handler: commands in, gateway calls, one transaction.

use std::sync::Arc;

use async_trait::async_trait;
use kit::store::Json;
use kit::{Handler, HandlerError, Message, Outgoing, Prepared, Scope, StoreError, StoreExt, Table, Unit};
use proto::PaymentId;
use proto::payment::{ChargePayment, Command, Event, RefundPayment};

use crate::gateway::Gateway;
use crate::payment::{ChargeFate, Payment, RefundFate, Status};

/// All payments ever decided, by id.
pub const PAYMENTS: Table<PaymentId, Payment, Json> = Table::new("payments");

/// Handles `payment.commands`.
#[derive(Debug)]
pub struct Payments<G> {
    gateway: Arc<G>,
}

/// What `prepare` found out.
enum Outcome {
    Charge(ChargePayment, ChargeFate),
    Refund(RefundPayment, RefundFate),
}

impl<G: Gateway> Payments<G> {
    /// A handler that takes and gives money through `gateway`.
    pub fn new(gateway: Arc<G>) -> Payments<G> {
        Payments { gateway }
    }

    /// The gateway is asked even if the payment is known: the key makes that harmless, and what the gateway says is
    /// true.
    async fn charge(&self, scope: &Scope, command: &ChargePayment) -> Result<ChargeFate, HandlerError> {
        self.gateway.charge(&charge_key(scope, &command.payment_id), command).await
    }

    /// A charge that this service does not know of may have happened all the same: its answer was lost, or its replica
    /// died before it could write it down, or it is on its way still. So the key is closed first.
    async fn refund(&self, scope: &Scope, command: &RefundPayment) -> Result<RefundFate, HandlerError> {
        let payment_id = PaymentId::new(&command.payment_id)?;
        let known = scope.store.read_with::<_, StoreError>(|tables| PAYMENTS.get(tables, &payment_id))?;
        let captured = match known.map(|payment| payment.status) {
            Some(Status::Captured(captured) | Status::Refunded(captured)) => captured,
            Some(Status::Declined(_) | Status::Voided) | None => {
                let key = charge_key(scope, &command.payment_id);
                match self.gateway.void(&key).await? {
                    ChargeFate::Captured(captured) => captured,
                    ChargeFate::Declined(_) | ChargeFate::Voided => return Ok(RefundFate::NothingToRefund),
                }
            }
        };
        let key = scope.idempotency_key(&format!("refund/{}", command.payment_id));
        self.gateway.refund(&key, &captured).await?;
        Ok(RefundFate::Refunded(captured))
    }
}

/// The key of a payment's charge: the same on every delivery, so that the money is taken once.
fn charge_key(scope: &Scope, payment_id: &str) -> String {
    scope.idempotency_key(&format!("charge/{payment_id}"))
}

#[async_trait]
impl<G: Gateway> Handler for Payments<G> {
    async fn prepare(&self, scope: &Scope, message: &Message) -> Result<Prepared, HandlerError> {
        Ok(Prepared::new(match Command::decode(&message.kind, &message.payload)? {
            Command::ChargePayment(command) => {
                let fate = self.charge(scope, &command).await?;
                Outcome::Charge(command, fate)
            }
            Command::RefundPayment(command) => {
                let fate = self.refund(scope, &command).await?;
                Outcome::Refund(command, fate)
            }
        }))
    }

    fn apply(&self, unit: &mut Unit<'_>, message: &Message, prepared: Prepared) -> Result<(), HandlerError> {
        let outcome: Outcome = prepared.take();
        let payment_id = PaymentId::new(match &outcome {
            Outcome::Charge(command, _) => &command.payment_id,
            Outcome::Refund(command, _) => &command.payment_id,
        })?;
        let known = PAYMENTS.get(unit.tables(), &payment_id)?;
        let (payment, event) = match outcome {
            Outcome::Charge(command, fate) => Payment::charged(known, &command, fate),
            Outcome::Refund(command, fate) => Payment::refunded(known, &command, fate)?,
        };
        PAYMENTS.put(unit.tables(), &payment_id, &payment)?;
        unit.note(format_args!("{} for {payment_id}", event.kind()));
        unit.send(Outgoing::new(Event::TOPIC, message.key.as_str(), event.kind(), event.encode()))?;
        Ok(())
    }
}
