//! The model's part: an answer out of passages, extractive and deterministic.
//!
//! It answers only with statements (a sentence, an item, a row of a table) that hold every number and every rare word of
//! the question, themselves or in the headings above them, and says that it can't assist otherwise. So it never invents
//! anything, a question about something that is not in the passages has no answer, and a test can tell from an answer
//! which passages were seen.
//!
//! * Numbers are bound to the noun before them: `season 2` is not answered by `Season 1, Episode 2`.
//! * Questions for a list (`which episodes …`, `list …`) collect all matching items and rows, in their order.
//! * Words that only say what kind of thing is asked for (`title`, `date`, `made of`) prefer a statement and don't rule
//!   any out.
//! * A question that refers to the one before (`and when was it built?`) takes over that one's words, and a question
//!   about the conversation repeats it: a session id that reaches a stranger is a leak, here as in Bedrock.
//!
//! The prompt templates are not interpreted: nothing in them changes an answer.

use std::collections::BTreeSet;

use super::chunk::Chunk;
use super::outline::{self, Heading, Kind};
use super::session::Turn;
use super::term::{Term, is_common, numbers, terms};

/// What Bedrock answers when the model found nothing.
pub const NO_ANSWER: &str = "Sorry, I am unable to assist you with this request.";

/// A passage that the answer may be taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passage {
    /// What tells its document from others.
    pub document: String,
    /// The passage.
    pub chunk: Chunk,
}

/// A part of an answer, with the passages that it was taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The text.
    pub text: String,
    /// Indices of passages; empty if the part is from none.
    pub passages: Vec<usize>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// At least one.
    pub parts: Vec<Part>,
    /// What stands between two parts: one character.
    pub separator: char,
}

impl Answer {
    fn uncited(text: String) -> Self {
        Self {
            parts: vec![Part {
                text,
                passages: Vec::new(),
            }],
            separator: ' ',
        }
    }
}

/// Answers a question from passages, which come best first. `length` is the longest answer to give, in characters.
#[must_use]
pub fn answer(question: &str, history: &[Turn], passages: &[Passage], length: usize) -> Answer {
    let asked = Question::read(question);
    if let Some(last) = history.last() {
        if asked.is_about_conversation {
            return Answer::uncited(format!("You asked: {}\nI answered: {}", last.question, last.answer));
        }
        if asked.refers_back || asked.is_empty() {
            let joined = asked.after(&Question::read(&last.question));
            if let Some(answer) = joined.answer(passages, length) {
                return answer;
            }
        }
    }
    asked
        .answer(passages, length)
        .unwrap_or_else(|| Answer::uncited(NO_ANSWER.to_owned()))
}

/// The words with which to search for passages: the question's, and those of the one before where it refers to that.
#[must_use]
pub fn search_text(question: &str, history: &[Turn]) -> String {
    let asked = Question::read(question);
    match history.last() {
        Some(last) if asked.refers_back || asked.is_empty() => format!("{question} {}", last.question),
        _ => question.to_owned(),
    }
}

/// Words that say what kind of thing is wanted, as the words that a statement of that kind has (stems).
const KINDS: &[(&[&str], &[&str])] = &[
    (
        &["made", "material", "consist", "consists"],
        &["type", "material", "made", "construct"],
    ),
    (
        &["where", "located"],
        &["address", "location", "located", "place", "street"],
    ),
    (
        &["when", "date", "day", "aired"],
        &["date", "air", "year", "sinc", "released", "on"],
    ),
    (&["old", "age"], &["age", "year", "built", "old"]),
    (
        &["title", "titled", "titles", "name", "names", "called"],
        &["title", "name", "called"],
    ),
    (&["kind", "sort", "type"], &["type", "kind", "sort"]),
];

/// Words of [`KINDS`] that need not be in the answer although they are not common.
const SOFT: [&str; 16] = [
    "title", "titles", "titled", "date", "dates", "day", "old", "kind", "sort", "type", "material", "consist",
    "consists", "located", "previous", "aired",
];

