//! Every fault, with its effect; and each where it cannot have one, and says so.

mod toy;

use std::io;
use std::sync::{Arc, Mutex};

use reports::{FaultReport, SeedResult};
use shakedown_harness::fault::RECORDS_LOST;
use shakedown_harness::recorder::{Detail, Trace};
use shakedown_harness::scenario::FaultKind;
use toy::{Toy, broken, run, scenario};
use world::Engine;

/// Runs the toy with these faults; the system must end well whatever goes wrong.
fn faults(text: &str) -> Vec<FaultReport> {
    let result: SeedResult = run(&scenario(60, text), 3);
    assert_eq!(broken(&result), Vec::<&str>::new(), "{:#?}", result.findings);
    result.faults
}

/// One fault that must have this effect.
fn takes_effect(fault: &str, effect: &str) -> FaultReport {
    let report = faults(&format!("[[fault]]\n{fault}\n")).remove(0);
    assert!(report.effects.get(effect).is_some_and(|count| *count > 0), "{report:?}");
    assert!(!report.inert());
    report
}

/// Two faults: with the first in force, the second finds nothing to hurt.
fn leaves_nothing_for(first: &str, second: &str) {
    let reports = faults(&format!("[[fault]]\n{first}\n[[fault]]\n{second}\n"));
    assert!(!reports[0].inert(), "{:?}", reports[0]);
    assert!(reports[1].inert(), "{:?}", reports[1]);
    assert_eq!(reports[1].active.len(), 1, "it was brought, and did nothing");
}

/// A fault of each kind, and the effect by which it is known.
const BITES: [(&str, &str, &str); 10] = [
    ("crash_broker", "at = \"1s\"\ncrash_broker = { broker = 1, down_for = \"2s\" }", "connections cut"),
    ("crash_controller", "at = \"1s\"\ncrash_controller = {}", "connections cut"),
    (
        "rolling_restart",
        "at = \"1s\"\nrolling_restart = { hosts = [\"broker-*\"], down_for = \"1s\", gap = \"2s\" }",
        "clean stops",
    ),
    (
        "crash_service",
        "at = \"1s\"\ncrash_service = { service = \"echo\", down_for = \"2s\" }",
        "tasks killed",
    ),
    (
        "crash_outside",
        "at = \"1s\"\ncrash_outside = { system = \"bank\", down_for = \"2s\" }",
        "tasks killed",
    ),
    ("pause", "at = \"1s\"\npause = { host = \"echo-1\", for = \"2s\" }", "wakes deferred"),
    (
        "partition",
        "at = \"1s\"\npartition = { between = [\"echo-*\"], and = [\"broker-*\"], for = \"2s\" }",
        "packets held",
    ),
    (
        "hold",
        "at = \"1s\"\nhold = { from = [\"broker-*\"], to = [\"sink-1\"], for = \"2s\" }",
        "packets held",
    ),
    (
        "latency",
        "at = \"1s\"\nlatency = { between = [\"echo-1\"], and = [\"bank\"], range = \"50ms..80ms\", for = \"2s\" }",
        "packets slowed",
    ),
    (
        "duplicate_records",
        "during = \"0s..4s\"\nduplicate_records = { topic = \"questions\", probability = \"50%\" }",
        "records copied",
    ),
];

#[test]
fn every_fault_that_is_listed_bites() {
    for (word, _) in FaultKind::WORDS {
        let bite = BITES.iter().find(|(other, _, _)| other == word);
        let (_, fault, effect) = bite.unwrap_or_else(|| panic!("no bite of `{word}` is known"));
        takes_effect(fault, effect);
    }
}

const ECHO_IS_DOWN: &str = "at = \"1s\"\ncrash_service = { service = \"echo\", down_for = \"6s\" }";

#[test]
fn a_crashed_broker_cuts_its_connections_and_comes_back() {
    let report =
        takes_effect("at = \"1s\"\ncrash_broker = { broker = 1, down_for = \"2s\" }", "connections cut");
    assert_eq!(report.what, "crash_broker broker-1 for 2s");
    assert_eq!(report.active.len(), 1);
}

#[test]
fn a_crash_of_whoever_leads_a_partition_finds_the_leader() {
    let fault = "at = \"1s\"\ncrash_broker = { leader_of = \"questions/0\", down_for = \"2s\" }";
    takes_effect(fault, "connections cut");
}

#[test]
fn a_broker_that_is_down_already_cannot_be_crashed() {
    let crash = |at: &str, down_for: &str| {
        format!("at = \"{at}\"\ncrash_broker = {{ broker = 1, down_for = \"{down_for}\" }}")
    };
    leaves_nothing_for(&crash("1s", "4s"), &crash("2s", "1s"));
}

