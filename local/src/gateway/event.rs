//! The events that functions get: the REST proxy event (format 1.0) and the REQUEST authorizer's, and the request context
//! that both and all templates share.
//!
//! Rules: <https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html>,
//! <https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-lambda-authorizer-input.html>.

use std::collections::BTreeMap;
use std::time::Duration;

use data_encoding::BASE64;
use serde_json::{Map, Value, json};
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::authorizer::Grant;
use super::request::Request;
use super::route::Route;

/// The form of `requestTime`, that of the Common Log Format.
const CLF: &[BorrowedFormatItem<'_>] =
    format_description!("[day]/[month repr:short]/[year]:[hour]:[minute]:[second] +0000");

/// The API and stage that all requests are for.
#[derive(Clone, Debug)]
pub(super) struct Deployment {
    pub(super) account: String,
    pub(super) region: String,
    pub(super) api_id: String,
    pub(super) stage: String,
    pub(super) stage_variables: BTreeMap<String, String>,
    pub(super) port: u16,
}

impl Deployment {
    /// The ARN of a method, with the path as it was sent.
    pub(super) fn method_arn(&self, request: &Request) -> String {
        let Self {
            account,
            region,
            api_id,
            stage,
            ..
        } = self;
        let path = request.path.strip_prefix('/').unwrap_or(&request.path);
        format!(
            "arn:aws:execute-api:{region}:{account}:{api_id}/{stage}/{}/{path}",
            request.method
        )
    }

    /// The request context, without an authorizer's part. Before the route is known it has no resource.
    pub(super) fn context(&self, request: &Request, route: Option<&Route>) -> Map<String, Value> {
        let host = request
            .header_values("host")
            .last()
            .copied()
            .unwrap_or_default()
            .to_owned();
        let user_agent = request
            .header_values("user-agent")
            .last()
            .map(|value| (*value).to_owned());
        let received = request.received;
        let context = json!({
            "accountId": self.account,
            "apiId": self.api_id,
            "domainName": host,
            "domainPrefix": host.split(['.', ':']).next(),
            "extendedRequestId": request.extended_id,
            "httpMethod": request.method,
            "identity": {
                "accessKey": null,
                "accountId": null,
                "apiKey": null,
                "apiKeyId": null,
                "caller": null,
                "cognitoAuthenticationProvider": null,
                "cognitoAuthenticationType": null,
                "cognitoIdentityId": null,
                "cognitoIdentityPoolId": null,
                "principalOrgId": null,
                "sourceIp": request.source_ip.to_string(),
                "user": null,
                "userAgent": user_agent,
                "userArn": null,
            },
            "path": request.full_path,
            "protocol": "HTTP/1.1",
            "requestId": request.id,
            "requestTime": received.format(CLF).unwrap_or_default(),
            "requestTimeEpoch": i64::try_from(received.unix_timestamp_nanos() / 1_000_000).unwrap_or_default(),
            "resourceId": route.map(|route| &route.resource_id),
            "resourcePath": route.map(|route| &route.resource),
            "stage": self.stage,
        });
        match context {
            Value::Object(fields) => fields,
            // `json!` of an object is one.
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
        }
    }

    /// What a REQUEST authorizer gets. There is no body; what is absent is an empty object.
    pub(super) fn authorizer_event(&self, request: &Request, route: &Route, context: &Map<String, Value>) -> Value {
        let headers = request.event_headers(self.port);
        let query = request.query_by_name();
        json!({
            "type": "REQUEST",
            "methodArn": self.method_arn(request),
            "resource": route.resource,
            "path": request.path,
            "httpMethod": request.method,
            "headers": last(&headers),
            "multiValueHeaders": headers,
            "queryStringParameters": last(&query),
            "multiValueQueryStringParameters": query,
            "pathParameters": route.parameters,
            "stageVariables": self.stage_variables,
            "requestContext": context,
        })
    }

    /// What a Lambda proxy integration gets. What is absent is null.
    pub(super) fn proxy_event(
        &self,
        request: &Request,
        route: &Route,
        context: &Map<String, Value>,
        binary: bool,
    ) -> Value {
        let headers = request.event_headers(self.port);
        let query = request.query_by_name();
        let (body, is_base64) = match (request.body.is_empty(), binary) {
            (true, _) => (None, false),
            (false, true) => (Some(BASE64.encode(&request.body)), true),
            // Whatever is not a binary type is text, and text is UTF-8: other bytes are lost here.
            (false, false) => (Some(String::from_utf8_lossy(&request.body).into_owned()), false),
        };
        json!({
            "resource": route.resource,
            "path": request.path,
            "httpMethod": request.method,
            "headers": last(&headers),
            "multiValueHeaders": headers,
            "queryStringParameters": or_null(last(&query)),
            "multiValueQueryStringParameters": or_null(query),
            "pathParameters": or_null(route.parameters.clone()),
            "stageVariables": or_null(self.stage_variables.clone()),
            "requestContext": context,
            "body": body,
            "isBase64Encoded": is_base64,
        })
    }
}

/// The authorizer's part of the request context: its context, stringified, its principal, and what it cost.
pub(super) fn authorizer_context(grant: &Grant, latency: Duration) -> Value {
    let mut fields: Map<String, Value> = grant
        .context
        .iter()
        .map(|(name, value)| (name.clone(), Value::from(value.clone())))
        .collect();
    fields.insert("principalId".to_owned(), Value::from(grant.principal.clone()));
    fields.insert(
        "integrationLatency".to_owned(),
        Value::from(u64::try_from(latency.as_millis()).unwrap_or(u64::MAX)),
    );
    Value::Object(fields)
}

/// Of several values of a name, the single-value maps of an event keep the last.
fn last<N: Clone + Ord, V: Clone>(by_name: &BTreeMap<N, Vec<V>>) -> BTreeMap<N, V> {
    by_name
        .iter()
        .filter_map(|(name, values)| Some((name.clone(), values.last()?.clone())))
        .collect()
}

fn or_null<N, V>(map: BTreeMap<N, V>) -> Option<BTreeMap<N, V>> {
    (!map.is_empty()).then_some(map)
}
