//! Answers a tenant's questions from the tenant's documents.
//!
//! A question becomes one call to a Bedrock knowledge base, under a filter that only the caller's context can make
//! ([`filter`]); what comes back leaves only after every passage was checked again ([`firewall`]). The function holds no
//! tenant's data beyond one request but the profile, which is the environment's only tenant's.
//!
//! Not here: who the caller is (`authorizer`), documents and their sidecars (`tenant-admin`).

pub mod answer;
pub mod config;
pub mod conversation;
pub mod filter;
pub mod firewall;
pub mod history;
pub mod knowledge_base;
pub mod marker;
pub mod narrowing;
pub mod prompt;
pub mod question;
pub mod quotation;
pub mod text;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use aws_config::SdkConfig;
use bulkhead_core::error::Error;
use bulkhead_core::plan::Plan;
use bulkhead_core::profile::ProfileCache;
use bulkhead_core::request::Request;
use bulkhead_core::response::Response;
use bulkhead_core::service::Handler;
use bulkhead_core::store::{Registry, SharedCorpus, Table, TenantStore};
use bulkhead_core::tenant::{Role, TenantContext};
use bulkhead_core::time::Clock;
use http::StatusCode;

use crate::answer::{Answer, GuardrailAction, Statement};
use crate::config::Config;
use crate::conversation::Conversation;
use crate::filter::RetrievalFilter;
use crate::firewall::{Firewall, Records, Released};
use crate::knowledge_base::KnowledgeBase;
use crate::question::Question;

/// What is kept of a request's time for what follows Bedrock's answer: documents' records, the conversation.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// What the function holds between calls.
pub struct State {
    table: Table,
    profiles: ProfileCache,
    knowledge_base: KnowledgeBase,
    bucket: String,
    clock: Clock,
}

impl State {
    /// The function's state, for the account that `aws` reaches.
    pub fn new(config: Config, aws: &SdkConfig, clock: Clock) -> Self {
        let table = Table::new(aws, &config.table_name);
        Self {
            profiles: ProfileCache::new(Registry::new(&table), config.status_max_age, clock.clone()),
            table,
            knowledge_base: KnowledgeBase::new(config.knowledge_base, aws),
            bucket: config.bucket_name,
            clock,
        }
    }

    async fn query(&self, request: &Request) -> Result<Response, Error> {
        let context = TenantContext::new(request.caller(), &self.clock)?;
        context.require(Role::Reader)?;
        // Operators look after the shared documents; they ask nobody's questions.
        if context.tenant().is_shared() {
            return Err(Error::Forbidden);
        }
        let question = Question::read(request)?;
        let deadline = Instant::now() + request.time_left().saturating_sub(AFTERWARDS);
        let store = TenantStore::new(&self.table, &context, &self.clock);
        // All are awaited and the tenant's status is looked at first, so that a suspended tenant learns nothing else.
        let (profile, conversation, ()) = tokio::join!(
            self.profiles.active(&context),
            Conversation::find(&store, &question.thread),
            async { self.knowledge_base.warm() },
        );
        let (profile, conversation) = (profile?, conversation?);

        // No environment names plans yet, so every tenant has the plainest.
        let plan = Plan::default();
        let narrowing = question
            .filter
            .clone()
            .map(|filter| filter.verify(&profile))
            .transpose()?;
        let filter = RetrievalFilter::new(&context, &profile, &plan, narrowing)?;
        let session = conversation.knowledge_base_session();
        let unverified = self.knowledge_base.ask(&question, &filter, session, deadline).await?;

        let firewall = Firewall::new(&context, &profile, &plan, &self.bucket)?;
        let checked = match firewall.check(&unverified.citations) {
            Ok(checked) => checked,
            Err(breach) => {
                // The breach is what the alarm must see, also if the conversation can't be ended.
                if conversation.end(&store, self.clock.now()).await.is_err() {
                    tracing::error!("a conversation goes on after an answer that was refused");
                }
                return Err(breach);
            }
        };
        let released: Released;
        let statement = if unverified.guardrail_intervened && !checked.cites() {
            Statement::blocked()
        } else {
            // A guardrail that only masks words leaves an answer whose parts must rest on passages like any other's.
            let shared = SharedCorpus::new(&self.table, &context, &plan);
            let records = Records::read(&store, shared.as_ref(), &checked.documents()).await?;
            released = firewall.release(checked, &records);
            let action = if unverified.guardrail_intervened {
                GuardrailAction::Intervened
            } else {
                GuardrailAction::None
            };
            Statement::of(&released, &unverified.text, action)
        };
        let handle = conversation.keep(&store, unverified.session, self.clock.now()).await?;
        tracing::info!(
            parts = unverified.citations.len(),
            "parts.released" = statement.parts(),
            guardrail_intervened = unverified.guardrail_intervened,
            context_reset = unverified.context_reset,
            "released"
        );
        let answer = Answer::new(statement, handle, unverified.context_reset, self.knowledge_base.model());
        Response::json(StatusCode::OK, &answer)
    }
}

impl Handler for State {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        match request.route() {
            ("POST", "/genai/query") => {
                // Boxed: the SDK's futures are nested too deep for the compiler to lay out in one piece.
                let answer = Box::pin(self.query(request));
                tokio::time::timeout(request.time_left(), answer)
                    .await
                    .unwrap_or_else(|elapsed| Err(Error::Timeout(elapsed.into())))
            }
            _ => Err(Error::NotFound),
        }
    }
}
