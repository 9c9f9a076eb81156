//! What each API answers, in each version that is told of.

#[path = "../support/mod.rs"]
mod support;

mod frames;
mod groups;
mod producers;
mod readers;
mod requests;
mod topics;
mod versions;

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::*;

use support::Bench;
use support::verbs::*;

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
