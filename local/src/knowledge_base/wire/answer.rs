//! RetrieveAndGenerate and RetrieveAndGenerateStream: one answer, told in two ways.
//!
//! In the stream text comes in small pieces at the model's pace, and a citation behind the text that it covers; a part
//! whose passage is foreign has been read by the client by then. The session's id is a header.
//! <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_agent-runtime_RetrieveAndGenerateStream.html>
//!
//! A guardrail looks at the question and at the answer, and not at passages. Where it blocks an answer, the stream has
//! already told the parts before the one with the word; its message and the guardrail event follow them. A whole answer
//! is the message alone.

use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use super::super::generation::{self, Answer, Passage};
use super::super::manner::Usage;
use super::super::retrieval::Filter;
use super::super::session::Session;
use super::super::writing;
use super::{Call, Found, Refusal, respond};
use crate::event_stream::{self, Pace};
use crate::front_door::ServiceBody;
use crate::guardrail::{Guardrail, Source, Verdict};
use crate::model::speech::{Conversation, Failure, Message, Model, Role, Utterance};

/// Characters per token, roughly, for `maxTokens`.
const TOKEN_CHARACTERS: usize = 4;

/// Answers without `maxTokens` are no longer than this many characters.
const ANSWER_CHARACTERS: usize = 8_000;

const CONFIGURATION: &str = "/retrieveAndGenerateConfiguration/knowledgeBaseConfiguration";

/// A part of an answer.
struct Statement {
    text: String,
    /// The references of its citation, or `None` where no citation covers it.
    references: Option<Vec<Value>>,
}

/// An answer with what belongs to it.
struct Generated {
    session: String,
    statements: Vec<Statement>,
    /// What stands between two statements.
    separator: char,
    /// Whether the prompt asked for citations.
    cites: bool,
    /// Whether the guardrail intervened, if there is one.
    guardrail: Option<bool>,
    /// What the guardrail says instead of what would come after the statements.
    message: Option<String>,
}

/// A statement at its place.
struct Placed<'a> {
    statement: &'a Statement,
    /// What goes out: the text, and the separator before it.
    text: String,
    /// Characters before the statement's own text.
    start: usize,
}

impl Placed<'_> {
    /// Its citation, as a whole answer has it. A span's end is the offset of its last character, as observed on AWS.
    fn citation(&self) -> Option<Value> {
        let references = self.statement.references.as_ref()?;
        let end = self.start + self.statement.text.chars().count();
        Some(json!({
            "generatedResponsePart": {
                "textResponsePart": {
                    "span": { "start": self.start, "end": end.saturating_sub(1).max(self.start) },
                    "text": self.statement.text,
                },
            },
            "retrievedReferences": references,
        }))
    }
}

impl Generated {
    fn placed(&self) -> Vec<Placed<'_>> {
        let mut length = 0;
        let place = |statement| {
            let text = if length == 0 {
                String::new()
            } else {
                self.separator.to_string()
            };
            let start = length + text.chars().count();
            let placed = Placed {
                statement,
                text: text + &statement.text,
                start,
            };
            length += placed.text.chars().count();
            placed
        };
        self.statements.iter().map(place).collect()
    }

    /// What is said in the end.
    fn text(&self) -> String {
        match &self.message {
            Some(message) => message.clone(),
            None => self.placed().into_iter().map(|placed| placed.text).collect(),
        }
    }

    fn body(&self) -> Value {
        let citations: Vec<Value> = match &self.message {
            _ if !self.cites => Vec::new(),
            Some(message) => {
                let statement = Statement {
                    text: message.clone(),
                    references: Some(Vec::new()),
                };
                let placed = Placed {
                    statement: &statement,
                    text: message.clone(),
                    start: 0,
                };
                placed.citation().into_iter().collect()
            }
            None => self.placed().iter().filter_map(Placed::citation).collect(),
        };
        json!({
            "citations": citations,
            "guardrailAction": action(self.guardrail.unwrap_or_default()),
            "output": { "text": self.text() },
            "sessionId": self.session,
        })
    }

    /// The events, each with whether the model has to think of it first.
    fn events(&self) -> Vec<(Bytes, bool)> {
        let mut events = Vec::new();
        let say = |text: &str, events: &mut Vec<(Bytes, bool)>| {
            events.extend(
                event_stream::pieces(text)
                    .map(|piece| (event_stream::event("output", &json!({ "text": piece })), true)),
            );
        };
        for placed in self.placed() {
            say(&placed.text, &mut events);
            if let Some(citation) = placed.citation().filter(|_| self.cites) {
                let payload = json!({
                    // Deprecated, and sent all the same.
                    "citation": citation,
                    "generatedResponsePart": citation.get("generatedResponsePart"),
                    "retrievedReferences": citation.get("retrievedReferences"),
                });
                events.push((event_stream::event("citation", &payload), false));
            }
        }
        if let Some(message) = &self.message {
            say(message, &mut events);
        }
        if let Some(intervened) = self.guardrail {
            let event = event_stream::event("guardrail", &json!({ "action": action(intervened) }));
            events.push((event, false));
        }
        events
    }
}

