//! Running a REQUEST authorizer: identity sources, the result cache, the function, and a strict reading of its answer.
//!
//! Rules: <https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-use-lambda-authorizer.html>,
//! <https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-lambda-authorizer-output.html>. Whether API
//! Gateway tolerates nulls in the answer is not documented; here they are malformed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Map, Value};

use super::cache::{AuthorizerCache, Key};
use super::contract::{Authorizer, IdentitySource};
use super::event::Deployment;
use super::expression::{Scope, stringify};
use super::invoke::{Invoke, InvokeError, Outcome};
use super::policy::{Decision, Policy};
use super::refusal::Refusal;
use super::request::Request;
use super::route::Route;

/// Bytes of an authorizer's answer. Documented for WebSocket APIs, assumed for REST.
const RESULT_LIMIT: usize = 8_192;

/// How long an authorizer is waited for.
const TIMEOUT: Duration = Duration::from_secs(29);

/// An authorizer's usable answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) principal: String,
    /// Flat and stringified.
    pub(super) context: BTreeMap<String, String>,
    pub(super) policy: Policy,
}

/// What came of asking an authorizer.
#[derive(Debug)]
pub(super) struct Verdict {
    /// The answer, also where its policy denies; `None` where there was none that could be used.
    pub(super) grant: Option<Arc<Grant>>,
    pub(super) decision: Result<(), Refusal>,
    pub(super) cache_hit: bool,
    /// What the call took; zero where there was none.
    pub(super) latency: Duration,
}

/// Everything that authorizing needs of the gateway.
#[derive(Clone, Copy)]
pub(super) struct Gate<'a> {
    pub(super) deployment: &'a Deployment,
    pub(super) cache: &'a AuthorizerCache,
    pub(super) invoke: &'a Arc<dyn Invoke>,
}

impl Gate<'_> {
    /// Asks an authorizer about a request, or its cache.
    pub(super) async fn ask(
        self,
        authorizer: &Authorizer,
        request: &Request,
        route: &Route,
        context: &Map<String, Value>,
    ) -> Verdict {
        let method_arn = self.deployment.method_arn(request);
        let mut key = None;
        if !authorizer.ttl.is_zero() {
            let scope = Scope {
                context,
                stage_variables: &self.deployment.stage_variables,
                request,
                path_parameters: &route.parameters,
            };
            // Only with caching does a missing identity source keep the function from being called.
            let Some(values) = identity(authorizer, scope) else {
                return Verdict::without_call(None, Err(Refusal::unauthorized()), false);
            };
            let found = Key::new(authorizer, &values);
            if let Some(grant) = self.cache.get(found, Instant::now()) {
                let decision = decide(&grant, &method_arn);
                return Verdict::without_call(Some(grant), decision, true);
            }
            key = Some(found);
        }
        let event = self.deployment.authorizer_event(request, route, context);
        let started = Instant::now();
        let outcome = call(self.invoke, &authorizer.function_arn, Bytes::from(event.to_string())).await;
        let latency = started.elapsed();
        match outcome {
            Err(refusal) => Verdict {
                grant: None,
                decision: Err(refusal),
                cache_hit: false,
                latency,
            },
            Ok(grant) => {
                let grant = Arc::new(grant);
                if let Some(key) = key {
                    self.cache.insert(key, authorizer, Arc::clone(&grant), Instant::now());
                }
                let decision = decide(&grant, &method_arn);
                Verdict {
                    grant: Some(grant),
                    decision,
                    cache_hit: false,
                    latency,
                }
            }
        }
    }
}

impl Verdict {
    fn without_call(grant: Option<Arc<Grant>>, decision: Result<(), Refusal>, cache_hit: bool) -> Self {
        Self {
            grant,
            decision,
            cache_hit,
            latency: Duration::ZERO,
        }
    }
}

fn decide(grant: &Grant, method_arn: &str) -> Result<(), Refusal> {
    match grant.policy.evaluate(method_arn) {
        Decision::Allow => Ok(()),
        Decision::ExplicitDeny => Err(Refusal::access_denied(true)),
        Decision::ImplicitDeny => Err(Refusal::access_denied(false)),
    }
}

/// The values of all identity sources, or `None` if one is missing or blank.
fn identity(authorizer: &Authorizer, scope: Scope<'_>) -> Option<Vec<String>> {
    let value =
        |IdentitySource(source): &IdentitySource| source.evaluate(scope).filter(|value| !value.trim().is_empty());
    authorizer.identity.iter().map(value).collect()
}

