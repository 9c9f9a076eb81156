//! What every message of the six has in common.

use crate::{InvalidId, OrderId};

/// A message of the six: what its headers say of it, and where it goes.
pub trait Contract: prost::Message + Default + Clone + PartialEq + 'static {
    /// The value of the header `event-type`: the message's name.
    const KIND: &'static str;
    /// The topic it travels on.
    const TOPIC: &'static str;
    /// The value of the header `schema-version`: the number in its Protobuf package.
    const VERSION: u32 = 1;

    /// The order it is about, which is its record's key.
    ///
    /// # Errors
    /// If the field holds no order id.
    fn order_id(&self) -> Result<OrderId, InvalidId>;
}

/// A payload that is not what its topic carries. Redelivery cannot mend it: it belongs in the dead letters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The event type is none of the topic's.
    #[error("event type `{kind}` does not travel on `{topic}`")]
    UnknownKind {
        /// What the header said.
        kind: String,
        /// The topic.
        topic: &'static str,
    },
    /// The bytes are no such message.
    #[error("`{kind}` does not decode: {cause}")]
    Malformed {
        /// The event type.
        kind: &'static str,
        /// What prost says.
        cause: prost::DecodeError,
    },
    /// The message names no order.
    #[error("`{kind}` names no order: {cause}")]
    NoOrder {
        /// The event type.
        kind: &'static str,
        /// What is wrong with the id.
        cause: InvalidId,
    },
}

/// Gives the messages of one topic their contract, and an enum of them all.
macro_rules! contracts {
    ($(#[$meta:meta])* $enum:ident on $topic:path { $($message:ident),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub enum $enum {
            $(
                #[doc = concat!("[`", stringify!($message), "`].")]
                $message($message),
            )+
        }

        impl $enum {
            /// The topic that carries these.
            pub const TOPIC: &'static str = $topic;
            /// The event types of the topic, in the order of the enum.
            pub const KINDS: &'static [&'static str] = &[$(stringify!($message)),+];

            /// Decodes a payload by the event type that its header names.
            ///
            /// # Errors
            /// [`crate::DecodeError`]: no redelivery mends it.
            pub fn decode(kind: &str, payload: &[u8]) -> Result<$enum, crate::DecodeError> {
                match kind {
                    $(
                        stringify!($message) => {
                            let message = <$message as prost::Message>::decode(payload)
                                .map_err(|cause| crate::DecodeError::Malformed { kind: stringify!($message), cause })?;
                            crate::Contract::order_id(&message)
                                .map_err(|cause| crate::DecodeError::NoOrder { kind: stringify!($message), cause })?;
                            Ok($enum::$message(message))
                        }
                    )+
                    _ => Err(crate::DecodeError::UnknownKind { kind: kind.to_owned(), topic: $topic }),
                }
            }

            /// The message's event type.
            pub fn kind(&self) -> &'static str {
                match self {
                    $($enum::$message(_) => stringify!($message),)+
                }
            }

            /// The message's bytes: the same for the same message, always.
            pub fn encode(&self) -> Vec<u8> {
                match self {
                    $($enum::$message(message) => prost::Message::encode_to_vec(message),)+
                }
            }

            /// The order it is about.
            ///
            /// # Errors
            /// If the field holds no order id; never after [`Self::decode`].
            pub fn order_id(&self) -> Result<crate::OrderId, crate::InvalidId> {
                match self {
                    $($enum::$message(message) => crate::Contract::order_id(message),)+
                }
            }
        }

        $(
            impl crate::Contract for $message {
                const KIND: &'static str = stringify!($message);
                const TOPIC: &'static str = $topic;

                fn order_id(&self) -> Result<crate::OrderId, crate::InvalidId> {
                    crate::OrderId::new(self.order_id.as_str())
                }
            }

            impl From<$message> for $enum {
                fn from(message: $message) -> $enum {
                    $enum::$message(message)
                }
            }
        )+
    };
}

pub(crate) use contracts;
