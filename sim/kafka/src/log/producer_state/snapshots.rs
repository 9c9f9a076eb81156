//! Snapshots: the producers as they were when the log ended at an offset. They lie on disk beside the batches, each in a file
//! `00000000000000000042.snapshot` of its own, in Kafka's format (`ProducerSnapshot`, version 1).
//!
//! One is taken when a segment is rolled, when a log is loaded or cut, and at a clean shutdown. Those at or before the
//! log's start go; what they knew is in the later ones. So a producer whose records were all deleted is still known after
//! a restart, until it expires, if a snapshot was taken after the log's present start; and one is taken when a log is recovered
//! that was not shut down, of all that is in the segments that may not have been flushed, deleted records included.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{Producer, Producers, Remembered};

const VERSION: i16 = 1;
/// Where the part begins that the checksum is of: after version and checksum.
const CHECKED_FROM: usize = 6;
const ENTRY_LEN: usize = 46;

/// Why a file is no snapshot (`CorruptSnapshotException`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CorruptSnapshot {
    /// It was written by another program.
    #[error("version {0} of the producer snapshot is not 1")]
    Version(i16),
    /// Bytes of it have changed.
    #[error("the checksum of the producer snapshot is wrong")]
    Checksum,
    /// Bytes of it are missing, or there are too many.
    #[error("the producer snapshot does not have the length that it says")]
    Length,
}

#[derive(Clone, Debug)]
struct Snapshot {
    producers: Producers,
    /// Tells it from another at the same offset.
    taken: u64,
}

/// The snapshots of a log, by the offset at which it ended.
#[derive(Clone, Debug, Default)]
pub struct Snapshots {
    by_offset: BTreeMap<i64, Snapshot>,
}

impl Snapshots {
    /// Reads a file.
    ///
    /// # Errors
    /// [`CorruptSnapshot`]; Kafka removes such a file and goes by an older one.
    pub(crate) fn read(&mut self, offset: i64, file: &[u8]) -> Result<(), CorruptSnapshot> {
        let producers = decode(file)?;
        self.by_offset.insert(offset, Snapshot { producers, taken: 0 });
        Ok(())
    }

    /// The snapshots, each with a number that is another when it was taken anew.
    pub(crate) fn taken(&self) -> impl Iterator<Item = (i64, u64)> {
        self.by_offset.iter().map(|(&offset, snapshot)| (offset, snapshot.taken))
    }

    /// The file of the snapshot at `offset`.
    ///
    /// # Panics
    /// If there is none.
    pub(crate) fn file(&self, offset: i64) -> Bytes {
        encode(&self.by_offset[&offset].producers)
    }

    /// Drops those that no segment begins at, but for the newest, which a clean shutdown took
    /// (`ProducerStateManager.removeStraySnapshots`).
    pub(crate) fn drop_strays(&mut self, base_offsets: &[i64]) {
        let newest = self.by_offset.last_key_value().map(|(&offset, _)| offset);
        self.by_offset.retain(|offset, _| base_offsets.contains(offset) || Some(*offset) == newest);
    }

    pub(super) fn insert(&mut self, offset: i64, producers: Producers, taken: u64) {
        self.by_offset.insert(offset, Snapshot { producers, taken });
    }

    pub(super) fn latest(&self) -> Option<(i64, &Producers)> {
        self.by_offset.last_key_value().map(|(&offset, snapshot)| (offset, &snapshot.producers))
    }

    /// Drops those that say nothing of a log from `start_offset` to `end_offset`.
    pub(super) fn keep_within(&mut self, start_offset: i64, end_offset: i64) {
        self.by_offset.retain(|&offset, _| offset > start_offset && offset <= end_offset);
    }

    /// The log now begins at `start_offset`: older ones will not be read again.
    pub fn drop_through(&mut self, start_offset: i64) {
        self.by_offset = self.by_offset.split_off(&(start_offset + 1));
    }
}

fn encode(producers: &Producers) -> Bytes {
    let mut checked = BytesMut::with_capacity(4 + producers.len() * ENTRY_LEN);
    checked.put_i32(producers.len() as i32);
    for (&id, producer) in producers {
        let last = producer.batches.back();
        checked.put_i64(id);
        checked.put_i16(producer.epoch);
        checked.put_i32(producer.last_sequence());
        checked.put_i64(last.map_or(-1, |last| last.last_offset));
        checked.put_i32(last.map_or(0, |last| (last.last_offset - last.base_offset) as i32));
        checked.put_i64(producer.last_timestamp);
        checked.put_i32(producer.coordinator_epoch);
        checked.put_i64(producer.transaction_start.unwrap_or(-1));
    }
    let mut file = BytesMut::with_capacity(CHECKED_FROM + checked.len());
    file.put_i16(VERSION);
    file.put_u32(crc32c::crc32c(&checked));
    file.extend_from_slice(&checked);
    file.freeze()
}

