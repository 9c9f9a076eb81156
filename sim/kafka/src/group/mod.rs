//! Consumer groups: who is in one, what each member reads, and how far it has come.
//!
//! A [`ClassicGroup`] is the state machine of one group (members, generations, the rebalance). The [`Coordinator`] holds
//! the groups and offsets of the partitions of `__consumer_offsets` that its broker leads, turns them into that topic's
//! records, and reads them back when it takes a partition over. Start reading at [`ClassicGroup`].
//!
//! Absent: offset expiry, transactional offsets, the protocol of KIP-848.

mod classic;
mod coordinator;
mod records;

pub use classic::{
    Answer, Ask, ClassicGroup, GroupSettings, JoinRequest, Member, Protocol, State, SyncRequest, Token,
};
pub use coordinator::{CommittedOffset, Coordinator, Offsets, Timer};
pub use records::GroupRecord;

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
