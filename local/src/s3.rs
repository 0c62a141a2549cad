//! Amazon S3, as far as the functions use it: protocol by the `s3s` crate, storage by [`store::S3Store`].
//!
//! Emulated: PutObject, GetObject, HeadObject, CopyObject, DeleteObject, DeleteObjects and ListObjectsV2 with conditions,
//! ranges, response overrides, user metadata and checksums, path-style. A checksum, `Content-MD5` or signed hash that
//! does not fit stops a write before anything is stored. `x-amz-server-side-encryption: AES256` is taken as what S3 does
//! anyway. Every other operation, header (`x-amz-tagging`, `x-amz-server-side-encryption` of another kind, …) and parameter
//! (`versionId`, `partNumber`, …) is answered `NotImplemented`, and named.
//!
//! Not emulated, without an error that would say so: versions (a versioned bucket behaves like one that is not: no
//! version ids, no delete markers, an overwritten object is gone), encryption at rest, owners and access control, storage
//! classes, event notifications, and time-outs. Buckets are made by the stack and never by a request.

mod service;
mod store;

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, request::Parts};
use http_body_util::BodyExt as _;
use quick_xml::events::Event;
use s3s::service::{S3Service, S3ServiceBuilder};
use serde_json::{Map, Value};
use url::form_urlencoded;

pub use self::store::S3Store;
use crate::credential::Credentials;
use crate::record::Resource;

/// Operations that S3 tells apart by a parameter, by method and whether a key is named. Only for naming what is refused.
const BY_PARAMETER: [(&str, bool, &str, &str); 34] = [
    ("GET", false, "accelerate", "GetBucketAccelerateConfiguration"),
    ("GET", false, "acl", "GetBucketAcl"),
    ("GET", false, "cors", "GetBucketCors"),
    ("GET", false, "encryption", "GetBucketEncryption"),
    ("GET", false, "lifecycle", "GetBucketLifecycleConfiguration"),
    ("GET", false, "location", "GetBucketLocation"),
    ("GET", false, "notification", "GetBucketNotificationConfiguration"),
    ("GET", false, "object-lock", "GetObjectLockConfiguration"),
    ("GET", false, "policy", "GetBucketPolicy"),
    ("GET", false, "tagging", "GetBucketTagging"),
    ("GET", false, "uploads", "ListMultipartUploads"),
    ("GET", false, "versioning", "GetBucketVersioning"),
    ("GET", false, "versions", "ListObjectVersions"),
    ("PUT", false, "cors", "PutBucketCors"),
    ("PUT", false, "encryption", "PutBucketEncryption"),
    ("PUT", false, "lifecycle", "PutBucketLifecycleConfiguration"),
    ("PUT", false, "notification", "PutBucketNotificationConfiguration"),
    ("PUT", false, "policy", "PutBucketPolicy"),
    ("PUT", false, "tagging", "PutBucketTagging"),
    ("PUT", false, "versioning", "PutBucketVersioning"),
    ("GET", true, "acl", "GetObjectAcl"),
    ("GET", true, "attributes", "GetObjectAttributes"),
    ("GET", true, "tagging", "GetObjectTagging"),
    ("GET", true, "uploadId", "ListParts"),
    ("PUT", true, "acl", "PutObjectAcl"),
    ("PUT", true, "legal-hold", "PutObjectLegalHold"),
    ("PUT", true, "retention", "PutObjectRetention"),
    ("PUT", true, "tagging", "PutObjectTagging"),
    ("PUT", true, "uploadId", "UploadPart"),
    ("POST", true, "uploads", "CreateMultipartUpload"),
    ("POST", true, "uploadId", "CompleteMultipartUpload"),
    ("POST", true, "select", "SelectObjectContent"),
    ("DELETE", true, "uploadId", "AbortMultipartUpload"),
    ("DELETE", true, "tagging", "DeleteObjectTagging"),
];
/// Parameters that the emulated operations understand, besides those of a signature and `response-*`.
const PARAMETERS: [&str; 10] = [
    "continuation-token",
    "delete",
    "delimiter",
    "encoding-type",
    "fetch-owner",
    "list-type",
    "max-keys",
    "prefix",
    "start-after",
    "x-id",
];
/// `x-amz-*` headers that the emulated operations understand. A trailing hyphen stands for all that begin so.
const HEADERS: [&str; 15] = [
    "x-amz-checksum-",
    "x-amz-content-sha256",
    "x-amz-copy-source",
    "x-amz-copy-source-if-",
    "x-amz-date",
    "x-amz-decoded-content-length",
    "x-amz-expected-bucket-owner",
    "x-amz-meta-",
    "x-amz-metadata-directive",
    "x-amz-sdk-checksum-algorithm",
    "x-amz-security-token",
    "x-amz-source-expected-bucket-owner",
    "x-amz-te",
    "x-amz-trailer",
    "x-amz-user-agent",
];

