//! Records that are to be sent: rows in the store, written in the transaction of the effects that they follow from.
//!
//! So there is never an effect whose message is lost, nor a message without its effect (D0.1, D4.5). The relay
//! ([`crate::relay`]) sends the rows and deletes them once they are acknowledged.

use broker::{Header, Headers, ProducerRecord};
use bytes::Bytes;
use context::Timestamp;

use crate::store::Json;
use crate::{ReadTables, Store, StoreError, StoreExt, Table, Tables};

/// By sequence number, in the order of their commits.
const ROWS: Table<u64, Row> = Table::new("kit.outbox");
/// The next sequence number. It outlives the rows, so that a number is never given twice.
const NEXT: Table<(), u64, Json> = Table::new("kit.outbox.next");

/// A record as it waits.
#[derive(Clone, PartialEq, prost::Message)]
struct Row {
    #[prost(string, tag = "1")]
    topic: String,
    #[prost(bytes = "bytes", optional, tag = "2")]
    key: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "3")]
    value: Option<Bytes>,
    #[prost(message, repeated, tag = "4")]
    headers: Vec<RowHeader>,
    /// Unix milliseconds.
    #[prost(uint64, optional, tag = "5")]
    timestamp_ms: Option<u64>,
    #[prost(int32, optional, tag = "6")]
    partition: Option<i32>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RowHeader {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(bytes = "bytes", optional, tag = "2")]
    value: Option<Bytes>,
}

/// Appends a record; gives its place in the order.
///
/// # Errors
/// As [`Table::put`].
pub fn append(tables: &mut (impl Tables + ?Sized), record: ProducerRecord) -> Result<u64, StoreError> {
    let sequence = NEXT.get(tables, &())?.unwrap_or(0);
    NEXT.put(tables, &(), &(sequence + 1))?;
    ROWS.put(tables, &sequence, &row(record))?;
    Ok(sequence)
}

/// At most `limit` records from the place `from` on, in order.
///
/// # Errors
/// As [`Table::between`].
pub fn pending(
    tables: &(impl ReadTables + ?Sized),
    from: u64,
    limit: usize,
) -> Result<Vec<(u64, ProducerRecord)>, StoreError> {
    let rows = ROWS.between(tables, &from, &u64::MAX, limit)?;
    Ok(rows.into_iter().map(|(sequence, row)| (sequence, record(row))).collect())
}

/// Deletes what was acknowledged.
///
/// # Errors
/// As [`Table::delete`].
pub fn delete(tables: &mut (impl Tables + ?Sized), sequences: &[u64]) -> Result<(), StoreError> {
    sequences.iter().try_for_each(|sequence| ROWS.delete(tables, sequence).map(drop))
}

/// How many records wait: 0 when all that was decided has been said. A harness's notion of quiet looks at it.
///
/// # Errors
/// As [`Store::read`].
pub fn depth(store: &(impl Store + ?Sized)) -> Result<u64, StoreError> {
    store.read_with(|tables| ROWS.count(tables))
}

fn row(record: ProducerRecord) -> Row {
    let header = |header: Header| RowHeader { key: header.key, value: header.value };
    Row {
        topic: record.topic.as_ref().to_owned(),
        key: record.key,
        value: record.value,
        headers: record.headers.0.into_iter().map(header).collect(),
        timestamp_ms: record.timestamp.map(Timestamp::as_millis),
        partition: record.partition,
    }
}

fn record(row: Row) -> ProducerRecord {
    let header = |header: RowHeader| Header { key: header.key, value: header.value };
    ProducerRecord {
        topic: row.topic.into(),
        partition: row.partition,
        key: row.key,
        value: row.value,
        headers: Headers(row.headers.into_iter().map(header).collect()),
        timestamp: row.timestamp_ms.map(Timestamp::from_millis),
    }
}

#[cfg(test)]
mod tests {
    use context::Seed;
    use context::real::RealHost;

    use super::*;
    use crate::MemStore;

    #[test]
    fn rows_keep_their_order_and_their_records() {
        let context = RealHost::new("host", Seed(1)).into_context();
        let store = MemStore::new("store");
        let mut first = ProducerRecord::new("topic", "key", "one");
        first.headers.add("name", "value");
        first.headers.0.push(Header { key: "null".into(), value: None });
        first.timestamp = Some(Timestamp::from_millis(7));
        let tombstone = ProducerRecord { value: None, ..ProducerRecord::new("topic", "key", "") };
        let records = [first, tombstone];
        for record in records.clone() {
            store.transact_with::<_, StoreError>(&context, |tables| append(tables, record)).unwrap();
        }
        assert_eq!(depth(&store), Ok(2));
        let [first, tombstone] = records;
        let pending = |from| store.read_with::<_, StoreError>(|tables| pending(tables, from, 10)).unwrap();
        assert_eq!(pending(0), [(0, first), (1, tombstone.clone())]);
        assert_eq!(pending(1), [(1, tombstone)]);
    }

    #[test]
    fn a_sequence_number_is_never_given_twice() {
        let context = RealHost::new("host", Seed(1)).into_context();
        let store = MemStore::new("store");
        for expected in 0..3 {
            let sequence = store.transact_with::<_, StoreError>(&context, |tables| {
                append(tables, ProducerRecord::new("topic", "key", "value"))
            });
            assert_eq!(sequence, Ok(expected));
            store.transact_with::<_, StoreError>(&context, |tables| delete(tables, &[expected])).unwrap();
        }
        assert_eq!(depth(&store), Ok(0));
    }
}
