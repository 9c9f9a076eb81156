//! The configuration: a file in TOML, and the environment over it.
//!
//! ```toml
//! data = "data"                       # the folder of the stores: one file a part
//! log = "info"                        # error, warn, info, debug, trace
//! commits_survive = "power_loss"      # or "process_crash": many times as fast, and no match for a machine that loses power
//! close_within = "30s"                # how long a stop waits for work in hand, and again for the outbox
//! step_timeout = "30s"                # how long a saga waits for an answer to a step
//!
//! [kafka]                             # every client's properties, by Kafka's names (librdkafka's CONFIGURATION.md); TLS and SCRAM
//!                                     # need a build with `--features tls`
//! "bootstrap.servers" = "127.0.0.1:9092"
//! [consumer]                          # over [kafka], of the services' consumers
//! "session.timeout.ms" = 10000
//! [producer]                          # over [kafka], of their relays' producers
//!
//! [topics]
//! create = true                       # whoever starts first makes those that are not there; else all wait for them
//! partitions = 6
//! replication_factor = 3              # left out: the broker's own
//! config = { "min.insync.replicas" = 2 }
//!
//! [http]
//! host = "127.0.0.1"                  # where all listen
//! order = 8081                        # health and metrics of a service
//! gateway = 8091                      # the business of an outside system
//!
//! [outside]                           # where the services find them
//! gateway = "127.0.0.1:8091"
//!
//! [stock]                             # what inventory has when its store is first opened
//! sku-001 = 1000000
//! ```
//!
//! All of it may be left out. A setting of the environment is `SERVICES_`, the section if there is one, and the name, in capitals;
//! dots of Kafka's names are underscores there. So no secret need be in a file. What is not known is an error, with the nearest
//! name there is; whether Kafka's properties are known, librdkafka says.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use broker::Properties;
use kit::store::Survives;
use proto::tokens;
use toml::Value;
use tracing_subscriber::filter::LevelFilter;

use crate::part::Part;

/// What the environment's names begin with.
const PREFIX: &str = "SERVICES_";
/// The sections of the file.
const SECTIONS: [&str; 7] = ["kafka", "consumer", "producer", "topics", "http", "outside", "stock"];
/// Articles that the shop sells, unless the configuration says otherwise; `services place` orders from them.
pub const ARTICLES: u32 = 20;
/// Pieces of each.
const PIECES: u64 = 1_000_000;

/// Everything there is to choose.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder of the stores.
    pub data: PathBuf,
    /// What a commit outlives.
    pub survives: Survives,
    /// What the log shows.
    pub log: LevelFilter,
    /// How long a stop waits for work in hand, and again for the outbox.
    pub close_within: Duration,
    /// How long a saga waits for an answer to a step.
    pub step_timeout: Duration,
    /// Properties of every client.
    pub kafka: Properties,
    /// Over them, of the services' consumers.
    pub consumer: Properties,
    /// Over them, of their relays' producers.
    pub producer: Properties,
    /// The topics.
    pub topics: Topics,
    /// The address on which all listen.
    pub host: String,
    /// The port of each part.
    pub ports: BTreeMap<Part, u16>,
    /// Where the services find the outside systems.
    pub outside: BTreeMap<Part, Address>,
    /// The initial stock, by SKU.
    pub stock: BTreeMap<String, u64>,
}

/// How topics are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    /// Whether a start makes those that are not there.
    pub create: bool,
    /// How many partitions each has.
    pub partitions: i32,
    /// How many replicas; `None` leaves it to the broker (`default.replication.factor`).
    pub replication_factor: Option<i16>,
    /// Topic settings by Kafka's names.
    pub config: BTreeMap<String, String>,
}

