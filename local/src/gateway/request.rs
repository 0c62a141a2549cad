//! A client's request as the gateway sees it: the front's limits, the stage cut off, header names as an event shows them,
//! the query split and decoded.
//!
//! The path stays as it was sent: REST APIs hand it on percent-encoded and with its trailing slash, and nothing here
//! normalises `//`, `/.` or `;x`, so that what is routed is what is authorised.
//!
//! Limits: <https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-execution-service-limits-table.html>.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bytes::Bytes;
use data_encoding::BASE64;
use http::request::Parts;
use http::{HeaderMap, Uri, header};
use time::OffsetDateTime;
use uuid::Uuid;

use super::refusal::Refusal;

/// Characters of the request's path and query together.
const URL_LIMIT: usize = 10_240;

/// Bytes of all headers: names, values, separators and line ends.
const HEADERS_LIMIT: usize = 20_480;

/// The header that makes API Gateway take another method than the request line's.
const METHOD_OVERRIDE: &str = "x-http-method-override";

/// Headers of a request that never reach a Lambda integration, by the table of API Gateway's important notes; the length
/// belongs to the transfer. The override of the method is used up.
const DROPPED: [&str; 15] = [
    METHOD_OVERRIDE,
    "connection",
    "content-length",
    "content-md5",
    "expect",
    "keep-alive",
    "max-forwards",
    "proxy-authenticate",
    "proxy-connection",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "www-authenticate",
];

/// One request, read whole.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// `$context.requestId`, also `x-amzn-RequestId`.
    pub(super) id: String,
    /// `$context.extendedRequestId`, also `x-amz-apigw-id`.
    pub(super) extended_id: String,
    pub(super) received: OffsetDateTime,
    pub(super) method: String,
    /// The path as sent, stage and all, without the query.
    pub(super) full_path: String,
    /// The path as sent, without the stage; begins with a slash.
    pub(super) path: String,
    pub(super) source_ip: IpAddr,
    /// Decoded names and values in the order they were sent.
    query: Vec<(String, String)>,
    /// Every header as sent, names in lower case.
    headers: Vec<(String, String)>,
    pub(super) body: Bytes,
}

impl Request {
    /// Reads the head of a request; the body follows later, because it is read only if the head may pass.
    ///
    /// The error carries what can be said of the request, because it is answered and recorded too.
    pub(super) fn parse(parts: &Parts, source_ip: IpAddr, stage: &str) -> (Self, Result<(), Refusal>) {
        let id = Uuid::new_v4();
        let full_path = parts.uri.path().to_owned();
        let mut request = Self {
            extended_id: BASE64.encode(id.as_bytes().get(..11).unwrap_or_default()),
            id: id.to_string(),
            received: OffsetDateTime::now_utc(),
            method: method(parts),
            path: full_path.clone(),
            full_path,
            source_ip,
            query: Vec::new(),
            headers: headers(&parts.headers),
            body: Bytes::new(),
        };
        let checked = request.check(&parts.uri, stage);
        (request, checked)
    }

