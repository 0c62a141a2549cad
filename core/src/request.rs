//! A call as API Gateway hands it to a function: already routed, and with the authorizer's word on who asks.
//!
//! Functions dispatch on the gateway's own route ([`Request::route`]): a second router could disagree with the first.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, Method};
use lambda_http::aws_lambda_events::apigw::ApiGatewayProxyRequest;
use lambda_http::request::LambdaRequest;
use lambda_runtime::{Context, LambdaEvent};
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::tenant::UnverifiedCaller;

/// The most bytes that a JSON body may have.
const MAX_JSON: usize = 64 * 1024;
/// What is kept back of the function's time, to answer in.
const MARGIN: Duration = Duration::from_millis(500);
/// The longest that a call whose answer is buffered is worked on: API Gateway gives its integration 29 seconds
/// (<https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-execution-service-limits-table.html>).
pub const LONGEST: Duration = Duration::from_secs(27);

/// A call.
#[derive(Debug)]
pub struct Request {
    method: Method,
    resource: String,
    path_parameters: HashMap<String, String>,
    query: HashMap<String, Vec<String>>,
    headers: HeaderMap,
    body: Vec<u8>,
    request_id: String,
    deadline: SystemTime,
    caller: UnverifiedCaller,
}

impl Request {
    /// Reads an event of a REST API's proxy integration.
    ///
    /// # Errors
    /// [`Error::Internal`] if the gateway's event is not one.
    pub fn new(event: LambdaEvent<LambdaRequest>) -> Result<Self, Error> {
        let (payload, context) = event.into_parts();
        match payload {
            LambdaRequest::ApiGatewayV1(event) => Self::from_proxy(event, &context),
            _ => Err(Error::internal("an event of another kind than a REST API's")),
        }
    }

    fn from_proxy(event: ApiGatewayProxyRequest, context: &Context) -> Result<Self, Error> {
        let body = match event.body {
            None => Vec::new(),
            Some(text) if event.is_base64_encoded => {
                data_encoding::BASE64.decode(text.as_bytes()).map_err(Error::internal)?
            }
            Some(text) => text.into_bytes(),
        };
        let fields = event.request_context.authorizer.fields;
        let field = |name: &str| fields.get(name).and_then(|value| value.as_str()).map(str::to_owned);
        let caller = UnverifiedCaller {
            tenant: field("tenantId"),
            user: field("userId"),
            roles: field("roles"),
            groups: field("groups"),
            token_expiry: field("tokenExpiry"),
            runtime_tenant: context.tenant_id.clone(),
        };
        let parameters = &event.multi_value_query_string_parameters;
        let query = parameters
            .iter()
            .map(|(name, _)| (name.to_owned(), parameters.all(name).unwrap_or_default()))
            .map(|(name, values)| (name, values.into_iter().map(str::to_owned).collect()))
            .collect();
        Ok(Self {
            method: event.http_method,
            resource: event.resource.unwrap_or_default(),
            path_parameters: event.path_parameters,
            query,
            // The other map holds each header's last value only.
            headers: event.multi_value_headers,
            body,
            request_id: event
                .request_context
                .request_id
                .unwrap_or_else(|| context.request_id.clone()),
            deadline: context.deadline(),
            caller,
        })
    }

    /// The method and the path template that the gateway matched, as the contract spells them.
    pub fn route(&self) -> (&str, &str) {
        (self.method.as_str(), &self.resource)
    }

    /// A parameter of the path.
    ///
    /// # Errors
    /// [`Error::NotFound`]: a route without its parameter names nothing.
    pub fn path_parameter(&self, name: &str) -> Result<&str, Error> {
        self.path_parameters
            .get(name)
            .map(String::as_str)
            .ok_or(Error::NotFound)
    }

    /// A parameter of the query string, at most once.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is there more than once: which of them counts would be a guess.
    pub fn query_parameter(&self, name: &'static str) -> Result<Option<&str>, Error> {
        match self.query.get(name).map(Vec::as_slice) {
            None | Some([]) => Ok(None),
            Some([value]) => Ok(Some(value)),
            Some(_) => Err(Error::invalid_at(format!("?{name}"), "At most once.")),
        }
    }

