//! A coordinator, of a group or of a transactional id: who it is, and a connection to it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use broker::Error;
use kafka_protocol::messages::FindCoordinatorRequest;
use kafka_protocol::protocol::{Request, StrBytes};

use crate::cluster::{Cluster, NodeId, Peer};
use crate::connection::{Answered, Failed};
use crate::error;
use crate::properties::Habits;

/// What a coordinator is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A group, by its member or an admin.
    Group,
    /// A group, by a producer for a transaction's offsets.
    Offsets,
    Transaction,
}

/// Finds the coordinator of one group or one transactional id, and asks it.
pub(crate) struct Coordinator {
    pub(crate) cluster: Arc<Cluster>,
    /// The group's or the transactional id.
    pub(crate) key: String,
    kind: Kind,
    node: Mutex<Option<NodeId>>,
    finding: tokio::sync::Mutex<()>,
}

impl Coordinator {
    pub(crate) fn of_group(cluster: Arc<Cluster>, group: String) -> Coordinator {
        Coordinator::new(cluster, group, Kind::Group)
    }

    pub(crate) fn of_transactions(cluster: Arc<Cluster>, transactional_id: String) -> Coordinator {
        Coordinator::new(cluster, transactional_id, Kind::Transaction)
    }

    /// The coordinator of a group, for a producer.
    pub(crate) fn of_offsets(cluster: Arc<Cluster>, group: String) -> Coordinator {
        Coordinator::new(cluster, group, Kind::Offsets)
    }

    fn new(cluster: Arc<Cluster>, key: String, kind: Kind) -> Coordinator {
        Coordinator { cluster, key, kind, node: Mutex::new(None), finding: tokio::sync::Mutex::new(()) }
    }

    fn known(&self) -> Option<NodeId> {
        *self.node.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The coordinator is not what it was taken for; the next question looks it up again.
    pub(crate) fn forget(&self) {
        *self.node.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    async fn find(&self) -> Result<NodeId, Error> {
        let _one_at_a_time = self.finding.lock().await;
        if let Some(node) = self.known() {
            return Ok(node);
        }
        let key = StrBytes::from_string(self.key.clone());
        let key_type = i8::from(self.kind == Kind::Transaction);
        let build = move |version| {
            let request = FindCoordinatorRequest::default();
            // From version 4 on several are asked for at once (KIP-699).
            let request = if version >= 4 {
                request.with_coordinator_keys(vec![key.clone()])
            } else {
                request.with_key(key.clone())
            };
            if version >= 1 { request.with_key_type(key_type) } else { request }
        };
        let answered = self.cluster.ask_any(build).await?;
        let answer = answered.body;
        let (code, node, host, port) = match answer.coordinators.into_iter().next() {
            Some(first) => (first.error_code, first.node_id.0, first.host, first.port),
            None => (answer.error_code, answer.node_id.0, answer.host, answer.port),
        };
        if code != 0 {
            return Err(error::answered(code, format!("coordinator of {self}")));
        }
        self.cluster.learn_broker(node, &host, port);
        *self.node.lock().unwrap_or_else(PoisonError::into_inner) = Some(node);
        Ok(node)
    }

    /// librdkafka asks a coordinator over a connection of its own, so that it does not wait behind fetches and produce
    /// requests. Java's consumer does so too; its producer asks over the connection that carries its records, and both
    /// producers commit offsets over that one.
    fn peer(&self, node: NodeId) -> Peer {
        match (self.kind, self.cluster.settings.habits) {
            (Kind::Group, _) => Peer::Coordinator(node),
            (Kind::Offsets, _) => Peer::Node(node),
            (Kind::Transaction, Habits::Librdkafka) => Peer::TransactionCoordinator(node),
            (Kind::Transaction, Habits::Java) => Peer::Node(node),
        }
    }

    /// Asks the coordinator once. Errors inside the answer are the caller's to read; [`Coordinator::forget`] when they
    /// say that it is another broker.
    ///
    /// # Errors
    /// When there is no coordinator, or no answer; it is looked up again then.
    pub(crate) async fn ask<R>(
        &self,
        timeout: Duration,
        build: impl FnOnce(i16) -> R + Send + 'static,
    ) -> Result<Answered<R::Response>, Error>
    where
        R: Request + 'static,
        R::Response: Send,
    {
        self.try_ask(timeout, i16::MAX, build).await.map_err(Error::from)
    }

    /// As [`Coordinator::ask`], in at most `version_max`; the error says whether the request may have taken effect.
    ///
    /// # Errors
    /// As [`Coordinator::ask`].
    pub(crate) async fn try_ask<R>(
        &self,
        timeout: Duration,
        version_max: i16,
        build: impl FnOnce(i16) -> R + Send + 'static,
    ) -> Result<Answered<R::Response>, Failed>
    where
        R: Request + 'static,
        R::Response: Send,
    {
        let not_sent = |error| Failed { error, sent: false };
        let node = self.find().await.map_err(not_sent)?;
        let connection = self.cluster.connection(self.peer(node)).map_err(not_sent)?;
        match connection.request(timeout, version_max, build).await {
            Ok(answer) => Ok(answer),
            Err(failed) => {
                self.forget();
                Err(failed)
            }
        }
    }
}

impl fmt::Display for Coordinator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Group | Kind::Offsets => write!(f, "group `{}`", self.key),
            Kind::Transaction => write!(f, "transactional id `{}`", self.key),
        }
    }
}