/// Words that refer to what was said before.
const BACKWARD: [&str; 17] = [
    "it", "its", "they", "them", "their", "theirs", "that", "those", "this", "these", "he", "she", "his", "her", "him",
    "hers", "same",
];

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Question {
    /// Rare words, as stems.
    required: BTreeSet<String>,
    /// Numbers by the noun that they belong to; of one noun's numbers one must be there.
    bound: Vec<(String, BTreeSet<String>)>,
    /// Numbers on their own.
    free: BTreeSet<String>,
    /// Words that a statement of the wanted kind has, as stems.
    wanted: BTreeSet<String>,
    is_list: bool,
    refers_back: bool,
    is_about_conversation: bool,
}

impl Question {
    fn read(text: &str) -> Self {
        let terms = terms(text);
        let words: Vec<&str> = terms.iter().map(|term| term.word.as_str()).collect();
        let has = |word: &str| words.contains(&word);
        let mut question = Self::default();
        for (noun, number) in numbers(&terms) {
            match noun {
                Some(noun) => match question.bound.iter_mut().find(|(known, _)| *known == noun) {
                    Some((_, numbers)) => {
                        numbers.insert(number);
                    }
                    None => question.bound.push((noun, BTreeSet::from([number]))),
                },
                None => {
                    question.free.insert(number);
                }
            }
        }
        question.required = terms
            .iter()
            .filter(|term| !term.is_number() && !is_common(&term.word) && !SOFT.contains(&term.word.as_str()))
            .map(|term| term.text.clone())
            .collect();
        question.wanted = KINDS
            .iter()
            .filter(|(triggers, _)| triggers.iter().any(|trigger| has(trigger)))
            .flat_map(|(_, wanted)| wanted.iter().map(|word| (*word).to_owned()))
            .collect();
        let is_plural = |word: &&str| word.ends_with('s') && !word.ends_with("ss") && !is_common(word);
        let pair = |one: &[&str], then: &dyn Fn(&&str) -> bool| {
            words
                .windows(2)
                .any(|pair| matches!(pair, [first, second] if one.contains(first) && then(second)))
        };
        question.is_list = ["list", "all", "every", "each", "enumerate"]
            .iter()
            .any(|word| has(word))
            || pair(&["which", "what", "welche"], &is_plural)
            || pair(&["what", "which", "who"], &|word| *word == "are" || *word == "were")
            || pair(&["how"], &|word| *word == "many");
        let leads = |lead: &[&str]| words.starts_with(lead);
        question.refers_back = words.iter().any(|word| BACKWARD.contains(word))
            || leads(&["and"])
            || leads(&["what", "about"])
            || leads(&["how", "about"]);
        question.is_about_conversation = (["previous", "last", "earlier", "before", "repeat", "just", "again"])
            .iter()
            .any(|word| has(word))
            && (["question", "answer", "ask", "asked", "said", "conversation"])
                .iter()
                .any(|word| has(word))
            && question.bound.is_empty();
        question
    }

    fn is_empty(&self) -> bool {
        self.required.is_empty() && self.bound.is_empty() && self.free.is_empty()
    }

    /// This question, put after another one: it says what is different.
    fn after(&self, before: &Self) -> Self {
        let mut joined = self.clone();
        joined.required.extend(before.required.iter().cloned());
        joined.free.extend(before.free.iter().cloned());
        for (noun, numbers) in &before.bound {
            if !joined.bound.iter().any(|(known, _)| known == noun) {
                joined.bound.push((noun.clone(), numbers.clone()));
            }
        }
        if joined.wanted.is_empty() {
            joined.wanted.extend(before.wanted.iter().cloned());
        }
        joined.is_list |= before.is_list;
        joined
    }

    fn answer(&self, passages: &[Passage], length: usize) -> Option<Answer> {
        if self.is_empty() {
            return None;
        }
        let mut seen = BTreeSet::new();
        let mut found: Vec<(Statement, f64)> = Vec::new();
        for (index, passage) in passages.iter().enumerate() {
            for statement in statements(index, passage) {
                // Neighbours overlap, and so may documents.
                let is_new = seen.insert((passage.document.clone(), statement.text.clone(), statement.heading()));
                if let Some(score) = self.score(&statement)
                    && is_new
                {
                    found.push((statement, score));
                }
            }
        }
        let chosen = if self.is_list {
            collect(found, passages)
        } else {
            choose(found, passages)
        };
        compose(chosen, passages, self.is_list, length)
    }

