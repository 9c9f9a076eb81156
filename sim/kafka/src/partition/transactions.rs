//! The transactional side of a replica: markers, verification, and how far readers of committed data may read.
//!
//! What producers may append is [`ProducerState`](crate::log::producer_state::ProducerState)'s business; this file ties it
//! to the log and to the high watermark. Kafka's `UnifiedLog.append` and `lastStableOffset`.

use bytes::Bytes;
use context::Timestamp;
use kafka_protocol::ResponseError;

use super::Partition;
use crate::log::Log;
use crate::log::batch::BatchHeader;
use crate::log::marker::Marker;
use crate::log::producer_state::Origin;
use crate::log::verification::VerificationGuard;

impl Partition {
    /// What readers of committed data see is before it: the high watermark, or the first offset of a transaction that is
    /// open, or whose marker is not committed yet, if that is lower. Where records of that transaction were deleted, it is the
    /// log's start; amid a batch the first offset of the batch, because Kafka looks the start up in its segment, which
    /// knows batches only (`UnifiedLog.maybeIncrementFirstUnstableOffset`, `LogSegment.read` of 4.1).
    pub fn last_stable_offset(&self, log: &Log) -> i64 {
        let unstable = self.producers.first_unstable().map(|offset| match log.start_offset() {
            start if offset < start => {
                log.batches_from(start).next().map_or(start, |batch| batch.header.base_offset)
            }
            _ => offset,
        });
        unstable.map_or(self.high_watermark, |offset| offset.min(self.high_watermark))
    }

    /// Takes in a batch that was just appended, as its leader or from it.
    ///
    /// # Panics
    /// If it is not the log's last.
    pub fn remember(&mut self, log: &mut Log, header: &BatchHeader) {
        self.producers.remember(log, header);
    }

    /// The log was cut at its end: what is known of producers goes back with it.
    pub fn truncated(&mut self, now: Timestamp, log: &mut Log, producer_id_expiration_ms: i32) {
        let expiration_ms = i64::from(producer_id_expiration_ms);
        self.producers.truncated(log, now.as_millis() as i64, expiration_ms);
    }

    /// Judges what a broker itself would append.
    pub(super) fn check_own(
        &self,
        batch: &Bytes,
        must_be_verified: bool,
        verified: Option<VerificationGuard>,
    ) -> Result<(), ResponseError> {
        let header = BatchHeader::parse(batch).expect("a broker's own batch is one");
        match Marker::read(&header, batch) {
            Some(marker) => self.producers.check_marker(&marker),
            None => {
                self.producers.check(&header, Origin::Coordinator, must_be_verified, verified).map(|_| ())
            }
        }
    }

    /// Begins to verify a batch that would open a transaction; `None` if its transaction is open already.
    ///
    /// # Errors
    /// `NOT_LEADER_OR_FOLLOWER`, or `INVALID_PRODUCER_EPOCH`.
    pub fn begin_verification(
        &mut self,
        now: Timestamp,
        producer_id: i64,
        (epoch, sequence): (i16, i32),
        bumps_epoch: bool,
    ) -> Result<Option<VerificationGuard>, ResponseError> {
        if !self.leads() {
            return Err(ResponseError::NotLeaderOrFollower);
        }
        let now_ms = now.as_millis() as i64;
        self.producers.begin_verification(now_ms, producer_id, (epoch, sequence), bumps_epoch)
    }
}
