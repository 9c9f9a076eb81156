//! Kafka's plain fields, for the values of internal topics and of the metadata log.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use uuid::Uuid;

/// Appends fields.
pub(crate) trait Put: BufMut {
    /// Text after its length in two bytes.
    fn put_text(&mut self, text: &str) {
        self.put_i16(text.len() as i16);
        self.put_slice(text.as_bytes());
    }

    /// Text, or length -1.
    fn put_nullable_text(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.put_text(text),
            None => self.put_i16(-1),
        }
    }

    /// Bytes after their length in four.
    fn put_blob(&mut self, bytes: &[u8]) {
        self.put_i32(bytes.len() as i32);
        self.put_slice(bytes);
    }

    /// Sixteen bytes.
    fn put_uuid(&mut self, id: Uuid) {
        self.put_slice(id.as_bytes());
    }

    /// Numbers after their count.
    fn put_ints(&mut self, ints: &[i32]) {
        self.put_i32(ints.len() as i32);
        ints.iter().for_each(|&int| self.put_i32(int));
    }
}

impl Put for BytesMut {}

/// Takes fields; `None` if there are too few bytes.
pub(crate) trait Take: Buf {
    /// Text after its length in two bytes.
    fn take_text(&mut self) -> Option<String> {
        self.take_nullable_text()?
    }

    /// Text, or `Some(None)` for length -1.
    fn take_nullable_text(&mut self) -> Option<Option<String>> {
        match self.try_get_i16().ok()? {
            -1 => Some(None),
            length => {
                let bytes = self.take_bytes(usize::try_from(length).ok()?)?;
                Some(Some(String::from_utf8(bytes.to_vec()).ok()?))
            }
        }
    }

    /// Bytes after their length in four.
    fn take_blob(&mut self) -> Option<Bytes> {
        let length = usize::try_from(self.try_get_i32().ok()?).ok()?;
        self.take_bytes(length)
    }

    /// So many bytes.
    fn take_bytes(&mut self, length: usize) -> Option<Bytes> {
        (length <= self.remaining()).then(|| self.copy_to_bytes(length))
    }

    /// Sixteen bytes.
    fn take_uuid(&mut self) -> Option<Uuid> {
        Some(Uuid::from_u128(self.try_get_u128().ok()?))
    }

    /// Numbers after their count.
    fn take_ints(&mut self) -> Option<Vec<i32>> {
        let count = usize::try_from(self.try_get_i32().ok()?).ok()?;
        (count <= self.remaining() / 4).then(|| (0..count).map(|_| self.get_i32()).collect())
    }
}

impl Take for Bytes {}
