//! Words that nobody else knows, and the documents that hold them.
//!
//! Every run has words of its own, so that nothing of an earlier run can answer for it. They are letters only: a guardrail
//! that looks for numbers and addresses finds none.

use super::{A, B};

/// What is asked of the tenants' own documents: each answers it with its own word.
pub(super) const QUESTION: &str = "What is the call sign of the harbour ferry?";
/// What the long text's word answers.
pub(super) const ARCHIVE_QUESTION: &str = "What is the watchword of the lighthouse archive?";
/// What the word of the text with `<` and `>` answers.
pub(super) const COMPARISON_QUESTION: &str = "What is the chain a < b > c called?";
/// How long the long text is at least, in bytes.
const ARCHIVE_SIZE: usize = 1_000_000;

/// A document of the smoke test's.
pub(super) struct Source {
    /// Whose it is.
    pub tenant: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Its media type.
    pub media_type: &'static str,
    /// What it answers.
    pub question: &'static str,
    /// Its text, given its word.
    pub text: fn(&str) -> String,
}

/// Every document.
const SOURCES: [Source; 4] = [
    Source {
        tenant: A,
        name: "ferry.txt",
        media_type: "text/plain",
        question: QUESTION,
        text: ferry,
    },
    Source {
        tenant: B,
        name: "ferry.txt",
        media_type: "text/plain",
        question: QUESTION,
        text: ferry,
    },
    Source {
        tenant: A,
        name: "archive.txt",
        media_type: "text/plain",
        question: ARCHIVE_QUESTION,
        text: archive,
    },
    Source {
        tenant: A,
        name: "comparison.md",
        media_type: "text/markdown",
        question: COMPARISON_QUESTION,
        text: comparison,
    },
];

/// A document with its word.
pub(super) struct Canary {
    /// What it is made from.
    pub source: Source,
    /// The word that nobody else knows.
    pub word: String,
    /// The document's id, once it is uploaded.
    pub document: Option<String>,
}

/// Every document, each with a new word.
pub(super) fn hatch() -> Vec<Canary> {
    let canary = |source| Canary {
        source,
        word: word(),
        document: None,
    };
    SOURCES.into_iter().map(canary).collect()
}

fn ferry(word: &str) -> String {
    format!("The call sign of the harbour ferry is {word}. The ferry leaves at noon.\n")
}

/// Markup that a firewall takes for an attack, in a text that is about just that.
fn comparison(word: &str) -> String {
    format!(
        "# Comparisons\n\nThe chain a < b > c is called {word}.\n\nThe form says `<b onmouseover=\"alert(1)\">` and \
         `' OR 1=1 --`, as an example.\n"
    )
}

/// A log of a lighthouse with the word in its middle.
fn archive(word: &str) -> String {
    const WINDS: [&str; 8] = [
        "north",
        "north-east",
        "east",
        "south-east",
        "south",
        "south-west",
        "west",
        "north-west",
    ];
    let watchword = format!("The watchword of the lighthouse archive is {word}.\n\n");
    let mut text = String::with_capacity(ARCHIVE_SIZE + 512);
    let mut is_said = false;
    for (day, wind) in (1..).zip(WINDS.iter().cycle()) {
        if text.len() >= ARCHIVE_SIZE {
            break;
        }
        if !is_said && text.len() >= ARCHIVE_SIZE / 2 {
            text.push_str(&watchword);
            is_said = true;
        }
        text.push_str(&format!(
            "On day {day} the keeper wrote that the wind came from the {wind}, that {} ships passed, and that the lamp burned \
             {} pints of oil.\n\n",
            day * 7 % 31,
            day * 5 % 13 + 2
        ));
    }
    text
}

/// A word that nobody else knows.
fn word() -> String {
    let random = uuid::Uuid::new_v4();
    let letters = random.as_bytes().iter().map(|byte| char::from(b'a' + byte % 26));
    std::iter::once('q').chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_long_text_has_a_million_bytes_and_its_word_once() {
        let text = archive("qword");
        assert!((ARCHIVE_SIZE..ARCHIVE_SIZE + 1_000).contains(&text.len()));
        assert_eq!(text.matches("qword").count(), 1);
        assert!(text.is_ascii());
    }

    #[test]
    fn words_are_letters_and_differ() {
        let (one, other) = (word(), word());
        assert_ne!(one, other);
        assert!(one.len() == 17 && one.chars().all(|c| c.is_ascii_lowercase()));
    }
}
