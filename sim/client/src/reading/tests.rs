//! Positions, what is buffered, and what becomes of both as polls, seeks and truncations come.

use super::*;

fn at(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

fn records(partition: i32, offsets: std::ops::Range<i64>) -> Vec<ConsumerRecord> {
    offsets
        .map(|offset| ConsumerRecord {
            partition: at(partition),
            offset,
            leader_epoch: Some(3),
            timestamp: Timestamp::ZERO,
            key: None,
            value: None,
            headers: broker::Headers::default(),
        })
        .collect()
}

/// Partitions 0 and 1, both positioned at 0.
fn reading() -> Reading {
    with(Habits::Librdkafka)
}

fn with(habits: Habits) -> Reading {
    let mut reading = Reading::new(habits);
    reading.assign(&[at(0), at(1)], Phase::Committed);
    for partition in [at(0), at(1)] {
        reading.seek(&partition, 0).unwrap();
    }
    reading
}

fn fetch(reading: &mut Reading, partition: i32, offsets: std::ops::Range<i64>) {
    let version = reading.cursors[&at(partition)].version;
    let next = offsets.end;
    reading.fetched(&at(partition), version, records(partition, offsets), 1_000, next, 3);
}

fn taken(reading: &mut Reading, max: usize) -> Vec<String> {
    reading.take(max).iter().map(|record| format!("{}@{}", record.partition, record.offset)).collect()
}

#[test]
fn polls_take_turns_between_partitions_and_keep_their_order() {
    let mut reading = reading();
    fetch(&mut reading, 0, 0..4);
    fetch(&mut reading, 1, 0..1);
    assert_eq!(taken(&mut reading, 3), ["t/0@0", "t/0@1", "t/0@2"]);
    assert_eq!(taken(&mut reading, 3), ["t/1@0", "t/0@3"]);
    assert_eq!(reading.position(&at(0)), Some(4));
}

#[test]
fn the_position_is_the_next_to_be_polled_not_to_be_fetched() {
    let mut reading = reading();
    fetch(&mut reading, 0, 0..4);
    assert_eq!(reading.position(&at(0)), Some(0));
    reading.take(1);
    assert_eq!(reading.position(&at(0)), Some(1));
}

#[test]
fn a_seek_drops_what_was_fetched_and_what_is_still_to_come() {
    let mut reading = reading();
    fetch(&mut reading, 0, 0..4);
    let earlier = reading.cursors[&at(0)].version;
    reading.seek(&at(0), 2).unwrap();
    reading.fetched(&at(0), earlier, records(0, 4..6), 10, 6, 3);
    assert!(reading.take(10).is_empty());
    assert_eq!(reading.position(&at(0)), Some(2));
    assert!(reading.seek(&at(9), 0).is_err());
}

#[test]
fn a_new_leader_is_asked_about_what_an_earlier_one_wrote() {
    let mut reading = reading();
    let led_under = |reading: &mut Reading, epoch| {
        reading.led_by(|_| Some(epoch));
        reading.cursors[&at(0)].phase
    };
    let known = led_under(&mut reading, 4);
    assert_eq!(known, Phase::Known, "a sought position has no epoch to ask about");
    fetch(&mut reading, 0, 0..4);
    assert_eq!(led_under(&mut reading, 4), Phase::Known, "fetched from this leader");
    assert_eq!(led_under(&mut reading, 5), Phase::Unvalidated);
    assert_eq!(reading.position(&at(0)), Some(0));
    reading.cursors.get_mut(&at(0)).unwrap().validated(5);
    assert_eq!(led_under(&mut reading, 5), Phase::Known);
}

#[test]
fn after_a_truncation_java_goes_on_from_the_polls_and_librdkafka_from_the_end() {
    for (habits, from) in [(Habits::Java, 2), (Habits::Librdkafka, 4)] {
        let mut reading = with(habits);
        fetch(&mut reading, 0, 0..6);
        reading.take(2);
        let went = reading.truncated(&at(0), 4, 3);
        assert_eq!(went, Some(from), "{habits:?}: polled up to 2; 2 and 3 are still there");
        assert!(reading.take(10).is_empty());
        fetch(&mut reading, 0, from..6);
        reading.take(10);
        let went = reading.truncated(&at(0), 4, 3);
        assert_eq!(went, Some(4), "{habits:?}: 4 and 5 are gone, whatever was polled");
    }
}

#[test]
fn what_was_fetched_before_a_change_of_leaders_comes_from_librdkafka_at_once_and_from_java_anew() {
    for habits in [Habits::Librdkafka, Habits::Java] {
        let mut reading = with(habits);
        fetch(&mut reading, 0, 0..3);
        reading.take(1);
        let under_way = reading.cursors[&at(0)].version;
        reading.led_by(|_| Some(5));
        assert_eq!(reading.cursors[&at(0)].phase, Phase::Unvalidated, "{habits:?}");
        assert_eq!(reading.position(&at(0)), Some(1), "{habits:?}");
        reading.fetched(&at(0), under_way, records(0, 3..4), 10, 4, 3);
        let polled = taken(&mut reading, 10);
        match habits {
            Habits::Librdkafka => assert_eq!(polled, ["t/0@1", "t/0@2", "t/0@3"]),
            Habits::Java => {
                assert!(polled.is_empty(), "{polled:?}");
                assert_eq!(reading.cursors[&at(0)].fetch_offset, 1, "read anew from where the polls are");
            }
        }
    }
}

#[test]
fn what_is_on_its_way_when_leaders_change_comes_from_librdkafka_at_once_and_from_java_anew() {
    for habits in [Habits::Librdkafka, Habits::Java] {
        let mut reading = with(habits);
        fetch(&mut reading, 0, 0..3);
        assert_eq!(reading.take(3).len(), 3, "everything is polled: only a long poll is open");
        let under_way = reading.cursors[&at(0)].version;
        reading.led_by(|_| Some(5));
        assert_eq!(reading.cursors[&at(0)].phase, Phase::Unvalidated, "{habits:?}");
        reading.fetched(&at(0), under_way, records(0, 3..5), 10, 5, 3);
        let polled = taken(&mut reading, 10);
        match habits {
            Habits::Librdkafka => assert_eq!(polled, ["t/0@3", "t/0@4"]),
            Habits::Java => {
                assert!(polled.is_empty(), "{polled:?}");
                assert_eq!(reading.position(&at(0)), Some(3));
                reading.cursors.get_mut(&at(0)).unwrap().validated(5);
                fetch(&mut reading, 0, 3..5);
                assert_eq!(taken(&mut reading, 10), ["t/0@3", "t/0@4"]);
            }
        }
    }
}

#[test]
fn a_position_of_unknown_epoch_is_not_validated_by_java_whatever_was_fetched_beyond() {
    let mut reading = with(Habits::Java);
    fetch(&mut reading, 0, 0..3);
    reading.led_by(|_| Some(5));
    assert_eq!(reading.cursors[&at(0)].phase, Phase::Known);
    assert_eq!(reading.take(10).len(), 3);
}

#[test]
fn java_commits_every_good_position_and_what_was_sought() {
    let mut reading = with(Habits::Java);
    let positions = |reading: &Reading| {
        let positions = reading.positions().into_iter();
        positions.map(|(at, position)| (at.partition, position.offset)).collect::<Vec<_>>()
    };
    fetch(&mut reading, 0, 0..4);
    assert_eq!(positions(&reading), [(0, 0), (1, 0)], "nothing was polled yet");
    reading.take(3);
    assert_eq!(reading.positions()[0].1.leader_epoch, Some(3));
    assert_eq!(positions(&reading), [(0, 3), (1, 0)]);
    reading.seek(&at(0), 1).unwrap();
    assert_eq!(positions(&reading), [(0, 1), (1, 0)], "not what was polled before the seek");
    reading.cursors.get_mut(&at(1)).unwrap().phase = Phase::Unvalidated;
    assert_eq!(positions(&reading), [(0, 1)]);
}

#[test]
fn a_paused_partition_keeps_what_was_fetched() {
    let mut reading = reading();
    fetch(&mut reading, 0, 0..2);
    reading.set_paused(&[at(0)], true);
    assert!(reading.take(10).is_empty());
    reading.set_paused(&[at(0)], false);
    assert_eq!(taken(&mut reading, 10), ["t/0@0", "t/0@1"]);
}

#[test]
fn what_is_given_up_goes_alone_and_the_rest_reads_on() {
    let mut reading = reading();
    fetch(&mut reading, 0, 0..2);
    fetch(&mut reading, 1, 0..2);
    reading.take(1);
    assert_eq!(reading.take_uncommitted_of(&[at(0)]).len(), 1);
    reading.remove(&[at(0)]);
    reading.add(&[at(2)], Phase::Committed);
    assert_eq!(reading.assignment(), [at(1), at(2)]);
    assert_eq!(taken(&mut reading, 10), ["t/1@0", "t/1@1"]);
    assert_eq!(reading.position(&at(0)), None);
}

#[test]
fn what_was_polled_is_committed_once() {
    let mut reading = reading();
    fetch(&mut reading, 0, 0..2);
    assert!(reading.take_uncommitted().is_empty(), "what was only fetched is not committed");
    reading.take(10);
    let offsets = reading.take_uncommitted();
    assert_eq!(offsets[0].1.offset, 2);
    assert_eq!(offsets[0].1.leader_epoch, Some(3));
    assert!(reading.take_uncommitted().is_empty());
    reading.put_uncommitted_back(offsets);
    assert_eq!(reading.take_uncommitted().len(), 1);
}
