//! Making requests.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use context::{Context, TaskHandle};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use serde::Serialize;

use super::io::Io;
use super::{BODY_BYTES_MAX, IDEMPOTENCY_KEY, Method, Request, Response};
use crate::HandlerError;

/// How long a request may take from connect to the last byte of the answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that are kept for the next request.
const IDLE_MAX: usize = 8;

/// Why there is no answer. The request may have been done all the same.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection.
    #[error("no connection to {peer}: {cause}")]
    Connect {
        /// Host and port.
        peer: String,
        /// What the network says.
        cause: io::Error,
    },
    /// The connection broke before the answer was complete.
    #[error("the connection to {peer} broke: {cause}")]
    Broken {
        /// Host and port.
        peer: String,
        /// What hyper says, or what is wrong with the body.
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer in time.
    #[error("no answer from {peer} within {after:?}")]
    TimedOut {
        /// Host and port.
        peer: String,
        /// The time it had.
        after: Duration,
    },
    /// The request cannot be written: its path or key has characters that HTTP refuses.
    #[error("the request does not fit HTTP: {0}")]
    Unfit(String),
}

impl From<Error> for HandlerError {
    fn from(error: Error) -> HandlerError {
        match error {
            Error::Unfit(_) => HandlerError::Business(error.to_string()),
            _ => HandlerError::Transient(error.to_string()),
        }
    }
}

/// Makes requests to one host and port, and keeps a few connections open. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    timeout: Duration,
}

struct Shared {
    context: Context,
    host: String,
    port: u16,
    idle: Mutex<Vec<Connection>>,
    open: AtomicUsize,
}

/// An open connection; its task ends with it, so that a request that was given up leaves nothing behind.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    task: TaskHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Counts a request as open while it lives.
struct Open<'a>(&'a AtomicUsize);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What came of one try on one connection.
enum Try {
    Answered(Result<Response, Error>),
    /// The connection was dead before the peer can have acted on the request, or a repeat does no harm.
    Again(Request),
}

impl Client {
    /// A client of `host`; it connects with the first request.
    pub fn new(context: Context, host: impl Into<String>, port: u16) -> Client {
        let shared =
            Shared { context, host: host.into(), port, idle: Mutex::default(), open: AtomicUsize::new(0) };
        Client { shared: Arc::new(shared), timeout: TIMEOUT }
    }

    /// With another time for each request than 5 s.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Client {
        self.timeout = timeout;
        self
    }

    /// How many requests wait for their answer now.
    pub fn open_requests(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Posts JSON.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn post(
        &self,
        path: &str,
        key: Option<&str>,
        body: &impl Serialize,
    ) -> Result<Response, Error> {
        let mut request = Request::new(Method::POST, path).with_json(body);
        request.idempotency_key = key.map(str::to_owned);
        self.send(request).await
    }

    /// Gets.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn get(&self, path: &str) -> Result<Response, Error> {
        self.send(Request::new(Method::GET, path)).await
    }

    /// Sends a request and waits for its answer, whatever its status.
    ///
    /// # Errors
    /// [`Error`] if there is none in time. Whether the request was done is then unknown.
    pub async fn send(&self, request: Request) -> Result<Response, Error> {
        self.shared.open.fetch_add(1, Ordering::Relaxed);
        let _open = Open(&self.shared.open);
        let answer = self.shared.context.timeout(self.timeout, self.shared.send(request)).await;
        answer.unwrap_or_else(|elapsed| Err(Error::TimedOut { peer: self.shared.peer(), after: elapsed.0 }))
    }
}

impl Shared {
    async fn send(&self, mut request: Request) -> Result<Response, Error> {
        // A kept connection may have died unseen; then the next one gets its chance, and a new one at last.
        loop {
            let kept = self.idle().pop();
            let Some(connection) = kept else { break };
            if connection.sender.is_closed() {
                continue;
            }
            match self.exchange(connection, request, true).await {
                Try::Answered(answer) => return answer,
                Try::Again(again) => request = again,
            }
        }
        let connection = self.connect().await?;
        match self.exchange(connection, request, false).await {
            Try::Answered(answer) => answer,
            Try::Again(_) => unreachable!("a new connection gives an answer or an error"),
        }
    }

    async fn exchange(&self, mut connection: Connection, request: Request, kept: bool) -> Try {
        let written = match self.write(&request) {
            Ok(written) => written,
            Err(error) => return Try::Answered(Err(error)),
        };
        let response = match connection.sender.try_send_request(written).await {
            Ok(response) => response,
            Err(mut failed) => {
                let never_sent = failed.take_message().is_some();
                if kept && (never_sent || request.is_repeatable()) {
                    return Try::Again(request);
                }
                return Try::Answered(Err(self.broken(failed.into_error())));
            }
        };
        let (parts, body) = response.into_parts();
        let body = match Limited::new(body, BODY_BYTES_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return Try::Answered(Err(Error::Broken { peer: self.peer(), cause: error })),
        };
        self.keep(connection);
        Try::Answered(Ok(Response { status: parts.status, content_type: None, body }))
    }

    async fn connect(&self) -> Result<Connection, Error> {
        let stream = self.context.connect(&self.host, self.port).await;
        let stream = stream.map_err(|cause| Error::Connect { peer: self.peer(), cause })?;
        let (sender, connection) =
            http1::handshake(Io::new(stream)).await.map_err(|cause| self.broken(cause))?;
        let task = self.context.spawn("http client", async move {
            // An error here reaches whoever waits for an answer.
            connection.await.ok();
        });
        Ok(Connection { sender, task: task.handle() })
    }

