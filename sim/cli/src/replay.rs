//! `replay`: one seed again, in full.

#![expect(clippy::disallowed_methods, reason = "a trace is a file")]

use std::fs::File;
use std::io::BufWriter;

use harness::fault::Plan;
use harness::recorder::{Detail, Trace};
use harness::scenario::Scenario;
use harness::system::System;
use reports::{ScenarioResult, text};

use crate::args::ReplayArgs;
use crate::run::failed_to_run;
use crate::{cannot_bring, exit, invalid, terminal};

pub(crate) fn replay(args: &ReplayArgs, system: &dyn System) -> u8 {
    let scenario = match Scenario::load(&args.file, &harness::vocabulary(system)) {
        Ok(scenario) => scenario,
        Err(error) => return invalid(&error),
    };
    if let Some(code) = cannot_bring(std::slice::from_ref(&scenario), args.engine) {
        return code;
    }
    let trace = match args.trace.as_ref().map(File::create).transpose() {
        Ok(file) => file.map(|file| Trace::new(BufWriter::new(file), Detail::Events)),
        Err(error) => {
            let path = args.trace.as_deref().unwrap_or(&args.file);
            terminal::complain(&format!("error: cannot write `{}`: {error}", path.display()));
            return exit::USAGE;
        }
    };
    // Before the first event: a run that hangs or panics has then said at least what it was about to do.
    terminal::say(&format!("plan: {}\n", Plan::draw(&scenario, args.seed, args.engine)));
    let seed = match harness::run(system, &scenario, args.seed, args.engine, trace) {
        Ok(seed) => seed,
        Err(error) => return failed_to_run(&error),
    };
    // One seed tells nothing about what must show on one of many: it is shown as it is, whatever the file claims.
    let result = ScenarioResult {
        name: scenario.name.clone(),
        file: scenario.file.clone(),
        claim: scenario.claim.clone(),
        seeds: vec![seed],
        findings: Vec::new(),
        failed: Vec::new(),
    };
    let files: Vec<String> = args.trace.iter().map(|path| path.display().to_string()).collect();
    let run = result.seeds.first().map(|seed| text::run(&result, seed)).unwrap_or_default();
    terminal::say(&format!("{run}{}", text::failure(&result, &files)));
    exit::of_result(&result)
}
