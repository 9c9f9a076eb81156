//! One broker's connection: an actor that connects when asked to send, pipelines requests, and gives each its answer.
//!
//! Requests go out in the order in which [`Connection::request`] was called, and brokers answer in that order. So an
//! answer that does not come in time leaves nothing to wait for: the connection is closed, and every request on it
//! fails. Who called decides about retries; [`Failed`] says whether the request may have taken effect.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use broker::{Error, ErrorClass, ErrorCode};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use context::{BoxStream, Context, Rng, TaskHandle, Timestamp};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, RequestHeader, ResponseHeader,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};

use crate::backoff::jittered;
use crate::error::{self, code, timed_out, transport};
use crate::properties::{Habits, Settings};

/// The versions of each request that this client speaks; it takes the highest that the broker speaks too. The largest
/// are those of the client whose habits it has, where a broker treats a version differently: librdkafka's 2.12 from its
/// `rdkafka_request.c`, Java's 4.1 from its message schemas, as far as crate `kafka-protocol` reads them.
fn our_versions(key: i16, habits: Habits) -> (i16, i16) {
    let (min, librdkafka, java) = match ApiKey::try_from(key) {
        // From 11 on a broker answers TRANSACTION_ABORTABLE; from 12 on it adds partitions to transactions by itself
        // (KIP-890). 13 goes by topic ids and is left out.
        Ok(ApiKey::Produce) => (3, 10, 12),
        Ok(ApiKey::Fetch) => (4, 16, 16),
        Ok(ApiKey::ListOffsets) => (1, 7, 7),
        Ok(ApiKey::Metadata) => (1, 12, 12),
        Ok(ApiKey::OffsetCommit) => (2, 8, 8),
        Ok(ApiKey::OffsetFetch) => (1, 7, 7),
        Ok(ApiKey::FindCoordinator) => (0, 2, 6),
        // From version 4 on a member must have an id before it takes part (KIP-394).
        Ok(ApiKey::JoinGroup) => (2, 5, 9),
        Ok(ApiKey::Heartbeat) => (0, 3, 4),
        Ok(ApiKey::LeaveGroup) => (0, 1, 5),
        Ok(ApiKey::SyncGroup) => (0, 3, 5),
        Ok(ApiKey::OffsetForLeaderEpoch) => (2, 2, 4),
        Ok(ApiKey::InitProducerId) => (0, 4, 5),
        Ok(ApiKey::AddPartitionsToTxn) => (0, 0, 3),
        Ok(ApiKey::AddOffsetsToTxn) => (0, 0, 4),
        Ok(ApiKey::EndTxn) => (0, 1, 5),
        Ok(ApiKey::TxnOffsetCommit) => (0, 3, 5),
        Ok(ApiKey::CreateTopics) => (2, 4, 7),
        Ok(ApiKey::DeleteTopics) => (1, 1, 5),
        // What follows is asked by the admin client alone, whose habits do not differ.
        Ok(ApiKey::CreatePartitions) => (0, 3, 3),
        Ok(ApiKey::DeleteRecords) => (0, 2, 2),
        Ok(ApiKey::ElectLeaders) => (0, 2, 2),
        Ok(ApiKey::DescribeCluster) => (0, 1, 1),
        Ok(ApiKey::DescribeTopicPartitions) => (0, 0, 0),
        Ok(ApiKey::DescribeConfigs) => (1, 4, 4),
        Ok(ApiKey::IncrementalAlterConfigs) => (0, 1, 1),
        Ok(ApiKey::ListGroups) => (0, 4, 4),
        Ok(ApiKey::DescribeGroups) => (0, 5, 5),
        Ok(ApiKey::DeleteGroups) => (0, 2, 2),
        Ok(ApiKey::OffsetDelete) => (0, 0, 0),
        Ok(ApiKey::ListTransactions) => (0, 1, 1),
        Ok(ApiKey::DescribeTransactions) => (0, 0, 0),
        Ok(ApiKey::DescribeProducers) => (0, 0, 0),
        Ok(ApiKey::WriteTxnMarkers) => (1, 1, 1),
        _ => panic!("this client does not send requests of API {key}"),
    };
    match habits {
        Habits::Librdkafka => (min, librdkafka),
        Habits::Java => (min, java),
    }
}

