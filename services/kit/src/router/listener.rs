//! What the consumer tells of assignments.

use std::sync::Arc;

use broker::{OffsetAndMetadata, RebalanceListener, TopicPartition};

use super::lane::{Lane, Pipeline};
use super::{Lanes, progress};

/// Opens and closes lanes as partitions come and go.
pub(super) struct Listener {
    pub(super) lanes: Lanes,
    pub(super) pipeline: Arc<Pipeline>,
}

impl Listener {
    fn note(&self, what: &str, partitions: &[TopicPartition]) {
        let scope = &self.pipeline.scope;
        scope.context.note(format_args!("{}: {what} {partitions:?}", scope.group));
    }
}

impl RebalanceListener for Listener {
    fn assigned(&mut self, partitions: &[TopicPartition]) {
        self.note("assigned", partitions);
        let mut lanes = self.lanes.lock();
        for partition in partitions {
            lanes.insert(partition.clone(), Lane::open(self.pipeline.clone()));
        }
    }

    fn revoked(&mut self, partitions: &[TopicPartition]) -> Vec<(TopicPartition, OffsetAndMetadata)> {
        self.note("revoked", partitions);
        let mut lanes = self.lanes.lock();
        let gone = partitions.iter().filter_map(|partition| lanes.remove_entry(partition)).collect();
        // Their lanes stop here, at the latest when `gone` is dropped.
        progress(&gone)
    }

    fn lost(&mut self, partitions: &[TopicPartition]) {
        self.note("lost", partitions);
        let mut lanes = self.lanes.lock();
        for partition in partitions {
            lanes.remove(partition);
        }
    }
}
