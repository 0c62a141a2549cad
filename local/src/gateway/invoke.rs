//! The seam to the functions: what the gateway asks of whatever runs them. It knows no process, environment or template;
//! the assembly of the stack adapts the Lambda emulator to it.

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

/// Runs a function synchronously.
///
/// An implementation must not wait longer than the function's own time-out. The gateway may stop waiting earlier and
/// drop its interest in the outcome; it then leaves the invocation running, as AWS does.
///
/// `function_arn` is the function's full ARN (perhaps with a qualifier), `payload` is JSON, and `tenant` is the value that
/// the real gateway would send as `X-Amz-Tenant-Id`, already trimmed and never empty.
pub trait Invoke: Send + Sync {
    /// Waits for the whole answer, as Lambda's `Invoke` with `RequestResponse` does.
    fn invoke<'a>(
        &'a self,
        function_arn: &'a str,
        tenant: Option<&'a str>,
        payload: Bytes,
    ) -> BoxFuture<'a, Result<Outcome, InvokeError>>;

    /// Hands out the answer as it comes, as Lambda's `InvokeWithResponseStream` does. Of a function that answers in the
    /// buffered format, its result is the only piece.
    ///
    /// Dropping the payload is a client's departure; what becomes of the invocation then is the implementation's matter.
    fn invoke_with_response_stream<'a>(
        &'a self,
        function_arn: &'a str,
        tenant: Option<&'a str>,
        payload: Bytes,
    ) -> BoxFuture<'a, Result<PayloadStream, InvokeError>>;
}

/// What a function writes, byte for byte, in the pieces in which it wrote it. It ends well with `None`; after an error
/// nothing comes.
pub type PayloadStream = BoxStream<'static, Result<Bytes, FunctionFailed>>;

/// The end of a payload whose function failed, timed out or crashed: an `InvokeComplete` with an error code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the function failed")]
pub struct FunctionFailed {
    /// The error document: `errorType`, `errorMessage`.
    pub document: Bytes,
}

/// What an invocation that reached the function ended with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The function's own result.
    Buffered(Bytes),
    /// The error document (`errorType`, `errorMessage`) of a function that failed, timed out or crashed: what Lambda
    /// answers with 200 and `X-Amz-Function-Error`.
    FunctionError(Bytes),
}

/// Why Lambda refused an invocation, or could not carry it out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvokeError {
    /// `InvalidParameterValueException`: among others a tenant id that is missing on an isolated function, malformed, or
    /// sent to a function that is not isolated.
    #[error("invalid parameter value: {0}")]
    InvalidParameterValue(String),
    /// `TooManyRequestsException`: no environment, or no concurrency, left.
    #[error("too many requests")]
    TooManyRequests,
    /// The function ran out of its own time-out, for implementations that don't render it as a function error.
    #[error("the function timed out")]
    TimedOut,
    /// `AccessDeniedException`: the function's policy does not let this gateway in.
    #[error("access denied")]
    AccessDenied,
    /// `ResourceNotFoundException`: there is no such function.
    #[error("no such function")]
    NotFound,
    /// `RequestTooLargeException`: the event is longer than 6 MB.
    #[error("the event is too large")]
    RequestTooLarge,
    /// `ServiceException` and everything else that is a fault of the service.
    #[error("service failure: {0}")]
    Service(String),
}
