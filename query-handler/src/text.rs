//! Callers' text as it is read: normalised, and otherwise what they wrote.
//!
//! What is taken out can't be meant: control characters, and those that make text read in another order than it stands.
//! Everything that can be meant stays, `<`, `$` and `=` included. Not here: what makes text harmless where it is rendered
//! ([`crate::quotation`]); no character is harmful in itself.

use unicode_normalization::UnicodeNormalization as _;

/// `text` on one line: in NFC (<https://unicode.org/reports/tr15/>), without control, embedding, override and isolate
/// characters, each run of white space one blank, none at either end.
pub fn normalise(text: &str) -> String {
    fold(text, |_| ' ')
}

/// As [`normalise`], but lines stay lines: a run of white space that breaks the line is a line break, and one that breaks
/// it more than once is two, so that paragraphs stay paragraphs.
pub fn normalise_lines(text: &str) -> String {
    let breaks = text.replace("\r\n", "\n");
    fold(&breaks, |blank| if breaks_line(blank) { '\n' } else { ' ' })
}

/// Whether `text` has more than `most` UTF-16 units, as all limits of the contract count.
pub fn longer(text: &str, most: usize) -> bool {
    text.encode_utf16().nth(most).is_some()
}

/// The longest beginning of `text` that has at most `most` UTF-16 units.
pub fn beginning(text: &str, most: usize) -> &str {
    let mut units = 0;
    let end = text.char_indices().find_map(|(at, character)| {
        units += character.len_utf16();
        (units > most).then_some(at)
    });
    end.and_then(|end| text.get(..end)).unwrap_or(text)
}

/// Folds white space into what `form` makes of each character of it: blanks and line breaks.
fn fold(text: &str, form: impl Fn(char) -> char) -> String {
    let mut folded = String::with_capacity(text.len());
    let (mut blank, mut breaks) = (false, 0_usize);
    for character in text.chars() {
        if character.is_whitespace() {
            blank = true;
            breaks += usize::from(form(character) == '\n');
        } else if !is_meaningless(character) {
            if blank && !folded.is_empty() {
                folded.push_str(match breaks {
                    0 => " ",
                    1 => "\n",
                    _ => "\n\n",
                });
            }
            (blank, breaks) = (false, 0);
            folded.push(character);
        }
    }
    // Last: what was taken out may have stood between a letter and its accent.
    folded.nfc().collect()
}

/// Control characters, and the explicit formatting characters of UAX #9, 2.1 to 2.5
/// (<https://unicode.org/reports/tr9/#Directional_Formatting_Characters>). Not the implicit marks, nor the joiners: words
/// of some languages are spelt with them.
fn is_meaningless(character: char) -> bool {
    character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// What Unicode breaks lines at, always (UAX #14: BK, CR, LF, NL).
fn breaks_line(character: char) -> bool {
    matches!(
        character,
        '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}'
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use unicode_normalization::is_nfc;

    use super::*;

    #[test]
    fn what_people_mean_stays_as_it_is() {
        for text in [
            "Is a < b > c, and is that $5?",
            "onboarding = who? tenantId='acme'; -- DROP TABLE",
            "{{ context }} $query$ </passage> <script>alert(1)</script>",
            "`code` **bold** [1] \\n \\u0000 %00 &lt; &amp;",
            "Größe, naïve, Ελλάδα, עברית\u{200f}, می\u{200c}خواهم, 日本語, 👩\u{200d}🚀, 🏴\u{e0067}\u{e0062}\u{e007f}",
            "ﬁ ① ½ Å™",
        ] {
            assert_eq!(normalise(text), text.nfc().collect::<String>());
            assert_eq!(normalise_lines(text), normalise(text));
        }
    }

    #[test]
    fn what_can_not_be_meant_goes() {
        for (text, one_line, lines) in [
            ("", "", ""),
            (" \t\u{a0}\u{3000}\r\n", "", ""),
            ("\u{0}\u{7f}\u{9b}\u{202e}", "", ""),
            ("Gro\u{308}\u{df}e", "Größe", "Größe"),
            ("o\u{0}\u{308}", "ö", "ö"),
            ("\u{202e}drowssap\u{202c} \u{2066}x\u{2069}", "drowssap x", "drowssap x"),
            ("  a \u{a0}\t b  ", "a b", "a b"),
            ("a\r\nb\rc\nd", "a b c d", "a\nb\nc\nd"),
            ("a \n b", "a b", "a\nb"),
            ("a\n \u{0} \n\n\n b\u{85}c\u{2028}d\u{2029}", "a b c d", "a\n\nb\nc\nd"),
            ("a\u{1b}[31mb", "a[31mb", "a[31mb"),
        ] {
            assert_eq!(normalise(text), one_line, "{text:?}");
            assert_eq!(normalise_lines(text), lines, "{text:?}");
        }
    }

    #[test]
    fn lengths_are_in_utf_16_units_and_no_character_is_cut() {
        let ships = "\u{1f6a2}\u{1f6a2}";
        assert!(!longer(ships, 4) && longer(ships, 3));
        assert_eq!(beginning(ships, 4), ships);
        assert_eq!(beginning(ships, 3), "\u{1f6a2}");
        assert_eq!(beginning(ships, 1), "");
    }

    proptest! {
        #[test]
        fn what_is_normal_stays_so(text in "(\\PC|\\pC|[ \r\n\t\u{85}\u{2028}]|\\pM|[$<>=]){0,48}") {
            for (form, normal) in [
                (normalise as fn(&str) -> String, normalise(&text)),
                (normalise_lines, normalise_lines(&text)),
            ] {
                prop_assert_eq!(&form(&normal), &normal);
                prop_assert!(is_nfc(&normal));
                prop_assert!(!normal.chars().any(|c| is_meaningless(c) && c != '\n'));
                prop_assert_eq!(normal.trim(), &normal);
                for sign in ['$', '<', '>', '='] {
                    prop_assert_eq!(normal.matches(sign).count(), text.nfc().filter(|c| *c == sign).count());
                }
            }
            prop_assert_eq!(normalise(&normalise_lines(&text)), normalise(&text));
            prop_assert!(!normalise(&text).contains('\n'));
        }

        #[test]
        fn a_beginning_is_the_longest_that_fits(text in "\\PC{0,24}", most in 0_usize..32) {
            let begun = beginning(&text, most);
            prop_assert!(text.starts_with(begun) && !longer(begun, most));
            if let Some(next) = text.get(begun.len()..).and_then(|rest| rest.chars().next()) {
                prop_assert!(begun.encode_utf16().count() + next.len_utf16() > most);
            }
        }
    }
}
