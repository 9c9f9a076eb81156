//! The controller under random brokers: they register, heartbeat, shut down, die, and ask for in-sync sets, and after each
//! step the metadata must make sense.

use std::collections::BTreeSet;

use bytes::Bytes;
use context::{Seed, Timestamp};
use kafka_protocol::messages::alter_partition_request::{BrokerState, PartitionData, TopicData};
use kafka_protocol::messages::broker_registration_request::Listener;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::{
    AlterPartitionRequest, AlterPartitionResponse, ApiKey, BrokerHeartbeatRequest, BrokerId,
    BrokerRegistrationRequest, CreateTopicsRequest, TopicName,
};
use proptest::prelude::*;

use super::*;
use crate::broker::text;
use crate::metadata::PartitionImage;
use crate::wire;

const BROKERS: i32 = 3;

#[derive(Clone, Debug)]
enum Step {
    /// A new process of a broker registers; it says goodbye before, or not.
    Register {
        node: i32,
        clean: bool,
    },
    Heartbeat {
        node: i32,
        want_shut_down: bool,
    },
    /// The leader of a partition asks for in-sync replicas, of those with a bit.
    Alter {
        partition: usize,
        bits: u8,
    },
    Wait {
        ms: u64,
    },
    Fail,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (1..=BROKERS, any::<bool>()).prop_map(|(node, clean)| Step::Register { node, clean }),
        6 => (1..=BROKERS, 0..8_u8).prop_map(|(node, die)| Step::Heartbeat { node, want_shut_down: die == 0 }),
        4 => (0..3_usize, 0..8_u8).prop_map(|(partition, bits)| Step::Alter { partition, bits }),
        3 => (0..12_000_u64).prop_map(|ms| Step::Wait { ms }),
        1 => Just(Step::Fail),
    ]
}

struct Bench {
    now: Timestamp,
    features: Features,
    settings: Settings,
    controller: Controller,
    disk: ControllerDisk,
    incarnations: u128,
    active: bool,
    /// Brokers whose process wants to go: none changes its mind.
    leaving: BTreeSet<i32>,
}

impl Bench {
    fn new(elr: i16) -> Bench {
        let features = Features { eligible_leader_replicas_version: elr, ..Features::default() };
        let config =
            [("min.insync.replicas", "2"), ("default.replication.factor", "3"), ("num.partitions", "3")];
        let config = config.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let settings = Settings::parse(&config.into()).unwrap();
        let controller = Controller::new(settings.clone(), features, Seed(1).stream("controller"));
        let now = Timestamp::from_millis(1_000);
        let mut bench = Bench {
            now,
            features,
            settings,
            controller,
            disk: ControllerDisk::default(),
            incarnations: 0,
            active: false,
            leaving: BTreeSet::new(),
        };
        bench.handle(Input::Start { incarnation: Uuid::nil() });
        for node in 1..=BROKERS {
            bench.step(&Step::Register { node, clean: false });
            bench.step(&Step::Heartbeat { node, want_shut_down: false });
        }
        let topic = CreatableTopic::default()
            .with_name(TopicName(text("orders")))
            .with_num_partitions(-1)
            .with_replication_factor(-1);
        bench.ask(ApiKey::CreateTopics, 7, &CreateTopicsRequest::default().with_topics(vec![topic]));
        bench
    }

    fn handle(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.controller.handle(self.now, input, &mut self.disk, &mut out);
        self.active |= out.contains(&Output::Listen);
        out
    }

    /// The answer, if it came at once.
    fn ask<T>(&mut self, api: ApiKey, version: i16, body: &T) -> Option<Bytes>
    where
        T: kafka_protocol::protocol::Encodable + kafka_protocol::protocol::HeaderVersion,
    {
        let frame: Bytes = wire::request(api, version, 0, body);
        let peer: std::sync::Arc<str> = "broker".into();
        let out = self.handle(Input::Request { connection: ConnectionId(0), peer, frame });
        out.into_iter().find_map(|output| match output {
            Output::Respond { frame, .. } => Some(frame),
            _ => None,
        })
    }

    fn epoch_of(&self, node: i32) -> i64 {
        self.controller.image().brokers.get(&node).map_or(-1, |broker| broker.epoch)
    }

    fn partition(&self, index: usize) -> &PartitionImage {
        &self.controller.image().topic("orders").unwrap().partitions[index]
    }

