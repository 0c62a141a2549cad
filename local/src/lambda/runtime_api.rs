//! The Runtime API as one process sees it: `next`, `response`, `error` and `init/error` over HTTP.
//!
//! Each process has a listener of its own, so there is nothing in a request that could name another process. Requests
//! become [`Call`]s; what they mean is the supervisor's matter ([`super::process`]).
//! Source: AWS Lambda Developer Guide, "Using the Lambda runtime API for custom runtimes".

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use futures::StreamExt;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use super::MAX_RESPONSE_BYTES;

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
    Streamed,
}

/// An event as `next` delivers it.
pub(super) struct Event {
    pub(super) payload: Bytes,
    pub(super) headers: Vec<(&'static str, String)>,
}

type Calls = mpsc::Sender<Call>;

/// The routes of the Runtime API that runtimes call.
pub(super) fn router(calls: Calls) -> Router {
    Router::new()
        .route("/2018-06-01/runtime/invocation/next", get(next))
        .route("/2018-06-01/runtime/invocation/{request_id}/response", post(response))
        .route("/2018-06-01/runtime/invocation/{request_id}/error", post(error))
        .route("/2018-06-01/runtime/init/error", post(init_error))
        .with_state(calls)
}

/// Waits as long as it takes, as the real one does.
async fn next(State(calls): State<Calls>) -> Response {
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

async fn response(
    State(calls): State<Calls>,
    Path(request_id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let streamed = headers
        .get("lambda-runtime-function-response-mode")
        .is_some_and(|mode| mode.as_bytes().eq_ignore_ascii_case(b"streaming"));
    let read = read(body).await;
    let answer = match read {
        _ if streamed => Answer::Streamed,
        Ok(Some(bytes)) => Answer::Response(bytes),
        Ok(None) => Answer::TooLarge,
        // The process has gone in the middle of its answer.
        Err(_) => return gone(),
    };
    deliver(&calls, request_id, answer).await
}

async fn error(State(calls): State<Calls>, Path(request_id): Path<String>, body: Body) -> Response {
    match read(body).await {
        Ok(Some(bytes)) => deliver(&calls, request_id, Answer::Error(bytes)).await,
        Ok(None) => deliver(&calls, request_id, Answer::TooLarge).await,
        Err(_) => gone(),
    }
}

async fn init_error(State(calls): State<Calls>, body: Body) -> Response {
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

async fn deliver(calls: &Calls, request_id: String, answer: Answer) -> Response {
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
        Ok(false) => problem(StatusCode::BAD_REQUEST, "InvalidRequestID", "Invalid request ID"),
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

/// The environment is being torn down.
fn gone() -> Response {
    problem(
        StatusCode::INTERNAL_SERVER_ERROR,
        "InternalServerError",
        "The execution environment is going away.",
    )
}
