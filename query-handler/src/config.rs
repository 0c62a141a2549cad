//! What the environment sets for this function.

use std::collections::BTreeMap;
use std::time::Duration;

use bulkhead_core::config::{ConfigError, Environment};
use bulkhead_core::credential::RoleArn;
use bulkhead_core::error::Error;
use bulkhead_core::plan::Plans;
use bulkhead_core::profile::MAX_STATUS_AGE_SECS;

/// The alias of the model that answers where a plan names no other.
pub const DEFAULT_MODEL: &str = "default";

/// The longest that a stream may be silent: proxies on the way close what says nothing for 30 seconds
/// (<https://docs.aws.amazon.com/apigateway/latest/developerguide/response-transfer-mode.html>).
const MAX_HEARTBEAT_SECS: u64 = 15;
/// The longest that an answer may take. The function has 150 seconds.
const MAX_ANSWER_SECS: u64 = 120;

const PLANS: &str = "BULKHEAD_PLANS";
const MODELS: &str = "BULKHEAD_MODELS";
const KNOWLEDGE_BASE_ID: &str = "BULKHEAD_KNOWLEDGE_BASE_ID";
const MAX_TOKENS: &str = "BULKHEAD_MAX_TOKENS";
const TEMPERATURE: &str = "BULKHEAD_TEMPERATURE";
const DATA_ROLE_ARN: &str = "BULKHEAD_DATA_ROLE_ARN";
const GUARDRAIL_ID: &str = "BULKHEAD_GUARDRAIL_ID";
const GUARDRAIL_VERSION: &str = "BULKHEAD_GUARDRAIL_VERSION";
const GUARDRAIL_PASSAGES: &str = "BULKHEAD_GUARDRAIL_PASSAGES";
const HEARTBEAT_SECS: &str = "BULKHEAD_HEARTBEAT_SECS";
const ANSWER_MAX_SECS: &str = "BULKHEAD_ANSWER_MAX_SECS";
const STATUS_RECHECK_SECS: &str = "BULKHEAD_STATUS_RECHECK_SECS";

/// The function's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The product's table.
    pub table_name: String,
    /// The role that the function assumes for a tenant's data.
    pub data_role: RoleArn,
    /// How old a tenant's status may be.
    pub status_max_age: Duration,
    /// The bucket of the documents: where every passage must come from.
    pub bucket_name: String,
    /// What tenants may have bought. Each model that a plan names is one of `models`.
    pub plans: Plans,
    /// Where passages are found.
    pub knowledge_base: KnowledgeBaseConfig,
    /// Who answers, and how.
    pub models: ModelConfig,
    /// Whether passages pass the guardrail too, and not only questions and answers.
    pub guardrail_passages: bool,
    /// How streams behave.
    pub streams: StreamConfig,
}

/// The knowledge base and how it is to search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnowledgeBaseConfig {
    /// Its id.
    pub id: String,
    /// Whether a question may be split into several searches. It multiplies them, and AWS does not say whether the filter
    /// reaches each one.
    pub query_decomposition: bool,
}

/// The models and how they are to answer, whichever engine asks them.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Models by alias: the ARN of a model or of an inference profile. [`DEFAULT_MODEL`] is among them.
    pub models: BTreeMap<String, String>,
    /// The most tokens that a model may write.
    pub max_tokens: i32,
    /// How freely it may choose its words, 0 to 1.
    pub temperature: f32,
    /// The guardrail that questions and answers pass, if there is one.
    pub guardrail: Option<GuardrailConfig>,
}

/// How streams behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamConfig {
    /// After how long a silence a stream says that it is still there.
    pub heartbeat: Duration,
    /// How long an answer may take.
    pub longest: Duration,
    /// How often the tenant's status is looked at again while an answer is made.
    pub status_recheck: Duration,
}

/// A guardrail
/// (<https://docs.aws.amazon.com/bedrock/latest/APIReference/API_agent-runtime_GuardrailConfiguration.html>).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardrailConfig {
    /// Its id, not its ARN.
    pub id: String,
    /// A number, or `DRAFT`.
    pub version: String,
}

