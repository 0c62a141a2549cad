//! A streamed answer, shown at the terminal as it comes.

use std::io::Write as _;

use anyhow::{Context as _, bail};
use eventsource_stream::Eventsource as _;
use futures::{Stream, StreamExt as _};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::client::{Client, problem};
use super::question::{Source, sources_line, sources_of};

/// What begins every line of an answer.
const MARGIN: &str = "  ";

/// Asks a question through the gateway and writes the answer while it comes; true if it came to its end.
pub(super) async fn ask(client: &Client, token: &str, question: &str) -> anyhow::Result<bool> {
    let response = client
        .stream("/genai/query/stream", token, &json!({"user_query": question}))
        .await?;
    let status = response.status();
    if status != StatusCode::OK {
        let body = serde_json::from_slice(&response.bytes().await?).unwrap_or(Value::Null);
        write(&format!("{MARGIN}{} {}\n", status.as_u16(), problem(&body)));
        return Ok(false);
    }
    let events = response.bytes_stream().eventsource().map(|event| {
        let event = event.context("the stream broke off")?;
        let data = serde_json::from_str(&event.data).context("an event whose data is not JSON")?;
        Ok((event.event, data))
    });
    tell(events, write).await
}

/// Writes to standard output at once. A reader that has gone is no failure of ours.
fn write(text: &str) {
    let mut output = std::io::stdout().lock();
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}

async fn tell(
    events: impl Stream<Item = anyhow::Result<(String, Value)>>,
    mut write: impl FnMut(&str),
) -> anyhow::Result<bool> {
    let mut events = std::pin::pin!(events);
    let mut telling = Telling::default();
    write(MARGIN);
    while let Some(event) = events.next().await {
        let (name, data) = event.inspect_err(|_| write("\n"))?;
        write(&telling.take(&name, &data));
        if let Some(good) = telling.ended {
            if !telling.sources.is_empty() {
                write(&format!("\n{MARGIN}{}", sources_line(&telling.sources)));
            }
            write("\n");
            return Ok(good);
        }
    }
    write("\n");
    bail!("the stream ended without its last event")
}

/// How far an answer has been told.
#[derive(Default)]
struct Telling {
    text: String,
    sources: Vec<Source>,
    /// Whether it ended well, once it has ended.
    ended: Option<bool>,
}

impl Telling {
    /// Takes an event in, and gives what is to be written.
    fn take(&mut self, name: &str, data: &Value) -> String {
        let text = data.get("text").and_then(Value::as_str);
        match name {
            "delta" => {
                let text = text.unwrap_or_default();
                self.text.push_str(text);
                with_margin(text)
            }
            "citation" => {
                sources_of(data, &mut self.sources);
                String::new()
            }
            "guardrail" => self.replace(text),
            "done" => {
                self.ended = Some(true);
                self.replace(text)
            }
            "error" => {
                self.ended = Some(false);
                let break_line = if self.text.is_empty() { "" } else { "\n" };
                format!("{break_line}{}", problem(data))
            }
            _ => String::new(),
        }
    }

    /// Something else takes the place of all that was told.
    fn replace(&mut self, text: Option<&str>) -> String {
        let Some(text) = text.filter(|text| *text != self.text) else {
            return String::new();
        };
        let told = std::mem::replace(&mut self.text, text.to_owned());
        self.sources.clear();
        if told.is_empty() {
            with_margin(text)
        } else {
            format!("\n{MARGIN}(withdrawn; instead:)\n{MARGIN}{}", with_margin(text))
        }
    }
}

/// The text with a margin in every line but the first. What would steer the terminal is left out.
fn with_margin(text: &str) -> String {
    let is_shown = |character: &char| *character == '\n' || !character.is_control();
    let shown: String = text.chars().filter(is_shown).collect();
    shown.replace('\n', &format!("\n{MARGIN}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn told(events: &[(&str, Value)]) -> (Option<bool>, String) {
        let events: Vec<anyhow::Result<(String, Value)>> = events
            .iter()
            .map(|(name, data)| Ok(((*name).to_owned(), data.clone())))
            .collect();
        let mut written = String::new();
        let ended = tell(futures::stream::iter(events), |text| written.push_str(text)).await;
        (ended.ok(), written)
    }

    fn delta(text: &str) -> (&'static str, Value) {
        ("delta", json!({ "text": text }))
    }

    #[tokio::test]
    async fn an_answer_is_told_with_its_sources() {
        let citation = json!({"retrievedReferences": [{"metadata": {"title": "episodes.pdf"}}]});
        let events = [
            ("session", json!({"session_id": "s"})),
            delta("One\ntwo"),
            ("citation", citation.clone()),
            delta(" three\u{1b}[2J"),
            ("citation", citation),
            ("usage", json!({})),
            ("done", json!({"guardrail_action": "NONE"})),
            delta("never"),
        ];
        let expected = "  One\n  two three[2J\n  [episodes.pdf]\n";
        assert_eq!(told(&events).await, (Some(true), expected.to_owned()));

        let passage = |number: u64, title: &str| json!({"metadata": {"title": title, "number": number}});
        let citation = json!({"retrievedReferences": [passage(2, "a.md"), passage(1, "b.md"), passage(2, "a.md")]});
        let events = [
            delta("One [2][1]."),
            ("citation", citation),
            ("done", json!({"guardrail_action": "NONE"})),
        ];
        assert_eq!(told(&events).await.1, "  One [2][1].\n  [2] a.md  [1] b.md\n");
    }

    #[tokio::test]
    async fn what_is_replaced_is_withdrawn() {
        let blocked = ("guardrail", json!({"action": "INTERVENED", "text": "Not that."}));
        let done = ("done", json!({"guardrail_action": "INTERVENED"}));
        let (_, written) = told(&[delta("One"), blocked.clone(), done.clone()]).await;
        assert_eq!(written, "  One\n  (withdrawn; instead:)\n  Not that.\n");
        assert_eq!(told(&[blocked, done]).await.1, "  Not that.\n");
        let no_answer = ("done", json!({"guardrail_action": "NONE", "text": "No exact answer."}));
        assert_eq!(told(&[no_answer]).await.1, "  No exact answer.\n");
    }

    #[tokio::test]
    async fn a_stream_that_fails_is_no_success() {
        let error = ("error", json!({"detail": "Suspended.", "code": "tenant_suspended"}));
        let expected = "  One\nSuspended. (tenant_suspended)\n";
        assert_eq!(told(&[delta("One"), error]).await, (Some(false), expected.to_owned()));
        assert_eq!(told(&[delta("One")]).await, (None, "  One\n".to_owned()));
    }
}
