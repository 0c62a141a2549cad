//! A model behind any server that speaks OpenAI's chat completions: Ollama, llama.cpp, vLLM.
//!
//! <https://platform.openai.com/docs/api-reference/chat/streaming>. Streamed, with the server's own count of tokens where
//! it gives one. Whoever names a server that is not on this machine sends it the prompts, passages and all. Keys, tools and
//! pictures are not here.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use eventsource_stream::Eventsource as _;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, stream};
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use url::{Host, Url};

use super::speech::{Conversation, Failure, Model, Role, Speech, StopReason, Usage, Utterance};

/// How long a connection may take. A model that has to be loaded first is slow to answer, not to connect.
const CONNECT: Duration = Duration::from_secs(5);
/// How long the server may say nothing at all.
const SILENCE: Duration = Duration::from_secs(120);
/// How much of a server's error message is repeated, in characters.
const MESSAGE: usize = 500;

/// The model. Clones share connections.
#[derive(Debug, Clone)]
pub struct OpenAi {
    client: reqwest::Client,
    completions: Url,
    name: String,
}

impl OpenAi {
    /// The model of that name at a server whose base URL is `url`: with the version (`http://127.0.0.1:11434/v1`), or
    /// without any path, which means `/v1`.
    ///
    /// # Errors
    /// The URL is none, is not HTTP, or has a query; the name is empty.
    pub fn new(url: &str, name: &str) -> anyhow::Result<Self> {
        let mut completions = Url::parse(url).with_context(|| format!("the model's URL {url} is none"))?;
        if !matches!(completions.scheme(), "http" | "https") || completions.query().is_some() {
            bail!("the model's URL {url} is not http(s)://HOST[:PORT][/PATH]");
        }
        if name.trim().is_empty() {
            bail!("the model at {url} needs a name");
        }
        let path = match completions.path().trim_end_matches('/') {
            "" => "/v1",
            path => path,
        };
        let path = format!("{path}/chat/completions");
        completions.set_path(&path);
        let is_here = match completions.host() {
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            Some(Host::Domain(domain)) => domain == "localhost",
            None => false,
        };
        let mut client = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .redirect(reqwest::redirect::Policy::none());
        if is_here {
            // A proxy that the environment names can't reach this machine.
            client = client.no_proxy();
        }
        Ok(Self {
            client: client.build().context("can't make an HTTP client")?,
            completions,
            name: name.to_owned(),
        })
    }

    fn request(&self, conversation: &Conversation) -> Value {
        let mut messages = Vec::new();
        if !conversation.system.is_empty() {
            messages.push(json!({ "role": "system", "content": conversation.system.join("\n") }));
        }
        messages.extend(conversation.messages.iter().map(|message| {
            let role = match message.role {
                Role::User => "user",
                Role::Assistant => "assistant",
            };
            json!({ "role": role, "content": message.text() })
        }));
        let mut request = json!({
            "model": self.name,
            "messages": messages,
            "stream": true,
            "stream_options": { "include_usage": true },
        });
        if let Some(request) = request.as_object_mut() {
            let optional = [
                ("max_tokens", conversation.max_tokens.map(Value::from)),
                ("temperature", conversation.temperature.map(Value::from)),
                ("top_p", conversation.top_p.map(Value::from)),
                (
                    "stop",
                    (!conversation.stop_sequences.is_empty()).then(|| json!(conversation.stop_sequences)),
                ),
            ];
            for (name, value) in optional {
                request.extend(value.map(|value| (name.to_owned(), value)));
            }
        }
        request
    }
}

impl Model for OpenAi {
    fn name(&self) -> &str {
        &self.name
    }

