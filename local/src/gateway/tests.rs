//! The gateway over real HTTP on the loopback interface, with functions that are closures of this process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

mod authorization;
mod deployed;
mod integration;
mod refusal;
mod routing;
mod streaming;

type Function = Box<dyn Fn(Value) -> BoxFuture<'static, Result<Outcome, InvokeError>> + Send + Sync>;

/// A function that streams; its pieces are the test's.
type Streaming = Box<dyn Fn(Value) -> Result<PayloadStream, InvokeError> + Send + Sync>;

/// One call that a function got.
#[derive(Clone, Debug)]
struct Call {
    function: String,
    tenant: Option<String>,
    event: Value,
}

/// Functions by name, and the calls they got. `isolated` needs a tenant and the others must have none, as Lambda has it.
#[derive(Default)]
struct Functions {
    by_name: BTreeMap<String, Function>,
    streaming: BTreeMap<String, Streaming>,
    calls: Mutex<Vec<Call>>,
}

impl Functions {
    fn with(
        mut self,
        name: &str,
        function: impl Fn(Value) -> Result<Outcome, InvokeError> + Send + Sync + 'static,
    ) -> Self {
        let function: Function = Box::new(move |event| std::future::ready(function(event)).boxed());
        self.by_name.insert(name.to_owned(), function);
        self
    }

    fn never_answering(mut self, name: &str) -> Self {
        self.by_name
            .insert(name.to_owned(), Box::new(|_event| std::future::pending().boxed()));
        self
    }

    fn streaming(
        mut self,
        name: &str,
        function: impl Fn(Value) -> Result<PayloadStream, InvokeError> + Send + Sync + 'static,
    ) -> Self {
        self.streaming.insert(name.to_owned(), Box::new(function));
        self
    }

    /// Notes a call and says which function and event it is.
    fn called(&self, function_arn: &str, tenant: Option<&str>, payload: &[u8]) -> Result<(String, Value), InvokeError> {
        let function = function_arn
            .strip_prefix("arn:aws:lambda:us-east-1:123456789012:function:")
            .unwrap()
            .to_owned();
        if (function == "isolated") != tenant.is_some() {
            return Err(InvokeError::InvalidParameterValue("tenant id".to_owned()));
        }
        let event: Value = serde_json::from_slice(payload).unwrap();
        self.calls.lock().unwrap().push(Call {
            function: function.clone(),
            tenant: tenant.map(str::to_owned),
            event: event.clone(),
        });
        Ok((function, event))
    }

    fn calls(&self, name: &str) -> Vec<Call> {
        self.calls
            .lock()
            .unwrap()
            .iter()
            .filter(|call| call.function == name)
            .cloned()
            .collect()
    }
}

impl Invoke for Functions {
    fn invoke<'a>(
        &'a self,
        function_arn: &'a str,
        tenant: Option<&'a str>,
        payload: Bytes,
    ) -> BoxFuture<'a, Result<Outcome, InvokeError>> {
        async move {
            let (function, event) = self.called(function_arn, tenant, &payload)?;
            self.by_name.get(&function).ok_or(InvokeError::NotFound)?(event).await
        }
        .boxed()
    }

    fn invoke_with_response_stream<'a>(
        &'a self,
        function_arn: &'a str,
        tenant: Option<&'a str>,
        payload: Bytes,
    ) -> BoxFuture<'a, Result<PayloadStream, InvokeError>> {
        let called = self.called(function_arn, tenant, &payload);
        let begun =
            called.and_then(|(function, event)| self.streaming.get(&function).ok_or(InvokeError::NotFound)?(event));
        std::future::ready(begun).boxed()
    }
}

/// The answer of a function that shows its event.
fn echo(event: Value) -> Result<Outcome, InvokeError> {
    answer(&json!({"statusCode": 200, "body": event.to_string()}))
}

fn answer(value: &Value) -> Result<Outcome, InvokeError> {
    Ok(Outcome::Buffered(Bytes::from(value.to_string())))
}

fn failure(message: &str) -> Result<Outcome, InvokeError> {
    let error = json!({"errorType": "Error", "errorMessage": message});
    Ok(Outcome::FunctionError(Bytes::from(error.to_string())))
}

