//! The partition, and questions about it.

use std::sync::Arc;
use std::time::Duration;

use context::Timestamp;

use super::super::{Bench, Failure};
use super::{Answer, LARGEST, Writer};
use crate::{Admin, Error, ErrorCode, NewTopic, Offset, OffsetSpec, Properties, TopicPartition};

/// A broker that was killed so long ago is known to be gone, or is back.
const SESSION_IS_OVER: Duration = Duration::from_secs(15);
/// So long after it came into sync a replica has heard where its leader's log begins, which may be half a second later than
/// the leader hears of it, and has written it down ([`crate::conformance::FREQUENT_CLEANUP`]).
const START_IS_WRITTEN: Duration = Duration::from_secs(6);

pub(super) struct Place {
    pub(super) bench: Bench,
    pub(super) at: TopicPartition,
    /// By isolation level: uncommitted, committed. The end is then the high watermark, or the last stable offset.
    admins: [Arc<dyn Admin>; 2],
}

impl Place {
    /// A topic of one partition with so many replicas.
    pub(super) async fn create(bench: Bench, replicas: i16) -> Result<Place, Failure> {
        let name = bench.name("t");
        let minimum = if replicas > 2 { "2" } else { "1" };
        let largest = LARGEST.to_string();
        // The records' times are old: they are kept all the same, and in one segment with the markers, which are new. In
        // several, a time is looked for only in the first that has it, whatever the log's start.
        let config = [
            ("min.insync.replicas", minimum),
            ("retention.ms", "-1"),
            ("segment.ms", "315360000000"),
            ("max.message.bytes", &largest),
        ];
        let config = config.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let topic = NewTopic { replication_factor: Some(replicas), config, ..NewTopic::new(name.clone(), 1) };
        let admin = |isolation: &'static str| {
            let broker = bench.broker();
            async move { broker.admin(&Properties::new().set("isolation.level", isolation)).await }
        };
        let admins = [admin("read_uncommitted").await?, admin("read_committed").await?];
        admins[0].create_topics(&[topic]).await?;
        Ok(Place { at: TopicPartition::new(name, 0), bench, admins })
    }

    fn admin(&self) -> &dyn Admin {
        &*self.admins[0]
    }

    /// The high watermark, or the last stable offset. Where the log begins amid a batch of an open transaction, Kafka has
    /// the batch's first offset for that; how records are batched is the client's and the moment's, so the log's start is said.
    pub(super) async fn latest(&self, committed: bool) -> Result<Offset, Failure> {
        let latest = self.one(OffsetSpec::Latest, committed).await?;
        if committed { Ok(latest.max(self.earliest().await?)) } else { Ok(latest) }
    }

    pub(super) async fn earliest(&self) -> Result<Offset, Failure> {
        self.one(OffsetSpec::Earliest, false).await
    }

    async fn one(&self, spec: OffsetSpec, committed: bool) -> Result<Offset, Failure> {
        let found = self.offsets(spec, committed).await?;
        found.first().copied().ok_or_else(|| Failure("every partition has a start and an end".into()))
    }

    pub(super) async fn offsets(&self, spec: OffsetSpec, committed: bool) -> Result<Vec<Offset>, Failure> {
        let (admin, asked) = (&self.admins[usize::from(committed)], [(self.at.clone(), spec)]);
        let found = self.bench.retried(async || admin.list_offsets(&asked).await).await?;
        Ok(found.into_iter().map(|(_, offset)| offset).collect())
    }

    /// Deletes the records before an offset, and gives the log's new start.
    pub(super) async fn delete_before(&self, offset: Offset) -> Result<Vec<Offset>, Error> {
        let before = [(self.at.clone(), offset)];
        let starts = self.bench.retried(async || self.admin().delete_records(&before).await).await?;
        Ok(starts.into_iter().map(|(_, start)| start).collect())
    }

    /// Waits for the marker of a transaction, which is written after its producer was answered: the log ended here before.
    pub(super) async fn marker_is_there(&self, end: Offset) -> Result<(), Failure> {
        let marker = async || Ok(self.latest(false).await? > end);
        self.bench.eventually("the transaction's marker is there", marker).await
    }

    /// How the transactional id stands, once its coordinator has nothing left to do for it.
    pub(super) async fn transaction(&self, id: &str) -> Result<Answer, Failure> {
        let mut answer = Answer::Unknown;
        let at_rest =
            async || match self.bench.retried(async || self.admin().describe_transactions(&[id]).await).await
            {
                Ok(found) => Ok(found.into_iter().next()),
                Err(error) if error.code == ErrorCode::Unsupported => Ok(None),
                Err(error) => Err(Failure::from(error)),
            };
        let deadline = self.bench.context().now() + Duration::from_secs(60);
        while let Some(found) = at_rest().await? {
            let holds = found.partitions.contains(&self.at);
            let preparing = found.state.starts_with("Prepare");
            answer = Answer::Transaction { state: found.state, epoch: found.producer_epoch, holds };
            if !preparing || self.bench.context().now() > deadline {
                break;
            }
            self.bench.context().sleep(Duration::from_millis(100)).await;
        }
        Ok(answer)
    }

    /// Those who wrote to the partition; of the transactional id is whoever its coordinator says.
    pub(super) async fn producers(&self, id: &str) -> Result<Answer, Failure> {
        let admin = self.admin();
        let holder = match self.bench.retried(async || admin.describe_transactions(&[id]).await).await {
            Ok(found) => found.first().map(|found| found.producer_id),
            Err(error) if error.code == ErrorCode::Unsupported => return Ok(Answer::Unknown),
            Err(error) => return Err(error.into()),
        };
        let found = self.bench.retried(async || admin.describe_producers(&self.at).await).await?;
        let writers = found.into_iter().map(|found| Writer {
            transactional: Some(found.producer_id) == holder,
            epoch: found.producer_epoch,
            last_sequence: found.last_sequence,
            transaction_start: found.transaction_start,
        });
        let mut writers: Vec<_> = writers.collect();
        writers.sort_unstable();
        Ok(Answer::Producers(writers))
    }

    /// Waits until every replica is in sync and has written down where its log begins.
    pub(super) async fn is_settled(&self, killed: Option<Timestamp>) -> Result<(), Failure> {
        let context = self.bench.context();
        if let Some(killed) = killed {
            context.sleep_until(killed + SESSION_IS_OVER).await;
        }
        self.bench
            .eventually("all replicas are in sync", async || {
                let Ok(described) = self.admin().describe_topics(&[&self.at.topic]).await else {
                    return Ok(false);
                };
                let partition = described.first().and_then(|topic| topic.partitions.first());
                Ok(partition.is_some_and(|partition| partition.in_sync.len() == partition.replicas.len()))
            })
            .await?;
        context.sleep(START_IS_WRITTEN).await;
        Ok(())
    }
}
