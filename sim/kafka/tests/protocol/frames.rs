//! Frames that are no request, and answers that fit into no frame.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::Encodable;

use crate::support::verbs::*;
use crate::support::{Reply, text};
use crate::{bench, error_of};

#[test]
fn bytes_that_are_no_request_close_the_connection() {
    let mut bench = bench();
    for bytes in [&b""[..], &[0], &[0, 3, 0], &[0, 0, 0, 2, 0, 0, 0, 1]] {
        let connection = bench.send_bytes(1, (ApiKey::Metadata, 0), Bytes::copy_from_slice(bytes));
        assert!(matches!(bench.reply(connection), Some(Reply::Closed(_))), "{bytes:?}");
    }
}

/// Metadata version 0 with 2,147,483,647 topics, none of which follows: kafka-protocol 0.18 asks for 154 GB and aborts.
/// `tests/tcp.rs` sends them through a socket.
#[test]
fn the_bytes_that_abort_the_codec_are_an_error_and_close_the_connection() {
    let mut bench = bench();
    let bytes = [&[0, 3, 0, 0, 0, 0, 0, 1, 0xff, 0xff][..], &i32::MAX.to_be_bytes()].concat();
    let connection = bench.send_bytes(1, (ApiKey::Metadata, 0), bytes.into());
    let reply = bench.reply(connection);
    assert!(
        matches!(&reply, Some(Reply::Closed(why)) if why == "the frame is shorter than it says"),
        "{reply:?}"
    );
    let others = bench.ask(1, ApiKey::ApiVersions, 0, ApiVersionsRequest::default());
    assert_eq!(error_of(&others), 0);
}

/// A member id is the client's id and more, and version 5 says its length in 16 bits.
#[test]
fn an_answer_too_long_for_its_version_closes_the_connection_and_harms_nobody() {
    let mut bench = bench();
    let coordinator = bench.coordinator("group");
    let header = RequestHeader::default()
        .with_request_api_key(ApiKey::JoinGroup as i16)
        .with_request_api_version(5)
        .with_client_id(Some(text(&"c".repeat(32_760))));
    let mut frame = BytesMut::new();
    header.encode(&mut frame, ApiKey::JoinGroup.request_header_version(5)).unwrap();
    join_request("group", "").encode(&mut frame, 5).unwrap();
    let connection = bench.send_bytes(coordinator, (ApiKey::JoinGroup, 5), frame.freeze());
    let reply = bench.reply(connection);
    assert!(matches!(&reply, Some(Reply::Closed(why)) if why.contains("cannot be encoded")), "{reply:?}");

    let config = ("x".repeat(32_760), "1".to_owned());
    let topic = create_topics_request::CreatableTopic::default()
        .with_name(topic_name("t"))
        .with_num_partitions(1)
        .with_replication_factor(1)
        .with_configs(vec![
            create_topics_request::CreatableTopicConfig::default()
                .with_name(text(&config.0))
                .with_value(Some(text(&config.1))),
        ]);
    let request = CreateTopicsRequest::default().with_topics(vec![topic]);
    assert_eq!(error_of(&bench.ask(1, ApiKey::CreateTopics, 4, request)), 40);
}
