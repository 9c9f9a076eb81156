//! Random faults over random traffic, on many seeds: whatever happened, once all is healed everyone can talk again, no
//! stream has lost or swapped a byte, and the run replays.

extern crate shakedown_world as world;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use context::{Context, Rng, Seed};
use rand_chacha::rand_core::Rng as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use world::{Change, Digest, Engine, LatencyRange, World, WorldConfig};

const PORT: u16 = 80;
const SERVERS: [&str; 3] = ["server-0", "server-1", "server-2"];
const CLIENTS: [&str; 4] = ["client-0", "client-1", "client-2", "client-3"];

fn below(rng: &mut Rng, bound: usize) -> usize {
    rng.next_u64() as usize % bound
}

/// Answers each request (its length, then as many bytes) with the same bytes, each one higher.
async fn serve(context: Context) {
    let mut listener = context.listen(PORT).await.expect("the port is free");
    loop {
        let (mut stream, _) = listener.accept().await.expect("a listener goes on");
        context.spawn("connection", async move {
            while let Ok(length) = stream.read_u32().await {
                let mut bytes = vec![0; length as usize];
                if stream.read_exact(&mut bytes).await.is_err() {
                    return;
                }
                bytes.iter_mut().for_each(|byte| *byte = byte.wrapping_add(1));
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// Asks servers on connections that it keeps while they answer in time; `good` counts the answers.
async fn ask(context: Context, good: Arc<AtomicU64>) {
    let mut rng = context.rng("asks");
    loop {
        let server = SERVERS[below(&mut rng, SERVERS.len())];
        let talk = async {
            let mut stream = context.connect(server, PORT).await?;
            for _ in 0..1 + below(&mut rng, 5) {
                // Most are small; some are more than a window.
                let length = if below(&mut rng, 8) == 0 { 150_000 } else { 1 + below(&mut rng, 2_000) };
                let sent: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
                stream.write_u32(length as u32).await?;
                stream.write_all(&sent).await?;
                let mut answer = vec![0; length];
                stream.read_exact(&mut answer).await?;
                let right = answer.iter().zip(&sent).all(|(answer, sent)| *answer == sent.wrapping_add(1));
                assert!(right, "an answer is not that of its request");
                good.fetch_add(1, Ordering::Relaxed);
                context.sleep(Duration::from_millis(below(&mut rng, 30) as u64)).await;
            }
            std::io::Result::Ok(())
        };
        let ended = context.timeout(Duration::from_secs(1), talk).await;
        context.note(format_args!("{server}: {:?}", ended.map(|end| end.map_err(|error| error.kind()))));
        context.sleep(Duration::from_millis(below(&mut rng, 50) as u64)).await;
    }
}

/// What is broken now.
#[derive(Default)]
struct Broken {
    down: BTreeSet<&'static str>,
    paused: BTreeSet<&'static str>,
    held: BTreeSet<(&'static str, &'static str)>,
}

impl Broken {
    /// A change that fits, drawn.
    fn change(&mut self, rng: &mut Rng) -> Change {
        let all: Vec<&'static str> = SERVERS.iter().chain(&CLIENTS).copied().collect();
        let name = all[below(rng, all.len())];
        let other =
            *all.iter().filter(|other| **other != name).nth(below(rng, all.len() - 1)).expect("one of them");
        let host = name.to_string();
        if below(rng, 2) == 0 {
            let (from, to) = (host, other.to_string());
            return match below(rng, 3) {
                0 => {
                    Change::Latency { from, to, range: Some(LatencyRange::millis(0, below(rng, 80) as u64)) }
                }
                _ if self.held.remove(&(name, other)) => Change::Release { from, to },
                _ => {
                    self.held.insert((name, other));
                    Change::Hold { from, to }
                }
            };
        }
        if self.down.remove(name) {
            return Change::Restart { host };
        }
        if self.paused.contains(name) && below(rng, 2) == 0 {
            self.paused.remove(name);
            return Change::Resume { host };
        }
        match below(rng, 3) {
            0 if self.paused.insert(name) => Change::Pause { host },
            1 => {
                self.paused.remove(name);
                self.down.insert(name);
                Change::PowerOff { host }
            }
            _ => {
                self.paused.remove(name);
                self.down.insert(name);
                Change::Kill { host }
            }
        }
    }

    /// Mends all of it.
    fn heal(self) -> Vec<Change> {
        let restarts = self.down.into_iter().map(|host| Change::Restart { host: host.into() });
        let resumes = self.paused.into_iter().map(|host| Change::Resume { host: host.into() });
        let releases =
            self.held.into_iter().map(|(from, to)| Change::Release { from: from.into(), to: to.into() });
        restarts.chain(resumes).chain(releases).collect()
    }
}

/// The hash of a run of `seed`.
fn storm(seed: u64) -> u64 {
    let seed = Seed(seed);
    let digest = Arc::new(Digest::new());
    let latency = LatencyRange::millis(0, 5);
    let config = WorldConfig { seed, latency, recorder: digest.clone() };
    let mut world = world::build(Engine::Jump, config).expect("this test is built with tokio_unstable");
    for name in SERVERS {
        world.add_host(name, context::program(serve));
    }
    let good: Vec<Arc<AtomicU64>> = CLIENTS.iter().map(|_| Arc::default()).collect();
    for (name, good) in CLIENTS.into_iter().zip(&good) {
        let good = good.clone();
        world.add_host(name, context::program(move |context| ask(context, good.clone())));
    }
    let pass = |world: &mut dyn World, ms: u64| world.run_until(world.now() + Duration::from_millis(ms));

    let mut rng = seed.stream("storm");
    let mut broken = Broken::default();
    for _ in 0..120 {
        pass(&mut *world, below(&mut rng, 200) as u64);
        let change = broken.change(&mut rng);
        world.change(&change).expect("it was drawn to fit, and `jump` refuses nothing");
    }
    world.change_all(&broken.heal()).expect("what is broken can be mended");
    // Requests that met a fault run into their timeout of a second first.
    pass(&mut *world, 3_000);
    let before: Vec<u64> = good.iter().map(|good| good.load(Ordering::Relaxed)).collect();
    pass(&mut *world, 3_000);
    for ((name, good), before) in CLIENTS.iter().zip(&good).zip(before) {
        let answers = good.load(Ordering::Relaxed) - before;
        assert!(answers >= 5, "seed {}: {name} got only {answers} answers in three quiet seconds", seed.0);
    }
    digest.hash()
}

#[test]
fn after_a_storm_everyone_talks_again_and_no_byte_is_lost() {
    let hashes: BTreeSet<u64> = (0..60).map(storm).collect();
    assert_eq!(hashes.len(), 60, "every seed is another storm");
}

#[test]
fn a_storm_replays() {
    for seed in 0..10 {
        assert_eq!(storm(seed), storm(seed), "seed {seed}");
    }
}

#[test]
#[should_panic(expected = "time stands still")]
fn tasks_that_wake_one_another_without_end_stop_the_run() {
    let config = WorldConfig {
        seed: Seed(1),
        latency: LatencyRange::millis(1, 1),
        recorder: Arc::new(context::NoRecorder),
    };
    let mut world = world::build(Engine::Jump, config).expect("this test is built with tokio_unstable");
    world.add_host(
        "busy",
        context::program(|_| async {
            loop {
                tokio::task::yield_now().await;
            }
        }),
    );
    world.run_until(world.now() + Duration::from_millis(10));
}
