//! The hosts of a scenario, and the patterns that name sets of them.

use std::collections::BTreeMap;
use std::ops::Range;

use super::diagnostic::{Invalid, did_you_mean, listed};
use super::{Probe, ServiceSettings, Vocabulary};

/// All hosts of one scenario, by kind, in the order in which reports list them.
pub(super) struct Hosts {
    names: Vec<String>,
    /// What a message offers instead of dozens of hosts: `broker-*`, `payment-*`, `gateway`.
    patterns: Vec<String>,
}

impl Hosts {
    pub(super) fn new(
        brokers: u32,
        services: &BTreeMap<String, ServiceSettings>,
        probe: Option<&Probe>,
        vocabulary: &Vocabulary,
    ) -> Hosts {
        let mut names: Vec<String> = (1..=brokers).map(|number| format!("broker-{number}")).collect();
        names.push("controller".to_owned());
        let mut patterns = vec!["broker-*".to_owned(), "controller".to_owned()];
        for (service, settings) in services {
            names.extend((1..=settings.replicas).map(|replica| format!("{service}-{replica}")));
            patterns.push(format!("{service}-*"));
        }
        if let Some(probe) = probe {
            names.extend((1..=probe.writers).map(Probe::writer));
            names.push(Probe::READER.to_owned());
            patterns.push("probe-*".to_owned());
        }
        for single in vocabulary.outside.iter().chain(&vocabulary.others) {
            names.push(single.clone());
            patterns.push(single.clone());
        }
        Hosts { names, patterns }
    }

    /// One host by its exact name.
    pub(super) fn one(&self, name: &str, span: Range<usize>) -> Result<String, Invalid> {
        match self.names.iter().find(|host| *host == name) {
            Some(host) => Ok(host.clone()),
            None => Err(self.no_such(name, span)),
        }
    }

    /// All hosts that a list of names and patterns matches, each once, in the order of the hosts.
    pub(super) fn all(&self, patterns: &[(&str, Range<usize>)]) -> Result<Vec<String>, Invalid> {
        for (pattern, span) in patterns {
            if !self.names.iter().any(|host| matches(pattern, host)) {
                return Err(self.no_such(pattern, span.clone()));
            }
        }
        let met = |host: &&String| patterns.iter().any(|(pattern, _)| matches(pattern, host));
        Ok(self.names.iter().filter(met).cloned().collect())
    }

    /// All hosts that are not in `hosts`.
    pub(super) fn others(&self, hosts: &[String]) -> Vec<String> {
        self.names.iter().filter(|host| !hosts.contains(host)).cloned().collect()
    }

    fn no_such(&self, name: &str, span: Range<usize>) -> Invalid {
        let words = || self.names.iter().chain(&self.patterns).map(String::as_str);
        Invalid::new(span, format!("`{name}` matches no host"), did_you_mean(name, words()))
            .help(format!("the hosts are {}", listed(self.patterns.iter().map(String::as_str))))
    }
}

/// `*` stands for any text, also none.
fn matches(pattern: &str, host: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == host,
        Some((head, tail)) => host.strip_prefix(head).is_some_and(|rest| {
            rest.char_indices().map(|(at, _)| at).chain([rest.len()]).any(|at| matches(tail, &rest[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_stands_for_any_text() {
        assert!(matches("broker-*", "broker-12"));
        assert!(matches("*-1", "payment-1"));
        assert!(matches("*", "gateway"));
        assert!(matches("p*t-*", "payment-2"));
        assert!(!matches("broker-*", "broker"));
        assert!(!matches("order-1", "order-11"));
    }
}
