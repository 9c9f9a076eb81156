//! What the topics hold: every record that the harness's observer read from their starts, once each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broker::{ConsumerRecord, Offset, TopicPartition};
use harness::check::Occasion;
use harness::check::client::ClientAct;
use harness::observer;
use kit::Message;
use proto::MessageId;

/// All records, by place.
#[derive(Debug, Default)]
pub struct Archive {
    records: BTreeMap<(TopicPartition, Offset), ConsumerRecord>,
}

/// An archive that several checks fill and read.
#[derive(Clone, Debug, Default)]
pub struct Shared(Arc<Mutex<Archive>>);

impl Shared {
    /// The archive.
    pub fn lock(&self) -> MutexGuard<'_, Archive> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what the observer read, if that is what happened. Hearing of it twice changes nothing.
    pub fn hear(&self, occasion: Occasion<'_>) {
        if let Occasion::Client(event) = occasion
            && event.host == observer::HOST
            && let ClientAct::Polled(records) = event.act
        {
            self.lock().take(records);
        }
    }
}

impl Archive {
    /// An empty one, to be shared.
    pub fn shared() -> Shared {
        Shared::default()
    }

    fn take(&mut self, records: &[ConsumerRecord]) {
        for record in records {
            let place = (record.partition.clone(), record.offset);
            self.records.entry(place).or_insert_with(|| record.clone());
        }
    }

    /// The records of these topics, each partition in its order.
    pub fn of(&self, topics: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<&ConsumerRecord> {
        let topics: BTreeSet<String> = topics.into_iter().map(|topic| topic.as_ref().to_owned()).collect();
        self.records.values().filter(|record| topics.contains(record.partition.topic.as_ref())).collect()
    }

    /// One record.
    pub fn at(&self, partition: &TopicPartition, offset: Offset) -> Option<&ConsumerRecord> {
        self.records.get(&(partition.clone(), offset))
    }

    /// The messages of these topics, the first of each message id: a relay that sent twice said nothing new. Records that
    /// are no messages are left out; services put them into the dead letters.
    pub fn messages(&self, topics: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<Message> {
        let mut seen = BTreeSet::<(String, MessageId)>::new();
        let parsed = self.of(topics).into_iter().filter_map(|record| Message::parse(record).ok());
        parsed.filter(|message| seen.insert((message.topic().to_owned(), message.id))).collect()
    }
}

/// Where a record is, as people read it: `payment.commands/0@17`.
pub fn place(record: &ConsumerRecord) -> String {
    format!("{}@{}", record.partition, record.offset)
}
