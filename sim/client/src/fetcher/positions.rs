//! Where to read: the group's committed offset, an end of the log, and whether the log still has what was read before.

use std::collections::BTreeMap;

use broker::{Error, ErrorCode, OffsetAndMetadata, OffsetSpec, TopicPartition};
use context::Timestamp;

use super::{Asked, Event, Fetcher, no_offset};
use crate::cluster::NodeId;
use crate::error::code;
use crate::offsets::{Listed, group_offsets, list_offsets_of};
use crate::reading::{Phase, Reading};
use crate::validation::{EpochEnd, EpochEnds, Epochs, epoch_ends};

impl Fetcher {
    pub(super) fn ask_committed(&mut self, reading: &mut Reading, now: Timestamp) {
        let Some(coordinator) = &self.shared.coordinator else {
            let spec = self.shared.reset_spec();
            let mut stuck = Vec::new();
            for (at, cursor) in reading.iter_mut().filter(|(_, cursor)| cursor.phase == Phase::Committed) {
                cursor.phase = spec.map_or(Phase::Stuck, Phase::Reset);
                if spec.is_none() {
                    stuck.push(at.clone());
                }
            }
            for at in stuck {
                reading.report(no_offset(&at, "there is no group to have committed one"));
                self.shared.news.notify_one();
            }
            return;
        };
        let mut asked = Vec::new();
        for (at, cursor) in reading.iter_mut() {
            if cursor.phase == Phase::Committed && !cursor.asking && cursor.not_before <= now {
                cursor.asking = true;
                asked.push((at.clone(), cursor.version));
            }
        }
        if asked.is_empty() {
            return;
        }
        let coordinator = coordinator.clone();
        let patience = self.shared.cluster.settings.socket_timeout;
        self.events.push(Box::pin(async move {
            let partitions: Vec<_> = asked.iter().map(|(at, _)| at.clone()).collect();
            let offsets = group_offsets(&coordinator, Some(&partitions), patience).await;
            Event::Committed(asked, offsets)
        }));
    }

    pub(super) fn position_by_group(
        &mut self,
        reading: &mut Reading,
        asked: Vec<Asked>,
        offsets: Result<Vec<(TopicPartition, OffsetAndMetadata)>, Error>,
        now: Timestamp,
    ) {
        let retry_at = self.retry_at(now);
        let spec = self.shared.reset_spec();
        let (offsets, error) = match offsets {
            Ok(offsets) => (offsets.into_iter().collect::<BTreeMap<_, _>>(), None),
            Err(error) => (BTreeMap::new(), Some(error)),
        };
        for (at, version) in asked {
            let Some(cursor) = reading.asked(&at, version) else { continue };
            cursor.asking = false;
            match (offsets.get(&at), &error) {
                (_, Some(_)) => cursor.not_before = retry_at,
                (Some(position), None) => {
                    cursor.position_at(position.offset, position.leader_epoch.unwrap_or(-1));
                }
                (None, None) => {
                    cursor.phase = spec.map_or(Phase::Stuck, Phase::Reset);
                    if spec.is_none() {
                        reading.report(no_offset(&at, "the group has committed none"));
                    }
                }
            }
        }
        if let Some(error) = error {
            reading.report(error);
        }
        self.shared.news.notify_one();
    }

    pub(super) fn ask_ends(&mut self, reading: &mut Reading, now: Timestamp) {
        let mut leaders: BTreeMap<NodeId, Vec<(Asked, OffsetSpec)>> = BTreeMap::new();
        for (at, cursor) in reading.iter_mut() {
            let Phase::Reset(spec) = cursor.phase else { continue };
            let Some((leader, _)) = self.shared.cluster.leader(at) else { continue };
            if !cursor.asking && cursor.not_before <= now {
                cursor.asking = true;
                leaders.entry(leader).or_default().push(((at.clone(), cursor.version), spec));
            }
        }
        for (leader, asked) in leaders {
            let cluster = self.shared.cluster.clone();
            self.events.push(Box::pin(async move {
                let specs: Vec<_> = asked.iter().map(|((at, _), spec)| (at.clone(), *spec)).collect();
                let offsets = list_offsets_of(&cluster, leader, &specs).await;
                Event::Listed(asked.into_iter().map(|(asked, _)| asked).collect(), offsets)
            }));
        }
    }

