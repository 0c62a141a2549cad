//! The knowledge base: a question and its filter in; an unverified answer, its events, or unverified passages out.
//!
//! RetrieveAndGenerate searches and writes in one call
//! (<https://docs.aws.amazon.com/bedrock/latest/APIReference/API_agent-runtime_RetrieveAndGenerate.html>), Retrieve only
//! searches. What they answer may not be shown before [`crate::firewall`] has seen it.

use std::sync::OnceLock;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_bedrockagentruntime::config::http::HttpResponse;
use aws_sdk_bedrockagentruntime::error::{BuildError, ProvideErrorMetadata as _, SdkError};
use aws_sdk_bedrockagentruntime::operation::retrieve::RetrieveError;
use aws_sdk_bedrockagentruntime::operation::retrieve_and_generate::{
    RetrieveAndGenerateError, RetrieveAndGenerateOutput,
};
use aws_sdk_bedrockagentruntime::operation::retrieve_and_generate_stream::{
    RetrieveAndGenerateStreamError, RetrieveAndGenerateStreamOutput,
};
use aws_sdk_bedrockagentruntime::types::error::RetrieveAndGenerateStreamResponseOutputError;
use aws_sdk_bedrockagentruntime::types::{
    Citation, CitationEvent, GenerationConfiguration, GuadrailAction, GuardrailConfiguration, InferenceConfig,
    KnowledgeBaseQuery, KnowledgeBaseRetrievalConfiguration, KnowledgeBaseRetrievalResult,
    KnowledgeBaseRetrieveAndGenerateConfiguration, KnowledgeBaseVectorSearchConfiguration, OrchestrationConfiguration,
    PromptTemplate, QueryTransformationConfiguration, QueryTransformationType, RetrieveAndGenerateConfiguration,
    RetrieveAndGenerateInput as Input, RetrieveAndGenerateStreamResponseOutput as Event, RetrieveAndGenerateType,
    SearchType, TextInferenceConfig,
};
use aws_sdk_bedrockagentruntime::{Client, config};
use bulkhead_core::error::Error;
use tokio::time::Instant;

use crate::config::{KnowledgeBaseConfig, ModelConfig};
use crate::filter::RetrievalFilter;
use crate::prompt;
use crate::quotation::Quotation;
use crate::upstream::{call_failure, complaints, in_time, stream_failure};

const RETRIEVE: &str = "Retrieve";
const ASK: &str = "RetrieveAndGenerate";
const ASK_STREAM: &str = "RetrieveAndGenerateStream";

/// The knowledge base.
pub struct KnowledgeBase {
    config: KnowledgeBaseConfig,
    models: ModelConfig,
    aws: SdkConfig,
    client: OnceLock<Client>,
}

/// What is asked of RetrieveAndGenerate.
#[derive(Clone, Copy, Debug)]
pub struct Inquiry<'a> {
    /// The question.
    pub question: &'a Quotation,
    /// What the answer should take into account.
    pub context: Option<&'a Quotation>,
    /// What may be looked at.
    pub filter: &'a RetrievalFilter,
    /// How many passages to look at.
    pub results: i32,
    /// The alias of the model that answers.
    pub model: &'a str,
    /// Bedrock's id of the conversation that it goes on, if it does.
    pub session: Option<&'a str>,
}

/// What came of a question. Nothing of it is verified.
#[derive(Debug)]
pub struct UnverifiedAnswer {
    /// Bedrock's id of the conversation. It is a bearer handle and never leaves the function.
    pub session: String,
    /// The whole text, cited or not.
    pub text: String,
    /// The text's cited parts with the passages that they rest on.
    pub citations: Vec<Citation>,
    /// Whether a guardrail changed or stopped it.
    pub guardrail_intervened: bool,
    /// Whether the conversation was gone, so that this answer begins it anew.
    pub context_reset: bool,
}

/// An answer that is coming. Nothing of it is verified.
pub struct UnverifiedStream {
    /// Bedrock's id of the conversation. It is a bearer handle and never leaves the function.
    pub session: String,
    /// Whether the conversation was gone, so that this answer begins it anew.
    pub context_reset: bool,
    output: RetrieveAndGenerateStreamOutput,
    deadline: Instant,
}

