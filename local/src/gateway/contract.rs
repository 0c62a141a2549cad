//! The contract as API Gateway would import it: an OpenAPI 3.0.1 document with `x-amazon-apigateway-*` extensions, turned
//! into what the gateway executes.
//!
//! Whatever is not known here stops the start and is named: a gateway that ignored part of its contract would let a
//! deployment pass that AWS treats otherwise. What API Gateway itself ignores (root-level `security`, `servers`, tags,
//! most of OpenAPI) is ignored. Schemas are looked at only where a validator asks for bodies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use serde_json::{Map, Value};

mod extension;
mod integration;
mod parameter;
mod reply;
mod security;

pub(super) use integration::{Integration, LambdaIntegration, MockIntegration, Passthrough, TransferMode};
pub(super) use parameter::{Place, Validation};
pub(super) use security::{Authorizer, IdentitySource};

use super::refusal::Replies;

/// The operations of a path item that API Gateway knows, as OpenAPI writes them.
const METHODS: [&str; 7] = ["delete", "get", "head", "options", "patch", "post", "put"];

/// The operation for every method that has none of its own.
const ANY_METHOD: &str = "x-amazon-apigateway-any-method";

/// A contract, ready to be executed.
#[derive(Debug)]
pub(super) struct Contract {
    pub(super) resources: Vec<Resource>,
    pub(super) replies: Replies,
    pub(super) binary: BinaryTypes,
}

/// One path and its methods.
#[derive(Debug)]
pub(super) struct Resource {
    /// The path template, `resource` and `resourcePath` of events.
    pub(super) template: String,
    pub(super) methods: BTreeMap<String, Arc<Operation>>,
    /// The operation for all other methods.
    pub(super) any: Option<Arc<Operation>>,
}

/// One method of one path.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) id: Option<String>,
    /// `None`: public.
    pub(super) authorizer: Option<Arc<Authorizer>>,
    pub(super) validation: Validation,
    pub(super) integration: Integration,
}

/// `x-amazon-apigateway-binary-media-types`.
#[derive(Debug, Default)]
pub(super) struct BinaryTypes {
    every: bool,
    types: BTreeSet<String>,
}

impl BinaryTypes {
    /// Whether a media type, in lower case and without parameters, is a binary one.
    pub(super) fn contain(&self, media_type: Option<&str>) -> bool {
        self.every || media_type.is_some_and(|media_type| self.types.contains(media_type))
    }

    fn parse(value: Option<&Value>) -> Result<Self> {
        let Some(value) = value else { return Ok(Self::default()) };
        let listed = Vec::<String>::deserialize(value).context("x-amazon-apigateway-binary-media-types")?;
        let mut binary = Self::default();
        for media_type in listed {
            match media_type.as_str() {
                "*/*" => binary.every = true,
                partial if partial.contains('*') => bail!("binary media type {partial}: wildcards are not emulated"),
                exact => {
                    binary.types.insert(exact.to_ascii_lowercase());
                }
            }
        }
        Ok(binary)
    }
}

impl Contract {
    /// Reads a contract whose intrinsic functions are resolved.
    ///
    /// # Errors
    /// Names everything that is malformed, that API Gateway would not import, or that is not emulated.
    pub(super) fn parse(document: &Value) -> Result<Self> {
        let version = document.get("openapi").and_then(Value::as_str).unwrap_or_default();
        if !version.starts_with("3.0.") {
            bail!("the contract is not OpenAPI 3.0 but {version:?}");
        }
        extension::check(document)?;
        let authorizers = security::authorizers(document)?;
        let validators = parameter::Validators::parse(document)?;
        let mut resources = Vec::new();
        for (template, item) in object(document.get("paths").context("the contract has no paths")?)? {
            let resource = Resource::parse(document, template, item, &authorizers, &validators)
                .with_context(|| format!("path {template}"))?;
            resources.push(resource);
        }
        Ok(Self {
            resources,
            replies: reply::parse(document.get("x-amazon-apigateway-gateway-responses"))?,
            binary: BinaryTypes::parse(document.get("x-amazon-apigateway-binary-media-types"))?,
        })
    }
}

