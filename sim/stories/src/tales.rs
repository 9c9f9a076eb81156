//! The stories.

mod commit;
mod leader;
mod minimum;
mod standing;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use context::BoxFuture;

use crate::account::Account;
use crate::stage::{Stage, StageError};

type Telling = BoxFuture<'static, Result<Account, StageError>>;

/// One story.
#[derive(Clone, Copy)]
pub struct Tale {
    /// Its name, and its recording's.
    pub name: &'static str,
    /// What happens, in a sentence.
    pub claim: &'static str,
    /// Feature levels by Kafka's names, beside the defaults.
    pub features: &'static [(&'static str, i16)],
    tell: fn(Arc<dyn Stage>) -> Telling,
}

/// Broker settings of every story: what both kinds of cluster start with.
pub(crate) const CONFIG: &[(&str, &str)] = &[
    ("auto.create.topics.enable", "false"),
    ("group.initial.rebalance.delay.ms", "0"),
    ("offsets.topic.replication.factor", "3"),
    ("offsets.topic.num.partitions", "4"),
    ("transaction.state.log.replication.factor", "3"),
    ("transaction.state.log.num.partitions", "1"),
    ("transaction.state.log.min.isr", "2"),
];

impl Tale {
    /// Tells it on a stage.
    ///
    /// # Errors
    /// [`StageError`] if the cluster does not do as told, or what the story waits for does not come.
    pub async fn tell(&self, stage: Arc<dyn Stage>) -> Result<Account, StageError> {
        (self.tell)(stage).await
    }

    pub(crate) fn config(&self) -> BTreeMap<String, String> {
        CONFIG.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    pub(crate) fn levels(&self) -> BTreeMap<String, i16> {
        self.features.iter().map(|&(name, level)| (name.to_owned(), level)).collect()
    }
}

impl fmt::Debug for Tale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

macro_rules! tale {
    ($name:literal, $claim:literal, $features:expr, $tell:path) => {
        Tale { name: $name, claim: $claim, features: $features, tell: |stage| Box::pin($tell(stage)) }
    };
}

/// Every story.
pub fn tales() -> Vec<Tale> {
    vec![
        tale!(
            "leader-killed",
            "the leader is killed and started again 3 s later, while a producer writes with acks=all",
            &[],
            leader::killed
        ),
        tale!(
            "leader-paused",
            "the leader is stopped in its tracks for 12 s, while a producer writes with acks=all",
            &[],
            leader::paused
        ),
        tale!(
            "acks-1-below-min-isr",
            "one of two replicas is away and two must be in sync: acks=1 is answered and not visible, acks=all is refused",
            &[],
            minimum::acks_1
        ),
        tale!(
            "coordinator-killed-in-mid-commit",
            "the coordinator of a transaction is killed as it is told to commit",
            &[],
            commit::coordinator_killed
        ),
        tale!(
            "last-replica-standing-elr-0",
            "all replicas die one after the other and come back in another order, without eligible leader replicas",
            &[("eligible.leader.replicas.version", 0)],
            standing::last_replica
        ),
        tale!(
            "last-replica-standing-elr-1",
            "all replicas die one after the other and come back in another order, with eligible leader replicas",
            &[("eligible.leader.replicas.version", 1)],
            standing::last_replica
        ),
    ]
}
