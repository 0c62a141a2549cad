//! The frame around every HTTP function: read the event, run the handler, map the error, send the answer in the format
//! that the route's integration takes, log the outcome once, and let no work be frozen half-way.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use lambda_http::aws_lambda_events::apigw::ApiGatewayProxyResponse;
use lambda_http::request::LambdaRequest;
use lambda_runtime::layers::TracingLayer;
use lambda_runtime::tower::Layer;
use lambda_runtime::{FunctionResponse, LambdaEvent, LambdaInvocation, Runtime, Service, StreamResponse, service_fn};
use tokio_stream::Stream;
use tracing::{Instrument as _, Span};

use crate::background::Background;
use crate::error::Error;
use crate::request::Request;
use crate::response::{EventStream, Response};
use crate::telemetry::{self, Metric};
use crate::time::Clock;

/// The longest that an environment is kept from its next event by work of the last: an answer may take 120 seconds
/// although its reader has gone, and has ten more to be stored.
const LONGEST_WORK: Duration = Duration::from_secs(130);

/// What a function does with a call. HTTP failures are `Ok` to Lambda: an `Err` there means that the function is broken.
pub trait Handler: Send + Sync + 'static {
    /// The routes whose integration streams, by method and path template. Every answer there goes out in the streaming
    /// format, problems too: the gateway reads no other, and answers 500 to a buffered one
    /// (<https://docs.aws.amazon.com/apigateway/latest/developerguide/response-transfer-mode-lambda.html>). On any other
    /// route a stream would lose its body, so there it is a defect.
    const STREAMED: &'static [(&'static str, &'static str)] = &[];

    /// Answers one call.
    fn handle(&self, request: &Request) -> impl Future<Output = Result<Response, Error>> + Send;

    /// The work that may outlive an answer. It is waited for before the next event is asked for, and before the process
    /// ends because the Runtime API would not take an answer.
    fn background(&self) -> Option<&Background> {
        None
    }
}

/// Serves `handler` until the environment ends.
///
/// # Errors
/// The Runtime API is gone, or refused to take the rest of an answer whose reader had gone. Work under way is finished by
/// then.
pub async fn run(handler: impl Handler, clock: Clock) -> Result<(), lambda_runtime::Error> {
    let handler = Arc::new(handler);
    let background = handler.background().cloned();
    let service = service_fn(move |event: LambdaEvent<LambdaRequest>| {
        let (handler, clock) = (Arc::clone(&handler), clock.clone());
        async move { Ok::<_, lambda_runtime::Error>(answer(handler.as_ref(), event, &clock).await) }
    });
    Runtime::new(service)
        .layer(TracingLayer::new())
        .layer(Draining { background })
        .run()
        .await
}

/// An answer as the runtime sends it.
type Answer = FunctionResponse<ApiGatewayProxyResponse, Pieces>;

async fn answer<H: Handler>(handler: &H, event: LambdaEvent<LambdaRequest>, clock: &Clock) -> Answer {
    let invocation = event.context.request_id.clone();
    let streamed = is_streamed::<H>(&event.payload);
    let request = match Request::new(event) {
        Ok(request) => request,
        Err(error) => {
            report(&error, None, clock);
            let record = Record::begin(Span::current(), clock);
            return record.send(Response::problem(&error, &invocation), streamed);
        }
    };
    let (method, resource) = request.route();
    // The runtime's tenant id is the one that the environment was made for; what the caller claims is compared with it.
    let span = tracing::info_span!(
        "request",
        request_id = request.request_id(),
        "tenant.id" = request.caller().runtime_tenant.as_deref().unwrap_or_default(),
        "http.method" = method,
        "http.route" = resource,
    );
    let record = Record::begin(span.clone(), clock);
    let response = async {
        let outcome = match handler.handle(&request).await {
            Ok(response) if response.is_event_stream() && !streamed => {
                Err(Error::internal("a stream on a route that does not stream"))
            }
            outcome => outcome,
        };
        outcome.unwrap_or_else(|error| {
            report(&error, request.caller().runtime_tenant.as_deref(), clock);
            Response::problem(&error, request.request_id())
        })
    }
    .instrument(span)
    .await;
    record.send(response, streamed)
}

/// Whether the event's route streams. It is read from the event and not from the request, which may be unreadable.
fn is_streamed<H: Handler>(event: &LambdaRequest) -> bool {
    let LambdaRequest::ApiGatewayV1(event) = event else {
        return false;
    };
    let resource = event.resource.as_deref().unwrap_or_default();
    H::STREAMED.contains(&(event.http_method.as_str(), resource))
}