/// An authorizer that does what the token says: `allow-TENANT`, `deny-CODE`, `only-PATTERN` and so on.
fn authorizer(event: Value) -> Result<Outcome, InvokeError> {
    let token = event["headers"]["Authorization"].as_str().unwrap_or_default();
    let (what, value) = token
        .trim_start_matches("Bearer ")
        .split_once('-')
        .unwrap_or(("none", ""));
    let head = event["methodArn"]
        .as_str()
        .unwrap()
        .splitn(3, '/')
        .take(2)
        .collect::<Vec<_>>()
        .join("/");
    let respond = |effect: &str, resource: &str, context: Value| {
        answer(&json!({
            "principalId": format!("user of {value}"),
            "policyDocument": {"Version": "2012-10-17", "Statement": [
                {"Action": "execute-api:Invoke", "Effect": effect, "Resource": format!("{head}/{resource}")},
            ]},
            "context": context,
        }))
    };
    match what {
        "allow" => respond(
            "Allow",
            "*",
            json!({"tenantId": value, "expiry": 17, "flag": true, "code": "forbidden"}),
        ),
        "only" => respond("Allow", value, json!({"tenantId": "acme", "code": "forbidden"})),
        "deny" => respond("Deny", "*", json!({"code": value})),
        "padded" => respond("Allow", "*", json!({"tenantId": format!(" {value}\t")})),
        "notenant" => respond("Allow", "*", json!({})),
        "nested" => respond("Allow", "*", json!({"tenantId": {"a": "b"}})),
        "malformed" => answer(&json!({"principalId": "p"})),
        "error" => failure(value),
        "throttled" => Err(InvokeError::TooManyRequests),
        "forbidden" => Err(InvokeError::AccessDenied),
        _ => failure("Unauthorized"),
    }
}

fn uri(function: &str) -> String {
    let arn = format!("arn:aws:lambda:us-east-1:123456789012:function:{function}");
    format!("arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/{arn}/invocations")
}

fn lambda(function: &str) -> Value {
    json!({"type": "aws_proxy", "httpMethod": "POST", "uri": uri(function), "timeoutInMillis": 5000})
}

fn isolated() -> Value {
    let mut integration = lambda("isolated");
    integration["requestParameters"] =
        json!({"integration.request.header.X-Amz-Tenant-Id": "context.authorizer.tenantId"});
    integration
}

fn scheme(ttl: u64) -> Value {
    json!({
        "type": "apiKey", "in": "header", "name": "Authorization",
        "x-amazon-apigateway-authtype": "custom",
        "x-amazon-apigateway-authorizer": {
            "type": "request", "authorizerUri": uri("authorizer"),
            "identitySource": "method.request.header.Authorization", "authorizerResultTtlInSeconds": ttl,
        },
    })
}

