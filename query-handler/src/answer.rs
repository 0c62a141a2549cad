//! What is said to a caller: pieces that may leave, and what they are together. A stream sends them one by one, a whole
//! answer and a stored turn are the same pieces put together.
//!
//! Everything here has passed the firewall: a piece is made of its passages only (`crate::managed`) or of what was
//! written from them (`crate::verified`).

use bulkhead_core::plan::EngineName;
use bulkhead_core::session::SessionHandle;
use bulkhead_core::turn::{Turn, TurnCitation, TurnPassage};
use serde::{Serialize, Serializer};

use crate::firewall::Passage;
use crate::model::Tokens;

/// What is said when nothing may be: no document holds the answer, or none that the caller may see. The prompts have
/// models say the same, so that a stream in which one has said it needs no other text in its place.
pub const NO_ANSWER: &str = "No exact answer was found in your documents.";

/// What is said when a guardrail intervened and nothing is cited. Bedrock does not tell the message of a guardrail that
/// stopped an answer from an answer in which it masked a word, and the latter may hold anything that the model has read.
pub const BLOCKED: &str = "This can't be answered here.";

/// A piece of an answer that may leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// More text.
    Delta(String),
    /// What a part of the text rests on.
    Citation(Citation),
    /// A guardrail intervened: this is said instead of all text before.
    Guardrail(String),
    /// This is said instead of all text before, which turned out to be none that may stand.
    Instead(String),
}

/// A part of an answer and the passages that it rests on. It is serialised in the shape that RetrieveAndGenerate gives
/// its citations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Citation {
    /// The part.
    pub text: String,
    /// Its first UTF-16 unit in the whole text, as RetrieveAndGenerate counts.
    pub start: usize,
    /// Its last UTF-16 unit in the whole text.
    pub end: usize,
    /// The passages.
    pub passages: Vec<CitedPassage>,
}

/// A passage that a part of an answer rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CitedPassage {
    /// The passage.
    pub passage: Passage,
    /// The number in brackets that stands for it in the text, where there are such.
    pub number: Option<u32>,
}

/// The pieces of an answer put together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The text.
    pub text: String,
    /// Its parts that rest on passages.
    pub citations: Vec<Citation>,
    /// Whether a guardrail changed or stopped it.
    pub guardrail_intervened: bool,
}

impl Said {
    /// Adds the next piece.
    pub fn add(&mut self, piece: &Piece) {
        match piece {
            Piece::Delta(text) => self.text.push_str(text),
            Piece::Citation(citation) => self.citations.push(citation.clone()),
            Piece::Guardrail(text) => {
                self.guardrail_intervened = true;
                self.replace(text);
            }
            Piece::Instead(text) => self.replace(text),
        }
    }

    fn replace(&mut self, text: &str) {
        text.clone_into(&mut self.text);
        self.citations.clear();
    }

    /// Whether a guardrail changed or stopped it, as clients read it.
    pub const fn guardrail_action(&self) -> GuardrailAction {
        GuardrailAction::of(self.guardrail_intervened)
    }

    /// Writes it into a turn.
    pub fn record(&self, turn: &mut Turn) {
        self.text.clone_into(&mut turn.text);
        turn.citations = self.citations.iter().map(Citation::to_turn).collect();
        turn.guardrail_intervened = self.guardrail_intervened;
    }
}

impl Citation {
    /// The citation of a stored turn, with what `release` says may still be shown of its passages; `None` if that is
    /// nothing.
    pub fn of_turn(citation: TurnCitation, release: impl Fn(TurnPassage) -> Option<Passage>) -> Option<Self> {
        let passages: Vec<CitedPassage> = citation
            .passages
            .into_iter()
            .filter_map(|passage| {
                let number = passage.number;
                release(passage).map(|passage| CitedPassage { passage, number })
            })
            .collect();
        (!passages.is_empty()).then_some(Self {
            passages,
            text: citation.text,
            start: citation.start,
            end: citation.end,
        })
    }

    fn to_turn(&self) -> TurnCitation {
        let passages = self.passages.iter().map(|cited| TurnPassage {
            document_id: cited.passage.document.clone(),
            origin: cited.passage.origin,
            text: cited.passage.text.clone(),
            page: cited.passage.page,
            number: cited.number,
        });
        TurnCitation {
            text: self.text.clone(),
            start: self.start,
            end: self.end,
            passages: passages.collect(),
        }
    }
}

/// The body of an answer that comes whole: Bedrock's shape, and ours beside it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer<'a> {
    session_id: &'a SessionHandle,
    output: Output<'a>,
    citations: &'a [Citation],
    guardrail_action: GuardrailAction,
    usage: &'a Usage,
    #[serde(rename = "context_reset", skip_serializing_if = "std::ops::Not::not")]
    context_reset: bool,
}

impl<'a> Answer<'a> {
    /// What was `said` in the conversation of that handle.
    pub fn new(said: &'a Said, session_id: &'a SessionHandle, usage: &'a Usage, context_reset: bool) -> Self {
        Self {
            session_id,
            output: Output { text: &said.text },
            citations: &said.citations,
            guardrail_action: said.guardrail_action(),
            usage,
            context_reset,
        }
    }
}

/// The text of an answer.
#[derive(Debug, Serialize)]
struct Output<'a> {
    text: &'a str,
}

/// Whether a guardrail changed or stopped an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum GuardrailAction {
    /// It did.
    Intervened,
    /// It did not, or there is none.
    None,
}

impl GuardrailAction {
    /// How clients read whether one intervened.
    pub const fn of(intervened: bool) -> Self {
        if intervened { Self::Intervened } else { Self::None }
    }
}

