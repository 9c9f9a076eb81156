//! The clients, and how they do what they are told.

use std::sync::Arc;
use std::time::Duration;

use context::Timestamp;

use super::super::{Bench, Failure};
use super::place::Place;
use super::reader::Reader;
use super::{Answer, Attempt, LARGEST, Operation, Partition, between, refused, text_with, time, value};
use crate::{
    Error, ErrorClass, ErrorCode, Headers, Offset, OffsetAndMetadata, OffsetSpec, Producer, ProducerRecord,
    Properties, TopicPartition,
};

const PATIENCE: Duration = Duration::from_secs(30);
/// A position that a transaction holds back is not asked for longer: it stays so.
const HELD_BACK: Duration = Duration::from_secs(2);

/// An open transaction, as its client knows it.
#[derive(Clone, Copy, Default)]
struct Open {
    /// The partition is in it.
    holds: bool,
    /// The group's position is in it.
    offsets: bool,
}

/// The one from whom the transactional id was taken.
struct Former {
    producer: Arc<dyn Producer>,
    /// It thinks that its transaction is open.
    open: bool,
}

pub(super) struct Desk {
    place: Place,
    idempotent: Arc<dyn Producer>,
    transactional: Arc<dyn Producer>,
    open: Option<Open>,
    former: Option<Former>,
    /// By isolation level: uncommitted, committed.
    readers: [Reader; 2],
    /// Tells how many records a reader waits for. It decides no answer.
    guess: Partition,
    sent: usize,
    deleted: bool,
    /// When a broker was last killed.
    killed: Option<Timestamp>,
    /// The broker that stays away.
    away: Option<i32>,
}

impl Desk {
    pub(super) async fn open(bench: Bench, replicas: i16) -> Result<Desk, Failure> {
        let place = Place::create(bench, replicas).await?;
        let idempotent = Properties::new().set("message.timeout.ms", 300_000);
        let idempotent = place.bench.producer_with(idempotent).await?;
        let transactional = holder(&place.bench).await?;
        let reader = |isolation, reset| Reader::open(&place.bench, &place.at, isolation, reset, 0);
        let readers =
            [reader("read_uncommitted", "earliest").await?, reader("read_committed", "earliest").await?];
        Ok(Desk {
            place,
            idempotent,
            transactional,
            open: None,
            former: None,
            readers,
            guess: Partition::default(),
            sent: 0,
            deleted: false,
            killed: None,
            away: None,
        })
    }

    /// Leaves the brokers whole.
    pub(super) async fn close(mut self) -> Result<(), Failure> {
        self.start_broker().await?;
        for reader in self.readers {
            reader.close().await?;
        }
        Ok(())
    }

