//! CreateTopics (19) and DeleteTopics (20): passed on to the controller, and its answer passed back.
//!
//! Kafka wraps them in Envelope requests; between our own nodes the request goes as it came. If the controller does not
//! answer, each topic is told so with REQUEST_TIMED_OUT.

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{
    ApiKey, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsResponse, RequestKind, ResponseKind,
    TopicName,
};

use super::lifecycle::Pending;
use super::{Broker, Turn, text};
use crate::core::{ConnectionId, Lane, Link, Output};
use crate::wire::{self, Call};

/// How long a broker lets the controller take for topics that it wants itself.
const AUTO_CREATE_TIMEOUT_MS: i32 = 30_000;

impl Broker {
    pub(super) fn forward(
        &mut self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: Call,
        body: RequestKind,
        frame: &Bytes,
    ) {
        let pending = Pending::Forwarded { connection, call, body: Box::new(body) };
        self.ask(turn, Link::controller(Lane::Forward), pending, frame.clone());
    }

    pub(super) fn forwarded(
        &self,
        turn: &mut Turn<'_>,
        connection: ConnectionId,
        call: &Call,
        body: &RequestKind,
        answer: Option<Bytes>,
    ) {
        match answer.filter(|frame| frame.len() >= 4) {
            Some(frame) => {
                let frame = wire::with_correlation(&frame, call.correlation);
                turn.out.push(Output::Respond { connection, frame });
            }
            None => turn.respond(connection, call, timed_out(call, body)),
        }
    }

    /// Asks for topics that a client's request needs, unless that is under way.
    pub(super) fn auto_create(&mut self, turn: &mut Turn<'_>, topics: Vec<CreatableTopic>) {
        let fresh: Vec<_> =
            topics.into_iter().filter(|topic| self.creating.insert(topic.name.to_string())).collect();
        if fresh.is_empty() {
            return;
        }
        let names = fresh.iter().map(|topic| topic.name.to_string()).collect();
        let request =
            CreateTopicsRequest::default().with_topics(fresh).with_timeout_ms(AUTO_CREATE_TIMEOUT_MS);
        let frame = wire::request(ApiKey::CreateTopics, 7, 0, &request);
        self.ask(turn, Link::controller(Lane::Forward), Pending::AutoCreate { names }, frame);
    }
}

/// A topic to make, as a broker asks for it.
pub(super) fn wanted(name: &str, partitions: i32, config: &[(&str, &str)]) -> CreatableTopic {
    let setting = |&(name, value): &(&str, &str)| {
        CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
    };
    CreatableTopic::default()
        .with_name(TopicName(text(name)))
        .with_num_partitions(partitions)
        .with_replication_factor(-1)
        .with_configs(config.iter().map(setting).collect())
}

fn timed_out(call: &Call, body: &RequestKind) -> ResponseKind {
    let code = ResponseError::RequestTimedOut.code();
    match body {
        RequestKind::CreateTopics(request) => {
            let result = |topic: &CreatableTopic| {
                let mut result =
                    CreatableTopicResult::default().with_name(topic.name.clone()).with_error_code(code);
                if call.version >= 5 {
                    (result.num_partitions, result.replication_factor) = (-1, -1);
                }
                result
            };
            CreateTopicsResponse::default().with_topics(request.topics.iter().map(result).collect()).into()
        }
        RequestKind::DeleteTopics(request) => {
            let named = request
                .topic_names
                .iter()
                .map(|name| DeletableTopicResult::default().with_name(Some(name.clone())));
            let states = request.topics.iter().map(|topic| {
                DeletableTopicResult::default().with_name(topic.name.clone()).with_topic_id(topic.topic_id)
            });
            let results = named.chain(states).map(|result| result.with_error_code(code));
            DeleteTopicsResponse::default().with_responses(results.collect()).into()
        }
        _ => unreachable!("only topics are created and deleted through the controller"),
    }
}
