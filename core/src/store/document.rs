//! How documents' records are read, for every gate that may.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::KeysAndAttributes;

use super::{Item, MAX_PAGE, Table, failed, key, read};
use crate::document::{Document, DocumentId};
use crate::error::Error;

/// What the sort keys of documents begin with.
pub(super) const DOCUMENTS: &str = "DOC#";

/// How often keys that DynamoDB left unread are asked for, in all.
const ATTEMPTS: usize = 3;

pub(super) fn document_key(id: &DocumentId) -> String {
    format!("{DOCUMENTS}{id}")
}

impl Table {
    /// A document's record in the partition.
    pub(super) async fn document(&self, pk: &str, id: &DocumentId) -> Result<Option<Document>, Error> {
        self.get(pk, &document_key(id)).await?.map(read).transpose()
    }

    /// The records of `ids` in the partition, those that are there; an error if DynamoDB leaves some unread.
    pub(super) async fn documents_by_id(
        &self,
        pk: &str,
        ids: &[DocumentId],
    ) -> Result<HashMap<DocumentId, Document>, Error> {
        let mut found = HashMap::new();
        for chunk in ids.chunks(MAX_PAGE) {
            let mut keys: Vec<Item> = chunk.iter().map(|id| key(pk, &document_key(id))).collect();
            for _ in 0..ATTEMPTS {
                if keys.is_empty() {
                    break;
                }
                let wanted = KeysAndAttributes::builder()
                    .set_keys(Some(keys))
                    .consistent_read(true)
                    .build()
                    .map_err(Error::internal)?;
                #[expect(clippy::disallowed_methods, reason = "only the gates reach this")]
                let call = self.client.batch_get_item().request_items(&self.name, wanted);
                let answer = call.send().await.map_err(failed)?;
                for item in answer.responses.unwrap_or_default().into_values().flatten() {
                    let document: Document = read(item)?;
                    found.insert(document.document_id.clone(), document);
                }
                keys = answer
                    .unprocessed_keys
                    .unwrap_or_default()
                    .into_values()
                    .flat_map(|unprocessed| unprocessed.keys)
                    .collect();
            }
            if !keys.is_empty() {
                return Err(Error::Unavailable("the table left keys unread".into()));
            }
        }
        Ok(found)
    }
}
