//! Full syncs of the knowledge base with the bucket, and the only place here that calls Bedrock.
//!
//! A sync and direct ingestion never run side by side: the lease ([`bulkhead_core::store::IngestionLease`]) is held from
//! before the job starts until somebody sees that it has ended, here or in `tenant-admin`. If the function dies between
//! starting a job and noting it, the lease stays; the next attempt after half a minute repeats the start with the lease's
//! token, which Bedrock answers with the same job. Should that be refused, the lease stays for its hour.

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_sdk_bedrockagent::Client;
use aws_sdk_bedrockagent::config;
use aws_sdk_bedrockagent::config::http::HttpResponse;
use aws_sdk_bedrockagent::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_bedrockagent::types::{IngestionJob, IngestionJobStatus};
use bulkhead_core::error::Error;
use bulkhead_core::request::Request;
use bulkhead_core::response::Response;
use bulkhead_core::telemetry::{self, Metric};
use bulkhead_core::tenant::OperatorContext;
use bulkhead_core::time::{Clock, Timestamp};
use http::StatusCode;
use serde::Serialize;

use crate::State;
use crate::config::Config;

/// How many reasons of a failed job are shown, and how many characters of each.
const MAX_REASONS: usize = 10;
const MAX_REASON: usize = 500;

/// A sync, as the contract shows it.
#[derive(Debug, Serialize)]
struct Ingestion {
    ingestion_id: String,
    status: Status,
    started_at: Timestamp,
    updated_at: Timestamp,
    statistics: Statistics,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failure_reasons: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Starting,
    InProgress,
    Complete,
    Failed,
    Stopping,
    Stopped,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Statistics {
    scanned: u64,
    indexed: u64,
    modified: u64,
    deleted: u64,
    failed: u64,
}

impl Status {
    fn of(status: &IngestionJobStatus) -> Result<Self, Error> {
        match status {
            IngestionJobStatus::Starting => Ok(Self::Starting),
            IngestionJobStatus::InProgress => Ok(Self::InProgress),
            IngestionJobStatus::Complete => Ok(Self::Complete),
            IngestionJobStatus::Failed => Ok(Self::Failed),
            IngestionJobStatus::Stopping => Ok(Self::Stopping),
            IngestionJobStatus::Stopped => Ok(Self::Stopped),
            other => Err(Error::UpstreamFailed(
                format!("a job of unknown status {}", other.as_str()).into(),
            )),
        }
    }

    fn has_ended(self) -> bool {
        match self {
            Self::Complete | Self::Failed | Self::Stopped => true,
            Self::Starting | Self::InProgress | Self::Stopping => false,
        }
    }
}

impl Ingestion {
    /// Whether something that it should have indexed is not.
    fn left_something_out(&self) -> bool {
        self.status == Status::Failed || self.statistics.failed > 0
    }

    fn of(job: IngestionJob) -> Result<Self, Error> {
        let statistics = job.statistics.map(|statistics| {
            let count = |number: i64| u64::try_from(number).unwrap_or_default();
            Statistics {
                scanned: count(statistics.number_of_documents_scanned),
                indexed: count(statistics.number_of_new_documents_indexed),
                modified: count(statistics.number_of_modified_documents_indexed),
                deleted: count(statistics.number_of_documents_deleted),
                failed: count(statistics.number_of_documents_failed),
            }
        });
        Ok(Self {
            status: Status::of(&job.status)?,
            started_at: Timestamp::from_unix(job.started_at.secs()),
            updated_at: Timestamp::from_unix(job.updated_at.secs()),
            statistics: statistics.unwrap_or_default(),
            failure_reasons: job
                .failure_reasons
                .iter()
                .flatten()
                .take(MAX_REASONS)
                .map(|reason| redact(reason))
                .collect(),
            ingestion_id: job.ingestion_job_id,
        })
    }
}

/// A reason of Bedrock's without what it names: object URIs hold the bucket and tenants' ids, ARNs the account.
fn redact(reason: &str) -> String {
    let is_edge = |c: char| c.is_whitespace() || matches!(c, '[' | ']' | '(' | ')' | '"' | '\'' | ',' | ';');
    reason
        .split_inclusive(is_edge)
        .flat_map(|piece| {
            let word = piece.trim_end_matches(is_edge);
            let edge = piece.strip_prefix(word).unwrap_or_default();
            let named = word.contains("s3:") || word.contains("arn:");
            [if named { "…" } else { word }, edge]
        })
        .flat_map(str::chars)
        .take(MAX_REASON)
        .collect()
}

/// The knowledge base's syncs.
#[derive(Debug)]
pub(crate) struct KnowledgeBase {
    client: Client,
    id: String,
    data_source: String,
}

/// What came of an attempt to start a job.
enum Start {
    Started(Ingestion),
    /// Bedrock says that it started nothing.
    Refused(Error),
    /// Nobody knows.
    Lost(Error),
}

impl KnowledgeBase {
    /// The configured one.
    pub(crate) fn new(aws: &SdkConfig, config: &Config) -> Self {
        Self {
            client: Client::new(aws),
            id: config.knowledge_base_id.clone(),
            data_source: config.data_source_id.clone(),
        }
    }

