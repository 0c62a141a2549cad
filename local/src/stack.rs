//! The local stack as a whole: every emulator, made from the template and the contract, wired to each other.
//!
//! `up` and the integration suite start the same [`Stack`]. It knows AWS and our contract and nothing of the functions'
//! code; what they are told is what AWS would tell them. Not here: what is done with a running stack (`command`).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::Value;
use uuid::Uuid;

use crate::authority::{Authority, OnDecision};
use crate::credential::{Caller, IssuedCredential};
use crate::directory::DataDirectory;
use crate::dynamodb::{DynamoDb, TableSpec};
use crate::event_stream::Pace;
use crate::front_door::{FrontDoor, FrontDoorConfig, Services};
use crate::gateway::{self, Gateway, GatewayConfig};
use crate::guardrail::{Guardrail, Guardrails};
use crate::identity::{self, Identity};
use crate::invocation_logging::InvocationLogging;
use crate::knowledge_base::{KnowledgeBase, KnowledgeBaseConfig};
use crate::lambda::{self, Lambda};
use crate::model::{Models, ModelsConfig};
use crate::object::{Object, ObjectEntry, ObjectStore};
use crate::parameter_store::ParameterStore;
use crate::s3::S3Store;
use crate::template::{Function, KeyType, LogicalId, Settings, Template};

/// The variable that names the trusted issuers; the stack's own is appended to it.
const ISSUERS: &str = "BULKHEAD_ISSUERS";

/// What a test changes before the stack uses it.
pub type Change<T> = Box<dyn FnOnce(&mut T) + Send>;

/// How a stack is made.
pub struct StackConfig {
    /// The gateway's port on 127.0.0.1, or 0 for any that is free.
    pub port: u16,
    /// Where state is kept, or `None` for a stack that forgets.
    pub data: Option<PathBuf>,
    /// The folder of the function binaries.
    pub binaries: PathBuf,
    /// The template; the contract is the one that it includes.
    pub template: PathBuf,
    /// Values of the template's parameters instead of their defaults.
    pub parameters: BTreeMap<String, String>,
    /// Guardrails that exist beside the template's.
    pub guardrails: Vec<Guardrail>,
    /// How fast models speak.
    pub pace: Pace,
    /// Values that functions are given instead of the template's, by the variable's name.
    pub variables: BTreeMap<String, String>,
    /// A file that the functions' output is appended to.
    pub log_file: Option<PathBuf>,
    /// Changes the contract before it is executed: for tests that take a lock away.
    pub change_contract: Option<Change<Value>>,
    /// Changes how the knowledge base is set up.
    pub change_knowledge_base: Option<Change<KnowledgeBaseConfig>>,
    /// What a function that streams notices of a client who has gone; [`Lambda::set_departure`] changes it for a tenant.
    pub departure: lambda::Departure,
    /// Changes how models answer.
    pub change_models: Option<Change<ModelsConfig>>,
    /// Changes how functions are run.
    pub change_lambda: Option<Change<lambda::Settings>>,
    /// Statements of the template's policies to run without, as `Role/Policy/Sid`.
    pub without_statements: Vec<String>,
    /// Is told of the statements that decide calls.
    pub on_decision: Option<OnDecision>,
}

impl StackConfig {
    /// A stack of the repository's own template on any free port that forgets everything.
    pub fn new(binaries: impl Into<PathBuf>) -> Self {
        Self {
            port: 0,
            data: None,
            binaries: binaries.into(),
            template: Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/template.yaml"),
            parameters: BTreeMap::new(),
            guardrails: Vec::new(),
            pace: Pace::AT_ONCE,
            variables: BTreeMap::new(),
            log_file: None,
            change_contract: None,
            change_knowledge_base: None,
            departure: lambda::Departure::default(),
            change_models: None,
            change_lambda: None,
            without_statements: Vec::new(),
            on_decision: None,
        }
    }

    /// Makes this guardrail, and has the template's functions use its version 1.
    pub fn guard(&mut self, guardrail: Guardrail) {
        let parameter = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        self.parameters.extend([
            parameter("GuardrailId", &guardrail.id),
            parameter("GuardrailVersion", "1"),
        ]);
        self.guardrails.push(guardrail);
    }
}

/// A running stack.
pub struct Stack {
    gateway: Gateway,
    front_door: FrontDoor,
    knowledge_base: KnowledgeBase,
    models: Models,
    invocation_logging: InvocationLogging,
    parameters: Arc<ParameterStore>,
    lambda: Arc<Lambda>,
    identity: Identity,
    template: Template,
    /// Released when the stack is gone, so that another may take the directory.
    _directory: DataDirectory,
}

