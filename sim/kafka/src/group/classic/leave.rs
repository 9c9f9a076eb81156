//! Members that go: by their word, at the end of their session, or because they did not sync.

use context::Timestamp;
use kafka_protocol::ResponseError;

use super::{Answer, ClassicGroup, JoinPhase, Member, NEW_MEMBER_JOIN_TIMEOUT, State};

impl ClassicGroup {
    /// Takes a member out at its own word; a static one may be named by its instance alone. When all who leave together
    /// are out, [`ClassicGroup::left`] tells the group.
    ///
    /// # Errors
    /// `UNKNOWN_MEMBER_ID` or `FENCED_INSTANCE_ID`.
    pub fn leave(
        &mut self,
        id: &str,
        instance: Option<&str>,
        out: &mut Vec<Answer>,
    ) -> Result<(), ResponseError> {
        if id.is_empty() {
            let holder = instance.and_then(|instance| self.instances.get(instance));
            let holder = holder.ok_or(ResponseError::UnknownMemberId)?.clone();
            self.dismiss(&holder, out);
        } else if self.pending.remove(id).is_none() {
            self.check_member(id, instance)?;
            self.dismiss(id, out);
        }
        Ok(())
    }

    /// The group goes on without those who have left.
    pub fn left(&mut self, now: Timestamp, who: &str, out: &mut Vec<Answer>) {
        self.go_on_without(now, &format!("{who} leaves"), out);
    }

    /// Takes a member out; a join that waits in its name is told. A sync that waits is not, ever: Kafka's
    /// `removeCurrentMemberFromClassicGroup` completes the one and forgets the other.
    fn dismiss(&mut self, id: &str, out: &mut Vec<Answer>) {
        let member = self.drop_member(id);
        if let Some(token) = member.joining {
            let error = ResponseError::UnknownMemberId;
            out.push(Answer::JoinFailed { token, member_id: String::new(), error });
        }
    }

    /// Someone has left. Kafka makes no difference for one that was never in.
    fn go_on_without(&mut self, now: Timestamp, why: &str, out: &mut Vec<Answer>) {
        match self.state {
            State::Stable | State::CompletingRebalance => self.rebalance(now, out, why),
            State::PreparingRebalance | State::Empty => {
                out.push(Answer::Note(format!("group {}: {why}", self.id)));
                self.end_join_if_all_joined(now, out);
            }
        }
    }

    /// Someone's time is over. Unlike after a leave, a first rebalance that waits for more members ends at once if all that
    /// are known have joined, as in Kafka.
    fn end_join_without(&mut self, now: Timestamp, out: &mut Vec<Answer>) {
        if self.state == State::PreparingRebalance && self.all_joined() {
            self.end_join(now, out);
        }
    }

    pub(super) fn drop_member(&mut self, id: &str) -> Member {
        let member = self.members.remove(id).expect("a member that is dropped is in the group");
        if let Some(instance) = &member.instance {
            self.instances.remove(instance);
        }
        self.pending_sync.remove(id);
        if self.leader.as_deref() == Some(id) {
            self.leader = self.members.keys().next().cloned();
        }
        member
    }

    /// The next time at which something happens by itself.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let join = self.join_phase.map(|phase| match phase {
            JoinPhase::Initial { until, .. } | JoinPhase::Until(until) => until,
        });
        let sessions = self.members.values().filter_map(|member| self.session_end(member));
        let pending = self.pending.values().copied();
        sessions.chain(pending).chain(join).chain(self.sync_until).min()
    }

    fn session_end(&self, member: &Member) -> Option<Timestamp> {
        if member.new {
            return Some(member.heard + NEW_MEMBER_JOIN_TIMEOUT);
        }
        // Who waits for an answer of ours is alive as far as we know.
        let waits = member.joining.is_some() || member.syncing.is_some();
        (!waits).then(|| member.heard + member.session_timeout)
    }

    /// Time has passed: sessions end, rebalances end.
    pub fn tick(&mut self, now: Timestamp, out: &mut Vec<Answer>) {
        let overdue: Vec<String> =
            self.pending.iter().filter(|(_, until)| **until <= now).map(|(id, _)| id.clone()).collect();
        for id in overdue {
            self.pending.remove(&id);
            self.end_join_without(now, out);
        }
        // One after the other: with the first gone the others may be in a new generation, with new sessions.
        while let Some(id) = self.overdue(now) {
            self.dismiss(&id, out);
            let why = format!("{id} is evicted: its session ended");
            if self.state == State::PreparingRebalance {
                out.push(Answer::Note(format!("group {}: {why}", self.id)));
                self.end_join_without(now, out);
            } else {
                self.go_on_without(now, &why, out);
            }
        }
        match self.join_phase {
            Some(JoinPhase::Initial { until, left, more_came }) if until <= now => {
                let again = self.settings.initial_rebalance_delay.min(left);
                if more_came && !again.is_zero() {
                    let left = left.saturating_sub(again);
                    self.join_phase = Some(JoinPhase::Initial { until: now + again, left, more_came: false });
                } else {
                    self.end_join(now, out);
                }
            }
            Some(JoinPhase::Until(until)) if until <= now => self.end_join(now, out),
            _ => {}
        }
        if self.sync_until.is_some_and(|until| until <= now) {
            self.sync_until = None;
            let late: Vec<String> = std::mem::take(&mut self.pending_sync).into_iter().collect();
            for id in &late {
                // The id of a static member that came back before it synced stays among the awaited ones, in Kafka too.
                if self.members.contains_key(id) {
                    self.dismiss(id, out);
                }
            }
            if !late.is_empty() {
                let why = format!("{} evicted: not synced in time", late.join(", "));
                self.go_on_without(now, &why, out);
            }
        }
    }

    fn overdue(&self, now: Timestamp) -> Option<String> {
        let dead = |member: &&Member| self.session_end(member).is_some_and(|end| end <= now);
        self.members.values().find(dead).map(|member| member.id.clone())
    }

    /// This broker no longer coordinates the group: whoever waits is sent away.
    pub fn resign(&mut self, out: &mut Vec<Answer>) {
        let error = ResponseError::NotCoordinator;
        for member in self.members.values_mut() {
            if let Some(token) = member.joining.take() {
                out.push(Answer::JoinFailed { token, member_id: member.id.clone(), error });
            }
            if let Some(token) = member.syncing.take() {
                out.push(Answer::SyncFailed { token, error });
            }
        }
    }
}
