//! SIGINT and SIGTERM: the run under way ends in order, and the program with it.
//!
//! A program that once listened for a signal is not ended by it any more, as long as it lives. So whoever listens here has a
//! thread of its own, which needs no runtime of others and outlives the backend: a signal is never lost on a program that is
//! busy with something else, nor on one whose end hangs.

#![expect(clippy::disallowed_methods, reason = "a thread, and signals")]

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// A run that was interrupted has so long to end its hosts and clean up; then the program ends, and the kernel and the
/// guardians of the brokers do the rest.
const ENDS_WITHIN: Duration = Duration::from_secs(6);

/// The exit code of a program that was interrupted and could not end in order: 128 and SIGINT's number, as shells have it.
const INTERRUPTED: i32 = 130;

/// Listens from its making to the end of the program. A program has one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt {
    asked: Arc<AtomicBool>,
    nothing_to_end: Arc<AtomicBool>,
    left: Arc<Mutex<Option<String>>>,
}

impl Interrupt {
    /// Listens from now on. After the first signal the program has [`ENDS_WITHIN`] to end in order; a second one ends it at
    /// once.
    pub(crate) fn listen() -> io::Result<Interrupt> {
        let interrupt = Interrupt::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let within = runtime.enter();
        let (mut int, mut term) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        drop(within);
        let heard = interrupt.clone();
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            runtime.block_on(async {
                next(&mut int, &mut term).await;
                heard.asked.store(true, Ordering::SeqCst);
                if !heard.nothing_to_end.load(Ordering::SeqCst) {
                    // An error means that nobody asked again.
                    tokio::time::timeout(ENDS_WITHIN, next(&mut int, &mut term)).await.ok();
                }
            });
            if let Some(left) = &*heard.left() {
                eprintln!("the run did not end in order: {left}");
            }
            std::process::exit(INTERRUPTED);
        })?;
        Ok(interrupt)
    }

    /// Somebody asked the program to end.
    pub(crate) fn was_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// What outlives the program if it does not end in order, as a sentence: who looks for it then is told. `None` when it is gone.
    pub(crate) fn leaves(&self, what: Option<String>) {
        *self.left() = what;
    }

    fn left(&self) -> MutexGuard<'_, Option<String>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing is left that must end in order: from now on a signal ends the program at once.
    pub(crate) fn nothing_to_end(&self) {
        self.nothing_to_end.store(true, Ordering::SeqCst);
    }
}

async fn next(int: &mut Signal, term: &mut Signal) {
    // Neither stream of signals ever ends.
    tokio::select! {
        _ = int.recv() => {}
        _ = term.recv() => {}
    }
}
