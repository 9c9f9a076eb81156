//! Streams between hosts: the simulated network or tokio's TCP behind one seam.
//!
//! The seam is made of trait objects. A virtual call for each poll costs a nanosecond or two; type parameters would
//! run through every service, client and broker.

use std::fmt;
use std::io;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::BoxFuture;

/// A byte stream in both directions, as TCP gives it: ordered, with end of file and reset.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// An owned stream.
pub type BoxStream = Box<dyn Stream>;

/// A listening port.
pub trait Listener: Send {
    /// Waits for the next connection; gives the stream and the peer's name or address, for logs.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxStream, String)>>;

    /// The port it listens on, chosen by the network where 0 was asked for.
    fn port(&self) -> u16;
}

/// An owned listener.
pub type BoxListener = Box<dyn Listener>;

/// The network as one host sees it.
pub trait Net: Send + Sync + 'static {
    /// Listens on `port`; 0 asks for any free one.
    ///
    /// # Errors
    /// `AddrInUse` if this host already listens there.
    fn listen(&self, port: u16) -> BoxFuture<'_, io::Result<BoxListener>>;

    /// Connects to `port` of the host called `host`.
    ///
    /// # Errors
    /// `ConnectionRefused` if the host is up and nobody listens there, `NotFound` if the network knows no such host.
    /// To a host without power, or behind a partition, the connect waits; give it a timeout.
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<BoxStream>>;
}

impl fmt::Debug for dyn Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Net")
    }
}
