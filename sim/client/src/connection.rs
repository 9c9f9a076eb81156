//! One broker's connection: an actor that connects when asked to send, pipelines requests, and gives each its answer.
//!
//! Requests go out in the order in which [`Connection::request`] was called, and brokers answer in that order. So an
//! answer that does not come in time leaves nothing to wait for: the connection is closed, and every request on it
//! fails. Who called decides about retries; [`Failed`] says whether the request may have taken effect.
//!
//! Here is what callers hold. `actor.rs` has the socket, `versions.rs` what is spoken on it.

mod actor;
mod versions;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use broker::Error;
use bytes::{Bytes, BytesMut};
use context::{Context, TaskHandle};
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::{Request, StrBytes};
use tokio::sync::{mpsc, oneshot};

use actor::{Actor, ReconnectBackoff};
use versions::{Versions, decode};

use crate::error::{timed_out, transport};
use crate::properties::Settings;

/// Where a connection stands, for those who may choose between several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// Connected.
    Up = 0,
    /// Never tried, or closed after it was up.
    Idle = 1,
    /// Being connected, or waiting to be after a failure.
    Down = 2,
}

/// A request without an answer.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    pub(crate) error: Error,
    /// It may have reached the broker, so whether it took effect is unknown.
    pub(crate) sent: bool,
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Error {
        failed.error
    }
}

/// What a request's answer is, or why there is none.
pub(crate) type Answer<R> = Result<Answered<R>, Failed>;

/// An answer with the version in which it was asked.
#[derive(Debug)]
pub(crate) struct Answered<R> {
    pub(crate) version: i16,
    pub(crate) body: R,
}

/// A connection to one broker. Dropping it closes it.
pub(crate) struct Connection {
    context: Context,
    name: Arc<str>,
    queue: mpsc::UnboundedSender<Queued>,
    expired: mpsc::UnboundedSender<u64>,
    shared: Arc<Shared>,
    next_id: Mutex<u64>,
    task: TaskHandle,
}

/// The levels of the features that the cluster has finalized, as one broker knew them when it was connected to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FinalizedFeatures {
    /// Rises with each change of a level.
    pub(crate) epoch: i64,
    pub(crate) levels: BTreeMap<String, i16>,
}

struct Shared {
    standing: AtomicU8,
    /// Of the last time that it was up.
    features: Mutex<FinalizedFeatures>,
    /// The id of the last request that was handed to the socket.
    sent_up_to: Mutex<Option<u64>>,
}

type Frame = (i16, Bytes);

type Encode = Box<dyn FnOnce(&Versions, i32) -> Result<(i16, BytesMut), Error> + Send>;

struct Queued {
    id: u64,
    /// `None`: nothing is to be sent; whoever queued it wants to know when the connection is up.
    encode: Option<Encode>,
    /// `false`: the broker will not answer (a produce request with `acks=0`).
    answered: bool,
    reply: oneshot::Sender<Result<Frame, Failed>>,
}