/// What the log says of a call when it is over.
struct Record {
    span: Span,
    begun: Instant,
    clock: Clock,
}

impl Record {
    fn begin(span: Span, clock: &Clock) -> Self {
        Self {
            span,
            begun: clock.instant(),
            clock: clock.clone(),
        }
    }

    /// The answer in the format that its route's integration takes. A buffered one is over now, a streamed one when its
    /// pieces are.
    fn send(self, response: Response, streamed: bool) -> Answer {
        let status = response.status();
        if streamed {
            let StreamResponse {
                metadata_prelude,
                stream,
            } = response.into_streamed();
            let record = Some((self, status));
            let stream = Pieces { stream, record };
            FunctionResponse::StreamingResponse(StreamResponse {
                metadata_prelude,
                stream,
            })
        } else {
            self.answered(status);
            FunctionResponse::BufferedResponse(response.into_buffered())
        }
    }

    fn answered(&self, status: StatusCode) {
        let (status, duration_ms) = (status.as_u16(), self.duration_ms());
        self.span
            .in_scope(|| tracing::info!("http.status" = status, duration_ms, "answered"));
    }

    /// The Runtime API takes no more of the answer.
    fn abandoned(&self, status: StatusCode) {
        let (status, duration_ms) = (status.as_u16(), self.duration_ms());
        self.span
            .in_scope(|| tracing::info!("http.status" = status, duration_ms, "the reader has gone"));
    }

    fn duration_ms(&self) -> f64 {
        let now = self.clock.instant();
        now.saturating_duration_since(self.begun).as_secs_f64() * 1000.0
    }
}

/// The pieces of a streamed body, made under the call's span; with the last one the log's record of the call is written.
struct Pieces {
    stream: EventStream,
    record: Option<(Record, StatusCode)>,
}

impl Stream for Pieces {
    /// Never an `Err`: the runtime would write its text into the body.
    type Item = Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let span = this.record.as_ref().map(|(record, _)| record.span.clone());
        let next = match span {
            Some(span) => span.in_scope(|| this.stream.as_mut().poll_next(context)),
            // It has ended.
            None => return Poll::Ready(None),
        };
        if let Poll::Ready(None) = next
            && let Some((record, status)) = this.record.take()
        {
            record.answered(status);
        }
        next.map(|piece| piece.map(Ok))
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        if let Some((record, status)) = self.record.take() {
            record.abandoned(status);
        }
    }
}

/// Keeps the runtime from its next event while there is work under way, also where the Runtime API refused an answer:
/// what is written for a reader who has gone would be frozen with the environment, or end with the process.
#[derive(Clone)]
struct Draining {
    background: Option<Background>,
}

impl<S> Layer<S> for Draining {
    type Service = Drained<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Drained {
            inner,
            background: self.background.clone(),
        }
    }
}

struct Drained<S> {
    inner: S,
    background: Option<Background>,
}

impl<S> Service<LambdaInvocation> for Drained<S>
where
    S: Service<LambdaInvocation, Response = (), Error = lambda_runtime::Error, Future: Send + 'static>,
{
    type Response = ();
    type Error = lambda_runtime::Error;
    type Future = Pin<Box<dyn Future<Output = Result<(), lambda_runtime::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, invocation: LambdaInvocation) -> Self::Future {
        let (answered, background) = (self.inner.call(invocation), self.background.clone());
        Box::pin(async move {
            let outcome = answered.await;
            if let Some(background) = background
                && !background.drain(LONGEST_WORK).await
            {
                tracing::error!("work was left undone");
            }
            outcome
        })
    }
}

/// Logs an error, and counts it where an alarm watches, with the tenant that the runtime named. What a handler returns is
/// reported by [`run`]; a stream that has begun reports for itself what it ends with.
pub fn report(error: &Error, tenant: Option<&str>, clock: &Clock) {
    let code = error.code().as_str();
    let count = |metric| match tenant {
        Some(tenant) => telemetry::count_for(tenant, metric, clock),
        None => telemetry::count(metric, clock),
    };
    if matches!(error, Error::UpstreamThrottled(_)) {
        count(Metric::Throttle);
    }
    match error {
        Error::Isolation { .. } | Error::Breach { .. } => {
            count(Metric::IsolationBreach);
            tracing::error!("error.code" = code, "error.cause" = %error, "an isolation lock held");
        }
        _ if error.is_fault() => {
            count(Metric::Fault);
            tracing::error!("error.code" = code, "error.cause" = %chain(error), "failed");
        }
        // A refusal's text may quote the request, so only its code is logged.
        _ => tracing::info!("error.code" = code, "refused"),
    }
}

/// An error with all its sources.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
