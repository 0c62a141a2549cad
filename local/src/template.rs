//! The deployment template (`infra/template.yaml`) as the local stack's list of resources.
//!
//! An interpreter of the part of CloudFormation and SAM that the template uses. It exists so that the stack creates its
//! tables, buckets, functions and API from the very file that is deployed, and so that a template which names something
//! unknown stops the start instead of being half obeyed.
//!
//! Not here: creating anything (the emulators do that from what they read here), what policies mean, and every intrinsic,
//! section or resource type that the template doesn't use: those are errors which say where they stand.
//!
//! Physical ids are derived from the stack's name and the logical id, so that a second start finds the first one's data.

mod intrinsic;
mod resource;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::document::{self, DocumentError, ShortForm};
use crate::guardrail::{Action, Actions, Guardrail, Word};
use intrinsic::Scope;
use resource::{Kind, Properties};

/// A resource's name inside the template.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogicalId(String);

impl LogicalId {
    /// Takes the name as it stands in the template.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The name as it stands in the template.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LogicalId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What the deployment would know that the template doesn't say.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `AWS::StackName`.
    pub stack: String,
    /// `AWS::AccountId`, twelve digits.
    pub account: String,
    /// `AWS::Region`.
    pub region: String,
    /// Values of parameters, instead of their defaults.
    pub parameters: BTreeMap<String, String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            stack: "bulkhead".to_owned(),
            account: "123456789012".to_owned(),
            region: "us-east-1".to_owned(),
            parameters: BTreeMap::new(),
        }
    }
}

/// Why a template can't be run by the stack.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The template, or a file that it includes, could not be read.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// An intrinsic function that the stack doesn't evaluate.
    #[error("{place}: the local stack doesn't know the intrinsic `{intrinsic}`")]
    UnknownIntrinsic {
        /// The logical id, or the section and name, where it stands.
        place: String,
        /// For example `Fn::ImportValue`.
        intrinsic: String,
    },
    /// A resource type that the stack neither emulates nor knows to need no emulation.
    #[error("{logical_id}: the local stack doesn't know the resource type `{resource_type}`")]
    UnknownResourceType {
        /// The resource.
        logical_id: LogicalId,
        /// For example `AWS::SQS::Queue`.
        resource_type: String,
    },
    /// Anything else that CloudFormation would refuse, or that the stack can't do.
    #[error("{place}: {problem}")]
    Invalid {
        /// The logical id, or the section and name.
        place: String,
        /// What is wrong there, in words.
        problem: String,
    },
}

/// Everything that the template makes, with all intrinsics resolved.
#[derive(Debug, Clone)]
pub struct Template {
    /// The region that all of it is in.
    pub region: String,
    /// The account that owns it.
    pub account: String,
    /// `AWS::Serverless::Function`.
    pub functions: Vec<Function>,
    /// `AWS::DynamoDB::Table`.
    pub tables: Vec<Table>,
    /// `AWS::S3::Bucket`.
    pub buckets: Vec<Bucket>,
    /// `AWS::Bedrock::KnowledgeBase`.
    pub knowledge_bases: Vec<KnowledgeBase>,
    /// `AWS::Bedrock::DataSource`.
    pub data_sources: Vec<DataSource>,
    /// `AWS::Bedrock::Guardrail`.
    pub guardrails: Vec<Guardrail>,
    /// `AWS::Serverless::Api`.
    pub api: Option<Api>,
    /// `AWS::Lambda::Permission`.
    pub permissions: Vec<Permission>,
    /// `AWS::IAM::Role`, and the roles that SAM makes for functions which name none.
    pub roles: Vec<Role>,
    /// `AWS::IAM::Policy`.
    pub policies: Vec<AttachedPolicy>,
    /// `AWS::S3::BucketPolicy`.
    pub bucket_policies: Vec<BucketPolicy>,
    /// The values of the template's `Outputs`.
    pub outputs: BTreeMap<String, Value>,
}

