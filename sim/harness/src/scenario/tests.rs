//! What files say, and what their authors read when they are wrong.

#![expect(clippy::disallowed_methods, reason = "writes scenario files to read them")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;

/// A shop of two services.
fn vocabulary() -> Vocabulary {
    let words = |flaws: &[&str], has_steps| ServiceWords {
        about: String::new(),
        flaws: flaws.iter().map(|flaw| ((*flaw).to_owned(), String::new())).collect(),
        has_steps,
    };
    let strings = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Vocabulary {
        services: BTreeMap::from([
            ("order".to_owned(), words(&[], true)),
            ("payment".to_owned(), words(&["no_inbox", "fresh_gateway_key"], false)),
        ]),
        outside: strings(&["gateway", "carrier"]),
        others: strings(&["customers", "observer"]),
        topics: strings(&["order.commands", "payment.commands"]),
        refusals: strings(&["payment_declined", "out_of_stock"]),
        checks: strings(&["no_acknowledged_loss", "charged_exactly_once"]),
        exactly_once_checks: strings(&["charged_exactly_once"]),
        consumer_session_timeout: Duration::from_secs(45),
    }
}

fn parse(text: &str) -> Result<Scenario, ScenarioError> {
    Scenario::parse(Path::new("scenarios/sample.toml"), text, &vocabulary())
}

/// The error that a file of this text gives; the claim is line 1 already.
fn refusal(text: &str) -> String {
    let text = format!("claim = \"a claim\"\n{text}");
    match parse(&text) {
        Ok(scenario) => panic!("this was taken for a scenario: {scenario:?}"),
        Err(error) => format!("{text}\n----\n{error}"),
    }
}

macro_rules! refused {
    ($($claim:ident: $text:expr;)*) => {$(
        #[test]
        fn $claim() {
            insta::assert_snapshot!(stringify!($claim), refusal($text));
        }
    )*};
}

