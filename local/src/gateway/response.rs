//! From a function's proxy response to the client's: which members it may have, which headers are renamed or dropped, and
//! when a base64 body is decoded. The prelude of a streamed response is read here too: it has the same head.
//!
//! Rules: <https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html>, the table of
//! headers in <https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-known-issues.html>, and
//! <https://docs.aws.amazon.com/apigateway/latest/developerguide/response-transfer-mode-lambda.html>. No member is
//! mandatory, and a member beyond the known ones makes the response malformed.

use bytes::Bytes;
use data_encoding::BASE64;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value};

use super::refusal::Refusal;

const MEMBERS: [&str; 5] = ["body", "headers", "isBase64Encoded", "multiValueHeaders", "statusCode"];

const PRELUDE_MEMBERS: [&str; 4] = ["cookies", "headers", "multiValueHeaders", "statusCode"];

/// What separates a prelude from what follows it. JSON has no such byte.
pub(super) const DELIMITER: [u8; 8] = [0; 8];

/// In how many bytes a prelude and its delimiter must have their place.
pub(super) const PRELUDE_LIMIT: usize = 16_384;

/// Headers that reach the client as `X-Amzn-Remapped-*`.
const REMAPPED: [&str; 9] = [
    "authorization",
    "connection",
    "content-length",
    "content-md5",
    "date",
    "max-forwards",
    "server",
    "user-agent",
    "www-authenticate",
];

/// Headers that never reach the client.
const DROPPED: [&str; 8] = [
    "expect",
    "host",
    "proxy-authenticate",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

/// A result that is not a proxy response.
#[derive(Debug)]
pub(super) struct Malformed {
    /// What is wrong, for the log.
    pub(super) problem: String,
    pub(super) refusal: Refusal,
}

/// Reads a function's result. `decodes`: the client accepts a binary type, so that a base64 body is decoded.
///
/// A function that streams although it was invoked for a whole answer loses its body; its status and headers stay.
pub(super) fn read(payload: &[u8], decodes: bool, trace_id: &str) -> Result<Response<Bytes>, Malformed> {
    let malformed = |problem| Malformed {
        problem,
        refusal: Refusal::malformed_response(),
    };
    if let Some(head) = prelude_end(payload).and_then(|end| payload.get(..end)) {
        let head = prelude(head, trace_id).map_err(malformed)?;
        return Ok(head.map(|()| Bytes::new()));
    }
    let (status, headers, body) = parse(payload).map_err(malformed)?;
    let body = match body {
        Body::Base64(text) if decodes => BASE64.decode(text.as_bytes()).map_err(|error| Malformed {
            problem: format!("the body is not base64: {error}"),
            refusal: Refusal::api_configuration(),
        })?,
        // To a client that accepts text, base64 is text.
        Body::Base64(text) | Body::Text(text) => text.into_bytes(),
    };
    Ok(head(status, headers, trace_id).map(|()| Bytes::from(body)))
}

/// Where a prelude ends and its delimiter begins, if both are there.
pub(super) fn prelude_end(payload: &[u8]) -> Option<usize> {
    let place = payload.get(..PRELUDE_LIMIT).unwrap_or(payload);
    place
        .windows(DELIMITER.len())
        .position(|window| window == DELIMITER.as_slice())
}

/// Reads the prelude of a streamed response, without its delimiter; the error says what is wrong, for the log.
pub(super) fn prelude(text: &[u8], trace_id: &str) -> Result<Response<()>, String> {
    let prelude = object(text, &PRELUDE_MEMBERS)?;
    let mut headers = headers(&prelude)?;
    let cookies = match prelude.get("cookies") {
        None | Some(Value::Null) => [].as_slice(),
        Some(Value::Array(cookies)) => cookies.as_slice(),
        Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => {
            return Err("cookies is not a list".to_owned());
        }
    };
    for cookie in cookies {
        let value = cookie.as_str().and_then(|cookie| HeaderValue::from_str(cookie).ok());
        headers.append(header::SET_COOKIE, value.ok_or("a cookie can't be sent")?);
    }
    Ok(head(status(prelude.get("statusCode"))?, headers, trace_id))
}

/// A response's head, with what the gateway adds to it.
fn head(status: StatusCode, mut headers: HeaderMap, trace_id: &str) -> Response<()> {
    if !headers.contains_key(header::CONTENT_TYPE) {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if let Ok(value) = HeaderValue::from_str(trace_id) {
        headers.insert("x-amzn-trace-id", value);
    }
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

enum Body {
    Text(String),
    Base64(String),
}

/// A JSON object with no other members than these.
fn object(text: &[u8], members: &[&str]) -> Result<Map<String, Value>, String> {
    let object: Value = serde_json::from_slice(text).map_err(|error| format!("not JSON: {error}"))?;
    let Value::Object(object) = object else {
        return Err("not an object".to_owned());
    };
    match object.keys().find(|name| !members.contains(&name.as_str())) {
        Some(surplus) => Err(format!("it has a member {surplus}")),
        None => Ok(object),
    }
}

fn parse(payload: &[u8]) -> Result<(StatusCode, HeaderMap, Body), String> {
    let result = object(payload, &MEMBERS)?;
    let status = status(result.get("statusCode"))?;
    let headers = headers(&result)?;
    let body = match result.get("body") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            return Err("body is not a string".to_owned());
        }
    };
    let body = match result.get("isBase64Encoded") {
        None | Some(Value::Null | Value::Bool(false)) => Body::Text(body),
        Some(Value::Bool(true)) => Body::Base64(body),
        Some(Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_)) => {
            return Err("isBase64Encoded is not a boolean".to_owned());
        }
    };
    Ok((status, headers, body))
}