/// How an object is encrypted at rest. Known with the value that is the default.
const ENCRYPTION: &str = "x-amz-server-side-encryption";

/// What a request asks of S3.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The operation by AWS's name.
    pub(crate) operation: Cow<'static, str>,
    /// What it is about.
    pub(crate) resource: Resource,
    /// Query and `x-amz-*` headers, without the parts of a signature.
    pub(crate) summary: Value,
    /// The operation, header or parameter that is not emulated.
    pub(crate) unknown: Option<String>,
}

impl Asked {
    /// Reads what a request asks for. Never fails: what can't be read is refused later.
    pub(crate) fn read(parts: &Parts, body: &[u8]) -> Self {
        let query: Vec<(Cow<'_, str>, Cow<'_, str>)> =
            form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).collect();
        let (bucket, key) = bucket_and_key(parts.uri.path());
        let (operation, known) = operation(&parts.method, bucket.is_some(), key.is_some(), &query, parts);
        let parameter = query
            .iter()
            .map(|(name, _)| name.as_ref())
            .find(|name| !PARAMETERS.contains(name) && !name.starts_with("X-Amz-") && !name.starts_with("response-"));
        let header = parts.headers.iter().find_map(|(name, value)| {
            let name = name.as_str();
            let is_known = name == ENCRYPTION && value == "AES256"
                || HEADERS
                    .iter()
                    .any(|known| name == *known || (known.ends_with('-') && name.starts_with(known)));
            (name.starts_with("x-amz-") && !is_known).then_some(name)
        });
        let unknown = match (known, parameter, header) {
            (false, _, _) => Some(operation.clone().into_owned()),
            (true, Some(parameter), _) => Some(format!("{operation} with the parameter {parameter}")),
            (true, None, Some(header)) => Some(format!("{operation} with the header {header}")),
            (true, None, None) => None,
        };
        let resource = match (bucket, key) {
            (None, _) => Resource::None,
            (Some(bucket), Some(key)) => Resource::Objects {
                bucket,
                keys: vec![key],
                source: copy_source(parts),
            },
            (Some(bucket), None) if operation == "DeleteObjects" => Resource::Objects {
                bucket,
                keys: keys_to_delete(body),
                source: None,
            },
            (Some(bucket), None) => Resource::Bucket {
                bucket,
                prefix: query
                    .iter()
                    .find(|(name, _)| name == "prefix")
                    .map(|(_, value)| value.to_string()),
            },
        };
        Self {
            operation,
            resource,
            summary: summary(&query, parts),
            unknown,
        }
    }
}

/// S3 over the wire.
#[derive(Clone)]
pub(crate) struct S3 {
    service: S3Service,
    account: String,
}

impl S3 {
    pub(crate) fn new(store: Arc<S3Store>, credentials: Credentials, account: String) -> Self {
        let mut builder = S3ServiceBuilder::new(service::Backend::new(store));
        builder.set_auth(service::Keys::new(credentials));
        Self {
            service: builder.build(),
            account,
        }
    }

    /// Answers a request whose signature was verified. The service verifies it once more, and the signatures of single
    /// chunks.
    pub(crate) async fn handle(&self, request: Request<Bytes>) -> anyhow::Result<Response<Bytes>> {
        let (parts, body) = request.into_parts();
        for name in ["x-amz-expected-bucket-owner", "x-amz-source-expected-bucket-owner"] {
            if parts
                .headers
                .get(name)
                .is_some_and(|owner| owner.as_bytes() != self.account.as_bytes())
            {
                return Ok(error(StatusCode::FORBIDDEN, "AccessDenied", "Access Denied"));
            }
        }
        if parts.method == Method::POST
            && let Err((code, message)) = service::check_body(&parts.headers, &body)
        {
            return Ok(error(StatusCode::BAD_REQUEST, code, message));
        }
        let head = parts.method == Method::HEAD;
        let response = self
            .service
            .call(Request::from_parts(parts, s3s::Body::from(body)))
            .await
            .map_err(|error| anyhow::Error::from_boxed(error.into()))?;
        let (mut parts, body) = response.into_parts();
        let body = body.collect().await.map_err(anyhow::Error::from_boxed)?.to_bytes();
        if !head {
            // The length of a HEAD is that of the object, any other that of the body.
            parts.headers.remove(http::header::CONTENT_LENGTH);
        }
        if parts.status == StatusCode::NOT_MODIFIED {
            parts.headers.remove(http::header::CONTENT_TYPE);
            return Ok(Response::from_parts(parts, Bytes::new()));
        }
        Ok(Response::from_parts(parts, body))
    }
}

