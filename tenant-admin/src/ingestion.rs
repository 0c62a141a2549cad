//! The knowledge base: having documents ingested or forgotten, and reading back how far it is. The one place that calls
//! Bedrock.
//!
//! Whoever looks at a document that is on its way also does what its completion or deletion left undone. A look never
//! fails: what can't be found out now is answered as it was last known. A document that nobody looks at is taken up by the
//! next full sync, because the bucket says it all.

use std::collections::HashMap;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_bedrockagent::Client;
use aws_sdk_bedrockagent::config::http::HttpResponse;
use aws_sdk_bedrockagent::error::{BuildError, ProvideErrorMetadata, SdkError};
use aws_sdk_bedrockagent::types::{
    ContentDataSourceType, CustomS3Location, DocumentContent, DocumentIdentifier, DocumentMetadata,
    DocumentStatus as Answer, IngestionJobStatus, KnowledgeBaseDocument, KnowledgeBaseDocumentDetail,
    MetadataSourceType, S3Content, S3Location,
};
use bulkhead_core::document::{Document, DocumentId, DocumentStatus};
use bulkhead_core::error::Error;
use bulkhead_core::store::Direct;
use bulkhead_core::telemetry::{self, Metric};
use bulkhead_core::time::{Clock, Timestamp};
use futures::future::join_all;

use crate::Visit;
use crate::config::Config;
use crate::object::Location;

/// The most documents of one request
/// (<https://docs.aws.amazon.com/bedrock/latest/APIReference/API_agent_IngestKnowledgeBaseDocuments.html>).
const BATCH: usize = 10;
/// The longest that a caller waits for the knowledge base: it can be asked again.
const PATIENCE: Duration = Duration::from_secs(8);
/// What is kept back of the caller's time, to answer with what is known.
const MARGIN: Duration = Duration::from_secs(1);
/// No completion is under way any longer that began so long ago: functions are given 28 seconds.
const LONGEST_COMPLETION: Duration = Duration::from_secs(30);

/// What a look at a document comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing yet.
    Wait,
    /// The knowledge base is to be asked (again) for what the status says.
    Submit,
    /// It is indexed.
    Indexed,
    /// It failed, for that reason.
    Failed(&'static str),
    /// The knowledge base has forgotten it.
    Gone,
}

/// Whether the knowledge base may be asked about a document now.
fn is_due(document: &Document, now: Timestamp, max_age: Duration) -> bool {
    match document.status {
        DocumentStatus::Processing | DocumentStatus::Deleting => {
            document.checked_at.is_none_or(|at| at.plus(max_age) <= now)
        }
        DocumentStatus::AwaitingUpload | DocumentStatus::Indexed | DocumentStatus::Failed => false,
    }
}

/// What the knowledge base's answer means for a document. Its own reasons are not shown: they name objects.
fn judge(document: &Document, answer: &Answer, now: Timestamp) -> Verdict {
    match document.status {
        DocumentStatus::Processing => match answer {
            Answer::Indexed => Verdict::Indexed,
            Answer::NotFound => Verdict::Submit,
            Answer::Failed => Verdict::Failed("The knowledge base could not read the document."),
            Answer::PartiallyIndexed => Verdict::Failed("The knowledge base could read only a part of the document."),
            Answer::MetadataPartiallyIndexed | Answer::MetadataUpdateFailed => {
                Verdict::Failed("The knowledge base could not take the document's metadata.")
            }
            Answer::Ignored => Verdict::Failed("The knowledge base does not take such a document."),
            // On its way, or in a state that we do not know yet.
            _ => Verdict::Wait,
        },
        DocumentStatus::Deleting => match answer {
            Answer::NotFound if document.submitted => {
                let has_settled = !document.completing || document.updated_at.plus(LONGEST_COMPLETION) <= now;
                if has_settled { Verdict::Gone } else { Verdict::Wait }
            }
            // Not known, but nor was it asked to forget it: a sync may be reading the document at this moment.
            Answer::NotFound
            | Answer::Indexed
            | Answer::PartiallyIndexed
            | Answer::Failed
            | Answer::Ignored
            | Answer::MetadataPartiallyIndexed
            | Answer::MetadataUpdateFailed => Verdict::Submit,
            _ => Verdict::Wait,
        },
        DocumentStatus::AwaitingUpload | DocumentStatus::Indexed | DocumentStatus::Failed => Verdict::Wait,
    }
}

/// The knowledge base's documents.
#[derive(Debug)]
pub(crate) struct KnowledgeBase {
    client: Client,
    id: String,
    data_source: String,
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

