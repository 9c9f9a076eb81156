//! What the benches share: small worlds that do one thing many times, and the facts that the summary needs.
//!
//! Criterion measures; nothing here asserts a time. Start reading at [`round_trips`] and [`produces`].

pub mod facts;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use broker::{Broker, NewTopic, Producer, ProducerRecord, Properties};
use client::WireBroker;
use context::{Context, NoRecorder, Program, Seed};
use kafka::{Cluster, ClusterConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use world::{Engine, LatencyRange, World, WorldConfig};

/// Wall time of `work`.
#[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let before = Instant::now();
    let result = work();
    (result, before.elapsed())
}

/// What a produce request of one 64-byte record and its answer are on the wire, near enough: for the bare world's cost
/// of the same exchange.
pub const REQUEST_BYTES: usize = 220;
/// See [`REQUEST_BYTES`].
pub const ANSWER_BYTES: usize = 60;

/// A world on which nothing goes wrong.
fn calm() -> Box<dyn World> {
    let config =
        WorldConfig { seed: Seed(1), latency: LatencyRange::millis(1, 1), recorder: Arc::new(NoRecorder) };
    world::build(Engine::Jump, config).expect("built with tokio_unstable")
}

/// The gates of a timed part: the host opens the first when it is warm, waits for the second, opens the third when done.
#[derive(Clone, Default)]
struct Gates {
    warm: Arc<AtomicBool>,
    go: Arc<AtomicBool>,
    done: Arc<AtomicBool>,
}

impl Gates {
    async fn ready(&self, context: &Context) {
        self.warm.store(true, Ordering::Relaxed);
        while !self.go.load(Ordering::Relaxed) {
            context.sleep(Duration::from_millis(10)).await;
        }
    }

    /// Runs the world until the host is done with its timed part; gives the wall time of that part.
    fn measure(&self, world: &mut dyn World) -> Duration {
        let mut run_while = |gate: &AtomicBool| {
            while !gate.load(Ordering::Relaxed) {
                world.run_until(world.now() + Duration::from_millis(100));
            }
        };
        run_while(&self.warm);
        self.go.store(true, Ordering::Relaxed);
        timed(|| run_while(&self.done)).1
    }
}

/// So many exchanges of [`REQUEST_BYTES`] and [`ANSWER_BYTES`] between two hosts, one after the other, on the bare world.
pub fn round_trips(count: u64) -> Duration {
    let mut world = calm();
    world.add_host(
        "server",
        context::program(|context: Context| async move {
            let mut listener = context.listen(9092).await.expect("the port is free");
            let (mut stream, _) = listener.accept().await.expect("a client comes");
            let mut request = [0; REQUEST_BYTES];
            while stream.read_exact(&mut request).await.is_ok() {
                stream.write_all(&[1; ANSWER_BYTES]).await.expect("the client reads");
            }
        }),
    );
    let gates = Gates::default();
    let of_client = gates.clone();
    world.add_host(
        "client",
        context::program(move |context: Context| {
            let gates = of_client.clone();
            async move {
                let mut stream = context.connect("server", 9092).await.expect("the server listens");
                gates.ready(&context).await;
                let mut answer = [0; ANSWER_BYTES];
                for _ in 0..count {
                    stream.write_all(&[2; REQUEST_BYTES]).await.expect("the server reads");
                    stream.read_exact(&mut answer).await.expect("the server answers");
                }
                gates.done.store(true, Ordering::Relaxed);
            }
        }),
    );
    gates.measure(&mut *world)
}

/// So many produce requests of one 64-byte record, each acknowledged before the next: client, wire, world and broker.
pub fn produces(count: u64) -> Duration {
    let cluster = Cluster::new(ClusterConfig::simulated(1)).expect("the default configuration is sound");
    let mut world = calm();
    for (name, program) in cluster.hosts() {
        world.add_host(&name, program);
    }
    let gates = Gates::default();
    world.add_host("client", producing(cluster.bootstrap_servers(), gates.clone(), count));
    gates.measure(&mut *world)
}

fn producing(bootstrap: String, gates: Gates, count: u64) -> Program {
    context::program(move |context: Context| {
        let (bootstrap, gates) = (bootstrap.clone(), gates.clone());
        async move {
            let broker =
                WireBroker::new(context.clone(), Properties::new().set("bootstrap.servers", bootstrap));
            let admin = broker.admin(&Properties::new()).await.expect("sound properties");
            admin.create_topics(&[NewTopic::new("t", 1)]).await.expect("the cluster creates topics");
            let properties = Properties::new().set("enable.idempotence", true).set("linger.ms", 0);
            let producer = broker.producer(&properties).await.expect("sound properties");
            send(&*producer).await;
            gates.ready(&context).await;
            for _ in 0..count {
                send(&*producer).await;
            }
            gates.done.store(true, Ordering::Relaxed);
        }
    })
}

async fn send(producer: &dyn Producer) {
    let record = ProducerRecord::new("t", &b"key"[..], &[b'x'; 64][..]);
    producer.send(record).await.expect("the broker acknowledges");
}
