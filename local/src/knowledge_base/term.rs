//! Words as the index and the generator compare them.
//!
//! Lower case, number words as digits, ordinals behind the noun that they count (`the second season` and `Season 2` are
//! the same), and a light stem: no more than English plurals and the endings of verbs, so that a rare word stays rare.
//! Other languages pass through nearly unchanged.

use std::collections::HashSet;
use std::sync::LazyLock;

/// One word of a text in the form in which words are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// The stem, or the digits of a number.
    pub text: String,
    /// The word as it was written, in lower case.
    pub word: String,
}

impl Term {
    /// Whether this is a number.
    #[must_use]
    pub fn is_number(&self) -> bool {
        self.text.starts_with(|character: char| character.is_ascii_digit())
    }
}

/// The words of a text.
#[must_use]
pub fn terms(text: &str) -> Vec<Term> {
    let words: Vec<String> = text
        .split(|character: char| !character.is_alphanumeric() && character != '\'' && character != '\u{2019}')
        .map(|word| {
            word.trim_matches(['\'', '\u{2019}'])
                .to_lowercase()
                .replace('\u{2019}', "'")
        })
        .map(|word| word.strip_suffix("'s").map(ToOwned::to_owned).unwrap_or(word))
        .filter(|word| !word.is_empty())
        .flat_map(|word| match season_and_episode(&word) {
            Some((season, episode)) => vec!["season".to_owned(), season, "episode".to_owned(), episode],
            None => vec![word],
        })
        .collect();
    let mut terms: Vec<Term> = Vec::with_capacity(words.len());
    let mut pending: Option<Term> = None;
    for (index, word) in words.iter().enumerate() {
        let before = index
            .checked_sub(1)
            .and_then(|before| words.get(before))
            .map(String::as_str);
        if let Some(number) = ordinal(word) {
            terms.extend(pending.replace(Term {
                text: number,
                word: word.clone(),
            }));
            continue;
        }
        let text = match number(word, before) {
            Some(number) => number,
            None => stem(word),
        };
        let term = Term {
            text,
            word: word.clone(),
        };
        let counted = pending.take();
        if counted.is_some() && !term.is_number() && !is_common(word) {
            terms.push(term);
            terms.extend(counted);
        } else {
            terms.extend(counted);
            terms.push(term);
        }
    }
    terms.extend(pending);
    terms
}

const ONES: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];

const ORDINALS: [&str; 12] = [
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh",
    "twelfth",
];

/// The number that a word is, as digits without leading zeros. `one` is one only where it counts: not in `this one`.
fn number(word: &str, before: Option<&str>) -> Option<String> {
    if word.bytes().all(|byte| byte.is_ascii_digit()) {
        let digits = word.trim_start_matches('0');
        return Some(if digits.is_empty() {
            "0".to_owned()
        } else {
            digits.to_owned()
        });
    }
    if word == "one" && before.is_none_or(is_common) {
        return None;
    }
    ONES.iter()
        .position(|name| *name == word)
        .map(|value| value.to_string())
}

fn ordinal(word: &str) -> Option<String> {
    if let Some(index) = ORDINALS.iter().position(|name| *name == word) {
        return Some((index + 1).to_string());
    }
    let digits = ["st", "nd", "rd", "th"]
        .iter()
        .find_map(|ending| word.strip_suffix(ending))?;
    (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.to_owned())
}

/// The numbers of a text, each with the noun that it belongs to: the rare word before it, also across a conjunction
/// (`seasons 1, 2 and 3`).
#[must_use]
pub fn numbers(terms: &[Term]) -> Vec<(Option<String>, String)> {
    let mut noun: Option<String> = None;
    let mut found = Vec::new();
    for term in terms {
        if term.is_number() {
            found.push((noun.clone(), term.text.clone()));
        } else if !matches!(
            term.word.as_str(),
            "and" | "or" | "to" | "und" | "oder" | "bis" | "number" | "no"
        ) {
            noun = (!is_common(&term.word)).then(|| term.text.clone());
        }
    }
    found
}

