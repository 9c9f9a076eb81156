//! The client in the simulated world: what it does when links are cut, brokers die, and its own host stands still. All
//! spans are simulated time.

mod bed;

mod auto_commit;
mod clients;
mod members;
mod producers;
mod transactions;

/// The seeds of claims in which the moment matters.
const SEEDS: std::ops::Range<u64> = 0..5;