/// The largest number of unread bytes that one read makes room for.
const READ_BYTES: usize = 16 * 1_024;

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

fn decode<R: Decodable + HeaderVersion>(frame: &mut Bytes, version: i16) -> Result<R, String> {
    ResponseHeader::decode(frame, R::header_version(version)).map_err(|error| format!("{error:#}"))?;
    R::decode(frame, version).map_err(|error| format!("{error:#}"))
}

/// What a broker said about the versions it speaks.
struct Versions {
    habits: Habits,
    ranges: BTreeMap<i16, (i16, i16)>,
    broker: String,
    client_id: StrBytes,
}

impl Versions {
    /// Encodes a request, length prefix included, in the highest version that both sides speak.
    fn encode<R: Request>(
        &self,
        version_max: i16,
        correlation_id: i32,
        build: impl FnOnce(i16) -> R,
    ) -> Result<(i16, BytesMut), Error> {
        let (ours_min, ours_max) = our_versions(R::KEY, self.habits);
        let (theirs_min, theirs_max) = self.ranges.get(&R::KEY).copied().unwrap_or((i16::MAX, -1));
        let version = ours_max.min(version_max).min(theirs_max);
        if version < ours_min.max(theirs_min) {
            let text = format!(
                "{}: API {} in versions {theirs_min} to {theirs_max}, this client speaks {ours_min} to {ours_max}",
                self.broker,
                R::KEY
            );
            return Err(error::answered(code::UNSUPPORTED_VERSION, text));
        }
        let frame = encode(&build(version), version, correlation_id, &self.client_id)
            .map_err(|error| Error::new(ErrorCode::InvalidState, ErrorClass::Failed, error))?;
        Ok((version, frame))
    }
}

fn encode<R: Request>(
    request: &R,
    version: i16,
    correlation_id: i32,
    client_id: &StrBytes,
) -> Result<BytesMut, String> {
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(client_id.clone()));
    let mut frame = BytesMut::with_capacity(128);
    frame.put_i32(0);
    header.encode(&mut frame, R::header_version(version)).map_err(|error| format!("{error:#}"))?;
    request.encode(&mut frame, version).map_err(|error| format!("{error:#}"))?;
    let length = i32::try_from(frame.len() - 4).map_err(|_| "a request beyond 2 GiB".to_owned())?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame)
}

/// When to connect again. librdkafka's rule: the wait doubles with each attempt and starts anew when the last attempt
/// is longer ago than the longest wait.
struct ReconnectBackoff {
    initial: Duration,
    max: Duration,
    current: Duration,
    last_attempt: Option<Timestamp>,
    not_before: Timestamp,
    rng: Rng,
}

impl ReconnectBackoff {
    fn new(settings: &Settings, rng: Rng) -> ReconnectBackoff {
        ReconnectBackoff {
            initial: settings.reconnect_backoff,
            max: settings.reconnect_backoff_max,
            current: settings.reconnect_backoff,
            last_attempt: None,
            not_before: Timestamp::ZERO,
            rng,
        }
    }

    fn attempt(&mut self, now: Timestamp) {
        if self.last_attempt.is_none_or(|last| now.since(last) > self.max) {
            self.current = self.initial;
        }
        self.last_attempt = Some(now);
        self.not_before = now + jittered(self.current, 75..=150, &mut self.rng).min(self.max);
        self.current = self.current.saturating_mul(2).min(self.max);
    }
}

struct Waiting {
    id: u64,
    correlation_id: i32,
    version: i16,
    reply: oneshot::Sender<Result<Frame, Failed>>,
}

struct Actor {
    context: Context,
    host: String,
    port: u16,
    habits: Habits,
    client_id: StrBytes,
    setup_timeout: Duration,
    frame_bytes_max: usize,
    in_flight_max: usize,
    backoff: ReconnectBackoff,
    shared: Arc<Shared>,
    queued: mpsc::UnboundedReceiver<Queued>,
    expirations: mpsc::UnboundedReceiver<u64>,
    /// Requests that have not been handed to the socket.
    pending: VecDeque<Queued>,
    correlation_id: i32,
}

