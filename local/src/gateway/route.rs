//! From a method and a path to an operation, as API Gateway's resource tree does it.
//!
//! Segments are compared as they were sent, byte for byte: an escape, another case or a `;x` never matches a literal
//! segment, so no spelling of a path reaches an operation other than the one whose authorizer runs. One trailing slash is
//! ignored. An empty segment matches nothing. A parameter's value is decoded after the match, never before.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Result, bail};
use sha2::{Digest, Sha256};

use super::contract::{Operation, Resource};
use super::refusal::Refusal;
use super::request::decode;

/// The resource tree of an API.
#[derive(Debug)]
pub(super) struct Router {
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    resource: Resource,
    segments: Vec<Segment>,
    id: String,
}

/// A segment of a path template; the order is that of preference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Literal(String),
    Parameter(String),
    /// `{name+}`: this segment and all that follow.
    Greedy(String),
}

/// The operation that a request is for.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) operation: Arc<Operation>,
    /// The path template.
    pub(super) resource: String,
    pub(super) resource_id: String,
    /// Decoded values.
    pub(super) parameters: BTreeMap<String, String>,
}

impl Router {
    /// Builds the tree.
    ///
    /// # Errors
    /// For templates that API Gateway would not import: malformed segments, a greedy parameter that is not the last, or
    /// two parameters of different names in the same place.
    pub(super) fn new(resources: Vec<Resource>) -> Result<Self> {
        let mut nodes: Vec<Node> = Vec::new();
        for resource in resources {
            let segments = segments(&resource.template)?;
            for other in &nodes {
                conflict(&segments, &other.segments)?;
            }
            let digest = Sha256::digest(resource.template.as_bytes());
            let id = data_encoding::BASE32_NOPAD
                .encode(&digest)
                .to_ascii_lowercase()
                .chars()
                .take(6)
                .collect();
            nodes.push(Node { resource, segments, id });
        }
        Ok(Self { nodes })
    }

    /// Finds the operation for a method and a path as it was sent, without the stage.
    pub(super) fn find(&self, method: &str, path: &str) -> Result<Route, Refusal> {
        let sent = split(path).ok_or_else(Refusal::unknown_route)?;
        let best = self
            .nodes
            .iter()
            .filter(|node| matches(&node.segments, &sent))
            .min_by(|a, b| {
                // What stands first decides: a literal before a parameter before a greedy one.
                let rank = |node: &Node| node.segments.iter().map(rank).collect::<Vec<_>>();
                rank(a).cmp(&rank(b))
            });
        let node = best.ok_or_else(Refusal::unknown_route)?;
        // The resource is chosen by the path alone. One that lacks the method is not passed over for another.
        let operation = node.resource.methods.get(method).or(node.resource.any.as_ref());
        let operation = operation.cloned().ok_or_else(Refusal::unknown_route)?;
        let parameters = parameters(&node.segments, &sent).ok_or_else(Refusal::bad_request)?;
        Ok(Route {
            operation,
            resource: node.resource.template.clone(),
            resource_id: node.id.clone(),
            parameters,
        })
    }
}

fn rank(segment: &Segment) -> u8 {
    match segment {
        Segment::Literal(_) => 0,
        Segment::Parameter(_) => 1,
        Segment::Greedy(_) => 2,
    }
}

fn segments(template: &str) -> Result<Vec<Segment>> {
    let Some(rest) = template.strip_prefix('/') else {
        bail!("path {template} does not begin with a slash")
    };
    if rest.is_empty() {
        return Ok(Vec::new());
    }
    let mut segments = Vec::new();
    for text in rest.split('/') {
        if let Some(Segment::Greedy(name)) = segments.last() {
            bail!("path {template}: {{{name}+}} must be the last segment");
        }
        segments.push(segment(text).ok_or_else(|| anyhow::anyhow!("path {template}: malformed segment {text:?}"))?);
    }
    Ok(segments)
}

fn segment(text: &str) -> Option<Segment> {
    let good = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.,:".contains(c));
    match text.strip_prefix('{').map(|rest| rest.strip_suffix('}')) {
        None => good(text).then(|| Segment::Literal(text.to_owned())),
        Some(None) => None,
        Some(Some(name)) => match name.strip_suffix('+') {
            Some(name) => good(name).then(|| Segment::Greedy(name.to_owned())),
            None => good(name).then(|| Segment::Parameter(name.to_owned())),
        },
    }
}

/// Two siblings with different parameter names are one node of the tree with two names.
fn conflict(a: &[Segment], b: &[Segment]) -> Result<()> {
    for (a, b) in a.iter().zip(b) {
        match (a, b) {
            (Segment::Parameter(one), Segment::Parameter(other)) | (Segment::Greedy(one), Segment::Greedy(other))
                if one != other =>
            {
                bail!("the path parameters {{{one}}} and {{{other}}} stand in the same place");
            }
            _ if a == b => {}
            _ => return Ok(()),
        }
    }
    if a == b {
        bail!("a path stands twice in the contract")
    } else {
        Ok(())
    }
}