#[test]
fn a_rolling_restart_asks_every_broker_to_end_and_kills_it_only_if_it_should() {
    let restart = |more: &str| {
        format!(
            "at = \"1s\"\nrolling_restart = {{ hosts = [\"broker-*\"], down_for = \"1s\", gap = \"12s\"{more} }}"
        )
    };
    let clean = takes_effect(&restart(""), "clean stops");
    assert_eq!((clean.effects["clean stops"], clean.active.len()), (2, 2));
    let killed = takes_effect(&restart(", clean = false"), "connections cut");
    assert_eq!((killed.effects.get("clean stops"), killed.active.len()), (None, 2));
}

#[test]
fn a_broker_that_cannot_end_is_killed() {
    let reports = faults(
        "[[fault]]\nat = \"900ms\"\npause = { host = \"broker-1\", for = \"50s\" }\n\
         [[fault]]\nat = \"1s\"\nrolling_restart = { hosts = [\"broker-1\"], down_for = \"1s\", gap = \"1s\" }\n",
    );
    let (from, to) = reports[1].active[0];
    assert!((to - from).as_secs() == 31, "30 s until it is killed, and a second down: {:?}", reports[1]);
    assert_eq!(reports[1].effects.get("clean stops"), None);
}

#[test]
fn a_broker_that_another_fault_restarts_before_it_has_ended_is_asked_again() {
    let reports = faults(
        "[[fault]]\nat = \"900ms\"\npause = { host = \"broker-1\", for = \"5s\" }\n\
         [[fault]]\nat = \"1s\"\nrolling_restart = { hosts = [\"broker-1\"], down_for = \"1s\", gap = \"1s\" }\n\
         [[fault]]\nat = \"1050ms\"\ncrash_broker = { broker = 1, down_for = \"20ms\" }\n",
    );
    assert_eq!(reports[1].effects.get("clean stops"), Some(&1), "{reports:#?}");
    assert!(reports[2].effects["connections cut"] > 0, "{reports:#?}");
}

#[test]
fn the_controller_is_away_for_an_election_of_two_to_five_seconds() {
    let report = takes_effect("at = \"1s\"\ncrash_controller = {}", "tasks killed");
    let (from, to) = report.active[0];
    assert!((2_000..=5_000).contains(&(to - from).as_millis()), "{report:?}");
    assert_eq!(report.what, "crash_controller for 2s to 5s");
}

/// Two replicas, both of which must have a record: one that loses power takes nothing that was acknowledged.
const REPLICATED: &str = "replication_factor = 2\nmin_insync_replicas = 2\n";

