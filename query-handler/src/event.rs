//! Answers as server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
//!
//! Two ends of one stream. Whoever makes the answer has the [`Feed`]: it sends pieces and is used up by its end. The
//! function's answer is the [`Body`]: it writes the pieces as events, and after the last one exactly one `done` or `error`,
//! because that is what it says once the feed is gone, however it went. Nothing here can fail: a body that does would
//! have its error's text sent to the client.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bulkhead_core::error::Error;
use bulkhead_core::service;
use bulkhead_core::session::SessionHandle;
use bulkhead_core::tenant::TenantId;
use bulkhead_core::time::Clock;
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Sleep, sleep};
use tokio_stream::Stream;

use crate::answer::{Citation, GuardrailAction, Piece, Usage};

/// A comment: no event, and enough to keep what is on the way from taking the stream for dead.
const HEARTBEAT: &[u8] = b": \n\n";
/// How often an empty piece shows whether there still is somebody to send to. What notices is to stop within a second.
const PROBE: Duration = Duration::from_millis(500);
/// How many pieces may wait for a reader who is slower than the model.
const BUFFER: usize = 16;

/// How an answer that has been made ends.
#[derive(Debug)]
pub struct Done {
    /// What it took.
    pub usage: Usage,
    /// Whether a guardrail changed or stopped it.
    pub guardrail_action: GuardrailAction,
}

/// Where an answer's pieces go. Dropping it without [`Feed::end`] ends the stream with an error.
#[derive(Debug)]
pub struct Feed {
    pieces: mpsc::Sender<Message>,
    end: oneshot::Sender<Result<Done, Error>>,
    begun: bool,
    tenant: TenantId,
    clock: Clock,
}

#[derive(Debug)]
enum Message {
    Begin { context_reset: bool },
    Piece(Piece),
}

/// A stream's body.
pub struct Body {
    pieces: mpsc::Receiver<Message>,
    end: oneshot::Receiver<Result<Done, Error>>,
    /// What was taken from the feed and not written yet.
    first: Option<Message>,
    /// How it ended, if that is known and not written yet.
    outcome: Option<Result<Done, Error>>,
    /// The conversation, until it was named.
    session: Option<SessionHandle>,
    /// What is said instead of all text, at the end.
    instead: Option<String>,
    frames: Frames,
    request_id: String,
    heartbeat: Duration,
    silence: Pin<Box<Sleep>>,
    probe: Pin<Box<Sleep>>,
    ended: bool,
    tenant: TenantId,
    clock: Clock,
}

/// The two ends of a stream of the conversation `session`, if it belongs to one, for a question of `tenant`'s.
pub fn stream(
    session: Option<SessionHandle>,
    request_id: &str,
    tenant: &TenantId,
    heartbeat: Duration,
    clock: &Clock,
) -> (Feed, Body) {
    let (pieces, received) = mpsc::channel(BUFFER);
    let (end, ended) = oneshot::channel();
    let feed = Feed {
        pieces,
        end,
        begun: false,
        tenant: tenant.clone(),
        clock: clock.clone(),
    };
    let body = Body {
        pieces: received,
        end: ended,
        first: None,
        outcome: None,
        session,
        instead: None,
        frames: Frames::default(),
        request_id: request_id.to_owned(),
        heartbeat,
        silence: Box::pin(sleep(heartbeat)),
        probe: Box::pin(sleep(PROBE)),
        ended: false,
        tenant: tenant.clone(),
        clock: clock.clone(),
    };
    (feed, body)
}

impl Feed {
    /// Sends a piece, waiting for a slow reader. `context_reset` is told before the first one. Whether anybody reads makes
    /// no difference: [`Feed::reader_gone`] says so.
    pub async fn send(&mut self, piece: Piece, context_reset: bool) {
        if !self.begun {
            self.begun = true;
            let _ = self.pieces.send(Message::Begin { context_reset }).await;
        }
        let _ = self.pieces.send(Message::Piece(piece)).await;
    }

    /// Comes back once nobody reads any more. As long as it is waited for, the stream can't end.
    pub fn reader_gone(&self) -> impl Future<Output = ()> + Send + use<> {
        let pieces = self.pieces.clone();
        async move { pieces.closed().await }
    }

    /// Ends the stream. An error that no reader will see is reported here.
    pub fn end(self, outcome: Result<Done, Error>) {
        if let Err(Err(error)) = self.end.send(outcome) {
            service::report(&error, Some(self.tenant.as_str()), &self.clock);
        }
    }
}

impl Body {
    /// Waits until there is something to say, at most `longest`.
    ///
    /// # Errors
    /// What the answer failed with before it had anything to say: that can still be an ordinary problem.
    pub async fn begin(&mut self, longest: Duration) -> Result<(), Error> {
        let first = async {
            match self.pieces.recv().await {
                Some(message) => {
                    self.first = Some(message);
                    Ok(())
                }
                None => match (&mut self.end).await {
                    Ok(Ok(done)) => {
                        self.outcome = Some(Ok(done));
                        Ok(())
                    }
                    Ok(Err(error)) => Err(error),
                    Err(_) => Err(abandoned()),
                },
            }
        };
        let begun = tokio::time::timeout(longest, first).await;
        begun.unwrap_or(Ok(()))
    }

