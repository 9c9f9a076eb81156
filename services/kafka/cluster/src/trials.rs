//! Tests on real Kafka for programs that run theirs with `libtest-mimic`: they show as ignored, with the reason, where there is
//! none, whether or not output is captured.

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::{NoKafka, RealKafka, Shared};

/// A test on the Kafka that all share. What `run` gives as completion may be another reason to skip.
pub fn trial(
    name: impl Into<String>,
    shared: &Arc<Shared>,
    run: impl FnOnce(&Arc<RealKafka>) -> Result<Completion, Failed> + Send + 'static,
) -> Trial {
    let shared = Arc::clone(shared);
    Trial::ignorable_test(name, move || match shared.get() {
        Ok(kafka) => run(kafka),
        Err(none @ NoKafka::Missing(_)) => Ok(Completion::ignored_with(none)),
        Err(NoKafka::Broken(why)) => Err(why.into()),
    })
}

/// Runs all trials; ends the Kafka that they shared, and keeps its logs if one of them failed.
pub fn run(arguments: &Arguments, trials: Vec<Trial>, shared: Arc<Shared>) -> ExitCode {
    let conclusion = libtest_mimic::run(arguments, trials);
    if conclusion.has_failed()
        && let Err(error) = shared.keep_logs()
    {
        println!("the logs of real Kafka cannot be kept: {error}");
    }
    drop(shared);
    conclusion.exit_code()
}
