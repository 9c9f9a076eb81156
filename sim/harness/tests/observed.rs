//! Nothing that a client does or is told escapes the checks.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use broker::{
    Admin, Broker, Consumer, ConsumerRecord, Delivery, Error, ErrorClass, ErrorCode, GroupMetadata, Headers,
    Offset, OffsetAndMetadata, Producer, ProducerRecord, Properties, RebalanceListener, RecordMetadata,
    TopicPartition,
};
use context::real::RealHost;
use context::{Seed, Timestamp};
use shakedown_harness::check::client::{ClientAct, ClientEvent};
use shakedown_harness::check::{Breaches, Check, Moment, Occasion, Watch};
use shakedown_harness::observed::{Desk, ObservedBroker, Onlookers};
use shakedown_harness::recorder::RunRecorder;

fn partition() -> TopicPartition {
    TopicPartition::new("t", 0)
}

/// A broker that does as it is scripted: a record called `lost` times out, all others go to offset 7; a poll first
/// assigns, then gives a record, then takes the partition away.
struct Scripted;

#[async_trait]
impl Broker for Scripted {
    async fn producer(&self, _: &Properties) -> Result<Arc<dyn Producer>, Error> {
        Ok(Arc::new(Scripted))
    }

    async fn consumer(&self, _: &Properties) -> Result<Box<dyn Consumer>, Error> {
        Ok(Box::new(ScriptedConsumer { listener: None, polls: 0, held: Vec::new() }))
    }

    async fn admin(&self, _: &Properties) -> Result<Arc<dyn Admin>, Error> {
        Err(invalid())
    }
}

fn invalid() -> Error {
    Error::new(ErrorCode::InvalidState, ErrorClass::Failed, "not in the script")
}

#[async_trait]
impl Producer for Scripted {
    fn send(&self, record: ProducerRecord) -> Delivery {
        match record.key.as_deref() {
            Some(b"lost") => {
                Delivery::failed(Error::new(ErrorCode::MessageTimedOut, ErrorClass::Retriable, "no answer"))
            }
            _ => Delivery::new(async {
                Ok(RecordMetadata { partition: partition(), offset: Some(7), timestamp: Timestamp::ZERO })
            }),
        }
    }

    async fn flush(&self, _: Duration) -> Result<(), Error> {
        Ok(())
    }

    async fn init_transactions(&self, _: Duration) -> Result<(), Error> {
        Err(invalid())
    }

    async fn begin_transaction(&self) -> Result<(), Error> {
        Err(invalid())
    }

    async fn send_offsets_to_transaction(
        &self,
        _: &[(TopicPartition, OffsetAndMetadata)],
        _: &GroupMetadata,
        _: Duration,
    ) -> Result<(), Error> {
        Err(invalid())
    }

    async fn commit_transaction(&self, _: Duration) -> Result<(), Error> {
        Err(invalid())
    }

    async fn abort_transaction(&self, _: Duration) -> Result<(), Error> {
        Err(invalid())
    }

    async fn close(&self, _: Duration) -> Result<(), Error> {
        Ok(())
    }
}

struct ScriptedConsumer {
    listener: Option<Box<dyn RebalanceListener>>,
    polls: u32,
    held: Vec<TopicPartition>,
}

#[async_trait]
impl Consumer for ScriptedConsumer {
    async fn subscribe(&mut self, _: &[Arc<str>], listener: Box<dyn RebalanceListener>) -> Result<(), Error> {
        self.listener = Some(listener);
        Ok(())
    }

    async fn unsubscribe(&mut self) -> Result<(), Error> {
        self.held.clear();
        Ok(())
    }

    async fn assign(&mut self, partitions: &[TopicPartition]) -> Result<(), Error> {
        self.held = partitions.to_vec();
        Ok(())
    }

    async fn poll(&mut self, _: Duration) -> Result<Vec<ConsumerRecord>, Error> {
        self.polls += 1;
        let listener = self.listener.as_mut().expect("subscribed before it polls");
        match self.polls {
            1 => listener.assigned(&[partition()]),
            2 => {
                let (key, value, headers) = (None, None, Headers::default());
                let (partition, timestamp) = (partition(), Timestamp::ZERO);
                return Ok(vec![ConsumerRecord {
                    partition,
                    offset: 7,
                    leader_epoch: None,
                    timestamp,
                    key,
                    value,
                    headers,
                }]);
            }
            3 => assert_eq!(listener.revoked(&[partition()]).len(), 1),
            4 => listener.lost(&[partition()]),
            _ => {}
        }
        Ok(Vec::new())
    }

    async fn commit(&mut self, offsets: &[(TopicPartition, OffsetAndMetadata)]) -> Result<(), Error> {
        if offsets[0].1.offset > 8 { Err(invalid()) } else { Ok(()) }
    }

    async fn committed(
        &mut self,
        _: &[TopicPartition],
        _: Duration,
    ) -> Result<Vec<(TopicPartition, OffsetAndMetadata)>, Error> {
        Ok(Vec::new())
    }

    fn seek(&mut self, _: &TopicPartition, offset: Offset) -> Result<(), Error> {
        if offset < 0 { Err(invalid()) } else { Ok(()) }
    }

    fn pause(&mut self, _: &[TopicPartition]) {}

    fn resume(&mut self, _: &[TopicPartition]) {}

    fn position(&self, _: &TopicPartition) -> Option<Offset> {
        None
    }

    fn assignment(&self) -> Vec<TopicPartition> {
        self.held.clone()
    }

    fn group_metadata(&self) -> GroupMetadata {
        GroupMetadata::default()
    }