fn status(value: Option<&Value>) -> Result<StatusCode, String> {
    let number = match value {
        None | Some(Value::Null) => Some(200),
        Some(Value::Number(number)) => number.as_u64().and_then(|number| u16::try_from(number).ok()),
        Some(Value::String(text)) => text.parse().ok(),
        Some(Value::Bool(_) | Value::Array(_) | Value::Object(_)) => None,
    };
    let known = number
        .filter(|number| (200..600).contains(number))
        .and_then(|number| StatusCode::from_u16(number).ok());
    known.ok_or_else(|| format!("statusCode is {}", value.unwrap_or(&Value::Null)))
}

fn headers(result: &Map<String, Value>) -> Result<HeaderMap, String> {
    let mut pairs: Vec<(&str, String)> = Vec::new();
    for (name, values) in members(result, "multiValueHeaders")? {
        let values = values
            .as_array()
            .ok_or_else(|| format!("multiValueHeaders.{name} is not a list"))?;
        for value in values {
            pairs.push((name, text(name, value)?));
        }
    }
    for (name, value) in members(result, "headers")? {
        let value = text(name, value)?;
        // The same pair in both maps counts once.
        if !pairs
            .iter()
            .any(|(known, same)| known.eq_ignore_ascii_case(name) && *same == value)
        {
            pairs.push((name, value));
        }
    }
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let lower = name.to_ascii_lowercase();
        if DROPPED.contains(&lower.as_str()) {
            continue;
        }
        let name = if REMAPPED.contains(&lower.as_str()) {
            format!("x-amzn-remapped-{lower}")
        } else {
            lower
        };
        let bad = || format!("header {name} can't be sent");
        let header: HeaderName = name.parse().map_err(|_| bad())?;
        headers.append(header, HeaderValue::from_str(&value).map_err(|_| bad())?);
    }
    Ok(headers)
}

/// A map among the result's members; none where it is absent or null.
fn members<'a>(result: &'a Map<String, Value>, name: &str) -> Result<Vec<(&'a str, &'a Value)>, String> {
    match result.get(name) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Object(fields)) => Ok(fields.iter().map(|(name, value)| (name.as_str(), value)).collect()),
        Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            Err(format!("{name} is not an object"))
        }
    }
}

