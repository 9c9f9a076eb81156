//! Frames that say more than they have, and frames that are as they should be.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Encodable, StrBytes};
use proptest::prelude::*;
use uuid::Uuid;

use super::super::{BROKER_APIS, CONTROLLER_APIS, Request, Unreadable};
use super::*;

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn topic() -> TopicName {
    TopicName(text("topic"))
}

/// A request with something in every array that this version has.
fn full(api: ApiKey, v: i16) -> RequestKind {
    let group = GroupId(text("group"));
    match api {
        ApiKey::Produce => {
            use produce_request::*;
            let partition = PartitionProduceData::default()
                .with_index(1)
                .with_records(Some(Bytes::from_static(b"records")));
            let mut data =
                TopicProduceData::default().with_partition_data(vec![partition.clone(), partition]);
            if v < 13 {
                data.name = topic()
            } else {
                data.topic_id = Uuid::from_u128(7)
            }
            ProduceRequest::default()
                .with_topic_data(vec![data])
                .with_transactional_id(Some(TransactionalId(text("t"))))
                .into()
        }
        ApiKey::Fetch => {
            use fetch_request::*;
            let mut partition = FetchPartition::default().with_fetch_offset(5);
            if v >= 17 {
                partition.replica_directory_id = Uuid::from_u128(9)
            }
            if v >= 18 {
                partition.high_watermark = 4
            }
            let mut asked = FetchTopic::default().with_partitions(vec![partition]);
            if v < 13 {
                asked.topic = topic()
            } else {
                asked.topic_id = Uuid::from_u128(7)
            }
            let mut request = FetchRequest::default().with_topics(vec![asked]);
            if v >= 7 {
                let mut forgotten = ForgottenTopic::default().with_partitions(vec![1, 2]);
                if v < 13 {
                    forgotten.topic = topic()
                } else {
                    forgotten.topic_id = Uuid::from_u128(7)
                }
                request.forgotten_topics_data = vec![forgotten];
            }
            if v >= 11 {
                request.rack_id = text("rack")
            }
            if v >= 12 {
                request.cluster_id = Some(text("cluster"))
            }
            if v >= 15 {
                request.replica_state =
                    ReplicaState::default().with_replica_id(BrokerId(3)).with_replica_epoch(4)
            } else {
                request.replica_id = BrokerId(3)
            }
            request.into()
        }
        ApiKey::ListOffsets => {
            use list_offsets_request::*;
            let partitions = vec![ListOffsetsPartition::default().with_timestamp(-1)];
            ListOffsetsRequest::default()
                .with_topics(vec![ListOffsetsTopic::default().with_name(topic()).with_partitions(partitions)])
                .into()
        }
        ApiKey::Metadata => {
            use metadata_request::*;
            MetadataRequest::default()
                .with_topics(Some(vec![MetadataRequestTopic::default().with_name(Some(topic()))]))
                .into()
        }
        ApiKey::OffsetCommit => {
            use offset_commit_request::*;
            let partitions =
                vec![OffsetCommitRequestPartition::default().with_committed_metadata(Some(text("m")))];
            let topics =
                vec![OffsetCommitRequestTopic::default().with_name(topic()).with_partitions(partitions)];
            OffsetCommitRequest::default().with_group_id(group).with_topics(topics).into()
        }
        ApiKey::OffsetFetch => {
            use offset_fetch_request::*;
            if v < 8 {
                let topics = vec![
                    OffsetFetchRequestTopic::default().with_name(topic()).with_partition_indexes(vec![1, 2]),
                ];
                return OffsetFetchRequest::default().with_group_id(group).with_topics(Some(topics)).into();
            }
            let topics = vec![
                OffsetFetchRequestTopics::default().with_name(topic()).with_partition_indexes(vec![1, 2]),
            ];
            OffsetFetchRequest::default()
                .with_groups(vec![
                    OffsetFetchRequestGroup::default().with_group_id(group).with_topics(Some(topics)),
                ])
                .into()
        }
        ApiKey::FindCoordinator if v < 4 => FindCoordinatorRequest::default().with_key(text("group")).into(),
        ApiKey::FindCoordinator => {
            FindCoordinatorRequest::default().with_coordinator_keys(vec![text("a"), text("b")]).into()
        }
        ApiKey::JoinGroup => {
            use join_group_request::*;
            let protocol = JoinGroupRequestProtocol::default()
                .with_name(text("range"))
                .with_metadata(Bytes::from_static(b"subscription"));
            JoinGroupRequest::default().with_group_id(group).with_protocols(vec![protocol]).into()
        }
        ApiKey::Heartbeat => {
            HeartbeatRequest::default().with_group_id(group).with_member_id(text("member")).into()
        }
        ApiKey::LeaveGroup if v < 3 => {
            LeaveGroupRequest::default().with_group_id(group).with_member_id(text("member")).into()
        }
        ApiKey::LeaveGroup => {
            use leave_group_request::*;
            LeaveGroupRequest::default()
                .with_group_id(group)
                .with_members(vec![MemberIdentity::default().with_member_id(text("member"))])
                .into()
        }
        ApiKey::SyncGroup => {
            use sync_group_request::*;
            let assignment = SyncGroupRequestAssignment::default()
                .with_member_id(text("member"))
                .with_assignment(Bytes::from_static(b"a"));
            SyncGroupRequest::default().with_group_id(group).with_assignments(vec![assignment]).into()
        }
        ApiKey::DescribeGroups => DescribeGroupsRequest::default().with_groups(vec![group]).into(),
        ApiKey::ListGroups => {
            let mut request = ListGroupsRequest::default();
            if v >= 4 {
                request.states_filter = vec![text("Stable")];
            }
            if v >= 5 {
                request.types_filter = vec![text("classic")];
            }
            request.into()
        }
        ApiKey::DeleteGroups => DeleteGroupsRequest::default().with_groups_names(vec![group]).into(),
        ApiKey::OffsetDelete => {
            use offset_delete_request::*;
            let partition = OffsetDeleteRequestPartition::default().with_partition_index(1);
            let asked =
                OffsetDeleteRequestTopic::default().with_name(topic()).with_partitions(vec![partition]);
            OffsetDeleteRequest::default().with_group_id(group).with_topics(vec![asked]).into()
        }
        ApiKey::TxnOffsetCommit => {
            use txn_offset_commit_request::*;
            let partition = TxnOffsetCommitRequestPartition::default().with_committed_offset(5);
            let asked =
                TxnOffsetCommitRequestTopic::default().with_name(topic()).with_partitions(vec![partition]);
            let mut request = TxnOffsetCommitRequest::default()
                .with_transactional_id(TransactionalId(text("t")))
                .with_group_id(group)
                .with_topics(vec![asked]);
            if v >= 3 {
                request.member_id = text("member");
            }
            request.into()
        }
        ApiKey::ApiVersions if v < 3 => ApiVersionsRequest::default().into(),
        ApiKey::ApiVersions => ApiVersionsRequest::default()
            .with_client_software_name(text("n"))
            .with_client_software_version(text("1"))
            .into(),
        ApiKey::CreateTopics => {
            use create_topics_request::*;
            let assignment = CreatableReplicaAssignment::default().with_broker_ids(vec![BrokerId(1)]);
            let config = CreatableTopicConfig::default().with_name(text("a")).with_value(Some(text("b")));
            let topics = vec![
                CreatableTopic::default()
                    .with_name(topic())
                    .with_assignments(vec![assignment])
                    .with_configs(vec![config]),
            ];
            CreateTopicsRequest::default().with_topics(topics).into()
        }
        ApiKey::DeleteRecords => {
            let partition = delete_records_request::DeleteRecordsPartition::default().with_offset(-1);
            let topic = delete_records_request::DeleteRecordsTopic::default()
                .with_name(topic())
                .with_partitions(vec![partition]);
            DeleteRecordsRequest::default().with_topics(vec![topic]).into()
        }
        ApiKey::DeleteTopics if v < 6 => {
            DeleteTopicsRequest::default().with_topic_names(vec![topic()]).into()
        }
        ApiKey::DeleteTopics => DeleteTopicsRequest::default()
            .with_topics(vec![delete_topics_request::DeleteTopicState::default().with_name(Some(topic()))])
            .into(),
        ApiKey::OffsetForLeaderEpoch => {
            use offset_for_leader_epoch_request::*;
            let partition = OffsetForLeaderPartition::default().with_leader_epoch(3);
            let asked = OffsetForLeaderTopic::default().with_topic(topic());
            let asked = asked.with_partitions(vec![partition.clone(), partition]);
            OffsetForLeaderEpochRequest::default().with_topics(vec![asked]).into()
        }
        ApiKey::InitProducerId => {
            InitProducerIdRequest::default().with_transactional_id(Some(TransactionalId(text("t")))).into()
        }
        ApiKey::AddPartitionsToTxn => {
            use add_partitions_to_txn_request::*;
            let topics =
                vec![AddPartitionsToTxnTopic::default().with_name(topic()).with_partitions(vec![1, 2])];
            let id = TransactionalId(text("t"));
            if v < 4 {
                return AddPartitionsToTxnRequest::default()
                    .with_v3_and_below_transactional_id(id)
                    .with_v3_and_below_topics(topics)
                    .into();
            }
            let transaction =
                AddPartitionsToTxnTransaction::default().with_transactional_id(id).with_topics(topics);
            AddPartitionsToTxnRequest::default().with_transactions(vec![transaction]).into()
        }
        ApiKey::AddOffsetsToTxn => AddOffsetsToTxnRequest::default().with_group_id(group).into(),
        ApiKey::EndTxn => EndTxnRequest::default().with_transactional_id(TransactionalId(text("t"))).into(),
        ApiKey::DescribeTransactions => DescribeTransactionsRequest::default()
            .with_transactional_ids(vec![TransactionalId(text("t"))])
            .into(),
        ApiKey::ListTransactions => {
            let mut request = ListTransactionsRequest::default()
                .with_state_filters(vec![text("Empty")])
                .with_producer_id_filters(vec![ProducerId(7)]);
            if v >= 2 {
                request.transactional_id_pattern = Some(text("t.*"));
            }
            request.into()
        }
        ApiKey::WriteTxnMarkers => {
            use write_txn_markers_request::*;
            let of_topic =
                WritableTxnMarkerTopic::default().with_name(topic()).with_partition_indexes(vec![1, 2]);
            let marker = WritableTxnMarker::default().with_topics(vec![of_topic]);
            WriteTxnMarkersRequest::default().with_markers(vec![marker]).into()
        }
        ApiKey::DescribeProducers => {
            use describe_producers_request::*;
            let of_topic = TopicRequest::default().with_name(topic()).with_partition_indexes(vec![1, 2]);
            DescribeProducersRequest::default().with_topics(vec![of_topic]).into()
        }
        ApiKey::DescribeCluster => DescribeClusterRequest::default().into(),
        ApiKey::DescribeLogDirs => {
            use describe_log_dirs_request::*;
            let asked = DescribableLogDirTopic::default().with_topic(topic()).with_partitions(vec![1, 2]);
            DescribeLogDirsRequest::default().with_topics(Some(vec![asked])).into()
        }
        ApiKey::DescribeTopicPartitions => {
            use describe_topic_partitions_request::*;
            let cursor = Cursor::default().with_topic_name(topic());
            DescribeTopicPartitionsRequest::default()
                .with_topics(vec![TopicRequest::default().with_name(topic())])
                .with_cursor(Some(cursor))
                .into()
        }
        ApiKey::DescribeConfigs => {
            use describe_configs_request::*;
            let keys = Some(vec![text("a"), text("b")]);
            let asked = DescribeConfigsResource::default().with_configuration_keys(keys);
            DescribeConfigsRequest::default().with_resources(vec![asked]).into()
        }
        ApiKey::AlterConfigs => {
            use alter_configs_request::*;
            let config = AlterableConfig::default().with_name(text("a")).with_value(Some(text("b")));
            let asked = AlterConfigsResource::default().with_configs(vec![config]);
            AlterConfigsRequest::default().with_resources(vec![asked]).into()
        }
        ApiKey::IncrementalAlterConfigs => {
            use incremental_alter_configs_request::*;
            let config = AlterableConfig::default().with_name(text("a")).with_value(Some(text("b")));
            let asked = AlterConfigsResource::default().with_configs(vec![config]);
            IncrementalAlterConfigsRequest::default().with_resources(vec![asked]).into()
        }
        ApiKey::CreatePartitions => {
            use create_partitions_request::*;
            let assignment = CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(1)]);
            let topics = vec![
                CreatePartitionsTopic::default().with_name(topic()).with_assignments(Some(vec![assignment])),
            ];
            CreatePartitionsRequest::default().with_topics(topics).into()
        }
        ApiKey::ElectLeaders => {
            use elect_leaders_request::*;
            let topics = vec![TopicPartitions::default().with_topic(topic()).with_partitions(vec![1, 2])];
            ElectLeadersRequest::default().with_topic_partitions(Some(topics)).into()
        }
        ApiKey::AlterPartition => {
            use alter_partition_request::*;
            let mut partition = PartitionData::default();
            if v < 3 {
                partition.new_isr = vec![BrokerId(1), BrokerId(2)];
            } else {
                partition.new_isr_with_epochs = vec![BrokerState::default(), BrokerState::default()];
            }
            let topics = vec![TopicData::default().with_partitions(vec![partition])];
            AlterPartitionRequest::default().with_topics(topics).into()
        }
        ApiKey::BrokerRegistration => {
            use broker_registration_request::*;
            let request = BrokerRegistrationRequest::default()
                .with_listeners(vec![Listener::default().with_name(text("l"))]);
            request.with_features(vec![Feature::default()]).with_log_dirs(vec![Uuid::from_u128(1)]).into()
        }
        ApiKey::BrokerHeartbeat => {
            BrokerHeartbeatRequest::default().with_offline_log_dirs(vec![Uuid::from_u128(1)]).into()
        }
        ApiKey::AllocateProducerIds => AllocateProducerIdsRequest::default().into(),
        _ => unreachable!("served APIs only"),
    }
}

