//! A broker as a core: requests and the controller's answers go in, responses and timers come out.
//!
//! It owns what a broker's process holds in memory: its image of the metadata, the partitions that it leads, fetches
//! that wait, groups and transactions that it coordinates. What must outlive the process is on the [`BrokerDisk`], handed in with each
//! call. One handler a file, named by its API key; the life of a broker (registration, heartbeats, the metadata that it
//! applies) is in `lifecycle`.
//!
//! A broker opens its client port only when it was unfenced, as Kafka does: until then connects are refused. Cut off
//! from the controller later, it goes on answering from what it knows.
//!
//! Absent: quotas, SASL.

mod add_partitions_to_txn;
mod alter_configs;
mod api_versions;
mod commit;
mod configs;
mod create_topics;
mod delete_records;
mod describe_cluster;
mod describe_log_dirs;
mod describe_producers;
mod describe_topic_partitions;
mod describe_transactions;
mod disk;
mod end_txn;
mod fetch;
mod fetch_session;
mod find_coordinator;
mod forwarding;
mod groups;
mod in_sync;
mod init_producer_id;
mod lifecycle;
mod list_offsets;
mod metadata;
mod offset_for_leader_epoch;
mod own_links;
mod produce;
mod replica_fetcher;
mod replicas;
mod transactions;
mod upkeep;
mod verification;
mod write_txn_markers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use context::{Rng, Timestamp};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{RequestKind, ResponseKind, TopicName};
use kafka_protocol::protocol::StrBytes;
use rand::Rng as _;
use uuid::Uuid;

use crate::config::{Endpoint, Features, Settings};
use crate::core::{Address, ConnectionId, Input, Link, Output};
use crate::group::{Coordinator, OFFSETS_TOPIC};
use crate::metadata::{MetadataImage, NodeId, PartitionKey, TopicImage};
use crate::partition::Partition;
use crate::timers::Timers;
use crate::transaction::TRANSACTION_TOPIC;
use crate::wire::{BROKER_APIS, Call, Request, Unreadable};

use commit::Waits;
use delete_records::Deletions;
pub use disk::{BrokerDisk, Logs};
use fetch::WaitingFetches;
use fetch_session::FetchSessions;
use forwarding::Forwarding;
use groups::Gatherings;
use in_sync::InSyncChanges;
use lifecycle::{Lifecycle, Pending};
use own_links::OwnLinks;
use produce::Producing;
use replica_fetcher::Fetchers;
use transactions::{TransactionTimer, Transactions};
use upkeep::Chore;
use verification::Verifications;
use write_txn_markers::MarkerRequests;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Communicate,
    RetryMetadata,
    Upkeep(Chore),
    Fetch(u64),
    Commit(u64),
    DeleteRecords(u64),
    Replicate(NodeId),
    AlterPartition,
    Lagging,
    Group(crate::group::Timer),
    Transaction(TransactionTimer),
    RetryVerification(u64),
    Forward,
}

/// What one call of [`Broker::handle`] works with.
pub(crate) struct Turn<'a> {
    pub(crate) now: Timestamp,
    pub(crate) disk: &'a mut BrokerDisk,
    pub(crate) out: &'a mut Vec<Output>,
}

impl Turn<'_> {
    fn note(&mut self, line: String) {
        self.out.push(Output::Note(line));
    }

    fn respond(&mut self, connection: ConnectionId, call: &Call, response: impl Into<ResponseKind>) {
        self.out.push(match call.answer(&response.into()) {
            Ok(frame) => Output::Respond { connection, frame },
            Err(error) => Output::Close { connection, reason: error.to_string() },
        });
    }

    fn now_ms(&self) -> i64 {
        self.now.as_millis() as i64
    }
}