    /// How well a statement answers, or `None` if it lacks a rare word or a number.
    fn score(&self, statement: &Statement) -> Option<f64> {
        let own: BTreeSet<&str> = statement.terms.iter().map(|term| term.text.as_str()).collect();
        let above: Vec<Vec<Term>> = statement.path.iter().map(|heading| terms(&heading.text)).collect();
        let in_headings = |word: &str| above.iter().flatten().any(|term| term.text == word);
        for word in self.required.iter().chain(&self.free) {
            if !own.contains(word.as_str()) && !in_headings(word) {
                return None;
            }
        }
        let mut score = 0.0;
        for (noun, wanted) in &self.bound {
            // Who speaks of a season last decides: the statement, or else the nearest heading.
            let place = std::iter::once(statement.terms.as_slice())
                .chain(above.iter().rev().map(Vec::as_slice))
                .map(|terms| numbers_of(terms, noun))
                .position_of_first_that_speaks()?;
            let (distance, numbers) = place;
            if numbers.is_disjoint(wanted) {
                return None;
            }
            if distance == 0 {
                score += 2.0;
            }
        }
        score += 2.0 * count(self.required.iter().filter(|word| own.contains(word.as_str())).count());
        score += count(self.free.iter().filter(|number| own.contains(number.as_str())).count());
        if let Some(nearest) = above.last() {
            let rare: Vec<&Term> = nearest.iter().filter(|term| !is_common(&term.word)).collect();
            let shared = rare.iter().filter(|term| self.required.contains(&term.text)).count();
            if shared > 0 {
                score += 1.0;
            }
            if shared > 0 && shared == rare.len() {
                score += 2.0;
            }
        }
        if self.wanted.iter().any(|word| own.contains(word.as_str())) {
            score += 2.0;
        }
        // `Condition: Good` says what is asked for better than a sentence that has the word somewhere.
        let name = statement
            .text
            .split_once(": ")
            .filter(|_| statement.is_record)
            .map(|(name, _)| terms(name));
        if name.is_some_and(|name| name.iter().any(|term| self.required.contains(&term.text))) {
            score += 2.5;
        }
        Some(score)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of words in a question of at most 1,000 characters"
)]
fn count(count: usize) -> f64 {
    count as f64
}

fn numbers_of(terms: &[Term], noun: &str) -> BTreeSet<String> {
    numbers(terms)
        .into_iter()
        .filter(|(of, _)| of.as_deref() == Some(noun))
        .map(|(_, number)| number)
        .collect()
}

trait FirstThatSpeaks {
    /// The first set that is not empty, with its position.
    fn position_of_first_that_speaks(self) -> Option<(usize, BTreeSet<String>)>;
}

impl<I: Iterator<Item = BTreeSet<String>>> FirstThatSpeaks for I {
    fn position_of_first_that_speaks(self) -> Option<(usize, BTreeSet<String>)> {
        self.enumerate().find(|(_, numbers)| !numbers.is_empty())
    }
}

/// One sentence, item or row, with the headings above it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Statement {
    passage: usize,
    /// Byte offset in the document.
    offset: usize,
    text: String,
    terms: Vec<Term>,
    path: Vec<Heading>,
    is_record: bool,
}

impl Statement {
    fn heading(&self) -> Option<String> {
        self.path.last().map(|heading| heading.text.clone())
    }
}

