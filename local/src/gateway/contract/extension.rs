//! Which `x-amazon-apigateway-*` extensions are known, and where they may stand.

use anyhow::{Result, bail};
use serde_json::Value;

const PREFIX: &str = "x-amazon-apigateway-";

/// Executed, or without effect on execution (documentation and the version of an export).
const ROOT: [&str; 6] = [
    "binary-media-types",
    "documentation",
    "gateway-responses",
    "importexport-version",
    "request-validator",
    "request-validators",
];
const PATH_ITEM: [&str; 1] = ["any-method"];
const OPERATION: [&str; 2] = ["integration", "request-validator"];
const SCHEME: [&str; 2] = ["authorizer", "authtype"];

/// Refuses a document with an extension that is unknown, or known but somewhere else, naming all of them.
pub(super) fn check(document: &Value) -> Result<()> {
    let mut unknown = Vec::new();
    walk(document, &mut Vec::new(), &mut unknown);
    if !unknown.is_empty() {
        bail!("not emulated: {}", unknown.join(", "));
    }
    Ok(())
}

fn walk<'a>(value: &'a Value, at: &mut Vec<&'a str>, unknown: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                if name
                    .strip_prefix(PREFIX)
                    .is_some_and(|extension| !allowed(at).contains(&extension))
                {
                    unknown.push(format!("{name} at /{}", at.join("/")));
                }
                at.push(name);
                walk(field, at, unknown);
                at.pop();
            }
        }
        Value::Array(items) => {
            for item in items {
                at.push("-");
                walk(item, at, unknown);
                at.pop();
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn allowed(at: &[&str]) -> &'static [&'static str] {
    match at {
        [] => &ROOT,
        ["paths", _] => &PATH_ITEM,
        ["paths", _, _] => &OPERATION,
        ["components", "securitySchemes", _] => &SCHEME,
        _ => &[],
    }
}
