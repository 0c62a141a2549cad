//! Answers on the wire: Converse's body, ConverseStream's events, and guardrails on the way there.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::Response;
use serde_json::{Value, json};

use super::request::{GuardrailUse, Request};
use super::speech::{Failure, Model, Speech, StopReason, Usage, Utterance};
use super::{CallRecord, Ending, Refusal, respond, token};
use crate::event_stream;
use crate::front_door::ServiceBody;
use crate::guardrail::{Guardrail, Source, Verdict};

/// How much of a synchronously guarded answer is held back, in characters, so that what a guardrail looks for is found
/// before the beginning of it has left.
const HELD_BACK: usize = 80;

/// An answer that has begun.
pub(super) struct Reply {
    speech: Speech,
    guard: Option<Guard>,
    /// What the guardrail says instead of everything, because of the question.
    blocked: Option<String>,
    input: u64,
    said: String,
    record: Record,
}

/// Notes that nobody waits for the answer any more, if it is dropped before it has ended.
struct Record(CallRecord);

impl Drop for Record {
    fn drop(&mut self) {
        self.0.ended(Ending::Abandoned, None);
    }
}

struct Guard {
    named: GuardrailUse,
    guardrail: Guardrail,
    input: Value,
    output: Option<Value>,
}

impl Guard {
    fn trace(&self) -> Option<Value> {
        let id = &self.guardrail.id;
        self.named.traced.then(|| {
            let mut trace = json!({ "inputAssessment": { id: self.input } });
            if let (Some(trace), Some(output)) = (trace.as_object_mut(), &self.output) {
                trace.insert("outputAssessments".to_owned(), json!({ id: [output] }));
            }
            json!({ "guardrail": trace })
        })
    }

    /// What becomes of what the model has said.
    fn look_at(&mut self, said: &str) -> Verdict {
        let assessment = self.guardrail.check(said, Source::Output);
        self.output = Some(assessment.to_json());
        assessment.verdict
    }
}

/// How an answer has ended.
#[derive(Clone, Copy)]
struct End {
    reason: StopReason,
    usage: Usage,
}

impl Reply {
    /// Shows the question to the guardrail and, if it lets it pass, to the model.
    pub(super) async fn begin(
        model: Arc<dyn Model>,
        request: Request,
        guardrail: Option<Guardrail>,
        call: CallRecord,
    ) -> Result<Self, Refusal> {
        let record = Record(call);
        let mut blocked = None;
        let guard = match (request.guardrail, guardrail) {
            (Some(named), Some(guardrail)) => {
                let found = guardrail.check(&request.guarded.join("\n"), Source::Input);
                let input = found.to_json();
                // What is masked in a question is masked for nobody who could tell: the model sees it here.
                if let Verdict::Blocked(message) = found.verdict {
                    blocked = Some(message);
                }
                Some(Guard {
                    named,
                    guardrail,
                    input,
                    output: None,
                })
            }
            _ => None,
        };
        let (speech, input) = if blocked.is_some() {
            (stream::empty().boxed(), 0)
        } else {
            let input = request.conversation.tokens();
            (model.begin(request.conversation).await?, input)
        };
        Ok(Self {
            speech,
            guard,
            blocked,
            input,
            said: String::new(),
            record,
        })
    }

    /// More of what the model says.
    async fn next(&mut self) -> Next {
        match self.speech.next().await {
            Some(Ok(Utterance::Text(text))) => {
                self.record.0.spoke();
                self.said.push_str(&text);
                Next::Text(text)
            }
            Some(Ok(Utterance::End { reason, usage })) => Next::End(End {
                reason,
                usage: usage.unwrap_or(self.usage()),
            }),
            Some(Err(failure)) => Next::Failed(failure),
            None => Next::Cut,
        }
    }

    fn usage(&self) -> Usage {
        Usage {
            input: self.input,
            output: token::count(&self.said),
        }
    }

    /// The end that a guardrail makes.
    fn intervention(&self) -> End {
        End {
            reason: StopReason::GuardrailIntervened,
            usage: self.usage(),
        }
    }

