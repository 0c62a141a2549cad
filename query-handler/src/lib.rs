//! Answers a tenant's questions from the tenant's documents.
//!
//! A question is answered by one of two engines ([`engine`]), under a filter that only the caller's context can make
//! ([`filter`]); what comes back leaves only after every passage was checked again ([`firewall`]). The function holds no
//! tenant's data beyond one request but the profile, which is the environment's only tenant's, and answers that are still
//! being made.
//!
//! Not here: who the caller is (`authorizer`), documents and their sidecars (`tenant-admin`).

pub mod answer;
pub mod chat;
pub mod config;
pub mod conversation;
pub mod engine;
pub mod event;
pub mod filter;
pub mod firewall;
pub mod guardrail;
pub mod history;
pub mod knowledge_base;
mod managed;
pub mod marker;
pub mod model;
pub mod narrowing;
pub mod prompt;
mod query;
pub mod question;
pub mod quotation;
mod retrieval;
mod session;
pub mod text;
pub mod upstream;
mod verified;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use aws_config::SdkConfig;
use bulkhead_core::background::Background;
use bulkhead_core::credential::{CredentialCache, TenantCredentials};
use bulkhead_core::error::Error;
use bulkhead_core::plan::Plans;
use bulkhead_core::profile::ProfileCache;
use bulkhead_core::request::Request;
use bulkhead_core::response::Response;
use bulkhead_core::service::Handler;
use bulkhead_core::store::{Registry, TenantTable};
use bulkhead_core::time::Clock;

use crate::config::{Config, StreamConfig};
use crate::engine::Engines;

/// What the function holds between calls.
pub struct State {
    shared: Arc<Shared>,
    background: Background,
}

/// What of it an answer needs that outlives its call.
struct Shared {
    data: CredentialCache<Data>,
    plans: Plans,
    engines: Engines,
    streams: StreamConfig,
    clock: Clock,
}

/// What the environment's tenant keeps, reached with credentials for that tenant alone.
pub(crate) struct Data {
    table: TenantTable,
    profiles: ProfileCache,
}

impl State {
    /// The function's state, for the account that `aws` reaches.
    pub fn new(config: Config, aws: &SdkConfig, clock: Clock) -> Self {
        let background = Background::new();
        let (table_name, status_max_age, its_clock) = (config.table_name.clone(), config.status_max_age, clock.clone());
        let open = move |credentials: &TenantCredentials| {
            let table = TenantTable::new(credentials, &table_name);
            Data {
                profiles: ProfileCache::new(Registry::new(table.table()), status_max_age, its_clock.clone()),
                table,
            }
        };
        let shared = Shared {
            data: CredentialCache::new(config.data_role.clone(), aws, open, &background, clock.clone()),
            engines: Engines::new(&config, aws),
            plans: config.plans,
            streams: config.streams,
            clock,
        };
        Self {
            shared: Arc::new(shared),
            background,
        }
    }
}

impl Handler for State {
    const STREAMED: &'static [(&'static str, &'static str)] =
        &[("POST", "/genai/query/stream"), ("POST", "/genai/chat")];

    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        // Boxed: the SDK's futures are nested too deep for the compiler to lay out in one piece.
        match request.route() {
            ("POST", "/genai/query") => in_time(request, Box::pin(self.query(request))).await,
            // A stream has a time of its own, and its first words may take as long as a heartbeat.
            ("POST", "/genai/query/stream") => Box::pin(self.stream_query(request)).await,
            ("POST", "/genai/chat") => Box::pin(chat::stream(self, request)).await,
            ("GET", "/sessions") => in_time(request, Box::pin(session::list(self, request))).await,
            ("GET", "/sessions/{session_id}") => in_time(request, Box::pin(session::get(self, request))).await,
            ("DELETE", "/sessions/{session_id}") => in_time(request, Box::pin(session::delete(self, request))).await,
            ("POST", "/genai/retrieve") => in_time(request, Box::pin(self.retrieve(request))).await,
            _ => Err(Error::NotFound),
        }
    }

    fn background(&self) -> Option<&Background> {
        Some(&self.background)
    }
}

/// A buffered answer, as long as the gateway waits for one.
async fn in_time(request: &Request, answer: impl Future<Output = Result<Response, Error>>) -> Result<Response, Error> {
    tokio::time::timeout(request.time_left(), answer)
        .await
        .unwrap_or_else(|elapsed| Err(Error::Timeout(elapsed.into())))
}
