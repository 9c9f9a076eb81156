//! A broker that a fuzzer talks to: the cores on a bench, a topic, and a client that checks that the broker still serves.
//!
//! `fuzz/run` runs every target for some time. A panic, an abort, or memory beyond its limit is a finding.

#![allow(clippy::disallowed_methods, reason = "a fuzzer is no simulation")]

#[path = "../../sim/kafka/tests/support/mod.rs"]
mod support;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, CreateTopicsRequest, RequestHeader, TopicName,
};
use kafka_protocol::protocol::{Encodable, StrBytes};
use shakedown_kafka::wire::{BROKER_APIS, Served};
use support::Bench;

/// A broker with a topic called `t`, which short inputs can name.
fn bench() -> Bench {
    let mut bench = Bench::new(1, &[("offsets.topic.num.partitions", "1"), ("transaction.state.log.num.partitions", "1")]);
    let topic = CreatableTopic::default()
        .with_name(TopicName(StrBytes::from_static_str("t")))
        .with_num_partitions(1)
        .with_replication_factor(1);
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(1_000);
    bench.ask(1, ApiKey::CreateTopics, 5, request);
    bench
}

/// Sends a frame, lets time pass, and asks the broker whether it is well.
fn sent(frame: Bytes) {
    let mut bench = bench();
    let short = |at: usize| frame.get(at..at + 2).map_or(0, |two| i16::from_be_bytes([two[0], two[1]]));
    let (key, version) = (short(0), short(2));
    let served = served(key);
    let version = match served {
        Some(served) if (served.from..=served.to).contains(&version) => version,
        // Of ApiVersions too new a version is answered in version 0; nothing else that is not served is answered.
        _ => 0,
    };
    let api = served.map_or(ApiKey::ApiVersions, |served| served.api);
    bench.send_bytes(1, (api, version), frame);
    bench.advance(20_000);
    bench.ask(1, ApiKey::ApiVersions, 0, ApiVersionsRequest::default());
}

fn served(key: i16) -> Option<&'static Served> {
    BROKER_APIS.iter().find(|served| served.api as i16 == key)
}

/// Any bytes as a frame.
pub fn frame(data: &[u8]) {
    sent(Bytes::copy_from_slice(data));
}

/// Any bytes as the body of a request; `target` is the API's name in snake case.
///
/// # Panics
/// If no API that is served has that name: the list of targets is then out of date.
pub fn request(target: &str, data: &[u8]) {
    let served = BROKER_APIS.iter().find(|served| snake(served.api) == target);
    let served = served.unwrap_or_else(|| panic!("no API is called `{target}`"));
    let Some((&pick, body)) = data.split_first() else { return };
    let versions = served.to - served.from + 1;
    let version = served.from + i16::from(pick) % versions;
    let header = RequestHeader::default()
        .with_request_api_key(served.api as i16)
        .with_request_api_version(version)
        .with_correlation_id(5)
        .with_client_id(Some(StrBytes::from_static_str("fuzz")));
    let mut frame = BytesMut::new();
    header.encode(&mut frame, served.api.request_header_version(version)).expect("the header fits");
    frame.put_slice(body);
    sent(frame.freeze());
}

fn snake(api: ApiKey) -> String {
    let mut name = String::new();
    for letter in format!("{api:?}").trim_end_matches("Key").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_api_that_is_served_has_a_target() {
        let manifest = include_str!("../Cargo.toml");
        let missing: Vec<String> = BROKER_APIS
            .iter()
            .map(|served| snake(served.api))
            .filter(|name| !manifest.contains(&format!("name = \"{name}\"")))
            .collect();
        assert!(missing.is_empty(), "add a target for {missing:?}");
    }
}
