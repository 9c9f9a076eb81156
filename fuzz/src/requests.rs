//! Requests that a broker or the controller understands and, for the most part, fulfils: on each there is something to do.
//!
//! Each API has its default, and some that name what is on the stage. Not every field is in every version: a request that
//! a version cannot say is left out there.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use shakedown_kafka::CLUSTER_ID;
use shakedown_kafka::log::batch::BatchHeader;
use uuid::Uuid;

use crate::Listener;
use crate::batches::{CODECS, compressed};
use crate::stage::{COMPACTED, GROUP, Known, TOPIC, TRANSACTION};
use crate::support::transactional::marker_request;
use crate::support::transactions::{transactional, transactional_id};
use crate::support::verbs::*;
use crate::support::{START, text};

/// The bodies of this API's requests that this version can say; the default comes first.
pub(crate) fn bodies(listener: Listener, api: ApiKey, version: i16, known: &Known) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    for request in requests(listener, api, known) {
        let mut body = BytesMut::new();
        if request.encode(&mut body, version).is_ok() {
            bodies.push(body.to_vec());
        }
    }
    bodies
}

fn group() -> GroupId {
    GroupId(text(GROUP))
}

fn name() -> TopicName {
    topic_name(TOPIC)
}

fn null() -> Option<StrBytes> {
    None
}

