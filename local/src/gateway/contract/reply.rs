//! `x-amazon-apigateway-gateway-responses`.
//!
//! Rules: <https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-swagger-extensions-gateway-responses.html>.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow, bail};
use http::{HeaderName, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use crate::gateway::expression::{Source, Template};
use crate::gateway::refusal::{Kind, Replies, Reply};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawReply {
    status_code: Option<Value>,
    #[serde(default)]
    response_parameters: BTreeMap<String, String>,
    #[serde(default)]
    response_templates: BTreeMap<String, String>,
}

/// Reads all gateway responses.
pub(super) fn parse(value: Option<&Value>) -> Result<Replies> {
    let mut replies = Replies::default();
    let Some(value) = value else { return Ok(replies) };
    let raw = BTreeMap::<String, RawReply>::deserialize(value).context("x-amazon-apigateway-gateway-responses")?;
    for (name, raw) in raw {
        let kind = Kind::parse(&name).ok_or_else(|| anyhow!("there is no gateway response {name}"))?;
        let reply = reply(&raw).with_context(|| format!("gateway response {name}"))?;
        replies.by_kind.insert(kind, reply);
    }
    Ok(replies)
}

fn reply(raw: &RawReply) -> Result<Reply> {
    let mut reply = Reply {
        status: raw.status_code.as_ref().map(status).transpose()?,
        ..Reply::default()
    };
    for (target, source) in &raw.response_parameters {
        let Some(name) = target.strip_prefix("gatewayresponse.header.") else {
            bail!("{target} is not a header of the gateway response");
        };
        let name: HeaderName = name.parse().with_context(|| format!("{target} is not a header"))?;
        reply.headers.push((name, Source::parse(source)?));
    }
    for (media_type, template) in &raw.response_templates {
        let template = Template::parse(template).with_context(|| format!("template of {media_type}"))?;
        reply.templates.push((media_type.to_ascii_lowercase(), template));
    }
    Ok(reply)
}

/// A status code, as a number or in quotes.
pub(super) fn status(value: &Value) -> Result<StatusCode> {
    let number = match value {
        Value::Number(number) => number.as_u64().and_then(|number| u16::try_from(number).ok()),
        Value::String(text) => text.parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    let known = number
        .filter(|number| (200..600).contains(number))
        .and_then(|number| StatusCode::from_u16(number).ok());
    known.ok_or_else(|| anyhow!("{value} is not a status code"))
}
