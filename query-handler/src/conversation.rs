//! Conversations: what a question goes on with, and what of it and its answer is kept.
//!
//! Clients know our handle only. It is looked up under the caller's tenant and user, so that a foreign, a forged and an
//! expired one are all simply not there. Turns are stored under it, unless the tenant wants no transcripts, so that
//! `verified` can be told what was said before, and a client that lost its stream finds its answer. Bedrock keeps a
//! history of its own, of `managed`'s turns only; what it has not seen is told to it ([`Conversation::resumption`]).

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use bulkhead_core::background::Background;
use bulkhead_core::error::Error;
use bulkhead_core::session::{Session, SessionHandle};
use bulkhead_core::store::TenantStore;
use bulkhead_core::time::{Clock, Timestamp};
use bulkhead_core::turn::{Turn, TurnStatus};
use tokio::task::JoinHandle;

use crate::answer::units;
use crate::history::{self, HistoryTurn, Speaker};
use crate::question::{MAX_CONTEXT, Thread};

/// How many turns are read to go on with: [`history::MAX_TURNS`] counts what both sides said.
const TURNS: usize = history::MAX_TURNS / 2;
/// How long storing an answer may take after it was made.
const STORING: Duration = Duration::from_secs(5);
/// What stands before turns that Bedrock has not seen.
const EARLIER: &str = "Earlier in this conversation:";

/// A conversation that a question belongs to, and the turns that may be told in it.
#[derive(Clone, Debug)]
pub struct Conversation {
    session: Session,
    is_new: bool,
    transcripts: bool,
    store: TenantStore,
    clock: Clock,
}

/// What Bedrock's session is told beside a question, so that it knows what was said before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resumption {
    /// Bedrock's session, if it goes on.
    pub session: Option<String>,
    /// The caller's context, and the turns that the session has not seen.
    pub background: Option<String>,
    /// Whether what was said before is lost.
    pub context_reset: bool,
}

/// What becomes of Bedrock's session after an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Nothing: it was not asked.
    Untouched,
    /// It is known under this id and has seen the turn.
    Seen(String),
    /// It holds what had to be refused, or what was never checked, and what comes later could repeat it without citing
    /// anything.
    Tainted,
}

impl Conversation {
    /// The conversation that the caller named, or a new one.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the caller has none of that name, [`Error::Unavailable`].
    pub async fn find(store: &TenantStore, thread: &Thread, clock: &Clock) -> Result<Self, Error> {
        let (session, is_new) = match thread {
            Thread::New => (Session::begin(clock.now()), true),
            Thread::Impossible => return Err(Error::NotFound),
            Thread::Named(handle) => (store.session(handle).await?.ok_or(Error::NotFound)?, false),
        };
        Ok(Self {
            session,
            is_new,
            transcripts: false,
            store: store.clone(),
            clock: clock.clone(),
        })
    }

    /// The same conversation, of a tenant that wants transcripts or does not.
    #[must_use]
    pub fn with_transcripts(self, transcripts: bool) -> Self {
        Self { transcripts, ..self }
    }

    /// Our name of it.
    pub const fn handle(&self) -> &SessionHandle {
        &self.session.handle
    }

    /// Whether its turns are kept.
    pub const fn transcripts(&self) -> bool {
        self.transcripts
    }

