//! Citation markers in an answer that the verified engine's model writes: `[n]` names the n-th passage of the prompt.
//!
//! The answer comes in pieces that end anywhere, so what may still become a marker is held back, and nothing else. A
//! number that names no passage is removed: a reader would take it for a source. Other brackets are text.
//!
//! Not here: which passage a number stands for, and where in the answer the part before a marker lies.

use std::mem;

/// The most digits of a number that is read as a marker's. `[2024]` is a year.
const MAX_DIGITS: usize = 3;
/// The most bytes of one marker, brackets included; longer ones are text.
const MAX_MARKER: usize = 64;
/// The most markers that are taken for one citation; what follows them is the next.
const MAX_RUN: usize = 16;

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Text that is no marker, as the model wrote it.
    Text(String),
    /// The part of the text before it rests on these passages.
    Citation {
        /// The marker as it stands in the answer, `" [1][3]"` for example: it is text too, and in no
        /// [`Segment::Text`]. The blank before it belongs to it.
        marker: String,
        /// The passages, counted from 1, each once, in the order of the marker.
        numbers: Vec<usize>,
    },
}

/// Reads an answer piece by piece. However it is cut, the same comes out.
#[derive(Debug)]
pub struct Markers {
    known: usize,
    /// Whole markers that follow each other, which may go on.
    run: Vec<Marker>,
    /// What stands behind the run, or in the text, and belongs to the next marker if there is one.
    gap: String,
    /// A marker that has begun.
    open: Option<String>,
}

#[derive(Debug)]
struct Marker {
    gap: String,
    text: String,
}

impl Markers {
    /// For an answer to a prompt with `known` passages, which are numbered from 1.
    pub const fn new(known: usize) -> Self {
        Self {
            known,
            run: Vec::new(),
            gap: String::new(),
            open: None,
        }
    }

    /// The next piece of the answer, and what of it and of the pieces before can't change any more.
    pub fn push(&mut self, piece: &str) -> Vec<Segment> {
        let mut segments = Segments::default();
        for character in piece.chars() {
            self.take(character, &mut segments);
        }
        segments.0
    }

    /// The answer is at its end: what was held back.
    pub fn finish(mut self) -> Vec<Segment> {
        let mut segments = Segments::default();
        self.give_up(&mut segments);
        segments.0
    }

    fn take(&mut self, character: char, segments: &mut Segments) {
        if let Some(open) = &mut self.open {
            if character == ']' && numbers(open).is_some() {
                let mut text = mem::take(open);
                text.push(']');
                self.open = None;
                let gap = mem::take(&mut self.gap);
                self.run.push(Marker { gap, text });
                if self.run.len() == MAX_RUN {
                    self.close(segments);
                }
                return;
            }
            let inside = character.is_ascii_digit() || is_separator(character) || is_blank(character);
            if inside && open.len() + character.len_utf8() < MAX_MARKER {
                open.push(character);
                return;
            }
            self.give_up(segments);
        }
        if character == '[' {
            self.open = Some(character.to_string());
        } else if self.goes_on(character) {
            self.gap.push(character);
        } else {
            self.give_up(segments);
            if is_blank(character) {
                self.gap.push(character);
            } else {
                segments.text(character.encode_utf8(&mut [0; 4]));
            }
        }
    }

    /// Whether a character may stand between what is held back and another marker: a blank, and within a run a
    /// separator before it.
    fn goes_on(&self, character: char) -> bool {
        let last = self.gap.chars().next_back();
        if is_separator(character) {
            last.is_none() && !self.run.is_empty()
        } else {
            is_blank(character) && !last.is_some_and(is_blank)
        }
    }

    /// Nothing that is held back becomes a marker any more.
    fn give_up(&mut self, segments: &mut Segments) {
        self.close(segments);
        segments.text(&mem::take(&mut self.gap));
        if let Some(open) = self.open.take() {
            segments.text(&open);
        }
    }

    /// The run is at its end. What of it names no passage is removed, together with the gap before it.
    fn close(&mut self, segments: &mut Segments) {
        let mut marker = String::new();
        let mut cited = Vec::new();
        // Whichever of the run stays first stands where the first one stood.
        let mut first_gap = self.run.first_mut().map(|first| mem::take(&mut first.gap));
        for Marker { gap, text } in mem::take(&mut self.run) {
            let Some((text, numbers)) = self.known(&text) else {
                continue;
            };
            marker.push_str(&first_gap.take().unwrap_or(gap));
            marker.push_str(&text);
            for number in numbers {
                if !cited.contains(&number) {
                    cited.push(number);
                }
            }
        }
        if !cited.is_empty() {
            segments.0.push(Segment::Citation { marker, numbers: cited });
        }
    }