refused! {
    // Words.
    an_unknown_section_is_refused: "[clutser]\nbrokers = 3";
    an_unknown_key_is_refused: "[run]\nsed = 3";
    a_misspelt_service_is_refused: "[services.paymnet]\nreplicas = 2";
    an_unknown_flaw_is_refused: "[services.payment]\nnaive = [\"no_inbx\"]";
    a_flaw_of_a_service_without_any_is_refused: "[services.order]\nnaive = [\"no_inbox\"]";
    a_step_timeout_where_there_are_no_steps_is_refused: "[services.payment]\nstep_timeout = \"3s\"";
    an_unknown_delivery_is_refused: "[services.payment]\ndelivery = \"outbx\"";
    an_unknown_refusal_is_refused: "[refusals]\npayment_denied = 3";
    an_unknown_broker_setting_is_refused: "[cluster]\nconfig = { \"broker.sesion.timeout.ms\" = 9000 }";
    an_unknown_setting_of_one_broker_is_refused: "[cluster]\nconfig = { \"2:broker.rak\" = \"a\" }";
    a_setting_of_a_broker_that_is_not_there_is_refused: "[cluster]\nbrokers = 2\nconfig = { \"broker.rack\" = \"a\", \"3:broker.rack\" = \"b\" }";
    a_setting_of_one_broker_with_a_bad_value_is_refused: "[cluster]\nconfig = { \"2:num.partitions\" = -3 }";
    a_broker_setting_with_a_bad_value_is_refused: "[cluster]\nconfig = { \"num.partitions\" = -3 }";
    a_check_that_is_to_break_and_is_left_out_is_refused: "[expect]\nbreaks = \"charged_exactly_once\"\nexactly_once = false";
    an_unknown_check_is_refused: "[expect]\nbreaks = \"no_acknowleged_loss\"";
    // Types and units.
    text_that_is_not_toml_is_refused: "[run\nseeds = 3";
    a_string_for_a_number_is_refused: "[run]\norders = \"many\"";
    a_number_for_a_duration_is_refused: "[expect]\nrecovers_within = 60";
    a_duration_in_a_wrong_unit_is_refused: "[expect]\nrecovers_within = \"60sec\"";
    a_negative_duration_is_refused: "[[fault]]\nat = \"-5s\"\npause = { host = \"order-1\", for = \"3s\" }";
    a_rate_without_a_time_is_refused: "[run]\narrival = \"20\"";
    a_share_without_its_percent_is_refused: "[expect]\nsaga_success_rate = \">= 0.95\"";
    an_expectation_without_a_comparison_is_refused: "[expect]\norder_latency_p95 = \"15s\"";
    no_seeds_are_refused: "[run]\nseeds = 0";
    // Faults.
    an_unknown_fault_is_refused: "[[fault]]\nat = \"5s\"\ncrash_brokr = { broker = 1, down_for = \"3s\" }";
    a_fault_without_a_kind_is_refused: "[[fault]]\nat = \"5s\"";
    a_fault_of_two_kinds_is_refused:
        "[[fault]]\nat = \"5s\"\npause = { host = \"order-1\", for = \"3s\" }\ncrash_outside = { system = \"carrier\", down_for = \"3s\" }";
    a_fault_without_a_time_is_refused: "[[fault]]\npause = { host = \"order-1\", for = \"3s\" }";
    a_fault_with_two_times_is_refused: "[[fault]]\nat = \"5s\"\nduring = \"1s..2s\"\npause = { host = \"order-1\" }";
    a_fault_without_an_end_is_refused: "[[fault]]\nat = \"5s\"\npause = { host = \"order-1\" }";
    a_window_that_ends_before_it_begins_is_refused: "[[fault]]\nduring = \"20s..2s\"\npause = { host = \"order-1\" }";
    a_fault_that_repeats_before_it_is_over_is_refused:
        "[[fault]]\nduring = \"2s..20s\"\nevery = \"3s\"\npause = { host = \"order-1\", for = \"3s\" }";
    a_repetition_without_a_window_is_refused:
        "[[fault]]\nat = \"2s\"\nevery = \"3s\"\npause = { host = \"order-1\", for = \"1s\" }";
    a_repetition_without_a_length_is_refused:
        "[[fault]]\nduring = \"2s..20s\"\nevery = \"3s\"\npause = { host = \"order-1\" }";
    a_crash_of_no_length_is_refused: "[[fault]]\nat = \"5s\"\ncrash_broker = { broker = 1, down_for = \"0s\" }";
    a_crash_without_a_broker_is_refused: "[[fault]]\nat = \"5s\"\ncrash_broker = { down_for = \"3s\" }";
    a_crash_without_a_length_is_refused: "[[fault]]\nat = \"5s\"\ncrash_broker = { broker = 1 }";
    a_broker_beyond_the_cluster_is_refused: "[[fault]]\nat = \"5s\"\ncrash_broker = { broker = 4, down_for = \"3s\" }";
    a_partition_beyond_the_topic_is_refused:
        "[[fault]]\nat = \"5s\"\ncrash_broker = { leader_of = \"payment.commands/3\", down_for = \"3s\" }";
    a_topic_without_a_partition_is_refused:
        "[[fault]]\nat = \"5s\"\ncrash_broker = { leader_of = \"payment.commands\", down_for = \"3s\" }";
    an_unknown_topic_is_refused:
        "[[fault]]\nduring = \"2s..5s\"\nduplicate_records = { topic = \"payments.commands\", probability = \"1%\" }";
    duplicates_that_never_happen_are_refused:
        "[[fault]]\nduring = \"2s..5s\"\nduplicate_records = { topic = \"payment.commands\", probability = \"0%\" }";
    a_crash_of_an_unknown_service_is_refused:
        "[[fault]]\nat = \"5s\"\ncrash_service = { service = \"billing\", down_for = \"3s\" }";
    a_replica_beyond_the_service_is_refused:
        "[[fault]]\nat = \"5s\"\ncrash_service = { service = \"payment\", replica = 2, down_for = \"3s\" }";
    an_unknown_outside_system_is_refused:
        "[[fault]]\nat = \"5s\"\ncrash_outside = { system = \"gatway\", down_for = \"3s\" }";
    an_unknown_host_is_refused: "[[fault]]\nat = \"5s\"\npause = { host = \"payment-2\", for = \"3s\" }";
    hosts_that_match_nothing_are_refused:
        "[[fault]]\nat = \"5s\"\npartition = { between = [\"brokr-*\"], and = [\"payment-*\"], for = \"3s\" }";
    no_hosts_at_all_are_refused: "[[fault]]\nat = \"5s\"\npartition = { between = [], for = \"3s\" }";
    a_host_on_both_sides_is_refused:
        "[[fault]]\nat = \"5s\"\npartition = { between = [\"broker-*\"], and = [\"broker-2\"], for = \"3s\" }";
    a_partition_of_all_from_none_is_refused: "[[fault]]\nat = \"5s\"\npartition = { between = [\"*\"], for = \"3s\" }";
    a_host_that_is_held_from_itself_is_refused:
        "[[fault]]\nat = \"5s\"\nhold = { from = [\"order-1\"], to = [\"order-1\"], for = \"3s\" }";
    a_pause_of_the_workload_is_refused: "[[fault]]\nat = \"5s\"\npause = { host = \"customers\", for = \"3s\" }";
    // What contradicts itself.
    a_key_that_stands_twice_is_refused: "claim = \"another\"";
    more_refusals_than_orders_are_refused: "[run]\norders = 10\n[refusals]\npayment_declined = 6\nout_of_stock = 5";
    a_recovery_before_a_dead_broker_is_noticed_is_refused:
        "[[fault]]\nat = \"5s\"\ncrash_broker = { broker = 1, down_for = \"1s\" }\n[expect]\nrecovers_within = \"8s\"";
    a_recovery_before_a_dead_consumer_is_noticed_is_refused:
        "[[fault]]\nat = \"5s\"\ncrash_service = { service = \"payment\", down_for = \"1s\" }\n[expect]\nrecovers_within = \"30s\"";
    a_recovery_before_a_configured_session_is_over_is_refused:
        "[cluster]\nconfig = { \"broker.session.timeout.ms\" = 20000 }\n[[fault]]\nat = \"5s\"\ncrash_broker = { broker = 1, down_for = \"1s\" }\n[expect]\nrecovers_within = \"19s\"";
    a_recovery_before_a_restarted_broker_that_had_to_be_killed_is_noticed_is_refused:
        "[[fault]]\nat = \"5s\"\nrolling_restart = { hosts = [\"broker-*\"], down_for = \"3s\", gap = \"3s\" }\n[expect]\nrecovers_within = \"8s\"";
    a_restart_that_is_clean_and_without_power_is_refused:
        "[[fault]]\nat = \"5s\"\nrolling_restart = { hosts = [\"broker-*\"], down_for = \"3s\", gap = \"3s\", power_loss = true, clean = true }";
    a_property_of_the_probe_that_no_client_knows_is_refused:
        "[probe]\nproperties = { \"request.timeut.ms\" = 1000 }";
    a_property_of_the_probe_out_of_its_range_is_refused: "[probe]\nproperties = { \"acks\" = 7 }";
    properties_of_the_probe_that_do_not_go_together_are_refused: "[probe]\nproperties = { \"acks\" = 1 }";
    a_check_that_may_break_where_none_must_is_refused: "[expect]\nmay_break = \"no_acknowledged_loss\"";
    a_check_that_must_and_may_break_is_refused:
        "[expect]\nbreaks = \"no_acknowledged_loss\"\nmay_break = \"no_acknowledged_loss\"";
    a_check_that_breaks_twice_is_refused:
        "[expect]\nbreaks = [\"no_acknowledged_loss\", \"no_acknowledged_loss\"]";
    an_unknown_check_among_several_is_refused:
        "[expect]\nbreaks = [\"no_acknowledged_loss\", \"no_acknowleged_loss\"]";
    more_replicas_than_brokers_are_refused: "[cluster]\nreplication_factor = 4";
    a_minimum_in_sync_beyond_the_replicas_is_refused: "[cluster]\nmin_insync_replicas = 2";
    a_transaction_version_that_is_not_built_is_refused: "[cluster]\ntransaction_version = 3";
    a_feature_that_is_not_known_is_refused: "[cluster]\nfeatures = { \"elr.version\" = 1 }";
    a_feature_level_that_is_not_built_is_refused:
        "[cluster]\nfeatures = { \"eligible.leader.replicas.version\" = 2 }";
    a_transaction_version_that_is_given_twice_is_refused:
        "[cluster]\ntransaction_version = 1\nfeatures = { \"transaction.version\" = 1 }";
    aborts_without_transactions_are_refused: "[probe]\naborts = \"20%\"";
    no_orders_without_a_probe_are_refused: "[run]\norders = 0";
    // What later work brings.
    transactions_are_refused_so_far: "[services.payment]\ndelivery = \"transactions\"";
    a_restart_of_the_harness_is_refused:
        "[[fault]]\nat = \"5s\"\nrolling_restart = { hosts = [\"*\"], down_for = \"3s\", gap = \"3s\" }";
}

