//! One replica of one partition in a broker's memory: whether it leads, what is committed, and what producers it knows.
//!
//! What is on disk is the [`Log`], handed in with each call; this is what a process loses when it dies and rebuilds when
//! it loads the log. Start reading at [`Partition::append`]. With one replica the high watermark is the log's end;
//! followers come with replication.

mod transactions;

use bytes::Bytes;
use context::Timestamp;
use kafka_protocol::ResponseError;

use crate::config::{Settings, TimestampType, TopicSettings};
use crate::log::batch::{BatchError, BatchHeader, stamp};
use crate::log::producer_state::{Origin, ProducerState, Verdict};
use crate::log::verification::VerificationGuard;
use crate::log::{Log, record};
use crate::metadata::PartitionImage;

/// One replica.
#[derive(Clone, Debug)]
pub struct Partition {
    /// Whether this broker leads it.
    pub leads: bool,
    /// The epoch of its leader, as this broker has learnt it.
    pub leader_epoch: i32,
    /// Readers see what is before it.
    pub high_watermark: i64,
    /// The producers, and their transactions.
    pub producers: ProducerState,
}

/// What a topic's and a broker's settings say about appends.
#[derive(Clone, Copy, Debug)]
pub struct AppendRules {
    max_message_bytes: usize,
    timestamp_type: TimestampType,
    before_max_ms: i64,
    after_max_ms: i64,
    compacted: bool,
    segment_bytes: usize,
    verify_transactions: bool,
}

impl AppendRules {
    /// The topic's word, or else the broker's.
    pub fn new(broker: &Settings, topic: &TopicSettings) -> AppendRules {
        AppendRules {
            max_message_bytes: topic.max_message_bytes(broker) as usize,
            timestamp_type: topic.message_timestamp_type(broker),
            before_max_ms: topic.message_timestamp_before_max_ms(broker),
            after_max_ms: topic.message_timestamp_after_max_ms(broker),
            compacted: topic.cleanup_policy(broker).compact,
            segment_bytes: topic.segment_bytes(broker) as usize,
            verify_transactions: broker.transaction_partition_verification_enable,
        }
    }

    /// The broker's time, where the topic takes that.
    fn append_time(&self, now: Timestamp) -> Option<i64> {
        (self.timestamp_type == TimestampType::LogAppendTime).then_some(now.as_millis() as i64)
    }
}

/// Where a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of its first record.
    pub base_offset: i64,
    /// The broker's time, if the topic takes that; else -1.
    pub append_time_ms: i64,
    /// What the high watermark must reach before `acks=all` is answered.
    pub required_offset: i64,
    /// It was here already.
    pub duplicate: bool,
}

/// Why a batch is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendError {
    /// Kafka's code.
    pub code: ResponseError,
    /// Why, for the client's log.
    pub message: String,
}

fn refuse<T>(code: ResponseError, message: impl Into<String>) -> Result<T, AppendError> {
    Err(AppendError { code, message: message.into() })
}

impl Partition {
    /// Loads a replica from its log. Producers silent for `producer_id_expiration_ms` are forgotten.
    pub fn load(
        now: Timestamp,
        log: &mut Log,
        image: &PartitionImage,
        leads: bool,
        producer_id_expiration_ms: i32,
    ) -> Partition {
        Partition {
            leads,
            leader_epoch: image.leader_epoch,
            high_watermark: log.end_offset(),
            producers: ProducerState::load(log, now.as_millis() as i64, i64::from(producer_id_expiration_ms)),
        }
    }

