//! Production's host: tokio's runtime, TCP and clock. Tests with real sockets use it too.
//!
//! It must be made inside a tokio runtime. Names resolve as the operating system resolves them, unless
//! [`RealHost::with_name`] maps one to an address; where many hosts share a machine, [`RealHost::with_peer`] and
//! [`RealHost::with_port`] put their ports elsewhere.

#![expect(clippy::disallowed_methods, reason = "this is the real world, handed out through the seam")]

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::{
    BoxFuture, BoxListener, BoxStream, Context, Host, Listener, Net, NoRecorder, Recorder, Seed, TaskHandle,
    Timestamp,
};

/// A host on the real network and the real clock.
///
/// Its tasks stop when [`RealHost::shutdown`] is called, as a world's kill would stop them.
pub struct RealHost {
    name: String,
    incarnation: u64,
    seed: Seed,
    net: Arc<RealNet>,
    recorder: Arc<dyn Recorder>,
    tasks: Mutex<JoinSet<()>>,
}

impl RealHost {
    /// A host that listens on loopback only. `seed` drives its jitter and ids: draw it from the operating system in
    /// production.
    pub fn new(name: impl Into<String>, seed: Seed) -> RealHost {
        RealHost {
            name: name.into(),
            incarnation: 0,
            seed,
            net: Arc::new(RealNet::on_loopback()),
            recorder: Arc::new(NoRecorder),
            tasks: Mutex::new(JoinSet::new()),
        }
    }

    /// Listens on `address` instead of loopback.
    pub fn bind_to(mut self, address: impl Into<String>) -> RealHost {
        Arc::make_mut(&mut self.net).bind = address.into();
        self
    }

    /// Hands `listener` to the first who listens on its port, instead of a new one: so the port is this host's before its
    /// program runs, and others can be told of one that the operating system chose. Whoever connects earlier waits until
    /// that program accepts. A port that is listened on again, after a restart for example, is bound anew.
    ///
    /// # Errors
    /// If the operating system does not tell the listener's port.
    pub fn with_listener(self, listener: std::net::TcpListener) -> io::Result<RealHost> {
        let port = listener.local_addr()?.port();
        listener.set_nonblocking(true)?;
        self.net.held().insert(port, listener);
        Ok(self)
    }

    /// Connects to `address` when `name` is asked for.
    pub fn with_name(mut self, name: impl Into<String>, address: impl Into<String>) -> RealHost {
        Arc::make_mut(&mut self.net).names.insert(name.into(), address.into());
        self
    }

    /// Connects to `address` when this port of `name` is asked for.
    pub fn with_peer(mut self, name: impl Into<String>, port: u16, address: SocketAddr) -> RealHost {
        Arc::make_mut(&mut self.net).peers.insert((name.into(), port), address);
        self
    }

    /// Listens on `port` when its program asks for `asked`: the program of a simulated host may ask for one that needs
    /// rights, or that others on the same machine ask for, too.
    pub fn with_port(mut self, asked: u16, port: u16) -> RealHost {
        Arc::make_mut(&mut self.net).ports.insert(asked, port);
        self
    }

    /// A host that was started so often before ([`Host::incarnation`]).
    pub fn with_incarnation(mut self, incarnation: u64) -> RealHost {
        self.incarnation = incarnation;
        self
    }

    /// Sends events to `recorder`.
    pub fn with_recorder(mut self, recorder: Arc<dyn Recorder>) -> RealHost {
        self.recorder = recorder;
        self
    }

    /// The context to hand to a service, and the host to stop it with.
    pub fn start(self) -> (Context, Arc<RealHost>) {
        let host = Arc::new(self);
        (Context::new(host.clone()), host)
    }

    /// A context alone, for a program whose tasks end with its process.
    pub fn into_context(self) -> Context {
        Context::new(Arc::new(self))
    }

    /// Drops every task of this host at its next await, and with them its sockets.
    pub fn shutdown(&self) {
        self.tasks().abort_all();
    }

    /// The same, and returns when they are gone.
    pub async fn stop(&self) {
        loop {
            // A task that was running meanwhile may have started others.
            let mut tasks = std::mem::take(&mut *self.tasks());
            if tasks.is_empty() {
                return;
            }
            tasks.shutdown().await;
        }
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Host for RealHost {
    fn name(&self) -> &str {
        &self.name
    }

    fn incarnation(&self) -> u64 {
        self.incarnation
    }

    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp::ZERO + since
    }

    fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) -> TaskHandle {
        let mut tasks = self.tasks();
        // Reap what has ended: a host lives for months. A panic was already reported by the panic hook.
        while tasks.try_join_next().is_some() {}
        let handle = tasks.spawn(task);
        TaskHandle::new(move || handle.abort())
    }

    fn net(&self) -> Arc<dyn Net> {
        self.net.clone()
    }

    fn seed(&self) -> Seed {
        self.seed
    }

    fn recorder(&self) -> Arc<dyn Recorder> {
        self.recorder.clone()
    }
}

/// The operating system's TCP.
#[derive(Clone)]
struct RealNet {
    bind: String,
    names: BTreeMap<String, String>,
    /// Where the ports of other hosts really are.
    peers: BTreeMap<(String, u16), SocketAddr>,
    /// Where its own ports really are.
    ports: BTreeMap<u16, u16>,
    /// Listeners that nobody has asked for yet, by port.
    held: Arc<Mutex<BTreeMap<u16, std::net::TcpListener>>>,
}

