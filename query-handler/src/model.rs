//! The models: a prompt of ours in, a text out, whole (Converse) or word by word (ConverseStream).
//!
//! A prompt's question stands in a block of its own that the guardrail judges; passages, history and context stand beside
//! it, unjudged: a guardrail takes what a document says for what the user wants
//! (<https://docs.aws.amazon.com/bedrock/latest/userguide/guardrails-use-converse-api.html>). Not here: what prompts say
//! ([`crate::prompt`]), and what becomes of a model's words (`crate::verified`).

use std::sync::OnceLock;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_bedrockruntime::error::BuildError;
use aws_sdk_bedrockruntime::operation::converse::ConverseError;
use aws_sdk_bedrockruntime::operation::converse_stream::{ConverseStreamError, ConverseStreamOutput};
use aws_sdk_bedrockruntime::types::error::ConverseStreamOutputError;
use aws_sdk_bedrockruntime::types::{
    ContentBlock, ContentBlockDelta, ConversationRole, ConverseOutput, ConverseStreamOutput as Event,
    GuardrailConfiguration, GuardrailConverseContentBlock, GuardrailConverseTextBlock, GuardrailStreamConfiguration,
    GuardrailStreamProcessingMode, InferenceConfiguration, Message, StopReason, SystemContentBlock, TokenUsage,
};
use aws_sdk_bedrockruntime::{Client, config};
use bulkhead_core::error::Error;
use tokio::time::Instant;

use crate::config::ModelConfig;
use crate::prompt::Prompt;
use crate::upstream::{call_failure, complaints, in_time, stream_failure};

const CONVERSE: &str = "Converse";
const CONVERSE_STREAM: &str = "ConverseStream";

/// The models.
pub struct Models {
    config: ModelConfig,
    aws: SdkConfig,
    client: OnceLock<Client>,
}

/// What a model said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Speech {
    /// Its words.
    pub text: String,
    /// How it ended.
    pub end: SpeechEnd,
}

/// How a model's words ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpeechEnd {
    /// Whether a guardrail, or the model's own filter, changed or stopped them.
    pub intervened: bool,
    /// What was read and written; `None` if the stream was lost after the last word.
    pub tokens: Option<Tokens>,
}

/// What models have read and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Tokens of prompts.
    pub input: u64,
    /// Tokens of answers.
    pub output: u64,
}

impl Tokens {
    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            input: self.input.saturating_add(other.input),
            output: self.output.saturating_add(other.output),
        }
    }

    fn of(usage: &TokenUsage) -> Self {
        Self {
            input: u64::try_from(usage.input_tokens()).unwrap_or_default(),
            output: u64::try_from(usage.output_tokens()).unwrap_or_default(),
        }
    }
}

/// A model that is speaking.
pub struct Speaking {
    output: ConverseStreamOutput,
    deadline: Instant,
    stop: Option<bool>,
    tokens: Option<Tokens>,
}

impl Models {
    /// The models of `config`, in the account that `aws` reaches. No client is built yet.
    pub fn new(config: ModelConfig, aws: &SdkConfig) -> Self {
        Self {
            config,
            aws: aws.clone(),
            client: OnceLock::new(),
        }
    }

    /// Builds the client. The first call costs milliseconds, which may as well pass while something else is awaited.
    pub fn warm(&self) {
        self.client();
    }

    /// What the model of that alias says to `prompt`, until `deadline`.
    ///
    /// # Errors
    /// [`Error::UpstreamThrottled`], [`Error::Timeout`], [`Error::Unavailable`] if Bedrock is out of reach,
    /// [`Error::UpstreamFailed`] for whatever else it says, [`Error::Internal`] if the request can't be made.
    pub async fn converse(&self, alias: &str, prompt: &Prompt, deadline: Instant) -> Result<Speech, Error> {
        let output = self
            .client()
            .converse()
            .model_id(self.config.arn(alias)?)
            .set_system(Some(system(prompt)))
            .messages(self.message(prompt)?)
            .inference_config(self.inference())
            .set_guardrail_config(self.config.guardrail.as_ref().map(|guardrail| {
                GuardrailConfiguration::builder()
                    .guardrail_identifier(&guardrail.id)
                    .guardrail_version(&guardrail.version)
                    .build()
            }))
            .customize()
            .config_override(config::Builder::new().timeout_config(until(deadline)))
            .send()
            .await
            .map_err(|error| call_failure(CONVERSE, &error))?;
        let intervened = ended(&output.stop_reason)?;
        let Some(ConverseOutput::Message(message)) = output.output else {
            return Err(Error::UpstreamFailed("an answer without a message".into()));
        };
        let texts = message.content.into_iter().filter_map(|block| match block {
            ContentBlock::Text(text) => Some(text),
            _ => None,
        });
        Ok(Speech {
            text: texts.collect(),
            end: SpeechEnd {
                intervened,
                tokens: output.usage.as_ref().map(Tokens::of),
            },
        })
    }

    /// Has the model of that alias answer `prompt` word by word, until `deadline`. It has taken the prompt when this
    /// returns.
    ///
    /// # Errors
    /// As [`Models::converse`].
    pub async fn converse_stream(&self, alias: &str, prompt: &Prompt, deadline: Instant) -> Result<Speaking, Error> {
        let guardrail = self.config.guardrail.as_ref().map(|guardrail| {
            GuardrailStreamConfiguration::builder()
                .guardrail_identifier(&guardrail.id)
                .guardrail_version(&guardrail.version)
                // The other mode lets words out before they were judged.
                .stream_processing_mode(GuardrailStreamProcessingMode::Sync)
                .build()
        });
        let output = self
            .client()
            .converse_stream()
            .model_id(self.config.arn(alias)?)
            .set_system(Some(system(prompt)))
            .messages(self.message(prompt)?)
            .inference_config(self.inference())
            .set_guardrail_config(guardrail)
            .customize()
            .config_override(
                config::Builder::new()
                    .timeout_config(until(deadline))
                    // A model may think for a while; how long it may be silent is `in_time`'s business.
                    .stalled_stream_protection(StalledStreamProtectionConfig::disabled()),
            )
            .send()
            .await
            .map_err(|error| call_failure(CONVERSE_STREAM, &error))?;
        Ok(Speaking {
            output,
            deadline,
            stop: None,
            tokens: None,
        })
    }

