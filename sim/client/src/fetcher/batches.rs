//! The batches that a fetch brought, and which of their records the user sees.

use std::collections::BTreeSet;

use broker::{ConsumerRecord, Offset, TopicPartition};
use bytes::Bytes;
use context::Timestamp;
use kafka_protocol::messages::fetch_response::AbortedTransaction;

use crate::batch::{self, Batch, Record};

/// A transaction's end: the type in a control record's key.
const ABORT_MARKER: i16 = 0;

/// What a fetch brought.
pub(super) struct ReadUp {
    pub(super) records: Vec<ConsumerRecord>,
    /// Where the next fetch begins.
    pub(super) next: Offset,
    /// The epoch of the leader that wrote the last batch; -1 without one.
    pub(super) epoch: i32,
}

/// Reads a fetch's batches from offset `from` on; gives the records and where the next fetch begins. A batch is sent
/// whole, so its first records may be before `from`. Control batches, and in read_committed aborted transactions, are
/// passed over.
pub(super) fn read_batches(
    at: &TopicPartition,
    mut bytes: Bytes,
    from: Offset,
    read_committed: bool,
    check_crcs: bool,
    mut aborted: Vec<AbortedTransaction>,
) -> Result<ReadUp, batch::Malformed> {
    aborted.sort_by_key(|transaction| std::cmp::Reverse(transaction.first_offset));
    let mut aborting = BTreeSet::new();
    let mut records = Vec::new();
    let (mut next, mut epoch) = (from, -1);
    while let Some(batch) = batch::decode(&mut bytes, check_crcs)? {
        while aborted.last().is_some_and(|transaction| transaction.first_offset <= batch.last_offset) {
            aborting.extend(aborted.pop().map(|transaction| transaction.producer_id.0));
        }
        next = next.max(batch.last_offset + 1);
        epoch = batch.leader_epoch;
        if batch.control {
            if is_abort(&batch) {
                aborting.remove(&batch.producer.producer_id);
            }
            continue;
        }
        if read_committed && batch.transactional && aborting.contains(&batch.producer.producer_id) {
            continue;
        }
        let leader_epoch = Some(batch.leader_epoch).filter(|epoch| *epoch >= 0);
        let read = batch.records();
        records.reserve(read.len());
        let wanted = read.filter(|record| record.offset >= from);
        records.extend(wanted.map(|record| consumer_record(at, leader_epoch, record)));
    }
    Ok(ReadUp { records, next, epoch })
}

fn is_abort(batch: &Batch) -> bool {
    let key = batch.records().next().and_then(|record| record.key);
    let marker = key.as_ref().and_then(|key| key.get(2..4));
    marker.is_some_and(|kind| kind == ABORT_MARKER.to_be_bytes())
}

fn consumer_record(at: &TopicPartition, leader_epoch: Option<i32>, record: Record) -> ConsumerRecord {
    ConsumerRecord {
        partition: at.clone(),
        offset: record.offset,
        leader_epoch,
        timestamp: Timestamp::from_millis(u64::try_from(record.timestamp).unwrap_or(0)),
        key: record.key,
        value: record.value,
        headers: record.headers,
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use crate::batch::{BatchBuilder, ProducerStamp};

    use super::*;

    const COMMIT: i16 = 1;

    /// A batch of one record at `offset`.
    fn batch(offset: Offset, producer_id: i64, transactional: bool) -> Bytes {
        let mut builder = BatchBuilder::default();
        builder.append(1, None, Some(format!("{offset}").as_bytes()), &broker::Headers::default());
        let stamp = ProducerStamp { producer_id, producer_epoch: 0, base_sequence: 0 };
        placed(builder.encode(stamp, transactional, kafka::log::compression::Codec::None), offset, 0)
    }

    /// The end of a transaction.
    fn marker(offset: Offset, producer_id: i64, kind: i16) -> Bytes {
        let mut builder = BatchBuilder::default();
        let key = [[0, 0], kind.to_be_bytes()].concat();
        builder.append(1, Some(&key), Some(&[0; 6]), &broker::Headers::default());
        let stamp = ProducerStamp { producer_id, producer_epoch: 0, base_sequence: -1 };
        placed(builder.encode(stamp, true, kafka::log::compression::Codec::None), offset, 1 << 5)
    }

    fn placed(bytes: Bytes, offset: Offset, attributes: u8) -> Bytes {
        let mut bytes = bytes.to_vec();
        bytes[..8].copy_from_slice(&offset.to_be_bytes());
        bytes[12..16].copy_from_slice(&3i32.to_be_bytes());
        bytes[22] |= attributes;
        bytes.into()
    }

    fn aborted(producer_id: i64, first_offset: Offset) -> AbortedTransaction {
        AbortedTransaction::default().with_producer_id(producer_id.into()).with_first_offset(first_offset)
    }

    fn read(
        batches: &[Bytes],
        from: Offset,
        committed: bool,
        aborted: Vec<AbortedTransaction>,
    ) -> (Vec<Offset>, Offset) {
        let mut bytes = BytesMut::new();
        batches.iter().for_each(|batch| bytes.extend_from_slice(batch));
        let at = TopicPartition::new("t", 0);
        let read = read_batches(&at, bytes.freeze(), from, committed, false, aborted).expect("well formed");
        (read.records.iter().map(|record| record.offset).collect(), read.next)
    }

    #[test]
    fn aborted_ranges_end_with_their_marker_and_concern_one_producer() {
        let log = [
            batch(0, 7, true),
            batch(1, 8, true),
            batch(2, 7, true),
            marker(3, 7, ABORT_MARKER),
            batch(4, 7, true),
            marker(5, 8, COMMIT),
            marker(6, 7, COMMIT),
        ];
        assert_eq!(read(&log, 0, true, vec![aborted(7, 0)]), (vec![1, 4], 7));
        assert_eq!(read(&log, 0, false, vec![]), (vec![0, 1, 2, 4], 7));
    }

    #[test]
    fn a_producer_that_aborts_again_and_again_is_followed() {
        let log = [
            batch(0, 7, true),
            marker(1, 7, ABORT_MARKER),
            batch(2, 7, true),
            marker(3, 7, COMMIT),
            batch(4, 7, true),
            marker(5, 7, ABORT_MARKER),
        ];
        // The broker need not tell them in order.
        assert_eq!(read(&log, 0, true, vec![aborted(7, 4), aborted(7, 0)]), (vec![2], 6));
    }

    #[test]
    fn a_fetch_from_the_middle_of_an_aborted_transaction_sees_none_of_it() {
        let log = [batch(2, 7, true), marker(3, 7, ABORT_MARKER), batch(4, -1, false)];
        assert_eq!(read(&log, 2, true, vec![aborted(7, 0)]), (vec![4], 5));
    }

    #[test]
    fn a_plain_record_within_an_aborted_range_is_read() {
        let log = [batch(0, 7, true), batch(1, -1, false), batch(2, 7, false), marker(3, 7, ABORT_MARKER)];
        assert_eq!(read(&log, 0, true, vec![aborted(7, 0)]), (vec![1, 2], 4));
    }
}
