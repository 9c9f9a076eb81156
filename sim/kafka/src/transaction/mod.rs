//! Transactions: who may write under a transactional id, what is in its transaction, and how that ends.
//!
//! A [`TransactionMetadata`] is the state machine of one transactional id. The [`Coordinator`] holds those of the
//! partitions of `__transaction_state` that its broker leads: it decides, gives out records to append, and changes state
//! only when its broker says that an append is committed. [`ProducerIds`] hands out producer ids, and the coordinator's
//! marker queues (`markers`) tell the partitions' leaders how a transaction ended. Start reading at [`TransactionMetadata`],
//! then [`Coordinator`], then `end` for what an EndTxn may do.
//!
//! The rules are Kafka 4.1.0's (`TransactionCoordinator`, `TransactionStateManager`, `TransactionMarkerChannelManager`,
//! `TransactionMarkerRequestCompletionHandler`, `RPCProducerIdManager`), its omissions too where a client can see them.
//!
//! Absent: two-phase commit (KIP-939), authorization. What markers do to a partition is the partition's business.

mod coordinator;
mod end;
mod expiry;
mod load;
mod markers;
mod metadata;
mod producer_ids;
mod record;
mod state;
#[cfg(test)]
mod tests;

pub use coordinator::{
    Added, Append, Coordinator, Effect, InitRequest, Leader, Producer, Ticket, Timer, TransactionSettings,
    Verified,
};
pub use end::EndRequest;
pub use expiry::{Described, Filter, Listed};
pub use markers::{Marker, MarkerResult};
pub use metadata::{TopicPartition, TransactionMetadata, Transit};
pub use producer_ids::ProducerIds;
pub use record::{TransactionRecord, UnknownRecord};
pub use state::{TransactionState, TransactionVersion};

/// The internal topic of transactional ids.
pub const TRANSACTION_TOPIC: &str = "__transaction_state";

/// Where there is no producer id.
pub const NO_PRODUCER_ID: i64 = -1;
/// Where there is no epoch.
pub const NO_EPOCH: i16 = -1;
