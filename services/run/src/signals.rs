//! SIGINT and SIGTERM, and the end of whoever holds the leash.

use std::io::{Read as _, stdin};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The two ways to ask a program to end.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Listens from now on.
    pub(crate) fn new() -> Result<Signals, String> {
        let listen = |kind| {
            signal(kind).map_err(|error| format!("the operating system does not tell of signals: {error}"))
        };
        Ok(Signals {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Waits for the next; gives its number.
    pub(crate) async fn next(&mut self) -> u8 {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => 15,
            _ = self.interrupt.recv() => 2,
        }
    }
}

/// Ends this process, as a crash would, when its standard input ends. So nobody who starts it leaves it behind, however he ends.
pub(crate) fn end_with_standard_input() {
    std::thread::spawn(|| {
        let mut byte = [0];
        // Whatever is written there is for nobody.
        while stdin().read(&mut byte).is_ok_and(|count| count > 0) {}
        std::process::exit(crate::exit::WRONG.into());
    });
}
