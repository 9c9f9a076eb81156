//! Single requests over the wire protocol, so that what brokers answer is seen as it is: no client in between retries.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use context::{BoxStream, Context};
use kafka::wire::read_frame;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{ApiKey, RequestHeader, RequestKind, ResponseHeader, ResponseKind};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use tokio::io::AsyncWriteExt as _;

/// A connection that is made when it is first needed, and again after a failure.
pub(crate) struct Line {
    context: Context,
    to: (String, u16),
    stream: Option<BoxStream>,
}

impl Line {
    pub(crate) fn new(context: Context, to: (String, u16)) -> Line {
        Line { context, to, stream: None }
    }

    /// Asks, and waits for the answer; `None` if the connection was refused or broke, or nothing came in time.
    pub(crate) async fn ask(
        &mut self,
        api: ApiKey,
        version: i16,
        body: impl Into<RequestKind>,
        patience: Duration,
    ) -> Option<ResponseKind> {
        let frame = encoded(api, version, &body.into());
        let asked = self.context.clone().timeout(patience, self.exchange(&frame)).await;
        let Some(mut answer) = asked.ok().flatten() else {
            self.stream = None;
            return None;
        };
        ResponseHeader::decode(&mut answer, api.response_header_version(version)).ok()?;
        ResponseKind::decode(api, &mut answer, version).ok()
    }

    /// Sends without waiting for an answer. `false` if it could not be sent.
    pub(crate) async fn send(&mut self, api: ApiKey, version: i16, body: impl Into<RequestKind>) -> bool {
        let frame = encoded(api, version, &body.into());
        match self.connected().await {
            Some(stream) => stream.write_all(&frame).await.is_ok(),
            None => false,
        }
    }

    async fn exchange(&mut self, frame: &Bytes) -> Option<Bytes> {
        let stream = self.connected().await?;
        stream.write_all(frame).await.ok()?;
        read_frame(stream, i32::MAX).await.ok()
    }

    async fn connected(&mut self) -> Option<&mut BoxStream> {
        if self.stream.is_none() {
            self.stream = Some(self.context.connect(&self.to.0, self.to.1).await.ok()?);
        }
        self.stream.as_mut()
    }
}

fn encoded(api: ApiKey, version: i16, body: &RequestKind) -> Bytes {
    let header = RequestHeader::default()
        .with_request_api_key(api as i16)
        .with_request_api_version(version)
        .with_client_id(Some(StrBytes::from_static_str("story")));
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    let encoded = header
        .encode(&mut frame, api.request_header_version(version))
        .and_then(|()| body.encode(&mut frame, version));
    encoded.unwrap_or_else(|error| panic!("{api:?} {version} cannot be encoded: {error}"));
    let length = frame.len() as i32 - 4;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame.freeze()
}

/// Kafka's name of a code.
pub(crate) fn name(code: i16) -> String {
    match ResponseError::try_from_code(code) {
        None => "NONE".into(),
        Some(error) => {
            // The enum's names are Kafka's in camel case.
            let mut name = String::new();
            for letter in format!("{error:?}").chars() {
                if letter.is_uppercase() && !name.is_empty() {
                    name.push('_');
                }
                name.push(letter.to_ascii_uppercase());
            }
            name
        }
    }
}

pub(crate) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}
