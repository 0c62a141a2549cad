//! `x-amazon-apigateway-integration`: the Lambda proxy integration, and MOCK.
//!
//! Rules: <https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-swagger-extensions-integration.html>.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use http::{HeaderName, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::reply::status;
use super::{Invocation, invocation, resolve};
use crate::gateway::expression::{Source, Template};

/// Milliseconds that an integration may take; more needs a raised quota.
const TIMEOUTS: std::ops::RangeInclusive<u64> = 50..=29_000;

/// Milliseconds that one may take whose answer is streamed, to its end: up to 15 minutes.
/// Source: <https://docs.aws.amazon.com/apigateway/latest/developerguide/response-transfer-mode.html>.
const STREAMED_TIMEOUTS: std::ops::RangeInclusive<u64> = 50..=900_000;

/// The header of the Lambda call that names the tenant.
const TENANT_HEADER: &str = "x-amz-tenant-id";

/// What an operation does.
#[derive(Debug)]
pub(in crate::gateway) enum Integration {
    Lambda(LambdaIntegration),
    Mock(MockIntegration),
}

/// A Lambda proxy integration.
#[derive(Debug)]
pub(in crate::gateway) struct LambdaIntegration {
    pub(in crate::gateway) function_arn: String,
    /// Where the tenant of the call comes from; `None`: the call names no tenant.
    pub(in crate::gateway) tenant: Option<Source>,
    pub(in crate::gateway) timeout: Duration,
    pub(in crate::gateway) transfer: TransferMode,
}

/// How an answer is transferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gateway) enum TransferMode {
    /// Read whole, as a proxy response.
    Buffered,
    /// Passed on as it comes, after its prelude.
    Stream,
}

/// An integration that the gateway answers by itself.
#[derive(Debug)]
pub(in crate::gateway) struct MockIntegration {
    /// By media type of the request.
    pub(in crate::gateway) templates: BTreeMap<String, Template>,
    pub(in crate::gateway) passthrough: Passthrough,
    pub(in crate::gateway) responses: Vec<MockResponse>,
}

/// What becomes of a request whose media type has no template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gateway) enum Passthrough {
    WhenNoMatch,
    WhenNoTemplates,
    Never,
}