fn frame(api: ApiKey, version: i16) -> BytesMut {
    let header = RequestHeader::default()
        .with_request_api_key(api as i16)
        .with_request_api_version(version)
        .with_correlation_id(5)
        .with_client_id(Some(text("client")));
    let mut frame = BytesMut::new();
    header.encode(&mut frame, api.request_header_version(version)).unwrap();
    full(api, version).encode(&mut frame, version).unwrap();
    frame
}

fn every_version() -> Vec<(ApiKey, i16)> {
    let served = BROKER_APIS.iter().chain(CONTROLLER_APIS);
    served.flat_map(|served| (served.from..=served.to).map(|version| (served.api, version))).collect()
}

#[test]
fn the_walk_takes_exactly_what_the_codec_wrote() {
    for (api, version) in every_version() {
        let frame = frame(api, version);
        check(api, version, &frame).unwrap_or_else(|error| panic!("{api:?} {version}: {error}"));
        // Every shorter frame is refused: so the walk went to the last byte, in every version.
        for length in 0..frame.len() {
            assert!(check(api, version, &frame[..length]).is_err(), "{api:?} {version} cut to {length}");
        }
    }
}

/// Metadata version 0, an array of 2,147,483,647 topics, no topic: 154 GB to the codec.
#[test]
fn the_bytes_that_aborted_the_codec_are_refused() {
    let mut evil = vec![0, 3, 0, 0, 0, 0, 0, 1, 0xff, 0xff];
    evil.extend_from_slice(&i32::MAX.to_be_bytes());
    assert!(Request::read(&Bytes::from(evil), BROKER_APIS).is_err());
}