/// An error in the form of S3.
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>
pub(crate) fn error(status: StatusCode, code: &str, message: &str) -> Response<Bytes> {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{}</Code><Message>{}</Message></Error>",
        quick_xml::escape::escape(code),
        quick_xml::escape::escape(message)
    );
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    let content_type = http::HeaderValue::from_static("application/xml");
    response.headers_mut().insert(http::header::CONTENT_TYPE, content_type);
    response
}

/// The name of an operation, and whether it is emulated.
fn operation(
    method: &Method,
    bucket: bool,
    key: bool,
    query: &[(Cow<'_, str>, Cow<'_, str>)],
    parts: &Parts,
) -> (Cow<'static, str>, bool) {
    let has = |wanted: &str| query.iter().any(|(name, _)| name == wanted);
    let named = BY_PARAMETER
        .iter()
        .find(|(of, with_key, parameter, _)| method == of && key == *with_key && bucket && has(parameter));
    if let Some((_, _, _, name)) = named {
        return (Cow::Borrowed(name), false);
    }
    let copy = parts.headers.contains_key("x-amz-copy-source");
    let (name, known) = match (method.as_str(), bucket, key) {
        ("PUT", true, true) if copy => ("CopyObject", true),
        ("PUT", true, true) => ("PutObject", true),
        ("GET", true, true) => ("GetObject", true),
        ("HEAD", true, true) => ("HeadObject", true),
        ("DELETE", true, true) => ("DeleteObject", true),
        ("POST", true, false) if has("delete") => ("DeleteObjects", true),
        ("GET", true, false) if has("list-type") => ("ListObjectsV2", true),
        ("GET", true, false) => ("ListObjects", false),
        ("HEAD", true, false) => ("HeadBucket", false),
        ("PUT", true, false) => ("CreateBucket", false),
        ("DELETE", true, false) => ("DeleteBucket", false),
        ("GET", false, _) => ("ListBuckets", false),
        (method, _, _) => return (Cow::Owned(format!("{method} {}", parts.uri.path())), false),
    };
    (Cow::Borrowed(name), known)
}

/// Bucket and key of a path-style path.
fn bucket_and_key(path: &str) -> (Option<String>, Option<String>) {
    let path = path.strip_prefix('/').unwrap_or(path);
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    (decode(bucket), decode(key))
}

fn copy_source(parts: &Parts) -> Option<(String, String)> {
    let source = parts.headers.get("x-amz-copy-source")?.to_str().ok()?;
    let (bucket, key) = source.strip_prefix('/').unwrap_or(source).split_once('/')?;
    Some((decode(bucket)?, decode(key)?))
}

/// Percent-decoding, where `+` is itself. Nothing is `None`.
fn decode(text: &str) -> Option<String> {
    let decoded = percent_encoding::percent_decode_str(text)
        .decode_utf8_lossy()
        .into_owned();
    (!decoded.is_empty()).then_some(decoded)
}

fn keys_to_delete(body: &[u8]) -> Vec<String> {
    let mut reader = quick_xml::Reader::from_reader(body);
    let (mut keys, mut key) = (Vec::new(), None::<String>);
    loop {
        match reader.read_event() {
            Ok(Event::Start(tag)) if tag.local_name().as_ref() == b"Key" => key = Some(String::new()),
            Ok(Event::End(tag)) if tag.local_name().as_ref() == b"Key" => keys.extend(key.take()),
            Ok(Event::Text(text)) => {
                if let (Some(key), Ok(text)) = (key.as_mut(), text.decode()) {
                    key.push_str(&text);
                }
            }
            Ok(Event::GeneralRef(entity)) => {
                if let Some(key) = key.as_mut() {
                    let resolved = entity.resolve_char_ref().ok().flatten();
                    let named = || match entity.decode().as_deref() {
                        Ok("amp") => Some('&'),
                        Ok("lt") => Some('<'),
                        Ok("gt") => Some('>'),
                        Ok("quot") => Some('"'),
                        Ok("apos") => Some('\''),
                        _ => None,
                    };
                    key.extend(resolved.or_else(named));
                }
            }
            Ok(Event::Eof) | Err(_) => return keys,
            Ok(_) => {}
        }
    }
}

