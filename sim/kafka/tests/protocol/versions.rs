//! Every version that is told of is answered, and clients are told of what there is.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::Decodable;
use shakedown_kafka::wire::{BROKER_APIS, CONTROLLER_APIS};

use crate::requests::request;
use crate::support::{Bench, Reply, text};
use crate::{bench, error_of, expect, leader};

#[test]
fn every_version_that_is_told_of_is_answered() {
    let mut bench = bench();
    let coordinator = bench.coordinator("group");
    bench.producer_id(coordinator);
    for served in BROKER_APIS {
        for version in served.from..=served.to {
            let node = match served.api {
                ApiKey::Produce
                | ApiKey::Fetch
                | ApiKey::ListOffsets
                | ApiKey::DeleteRecords
                | ApiKey::WriteTxnMarkers
                | ApiKey::OffsetForLeaderEpoch
                | ApiKey::DescribeProducers => leader(&bench),
                ApiKey::JoinGroup => bench.coordinator(&format!("joined-{version}")),
                ApiKey::DeleteGroups => bench.coordinator(&format!("gone-{version}")),
                _ => coordinator,
            };
            let request = request(&mut bench, served.api, version);
            let connection = bench.send(node, served.api, version, request);
            bench.advance(7_000);
            match bench.reply(connection) {
                Some(Reply::Response(response)) => assert_eq!(
                    error_of(&response),
                    expected(served.api, version),
                    "{:?} {version}: {response:?}",
                    served.api
                ),
                other => panic!("{:?} {version}: {other:?}", served.api),
            }
        }
    }
}

fn expected(api: ApiKey, version: i16) -> i16 {
    match api {
        ApiKey::Heartbeat | ApiKey::LeaveGroup => 25,
        ApiKey::SyncGroup => 25,
        ApiKey::DeleteGroups => 69,
        // Nobody has asked for the coordinator of its transactional id yet, so it cannot be verified.
        ApiKey::TxnOffsetCommit => 15,
        ApiKey::JoinGroup if version >= 4 => 79,
        // Nobody has asked for the coordinator of a transactional id yet.
        ApiKey::AddPartitionsToTxn | ApiKey::AddOffsetsToTxn | ApiKey::EndTxn => 16,
        ApiKey::DescribeTransactions => 16,
        ApiKey::DeleteTopics | ApiKey::CreatePartitions => 3,
        ApiKey::ElectLeaders => 84,
        _ => 0,
    }
}

#[test]
fn errors_are_answered_in_every_version_too() {
    let mut bench = bench();
    for served in BROKER_APIS {
        for version in served.from..=served.to {
            // The wrong broker for all: no leader, no coordinator.
            let wrong = (1..=3).find(|&node| node != leader(&bench)).unwrap();
            let request = request(&mut bench, served.api, version);
            let connection = bench.send(wrong, served.api, version, request);
            bench.advance(7_000);
            let reply = bench.reply(connection).expect("an answer");
            let Reply::Response(response) = reply else { panic!("{:?} {version}: {reply:?}", served.api) };
            let expected: &[i16] = match served.api {
                ApiKey::Produce
                | ApiKey::Fetch
                | ApiKey::ListOffsets
                | ApiKey::DeleteRecords
                | ApiKey::OffsetForLeaderEpoch
                | ApiKey::DescribeProducers => &[6],
                _ => &[0, 3, 14, 15, 16, 25, 36, 69, 79, 84],
            };
            assert!(expected.contains(&error_of(&response)), "{:?} {version}: {response:?}", served.api);
        }
    }
}

#[test]
fn an_unknown_version_of_api_versions_is_answered_in_version_0() {
    let mut bench = bench();
    let mut frame = BytesMut::new();
    frame.put_i16(ApiKey::ApiVersions as i16);
    frame.put_i16(99);
    frame.put_i32(5);
    let connection = bench.send_bytes(1, (ApiKey::ApiVersions, 0), frame.freeze());
    let response = expect!(ApiVersions, bench.response(connection));
    assert_eq!(response.error_code, 35);
    let told: Vec<_> =
        response.api_keys.iter().map(|key| (key.api_key, key.min_version, key.max_version)).collect();
    assert_eq!(told, [(ApiKey::ApiVersions as i16, 0, 4)], "and no other (KIP-511)");
}

