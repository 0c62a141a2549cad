//! Counting tokens, so that usage is exact and the same in every run.
//!
//! No model's tokens are these: a token is a run of at most six letters or digits, or one other character, with the
//! white space before it. For English prose that comes to about four characters, as with real ones.

/// The longest run of letters and digits that is one token.
const RUN: usize = 6;

/// The tokens of a text. Put together they are the text.
pub fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let begin = rest.len() - rest.trim_start().len();
        let mut end = begin;
        let word = rest.char_indices().skip_while(|(at, _)| *at < begin);
        for (taken, (at, character)) in word.enumerate() {
            let is_word = character.is_alphanumeric();
            if taken > 0 && (!is_word || taken == RUN) {
                break;
            }
            end = at + character.len_utf8();
            if !is_word {
                break;
            }
        }
        let (token, after) = rest.split_at_checked(end)?;
        rest = after;
        (!token.is_empty()).then_some(token)
    })
}

/// How many tokens a text has.
#[must_use]
pub fn count(text: &str) -> u64 {
    tokens(text).fold(0, |count, _| count + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_put_together_are_the_text() {
        for text in [
            "",
            " ",
            "a",
            "The harbour master is called Quill. [1]\n",
            "\r\n\u{2028}data: \u{1f6a2}ü",
            "abcdefghijklm",
        ] {
            assert_eq!(tokens(text).collect::<String>(), text);
        }
    }

    #[test]
    fn words_are_cut_and_blanks_cost_nothing() {
        let found: Vec<&str> = tokens("Two documents, [12] ").collect();
        assert_eq!(found, ["Two", " docume", "nts", ",", " [", "12", "]", " "]);
        assert_eq!(count("one two three"), 3);
    }
}
