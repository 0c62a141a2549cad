//! AWS Systems Manager Parameter Store: plain strings of the standard tier, under names.
//!
//! Speaks the JSON protocol of `ssm` for the three operations that functions call; every other one, and every member
//! that would mean something else than a plain string, is answered 501 and named. Parameters live in memory, as long as
//! the stack. Labels, versions but the newest, encryption, policies and names that are ARNs are not here.
//! <https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_PutParameter.html>

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::shape::{Findings, Member, Shape, check, may, must, text};

const TARGET_PREFIX: &str = "AmazonSSM.";
/// The largest value of a standard parameter, in bytes.
const MAX_VALUE: usize = 4096;
/// How many levels the name of a parameter may have.
const MAX_LEVELS: usize = 15;

const NAME: Member = must("Name", text(1, 2048));
const PUT: &[Member] = &[
    NAME,
    must("Value", Shape::Any),
    may("Type", Shape::Choice(&["String", "StringList", "SecureString"])),
    may("Description", text(0, 1024)),
    may("Overwrite", Shape::Any),
];

/// A parameter.
#[derive(Debug, Clone)]
struct Parameter {
    value: String,
    version: u64,
    modified: OffsetDateTime,
}

/// The parameters of the account in its Region.
#[derive(Debug)]
pub struct ParameterStore {
    region: String,
    account: String,
    parameters: Mutex<BTreeMap<String, Parameter>>,
}

/// Why a request is refused.
struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Refusal {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            code,
            message: message.into(),
        }
    }

    fn not_emulated(what: &str) -> Self {
        Self {
            status: StatusCode::NOT_IMPLEMENTED,
            ..Self::new("NotImplemented", format!("{what} is not emulated"))
        }
    }
}

impl ParameterStore {
    /// None yet.
    #[must_use]
    pub fn new(account: impl Into<String>, region: impl Into<String>) -> Self {
        Self {
            region: region.into(),
            account: account.into(),
            parameters: Mutex::default(),
        }
    }

