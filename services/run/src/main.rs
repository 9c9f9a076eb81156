//! The program `services`.

use std::process::ExitCode;

use clap::Parser as _;
use shakedown_services::Args;

/// A fifth of a flow's processor time was the system's allocator: redb makes many small, short-lived pages.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ExitCode::from(shakedown_services::main(Args::parse()))
}
