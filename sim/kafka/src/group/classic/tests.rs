//! The group's rules, asked one by one, and a random group against what must always hold.

use kafka_protocol::messages::ApiKey;
use proptest::prelude::*;

use super::*;
use crate::core::ConnectionId;
use crate::wire::Call;

fn token(number: u64) -> Token {
    let call = Call { api: ApiKey::JoinGroup, version: 5, correlation: 0, client_id: None };
    Token::new(ConnectionId(number), call)
}

/// What a member hears that has waited too long.
const LATE: ResponseError = ResponseError::CoordinatorNotAvailable;

/// A group, its clients' questions that wait for an answer, and the ids that it has given.
struct Scene {
    group: ClassicGroup,
    now: Timestamp,
    waiting: BTreeSet<u64>,
    asked: u64,
    ids: Vec<String>,
    /// What was decided and is not committed yet, oldest first.
    decisions: Vec<Decision>,
    slow_log: bool,
    /// All that was answered, for stories.
    heard: Vec<Answer>,
}

impl Scene {
    fn new() -> Scene {
        let settings = GroupSettings { initial_rebalance_delay: Duration::from_secs(3), max_size: 5 };
        let group = ClassicGroup::new(Timestamp::ZERO, "group", settings);
        Scene {
            group,
            now: Timestamp::ZERO,
            waiting: BTreeSet::new(),
            asked: 0,
            ids: Vec::new(),
            decisions: Vec::new(),
            slow_log: false,
            heard: Vec::new(),
        }
    }

    fn token(&mut self) -> Token {
        self.asked += 1;
        self.waiting.insert(self.asked);
        token(self.asked)
    }

    /// Takes in what a group says; what it decided is committed at once, unless the log is slow.
    fn hear(&mut self, answers: Vec<Answer>) {
        for answer in answers {
            if let Answer::Persist(decision) = answer {
                self.decisions.extend(decision);
                if !self.slow_log {
                    self.commit(Ok(()));
                }
                continue;
            }
            let (token, id) = match answer {
                Answer::Joined { token, member_id, .. } | Answer::JoinFailed { token, member_id, .. } => {
                    (token, Some(member_id))
                }
                Answer::Synced { token, .. } | Answer::SyncFailed { token, .. } => (token, None),
                Answer::Persist(_) | Answer::Note(_) => continue,
            };
            if token.answered {
                continue;
            }
            assert!(self.waiting.remove(&token.connection.0), "a question is answered once");
            self.ids.extend(id.filter(|id| !id.is_empty() && !self.ids.contains(id)));
        }
    }

    /// The oldest decisions are committed, or fail.
    fn commit(&mut self, result: Result<(), ResponseError>) {
        for decision in std::mem::take(&mut self.decisions) {
            let mut out = Vec::new();
            self.group.decided(self.now, decision, result, &mut out);
            self.heard.extend(out.iter().cloned());
            self.hear(out);
        }
    }