    /// Asks for documents to be ingested, at most [`BATCH`]. Each names its sidecar: Bedrock does not look for it, and
    /// would index the document as nobody's.
    async fn ingest(&self, _lease: &Direct, locations: &[Location]) -> Result<(), Error> {
        let documents = locations.iter().map(ingestible).collect::<Result<_, _>>();
        let call = self
            .client
            .ingest_knowledge_base_documents()
            .knowledge_base_id(&self.id)
            .data_source_id(&self.data_source)
            .set_documents(Some(documents.map_err(Error::internal)?));
        call.send().await.map_err(failed)?;
        Ok(())
    }

    /// Asks for documents to be forgotten, at most [`BATCH`].
    async fn forget(&self, _lease: &Direct, locations: &[Location]) -> Result<(), Error> {
        let call = self
            .client
            .delete_knowledge_base_documents()
            .knowledge_base_id(&self.id)
            .data_source_id(&self.data_source)
            .set_document_identifiers(Some(identifiers(locations)?));
        call.send().await.map_err(failed)?;
        Ok(())
    }

    /// What is known of documents, at most [`BATCH`], by their objects' URIs.
    async fn statuses(&self, locations: &[Location]) -> Result<HashMap<String, Answer>, Error> {
        let call = self
            .client
            .get_knowledge_base_documents()
            .knowledge_base_id(&self.id)
            .data_source_id(&self.data_source)
            .set_document_identifiers(Some(identifiers(locations)?));
        let details = call.send().await.map_err(failed)?.document_details.unwrap_or_default();
        Ok(details.into_iter().filter_map(told).collect())
    }

    /// Whether a sync's job has ended. One that Bedrock does not know went with its data source. Who asks lets go of the
    /// lease if it has, so it is counted here if it failed: nobody's in particular, although a tenant noticed.
    async fn has_ended(&self, job: &str, clock: &Clock) -> Result<bool, Error> {
        let call = self
            .client
            .get_ingestion_job()
            .knowledge_base_id(&self.id)
            .data_source_id(&self.data_source)
            .ingestion_job_id(job);
        match call.send().await {
            Ok(answer) => {
                let Some(job) = answer.ingestion_job else {
                    return Ok(false);
                };
                let ended = matches!(
                    job.status,
                    IngestionJobStatus::Complete | IngestionJobStatus::Failed | IngestionJobStatus::Stopped
                );
                let left_out = job
                    .statistics
                    .is_some_and(|statistics| statistics.number_of_documents_failed > 0);
                if job.status == IngestionJobStatus::Failed || (ended && left_out) {
                    telemetry::count(Metric::IngestionFailure, clock);
                }
                Ok(ended)
            }
            Err(error) if error.code() == Some("ResourceNotFoundException") => Ok(true),
            Err(error) => Err(failed(error)),
        }
    }
}

fn s3_location(location: &Location) -> Result<S3Location, BuildError> {
    S3Location::builder().uri(&location.document).build()
}

fn ingestible(location: &Location) -> Result<KnowledgeBaseDocument, BuildError> {
    let content = DocumentContent::builder()
        .data_source_type(ContentDataSourceType::S3)
        .s3(S3Content::builder().s3_location(s3_location(location)?).build())
        .build()?;
    let metadata = DocumentMetadata::builder()
        .r#type(MetadataSourceType::S3Location)
        .s3_location(CustomS3Location::builder().uri(&location.sidecar).build()?)
        .build()?;
    Ok(KnowledgeBaseDocument::builder()
        .content(content)
        .metadata(metadata)
        .build())
}

fn identifiers(locations: &[Location]) -> Result<Vec<DocumentIdentifier>, Error> {
    locations
        .iter()
        .map(|location| {
            DocumentIdentifier::builder()
                .data_source_type(ContentDataSourceType::S3)
                .s3(s3_location(location)?)
                .build()
        })
        .collect::<Result<_, _>>()
        .map_err(Error::internal)
}

fn told(detail: KnowledgeBaseDocumentDetail) -> Option<(String, Answer)> {
    // The reason's text may hold names and is not logged; that there is one helps to find it in the knowledge base's log.
    if let Some(reason) = &detail.status_reason {
        tracing::info!(
            "document.status" = detail.status.as_str(),
            "document.reason.length" = reason.len(),
            "the knowledge base gave a reason"
        );
    }
    Some((detail.identifier?.s3?.uri, detail.status))
}

/// What a failed call is to the caller.
fn failed<E>(error: SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    match error.code() {
        Some("ThrottlingException" | "ServiceQuotaExceededException") => Error::UpstreamThrottled(Box::new(error)),
        Some("ConflictException") => Error::conflict("The knowledge base is busy with another ingestion."),
        Some("AccessDeniedException" | "ResourceNotFoundException" | "ValidationException") => Error::internal(error),
        Some(_) => Error::UpstreamFailed(Box::new(error)),
        None => Error::Unavailable(Box::new(error)),
    }
}