fn requests(listener: Listener, api: ApiKey, known: &Known) -> Vec<RequestKind> {
    match (api, listener) {
        (ApiKey::Produce, _) => produces(known),
        (ApiKey::Fetch, Listener::Broker) => fetches(known),
        (ApiKey::Fetch, Listener::Controller) => metadata_fetches(),
        (ApiKey::ListOffsets, _) => list_offsets(),
        (ApiKey::Metadata, _) => metadata(known),
        (ApiKey::OffsetCommit, _) => offset_commits(known),
        (ApiKey::OffsetFetch, _) => offset_fetches(known),
        (ApiKey::FindCoordinator, _) => find_coordinators(),
        (ApiKey::JoinGroup, _) => joins(known),
        (ApiKey::SyncGroup, _) => syncs(known),
        (ApiKey::Heartbeat, _) => heartbeats(known),
        (ApiKey::LeaveGroup, _) => leaves(known),
        (ApiKey::DescribeGroups, _) => {
            let groups = DescribeGroupsRequest::default().with_groups(vec![group(), group()]);
            let more = groups.clone().with_include_authorized_operations(true);
            vec![DescribeGroupsRequest::default().into(), groups.into(), more.into()]
        }
        (ApiKey::ListGroups, _) => {
            let of_state = ListGroupsRequest::default().with_states_filter(vec![text("Stable")]);
            let of_type = of_state.clone().with_types_filter(vec![text("classic")]);
            let all = ListGroupsRequest::default();
            vec![all.clone().into(), all.into(), of_state.into(), of_type.into()]
        }
        (ApiKey::DeleteGroups, _) => {
            let groups = DeleteGroupsRequest::default().with_groups_names(vec![group()]);
            vec![DeleteGroupsRequest::default().into(), groups.into()]
        }
        (ApiKey::OffsetDelete, _) => {
            use offset_delete_request::*;
            let partition = OffsetDeleteRequestPartition::default();
            let topic =
                OffsetDeleteRequestTopic::default().with_name(name()).with_partitions(vec![partition]);
            let asked = OffsetDeleteRequest::default().with_group_id(group()).with_topics(vec![topic]);
            vec![OffsetDeleteRequest::default().into(), asked.into()]
        }
        (ApiKey::TxnOffsetCommit, _) => txn_offset_commits(known),
        (ApiKey::ApiVersions, _) => {
            let named = ApiVersionsRequest::default()
                .with_client_software_name(text("fuzz"))
                .with_client_software_version(text("1.0"));
            vec![ApiVersionsRequest::default().into(), ApiVersionsRequest::default().into(), named.into()]
        }
        (ApiKey::CreateTopics, _) => create_topics(),
        (ApiKey::DeleteTopics, _) => delete_topics(known),
        (ApiKey::DeleteRecords, _) => {
            use delete_records_request::*;
            let partition = |offset| DeleteRecordsPartition::default().with_offset(offset);
            let topic = DeleteRecordsTopic::default()
                .with_name(name())
                .with_partitions(vec![partition(1), partition(-1)]);
            let asked = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(1_000);
            vec![DeleteRecordsRequest::default().into(), asked.into()]
        }
        (ApiKey::InitProducerId, _) => init_producer_ids(known),
        (ApiKey::OffsetForLeaderEpoch, _) => {
            use offset_for_leader_epoch_request::*;
            let partition =
                OffsetForLeaderPartition::default().with_current_leader_epoch(-1).with_leader_epoch(0);
            let topic = OffsetForLeaderTopic::default().with_topic(name()).with_partitions(vec![partition]);
            let asked = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
            let follower = asked.clone().with_replica_id(BrokerId(1));
            vec![OffsetForLeaderEpochRequest::default().into(), asked.into(), follower.into()]
        }
        (ApiKey::AddPartitionsToTxn, _) => add_partitions(known),
        (ApiKey::AddOffsetsToTxn, _) => {
            let asked = AddOffsetsToTxnRequest::default()
                .with_transactional_id(transactional_id(TRANSACTION))
                .with_producer_id(ProducerId(known.transactional.id))
                .with_producer_epoch(known.transactional.epoch)
                .with_group_id(group());
            vec![AddOffsetsToTxnRequest::default().into(), asked.into()]
        }
        (ApiKey::EndTxn, _) => {
            let asked = EndTxnRequest::default()
                .with_transactional_id(transactional_id(TRANSACTION))
                .with_producer_id(ProducerId(known.transactional.id))
                .with_producer_epoch(known.transactional.epoch);
            let committed = asked.clone().with_committed(true);
            vec![EndTxnRequest::default().into(), asked.into(), committed.into()]
        }
        (ApiKey::WriteTxnMarkers, _) => {
            let producer = (known.transactional.id, known.transactional.epoch);
            let marker = |committed| marker_request((TOPIC, 0), producer, 0, committed);
            let offsets = marker_request(("__consumer_offsets", 0), producer, 0, true);
            let default = WriteTxnMarkersRequest::default();
            vec![default.into(), marker(true).into(), marker(false).into(), offsets.into()]
        }
        (ApiKey::DescribeTransactions, _) => {
            let ids = vec![transactional_id(TRANSACTION), transactional_id("nobody")];
            let asked = DescribeTransactionsRequest::default().with_transactional_ids(ids);
            vec![DescribeTransactionsRequest::default().into(), asked.into()]
        }
        (ApiKey::ListTransactions, _) => {
            let asked = ListTransactionsRequest::default()
                .with_state_filters(vec![text("Ongoing")])
                .with_producer_id_filters(vec![ProducerId(known.transactional.id)]);
            let lasting = asked.clone().with_duration_filter(5);
            let like = lasting.clone().with_transactional_id_pattern(Some(text("(x|y)+[a-c]*.?")));
            vec![ListTransactionsRequest::default().into(), asked.into(), lasting.into(), like.into()]
        }
        (ApiKey::DescribeCluster, _) => {
            let asked = DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
            let controllers = asked.clone().with_endpoint_type(2);
            let fenced = asked.clone().with_include_fenced_brokers(true);
            vec![DescribeClusterRequest::default().into(), asked.into(), controllers.into(), fenced.into()]
        }
        (ApiKey::DescribeProducers, _) => {
            use describe_producers_request::TopicRequest;
            let topic = TopicRequest::default().with_name(name()).with_partition_indexes(vec![0, 1, 2]);
            let asked = DescribeProducersRequest::default().with_topics(vec![topic]);
            vec![DescribeProducersRequest::default().into(), asked.into()]
        }
        (ApiKey::DescribeLogDirs, _) => {
            use describe_log_dirs_request::DescribableLogDirTopic;
            let topic = DescribableLogDirTopic::default().with_topic(name()).with_partitions(vec![0, 1]);
            let asked = DescribeLogDirsRequest::default().with_topics(Some(vec![topic]));
            let all = DescribeLogDirsRequest::default().with_topics(None);
            vec![DescribeLogDirsRequest::default().into(), asked.into(), all.into()]
        }
        (ApiKey::DescribeTopicPartitions, _) => {
            use describe_topic_partitions_request::*;
            let asked = DescribeTopicPartitionsRequest::default()
                .with_topics(vec![TopicRequest::default().with_name(name())])
                .with_response_partition_limit(1);
            let cursor = Cursor::default().with_topic_name(name()).with_partition_index(1);
            let further = asked.clone().with_cursor(Some(cursor));
            vec![DescribeTopicPartitionsRequest::default().into(), asked.into(), further.into()]
        }
        (ApiKey::DescribeConfigs, _) => describe_configs(),
        (ApiKey::AlterConfigs, _) => alter_configs(),
        (ApiKey::IncrementalAlterConfigs, _) => incremental_alter_configs(),
        (ApiKey::CreatePartitions, _) => {
            use create_partitions_request::*;
            let more = CreatePartitionsTopic::default().with_name(name()).with_count(4);
            let assignment = || CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(1)]);
            let placed = more.clone().with_assignments(Some(vec![assignment(), assignment()]));
            let asked = |topic| {
                CreatePartitionsRequest::default().with_topics(vec![topic]).with_timeout_ms(1_000).into()
            };
            let anywhere = more.with_assignments(None);
            vec![CreatePartitionsRequest::default().into(), asked(anywhere), asked(placed)]
        }
        (ApiKey::ElectLeaders, _) => {
            use elect_leaders_request::TopicPartitions;
            let topic = TopicPartitions::default().with_topic(name()).with_partitions(vec![0, 1]);
            let asked = ElectLeadersRequest::default().with_topic_partitions(Some(vec![topic]));
            let unclean = asked.clone().with_election_type(1);
            let all = ElectLeadersRequest::default().with_topic_partitions(None);
            vec![ElectLeadersRequest::default().into(), asked.into(), unclean.into(), all.into()]
        }
        (ApiKey::AlterPartition, _) => alter_partitions(known),
        (ApiKey::BrokerRegistration, _) => registrations(known),
        (ApiKey::BrokerHeartbeat, _) => {
            let asked = BrokerHeartbeatRequest::default()
                .with_broker_id(BrokerId(1))
                .with_broker_epoch(known.broker_epoch)
                .with_current_metadata_offset(5);
            let leaving = asked.clone().with_want_shut_down(true);
            let fenced = asked.clone().with_want_fence(true).with_offline_log_dirs(vec![Uuid::from_u128(1)]);
            vec![BrokerHeartbeatRequest::default().into(), asked.into(), leaving.into(), fenced.into()]
        }
        (ApiKey::AllocateProducerIds, _) => {
            let asked = AllocateProducerIdsRequest::default()
                .with_broker_id(BrokerId(1))
                .with_broker_epoch(known.broker_epoch);
            vec![AllocateProducerIdsRequest::default().into(), asked.into()]
        }
        (other, listener) => panic!("{other:?} is served by the {listener:?} and has no seeds"),
    }
}

