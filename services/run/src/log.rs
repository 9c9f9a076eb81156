//! The log: one line an event on standard error.
//!
//! `info` is what happens to the program, `warn` what goes wrong and is dealt with, `debug` every step of every order. What the
//! services say comes through [`Recorder`]. Lost connections that librdkafka only reports are not in it; what they cost is.

use std::io;

use context::{Event, EventKind};
use tracing::Level;
use tracing_subscriber::filter::LevelFilter;

/// Starts the log of this process.
pub fn start(level: LevelFilter) {
    let log = tracing_subscriber::fmt().with_writer(io::stderr).with_max_level(level).with_target(false);
    // A second start in one process, as a test may make it, changes nothing.
    let _ = log.with_ansi(false).try_init();
}

/// Writes what a host records to the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recorder;

impl context::Recorder for Recorder {
    fn record(&self, event: Event<'_>) {
        let Event { host, text, .. } = event;
        match event.kind {
            EventKind::Trouble | EventKind::Fault => tracing::warn!("{host}: {text}"),
            EventKind::Note => tracing::debug!("{host}: {text}"),
            EventKind::Commit | EventKind::Timer | EventKind::Frame => {
                // Too many to be formatted for nobody.
                if tracing::enabled!(Level::TRACE) {
                    tracing::trace!("{host}: {} {text}", event.kind.word());
                }
            }
        }
    }
}
