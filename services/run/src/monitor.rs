//! A service's answers about itself.
//!
//! | path | says |
//! |---|---|
//! | `/health/live` | 200 while it runs; restart it otherwise |
//! | `/health/ready` | 200 while the last poll of each of its consumers went well, 503 with the reason otherwise |
//! | `/metrics` | its numbers, for Prometheus (OpenMetrics text) |

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use context::Context;
use kit::http::{Endpoint, Method, Request, Response, StatusCode};
use kit::{ServiceHandle, Store};

/// What OpenMetrics 1.0 calls itself.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers for one service.
pub(crate) struct Monitor {
    store: Arc<dyn Store>,
    service: OnceLock<ServiceHandle>,
}

impl Monitor {
    /// Of a service that is yet to start.
    pub(crate) fn new(store: Arc<dyn Store>) -> Monitor {
        Monitor { store, service: OnceLock::new() }
    }

    /// The service has started.
    pub(crate) fn started(&self, service: ServiceHandle) {
        assert!(self.service.set(service).is_ok(), "a service starts once in a process");
    }

    fn is_live(&self) -> Response {
        // Before its start it waits for Kafka, which is no reason to restart it.
        match self.service.get() {
            Some(service) if !service.health().is_live() => unavailable("it is closing"),
            _ => Response::text(StatusCode::OK, "live\n"),
        }
    }

    fn is_ready(&self) -> Response {
        match self.service.get() {
            None => unavailable("it is starting: it waits for Kafka"),
            Some(service) if service.health().is_ready() => Response::text(StatusCode::OK, "ready\n"),
            Some(_) => unavailable("a consumer cannot poll"),
        }
    }

    fn metrics(&self) -> Response {
        let Some(service) = self.service.get() else {
            return unavailable("it is starting");
        };
        match service.metrics().look(&*self.store) {
            Ok(()) => Response {
                content_type: Some(OPEN_METRICS),
                ..Response::text(StatusCode::OK, service.metrics().text())
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
    async fn call(&self, _: &Context, request: Request) -> Response {
        match (request.method, request.path.as_str()) {
            (Method::GET, "/health/live") => self.is_live(),
            (Method::GET, "/health/ready") => self.is_ready(),
            (Method::GET, "/metrics") => self.metrics(),
            _ => Response::text(StatusCode::NOT_FOUND, "there is /health/live, /health/ready and /metrics\n"),
        }
    }
}
