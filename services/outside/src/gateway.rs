//! The payment gateway: it takes money once for each key, and its ledger is the ground truth of every money check.
//!
//! [`Gateway`] is a core without IO. A charge belongs to the idempotency key under which it was first asked for: the
//! same key with the same request gets the same answer for ever, with another request it is refused. A key can be
//! voided: if nothing was captured under it, nothing ever will be. That is what makes a compensation safe that
//! overtakes its charge: without it, a charge still under way in the network could capture after its refund was answered
//! with "nothing to refund".
//!
//! Start reading at [`Gateway::handle`]. Paths and JSON are in `wire`. Absent on purpose: cards, fees,
//! authorisation without capture, settlement.

mod wire;

use std::collections::BTreeMap;

use context::Timestamp;
use serde::{Deserialize, Serialize};

/// The host name of the gateway in a simulated world.
pub const HOST: &str = "gateway";

/// The card token that this gateway declines, for want of funds. Any other token pays.
pub const DECLINED_TOKEN: &str = proto::tokens::DECLINED_PAYMENT_METHOD;

/// Why a charge of [`DECLINED_TOKEN`] is declined.
pub const INSUFFICIENT_FUNDS: &str = "insufficient_funds";

/// What a merchant asks to charge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChargeRequest {
    /// The merchant's own id of the payment.
    pub payment_id: String,
    /// The order that is paid for.
    pub order_id: String,
    /// In minor units of the currency (cents); more than zero.
    pub amount_minor: i64,
    /// ISO 4217 code.
    pub currency: String,
    /// Stands for a card, as given out by the gateway to the merchant's customer.
    pub card_token: String,
}

/// What a merchant asks to pay back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefundRequest {
    /// The charge from which the money comes.
    pub charge_id: String,
    /// In minor units of the charge's currency; more than zero, at most what is left of the charge.
    pub amount_minor: i64,
}

/// All that can be asked of the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Take money, once for this key.
    Charge {
        /// The idempotency key.
        key: String,
        /// What to take.
        charge: ChargeRequest,
    },
    /// Give money back, once for this key.
    Refund {
        /// The idempotency key.
        key: String,
        /// What to give back.
        refund: RefundRequest,
    },
    /// Make sure that nothing is captured under this key from now on. A charge already captured stays and is shown.
    Void {
        /// The key of a charge.
        key: String,
    },
    /// What became of this key.
    Find {
        /// The key it was asked for under.
        key: String,
    },
}

/// All that the gateway answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// The money was taken, now or when the key was first used.
    Captured {
        /// The charge.
        charge: Charge,
        /// How much of it was given back, in minor units.
        refunded_minor: i64,
    },
    /// The card was declined, now or when the key was first used. Final for this key.
    Declined(Decline),
    /// Nothing was captured under this key, and nothing ever will be.
    Voided {
        /// The key.
        key: String,
    },
    /// The money was given back, now or when the key was first used.
    Refunded(Refund),
    /// The key was used before for another request; nothing was done.
    KeyReused {
        /// The key.
        key: String,
    },
    /// The gateway has never seen this key.
    UnknownKey {
        /// The key.
        key: String,
    },
    /// There is no charge of this id to refund.
    UnknownCharge {
        /// The id that was asked for.
        charge_id: String,
    },
    /// The refund is for more than is left of the charge.
    MoreThanIsLeft {
        /// The charge.
        charge_id: String,
        /// What could still be refunded, in minor units.
        left_minor: i64,
    },
    /// The request makes no sense; the text says why.
    Invalid(String),
}

/// Money taken from a customer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Charge {
    /// The gateway's own id, in order of capture.
    pub charge_id: String,
    /// The idempotency key under which it was made.
    pub key: String,
    /// The merchant's id of the payment.
    pub payment_id: String,
    /// The order that was paid for.
    pub order_id: String,
    /// In minor units of `currency`.
    pub amount_minor: i64,
    /// ISO 4217 code.
    pub currency: String,
    /// When it was captured, on the gateway's clock.
    #[serde(serialize_with = "crate::provider::millis")]
    pub at: Timestamp,
}

/// Money given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refund {
    /// The gateway's own id, in order of refund.
    pub refund_id: String,
    /// The idempotency key under which it was made.
    pub key: String,
    /// The charge from which it came.
    pub charge_id: String,
    /// The order of that charge.
    pub order_id: String,
    /// In minor units of the charge's currency.
    pub amount_minor: i64,
    /// When it was made, on the gateway's clock.
    #[serde(serialize_with = "crate::provider::millis")]
    pub at: Timestamp,
}

/// A charge that was not made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decline {
    /// The idempotency key under which it was asked for.
    pub key: String,
    /// The order that was to be paid for.
    pub order_id: String,
    /// In minor units.
    pub amount_minor: i64,
    /// Why, as a fixed word.
    pub reason: String,
    /// When it was first asked for, on the gateway's clock.
    #[serde(serialize_with = "crate::provider::millis")]
    pub at: Timestamp,
}