impl Config {
    /// Reads the configuration.
    ///
    /// # Errors
    /// A variable is missing or wrong; the error names it.
    pub fn from_env(environment: &Environment) -> Result<Self, ConfigError> {
        let models = ModelConfig::from_env(environment)?;
        let plans = Plans::from_env(environment, PLANS)?;
        let named = plans.iter().filter_map(|(_, plan)| plan.model.as_ref());
        if named.into_iter().any(|alias| !models.models.contains_key(alias)) {
            return Err(ConfigError::new(
                PLANS,
                format!("a plan's model must be one of {MODELS}"),
            ));
        }
        let id = environment.required(KNOWLEDGE_BASE_ID)?;
        if id.len() > 10 || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(ConfigError::new(KNOWLEDGE_BASE_ID, "at most 10 letters and digits"));
        }
        let guardrail_passages = environment.parsed_or(GUARDRAIL_PASSAGES, false)?;
        if guardrail_passages && models.guardrail.is_none() {
            return Err(ConfigError::new(GUARDRAIL_PASSAGES, "needs a guardrail"));
        }
        Ok(Self {
            table_name: environment.required("BULKHEAD_TABLE_NAME")?.to_owned(),
            data_role: environment
                .required(DATA_ROLE_ARN)?
                .parse()
                .map_err(|error| ConfigError::new(DATA_ROLE_ARN, error))?,
            status_max_age: environment.seconds_or(
                "BULKHEAD_STATUS_MAX_AGE_SECS",
                MAX_STATUS_AGE_SECS,
                MAX_STATUS_AGE_SECS,
            )?,
            bucket_name: environment.required("BULKHEAD_BUCKET_NAME")?.to_owned(),
            plans,
            knowledge_base: KnowledgeBaseConfig {
                id: id.to_owned(),
                query_decomposition: environment.parsed_or("BULKHEAD_QUERY_DECOMPOSITION", false)?,
            },
            models,
            guardrail_passages,
            streams: StreamConfig {
                heartbeat: seconds(environment, HEARTBEAT_SECS, MAX_HEARTBEAT_SECS)?,
                longest: seconds(environment, ANSWER_MAX_SECS, MAX_ANSWER_SECS)?,
                status_recheck: seconds(environment, STATUS_RECHECK_SECS, MAX_STATUS_AGE_SECS)?,
            },
        })
    }
}

impl ModelConfig {
    fn from_env(environment: &Environment) -> Result<Self, ConfigError> {
        let models: BTreeMap<String, String> = environment.json(MODELS)?;
        if !models.contains_key(DEFAULT_MODEL) {
            return Err(ConfigError::new(MODELS, format!("must name a `{DEFAULT_MODEL}`")));
        }
        if models.values().any(|model| !(1..=2048).contains(&model.len())) {
            return Err(ConfigError::new(MODELS, "a model has 1 to 2,048 characters"));
        }
        let max_tokens: i32 = environment.parsed_or(MAX_TOKENS, 1024)?;
        if max_tokens < 1 {
            return Err(ConfigError::new(MAX_TOKENS, "at least 1"));
        }
        let temperature: f32 = environment.parsed_or(TEMPERATURE, 0.0)?;
        if !(0.0..=1.0).contains(&temperature) {
            return Err(ConfigError::new(TEMPERATURE, "from 0 to 1"));
        }
        Ok(Self {
            models,
            max_tokens,
            temperature,
            guardrail: guardrail(environment)?,
        })
    }

    /// The ARN of the model of that alias.
    ///
    /// # Errors
    /// [`Error::Internal`] if there is none: [`Config::from_env`] has seen to it that every plan's is there.
    pub fn arn(&self, alias: &str) -> Result<&str, Error> {
        self.models
            .get(alias)
            .map(String::as_str)
            .ok_or(Error::internal("a plan without a model"))
    }
}

/// A duration of at least a second: none of them can be nothing. Its default is its bound.
fn seconds(environment: &Environment, variable: &str, bound: u64) -> Result<Duration, ConfigError> {
    let duration = environment.seconds_or(variable, bound, bound)?;
    if duration.is_zero() {
        return Err(ConfigError::new(variable, "at least 1 second"));
    }
    Ok(duration)
}