    fn write(&self, request: &Request) -> Result<hyper::Request<Full<Bytes>>, Error> {
        let mut written = hyper::Request::builder()
            .method(request.method.clone())
            .uri(&request.path)
            .header(HOST, &self.host)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(key) = &request.idempotency_key {
            written = written.header(IDEMPOTENCY_KEY, key);
        }
        written.body(Full::new(request.body.clone())).map_err(|error| Error::Unfit(error.to_string()))
    }

    fn keep(&self, connection: Connection) {
        let mut idle = self.idle();
        if idle.len() < IDLE_MAX && !connection.sender.is_closed() {
            idle.push(connection);
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn broken(&self, cause: hyper::Error) -> Error {
        Error::Broken { peer: self.peer(), cause: Box::new(cause) }
    }

    fn peer(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.shared.peer())
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use context::Seed;
    use context::real::RealHost;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::http::{Endpoint, StatusCode, serve};

    struct Echo;

    #[async_trait]
    impl Endpoint for Echo {
        async fn call(&self, context: &Context, request: Request) -> Response {
            match request.path.as_str() {
                "/echo" => {
                    let text: String = match request.json() {
                        Ok(text) => text,
                        Err(refusal) => return refusal,
                    };
                    Response::json(StatusCode::OK, &(text, request.idempotency_key))
                }
                "/slow" => {
                    context.sleep(Duration::from_secs(60)).await;
                    Response::empty(StatusCode::OK)
                }
                _ => Response::empty(StatusCode::NOT_FOUND),
            }
        }
    }

    fn host(name: &str) -> RealHost {
        RealHost::new(name, Seed(1)).with_name("server", "127.0.0.1")
    }

    /// A port that nobody uses now.
    async fn free_port(context: &Context) -> u16 {
        context.listen(0).await.unwrap().port()
    }

    async fn start_echo() -> (Client, Arc<RealHost>, u16) {
        let (server, running) = host("server").start();
        let port = free_port(&server).await;
        server.spawn("serve", serve(server.clone(), port, Arc::new(Echo)));
        let client = Client::new(host("client").into_context(), "server", port);
        // The server listens a moment later.
        while let Err(Error::Connect { .. }) = client.get("/").await {
            client.shared.context.sleep(Duration::from_millis(1)).await;
        }
        (client, running, port)
    }

    #[tokio::test]
    async fn body_and_key_arrive_and_the_answer_comes_back() {
        let (client, _running, _) = start_echo().await;
        let answer = client.post("/echo", Some("key-1"), &"hello").await.unwrap();
        assert_eq!(answer.status, StatusCode::OK);
        let (text, key): (String, Option<String>) = answer.decode().unwrap();
        assert_eq!((text.as_str(), key.as_deref()), ("hello", Some("key-1")));
        assert_eq!(client.post("/echo", None, &7).await.unwrap().status, StatusCode::BAD_REQUEST);
        assert_eq!(client.get("/nowhere").await.unwrap().status, StatusCode::NOT_FOUND);
        assert_eq!(client.shared.idle().len(), 1, "one connection served them all");
    }

    #[tokio::test]
    async fn a_request_without_an_answer_ends_in_time_and_gives_its_connection_up() {
        let (client, _running, _) = start_echo().await;
        let hasty = client.clone().with_timeout(Duration::from_millis(20));
        assert!(matches!(hasty.get("/slow").await, Err(Error::TimedOut { .. })));
        assert_eq!(client.open_requests(), 0);
        assert_eq!(client.shared.idle().len(), 0);
        assert_eq!(client.post("/echo", None, &"after").await.unwrap().status, StatusCode::OK);
    }

    #[tokio::test]
    async fn a_restarted_server_is_reached_again() {
        let (client, running, port) = start_echo().await;
        assert_eq!(client.post("/echo", Some("1"), &"a").await.unwrap().status, StatusCode::OK);
        running.shutdown();
        while client.get("/").await.is_ok() {
            client.shared.context.sleep(Duration::from_millis(1)).await;
        }
        let (server, _running) = host("server").start();
        server.spawn("serve", serve(server.clone(), port, Arc::new(Echo)));
        let mut tries = 0;
        while client.post("/echo", Some("2"), &"b").await.is_err() {
            tries += 1;
            assert!(tries < 1_000, "the server is there again");
            client.shared.context.sleep(Duration::from_millis(1)).await;
        }
    }

    /// Answers the first request of its one connection and closes it at the second.
    #[tokio::test]
    async fn a_kept_connection_that_died_is_replaced_for_what_may_be_repeated_only() {
        let server = host("server").into_context();
        let mut listener = server.listen(0).await.unwrap();
        let port = listener.port();
        server.spawn("close at the second request", async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut bytes = [0; 4096];
                if stream.read(&mut bytes).await.unwrap_or(0) == 0 {
                    continue;
                }
                stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
                // The next request, or the end if its client gives the connection up: either way it closes.
                if stream.read(&mut bytes).await.unwrap_or(0) == 0 {
                    continue;
                }
            }
        });
        let client = Client::new(host("client").into_context(), "server", port);
        assert!(client.post("/", Some("key"), &1).await.is_ok());
        assert!(client.post("/", Some("key"), &1).await.is_ok(), "repeated on a new connection");
        let lost = client.post("/", None, &1).await;
        assert!(matches!(lost, Err(Error::Broken { .. })), "without a key nobody may repeat: {lost:?}");
    }
}
