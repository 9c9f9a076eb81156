//! What plain rdkafka's producers were acknowledged.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;
use rdkafka::{Offset, TopicPartitionList};

use super::clusters::{PARTITIONS, TOPIC};

/// How long an acknowledgement may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Counts what was acknowledged.
#[derive(Default)]
pub(crate) struct Acknowledged {
    count: Mutex<u64>,
    rose: Condvar,
}

impl Acknowledged {
    pub(crate) fn count(&self) -> MutexGuard<'_, u64> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until so many are acknowledged.
    pub(crate) fn wait_for(&self, wanted: u64) {
        let waited = self.rose.wait_timeout_while(self.count(), PATIENCE, |count| *count < wanted);
        let (count, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(!waited.timed_out(), "{} of {wanted} records were acknowledged", *count);
    }
}

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            panic!("a record was not acknowledged: {error}");
        }
        *self.count() += 1;
        self.rose.notify_one();
    }
}

/// All partitions, from their beginnings.
pub(crate) fn all_partitions() -> TopicPartitionList {
    let mut partitions = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        let added = partitions.add_partition_offset(TOPIC, partition, Offset::Beginning);
        added.expect("a partition can be read from its beginning");
    }
    partitions
}
