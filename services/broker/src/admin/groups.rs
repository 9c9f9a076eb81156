//! Groups and their members.

use crate::TopicPartition;

/// A group as its coordinator lists it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupListing {
    /// Its id.
    pub group_id: String,
    /// `consumer` for groups of consumers; empty for one that has only committed offsets.
    pub protocol_type: String,
    /// Kafka's name of its state: `Stable`, `Empty`, `PreparingRebalance`, `CompletingRebalance`, `Dead`.
    pub state: String,
}

/// A group as its coordinator describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    /// Its id.
    pub group_id: String,
    /// As in [`GroupListing::state`].
    pub state: String,
    /// As in [`GroupListing::protocol_type`].
    pub protocol_type: String,
    /// The assignor that the members agreed on; empty unless the group is stable or about to be.
    pub assignor: String,
    /// Its members, in the coordinator's order.
    pub members: Vec<MemberDescription>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberDescription {
    /// The id that the coordinator gave it.
    pub member_id: String,
    /// `group.instance.id`, if set.
    pub group_instance_id: Option<String>,
    /// `client.id`.
    pub client_id: String,
    /// The address that its requests come from, as the broker prints it.
    pub client_host: String,
    /// The partitions it was assigned; empty unless the group is stable.
    pub assignment: Vec<TopicPartition>,
}