    /// The error of an AlterPartition of the leader of `orders/0`, which asks for these brokers, each with an epoch; its
    /// view of the partition's epochs is this much older.
    fn alter(&mut self, in_sync: &[(i32, i64)], (leader_behind, partition_behind): (i32, i32)) -> i16 {
        let state = self.partition(0).clone();
        let broker = |&(node, epoch): &(i32, i64)| {
            BrokerState::default().with_broker_id(BrokerId(node)).with_broker_epoch(epoch)
        };
        let asked = PartitionData::default()
            .with_leader_epoch(state.leader_epoch - leader_behind)
            .with_partition_epoch(state.partition_epoch - partition_behind)
            .with_new_isr_with_epochs(in_sync.iter().map(broker).collect());
        let id = self.controller.image().topic("orders").unwrap().id;
        let request = AlterPartitionRequest::default()
            .with_broker_id(BrokerId(state.leader))
            .with_broker_epoch(self.epoch_of(state.leader))
            .with_topics(vec![TopicData::default().with_topic_id(id).with_partitions(vec![asked])]);
        let frame = self.ask(ApiKey::AlterPartition, 3, &request).unwrap();
        let response = wire::response::<AlterPartitionResponse>(&frame, 3).unwrap();
        response.topics[0].partitions[0].error_code
    }

    fn step(&mut self, step: &Step) {
        if !self.active && !matches!(step, Step::Wait { .. }) {
            return;
        }
        let epoch_of = |controller: &Controller, node: i32| {
            controller.image().brokers.get(&node).map_or(-1, |broker| broker.epoch)
        };
        match *step {
            Step::Register { node, clean } => {
                self.incarnations += 1;
                let listener = Listener::default().with_name(text("PLAINTEXT")).with_host(text("host"));
                let previous = if clean { epoch_of(&self.controller, node) } else { -1 };
                let request = BrokerRegistrationRequest::default()
                    .with_broker_id(BrokerId(node))
                    .with_cluster_id(text(crate::CLUSTER_ID))
                    .with_incarnation_id(Uuid::from_u128(self.incarnations))
                    .with_listeners(vec![listener])
                    .with_log_dirs(vec![Uuid::from_u128(1)])
                    .with_previous_broker_epoch(previous);
                let before = epoch_of(&self.controller, node);
                self.ask(ApiKey::BrokerRegistration, 4, &request);
                if epoch_of(&self.controller, node) != before {
                    self.leaving.remove(&node);
                }
            }
            Step::Heartbeat { node, want_shut_down } => {
                if want_shut_down {
                    self.leaving.insert(node);
                }
                let want_shut_down = self.leaving.contains(&node);
                let request = BrokerHeartbeatRequest::default()
                    .with_broker_id(BrokerId(node))
                    .with_broker_epoch(epoch_of(&self.controller, node))
                    .with_current_metadata_offset(self.disk.log.end_offset() - 1)
                    .with_want_shut_down(want_shut_down);
                self.ask(ApiKey::BrokerHeartbeat, 1, &request);
            }
            Step::Alter { partition, bits } => {
                let topic = self.controller.image().topic("orders").unwrap();
                let (id, state) = (topic.id, topic.partitions[partition].clone());
                let state_of = |&node: &i32| {
                    BrokerState::default()
                        .with_broker_id(BrokerId(node))
                        .with_broker_epoch(epoch_of(&self.controller, node))
                };
                let chosen = |node: &&i32| **node == state.leader || bits >> (**node - 1) & 1 == 1;
                let asked = PartitionData::default()
                    .with_partition_index(partition as i32)
                    .with_leader_epoch(state.leader_epoch)
                    .with_partition_epoch(state.partition_epoch)
                    .with_new_isr_with_epochs(state.replicas.iter().filter(chosen).map(state_of).collect());
                let request = AlterPartitionRequest::default()
                    .with_broker_id(BrokerId(state.leader))
                    .with_broker_epoch(epoch_of(&self.controller, state.leader))
                    .with_topics(vec![TopicData::default().with_topic_id(id).with_partitions(vec![asked])]);
                self.ask(ApiKey::AlterPartition, 3, &request);
            }
            Step::Wait { ms } => {
                self.now += Duration::from_millis(ms);
                self.handle(Input::Wake);
            }
            Step::Fail => {
                let rng = Seed(2).stream("controller");
                self.controller = Controller::new(self.settings.clone(), self.features, rng);
                self.active = false;
                self.handle(Input::Start { incarnation: Uuid::nil() });
            }
        }
    }

