//! What a failed call to Bedrock is to the caller and to the log, for every operation and every stream alike.
//!
//! Bedrock's messages quote requests, so none is kept: not in the log, and never in an answer.

use std::fmt;
use std::time::Duration;

use aws_sdk_bedrockagentruntime::config::http::HttpResponse;
use aws_sdk_bedrockagentruntime::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_bedrockagentruntime::operation::RequestId as _;
use bulkhead_core::error::{Cause, Error};
use tokio::time::{Instant, timeout_at};

/// How long a stream may be silent before it counts as lost. Bedrock's own time-out of a model is a minute
/// (<https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html>), but a model that has
/// begun to answer writes words by the dozen a second.
pub const LONGEST_SILENCE: Duration = Duration::from_secs(30);

/// What an operation says that went wrong, as far as it matters to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Complaint {
    /// Too much was asked for in too short a time.
    Throttled,
    /// The model took too long.
    Slow,
    /// Anything else: no retry would mend it.
    Failed,
}

/// An operation's own errors. An exception within a stream has no status and often no code, so that its variant is all
/// that tells what it is.
pub trait Complain: ProvideErrorMetadata {
    /// What it says, and its name for the log.
    fn complaint(&self) -> (Complaint, &'static str);
}

/// Names an SDK's error type's variants once: each with what it means.
macro_rules! complaints {
    ($error:ty { throttled: [$($throttled:ident),*], slow: [$($slow:ident),*], failed: [$($failed:ident),*] $(,)? }) => {
        impl $crate::upstream::Complain for $error {
            fn complaint(&self) -> ($crate::upstream::Complaint, &'static str) {
                match self {
                    $(Self::$throttled(_) => ($crate::upstream::Complaint::Throttled, stringify!($throttled)),)*
                    $(Self::$slow(_) => ($crate::upstream::Complaint::Slow, stringify!($slow)),)*
                    $(Self::$failed(_) => ($crate::upstream::Complaint::Failed, stringify!($failed)),)*
                    _ => ($crate::upstream::Complaint::Failed, "an error that the SDK does not know"),
                }
            }
        }
    };
}
pub(crate) use complaints;

/// What a refused or lost call is to the caller.
pub fn call_failure<E: Complain>(operation: &'static str, error: &SdkError<E, HttpResponse>) -> Error {
    let response = error.raw_response();
    let status = response.map(|response| response.status().as_u16());
    failure(
        operation,
        error,
        status,
        response.and_then(|response| response.request_id()),
    )
}

/// What the end of a stream is to the caller that should not have ended there.
pub fn stream_failure<E: Complain, R>(operation: &'static str, error: &SdkError<E, R>) -> Error {
    failure(operation, error, None, None)
}

/// What a stream that is silent for too long is to the caller.
pub fn silence(operation: &'static str) -> Error {
    Error::Timeout(Box::new(Failure {
        operation,
        kind: "nothing more came in time",
        name: None,
        status: None,
        request_id: None,
    }))
}

/// Waits for a stream's next event, at most for [`LONGEST_SILENCE`] and until `deadline`.
///
/// # Errors
/// [`Error::Timeout`] if none came.
pub async fn in_time<T>(operation: &'static str, deadline: Instant, next: impl Future<Output = T>) -> Result<T, Error> {
    let latest = deadline.min(Instant::now() + LONGEST_SILENCE);
    timeout_at(latest, next).await.map_err(|_| silence(operation))
}

fn failure<E: Complain, R>(
    operation: &'static str,
    error: &SdkError<E, R>,
    status: Option<u16>,
    request_id: Option<&str>,
) -> Error {
    let complaint = error.as_service_error().map(Complain::complaint);
    let kind = match error {
        SdkError::ConstructionFailure(_) => "the request can't be made",
        SdkError::TimeoutError(_) => "out of time",
        SdkError::DispatchFailure(failure) if failure.is_timeout() => "no connection in time",
        SdkError::DispatchFailure(failure) if failure.is_io() => "the connection failed",
        SdkError::DispatchFailure(_) => "the request can't be sent",
        SdkError::ResponseError(_) => "the response can't be read",
        _ => "refused",
    };
    let cause: Cause = Box::new(Failure {
        operation,
        kind,
        name: error.code().or(complaint.map(|(_, name)| name)).map(str::to_owned),
        status,
        request_id: request_id.map(str::to_owned),
    });
    match error {
        SdkError::ConstructionFailure(_) => Error::Internal(cause),
        SdkError::TimeoutError(_) => Error::Timeout(cause),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => Error::Timeout(cause),
        SdkError::DispatchFailure(_) => Error::Unavailable(cause),
        SdkError::ServiceError(_) => match complaint {
            Some((Complaint::Throttled, _)) => Error::UpstreamThrottled(cause),
            Some((Complaint::Slow, _)) => Error::Timeout(cause),
            // What is between us and Bedrock throttles without Bedrock's words.
            _ if matches!(status, Some(429 | 503)) => Error::UpstreamThrottled(cause),
            _ => Error::UpstreamFailed(cause),
        },
        _ => Error::UpstreamFailed(cause),
    }
}

/// What the log may know of a failed call.
#[derive(Debug)]
struct Failure {
    operation: &'static str,
    kind: &'static str,
    name: Option<String>,
    status: Option<u16>,
    request_id: Option<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.operation, self.kind)?;
        if let Some(name) = &self.name {
            write!(f, ", {name}")?;
        }
        if let Some(status) = self.status {
            write!(f, ", status {status}")?;
        }
        if let Some(request_id) = &self.request_id {
            write!(f, ", request id {request_id}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}