#[test]
fn a_file_without_a_claim_is_refused() {
    insta::assert_snapshot!(parse("[run]\nseeds = 3\n").unwrap_err());
}

#[test]
fn a_file_says_what_runs_and_what_must_hold() {
    let text = r#"
        claim = "no order is charged twice"
        [run]
        seeds = 50
        orders = 200
        arrival = "20/s"
        [refusals]
        payment_declined = 9
        [cluster]
        brokers = 3
        config = { "broker.session.timeout.ms" = 9000 }
        [services.payment]
        replicas = 2
        delivery = "outbox"
        naive = ["no_inbox"]
        [network]
        latency = "1ms..5ms"
        [[fault]]
        at = "5s"
        crash_broker = { leader_of = "payment.commands/0", down_for = "12s", power_loss = true }
        [[fault]]
        during = "2s..20s"
        duplicate_records = { topic = "payment.commands", probability = "1%" }
        [[fault]]
        during = "2s..20s"
        every = "6s"
        partition = { between = ["payment-1", "broker-2"], one_way = true, for = "2s" }
        [[fault]]
        during = "2s..20s"
        crash_service = { service = "payment", down_for = "3s" }
        [expect]
        saga_success_rate = ">= 95%"
        compensated_sagas = 9
        order_latency_p95 = "<= 15s"
        stuck_sagas = 0
        exactly_once = true
        recovers_within = "60s"
    "#;
    insta::assert_debug_snapshot!(parse(text).unwrap());
}