/// A Lambda function.
#[derive(Debug, Clone)]
pub struct Function {
    /// Its name inside the template.
    pub logical_id: LogicalId,
    /// Its physical name.
    pub name: String,
    /// Its ARN, without a qualifier.
    pub arn: String,
    /// The crate that it is built from; the binary has the same name.
    pub package: String,
    /// The variables that the template gives it.
    pub environment: BTreeMap<String, String>,
    /// How long one invocation may take.
    pub timeout: Duration,
    /// Its memory in MB.
    pub memory_mb: u32,
    /// Whether an execution environment serves one tenant only (`TenantIsolationMode: PER_TENANT`).
    pub per_tenant: bool,
    /// The role that its credentials are for.
    pub role: LogicalId,
    /// The log group, `/aws/lambda/{name}` unless `LoggingConfig` names one.
    pub log_group: String,
    /// `LoggingConfig.LogFormat`: `Text` or `JSON`.
    pub log_format: Option<String>,
    /// `LoggingConfig.ApplicationLogLevel`.
    pub log_level: Option<String>,
}

/// Which part of a table's key an attribute is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyType {
    /// The partition key.
    Hash,
    /// The sort key.
    Range,
}

/// One attribute of a table's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The attribute's name.
    pub name: String,
    /// Which part of the key it is.
    pub key_type: KeyType,
    /// `S`, `N` or `B`.
    pub attribute_type: String,
}

/// A DynamoDB table.
#[derive(Debug, Clone)]
pub struct Table {
    /// Its name inside the template.
    pub logical_id: LogicalId,
    /// Its physical name.
    pub name: String,
    /// Its ARN.
    pub arn: String,
    /// The partition key, and the sort key where there is one.
    pub key: Vec<Key>,
    /// The attribute that holds the time of expiry, where time-to-live is on.
    pub ttl_attribute: Option<String>,
}

/// An S3 bucket.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// Its name inside the template.
    pub logical_id: LogicalId,
    /// Its physical name.
    pub name: String,
    /// Its ARN.
    pub arn: String,
    /// All of its properties, as CloudFormation would read them.
    pub properties: Value,
}

/// A knowledge base.
#[derive(Debug, Clone)]
pub struct KnowledgeBase {
    /// Its name inside the template.
    pub logical_id: LogicalId,
    /// Ten capital letters and digits.
    pub id: String,
    /// Its ARN.
    pub arn: String,
    /// All of its properties, as CloudFormation would read them.
    pub properties: Value,
}

/// A data source of a knowledge base, which reads a bucket.
#[derive(Debug, Clone)]
pub struct DataSource {
    /// Its name inside the template.
    pub logical_id: LogicalId,
    /// Ten capital letters and digits.
    pub id: String,
    /// The id of its knowledge base.
    pub knowledge_base: String,
    /// The name of the bucket that it reads.
    pub bucket: String,
    /// Only keys that start with this are read; everything when there is none. AWS allows one at most.
    pub inclusion_prefix: Option<String>,
    /// All of its properties, as CloudFormation would read them.
    pub properties: Value,
}

/// The REST API.
#[derive(Debug, Clone)]
pub struct Api {
    /// Its name inside the template.
    pub logical_id: LogicalId,
    /// The API's id, the first label of its host name on AWS.
    pub id: String,
    /// The stage's name, which is in every event and ARN.
    pub stage: String,
    /// The contract, with all intrinsics resolved.
    pub contract: Value,
    /// All other properties (method settings, stage variables, …), as SAM would read them.
    pub properties: Value,
}

/// A statement of a function's resource policy.
#[derive(Debug, Clone)]
pub struct Permission {
    /// Its name inside the template.
    pub logical_id: LogicalId,
    /// The function that may be called.
    pub function: LogicalId,
    /// What may be done, for example `lambda:InvokeFunction`.
    pub action: String,
    /// Who may do it, for example `apigateway.amazonaws.com`.
    pub principal: String,
    /// On whose behalf; `*` and `?` are wildcards.
    pub source_arn: Option<String>,
}

/// A role.
#[derive(Debug, Clone)]
pub struct Role {
    /// Its name inside the template.
    pub logical_id: LogicalId,
    /// Its ARN.
    pub arn: String,
    /// `Policies`, `AssumeRolePolicyDocument`, … as CloudFormation (or SAM) would read them.
    pub properties: Value,
}

/// AWS's policy for what API Gateway logs with. It allows nothing that is emulated, so that leaving it out allows no more.
const GATEWAY_LOGS: &str = ":iam::aws:policy/service-role/AmazonAPIGatewayPushToCloudWatchLogs";