    fn check(&mut self, uri: &Uri, stage: &str) -> Result<(), Refusal> {
        if uri.path_and_query().map_or(0, |whole| whole.as_str().len()) > URL_LIMIT {
            return Err(Refusal::uri_too_long());
        }
        // A separator, a blank and a line end for every header, as they go over the wire.
        if self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len() + 4)
            .sum::<usize>()
            > HEADERS_LIMIT
        {
            return Err(Refusal::headers_too_large());
        }
        self.query = query(uri.query().unwrap_or_default()).ok_or_else(Refusal::bad_request)?;
        self.path = without_stage(&self.full_path, stage).ok_or_else(Refusal::unknown_stage)?;
        Ok(())
    }

    /// All values of a header, whatever the case of its name.
    pub(super) fn header_values(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(sent, _)| sent.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// The media type in `Content-Type`, lower case and without parameters.
    pub(super) fn media_type(&self) -> Option<String> {
        self.header_values(header::CONTENT_TYPE.as_str())
            .last()
            .map(|value| media_type(value))
    }

    /// The first media type in `Accept`, the only one that API Gateway honours.
    pub(super) fn accepts(&self) -> Option<String> {
        let first = self.header_values(header::ACCEPT.as_str()).first()?.split(',').next()?;
        Some(media_type(first))
    }

    /// All values of a query parameter; its name is case-sensitive.
    pub(super) fn query_values(&self, name: &str) -> Vec<&str> {
        self.query
            .iter()
            .filter(|(sent, _)| sent == name)
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// Query parameters by name, in an event's `multiValueQueryStringParameters`.
    pub(super) fn query_by_name(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut by_name: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, value) in &self.query {
            by_name.entry(name).or_default().push(value);
        }
        by_name
    }

    /// The headers of an event: without those that are dropped, with those that the gateway adds. Names come as the client
    /// sent them, which over HTTP/2 is lower case, but for a few that API Gateway capitalises.
    pub(super) fn event_headers(&self, port: u16) -> BTreeMap<String, Vec<String>> {
        let mut by_name: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in &self.headers {
            if !DROPPED.contains(&name.as_str()) {
                by_name.entry(event_name(name)).or_default().push(value.clone());
            }
        }
        let mut forwarded: Vec<String> = by_name.remove("x-forwarded-for").unwrap_or_default();
        forwarded.push(self.source_ip.to_string());
        for name in ["x-forwarded-port", "x-forwarded-proto", "x-amzn-trace-id"] {
            by_name.remove(name);
        }
        by_name.insert("X-Forwarded-For".to_owned(), vec![forwarded.join(", ")]);
        by_name.insert("X-Forwarded-Port".to_owned(), vec![port.to_string()]);
        by_name.insert("X-Forwarded-Proto".to_owned(), vec!["http".to_owned()]);
        by_name.insert("X-Amzn-Trace-Id".to_owned(), vec![self.trace_id()]);
        by_name
    }

    /// The trace header of this request.
    pub(super) fn trace_id(&self) -> String {
        let digits: String = self.id.chars().filter(char::is_ascii_hexdigit).take(24).collect();
        format!("Root=1-{:08x}-{digits}", self.received.unix_timestamp())
    }
}

fn method(parts: &Parts) -> String {
    let known = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"];
    let wanted = parts.headers.get(METHOD_OVERRIDE).and_then(|value| value.to_str().ok());
    match wanted {
        Some(wanted) if known.contains(&wanted) => wanted.to_owned(),
        Some(_) | None => parts.method.as_str().to_owned(),
    }
}

fn headers(map: &HeaderMap) -> Vec<(String, String)> {
    map.iter()
        .map(|(name, value)| {
            (
                name.as_str().to_owned(),
                String::from_utf8_lossy(value.as_bytes()).trim().to_owned(),
            )
        })
        .collect()
}

fn event_name(name: &str) -> String {
    match name {
        "authorization" => "Authorization",
        "host" => "Host",
        "user-agent" => "User-Agent",
        other => other,
    }
    .to_owned()
}

/// A media type in lower case, without its parameters.
pub(super) fn media_type(value: &str) -> String {
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// What follows `/{stage}`, or `None` where the path is not the stage's.
fn without_stage(path: &str, stage: &str) -> Option<String> {
    let rest = path.strip_prefix('/')?.strip_prefix(stage)?;
    match rest.chars().next() {
        None => Some("/".to_owned()),
        Some('/') => Some(rest.to_owned()),
        Some(_) => None,
    }
}

/// Splits and decodes a query; `None` where it has a character that API Gateway does not support unencoded, or a
/// malformed escape. `;` splits like `&`.
fn query(text: &str) -> Option<Vec<(String, String)>> {
    if text.contains(['|', '{', '}']) {
        return None;
    }
    text.split(['&', ';'])
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(&name.replace('+', " "))?, decode(&value.replace('+', " "))?))
        })
        .collect()
}

