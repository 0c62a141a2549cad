//! The documents that all tenants may share, as a tenant whose plan says so may read them.

use std::collections::HashMap;

use super::tenant::partition;
use super::{Table, TenantTable};
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
    pub fn new(table: &TenantTable, context: &TenantContext, plan: &Plan) -> Option<Self> {
        let may = plan.shared_corpus && !context.tenant().is_shared();
        may.then(|| Self {
            table: table.table().clone(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::MediaType;
    use crate::store::fixture::{self, Engine};
    use crate::store::{Declaration, TenantStore};
    use crate::tenant::Group;
    use crate::time::{Clock, Timestamp};

    async fn declare(engine: &Engine, tenant: &str, audience: Audience) -> DocumentId {
        let store = TenantStore::new(
            &engine.tenant_table(),
            &fixture::context(tenant, "someone"),
            &Clock::system(),
        );
        let document = Document {
            audience,
            ..Document::declare(
                "handbook.pdf".to_owned(),
                MediaType::Pdf,
                1,
                "0".repeat(64),
                Timestamp::from_unix(0),
            )
        };
        match store.declare(document, None).await.unwrap() {
            Declaration::Made(document) => document.document_id,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn only_the_shared_documents_that_are_for_everyone_are_seen() {
        let engine = Engine::new();
        let group = Audience::Group(Group::parse("crew").unwrap());
        let shared = declare(&engine, "bulkhead-shared", Audience::Everyone).await;
        let narrow = declare(&engine, "bulkhead-shared", group).await;
        let own = declare(&engine, "acme", Audience::Everyone).await;
        let others = declare(&engine, "umbrella", Audience::Everyone).await;
        let corpus = SharedCorpus::new(
            &engine.tenant_table(),
            &fixture::context("acme", "alice"),
            &fixture::plan(true),
        )
        .unwrap();
        for id in [&narrow, &own, &others] {
            assert!(corpus.document(id).await.unwrap().is_none(), "{id}");
        }
        assert!(corpus.document(&shared).await.unwrap().is_some());
        let found = corpus
            .documents_by_id(&[narrow, own, shared.clone(), others])
            .await
            .unwrap();
        assert_eq!(found.into_keys().collect::<Vec<_>>(), [shared]);
    }

    #[test]
    fn a_plan_opens_it_and_its_owner_has_another_way() {
        let table = Engine::new().tenant_table();
        let corpus =
            |tenant, shared| SharedCorpus::new(&table, &fixture::context(tenant, "alice"), &fixture::plan(shared));
        assert!(corpus("acme", true).is_some());
        assert!(corpus("acme", false).is_none());
        assert!(corpus("bulkhead-shared", true).is_none());
    }
}
