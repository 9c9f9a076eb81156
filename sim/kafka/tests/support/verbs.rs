//! What clients do, as one line each.

use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::*;
use shakedown_kafka::NodeId;
use shakedown_kafka::core::ConnectionId;
use shakedown_kafka::log::batch::{BatchHeader, HEADER_LEN, assemble};
use shakedown_kafka::log::record;

use super::{Bench, START, text};
use crate::expect;

pub fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

/// A batch of records without keys, at the bench's start.
pub fn batch(values: &[&str]) -> Bytes {
    let records: Vec<_> = values.iter().map(|value| (None, Some(Bytes::from(value.to_string())))).collect();
    record::write_batch(START.as_millis() as i64, &records)
}

/// The same of an idempotent producer.
pub fn idempotent(values: &[&str], producer: i64, epoch: i16, sequence: i32) -> Bytes {
    let plain = batch(values);
    let header = BatchHeader::parse(&plain).unwrap();
    let header =
        BatchHeader { producer_id: producer, producer_epoch: epoch, base_sequence: sequence, ..header };
    assemble(&header, &plain[HEADER_LEN..])
}

pub fn produce_request(topic: &str, partition: i32, acks: i16, batch: Bytes) -> ProduceRequest {
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(batch));
    let topic = TopicProduceData::default().with_name(topic_name(topic)).with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(acks).with_timeout_ms(30_000).with_topic_data(vec![topic])
}

pub fn fetch_request(
    topic: &str,
    partition: i32,
    offset: i64,
    max_wait_ms: i32,
    min_bytes: i32,
) -> FetchRequest {
    let asked = FetchPartition::default()
        .with_partition(partition)
        .with_fetch_offset(offset)
        .with_current_leader_epoch(-1)
        .with_last_fetched_epoch(-1)
        .with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default().with_topic(topic_name(topic)).with_partitions(vec![asked]);
    FetchRequest::default()
        .with_max_wait_ms(max_wait_ms)
        .with_min_bytes(min_bytes)
        .with_max_bytes(1 << 20)
        .with_topics(vec![topic])
}

/// What one fetched partition says: error, high watermark, offsets of the batches.
pub fn fetched(response: ResponseKind) -> (i16, i64, Vec<i64>) {
    let response = expect!(Fetch, response);
    let data = response.responses[0].partitions[0].clone();
    let mut rest = data.records.unwrap_or_default();
    let mut offsets = Vec::new();
    while !rest.is_empty() {
        let header = BatchHeader::parse(&rest).unwrap();
        offsets.extend(header.base_offset..header.next_offset());
        rest = rest.split_off(header.size());
    }
    (data.error_code, data.high_watermark, offsets)
}

pub fn join_request(group: &str, member: &str) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(Bytes::from_static(b"topics"));
    JoinGroupRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(60_000)
        .with_member_id(text(member))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}

fn commit_request(
    group: &str,
    member: &str,
    generation: i32,
    (topic, partition, offset): (&str, i32, i64),
) -> OffsetCommitRequest {
    let asked = OffsetCommitRequestPartition::default()
        .with_partition_index(partition)
        .with_committed_offset(offset)
        .with_committed_metadata(Some(text("why")));
    let topic = OffsetCommitRequestTopic::default().with_name(topic_name(topic)).with_partitions(vec![asked]);
    OffsetCommitRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_member_id(text(member))
        .with_generation_id_or_member_epoch(generation)
        .with_topics(vec![topic])
}

impl Bench {
    /// A producer id without a transactional id, and its epoch; the broker may have to fetch a block first.
    pub fn producer_id(&mut self, node: NodeId) -> (i64, i16) {
        for _ in 0..3 {
            let request = InitProducerIdRequest::default().with_transactional_id(None);
            let response = self.ask(node, ApiKey::InitProducerId, 4, request);
            let response = expect!(InitProducerId, response);
            if response.error_code == 0 {
                return (response.producer_id.0, response.producer_epoch);
            }
            assert_eq!(response.error_code, 14);
            self.advance(100);
        }
        panic!("broker {node} gives no producer ids");
    }

