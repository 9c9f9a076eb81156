//! The command line.

use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroUsize};
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use harness::recorder::Detail;
use world::Engine;

use crate::seeds::{Seeds, Shard};

const EXIT_CODES: &str = "Exit codes:
    0  every claim held
    1  a bug of Shakedown's own
    2  the command line is wrong
   65  a scenario file is wrong
   66  a scenario file cannot be read, or a folder has none
   69  the backend is not available, or cannot bring a fault
  100  safety broken: exactly_once, or any check
  102  not deterministic
  103  no progress: stuck_sagas, recovers_within
  104  an expectation missed: a rate, a latency, a fault that never took effect
  130  interrupted, on real Kafka";

/// Deterministic simulation testing for event-driven services on Kafka.
#[derive(Debug, Parser)]
#[command(name = "shakedown", version, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run scenarios over many seeds
    Run(RunArgs),
    /// Run one seed of one scenario again, in full
    Replay(ReplayArgs),
    /// Run each seed in two processes and compare every event
    CheckDeterminism(DeterminismArgs),
    /// The simulated Kafka on real sockets, for clients in any language, until SIGINT or SIGTERM
    Serve(ServeArgs),
    /// Show what there is, one line each
    List {
        /// Of what
        what: Listing,
    },
    /// One run whose hashes or events go to standard output: a child of `check-determinism`
    #[command(hide = true)]
    Child(ChildArgs),
    /// A host of a run on real Kafka: a child of `run --backend kafka`, which is on the other side of standard input
    #[cfg(feature = "kafka")]
    #[command(hide = true)]
    Host {
        /// The host, for lists of processes: what it is it hears from its parent
        name: String,
    },
}

/// `run`.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// Scenario files, or folders of them (a folder means its own `*.toml` files)
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// `N` for the seeds 0 to N-1, or `A..B` without B [default: what each file says]
    #[arg(long, value_name = "SEEDS")]
    pub seeds: Option<Seeds>,
    /// How many seeds run side by side [default: one for each processor; on real Kafka always one]
    #[arg(long, value_name = "J")]
    pub jobs: Option<NonZeroUsize>,
    /// Run only this part of the seeds: `2/4` on the second of four machines
    #[arg(long, value_name = "I/N")]
    pub shard: Option<Shard>,
    /// What Kafka is. `kafka` takes the cluster that KAFKA_BOOTSTRAP_SERVERS names, or starts one
    #[arg(long, value_enum, default_value_t = Backend::Sim)]
    pub backend: Backend,
    /// On real Kafka: run the same seeds on the simulated one, too, and show both side by side
    #[arg(long)]
    pub side_by_side: bool,
    /// What moves the simulated world
    #[arg(long, default_value = "jump", value_name = "jump|turmoil")]
    pub engine: Engine,
    /// Where the files of broken seeds go
    #[arg(long, value_name = "DIR", default_value = "reports/out")]
    pub report: PathBuf,
    /// How results are shown
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// `replay`.
#[derive(Debug, clap::Args)]
pub struct ReplayArgs {
    /// The scenario file
    pub file: PathBuf,
    /// The seed
    #[arg(long, value_name = "N")]
    pub seed: u64,
    /// What moves the simulated world
    #[arg(long, default_value = "jump", value_name = "jump|turmoil")]
    pub engine: Engine,
    /// Write every event here, with its time and number
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
}

/// `check-determinism`.
#[derive(Debug, clap::Args)]
pub struct DeterminismArgs {
    /// Scenario files, or folders of them
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// `N` for the seeds 0 to N-1, or `A..B` without B [default: what each file says]
    #[arg(long, value_name = "SEEDS")]
    pub seeds: Option<Seeds>,
    /// What moves the simulated world
    #[arg(long, default_value = "jump", value_name = "jump|turmoil")]
    pub engine: Engine,
}

/// `serve`.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// How many brokers
    #[arg(long, value_name = "N", default_value = "1")]
    pub brokers: NonZeroU16,
    /// The port of the first broker; the others have the ports after it. With 0 each has a free one
    #[arg(long, value_name = "P", default_value_t = 9092)]
    pub port: u16,
    /// The address to listen on, which clients are told too
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1")]
    pub host: IpAddr,
    /// A broker setting by Kafka's name, `num.partitions=4`; with a number before it for one broker,
    /// `2:broker.rack=a`. Defaults are Kafka 4.1's, but for
    /// group.initial.rebalance.delay.ms=0 and internal topics with as many replicas as there are brokers, at most 3
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    pub config: Vec<(String, String)>,
    /// A feature level by Kafka's name, `transaction.version=1`
    #[arg(long, value_name = "NAME=LEVEL", value_parser = feature_level)]
    pub feature: Vec<(String, i16)>,
    /// Keep topics, records and offsets in this directory: the next start goes on with them. After a SIGKILL a start takes
    /// as long as the brokers' old sessions last (`broker.session.timeout.ms`), as it does in Kafka
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Say on standard error what the brokers do
    #[arg(short, long)]
    pub verbose: bool,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it must be `NAME=VALUE`, as in `num.partitions=4`")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn feature_level(text: &str) -> Result<(String, i16), String> {
    let (name, level) =
        setting(text).map_err(|_| "it must be `NAME=LEVEL`, as in `transaction.version=1`")?;
    let level = level.parse().map_err(|_| format!("the level `{level}` is not a number"))?;
    Ok((name, level))
}

/// `child`.
#[derive(Debug, clap::Args)]
pub struct ChildArgs {
    /// The scenario file
    pub file: PathBuf,
    /// The seed
    #[arg(long)]
    pub seed: u64,
    /// What moves the simulated world
    #[arg(long)]
    pub engine: Engine,
    /// `events`, or a number of events from one hash to the next
    #[arg(long)]
    pub detail: Detail,
}

/// What Kafka is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// The simulated Kafka, in simulated time
    Sim,
    /// A real cluster, in real time
    Kafka,
}

/// How results are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Text,
    /// For programs
    Json,
    /// For CI servers
    Junit,
}

/// What `list` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Listing {
    /// What can go wrong, as `[[fault]]` names it
    Faults,
    /// What must hold, as `breaks` and findings name it
    Checks,
    /// The services, with their planted flaws
    Services,
    /// The scenarios of the folder `scenarios`
    Scenarios,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Args::command().debug_assert();
    }
}