impl Resource {
    fn parse(
        document: &Value,
        template: &str,
        item: &Value,
        authorizers: &[Arc<Authorizer>],
        validators: &parameter::Validators,
    ) -> Result<Self> {
        let item = object(item)?;
        if item.contains_key("$ref") {
            bail!("a path item by reference is not imported");
        }
        let operation = |name: &str, value: &Value| -> Result<Arc<Operation>> {
            let parse = || -> Result<Operation> {
                let fields = object(value)?;
                Ok(Operation {
                    id: fields.get("operationId").and_then(Value::as_str).map(str::to_owned),
                    authorizer: security::requirement(fields.get("security"), authorizers)?,
                    validation: validators.of(document, item, fields)?,
                    integration: Integration::parse(document, fields)?,
                })
            };
            parse()
                .map(Arc::new)
                .with_context(|| format!("operation {} {template}", name.to_ascii_uppercase()))
        };
        let mut methods = BTreeMap::new();
        for name in METHODS {
            if let Some(value) = item.get(name) {
                methods.insert(name.to_ascii_uppercase(), operation(name, value)?);
            }
        }
        let any = item.get(ANY_METHOD).map(|value| operation("any", value)).transpose()?;
        Ok(Self {
            template: template.to_owned(),
            methods,
            any,
        })
    }
}

/// The value as an object, or an error that shows it is none.
fn object(value: &Value) -> Result<&Map<String, Value>> {
    value
        .as_object()
        .ok_or_else(|| anyhow!("expected an object, found {value}"))
}

/// Follows local references.
fn resolve<'a>(document: &'a Value, mut value: &'a Value) -> Result<&'a Value> {
    for _ in 0..16 {
        let Some(reference) = value.get("$ref").and_then(Value::as_str) else {
            return Ok(value);
        };
        let Some(pointer) = reference.strip_prefix('#') else {
            bail!("{reference} is not a local reference")
        };
        value = document
            .pointer(pointer)
            .ok_or_else(|| anyhow!("{reference} leads nowhere"))?;
    }
    bail!("references lead in a circle")
}

/// The two ways to invoke a function, by the URI: its answer whole, or as it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Invocation {
    Whole,
    Streamed,
}