    fn act(&mut self, what: u8, who: usize, instance: bool) {
        let mut out = Vec::new();
        let id = if self.ids.is_empty() { String::new() } else { self.ids[who % self.ids.len()].clone() };
        let generation = self.group.generation();
        match what {
            0 | 1 => {
                let token = self.token();
                let member_id = if what == 0 { String::new() } else { id };
                let request = JoinRequest {
                    fresh_id: format!("member-{}", self.asked),
                    token,
                    instance: instance.then(|| format!("instance-{}", who % 2)),
                    member_id,
                    client_id: String::new(),
                    client_host: String::new(),
                    session_timeout: Duration::from_secs(10),
                    rebalance_timeout: Duration::from_secs(30),
                    protocol_type: "consumer".into(),
                    protocols: vec![Protocol { name: "range".into(), metadata: Bytes::new() }],
                    requires_known_id: who.is_multiple_of(2),
                    can_skip_assignment: who.is_multiple_of(3),
                };
                self.group.join(self.now, request, &mut out);
            }
            2 => {
                let assignments = vec![(id.clone(), Bytes::from_static(b"all"))];
                let (protocol_type, protocol) = (None, None);
                let token = self.token();
                let (member_id, instance) = (id, None);
                let request = SyncRequest {
                    token,
                    member_id,
                    instance,
                    generation,
                    protocol_type,
                    protocol,
                    assignments,
                };
                self.group.sync(request, &mut out);
            }
            3 => {
                let ask = Ask { member_id: &id, instance: None, generation };
                let beat = self.group.heartbeat(self.now, ask);
                let member = self.group.members().any(|member| member.id == id);
                let expected = match (member, self.group.state()) {
                    (false, _) => Err(ResponseError::UnknownMemberId),
                    (true, State::PreparingRebalance) => Err(ResponseError::RebalanceInProgress),
                    (true, _) => Ok(()),
                };
                assert_eq!(beat, expected, "{:?}", self.group.state());
                let zombie = Ask { member_id: &id, instance: None, generation: generation + 1 };
                assert!(
                    self.group.check_commit(self.now, zombie, instance).is_err(),
                    "of another generation"
                );
            }
            4 => {
                let syncing = self.group.members.get(&id).and_then(|member| member.syncing.clone());
                if self.group.leave(&id, None, &mut out).is_ok() {
                    // Its sync is never answered.
                    syncing.filter(|token| !token.answered).inspect(|token| {
                        assert!(self.waiting.remove(&token.connection.0), "{token:?}");
                    });
                    self.group.left(self.now, &id, &mut out);
                }
            }
            5 => self.slow_log = instance,
            7 => {
                let token = self.waiting.iter().nth(who).map(|number| token(*number));
                out.extend(token.and_then(|token| self.group.waited_too_long(&token, LATE)));
            }
            6 => self.commit(if instance { Ok(()) } else { Err(ResponseError::CoordinatorNotAvailable) }),
            _ => self.pass(Duration::from_millis(500 * who as u64)),
        }
        self.hear(out);
    }

    fn pass(&mut self, span: Duration) {
        let until = self.now + span;
        while let Some(next) = self.group.next_deadline().filter(|next| *next <= until) {
            self.now = self.now.max(next);
            let mut out = Vec::new();
            self.group.tick(self.now, &mut out);
            self.hear(out);
            let left = self.group.next_deadline();
            assert!(left.is_none_or(|left| left > self.now), "a tick leaves nothing overdue");
        }
        self.now = until;
    }

    fn check(&self) {
        let members: Vec<_> = self.group.members().collect();
        let joining = members.iter().filter(|member| member.joining.is_some()).count();
        match self.group.state() {
            State::Empty => assert!(members.is_empty()),
            State::PreparingRebalance => assert!(self.group.join_phase.is_some()),
            State::CompletingRebalance => {
                let goes_on = self.group.sync_until.is_some() || !self.decisions.is_empty();
                assert!(joining == 0 && !members.is_empty() && goes_on);
            }
            State::Stable => {
                assert!(!members.is_empty());
                assert!(joining == 0 || !self.decisions.is_empty(), "only a new id that is not stored waits");
            }
        }
        if self.group.state() != State::PreparingRebalance && !members.is_empty() {
            let leader = self.group.leader().expect("a generation has a leader");
            assert!(members.iter().any(|member| member.id == leader));
        }
        let waits = |waiting: &Option<Token>| waiting.as_ref().is_some_and(|token| !token.answered);
        let held = members.iter().filter(|member| waits(&member.joining)).count()
            + members.iter().filter(|member| waits(&member.syncing)).count();
        assert_eq!(held, self.waiting.len(), "each question that waits is held by a member");
    }
}

/// Verbs for stories: sessions of 10 s, rebalances of 30 s, an initial delay of 3 s, five members at most.
impl Scene {
    fn request(&mut self, id: &str, instance: Option<&str>, requires_known_id: bool) -> JoinRequest {
        let token = self.token();
        JoinRequest {
            fresh_id: format!("member-{}", self.asked),
            token,
            instance: instance.map(str::to_owned),
            member_id: id.to_owned(),
            client_id: String::new(),
            client_host: String::new(),
            session_timeout: Duration::from_secs(10),
            rebalance_timeout: Duration::from_secs(30),
            protocol_type: "consumer".into(),
            protocols: vec![Protocol { name: "range".into(), metadata: Bytes::new() }],
            requires_known_id,
            can_skip_assignment: false,
        }
    }

