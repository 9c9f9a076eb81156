//! Checks the lengths inside a frame before the codec sees them.
//!
//! The codec (kafka-protocol 0.18) reserves memory for as many elements as an array's length says, at any depth: eight
//! bytes could ask for 150 GB. Here a frame is walked along the layout of its request, nothing is reserved, and an array
//! that promises more than there are bytes ends the walk. An element of two bytes decodes to a hundred, so their number is
//! bounded too ([`ELEMENTS_MAX`]): what passes decodes to the size of the frame and a few hundred megabytes at the worst.

use std::fmt;

use kafka_protocol::messages::ApiKey;

use super::layout::{Field, Kind, Layout, layout};

/// How many elements the arrays of one request may have, all together and tagged fields among them. Kafka has no such bound:
/// there the heap's size decides. The largest cluster that Kafka's authors write of has 200,000 partitions.
const ELEMENTS_MAX: usize = 1 << 20;

/// Why a frame is refused. The peer gets no answer but the end of the connection; these words are for the trace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Cut short, or with a length beyond the bytes that are there.
    #[error("the frame is shorter than it says")]
    Short,
    /// A length below zero where none may be.
    #[error("a length of {0} is below zero")]
    Negative(i64),
    /// A number of variable length that does not end.
    #[error("a variable-length number does not end")]
    EndlessVarint,
    /// Text that is not UTF-8.
    #[error("text is not UTF-8")]
    NotText,
    /// Text of more bytes than Kafka takes, 32,767: compact lengths could say more.
    #[error("text has {0} bytes")]
    TooLong(usize),
    /// More elements than [`ELEMENTS_MAX`].
    #[error("the arrays of the request have more than {ELEMENTS_MAX} elements")]
    TooMany,
    /// No such API here.
    #[error("API {0} is not served here")]
    UnknownApi(i16),
    /// The API is served, in other versions.
    #[error("API {api_key} is not served in version {version}")]
    UnservedVersion {
        /// The API.
        api_key: i16,
        /// The version asked for.
        version: i16,
    },
    /// The codec found an error that the walk did not.
    #[error("a request to API {0} cannot be decoded")]
    Undecodable(i16),
    /// The peer's answer is not what was asked for.
    #[error("a response cannot be decoded")]
    BadResponse,
    /// The answer has text that is longer than its version can say.
    #[error("the response to API {api_key} version {version} cannot be encoded: {why}")]
    Unanswerable {
        /// The API.
        api_key: i16,
        /// The version.
        version: i16,
        /// What the codec says.
        why: String,
    },
}

/// The bytes that every request begins with, in every version of its header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    pub(super) api_key: i16,
    pub(super) version: i16,
    pub(super) correlation: i32,
}

impl Start {
    pub(super) fn read(frame: &[u8]) -> Result<Start, Malformed> {
        let mut walk = Walk::new(frame, 0);
        let (key, version, correlation) = (walk.take(2)?, walk.take(2)?, walk.take(4)?);
        Ok(Start {
            api_key: i16::from_be_bytes([key[0], key[1]]),
            version: i16::from_be_bytes([version[0], version[1]]),
            correlation: i32::from_be_bytes([correlation[0], correlation[1], correlation[2], correlation[3]]),
        })
    }
}

/// Walks a request, header included.
pub(super) fn check(api: ApiKey, version: i16, frame: &[u8]) -> Result<(), Malformed> {
    let Layout { flexible, fields } = layout(api).ok_or(Malformed::UnknownApi(api as i16))?;
    let mut walk = Walk::new(frame, version);
    walk.take(8)?;
    // The client id keeps its old form in every header.
    walk.value(&Kind::Text)?;
    walk.flexible = version >= flexible;
    if walk.flexible {
        walk.tagged_fields(&[])?;
    }
    walk.structure(fields)
}

struct Walk<'a> {
    rest: &'a [u8],
    version: i16,
    flexible: bool,
    /// How many more elements there may be.
    elements: usize,
}

impl fmt::Debug for Walk<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Walk({} bytes left)", self.rest.len())
    }
}