/// A broker.
pub struct Broker {
    node: NodeId,
    endpoint: Endpoint,
    controller: Address,
    /// As the cluster was configured at its start.
    own_settings: Settings,
    /// With what was set since, as far as this broker knows.
    settings: Settings,
    features: Features,
    rng: Rng,
    image: MetadataImage,
    life: Lifecycle,
    pending: BTreeMap<Link, VecDeque<Pending>>,
    partitions: BTreeMap<PartitionKey, Partition>,
    waiting: WaitingFetches,
    sessions: FetchSessions,
    fetchers: Fetchers,
    in_sync_changes: InSyncChanges,
    forwarding: Forwarding,
    producing: Producing,
    waits: Waits,
    verifications: Verifications,
    marker_requests: MarkerRequests,
    deletions: Deletions,
    /// Topics whose creation this broker has asked for.
    creating: BTreeSet<String>,
    coordinator: Coordinator,
    transactions: Transactions,
    own_links: OwnLinks,
    gatherings: Gatherings,
    timers: Timers<Timer>,
    woken_at: Option<Timestamp>,
}

impl Broker {
    /// A broker that has not started. Member ids are drawn from `rng`.
    pub fn new(
        node: NodeId,
        endpoint: Endpoint,
        controller: &Endpoint,
        settings: Settings,
        features: Features,
        rng: Rng,
    ) -> Broker {
        Broker {
            node,
            endpoint,
            controller: Address { host: controller.host.clone(), port: controller.port },
            features,
            rng,
            image: MetadataImage::default(),
            life: Lifecycle::default(),
            pending: BTreeMap::new(),
            partitions: BTreeMap::new(),
            waiting: WaitingFetches::default(),
            sessions: FetchSessions::default(),
            fetchers: Fetchers::default(),
            in_sync_changes: InSyncChanges::default(),
            forwarding: Forwarding::default(),
            producing: Producing::default(),
            waits: Waits::default(),
            verifications: Verifications::default(),
            marker_requests: MarkerRequests::default(),
            deletions: Deletions::default(),
            creating: BTreeSet::new(),
            coordinator: Coordinator::new(settings.clone()),
            transactions: Transactions::new(&settings, features),
            own_links: OwnLinks::default(),
            own_settings: settings.clone(),
            gatherings: Gatherings::default(),
            settings,
            timers: Timers::new(),
            woken_at: None,
        }
    }

    /// The metadata as far as this broker has it.
    pub fn image(&self) -> &MetadataImage {
        &self.image
    }

    /// The high watermark of a partition that it leads.
    pub fn high_watermark(&self, key: PartitionKey) -> Option<i64> {
        let partition = self.partitions.get(&key).filter(|partition| partition.leads())?;
        Some(partition.high_watermark)
    }

    /// The last stable offset of a partition that it leads.
    pub fn last_stable_offset(&self, key: PartitionKey, disk: &BrokerDisk) -> Option<i64> {
        let partition = self.partitions.get(&key).filter(|partition| partition.leads())?;
        Some(partition.last_stable_offset(disk.logs.get(&key)?))
    }

    /// The groups that it coordinates.
    pub fn coordinator(&self) -> &Coordinator {
        &self.coordinator
    }