async fn call(invoke: &Arc<dyn Invoke>, function_arn: &str, event: Bytes) -> Result<Grant, Refusal> {
    match super::integration::call(invoke, function_arn, None, event, TIMEOUT).await {
        None => {
            tracing::warn!(function = function_arn, "the authorizer did not answer in time");
            Err(Refusal::authorizer_failure())
        }
        Some(Ok(Outcome::Buffered(payload))) => read(&payload).map_err(|problem| {
            tracing::warn!(
                function = function_arn,
                problem,
                "the authorizer's answer can't be used"
            );
            Refusal::authorizer_configuration()
        }),
        Some(Ok(Outcome::FunctionError(payload))) => {
            let message = error_message(&payload);
            if message.as_deref() == Some("Unauthorized") {
                return Err(Refusal::unauthorized());
            }
            tracing::warn!(function = function_arn, message, "the authorizer failed");
            Err(Refusal::authorizer_failure())
        }
        Some(Err(error)) => {
            tracing::warn!(function = function_arn, %error, "the authorizer could not be called");
            Err(match error {
                InvokeError::TooManyRequests | InvokeError::TimedOut | InvokeError::Service(_) => {
                    Refusal::authorizer_failure()
                }
                InvokeError::InvalidParameterValue(_)
                | InvokeError::AccessDenied
                | InvokeError::NotFound
                | InvokeError::RequestTooLarge => Refusal::authorizer_configuration(),
            })
        }
    }
}

fn error_message(payload: &[u8]) -> Option<String> {
    let error: Value = serde_json::from_slice(payload).ok()?;
    Some(error.get("errorMessage")?.as_str()?.to_owned())
}

/// Reads an authorizer's answer; the error says what is wrong with it, for the log.
fn read(payload: &[u8]) -> Result<Grant, String> {
    if payload.len() > RESULT_LIMIT {
        return Err(format!("{} bytes are more than {RESULT_LIMIT}", payload.len()));
    }
    let answer: Value = serde_json::from_slice(payload).map_err(|error| format!("not JSON: {error}"))?;
    let answer = answer.as_object().ok_or("not an object")?;
    let principal = answer
        .get("principalId")
        .and_then(Value::as_str)
        .filter(|principal| !principal.is_empty());
    let principal = principal.ok_or("no principalId")?.to_owned();
    let policy = Policy::parse(answer.get("policyDocument").ok_or("no policyDocument")?)?;
    let mut context = BTreeMap::new();
    if let Some(given) = answer.get("context") {
        for (name, value) in given.as_object().ok_or("context is not an object")? {
            let text = stringify(value).ok_or_else(|| format!("context.{name} is not a string, number or boolean"))?;
            context.insert(name.clone(), text);
        }
    }
    if answer.get("usageIdentifierKey").is_some_and(|key| !key.is_string()) {
        return Err("usageIdentifierKey is not a string".to_owned());
    }
    Ok(Grant {
        principal,
        context,
        policy,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// A grant of everything, for the unit tests of the neighbouring modules.
    pub(in crate::gateway) fn grant(principal: &str) -> Grant {
        let policy = json!({"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}});
        Grant {
            principal: principal.to_owned(),
            context: BTreeMap::new(),
            policy: Policy::parse(&policy).unwrap(),
        }
    }

    fn answer(extra: &Value) -> Value {
        let mut answer = json!({
            "principalId": "p",
            "policyDocument": {"Version": "2012-10-17", "Statement": [
                {"Effect": "Allow", "Action": "execute-api:Invoke", "Resource": "*"},
            ]},
        });
        answer
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        answer
    }

    fn reading(answer: &Value) -> Result<Grant, String> {
        read(answer.to_string().as_bytes())
    }

    #[test]
    fn a_flat_context_is_stringified() {
        let grant = reading(&answer(
            &json!({"context": {"s": "x", "n": 17, "f": 1.5, "b": true, "e": ""}}),
        ))
        .unwrap();
        let shown: Vec<String> = grant
            .context
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(shown, ["b=true", "e=", "f=1.5", "n=17", "s=x"]);
    }

    #[test]
    fn malformed_answers_are_not_used() {
        for extra in [
            json!({"principalId": null}),
            json!({"principalId": ""}),
            json!({"principalId": 7}),
            json!({"policyDocument": null}),
            json!({"context": null}),
            json!({"context": []}),
            json!({"context": {"a": null}}),
            json!({"context": {"a": ["b"]}}),
            json!({"context": {"a": {"b": "c"}}}),
            json!({"usageIdentifierKey": null}),
        ] {
            assert!(reading(&answer(&extra)).is_err(), "{extra}");
        }
        for payload in ["", "null", "[]", "\"Unauthorized\"", "{}", "{"] {
            assert!(read(payload.as_bytes()).is_err(), "{payload}");
        }
    }

    #[test]
    fn an_answer_has_a_largest_size() {
        let padded = |length: usize| {
            let empty = answer(&json!({"context": {"a": ""}})).to_string().len();
            answer(&json!({"context": {"a": "x".repeat(length - empty)}}))
        };
        assert!(reading(&padded(RESULT_LIMIT)).is_ok());
        assert!(reading(&padded(RESULT_LIMIT + 1)).is_err());
    }
}
