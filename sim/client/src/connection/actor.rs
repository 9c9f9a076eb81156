//! The actor behind a connection: connects, keeps requests in flight, and hands each frame to the one it answers.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use broker::Error;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use context::{BoxStream, Context, Rng, Timestamp};
use kafka_protocol::protocol::StrBytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};

use super::versions::{Versions, agree};
use super::{Failed, Frame, Queued, Shared, Standing};
use crate::backoff::jittered;
use crate::error::transport;
use crate::properties::{Habits, Settings};

/// The largest number of unread bytes that one read makes room for.
const READ_BYTES: usize = 16 * 1_024;

struct Waiting {
    id: u64,
    correlation_id: i32,
    version: i16,
    reply: oneshot::Sender<Result<Frame, Failed>>,
}

pub(super) struct Actor {
    pub(super) context: Context,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) habits: Habits,
    pub(super) client_id: StrBytes,
    pub(super) setup_timeout: Duration,
    pub(super) frame_bytes_max: usize,
    pub(super) in_flight_max: usize,
    pub(super) backoff: ReconnectBackoff,
    pub(super) shared: Arc<Shared>,
    pub(super) queued: mpsc::UnboundedReceiver<Queued>,
    pub(super) expirations: mpsc::UnboundedReceiver<u64>,
    /// Requests that have not been handed to the socket.
    pub(super) pending: VecDeque<Queued>,
    pub(super) correlation_id: i32,
}

impl Actor {
    pub(super) async fn run(mut self) {
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

/// When to connect again. librdkafka's rule: the wait doubles with each attempt and starts anew when the last attempt
/// is longer ago than the longest wait.
pub(super) struct ReconnectBackoff {
    initial: Duration,
    max: Duration,
    current: Duration,
    last_attempt: Option<Timestamp>,
    not_before: Timestamp,
    rng: Rng,
}

impl ReconnectBackoff {
    pub(super) fn new(settings: &Settings, rng: Rng) -> ReconnectBackoff {
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

pub(super) fn frame_length(length: i32, max: usize) -> io::Result<usize> {
    match usize::try_from(length) {
        Ok(length) if length >= 4 && length <= max => Ok(length),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a frame of {length} bytes; `receive.message.max.bytes` is {max}"),
        )),
    }
}