const fn action(intervened: bool) -> &'static str {
    if intervened { "INTERVENED" } else { "NONE" }
}

/// Events, each told when it is due.
fn at_pace(events: Vec<(Bytes, bool)>, pace: Pace) -> impl Stream<Item = Bytes> + Send {
    stream::iter(events)
        .scan(0, |said, (event, is_thought)| {
            let number = is_thought.then_some(*said);
            *said += usize::from(is_thought);
            std::future::ready(Some((event, number)))
        })
        .then(move |(event, number)| async move {
            if let Some(number) = number {
                pace.wait(number).await;
            }
            event
        })
}

impl Call<'_> {
    /// RetrieveAndGenerate.
    pub(super) fn retrieve_and_generate(&self, filter: Option<&Filter>) -> Result<Response<ServiceBody>, Refusal> {
        Ok(respond(StatusCode::OK, &self.generate(filter)?.body()))
    }

    /// RetrieveAndGenerateStream.
    pub(super) fn retrieve_and_generate_stream(
        &self,
        filter: Option<&Filter>,
    ) -> Result<Response<ServiceBody>, Refusal> {
        let generated = self.generate(filter)?;
        let pace = self.inner.manners.pace(self.tenant).unwrap_or(self.inner.config.pace);
        let mut response = event_stream::response(at_pace(generated.events(), pace));
        if let Ok(id) = HeaderValue::from_str(&generated.session) {
            let name = HeaderName::from_static("x-amzn-bedrock-knowledge-base-session-id");
            response.headers_mut().insert(name, id);
        }
        Ok(response)
    }

    fn generate(&self, filter: Option<&Filter>) -> Result<Generated, Refusal> {
        if self.string("/retrieveAndGenerateConfiguration/type") != Some("KNOWLEDGE_BASE") {
            return Err(Refusal::NotImplemented(
                "RetrieveAndGenerate on EXTERNAL_SOURCES".to_owned(),
            ));
        }
        let Some(knowledge_base) = self.string(&format!("{CONFIGURATION}/knowledgeBaseId")) else {
            return Err(Refusal::Validation(
                "knowledgeBaseConfiguration is required for type KNOWLEDGE_BASE.".to_owned(),
            ));
        };
        self.check_knowledge_base(knowledge_base)?;
        let results = self.check_search(&format!("{CONFIGURATION}/retrievalConfiguration"))?;
        let guardrail = self.guardrail(&format!(
            "{CONFIGURATION}/generationConfiguration/guardrailConfiguration"
        ))?;
        let cites = self.check_templates()?;
        let (id, mut session) = self.session()?;
        let asked = self.string("/input/text").unwrap_or_default();
        let mut generated = Generated {
            session: id.clone(),
            statements: Vec::new(),
            separator: ' ',
            cites,
            guardrail: guardrail.map(|_| false),
            message: None,
        };
        match guardrail.map(|guardrail| guardrail.check(asked, Source::Input).verdict) {
            Some(Verdict::Blocked(message)) => {
                generated.guardrail = Some(true);
                generated.message = Some(message);
            }
            Some(Verdict::Masked(question)) => {
                generated.guardrail = Some(true);
                self.fill(&mut generated, &question, &session, filter, results, guardrail)?;
            }
            Some(Verdict::Passed) | None => {
                self.fill(&mut generated, asked, &session, filter, results, guardrail)?;
            }
        }
        session.push(asked, &generated.text());
        let mut catalogue = self.inner.catalogue();
        catalogue.sessions.insert(id.clone(), session);
        catalogue.save_session(&id)?;
        Ok(generated)
    }

    /// Whether the prompt templates ask for citations. They must have the placeholders that Bedrock demands.
    fn check_templates(&self) -> Result<bool, Refusal> {
        let template = |part: &str| self.string(&format!("{CONFIGURATION}/{part}/promptTemplate/textPromptTemplate"));
        let demand = |template: &str, name: &str, placeholder: &str| {
            if template.contains(placeholder) {
                Ok(())
            } else {
                Err(Refusal::Validation(format!(
                    "The {name} prompt template must contain {placeholder}."
                )))
            }
        };
        let mut cites = true;
        if let Some(template) = template("generationConfiguration") {
            demand(template, "generation", "$search_results$")?;
            cites = template.contains("$output_format_instructions$");
        }
        if let Some(template) = template("orchestrationConfiguration") {
            demand(template, "orchestration", "$conversation_history$")?;
            demand(template, "orchestration", "$output_format_instructions$")?;
        }
        Ok(cites)
    }

    /// Searches, generates and lets the guardrail look at what was generated.
    fn fill(
        &self,
        generated: &mut Generated,
        question: &str,
        session: &Session,
        filter: Option<&Filter>,
        results: usize,
        guardrail: Option<&Guardrail>,
    ) -> Result<(), Refusal> {
        let found = self.search(&generation::search_text(question, &session.turns), filter, results)?;
        let passages: Vec<Passage> = found
            .iter()
            .map(|found| Passage {
                document: found.uri.clone(),
                chunk: found.hit.chunk.clone(),
            })
            .collect();
        let tokens = self
            .body
            .pointer(&format!(
                "{CONFIGURATION}/generationConfiguration/inferenceConfig/textInferenceConfig/maxTokens"
            ))
            .and_then(Value::as_u64)
            .and_then(|tokens| usize::try_from(tokens).ok());
        let length = tokens.map_or(ANSWER_CHARACTERS, |tokens| tokens.saturating_mul(TOKEN_CHARACTERS));
        let answer = match &self.inner.config.generator {
            Some(model) => self.written(model.as_ref(), question, &passages)?,
            None => generation::answer(question, &session.turns, &passages, length),
        };
        generated.separator = answer.separator;
        let mut said = String::new();
        for mut statement in self.statements(&answer, &found) {
            if let Some(guardrail) = guardrail {
                said.push(answer.separator);
                said.push_str(&statement.text);
                // A phrase may begin in one part and end in another.
                if let Verdict::Blocked(message) = guardrail.check(&said, Source::Output).verdict {
                    generated.guardrail = Some(true);
                    generated.message = Some(message);
                    break;
                }
                if let Verdict::Masked(text) = guardrail.check(&statement.text, Source::Output).verdict {
                    generated.guardrail = Some(true);
                    statement.text = text;
                }
            }
            generated.statements.push(statement);
        }
        Ok(())
    }

    /// The answer that a language model writes. It is there as a whole before any of it is told.
    fn written(&self, model: &dyn Model, question: &str, passages: &[Passage]) -> Result<Answer, Refusal> {
        let pointer = format!("{CONFIGURATION}/generationConfiguration");
        let inference = |name: &str| {
            let of_text = format!("{pointer}/inferenceConfig/textInferenceConfig/{name}");
            self.body.pointer(&of_text)
        };
        let template = self.string(&format!("{pointer}/promptTemplate/textPromptTemplate"));
        let conversation = Conversation {
            messages: vec![Message {
                role: Role::User,
                blocks: vec![writing::prompt(template, question, passages)],
            }],
            max_tokens: inference("maxTokens").and_then(Value::as_u64).filter(|max| *max > 0),
            temperature: inference("temperature").and_then(Value::as_f64),
            top_p: inference("topP").and_then(Value::as_f64),
            ..Conversation::default()
        };
        // Requests are answered beside the runtime, where waiting keeps nobody waiting.
        let text = self.inner.tasks.runtime.block_on(async {
            let mut text = String::new();
            let mut speech = model.begin(Arc::new(conversation)).await?;
            while let Some(said) = speech.next().await {
                match said? {
                    Utterance::Text(more) => text.push_str(&more),
                    Utterance::End { .. } => return Ok(text),
                }
            }
            Err(Failure::Unavailable("the answer was cut off".to_owned()))
        });
        match text {
            Ok(text) => Ok(writing::answer(&text, passages.len())),
            Err(Failure::Throttled(_)) => Err(Refusal::Throttling),
            Err(failure) => Err(Refusal::DependencyFailed(failure.to_string())),
        }
    }

    /// The answer's parts with their references, and what bad manners add.
    fn statements(&self, answer: &Answer, found: &[Found]) -> Vec<Statement> {
        let injections = self.inner.manners.injections(self.tenant);
        let beside: Vec<Value> = injections
            .iter()
            .filter(|(_, injection)| injection.usage == Usage::CitedBesideOthers)
            .map(|(_, injection)| self.injected(injection))
            .collect();
        let mut statements: Vec<Statement> = Vec::new();
        for part in &answer.parts {
            let of_part = part.passages.iter().filter_map(|index| found.get(*index));
            let references = of_part
                .map(|found| self.reference(found))
                .chain(beside.iter().cloned())
                .collect();
            statements.push(Statement {
                text: part.text.clone(),
                references: Some(references),
            });
        }
        for (position, injection) in &injections {
            let references = match injection.usage {
                Usage::Cited => Some(vec![self.injected(injection)]),
                Usage::WithoutReference => Some(Vec::new()),
                Usage::Hidden => None,
                Usage::CitedBesideOthers => continue,
            };
            let statement = Statement {
                text: injection.text.clone(),
                references,
            };
            statements.insert((*position).min(statements.len()), statement);
        }
        statements
    }
}
