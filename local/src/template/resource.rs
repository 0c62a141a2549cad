//! Resource types: which ones the stack knows, what `Ref` and `Fn::GetAtt` give for them, and typed reading of properties.

use serde_json::{Map, Value};

use super::TemplateError;

/// What the stack does with a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Function,
    Api,
    Table,
    Bucket,
    KnowledgeBase,
    DataSource,
    Guardrail,
    GuardrailVersion,
    Permission,
    Role,
    Policy,
    BucketPolicy,
    /// Known, and without effect on one machine: it can only be pointed at.
    NotEmulated(Passive),
}

/// Types that need no emulation, but have names and ARNs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passive {
    VectorBucket,
    VectorIndex,
    LogGroup,
    MetricFilter,
    Alarm,
    ApiAccount,
    /// Its function is given events by whoever plays CloudFormation.
    CustomResource,
    Firewall,
    FirewallAssociation,
    Topic,
    Subscription,
    Setting,
    UserPool,
    UserPoolClient,
    UserPoolGroup,
}

impl Kind {
    /// The kind of a CloudFormation type name.
    pub(super) fn of(resource_type: &str) -> Option<Self> {
        Some(match resource_type {
            "AWS::Serverless::Function" => Self::Function,
            "AWS::Serverless::Api" => Self::Api,
            "AWS::DynamoDB::Table" => Self::Table,
            "AWS::S3::Bucket" => Self::Bucket,
            "AWS::Bedrock::KnowledgeBase" => Self::KnowledgeBase,
            "AWS::Bedrock::DataSource" => Self::DataSource,
            "AWS::Bedrock::Guardrail" => Self::Guardrail,
            "AWS::Bedrock::GuardrailVersion" => Self::GuardrailVersion,
            "AWS::Lambda::Permission" => Self::Permission,
            "AWS::IAM::Role" => Self::Role,
            "AWS::S3::BucketPolicy" => Self::BucketPolicy,
            "AWS::S3Vectors::VectorBucket" => Self::NotEmulated(Passive::VectorBucket),
            "AWS::S3Vectors::Index" => Self::NotEmulated(Passive::VectorIndex),
            "AWS::IAM::Policy" => Self::Policy,
            "AWS::Logs::LogGroup" => Self::NotEmulated(Passive::LogGroup),
            "AWS::Logs::MetricFilter" => Self::NotEmulated(Passive::MetricFilter),
            "AWS::CloudWatch::Alarm" => Self::NotEmulated(Passive::Alarm),
            "Custom::ModelInvocationLogging" => Self::NotEmulated(Passive::CustomResource),
            "AWS::ApiGateway::Account" => Self::NotEmulated(Passive::ApiAccount),
            "AWS::WAFv2::WebACL" => Self::NotEmulated(Passive::Firewall),
            "AWS::WAFv2::WebACLAssociation" => Self::NotEmulated(Passive::FirewallAssociation),
            "AWS::SNS::Topic" => Self::NotEmulated(Passive::Topic),
            "AWS::SNS::Subscription" => Self::NotEmulated(Passive::Subscription),
            "AWS::SSM::Parameter" => Self::NotEmulated(Passive::Setting),
            "AWS::Cognito::UserPool" => Self::NotEmulated(Passive::UserPool),
            "AWS::Cognito::UserPoolClient" => Self::NotEmulated(Passive::UserPoolClient),
            "AWS::Cognito::UserPoolGroup" => Self::NotEmulated(Passive::UserPoolGroup),
            _ => return None,
        })
    }

