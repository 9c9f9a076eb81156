//! Prints the folder of Kafka's jars, and fetches them first if they are not there. `engine` builds an image from them.

use std::process::ExitCode;

use shakedown_cluster::Jars;

fn main() -> ExitCode {
    match Jars::find() {
        Ok(jars) => {
            println!("{}", jars.folder().display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
