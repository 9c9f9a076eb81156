//! How far a consumer lags: librdkafka's statistics, made whole.
//!
//! librdkafka learns the end of a partition from fetches, and fetches nothing that is paused, and nothing while its queue is
//! full. So what it says of lag stands still just when lag grows. Here the ends are asked for with each statistics, by one
//! ListOffsets request a leader, beside the polls; the position is that of the records that were handed over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use broker::{Offset, Properties, TopicPartition};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::statistics::Statistics as Said;
use rdkafka::topic_partition_list::Offset as RdOffset;
use tokio::task::JoinHandle;

use crate::blocking::aside;
use crate::ending::Held;
use crate::partitions;
use crate::rebalance::Callbacks;
use crate::statistics::{self, ClientStatistics, PartitionStatistics, Registered, Statistics};

/// How long brokers may take to say where partitions end. What is not known then is left at what the last fetch said.
const ENDS: Duration = Duration::from_secs(1);

/// Says what a consumer has to say.
pub(crate) struct Lag {
    registered: Registered,
    group: Option<String>,
    /// Whether reading ends at the last stable offset (librdkafka's default), or at the high watermark.
    read_committed: bool,
    /// Asks for ends.
    asking: Option<JoinHandle<()>>,
}

impl Lag {
    /// Of a consumer of these properties.
    pub(crate) fn new(all: &Statistics, properties: &Properties) -> Lag {
        Lag {
            registered: all.register(),
            group: properties.get("group.id").filter(|group| !group.is_empty()).map(str::to_owned),
            read_committed: properties.get("isolation.level") != Some("read_uncommitted"),
            asking: None,
        }
    }

    /// Says what librdkafka `said`, with the consumer's positions and the ends of its partitions, as soon as these are known.
    pub(crate) fn say(
        &mut self,
        base: &Arc<BaseConsumer<Callbacks>>,
        said: &Said,
        held: &BTreeSet<TopicPartition>,
        positions: &BTreeMap<TopicPartition, Offset>,
        committed: &BTreeMap<TopicPartition, Offset>,
    ) {
        if self.asking.as_ref().is_some_and(|asking| !asking.is_finished()) {
            return;
        }
        let partition = |at: &TopicPartition| PartitionStatistics {
            partition: at.clone(),
            position: positions.get(at).copied(),
            committed: committed.get(at).copied(),
            end: statistics::partition(said, at).and_then(|said| {
                statistics::offset(if self.read_committed { said.ls_offset } else { said.hi_offset })
            }),
        };
        let mut client = statistics::consumer(said, self.group.clone());
        client.partitions = held.iter().map(partition).collect();
        let (place, base) = (self.registered.place(), Held::new(base.clone()));
        self.asking = Some(aside(move || {
            ask_for_ends(&base, &mut client);
            place.put(client);
        }));
    }

    /// Waits until nothing of the consumer is in use here.
    pub(crate) async fn end(&mut self) {
        if let Some(asking) = self.asking.take() {
            // A panic there was reported there, and is no reason against a close.
            asking.await.ok();
        }
    }
}

fn ask_for_ends(base: &BaseConsumer<Callbacks>, client: &mut ClientStatistics) {
    let asked = client.partitions.iter().map(|said| (&said.partition, RdOffset::End));
    let Ok(asked) = partitions::list_at(asked) else { return };
    if asked.count() == 0 {
        return;
    }
    let Ok(found) = base.offsets_for_times(asked, ENDS) else { return };
    let ends: BTreeMap<_, _> = partitions::with_offset(&found).into_iter().collect();
    for said in &mut client.partitions {
        said.end = ends.get(&said.partition).copied().or(said.end);
    }
}
