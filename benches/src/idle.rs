//! A cluster that nobody talks to: what its heartbeats, polls and followers cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use broker::NewTopic;
use context::{Context, Event, Recorder};

use crate::stage::{Gates, add_cluster, broker, calm, cpu_time_of, create_topics};

const BROKERS: u32 = 3;
const TOPICS: usize = 50;

/// Counts what happens.
#[derive(Default)]
struct Count(AtomicU64);

impl Recorder for Count {
    fn record(&self, _event: Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Three brokers with fifty topics of one partition each, all on all of them, left alone for a while. Gives the CPU time of
/// that, and how many events were recorded.
pub fn idle(simulated: Duration) -> (Duration, u64) {
    let events = Arc::new(Count::default());
    let mut world = calm(events.clone());
    let bootstrap = add_cluster(&mut *world, BROKERS);
    let gates = Gates::default();
    let of_client = gates.clone();
    world.add_host(
        "client",
        context::program(move |context: Context| {
            let (bootstrap, gates) = (bootstrap.clone(), of_client.clone());
            async move {
                let broker = broker(&context, &bootstrap);
                let topics = (0..TOPICS).map(|number| NewTopic::new(format!("t{number}"), 1));
                create_topics(&broker, &topics.collect::<Vec<_>>()).await;
                gates.finish();
            }
        }),
    );
    gates.measure(&mut *world, 0);
    // Followers settle; the client is gone.
    world.run_until(world.now() + Duration::from_secs(10));
    let before = events.0.load(Ordering::Relaxed);
    let spent = cpu_time_of(|| world.run_until(world.now() + simulated));
    (spent, events.0.load(Ordering::Relaxed) - before)
}
