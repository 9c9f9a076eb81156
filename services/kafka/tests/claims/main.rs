//! What the adapter claims beyond the conformance suite, on simulated brokers on loopback TCP: its statistics are right, and a
//! slow reader does it no harm.

mod backpressure;
mod bed;
mod statistics;
