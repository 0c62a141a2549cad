//! What every model here has in common: a conversation goes in, text comes out bit by bit, and then how it ended.

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt as _};

use super::token;

/// Who said something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The one who asks.
    User,
    /// The model.
    Assistant,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who said it.
    pub role: Role,
    /// Its text, block by block. Whether a guardrail looks at a block makes no difference to the model.
    pub blocks: Vec<String>,
}

impl Message {
    /// All blocks, one under the other.
    #[must_use]
    pub fn text(&self) -> String {
        self.blocks.join("\n")
    }
}

/// What a model is asked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conversation {
    /// The system prompt, block by block.
    pub system: Vec<String>,
    /// The messages, oldest first. The last is a user's.
    pub messages: Vec<Message>,
    /// The longest answer, in tokens.
    pub max_tokens: Option<u64>,
    /// Texts before which an answer ends.
    pub stop_sequences: Vec<String>,
    /// From 0 to 1.
    pub temperature: Option<f64>,
    /// From 0 to 1.
    pub top_p: Option<f64>,
}

impl Conversation {
    /// How many tokens go in ([`token`]).
    #[must_use]
    pub fn tokens(&self) -> u64 {
        let messages = self.messages.iter().flat_map(|message| &message.blocks);
        self.system.iter().chain(messages).map(|text| token::count(text)).sum()
    }
}

/// Why an answer ended
/// (<https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_MessageStopEvent.html>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The model had said all.
    EndTurn,
    /// It would have been longer than `maxTokens`.
    MaxTokens,
    /// One of the stop sequences came.
    StopSequence,
    /// The model's own filter ended it.
    ContentFiltered,
    /// A guardrail replaced it, or what was left of it.
    GuardrailIntervened,
}

impl StopReason {
    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EndTurn => "end_turn",
            Self::MaxTokens => "max_tokens",
            Self::StopSequence => "stop_sequence",
            Self::ContentFiltered => "content_filtered",
            Self::GuardrailIntervened => "guardrail_intervened",
        }
    }
}

/// What a request has cost, in tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// What went in.
    pub input: u64,
    /// What came out.
    pub output: u64,
}

/// What a model says next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Utterance {
    /// More text, never empty.
    Text(String),
    /// The end; nothing comes after it.
    End {
        /// Why.
        reason: StopReason,
        /// What the model has counted, or `None` where it does not count: then [`token`] is what counts.
        usage: Option<Usage>,
    },
}

/// Why a model does not answer, or not to the end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Too many requests.
    #[error("the model is asked too often: {0}")]
    Throttled(String),
    /// The request is nothing for this model.
    #[error("the model refuses the request: {0}")]
    Refused(String),
    /// It fails. The status is that of the model's own answer.
    #[error("the model failed with status {status}: {message}")]
    Failed {
        /// An HTTP status.
        status: u16,
        /// What it says.
        message: String,
    },
    /// It is not there at the moment.
    #[error("the model is unavailable: {0}")]
    Unavailable(String),
    /// It takes too long.
    #[error("the model takes too long: {0}")]
    TimedOut(String),
    /// The service before the model fails.
    #[error("the service failed: {0}")]
    Internal(String),
}

/// An answer as it comes. Dropping it ends it.
pub type Speech = BoxStream<'static, Result<Utterance, Failure>>;

/// A model.
pub trait Model: Send + Sync + 'static {
    /// What it is called, for people.
    fn name(&self) -> &str;

    /// Begins to answer. A failure here comes before any byte of the answer, one in the [`Speech`] in the middle of it.
    /// A speech without an [`Utterance::End`] was cut off.
    fn begin(&self, conversation: Arc<Conversation>) -> BoxFuture<'static, Result<Speech, Failure>>;
}

/// Holds a model that knows no limits to `maxTokens` and to the stop sequences, as Bedrock's do it.
pub(super) fn limited(
    said: impl Stream<Item = Result<Utterance, Failure>> + Send + 'static,
    conversation: &Conversation,
) -> Speech {
    let limits = Limits {
        max_tokens: conversation.max_tokens,
        stop_sequences: conversation.stop_sequences.clone(),
        ..Limits::default()
    };
    // Each utterance may become two: what was held back, and the end.
    stream::unfold(Some((said.boxed(), limits)), |state| async move {
        let (mut said, mut limits) = state?;
        match said.next().await {
            Some(Ok(Utterance::Text(text))) => {
                let (text, end) = limits.take(&text);
                let mut out = text_utterances(text);
                match end {
                    Some(reason) => {
                        out.push(Ok(Utterance::End { reason, usage: None }));
                        Some((out, None))
                    }
                    None => Some((out, Some((said, limits)))),
                }
            }
            Some(Ok(end @ Utterance::End { .. })) => {
                let (text, cut) = limits.finish();
                let mut out = text_utterances(text);
                out.push(Ok(match cut {
                    Some(reason) => Utterance::End { reason, usage: None },
                    None => end,
                }));
                Some((out, None))
            }
            Some(Err(failure)) => Some((vec![Err(failure)], None)),
            None => None,
        }
    })
    .flat_map(stream::iter)
    .boxed()
}

