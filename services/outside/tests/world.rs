//! A gateway in the simulated world: a crash between the effect and the answer, and what its caller learns.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use context::{NoRecorder, Seed};
use kit::http::{Client, StatusCode};
use serde_json::{Value, json};
use shakedown_outside::{Gateway, PORT, Provider, ServiceTime, gateway};
use world::{Change, EPOCH, Engine, LatencyRange, WorldConfig};

#[test]
fn a_crash_between_effect_and_answer_leaves_an_outcome_that_the_same_key_finds_out() {
    let config =
        WorldConfig { seed: Seed(7), latency: LatencyRange::millis(1, 1), recorder: Arc::new(NoRecorder) };
    let mut world = world::build(Engine::Jump, config).expect("the engine is built in");

    // Half a second before the effect, and half a second behind it.
    let slow = ServiceTime { ms_min: 1_000, ms_max: 1_000 };
    let provider = Arc::new(Provider::new(Gateway::new()).with_service_time(slow));
    world.add_host(gateway::HOST, provider.program());
    let answers = Arc::new(Mutex::new(Vec::new()));
    let told = answers.clone();
    world.add_host(
        "shop",
        context::program(move |context| {
            let told = told.clone();
            async move {
                context.sleep(Duration::from_millis(100)).await;
                let client = Client::new(context.clone(), gateway::HOST, PORT);
                loop {
                    let charge = json!({
                        "payment_id": "pay-o-1", "order_id": "o-1", "amount_minor": 1999, "currency": "EUR",
                        "card_token": "tok_visa",
                    });
                    let answer = client.post("/charges", Some("k-1"), &charge).await.ok();
                    let known = answer.is_some();
                    told.lock().unwrap().push(answer);
                    if known {
                        return;
                    }
                    context.sleep(Duration::from_millis(500)).await;
                }
            }
        }),
    );

    world.run_until(EPOCH + Duration::from_millis(800));
    assert_eq!(provider.ledger().charges().len(), 1, "the effect is there");
    assert_eq!(provider.open_calls(), 1, "the answer is not");
    world.change(&Change::Kill { host: gateway::HOST.into() }).expect("a kill");
    world.run_until(EPOCH + Duration::from_millis(2_000));
    assert_eq!(provider.open_calls(), 0, "a dead host works on nothing");
    assert!(answers.lock().unwrap().iter().all(Option::is_none), "nobody was told");

    world.change(&Change::Restart { host: gateway::HOST.into() }).expect("a restart");
    world.run_until(EPOCH + Duration::from_secs(10));
    let last = answers.lock().unwrap().last().cloned().flatten().expect("the retry is answered");
    assert_eq!(last.status, StatusCode::OK);
    assert_eq!(last.decode::<Value>().expect("JSON")["status"], "captured");
    assert_eq!(provider.ledger().charges().len(), 1, "the same key took no more money");
}