/// The same records in every codec, of every kind of producer.
fn produces(known: &Known) -> Vec<RequestKind> {
    let (id, epoch) = known.idempotent;
    let mut batches: Vec<Bytes> =
        CODECS.iter().map(|&codec| compressed(&batch(&["a", "bb"]), codec)).collect();
    batches.push(idempotent(&["d"], id, epoch, 1));
    batches.push(idempotent(&["e"], id + 5, 0, 0));
    let late = batch(&["f"]);
    let header = BatchHeader::parse(&late).expect("a batch that was just written is one");
    assert_eq!(header.max_timestamp, START.as_millis() as i64, "records are as old as the bench");
    let by_name = |acks, batch| produce_request(TOPIC, 0, acks, batch);
    let mut requests: Vec<ProduceRequest> = batches.into_iter().map(|batch| by_name(-1, batch)).collect();
    requests.extend([by_name(0, late.clone()), by_name(1, late.clone())]);
    requests.push(produce_request(COMPACTED, 0, 1, late));
    let open = transactional(&["g"], known.transactional, 1);
    requests.push(by_name(-1, open).with_transactional_id(Some(transactional_id(TRANSACTION))));
    let by_id = requests.clone().into_iter().map(|mut request| {
        for topic in &mut request.topic_data {
            (topic.topic_id, topic.name) = (known.topic_id, TopicName::default());
        }
        request
    });
    let by_id: Vec<ProduceRequest> = by_id.collect();
    [ProduceRequest::default()].into_iter().chain(requests).chain(by_id).map(RequestKind::from).collect()
}

