//! One frame: four bytes of length, then so many bytes.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::with_length;

/// Memory that a length alone may claim; the rest is claimed as bytes arrive.
const FIRST_CLAIM: usize = 64 * 1024;

/// A frame up to this size is copied behind its length, to go out in one piece on every kind of stream; of a larger one
/// the copy would cost more than the pieces.
const COPIED_BYTES_MAX: usize = 8 * 1024;

/// Why no frame came.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The peer closed, or the network failed.
    #[error("the connection ended: {0}")]
    Io(#[from] io::Error),
    /// A length below zero or above `socket.request.max.bytes`.
    #[error("a frame of {length} bytes is not from 0 to {max}")]
    Length {
        /// As it was sent.
        length: i32,
        /// The setting.
        max: i32,
    },
}

/// Reads one frame without its length. What it reserves grows with what arrives, not with what the length promises.
///
/// # Errors
/// [`FrameError`]; the connection is of no use afterwards.
pub async fn read_frame(
    stream: &mut (impl AsyncRead + Unpin + ?Sized),
    max: i32,
) -> Result<Bytes, FrameError> {
    let length = stream.read_i32().await?;
    if !(0..=max).contains(&length) {
        return Err(FrameError::Length { length, max });
    }
    let length = length as usize;
    let mut frame = BytesMut::with_capacity(length.min(FIRST_CLAIM));
    let mut limited = stream.take(length as u64);
    while frame.len() < length {
        if limited.read_buf(&mut frame).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
    Ok(frame.freeze())
}

/// Writes one frame with its length in front.
///
/// # Errors
/// As the stream; it is of no use afterwards.
pub async fn write_frame(stream: &mut (impl AsyncWrite + Unpin), frame: &Bytes) -> io::Result<()> {
    if frame.len() <= COPIED_BYTES_MAX {
        return stream.write_all(&with_length(frame)).await;
    }
    let length = (frame.len() as i32).to_be_bytes();
    stream.write_all_buf(&mut Buf::chain(&length[..], frame.clone())).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_frame_comes_whole_or_not_at_all() {
        assert_eq!(&read_frame(&mut &[0, 0, 0, 2, 7, 8, 9][..], 100).await.unwrap()[..], [7, 8]);
        let cut = read_frame(&mut &[0, 0, 0, 9, 7, 8][..], 100).await.unwrap_err();
        assert!(matches!(cut, FrameError::Io(_)), "{cut}");
    }

    #[tokio::test]
    async fn a_frame_of_any_size_goes_out_behind_its_length() {
        for size in [0, 1, COPIED_BYTES_MAX, COPIED_BYTES_MAX + 1, 100_000] {
            let frame = Bytes::from(vec![7; size]);
            let mut written = Vec::new();
            write_frame(&mut written, &frame).await.unwrap();
            assert_eq!(read_frame(&mut &written[..], i32::MAX).await.unwrap(), frame);
            assert_eq!(written.len(), 4 + size);
        }
    }

    #[tokio::test]
    async fn a_length_out_of_bounds_is_refused_before_anything_is_read() {
        for length in [-1_i32, i32::MIN, 101, i32::MAX] {
            let error = read_frame(&mut &length.to_be_bytes()[..], 100).await.unwrap_err();
            assert!(matches!(error, FrameError::Length { max: 100, .. }), "{error}");
        }
    }
}
