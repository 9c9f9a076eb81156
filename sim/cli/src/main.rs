//! The program `shakedown`.

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

use clap::Parser as _;
use shakedown::args::Args;
use shakedown::{exit, six};

fn main() -> ExitCode {
    // A panic is a broken invariant of ours, on whichever thread: its message is printed by then, and the exit code
    // says whose bug it is.
    let system = six::system();
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| shakedown::main(&Args::parse(), system)));
    exit::code(outcome.unwrap_or(exit::BUG))
}