impl Actor {
    async fn run(mut self) {
        while let Some(first) = self.queued.recv().await {
            self.pending.push_back(first);
            self.drop_abandoned();
            if self.pending.is_empty() {
                continue;
            }
            self.stand(Standing::Down);
            let now = self.context.now();
            if now < self.backoff.not_before {
                self.context.sleep_until(self.backoff.not_before).await;
            }
            self.backoff.attempt(self.context.now());
            let error = match self.connect().await {
                Ok((stream, versions)) => {
                    self.stand(Standing::Up);
                    let error = self.serve(stream, &versions).await;
                    self.stand(Standing::Idle);
                    error
                }
                Err(error) => error,
            };
            // Whatever was not sent fails too: its caller may know a better broker by now.
            while let Ok(queued) = self.queued.try_recv() {
                self.pending.push_back(queued);
            }
            for queued in self.pending.drain(..) {
                // The caller may have gone away.
                queued.reply.send(Err(Failed { error: error.clone(), sent: false })).ok();
            }
        }
    }

    fn stand(&self, standing: Standing) {
        self.shared.standing.store(standing as u8, Ordering::Relaxed);
    }

    fn name(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    fn drop_abandoned(&mut self) {
        self.pending.retain(|queued| !queued.reply.is_closed());
    }

    async fn connect(&mut self) -> Result<(BoxStream, Versions), Error> {
        let context = self.context.clone();
        let name = self.name();
        let (client_id, frame_bytes_max) = (self.client_id.clone(), self.frame_bytes_max);
        let setup = async {
            let mut stream = context.connect(&self.host, self.port).await?;
            let agreed = agree(&mut stream, &client_id, frame_bytes_max).await?;
            Ok::<_, io::Error>((stream, agreed))
        };
        match context.timeout(self.setup_timeout, setup).await {
            Ok(Ok((stream, (ranges, features)))) => {
                *self.shared.features.lock().unwrap_or_else(PoisonError::into_inner) = features;
                let client_id = self.client_id.clone();
                Ok((stream, Versions { habits: self.habits, ranges, broker: name, client_id }))
            }
            Ok(Err(error)) => Err(transport(format!("{name}: {error}"))),
            Err(_) => Err(transport(format!("{name}: not connected within {:?}", self.setup_timeout))),
        }
    }

    /// Sends and receives until the connection breaks; what was in flight then fails, and the reason is given.
    async fn serve(&mut self, stream: BoxStream, versions: &Versions) -> Error {
        let mut waiting = VecDeque::new();
        let cause = self.exchange(stream, versions, &mut waiting).await;
        let error = transport(format!("{}: {cause}", self.name()));
        for waiting in waiting {
            // The caller may have gone away.
            waiting.reply.send(Err(Failed { error: error.clone(), sent: true })).ok();
        }
        error
    }

    async fn exchange(
        &mut self,
        stream: BoxStream,
        versions: &Versions,
        waiting: &mut VecDeque<Waiting>,
    ) -> io::Error {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut input = BytesMut::new();
        let mut output = BytesMut::new();
        loop {
            self.fill(versions, &mut output, waiting);
            input.reserve(self.wanted(&input));
            tokio::select! {
                biased;
                read = reader.read_buf(&mut input) => match read {
                    Ok(0) => return io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the broker"),
                    Ok(_) => if let Err(error) = self.take_frames(&mut input, waiting) {
                        return error;
                    },
                    Err(error) => return error,
                },
                written = writer.write_buf(&mut output), if !output.is_empty() => match written {
                    Ok(0) => return io::ErrorKind::WriteZero.into(),
                    Ok(_) => {}
                    Err(error) => return error,
                },
                queued = self.queued.recv() => match queued {
                    Some(queued) => self.pending.push_back(queued),
                    None => return io::Error::other("the client was dropped"),
                },
                expired = self.expirations.recv() => {
                    if expired.is_some_and(|id| waiting.iter().any(|waiting| waiting.id == id)) {
                        return io::Error::new(io::ErrorKind::TimedOut, "closed because an answer did not come in time");
                    }
                }
            }
        }
    }

    /// How much room to make for the next read.
    fn wanted(&self, input: &BytesMut) -> usize {
        let length = input.first_chunk().map_or(0, |length| i32::from_be_bytes(*length));
        let length = usize::try_from(length).unwrap_or(0).min(self.frame_bytes_max);
        (length + 4).saturating_sub(input.len()).max(READ_BYTES)
    }

    /// Encodes what may go out now.
    fn fill(&mut self, versions: &Versions, output: &mut BytesMut, waiting: &mut VecDeque<Waiting>) {
        while let Ok(queued) = self.queued.try_recv() {
            self.pending.push_back(queued);
        }
        while waiting.len() < self.in_flight_max {
            let Some(Queued { id, encode, answered, reply }) = self.pending.pop_front() else { return };
            if reply.is_closed() {
                continue;
            }
            let Some(encode) = encode else {
                reply.send(Ok((0, Bytes::new()))).ok();
                continue;
            };
            self.correlation_id = self.correlation_id.wrapping_add(1);
            let (version, frame) = match encode(versions, self.correlation_id) {
                Ok(encoded) => encoded,
                Err(error) => {
                    reply.send(Err(Failed { error, sent: false })).ok();
                    continue;
                }
            };
            *self.shared.sent_up_to.lock().unwrap_or_else(PoisonError::into_inner) = Some(id);
            if output.is_empty() {
                *output = frame;
            } else {
                output.put_slice(&frame);
            }
            if answered {
                waiting.push_back(Waiting { id, correlation_id: self.correlation_id, version, reply });
            } else {
                reply.send(Ok((version, Bytes::new()))).ok();
            }
        }
    }

    /// Hands every whole frame to the request it answers.
    fn take_frames(&self, input: &mut BytesMut, waiting: &mut VecDeque<Waiting>) -> io::Result<()> {
        while let Some(prefix) = input.first_chunk() {
            let length = frame_length(i32::from_be_bytes(*prefix), self.frame_bytes_max)?;
            if input.len() < 4 + length {
                break;
            }
            input.advance(4);
            let frame = input.split_to(length).freeze();
            let correlation_id = (&frame[..4]).get_i32();
            let Some(first) = waiting.pop_front() else {
                return Err(io::Error::other("an answer to nothing that was asked"));
            };
            if first.correlation_id != correlation_id {
                let text = format!("answer {correlation_id} came where {} was due", first.correlation_id);
                waiting.push_front(first);
                return Err(io::Error::other(text));
            }
            // The caller may have gone away.
            first.reply.send(Ok((first.version, frame))).ok();
        }
        Ok(())
    }
}

/// Asks for the versions that the broker speaks. One that does not know our version of the question says so in
/// version 0, and is asked again in that.
async fn agree(
    stream: &mut BoxStream,
    client_id: &StrBytes,
    frame_bytes_max: usize,
) -> io::Result<(BTreeMap<i16, (i16, i16)>, FinalizedFeatures)> {
    for version in [3, 0] {
        let mut request = ApiVersionsRequest::default();
        if version >= 3 {
            request = request
                .with_client_software_name("shakedown".into())
                .with_client_software_version(env!("CARGO_PKG_VERSION").into());
        }
        let frame = encode(&request, version, i32::from(version), client_id).map_err(io::Error::other)?;
        stream.write_all(&frame).await?;
        let length = stream.read_i32().await?;
        let mut answer = vec![0; frame_length(length, frame_bytes_max)?];
        stream.read_exact(&mut answer).await?;
        let mut answer = Bytes::from(answer);
        let refused = answer.get(4..6).is_some_and(|code| code == code::UNSUPPORTED_VERSION.to_be_bytes());
        if refused && version > 0 {
            continue;
        }
        let answer: ApiVersionsResponse = decode(&mut answer, version).map_err(io::Error::other)?;
        if answer.error_code != 0 {
            return Err(io::Error::other(error::answered(answer.error_code, "the broker's versions")));
        }
        let ranges = answer.api_keys.iter().map(|api| (api.api_key, (api.min_version, api.max_version)));
        let levels = answer.finalized_features.iter();
        let levels = levels.map(|feature| (feature.name.to_string(), feature.max_version_level)).collect();
        let features = FinalizedFeatures { epoch: answer.finalized_features_epoch, levels };
        return Ok((ranges.collect(), features));
    }
    Err(io::Error::other("the broker answers no version of ApiVersions"))
}

fn frame_length(length: i32, max: usize) -> io::Result<usize> {
    match usize::try_from(length) {
        Ok(length) if length >= 4 && length <= max => Ok(length),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a frame of {length} bytes; `receive.message.max.bytes` is {max}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use broker::Properties;
    use context::Seed;
    use context::real::RealHost;
    use kafka_protocol::messages::api_versions_response::ApiVersion;
    use kafka_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

    use super::*;

    /// A broker that is a script: what it does with its first connection.
    async fn against<F>(
        properties: &[(&str, i64)],
        script: impl FnOnce(BoxStream) -> F + Send + 'static,
    ) -> ([Context; 2], Connection)
    where
        F: Future<Output = ()> + Send,
    {
        let server = RealHost::new("server", Seed(1)).into_context();
        let mut listener = server.listen(0).await.expect("loopback");
        let port = listener.port();
        server.spawn("script", async move {
            let (stream, _) = listener.accept().await.expect("a client");
            script(stream).await;
        });
        let base = Properties::new().set("bootstrap.servers", "b");
        let properties = properties.iter().fold(base, |all, (name, value)| all.set(*name, value));
        let settings = Settings::read(&properties).expect("sound");
        let client = RealHost::new("client", Seed(2)).into_context();
        let connection = Connection::new(&client, &settings, "test", "127.0.0.1", port);
        // A host's tasks end with its last context.
        ([client, server], connection)
    }

    async fn read_frame(stream: &mut BoxStream) -> Bytes {
        let length = stream.read_i32().await.expect("a length");
        let mut frame = vec![0; usize::try_from(length).expect("not negative")];
        stream.read_exact(&mut frame).await.expect("a frame");
        frame.into()
    }

    async fn write_frame(stream: &mut BoxStream, correlation_id: i32, body: &[u8]) {
        let length = i32::try_from(body.len() + 4).expect("small");
        stream
            .write_all(&[&length.to_be_bytes(), &correlation_id.to_be_bytes(), body].concat())
            .await
            .expect("open");
    }

    fn correlation_id(frame: &Bytes) -> i32 {
        (&frame[4..8]).get_i32()
    }

    /// Says that heartbeats are spoken in version 0 and nothing else.
    async fn shake_hands(stream: &mut BoxStream) {
        let question = read_frame(stream).await;
        let heartbeat = ApiVersion::default().with_api_key(HeartbeatRequest::KEY).with_max_version(0);
        let answer = ApiVersionsResponse::default().with_api_keys(vec![heartbeat]);
        let version = (&question[2..4]).get_i16();
        let mut body = BytesMut::new();
        answer.encode(&mut body, version).expect("it fits");
        write_frame(stream, correlation_id(&question), &body).await;
    }

    async fn answer_heartbeat(stream: &mut BoxStream, error_code: i16) {
        let question = read_frame(stream).await;
        let mut body = BytesMut::new();
        HeartbeatResponse::default().with_error_code(error_code).encode(&mut body, 0).expect("it fits");
        write_frame(stream, correlation_id(&question), &body).await;
    }

    fn beat(
        connection: &Connection,
        timeout_ms: u64,
    ) -> impl Future<Output = Answer<HeartbeatResponse>> + 'static {
        connection.request::<HeartbeatRequest>(Duration::from_millis(timeout_ms), i16::MAX, |_| {
            HeartbeatRequest::default()
        })
    }

    #[tokio::test]
    async fn pipelined_requests_get_their_own_answers() {
        let (_hosts, connection) = against(&[], |mut stream| async move {
            shake_hands(&mut stream).await;
            for code in [1, 2, 3] {
                answer_heartbeat(&mut stream, code).await;
            }
        })
        .await;
        let (one, two, three) =
            (beat(&connection, 5_000), beat(&connection, 5_000), beat(&connection, 5_000));
        // Awaited in another order than they were sent in.
        assert_eq!(three.await.expect("answered").body.error_code, 3);
        assert_eq!(one.await.expect("answered").body.error_code, 1);
        assert_eq!(two.await.expect("answered").body.error_code, 2);
    }

    #[tokio::test]
    async fn an_answer_that_does_not_come_in_time_closes_the_connection_for_all() {
        let (_hosts, connection) = against(&[], |mut stream| async move {
            shake_hands(&mut stream).await;
            // Reads on, answers nothing, until the client closes.
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.expect("the client closes");
        })
        .await;
        let (short, long) = (beat(&connection, 200), beat(&connection, 60_000));
        let failed = short.await.expect_err("no answer");
        assert_eq!((failed.error.code, failed.sent), (ErrorCode::TimedOut, true));
        let failed = long.await.expect_err("closed with the first");
        assert_eq!((failed.error.code, failed.sent), (ErrorCode::Transport, true));
    }

    #[tokio::test]
    async fn a_request_that_was_never_sent_says_so() {
        let (_hosts, connection) = against(&[], |stream| async move {
            drop(stream);
        })
        .await;
        let failed = beat(&connection, 5_000).await.expect_err("closed before a word");
        assert_eq!((failed.error.code, failed.sent), (ErrorCode::Transport, false));
    }

    #[tokio::test]
    async fn an_answer_to_another_question_breaks_the_connection() {
        let (_hosts, connection) = against(&[], |mut stream| async move {
            shake_hands(&mut stream).await;
            let question = read_frame(&mut stream).await;
            write_frame(&mut stream, correlation_id(&question) + 1, &[0; 6]).await;
            read_frame(&mut stream).await;
        })
        .await;
        let failed = beat(&connection, 5_000).await.expect_err("not its answer");
        assert_eq!(failed.error.code, ErrorCode::Transport);
        assert!(failed.error.message.contains("was due"), "{}", failed.error);
    }

    #[tokio::test]
    async fn a_frame_beyond_the_limit_breaks_the_connection() {
        let (_client, connection) =
            against(&[("receive.message.max.bytes", 1_000)], |mut stream| async move {
                shake_hands(&mut stream).await;
                read_frame(&mut stream).await;
                stream.write_i32(1_001).await.expect("open");
                stream.write_i32(0).await.expect("open");
                // Kept open: it is the length that must break it.
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest).await.expect("the client closes");
            })
            .await;
        let failed = beat(&connection, 5_000).await.expect_err("too large");
        assert!(failed.error.message.contains("receive.message.max.bytes"), "{}", failed.error);
    }