/// What became of a key for charges. Numbers are places in the ledger's lists.
#[derive(Clone, Debug)]
enum Fate {
    Captured { request: ChargeRequest, place: usize },
    Declined { request: ChargeRequest, place: usize },
    Voided,
}

/// The gateway's ledger. It only grows.
#[derive(Clone, Debug, Default)]
pub struct Gateway {
    charges: Vec<Charge>,
    refunds: Vec<Refund>,
    declines: Vec<Decline>,
    /// Keys of charges. A key is bound at its first use and never freed.
    fates: BTreeMap<String, Fate>,
    /// Keys of refunds: what was asked, and its place among the refunds.
    refund_keys: BTreeMap<String, (RefundRequest, usize)>,
    /// Each charge's place among the charges, and what was given back of it in minor units, by charge id.
    by_id: BTreeMap<String, (usize, i64)>,
}

impl Gateway {
    /// A gateway that has seen nobody.
    pub fn new() -> Gateway {
        Gateway::default()
    }

    /// All money taken, in order.
    pub fn charges(&self) -> &[Charge] {
        &self.charges
    }

    /// All money given back, in order.
    pub fn refunds(&self) -> &[Refund] {
        &self.refunds
    }

    /// All charges declined, in order.
    pub fn declines(&self) -> &[Decline] {
        &self.declines
    }

    /// Applies one request and answers it.
    pub fn handle(&mut self, now: Timestamp, request: Request) -> Response {
        match request {
            Request::Charge { key, charge } => self.charge(now, key, charge),
            Request::Refund { key, refund } => self.refund(now, key, refund),
            Request::Void { key } => self.void(key),
            Request::Find { key } => self.find(key),
        }
    }

    fn charge(&mut self, now: Timestamp, key: String, request: ChargeRequest) -> Response {
        match self.fates.get(&key) {
            Some(Fate::Captured { request: first, .. } | Fate::Declined { request: first, .. })
                if *first != request =>
            {
                return Response::KeyReused { key };
            }
            Some(_) => return self.find(key),
            None => {}
        }
        if request.amount_minor <= 0 {
            return Response::Invalid(format!(
                "`amount_minor` is {}, must be more than 0",
                request.amount_minor
            ));
        }
        let fate = if request.card_token == DECLINED_TOKEN {
            self.declines.push(Decline {
                key: key.clone(),
                order_id: request.order_id.clone(),
                amount_minor: request.amount_minor,
                reason: INSUFFICIENT_FUNDS.into(),
                at: now,
            });
            Fate::Declined { request, place: self.declines.len() - 1 }
        } else {
            let charge_id = format!("ch_{:06}", self.charges.len() + 1);
            self.by_id.insert(charge_id.clone(), (self.charges.len(), 0));
            self.charges.push(Charge {
                charge_id,
                key: key.clone(),
                payment_id: request.payment_id.clone(),
                order_id: request.order_id.clone(),
                amount_minor: request.amount_minor,
                currency: request.currency.clone(),
                at: now,
            });
            Fate::Captured { request, place: self.charges.len() - 1 }
        };
        self.fates.insert(key.clone(), fate);
        self.find(key)
    }

    fn refund(&mut self, now: Timestamp, key: String, request: RefundRequest) -> Response {
        if let Some((first, place)) = self.refund_keys.get(&key) {
            if *first != request {
                return Response::KeyReused { key };
            }
            return Response::Refunded(self.refunds[*place].clone());
        }
        if request.amount_minor <= 0 {
            return Response::Invalid(format!(
                "`amount_minor` is {}, must be more than 0",
                request.amount_minor
            ));
        }
        let Some((place, refunded)) = self.by_id.get_mut(&request.charge_id) else {
            return Response::UnknownCharge { charge_id: request.charge_id };
        };
        let charge = &self.charges[*place];
        let left_minor = charge.amount_minor - *refunded;
        if request.amount_minor > left_minor {
            return Response::MoreThanIsLeft { charge_id: request.charge_id, left_minor };
        }
        *refunded += request.amount_minor;
        assert!(*refunded <= charge.amount_minor, "more was refunded than captured");
        let refund = Refund {
            refund_id: format!("re_{:06}", self.refunds.len() + 1),
            key: key.clone(),
            charge_id: request.charge_id.clone(),
            order_id: charge.order_id.clone(),
            amount_minor: request.amount_minor,
            at: now,
        };
        self.refund_keys.insert(key, (request, self.refunds.len()));
        self.refunds.push(refund.clone());
        Response::Refunded(refund)
    }

    fn void(&mut self, key: String) -> Response {
        self.fates.entry(key.clone()).or_insert(Fate::Voided);
        self.find(key)
    }