    /// A join of a client that knows no MEMBER_ID_REQUIRED; gives what was answered at once.
    fn join(&mut self, id: &str, instance: Option<&str>) -> Vec<Answer> {
        let request = self.request(id, instance, false);
        let mut out = Vec::new();
        self.group.join(self.now, request, &mut out);
        self.hear(out.clone());
        out
    }

    fn sync(&mut self, id: &str) -> Vec<Answer> {
        let request = SyncRequest {
            token: self.token(),
            member_id: id.to_owned(),
            instance: None,
            generation: self.group.generation(),
            protocol_type: None,
            protocol: None,
            assignments: Vec::new(),
        };
        let mut out = Vec::new();
        self.group.sync(request, &mut out);
        self.hear(out.clone());
        out
    }

    fn beat(&mut self, id: &str) -> Result<(), ResponseError> {
        let ask = Ask { member_id: id, instance: None, generation: self.group.generation() };
        self.group.heartbeat(self.now, ask)
    }

    fn ids(&self) -> Vec<&str> {
        self.group.members().map(|member| member.id.as_str()).collect()
    }

    /// A group of `count` members that have joined, `member-1` leading; none of them has synced.
    fn joined(count: usize) -> Scene {
        let mut scene = Scene::new();
        (0..count).for_each(|_| _ = scene.join("", None));
        while scene.group.state() == State::PreparingRebalance {
            scene.pass(Duration::from_secs(3));
        }
        scene
    }

    /// The same, and all of them have synced.
    fn stable(count: usize) -> Scene {
        let mut scene = Scene::joined(count);
        let ids: Vec<String> = scene.ids().into_iter().map(str::to_owned).collect();
        ids.iter().rev().for_each(|id| _ = scene.sync(id));
        assert_eq!((scene.group.state(), scene.group.leader()), (State::Stable, Some("member-1")));
        scene
    }
}

fn failures(answers: &[Answer]) -> Vec<ResponseError> {
    let error = |answer: &Answer| match answer {
        Answer::JoinFailed { error, .. } | Answer::SyncFailed { error, .. } => Some(*error),
        _ => None,
    };
    answers.iter().filter_map(error).collect()
}

#[test]
fn who_waited_for_the_assignment_of_a_dead_leader_has_a_whole_session_left() {
    let mut scene = Scene::joined(2);
    assert_eq!(scene.group.state(), State::CompletingRebalance);
    scene.sync("member-2");
    scene.pass(Duration::from_secs(10));
    assert!(scene.waiting.is_empty(), "the sync is cancelled");
    assert_eq!(scene.ids(), ["member-2"], "only the leader was silent");
    scene.pass(Duration::from_millis(9_999));
    assert_eq!(scene.ids(), ["member-2"]);
    scene.pass(Duration::from_millis(1));
    assert!(scene.ids().is_empty(), "from the cancelled sync on it must be heard again");
}

#[test]
fn who_waited_too_long_is_told_once_and_has_joined_all_the_same() {
    let mut scene = Scene::stable(2);
    scene.join("member-1", None);
    let waits = token(scene.asked);
    assert!(scene.group.waits(&waits));
    let told = scene.group.waited_too_long(&waits, LATE);
    assert!(matches!(&told, Some(Answer::JoinFailed { member_id, error: LATE, .. }) if member_id.is_empty()));
    scene.hear(told.into_iter().collect());
    assert!(!scene.group.waits(&waits));
    assert_eq!(scene.group.waited_too_long(&waits, LATE), None);
    scene.join("member-2", None);
    assert_eq!(scene.group.generation(), 2, "nobody is waited for any more");
    assert_eq!(scene.ids(), ["member-1", "member-2"]);
}

