//! What happens to ids without their producer: open transactions are aborted after their timeout, silent ids are
//! forgotten; and what tools are told of them.
//!
//! Kafka looks at every interval since its start. So does this, but only at those intervals at which there can be
//! something to do: an idle cluster is not woken.

use std::collections::BTreeSet;

use kafka_protocol::ResponseError;

use super::coordinator::{Append, Change, Coordinator, Effect, Ender, Timer, TransactionSettings};
use super::metadata::{TopicPartition, Transit};
use super::state::TransactionState;

/// How large a batch of tombstones grows; Kafka fills one to the topic's `max.message.bytes`.
const TOMBSTONES_BYTES: usize = 500_000;

/// When the coordinator looks next.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clock {
    started_ms: i64,
    abort_at: Option<i64>,
    expire_at: Option<i64>,
}

impl Clock {
    pub(super) fn new(started_ms: i64) -> Clock {
        Clock { started_ms, abort_at: None, expire_at: None }
    }

    /// The first whole interval since the start that is not before `at_ms`, and after `now_ms`.
    fn tick(&self, interval_ms: i64, at_ms: i64, now_ms: i64) -> i64 {
        let since = at_ms.max(now_ms + 1) - self.started_ms;
        self.started_ms
            + since.div_euclid(interval_ms) * interval_ms
            + if since.rem_euclid(interval_ms) == 0 { 0 } else { interval_ms }
    }

    /// A transaction is open.
    pub(super) fn opened(
        &mut self,
        settings: &TransactionSettings,
        transaction: &Transit,
        now_ms: i64,
        out: &mut Vec<Effect>,
    ) {
        let over_ms = transaction.start_ms + i64::from(transaction.timeout_ms) + 1;
        let at_ms = self.tick(settings.abort_interval_ms, over_ms, now_ms);
        if self.abort_at.is_none_or(|armed| armed > at_ms) {
            self.abort_at = Some(at_ms);
            out.push(Effect::Wake { timer: Timer::AbortTimedOut, at_ms });
        }
    }
}

/// What tools are told of an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// The producer id.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
    /// Where it stands.
    pub state: TransactionState,
    /// How long a transaction may be open, in milliseconds.
    pub timeout_ms: i32,
    /// When the transaction started, in milliseconds; -1 if there was none.
    pub start_ms: i64,
    /// What is in it.
    pub partitions: BTreeSet<TopicPartition>,
}

/// Which ids a tool asks for; what is empty or absent takes all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// In one of these states. `Some` of nothing takes none: only unknown states were named.
    pub states: Option<BTreeSet<TransactionState>>,
    /// With one of these producer ids.
    pub producer_ids: BTreeSet<i64>,
    /// Open for longer than this, in milliseconds.
    pub longer_than_ms: Option<i64>,
}

/// An id in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The transactional id.
    pub id: String,
    /// Its producer id.
    pub producer_id: i64,
    /// Where it stands.
    pub state: TransactionState,
}

impl Coordinator {
    pub(super) fn arm_abort(&mut self, now_ms: i64, opened: &Transit, out: &mut Vec<Effect>) {
        self.clock.opened(&self.settings, opened, now_ms, out);
    }

    /// Looks for the transaction that is over next.
    pub(super) fn arm_abort_again(&mut self, now_ms: i64, out: &mut Vec<Effect>) {
        let transactions = self.led.values().flat_map(|led| led.transactions.values());
        let open = transactions.filter(|transaction| transaction.current.state == TransactionState::Ongoing);
        let next = open.min_by_key(|open| open.current.start_ms + i64::from(open.current.timeout_ms));
        if let Some(next) = next {
            self.clock.opened(&self.settings, &next.current, now_ms, out);
        }
    }

    /// The time at which transactions may have been open for too long: those are aborted.
    pub fn abort_timed_out(&mut self, now_ms: i64, out: &mut Vec<Effect>) {
        if self.clock.abort_at.is_none_or(|armed| armed > now_ms) {
            return;
        }
        self.clock.abort_at = None;
        let transactions = self.led.values().flat_map(|led| &led.transactions);
        let over = transactions.filter(|(_, transaction)| {
            let current = &transaction.current;
            transaction.pending.is_none()
                && current.state == TransactionState::Ongoing
                && current.start_ms + i64::from(current.timeout_ms) < now_ms
        });
        let over: Vec<String> = over.map(|(id, _)| id.clone()).collect();
        for id in over {
            if let Err(error) = self.abort(now_ms, &id, Ender::Timeout, out) {
                out.push(Effect::Note(format!("transaction {id} cannot be aborted: {error}")));
            }
        }
        self.arm_abort_again(now_ms, out);
    }

