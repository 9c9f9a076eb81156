//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::config;
use crate::part::Wanted;

const AFTER: &str = "Every setting of the file can be given by the environment, which wins: SERVICES_DATA, SERVICES_HTTP_ORDER,
SERVICES_TOPICS_PARTITIONS; Kafka's properties with underscores for dots, SERVICES_KAFKA_BOOTSTRAP_SERVERS.

Exit codes:
    0  done
    1  the books do not agree, the shop did not come to rest, or a part ended that should not have
    2  the command line is wrong
   69  a store, a port or Kafka cannot be had
   78  the configuration is wrong";

/// A shop of six services on Kafka, and the outside systems that it calls.
#[derive(Debug, Parser)]
#[command(name = "services", version, after_help = AFTER, max_term_width = 120)]
pub struct Args {
    /// The configuration, in TOML [default: all defaults]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run services or outside systems in this process, until SIGINT or SIGTERM
    Run {
        /// Which
        #[arg(required = true, value_name = "PART", value_enum)]
        parts: Vec<Wanted>,
        /// End at once when standard input does: for whoever starts it and may be killed
        #[arg(long)]
        leashed: bool,
    },
    /// Make the topics that are not there
    Topics,
    /// Be the customers: place orders and wait until Kafka has acknowledged each
    Place(PlaceArgs),
    /// Wait until the shop is at rest: no saga open, no record waiting, nothing unread
    Settle(SettleArgs),
    /// Compare ledgers, stock, notices and read models; the parts must have stopped
    Audit {
        /// How many orders there must be
        #[arg(long, value_name = "N")]
        orders: Option<u64>,
    },
}

/// `place`.
#[derive(Clone, Debug, clap::Args)]
pub struct PlaceArgs {
    /// How many
    pub orders: u32,
    /// Draws them; the same seed places the same orders again, which changes nothing
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How many of them the gateway declines, and
    #[arg(long, default_value_t = 0)]
    pub declined: u32,
    /// ask for something that is sold out, and
    #[arg(long, default_value_t = 0)]
    pub sold_out: u32,
    /// go to where the carrier does not deliver
    #[arg(long, default_value_t = 0)]
    pub unserved: u32,
    /// How many a second [default: as many as Kafka takes]
    #[arg(long, value_name = "RATE", value_parser = clap::value_parser!(u32).range(1..))]
    pub per_second: Option<u32>,
}

/// `settle`.
#[derive(Clone, Debug, clap::Args)]
pub struct SettleArgs {
    /// How many orders must have come in before
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub orders: u64,
    /// How long to wait
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = config::duration)]
    pub within: Duration,
}
