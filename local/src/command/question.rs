//! A question and its answer, as they are shown at the terminal.

use std::fmt;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::client::{Client, problem};

/// What a question was answered.
pub(super) struct Answer {
    /// The gateway's status.
    pub(super) status: StatusCode,
    /// The answer, or the problem in one line.
    pub(super) text: String,
    /// What it cites, each once.
    pub(super) sources: Vec<Source>,
}

/// A document that an answer cites.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// The number that stands for it in the text, where there are such.
    number: Option<u64>,
    title: String,
}

/// Asks a question through the gateway.
pub(super) async fn ask(client: &Client, token: &str, question: &str) -> anyhow::Result<Answer> {
    let (status, body) = client
        .call(
            Method::POST,
            "/genai/query",
            token,
            Some(json!({"user_query": question})),
        )
        .await?;
    if status != StatusCode::OK {
        return Ok(Answer {
            status,
            text: problem(&body),
            sources: Vec::new(),
        });
    }
    let answer = body.pointer("/output/text").and_then(Value::as_str).unwrap_or_default();
    let mut sources = Vec::new();
    for citation in body.get("citations").and_then(Value::as_array).into_iter().flatten() {
        sources_of(citation, &mut sources);
    }
    Ok(Answer {
        status,
        text: answer.to_owned(),
        sources,
    })
}

/// Adds what a citation refers to, as far as it is new.
pub(super) fn sources_of(citation: &Value, sources: &mut Vec<Source>) {
    let references = citation.get("retrievedReferences").and_then(Value::as_array);
    for reference in references.into_iter().flatten() {
        let title = reference.pointer("/metadata/title").and_then(Value::as_str);
        let source = Source {
            number: reference.pointer("/metadata/number").and_then(Value::as_u64),
            title: title.unwrap_or("untitled").to_owned(),
        };
        if !sources.contains(&source) {
            sources.push(source);
        }
    }
}

/// Sources in one line: `[1] one.pdf  [3] two.md` where the text has numbers, else `[one.pdf, two.md]`.
pub(super) fn sources_line(sources: &[Source]) -> String {
    let numbered: Option<Vec<String>> = sources
        .iter()
        .map(|source| source.number.map(|number| format!("[{number}] {}", source.title)))
        .collect();
    numbered.map_or_else(
        || {
            let titles: Vec<&str> = sources.iter().map(|source| source.title.as_str()).collect();
            format!("[{}]", titles.join(", "))
        },
        |numbered| numbered.join("  "),
    )
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.status != StatusCode::OK {
            write!(f, "  {} ", self.status.as_u16())?;
        }
        for (number, line) in self.text.lines().enumerate() {
            let margin = if number == 0 && self.status != StatusCode::OK {
                ""
            } else {
                "  "
            };
            let end = if number + 1 == self.text.lines().count() {
                ""
            } else {
                "\n"
            };
            write!(f, "{margin}{line}{end}")?;
        }
        if !self.sources.is_empty() {
            write!(f, "\n  {}", sources_line(&self.sources))?;
        }
        Ok(())
    }
}
