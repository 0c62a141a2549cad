//! Turns of a conversation: a question, and what became of it.
//!
//! A turn is written when its answer begins and again when it ends, so that a client that lost its stream finds the
//! answer, and one that was never finished says so. Not here: how clients see a turn (`query-handler`).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::document::DocumentId;
use crate::error::Code;
use crate::plan::EngineName;
use crate::time::Timestamp;

/// After this long a turn that is still being answered never will be: no answer takes longer, so whoever wrote it has
/// gone.
pub const ANSWERING_LIMIT: Duration = Duration::from_secs(130);

/// How many bytes of passages are kept with a turn: DynamoDB's items end at 400 KB
/// (<https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html>).
const MAX_PASSAGE_BYTES: usize = 300_000;

/// A turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Item", try_from = "Item")]
pub struct Turn {
    /// Which of the conversation's turns it is, from 1.
    pub number: u64,
    /// The question, as it was asked.
    pub user_query: String,
    /// The answer, as far as it was released.
    pub text: String,
    /// What the answer rests on.
    pub citations: Vec<TurnCitation>,
    /// Which engine answers.
    pub engine: EngineName,
    /// The alias of the model that answers.
    pub model: String,
    /// Whether a guardrail changed or stopped the answer.
    pub guardrail_intervened: bool,
    /// How many tokens the model read, where it says so.
    pub input_tokens: Option<u64>,
    /// How many tokens the model wrote, where it says so.
    pub output_tokens: Option<u64>,
    /// How far it is.
    pub status: TurnStatus,
    /// Why it failed, if it did.
    pub code: Option<Code>,
    /// When it began.
    pub created_at: Timestamp,
    /// When it ended, if anybody saw it end.
    pub ended_at: Option<Timestamp>,
}

/// How far a turn is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TurnStatus {
    /// The answer is being written.
    Answering,
    /// The answer is whole.
    Complete,
    /// There is none, or not all of it.
    Failed,
}

/// A part of an answer, with the passages that it rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnCitation {
    /// The part.
    pub text: String,
    /// Its first UTF-16 unit in the answer.
    pub start: usize,
    /// Its last UTF-16 unit in the answer.
    pub end: usize,
    /// The passages.
    pub passages: Vec<TurnPassage>,
}

/// A passage as an answer showed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnPassage {
    /// The document that it is of.
    pub document_id: DocumentId,
    /// Whose document that is.
    pub origin: Origin,
    /// Its text; empty where there were more passages than an item holds.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// The page that it is on, where the store knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<u32>,
    /// The number that stands for it in the answer, where there are such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u32>,
}

/// Whose a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The tenant's own.
    Tenant,
    /// One of those that all tenants may share.
    Shared,
}

impl Origin {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Shared => "shared",
        }
    }
}

impl Turn {
    /// A turn whose answer begins now.
    pub fn begin(number: u64, user_query: String, engine: EngineName, model: String, now: Timestamp) -> Self {
        Self {
            number,
            user_query,
            text: String::new(),
            citations: Vec::new(),
            engine,
            model,
            guardrail_intervened: false,
            input_tokens: None,
            output_tokens: None,
            status: TurnStatus::Answering,
            code: None,
            created_at: now,
            ended_at: None,
        }
    }

    /// This turn as it must be taken `now`: one that is answered for too long has failed, out of time.
    #[must_use]
    pub fn seen_at(mut self, now: Timestamp) -> Self {
        if self.status == TurnStatus::Answering && self.created_at.plus(ANSWERING_LIMIT) <= now {
            self.status = TurnStatus::Failed;
            self.code = Some(Code::Timeout);
        }
        self
    }
}

/// A turn as its item holds it: each passage once, however many parts rest on it.
#[derive(Serialize, Deserialize)]
struct Item {
    number: u64,
    user_query: String,
    text: String,
    citations: Vec<ItemCitation>,
    passages: Vec<TurnPassage>,
    engine: EngineName,
    model: String,
    guardrail_intervened: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    input_tokens: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output_tokens: Option<u64>,
    status: TurnStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<Code>,
    created_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended_at: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
struct ItemCitation {
    text: String,
    start: usize,
    end: usize,
    /// Places in the item's list of passages.
    passages: Vec<usize>,
}

impl From<Turn> for Item {
    fn from(turn: Turn) -> Self {
        let mut passages: Vec<TurnPassage> = Vec::new();
        let mut citations = Vec::with_capacity(turn.citations.len());
        for citation in turn.citations {
            let places = citation.passages.into_iter().map(|passage| {
                passages.iter().position(|known| *known == passage).unwrap_or_else(|| {
                    passages.push(passage);
                    passages.len() - 1
                })
            });
            citations.push(ItemCitation {
                passages: places.collect(),
                text: citation.text,
                start: citation.start,
                end: citation.end,
            });
        }
        let mut left = MAX_PASSAGE_BYTES;
        for passage in &mut passages {
            match left.checked_sub(passage.text.len()) {
                Some(rest) => left = rest,
                None => passage.text.clear(),
            }
        }
        Self {
            number: turn.number,
            user_query: turn.user_query,
            text: turn.text,
            citations,
            passages,
            engine: turn.engine,
            model: turn.model,
            guardrail_intervened: turn.guardrail_intervened,
            input_tokens: turn.input_tokens,
            output_tokens: turn.output_tokens,
            status: turn.status,
            code: turn.code,
            created_at: turn.created_at,
            ended_at: turn.ended_at,
        }
    }
}

impl TryFrom<Item> for Turn {
    type Error = &'static str;