#[test]
fn an_array_that_lies_at_any_depth_is_refused() {
    for (api, version) in every_version() {
        let frame = frame(api, version);
        for at in 8..frame.len().saturating_sub(4) {
            let mut evil = frame.clone();
            evil[at..at + 4].copy_from_slice(&i32::MAX.to_be_bytes());
            // Whether it is refused depends on what was overwritten; that it comes back at all is the claim.
            Request::read(&evil.freeze(), CONTROLLER_APIS).ok();
            let mut evil = frame.clone();
            evil[at..at + 4].copy_from_slice(&[0xff, 0xff, 0xff, 0x7f]);
            Request::read(&evil.freeze(), BROKER_APIS).ok();
        }
    }
}

/// A Metadata request for topics without a name, two bytes each (version 9: a compact text and no tagged fields).
fn metadata_of(topics: usize) -> Bytes {
    let mut frame = vec![0, 3, 0, 9, 0, 0, 0, 1, 0xff, 0xff, 0];
    let mut length = topics + 1;
    while length >= 0x80 {
        frame.push(length as u8 | 0x80);
        length >>= 7;
    }
    frame.push(length as u8);
    frame.extend(std::iter::repeat_n([1, 0], topics).flatten());
    frame.extend([1, 0, 0, 0]);
    frame.into()
}

