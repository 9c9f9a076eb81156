//! Asks a broker which brokers it knows to serve: one Metadata request, without a client library.
//!
//! A broker lists those that are registered and not fenced. So a cluster is ready when each of its brokers lists them all;
//! that a port accepts connections says less: it does so before the controller lets the broker lead anything.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Metadata, version 4 (KIP-35's numbers): of no topic, creating none; correlation id 1; no client id.
const REQUEST: &[u8] = &[
    0, 0, 0, 15, // what follows
    0, 3, 0, 4, 0, 0, 0, 1, 0xff, 0xff, // header, version 1
    0, 0, 0, 0, 0, // no topics, no creation
];

/// How long a broker may take to answer. It is on loopback and asked for nothing that waits.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// No answer to the request is longer: a few brokers with short names.
const ANSWER_MAX: u32 = 1 << 16;

/// The brokers that serve, as the one at `address` tells its clients: under which host and port by id. What it advertises
/// depends on the listener that is asked.
///
/// # Errors
/// If it is not reached, or does not answer within a second.
pub fn listed_by(address: SocketAddr) -> io::Result<BTreeMap<u32, (String, u16)>> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWERS_WITHIN)?;
    stream.set_read_timeout(Some(ANSWERS_WITHIN))?;
    stream.write_all(REQUEST)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length > ANSWER_MAX {
        return Err(malformed());
    }
    let mut answer = vec![0; length as usize];
    stream.read_exact(&mut answer)?;
    parse(&answer).ok_or_else(malformed)
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "this is no answer to a Metadata request")
}

fn parse(answer: &[u8]) -> Option<BTreeMap<u32, (String, u16)>> {
    let mut rest = answer;
    let (_correlation_id, _throttle_time_ms) = (int(&mut rest)?, int(&mut rest)?);
    let mut brokers = BTreeMap::new();
    for _ in 0..int(&mut rest)? {
        let (id, host, port) = (int(&mut rest)?, string(&mut rest)?, int(&mut rest)?);
        brokers.insert(id, (host, u16::try_from(port).ok()?));
        let _rack = string(&mut rest)?;
    }
    Some(brokers)
}

fn int(rest: &mut &[u8]) -> Option<u32> {
    let (value, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(u32::from_be_bytes(*value))
}

/// Null has the length -1, and is empty here.
fn string(rest: &mut &[u8]) -> Option<String> {
    let (length, after) = rest.split_first_chunk()?;
    let length = usize::try_from(i16::from_be_bytes(*length)).unwrap_or(0);
    let (text, after) = after.split_at_checked(length)?;
    *rest = after;
    String::from_utf8(text.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = &[
        0, 0, 0, 1, 0, 0, 0, 0, // correlation id, throttle time
        0, 0, 0, 2, // two brokers
        0, 0, 0, 7, 0, 1, b'h', 0, 0, 0x23, 0x84, 0xff, 0xff, // 7 at h:9092, no rack
        0, 0, 0, 9, 0, 1, b'h', 0, 0, 0x23, 0x85, 0, 1, b'r', // 9 at h:9093 in rack r
        0xff, 0xff, 0, 0, 0, 9, 0, 0, 0, 0, // no cluster id, controller 9, no topics
    ];

    #[test]
    fn an_answer_lists_brokers() {
        let listed = [(7, ("h".to_owned(), 9092)), (9, ("h".to_owned(), 9093))];
        assert_eq!(parse(ANSWER), Some(listed.into()));
    }

    #[test]
    fn half_an_answer_lists_nothing() {
        assert_eq!(parse(&ANSWER[..30]), None);
        assert_eq!(parse(&[]), None);
    }

    #[test]
    fn the_request_says_its_own_length() {
        assert_eq!(REQUEST[..4], u32::to_be_bytes(REQUEST.len() as u32 - 4));
    }
}
