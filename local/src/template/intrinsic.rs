//! Parameters, conditions and intrinsic functions.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use data_encoding::BASE32_NOPAD;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::resource::{Kind, Passive, text};
use super::{LogicalId, Settings, TemplateError};
use crate::document::{self, ShortForm};

/// The partition of all ARNs; the stack plays the commercial regions only.
const PARTITION: &str = "aws";

/// A template that is being evaluated.
pub(super) struct Scope<'a> {
    folder: &'a Path,
    settings: &'a Settings,
    parameters: BTreeMap<&'a str, Value>,
    conditions: &'a Map<String, Value>,
    resources: BTreeMap<String, Resource>,
    outputs: &'a Map<String, Value>,
    /// What is being evaluated now, so that a circle is an error and no overflow.
    path: RefCell<Vec<String>>,
}

/// A resource that the template makes, not yet evaluated.
struct Resource {
    kind: Kind,
    properties: Map<String, Value>,
    metadata: Option<Value>,
    /// SAM's role for a function without one.
    implicit: bool,
}

type Evaluated = Result<Option<Value>, TemplateError>;

fn invalid(place: &str, problem: impl Into<String>) -> TemplateError {
    TemplateError::Invalid {
        place: place.to_owned(),
        problem: problem.into(),
    }
}

fn section<'a>(
    document: &'a Value,
    name: &str,
    empty: &'a Map<String, Value>,
) -> Result<&'a Map<String, Value>, TemplateError> {
    match document.get(name) {
        None => Ok(empty),
        Some(Value::Object(map)) => Ok(map),
        Some(_) => Err(invalid(name, "the section must be a mapping")),
    }
}

fn empty() -> &'static Map<String, Value> {
    static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    &EMPTY
}

impl<'a> Scope<'a> {
    pub(super) fn new(document: &'a Value, folder: &'a Path, settings: &'a Settings) -> Result<Self, TemplateError> {
        let Value::Object(sections) = document else {
            return Err(invalid("template", "it must be a mapping"));
        };
        for name in sections.keys() {
            match name.as_str() {
                "AWSTemplateFormatVersion"
                | "Description"
                | "Metadata"
                | "Transform"
                | "Parameters"
                | "Conditions"
                | "Globals"
                | "Rules"
                | "Resources"
                | "Outputs" => {}
                _ => return Err(invalid(name, "the local stack doesn't know this section")),
            }
        }
        match document.get("Transform").and_then(Value::as_str) {
            Some("AWS::Serverless-2016-10-31") | None => {}
            Some(other) => return Err(invalid("Transform", format!("the local stack doesn't know {other}"))),
        }
        if document
            .get("Transform")
            .is_some_and(|transform| !transform.is_string())
        {
            return Err(invalid("Transform", "the local stack knows one transform only"));
        }
        let globals = section(document, "Globals", empty())?;
        for name in globals.keys() {
            if !matches!(name.as_str(), "Function" | "Api") {
                return Err(invalid(
                    &format!("Globals.{name}"),
                    "the local stack doesn't know these",
                ));
            }
        }
        let mut scope = Self {
            folder,
            settings,
            parameters: parameters(section(document, "Parameters", empty())?, settings)?,
            conditions: section(document, "Conditions", empty())?,
            resources: BTreeMap::new(),
            outputs: section(document, "Outputs", empty())?,
            path: RefCell::new(Vec::new()),
        };
        for name in scope.conditions.keys() {
            scope.condition(name, name)?;
        }
        for (name, rule) in section(document, "Rules", empty())? {
            scope.rule(&format!("Rules.{name}"), rule)?;
        }
        for (id, raw) in section(document, "Resources", empty())? {
            if let Some(resource) = scope.resource(id, raw, globals)? {
                if resource.kind == Kind::Function && !resource.properties.contains_key("Role") {
                    let role = Resource {
                        kind: Kind::Role,
                        properties: Map::new(),
                        metadata: None,
                        implicit: true,
                    };
                    scope.resources.insert(format!("{id}Role"), role);
                }
                scope.resources.insert(id.clone(), resource);
            }
        }
        Ok(scope)
    }

