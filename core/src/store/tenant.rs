//! A tenant's own items: documents and idempotency records here, conversations in [`conversation`].

mod conversation;

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure};
use data_encoding::HEXLOWER;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::document::{DOCUMENTS, document_key};
use super::{Cursor, Item, MAX_PAGE, Page, Table, TenantTable, condition_failed, failed, item, key, read, text};
use crate::document::{Document, DocumentId, DocumentStatus};
use crate::error::Error;
use crate::tenant::{TenantContext, TenantId, UserId};
use crate::time::{Clock, Timestamp};

/// How long a declared document waits for its content before its record is cleaned up.
const UPLOAD_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// How long an idempotency key is remembered.
const IDEMPOTENCY_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// The items of one tenant, as one of its users. Every key begins with the tenant of the context that opened it.
#[derive(Clone, Debug)]
pub struct TenantStore {
    table: Table,
    pk: String,
    user: UserId,
    clock: Clock,
}

/// What is listed: the items whose sort keys begin with `prefix`, all or those that a filter lets through.
struct List<'a> {
    prefix: &'a str,
    newest_first: bool,
    filter: Option<Filter>,
}

/// Lets through the items whose attribute compares so with a value.
struct Filter {
    name: &'static str,
    comparison: &'static str,
    value: AttributeValue,
}

/// What came of declaring a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Declaration {
    /// It was made now, or by an earlier call with the same key and the same request.
    Made(Box<Document>),
    /// The key was used with another request.
    KeyReused,
    /// The key made a document that is no longer there.
    Gone,
}

#[derive(Debug, Serialize, Deserialize)]
struct IdempotencyRecord {
    state: IdempotencyState,
    request: String,
    document_id: DocumentId,
    expires_at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum IdempotencyState {
    /// The document may not have been made yet; whoever comes makes it.
    Begun,
    /// The document was made; if it is not there now, it was deleted.
    Done,
}

impl TenantStore {
    /// The items of the context's tenant.
    pub fn new(table: &TenantTable, context: &TenantContext, clock: &Clock) -> Self {
        Self {
            table: table.table().clone(),
            pk: partition(context.tenant()),
            user: context.user().clone(),
            clock: clock.clone(),
        }
    }

    /// Declares `document`, once per idempotency key if there is one: `request` is what tells two requests apart.
    ///
    /// Two writes without a transaction, in an order that a crash between them does no harm: the record names the
    /// document before it exists, and whoever repeats the call makes it then.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn declare(
        &self,
        document: Document,
        idempotency_key: Option<(&str, &[u8])>,
    ) -> Result<Declaration, Error> {
        let Some((client_key, request)) = idempotency_key else {
            self.put_new(&document).await?;
            return Ok(Declaration::Made(Box::new(document)));
        };
        let now = self.clock.now();
        let sk = format!("IDEM#declare_document#{}#{}", self.user, hash(client_key.as_bytes()));
        let record = IdempotencyRecord {
            state: IdempotencyState::Begun,
            request: hash(request),
            document_id: document.document_id.clone(),
            expires_at: now.plus(IDEMPOTENCY_LIFETIME),
        };
        let mut document = document;
        if let Some(earlier) = self.claim(&sk, &record, now).await? {
            if earlier.request != record.request {
                return Ok(Declaration::KeyReused);
            }
            document.document_id = earlier.document_id;
            if earlier.state == IdempotencyState::Done {
                return Ok(match self.document(&document.document_id).await? {
                    Some(document) => Declaration::Made(Box::new(document)),
                    None => Declaration::Gone,
                });
            }
        }
        if !self.put_new(&document).await? {
            // Another call with the same key made it first: its word counts, times included.
            match self.document(&document.document_id).await? {
                Some(made) => document = made,
                None => return Ok(Declaration::Gone),
            }
        }
        self.finish(&sk).await?;
        Ok(Declaration::Made(Box::new(document)))
    }

