//! One replica of one partition in a broker's memory: whether it leads, what is committed, and what producers it knows.
//!
//! What is on disk is the [`Log`], handed in with each call; this is what a process loses when it dies and rebuilds when
//! it loads the log. Start reading at [`Partition::lead`] and [`Partition::append`]. What a leader knows of its followers
//! is in [`leadership`]; fetching from a leader is the broker's (`broker::replica_fetcher`).

pub mod leadership;
mod transactions;

use bytes::Bytes;
use context::Timestamp;
use kafka_protocol::ResponseError;

use crate::config::{Settings, TimestampType, TopicSettings};
use crate::log::batch::{BatchHeader, stamp};
use crate::log::producer_state::{Origin, ProducerState, Verdict};
use crate::log::validator::{RecordError, Refused, Validated, validate};
use crate::log::verification::VerificationGuard;
use crate::log::{Log, LogConfig, SegmentRules};
use crate::metadata::{NodeId, PartitionImage};

use leadership::Judgement;
pub use leadership::Leadership;

/// One replica.
#[derive(Clone, Debug)]
pub struct Partition {
    /// What this broker knows as its leader; `None` while another leads, or nobody.
    pub leadership: Option<Leadership>,
    /// The epoch of its leader, as this broker has learnt it; -1 before it has.
    pub leader_epoch: i32,
    /// Grows with every change of leader or in-sync replicas; as far as this broker has learnt, from the metadata or as
    /// the controller's answer to its leader.
    pub partition_epoch: i32,
    /// Readers see what is before it.
    pub high_watermark: i64,
    /// The producers, and their transactions.
    pub producers: ProducerState,
}

/// What a topic's and a broker's settings say about appends.
#[derive(Clone, Copy, Debug)]
pub struct AppendRules {
    log: LogConfig,
    verify_transactions: bool,
    producer_id_expiration_ms: i32,
}

impl AppendRules {
    /// The topic's word, or else the broker's.
    pub fn new(broker: &Settings, topic: &TopicSettings) -> AppendRules {
        AppendRules {
            log: LogConfig::new(broker, topic),
            verify_transactions: broker.transaction_partition_verification_enable,
            producer_id_expiration_ms: broker.producer_id_expiration_ms,
        }
    }

    /// The broker's time, where the topic takes that.
    fn append_time(&self, now: Timestamp) -> Option<i64> {
        (self.log.timestamp_type == TimestampType::LogAppendTime).then_some(now.as_millis() as i64)
    }
}

/// Where a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of its first record.
    pub base_offset: i64,
    /// The broker's time, if the topic takes that; else -1. Of a duplicate the largest time of the batch that is here.
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
    /// The records that are to blame, if it is about some.
    pub record_errors: Vec<RecordError>,
}

impl AppendError {
    /// One that is about no record.
    pub fn new(code: ResponseError, message: impl Into<String>) -> AppendError {
        AppendError { code, message: message.into(), record_errors: Vec::new() }
    }
}

impl From<Refused> for AppendError {
    fn from(refused: Refused) -> AppendError {
        let Refused { code, message, record_errors } = refused;
        AppendError { code, message, record_errors }
    }
}

impl Partition {
    /// Loads a replica from its log, with the high watermark that was written down last. Producers silent for
    /// `producer_id_expiration_ms` are forgotten. What it is, the metadata says next.
    pub fn load(now: Timestamp, log: &mut Log, producer_id_expiration_ms: i32) -> Partition {
        let (now_ms, expiration_ms) = (now.as_millis() as i64, i64::from(producer_id_expiration_ms));
        let high_watermark = log.checkpointed_high_watermark();
        let mut producers = ProducerState::load(log, now_ms, expiration_ms);
        producers.high_watermark_moved(high_watermark);
        Partition { leadership: None, leader_epoch: -1, partition_epoch: -1, high_watermark, producers }
    }