    fn write(&mut self, message: Message) -> Bytes {
        match message {
            Message::Begin { context_reset } => self.introduction(context_reset),
            Message::Piece(Piece::Delta(text)) => self.frames.frame("delta", &Delta { text: &text }),
            Message::Piece(Piece::Citation(citation)) => self.frames.frame::<Citation>("citation", &citation),
            Message::Piece(Piece::Guardrail(text)) => self.frames.frame(
                "guardrail",
                &Guardrail {
                    action: GuardrailAction::Intervened,
                    text: &text,
                },
            ),
            Message::Piece(Piece::Instead(text)) => {
                self.instead = Some(text);
                Bytes::new()
            }
        }
    }

    /// The event that names the conversation, if there is one and it has not been named.
    fn introduction(&mut self, context_reset: bool) -> Bytes {
        match self.session.take() {
            Some(session_id) => self.frames.frame(
                "session",
                &Session {
                    session_id,
                    context_reset,
                },
            ),
            None => Bytes::new(),
        }
    }

    fn write_end(&mut self, outcome: Result<Done, Error>) -> Bytes {
        let introduction = self.introduction(false);
        let end = match outcome {
            Ok(done) => {
                let usage = self.frames.frame("usage", &done.usage);
                let terminal = Terminal {
                    guardrail_action: done.guardrail_action,
                    text: self.instead.take(),
                };
                [usage, self.frames.frame("done", &terminal)].concat()
            }
            Err(error) => {
                service::report(&error, Some(self.tenant.as_str()), &self.clock);
                self.frames.frame("error", &error.problem(&self.request_id)).into()
            }
        };
        [introduction.as_ref(), &end].concat().into()
    }
}

impl Stream for Body {
    type Item = Bytes;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let message = match this.first.take() {
            Some(message) => Poll::Ready(Some(message)),
            None => this.pieces.poll_recv(context),
        };
        let bytes = match message {
            Poll::Ready(Some(message)) => Some(this.write(message)),
            Poll::Ready(None) => {
                let outcome = match this.outcome.take() {
                    Some(outcome) => Poll::Ready(outcome),
                    None => Pin::new(&mut this.end)
                        .poll(context)
                        .map(|end| end.unwrap_or_else(|_| Err(abandoned()))),
                };
                match outcome {
                    Poll::Ready(outcome) => {
                        this.ended = true;
                        Some(this.write_end(outcome))
                    }
                    Poll::Pending => None,
                }
            }
            Poll::Pending => None,
        };
        if let Some(bytes) = bytes {
            this.silence.as_mut().reset(Instant::now() + this.heartbeat);
            return Poll::Ready(Some(bytes));
        }
        if this.silence.as_mut().poll(context).is_ready() {
            this.silence.as_mut().reset(Instant::now() + this.heartbeat);
            return Poll::Ready(Some(Bytes::from_static(HEARTBEAT)));
        }
        if this.probe.as_mut().poll(context).is_ready() {
            this.probe.as_mut().reset(Instant::now() + PROBE);
            return Poll::Ready(Some(Bytes::new()));
        }
        Poll::Pending
    }
}

impl Drop for Body {
    /// An error that came too late to be written is still reported.
    fn drop(&mut self) {
        self.end.close();
        if let Ok(Err(error)) = self.end.try_recv() {
            service::report(&error, Some(self.tenant.as_str()), &self.clock);
        }
    }
}

/// What a stream ends with if whoever made the answer is gone without a word.
fn abandoned() -> Error {
    Error::internal("an answer was abandoned")
}

/// Writes events, each with its number.
#[derive(Debug, Default)]
struct Frames {
    last: u64,
}

impl Frames {
    fn frame<T: Serialize + ?Sized>(&mut self, name: &'static str, data: &T) -> Bytes {
        self.last += 1;
        // JSON escapes every line break, so that data is one line. Ours is made of texts and numbers; should it ever fail to
        // serialise, the event is there all the same.
        let data = serde_json::to_string(data).unwrap_or_else(|_| "{}".to_owned());
        format!("id: {}\nevent: {name}\ndata: {data}\n\n", self.last).into()
    }
}

#[derive(Serialize)]
struct Session {
    session_id: SessionHandle,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    context_reset: bool,
}

#[derive(Serialize)]
struct Delta<'a> {
    text: &'a str,
}

#[derive(Serialize)]
struct Guardrail<'a> {
    action: GuardrailAction,
    text: &'a str,
}

#[derive(Serialize)]
struct Terminal {
    guardrail_action: GuardrailAction,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}