    pub(super) fn arm_expiry(&mut self, now_ms: i64, out: &mut Vec<Effect>) {
        if self.clock.expire_at.is_some() {
            // What changed since only expires later.
            return;
        }
        let transactions = self.led.values().flat_map(|led| led.transactions.values());
        if let Some(oldest_ms) = transactions.map(|transaction| transaction.current.update_ms).min() {
            let over_ms = oldest_ms + self.settings.expiration_ms;
            let at_ms = self.clock.tick(self.settings.expiration_interval_ms, over_ms, now_ms);
            self.clock.expire_at = Some(at_ms);
            out.push(Effect::Wake { timer: Timer::RemoveExpired, at_ms });
        }
    }

    /// The time at which ids may have been silent for too long: those are forgotten.
    pub fn expire(&mut self, now_ms: i64, out: &mut Vec<Effect>) {
        if self.clock.expire_at.is_none_or(|armed| armed > now_ms) {
            return;
        }
        self.clock.expire_at = None;
        let silent_since = now_ms - self.settings.expiration_ms;
        for (&partition, led) in &mut self.led {
            let (mut batch, mut bytes) = (Vec::new(), 0);
            let mut flush = |batch: &mut Vec<(String, i16)>| {
                if !batch.is_empty() {
                    let change = Change::Forget(std::mem::take(batch));
                    let timeout_ms = self.settings.request_timeout_ms;
                    let coordinator_epoch = led.epoch;
                    out.push(Effect::Append(Append { partition, timeout_ms, coordinator_epoch, change }));
                }
            };
            for (id, transaction) in &mut led.transactions {
                let current = &transaction.current;
                let silent = current.update_ms <= silent_since;
                if transaction.pending.is_some() || !current.state.may_expire() || !silent {
                    continue;
                }
                let epoch = current.producer_epoch;
                transaction.prepare_dead();
                if bytes + id.len() > TOMBSTONES_BYTES {
                    flush(&mut batch);
                    bytes = 0;
                }
                bytes += id.len();
                batch.push((id.clone(), epoch));
            }
            flush(&mut batch);
        }
        self.arm_expiry(now_ms, out);
    }

    /// The tombstones of silent ids are committed, or cannot be.
    pub(super) fn forgotten(
        &mut self,
        partition: i32,
        coordinator_epoch: i32,
        ids: Vec<(String, i16)>,
        result: Result<(), ResponseError>,
    ) {
        let Some(led) = self.led.get_mut(&partition).filter(|led| led.epoch == coordinator_epoch) else {
            return;
        };
        for (id, epoch) in ids {
            let Some(transaction) = led.transactions.get_mut(&id) else { continue };
            assert_eq!(transaction.pending, Some(TransactionState::Dead), "nothing changes an id that dies");
            if result.is_ok() && transaction.current.producer_epoch == epoch {
                led.transactions.remove(&id);
            } else {
                transaction.pending = None;
            }
        }
    }

    /// What a tool is told of an id.
    ///
    /// # Errors
    /// `INVALID_REQUEST` for an empty id, `COORDINATOR_LOAD_IN_PROGRESS`, `NOT_COORDINATOR`, `TRANSACTIONAL_ID_NOT_FOUND`.
    pub fn describe(&mut self, id: &str) -> Result<Described, ResponseError> {
        if id.is_empty() {
            return Err(ResponseError::InvalidRequest);
        }
        let transaction = self.led(id)?.transactions.get(id);
        let current = &transaction.ok_or(ResponseError::TransactionalIdNotFound)?.current;
        Ok(Described {
            producer_id: current.producer_id,
            producer_epoch: current.producer_epoch,
            state: current.state,
            timeout_ms: current.timeout_ms,
            start_ms: current.start_ms,
            partitions: current.partitions.clone(),
        })
    }

    /// The ids that are here and fit, by partition and name.
    ///
    /// # Errors
    /// `COORDINATOR_LOAD_IN_PROGRESS` while any partition is being read.
    pub fn list(&self, now_ms: i64, filter: &Filter) -> Result<Vec<Listed>, ResponseError> {
        if !self.loading.is_empty() {
            return Err(ResponseError::CoordinatorLoadInProgress);
        }
        let fits = |current: &Transit| {
            filter.states.as_ref().is_none_or(|states| states.contains(&current.state))
                && (filter.producer_ids.is_empty() || filter.producer_ids.contains(&current.producer_id))
                && filter.longer_than_ms.is_none_or(|longer_than| now_ms - current.start_ms > longer_than)
        };
        let transactions = self.led.values().flat_map(|led| &led.transactions);
        let fitting = transactions.filter(|(_, transaction)| fits(&transaction.current));
        let listed = |(id, transaction): (&String, &super::TransactionMetadata)| Listed {
            id: id.clone(),
            producer_id: transaction.current.producer_id,
            state: transaction.current.state,
        };
        Ok(fitting.map(listed).collect())
    }
}
