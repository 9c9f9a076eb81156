//! What a consumer holds: assignments taken up and given up, where each partition starts, and seeks.

use std::time::Duration;

use broker::{Error, ErrorClass, ErrorCode, TopicPartition};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer as _, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::Offset as RdOffset;

use super::{Mode, RdKafkaConsumer};
use crate::error::from_kafka;
use crate::partitions;
use crate::rebalance::{Callbacks, Change, Rebalance, give_up, take_on};

/// How long librdkafka may take for what needs no broker: to move a position.
const LOCALLY: Duration = Duration::from_secs(1);
/// How long a poll waits to learn where a partition starts, before it leaves the question to librdkafka.
const STARTS: Duration = Duration::from_secs(5);
/// What was not learned about a start is asked again after this, and for so long: other partitions wait meanwhile.
const ASK_AGAIN: Duration = Duration::from_millis(200);

impl RdKafkaConsumer {
    /// Takes up what librdkafka asked for since the last poll. `late`: it came after `max.poll.interval.ms`.
    pub(super) async fn rebalance(&mut self, late: bool) -> Result<(), Error> {
        while let Some(mut rebalance) = self.callbacks.next() {
            if late && rebalance.change == Change::Revoke {
                // A revocation that waited for this poll: librdkafka has left the group since, without another word.
                rebalance.change = Change::Lose;
            }
            self.take_up(rebalance).await?;
        }
        Ok(())
    }

    async fn take_up(&mut self, rebalance: Rebalance) -> Result<(), Error> {
        let gave_up = |base: &BaseConsumer<Callbacks>| {
            give_up(base, &rebalance).map_err(|error| from_kafka(&error, "a revocation"))
        };
        match rebalance.change {
            Change::Assign => {
                let starts = self.starts(&rebalance.partitions).await?;
                take_on(self.base()?, &rebalance, &starts)
                    .map_err(|error| from_kafka(&error, "an assignment"))?;
                self.held.extend(rebalance.partitions.iter().cloned());
                if let Mode::Subscribed(listener) = &mut self.mode {
                    listener.assigned(&rebalance.partitions);
                }
                Ok(())
            }
            Change::Revoke => {
                let returned = match &mut self.mode {
                    Mode::Subscribed(listener) => listener.revoked(&rebalance.partitions),
                    _ => Vec::new(),
                };
                let committed = self.commit_positions(&returned).await;
                self.forget(&rebalance.partitions);
                // Whatever became of the commit, the group waits for the member.
                gave_up(self.base()?)?;
                committed
            }
            Change::Lose => {
                if let Mode::Subscribed(listener) = &mut self.mode {
                    listener.lost(&rebalance.partitions);
                }
                self.forget(&rebalance.partitions);
                gave_up(self.base()?)
            }
        }
    }

    /// Where new partitions start, for librdkafka. It would find out by itself, but would not tell before the first record.
    /// What cannot be learned now is left to it, and asked again.
    pub(super) async fn starts(
        &mut self,
        partitions: &[TopicPartition],
    ) -> Result<TopicPartitionList, Error> {
        let Some(mut list) = self.ask_for_starts(partitions, STARTS).await? else {
            self.unstarted.extend(partitions.iter().cloned());
            return Ok(partitions::list(partitions));
        };
        let found = partitions::with_offset(&list);
        let open = partitions::without_offset(&list);
        if self.has_group {
            // That one may not be reset librdkafka says by itself.
            let settled = |at: &&TopicPartition| {
                found.iter().any(|(found, _)| found == *at)
                    || self.reset == RdOffset::Invalid && open.contains(at)
            };
            self.unstarted.extend(partitions.iter().filter(|at| !settled(at)).cloned());
        } else {
            // There is no group to ask: what is open still starts by the same rule.
            for at in open {
                list.set_partition_offset(&at.topic, at.partition, self.reset)
                    .map_err(|error| from_kafka(&error, format_args!("the start of {at}")))?;
            }
        }
        self.positions.extend(found);
        Ok(list)
    }

    /// At the group's committed offsets, else by `auto.offset.reset`. `None` if the coordinator does not say; a partition whose
    /// leader does not say, or that may not be reset, is without an offset.
    async fn ask_for_starts(
        &mut self,
        partitions: &[TopicPartition],
        patience: Duration,
    ) -> Result<Option<TopicPartitionList>, Error> {
        let mut list = partitions::list(partitions);
        if self.has_group {
            let asked = partitions::list(partitions);
            let Ok(found) = self.call(move |base| base.committed_offsets(asked, patience)).await? else {
                return Ok(None);
            };
            self.callbacks.committed().extend(partitions::with_offset(&found));
            list = found;
        }
        let open = partitions::without_offset(&list);
        if !open.is_empty() && self.reset != RdOffset::Invalid {
            let times = partitions::list_at(open.iter().map(|at| (at, self.reset)))?;
            let found = self.call(move |base| base.offsets_for_times(times, patience)).await?;
            for (at, offset) in found.map(|found| partitions::with_offset(&found)).unwrap_or_default() {
                list.set_partition_offset(&at.topic, at.partition, RdOffset::Offset(offset))
                    .map_err(|error| from_kafka(&error, format_args!("the start of {at}")))?;
            }
        }
        Ok(Some(list))
    }