fn statements(index: usize, passage: &Passage) -> Vec<Statement> {
    let mut path = passage.chunk.path.clone();
    let mut found = Vec::new();
    for line in outline::lines(&passage.chunk.text) {
        let mut state = |text: &str, start: usize, is_record: bool, path: &[Heading]| {
            found.push(Statement {
                passage: index,
                offset: passage.chunk.offset + line.offset + start,
                text: text.to_owned(),
                terms: terms(text),
                path: path.to_vec(),
                is_record,
            });
        };
        match line.kind {
            Kind::Heading(level) => {
                if level == outline::GUESSED {
                    state(line.text, 0, false, &path);
                }
                outline::enter(
                    &mut path,
                    Heading {
                        level,
                        text: line.text.to_owned(),
                    },
                );
            }
            Kind::Record => state(line.text, 0, true, &path),
            Kind::Prose => {
                for (start, text) in sentences(line.text) {
                    state(text, start, false, &path);
                }
            }
        }
    }
    found
}

/// The sentences of a line, with their offsets in it.
fn sentences(line: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut start = 0;
    for (at, character) in line.char_indices() {
        if !matches!(character, '.' | '!' | '?') {
            continue;
        }
        let end = at + character.len_utf8();
        let rest = line.get(end..).unwrap_or_default();
        let begins_anew = rest.starts_with(' ')
            && rest
                .trim_start()
                .starts_with(|next: char| next.is_uppercase() || next.is_numeric() || next == '"');
        let so_far = line.get(start..at).unwrap_or_default();
        let last = so_far.rsplit(' ').next().unwrap_or_default();
        let is_abbreviation = character == '.'
            && (last.chars().count() == 1 && last.chars().all(char::is_uppercase)
                || [
                    "Mr", "Mrs", "Ms", "Dr", "St", "No", "vs", "etc", "e.g", "i.e", "ca", "bzw", "z.B",
                ]
                .contains(&last));
        if begins_anew && !is_abbreviation {
            if let Some(sentence) = line
                .get(start..end)
                .map(str::trim)
                .filter(|sentence| !sentence.is_empty())
            {
                found.push((start, sentence));
            }
            start = end;
        }
    }
    if let Some(sentence) = line.get(start..).map(str::trim).filter(|sentence| !sentence.is_empty()) {
        found.push((start, sentence));
    }
    found
}

/// For a list: all items and rows, in the order of the documents; sentences only where there are none of these.
fn collect(found: Vec<(Statement, f64)>, passages: &[Passage]) -> Vec<Statement> {
    let any_record = found.iter().any(|(statement, _)| statement.is_record);
    let document = |statement: &Statement| passages.get(statement.passage).map(|passage| passage.document.as_str());
    let mut documents: Vec<Option<&str>> = Vec::new();
    for (statement, _) in &found {
        let of = document(statement);
        if !documents.contains(&of) {
            documents.push(of);
        }
    }
    let mut chosen: Vec<Statement> = found
        .into_iter()
        .map(|(statement, _)| statement)
        .filter(|statement| statement.is_record || !any_record)
        .collect();
    chosen.sort_by_key(|statement| {
        let of = document(statement);
        (documents.iter().position(|known| *known == of), statement.offset)
    });
    chosen
}

/// For a single answer: the best statement, and those as good beside it.
fn choose(found: Vec<(Statement, f64)>, passages: &[Passage]) -> Vec<Statement> {
    let document = |statement: &Statement| passages.get(statement.passage).map(|passage| passage.document.clone());
    // Of equally good ones the first: passages come best first.
    let mut best: Option<&(Statement, f64)> = None;
    for candidate in &found {
        if best.is_none_or(|best| candidate.1 > best.1) {
            best = Some(candidate);
        }
    }
    let Some((best, top)) = best.cloned() else {
        return Vec::new();
    };
    let mut chosen: Vec<Statement> = found
        .into_iter()
        .filter(|(statement, score)| {
            *score >= top
                && statement.is_record == best.is_record
                && document(statement) == document(&best)
                && statement.heading() == best.heading()
        })
        .map(|(statement, _)| statement)
        .collect();
    chosen.sort_by_key(|statement| statement.offset);
    chosen.truncate(6);
    chosen
}