impl Stack {
    /// Starts every emulator.
    ///
    /// # Errors
    /// The template or the contract holds what the stack does not know, a port is taken, a binary is missing, or another
    /// stack uses the data directory.
    pub async fn start(mut config: StackConfig) -> anyhow::Result<Self> {
        let directory = DataDirectory::open(config.data.as_deref())?;
        let settings = Settings {
            parameters: std::mem::take(&mut config.parameters),
            ..Settings::default()
        };
        let mut template = Template::load(&config.template, &settings).context("the template can't be executed")?;
        let authority = Authority::new(&template, &config.without_statements, config.on_decision.take());
        let authority = Arc::new(authority.context("the template's policies can't be evaluated")?);
        let s3 = Arc::new(match directory.path("s3") {
            Some(path) => S3Store::open(&path)?,
            None => S3Store::ephemeral()?,
        });
        for bucket in &template.buckets {
            s3.create_bucket(&bucket.name)?;
        }
        let dynamodb = Arc::new(match directory.path("table.sqlite") {
            Some(path) => DynamoDb::open(&path)?,
            None => DynamoDb::ephemeral()?,
        });
        for table in &template.tables {
            let key = |key_type| {
                table
                    .key
                    .iter()
                    .find(|key| key.key_type == key_type)
                    .map(|key| key.name.clone())
            };
            dynamodb.create_table(&TableSpec {
                name: table.name.clone(),
                partition_key: key(KeyType::Hash).context("a table without a partition key")?,
                sort_key: key(KeyType::Range),
                ttl: table.ttl_attribute.clone(),
            })?;
        }
        let [data_source] = template.data_sources.as_slice() else {
            bail!(
                "the stack runs exactly one data source, and the template has {}",
                template.data_sources.len()
            )
        };
        let mut knowledge_base = KnowledgeBaseConfig::new(
            &template.account,
            &template.region,
            &data_source.knowledge_base,
            &data_source.id,
            &data_source.bucket,
            data_source.inclusion_prefix.as_deref().unwrap_or_default(),
        );
        knowledge_base.data = directory.path("knowledge-base");
        let guardrails = Guardrails::new([template.guardrails.clone(), config.guardrails].concat());
        let mut models = ModelsConfig {
            pace: config.pace,
            guardrails: guardrails.clone(),
            ..ModelsConfig::new(&template.region)
        };
        if let Some(change) = config.change_models.take() {
            change(&mut models);
        }
        knowledge_base.guardrails = guardrails;
        knowledge_base.generator = models.model.clone();
        knowledge_base.pace = config.pace;
        if let Some(change) = config.change_knowledge_base.take() {
            change(&mut knowledge_base);
        }
        let guardrails = knowledge_base.guardrails.clone();
        let reader = RoleReader {
            store: Arc::clone(&s3),
            authority: Arc::clone(&authority),
            role: template
                .knowledge_bases
                .iter()
                .find(|base| base.id == data_source.knowledge_base)
                .and_then(|base| base.properties.get("RoleArn").and_then(Value::as_str))
                .context("the knowledge base has no role")?
                .to_owned(),
        };
        let knowledge_base = KnowledgeBase::start(knowledge_base, Arc::new(reader))?;
        let models = Models::new(models);
        let invocation_logging = InvocationLogging::new();
        let parameters = Arc::new(ParameterStore::new(&template.account, &template.region));
        let front_door = FrontDoor::start(
            FrontDoorConfig {
                authority: Some(Arc::clone(&authority)),
                region: template.region.clone(),
                account: template.account.clone(),
                ..FrontDoorConfig::default()
            },
            Services {
                s3,
                dynamodb,
                bedrock: vec![
                    Arc::new(knowledge_base.clone()),
                    Arc::new(models.clone()),
                    Arc::new(guardrails),
                    Arc::new(invocation_logging.clone()),
                ],
                ssm: Arc::clone(&parameters),
            },
        )
        .await?;
        let identity = Identity::start(identity::Settings {
            folder: directory.path("identity"),
            ..identity::Settings::default()
        })
        .await?;

        config
            .variables
            .insert(ISSUERS.to_owned(), issuers(config.variables.get(ISSUERS), &identity)?);
        let unknown = template.override_environment(&config.variables);
        if !unknown.is_empty() {
            bail!("no function of the template has the variables {}", unknown.join(", "));
        }
        let credentials = front_door.credentials().clone();
        let mut settings = lambda::Settings::new(
            &config.binaries,
            Arc::new(move |function: &Function, tenant: Option<&str>| {
                credentials.issue(Caller {
                    principal: function.logical_id.as_str().to_owned(),
                    tenant: tenant.map(str::to_owned),
                    ..Caller::default()
                })
            }),
        );
        settings.region = template.region.clone();
        settings.endpoint_url = Some(front_door.endpoint());
        settings.log_file = config.log_file.take();
        settings.departure = config.departure;
        if let Some(change) = config.change_lambda.take() {
            change(&mut settings);
        }
        let lambda = Arc::new(Lambda::new(&template.functions, settings)?);

        let api = template.api.clone().context("the template has no API")?;
        let mut contract = api.contract;
        if let Some(change) = config.change_contract.take() {
            change(&mut contract);
        }
        let invoke = Functions {
            lambda: Arc::clone(&lambda),
            template: template.clone(),
        };
        let gateway = Gateway::start(
            GatewayConfig {
                listen: SocketAddr::from((Ipv4Addr::LOCALHOST, config.port)),
                stage: api.stage,
                account: template.account.clone(),
                region: template.region.clone(),
                api_id: api.id,
                ..GatewayConfig::new(contract)
            },
            Arc::new(invoke),
        )
        .await?;
        Ok(Self {
            gateway,
            front_door,
            knowledge_base,
            models,
            invocation_logging,
            parameters,
            lambda,
            identity,
            template,
            _directory: directory,
        })
    }

