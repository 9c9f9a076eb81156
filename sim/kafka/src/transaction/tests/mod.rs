//! The coordinator on a bench of its own: its log is a list, its appends are committed when a test says so, and the
//! leaders of partitions answer their markers as they are told.

mod end;
mod errors;
mod init;
mod markers;
mod random;
mod time;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use kafka_protocol::ResponseError;

use super::*;
use crate::metadata::NodeId;

const ID: &str = "payment-1";
const TIMEOUT_MS: i32 = 60_000;

type Answer = Result<Producer, ResponseError>;

struct Rig {
    core: Coordinator,
    version: TransactionVersion,
    now: i64,
    epoch: i32,
    log: Vec<(Option<Bytes>, Option<Bytes>)>,
    /// Appends wait here while `holding`.
    holding: bool,
    held: Vec<Append>,
    /// How appends end.
    failing: Option<ResponseError>,
    answers: BTreeMap<Ticket, Answer>,
    next_ticket: u64,
    wakes: BTreeSet<(i64, Timer)>,
    /// Where partitions are led; a partition that is not here is led by broker 1.
    leaders: BTreeMap<TopicPartition, Leader>,
    /// Markers wait here while `marking` is off.
    marking: bool,
    sent: Vec<(NodeId, Vec<Marker>)>,
    /// Every marker that was written.
    written: Vec<Marker>,
    next_block: i64,
}

fn partition(index: i32) -> TopicPartition {
    ("orders".to_owned(), index)
}

impl Rig {
    fn new(version: i16) -> Rig {
        let version = TransactionVersion(version);
        let mut rig = Rig {
            core: Rig::fresh(version),
            version,
            now: 1_000_000,
            epoch: 0,
            log: Vec::new(),
            holding: false,
            held: Vec::new(),
            failing: None,
            answers: BTreeMap::new(),
            next_ticket: 0,
            wakes: BTreeSet::new(),
            leaders: BTreeMap::new(),
            marking: true,
            sent: Vec::new(),
            written: Vec::new(),
            next_block: 1_000,
        };
        rig.core.start(rig.now);
        rig.fail_over();
        rig
    }

    fn fresh(version: TransactionVersion) -> Coordinator {
        Coordinator::new(TransactionSettings {
            version,
            max_timeout_ms: 900_000,
            abort_interval_ms: 10_000,
            expiration_ms: 604_800_000,
            expiration_interval_ms: 3_600_000,
            request_timeout_ms: 30_000,
        })
    }

    /// Another broker takes over: a new coordinator with what the log holds. Appends under way are lost or were committed,
    /// as `held` was dealt with before.
    fn fail_over(&mut self) {
        self.epoch += 1;
        self.core = Rig::fresh(self.version);
        self.core.start(self.now);
        self.held.clear();
        self.sent.clear();
        self.wakes.clear();
        self.refill();
        self.core.begin_load(0, 1, self.epoch);
        let records: Vec<_> = self
            .log
            .iter()
            .map(|(key, value)| TransactionRecord::decode(key.clone(), value.clone()).unwrap())
            .collect();
        let epoch = self.epoch;
        self.ask(|core, now, out| _ = core.finish_load(now, 0, epoch, records.into_iter(), out));
    }

    /// Producer ids come from the controller, a block at a time.
    fn refill(&mut self) {
        _ = self.core.producer_ids.generate(self.now);
        if self.core.producer_ids.wants_block() {
            self.core.producer_ids.block_came(self.now, Some(self.next_block..self.next_block + 1_000));
            self.next_block += 1_000;
        }
    }

    fn ask(&mut self, ask: impl FnOnce(&mut Coordinator, i64, &mut Vec<Effect>)) {
        let mut effects = Vec::new();
        ask(&mut self.core, self.now, &mut effects);
        self.do_effects(effects);
        self.settle();
    }

    fn settle(&mut self) {
        loop {
            if self.core.has_unrouted_markers() {
                let mut effects = Vec::new();
                let leaders = &self.leaders;
                let leader_of = |of: &TopicPartition| leaders.get(of).copied().unwrap_or(Leader::At(1));
                self.core.route_markers(leader_of, &mut effects);
                self.do_effects(effects);
            }
            for node in self.core.marker_destinations() {
                let markers = self.core.next_markers(node);
                self.sent.push((node, markers));
            }
            if !self.marking || self.sent.is_empty() {
                return;
            }
            self.answer_markers(|_, _| Ok(()));
        }
    }

    /// Answers all markers that were sent.
    fn answer_markers(&mut self, answer: impl Fn(NodeId, &TopicPartition) -> Result<(), ResponseError>) {
        for (node, markers) in std::mem::take(&mut self.sent) {
            let result = |marker: &Marker| {
                let each = marker.partitions.iter().map(|of| (of.clone(), answer(node, of)));
                (marker.producer.id, each.collect::<Vec<_>>())
            };
            let results: Vec<MarkerResult> = markers.iter().map(result).collect();
            self.written.extend(markers);
            let mut effects = Vec::new();
            self.core.markers_answered(self.now, node, Some(&results), &mut effects);
            self.do_effects(effects);
        }
    }