#[test]
fn what_a_file_leaves_out_has_a_default() {
    insta::assert_debug_snapshot!(parse("claim = \"all is well\"").unwrap());
}

#[test]
fn each_broker_may_have_settings_of_its_own() {
    let text = "claim = \"c\"\n[cluster]\nconfig = { \"1:broker.rack\" = \"a\", \"2:broker.rack\" = \"b\" }";
    let cluster = parse(text).unwrap().cluster;
    let (of_all, of_each) = Settings::of_cluster(&cluster.config, cluster.brokers as usize).unwrap();
    let racks: Vec<_> = of_each.iter().map(|settings| settings.broker_rack.as_deref()).collect();
    assert_eq!((of_all.broker_rack, racks), (None, vec![Some("a"), Some("b"), None]));
}

#[test]
fn time_to_recover_is_left_for_a_session_longer_than_the_default() {
    let text = "claim = \"c\"\ncluster = { config = { \"broker.session.timeout.ms\" = 600000 } }\n\
        fault = [{ at = \"5s\", crash_broker = { broker = 1, down_for = \"1s\" } }]";
    assert_eq!(parse(text).unwrap().expect.recovers_within, Duration::from_secs(1_200));
}

#[test]
fn every_fault_that_is_listed_has_a_grammar() {
    for (word, _) in FaultKind::WORDS {
        let error = refusal(&format!("[[fault]]\nat = \"5s\"\n{word} = 1"));
        assert!(error.contains(&format!("`{word}` must be a table")), "{error}");
    }
}

#[test]
fn several_checks_may_be_said_to_break() {
    let broken =
        |breaks: &str| parse(&format!("claim = \"c\"\n[expect]\nbreaks = {breaks}")).unwrap().expect.breaks;
    assert_eq!(broken("\"no_acknowledged_loss\""), ["no_acknowledged_loss"]);
    assert_eq!(broken("[\"no_acknowledged_loss\", \"charged_exactly_once\"]").len(), 2);
    let may = "\"no_acknowledged_loss\"\nmay_break = \"charged_exactly_once\"";
    let expect = parse(&format!("claim = \"c\"\n[expect]\nbreaks = {may}")).unwrap().expect;
    assert_eq!(expect.may_break, ["charged_exactly_once"]);
}

#[test]
fn a_folder_means_its_own_files_in_the_order_of_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path().join("below");
    fs::create_dir(&below).unwrap();
    for file in ["b.toml", "a.toml", "notes.md", "below/c.toml"] {
        fs::write(folder.path().join(file), "claim = \"a claim\"").unwrap();
    }
    let names = |paths: &[PathBuf]| -> Vec<String> {
        Scenario::load_all(paths, &vocabulary()).unwrap().into_iter().map(|scenario| scenario.name).collect()
    };
    assert_eq!(names(&[folder.path().to_owned()]), ["a", "b"]);
    assert_eq!(names(&[below.join("c.toml"), folder.path().join("b.toml")]), ["c", "b"]);
}

#[test]
fn a_folder_without_a_scenario_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let error = Scenario::load_all(&[folder.path().to_owned()], &vocabulary()).unwrap_err();
    assert!(matches!(error, ScenarioError::NoScenario { .. }), "{error}");
}

#[test]
fn a_missing_file_is_an_error() {
    let error = Scenario::load(Path::new("scenarios/no-such.toml"), &vocabulary()).unwrap_err();
    insta::assert_snapshot!(error, @"error: cannot read `scenarios/no-such.toml`: No such file or directory (os error 2)");
}
