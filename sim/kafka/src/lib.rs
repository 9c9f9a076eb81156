//! The simulated Kafka: cores without IO, and a thin shell that speaks the wire protocol.
//!
//! What a client can see is meant to be Kafka 4.1's behaviour. A [`Cluster`] gives the programs of a controller and its
//! brokers; they run in a simulated world and over real TCP alike, since all they take from outside is a
//! [`context::Context`].
//!
//! Where to start: [`Cluster`] for those who run one; [`broker`] for what a broker does, one file for each API;
//! [`controller`] for who leads; [`group`] for consumer groups; [`transaction`] for transactions;
//! [`partition`] and [`log`] for what is stored; [`wire`] for frames and their checks. The shell is `shell.rs`; what
//! shall outlive the program is written down by [`storage`]; [`loopback`] runs a cluster on real sockets inside a test.

pub mod broker;
mod cluster;
mod config;
pub mod controller;
pub mod core;
pub mod group;
mod guests;
pub mod log;
pub mod loopback;
pub mod metadata;
pub mod partition;
mod shell;
pub mod storage;
mod timers;
pub mod transaction;
pub mod wire;

pub use cluster::{Cluster, LostWithPower, OpenError};
pub use config::{
    BROKER_PORT, CONTROLLER_PORT, CleanupPolicy, ClusterConfig, Compression, ConfigError, Dynamic, Endpoint,
    Features, Kind, ReplicaSelector, SETTING_NAMES, SETTINGS, Setting, Settings, TOPIC_SETTING_NAMES,
    TOPIC_SETTINGS, TimestampType, TopicSetting, TopicSettings, UNSEEN_BROKER_SETTINGS,
    UNSEEN_TOPIC_SETTINGS, Unseen,
};
pub use core::ConnectionId;
pub use metadata::NodeId;

/// The cluster id that brokers and controller agree on and clients are told.
pub const CLUSTER_ID: &str = "shakedown-simulated-01";