    pub(super) async fn perform(&mut self, operation: &Operation) -> Result<Answer, Failure> {
        let guess = self.guess.answer(operation);
        Ok(match *operation {
            Operation::Send { records, second } => {
                let producer = self.idempotent.clone();
                Answer::Offsets(self.send(&*producer, records, second).await?)
            }
            Operation::SendTooLarge => match self.idempotent.send(self.too_large()).await {
                Ok(sent) => Answer::Offsets(sent.offset.into_iter().collect()),
                Err(error) => refused([error]),
            },
            Operation::SendInTransaction { records, second } => {
                self.begun().await?.holds = true;
                let producer = self.transactional.clone();
                match self.send(&*producer, records, second).await {
                    Ok(offsets) => Answer::Offsets(offsets),
                    // librdkafka drops the record without saying why.
                    Err(error) if error.class == ErrorClass::Abortable || error.code == ErrorCode::Purged => {
                        self.end(false).await?;
                        refused([])
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            Operation::SpoilTransaction => self.spoil().await?,
            Operation::SendOffset(offset) => {
                self.send_offset(offset).await?;
                Answer::Done
            }
            Operation::Commit | Operation::Abort => {
                self.end(*operation == Operation::Commit).await?;
                Answer::Done
            }
            Operation::TakeOver => {
                self.take_over().await?;
                Answer::Done
            }
            Operation::Former(attempt) => match self.former_attempts(attempt).await {
                Ok(answer) => answer,
                Err(error) => refused([error]),
            },
            Operation::Seek { committed, to } => {
                let to = between(0, self.place.latest(false).await?, to);
                self.readers[usize::from(committed)].seek(to);
                Answer::Done
            }
            Operation::Read { committed } => {
                let ends = (self.place.latest(committed).await?, self.place.latest(false).await?);
                let reader = &mut self.readers[usize::from(committed)];
                read(reader, &self.place, ends, &guess).await?
            }
            Operation::FetchFrom(offset) => {
                let ends = (self.place.latest(true).await?, self.place.latest(false).await?);
                // A new one: an older would have fetched ahead, perhaps been refused meanwhile, and say so now.
                let (bench, at) = (&self.place.bench, &self.place.at);
                let mut reader = Reader::open(bench, at, "read_committed", "error", offset).await?;
                let answer = read(&mut reader, &self.place, ends, &guess).await?;
                reader.close().await?;
                answer
            }
            Operation::Earliest => Answer::Offsets(self.place.offsets(OffsetSpec::Earliest, false).await?),
            Operation::Latest { committed } => Answer::Offsets(vec![self.place.latest(committed).await?]),
            Operation::AtTime { committed, second } => {
                Answer::Offsets(self.place.offsets(OffsetSpec::At(time(second, 0)), committed).await?)
            }
            Operation::CommitOffset(offset) => {
                self.commit_offset(offset).await?;
                Answer::Done
            }
            Operation::Committed => self.committed().await?,
            Operation::DeleteRecords(hundredths) => {
                let (start, end) = (self.place.earliest().await?, self.place.latest(false).await?);
                self.delete_before(between(start, end, hundredths)).await
            }
            Operation::DeleteRecordsBefore(offset) => self.delete_before(offset).await,
            Operation::Producers => self.place.producers(&transactional_id(&self.place.bench)).await?,
            Operation::Transaction => self.place.transaction(&transactional_id(&self.place.bench)).await?,
            Operation::RestartBroker(node) => {
                self.kill_broker(node, self.deleted).await?;
                self.start_broker().await?;
                Answer::Done
            }
            Operation::KillBroker(node) => {
                // The others must do without it, and may have been killed just now.
                self.kill_broker(node, true).await?;
                Answer::Done
            }
            Operation::StartBroker => {
                self.start_broker().await?;
                Answer::Done
            }
        })
    }

    async fn begun(&mut self) -> Result<&mut Open, Failure> {
        if self.open.is_none() {
            self.transactional.begin_transaction().await?;
        }
        Ok(self.open.get_or_insert_default())
    }

    async fn send(&mut self, producer: &dyn Producer, records: u8, second: u8) -> Result<Vec<Offset>, Error> {
        let mut deliveries = Vec::new();
        for number in 0..usize::from(records) {
            let mut headers = Headers::default();
            headers.add("n", self.sent.to_string());
            let timestamp = Some(time(second, number));
            let record = ProducerRecord { timestamp, headers, ..self.record(value(self.sent)) };
            self.sent += 1;
            deliveries.push(producer.send(record));
        }
        let mut offsets = Vec::new();
        for delivery in deliveries {
            // An acknowledgement without an offset is no offset of the model's.
            offsets.push(delivery.await?.offset.unwrap_or(-1));
        }
        Ok(offsets)
    }

    fn record(&self, value: String) -> ProducerRecord {
        let partition = Some(self.place.at.partition);
        ProducerRecord { partition, ..ProducerRecord::new(self.place.at.topic.clone(), "k", value) }
    }

    /// A record that the topic does not take.
    fn too_large(&self) -> ProducerRecord {
        self.record("x".repeat(LARGEST + 1))
    }

    async fn spoil(&mut self) -> Result<Answer, Failure> {
        self.begun().await?;
        self.open = None;
        let end = self.place.latest(false).await?;
        let producer = self.transactional.clone();
        let sent = producer.send(self.too_large()).await.err();
        let committed =
            self.place.bench.retried(async || producer.commit_transaction(PATIENCE).await).await.err();
        self.place.bench.retried(async || producer.abort_transaction(PATIENCE).await).await?;
        // The partition came into the transaction before the record was refused.
        self.place.marker_is_there(end).await?;
        Ok(refused(sent.into_iter().chain(committed)))
    }

    async fn send_offset(&mut self, offset: Offset) -> Result<(), Failure> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let position = position(&self.place.at, offset);
        let group = self.readers[1].consumer().group_metadata();
        let producer = self.transactional.clone();
        let sent = async || producer.send_offsets_to_transaction(&position, &group, PATIENCE).await;
        self.place.bench.retried(sent).await?;
        open.offsets = true;
        Ok(())
    }

    async fn end(&mut self, commit: bool) -> Result<(), Failure> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let end = self.place.latest(false).await?;
        let producer = self.transactional.clone();
        let ended = async || match commit {
            true => producer.commit_transaction(PATIENCE).await,
            false => producer.abort_transaction(PATIENCE).await,
        };
        self.place.bench.retried(ended).await?;
        self.ended(open, end).await
    }

    async fn take_over(&mut self) -> Result<(), Failure> {
        let open = self.open.take();
        let end = self.place.latest(false).await?;
        let new = holder(&self.place.bench).await?;
        let producer = std::mem::replace(&mut self.transactional, new);
        self.former = Some(Former { producer, open: open.is_some() });
        self.ended(open.unwrap_or_default(), end).await
    }

    async fn ended(&mut self, open: Open, end: Offset) -> Result<(), Failure> {
        if open.holds { self.place.marker_is_there(end).await } else { Ok(()) }
    }

    async fn former_attempts(&mut self, attempt: Attempt) -> Result<Answer, Error> {
        let Some(former) = &mut self.former else { return Ok(Answer::Done) };
        let (producer, was_open) = (former.producer.clone(), former.open);
        match attempt {
            Attempt::Send => {
                if !was_open {
                    producer.begin_transaction().await?;
                }
                former.open = true;
                let sent = producer.send(self.record("of the former".into())).await?;
                Ok(Answer::Offsets(sent.offset.into_iter().collect()))
            }
            Attempt::Commit | Attempt::Abort if !was_open => Ok(Answer::Done),
            Attempt::Commit | Attempt::Abort => {
                let ended = async || match attempt {
                    Attempt::Commit => producer.commit_transaction(PATIENCE).await,
                    _ => producer.abort_transaction(PATIENCE).await,
                };
                self.place.bench.retried(ended).await?;
                former.open = false;
                Ok(Answer::Done)
            }
        }
    }

    async fn commit_offset(&mut self, offset: Offset) -> Result<(), Failure> {
        let position = position(&self.place.at, offset);
        let context = self.place.bench.context();
        let deadline = context.now() + PATIENCE * 2;
        while let Err(error) = self.readers[1].consumer().commit(&position).await {
            if !error.is_retriable() || context.now() > deadline {
                return Err(error.into());
            }
            context.sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    async fn committed(&mut self) -> Result<Answer, Failure> {
        let unstable = self.open.as_ref().is_some_and(|open| open.offsets);
        let patience = if unstable { HELD_BACK } else { PATIENCE };
        let context = self.place.bench.context();
        let deadline = context.now() + PATIENCE * 2;
        let at = std::slice::from_ref(&self.place.at);
        loop {
            match self.readers[1].consumer().committed(at, patience).await {
                Ok(positions) => {
                    let found = positions.into_iter().next();
                    return Ok(Answer::Position(
                        found.map(|(_, position)| (position.offset, position.metadata)),
                    ));
                }
                Err(error) if error.is_retriable() && unstable => return Ok(Answer::Unstable),
                Err(error) if error.is_retriable() && context.now() < deadline => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn delete_before(&mut self, offset: Offset) -> Answer {
        self.deleted = true;
        match self.place.delete_before(offset).await {
            Ok(starts) => Answer::Offsets(starts),
            Err(error) => refused([error]),
        }
    }

    async fn kill_broker(&mut self, node: i32, settled: bool) -> Result<(), Failure> {
        self.start_broker().await?;
        if settled {
            self.place.is_settled(self.killed).await?;
        }
        self.killed = Some(self.place.bench.context().now());
        self.place.bench.subject().kill_broker(node).await?;
        self.away = Some(node);
        Ok(())
    }

    async fn start_broker(&mut self) -> Result<(), Failure> {
        if let Some(node) = self.away.take() {
            self.place.bench.subject().start_broker(node).await?;
        }
        Ok(())
    }
}

async fn read(
    reader: &mut Reader,
    place: &Place,
    ends: (Offset, Offset),
    guess: &Answer,
) -> Result<Answer, Failure> {
    let wanted = match guess {
        Answer::Records(records) => records.len(),
        // An error should come.
        _ => 1,
    };
    Ok(match reader.read(place, ends, wanted).await? {
        Ok(records) => Answer::Records(records),
        Err(error) => refused([error]),
    })
}

fn position(at: &TopicPartition, offset: Offset) -> [(TopicPartition, OffsetAndMetadata); 1] {
    [(at.clone(), OffsetAndMetadata { metadata: text_with(offset), ..OffsetAndMetadata::new(offset) })]
}

fn transactional_id(bench: &Bench) -> String {
    bench.name("p")
}

/// A producer that has just taken the transactional id.
async fn holder(bench: &Bench) -> Result<Arc<dyn Producer>, Failure> {
    let properties = Properties::new()
        .set("transactional.id", transactional_id(bench))
        .set("transaction.timeout.ms", 600_000)
        .set("message.timeout.ms", 300_000);
    let producer = bench.producer_with(properties).await?;
    bench.retried(async || producer.init_transactions(PATIENCE).await).await?;
    Ok(producer)
}
