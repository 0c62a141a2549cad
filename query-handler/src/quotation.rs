//! What callers and documents say, made harmless as part of a prompt: nothing in it is a placeholder or ends the block it
//! stands in. What is harmless depends on who fills in the prompt: [`Quotation`] where Bedrock does, [`Excerpt`] where we do.
//!
//! Not here: whether the model obeys it all the same. Isolation rests on the filter and the firewall, never on a prompt.

use std::fmt;

use crate::marker;

/// Text that can stand in a prompt of RetrieveAndGenerate as data only.
///
/// Bedrock fills `$name$` wherever the template has it, and its own format instructions speak in tags as ours do. So
/// every `$`, `<` and `>` is replaced by its full-width form: whatever the case, blanks or nesting of what was meant to
/// be a placeholder or a tag, it is none any more, and people and models still read it. Each is one character and one
/// UTF-16 unit, as the original is, so that lengths stay what they were checked to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quotation(String);

impl Quotation {
    /// Quotes `text`.
    pub fn new(text: &str) -> Self {
        Self(
            text.chars()
                .map(|character| match character {
                    '$' => '\u{ff04}',
                    '<' => '\u{ff1c}',
                    '>' => '\u{ff1e}',
                    other => other,
                })
                .collect(),
        )
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Quotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The names of the tags between which data stands in the prompts of `Converse`.
const TAGS: [&str; 5] = ["passage", "history", "turn", "caller_context", "question"];

/// Text that can stand between our tags in a prompt of `Converse` as data only.
///
/// Nothing is filled in there, and the text may be a document's, which an answer must be able to quote letter by letter.
/// So only a `<` with which one of our tags could begin is replaced, by its full-width form: one that is followed by one
/// of their names in any case, whatever blanks, slashes and invisible characters come before or within.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt(String);

impl Excerpt {
    /// Quotes `text`.
    pub fn new(text: &str) -> Self {
        let mut quoted = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('<') {
            quoted.push_str(before);
            quoted.push(if names_a_tag(after) { '\u{ff1c}' } else { '<' });
            rest = after;
        }
        quoted.push_str(rest);
        Self(quoted)
    }

    /// Quotes `text` that an answer may repeat. The brackets of what could be read as one of the answer's own markers are
    /// replaced too, by their full-width forms: a number that a document has for its notes, or that somebody wrote into
    /// it for that end, would otherwise name a passage that says nothing of the kind.
    pub fn without_markers(text: &str) -> Self {
        let Self(text) = Self::new(text);
        let mut quoted = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once('[') {
            quoted.push_str(before);
            match numbered(after) {
                Some((inside, after)) => {
                    quoted.push('\u{ff3b}');
                    quoted.push_str(inside);
                    quoted.push('\u{ff3d}');
                    rest = after;
                }
                None => {
                    quoted.push('[');
                    rest = after;
                }
            }
        }
        quoted.push_str(rest);
        Self(quoted)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether what follows a `<` could be read as the rest of one of our tags. More may follow the name: `passages` is none
/// of our tags, but nobody reads a closing one so closely.
fn names_a_tag(after: &str) -> bool {
    let mut name = after
        .trim_start_matches(|character: char| {
            character.is_whitespace() || matches!(character, '/' | '\\') || is_invisible(character)
        })
        .chars()
        .filter(|character| !is_invisible(*character))
        .map(|character| character.to_ascii_lowercase());
    let longest = TAGS.iter().map(|tag| tag.len()).max().unwrap_or_default();
    let name: String = name.by_ref().take(longest).collect();
    TAGS.iter().any(|tag| name.starts_with(tag))
}

/// What stands between the brackets, and what behind them, if what follows a `[` could be read as the rest of a marker,
/// whatever blanks and invisible characters are within.
fn numbered(after: &str) -> Option<(&str, &str)> {
    let inside = |character: char| {
        character.is_ascii_digit()
            || character.is_whitespace()
            || matches!(character, ',' | ';')
            || is_invisible(character)
    };
    let end = after.find(|character| !inside(character))?;
    let (number, rest) = after.split_at_checked(end)?;
    let rest = rest.strip_prefix(']')?;
    let read: String = number
        .chars()
        .filter(|character| character.is_whitespace() || !is_invisible(*character))
        .map(|character| if character.is_whitespace() { ' ' } else { character })
        .collect();
    marker::is_marker(&format!("[{read}]")).then_some((number, rest))
}

/// Characters that leave no trace where a text is shown: controls, formats, variation selectors and tags
/// (<https://www.unicode.org/reports/tr44/#General_Category_Values>: Cc, Cf; <https://www.unicode.org/reports/tr51/>).
fn is_invisible(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{202a}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn placeholders_and_tags_are_text() {
        let quotation = Quotation::new("$query$ costs < 5 $ </Caller_Context > $$search_results$$");
        assert_eq!(
            quotation.as_str(),
            "＄query＄ costs ＜ 5 ＄ ＜/Caller_Context ＞ ＄＄search_results＄＄"
        );
    }

    #[test]
    fn an_excerpt_holds_none_of_our_tags() {
        for (text, expected) in [
            ("</passage>", "＜/passage>"),
            ("<passage number=\"9\">", "＜passage number=\"9\">"),
            ("<<passage>", "<＜passage>"),
            ("< / PASSAGE >", "＜ / PASSAGE >"),
            ("<\n\t//History", "＜\n\t//History"),
            ("<\u{200b}/pas\u{ad}sage>", "＜\u{200b}/pas\u{ad}sage>"),
            ("</caller_context", "＜/caller_context"),
            ("<turn role=\"assistant\">", "＜turn role=\"assistant\">"),
            ("<Question>", "＜Question>"),
        ] {
            assert_eq!(Excerpt::new(text).as_str(), expected);
        }
    }

    #[test]
    fn what_an_answer_may_repeat_holds_no_marker_of_its_own() {
        for (text, expected) in [
            ("Safe [2].", "Safe \u{ff3b}2\u{ff3d}."),
            ("a[0] [1][3]", "a\u{ff3b}0\u{ff3d} \u{ff3b}1\u{ff3d}\u{ff3b}3\u{ff3d}"),
            ("[[ 1,\n2; 3]]", "[\u{ff3b} 1,\n2; 3\u{ff3d}]"),
            ("[\u{200b}2\u{ad}]", "\u{ff3b}\u{200b}2\u{ad}\u{ff3d}"),
            ("</passage>[1]", "＜/passage>\u{ff3b}1\u{ff3d}"),
        ] {
            assert_eq!(Excerpt::without_markers(text).as_str(), expected);
        }
        for text in [
            "",
            "[",
            "[]",
            "[2024]",
            "[a]",
            "[1",
            "1]",
            "[1 2]",
            "[1,]",
            "x[i] [sic] [-1] (1)",
        ] {
            assert_eq!(Excerpt::without_markers(text).as_str(), text);
        }
    }

    #[test]
    fn whatever_else_an_excerpt_says_stays_as_it_is() {
        for text in [
            "",
            "a < b > c, 3 << 2",
            "<p class=\"x\">It costs 5 $.</p> $query$ {{ context }}",
            "if x<y { vec![<u8>::MIN] }",
            "&lt;/passage&gt; passage> /passage",
            "<",
            "<pass",
            "<pass age>",
            "< p a s s a g e >",
            "\u{200b}\r\n\u{2028}",
        ] {
            assert_eq!(Excerpt::new(text).as_str(), text);
        }
    }

    proptest! {
        #[test]
        fn an_excerpt_changes_nothing_but_what_could_be_a_tag(
            text in "(\\PC|[ \n</>]|</?|passage|TURN|caller_context|Question|history|\u{200b}){0,40}",
        ) {
            let excerpt = Excerpt::new(&text);
            prop_assert_eq!(excerpt.as_str().chars().count(), text.chars().count());
            for (quoted, said) in excerpt.as_str().chars().zip(text.chars()) {
                let broken = quoted == '\u{ff1c}' && said == '<';
                prop_assert!(quoted == said || broken);
            }
            // Seen as carelessly as possible.
            let seen: String = excerpt
                .as_str()
                .to_lowercase()
                .chars()
                .filter(|character| !character.is_whitespace() && !matches!(character, '/' | '\u{200b}'))
                .collect();
            for tag in TAGS {
                let tag = format!("<{tag}");
                prop_assert!(!seen.contains(&tag), "{}", seen);
            }
        }

        #[test]
        fn nothing_that_is_repeated_is_read_as_a_marker(
            text in "(\\PC|\\[|\\]|[ \n,;0-9]|\\[[0-9]{1,3}\\]|\u{200b}){0,40}",
        ) {
            let excerpt = Excerpt::without_markers(&text);
            let said: String = excerpt.as_str().chars().filter(|character| *character != '\u{200b}').collect();
            let mut markers = marker::Markers::new(999);
            let mut segments = markers.push(&said);
            segments.extend(markers.finish());
            let is_text = |segment: &marker::Segment| matches!(segment, marker::Segment::Text(_));
            prop_assert!(segments.iter().all(is_text), "{}", said);
            let plain = |text: &str| text.replace('\u{ff3b}', "[").replace('\u{ff3d}', "]");
            prop_assert_eq!(plain(excerpt.as_str()), plain(Excerpt::new(&text).as_str()));
        }

        #[test]
        fn lengths_stay_and_nothing_acts(text in "(\\PC|[$<>\n]){0,64}") {
            let quotation = Quotation::new(&text);
            prop_assert_eq!(quotation.as_str().encode_utf16().count(), text.encode_utf16().count());
            prop_assert_eq!(quotation.as_str().chars().count(), text.chars().count());
            prop_assert!(!quotation.as_str().contains(['$', '<', '>']));
        }
    }
}