impl Role {
    /// The policies within the role: names and documents.
    ///
    /// # Errors
    /// The role has permissions that can't be told from the template, or a policy has no name or no document.
    pub fn policies(&self) -> Result<Vec<(String, Value)>, TemplateError> {
        let Value::Object(map) = &self.properties else {
            return Ok(Vec::new());
        };
        let properties = Properties::new(self.logical_id.as_str(), map.clone());
        if properties.get("PermissionsBoundary").is_some() {
            return Err(properties.invalid("PermissionsBoundary is not emulated"));
        }
        let managed = properties.texts("ManagedPolicyArns")?;
        if let Some(arn) = managed.iter().find(|arn| !arn.ends_with(GATEWAY_LOGS)) {
            return Err(properties.invalid(&format!("the managed policy {arn} is not emulated")));
        }
        if properties.get("Policies").is_none_or(Value::is_null) {
            return Ok(Vec::new());
        }
        let mut policies = Vec::new();
        for policy in properties.objects("Policies")? {
            let document = policy.required_object("PolicyDocument")?;
            policies.push((policy.required_text("PolicyName")?, document.into_value()));
        }
        Ok(policies)
    }
}

/// A policy that is attached to roles from outside.
#[derive(Debug, Clone)]
pub struct AttachedPolicy {
    /// Its name inside the template.
    pub logical_id: LogicalId,
    /// `PolicyName`.
    pub name: String,
    /// The roles' physical names.
    pub roles: Vec<String>,
    /// `PolicyDocument`.
    pub document: Value,
}

/// A bucket's own policy.
#[derive(Debug, Clone)]
pub struct BucketPolicy {
    /// Its name inside the template.
    pub logical_id: LogicalId,
    /// The bucket's name.
    pub bucket: String,
    /// `PolicyDocument`.
    pub document: Value,
}

impl Template {
    /// Reads the template at `path`, and the files that it includes.
    ///
    /// # Errors
    /// When it can't be read, or names anything that the stack doesn't know.
    pub fn load(path: &Path, settings: &Settings) -> Result<Self, TemplateError> {
        let document = document::load(path, ShortForm::Accepted)?;
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        Self::from_document(&document, folder, settings)
    }

