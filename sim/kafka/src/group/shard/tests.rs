//! A log of the offsets topic, applied as it grew, read back whole, and read back after a cleaner's pass: the same groups
//! and offsets.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::group::CommittedOffset;

const GROUPS: [&str; 2] = ["payment", "shipping"];
const TOPICS: [&str; 2] = ["orders", "stock"];

fn shard() -> Shard {
    Shard::new(GroupSettings { initial_rebalance_delay: Duration::from_secs(3), max_size: 10 }, 0)
}

fn loaded(entries: &[Entry], high_watermark: i64) -> Shard {
    let mut shard = shard();
    let mut answers = BTreeMap::new();
    shard.load(Timestamp::ZERO, entries.iter().cloned(), 1_000, high_watermark, &mut answers);
    shard
}

fn offset(at: i64, producer: Option<i64>, what: usize, value: Option<i64>) -> Entry {
    let committed = |offset| CommittedOffset {
        offset,
        leader_epoch: 3,
        metadata: String::new(),
        commit_timestamp_ms: at,
        expire_timestamp_ms: None,
    };
    let record = GroupRecord::Offset {
        group: GROUPS[what % 2].to_owned(),
        topic: TOPICS[what / 2 % 2].to_owned(),
        partition: (what / 4 % 2) as i32,
        value: value.map(committed),
    };
    Entry::Record { at, producer, record }
}

fn group(at: i64, what: usize, generation: Option<i32>) -> Entry {
    let stored = |generation| StoredGroup {
        protocol_type: "consumer".into(),
        generation,
        protocol: None,
        leader: None,
        timestamp_ms: at,
        members: Vec::new(),
    };
    let record = GroupRecord::Group { group: GROUPS[what % 2].to_owned(), value: generation.map(stored) };
    Entry::Record { at, producer: None, record }
}

type Seen = (BTreeMap<String, i32>, BTreeMap<(String, String, i32), CommittedOffset>, BTreeSet<String>);

/// Generations, offsets, and what is pending.
fn seen(shard: &Shard, view: View) -> Seen {
    let groups = shard.groups(View::Latest);
    let groups = groups.map(|(name, group)| (name.to_owned(), group.generation())).collect();
    let (mut offsets, mut pending) = (BTreeMap::new(), BTreeSet::new());
    for name in GROUPS {
        for (topic, partition, committed) in shard.offsets.of_group(view, name) {
            offsets.insert((name.to_owned(), topic.to_owned(), partition), committed.clone());
        }
        for (topic, partition) in TOPICS.iter().flat_map(|topic| [(topic, 0), (topic, 1)]) {
            if shard.offsets.has_pending(name, topic, partition) {
                pending.insert(format!("{name} {topic}/{partition}"));
            }
        }
    }
    (groups, offsets, pending)
}

/// The log as a cleaner leaves it: of what is before the first open transaction, records of aborted ones go, and of each
/// key all but the last.
fn cleaned(entries: &[Entry]) -> Vec<Entry> {
    let at = |entry: &Entry| match entry {
        Entry::Record { at, .. } | Entry::Marker { at, .. } => *at,
    };
    let ended = |index: usize, who: i64| {
        entries[index..].iter().find_map(|entry| match entry {
            Entry::Marker { producer, commit, .. } if *producer == who => Some(*commit),
            _ => None,
        })
    };
    let open = entries.iter().enumerate().find(|(index, entry)| match entry {
        Entry::Record { producer: Some(producer), .. } => ended(*index, *producer).is_none(),
        _ => false,
    });
    let stable_end = open.map_or(i64::MAX, |(_, entry)| at(entry));
    let mut last: BTreeMap<_, i64> = BTreeMap::new();
    let mut kept = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        if let Entry::Record { at, producer, record } = entry {
            let aborted = producer.is_some_and(|producer| ended(index, producer) == Some(false));
            if *at < stable_end && aborted {
                continue;
            }
            if *at < stable_end {
                last.insert(record.encode().0, *at);
            }
        }
        kept.push(entry.clone());
    }
    kept.retain(|entry| match entry {
        Entry::Record { at, record, .. } if *at < stable_end => last[&record.encode().0] == *at,
        _ => true,
    });
    kept
}

#[derive(Clone, Debug)]
enum Act {
    Commit { what: usize, offset: i64, producer: Option<i64> },
    Forget { what: usize },
    End { producer: i64, commit: bool },
    Advance,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0..8_usize, 0..100_i64, proptest::option::of(0..3_i64))
            .prop_map(|(what, offset, producer)| Act::Commit { what, offset, producer }),
        1 => (0..8_usize).prop_map(|what| Act::Forget { what }),
        2 => (0..3_i64, any::<bool>()).prop_map(|(producer, commit)| Act::End { producer, commit }),
        2 => Just(Act::Advance),
    ]
}

