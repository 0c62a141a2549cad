//! Request validators: which parameters an operation requires, and the model of its body where a validator asks for it.
//!
//! Rules: <https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-method-request-validation.html>. Models
//! are JSON Schema draft 4; what the import drops from them is dropped here.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow, bail};
use jsonschema::{Draft, Validator};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{object, resolve};

/// Keywords of a schema that the import ignores, so that nothing is refused on their account.
const DROPPED: [&str; 9] = [
    "default",
    "discriminator",
    "example",
    "exclusiveMinimum",
    "format",
    "maxItems",
    "minItems",
    "nullable",
    "readOnly",
];

/// Where a parameter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gateway) enum Place {
    Header,
    Path,
    Query,
}

/// What the gateway checks of a request before it calls the integration.
#[derive(Debug, Default)]
pub(in crate::gateway) struct Validation {
    /// Parameters that must be there and not blank.
    pub(in crate::gateway) required: Vec<(Place, String)>,
    /// Models by media type; empty where bodies are not validated.
    pub(in crate::gateway) models: BTreeMap<String, Validator>,
    /// Whether a body must be there.
    pub(in crate::gateway) body_required: bool,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    #[serde(default)]
    validate_request_parameters: bool,
    #[serde(default)]
    validate_request_body: bool,
}

/// The validators of a document.
pub(super) struct Validators {
    rules: BTreeMap<String, Rule>,
    /// The rule of operations that name none.
    default: Rule,
}

impl Validators {
    pub(super) fn parse(document: &Value) -> Result<Self> {
        let rules = match document.get("x-amazon-apigateway-request-validators") {
            Some(rules) => BTreeMap::deserialize(rules).context("x-amazon-apigateway-request-validators")?,
            None => BTreeMap::new(),
        };
        let mut validators = Self {
            rules,
            default: Rule::default(),
        };
        validators.default = validators.named(document.get("x-amazon-apigateway-request-validator"))?;
        Ok(validators)
    }

    fn named(&self, name: Option<&Value>) -> Result<Rule> {
        let Some(name) = name else { return Ok(self.default) };
        let rule = name.as_str().and_then(|name| self.rules.get(name));
        rule.copied()
            .ok_or_else(|| anyhow!("there is no request validator {name}"))
    }

    /// What is checked of one operation.
    pub(super) fn of(
        &self,
        document: &Value,
        item: &Map<String, Value>,
        operation: &Map<String, Value>,
    ) -> Result<Validation> {
        let rule = self.named(operation.get("x-amazon-apigateway-request-validator"))?;
        let mut validation = Validation::default();
        let declared = parameters(document, item, operation)?;
        if rule.validate_request_parameters {
            validation.required = declared;
        }
        if rule.validate_request_body
            && let Some(body) = operation.get("requestBody")
        {
            let body = resolve(document, body)?;
            validation.body_required = body.get("required").and_then(Value::as_bool).unwrap_or(false);
            for (media_type, content) in object(body.get("content").context("requestBody has no content")?)? {
                let Some(schema) = content.get("schema") else { continue };
                let model = model(document, schema).with_context(|| format!("the model of {media_type}"))?;
                validation.models.insert(media_type.to_ascii_lowercase(), model);
            }
        }
        Ok(validation)
    }
}

/// The required parameters of an operation; its own win over those of the path.
fn parameters(
    document: &Value,
    item: &Map<String, Value>,
    operation: &Map<String, Value>,
) -> Result<Vec<(Place, String)>> {
    let mut required: Vec<(Place, String, bool)> = Vec::new();
    for holder in [item, operation] {
        let Some(list) = holder.get("parameters") else { continue };
        for parameter in list.as_array().ok_or_else(|| anyhow!("parameters is not a list"))? {
            let parameter = resolve(document, parameter)?;
            let text = |field: &str| parameter.get(field).and_then(Value::as_str).unwrap_or_default();
            let place = match text("in") {
                "header" => Place::Header,
                "path" => Place::Path,
                "query" => Place::Query,
                other => bail!("a parameter in {other:?} is not imported"),
            };
            let name = text("name").to_owned();
            if name.is_empty() {
                bail!("a parameter has no name");
            }
            let needed = parameter.get("required").and_then(Value::as_bool).unwrap_or(false);
            required.retain(|(known_place, known, _)| (*known_place, known) != (place, &name));
            required.push((place, name, needed));
        }
    }
    Ok(required
        .into_iter()
        .filter(|(_, _, needed)| *needed)
        .map(|(place, name, _)| (place, name))
        .collect())
}

/// Compiles a schema with the document's components in reach of its references.
fn model(document: &Value, schema: &Value) -> Result<Validator> {
    let components = document.get("components").cloned().unwrap_or_default();
    let mut whole = json!({"allOf": [schema], "components": components});
    drop_ignored(&mut whole);
    let options = jsonschema::options().with_draft(Draft::Draft4);
    options.build(&whole).map_err(|error| anyhow!("{error}"))
}

fn drop_ignored(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            // Below `properties` a name is a name, whatever it is called.
            for (name, field) in fields.iter_mut() {
                match field {
                    Value::Object(properties) if name == "properties" => properties.values_mut().for_each(drop_ignored),
                    other => drop_ignored(other),
                }
            }
            fields.retain(|name, _| !DROPPED.contains(&name.as_str()));
        }
        Value::Array(items) => items.iter_mut().for_each(drop_ignored),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
