//! Values of settings: what kinds there are, how each is read from text, and how it is shown again.

use super::{ConfigError, bad};

pub(super) const MAX: i64 = i32::MAX as i64;
pub(super) const LONG_MAX: i64 = i64::MAX;
pub(super) const TIMESTAMP_TYPES: &[&str] = &["CreateTime", "LogAppendTime"];
pub(super) const CLEANUP_POLICIES: &[&str] = &["compact", "delete"];
const LEADER_SELECTOR: &str = "org.apache.kafka.common.replica.LeaderSelector";
const RACK_AWARE_SELECTOR: &str = "org.apache.kafka.common.replica.RackAwareReplicaSelector";
pub(super) const REPLICA_SELECTORS: &[&str] = &[LEADER_SELECTOR, RACK_AWARE_SELECTOR];
pub(super) const COMPRESSION_TYPES: &[&str] = &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"];

/// What values a setting takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A 32-bit number, with its bounds.
    Int(i64, i64),
    /// A 64-bit number, with its bounds.
    Long(i64, i64),
    /// A number with a fraction, with its bounds.
    Double(f64, f64),
    /// `true` or `false`.
    Boolean,
    /// Any text.
    Text,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Some of these words, with commas between them.
    List(&'static [&'static str]),
}

impl Kind {
    /// Kafka's number for the type (`DescribeConfigsResponse.ConfigType`).
    pub fn code(&self) -> i8 {
        match self {
            Kind::Boolean => 1,
            Kind::Text | Kind::Choice(_) => 2,
            Kind::Int(..) => 3,
            Kind::Long(..) => 5,
            Kind::Double(..) => 6,
            Kind::List(_) => 7,
        }
    }

    /// A value as Kafka shows it once it has read it (`ConfigDef.parseType`, then `convertToString`): blanks are gone, and
    /// numbers are written as Java writes them. What cannot be read stays.
    pub(super) fn as_read(&self, value: &str) -> String {
        let value = value.trim();
        match self {
            Kind::Int(..) | Kind::Long(..) => {
                value.parse::<i64>().map_or_else(|_| value.to_owned(), |number| number.to_string())
            }
            Kind::Double(..) => value.parse::<f64>().map_or_else(|_| value.to_owned(), as_java_shows),
            Kind::Boolean => value.to_ascii_lowercase(),
            Kind::Text | Kind::Choice(_) => value.to_owned(),
            Kind::List(_) => value.split(',').map(str::trim).collect::<Vec<_>>().join(","),
        }
    }

    /// Whether a setting may have that value.
    pub(super) fn check(&self, name: &str, value: &str) -> Result<(), ConfigError> {
        match *self {
            Kind::Int(..) | Kind::Long(..) => i64::read(name, value, self).map(drop),
            Kind::Double(..) => f64::read(name, value, self).map(drop),
            Kind::Boolean => bool::read(name, value, self).map(drop),
            Kind::Text => Ok(()),
            Kind::Choice(words) if words.contains(&value.trim()) => Ok(()),
            Kind::List(words) if value.split(',').all(|word| words.contains(&word.trim())) => Ok(()),
            Kind::Choice(words) | Kind::List(words) => {
                Err(bad(name, value, format!("`{}`", words.join("` or `"))))
            }
        }
    }
}

/// What is done with old records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// The last record of each key is kept.
    pub compact: bool,
    /// They are deleted.
    pub delete: bool,
}

/// How batches are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// As the producer sent them.
    Producer,
    /// Not at all.
    Uncompressed,
    /// gzip.
    Gzip,
    /// snappy, in the framing of the Java library.
    Snappy,
    /// lz4 frames.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// Where a consumer reads that says in which rack it is (KIP-392).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaSelector {
    /// Always from the leader.
    Leader,
    /// From a replica in its own rack, if one is in sync and has what it wants.
    RackAware,
}

/// Who says what time a record has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// Its producer.
    CreateTime,
    /// The broker that appends it.
    LogAppendTime,
}

/// A typed value of a setting.
pub(super) trait Value: Sized {
    fn read(name: &str, value: &str, kind: &Kind) -> Result<Self, ConfigError>;

    /// As text; `None` for a setting without a value.
    fn show(&self) -> Option<String>;

    /// What stands for no value; only optional settings have that.
    fn none() -> Option<Self> {
        None
    }
}

