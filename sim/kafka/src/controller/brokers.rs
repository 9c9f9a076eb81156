//! Which brokers live: registrations, heartbeats, sessions, controlled shutdown (`ClusterControlManager`,
//! `BrokerHeartbeatManager`, `BrokerHeartbeatTracker`).
//!
//! - A session lasts `broker.session.timeout.ms` from the last heartbeat of a registration, a fenced broker's too. While
//!   it does, no other process of the broker may register, even after a clean shutdown.
//! - Sessions that are over are noticed when Kafka's periodic task looks: each eighth of the timeout.
//! - A broker that registers with the epoch of the registration before it as its `previous_broker_epoch` was shut down
//!   cleanly. Otherwise, with eligible leader replicas on, it is in sync and eligible nowhere.
//! - A broker that wants to shut down leads no more, and may go when every active broker has learnt that.

use std::collections::BTreeMap;

use context::Timestamp;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{
    BrokerHeartbeatRequest, BrokerHeartbeatResponse, BrokerRegistrationRequest, BrokerRegistrationResponse,
};

use super::partitions::Shift;
use super::{Controller, ControllerDisk, Output, Timer};
use crate::CLUSTER_ID;
use crate::config::millis;
use crate::metadata::{BrokerImage, MetadataRecord, NodeId};

/// Kafka looks for sessions that are over so many times in the length of one.
const CHECKS_PER_SESSION: u32 = 8;

/// What the controller remembers of a registered broker, and forgets when it fails.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard {
    /// The last heartbeat; `None` before the first.
    at: Option<Timestamp>,
    /// How far it had applied the metadata log.
    metadata_offset: i64,
    /// It is shutting down, and may go when all active brokers have applied this.
    shutdown_offset: Option<i64>,
}

impl Default for Heard {
    fn default() -> Heard {
        Heard { at: None, metadata_offset: -1, shutdown_offset: None }
    }
}

/// What a heartbeat makes of a broker (`BrokerControlState`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fenced,
    Unfenced,
    ControlledShutdown,
    ShutdownNow,
}

impl Controller {
    pub(super) fn register(
        &mut self,
        now: Timestamp,
        request: &BrokerRegistrationRequest,
        disk: &mut ControllerDisk,
        out: &mut Vec<Output>,
    ) -> BrokerRegistrationResponse {
        let node = request.broker_id.0;
        let refuse = |error: ResponseError| {
            BrokerRegistrationResponse::default().with_error_code(error.code()).with_broker_epoch(-1)
        };
        if request.cluster_id.as_str() != CLUSTER_ID {
            return refuse(ResponseError::InconsistentClusterId);
        }
        let Some(listener) = request.listeners.first().filter(|_| !request.log_dirs.is_empty()) else {
            return refuse(ResponseError::InvalidRegistration);
        };
        let existing = self.image.brokers.get(&node);
        if let Some(existing) = existing {
            if existing.incarnation == request.incarnation_id {
                return BrokerRegistrationResponse::default().with_broker_epoch(existing.epoch);
            }
            if self.has_valid_session(now, node) {
                // It tries again every few seconds: one line is enough.
                if self.refused.insert(node, request.incarnation_id) != Some(request.incarnation_id) {
                    out.push(Output::Note(format!(
                        "broker {node} may not register: its last session is still valid"
                    )));
                }
                return refuse(ResponseError::DuplicateBrokerRegistration);
            }
        }
        let clean = existing.is_some_and(|existing| existing.epoch == request.previous_broker_epoch);
        let known = existing.is_some();
        let epoch = disk.log.end_offset();
        let unclean = !clean && self.elr_enabled();
        let mut records = self.shift(node, if unclean { Shift::UncleanShutdown } else { Shift::Leaves });
        self.note_leaders(&records, out);
        records.push(MetadataRecord::RegisterBroker {
            node,
            epoch: epoch + records.len() as i64,
            incarnation: request.incarnation_id,
            host: listener.host.to_string(),
            port: listener.port,
            rack: request.rack.as_ref().map(|rack| rack.to_string()),
        });
        let epoch = epoch + records.len() as i64 - 1;
        self.append(now, disk, records);
        self.heard.insert(node, Heard::default());
        let how = match (known, clean) {
            (false, _) => "",
            (true, true) => ", after a clean shutdown",
            (true, false) => ", after an unclean shutdown",
        };
        out.push(Output::Note(format!("broker {node} is registered with epoch {epoch}{how}")));
        self.plan_elections(now);
        BrokerRegistrationResponse::default().with_broker_epoch(epoch)
    }