    fn message(&self, prompt: &Prompt) -> Result<Message, Error> {
        let build = |error: BuildError| Error::internal(error);
        let question = if self.config.guardrail.is_some() {
            let text = GuardrailConverseTextBlock::builder()
                .text(&prompt.question)
                .build()
                .map_err(build)?;
            ContentBlock::GuardContent(GuardrailConverseContentBlock::Text(text))
        } else {
            ContentBlock::Text(prompt.question.clone())
        };
        let message = Message::builder().role(ConversationRole::User);
        // Converse takes no empty text.
        let message = if prompt.material.is_empty() {
            message
        } else {
            message.content(ContentBlock::Text(prompt.material.clone()))
        };
        message.content(question).build().map_err(build)
    }

    fn inference(&self) -> InferenceConfiguration {
        InferenceConfiguration::builder()
            .max_tokens(self.config.max_tokens)
            .temperature(self.config.temperature)
            .build()
    }

    fn client(&self) -> &Client {
        self.client.get_or_init(|| {
            let retries = RetryConfig::standard()
                .with_max_attempts(3)
                .with_initial_backoff(Duration::from_millis(200));
            let timeouts = TimeoutConfig::builder().connect_timeout(Duration::from_secs(2)).build();
            Client::from_conf(
                config::Builder::from(&self.aws)
                    .retry_config(retries)
                    .timeout_config(timeouts)
                    .build(),
            )
        })
    }
}

impl Speaking {
    /// The next words; `None` when all have been said.
    ///
    /// # Errors
    /// [`Error::Timeout`] if the model is silent for too long, [`Error::UpstreamThrottled`], [`Error::Unavailable`] if the
    /// connection is lost, [`Error::UpstreamFailed`] also if the stream ends before the model said that it did.
    pub async fn next(&mut self) -> Result<Option<String>, Error> {
        loop {
            let event = match in_time(CONVERSE_STREAM, self.deadline, self.output.stream.recv()).await {
                Ok(Ok(Some(event))) => event,
                Ok(Ok(None)) if self.stop.is_none() => {
                    return Err(Error::UpstreamFailed("the stream ended before the message".into()));
                }
                Ok(Ok(None)) => return Ok(None),
                // All words are there; what is lost is the count of tokens.
                _ if self.stop.is_some() => return Ok(None),
                Ok(Err(error)) => return Err(stream_failure(CONVERSE_STREAM, &error)),
                Err(silence) => return Err(silence),
            };
            match event {
                Event::ContentBlockDelta(delta) if self.stop.is_none() => {
                    if let Some(ContentBlockDelta::Text(text)) = delta.delta
                        && !text.is_empty()
                    {
                        return Ok(Some(text));
                    }
                }
                Event::MessageStop(stop) => self.stop = Some(ended(&stop.stop_reason)?),
                Event::Metadata(metadata) => self.tokens = metadata.usage.as_ref().map(Tokens::of),
                _ => {}
            }
        }
    }

    /// How it ended, once all words have been said.
    pub fn end(&self) -> SpeechEnd {
        SpeechEnd {
            intervened: self.stop.unwrap_or_default(),
            tokens: self.tokens,
        }
    }
}

/// Whether a guardrail made a model's words end.
///
/// # Errors
/// [`Error::UpstreamFailed`] if they ended in a way that makes no answer of them.
fn ended(reason: &StopReason) -> Result<bool, Error> {
    match reason {
        StopReason::EndTurn
        | StopReason::StopSequence
        | StopReason::MaxTokens
        | StopReason::ModelContextWindowExceeded => Ok(false),
        StopReason::GuardrailIntervened | StopReason::ContentFiltered => Ok(true),
        _ => Err(Error::UpstreamFailed("a message that ended in no answer".into())),
    }
}

fn system(prompt: &Prompt) -> Vec<SystemContentBlock> {
    vec![SystemContentBlock::Text(prompt.system.clone())]
}

/// One attempt may take all the time that is left; attempts and pauses together no more than that.
fn until(deadline: Instant) -> TimeoutConfig {
    TimeoutConfig::builder()
        .operation_timeout(deadline.saturating_duration_since(Instant::now()))
        .disable_operation_attempt_timeout()
        .build()
}

complaints!(ConverseError {
    throttled: [ThrottlingException, ServiceUnavailableException, ModelNotReadyException],
    slow: [ModelTimeoutException],
    failed: [
        AccessDeniedException,
        InternalServerException,
        ModelErrorException,
        ResourceNotFoundException,
        ValidationException
    ],
});
complaints!(ConverseStreamError {
    throttled: [ThrottlingException, ServiceUnavailableException, ModelNotReadyException],
    slow: [ModelTimeoutException],
    failed: [
        AccessDeniedException,
        InternalServerException,
        ModelErrorException,
        ModelStreamErrorException,
        ResourceNotFoundException,
        ValidationException
    ],
});
complaints!(ConverseStreamOutputError {
    throttled: [ThrottlingException, ServiceUnavailableException],
    slow: [],
    failed: [InternalServerException, ModelStreamErrorException, ValidationException],
});
