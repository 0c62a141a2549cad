//! The one place that calls Bedrock: a question and its filter in, an unverified answer out.
//!
//! RetrieveAndGenerate searches and writes in one call
//! (<https://docs.aws.amazon.com/bedrock/latest/APIReference/API_agent-runtime_RetrieveAndGenerate.html>). What it
//! answers may not be shown before [`crate::firewall`] has seen it.

use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_bedrockagentruntime::Client;
use aws_sdk_bedrockagentruntime::config;
use aws_sdk_bedrockagentruntime::config::http::HttpResponse;
use aws_sdk_bedrockagentruntime::error::{BuildError, ProvideErrorMetadata as _, SdkError};
use aws_sdk_bedrockagentruntime::operation::RequestId as _;
use aws_sdk_bedrockagentruntime::operation::retrieve_and_generate::builders::RetrieveAndGenerateInputBuilder;
use aws_sdk_bedrockagentruntime::operation::retrieve_and_generate::{
    RetrieveAndGenerateError, RetrieveAndGenerateInput, RetrieveAndGenerateOutput,
};
use aws_sdk_bedrockagentruntime::types::{
    Citation, GenerationConfiguration, GuadrailAction, GuardrailConfiguration, InferenceConfig,
    KnowledgeBaseRetrievalConfiguration, KnowledgeBaseRetrieveAndGenerateConfiguration,
    KnowledgeBaseVectorSearchConfiguration, OrchestrationConfiguration, PromptTemplate,
    QueryTransformationConfiguration, QueryTransformationType, RetrieveAndGenerateConfiguration,
    RetrieveAndGenerateInput as Input, RetrieveAndGenerateType, SearchType, TextInferenceConfig,
};
use bulkhead_core::error::{Cause, Error};

use crate::config::{DEFAULT_MODEL, KnowledgeBaseConfig};
use crate::filter::RetrievalFilter;
use crate::prompt;
use crate::question::Question;
use crate::quotation::Quotation;

/// The knowledge base.
pub struct KnowledgeBase {
    config: KnowledgeBaseConfig,
    aws: SdkConfig,
    client: OnceLock<Client>,
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

impl KnowledgeBase {
    /// The knowledge base of `config`, in the account that `aws` reaches. No client is built yet.
    pub fn new(config: KnowledgeBaseConfig, aws: &SdkConfig) -> Self {
        Self {
            config,
            aws: aws.clone(),
            client: OnceLock::new(),
        }
    }

    /// The alias of the model that answers.
    pub fn model(&self) -> &'static str {
        DEFAULT_MODEL
    }

    /// Builds the client. The first call costs milliseconds, which may as well pass while something else is awaited.
    pub fn warm(&self) {
        self.client();
    }

    /// Asks `question`, within what `filter` lets it see, going on with Bedrock's `session` if there is one. If that is
    /// gone, the question is asked once more without it. All of it is over at `deadline`.
    ///
    /// # Errors
    /// [`Error::UpstreamThrottled`], [`Error::Timeout`], [`Error::Unavailable`] if Bedrock is out of reach,
    /// [`Error::UpstreamFailed`] for whatever else it says, [`Error::Internal`] if the request can't be made.
    pub async fn ask(
        &self,
        question: &Question,
        filter: &RetrievalFilter,
        session: Option<&str>,
        deadline: Instant,
    ) -> Result<UnverifiedAnswer, Error> {
        let request = self.request(question, filter)?;
        let mut context_reset = false;
        let output = match self
            .send(request.clone().set_session_id(session.map(str::to_owned)), deadline)
            .await
        {
            Err(error) if session.is_some() && session_is_gone(&error) => {
                context_reset = true;
                self.send(request, deadline).await
            }
            result => result,
        }
        .map_err(|error| failure(&error))?;
        if output.session_id.is_empty() {
            return Err(Error::UpstreamFailed("an answer without a session".into()));
        }
        Ok(UnverifiedAnswer {
            session: output.session_id,
            text: output.output.map(|output| output.text).unwrap_or_default(),
            citations: output.citations.unwrap_or_default(),
            guardrail_intervened: output.guardrail_action == Some(GuadrailAction::Intervened),
            context_reset,
        })
    }

    async fn send(
        &self,
        request: RetrieveAndGenerateInputBuilder,
        deadline: Instant,
    ) -> Result<RetrieveAndGenerateOutput, SdkError<RetrieveAndGenerateError, HttpResponse>> {
        let RetrieveAndGenerateInput {
            session_id,
            input,
            retrieve_and_generate_configuration,
            ..
        } = request.build().map_err(SdkError::construction_failure)?;
        // One attempt may take all the time that is left; attempts and pauses together no more than that.
        let timeouts = TimeoutConfig::builder()
            .operation_timeout(deadline.saturating_duration_since(Instant::now()))
            .disable_operation_attempt_timeout()
            .build();
        self.client()
            .retrieve_and_generate()
            .set_session_id(session_id)
            .set_input(input)
            .set_retrieve_and_generate_configuration(retrieve_and_generate_configuration)
            .customize()
            .config_override(config::Builder::new().timeout_config(timeouts))
            .send()
            .await
    }

