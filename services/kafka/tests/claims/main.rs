//! What the adapter claims beyond the conformance suite, on simulated brokers on loopback TCP: its statistics are right, a slow
//! reader does it no harm, nor do brokers and coordinators that go and come, and a build without TLS says so.

mod absent_brokers;
mod backpressure;
mod bed;
mod coordinators;
mod security;
mod statistics;