    /// What was said before, for `verified`.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn history(&self) -> Result<Vec<HistoryTurn>, Error> {
        let turns = self.turns().await?;
        Ok(history::recent(
            turns.iter().filter(|turn| can_be_told(turn)).flat_map(told),
        ))
    }

    /// What `managed` goes on with. Turns of the other engine that fit beside the caller's context, the newest first, are
    /// told there; if none does, or none is kept, Bedrock begins anew.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn resumption(&self, context: Option<&str>) -> Result<Resumption, Error> {
        let seen = self.session.knowledge_base_turns;
        let session = self.session.knowledge_base_session.clone();
        let background = context.map(str::to_owned);
        if self.session.turns <= seen {
            return Ok(Resumption {
                session,
                background,
                context_reset: false,
            });
        }
        let mut unseen = self.turns().await?;
        unseen.retain(|turn| turn.number > seen);
        let are_lost = unseen.is_empty();
        unseen.retain(can_be_told);
        if unseen.is_empty() && !are_lost {
            // They failed: there is nothing to tell.
            return Ok(Resumption {
                session,
                background,
                context_reset: false,
            });
        }
        Ok(match self::background(context, &unseen) {
            Some(background) => Resumption {
                session,
                background: Some(background),
                context_reset: false,
            },
            None => Resumption {
                session: None,
                background,
                context_reset: true,
            },
        })
    }

    async fn turns(&self) -> Result<Vec<Turn>, Error> {
        if self.is_new || !self.transcripts {
            return Ok(Vec::new());
        }
        self.store.turns(self.handle(), TURNS).await
    }

    /// How the turn of a streamed answer is stored as soon as the answer is coming.
    pub fn opening(&self, turn: Turn, background: &Background) -> Opening {
        let conversation = self.clone();
        Opening(Stage::Waiting {
            work: Box::pin(async move { conversation.begin(turn).await }),
            background: background.clone(),
        })
    }

    async fn begin(&self, mut turn: Turn) -> Result<u64, Error> {
        turn.number = self.next_number(&turn, None).await?;
        if self.transcripts {
            self.store.put_turn(self.handle(), &turn).await?;
        }
        Ok(turn.number)
    }

    /// Counts the turn, beginning the conversation with it if it is new; its number.
    async fn next_number(&self, turn: &Turn, knowledge_base_session: Option<&str>) -> Result<u64, Error> {
        if !self.is_new {
            return self.store.next_turn(self.handle(), self.clock.now()).await;
        }
        let mut session = Session {
            turns: 1,
            knowledge_base_session: knowledge_base_session.map(str::to_owned),
            knowledge_base_turns: u64::from(knowledge_base_session.is_some()),
            ..self.session.clone()
        };
        if self.transcripts {
            session = session.titled(&turn.user_query);
        }
        self.store.begin_session(&session).await?;
        Ok(1)
    }

    /// Stores what became of a streamed answer whose turn was opened. Its reader has read it by now, so that what can't be
    /// stored is only logged.
    pub async fn close(&self, mut turn: Turn, number: u64, memory: Memory) {
        turn.number = number;
        let storing = async {
            let ended = async {
                if self.transcripts {
                    self.store.end_turn(self.handle(), &turn).await?;
                }
                Ok::<_, Error>(())
            };
            let (ended, remembered) = tokio::join!(ended, self.remember(number, &memory));
            ended.and(remembered)
        };
        match tokio::time::timeout(STORING, storing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!("error.code" = error.code().as_str(), "a turn's end was not stored"),
            Err(_) => tracing::error!("error.code" = "timeout", "a turn's end was not stored"),
        }
    }

    /// As [`Conversation::close`], where there is no turn to store: a session that must not go on does not go on for that.
    pub async fn abandon(&self, memory: &Memory) {
        if *memory != Memory::Tainted {
            return;
        }
        if !matches!(tokio::time::timeout(STORING, self.forget()).await, Ok(Ok(()))) {
            tracing::error!("a conversation goes on after an answer that was refused");
        }
    }

    /// Stores a whole answer.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the conversation was deleted in the meantime, [`Error::Unavailable`].
    pub async fn keep(&self, mut turn: Turn, memory: Memory) -> Result<(), Error> {
        let session = match &memory {
            Memory::Seen(session) => Some(session.as_str()),
            Memory::Untouched | Memory::Tainted => None,
        };
        turn.number = self.next_number(&turn, session).await?;
        let remembered = async {
            if self.is_new {
                return Ok(());
            }
            self.remember(turn.number, &memory).await
        };
        let kept = async {
            if self.transcripts {
                self.store.put_turn(self.handle(), &turn).await?;
            }
            Ok(())
        };
        let (kept, remembered) = tokio::join!(kept, remembered);
        kept.and(remembered)
    }

    /// Notes what became of Bedrock's session without a turn to store.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn forget(&self) -> Result<(), Error> {
        if self.is_new {
            return Ok(());
        }
        self.remember(0, &Memory::Tainted).await
    }

    async fn remember(&self, number: u64, memory: &Memory) -> Result<(), Error> {
        // Another session will have seen nothing.
        let (session, seen) = match memory {
            Memory::Untouched => return Ok(()),
            Memory::Seen(session) => (Some(session.as_str()), number),
            Memory::Tainted => (None, 0),
        };
        let begun_with = self.session.knowledge_base_session.as_deref();
        self.store
            .remember(self.handle(), begun_with, session, seen, self.clock.now())
            .await?;
        Ok(())
    }
}

