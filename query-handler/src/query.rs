//! `POST /genai/query` and `POST /genai/query/stream`: the same question, answered whole or word by word.
//!
//! A streamed answer is made by a task of its own. What fails before it has anything to say is an ordinary problem; from
//! then on the stream ends with exactly one `done` or `error` ([`crate::event`]). If its reader leaves, it is finished and
//! stored all the same, unless the tenant wants no transcripts: then nobody would ever read it, and the model is stopped.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bulkhead_core::error::Error;
use bulkhead_core::plan::{EngineName, Plan};
use bulkhead_core::profile::Profile;
use bulkhead_core::request::Request;
use bulkhead_core::response::Response;
use bulkhead_core::store::{SharedCorpus, TenantStore};
use bulkhead_core::tenant::{Role, TenantContext};
use bulkhead_core::turn::Turn;
use http::StatusCode;
use tokio::time::{Instant, sleep, sleep_until};

use crate::answer::{Answer, Usage};
use crate::config::DEFAULT_MODEL;
use crate::conversation::{Conversation, Memory, Opening, Resumption, end};
use crate::engine::{Ask, Delivery, Outcome, Parts, Sink};
use crate::event::{self, Done};
use crate::filter::RetrievalFilter;
use crate::firewall::{Documents, Records};
use crate::history::HistoryTurn;
use crate::narrowing::UnverifiedNarrowing;
use crate::question::Question;
use crate::{Data, Shared, State};

/// What is kept of a request's time for what follows an answer: storing it, and saying that it is over.
pub(crate) const AFTERWARDS: Duration = Duration::from_secs(1);
/// How soon a status that could not be read is looked at again, and how often.
const STATUS_RETRY: Duration = Duration::from_secs(1);
const STATUS_RETRIES: u32 = 5;

/// A caller who may ask, and whom the tenant's status does not keep from it.
pub(crate) struct Asker {
    pub data: Arc<Data>,
    pub context: TenantContext,
    pub profile: Profile,
    pub plan: Plan,
    pub store: TenantStore,
    pub shared: Option<SharedCorpus>,
}

/// What an asker asks for, read and checked as far as that needs no profile.
pub(crate) struct Wish {
    /// What is to answer, if the plan does not say.
    pub engine: EngineName,
    /// The question, normalised.
    pub question: String,
    /// What the caller wants to be taken into account.
    pub background: Option<String>,
    /// What was said before, for `verified`.
    pub history: Vec<HistoryTurn>,
    /// What the caller narrows the search to.
    pub filter: Option<UnverifiedNarrowing>,
    /// How many passages to look at.
    pub results: i32,
}

impl State {
    /// Answers whole.
    pub(crate) async fn query(&self, request: &Request) -> Result<Response, Error> {
        let deadline = Instant::now() + request.time_left().saturating_sub(AFTERWARDS);
        let (ask, conversation, mut turn) = self.read(request, EngineName::Managed, deadline).await?;
        let mut sink = Sink::whole();
        let outcome = match self.shared.engines.answer(&ask, Delivery::Whole, &mut sink).await {
            Ok(outcome) => outcome,
            Err(error) => {
                if matches!(error, Error::Breach { .. })
                    && ask.engine == EngineName::Managed
                    // The breach is what the alarm must see, also if Bedrock's history can't be left behind.
                    && conversation.forget().await.is_err()
                {
                    tracing::error!("a conversation goes on after an answer that was refused");
                }
                return Err(error);
            }
        };
        let parts = sink.into_parts().await;
        let usage = ask.usage(outcome);
        let memory = parts.session.map_or(Memory::Untouched, Memory::Seen);
        parts.said.record(&mut turn);
        usage.record(&mut turn);
        end(&mut turn, None, self.shared.clock.now());
        conversation.keep(turn, memory).await?;
        released(&parts.said, parts.context_reset, ask.engine);
        let answer = Answer::new(&parts.said, conversation.handle(), &usage, parts.context_reset);
        Response::json(StatusCode::OK, &answer)
    }

    /// Answers word by word.
    pub(crate) async fn stream_query(&self, request: &Request) -> Result<Response, Error> {
        let deadline = self.stream_deadline(request);
        let (ask, conversation, turn) = self.read(request, EngineName::Verified, deadline).await?;
        self.stream(request, ask, Some((conversation, turn))).await
    }

    /// When a stream that begins now must be over.
    pub(crate) fn stream_deadline(&self, request: &Request) -> Instant {
        let longest = self.shared.streams.longest;
        let left = request.stream_time_left(longest + AFTERWARDS);
        Instant::now() + left.saturating_sub(AFTERWARDS)
    }

