//! How a commit is recorded: its writes, in the bytes of an [`EventKind::Commit`].
//!
//! Every store records its commits in the same text and bytes, so that whoever hears of them (a run's hash, a copy of the
//! store in another process) need not know which store it was.
//!
//! The bytes are the writes one after the other: table, key and value, each with its length as a big-endian `u64` before
//! it, then 1, or 0 for a delete, whose value is empty. No two journals share their bytes.

use bytes::{Buf as _, Bytes};
use context::{Context, EventKind};

/// One write of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The table.
    pub table: String,
    /// The key.
    pub key: Bytes,
    /// The value that was put; none if the key was deleted.
    pub value: Option<Bytes>,
}

/// Records the commit of `writes` by the store called `name`.
pub(super) fn record(context: &Context, name: &str, writes: &[Write]) {
    let mut tables = Vec::new();
    for write in writes {
        if !tables.contains(&write.table.as_str()) {
            tables.push(&write.table);
        }
    }
    context.record(
        EventKind::Commit,
        format_args!("{name} wrote {} to {}", writes.len(), tables.join(" ")),
        &encode(writes),
    );
}

/// The bytes of `writes`.
pub fn encode(writes: &[Write]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for write in writes {
        let value = write.value.as_deref();
        for part in [write.table.as_bytes(), &write.key, value.unwrap_or_default()] {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        bytes.push(u8::from(value.is_some()));
    }
    bytes
}

/// The writes of `bytes`; none if they are no journal.
pub fn decode(bytes: &[u8]) -> Option<Vec<Write>> {
    let mut rest = Bytes::copy_from_slice(bytes);
    let mut writes = Vec::new();
    while !rest.is_empty() {
        let table = String::from_utf8(part(&mut rest)?.to_vec()).ok()?;
        let (key, value) = (part(&mut rest)?, part(&mut rest)?);
        let value = match rest.try_get_u8().ok()? {
            0 if value.is_empty() => None,
            1 => Some(value),
            _ => return None,
        };
        writes.push(Write { table, key, value });
    }
    Some(writes)
}

fn part(rest: &mut Bytes) -> Option<Bytes> {
    let length = usize::try_from(rest.try_get_u64().ok()?).ok()?;
    (length <= rest.len()).then(|| rest.split_to(length))
}

#[cfg(test)]
pub(super) mod testing {
    use std::sync::{Arc, Mutex, PoisonError};

    use context::real::RealHost;
    use context::{Event, Recorder, Seed};

    use super::*;

    /// Keeps the text and bytes of commits.
    #[derive(Default)]
    pub(in crate::store) struct Recorded(Mutex<Vec<(String, Vec<u8>)>>);

    impl Recorded {
        pub(in crate::store) fn commits(&self) -> Vec<(String, Vec<u8>)> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
        }
    }

    impl Recorder for Recorded {
        fn record(&self, event: Event<'_>) {
            if event.kind == EventKind::Commit {
                let commit = (event.text.to_string(), event.bytes.to_vec());
                self.0.lock().unwrap_or_else(PoisonError::into_inner).push(commit);
            }
        }
    }

    /// A context whose commits are kept.
    pub(in crate::store) fn recording() -> (Arc<Recorded>, Context) {
        let recorded = Arc::new(Recorded::default());
        (recorded.clone(), RealHost::new("host", Seed(1)).with_recorder(recorded).into_context())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writes() -> Vec<Write> {
        let write = |table: &str, key: &'static str, value: Option<&'static str>| Write {
            table: table.into(),
            key: key.into(),
            value: value.map(Bytes::from),
        };
        vec![write("a", "1", Some("one")), write("b", "", Some("")), write("a", "1", None)]
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        assert_eq!(decode(&encode(&writes())), Some(writes()));
        assert_eq!(decode(&[]), Some(Vec::new()));
    }

    #[test]
    fn a_journal_that_is_cut_does_not_read() {
        let bytes = encode(&writes()[..1]);
        for length in 1..bytes.len() {
            assert_eq!(decode(&bytes[..length]), None, "{length} of {} bytes", bytes.len());
        }
    }

    #[test]
    fn a_commit_names_its_tables_once_each_in_the_order_of_its_writes() {
        let (recorded, context) = testing::recording();
        record(&context, "store", &writes());
        assert_eq!(recorded.commits(), [("store wrote 3 to a b".to_owned(), encode(&writes()))]);
    }
}