    async fn close(self: Box<Self>) -> Result<(), Error> {
        Ok(())
    }
}

/// Commits 8 when it must let go.
struct Lets;

impl RebalanceListener for Lets {
    fn revoked(&mut self, _: &[TopicPartition]) -> Vec<(TopicPartition, OffsetAndMetadata)> {
        vec![(partition(), OffsetAndMetadata::new(8))]
    }
}

/// Writes down what it is shown.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<String>>>);

impl Check for Page {
    fn name(&self) -> &'static str {
        "page"
    }

    fn look(&mut self, _: Moment, occasion: Occasion<'_>, _: &mut Breaches) {
        if let Occasion::Client(ClientEvent { client, host, act }) = occasion {
            let what = match act {
                ClientAct::ProducerOpened { idempotent, .. } => format!("producer, idempotent {idempotent}"),
                ClientAct::Sent { send, .. } => format!("sent {}", send.0),
                ClientAct::Acknowledged { send, metadata } => {
                    format!("acknowledged {} {:?}", send.0, metadata.offset)
                }
                ClientAct::GivenUp { send, error } => format!("given up {} {}", send.0, error.code),
                ClientAct::ConsumerOpened { group, auto_commit, .. } => {
                    format!("consumer of {group:?}, auto-commit {auto_commit}")
                }
                ClientAct::Assigned(partitions) => format!("assigned {partitions:?}"),
                ClientAct::Revoked(partitions) => format!("revoked {partitions:?}"),
                ClientAct::Sought { offset, .. } => format!("sought {offset}"),
                ClientAct::Polled(records) => format!("polled {}", records[0].offset),
                ClientAct::Committing(offsets) => format!("committing {}", offsets[0].1.offset),
                ClientAct::Committed(offsets) => format!("committed {}", offsets[0].1.offset),
                ClientAct::TransactionBegan => "transaction began".to_owned(),
                ClientAct::TransactionEnding { commit } => format!("ending, commit {commit}"),
                ClientAct::TransactionEnded { commit } => format!("ended, commit {commit}"),
                ClientAct::SendingOffsets { group, offsets } => {
                    format!("sending {} for {group}", offsets[0].1.offset)
                }
                ClientAct::ReadToEnd { end, .. } => format!("read to {end}"),
            };
            self.0.lock().unwrap().push(format!("{host}/{}: {what}", client.0));
        }
    }
}

fn observed() -> (ObservedBroker, Page) {
    let (page, watch) = (Page::default(), Arc::new(Watch::new(true)));
    watch.add(Box::new(page.clone()));
    let recorder = Arc::new(RunRecorder::new(watch, None, world::EPOCH));
    let context = RealHost::new("a", Seed(1)).into_context();
    let desk = Desk::new(Arc::new(Onlookers::new(recorder)));
    (ObservedBroker::new(Arc::new(Scripted), context, Arc::new(desk)), page)
}

fn lines(page: &Page) -> Vec<String> {
    page.0.lock().unwrap().clone()
}

#[tokio::test]
async fn a_producer_is_watched_from_its_opening_to_each_records_fate() {
    let (broker, page) = observed();
    let plain = broker.producer(&Properties::new()).await.unwrap();
    let idempotent = broker.producer(&Properties::new().set("enable.idempotence", true)).await.unwrap();
    plain.send(ProducerRecord::new("t", "k", "v")).await.unwrap();
    idempotent.send(ProducerRecord::new("t", "lost", "v")).await.unwrap_err();
    drop(idempotent.send(ProducerRecord::new("t", "dropped", "v")));
    assert_eq!(
        lines(&page),
        [
            "a/1: producer, idempotent false",
            "a/2: producer, idempotent true",
            "a/1: sent 1",
            "a/1: acknowledged 1 Some(7)",
            "a/2: sent 2",
            "a/2: given up 2 MessageTimedOut",
            "a/2: sent 3",
        ]
    );
}

#[tokio::test]
async fn a_member_is_watched_through_its_rebalances() {
    let (broker, page) = observed();
    let properties = Properties::new().set("group.id", "g").set("enable.auto.commit", false);
    let mut consumer = broker.consumer(&properties).await.unwrap();
    consumer.subscribe(&["t".into()], Box::new(Lets)).await.unwrap();
    for _ in 0..5 {
        consumer.poll(Duration::ZERO).await.unwrap();
    }
    assert_eq!(
        lines(&page),
        [
            "a/1: consumer of Some(\"g\"), auto-commit false",
            "a/1: assigned [t/0]",
            "a/1: polled 7",
            "a/1: committing 8",
            "a/1: revoked [t/0]",
            "a/1: revoked [t/0]",
        ]
    );
}

#[tokio::test]
async fn a_commit_is_seen_before_its_answer_and_a_refused_seek_is_not_seen() {
    let (broker, page) = observed();
    let mut consumer = broker.consumer(&Properties::new()).await.unwrap();
    consumer.assign(&[partition()]).await.unwrap();
    consumer.seek(&partition(), 3).unwrap();
    consumer.seek(&partition(), -1).unwrap_err();
    consumer.commit(&[(partition(), OffsetAndMetadata::new(8))]).await.unwrap();
    consumer.commit(&[(partition(), OffsetAndMetadata::new(9))]).await.unwrap_err();
    consumer.close().await.unwrap();
    assert_eq!(
        lines(&page),
        [
            "a/1: consumer of None, auto-commit true",
            "a/1: assigned [t/0]",
            "a/1: sought 3",
            "a/1: committing 8",
            "a/1: committed 8",
            "a/1: committing 9",
            "a/1: revoked [t/0]",
        ]
    );
}