    /// The question of a request, with everything that an engine needs.
    async fn read(
        &self,
        request: &Request,
        engine: EngineName,
        deadline: Instant,
    ) -> Result<(Ask, Conversation, Turn), Error> {
        let context = self.caller(request)?;
        let question = Question::read(request)?;
        let data = self.data(&context, engine).await?;
        let store = TenantStore::new(&data.table, &context, &self.shared.clock);
        // Both are awaited and the tenant's status is looked at first, so that a suspended tenant learns nothing else.
        let (asker, conversation) = tokio::join!(
            self.asker(context, data),
            Conversation::find(&store, &question.thread, &self.shared.clock),
        );
        let (asker, conversation) = (asker?, conversation?);
        let conversation = conversation.with_transcripts(asker.profile.transcripts);
        let wish = Wish {
            engine,
            question: question.text,
            background: question.context,
            history: Vec::new(),
            filter: question.filter,
            results: question.results,
        };
        let mut ask = self.ask(asker, wish, deadline)?;
        match ask.engine {
            EngineName::Verified => ask.history = conversation.history().await?,
            EngineName::Managed => {
                let Resumption {
                    session,
                    background,
                    context_reset,
                } = conversation.resumption(ask.background.as_deref()).await?;
                ask.session = session;
                ask.background = background;
                ask.context_reset = context_reset;
            }
        }
        let now = self.shared.clock.now();
        let turn = Turn::begin(0, ask.question.clone(), ask.engine, ask.model.clone(), now);
        Ok((ask, conversation, turn))
    }

    /// The caller of a request who may ask: a reader, and no operator. Those look after the shared documents and ask
    /// nobody's questions.
    ///
    /// # Errors
    /// [`Error::Unauthorized`], [`Error::Forbidden`], [`Error::Isolation`].
    pub(crate) fn caller(&self, request: &Request) -> Result<TenantContext, Error> {
        let context = TenantContext::new(request.caller(), &self.shared.clock)?;
        context.require(Role::Reader)?;
        if context.tenant().is_shared() {
            return Err(Error::Forbidden);
        }
        Ok(context)
    }

    /// What the caller's tenant keeps. While its first call awaits the credentials, the clients of `engine` are built, which
    /// need none of them.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`], [`Error::Isolation`].
    pub(crate) async fn data(&self, context: &TenantContext, engine: EngineName) -> Result<Arc<Data>, Error> {
        let (data, ()) = tokio::join!(self.shared.data.of(context), async {
            self.shared.engines.warm(engine);
        });
        data
    }

    /// The caller with what the tenant may do.
    ///
    /// # Errors
    /// [`Error::TenantUnknown`], [`Error::TenantSuspended`], [`Error::Unavailable`].
    pub(crate) async fn asker(&self, context: TenantContext, data: Arc<Data>) -> Result<Asker, Error> {
        let profile = data.profiles.active(&context).await?;
        let plan = self.shared.plans.of(&profile)?.clone();
        Ok(Asker {
            store: TenantStore::new(&data.table, &context, &self.shared.clock),
            shared: SharedCorpus::new(&data.table, &context, &plan),
            data,
            context,
            profile,
            plan,
        })
    }

    /// What an engine is asked if `asker` wishes for `wish`.
    ///
    /// # Errors
    /// [`Error::Unprocessable`] if the tenant has not declared what the filter names, [`Error::Isolation`].
    pub(crate) fn ask(&self, asker: Asker, wish: Wish, deadline: Instant) -> Result<Ask, Error> {
        let Asker {
            data,
            context,
            profile,
            plan,
            store,
            shared,
        } = asker;
        let narrowing = wish.filter.map(|filter| filter.verify(&profile)).transpose()?;
        Ok(Ask {
            filter: RetrievalFilter::new(&context, &profile, &plan, narrowing)?,
            engine: plan.engine.unwrap_or(wish.engine),
            model: plan.model.clone().unwrap_or_else(|| DEFAULT_MODEL.to_owned()),
            question: wish.question,
            background: wish.background,
            history: wish.history,
            session: None,
            context_reset: false,
            results: wish.results,
            data,
            context,
            profile,
            plan,
            store,
            shared,
            deadline,
        })
    }

    /// Streams the answer to `ask`, which is a turn of a conversation if there is one.
    ///
    /// # Errors
    /// What goes wrong before there is anything to say.
    pub(crate) async fn stream(
        &self,
        request: &Request,
        ask: Ask,
        conversation: Option<(Conversation, Turn)>,
    ) -> Result<Response, Error> {
        let handle = conversation
            .as_ref()
            .map(|(conversation, _)| conversation.handle().clone());
        let heartbeat = self.shared.streams.heartbeat;
        let (feed, mut body) = event::stream(
            handle,
            request.request_id(),
            ask.context.tenant(),
            heartbeat,
            &self.shared.clock,
        );
        let opening = match &conversation {
            Some((conversation, turn)) => conversation.opening(turn.clone(), &self.background),
            None => Opening::none(),
        };
        let shared = Arc::clone(&self.shared);
        let reader_gone = feed.reader_gone();
        let sink = Sink::streamed(feed, opening);
        self.background.spawn(shared.make(ask, conversation, sink, reader_gone));
        body.begin(heartbeat).await?;
        Ok(Response::event_stream(body))
    }
}