#[test]
fn a_sync_of_a_member_that_is_taken_out_is_never_answered() {
    let mut scene = Scene::joined(2);
    scene.sync("member-2");
    let mut out = Vec::new();
    scene.group.leave("member-2", None, &mut out).unwrap();
    scene.group.left(scene.now, "member-2", &mut out);
    assert_eq!(failures(&out), []);
    assert_eq!(scene.group.state(), State::PreparingRebalance);
}

#[test]
fn topics_are_in_use_as_the_last_generation_has_them() {
    let subscription = |topic: &str| {
        let mut metadata = vec![0, 0, 0, 0, 0, 1, 0, topic.len() as u8];
        metadata.extend(topic.as_bytes());
        metadata.extend([0xff; 4]);
        Bytes::from(metadata)
    };
    let mut scene = Scene::new();
    let join = |scene: &mut Scene, id: &str, topic: &str| {
        let mut request = scene.request(id, None, false);
        request.protocols[0].metadata = subscription(topic);
        let mut out = Vec::new();
        scene.group.join(scene.now, request, &mut out);
        scene.hear(out);
    };
    join(&mut scene, "", "orders");
    assert!(scene.group.is_subscribed_to("stock"), "before a generation it cannot be told");
    scene.pass(Duration::from_secs(3));
    assert!(scene.group.is_subscribed_to("orders") && !scene.group.is_subscribed_to("stock"));
    join(&mut scene, "", "stock");
    assert!(!scene.group.is_subscribed_to("stock"), "it is not in a generation yet");
    scene.group.leave("member-1", None, &mut Vec::new()).unwrap();
    assert!(scene.group.is_subscribed_to("orders"), "the rebalance has not ended");
    let mut out = Vec::new();
    scene.group.left(scene.now, "member-1", &mut out);
    scene.hear(out);
    assert!(scene.group.is_subscribed_to("stock") && !scene.group.is_subscribed_to("orders"));
}

#[test]
fn sessions_are_renewed_by_heartbeats_and_not_by_joins_that_change_nothing() {
    let mut scene = Scene::stable(2);
    scene.pass(Duration::from_secs(9));
    scene.beat("member-1").unwrap();
    assert!(matches!(scene.join("member-2", None)[..], [Answer::Joined { .. }]));
    scene.sync("member-2");
    scene.pass(Duration::from_secs(1));
    assert_eq!(scene.ids(), ["member-1"]);
}

#[test]
fn who_does_not_join_anew_within_the_rebalance_timeout_is_out_though_it_lives() {
    let mut scene = Scene::stable(2);
    scene.join("", None);
    let newcomer = format!("member-{}", scene.asked);
    scene.join("member-2", None);
    for _ in 0..3 {
        scene.pass(Duration::from_secs(9));
        assert_eq!(scene.beat("member-1"), Err(ResponseError::RebalanceInProgress));
    }
    scene.pass(Duration::from_millis(2_999));
    assert_eq!(scene.ids().len(), 3, "it has 30 s");
    scene.pass(Duration::from_millis(1));
    assert_eq!(scene.ids(), ["member-2", &newcomer]);
}

/// The broker stood still, and both deadlines have passed when it goes on.
#[test]
fn who_joins_as_another_dies_is_in_the_next_generation() {
    let mut scene = Scene::stable(1);
    scene.join("", None);
    let newcomer = format!("member-{}", scene.asked);
    scene.now += NEW_MEMBER_JOIN_TIMEOUT;
    let mut out = Vec::new();
    scene.group.tick(scene.now, &mut out);
    assert!(out.iter().any(|answer| matches!(answer, Answer::Joined { generation: 2, .. })));
    assert_eq!(scene.ids(), [newcomer]);
}

#[test]
fn a_member_that_leaves_before_it_is_in_makes_a_stable_group_rebalance() {
    let mut scene = Scene::stable(1);
    let request = scene.request("", None, true);
    let id = request.fresh_id.clone();
    let mut out = Vec::new();
    scene.group.join(scene.now, request, &mut out);
    assert_eq!(failures(&out), [ResponseError::MemberIdRequired]);
    assert_eq!(scene.group.state(), State::Stable);
    let mut out = Vec::new();
    scene.group.leave(&id, None, &mut out).unwrap();
    scene.group.left(scene.now, &id, &mut out);
    assert_eq!(scene.group.state(), State::PreparingRebalance);
}

