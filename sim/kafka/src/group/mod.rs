//! Consumer groups: who is in one, what each member reads, and how far it has come.
//!
//! A [`ClassicGroup`] is the state machine of one group (members, generations, the rebalance). An [`OffsetStore`] has what
//! groups have committed, in transactions and outside of them. A [`Shard`] is both for one partition of
//! `__consumer_offsets`, made of that partition's records; the [`Coordinator`] has the shards of one broker. Start reading
//! at [`ClassicGroup`].
//!
//! Appending to the log, and answering when that is committed, is the broker's (`broker/groups`).
//!
//! Absent: the protocol of KIP-848, share groups, and the lingering of a coordinator's appends
//! (`group.coordinator.append.linger.ms`): each is a batch of its own, at once.

mod classic;
mod coordinator;
mod offsets;
mod records;
mod shard;

pub use classic::{
    Answer, Ask, ClassicGroup, Decision, GroupSettings, JoinRequest, Member, Protocol, Replaced, State,
    SyncRequest, Token,
};
pub use coordinator::{CommitKind, Coordinator, Timer};
pub use offsets::{CommittedOffset, OffsetStore, View};
pub use records::{GroupRecord, StoredGroup, StoredMember};
pub use shard::{Entry, Shard};

/// The internal topic of groups and offsets.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// The partition of the offsets topic that a group lives in: Java's `String.hashCode`, its sign bit off, modulo.
pub fn partition_for(group: &str, partitions: usize) -> usize {
    let hash =
        group.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    (hash & i32::MAX) as usize % partitions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_hashes_as_java_hashes_strings() {
        // "payment".hashCode() is -786681338, "polygenelubricants".hashCode() is Integer.MIN_VALUE.
        assert_eq!(partition_for("payment", 50), ((-786_681_338_i32) & i32::MAX) as usize % 50);
        assert_eq!(partition_for("polygenelubricants", 50), 0);
        assert_eq!(partition_for("", 50), 0);
    }
}