    /// Creates a topic without followers; settings as name and value.
    pub fn create_topic(&mut self, name: &str, partitions: i32, config: &[(&str, &str)]) -> i16 {
        self.create_replicated(name, partitions, 1, config)
    }

    /// Creates a topic with one partition on these brokers, the first of them its leader.
    pub fn create_on(&mut self, name: &str, replicas: &[NodeId], config: &[(&str, &str)]) -> i16 {
        let replicas = replicas.iter().copied().map(BrokerId).collect();
        let topic = CreatableTopic::default()
            .with_num_partitions(-1)
            .with_replication_factor(-1)
            .with_assignments(vec![CreatableReplicaAssignment::default().with_broker_ids(replicas)]);
        self.create(name, topic, config)
    }

    /// Creates a topic, its replicas where the controller places them.
    pub fn create_replicated(
        &mut self,
        name: &str,
        partitions: i32,
        replication_factor: i16,
        config: &[(&str, &str)],
    ) -> i16 {
        let topic = CreatableTopic::default()
            .with_num_partitions(partitions)
            .with_replication_factor(replication_factor);
        self.create(name, topic, config)
    }

    fn create(&mut self, name: &str, topic: CreatableTopic, config: &[(&str, &str)]) -> i16 {
        let setting = |&(name, value): &(&str, &str)| {
            CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
        };
        let topic = topic.with_name(topic_name(name)).with_configs(config.iter().map(setting).collect());
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(1_000);
        let node = (1..).find(|&node| self.is_listening(node)).expect("some broker listens");
        let response = expect!(CreateTopics, self.ask(node, ApiKey::CreateTopics, 7, request));
        response.topics[0].error_code
    }

    /// The error of a change of a topic's setting.
    pub fn set_topic_config(&mut self, topic: &str, name: &str, value: &str) -> i16 {
        use kafka_protocol::messages::incremental_alter_configs_request::{
            AlterConfigsResource, AlterableConfig,
        };
        let (set, of_topic) = (0, 2);
        let config = AlterableConfig::default()
            .with_name(text(name))
            .with_config_operation(set)
            .with_value(Some(text(value)));
        let asked = AlterConfigsResource::default()
            .with_resource_type(of_topic)
            .with_resource_name(text(topic))
            .with_configs(vec![config]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![asked]);
        let answer = self.ask(1, ApiKey::IncrementalAlterConfigs, 1, request);
        expect!(IncrementalAlterConfigs, answer).responses[0].error_code
    }

    /// Appends to a partition through a broker: error and base offset.
    pub fn produce(&mut self, node: NodeId, topic: &str, partition: i32, batch: Bytes) -> (i16, i64) {
        let request = produce_request(topic, partition, -1, batch);
        let response = expect!(Produce, self.ask(node, ApiKey::Produce, 9, request));
        let partition = &response.responses[0].partition_responses[0];
        (partition.error_code, partition.base_offset)
    }

    /// Appends to `orders/0` with `acks=all`, and gives the replicas a moment: error and base offset.
    pub fn produce_through(&mut self, node: NodeId, values: &[&str]) -> (i16, i64) {
        let request = produce_request("orders", 0, -1, batch(values));
        let connection = self.send(node, ApiKey::Produce, 9, request);
        self.advance(600);
        let response = expect!(Produce, self.response(connection));
        let partition = &response.responses[0].partition_responses[0];
        (partition.error_code, partition.base_offset)
    }

    /// Error and latest offset, as a reader is told.
    pub fn latest_offset(&mut self, node: NodeId, topic: &str, partition: i32) -> (i16, i64) {
        use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
        let asked = ListOffsetsPartition::default().with_partition_index(partition).with_timestamp(-1);
        let topic = ListOffsetsTopic::default().with_name(topic_name(topic)).with_partitions(vec![asked]);
        let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
        let response = expect!(ListOffsets, self.ask(node, ApiKey::ListOffsets, 7, request));
        let found = &response.topics[0].partitions[0];
        (found.error_code, found.offset)
    }

    /// Fetches without waiting.
    pub fn fetch(&mut self, node: NodeId, topic: &str, partition: i32, offset: i64) -> (i16, i64, Vec<i64>) {
        fetched(self.ask(node, ApiKey::Fetch, 12, fetch_request(topic, partition, offset, 0, 1)))
    }