#[test]
fn a_full_group_takes_nobody_new_unless_it_asks_before_the_old() {
    let mut scene = Scene::stable(5);
    assert_eq!(failures(&scene.join("", None)), [ResponseError::GroupMaxSizeReached]);
    assert_eq!(scene.group.state(), State::Stable);
    scene.join("member-1", None);
    assert_eq!(scene.group.state(), State::PreparingRebalance);
    scene.join("", None);
    (2..5).for_each(|number| _ = scene.join(&format!("member-{number}"), None));
    assert_eq!(failures(&scene.join("member-5", None)), [ResponseError::GroupMaxSizeReached]);
    assert!(!scene.ids().contains(&"member-5"), "the last of the old ones is out");
}

#[test]
fn who_does_not_sync_in_time_is_out_and_the_others_join_anew() {
    let mut scene = Scene::joined(3);
    scene.sync("member-1");
    for _ in 0..6 {
        scene.pass(Duration::from_secs(5));
        (1..4).for_each(|number| _ = scene.beat(&format!("member-{number}")));
    }
    assert_eq!((scene.ids(), scene.group.state()), (vec!["member-1"], State::PreparingRebalance));
}

#[test]
fn members_have_their_assignment_when_it_is_committed_and_not_before() {
    let mut scene = Scene::joined(2);
    scene.slow_log = true;
    scene.sync("member-2");
    scene.sync("member-1");
    assert_eq!((scene.group.state(), scene.waiting.len()), (State::CompletingRebalance, 2));
    scene.commit(Ok(()));
    assert_eq!((scene.group.state(), scene.waiting.len()), (State::Stable, 0));
}

#[test]
fn an_assignment_that_cannot_be_stored_makes_all_join_anew() {
    let mut scene = Scene::joined(2);
    scene.slow_log = true;
    scene.sync("member-1");
    scene.heard.clear();
    scene.commit(Err(ResponseError::CoordinatorNotAvailable));
    assert_eq!(failures(&scene.heard), [ResponseError::CoordinatorNotAvailable]);
    assert_eq!(scene.group.state(), State::PreparingRebalance);
}

#[test]
fn an_assignment_of_an_older_generation_means_nothing() {
    let mut scene = Scene::joined(2);
    scene.slow_log = true;
    scene.sync("member-1");
    scene.join("", None);
    assert_eq!(scene.group.state(), State::PreparingRebalance);
    scene.commit(Ok(()));
    assert_eq!(scene.group.state(), State::PreparingRebalance);
}

#[test]
fn a_static_member_whose_new_id_cannot_be_stored_has_its_old_one() {
    let mut scene = Scene::new();
    scene.join("", Some("i"));
    scene.pass(Duration::from_secs(3));
    scene.sync("member-1");
    scene.slow_log = true;
    assert!(scene.join("", Some("i")).iter().all(|answer| !matches!(answer, Answer::Joined { .. })));
    let newcomer = format!("member-{}", scene.asked);
    assert_eq!((scene.ids(), scene.group.leader()), (vec![newcomer.as_str()], Some(newcomer.as_str())));
    scene.heard.clear();
    scene.commit(Err(ResponseError::CoordinatorNotAvailable));
    assert_eq!(failures(&scene.heard), [ResponseError::CoordinatorNotAvailable]);
    assert_eq!((scene.ids(), scene.group.leader()), (vec!["member-1"], Some("member-1")));
    scene.beat("member-1").unwrap();
}

/// Kafka awaits the sync of the old id, which nobody will send.
#[test]
fn a_static_member_that_comes_back_before_it_synced_costs_a_rebalance_later() {
    let mut scene = Scene::new();
    scene.join("", None);
    scene.join("", Some("i"));
    scene.pass(Duration::from_secs(6));
    scene.sync("member-1");
    scene.join("", Some("i"));
    let newcomer = format!("member-{}", scene.asked);
    scene.sync(&newcomer);
    assert_eq!(scene.group.state(), State::Stable);
    for _ in 0..5 {
        scene.pass(Duration::from_secs(5));
        ["member-1", &newcomer].iter().for_each(|id| scene.beat(id).unwrap());
    }
    scene.pass(Duration::from_secs(5));
    assert_eq!(scene.group.state(), State::PreparingRebalance, "after the rebalance timeout of 30 s");
    assert_eq!(scene.ids().len(), 2);
}