/// The segments of a path as sent; `None` where one is empty, but for one trailing slash.
fn split(path: &str) -> Option<Vec<&str>> {
    let rest = path.strip_prefix('/')?;
    if rest.is_empty() {
        return Some(Vec::new());
    }
    let segments: Vec<&str> = rest.strip_suffix('/').unwrap_or(rest).split('/').collect();
    segments.iter().all(|segment| !segment.is_empty()).then_some(segments)
}

fn matches(template: &[Segment], sent: &[&str]) -> bool {
    let greedy = matches!(template.last(), Some(Segment::Greedy(_)));
    let fits = if greedy {
        sent.len() >= template.len()
    } else {
        sent.len() == template.len()
    };
    fits && template.iter().zip(sent).all(|(segment, sent)| match segment {
        Segment::Literal(text) => text == sent,
        Segment::Parameter(_) | Segment::Greedy(_) => true,
    })
}

fn parameters(template: &[Segment], sent: &[&str]) -> Option<BTreeMap<String, String>> {
    let mut parameters = BTreeMap::new();
    for (at, segment) in template.iter().enumerate() {
        match segment {
            Segment::Literal(_) => {}
            Segment::Parameter(name) => {
                parameters.insert(name.clone(), decode(sent.get(at)?)?);
            }
            Segment::Greedy(name) => {
                parameters.insert(name.clone(), decode(&sent.get(at..)?.join("/"))?);
            }
        }
    }
    Some(parameters)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::gateway::contract::Contract;

    fn router(paths: &[(&str, &[&str])]) -> Result<Router> {
        let mut document = json!({"openapi": "3.0.1", "paths": {}});
        for (path, methods) in paths {
            let item: serde_json::Map<String, Value> = methods
                .iter()
                .map(|method| {
                    let integration = json!({"type": "mock"});
                    ((*method).to_owned(), json!({"operationId": format!("{method} {path}"), "x-amazon-apigateway-integration": integration}))
                })
                .collect();
            document["paths"][path] = Value::Object(item);
        }
        Router::new(Contract::parse(&document)?.resources)
    }

    fn shop() -> Router {
        router(&[
            ("/", &["get"]),
            ("/items", &["get", "post"]),
            ("/items/{id}", &["get"]),
            ("/items/new", &["post"]),
            ("/items/{id}/content", &["put"]),
            ("/files/{proxy+}", &["x-amazon-apigateway-any-method"]),
        ])
        .unwrap()
    }

    #[test]
    fn paths_are_matched_as_sent() {
        let shop = shop();
        for (method, path, expect) in [
            ("GET", "/", Some("get / ")),
            ("GET", "/items", Some("get /items ")),
            ("GET", "/items/", Some("get /items ")),
            ("GET", "/items/7", Some("get /items/{id} id=7")),
            ("GET", "/items/7/", Some("get /items/{id} id=7")),
            ("GET", "/items/a%2fb", Some("get /items/{id} id=a/b")),
            ("GET", "/items/a%252fb", Some("get /items/{id} id=a%2fb")),
            ("GET", "/items/.", Some("get /items/{id} id=.")),
            ("GET", "/items/..", Some("get /items/{id} id=..")),
            ("GET", "/items/7;x", Some("get /items/{id} id=7;x")),
            ("GET", "/items/a+b", Some("get /items/{id} id=a+b")),
            ("PUT", "/items/7/content", Some("put /items/{id}/content id=7")),
            (
                "DELETE",
                "/files/a/b",
                Some("x-amazon-apigateway-any-method /files/{proxy+} proxy=a/b"),
            ),
            ("GET", "/files", None),
            ("GET", "//items", None),
            ("GET", "/items//", None),
            ("GET", "//", None),
            ("GET", "/items//content", None),
            ("GET", "/Items", None),
            ("GET", "/item%73", None),
            ("GET", "/items;x", None),
            ("GET", "/items/.//content", None),
            ("GET", "/./items", None),
            ("GET", "/items/../items", None),
            ("HEAD", "/items", None),
            ("DELETE", "/items", None),
            // The literal resource is chosen, although only the other one has the method.
            ("GET", "/items/new", None),
        ] {
            let found = shop.find(method, path);
            let shown = found.as_ref().ok().map(|route| {
                let parameters: Vec<String> = route.parameters.iter().map(|(n, v)| format!("{n}={v}")).collect();
                format!("{} {}", route.operation.id.clone().unwrap(), parameters.join(","))
            });
            assert_eq!(shown.as_deref(), expect, "{method} {path}");
        }
        assert_eq!(shop.find("GET", "/items/%zz").unwrap_err(), Refusal::bad_request());
        assert_eq!(shop.find("GET", "/items/%ff").unwrap_err(), Refusal::bad_request());
        assert_eq!(shop.find("GET", "/nothing").unwrap_err(), Refusal::unknown_route());
    }

    #[test]
    fn templates_that_would_not_be_imported_are_refused() {
        let get: &[&str] = &["get"];
        for paths in [
            vec![("/a/{x}", get), ("/a/{y}/b", get)],
            vec![("/a/{x+}/b", get)],
            vec![("/a{x}", get)],
            vec![("/a//b", get)],
            vec![("/a b", get)],
        ] {
            assert!(router(&paths).is_err(), "{paths:?}");
        }
        assert!(router(&[("/a/{x}", &["get"]), ("/b/{y}", &["get"])]).is_ok());
    }
}