proptest! {
    #[test]
    fn what_was_applied_is_what_is_read_back(acts in proptest::collection::vec(act(), 1..60)) {
        let mut live = shard();
        let (mut log, mut high_watermark) = (Vec::new(), 0);
        for (at, act) in (0..).zip(acts) {
            let entry = match act {
                Act::Commit { what, offset: value, producer } => offset(at, producer, what, Some(value)),
                Act::Forget { what } => offset(at, None, what, None),
                Act::End { producer, commit } => Entry::Marker { at, producer, commit },
                Act::Advance => {
                    high_watermark = at;
                    continue;
                }
            };
            live.replay(Timestamp::ZERO, entry.clone(), high_watermark);
            log.push(entry);
        }
        let end = log.len() as i64 + 60;
        let whole = loaded(&log, high_watermark);
        prop_assert_eq!(seen(&whole, View::Latest), seen(&live, View::Latest));
        let view = View::Committed(high_watermark);
        prop_assert_eq!(seen(&whole, view).1, seen(&live, view).1, "at the high watermark {}", high_watermark);
        prop_assert_eq!(seen(&whole, View::Committed(end)).1, seen(&live, View::Latest).1);
        let after_cleaning = loaded(&cleaned(&log), high_watermark);
        let (_, offsets, pending) = seen(&after_cleaning, View::Latest);
        prop_assert_eq!((offsets, pending), { let live = seen(&live, View::Latest); (live.1, live.2) });
    }
}

#[test]
fn a_tombstone_ends_a_group_and_a_commit_begins_it_anew() {
    let mut log = vec![group(0, 0, Some(4)), offset(1, None, 0, Some(5))];
    assert_eq!(seen(&loaded(&log, 9), View::Latest).0["payment"], 4);
    log.extend([offset(2, None, 0, None), group(3, 0, None)]);
    let gone = loaded(&log, 9);
    assert_eq!((seen(&gone, View::Latest).0.len(), seen(&gone, View::Latest).1.len()), (0, 0));
    log.push(offset(4, None, 0, Some(6)));
    assert_eq!(seen(&loaded(&log, 9), View::Latest).0["payment"], 0, "a group without members ever");
}

#[test]
fn a_group_that_is_not_committed_is_not_seen() {
    let shard = loaded(&[offset(4, None, 0, Some(5))], 4);
    assert!(shard.group(View::Committed(4), "payment").is_none());
    assert!(shard.group(View::Committed(5), "payment").is_some());
}

const DAY_MS: i64 = 24 * 3_600_000;

fn expired(log: &[Entry], now_ms: i64) -> Vec<GroupRecord> {
    loaded(log, 1_000).expired(now_ms, 7 * DAY_MS)
}

#[test]
fn offsets_of_a_group_without_members_ever_expire_by_their_commit_and_take_the_group_along() {
    let log = [offset(0, None, 0, Some(5))];
    assert_eq!(expired(&log, 7 * DAY_MS - 1), []);
    let records = expired(&log, 7 * DAY_MS);
    assert_eq!(records.len(), 2, "the offset and the group: {records:?}");
}

#[test]
fn offsets_of_a_group_that_lost_its_members_expire_by_the_time_it_did() {
    // The group's record was written at 5 ms, the offset committed at 1 ms.
    let log = [offset(1, None, 0, Some(5)), group(5, 0, Some(3))];
    assert_eq!(expired(&log, 7 * DAY_MS + 4), []);
    assert_eq!(expired(&log, 7 * DAY_MS + 5).len(), 2);
}

#[test]
fn an_open_transaction_keeps_an_offset_and_its_group() {
    let log = [offset(0, None, 0, Some(5)), offset(1, None, 2, Some(5)), offset(2, Some(7), 0, Some(6))];
    let records = expired(&log, 8 * DAY_MS);
    assert_eq!(records.len(), 1, "only the offset that no transaction would replace: {records:?}");
    let only_pending = [offset(2, Some(7), 0, Some(6))];
    assert_eq!(expired(&only_pending, 8 * DAY_MS), []);
}

#[test]
fn an_offset_with_its_own_time_expires_then() {
    let mut log = [offset(0, None, 0, Some(5))];
    if let Entry::Record { record: GroupRecord::Offset { value: Some(value), .. }, .. } = &mut log[0] {
        value.expire_timestamp_ms = Some(1_000);
    }
    assert_eq!(expired(&log, 999), []);
    assert_eq!(expired(&log, 1_000).len(), 2);
}

#[test]
fn a_group_without_offsets_and_members_is_removed() {
    assert_eq!(expired(&[group(0, 0, Some(3))], 1).len(), 1);
}
