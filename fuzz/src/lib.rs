//! What arrives on a broker's or the controller's socket, made up by a fuzzer; and what a log finds on its disk.
//!
//! It owns the targets' common part: a stage, which is a small cluster of cores with something of everything in it, and
//! the checks after each input. A panic, an abort, an input that takes too long or too much memory is a finding; that the
//! answers are right is the tests' business in `sim/kafka`. `README.md` says how to run it.
//!
//! Start reading at [`frames`] and [`request`]. The targets of the log are in [`batches`] and [`segments`].

#![allow(clippy::disallowed_methods, clippy::disallowed_macros, reason = "a fuzzer is no simulation")]

#[path = "../../sim/kafka/tests/support/mod.rs"]
mod support;

pub mod batches;
mod memory;
mod requests;
pub mod seeds;
pub mod segments;
mod stage;

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader, RequestKind};
use kafka_protocol::protocol::{Encodable, StrBytes};
use shakedown_kafka::wire::{BROKER_APIS, CONTROLLER_APIS, Request, Served, read_frame};
use tokio::io::{AsyncRead, ReadBuf};

use stage::on_stage;

#[global_allocator]
static MEMORY: memory::Counted = memory::Counted;

/// The bound of `socket.request.max.bytes` here: inputs are small, so a lower one is met more often.
const FRAME_BYTES_MAX: i32 = 1 << 20;
/// What the names of the controller's targets begin with.
const CONTROLLER_PREFIX: &str = "controller_";
/// In the first byte of a request's input: it is sent twice.
const TWICE: u8 = 0x40;
/// In the first byte of a request's input: its record batches get a right checksum.
const SEALED: u8 = 0x80;
/// The rest of the first byte: which version.
const VERSION: u8 = 0x3f;

/// Who listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// Clients and other brokers talk to it.
    Broker,
    /// Brokers talk to it.
    Controller,
}

impl Listener {
    fn apis(self) -> &'static [Served] {
        match self {
            Listener::Broker => BROKER_APIS,
            Listener::Controller => CONTROLLER_APIS,
        }
    }

    fn served(self, key: i16) -> Option<&'static Served> {
        self.apis().iter().find(|served| served.api as i16 == key)
    }
}

/// Any bytes as what a peer sends: frames with their lengths in front. The first byte says in what pieces they arrive.
pub fn frames(listener: Listener, data: &[u8]) {
    let Some((&piece, rest)) = data.split_first() else { return };
    let mut socket = Socket { rest, piece: usize::from(piece).max(1) };
    let mut frames = Vec::new();
    while let Ok(frame) = now(read_frame(&mut socket, FRAME_BYTES_MAX)) {
        frames.push(frame);
    }
    on_stage(listener, &frames);
}

/// Any bytes as the body of a request; `target` is the API's name in snake case, after `controller_` for the controller.
///
/// # Panics
/// If no API that is served has that name: the list of targets is then out of date.
pub fn request(target: &str, data: &[u8]) {
    let Some((&how, body)) = data.split_first() else { return };
    let (listener, served) = of_target(target).unwrap_or_else(|| panic!("no API is called `{target}`"));
    let versions = served.to - served.from + 1;
    let version = served.from + i16::from(how & VERSION) % versions;
    let mut frame = framed(served.api, version, body);
    if how & SEALED != 0
        && let Some(sealed) = with_sealed_batches(listener, &frame)
    {
        frame = sealed;
    }
    let times = if how & TWICE == 0 { 1 } else { 2 };
    on_stage(listener, &vec![frame; times]);
}

/// The API that a target is about, and who serves it.
fn of_target(target: &str) -> Option<(Listener, &'static Served)> {
    let (listener, name) = match target.strip_prefix(CONTROLLER_PREFIX) {
        Some(name) => (Listener::Controller, name),
        None => (Listener::Broker, target),
    };
    let served = listener.apis().iter().find(|served| snake(served.api) == name)?;
    Some((listener, served))
}

fn framed(api: ApiKey, version: i16, body: &[u8]) -> Bytes {
    let header = RequestHeader::default()
        .with_request_api_key(api as i16)
        .with_request_api_version(version)
        .with_correlation_id(5)
        .with_client_id(Some(StrBytes::from_static_str("fuzz")));
    let mut frame = BytesMut::new();
    header.encode(&mut frame, api.request_header_version(version)).expect("the header fits");
    frame.put_slice(body);
    frame.freeze()
}

/// A fuzzer does not find a checksum: a Produce whose batches have right ones, however else they are.
fn with_sealed_batches(listener: Listener, frame: &Bytes) -> Option<Bytes> {
    let Request { call, body } = Request::read(frame, listener.apis()).ok()?;
    let RequestKind::Produce(mut request) = body else { return None };
    for partition in request.topic_data.iter_mut().flat_map(|topic| &mut topic.partition_data) {
        partition.records = partition.records.take().map(|batch| batches::sealed(&batch));
    }
    let mut body = BytesMut::new();
    request.encode(&mut body, call.version).ok()?;
    Some(framed(call.api, call.version, &body))
}

/// A peer whose bytes come in pieces.
struct Socket<'a> {
    rest: &'a [u8],
    piece: usize,
}

impl AsyncRead for Socket<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let size = self.piece.min(self.rest.len()).min(buf.remaining());
        let (piece, rest) = self.rest.split_at(size);
        buf.put_slice(piece);
        self.rest = rest;
        Poll::Ready(Ok(()))
    }
}

/// What a future gives that waits for nothing.
fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("all its bytes are there"),
    }
}

fn snake(api: ApiKey) -> String {
    let mut name = String::new();
    for letter in format!("{api:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_api_that_is_served_has_a_target() {
        let manifest = include_str!("../Cargo.toml");
        let broker = BROKER_APIS.iter().map(|served| snake(served.api));
        let controller =
            CONTROLLER_APIS.iter().map(|served| format!("{CONTROLLER_PREFIX}{}", snake(served.api)));
        let is_missing = |name: &String| !manifest.contains(&format!("name = \"{name}\""));
        let missing: Vec<String> = broker.chain(controller).filter(is_missing).collect();
        assert!(missing.is_empty(), "add a target for {missing:?}");
    }
}
