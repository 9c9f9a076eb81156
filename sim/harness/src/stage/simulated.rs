//! The stage of one seed: a world on one thread, with the simulated Kafka in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use broker::Properties;
use client::WireBroker;
use context::{Context, Event, EventKind, Program, Recorder as _, Seed, Timestamp};
use kafka::{Cluster, ClusterConfig, LostWithPower, NodeId};
use tokio::sync::watch;
use world::{Change, Engine, World, WorldConfig};

use super::{Ask, Backend, Gate, MakeClients, Offsets, Stage, StageHost};
use crate::fault::{RECORDS_LOST, Unsupported, Wound, supported};
use crate::observed::{Desk, ObservedBroker, Onlookers};
use crate::recorder::RunRecorder;
use crate::run::RunError;
use crate::scenario::Scenario;
use crate::system::{Deployment, Role};

/// The simulated Kafka in a simulated world, moved by an engine.
#[derive(Clone, Copy, Debug)]
pub struct Simulated(pub Engine);

impl Backend for Simulated {
    fn name(&self) -> String {
        self.0.to_string()
    }

    fn replays(&self) -> bool {
        true
    }

    fn supported(&self, scenario: &Scenario) -> Result<(), Unsupported> {
        supported(scenario, self.0)
    }

    fn began(&self) -> Timestamp {
        world::EPOCH
    }

    fn set(&mut self, ask: Ask<'_>) -> Result<Box<dyn Stage + '_>, RunError> {
        let cluster = Cluster::new(cluster_config(ask.scenario))?;
        let recorder = ask.recorder.clone();
        let config = WorldConfig { seed: Seed(ask.seed), latency: ask.scenario.latency, recorder };
        let world = world::build(self.0, config)?;
        let mut stage = SimulatedStage {
            world,
            hosts: Vec::new(),
            desk: Arc::new(Desk::new(Arc::new(Onlookers::new(ask.recorder.clone())))),
            recorder: ask.recorder,
            cluster,
            services_may_start: watch::Sender::new(false),
            workload_may_start: watch::Sender::new(false),
        };
        for (name, program) in stage.cluster.hosts() {
            stage.put(name, program);
        }
        Ok(Box::new(stage))
    }
}

fn cluster_config(scenario: &Scenario) -> ClusterConfig {
    let cluster = &scenario.cluster;
    let config = ClusterConfig::simulated(cluster.brokers)
        .with("default.replication.factor", cluster.replication_factor)
        .with("offsets.topic.replication.factor", cluster.replication_factor)
        .with("transaction.state.log.replication.factor", cluster.replication_factor)
        .with("min.insync.replicas", cluster.min_insync_replicas);
    let config = cluster.config.iter().fold(config, |config, (name, value)| config.with(name, value));
    cluster.features.iter().fold(config, |config, (name, level)| config.with_feature(name, *level))
}

struct SimulatedStage {
    // The world goes first when a run is dropped: its tasks hold the rest.
    world: Box<dyn World>,
    hosts: Vec<String>,
    desk: Arc<Desk>,
    recorder: Arc<RunRecorder>,
    cluster: Cluster,
    services_may_start: watch::Sender<bool>,
    workload_may_start: watch::Sender<bool>,
}

impl SimulatedStage {
    fn put(&mut self, name: String, program: Program) {
        self.world.add_host(&name, program);
        self.hosts.push(name);
    }

    /// The broker that is this host, if one is.
    fn node_of(&self, host: &str) -> Option<NodeId> {
        self.cluster.brokers().find(|node| self.cluster.broker_name(*node) == Some(host))
    }

    fn broker(&self, host: &str) -> NodeId {
        self.node_of(host).expect("only brokers are asked to end")
    }

    /// The tasks that were killed and the connections that were cut so far, at the hosts that are changed.
    fn ended(&self, changes: &[Change]) -> (u64, u64) {
        let hosts: BTreeSet<&str> = changes.iter().filter_map(Change::host).collect();
        let stats = hosts.into_iter().filter_map(|host| self.world.host(host));
        stats.fold((0, 0), |(tasks, cut), stats| (tasks + stats.tasks_killed, cut + stats.connections_cut))
    }

    /// The records that are gone.
    fn lose_what_was_not_flushed(&self, host: &str) -> u64 {
        let Some(node) = self.node_of(host) else { return 0 };
        let lost = self.cluster.power_lost(node, self.world.now());
        for LostWithPower { topic, partition, loss } in &lost {
            let (at, kind) = (self.world.now(), EventKind::Fault);
            let text = format_args!(
                "{host} loses {} records of {topic}/{partition} with the power: its log ended at {}, and ends at {} now, \
                 {} bytes of a torn batch behind it",
                loss.records, loss.end_before, loss.end, loss.torn_bytes
            );
            self.recorder.record(Event { at, host: "", kind, text, bytes: &[] });
        }
        lost.iter().map(|lost| lost.loss.records).sum()
    }
}

impl Stage for SimulatedStage {
    fn now(&self) -> Timestamp {
        self.world.now()
    }