    /// The gateway's base URL, stage included, without a slash at its end.
    pub fn base_url(&self) -> String {
        self.gateway.base_url()
    }

    /// The gateway.
    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// The door to the fakes of AWS: its credentials, faults and records.
    pub fn front_door(&self) -> &FrontDoor {
        &self.front_door
    }

    /// The knowledge base, with its manners and what it was asked.
    pub fn knowledge_base(&self) -> &KnowledgeBase {
        &self.knowledge_base
    }

    /// The models, with the scripts of single tenants and what they were asked.
    pub fn models(&self) -> &Models {
        &self.models
    }

    /// Bedrock's model invocation logging.
    pub fn invocation_logging(&self) -> &InvocationLogging {
        &self.invocation_logging
    }

    /// The parameters.
    pub fn parameters(&self) -> &ParameterStore {
        &self.parameters
    }

    /// The functions' processes and their output.
    pub fn lambda(&self) -> &Lambda {
        &self.lambda
    }

    /// The identity provider.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What the template makes.
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// Credentials of a function's role, as its environments have; `None` for what is no function of the template.
    pub fn function_credential(&self, function: &LogicalId) -> Option<IssuedCredential> {
        let function = self.template.function(function)?;
        Some(self.front_door.credentials().issue(Caller {
            principal: function.logical_id.as_str().to_owned(),
            ..Caller::default()
        }))
    }

    /// Stops everything and waits until every child process is gone.
    pub async fn stop(self) {
        self.gateway.shutdown().await;
        self.lambda.stop().await;
        drop(self.identity);
        self.front_door.shutdown().await;
        self.knowledge_base.shutdown().await;
    }
}

/// The buckets, as the knowledge base's role may read them.
struct RoleReader {
    store: Arc<S3Store>,
    authority: Arc<Authority>,
    role: String,
}

impl RoleReader {
    fn authorize(&self, action: &str, resource: &str) -> anyhow::Result<()> {
        self.authority
            .authorize_service(&self.role, action, resource)
            .map_err(|denial| {
                denial.log();
                anyhow::anyhow!("{denial}")
            })
    }
}

impl ObjectStore for RoleReader {
    fn get(&self, bucket: &str, key: &str) -> anyhow::Result<Option<Object>> {
        self.authorize("s3:GetObject", &format!("arn:aws:s3:::{bucket}/{key}"))?;
        self.store.get(bucket, key)
    }

    fn list(&self, bucket: &str, prefix: &str) -> anyhow::Result<Vec<ObjectEntry>> {
        self.authorize("s3:ListBucket", &format!("arn:aws:s3:::{bucket}"))?;
        self.store.list(bucket, prefix)
    }
}

/// The configured issuers, with the stack's own appended.
fn issuers(configured: Option<&String>, identity: &Identity) -> anyhow::Result<String> {
    let text = configured.map_or("[]", String::as_str);
    let mut issuers: Vec<Value> =
        serde_json::from_str(text).with_context(|| format!("{ISSUERS} is not a JSON array"))?;
    issuers.push(identity.issuer_entry());
    Ok(serde_json::to_string(&issuers)?)
}