#[test]
fn clients_are_told_the_versions_of_every_api() {
    let mut bench = bench();
    let response = bench.ask(1, ApiKey::ApiVersions, 0, ApiVersionsRequest::default());
    let response = expect!(ApiVersions, response);
    let produce = response.api_keys.iter().find(|key| key.api_key == 0).unwrap();
    assert_eq!((produce.min_version, produce.max_version), (0, 13), "see KAFKA-18659");
    let end_txn = response.api_keys.iter().find(|key| key.api_key == ApiKey::EndTxn as i16).unwrap();
    assert_eq!(
        (end_txn.min_version, end_txn.max_version),
        (0, 5),
        "told at every level of transaction.version"
    );
}

/// KIP-848's groups, share groups and whatever else is not built must not slip in: a client uses what it is told of.
#[test]
fn nothing_is_told_of_that_is_not_in_this_list() {
    let mut bench = bench();
    let request = ApiVersionsRequest::default()
        .with_client_software_name(text("bench"))
        .with_client_software_version(text("1"));
    let response = expect!(ApiVersions, bench.ask(1, ApiKey::ApiVersions, 4, request));
    let name = |key: i16| format!("{key:>2} {:?}", ApiKey::try_from(key).expect("one of Kafka's"));
    let line = |key, from: i16, to: i16| format!("{} {from} to {to}", name(key));
    let mut told: Vec<_> =
        (response.api_keys.iter()).map(|key| line(key.api_key, key.min_version, key.max_version)).collect();
    told.sort();
    let mut controller: Vec<_> =
        CONTROLLER_APIS.iter().map(|served| line(served.api as i16, served.from, served.to)).collect();
    controller.sort();
    insta::assert_snapshot!(format!(
        "brokers tell clients of\n{}\n\nthe controller answers brokers\n{}",
        told.join("\n"),
        controller.join("\n")
    ));
    for key in [ApiKey::ConsumerGroupHeartbeat, ApiKey::ConsumerGroupDescribe] {
        assert!(response.api_keys.iter().all(|told| told.api_key != key as i16), "{key:?}");
    }
}

#[test]
fn clients_are_told_the_finalized_features() {
    let features = |bench: &mut Bench, version| {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(text("bench"))
            .with_client_software_version(text("1"));
        let response = expect!(ApiVersions, bench.ask(1, ApiKey::ApiVersions, version, request));
        let finalized = response.finalized_features.into_iter();
        let finalized: Vec<_> =
            finalized.map(|told| (told.name.to_string(), told.max_version_level)).collect();
        (finalized, response.supported_features.len())
    };
    let elr = ("eligible.leader.replicas.version".to_owned(), 1);
    let metadata = ("metadata.version".to_owned(), 27);
    let at = |level| ("transaction.version".to_owned(), level);
    let mut bench = Bench::new(1, &[]);
    assert_eq!(features(&mut bench, 3), (vec![elr.clone(), metadata.clone(), at(2)], 1));
    assert_eq!(features(&mut bench, 4), (vec![elr.clone(), metadata.clone(), at(2)], 4));
    let mut bench = Bench::with_features(1, &[], &[("transaction.version", 1)]);
    assert_eq!(features(&mut bench, 4).0, vec![elr.clone(), metadata.clone(), at(1)]);
    let mut bench = Bench::with_features(1, &[], &[("transaction.version", 0)]);
    assert_eq!(features(&mut bench, 4).0, vec![elr, metadata]);
}

#[test]
fn the_response_header_of_api_versions_is_always_version_0() {
    let mut bench = bench();
    let connection =
        bench.send(1, ApiKey::ApiVersions, 3, request(&mut Bench::new(1, &[]), ApiKey::ApiVersions, 3));
    // The bench decodes by the crate's rule, which is this one.
    assert_eq!(ApiKey::ApiVersions.response_header_version(3), 0);
    assert_eq!(error_of(&bench.response(connection)), 0);
    assert!(ApiVersionsResponse::decode(&mut Bytes::new(), 3).is_err());
}