    /// Appends what a client sent: one batch, checked as Kafka's `LogValidator` checks it. `verified` is what allows a
    /// batch to open a transaction, see [`Partition::begin_verification`].
    ///
    /// # Errors
    /// [`AppendError`]; nothing was appended then.
    ///
    /// # Panics
    /// If this replica does not lead: callers answer that themselves.
    pub fn append(
        &mut self,
        now: Timestamp,
        log: &mut Log,
        rules: &AppendRules,
        batch: &Bytes,
        verified: Option<VerificationGuard>,
    ) -> Result<Appended, AppendError> {
        assert!(self.leads, "only a leader appends");
        let now_ms = now.as_millis() as i64;
        let header = validate(now_ms, rules, batch)?;
        match self.producers.check(&header, Origin::Client, rules.verify_transactions, verified) {
            Ok(Verdict::Append) => {}
            Ok(Verdict::Duplicate { base_offset, last_offset, max_timestamp }) => {
                let append_time_ms = match rules.timestamp_type {
                    TimestampType::CreateTime => -1,
                    TimestampType::LogAppendTime => max_timestamp,
                };
                let required_offset = last_offset + 1;
                return Ok(Appended { base_offset, append_time_ms, required_offset, duplicate: true });
            }
            Err(code) => {
                let (id, epoch, sequence) = (header.producer_id, header.producer_epoch, header.base_sequence);
                return refuse(
                    code,
                    format!("producer {id} with epoch {epoch} and sequence {sequence} is refused"),
                );
            }
        }
        let append_time = rules.append_time(now);
        let stamped = stamp(batch, log.end_offset(), self.leader_epoch, append_time);
        let stored = self.store(now, log, stamped, rules.segment_bytes);
        Ok(Appended {
            base_offset: stored.base_offset,
            append_time_ms: append_time.unwrap_or(-1),
            required_offset: stored.next_offset(),
            duplicate: false,
        })
    }

    /// Appends a batch of the broker's own: a coordinator's records, or the marker of a transaction.
    ///
    /// # Errors
    /// Of a batch for a producer, and of a marker: see [`ProducerState::check`] and [`ProducerState::check_marker`].
    pub fn append_own(
        &mut self,
        now: Timestamp,
        log: &mut Log,
        rules: &AppendRules,
        batch: &Bytes,
        verified: Option<VerificationGuard>,
    ) -> Result<BatchHeader, ResponseError> {
        assert!(self.leads, "only a leader appends");
        self.check_own(batch, rules.verify_transactions, verified)?;
        let append_time = rules.append_time(now);
        let stamped = stamp(batch, log.end_offset(), self.leader_epoch, append_time);
        Ok(self.store(now, log, stamped, rules.segment_bytes))
    }

    fn store(&mut self, now: Timestamp, log: &mut Log, stamped: Bytes, segment_bytes: usize) -> BatchHeader {
        let header = log.append(now, stamped, segment_bytes);
        self.remember(log, &header);
        self.advance_high_watermark(log.end_offset());
        header
    }

    /// What all in sync hold is committed; it never goes back.
    fn advance_high_watermark(&mut self, held_by_all_in_sync: i64) {
        self.high_watermark = self.high_watermark.max(held_by_all_in_sync);
        self.producers.high_watermark_moved(self.high_watermark);
    }

    /// Compares the epoch that a client believes in with the leader's; -1 is no belief.
    ///
    /// # Errors
    /// `FENCED_LEADER_EPOCH` if the client is behind, `UNKNOWN_LEADER_EPOCH` if this broker is.
    pub fn check_epoch(&self, believed: i32) -> Result<(), ResponseError> {
        match believed {
            -1 => Ok(()),
            epoch if epoch < self.leader_epoch => Err(ResponseError::FencedLeaderEpoch),
            epoch if epoch > self.leader_epoch => Err(ResponseError::UnknownLeaderEpoch),
            _ => Ok(()),
        }
    }
}

