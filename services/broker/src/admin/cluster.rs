//! The cluster and its brokers.

/// A cluster as one of its brokers sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterDescription {
    /// Given when the cluster was formatted.
    pub cluster_id: String,
    /// The broker that takes requests for the controller; under KRaft any broker that is up.
    pub controller: Option<i32>,
    /// The brokers that are registered and not fenced, by node id.
    pub brokers: Vec<BrokerDescription>,
}

/// A broker as clients reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerDescription {
    /// Its number.
    pub node_id: i32,
    /// Its advertised host.
    pub host: String,
    /// Its advertised port.
    pub port: u16,
}
