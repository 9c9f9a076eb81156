//! The hosts of a run, and the nodes of its cluster: started, killed, paused, ended.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use context::real::RealHost;
use context::{Program, Seed};
use harness::RunError;
use harness::stage::Stage as _;
use harness::system::Role;

use super::{RealStage, node_of, stage_error};
use crate::able::Kind;
use crate::inbox::Posting;
use crate::process::Process;
use crate::telegram::Engagement;

/// Clients and sends of each process are numbered from a multiple of this.
const NUMBERS: u64 = 1 << 40;
/// Where outside systems listen in the simulated world, and are looked for by their callers.
const OUTSIDE_PORT: u16 = 80;

/// A host of the run.
pub(super) enum Host {
    /// A process of its own, as long as it runs.
    Process {
        process: Option<Process>,
        incarnation: u64,
        /// It has not yet told what it found in its store (`Telegram::State`).
        is_starting: bool,
        /// How long it and its predecessors were paused, without a pause that goes on.
        paused: Duration,
    },
    /// In this process: what it will run, then its reins.
    Guest { program: Program, role: Option<Role>, started: Option<Arc<RealHost>> },
}

impl Host {
    /// A process that was started, or is to be.
    pub(super) fn started(process: Option<Process>, incarnation: u64, paused: Duration) -> Host {
        Host::Process { process, incarnation, is_starting: true, paused }
    }
}

/// What the run has done to a node of the cluster.
#[derive(Debug, Default)]
pub(super) struct BrokerState {
    pub(super) down: bool,
    pub(super) paused_at: Option<Instant>,
    pub(super) paused: Duration,
    /// It was asked to end, and was neither killed before it had nor started since.
    pub(super) asked_to_end: bool,
}

impl BrokerState {
    /// How long it was paused so far.
    pub(super) fn paused(&self) -> Duration {
        self.paused + self.paused_at.map(|since| since.elapsed()).unwrap_or_default()
    }
}

