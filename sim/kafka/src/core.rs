//! What goes into a core and what comes out of it. Broker and controller share the words, so that one shell carries both.

use std::time::Duration;

use bytes::Bytes;
use context::Timestamp;
use uuid::Uuid;

use crate::metadata::NodeId;

/// A connection that a node accepted; numbered from 0 by its shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// A node that another one talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// The controller.
    Controller,
    /// A broker.
    Broker(NodeId),
}

/// What a connection between nodes is for. Each takes one request at a time, so what may wait has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Registration and heartbeats, to the controller.
    Heartbeat,
    /// Fetches of the metadata log, from the controller.
    Metadata,
    /// What clients asked for and the controller decides; blocks of producer ids.
    Forward,
    /// Changes of the in-sync replicas, which the controller decides.
    AlterPartition,
    /// Fetches of a follower from the leaders on one broker.
    Replicate,
    /// Markers of a transaction, from its coordinator to the leaders on one broker.
    Markers,
    /// Questions of a leader to the coordinator of a transaction: is this partition in it?
    Verify,
}

/// A connection that a node makes: to whom and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    /// To whom.
    pub peer: Peer,
    /// What for.
    pub lane: Lane,
    /// Tells it from those before it that were let go ([`Output::HangUp`]): an answer that was on its way is not taken for
    /// one to a question on this link.
    pub round: u32,
}

impl Link {
    /// To the controller.
    pub const fn controller(lane: Lane) -> Link {
        Link { peer: Peer::Controller, lane, round: 0 }
    }

    /// To a broker.
    pub const fn broker(node: NodeId, lane: Lane) -> Link {
        Link { peer: Peer::Broker(node), lane, round: 0 }
    }

    /// The fetcher of a follower, to a leader: each has its own.
    pub const fn fetcher(leader: NodeId, round: u32) -> Link {
        Link { peer: Peer::Broker(leader), lane: Lane::Replicate, round }
    }
}

/// Where a peer listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Name or number of its host.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// What can happen to a node.
#[derive(Clone, Debug)]
pub enum Input {
    /// Its process starts, on a disk that may hold what an earlier one left.
    Start {
        /// Tells this process from the ones before.
        incarnation: Uuid,
    },
    /// A frame from a peer.
    Request {
        /// Where it came from.
        connection: ConnectionId,
        /// The peer's name or address.
        peer: std::sync::Arc<str>,
        /// Without its length.
        frame: Bytes,
    },
    /// The answer to the oldest request on a link; `None` if there will be none: the peer refused the connection, broke
    /// it, or took longer than the request's patience.
    Answered {
        /// The link.
        link: Link,
        /// Without its length.
        frame: Option<Bytes>,
    },
    /// The time that it asked to be woken at has come.
    Wake,
    /// Its process is asked to end (SIGTERM): a broker gives its leaderships away first.
    Shutdown,
}

/// What a node wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Answer a request.
    Respond {
        /// Where it came from.
        connection: ConnectionId,
        /// Without its length.
        frame: Bytes,
    },
    /// A request is done that has no answer (`acks=0`): read the next.
    Done {
        /// Where it came from.
        connection: ConnectionId,
    },
    /// End a connection.
    Close {
        /// Which.
        connection: ConnectionId,
        /// Why.
        reason: String,
    },
    /// Send a request to a peer. Each is answered by one [`Input::Answered`], in the order in which a link was asked, unless
    /// the link is let go.
    Ask {
        /// On which link.
        link: Link,
        /// Where the peer listens. A link that is connected elsewhere connects anew.
        to: Address,
        /// Without its length.
        frame: Bytes,
        /// How long an answer may take, from when the request before it on the link was answered. A refused connect to the
        /// controller is tried again within this time; one to a broker is not.
        patience: Duration,
    },
    /// Let a link go for good: its connection closes, and what was asked on it gets no answer.
    HangUp {
        /// Which.
        link: Link,
    },
    /// Open the port: peers are welcome from now on.
    Listen,
    /// Wake it then, or before.
    WakeAt(Timestamp),
    /// The process has done what [`Input::Shutdown`] asked for and ends: nothing more is handed to it.
    Stopped,
    /// A line for the trace.
    Note(String),
}