/// How a Lambda integration or authorizer invokes which function: its URI, taken apart.
fn invocation(uri: &Value) -> Result<(Invocation, String)> {
    let Some(uri) = uri.as_str() else {
        bail!("the uri is not a string: {uri}")
    };
    let bad = || anyhow!("{uri} is not the URI of a Lambda invocation");
    let (head, path) = uri.split_once(":lambda:path/").ok_or_else(bad)?;
    if !head.starts_with("arn:") || !head.contains(":apigateway:") {
        return Err(bad());
    }
    let (version, rest) = path.split_once("/functions/").ok_or_else(bad)?;
    let (invocation, arn) = match version {
        "2015-03-31" => (Invocation::Whole, rest.strip_suffix("/invocations")),
        "2021-11-15" => (
            Invocation::Streamed,
            rest.strip_suffix("/response-streaming-invocations"),
        ),
        _ => bail!("{uri}: there is no version {version} of the invocation"),
    };
    let arn = arn.ok_or_else(bad)?;
    if !arn.starts_with("arn:") || !arn.contains(":lambda:") || !arn.contains(":function:") || arn.contains(['$', '/'])
    {
        return Err(bad());
    }
    Ok((invocation, arn.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ARN: &str = "arn:aws:lambda:us-east-1:123456789012:function:echo";

    fn minimal(operation: &Value) -> Value {
        json!({"openapi": "3.0.1", "paths": {"/a": {"get": operation}}})
    }

    fn lambda(extra: &Value) -> Value {
        let mut integration = json!({
            "type": "aws_proxy",
            "httpMethod": "POST",
            "uri": format!("arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/{ARN}/invocations"),
        });
        integration
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        minimal(&json!({"x-amazon-apigateway-integration": integration}))
    }

    fn refused(document: &Value) -> String {
        format!("{:#}", Contract::parse(document).unwrap_err())
    }

    #[test]
    fn what_is_not_known_stops_the_start_and_is_named() {
        for (extra, named) in [
            (json!({"type": "http_proxy"}), "http_proxy"),
            (json!({"connectionId": "x"}), "connectionId"),
            (json!({"httpMethod": "GET"}), "httpMethod"),
            (json!({"timeoutInMillis": 30_000}), "timeoutInMillis"),
            (json!({"timeoutInMillis": 49}), "timeoutInMillis"),
            (json!({"uri": {"Fn::Sub": "x"}}), "Fn::Sub"),
            (json!({"uri": "https://example.com"}), "https://example.com"),
            (
                json!({"requestParameters": {"integration.request.header.X-Other": "'1'"}}),
                "X-Other",
            ),
            (
                json!({"requestParameters": {"integration.request.header.X-Amz-Tenant-Id": "nonsense"}}),
                "nonsense",
            ),
        ] {
            let message = refused(&lambda(&extra));
            assert!(message.contains(named) && message.contains("GET /a"), "{message}");
        }
        let mut document = lambda(&json!({}));
        document["x-amazon-apigateway-policy"] = json!({});
        document["paths"]["/a"]["get"]["x-amazon-apigateway-auth"] = json!({});
        let message = refused(&document);
        assert!(
            message.contains("x-amazon-apigateway-policy") && message.contains("x-amazon-apigateway-auth"),
            "{message}"
        );
    }

    #[test]
    fn an_operation_without_integration_is_refused() {
        assert!(refused(&minimal(&json!({}))).contains("x-amazon-apigateway-integration"));
    }

    #[test]
    fn root_level_security_is_ignored() {
        let mut document = lambda(&json!({}));
        document["security"] = json!([{"absent": []}]);
        let contract = Contract::parse(&document).unwrap();
        assert!(contract.resources[0].methods["GET"].authorizer.is_none());
    }

    #[test]
    fn security_that_is_not_an_authorizer_is_refused() {
        let mut document = lambda(&json!({}));
        document["paths"]["/a"]["get"]["security"] = json!([{"key": []}]);
        assert!(refused(&document).contains("key"));
        document["components"] =
            json!({"securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": "x-api-key"}}});
        assert!(refused(&document).contains("key"));
    }

    #[test]
    fn authorizers_are_checked_like_an_import() {
        let scheme = |authorizer: &Value| {
            json!({"openapi": "3.0.1", "paths": {}, "components": {"securitySchemes": {"t": {
                "type": "apiKey", "in": "header", "name": "Authorization",
                "x-amazon-apigateway-authtype": "custom", "x-amazon-apigateway-authorizer": authorizer,
            }}}})
        };
        let uri = format!("arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/{ARN}/invocations");
        for (authorizer, named) in [
            (json!({"type": "token", "authorizerUri": uri}), "token"),
            (json!({"type": "request", "authorizerUri": uri}), "identitySource"),
            (
                json!({"type": "request", "authorizerUri": uri, "identitySource": "method.request.path.id"}),
                "path",
            ),
            (
                json!({"type": "request", "authorizerUri": uri, "identitySource": "method.request.header.a",
                "authorizerResultTtlInSeconds": 3601}),
                "authorizerResultTtlInSeconds",
            ),
            (
                json!({"type": "request", "authorizerUri": uri, "surprise": 1}),
                "surprise",
            ),
        ] {
            let message = refused(&scheme(&authorizer));
            assert!(message.contains(named), "{message}");
        }
        let good = json!({"type": "request", "authorizerUri": uri, "identitySource": "method.request.header.A, context.stage"});
        let authorizers = security::authorizers(&scheme(&good)).unwrap();
        assert_eq!(authorizers[0].ttl.as_secs(), 300);
        assert_eq!(authorizers[0].function_arn, ARN);
        assert_eq!(authorizers[0].identity.len(), 2);
    }

    #[test]
    fn the_transfer_mode_and_the_uri_belong_together() {
        let streamed = json!(format!(
            "arn:aws:apigateway:us-east-1:lambda:path/2021-11-15/functions/{ARN}/response-streaming-invocations"
        ));
        let crossed = json!(format!(
            "arn:aws:apigateway:us-east-1:lambda:path/2021-11-15/functions/{ARN}/invocations"
        ));
        for (integration, named) in [
            (json!({"uri": streamed}), "BUFFERED"),
            (json!({"uri": streamed, "responseTransferMode": "BUFFERED"}), "BUFFERED"),
            (json!({"responseTransferMode": "STREAM"}), "STREAM"),
            (json!({"uri": crossed, "responseTransferMode": "STREAM"}), "not the URI"),
            (
                json!({"uri": streamed, "responseTransferMode": "RESPONSE_STREAM"}),
                "RESPONSE_STREAM",
            ),
            (
                json!({"uri": streamed, "responseTransferMode": "STREAM", "timeoutInMillis": 900_001}),
                "timeoutInMillis",
            ),
        ] {
            let message = refused(&lambda(&integration));
            assert!(message.contains(named), "{message}");
        }
        let good = json!({"uri": streamed, "responseTransferMode": "STREAM", "timeoutInMillis": 150_000});
        let contract = Contract::parse(&lambda(&good)).unwrap();
        let Integration::Lambda(integration) = &contract.resources[0].methods["GET"].integration else {
            panic!("it is a Lambda integration")
        };
        assert_eq!(integration.transfer, TransferMode::Stream);
        assert_eq!(integration.timeout.as_secs(), 150);

        let mut document = json!({"openapi": "3.0.1", "paths": {}, "components": {"securitySchemes": {"t": {
            "type": "apiKey", "in": "header", "name": "Authorization", "x-amazon-apigateway-authtype": "custom",
            "x-amazon-apigateway-authorizer": {
                "type": "request", "authorizerUri": streamed, "identitySource": "method.request.header.A",
            },
        }}}});
        assert!(refused(&document).contains("authorizer"));
        document["components"] = json!({});
        assert!(Contract::parse(&document).is_ok());
    }

    #[test]
    fn mock_responses_must_be_declared_like_method_responses() {
        let mut document = minimal(&json!({
            "responses": {"200": {"description": "ok"}},
            "x-amazon-apigateway-integration": {
                "type": "mock",
                "requestTemplates": {"application/json": "{\"statusCode\": 200}"},
                "responses": {"default": {"statusCode": "200", "responseParameters": {"method.response.header.X-A": "'1'"}}},
            },
        }));
        assert!(refused(&document).contains("X-A"));
        document["paths"]["/a"]["get"]["responses"]["200"]["headers"] = json!({"X-A": {"schema": {"type": "string"}}});
        assert!(Contract::parse(&document).is_ok());
        document["paths"]["/a"]["get"]["x-amazon-apigateway-integration"]["responses"]["default"]["statusCode"] =
            json!("204");
        assert!(refused(&document).contains("204"));
    }

    #[test]
    fn gateway_responses_are_read_strictly() {
        let with = |responses: &Value| json!({"openapi": "3.0.1", "paths": {}, "x-amazon-apigateway-gateway-responses": responses});
        for (responses, named) in [
            (json!({"TEAPOT": {}}), "TEAPOT"),
            (json!({"THROTTLED": {"status": 429}}), "status"),
            (json!({"THROTTLED": {"statusCode": "4x"}}), "4x"),
            (
                json!({"THROTTLED": {"responseParameters": {"gatewayresponse.body.a": "'1'"}}}),
                "gatewayresponse.body.a",
            ),
            (
                json!({"THROTTLED": {"responseTemplates": {"application/json": "$input.body"}}}),
                "$input.body",
            ),
        ] {
            let message = refused(&with(&responses));
            assert!(message.contains(named), "{message}");
        }
    }

    #[test]
    fn binary_types_match_exactly_or_all() {
        let types = BinaryTypes::parse(Some(&json!(["application/PDF"]))).unwrap();
        assert!(types.contain(Some("application/pdf")));
        assert!(!types.contain(Some("application/pdfx")) && !types.contain(None));
        assert!(BinaryTypes::parse(Some(&json!(["*/*"]))).unwrap().contain(None));
        assert!(BinaryTypes::parse(Some(&json!(["image/*"]))).is_err());
    }
}