    /// Checks a resource's frame and merges the globals in; nothing if its condition is false.
    fn resource(&self, id: &str, raw: &Value, globals: &Map<String, Value>) -> Result<Option<Resource>, TemplateError> {
        let Value::Object(frame) = raw else {
            return Err(invalid(id, "a resource must be a mapping"));
        };
        for name in frame.keys() {
            match name.as_str() {
                "Type"
                | "Properties"
                | "Condition"
                | "DependsOn"
                | "Metadata"
                | "DeletionPolicy"
                | "UpdateReplacePolicy" => {}
                _ => {
                    return Err(invalid(
                        id,
                        format!("the local stack doesn't know the attribute {name}"),
                    ));
                }
            }
        }
        if let Some(condition) = frame.get("Condition") {
            let name = condition
                .as_str()
                .ok_or_else(|| invalid(id, "Condition must name a condition"))?;
            if !self.condition(id, name)? {
                return Ok(None);
            }
        }
        let resource_type = frame
            .get("Type")
            .and_then(Value::as_str)
            .ok_or_else(|| invalid(id, "it has no Type"))?;
        let kind = Kind::of(resource_type).ok_or_else(|| TemplateError::UnknownResourceType {
            logical_id: LogicalId::new(id),
            resource_type: resource_type.to_owned(),
        })?;
        let own = match frame.get("Properties") {
            None => Map::new(),
            Some(Value::Object(properties)) => properties.clone(),
            Some(_) => return Err(invalid(id, "Properties must be a mapping")),
        };
        let global = match kind {
            Kind::Function => globals.get("Function"),
            Kind::Api => globals.get("Api"),
            _ => None,
        };
        let properties = match global {
            None => own,
            Some(Value::Object(global)) => merge(global, own),
            Some(_) => return Err(invalid("Globals", "they must be mappings")),
        };
        Ok(Some(Resource {
            kind,
            properties,
            metadata: frame.get("Metadata").cloned(),
            implicit: false,
        }))
    }

    /// The logical ids of all resources that are made and stand in the template.
    pub(super) fn resources(&self) -> impl Iterator<Item = &str> {
        self.resources
            .iter()
            .filter(|(_, resource)| !resource.implicit)
            .map(|(id, _)| id.as_str())
    }

    pub(super) fn kind(&self, id: &str) -> Result<Kind, TemplateError> {
        self.find(id, id).map(|resource| resource.kind)
    }

    /// A resource's properties, evaluated.
    pub(super) fn properties(&self, id: &str) -> Result<Map<String, Value>, TemplateError> {
        self.map(id, &self.find(id, id)?.properties)
    }

    /// A resource's `Metadata`, evaluated.
    pub(super) fn metadata(&self, id: &str) -> Result<Option<Map<String, Value>>, TemplateError> {
        match &self.find(id, id)?.metadata {
            Some(Value::Object(metadata)) => self.map(id, metadata).map(Some),
            Some(_) => Err(invalid(id, "Metadata must be a mapping")),
            None => Ok(None),
        }
    }

    pub(super) fn outputs(&self) -> Result<BTreeMap<String, Value>, TemplateError> {
        let mut outputs = BTreeMap::new();
        for (name, output) in self.outputs {
            let place = format!("Outputs.{name}");
            if let Some(condition) = output.get("Condition").and_then(Value::as_str)
                && !self.condition(&place, condition)?
            {
                continue;
            }
            let raw = output.get("Value").ok_or_else(|| invalid(&place, "it has no Value"))?;
            if let Some(value) = self.value(&place, raw)? {
                outputs.insert(name.clone(), value);
            }
        }
        Ok(outputs)
    }

    pub(super) fn reference_text(&self, id: &str) -> Result<String, TemplateError> {
        let value = self.reference(id, id)?;
        value
            .as_ref()
            .and_then(text)
            .ok_or_else(|| invalid(id, "it has no name"))
    }

    pub(super) fn attribute_text(&self, id: &str, attribute: &str) -> Result<String, TemplateError> {
        self.attribute(id, id, attribute)
    }

    fn find(&self, place: &str, id: &str) -> Result<&Resource, TemplateError> {
        self.resources.get(id).ok_or_else(|| {
            invalid(
                place,
                format!("`{id}` is no parameter and no resource that this template makes"),
            )
        })
    }

    fn map(&self, place: &str, map: &Map<String, Value>) -> Result<Map<String, Value>, TemplateError> {
        let mut evaluated = Map::new();
        for (key, raw) in map {
            if let Some(value) = self.value(place, raw)? {
                evaluated.insert(key.clone(), value);
            }
        }
        Ok(evaluated)
    }