    /// Whether this broker leads it.
    pub fn leads(&self) -> bool {
        self.leadership.is_some()
    }

    /// The metadata says that this broker, `node`, leads (`Partition.makeLeader`). Whether that is news: a new epoch.
    pub fn lead(&mut self, now: Timestamp, node: NodeId, log: &mut Log, image: &PartitionImage) -> bool {
        if image.partition_epoch < self.partition_epoch {
            // It has the controller's answer to its own question already, and the metadata log is behind that.
            return false;
        }
        self.partition_epoch = image.partition_epoch;
        let is_new_epoch = image.leader_epoch > self.leader_epoch || self.leadership.is_none();
        if let Some(leadership) = &mut self.leadership {
            leadership.committed(node, &image.replicas, &image.in_sync);
        }
        if is_new_epoch {
            let start = log.end_offset();
            // A follower may ask for an epoch of which no record came here; it must be told where ours began.
            log.assign_epoch(image.leader_epoch);
            match &mut self.leadership {
                Some(leadership) => leadership.begin_again(now, start),
                None => {
                    let begun = Leadership::begin(node, now, start, &image.replicas, &image.in_sync);
                    self.leadership = Some(begun);
                }
            }
            self.leader_epoch = image.leader_epoch;
        }
        is_new_epoch
    }

    /// The metadata says that another leads, or nobody (`Partition.makeFollower`). Whether that is a new epoch, under which
    /// fetching begins anew.
    pub fn follow(&mut self, image: &PartitionImage) -> bool {
        if image.partition_epoch < self.partition_epoch {
            return false;
        }
        let is_new_epoch = image.leader_epoch > self.leader_epoch;
        self.leadership = None;
        self.leader_epoch = image.leader_epoch;
        self.partition_epoch = image.partition_epoch;
        is_new_epoch
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
        assert!(self.leads(), "only a leader appends");
        let now_ms = now.as_millis() as i64;
        let Validated { header, batch } = validate(now_ms, &rules.log, batch)?;
        match self.producers.check(&header, Origin::Client, rules.verify_transactions, verified) {
            Ok(Verdict::Append) => {}
            Ok(Verdict::Duplicate { base_offset, last_offset, max_timestamp }) => {
                // Told whatever type of time the topic takes (`UnifiedLog.append`).
                let append_time_ms = max_timestamp;
                let required_offset = last_offset + 1;
                return Ok(Appended { base_offset, append_time_ms, required_offset, duplicate: true });
            }
            Err(code) => {
                let (id, epoch, sequence) = (header.producer_id, header.producer_epoch, header.base_sequence);
                let message = format!("producer {id} with epoch {epoch} and sequence {sequence} is refused");
                return Err(AppendError::new(code, message));
            }
        }
        let append_time = rules.append_time(now);
        let stamped = stamp(&batch, log.end_offset(), self.leader_epoch, append_time);
        let stored = self.store(now, log, stamped, &rules.log);
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
        assert!(self.leads(), "only a leader appends");
        self.check_own(batch, rules.verify_transactions, verified)?;
        let append_time = rules.append_time(now);
        let stamped = stamp(batch, log.end_offset(), self.leader_epoch, append_time);
        Ok(self.store(now, log, stamped, &rules.log))
    }

    fn store(
        &mut self,
        now: Timestamp,
        log: &mut Log,
        stamped: Bytes,
        rules: impl Into<SegmentRules>,
    ) -> BatchHeader {
        let header = log.append(now, stamped, rules);
        self.remember(log, &header);
        header
    }

    /// Moves the high watermark to what all in sync have; whether it moved. It never goes back under one leader.
    pub fn advance_high_watermark(&mut self, log: &Log, by: &Judgement<'_>) -> bool {
        let Some(leadership) = &self.leadership else { return false };
        let log_end = log.end_offset();
        let Some(held) = leadership.held_by_all_in_sync(log_end, by) else { return false };
        let moved = held > self.high_watermark;
        self.high_watermark = self.high_watermark.max(held);
        self.producers.high_watermark_moved(self.high_watermark);
        assert!(self.high_watermark <= log_end, "high watermark beyond the log");
        moved
    }