/// How an answer ended, in its turn.
pub fn end(turn: &mut Turn, failed: Option<&Error>, now: Timestamp) {
    turn.status = if failed.is_some() {
        TurnStatus::Failed
    } else {
        TurnStatus::Complete
    };
    turn.code = failed.map(Error::code);
    turn.ended_at = Some(now);
}

/// Whether a model may be told a turn: not one that failed, nor one that a guardrail stopped.
fn can_be_told(turn: &Turn) -> bool {
    turn.status == TurnStatus::Complete && !turn.guardrail_intervened
}

fn told(turn: &Turn) -> [HistoryTurn; 2] {
    [
        HistoryTurn::new(Speaker::User, &turn.user_query),
        HistoryTurn::new(Speaker::Assistant, &turn.text),
    ]
}

/// The caller's context and as many of `turns` as fit behind it, the newest first; `None` if none does.
fn background(context: Option<&str>, turns: &[Turn]) -> Option<String> {
    let opening = match context {
        Some(context) => format!("{context}\n\n{EARLIER}"),
        None => EARLIER.to_owned(),
    };
    let mut left = MAX_CONTEXT.checked_sub(units(&opening))?;
    let mut fitting: Vec<String> = Vec::new();
    for turn in turns.iter().rev() {
        let [question, answer] = told(turn);
        let text = format!("\nuser: {}\nassistant: {}", question.text, answer.text);
        match left.checked_sub(units(&text)) {
            Some(rest) => left = rest,
            None => break,
        }
        fitting.push(text);
    }
    if fitting.is_empty() {
        return None;
    }
    fitting.push(opening);
    fitting.reverse();
    Some(fitting.concat())
}

/// The storing of a turn that begins: not begun, under way, or done.
pub struct Opening(Stage);

enum Stage {
    Waiting {
        work: Pin<Box<dyn Future<Output = Result<u64, Error>> + Send>>,
        background: Background,
    },
    Running(JoinHandle<Result<u64, Error>>),
    Done(Option<u64>),
}

impl Opening {
    /// For answers that have no turn, or whose turn is stored when they are whole.
    pub const fn none() -> Self {
        Self(Stage::Done(None))
    }

    /// Begins to store it, if that was not begun.
    pub fn begin(&mut self) {
        self.0 = match std::mem::replace(&mut self.0, Stage::Done(None)) {
            Stage::Waiting { work, background } => Stage::Running(background.spawn(work)),
            other => other,
        };
    }

    /// Whether it is known by now how the storing went.
    pub fn is_known(&self) -> bool {
        match &self.0 {
            Stage::Waiting { .. } => false,
            Stage::Running(running) => running.is_finished(),
            Stage::Done(_) => true,
        }
    }

    /// Waits until it is stored.
    ///
    /// # Errors
    /// It can't be.
    pub async fn opened(&mut self) -> Result<(), Error> {
        self.begin();
        if let Stage::Running(running) = &mut self.0 {
            let stored = running.await.map_err(Error::internal);
            self.0 = Stage::Done(None);
            self.0 = Stage::Done(Some(stored??));
        }
        Ok(())
    }

    /// The turn's number, if it was stored: what was not begun will not be. It is not waited for without end: the stream
    /// must end before its function does, however slow the table is.
    pub async fn number(mut self) -> Option<u64> {
        if matches!(self.0, Stage::Running(_)) {
            // What went wrong is what the answer failed with, or it failed with something else first.
            let _ = tokio::time::timeout(STORING, self.opened()).await;
        }
        match self.0 {
            Stage::Done(number) => number,
            Stage::Waiting { .. } | Stage::Running(_) => None,
        }
    }
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Stage::Waiting { .. } => "Waiting",
            Stage::Running(_) => "Running",
            Stage::Done(_) => "Done",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_is_not_stored_is_not_waited_for_without_end() {
        let mut opening = Opening(Stage::Waiting {
            work: Box::pin(std::future::pending()),
            background: Background::new(),
        });
        opening.begin();
        let number = tokio::time::timeout(STORING * 2, opening.number()).await;
        assert_eq!(number.unwrap(), None);
    }
}