    /// Evaluates a value; none when it is `AWS::NoValue`.
    fn value(&self, place: &str, raw: &Value) -> Evaluated {
        match raw {
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(Some(raw.clone())),
            Value::Array(items) => Ok(Some(Value::Array(self.list(place, items)?))),
            Value::Object(map) => {
                let intrinsic = map.iter().find(|(key, _)| key.starts_with("Fn::") || *key == "Ref");
                match intrinsic {
                    Some((name, argument)) if map.len() == 1 => self.intrinsic(place, name, argument),
                    // A property may be called `Ref`; `Fn::` is CloudFormation's own.
                    Some((name, _)) if name.starts_with("Fn::") => {
                        Err(invalid(place, format!("`{name}` must stand alone in its mapping")))
                    }
                    _ => self.map(place, map).map(|map| Some(Value::Object(map))),
                }
            }
        }
    }

    fn list(&self, place: &str, items: &[Value]) -> Result<Vec<Value>, TemplateError> {
        let mut evaluated = Vec::new();
        for item in items {
            evaluated.extend(self.value(place, item)?);
        }
        Ok(evaluated)
    }

    fn text(&self, place: &str, raw: &Value) -> Result<String, TemplateError> {
        self.value(place, raw)?
            .as_ref()
            .and_then(text)
            .ok_or_else(|| invalid(place, format!("a string is needed, not {raw}")))
    }