/// Puts statements together: what is from one passage is one part.
fn compose(chosen: Vec<Statement>, passages: &[Passage], is_list: bool, length: usize) -> Option<Answer> {
    let separator = if is_list { '\n' } else { ' ' };
    let mut parts: Vec<Part> = Vec::new();
    let mut spent = 0;
    let mut heading: Option<String> = None;
    for statement in chosen {
        let mut text = statement.text.clone();
        // A name with its value says nothing without the heading; a sentence does.
        let above = statement
            .path
            .iter()
            .rev()
            .find(|heading| heading.level > 0)
            .map(|heading| heading.text.clone());
        if statement.is_record && !is_list && heading != above {
            if let Some(above) = &above
                && passages
                    .get(statement.passage)
                    .is_some_and(|passage| passage.chunk.path.first().map(|h| &h.text) != Some(above))
            {
                text = format!("{above}: {text}");
            }
            heading = above;
        }
        spent += text.chars().count() + 1;
        if spent > length && !parts.is_empty() {
            break;
        }
        match parts.last_mut() {
            Some(part) if part.passages == [statement.passage] => {
                part.text.push_str(if is_list {
                    "\n"
                } else if statement.is_record {
                    "; "
                } else {
                    " "
                });
                part.text.push_str(&text);
            }
            _ => parts.push(Part {
                text,
                passages: vec![statement.passage],
            }),
        }
    }
    (!parts.is_empty()).then_some(Answer { parts, separator })
}

#[cfg(test)]
mod tests {
    use super::super::chunk;
    use super::super::extraction::Page;
    use super::*;

    fn passages(documents: &[(&str, &str)]) -> Vec<Passage> {
        documents
            .iter()
            .flat_map(|(document, text)| {
                chunk::split(&[Page {
                    number: None,
                    text: (*text).to_owned(),
                }])
                .unwrap()
                .into_iter()
                .map(|chunk| Passage {
                    document: (*document).to_owned(),
                    chunk,
                })
            })
            .collect()
    }

    fn said(question: &str, text: &str) -> String {
        let answer = answer(question, &[], &passages(&[("a", text)]), 10_000);
        let parts: Vec<String> = answer.parts.into_iter().map(|part| part.text).collect();
        parts.join(&answer.separator.to_string())
    }

    fn episodes(seasons: std::ops::RangeInclusive<u32>) -> String {
        let mut text = "The Lighthouse Keepers: list of episodes\n\n".to_owned();
        for season in seasons {
            for episode in 1..=9 {
                text.push_str(&format!(
                    "Season {season}, Episode {episode}: Story {season}x{episode} (aired May {episode}, 201{season})\n"
                ));
            }
        }
        text
    }

    const SURVEY: &str = "# Home Survey\n\n## Property Information\n\nAddress: 12 Example Street, Anytown\n\
        Survey Date: June 1, 2023\nSurveyor: Alex Example\n\n## Roof\n\nType: Asphalt shingles\nEstimated Age: 8 years\n\
        Condition: Good\nNotes: A few missing shingles.\n\n## Siding\n\nType: Vinyl\nCondition: Fair\n\n\
        ## Recommendations\n\n- Repair the missing roof shingles\n- Replace siding\n";

    #[test]
    fn a_list_of_a_season_is_complete_and_has_nothing_of_another() {
        for question in [
            "Which episodes does season 2 have?",
            "List the episodes of season two",
            "What are the episodes of the second season?",
            "How many episodes does Season 2 of The Lighthouse Keepers have?",
        ] {
            let answer = said(question, &episodes(1..=4));
            assert_eq!(answer.lines().count(), 9, "{question}: {answer}");
            assert!(
                answer.lines().all(|line| line.starts_with("Season 2,")),
                "{question}: {answer}"
            );
        }
    }

    #[test]
    fn a_season_that_is_not_there_has_no_answer() {
        for question in [
            "Which episodes does season 2 have?",
            "List all episodes of season 2",
            "What happens in season two?",
        ] {
            assert_eq!(said(question, &episodes(1..=1)), NO_ANSWER, "{question}");
        }
        assert_eq!(
            said("Which episodes does season 1 have?", &episodes(1..=1))
                .lines()
                .count(),
            9
        );
    }

