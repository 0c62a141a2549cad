//! The Runtime API as one process sees it: `next`, `response`, `error` and `init/error` over HTTP.
//!
//! Each process has a listener of its own, so there is nothing in a request that could name another process. Requests
//! become [`Call`]s; what they mean is the supervisor's matter ([`super::process`]). Only the pieces of a streamed response
//! go to their reader directly.
//! Source: AWS Lambda Developer Guide, "Using the Lambda runtime API for custom runtimes".

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use data_encoding::BASE64;
use futures::{FutureExt as _, StreamExt as _};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::connection::Connection;
use super::{Departure, MAX_RESPONSE_BYTES, stream};

/// What a process asks of the supervisor.
pub(super) enum Call {
    /// The next event.
    Next(oneshot::Sender<Event>),
    /// The answer to the event with this request id.
    Answer {
        request_id: String,
        answer: Answer,
        /// Whether it was the event that the process has.
        accepted: oneshot::Sender<bool>,
    },
    /// The answer to the event with this request id begins, and comes in pieces.
    Stream {
        request_id: String,
        pieces: mpsc::Receiver<Bytes>,
        /// Whether it was the event that the process has.
        accepted: oneshot::Sender<bool>,
    },
    /// The pieces of the answer have ended.
    StreamEnded { end: StreamEnd, seen: oneshot::Sender<()> },
    /// The process can't start.
    InitError {
        error: Bytes,
        received: oneshot::Sender<()>,
    },
}

/// What a process made of an event.
pub(super) enum Answer {
    Response(Bytes),
    Error(Bytes),
    TooLarge,
}

/// How the pieces of an answer ended.
pub(super) enum StreamEnd {
    Complete,
    /// With the process's own error document.
    Error(Bytes),
    /// The connection broke, or was closed because nobody reads any more. The process may go on with something else.
    Broken,
}

/// An event as `next` delivers it.
pub(super) struct Event {
    pub(super) payload: Bytes,
    pub(super) headers: Vec<(&'static str, String)>,
}

/// What the Runtime API of one process has to do with.
#[derive(Clone)]
pub(super) struct Api {
    pub(super) calls: mpsc::Sender<Call>,
    /// What is done when the reader of a stream has gone.
    pub(super) departure: Arc<dyn Fn() -> Departure + Send + Sync>,
}

/// Serves one process until it is aborted; its connections go with it.
pub(super) async fn serve(listener: TcpListener, api: Api) {
    let router = TowerToHyperService::new(router(api));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let router = router.clone();
                    let service = service_fn(move |request: http::Request<Incoming>| {
                        router.call(request).map(|answer| answer.map_or_else(|never: Infallible| match never {}, keep))
                    });
                    let io = TokioIo::new(Connection::new(stream));
                    connections.spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
                }
                Err(error) => {
                    // Mostly out of file descriptors: waiting a little lets some be closed.
                    tracing::warn!(%error, "a connection to the Runtime API could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            // A process that ends breaks its connections.
            Some(_ended) = connections.join_next() => {}
        }
    }
}

/// Marks an answer that is none: the connection is closed instead. Also the error by which the server is told so.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("nobody reads the answer any more")]
struct Closed;

fn keep(response: Response) -> Result<Response, Closed> {
    match response.extensions().get::<Closed>() {
        Some(closed) => Err(*closed),
        None => Ok(response),
    }
}

/// The routes of the Runtime API that runtimes call.
fn router(api: Api) -> Router {
    Router::new()
        .route("/2018-06-01/runtime/invocation/next", get(next))
        .route("/2018-06-01/runtime/invocation/{request_id}/response", post(response))
        .route("/2018-06-01/runtime/invocation/{request_id}/error", post(error))
        .route("/2018-06-01/runtime/init/error", post(init_error))
        .with_state(api)
}

/// Waits as long as it takes, as the real one does.
async fn next(State(Api { calls, .. }): State<Api>) -> Response {
    let (reply, event) = oneshot::channel();
    if calls.send(Call::Next(reply)).await.is_err() {
        return gone();
    }
    let Ok(event) = event.await else { return gone() };
    let mut response = Response::new(Body::from(event.payload));
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    for (name, value) in event.headers {
        // Everything that goes here is made of ASCII: ids, an ARN, digits, and a tenant id that was checked.
        match HeaderValue::try_from(value) {
            Ok(value) => {
                headers.insert(name, value);
            }
            Err(_) => return gone(),
        }
    }
    response
}

async fn response(State(api): State<Api>, Path(request_id): Path<String>, headers: HeaderMap, body: Body) -> Response {
    let streamed = headers
        .get("lambda-runtime-function-response-mode")
        .is_some_and(|mode| mode.as_bytes().eq_ignore_ascii_case(b"streaming"));
    if streamed {
        return pass_on(&api, request_id, body).await;
    }
    let answer = match read(body).await {
        Ok(Some(bytes)) => Answer::Response(bytes),
        Ok(None) => Answer::TooLarge,
        // The process has gone in the middle of its answer.
        Err(_) => return gone(),
    };
    deliver(&api.calls, request_id, answer).await
}

