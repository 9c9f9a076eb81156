//! A connection against a broker that is a script.

use std::future::Future;

use broker::{ErrorCode, Properties};
use bytes::Buf as _;
use context::real::RealHost;
use context::{BoxStream, Seed};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiVersionsResponse, HeartbeatRequest, HeartbeatResponse};
use kafka_protocol::protocol::Encodable as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::error::code;

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
    let (one, two, three) = (beat(&connection, 5_000), beat(&connection, 5_000), beat(&connection, 5_000));
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
    let (short, long) = (beat(&connection, 5_000), beat(&connection, 60_000));
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
    let (_client, connection) = against(&[("receive.message.max.bytes", 1_000)], |mut stream| async move {
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
