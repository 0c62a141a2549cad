//! The two engines behind one type: what is asked, where its answer goes, what it took.
//!
//! `managed` is RetrieveAndGenerate (`crate::managed`), `verified` is Retrieve, firewall, Converse (`crate::verified`).
//! Both say their answer in the same pieces ([`crate::answer::Piece`]), and nothing but pieces leaves. Not here: which
//! engine a question gets (`crate::query`).

use std::sync::Arc;

use aws_config::SdkConfig;
use bulkhead_core::error::Error;
use bulkhead_core::plan::{EngineName, Plan};
use bulkhead_core::profile::Profile;
use bulkhead_core::store::{SharedCorpus, TenantStore};
use bulkhead_core::tenant::TenantContext;
use tokio::time::Instant;

use crate::Data;
use crate::answer::{Piece, Said};
use crate::config::Config;
use crate::conversation::Opening;
use crate::event::Feed;
use crate::filter::RetrievalFilter;
use crate::firewall::Firewall;
use crate::guardrail::PassageGuardrail;
use crate::history::HistoryTurn;
use crate::knowledge_base::KnowledgeBase;
use crate::model::{Models, Tokens};

/// A question with all that an engine needs to answer it.
pub struct Ask {
    /// What the asker's tenant keeps.
    pub(crate) data: Arc<Data>,
    /// Who asks.
    pub context: TenantContext,
    /// The profile of the asker's tenant.
    pub profile: Profile,
    /// The tenant's plan.
    pub plan: Plan,
    /// What is to answer.
    pub engine: EngineName,
    /// The alias of the model that is to answer.
    pub model: String,
    /// The question, normalised.
    pub question: String,
    /// What the caller wants to be taken into account; for `managed` also what Bedrock's session has not seen.
    pub background: Option<String>,
    /// What was said before, for `verified`.
    pub history: Vec<HistoryTurn>,
    /// Bedrock's session, for `managed`.
    pub session: Option<String>,
    /// Whether what was said before is lost, so that the answer does not know it.
    pub context_reset: bool,
    /// What may be looked at.
    pub filter: RetrievalFilter,
    /// How many passages to look at.
    pub results: i32,
    /// The tenant's items.
    pub store: TenantStore,
    /// The documents that all tenants share, if the plan lets the asker see them.
    pub shared: Option<SharedCorpus>,
    /// When it must be over.
    pub deadline: Instant,
}

/// How an answer is asked of the services behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// In one piece.
    Whole,
    /// Word by word.
    Streamed,
}

/// What an answer took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Tokens, where they are counted.
    pub tokens: Option<Tokens>,
}

/// What answers questions.
pub struct Engines {
    pub(crate) knowledge_base: KnowledgeBase,
    pub(crate) models: Models,
    pub(crate) passages: PassageGuardrail,
    pub(crate) bucket: String,
}

impl Engines {
    /// The engines of `config`, in the account that `aws` reaches.
    pub fn new(config: &Config, aws: &SdkConfig) -> Self {
        let passages = config.models.guardrail.clone().filter(|_| config.guardrail_passages);
        Self {
            knowledge_base: KnowledgeBase::new(config.knowledge_base.clone(), config.models.clone(), aws),
            models: Models::new(config.models.clone(), aws),
            passages: PassageGuardrail::new(passages, aws),
            bucket: config.bucket_name.clone(),
        }
    }

    /// Builds the clients that `engine` needs. The first call costs milliseconds, which may as well pass while something
    /// else is awaited.
    pub fn warm(&self, engine: EngineName) {
        self.knowledge_base.warm();
        if engine == EngineName::Verified {
            self.models.warm();
        }
    }

    /// Answers into `sink`.
    ///
    /// # Errors
    /// [`Error::Breach`] if a passage is not the asker's to see, [`Error::UpstreamThrottled`], [`Error::Timeout`],
    /// [`Error::Unavailable`], [`Error::UpstreamFailed`], [`Error::Internal`]. What was released before stays released.
    pub async fn answer(&self, ask: &Ask, delivery: Delivery, sink: &mut Sink) -> Result<Outcome, Error> {
        // Boxed: the SDK's futures are nested too deep for the compiler to lay out in one piece.
        match (ask.engine, delivery) {
            (EngineName::Managed, Delivery::Whole) => Box::pin(self.managed(ask, sink)).await,
            (EngineName::Managed, Delivery::Streamed) => Box::pin(self.managed_stream(ask, sink)).await,
            (EngineName::Verified, _) => Box::pin(self.verified(ask, delivery, sink)).await,
        }
    }
}

impl Ask {
    /// The firewall for the asker.
    ///
    /// # Errors
    /// [`Error::Isolation`] if the profile is another tenant's.
    pub fn firewall<'a>(&'a self, bucket: &'a str) -> Result<Firewall<'a>, Error> {
        Firewall::new(&self.context, &self.profile, &self.plan, bucket)
    }
}

/// Where an answer's pieces go: put together, and to the reader of a stream if there is one.
#[derive(Debug)]
pub struct Sink {
    said: Said,
    session: Option<String>,
    context_reset: bool,
    opening: Opening,
    feed: Option<Feed>,
}

impl Sink {
    /// For an answer that is sent whole.
    pub fn whole() -> Self {
        Self {
            said: Said::default(),
            session: None,
            context_reset: false,
            opening: Opening::none(),
            feed: None,
        }
    }

    /// For an answer that is streamed to `feed`, and whose turn is stored by `opening` as soon as it is coming.
    pub fn streamed(feed: Feed, opening: Opening) -> Self {
        Self {
            feed: Some(feed),
            opening,
            ..Self::whole()
        }
    }

    /// Notes that an answer is coming, in Bedrock's `session` if it has one. Its turn is stored while the first words are
    /// waited for.
    pub fn accepted(&mut self, session: Option<&str>, context_reset: bool) {
        self.session = session.map(str::to_owned);
        self.context_reset = context_reset;
        self.opening.begin();
    }

    /// Lets a piece out. It does not wait until the answer's turn is stored: that would be the reader's wait for the first
    /// word.
    ///
    /// # Errors
    /// What [`Sink::stored`] says, as soon as it is known.
    pub async fn release(&mut self, piece: Piece) -> Result<(), Error> {
        self.opening.begin();
        if self.opening.is_known() {
            self.stored().await?;
        }
        self.said.add(&piece);
        if let Some(feed) = &mut self.feed {
            feed.send(piece, self.context_reset).await;
        }
        Ok(())
    }

    /// Waits until the answer's turn is stored. One that is not must not end well: its reader would look for it under a
    /// conversation that is not there.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; [`Error::NotFound`] if the conversation was deleted in the meantime.
    pub async fn stored(&mut self) -> Result<(), Error> {
        self.opening.opened().await
    }

    /// What was said so far.
    pub const fn said(&self) -> &Said {
        &self.said
    }

    /// What was said, what Bedrock calls the conversation, whether it was begun anew, the turn's number if it was stored,
    /// and where the stream's end goes.
    pub(crate) async fn into_parts(self) -> Parts {
        Parts {
            number: self.opening.number().await,
            said: self.said,
            session: self.session,
            context_reset: self.context_reset,
            feed: self.feed,
        }
    }
}

/// What a sink holds after an answer.
#[derive(Debug)]
pub(crate) struct Parts {
    pub said: Said,
    pub session: Option<String>,
    pub context_reset: bool,
    pub number: Option<u64>,
    pub feed: Option<Feed>,
}
