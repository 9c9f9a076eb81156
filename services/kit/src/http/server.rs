//! Answering requests.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use context::{BoxStream, Context};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;

use super::io::Io;
use super::{BODY_BYTES_MAX, IDEMPOTENCY_KEY, Request, Response, StatusCode};

/// How long accepting rests after an error: too many open files, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers requests, many at a time.
#[async_trait]
pub trait Endpoint: Send + Sync + 'static {
    /// Answers one request. It is dropped when the peer gives up: an effect belongs in front of an await, or behind all
    /// of them.
    async fn call(&self, context: &Context, request: Request) -> Response;
}

/// Answers requests on `port` until the host stops.
///
/// # Errors
/// If nothing can listen on `port`.
pub async fn serve(context: Context, port: u16, endpoint: Arc<dyn Endpoint>) -> io::Result<()> {
    let mut listener = context.listen(port).await?;
    loop {
        match listener.accept().await {
            Ok((stream, _peer)) => {
                let connection = connection(context.clone(), stream, endpoint.clone());
                context.spawn("http connection", connection);
            }
            Err(error) => {
                context.trouble(format_args!("http: accept failed: {error}"));
                context.sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(context: Context, stream: BoxStream, endpoint: Arc<dyn Endpoint>) {
    let answer = service_fn(|request| {
        let (context, endpoint) = (&context, &endpoint);
        async move {
            let response = match read(request).await {
                Ok(request) => endpoint.call(context, request).await,
                Err(refusal) => refusal,
            };
            Ok::<_, Infallible>(write(response))
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        // The date would be the real clock's.
        .auto_date_header(false)
        .serve_connection(Io::new(stream), answer)
        .await;
    if let Err(error) = served {
        // A peer that went away is its own affair; it shows where someone looks into a trace.
        context.note(format_args!("http: a connection broke: {error}"));
    }
}

async fn read(request: hyper::Request<Incoming>) -> Result<Request, Response> {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|error| {
        let text = format!("the body does not read, or is above {BODY_BYTES_MAX} bytes: {error}");
        Response::text(StatusCode::PAYLOAD_TOO_LARGE, text)
    })?;
    let key = parts.headers.get(IDEMPOTENCY_KEY).map(|value| value.to_str().map(str::to_owned));
    let idempotency_key = key.transpose().map_err(|_| {
        Response::text(StatusCode::BAD_REQUEST, format!("the header `{IDEMPOTENCY_KEY}` is no text"))
    })?;
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    Ok(Request { method: parts.method, path, idempotency_key, body: body.to_bytes() })
}

fn write(response: Response) -> hyper::Response<Full<Bytes>> {
    let mut written = hyper::Response::new(Full::new(response.body));
    *written.status_mut() = response.status;
    if let Some(kind) = response.content_type {
        written.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    written
}