fn fetches(known: &Known) -> Vec<RequestKind> {
    use fetch_request::*;
    let plain = fetch_request(TOPIC, 0, 0, 0, 1);
    let waiting = fetch_request(TOPIC, 0, 5, 500, 1);
    let committed = plain.clone().with_isolation_level(1);
    let session = plain.clone().with_session_epoch(0);
    let forgetting = plain.clone().with_session_id(1).with_session_epoch(1).with_forgotten_topics_data(vec![
        ForgottenTopic::default().with_topic(name()).with_partitions(vec![0]),
    ]);
    let named = session.clone().with_rack_id(text("rack")).with_cluster_id(Some(text(CLUSTER_ID)));
    let follower = plain.clone().with_replica_id(BrokerId(1));
    let state = ReplicaState::default().with_replica_id(BrokerId(1)).with_replica_epoch(known.broker_epoch);
    let by_name = [plain, waiting, committed, session, forgetting, named, follower.clone()];
    let of_follower = follower.with_replica_id(BrokerId(-1)).with_replica_state(state);
    let by_id = by_name.clone().into_iter().chain([of_follower]).map(|mut request| {
        for topic in &mut request.topics {
            (topic.topic_id, topic.topic) = (known.topic_id, TopicName::default());
        }
        for topic in &mut request.forgotten_topics_data {
            (topic.topic_id, topic.topic) = (known.topic_id, TopicName::default());
        }
        request
    });
    let by_id: Vec<FetchRequest> = by_id.collect();
    [FetchRequest::default()].into_iter().chain(by_name).chain(by_id).map(RequestKind::from).collect()
}

fn metadata_fetches() -> Vec<RequestKind> {
    let asked = |offset, wait| fetch_request("__cluster_metadata", 0, offset, wait, 1).into();
    vec![FetchRequest::default().into(), asked(0, 0), asked(1_000, 500), asked(3, 500)]
}

fn list_offsets() -> Vec<RequestKind> {
    use list_offsets_request::*;
    let at =
        |timestamp| ListOffsetsPartition::default().with_timestamp(timestamp).with_current_leader_epoch(-1);
    let asked = |times: &[i64], isolation| {
        let partitions = times.iter().map(|&time| at(time)).collect();
        let topic = ListOffsetsTopic::default().with_name(name()).with_partitions(partitions);
        ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_isolation_level(isolation)
            .with_topics(vec![topic])
    };
    let now = START.as_millis() as i64;
    let patient = asked(&[-1, -2, -3, -4, -5, now], 1).with_timeout_ms(100);
    let all = [asked(&[-1], 0), asked(&[-2, -3, now, now + 1], 0), asked(&[-1, -2, now], 1), patient];
    [ListOffsetsRequest::default()].into_iter().chain(all).map(RequestKind::from).collect()
}

fn metadata(known: &Known) -> Vec<RequestKind> {
    use metadata_request::MetadataRequestTopic;
    let of = |topics| MetadataRequest::default().with_topics(topics);
    let by_name = |name: &str| MetadataRequestTopic::default().with_name(Some(topic_name(name)));
    let by_id = MetadataRequestTopic::default().with_name(None).with_topic_id(known.topic_id);
    vec![
        MetadataRequest::default().into(),
        of(Some(vec![by_name(TOPIC), by_name(COMPACTED)])).into(),
        of(Some(vec![by_name("new")])).with_allow_auto_topic_creation(true).into(),
        of(Some(vec![by_id])).into(),
        of(None).into(),
        of(None).with_include_topic_authorized_operations(true).into(),
    ]
}

fn offset_commits(known: &Known) -> Vec<RequestKind> {
    use offset_commit_request::*;
    let partition = OffsetCommitRequestPartition::default()
        .with_committed_offset(2)
        .with_committed_metadata(Some(text("why")));
    let topic = OffsetCommitRequestTopic::default()
        .with_name(name())
        .with_partitions(vec![partition.clone(), partition]);
    let of_member = OffsetCommitRequest::default()
        .with_group_id(group())
        .with_member_id(text(&known.member))
        .with_generation_id_or_member_epoch(known.generation)
        .with_topics(vec![topic.clone()]);
    let simple = OffsetCommitRequest::default()
        .with_group_id(GroupId(text("simple")))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    let fixed = of_member.clone().with_group_instance_id(Some(text("static")));
    vec![OffsetCommitRequest::default().into(), of_member.into(), simple.into(), fixed.into()]
}

