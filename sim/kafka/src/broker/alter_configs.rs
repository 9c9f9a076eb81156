//! AlterConfigs (33), versions 0 to 2, and IncrementalAlterConfigs (44), versions 0 and 1: what the broker that is asked
//! refuses by itself. The rest goes to the controller, and both answers come back as one.
//!
//! As Kafka's `ConfigAdminManager.preprocess`: the settings of one broker are changed through that broker alone. What a
//! setting may be is the controller's business here, since all brokers know the same settings.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse as LegacyAltered;
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse as Altered;
use kafka_protocol::messages::{
    AlterConfigsResponse, IncrementalAlterConfigsResponse, RequestKind, ResponseKind,
};
use kafka_protocol::protocol::StrBytes;

use super::Broker;
use crate::config::resource::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC};
use crate::controller::shortened;
use crate::metadata::NodeId;

/// The operation that takes a setting away, and so needs no value.
const DELETE: i8 = 1;

/// What is refused here, by its place in the request.
pub(super) type Refusals = BTreeMap<usize, Refused>;

/// A resource that the controller does not see.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    kind: i8,
    name: StrBytes,
    message: String,
}

/// A resource that somebody wants to change, as far as it is looked at here.
struct Wanted<'a> {
    kind: i8,
    name: &'a StrBytes,
    settings: Vec<&'a StrBytes>,
    without_value: Vec<&'a str>,
}

/// The resources of either request, which has types of its own for the same fields.
macro_rules! wanted {
    ($request:ident, |$config:ident| $needs_value:expr) => {{
        let wanted = $request.resources.iter().map(|resource| Wanted {
            kind: resource.resource_type,
            name: &resource.resource_name,
            settings: resource.configs.iter().map(|config| &config.name).collect(),
            without_value: (resource.configs.iter())
                .filter(|$config| $config.value.is_none() && $needs_value)
                .map(|config| config.name.as_str())
                .collect(),
        });
        wanted.collect::<Vec<_>>()
    }};
}

impl Broker {
    /// Takes out of a request what is refused here.
    pub(super) fn refuse_configs(&self, body: &mut RequestKind) -> Refusals {
        match body {
            RequestKind::AlterConfigs(request) => {
                let refused = self.refusals(&wanted!(request, |_config| true), false);
                keep(&mut request.resources, &refused);
                refused
            }
            RequestKind::IncrementalAlterConfigs(request) => {
                let wanted = wanted!(request, |config| config.config_operation != DELETE);
                let refused = self.refusals(&wanted, true);
                keep(&mut request.resources, &refused);
                refused
            }
            _ => Refusals::new(),
        }
    }

    fn refusals(&self, resources: &[Wanted<'_>], incremental: bool) -> Refusals {
        let mut times: BTreeMap<(i8, &StrBytes), usize> = BTreeMap::new();
        for resource in resources {
            *times.entry((resource.kind, resource.name)).or_default() += 1;
        }
        let refused = resources.iter().enumerate().filter_map(|(place, resource)| {
            let message = match times[&(resource.kind, resource.name)] {
                1 => self.refusal(resource, incremental)?,
                _ => "Each resource must appear at most once.".to_owned(),
            };
            let (kind, name) = (resource.kind, resource.name.clone());
            Some((place, Refused { kind, name, message: shortened(message) }))
        });
        refused.collect()
    }

    fn refusal(&self, resource: &Wanted<'_>, incremental: bool) -> Option<String> {
        let name = resource.name.as_str();
        let distinct: BTreeSet<&StrBytes> = resource.settings.iter().copied().collect();
        if distinct.len() < resource.settings.len() {
            return Some("Error due to duplicate config keys".into());
        }
        if !resource.without_value.is_empty() {
            return Some(format!("Null value not supported for : {}", resource.without_value.join(", ")));
        }
        match resource.kind {
            BROKER if name.is_empty() => None,
            BROKER => match name.parse::<NodeId>() {
                Ok(node) if node == self.node => None,
                Ok(_) => Some(format!("Unexpected broker id, expected {}, but received {name}", self.node)),
                Err(_) => Some(format!("Node id must be an integer, but it is: {name}")),
            },
            TOPIC | CLIENT_METRICS | GROUP => None,
            BROKER_LOGGER if incremental => None,
            other => Some(format!("Unknown resource type {other}")),
        }
    }
}

/// Leaves in a request what was not refused.
fn keep<T>(resources: &mut Vec<T>, refused: &Refusals) {
    let mut places = 0..;
    resources.retain(|_| places.next().is_some_and(|place| !refused.contains_key(&place)));
}

/// The answer to a request of which nothing is left for the controller.
pub(super) fn nothing_asked(body: &RequestKind) -> Option<ResponseKind> {
    match body {
        RequestKind::AlterConfigs(request) if request.resources.is_empty() => {
            Some(AlterConfigsResponse::default().into())
        }
        RequestKind::IncrementalAlterConfigs(request) if request.resources.is_empty() => {
            Some(IncrementalAlterConfigsResponse::default().into())
        }
        _ => None,
    }
}

/// What is told of a refused resource in either answer.
macro_rules! told {
    ($answer:ty) => {
        |refused| {
            <$answer>::default()
                .with_resource_type(refused.kind)
                .with_resource_name(refused.name)
                .with_error_code(ResponseError::InvalidRequest.code())
                .with_error_message(Some(StrBytes::from_string(refused.message)))
        }
    };
}

/// The controller's answer, and in its place what was refused here.
pub(super) fn with_refusals(answer: ResponseKind, refused: Refusals) -> ResponseKind {
    match answer {
        ResponseKind::AlterConfigs(mut response) => {
            response.responses = in_order(response.responses, refused, told!(LegacyAltered));
            response.into()
        }
        ResponseKind::IncrementalAlterConfigs(mut response) => {
            response.responses = in_order(response.responses, refused, told!(Altered));
            response.into()
        }
        answer => answer,
    }
}

fn in_order<T>(answered: Vec<T>, mut refused: Refusals, told: impl Fn(Refused) -> T) -> Vec<T> {
    let all = answered.len() + refused.len();
    let mut answered = answered.into_iter();
    let next = |place| refused.remove(&place).map_or_else(|| answered.next(), |one| Some(told(one)));
    (0..all).map_while(next).collect()
}
