//! Client configuration under Kafka's own property names.

use std::collections::BTreeMap;
use std::fmt::Display;

/// Property names with their values, as text, in the order of their names.
///
/// ```
/// use shakedown_broker::Properties;
/// let properties = Properties::new().set("group.id", "payments").set("enable.auto.commit", false);
/// assert_eq!(properties.get("enable.auto.commit"), Some("false"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Properties(BTreeMap<String, String>);

impl Properties {
    /// None set.
    pub fn new() -> Properties {
        Properties::default()
    }

    /// With `name` set to `value`.
    #[must_use]
    pub fn set(mut self, name: impl Into<String>, value: impl Display) -> Properties {
        self.0.insert(name.into(), value.to_string());
        self
    }

    /// With all of `other`; its values win.
    #[must_use]
    pub fn with(mut self, other: &Properties) -> Properties {
        self.0.extend(other.0.iter().map(|(name, value)| (name.clone(), value.clone())));
        self
    }

    /// The value of `name`, if set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// In the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}
