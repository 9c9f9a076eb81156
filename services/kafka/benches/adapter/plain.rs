//! Plain rdkafka, at its fastest from Rust.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use rdkafka::{ClientConfig, TopicPartitionList};

use crate::support::acknowledged::{Acknowledged, all_partitions};
use crate::support::clusters::TOPIC;
use crate::{IN_FLIGHT, PATIENCE, VALUE, key};

/// Two producers, and a consumer that reads only when it is told to.
pub(crate) struct Plain {
    stream: ThreadedProducer<Acknowledged>,
    single: ThreadedProducer<Acknowledged>,
    consumer: BaseConsumer,
    partitions: TopicPartitionList,
}

impl Plain {
    pub(crate) fn new(bootstrap: &str) -> Plain {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap).set("acks", "all").set("enable.idempotence", "true");
        let producer = |linger: &str| {
            let mut config = config.clone();
            config
                .set("linger.ms", linger)
                .create_with_context(Acknowledged::default())
                .expect("sound properties")
        };
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", "plain")
            .set("enable.auto.commit", "false")
            .create()
            .expect("sound properties");
        let partitions = all_partitions();
        consumer.assign(&partitions).expect("partitions can be assigned");
        consumer.pause(&partitions).expect("a pause needs no broker");
        Plain { stream: producer("5"), single: producer("0"), consumer, partitions }
    }

    pub(crate) fn produce(&self, count: u64) {
        let acknowledged = self.stream.context().clone();
        let before = *acknowledged.count();
        for number in 0..count {
            send(&self.stream, number);
            if number % 1_000 == 0 && number > IN_FLIGHT {
                acknowledged.wait_for(before + number - IN_FLIGHT);
            }
        }
        acknowledged.wait_for(before + count);
    }

    pub(crate) fn one_by_one(&self, count: u64) {
        let acknowledged = self.single.context().clone();
        let before = *acknowledged.count();
        for number in 0..count {
            send(&self.single, number);
            acknowledged.wait_for(before + number + 1);
        }
    }

    /// What comes is looked at where it lies.
    pub(crate) fn consume(&self, count: u64) {
        self.consumer.resume(&self.partitions).expect("it needs no broker");
        let (mut read, mut bytes) = (0, 0);
        while read < count {
            let message =
                self.consumer.poll(PATIENCE).unwrap_or_else(|| panic!("{read} of {count} records came"));
            let message = message.expect("a record, not an error");
            bytes += message.payload().map_or(0, <[u8]>::len) as u64;
            read += 1;
        }
        assert_eq!(bytes, read * VALUE.len() as u64);
        self.consumer.pause(&self.partitions).expect("it needs no broker");
    }
}

fn send(producer: &ThreadedProducer<Acknowledged>, number: u64) {
    let key = key(number);
    let record = BaseRecord::to(TOPIC).key(&key[..]).payload(&VALUE[..]);
    if let Err((error, _)) = producer.send(record) {
        panic!("librdkafka does not take a record: {error}");
    }
}

/// Nothing is left to the drop, which would wait for it.
impl Drop for Plain {
    fn drop(&mut self) {
        for producer in [&self.stream, &self.single] {
            producer.flush(Duration::from_secs(10)).expect("all was acknowledged");
        }
    }
}