    /// Asks again where partitions start of which it was not learned. librdkafka cannot be left alone with that: it waits for
    /// ever for the answer to a question that a coordinator on its way elsewhere refused (NOT_COORDINATOR).
    async fn start_late(&mut self) -> Result<(), Error> {
        self.unstarted.retain(|at| !self.positions.contains_key(at));
        if self.unstarted.is_empty() || self.context.now() < self.asks_at {
            return Ok(());
        }
        let asked: Vec<_> = self.unstarted.iter().cloned().collect();
        let found = self.ask_for_starts(&asked, ASK_AGAIN).await;
        self.asks_at = self.context.now() + ASK_AGAIN;
        let Some(list) = found? else { return Ok(()) };
        for (at, offset) in partitions::with_offset(&list) {
            self.positions.insert(at.clone(), offset);
            self.seeks.insert(at, offset);
        }
        let open = partitions::without_offset(&list);
        if self.reset != RdOffset::Invalid || open.is_empty() {
            return Ok(());
        }
        self.unstarted.retain(|at| !open.contains(at));
        let names: Vec<String> = open.iter().map(TopicPartition::to_string).collect();
        Err(Error::new(
            ErrorCode::OffsetOutOfRange,
            ErrorClass::Failed,
            format!("no offset is committed for {}, and `auto.offset.reset` is `error`", names.join(", ")),
        ))
    }

    /// These are not held any more.
    fn forget(&mut self, partitions: &[TopicPartition]) {
        let paused: Vec<_> = partitions.iter().filter(|at| self.paused.remove(*at)).cloned().collect();
        if let Some(base) = &self.base
            && !paused.is_empty()
        {
            // librdkafka would remember it if they came back. It fails for partitions that it has not, and they need nothing.
            base.resume(&partitions::list(&paused)).ok();
        }
        for at in partitions {
            self.held.remove(at);
            self.positions.remove(at);
            self.seeks.remove(at);
            self.unstarted.remove(at);
            self.callbacks.committed().remove(at);
        }
        self.taken.retain(|record| !partitions.contains(&record.partition));
    }

    /// Nothing is held any more.
    pub(super) fn forget_all(&mut self) {
        let held: Vec<_> = self.held.iter().cloned().collect();
        self.forget(&held);
        // An assignment that failed may have left more than it holds.
        self.positions.clear();
        self.unstarted.clear();
    }

    /// Has librdkafka read from where it was told to since the last poll, and from where it should have begun.
    pub(super) async fn move_on(&mut self) -> Result<(), Error> {
        self.start_late().await?;
        self.pass_seeks_on().await
    }

    /// Passes seeks on. librdkafka refuses one for a partition that it does not read: because it has not begun yet, or because
    /// it stopped for want of an offset (`auto.offset.reset=error`). There it begins anew.
    async fn pass_seeks_on(&mut self) -> Result<(), Error> {
        if self.seeks.is_empty() {
            return Ok(());
        }
        let asked = self.seeks.iter().map(|(at, offset)| (at, RdOffset::Offset(*offset)));
        let list = partitions::list_at(asked)?;
        let sought = self.call(move |base| base.seek_partitions(list, LOCALLY)).await?;
        // What went wrong as a whole is tried again by the next poll.
        let Ok(list) = sought else { return Ok(()) };
        let mut stopped = Vec::new();
        for entry in list.elements() {
            let at = TopicPartition::new(entry.topic(), entry.partition());
            match entry.error() {
                Ok(()) => _ = self.seeks.remove(&at),
                Err(KafkaError::OffsetFetch(RDKafkaErrorCode::State)) => stopped.push(at),
                Err(_) => {}
            }
        }
        if stopped.is_empty() { Ok(()) } else { self.begin_anew(&stopped) }
    }

    /// Has librdkafka read partitions again from where they were sought to. By the eager protocol all partitions begin anew, each
    /// at its position; where one that was never read begins is asked again.
    ///
    /// To librdkafka this is also the answer to a rebalance that it asks for: only a poll that has just found none may do this. One
    /// that begins in the moment between is answered by this, and its listener is called late.
    fn begin_anew(&mut self, stopped: &[TopicPartition]) -> Result<(), Error> {
        let base = self.base()?;
        let anew = |error| from_kafka(&error, "a seek");
        let at = |at| (at, self.positions.get(at).map_or(RdOffset::Invalid, |next| RdOffset::Offset(*next)));
        // Each protocol knows one way only; without a group both do.
        if matches!(base.rebalance_protocol(), RebalanceProtocol::Eager) {
            base.assign(&partitions::list_at(self.held.iter().map(at))?).map_err(anew)?;
            self.seeks.clear();
        } else {
            base.incremental_unassign(&partitions::list(stopped)).map_err(anew)?;
            base.incremental_assign(&partitions::list_at(stopped.iter().map(at))?).map_err(anew)?;
            self.seeks.retain(|at, _| !stopped.contains(at));
        }
        Ok(())
    }

    /// Tells the listener that all is being taken away and commits what it returns.
    pub(super) async fn give_all_up(&mut self) -> Result<(), Error> {
        let returned = match &mut self.mode {
            Mode::Subscribed(listener) if !self.held.is_empty() => {
                listener.revoked(&self.held.iter().cloned().collect::<Vec<_>>())
            }
            _ => Vec::new(),
        };
        self.mode = Mode::Idle;
        self.forget_all();
        self.commit_positions(&returned).await
    }
}
