//! Completing a document: what arrived is checked, put into the data source and ingested.
//!
//! Ended at any step, a repetition finishes the job; and no document stands in the data source without its sidecar.
//!
//! | step | what | if it ends here |
//! | --- | --- | --- |
//! | 1 | the upload is compared with the declaration | nothing has happened |
//! | 2 | the record says `completing` | still `awaiting_upload`; it no longer cleans itself up |
//! | 3 | the sidecar is put under `t/` | a sidecar alone is ignored |
//! | 4 | what was checked is copied beside it | a sync may index it, with its tenant; answers do not cite it yet |
//! | 5 | the record says `processing` | from here on a look at the document does the rest too (`ingestion`) |
//! | 6 | the upload is deleted; what is left expires by the bucket's rules | |
//! | 7 | beside that, the knowledge base is asked to ingest the document, under the lease | |
//!
//! The record says `processing` after the object is there and not before: what says so can be read, and a repetition
//! that finds it has nothing to repeat. In steps 2 to 4 it awaits its upload, which no answer may cite.
//! A deletion at the same time wins: it is seen in step 5, and what step 4 copied is taken away again (see `document`).

use bulkhead_core::document::{Document, DocumentStatus};
use bulkhead_core::error::Error;
use bulkhead_core::request::Request;
use bulkhead_core::response::Response;
use bulkhead_core::tenant::Role;
use http::StatusCode;

use crate::object::Upload;
use crate::sidecar::Sidecar;
use crate::{State, Visit, format, ingestion};

/// How often a change is tried that others get in the way of.
const ATTEMPTS: usize = 4;

/// `POST /documents/{document_id}/complete`.
pub(crate) async fn complete(state: &State, request: &Request) -> Result<Response, Error> {
    let visit = state.admit(state.caller(request, Role::Admin)?).await?;
    let (_, document) = visit.document(request).await?;
    let published = match stage(&document)? {
        Stage::Completed => Published::Before(document),
        Stage::Awaiting => publish(&visit, document).await?,
    };
    let document = match published {
        Published::Now(document) => {
            let ((), document) = tokio::join!(discard(&visit, &document), submit(&visit, document.clone(), request));
            document
        }
        // Who completed it may have been stopped before the last step.
        Published::Before(document) if document.status == DocumentStatus::Processing && !document.submitted => {
            submit(&visit, document, request).await
        }
        Published::Before(document) => document,
    };
    Response::json(StatusCode::ACCEPTED, &document.body())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Awaiting,
    Completed,
}

/// Whether there is something to complete.
fn stage(document: &Document) -> Result<Stage, Error> {
    match document.status {
        DocumentStatus::AwaitingUpload => Ok(Stage::Awaiting),
        DocumentStatus::Processing | DocumentStatus::Indexed => Ok(Stage::Completed),
        DocumentStatus::Failed => Err(Error::conflict(
            "The knowledge base could not take the document; declare it anew.",
        )),
        DocumentStatus::Deleting => Err(Error::conflict("The document is being deleted.")),
    }
}

/// Whether what arrived is what was declared.
fn check(document: &Document, upload: &Upload) -> Result<(), Error> {
    let refuse = |detail: &'static str| Err(Error::unprocessable_at("", detail));
    if upload.size != document.size {
        return refuse("The content has another size than was declared.");
    }
    if upload.sha256 != document.sha256 {
        return refuse("The content has another SHA-256 than was declared.");
    }
    let is_whole = u64::try_from(upload.beginning.len()) == Ok(upload.size);
    if !format::matches(document.media_type, &upload.beginning, is_whole) {
        return refuse("The content is not of the media type that was declared.");
    }
    Ok(())
}

/// A document that stands in the data source.
enum Published {
    /// By this call.
    Now(Document),
    /// By another one.
    Before(Document),
}

/// Step 7. If it can't be done now, the next look at the document does it.
async fn submit(visit: &Visit<'_>, document: Document, request: &Request) -> Document {
    let changed = ingestion::submit(visit, vec![document.clone()], request.time_left()).await;
    changed.into_iter().next().unwrap_or(document)
}

/// Step 6. What is left expires: no reason to fail what is done.
async fn discard(visit: &Visit<'_>, document: &Document) {
    if let Err(error) = visit.objects.delete_upload(document).await {
        tracing::warn!("error.code" = error.code().as_str(), "an upload was left to expire");
    }
}

