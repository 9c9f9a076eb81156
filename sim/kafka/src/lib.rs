//! The simulated Kafka: cores without IO, and a thin shell that speaks the wire protocol.

mod cluster;
mod config;

pub use cluster::{Cluster, NodeId};
pub use config::{
    BROKER_PORT, CONTROLLER_PORT, ClusterConfig, ConfigError, Endpoint, SETTING_NAMES, Settings,
    TOPIC_SETTING_NAMES, TimestampType, TopicSettings,
};
