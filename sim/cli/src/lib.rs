//! Deterministic simulation testing for event-driven services on Kafka: the program.
