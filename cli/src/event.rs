//! Server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>) as a deployment sends them:
//! each with an id, a name, and JSON as data.

use std::pin::Pin;

use anyhow::Context as _;
use eventsource_stream::Eventsource as _;
use futures::{Stream, StreamExt as _};
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::deployment::Answer;

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its id, as it was sent.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its data.
    pub data: Value,
}

impl Event {
    /// Whether no other event may follow.
    pub fn is_terminal(&self) -> bool {
        matches!(self.name.as_str(), "done" | "error")
    }

    fn read(event: eventsource_stream::Event) -> anyhow::Result<Self> {
        let data = serde_json::from_str(&event.data).with_context(|| format!("the data of `{}`", event.event))?;
        Ok(Self {
            id: event.id,
            name: event.event,
            data,
        })
    }
}

/// The events of an answer that was read to its end.
///
/// # Errors
/// The body is no stream of events with JSON as data.
pub fn read(body: &[u8]) -> anyhow::Result<Vec<Event>> {
    let chunks = futures::stream::iter([Ok::<_, std::convert::Infallible>(body)]);
    let events = chunks
        .eventsource()
        .map(|event| Event::read(event.context("not a stream of events")?));
    futures::executor::block_on(events.collect::<Vec<_>>())
        .into_iter()
        .collect()
}

/// The text that the `delta` events make up, or what a `guardrail` or a `done` event put in its place.
pub fn text(events: &[Event]) -> String {
    events.iter().fold(String::new(), |text, event| {
        let said = event.data.get("text").and_then(Value::as_str);
        match (event.name.as_str(), said) {
            ("delta", Some(said)) => text + said,
            ("guardrail" | "done", Some(said)) => said.to_owned(),
            _ => text,
        }
    })
}

/// An answer that is still arriving.
pub struct Events {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    stream: Pin<Box<dyn Stream<Item = anyhow::Result<Event>> + Send>>,
}

impl Events {
    pub(crate) fn new(answer: reqwest::Response) -> Self {
        let (status, headers) = (answer.status(), answer.headers().clone());
        let stream = answer
            .bytes_stream()
            .eventsource()
            .map(|event| Event::read(event.context("the stream broke")?));
        Self {
            status,
            headers,
            stream: Box::pin(stream),
        }
    }

    /// The next event; `None` at the end.
    ///
    /// # Errors
    /// The connection broke, or what came is no event with JSON as data.
    pub async fn next(&mut self) -> anyhow::Result<Option<Event>> {
        self.stream.next().await.transpose()
    }

    /// All events that are still to come.
    ///
    /// # Errors
    /// As for [`Events::next`].
    pub async fn rest(mut self) -> anyhow::Result<Vec<Event>> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await? {
            events.push(event);
        }
        Ok(events)
    }
}

impl Answer {
    /// Whether it is a stream of events.
    pub fn is_event_stream(&self) -> bool {
        let media_type = self.headers.get("content-type").and_then(|value| value.to_str().ok());
        media_type.is_some_and(|media_type| media_type.starts_with("text/event-stream"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_separates_lines_elsewhere_is_data_here() {
        let body = "id: 1\nevent: delta\ndata: {\"text\":\"a\\r\\ndata: b\u{2028}c\"}\n\n: \n\nid: 2\nevent: done\ndata: {}\n\n";
        let events = read(body.as_bytes()).unwrap();
        assert_eq!(events.len(), 2);
        assert_eq!(events[0].data, json!({"text": "a\r\ndata: b\u{2028}c"}));
        assert!(!events[0].is_terminal() && events[1].is_terminal());
        assert_eq!(text(&events), "a\r\ndata: b\u{2028}c");
        assert!(read(b"event: delta\ndata: {\n\n").is_err());
    }

    #[test]
    fn a_guardrails_text_replaces_what_was_said() {
        let event = |name: &str, said: &str| Event {
            id: String::new(),
            name: name.to_owned(),
            data: json!({"text": said}),
        };
        let events = [
            event("delta", "Bad w"),
            event("delta", "ord"),
            event("guardrail", "No."),
        ];
        assert_eq!(text(&events), "No.");
    }
}
