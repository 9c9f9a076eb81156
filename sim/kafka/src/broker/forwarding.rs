//! The channel to the controller: what clients ask and it decides, topics that this broker wants itself, blocks of producer
//! ids.
//!
//! As Kafka's `NodeToControllerRequestThread`: one request at a time, in the order in which they came. One attempt may take
//! `controller.socket.timeout.ms`. A request whose answer is lost is sent again, before all others, until it is a minute
//! old: then whoever asked is told that it timed out. The controller may have done long ago what it is asked again. So a
//! client may hear TOPIC_ALREADY_EXISTS of the topic that it has just created.
//!
//! A request that is too old while another is under way is looked at when that one is done with.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use context::Timestamp;

use super::lifecycle::Pending;
use super::{Broker, Timer, Turn};
use crate::core::{Lane, Link, Output};

/// `BrokerServer` gives its forwarding channel a minute (`retryTimeoutMs`).
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);
/// How soon after a lost answer the channel connects anew.
const RECONNECT_BACKOFF: Duration = Duration::from_millis(50);

/// What waits for the controller, the oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Forwarding {
    queue: VecDeque<Question>,
    /// The first of them was sent, or is about to be sent again.
    under_way: bool,
}

#[derive(Clone, Debug)]
struct Question {
    since: Timestamp,
    pending: Pending,
    frame: Bytes,
}

impl Broker {
    /// Asks the controller, when those who came before have their answers.
    pub(super) fn ask_controller(&mut self, turn: &mut Turn<'_>, pending: Pending, frame: Bytes) {
        self.forwarding.queue.push_back(Question { since: turn.now, pending, frame });
        self.forward_next(turn);
    }

    fn forward_next(&mut self, turn: &mut Turn<'_>) {
        while !self.forwarding.under_way {
            let Some(question) = self.forwarding.queue.front() else { return };
            if turn.now.since(question.since) < RETRY_TIMEOUT {
                self.forwarding.under_way = true;
                let (link, to) = (Link::controller(Lane::Forward), self.controller.clone());
                let (frame, patience) = (question.frame.clone(), self.patience(link.lane));
                return turn.out.push(Output::Ask { link, to, frame, patience });
            }
            self.conclude(turn, None);
        }
    }

    /// The controller answered, or the connection to it is gone.
    pub(super) fn controller_answered(&mut self, turn: &mut Turn<'_>, frame: Option<Bytes>) {
        match frame {
            Some(frame) => {
                self.forwarding.under_way = false;
                self.conclude(turn, Some(frame));
                self.forward_next(turn);
            }
            None => self.timers.set(turn.now + RECONNECT_BACKOFF, Timer::Forward),
        }
    }

    pub(super) fn forward_again(&mut self, turn: &mut Turn<'_>) {
        self.forwarding.under_way = false;
        self.forward_next(turn);
    }

    /// The oldest has its answer, or will have none.
    fn conclude(&mut self, turn: &mut Turn<'_>, frame: Option<Bytes>) {
        let question = self.forwarding.queue.pop_front().expect("the controller answers what it was asked");
        self.take_answer(turn, question.pending, frame);
    }
}
