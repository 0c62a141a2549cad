//! Amazon Bedrock Knowledge Bases: one knowledge base on an S3 Vectors index, with one S3 data source.
//!
//! Speaks the wire protocol of `bedrock-agent` (ingestion) and `bedrock-agent-runtime` (Retrieve, RetrieveAndGenerate and
//! its stream), as far as [`KnowledgeBase::operation`] knows the operation; everything else is answered 501 and named.
//! Behind it: real text extraction, passages, a full-text index, and a generator that can only repeat what it was given.
//!
//! What the service does badly it does badly here: documents are untagged when their sidecar is misnamed or not named,
//! `notEquals` matches absent keys, a session belongs to whoever knows its id. More can be switched on with
//! [`KnowledgeBase::manners`].
//!
//! Who may call it is decided before it: there is no credential here. Its ranking is lexical, not by meaning, and prompt
//! templates have no effect on answers.

pub mod catalogue;
pub mod chunk;
pub mod extraction;
pub mod generation;
pub mod index;
mod ingestion;
pub mod manner;
pub mod outline;
pub mod quota;
pub mod retrieval;
pub mod session;
pub mod term;
mod wire;
pub mod writing;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use futures::future::BoxFuture;
use serde_json::Value;
use time::OffsetDateTime;

use crate::credential::Caller;
use crate::event_stream::Pace;
use crate::front_door::{RestService, ServiceBody};
use crate::guardrail::Guardrails;
use crate::model::speech::Model;
use crate::object::ObjectStore;

use catalogue::{Catalogue, Location, Status};
use extraction::Limits;
use index::Index;
use manner::Manners;
use quota::{Meter, Quotas};

/// What says what time it is.
pub type Clock = Arc<dyn Fn() -> OffsetDateTime + Send + Sync>;

/// Everything that can be set.
#[derive(Clone)]
pub struct KnowledgeBaseConfig {
    /// The account's number: 12 digits.
    pub account: String,
    /// The Region.
    pub region: String,
    /// The knowledge base's id: 10 letters and digits.
    pub knowledge_base_id: String,
    /// The data source's id: 10 letters and digits.
    pub data_source_id: String,
    /// The data source's bucket.
    pub bucket: String,
    /// What the keys of documents begin with. Empty for all.
    pub inclusion_prefix: String,
    /// Where index and state are kept; in memory if absent.
    pub data: Option<PathBuf>,
    /// How long a document takes at least from being accepted to INDEXED, or to NOT_FOUND when it is deleted.
    pub indexing_latency: Duration,
    /// How long after that queries find it, or stop finding it. On AWS up to minutes.
    pub visibility_latency: Duration,
    /// How long a conversation lives from its first question.
    pub session_lifetime: Duration,
    /// Requests per second.
    pub quotas: Quotas,
    /// The guardrails that exist. A request that names another one is refused.
    pub guardrails: Guardrails,
    /// How fast the model speaks in a stream.
    pub pace: Pace,
    /// The attribute in a filter that tells whose request it is, for [`Manners`]. It has no meaning otherwise.
    pub tenant_attribute: String,
    /// Whether passages carry their page number, as with OpenSearch Serverless and Aurora. S3 Vectors has none.
    pub page_numbers: bool,
    /// What writes answers instead of the extractive generator.
    pub generator: Option<Arc<dyn Model>>,
    /// Limits of text extraction.
    pub limits: Limits,
    /// How many requests [`KnowledgeBase::requests`] remembers.
    pub remembered_requests: usize,
    /// The time.
    pub clock: Clock,
}

impl KnowledgeBaseConfig {
    /// The service's own figures, in memory, with an indexing latency of 50 ms and no visibility latency.
    #[must_use]
    pub fn new(
        account: impl Into<String>,
        region: impl Into<String>,
        knowledge_base_id: impl Into<String>,
        data_source_id: impl Into<String>,
        bucket: impl Into<String>,
        inclusion_prefix: impl Into<String>,
    ) -> Self {
        Self {
            account: account.into(),
            region: region.into(),
            knowledge_base_id: knowledge_base_id.into(),
            data_source_id: data_source_id.into(),
            bucket: bucket.into(),
            inclusion_prefix: inclusion_prefix.into(),
            data: None,
            indexing_latency: Duration::from_millis(50),
            visibility_latency: Duration::ZERO,
            session_lifetime: Duration::from_secs(24 * 60 * 60),
            quotas: Quotas::default(),
            guardrails: Guardrails::default(),
            pace: Pace::AT_ONCE,
            tenant_attribute: "tenantId".to_owned(),
            page_numbers: false,
            generator: None,
            limits: Limits::default(),
            remembered_requests: 10_000,
            clock: Arc::new(OffsetDateTime::now_utc),
        }
    }
}

