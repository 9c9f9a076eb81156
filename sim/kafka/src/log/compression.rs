//! The codecs of record batches: what stands after a batch's header, packed and unpacked.
//!
//! Framing is as Kafka's clients write it: gzip members, snappy in blocks with the header of xerial's library (the Java
//! client) or bare (librdkafka), lz4 and zstd frames. Start reading at [`decompress`]. Absent: dictionaries, levels.

use std::io::{self, Read, Write};

use bytes::Bytes;

/// What the records of one batch may unpack to. Kafka has no bound but its heap; without compression no more than this
/// fits into a request (`socket.request.max.bytes`), so no client loses by it.
pub const UNPACKED_BYTES_MAX: usize = 100 * 1024 * 1024;

/// The largest window of a zstd frame: as the reference library takes without being told more.
const ZSTD_WINDOW_MAX: u64 = 1 << 27;
/// The header of xerial's snappy stream: its magic, version 1, readable from version 1 on.
const XERIAL_HEADER: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
const XERIAL_MAGIC_LEN: usize = 8;
/// Bytes in a block of xerial's stream before they are packed.
const XERIAL_BLOCK_LEN: usize = 32 * 1024;

/// A codec; the numbers are those in a batch's attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Codec {
    /// Records as they are.
    None = 0,
    /// gzip.
    Gzip = 1,
    /// snappy.
    Snappy = 2,
    /// lz4 frames.
    Lz4 = 3,
    /// Zstandard.
    Zstd = 4,
}

/// Why records cannot be unpacked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompressionError {
    /// Not what the codec writes, or cut short.
    #[error("records are no valid {codec:?} data: {reason}")]
    Malformed {
        /// Which codec.
        codec: Codec,
        /// What it says.
        reason: String,
    },
    /// More than the reader takes.
    #[error("records unpack to more than {max} bytes")]
    TooLarge {
        /// The bound.
        max: usize,
    },
}

impl Codec {
    /// The codec with this number in a batch's attributes; `None` if there is none such.
    pub fn from_id(id: i16) -> Option<Codec> {
        match id {
            0 => Some(Codec::None),
            1 => Some(Codec::Gzip),
            2 => Some(Codec::Snappy),
            3 => Some(Codec::Lz4),
            4 => Some(Codec::Zstd),
            _ => None,
        }
    }
}

/// Unpacks the records of a batch: at most `max` bytes, see [`UNPACKED_BYTES_MAX`]. Uncompressed bytes come back as they
/// are, without a copy.
///
/// # Errors
/// [`CompressionError`].
pub fn decompress(codec: Codec, packed: &Bytes, max: usize) -> Result<Bytes, CompressionError> {
    let unpacked = match codec {
        Codec::None if packed.len() > max => return Err(CompressionError::TooLarge { max }),
        Codec::None => return Ok(packed.clone()),
        Codec::Gzip => bounded(codec, flate2::read::MultiGzDecoder::new(&packed[..]), max)?,
        Codec::Snappy => unpack_snappy(packed, max)?,
        Codec::Lz4 => bounded(codec, lz4_flex::frame::FrameDecoder::new(&packed[..]), max)?,
        Codec::Zstd => {
            let decoder =
                ruzstd::decoding::StreamingDecoder::new_with_max_window_size(&packed[..], ZSTD_WINDOW_MAX);
            bounded(codec, decoder.map_err(|error| malformed(codec, error))?, max)?
        }
    };
    Ok(unpacked.into())
}

/// Packs the records of a batch, at the codec's default level where it has levels.
pub fn compress(codec: Codec, unpacked: &[u8]) -> Bytes {
    match codec {
        Codec::None => Bytes::copy_from_slice(unpacked),
        Codec::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            in_memory(encoder.write_all(unpacked));
            in_memory(encoder.finish()).into()
        }
        Codec::Snappy => pack_snappy(unpacked).into(),
        Codec::Lz4 => {
            // Kafka's reader takes independent blocks only, and its writer makes them of 64 KiB.
            let frame = lz4_flex::frame::FrameInfo::new()
                .block_size(lz4_flex::frame::BlockSize::Max64KB)
                .block_mode(lz4_flex::frame::BlockMode::Independent);
            let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(frame, Vec::new());
            in_memory(encoder.write_all(unpacked));
            in_memory(encoder.finish()).into()
        }
        Codec::Zstd => {
            ruzstd::encoding::compress_to_vec(unpacked, ruzstd::encoding::CompressionLevel::Fastest).into()
        }
    }
}

fn in_memory<T, E: std::fmt::Debug>(result: Result<T, E>) -> T {
    result.expect("writing to memory does not fail")
}

fn malformed(codec: Codec, error: impl ToString) -> CompressionError {
    CompressionError::Malformed { codec, reason: error.to_string() }
}