/// Passes a streamed response on, piece by piece, as it comes.
async fn pass_on(api: &Api, request_id: String, mut body: Body) -> Response {
    let (writer, pieces) = mpsc::channel(stream::PIECES);
    let (verdict, seen) = oneshot::channel();
    let call = Call::Stream {
        request_id,
        pieces,
        accepted: verdict,
    };
    if api.calls.send(call).await.is_err() {
        return gone();
    }
    match seen.await {
        Ok(true) => {}
        Ok(false) => return invalid_request_id(),
        Err(_) => return gone(),
    }
    let mut departed = false;
    let end = loop {
        let frame = tokio::select! {
            biased;
            () = writer.closed(), if !departed => {
                match (api.departure)() {
                    Departure::Swallowed => departed = true,
                    Departure::Refused => {
                        end_stream(api, StreamEnd::Broken).await;
                        let mut closed = Response::default();
                        closed.extensions_mut().insert(Closed);
                        return closed;
                    }
                }
                continue;
            }
            frame = body.frame() => frame,
        };
        match frame {
            None => break StreamEnd::Complete,
            Some(Err(_)) => break StreamEnd::Broken,
            Some(Ok(frame)) => match frame.into_data() {
                // A reader that has gone is seen above, before the next piece.
                Ok(piece) => {
                    let _ = writer.send(piece).await;
                }
                Err(frame) => {
                    if let Some(error) = frame.trailers_ref().and_then(failure) {
                        break StreamEnd::Error(error);
                    }
                }
            },
        }
    };
    let broken = matches!(end, StreamEnd::Broken);
    if broken {
        // The supervisor may be killing the process, and does not hear of it then.
        drop(writer);
    }
    // A whole stream ends for its reader only when the process counts as vacant again.
    if !end_stream(api, end).await || broken {
        return gone();
    }
    accepted()
}

async fn end_stream(api: &Api, end: StreamEnd) -> bool {
    let (seen, heard) = oneshot::channel();
    api.calls.send(Call::StreamEnded { end, seen }).await.is_ok() && heard.await.is_ok()
}

/// The error document in the trailers of a response that failed on its way.
/// Source: AWS Lambda Developer Guide, "Building a custom runtime", response streaming. The Rust runtime writes none.
fn failure(trailers: &HeaderMap) -> Option<Bytes> {
    let error_type = trailers.get("lambda-runtime-function-error-type")?;
    let body = trailers
        .get("lambda-runtime-function-error-body")
        .and_then(|body| BASE64.decode(body.as_bytes()).ok())
        .filter(|body| serde_json::from_slice::<Value>(body).is_ok());
    Some(body.map_or_else(
        || {
            let error_type = String::from_utf8_lossy(error_type.as_bytes());
            Bytes::from(json!({"errorType": error_type, "errorMessage": null}).to_string())
        },
        Bytes::from,
    ))
}

async fn error(State(Api { calls, .. }): State<Api>, Path(request_id): Path<String>, body: Body) -> Response {
    match read(body).await {
        Ok(Some(bytes)) => deliver(&calls, request_id, Answer::Error(bytes)).await,
        Ok(None) => deliver(&calls, request_id, Answer::TooLarge).await,
        Err(_) => gone(),
    }
}

async fn init_error(State(Api { calls, .. }): State<Api>, body: Body) -> Response {
    let Ok(error) = read(body).await else { return gone() };
    let (received, seen) = oneshot::channel();
    let call = Call::InitError {
        error: error.unwrap_or_default(),
        received,
    };
    if calls.send(call).await.is_err() || seen.await.is_err() {
        return gone();
    }
    accepted()
}

async fn deliver(calls: &mpsc::Sender<Call>, request_id: String, answer: Answer) -> Response {
    let too_large = matches!(answer, Answer::TooLarge);
    let (verdict, seen) = oneshot::channel();
    let call = Call::Answer {
        request_id,
        answer,
        accepted: verdict,
    };
    if calls.send(call).await.is_err() {
        return gone();
    }
    match seen.await {
        Ok(true) if too_large => problem(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLarge",
            &format!("Exceeded maximum allowed payload size ({MAX_RESPONSE_BYTES} bytes)."),
        ),
        Ok(true) => accepted(),
        Ok(false) => invalid_request_id(),
        Err(_) => gone(),
    }
}

/// The whole body; none if it is larger than a response may be. It is read to its end all the same: a runtime whose
/// request is cut off takes it for a broken connection and not for an answer.
async fn read(body: Body) -> Result<Option<Bytes>, axum::Error> {
    let mut chunks = body.into_data_stream();
    let mut bytes = Vec::new();
    let mut too_large = false;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        too_large = too_large || bytes.len() + chunk.len() > MAX_RESPONSE_BYTES;
        if too_large {
            bytes = Vec::new();
        } else {
            bytes.extend_from_slice(&chunk);
        }
    }
    Ok((!too_large).then(|| Bytes::from(bytes)))
}

fn accepted() -> Response {
    (StatusCode::ACCEPTED, axum::Json(json!({"status": "OK"}))).into_response()
}

fn problem(status: StatusCode, error_type: &str, message: &str) -> Response {
    (
        status,
        axum::Json(json!({"errorMessage": message, "errorType": error_type})),
    )
        .into_response()
}

fn invalid_request_id() -> Response {
    problem(StatusCode::BAD_REQUEST, "InvalidRequestID", "Invalid request ID")
}

/// The environment is being torn down.
fn gone() -> Response {
    problem(
        StatusCode::INTERNAL_SERVER_ERROR,
        "InternalServerError",
        "The execution environment is going away.",
    )
}
