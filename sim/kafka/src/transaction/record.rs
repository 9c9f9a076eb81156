//! The records of `__transaction_state`, in Kafka's own format (`TransactionLogKey` version 0, `TransactionLogValue`
//! versions 0 and 1), so that Kafka's tools could read them. A value of null is a tombstone.
//!
//! Kafka 4.1.0 writes neither the previous nor the next producer id, though its format has them, nor the last epoch
//! (`TransactionLog.valueToBytes`): a coordinator that takes over does not know them. Retries that span a failover are
//! then refused, and an epoch that was used up in the last transaction stays with the old producer id.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::metadata::{TopicPartition, Transit};
use super::state::{TransactionState, TransactionVersion};
use super::{NO_EPOCH, NO_PRODUCER_ID};
use crate::wire::primitive::{Put, Take};

const KEY_VERSION: i16 = 0;
const PREVIOUS_PRODUCER_ID: u32 = 0;
const NEXT_PRODUCER_ID: u32 = 1;
const CLIENT_VERSION: u32 = 2;

/// One record: a transactional id as it is from then on; `None` forgets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionRecord {
    /// The transactional id.
    pub id: String,
    /// What is known of it.
    pub value: Option<Transit>,
}

/// A record that is none of the coordinator's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownRecord;

impl TransactionRecord {
    /// Key and value, as a cluster at this level of `transaction.version` writes them.
    pub fn encode(&self, version: TransactionVersion) -> (Option<Bytes>, Option<Bytes>) {
        let mut key = BytesMut::new();
        key.put_i16(KEY_VERSION);
        key.put_text(&self.id);
        (
            Some(key.freeze()),
            self.value.as_ref().map(|value| encode_value(value, version.log_value_version())),
        )
    }

    /// The record of this key and value.
    ///
    /// # Errors
    /// If they are of a version that is not known, or malformed.
    pub fn decode(key: Option<Bytes>, value: Option<Bytes>) -> Result<TransactionRecord, UnknownRecord> {
        let read = || {
            let mut key = key?;
            if key.try_get_i16().ok()? != KEY_VERSION {
                return None;
            }
            let id = key.take_text()?;
            let value = match value {
                Some(value) => Some(decode_value(value)?),
                None => None,
            };
            Some(TransactionRecord { id, value })
        };
        read().ok_or(UnknownRecord)
    }
}

fn encode_value(value: &Transit, version: i16) -> Bytes {
    let flexible = version >= 1;
    let mut buf = BytesMut::new();
    buf.put_i16(version);
    buf.put_i64(value.producer_id);
    buf.put_i16(value.producer_epoch);
    buf.put_i32(value.timeout_ms);
    buf.put_i8(value.state.id());
    let topics = (value.state != TransactionState::Empty).then(|| by_topic(&value.partitions));
    put_count(&mut buf, flexible, topics.as_ref().map(BTreeMap::len));
    for (topic, partitions) in topics.iter().flatten() {
        if flexible {
            put_unsigned(&mut buf, topic.len() as u32 + 1);
            buf.put_slice(topic.as_bytes());
        } else {
            buf.put_text(topic);
        }
        put_count(&mut buf, flexible, Some(partitions.len()));
        partitions.iter().for_each(|&partition| buf.put_i32(partition));
        if flexible {
            put_unsigned(&mut buf, 0);
        }
    }
    buf.put_i64(value.update_ms);
    buf.put_i64(value.start_ms);
    if flexible {
        // One tagged field, and only where it says something.
        if value.client_version == TransactionVersion::default() {
            put_unsigned(&mut buf, 0);
        } else {
            put_unsigned(&mut buf, 1);
            put_unsigned(&mut buf, CLIENT_VERSION);
            put_unsigned(&mut buf, 2);
            buf.put_i16(value.client_version.0);
        }
    }
    buf.freeze()
}

fn by_topic(partitions: &BTreeSet<TopicPartition>) -> BTreeMap<&str, Vec<i32>> {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in partitions {
        topics.entry(topic).or_default().push(*partition);
    }
    topics
}

fn decode_value(mut value: Bytes) -> Option<Transit> {
    let buf = &mut value;
    let version = buf.try_get_i16().ok()?;
    if !(0..=1).contains(&version) {
        return None;
    }
    let flexible = version >= 1;
    let mut transit = Transit {
        producer_id: buf.try_get_i64().ok()?,
        previous_producer_id: NO_PRODUCER_ID,
        next_producer_id: NO_PRODUCER_ID,
        producer_epoch: buf.try_get_i16().ok()?,
        last_producer_epoch: NO_EPOCH,
        timeout_ms: buf.try_get_i32().ok()?,
        state: TransactionState::from_id(buf.try_get_i8().ok()?)?,
        partitions: BTreeSet::new(),
        start_ms: -1,
        update_ms: -1,
        client_version: TransactionVersion::default(),
    };
    for _ in 0..take_count(buf, flexible)?.unwrap_or(0) {
        let topic = if flexible {
            let length = take_unsigned(buf)?.checked_sub(1)?;
            String::from_utf8(buf.take_bytes(length as usize)?.to_vec()).ok()?
        } else {
            buf.take_text()?
        };
        for _ in 0..take_count(buf, flexible)?? {
            transit.partitions.insert((topic.clone(), buf.try_get_i32().ok()?));
        }
        if flexible {
            skip_tags(buf, |_, _| Some(()))?;
        }
    }
    transit.update_ms = buf.try_get_i64().ok()?;
    transit.start_ms = buf.try_get_i64().ok()?;
    if flexible {
        skip_tags(buf, |tag, mut field| {
            match tag {
                PREVIOUS_PRODUCER_ID => transit.previous_producer_id = field.try_get_i64().ok()?,
                NEXT_PRODUCER_ID => transit.next_producer_id = field.try_get_i64().ok()?,
                CLIENT_VERSION => transit.client_version = TransactionVersion(field.try_get_i16().ok()?),
                _ => {}
            }
            Some(())
        })?;
    }
    Some(transit)
}