fn offset_fetches(known: &Known) -> Vec<RequestKind> {
    use offset_fetch_request::*;
    let old = OffsetFetchRequestTopic::default().with_name(name()).with_partition_indexes(vec![0, 1]);
    let single = OffsetFetchRequest::default().with_group_id(group()).with_topics(Some(vec![old]));
    let all = OffsetFetchRequest::default().with_group_id(group()).with_topics(None);
    let new = OffsetFetchRequestTopics::default().with_name(name()).with_partition_indexes(vec![0, 1]);
    let of_group = OffsetFetchRequestGroup::default().with_group_id(group()).with_topics(Some(vec![new]));
    let of_member =
        of_group.clone().with_member_id(Some(text(&known.member))).with_member_epoch(known.generation);
    let everything = of_group.clone().with_topics(None);
    let grouped =
        OffsetFetchRequest::default().with_groups(vec![of_group, everything]).with_require_stable(true);
    vec![
        OffsetFetchRequest::default().into(),
        single.clone().into(),
        single.with_require_stable(true).into(),
        all.into(),
        grouped.clone().into(),
        grouped.with_groups(vec![of_member]).into(),
    ]
}

fn find_coordinators() -> Vec<RequestKind> {
    let one = FindCoordinatorRequest::default().with_key(text(GROUP));
    let typed = FindCoordinatorRequest::default().with_key(text(TRANSACTION)).with_key_type(1);
    let keys = vec![text(GROUP), text("other")];
    let many = FindCoordinatorRequest::default().with_coordinator_keys(keys);
    let transactions = many.clone().with_key_type(1);
    let default = FindCoordinatorRequest::default();
    vec![default.into(), one.into(), typed.into(), many.into(), transactions.into()]
}

fn joins(known: &Known) -> Vec<RequestKind> {
    let oldest = |mut request: JoinGroupRequest| {
        request.rebalance_timeout_ms = -1;
        request
    };
    let new = join_request(GROUP, "");
    let again = join_request(GROUP, &known.member);
    let alone = join_request("alone", "");
    let fixed = alone.clone().with_group_instance_id(Some(text("static")));
    let reasoned = again.clone().with_reason(Some(text("why not")));
    let others = new.clone().with_protocol_type(text("connect"));
    let old = [oldest(again.clone()), oldest(alone.clone())];
    let all = [new, again, alone, fixed, reasoned, others];
    [JoinGroupRequest::default()].into_iter().chain(old).chain(all).map(RequestKind::from).collect()
}

fn syncs(known: &Known) -> Vec<RequestKind> {
    use sync_group_request::SyncGroupRequestAssignment;
    let assignment = SyncGroupRequestAssignment::default()
        .with_member_id(text(&known.member))
        .with_assignment(Bytes::from_static(b"all"));
    let asked = SyncGroupRequest::default()
        .with_group_id(group())
        .with_generation_id(known.generation)
        .with_member_id(text(&known.member))
        .with_assignments(vec![assignment]);
    let named =
        asked.clone().with_protocol_type(Some(text("consumer"))).with_protocol_name(Some(text("range")));
    let fixed = asked.clone().with_group_instance_id(Some(text("static")));
    vec![SyncGroupRequest::default().into(), asked.into(), named.into(), fixed.into()]
}

fn heartbeats(known: &Known) -> Vec<RequestKind> {
    let asked = HeartbeatRequest::default()
        .with_group_id(group())
        .with_generation_id(known.generation)
        .with_member_id(text(&known.member));
    let fixed = asked.clone().with_group_instance_id(Some(text("static")));
    vec![HeartbeatRequest::default().into(), asked.into(), fixed.into()]
}

fn leaves(known: &Known) -> Vec<RequestKind> {
    use leave_group_request::MemberIdentity;
    let one = LeaveGroupRequest::default().with_group_id(group()).with_member_id(text(&known.member));
    let member = MemberIdentity::default().with_member_id(text(&known.member));
    let fixed = MemberIdentity::default().with_group_instance_id(Some(text("static")));
    let many = |members| LeaveGroupRequest::default().with_group_id(group()).with_members(members);
    let reasoned = member.clone().with_reason(Some(text("enough")));
    vec![
        LeaveGroupRequest::default().into(),
        one.into(),
        many(vec![member.clone(), fixed]).into(),
        many(vec![reasoned, member]).into(),
    ]
}

