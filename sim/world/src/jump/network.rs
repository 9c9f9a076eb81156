//! The network as a host's program sees it: listeners and connections over the network stack's sockets.
//!
//! The stack acts for whichever host was set last, so every call into it from here sets its own first, drops included.
//! A socket that has outlived its world, or left its thread, is forgotten instead of closed.

use std::future::poll_fn;
use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use context::{BoxFuture, BoxListener, BoxStream, EventKind, Listener, Net};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil_net::shim::tokio::net::{TcpListener, TcpStream};
use turmoil_net::{HostId, set_current};

use super::host::Shared;
use super::wire::{ADDRESSES, Ends, address, host_of};

/// As much as the stack keeps for a reader. A read must always be able to empty it: the stack announces a window again
/// only after a read that frees half of it, and a sender that waits for a smaller one would wait for ever.
const READ_AT_ONCE: usize = 64 * 1024;

/// The network of one incarnation of one host.
pub(crate) struct Network {
    shared: Arc<Shared>,
    number: usize,
    id: HostId,
    dead: Arc<AtomicBool>,
}

impl Network {
    pub(crate) fn new(shared: Arc<Shared>, number: usize, id: HostId, dead: Arc<AtomicBool>) -> Network {
        Network { shared, number, id, dead }
    }

    fn alive(&self) -> Result<()> {
        match self.dead.load(Ordering::Relaxed) || !self.shared.is_here() {
            true => {
                Err(Error::new(ErrorKind::NetworkDown, "the process to which this socket belongs has ended"))
            }
            false => Ok(()),
        }
    }

    async fn bind(&self, port: u16) -> Result<BoxListener> {
        self.alive()?;
        if self.shared.directory().hosts[self.number].ports.contains_key(&port) {
            return Err(Error::new(ErrorKind::AddrInUse, format!("port {port} is listened to already")));
        }
        for of in 0..ADDRESSES {
            set_current(self.id);
            self.shared.stir();
            let listener = match TcpListener::bind(SocketAddr::new(address(self.number, of), port)).await {
                Ok(listener) => listener,
                // A connection of an earlier listener lingers there.
                Err(error) if error.kind() == ErrorKind::AddrInUse => continue,
                Err(error) => return Err(error),
            };
            let port = listener.local_addr()?.port();
            self.shared.directory().hosts[self.number].ports.insert(port, of);
            let socket = Socket::new(self, listener);
            return Ok(Box::new(JumpListener { socket, number: self.number, port, dead: self.dead.clone() }));
        }
        panic!("connections of {ADDRESSES} earlier listeners linger on port {port}; raise `ADDRESSES`");
    }

    async fn dial(&self, host: &str, port: u16) -> Result<BoxStream> {
        self.alive()?;
        let to = {
            let directory = self.shared.directory();
            let Some(&number) = directory.numbers.get(host) else {
                return Err(Error::new(ErrorKind::NotFound, format!("the network knows no host `{host}`")));
            };
            // Where nobody listens any address will do: it refuses, or waits until the machine is back.
            let of = directory.hosts[number].ports.get(&port).copied().unwrap_or(0);
            SocketAddr::new(address(number, of), port)
        };
        let connecting = Socket::new(self, Box::pin(TcpStream::connect(to)));
        let stream = Connecting(connecting).await?;
        Ok(Box::new(JumpStream::new(Socket::new(self, stream))?))
    }
}

impl Net for Network {
    fn listen(&self, port: u16) -> BoxFuture<'_, Result<BoxListener>> {
        Box::pin(self.bind(port))
    }

    fn connect<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, Result<BoxStream>> {
        Box::pin(self.dial(host, port))
    }
}

/// Something of the network stack's, reached only with its host set.
struct Socket<T> {
    shared: Arc<Shared>,
    id: HostId,
    inner: Option<T>,
}

impl<T> Socket<T> {
    fn new(network: &Network, inner: T) -> Socket<T> {
        Socket { shared: network.shared.clone(), id: network.id, inner: Some(inner) }
    }

    /// What is about to be done may give the stack something to send; all but looking may.
    fn stir(&self) {
        self.shared.stir();
    }

    fn enter(&mut self) -> Result<&mut T> {
        if !self.shared.is_here() {
            return Err(Error::new(ErrorKind::NetworkDown, "the world of this socket has ended"));
        }
        set_current(self.id);
        Ok(self.inner.as_mut().expect("a socket is there until it is dropped"))
    }
}

impl<T> Drop for Socket<T> {
    fn drop(&mut self) {
        let inner = self.inner.take();
        if self.shared.is_here() {
            set_current(self.id);
            self.shared.stir();
            drop(inner);
        } else {
            std::mem::forget(inner);
        }
    }
}

