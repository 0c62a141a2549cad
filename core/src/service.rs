//! The frame around every HTTP function: read the event, run the handler, map the error, log the outcome once.

use std::future::Future;
use std::sync::Arc;

use lambda_http::aws_lambda_events::apigw::ApiGatewayProxyResponse;
use lambda_http::request::LambdaRequest;
use lambda_runtime::{LambdaEvent, service_fn};
use tracing::Instrument as _;

use crate::error::Error;
use crate::request::Request;
use crate::response::Response;
use crate::telemetry::{self, Metric};
use crate::time::Clock;

/// What a function does with a call. HTTP failures are `Ok` to Lambda: an `Err` there means that the function is broken.
pub trait Handler: Send + Sync + 'static {
    /// Answers one call.
    fn handle(&self, request: &Request) -> impl Future<Output = Result<Response, Error>> + Send;
}

/// Serves `handler` until the environment ends.
///
/// # Errors
/// The Runtime API is gone.
pub async fn run(handler: impl Handler, clock: Clock) -> Result<(), lambda_runtime::Error> {
    let handler = Arc::new(handler);
    lambda_runtime::run(service_fn(move |event: LambdaEvent<LambdaRequest>| {
        let (handler, clock) = (Arc::clone(&handler), clock.clone());
        async move {
            Ok::<ApiGatewayProxyResponse, lambda_runtime::Error>(answer(handler.as_ref(), event, &clock).await.into())
        }
    }))
    .await
}

async fn answer(handler: &impl Handler, event: LambdaEvent<LambdaRequest>, clock: &Clock) -> Response {
    let invocation = event.context.request_id.clone();
    let request = match Request::new(event) {
        Ok(request) => request,
        Err(error) => {
            report(&error, clock);
            return Response::problem(&error, &invocation);
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
    async {
        let begun = clock.instant();
        let response = match handler.handle(&request).await {
            Ok(response) => response,
            Err(error) => {
                report(&error, clock);
                Response::problem(&error, request.request_id())
            }
        };
        let duration_ms = clock.instant().saturating_duration_since(begun).as_secs_f64() * 1000.0;
        tracing::info!("http.status" = response.status().as_u16(), duration_ms, "answered");
        response
    }
    .instrument(span)
    .await
}

fn report(error: &Error, clock: &Clock) {
    let code = error.code().as_str();
    match error {
        Error::Isolation { .. } | Error::Breach { .. } => {
            telemetry::count(Metric::IsolationBreach, clock);
            tracing::error!("error.code" = code, "error.cause" = %error, "an isolation lock held");
        }
        _ if error.is_fault() => {
            telemetry::count(Metric::Fault, clock);
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
