//! The engine `managed`: Bedrock's RetrieveAndGenerate, and its stream.
//!
//! It sends text before the references that it rests on, and shows only passages that it cites. So nothing of its text is
//! released as it comes: what is released are the parts that its citations name, once their passages have passed the
//! firewall. A part without a passage is not released. What was used without being cited can't be seen here, and may be
//! in a part that cites something else: see docs/threat-model.md.

use bulkhead_core::error::Error;

use crate::answer::{BLOCKED, Citation, CitedPassage, NO_ANSWER, Piece, units};
use crate::engine::{Ask, Engines, Outcome, Sink};
use crate::firewall::{Checked, Firewall, Part};
use crate::knowledge_base::{Inquiry, UnverifiedEvent};
use crate::quotation::Quotation;

impl Engines {
    /// Answers with RetrieveAndGenerate.
    pub(crate) async fn managed(&self, ask: &Ask, sink: &mut Sink) -> Result<Outcome, Error> {
        let firewall = ask.firewall(&self.bucket)?;
        let quoted = Quoted::new(ask);
        let unverified = self.knowledge_base.ask(quoted.inquiry(ask), ask.deadline).await?;
        sink.accepted(Some(&unverified.session), unverified.context_reset || ask.context_reset);
        let checked = firewall.check(&unverified.citations)?;
        let mut release = Release::default();
        if unverified.guardrail_intervened {
            release.intervened();
        }
        release.assembly.text(&unverified.text);
        self.release(ask, &firewall, checked, &mut release, sink).await?;
        release.end(sink).await
    }

    /// Answers with RetrieveAndGenerateStream.
    pub(crate) async fn managed_stream(&self, ask: &Ask, sink: &mut Sink) -> Result<Outcome, Error> {
        let firewall = ask.firewall(&self.bucket)?;
        let quoted = Quoted::new(ask);
        let mut stream = self
            .knowledge_base
            .ask_stream(quoted.inquiry(ask), ask.deadline)
            .await?;
        sink.accepted(Some(&stream.session), stream.context_reset || ask.context_reset);
        let mut release = Release::default();
        while let Some(event) = stream.next().await? {
            match event {
                UnverifiedEvent::Text(text) => release.assembly.text(&text),
                UnverifiedEvent::Citations(citations) => {
                    let checked = firewall.check(&citations)?;
                    self.release(ask, &firewall, checked, &mut release, sink).await?;
                }
                UnverifiedEvent::GuardrailIntervened => release.intervened(),
            }
        }
        release.end(sink).await
    }

    /// Releases the parts that rest on passages which stand and of which each passes the guardrail.
    async fn release(
        &self,
        ask: &Ask,
        firewall: &Firewall<'_>,
        checked: Checked,
        release: &mut Release,
        sink: &mut Sink,
    ) -> Result<(), Error> {
        let records = ask.records(&checked.documents()).await?;
        for part in firewall.release(checked, &records).into_parts() {
            let all = part.passages.len();
            let passages = self.passages.admit(part.passages, ask.deadline).await?;
            // The model has read those that do not pass, so that what it says may be theirs.
            if passages.len() == all {
                release.part(Part { passages, ..part }, sink).await?;
            }
        }
        Ok(())
    }
}

/// A question as RetrieveAndGenerate may be asked it.
struct Quoted {
    question: Quotation,
    context: Option<Quotation>,
}

impl Quoted {
    fn new(ask: &Ask) -> Self {
        Self {
            question: Quotation::new(&ask.question),
            context: ask.background.as_deref().map(Quotation::new),
        }
    }

    fn inquiry<'a>(&'a self, ask: &'a Ask) -> Inquiry<'a> {
        Inquiry {
            question: &self.question,
            context: self.context.as_ref(),
            filter: &ask.filter,
            results: ask.results,
            model: &ask.model,
            session: ask.session.as_deref(),
        }
    }
}

/// What is released of an answer.
#[derive(Default)]
struct Release {
    assembly: Assembly,
    /// Whether the next part is said instead of all that was said before.
    instead: bool,
}

