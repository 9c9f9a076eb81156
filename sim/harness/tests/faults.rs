//! Every fault, with its effect; and each where it cannot have one, and says so.

mod toy;

use reports::{FaultReport, SeedResult};
use toy::{broken, run, scenario};

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
fn a_rolling_restart_takes_every_broker_down_once() {
    let fault = "at = \"1s\"\nrolling_restart = { hosts = [\"broker-*\"], down_for = \"1s\", gap = \"12s\" }";
    assert_eq!(takes_effect(fault, "connections cut").active.len(), 2);
}

#[test]
fn hosts_that_are_down_already_cannot_be_restarted_one_after_the_other() {
    leaves_nothing_for(
        ECHO_IS_DOWN,
        "at = \"2s\"\nrolling_restart = { hosts = [\"echo-1\"], down_for = \"1s\", gap = \"1s\" }",
    );
}

#[test]
fn a_crashed_service_loses_its_tasks_and_goes_on_after_its_restart() {
    takes_effect("at = \"1s\"\ncrash_service = { service = \"echo\", down_for = \"2s\" }", "tasks killed");
}

#[test]
fn a_service_that_is_down_already_cannot_be_crashed() {
    leaves_nothing_for(
        ECHO_IS_DOWN,
        "at = \"3s\"\ncrash_service = { service = \"echo\", down_for = \"1s\" }",
    );
}

#[test]
fn a_crashed_outside_system_loses_its_tasks() {
    takes_effect("at = \"1s\"\ncrash_outside = { system = \"bank\", down_for = \"2s\" }", "tasks killed");
}

#[test]
fn an_outside_system_that_is_down_already_cannot_be_crashed() {
    let crash = |at: &str, down_for: &str| {
        format!("at = \"{at}\"\ncrash_outside = {{ system = \"bank\", down_for = \"{down_for}\" }}")
    };
    leaves_nothing_for(&crash("1s", "4s"), &crash("2s", "1s"));
}

#[test]
fn a_pause_defers_what_would_have_woken_the_host() {
    takes_effect("at = \"1s\"\npause = { host = \"echo-1\", for = \"2s\" }", "wakes deferred");
}

#[test]
fn a_host_that_is_down_cannot_be_paused() {
    leaves_nothing_for(ECHO_IS_DOWN, "at = \"2s\"\npause = { host = \"echo-1\", for = \"1s\" }");
}

#[test]
fn a_partition_holds_packets_in_both_directions() {
    let fault = "at = \"1s\"\npartition = { between = [\"echo-*\"], and = [\"broker-*\"], for = \"2s\" }";
    takes_effect(fault, "packets held");
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
fn a_hold_keeps_packets_of_one_direction() {
    takes_effect(
        "at = \"1s\"\nhold = { from = [\"broker-*\"], to = [\"sink-1\"], for = \"2s\" }",
        "packets held",
    );
}

#[test]
fn a_hold_between_hosts_that_never_speak_is_inert() {
    let fault = "[[fault]]\nat = \"1s\"\nhold = { from = [\"bank\"], to = [\"sink-1\"], for = \"2s\" }\n";
    assert!(faults(fault)[0].inert());
}

#[test]
fn a_changed_latency_slows_packets() {
    let fault = "at = \"1s\"\nlatency = { between = [\"echo-1\"], and = [\"bank\"], range = \"50ms..80ms\", for = \"2s\" }";
    takes_effect(fault, "packets slowed");
}

#[test]
fn a_changed_latency_between_hosts_that_never_speak_is_inert() {
    let fault = "[[fault]]\nat = \"1s\"\n\
                 latency = { between = [\"sink-1\"], and = [\"bank\"], range = \"50ms..80ms\", for = \"2s\" }\n";
    assert!(faults(fault)[0].inert());
}

#[test]
fn duplicates_are_appended_and_excused_by_the_check_on_idempotent_producers() {
    let fault = "during = \"0s..4s\"\nduplicate_records = { topic = \"questions\", probability = \"50%\" }";
    takes_effect(fault, "records copied");
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