/// Its id was asked to be known first, and it never came back.
#[test]
fn a_first_rebalance_ends_early_when_the_one_that_was_waited_for_is_given_up() {
    let mut scene = Scene::new();
    let request = JoinRequest { session_timeout: Duration::from_secs(4), ..scene.request("", None, true) };
    let mut out = Vec::new();
    scene.group.join(scene.now, request, &mut out);
    scene.hear(out);
    scene.pass(Duration::from_millis(1_500));
    scene.join("", None);
    scene.pass(Duration::from_millis(1_500));
    scene.join("", None);
    scene.pass(Duration::from_millis(1_000));
    assert_eq!((scene.group.state(), scene.group.generation()), (State::CompletingRebalance, 1));
}

#[test]
fn members_that_leave_together_cost_one_generation() {
    let mut scene = Scene::stable(2);
    scene.join("member-2", None);
    scene.join("", None);
    let mut out = Vec::new();
    ["member-1", "member-2"].iter().for_each(|id| scene.group.leave(id, None, &mut out).unwrap());
    scene.group.left(scene.now, "both", &mut out);
    scene.hear(out);
    assert_eq!((scene.ids().len(), scene.group.generation()), (1, 2));
}

#[test]
fn commits_are_judged_by_member_generation_and_state() {
    use ResponseError::{IllegalGeneration, RebalanceInProgress, UnknownMemberId};
    let mut scene = Scene::new();
    let judge = |scene: &mut Scene, member_id: &str, generation| {
        let ask = Ask { member_id, instance: None, generation };
        [false, true].map(|transactional| scene.group.check_commit(scene.now, ask, transactional))
    };
    assert_eq!(judge(&mut scene, "", -1), [Ok(()); 2], "a simple consumer, and nobody is a member");
    assert_eq!(judge(&mut scene, "", 0), [Err(UnknownMemberId); 2]);
    (0..2).for_each(|_| _ = scene.join("", None));
    scene.pass(Duration::from_secs(6));
    let completing = judge(&mut scene, "member-1", 1);
    assert_eq!(completing, [Err(RebalanceInProgress), Ok(())]);
    ["member-2", "member-1"].iter().for_each(|id| _ = scene.sync(id));
    assert_eq!(judge(&mut scene, "member-1", 1), [Ok(()); 2]);
    assert_eq!(judge(&mut scene, "member-1", 0), [Err(IllegalGeneration); 2], "a zombie");
    assert_eq!(judge(&mut scene, "member-1", -1), [Err(IllegalGeneration); 2]);
    assert_eq!(judge(&mut scene, "ghost", 1), [Err(UnknownMemberId); 2]);
    // A producer that does not say who it is, is never fenced.
    assert_eq!(judge(&mut scene, "", -1), [Err(UnknownMemberId), Ok(())]);
    scene.join("member-1", None);
    assert_eq!(scene.group.state(), State::PreparingRebalance);
    assert_eq!(judge(&mut scene, "member-2", 1), [Ok(()); 2], "before it joins anew it may commit");
}

proptest! {
    #[test]
    fn whatever_clients_do_each_is_answered_once_and_silence_empties_the_group(
        acts in proptest::collection::vec((0..9_u8, 0..12_usize, any::<bool>()), 1..80)
    ) {
        let mut scene = Scene::new();
        for (what, who, instance) in acts {
            scene.act(what, who, instance);
            scene.check();
        }
        scene.slow_log = false;
        scene.commit(Ok(()));
        scene.pass(Duration::from_secs(1_200));
        scene.check();
        prop_assert_eq!(scene.group.state(), State::Empty);
        prop_assert!(scene.waiting.is_empty());
    }
}
