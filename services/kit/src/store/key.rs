//! Keys as bytes whose order is the order of what they stand for.

use context::Timestamp;
use uuid::Uuid;

/// A type that can be a table's key. Encodings are self-delimiting, so a tuple's first part is a prefix to scan by.
pub trait Key: Sized {
    /// Appends the encoding. `a < b` exactly if `a`'s bytes come before `b`'s.
    fn encode_into(&self, out: &mut Vec<u8>);

    /// Takes one key off the front of `bytes`; `None` if it is none.
    fn decode_from(bytes: &mut &[u8]) -> Option<Self>;

    /// The encoding.
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_into(&mut out);
        out
    }

    /// Reads an encoding to its end; `None` if it is none, or longer.
    fn decode(mut bytes: &[u8]) -> Option<Self> {
        let key = Self::decode_from(&mut bytes)?;
        bytes.is_empty().then_some(key)
    }
}

/// The one key of a table with one row.
impl Key for () {
    fn encode_into(&self, _out: &mut Vec<u8>) {}

    fn decode_from(_bytes: &mut &[u8]) -> Option<()> {
        Some(())
    }
}

impl Key for u64 {
    fn encode_into(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }

    fn decode_from(bytes: &mut &[u8]) -> Option<u64> {
        let (head, tail) = bytes.split_first_chunk()?;
        *bytes = tail;
        Some(u64::from_be_bytes(*head))
    }
}

impl Key for Timestamp {
    fn encode_into(&self, out: &mut Vec<u8>) {
        self.as_micros().encode_into(out);
    }

    fn decode_from(bytes: &mut &[u8]) -> Option<Timestamp> {
        u64::decode_from(bytes).map(Timestamp::from_micros)
    }
}

impl Key for Uuid {
    fn encode_into(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    fn decode_from(bytes: &mut &[u8]) -> Option<Uuid> {
        let (head, tail) = bytes.split_first_chunk()?;
        *bytes = tail;
        Some(Uuid::from_bytes(*head))
    }
}

/// Text ends with two zero bytes; a zero byte within it is followed by 255. So a text comes before its continuations,
/// whatever key follows it in a tuple.
impl Key for String {
    fn encode_into(&self, out: &mut Vec<u8>) {
        for &byte in self.as_bytes() {
            out.push(byte);
            if byte == 0 {
                out.push(0xff);
            }
        }
        out.extend_from_slice(&[0, 0]);
    }

    fn decode_from(bytes: &mut &[u8]) -> Option<String> {
        let mut text = Vec::new();
        let mut at = 0;
        loop {
            match (bytes.get(at)?, bytes.get(at + 1)) {
                (0, Some(0xff)) => {
                    text.push(0);
                    at += 2;
                }
                (0, Some(0)) => break,
                (0, _) => return None,
                (&byte, _) => {
                    text.push(byte);
                    at += 1;
                }
            }
        }
        *bytes = &bytes[at + 2..];
        String::from_utf8(text).ok()
    }
}

macro_rules! id_keys {
    ($($id:ident),+) => {$(
        impl Key for proto::$id {
            fn encode_into(&self, out: &mut Vec<u8>) {
                self.as_str().to_owned().encode_into(out);
            }

            fn decode_from(bytes: &mut &[u8]) -> Option<proto::$id> {
                proto::$id::new(String::decode_from(bytes)?).ok()
            }
        }
    )+};
}

id_keys!(OrderId, CustomerId, PaymentId, ReservationId, ShipmentId, SagaId);

impl Key for proto::MessageId {
    fn encode_into(&self, out: &mut Vec<u8>) {
        self.0.encode_into(out);
    }

    fn decode_from(bytes: &mut &[u8]) -> Option<proto::MessageId> {
        Uuid::decode_from(bytes).map(proto::MessageId)
    }
}

impl<A: Key, B: Key> Key for (A, B) {
    fn encode_into(&self, out: &mut Vec<u8>) {
        self.0.encode_into(out);
        self.1.encode_into(out);
    }

    fn decode_from(bytes: &mut &[u8]) -> Option<(A, B)> {
        Some((A::decode_from(bytes)?, B::decode_from(bytes)?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_order_of_bytes_is_the_order_of_keys(
            a in (".{0,4}", any::<u64>()),
            b in (".{0,4}", any::<u64>()),
        ) {
            prop_assert_eq!(a.cmp(&b), a.encode().cmp(&b.encode()));
            prop_assert_eq!(Key::decode(&a.encode()), Some(a));
        }

        #[test]
        fn text_with_zero_bytes_keeps_its_order(a in "[\\x00-\\x02]{0,5}", b in "[\\x00-\\x02]{0,5}") {
            prop_assert_eq!(a.cmp(&b), a.encode().cmp(&b.encode()));
            prop_assert_eq!(String::decode(&a.encode()), Some(a));
        }
    }

    #[test]
    fn bytes_that_are_no_key_are_refused() {
        assert_eq!(u64::decode(&[1, 2, 3]), None);
        assert_eq!(u64::decode(&[0; 9]), None);
        assert_eq!(String::decode(b"no end"), None);
        assert_eq!(String::decode(b"\xff\xfe\x00"), None);
    }
}