#[test]
fn a_power_loss_takes_what_was_not_flushed_and_the_trace_says_what() {
    let fault =
        "[[fault]]\nat = \"2s\"\ncrash_broker = { broker = 1, down_for = \"1s\", power_loss = true }\n";
    let written = Written::default();
    let trace = Trace::new(written.clone(), Detail::Events);
    let scenario = scenario(60, &format!("{REPLICATED}{fault}"));
    let result = shakedown_harness::run(&Toy, &scenario, 3, Engine::Jump, Some(trace)).unwrap();
    assert_eq!(broken(&result), Vec::<&str>::new(), "{:#?}", result.findings);
    let lost = result.faults[0].effects[RECORDS_LOST];
    let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
    let told: Vec<u64> = text
        .lines()
        .filter(|line| line.contains("fault") && line.contains("with the power: its log ended at"))
        .map(|line| line.split("broker-1 loses ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap())
        .collect();
    assert!(told.len() > 1, "one event for each log that was cut: {told:?}");
    assert_eq!(told.iter().sum::<u64>(), lost);
}

#[test]
fn a_broker_that_is_down_can_still_lose_its_power_and_what_it_had_not_flushed() {
    let reports = faults(&format!(
        "{REPLICATED}[[fault]]\nat = \"2s\"\ncrash_broker = {{ broker = 1, down_for = \"6s\" }}\n\
         [[fault]]\nat = \"3s\"\ncrash_broker = {{ broker = 1, down_for = \"1s\", power_loss = true }}\n"
    ));
    assert!(reports[1].effects[RECORDS_LOST] > 0, "{reports:#?}");
    assert_eq!(reports[1].effects.get("tasks killed"), None, "the first crash has killed them");
    assert_eq!(reports[0].effects.get(RECORDS_LOST), None);
}

#[test]
fn a_fault_does_not_claim_what_another_has_killed() {
    let reports = faults(
        "[[fault]]\nat = \"1s\"\npause = { host = \"echo-1\", for = \"4s\" }\n\
         [[fault]]\nat = \"2s\"\ncrash_service = { service = \"echo\", down_for = \"1s\" }\n",
    );
    assert_eq!(reports[0].effects.keys().collect::<Vec<_>>(), ["wakes deferred"]);
    assert!(reports[1].effects["tasks killed"] > 0);
}

/// A trace that a test can read.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn hosts_that_are_down_already_cannot_be_restarted_one_after_the_other() {
    leaves_nothing_for(
        ECHO_IS_DOWN,
        "at = \"2s\"\nrolling_restart = { hosts = [\"echo-1\"], down_for = \"1s\", gap = \"1s\" }",
    );
}

#[test]
fn a_service_that_is_down_already_cannot_be_crashed() {
    leaves_nothing_for(
        ECHO_IS_DOWN,
        "at = \"3s\"\ncrash_service = { service = \"echo\", down_for = \"1s\" }",
    );
}

#[test]
fn an_outside_system_that_is_down_already_cannot_be_crashed() {
    let crash = |at: &str, down_for: &str| {
        format!("at = \"{at}\"\ncrash_outside = {{ system = \"bank\", down_for = \"{down_for}\" }}")
    };
    leaves_nothing_for(&crash("1s", "4s"), &crash("2s", "1s"));
}

#[test]
fn a_host_that_is_down_cannot_be_paused() {
    leaves_nothing_for(ECHO_IS_DOWN, "at = \"2s\"\npause = { host = \"echo-1\", for = \"1s\" }");
}

#[test]
fn a_one_way_partition_holds_packets_in_one_direction() {
    let fault = "at = \"1s\"\npartition = { between = [\"echo-*\"], and = [\"broker-*\"], one_way = true, for = \"2s\" }";
    takes_effect(fault, "packets held");
}

#[test]
fn a_partition_between_hosts_that_never_speak_is_inert() {
    let fault =
        "[[fault]]\nat = \"1s\"\npartition = { between = [\"sink-1\"], and = [\"bank\"], for = \"2s\" }\n";
    assert!(faults(fault)[0].inert());
}

#[test]
fn a_hold_between_hosts_that_never_speak_is_inert() {
    let fault = "[[fault]]\nat = \"1s\"\nhold = { from = [\"bank\"], to = [\"sink-1\"], for = \"2s\" }\n";
    assert!(faults(fault)[0].inert());
}

#[test]
fn a_changed_latency_between_hosts_that_never_speak_is_inert() {
    let fault = "[[fault]]\nat = \"1s\"\n\
                 latency = { between = [\"sink-1\"], and = [\"bank\"], range = \"50ms..80ms\", for = \"2s\" }\n";
    assert!(faults(fault)[0].inert());
}

#[test]
fn duplicates_of_one_partition_do_not_wait_for_the_leader_of_another() {
    let reports = faults(
        "[[fault]]\nat = \"100ms\"\ncrash_broker = { leader_of = \"questions/0\", down_for = \"4s\" }\n\
         [[fault]]\nduring = \"500ms..3s\"\nduplicate_records = { topic = \"questions\", probability = \"100%\" }\n",
    );
    assert!(reports.iter().all(|report| !report.inert()), "{reports:#?}");
}

#[test]
fn duplicates_where_nothing_is_sent_any_more_are_inert() {
    let fault = "[[fault]]\nduring = \"20s..24s\"\nduplicate_records = { topic = \"questions\", probability = \"50%\" }\n";
    assert!(faults(fault)[0].inert());
}

#[test]
fn faults_repeat_as_their_file_says() {
    let fault = "during = \"500ms..3s\"\nevery = \"1s\"\npause = { host = \"echo-1\", for = \"500ms\" }";
    assert_eq!(takes_effect(fault, "wakes deferred").active.len(), 3);
}

/// Every kind at once, one inside another, and some ending at the moment when others begin.
#[test]
fn faults_that_overlap_are_all_healed_in_the_end() {
    let kinds = [
        "at = \"500ms\"\ncrash_broker = { broker = 1, down_for = \"3s\" }",
        "at = \"1s\"\ncrash_broker = { broker = 1, down_for = \"5s\" }",
        "at = \"500ms\"\npause = { host = \"echo-1\", for = \"4s\" }",
        "at = \"1s\"\ncrash_service = { service = \"echo\", down_for = \"2s\" }",
        "at = \"3s\"\npause = { host = \"echo-1\", for = \"1s\" }",
        "at = \"1s\"\ncrash_outside = { system = \"bank\", down_for = \"3s\" }",
        "at = \"1s\"\npartition = { between = [\"echo-*\"], and = [\"broker-*\"], for = \"3s\" }",
        "at = \"2s\"\nhold = { from = [\"broker-*\"], to = [\"echo-*\", \"sink-*\"], for = \"3s\" }",
        "at = \"2s\"\nlatency = { between = [\"sink-1\"], and = [\"broker-2\"], range = \"50ms..80ms\", for = \"2s\" }",
        "at = \"3s\"\nlatency = { between = [\"sink-1\"], and = [\"broker-2\"], range = \"5ms..8ms\", for = \"2s\" }",
        "at = \"8s\"\nrolling_restart = { hosts = [\"*-1\"], down_for = \"1s\", gap = \"500ms\" }",
        "during = \"0s..9s\"\nduplicate_records = { topic = \"questions\", probability = \"50%\" }",
    ];
    let text: String = kinds.map(|fault| format!("[[fault]]\n{fault}\n")).concat();
    let reports = faults(&text);
    assert!(reports.iter().all(|report| !report.active.is_empty()), "{reports:#?}");
}