    fn do_effects(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Append(append) if self.holding => self.held.push(append),
                Effect::Append(append) => self.end_append(append),
                Effect::Answer { ticket, result } => {
                    assert!(self.answers.insert(ticket, result).is_none(), "answered twice");
                }
                Effect::Wake { timer, at_ms } => {
                    assert!(at_ms > self.now, "woken in the past");
                    self.wakes.insert((at_ms, timer));
                }
                Effect::Note(_) => {}
            }
        }
    }

    fn end_append(&mut self, append: Append) {
        let result = match self.failing {
            Some(error) => Err(error),
            None => Ok(()),
        };
        if result.is_ok() {
            self.log.extend(append.records().iter().map(|record| record.encode(self.version)));
        }
        let mut effects = Vec::new();
        self.core.appended(self.now, append, result, &mut effects);
        self.do_effects(effects);
    }

    /// What was held is committed, or fails.
    fn release(&mut self) {
        self.holding = false;
        for append in std::mem::take(&mut self.held) {
            self.end_append(append);
        }
        self.settle();
    }

    /// Moves time on, and does what falls due.
    fn advance(&mut self, ms: i64) {
        let until = self.now + ms;
        while let Some(&(at, timer)) = self.wakes.first().filter(|(at, _)| *at <= until) {
            self.wakes.remove(&(at, timer));
            self.now = at;
            self.ask(|core, now, out| match timer {
                Timer::AbortTimedOut => core.abort_timed_out(now, out),
                Timer::RemoveExpired => core.expire(now, out),
                Timer::RetryMarkers => core.retry_markers(true),
                Timer::RetryAppends => core.retry_appends(out),
            });
        }
        self.now = until;
    }

    fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    /// The answer, which must be there.
    fn answer(&mut self, ticket: Ticket) -> Answer {
        self.answers.remove(&ticket).expect("an answer")
    }

    fn begin_init(&mut self, expected: Option<Producer>) -> Ticket {
        let ticket = self.ticket();
        let request = InitRequest { id: ID.to_owned(), timeout_ms: TIMEOUT_MS, expected };
        self.ask(|core, now, out| core.init_producer_id(now, request, ticket, out));
        ticket
    }

    fn init(&mut self) -> Answer {
        let ticket = self.begin_init(None);
        self.answer(ticket)
    }

    /// A producer that goes on after an error.
    fn resume(&mut self, expected: Producer) -> Answer {
        let ticket = self.begin_init(Some(expected));
        self.answer(ticket)
    }

    /// A producer, which has to come again while its predecessor's transaction is aborted.
    fn producer(&mut self) -> Producer {
        match self.init() {
            Err(ResponseError::ConcurrentTransactions) => self.init().unwrap(),
            answer => answer.unwrap(),
        }
    }

    fn begin_add(&mut self, producer: Producer, indexes: &[i32]) -> Ticket {
        let ticket = self.ticket();
        let partitions = indexes.iter().copied().map(partition).collect();
        let request = Added { id: ID.to_owned(), producer, partitions, version: self.client_version() };
        self.ask(|core, now, out| core.add_partitions(now, request, ticket, out));
        ticket
    }

    fn add(&mut self, producer: Producer, indexes: &[i32]) -> Result<(), ResponseError> {
        let ticket = self.begin_add(producer, indexes);
        self.answer(ticket).map(|_| ())
    }

    fn begin_end(&mut self, producer: Producer, commit: bool) -> Ticket {
        let ticket = self.ticket();
        let request = EndRequest { id: ID.to_owned(), producer, commit, version: self.client_version() };
        self.ask(|core, now, out| core.end(now, request, ticket, out));
        ticket
    }

    fn end(&mut self, producer: Producer, commit: bool) -> Answer {
        let ticket = self.begin_end(producer, commit);
        self.answer(ticket)
    }

    /// The rules that a client of this cluster follows.
    fn client_version(&self) -> TransactionVersion {
        if self.version.bumps_epoch() { TransactionVersion::TV_2 } else { TransactionVersion::TV_0 }
    }

    fn current(&self) -> &Transit {
        self.core.transaction(ID).expect("the id is known").current()
    }

    fn state(&self) -> TransactionState {
        self.current().state
    }

    /// Puts the id where a test wants it.
    fn place(&mut self, change: impl FnOnce(&mut TransactionMetadata)) {
        change(self.core.led.get_mut(&0).unwrap().transactions.get_mut(ID).unwrap());
    }
}

fn at(id: i64, epoch: i16) -> Producer {
    Producer { id, epoch }
}