fn txn_offset_commits(known: &Known) -> Vec<RequestKind> {
    use txn_offset_commit_request::*;
    let partition =
        TxnOffsetCommitRequestPartition::default().with_committed_offset(2).with_committed_metadata(null());
    let topic = TxnOffsetCommitRequestTopic::default().with_name(name()).with_partitions(vec![partition]);
    let asked = TxnOffsetCommitRequest::default()
        .with_transactional_id(transactional_id(TRANSACTION))
        .with_group_id(group())
        .with_producer_id(ProducerId(known.transactional.id))
        .with_producer_epoch(known.transactional.epoch)
        .with_topics(vec![topic]);
    let of_member = asked.clone().with_member_id(text(&known.member)).with_generation_id(known.generation);
    vec![TxnOffsetCommitRequest::default().into(), asked.into(), of_member.into()]
}

fn create_topics() -> Vec<RequestKind> {
    use create_topics_request::*;
    let config = |name: &str, value: &str| {
        CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
    };
    let plain = CreatableTopic::default()
        .with_name(topic_name("new"))
        .with_num_partitions(2)
        .with_replication_factor(1)
        .with_configs(vec![config("segment.ms", "1000"), config("cleanup.policy", "compact,delete")]);
    let assignment = CreatableReplicaAssignment::default().with_broker_ids(vec![BrokerId(1)]);
    let placed = CreatableTopic::default()
        .with_name(topic_name("placed"))
        .with_num_partitions(-1)
        .with_replication_factor(-1)
        .with_assignments(vec![assignment]);
    let known = plain.clone().with_name(name());
    let asked = CreateTopicsRequest::default().with_topics(vec![plain, placed, known]).with_timeout_ms(1_000);
    let tried = asked.clone().with_validate_only(true);
    vec![CreateTopicsRequest::default().into(), asked.into(), tried.into()]
}

fn delete_topics(known: &Known) -> Vec<RequestKind> {
    use delete_topics_request::DeleteTopicState;
    let names = DeleteTopicsRequest::default()
        .with_topic_names(vec![name(), topic_name("nothing")])
        .with_timeout_ms(1_000);
    let named = DeleteTopicState::default().with_name(Some(topic_name(COMPACTED)));
    let identified = DeleteTopicState::default().with_name(None).with_topic_id(known.topic_id);
    let states = DeleteTopicsRequest::default().with_topics(vec![named, identified]).with_timeout_ms(1_000);
    vec![DeleteTopicsRequest::default().into(), names.into(), states.into()]
}

fn init_producer_ids(known: &Known) -> Vec<RequestKind> {
    let plain = InitProducerIdRequest::default().with_transactional_id(None);
    let named = InitProducerIdRequest::default()
        .with_transactional_id(Some(transactional_id(TRANSACTION)))
        .with_transaction_timeout_ms(60_000);
    let bumped = named
        .clone()
        .with_producer_id(ProducerId(known.transactional.id))
        .with_producer_epoch(known.transactional.epoch);
    let new = named.clone().with_transactional_id(Some(transactional_id("y")));
    vec![InitProducerIdRequest::default().into(), plain.into(), named.into(), bumped.into(), new.into()]
}

fn add_partitions(known: &Known) -> Vec<RequestKind> {
    use add_partitions_to_txn_request::*;
    let topics = || vec![AddPartitionsToTxnTopic::default().with_name(name()).with_partitions(vec![0, 1])];
    let (id, epoch) = (ProducerId(known.transactional.id), known.transactional.epoch);
    let single = AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(transactional_id(TRANSACTION))
        .with_v3_and_below_producer_id(id)
        .with_v3_and_below_producer_epoch(epoch)
        .with_v3_and_below_topics(topics());
    let one = AddPartitionsToTxnTransaction::default()
        .with_transactional_id(transactional_id(TRANSACTION))
        .with_producer_id(id)
        .with_producer_epoch(epoch)
        .with_topics(topics());
    let verified = one.clone().with_verify_only(true);
    let many = |transactions| AddPartitionsToTxnRequest::default().with_transactions(transactions);
    vec![
        AddPartitionsToTxnRequest::default().into(),
        single.into(),
        many(vec![one.clone()]).into(),
        many(vec![verified, one]).into(),
    ]
}

