//! No skipped and no backward poll within an assignment.

use std::collections::BTreeMap;

use broker::{ConsumerRecord, Offset, TopicPartition};

use super::known::KnownRecords;
use crate::check::client::{ClientAct, ClientEvent, ClientId};
use crate::check::{Breaches, Check, Moment, Occasion};

/// As long as a consumer holds a partition, its polls go forward and leave out no record that exists; its first poll
/// starts no later than the group's committed offset, or at the start of the log if the group never committed one and the
/// consumer is to begin there (`auto.offset.reset=earliest`); and it is given nothing of what it does not hold (Jepsen:
/// `poll-skip`, `nonmonotonic-poll`, and their `int-` forms).
///
/// A record that was skipped is committed over by the next commit: nobody will ever handle it. Going back is allowed
/// only with a new assignment or a seek. Offsets have holes, so a jump is a skip only if someone was told of a record in
/// between; that is judged at the end, the rest at every poll.
#[derive(Debug, Default)]
pub struct NoSkippedPoll {
    known: KnownRecords,
    groups: BTreeMap<ClientId, Member>,
    held: BTreeMap<(ClientId, TopicPartition), Held>,
    /// The highest offset that a group may have committed.
    committed: BTreeMap<(String, TopicPartition), Offset>,
    jumps: Vec<Jump>,
}

#[derive(Debug)]
struct Member {
    group: Option<String>,
    auto_commit: bool,
    from_earliest: bool,
}

#[derive(Debug, Default)]
struct Held {
    /// The next offset to read, if it is known, and since when.
    next: Option<(Offset, Moment)>,
}

/// A poll went from `next` to `to`.
#[derive(Debug)]
struct Jump {
    partition: TopicPartition,
    next: (Offset, Moment),
    to: (Offset, Moment),
    host: String,
}

impl NoSkippedPoll {
    pub(super) const NAME: &str = "no_skipped_poll";

    fn observe(&mut self, moment: Moment, event: &ClientEvent<'_>, breaches: &mut Breaches) {
        self.known.learn(event);
        match event.act {
            ClientAct::ConsumerOpened { group, auto_commit, from_earliest, .. } => {
                let member = Member { group: group.map(str::to_owned), auto_commit, from_earliest };
                self.groups.insert(event.client, member);
            }
            ClientAct::Assigned(partitions) => {
                for partition in partitions {
                    self.held.insert((event.client, partition.clone()), Held::default());
                }
            }
            ClientAct::Revoked(partitions) => {
                for partition in partitions {
                    self.held.remove(&(event.client, partition.clone()));
                }
            }
            ClientAct::Sought { partition, offset } => {
                if let Some(held) = self.held.get_mut(&(event.client, partition.clone())) {
                    held.next = Some((offset, moment));
                }
            }
            ClientAct::Polled(records) => {
                records.iter().for_each(|record| self.poll(moment, event, record, breaches));
            }
            ClientAct::Committing(offsets) => {
                for (partition, offset) in offsets {
                    self.may_have_committed(event.client, partition, offset.offset);
                }
            }
            ClientAct::SendingOffsets { group, offsets } => {
                for (partition, offset) in offsets {
                    self.group_may_have_committed(group.to_owned(), partition, offset.offset);
                }
            }
            _ => {}
        }
    }

    fn poll(
        &mut self,
        at: Moment,
        event: &ClientEvent<'_>,
        record: &ConsumerRecord,
        breaches: &mut Breaches,
    ) {
        let (host, partition, offset) = (event.host, &record.partition, record.offset);
        let place = format!("{partition}@{offset}");
        let key = (event.client, partition.clone());
        let start = self.start_of(event.client, partition).map(|offset| (offset, Moment::default()));
        let Some(held) = self.held.get_mut(&key) else {
            let evidence = vec![at.evidence_at(&place, format!("{host} is given this record"))];
            breaches.report(format!("{host} is given {place} and does not hold {partition}"), evidence);
            return;
        };
        match (held.next, start) {
            (Some((next, since)), _) if offset < next => breaches.report(
                format!("{host} is given {place} after it had read on to {next}"),
                vec![
                    since.evidence_at(
                        format!("{partition}@{next}"),
                        format!("{host} is about to read on from here"),
                    ),
                    at.evidence_at(&place, format!("{host} is given this record")),
                ],
            ),
            (Some(next), _) | (None, Some(next)) if offset > next.0 => {
                let (partition, host) = (partition.clone(), host.to_owned());
                self.jumps.push(Jump { partition, next, to: (offset, at), host });
            }
            _ => {}
        }
        held.next = Some((offset + 1, at));
        if self.groups.get(&event.client).is_some_and(|member| member.auto_commit) {
            self.may_have_committed(event.client, &record.partition, offset + 1);
        }
    }

    /// What was asked to be committed may be, whether or not there was an answer: the highest of it bounds where the
    /// group can be.
    fn may_have_committed(&mut self, client: ClientId, partition: &TopicPartition, offset: Offset) {
        let Some(group) = self.groups.get(&client).and_then(|member| member.group.clone()) else { return };
        self.group_may_have_committed(group, partition, offset);
    }

