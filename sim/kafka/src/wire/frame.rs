//! One frame: four bytes of length, then so many bytes.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Memory that a length alone may claim; the rest is claimed as bytes arrive.
const FIRST_CLAIM: usize = 64 * 1024;

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
    async fn a_length_out_of_bounds_is_refused_before_anything_is_read() {
        for length in [-1_i32, i32::MIN, 101, i32::MAX] {
            let error = read_frame(&mut &length.to_be_bytes()[..], 100).await.unwrap_err();
            assert!(matches!(error, FrameError::Length { max: 100, .. }), "{error}");
        }
    }
}