    fn try_from(item: Item) -> Result<Self, Self::Error> {
        let passages = item.passages;
        let citations = item.citations.into_iter().map(|citation| {
            let found = citation.passages.into_iter().map(|place| passages.get(place).cloned());
            Ok(TurnCitation {
                passages: found.collect::<Option<_>>().ok_or("a citation of no passage")?,
                text: citation.text,
                start: citation.start,
                end: citation.end,
            })
        });
        Ok(Self {
            citations: citations.collect::<Result<_, Self::Error>>()?,
            number: item.number,
            user_query: item.user_query,
            text: item.text,
            engine: item.engine,
            model: item.model,
            guardrail_intervened: item.guardrail_intervened,
            input_tokens: item.input_tokens,
            output_tokens: item.output_tokens,
            status: item.status,
            code: item.code,
            created_at: item.created_at,
            ended_at: item.ended_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passage(text: &str, number: u32) -> TurnPassage {
        TurnPassage {
            document_id: DocumentId::parse("01JZ8Q4T9M5X7R2V6C3B1N0K8D").unwrap(),
            origin: Origin::Shared,
            text: text.to_owned(),
            page: Some(3),
            number: Some(number),
        }
    }

    fn turn(parts: &[&[TurnPassage]]) -> Turn {
        let mut turn = Turn::begin(
            1,
            "How thick is the hull?".to_owned(),
            EngineName::Verified,
            "default".to_owned(),
            Timestamp::from_unix(1_767_225_600),
        );
        turn.citations = parts
            .iter()
            .map(|passages| TurnCitation {
                text: "Twelve.".to_owned(),
                start: 0,
                end: 6,
                passages: passages.to_vec(),
            })
            .collect();
        turn
    }

    #[test]
    fn a_turn_comes_back_from_its_item_and_a_passage_is_stored_once() {
        let (a, b) = (passage("a", 1), passage("b", 2));
        let mut turn = turn(&[&[a.clone(), b.clone()], &[], &[b, a]]);
        turn.code = Some(Code::UpstreamThrottled);
        turn.input_tokens = Some(12);
        let item = serde_json::to_value(&turn).unwrap();
        assert_eq!(item["passages"].as_array().unwrap().len(), 2);
        assert_eq!(item["citations"][2]["passages"], serde_json::json!([1, 0]));
        assert_eq!(serde_json::from_value::<Turn>(item.clone()).unwrap(), turn);
        let mut broken = item;
        broken["citations"][2]["passages"] = serde_json::json!([2]);
        assert!(serde_json::from_value::<Turn>(broken).is_err());
    }

    #[test]
    fn a_turn_of_many_long_passages_still_fits_an_item() {
        let passages: Vec<TurnPassage> = (0..20).map(|n| passage(&"x".repeat(40_000), n)).collect();
        let item = serde_json::to_string(&turn(&[&passages])).unwrap();
        assert!(item.len() < 320_000, "{}", item.len());
        let back: Turn = serde_json::from_str(&item).unwrap();
        let passages = &back.citations[0].passages;
        assert_eq!(passages.iter().filter(|passage| !passage.text.is_empty()).count(), 7);
        assert_eq!(passages.len(), 20);
    }

    #[test]
    fn what_is_answered_for_too_long_has_failed() {
        let turn = turn(&[]);
        let at = |seconds: i64| turn.clone().seen_at(Timestamp::from_unix(1_767_225_600 + seconds));
        assert_eq!(at(129), turn);
        assert_eq!(
            (at(130).status, at(130).code),
            (TurnStatus::Failed, Some(Code::Timeout))
        );
        let mut complete = turn.clone();
        complete.status = TurnStatus::Complete;
        assert_eq!(complete.clone().seen_at(Timestamp::from_unix(i64::MAX)), complete);
    }
}
