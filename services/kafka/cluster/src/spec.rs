//! What a cluster is to be like.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// The controller's node id; brokers count from 1.
pub const CONTROLLER: u32 = 100;

/// The listener over which clients on this machine reach brokers, unless they were told of another.
pub const DIRECT: &str = "PLAINTEXT";

/// Where brokers do not reach each other over [`DIRECT`]: the listener over which they do.
pub(crate) const INTERNAL: &str = "INTERNAL";

/// The controller's only listener.
pub(crate) const CONTROLLERS: &str = "CONTROLLER";

/// What to start.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    /// How many brokers.
    pub brokers: u32,
    /// Settings of every node, by Kafka's names.
    pub config: BTreeMap<String, String>,
    /// Settings of one node on top, by node id ([`CONTROLLER`] is one) and Kafka's names.
    pub node_config: BTreeMap<u32, BTreeMap<String, String>>,
    /// Feature levels by Kafka's names; what is left out has the version's default.
    pub features: BTreeMap<String, i16>,
    /// Further listeners of brokers.
    pub listeners: Vec<Listener>,
    /// The passwords of users whom the cluster knows from its formatting on, by name, for SASL's SCRAM-SHA-256. Local processes
    /// only: Kafka's image formats by itself and takes none.
    pub scram_users: BTreeMap<String, String>,
}

/// A listener of a broker beside [`DIRECT`]. A client that bootstraps from it is told of the brokers' listeners of the same
/// name only, under the addresses that they advertise: with a proxy there, all that the client says to the cluster goes
/// through the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Whose it is.
    pub broker: u32,
    /// Kafka's name for it: capital letters, digits, `_`. One that is called `SSL`, `SASL_PLAINTEXT` or `SASL_SSL` speaks that, as in
    /// Kafka's own default map, with keys and users from the settings; every other is plain text.
    pub name: String,
    /// The port of loopback on which the broker listens; 0 for one that is free. See [`Processes::listener`](crate::Processes::listener).
    pub port: u16,
    /// The host that clients are told.
    pub advertised_host: String,
    /// The port that clients are told.
    pub advertised_port: u16,
}

impl Spec {
    /// A cluster for tests: Kafka's defaults but for what a small, young, busy cluster needs. Internal topics are on all
    /// brokers up to three and have few partitions, groups do not wait for members that may come, sessions may be short.
    pub fn for_tests(brokers: u32) -> Spec {
        let replicas = brokers.min(3);
        let in_sync = replicas.min(2);
        let config = [
            ("offsets.topic.num.partitions", 12),
            ("offsets.topic.replication.factor", replicas),
            ("transaction.state.log.num.partitions", 12),
            ("transaction.state.log.replication.factor", replicas),
            ("transaction.state.log.min.isr", in_sync),
            ("default.replication.factor", replicas),
            ("min.insync.replicas", in_sync),
            ("group.initial.rebalance.delay.ms", 0),
            ("group.min.session.timeout.ms", 100),
        ];
        Spec { brokers, ..Spec::default() }.with(config)
    }

    /// Sets more of every node's settings.
    #[must_use]
    pub fn with<N: Into<String>, V: ToString>(mut self, config: impl IntoIterator<Item = (N, V)>) -> Spec {
        self.config.extend(config.into_iter().map(|(name, value)| (name.into(), value.to_string())));
        self
    }

    /// What is wrong with it.
    pub(crate) fn fault(&self) -> Option<String> {
        let of_a_node = |node: u32| node == CONTROLLER || (1..=self.brokers).contains(&node);
        if self.brokers == 0 || self.brokers >= CONTROLLER {
            return Some(format!("a cluster has 1 to {} brokers, not {}", CONTROLLER - 1, self.brokers));
        }
        if let Some(node) = self.node_config.keys().find(|node| !of_a_node(**node)) {
            return Some(format!("there are settings for node {node}, which the cluster has not"));
        }
        // They end up in an argument of Kafka's, `[name=..,password=..]`, which knows no quotes.
        let plain = |text: &str| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && !",=[]\"".contains(c))
        };
        if let Some(name) = self.scram_users.iter().find(|(name, secret)| !plain(name) || !plain(secret)) {
            return Some(format!(
                "user `{}` or its password holds what Kafka takes for its own signs",
                name.0
            ));
        }
        let mut seen = BTreeSet::new();
        for Listener { broker, name, .. } in &self.listeners {
            let sound = name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
                && !name.is_empty();
            if !sound || [DIRECT, INTERNAL, CONTROLLERS].contains(&name.as_str()) {
                return Some(format!("`{name}` cannot be a listener's name"));
            }
            if !(1..=self.brokers).contains(broker) {
                return Some(format!("listener `{name}` is of broker {broker}, which the cluster has not"));
            }
            if !seen.insert((broker, name)) {
                return Some(format!("broker {broker} has two listeners `{name}`"));
            }
        }
        None
    }

    /// A node's properties, as both its file and its container's environment have them.
    pub(crate) fn properties(&self, node: &NodeSpec) -> BTreeMap<String, String> {
        let mut lines = self.config.clone();
        lines.extend(self.node_config.get(&node.id).cloned().unwrap_or_default());
        let mut set = |name: &str, value: String| _ = lines.insert(name.to_owned(), value);
        set("node.id", node.id.to_string());
        set("controller.quorum.voters", node.voters.clone());
        set("controller.listener.names", CONTROLLERS.into());
        let names = [DIRECT, node.inter_broker, CONTROLLERS].into_iter();
        let names = names.chain(self.listeners.iter().map(|listener| listener.name.as_str()));
        let map: BTreeSet<_> = names.map(|name| format!("{name}:{}", protocol(name))).collect();
        set("listener.security.protocol.map", map.into_iter().collect::<Vec<_>>().join(","));
        let joined = |listeners: &[(String, String, u16)]| {
            let listeners = listeners.iter().map(|(name, host, port)| format!("{name}://{host}:{port}"));
            listeners.collect::<Vec<_>>().join(",")
        };
        set("listeners", joined(&node.listeners));
        set("process.roles", node.roles.into());
        if !node.advertised.is_empty() {
            set("advertised.listeners", joined(&node.advertised));
            set("inter.broker.listener.name", node.inter_broker.into());
        }
        lines
    }

    /// A broker's further listeners.
    pub(crate) fn listeners_of(&self, broker: u32) -> impl Iterator<Item = &Listener> {
        self.listeners.iter().filter(move |listener| listener.broker == broker)
    }
}

