//! Records stories on real Kafka, or tells them to the simulated one.
//!
//! `shakedown-stories record [--runs N] [STORY…]` writes `sim/stories/recordings/STORY.txt`; it needs Java 17 and Maven, and
//! about a minute for each story and run. `shakedown-stories tell [STORY…]` prints the simulated accounts.

#![expect(clippy::disallowed_methods, reason = "a program for people, with a command line and files")]

use std::path::Path;
use std::process::ExitCode;

use cluster::KAFKA_VERSION;
use shakedown_stories::{Recording, Tale, on_real_kafka, on_simulated_kafka, tales};

const USAGE: &str = "usage: shakedown-stories record [--runs N] [STORY…] | tell [STORY…]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &[String]) -> Result<(), String> {
    let (command, mut rest) = arguments.split_first().ok_or(USAGE)?;
    let mut runs = 3;
    if let [flag, count, more @ ..] = rest
        && flag == "--runs"
    {
        runs = count.parse().ok().filter(|runs| *runs > 0).ok_or("--runs takes a number from 1")?;
        rest = more;
    }
    let known = tales();
    if let Some(unknown) = rest.iter().find(|name| !known.iter().any(|tale| tale.name == name.as_str())) {
        let names: Vec<_> = known.iter().map(|tale| tale.name).collect();
        return Err(format!("there is no story `{unknown}`; there are {}", names.join(", ")));
    }
    let chosen =
        known.into_iter().filter(|tale| rest.is_empty() || rest.iter().any(|name| name == tale.name));
    for tale in chosen {
        match command.as_str() {
            "record" => record(tale, runs)?,
            "tell" => {
                let account =
                    on_simulated_kafka(tale, 7).map_err(|error| format!("{}: {error}", tale.name))?;
                println!("# {}: {}\n{}", tale.name, tale.claim, account.render());
            }
            _ => return Err(USAGE.into()),
        }
    }
    Ok(())
}

fn record(tale: Tale, runs: usize) -> Result<(), String> {
    let mut accounts = Vec::new();
    for run in 1..=runs {
        println!("{}: run {run} of {runs}", tale.name);
        let account = on_real_kafka(tale).map_err(|error| format!("{}: {error}", tale.name))?;
        print!("{}", account.render());
        accounts.push(account);
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings");
    let heading = format!("{}: {} (Kafka {KAFKA_VERSION})", tale.name, tale.claim);
    std::fs::create_dir_all(&folder)
        .and_then(|()| {
            std::fs::write(
                folder.join(format!("{}.txt", tale.name)),
                Recording::new(accounts).render(&heading),
            )
        })
        .map_err(|error| format!("{}: {error}", folder.display()))
}
