//! Inputs to begin with: valid requests in every version, batches in every codec, logs as brokers leave them.
//!
//! They are made anew at each start, so that they follow what the broker serves; no corpus is kept in the repository.

use std::path::Path;

use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader};
use kafka_protocol::protocol::{Encodable, StrBytes};
use shakedown_kafka::wire::with_length;

use crate::stage::{Known, Stage};
use crate::{Listener, SEALED, TWICE, batches, framed, of_target, requests, segments};

/// Names the directory that a target writes its seeds into as it starts, if it is set.
const DIRECTORY: &str = "SEEDS_INTO";

/// Writes the seeds of a target, if its surroundings say where to.
///
/// # Panics
/// If the directory cannot be written.
pub fn write(target: &str) {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    for (number, seed) in of(target).iter().enumerate() {
        let path = Path::new(&directory).join(format!("{number:04}"));
        std::fs::write(&path, seed)
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    }
}

/// The seeds of a target.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    let known = || Stage::new().known;
    match target {
        "frame" => of_frames(Listener::Broker, &known()),
        "controller_frame" => of_frames(Listener::Controller, &known()),
        "record_batch" => batches::seeds(),
        "segment_recovery" => segments::seeds(),
        target => {
            let (listener, served) = of_target(target).expect("a target of a request is named by its API");
            let mut seeds = Vec::new();
            for version in served.from..=served.to {
                for body in requests::bodies(listener, served.api, version, &known()) {
                    let how = (version - served.from) as u8;
                    for how in [how, how | TWICE, how | SEALED | TWICE] {
                        seeds.push([&[how][..], &body].concat());
                    }
                }
            }
            seeds
        }
    }
}

/// Every request in every version, whole and in small pieces; and conversations of several.
fn of_frames(listener: Listener, known: &Known) -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let mut conversation = vec![7];
    for served in listener.apis() {
        for version in served.from..=served.to {
            let bodies = requests::bodies(listener, served.api, version, known);
            for body in &bodies {
                let frame = with_length(&framed(served.api, version, body));
                seeds.push([&[255][..], &frame].concat());
            }
            if let Some(body) = bodies.last() {
                let frame = with_length(&with_unknown_tag(served.api, version, body).freeze());
                seeds.push([&[1][..], &frame].concat());
                if version == served.to && conversation.len() + frame.len() < 4_096 {
                    conversation.extend_from_slice(&frame);
                }
            }
        }
    }
    seeds.push(conversation);
    seeds
}

/// A header with a tagged field that nobody knows, where its version has tagged fields.
fn with_unknown_tag(api: ApiKey, version: i16, body: &[u8]) -> BytesMut {
    let header_version = api.request_header_version(version);
    let mut header = RequestHeader::default()
        .with_request_api_key(api as i16)
        .with_request_api_version(version)
        .with_client_id(Some(StrBytes::from_static_str("fuzz")));
    if header_version >= 2 {
        header.unknown_tagged_fields.insert(9, bytes::Bytes::from_static(b"tag"));
    }
    let mut frame = BytesMut::new();
    header.encode(&mut frame, header_version).expect("the header fits");
    frame.put_slice(body);
    frame
}

#[cfg(test)]
mod tests {
    use shakedown_kafka::wire::Request;

    use super::*;

    #[test]
    fn every_version_has_a_seed_that_says_more_than_nothing_and_all_are_read() {
        let known = Stage::new().known;
        for listener in [Listener::Broker, Listener::Controller] {
            for served in listener.apis() {
                for version in served.from..=served.to {
                    let bodies = requests::bodies(listener, served.api, version, &known);
                    assert!(bodies.len() >= 2, "{:?} {version} has {} seeds", served.api, bodies.len());
                    for body in bodies {
                        let read = Request::read(&framed(served.api, version, &body), listener.apis());
                        assert!(read.is_ok(), "{:?} {version}: {read:?}", served.api);
                    }
                }
            }
        }
    }
}
