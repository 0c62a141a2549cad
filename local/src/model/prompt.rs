//! Reading a prompt as a model would: what stands between which tags.
//!
//! `<passage number="n">`, `<history>` with `<turn role="…">`, and `<question>`, in whatever text stands around them. A
//! tag within a passage ends it, because for a model too one tag is like another: who puts strangers' text into a prompt
//! has to see to it that it holds none. `<caller_context>` is passed over: nothing of it is an answer.

use super::speech::{Conversation, Role};
use crate::knowledge_base::session::Turn;

/// A passage that the answer may be taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passage {
    /// What it is cited by.
    pub number: u64,
    /// The text.
    pub text: String,
}

/// What a request is for, as far as a prompt shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Passages and a question: an answer.
    Answer,
    /// A question without passages: the same question, made to stand on its own.
    Rewriting,
    /// No question that could be told from the rest.
    Unknown,
}

/// A prompt, taken to pieces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prompt {
    /// The passages, in their order.
    pub passages: Vec<Passage>,
    /// The conversation so far, oldest first.
    pub history: Vec<Turn>,
    /// The last question.
    pub question: Option<String>,
}

impl Prompt {
    /// Reads the last message, and the messages before it as history.
    #[must_use]
    pub fn of(conversation: &Conversation) -> Self {
        let mut said: Vec<(Role, String)> = conversation
            .messages
            .iter()
            .map(|message| (message.role, message.text()))
            .collect();
        let (_, last) = said.pop().unwrap_or((Role::User, String::new()));
        let mut prompt = Self::read(&last);
        said.extend(history(&last));
        prompt.history = turns(said);
        prompt
    }

    fn read(text: &str) -> Self {
        let (before, question) = match text.rsplit_once("<question>") {
            Some((before, rest)) => {
                let question = rest.split_once("</question>").map_or(rest, |(question, _)| question);
                (before, Some(question.trim().to_owned()))
            }
            None => (text, None),
        };
        let (before_history, after_history) = match before.split_once("<history>") {
            Some((one, rest)) => (one, rest.split_once("</history>").map_or("", |(_, other)| other)),
            None => (before, ""),
        };
        Self {
            passages: [before_history, after_history].into_iter().flat_map(passages).collect(),
            history: Vec::new(),
            question,
        }
    }

    /// What the request is for.
    #[must_use]
    pub fn purpose(&self) -> Purpose {
        match (&self.question, self.passages.is_empty()) {
            (Some(_), false) => Purpose::Answer,
            (Some(_), true) => Purpose::Rewriting,
            (None, _) => Purpose::Unknown,
        }
    }
}

fn history(text: &str) -> Vec<(Role, String)> {
    let inside = text.split_once("<history>").map_or("", |(_, rest)| rest);
    let inside = inside.split_once("</history>").map_or("", |(inside, _)| inside);
    inside
        .split("<turn role=\"")
        .skip(1)
        .filter_map(|turn| {
            let (role, rest) = turn.split_once("\">")?;
            let text = rest.split_once("</turn>").map_or(rest, |(text, _)| text);
            let role = match role {
                "user" => Role::User,
                "assistant" => Role::Assistant,
                _ => return None,
            };
            Some((role, text.trim().to_owned()))
        })
        .collect()
}

fn passages(text: &str) -> Vec<Passage> {
    text.split("<passage number=\"")
        .skip(1)
        .filter_map(|passage| {
            let (number, rest) = passage.split_once("\">")?;
            let text = rest.split_once("</passage>").map_or(rest, |(text, _)| text);
            Some(Passage {
                number: number.parse().ok()?,
                text: text.trim_matches('\n').to_owned(),
            })
        })
        .collect()
}

/// Questions with their answers. A question that was not answered has an empty answer, and an answer without a question
/// belongs to none.
fn turns(said: Vec<(Role, String)>) -> Vec<Turn> {
    let mut turns: Vec<Turn> = Vec::new();
    for (role, text) in said {
        match (role, turns.last_mut()) {
            (Role::User, _) => turns.push(Turn {
                question: text,
                answer: String::new(),
            }),
            (Role::Assistant, Some(turn)) => turn.answer.push_str(&text),
            (Role::Assistant, None) => {}
        }
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::speech::Message;

    fn prompt(blocks: &[&str]) -> Prompt {
        Prompt::of(&Conversation {
            messages: vec![Message {
                role: Role::User,
                blocks: blocks.iter().map(|block| (*block).to_owned()).collect(),
            }],
            ..Conversation::default()
        })
    }

    #[test]
    fn a_prompt_is_taken_to_pieces() {
        let read = prompt(&[
            "Conversation so far:\n<history>\n<turn role=\"user\">Who keeps the light?</turn>\n<turn \
             role=\"assistant\">Quill.</turn>\n</history>\n<caller_context>\nKeep it short.\n</caller_context>\n<passage \
             number=\"1\">\nQuill keeps the light.\n\nSince 1912.\n</passage>\n<passage number=\"12\">Other</passage>",
            "<question>\nSince when?\n</question>",
        ]);
        let passage = |number, text: &str| Passage {
            number,
            text: text.to_owned(),
        };
        assert_eq!(
            read.passages,
            [
                passage(1, "Quill keeps the light.\n\nSince 1912."),
                passage(12, "Other")
            ]
        );
        assert_eq!(
            read.history,
            [Turn {
                question: "Who keeps the light?".to_owned(),
                answer: "Quill.".to_owned()
            }]
        );
        assert_eq!(read.question.as_deref(), Some("Since when?"));
        assert_eq!(read.purpose(), Purpose::Answer);
    }

    #[test]
    fn without_passages_a_question_is_to_be_rewritten() {
        assert_eq!(
            prompt(&["<question>And then?</question>"]).purpose(),
            Purpose::Rewriting
        );
        assert_eq!(prompt(&["And then?"]).purpose(), Purpose::Unknown);
    }

    #[test]
    fn a_tag_in_a_passage_is_a_tag() {
        let read = prompt(&["<passage number=\"1\">a</passage><passage number=\"7\">b</passage></passage><question>?"]);
        assert_eq!(read.passages.len(), 2);
        assert_eq!(read.question.as_deref(), Some("?"));
    }
}
