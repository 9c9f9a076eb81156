//! What the cases stand on: a world, a log that its programs write into, and short words for both.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use context::{BoxListener, BoxStream, Context, Seed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use world::{Change, Digest, EPOCH, Engine, HostStats, LatencyRange, Refusal, World, WorldConfig};

/// The port of every server here.
pub(crate) const PORT: u16 = 7;

/// Whether the engine could bring all that a case needs.
pub(crate) type Outcome = Result<(), Refusal>;

/// A world with a log.
pub(crate) struct Stage {
    pub(crate) world: Box<dyn World>,
    pub(crate) digest: Arc<Digest>,
    pub(crate) log: Log,
}

/// What programs have said, in order, each with the millisecond since the start.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<(u64, String)>>>);

impl Stage {
    /// Every packet takes 2 ms.
    pub(crate) fn new(engine: Engine) -> Stage {
        Stage::with(engine, Seed(7), LatencyRange::millis(2, 2))
    }

    pub(crate) fn with(engine: Engine, seed: Seed, latency: LatencyRange) -> Stage {
        let digest = Arc::new(Digest::new());
        let config = WorldConfig { seed, latency, recorder: digest.clone() };
        let world = world::build(engine, config).expect("this test is built with tokio_unstable");
        Stage { world, digest, log: Log::default() }
    }

    /// Adds a host whose program gets the log too.
    pub(crate) fn host<F>(&mut self, name: &str, start: impl Fn(Context, Log) -> F + Send + Sync + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let log = self.log.clone();
        self.world.add_host(name, context::program(move |context| start(context, log.clone())));
    }

    /// Lets `ms` pass, in uneven steps as a harness would.
    pub(crate) fn pass(&mut self, ms: u64) {
        let until = self.world.now() + Duration::from_millis(ms);
        while self.world.now() < until {
            let step = (self.world.now() + Duration::from_millis(70)).min(until);
            self.world.run_until(step);
        }
    }

    pub(crate) fn change(&mut self, changes: &[Change]) -> Outcome {
        self.world.change_all(changes)
    }

    pub(crate) fn stats(&self, host: &str) -> HostStats {
        self.world.host(host).expect("the host was added")
    }
}

impl Log {
    pub(crate) fn say(&self, context: &Context, text: impl Into<String>) {
        let at = context.now().since(EPOCH).as_millis() as u64;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((at, text.into()));
    }

    /// All that was said.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.timed().into_iter().map(|(_, text)| text).collect()
    }

    /// All that was said, with times.
    pub(crate) fn timed(&self) -> Vec<(u64, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// When `text` was first said.
    #[track_caller]
    pub(crate) fn when(&self, text: &str) -> u64 {
        let timed = self.timed();
        match timed.iter().find(|(_, said)| said == text) {
            Some(&(at, _)) => at,
            None => panic!("nobody said `{text}`: {timed:?}"),
        }
    }

    /// Whether `text` was said.
    pub(crate) fn has(&self, text: &str) -> bool {
        self.lines().iter().any(|said| said == text)
    }
}

pub(crate) fn kill(host: &str) -> Change {
    Change::Kill { host: host.into() }
}

pub(crate) fn power_off(host: &str) -> Change {
    Change::PowerOff { host: host.into() }
}

pub(crate) fn restart(host: &str) -> Change {
    Change::Restart { host: host.into() }
}

pub(crate) fn pause(host: &str) -> Change {
    Change::Pause { host: host.into() }
}

pub(crate) fn resume(host: &str) -> Change {
    Change::Resume { host: host.into() }
}

pub(crate) fn hold(from: &str, to: &str) -> Change {
    Change::Hold { from: from.into(), to: to.into() }
}

pub(crate) fn release(from: &str, to: &str) -> Change {
    Change::Release { from: from.into(), to: to.into() }
}

pub(crate) fn slow(from: &str, to: &str, ms: u64) -> Change {
    Change::Latency { from: from.into(), to: to.into(), range: Some(LatencyRange::millis(ms, ms)) }
}

/// Both directions of a change of a link.
pub(crate) fn both_ways(change: Change) -> [Change; 2] {
    let reversed = change.reversed().expect("a change of a link");
    [change, reversed]
}

/// Milliseconds.
pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(crate) async fn listen(context: &Context) -> BoxListener {
    context.listen(PORT).await.expect("the port is free")
}

pub(crate) async fn connect(context: &Context, host: &str) -> BoxStream {
    context.connect(host, PORT).await.expect("the host listens")
}

/// Sends back whatever comes, on every connection.
pub(crate) async fn echo(context: Context, _log: Log) {
    let mut listener = listen(&context).await;
    loop {
        let (mut stream, _) = listener.accept().await.expect("a listener goes on");
        context.spawn("echo", async move {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                if stream.write_all(&buffer[..count]).await.is_err() {
                    break;
                }
            }
        });
    }
}

/// Sends a byte and waits for it to come back.
pub(crate) async fn ping(stream: &mut BoxStream) -> std::io::Result<()> {
    stream.write_all(b"x").await?;
    let byte = stream.read_u8().await?;
    assert_eq!(byte, b'x');
    Ok(())
}

/// The word for how a read ended: `end`, the bytes, or the error's kind.
pub(crate) fn outcome(read: std::io::Result<usize>) -> String {
    match read {
        Ok(0) => "end".into(),
        Ok(count) => format!("{count} bytes"),
        Err(error) => format!("{:?}", error.kind()),
    }
}
