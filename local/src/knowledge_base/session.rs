//! Conversations of RetrieveAndGenerate.
//!
//! Ids are the service's own and live 24 hours from the first question, whatever happens in between. Nothing binds one
//! to a tenant or a user: who presents it, has it, and the conversation's words with it. That is how Bedrock is, and why
//! ids of this kind must not leave the functions.

use time::OffsetDateTime;

/// How many turns of a conversation are remembered.
const TURNS: usize = 10;

/// One question and its answer.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Turn {
    /// What was asked.
    pub question: String,
    /// What was answered.
    pub answer: String,
}

/// A conversation.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Session {
    /// When its first question came.
    #[serde(with = "time::serde::rfc3339")]
    pub begun: OffsetDateTime,
    /// Its last turns, oldest first.
    pub turns: Vec<Turn>,
}

impl Session {
    /// A conversation that begins now.
    #[must_use]
    pub fn new(now: OffsetDateTime) -> Self {
        Self {
            begun: now,
            turns: Vec::new(),
        }
    }

    /// Remembers a turn, and forgets the oldest when there are too many.
    pub fn push(&mut self, question: &str, answer: &str) {
        if self.turns.len() >= TURNS {
            self.turns.remove(0);
        }
        self.turns.push(Turn {
            question: question.to_owned(),
            answer: answer.to_owned(),
        });
    }

    /// Whether its time is over.
    #[must_use]
    pub fn has_ended(&self, now: OffsetDateTime, lifetime: std::time::Duration) -> bool {
        now - self.begun >= lifetime
    }
}