    /// Interprets a template that has been read already; `folder` is what included files are relative to.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn from_document(document: &Value, folder: &Path, settings: &Settings) -> Result<Self, TemplateError> {
        let scope = Scope::new(document, folder, settings)?;
        let mut template = Self {
            region: settings.region.clone(),
            account: settings.account.clone(),
            functions: Vec::new(),
            tables: Vec::new(),
            buckets: Vec::new(),
            knowledge_bases: Vec::new(),
            data_sources: Vec::new(),
            guardrails: Vec::new(),
            api: None,
            permissions: Vec::new(),
            roles: Vec::new(),
            policies: Vec::new(),
            bucket_policies: Vec::new(),
            outputs: scope.outputs()?,
        };
        // What others point at by physical name is read first.
        let mut later = Vec::new();
        for id in scope.resources() {
            let kind = scope.kind(id)?;
            let properties = Properties::new(id, scope.properties(id)?);
            match kind {
                Kind::Table => template.tables.push(table(&scope, &properties)?),
                Kind::Bucket => template.buckets.push(Bucket {
                    logical_id: LogicalId::new(id),
                    name: scope.reference_text(id)?,
                    arn: scope.attribute_text(id, "Arn")?,
                    properties: properties.into_value(),
                }),
                Kind::KnowledgeBase => template.knowledge_bases.push(KnowledgeBase {
                    logical_id: LogicalId::new(id),
                    id: scope.attribute_text(id, "KnowledgeBaseId")?,
                    arn: scope.attribute_text(id, "KnowledgeBaseArn")?,
                    properties: properties.into_value(),
                }),
                Kind::Guardrail => template.guardrails.push(guardrail(&scope, &properties)?),
                Kind::Role => template.roles.push(Role {
                    logical_id: LogicalId::new(id),
                    arn: scope.attribute_text(id, "Arn")?,
                    properties: properties.into_value(),
                }),
                Kind::Policy => {
                    properties.only(&["PolicyDocument", "PolicyName", "Roles"])?;
                    template.policies.push(AttachedPolicy {
                        logical_id: LogicalId::new(id),
                        name: properties.required_text("PolicyName")?,
                        roles: properties.texts("Roles")?,
                        document: properties.required_object("PolicyDocument")?.into_value(),
                    });
                }
                Kind::BucketPolicy => template.bucket_policies.push(BucketPolicy {
                    logical_id: LogicalId::new(id),
                    bucket: properties.required_text("Bucket")?,
                    document: properties.required_object("PolicyDocument")?.into_value(),
                }),
                Kind::Api => {
                    if template.api.is_some() {
                        return Err(properties.invalid("the local stack runs one API only"));
                    }
                    template.api = Some(api(&scope, properties)?);
                }
                Kind::Function | Kind::DataSource | Kind::GuardrailVersion | Kind::Permission => {
                    later.push((kind, properties))
                }
                Kind::NotEmulated(_) => {}
            }
        }
        for (kind, properties) in &later {
            if *kind == Kind::Function {
                template.add_function(&scope, properties)?;
            }
        }
        for (kind, properties) in &later {
            match kind {
                Kind::DataSource => {
                    let source = template.data_source(&scope, properties)?;
                    template.data_sources.push(source);
                }
                Kind::GuardrailVersion => template.add_guardrail_version(&scope, properties)?,
                Kind::Permission => {
                    let permission = template.permission(properties)?;
                    template.permissions.push(permission);
                }
                _ => {}
            }
        }
        Ok(template)
    }

    /// The function with this logical id.
    #[must_use]
    pub fn function(&self, id: &LogicalId) -> Option<&Function> {
        self.functions.iter().find(|function| function.logical_id == *id)
    }

    /// The function with this ARN, which is how the contract's integrations name it.
    #[must_use]
    pub fn function_by_arn(&self, arn: &str) -> Option<&Function> {
        self.functions.iter().find(|function| function.arn == arn)
    }

    /// The crates that the functions are built from.
    #[must_use]
    pub fn packages(&self) -> BTreeSet<String> {
        self.functions.iter().map(|function| function.package.clone()).collect()
    }

    /// Puts each of `variables` over the value in every function that the template gives a variable of that name,
    /// and returns the names that no function has.
    ///
    /// Functions which don't declare a variable don't get it: on AWS they would not either.
    pub fn override_environment(&mut self, variables: &BTreeMap<String, String>) -> Vec<String> {
        let mut unused = Vec::new();
        for (name, value) in variables {
            let mut used = false;
            for function in &mut self.functions {
                if let Some(current) = function.environment.get_mut(name) {
                    value.clone_into(current);
                    used = true;
                }
            }
            if !used {
                unused.push(name.clone());
            }
        }
        unused
    }

    fn add_function(&mut self, scope: &Scope<'_>, properties: &Properties) -> Result<(), TemplateError> {
        properties.only(&FUNCTION_PROPERTIES)?;
        let id = properties.logical_id();
        let role = match properties.text("Role")? {
            Some(arn) => match self.roles.iter().find(|role| role.arn == arn) {
                Some(role) => role.logical_id.clone(),
                None => return Err(properties.invalid(&format!("no role of this template has the ARN {arn}"))),
            },
            // SAM makes a role with this logical id for a function that names none.
            None => {
                let logical_id = format!("{id}Role");
                let policies = properties.get("Policies").cloned().unwrap_or(Value::Null);
                self.roles.push(Role {
                    arn: scope.attribute_text(&logical_id, "Arn")?,
                    logical_id: LogicalId::new(logical_id.clone()),
                    properties: Value::Object(Map::from_iter([("Policies".to_owned(), policies)])),
                });
                LogicalId::new(logical_id)
            }
        };
        let per_tenant = match properties.object("TenancyConfig")? {
            Some(config) => match config.text("TenantIsolationMode")?.as_deref() {
                Some("PER_TENANT") => true,
                other => return Err(config.invalid(&format!("TenantIsolationMode is PER_TENANT only, not {other:?}"))),
            },
            None => false,
        };
        let mut environment = BTreeMap::new();
        if let Some(variables) = properties.object("Environment")?
            && let Some(variables) = variables.object("Variables")?
        {
            for name in variables.names() {
                environment.insert(name.to_owned(), variables.required_text(name)?);
            }
        }
        let logging = properties.object("LoggingConfig")?;
        let logging_text = |name: &str| match &logging {
            Some(logging) => logging.text(name),
            None => Ok(None),
        };
        let name = scope.reference_text(id)?;
        let function = Function {
            logical_id: LogicalId::new(id),
            log_group: logging_text("LogGroup")?.unwrap_or_else(|| format!("/aws/lambda/{name}")),
            name,
            arn: scope.attribute_text(id, "Arn")?,
            package: package(scope, properties)?,
            environment,
            // The defaults are Lambda's: 3 s and 128 MB.
            timeout: Duration::from_secs(u64::from(properties.number("Timeout")?.unwrap_or(3))),
            memory_mb: properties.number("MemorySize")?.unwrap_or(128),
            per_tenant,
            role,
            log_format: logging_text("LogFormat")?,
            log_level: logging_text("ApplicationLogLevel")?,
        };
        // Lambda's quota; a template may say more and would then fail when it is used.
        if function.timeout.is_zero() || function.timeout > Duration::from_secs(900) {
            return Err(properties.invalid("Timeout must be 1 to 900 seconds"));
        }
        self.functions.push(function);
        Ok(())
    }

    fn data_source(&self, scope: &Scope<'_>, properties: &Properties) -> Result<DataSource, TemplateError> {
        let id = properties.logical_id();
        let configuration = properties.required_object("DataSourceConfiguration")?;
        let source_type = configuration.required_text("Type")?;
        if source_type != "S3" {
            return Err(properties.invalid(&format!("data sources of type {source_type} are not emulated")));
        }
        let s3 = configuration.required_object("S3Configuration")?;
        let bucket_arn = s3.required_text("BucketArn")?;
        let bucket = match self.buckets.iter().find(|bucket| bucket.arn == bucket_arn) {
            Some(bucket) => bucket.name.clone(),
            None => return Err(properties.invalid(&format!("no bucket of this template has the ARN {bucket_arn}"))),
        };
        let knowledge_base = properties.required_text("KnowledgeBaseId")?;
        if !self.knowledge_bases.iter().any(|base| base.id == knowledge_base) {
            return Err(properties.invalid(&format!("{knowledge_base} is no knowledge base of this template")));
        }
        let mut prefixes = s3.texts("InclusionPrefixes")?;
        if prefixes.len() > 1 {
            return Err(properties.invalid("Bedrock allows one inclusion prefix at most"));
        }
        Ok(DataSource {
            logical_id: LogicalId::new(id),
            id: scope.attribute_text(id, "DataSourceId")?,
            knowledge_base,
            bucket,
            inclusion_prefix: prefixes.pop(),
            properties: properties.clone().into_value(),
        })
    }

    fn add_guardrail_version(&mut self, scope: &Scope<'_>, properties: &Properties) -> Result<(), TemplateError> {
        let identifier = properties.required_text("GuardrailIdentifier")?;
        let version = scope.attribute_text(properties.logical_id(), "Version")?;
        let mut guardrails = self.guardrails.iter_mut();
        match guardrails.find(|guardrail| guardrail.id == identifier || guardrail.arn == identifier) {
            // They would be numbered in the order in which they were made, which a template does not tell.
            Some(guardrail) if !guardrail.versions.is_empty() => {
                Err(properties.invalid("a second version of a guardrail is not emulated"))
            }
            Some(guardrail) => {
                guardrail.versions.push(version);
                Ok(())
            }
            None => Err(properties.invalid(&format!("{identifier} is no guardrail of this template"))),
        }
    }

    fn permission(&self, properties: &Properties) -> Result<Permission, TemplateError> {
        let target = properties.required_text("FunctionName")?;
        let function = self
            .functions
            .iter()
            .find(|function| function.name == target || function.arn == target)
            .ok_or_else(|| properties.invalid(&format!("{target} is no function of this template")))?;
        Ok(Permission {
            logical_id: LogicalId::new(properties.logical_id()),
            function: function.logical_id.clone(),
            action: properties.required_text("Action")?,
            principal: properties.required_text("Principal")?,
            source_arn: properties.text("SourceArn")?,
        })
    }
}

