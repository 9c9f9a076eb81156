//! The usual subject: a Broker under test, and whoever runs the brokers behind it.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use context::Context;

use super::{Feature, Features, Subject};
use crate::{Broker, Error, ErrorClass, ErrorCode};

/// Runs the brokers of a cluster: in this process, in a world, as processes of their own.
#[async_trait]
pub trait Nodes: Send + Sync + 'static {
    /// As [`Subject::kill_broker`].
    ///
    /// # Errors
    /// As [`Subject::kill_broker`].
    async fn kill(&self, node_id: i32) -> Result<(), Error>;

    /// As [`Subject::start_broker`].
    ///
    /// # Errors
    /// As [`Subject::kill_broker`].
    async fn start(&self, node_id: i32) -> Result<(), Error>;
}

/// A [`Subject`] of its parts.
#[derive(Clone)]
pub struct Bed {
    /// Clock and tasks for the cases.
    pub context: Context,
    /// The Broker under test.
    pub broker: Arc<dyn Broker>,
    /// What it can do.
    pub features: Features,
    /// Who runs the brokers behind it.
    pub nodes: Arc<dyn Nodes>,
    /// Put into the names of topics and groups.
    pub run_id: String,
}

#[async_trait]
impl Subject for Bed {
    fn context(&self) -> Context {
        self.context.clone()
    }

    fn broker(&self) -> Arc<dyn Broker> {
        self.broker.clone()
    }

    fn features(&self) -> Features {
        self.features.clone()
    }

    async fn kill_broker(&self, node_id: i32) -> Result<(), Error> {
        self.nodes.kill(node_id).await
    }

    async fn start_broker(&self, node_id: i32) -> Result<(), Error> {
        self.nodes.start(node_id).await
    }

    fn run_id(&self) -> String {
        self.run_id.clone()
    }
}

impl fmt::Debug for Bed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bed({}, {:?})", self.run_id, self.features)
    }
}

/// The brokers of a cluster that is there already: someone else's, who is not asked. See [`Features::of_a_given_cluster`].
#[derive(Clone, Copy, Debug)]
pub struct NotOurs;

impl NotOurs {
    fn error() -> Error {
        Error::new(ErrorCode::Unsupported, ErrorClass::Failed, "the cluster is someone else's")
    }
}

#[async_trait]
impl Nodes for NotOurs {
    async fn kill(&self, _: i32) -> Result<(), Error> {
        Err(NotOurs::error())
    }

    async fn start(&self, _: i32) -> Result<(), Error> {
        Err(NotOurs::error())
    }
}

impl Features {
    /// What is left on a cluster that is there already.
    pub fn of_a_given_cluster() -> Features {
        Features {
            restart_broker: Feature::Off("its brokers are not ours to restart".into()),
            frequent_cleanup: Feature::Off("how often it cleans up is not ours to set".into()),
            ..Features::all()
        }
    }
}