/// What has become of a document.
enum Outcome {
    Changed(Box<Document>),
    Removed,
}

/// Documents as they are now, those left out that have gone. The knowledge base is asked about those on their way, and
/// given what it has not been given yet.
pub(crate) async fn look(visit: &Visit<'_>, documents: Vec<Document>, time_left: Duration) -> Vec<Document> {
    let now = visit.state.clock.now();
    let due: Vec<Document> = documents
        .iter()
        .filter(|document| is_due(document, now, visit.state.ingestion_status_max_age))
        .cloned()
        .collect();
    if due.is_empty() {
        return documents;
    }
    let mut outcomes = patiently(time_left, look_at(visit, due, now)).await;
    documents
        .into_iter()
        .filter_map(|document| match outcomes.remove(&document.document_id) {
            None => Some(document),
            Some(Outcome::Changed(changed)) => Some(*changed),
            Some(Outcome::Removed) => None,
        })
        .collect()
}

/// Gives the knowledge base what `documents` are waiting for: to be ingested if they are processing, to be forgotten if
/// they are being deleted. Answers those whose records changed; the others are tried again by the next look.
pub(crate) async fn submit(visit: &Visit<'_>, documents: Vec<Document>, time_left: Duration) -> Vec<Document> {
    patiently(time_left, submit_now(visit, documents)).await
}

/// What `work` comes to, or nothing if it takes too long.
async fn patiently<T: Default>(time_left: Duration, work: impl Future<Output = T>) -> T {
    let patience = time_left.saturating_sub(MARGIN).min(PATIENCE);
    match tokio::time::timeout(patience, work).await {
        Ok(done) => done,
        Err(_) => {
            tracing::warn!("the knowledge base took too long");
            T::default()
        }
    }
}

async fn look_at(visit: &Visit<'_>, due: Vec<Document>, now: Timestamp) -> HashMap<DocumentId, Outcome> {
    let mut outcomes = HashMap::new();
    let mut unsubmitted = Vec::new();
    let claims = due.into_iter().map(|mut document| async move {
        match visit.store.begin_look(&document).await {
            Ok(true) => {
                document.checked_at = Some(now);
                Some(document)
            }
            Ok(false) => None,
            Err(error) => {
                report(&error, "a look was not noted");
                None
            }
        }
    });
    let claimed: Vec<Document> = join_all(claims).await.into_iter().flatten().collect();
    for batch in claimed.chunks(BATCH) {
        let locations: Vec<Location> = batch.iter().map(|document| visit.objects.location(document)).collect();
        let answers = match visit.state.knowledge_base.statuses(&locations).await {
            Ok(answers) => answers,
            Err(error) => {
                report(&error, "the knowledge base was not asked about documents");
                break;
            }
        };
        let settled = batch.iter().zip(&locations).map(|(document, location)| {
            let verdict = answers
                .get(&location.document)
                .map_or(Verdict::Wait, |answer| judge(document, answer, now));
            async move { (document, verdict, settle(visit, document, verdict).await) }
        });
        for (document, verdict, outcome) in join_all(settled).await {
            if verdict == Verdict::Submit {
                unsubmitted.push(document.clone());
            }
            if let Some(outcome) = outcome {
                outcomes.insert(document.document_id.clone(), outcome);
            }
        }
    }
    for document in submit_now(visit, unsubmitted).await {
        outcomes.insert(document.document_id.clone(), Outcome::Changed(Box::new(document)));
    }
    outcomes
}

/// Writes down what a look found.
async fn settle(visit: &Visit<'_>, document: &Document, verdict: Verdict) -> Option<Outcome> {
    let mut next = document.clone();
    match verdict {
        Verdict::Wait | Verdict::Submit => return None,
        Verdict::Indexed => {
            next.status = DocumentStatus::Indexed;
            next.submitted = true;
        }
        Verdict::Failed(reason) => {
            next.status = DocumentStatus::Failed;
            next.reason = Some(reason.to_owned());
        }
        Verdict::Gone => {
            return match remove(visit, document).await {
                Ok(()) => Some(Outcome::Removed),
                Err(error) => {
                    report(&error, "a deleted document's record was left");
                    None
                }
            };
        }
    }
    let outcome = update(visit, next).await;
    if matches!(verdict, Verdict::Failed(_))
        && matches!(&outcome, Some(Outcome::Changed(document)) if document.status == DocumentStatus::Failed)
    {
        telemetry::count_for(
            visit.context.tenant().as_str(),
            Metric::IngestionFailure,
            &visit.state.clock,
        );
    }
    outcome
}