fn summary(query: &[(Cow<'_, str>, Cow<'_, str>)], parts: &Parts) -> Value {
    let text = |value: &str| Value::String(value.to_owned());
    let query: Map<String, Value> = query
        .iter()
        .filter(|(name, _)| !name.starts_with("X-Amz-"))
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect();
    let wanted = |name: &str| {
        (name.starts_with("x-amz-") && name != "x-amz-security-token")
            || name.starts_with("if-")
            || matches!(name, "range" | "content-type" | "content-disposition" | "content-md5")
    };
    let headers: Map<String, Value> = parts
        .headers
        .iter()
        .filter(|(name, _)| wanted(name.as_str()))
        .map(|(name, value)| (name.to_string(), text(&String::from_utf8_lossy(value.as_bytes()))))
        .collect();
    serde_json::json!({ "query": query, "headers": headers })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Asked {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Asked::read(&request.body(()).unwrap().into_parts().0, body.as_bytes())
    }

    #[track_caller]
    fn check(method: &str, target: &str, headers: &[(&str, &str)], operation: &str, unknown: Option<&str>) {
        let asked = asked(method, target, headers, "");
        assert_eq!(
            (asked.operation.as_ref(), asked.unknown.as_deref()),
            (operation, unknown)
        );
    }

    #[test]
    fn operations_are_told_apart() {
        check("PUT", "/b/k?x-id=PutObject", &[], "PutObject", None);
        check("PUT", "/b/k", &[("x-amz-copy-source", "b/s")], "CopyObject", None);
        check(
            "GET",
            "/b/k?X-Amz-Signature=1&response-content-type=a",
            &[],
            "GetObject",
            None,
        );
        check(
            "HEAD",
            "/b/k",
            &[("x-amz-checksum-mode", "ENABLED")],
            "HeadObject",
            None,
        );
        check("POST", "/b?delete", &[], "DeleteObjects", None);
        check("GET", "/b/?list-type=2&prefix=t%2F", &[], "ListObjectsV2", None);
    }

    #[test]
    fn what_is_not_emulated_is_named() {
        check(
            "GET",
            "/b?list-type=2&weird=1",
            &[],
            "ListObjectsV2",
            Some("ListObjectsV2 with the parameter weird"),
        );
        check(
            "GET",
            "/b/k?versionId=1",
            &[],
            "GetObject",
            Some("GetObject with the parameter versionId"),
        );
        check("PUT", "/b/k?tagging", &[], "PutObjectTagging", Some("PutObjectTagging"));
        check(
            "POST",
            "/b/k?uploads",
            &[],
            "CreateMultipartUpload",
            Some("CreateMultipartUpload"),
        );
        check("PUT", "/b", &[], "CreateBucket", Some("CreateBucket"));
        check("GET", "/b", &[], "ListObjects", Some("ListObjects"));
        check("GET", "/", &[], "ListBuckets", Some("ListBuckets"));
        let acl = [("x-amz-acl", "public-read")];
        check(
            "PUT",
            "/b/k",
            &acl,
            "PutObject",
            Some("PutObject with the header x-amz-acl"),
        );
    }

    #[test]
    fn the_resource_is_named_exactly() {
        let source = [("x-amz-copy-source", "/b/u/acme/1%2B")];
        assert_eq!(
            asked("PUT", "/b/t1/../t2/x%20y+z", &source, "").resource,
            Resource::Objects {
                bucket: "b".to_owned(),
                keys: vec!["t1/../t2/x y+z".to_owned()],
                source: Some(("b".to_owned(), "u/acme/1+".to_owned())),
            }
        );
        assert_eq!(
            asked("GET", "/b?list-type=2&prefix=t%2Facme%2F", &[], "").resource,
            Resource::Bucket {
                bucket: "b".to_owned(),
                prefix: Some("t/acme/".to_owned()),
            }
        );
        let body = "<Delete><Object><Key>a&amp;b</Key></Object><Object><Key>c&#13;</Key></Object></Delete>";
        assert_eq!(asked("POST", "/b?delete", &[], body).resource.names(), ["a&b", "c\r"]);
    }

    #[test]
    fn the_summary_holds_no_token() {
        let headers = [("x-amz-security-token", "secret"), ("if-none-match", "*")];
        let summary = asked("PUT", "/b/k?X-Amz-Security-Token=secret&x-id=PutObject", &headers, "").summary;
        assert_eq!(
            summary,
            serde_json::json!({ "query": { "x-id": "PutObject" }, "headers": { "if-none-match": "*" } })
        );
    }
}
