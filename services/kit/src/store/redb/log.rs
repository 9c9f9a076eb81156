//! The log beside the file: each batch of commits is appended to it, and only now and then does redb take them over.
//!
//! A commit in redb writes a dozen pages, however small it is; here it is one write of as many bytes as were said. Nothing but
//! the next open ever reads the log.
//!
//! # What lies in it
//! Records, one a batch: length of the payload (4 bytes), CRC-32C of what follows (4), generation (8), payload, which is the
//! batch's commits as [`crate::store::journal`] encodes them. Numbers are big endian. redb's file names the generation that it
//! lacks; when it has taken a generation over it names the next, in the same transaction, and the log is written anew from its
//! start. What is left of the old generation behind the new is never read: it is of another generation, or its checksum is of
//! other bytes. So the log is not cut, and its blocks on the disk are used again, which spares a sync the file's length.
//!
//! # Where it ends
//! At the first record that is not whole. One record is written at a time, and the next when it is on the disk: so only the last
//! can be torn, and nobody was told that it is committed. That a disk damages what was synced is not told apart from that.

use std::fmt;
use std::io;

use bytes::{Buf as _, Bytes};
use redb::StorageBackend;

use crate::store::journal::{self, Write};

/// How long the log grows before redb takes it over, in bytes. Much of what is written in that time is overwritten or deleted
/// again (outboxes, steps of sagas), and then redb never sees it; but it must all be read at an open.
pub(super) const FULL: u64 = 4 << 20;

/// Length, checksum and generation.
const HEADER: usize = 4 + 4 + 8;

/// The log of a store.
pub(super) struct Log {
    file: Box<dyn StorageBackend>,
    pub(super) generation: u64,
    end: u64,
    full: u64,
    was_empty: bool,
}

/// Why a log does not belong to its file.
#[derive(Debug, thiserror::Error)]
pub(super) enum LogError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("its log is of generation {log}, and it lacks only {file}: they are not of one time")]
    Ahead { log: u64, file: u64 },
    #[error("a record of its log is whole and does not read")]
    Unreadable,
}

impl Log {
    /// Opens the log of a file that lacks `generation`, and gives what is to be done again.
    ///
    /// # Errors
    /// [`LogError`]; the log is left as it is.
    pub(super) fn open(
        file: Box<dyn StorageBackend>,
        generation: u64,
        full: u64,
    ) -> Result<(Log, Vec<Write>), LogError> {
        let length = usize::try_from(file.len()?).expect("a log fits into memory");
        let mut bytes = vec![0; length];
        file.read(0, &mut bytes)?;
        let mut rest = Bytes::from(bytes);
        let mut writes = Vec::new();
        while let Some((found, payload)) = record(&mut rest.clone()) {
            if found > generation {
                return Err(LogError::Ahead { log: found, file: generation });
            }
            if found < generation {
                break;
            }
            rest.advance(HEADER + payload.len());
            writes.extend(journal::decode(&payload).ok_or(LogError::Unreadable)?);
        }
        let end = (length - rest.len()) as u64;
        Ok((Log { file, generation, end, full, was_empty: length == 0 }, writes))
    }

    /// Whether there was nothing in it when it was opened.
    pub(super) fn was_empty(&self) -> bool {
        self.was_empty
    }

    /// Appends a batch, and waits for the disk as far as the store promises.
    ///
    /// # Errors
    /// The disk's. What the log holds is unknown then.
    pub(super) fn append(&mut self, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut record = Vec::with_capacity(HEADER + payload.len());
        record.extend_from_slice(&length.to_be_bytes());
        record.extend_from_slice(&[0; 4]);
        record.extend_from_slice(&self.generation.to_be_bytes());
        record.extend_from_slice(payload);
        let checksum = crc32c::crc32c(&record[8..]);
        record[4..8].copy_from_slice(&checksum.to_be_bytes());
        self.file.write(self.end, &record)?;
        self.file.sync_data()?;
        self.end += record.len() as u64;
        Ok(())
    }

    /// Whether redb should take it over.
    pub(super) fn is_full(&self) -> bool {
        self.end >= self.full
    }

    /// Begins anew: redb has all of it, and names `generation` as the one that it lacks.
    pub(super) fn restart(&mut self, generation: u64) {
        self.generation = generation;
        self.end = 0;
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Log(generation {}, {} bytes)", self.generation, self.end)
    }
}

/// The generation and payload of the record at the front of `rest`; none if it is not whole.
fn record(rest: &mut Bytes) -> Option<(u64, Bytes)> {
    let length = usize::try_from(rest.try_get_u32().ok()?).ok()?;
    let checksum = rest.try_get_u32().ok()?;
    let sealed = rest.get(..8 + length)?;
    if crc32c::crc32c(sealed) != checksum {
        return None;
    }
    Some((rest.get_u64(), rest.split_to(length)))
}