fn describe_configs() -> Vec<RequestKind> {
    use describe_configs_request::*;
    let of = |kind, name: &str| {
        DescribeConfigsResource::default().with_resource_type(kind).with_resource_name(text(name))
    };
    let resources = vec![
        of(2, TOPIC).with_configuration_keys(Some(vec![text("segment.ms"), text("nothing")])),
        of(4, "1").with_configuration_keys(None),
        of(4, "").with_configuration_keys(None),
    ];
    let asked = DescribeConfigsRequest::default().with_resources(resources).with_include_synonyms(true);
    let explained = asked.clone().with_include_documentation(true);
    vec![DescribeConfigsRequest::default().into(), asked.into(), explained.into()]
}

fn alter_configs() -> Vec<RequestKind> {
    use alter_configs_request::*;
    let of = |kind, name: &str, key: &str, value: Option<&str>| {
        let config = AlterableConfig::default().with_name(text(key)).with_value(value.map(text));
        AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(name))
            .with_configs(vec![config])
    };
    let resources = vec![
        of(2, TOPIC, "retention.ms", Some("5000")),
        of(4, "1", "log.cleaner.threads", Some("2")),
        of(4, "", "min.insync.replicas", None),
    ];
    let asked = AlterConfigsRequest::default().with_resources(resources);
    let tried = asked.clone().with_validate_only(true);
    vec![AlterConfigsRequest::default().into(), asked.into(), tried.into()]
}

fn incremental_alter_configs() -> Vec<RequestKind> {
    use incremental_alter_configs_request::*;
    let of = |kind, name: &str, operation, key: &str, value: Option<&str>| {
        let config = AlterableConfig::default()
            .with_name(text(key))
            .with_config_operation(operation)
            .with_value(value.map(text));
        AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(name))
            .with_configs(vec![config])
    };
    let resources = vec![
        of(2, TOPIC, 0, "segment.bytes", Some("1048576")),
        of(2, COMPACTED, 2, "cleanup.policy", Some("delete")),
        of(2, COMPACTED, 3, "cleanup.policy", Some("compact")),
        of(4, "1", 0, "log.retention.ms", Some("60000")),
        of(4, "", 1, "min.insync.replicas", None),
    ];
    let asked = IncrementalAlterConfigsRequest::default().with_resources(resources);
    let tried = asked.clone().with_validate_only(true);
    vec![IncrementalAlterConfigsRequest::default().into(), asked.into(), tried.into()]
}

fn alter_partitions(known: &Known) -> Vec<RequestKind> {
    use alter_partition_request::*;
    let replica = BrokerState::default().with_broker_id(BrokerId(1)).with_broker_epoch(known.broker_epoch);
    let by_id = PartitionData::default().with_new_isr(vec![BrokerId(1)]);
    let by_epoch = PartitionData::default().with_new_isr_with_epochs(vec![replica]);
    let asked = |partition| {
        let topic = TopicData::default().with_topic_id(known.topic_id).with_partitions(vec![partition]);
        AlterPartitionRequest::default()
            .with_broker_id(BrokerId(1))
            .with_broker_epoch(known.broker_epoch)
            .with_topics(vec![topic])
            .into()
    };
    vec![AlterPartitionRequest::default().into(), asked(by_id), asked(by_epoch)]
}

fn registrations(known: &Known) -> Vec<RequestKind> {
    use broker_registration_request::*;
    let listener = Listener::default().with_name(text("PLAINTEXT")).with_host(text("host")).with_port(9_092);
    let new = BrokerRegistrationRequest::default()
        .with_broker_id(BrokerId(2))
        .with_cluster_id(text(CLUSTER_ID))
        .with_incarnation_id(Uuid::from_u128(5))
        .with_listeners(vec![listener])
        .with_log_dirs(vec![Uuid::from_u128(1)])
        .with_features(vec![Feature::default().with_name(text("metadata.version"))]);
    let again = new.clone().with_broker_id(BrokerId(1)).with_previous_broker_epoch(known.broker_epoch);
    vec![BrokerRegistrationRequest::default().into(), new.into(), again.into()]
}
