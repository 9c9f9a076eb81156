//! The simulated cluster does what real Kafka was recorded to do.

#![expect(clippy::disallowed_methods, reason = "reads the recordings")]

use std::path::Path;

use shakedown_stories::{Recording, on_simulated_kafka, tales};

/// Tells a story to the simulated cluster with several seeds, and holds each account against the recording.
fn told_as_recorded(name: &str) {
    let tale = tales().into_iter().find(|tale| tale.name == name).expect("the story is in the list");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings").join(format!("{name}.txt"));
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let recording = Recording::parse(&text).unwrap();
    for seed in 0..5 {
        let account = on_simulated_kafka(tale, seed).unwrap();
        let differences = recording.differences(&account);
        assert!(
            differences.is_empty(),
            "`{name}` differs from real Kafka with seed {seed}:\n{}\nall of it:\n{}",
            differences.join("\n"),
            account.render()
        );
    }
}

macro_rules! stories {
    ($($test:ident: $name:literal),+ $(,)?) => {
        $(#[test]
        fn $test() {
            told_as_recorded($name);
        })+

        #[test]
        fn every_story_is_held_against_its_recording() {
            let listed: Vec<_> = tales().iter().map(|tale| tale.name).collect();
            assert_eq!(listed, [$($name),+]);
        }
    };
}

stories![
    a_killed_leader_is_replaced_when_its_session_ends: "leader-killed",
    a_paused_leader_comes_back_as_a_follower: "leader-paused",
    below_the_minimum_acks_1_is_answered_and_not_visible: "acks-1-below-min-isr",
    a_commit_survives_its_coordinator: "coordinator-killed-in-mid-commit",
    the_last_replica_standing_leads_alone_without_eligible_replicas: "last-replica-standing-elr-0",
    eligible_replicas_outlive_the_last_one_standing: "last-replica-standing-elr-1",
];