/// Host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration `{path}` cannot be read: {cause}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        cause: std::io::Error,
    },
    /// The file is no TOML.
    #[error("the configuration `{path}` is not TOML: {cause}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        cause: Box<toml::de::Error>,
    },
    /// There is no such setting.
    #[error("there is no setting {at}{}", Nearest(.nearest))]
    Unknown {
        /// Where it stands.
        at: Place,
        /// The setting that it may be meant to be.
        nearest: Option<String>,
    },
    /// A setting has a value that it cannot have.
    #[error("{at} is `{found}`; it must be {wanted}")]
    Unfit {
        /// Where it stands.
        at: Place,
        /// What it is.
        found: String,
        /// What it must be.
        wanted: String,
    },
}

struct Nearest<'a>(&'a Option<String>);

impl fmt::Display for Nearest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => write!(f, "; did you mean `{name}`?"),
            None => Ok(()),
        }
    }
}

/// Where a setting stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the file: its section, empty at the top, and its name.
    File(String, String),
    /// In the environment, under this name.
    Environment(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File(section, name) if section.is_empty() => write!(f, "`{name}`"),
            Place::File(section, name) => write!(f, "`{name}` in [{section}]"),
            Place::Environment(name) => write!(f, "`{name}` in the environment"),
        }
    }
}

impl Config {
    /// Reads `file`, if there is one, and the environment of this process over it.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn read(file: Option<&Path>) -> Result<Config, ConfigError> {
        let text = match file {
            None => String::new(),
            Some(path) => fs::read_to_string(path)
                .map_err(|cause| ConfigError::Unreadable { path: path.to_owned(), cause })?,
        };
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            // A name that is no text is nothing of ours.
            let name = name.into_string().ok().filter(|name| name.starts_with(PREFIX))?;
            Some((name, value.to_string_lossy().into_owned()))
        });
        Config::parse(file.unwrap_or(Path::new("")), &text, environment)
    }

    fn parse(
        path: &Path,
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Config, ConfigError> {
        let table = text.parse::<toml::Table>();
        let table =
            table.map_err(|cause| ConfigError::Syntax { path: path.to_owned(), cause: Box::new(cause) })?;
        let mut sections = Sections::of(table)?;
        for (name, value) in environment {
            sections.overlay(name, value)?;
        }
        sections.config()
    }

    /// The file of a part's store.
    pub fn store(&self, part: Part) -> PathBuf {
        self.data.join(format!("{part}.redb"))
    }
}

/// A value, and where it comes from.
struct Setting {
    at: Place,
    value: Value,
}

impl Setting {
    fn unfit(self, wanted: impl Into<String>) -> ConfigError {
        let found = match self.value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        ConfigError::Unfit { at: self.at, found, wanted: wanted.into() }
    }

    /// A value as text: the environment has nothing else, and Kafka's properties need nothing else.
    fn text(&self) -> Option<String> {
        match &self.value {
            Value::String(text) => Some(text.clone()),
            Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => Some(self.value.to_string()),
            Value::Datetime(_) | Value::Array(_) | Value::Table(_) => None,
        }
    }

    fn parse<T>(self, wanted: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, ConfigError> {
        match self.text().and_then(|text| parse(&text)) {
            Some(value) => Ok(value),
            None => Err(self.unfit(wanted)),
        }
    }
}

/// One section: its settings, and the names that were asked for.
struct Section {
    settings: BTreeMap<String, Setting>,
    known: Vec<&'static str>,
}

impl Section {
    fn take(&mut self, name: &'static str) -> Option<Setting> {
        self.known.push(name);
        self.settings.remove(name)
    }