    /// Starts a job, or finds the one that `token` started.
    async fn start(&self, token: &str) -> Start {
        let call = self
            .client
            .start_ingestion_job()
            .knowledge_base_id(&self.id)
            .data_source_id(&self.data_source)
            .client_token(token)
            .customize()
            // Tried again after an answer that was lost, a start is throttled (Bedrock takes one in ten seconds), which
            // would look as if nothing had been started.
            .config_override(config::Builder::new().retry_config(RetryConfig::disabled()));
        match call.send().await {
            Ok(answer) => match answer.ingestion_job.map(Ingestion::of) {
                Some(Ok(ingestion)) => Start::Started(ingestion),
                Some(Err(error)) => Start::Lost(error),
                None => Start::Lost(Error::UpstreamFailed("a start without a job".into())),
            },
            Err(error) if error.code() == Some("ConflictException") => {
                Start::Refused(Error::conflict("Documents are being ingested; try again later."))
            }
            Err(error) => {
                let refused = error
                    .raw_response()
                    .is_some_and(|response| response.status().is_client_error());
                let error = failed(error);
                if refused {
                    Start::Refused(error)
                } else {
                    Start::Lost(error)
                }
            }
        }
    }

    /// A job; `None` if there is none of that id.
    async fn job(&self, id: &str) -> Result<Option<Ingestion>, Error> {
        let call = self
            .client
            .get_ingestion_job()
            .knowledge_base_id(&self.id)
            .data_source_id(&self.data_source)
            .ingestion_job_id(id);
        match call.send().await {
            Ok(answer) => answer.ingestion_job.map(Ingestion::of).transpose(),
            Err(error) if matches!(error.code(), Some("ResourceNotFoundException" | "ValidationException")) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Whether a job has ended. One that Bedrock does not know went with its data source. Who asks lets go of its lease if
    /// it has, so it is counted here if it failed.
    async fn has_ended(&self, job: &str, clock: &Clock) -> Result<bool, Error> {
        let Some(ingestion) = self.job(job).await? else {
            return Ok(true);
        };
        let has_ended = ingestion.status.has_ended();
        if has_ended && ingestion.left_something_out() {
            telemetry::count(Metric::IngestionFailure, clock);
        }
        Ok(has_ended)
    }
}

/// What a failed call is to the operator.
fn failed<E>(error: SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    match error.code() {
        Some("ThrottlingException" | "ServiceQuotaExceededException") => Error::UpstreamThrottled(Box::new(error)),
        Some("AccessDeniedException" | "ResourceNotFoundException" | "ValidationException") => Error::internal(error),
        Some(_) => Error::UpstreamFailed(Box::new(error)),
        None => Error::Unavailable(Box::new(error)),
    }
}

/// `POST /ingestions`.
pub(crate) async fn start(state: &State, request: &Request) -> Result<Response, Error> {
    let operator = OperatorContext::new(request.caller(), &state.clock)?;
    let has_ended = |job: String| async move { state.knowledge_base.has_ended(&job, &state.clock).await };
    let Some(lease) = state.lease.take_sync(has_ended).await? else {
        return Err(Error::conflict("Documents are being ingested; try again later."));
    };
    match state.knowledge_base.start(&lease.token).await {
        Start::Started(ingestion) => {
            // Should the note fail, the lease still stands and the next attempt finds the job by its token.
            state.lease.note_job(&lease, &ingestion.ingestion_id).await?;
            tracing::info!(
                "user.id" = operator.user().as_str(),
                "ingestion.id" = ingestion.ingestion_id,
                "sync started"
            );
            Response::json(StatusCode::ACCEPTED, &ingestion)
        }
        Start::Refused(error) => {
            if !lease.is_taken_over() {
                state.lease.release(&lease).await?;
            }
            Err(error)
        }
        Start::Lost(error) => Err(error),
    }
}

/// `GET /ingestions/{ingestion_id}`.
pub(crate) async fn get(state: &State, request: &Request) -> Result<Response, Error> {
    let _operator = OperatorContext::new(request.caller(), &state.clock)?;
    let id = request.path_parameter("ingestion_id")?;
    if !is_job_id(id) {
        return Err(Error::NotFound);
    }
    let ingestion = state.knowledge_base.job(id).await?.ok_or(Error::NotFound)?;
    if ingestion.status.has_ended()
        && let Some(lease) = state.lease.sync().await?
        && lease.job.as_deref() == Some(id)
    {
        if ingestion.left_something_out() {
            telemetry::count(Metric::IngestionFailure, &state.clock);
        }
        state.lease.release(&lease).await?;
    }
    Response::json(StatusCode::OK, &ingestion)
}

/// Whether Bedrock could have given that id
/// (<https://docs.aws.amazon.com/bedrock/latest/APIReference/API_agent_GetIngestionJob.html>).
fn is_job_id(text: &str) -> bool {
    text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use aws_sdk_bedrockagent::primitives::DateTime;
    use aws_sdk_bedrockagent::types::IngestionJobStatistics;

    use super::*;

    #[test]
    fn a_job_id_is_ten_letters_and_digits() {
        assert!(is_job_id("AbCdE12345"));
        for bad in ["", "AbCdE1234", "AbCdE123456", "AbCdE1234/", "ÄbCdE1234", "../../../x"] {
            assert!(!is_job_id(bad), "{bad}");
        }
    }

    #[test]
    fn reasons_name_no_object_and_no_account() {
        let check = |reason, expected| assert_eq!(redact(reason), expected);
        check("no such model", "no such model");
        check(
            "Ignored 1 files [Files: s3://bucket/t/acme/1.pdf, s3://bucket/t/acme-2/2.pdf].",
            "Ignored 1 files [Files: …, …].",
        );
        check(
            "\"arn:aws:iam::123456789012:role/r\" can't read (uri=s3://bucket)",
            "\"…\" can't read (…)",
        );
        assert_eq!(redact(&"é".repeat(2048)).chars().count(), MAX_REASON);
    }

    #[test]
    fn an_ingestion_is_a_job_in_our_words() {
        let job = IngestionJob::builder()
            .knowledge_base_id("KB12345678")
            .data_source_id("DS12345678")
            .ingestion_job_id("JOB1234567")
            .status(IngestionJobStatus::InProgress)
            .started_at(DateTime::from_secs(1_767_225_600))
            .updated_at(DateTime::from_secs(1_767_225_601))
            .statistics(
                IngestionJobStatistics::builder()
                    .number_of_documents_scanned(5)
                    .number_of_new_documents_indexed(3)
                    .number_of_modified_documents_indexed(1)
                    .number_of_documents_deleted(2)
                    .number_of_documents_failed(1)
                    .build(),
            )
            .failure_reasons("s3://bucket/t/acme/1.pdf is broken")
            .build()
            .unwrap();
        insta::assert_json_snapshot!(Ingestion::of(job).unwrap(), @r#"
        {
          "ingestion_id": "JOB1234567",
          "status": "in_progress",
          "started_at": "2026-01-01T00:00:00Z",
          "updated_at": "2026-01-01T00:00:01Z",
          "statistics": {
            "scanned": 5,
            "indexed": 3,
            "modified": 1,
            "deleted": 2,
            "failed": 1
          },
          "failure_reasons": [
            "… is broken"
          ]
        }
        "#);
    }

    #[test]
    fn a_job_ends_in_one_of_three_ways() {
        let ended = |status| Status::of(&status).map(Status::has_ended);
        assert!(ended(IngestionJobStatus::Complete).unwrap());
        assert!(ended(IngestionJobStatus::Failed).unwrap());
        assert!(ended(IngestionJobStatus::Stopped).unwrap());
        assert!(!ended(IngestionJobStatus::Stopping).unwrap());
        assert!(!ended(IngestionJobStatus::Starting).unwrap());
        assert!(!ended(IngestionJobStatus::InProgress).unwrap());
        assert!(ended(IngestionJobStatus::from("PAUSED")).is_err());
    }
}
