//! The answer of `POST /genai/query`: Bedrock's shape, of what was released and of nothing else.

use bulkhead_core::session::SessionHandle;
use serde::Serialize;

use crate::firewall::{Part, Passage, Released};

/// What is said when nothing may be: no document holds the answer, or none that the caller may see.
pub const NO_ANSWER: &str = "No exact answer was found in your documents.";

/// What is said when a guardrail intervened and nothing is cited. Bedrock does not tell the message of a guardrail that
/// stopped an answer from an answer in which it masked a word, and the latter may hold anything that the model has read.
pub const BLOCKED: &str = "This can't be answered here.";

/// An answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer<'a> {
    session_id: SessionHandle,
    output: Output,
    citations: Vec<Citation<'a>>,
    guardrail_action: GuardrailAction,
    usage: Usage<'a>,
    #[serde(rename = "context_reset", skip_serializing_if = "std::ops::Not::not")]
    context_reset: bool,
}

/// What an answer says, and from what.
#[derive(Debug)]
pub struct Statement<'a> {
    text: String,
    citations: Vec<Citation<'a>>,
    guardrail_action: GuardrailAction,
}

#[derive(Debug, Serialize)]
struct Output {
    text: String,
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

/// Which engine and which model answered. RetrieveAndGenerate counts no tokens and hides most of what it read, so no
/// number could be honest.
#[derive(Debug, Serialize)]
struct Usage<'a> {
    engine: &'static str,
    model: &'a str,
    estimated: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Citation<'a> {
    generated_response_part: GeneratedResponsePart<'a>,
    retrieved_references: Vec<Reference<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct GeneratedResponsePart<'a> {
    text_response_part: TextResponsePart<'a>,
}

#[derive(Debug, Serialize)]
struct TextResponsePart<'a> {
    text: &'a str,
    span: Span,
}

/// Where a part stands in the text, in UTF-16 units, as the contract counts everywhere: its first unit and its last, as
/// RetrieveAndGenerate counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Span {
    start: usize,
    end: usize,
}

#[derive(Debug, Serialize)]
struct Reference<'a> {
    content: Content<'a>,
    location: Location<'a>,
    metadata: Metadata<'a>,
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
}

impl<'a> Answer<'a> {
    /// The answer that says `statement`, written by the model of that alias, in the conversation of that handle.
    pub fn new(statement: Statement<'a>, session_id: SessionHandle, context_reset: bool, model: &'a str) -> Self {
        Self {
            session_id,
            output: Output { text: statement.text },
            citations: statement.citations,
            guardrail_action: statement.guardrail_action,
            usage: Usage {
                engine: "managed",
                model,
                estimated: true,
            },
            context_reset,
        }
    }
}

impl<'a> Statement<'a> {
    /// The released parts put together, or [`NO_ANSWER`] if there are none. From the `whole` text as the model wrote it
    /// only the blanks between parts are taken, so that lists and paragraphs stay what they are.
    pub fn of(released: &'a Released, whole: &str, guardrail_action: GuardrailAction) -> Self {
        let mut text = String::new();
        let mut units = 0;
        let mut rest = whole;
        let mut citations = Vec::with_capacity(released.parts().len());
        for part in released.parts() {
            let before = match rest.split_once(part.text.as_str()) {
                Some((before, after)) => {
                    rest = after;
                    before
                }
                None => " ",
            };
            if !citations.is_empty() {
                let blanks = blanks(before);
                text.push_str(blanks);
                units += length(blanks);
            }
            let length = length(&part.text);
            let span = Span {
                start: units,
                end: (units + length).saturating_sub(1),
            };
            text.push_str(&part.text);
            units += length;
            citations.push(Citation::new(part, span));
        }
        if citations.is_empty() {
            NO_ANSWER.clone_into(&mut text);
        }
        Self {
            text,
            citations,
            guardrail_action,
        }
    }

    /// What is said instead of an answer that a guardrail stopped: [`BLOCKED`].
    pub fn blocked() -> Self {
        Self {
            text: BLOCKED.to_owned(),
            citations: Vec::new(),
            guardrail_action: GuardrailAction::Intervened,
        }
    }