    fn or<T>(
        &mut self,
        name: &'static str,
        default: T,
        wanted: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, ConfigError> {
        self.take(name).map_or(Ok(default), |setting| setting.parse(wanted, parse))
    }

    /// Every setting, whatever its name.
    fn all<T>(
        self,
        wanted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<BTreeMap<String, T>, ConfigError> {
        self.settings.into_iter().map(|(name, setting)| Ok((name, setting.parse(wanted, &parse)?))).collect()
    }

    /// What nobody asked for is not known.
    fn end(self) -> Result<(), ConfigError> {
        match self.settings.into_iter().next() {
            None => Ok(()),
            Some((name, Setting { at, .. })) => {
                Err(ConfigError::Unknown { at, nearest: nearest(&name, self.known) })
            }
        }
    }
}

fn nearest(name: &str, known: impl IntoIterator<Item = &'static str>) -> Option<String> {
    let near = |known: &&str| strsim::damerau_levenshtein(name, known);
    known.into_iter().min_by_key(near).filter(|known| near(known) <= 1 + name.len() / 2).map(str::to_owned)
}

/// The whole file by section; the top has the empty name.
struct Sections(BTreeMap<&'static str, Section>);

impl Sections {
    fn of(table: toml::Table) -> Result<Sections, ConfigError> {
        let empty = |name| (name, Section { settings: BTreeMap::new(), known: Vec::new() });
        let mut sections = Sections(SECTIONS.into_iter().chain([""]).map(empty).collect());
        for (name, value) in table {
            match (SECTIONS.into_iter().find(|section| *section == name), value) {
                (Some(section), Value::Table(table)) => {
                    for (name, value) in table {
                        sections.set(section, name, value);
                    }
                }
                (Some(section), value) => {
                    let at = Place::File(String::new(), section.to_owned());
                    return Err(Setting { at, value }.unfit("a section"));
                }
                (None, Value::Table(_)) => {
                    let nearest = nearest(&name, SECTIONS);
                    let at = Place::File(String::new(), name);
                    return Err(ConfigError::Unknown { at, nearest });
                }
                (None, value) => sections.set("", name, value),
            }
        }
        Ok(sections)
    }

    fn set(&mut self, section: &'static str, name: String, value: Value) {
        let at = Place::File(section.to_owned(), name.clone());
        self.at(section).settings.insert(name, Setting { at, value });
    }

    fn at(&mut self, section: &'static str) -> &mut Section {
        self.0.get_mut(section).expect("every section is there from the start")
    }

    /// Puts a variable of the environment over the file.
    fn overlay(&mut self, variable: String, value: String) -> Result<(), ConfigError> {
        let at = Place::Environment(variable.clone());
        let rest = variable.trim_start_matches(PREFIX).to_lowercase();
        let of = |section: &&str| rest.strip_prefix(*section).is_some_and(|name| name.starts_with('_'));
        let section = SECTIONS.into_iter().find(of).unwrap_or("");
        let name = if section.is_empty() { &rest } else { &rest[section.len() + 1..] };
        let name = match section {
            "kafka" | "consumer" | "producer" => name.replace('_', "."),
            "stock" => {
                let wanted = "in the file: names of articles do not fit the environment";
                return Err(Setting { at, value: Value::String(value) }.unfit(wanted));
            }
            _ => name.to_owned(),
        };
        self.at(section).settings.insert(name, Setting { at, value: Value::String(value) });
        Ok(())
    }

    fn take(&mut self, section: &'static str) -> Section {
        self.0.remove(section).expect("every section is read once")
    }

    fn properties(&mut self, section: &'static str) -> Result<Properties, ConfigError> {
        let all = self.take(section).all("text, a number, true or false", |text| Some(text.to_owned()))?;
        Ok(all.iter().fold(Properties::new(), |properties, (name, value)| properties.set(name, value)))
    }

    fn config(mut self) -> Result<Config, ConfigError> {
        let mut top = self.take("");
        let seconds = |text: &str| duration(text).ok();
        let config = Config {
            data: top.or("data", "data".into(), "a folder", |text| Some(text.into()))?,
            log: top.or("log", LevelFilter::INFO, "error, warn, info, debug or trace", |text| {
                text.parse().ok()
            })?,
            survives: top.or(
                "commits_survive",
                Survives::PowerLoss,
                "`power_loss` or `process_crash`",
                |text| match text {
                    "power_loss" => Some(Survives::PowerLoss),
                    "process_crash" => Some(Survives::ProcessCrash),
                    _ => None,
                },
            )?,
            close_within: top.or("close_within", Duration::from_secs(30), DURATION, seconds)?,
            step_timeout: top.or("step_timeout", Duration::from_secs(30), DURATION, seconds)?,
            kafka: Properties::new()
                .set("bootstrap.servers", "127.0.0.1:9092")
                .with(&self.properties("kafka")?),
            consumer: self.properties("consumer")?,
            producer: self.properties("producer")?,
            topics: topics(self.take("topics"))?,
            stock: stock(self.take("stock"))?,
            outside: outside(self.take("outside"))?,
            host: String::new(),
            ports: BTreeMap::new(),
        };
        top.end()?;
        let mut http = self.take("http");
        let host =
            http.or("host", "127.0.0.1".into(), "an address of this machine", |text| Some(text.into()))?;
        let port = |part: Part| {
            http.or(part.name(), part.port(), "a port", |text| text.parse().ok()).map(|port| (part, port))
        };
        let ports = Part::all().map(port).collect::<Result<_, _>>()?;
        http.end()?;
        Ok(Config { host, ports, ..config })
    }
}

fn topics(mut section: Section) -> Result<Topics, ConfigError> {
    let above_zero = |text: &str| text.parse().ok().filter(|count| *count > 0);
    let topics = Topics {
        create: section.or("create", true, "true or false", |text| text.parse().ok())?,
        partitions: section.or("partitions", 6, "a number above 0", above_zero)?,
        replication_factor: section.or("replication_factor", None, "a number above 0", |text| {
            Some(Some(text.parse().ok().filter(|count| *count > 0)?))
        })?,
        config: match section.take("config") {
            None => BTreeMap::new(),
            Some(Setting { at, value: Value::Table(table) }) => {
                let settings = table.into_iter().map(|(name, value)| {
                    let at = Place::File("topics.config".into(), name.clone());
                    Ok((
                        name,
                        Setting { at, value }
                            .parse("text, a number, true or false", |text| Some(text.to_owned()))?,
                    ))
                });
                let _ = at;
                settings.collect::<Result<_, _>>()?
            }
            Some(other) => return Err(other.unfit("a table of topic settings, in the file")),
        },
    };
    section.end()?;
    Ok(topics)
}

fn stock(section: Section) -> Result<BTreeMap<String, u64>, ConfigError> {
    let stock = section.all("a number of pieces", |text| text.parse().ok())?;
    if !stock.is_empty() {
        return Ok(stock);
    }
    let articles = (1..=ARTICLES).map(|number| (sku(number), PIECES));
    Ok(articles.chain([(tokens::SOLD_OUT_SKU.to_owned(), 0)]).collect())
}

/// The SKU of an article, by its number from 1 on.
pub fn sku(number: u32) -> String {
    format!("sku-{number:03}")
}

fn outside(mut section: Section) -> Result<BTreeMap<Part, Address>, ConfigError> {
    let mut addresses = BTreeMap::new();
    for part in Part::OUTSIDE {
        let default = Address { host: "127.0.0.1".into(), port: part.port() };
        let address = section.or(part.name(), default, "`host:port`", |text| {
            let (host, port) = text.rsplit_once(':').filter(|(host, _)| !host.is_empty())?;
            Some(Address { host: host.to_owned(), port: port.parse().ok()? })
        })?;
        addresses.insert(part, address);
    }
    section.end()?;
    Ok(addresses)
}

const DURATION: &str = "a time as `500ms`, `30s` or `5m`";

/// A time as the configuration and the command line have it.
///
/// # Errors
/// What it must look like.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let number = text[..digits].parse::<u64>().map_err(|_| format!("must be {DURATION}"))?;
    let millis = match &text[digits..] {
        "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        _ => None,
    };
    millis.map(Duration::from_millis).ok_or_else(|| format!("must be {DURATION}"))
}

#[cfg(test)]
mod tests;
