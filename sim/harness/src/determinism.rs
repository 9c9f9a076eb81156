//! The same run in two processes, compared event by event.
//!
//! Two processes differ where one run hides it: in addresses, in the keys of hash maps, in the order of threads. Each
//! child writes what happened to its standard output, and the two are compared as they come. They first write the running
//! hash every [`CHECKPOINT`] events, which costs a run next to nothing; only if these differ are the two run again with a
//! line for each event, to name the first that differs.
//!
//! Start reading at [`check`], which is the parent; [`child`] is what a child does.

use std::fmt;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use world::Engine;
use xxhash_rust::xxh3::xxh3_64;

use crate::recorder::{Detail, Trace};
use crate::run::{RunError, run};
use crate::scenario::Scenario;
use crate::system::System;

/// A child writes the running hash after so many events.
pub const CHECKPOINT: u64 = 10_000;

/// Where two runs that should be the same part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The number of the first event that differs; `None` if no line tells it (a run that ended early, a result).
    pub event: Option<u64>,
    /// What the first run wrote there; `None` if it had ended.
    pub first: Option<String>,
    /// What the second run wrote there.
    pub second: Option<String>,
    /// The two were run again with every event written down, and agreed then: the lines are checkpoints, and the event
    /// that differed is somewhere before.
    pub not_again: bool,
}

/// Why two runs could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// A child could not be started or read.
    #[error("a child process cannot be run: {0}")]
    Io(#[from] io::Error),
    /// A child ended otherwise than a run ends; its standard error has said why. Both wrote the same until then.
    #[error("a child process ended with {0}")]
    Child(ExitStatus),
}

/// What a child process does: one run, whose events or checkpoints go to `out`, and at the end its result.
///
/// # Errors
/// As [`run`]; if `out` cannot be written, [`RunError::Trace`].
pub fn child(
    system: &dyn System,
    scenario: &Scenario,
    seed: u64,
    engine: Engine,
    detail: Detail,
    out: impl Write + Send + 'static,
) -> Result<(), RunError> {
    let mut out = Shared(Arc::new(Mutex::new(BufWriter::new(out))));
    let result = run(system, scenario, seed, engine, Some(Trace::new(out.clone(), detail)))?;
    // The result is drawn from the run but not all of it is in the events: it must agree, too.
    let digest = xxh3_64(format!("{result:?}").as_bytes());
    writeln!(out, "end e{:06} #{} result #{digest:016x}", result.events, result.hash_text())
        .and_then(|()| out.flush())
        .map_err(RunError::Trace)
}

/// One page for the trace and for what follows it.
struct Shared<W: Write>(Arc<Mutex<BufWriter<W>>>);

impl<W: Write> Clone for Shared<W> {
    fn clone(&self) -> Shared<W> {
        Shared(self.0.clone())
    }
}

impl<W: Write> Write for Shared<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }
}

/// Runs the same command in two processes and compares what they write. `command` makes it for a detail: it must call
/// [`child`] with that detail on its standard output.
///
/// # Errors
/// [`CheckError`] if a child cannot be run to its end. A difference is no error.
pub fn check(command: impl Fn(Detail) -> Command) -> Result<Option<Difference>, CheckError> {
    let Some(coarse) = compare_children(|| command(Detail::Checkpoints(CHECKPOINT)))? else {
        return Ok(None);
    };
    let fine = compare_children(|| command(Detail::Events))?;
    Ok(Some(fine.unwrap_or(Difference { not_again: true, ..coarse })))
}

/// The first line in which two readings differ. Reads no further than that.
///
/// # Errors
/// The first error in reading either.
pub fn compare(mut first: impl BufRead, mut second: impl BufRead) -> io::Result<Option<Difference>> {
    let (mut one, mut other) = (Vec::new(), Vec::new());
    loop {
        one.clear();
        other.clear();
        // In turns, so that neither child waits for long with a full pipe.
        first.read_until(b'\n', &mut one)?;
        second.read_until(b'\n', &mut other)?;
        if one != other {
            let (first, second) = (line(&one), line(&other));
            let event = [&first, &second].into_iter().flatten().filter_map(|line| event_of(line)).min();
            return Ok(Some(Difference { event, first, second, not_again: false }));
        }
        if one.is_empty() {
            return Ok(None);
        }
    }
}

fn line(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    (!bytes.is_empty()).then(|| text.trim_end_matches('\n').to_owned())
}

/// The number in `e000123`, the first word of that form in a line.
fn event_of(line: &str) -> Option<u64> {
    line.split([' ', ']']).find_map(|word| word.strip_prefix('e')?.parse().ok())
}

