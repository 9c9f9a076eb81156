//! What clients say of themselves every `statistics.interval.ms`: how far a consumer lags, what lies in queues, how long
//! brokers take to answer.
//!
//! The figures are librdkafka's own (its STATISTICS.md), but for a consumer's lag. See `lag` for why.
//!
//! Absent: what is done with them. `services/run` shows them to Prometheus.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker::{Offset, TopicPartition};
use context::Timestamp;
use rdkafka::statistics::{Broker, Partition, Statistics as Said};

/// The property that switches statistics on: milliseconds from one to the next; librdkafka's default, 0, means none.
pub(crate) const INTERVAL: &str = "statistics.interval.ms";

/// What the clients of an [`RdKafkaBroker`](crate::RdKafkaBroker) said last. Cheap to clone: clones show the same clients.
#[derive(Clone, Debug, Default)]
pub struct Statistics(Arc<Mutex<Clients>>);

#[derive(Debug, Default)]
struct Clients {
    made: u64,
    /// In the order in which they were made; `None` until they have spoken.
    said: BTreeMap<u64, Option<ClientStatistics>>,
}

/// One client, until it is closed or dropped.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientStatistics {
    /// librdkafka's name for it, unique in a process: `order#consumer-3`. Its first part is `client.id`.
    pub client: String,
    /// `group.id` of a consumer that has one.
    pub group: Option<String>,
    /// When it said this, in whole seconds. A consumer speaks only while it is polled.
    pub taken_at: Timestamp,
    /// What it is.
    pub kind: ClientKind,
    /// Of a producer: what it has taken and nobody has acknowledged, in its queue or on its way. Of a consumer: what it has
    /// fetched and not handed over, of all partitions.
    pub queue: Queue,
    /// The brokers it knows, and the coordinators it speaks to on connections of their own.
    pub brokers: Vec<BrokerStatistics>,
    /// The partitions that a consumer holds.
    pub partitions: Vec<PartitionStatistics>,
}

/// The kinds of clients that speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientKind {
    /// It sends.
    Producer,
    /// It reads.
    Consumer,
}

/// Records that wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    /// How many.
    pub records: u64,
    /// Their size, as librdkafka counts it.
    pub bytes: u64,
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerStatistics {
    /// The broker's node id.
    pub node_id: i32,
    /// Whether this is the connection to it as coordinator of the group or the transactional id.
    pub coordinator: bool,
    /// Whether it is connected.
    pub up: bool,
    /// Requests that wait to be sent.
    pub requests_waiting: u64,
    /// Requests that wait for their answers.
    pub requests_in_flight: u64,
    /// From request to answer, since the statistics before; `None` without an answer meanwhile. A fetch is answered when there
    /// is something to read, or after `fetch.wait.max.ms`; so of a consumer that has read everything this is mostly waiting.
    pub round_trip: Option<RoundTrip>,
}

/// How long answers took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundTrip {
    /// The mean.
    pub mean: Duration,
    /// Half took no longer.
    pub p50: Duration,
    /// 99 of 100 took no longer.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

/// A partition that a consumer holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionStatistics {
    /// Which.
    pub partition: TopicPartition,
    /// The offset after the last record that was handed over, or where reading starts; `None` while that is not known.
    pub position: Option<Offset>,
    /// The group's committed offset, as this consumer found it or committed it itself.
    pub committed: Option<Offset>,
    /// Where reading ends for now: the high watermark, or the last stable offset with `isolation.level=read_committed`.
    pub end: Option<Offset>,
}

impl PartitionStatistics {
    /// Offsets that were not read yet, as the `records-lag` of Java's consumer: those that hold no record for readers (markers of
    /// transactions, compacted ones) count.
    pub fn lag(&self) -> Option<u64> {
        self.behind(self.position?)
    }

    /// Offsets beyond the committed one: the lag of Kafka's tool `kafka-consumer-groups`.
    pub fn committed_lag(&self) -> Option<u64> {
        self.behind(self.committed?)
    }

    /// The end may be older than the position: a broker that did not answer.
    fn behind(&self, offset: Offset) -> Option<u64> {
        Some(u64::try_from(self.end? - offset).unwrap_or(0))
    }
}