impl RealNet {
    fn on_loopback() -> RealNet {
        RealNet {
            bind: "127.0.0.1".into(),
            names: BTreeMap::new(),
            peers: BTreeMap::new(),
            ports: BTreeMap::new(),
            held: Arc::default(),
        }
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<u16, std::net::TcpListener>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Net for RealNet {
    fn listen(&self, port: u16) -> BoxFuture<'_, io::Result<BoxListener>> {
        Box::pin(async move {
            let port = self.ports.get(&port).copied().unwrap_or(port);
            let held = self.held().remove(&port);
            let listener = match held {
                Some(held) => TcpListener::from_std(held)?,
                None => TcpListener::bind((self.bind.as_str(), port)).await?,
            };
            let port = listener.local_addr()?.port();
            Ok(Box::new(RealListener { listener, port }) as BoxListener)
        })
    }

    fn connect<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move {
            let stream = match self.peers.get(&(host.to_owned(), port)) {
                Some(peer) => TcpStream::connect(peer).await?,
                None => {
                    let address = self.names.get(host).map_or(host, String::as_str);
                    TcpStream::connect((address, port)).await?
                }
            };
            // Requests are small and awaited: Nagle's delay would show in every latency.
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as BoxStream)
        })
    }
}

struct RealListener {
    listener: TcpListener,
    port: u16,
}

impl Listener for RealListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxStream, String)>> {
        Box::pin(async move {
            let (stream, peer) = self.listener.accept().await?;
            stream.set_nodelay(true)?;
            Ok((Box::new(stream) as BoxStream, peer.to_string()))
        })
    }

    fn port(&self) -> u16 {
        self.port
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_shutdown_closes_what_its_tasks_hold() {
        let (server, host) = RealHost::new("server", Seed(1)).start();
        let mut listener = server.listen(0).await.unwrap();
        let port = listener.port();
        let serving = server.clone();
        server.spawn("echo", async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut byte = [0];
            while stream.read_exact(&mut byte).await.is_ok() {
                stream.write_all(&byte).await.unwrap();
            }
            drop(serving);
        });

        let client = RealHost::new("client", Seed(1)).with_name("server", "127.0.0.1").into_context();
        let mut stream = client.connect("server", port).await.unwrap();
        stream.write_all(b"x").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'x');

        host.shutdown();
        let rest = client.timeout(Duration::from_secs(5), stream.read(&mut [0])).await;
        assert_eq!(rest.expect("the peer closes").unwrap(), 0);
    }

    #[tokio::test]
    async fn a_port_is_free_when_its_host_has_stopped() {
        let (server, host) = RealHost::new("server", Seed(1)).start();
        let listener = server.listen(0).await.unwrap();
        let port = listener.port();
        server.spawn("listen", async move {
            std::future::pending::<()>().await;
            drop(listener);
        });
        host.stop().await;
        let client = RealHost::new("client", Seed(1)).into_context();
        let refused = client.connect("127.0.0.1", port).await.err().map(|error| error.kind());
        assert_eq!(refused, Some(io::ErrorKind::ConnectionRefused));
    }

    #[tokio::test]
    async fn a_listener_that_was_handed_in_is_handed_out_once_with_those_who_wait_on_it() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (server, _host) = RealHost::new("server", Seed(1)).with_listener(listener).unwrap().start();
        let client = RealHost::new("client", Seed(1)).into_context();
        let mut early = client.connect("127.0.0.1", port).await.expect("the port is open from the start");
        let mut listener = server.listen(port).await.unwrap();
        let (mut accepted, _) = listener.accept().await.unwrap();
        early.write_all(b"x").await.unwrap();
        assert_eq!(accepted.read_u8().await.unwrap(), b'x');
        let again = server.listen(port).await;
        assert_eq!(again.err().map(|error| error.kind()), Some(io::ErrorKind::AddrInUse));
    }

    #[tokio::test]
    async fn two_hosts_that_listen_on_one_port_are_told_apart_by_name() {
        let mut streams = Vec::new();
        let mut client = RealHost::new("client", Seed(1));
        for name in ["bank", "post"] {
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let server = RealHost::new(name, Seed(1)).with_port(80, free.port()).into_context();
            streams.push(server.listen(80).await.unwrap());
            client = client.with_peer(name, 80, free);
        }
        let client = client.into_context();
        for (name, listener) in ["bank", "post"].into_iter().zip(&mut streams) {
            let mut stream = client.connect(name, 80).await.unwrap();
            let (mut accepted, _) = listener.accept().await.unwrap();
            stream.write_all(name.as_bytes()).await.unwrap();
            let mut heard = [0; 4];
            accepted.read_exact(&mut heard).await.unwrap();
            assert_eq!(heard, name.as_bytes());
        }
    }

    #[tokio::test]
    async fn an_aborted_task_gives_no_result() {
        let context = RealHost::new("host", Seed(1)).into_context();
        let waiting = context.clone();
        let task = context.spawn("wait", async move { waiting.sleep(Duration::from_secs(60)).await });
        task.abort();
        assert_eq!(task.await, None);
        assert_eq!(context.spawn("answer", async { 42 }).await, Some(42));
    }
}