    /// How a wait for everything before `required_offset` ends; `None` if it goes on
    /// (`Partition.checkEnoughReplicasReachOffset`).
    ///
    /// # Errors
    /// `NOT_LEADER_OR_FOLLOWER`. `NOT_ENOUGH_REPLICAS_AFTER_APPEND` of what was committed, if fewer than `min_in_sync` are in
    /// sync by then. That is for those who ask late: while too few are in sync the high watermark stands still
    /// (KAFKA-15583), so a wait that began before ends with its deadline.
    pub fn reached(&self, required_offset: i64, min_in_sync: usize) -> Option<Result<(), ResponseError>> {
        let Some(leadership) = &self.leadership else { return Some(Err(ResponseError::NotLeaderOrFollower)) };
        if self.high_watermark < required_offset {
            return None;
        }
        let enough = leadership.maximal_in_sync() >= leadership.effective_min_in_sync(min_in_sync);
        Some(if enough { Ok(()) } else { Err(ResponseError::NotEnoughReplicasAfterAppend) })
    }

    /// Appends what the leader sent, batch by batch, as it is. Batches of an epoch that this replica has not heard of are
    /// left (KAFKA-18723): they come again.
    ///
    /// # Errors
    /// `CORRUPT_MESSAGE` at the first batch that is damaged or does not continue the log; those before it are appended. A log
    /// that is empty may begin with a batch that reaches back behind its end.
    pub fn append_as_follower(
        &mut self,
        now: Timestamp,
        log: &mut Log,
        rules: &AppendRules,
        mut records: Bytes,
    ) -> Result<(), ResponseError> {
        assert!(!self.leads(), "a leader takes no records from another");
        while !records.is_empty() {
            let corrupt = |_| ResponseError::CorruptMessage;
            let header = BatchHeader::parse(&records).map_err(corrupt)?;
            header.check(&records).map_err(corrupt)?;
            if header.leader_epoch > self.leader_epoch {
                return Ok(());
            }
            if header.base_offset < log.end_offset() {
                let is_empty = log.start_offset() == log.end_offset();
                if !is_empty || header.next_offset() <= log.end_offset() {
                    return Err(ResponseError::CorruptMessage);
                }
                // The leader's log begins in the middle of this batch, after DeleteRecords (`UnexpectedAppendOffsetException`).
                self.start_over(now, log, header.base_offset, rules.producer_id_expiration_ms);
            }
            self.store(now, log, records.split_to(header.size()), &rules.log);
        }
        Ok(())
    }

    /// What the leader says is committed, as far as this replica has it. It may go back: a leader that was just elected
    /// knows less.
    pub fn follow_high_watermark(&mut self, log: &Log, leaders: i64) {
        self.high_watermark = leaders.clamp(log.start_offset(), log.end_offset());
        self.producers.high_watermark_moved(self.high_watermark);
    }

    /// What the leader deleted is deleted here.
    pub fn follow_start_offset(&mut self, log: &mut Log, leaders: i64) {
        // As far as it is committed here: the rest follows with the high watermark.
        let raised = log.raise_start_offset(leaders.min(self.high_watermark), self.high_watermark);
        if raised.expect("it is not beyond the high watermark") {
            self.producers.log_start_moved(log);
        }
    }

    /// Drops what the leader does not have.
    pub fn truncate(&mut self, now: Timestamp, log: &mut Log, offset: i64, producer_id_expiration_ms: i32) {
        log.truncate_to(offset);
        self.high_watermark = self.high_watermark.min(log.end_offset());
        self.truncated(now, log, producer_id_expiration_ms);
    }

