//! Every event of a run, in order: into the running hash, the trace if one is wanted, and the checks.
//!
//! Two runs with the same hash after the same number of events did the same things at the same times. The hash covers
//! time, host, kind, text and bytes of each event; the text is formatted straight into it. A run hashes hundreds of
//! thousands of events, so nothing is allocated for one unless somebody reads it.

use std::fmt::{self, Write as _};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use context::{Event, EventKind, Recorder, Timestamp};
use xxhash_rust::xxh3::Xxh3Default;

use crate::check::client::ClientEvent;
use crate::check::{Moment, Occasion, Watch};

/// The recorder of one run.
pub struct RunRecorder {
    state: Mutex<State>,
    watch: Arc<Watch>,
    began: Timestamp,
}

struct State {
    hasher: Box<Xxh3Default>,
    events: u64,
    trace: Option<Trace>,
    began: Timestamp,
}

/// Where the lines of a run go, and which.
pub struct Trace {
    out: Box<dyn io::Write + Send>,
    detail: Detail,
    line: String,
    failed: Option<io::Error>,
}

/// How much of a run is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// One line for each event.
    Events,
    /// The hash alone, after every so many events: what comparing two runs needs as long as they agree.
    Checkpoints(u64),
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    /// How many events there were.
    pub events: u64,
    /// The hash over all of them.
    pub hash: u64,
}

impl Trace {
    /// A trace that is written to `out`.
    pub fn new(out: impl io::Write + Send + 'static, detail: Detail) -> Trace {
        Trace { out: Box::new(out), detail, line: String::new(), failed: None }
    }

    fn write(&mut self, number: u64, hash: u64, since: Duration, event: &Event<'_>) {
        if self.failed.is_some() {
            return;
        }
        self.line.clear();
        let formatted = match self.detail {
            Detail::Checkpoints(every) if number.is_multiple_of(every) => {
                writeln!(self.line, "checkpoint e{number:06} #{hash:016x}")
            }
            Detail::Checkpoints(_) => return,
            Detail::Events => write_line(&mut self.line, number, hash, since, event),
        };
        formatted.expect("a string takes what is written to it");
        // A reader that has seen enough closes its end; the run goes on, and whoever asked for the trace is told.
        if let Err(error) = self.out.write_all(self.line.as_bytes()) {
            self.failed = Some(error);
        }
    }
}

/// `[   12.345s e000123] host kind text #hash`
fn write_line(line: &mut String, number: u64, hash: u64, since: Duration, event: &Event<'_>) -> fmt::Result {
    let host = if event.host.is_empty() { "world" } else { event.host };
    write!(
        line,
        "[{:>5}.{:03}s e{number:06}] {host} {} {}",
        since.as_secs(),
        since.subsec_millis(),
        event.kind.word(),
        event.text
    )?;
    if !event.bytes.is_empty() {
        write!(line, " ({} bytes)", event.bytes.len())?;
    }
    // Eight digits tell two runs apart as well as sixteen do; the whole hash stands at the end.
    writeln!(line, " #{:08x}", hash >> 32)
}

impl RunRecorder {
    /// A recorder at the beginning of a run, whose times count from `began`; the checks of `watch` hear of its events.
    pub fn new(watch: Arc<Watch>, trace: Option<Trace>, began: Timestamp) -> RunRecorder {
        let state = State { hasher: Box::new(Xxh3Default::new()), events: 0, trace, began };
        RunRecorder { state: Mutex::new(state), watch, began }
    }

    /// Shows the checks what a client did or was told. It is no event of its own: the bytes on the wire are.
    pub fn show_client(&self, at: Timestamp, event: &ClientEvent<'_>) {
        let moment = Moment { at: at.since(self.began), event: self.events() };
        self.watch.look(moment, Occasion::Client(event));
    }

    /// Where the run stands.
    pub fn digest(&self) -> Digest {
        let state = self.state();
        Digest { events: state.events, hash: state.hasher.digest() }
    }

    /// The number of the last event.
    pub fn events(&self) -> u64 {
        self.state().events
    }

