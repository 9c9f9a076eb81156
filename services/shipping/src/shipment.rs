//! One order's shipment: the core of the service, without carrier, store or broker.
//!
//! Shipping runs a small saga of its own with the carrier: book, and either tell the tracking number or the refusal;
//! cancel to compensate. The carrier binds the shipment's key to one fate, so schedule and cancel commute: a
//! cancellation of something never booked has closed the key at the carrier first, and a booking still under way in
//! the network is refused when it arrives.

use proto::shipping::{
    CancelShipment, Event, ScheduleShipment, ShipmentCancelled, ShipmentRefused, ShipmentScheduled,
};
use serde::{Deserialize, Serialize};

/// What the service remembers of an order's shipment. An order has at most one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shipment {
    /// Its id.
    pub shipment_id: String,
    /// The order that is sent.
    pub order_id: String,
    /// Where it stands.
    pub status: Status,
}

/// Where a shipment stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// The carrier took it.
    Scheduled {
        /// The carrier's tracking number.
        tracking: String,
    },
    /// The carrier will not take it, for this reason. Final.
    Refused(String),
    /// It was cancelled. Final.
    Cancelled {
        /// The tracking number it had, if it was scheduled as far as this service knew.
        tracking: Option<String>,
    },
}

/// What the carrier says of a booking's key, once it is known for certain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BookingFate {
    /// It is booked.
    Booked {
        /// The carrier's tracking number.
        tracking: String,
    },
    /// The carrier does not take it.
    Refused(String),
    /// Nothing is carried under this key, ever.
    Cancelled,
}

/// The carrier confirms that nothing is carried under a shipment's key, from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NothingCarried;

impl Shipment {
    /// A shipment and the answer to its schedule, from what was known of it and what the carrier says.
    pub fn scheduled(
        known: Option<Shipment>,
        command: &ScheduleShipment,
        fate: BookingFate,
    ) -> (Shipment, Event) {
        let shipment = known.unwrap_or_else(|| Shipment {
            shipment_id: command.shipment_id.clone(),
            order_id: command.order_id.clone(),
            status: match fate {
                BookingFate::Booked { tracking } => Status::Scheduled { tracking },
                BookingFate::Refused(reason) => Status::Refused(reason),
                BookingFate::Cancelled => Status::Cancelled { tracking: None },
            },
        });
        let refused = |reason: &str| ShipmentRefused {
            order_id: shipment.order_id.clone(),
            shipment_id: shipment.shipment_id.clone(),
            reason: reason.into(),
        };
        let event = match &shipment.status {
            Status::Scheduled { tracking } => ShipmentScheduled {
                order_id: shipment.order_id.clone(),
                shipment_id: shipment.shipment_id.clone(),
                tracking: tracking.clone(),
            }
            .into(),
            Status::Refused(reason) => refused(reason).into(),
            Status::Cancelled { .. } => refused("the shipment was cancelled").into(),
        };
        (shipment, event)
    }

    /// A shipment and the answer to its cancellation, once the carrier has confirmed it.
    pub fn cancelled(
        known: Option<Shipment>,
        command: &CancelShipment,
        _confirmed: NothingCarried,
    ) -> (Shipment, Event) {
        let mut shipment = known.unwrap_or_else(|| Shipment {
            shipment_id: command.shipment_id.clone(),
            order_id: command.order_id.clone(),
            status: Status::Cancelled { tracking: None },
        });
        if let Status::Scheduled { tracking } = shipment.status {
            shipment.status = Status::Cancelled { tracking: Some(tracking) };
        }
        let tracking = match &shipment.status {
            Status::Cancelled { tracking: Some(tracking) } => tracking.clone(),
            _ => String::new(),
        };
        let event = ShipmentCancelled {
            order_id: shipment.order_id.clone(),
            shipment_id: shipment.shipment_id.clone(),
            tracking,
        };
        (shipment, event.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule() -> ScheduleShipment {
        ScheduleShipment {
            order_id: "o-1".into(),
            shipment_id: "ship-o-1".into(),
            address: None,
            items: Vec::new(),
        }
    }

    fn cancel() -> CancelShipment {
        CancelShipment {
            order_id: "o-1".into(),
            shipment_id: "ship-o-1".into(),
            reason: "compensation".into(),
        }
    }

    fn booked() -> BookingFate {
        BookingFate::Booked { tracking: "TRACK-1".into() }
    }

    #[test]
    fn a_booked_shipment_has_its_tracking_number_and_keeps_it() {
        let (shipment, event) = Shipment::scheduled(None, &schedule(), booked());
        assert!(matches!(&event, Event::ShipmentScheduled(told) if told.tracking == "TRACK-1"), "{event:?}");
        let other = BookingFate::Booked { tracking: "TRACK-2".into() };
        assert_eq!(Shipment::scheduled(Some(shipment.clone()), &schedule(), other), (shipment, event));
    }

    #[test]
    fn a_refusal_is_told_with_its_reason_and_stays() {
        let refused = BookingFate::Refused("address_unserved".into());
        let (shipment, event) = Shipment::scheduled(None, &schedule(), refused);
        assert!(
            matches!(&event, Event::ShipmentRefused(told) if told.reason == "address_unserved"),
            "{event:?}"
        );
        let (after, event) = Shipment::cancelled(Some(shipment.clone()), &cancel(), NothingCarried);
        assert!(matches!(&event, Event::ShipmentCancelled(told) if told.tracking.is_empty()), "{event:?}");
        assert_eq!(after, shipment);
    }

    #[test]
    fn a_cancelled_shipment_is_told_with_what_it_was() {
        let (shipment, _) = Shipment::scheduled(None, &schedule(), booked());
        let (cancelled, event) = Shipment::cancelled(Some(shipment), &cancel(), NothingCarried);
        assert!(matches!(&event, Event::ShipmentCancelled(told) if told.tracking == "TRACK-1"), "{event:?}");
        assert_eq!(
            Shipment::cancelled(Some(cancelled.clone()), &cancel(), NothingCarried),
            (cancelled, event)
        );
    }

    #[test]
    fn a_schedule_that_comes_after_its_cancellation_is_refused() {
        let (cancelled, event) = Shipment::cancelled(None, &cancel(), NothingCarried);
        assert!(matches!(&event, Event::ShipmentCancelled(told) if told.tracking.is_empty()), "{event:?}");
        // What the carrier says comes second: a replica that died may have asked it before the cancellation.
        for fate in [BookingFate::Cancelled, booked()] {
            let (after, event) = Shipment::scheduled(Some(cancelled.clone()), &schedule(), fate);
            assert!(matches!(event, Event::ShipmentRefused(_)), "{event:?}");
            assert_eq!(after, cancelled);
        }
    }
}