    /// What must hold of the metadata at any time.
    fn check(&self) {
        let image = self.controller.image();
        let elr_enabled = self.features.eligible_leader_replicas_version > 0;
        for partition in &image.topic("orders").unwrap().partitions {
            if let Some(leader) = image.brokers.get(&partition.leader) {
                assert!(leader.is_active(), "the leader lives: {partition:?}");
                assert!(
                    partition.in_sync.contains(&partition.leader),
                    "the leader is in sync: {partition:?}"
                );
            }
            let both = partition.in_sync.iter().any(|node| partition.elr.contains(node));
            assert!(!both, "who is in sync is not eligible besides: {partition:?}");
            let all = partition.in_sync.iter().chain(&partition.elr).chain(&partition.last_known_elr);
            assert!(
                all.copied().all(|node| partition.replicas.contains(&node)),
                "only replicas count: {partition:?}"
            );
            if elr_enabled {
                assert!(
                    partition.elr.is_empty() || partition.in_sync.len() < 2,
                    "enough are in sync: {partition:?}"
                );
                let fenced = |node: &i32| image.brokers[node].fenced;
                assert!(!partition.in_sync.iter().any(fenced), "who is fenced is not in sync: {partition:?}");
            } else {
                assert!(!partition.in_sync.is_empty(), "the last replica stays: {partition:?}");
                assert!(partition.elr.is_empty() && partition.last_known_elr.is_empty(), "{partition:?}");
            }
        }
    }

    fn epochs(&self) -> Vec<(i32, i32, i32)> {
        let partitions = &self.controller.image().topic("orders").unwrap().partitions;
        partitions.iter().map(|state| (state.leader_epoch, state.partition_epoch, state.leader)).collect()
    }
}

/// The leader of `orders/0`, and the others.
fn leader_and_others(bench: &Bench) -> (i32, [i32; 2]) {
    let state = bench.partition(0);
    (state.replicas[0], [state.replicas[1], state.replicas[2]])
}

#[test]
fn who_is_fenced_or_shutting_down_or_another_process_may_not_be_in_sync() {
    let mut bench = Bench::new(1);
    let (leader, [one, other]) = leader_and_others(&bench);
    let with = |bench: &Bench, node| [(leader, bench.epoch_of(leader)), (node, bench.epoch_of(node))];
    assert_eq!(bench.alter(&with(&bench, one), (0, 0)), 0);
    let stale = [(leader, bench.epoch_of(leader)), (one, bench.epoch_of(one) - 1)];
    assert_eq!(bench.alter(&stale, (0, 0)), 107, "INELIGIBLE_REPLICA: a process of before");
    assert_eq!(bench.alter(&[(leader, -1), (one, -1)], (0, 0)), 0, "-1 is not checked");
    bench.step(&Step::Heartbeat { node: other, want_shut_down: true });
    assert_eq!(bench.alter(&with(&bench, other), (0, 0)), 107, "it is shutting down");
    for _ in 0..3 {
        bench.step(&Step::Wait { ms: 5_000 });
        bench.step(&Step::Heartbeat { node: leader, want_shut_down: false });
    }
    assert!(bench.controller.image().brokers[&one].fenced);
    assert_eq!(bench.alter(&with(&bench, one), (0, 0)), 107, "it is fenced");
    assert_eq!(bench.partition(0).in_sync, [leader]);
}

#[test]
fn an_in_sync_set_that_was_chosen_from_an_old_view_is_refused() {
    let mut bench = Bench::new(1);
    let (leader, [one, _]) = leader_and_others(&bench);
    let two = [(leader, -1), (one, -1)];
    assert_eq!(bench.alter(&two, (0, 0)), 0);
    let epochs = bench.epochs();
    assert_eq!(bench.alter(&[(leader, -1)], (0, 1)), 95, "INVALID_UPDATE_VERSION");
    assert_eq!(bench.alter(&[(leader, -1)], (1, 0)), 74, "FENCED_LEADER_EPOCH");
    assert_eq!(bench.alter(&[(leader, -1)], (0, -1)), 41, "NOT_CONTROLLER: the leader knows more");
    assert_eq!(bench.alter(&[(one, -1)], (0, 0)), 42, "INVALID_REQUEST: a leader is in sync");
    assert_eq!(bench.epochs(), epochs, "nothing of this is done");
}

proptest! {
    #[test]
    fn the_metadata_makes_sense_after_every_step(steps in proptest::collection::vec(step(), 1..120), elr in 0..=1_i16) {
        let mut bench = Bench::new(elr);
        bench.check();
        for step in &steps {
            let before = bench.epochs();
            bench.step(step);
            bench.check();
            for (before, after) in before.into_iter().zip(bench.epochs()) {
                prop_assert!(after.0 >= before.0 && after.1 >= before.1, "epochs grow");
                prop_assert!(after.2 == before.2 || after.0 > before.0, "another leader has another epoch");
                prop_assert!(after.0 == before.0 || after.1 > before.1, "a leader epoch is a partition epoch too");
            }
        }
    }
}