    /// Ends the trace.
    ///
    /// # Errors
    /// The first error in writing it.
    pub fn finish(&self) -> io::Result<()> {
        let Some(mut trace) = self.state().trace.take() else { return Ok(()) };
        match trace.failed.take() {
            Some(error) => Err(error),
            None => trace.out.flush(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recorder for RunRecorder {
    fn record(&self, event: Event<'_>) {
        let number = self.state().take(&event);
        if event.kind.is_note() || matches!(event.kind, EventKind::Commit | EventKind::Fault) {
            let moment = Moment { at: event.at.since(self.began), event: number };
            self.watch.look(moment, Occasion::Event(&event));
        }
    }
}

impl State {
    fn take(&mut self, event: &Event<'_>) -> u64 {
        self.events += 1;
        self.hasher.update(&event.at.as_micros().to_le_bytes());
        self.hasher.update(&[event.kind as u8]);
        let mut fields = Fields { hasher: &mut self.hasher, length: 0 };
        fields.write(event.host.as_bytes());
        fields.end();
        fields.write_fmt(event.text).expect("an event's text can be formatted");
        fields.end();
        fields.write(event.bytes);
        fields.end();
        if let Some(trace) = &mut self.trace {
            trace.write(self.events, self.hasher.digest(), event.at.since(self.began), event);
        }
        self.events
    }
}

/// Fields one after the other, each followed by its length, so that no two sequences of fields hash alike.
struct Fields<'a> {
    hasher: &'a mut Xxh3Default,
    length: u64,
}

impl Fields<'_> {
    fn write(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
    }

    fn end(&mut self) {
        self.hasher.update(&self.length.to_le_bytes());
        self.length = 0;
    }
}

impl fmt::Write for Fields<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.write(text.as_bytes());
        Ok(())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x} after {} events", self.hash, self.events)
    }
}

impl fmt::Debug for RunRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RunRecorder({})", self.digest())
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trace({:?})", self.detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use context::Timestamp;

    /// A writer whose text a test reads afterwards.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Page {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn recorder(trace: Option<Trace>) -> RunRecorder {
        RunRecorder::new(Arc::new(Watch::new(true)), trace, world::EPOCH)
    }

    fn record(recorder: &RunRecorder, ms: u64, host: &str, text: fmt::Arguments<'_>, bytes: &[u8]) {
        let at = Timestamp::from_millis(world::EPOCH.as_millis() + ms);
        recorder.record(Event { at, host, kind: EventKind::Frame, text, bytes });
    }

    fn hash_of(ms: u64, host: &str, text: &str, bytes: &[u8]) -> u64 {
        let recorder = recorder(None);
        record(&recorder, ms, host, format_args!("{text}"), bytes);
        recorder.digest().hash
    }

    #[test]
    fn one_flipped_byte_of_a_payload_changes_the_hash() {
        let payload = vec![7; 5_000];
        let mut flipped = payload.clone();
        flipped[4_321] ^= 1;
        assert_eq!(hash_of(1, "a", "x", &payload), hash_of(1, "a", "x", &payload));
        assert_ne!(hash_of(1, "a", "x", &payload), hash_of(1, "a", "x", &flipped));
    }

    #[test]
    fn time_host_text_and_the_borders_between_them_are_in_the_hash() {
        let hash = hash_of(1, "ab", "cd", b"ef");
        assert_ne!(hash, hash_of(2, "ab", "cd", b"ef"));
        assert_ne!(hash, hash_of(1, "a", "bcd", b"ef"));
        assert_ne!(hash, hash_of(1, "ab", "cde", b"f"));
    }

    #[test]
    fn text_hashes_alike_however_it_was_put_together() {
        let (whole, parts) = (recorder(None), recorder(None));
        record(&whole, 1, "a", format_args!("broker-1 to order-2"), b"");
        record(&parts, 1, "a", format_args!("broker-{} to {}-{}", 1, "order", 2), b"");
        assert_eq!(whole.digest(), parts.digest());
    }

    #[test]
    fn a_trace_line_gives_time_number_host_kind_text_and_hash() {
        let page = Page::default();
        let recorder = recorder(Some(Trace::new(page.clone(), Detail::Events)));
        record(&recorder, 12_345, "order-1", format_args!("from broker-2"), b"abc");
        record(&recorder, 12_346, "", format_args!("hold a -> b"), b"");
        recorder.finish().unwrap();
        let text = page.text();
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].starts_with("[   12.345s e000001] order-1 frame from broker-2 (3 bytes) #"),
            "{text}"
        );
        assert!(lines[1].starts_with("[   12.346s e000002] world frame hold a -> b #"), "{text}");
    }

    #[test]
    fn checkpoints_carry_the_hash_of_all_events_so_far() {
        let page = Page::default();
        let checkpoints = recorder(Some(Trace::new(page.clone(), Detail::Checkpoints(2))));
        let mut after_two = None;
        for ms in 1..=3 {
            record(&checkpoints, ms, "a", format_args!("tick"), b"");
            if ms == 2 {
                after_two = Some(checkpoints.digest().hash);
            }
        }
        checkpoints.finish().unwrap();
        assert_eq!(page.text(), format!("checkpoint e000002 #{:016x}\n", after_two.unwrap()));
    }

    #[test]
    fn a_trace_that_cannot_be_written_is_reported_and_the_run_goes_on() {
        struct Full;
        impl io::Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::from(io::ErrorKind::StorageFull))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let recorder = recorder(Some(Trace::new(Full, Detail::Events)));
        record(&recorder, 1, "a", format_args!("x"), b"");
        record(&recorder, 2, "a", format_args!("y"), b"");
        assert_eq!(recorder.digest().events, 2);
        assert_eq!(recorder.finish().unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
