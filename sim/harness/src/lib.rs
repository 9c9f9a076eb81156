//! The test harness: faults, scenario files, checks, trace and runner, generic over the system under test.
//!
//! A run takes a [`scenario::Scenario`], a seed and a [`system::System`], builds a world with a Kafka cluster and the
//! system's hosts in it, lets things go wrong, heals everything, waits until the system is quiet, and judges what it
//! saw. Everything that happened goes into a running hash: the same binary, scenario and seed give the same bytes.
//!
//! Start reading at [`system::System`], the one trait through which services come in, then [`mod@run`], which is one run
//! from its first event to its result, [`stage`], what it happens on, and [`sweep`], which is many.
//! Absent on purpose: any knowledge of the services, and the command line.

pub mod system;

pub mod check;
pub mod determinism;
pub mod fault;
pub mod observed;
pub mod observer;
mod probe;
pub mod recorder;
pub mod run;
pub mod scenario;
pub mod stage;
pub mod sweep;
pub mod verdict;
mod words;

pub use run::{Ran, RunError, run, run_on};
pub use sweep::{Swept, Work, one_by_one, sweep};
pub use words::{checks, vocabulary};
