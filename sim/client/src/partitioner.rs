//! Which partition a record goes to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use broker::PartitionId;
use context::{Rng, Timestamp};
use rand::RngExt as _;

use crate::properties::ProducerSettings;

/// The `partitioner` property: librdkafka's values, and `java` for what Java's producer does without a
/// `partitioner.class`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strategy {
    /// Random, keys or not; without a key it sticks for a while.
    Random,
    /// CRC32 of the key; an empty or missing key has one fixed partition.
    Consistent,
    /// CRC32 of the key; without a key, or with an empty one, random. librdkafka's default.
    ConsistentRandom,
    /// Java's hash of the key; an empty or missing key has one fixed partition.
    Murmur2,
    /// Java's hash of the key; without a key random.
    Murmur2Random,
    /// Sarama's hash of the key; an empty or missing key has one fixed partition.
    Fnv1a,
    /// Sarama's hash of the key; without a key random.
    Fnv1aRandom,
    /// Java's hash of the key; without a key one partition until `batch.size` bytes went to it, then another (KIP-794).
    Java,
}

impl Strategy {
    pub(crate) const NAMES: [&'static str; 8] = [
        "random",
        "consistent",
        "consistent_random",
        "murmur2",
        "murmur2_random",
        "fnv1a",
        "fnv1a_random",
        "java",
    ];

    pub(crate) fn named(name: &str) -> Option<Strategy> {
        Some(match name {
            "random" => Strategy::Random,
            "consistent" => Strategy::Consistent,
            "consistent_random" => Strategy::ConsistentRandom,
            "murmur2" => Strategy::Murmur2,
            "murmur2_random" => Strategy::Murmur2Random,
            "fnv1a" => Strategy::Fnv1a,
            "fnv1a_random" => Strategy::Fnv1aRandom,
            "java" => Strategy::Java,
            _ => return None,
        })
    }
}

/// Chooses partitions. Records without a key stick to one random partition of their topic for a while, so that they
/// travel in fewer and larger batches: with librdkafka's strategies for a time (KIP-480;
/// `sticky.partitioning.linger.ms`), with Java's for `batch.size` bytes. Java also prefers partitions whose queue is
/// short; that is left out.
pub(crate) struct Partitioner {
    strategy: Strategy,
    sticky_for: Duration,
    sticky_bytes: usize,
    sticky: BTreeMap<Arc<str>, Sticky>,
    rng: Rng,
}

/// The partition that a topic's records without a key go to.
struct Sticky {
    partition: PartitionId,
    until: Timestamp,
    bytes: usize,
}

impl Partitioner {
    pub(crate) fn new(settings: &ProducerSettings, rng: Rng) -> Partitioner {
        Partitioner {
            strategy: settings.partitioner,
            sticky_for: settings.sticky_linger,
            sticky_bytes: settings.batch_bytes_max,
            sticky: BTreeMap::new(),
            rng,
        }
    }

    /// The partition, out of `count`, for a record of so many bytes with this key.
    pub(crate) fn choose(
        &mut self,
        now: Timestamp,
        topic: &Arc<str>,
        key: Option<&[u8]>,
        bytes: usize,
        count: PartitionId,
    ) -> PartitionId {
        assert!(count > 0, "a topic without partitions has nowhere to put a record");
        let text = key.unwrap_or_default();
        match (self.strategy, key) {
            (Strategy::Consistent, _) => hashed(crc32(text), count),
            (Strategy::ConsistentRandom, _) if !text.is_empty() => hashed(crc32(text), count),
            (Strategy::Murmur2, _) | (Strategy::Murmur2Random | Strategy::Java, Some(_)) => {
                hashed(murmur2(text) & 0x7fff_ffff, count)
            }
            (Strategy::Fnv1a, _) | (Strategy::Fnv1aRandom, Some(_)) => hashed(fnv1a(text), count),
            // Only records without a key stick (`rd_kafka_msg_partitioner`).
            (Strategy::Random, Some(_)) => self.rng.random_range(0..count),
            (Strategy::Java, None) => self.stick_for_bytes(topic, bytes, count),
            (
                Strategy::Random
                | Strategy::ConsistentRandom
                | Strategy::Murmur2Random
                | Strategy::Fnv1aRandom,
                _,
            ) => self.stick_for_time(now, topic, count),
        }
    }

    fn stick_for_time(&mut self, now: Timestamp, topic: &Arc<str>, count: PartitionId) -> PartitionId {
        match self.sticky.get(topic) {
            Some(sticky) if now < sticky.until && sticky.partition < count => sticky.partition,
            _ => {
                let partition = self.rng.random_range(0..count);
                let until = now + self.sticky_for;
                self.sticky.insert(topic.clone(), Sticky { partition, until, bytes: 0 });
                partition
            }
        }
    }

