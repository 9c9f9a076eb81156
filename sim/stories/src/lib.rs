//! Stories: the same steps told to real Kafka and to the simulated one, and what clients and admin saw of them.
//!
//! A [`Tale`] kills, pauses and restarts brokers through a [`Stage`], speaks the wire protocol itself, and writes down an
//! [`Account`]: who led with which epoch, who was in sync, where the high watermark was, what producers were answered when
//! and for how long nothing was, what was there in the end. Accounts of real Kafka are under version control in `recordings/`, made by
//! `cargo run -p shakedown-stories -- record`. [`Recording::differences`] holds an account of the simulated cluster
//! against them: states and answers in their order, times within [`account::TOLERANCE`].
//!
//! Ids are normalised: replicas are A, B and C in the order of their assignment.
//!
//! Start reading at [`tales`], then [`Account`].

pub mod account;
mod real;
mod simulated;
mod stage;
mod tales;
mod watch;
mod wire;
mod writer;

pub use account::{Account, Recording};
pub use real::on_real_kafka;
pub use simulated::on_simulated_kafka;
pub use stage::{Stage, StageError};
pub use tales::{Tale, tales};
