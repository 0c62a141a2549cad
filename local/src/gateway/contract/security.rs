//! Security schemes with REQUEST authorizers, and the requirement of one operation.
//!
//! Rules: <https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-swagger-extensions-authorizer.html>.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use serde_json::Value;

use super::{Invocation, invocation, object};
use crate::gateway::expression::Source;

/// Seconds for which a result is kept where the contract does not say.
const DEFAULT_TTL: u64 = 300;
/// The most seconds for which a result may be kept.
const TTL_LIMIT: u64 = 3_600;
/// Authorizers of one API.
const AUTHORIZERS_LIMIT: usize = 10;

/// A REQUEST authorizer.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::gateway) struct Authorizer {
    /// The name of its security scheme.
    pub(in crate::gateway) name: String,
    pub(in crate::gateway) function_arn: String,
    /// In the order of the contract, which is that of the cache key.
    pub(in crate::gateway) identity: Vec<IdentitySource>,
    /// For how long a result is reused; zero: it is not.
    pub(in crate::gateway) ttl: Duration,
}

/// One part of what identifies a caller to the result cache.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::gateway) struct IdentitySource(pub(in crate::gateway) Source);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawAuthorizer {
    r#type: String,
    authorizer_uri: Value,
    identity_source: Option<String>,
    authorizer_result_ttl_in_seconds: Option<u64>,
}

/// All authorizers of the document.
pub(super) fn authorizers(document: &Value) -> Result<Vec<Arc<Authorizer>>> {
    let Some(schemes) = document.pointer("/components/securitySchemes") else {
        return Ok(Vec::new());
    };
    let mut authorizers = Vec::new();
    for (name, scheme) in object(schemes)? {
        if let Some(authorizer) = authorizer(name, scheme).with_context(|| format!("security scheme {name}"))? {
            authorizers.push(Arc::new(authorizer));
        }
    }
    if authorizers.len() > AUTHORIZERS_LIMIT {
        bail!(
            "{} authorizers are more than the {AUTHORIZERS_LIMIT} an API may have",
            authorizers.len()
        );
    }
    Ok(authorizers)
}

fn authorizer(name: &str, scheme: &Value) -> Result<Option<Authorizer>> {
    let scheme = object(scheme)?;
    let text = |field: &str| scheme.get(field).and_then(Value::as_str).unwrap_or_default();
    if text("type") != "apiKey" {
        bail!(
            "API Gateway imports schemes of type apiKey only, this one is {:?}",
            text("type")
        );
    }
    let Some(raw) = scheme.get("x-amazon-apigateway-authorizer") else {
        return Ok(None);
    };
    if text("x-amazon-apigateway-authtype") != "custom" {
        bail!(
            "x-amazon-apigateway-authtype is {:?}; only custom is emulated",
            text("x-amazon-apigateway-authtype")
        );
    }
    let raw = RawAuthorizer::deserialize(raw).context("x-amazon-apigateway-authorizer")?;
    if !raw.r#type.eq_ignore_ascii_case("request") {
        bail!("an authorizer of type {} is not emulated", raw.r#type);
    }
    let ttl = raw.authorizer_result_ttl_in_seconds.unwrap_or(DEFAULT_TTL);
    if ttl > TTL_LIMIT {
        bail!("authorizerResultTtlInSeconds is {ttl}, at most {TTL_LIMIT} are allowed");
    }
    let identity = raw
        .identity_source
        .iter()
        .flat_map(|listed| listed.split(','))
        .map(|source| IdentitySource::parse(source.trim()))
        .collect::<Result<Vec<_>>>()?;
    if ttl > 0 && identity.is_empty() {
        bail!("identitySource is needed where results are cached");
    }
    let (Invocation::Whole, function_arn) = invocation(&raw.authorizer_uri)? else {
        bail!("an authorizer's answer can't be streamed: {}", raw.authorizer_uri)
    };
    Ok(Some(Authorizer {
        name: name.to_owned(),
        function_arn,
        identity,
        ttl: Duration::from_secs(ttl),
    }))
}

impl IdentitySource {
    fn parse(text: &str) -> Result<Self> {
        match Source::parse(text)? {
            source @ (Source::Header(_) | Source::Query(_) | Source::StageVariable(_) | Source::Context(_)) => {
                // A header or parameter that is sent twice counts with all its values: which one a function looks at is
                // its own affair, so they must not share a result with the request that sends only one of them.
                Ok(Self(match source {
                    Source::Header(name) => Source::MultiHeader(name),
                    Source::Query(name) => Source::MultiQuery(name),
                    other => other,
                }))
            }
            Source::Static(_) | Source::MultiHeader(_) | Source::MultiQuery(_) | Source::Path(_) => {
                bail!("{text} is no identity source")
            }
        }
    }
}

/// The authorizer that an operation's `security` names; `None` for a public operation.
pub(super) fn requirement(
    security: Option<&Value>,
    authorizers: &[Arc<Authorizer>],
) -> Result<Option<Arc<Authorizer>>> {
    let Some(security) = security else { return Ok(None) };
    let alternatives = security.as_array().ok_or_else(|| anyhow!("security is not a list"))?;
    let [only] = alternatives.as_slice() else {
        if alternatives.is_empty() {
            return Ok(None);
        }
        bail!("more than one security requirement is not emulated");
    };
    let mut names = object(only)?.keys();
    let (Some(name), None) = (names.next(), names.next()) else {
        bail!("a security requirement must name exactly one scheme here");
    };
    let found = authorizers.iter().find(|authorizer| authorizer.name == *name).cloned();
    Ok(Some(found.ok_or_else(|| {
        anyhow!("security names {name}, which is no scheme with an authorizer")
    })?))
}