/// What a function of the template may say. Others (events, layers, aliases, function URLs, …) would change how it is
/// invoked, which the stack doesn't do. Reserved concurrency is taken and not kept to: the stack has limits of its own.
const FUNCTION_PROPERTIES: [&str; 19] = [
    "Architectures",
    "CodeUri",
    "Description",
    "Environment",
    "FunctionName",
    "Handler",
    "LoggingConfig",
    "MemorySize",
    "PackageType",
    "PermissionsBoundary",
    "Policies",
    "PropagateTags",
    "ReservedConcurrentExecutions",
    "Role",
    "Runtime",
    "Tags",
    "TenancyConfig",
    "Timeout",
    "Tracing",
];

/// The crate that a function is built from: what its `Metadata` tells cargo-lambda, else the folder that holds its code.
fn package(scope: &Scope<'_>, properties: &Properties) -> Result<String, TemplateError> {
    let id = properties.logical_id();
    if let Some(metadata) = scope.metadata(id)? {
        let metadata = Properties::new(id, metadata);
        if let Some(build) = metadata.object("BuildProperties")?
            && let Some(binary) = build.text("Binary")?
        {
            return Ok(binary);
        }
    }
    let code = properties.required_text("CodeUri")?;
    Path::new(&code)
        .file_name()
        .and_then(|name| name.to_str())
        .map(ToOwned::to_owned)
        .ok_or_else(|| properties.invalid(&format!("CodeUri {code} names no folder of a crate")))
}