    #[tokio::test]
    async fn a_broker_that_does_not_know_our_question_for_versions_is_asked_in_version_0() {
        let (_hosts, connection) = against(&[], |mut stream| async move {
            let question = read_frame(&mut stream).await;
            assert_eq!(&question[2..4], 3i16.to_be_bytes());
            let refusal = [&code::UNSUPPORTED_VERSION.to_be_bytes()[..], &0i32.to_be_bytes()].concat();
            write_frame(&mut stream, correlation_id(&question), &refusal).await;
            shake_hands(&mut stream).await;
            answer_heartbeat(&mut stream, 0).await;
        })
        .await;
        assert_eq!(beat(&connection, 5_000).await.expect("agreed").version, 0);
    }

    #[tokio::test]
    async fn a_request_that_the_broker_does_not_speak_fails_alone() {
        use kafka_protocol::messages::FindCoordinatorRequest;
        let (_hosts, connection) = against(&[], |mut stream| async move {
            shake_hands(&mut stream).await;
            answer_heartbeat(&mut stream, 0).await;
        })
        .await;
        let unspoken =
            connection.request(Duration::from_secs(5), i16::MAX, |_| FindCoordinatorRequest::default());
        let failed = unspoken.await.expect_err("not spoken");
        assert_eq!(failed.error.code, ErrorCode::Broker(code::UNSUPPORTED_VERSION));
        assert!(beat(&connection, 5_000).await.is_ok());
    }
}