    /// Applies one input; what the outside must now do is appended to `out`.
    pub fn handle(&mut self, now: Timestamp, input: Input, disk: &mut BrokerDisk, out: &mut Vec<Output>) {
        let turn = &mut Turn { now, disk, out };
        match input {
            Input::Start { incarnation } => self.start(turn, incarnation),
            Input::Request { connection, peer, frame } => self.request(turn, connection, &peer, &frame),
            Input::Answered { link, frame } => self.answered(turn, link, frame),
            Input::Wake => self.woken_at = None,
            Input::Shutdown => self.shut_down(turn),
        }
        while let Some(timer) = self.timers.due(now) {
            match timer {
                Timer::Communicate => self.communicate(turn),
                Timer::RetryMetadata => self.fetch_metadata(turn),
                Timer::Upkeep(chore) => self.upkeep(turn, chore),
                Timer::Fetch(id) => self.fetch_due(turn, id),
                Timer::Commit(id) => self.commit_due(turn, id),
                Timer::DeleteRecords(id) => self.delete_records_due(turn, id),
                Timer::Replicate(leader) => self.rest_is_over(turn, leader),
                Timer::AlterPartition => self.ask_for_in_sync(turn),
                Timer::Lagging => self.look_for_lagging(turn),
                Timer::Group(timer) => self.group_timer(turn, timer),
                Timer::Transaction(timer) => self.transaction_timer(turn, timer),
                Timer::RetryVerification(id) => self.retry_verification(turn, id),
                Timer::Forward => self.forward_again(turn),
            }
        }
        self.serve_itself(turn);
        if let Some(next) = self.timers.next()
            && self.woken_at.is_none_or(|at| at > next)
        {
            self.woken_at = Some(next);
            turn.out.push(Output::WakeAt(next));
        }
    }

    fn request(&mut self, turn: &mut Turn<'_>, connection: ConnectionId, peer: &Arc<str>, frame: &Bytes) {
        let Request { call, body } = match Request::read(frame, BROKER_APIS) {
            Ok(request) => request,
            Err(Unreadable::UnknownApiVersions { correlation }) => {
                let frame = api_versions::unsupported(correlation);
                return turn.out.push(Output::Respond { connection, frame });
            }
            Err(Unreadable::Close(error)) => {
                return turn.out.push(Output::Close { connection, reason: error.to_string() });
            }
        };
        match body {
            RequestKind::ApiVersions(request) => self.api_versions(turn, connection, &call, &request),
            RequestKind::Metadata(request) => self.metadata(turn, connection, &call, &request),
            RequestKind::DescribeCluster(request) => self.describe_cluster(turn, connection, &call, &request),
            RequestKind::DescribeTopicPartitions(request) => {
                self.describe_topic_partitions(turn, connection, &call, &request)
            }
            RequestKind::DescribeLogDirs(request) => {
                self.describe_log_dirs(turn, connection, &call, &request)
            }
            RequestKind::DescribeConfigs(request) => self.describe_configs(turn, connection, &call, &request),
            RequestKind::CreateTopics(_)
            | RequestKind::DeleteTopics(_)
            | RequestKind::CreatePartitions(_)
            | RequestKind::AlterConfigs(_)
            | RequestKind::IncrementalAlterConfigs(_)
            | RequestKind::ElectLeaders(_) => self.forward(turn, connection, call, body, frame),
            RequestKind::Produce(request) => self.produce(turn, connection, call, request),
            RequestKind::WriteTxnMarkers(request) => self.write_txn_markers(turn, connection, call, request),
            RequestKind::DescribeProducers(request) => {
                self.describe_producers(turn, connection, &call, &request)
            }
            RequestKind::Fetch(request) => self.fetch(turn, connection, call, request),
            RequestKind::DeleteRecords(request) => self.delete_records(turn, connection, call, &request),
            RequestKind::ListOffsets(request) => self.list_offsets(turn, connection, &call, &request),
            RequestKind::OffsetForLeaderEpoch(request) => {
                self.offset_for_leader_epoch(turn, connection, &call, &request)
            }
            RequestKind::InitProducerId(request) => self.init_producer_id(turn, connection, call, &request),
            RequestKind::AddPartitionsToTxn(request) => {
                self.add_partitions_to_txn(turn, connection, call, request)
            }
            RequestKind::AddOffsetsToTxn(request) => {
                self.add_offsets_to_txn(turn, connection, call, &request)
            }
            RequestKind::EndTxn(request) => self.end_txn(turn, connection, call, &request),
            RequestKind::DescribeTransactions(request) => {
                self.describe_transactions(turn, connection, &call, &request)
            }
            RequestKind::ListTransactions(request) => {
                self.list_transactions(turn, connection, &call, &request)
            }
            RequestKind::FindCoordinator(request) => self.find_coordinator(turn, connection, &call, &request),
            RequestKind::JoinGroup(request) => self.join_group(turn, connection, peer, call, request),
            RequestKind::SyncGroup(request) => self.sync_group(turn, connection, call, request),
            RequestKind::Heartbeat(request) => self.heartbeat(turn, connection, &call, &request),
            RequestKind::LeaveGroup(request) => self.leave_group(turn, connection, &call, &request),
            RequestKind::OffsetCommit(request) => self.offset_commit(turn, connection, &call, &request),
            RequestKind::OffsetFetch(request) => self.offset_fetch(turn, connection, &call, &request),
            RequestKind::TxnOffsetCommit(request) => self.txn_offset_commit(turn, connection, call, request),
            RequestKind::DescribeGroups(request) => self.describe_groups(turn, connection, &call, &request),
            RequestKind::ListGroups(request) => self.list_groups(turn, connection, &call, &request),
            RequestKind::DeleteGroups(request) => self.delete_groups(turn, connection, &call, &request),
            RequestKind::OffsetDelete(request) => self.offset_delete(turn, connection, &call, &request),
            _ => unreachable!("only the broker's APIs are read"),
        }
    }

