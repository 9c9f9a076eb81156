//! What goes into a group and what comes out: requests without their wire form, and answers.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;

use super::Member;
use crate::core::ConnectionId;
use crate::wire::Call;

/// Whom to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The connection.
    pub connection: ConnectionId,
    /// The request.
    pub call: Call,
    /// It has been told already that it waited too long. Its group counts it among those who wait all the same.
    pub answered: bool,
}

impl Token {
    /// Nobody has answered yet.
    pub fn new(connection: ConnectionId, call: Call) -> Token {
        Token { connection, call, answered: false }
    }
}

/// A protocol that a member can speak: an assignor's name and what the member tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// `range`, `cooperative-sticky`…
    pub name: String,
    /// Topics subscribed to, and more; opaque here.
    pub metadata: Bytes,
}

/// What a member asks for when it joins.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    /// Whom to answer.
    pub token: Token,
    /// Empty for a new member.
    pub member_id: String,
    /// Of a static member.
    pub instance: Option<String>,
    /// The id that a new member gets.
    pub fresh_id: String,
    /// For tools.
    pub client_id: String,
    /// For tools.
    pub client_host: String,
    /// How long it may be silent.
    pub session_timeout: Duration,
    /// How long it may take to join anew.
    pub rebalance_timeout: Duration,
    /// `consumer`.
    pub protocol_type: String,
    /// In its order of preference.
    pub protocols: Vec<Protocol>,
    /// The client knows MEMBER_ID_REQUIRED (JoinGroup 4 and later).
    pub requires_known_id: bool,
    /// The client knows `skip_assignment` (JoinGroup 9 and later).
    pub can_skip_assignment: bool,
}

/// What a member asks for, and a leader brings, when the members have joined.
#[derive(Clone, Debug)]
pub struct SyncRequest {
    /// Whom to answer.
    pub token: Token,
    /// Given by the coordinator.
    pub member_id: String,
    /// Of a static member.
    pub instance: Option<String>,
    /// The generation that it believes in.
    pub generation: i32,
    /// What it takes the protocol type for; `None` if its version cannot say.
    pub protocol_type: Option<String>,
    /// What it takes the protocol for; `None` if its version cannot say.
    pub protocol: Option<String>,
    /// From the leader: what each member reads.
    pub assignments: Vec<(String, Bytes)>,
}

/// How a member names itself in a sync, heartbeat or commit.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Given by the coordinator.
    pub member_id: &'a str,
    /// Of a static member.
    pub instance: Option<&'a str>,
    /// The generation that it believes in.
    pub generation: i32,
}

/// What must be in the log before a group goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The group is new: its first member.
    Create {
        /// Who asked to join it.
        token: Token,
    },
    /// What each member reads, by its leader.
    Assign {
        /// The generation that it is for.
        generation: i32,
        /// By member id.
        assignments: BTreeMap<String, Bytes>,
    },
    /// A static member is back under a new id.
    Replace(Box<Replaced>),
}

/// A static member that came back, and what it was before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// Its new id.
    pub id: String,
    /// As it was.
    pub before: Member,
    /// The leader of the group as it was.
    pub leader_before: Option<String>,
    /// Who asked.
    pub token: Token,
    /// The client knows `skip_assignment`.
    pub can_skip_assignment: bool,
}

/// What a group tells its members and its coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A join is done.
    Joined {
        /// Whom to answer.
        token: Token,
        /// The new generation.
        generation: i32,
        /// The protocol that all speak.
        protocol: Option<String>,
        /// The member that assigns.
        leader: String,
        /// The member answered.
        member_id: String,
        /// For the leader: id, instance and metadata of each member.
        members: Vec<(String, Option<String>, Bytes)>,
        /// The leader need not assign: nothing has changed.
        skip_assignment: bool,
    },
    /// A join failed.
    JoinFailed {
        /// Whom to answer.
        token: Token,
        /// The member id, which is new with MEMBER_ID_REQUIRED.
        member_id: String,
        /// Why.
        error: ResponseError,
    },
    /// A sync is done.
    Synced {
        /// Whom to answer.
        token: Token,
        /// The protocol that all speak.
        protocol: Option<String>,
        /// What the member reads.
        assignment: Bytes,
    },
    /// A sync failed.
    SyncFailed {
        /// Whom to answer.
        token: Token,
        /// Why.
        error: ResponseError,
    },
    /// The group must be written to its log, and the decision comes back when that is committed or has failed.
    Persist(Option<Decision>),
    /// A line for the trace.
    Note(String),
}

impl Answer {
    /// Whom it answers, if it answers somebody.
    pub fn token(&self) -> Option<&Token> {
        match self {
            Answer::Joined { token, .. }
            | Answer::JoinFailed { token, .. }
            | Answer::Synced { token, .. }
            | Answer::SyncFailed { token, .. } => Some(token),
            Answer::Persist(_) | Answer::Note(_) => None,
        }
    }
}
