//! The fetches that wait for records, by what they wait for.

use std::collections::{BTreeMap, BTreeSet};

use context::Timestamp;

use super::reading::Reading;
use crate::ConnectionId;
use crate::broker::fetch_session::Scope;
use crate::log::Log;
use crate::metadata::PartitionKey;
use crate::wire::Call;

/// The fetches that wait for records.
#[derive(Clone, Debug, Default)]
pub(in crate::broker) struct WaitingFetches {
    next: u64,
    pub(super) by_id: BTreeMap<u64, WaitingFetch>,
    /// Of readers, by what they wait for.
    readers: BTreeMap<PartitionKey, BTreeSet<u64>>,
    /// Of followers: few, each with many partitions.
    followers: BTreeSet<u64>,
}

/// A fetch that waits for records.
#[derive(Clone, Debug)]
pub(super) struct WaitingFetch {
    pub(super) connection: ConnectionId,
    pub(super) call: Call,
    pub(super) reading: Reading,
    pub(super) scope: Scope,
    /// By partition.
    pub(super) watches: Vec<Watch>,
    pub(super) until: Timestamp,
}

/// What a waiting fetch looks at in one partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    pub(super) key: PartitionKey,
    pub(super) offset: i64,
    pub(super) max_bytes: usize,
    pub(super) current_leader_epoch: i32,
    pub(super) last_fetched_epoch: i32,
    /// From which the offset was read when the fetch came, by its base offset.
    pub(super) segment: i64,
}

impl Watch {
    /// Whether there is something to read in an older segment than that in which what may be read ends
    /// (`LogOffsetMetadata.onOlderSegment`). A fetch reads one segment, so that waiting brings it nothing more.
    pub(super) fn is_behind(&self, log: &Log, upper: i64) -> bool {
        self.offset < upper && self.segment < log.segment_of_read(upper, upper)
    }
}

impl WaitingFetches {
    pub(super) fn add(&mut self, waiting: WaitingFetch) -> u64 {
        let id = self.next;
        self.next += 1;
        if waiting.reading.follower.is_some() {
            self.followers.insert(id);
        } else {
            for watch in &waiting.watches {
                self.readers.entry(watch.key).or_default().insert(id);
            }
        }
        self.by_id.insert(id, waiting);
        id
    }

    pub(super) fn take(&mut self, id: u64) -> Option<WaitingFetch> {
        let waiting = self.by_id.remove(&id)?;
        if !self.followers.remove(&id) {
            for watch in &waiting.watches {
                if let Some(ids) = self.readers.get_mut(&watch.key) {
                    ids.remove(&id);
                    if ids.is_empty() {
                        self.readers.remove(&watch.key);
                    }
                }
            }
        }
        Some(waiting)
    }

    /// Who waits for a partition.
    pub(super) fn of(&self, key: PartitionKey) -> Vec<u64> {
        let readers = self.readers.get(&key).into_iter().flatten();
        let followers = self.followers.iter().filter(|id| self.by_id[id].watch(key).is_some());
        readers.chain(followers).copied().collect()
    }
}

impl WaitingFetch {
    pub(super) fn watch(&self, key: PartitionKey) -> Option<&Watch> {
        let index = self.watches.binary_search_by_key(&key, |watch| watch.key).ok()?;
        Some(&self.watches[index])
    }
}
