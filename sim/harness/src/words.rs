//! What a scenario file may name: the words of the system under test, and those that every system has.

use crate::check::kafka;
use crate::observer;
use crate::scenario::Vocabulary;
use crate::system::{CheckWords, System};

/// All words for a system under test.
///
/// # Panics
/// If two checks have one name.
pub fn vocabulary(system: &dyn System) -> Vocabulary {
    let mut others = system.workload();
    others.push(observer::HOST.to_owned());
    let checks = checks(system);
    let once = checks.iter().filter(|words| words.exactly_once);
    Vocabulary {
        services: system.services(),
        outside: system.outside(),
        others,
        topics: system.topics(),
        refusals: system.refusals(),
        checks: checks.iter().map(|words| words.name.to_owned()).collect(),
        exactly_once_checks: once.map(|words| words.name.to_owned()).collect(),
        consumer_session_timeout: system.consumer_session_timeout(),
    }
}

/// Every check that a run makes: those of Kafka, then the system's own.
///
/// # Panics
/// If two have one name.
pub fn checks(system: &dyn System) -> Vec<CheckWords> {
    let mut words: Vec<CheckWords> = kafka::CHECKS.to_vec();
    for check in system.checks() {
        assert!(
            words.iter().all(|other| other.name != check.name),
            "there are two checks called `{}`",
            check.name
        );
        words.push(check);
    }
    words
}
