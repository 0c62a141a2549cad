//! The model that comes with the stack: it repeats what the passages say, and where they say nothing it says so.
//!
//! What it finds is [`generation`]'s; here is how it reads a prompt, cites (` [n]` behind what is from passage n) and
//! speaks: word by word at a settable pace. It knows nothing that is not in the prompt, so what an answer holds is what the
//! model was shown. Rules in the system prompt have no effect on it, and neither have orders in the passages.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, stream};

use super::prompt::{self, Prompt, Purpose};
use super::speech::{Conversation, Failure, Model, Speech, StopReason, Utterance, limited};
use super::token;
use crate::event_stream::{Pace, pieces};
use crate::knowledge_base::chunk::Chunk;
use crate::knowledge_base::generation;
use crate::knowledge_base::session::Turn;

/// What it answers when the passages hold no answer: the sentence that the product's rules ask every model for.
pub const NO_ANSWER: &str = "No exact answer was found in your documents.";

/// The longest answer, in characters.
const LENGTH: usize = 8_000;

/// The model. Clones speak at the same pace.
#[derive(Debug, Clone, Default)]
pub struct Extractive {
    pace: Arc<RwLock<Pace>>,
}

impl Extractive {
    /// A model that speaks at this pace, a piece being a token.
    #[must_use]
    pub fn new(pace: Pace) -> Self {
        Self {
            pace: Arc::new(RwLock::new(pace)),
        }
    }

    /// Changes the pace of answers that begin from now on.
    pub fn set_pace(&self, pace: Pace) {
        *self.pace.write().unwrap_or_else(PoisonError::into_inner) = pace;
    }

    fn pace(&self) -> Pace {
        *self.pace.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Model for Extractive {
    fn name(&self) -> &'static str {
        "the extractive model"
    }

    fn begin(&self, conversation: Arc<Conversation>) -> BoxFuture<'static, Result<Speech, Failure>> {
        let pace = self.pace();
        async move {
            let text = say(&conversation);
            let words = paced(&text, pace);
            let said = stream::iter(words).then(|(wait, word)| async move {
                if !wait.is_zero() {
                    tokio::time::sleep(wait).await;
                }
                Ok(Utterance::Text(word))
            });
            let end = Ok(Utterance::End {
                reason: StopReason::EndTurn,
                usage: None,
            });
            Ok(limited(said.chain(stream::iter([end])), &conversation))
        }
        .boxed()
    }
}

/// The words of a text, each with how long it takes. A pace is kept from word to word: one of three tokens takes three
/// times as long.
fn paced(text: &str, pace: Pace) -> Vec<(Duration, String)> {
    pieces(text)
        .enumerate()
        .map(|(index, word)| {
            let tokens = u32::try_from(token::count(word)).unwrap_or(u32::MAX);
            let wait = match index {
                0 => pace.first + pace.next.saturating_mul(tokens.saturating_sub(1)),
                _ => pace.next.saturating_mul(tokens),
            };
            (wait, word.to_owned())
        })
        .collect()
}

fn say(conversation: &Conversation) -> String {
    let prompt = Prompt::of(conversation);
    let question = prompt.question.as_deref().unwrap_or_default();
    match prompt.purpose() {
        Purpose::Answer => answer(question, &prompt.history, &prompt.passages),
        Purpose::Rewriting => rewrite(question, &prompt.history),
        Purpose::Unknown => NO_ANSWER.to_owned(),
    }
}

/// The question with the words of those that it refers to, however far back.
fn rewrite(question: &str, history: &[Turn]) -> String {
    match history.split_last() {
        Some((last, before)) if generation::search_text(question, history) != question => {
            format!("{question} {}", rewrite(&last.question, before))
        }
        _ => question.to_owned(),
    }
}