    #[test]
    fn rows_and_headings_say_the_season_too() {
        let rows = "# Episodes\n\nSeason: 1 | Episode: 2 | Title: Fog\nSeason: 2 | Episode: 1 | Title: Ice\n";
        assert_eq!(
            said("Which episodes does season 2 have?", rows),
            "Season: 2 | Episode: 1 | Title: Ice"
        );
        let headings = "# Episodes\n\n## Season 1\n\n- Fog\n- Rain\n\n## Season 2\n\n- Ice\n- Snow\n";
        assert_eq!(said("List the episodes of season 2", headings), "Ice\nSnow");
        assert_eq!(
            said("What is the title of the first episode of season 2?", rows),
            "Episodes: Season: 2 | Episode: 1 | Title: Ice"
        );
    }

    #[test]
    fn a_survey_answers_for_address_surveyor_and_roof() {
        assert_eq!(
            said("What is the address of the property?", SURVEY),
            "Property Information: Address: 12 Example Street, Anytown"
        );
        assert_eq!(
            said("Who is the surveyor?", SURVEY),
            "Property Information: Surveyor: Alex Example"
        );
        assert_eq!(
            said("What is the roof made of?", SURVEY),
            "Roof: Type: Asphalt shingles"
        );
        assert_eq!(said("What condition is the roof in?", SURVEY), "Roof: Condition: Good");
        let noted = SURVEY.replace("A few missing shingles.", "A roof in fair condition.");
        assert_eq!(said("What condition is the roof in?", &noted), "Roof: Condition: Good");
        assert_eq!(said("How old is the roof?", SURVEY), "Roof: Estimated Age: 8 years");
        assert_eq!(
            said("Where is the property?", SURVEY),
            "Property Information: Address: 12 Example Street, Anytown"
        );
        assert_eq!(
            said("What are the recommendations?", SURVEY),
            "Repair the missing roof shingles\nReplace siding"
        );
        assert_eq!(said("What is the swimming pool made of?", SURVEY), NO_ANSWER);
    }

    #[test]
    fn every_number_and_rare_word_must_be_there() {
        let text = "The warranty code is zebra-7431. It was issued in 2019 by Dr. Example.\n";
        assert_eq!(
            said("What is the warranty code?", text),
            "The warranty code is zebra-7431."
        );
        assert_eq!(
            said("What was issued in 2019?", text),
            "It was issued in 2019 by Dr. Example."
        );
        assert_eq!(said("What was issued in 2020?", text), NO_ANSWER);
        assert_eq!(said("What is the insurance code?", text), NO_ANSWER);
        assert_eq!(said("What is it?", text), NO_ANSWER);
        let alone = "Notes\n\nThe gate code is 7431\n\nThe garden is large.\n";
        assert_eq!(said("What is the gate code?", alone), "The gate code is 7431");
    }

    #[test]
    fn a_follow_up_takes_over_the_words_before() {
        let passages = passages(&[("a", &episodes(1..=3))]);
        let history = [Turn {
            question: "Which episodes does season 1 have?".to_owned(),
            answer: "…".to_owned(),
        }];
        let answer_to = |question: &str| {
            answer(question, &history, &passages, 10_000)
                .parts
                .into_iter()
                .map(|part| part.text)
                .collect::<String>()
        };
        assert!(answer_to("And season 3?").starts_with("Season 3, Episode 1"));
        assert!(answer_to("When were they aired?").starts_with("Season 1, Episode 1"));
        assert!(answer_to("What did I ask before?").contains("Which episodes does season 1 have?"));
        assert_eq!(
            answer("When were they aired?", &[], &passages, 100).parts[0].text,
            NO_ANSWER
        );
    }

    #[test]
    fn parts_name_their_passages_and_the_length_is_kept() {
        let passages = passages(&[
            ("a", &episodes(1..=4)),
            ("b", "Season 9 has one episode, called The End.\n"),
        ]);
        let answer = super::answer("Which episodes does season 9 have?", &[], &passages, 10_000);
        assert_eq!(answer.parts.len(), 1);
        assert_eq!(passages[answer.parts[0].passages[0]].document, "b");
        let short = super::answer("Which episodes does season 1 have?", &[], &passages, 100);
        assert!(short.parts.iter().map(|part| part.text.len()).sum::<usize>() <= 100);
    }
}
