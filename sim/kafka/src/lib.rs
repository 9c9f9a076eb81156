//! The simulated Kafka: cores without IO, and a thin shell that speaks the wire protocol.
