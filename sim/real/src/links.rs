//! Links that can be held and slowed: a TCP proxy for each client host and each server that a scenario's faults put apart.
//!
//! A proxy forwards bytes in both directions, each through a [`Lane`]. A lane that is held lets bytes wait, the end of the
//! stream among them, and they arrive in their order when it is released; a lane that is slowed lets each chunk wait for a
//! span drawn from its range. Connects are accepted at once, as a kernel does whose machine is cut off later: what is said
//! over them waits. What was held and slowed is counted in bytes, so that a fault that met nothing shows.
//!
//! A server that is gone refuses: the proxy closes the connection that it was asked for.

#![expect(clippy::disallowed_methods, reason = "real sockets and timers")]

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use context::{Rng, Seed};
use rand::RngExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use world::{Change, LatencyRange};

const CHUNK_BYTES: usize = 64 << 10;
/// A sender that goes on while its bytes wait meets a full window at last, as on a real network.
const CHUNKS_WAITING_MAX: usize = 512;

/// Every link of a run that can be hurt, by client host and server.
#[derive(Debug)]
pub(crate) struct Links {
    routes: BTreeMap<(String, String), Route>,
    runtime: Handle,
    seed: Seed,
}

/// The way from a client host to a server.
#[derive(Debug)]
struct Route {
    port: u16,
    server: watch::Sender<SocketAddr>,
    /// Until the server is known.
    listener: Option<std::net::TcpListener>,
    there: Arc<Lane>,
    back: Arc<Lane>,
    accepting: Option<tokio::task::AbortHandle>,
}

/// One direction of a link.
#[derive(Debug)]
struct Lane {
    state: watch::Sender<Hurt>,
    bytes_held: AtomicU64,
    bytes_slowed: AtomicU64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Hurt {
    held: bool,
    range: Option<LatencyRange>,
}

impl Links {
    /// No links yet. `seed` decides the spans of slowed ones.
    pub(crate) fn new(runtime: Handle, seed: Seed) -> Links {
        Links { routes: BTreeMap::new(), runtime, seed }
    }

    /// Opens a port for a client host's way to a server; gives it. Who connects waits until [`Links::connect`].
    pub(crate) fn open(&mut self, client: &str, server: &str) -> io::Result<u16> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let lane = || Arc::new(Lane::default());
        let route = Route {
            port,
            server: watch::Sender::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            listener: Some(listener),
            there: lane(),
            back: lane(),
            accepting: None,
        };
        self.routes.insert((client.to_owned(), server.to_owned()), route);
        Ok(port)
    }

    /// Says where the server really is, at first or from now on.
    pub(crate) fn connect(&mut self, client: &str, server: &str, at: SocketAddr) -> io::Result<()> {
        let route = self.routes.get_mut(&(client.to_owned(), server.to_owned()));
        let route = route.expect("a link is opened before it is connected");
        let Some(listener) = route.listener.take() else {
            // It is there, and the server is another one now.
            route.server.send_replace(at);
            return Ok(());
        };
        route.server.send_replace(at);
        let runtime = self.runtime.enter();
        let listener = TcpListener::from_std(listener)?;
        drop(runtime);
        let rng = self.seed.stream(&format!("link/{client}/{server}"));
        let server = route.server.subscribe();
        let accepting = accept(listener, server, route.there.clone(), route.back.clone(), rng);
        route.accepting = Some(self.runtime.spawn(accepting).abort_handle());
        Ok(())
    }

    /// The port of a client host's way to a server, if it goes through a proxy.
    pub(crate) fn port(&self, client: &str, server: &str) -> Option<u16> {
        self.routes.get(&(client.to_owned(), server.to_owned())).map(|route| route.port)
    }

    /// Makes a change of a link. Where nobody connects from one of the two to the other there is nothing to change.
    pub(crate) fn change(&self, change: &Change) {
        match change {
            Change::Hold { from, to } => self.hurt(from, to, |hurt| hurt.held = true),
            Change::Release { from, to } => self.hurt(from, to, |hurt| hurt.held = false),
            Change::Latency { from, to, range } => self.hurt(from, to, |hurt| hurt.range = *range),
            _ => {}
        }
    }

