//! The engine `verified`: retrieve, check every passage, and only then let a model speak.
//!
//! The model reads nothing but passages that have passed the firewall, so that whatever it says may leave at once, word by
//! word. It names passages by number ([`crate::marker`]); what cites none is an answer from its own knowledge, and none of
//! ours.

use bulkhead_core::error::Error;

use crate::answer::{BLOCKED, Citation, CitedPassage, NO_ANSWER, Piece, units};
use crate::engine::{Ask, Delivery, Engines, Outcome, Sink};
use crate::firewall::Passage;
use crate::marker::{Markers, Segment};
use crate::model::{SpeechEnd, Tokens};
use crate::prompt::{self, AnswerMaterial};
use crate::question::MAX_QUESTION;
use crate::text;

impl Engines {
    /// Answers with Retrieve and Converse, or with Retrieve and ConverseStream.
    pub(crate) async fn verified(&self, ask: &Ask, delivery: Delivery, sink: &mut Sink) -> Result<Outcome, Error> {
        let mut usage = Some(Tokens::default());
        let query = if ask.history.is_empty() {
            in_short(&ask.question)
        } else {
            let prompt = prompt::rewrite(&ask.history, &ask.question)?;
            let speech = self.models.converse(&ask.model, &prompt, ask.deadline).await?;
            usage = sum(usage, speech.end);
            if speech.end.intervened {
                sink.accepted(None, ask.context_reset);
                sink.release(Piece::Guardrail(BLOCKED.to_owned())).await?;
                return Ok(Outcome { tokens: usage });
            }
            Some(in_short(&speech.text))
                .filter(|query| !query.is_empty())
                .unwrap_or_else(|| in_short(&ask.question))
        };
        let passages = self.checked_passages(ask, &query).await?;
        if passages.is_empty() {
            sink.accepted(None, ask.context_reset);
            sink.release(Piece::Delta(NO_ANSWER.to_owned())).await?;
            return Ok(Outcome { tokens: usage });
        }
        let texts: Vec<&str> = passages.iter().map(|passage| passage.text.as_str()).collect();
        let prompt = prompt::answer(&AnswerMaterial {
            passages: &texts,
            history: &ask.history,
            context: ask.background.as_deref(),
            question: &ask.question,
        })?;
        let mut writer = Writer::new(&passages);
        let end = match delivery {
            Delivery::Whole => {
                let speech = self.models.converse(&ask.model, &prompt, ask.deadline).await?;
                sink.accepted(None, ask.context_reset);
                for piece in writer.push(&speech.text) {
                    sink.release(piece).await?;
                }
                speech.end
            }
            Delivery::Streamed => {
                let mut speaking = self.models.converse_stream(&ask.model, &prompt, ask.deadline).await?;
                sink.accepted(None, ask.context_reset);
                while let Some(words) = speaking.next().await? {
                    for piece in writer.push(&words) {
                        sink.release(piece).await?;
                    }
                }
                speaking.end()
            }
        };
        let (last, cites) = writer.finish();
        for piece in last {
            sink.release(piece).await?;
        }
        if end.intervened {
            // Which of the words are the guardrail's own is not said, and what it kept back may have begun to be said.
            sink.release(Piece::Guardrail(BLOCKED.to_owned())).await?;
        } else if !cites && sink.said().text.trim() != NO_ANSWER {
            let nothing = NO_ANSWER.to_owned();
            let piece = if sink.said().text.is_empty() {
                Piece::Delta(nothing)
            } else {
                Piece::Instead(nothing)
            };
            sink.release(piece).await?;
        }
        Ok(Outcome {
            tokens: sum(usage, end),
        })
    }

    /// The passages that `query` finds and that may be read, each checked.
    ///
    /// # Errors
    /// [`Error::Breach`] if one is not of a document that the caller may see, and what the services behind it fail with.
    pub(crate) async fn checked_passages(&self, ask: &Ask, query: &str) -> Result<Vec<Passage>, Error> {
        let firewall = ask.firewall(&self.bucket)?;
        let results = self
            .knowledge_base
            .retrieve(query, &ask.filter, ask.results, ask.deadline)
            .await?;
        let checked = firewall.check_results(&results)?;
        let records = ask.records(&checked.documents()).await?;
        let passages = firewall.release_passages(checked, &records);
        self.passages.admit(passages, ask.deadline).await
    }
}

/// What is used in all; unknown as soon as a part of it is.
fn sum(usage: Option<Tokens>, end: SpeechEnd) -> Option<Tokens> {
    Some(usage?.plus(end.tokens?))
}

/// What is searched for to answer what was `said`, by a model or in a chat: as much of it as a search takes, on one line.
fn in_short(said: &str) -> String {
    text::beginning(&text::normalise(said), MAX_QUESTION)
        .trim_end()
        .to_owned()
}

/// Makes pieces of a model's words: the text, and behind each marker what the part before it rests on.
struct Writer<'a> {
    passages: &'a [Passage],
    markers: Markers,
    /// The text since the last line break or marker.
    part: String,
    /// Where `part` begins in the whole text, in UTF-16 units.
    start: usize,
    /// The part that was cited last, for a marker that follows another one.
    last: Option<Citation>,
    cites: bool,
}

impl<'a> Writer<'a> {
    fn new(passages: &'a [Passage]) -> Self {
        Self {
            passages,
            markers: Markers::new(passages.len()),
            part: String::new(),
            start: 0,
            last: None,
            cites: false,
        }
    }

    fn push(&mut self, words: &str) -> Vec<Piece> {
        let segments = self.markers.push(words);
        self.pieces(segments)
    }

