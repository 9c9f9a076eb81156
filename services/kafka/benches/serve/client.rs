//! The client: plain rdkafka, one application thread; librdkafka has its own for each broker.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use rdkafka::{Offset, TopicPartitionList};

/// The topic, which is there before the client.
pub(crate) const TOPIC: &str = "bench";
/// Its partitions.
pub(crate) const PARTITIONS: i32 = 6;

const RECORD: [u8; 64] = [b'x'; 64];
/// Sends between two looks at what came back.
const SENDS_AT_ONCE: u64 = 1_000;
const PATIENCE: Duration = Duration::from_secs(30);

/// Counts what was acknowledged.
#[derive(Default)]
struct Acknowledged(AtomicU64);

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            panic!("a record was not acknowledged: {error}");
        }
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A producer of batches, one of single records, and a consumer that has read all that was sent.
pub(crate) struct Client {
    batches: BaseProducer<Acknowledged>,
    single: BaseProducer<Acknowledged>,
    consumer: BaseConsumer,
}

impl Client {
    pub(crate) fn new(bootstrap: &str) -> Client {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap).set("acks", "all");
        let producer = |config: &ClientConfig| {
            config.create_with_context(Acknowledged::default()).expect("sound properties")
        };
        let batches = producer(config.clone().set("batch.num.messages", "100").set("linger.ms", "5"));
        let single = producer(config.clone().set("linger.ms", "0"));
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", "bench")
            .set("enable.auto.commit", "false")
            // Fetches go on while records lie in the client's queue.
            .set("queued.min.messages", "1000000")
            .create()
            .expect("sound properties");
        let mut partitions = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            let added = partitions.add_partition_offset(TOPIC, partition, Offset::Beginning);
            added.expect("a partition can be read from its beginning");
        }
        consumer.assign(&partitions).expect("partitions can be assigned");
        Client { batches, single, consumer }
    }

    /// Sends so many records, as fast as they are taken, and polls each.
    pub(crate) fn stream(&mut self, count: u64) {
        let acknowledged = || self.batches.context().0.load(Ordering::Relaxed);
        let (before, mut polled) = (acknowledged(), 0);
        for number in 0..count {
            send(&self.batches, number);
            if number % SENDS_AT_ONCE == 0 {
                self.batches.poll(Duration::ZERO);
                polled += self.poll(Duration::ZERO);
            }
        }
        while polled < count {
            let more = self.poll(PATIENCE);
            assert!(more > 0, "{polled} of {count} records came");
            polled += more;
        }
        while acknowledged() < before + count {
            self.batches.poll(PATIENCE);
        }
    }

    /// Sends so many records, each when the one before is acknowledged, and polls them.
    pub(crate) fn one_by_one(&mut self, count: u64) {
        let acknowledged = || self.single.context().0.load(Ordering::Relaxed);
        for number in 0..count {
            let before = acknowledged();
            send(&self.single, number);
            while acknowledged() == before {
                self.single.poll(PATIENCE);
            }
        }
        let mut polled = 0;
        while polled < count {
            let more = self.poll(PATIENCE);
            assert!(more > 0, "{polled} of {count} records came");
            polled += more;
        }
    }

    /// Polls what is there, or waits for the next; how many came.
    fn poll(&self, patience: Duration) -> u64 {
        let mut polled = 0;
        let mut patience = patience;
        while let Some(message) = self.consumer.poll(patience) {
            message.expect("a record, not an error");
            polled += 1;
            patience = Duration::ZERO;
        }
        polled
    }
}

fn send(producer: &BaseProducer<Acknowledged>, number: u64) {
    let partition = (number % PARTITIONS as u64) as i32;
    let mut record = BaseRecord::<(), _>::to(TOPIC).partition(partition).payload(&RECORD[..]);
    loop {
        record = match producer.send(record) {
            Ok(()) => return,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), record)) => record,
            Err((error, _)) => panic!("librdkafka does not take a record: {error}"),
        };
        producer.poll(Duration::from_millis(1));
    }
}