    /// The property that names a resource of this kind, where it has a physical name.
    pub(super) fn name_property(self) -> Option<&'static str> {
        match self {
            Self::Function => Some("FunctionName"),
            Self::Table => Some("TableName"),
            Self::Bucket => Some("BucketName"),
            Self::Role => Some("RoleName"),
            Self::NotEmulated(Passive::VectorBucket) => Some("VectorBucketName"),
            Self::NotEmulated(Passive::VectorIndex) => Some("IndexName"),
            Self::NotEmulated(Passive::LogGroup) => Some("LogGroupName"),
            Self::NotEmulated(Passive::Alarm) => Some("AlarmName"),
            Self::NotEmulated(Passive::MetricFilter) => Some("FilterName"),
            Self::NotEmulated(Passive::Firewall | Passive::Setting) => Some("Name"),
            Self::NotEmulated(Passive::Topic) => Some("TopicName"),
            Self::NotEmulated(Passive::UserPoolGroup) => Some("GroupName"),
            Self::Api
            | Self::KnowledgeBase
            | Self::DataSource
            | Self::Guardrail
            | Self::GuardrailVersion
            | Self::Permission
            | Self::Policy
            | Self::BucketPolicy
            | Self::NotEmulated(
                Passive::ApiAccount
                | Passive::CustomResource
                | Passive::FirewallAssociation
                | Passive::Subscription
                | Passive::UserPool
                | Passive::UserPoolClient,
            ) => None,
        }
    }
}

/// A resource's properties after evaluation, read with the resource's name in every error.
#[derive(Debug, Clone)]
pub(super) struct Properties {
    logical_id: String,
    map: Map<String, Value>,
}

impl Properties {
    pub(super) fn new(logical_id: &str, map: Map<String, Value>) -> Self {
        Self {
            logical_id: logical_id.to_owned(),
            map,
        }
    }

    pub(super) fn logical_id(&self) -> &str {
        &self.logical_id
    }

    pub(super) fn invalid(&self, problem: &str) -> TemplateError {
        TemplateError::Invalid {
            place: self.logical_id.clone(),
            problem: problem.to_owned(),
        }
    }

    pub(super) fn into_map(self) -> Map<String, Value> {
        self.map
    }

    pub(super) fn into_value(self) -> Value {
        Value::Object(self.map)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.map.get(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.map.keys().map(String::as_str)
    }

    /// Refuses every property that is not in `known`.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), TemplateError> {
        match self.names().find(|name| !known.contains(name)) {
            Some(name) => Err(self.invalid(&format!("the property {name} is not emulated"))),
            None => Ok(()),
        }
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<String>, TemplateError> {
        self.get(name)
            .map(|value| text(value).ok_or_else(|| self.invalid(&format!("{name} must be a string"))))
            .transpose()
    }

    pub(super) fn required_text(&self, name: &str) -> Result<String, TemplateError> {
        self.text(name)?.ok_or_else(|| self.missing(name))
    }

    /// CloudFormation takes `"30"` for 30.
    pub(super) fn number(&self, name: &str) -> Result<Option<u32>, TemplateError> {
        self.text(name)?
            .map(|text| {
                text.parse()
                    .map_err(|_| self.invalid(&format!("{name} must be a whole number")))
            })
            .transpose()
    }

    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, TemplateError> {
        self.text(name)?
            .map(|text| {
                text.parse()
                    .map_err(|_| self.invalid(&format!("{name} must be true or false")))
            })
            .transpose()
    }

    pub(super) fn texts(&self, name: &str) -> Result<Vec<String>, TemplateError> {
        match self.get(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => items
                .iter()
                .map(|item| text(item).ok_or_else(|| self.invalid(&format!("{name} must be a list of strings"))))
                .collect(),
            Some(_) => Err(self.invalid(&format!("{name} must be a list"))),
        }
    }

    pub(super) fn object(&self, name: &str) -> Result<Option<Self>, TemplateError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Self::new(&self.logical_id, map.clone()))),
            Some(_) => Err(self.invalid(&format!("{name} must be a mapping"))),
        }
    }

    pub(super) fn required_object(&self, name: &str) -> Result<Self, TemplateError> {
        self.object(name)?.ok_or_else(|| self.missing(name))
    }

    pub(super) fn objects(&self, name: &str) -> Result<Vec<Self>, TemplateError> {
        match self.get(name) {
            Some(Value::Array(items)) => items
                .iter()
                .map(|item| match item {
                    Value::Object(map) => Ok(Self::new(&self.logical_id, map.clone())),
                    _ => Err(self.invalid(&format!("{name} must be a list of mappings"))),
                })
                .collect(),
            None => Err(self.missing(name)),
            Some(_) => Err(self.invalid(&format!("{name} must be a list"))),
        }
    }

    fn missing(&self, name: &str) -> TemplateError {
        self.invalid(&format!("the property {name} is missing"))
    }
}

/// A scalar as CloudFormation sees it: everything is a string there.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
