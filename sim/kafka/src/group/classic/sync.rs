//! The end of a rebalance: the leader's assignment goes to the log, then to the members.

use std::collections::BTreeMap;

use bytes::Bytes;
use context::Timestamp;
use kafka_protocol::ResponseError;

use super::{Answer, Ask, ClassicGroup, Decision, State, SyncRequest};

impl ClassicGroup {
    /// A member asks for its assignment; the leader brings everybody's.
    pub fn sync(&mut self, request: SyncRequest, out: &mut Vec<Answer>) {
        let SyncRequest { token, member_id, instance, generation, protocol_type, protocol, assignments } =
            request;
        let ask = Ask { member_id: &member_id, instance: instance.as_deref(), generation };
        let checked = self.check(ask).and_then(|()| {
            let agrees = |told: &Option<String>, known: &Option<String>| told.is_none() || told == known;
            if agrees(&protocol_type, &self.protocol_type) && agrees(&protocol, &self.protocol) {
                Ok(())
            } else {
                Err(ResponseError::InconsistentGroupProtocol)
            }
        });
        if let Err(error) = checked {
            return out.push(Answer::SyncFailed { token, error });
        }
        match self.state {
            State::Empty => out.push(Answer::SyncFailed { token, error: ResponseError::UnknownMemberId }),
            State::PreparingRebalance => {
                out.push(Answer::SyncFailed { token, error: ResponseError::RebalanceInProgress });
            }
            State::CompletingRebalance => {
                self.pending_sync.remove(ask.member_id);
                let leads = self.leader.as_deref() == Some(ask.member_id);
                let member = self.members.get_mut(ask.member_id).expect("it was checked");
                if let Some(token) = member.syncing.replace(token) {
                    out.push(Answer::SyncFailed { token, error: ResponseError::RebalanceInProgress });
                }
                if leads {
                    let assignments = assignments.into_iter().collect();
                    let generation = self.generation;
                    out.push(Answer::Persist(Some(Decision::Assign { generation, assignments })));
                }
            }
            State::Stable => {
                self.pending_sync.remove(ask.member_id);
                let member = &self.members[ask.member_id];
                let (protocol, assignment) = (self.protocol.clone(), member.assignment.clone());
                out.push(Answer::Synced { token, protocol, assignment });
            }
        }
        if self.pending_sync.is_empty() {
            self.sync_until = None;
        }
    }

    /// The leader's assignment is committed, or cannot be: then all begin anew. One of an older generation means nothing.
    pub(super) fn assigned(
        &mut self,
        now: Timestamp,
        generation: i32,
        mut assignments: BTreeMap<String, Bytes>,
        result: Result<(), ResponseError>,
        out: &mut Vec<Answer>,
    ) {
        if self.state != State::CompletingRebalance || self.generation != generation {
            return;
        }
        if let Err(error) = result {
            self.cancel_syncs(now, error, out);
            return self.rebalance(now, out, &format!("its assignment was not stored: {error}"));
        }
        self.enter(now, State::Stable);
        out.push(Answer::Note(format!("group {} is stable in generation {}", self.id, self.generation)));
        for member in self.members.values_mut() {
            member.assignment = assignments.remove(&member.id).unwrap_or_default();
            if let Some(token) = member.syncing.take() {
                member.heard = now;
                let (protocol, assignment) = (self.protocol.clone(), member.assignment.clone());
                out.push(Answer::Synced { token, protocol, assignment });
            }
        }
    }
}
