//! The program `services`.

use std::process::ExitCode;

use clap::Parser as _;
use shakedown_services::Args;

fn main() -> ExitCode {
    ExitCode::from(shakedown_services::main(Args::parse()))
}
