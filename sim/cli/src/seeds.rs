//! Which seeds a command runs.

use std::ops::Range;
use std::str::FromStr;

/// `N`, which is `0..N`, or `A..B`; the end is not included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seeds(pub Range<u64>);

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Seeds, String> {
        let number = |text: &str| -> Result<u64, String> {
            text.trim().parse().map_err(|_| format!("`{text}` is not a seed; write `20` or `10..20`"))
        };
        let range = match text.split_once("..") {
            Some((from, to)) => number(from)?..number(to)?,
            None => 0..number(text)?,
        };
        match range.is_empty() {
            true => Err(format!(
                "`{text}` holds no seed: the end is not included, so it must be above the beginning"
            )),
            false => Ok(Seeds(range)),
        }
    }
}

/// `I/N`: the I-th of N machines that share the seeds, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    number: u64,
    of: u64,
}

impl Shard {
    /// Whether this machine runs a seed.
    pub fn has(self, seed: u64) -> bool {
        seed % self.of == self.number - 1
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Shard, String> {
        let shard = text.split_once('/').and_then(|(number, of)| {
            Some(Shard { number: number.trim().parse().ok()?, of: of.trim().parse().ok()? })
        });
        shard
            .filter(|shard| (1..=shard.of).contains(&shard.number))
            .ok_or_else(|| format!("`{text}` is not a shard; write `1/4` to `4/4` for four machines"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_a_range_from_zero() {
        assert_eq!("20".parse(), Ok(Seeds(0..20)));
        assert_eq!("3..9".parse(), Ok(Seeds(3..9)));
    }

    #[test]
    fn a_range_that_ends_before_it_begins_is_refused() {
        for text in ["9..3", "3..3", "0", "x", "1..y", "-1"] {
            assert!(text.parse::<Seeds>().is_err(), "{text}");
        }
    }

    #[test]
    fn shards_share_the_seeds_without_a_gap() {
        let shards: Vec<Shard> = ["1/3", "2/3", "3/3"].map(|text| text.parse().unwrap()).to_vec();
        for seed in 0..20 {
            assert_eq!(shards.iter().filter(|shard| shard.has(seed)).count(), 1, "seed {seed}");
        }
        for text in ["0/3", "4/3", "1", "1/0", "a/b"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }
}