/// Percent-decodes; `None` for an escape that is cut off or not hexadecimal, and for what is not UTF-8.
pub(super) fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            let digits = std::str::from_utf8(&digits).ok()?;
            // `from_str_radix` would take a sign.
            if !digits.chars().all(|c| c.is_ascii_hexdigit()) {
                return None;
            }
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    /// A request to stage `test` as it would come in, for the unit tests of the neighbouring modules.
    pub(in crate::gateway) fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request {
        let (request, checked) = parse(method, &format!("/test{path}"), headers);
        assert_eq!(checked, Ok(()));
        request
    }

    fn parse(method: &str, uri: &str, headers: &[(&str, &str)]) -> (Request, Result<(), Refusal>) {
        let mut builder = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        let (parts, ()) = builder.body(()).unwrap().into_parts();
        Request::parse(&parts, Ipv4Addr::LOCALHOST.into(), "test")
    }

    #[test]
    fn the_stage_is_a_whole_segment() {
        for (path, expect) in [
            ("/test", Some("/")),
            ("/test/", Some("/")),
            ("/test/a/b/", Some("/a/b/")),
            ("/test//a", Some("//a")),
            ("/testing/a", None),
            ("/TEST/a", None),
            ("//test/a", None),
            ("/a", None),
            ("/", None),
        ] {
            assert_eq!(without_stage(path, "test").as_deref(), expect, "{path}");
        }
    }

    #[test]
    fn a_query_is_split_at_ampersands_and_semicolons_and_decoded_once() {
        let pairs =
            |text: &str| query(text).map(|all| all.into_iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>());
        assert_eq!(
            pairs("a=1&b=2;c=3"),
            Some(vec!["a=1".into(), "b=2".into(), "c=3".into()])
        );
        assert_eq!(pairs("a=x%2520+y&a"), Some(vec!["a=x%20 y".into(), "a=".into()]));
        for refused in ["a=|", "a={1}", "a=%", "a=%4", "a=%+1", "a=%zz", "a=%ff"] {
            assert_eq!(pairs(refused), None, "{refused}");
        }
    }

    #[test]
    fn limits_hold_at_their_boundary() {
        let longest = format!("/test/{}", "a".repeat(URL_LIMIT - 6));
        assert_eq!(parse("GET", &longest, &[]).1, Ok(()));
        assert_eq!(
            parse("GET", &format!("{longest}a"), &[]).1,
            Err(Refusal::uri_too_long())
        );
        let largest = "v".repeat(HEADERS_LIMIT - 4 - 3);
        assert_eq!(parse("GET", "/test/a", &[("x-a", &largest)]).1, Ok(()));
        assert_eq!(
            parse("GET", "/test/a", &[("x-a", &format!("{largest}v"))]).1,
            Err(Refusal::headers_too_large())
        );
    }

    #[test]
    fn an_event_shows_headers_as_api_gateway_does() {
        let sent = [
            ("authorization", "Bearer x"),
            ("accept", "text/html"),
            ("connection", "close"),
            ("content-length", "0"),
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-proto", "gopher"),
            ("x-two", "1"),
            ("x-two", "2"),
        ];
        let headers = request("GET", "/a", &sent).event_headers(8080);
        let names: Vec<&str> = headers.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "Authorization",
                "X-Amzn-Trace-Id",
                "X-Forwarded-For",
                "X-Forwarded-Port",
                "X-Forwarded-Proto",
                "accept",
                "x-two"
            ]
        );
        assert_eq!(headers["X-Forwarded-For"], ["203.0.113.9, 127.0.0.1"]);
        assert_eq!(headers["X-Forwarded-Proto"], ["http"]);
        assert_eq!(headers["x-two"], ["1", "2"]);
    }

    #[test]
    fn the_method_can_be_overridden_by_a_known_one() {
        assert_eq!(
            request("GET", "/a", &[("x-http-method-override", "DELETE")]).method,
            "DELETE"
        );
        assert_eq!(
            request("GET", "/a", &[("x-http-method-override", "delete")]).method,
            "GET"
        );
    }
}
