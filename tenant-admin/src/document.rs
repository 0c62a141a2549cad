//! Documents: declare, list, get, delete.
//!
//! Deleting goes in this order, and whoever looks at the document afterwards does what is still to be done:
//!
//! | step | what | if it ends here |
//! | --- | --- | --- |
//! | 1 | the record says `deleting` | answers leave its passages out and content is 404 from here on |
//! | 2 | the upload, then the object are deleted | a completion that is under way finds nothing to copy any more |
//! | 3 | the knowledge base is asked to forget it, under the lease | a sync forgets it too |
//! | 4 | the sidecar is deleted | a sidecar alone is ignored |
//! | 5 | the knowledge base says that it knows no such document: everything is deleted once more, the record last | |
//!
//! While a completion may be under way (`completing`), step 4 waits for step 5, and step 5 until that completion has run out
//! of time: so what it may copy in between has its sidecar, and does not stay.

use bulkhead_core::document::{Document, DocumentBody, DocumentStatus};
use bulkhead_core::error::Error;
use bulkhead_core::request::Request;
use bulkhead_core::response::Response;
use bulkhead_core::store::{Declaration, PageRequest};
use bulkhead_core::tenant::Role;
use http::StatusCode;
use serde::Serialize;

use crate::declaration::{DeclareDocument, parse_key};
use crate::sidecar::Sidecar;
use crate::{Readable, State, Visit, ingestion};

/// How often a change is tried that others get in the way of.
const ATTEMPTS: usize = 4;

/// The body of `GET /documents`.
#[derive(Debug, Serialize)]
struct DocumentList<'a> {
    documents: Vec<DocumentBody<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<&'a str>,
}

/// `POST /documents`.
pub(crate) async fn declare(state: &State, request: &Request) -> Result<Response, Error> {
    let visit = state.admit(state.caller(request, Role::Admin)?).await?;
    let profile = visit.profile().await?;
    let key = request.header("Idempotency-Key")?.map(parse_key).transpose()?;
    let declared = request.json::<DeclareDocument>()?.parse(&profile)?;
    let canonical = serde_json::to_vec(&declared).map_err(Error::internal)?;
    let document = declared.into_document(state.clock.now());
    // What would not fit beside the content is refused before there is any.
    Sidecar::new(&visit.context, &document)?;
    let declaration = visit
        .store
        .declare(document, key.map(|key| (key, canonical.as_slice())))
        .await?;
    match declaration {
        Declaration::Made(document) => Response::json(StatusCode::CREATED, &document.body()),
        Declaration::KeyReused => Err(Error::Unprocessable {
            detail: "The Idempotency-Key was used with another request.".into(),
            violations: Vec::new(),
        }),
        Declaration::Gone => Err(Error::conflict(
            "The document that was made with this Idempotency-Key is no longer there.",
        )),
    }
}

/// `GET /documents`.
pub(crate) async fn list(state: &State, request: &Request) -> Result<Response, Error> {
    let context = state.caller(request, Role::Admin)?;
    let wanted = PageRequest::parse(request.query_parameter("limit")?, request.query_parameter("cursor")?)?;
    let status = request
        .query_parameter("status")?
        .map(|text| DocumentStatus::parse(text).ok_or_else(|| Error::invalid_at("?status", "Not a document's status.")))
        .transpose()?;
    let visit = state.admit(context).await?;
    let (_, page) = tokio::try_join!(
        visit.profile(),
        visit.store.documents(status, wanted.limit, wanted.cursor.as_ref())
    )?;
    let mut documents = ingestion::look(&visit, page.items, request.time_left()).await;
    // The look may have found that some are no longer what was asked for.
    documents.retain(|document| status.is_none_or(|status| document.status == status));
    let body = DocumentList {
        documents: documents.iter().map(Document::body).collect(),
        next_cursor: page.next.as_ref().map(|next| next.as_str()),
    };
    Response::json(StatusCode::OK, &body)
}

/// `GET /documents/{document_id}`.
pub(crate) async fn get(state: &State, request: &Request) -> Result<Response, Error> {
    let visit = state.admit(state.caller(request, Role::Admin)?).await?;
    let document = match visit.readable(request).await? {
        (_, Readable::Own(document)) => document,
        // Its owner has it looked after.
        (_, Readable::Shared { document, .. }) => return Response::json(StatusCode::OK, &document.body()),
    };
    let seen = ingestion::look(&visit, vec![document], request.time_left()).await;
    let document = seen.first().ok_or(Error::NotFound)?;
    Response::json(StatusCode::OK, &document.body())
}

/// `DELETE /documents/{document_id}`. Repeating it goes on with it.
pub(crate) async fn delete(state: &State, request: &Request) -> Result<Response, Error> {
    let visit = state.admit(state.caller(request, Role::Admin)?).await?;
    let (_, document) = visit.document(request).await?;
    let (document, extent) = mark(&visit, document).await?;
    let document = match extent {
        Extent::Declared => {
            visit.objects.delete_upload(&document).await?;
            visit.store.remove_document(&document.document_id).await?;
            document
        }
        Extent::Everything => {
            let changed = ingestion::submit(&visit, vec![document.clone()], request.time_left()).await;
            changed.into_iter().next().unwrap_or(document)
        }
    };
    Response::json(StatusCode::ACCEPTED, &document.body())
}

/// How much of a document there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    /// A record, and perhaps an upload: the data source and the knowledge base never had any of it.
    Declared,
    /// Anything.
    Everything,
}

fn extent(document: &Document) -> Extent {
    match document.status {
        DocumentStatus::AwaitingUpload if !document.completing => Extent::Declared,
        DocumentStatus::AwaitingUpload
        | DocumentStatus::Processing
        | DocumentStatus::Indexed
        | DocumentStatus::Failed
        | DocumentStatus::Deleting => Extent::Everything,
    }
}

/// Has the record say that the document is being deleted, whatever else happens to it at the same time.
async fn mark(visit: &Visit<'_>, mut document: Document) -> Result<(Document, Extent), Error> {
    for _ in 0..ATTEMPTS {
        let extent = extent(&document);
        if document.status == DocumentStatus::Deleting {
            return Ok((document, extent));
        }
        let mut marked = document.clone();
        marked.status = DocumentStatus::Deleting;
        marked.reason = None;
        marked.submitted = false;
        marked.checked_at = None;
        match visit.store.update_document(marked).await {
            Ok(marked) => return Ok((marked, extent)),
            Err(Error::Conflict { .. }) => {
                document = visit
                    .store
                    .document(&document.document_id)
                    .await?
                    .ok_or(Error::NotFound)?;
            }
            Err(error) => return Err(error),
        }
    }
    Err(Error::conflict("The document is being changed; try again."))
}
