//! The mutants: what is broken, where, and which cases must notice.
//!
//! To add one: copy a line, give the place with the expression to be replaced between « and », and what shall stand there
//! instead, of the same type; run `cargo run --release -p shakedown-mutants NAME`, and name those of the red cases that
//! claim the feature. If none does, the tests have a hole: a case is missing.
//!
//! The name of a case begins with its suite: `world` is the conformance suite of `services/broker` and the claims of
//! `sim/client`, inside the simulated world; `client` is `sim/client/tests/world`; `kafka` is the unit tests of
//! `sim/kafka`, and any other word one of its test files, or a folder of them. The first is preferred: those cases hold
//! on real Kafka too.
//!
//! Left out: what is not one expression of the simulated Kafka or its client. So are the refusals of each admin API one by one (the
//! check behind them is here), torn pages of checkpoints and of the metadata log (they are synced apart and never torn), the
//! sockets of `shakedown serve`, and of the clients' habits all that only `sim/client`'s unit tests tell apart, which are no suite of
//! this table.

mod admin;
mod client;
mod groups;
mod log;
mod replication;
mod transactions;

use std::collections::BTreeSet;

use crate::suite::Suite;

/// One feature, switched off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mutant {
    /// Its name.
    pub(crate) name: &'static str,
    /// What is broken, for people.
    pub(crate) breaks: &'static str,
    /// The file, from the top of the repository: one of `sim/kafka/src` or `sim/client/src`.
    pub(crate) file: &'static str,
    /// A place that is there once, with the replaced expression between « and ».
    pub(crate) place: &'static str,
    /// What stands there instead.
    pub(crate) becomes: &'static str,
    /// The cases that must go red.
    pub(crate) red: &'static [&'static str],
}

impl Mutant {
    /// Where its cases are.
    pub(crate) fn suites(&self) -> BTreeSet<Suite> {
        self.red.iter().map(Suite::of).collect()
    }
}

/// Every mutant, in the order in which they are best read.
pub(crate) fn mutants() -> Vec<Mutant> {
    [
        replication::MUTANTS,
        log::MUTANTS,
        transactions::MUTANTS,
        groups::MUTANTS,
        client::MUTANTS,
        admin::MUTANTS,
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use super::*;
    use crate::source::{changed, repository};

    #[test]
    fn every_place_is_in_its_file_once() {
        changed(&repository(), &mutants()).unwrap();
    }

    #[test]
    fn every_mutant_has_a_name_of_its_own_and_a_case() {
        let mut seen = BTreeSet::new();
        for mutant in mutants() {
            assert!(seen.insert(mutant.name), "two are called {}", mutant.name);
            assert!(!mutant.red.is_empty(), "nothing must notice {}", mutant.name);
        }
    }

    /// A test of this name in one of these files.
    fn is_in(files: &[&str], name: &str) -> bool {
        let text = |file: &&str| fs::read_to_string(repository().join(file)).unwrap_or_default();
        files.iter().map(text).any(|text| text.contains(&format!("fn {name}(")))
    }

    #[test]
    fn every_case_that_must_notice_is_there() {
        let conformance: BTreeSet<&str> =
            broker::conformance::cases().into_iter().map(|case| case.name).collect();
        let mut units = BTreeMap::new();
        for mutant in mutants() {
            for case in mutant.red {
                let parts: Vec<&str> = case.split("::").collect();
                let known = match parts[..] {
                    ["world", name] => conformance.contains(name),
                    ["world", "librdkafka" | "java", name] => {
                        is_in(&["sim/client/tests/claims/mod.rs", "sim/client/tests/claims/admin.rs"], name)
                    }
                    ["client", file, name] => is_in(&[&format!("sim/client/tests/world/{file}.rs")], name),
                    ["kafka", ref module @ .., "tests", name] => {
                        let path = format!("sim/kafka/src/{}", module.join("/"));
                        let files =
                            ["{}.rs", "{}/tests.rs", "{}/mod.rs"].map(|form| form.replace("{}", &path));
                        *units.entry(*case).or_insert_with(|| {
                            is_in(&files.iter().map(String::as_str).collect::<Vec<_>>(), name)
                        })
                    }
                    ["kafka", ref module @ .., "tests", file, name] => {
                        is_in(&[&format!("sim/kafka/src/{}/tests/{file}.rs", module.join("/"))], name)
                    }
                    [file, name] => is_in(&[&format!("sim/kafka/tests/{file}.rs")], name),
                    [folder, file, name] => is_in(&[&format!("sim/kafka/tests/{folder}/{file}.rs")], name),
                    _ => false,
                };
                assert!(known, "mutant {} names `{case}`, and there is no such case", mutant.name);
            }
        }
    }
}