/// Which engine and which model answered, and what it took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Usage {
    engine: EngineName,
    model: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_tokens: Option<u64>,
    estimated: bool,
}

impl Usage {
    /// What an answer took. Without `tokens` no number is given: RetrieveAndGenerate counts none and hides most of what
    /// it read, so none could be honest.
    pub fn new(engine: EngineName, model: &str, tokens: Option<Tokens>) -> Self {
        Self {
            engine,
            model: model.to_owned(),
            input_tokens: tokens.map(|tokens| tokens.input),
            output_tokens: tokens.map(|tokens| tokens.output),
            estimated: tokens.is_none(),
        }
    }

    /// Writes it into a turn.
    pub fn record(&self, turn: &mut Turn) {
        turn.input_tokens = self.input_tokens;
        turn.output_tokens = self.output_tokens;
    }
}

/// A passage as every answer shows it: in the shape of RetrieveAndGenerate's references, and with nothing of where it
/// lies.
#[derive(Debug, Serialize)]
pub struct Reference<'a> {
    content: Content<'a>,
    location: Location<'a>,
    metadata: Metadata<'a>,
}

impl<'a> Reference<'a> {
    /// The reference to `passage`, for which `number` stands in the text if there are such numbers.
    pub fn new(passage: &'a Passage, number: Option<u32>) -> Self {
        let id = passage.document.as_str();
        Self {
            content: Content {
                kind: "TEXT",
                text: &passage.text,
            },
            location: Location {
                kind: "CUSTOM",
                custom_document_location: CustomDocumentLocation { id },
            },
            metadata: Metadata {
                document_id: id,
                title: &passage.title,
                content_url: format!("/documents/{id}/content"),
                origin: passage.origin.as_str(),
                page: passage.page,
                number,
            },
        }
    }
}

#[derive(Debug, Serialize)]
struct Content<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    text: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Location<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    custom_document_location: CustomDocumentLocation<'a>,
}

#[derive(Debug, Serialize)]
struct CustomDocumentLocation<'a> {
    id: &'a str,
}

#[derive(Debug, Serialize)]
struct Metadata<'a> {
    document_id: &'a str,
    title: &'a str,
    content_url: String,
    origin: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    page: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<u32>,
}

impl Serialize for Citation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Body<'a> {
            generated_response_part: GeneratedResponsePart<'a>,
            retrieved_references: Vec<Reference<'a>>,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct GeneratedResponsePart<'a> {
            text_response_part: TextResponsePart<'a>,
        }
        #[derive(Serialize)]
        struct TextResponsePart<'a> {
            text: &'a str,
            span: Span,
        }
        #[derive(Serialize)]
        struct Span {
            start: usize,
            end: usize,
        }
        let references = self.passages.iter();
        Body {
            generated_response_part: GeneratedResponsePart {
                text_response_part: TextResponsePart {
                    text: &self.text,
                    span: Span {
                        start: self.start,
                        end: self.end,
                    },
                },
            },
            retrieved_references: references
                .map(|cited| Reference::new(&cited.passage, cited.number))
                .collect(),
        }
        .serialize(serializer)
    }
}

/// How many UTF-16 units a text has: what spans and limits count everywhere in the contract.
pub fn units(text: &str) -> usize {
    text.encode_utf16().count()
}

#[cfg(test)]
mod tests {
    use bulkhead_core::time::Timestamp;

    use super::*;
    use crate::fixture;

    fn cited() -> Citation {
        let mut parts = fixture::released(&["Der Rumpf hat 🚢 zwölf Abteilungen."]).into_parts();
        let mut passages = parts.remove(0).passages;
        passages[0].page = Some(7);
        Citation {
            text: "Der Rumpf hat 🚢 zwölf Abteilungen.".to_owned(),
            start: 0,
            end: 34,
            passages: passages
                .into_iter()
                .map(|passage| CitedPassage {
                    passage,
                    number: Some(1),
                })
                .collect(),
        }
    }

    #[test]
    fn an_answer_has_bedrocks_shape_and_nothing_of_where_documents_lie() {
        let handle = SessionHandle::parse("01JZ8Q4T9M5X7R2V6C3B1N0K8D").unwrap();
        let mut said = Said::default();
        said.add(&Piece::Delta("Der Rumpf hat 🚢 zwölf Abteilungen.".to_owned()));
        said.add(&Piece::Citation(cited()));
        let usage = Usage::new(EngineName::Verified, "large", Some(Tokens { input: 7, output: 3 }));
        insta::assert_json_snapshot!("answer", Answer::new(&said, &handle, &usage, true));
        said.add(&Piece::Guardrail(BLOCKED.to_owned()));
        let usage = Usage::new(EngineName::Managed, "default", None);
        insta::assert_json_snapshot!("blocked", Answer::new(&said, &handle, &usage, false));
    }

    #[test]
    fn a_citation_comes_back_from_its_turn() {
        let mut said = Said::default();
        said.add(&Piece::Citation(cited()));
        let now = Timestamp::from_unix(0);
        let mut turn = Turn::begin(1, "?".to_owned(), EngineName::Verified, "default".to_owned(), now);
        said.record(&mut turn);
        let stored = turn.citations.remove(0);
        let release = |passage: TurnPassage| {
            Some(Passage {
                document: passage.document_id,
                origin: passage.origin,
                title: "Handbook".to_owned(),
                text: passage.text,
                page: passage.page,
            })
        };
        assert_eq!(Citation::of_turn(stored.clone(), release), Some(cited()));
        assert_eq!(Citation::of_turn(stored, |_| None), None);
    }
}