/// An integration response of MOCK.
#[derive(Debug)]
pub(in crate::gateway) struct MockResponse {
    /// The status of the request template that it is for; `None`: the default one.
    pub(in crate::gateway) selects: Option<StatusCode>,
    pub(in crate::gateway) status: StatusCode,
    pub(in crate::gateway) headers: Vec<(HeaderName, Source)>,
    /// By media type.
    pub(in crate::gateway) templates: Vec<(String, Template)>,
    /// Whether the body stays text although the client accepts a binary type (`CONVERT_TO_TEXT`).
    pub(in crate::gateway) as_text: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawIntegration {
    r#type: String,
    http_method: Option<String>,
    uri: Option<Value>,
    passthrough_behavior: Option<String>,
    content_handling: Option<String>,
    timeout_in_millis: Option<u64>,
    response_transfer_mode: Option<String>,
    payload_format_version: Option<String>,
    #[serde(default)]
    request_parameters: BTreeMap<String, String>,
    #[serde(default)]
    request_templates: BTreeMap<String, String>,
    #[serde(default)]
    responses: BTreeMap<String, RawResponse>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawResponse {
    status_code: Value,
    content_handling: Option<String>,
    #[serde(default)]
    response_parameters: BTreeMap<String, String>,
    #[serde(default)]
    response_templates: BTreeMap<String, String>,
}

impl Integration {
    /// Reads the integration of an operation.
    pub(super) fn parse(document: &Value, operation: &Map<String, Value>) -> Result<Self> {
        let raw = operation
            .get("x-amazon-apigateway-integration")
            .context("there is no x-amazon-apigateway-integration; API Gateway would not deploy the method")?;
        let raw = RawIntegration::deserialize(raw).context("x-amazon-apigateway-integration")?;
        if raw
            .payload_format_version
            .as_ref()
            .is_some_and(|version| version != "1.0")
        {
            bail!("payloadFormatVersion other than 1.0 belongs to HTTP APIs");
        }
        match raw.r#type.to_ascii_lowercase().as_str() {
            "aws_proxy" => lambda(&raw).map(Self::Lambda),
            "mock" => mock(document, operation, &raw).map(Self::Mock),
            _ => bail!("an integration of type {} is not emulated", raw.r#type),
        }
    }
}

fn lambda(raw: &RawIntegration) -> Result<LambdaIntegration> {
    if raw.http_method.as_deref() != Some("POST") {
        bail!(
            "httpMethod of a Lambda integration must be POST, it is {:?}",
            raw.http_method
        );
    }
    if raw.content_handling.is_some() {
        bail!("contentHandling is not emulated for a Lambda proxy integration");
    }
    passthrough(raw)?;
    let transfer = transfer_mode(raw.response_transfer_mode.as_deref())?;
    let timeouts = match transfer {
        TransferMode::Buffered => TIMEOUTS,
        TransferMode::Stream => STREAMED_TIMEOUTS,
    };
    let timeout = raw.timeout_in_millis.unwrap_or(*TIMEOUTS.end());
    if !timeouts.contains(&timeout) {
        bail!(
            "timeoutInMillis is {timeout}; {} to {} are emulated",
            timeouts.start(),
            timeouts.end()
        );
    }
    let mut tenant = None;
    for (target, source) in &raw.request_parameters {
        let header = target.strip_prefix("integration.request.header.");
        if !header.is_some_and(|header| header.eq_ignore_ascii_case(TENANT_HEADER)) {
            bail!("the mapping of {target} is not emulated");
        }
        tenant = Some(Source::parse(source).with_context(|| format!("the mapping of {target}"))?);
    }
    // Templates and integration responses of a proxy integration have no effect.
    let uri = raw.uri.as_ref().context("a Lambda integration needs a uri")?;
    let function_arn = match (transfer, invocation(uri)?) {
        (TransferMode::Buffered, (Invocation::Whole, arn)) | (TransferMode::Stream, (Invocation::Streamed, arn)) => arn,
        (TransferMode::Buffered, (Invocation::Streamed, _)) => {
            bail!("responseTransferMode BUFFERED can't have the URI of InvokeWithResponseStream, {uri}")
        }
        (TransferMode::Stream, (Invocation::Whole, _)) => {
            bail!("responseTransferMode STREAM needs the URI of InvokeWithResponseStream, and this is {uri}")
        }
    };
    Ok(LambdaIntegration {
        function_arn,
        tenant,
        timeout: Duration::from_millis(timeout),
        transfer,
    })
}

fn transfer_mode(name: Option<&str>) -> Result<TransferMode> {
    match name {
        None | Some("BUFFERED") => Ok(TransferMode::Buffered),
        Some("STREAM") => Ok(TransferMode::Stream),
        Some(other) => bail!("responseTransferMode {other} is not emulated"),
    }
}

fn passthrough(raw: &RawIntegration) -> Result<Passthrough> {
    match raw
        .passthrough_behavior
        .as_deref()
        .map(str::to_ascii_lowercase)
        .as_deref()
    {
        None | Some("when_no_match") => Ok(Passthrough::WhenNoMatch),
        Some("when_no_templates") => Ok(Passthrough::WhenNoTemplates),
        Some("never") => Ok(Passthrough::Never),
        Some(other) => bail!("passthroughBehavior {other} is not known"),
    }
}

fn mock(document: &Value, operation: &Map<String, Value>, raw: &RawIntegration) -> Result<MockIntegration> {
    if raw.uri.is_some() || !raw.request_parameters.is_empty() {
        bail!("uri and requestParameters have no place in a MOCK integration");
    }
    let mut templates = BTreeMap::new();
    for (media_type, template) in &raw.request_templates {
        let template = Template::parse_vtl(template).with_context(|| format!("request template of {media_type}"))?;
        templates.insert(media_type.to_ascii_lowercase(), template);
    }
    as_text(raw.content_handling.as_deref())?;
    let responses = raw
        .responses
        .iter()
        .map(|(pattern, response)| {
            mock_response(document, operation, pattern, response)
                .with_context(|| format!("integration response {pattern}"))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(MockIntegration {
        templates,
        passthrough: passthrough(raw)?,
        responses,
    })
}

fn mock_response(
    document: &Value,
    operation: &Map<String, Value>,
    pattern: &str,
    raw: &RawResponse,
) -> Result<MockResponse> {
    let selects = match pattern {
        "default" => None,
        digits => Some(status(&Value::from(digits)).with_context(|| format!("the pattern {digits} is not emulated"))?),
    };
    let status = status(&raw.status_code)?;
    let declared = operation
        .get("responses")
        .and_then(|responses| responses.get(status.as_str()));
    let Some(declared) = declared else {
        bail!("status {status} is not among the operation's responses; API Gateway would not import it");
    };
    let declared = resolve(document, declared)?;
    let mut headers = Vec::new();
    for (target, source) in &raw.response_parameters {
        let name = target
            .strip_prefix("method.response.header.")
            .ok_or_else(|| anyhow!("the mapping of {target} is not emulated"))?;
        if declared.get("headers").and_then(|headers| headers.get(name)).is_none() {
            bail!("the header {name} is not declared in response {status}; API Gateway would not import its mapping");
        }
        let header: HeaderName = name.parse().with_context(|| format!("{name} is not a header"))?;
        headers.push((header, Source::parse(source)?));
    }
    let mut templates = Vec::new();
    for (media_type, template) in &raw.response_templates {
        let template = Template::parse_vtl(template).with_context(|| format!("response template of {media_type}"))?;
        templates.push((media_type.to_ascii_lowercase(), template));
    }
    Ok(MockResponse {
        selects,
        status,
        headers,
        templates,
        as_text: as_text(raw.content_handling.as_deref())?,
    })
}

fn as_text(content_handling: Option<&str>) -> Result<bool> {
    match content_handling {
        None => Ok(false),
        Some("CONVERT_TO_TEXT") => Ok(true),
        Some(other) => bail!("contentHandling {other} is not emulated"),
    }
}
