//! The shapes of the requests that are served: what [`super::guard`] walks before the codec does.
//!
//! Written down from the message schemas of Kafka 4.1 (`clients/src/main/resources/common/message`), fields in their
//! order on the wire. A test walks what the codec itself encodes, in every version served.

use kafka_protocol::messages::ApiKey;

/// How one value lies on the wire.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// So many bytes.
    Fixed(usize),
    /// Text, which may be null.
    Text,
    /// Bytes or records, which may be null.
    Blob,
    /// An array of values.
    Each(&'static Kind),
    /// An array of structures.
    List(&'static [Field]),
    /// One structure.
    One(&'static [Field]),
    /// One structure, after a byte that says whether it is there.
    Maybe(&'static [Field]),
}

/// A field of a structure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) from: i16,
    pub(super) to: i16,
    /// Its number, if it lies among the tagged fields.
    pub(super) tag: Option<u32>,
    pub(super) kind: Kind,
}

/// The request of one API.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// The first version with compact lengths and tagged fields (KIP-482).
    pub(super) flexible: i16,
    pub(super) fields: &'static [Field],
}

use Kind::{Blob, Each, Fixed, List, Maybe, One, Text};

const BYTE: Kind = Fixed(1);
const SHORT: Kind = Fixed(2);
const INT: Kind = Fixed(4);
const LONG: Kind = Fixed(8);
const UUID: Kind = Fixed(16);
const NEWEST: i16 = i16::MAX;

const fn all(kind: Kind) -> Field {
    Field { from: 0, to: NEWEST, tag: None, kind }
}

const fn from(from: i16, kind: Kind) -> Field {
    Field { from, to: NEWEST, tag: None, kind }
}

const fn between(from: i16, to: i16, kind: Kind) -> Field {
    Field { from, to, tag: None, kind }
}

const fn tagged(tag: u32, from: i16, kind: Kind) -> Field {
    Field { from, to: NEWEST, tag: Some(tag), kind }
}

/// The layout of the requests of `api`, if they are served anywhere.
pub(super) fn layout(api: ApiKey) -> Option<Layout> {
    let (flexible, fields): (i16, &'static [Field]) = match api {
        ApiKey::Produce => (9, PRODUCE),
        ApiKey::Fetch => (12, FETCH),
        ApiKey::ListOffsets => (6, LIST_OFFSETS),
        ApiKey::Metadata => (9, METADATA),
        ApiKey::OffsetCommit => (8, OFFSET_COMMIT),
        ApiKey::OffsetFetch => (6, OFFSET_FETCH),
        ApiKey::FindCoordinator => (3, FIND_COORDINATOR),
        ApiKey::JoinGroup => (6, JOIN_GROUP),
        ApiKey::Heartbeat => (4, HEARTBEAT),
        ApiKey::LeaveGroup => (4, LEAVE_GROUP),
        ApiKey::SyncGroup => (4, SYNC_GROUP),
        ApiKey::DescribeGroups => (5, DESCRIBE_GROUPS),
        ApiKey::ListGroups => (3, LIST_GROUPS),
        ApiKey::DeleteGroups => (2, DELETE_GROUPS),
        ApiKey::OffsetDelete => (NEWEST, OFFSET_DELETE),
        ApiKey::TxnOffsetCommit => (3, TXN_OFFSET_COMMIT),
        ApiKey::ApiVersions => (3, API_VERSIONS),
        ApiKey::CreateTopics => (5, CREATE_TOPICS),
        ApiKey::DeleteTopics => (4, DELETE_TOPICS),
        ApiKey::DeleteRecords => (2, DELETE_RECORDS),
        ApiKey::OffsetForLeaderEpoch => (4, OFFSET_FOR_LEADER_EPOCH),
        ApiKey::InitProducerId => (2, INIT_PRODUCER_ID),
        ApiKey::AddPartitionsToTxn => (3, ADD_PARTITIONS_TO_TXN),
        ApiKey::AddOffsetsToTxn => (3, ADD_OFFSETS_TO_TXN),
        ApiKey::EndTxn => (3, END_TXN),
        ApiKey::DescribeTransactions => (0, DESCRIBE_TRANSACTIONS),
        ApiKey::ListTransactions => (0, LIST_TRANSACTIONS),
        ApiKey::WriteTxnMarkers => (1, WRITE_TXN_MARKERS),
        ApiKey::DescribeLogDirs => (2, DESCRIBE_LOG_DIRS),
        ApiKey::DescribeTopicPartitions => (0, DESCRIBE_TOPIC_PARTITIONS),
        ApiKey::DescribeConfigs => (4, DESCRIBE_CONFIGS),
        ApiKey::AlterConfigs => (2, ALTER_CONFIGS),
        ApiKey::IncrementalAlterConfigs => (1, INCREMENTAL_ALTER_CONFIGS),
        ApiKey::CreatePartitions => (2, CREATE_PARTITIONS),
        ApiKey::ElectLeaders => (2, ELECT_LEADERS),
        ApiKey::AlterPartition => (0, ALTER_PARTITION),
        ApiKey::DescribeCluster => (0, DESCRIBE_CLUSTER),
        ApiKey::DescribeProducers => (0, DESCRIBE_PRODUCERS),
        ApiKey::BrokerRegistration => (0, BROKER_REGISTRATION),
        ApiKey::BrokerHeartbeat => (0, BROKER_HEARTBEAT),
        ApiKey::AllocateProducerIds => (0, ALLOCATE_PRODUCER_IDS),
        _ => return None,
    };
    Some(Layout { flexible, fields })
}

const PRODUCE: &[Field] = &[
    from(3, Text), // transactional id
    all(SHORT),    // acks
    all(INT),      // timeout
    all(List(&[between(0, 12, Text), from(13, UUID), all(List(&[all(INT), all(Blob)]))])),
];

const FETCH: &[Field] = &[
    tagged(0, 12, Text), // cluster id
    between(0, 14, INT), // replica id
    tagged(1, 15, One(&[all(INT), all(LONG)])),
    all(INT),     // max wait
    all(INT),     // min bytes
    from(3, INT), // max bytes
    from(4, BYTE),
    from(7, INT), // session id
    from(7, INT), // session epoch
    all(List(&[
        between(0, 12, Text),
        from(13, UUID),
        all(List(&[
            all(INT),      // partition
            from(9, INT),  // current leader epoch
            all(LONG),     // offset
            from(12, INT), // last fetched epoch
            from(5, LONG), // log start offset
            all(INT),      // max bytes
            tagged(0, 17, UUID),
            tagged(1, 18, LONG), // high watermark
        ])),
    ])),
    from(7, List(&[between(0, 12, Text), from(13, UUID), all(Each(&INT))])),
    from(11, Text), // rack
];

const LIST_OFFSETS: &[Field] = &[
    all(INT), // replica id
    from(2, BYTE),
    all(List(&[all(Text), all(List(&[all(INT), from(4, INT), all(LONG)]))])),
    from(10, INT), // timeout
];

const METADATA: &[Field] = &[
    all(List(&[from(10, UUID), all(Text)])),
    from(4, BYTE), // allow auto creation
    between(8, 10, BYTE),
    from(8, BYTE),
];

const OFFSET_COMMIT: &[Field] = &[
    all(Text),
    from(1, INT),  // generation
    from(1, Text), // member
    from(7, Text), // instance
    between(2, 4, LONG),
    all(List(&[all(Text), all(List(&[all(INT), all(LONG), from(6, INT), all(Text)]))])),
];

const OFFSET_FETCH_TOPICS: &[Field] = &[all(Text), all(Each(&INT))];

const OFFSET_FETCH: &[Field] = &[
    between(0, 7, Text),
    between(0, 7, List(OFFSET_FETCH_TOPICS)),
    from(8, List(&[all(Text), from(9, Text), from(9, INT), all(List(OFFSET_FETCH_TOPICS))])),
    from(7, BYTE), // require stable
];

const FIND_COORDINATOR: &[Field] = &[between(0, 3, Text), from(1, BYTE), from(4, Each(&Text))];

const JOIN_GROUP: &[Field] = &[
    all(Text),
    all(INT),     // session timeout
    from(1, INT), // rebalance timeout
    all(Text),    // member
    from(5, Text),
    all(Text), // protocol type
    all(List(&[all(Text), all(Blob)])),
    from(8, Text), // reason
];

const HEARTBEAT: &[Field] = &[all(Text), all(INT), all(Text), from(3, Text)];

const LEAVE_GROUP: &[Field] =
    &[all(Text), between(0, 2, Text), from(3, List(&[all(Text), all(Text), from(5, Text)]))];

const SYNC_GROUP: &[Field] = &[
    all(Text),
    all(INT),
    all(Text),
    from(3, Text),
    from(5, Text),
    from(5, Text),
    all(List(&[all(Text), all(Blob)])),
];

const DESCRIBE_GROUPS: &[Field] = &[all(Each(&Text)), from(3, BYTE)];

const LIST_GROUPS: &[Field] = &[from(4, Each(&Text)), from(5, Each(&Text))];

const DELETE_GROUPS: &[Field] = &[all(Each(&Text))];

const OFFSET_DELETE: &[Field] = &[all(Text), all(List(&[all(Text), all(List(&[all(INT)]))]))];

const TXN_OFFSET_COMMIT: &[Field] = &[
    all(Text),     // transactional id
    all(Text),     // group
    all(LONG),     // producer id
    all(SHORT),    // producer epoch
    from(3, INT),  // generation
    from(3, Text), // member
    from(3, Text), // instance
    all(List(&[all(Text), all(List(&[all(INT), all(LONG), from(2, INT), all(Text)]))])),
];

const API_VERSIONS: &[Field] = &[from(3, Text), from(3, Text)];

const CREATE_TOPICS: &[Field] = &[
    all(List(&[
        all(Text),
        all(INT),   // partitions
        all(SHORT), // replication factor
        all(List(&[all(INT), all(Each(&INT))])),
        all(List(&[all(Text), all(Text)])),
    ])),
    all(INT), // timeout
    from(1, BYTE),
];

const DELETE_TOPICS: &[Field] =
    &[from(6, List(&[all(Text), all(UUID)])), between(0, 5, Each(&Text)), all(INT)];

const DELETE_RECORDS: &[Field] = &[all(List(&[all(Text), all(List(&[all(INT), all(LONG)]))])), all(INT)];
const OFFSET_FOR_LEADER_EPOCH: &[Field] =
    &[from(3, INT), all(List(&[all(Text), all(List(&[all(INT), from(2, INT), all(INT)]))]))];

const INIT_PRODUCER_ID: &[Field] = &[all(Text), all(INT), from(3, LONG), from(3, SHORT)];

const ADD_PARTITIONS_TO_TXN: &[Field] = &[
    from(4, List(&[all(Text), all(LONG), all(SHORT), all(BYTE), all(List(&[all(Text), all(Each(&INT))]))])),
    between(0, 3, Text),  // transactional id
    between(0, 3, LONG),  // producer
    between(0, 3, SHORT), // its epoch
    between(0, 3, List(&[all(Text), all(Each(&INT))])),
];

const ADD_OFFSETS_TO_TXN: &[Field] = &[all(Text), all(LONG), all(SHORT), all(Text)];

const END_TXN: &[Field] = &[all(Text), all(LONG), all(SHORT), all(BYTE)];

const DESCRIBE_TRANSACTIONS: &[Field] = &[all(Each(&Text))];

const LIST_TRANSACTIONS: &[Field] = &[all(Each(&Text)), all(Each(&LONG)), from(1, LONG), from(2, Text)];
const WRITE_TXN_MARKERS: &[Field] = &[all(List(&[
    all(LONG),  // producer
    all(SHORT), // its epoch
    all(BYTE),  // committed
    all(List(&[all(Text), all(Each(&INT))])),
    all(INT), // coordinator epoch
]))];

const DESCRIBE_PRODUCERS: &[Field] = &[all(List(&[all(Text), all(Each(&INT))]))];
const DESCRIBE_LOG_DIRS: &[Field] = &[all(List(&[all(Text), all(Each(&INT))]))];

const DESCRIBE_TOPIC_PARTITIONS: &[Field] = &[
    all(List(&[all(Text)])),
    all(INT), // partitions of a page
    all(Maybe(&[all(Text), all(INT)])),
];

const DESCRIBE_CONFIGS: &[Field] = &[
    all(List(&[all(BYTE), all(Text), all(Each(&Text))])),
    from(1, BYTE), // synonyms
    from(3, BYTE), // documentation
];

const ALTER_CONFIGS: &[Field] =
    &[all(List(&[all(BYTE), all(Text), all(List(&[all(Text), all(Text)]))])), all(BYTE)];

const INCREMENTAL_ALTER_CONFIGS: &[Field] =
    &[all(List(&[all(BYTE), all(Text), all(List(&[all(Text), all(BYTE), all(Text)]))])), all(BYTE)];

const CREATE_PARTITIONS: &[Field] = &[
    all(List(&[
        all(Text),
        all(INT),                      // count
        all(List(&[all(Each(&INT))])), // replicas of each new one
    ])),
    all(INT), // timeout
    all(BYTE),
];

const ELECT_LEADERS: &[Field] = &[
    from(1, BYTE), // kind of election
    all(List(&[all(Text), all(Each(&INT))])),
    all(INT), // timeout
];

const ALTER_PARTITION: &[Field] = &[
    all(INT),  // broker
    all(LONG), // its epoch
    all(List(&[
        between(0, 1, Text),
        from(2, UUID),
        all(List(&[
            all(INT), // partition
            all(INT), // leader epoch
            between(0, 2, Each(&INT)),
            from(3, List(&[all(INT), all(LONG)])),
            from(1, BYTE), // recovery
            all(INT),      // partition epoch
        ])),
    ])),
];

const DESCRIBE_CLUSTER: &[Field] = &[all(BYTE), from(1, BYTE), from(2, BYTE)];

const BROKER_REGISTRATION: &[Field] = &[
    all(INT),
    all(Text), // cluster id
    all(UUID), // incarnation
    all(List(&[all(Text), all(Text), all(SHORT), all(SHORT)])),
    all(List(&[all(Text), all(SHORT), all(SHORT)])),
    all(Text), // rack
    from(1, BYTE),
    from(2, Each(&UUID)),
    from(3, LONG),
];

const BROKER_HEARTBEAT: &[Field] =
    &[all(INT), all(LONG), all(LONG), all(BYTE), all(BYTE), tagged(0, 1, Each(&UUID))];

const ALLOCATE_PRODUCER_IDS: &[Field] = &[all(INT), all(LONG)];