/// A request as it came in.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedRequest {
    /// When.
    pub at: OffsetDateTime,
    /// The operation's name, or `None` if it is not one of those known here.
    pub operation: Option<&'static str>,
    /// Method and path.
    pub target: String,
    /// The body; `null` without one, or if it is no JSON.
    pub body: Value,
    /// Members of the body that the operation does not have, as paths. AWS ignores them.
    pub unknown_members: Vec<String>,
    /// The tenant that the filter names.
    pub tenant: Option<String>,
    /// Who signed it, if it came through the front door.
    pub caller: Option<Caller>,
    /// The status code of the answer.
    pub status: u16,
}

pub(crate) struct Inner {
    config: KnowledgeBaseConfig,
    store: Arc<dyn ObjectStore>,
    index: Index,
    catalogue: Mutex<Catalogue>,
    meter: Meter,
    manners: Manners,
    requests: Mutex<VecDeque<RecordedRequest>>,
    tasks: Tasks,
    /// Documents that are read at the same time.
    permits: tokio::sync::Semaphore,
}

impl Inner {
    fn catalogue(&self) -> MutexGuard<'_, Catalogue> {
        self.catalogue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> OffsetDateTime {
        (self.config.clock)()
    }
}

/// What runs in the background.
struct Tasks {
    runtime: tokio::runtime::Handle,
    running: Mutex<tokio::task::JoinSet<()>>,
}

impl Tasks {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        while running.try_join_next().is_some() {}
        running.spawn_on(task, &self.runtime);
    }
}

/// Runs what blocks on a disk or on the processor beside the runtime.
async fn block<T: Send + 'static>(work: impl FnOnce() -> anyhow::Result<T> + Send + 'static) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .context("the work was given up")?
}

/// The knowledge base. Clones are the same one.
#[derive(Clone)]
pub struct KnowledgeBase {
    inner: Arc<Inner>,
}

impl KnowledgeBase {
    /// Opens index and state and goes on with what was unfinished. Needs to be called on a Tokio runtime.
    ///
    /// # Errors
    ///
    /// When the data directory can't be used, or another process uses it.
    pub fn start(config: KnowledgeBaseConfig, store: Arc<dyn ObjectStore>) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Handle::try_current().context("the knowledge base needs a Tokio runtime")?;
        let index = Index::open(config.data.as_ref().map(|data| data.join("index")).as_deref())?;
        let catalogue = Catalogue::open(config.data.as_deref())?;
        let meter = Meter::new(config.quotas.clone());
        let inner = Arc::new(Inner {
            config,
            store,
            index,
            catalogue: Mutex::new(catalogue),
            meter,
            manners: Manners::default(),
            requests: Mutex::default(),
            tasks: Tasks {
                runtime,
                running: Mutex::default(),
            },
            permits: tokio::sync::Semaphore::new(2),
        });
        ingestion::purge(&inner)?;
        ingestion::resume(&inner)?;
        Ok(Self { inner })
    }

    /// Answers one request, whose signature and permission have been checked.
    pub async fn handle(&self, request: http::Request<Bytes>) -> http::Response<ServiceBody> {
        wire::handle(&self.inner, request, None).await
    }

    /// The name of the operation that a request is for, or `None` if it is not known here. A trailing slash is ignored.
    #[must_use]
    pub fn operation(method: &http::Method, path: &str) -> Option<&'static str> {
        wire::Route::find(method, path).map(|route| route.operation())
    }

    /// The service's bad manners.
    #[must_use]
    pub fn manners(&self) -> &Manners {
        &self.inner.manners
    }

    /// The last requests, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.inner
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }

    /// Where the document at `s3://bucket/key` stands, without a request.
    #[must_use]
    pub fn document_status(&self, uri: &str) -> Status {
        let catalogue = self.inner.catalogue();
        Location::parse(uri)
            .and_then(|location| catalogue.documents.get(&location))
            .map_or(Status::NotFound, |document| document.status)
    }

    /// Ends one conversation, as if its time were over. Says whether there was one.
    pub fn end_session(&self, id: &str) -> bool {
        let mut catalogue = self.inner.catalogue();
        let existed = catalogue.sessions.remove(id).is_some();
        if let Err(error) = catalogue.save_session(id) {
            tracing::error!(error = format!("{error:#}"), "forgetting a session failed");
        }
        existed
    }

    /// Ends background work and gives the data directory free. What is unfinished is taken up at the next start; further
    /// requests are answered, but nothing is indexed any more.
    pub async fn shutdown(&self) {
        let mut running = std::mem::take(&mut *self.inner.tasks.running.lock().unwrap_or_else(PoisonError::into_inner));
        running.shutdown().await;
        let inner = Arc::clone(&self.inner);
        // Work that was given up may still be writing.
        let closed = block(move || {
            inner.index.close();
            Ok(())
        });
        if let Err(error) = closed.await {
            tracing::error!(error = format!("{error:#}"), "closing the index failed");
        }
    }
}

impl RestService for KnowledgeBase {
    fn operation(&self, method: &http::Method, path: &str) -> Option<&'static str> {
        Self::operation(method, path)
    }

    fn handle(&self, request: http::Request<Bytes>, caller: Caller) -> BoxFuture<'_, http::Response<ServiceBody>> {
        Box::pin(wire::handle(&self.inner, request, Some(caller)))
    }
}

#[cfg(test)]
mod tests;
