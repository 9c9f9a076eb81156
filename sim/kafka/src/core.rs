//! What goes into a core and what comes out of it. Broker and controller share the words, so that one shell carries both.

use bytes::Bytes;
use context::Timestamp;
use uuid::Uuid;

/// A connection that a node accepted; numbered from 0 by its shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// A connection from a broker to the controller. Each takes one request at a time, so what may wait has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    /// Registration and heartbeats.
    Heartbeat,
    /// Fetches of the metadata log.
    Metadata,
    /// What clients asked for and the controller decides; blocks of producer ids.
    Forward,
}

/// All channels.
pub const CHANNELS: [Channel; 3] = [Channel::Heartbeat, Channel::Metadata, Channel::Forward];

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
    /// The answer to the oldest request on a channel to the controller; `None` if there will be none.
    FromController {
        /// The channel.
        channel: Channel,
        /// Without its length.
        frame: Option<Bytes>,
    },
    /// The time that it asked to be woken at has come.
    Wake,
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
    /// Send a request to the controller.
    ToController {
        /// On which channel.
        channel: Channel,
        /// Without its length.
        frame: Bytes,
    },
    /// Open the port: peers are welcome from now on.
    Listen,
    /// Wake it then, or before.
    WakeAt(Timestamp),
    /// A line for the trace.
    Note(String),
}
