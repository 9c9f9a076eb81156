//! What all hosts told, in one order.
//!
//! Hosts in processes of their own tell it through sockets, those that live beside the harness through memory. Whoever
//! takes ([`Inbox::take`]) fixes an instant, then reads every socket until nothing is left, and gets what is stamped up to
//! that instant in the order of the stamps. What a host says before an effect is in its socket before the effect; so
//! whatever was seen of the effect, anywhere, is stamped later and comes later. The commits of stores are told after the
//! effect, and are the exception ([`crate::telegram`]).

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use context::{Event, Recorder, Timestamp};
use harness::check::client::ClientEvent;
use harness::observed::Listening;

use crate::act::Act;
use crate::telegram::{Kind, Telegram, stamp, take_frames};

const READ_BYTES: usize = 256 << 10;

/// A telegram and who sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mail {
    pub(crate) host: String,
    /// Which of the host's processes sent it, in the order of their starts; 0 of a host beside the harness.
    pub(crate) incarnation: u64,
    pub(crate) telegram: Telegram,
}

/// The mail of one run.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By stamp, then by the order of arrival.
    mail: Vec<(u64, Mail)>,
    lines: Vec<Line>,
    /// Where sockets are read into.
    buffer: Vec<u8>,
    trouble: Option<io::Error>,
}

/// The socket of a process.
#[derive(Debug)]
struct Line {
    host: String,
    incarnation: u64,
    socket: UnixStream,
    read: Vec<u8>,
}

impl Inbox {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears of a host through this socket from now on, until its other end is closed and nothing is left in it.
    pub(crate) fn listen(&self, host: &str, incarnation: u64, socket: UnixStream) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let line = Line { host: host.to_owned(), incarnation, socket, read: Vec::new() };
        self.state().lines.push(line);
        Ok(())
    }

    /// Reads all sockets until nothing is left, so that no host waits for room in its own.
    pub(crate) fn drain(&self) {
        self.state().drain();
    }

    /// What was told up to now, in order.
    ///
    /// # Errors
    /// If a host said what cannot be read ([`io::ErrorKind::InvalidData`]), or cannot be heard.
    pub(crate) fn take(&self) -> io::Result<Vec<Mail>> {
        let mut state = self.state();
        let now = stamp();
        state.drain();
        if let Some(trouble) = state.trouble.take() {
            return Err(trouble);
        }
        // The sort is stable: what one host told within a microsecond stays in its order.
        state.mail.sort_by_key(|(stamp, _)| *stamp);
        let taken = state.mail.partition_point(|(stamp, _)| *stamp <= now);
        Ok(state.mail.drain(..taken).map(|(_, mail)| mail).collect())
    }

    /// Takes what a host beside the harness tells. Stamped within the lock, so that each stream of stamps is in order.
    fn put(&self, host: &str, telegram: Telegram) {
        let mut state = self.state();
        state.mail.push((stamp(), Mail { host: host.to_owned(), incarnation: 0, telegram }));
    }
}

impl State {
    fn drain(&mut self) {
        let State { mail, lines, buffer, trouble } = self;
        buffer.resize(READ_BYTES, 0);
        lines.retain_mut(|line| match line.drain(buffer, mail) {
            Ok(open) => open,
            Err(error) => {
                trouble.get_or_insert(io::Error::new(error.kind(), format!("{}: {error}", line.host)));
                false
            }
        });
    }
}

impl Line {
    /// Whether more may come.
    fn drain(&mut self, buffer: &mut [u8], mail: &mut Vec<(u64, Mail)>) -> io::Result<bool> {
        let open = loop {
            match self.socket.read(buffer) {
                // A process that was killed in the middle of a frame has not said it.
                Ok(0) => break false,
                Ok(count) => self.read.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Killed with something unread in its own end.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break false,
                Err(error) => return Err(error),
            }
        };
        for (stamp, telegram) in take_frames(&mut self.read)? {
            let (host, incarnation) = (self.host.clone(), self.incarnation);
            mail.push((stamp, Mail { host, incarnation, telegram }));
        }
        Ok(open)
    }
}

/// The events of hosts beside the harness, without frames and timers.
#[derive(Debug)]
pub(crate) struct Posting(pub(crate) Arc<Inbox>);