/// What a node's properties say beside the cluster's. Listeners are name, host, port.
pub(crate) struct NodeSpec {
    pub(crate) id: u32,
    pub(crate) roles: &'static str,
    pub(crate) voters: String,
    pub(crate) inter_broker: &'static str,
    pub(crate) listeners: Vec<(String, String, u16)>,
    pub(crate) advertised: Vec<(String, String, u16)>,
}

fn protocol(listener: &str) -> &str {
    match listener {
        "SSL" | "SASL_PLAINTEXT" | "SASL_SSL" => listener,
        _ => "PLAINTEXT",
    }
}

/// Loopback, as Kafka's settings and clients write it.
pub(crate) fn loopback() -> String {
    Ipv4Addr::LOCALHOST.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(broker: u32, name: &str) -> Listener {
        Listener { broker, name: name.into(), port: 0, advertised_host: loopback(), advertised_port: 9 }
    }

    fn fault(change: impl FnOnce(&mut Spec)) -> Option<String> {
        let mut spec = Spec::for_tests(3);
        change(&mut spec);
        spec.fault()
    }

    #[test]
    fn what_a_cluster_cannot_have_is_named() {
        assert_eq!(fault(|_| {}), None);
        assert_eq!(
            fault(|spec| spec.listeners = vec![listener(1, "A"), listener(2, "A"), listener(1, "B_1")]),
            None
        );
        let faults = [
            (fault(|spec| spec.brokers = 0), "1 to 99 brokers, not 0"),
            (
                fault(|spec| _ = spec.scram_users.insert("shop".into(), "a,b".into())),
                "user `shop` or its password",
            ),
            (fault(|spec| _ = spec.node_config.insert(4, BTreeMap::new())), "settings for node 4"),
            (fault(|spec| spec.listeners = vec![listener(1, "PLAINTEXT")]), "`PLAINTEXT` cannot be"),
            (fault(|spec| spec.listeners = vec![listener(1, "order-1")]), "`order-1` cannot be"),
            (fault(|spec| spec.listeners = vec![listener(4, "A")]), "of broker 4"),
            (fault(|spec| spec.listeners = vec![listener(1, "A"), listener(1, "A")]), "two listeners `A`"),
        ];
        for (fault, sentence) in faults {
            let fault = fault.expect(sentence);
            assert!(fault.contains(sentence), "{fault}");
        }
    }

    #[test]
    fn a_nodes_own_settings_win_over_the_clusters_and_what_makes_it_a_node_over_both() {
        let mut spec = Spec::for_tests(1).with([("num.partitions", 3), ("node.id", 77)]);
        spec.node_config.insert(1, [("num.partitions".to_owned(), "5".to_owned())].into());
        spec.listeners = vec![listener(1, "SASL_SSL"), listener(1, "PROXIED")];
        let node = NodeSpec {
            id: 1,
            roles: "broker",
            voters: "100@h:1".into(),
            inter_broker: DIRECT,
            listeners: vec![(DIRECT.into(), "h".into(), 2)],
            advertised: vec![(DIRECT.into(), "g".into(), 3)],
        };
        let properties = spec.properties(&node);
        let of = |name: &str| properties[name].as_str();
        assert_eq!((of("num.partitions"), of("node.id")), ("5", "1"));
        assert_eq!((of("listeners"), of("advertised.listeners")), ("PLAINTEXT://h:2", "PLAINTEXT://g:3"));
        let map = "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,SASL_SSL:SASL_SSL";
        assert_eq!(of("listener.security.protocol.map"), map);
    }
}