    fn intrinsic(&self, place: &str, name: &str, argument: &Value) -> Evaluated {
        let misused = || invalid(place, format!("`{name}` can't have the argument {argument}"));
        match (name, argument) {
            ("Ref", Value::String(target)) => self.reference(place, target),
            ("Fn::GetAtt", Value::String(path)) => {
                let (id, attribute) = path.split_once('.').ok_or_else(misused)?;
                self.attribute(place, id, attribute)
                    .map(|text| Some(Value::String(text)))
            }
            ("Fn::GetAtt", Value::Array(path)) => match path.as_slice() {
                [Value::String(id), attribute] => {
                    let attribute = self.text(place, attribute)?;
                    self.attribute(place, id, &attribute)
                        .map(|text| Some(Value::String(text)))
                }
                _ => Err(misused()),
            },
            ("Fn::Sub", Value::String(pattern)) => self
                .substitute(place, pattern, empty())
                .map(|text| Some(Value::String(text))),
            ("Fn::Sub", Value::Array(parts)) => match parts.as_slice() {
                [Value::String(pattern), Value::Object(variables)] => self
                    .substitute(place, pattern, variables)
                    .map(|text| Some(Value::String(text))),
                _ => Err(misused()),
            },
            ("Fn::Join", Value::Array(parts)) => match parts.as_slice() {
                [Value::String(delimiter), items] => {
                    let items = match self.value(place, items)? {
                        Some(Value::Array(items)) => items,
                        _ => return Err(misused()),
                    };
                    let texts: Option<Vec<String>> = items.iter().map(text).collect();
                    Ok(Some(Value::String(texts.ok_or_else(misused)?.join(delimiter))))
                }
                _ => Err(misused()),
            },
            ("Fn::If", Value::Array(parts)) => match parts.as_slice() {
                [Value::String(condition), yes, no] => {
                    let chosen = if self.condition(place, condition)? { yes } else { no };
                    self.value(place, chosen)
                }
                _ => Err(misused()),
            },
            ("Fn::Transform", Value::Object(transform)) => self.include(place, transform),
            (
                "Ref" | "Fn::GetAtt" | "Fn::Sub" | "Fn::Join" | "Fn::If" | "Fn::Transform",
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_),
            ) => Err(misused()),
            _ => Err(TemplateError::UnknownIntrinsic {
                place: place.to_owned(),
                intrinsic: name.to_owned(),
            }),
        }
    }

    /// `AWS::Include` of a file beside the template. On AWS the file has been uploaded by then.
    fn include(&self, place: &str, transform: &Map<String, Value>) -> Evaluated {
        match transform.get("Name").and_then(Value::as_str) {
            Some("AWS::Include") => {}
            other => {
                let other = other.unwrap_or("without a name");
                return Err(invalid(
                    place,
                    format!("the local stack doesn't know the transform {other}"),
                ));
            }
        }
        let location = transform
            .get("Parameters")
            .and_then(|parameters| parameters.get("Location"))
            .ok_or_else(|| invalid(place, "AWS::Include needs a Location"))?;
        let location = self.text(place, location)?;
        if location.contains("://") {
            return Err(invalid(place, format!("{location} is not a file beside the template")));
        }
        let file: PathBuf = self.folder.join(&location);
        let included = document::load(&file, ShortForm::Refused)?;
        self.nested(place, &format!("AWS::Include {location}"), || {
            self.value(place, &included)
        })
    }

    fn substitute(&self, place: &str, pattern: &str, variables: &Map<String, Value>) -> Result<String, TemplateError> {
        let mut result = String::new();
        let mut rest = pattern;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, tail) = after
                .split_once('}')
                .ok_or_else(|| invalid(place, format!("`{pattern}` has an unclosed `${{`")))?;
            result.push_str(before);
            rest = tail;
            if let Some(literal) = name.strip_prefix('!') {
                result.push_str("${");
                result.push_str(literal);
                result.push('}');
                continue;
            }
            let value = match (variables.get(name), name.split_once('.')) {
                (Some(raw), _) => self.value(place, raw)?,
                (None, Some((id, attribute))) => Some(Value::String(self.attribute(place, id, attribute)?)),
                (None, None) => self.reference(place, name)?,
            };
            let value = value
                .as_ref()
                .and_then(text)
                .ok_or_else(|| invalid(place, format!("`${{{name}}}` is not a string")))?;
            result.push_str(&value);
        }
        result.push_str(rest);
        Ok(result)
    }

    fn condition(&self, place: &str, name: &str) -> Result<bool, TemplateError> {
        let raw = self
            .conditions
            .get(name)
            .ok_or_else(|| invalid(place, format!("there is no condition `{name}`")))?;
        let place = format!("Conditions.{name}");
        self.nested(&place, &place, || self.predicate(&place, raw))
    }

    fn predicate(&self, place: &str, raw: &Value) -> Result<bool, TemplateError> {
        let misused = || invalid(place, format!("{raw} is not a condition"));
        let map = raw.as_object().filter(|map| map.len() == 1).ok_or_else(misused)?;
        let (name, argument) = map.iter().next().ok_or_else(misused)?;
        match (name.as_str(), argument) {
            ("Condition", Value::String(other)) => self.condition(place, other),
            ("Fn::Equals", Value::Array(sides)) => match sides.as_slice() {
                [left, right] => Ok(self.operand(place, left)? == self.operand(place, right)?),
                _ => Err(misused()),
            },
            ("Fn::Not", Value::Array(inner)) => match inner.as_slice() {
                [inner] => Ok(!self.predicate(place, inner)?),
                _ => Err(misused()),
            },
            ("Fn::And" | "Fn::Or", Value::Array(parts)) => {
                let parts: Vec<bool> = parts
                    .iter()
                    .map(|part| self.predicate(place, part))
                    .collect::<Result<_, _>>()?;
                Ok(match name.as_str() {
                    "Fn::And" => parts.iter().all(|part| *part),
                    _ => parts.iter().any(|part| *part),
                })
            }
            ("Condition" | "Fn::Equals" | "Fn::Not" | "Fn::And" | "Fn::Or", _) => Err(misused()),
            _ => Err(TemplateError::UnknownIntrinsic {
                place: place.to_owned(),
                intrinsic: name.clone(),
            }),
        }
    }

    /// One side of a comparison: a string, or in a rule another predicate.
    fn operand(&self, place: &str, raw: &Value) -> Result<String, TemplateError> {
        const PREDICATES: [&str; 5] = ["Condition", "Fn::Equals", "Fn::Not", "Fn::And", "Fn::Or"];
        match raw.as_object() {
            Some(map) if map.keys().any(|key| PREDICATES.contains(&key.as_str())) => {
                self.predicate(place, raw).map(|holds| holds.to_string())
            }
            _ => self.text(place, raw),
        }
    }

    /// A rule about parameters: an error with the rule's own words unless its assertions hold.
    fn rule(&self, place: &str, rule: &Value) -> Result<(), TemplateError> {
        if let Some(condition) = rule.get("RuleCondition")
            && !self.predicate(place, condition)?
        {
            return Ok(());
        }
        let assertions = rule
            .get("Assertions")
            .and_then(Value::as_array)
            .ok_or_else(|| invalid(place, "it has no Assertions"))?;
        for assertion in assertions {
            let assert = assertion
                .get("Assert")
                .ok_or_else(|| invalid(place, "an assertion has no Assert"))?;
            if !self.predicate(place, assert)? {
                let description = assertion.get("AssertDescription").and_then(Value::as_str);
                return Err(invalid(place, description.unwrap_or("an assertion does not hold")));
            }
        }
        Ok(())
    }

    /// Runs `evaluate` unless `step` is being evaluated already.
    fn nested<T>(
        &self,
        place: &str,
        step: &str,
        evaluate: impl FnOnce() -> Result<T, TemplateError>,
    ) -> Result<T, TemplateError> {
        if self.path.borrow().iter().any(|entered| entered == step) {
            return Err(invalid(place, format!("{step} depends on itself")));
        }
        self.path.borrow_mut().push(step.to_owned());
        let result = evaluate();
        self.path.borrow_mut().pop();
        result
    }

    fn reference(&self, place: &str, target: &str) -> Evaluated {
        let settings = self.settings;
        let pseudo = match target {
            "AWS::NoValue" => return Ok(None),
            "AWS::AccountId" => Some(settings.account.clone()),
            "AWS::Region" => Some(settings.region.clone()),
            "AWS::Partition" => Some(PARTITION.to_owned()),
            "AWS::StackName" => Some(settings.stack.clone()),
            "AWS::URLSuffix" => Some("amazonaws.com".to_owned()),
            "AWS::StackId" => Some(self.arn("cloudformation", &format!("stack/{}/local", settings.stack))),
            _ => None,
        };
        if let Some(text) = pseudo {
            return Ok(Some(Value::String(text)));
        }
        if let Some(value) = self.parameters.get(target) {
            return Ok(Some(value.clone()));
        }
        // SAM: `Api.Stage` is the stage resource that it makes, whose Ref is the stage's name.
        if let Some((api, "Stage")) = target.split_once('.')
            && let Some(resource) = self.resources.get(api)
            && resource.kind == Kind::Api
            && let Some(stage) = resource.properties.get("StageName")
        {
            return self.value(place, stage);
        }
        let resource = self.find(place, target)?;
        let text = match resource.kind {
            Kind::Function | Kind::Table | Kind::Bucket | Kind::Role => self.name(target, resource)?,
            Kind::Api => self.identifier(target, 10).to_lowercase(),
            Kind::KnowledgeBase => self.identifier(target, 10),
            // Two ids make its primary identifier.
            Kind::DataSource => format!(
                "{}|{}",
                self.knowledge_base(target, resource)?,
                self.identifier(target, 10)
            ),
            Kind::Guardrail => self.attribute(place, target, "GuardrailArn")?,
            Kind::Permission | Kind::GuardrailVersion | Kind::Policy | Kind::BucketPolicy => {
                self.generated_name(target)
            }
            Kind::NotEmulated(passive) => match passive {
                Passive::VectorBucket => self.attribute(place, target, "VectorBucketArn")?,
                Passive::VectorIndex => self.attribute(place, target, "IndexArn")?,
                Passive::LogGroup
                | Passive::MetricFilter
                | Passive::Alarm
                | Passive::Setting
                | Passive::UserPoolGroup => self.name(target, resource)?,
                Passive::ApiAccount | Passive::CustomResource | Passive::FirewallAssociation => {
                    self.generated_name(target)
                }
                // Three ids make its primary identifier.
                Passive::Firewall => format!(
                    "{}|{}|REGIONAL",
                    self.name(target, resource)?,
                    self.identifier(target, 12).to_lowercase()
                ),
                Passive::Topic => self.arn("sns", &self.name(target, resource)?),
                Passive::Subscription => self.arn("sns", &self.generated_name(target)),
                Passive::UserPool => format!("{}_{}", settings.region, self.identifier(target, 9)),
                Passive::UserPoolClient => self.identifier(target, 26).to_lowercase(),
            },
        };
        Ok(Some(Value::String(text)))
    }

    fn attribute(&self, place: &str, id: &str, attribute: &str) -> Result<String, TemplateError> {
        let resource = self.find(place, id)?;
        let name = || self.name(id, resource);
        let region = &self.settings.region;
        let text = match (resource.kind, attribute) {
            (Kind::Function, "Arn") => self.arn("lambda", &format!("function:{}", name()?)),
            (Kind::Table, "Arn") => self.arn("dynamodb", &format!("table/{}", name()?)),
            (Kind::Bucket, "Arn") => format!("arn:{PARTITION}:s3:::{}", name()?),
            (Kind::Bucket, "DomainName") => format!("{}.s3.amazonaws.com", name()?),
            (Kind::Bucket, "RegionalDomainName") => format!("{}.s3.{region}.amazonaws.com", name()?),
            (Kind::Role, "Arn") => format!("arn:{PARTITION}:iam::{}:role/{}", self.settings.account, name()?),
            (Kind::Api, "RootResourceId") => self.identifier(&format!("{id}/"), 10).to_lowercase(),
            (Kind::KnowledgeBase, "KnowledgeBaseId") | (Kind::DataSource, "DataSourceId") => self.identifier(id, 10),
            (Kind::KnowledgeBase, "KnowledgeBaseArn") => {
                self.arn("bedrock", &format!("knowledge-base/{}", self.identifier(id, 10)))
            }
            (Kind::Guardrail, "GuardrailId") => self.identifier(id, 12).to_lowercase(),
            (Kind::Guardrail, "GuardrailArn") => self.arn(
                "bedrock",
                &format!("guardrail/{}", self.identifier(id, 12).to_lowercase()),
            ),
            (Kind::Guardrail, "Version") => "DRAFT".to_owned(),
            (Kind::GuardrailVersion, "Version") => "1".to_owned(),
            (Kind::NotEmulated(Passive::VectorBucket), "VectorBucketArn") => {
                self.arn("s3vectors", &format!("bucket/{}", name()?.to_lowercase()))
            }
            (Kind::NotEmulated(Passive::VectorIndex), "IndexArn") => {
                format!("{}/index/{}", self.vector_bucket(id, resource)?, name()?.to_lowercase())
            }
            (Kind::NotEmulated(Passive::LogGroup), "Arn") => {
                // With the suffix that CloudFormation gives it.
                format!("{}:*", self.arn("logs", &format!("log-group:{}", name()?)))
            }
            (Kind::NotEmulated(Passive::Alarm), "Arn") => self.arn("cloudwatch", &format!("alarm:{}", name()?)),
            (Kind::NotEmulated(Passive::Firewall), "Arn") => {
                let id = self.identifier(id, 12).to_lowercase();
                self.arn("wafv2", &format!("regional/webacl/{}/{id}", name()?))
            }
            _ => {
                return Err(invalid(
                    place,
                    format!("the local stack doesn't know the attribute `{id}.{attribute}`"),
                ));
            }
        };
        Ok(text)
    }

    fn arn(&self, service: &str, resource: &str) -> String {
        let Settings { region, account, .. } = self.settings;
        format!("arn:{PARTITION}:{service}:{region}:{account}:{resource}")
    }

    /// The physical name: the one that the template gives, else one like CloudFormation's, but the same every time.
    fn name(&self, id: &str, resource: &Resource) -> Result<String, TemplateError> {
        let given = resource
            .kind
            .name_property()
            .and_then(|property| resource.properties.get(property));
        if let Some(raw) = given {
            let step = format!("the name of {id}");
            if let Some(value) = self.nested(id, &step, || self.value(id, raw))? {
                return text(&value).ok_or_else(|| invalid(id, "its name must be a string"));
            }
        }
        Ok(match resource.kind {
            Kind::Bucket => self.generated_name(id).to_lowercase(),
            _ => self.generated_name(id),
        })
    }

    fn generated_name(&self, id: &str) -> String {
        format!("{}-{id}-{}", self.settings.stack, self.identifier(id, 12))
    }

    /// Capital letters and digits, which depend on the stack's name and the logical id only.
    fn identifier(&self, id: &str, length: usize) -> String {
        let hash = Sha256::digest(format!("{}/{id}", self.settings.stack));
        BASE32_NOPAD.encode(&hash).chars().take(length).collect()
    }

    fn knowledge_base(&self, id: &str, resource: &Resource) -> Result<String, TemplateError> {
        let raw = resource
            .properties
            .get("KnowledgeBaseId")
            .ok_or_else(|| invalid(id, "the property KnowledgeBaseId is missing"))?;
        self.nested(id, &format!("the knowledge base of {id}"), || self.text(id, raw))
    }

    /// The ARN of the vector bucket that an index is in.
    fn vector_bucket(&self, id: &str, resource: &Resource) -> Result<String, TemplateError> {
        let step = format!("the vector bucket of {id}");
        self.nested(id, &step, || {
            match (
                resource.properties.get("VectorBucketArn"),
                resource.properties.get("VectorBucketName"),
            ) {
                (Some(arn), None) => self.text(id, arn),
                (None, Some(name)) => {
                    let name = self.text(id, name)?;
                    Ok(self.arn("s3vectors", &format!("bucket/{name}")))
                }
                _ => Err(invalid(id, "either VectorBucketArn or VectorBucketName is needed")),
            }
        })
    }
}

