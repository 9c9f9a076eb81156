//! The program `shakedown`: the harness with the six services as its system under test.
//!
//! [`main`] takes a parsed command line and a system, and gives an exit code; the program is that with the six. Start
//! reading at [`args`], then [`exit`], then a file for each command. What may be said of a scenario, how a seed is run
//! and how results are shown are the harness's and the reports' business; here they are put together.
//!
//! Real Kafka is behind the feature `kafka`, so that the simulator builds without a C client. Absent on purpose: `shrink`,
//! which comes later.

pub mod args;
pub mod exit;
pub mod seeds;
pub mod six;

mod determinism;
mod files;
#[cfg(feature = "kafka")]
mod kafka_backend;
mod list;
mod replay;
mod run;
mod serve;
mod terminal;

use harness::fault;
use harness::scenario::{Scenario, ScenarioError};
use harness::system::System;
use world::Engine;

use args::{Args, Command};

/// A run is many small allocations on one thread: the C library's allocator took a fifth of its instructions, this one
/// takes half of that.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Does what the command line asks, with any system under test; gives the exit code.
pub fn main(args: &Args, system: &dyn System) -> u8 {
    if !cfg!(tokio_unstable) {
        terminal::complain(
            "error: this build cannot simulate: tokio draws from the process instead of the seed\n  \
             = help: build with RUSTFLAGS=\"--cfg tokio_unstable\", as the repository's .cargo/config.toml does",
        );
        return exit::UNAVAILABLE;
    }
    match &args.command {
        Command::Run(args) => run::run(args, system),
        Command::Replay(args) => replay::replay(args, system),
        Command::CheckDeterminism(args) => determinism::check(args, system),
        Command::Child(args) => determinism::child(args, system),
        #[cfg(feature = "kafka")]
        Command::Host { name } => kafka_backend::host(name, system),
        Command::Serve(args) => serve::serve(args),
        Command::List { what } => match list::list(*what, system) {
            Ok(lines) => terminal::say(&lines),
            Err(error) => invalid(&error),
        },
    }
}

/// Shows what is wrong with a scenario; gives the exit code.
fn invalid(error: &ScenarioError) -> u8 {
    terminal::complain(&error.to_string());
    match error {
        ScenarioError::Unreadable { .. } | ScenarioError::NoScenario { .. } => exit::SCENARIO_UNREADABLE,
        ScenarioError::Invalid { .. } => exit::SCENARIO_INVALID,
    }
}

/// Shows, of each scenario, the first fault that the engine cannot bring; gives the exit code if there is one. Asked
/// before anything runs, so that nobody takes half of a folder for the whole.
fn cannot_bring(scenarios: &[Scenario], engine: Engine) -> Option<u8> {
    let refused: Vec<_> =
        scenarios.iter().filter_map(|scenario| fault::supported(scenario, engine).err()).collect();
    refused.iter().for_each(|error| terminal::complain(&format!("error: {error}")));
    (!refused.is_empty()).then_some(exit::UNAVAILABLE)
}