    fn clients(&self) -> MakeClients {
        let properties = Properties::new().set("bootstrap.servers", self.cluster.bootstrap_servers());
        let desk = self.desk.clone();
        Arc::new(move |context: &Context| {
            let wire = Arc::new(WireBroker::new(context.clone(), properties.clone()));
            ObservedBroker::new(wire, context.clone(), desk.clone())
        })
    }

    fn add(&mut self, host: StageHost) {
        let program = match host.part.role() {
            None => host.program,
            Some(Role::Service | Role::Outside) => behind(&self.services_may_start, host.program),
            Some(Role::Workload) => behind(&self.workload_may_start, host.program),
        };
        self.put(host.name, program);
    }

    fn open(&mut self, gate: Gate) {
        match gate {
            Gate::Services => self.services_may_start.send_replace(true),
            Gate::Workload => self.workload_may_start.send_replace(true),
        };
    }

    fn run_until(&mut self, until: Timestamp, _: &dyn Deployment) -> Result<(), RunError> {
        self.world.run_until(until);
        Ok(())
    }

    /// All at once: an engine whose links know no direction takes both directions together.
    fn change(&mut self, changes: &[Change]) -> Vec<(&'static str, u64)> {
        let (tasks, connections) = self.ended(changes);
        if let Err(refusal) = self.world.change_all(changes) {
            panic!("the world refuses what was checked before the run: {refusal}");
        }
        let mut records_lost = 0;
        for change in changes {
            if let Change::PowerOff { host } = change {
                records_lost += self.lose_what_was_not_flushed(host);
            }
        }
        let (tasks_after, connections_after) = self.ended(changes);
        vec![
            ("tasks killed", tasks_after - tasks),
            ("connections cut", connections_after - connections),
            (RECORDS_LOST, records_lost),
        ]
    }

    fn suffered(&self, wound: &Wound, effects: &mut BTreeMap<&'static str, u64>) {
        let (name, count) = match wound {
            Wound::Down { host, power_loss: true } => {
                let links = self.hosts.iter().map(|from| self.world.link(from, host));
                ("packets unheard", links.map(|link| link.unheard).sum::<u64>())
            }
            Wound::Down { .. } => return,
            Wound::Paused { host } => {
                let stats = self.world.host(host).expect("a scenario's hosts are in its world");
                ("wakes deferred", stats.wakes_deferred)
            }
            Wound::Held { from, to } => ("packets held", self.world.link(from, to).held),
            Wound::Slowed { from, to, .. } => ("packets slowed", self.world.link(from, to).slowed),
        };
        *effects.entry(name).or_default() += count;
    }

    fn lame_host(&self) -> Option<String> {
        let up = |host: &&String| {
            let stats = self.world.host(host).expect("a run's hosts are in its world");
            stats.running && !stats.paused
        };
        self.hosts.iter().find(|host| !up(host)).cloned()
    }

    fn is_broker(&self, host: &str) -> bool {
        self.node_of(host).is_some()
    }

    fn leader_of(&self, topic: &str, partition: i32) -> Option<String> {
        let node = self.cluster.leader_of(topic, partition)?;
        self.cluster.broker_name(node).map(str::to_owned)
    }

    fn shut_down(&mut self, broker: &str) {
        self.cluster.shut_down(self.broker(broker));
    }

    fn has_stopped(&self, broker: &str) -> bool {
        self.cluster.has_stopped(self.broker(broker))
    }

    fn group_is_stable(&self, group: &str) -> bool {
        self.cluster.group_is_stable(group)
    }

    fn last_stable_offsets(&self) -> Option<Offsets> {
        Some(self.cluster.last_stable_offsets())
    }

    fn committed_offsets(&self, group: &str) -> Option<Offsets> {
        Some(self.cluster.committed_offsets(group))
    }

    /// Its cluster ends with it.
    fn close(&mut self) -> Result<(), RunError> {
        Ok(())
    }
}

/// A program that waits for a gate before it begins. Once the gate is open, a restarted host goes right through.
fn behind(gate: &watch::Sender<bool>, program: Program) -> Program {
    let gate = gate.clone();
    context::program(move |context| {
        let (mut gate, program) = (gate.subscribe(), program.clone());
        async move {
            // The sender lives as long as the run; should it be gone, so is the world.
            if gate.wait_for(|open| *open).await.is_ok() {
                program(context).await;
            }
        }
    })
}
