//! The two small languages of the contract: mapping expressions (`context.authorizer.tenantId`, `'static'`) and
//! templates with simple substitution (`$context.requestId`).
//!
//! Templates of gateway responses are not VTL. Those of MOCK integrations are, but only what the two have in common is
//! known here: a directive, `$input` or `$util` stops the start of the gateway with its name. Nothing is escaped, as
//! nothing is by API Gateway.
//!
//! Rules: <https://docs.aws.amazon.com/apigateway/latest/developerguide/rest-api-parameter-mapping-sources.html>,
//! <https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-mapping-template-reference.html>.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use serde_json::{Map, Value};

use super::request::Request;

/// Where a mapped value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A string between single quotes.
    Static(String),
    /// A dotted name below `context`.
    Context(Vec<String>),
    /// The last value of a header of the client's request.
    Header(String),
    /// All values of a header of the client's request, joined by commas.
    MultiHeader(String),
    /// The last value of a query parameter.
    Query(String),
    /// All values of a query parameter, joined by commas.
    MultiQuery(String),
    /// A path parameter.
    Path(String),
    /// A variable of the stage.
    StageVariable(String),
}

/// What expressions can see of one request.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) context: &'a Map<String, Value>,
    pub(super) stage_variables: &'a BTreeMap<String, String>,
    pub(super) request: &'a Request,
    pub(super) path_parameters: &'a BTreeMap<String, String>,
}

impl Source {
    /// Reads a mapping expression as it stands in the contract.
    pub(super) fn parse(text: &str) -> Result<Self> {
        if let Some(rest) = text.strip_prefix('\'') {
            let Some(literal) = rest.strip_suffix('\'') else {
                bail!("the static value {text} has no closing quote");
            };
            return Ok(Self::Static(literal.to_owned()));
        }
        if text.is_empty() || !text.chars().all(|c| c.is_ascii_alphanumeric() || "._$-".contains(c)) {
            bail!("{text:?} is not a mapping expression");
        }
        let named = [
            ("method.request.header.", Self::Header as fn(String) -> Self),
            ("method.request.multivalueheader.", Self::MultiHeader),
            ("method.request.querystring.", Self::Query),
            ("method.request.multivaluequerystring.", Self::MultiQuery),
            ("method.request.path.", Self::Path),
            ("stageVariables.", Self::StageVariable),
        ];
        for (prefix, make) in named {
            match text.strip_prefix(prefix) {
                Some("") => bail!("{text} names nothing"),
                Some(name) => return Ok(make(name.to_owned())),
                None => {}
            }
        }
        if let Some(name) = text.strip_prefix("context.") {
            let names: Vec<String> = name.split('.').map(str::to_owned).collect();
            if names.iter().any(String::is_empty) {
                bail!("{text} names nothing");
            }
            return Ok(Self::Context(names));
        }
        bail!("mapping from {text} is not emulated");
    }

    /// The value for this request, or `None` where there is none.
    pub(super) fn evaluate(&self, scope: Scope<'_>) -> Option<String> {
        match self {
            Self::Static(text) => Some(text.clone()),
            Self::Context(names) => look_up(scope.context, names),
            Self::Header(name) => scope
                .request
                .header_values(name)
                .last()
                .map(|value| (*value).to_owned()),
            Self::MultiHeader(name) => joined(&scope.request.header_values(name)),
            Self::Query(name) => scope.request.query_values(name).last().map(|value| (*value).to_owned()),
            Self::MultiQuery(name) => joined(&scope.request.query_values(name)),
            Self::Path(name) => scope.path_parameters.get(name).cloned(),
            Self::StageVariable(name) => scope.stage_variables.get(name).cloned(),
        }
    }
}

fn joined(values: &[&str]) -> Option<String> {
    (!values.is_empty()).then(|| values.join(","))
}

/// The stringified scalar under a dotted name; objects and nulls have no value.
pub(super) fn look_up(context: &Map<String, Value>, names: &[String]) -> Option<String> {
    let (last, above) = names.split_last()?;
    let mut object = context;
    for name in above {
        object = object.get(name)?.as_object()?;
    }
    stringify(object.get(last)?)
}

/// A scalar as API Gateway hands it on: strings as they are, numbers and booleans as text.
pub(super) fn stringify(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A text with `$` references in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Reference(Source),
}

