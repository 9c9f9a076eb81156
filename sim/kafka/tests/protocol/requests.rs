//! A request of each API and version that can succeed.

use kafka_protocol::messages::*;

use crate::support::transactional::*;
use crate::support::verbs::*;
use crate::support::{Bench, text};
use crate::topic_id;

/// A request of this API and version that can succeed on `bench`.
pub(crate) fn request(bench: &mut Bench, api: ApiKey, version: i16) -> RequestKind {
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