impl Recorder for Posting {
    fn record(&self, event: Event<'_>) {
        if let Some(telegram) = told(&event) {
            self.0.put(event.host, telegram);
        }
    }
}

impl Listening for Posting {
    fn hear(&self, at: Timestamp, event: &ClientEvent<'_>) {
        self.0.put(event.host, heard(at, event));
    }
}

/// What is told of an event; nothing of frames and timers, which no check sees.
pub(crate) fn told(event: &Event<'_>) -> Option<Telegram> {
    Some(Telegram::Event {
        at_us: event.at.as_micros(),
        kind: Kind::of(event.kind)?,
        text: event.text.to_string(),
        bytes: event.bytes.to_vec(),
    })
}

/// What is told of a client.
pub(crate) fn heard(at: Timestamp, event: &ClientEvent<'_>) -> Telegram {
    Telegram::Client { at_us: at.as_micros(), client: event.client.0, act: Act::of(&event.act) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telegram::frame;
    use std::io::Write as _;

    fn state(byte: u8) -> Telegram {
        Telegram::State { at_us: 0, bytes: vec![byte] }
    }

    fn taken(inbox: &Inbox) -> Vec<(String, u8)> {
        let first = |telegram: Telegram| match telegram {
            Telegram::State { bytes, .. } => bytes[0],
            other => panic!("{other:?}"),
        };
        inbox.take().unwrap().into_iter().map(|mail| (mail.host, first(mail.telegram))).collect()
    }

    #[test]
    fn what_several_hosts_told_comes_in_the_order_of_its_stamps() {
        let inbox = Inbox::default();
        let ends: Vec<UnixStream> = ["a", "b"]
            .into_iter()
            .map(|host| {
                let (ours, theirs) = UnixStream::pair().unwrap();
                inbox.listen(host, 0, ours).unwrap();
                theirs
            })
            .collect();
        (&ends[0]).write_all(&frame(30, &state(3))).unwrap();
        (&ends[1]).write_all(&frame(10, &state(1))).unwrap();
        (&ends[1]).write_all(&frame(20, &state(2))).unwrap();
        inbox.put("c", state(4));
        let told = [("b", 1), ("b", 2), ("a", 3), ("c", 4)].map(|(host, byte)| (host.to_owned(), byte));
        assert_eq!(taken(&inbox), told);
        assert!(taken(&inbox).is_empty());
    }

    #[test]
    fn what_is_stamped_after_the_instant_of_taking_waits() {
        let inbox = Inbox::default();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        inbox.listen("a", 0, ours).unwrap();
        let soon = stamp() + 50_000;
        theirs.write_all(&frame(soon, &state(1))).unwrap();
        assert!(taken(&inbox).is_empty());
        while stamp() < soon {
            std::hint::spin_loop();
        }
        assert_eq!(taken(&inbox), [("a".to_owned(), 1)]);
    }

    #[test]
    fn a_host_that_dies_in_the_middle_of_a_frame_has_said_what_came_before() {
        let inbox = Inbox::default();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        inbox.listen("a", 0, ours).unwrap();
        theirs.write_all(&frame(1, &state(1))).unwrap();
        theirs.write_all(&frame(2, &state(2))[..9]).unwrap();
        drop(theirs);
        assert_eq!(taken(&inbox), [("a".to_owned(), 1)]);
        assert!(inbox.state().lines.is_empty(), "its line is gone");
    }

    #[test]
    fn what_a_killed_process_said_is_told_from_what_its_successor_says() {
        let inbox = Inbox::default();
        for incarnation in [0, 1] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            inbox.listen("a", incarnation, ours).unwrap();
            theirs.write_all(&frame(1 + incarnation, &state(7))).unwrap();
        }
        let mail = inbox.take().unwrap().into_iter();
        assert_eq!(mail.map(|mail| mail.incarnation).collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn what_no_host_would_say_is_an_error_that_names_the_host() {
        let inbox = Inbox::default();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        inbox.listen("a", 0, ours).unwrap();
        theirs.write_all(&[0xff; 32]).unwrap();
        assert!(inbox.take().unwrap_err().to_string().starts_with("a: what a host said"));
    }
}