/// Reads to the end, or one byte beyond the bound: that much memory is taken, whatever the frame claims.
fn bounded(codec: Codec, reader: impl Read, max: usize) -> Result<Vec<u8>, CompressionError> {
    let mut unpacked = Vec::new();
    let read: io::Result<usize> = reader.take(max as u64 + 1).read_to_end(&mut unpacked);
    read.map_err(|error| malformed(codec, error))?;
    if unpacked.len() > max { Err(CompressionError::TooLarge { max }) } else { Ok(unpacked) }
}

fn unpack_snappy(packed: &[u8], max: usize) -> Result<Vec<u8>, CompressionError> {
    let mut unpacked = Vec::new();
    if !packed.starts_with(&XERIAL_HEADER[..XERIAL_MAGIC_LEN]) {
        unpack_snappy_block(packed, &mut unpacked, max)?;
        return Ok(unpacked);
    }
    let cut_short = || malformed(Codec::Snappy, "a block is cut short");
    let mut rest = packed.get(XERIAL_HEADER.len()..).ok_or_else(cut_short)?;
    while !rest.is_empty() {
        let (len, after) = rest.split_first_chunk::<4>().ok_or_else(cut_short)?;
        let len = u32::from_be_bytes(*len) as usize;
        let block = after.get(..len).ok_or_else(cut_short)?;
        unpack_snappy_block(block, &mut unpacked, max)?;
        rest = &after[len..];
    }
    Ok(unpacked)
}

fn unpack_snappy_block(block: &[u8], unpacked: &mut Vec<u8>, max: usize) -> Result<(), CompressionError> {
    let len = snap::raw::decompress_len(block).map_err(|error| malformed(Codec::Snappy, error))?;
    let begin = unpacked.len();
    if len > max.saturating_sub(begin) {
        return Err(CompressionError::TooLarge { max });
    }
    unpacked.resize(begin + len, 0);
    let written = snap::raw::Decoder::new().decompress(block, &mut unpacked[begin..]);
    written.map(|_| ()).map_err(|error| malformed(Codec::Snappy, error))
}

fn pack_snappy(unpacked: &[u8]) -> Vec<u8> {
    let mut packed = XERIAL_HEADER.to_vec();
    for block in unpacked.chunks(XERIAL_BLOCK_LEN) {
        let block = in_memory(snap::raw::Encoder::new().compress_vec(block));
        packed.extend_from_slice(&(block.len() as u32).to_be_bytes());
        packed.extend_from_slice(&block);
    }
    packed
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    fn some_codec() -> impl Strategy<Value = Codec> {
        proptest::sample::select(&CODECS[..])
    }

    proptest! {
        #[test]
        fn what_is_packed_unpacks_to_the_same(
            codec in some_codec(), word in proptest::collection::vec(any::<u8>(), 0..40), times in 1..4_000_usize,
        ) {
            let unpacked = word.repeat(times);
            let packed = compress(codec, &unpacked);
            prop_assert_eq!(&decompress(codec, &packed, unpacked.len()).unwrap()[..], &unpacked[..]);
            if !unpacked.is_empty() {
                let max = unpacked.len() - 1;
                prop_assert_eq!(decompress(codec, &packed, max), Err(CompressionError::TooLarge { max }));
            }
        }

        #[test]
        fn no_bytes_make_a_codec_panic_or_take_more_than_its_bound(
            codec in some_codec(), bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            if let Ok(unpacked) = decompress(codec, &bytes.into(), 1_000) {
                prop_assert!(unpacked.len() <= 1_000);
            }
        }

        #[test]
        fn a_damaged_frame_does_not_make_a_codec_panic(
            codec in some_codec(), text in "[a-d]{0,400}", at in any::<prop::sample::Index>(), bit in 0..8_u32,
        ) {
            let mut packed = compress(codec, text.as_bytes()).to_vec();
            if !packed.is_empty() {
                let at = at.index(packed.len());
                packed[at] ^= 1 << bit;
            }
            if let Ok(unpacked) = decompress(codec, &packed.into(), 1_000) {
                prop_assert!(unpacked.len() <= 1_000);
            }
        }
    }

    #[test]
    fn bare_snappy_is_read_as_librdkafka_writes_it() {
        let bare = snap::raw::Encoder::new().compress_vec(b"value value value").unwrap();
        assert_eq!(decompress(Codec::Snappy, &bare.into(), 100).unwrap(), &b"value value value"[..]);
    }

    #[test]
    fn a_codec_that_makes_it_smaller_does() {
        let text = vec![b'x'; 100_000];
        for codec in &CODECS[1..] {
            assert!(compress(*codec, &text).len() < 10_000, "{codec:?}");
        }
    }

    #[test]
    fn there_are_five_codecs() {
        assert_eq!(CODECS.map(|codec| Codec::from_id(codec as i16)), CODECS.map(Some));
        assert_eq!(Codec::from_id(5), None);
    }
}
