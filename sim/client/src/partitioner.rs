//! Which partition a record goes to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use broker::PartitionId;
use context::{Rng, Timestamp};
use rand::RngExt as _;

/// librdkafka's `partitioner` property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strategy {
    /// Random, keys or not.
    Random,
    /// CRC32 of the key; an empty or missing key has one fixed partition.
    Consistent,
    /// CRC32 of the key; without a key random. The default.
    ConsistentRandom,
    /// Java's hash of the key; without a key random.
    Murmur2Random,
}

impl Strategy {
    pub(crate) const NAMES: [&'static str; 4] =
        ["random", "consistent", "consistent_random", "murmur2_random"];

    pub(crate) fn named(name: &str) -> Option<Strategy> {
        Some(match name {
            "random" => Strategy::Random,
            "consistent" => Strategy::Consistent,
            "consistent_random" => Strategy::ConsistentRandom,
            "murmur2_random" => Strategy::Murmur2Random,
            _ => return None,
        })
    }
}

/// Chooses partitions. Records without a key stick to one random partition of their topic for a while, so that they
/// travel in fewer and larger batches (KIP-480; `sticky.partitioning.linger.ms`).
pub(crate) struct Partitioner {
    strategy: Strategy,
    sticky_for: Duration,
    sticky: BTreeMap<Arc<str>, (PartitionId, Timestamp)>,
    rng: Rng,
}

impl Partitioner {
    pub(crate) fn new(strategy: Strategy, sticky_for: Duration, rng: Rng) -> Partitioner {
        Partitioner { strategy, sticky_for, sticky: BTreeMap::new(), rng }
    }

    /// The partition, out of `count`, for a record with this key.
    pub(crate) fn choose(
        &mut self,
        now: Timestamp,
        topic: &Arc<str>,
        key: Option<&[u8]>,
        count: PartitionId,
    ) -> PartitionId {
        assert!(count > 0, "a topic without partitions has nowhere to put a record");
        let key = key.unwrap_or_default();
        match self.strategy {
            Strategy::Consistent => hashed(crc32(key), count),
            Strategy::ConsistentRandom if !key.is_empty() => hashed(crc32(key), count),
            Strategy::Murmur2Random if !key.is_empty() => hashed(murmur2(key) & 0x7fff_ffff, count),
            Strategy::Random | Strategy::ConsistentRandom | Strategy::Murmur2Random => {
                self.stick(now, topic, count)
            }
        }
    }

    fn stick(&mut self, now: Timestamp, topic: &Arc<str>, count: PartitionId) -> PartitionId {
        match self.sticky.get(topic) {
            Some((partition, until)) if now < *until && *partition < count => *partition,
            _ => {
                let partition = self.rng.random_range(0..count);
                self.sticky.insert(topic.clone(), (partition, now + self.sticky_for));
                partition
            }
        }
    }
}

fn hashed(hash: u32, count: PartitionId) -> PartitionId {
    let count = u32::try_from(count).expect("a count of partitions is not negative");
    PartitionId::try_from(hash % count).expect("less than a count that fits")
}

/// CRC-32 as in zlib (polynomial 0xEDB88320, reflected), which librdkafka hashes keys with.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = crc32_table();
    !bytes.iter().fold(!0, |crc: u32, byte| TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize] ^ (crc >> 8))
}

const fn crc32_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}

/// MurmurHash2 with 32 bits under the seed that Java's client takes.
pub(crate) fn murmur2(bytes: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ (bytes.len() as u32);
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    for (index, byte) in rest.iter().enumerate() {
        hash ^= u32::from(*byte) << (8 * index);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    // The keys and sums of librdkafka's own test (`tests/0048-partitioner.c`).
    const LONG: &str = "this is another string with more length to it perhaps";
    const KEYS: [(&str, u32, u32); 3] = [
        ("23456", 0xb1b4_51d7, 0x058d_780f),
        (LONG, 0xb015_0df7, 0x4f77_03da),
        ("hejsan", 0xd077_037e, 0x5ec1_9395),
    ];

    #[test]
    fn the_hashes_agree_with_librdkafka() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        for (key, crc, murmur) in KEYS {
            assert_eq!(crc32(key.as_bytes()), crc, "{key}");
            assert_eq!(murmur2(key.as_bytes()) & 0x7fff_ffff, murmur, "{key}");
        }
        assert_eq!(murmur2(b"kafka"), 0xd067_cf64);
        assert_eq!(murmur2(b"giberish123456789"), 0x8f55_2b0c);
    }

    #[test]
    fn a_key_has_one_partition() {
        let mut partitioner = partitioner(Strategy::ConsistentRandom);
        let topic: Arc<str> = "t".into();
        for (key, crc, _) in KEYS {
            for millis in [0, 99] {
                let now = Timestamp::from_millis(millis);
                let chosen = partitioner.choose(now, &topic, Some(key.as_bytes()), 100);
                assert_eq!(u32::try_from(chosen), Ok(crc % 100), "{key}");
            }
        }
    }

    #[test]
    fn without_a_key_records_stick_and_then_move_on() {
        let mut partitioner = partitioner(Strategy::ConsistentRandom);
        let topic: Arc<str> = "t".into();
        let mut seen = std::collections::BTreeSet::new();
        for millis in (0..1_000).step_by(10) {
            let first = partitioner.choose(Timestamp::from_millis(millis), &topic, None, 3);
            assert_eq!(first, partitioner.choose(Timestamp::from_millis(millis + 9), &topic, None, 3));
            seen.insert(first);
        }
        assert_eq!(seen.len(), 3);
    }

    fn partitioner(strategy: Strategy) -> Partitioner {
        Partitioner::new(strategy, Duration::from_millis(10), context::Seed(3).stream("partitioner"))
    }
}