impl Connection {
    /// A connection to `host`; nothing is connected before the first request. `name` tells its jitter from others'.
    pub(crate) fn new(
        context: &Context,
        settings: &Settings,
        name: &str,
        host: &str,
        port: u16,
    ) -> Connection {
        let (queue, queued) = mpsc::unbounded_channel();
        let (expired, expirations) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            standing: AtomicU8::new(Standing::Idle as u8),
            features: Mutex::default(),
            sent_up_to: Mutex::new(None),
        });
        let actor = Actor {
            context: context.clone(),
            host: host.to_owned(),
            port,
            habits: settings.habits,
            client_id: StrBytes::from_string(settings.client_id.clone()),
            setup_timeout: settings.connection_setup_timeout,
            frame_bytes_max: settings.receive_message_max_bytes,
            in_flight_max: settings.max_in_flight,
            backoff: ReconnectBackoff::new(settings, context.rng(&format!("reconnect {name}"))),
            shared: shared.clone(),
            queued,
            expirations,
            pending: VecDeque::new(),
            correlation_id: 0,
        };
        let task = context.spawn("kafka connection", actor.run()).handle();
        Connection {
            context: context.clone(),
            name: format!("{host}:{port}").into(),
            queue,
            expired,
            shared,
            next_id: Mutex::new(0),
            task,
        }
    }

    pub(crate) fn standing(&self) -> Standing {
        match self.shared.standing.load(Ordering::Relaxed) {
            0 => Standing::Up,
            1 => Standing::Idle,
            _ => Standing::Down,
        }
    }

    /// What the broker said of the cluster's features when it was last connected to; none before, and from a broker
    /// that is too old to tell.
    pub(crate) fn features(&self) -> FinalizedFeatures {
        self.shared.features.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Queues a request and gives the future of its answer, which waits for at most `timeout`. `build` makes the request
    /// for the version that was agreed with the broker, at most `version_max`.
    pub(crate) fn request<R>(
        &self,
        timeout: Duration,
        version_max: i16,
        build: impl FnOnce(i16) -> R + Send + 'static,
    ) -> impl Future<Output = Answer<R::Response>> + Send + 'static
    where
        R: Request + 'static,
        R::Response: Send,
    {
        let what = ApiKey::try_from(R::KEY).map_or_else(|_| "request".to_owned(), |key| format!("{key:?}"));
        let reply = self.enqueue(timeout, true, version_max, build);
        let name = self.name.clone();
        async move {
            let (version, mut frame) = reply.await?;
            decode::<R::Response>(&mut frame, version).map(|body| Answered { version, body }).map_err(
                |error| Failed { error: transport(format!("{what} answer of {name}: {error}")), sent: true },
            )
        }
    }

    /// As [`Connection::request`], for a request that the broker does not answer: done when it is on its way.
    pub(crate) fn send<R: Request + 'static>(
        &self,
        timeout: Duration,
        version_max: i16,
        build: impl FnOnce(i16) -> R + Send + 'static,
    ) -> impl Future<Output = Result<(), Failed>> + Send + 'static {
        let reply = self.enqueue(timeout, false, version_max, build);
        async move { reply.await.map(|_| ()) }
    }

    /// Connects if need be; done when the connection is up, or could not be made.
    pub(crate) fn ready(
        &self,
        timeout: Duration,
    ) -> impl Future<Output = Result<(), Failed>> + Send + 'static {
        let reply = self.queue(timeout, false, None);
        async move { reply.await.map(|_| ()) }
    }

    fn enqueue<R: Request + 'static>(
        &self,
        timeout: Duration,
        answered: bool,
        version_max: i16,
        build: impl FnOnce(i16) -> R + Send + 'static,
    ) -> impl Future<Output = Result<Frame, Failed>> + Send + 'static {
        let encode: Encode =
            Box::new(move |versions, correlation_id| versions.encode(version_max, correlation_id, build));
        self.queue(timeout, answered, Some(encode))
    }

    fn queue(
        &self,
        timeout: Duration,
        answered: bool,
        encode: Option<Encode>,
    ) -> impl Future<Output = Result<Frame, Failed>> + Send + 'static {
        let (reply, receiver) = oneshot::channel();
        let id = {
            let mut next = self.next_id.lock().unwrap_or_else(PoisonError::into_inner);
            *next += 1;
            *next
        };
        // The actor lives as long as this handle; if its host is being shut down the receiver fails below.
        self.queue.send(Queued { id, encode, answered, reply }).ok();
        let (context, name, shared, expired) =
            (self.context.clone(), self.name.clone(), self.shared.clone(), self.expired.clone());
        async move {
            match context.timeout(timeout, receiver).await {
                Ok(Ok(frame)) => frame,
                Ok(Err(_)) => Err(Failed {
                    error: transport(format!("{name}: the connection was dropped")),
                    sent: true,
                }),
                Err(_) => {
                    let sent_up_to = *shared.sent_up_to.lock().unwrap_or_else(PoisonError::into_inner);
                    let sent = sent_up_to.is_some_and(|last| last >= id);
                    // Nobody may be there to hear it; then the connection is closed already.
                    expired.send(id).ok();
                    let error = timed_out(format!("{name}: no answer within {timeout:?}"));
                    Err(Failed { error, sent })
                }
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests;