    pub(super) fn heartbeat(
        &mut self,
        now: Timestamp,
        request: &BrokerHeartbeatRequest,
        disk: &mut ControllerDisk,
        out: &mut Vec<Output>,
    ) -> BrokerHeartbeatResponse {
        let node = request.broker_id.0;
        let broker = match self.known(node, request.broker_epoch) {
            Ok(broker) => broker,
            Err(error) => return BrokerHeartbeatResponse::default().with_error_code(error.code()),
        };
        let caught_up = request.current_metadata_offset >= broker.epoch;
        let before = self.state(node, broker);
        let after = self.next_state(node, before, request, caught_up);
        self.heard.entry(node).or_default().at = Some(now);
        if before != after {
            match after {
                State::Unfenced => self.unfence(now, node, disk, out),
                State::Fenced | State::ShutdownNow => self.fence(now, node, "as it wants", disk, out),
                State::ControlledShutdown => self.begin_shutdown(now, node, disk, out),
            }
        }
        let heard = self.heard.get_mut(&node).expect("it was just heard of");
        heard.metadata_offset = request.current_metadata_offset;
        match after {
            State::ControlledShutdown => {
                heard.shutdown_offset.get_or_insert(disk.log.end_offset() - 1);
            }
            State::Fenced | State::ShutdownNow => heard.shutdown_offset = None,
            State::Unfenced => {}
        }
        self.watch_sessions(now);
        BrokerHeartbeatResponse::default()
            .with_is_caught_up(caught_up)
            .with_is_fenced(matches!(after, State::Fenced | State::ShutdownNow))
            .with_should_shut_down(after == State::ShutdownNow)
    }

    fn state(&self, node: NodeId, broker: &BrokerImage) -> State {
        let shutting_down = self.heard.get(&node).is_some_and(|heard| heard.shutdown_offset.is_some());
        match (shutting_down, broker.fenced) {
            (true, _) => State::ControlledShutdown,
            (false, true) => State::Fenced,
            (false, false) => State::Unfenced,
        }
    }

    /// `BrokerHeartbeatManager.calculateNextBrokerState`.
    fn next_state(
        &self,
        node: NodeId,
        before: State,
        request: &BrokerHeartbeatRequest,
        caught_up: bool,
    ) -> State {
        match before {
            State::Fenced if request.want_shut_down => State::ShutdownNow,
            State::Fenced if !request.want_fence && caught_up => State::Unfenced,
            State::Fenced => State::Fenced,
            State::Unfenced if request.want_fence && request.want_shut_down => State::ShutdownNow,
            State::Unfenced if request.want_fence => State::Fenced,
            State::Unfenced if request.want_shut_down && self.leads_any(node) => State::ControlledShutdown,
            State::Unfenced if request.want_shut_down => State::ShutdownNow,
            State::Unfenced => State::Unfenced,
            State::ControlledShutdown if self.leads_any(node) => State::ControlledShutdown,
            State::ControlledShutdown => {
                let shutdown_offset = self.heard[&node].shutdown_offset.expect("it is shutting down");
                let known_to_all = self.lowest_active_offset().is_none_or(|lowest| shutdown_offset <= lowest);
                if known_to_all { State::ShutdownNow } else { State::ControlledShutdown }
            }
            State::ShutdownNow => State::ShutdownNow,
        }
    }

    /// How far every broker that is neither fenced nor shutting down has applied the log; `None` if there is none.
    fn lowest_active_offset(&self) -> Option<i64> {
        let heard = self.heard.iter().filter(|(_, heard)| heard.shutdown_offset.is_none());
        let active =
            heard.filter(|(node, _)| self.image.brokers.get(node).is_some_and(|broker| !broker.fenced));
        active.map(|(_, heard)| heard.metadata_offset).min()
    }

