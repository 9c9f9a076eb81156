//! What each API answers, in each version that is told of.

mod support;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable};
use shakedown_kafka::wire::BROKER_APIS;

use support::transactional::*;
use support::verbs::*;
use support::{Bench, Reply, text};

/// A leader's node id, whichever was drawn.
fn leader(bench: &Bench) -> i32 {
    bench.leader_of("orders", 0).0
}

fn bench() -> Bench {
    let mut bench = Bench::new(3, &[]);
    assert_eq!(bench.create_topic("orders", 3, &[]), 0);
    bench
}

fn topic_id(bench: &mut Bench) -> uuid::Uuid {
    let topic = MetadataRequestTopic::default().with_name(Some(topic_name("orders")));
    let request = MetadataRequest::default().with_topics(Some(vec![topic]));
    expect!(Metadata, bench.ask(1, ApiKey::Metadata, 12, request)).topics[0].topic_id
}

/// A request of this API and version that can succeed on `bench`.
fn request(bench: &mut Bench, api: ApiKey, version: i16) -> RequestKind {
    let group = GroupId(text("group"));
    match api {
        ApiKey::Produce => {
            let mut request = produce_request("orders", 0, 1, batch(&["a"]));
            if version >= 13 {
                request.topic_data[0].topic_id = topic_id(bench);
                request.topic_data[0].name = TopicName::default();
            }
            request.into()
        }
        ApiKey::Fetch => {
            let mut request = fetch_request("orders", 0, 0, 0, 1);
            if version >= 13 {
                request.topics[0].topic_id = topic_id(bench);
                request.topics[0].topic = TopicName::default();
            }
            request.into()
        }
        ApiKey::ListOffsets => {
            use list_offsets_request::*;
            let asked =
                vec![ListOffsetsPartition::default().with_timestamp(-1).with_current_leader_epoch(-1)];
            let topic = ListOffsetsTopic::default().with_name(topic_name("orders")).with_partitions(asked);
            ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]).into()
        }
        ApiKey::Metadata => {
            MetadataRequest::default().with_topics(if version == 0 { Some(vec![]) } else { None }).into()
        }
        ApiKey::OffsetCommit => {
            use offset_commit_request::*;
            let asked = OffsetCommitRequestPartition::default().with_committed_offset(3);
            let topic = OffsetCommitRequestTopic::default()
                .with_name(topic_name("orders"))
                .with_partitions(vec![asked]);
            let request = OffsetCommitRequest::default().with_group_id(group).with_topics(vec![topic]);
            request.with_generation_id_or_member_epoch(-1).into()
        }
        ApiKey::OffsetFetch => {
            use offset_fetch_request::*;
            if version < 8 {
                let topic = OffsetFetchRequestTopic::default()
                    .with_name(topic_name("orders"))
                    .with_partition_indexes(vec![0]);
                return OffsetFetchRequest::default()
                    .with_group_id(group)
                    .with_topics(Some(vec![topic]))
                    .into();
            }
            let asked = OffsetFetchRequestGroup::default().with_group_id(group).with_topics(None);
            OffsetFetchRequest::default().with_groups(vec![asked]).into()
        }
        ApiKey::FindCoordinator if version < 4 => {
            FindCoordinatorRequest::default().with_key(text("group")).into()
        }
        ApiKey::FindCoordinator => {
            FindCoordinatorRequest::default().with_coordinator_keys(vec![text("group")]).into()
        }
        ApiKey::JoinGroup => {
            let mut request = join_request(&format!("joined-{version}"), "");
            if version == 0 {
                request.rebalance_timeout_ms = -1;
            }
            request.into()
        }
        ApiKey::SyncGroup => {
            let request = SyncGroupRequest::default().with_group_id(group).with_member_id(text("nobody"));
            let named = (version >= 5).then(|| (text("consumer"), text("range"))).unzip();
            request.with_protocol_type(named.0).with_protocol_name(named.1).into()
        }
        ApiKey::Heartbeat => {
            HeartbeatRequest::default().with_group_id(group).with_member_id(text("nobody")).into()
        }
        ApiKey::LeaveGroup if version < 3 => {
            LeaveGroupRequest::default().with_group_id(group).with_member_id(text("nobody")).into()
        }
        ApiKey::LeaveGroup => {
            use leave_group_request::MemberIdentity;
            let members = vec![MemberIdentity::default().with_member_id(text("nobody"))];
            LeaveGroupRequest::default().with_group_id(group).with_members(members).into()
        }
        ApiKey::TxnOffsetCommit => {
            use txn_offset_commit_request::*;
            let asked = TxnOffsetCommitRequestPartition::default().with_committed_offset(3);
            let topic = TxnOffsetCommitRequestTopic::default()
                .with_name(topic_name("orders"))
                .with_partitions(vec![asked]);
            TxnOffsetCommitRequest::default()
                .with_transactional_id(TransactionalId(text("t")))
                .with_group_id(group)
                .with_producer_id(ProducerId(1))
                .with_topics(vec![topic])
                .into()
        }
        ApiKey::DescribeGroups => DescribeGroupsRequest::default().with_groups(vec![group]).into(),
        ApiKey::ListGroups => ListGroupsRequest::default().into(),
        ApiKey::DeleteGroups => {
            let gone = GroupId(text(&format!("gone-{version}")));
            DeleteGroupsRequest::default().with_groups_names(vec![gone]).into()
        }
        ApiKey::OffsetDelete => {
            use offset_delete_request::*;
            let partition = OffsetDeleteRequestPartition::default().with_partition_index(0);
            let topic = OffsetDeleteRequestTopic::default()
                .with_name(topic_name("orders"))
                .with_partitions(vec![partition]);
            OffsetDeleteRequest::default().with_group_id(group).with_topics(vec![topic]).into()
        }
        ApiKey::ApiVersions if version < 3 => ApiVersionsRequest::default().into(),
        ApiKey::ApiVersions => ApiVersionsRequest::default()
            .with_client_software_name(text("bench"))
            .with_client_software_version(text("1"))
            .into(),
        ApiKey::CreateTopics => {
            use create_topics_request::*;
            let topic = CreatableTopic::default()
                .with_name(topic_name(&format!("made-by-{version}")))
                .with_num_partitions(1)
                .with_replication_factor(1)
                .with_configs(vec![
                    CreatableTopicConfig::default()
                        .with_name(text("segment.ms"))
                        .with_value(Some(text("1000"))),
                ]);
            CreateTopicsRequest::default().with_topics(vec![topic]).into()
        }
        ApiKey::DeleteRecords => {
            use delete_records_request::*;
            let partition = DeleteRecordsPartition::default().with_partition_index(0).with_offset(-1);
            let topic = DeleteRecordsTopic::default()
                .with_name(topic_name("orders"))
                .with_partitions(vec![partition]);
            DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(1_000).into()
        }
        ApiKey::DeleteTopics if version < 6 => {
            DeleteTopicsRequest::default().with_topic_names(vec![topic_name("gone")]).into()
        }
        ApiKey::DeleteTopics => {
            let state =
                delete_topics_request::DeleteTopicState::default().with_name(Some(topic_name("gone")));
            DeleteTopicsRequest::default().with_topics(vec![state]).into()
        }
        ApiKey::OffsetForLeaderEpoch => {
            use offset_for_leader_epoch_request::*;
            let partition =
                OffsetForLeaderPartition::default().with_current_leader_epoch(-1).with_leader_epoch(0);
            let topic = OffsetForLeaderTopic::default().with_topic(topic_name("orders"));
            let topic = topic.with_partitions(vec![partition]);
            OffsetForLeaderEpochRequest::default().with_topics(vec![topic]).into()
        }
        ApiKey::InitProducerId => InitProducerIdRequest::default().with_transactional_id(None).into(),
        ApiKey::AddPartitionsToTxn => {
            use add_partitions_to_txn_request::*;
            let id = TransactionalId(text("nobody"));
            let topics = vec![
                AddPartitionsToTxnTopic::default().with_name(topic_name("orders")).with_partitions(vec![0]),
            ];
            if version < 4 {
                AddPartitionsToTxnRequest::default()
                    .with_v3_and_below_transactional_id(id)
                    .with_v3_and_below_topics(topics)
                    .into()
            } else {
                let asked =
                    AddPartitionsToTxnTransaction::default().with_transactional_id(id).with_topics(topics);
                AddPartitionsToTxnRequest::default().with_transactions(vec![asked]).into()
            }
        }
        ApiKey::AddOffsetsToTxn => AddOffsetsToTxnRequest::default()
            .with_transactional_id(TransactionalId(text("nobody")))
            .with_group_id(group)
            .into(),
        ApiKey::EndTxn => {
            EndTxnRequest::default().with_transactional_id(TransactionalId(text("nobody"))).into()
        }
        ApiKey::DescribeTransactions => DescribeTransactionsRequest::default()
            .with_transactional_ids(vec![TransactionalId(text("nobody"))])
            .into(),
        ApiKey::ListTransactions => ListTransactionsRequest::default().into(),
        ApiKey::DescribeCluster => DescribeClusterRequest::default().into(),
        ApiKey::WriteTxnMarkers => marker_request(("orders", 0), (7, 0), 0, true).into(),
        ApiKey::DescribeProducers => {
            use describe_producers_request::TopicRequest;
            let asked =
                TopicRequest::default().with_name(topic_name("orders")).with_partition_indexes(vec![0]);
            DescribeProducersRequest::default().with_topics(vec![asked]).into()
        }
        ApiKey::DescribeLogDirs => DescribeLogDirsRequest::default().with_topics(None).into(),
        ApiKey::DescribeTopicPartitions => DescribeTopicPartitionsRequest::default().into(),
        ApiKey::DescribeConfigs => {
            use describe_configs_request::DescribeConfigsResource;
            let topic = DescribeConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(text("orders"))
                .with_configuration_keys(None);
            DescribeConfigsRequest::default().with_resources(vec![topic]).into()
        }
        ApiKey::AlterConfigs => {
            use alter_configs_request::*;
            let config = AlterableConfig::default().with_name(text("flush.ms")).with_value(Some(text("5")));
            let topic =
                AlterConfigsResource::default().with_resource_type(2).with_resource_name(text("orders"));
            AlterConfigsRequest::default().with_resources(vec![topic.with_configs(vec![config])]).into()
        }
        ApiKey::IncrementalAlterConfigs => {
            use incremental_alter_configs_request::*;
            let config = AlterableConfig::default().with_name(text("flush.ms")).with_value(Some(text("5")));
            let topic =
                AlterConfigsResource::default().with_resource_type(2).with_resource_name(text("orders"));
            let resources = vec![topic.with_configs(vec![config])];
            IncrementalAlterConfigsRequest::default().with_resources(resources).into()
        }
        ApiKey::CreatePartitions => {
            use create_partitions_request::CreatePartitionsTopic;
            let more = CreatePartitionsTopic::default().with_name(topic_name("gone")).with_count(2);
            CreatePartitionsRequest::default().with_topics(vec![more.with_assignments(None)]).into()
        }
        ApiKey::ElectLeaders => {
            use elect_leaders_request::TopicPartitions;
            let topic = TopicPartitions::default().with_topic(topic_name("orders")).with_partitions(vec![0]);
            ElectLeadersRequest::default().with_topic_partitions(Some(vec![topic])).into()
        }
        other => panic!("{other:?} is served and not tested"),
    }
}

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

