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
    /// The titles of the documents that it cites, each once.
    pub(super) sources: Vec<String>,
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
    let mut sources: Vec<String> = Vec::new();
    for citation in body.get("citations").and_then(Value::as_array).into_iter().flatten() {
        sources_of(citation, &mut sources);
    }
    Ok(Answer {
        status,
        text: answer.to_owned(),
        sources,
    })
}

/// Adds the titles of the documents that a citation refers to, those that are new.
pub(super) fn sources_of(citation: &Value, sources: &mut Vec<String>) {
    let references = citation.get("retrievedReferences").and_then(Value::as_array);
    for reference in references.into_iter().flatten() {
        let title = reference
            .pointer("/metadata/title")
            .and_then(Value::as_str)
            .unwrap_or("untitled");
        if !sources.iter().any(|source| source == title) {
            sources.push(title.to_owned());
        }
    }
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
            write!(f, "\n  [{}]", self.sources.join(", "))?;
        }
        Ok(())
    }
}