/// A handshake under way.
struct Connecting<F>(Socket<Pin<Box<F>>>);

impl<F: Future<Output = Result<TcpStream>>> Future for Connecting<F> {
    type Output = Result<TcpStream>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<TcpStream>> {
        self.0.stir();
        self.0.enter()?.as_mut().poll(cx)
    }
}

struct JumpListener {
    socket: Socket<TcpListener>,
    number: usize,
    port: u16,
    dead: Arc<AtomicBool>,
}

impl JumpListener {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<(BoxStream, String)>> {
        loop {
            let (stream, peer) = ready!(self.socket.enter()?.poll_accept(cx))?;
            self.socket.stir();
            // A peer that has given up meanwhile: Linux takes such a connection from the queue.
            if stream.try_read(&mut []).is_err_and(|error| error.kind() == ErrorKind::ConnectionReset) {
                continue;
            }
            let (shared, id) = (self.socket.shared.clone(), self.socket.id);
            let peer = shared.name(host_of(peer.ip())).to_string();
            let stream = JumpStream::new(Socket { shared, id, inner: Some(stream) })?;
            return Poll::Ready(Ok((Box::new(stream), peer)));
        }
    }
}

impl Listener for JumpListener {
    fn accept(&mut self) -> BoxFuture<'_, Result<(BoxStream, String)>> {
        Box::pin(poll_fn(|cx| self.poll_accept(cx)))
    }

    fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for JumpListener {
    fn drop(&mut self) {
        // The ports of a dead process are free already, and may be its successor's.
        if !self.dead.load(Ordering::Relaxed) && self.socket.shared.is_here() {
            self.socket.shared.directory().hosts[self.number].ports.remove(&self.port);
        }
    }
}

/// One end of a connection.
struct JumpStream {
    socket: Socket<TcpStream>,
    ends: Ends,
    /// Read from the stack, not yet by the program: from `taken` on.
    buffer: Vec<u8>,
    taken: usize,
    /// The peer has closed, or the connection is broken.
    ended: bool,
}

impl JumpStream {
    fn new(mut socket: Socket<TcpStream>) -> Result<JumpStream> {
        let stream = socket.enter()?;
        let ends = (stream.local_addr()?, stream.peer_addr()?);
        Ok(JumpStream { socket, ends, buffer: Vec::new(), taken: 0, ended: false })
    }

    /// Empties what the stack has into `out`, and what does not fit into the buffer.
    fn fill(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let shared = self.socket.shared.clone();
        let mut scratch = shared.scratch();
        scratch.resize(READ_AT_ONCE, 0);
        let mut read = ReadBuf::new(&mut scratch);
        ready!(Pin::new(self.socket.enter()?).poll_read(cx, &mut read))?;
        // A reader that makes room announces it.
        self.socket.stir();
        let bytes = read.filled();
        self.ended |= bytes.is_empty();
        self.record_loopback(bytes);
        let (now, later) = bytes.split_at(bytes.len().min(out.remaining()));
        out.put_slice(now);
        self.buffer.clear();
        self.buffer.extend_from_slice(later);
        self.taken = 0;
        Poll::Ready(Ok(()))
    }

    /// Bytes from a host to itself never pass the engine: they are recorded where they are read.
    fn record_loopback(&self, bytes: &[u8]) {
        let (local, peer) = self.ends;
        if host_of(local.ip()) == host_of(peer.ip()) && !bytes.is_empty() {
            let name = self.socket.shared.name(host_of(local.ip()));
            let text = format_args!("{name}:{} <- {name} {} B", local.port(), bytes.len());
            self.socket.shared.record(&name, EventKind::Frame, text, bytes);
        }
    }
}

impl AsyncRead for JumpStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        if out.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if self.taken == self.buffer.len() {
            let filled = ready!(self.fill(cx, out));
            self.ended |= filled.is_err();
            return Poll::Ready(filled);
        }
        let bytes = &self.buffer[self.taken..];
        let count = bytes.len().min(out.remaining());
        out.put_slice(&bytes[..count]);
        self.taken += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for JumpStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        self.socket.stir();
        Pin::new(self.socket.enter()?).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Result<()>> {
        // The stack sends by itself what it has been given.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.socket.stir();
        Pin::new(self.socket.enter()?).poll_shutdown(cx)
    }
}

impl Drop for JumpStream {
    fn drop(&mut self) {
        if !self.ended {
            self.socket.shared.closed().insert(self.ends);
        }
    }
}