    /// A document's record.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn document(&self, id: &DocumentId) -> Result<Option<Document>, Error> {
        self.table.document(&self.pk, id).await
    }

    /// The records of `ids`, those that are there.
    ///
    /// # Errors
    /// [`Error::Unavailable`], also if DynamoDB leaves some unread: a document whose state is unknown must not be cited.
    pub async fn documents_by_id(&self, ids: &[DocumentId]) -> Result<HashMap<DocumentId, Document>, Error> {
        self.table.documents_by_id(&self.pk, ids).await
    }

    /// A part of the tenant's documents, newest first, all or those of one status. `limit` is at most [`MAX_PAGE`].
    ///
    /// # Errors
    /// [`Error::Invalid`] for a cursor of another list, [`Error::Unavailable`].
    pub async fn documents(
        &self,
        status: Option<DocumentStatus>,
        limit: usize,
        cursor: Option<&Cursor>,
    ) -> Result<Page<Document>, Error> {
        let filter = status.map(|status| Filter {
            name: "status",
            comparison: "=",
            value: text(status.as_str()),
        });
        let list = List {
            prefix: DOCUMENTS,
            newest_first: true,
            filter,
        };
        self.list(list, limit, cursor).await
    }

    /// Writes a document's record if nobody has changed it since it was read, and gives it the next version and time.
    ///
    /// # Errors
    /// [`Error::Conflict`] if somebody has, [`Error::Unavailable`].
    pub async fn update_document(&self, mut document: Document) -> Result<Document, Error> {
        let seen = document.version;
        document.version = seen.saturating_add(1);
        document.updated_at = self.clock.now();
        let item = item(
            &self.pk,
            &document_key(&document.document_id),
            &document,
            expiry(&document),
        )?;
        #[expect(clippy::disallowed_methods, reason = "the gate to a tenant's items")]
        let call = self
            .table
            .client
            .put_item()
            .table_name(&self.table.name)
            .set_item(Some(item))
            .condition_expression("version = :seen")
            .expression_attribute_values(":seen", super::number(seen));
        match call.send().await {
            Ok(_) => Ok(document),
            Err(error) if condition_failed(&error) => Err(Error::conflict(
                "The document changed in the meantime; read it and try again.",
            )),
            Err(error) => Err(failed(error)),
        }
    }

    /// Notes that the knowledge base is being asked about a document now; false if somebody else asked since the document
    /// was read, so that of several who look at once only one asks. It is no change of the document: the version stays.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn begin_look(&self, document: &Document) -> Result<bool, Error> {
        #[expect(clippy::disallowed_methods, reason = "the gate to a tenant's items")]
        let call = self
            .table
            .client
            .update_item()
            .table_name(&self.table.name)
            .set_key(Some(key(&self.pk, &document_key(&document.document_id))))
            .update_expression("SET checked_at = :now")
            .expression_attribute_values(":now", text(self.clock.now().to_string()));
        let call = match document.checked_at {
            Some(seen) => call
                .condition_expression("checked_at = :seen")
                .expression_attribute_values(":seen", text(seen.to_string())),
            None => call.condition_expression("attribute_exists(pk) AND attribute_not_exists(checked_at)"),
        };
        match call.send().await {
            Ok(_) => Ok(true),
            Err(error) if condition_failed(&error) => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    /// Removes the record of a document that is being deleted.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it is not being deleted, [`Error::Unavailable`].
    pub async fn remove_document(&self, id: &DocumentId) -> Result<(), Error> {
        #[expect(clippy::disallowed_methods, reason = "the gate to a tenant's items")]
        let call = self
            .table
            .client
            .delete_item()
            .table_name(&self.table.name)
            .set_key(Some(key(&self.pk, &document_key(id))))
            .condition_expression("attribute_not_exists(pk) OR #status = :deleting")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":deleting", text(DocumentStatus::Deleting.as_str()));
        match call.send().await {
            Ok(_) => Ok(()),
            Err(error) if condition_failed(&error) => Err(Error::conflict("The document is not being deleted.")),
            Err(error) => Err(failed(error)),
        }
    }

    /// A part of a list of the partition's. What a filter leaves out does not count as part of a page, so a filtered list
    /// may take more than one query.
    async fn list<T: DeserializeOwned>(
        &self,
        list: List<'_>,
        limit: usize,
        cursor: Option<&Cursor>,
    ) -> Result<Page<T>, Error> {
        let limit = limit.clamp(1, MAX_PAGE);
        let mut start = cursor
            .map(|cursor| cursor.sort_key(&self.pk, list.prefix))
            .transpose()?;
        let mut items: Vec<Item> = Vec::new();
        loop {
            #[expect(clippy::disallowed_methods, reason = "the gate to a tenant's items")]
            let mut call = self
                .table
                .client
                .query()
                .table_name(&self.table.name)
                .consistent_read(true)
                .scan_index_forward(!list.newest_first)
                .key_condition_expression("pk = :pk AND begins_with(sk, :prefix)")
                .expression_attribute_values(":pk", text(&self.pk))
                .expression_attribute_values(":prefix", text(list.prefix))
                .set_exclusive_start_key(start.take().map(|sk| key(&self.pk, &sk)));
            if let Some(filter) = &list.filter {
                call = call
                    .filter_expression(format!("#name {} :value", filter.comparison))
                    .expression_attribute_names("#name", filter.name)
                    .expression_attribute_values(":value", filter.value.clone());
            } else {
                call = call.limit(i32::try_from(limit + 1 - items.len()).unwrap_or(i32::MAX));
            }
            let answer = call.send().await.map_err(failed)?;
            items.extend(answer.items.unwrap_or_default());
            start = answer.last_evaluated_key.as_ref().and_then(sort_key);
            if items.len() > limit || start.is_none() {
                break;
            }
        }
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items
            .last()
            .filter(|_| more)
            .and_then(sort_key)
            .map(|sk| Cursor::new(&self.pk, &sk));
        let items = items.into_iter().map(read).collect::<Result<_, Error>>()?;
        Ok(Page { items, next })
    }

    async fn get(&self, sk: &str) -> Result<Option<Item>, Error> {
        self.table.get(&self.pk, sk).await
    }

    /// Makes a document's record; false if it was there.
    async fn put_new(&self, document: &Document) -> Result<bool, Error> {
        let item = item(
            &self.pk,
            &document_key(&document.document_id),
            document,
            expiry(document),
        )?;
        #[expect(clippy::disallowed_methods, reason = "the gate to a tenant's items")]
        let call = self
            .table
            .client
            .put_item()
            .table_name(&self.table.name)
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(pk)");
        match call.send().await {
            Ok(_) => Ok(true),
            Err(error) if condition_failed(&error) => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    /// Writes the idempotency record, or gives the one that is there and has not expired.
    async fn claim(
        &self,
        sk: &str,
        record: &IdempotencyRecord,
        now: Timestamp,
    ) -> Result<Option<IdempotencyRecord>, Error> {
        #[expect(clippy::disallowed_methods, reason = "the gate to a tenant's items")]
        let call = self
            .table
            .client
            .put_item()
            .table_name(&self.table.name)
            .set_item(Some(item(&self.pk, sk, record, Some(record.expires_at))?))
            .condition_expression("attribute_not_exists(pk) OR #ttl <= :now")
            .expression_attribute_names("#ttl", "ttl")
            .expression_attribute_values(":now", super::number(now.as_unix()))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match call.send().await {
            Ok(_) => Ok(None),
            Err(error) => {
                let service = error.as_service_error();
                match service {
                    Some(aws_sdk_dynamodb::operation::put_item::PutItemError::ConditionalCheckFailedException(
                        failure,
                    )) => {
                        let earlier = failure
                            .item
                            .clone()
                            .ok_or(Error::internal("a failed condition without its item"))?;
                        read(earlier).map(Some)
                    }
                    _ => Err(failed(error)),
                }
            }
        }
    }

    /// Notes that the document of an idempotency record was made.
    async fn finish(&self, sk: &str) -> Result<(), Error> {
        #[expect(clippy::disallowed_methods, reason = "the gate to a tenant's items")]
        let call = self
            .table
            .client
            .update_item()
            .table_name(&self.table.name)
            .set_key(Some(key(&self.pk, sk)))
            .update_expression("SET #state = :done")
            .condition_expression("attribute_exists(pk)")
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":done", text("done"));
        match call.send().await {
            Ok(_) => Ok(()),
            // Cleaned up in the meantime: there is nothing left to note it on.
            Err(error) if condition_failed(&error) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }
}

/// The partition of a tenant's own items.
pub(super) fn partition(tenant: &TenantId) -> String {
    format!("TENANT#{tenant}")
}

/// Only what was declared and never completed cleans itself up: nothing of it is anywhere but under the uploads' prefix,
/// which cleans itself up too.
fn expiry(document: &Document) -> Option<Timestamp> {
    let declared_only = document.status == DocumentStatus::AwaitingUpload && !document.completing;
    declared_only.then(|| document.created_at.plus(UPLOAD_LIFETIME))
}

fn sort_key(item: &Item) -> Option<String> {
    item.get("sk")?.as_s().ok().cloned()
}

fn hash(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::MediaType;

    #[test]
    fn only_a_declaration_cleans_itself_up() {
        let mut document = Document::declare(
            "handbook.pdf".to_owned(),
            MediaType::Pdf,
            1,
            "0".repeat(64),
            Timestamp::from_unix(0),
        );
        assert_eq!(expiry(&document), Some(Timestamp::from_unix(24 * 60 * 60)));
        // From here on the data source may hold it, and a record that vanished would leave it there for good.
        document.completing = true;
        assert_eq!(expiry(&document), None);
        document.completing = false;
        document.status = DocumentStatus::Deleting;
        assert_eq!(expiry(&document), None);
    }
}
