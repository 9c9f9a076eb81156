//! The client: plain rdkafka, with one application thread that sends and polls, and one that hears of acknowledgements;
//! librdkafka has its own for each broker.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};

use crate::support::acknowledged::{Acknowledged, all_partitions};
use crate::support::clusters::{PARTITIONS, TOPIC};

const RECORD: [u8; 64] = [b'x'; 64];
/// Sends between two looks at what came back.
const SENDS_AT_ONCE: u64 = 1_000;
const PATIENCE: Duration = Duration::from_secs(30);

/// A producer of batches, one of single records, and a consumer that has read all that was sent.
pub(crate) struct Client {
    batches: ThreadedProducer<Acknowledged>,
    single: ThreadedProducer<Acknowledged>,
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
        let partitions = all_partitions();
        consumer.assign(&partitions).expect("partitions can be assigned");
        Client { batches, single, consumer }
    }

    /// Sends so many records, as fast as they are taken, and polls each.
    pub(crate) fn stream(&mut self, count: u64) {
        let before = *self.batches.context().count();
        let mut polled = 0;
        for number in 0..count {
            send(&self.batches, number);
            if number % SENDS_AT_ONCE == 0 {
                polled += self.poll(Duration::ZERO);
            }
        }
        self.poll_all(count - polled);
        self.batches.context().wait_for(before + count);
    }

    /// Sends so many records, each when the one before is acknowledged, and polls them.
    pub(crate) fn one_by_one(&mut self, count: u64) {
        let before = *self.single.context().count();
        for number in 0..count {
            send(&self.single, number);
            self.single.context().wait_for(before + number + 1);
        }
        self.poll_all(count);
    }

    fn poll_all(&self, count: u64) {
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

fn send(producer: &ThreadedProducer<Acknowledged>, number: u64) {
    let partition = (number % PARTITIONS as u64) as i32;
    let mut record = BaseRecord::<(), _>::to(TOPIC).partition(partition).payload(&RECORD[..]);
    loop {
        record = match producer.send(record) {
            Ok(()) => return,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), record)) => record,
            Err((error, _)) => panic!("librdkafka does not take a record: {error}"),
        };
        let count = *producer.context().count();
        producer.context().wait_for(count + 1);
    }
}