/// What a stream says next. Nothing of it is verified.
#[derive(Debug)]
pub enum UnverifiedEvent {
    /// More of the text, cited or not.
    Text(String),
    /// Parts of the text with the passages that they rest on. Bedrock has an older and a newer way to say the same; both
    /// are here if both were used, and both must be checked.
    Citations(Vec<Citation>),
    /// A guardrail changed or stopped the answer.
    GuardrailIntervened,
}

impl KnowledgeBase {
    /// The knowledge base of `config`, whose answers are written by `models`, in the account that `aws` reaches. No client
    /// is built yet.
    pub fn new(config: KnowledgeBaseConfig, models: ModelConfig, aws: &SdkConfig) -> Self {
        Self {
            config,
            models,
            aws: aws.clone(),
            client: OnceLock::new(),
        }
    }

    /// Builds the client. The first call costs milliseconds, which may as well pass while something else is awaited.
    pub fn warm(&self) {
        self.client();
    }

    /// The passages that `query` finds within what `filter` lets it see, at most `results`, until `deadline`.
    ///
    /// # Errors
    /// As [`KnowledgeBase::ask`].
    pub async fn retrieve(
        &self,
        query: &str,
        filter: &RetrievalFilter,
        results: i32,
        deadline: Instant,
    ) -> Result<Vec<KnowledgeBaseRetrievalResult>, Error> {
        let output = self
            .client()
            .retrieve()
            .knowledge_base_id(&self.config.id)
            .retrieval_query(KnowledgeBaseQuery::builder().text(query).build())
            .retrieval_configuration(search(filter, results)?)
            .customize()
            .config_override(config::Builder::new().timeout_config(until(deadline)))
            .send()
            .await
            .map_err(|error| call_failure(RETRIEVE, &error))?;
        Ok(output.retrieval_results)
    }

    /// Asks, going on with Bedrock's session if there is one. If that is gone, the question is asked once more without
    /// it. All of it is over at `deadline`.
    ///
    /// # Errors
    /// [`Error::UpstreamThrottled`], [`Error::Timeout`], [`Error::Unavailable`] if Bedrock is out of reach,
    /// [`Error::UpstreamFailed`] for whatever else it says, [`Error::Internal`] if the request can't be made.
    pub async fn ask(&self, inquiry: Inquiry<'_>, deadline: Instant) -> Result<UnverifiedAnswer, Error> {
        let configuration = self.configuration(&inquiry)?;
        let mut context_reset = false;
        let first = self.send(&inquiry, configuration.clone(), inquiry.session, deadline);
        let output = match first.await {
            Err(error) if inquiry.session.is_some() && session_is_gone(&error) => {
                context_reset = true;
                self.send(&inquiry, configuration, None, deadline).await
            }
            result => result,
        }
        .map_err(|error| call_failure(ASK, &error))?;
        Ok(UnverifiedAnswer {
            session: named(output.session_id)?,
            text: output.output.map(|output| output.text).unwrap_or_default(),
            citations: output.citations.unwrap_or_default(),
            guardrail_intervened: output.guardrail_action == Some(GuadrailAction::Intervened),
            context_reset,
        })
    }

    /// Asks as [`KnowledgeBase::ask`] does, for an answer that comes piece by piece. Bedrock has taken the question when
    /// this returns.
    ///
    /// # Errors
    /// As [`KnowledgeBase::ask`].
    pub async fn ask_stream(&self, inquiry: Inquiry<'_>, deadline: Instant) -> Result<UnverifiedStream, Error> {
        let configuration = self.configuration(&inquiry)?;
        let mut context_reset = false;
        let first = self.send_stream(&inquiry, configuration.clone(), inquiry.session, deadline);
        let output = match first.await {
            Err(error) if inquiry.session.is_some() && session_is_gone(&error) => {
                context_reset = true;
                self.send_stream(&inquiry, configuration, None, deadline).await
            }
            result => result,
        }
        .map_err(|error| call_failure(ASK_STREAM, &error))?;
        Ok(UnverifiedStream {
            session: named(output.session_id.clone())?,
            context_reset,
            output,
            deadline,
        })
    }

    async fn send(
        &self,
        inquiry: &Inquiry<'_>,
        configuration: RetrieveAndGenerateConfiguration,
        session: Option<&str>,
        deadline: Instant,
    ) -> Result<RetrieveAndGenerateOutput, SdkError<RetrieveAndGenerateError, HttpResponse>> {
        self.client()
            .retrieve_and_generate()
            .set_session_id(session.map(str::to_owned))
            .input(input(inquiry).map_err(SdkError::construction_failure)?)
            .retrieve_and_generate_configuration(configuration)
            .customize()
            .config_override(config::Builder::new().timeout_config(until(deadline)))
            .send()
            .await
    }