    /// The topic that a request names: by id in newer versions, else by name.
    fn asked_topic(&self, by_id: bool, name: &TopicName, id: Uuid) -> Result<&TopicImage, ResponseError> {
        if by_id {
            self.image.topics.get(&id).ok_or(ResponseError::UnknownTopicId)
        } else {
            self.image.topic(name.as_str()).ok_or(ResponseError::UnknownTopicOrPartition)
        }
    }

    /// A partition that this broker leads.
    fn led(&self, key: PartitionKey) -> Result<&Partition, ResponseError> {
        if self.image.partition(key).is_none() {
            return Err(ResponseError::UnknownTopicOrPartition);
        }
        self.partitions
            .get(&key)
            .filter(|partition| partition.leads())
            .ok_or(ResponseError::NotLeaderOrFollower)
    }

    /// A replica here whose leader's epoch is the one that a client believes in; -1 is no belief. Epochs are compared first:
    /// a client that is behind hears so even from a broker that leads no more (`Partition.getLocalLog`).
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC_OR_PARTITION`, `FENCED_LEADER_EPOCH` or `UNKNOWN_LEADER_EPOCH`; `NOT_LEADER_OR_FOLLOWER` if there is
    /// no replica here, or if it follows and `only_leader` will do.
    fn replica(
        &self,
        key: PartitionKey,
        believed: i32,
        only_leader: bool,
    ) -> Result<&Partition, ResponseError> {
        if self.image.partition(key).is_none() {
            return Err(ResponseError::UnknownTopicOrPartition);
        }
        let partition = self.partitions.get(&key).ok_or(ResponseError::NotLeaderOrFollower)?;
        partition.check_epoch(believed)?;
        if only_leader && !partition.leads() {
            return Err(ResponseError::NotLeaderOrFollower);
        }
        Ok(partition)
    }

    /// Leader and its epoch, as this broker has them: told to clients that came to the wrong one.
    fn leader_and_epoch(&self, key: PartitionKey) -> (NodeId, i32) {
        self.image.partition(key).map_or((-1, -1), |partition| (partition.leader, partition.leader_epoch))
    }

    fn new_uuid(&mut self) -> Uuid {
        let mut random = [0; 16];
        self.rng.fill_bytes(&mut random);
        uuid::Builder::from_random_bytes(random).into_uuid()
    }
}

/// Whether a topic is one of the brokers' own: clients may read it, and not write to it.
pub(crate) fn is_internal(topic: &str) -> bool {
    topic == OFFSETS_TOPIC || topic == TRANSACTION_TOPIC
}

/// Text of ours as the codec wants it.
pub(crate) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Broker({} at metadata offset {})", self.node, self.image.next_offset)
    }
}
