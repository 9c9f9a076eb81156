//! The toy on both engines: the same claims hold, and what an engine cannot bring is refused before anything runs.

mod toy;

use shakedown_harness::RunError;
use toy::{Toy, broken, scenario};
use world::Engine;

fn on_turmoil(faults: &str) -> Result<reports::SeedResult, RunError> {
    shakedown_harness::run(&Toy, &scenario(20, faults), 1, Engine::Turmoil, None)
}

fn refused(faults: &str) -> String {
    match on_turmoil(faults) {
        Err(error @ RunError::Unsupported(_)) => error.to_string(),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn calm_weather_holds_on_the_reference_engine_and_replays() {
    let result = on_turmoil("").unwrap();
    assert_eq!(broken(&result), Vec::<&str>::new(), "{:#?}", result.findings);
    assert_eq!(result.sagas.completed, 20);
    assert_eq!(on_turmoil("").unwrap(), result);
}

#[test]
fn a_crash_and_a_partition_take_effect_on_the_reference_engine() {
    for (fault, effect) in [
        ("crash_service = { service = \"echo\", down_for = \"1s\" }", "tasks killed"),
        ("partition = { between = [\"echo-*\"], and = [\"broker-*\"], for = \"1s\" }", "packets held"),
    ] {
        let result = on_turmoil(&format!("[[fault]]\nat = \"500ms\"\n{fault}\n")).unwrap();
        assert_eq!(broken(&result), Vec::<&str>::new(), "{:#?}", result.findings);
        assert!(result.faults[0].effects.contains_key(effect), "{:?}", result.faults[0]);
    }
}

#[test]
fn what_the_reference_engine_cannot_bring_is_refused_by_name() {
    let power_loss = refused(
        "[[fault]]\nat = \"1s\"\ncrash_broker = { leader_of = \"answers/0\", down_for = \"1s\", power_loss = true }\n",
    );
    assert!(power_loss.starts_with("the engine `turmoil` cannot power off"), "{power_loss}");
    let pause = refused("[[fault]]\nat = \"1s\"\npause = { host = \"echo-1\", for = \"1s\" }\n");
    assert!(pause.starts_with("the engine `turmoil` cannot pause echo-1"), "{pause}");
    assert!(pause.ends_with("(`pause` in toy.toml, line 9)"), "{pause}");
    let one_way =
        refused("[[fault]]\nat = \"1s\"\nhold = { from = [\"bank\"], to = [\"echo-1\"], for = \"1s\" }\n");
    assert!(one_way.starts_with("the engine `turmoil` cannot hold bank -> echo-1"), "{one_way}");
}
