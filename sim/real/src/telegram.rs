//! What a host in a process of its own and the harness say to each other, over one Unix socket.
//!
//! The harness sends an [`Engagement`], once; from then on the host sends [`Telegram`]s, each with a stamp of the
//! machine's monotonic clock, which is one clock for all processes. What a host says before an effect is written to the socket
//! before the effect, so whoever has read every socket until nothing is left, and sorts by stamps, sees causes before
//! effects, across processes as well.
//!
//! One effect is seen before it is told: the commit of a store. It is told when it is done, and by then others of the process
//! may have read what it wrote: the relay may have sent a row whose commit comes later. So no check may take an order from
//! commits to records; and what a process commits and cannot tell any more, its successor tells ([`Telegram::State`]).
//!
//! A frame is its length (four bytes, little-endian, of all that follows), the stamp (eight), and the body in postcard's
//! format.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::PathBuf;

use context::EventKind;
use rustix::time::{ClockId, clock_gettime};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::act::Act;

/// Beyond this a frame is not one of ours. The largest are a store's whole contents.
const FRAME_BYTES_MAX: usize = 1 << 30;
const HEADER_BYTES: usize = 4;
const STAMP_BYTES: usize = 8;

/// What a process is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Engagement {
    /// The scenario's file, for its name and in errors.
    pub(crate) file: PathBuf,
    /// What the harness read in it.
    pub(crate) text: String,
    /// The run's seed.
    pub(crate) seed: u64,
    /// From which the run's times count, in microseconds since the Unix epoch.
    pub(crate) began_us: u64,
    /// The host.
    pub(crate) host: String,
    /// How often it was started before.
    pub(crate) incarnation: u64,
    /// `bootstrap.servers`.
    pub(crate) bootstrap: String,
    /// Stands before the name of every topic, group and transactional id.
    pub(crate) prefix: String,
    /// A folder that outlives the process.
    pub(crate) data: PathBuf,
    /// Where ports of other hosts really are.
    pub(crate) peers: Vec<(String, u16, SocketAddr)>,
    /// Where its own ports really are.
    pub(crate) ports: Vec<(u16, u16)>,
    /// Its clients and sends are numbered after this, so that no two processes use a number.
    pub(crate) last_number: u64,
}

/// What a host tells. Times are microseconds of its clock, since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Telegram {
    /// Something was recorded: a commit, a fault, a note.
    Event { at_us: u64, kind: Kind, text: String, bytes: Vec<u8> },
    /// A client of Kafka did or was told something.
    Client { at_us: u64, client: u64, act: Act },
    /// The system under test tells its own window of what the host keeps.
    State { at_us: u64, bytes: Vec<u8> },
}

/// The kinds of events that are told. Frames and timers are not: no check sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    Commit,
    Fault,
    Note,
    Trouble,
}

impl Kind {
    pub(crate) fn of(kind: EventKind) -> Option<Kind> {
        match kind {
            EventKind::Frame | EventKind::Timer => None,
            EventKind::Commit => Some(Kind::Commit),
            EventKind::Fault => Some(Kind::Fault),
            EventKind::Note => Some(Kind::Note),
            EventKind::Trouble => Some(Kind::Trouble),
        }
    }

    pub(crate) fn as_event(self) -> EventKind {
        match self {
            Kind::Commit => EventKind::Commit,
            Kind::Fault => EventKind::Fault,
            Kind::Note => EventKind::Note,
            Kind::Trouble => EventKind::Trouble,
        }
    }
}

/// Microseconds of the machine's monotonic clock, the same for every process on it.
pub(crate) fn stamp() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let (seconds, nanos) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
    seconds * 1_000_000 + nanos / 1_000
}

/// One frame.
pub(crate) fn frame(stamp: u64, body: &impl Serialize) -> Vec<u8> {
    let frame = vec![0; HEADER_BYTES];
    let mut frame = postcard::to_extend(&stamp.to_le_bytes(), frame).expect("memory takes what is written");
    frame = postcard::to_extend(body, frame).expect("a telegram has no part that postcard refuses");
    let length = u32::try_from(frame.len() - HEADER_BYTES).expect("a frame is shorter than 4 GiB");
    frame[..HEADER_BYTES].copy_from_slice(&length.to_le_bytes());
    frame
}

/// Reads one frame, and waits for it.
pub(crate) fn read_frame<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<T> {
    let mut length = [0; HEADER_BYTES];
    from.read_exact(&mut length)?;
    let mut frame = vec![0; length_of(length)?];
    from.read_exact(&mut frame)?;
    body(&frame).map(|(_, body)| body)
}

/// Takes all whole frames off what was read so far, each with its stamp.
pub(crate) fn take_frames<T: DeserializeOwned>(read: &mut Vec<u8>) -> io::Result<Vec<(u64, T)>> {
    let (mut taken, mut from) = (Vec::new(), 0);
    while let Some(length) = read[from..].first_chunk::<HEADER_BYTES>() {
        let begin = from + HEADER_BYTES;
        let end = begin + length_of(*length)?;
        let Some(frame) = read.get(begin..end) else { break };
        taken.push(body(frame)?);
        from = end;
    }
    read.drain(..from);
    Ok(taken)
}

fn length_of(bytes: [u8; HEADER_BYTES]) -> io::Result<usize> {
    let length = u32::from_le_bytes(bytes) as usize;
    if (STAMP_BYTES..=FRAME_BYTES_MAX).contains(&length) { Ok(length) } else { Err(no_frame("its length")) }
}

fn body<T: DeserializeOwned>(frame: &[u8]) -> io::Result<(u64, T)> {
    let (stamp, body) = frame.split_first_chunk::<STAMP_BYTES>().ok_or_else(|| no_frame("its stamp"))?;
    let body = postcard::from_bytes(body).map_err(|error| no_frame(&error.to_string()))?;
    Ok((u64::from_le_bytes(*stamp), body))
}

fn no_frame(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("what a host said cannot be read: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::act::testing::acts;

    #[test]
    fn what_a_client_did_is_the_same_on_the_other_side() {
        let mut read = Vec::new();
        for (number, act) in (0..).zip(acts()) {
            read.extend(frame(number, &Telegram::Client { at_us: 5, client: 9, act }));
        }
        let taken = take_frames::<Telegram>(&mut read).unwrap();
        let sent =
            (0..).zip(acts()).map(|(number, act)| (number, Telegram::Client { at_us: 5, client: 9, act }));
        assert_eq!(taken, sent.collect::<Vec<_>>());
        assert!(read.is_empty());
    }

    #[test]
    fn a_frame_that_is_cut_waits_for_its_rest_and_one_that_is_none_is_refused() {
        let telegram = Telegram::State { at_us: 1, bytes: vec![7; 300] };
        let whole = frame(42, &telegram);
        for length in 0..whole.len() {
            let mut read = whole[..length].to_vec();
            assert!(take_frames::<Telegram>(&mut read).unwrap().is_empty(), "{length} of {}", whole.len());
            assert_eq!(read.len(), length);
        }
        assert_eq!(read_frame::<Telegram>(&mut whole.as_slice()).unwrap(), telegram);
        let mut nonsense = vec![0xff; 16];
        assert!(take_frames::<Telegram>(&mut nonsense).is_err());
    }

    #[test]
    fn stamps_do_not_go_back() {
        let stamps: Vec<u64> = (0..1_000).map(|_| stamp()).collect();
        assert!(stamps.is_sorted());
    }
}