    fn find(&self, key: String) -> Response {
        match self.fates.get(&key) {
            Some(Fate::Captured { place, .. }) => {
                let charge = self.charges[*place].clone();
                let refunded_minor = self.by_id[&charge.charge_id].1;
                Response::Captured { charge, refunded_minor }
            }
            Some(Fate::Declined { place, .. }) => Response::Declined(self.declines[*place].clone()),
            Some(Fate::Voided) => Response::Voided { key },
            None => Response::UnknownKey { key },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn charge(key: &str, amount_minor: i64, card_token: &str) -> Request {
        Request::Charge {
            key: key.into(),
            charge: ChargeRequest {
                payment_id: "payment-1".into(),
                order_id: "order-1".into(),
                amount_minor,
                currency: "EUR".into(),
                card_token: card_token.into(),
            },
        }
    }

    fn refund(key: &str, charge_id: &str, amount_minor: i64) -> Request {
        Request::Refund {
            key: key.into(),
            refund: RefundRequest { charge_id: charge_id.into(), amount_minor },
        }
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn a_repeated_charge_gets_the_same_answer_and_takes_no_more_money() {
        let mut gateway = Gateway::new();
        let first = gateway.handle(at(1), charge("k", 1999, "tok_visa"));
        assert!(matches!(first, Response::Captured { .. }), "{first:?}");
        assert_eq!(gateway.handle(at(9), charge("k", 1999, "tok_visa")), first);
        assert_eq!(gateway.charges().len(), 1);
        assert_eq!(gateway.charges()[0].at, at(1));
    }

    #[test]
    fn another_request_under_a_used_key_is_refused() {
        let mut gateway = Gateway::new();
        gateway.handle(at(1), charge("k", 1999, "tok_visa"));
        let other = gateway.handle(at(2), charge("k", 2999, "tok_visa"));
        assert_eq!(other, Response::KeyReused { key: "k".into() });

        gateway.handle(at(3), refund("r", "ch_000001", 500));
        let other = gateway.handle(at(4), refund("r", "ch_000001", 600));
        assert_eq!(other, Response::KeyReused { key: "r".into() });
        assert_eq!((gateway.charges().len(), gateway.refunds().len()), (1, 1));
    }

    #[test]
    fn another_key_takes_money_again() {
        let mut gateway = Gateway::new();
        gateway.handle(at(1), charge("k", 1999, "tok_visa"));
        gateway.handle(at(2), charge("fresh", 1999, "tok_visa"));
        assert_eq!(gateway.charges().len(), 2, "the gateway knows keys, not payments");
    }

    #[test]
    fn a_decline_is_final_for_its_key() {
        let mut gateway = Gateway::new();
        let first = gateway.handle(at(1), charge("k", 1999, DECLINED_TOKEN));
        assert!(matches!(first, Response::Declined(_)), "{first:?}");
        assert_eq!(gateway.handle(at(2), charge("k", 1999, DECLINED_TOKEN)), first);
        assert_eq!((gateway.charges().len(), gateway.declines().len()), (0, 1));
    }

    #[test]
    fn a_voided_key_never_captures() {
        let mut gateway = Gateway::new();
        let voided = Response::Voided { key: "k".into() };
        assert_eq!(gateway.handle(at(1), Request::Void { key: "k".into() }), voided);
        assert_eq!(gateway.handle(at(2), charge("k", 1999, "tok_visa")), voided);
        assert!(gateway.charges().is_empty());
    }

    #[test]
    fn a_void_shows_a_captured_charge_and_leaves_it() {
        let mut gateway = Gateway::new();
        let captured = gateway.handle(at(1), charge("k", 1999, "tok_visa"));
        assert_eq!(gateway.handle(at(2), Request::Void { key: "k".into() }), captured);
        assert_eq!(gateway.handle(at(3), Request::Find { key: "k".into() }), captured);
    }

    #[test]
    fn refunds_never_exceed_their_charge() {
        let mut gateway = Gateway::new();
        gateway.handle(at(1), charge("k", 1000, "tok_visa"));
        gateway.handle(at(2), refund("r1", "ch_000001", 700));
        let left = Response::MoreThanIsLeft { charge_id: "ch_000001".into(), left_minor: 300 };
        assert_eq!(gateway.handle(at(3), refund("r2", "ch_000001", 301)), left);
        assert!(matches!(gateway.handle(at(4), refund("r2", "ch_000001", 300)), Response::Refunded(_)));
        // The first refund, asked for again, is answered again and pays nothing.
        assert!(matches!(gateway.handle(at(5), refund("r1", "ch_000001", 700)), Response::Refunded(_)));
        assert_eq!(gateway.refunds().iter().map(|refund| refund.amount_minor).sum::<i64>(), 1000);
        let unknown = Response::UnknownCharge { charge_id: "ch_9".into() };
        assert_eq!(gateway.handle(at(6), refund("r3", "ch_9", 1)), unknown);
    }

    #[test]
    fn an_amount_of_nothing_binds_no_key() {
        let mut gateway = Gateway::new();
        assert!(matches!(gateway.handle(at(1), charge("k", 0, "tok_visa")), Response::Invalid(_)));
        assert!(matches!(gateway.handle(at(2), charge("k", 5, "tok_visa")), Response::Captured { .. }));
        assert!(matches!(gateway.handle(at(3), refund("r", "ch_000001", -5)), Response::Invalid(_)));
    }
}