    /// What is asked of Bedrock, without the conversation.
    fn request(&self, question: &Question, filter: &RetrievalFilter) -> Result<RetrieveAndGenerateInputBuilder, Error> {
        let model = self
            .config
            .models
            .get(self.model())
            .ok_or(Error::internal("a plan without a model"))?;
        let build = |error: BuildError| Error::internal(error);
        // Both end up in templates that Bedrock fills, so both are quoted for those.
        let text = Quotation::new(&question.text);
        let context = question.context.as_deref().map(Quotation::new);
        let inference = InferenceConfig::builder()
            .text_inference_config(
                TextInferenceConfig::builder()
                    .max_tokens(self.config.max_tokens)
                    .temperature(self.config.temperature)
                    .build(),
            )
            .build();
        let template = |text: String| PromptTemplate::builder().text_prompt_template(text).build();
        let search = KnowledgeBaseVectorSearchConfiguration::builder()
            .number_of_results(question.results)
            // S3 Vectors has no other.
            .override_search_type(SearchType::Semantic)
            .filter(filter.compile()?)
            .build();
        let generation = GenerationConfiguration::builder()
            .prompt_template(template(prompt::generation(context.as_ref())?))
            .inference_config(inference.clone())
            .set_guardrail_configuration(
                self.config
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
            .prompt_template(template(prompt::orchestration(context.as_ref())?))
            .inference_config(inference)
            .set_query_transformation_configuration(decomposition)
            .build();
        let configuration = KnowledgeBaseRetrieveAndGenerateConfiguration::builder()
            .knowledge_base_id(&self.config.id)
            .model_arn(model)
            .retrieval_configuration(
                KnowledgeBaseRetrievalConfiguration::builder()
                    .vector_search_configuration(search)
                    .build(),
            )
            .generation_configuration(generation)
            .orchestration_configuration(orchestration)
            .build()
            .map_err(build)?;
        Ok(RetrieveAndGenerateInput::builder()
            .input(Input::builder().text(text.as_str()).build().map_err(build)?)
            .retrieve_and_generate_configuration(
                RetrieveAndGenerateConfiguration::builder()
                    .r#type(RetrieveAndGenerateType::KnowledgeBase)
                    .knowledge_base_configuration(configuration)
                    .build()
                    .map_err(build)?,
            ))
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

/// Whether Bedrock does not know the conversation any more. It has no error of its own for that, only a sentence:
/// "Session with Id … is not valid. Please check and try again."
fn session_is_gone(error: &SdkError<RetrieveAndGenerateError, HttpResponse>) -> bool {
    let Some(RetrieveAndGenerateError::ValidationException(error)) = error.as_service_error() else {
        return false;
    };
    let message = error.message().unwrap_or_default().to_ascii_lowercase();
    message.contains("session")
        && ["not valid", "invalid", "expired", "not found", "not exist"]
            .iter()
            .any(|sign| message.contains(sign))
}

/// What a failed call is to the caller.
fn failure(error: &SdkError<RetrieveAndGenerateError, HttpResponse>) -> Error {
    let cause: Cause = Box::new(Failure::of(error));
    match error {
        SdkError::ConstructionFailure(_) => Error::Internal(cause),
        SdkError::TimeoutError(_) => Error::Timeout(cause),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => Error::Timeout(cause),
        SdkError::DispatchFailure(_) => Error::Unavailable(cause),
        SdkError::ServiceError(service) => match service.err() {
            RetrieveAndGenerateError::ThrottlingException(_)
            | RetrieveAndGenerateError::ServiceQuotaExceededException(_) => Error::UpstreamThrottled(cause),
            // What is between us and Bedrock throttles without Bedrock's words.
            _ if matches!(service.raw().status().as_u16(), 429 | 503) => Error::UpstreamThrottled(cause),
            _ => Error::UpstreamFailed(cause),
        },
        _ => Error::UpstreamFailed(cause),
    }
}

/// What the log may know of a failed call. Bedrock's messages quote requests, so none is kept.
#[derive(Debug)]
struct Failure {
    kind: &'static str,
    code: Option<String>,
    status: Option<u16>,
    request_id: Option<String>,
}

impl Failure {
    fn of(error: &SdkError<RetrieveAndGenerateError, HttpResponse>) -> Self {
        let kind = match error {
            SdkError::ConstructionFailure(_) => "the request can't be made",
            SdkError::TimeoutError(_) => "out of time",
            SdkError::DispatchFailure(failure) if failure.is_timeout() => "no connection in time",
            SdkError::DispatchFailure(failure) if failure.is_io() => "the connection failed",
            SdkError::DispatchFailure(_) => "the request can't be sent",
            SdkError::ResponseError(_) => "the response can't be read",
            _ => "refused",
        };
        Self {
            kind,
            code: error.code().map(str::to_owned),
            status: error.raw_response().map(|response| response.status().as_u16()),
            request_id: error.request_id().map(str::to_owned),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RetrieveAndGenerate: {}", self.kind)?;
        if let Some(code) = &self.code {
            write!(f, ", {code}")?;
        }
        if let Some(status) = self.status {
            write!(f, ", status {status}")?;
        }
        if let Some(request_id) = &self.request_id {
            write!(f, ", request id {request_id}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}