fn answer(question: &str, history: &[Turn], passages: &[prompt::Passage]) -> String {
    let read: Vec<generation::Passage> = passages
        .iter()
        .map(|passage| generation::Passage {
            // Nothing says which passages are from one document.
            document: passage.number.to_string(),
            chunk: Chunk {
                ordinal: 0,
                offset: 0,
                page: None,
                path: Vec::new(),
                text: passage.text.clone(),
            },
        })
        .collect();
    let answer = generation::answer(question, history, &read, LENGTH);
    let mut said = BTreeSet::new();
    let mut text = String::new();
    for part in &answer.parts {
        let numbers: Vec<u64> = part
            .passages
            .iter()
            .filter_map(|index| passages.get(*index))
            .map(|passage| passage.number)
            .collect();
        if numbers.is_empty() && part.text == generation::NO_ANSWER {
            return NO_ANSWER.to_owned();
        }
        let marks: String = numbers.iter().map(|number| format!("[{number}]")).collect();
        // Every item of a list is a statement of its own. Passages overlap, and none is said twice.
        for statement in part.text.split('\n') {
            if !said.insert(statement.to_owned()) {
                continue;
            }
            if !text.is_empty() {
                text.push(answer.separator);
            }
            text.push_str(statement);
            if !marks.is_empty() {
                text.push(' ');
                text.push_str(&marks);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::speech::{Message, Role};

    fn conversation(text: &str) -> Arc<Conversation> {
        Arc::new(Conversation {
            messages: vec![Message {
                role: Role::User,
                blocks: vec![text.to_owned()],
            }],
            ..Conversation::default()
        })
    }

    #[track_caller]
    fn check(prompt: &str, expected: &str) {
        assert_eq!(say(&conversation(prompt)), expected);
    }

    const HARBOUR: &str = "<passage number=\"1\">The harbour master is called Quill. The pier is made of oak.</passage>\n\
                           <passage number=\"3\">The lighthouse was built in 1912.</passage>\n";

    #[test]
    fn it_answers_from_the_passages_and_cites_them() {
        check(
            &format!("{HARBOUR}<question>What is the harbour master called?</question>"),
            "The harbour master is called Quill. [1]",
        );
        check(
            &format!("{HARBOUR}<question>When was the lighthouse built?</question>"),
            "The lighthouse was built in 1912. [3]",
        );
    }

    #[test]
    fn what_the_passages_do_not_say_has_no_answer() {
        check(&format!("{HARBOUR}<question>Who keeps the bees?</question>"), NO_ANSWER);
        check("What is the harbour master called?", NO_ANSWER);
    }

    #[test]
    fn items_are_cited_one_by_one_and_said_once() {
        let season = "Season 2:\n\n- Season 2, Episode 1: The Hull\n- Season 2, Episode 2: The Keel\n";
        check(
            &format!(
                "<passage number=\"1\">{season}</passage><passage number=\"2\">{season}- Season 2, Episode 3: The \
                 Mast</passage><question>List the episodes of season 2.</question>"
            ),
            "Season 2, Episode 1: The Hull [1]\nSeason 2, Episode 2: The Keel [1]\nSeason 2, Episode 3: The Mast [2]",
        );
    }

    #[test]
    fn a_follow_up_takes_the_words_of_what_it_refers_to() {
        let history = "<history><turn role=\"user\">Who is the harbour master?</turn><turn \
                       role=\"assistant\">Quill.</turn><turn role=\"user\">And where does she live?</turn><turn \
                       role=\"assistant\">In the tower.</turn></history>";
        check(
            &format!("{history}<question>And since when?</question>"),
            "And since when? And where does she live? Who is the harbour master?",
        );
        check(
            &format!("{history}<question>Which ships has Osprey built?</question>"),
            "Which ships has Osprey built?",
        );
    }

    #[test]
    fn a_pace_is_kept_token_by_token() {
        let pace = Pace {
            first: Duration::from_secs(5),
            next: Duration::from_secs(1),
        };
        let word = |seconds, text: &str| (Duration::from_secs(seconds), text.to_owned());
        assert_eq!(
            paced("The lighthouse was built.", pace),
            [
                word(5, "The"),
                word(2, " lighthouse"),
                word(1, " was"),
                word(2, " built.")
            ]
        );
    }

    #[tokio::test]
    async fn it_speaks_word_by_word() {
        let prompt = conversation(&format!("{HARBOUR}<question>When was the lighthouse built?</question>"));
        let speech = Extractive::default().begin(prompt).await.unwrap();
        let said: Vec<Utterance> = speech.map(Result::unwrap).collect().await;
        let text = |text: &str| Utterance::Text(text.to_owned());
        assert_eq!(said.len(), 8);
        assert_eq!(said.get(..3).unwrap(), [text("The"), text(" lighthouse"), text(" was")]);
        assert!(matches!(
            said.last(),
            Some(Utterance::End {
                reason: StopReason::EndTurn,
                usage: None
            })
        ));
    }
}
