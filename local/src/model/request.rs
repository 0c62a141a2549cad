//! What Converse and ConverseStream take: shapes, the rules between members, and the conversation that comes of it.
//!
//! <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html>. Stricter than the service in one
//! thing: a member that the operation does not have is refused, so that a slip shows. Pictures, documents, tools, prompts
//! from Prompt management and output schemas are not here; they are answered 501.

use std::sync::Arc;

use serde_json::Value;

use super::Refusal;
use super::speech::{Conversation, Message, Role};
use crate::shape::{Findings, Member, Shape, check, is_guardrail_version, may, must, text};

/// The longest conversation, in tokens: the context window of Amazon Nova Lite.
const CONTEXT_WINDOW: u64 = 300_000;

/// A request whose form is right.
pub(super) struct Request {
    pub(super) conversation: Arc<Conversation>,
    /// What a guardrail looks at.
    pub(super) guarded: Vec<String>,
    pub(super) guardrail: Option<GuardrailUse>,
}

/// The guardrail that a request names.
pub(super) struct GuardrailUse {
    /// Its id or ARN.
    pub(super) id: String,
    pub(super) version: String,
    /// Whether the answer tells what it found.
    pub(super) traced: bool,
    /// Whether text leaves only after it was assessed.
    pub(super) synchronous: bool,
}