impl Template {
    /// Reads a template of a gateway response: simple substitution only.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            let (name, tail) = reference(after);
            if name.is_empty() {
                parts.push(Part::Text("$".to_owned()));
                rest = after;
                continue;
            }
            if !["context.", "stageVariables.", "method.request."]
                .iter()
                .any(|known| name.starts_with(known))
            {
                bail!("${name} is not emulated in a template");
            }
            parts.push(Part::Reference(Source::parse(name)?));
            rest = tail;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self { parts })
    }

    /// Reads a VTL template, refusing everything that goes beyond substitution.
    pub(super) fn parse_vtl(text: &str) -> Result<Self> {
        for (_, after) in text.match_indices('#').filter_map(|(at, _)| text.split_at_checked(at)) {
            let directive = after.chars().nth(1);
            if directive.is_some_and(|next| next.is_ascii_alphabetic() || "#*{[".contains(next)) {
                let word: String = after.chars().take_while(|c| !c.is_whitespace() && *c != '(').collect();
                bail!("the VTL directive {word} is not emulated");
            }
        }
        Self::parse(text)
    }

    /// The text with every reference replaced; one without a value leaves nothing.
    pub(super) fn render(&self, scope: Scope<'_>) -> String {
        self.parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.clone(),
                Part::Reference(source) => source.evaluate(scope).unwrap_or_default(),
            })
            .collect()
    }
}

/// Splits the reference that stands after a `$` from the text behind it. Dots at its end belong to the text.
fn reference(after: &str) -> (&str, &str) {
    let end = after
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '_' || c == '-'))
        .unwrap_or(after.len());
    let (name, _) = after.split_at_checked(end).unwrap_or((after, ""));
    let name = name.trim_end_matches(['.', '-']);
    let name = if name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        name
    } else {
        ""
    };
    after.split_at_checked(name.len()).unwrap_or((name, ""))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::gateway::request::tests::request;

    fn render(template: &str) -> String {
        let context = json!({"requestId": "r-1", "authorizer": {"code": "forbidden", "n": 3}, "error": {"messageString": "\"no\""}});
        let request = request("GET", "/a?x=1&x=2", &[("x-one", "a"), ("x-one", "b")]);
        let scope = Scope {
            context: context.as_object().unwrap(),
            stage_variables: &BTreeMap::from([("v".to_owned(), "w".to_owned())]),
            request: &request,
            path_parameters: &BTreeMap::from([("id".to_owned(), "7".to_owned())]),
        };
        Template::parse(template).unwrap().render(scope)
    }

    #[test]
    fn references_are_replaced_without_escaping() {
        for (template, expect) in [
            ("", ""),
            ("plain", "plain"),
            (
                r#"{"id":"$context.requestId","n":$context.authorizer.n}"#,
                r#"{"id":"r-1","n":3}"#,
            ),
            ("$context.requestId.", "r-1."),
            ("$context.error.messageString", "\"no\""),
            ("[$context.authorizer.absent]", "[]"),
            ("[$context.authorizer]", "[]"),
            ("$stageVariables.v-$method.request.path.id", "w-7"),
            (
                "$method.request.header.X-One $method.request.multivalueheader.x-one",
                "b a,b",
            ),
            ("$method.request.querystring.x", "2"),
            ("cost: $5 and $", "cost: $5 and $"),
        ] {
            assert_eq!(render(template), expect, "{template}");
        }
    }

    #[test]
    fn what_a_template_can_not_do_is_named() {
        for (template, named) in [("$input.json('$')", "$input.json"), ("$util.escape", "$util.escape")] {
            let error = Template::parse(template).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
        let error = Template::parse_vtl("#set($x = 1)").unwrap_err().to_string();
        assert!(error.contains("#set"), "{error}");
        assert!(Template::parse_vtl("a # b").is_ok());
    }

    #[test]
    fn mapping_expressions_that_make_no_sense_are_refused() {
        for text in [
            "",
            "'open",
            "context.",
            "context..a",
            "method.request.header.",
            "method.request.body",
            "a b",
            "$x",
        ] {
            assert!(Source::parse(text).is_err(), "{text}");
        }
        assert_eq!(Source::parse("'it''s'").unwrap(), Source::Static("it''s".to_owned()));
    }
}
