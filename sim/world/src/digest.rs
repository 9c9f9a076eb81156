//! A recorder that keeps a running hash: the shortest way to see whether two runs were the same.

use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use context::{Event, Recorder};
use xxhash_rust::xxh3::Xxh3Default;

/// Hashes every event, and counts them. The harness's own recorder keeps the events too; tests mostly need no more than
/// this.
#[derive(Default)]
pub struct Digest {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    hash: Xxh3Default,
    text: String,
    events: u64,
}

impl Digest {
    /// A recorder that has heard nothing.
    pub fn new() -> Digest {
        Digest::default()
    }

    /// The hash of all events so far.
    pub fn hash(&self) -> u64 {
        self.state().hash.digest()
    }

    /// How many events there were so far.
    pub fn events(&self) -> u64 {
        self.state().events
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recorder for Digest {
    fn record(&self, event: Event<'_>) {
        let mut state = self.state();
        let State { hash, text, events } = &mut *state;
        text.clear();
        write!(text, "{}", event.text).expect("a string takes every text");
        hash.update(&event.at.as_micros().to_le_bytes());
        // Each part goes in with its length, so that no two different events give the same bytes.
        for part in [event.host.as_bytes(), event.kind.word().as_bytes(), text.as_bytes(), event.bytes] {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        *events += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use context::{EventKind, Timestamp};

    fn hash_of(host: &str, text: &str, bytes: &[u8]) -> u64 {
        let digest = Digest::new();
        digest.record(Event {
            at: Timestamp::ZERO,
            host,
            kind: EventKind::Frame,
            text: format_args!("{text}"),
            bytes,
        });
        digest.hash()
    }

    #[test]
    fn one_flipped_byte_changes_the_hash() {
        assert_eq!(hash_of("a", "b", b"payload"), hash_of("a", "b", b"payload"));
        assert_ne!(hash_of("a", "b", b"payload"), hash_of("a", "b", b"paylobd"));
    }

    #[test]
    fn a_byte_that_moves_to_the_next_field_changes_the_hash() {
        assert_ne!(hash_of("ab", "c", b""), hash_of("a", "bc", b""));
    }
}
