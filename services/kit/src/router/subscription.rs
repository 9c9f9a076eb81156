//! What a service reads, and with whom.

use std::fmt;
use std::sync::Arc;

use broker::Properties;

use crate::Handler;
use crate::middleware::{Middleware, Policy};

/// Topics, the group that reads them, and who handles what is read.
pub struct Subscription {
    pub(super) group: Arc<str>,
    pub(super) topics: Vec<Arc<str>>,
    pub(super) handler: Arc<dyn Handler>,
    pub(super) policy: Policy,
    pub(super) inner: Vec<Arc<dyn Middleware>>,
    pub(super) properties: Properties,
}

impl Subscription {
    /// Reads `topics` as a member of `group`.
    pub fn new<T: Into<Arc<str>>>(
        group: impl Into<Arc<str>>,
        topics: impl IntoIterator<Item = T>,
        handler: impl Handler,
    ) -> Subscription {
        Subscription {
            group: group.into(),
            topics: topics.into_iter().map(Into::into).collect(),
            handler: Arc::new(handler),
            policy: Policy::default(),
            inner: Vec::new(),
            properties: Properties::new(),
        }
    }

    /// With another tenacity than [`Policy::default`].
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Subscription {
        self.policy = policy;
        self
    }

    /// With one more layer, inside of those of [`crate::middleware::standard`] and of those given before.
    #[must_use]
    pub fn layer(mut self, layer: impl Middleware) -> Subscription {
        self.inner.push(Arc::new(layer));
        self
    }

    /// With properties of the consumer in place of the kit's.
    #[must_use]
    pub fn properties(mut self, properties: Properties) -> Subscription {
        self.properties = properties;
        self
    }

    /// The group.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The topics.
    pub fn topics(&self) -> &[Arc<str>] {
        &self.topics
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subscription({} of {:?})", self.group, self.topics)
    }
}
