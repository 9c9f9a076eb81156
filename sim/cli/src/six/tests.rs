//! The six on a whole simulated cluster: calm, refused, and with defects planted.

use std::path::Path;

use harness::scenario::Scenario;
use reports::SeedResult;
use world::Engine;

use super::system;

/// Runs a scenario that is spelled out here.
fn run(text: &str, seed: u64) -> SeedResult {
    let text = format!("claim = \"a test\"\n{text}");
    let vocabulary = harness::vocabulary(system());
    let scenario = Scenario::parse(Path::new("test.toml"), &text, &vocabulary).unwrap();
    harness::run(system(), &scenario, seed, Engine::Jump, None).unwrap()
}

/// The checks that were broken.
fn broken(result: &SeedResult) -> Vec<&str> {
    result.findings.iter().map(|finding| finding.check.as_str()).collect()
}

#[test]
fn in_calm_weather_every_saga_completes_and_every_check_holds() {
    let result = run("[run]\nseeds = 1\norders = 30\narrival = \"20/s\"\n", 7);
    assert_eq!(result.findings, []);
    assert_eq!((result.sagas.started, result.sagas.completed), (30, 30));
    assert_eq!(result.order_latencies.count(), 30);
    assert!(result.hops.iter().any(|hop| hop.name == "payment.commands > payment"), "{:?}", result.hops);
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another() {
    let text = "[run]\norders = 20\narrival = \"20/s\"\n[refusals]\npayment_declined = 3\n";
    let (once, again) = (run(text, 7), run(text, 7));
    assert_eq!(once, again);
    assert_ne!(once.hash, run(text, 8).hash);
}

#[test]
fn refused_orders_are_undone_for_exactly_the_reasons_that_were_planned() {
    let refusals = "[refusals]\npayment_declined = 4\nout_of_stock = 3\nshipment_refused = 2\n";
    let result = run(&format!("[run]\norders = 30\narrival = \"20/s\"\n{refusals}"), 7);
    assert_eq!(result.findings, []);
    assert_eq!((result.sagas.completed, result.sagas.compensated), (21, 9));
}

#[test]
fn an_orchestrator_that_crashes_goes_on_with_its_sagas() {
    let fault = "[[fault]]\nat = \"1s\"\ncrash_service = { service = \"order\", down_for = \"1s\" }\n";
    let result = run(&format!("[run]\norders = 40\narrival = \"20/s\"\n{fault}"), 7);
    assert_eq!(result.findings, []);
    assert_eq!(result.sagas.started, 40);
    assert_eq!(result.sagas.completed + result.sagas.compensated, 40);
}

#[test]
fn planted_a_payment_service_without_inbox_and_with_fresh_keys_charges_twice() {
    let result = run(&planted("payment", &["no_inbox", "fresh_keys"], "payment.commands"), 7);
    let double = result.findings.iter().find(|finding| finding.check == "charged_exactly_once").unwrap();
    assert!(double.says.contains("was charged 2 times"), "{}", double.says);
    assert!(double.evidence.iter().all(|one| one.at.is_some() && one.what.contains("captured for o-")));
}

#[test]
fn planted_a_shipping_service_without_inbox_and_with_fresh_keys_books_twice() {
    let result = run(&planted("shipping", &["no_inbox", "fresh_keys"], "shipping.commands"), 7);
    assert!(broken(&result).contains(&"shipped_at_most_once"), "{:?}", result.findings);
}

#[test]
fn planted_a_notification_service_without_inbox_and_with_fresh_keys_tells_twice() {
    let result = run(&planted("notification", &["no_inbox", "fresh_keys"], "notification.commands"), 7);
    assert_eq!(broken(&result), ["told_once"], "{:?}", result.findings);
}

#[test]
fn planted_an_order_service_without_inbox_shows_customers_what_did_not_happen() {
    let result = run(&planted("order", &["no_inbox"], "order.events"), 7);
    assert_eq!(broken(&result), ["read_model_is_the_fold"], "{:?}", result.findings);
}

#[test]
fn planted_sagas_that_do_not_compensate_leave_half_of_their_effects() {
    let text = "[run]\norders = 20\narrival = \"20/s\"\n[refusals]\nshipment_refused = 3\n\
                [services.order]\nnaive = [\"no_compensation\"]\n";
    let result = run(text, 7);
    assert_eq!(broken(&result), ["effects_all_or_none", "money_agrees", "stock_conserved"]);
}

/// A scenario in which one record in three is there twice, and a service does without some of its protections.
fn planted(service: &str, flaws: &[&str], topic: &str) -> String {
    format!(
        "[run]\norders = 30\narrival = \"20/s\"\n[services.{service}]\nnaive = {flaws:?}\n\
         [[fault]]\nduring = \"0s..5s\"\nduplicate_records = {{ topic = \"{topic}\", probability = \"30%\" }}\n"
    )
}