fn compare_children(command: impl Fn() -> Command) -> Result<Option<Difference>, CheckError> {
    let (mut first, first_out) = start(command())?;
    let started = start(command());
    let (mut second, second_out) = match started {
        Ok(started) => started,
        Err(error) => {
            stop(&mut first)?;
            return Err(error.into());
        }
    };
    let compared = compare(BufReader::new(first_out), BufReader::new(second_out));
    if !matches!(compared, Ok(None)) {
        // They have said enough.
        stop(&mut first)?;
        stop(&mut second)?;
        return Ok(compared?);
    }
    for child in [&mut first, &mut second] {
        let status = child.wait()?;
        if !status.success() {
            return Err(CheckError::Child(status));
        }
    }
    Ok(None)
}

fn start(mut command: Command) -> io::Result<(Child, ChildStdout)> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let out = child.stdout.take().expect("standard output was piped");
    Ok((child, out))
}

fn stop(child: &mut Child) -> io::Result<()> {
    // A child that has ended by itself is no error.
    child.kill()?;
    child.wait().map(|_| ())
}

/// As a child's command line has it: `events`, or a number of events between checkpoints.
impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Detail::Events => f.write_str("events"),
            Detail::Checkpoints(every) => write!(f, "{every}"),
        }
    }
}

impl FromStr for Detail {
    type Err = String;

    fn from_str(word: &str) -> Result<Detail, String> {
        match (word, word.parse()) {
            ("events", _) => Ok(Detail::Events),
            (_, Ok(every)) if every > 0 => Ok(Detail::Checkpoints(every)),
            _ => Err(format!("`{word}` is neither `events` nor a number of events from 1")),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.event, self.not_again) {
            (Some(event), false) => writeln!(f, "event {event} is the first that differs")?,
            (Some(event), true) => writeln!(
                f,
                "an event up to {event} differed, and did not when both were run again with every event written down"
            )?,
            (None, _) => writeln!(f, "the runs differ at their end")?,
        }
        writeln!(f, "  first  {}", self.first.as_deref().unwrap_or("(ended)"))?;
        write!(f, "  second {}", self.second.as_deref().unwrap_or("(ended)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use context::{Event, EventKind, Recorder as _, Timestamp};

    use crate::check::Watch;
    use crate::recorder::RunRecorder;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The trace of a run that makes these notes.
    fn trace(notes: &[String]) -> Vec<u8> {
        let page = Page::default();
        let trace = Trace::new(page.clone(), Detail::Events);
        let recorder = RunRecorder::new(Arc::new(Watch::new(true)), Some(trace), world::EPOCH);
        for note in notes {
            let (at, kind, text) = (Timestamp::from_millis(1), EventKind::Note, format_args!("{note}"));
            recorder.record(Event { at, host: "a", kind, text, bytes: &[] });
        }
        recorder.finish().unwrap();
        std::mem::take(&mut page.0.lock().unwrap())
    }

    fn compared(first: &[u8], second: &[u8]) -> Option<Difference> {
        compare(first, second).unwrap()
    }

    #[test]
    fn the_same_trace_twice_does_not_differ() {
        let notes: Vec<String> = (0..100).map(|number| format!("note {number}")).collect();
        assert_eq!(compared(&trace(&notes), &trace(&notes)), None);
    }

    #[test]
    fn the_first_event_that_differs_is_named() {
        let mut notes: Vec<String> = (0..100).map(|number| format!("note {number}")).collect();
        let first = trace(&notes);
        notes[41] = "other".to_owned();
        let difference = compared(&first, &trace(&notes)).unwrap();
        assert_eq!(difference.event, Some(42));
        let text = difference.to_string();
        assert!(text.starts_with("event 42 is the first that differs\n  first  ["), "{text}");
        assert!(text.contains("a note note 41 #") && text.contains("a note other #"), "{text}");
    }

    #[test]
    fn a_run_that_ends_early_differs_at_its_end() {
        let notes = ["one".to_owned(), "two".to_owned()];
        let difference = compared(&trace(&notes[..1]), &trace(&notes)).unwrap();
        assert_eq!((difference.event, difference.first), (Some(2), None));
    }

    #[test]
    fn a_detail_reads_as_it_prints() {
        for detail in [Detail::Events, Detail::Checkpoints(500)] {
            assert_eq!(detail.to_string().parse(), Ok(detail));
        }
        assert!("0".parse::<Detail>().is_err() && "all".parse::<Detail>().is_err());
    }
}