    /// A broker by the epoch of its registration.
    pub(super) fn known(&self, node: NodeId, epoch: i64) -> Result<&BrokerImage, ResponseError> {
        let broker = self.image.brokers.get(&node).ok_or(ResponseError::BrokerIdNotRegistered)?;
        if broker.epoch == epoch { Ok(broker) } else { Err(ResponseError::StaleBrokerEpoch) }
    }

    /// A controller that becomes active gives every unfenced broker a whole session.
    pub(super) fn renew_sessions(&mut self, now: Timestamp) {
        let heard = |(&node, broker): (&NodeId, &BrokerImage)| {
            (node, Heard { at: (!broker.fenced).then_some(now), ..Heard::default() })
        };
        self.heard = self.image.brokers.iter().map(heard).collect::<BTreeMap<_, _>>();
        self.watch_sessions(now);
    }

    fn has_valid_session(&self, now: Timestamp, node: NodeId) -> bool {
        let at = self.heard.get(&node).and_then(|heard| heard.at);
        at.is_some_and(|at| now <= at + millis(self.settings.broker_session_timeout_ms))
    }

    /// When the first session that now holds would be found to be over.
    fn watch_sessions(&mut self, now: Timestamp) {
        if self.planned.sessions {
            return;
        }
        let unfenced = |node: &NodeId| self.image.brokers.get(node).is_some_and(|broker| !broker.fenced);
        let heard = self.heard.iter().filter(|(node, _)| unfenced(node)).filter_map(|(_, heard)| heard.at);
        let Some(first) = heard.min() else { return };
        let timeout = millis(self.settings.broker_session_timeout_ms);
        let interval = timeout / CHECKS_PER_SESSION;
        self.planned.sessions = true;
        self.timers.set(self.next_tick((first + timeout).max(now), interval), Timer::Sessions);
    }

    pub(super) fn sessions_due(&mut self, now: Timestamp, disk: &mut ControllerDisk, out: &mut Vec<Output>) {
        self.planned.sessions = false;
        let live: Vec<NodeId> = self.image.live_brokers().map(|(node, _)| node).collect();
        for node in live {
            if !self.has_valid_session(now, node) {
                let heard = self.heard.entry(node).or_default();
                (heard.at, heard.shutdown_offset) = (None, None);
                let timeout = self.settings.broker_session_timeout_ms;
                self.fence(now, node, &format!("not heard of for {timeout} ms"), disk, out);
            }
        }
        self.watch_sessions(now);
    }

    fn fence(
        &mut self,
        now: Timestamp,
        node: NodeId,
        why: &str,
        disk: &mut ControllerDisk,
        out: &mut Vec<Output>,
    ) {
        if self.image.brokers[&node].fenced {
            return;
        }
        out.push(Output::Note(format!("broker {node} is fenced: {why}")));
        let mut records = self.shift(node, Shift::Leaves);
        self.note_leaders(&records, out);
        records.push(MetadataRecord::BrokerChange {
            node,
            fenced: Some(true),
            in_controlled_shutdown: false,
        });
        self.append(now, disk, records);
        self.plan_elections(now);
    }

    fn unfence(&mut self, now: Timestamp, node: NodeId, disk: &mut ControllerDisk, out: &mut Vec<Output>) {
        out.push(Output::Note(format!("broker {node} is unfenced")));
        let mut records =
            vec![MetadataRecord::BrokerChange { node, fenced: Some(false), in_controlled_shutdown: false }];
        records.extend(self.shift(node, Shift::Joins));
        self.note_leaders(&records, out);
        self.append(now, disk, records);
        self.plan_elections(now);
    }

    fn begin_shutdown(
        &mut self,
        now: Timestamp,
        node: NodeId,
        disk: &mut ControllerDisk,
        out: &mut Vec<Output>,
    ) {
        out.push(Output::Note(format!("broker {node} is in controlled shutdown")));
        let mut records = Vec::new();
        if !self.image.brokers[&node].in_controlled_shutdown {
            let fenced = None;
            records.push(MetadataRecord::BrokerChange { node, fenced, in_controlled_shutdown: true });
        }
        records.extend(self.shift(node, Shift::Leaves));
        self.note_leaders(&records, out);
        if !records.is_empty() {
            self.append(now, disk, records);
        }
        self.plan_elections(now);
    }
}
