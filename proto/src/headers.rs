//! Header names. All values are text.

/// The message's own id, a UUID: what an inbox remembers. The same message sent again has the same id.
pub const MESSAGE_ID: &str = "message-id";
/// The message's kind: [`crate::Contract::KIND`].
pub const EVENT_TYPE: &str = "event-type";
/// The version of its schema: [`crate::Contract::VERSION`], decimal.
pub const SCHEMA_VERSION: &str = "schema-version";
/// What all messages that follow from one request share: the message id of that request.
pub const CORRELATION_ID: &str = "correlation-id";
/// The message id of the message that caused this one.
pub const CAUSATION_ID: &str = "causation-id";
/// The saga on whose behalf it was sent, or to which it answers.
pub const SAGA_ID: &str = "saga-id";
/// The saga's step.
pub const STEP: &str = "step";
/// When the sender decided to send it: Unix time in milliseconds, decimal.
pub const TIMESTAMP: &str = "timestamp";