    /// What every answer says of itself, and what is noted of it.
    fn close(&self, end: &End) -> Value {
        self.record.0.ended(Ending::Complete(end.reason), Some(end.usage));
        let latency = u64::try_from(self.record.0.received.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut about = json!({
            "metrics": { "latencyMs": latency },
            "usage": {
                "inputTokens": end.usage.input,
                "outputTokens": end.usage.output,
                "totalTokens": end.usage.input + end.usage.output,
            },
        });
        let trace = self.guard.as_ref().and_then(Guard::trace);
        if let (Some(about), Some(trace)) = (about.as_object_mut(), trace) {
            about.insert("trace".to_owned(), trace);
        }
        about
    }

    /// Converse's answer.
    pub(super) async fn whole(mut self) -> Result<Response<ServiceBody>, Refusal> {
        let mut text = String::new();
        let mut end = loop {
            if let Some(blocked) = self.blocked.take() {
                text = blocked;
                break self.intervention();
            }
            match self.next().await {
                Next::Text(more) => text.push_str(&more),
                Next::End(end) => break end,
                Next::Failed(failure) => return Err(failure.into()),
                Next::Cut => {
                    self.record.0.ended(Ending::Cut, None);
                    return Err(Refusal::Internal(
                        "The model was lost in the middle of its answer.".to_owned(),
                    ));
                }
            }
        };
        if end.reason != StopReason::GuardrailIntervened
            && let Some(guard) = &mut self.guard
            && let Verdict::Blocked(instead) | Verdict::Masked(instead) = guard.look_at(&text)
        {
            text = instead;
            end.reason = StopReason::GuardrailIntervened;
        }
        let content = if text.is_empty() {
            Vec::new()
        } else {
            vec![json!({ "text": text })]
        };
        let mut body = self.close(&end);
        if let Some(body) = body.as_object_mut() {
            body.insert(
                "output".to_owned(),
                json!({ "message": { "role": "assistant", "content": content } }),
            );
            body.insert("stopReason".to_owned(), json!(end.reason.as_str()));
        }
        Ok(respond(&body))
    }

    /// ConverseStream's answer. `bytes_at_once` cuts its bytes into pieces of that size, wherever events end.
    pub(super) fn stream(self, bytes_at_once: Option<usize>) -> Response<ServiceBody> {
        let telling = Telling {
            reply: self,
            phase: Phase::Beginning,
            pending: String::new(),
            has_text: false,
        };
        let events = stream::unfold(telling, |mut telling| async move {
            let events = telling.step().await?;
            Some((stream::iter(events), telling))
        })
        .flatten();
        match bytes_at_once {
            None => event_stream::response(events),
            Some(size) => event_stream::response(events.flat_map(move |event: Bytes| {
                let pieces: Vec<Bytes> = event.chunks(size).map(Bytes::copy_from_slice).collect();
                stream::iter(pieces)
            })),
        }
    }
}

enum Next {
    Text(String),
    End(End),
    Failed(Failure),
    Cut,
}

enum Phase {
    Beginning,
    Speaking,
    Over,
}

/// An answer while it is streamed.
struct Telling {
    reply: Reply,
    phase: Phase,
    /// What a synchronous guardrail has seen and is held back nevertheless.
    pending: String,
    /// Whether there is a content block.
    has_text: bool,
}

impl Telling {
    /// The next events, or `None` after the last.
    async fn step(&mut self) -> Option<Vec<Bytes>> {
        match self.phase {
            Phase::Beginning => {
                self.phase = Phase::Speaking;
                Some(vec![event_stream::event(
                    "messageStart",
                    &json!({ "role": "assistant" }),
                )])
            }
            Phase::Speaking => {
                if let Some(blocked) = self.reply.blocked.take() {
                    return Some(self.intervene(&blocked));
                }
                match self.reply.next().await {
                    Next::Text(text) => Some(self.tell(text)),
                    Next::End(end) => Some(self.finish(&end)),
                    Next::Failed(failure) => {
                        self.phase = Phase::Over;
                        self.reply.record.0.ended(Ending::Failed, None);
                        let (kind, message) = exception(failure);
                        Some(vec![event_stream::exception(kind, &message)])
                    }
                    Next::Cut => {
                        self.phase = Phase::Over;
                        self.reply.record.0.ended(Ending::Cut, None);
                        None
                    }
                }
            }
            Phase::Over => None,
        }
    }

    fn tell(&mut self, text: String) -> Vec<Bytes> {
        let said = &self.reply.said;
        let Some(guard) = &mut self.reply.guard else {
            return self.delta(&text);
        };
        let synchronous = guard.named.synchronous;
        match (guard.look_at(said), synchronous) {
            (Verdict::Blocked(message), true) => self.intervene(&message),
            (Verdict::Blocked(message), false) => {
                let mut events = self.delta(&text);
                events.extend(self.intervene(&message));
                events
            }
            (Verdict::Masked(_), true) => {
                self.pending.push_str(&text);
                Vec::new()
            }
            (Verdict::Passed, true) => {
                self.pending.push_str(&text);
                let (leave, _) = self.pending.char_indices().rev().nth(HELD_BACK).unwrap_or_default();
                let held = self.pending.split_off(leave);
                let released = std::mem::replace(&mut self.pending, held);
                self.delta(&released)
            }
            // What is to be masked has left already, as it does on AWS.
            (Verdict::Passed | Verdict::Masked(_), false) => self.delta(&text),
        }
    }

    fn delta(&mut self, text: &str) -> Vec<Bytes> {
        if text.is_empty() {
            return Vec::new();
        }
        self.has_text = true;
        vec![event_stream::event(
            "contentBlockDelta",
            &json!({ "contentBlockIndex": 0, "delta": { "text": text } }),
        )]
    }

    /// Says this instead of what is left.
    fn intervene(&mut self, blocked: &str) -> Vec<Bytes> {
        self.pending.clear();
        let mut events = self.delta(blocked);
        events.extend(self.finish(&self.reply.intervention()));
        events
    }

    fn finish(&mut self, end: &End) -> Vec<Bytes> {
        self.phase = Phase::Over;
        let mut rest = std::mem::take(&mut self.pending);
        let mut reason = end.reason;
        // From the first finding on nothing has left, so that it is still here.
        if let Some(guard) = &self.reply.guard
            && let Verdict::Masked(masked) = guard.guardrail.check(&rest, Source::Output).verdict
        {
            rest = masked;
            reason = StopReason::GuardrailIntervened;
        }
        let mut events = self.delta(&rest);
        if self.has_text {
            events.push(event_stream::event(
                "contentBlockStop",
                &json!({ "contentBlockIndex": 0 }),
            ));
        }
        events.push(event_stream::event(
            "messageStop",
            &json!({ "stopReason": reason.as_str() }),
        ));
        let end = End { reason, ..*end };
        events.push(event_stream::event("metadata", &self.reply.close(&end)));
        events
    }
}

/// The exceptions that a stream may end with
/// (<https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStreamOutput.html>).
fn exception(failure: Failure) -> (&'static str, String) {
    match failure {
        Failure::Throttled(message) => ("throttlingException", message),
        Failure::Refused(message) => ("validationException", message),
        Failure::Failed { message, .. } | Failure::TimedOut(message) => ("modelStreamErrorException", message),
        Failure::Unavailable(message) => ("serviceUnavailableException", message),
        Failure::Internal(message) => ("internalServerException", message),
    }
}
