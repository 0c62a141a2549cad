//! The tenant admin: a tenant's documents and their sidecars, and having them indexed.
//!
//! A document is declared, its content put, and the two completed: then it stands in the data source with its sidecar and
//! is being ingested. Not here: who may ask (`authorizer`), tenants themselves and full syncs (`control-plane`), answers
//! (`query-handler`). Modules are divided into decisions, which are pure and have the tests, and effects.

mod completion;
pub mod config;
mod content;
mod declaration;
mod document;
mod format;
mod ingestion;
mod object;
mod sidecar;
mod tenant;

use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use bulkhead_core::background::Background;
use bulkhead_core::credential::{CredentialCache, TenantCredentials};
use bulkhead_core::document::{Document, DocumentId};
use bulkhead_core::error::Error;
use bulkhead_core::plan::Plans;
use bulkhead_core::profile::{Profile, ProfileCache};
use bulkhead_core::request::Request;
use bulkhead_core::response::Response;
use bulkhead_core::service::Handler;
use bulkhead_core::store::{IngestionLease, Registry, SharedCorpus, TenantStore, TenantTable};
use bulkhead_core::tenant::{Role, TenantContext};
use bulkhead_core::time::Clock;

use self::config::Config;
use self::ingestion::KnowledgeBase;
use self::object::{Bucket, Objects, SharedObjects};

/// What the handlers share for the life of the environment, which serves one tenant.
pub struct State {
    clock: Clock,
    data: CredentialCache<Data>,
    background: Background,
    plans: Plans,
    knowledge_base: KnowledgeBase,
    ingestion_status_max_age: Duration,
}

/// What the environment's tenant keeps, and the lease, reached with credentials for that tenant alone.
struct Data {
    table: TenantTable,
    profiles: ProfileCache,
    bucket: Bucket,
    lease: IngestionLease,
}

impl State {
    /// The state of a function so configured, in the account that `aws` reaches.
    pub fn new(config: &Config, aws: &SdkConfig, clock: Clock) -> Self {
        let background = Background::new();
        let (its_config, its_clock) = (config.clone(), clock.clone());
        let open = move |credentials: &TenantCredentials| {
            let table = TenantTable::new(credentials, &its_config.table_name);
            let registry = Registry::new(table.table());
            Data {
                profiles: ProfileCache::new(registry, its_config.status_max_age, its_clock.clone()),
                bucket: Bucket::new(credentials, &its_config.bucket_name),
                lease: IngestionLease::new(table.table(), &its_clock),
                table,
            }
        };
        Self {
            data: CredentialCache::new(config.data_role.clone(), aws, open, &background, clock.clone()),
            background,
            plans: config.plans.clone(),
            knowledge_base: KnowledgeBase::new(aws, config),
            ingestion_status_max_age: config.ingestion_status_max_age,
            clock,
        }
    }

    async fn route(&self, request: &Request) -> Result<Response, Error> {
        match request.route() {
            ("POST", "/documents") => document::declare(self, request).await,
            ("GET", "/documents") => document::list(self, request).await,
            ("GET", "/documents/{document_id}") => document::get(self, request).await,
            ("DELETE", "/documents/{document_id}") => document::delete(self, request).await,
            ("PUT", "/documents/{document_id}/content") => content::put(self, request).await,
            ("GET", "/documents/{document_id}/content") => content::get(self, request).await,
            ("POST", "/documents/{document_id}/complete") => completion::complete(self, request).await,
            ("GET", "/tenant") => tenant::get(self, request).await,
            _ => Err(Error::NotFound),
        }
    }

    /// The caller, who must be this environment's and have `role`.
    fn caller(&self, request: &Request, role: Role) -> Result<TenantContext, Error> {
        let context = TenantContext::new(request.caller(), &self.clock)?;
        context.require(role)?;
        Ok(context)
    }

    /// Opens to a caller what is their tenant's. That the tenant is active is still to be seen, by [`Visit::profile`] or
    /// [`Visit::document`].
    async fn admit(&self, context: TenantContext) -> Result<Visit<'_>, Error> {
        let data = self.data.of(&context).await?;
        Ok(Visit {
            state: self,
            store: TenantStore::new(&data.table, &context, &self.clock),
            objects: data.bucket.of(&context),
            data,
            context,
        })
    }
}

impl Handler for State {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        // Boxed, because the nested futures of SDK calls are deeper than the compiler follows.
        tokio::time::timeout(request.time_left(), Box::pin(self.route(request)))
            .await
            .map_err(|elapsed| Error::Timeout(elapsed.into()))?
    }

    fn background(&self) -> Option<&Background> {
        Some(&self.background)
    }
}

/// One call of a caller with the role that it needs: who asks, and the doors to what is their tenant's.
pub(crate) struct Visit<'a> {
    state: &'a State,
    data: Arc<Data>,
    context: TenantContext,
    store: TenantStore,
    objects: Objects,
}

impl Visit<'_> {
    /// The tenant's profile, if it is active.
    async fn profile(&self) -> Result<Profile, Error> {
        self.data.profiles.active(&self.context).await
    }

    /// The document that the path names, and the tenant's profile if it is active.
    async fn document(&self, request: &Request) -> Result<(Profile, Document), Error> {
        let (profile, document) = self.record(named(request)?.as_ref()).await?;
        Ok((profile, document.ok_or(Error::NotFound)?))
    }

    /// As [`Visit::document`], but where the tenant's plan says so the path may also name a document that the vendor shares
    /// and that answers may cite.
    async fn readable(&self, request: &Request) -> Result<(Profile, Readable), Error> {
        let id = named(request)?;
        let (profile, document) = self.record(id.as_ref()).await?;
        if let Some(document) = document {
            return Ok((profile, Readable::Own(document)));
        }
        let plan = self.state.plans.of(&profile)?;
        let (Some(corpus), Some(id)) = (SharedCorpus::new(&self.data.table, &self.context, plan), id) else {
            return Err(Error::NotFound);
        };
        let document = corpus.document(&id).await?.filter(content::is_there);
        let document = document.ok_or(Error::NotFound)?;
        let content = self.data.bucket.shared(corpus);
        Ok((profile, Readable::Shared { document, content }))
    }

    /// The tenant's own record of a document, and its profile if it is active. One is read beside the other.
    async fn record(&self, id: Option<&DocumentId>) -> Result<(Profile, Option<Document>), Error> {
        let record = async {
            match id {
                Some(id) => self.store.document(id).await,
                // What can't be an id names nothing, but a suspended tenant learns no more of that than of another.
                None => Ok(None),
            }
        };
        tokio::try_join!(self.profile(), record)
    }
}

/// A document that a tenant may read about.
enum Readable {
    /// Its own, in any state.
    Own(Document),
    /// The vendor's, which it can only read.
    Shared { document: Document, content: SharedObjects },
}

/// The id in the path; `None` for what can't be one.
fn named(request: &Request) -> Result<Option<DocumentId>, Error> {
    Ok(DocumentId::parse(request.path_parameter("document_id")?))
}