    async fn send_stream(
        &self,
        inquiry: &Inquiry<'_>,
        configuration: RetrieveAndGenerateConfiguration,
        session: Option<&str>,
        deadline: Instant,
    ) -> Result<RetrieveAndGenerateStreamOutput, SdkError<RetrieveAndGenerateStreamError, HttpResponse>> {
        self.client()
            .retrieve_and_generate_stream()
            .set_session_id(session.map(str::to_owned))
            .input(input(inquiry).map_err(SdkError::construction_failure)?)
            .retrieve_and_generate_configuration(configuration)
            .customize()
            .config_override(
                config::Builder::new()
                    .timeout_config(until(deadline))
                    // A model may think for a while; how long it may be silent is `in_time`'s business.
                    .stalled_stream_protection(StalledStreamProtectionConfig::disabled()),
            )
            .send()
            .await
    }

    /// How RetrieveAndGenerate is to search and to answer.
    fn configuration(&self, inquiry: &Inquiry<'_>) -> Result<RetrieveAndGenerateConfiguration, Error> {
        let build = |error: BuildError| Error::internal(error);
        let inference = InferenceConfig::builder()
            .text_inference_config(
                TextInferenceConfig::builder()
                    .max_tokens(self.models.max_tokens)
                    .temperature(self.models.temperature)
                    .build(),
            )
            .build();
        let template = |text: String| PromptTemplate::builder().text_prompt_template(text).build();
        let generation = GenerationConfiguration::builder()
            .prompt_template(template(prompt::generation(inquiry.context)?))
            .inference_config(inference.clone())
            .set_guardrail_configuration(
                self.models
                    .guardrail
                    .as_ref()
                    .map(|guardrail| {
                        GuardrailConfiguration::builder()
                            .guardrail_id(&guardrail.id)
                            .guardrail_version(&guardrail.version)
                            .build()
                    })
                    .transpose()
                    .map_err(build)?,
            )
            .build();
        let decomposition = self
            .config
            .query_decomposition
            .then(|| {
                QueryTransformationConfiguration::builder()
                    .r#type(QueryTransformationType::QueryDecomposition)
                    .build()
            })
            .transpose()
            .map_err(build)?;
        let orchestration = OrchestrationConfiguration::builder()
            .prompt_template(template(prompt::orchestration(inquiry.context)?))
            .inference_config(inference)
            .set_query_transformation_configuration(decomposition)
            .build();
        let configuration = KnowledgeBaseRetrieveAndGenerateConfiguration::builder()
            .knowledge_base_id(&self.config.id)
            .model_arn(self.models.arn(inquiry.model)?)
            .retrieval_configuration(search(inquiry.filter, inquiry.results)?)
            .generation_configuration(generation)
            .orchestration_configuration(orchestration)
            .build()
            .map_err(build)?;
        RetrieveAndGenerateConfiguration::builder()
            .r#type(RetrieveAndGenerateType::KnowledgeBase)
            .knowledge_base_configuration(configuration)
            .build()
            .map_err(build)
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

impl UnverifiedStream {
    /// What comes next; `None` at the end. The stream has no word for its end but that the connection is closed in order.
    ///
    /// # Errors
    /// [`Error::Timeout`] if nothing comes for too long, [`Error::UpstreamThrottled`], [`Error::Unavailable`] if the
    /// connection is lost, [`Error::UpstreamFailed`] for whatever else Bedrock says.
    pub async fn next(&mut self) -> Result<Option<UnverifiedEvent>, Error> {
        loop {
            let event = in_time(ASK_STREAM, self.deadline, self.output.stream.recv())
                .await?
                .map_err(|error| stream_failure(ASK_STREAM, &error))?;
            match event {
                None => return Ok(None),
                Some(Event::Output(output)) => return Ok(Some(UnverifiedEvent::Text(output.text))),
                Some(Event::Citation(event)) => return Ok(Some(UnverifiedEvent::Citations(citations(event)))),
                Some(Event::Guardrail(event)) if event.action == Some(GuadrailAction::Intervened) => {
                    return Ok(Some(UnverifiedEvent::GuardrailIntervened));
                }
                Some(_) => {}
            }
        }
    }
}

/// Every citation that an event holds.
fn citations(event: CitationEvent) -> Vec<Citation> {
    #[expect(deprecated, reason = "Bedrock may still fill it, and what it holds must be checked")]
    let older = event.citation;
    let newer = (event.generated_response_part.is_some() || event.retrieved_references.is_some()).then(|| {
        Citation::builder()
            .set_generated_response_part(event.generated_response_part)
            .set_retrieved_references(event.retrieved_references)
            .build()
    });
    // The same said twice is one citation.
    let older = older.filter(|older| newer.as_ref() != Some(older));
    newer.into_iter().chain(older).collect()
}

fn input(inquiry: &Inquiry<'_>) -> Result<Input, BuildError> {
    Input::builder().text(inquiry.question.as_str()).build()
}

fn search(filter: &RetrievalFilter, results: i32) -> Result<KnowledgeBaseRetrievalConfiguration, Error> {
    let search = KnowledgeBaseVectorSearchConfiguration::builder()
        .number_of_results(results)
        // S3 Vectors has no other.
        .override_search_type(SearchType::Semantic)
        .filter(filter.compile()?)
        .build();
    Ok(KnowledgeBaseRetrievalConfiguration::builder()
        .vector_search_configuration(search)
        .build())
}

/// One attempt may take all the time that is left; attempts and pauses together no more than that.
fn until(deadline: Instant) -> TimeoutConfig {
    TimeoutConfig::builder()
        .operation_timeout(deadline.saturating_duration_since(Instant::now()))
        .disable_operation_attempt_timeout()
        .build()
}

/// Bedrock's id of a conversation. Without one there is none to go on with.
fn named(session: String) -> Result<String, Error> {
    if session.is_empty() {
        return Err(Error::UpstreamFailed("an answer without a session".into()));
    }
    Ok(session)
}

/// Whether Bedrock does not know the conversation any more. It has no error of its own for that, only a sentence:
/// "Session with Id … is not valid. Please check and try again."
fn session_is_gone<E: Ask>(error: &SdkError<E, HttpResponse>) -> bool {
    if !error.as_service_error().is_some_and(Ask::is_validation) {
        return false;
    }
    let message = error.message().unwrap_or_default().to_ascii_lowercase();
    message.contains("session")
        && ["not valid", "invalid", "expired", "not found", "not exist"]
            .iter()
            .any(|sign| message.contains(sign))
}

/// What both ways to ask have in common.
trait Ask: aws_sdk_bedrockagentruntime::error::ProvideErrorMetadata {
    fn is_validation(&self) -> bool;
}

impl Ask for RetrieveAndGenerateError {
    fn is_validation(&self) -> bool {
        self.is_validation_exception()
    }
}

impl Ask for RetrieveAndGenerateStreamError {
    fn is_validation(&self) -> bool {
        self.is_validation_exception()
    }
}

complaints!(RetrieveError {
    throttled: [ThrottlingException, ServiceQuotaExceededException],
    slow: [],
    failed: [
        AccessDeniedException,
        BadGatewayException,
        ConflictException,
        DependencyFailedException,
        InternalServerException,
        ResourceNotFoundException,
        ValidationException
    ],
});
complaints!(RetrieveAndGenerateError {
    throttled: [ThrottlingException, ServiceQuotaExceededException],
    slow: [],
    failed: [
        AccessDeniedException,
        BadGatewayException,
        ConflictException,
        DependencyFailedException,
        InternalServerException,
        ResourceNotFoundException,
        ValidationException
    ],
});
complaints!(RetrieveAndGenerateStreamError {
    throttled: [ThrottlingException, ServiceQuotaExceededException],
    slow: [],
    failed: [
        AccessDeniedException,
        BadGatewayException,
        ConflictException,
        DependencyFailedException,
        InternalServerException,
        ResourceNotFoundException,
        ValidationException
    ],
});
complaints!(RetrieveAndGenerateStreamResponseOutputError {
    throttled: [ThrottlingException, ServiceQuotaExceededException],
    slow: [],
    failed: [
        AccessDeniedException,
        BadGatewayException,
        ConflictException,
        DependencyFailedException,
        InternalServerException,
        ResourceNotFoundException,
        ValidationException
    ],
});
