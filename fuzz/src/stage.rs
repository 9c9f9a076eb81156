//! A small cluster with something of everything: what inputs name exists, and is as `requests` tells of it.
//!
//! Every input has a fresh stage, so that a finding needs nothing but its bytes. To make one takes longer than most inputs
//! do, so it is kept as long as no frame was understood: what is no request leaves no trace in a core.

use std::cell::RefCell;

use bytes::Bytes;
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest};
use shakedown_kafka::core::ConnectionId;
use shakedown_kafka::transaction::Producer;
use shakedown_kafka::wire::{Request, Unreadable};
use uuid::Uuid;

use crate::support::verbs::{batch, idempotent};
use crate::support::{Bench, Host, Reply};
use crate::{Listener, expect};

/// A topic of two partitions, with records of all kinds and an open transaction in the first.
pub(crate) const TOPIC: &str = "t";
/// A compacted topic.
pub(crate) const COMPACTED: &str = "c";
/// A group with one member.
pub(crate) const GROUP: &str = "g";
/// A transactional id whose transaction is open.
pub(crate) const TRANSACTION: &str = "x";
/// How long an input has its effects: heartbeats, upkeep, sessions and rebalances fall into it.
const AFTERMATH_MS: u64 = 20_000;
/// The bench remembers each frame: so many may leave no trace.
const FRAMES_MAX: u32 = 1_000;

/// What requests must know to be heard.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) topic_id: Uuid,
    pub(crate) broker_epoch: i64,
    pub(crate) member: String,
    pub(crate) generation: i32,
    /// A producer without transactions, and the one of [`TRANSACTION`].
    pub(crate) idempotent: (i64, i16),
    pub(crate) transactional: Producer,
}

pub(crate) struct Stage {
    bench: Bench,
    pub(crate) known: Known,
    frames: u32,
}

thread_local! {
    static KEPT: RefCell<Option<Stage>> = const { RefCell::new(None) };
}

/// Sends frames one after the other, lets time pass, and asks the broker whether it is well.
pub(crate) fn on_stage(listener: Listener, frames: &[Bytes]) {
    KEPT.with_borrow_mut(|kept| {
        let stage = kept.get_or_insert_with(Stage::new);
        let mut has_changed = false;
        for frame in frames {
            has_changed |= stage.send(listener, frame);
        }
        if has_changed {
            stage.bench.advance(AFTERMATH_MS);
        }
        stage.bench.ask(1, ApiKey::ApiVersions, 0, ApiVersionsRequest::default());
        if has_changed || stage.frames > FRAMES_MAX {
            *kept = None;
        }
    });
}

impl Stage {
    /// # Panics
    /// If the cluster does not do as it is asked: an ordinary bug, which the tests of `sim/kafka` show better.
    pub(crate) fn new() -> Stage {
        let mut bench = Bench::new(
            1,
            &[
                ("offsets.topic.num.partitions", "1"),
                ("transaction.state.log.num.partitions", "1"),
                ("group.initial.rebalance.delay.ms", "0"),
            ],
        );
        assert_eq!(bench.create_topic(TOPIC, 2, &[]), 0);
        assert_eq!(bench.create_topic(COMPACTED, 1, &[("cleanup.policy", "compact")]), 0);
        assert_eq!(bench.produce(1, TOPIC, 0, batch(&["a", "b"])).0, 0);
        let idempotent_producer = bench.producer_id(1);
        let (id, epoch) = idempotent_producer;
        assert_eq!(bench.produce(1, TOPIC, 0, idempotent(&["c"], id, epoch, 0)).0, 0);

        let coordinator = bench.coordinator(GROUP);
        let (member, joining) = bench.join(coordinator, GROUP);
        bench.advance(10);
        let generation = expect!(JoinGroup, bench.response(joining)).generation_id;
        let syncing = bench.sync(coordinator, GROUP, &member, generation, &[(&member, "all")]);
        assert_eq!(expect!(SyncGroup, bench.response(syncing)).error_code, 0);
        assert_eq!(bench.commit(coordinator, GROUP, &member, generation, (TOPIC, 0, 1)), 0);

        let (coordinator, transactional) = bench.transactional_producer(TRANSACTION);
        assert_eq!(bench.add_to_transaction(coordinator, TRANSACTION, transactional, TOPIC, &[0]), 0);
        let part = crate::support::transactions::transactional(&["d"], transactional, 0);
        assert_eq!(bench.produce_in(1, 11, (TRANSACTION, TOPIC, 0), part).0, 0);

        let image = bench.image();
        let topic_id = image.partition_of(TOPIC, 0).expect("it was just made").0.topic;
        let broker_epoch = image.brokers[&1].epoch;
        let known = Known {
            topic_id,
            broker_epoch,
            member,
            generation,
            idempotent: idempotent_producer,
            transactional,
        };
        Stage { bench, known, frames: 0 }
    }

    /// Whether a frame was understood, and so may have changed something. One that was not must be refused at once.
    fn send(&mut self, listener: Listener, frame: &Bytes) -> bool {
        self.frames += 1;
        let short = |at: usize| frame.get(at..at + 2).map_or(0, |two| i16::from_be_bytes([two[0], two[1]]));
        let (key, version) = (short(0), short(2));
        let served = listener.served(key);
        let version = match served {
            Some(served) if (served.from..=served.to).contains(&version) => version,
            // Of ApiVersions too new a version is answered in version 0; nothing else that is not served is answered.
            _ => 0,
        };
        let asked = (served.map_or(ApiKey::ApiVersions, |served| served.api), version);
        let host = match listener {
            Listener::Broker => Host::Broker(1),
            Listener::Controller => Host::Controller,
        };
        let connection = self.bench.send_bytes_to(host, asked, frame.clone());
        match Request::read(frame, listener.apis()) {
            Ok(_) => {
                self.bench.advance(50);
                true
            }
            Err(refused) => {
                self.must_refuse(listener, connection, &refused);
                false
            }
        }
    }

    fn must_refuse(&mut self, listener: Listener, connection: ConnectionId, refused: &Unreadable) {
        let answered =
            listener == Listener::Broker && matches!(refused, Unreadable::UnknownApiVersions { .. });
        match self.bench.reply(connection) {
            Some(Reply::Response(_)) if answered => {}
            Some(Reply::Closed(_)) if !answered => {}
            other => panic!("{refused:?} was answered with {other:?}"),
        }
    }
}