/// A contract with a bit of everything.
fn contract() -> Value {
    let tenant = json!([{"tenant": []}]);
    let cors = json!({
        "security": [],
        "responses": {"204": {"headers": {"Access-Control-Allow-Origin": {}, "Access-Control-Allow-Methods": {}}}},
        "x-amazon-apigateway-integration": {
            "type": "mock", "contentHandling": "CONVERT_TO_TEXT", "passthroughBehavior": "when_no_templates",
            "requestTemplates": {"application/json": "{\"statusCode\": 204}"},
            "responses": {"default": {"statusCode": "204", "responseParameters": {
                "method.response.header.Access-Control-Allow-Origin": "'*'",
                "method.response.header.Access-Control-Allow-Methods": "'GET,OPTIONS'",
            }}},
        },
    });
    json!({
        "openapi": "3.0.1",
        // Ignored by API Gateway.
        "security": [{"tenant": []}],
        "x-amazon-apigateway-binary-media-types": ["application/pdf", "application/octet-stream"],
        "x-amazon-apigateway-request-validators": {
            "parameters": {"validateRequestParameters": true, "validateRequestBody": false},
            "all": {"validateRequestParameters": true, "validateRequestBody": true},
        },
        "x-amazon-apigateway-request-validator": "parameters",
        "paths": {
            "/health": {
                "get": {
                    "operationId": "get_health",
                    "responses": {"200": {"headers": {"Cache-Control": {}}}},
                    "x-amazon-apigateway-integration": {
                        "type": "mock", "passthroughBehavior": "when_no_templates",
                        "requestTemplates": {"application/json": "{\"statusCode\": 200}"},
                        "responses": {"default": {
                            "statusCode": 200,
                            "responseParameters": {"method.response.header.Cache-Control": "'no-store'"},
                            "responseTemplates": {"application/json": "{\"status\":\"ok\",\"id\":\"$context.requestId\"}"},
                        }},
                    },
                },
                "options": cors,
            },
            "/public": {"x-amazon-apigateway-any-method": {"operationId": "public", "x-amazon-apigateway-integration": lambda("plain")}},
            "/items": {
                "get": {"operationId": "list_items", "security": tenant, "x-amazon-apigateway-integration": isolated()},
                "post": {"operationId": "add_item", "security": tenant, "x-amazon-apigateway-integration": isolated()},
                "options": cors,
            },
            "/items/{id}": {
                "get": {"operationId": "get_item", "security": tenant, "x-amazon-apigateway-integration": isolated()},
            },
            "/unmapped": {
                "get": {"operationId": "unmapped", "security": tenant, "x-amazon-apigateway-integration": lambda("isolated")},
            },
            "/operators": {
                "get": {"operationId": "operators", "security": [{"operator": []}], "x-amazon-apigateway-integration": lambda("plain")},
            },
            "/search": {
                "parameters": [{"name": "x-lang", "in": "header", "required": true}],
                "get": {
                    "operationId": "search",
                    "parameters": [
                        {"name": "q", "in": "query", "required": true},
                        {"name": "page", "in": "query", "required": false},
                    ],
                    "x-amazon-apigateway-integration": lambda("plain"),
                },
            },
            "/orders": {
                "post": {
                    "operationId": "order",
                    "x-amazon-apigateway-request-validator": "all",
                    "requestBody": {"required": true, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Order"}}}},
                    "x-amazon-apigateway-integration": lambda("plain"),
                },
            },
        },
        "components": {
            "schemas": {
                "Order": {
                    "type": "object", "additionalProperties": false, "required": ["count"],
                    "properties": {"count": {"type": "integer", "minimum": 1}, "tags": {"type": "array", "maxItems": 1}},
                },
            },
            "securitySchemes": {"tenant": scheme(300), "operator": scheme(0)},
        },
    })
}

struct Fixture {
    gateway: Gateway,
    functions: Arc<Functions>,
    client: reqwest::Client,
}

impl Fixture {
    async fn start(contract: Value, functions: Functions) -> Self {
        let functions = Arc::new(functions);
        let config = GatewayConfig {
            stage: "test".to_owned(),
            ..GatewayConfig::new(contract)
        };
        let gateway = Gateway::start(config, Arc::clone(&functions) as Arc<dyn Invoke>)
            .await
            .unwrap();
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        Self {
            gateway,
            functions,
            client,
        }
    }

    /// With the fixture's contract, its authorizer, and functions that show their events.
    async fn new() -> Self {
        Self::start(
            contract(),
            Functions::default()
                .with("authorizer", authorizer)
                .with("plain", echo)
                .with("isolated", echo),
        )
        .await
    }

    fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.get(format!("{}{path}", self.gateway.base_url()))
    }

    fn post(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.post(format!("{}{path}", self.gateway.base_url()))
    }

    /// The event of a function that shows it, after a call that must succeed.
    async fn event(&self, request: reqwest::RequestBuilder) -> Value {
        let (status, _, body) = send(request).await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    fn last(&self) -> AccessLogEntry {
        self.gateway.requests().pop().unwrap()
    }

    /// Sends a request as it is, which clients that tidy up paths can't.
    async fn raw(&self, request_line: &str, headers: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.gateway.address()).await.unwrap();
        let request = format!("{request_line} HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }
}

async fn send(request: reqwest::RequestBuilder) -> (u16, reqwest::header::HeaderMap, String) {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    (status, headers, response.text().await.unwrap())
}

async fn status(request: reqwest::RequestBuilder) -> u16 {
    send(request).await.0
}
