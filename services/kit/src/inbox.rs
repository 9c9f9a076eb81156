//! Which messages were handled: the memory that makes a redelivery harmless.
//!
//! The entry is written in the transaction of the effects, so there is never an effect without its entry, nor an entry
//! without its effect (D0.9). Entries are by consumer group: two subscriptions of one service each handle a message.
//!
//! Absent on purpose: an end to the memory. A redelivery can come as late as the topic's retention allows, and entries
//! are small; whoever prunes must keep them at least as long.

use broker::{ConsumerRecord, Offset};
use context::Timestamp;
use proto::MessageId;
use serde::{Deserialize, Serialize};

use crate::store::Json;
use crate::{ReadTables, StoreError, Table, Tables};

const INBOX: Table<EntryKey, Entry, Json> = Table::new("kit.inbox");

/// A group, and the id of a message that it read.
pub type EntryKey = (String, MessageId);

/// What became of a message, and where it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What became of it.
    pub fate: Fate,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: Offset,
    /// When, in Unix milliseconds.
    pub at_ms: u64,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fate {
    /// Its effects are committed.
    Applied,
    /// It went to the dead letters. The same record again is skipped; the same message at another offset was replayed
    /// by someone, and is handled.
    DeadLettered,
}

/// Whether the message `id`, now read as `record`, needs no more handling by `group`.
///
/// # Errors
/// As [`Table::get`].
pub fn is_settled(
    tables: &(impl ReadTables + ?Sized),
    group: &str,
    id: MessageId,
    record: &ConsumerRecord,
) -> Result<bool, StoreError> {
    let entry = INBOX.get(tables, &(group.to_owned(), id))?;
    Ok(entry.is_some_and(|entry| match entry.fate {
        Fate::Applied => true,
        Fate::DeadLettered => {
            entry.topic == *record.partition.topic
                && (entry.partition, entry.offset) == (record.partition.partition, record.offset)
        }
    }))
}

/// All entries, by group and message id: what a harness measures hops by.
///
/// # Errors
/// As [`Table::all`].
pub fn all(tables: &(impl ReadTables + ?Sized)) -> Result<Vec<(EntryKey, Entry)>, StoreError> {
    INBOX.all(tables)
}

/// Remembers the fate of a message.
///
/// # Errors
/// As [`Table::put`].
pub fn settle(
    tables: &mut (impl Tables + ?Sized),
    group: &str,
    id: MessageId,
    record: &ConsumerRecord,
    fate: Fate,
    now: Timestamp,
) -> Result<(), StoreError> {
    let entry = Entry {
        fate,
        topic: record.partition.topic.as_ref().to_owned(),
        partition: record.partition.partition,
        offset: record.offset,
        at_ms: now.as_millis(),
    };
    INBOX.put(tables, &(group.to_owned(), id), &entry)
}