    fn group_may_have_committed(&mut self, group: String, partition: &TopicPartition, offset: Offset) {
        let highest = self.committed.entry((group, partition.clone())).or_insert(offset);
        *highest = offset.max(*highest);
    }

    /// The latest offset at which a consumer may begin to read; `None` if that is not known.
    fn start_of(&self, client: ClientId, partition: &TopicPartition) -> Option<Offset> {
        let member = self.groups.get(&client)?;
        let group = member.group.clone()?;
        let committed = self.committed.get(&(group, partition.clone())).copied();
        committed.or_else(|| member.from_earliest.then_some(0))
    }

    fn judge(&self, breaches: &mut Breaches) {
        for Jump { partition, next: (next, since), to: (to, at), host } in &self.jumps {
            let Some(skipped) = self.known.first_in(partition, *next, *to) else { continue };
            breaches.report(
                format!("{host} went from {partition}@{next} to {to} and skipped the record at {skipped}"),
                vec![
                    since.evidence_at(
                        format!("{partition}@{next}"),
                        format!("{host} is about to read on from here"),
                    ),
                    at.evidence_at(
                        format!("{partition}@{to}"),
                        format!("{host} is given this record instead"),
                    ),
                ],
            );
        }
    }
}

impl Check for NoSkippedPoll {
    fn name(&self) -> &'static str {
        NoSkippedPoll::NAME
    }

    fn look(&mut self, moment: Moment, occasion: Occasion<'_>, breaches: &mut Breaches) {
        match occasion {
            Occasion::Client(event) => self.observe(moment, event, breaches),
            Occasion::End { .. } => self.judge(breaches),
            Occasion::Event(_) | Occasion::Step => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::{Story, partition};
    use super::*;

    fn story() -> Story<NoSkippedPoll> {
        let mut story = Story::new();
        story.member(1);
        story
    }

    #[test]
    fn a_poll_that_leaves_out_a_record_that_another_was_given_is_found() {
        let found =
            story().polled(1, &[(0, "a"), (2, "c")]).commits(1, 1).member(2).polled(2, &[(1, "b")]).end();
        assert_eq!(found, ["host-1 went from t/0@1 to 2 and skipped the record at 1"]);
    }

    #[test]
    fn a_poll_that_goes_back_is_found_and_a_seek_allows_it() {
        assert_eq!(story().polled(1, &[(5, "a")]).polled(1, &[(5, "a")]).end().len(), 1);
        let mut story = story();
        story.polled(1, &[(5, "a")]).act(1, ClientAct::Sought { partition: &partition(), offset: 5 });
        assert!(story.polled(1, &[(5, "a")]).end().is_empty());
    }

    #[test]
    fn a_hole_is_not_a_record_that_was_skipped() {
        assert!(story().polled(1, &[(0, "a"), (2, "c")]).end().is_empty());
    }

    #[test]
    fn a_new_assignment_may_go_back_to_what_was_committed_but_not_beyond_it() {
        let mut back = story();
        back.polled(1, &[(0, "a"), (1, "b")]).commits(1, 1).member(2);
        assert!(back.polled(2, &[(1, "b")]).end().is_empty());
        let mut beyond = story();
        beyond.polled(1, &[(0, "a"), (1, "b")]).commits(1, 1).member(2);
        assert_eq!(
            beyond.polled(2, &[(2, "c")]).end(),
            ["host-2 went from t/0@1 to 2 and skipped the record at 1"]
        );
    }

    #[test]
    fn a_group_that_never_committed_begins_at_the_start() {
        let skipped = ["host-2 went from t/0@0 to 1 and skipped the record at 0"];
        let mut first = Story::<NoSkippedPoll>::new();
        first.producer(1, true).sent(1, 1, "a").acked(1, 1, 0).member(2);
        assert_eq!(first.polled(2, &[(1, "b")]).end(), skipped);
        // The next member begins there too, as long as nobody has committed.
        let mut next = story();
        next.polled(1, &[(0, "a"), (1, "b")]).member(2);
        assert_eq!(next.polled(2, &[(1, "b")]).end(), skipped);
        let mut latest = story();
        latest.polled(1, &[(0, "a"), (1, "b")]);
        let (group, committed_only, auto_commit) = (Some("g"), true, false);
        let opened = ClientAct::ConsumerOpened { group, committed_only, auto_commit, from_earliest: false };
        latest.act(2, opened).act(2, ClientAct::Assigned(&[partition()]));
        assert!(latest.polled(2, &[(1, "b")]).end().is_empty(), "it asked for no more than what comes");
    }

    #[test]
    fn offsets_of_a_transaction_may_be_committed() {
        let mut story = story();
        let offsets = [(partition(), broker::OffsetAndMetadata::new(1))];
        story.polled(1, &[(0, "a"), (1, "b")]);
        story.act(3, ClientAct::SendingOffsets { group: "g", offsets: &offsets }).member(2);
        assert!(story.polled(2, &[(1, "b")]).end().is_empty());
    }

    #[test]
    fn a_record_of_a_partition_that_was_revoked_is_found() {
        let mut story = story();
        story.act(1, ClientAct::Revoked(&[partition()])).polled(1, &[(0, "a")]);
        assert_eq!(story.end(), ["host-1 is given t/0@0 and does not hold t/0"]);
    }
}