    /// How many parts it has.
    pub fn parts(&self) -> usize {
        self.citations.len()
    }
}

impl<'a> Citation<'a> {
    fn new(part: &'a Part, span: Span) -> Self {
        Self {
            generated_response_part: GeneratedResponsePart {
                text_response_part: TextResponsePart { text: &part.text, span },
            },
            retrieved_references: part.passages.iter().map(Reference::new).collect(),
        }
    }
}

impl<'a> Reference<'a> {
    fn new(passage: &'a Passage) -> Self {
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
            },
        }
    }
}

/// The blanks that end what stands between two parts; one blank where something else stood there without any.
fn blanks(between: &str) -> &str {
    match between.strip_prefix(between.trim_end()) {
        Some("") if !between.is_empty() => " ",
        Some(blanks) => blanks,
        None => " ",
    }
}

fn length(text: &str) -> usize {
    text.encode_utf16().count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixture;

    fn text(whole: &str, parts: &[&str]) -> String {
        Statement::of(&fixture::released(parts), whole, GuardrailAction::None).text
    }

    #[test]
    fn blanks_between_parts_are_kept_and_words_are_not() {
        for (whole, parts, expected) in [
            ("A. B.", &["A.", "B."][..], "A. B."),
            ("- a\n- b\n", &["- a", "- b"], "- a\n- b"),
            ("A.B.", &["A.", "B."], "A.B."),
            ("Uncited. A. Uncited. B. Uncited.", &["A.", "B."], "A. B."),
            ("- a\n- uncited\n- b", &["- a", "- b"], "- a\n- b"),
            ("A.(uncited)B.", &["A.", "B."], "A. B."),
            ("something else", &["A.", "B."], "A. B."),
            ("A. A.", &["A.", "A."], "A. A."),
            ("Uncited.", &[], NO_ANSWER),
        ] {
            assert_eq!(text(whole, parts), expected, "{whole}");
        }
    }

    #[test]
    fn an_answer_has_bedrocks_shape_and_nothing_of_where_documents_lie() {
        let released = fixture::released(&["Der Rumpf hat 🚢 zwölf Abteilungen.", "Jede ist dicht."]);
        let whole = "Der Rumpf hat 🚢 zwölf Abteilungen. Ungedeckt. Jede ist dicht.";
        let statement = Statement::of(&released, whole, GuardrailAction::None);
        let handle = SessionHandle::parse("01JZ8Q4T9M5X7R2V6C3B1N0K8D").unwrap();
        insta::assert_json_snapshot!("answer", Answer::new(statement, handle.clone(), true, "default"));
        let nothing = Released::default();
        let statement = Statement::of(&nothing, "From my own knowledge: 12.", GuardrailAction::None);
        insta::assert_json_snapshot!("no_answer", Answer::new(statement, handle.clone(), false, "default"));
        let statement = Statement::blocked();
        insta::assert_json_snapshot!("blocked", Answer::new(statement, handle, false, "default"));
    }

    proptest! {
        #[test]
        fn a_span_is_where_the_part_stands(
            parts in proptest::collection::vec("\\PC{0,6}[a-z]", 0..6),
            between in proptest::collection::vec("[ \n]{0,2}(\\PC{0,4})[ \n]{0,2}", 6),
        ) {
            let whole: String = parts.iter().zip(&between).flat_map(|(part, gap)| [part.as_str(), gap]).collect();
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            let released = fixture::released(&parts);
            let statement = Statement::of(&released, &whole, GuardrailAction::None);
            let units: Vec<u16> = statement.text.encode_utf16().collect();
            prop_assert_eq!(statement.citations.len(), parts.len());
            let mut last = 0;
            for citation in &statement.citations {
                let part = &citation.generated_response_part.text_response_part;
                let slice = String::from_utf16(&units[part.span.start..=part.span.end]).unwrap();
                prop_assert_eq!(&slice, part.text);
                prop_assert!(part.span.start >= last);
                // Nothing but blanks stands between parts.
                let gap = String::from_utf16(&units[last..part.span.start]).unwrap();
                prop_assert!(gap.trim().is_empty());
                last = part.span.end + 1;
            }
            prop_assert!(parts.is_empty() || last == units.len());
        }
    }
}
