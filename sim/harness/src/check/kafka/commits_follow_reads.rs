//! Committed offsets never run ahead of what was read.

use std::collections::BTreeMap;

use broker::{Offset, TopicPartition};

use super::known::KnownRecords;
use crate::check::client::{ClientAct, ClientEvent, ClientId};
use crate::check::{Breaches, Check, Moment, Occasion};

/// A consumer commits no offset beyond what it was given to handle.
///
/// A commit says "all before this is done". One that runs ahead loses records: after the next rebalance nobody reads
/// them. Whether what was read was also handled is for the checks of the system under test; Kafka cannot know it. Judged
/// at the end, because only then it is known which offsets hold a record.
#[derive(Debug, Default)]
pub struct CommitsFollowReads {
    known: KnownRecords,
    groups: BTreeMap<ClientId, String>,
    /// How far each consumer was given each partition, since it was assigned last.
    read: BTreeMap<(ClientId, TopicPartition), Offset>,
    /// How far each group may have committed.
    committed: BTreeMap<(String, TopicPartition), Offset>,
    ahead: Vec<Ahead>,
}

/// A commit of `commits` by a consumer that had been given all before `given`.
#[derive(Debug)]
struct Ahead {
    partition: TopicPartition,
    given: Offset,
    commits: Offset,
    at: Moment,
    host: String,
}

impl CommitsFollowReads {
    pub(super) const NAME: &str = "commits_follow_reads";

    fn observe(&mut self, moment: Moment, event: &ClientEvent<'_>) {
        self.known.learn(event);
        let client = event.client;
        match event.act {
            ClientAct::ConsumerOpened { group: Some(group), .. } => {
                self.groups.insert(client, group.to_owned());
            }
            ClientAct::Assigned(partitions) => {
                for partition in partitions {
                    self.read.remove(&(client, partition.clone()));
                }
            }
            ClientAct::Polled(records) => {
                for record in records {
                    self.read.insert((client, record.partition.clone()), record.offset + 1);
                }
            }
            ClientAct::Sought { partition, offset } => {
                self.read.insert((client, partition.clone()), offset);
            }
            ClientAct::Committing(offsets) => {
                for (partition, offset) in offsets {
                    self.commit(moment, event, partition, offset.offset);
                }
            }
            _ => {}
        }
    }

    fn commit(&mut self, at: Moment, event: &ClientEvent<'_>, partition: &TopicPartition, commits: Offset) {
        let Some(group) = self.groups.get(&event.client).cloned() else { return };
        let committed = self.committed.entry((group, partition.clone())).or_insert(0);
        let read = self.read.get(&(event.client, partition.clone())).copied().unwrap_or(0);
        // Where the group is already, anyone may say so again.
        let given = read.max(*committed);
        if commits > given {
            let (partition, host) = (partition.clone(), event.host.to_owned());
            self.ahead.push(Ahead { partition, given, commits, at, host });
        }
        *committed = commits.max(*committed);
    }

    fn judge(&self, breaches: &mut Breaches) {
        for Ahead { partition, given, commits, at, host } in &self.ahead {
            let Some(left_out) = self.known.first_in(partition, *given, *commits) else { continue };
            let place = format!("{partition}@{commits}");
            breaches.report(
                format!("{host} commits {place} and was given {partition} only before {given}; {left_out} is lost to it"),
                vec![at.evidence_at(place, format!("{host} commits this offset"))],
            );
        }
    }
}

impl Check for CommitsFollowReads {
    fn name(&self) -> &'static str {
        CommitsFollowReads::NAME
    }

    fn look(&mut self, moment: Moment, occasion: Occasion<'_>, breaches: &mut Breaches) {
        match occasion {
            Occasion::Client(event) => self.observe(moment, event),
            Occasion::End { .. } => self.judge(breaches),
            Occasion::Event(_) | Occasion::Step => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::Story;
    use super::*;

    fn story() -> Story<CommitsFollowReads> {
        let mut story = Story::new();
        story.member(1).member(2);
        story
    }

    #[test]
    fn a_commit_beyond_what_was_given_is_found() {
        let found = story().polled(1, &[(0, "a")]).commits(1, 2).polled(2, &[(1, "b")]).end();
        assert_eq!(found, ["host-1 commits t/0@2 and was given t/0 only before 1; 1 is lost to it"]);
    }

    #[test]
    fn a_commit_over_a_hole_is_right() {
        assert!(story().polled(1, &[(0, "a")]).commits(1, 2).polled(2, &[(2, "c")]).end().is_empty());
    }

    #[test]
    fn a_member_may_repeat_what_its_group_has_committed() {
        let mut story = story();
        story.polled(1, &[(0, "a"), (1, "b")]).commits(1, 2).commits(2, 2).commits(2, 1);
        assert!(story.end().is_empty());
    }
}