fn table(scope: &Scope<'_>, properties: &Properties) -> Result<Table, TemplateError> {
    let id = properties.logical_id();
    for index in ["GlobalSecondaryIndexes", "LocalSecondaryIndexes"] {
        if properties.get(index).is_some() {
            return Err(properties.invalid(&format!("{index} are not emulated")));
        }
    }
    let mut types = BTreeMap::new();
    for attribute in properties.objects("AttributeDefinitions")? {
        types.insert(
            attribute.required_text("AttributeName")?,
            attribute.required_text("AttributeType")?,
        );
    }
    let mut key = Vec::new();
    for part in properties.objects("KeySchema")? {
        let name = part.required_text("AttributeName")?;
        let key_type = match part.required_text("KeyType")?.as_str() {
            "HASH" => KeyType::Hash,
            "RANGE" => KeyType::Range,
            other => return Err(properties.invalid(&format!("{other} is no KeyType"))),
        };
        let attribute_type = types
            .remove(&name)
            .ok_or_else(|| properties.invalid(&format!("the key {name} has no AttributeDefinition")))?;
        key.push(Key {
            name,
            key_type,
            attribute_type,
        });
    }
    if !matches!(key.first().map(|first| first.key_type), Some(KeyType::Hash)) {
        return Err(properties.invalid("KeySchema must start with the HASH key"));
    }
    if let Some(name) = types.keys().next() {
        return Err(properties.invalid(&format!("{name} is defined and no part of the key")));
    }
    let ttl_attribute = match properties.object("TimeToLiveSpecification")? {
        Some(ttl) if ttl.flag("Enabled")?.unwrap_or(false) => Some(ttl.required_text("AttributeName")?),
        _ => None,
    };
    Ok(Table {
        logical_id: LogicalId::new(id),
        name: scope.reference_text(id)?,
        arn: scope.attribute_text(id, "Arn")?,
        key,
        ttl_attribute,
    })
}

fn guardrail(scope: &Scope<'_>, properties: &Properties) -> Result<Guardrail, TemplateError> {
    // The two after the messages are not emulated, see the guardrail's module.
    properties.only(&[
        "BlockedInputMessaging",
        "BlockedOutputsMessaging",
        "ContentPolicyConfig",
        "ContextualGroundingPolicyConfig",
        "Description",
        "KmsKeyArn",
        "Name",
        "SensitiveInformationPolicyConfig",
        "Tags",
        "WordPolicyConfig",
    ])?;
    properties.required_text("Name")?;
    let id = properties.logical_id();
    let mut words = Vec::new();
    if let Some(policy) = properties.object("WordPolicyConfig")? {
        policy.only(&["WordsConfig"])?;
        for word in policy.objects("WordsConfig")? {
            words.push(Word {
                text: word.required_text("Text")?,
                actions: actions(&word, Action::Block)?,
            });
        }
    }
    let mut emails = None;
    if let Some(policy) = properties.object("SensitiveInformationPolicyConfig")? {
        policy.only(&["PiiEntitiesConfig"])?;
        for entity in policy.objects("PiiEntitiesConfig")? {
            let kind = entity.required_text("Type")?;
            let action = action(&entity, &entity.required_text("Action")?)?;
            let actions = actions(&entity, action)?;
            if kind == "EMAIL" {
                emails = Some(actions);
            } else if !UNGUARDED.contains(&kind.as_str()) {
                return Err(properties.invalid(&format!("the local stack doesn't know the personal data {kind}")));
            }
        }
    }
    const STRENGTHS: &[&str] = &["NONE", "LOW", "MEDIUM", "HIGH"];
    let strengths: [(&str, &[&str]); 2] = [("InputStrength", STRENGTHS), ("OutputStrength", &["NONE"])];
    filters(properties, "ContentPolicyConfig", &["PROMPT_ATTACK"], &strengths)?;
    let grounding = ["GROUNDING", "RELEVANCE"];
    filters(
        properties,
        "ContextualGroundingPolicyConfig",
        &grounding,
        &[("Threshold", &[])],
    )?;
    Ok(Guardrail {
        id: scope.attribute_text(id, "GuardrailId")?,
        arn: scope.attribute_text(id, "GuardrailArn")?,
        versions: Vec::new(),
        words,
        emails,
        blocked_input: properties.required_text("BlockedInputMessaging")?,
        blocked_output: properties.required_text("BlockedOutputsMessaging")?,
    })
}