impl Value for bool {
    fn read(name: &str, value: &str, _: &Kind) -> Result<bool, ConfigError> {
        let expected = || "`true` or `false`".to_owned();
        value.trim().to_ascii_lowercase().parse().map_err(|_| bad(name, value, expected()))
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Value for i64 {
    fn read(name: &str, value: &str, kind: &Kind) -> Result<i64, ConfigError> {
        let (Kind::Int(min, max) | Kind::Long(min, max)) = *kind else {
            panic!("`{name}` is a whole number, but the table has {kind:?}")
        };
        let parsed = value.trim().parse::<i64>().ok().filter(|number| (min..=max).contains(number));
        let expected = || match max {
            MAX | LONG_MAX => format!("a whole number from {min}"),
            max => format!("from {min} to {max}"),
        };
        parsed.ok_or_else(|| bad(name, value, expected()))
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Value for i32 {
    fn read(name: &str, value: &str, kind: &Kind) -> Result<i32, ConfigError> {
        i64::read(name, value, kind).map(|number| i32::try_from(number).expect("its bounds are 32-bit"))
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

/// As `Double.toString`: with an exponent below a thousandth.
fn as_java_shows(number: f64) -> String {
    if number != 0.0 && number.abs() < 1e-3 {
        let shown = format!("{number:e}");
        let (digits, exponent) = shown.split_once('e').expect("it was asked for with an exponent");
        let fraction = if digits.contains('.') { "" } else { ".0" };
        return format!("{digits}{fraction}E{exponent}");
    }
    format!("{number:?}")
}

impl Value for f64 {
    fn read(name: &str, value: &str, kind: &Kind) -> Result<f64, ConfigError> {
        let Kind::Double(min, max) = *kind else {
            panic!("`{name}` has a fraction, but the table has {kind:?}")
        };
        let parsed = value.trim().parse::<f64>().ok().filter(|number| (min..=max).contains(number));
        parsed.ok_or_else(|| bad(name, value, format!("a number from {min} to {max}")))
    }

    fn show(&self) -> Option<String> {
        Some(as_java_shows(*self))
    }
}

impl Value for String {
    fn read(_: &str, value: &str, _: &Kind) -> Result<String, ConfigError> {
        Ok(value.to_owned())
    }

    fn show(&self) -> Option<String> {
        Some(self.clone())
    }
}

impl Value for ReplicaSelector {
    fn read(name: &str, value: &str, _: &Kind) -> Result<ReplicaSelector, ConfigError> {
        match value.trim() {
            LEADER_SELECTOR => Ok(ReplicaSelector::Leader),
            RACK_AWARE_SELECTOR => Ok(ReplicaSelector::RackAware),
            _ => Err(bad(name, value, format!("`{LEADER_SELECTOR}` or `{RACK_AWARE_SELECTOR}`"))),
        }
    }

    fn show(&self) -> Option<String> {
        let class = match self {
            ReplicaSelector::Leader => LEADER_SELECTOR,
            ReplicaSelector::RackAware => RACK_AWARE_SELECTOR,
        };
        Some(class.to_owned())
    }
}

impl<T: Value> Value for Option<T> {
    fn read(name: &str, value: &str, kind: &Kind) -> Result<Option<T>, ConfigError> {
        T::read(name, value, kind).map(Some)
    }

    fn none() -> Option<Option<T>> {
        Some(None)
    }

    fn show(&self) -> Option<String> {
        self.as_ref().and_then(T::show)
    }
}

impl Value for TimestampType {
    fn read(name: &str, value: &str, _: &Kind) -> Result<TimestampType, ConfigError> {
        match value.trim() {
            "CreateTime" => Ok(TimestampType::CreateTime),
            "LogAppendTime" => Ok(TimestampType::LogAppendTime),
            _ => Err(bad(name, value, "`CreateTime` or `LogAppendTime`".into())),
        }
    }

    fn show(&self) -> Option<String> {
        Some(format!("{self:?}"))
    }
}

impl Value for CleanupPolicy {
    fn read(name: &str, value: &str, _: &Kind) -> Result<CleanupPolicy, ConfigError> {
        let mut policy = CleanupPolicy { compact: false, delete: false };
        for word in value.split(',').map(str::trim) {
            match word {
                "compact" => policy.compact = true,
                "delete" => policy.delete = true,
                _ => return Err(bad(name, value, "`delete`, `compact` or both".into())),
            }
        }
        Ok(policy)
    }

    fn show(&self) -> Option<String> {
        let words = [(self.compact, "compact"), (self.delete, "delete")];
        Some(words.iter().filter(|(on, _)| *on).map(|(_, word)| *word).collect::<Vec<_>>().join(","))
    }
}

impl Value for Compression {
    fn read(name: &str, value: &str, _: &Kind) -> Result<Compression, ConfigError> {
        Ok(match value.trim() {
            "producer" => Compression::Producer,
            "uncompressed" => Compression::Uncompressed,
            "gzip" => Compression::Gzip,
            "snappy" => Compression::Snappy,
            "lz4" => Compression::Lz4,
            "zstd" => Compression::Zstd,
            _ => return Err(bad(name, value, format!("one of `{}`", COMPRESSION_TYPES.join("`, `")))),
        })
    }

    fn show(&self) -> Option<String> {
        Some(format!("{self:?}").to_ascii_lowercase())
    }
}

/// A value from the table's own default.
pub(super) trait FromDefault: Sized {
    fn from_default(name: &str, default: Option<&str>, kind: &Kind) -> Self;
}

impl<T: Value> FromDefault for T {
    fn from_default(name: &str, default: Option<&str>, kind: &Kind) -> T {
        // What has no default is an `Option`, which reads nothing as `None`.
        match default {
            Some(default) => T::read(name, default, kind).expect("a default is within its bounds"),
            None => T::none().unwrap_or_else(|| panic!("`{name}` needs a default")),
        }
    }
}
