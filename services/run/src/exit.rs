//! What the program's exit code says. Scripts may rely on these numbers; they do not change.

use std::fmt;
use std::io::{self, Write as _};

/// Done; of `run`: ended in order, with nothing left to say.
pub const DONE: u8 = 0;
/// The books do not agree, or the shop did not come to rest in time; of `run`: a part ended that should not have.
pub const WRONG: u8 = 1;
/// The command line is wrong. (This is clap's number, too.)
pub const USAGE: u8 = 2;
/// A store, a port or Kafka cannot be had (`sysexits.h`).
pub const UNAVAILABLE: u8 = 69;
/// The configuration is wrong (`sysexits.h`).
pub const CONFIG: u8 = 78;

/// Says on standard error why the program ends; gives `code` back.
pub fn complain(error: &impl fmt::Display, code: u8) -> u8 {
    // Not through the log, which may show less than this, or not be there yet. There is no third stream to complain on if this
    // fails.
    let _ = writeln!(io::stderr().lock(), "error: {error}");
    code
}

/// Prints a result on standard output; gives `code` back. Whoever closed the other end has seen enough.
pub fn say(result: &str, code: u8) -> u8 {
    match io::stdout().lock().write_all(result.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(&format!("the result cannot be printed: {error}"), UNAVAILABLE)
        }
        _ => code,
    }
}