/// Personal data and secrets that a guardrail may look for, and this one does not find.
const UNGUARDED: [&str; 7] = [
    "AWS_ACCESS_KEY",
    "AWS_SECRET_KEY",
    "CREDIT_DEBIT_CARD_CVV",
    "CREDIT_DEBIT_CARD_NUMBER",
    "PASSWORD",
    "PIN",
    "US_SOCIAL_SECURITY_NUMBER",
];

/// A policy's filters, each of which must be one of these and say how strict it is in `strictness`.
fn filters(
    properties: &Properties,
    policy: &str,
    known: &[&str],
    strictness: &[(&str, &[&str])],
) -> Result<(), TemplateError> {
    let Some(policy) = properties.object(policy)? else {
        return Ok(());
    };
    policy.only(&["FiltersConfig"])?;
    for filter in policy.objects("FiltersConfig")? {
        let kind = filter.required_text("Type")?;
        if !known.contains(&kind.as_str()) {
            return Err(filter.invalid(&format!("the local stack doesn't know the filter {kind}")));
        }
        let mut names = vec!["Type"];
        for (name, allowed) in strictness {
            names.push(name);
            let value = filter.required_text(name)?;
            if !allowed.is_empty() && !allowed.contains(&value.as_str()) {
                return Err(filter.invalid(&format!("{name} of {kind} can't be {value}")));
            }
        }
        filter.only(&names)?;
    }
    Ok(())
}

/// What is done about a finding on either side, where that differs from the usual; a side that is not enabled is not
/// looked at.
fn actions(properties: &Properties, usual: Action) -> Result<Actions, TemplateError> {
    let side = |enabled: &str, chosen: &str| match (properties.flag(enabled)?, properties.text(chosen)?) {
        (Some(false), _) => Ok(Action::None),
        (_, Some(name)) => action(properties, &name),
        (_, None) => Ok(usual),
    };
    Ok(Actions {
        input: side("InputEnabled", "InputAction")?,
        output: side("OutputEnabled", "OutputAction")?,
    })
}

fn action(properties: &Properties, name: &str) -> Result<Action, TemplateError> {
    match name {
        "NONE" => Ok(Action::None),
        "BLOCK" => Ok(Action::Block),
        "ANONYMIZE" => Ok(Action::Mask),
        _ => Err(properties.invalid(&format!("{name} is nothing that a guardrail does"))),
    }
}

fn api(scope: &Scope<'_>, properties: Properties) -> Result<Api, TemplateError> {
    for refused in [
        "Auth",
        "Cors",
        "Models",
        "GatewayResponses",
        "DefinitionUri",
        "BinaryMediaTypes",
    ] {
        if properties.get(refused).is_some() {
            return Err(properties.invalid(&format!("{refused} belongs into the contract")));
        }
    }
    let logical_id = LogicalId::new(properties.logical_id());
    let stage = properties.required_text("StageName")?;
    let id = scope.reference_text(properties.logical_id())?;
    let contract = match properties.get("DefinitionBody") {
        Some(body @ Value::Object(_)) => body.clone(),
        _ => return Err(properties.invalid("DefinitionBody must be the contract")),
    };
    let mut rest = properties.into_map();
    rest.remove("DefinitionBody");
    Ok(Api {
        logical_id,
        id,
        stage,
        contract,
        properties: Value::Object(rest),
    })
}

#[cfg(test)]
mod tests;