    /// The last pieces, and whether anything was cited.
    fn finish(mut self) -> (Vec<Piece>, bool) {
        let markers = std::mem::replace(&mut self.markers, Markers::new(0));
        let pieces = self.pieces(markers.finish());
        (pieces, self.cites)
    }

    fn pieces(&mut self, segments: Vec<Segment>) -> Vec<Piece> {
        let mut pieces = Vec::with_capacity(segments.len());
        for segment in segments {
            match segment {
                Segment::Text(text) => {
                    self.text(&text);
                    pieces.push(Piece::Delta(text));
                }
                Segment::Citation { marker, numbers } => {
                    let citation = self.citation(&marker, &numbers);
                    pieces.push(Piece::Delta(marker));
                    pieces.push(Piece::Citation(citation));
                }
            }
        }
        pieces
    }

    fn text(&mut self, text: &str) {
        self.part.push_str(text);
        // A list's introduction, or the paragraph before, rests on nothing of what its next line rests on.
        if let Some((before, line)) = self.part.trim_end().rsplit_once('\n') {
            let blanks = self.part.strip_prefix(self.part.trim_end()).unwrap_or_default();
            self.start += units(before) + 1;
            self.part = format!("{line}{blanks}");
        }
    }

    /// What the part before `marker` rests on.
    fn citation(&mut self, marker: &str, numbers: &[usize]) -> Citation {
        self.cites = true;
        let part = std::mem::take(&mut self.part);
        // What ends the sentence before stands behind that one's marker.
        let text = part.trim_start_matches(|character: char| {
            character.is_whitespace() || matches!(character, '.' | ',' | ';' | ':' | '!' | '?' | ')' | '\u{2026}')
        });
        let start = self.start + units(&part) - units(text);
        let text = text.trim_end();
        let passages = numbers.iter().filter_map(|number| {
            let passage = self.passages.get(number.checked_sub(1)?)?.clone();
            let number = u32::try_from(*number).ok();
            Some(CitedPassage { passage, number })
        });
        let passages = passages.collect();
        let citation = match (text, self.last.take()) {
            // A marker right behind another one is about the same part.
            ("", Some(last)) => Citation { passages, ..last },
            // One at the very beginning has only itself to stand behind.
            ("", None) => cited(marker, self.start + units(&part), passages),
            (text, _) => cited(text, start, passages),
        };
        self.start += units(&part) + units(marker);
        self.last = Some(citation.clone());
        citation
    }
}

fn cited(text: &str, start: usize, passages: Vec<CitedPassage>) -> Citation {
    Citation {
        text: text.to_owned(),
        start,
        end: (start + units(text)).saturating_sub(1),
        passages,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::answer::Said;
    use crate::fixture;

    /// What is said of a model's words in the pieces that they came in, with three passages.
    fn said<'a>(words: impl IntoIterator<Item = &'a str>) -> Said {
        let parts = fixture::released(&["1", "2", "3"]).into_parts();
        let passages: Vec<Passage> = parts.into_iter().flat_map(|part| part.passages).collect();
        let mut writer = Writer::new(&passages);
        let mut said = Said::default();
        for words in words {
            writer.push(words).iter().for_each(|piece| said.add(piece));
        }
        let (last, cites) = writer.finish();
        last.iter().for_each(|piece| said.add(piece));
        assert_eq!(cites, !said.citations.is_empty());
        said
    }

    #[test]
    fn a_marker_cites_the_part_before_it() {
        for (words, text, parts) in [
            (
                "Twelve [1]. Nine [2].",
                "Twelve [1]. Nine [2].",
                &["Twelve", "Nine"][..],
            ),
            (
                "Twelve.[1] Nine! [2][3]",
                "Twelve.[1] Nine! [2][3]",
                &["Twelve.", "Nine!"],
            ),
            (
                "There are:\n- twelve [1]\n- nine\n  more [2]",
                "There are:\n- twelve [1]\n- nine\n  more [2]",
                &["- twelve", "more"],
            ),
            ("Twelve\n[1]", "Twelve\n[1]", &["Twelve"]),
            ("Twelve [1],  [2].", "Twelve [1],  [2].", &["Twelve", "Twelve"]),
            ("[1] Twelve.", "[1] Twelve.", &["[1]"]),
            ("Twelve [9]. Nine [1].", "Twelve. Nine [1].", &["Twelve. Nine"]),
            ("Twelve.", "Twelve.", &[]),
        ] {
            let said = said([words]);
            assert_eq!(said.text, text);
            let cited: Vec<&str> = said.citations.iter().map(|citation| citation.text.as_str()).collect();
            assert_eq!(cited, parts, "{words}");
        }
    }

    #[test]
    fn a_search_is_one_line_and_no_longer_than_a_question() {
        assert_eq!(in_short(" How\nthick?\u{202e} "), "How thick?");
        assert_eq!(in_short(" \n "), "");
        assert_eq!(units(&in_short(&"\u{1f6a2}".repeat(600))), 1000);
    }

    proptest! {
        #[test]
        fn spans_are_where_parts_stand_however_the_words_come(
            words in proptest::collection::vec("\\PC{0,8}|[ \n.]{0,3}|\\[[1-4]\\]|🚢", 0..12),
        ) {
            let whole = words.concat();
            let said = said(words.iter().map(String::as_str));
            prop_assert_eq!(&said, &super::tests::said([whole.as_str()]));
            let units: Vec<u16> = said.text.encode_utf16().collect();
            for citation in &said.citations {
                let slice = String::from_utf16(&units[citation.start..=citation.end]).unwrap();
                prop_assert_eq!(&slice, &citation.text);
                prop_assert!(!citation.passages.is_empty());
            }
        }
    }
}