    /// Drops everything: the leader's log begins after the end of this one.
    pub fn start_over(&mut self, now: Timestamp, log: &mut Log, offset: i64, producer_id_expiration_ms: i32) {
        log.truncate_fully_and_start_at(offset);
        self.high_watermark = offset;
        self.truncated(now, log, producer_id_expiration_ms);
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::log::batch::assemble;
    use crate::log::record;
    use crate::metadata::MetadataImage;

    struct Fixture {
        partition: Partition,
        log: Log,
        rules: AppendRules,
    }

    /// Broker 1 leads alone.
    fn image(leader_epoch: i32) -> PartitionImage {
        let partition_epoch = leader_epoch;
        PartitionImage { leader_epoch, partition_epoch, ..PartitionImage::new(vec![1], vec![1]) }
    }

    fn fixture(topic: &[(&str, &str)]) -> Fixture {
        let config: BTreeMap<String, String> =
            topic.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        let mut log = Log::default();
        let mut partition = Partition::load(Timestamp::from_millis(1_000), &mut log, 86_400_000);
        assert!(partition.lead(Timestamp::from_millis(1_000), 1, &mut log, &image(4)));
        Fixture {
            partition,
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
        let image = MetadataImage::default();
        let (now, lag_max) = (Timestamp::from_millis(5_000), Duration::from_secs(30));
        let by = Judgement { now, lag_max, min_in_sync: 2, image: &image };
        assert!(at.partition.advance_high_watermark(&at.log, &by), "one replica is all that can be in sync");
        assert_eq!(at.partition.high_watermark, 2);
    }

    #[test]
    fn what_was_committed_is_told_with_an_error_once_too_few_are_in_sync() {
        let mut log = Log::default();
        let now = Timestamp::from_millis(1_000);
        let mut partition = Partition::load(now, &mut log, 86_400_000);
        let in_sync = |in_sync: &[NodeId], partition_epoch| PartitionImage {
            partition_epoch,
            ..PartitionImage::new(vec![1, 2, 3], in_sync.to_vec())
        };
        assert_eq!(partition.reached(0, 2), Some(Err(ResponseError::NotLeaderOrFollower)));
        partition.lead(now, 1, &mut log, &in_sync(&[1, 2], 0));
        partition.high_watermark = 5;
        assert_eq!(partition.reached(6, 2), None);
        assert_eq!(partition.reached(5, 2), Some(Ok(())));
        assert!(!partition.lead(now, 1, &mut log, &in_sync(&[1], 1)), "the epoch is the same");
        assert_eq!(partition.reached(5, 2), Some(Err(ResponseError::NotEnoughReplicasAfterAppend)));
        assert_eq!(partition.reached(6, 2), None, "what is not committed waits on");
        assert_eq!(partition.reached(5, 1), Some(Ok(())));
        partition.leadership.as_mut().unwrap().propose(vec![1, 3]);
        assert_eq!(partition.reached(5, 2), Some(Ok(())), "who is about to be in sync counts");
    }

    #[test]
    fn a_retry_is_answered_with_the_first_offset_and_not_appended() {
        let mut at = fixture(&[]);
        at.append(&idempotent(0, 0)).unwrap();
        at.append(&idempotent(0, 1)).unwrap();
        let retry = at.append(&idempotent(0, 0)).unwrap();
        assert!(retry.duplicate);
        assert_eq!(
            retry.append_time_ms, 1,
            "of the batch that is here, though the topic takes the producer's"
        );
        assert_eq!((retry.base_offset, at.log.end_offset()), (0, 2));
        assert_eq!(at.append(&idempotent(0, 3)), Err(ResponseError::OutOfOrderSequenceNumber));
    }

    #[test]
    fn producers_are_known_again_after_a_restart() {
        let mut at = fixture(&[]);
        at.append(&idempotent(0, 0)).unwrap();
        at.partition = Partition::load(Timestamp::from_millis(5_000), &mut at.log, 86_400_000);
        at.partition.lead(Timestamp::from_millis(6_000), 1, &mut at.log, &image(6));
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
