//! DescribeLogDirs (35), versions 1 to 4: the size of each replica on this broker's one log directory, and how far its
//! log is behind the high watermark. The disk has [`DISK_BYTES`], of which those are usable that no log takes.
//!
//! Version notes: an error for the whole from 3 on, the disk's size from 4 on.

use std::collections::BTreeMap;

use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse, TopicName};

use super::{Broker, Turn, text};
use crate::ConnectionId;
use crate::wire::Call;

/// Where a broker keeps its logs, as it is told.
const LOG_DIR: &str = "/var/lib/kafka/data";
/// How large a broker's disk is: a tebibyte. Nothing is refused when it is full, since no run fills it.
const DISK_BYTES: i64 = 1 << 40;

impl Broker {
    pub(super) fn describe_log_dirs(
        &self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: &Call,
        request: &DescribeLogDirsRequest,
    ) {
        let wanted = |name: &str, index: i32| match &request.topics {
            None => true,
            Some(topics) => {
                topics.iter().any(|topic| topic.topic.as_str() == name && topic.partitions.contains(&index))
            }
        };
        let mut topics: BTreeMap<&str, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
        for (key, partition) in &self.partitions {
            let (Some(topic), Some(log)) = (self.image.topics.get(&key.topic), turn.disk.logs.get(key))
            else {
                continue;
            };
            if wanted(&topic.name, key.index) {
                let described = DescribeLogDirsPartition::default()
                    .with_partition_index(key.index)
                    .with_partition_size(log.size() as i64)
                    .with_offset_lag((partition.high_watermark - log.end_offset()).max(0));
                topics.entry(&topic.name).or_default().push(described);
            }
        }
        let topics = topics.into_iter().map(|(name, partitions)| {
            DescribeLogDirsTopic::default().with_name(TopicName(text(name))).with_partitions(partitions)
        });
        let mut result =
            DescribeLogDirsResult::default().with_log_dir(text(LOG_DIR)).with_topics(topics.collect());
        if call.version >= 4 {
            let used: i64 = turn.disk.logs.values().map(|log| log.size() as i64).sum();
            (result.total_bytes, result.usable_bytes) = (DISK_BYTES, (DISK_BYTES - used).max(0));
        }
        turn.respond(connection, call, DescribeLogDirsResponse::default().with_results(vec![result]));
    }
}
