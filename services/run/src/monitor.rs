//! A service's answers about itself.
//!
//! | path | says |
//! |---|---|
//! | `/health/live` | 200 from its start to its end; restart it otherwise |
//! | `/health/ready` | 200 while Kafka answers and the last poll of each of its consumers went well, 503 with the reason otherwise |
//! | `/metrics` | its numbers and those of its Kafka clients, for Prometheus (OpenMetrics text) |

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use broker::Admin;
use context::{Context, Timestamp};
use kit::http::{Endpoint, Method, Request, Response, StatusCode};
use kit::{ServiceHandle, Store};
use rdkafka_broker::Statistics;

use crate::clients;

/// What OpenMetrics 1.0 calls itself.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How long Kafka may take to answer for the service to be ready. A consumer does not tell: while no broker can be reached
/// its polls bring nothing, as they do when there is nothing to bring.
const KAFKA_ANSWERS: Duration = Duration::from_secs(3);

/// Answers for one service.
pub(crate) struct Monitor {
    store: Arc<dyn Store>,
    statistics: Statistics,
    started: OnceLock<(ServiceHandle, Arc<dyn Admin>)>,
}

impl Monitor {
    /// Of a service that is yet to start.
    pub(crate) fn new(store: Arc<dyn Store>, statistics: Statistics) -> Monitor {
        Monitor { store, statistics, started: OnceLock::new() }
    }

    /// The service has started; `admin` asks its Kafka.
    pub(crate) fn started(&self, service: ServiceHandle, admin: Arc<dyn Admin>) {
        assert!(self.started.set((service, admin)).is_ok(), "a service starts once in a process");
    }

    fn is_live(&self) -> Response {
        // Before its start it waits for Kafka, which is no reason to restart it.
        match self.started.get() {
            Some((service, _)) if !service.health().is_live() => unavailable("it has ended"),
            _ => Response::text(StatusCode::OK, "live\n"),
        }
    }

    async fn is_ready(&self, context: &Context) -> Response {
        let Some((service, admin)) = self.started.get() else {
            return unavailable("it is starting: it waits for Kafka");
        };
        if !service.health().is_ready() {
            return unavailable("a consumer cannot poll, or it is closing");
        }
        match context.timeout(KAFKA_ANSWERS, admin.describe_topics(&[])).await {
            Ok(Ok(_)) => Response::text(StatusCode::OK, "ready\n"),
            Ok(Err(error)) => unavailable(&format!("Kafka: {error}")),
            Err(_) => unavailable(&format!("Kafka has not answered within {KAFKA_ANSWERS:?}")),
        }
    }

    fn metrics(&self, now: Timestamp) -> Response {
        let Some((service, _)) = self.started.get() else {
            return unavailable("it is starting");
        };
        let clients = clients::registry(&self.statistics.clients(), now);
        match service.metrics().look(&*self.store) {
            Ok(()) => Response {
                content_type: Some(OPEN_METRICS),
                ..Response::text(StatusCode::OK, service.metrics().text_with(&clients))
            },
            Err(error) => Response::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }
}

fn unavailable(why: &str) -> Response {
    Response::text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"))
}

#[async_trait]
impl Endpoint for Monitor {
    async fn call(&self, context: &Context, request: Request) -> Response {
        match (request.method, request.path.as_str()) {
            (Method::GET, "/health/live") => self.is_live(),
            (Method::GET, "/health/ready") => self.is_ready(context).await,
            (Method::GET, "/metrics") => self.metrics(context.now()),
            _ => Response::text(StatusCode::NOT_FOUND, "there is /health/live, /health/ready and /metrics\n"),
        }
    }
}
