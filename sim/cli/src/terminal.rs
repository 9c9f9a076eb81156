//! The two streams of the program: results on standard output, all else on standard error.

use std::io::{self, IsTerminal as _, Write as _};

use indicatif::{ProgressBar, ProgressStyle};

use crate::exit;

/// Prints results; gives the exit code for having done so.
///
/// Whoever closed the other end (`shakedown run … | head`) has seen enough: that is no error.
pub(crate) fn say(text: &str) -> u8 {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => exit::HELD,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => exit::HELD,
        Err(error) => {
            complain(&format!("error: cannot print the results: {error}"));
            exit::BUG
        }
    }
}

/// Prints something that went wrong.
pub(crate) fn complain(text: &str) {
    // There is no third stream to complain on if this fails.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A bar on a terminal, and nothing where somebody records what is printed.
pub(crate) fn progress(runs: usize) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} runs  {msg}").unwrap_or_else(|error| {
        unreachable!("the template of the progress bar is fixed and valid: {error}");
    });
    ProgressBar::new(runs as u64).with_style(style)
}
