//! Answers that a test writes: what is said in which pieces, where it pauses, and how it ends.
//!
//! A pause is a [`Gate`], which the test opens; nothing waits for the time to pass.

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, stream};
use tokio::sync::watch;

use super::prompt::Purpose;
use super::speech::{Conversation, Failure, Model, Speech, StopReason, Usage, Utterance, limited};

/// A pause that lasts until somebody opens it. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Gate {
    state: watch::Sender<GateState>,
}

#[derive(Debug, Clone, Copy, Default)]
struct GateState {
    reached: u64,
    is_open: bool,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    /// A closed one.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: watch::Sender::new(GateState::default()),
        }
    }

    /// Lets everybody pass, from now on.
    pub fn open(&self) {
        self.state.send_modify(|state| state.is_open = true);
    }

    /// Returns when an answer has come to this pause, or has come past it.
    pub async fn reached(&self) {
        self.wait_for(|state| state.reached > 0).await;
    }

    async fn pass(&self) {
        self.state.send_modify(|state| state.reached += 1);
        self.wait_for(|state| state.is_open).await;
    }

    async fn wait_for(&self, done: impl FnMut(&GateState) -> bool) {
        // An error would mean that the sender is gone, and it is this gate.
        drop(self.state.subscribe().wait_for(done).await);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Say(String),
    Pause(Gate),
    Fail(Failure),
    Cut,
}

/// An answer, written down. It is said once; [`Script::every_time`] changes that.
#[derive(Debug, Clone)]
pub struct Script {
    steps: Vec<Step>,
    reason: StopReason,
    usage: Option<Usage>,
    pub(super) purpose: Purpose,
    pub(super) stays: bool,
    pub(super) bytes_at_once: Option<usize>,
}

impl Default for Script {
    fn default() -> Self {
        Self::new()
    }
}

impl Script {
    /// An empty answer to a question with passages.
    #[must_use]
    pub fn new() -> Self {
        Self {
            steps: Vec::new(),
            reason: StopReason::EndTurn,
            usage: None,
            purpose: Purpose::Answer,
            stays: false,
            bytes_at_once: None,
        }
    }

    /// Says a piece: one event of a stream, exactly this text, unless a guardrail or a stop sequence is in the way.
    #[must_use]
    pub fn say(mut self, text: impl Into<String>) -> Self {
        self.steps.push(Step::Say(text.into()));
        self
    }

    /// Says a text in these pieces.
    #[must_use]
    pub fn say_all(self, texts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        texts.into_iter().fold(self, Self::say)
    }

    /// Waits until the gate is open.
    #[must_use]
    pub fn pause(mut self, gate: &Gate) -> Self {
        self.steps.push(Step::Pause(gate.clone()));
        self
    }

    /// Fails: as an error response if nothing comes before it, else in the middle of the answer.
    #[must_use]
    pub fn fail(mut self, failure: Failure) -> Self {
        self.steps.push(Step::Fail(failure));
        self
    }

    /// Ends the answer without a word about how it ended, as a model does whose connection is lost.
    #[must_use]
    pub fn cut(mut self) -> Self {
        self.steps.push(Step::Cut);
        self
    }

    /// Ends for this reason.
    #[must_use]
    pub fn stop(mut self, reason: StopReason) -> Self {
        self.reason = reason;
        self
    }

    /// Claims to have cost this much, instead of what is counted.
    #[must_use]
    pub fn usage(mut self, usage: Usage) -> Self {
        self.usage = Some(usage);
        self
    }

    /// Answers requests of this purpose instead of those with passages.
    #[must_use]
    pub fn to(mut self, purpose: Purpose) -> Self {
        self.purpose = purpose;
        self
    }

    /// Stays in force for all requests to come.
    #[must_use]
    pub fn every_time(mut self) -> Self {
        self.stays = true;
        self
    }

    /// Sends the bytes of a stream in pieces of this many, regardless of where an event or a character ends. Faults that
    /// count events count such pieces then.
    #[must_use]
    pub fn bytes_at_once(mut self, bytes: usize) -> Self {
        self.bytes_at_once = Some(bytes.max(1));
        self
    }
}

impl Model for Script {
    fn name(&self) -> &'static str {
        "a script"
    }

    fn begin(&self, conversation: Arc<Conversation>) -> BoxFuture<'static, Result<Speech, Failure>> {
        let mut steps = self.steps.clone();
        let (reason, usage) = (self.reason, self.usage);
        async move {
            if let Some(Step::Fail(failure)) = steps.first() {
                return Err(failure.clone());
            }
            let is_cut = steps.iter().any(|step| matches!(step, Step::Cut));
            if let Some(cut) = steps.iter().position(|step| matches!(step, Step::Cut)) {
                steps.truncate(cut);
            }
            let said = stream::iter(steps).filter_map(|step| async move {
                match step {
                    Step::Say(text) if text.is_empty() => None,
                    Step::Say(text) => Some(Ok(Utterance::Text(text))),
                    Step::Pause(gate) => {
                        gate.pass().await;
                        None
                    }
                    Step::Fail(failure) => Some(Err(failure)),
                    Step::Cut => None,
                }
            });
            let end = (!is_cut).then_some(Ok(Utterance::End { reason, usage }));
            Ok(limited(said.chain(stream::iter(end)), &conversation))
        }
        .boxed()
    }
}
