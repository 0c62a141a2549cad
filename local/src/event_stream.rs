//! AWS's event streams: frames with headers, a payload and checksums, as streaming operations answer with them.
//!
//! <https://docs.aws.amazon.com/transcribe/latest/dg/event-stream.html> and
//! <https://smithy.io/2.0/aws/amazon-eventstream.html> describe the format. Signed frames are not here: only requests
//! have them.

use std::time::Duration;

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use http::Response;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};

use crate::front_door::ServiceBody;

/// The media type of an answer of frames.
pub const MEDIA_TYPE: &str = "application/vnd.amazon.eventstream";

/// One event in its frame. Empty, and logged, where it can't be framed: above 16 MiB.
#[must_use]
pub fn event(kind: &str, payload: &Value) -> Bytes {
    frame(
        &[
            (":event-type", kind),
            (":content-type", "application/json"),
            (":message-type", "event"),
        ],
        payload,
    )
}

/// The event that ends a stream with an exception of the operation's model, for example `throttlingException`. It is
/// named by its member in the model, which begins with a small letter.
#[must_use]
pub fn exception(kind: &str, message: &str) -> Bytes {
    frame(
        &[
            (":exception-type", kind),
            (":content-type", "application/json"),
            (":message-type", "exception"),
        ],
        &json!({ "message": message }),
    )
}

fn frame(headers: &[(&'static str, &str)], payload: &Value) -> Bytes {
    let headers = headers
        .iter()
        .map(|(name, value)| Header::new(*name, HeaderValue::String((*value).to_owned().into())))
        .collect();
    let mut framed = Vec::new();
    match write_message_to(
        &Message::new_from_parts(headers, payload.to_string().into_bytes()),
        &mut framed,
    ) {
        Ok(()) => framed.into(),
        Err(error) => {
            tracing::error!(%error, "an event can't be framed");
            Bytes::new()
        }
    }
}

/// An answer of events, each of them one frame.
pub fn response(events: impl Stream<Item = Bytes> + Send + 'static) -> Response<ServiceBody> {
    let mut response = Response::new(ServiceBody::Events(events.boxed()));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, http::HeaderValue::from_static(MEDIA_TYPE));
    response
}

/// How fast a model speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pace {
    /// From the request to the first piece.
    pub first: Duration,
    /// From one piece to the next.
    pub next: Duration,
}

impl Pace {
    /// All at once.
    pub const AT_ONCE: Self = Self {
        first: Duration::ZERO,
        next: Duration::ZERO,
    };

    /// That many pieces per second; 0 for all at once.
    #[must_use]
    pub fn per_second(pieces: u32) -> Self {
        let next = Duration::from_secs(1).checked_div(pieces).unwrap_or_default();
        Self { first: next, next }
    }

    /// Waits until the piece of this number, from 0, is due.
    pub async fn wait(&self, number: usize) {
        let wait = if number == 0 { self.first } else { self.next };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

/// The pieces that a text is said in: words, each with the white space before it. Put together they are the text.
pub fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let word = rest.len() - rest.trim_start().len();
        let after_word = rest.get(word..)?.find(char::is_whitespace).map(|length| word + length);
        let end = after_word.filter(|end| rest.get(*end..).is_some_and(|after| !after.trim().is_empty()));
        let (piece, after) = rest.split_at_checked(end.unwrap_or(rest.len()))?;
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_smithy_eventstream::frame::read_message_from;

    #[test]
    fn frames_are_read_by_awss_own_reader() {
        let message = read_message_from(event("output", &json!({"text": "a\u{2028}b"}))).unwrap();
        let header = |name: &str| {
            let header = message.headers().iter().find(|header| header.name().as_str() == name);
            header.unwrap().value().as_string().unwrap().as_str().to_owned()
        };
        assert_eq!(
            (header(":message-type"), header(":event-type")),
            ("event".to_owned(), "output".to_owned())
        );
        assert_eq!(message.payload().as_ref(), "{\"text\":\"a\u{2028}b\"}".as_bytes());

        let message = read_message_from(exception("throttlingException", "Slow down.")).unwrap();
        let names = message.headers().iter().map(|header| header.name().as_str());
        assert!(names.into_iter().any(|name| name == ":exception-type"));
    }

    #[test]
    fn pieces_make_up_the_text() {
        for text in ["", " ", "one", " one two\n\nthree  ", "á\u{2028}ß\r\n日本 語"] {
            assert_eq!(pieces(text).collect::<String>(), text);
        }
        assert_eq!(pieces("a b  c ").collect::<Vec<_>>(), ["a", " b", "  c "]);
    }

    #[test]
    fn a_pace_is_so_many_pieces_per_second() {
        assert_eq!(Pace::per_second(20).next, Duration::from_millis(50));
        assert_eq!(Pace::per_second(0), Pace::AT_ONCE);
    }
}
