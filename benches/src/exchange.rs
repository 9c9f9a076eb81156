//! One produce request after the other, and the same frames between two hosts that only echo.
//!
//! The difference is what client, wire and broker cost beyond the world that carries their bytes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker::{Broker, NewTopic, Producer, ProducerRecord, Properties};
use context::{Context, Event, EventKind, NoRecorder, Program, Recorder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::stage::{Gates, add_cluster, broker, calm, create_topics};

/// How large a request and its answer are on the wire, with their lengths in front.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// The request.
    pub request: usize,
    /// The answer.
    pub answer: usize,
}

/// Remembers the last frame each way between the client and its broker.
#[derive(Default)]
struct LastFrames(Mutex<Sizes>);

impl LastFrames {
    fn sizes(&self) -> MutexGuard<'_, Sizes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recorder for LastFrames {
    fn record(&self, event: Event<'_>) {
        // The end of a connection is a frame without bytes.
        if event.kind != EventKind::Frame || event.bytes.is_empty() {
            return;
        }
        match event.host {
            "client" => self.sizes().answer = event.bytes.len(),
            "broker-1" if event.text.to_string().contains(" <- client ") => {
                self.sizes().request = event.bytes.len();
            }
            _ => {}
        }
    }
}

/// The sizes of a produce request of [`produces`] and of its answer, as they pass the network.
pub fn sizes_of_produce() -> Sizes {
    let frames = Arc::new(LastFrames::default());
    produce(1, frames.clone());
    let sizes = *frames.sizes();
    assert!(sizes.request > 64 && sizes.answer > 0, "a produce request holds its record: {sizes:?}");
    sizes
}

/// So many exchanges of frames of these sizes between two hosts, one after the other, on the bare world.
pub fn round_trips(sizes: Sizes, count: u64) -> Duration {
    let mut world = calm(Arc::new(NoRecorder));
    world.add_host(
        "server",
        context::program(move |context: Context| async move {
            let mut listener = context.listen(9092).await.expect("the port is free");
            let (mut stream, _) = listener.accept().await.expect("a client comes");
            let (mut request, answer) = (vec![0; sizes.request], vec![1; sizes.answer]);
            while stream.read_exact(&mut request).await.is_ok() {
                stream.write_all(&answer).await.expect("the client reads");
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
                let (request, mut answer) = (vec![2; sizes.request], vec![0; sizes.answer]);
                for _ in 0..count {
                    stream.write_all(&request).await.expect("the server reads");
                    stream.read_exact(&mut answer).await.expect("the server answers");
                }
                gates.finish();
            }
        }),
    );
    gates.measure(&mut *world, 1)
}

/// So many produce requests of one 64-byte record, each acknowledged before the next: client, wire, world and broker.
pub fn produces(count: u64) -> Duration {
    produce(count, Arc::new(NoRecorder))
}

fn produce(count: u64, recorder: Arc<dyn Recorder>) -> Duration {
    let mut world = calm(recorder);
    let bootstrap = add_cluster(&mut *world, 1);
    let gates = Gates::default();
    world.add_host("client", producing(bootstrap, gates.clone(), count));
    gates.measure(&mut *world, 1)
}

fn producing(bootstrap: String, gates: Gates, count: u64) -> Program {
    context::program(move |context: Context| {
        let (bootstrap, gates) = (bootstrap.clone(), gates.clone());
        async move {
            let broker = broker(&context, &bootstrap);
            create_topics(&broker, &[NewTopic::new("t", 1)]).await;
            let properties = Properties::new().set("enable.idempotence", true).set("linger.ms", 0);
            let producer = broker.producer(&properties).await.expect("sound properties");
            send(&*producer).await;
            gates.ready(&context).await;
            for _ in 0..count {
                send(&*producer).await;
            }
            gates.finish();
        }
    })
}

async fn send(producer: &dyn Producer) {
    let record = ProducerRecord::new("t", &b"key"[..], &[b'x'; 64][..]);
    producer.send(record).await.expect("the broker acknowledges");
}
