//! Randomness from one seed, in streams that do not disturb each other.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// The generator that is handed out. Its output is fixed by its seed on every platform and in every release.
pub type Rng = ChaCha8Rng;

/// One `u64` decides a run. Every part draws from a stream of its own, derived from the seed and the part's name, so
/// that a new part does not move the draws of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seed(pub u64);

impl Seed {
    /// The stream of the part called `name`. The same name gives the same stream from its start.
    pub fn stream(self, name: &str) -> Rng {
        // Two hashes of 128 bits under different keys fill the 256-bit key.
        let low = xxh3_128_with_seed(name.as_bytes(), self.0);
        let high = xxh3_128_with_seed(name.as_bytes(), !self.0);
        let mut key = [0; 32];
        key[..16].copy_from_slice(&low.to_le_bytes());
        key[16..].copy_from_slice(&high.to_le_bytes());
        ChaCha8Rng::from_seed(key)
    }

    /// A seed of its own for a part that has parts.
    pub fn child(self, name: &str) -> Seed {
        let hash = xxh3_128_with_seed(name.as_bytes(), self.0 ^ 0x5eed);
        Seed(hash as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::Rng as _;

    #[test]
    fn a_stream_depends_on_seed_and_name_only() {
        assert_eq!(Seed(7).stream("order").next_u64(), Seed(7).stream("order").next_u64());
        assert_ne!(Seed(7).stream("order").next_u64(), Seed(8).stream("order").next_u64());
        assert_ne!(Seed(7).stream("order").next_u64(), Seed(7).stream("payment").next_u64());
        assert_ne!(Seed(7).child("a"), Seed(7).child("b"));
    }
}
