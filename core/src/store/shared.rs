//! The documents that all tenants may share, as a tenant whose plan says so may read them.

use std::collections::HashMap;

use super::Table;
use super::tenant::partition;
use crate::document::{Audience, Document, DocumentId};
use crate::error::Error;
use crate::plan::Plan;
use crate::tenant::{TenantContext, TenantId};

/// The records of the shared documents. It can only read, and knows those that are for everyone: a group of the shared
/// owner's would be a name that any tenant's group may have too.
#[derive(Clone, Debug)]
pub struct SharedCorpus {
    table: Table,
    pk: String,
}

impl SharedCorpus {
    /// The shared documents, if the plan of the caller's tenant includes them. Who acts as their owner has a
    /// [`super::TenantStore`] of them instead.
    pub fn new(table: &Table, context: &TenantContext, plan: &Plan) -> Option<Self> {
        let may = plan.shared_corpus && !context.tenant().is_shared();
        may.then(|| Self {
            table: table.clone(),
            pk: partition(&TenantId::shared()),
        })
    }

    /// A document's record.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn document(&self, id: &DocumentId) -> Result<Option<Document>, Error> {
        let document = self.table.document(&self.pk, id).await?;
        Ok(document.filter(is_for_everyone))
    }

    /// The records of `ids`, those that are there.
    ///
    /// # Errors
    /// [`Error::Unavailable`], also if DynamoDB leaves some unread: a document whose state is unknown must not be cited.
    pub async fn documents_by_id(&self, ids: &[DocumentId]) -> Result<HashMap<DocumentId, Document>, Error> {
        let mut documents = self.table.documents_by_id(&self.pk, ids).await?;
        documents.retain(|_, document| is_for_everyone(document));
        Ok(documents)
    }
}

fn is_for_everyone(document: &Document) -> bool {
    document.audience == Audience::Everyone
}