impl RealStage<'_> {
    fn start_process(&mut self, host: &str, incarnation: u64) -> io::Result<Process> {
        self.processes_started += 1;
        let is_outside = self.kinds.get(host) == Some(&Kind::Outside);
        // An outside system listens where the simulated one does; its callers are told of the real port.
        let ports = self.ports.get(host).filter(|_| is_outside).map(|port| (OUTSIDE_PORT, *port));
        let peers = self.ports.iter().map(|(outside, port)| {
            (outside.clone(), OUTSIDE_PORT, self.grounds.way_outside(host, outside, *port))
        });
        let engaged = Engagement {
            file: self.scenario.file.clone(),
            text: self.scenario.text.clone(),
            seed: self.seed,
            began_us: self.began.as_micros(),
            host: host.to_owned(),
            incarnation,
            bootstrap: self.grounds.bootstrap(host),
            prefix: self.prefix.as_str().to_owned(),
            data: self.data_of(host),
            peers: peers.collect(),
            ports: ports.into_iter().collect(),
            last_number: self.processes_started * NUMBERS,
        };
        Process::start(&self.command, &engaged, &self.inbox)
    }

    fn data_of(&self, host: &str) -> PathBuf {
        self.folder.path().join(host)
    }

    fn start_guest(&self, name: &str, program: &Program) -> Arc<RealHost> {
        let within = self.runtime.enter();
        let recorder = Arc::new(Posting(self.inbox.clone()));
        let (context, host) = RealHost::new(name, Seed(self.seed)).with_recorder(recorder).start();
        context.spawn("program", program(context.clone()));
        drop(within);
        host
    }

    /// Starts what waits for a gate.
    pub(super) fn start_hosts(&mut self, is_due: impl Fn(Option<Role>) -> bool) {
        let names: Vec<String> = self.hosts.keys().cloned().collect();
        for name in names {
            match &self.hosts[&name] {
                Host::Process { process: None, .. } if is_due(Some(Role::Service)) => {
                    let started = self.start_process(&name, 0);
                    let process = self.keep(&format!("starting {name}"), started);
                    self.hosts.insert(name, Host::started(process, 0, Duration::ZERO));
                }
                Host::Guest { program, role, started: None } if is_due(*role) => {
                    let (program, role) = (program.clone(), *role);
                    let started = Some(self.start_guest(&name, &program));
                    self.hosts.insert(name, Host::Guest { program, role, started });
                }
                _ => {}
            }
        }
    }

    pub(super) fn kill(&mut self, host: &str) -> u64 {
        if let Some(node) = node_of(host) {
            let killed = self.kafka().kill(node);
            let killed = self.keep(&format!("killing {host}"), killed).unwrap_or(false);
            let state = self.brokers.get_mut(host).expect("a scenario's brokers are there");
            (state.paused, state.paused_at, state.down) = (state.paused(), None, true);
            // One that was still there has not ended as it was asked to.
            state.asked_to_end &= !killed;
            return u64::from(killed);
        }
        let Some(Host::Process { process, paused, .. }) = self.hosts.get_mut(host) else { return 0 };
        let Some(process) = process.take() else { return 0 };
        let done = process.kill().map(|was_paused| *paused += was_paused);
        u64::from(self.keep(&format!("killing {host}"), done).is_some())
    }

    pub(super) fn restart(&mut self, host: &str) {
        if let Some(node) = node_of(host) {
            let started = self.kafka().restart(node);
            self.keep(&format!("starting {host}"), started);
            let state = self.brokers.get_mut(host).expect("a scenario's brokers are there");
            (state.down, state.asked_to_end) = (false, false);
            return;
        }
        let Some(Host::Process { incarnation, paused, .. }) = self.hosts.get(host) else { return };
        let (incarnation, paused) = (*incarnation + 1, *paused);
        let started = self.start_process(host, incarnation);
        let process = self.keep(&format!("starting {host}"), started);
        self.hosts.insert(host.to_owned(), Host::started(process, incarnation, paused));
    }

    pub(super) fn pause(&mut self, host: &str, on: bool) {
        let what = if on { "pausing" } else { "resuming" };
        // It ended as it was asked to: there is nothing to pause.
        let is_gone = self.has_stopped(host);
        let done = match (node_of(host), self.hosts.get_mut(host)) {
            (Some(node), _) => {
                let kafka = self.grounds.kafka();
                let done = match on {
                    _ if is_gone => Ok(()),
                    true => kafka.pause(node),
                    false => kafka.resume(node),
                };
                let state = self.brokers.get_mut(host).expect("a scenario's brokers are there");
                state.paused = state.paused();
                state.paused_at = (on && !is_gone).then(Instant::now);
                done.map_err(|error| error.to_string())
            }
            (None, Some(Host::Process { process: Some(process), paused, .. })) => {
                let done = if on { process.pause().map(|()| Duration::ZERO) } else { process.resume() };
                done.map(|span| *paused += span).map_err(|error| error.to_string())
            }
            (None, _) => Err("it does not run".to_owned()),
        };
        self.keep(&format!("{what} {host}"), done);
    }

    /// Ends every host, politely where it runs.
    pub(super) fn end_hosts(&mut self) -> Result<(), RunError> {
        let hosts = std::mem::take(&mut self.hosts);
        let (mut processes, mut guests) = (Vec::new(), Vec::new());
        for host in hosts.into_values() {
            match host {
                Host::Process { process, .. } => processes.extend(process),
                Host::Guest { started, .. } => guests.extend(started),
            }
        }
        // Whoever interrupts does not wait for groups in a cluster that ends as well: they are killed where they are dropped.
        if self.interrupt.was_asked() && self.kafka().is_ours() {
            processes.clear();
        }
        for process in &mut processes {
            if process.is_paused() {
                process.resume().map_err(stage_error("resuming a host"))?;
            }
            process.ask_to_end().map_err(stage_error("ending a host"))?;
        }
        for process in processes {
            process.end(|| self.inbox.drain()).map_err(stage_error("ending a host"))?;
        }
        self.runtime.block_on(async {
            for guest in guests {
                guest.stop().await;
            }
        });
        Ok(())
    }
}
