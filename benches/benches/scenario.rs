//! The order scenario on both engines: the calm sea at 20 orders a second and at one.

use std::path::Path;
use std::time::Duration;

use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};
use harness::scenario::{Rate, Scenario};
use reports::SeedResult;
use shakedown::six::system;
use shakedown_benches::facts::{Facts, note};
use world::Engine;

/// Orders in one run.
const ORDERS: u32 = 60;

fn scenario() -> Scenario {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/calm-sea.toml");
    let mut scenario = Scenario::load(&file, &harness::vocabulary(system())).expect("the calm sea is sound");
    scenario.run.orders = ORDERS;
    scenario
}

fn run(scenario: &Scenario, engine: Engine) -> SeedResult {
    let result = harness::run(system(), scenario, 1, engine, None).expect("the calm sea runs");
    assert!(result.held(), "a bench of something broken: {:?}", result.findings);
    result
}

fn order_scenario(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("order scenario");
    group.sampling_mode(SamplingMode::Flat).sample_size(10).measurement_time(Duration::from_secs(10));
    for (rate, per) in [("20 a second", 20), ("1 a second", 1)] {
        let mut scenario = scenario();
        scenario.run.arrival = Rate { count: per, per: Duration::from_secs(1) };
        for engine in Engine::ALL {
            let name = format!("{engine}, {rate}");
            let simulated = run(&scenario, engine).simulated.as_secs_f64();
            let facts = Facts { units: ORDERS.into(), simulated_seconds: simulated };
            note(&format!("order scenario/{name}"), facts).expect("the facts can be written");
            group.bench_function(name, |bench| bench.iter(|| run(&scenario, engine)));
        }
    }
    group.finish();
}

criterion_group!(benches, order_scenario);
criterion_main!(benches);