/// The checks that need no state. Compressed records are not opened.
fn validate(now_ms: i64, rules: &AppendRules, batch: &Bytes) -> Result<BatchHeader, AppendError> {
    let header = match BatchHeader::parse(batch) {
        Ok(header) => header,
        // What is cut short is no batch at all for Kafka's reader, and a request must have one: clients do not send it
        // again, as they would what is corrupt.
        Err(error @ (BatchError::UnsupportedFormat(_) | BatchError::Truncated)) => {
            return refuse(ResponseError::InvalidRecord, error.to_string());
        }
        Err(error) => return refuse(ResponseError::CorruptMessage, error.to_string()),
    };
    if header.size() != batch.len() {
        return refuse(
            ResponseError::InvalidRecord,
            "a partition takes exactly one record batch in a request",
        );
    }
    if batch.len() > rules.max_message_bytes {
        let (size, max) = (batch.len(), rules.max_message_bytes);
        return refuse(
            ResponseError::MessageTooLarge,
            format!("a batch of {size} bytes is above the limit of {max}"),
        );
    }
    if let Err(error) = header.check(batch) {
        return refuse(ResponseError::CorruptMessage, error.to_string());
    }
    let invalid = |message: &str| refuse(ResponseError::InvalidRecord, message);
    if header.base_offset != 0 {
        return invalid("the base offset of a batch to append must be 0");
    }
    if header.is_control() {
        return invalid("clients may not write control batches");
    }
    if header.record_count <= 0 || i64::from(header.record_count) != i64::from(header.last_offset_delta) + 1 {
        return invalid("the number of records does not match their offsets");
    }
    if header.has_producer() && (header.base_sequence < 0 || header.producer_epoch < 0) {
        return invalid("a batch of an idempotent producer needs an epoch and a sequence");
    }
    if header.is_log_append_time() {
        return refuse(ResponseError::InvalidTimestamp, "clients may not set log append time");
    }
    if header.compression() == 0 {
        let Ok(records) = record::read_all(&header, batch) else {
            return invalid("the records of the batch cannot be read");
        };
        if !(0..).zip(&records).all(|(index, record)| record.offset_delta == index) {
            return invalid("the records are not numbered from 0 without gaps");
        }
        if rules.compacted && records.iter().any(|record| record.key.is_none()) {
            return invalid("a compacted topic takes only records with a key");
        }
    }
    if rules.timestamp_type == TimestampType::CreateTime {
        let late = header.max_timestamp.saturating_sub(now_ms) > rules.after_max_ms;
        let early = now_ms.saturating_sub(header.base_timestamp) > rules.before_max_ms;
        if header.max_timestamp >= 0 && (late || early) {
            let time = if late { header.max_timestamp } else { header.base_timestamp };
            return refuse(
                ResponseError::InvalidTimestamp,
                format!("timestamp {time} is out of range at {now_ms}"),
            );
        }
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::log::batch::assemble;

    struct Fixture {
        partition: Partition,
        log: Log,
        rules: AppendRules,
    }

    fn fixture(topic: &[(&str, &str)]) -> Fixture {
        let config: BTreeMap<String, String> =
            topic.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        let image = PartitionImage {
            replicas: vec![1],
            in_sync: vec![1],
            leader: 1,
            leader_epoch: 4,
            partition_epoch: 0,
        };
        let mut log = Log::default();
        Fixture {
            partition: Partition::load(Timestamp::from_millis(5_000), &mut log, &image, true, 86_400_000),
            rules: AppendRules::new(&Settings::default(), &TopicSettings::parse(&config).unwrap()),
            log,
        }
    }

    impl Fixture {
        fn append(&mut self, batch: &Bytes) -> Result<Appended, ResponseError> {
            let now = Timestamp::from_millis(5_000);
            self.partition.append(now, &mut self.log, &self.rules, batch, None).map_err(|error| error.code)
        }
    }

    fn batch(key: Option<&'static [u8]>, time_ms: i64) -> Bytes {
        record::write_batch(time_ms, &[(key.map(Bytes::from_static), Some(Bytes::from_static(b"value")))])
    }

    fn idempotent(epoch: i16, sequence: i32) -> Bytes {
        let plain = batch(None, 1);
        let header = BatchHeader::parse(&plain).unwrap();
        let header = BatchHeader { producer_id: 9, producer_epoch: epoch, base_sequence: sequence, ..header };
        assemble(&header, &plain[crate::log::batch::HEADER_LEN..])
    }

    #[test]
    fn an_append_gets_the_next_offset_and_the_leaders_epoch() {
        let mut at = fixture(&[]);
        assert_eq!(at.append(&batch(None, 1)).unwrap().base_offset, 0);
        assert_eq!(at.append(&batch(None, 1)).unwrap().base_offset, 1);
        assert_eq!(at.log.epoch_of(1), Some(4));
        assert_eq!(at.partition.high_watermark, 2);
    }

    #[test]
    fn a_retry_is_answered_with_the_first_offset_and_not_appended() {
        let mut at = fixture(&[]);
        at.append(&idempotent(0, 0)).unwrap();
        at.append(&idempotent(0, 1)).unwrap();
        let retry = at.append(&idempotent(0, 0)).unwrap();
        assert!(retry.duplicate);
        assert_eq!((retry.base_offset, at.log.end_offset()), (0, 2));
        assert_eq!(at.append(&idempotent(0, 3)), Err(ResponseError::OutOfOrderSequenceNumber));
    }

    #[test]
    fn producers_are_known_again_after_a_restart() {
        let mut at = fixture(&[]);
        at.append(&idempotent(0, 0)).unwrap();
        let image = PartitionImage {
            replicas: vec![1],
            in_sync: vec![1],
            leader: 1,
            leader_epoch: 6,
            partition_epoch: 2,
        };
        at.partition = Partition::load(Timestamp::from_millis(5_000), &mut at.log, &image, true, 86_400_000);
        assert!(at.append(&idempotent(0, 0)).unwrap().duplicate);
    }

    #[test]
    fn a_damaged_batch_is_corrupt() {
        let mut at = fixture(&[]);
        let mut damaged = batch(None, 1).to_vec();
        *damaged.last_mut().unwrap() ^= 1;
        assert_eq!(at.append(&Bytes::from(damaged)), Err(ResponseError::CorruptMessage));
        assert_eq!(at.append(&batch(None, 1).slice(..20)), Err(ResponseError::InvalidRecord));
        assert_eq!(at.append(&Bytes::new()), Err(ResponseError::InvalidRecord));
        let two = [batch(None, 1), batch(None, 1)].concat();
        assert_eq!(at.append(&Bytes::from(two)), Err(ResponseError::InvalidRecord));
    }

    #[test]
    fn a_batch_above_the_topics_limit_is_too_large() {
        let mut at = fixture(&[("max.message.bytes", "50")]);
        assert_eq!(at.append(&batch(None, 1)), Err(ResponseError::MessageTooLarge));
    }

    #[test]
    fn a_compacted_topic_wants_keys() {
        let mut at = fixture(&[("cleanup.policy", "compact")]);
        assert_eq!(at.append(&batch(None, 1)), Err(ResponseError::InvalidRecord));
        at.append(&batch(Some(b"key"), 1)).unwrap();
    }

    #[test]
    fn a_time_more_than_an_hour_ahead_is_refused() {
        let mut at = fixture(&[]);
        at.append(&batch(None, 5_000 + 3_600_000)).unwrap();
        assert_eq!(at.append(&batch(None, 5_001 + 3_600_000)), Err(ResponseError::InvalidTimestamp));
    }

    #[test]
    fn log_append_time_is_the_brokers() {
        let mut at = fixture(&[("message.timestamp.type", "LogAppendTime")]);
        assert_eq!(at.append(&batch(None, 1)).unwrap().append_time_ms, 5_000);
        let stored = at.log.batches().next().unwrap();
        stored.header.check(&stored.bytes).unwrap();
        assert!(stored.header.is_log_append_time());
        assert_eq!(stored.header.max_timestamp, 5_000);
    }
}