    fn hurt(&self, from: &str, to: &str, change: impl Fn(&mut Hurt)) {
        if let Some(lane) = self.lane(from, to) {
            lane.state.send_modify(change);
        }
    }

    /// The bytes that had to wait, and those that were slowed, so far.
    pub(crate) fn suffered(&self, from: &str, to: &str) -> (u64, u64) {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        self.lane(from, to).map_or((0, 0), |lane| (count(&lane.bytes_held), count(&lane.bytes_slowed)))
    }

    fn lane(&self, from: &str, to: &str) -> Option<&Lane> {
        let route = |client: &str, server: &str| self.routes.get(&(client.to_owned(), server.to_owned()));
        route(from, to).map(|route| &*route.there).or_else(|| route(to, from).map(|route| &*route.back))
    }

    /// All links are as at first.
    pub(crate) fn heal(&self) {
        for route in self.routes.values() {
            route.there.state.send_replace(Hurt::default());
            route.back.state.send_replace(Hurt::default());
        }
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.routes.values().filter_map(|route| route.accepting.as_ref()).for_each(|task| task.abort());
    }
}

impl Default for Lane {
    fn default() -> Lane {
        let state = watch::Sender::new(Hurt::default());
        Lane { state, bytes_held: AtomicU64::new(0), bytes_slowed: AtomicU64::new(0) }
    }
}

async fn accept(
    listener: TcpListener,
    server: watch::Receiver<SocketAddr>,
    there: Arc<Lane>,
    back: Arc<Lane>,
    mut rng: Rng,
) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else {
            // Out of descriptors, or a client that was gone at once: the next may fare better.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        let rngs: [Rng; 2] = [rng.random::<u64>(), rng.random()].map(|seed| Seed(seed).stream("lane"));
        let server = *server.borrow();
        connections.spawn(forward(client, server, there.clone(), back.clone(), rngs));
    }
}

async fn forward(client: TcpStream, server: SocketAddr, there: Arc<Lane>, back: Arc<Lane>, rngs: [Rng; 2]) {
    // A server that is down: the client's connection is closed with this.
    let Ok(server) = TcpStream::connect(server).await else { return };
    // Requests are small and awaited: Nagle's delay would show in every latency.
    if client.set_nodelay(true).and_then(|()| server.set_nodelay(true)).is_err() {
        return;
    }
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let [rng_there, rng_back] = rngs;
    // Each direction ends by itself: what one side has still to hear it hears, also after a hold.
    tokio::join!(
        pump(from_client, to_server, &there, rng_there),
        pump(from_server, to_client, &back, rng_back)
    );
}

/// Carries one direction of a connection until its sender ends it.
async fn pump(from: OwnedReadHalf, to: OwnedWriteHalf, lane: &Lane, rng: Rng) {
    let (waiting, due) = mpsc::channel(CHUNKS_WAITING_MAX);
    tokio::join!(take(from, lane, rng, waiting), give(to, lane, due));
}

async fn take(mut from: OwnedReadHalf, lane: &Lane, mut rng: Rng, waiting: mpsc::Sender<(Instant, Bytes)>) {
    let (mut buffer, mut last) = (vec![0; CHUNK_BYTES], Instant::now());
    // An error ends the stream as its end does: what came before is carried.
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let hurt = *lane.state.borrow();
        if hurt.held {
            lane.bytes_held.fetch_add(count as u64, Ordering::Relaxed);
        }
        if let Some(range) = hurt.range {
            lane.bytes_slowed.fetch_add(count as u64, Ordering::Relaxed);
            // Behind what came before: a connection keeps its order.
            last = last.max(Instant::now() + draw(range, &mut rng));
        }
        if waiting.send((last, Bytes::copy_from_slice(&buffer[..count]))).await.is_err() {
            return;
        }
    }
}

