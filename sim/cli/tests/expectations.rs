//! Each key of `[expect]` bites: a file that holds only that key, and breaks it, with the exit code of its kind.

mod common;

use common::Place;

/// Twenty orders in a second, and what else the test says.
fn exit_code(rest: &str, expect: &str) -> (Option<i32>, String) {
    let text = format!("claim = \"a claim\"\n[run]\norders = 20\nseeds = 1\n{rest}\n[expect]\n{expect}\n");
    let outcome = Place::with("one-key", &text).run(&[]);
    (outcome.code, format!("{text}\n{}{}", outcome.out, outcome.err))
}

fn breaks(code: i32, rest: &str, expect: &str) {
    let (found, shown) = exit_code(rest, expect);
    assert_eq!(found, Some(code), "{shown}");
    let key = expect.split(' ').next().unwrap_or(expect);
    assert!(
        shown.contains(&format!("broken    {key}")) || code == 100,
        "the finding does not name `{key}`\n{shown}"
    );
}

fn holds(rest: &str, expect: &str) {
    let (found, shown) = exit_code(rest, expect);
    assert_eq!(found, Some(0), "{shown}");
}

const REFUSED: &str = "[refusals]\nout_of_stock = 5";
const MISSED: i32 = 104;

#[test]
fn a_low_success_rate_is_missed() {
    breaks(MISSED, REFUSED, "saga_success_rate = \">= 95%\"");
    holds(REFUSED, "saga_success_rate = \"= 75%\"");
}

#[test]
fn a_wrong_number_of_completed_sagas_is_missed() {
    breaks(MISSED, REFUSED, "completed_sagas = 20");
    holds(REFUSED, "completed_sagas = 15");
}

#[test]
fn a_wrong_number_of_compensated_sagas_is_missed() {
    breaks(MISSED, REFUSED, "compensated_sagas = \"< 5\"");
    holds(REFUSED, "compensated_sagas = 5");
}

#[test]
fn every_figure_of_order_latency_can_be_missed() {
    for figure in ["mean", "p50", "p95", "p99", "max"] {
        breaks(MISSED, "", &format!("order_latency_{figure} = \"<= 1ms\""));
    }
}

#[test]
fn every_figure_of_saga_duration_can_be_missed() {
    for figure in ["mean", "p50", "p95", "p99", "max"] {
        breaks(MISSED, "", &format!("saga_duration_{figure} = \"<= 1ms\""));
    }
}

#[test]
fn too_little_time_to_recover_is_no_progress() {
    breaks(103, "", "recovers_within = \"1ms\"");
}

/// Brokers that take only what is fresh: late messages stay in their outbox for ever, and their sagas without an answer.
const FRESH: &str = "[cluster]\nconfig = { \"log.message.timestamp.before.max.ms\" = 40 }\n\
    [services.order]\nstep_timeout = \"1h\"";

#[test]
fn a_saga_without_an_end_is_no_progress() {
    breaks(103, FRESH, "stuck_sagas = 0");
}

/// Commands twice, and a payment service that charges each time.
const TWICE: &str = "[services.payment]\nnaive = [\"no_inbox\", \"fresh_keys\"]\n[[fault]]\nduring = \"0s..5s\"\n\
    duplicate_records = { topic = \"payment.commands\", probability = \"50%\" }";

#[test]
fn an_effect_that_happens_twice_breaks_safety() {
    let (code, shown) = exit_code(TWICE, "exactly_once = true");
    assert_eq!(code, Some(100), "{shown}");
    assert!(shown.contains("  broken    charged_exactly_once, "), "{shown}");
    // Switched off, the double charge is none of its findings; that the money does not agree still is.
    let (code, shown) = exit_code(TWICE, "exactly_once = false");
    assert_eq!(code, Some(100), "{shown}");
    assert!(
        !shown.contains("charged_exactly_once, ") && shown.contains("  broken    money_agrees, "),
        "{shown}"
    );
}

#[test]
fn a_check_that_should_break_and_does_not_is_missed() {
    breaks(MISSED, "", "breaks = \"no_acknowledged_loss\"");
}