    pub(super) fn position_by_log(
        &mut self,
        reading: &mut Reading,
        asked: Vec<Asked>,
        offsets: Result<Vec<Listed>, Error>,
        now: Timestamp,
    ) {
        let retry_at = self.retry_at(now);
        let mut offsets: BTreeMap<_, _> = match offsets {
            Ok(offsets) => offsets.into_iter().collect(),
            Err(_) => {
                self.refresh_wanted = true;
                BTreeMap::new()
            }
        };
        for (at, version) in asked {
            let Some(cursor) = reading.asked(&at, version) else { continue };
            cursor.asking = false;
            match offsets.remove(&at) {
                Some(Ok(Some((offset, epoch)))) => {
                    cursor.position_at(offset, epoch);
                    if let Some((_, current)) = self.shared.cluster.leader(&at) {
                        // It comes from that leader.
                        cursor.validated(current);
                    }
                }
                Some(Err(error)) if !error.is_retriable() => {
                    cursor.not_before = now + self.shared.cluster.settings.consumer.fetch_error_backoff;
                    reading.report(error);
                }
                _ => {
                    cursor.not_before = retry_at;
                    self.refresh_wanted = true;
                }
            }
        }
        self.shared.news.notify_one();
    }

    pub(super) fn validate(&mut self, reading: &mut Reading, now: Timestamp) {
        let mut leaders: BTreeMap<NodeId, Vec<(Asked, Epochs)>> = BTreeMap::new();
        reading.led_by(|at| self.shared.cluster.leader(at).map(|(_, epoch)| epoch));
        for (at, cursor) in reading.iter_mut() {
            let Some((leader, current)) = self.shared.cluster.leader(at) else { continue };
            if cursor.phase == Phase::Unvalidated && !cursor.asking && cursor.not_before <= now {
                cursor.asking = true;
                let epochs = Epochs { current, read: cursor.offset_epoch };
                leaders.entry(leader).or_default().push(((at.clone(), cursor.version), epochs));
            }
        }
        for (leader, asked) in leaders {
            let cluster = self.shared.cluster.clone();
            self.events.push(Box::pin(async move {
                let epochs = asked.iter().map(|((at, _), epochs)| (at.clone(), *epochs)).collect();
                let ends = epoch_ends(&cluster, leader, epochs).await;
                Event::Validated(asked.into_iter().map(|(asked, _)| asked).collect(), ends)
            }));
        }
    }

    /// Both clients' rule (`rd_kafka_toppar_handle_OffsetForLeaderEpoch`, `OffsetFetcher.maybeValidateAllPositions`): a log
    /// that ends before the position was truncated, and reading goes on as [`Reading::truncated`] has it; without
    /// `auto.offset.reset` the user must say. A leader that knows nothing of the epoch leaves it to `auto.offset.reset`.
    pub(super) fn take_in_validation(
        &mut self,
        reading: &mut Reading,
        asked: Vec<Asked>,
        ends: Result<EpochEnds, Error>,
        now: Timestamp,
    ) {
        let retry_at = self.retry_at(now);
        let spec = self.shared.reset_spec();
        for (at, version) in asked {
            let Some(cursor) = reading.asked(&at, version) else { continue };
            cursor.asking = false;
            let current = self.shared.cluster.leader(&at).map_or(-1, |(_, epoch)| epoch);
            let answer = match &ends {
                Ok(ends) => ends.get(&at).cloned(),
                // Too old a broker to ask.
                Err(error) if error.code == ErrorCode::Broker(code::UNSUPPORTED_VERSION) => {
                    cursor.validated(current);
                    continue;
                }
                Err(_) => None,
            };
            let position = cursor.fetch_offset;
            match answer {
                Some(Ok(EpochEnd { asked, .. }))
                    if asked != (Epochs { current, read: cursor.offset_epoch }) =>
                {
                    // Another leader by now, or a fetch that was under way brought more: it is asked again.
                }
                Some(Ok(EpochEnd { end: Some((_, end)), .. })) if end >= position => {
                    cursor.validated(current)
                }
                Some(Ok(EpochEnd { end: Some((epoch, end)), .. })) if spec.is_some() => {
                    let from = reading.truncated(&at, end, epoch);
                    self.shared.cluster.context.note(format_args!(
                        "{at} was truncated: epoch {epoch} ends at {end}, read up to {position}, goes on from {from:?}"
                    ));
                }
                Some(Ok(EpochEnd { end, .. })) => {
                    cursor.phase = spec.map_or(Phase::Stuck, Phase::Reset);
                    let why = match end {
                        Some((_, end)) => format!("the log was truncated to {end}, before {position}"),
                        None => format!("the leader knows nothing of the epoch before {position}"),
                    };
                    self.shared.cluster.context.note(format_args!("{at}: {why}"));
                    if spec.is_none() {
                        reading.report(no_offset(&at, &why));
                    }
                }
                Some(Err(_)) | None => {
                    cursor.not_before = retry_at;
                    self.refresh_wanted = true;
                }
            }
        }
        self.shared.news.notify_one();
    }
}