async fn give(mut to: OwnedWriteHalf, lane: &Lane, mut due: mpsc::Receiver<(Instant, Bytes)>) {
    let mut state = lane.state.subscribe();
    while let Some((at, bytes)) = due.recv().await {
        tokio::time::sleep_until(at).await;
        if state.wait_for(|hurt| !hurt.held).await.is_err() || to.write_all(&bytes).await.is_err() {
            return;
        }
    }
    // The end of the stream waits like its bytes. That the other side is gone already is no trouble.
    if state.wait_for(|hurt| !hurt.held).await.is_ok() {
        to.shutdown().await.ok();
    }
}

fn draw(range: LatencyRange, rng: &mut Rng) -> Duration {
    let millis = |span: Duration| u64::try_from(span.as_millis()).expect("a scenario's times fit");
    Duration::from_millis(rng.random_range(millis(range.min)..=millis(range.max)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For what must come.
    const PATIENCE: Duration = Duration::from_secs(30);
    /// For what may not come.
    const MOMENT: Duration = Duration::from_millis(100);

    /// A link from `a` to `b`, a connection over it, and the server's end of that.
    async fn connected() -> (Links, TcpStream, TcpStream) {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut links = Links::new(Handle::current(), Seed(1));
        let port = links.open("a", "b").unwrap();
        links.connect("a", "b", server.local_addr().unwrap()).unwrap();
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let (accepted, _) = server.accept().await.unwrap();
        (links, client, accepted)
    }

    async fn heard(stream: &mut TcpStream) -> u8 {
        tokio::time::timeout(PATIENCE, stream.read_u8()).await.expect("it comes").unwrap()
    }

    async fn is_silent(stream: &mut TcpStream) -> bool {
        tokio::time::timeout(MOMENT, stream.read_u8()).await.is_err()
    }

    fn hold(from: &str, to: &str) -> Change {
        Change::Hold { from: from.into(), to: to.into() }
    }

    #[tokio::test]
    async fn a_hold_lets_one_direction_wait_and_a_release_brings_what_waited() {
        let (links, mut client, mut server) = connected().await;
        client.write_u8(1).await.unwrap();
        assert_eq!(heard(&mut server).await, 1);
        links.change(&hold("b", "a"));
        server.write_u8(2).await.unwrap();
        client.write_u8(3).await.unwrap();
        assert_eq!((is_silent(&mut client).await, heard(&mut server).await), (true, 3));
        links.change(&Change::Release { from: "b".into(), to: "a".into() });
        assert_eq!(heard(&mut client).await, 2);
        assert_eq!((links.suffered("b", "a"), links.suffered("a", "b")), ((1, 0), (0, 0)));
    }

    #[tokio::test]
    async fn the_end_of_a_stream_waits_behind_its_bytes() {
        let (links, mut client, mut server) = connected().await;
        links.change(&hold("b", "a"));
        server.write_u8(2).await.unwrap();
        drop(server);
        assert!(is_silent(&mut client).await);
        links.heal();
        assert_eq!(heard(&mut client).await, 2);
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0, "and then the end");
    }

    #[tokio::test]
    async fn a_slowed_link_is_late_by_its_range_and_keeps_the_order() {
        let (links, mut client, mut server) = connected().await;
        let range = Some(LatencyRange::millis(150, 200));
        links.change(&Change::Latency { from: "a".into(), to: "b".into(), range });
        let sent = Instant::now();
        for byte in 0..5 {
            client.write_u8(byte).await.unwrap();
        }
        for byte in 0..5 {
            assert_eq!(server.read_u8().await.unwrap(), byte);
        }
        assert!(sent.elapsed() >= Duration::from_millis(150), "{:?}", sent.elapsed());
        assert_eq!(links.suffered("a", "b"), (0, 5));
    }

    #[tokio::test]
    async fn a_server_that_is_gone_closes_the_connection() {
        let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
        let mut links = Links::new(Handle::current(), Seed(1));
        let port = links.open("a", "b").unwrap();
        links.connect("a", "b", gone).unwrap();
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let end =
            tokio::time::timeout(Duration::from_secs(10), client.read(&mut [0])).await.expect("it ends");
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    }
}