    /// Asks for the group's coordinator, until it is there, and gives it the time to load.
    pub fn coordinator(&mut self, group: &str) -> NodeId {
        for _ in 0..5 {
            let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text(group)]);
            let response = expect!(FindCoordinator, self.ask(1, ApiKey::FindCoordinator, 4, request));
            let found = &response.coordinators[0];
            if found.error_code == 0 {
                self.advance(10);
                return found.node_id.0;
            }
            assert_eq!(found.error_code, 15);
            self.advance(100);
        }
        panic!("no coordinator");
    }

    /// Joins with the id that the coordinator gives; the answer comes when the rebalance ends.
    pub fn join(&mut self, node: NodeId, group: &str) -> (String, ConnectionId) {
        let first = expect!(JoinGroup, self.ask(node, ApiKey::JoinGroup, 5, join_request(group, "")));
        assert_eq!(first.error_code, 79, "a new member is given its id first");
        let id = first.member_id.to_string();
        let connection = self.send(node, ApiKey::JoinGroup, 5, join_request(group, &id));
        (id, connection)
    }

    /// Syncs; a leader brings assignments.
    pub fn sync(
        &mut self,
        node: NodeId,
        group: &str,
        member: &str,
        generation: i32,
        assignments: &[(&str, &str)],
    ) -> ConnectionId {
        let assignment = |&(member, assignment): &(&str, &str)| {
            let assignment = Bytes::from(assignment.to_owned());
            SyncGroupRequestAssignment::default().with_member_id(text(member)).with_assignment(assignment)
        };
        let request = SyncGroupRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_generation_id(generation)
            .with_member_id(text(member))
            .with_assignments(assignments.iter().map(assignment).collect());
        self.send(node, ApiKey::SyncGroup, 3, request)
    }

    /// The error of a heartbeat.
    pub fn heartbeat(&mut self, node: NodeId, group: &str, member: &str, generation: i32) -> i16 {
        let request = HeartbeatRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_member_id(text(member))
            .with_generation_id(generation);
        expect!(Heartbeat, self.ask(node, ApiKey::Heartbeat, 3, request)).error_code
    }

    /// The error of a leave.
    pub fn leave(&mut self, node: NodeId, group: &str, member: &str) -> i16 {
        let members = vec![MemberIdentity::default().with_member_id(text(member))];
        let request = LeaveGroupRequest::default().with_group_id(GroupId(text(group))).with_members(members);
        expect!(LeaveGroup, self.ask(node, ApiKey::LeaveGroup, 3, request)).members[0].error_code
    }

    /// The error of a commit.
    pub fn commit(
        &mut self,
        node: NodeId,
        group: &str,
        member: &str,
        generation: i32,
        what: (&str, i32, i64),
    ) -> i16 {
        let asked = self.send(node, ApiKey::OffsetCommit, 7, commit_request(group, member, generation, what));
        self.commit_answer(asked)
    }

    /// A commit without a member, whose answer waits for replicas.
    pub fn commit_later(&mut self, node: NodeId, group: &str, what: (&str, i32, i64)) -> ConnectionId {
        self.send(node, ApiKey::OffsetCommit, 7, commit_request(group, "", -1, what))
    }

    /// The error of a commit that was waited for.
    pub fn commit_answer(&mut self, asked: ConnectionId) -> i16 {
        expect!(OffsetCommit, self.response(asked)).topics[0].partitions[0].error_code
    }

    /// Error and offset of what a group has committed.
    pub fn committed(&mut self, node: NodeId, group: &str, topic: &str, partition: i32) -> (i16, i64) {
        let topic = OffsetFetchRequestTopics::default()
            .with_name(topic_name(topic))
            .with_partition_indexes(vec![partition]);
        let asked = OffsetFetchRequestGroup::default()
            .with_group_id(GroupId(text(group)))
            .with_topics(Some(vec![topic]));
        let request = OffsetFetchRequest::default().with_groups(vec![asked]);
        let response = expect!(OffsetFetch, self.ask(node, ApiKey::OffsetFetch, 8, request));
        let group = &response.groups[0];
        (group.error_code, group.topics.first().map_or(-1, |topic| topic.partitions[0].committed_offset))
    }
}