/// Reads tagged fields: each is a tag, a length and so many bytes.
fn skip_tags(buf: &mut Bytes, mut field: impl FnMut(u32, Bytes) -> Option<()>) -> Option<()> {
    for _ in 0..take_unsigned(buf)? {
        let (tag, length) = (take_unsigned(buf)?, take_unsigned(buf)?);
        field(tag, buf.take_bytes(length as usize)?)?;
    }
    Some(())
}

/// A count, or null: in four bytes, or one more than itself as a varint.
fn put_count(buf: &mut BytesMut, flexible: bool, count: Option<usize>) {
    match (flexible, count) {
        (true, count) => put_unsigned(buf, count.map_or(0, |count| count as u32 + 1)),
        (false, count) => buf.put_i32(count.map_or(-1, |count| count as i32)),
    }
}

fn take_count(buf: &mut Bytes, flexible: bool) -> Option<Option<u32>> {
    if flexible {
        return Some(take_unsigned(buf)?.checked_sub(1));
    }
    match buf.try_get_i32().ok()? {
        -1 => Some(None),
        count => u32::try_from(count).ok().map(Some),
    }
}

fn put_unsigned(buf: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        buf.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    buf.put_u8(value as u8);
}

fn take_unsigned(buf: &mut Bytes) -> Option<u32> {
    let mut value = 0;
    for shift in (0..35).step_by(7) {
        let byte = buf.try_get_u8().ok()?;
        value |= u32::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ongoing() -> Transit {
        let partitions = [("a".to_owned(), 0), ("a".to_owned(), 7), ("b".to_owned(), 300)];
        Transit {
            producer_id: 1001,
            previous_producer_id: NO_PRODUCER_ID,
            next_producer_id: NO_PRODUCER_ID,
            producer_epoch: 3,
            last_producer_epoch: NO_EPOCH,
            timeout_ms: 60_000,
            state: TransactionState::Ongoing,
            partitions: partitions.into(),
            start_ms: 5,
            update_ms: 6,
            client_version: TransactionVersion::TV_2,
        }
    }

    #[test]
    fn every_record_reads_back_as_written() {
        let id = "payment-1".to_owned();
        for value in [Some(ongoing()), None] {
            let record = TransactionRecord { id: id.clone(), value };
            let (key, value) = record.encode(TransactionVersion::TV_2);
            assert_eq!(TransactionRecord::decode(key, value), Ok(record));
        }
        // Below level 1 the value has no place for the client's version.
        let value = Transit { client_version: TransactionVersion::TV_0, ..ongoing() };
        let record = TransactionRecord { id, value: Some(value) };
        let (key, value) = record.encode(TransactionVersion::TV_0);
        assert_eq!(TransactionRecord::decode(key, value), Ok(record));
    }

    #[test]
    fn values_have_the_bytes_of_kafkas_schema() {
        let value = Transit { partitions: [("a".to_owned(), 7)].into(), ..ongoing() };
        let hex = |bytes: &Bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let flexible = hex(&encode_value(&value, 1));
        let expected = concat!(
            "0001",
            "00000000000003e9",
            "0003",
            "0000ea60",
            "01", // version, producer, epoch, timeout, Ongoing
            "02",
            "0261",
            "02",
            "00000007",
            "00", // one topic `a` with one partition, no tags
            "0000000000000006",
            "0000000000000005", // updated, started
            "01",
            "02",
            "02",
            "0002" // one tag: number 2, two bytes, level 2
        );
        assert_eq!(flexible, expected);
        let plain = hex(&encode_value(&value, 0));
        let expected = concat!(
            "0000",
            "00000000000003e9",
            "0003",
            "0000ea60",
            "01",
            "00000001",
            "000161",
            "00000001",
            "00000007",
            "0000000000000006",
            "0000000000000005"
        );
        assert_eq!(plain, expected);
    }

    #[test]
    fn what_no_coordinator_wrote_is_refused() {
        let bytes = |bytes: &'static [u8]| Some(Bytes::from_static(bytes));
        assert_eq!(TransactionRecord::decode(None, None), Err(UnknownRecord));
        assert_eq!(TransactionRecord::decode(bytes(&[0, 1, 0, 0]), None), Err(UnknownRecord));
        assert_eq!(TransactionRecord::decode(bytes(&[0, 0, 0, 0]), bytes(&[0, 9])), Err(UnknownRecord));
        assert_eq!(TransactionRecord::decode(bytes(&[0, 0, 0, 9, 1]), None), Err(UnknownRecord));
    }
}
