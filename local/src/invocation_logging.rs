//! Amazon Bedrock's model invocation logging: the one configuration of the account in its Region, and who sets it.
//!
//! Nothing is logged: a configuration is taken, shown and deleted. Whether its role may write to its log group, which
//! Bedrock tries and may refuse for a while after the role was made, is not tried either; a fault plays that.
//! <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_PutModelInvocationLoggingConfiguration.html>

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use crate::credential::Caller;
use crate::front_door::{RestService, ServiceBody};
use crate::shape::{Findings, Member, Shape, check, may, must, text};

const PATH: &str = "/logging/modelinvocations";

const BUCKET: Shape = Shape::Structure(&[must("bucketName", text(3, 63)), may("keyPrefix", text(0, 1024))]);

const REQUEST: &[Member] = &[must(
    "loggingConfig",
    Shape::Structure(&[
        may(
            "cloudWatchConfig",
            Shape::Structure(&[
                must("logGroupName", text(1, 512)),
                must(
                    "roleArn",
                    Shape::Text {
                        min: 0,
                        max: 2048,
                        is_valid: is_role,
                    },
                ),
                may("largeDataDeliveryS3Config", BUCKET),
            ]),
        ),
        may("s3Config", BUCKET),
        may("textDataDeliveryEnabled", Shape::Any),
        may("imageDataDeliveryEnabled", Shape::Any),
        may("embeddingDataDeliveryEnabled", Shape::Any),
        may("videoDataDeliveryEnabled", Shape::Any),
        may("audioDataDeliveryEnabled", Shape::Any),
    ]),
)];

/// The model's pattern: `arn:aws(-[^:]+)?:iam::([0-9]{12})?:role/.+`.
fn is_role(text: &str) -> bool {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    match parts.as_slice() {
        ["arn", partition, "iam", "", account, resource] => {
            (*partition == "aws" || partition.starts_with("aws-"))
                && (account.is_empty() || account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit()))
                && resource.strip_prefix("role/").is_some_and(|name| !name.is_empty())
        }
        _ => false,
    }
}

/// The configuration. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct InvocationLogging {
    configured: Arc<Mutex<Option<Value>>>,
}

impl InvocationLogging {
    /// Nothing is configured.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What is configured, as `loggingConfig` of the API.
    #[must_use]
    pub fn configured(&self) -> Option<Value> {
        self.lock().clone()
    }

    /// Configures it as somebody else in the account would: unasked.
    pub fn configure(&self, configuration: Option<Value>) {
        *self.lock() = configuration;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Value>> {
        self.configured.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, body: &[u8]) -> Result<(), Refusal> {
        let invalid = || Refusal::Validation("The request body is not valid JSON.".to_owned());
        let request: Value = serde_json::from_slice(body).map_err(|_| invalid())?;
        let mut findings = Findings::default();
        check(&Shape::Structure(REQUEST), &request, "", &mut findings);
        let configuration = request.get("loggingConfig").cloned().unwrap_or_default();
        for (name, value) in configuration.as_object().into_iter().flatten() {
            if name.ends_with("DataDeliveryEnabled") && !value.is_boolean() {
                findings
                    .errors
                    .push(format!("Value at 'loggingConfig.{name}' must be a boolean"));
            }
        }
        if !findings.errors.is_empty() {
            return Err(Refusal::Validation(findings.errors.join("; ")));
        }
        if !findings.unknown.is_empty() {
            return Err(Refusal::NotEmulated(findings.unknown.join(", ")));
        }
        *self.lock() = Some(configuration);
        Ok(())
    }
}

/// Why a configuration is refused.
enum Refusal {
    Validation(String),
    NotEmulated(String),
}

impl RestService for InvocationLogging {
    fn operation(&self, method: &Method, path: &str) -> Option<&'static str> {
        match (path, method) {
            (PATH, &Method::GET) => Some("GetModelInvocationLoggingConfiguration"),
            (PATH, &Method::PUT) => Some("PutModelInvocationLoggingConfiguration"),
            (PATH, &Method::DELETE) => Some("DeleteModelInvocationLoggingConfiguration"),
            _ => None,
        }
    }

    fn handle(&self, request: Request<Bytes>, _: Caller) -> BoxFuture<'_, Response<ServiceBody>> {
        Box::pin(async move {
            let outcome = match *request.method() {
                Method::GET => {
                    let configured = self.configured();
                    Ok(configured.map_or_else(|| json!({}), |configured| json!({ "loggingConfig": configured })))
                }
                Method::DELETE => {
                    self.configure(None);
                    Ok(json!({}))
                }
                _ => self.put(request.body()).map(|()| json!({})),
            };
            match outcome {
                Ok(body) => respond(StatusCode::OK, None, &body),
                Err(Refusal::Validation(message)) => refuse(StatusCode::BAD_REQUEST, "ValidationException", &message),
                Err(Refusal::NotEmulated(what)) => {
                    let message = format!("{what}: not emulated");
                    refuse(StatusCode::NOT_IMPLEMENTED, "NotImplemented", &message)
                }
            }
        })
    }
}

fn refuse(status: StatusCode, code: &'static str, message: &str) -> Response<ServiceBody> {
    respond(status, Some(code), &json!({ "message": message }))
}

fn respond(status: StatusCode, code: Option<&'static str>, body: &Value) -> Response<ServiceBody> {
    let mut response = Response::new(ServiceBody::Whole(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(code) = code {
        headers.insert("x-amzn-errortype", HeaderValue::from_static(code));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn call(service: &InvocationLogging, method: Method, body: &Value) -> (u16, Value) {
        let request = Request::builder()
            .method(method)
            .uri(PATH)
            .body(Bytes::from(body.to_string()));
        let response = service.handle(request.unwrap(), Caller::default()).await;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await;
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn there_is_one_configuration_or_none() {
        let service = InvocationLogging::new();
        assert_eq!(call(&service, Method::GET, &json!({})).await, (200, json!({})));
        let configuration = json!({"s3Config": {"bucketName": "audit"}, "textDataDeliveryEnabled": true});
        let request = json!({"loggingConfig": configuration});
        assert_eq!(call(&service, Method::PUT, &request).await, (200, json!({})));
        assert_eq!(call(&service, Method::GET, &json!({})).await, (200, request));
        for _ in 0..2 {
            assert_eq!(call(&service, Method::DELETE, &json!({})).await, (200, json!({})));
        }
        assert_eq!(service.configured(), None);
    }

    #[tokio::test]
    async fn what_bedrock_would_refuse_changes_nothing() {
        let service = InvocationLogging::new();
        let role = |arn: &str| json!({"cloudWatchConfig": {"logGroupName": "logs", "roleArn": arn}});
        for (configuration, status) in [
            (role("arn:aws:iam::123456789012:user/ada"), 400),
            (role("bedrock"), 400),
            (json!({"cloudWatchConfig": {"logGroupName": "logs"}}), 400),
            (json!({"s3Config": {"bucketName": "b"}}), 400),
            (json!({"textDataDeliveryEnabled": "true"}), 400),
            (json!({"documentDataDeliveryEnabled": true}), 501),
        ] {
            let request = json!({"loggingConfig": configuration});
            let (answered, _) = call(&service, Method::PUT, &request).await;
            assert_eq!(answered, status, "{configuration}");
        }
        assert_eq!(call(&service, Method::PUT, &json!({})).await.0, 400);
        assert_eq!(service.configured(), None);
    }
}