impl<'a> Walk<'a> {
    fn new(rest: &'a [u8], version: i16) -> Walk<'a> {
        Walk { rest, version, flexible: false, elements: ELEMENTS_MAX }
    }

    fn structure(&mut self, fields: &[Field]) -> Result<(), Malformed> {
        let version = self.version;
        let is_here = |field: &&Field| field.tag.is_none() && (field.from..=field.to).contains(&version);
        for field in fields.iter().filter(is_here) {
            self.value(&field.kind)?;
        }
        if self.flexible { self.tagged_fields(fields) } else { Ok(()) }
    }

    fn tagged_fields(&mut self, fields: &[Field]) -> Result<(), Malformed> {
        for _ in 0..self.varint()? {
            self.spend(1)?;
            let tag = self.varint()?;
            let size = self.varint()? as usize;
            let content = self.take(size)?;
            let known = fields.iter().find(|field| field.tag == Some(tag) && self.version >= field.from);
            if let Some(field) = known {
                let mut inside = Walk { rest: content, ..*self };
                inside.value(&field.kind)?;
                self.elements = inside.elements;
                if !inside.rest.is_empty() {
                    return Err(Malformed::Short);
                }
            }
        }
        Ok(())
    }

    fn value(&mut self, kind: &Kind) -> Result<(), Malformed> {
        match kind {
            Kind::Fixed(size) => self.take(*size).map(drop),
            Kind::Text => {
                let length = if self.flexible { self.compact_length()? } else { self.short_length()? };
                if length > i16::MAX as usize {
                    return Err(Malformed::TooLong(length));
                }
                let text = self.take(length)?;
                std::str::from_utf8(text).map(drop).map_err(|_| Malformed::NotText)
            }
            Kind::Blob => {
                let length = self.length()?;
                self.take(length).map(drop)
            }
            Kind::Each(element) => (0..self.count()?).try_for_each(|_| self.value(element)),
            Kind::List(fields) => (0..self.count()?).try_for_each(|_| self.structure(fields)),
            Kind::One(fields) => self.structure(fields),
            Kind::Maybe(fields) => match self.take(1)?[0] as i8 {
                ..0 => Ok(()),
                _ => self.structure(fields),
            },
        }
    }

    /// An array's length. Every element that is served has at least one byte.
    fn count(&mut self) -> Result<usize, Malformed> {
        let count = self.length()?;
        if count > self.rest.len() {
            return Err(Malformed::Short);
        }
        self.spend(count)?;
        Ok(count)
    }

    fn spend(&mut self, elements: usize) -> Result<(), Malformed> {
        self.elements = self.elements.checked_sub(elements).ok_or(Malformed::TooMany)?;
        Ok(())
    }

    fn length(&mut self) -> Result<usize, Malformed> {
        if self.flexible {
            return self.compact_length();
        }
        let bytes = self.take(4)?;
        nullable(i64::from(i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])))
    }

    fn short_length(&mut self) -> Result<usize, Malformed> {
        let bytes = self.take(2)?;
        nullable(i64::from(i16::from_be_bytes([bytes[0], bytes[1]])))
    }

    /// One more than the length; 0 is null.
    fn compact_length(&mut self) -> Result<usize, Malformed> {
        Ok((self.varint()? as usize).saturating_sub(1))
    }

    fn varint(&mut self) -> Result<u32, Malformed> {
        let mut value = 0_u32;
        for shift in (0..35).step_by(7) {
            let byte = self.take(1)?[0];
            let low = u32::from(byte & 0x7f);
            value |= low
                .checked_shl(shift)
                .filter(|shifted| shifted >> shift == low)
                .ok_or(Malformed::EndlessVarint)?;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed::EndlessVarint)
    }

    fn take(&mut self, size: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(size).ok_or(Malformed::Short)?;
        self.rest = rest;
        Ok(taken)
    }
}

fn nullable(length: i64) -> Result<usize, Malformed> {
    match length {
        -1 => Ok(0),
        length => usize::try_from(length).map_err(|_| Malformed::Negative(length)),
    }
}

#[cfg(test)]
mod tests;
