//! The control plane: what the vendor's operators do across tenants. It creates, lists, changes, suspends and resumes
//! tenants, and starts full syncs of the knowledge base.
//!
//! It runs in no tenant's environment and has no access to what tenants keep: documents are `tenant-admin`'s, questions
//! `query-handler`'s. Every handler begins with an [`bulkhead_core::tenant::OperatorContext`].

pub mod config;
mod ingestion;
mod precondition;
mod tenant;

use aws_config::SdkConfig;
use bulkhead_core::error::Error;
use bulkhead_core::plan::Plans;
use bulkhead_core::request::Request;
use bulkhead_core::response::Response;
use bulkhead_core::service::Handler;
use bulkhead_core::store::{IngestionLease, Registry, Table};
use bulkhead_core::time::Clock;

use self::config::Config;
use self::ingestion::KnowledgeBase;

/// What the handlers share for the life of the environment.
#[derive(Debug)]
pub struct State {
    clock: Clock,
    registry: Registry,
    plans: Plans,
    lease: IngestionLease,
    knowledge_base: KnowledgeBase,
}

impl State {
    /// The state of a function so configured, in the account that `aws` reaches.
    pub fn new(config: &Config, aws: &SdkConfig, clock: Clock) -> Self {
        let table = Table::new(aws, &config.table_name);
        Self {
            registry: Registry::new(&table),
            plans: config.plans.clone(),
            lease: IngestionLease::new(&table, &clock),
            knowledge_base: KnowledgeBase::new(aws, config),
            clock,
        }
    }

    async fn route(&self, request: &Request) -> Result<Response, Error> {
        match request.route() {
            ("POST", "/tenants") => tenant::create(self, request).await,
            ("GET", "/tenants") => tenant::list(self, request).await,
            ("GET", "/tenants/{tenant}") => tenant::read(self, request).await,
            ("PATCH", "/tenants/{tenant}") => tenant::update(self, request).await,
            ("POST", "/tenants/{tenant}/suspend") => tenant::suspend(self, request).await,
            ("POST", "/tenants/{tenant}/resume") => tenant::resume(self, request).await,
            ("POST", "/ingestions") => ingestion::start(self, request).await,
            ("GET", "/ingestions/{ingestion_id}") => ingestion::get(self, request).await,
            _ => Err(Error::NotFound),
        }
    }
}

impl Handler for State {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        // Boxed, because the nested futures of SDK calls are deeper than the compiler follows.
        tokio::time::timeout(request.time_left(), Box::pin(self.route(request)))
            .await
            .map_err(|elapsed| Error::Timeout(elapsed.into()))?
    }
}
