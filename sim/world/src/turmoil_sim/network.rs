//! turmoil's network as a host's program sees it. Counts and records what passes, since turmoil has no place for that.

use std::io::{Error, ErrorKind, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use context::{BoxFuture, BoxListener, BoxStream, EventKind, Listener, Net};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

use super::{Place, Shared, lock};

/// The network of one incarnation of one host.
pub(super) struct Network {
    shared: Arc<Shared>,
    place: Arc<Place>,
}

impl Network {
    pub(super) fn new(shared: Arc<Shared>, place: Arc<Place>) -> Network {
        Network { shared, place }
    }

    async fn dial(&self, host: &str, port: u16) -> Result<BoxStream> {
        let Some(peer) = lock(&self.shared.places).get(host).cloned() else {
            return Err(Error::new(ErrorKind::NotFound, format!("the network knows no host `{host}`")));
        };
        if !peer.running.load(Ordering::Relaxed) {
            // turmoil would let the connect wait until the host is restarted, and refuse it then.
            return Err(Error::new(ErrorKind::ConnectionRefused, format!("no process runs on `{host}`")));
        }
        let stream = Traffic::new(self.shared.clone(), self.place.clone(), peer);
        stream.count_sent();
        let connected = TcpStream::connect((host, port)).await?;
        Ok(Box::new(stream.with(connected)?))
    }
}

impl Net for Network {
    fn listen(&self, port: u16) -> BoxFuture<'_, Result<BoxListener>> {
        Box::pin(async move {
            let listener = TcpListener::bind(("0.0.0.0", port)).await?;
            let port = listener.local_addr()?.port();
            let (shared, place) = (self.shared.clone(), self.place.clone());
            Ok(Box::new(SimListener { shared, place, listener, port }) as BoxListener)
        })
    }

    fn connect<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, Result<BoxStream>> {
        Box::pin(self.dial(host, port))
    }
}

struct SimListener {
    shared: Arc<Shared>,
    place: Arc<Place>,
    listener: TcpListener,
    port: u16,
}

impl Listener for SimListener {
    fn accept(&mut self) -> BoxFuture<'_, Result<(BoxStream, String)>> {
        Box::pin(async move {
            let (stream, address) = self.listener.accept().await?;
            // A host's own address stands for loopback too.
            let name = turmoil::reverse_lookup(address.ip()).unwrap_or_else(|| self.place.name.to_string());
            let peer =
                lock(&self.shared.places).get(name.as_str()).cloned().expect("every address is a host's");
            let traffic = Traffic::new(self.shared.clone(), self.place.clone(), peer);
            Ok((Box::new(traffic.with(stream)?) as BoxStream, name))
        })
    }

    fn port(&self) -> u16 {
        self.port
    }
}

/// What goes between a host and a peer.
struct Traffic {
    shared: Arc<Shared>,
    place: Arc<Place>,
    peer: Arc<Place>,
}

impl Traffic {
    fn new(shared: Arc<Shared>, place: Arc<Place>, peer: Arc<Place>) -> Traffic {
        Traffic { shared, place, peer }
    }

    fn with(self, stream: TcpStream) -> Result<SimStream> {
        let port = stream.local_addr()?.port();
        self.place.connections.fetch_add(1, Ordering::Relaxed);
        Ok(SimStream { traffic: self, stream, port, shut: false })
    }

    fn count_sent(&self) {
        let mut links = lock(&self.shared.links);
        let ends = (self.place.name.clone(), self.peer.name.clone());
        let slowed = u64::from(links.slowed.contains(&ends));
        links.stats.entry(ends).or_default().slowed += slowed;
    }

    fn count_heard(&self) {
        lock(&self.shared.links).of(&self.peer.name, &self.place.name).delivered += 1;
    }
}

/// One end of a connection.
struct SimStream {
    traffic: Traffic,
    stream: TcpStream,
    port: u16,
    shut: bool,
}

impl AsyncRead for SimStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        if out.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = out.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, out))?;
        let bytes = &out.filled()[before..];
        if !bytes.is_empty() {
            let (to, from) = (&self.traffic.place.name, &self.traffic.peer.name);
            let text = format_args!("{to}:{} <- {from} {} B", self.port, bytes.len());
            self.traffic.shared.record(to, EventKind::Frame, text, bytes);
            self.traffic.count_heard();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.traffic.count_sent();
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        // A second shutdown is none; turmoil calls it an error.
        if !std::mem::replace(&mut self.shut, true) {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        self.traffic.place.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