impl Statistics {
    /// What each client said last, in the order in which they were made. Empty unless `statistics.interval.ms` is set.
    pub fn clients(&self) -> Vec<ClientStatistics> {
        self.lock().said.values().flatten().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Clients> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for what a new client says.
    pub(crate) fn register(&self) -> Registered {
        let mut clients = self.lock();
        clients.made += 1;
        let number = clients.made;
        clients.said.insert(number, None);
        drop(clients);
        Registered(Place { all: self.clone(), number })
    }
}

/// Where a client's statistics go, for as long as it is [`Registered`].
#[derive(Clone, Debug)]
pub(crate) struct Place {
    all: Statistics,
    number: u64,
}

impl Place {
    pub(crate) fn put(&self, said: ClientStatistics) {
        // A client that has ended may have said it before.
        if let Some(place) = self.all.lock().said.get_mut(&self.number) {
            *place = Some(said);
        }
    }
}

/// A client that can be seen in the statistics until this is dropped.
#[derive(Debug)]
pub(crate) struct Registered(Place);

impl Registered {
    pub(crate) fn place(&self) -> Place {
        self.0.clone()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.0.all.lock().said.remove(&self.0.number);
    }
}

/// What librdkafka says of a producer.
pub(crate) fn producer(said: &Said) -> ClientStatistics {
    let queue = Queue { records: said.msg_cnt, bytes: said.msg_size };
    client(said, ClientKind::Producer, queue)
}

/// What librdkafka says of a consumer. Its partitions' queues are one, that of the consumer, and each tells of all of it.
pub(crate) fn consumer(said: &Said, group: Option<String>) -> ClientStatistics {
    let of_topics = said.topics.values().flat_map(|topic| topic.partitions.values());
    let queues = of_topics.filter(|at| at.desired);
    let queues = queues.map(|at| Queue { records: count(at.fetchq_cnt), bytes: at.fetchq_size });
    let queue = queues.max_by_key(|queue| queue.records).unwrap_or_default();
    ClientStatistics { group, ..client(said, ClientKind::Consumer, queue) }
}

fn client(said: &Said, kind: ClientKind, queue: Queue) -> ClientStatistics {
    let mut brokers: Vec<_> =
        said.brokers.values().filter_map(|one| Some(broker(node_id(said, one)?, one))).collect();
    brokers.sort_by_key(|broker| (broker.node_id, broker.coordinator));
    ClientStatistics {
        client: said.name.clone(),
        group: None,
        taken_at: Timestamp::from_millis(count(said.time) * 1_000),
        kind,
        queue,
        brokers,
        partitions: Vec::new(),
    }
}

/// The node behind a connection. Those to coordinators carry no id, but the node's address. Bootstrap addresses have no node
/// behind them yet, or it is listed under its id as well.
fn node_id(said: &Said, of: &Broker) -> Option<i32> {
    let known = |one: &&Broker| one.nodeid >= 0 && one.nodename == of.nodename;
    match of.nodeid {
        id @ 0.. => Some(id),
        _ if is_coordinator(of) => said.brokers.values().find(known).map(|one| one.nodeid),
        _ => None,
    }
}

fn is_coordinator(said: &Broker) -> bool {
    said.source == "logical"
}

fn broker(node_id: i32, said: &Broker) -> BrokerStatistics {
    let window = said.rtt.as_ref().filter(|window| window.cnt > 0);
    BrokerStatistics {
        node_id,
        coordinator: is_coordinator(said),
        up: said.state == "UP" || said.state == "UPDATE",
        requests_waiting: count(said.outbuf_cnt),
        requests_in_flight: count(said.waitresp_cnt),
        round_trip: window.map(|window| RoundTrip {
            mean: micros(window.avg),
            p50: micros(window.p50),
            p99: micros(window.p99),
            max: micros(window.max),
        }),
    }
}

/// What librdkafka says of a partition.
pub(crate) fn partition<'a>(said: &'a Said, at: &TopicPartition) -> Option<&'a Partition> {
    said.topics.get(&*at.topic)?.partitions.get(&at.partition)
}

/// An offset, or none for librdkafka's negative numbers, which are no offsets.
pub(crate) fn offset(said: i64) -> Option<Offset> {
    (said >= 0).then_some(said)
}

fn count(said: i64) -> u64 {
    u64::try_from(said).unwrap_or(0)
}

fn micros(said: i64) -> Duration {
    Duration::from_micros(count(said))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(
        position: Option<Offset>,
        committed: Option<Offset>,
        end: Option<Offset>,
    ) -> PartitionStatistics {
        let partition = TopicPartition::new("t", 0);
        PartitionStatistics { partition, position, committed, end }
    }

    #[test]
    fn lag_is_known_when_both_of_its_ends_are_and_is_never_negative() {
        let known = partition(Some(7), Some(5), Some(10));
        assert_eq!((known.lag(), known.committed_lag()), (Some(3), Some(5)));
        assert_eq!(partition(Some(7), None, None).lag(), None);
        assert_eq!(partition(None, None, Some(10)).lag(), None);
        assert_eq!(
            partition(Some(12), None, Some(10)).lag(),
            Some(0),
            "the end was learned before the position"
        );
    }

    #[test]
    fn a_client_that_has_ended_is_seen_no_more_whatever_it_still_says() {
        let all = Statistics::default();
        let (one, other) = (all.register(), all.register());
        let say = |place: &Place, name: &str| {
            let said = Said { name: name.into(), ..Said::default() };
            place.put(producer(&said));
        };
        assert_eq!(all.clients(), [], "nobody has spoken yet");
        say(&other.place(), "other");
        say(&one.place(), "one");
        let names = || all.clients().into_iter().map(|client| client.client).collect::<Vec<_>>();
        assert_eq!(names(), ["one", "other"]);
        let late = one.place();
        drop(one);
        say(&late, "one");
        assert_eq!(names(), ["other"]);
    }
}