fn error_of(response: &ResponseKind) -> i16 {
    match response {
        ResponseKind::Produce(response) => response.responses[0].partition_responses[0].error_code,
        ResponseKind::Fetch(response) => response.responses[0].partitions[0].error_code,
        ResponseKind::ListOffsets(response) => response.topics[0].partitions[0].error_code,
        ResponseKind::Metadata(response) => {
            response.topics.iter().map(|topic| topic.error_code).max().unwrap()
        }
        ResponseKind::OffsetCommit(response) => response.topics[0].partitions[0].error_code,
        ResponseKind::OffsetFetch(response) => {
            let grouped = response.groups.first().map_or(0, |group| group.error_code);
            response.error_code.max(grouped)
        }
        ResponseKind::FindCoordinator(response) => {
            response.coordinators.first().map_or(response.error_code, |found| found.error_code)
        }
        ResponseKind::JoinGroup(response) => response.error_code,
        ResponseKind::SyncGroup(response) => response.error_code,
        ResponseKind::Heartbeat(response) => response.error_code,
        ResponseKind::LeaveGroup(response) => {
            response.members.first().map_or(response.error_code, |member| member.error_code)
        }
        ResponseKind::ApiVersions(response) => response.error_code,
        ResponseKind::CreateTopics(response) => response.topics[0].error_code,
        ResponseKind::DeleteTopics(response) => response.responses[0].error_code,
        ResponseKind::DescribeLogDirs(response) => response.results[0].error_code,
        ResponseKind::DescribeTopicPartitions(response) => response.topics[0].error_code,
        ResponseKind::DescribeConfigs(response) => response.results[0].error_code,
        ResponseKind::AlterConfigs(response) => response.responses[0].error_code,
        ResponseKind::IncrementalAlterConfigs(response) => response.responses[0].error_code,
        ResponseKind::DeleteRecords(response) => response.topics[0].partitions[0].error_code,
        ResponseKind::CreatePartitions(response) => response.results[0].error_code,
        ResponseKind::ElectLeaders(response) => {
            response.replica_election_results[0].partition_result[0].error_code
        }
        ResponseKind::OffsetForLeaderEpoch(response) => response.topics[0].partitions[0].error_code,
        ResponseKind::TxnOffsetCommit(response) => response.topics[0].partitions[0].error_code,
        ResponseKind::DescribeGroups(response) => response.groups[0].error_code,
        ResponseKind::ListGroups(response) => response.error_code,
        ResponseKind::DeleteGroups(response) => response.results[0].error_code,
        ResponseKind::OffsetDelete(response) => response.error_code,
        ResponseKind::InitProducerId(response) => response.error_code,
        ResponseKind::AddPartitionsToTxn(response) => {
            let batched = response.results_by_transaction.first().map(|result| &result.topic_results);
            let topics = batched.unwrap_or(&response.results_by_topic_v3_and_below);
            topics[0].results_by_partition[0].partition_error_code
        }
        ResponseKind::AddOffsetsToTxn(response) => response.error_code,
        ResponseKind::EndTxn(response) => response.error_code,
        ResponseKind::DescribeTransactions(response) => response.transaction_states[0].error_code,
        ResponseKind::ListTransactions(response) => response.error_code,
        ResponseKind::DescribeCluster(response) => response.error_code,
        ResponseKind::WriteTxnMarkers(response) => response.markers[0].topics[0].partitions[0].error_code,
        ResponseKind::DescribeProducers(response) => response.topics[0].partitions[0].error_code,
        other => panic!("{other:?}"),
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

#[test]
fn acks_0_is_not_answered_and_its_error_closes_the_connection() {
    let mut bench = bench();
    let node = leader(&bench);
    let connection = bench.send(node, ApiKey::Produce, 9, produce_request("orders", 0, 0, batch(&["a"])));
    assert!(matches!(bench.reply(connection), Some(Reply::Nothing)));
    let connection = bench.send(node, ApiKey::Produce, 9, produce_request("missing", 0, 0, batch(&["a"])));
    assert!(matches!(bench.reply(connection), Some(Reply::Closed(_))));
    let response = bench.ask(node, ApiKey::Produce, 9, produce_request("orders", 0, 7, batch(&["a"])));
    assert_eq!(error_of(&response), 21);
}

#[test]
fn a_fetch_waits_for_records_and_is_answered_by_them() {
    let mut bench = bench();
    let node = leader(&bench);
    let waiting = bench.send(node, ApiKey::Fetch, 12, fetch_request("orders", 0, 0, 500, 1));
    bench.advance(200);
    assert!(bench.reply(waiting).is_none());
    assert_eq!(bench.produce(node, "orders", 0, batch(&["a", "b"])), (0, 0));
    assert_eq!(fetched(bench.response(waiting)), (0, 2, vec![0, 1]));

    let waiting = bench.send(node, ApiKey::Fetch, 12, fetch_request("orders", 0, 2, 500, 1));
    bench.advance(499);
    assert!(bench.reply(waiting).is_none());
    bench.advance(1);
    assert_eq!(fetched(bench.response(waiting)), (0, 2, vec![]));
}

#[test]
fn a_fetch_from_inside_a_batch_gets_the_whole_batch_and_beyond_the_end_an_error() {
    let mut bench = bench();
    let node = leader(&bench);
    bench.produce(node, "orders", 0, batch(&["a", "b", "c"]));
    assert_eq!(bench.fetch(node, "orders", 0, 1), (0, 3, vec![0, 1, 2]));
    assert_eq!(bench.fetch(node, "orders", 0, 3), (0, 3, vec![]));
    assert_eq!(bench.fetch(node, "orders", 0, 4), (1, -1, vec![]));
}

#[test]
fn a_fetch_with_another_epoch_is_told_who_is_behind() {
    let mut bench = bench();
    let node = leader(&bench);
    let mut request = fetch_request("orders", 0, 0, 500, 1);
    request.topics[0].partitions[0].current_leader_epoch = 9;
    assert_eq!(fetched(bench.ask(node, ApiKey::Fetch, 12, request)).0, 75);
}

#[test]
fn zstd_is_unsupported_before_its_version() {
    use shakedown_kafka::log::batch::BatchHeader;
    use shakedown_kafka::log::compression::Codec;
    use shakedown_kafka::log::record;
    let mut bench = bench();
    let node = leader(&bench);
    let plain = batch(&["a"]);
    let header = BatchHeader::parse(&plain).unwrap();
    let records = record::read_all(&header, &plain).unwrap();
    let compressed = |codec: Codec| record::rewrite(&header.with_compression(codec as i16), records.clone());
    for (version, codec, error) in
        [(6, Codec::Lz4, 0), (6, Codec::Zstd, 76), (3, Codec::Zstd, 76), (7, Codec::Zstd, 0)]
    {
        let request = produce_request("orders", 0, 1, compressed(codec));
        let response = bench.ask(node, ApiKey::Produce, version, request);
        assert_eq!(error_of(&response), error, "{codec:?} in version {version}");
    }
}

/// What a reader of epoch `read` at `offset` hears: error, and where the logs part.
fn fetched_after(bench: &mut Bench, offset: i64, read: i32) -> (i16, i32, i64) {
    let node = leader(bench);
    let mut request = fetch_request("orders", 0, offset, 500, 1);
    request.topics[0].partitions[0].last_fetched_epoch = read;
    let response = expect!(Fetch, bench.ask(node, ApiKey::Fetch, 12, request));
    let data = &response.responses[0].partitions[0];
    (data.error_code, data.diverging_epoch.epoch, data.diverging_epoch.end_offset)
}

#[test]
fn a_reader_of_what_is_lost_is_told_where_the_logs_part() {
    let mut bench = bench();
    let node = leader(&bench);
    bench.produce(node, "orders", 0, batch(&["a", "b"]));
    assert_eq!(
        fetched_after(&mut bench, 5, -1),
        (1, -1, -1),
        "who does not say what it read is out of range"
    );
    assert_eq!(fetched_after(&mut bench, 5, 0), (0, 0, 2));
    assert_eq!(fetched_after(&mut bench, 1, 7), (1, -1, -1), "an epoch that never was here");
    assert_eq!(fetched_after(&mut bench, 1, 0), (0, -1, -1));
}

fn listed(bench: &mut Bench, version: i16, timestamp: i64) -> i16 {
    use list_offsets_request::*;
    let partition = ListOffsetsPartition::default().with_timestamp(timestamp).with_current_leader_epoch(-1);
    let topic = ListOffsetsTopic::default().with_name(topic_name("orders")).with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
    let node = leader(bench);
    let response = expect!(ListOffsets, bench.ask(node, ApiKey::ListOffsets, version, request));
    response.topics[0].partitions[0].error_code
}

#[test]
fn special_timestamps_are_unsupported_before_their_version() {
    let mut bench = bench();
    for (timestamp, first) in [(-3, 7), (-4, 8), (-5, 9)] {
        assert_eq!(listed(&mut bench, first - 1, timestamp), 35, "{timestamp} before version {first}");
        assert_eq!(listed(&mut bench, first, timestamp), 0, "{timestamp} in version {first}");
    }
    assert_eq!(listed(&mut bench, 10, -6), 35);
}

/// The errors of a commit without a member, partition by partition.
fn commit_errors(
    bench: &mut Bench,
    version: i16,
    group: &str,
    generation: i32,
    partitions: &[i32],
) -> Vec<i16> {
    use offset_commit_request::*;
    let node = bench.coordinator(group);
    let asked = |&index: &i32| {
        OffsetCommitRequestPartition::default().with_partition_index(index).with_committed_offset(3)
    };
    let topic = OffsetCommitRequestTopic::default()
        .with_name(topic_name("orders"))
        .with_partitions(partitions.iter().map(asked).collect());
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_generation_id_or_member_epoch(generation)
        .with_topics(vec![topic]);
    let response = expect!(OffsetCommit, bench.ask(node, ApiKey::OffsetCommit, version, request));
    response.topics[0].partitions.iter().map(|partition| partition.error_code).collect()
}

#[test]
fn a_commit_is_refused_with_the_code_of_its_version() {
    let mut bench = bench();
    assert_eq!(commit_errors(&mut bench, 8, "nobody", 4, &[0, 99]), [22, 3]);
    assert_eq!(commit_errors(&mut bench, 9, "nobody", 4, &[0, 99]), [69, 3]);
}

#[test]
fn the_group_without_a_name_commits_and_fetches_but_has_no_members() {
    let mut bench = bench();
    assert_eq!(commit_errors(&mut bench, 9, "", -1, &[0]), [0]);
    let node = bench.coordinator("");
    assert_eq!(bench.committed(node, "", "orders", 0), (0, 3));
    assert_eq!(bench.heartbeat(node, "", "", -1), 24);
}

#[test]
fn from_version_5_on_a_sync_names_the_groups_protocol() {
    let mut bench = bench();
    let node = bench.coordinator("group");
    let request = SyncGroupRequest::default().with_group_id(GroupId(text("group")));
    let named =
        request.clone().with_protocol_type(Some(text("consumer"))).with_protocol_name(Some(text("range")));
    for (request, code) in [(request, 23), (named, 25)] {
        let response = expect!(SyncGroup, bench.ask(node, ApiKey::SyncGroup, 5, request));
        assert_eq!(response.error_code, code);
    }
}

/// Versions 10 and 11 have a place for a topic's id in the question and none for a topic without a name in the answer.
#[test]
fn metadata_by_id_is_for_versions_that_can_answer_it() {
    let mut bench = bench();
    let id = topic_id(&mut bench);
    for (version, error) in [(10, 42), (11, 42), (12, 0)] {
        let topic = MetadataRequestTopic::default().with_name(None).with_topic_id(id);
        let request = MetadataRequest::default().with_topics(Some(vec![topic]));
        let response = expect!(Metadata, bench.ask(1, ApiKey::Metadata, version, request));
        assert_eq!(response.topics[0].error_code, error, "version {version}");
    }
    let unknown = MetadataRequestTopic::default().with_name(None).with_topic_id(uuid::Uuid::from_u128(7));
    let request = MetadataRequest::default().with_topics(Some(vec![unknown]));
    let response = expect!(Metadata, bench.ask(1, ApiKey::Metadata, 11, request));
    assert_eq!(response.topics[0].error_code, 42);
}

#[test]
fn offsets_are_listed_by_time_to_the_record() {
    use list_offsets_request::*;
    let mut bench = bench();
    let node = leader(&bench);
    let start = support::START.as_millis() as i64;
    bench.produce(node, "orders", 0, batch(&["a", "b"]));
    let later =
        shakedown_kafka::log::record::write_batch(start + 50, &[(None, Some(Bytes::from_static(b"c")))]);
    bench.produce(node, "orders", 0, later);
    for (asked, offset) in
        [(-1, 3), (-2, 0), (start, 0), (start + 1, 2), (start + 51, -1), (-3, 2), (-4, 0), (-5, -1)]
    {
        let partition = ListOffsetsPartition::default().with_timestamp(asked).with_current_leader_epoch(-1);
        let topic =
            ListOffsetsTopic::default().with_name(topic_name("orders")).with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
        let response = expect!(ListOffsets, bench.ask(node, ApiKey::ListOffsets, 9, request));
        assert_eq!(response.topics[0].partitions[0].offset, offset, "asked for {asked}");
    }
}

#[test]
fn a_topic_that_a_client_names_is_made_if_it_may_be() {
    let mut bench = Bench::new(2, &[("num.partitions", "4")]);
    let ask = |bench: &mut Bench, name: &str, allow| {
        let topic = MetadataRequestTopic::default().with_name(Some(topic_name(name)));
        let request =
            MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(allow);
        expect!(Metadata, bench.ask(1, ApiKey::Metadata, 9, request)).topics[0].clone()
    };
    assert_eq!(ask(&mut bench, "fresh", false).error_code, 3);
    assert_eq!(ask(&mut bench, "fresh", false).error_code, 3, "nobody allowed it");
    assert_eq!(ask(&mut bench, "fresh", true).error_code, 3, "it is asked for, and not there yet");
    let made = ask(&mut bench, "fresh", true);
    assert_eq!((made.error_code, made.partitions.len()), (0, 4));
    assert_eq!(ask(&mut bench, "not/legal", true).error_code, 17);

    let mut bench = Bench::new(1, &[("auto.create.topics.enable", "false")]);
    for _ in 0..3 {
        assert_eq!(ask(&mut bench, "fresh", true).error_code, 3);
    }
}

#[test]
fn topics_are_refused_with_kafkas_codes() {
    let mut bench = bench();
    assert_eq!(bench.create_topic("orders", 1, &[]), 36);
    assert_eq!(bench.create_topic("no spaces", 1, &[]), 17);
    assert_eq!(bench.create_topic("order_events", 1, &[]), 0);
    assert_eq!(bench.create_topic("order.events", 1, &[]), 17, "both are order_events to Kafka's metrics");
    assert_eq!(bench.create_topic("none", 0, &[]), 37);
    assert_eq!(bench.create_topic("huge", i32::MAX, &[]), 44);
    assert_eq!(bench.create_topic("odd", 1, &[("no.such", "1")]), 40);
    assert_eq!(bench.create_topic("odd", 1, &[("cleanup.policy", "burn")]), 40);
    assert_eq!(bench.create_topic("fine", 1, &[("cleanup.policy", "compact")]), 0);
}

#[test]
fn leaders_go_round_the_brokers() {
    let bench = bench();
    let leaders: std::collections::BTreeSet<_> =
        (0..3).map(|partition| bench.leader_of("orders", partition).0).collect();
    assert_eq!(leaders.len(), 3);
}

#[test]
fn a_deleted_topic_takes_its_records_and_its_commits_along() {
    let mut bench = bench();
    let (node, coordinator) = (leader(&bench), bench.coordinator("group"));
    bench.produce(node, "orders", 0, batch(&["a"]));
    assert_eq!(bench.commit(coordinator, "group", "", -1, ("orders", 0, 1)), 0);
    assert_eq!(bench.committed(coordinator, "group", "orders", 0), (0, 1));
    let request = DeleteTopicsRequest::default().with_topic_names(vec![topic_name("orders")]);
    assert_eq!(error_of(&bench.ask(1, ApiKey::DeleteTopics, 5, request)), 0);
    assert_eq!(bench.produce(node, "orders", 0, batch(&["a"])).0, 3);
    assert_eq!(bench.create_topic("orders", 3, &[]), 0);
    let node = leader(&bench);
    assert_eq!(bench.fetch(node, "orders", 0, 0), (0, 0, vec![]));
    assert_eq!(bench.committed(coordinator, "group", "orders", 0), (0, -1));
}

#[test]
fn groups_go_with_the_offsets_topic() {
    let mut bench = bench();
    let coordinator = bench.coordinator("group");
    let (_, joining) = bench.join(coordinator, "group");
    assert_eq!(bench.commit(coordinator, "simple", "", -1, ("orders", 0, 1)), 16, "it lives elsewhere");
    let request = DeleteTopicsRequest::default().with_topic_names(vec![topic_name("__consumer_offsets")]);
    assert_eq!(error_of(&bench.ask(1, ApiKey::DeleteTopics, 5, request)), 0);
    assert_eq!(error_of(&bench.response(joining)), 16, "who waits is told");
    assert_eq!(bench.commit(coordinator, "group", "", -1, ("orders", 0, 1)), 16);
    bench.advance(60_000);
    let again = bench.coordinator("group");
    assert_eq!(bench.committed(again, "group", "orders", 0), (0, -1));
}

#[test]
fn producer_ids_are_never_given_twice() {
    let mut bench = bench();
    let mut given = std::collections::BTreeSet::new();
    for node in [1, 2, 3, 1, 2, 3] {
        let (id, epoch) = bench.producer_id(node);
        assert_eq!(epoch, 0);
        assert!(given.insert(id));
    }
}

#[test]
fn the_first_producer_of_a_broker_comes_again() {
    // RPCProducerIdManager has no block yet, and does not let clients wait for it.
    let mut bench = bench();
    let request = || InitProducerIdRequest::default().with_transactional_id(None);
    assert_eq!(error_of(&bench.ask(1, ApiKey::InitProducerId, 4, request())), 14);
    assert_eq!(error_of(&bench.ask(1, ApiKey::InitProducerId, 4, request())), 0);
    // A producer id without an epoch is neither a new producer nor one that goes on.
    let half = request().with_producer_id(ProducerId(5)).with_producer_epoch(-1);
    assert_eq!(error_of(&bench.ask(1, ApiKey::InitProducerId, 4, half)), 42);
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