/// The last step of a deletion: what a completion may have put there meanwhile goes too, and the record last.
async fn remove(visit: &Visit<'_>, document: &Document) -> Result<(), Error> {
    visit.objects.delete_upload(document).await?;
    visit.objects.delete_object(document).await?;
    visit.objects.delete_sidecar(document).await?;
    visit.store.remove_document(&document.document_id).await
}

/// Writes a record; if somebody else changed it, theirs is the news.
async fn update(visit: &Visit<'_>, document: Document) -> Option<Outcome> {
    let id = document.document_id.clone();
    let current = match visit.store.update_document(document).await {
        Err(Error::Conflict { .. }) => visit.store.document(&id).await,
        written => written.map(Some),
    };
    match current {
        Ok(Some(current)) => Some(Outcome::Changed(Box::new(current))),
        Ok(None) => Some(Outcome::Removed),
        Err(error) => {
            report(&error, "a document's status was not written");
            None
        }
    }
}

async fn submit_now(visit: &Visit<'_>, documents: Vec<Document>) -> Vec<Document> {
    let (leaving, arriving): (Vec<Document>, Vec<Document>) = documents
        .into_iter()
        .partition(|document| document.status == DocumentStatus::Deleting);
    // Without the lease too: objects are gone before a sync, and sidecars never before their objects.
    let leaving = withdraw(visit, leaving).await;
    if leaving.is_empty() && arriving.is_empty() {
        return Vec::new();
    }
    let knowledge_base = &visit.state.knowledge_base;
    let clock = &visit.state.clock;
    let has_ended = |job: String| async move { knowledge_base.has_ended(&job, clock).await };
    let lease = match visit.data.lease.take_direct(has_ended).await {
        Ok(Some(lease)) => lease,
        Ok(None) => {
            tracing::info!("a sync is running; documents wait for it");
            return Vec::new();
        }
        Err(error) => {
            report(&error, "the lease on the data source was not taken");
            return Vec::new();
        }
    };
    let mut accepted = Vec::new();
    for batch in arriving.chunks(BATCH) {
        let locations: Vec<Location> = batch.iter().map(|document| visit.objects.location(document)).collect();
        match knowledge_base.ingest(&lease, &locations).await {
            Ok(()) => accepted.extend_from_slice(batch),
            Err(error) => report(&error, "documents were not submitted"),
        }
    }
    for batch in leaving.chunks(BATCH) {
        let locations: Vec<Location> = batch.iter().map(|document| visit.objects.location(document)).collect();
        match knowledge_base.forget(&lease, &locations).await {
            Ok(()) => {
                delete_sidecars(visit, batch).await;
                accepted.extend_from_slice(batch);
            }
            Err(error) => report(&error, "documents were not forgotten"),
        }
    }
    let noted = accepted.into_iter().map(|mut document| async move {
        if document.submitted {
            return None;
        }
        document.submitted = true;
        document.checked_at = Some(visit.state.clock.now());
        match update(visit, document).await {
            Some(Outcome::Changed(document)) => Some(*document),
            Some(Outcome::Removed) | None => None,
        }
    });
    join_all(noted).await.into_iter().flatten().collect()
}

/// Deletes the uploads and objects of documents that are leaving, and answers those of which nothing is left but the
/// sidecar. The upload goes first: what is not there can't be copied in any more.
async fn withdraw(visit: &Visit<'_>, documents: Vec<Document>) -> Vec<Document> {
    let withdrawn = documents.into_iter().map(|document| async move {
        let deleted = async {
            visit.objects.delete_upload(&document).await?;
            visit.objects.delete_object(&document).await
        };
        match deleted.await {
            Ok(()) => Some(document),
            Err(error) => {
                report(&error, "a document's object was not deleted");
                None
            }
        }
    });
    join_all(withdrawn).await.into_iter().flatten().collect()
}

/// Deletes the sidecars of documents whose objects are gone, if no completion can put an object back.
async fn delete_sidecars(visit: &Visit<'_>, documents: &[Document]) {
    let settled = documents.iter().filter(|document| !document.completing);
    let deleted = settled.map(|document| visit.objects.delete_sidecar(document));
    for outcome in join_all(deleted).await {
        if let Err(error) = outcome {
            report(&error, "a sidecar was left for the end of its deletion");
        }
    }
}

/// Notes what a caller is not told of, because the next look tries again.
fn report(error: &Error, what: &'static str) {
    tracing::warn!(
        "error.code" = error.code().as_str(),
        "error.cause" = %error,
        "{what}"
    );
}

