//! Tokio's streams as hyper wants them. (hyper-util has the same, with executors and timers that are closed here.)

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use context::BoxStream;
use hyper::rt::ReadBufCursor;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

/// Bytes that go through the adapter in one read.
const CHUNK: usize = 4096;

pub(super) struct Io {
    stream: BoxStream,
    chunk: Box<[u8; CHUNK]>,
}

impl Io {
    pub(super) fn new(stream: BoxStream) -> Io {
        Io { stream, chunk: Box::new([0; CHUNK]) }
    }
}

impl hyper::rt::Read for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        // Through a chunk of our own: writing into hyper's uninitialised bytes would take `unsafe`.
        let Io { stream, chunk } = &mut *self;
        let length = CHUNK.min(buffer.remaining());
        let mut chunk = ReadBuf::new(&mut chunk[..length]);
        ready!(Pin::new(stream).poll_read(cx, &mut chunk))?;
        buffer.put_slice(chunk.filled());
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
