//! A group's coordinator: who it is, and a connection of its own to it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use broker::Error;
use kafka_protocol::messages::FindCoordinatorRequest;
use kafka_protocol::protocol::{Request, StrBytes};

use crate::cluster::{Cluster, NodeId, Peer};
use crate::connection::Answered;
use crate::error;

/// Finds the coordinator of one group and asks it.
pub(crate) struct Coordinator {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) group: String,
    node: Mutex<Option<NodeId>>,
    finding: tokio::sync::Mutex<()>,
}

impl Coordinator {
    pub(crate) fn new(cluster: Arc<Cluster>, group: String) -> Coordinator {
        Coordinator { cluster, group, node: Mutex::new(None), finding: tokio::sync::Mutex::new(()) }
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
        let group = StrBytes::from_string(self.group.clone());
        let build = move |_| FindCoordinatorRequest::default().with_key(group.clone());
        let answer = self.cluster.ask_any(build).await?.body;
        if answer.error_code != 0 {
            return Err(error::answered(answer.error_code, format!("coordinator of group `{}`", self.group)));
        }
        self.cluster.learn_broker(answer.node_id.0, &answer.host, answer.port);
        *self.node.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer.node_id.0);
        Ok(answer.node_id.0)
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
        let node = self.find().await?;
        let connection = self.cluster.connection(Peer::Coordinator(node))?;
        match connection.request(timeout, i16::MAX, build).await {
            Ok(answer) => Ok(answer),
            Err(failed) => {
                self.forget();
                Err(failed.error)
            }
        }
    }
}