fn is_guardrail_identifier(text: &str) -> bool {
    let id = match text.strip_prefix("arn:aws") {
        Some(rest) => rest.split_once(":guardrail/").map_or("", |(_, id)| id),
        None => text,
    };
    !id.is_empty()
        && id
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

const GUARD_CONTENT: Member = may(
    "guardContent",
    Shape::Union(&[
        may(
            "text",
            Shape::Structure(&[
                must("text", text(0, usize::MAX)),
                may(
                    "qualifiers",
                    Shape::List {
                        of: &Shape::Choice(&["grounding_source", "query", "guard_content"]),
                        min: 0,
                        max: 3,
                    },
                ),
            ]),
        ),
        may("image", Shape::Any),
    ]),
);

const CONTENT: Shape = Shape::Union(&[
    may("text", text(0, usize::MAX)),
    GUARD_CONTENT,
    may("image", Shape::Any),
    may("document", Shape::Any),
    may("video", Shape::Any),
    may("audio", Shape::Any),
    may("toolUse", Shape::Any),
    may("toolResult", Shape::Any),
    may("cachePoint", Shape::Any),
    may("reasoningContent", Shape::Any),
    may("citationsContent", Shape::Any),
    may("searchResult", Shape::Any),
]);

const MESSAGES: Member = may(
    "messages",
    Shape::List {
        of: &Shape::Structure(&[
            must("role", Shape::Choice(&["user", "assistant"])),
            must(
                "content",
                Shape::List {
                    of: &CONTENT,
                    min: 0,
                    max: usize::MAX,
                },
            ),
        ]),
        min: 0,
        max: usize::MAX,
    },
);

const SYSTEM: Member = may(
    "system",
    Shape::List {
        of: &Shape::Union(&[
            may("text", text(1, usize::MAX)),
            GUARD_CONTENT,
            may("cachePoint", Shape::Any),
        ]),
        min: 0,
        max: usize::MAX,
    },
);

const INFERENCE: Member = may(
    "inferenceConfig",
    Shape::Structure(&[
        may(
            "maxTokens",
            Shape::Integer {
                min: 1,
                max: i32::MAX as i64,
            },
        ),
        may("temperature", Shape::Number { min: 0.0, max: 1.0 }),
        may("topP", Shape::Number { min: 0.0, max: 1.0 }),
        may(
            "stopSequences",
            Shape::List {
                of: &text(1, usize::MAX),
                min: 0,
                max: 2_500,
            },
        ),
    ]),
);

/// The members of both operations, and `streamProcessingMode` of the stream's.
const CONVERSE: Shape = Shape::Structure(&[
    MESSAGES,
    SYSTEM,
    INFERENCE,
    may(
        "guardrailConfig",
        Shape::Structure(&[
            must(
                "guardrailIdentifier",
                Shape::Text {
                    min: 1,
                    max: 2_048,
                    is_valid: is_guardrail_identifier,
                },
            ),
            must(
                "guardrailVersion",
                Shape::Text {
                    min: 1,
                    max: 8,
                    is_valid: is_guardrail_version,
                },
            ),
            may("trace", Shape::Choice(&["enabled", "disabled", "enabled_full"])),
            may("streamProcessingMode", Shape::Choice(&["sync", "async"])),
        ]),
    ),
    may("additionalModelRequestFields", Shape::Any),
    may(
        "additionalModelResponseFieldPaths",
        Shape::List {
            of: &text(1, 256),
            min: 0,
            max: 10,
        },
    ),
    may(
        "requestMetadata",
        Shape::Map {
            min: 1,
            max: 16,
            name: 256,
            value: 256,
        },
    ),
    may(
        "performanceConfig",
        Shape::Structure(&[may("latency", Shape::Choice(&["standard", "optimized"]))]),
    ),
    may(
        "serviceTier",
        Shape::Structure(&[must(
            "type",
            Shape::Choice(&["priority", "default", "flex", "reserved"]),
        )]),
    ),
    may("toolConfig", Shape::Any),
    may("promptVariables", Shape::Any),
    may("outputConfig", Shape::Any),
]);

/// What is known to the service and not to this one.
const NOT_HERE: [&str; 3] = ["toolConfig", "promptVariables", "outputConfig"];

impl Request {
    /// Reads the body of Converse, or, `streamed`, of ConverseStream.
    pub(super) fn read(body: &Value, streamed: bool) -> Result<Self, Refusal> {
        let mut findings = Findings::default();
        check(&CONVERSE, body, "", &mut findings);
        let mode = "/guardrailConfig/streamProcessingMode";
        if !streamed && body.pointer(mode).is_some() {
            findings.unknown.push("guardrailConfig.streamProcessingMode".to_owned());
        }
        let unknown = findings.unknown.iter().map(|name| format!("Unknown member '{name}'"));
        let errors: Vec<String> = findings.errors.iter().cloned().chain(unknown).collect();
        if !errors.is_empty() {
            let noun = if errors.len() == 1 { "error" } else { "errors" };
            return Err(Refusal::Validation(format!(
                "{} validation {noun} detected: {}",
                errors.len(),
                errors.join("; ")
            )));
        }
        if let Some(member) = NOT_HERE
            .into_iter()
            .find(|member| body.get(member).is_some_and(|value| !value.is_null()))
        {
            return Err(Refusal::NotImplemented(member.to_owned()));
        }
        let (system, guarded_system) = system(body)?;
        let (messages, guarded) = messages(body)?;
        let number = |pointer: &str| body.pointer(&format!("/inferenceConfig/{pointer}"));
        let conversation = Conversation {
            system,
            messages,
            max_tokens: number("maxTokens").and_then(Value::as_u64),
            stop_sequences: list(body.pointer("/inferenceConfig/stopSequences"))
                .iter()
                .filter_map(|stop| stop.as_str().map(ToOwned::to_owned))
                .collect(),
            temperature: number("temperature").and_then(Value::as_f64),
            top_p: number("topP").and_then(Value::as_f64),
        };
        if conversation.tokens() > CONTEXT_WINDOW {
            return Err(Refusal::Validation("Input is too long for requested model.".to_owned()));
        }
        let named = |name: &str| {
            let value = body.pointer(&format!("/guardrailConfig/{name}"));
            value.and_then(Value::as_str)
        };
        let guardrail = named("guardrailIdentifier").map(|id| GuardrailUse {
            id: id.to_owned(),
            version: named("guardrailVersion").unwrap_or_default().to_owned(),
            traced: named("trace").is_some_and(|trace| trace != "disabled"),
            synchronous: named("streamProcessingMode") != Some("async"),
        });
        Ok(Self {
            conversation: Arc::new(conversation),
            guarded: guarded_system.into_iter().chain(guarded).collect(),
            guardrail,
        })
    }
}

fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The text of a block, and whether it was given to be guarded.
fn block(block: &Value, at: &str) -> Result<Option<(String, bool)>, Refusal> {
    let text = block.get("text").and_then(Value::as_str);
    let guarded = block.pointer("/guardContent/text");
    let (text, is_guarded) = match (text, guarded) {
        (Some(text), _) => (text, false),
        (None, Some(guarded)) => {
            let qualifiers = list(guarded.get("qualifiers"));
            // A grounding source is compared with, and assessed only where it says so.
            let is_guarded = qualifiers.is_empty() || qualifiers.iter().any(|name| name == "guard_content");
            (
                guarded.get("text").and_then(Value::as_str).unwrap_or_default(),
                is_guarded,
            )
        }
        // It marks a place and says nothing.
        (None, None) if block.get("cachePoint").is_some() => return Ok(None),
        (None, None) => {
            let kind = block
                .as_object()
                .and_then(|block| block.keys().next())
                .map_or("this kind of content", String::as_str);
            return Err(Refusal::NotImplemented(kind.to_owned()));
        }
    };
    if text.trim().is_empty() {
        return Err(Refusal::Validation(format!(
            "The text field in the ContentBlock object at {at} is blank. Add text to the text field, and try again."
        )));
    }
    Ok(Some((text.to_owned(), is_guarded)))
}

/// The system prompt, and what a guardrail looks at of it: only what is given to be guarded.
fn system(body: &Value) -> Result<(Vec<String>, Vec<String>), Refusal> {
    let (mut texts, mut guarded) = (Vec::new(), Vec::new());
    for (index, value) in list(body.get("system")).iter().enumerate() {
        if let Some((text, is_guarded)) = block(value, &format!("system.{index}"))? {
            guarded.extend(is_guarded.then(|| text.clone()));
            texts.push(text);
        }
    }
    Ok((texts, guarded))
}

/// The messages, and what a guardrail looks at of them: what is given to be guarded, or all if nothing is.
fn messages(body: &Value) -> Result<(Vec<Message>, Vec<String>), Refusal> {
    let refuse = |message: &str| Err(Refusal::Validation(message.to_owned()));
    let (mut messages, mut guarded, mut any_guard_content) = (Vec::<Message>::new(), Vec::new(), false);
    for (index, message) in list(body.get("messages")).iter().enumerate() {
        let role = match message.get("role").and_then(Value::as_str) {
            Some("assistant") => Role::Assistant,
            _ => Role::User,
        };
        match messages.last() {
            None if role == Role::Assistant => {
                return refuse(
                    "A conversation must start with a user message. Try again with a conversation that starts with a \
                     user message.",
                );
            }
            Some(before) if before.role == role => {
                return refuse(
                    "A conversation must alternate between user and assistant roles. Make sure the conversation \
                     alternates between user and assistant roles and try again.",
                );
            }
            _ => {}
        }
        let mut blocks = Vec::new();
        for (number, value) in list(message.get("content")).iter().enumerate() {
            any_guard_content |= value.get("guardContent").is_some();
            if let Some((text, is_guarded)) = block(value, &format!("messages.{index}.content.{number}"))? {
                guarded.extend(is_guarded.then(|| text.clone()));
                blocks.push(text);
            }
        }
        if blocks.is_empty() {
            return refuse(&format!(
                "The content field in the Message object at messages.{index} is empty. Add a ContentBlock object to the \
                 content field and try again."
            ));
        }
        messages.push(Message { role, blocks });
    }
    match messages.last() {
        None => {
            return refuse("A conversation must have at least one message. Try again with at least one message.");
        }
        Some(last) if last.role == Role::Assistant => {
            return refuse(
                "This model does not support assistant message prefill. The conversation must end with a user message.",
            );
        }
        Some(_) => {}
    }
    if !any_guard_content {
        guarded = messages.iter().flat_map(|message| message.blocks.clone()).collect();
    }
    Ok((messages, guarded))
}