fn decode(mut file: &[u8]) -> Result<Producers, CorruptSnapshot> {
    if file.len() < CHECKED_FROM + 4 {
        return Err(CorruptSnapshot::Length);
    }
    let version = file.get_i16();
    if version != VERSION {
        return Err(CorruptSnapshot::Version(version));
    }
    if file.get_u32() != crc32c::crc32c(file) {
        return Err(CorruptSnapshot::Checksum);
    }
    let count = usize::try_from(file.get_i32()).map_err(|_| CorruptSnapshot::Length)?;
    if count.checked_mul(ENTRY_LEN) != Some(file.len()) {
        return Err(CorruptSnapshot::Length);
    }
    Ok((0..count).map(|_| entry(&mut file)).collect())
}

/// One producer with its id; its length was checked.
fn entry(file: &mut &[u8]) -> (i64, Producer) {
    let (id, epoch, last_sequence) = (file.get_i64(), file.get_i16(), file.get_i32());
    let (last_offset, offset_delta) = (file.get_i64(), file.get_i32());
    let (last_timestamp, coordinator_epoch) = (file.get_i64(), file.get_i32());
    let transaction_start = Some(file.get_i64()).filter(|&offset| offset >= 0);
    let last = (last_offset >= 0).then(|| Remembered {
        first_sequence: super::batch::wrap_sequence(i64::from(last_sequence) - i64::from(offset_delta)),
        last_sequence,
        base_offset: last_offset - i64::from(offset_delta),
        last_offset,
        max_timestamp: last_timestamp,
    });
    let batches = last.into_iter().collect();
    (id, Producer { epoch, coordinator_epoch, last_timestamp, transaction_start, batches })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn producers() -> Producers {
        let batch = |first_sequence, last_sequence| Remembered {
            first_sequence,
            last_sequence,
            base_offset: 40,
            last_offset: 42,
            max_timestamp: 1_000,
        };
        let producer = |batch: Option<Remembered>, transaction_start| Producer {
            epoch: 3,
            coordinator_epoch: 2,
            last_timestamp: 1_000,
            transaction_start,
            batches: batch.into_iter().collect(),
        };
        [
            (7, producer(Some(batch(4, 6)), None)),
            (8, producer(Some(batch(i32::MAX - 1, 0)), Some(40))),
            (9, producer(None, None)),
        ]
        .into()
    }

    #[test]
    fn producers_read_back_as_written() {
        assert_eq!(decode(&encode(&producers())), Ok(producers()));
        assert_eq!(decode(&encode(&Producers::new())), Ok(Producers::new()));
    }

    #[test]
    fn the_bytes_are_kafkas() {
        let file = encode(&[(9, producers()[&9].clone())].into());
        let mut wanted = vec![0, 1];
        wanted.extend(crc32c::crc32c(&file[6..]).to_be_bytes());
        wanted.extend([0, 0, 0, 1]);
        wanted.extend([0, 0, 0, 0, 0, 0, 0, 9, 0, 3]);
        wanted.extend([[0xff; 4].as_slice(), &[0xff; 8], &[0; 4]].concat());
        wanted.extend(1_000_i64.to_be_bytes());
        wanted.extend([0, 0, 0, 2]);
        wanted.extend([0xff; 8]);
        assert_eq!(&file[..], wanted);
    }

    #[test]
    fn any_damage_is_told() {
        let file = encode(&producers());
        for at in 0..file.len() {
            let mut damaged = file.to_vec();
            damaged[at] ^= 0x10;
            assert!(decode(&damaged).is_err(), "byte {at}");
            assert!(decode(&file[..at]).is_err(), "cut to {at}");
        }
    }

    #[test]
    fn strays_go_but_the_newest_stays() {
        let mut snapshots = Snapshots::default();
        [3, 5, 8, 9].into_iter().for_each(|offset| snapshots.insert(offset, producers(), 0));
        snapshots.drop_strays(&[0, 5]);
        assert_eq!(snapshots.taken().map(|(offset, _)| offset).collect::<Vec<_>>(), [5, 9]);
    }
}