    fn begin(&self, conversation: Arc<Conversation>) -> BoxFuture<'static, Result<Speech, Failure>> {
        let sent = self
            .client
            .post(self.completions.clone())
            .json(&self.request(&conversation))
            .send();
        async move {
            let response = sent.await.map_err(|error| lost(&error))?;
            let status = response.status();
            if !status.is_success() {
                let body = response.text().await.unwrap_or_default();
                return Err(refused(status, &body));
            }
            let events = response.bytes_stream().eventsource().boxed();
            let reader = Reader::default();
            let said = stream::unfold(Some((events, reader)), |state| async move {
                let (mut events, mut reader) = state?;
                loop {
                    let event = match events.next().await {
                        Some(Ok(event)) => event,
                        Some(Err(error)) => {
                            let message = shorten(&error.to_string());
                            return Some((Err(Failure::Failed { status: 502, message }), None));
                        }
                        None => return reader.end().map(|end| (end, None)),
                    };
                    if event.data == "[DONE]" {
                        return reader.end().map(|end| (end, None));
                    }
                    match reader.read(&event.data) {
                        Ok(Some(text)) => return Some((Ok(Utterance::Text(text)), Some((events, reader)))),
                        Ok(None) => {}
                        Err(failure) => return Some((Err(failure), None)),
                    }
                }
            });
            Ok(said.boxed())
        }
        .boxed()
    }
}

/// What is known of an answer so far.
#[derive(Default)]
struct Reader {
    reason: Option<StopReason>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Counted>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Delta,
    finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
struct Delta {
    content: Option<String>,
}

#[derive(Deserialize)]
struct Counted {
    prompt_tokens: u64,
    completion_tokens: u64,
}

impl Reader {
    /// The text of one event's data.
    fn read(&mut self, data: &str) -> Result<Option<String>, Failure> {
        let chunk: Chunk = serde_json::from_str(data).map_err(|error| Failure::Failed {
            status: 502,
            message: format!("the model's answer is not what chat completions are: {error}"),
        })?;
        if let Some(error) = chunk.error.filter(|error| !error.is_null()) {
            return Err(Failure::Failed {
                status: 500,
                message: said_of(&error),
            });
        }
        if let Some(counted) = chunk.usage {
            self.usage = Some(Usage {
                input: counted.prompt_tokens,
                output: counted.completion_tokens,
            });
        }
        let Some(choice) = chunk.choices.into_iter().next() else {
            return Ok(None);
        };
        if let Some(reason) = choice.finish_reason {
            self.reason = Some(match reason.as_str() {
                "length" => StopReason::MaxTokens,
                "content_filter" => StopReason::ContentFiltered,
                // `stop` is said of stop sequences too.
                _ => StopReason::EndTurn,
            });
        }
        Ok(choice.delta.content.filter(|text| !text.is_empty()))
    }

    /// How it ended, or `None` if it was cut off.
    fn end(self) -> Option<Result<Utterance, Failure>> {
        let usage = self.usage;
        self.reason.map(|reason| Ok(Utterance::End { reason, usage }))
    }
}

fn lost(error: &reqwest::Error) -> Failure {
    let message = format!("the model's server can't be asked: {error}");
    if error.is_timeout() {
        Failure::TimedOut(message)
    } else {
        Failure::Failed { status: 502, message }
    }
}

fn refused(status: StatusCode, body: &str) -> Failure {
    let message = match serde_json::from_str::<Value>(body) {
        Ok(body) => said_of(body.get("error").unwrap_or(&body)),
        Err(_) => shorten(body),
    };
    if status == StatusCode::TOO_MANY_REQUESTS {
        Failure::Throttled(message)
    } else {
        Failure::Failed {
            status: status.as_u16(),
            message,
        }
    }
}

/// The message of an error: an object with one, or a text.
fn said_of(error: &Value) -> String {
    let message = error.get("message").unwrap_or(error);
    shorten(&message.as_str().map_or_else(|| message.to_string(), ToOwned::to_owned))
}

fn shorten(message: &str) -> String {
    message.chars().take(MESSAGE).collect()
}

#[cfg(test)]
mod tests;