    /// A marker with the numbers only that name a passage; `None` if none does.
    fn known(&self, marker: &str) -> Option<(String, Vec<usize>)> {
        let all = numbers(marker.strip_suffix(']')?)?;
        let is_known = |number: &usize| (1..=self.known).contains(number);
        if all.iter().all(is_known) {
            return Some((marker.to_owned(), all));
        }
        let mut text = String::from("[");
        let mut kept = Vec::new();
        let inside = marker.strip_prefix('[')?.strip_suffix(']')?;
        for (part, number) in inside.split_inclusive(is_separator).zip(all) {
            if is_known(&number) {
                text.push_str(if kept.is_empty() { part.trim_start() } else { part });
                kept.push(number);
            }
        }
        while text.ends_with(|character| is_separator(character) || is_blank(character)) {
            text.pop();
        }
        text.push(']');
        (!kept.is_empty()).then_some((text, kept))
    }
}

/// Segments in which text follows a citation, never text.
#[derive(Default)]
struct Segments(Vec<Segment>);

impl Segments {
    fn text(&mut self, more: &str) {
        if more.is_empty() {
            return;
        }
        if let Some(Segment::Text(text)) = self.0.last_mut() {
            text.push_str(more);
        } else {
            self.0.push(Segment::Text(more.to_owned()));
        }
    }
}

/// Whether `text` is a marker, brackets included, of whatever passages.
pub fn is_marker(text: &str) -> bool {
    text.len() <= MAX_MARKER && text.strip_suffix(']').is_some_and(|open| numbers(open).is_some())
}

/// The numbers of a marker without its closing bracket; `None` if it is no marker.
fn numbers(open: &str) -> Option<Vec<usize>> {
    let number = |part: &str| {
        let digits = part.trim_matches(is_blank);
        (digits.len() <= MAX_DIGITS).then(|| digits.parse().ok()).flatten()
    };
    open.strip_prefix('[')?.split(is_separator).map(number).collect()
}

const fn is_separator(character: char) -> bool {
    matches!(character, ',' | ';')
}