#[cfg(test)]
mod tests {
    use bulkhead_core::document::MediaType;

    use super::*;

    fn document(status: DocumentStatus) -> Document {
        Document {
            status,
            submitted: true,
            updated_at: Timestamp::from_unix(1000),
            ..Document::declare(
                "handbook.pdf".to_owned(),
                MediaType::Pdf,
                1,
                "0".repeat(64),
                Timestamp::from_unix(0),
            )
        }
    }

    const NOW: Timestamp = Timestamp::from_unix(1010);

    #[test]
    fn only_documents_on_their_way_are_asked_about_and_not_too_often() {
        let due = |status, checked_at: Option<i64>| {
            let mut document = document(status);
            document.checked_at = checked_at.map(Timestamp::from_unix);
            is_due(&document, NOW, Duration::from_secs(5))
        };
        for status in [DocumentStatus::Processing, DocumentStatus::Deleting] {
            assert!(due(status, None));
            assert!(due(status, Some(1005)));
            assert!(!due(status, Some(1006)));
        }
        for status in [
            DocumentStatus::AwaitingUpload,
            DocumentStatus::Indexed,
            DocumentStatus::Failed,
        ] {
            assert!(!due(status, None), "{status:?}");
        }
    }

    #[test]
    fn a_document_being_processed_ends_as_the_knowledge_base_says() {
        let check = |answer: &str, expected: fn(Verdict) -> bool| {
            let verdict = judge(&document(DocumentStatus::Processing), &Answer::from(answer), NOW);
            assert!(expected(verdict), "{answer}: {verdict:?}");
        };
        check("INDEXED", |verdict| verdict == Verdict::Indexed);
        check("NOT_FOUND", |verdict| verdict == Verdict::Submit);
        for answer in [
            "FAILED",
            "PARTIALLY_INDEXED",
            "METADATA_PARTIALLY_INDEXED",
            "METADATA_UPDATE_FAILED",
            "IGNORED",
        ] {
            check(answer, |verdict| matches!(verdict, Verdict::Failed(_)));
        }
        for answer in [
            "STARTING",
            "PENDING",
            "IN_PROGRESS",
            "DELETING",
            "DELETE_IN_PROGRESS",
            "NEW",
        ] {
            check(answer, |verdict| verdict == Verdict::Wait);
        }
    }

    #[test]
    fn a_document_being_deleted_is_gone_when_the_knowledge_base_was_asked_to_forget_it_and_has() {
        let deleting = document(DocumentStatus::Deleting);
        let judge = |document: &Document, answer: &str, now| judge(document, &Answer::from(answer), now);
        assert_eq!(judge(&deleting, "NOT_FOUND", NOW), Verdict::Gone);
        assert_eq!(judge(&deleting, "DELETING", NOW), Verdict::Wait);
        assert_eq!(judge(&deleting, "DELETE_IN_PROGRESS", NOW), Verdict::Wait);
        assert_eq!(judge(&deleting, "IN_PROGRESS", NOW), Verdict::Wait);
        // An ingestion that was under way has brought it back.
        assert_eq!(judge(&deleting, "INDEXED", NOW), Verdict::Submit);
        assert_eq!(judge(&deleting, "FAILED", NOW), Verdict::Submit);
        let mut unasked = deleting.clone();
        unasked.submitted = false;
        assert_eq!(judge(&unasked, "NOT_FOUND", NOW), Verdict::Submit);
        // A completion may still be copying; its record is kept until it can't be.
        let mut completing = deleting;
        completing.completing = true;
        assert_eq!(judge(&completing, "NOT_FOUND", NOW), Verdict::Wait);
        assert_eq!(
            judge(&completing, "NOT_FOUND", Timestamp::from_unix(1030)),
            Verdict::Gone
        );
    }

    #[test]
    fn each_document_names_its_sidecar() {
        let location = Location {
            document: "s3://bucket/t/acme/1.pdf".to_owned(),
            sidecar: "s3://bucket/t/acme/1.pdf.metadata.json".to_owned(),
        };
        let document = ingestible(&location).unwrap();
        let metadata = document.metadata().unwrap();
        assert_eq!(metadata.r#type(), &MetadataSourceType::S3Location);
        assert_eq!(metadata.s3_location().unwrap().uri(), location.sidecar);
        assert!(metadata.inline_attributes().is_empty());
        let content = document.content().unwrap();
        assert_eq!(content.data_source_type(), &ContentDataSourceType::S3);
        assert_eq!(content.s3().unwrap().s3_location().unwrap().uri(), location.document);
    }
}