fn text(name: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(flag) => Ok(flag.to_string()),
        Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Err(format!("header {name} is not a string"))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reading(result: &Value, decodes: bool) -> Result<Response<Bytes>, Malformed> {
        read(result.to_string().as_bytes(), decodes, "Root=1-0")
    }

    fn shown(result: &Value) -> Vec<String> {
        let response = reading(result, false).unwrap();
        let headers = response.headers().iter().filter(|(name, _)| *name != "x-amzn-trace-id");
        headers
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect()
    }

    #[test]
    fn nothing_is_mandatory_and_nothing_more_is_allowed() {
        let empty = reading(&json!({}), false).unwrap();
        assert_eq!((empty.status().as_u16(), empty.body().len()), (200, 0));
        assert_eq!(
            shown(&json!({"headers": null, "multiValueHeaders": null, "body": null})),
            ["content-type: application/json"]
        );
        for result in [
            json!({"cookies": []}),
            json!({"errorMessage": "x"}),
            json!([]),
            json!("ok"),
            json!(null),
            json!({"statusCode": "2xx"}),
            json!({"statusCode": 99}),
            json!({"statusCode": 101}),
            json!({"statusCode": 600}),
            json!({"statusCode": 200.5}),
            json!({"body": {"a": 1}}),
            json!({"headers": []}),
            json!({"headers": {"a": ["1"]}}),
            json!({"headers": {"a": 1}}),
            json!({"headers": {"a": null}}),
            json!({"headers": {"a b": "1"}}),
            json!({"headers": {"a": "1\r\nb: 2"}}),
            json!({"multiValueHeaders": {"a": "1"}}),
            json!({"isBase64Encoded": "true"}),
        ] {
            let malformed = reading(&result, false).unwrap_err();
            assert_eq!(malformed.refusal, Refusal::malformed_response(), "{result}");
        }
        assert!(read(b"", false, "").is_err());
    }

    #[test]
    fn a_status_may_be_text() {
        assert_eq!(reading(&json!({"statusCode": "404"}), false).unwrap().status(), 404);
    }

    #[test]
    fn some_headers_are_renamed_or_dropped() {
        let result = json!({"headers": {
            "WWW-Authenticate": "Basic", "Date": "d", "Server": "s", "Connection": "close", "Content-Length": "7",
            "Transfer-Encoding": "chunked", "Host": "h", "X-Ok": true, "Content-Type": "text/plain",
        }});
        let mut headers = shown(&result);
        headers.sort();
        assert_eq!(
            headers,
            [
                "content-type: text/plain",
                "x-amzn-remapped-connection: close",
                "x-amzn-remapped-content-length: 7",
                "x-amzn-remapped-date: d",
                "x-amzn-remapped-server: s",
                "x-amzn-remapped-www-authenticate: Basic",
                "x-ok: true",
            ]
        );
    }

    #[test]
    fn single_and_multiple_values_are_merged() {
        let result = json!({
            "headers": {"content-type": "a/b", "X-A": "1", "x-b": "3"},
            "multiValueHeaders": {"x-a": ["1", "2"]},
        });
        assert_eq!(shown(&result), ["x-a: 1", "x-a: 2", "content-type: a/b", "x-b: 3"]);
    }

    #[test]
    fn base64_is_decoded_only_for_a_client_that_accepts_binary() {
        let result = json!({"body": "AAH/", "isBase64Encoded": true});
        assert_eq!(reading(&result, true).unwrap().body().as_ref(), [0, 1, 255]);
        assert_eq!(reading(&result, false).unwrap().body().as_ref(), b"AAH/");
        let text = json!({"body": "AAH/"});
        assert_eq!(reading(&text, true).unwrap().body().as_ref(), b"AAH/");
        let broken = reading(&json!({"body": "?", "isBase64Encoded": true}), true).unwrap_err();
        assert_eq!(broken.refusal, Refusal::api_configuration());
    }
}
