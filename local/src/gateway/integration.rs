//! Calling what is behind an operation: a function through the Lambda proxy integration, or MOCK's templates.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::contract::{BinaryTypes, LambdaIntegration, MockIntegration, Passthrough, TransferMode};
use super::event::Deployment;
use super::expression::Scope;
use super::invoke::{Invoke, InvokeError, Outcome, PayloadStream};
use super::refusal::Refusal;
use super::request::Request;
use super::response;
use super::route::Route;
use super::stream::{self, Streamed, Unopened};

/// Invokes a function in a task of its own, so that it is finished although nobody waits any more. `None`: it took too
/// long.
pub(super) async fn call(
    invoke: &Arc<dyn Invoke>,
    function_arn: &str,
    tenant: Option<&str>,
    payload: Bytes,
    timeout: Duration,
) -> Option<Result<Outcome, InvokeError>> {
    let (invoke, function_arn, tenant) = (Arc::clone(invoke), function_arn.to_owned(), tenant.map(str::to_owned));
    let invocation = tokio::spawn(async move { invoke.invoke(&function_arn, tenant.as_deref(), payload).await });
    match tokio::time::timeout(timeout, invocation).await {
        Ok(Ok(outcome)) => Some(outcome),
        Ok(Err(error)) => Some(Err(InvokeError::Service(error.to_string()))),
        Err(_elapsed) => None,
    }
}

/// Begins an invocation whose answer is streamed; also in a task of its own, since what has begun is not taken back.
async fn call_streamed(
    invoke: &Arc<dyn Invoke>,
    function_arn: &str,
    tenant: Option<&str>,
    payload: Bytes,
) -> Result<PayloadStream, InvokeError> {
    let (invoke, function_arn, tenant) = (Arc::clone(invoke), function_arn.to_owned(), tenant.map(str::to_owned));
    let invocation = tokio::spawn(async move {
        invoke
            .invoke_with_response_stream(&function_arn, tenant.as_deref(), payload)
            .await
    });
    invocation
        .await
        .unwrap_or_else(|error| Err(InvokeError::Service(error.to_string())))
}

/// The body of an integration's answer.
pub(super) enum Content {
    Whole(Bytes),
    Streamed(Streamed),
}

/// What an integration is called with.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) deployment: &'a Deployment,
    pub(super) binary: &'a BinaryTypes,
    pub(super) request: &'a Request,
    pub(super) route: &'a Route,
    pub(super) context: &'a Map<String, Value>,
    /// How long nothing may come of a stream.
    pub(super) stream_idle: Duration,
}