    /// The value of a parameter, if there is one.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<String> {
        self.lock().get(name).map(|parameter| parameter.value.clone())
    }

    /// Writes a parameter as somebody else in the account would, or deletes it.
    pub fn set(&self, name: &str, value: Option<&str>) {
        let mut parameters = self.lock();
        match value {
            Some(value) => {
                write(&mut parameters, name, value);
            }
            None => {
                parameters.remove(name);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Parameter>> {
        self.parameters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a request whose signature was verified.
    pub(crate) fn handle(&self, operation: &str, body: &[u8]) -> Response<Bytes> {
        let request: Value = serde_json::from_slice(body).unwrap_or_default();
        let answer = match operation {
            "GetParameter" => self.get(&request),
            "PutParameter" => self.put(&request),
            "DeleteParameter" => self.delete(&request),
            _ => Err(Refusal::not_emulated(operation)),
        };
        match answer {
            Ok(body) => respond(StatusCode::OK, &body),
            Err(Refusal { status, code, message }) => error(status, code, &message),
        }
    }

    fn get(&self, request: &Value) -> Result<Value, Refusal> {
        let name = checked(&[NAME], request)?;
        let parameters = self.lock();
        let parameter = parameters.get(name).ok_or_else(not_found)?;
        let seconds = parameter.modified.unix_timestamp();
        Ok(json!({ "Parameter": {
            "ARN": format!("arn:aws:ssm:{}:{}:parameter/{}", self.region, self.account, name.trim_start_matches('/')),
            "DataType": "text",
            "LastModifiedDate": seconds,
            "Name": name,
            "Type": "String",
            "Value": parameter.value,
            "Version": parameter.version,
        }}))
    }

    fn put(&self, request: &Value) -> Result<Value, Refusal> {
        let name = checked(PUT, request)?;
        let invalid = |message: &str| Refusal::new("ValidationException", message);
        let value = match request.get("Value").and_then(Value::as_str) {
            Some("") | None => return Err(invalid("Parameter value can't be empty.")),
            Some(value) if value.len() > MAX_VALUE => {
                return Err(invalid(
                    "Standard tier parameters support a maximum parameter value of 4096 characters. To create a larger \
                     parameter value, upgrade the parameter to use the advanced-parameter tier.",
                ));
            }
            Some(value) => value,
        };
        let overwrite = match request.get("Overwrite") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(overwrite)) => *overwrite,
            Some(_) => return Err(Refusal::new("SerializationException", "Overwrite is a boolean")),
        };
        let kind = request.get("Type").and_then(Value::as_str);
        if let Some(kind @ ("StringList" | "SecureString")) = kind {
            return Err(Refusal::not_emulated(&format!("a parameter of type {kind}")));
        }
        let mut parameters = self.lock();
        match parameters.get(name) {
            Some(_) if !overwrite => Err(Refusal::new(
                "ParameterAlreadyExists",
                "The parameter already exists. To overwrite this value, set the overwrite option in the request to \
                 true.",
            )),
            None if kind.is_none() => Err(invalid("A parameter type is required when you create a parameter.")),
            _ => Ok(json!({ "Tier": "Standard", "Version": write(&mut parameters, name, value) })),
        }
    }

    fn delete(&self, request: &Value) -> Result<Value, Refusal> {
        let name = checked(&[NAME], request)?;
        self.lock().remove(name).map(|_| json!({})).ok_or_else(not_found)
    }
}

/// Writes a parameter and gives its version.
fn write(parameters: &mut BTreeMap<String, Parameter>, name: &str, value: &str) -> u64 {
    let version = parameters.get(name).map_or(1, |parameter| parameter.version + 1);
    let parameter = Parameter {
        value: value.to_owned(),
        version,
        modified: OffsetDateTime::now_utc(),
    };
    parameters.insert(name.to_owned(), parameter);
    version
}

fn not_found() -> Refusal {
    Refusal::new("ParameterNotFound", "")
}

/// Compares a request with its shape, and gives the name of its parameter.
fn checked<'a>(members: &'static [Member], request: &'a Value) -> Result<&'a str, Refusal> {
    let mut findings = Findings::default();
    check(&Shape::Structure(members), request, "", &mut findings);
    if !findings.errors.is_empty() {
        return Err(Refusal::new("ValidationException", findings.errors.join("; ")));
    }
    if !findings.unknown.is_empty() {
        return Err(Refusal::not_emulated(&findings.unknown.join(", ")));
    }
    let name = name(request).unwrap_or_default();
    // A version or label stands behind a colon, and an ARN has several.
    if name.contains(':') {
        return Err(Refusal::not_emulated("a parameter by version, label or ARN"));
    }
    let invalid = |message: &str| Err(Refusal::new("ValidationException", message));
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-/".contains(&byte);
    if !name.bytes().all(is_allowed) {
        return invalid("Only a mix of letters, numbers and the following 4 symbols .-_/ is allowed.");
    }
    let path = name.strip_prefix('/');
    if path.is_none() && name.contains('/') {
        return invalid("Parameter name must be a fully qualified name.");
    }
    let path = path.unwrap_or(name);
    if path.split('/').any(str::is_empty) {
        return invalid("Parameter name must not have empty levels.");
    }
    if path.split('/').count() > MAX_LEVELS {
        return Err(Refusal::new(
            "HierarchyLevelLimitExceededException",
            "A hierarchy can have a maximum of 15 levels.",
        ));
    }
    let head = path.to_ascii_lowercase();
    if head.starts_with("aws") || head.starts_with("ssm") {
        return invalid("Parameter name: can't be prefixed with \"aws\" or \"ssm\" (case-insensitive).");
    }
    Ok(name)
}

/// The parameter that a request names.
pub(crate) fn name(request: &Value) -> Option<&str> {
    request.get("Name").and_then(Value::as_str)
}

/// The operation that a request names, if it is one of this service.
pub(crate) fn operation(headers: &HeaderMap) -> Option<&str> {
    headers.get("x-amz-target")?.to_str().ok()?.strip_prefix(TARGET_PREFIX)
}

/// An error in the form of Systems Manager.
pub(crate) fn error(status: StatusCode, code: &str, message: &str) -> Response<Bytes> {
    respond(status, &json!({ "__type": code, "message": message }))
}

fn respond(status: StatusCode, body: &Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.1"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARAMETER: &str = "/bulkhead/stack/before";

    fn call(store: &ParameterStore, operation: &str, request: &Value) -> Result<Value, (u16, String)> {
        let response = store.handle(operation, request.to_string().as_bytes());
        let body: Value = serde_json::from_slice(response.body()).unwrap();
        match response.status() {
            StatusCode::OK => Ok(body),
            status => Err((status.as_u16(), body["__type"].as_str().unwrap().to_owned())),
        }
    }

    fn refused(code: &str) -> Result<Value, (u16, String)> {
        let status = if code == "NotImplemented" { 501 } else { 400 };
        Err((status, code.to_owned()))
    }

    fn store() -> ParameterStore {
        ParameterStore::new("123456789012", "us-east-1")
    }

    #[test]
    fn a_parameter_is_written_once_unless_it_may_be_overwritten() {
        let store = store();
        let put = |value: &str, overwrite: bool| {
            let request = json!({"Name": PARAMETER, "Type": "String", "Value": value, "Overwrite": overwrite});
            call(&store, "PutParameter", &request).map(|answer| answer["Version"].as_u64().unwrap())
        };
        let name = json!({"Name": PARAMETER});
        assert_eq!(call(&store, "GetParameter", &name), refused("ParameterNotFound"));
        assert_eq!(put("one", false), Ok(1));
        assert_eq!(put("two", false).map(Value::from), refused("ParameterAlreadyExists"));
        assert_eq!(store.value(PARAMETER).as_deref(), Some("one"));
        assert_eq!(put("three", true), Ok(2));
        let found = call(&store, "GetParameter", &name).unwrap();
        assert_eq!(found["Parameter"]["Value"], "three");
        assert_eq!(
            found["Parameter"]["ARN"],
            "arn:aws:ssm:us-east-1:123456789012:parameter/bulkhead/stack/before"
        );
        assert_eq!(call(&store, "DeleteParameter", &name), Ok(json!({})));
        assert_eq!(call(&store, "DeleteParameter", &name), refused("ParameterNotFound"));
    }

    #[test]
    fn limits_are_those_of_the_standard_tier() {
        let store = store();
        let put = |name: &str, value: &str| {
            call(
                &store,
                "PutParameter",
                &json!({"Name": name, "Type": "String", "Value": value}),
            )
        };
        assert!(put(PARAMETER, &"x".repeat(4096)).is_ok());
        for (name, value, code) in [
            ("other", "x".repeat(4097), "ValidationException"),
            ("other", String::new(), "ValidationException"),
            ("aws-thing", "x".to_owned(), "ValidationException"),
            ("a/b", "x".to_owned(), "ValidationException"),
            ("a b", "x".to_owned(), "ValidationException"),
            (&"/a".repeat(16), "x".to_owned(), "HierarchyLevelLimitExceededException"),
            ("a:1", "x".to_owned(), "NotImplemented"),
        ] {
            assert_eq!(put(name, &value), refused(code), "{name}");
        }
        for (request, code) in [
            (json!({"Name": "a", "Value": "x"}), "ValidationException"),
            (
                json!({"Name": "a", "Value": "x", "Type": "SecureString"}),
                "NotImplemented",
            ),
            (
                json!({"Name": "a", "Value": "x", "Type": "String", "Tier": "Advanced"}),
                "NotImplemented",
            ),
        ] {
            assert_eq!(call(&store, "PutParameter", &request), refused(code), "{request}");
        }
        assert_eq!(
            call(&store, "GetParametersByPath", &json!({})),
            refused("NotImplemented")
        );
    }
}
