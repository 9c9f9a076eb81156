//! The same by the Broker adapter.

use std::collections::VecDeque;
use std::sync::Arc;

use broker::{Broker as _, Consumer, Delivery, Producer, ProducerRecord, Properties, TopicPartition};
use bytes::Bytes;
use context::Seed;
use context::real::RealHost;
use shakedown_rdkafka::RdKafkaBroker;
use tokio::runtime::{Builder, Runtime};

use crate::support::clusters::{PARTITIONS, TOPIC};
use crate::{IN_FLIGHT, PATIENCE, VALUE, key};

/// Two producers, and a consumer that reads only when it is told to.
pub(crate) struct Adapter {
    runtime: Runtime,
    topic: Arc<str>,
    stream: Arc<dyn Producer>,
    single: Arc<dyn Producer>,
    consumer: Box<dyn Consumer>,
    partitions: Vec<TopicPartition>,
}

impl Adapter {
    pub(crate) fn new(bootstrap: &str) -> Adapter {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let topic: Arc<str> = TOPIC.into();
        let partitions: Vec<_> = (0..PARTITIONS).map(|at| TopicPartition::new(topic.clone(), at)).collect();
        let (stream, single, consumer) = runtime.block_on(async {
            let context = RealHost::new("bench", Seed(7)).into_context();
            let broker = RdKafkaBroker::new(context, Properties::new().set("bootstrap.servers", bootstrap));
            let own = Properties::new().set("acks", "all").set("enable.idempotence", true);
            let stream = broker.producer(&own.clone().set("linger.ms", 5)).await.expect("a producer");
            let single = broker.producer(&own.set("linger.ms", 0)).await.expect("a producer");
            let own = Properties::new().set("group.id", "adapter").set("enable.auto.commit", false);
            let mut consumer =
                broker.consumer(&own.set("auto.offset.reset", "earliest")).await.expect("a consumer");
            consumer.assign(&partitions).await.expect("partitions can be assigned");
            consumer.pause(&partitions);
            (stream, single, consumer)
        });
        Adapter { runtime, topic, stream, single, consumer, partitions }
    }

    fn send(&self, producer: &dyn Producer, number: u64) -> Delivery {
        let key = Bytes::copy_from_slice(&key(number));
        producer.send(ProducerRecord::new(self.topic.clone(), key, Bytes::from_static(&VALUE)))
    }

    pub(crate) fn produce(&self, count: u64) {
        self.runtime.block_on(async {
            let mut fates = VecDeque::new();
            for number in 0..count {
                fates.push_back(self.send(&*self.stream, number));
                if number % 1_000 == 0 {
                    while fates.len() as u64 > IN_FLIGHT {
                        let fate = fates.pop_front().expect("there are many");
                        fate.await.expect("an acknowledgement");
                    }
                }
            }
            for fate in fates {
                let at = fate.await.expect("an acknowledgement");
                assert!(at.offset.is_some(), "an idempotent producer knows its offsets");
            }
        });
    }

    pub(crate) fn one_by_one(&self, count: u64) {
        self.runtime.block_on(async {
            for number in 0..count {
                self.send(&*self.single, number).await.expect("an acknowledgement");
            }
        });
    }

    pub(crate) fn consume(&mut self, count: u64) {
        self.runtime.block_on(async {
            self.consumer.resume(&self.partitions);
            let (mut read, mut bytes) = (0, 0);
            while read < count {
                let records = self.consumer.poll(PATIENCE).await.expect("records, not an error");
                assert!(!records.is_empty(), "{read} of {count} records came");
                for record in records {
                    bytes += record.value.as_ref().map_or(0, Bytes::len) as u64;
                    read += 1;
                }
            }
            assert_eq!(bytes, read * VALUE.len() as u64);
            self.consumer.pause(&self.partitions);
        });
    }
}