/// Blanks that stand within a line.
const fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\u{a0}' | '\u{202f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The segments of an answer in pieces, text put together again.
    fn read<'a>(known: usize, pieces: impl IntoIterator<Item = &'a str>) -> Vec<Segment> {
        let mut markers = Markers::new(known);
        let mut segments = Segments::default();
        let mut pushed: Vec<Segment> = pieces.into_iter().flat_map(|piece| markers.push(piece)).collect();
        pushed.extend(markers.finish());
        for segment in pushed {
            match segment {
                Segment::Text(text) => segments.text(&text),
                citation @ Segment::Citation { .. } => segments.0.push(citation),
            }
        }
        segments.0
    }

    /// An answer as it is shown, each citation's numbers behind its marker in braces.
    fn shown(known: usize, text: &str) -> String {
        let show = |segment| match segment {
            Segment::Text(text) => text,
            Segment::Citation { marker, numbers } => {
                let numbers: Vec<String> = numbers.iter().map(usize::to_string).collect();
                format!("{marker}{{{}}}", numbers.join(", "))
            }
        };
        read(known, [text]).into_iter().map(show).collect()
    }

    #[test]
    fn markers_stay_and_cite_what_is_before_them() {
        for (text, expected) in [
            ("Twelve [1]. Nine [2].", "Twelve [1]{1}. Nine [2]{2}."),
            ("Twelve[3]", "Twelve[3]{3}"),
            ("[1] Twelve", "[1]{1} Twelve"),
            ("Twelve [1, 3].", "Twelve [1, 3]{1, 3}."),
            ("Twelve [ 1;3 ].", "Twelve [ 1;3 ]{1, 3}."),
            ("Twelve [3][1][3].", "Twelve [3][1][3]{3, 1}."),
            ("Twelve [1] [2], and [3]", "Twelve [1] [2]{1, 2}, and [3]{3}"),
            ("Twelve [1], [2] and", "Twelve [1], [2]{1, 2} and"),
            ("Twelve [1],  [2]", "Twelve [1]{1},  [2]{2}"),
            ("Twelve [1]\n[2]", "Twelve [1]{1}\n[2]{2}"),
            ("[[1]]", "[[1]{1}]"),
            ("Twelve [01]", "Twelve [01]{1}"),
            ("Twelve\u{a0}[1]", "Twelve\u{a0}[1]{1}"),
        ] {
            assert_eq!(shown(3, text), expected, "{text}");
        }
    }

    #[test]
    fn numbers_that_name_no_passage_are_removed() {
        for (text, expected) in [
            ("Twelve [4].", "Twelve."),
            ("Twelve [0].", "Twelve."),
            ("Twelve  [4].", "Twelve ."),
            ("Twelve\n[999]\n", "Twelve\n\n"),
            ("Twelve [1, 4].", "Twelve [1]{1}."),
            ("Twelve [4,1;5, 2].", "Twelve [1; 2]{1, 2}."),
            ("Twelve [4][1].", "Twelve [1]{1}."),
            ("Twelve [4], [1][9] [2] or", "Twelve [1] [2]{1, 2} or"),
            ("Twelve [1] [4], or", "Twelve [1]{1}, or"),
            ("[4][5]", ""),
        ] {
            assert_eq!(shown(3, text), expected, "{text}");
        }
        assert_eq!(shown(0, "Twelve [1]."), "Twelve.");
    }

    #[test]
    fn other_brackets_are_text() {
        let digits = format!("[{}]", "1,".repeat(40));
        for text in [
            "[",
            "[]",
            "[ ]",
            "a[i] = b[",
            "[1",
            "[1,",
            "[1,]",
            "[,1]",
            "[1 2]",
            "[-1]",
            "[+1]",
            "[1.5]",
            "[^1]",
            "[2024] EWCA",
            "[1-3]",
            "[\u{661}]",
            "[1\n]",
            "[x][y]",
            "  [ [ ",
            "]1[",
            digits.as_str(),
        ] {
            assert_eq!(shown(3, text), text);
        }
    }

    #[test]
    fn only_what_may_become_a_marker_is_held_back() {
        let mut markers = Markers::new(3);
        let mut step = |piece: &str| -> String {
            let text = |segment| match segment {
                Segment::Text(text) => text,
                Segment::Citation { marker, numbers } => format!("{marker}{{{}}}", numbers.len()),
            };
            markers.push(piece).into_iter().map(text).collect()
        };
        assert_eq!(step("Twelve"), "Twelve");
        assert_eq!(step(" "), "");
        assert_eq!(step("of"), " of");
        assert_eq!(step(" ["), "");
        assert_eq!(step("1"), "");
        assert_eq!(step("]"), "");
        assert_eq!(step(" ["), "");
        assert_eq!(step("2]"), "");
        assert_eq!(step("."), " [1] [2]{2}.");
        assert_eq!(step(" [1"), "");
        assert_eq!(step("st]"), " [1st]");
    }

    fn removable(character: char) -> bool {
        "[]0123456789".contains(character) || is_blank(character) || is_separator(character)
    }

    /// Text in which much looks like a marker.
    fn answer() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            "\\PC{0,3}",
            "[\\[\\], ;0-9\n\u{a0}]{0,6}",
            "\\[[0-9]{1,4}\\]",
            Just(" ".to_owned()),
            Just("[1, 9]".to_owned()),
        ];
        proptest::collection::vec(part, 0..60).prop_map(|parts| parts.concat())
    }

    /// `text` cut into pieces of so many characters, over and over.
    fn pieces(text: &str, lengths: &[usize]) -> Vec<String> {
        let mut characters = text.chars().peekable();
        let mut pieces = Vec::new();
        for length in lengths.iter().cycle() {
            if characters.peek().is_none() {
                break;
            }
            pieces.push(characters.by_ref().take(*length).collect());
        }
        pieces
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_same_comes_out(
            text in answer(),
            known in 0_usize..5,
            lengths in proptest::collection::vec(1_usize..5, 1..8),
        ) {
            let pieces = pieces(&text, &lengths);
            prop_assert_eq!(read(known, pieces.iter().map(String::as_str)), read(known, [text.as_str()]));
        }

        #[test]
        fn text_stays_byte_for_byte_but_for_markers_that_name_nothing(text in answer(), known in 0_usize..5) {
            let segments = read(known, [text.as_str()]);
            let mut rest = text.chars();
            for segment in &segments {
                let (said, cites) = match segment {
                    Segment::Text(text) => (text, false),
                    Segment::Citation { marker, numbers } => {
                        prop_assert!(!numbers.is_empty());
                        prop_assert!(numbers.iter().all(|number| (1..=known).contains(number)));
                        (marker, true)
                    }
                };
                for character in said.chars() {
                    // What is passed over was removed: nothing of it but markers, gaps and separators.
                    let found = rest.find(|next| *next == character || !removable(*next));
                    prop_assert_eq!(found, Some(character));
                }
                prop_assert!(cites || !said.is_empty());
            }
            prop_assert!(rest.all(removable));
        }

        #[test]
        fn where_every_number_names_a_passage_nothing_is_removed(text in answer()) {
            let text = text.replace('0', "1");
            let said: String = read(999, [text.as_str()])
                .into_iter()
                .map(|segment| match segment {
                    Segment::Text(text) => text,
                    Segment::Citation { marker, .. } => marker,
                })
                .collect();
            prop_assert_eq!(said, text);
        }

        #[test]
        fn what_is_held_back_is_bounded(text in answer(), known in 0_usize..5) {
            let mut markers = Markers::new(known);
            for character in text.chars() {
                markers.push(character.encode_utf8(&mut [0; 4]));
                let run: usize = markers.run.iter().map(|marker| marker.gap.len() + marker.text.len()).sum();
                prop_assert!(markers.run.len() < MAX_RUN);
                prop_assert!(run + markers.gap.len() + markers.open.as_ref().map_or(0, String::len) <= MAX_RUN * 80);
            }
        }
    }
}