/// What `s02e07` stands for.
fn season_and_episode(word: &str) -> Option<(String, String)> {
    let (season, episode) = word.strip_prefix('s')?.split_once('e')?;
    let is_number = |part: &str| (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    (is_number(season) && is_number(episode)).then(|| (season.to_owned(), episode.to_owned()))
}

/// The stem of a lower-case word.
fn stem(word: &str) -> String {
    let length = word.chars().count();
    let mut stem = word.to_owned();
    if length > 4 && stem.ends_with("ies") {
        stem.truncate(stem.len() - 3);
        stem.push('y');
    } else if length > 4
        && ["sses", "xes", "zes", "ches", "shes"]
            .iter()
            .any(|ending| stem.ends_with(ending))
    {
        stem.truncate(stem.len() - 2);
    } else if length > 3 && stem.ends_with('s') && !["ss", "us", "is"].iter().any(|ending| stem.ends_with(ending)) {
        stem.pop();
    }
    for ending in ["ing", "ed"] {
        if let Some(rest) = stem.strip_suffix(ending)
            && rest.chars().count() >= 3
            && rest.contains(['a', 'e', 'i', 'o', 'u', 'y'])
        {
            let mut rest = rest.to_owned();
            let mut reversed = rest.chars().rev();
            if let (Some(last), Some(before)) = (reversed.next(), reversed.next())
                && last == before
                && !['l', 's', 'z'].contains(&last)
            {
                rest.pop();
            }
            stem = rest;
            break;
        }
    }
    if stem.chars().count() > 4 && stem.ends_with('e') {
        stem.pop();
    }
    stem
}

/// Whether a word is so common that a statement can answer a question without containing it.
#[must_use]
pub fn is_common(word: &str) -> bool {
    static WORDS: LazyLock<HashSet<&str>> = LazyLock::new(|| COMMON.split_ascii_whitespace().collect());
    WORDS.contains(word)
}

/// Articles, pronouns, prepositions, auxiliaries and the verbs and nouns with which questions are put, in English and,
/// shorter, in German.
const COMMON: &str = "
a about above after again against all also am an and any anybody anyone anything are aren't around as ask asked at
away back be became because become been before began begin being below between both but by called came can can't cannot
come could couldn't did didn't do does doesn't doing don't done down during each either else ever every everybody
everyone everything exact exactly few find following for found from further gave get gets give given gives go goes going
gone got had has hasn't have haven't having he help her here hers him his how however i i'd i'll i'm i've if in include
included includes including information into is isn't it its itself just kind know known let like list listed lists
made make makes many may me mean means mention mentioned might mine more most much must my name named names neither no
nobody none nor not nothing now number of off on only or other others our ours out over own please possible put quite
rather really regarding same say says see seem seems several shall she should show shows since so some somebody someone
something still such take taken tell than thank thanks that that's the their theirs them then there these they thing
things this those though through to together too under until up upon us use used uses using various very want wants was
wasn't way we were weren't what what's whatever when where whether which while who who's whom whose why will with within
without won't would yes yet you your yours
detail details document documents describe explain according say said state states stated summary summarise summarize
per via etc total do's hello hi answer question
aber alle als am an auch auf aus bei beim bin bis bist da das dass dem den der des die dies diese dieser dieses doch
dort du durch ein eine einem einen einer eines er es für gab gibt hat haben ich ihr im in ist ja kann kein keine
man mich mir mit muss nach nein nicht noch nur ob oder sein seine sich sie sind so über um und uns unter vom von vor
wann war waren warum was welche welchem welchen welcher welches wenn wer werden wie wird wo wurde zu zum zur
zeige nenne liste erkläre
";

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        terms(text).into_iter().map(|term| term.text).collect()
    }

    #[test]
    fn seasons_are_counted_in_every_way_of_writing() {
        let expected = ["season", "2"];
        for text in [
            "Season 2",
            "season two",
            "the second season",
            "2nd season",
            "Seasons: 02",
        ] {
            let found: Vec<String> = texts(text).into_iter().filter(|term| term != "the").collect();
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn one_counts_only_behind_a_noun() {
        assert_eq!(texts("season one"), ["season", "1"]);
        assert_eq!(texts("which one"), ["which", "one"]);
        assert_eq!(texts("S02E07"), ["season", "2", "episod", "7"]);
    }

    #[test]
    fn stems_meet() {
        for (one, other) in [
            ("shingles", "shingle"),
            ("episodes", "episode"),
            ("properties", "property"),
            ("aired", "airs"),
            ("stopped", "stop"),
            ("titled", "title"),
            ("windows", "window's"),
        ] {
            assert_eq!(texts(one), texts(other));
        }
        assert_ne!(texts("surveyor"), texts("survey"));
    }
}
