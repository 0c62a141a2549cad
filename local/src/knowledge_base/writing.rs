//! Answers of RetrieveAndGenerate that a language model writes, where the stack has been given one.
//!
//! The prompt template is filled as Bedrock fills it
//! (<https://docs.aws.amazon.com/bedrock/latest/userguide/kb-test-config.html>), in one pass. How Bedrock has a model cite
//! is its secret; here it is asked for `[n]` behind every statement, and the markers are taken out again. The orchestration
//! template is not used: a search that follows another one is made of their words.

use super::generation::{Answer, Part, Passage};

/// The prompt where a request has none.
const TEMPLATE: &str = "Answer the question from the passages, and from nothing else. If they do not hold the answer, say \
                        that no exact answer was found.\n\n$search_results$\n\nQuestion:\n$query$\n\n\
                        $output_format_instructions$";

/// What stands for the way to cite.
const INSTRUCTIONS: &str = "Behind every statement, name the passage that it rests on by its number in square brackets, \
                            as in [2], or several as in [1][3]. Use square brackets for nothing else.";

/// The template with passages and question in it. A template without a place for the question has it at its end.
#[must_use]
pub fn prompt(template: Option<&str>, question: &str, passages: &[Passage]) -> String {
    let numbered: Vec<String> = passages
        .iter()
        .zip(1..)
        .map(|(passage, number): (_, usize)| {
            format!("<passage number=\"{number}\">\n{}\n</passage>", passage.chunk.text)
        })
        .collect();
    let values = [
        ("$search_results$", numbered.join("\n")),
        ("$query$", question.to_owned()),
        ("$output_format_instructions$", INSTRUCTIONS.to_owned()),
    ];
    let template = template.unwrap_or(TEMPLATE);
    let mut prompt = String::new();
    let mut rest = template;
    while let Some((at, name, value)) = values
        .iter()
        .filter_map(|(name, value)| Some((rest.find(name)?, name, value)))
        .min_by_key(|(at, ..)| *at)
    {
        let (before, after) = rest.split_at_checked(at).unwrap_or((rest, ""));
        prompt.push_str(before);
        prompt.push_str(value);
        rest = after.strip_prefix(name).unwrap_or_default();
    }
    prompt.push_str(rest);
    if !template.contains("$query$") {
        prompt.push_str("\n\n");
        prompt.push_str(question);
    }
    prompt
}

/// The answer that a text with markers is; `known` is how many passages there were.
#[must_use]
pub fn answer(text: &str, known: usize) -> Answer {
    let mut parts: Vec<Part> = Vec::new();
    let mut statement = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('[') {
        statement.push_str(before);
        let marker = after
            .split_once(']')
            .and_then(|(inside, after)| Some((numbers(inside)?, after)));
        if let Some((numbers, after)) = marker {
            let passages = numbers.into_iter().filter(|number| (1..=known).contains(number));
            add(
                &mut parts,
                &std::mem::take(&mut statement),
                passages.map(|number| number - 1).collect(),
            );
            rest = after;
        } else {
            statement.push('[');
            rest = after;
        }
    }
    statement.push_str(rest);
    add(&mut parts, &statement, Vec::new());
    if parts.is_empty() {
        parts.push(Part {
            text: String::new(),
            passages: Vec::new(),
        });
    }
    Answer {
        parts,
        separator: if text.trim().contains('\n') { '\n' } else { ' ' },
    }
}

/// Adds what stands before a marker. Where nothing does but the end of a sentence, it belongs to the part before.
fn add(parts: &mut Vec<Part>, statement: &str, passages: Vec<usize>) {
    let mut text = statement.trim();
    if let Some(last) = parts.last_mut() {
        let said = text.trim_start_matches(['.', '!', '?', ',', ';', ':']);
        last.text.push_str(text.strip_suffix(said).unwrap_or_default());
        text = said.trim_start();
        if text.is_empty() {
            last.passages.extend(passages);
            return;
        }
    }
    if !text.is_empty() {
        parts.push(Part {
            text: text.to_owned(),
            passages,
        });
    }
}

/// The numbers of a marker, `1` or `1, 3`, or `None` if it is none.
fn numbers(inside: &str) -> Option<Vec<usize>> {
    inside.split(',').map(|number| number.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::chunk::Chunk;
    use super::*;

    fn passage(text: &str) -> Passage {
        Passage {
            document: "s3://documents/t/acme/1.txt".to_owned(),
            chunk: Chunk {
                ordinal: 0,
                offset: 0,
                page: None,
                path: Vec::new(),
                text: text.to_owned(),
            },
        }
    }

    #[test]
    fn a_template_is_filled_in_one_pass() {
        let passages = [passage("One $query$."), passage("Two.")];
        let filled = prompt(
            Some("Q: $query$\nP: $search_results$!"),
            "Who $search_results$?",
            &passages,
        );
        assert_eq!(
            filled,
            "Q: Who $search_results$?\nP: <passage number=\"1\">\nOne $query$.\n</passage>\n<passage \
             number=\"2\">\nTwo.\n</passage>!"
        );
        assert!(prompt(Some("$search_results$"), "Who?", &[]).ends_with("\n\nWho?"));
        assert!(prompt(None, "Who?", &passages).contains("square brackets"));
    }

    #[track_caller]
    fn check(text: &str, expected: &[(&str, &[usize])]) {
        let answer = answer(text, 3);
        let parts: Vec<(&str, &[usize])> = answer
            .parts
            .iter()
            .map(|part| (part.text.as_str(), part.passages.as_slice()))
            .collect();
        assert_eq!(parts, expected, "{text}");
    }

    #[test]
    fn markers_become_citations() {
        check("One. [1] Two. [2][3]", &[("One.", &[0]), ("Two.", &[1, 2])]);
        check("One [1, 3].", &[("One.", &[0, 2])]);
        check("One. [9]", &[("One.", &[])]);
        check("[1] One.", &[("One.", &[])]);
        check("Nothing [sic] was found.", &[("Nothing [sic] was found.", &[])]);
        check("One [1]. Rest", &[("One.", &[0]), ("Rest", &[])]);
        check("", &[("", &[])]);
    }
}