#[test]
fn a_small_frame_with_a_million_elements_is_refused() {
    let read = |topics| Request::read(&metadata_of(topics), BROKER_APIS).map(drop);
    read(ELEMENTS_MAX).unwrap();
    let error = read(ELEMENTS_MAX + 1).unwrap_err();
    assert_eq!(error, Unreadable::Close(Malformed::TooMany));
}

#[test]
fn tagged_fields_are_elements_too() {
    let frame = |fields: usize| {
        let mut frame = frame(ApiKey::ApiVersions, 3).to_vec();
        assert_eq!(frame.pop(), Some(0), "it has no tagged fields of its own");
        let count = fields as u32;
        frame.extend([
            count as u8 | 0x80,
            (count >> 7) as u8 | 0x80,
            (count >> 14) as u8 | 0x80,
            (count >> 21) as u8,
        ]);
        frame.extend(std::iter::repeat_n([100, 0], fields).flatten());
        frame
    };
    assert_eq!(check(ApiKey::ApiVersions, 3, &frame(ELEMENTS_MAX)), Ok(()));
    assert_eq!(check(ApiKey::ApiVersions, 3, &frame(ELEMENTS_MAX + 1)), Err(Malformed::TooMany));
}

/// InitProducerId version 2 is the first with compact text, whose length could be any: Kafka's generated readers say
/// "string field transactionalId had invalid length".
#[test]
fn text_that_is_longer_than_kafkas_longest_is_refused() {
    let frame = |length: usize| {
        let id = TransactionalId(StrBytes::from_string("t".repeat(length)));
        let request = InitProducerIdRequest::default().with_transactional_id(Some(id));
        let (api, version) = (ApiKey::InitProducerId, 2);
        let header = RequestHeader::default()
            .with_request_api_key(api as i16)
            .with_request_api_version(version)
            .with_client_id(Some(text("client")));
        let mut frame = BytesMut::new();
        header.encode(&mut frame, api.request_header_version(version)).unwrap();
        request.encode(&mut frame, version).unwrap();
        frame.freeze()
    };
    let read = |length| Request::read(&frame(length), BROKER_APIS).map(drop);
    read(32_767).unwrap();
    assert_eq!(read(32_768).unwrap_err(), Unreadable::Close(Malformed::TooLong(32_768)));
}

#[test]
fn a_frame_shorter_than_a_header_is_refused() {
    for length in 0..8 {
        assert!(Request::read(&Bytes::from(vec![0; length]), BROKER_APIS).is_err());
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(which in any::<prop::sample::Index>(), tail in proptest::collection::vec(any::<u8>(), 0..100)) {
        let all = every_version();
        let (api, version) = all[which.index(all.len())];
        let mut frame = vec![0, api as u8];
        frame.extend_from_slice(&version.to_be_bytes());
        frame.extend_from_slice(&tail);
        Request::read(&Bytes::from(frame.clone()), BROKER_APIS).ok();
        Request::read(&Bytes::from(frame), CONTROLLER_APIS).ok();
    }
}