impl<'a> Call<'a> {
    fn scope(self) -> Scope<'a> {
        Scope {
            context: self.context,
            stage_variables: &self.deployment.stage_variables,
            request: self.request,
            path_parameters: &self.route.parameters,
        }
    }

    /// The tenant that the call names: whatever the mapping yields, trimmed as the value of a header is. A client's own
    /// `X-Amz-Tenant-Id` gets here only where the contract maps it.
    pub(super) fn tenant(self, integration: &LambdaIntegration) -> Option<String> {
        let value = integration.tenant.as_ref()?.evaluate(self.scope())?;
        let value = value.trim();
        (!value.is_empty()).then(|| value.to_owned())
    }

    /// Calls the function and reads its proxy response, or what it streams up to the end of its prelude.
    pub(super) async fn lambda(
        self,
        invoke: &Arc<dyn Invoke>,
        integration: &LambdaIntegration,
        tenant: Option<&str>,
    ) -> Result<Response<Content>, Refusal> {
        if tenant.is_some_and(|tenant| HeaderValue::from_str(tenant).is_err()) {
            return Err(Refusal::api_configuration());
        }
        let binary = self.binary.contain(self.request.media_type().as_deref());
        let event = self
            .deployment
            .proxy_event(self.request, self.route, self.context, binary);
        let function = integration.function_arn.as_str();
        let payload = Bytes::from(event.to_string());
        match integration.transfer {
            TransferMode::Buffered => {
                let answer = self.buffered(invoke, function, tenant, payload, integration.timeout);
                Ok(answer.await?.map(Content::Whole))
            }
            TransferMode::Stream => {
                let answer = self.streamed(invoke, function, tenant, payload, integration.timeout);
                Ok(answer.await?.map(Content::Streamed))
            }
        }
    }

    async fn buffered(
        self,
        invoke: &Arc<dyn Invoke>,
        function: &str,
        tenant: Option<&str>,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Response<Bytes>, Refusal> {
        match call(invoke, function, tenant, payload, timeout).await {
            None => Err(Refusal::integration_timeout()),
            Some(Ok(Outcome::Buffered(payload))) => {
                let decoded = self.binary.contain(self.request.accepts().as_deref());
                response::read(&payload, decoded, &self.request.trace_id()).map_err(|malformed| {
                    let problem = malformed.problem;
                    tracing::warn!(
                        function,
                        request = self.request.id,
                        problem,
                        "malformed Lambda proxy response"
                    );
                    malformed.refusal
                })
            }
            Some(Ok(Outcome::FunctionError(_))) => Err(self.function_failed(function)),
            Some(Err(error)) => Err(self.not_called(function, &error)),
        }
    }

    async fn streamed(
        self,
        invoke: &Arc<dyn Invoke>,
        function: &str,
        tenant: Option<&str>,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Response<Streamed>, Refusal> {
        let begun = Instant::now();
        let (until, trace_id) = (begun + timeout, self.request.trace_id());
        let opening = async {
            let payload = call_streamed(invoke, function, tenant, payload).await;
            let payload = payload.map_err(|error| self.not_called(function, &error))?;
            let opened = stream::open(payload, &trace_id, until, self.stream_idle).await;
            opened.map_err(|unopened| match unopened {
                Unopened::Failed => self.function_failed(function),
                Unopened::Malformed(problem) => {
                    tracing::warn!(
                        function,
                        request = self.request.id,
                        problem,
                        "malformed streamed response"
                    );
                    Refusal::malformed_stream()
                }
            })
        };
        tokio::time::timeout_at(until.min(begun + self.stream_idle), opening)
            .await
            .unwrap_or_else(|_elapsed| Err(Refusal::integration_timeout()))
    }

    fn function_failed(self, function: &str) -> Refusal {
        tracing::warn!(function, request = self.request.id, "the function failed");
        Refusal::malformed_response()
    }

    fn not_called(self, function: &str, error: &InvokeError) -> Refusal {
        if *error == InvokeError::TimedOut {
            return self.function_failed(function);
        }
        tracing::warn!(function, request = self.request.id, %error, "the function could not be called");
        match error {
            InvokeError::InvalidParameterValue(_) | InvokeError::AccessDenied | InvokeError::NotFound => {
                Refusal::api_configuration()
            }
            InvokeError::TooManyRequests | InvokeError::Service(_) => Refusal::integration_failure(),
            InvokeError::RequestTooLarge => Refusal::event_too_large(),
            InvokeError::TimedOut => Refusal::malformed_response(),
        }
    }

    /// Answers from the templates of a MOCK integration.
    pub(super) fn mock(self, integration: &MockIntegration) -> Result<Response<Bytes>, Refusal> {
        let status = self.mock_status(integration)?;
        let selected = integration
            .responses
            .iter()
            .find(|response| response.selects == Some(status));
        let selected = selected.or_else(|| integration.responses.iter().find(|response| response.selects.is_none()));
        let selected = selected.ok_or_else(Refusal::api_configuration)?;
        let accepts = self.request.accepts();
        let of = |wanted: &str| selected.templates.iter().find(|(media_type, _)| media_type == wanted);
        let template = of(accepts.as_deref().unwrap_or_default())
            .or_else(|| of("application/json"))
            .or_else(|| selected.templates.first());
        let text = template
            .map(|(_, template)| template.render(self.scope()))
            .unwrap_or_default();
        // Where the client accepts a binary type first, text counts as base64 unless it is to stay text.
        let body = if !selected.as_text && self.binary.contain(accepts.as_deref()) {
            BASE64
                .decode(text.as_bytes())
                .map_err(|_| Refusal::api_configuration())?
        } else {
            text.into_bytes()
        };
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = selected.status;
        let media_type = template.map_or("application/json", |(media_type, _)| media_type);
        if let Ok(value) = HeaderValue::from_str(media_type) {
            response.headers_mut().insert(header::CONTENT_TYPE, value);
        }
        for (name, source) in &selected.headers {
            let value = source
                .evaluate(self.scope())
                .and_then(|value| HeaderValue::from_str(&value).ok());
            if let Some(value) = value {
                response.headers_mut().insert(name.clone(), value);
            }
        }
        Ok(response)
    }

    fn mock_status(self, integration: &MockIntegration) -> Result<StatusCode, Refusal> {
        let media_type = self
            .request
            .media_type()
            .unwrap_or_else(|| "application/json".to_owned());
        let text = match (integration.templates.get(&media_type), integration.passthrough) {
            (Some(template), _) => template.render(self.scope()),
            (None, Passthrough::WhenNoTemplates) if integration.templates.is_empty() => self.body_text(),
            (None, Passthrough::WhenNoMatch) => self.body_text(),
            (None, Passthrough::WhenNoTemplates | Passthrough::Never) => return Err(Refusal::unsupported_media_type()),
        };
        let parsed: Value = serde_json::from_str(&text).map_err(|_| Refusal::mock_configuration())?;
        let status = parsed
            .get("statusCode")
            .and_then(Value::as_u64)
            .and_then(|number| u16::try_from(number).ok());
        status
            .and_then(|number| StatusCode::from_u16(number).ok())
            .ok_or_else(Refusal::mock_configuration)
    }

    fn body_text(self) -> String {
        String::from_utf8_lossy(&self.request.body).into_owned()
    }
}