/// Steps 1 to 5.
async fn publish(visit: &Visit<'_>, document: Document) -> Result<Published, Error> {
    let Some(upload) = visit.objects.upload(&document).await? else {
        return overtaken(visit, &document, "The content has not been uploaded.").await;
    };
    if let Err(refusal) = check(&document, &upload) {
        visit.objects.delete_upload(&document).await?;
        return Err(refusal);
    }
    let document = if document.completing {
        document
    } else {
        match advance(visit, document, |document| document.completing = true).await? {
            Advance::Made(document) => document,
            Advance::Overtaken(document) => return before(document),
            Advance::Withdrawn => return Err(Error::conflict("The document is being deleted.")),
        }
    };
    let sidecar = Sidecar::new(&visit.context, &document)?;
    visit.objects.put_sidecar(&document, sidecar).await?;
    if !visit.objects.copy_in(&document, &upload.etag).await? {
        return overtaken(
            visit,
            &document,
            "The content was replaced; complete the document again.",
        )
        .await;
    }
    let advance = advance(visit, document.clone(), |document| {
        document.status = DocumentStatus::Processing;
        document.completing = false;
        document.submitted = false;
        document.checked_at = None;
    });
    match advance.await? {
        Advance::Made(document) => Ok(Published::Now(document)),
        Advance::Overtaken(document) => before(document),
        Advance::Withdrawn => {
            visit.objects.delete_object(&document).await?;
            Err(Error::conflict("The document is being deleted."))
        }
    }
}

/// What a change of the record came to.
enum Advance {
    Made(Document),
    /// Another call completed the document first.
    Overtaken(Document),
    /// It is being deleted, or gone.
    Withdrawn,
}

/// Changes the record of a document that awaits its upload, unless it no longer does.
async fn advance(
    visit: &Visit<'_>,
    mut document: Document,
    change: impl Fn(&mut Document) + Send,
) -> Result<Advance, Error> {
    for _ in 0..ATTEMPTS {
        let id = document.document_id.clone();
        change(&mut document);
        match visit.store.update_document(document).await {
            Ok(document) => return Ok(Advance::Made(document)),
            Err(Error::Conflict { .. }) => match visit.store.document(&id).await? {
                None => return Ok(Advance::Withdrawn),
                Some(current) => match current.status {
                    DocumentStatus::AwaitingUpload => document = current,
                    DocumentStatus::Processing | DocumentStatus::Indexed | DocumentStatus::Failed => {
                        return Ok(Advance::Overtaken(current));
                    }
                    DocumentStatus::Deleting => return Ok(Advance::Withdrawn),
                },
            },
            Err(error) => return Err(error),
        }
    }
    Err(Error::conflict("The document is being changed; try again."))
}

/// A document without its upload: another call completed it first, or `otherwise` is why there is a conflict.
async fn overtaken(visit: &Visit<'_>, document: &Document, otherwise: &'static str) -> Result<Published, Error> {
    let current = visit
        .store
        .document(&document.document_id)
        .await?
        .ok_or(Error::NotFound)?;
    match stage(&current)? {
        Stage::Completed => Ok(Published::Before(current)),
        Stage::Awaiting => Err(Error::conflict(otherwise)),
    }
}

/// A document that another call completed, if it has not failed since.
fn before(document: Document) -> Result<Published, Error> {
    stage(&document).map(|_| Published::Before(document))
}

#[cfg(test)]
mod tests {
    use bulkhead_core::document::MediaType;
    use bulkhead_core::error::Code;
    use bulkhead_core::time::Timestamp;

    use super::*;

    fn document(status: DocumentStatus) -> Document {
        Document {
            status,
            ..Document::declare(
                "handbook.pdf".to_owned(),
                MediaType::Pdf,
                9000,
                "ab".repeat(32),
                Timestamp::from_unix(0),
            )
        }
    }

    #[test]
    fn completing_may_be_repeated_until_the_document_fails_or_goes() {
        let stage = |status| stage(&document(status)).map_err(|error| error.code());
        assert_eq!(stage(DocumentStatus::AwaitingUpload), Ok(Stage::Awaiting));
        assert_eq!(stage(DocumentStatus::Processing), Ok(Stage::Completed));
        assert_eq!(stage(DocumentStatus::Indexed), Ok(Stage::Completed));
        assert_eq!(stage(DocumentStatus::Failed), Err(Code::Conflict));
        assert_eq!(stage(DocumentStatus::Deleting), Err(Code::Conflict));
    }

    #[test]
    fn only_what_was_declared_is_published() {
        let document = document(DocumentStatus::AwaitingUpload);
        let good = Upload {
            size: 9000,
            sha256: "ab".repeat(32),
            beginning: b"%PDF-1.7\n".to_vec(),
            etag: "\"e\"".to_owned(),
        };
        let refused = |change: &dyn Fn(&mut Upload)| {
            let mut upload = good.clone();
            change(&mut upload);
            assert_eq!(
                check(&document, &upload).map_err(|error| error.code()),
                Err(Code::Unprocessable),
                "{upload:?}"
            );
        };
        assert!(check(&document, &good).is_ok());
        refused(&|upload| upload.size = 8999);
        refused(&|upload| upload.sha256 = "ac".repeat(32));
        refused(&|upload| upload.beginning = b"MZ".to_vec());
        refused(&|upload| upload.beginning.clear());
    }
}