/// How the making of a streamed answer ended.
enum Ending {
    Made(Outcome),
    Failed(Error),
    /// Nobody reads it any more, and nobody will.
    Left,
}

impl Shared {
    /// Makes a streamed answer, stores it, and says how it ended.
    async fn make(
        self: Arc<Self>,
        ask: Ask,
        conversation: Option<(Conversation, Turn)>,
        mut sink: Sink,
        reader_gone: impl Future<Output = ()> + Send,
    ) {
        let will_be_read = conversation
            .as_ref()
            .is_some_and(|(conversation, _)| conversation.transcripts());
        let ending = {
            let making = unwinding(Box::pin(async {
                let outcome = self.engines.answer(&ask, Delivery::Streamed, &mut sink).await?;
                sink.stored().await?;
                Ok(outcome)
            }));
            tokio::select! {
                biased;
                made = making => made.map_or_else(Ending::Failed, Ending::Made),
                stopped = self.stopped(&ask) => Ending::Failed(stopped),
                () = sleep_until(ask.deadline) => Ending::Failed(Error::Timeout("the answer took too long".into())),
                () = reader_gone, if !will_be_read => Ending::Left,
            }
        };
        let Parts {
            said,
            session,
            context_reset,
            number,
            feed,
        } = sink.into_parts().await;
        let failure = match &ending {
            Ending::Made(_) => None,
            Ending::Failed(error) => Some(error),
            Ending::Left => Some(&Error::Timeout("the reader left".into())),
        };
        let usage = match &ending {
            Ending::Made(outcome) => ask.usage(*outcome),
            Ending::Failed(_) | Ending::Left => ask.usage(Outcome::default()),
        };
        if let Some((conversation, mut turn)) = conversation {
            let memory = match (session, failure) {
                // A stream that ended early may have said what it rests on too late for the firewall to see it.
                (Some(_), Some(_)) => Memory::Tainted,
                (Some(session), None) => Memory::Seen(session),
                (None, _) => Memory::Untouched,
            };
            said.record(&mut turn);
            usage.record(&mut turn);
            end(&mut turn, failure, self.clock.now());
            match number {
                Some(number) => conversation.close(turn, number, memory).await,
                None => conversation.abandon(&memory).await,
            }
        }
        let outcome = match ending {
            Ending::Made(_) => {
                released(&said, context_reset, ask.engine);
                Ok(Done {
                    guardrail_action: said.guardrail_action(),
                    usage,
                })
            }
            Ending::Failed(error) => Err(error),
            Ending::Left => {
                tracing::info!("the reader left, and the answer with him");
                return;
            }
        };
        if let Some(feed) = feed {
            feed.end(outcome);
        }
    }

    /// Comes back with the reason once the tenant may not be answered any more, however long it is waited for.
    async fn stopped(&self, ask: &Ask) -> Error {
        let mut unread = 0;
        let mut pause = self.streams.status_recheck;
        loop {
            sleep(pause).await;
            match ask.data.profiles.active(&ask.context).await {
                Ok(_) => (unread, pause) = (0, self.streams.status_recheck),
                // A status that can't be read is not a good one, but a blink of the table stops no stream.
                Err(error @ Error::Unavailable(_)) => {
                    if unread == STATUS_RETRIES {
                        return error;
                    }
                    unread += 1;
                    pause = STATUS_RETRY;
                }
                Err(error) => return error,
            }
        }
    }
}

impl Ask {
    /// The records that a release needs.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub(crate) async fn records(&self, documents: &Documents) -> Result<Records, Error> {
        Records::read(&self.store, self.shared.as_ref(), documents).await
    }

    fn usage(&self, outcome: Outcome) -> Usage {
        Usage::new(self.engine, &self.model, outcome.tokens)
    }
}

/// `work`, whose panic is an error of ours: a stream must end with one although whoever made it fell.
async fn unwinding<T>(mut work: Pin<Box<impl Future<Output = Result<T, Error>>>>) -> Result<T, Error> {
    std::future::poll_fn(|context| {
        catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)))
            .unwrap_or_else(|_| Poll::Ready(Err(Error::internal("a panic"))))
    })
    .await
}

/// Notes that an answer left, and nothing of what it says.
fn released(said: &crate::answer::Said, context_reset: bool, engine: EngineName) {
    tracing::info!(
        engine = engine.as_str(),
        "parts.released" = said.citations.len(),
        guardrail_intervened = said.guardrail_intervened,
        context_reset,
        "released"
    );
}