    /// A header, at most once.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is there more than once, or is not ASCII text: as good as absent it is not.
    pub fn header(&self, name: &'static str) -> Result<Option<&str>, Error> {
        let mut values = self.headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => value
                .to_str()
                .map(Some)
                .map_err(|_| Error::invalid(format!("{name}: visible ASCII characters only."))),
            (Some(_), Some(_)) => Err(Error::invalid(format!("{name}: at most once."))),
        }
    }

    /// The body's bytes.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The body as a JSON object of shape `T`. Members are checked strictly by `T` (`deny_unknown_fields`); serde refuses duplicates.
    ///
    /// # Errors
    /// [`Error::PayloadTooLarge`], [`Error::UnsupportedMediaType`] if it says to be something else,
    /// [`Error::Invalid`] with a pointer to what is wrong.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        if self.body.len() > MAX_JSON {
            return Err(Error::PayloadTooLarge);
        }
        if let Some(value) = self.header("Content-Type")? {
            let essence = value.split(';').next().unwrap_or_default().trim();
            if !essence.eq_ignore_ascii_case("application/json") {
                return Err(Error::UnsupportedMediaType);
            }
        }
        // serde would take a list of values for an object, in the order of the members.
        let begins = self.body.iter().find(|byte| !b" \t\r\n".contains(byte));
        if begins.is_some_and(|byte| *byte != b'{') {
            return Err(Error::invalid_at("", "A JSON object."));
        }
        let mut deserializer = serde_json::Deserializer::from_slice(&self.body);
        let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
            let pointer: String = error
                .path()
                .iter()
                .fold(String::new(), |pointer, segment| match segment {
                    serde_path_to_error::Segment::Seq { index } => format!("{pointer}/{index}"),
                    serde_path_to_error::Segment::Map { key } => {
                        format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
                    }
                    serde_path_to_error::Segment::Enum { .. } | serde_path_to_error::Segment::Unknown => pointer,
                });
            Error::invalid_at(pointer, format!("{}.", error.inner()))
        })?;
        deserializer
            .end()
            .map_err(|error| Error::invalid_at("", format!("{error}.")))?;
        Ok(value)
    }

    /// The gateway's id of the request, under which clients and logs name it.
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// How long the function may still work on it: what the invocation and the gateway leave, less a margin to answer in.
    pub fn time_left(&self) -> Duration {
        let left = self.deadline.duration_since(SystemTime::now()).unwrap_or_default();
        left.saturating_sub(MARGIN).min(LONGEST)
    }

    /// How long the function may still stream its answer: what the invocation leaves, less a margin to end it in, and at
    /// most `longest`. The gateway's 29 seconds bind buffered answers only
    /// (<https://docs.aws.amazon.com/apigateway/latest/developerguide/response-transfer-mode.html>).
    pub fn stream_time_left(&self, longest: Duration) -> Duration {
        let left = self.deadline.duration_since(SystemTime::now()).unwrap_or_default();
        left.saturating_sub(MARGIN).min(longest)
    }

    /// Who asks, before anything was compared.
    pub fn caller(&self) -> &UnverifiedCaller {
        &self.caller
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn request(headers: Value) -> Request {
        let event = json!({
            "resource": "/documents",
            "httpMethod": "POST",
            "headers": {"Idempotency-Key": "last", "Content-Type": "application/json"},
            "multiValueHeaders": headers,
            "requestContext": {"httpMethod": "POST", "identity": {}},
            "body": "{}",
        });
        Request::new(LambdaEvent::new(
            serde_json::from_value(event).unwrap(),
            Context::default(),
        ))
        .unwrap()
    }

    #[test]
    fn a_header_is_one_text_or_refused() {
        let header = |values: Value| {
            request(json!({"idempotency-key": values}))
                .header("Idempotency-Key")
                .map(|value| value.map(str::to_owned))
        };
        assert_eq!(header(json!(["k"])).unwrap().as_deref(), Some("k"));
        assert_eq!(header(json!([])).unwrap(), None);
        // Neither counts as absent, nor does the first or the last of two win.
        for bad in [json!(["\u{e9}"]), json!(["a", "b"]), json!(["a", "a"])] {
            assert!(matches!(header(bad.clone()), Err(Error::Invalid { .. })), "{bad}");
        }
        for name in ["Idempotency-Key", "IDEMPOTENCY-KEY", "idempotency-key"] {
            let twice = json!({name: ["a"], "Idempotency-key": ["b"]});
            assert!(request(twice).header("Idempotency-Key").is_err(), "{name}");
        }
        assert_eq!(request(Value::Null).header("Idempotency-Key").unwrap(), None);
    }

    #[test]
    fn a_body_is_an_object() {
        #[derive(Debug, serde::Deserialize)]
        struct Shape {
            #[expect(dead_code, reason = "only read")]
            name: Option<String>,
        }
        let body = |text: &str| {
            let mut request = request(Value::Null);
            request.body = text.as_bytes().to_vec();
            request.json::<Shape>().map(|_| ())
        };
        assert!(body(" \n{\"name\":\"a\"}").is_ok());
        for bad in [
            "",
            " ",
            "[]",
            "[\"a\"]",
            " [\"a\"]",
            "null",
            "\"a\"",
            "{}{}",
            "\u{feff}{}",
        ] {
            assert!(matches!(body(bad), Err(Error::Invalid { .. })), "{bad}");
        }
    }

    #[test]
    fn a_body_of_two_media_types_is_refused() {
        let body = |types: Value| request(json!({"Content-Type": types})).json::<Value>();
        assert!(body(json!(["application/json; charset=utf-8"])).is_ok());
        assert!(body(json!([])).is_ok());
        assert!(matches!(body(json!(["text/plain"])), Err(Error::UnsupportedMediaType)));
        assert!(matches!(
            body(json!(["application/json", "text/plain"])),
            Err(Error::Invalid { .. })
        ));
    }

    #[test]
    fn a_stream_has_the_invocations_time_and_a_buffered_answer_the_gateways() {
        let mut request = request(Value::Null);
        request.deadline = SystemTime::now() + Duration::from_secs(150);
        assert_eq!(request.time_left(), LONGEST);
        assert_eq!(
            request.stream_time_left(Duration::from_secs(120)),
            Duration::from_secs(120)
        );
        let left = request.stream_time_left(Duration::from_secs(900));
        assert!(
            left <= Duration::from_secs(150) - MARGIN && left > Duration::from_secs(120),
            "{left:?}"
        );
        request.deadline = SystemTime::now();
        assert_eq!(request.stream_time_left(Duration::from_secs(120)), Duration::ZERO);
    }
}