/// Defaults and given values of the parameters, checked as CloudFormation checks them.
fn parameters<'a>(
    declared: &'a Map<String, Value>,
    settings: &Settings,
) -> Result<BTreeMap<&'a str, Value>, TemplateError> {
    if let Some(name) = settings.parameters.keys().find(|name| !declared.contains_key(*name)) {
        return Err(invalid(
            &format!("Parameters.{name}"),
            "the template has no such parameter",
        ));
    }
    let mut values = BTreeMap::new();
    for (name, declaration) in declared {
        let place = format!("Parameters.{name}");
        let given = settings.parameters.get(name).cloned();
        let value = given
            .or_else(|| declaration.get("Default").and_then(text))
            .ok_or_else(|| invalid(&place, "it has no default and no value was given"))?;
        if let Some(allowed) = declaration.get("AllowedValues").and_then(Value::as_array)
            && !allowed
                .iter()
                .any(|choice| text(choice).as_deref() == Some(value.as_str()))
        {
            return Err(invalid(&place, format!("`{value}` is not one of the allowed values")));
        }
        let bound = |name: &str| {
            declaration
                .get(name)
                .and_then(text)
                .and_then(|bound| bound.parse::<usize>().ok())
        };
        let length = value.chars().count();
        if bound("MinLength").is_some_and(|least| length < least)
            || bound("MaxLength").is_some_and(|most| length > most)
        {
            return Err(invalid(
                &place,
                format!("`{value}` has {length} characters, which is not allowed"),
            ));
        }
        let value = match declaration.get("Type").and_then(Value::as_str) {
            Some("String") => Value::String(value),
            Some("Number") => {
                let number: f64 = value
                    .parse()
                    .map_err(|_| invalid(&place, format!("`{value}` is not a number")))?;
                let limit = |name: &str| {
                    declaration
                        .get(name)
                        .and_then(text)
                        .and_then(|limit| limit.parse::<f64>().ok())
                };
                if limit("MinValue").is_some_and(|least| number < least)
                    || limit("MaxValue").is_some_and(|most| number > most)
                {
                    return Err(invalid(&place, format!("{value} is out of bounds")));
                }
                Value::String(value)
            }
            Some("CommaDelimitedList") => value.split(',').map(|item| Value::from(item.trim())).collect(),
            other => {
                let other = other.unwrap_or("none");
                return Err(invalid(
                    &place,
                    format!("the local stack doesn't know the parameter type {other}"),
                ));
            }
        };
        values.insert(name.as_str(), value);
    }
    Ok(values)
}

/// SAM's rule for `Globals`: mappings are merged, lists are joined, everything else of the resource's own wins.
fn merge(global: &Map<String, Value>, own: Map<String, Value>) -> Map<String, Value> {
    let mut merged = global.clone();
    for (key, value) in own {
        let value = match (merged.remove(&key), value) {
            // An intrinsic is one value, though it is written as a mapping.
            (Some(Value::Object(below)), Value::Object(above)) if !is_intrinsic(&below) && !is_intrinsic(&above) => {
                Value::Object(merge(&below, above))
            }
            (Some(Value::Array(mut below)), Value::Array(above)) => {
                below.extend(above);
                Value::Array(below)
            }
            (_, value) => value,
        };
        merged.insert(key, value);
    }
    merged
}

fn is_intrinsic(map: &Map<String, Value>) -> bool {
    map.len() == 1 && map.keys().any(|key| key == "Ref" || key.starts_with("Fn::"))
}
