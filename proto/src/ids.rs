//! Ids as types, so that a payment's is never taken for an order's.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

/// Text that is no id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no id: 1 to 64 letters, digits, `-`, `_` or `.` are")]
pub struct InvalidId {
    /// What was given, cut to 80 characters.
    pub text: String,
}

fn check(text: &str) -> Result<Arc<str>, InvalidId> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if (1..=64).contains(&text.len()) && text.bytes().all(plain) {
        Ok(text.into())
    } else {
        Err(InvalidId { text: text.chars().take(80).collect() })
    }
}

macro_rules! id {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes `text` as an id.
            ///
            /// # Errors
            /// Unless it is 1 to 64 letters, digits, `-`, `_` or `.`.
            pub fn new(text: impl AsRef<str>) -> Result<$name, InvalidId> {
                check(text.as_ref()).map($name)
            }

            /// As text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.as_ref().to_owned()
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<$name, InvalidId> {
                $name::new(text)
            }
        }
    };
}

id! {
    /// An order, named by the customer who placed it: the same id again is the same order.
    OrderId
}
id! {
    /// A customer.
    CustomerId
}
id! {
    /// A payment. An order has one: [`PaymentId::of`].
    PaymentId
}
id! {
    /// A reservation of stock. An order has one: [`ReservationId::of`].
    ReservationId
}
id! {
    /// A shipment. An order has one: [`ShipmentId::of`].
    ShipmentId
}
id! {
    /// A saga. An order has one: [`SagaId::of`].
    SagaId
}

macro_rules! of_order {
    ($name:ident, $prefix:literal) => {
        impl $name {
            /// The one of this order. Derived, so that a crash and a second try name the same thing.
            pub fn of(order: &OrderId) -> $name {
                $name(format!(concat!($prefix, "{}"), order).into())
            }
        }
    };
}

of_order!(PaymentId, "pay-");
of_order!(ReservationId, "res-");
of_order!(ShipmentId, "ship-");
of_order!(SagaId, "saga-");

/// A message. Derived from its sender's state, so that the same message sent again has the same id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub Uuid);

impl MessageId {
    /// The namespace of message ids: any fixed UUID does.
    const NAMESPACE: Uuid = Uuid::from_u128(0x7368_616b_6564_6f77_6e00_6d73_6769_6473);

    /// The id of the message called `name`: UUID version 5. Two names give two ids.
    pub fn derived(name: &str) -> MessageId {
        MessageId(Uuid::new_v5(&MessageId::NAMESPACE, name.as_bytes()))
    }

    /// Reads the text of a header.
    ///
    /// # Errors
    /// If it is no UUID.
    pub fn parse(text: &str) -> Result<MessageId, InvalidId> {
        Uuid::parse_str(text).map(MessageId).map_err(|_| InvalidId { text: text.chars().take(80).collect() })
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_short_plain_text() {
        for bad in ["", "a b", "a/b", "ö", &"x".repeat(65)] {
            assert!(OrderId::new(bad).is_err(), "{bad}");
        }
        assert_eq!(OrderId::new("order-0042").unwrap().to_string(), "order-0042");
    }

    #[test]
    fn what_belongs_to_an_order_is_named_by_it() {
        let order = OrderId::new("o-7").unwrap();
        assert_eq!(PaymentId::of(&order).as_str(), "pay-o-7");
        assert_eq!(SagaId::of(&order).as_str(), "saga-o-7");
    }

    #[test]
    fn a_derived_message_id_is_the_same_in_every_process() {
        insta::assert_snapshot!(MessageId::derived("o-7/charge"), @"6afc41df-c81e-5543-9088-d88a75887c03");
        assert_ne!(MessageId::derived("a"), MessageId::derived("b"));
    }
}
