//! What a guardrail says of passages. Bedrock applies guardrails to the question and to the answer only, not to what was
//! retrieved (<https://docs.aws.amazon.com/bedrock/latest/userguide/kb-test-retrieve-generate.html>), so where the
//! setting asks for it every passage is judged here before a model or a reader sees it.

use std::sync::OnceLock;

use aws_config::SdkConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_bedrockruntime::operation::apply_guardrail::ApplyGuardrailError;
use aws_sdk_bedrockruntime::types::{
    GuardrailAction, GuardrailContentBlock, GuardrailContentSource, GuardrailTextBlock,
};
use aws_sdk_bedrockruntime::{Client, config};
use bulkhead_core::error::Error;
use tokio::time::Instant;

use crate::config::GuardrailConfig;
use crate::firewall::Passage;
use crate::upstream::{call_failure, complaints};

const APPLY_GUARDRAIL: &str = "ApplyGuardrail";

/// The guardrail for passages, if there is one.
pub struct PassageGuardrail {
    config: Option<GuardrailConfig>,
    aws: SdkConfig,
    client: OnceLock<Client>,
}

impl PassageGuardrail {
    /// The guardrail of `config`; without one every passage passes.
    pub fn new(config: Option<GuardrailConfig>, aws: &SdkConfig) -> Self {
        Self {
            config,
            aws: aws.clone(),
            client: OnceLock::new(),
        }
    }

    /// The passages that pass. All are judged together; only if there is something in them, each by itself, so that one
    /// document can't keep all others from being quoted.
    ///
    /// # Errors
    /// As [`crate::model::Models::converse`]: what can't be judged does not pass.
    pub async fn admit(&self, passages: Vec<Passage>, deadline: Instant) -> Result<Vec<Passage>, Error> {
        let Some(guardrail) = &self.config else {
            return Ok(passages);
        };
        let texts: Vec<&str> = passages.iter().map(|passage| passage.text.as_str()).collect();
        if texts.is_empty() || self.passes(guardrail, &texts, deadline).await? {
            return Ok(passages);
        }
        let mut admitted = Vec::new();
        for passage in passages {
            if self.passes(guardrail, &[&passage.text], deadline).await? {
                admitted.push(passage);
            }
        }
        Ok(admitted)
    }

    async fn passes(&self, guardrail: &GuardrailConfig, texts: &[&str], deadline: Instant) -> Result<bool, Error> {
        let content: Vec<GuardrailContentBlock> = texts
            .iter()
            .filter(|text| !text.is_empty())
            .map(|text| {
                let block = GuardrailTextBlock::builder().text(*text).build();
                block.map(GuardrailContentBlock::Text).map_err(Error::internal)
            })
            .collect::<Result<_, Error>>()?;
        if content.is_empty() {
            return Ok(true);
        }
        let timeouts = TimeoutConfig::builder()
            .operation_timeout(deadline.saturating_duration_since(Instant::now()))
            .disable_operation_attempt_timeout()
            .build();
        let output = self
            .client()
            .apply_guardrail()
            .guardrail_identifier(&guardrail.id)
            .guardrail_version(&guardrail.version)
            // What a passage says comes to the model as input: attacks on prompts are looked for there only.
            .source(GuardrailContentSource::Input)
            .set_content(Some(content))
            .customize()
            .config_override(config::Builder::new().timeout_config(timeouts))
            .send()
            .await
            .map_err(|error| call_failure(APPLY_GUARDRAIL, &error))?;
        Ok(output.action == GuardrailAction::None)
    }

    fn client(&self) -> &Client {
        self.client.get_or_init(|| Client::new(&self.aws))
    }
}

complaints!(ApplyGuardrailError {
    throttled: [
        ThrottlingException,
        ServiceUnavailableException,
        ServiceQuotaExceededException
    ],
    slow: [],
    failed: [
        AccessDeniedException,
        InternalServerException,
        ResourceNotFoundException,
        ValidationException
    ],
});