/// The functions as the gateway calls them, by ARN, where their resource policies let it in.
struct Functions {
    lambda: Arc<Lambda>,
    template: Template,
}

impl gateway::Invoke for Functions {
    fn invoke<'a>(
        &'a self,
        function_arn: &'a str,
        tenant: Option<&'a str>,
        payload: Bytes,
    ) -> BoxFuture<'a, Result<gateway::Outcome, gateway::InvokeError>> {
        Box::pin(async move {
            let function = self.function(function_arn)?;
            match self.lambda.invoke(function, tenant, payload).await {
                Ok(lambda::Outcome::Buffered(bytes)) => Ok(gateway::Outcome::Buffered(bytes)),
                Ok(lambda::Outcome::FunctionError(bytes)) => Ok(gateway::Outcome::FunctionError(bytes)),
                Err(error) => Err(refusal(&error)),
            }
        })
    }

    fn invoke_with_response_stream<'a>(
        &'a self,
        function_arn: &'a str,
        tenant: Option<&'a str>,
        payload: Bytes,
    ) -> BoxFuture<'a, Result<gateway::PayloadStream, gateway::InvokeError>> {
        Box::pin(async move {
            let function = self.function(function_arn)?;
            let begun = self.lambda.invoke_with_response_stream(function, tenant, payload);
            let pieces = begun.await.map_err(|error| refusal(&error))?;
            let failed = |error: lambda::StreamError| gateway::FunctionFailed {
                document: error.document,
            };
            Ok(pieces.map_err(failed).boxed())
        })
    }
}

/// Why Lambda did not run a function, in the gateway's words.
fn refusal(error: &lambda::InvokeError) -> gateway::InvokeError {
    match error {
        lambda::InvokeError::ResourceNotFound(_) => gateway::InvokeError::NotFound,
        lambda::InvokeError::InvalidParameterValue(reason) => {
            gateway::InvokeError::InvalidParameterValue((*reason).to_owned())
        }
        lambda::InvokeError::RequestTooLarge => gateway::InvokeError::RequestTooLarge,
        lambda::InvokeError::TooManyRequests => gateway::InvokeError::TooManyRequests,
        lambda::InvokeError::InvalidRequestContent | lambda::InvokeError::Service(_) => {
            gateway::InvokeError::Service(error.to_string())
        }
    }
}

impl Functions {
    /// The function of this ARN, if the gateway may invoke it. Both ways to do so need the same permission.
    fn function(&self, arn: &str) -> Result<&LogicalId, gateway::InvokeError> {
        let function = self
            .template
            .function_by_arn(arn)
            .ok_or(gateway::InvokeError::NotFound)?;
        if !self.may_invoke(&function.logical_id) {
            return Err(gateway::InvokeError::AccessDenied);
        }
        Ok(&function.logical_id)
    }

    /// Whether a permission of the template lets API Gateway invoke the function at all. Which route of the API it is
    /// for is not compared: the emulator has one API.
    fn may_invoke(&self, function: &LogicalId) -> bool {
        let api = self
            .template
            .api
            .as_ref()
            .map(|api| api.id.as_str())
            .unwrap_or_default();
        self.template.permissions.iter().any(|permission| {
            permission.function == *function
                && permission.action == "lambda:InvokeFunction"
                && permission.principal == "apigateway.amazonaws.com"
                && permission
                    .source_arn
                    .as_deref()
                    .is_some_and(|arn| arn.contains(&format!(":{api}/")))
        })
    }
}

/// Asks until `done` says so or the time is over. The one way to wait for what happens elsewhere.
///
/// # Errors
/// The time is over, or asking failed.
pub async fn wait_until<T, F>(what: &str, limit: Duration, mut ask: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<Option<T>>>,
{
    let deadline = tokio::time::Instant::now() + limit;
    let mut interval = tokio::time::interval(Duration::from_millis(25));
    loop {
        interval.tick().await;
        if let Some(done) = ask().await? {
            return Ok(done);
        }
        if tokio::time::Instant::now() >= deadline {
            bail!("{what}: not within {limit:?}");
        }
    }
}

/// A name that no other test or start uses: `prefix-` and random characters of the tenant grammar.
pub fn random_name(prefix: &str) -> String {
    let random = Uuid::new_v4().simple().to_string();
    format!("{prefix}-{}", random.get(..12).unwrap_or("0"))
}
