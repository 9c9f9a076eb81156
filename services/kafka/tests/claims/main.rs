//! What the adapter claims beyond the conformance suite, on simulated brokers on loopback TCP: its statistics are right, a slow
//! reader does it no harm, and a build without TLS says so.

mod backpressure;
mod bed;
mod security;
mod statistics;