impl Release {
    /// A guardrail intervened. Whether it stopped the answer or only masked words in it is not said, nor which of the text
    /// before it would have kept back. So what was said counts no more, and only parts that come now are released.
    fn intervened(&mut self) {
        self.instead = true;
        self.assembly = Assembly::default();
    }

    async fn part(&mut self, part: Part, sink: &mut Sink) -> Result<(), Error> {
        let (text, citation) = self.assembly.part(part);
        let piece = if self.instead {
            Piece::Guardrail(text)
        } else {
            Piece::Delta(text)
        };
        self.instead = false;
        sink.release(piece).await?;
        sink.release(Piece::Citation(citation)).await
    }

    async fn end(self, sink: &mut Sink) -> Result<Outcome, Error> {
        if self.instead {
            sink.release(Piece::Guardrail(BLOCKED.to_owned())).await?;
        } else if sink.said().text.is_empty() {
            sink.release(Piece::Delta(NO_ANSWER.to_owned())).await?;
        }
        Ok(Outcome::default())
    }
}

/// Puts released parts together as they come. From the text as the model wrote it only the blanks between parts are
/// taken, so that lists and paragraphs stay what they are.
#[derive(Default)]
struct Assembly {
    /// What the model wrote and no part was found in yet.
    rest: String,
    /// How many UTF-16 units have been put together.
    units: usize,
    /// Whether there is a part already.
    begun: bool,
}

impl Assembly {
    /// The model wrote more.
    fn text(&mut self, more: &str) {
        self.rest.push_str(more);
    }

    /// The next part: what is said of it, and where it stands.
    fn part(&mut self, part: Part) -> (String, Citation) {
        let mut text = String::new();
        let between = match self.rest.split_once(part.text.as_str()) {
            Some((before, after)) => {
                if self.begun {
                    text.push_str(blanks(before));
                }
                Some(after.to_owned())
            }
            None => {
                if self.begun {
                    text.push(' ');
                }
                None
            }
        };
        if let Some(rest) = between {
            self.rest = rest;
        }
        let start = self.units + units(&text);
        text.push_str(&part.text);
        self.units += units(&text);
        self.begun = true;
        let passages = part
            .passages
            .into_iter()
            .map(|passage| CitedPassage { passage, number: None });
        let citation = Citation {
            passages: passages.collect(),
            text: part.text,
            start,
            end: self.units.saturating_sub(1),
        };
        (text, citation)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::answer::Said;
    use crate::fixture;

    /// What is said of `parts`, of which the model wrote `whole`.
    fn said(whole: &str, parts: &[&str]) -> Said {
        let mut said = Said::default();
        let mut assembly = Assembly::default();
        assembly.text(whole);
        for part in fixture::released(parts).into_parts() {
            let (text, citation) = assembly.part(part);
            said.add(&Piece::Delta(text));
            said.add(&Piece::Citation(citation));
        }
        said
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
            ("Uncited.", &[], ""),
        ] {
            assert_eq!(said(whole, parts).text, expected, "{whole}");
        }
    }

    proptest! {
        #[test]
        fn a_span_is_where_the_part_stands(
            parts in proptest::collection::vec("\\PC{0,6}[a-z]", 0..6),
            between in proptest::collection::vec("[ \n]{0,2}(\\PC{0,4})[ \n]{0,2}", 6),
        ) {
            let whole: String = parts.iter().zip(&between).flat_map(|(part, gap)| [part.as_str(), gap]).collect();
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            let said = said(&whole, &parts);
            let units: Vec<u16> = said.text.encode_utf16().collect();
            prop_assert_eq!(said.citations.len(), parts.len());
            let mut last = 0;
            for citation in &said.citations {
                let slice = String::from_utf16(&units[citation.start..=citation.end]).unwrap();
                prop_assert_eq!(&slice, &citation.text);
                prop_assert!(citation.start >= last);
                // Nothing but blanks stands between parts.
                let gap = String::from_utf16(&units[last..citation.start]).unwrap();
                prop_assert!(gap.trim().is_empty());
                last = citation.end + 1;
            }
            prop_assert!(parts.is_empty() || last == units.len());
        }
    }
}