/// Both variables or neither: a guardrail that half a configuration leaves out would be missed by nobody.
fn guardrail(environment: &Environment) -> Result<Option<GuardrailConfig>, ConfigError> {
    let (id, version) = match (
        environment.optional(GUARDRAIL_ID),
        environment.optional(GUARDRAIL_VERSION),
    ) {
        (None, None) => return Ok(None),
        (Some(id), Some(version)) => (id, version),
        (None, Some(_)) => return Err(ConfigError::new(GUARDRAIL_ID, "must be set with the version")),
        (Some(_), None) => return Err(ConfigError::new(GUARDRAIL_VERSION, "must be set with the id")),
    };
    if !id
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    {
        return Err(ConfigError::new(GUARDRAIL_ID, "an id of a-z and 0-9, not an ARN"));
    }
    if version != "DRAFT" && !version.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ConfigError::new(GUARDRAIL_VERSION, "a number or DRAFT"));
    }
    Ok(Some(GuardrailConfig {
        id: id.to_owned(),
        version: version.to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(changes: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let mut variables: BTreeMap<&str, &str> = BTreeMap::from([
            ("BULKHEAD_TABLE_NAME", "bulkhead"),
            (DATA_ROLE_ARN, "arn:aws:iam::123456789012:role/data-role"),
            ("BULKHEAD_BUCKET_NAME", "bulkhead-documents"),
            (KNOWLEDGE_BASE_ID, "KB12345678"),
            (
                MODELS,
                r#"{"default":"arn:aws:bedrock:eu-west-1::foundation-model/example"}"#,
            ),
            (PLANS, r#"{"standard":{}}"#),
        ]);
        variables.extend(changes.iter().copied());
        Config::from_env(&variables.into_iter().collect())
    }

    #[test]
    fn what_is_not_set_has_its_default() {
        let config = read(&[(GUARDRAIL_ID, ""), (GUARDRAIL_VERSION, "")]).unwrap();
        assert_eq!(config.status_max_age, Duration::from_secs(20));
        assert!(!config.knowledge_base.query_decomposition && !config.guardrail_passages);
        let streams = config.streams;
        let durations = [streams.heartbeat, streams.longest, streams.status_recheck];
        assert_eq!(durations.map(|duration| duration.as_secs()), [15, 120, 20]);
        let models = config.models;
        assert_eq!((models.max_tokens, models.temperature), (1024, 0.0));
        assert_eq!(models.guardrail, None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (changes, variable) in [
            (&[(MODELS, "{}")][..], MODELS),
            (&[(MODELS, r#"{"default":""}"#)], MODELS),
            (&[(MODELS, "default")], MODELS),
            (&[(KNOWLEDGE_BASE_ID, "../../models")], KNOWLEDGE_BASE_ID),
            (&[(KNOWLEDGE_BASE_ID, " ")], KNOWLEDGE_BASE_ID),
            (&[(DATA_ROLE_ARN, "")], DATA_ROLE_ARN),
            (&[(DATA_ROLE_ARN, "data-role")], DATA_ROLE_ARN),
            (&[(MAX_TOKENS, "0")], MAX_TOKENS),
            (&[(TEMPERATURE, "1.1")], TEMPERATURE),
            (&[(TEMPERATURE, "NaN")], TEMPERATURE),
            (
                &[("BULKHEAD_STATUS_MAX_AGE_SECS", "21")],
                "BULKHEAD_STATUS_MAX_AGE_SECS",
            ),
            (
                &[("BULKHEAD_QUERY_DECOMPOSITION", "yes")],
                "BULKHEAD_QUERY_DECOMPOSITION",
            ),
            (&[(GUARDRAIL_ID, "abc")], GUARDRAIL_VERSION),
            (&[(GUARDRAIL_VERSION, "1")], GUARDRAIL_ID),
            (
                &[(GUARDRAIL_ID, "abc"), (GUARDRAIL_VERSION, "latest")],
                GUARDRAIL_VERSION,
            ),
            (&[(GUARDRAIL_ID, "arn:aws:x"), (GUARDRAIL_VERSION, "1")], GUARDRAIL_ID),
            (&[(GUARDRAIL_PASSAGES, "true")], GUARDRAIL_PASSAGES),
            (&[(PLANS, r#"{"gold":{}}"#)], PLANS),
            (&[(PLANS, r#"{"standard":{"model":"large"}}"#)], PLANS),
            (&[(HEARTBEAT_SECS, "16")], HEARTBEAT_SECS),
            (&[(HEARTBEAT_SECS, "0")], HEARTBEAT_SECS),
            (&[(ANSWER_MAX_SECS, "121")], ANSWER_MAX_SECS),
            (&[(STATUS_RECHECK_SECS, "21")], STATUS_RECHECK_SECS),
        ] {
            assert_eq!(read(changes).unwrap_err().variable, variable, "{changes:?}");
        }
    }
}