    fn stick_for_bytes(&mut self, topic: &Arc<str>, bytes: usize, count: PartitionId) -> PartitionId {
        match self.sticky.get_mut(topic) {
            Some(sticky) if sticky.bytes < self.sticky_bytes && sticky.partition < count => {
                sticky.bytes += bytes;
                sticky.partition
            }
            _ => {
                let partition = self.rng.random_range(0..count);
                let sticky = Sticky { partition, until: Timestamp::FAR_FUTURE, bytes };
                self.sticky.insert(topic.clone(), sticky);
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

/// FNV-1a with 32 bits, made positive as Sarama's partitioner makes it.
pub(crate) fn fnv1a(bytes: &[u8]) -> u32 {
    let hash =
        bytes.iter().fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    hash.cast_signed().unsigned_abs()
}

#[cfg(test)]
mod tests {
    use broker::Properties;

    use crate::properties::Settings;

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
        let mut partitioner = partitioner("consistent_random");
        let topic: Arc<str> = "t".into();
        for (key, crc, _) in KEYS {
            for millis in [0, 99] {
                let now = Timestamp::from_millis(millis);
                let chosen = partitioner.choose(now, &topic, Some(key.as_bytes()), 10, 100);
                assert_eq!(u32::try_from(chosen), Ok(crc % 100), "{key}");
            }
        }
    }

    #[test]
    fn without_a_key_records_stick_and_then_move_on() {
        let mut partitioner = partitioner("consistent_random");
        let topic: Arc<str> = "t".into();
        let mut seen = std::collections::BTreeSet::new();
        for millis in (0..1_000).step_by(10) {
            let first = partitioner.choose(Timestamp::from_millis(millis), &topic, None, 10, 3);
            assert_eq!(first, partitioner.choose(Timestamp::from_millis(millis + 9), &topic, None, 10, 3));
            seen.insert(first);
        }
        assert_eq!(seen.len(), 3);
    }

    #[test]
    fn under_random_records_with_a_key_do_not_stick() {
        let topic: Arc<str> = "t".into();
        let seen = |key: Option<&[u8]>| {
            let mut partitioner = partitioner("random");
            let chosen = (0..100).map(|_| partitioner.choose(Timestamp::ZERO, &topic, key, 10, 3));
            chosen.collect::<std::collections::BTreeSet<_>>().len()
        };
        assert_eq!((seen(Some(b"k")), seen(Some(b"")), seen(None)), (3, 3, 1));
    }

    #[test]
    fn javas_records_without_a_key_move_on_after_a_batch_of_bytes() {
        let mut partitioner = partitioner("java");
        let topic: Arc<str> = "t".into();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..100 {
            let first = partitioner.choose(Timestamp::ZERO, &topic, None, 600_000, 3);
            let second = partitioner.choose(Timestamp::from_millis(60_000), &topic, None, 600_000, 3);
            assert_eq!(first, second, "time alone moves nothing");
            seen.insert(first);
        }
        assert_eq!(seen.len(), 3);
    }

    #[test]
    fn an_empty_key_is_a_key_to_java_and_none_to_librdkafka() {
        let topic: Arc<str> = "t".into();
        let empty = |name: &str| {
            let mut partitioner = partitioner(name);
            let millis = (0..1_000).map(Timestamp::from_millis);
            millis.map(|now| partitioner.choose(now, &topic, Some(b""), 10, 3)).collect::<Vec<_>>()
        };
        for name in ["java", "murmur2", "murmur2_random", "fnv1a", "fnv1a_random", "consistent"] {
            let chosen = empty(name);
            assert!(chosen.iter().all(|partition| *partition == chosen[0]), "{name}");
        }
        let chosen = empty("consistent_random");
        assert!(chosen.iter().any(|partition| *partition != chosen[0]));
    }

    #[test]
    fn the_sum_of_sarama_agrees_with_librdkafka() {
        // From librdkafka's `rdfnv1a.c`.
        assert_eq!(fnv1a(b"kafka"), 0x0d33_c4e1);
        assert_eq!(fnv1a(b"giberish123456789"), 0x77a5_8295);
        assert_eq!(fnv1a(b"1234"), 0x023b_dd03);
        assert_eq!(fnv1a(b""), 0x7ee3_623b);
    }

    fn partitioner(name: &str) -> Partitioner {
        let properties = Properties::new().set("bootstrap.servers", "b").set("partitioner", name);
        let settings = Settings::read(&properties).expect("sound properties");
        Partitioner::new(&settings.producer, context::Seed(3).stream("partitioner"))
    }
}