fn text_utterances(text: String) -> Vec<Result<Utterance, Failure>> {
    if text.is_empty() {
        Vec::new()
    } else {
        vec![Ok(Utterance::Text(text))]
    }
}

#[derive(Default)]
struct Limits {
    max_tokens: Option<u64>,
    stop_sequences: Vec<String>,
    /// What has gone out.
    said: String,
    /// What may be the beginning of a stop sequence.
    held: String,
}

impl Limits {
    /// What of more text goes out, and whether the answer ends with it.
    fn take(&mut self, text: &str) -> (String, Option<StopReason>) {
        let mut pending = std::mem::take(&mut self.held);
        pending.push_str(text);
        let stop = self.stop_sequences.iter().filter_map(|stop| pending.find(stop)).min();
        if let Some(stop) = stop {
            pending.truncate(stop);
            let (out, cut) = self.fit(pending);
            return (out, cut.or(Some(StopReason::StopSequence)));
        }
        let keep = (0..pending.len())
            .find(|at| {
                let tail = pending.get(*at..);
                tail.is_some_and(|tail| self.stop_sequences.iter().any(|stop| stop.starts_with(tail)))
            })
            .unwrap_or(pending.len());
        self.held = pending.split_off(keep);
        self.fit(pending)
    }

    fn finish(&mut self) -> (String, Option<StopReason>) {
        let held = std::mem::take(&mut self.held);
        self.fit(held)
    }

    /// As much as there are tokens left for.
    fn fit(&mut self, mut text: String) -> (String, Option<StopReason>) {
        let Some(max) = self.max_tokens else {
            return (text, None);
        };
        let before = self.said.len();
        self.said.push_str(&text);
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let fits: usize = token::tokens(&self.said).take(max).map(str::len).sum();
        if fits < self.said.len() {
            text.truncate(fits.saturating_sub(before));
            return (text, Some(StopReason::MaxTokens));
        }
        (text, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(said: &[&str], max_tokens: Option<u64>, stops: &[&str], expected: (&str, StopReason)) {
        let conversation = Conversation {
            max_tokens,
            stop_sequences: stops.iter().map(|stop| (*stop).to_owned()).collect(),
            ..Conversation::default()
        };
        let texts = said.iter().map(|text| Ok(Utterance::Text((*text).to_owned())));
        let end = Ok(Utterance::End {
            reason: StopReason::EndTurn,
            usage: None,
        });
        let speech = limited(stream::iter(texts.chain([end]).collect::<Vec<_>>()), &conversation);
        let mut text = String::new();
        let mut ended = None;
        for utterance in speech.collect::<Vec<_>>().await {
            assert!(ended.is_none());
            match utterance.unwrap() {
                Utterance::Text(more) => {
                    assert!(!more.is_empty());
                    text.push_str(&more);
                }
                Utterance::End { reason, .. } => ended = Some(reason),
            }
        }
        assert_eq!((text.as_str(), ended.unwrap()), expected, "{said:?}");
    }

    #[tokio::test]
    async fn an_answer_ends_where_its_tokens_do() {
        let said = ["One two", " three", " four."];
        check(&said, None, &[], ("One two three four.", StopReason::EndTurn)).await;
        check(&said, Some(5), &[], ("One two three four.", StopReason::EndTurn)).await;
        check(&said, Some(4), &[], ("One two three four", StopReason::MaxTokens)).await;
        check(&said, Some(2), &[], ("One two", StopReason::MaxTokens)).await;
        check(&["abc", "def", "ghi"], Some(1), &[], ("abcdef", StopReason::MaxTokens)).await;
    }

    #[tokio::test]
    async fn a_stop_sequence_is_found_across_pieces_and_is_not_said() {
        let stop = StopReason::StopSequence;
        check(&["a b", "c STO", "P d"], None, &["STOP"], ("a bc ", stop)).await;
        check(&["a STO", "RE"], None, &["STOP"], ("a STORE", StopReason::EndTurn)).await;
        check(&["a ST"], None, &["STOP"], ("a ST", StopReason::EndTurn)).await;
        check(&["x y z"], None, &["z", "y"], ("x ", stop)).await;
        check(
            &["ü\u{1f6a2}ü"],
            None,
            &["\u{1f6a2}ü!"],
            ("ü\u{1f6a2}ü", StopReason::EndTurn),
        )
        .await;
    }
}
