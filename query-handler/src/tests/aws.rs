//! Canned AWS: a table in memory, and Bedrock following a script for each operation.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_bedrockagentruntime::config::{Credentials, SharedCredentialsProvider};
use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use bytes::Bytes;
use futures::StreamExt as _;
use http_body_util::StreamBody;
use hyper::body::Frame as BodyFrame;
use serde_json::{Value, json};

use crate::fixture::{BUCKET, DOCUMENT};

pub const ASK: &str = "RetrieveAndGenerate";
pub const ASK_STREAM: &str = "RetrieveAndGenerateStream";
pub const RETRIEVE: &str = "Retrieve";
pub const CONVERSE: &str = "Converse";
pub const CONVERSE_STREAM: &str = "ConverseStream";
pub const APPLY_GUARDRAIL: &str = "ApplyGuardrail";
pub const ASSUME_ROLE: &str = "AssumeRole";

pub const DATA_ROLE: &str = "arn:aws:iam::123456789012:role/data-role";
/// What the function signs with as itself.
const OWN_KEY: &str = "OWNKEY";
/// What assuming the data role gives.
const TENANT_KEY: &str = "TENANTKEY";

/// What Bedrock does with one call.
#[derive(Clone, Debug)]
pub enum Reply {
    Answer(Value),
    Stream(Vec<Frame>, End),
    Refuse(u16, &'static str, &'static str),
    Drop,
    Never,
    Panic,
}

/// A frame of an event stream.
#[derive(Clone, Debug)]
pub enum Frame {
    Event(&'static str, Value),
    Exception(&'static str),
    /// The tenant's status becomes this one, before the next frame.
    Status(&'static str),
}

/// How an event stream ends, or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Close,
    Cut,
    Stall,
}

/// A table in memory and a Bedrock that follows a script; each operation's last line repeats.
#[derive(Debug, Default)]
pub struct Aws {
    pub items: Mutex<HashMap<(String, String), Value>>,
    script: Mutex<HashMap<&'static str, VecDeque<Reply>>>,
    asked: Mutex<Vec<(&'static str, Value)>>,
    /// Whether the table refuses to be written.
    pub is_read_only: AtomicBool,
    /// Whether the table refuses turns.
    pub takes_no_turns: AtomicBool,
    /// Whether a stream that stalled was dropped.
    pub dropped: Arc<AtomicBool>,
    /// How many bytes of a stream come at once; all of a frame if 0.
    pub grain: AtomicUsize,
}

impl Aws {
    pub fn new(script: impl IntoIterator<Item = (&'static str, Reply)>) -> Arc<Self> {
        let aws = Arc::new(Self::default());
        aws.put(json!({
            "pk": {"S": "PROFILE#acme"}, "sk": {"S": "PROFILE"},
            "tenant": {"S": "acme"}, "status": {"S": "active"}, "plan": {"S": "standard"}, "groups": {"L": []},
            "created_at": {"S": "2026-01-01T00:00:00Z"}, "updated_at": {"S": "2026-01-01T00:00:00Z"},
            "version": {"N": "1"},
        }));
        aws.put_document(DOCUMENT, "indexed");
        for (operation, reply) in script {
            aws.then(operation, reply);
        }
        aws
    }

    /// Adds a line to the script.
    pub fn then(&self, operation: &'static str, reply: Reply) {
        self.script
            .lock()
            .unwrap()
            .entry(operation)
            .or_default()
            .push_back(reply);
    }

    /// Gives an operation another script.
    pub fn instead(&self, operation: &'static str, reply: Reply) {
        self.script.lock().unwrap().insert(operation, VecDeque::from([reply]));
    }

    pub fn put(&self, item: Value) {
        let key = key(&item);
        self.items.lock().unwrap().insert(key, item);
    }

    pub fn put_document(&self, id: &str, status: &str) {
        self.put(json!({
            "pk": {"S": "TENANT#acme"}, "sk": {"S": format!("DOC#{id}")},
            "document_id": {"S": id}, "name": {"S": "handbook.pdf"}, "media_type": {"S": "application/pdf"},
            "size": {"N": "1"}, "sha256": {"S": "0".repeat(64)}, "title": {"S": "Handbook"},
            "audience": {"S": "*"}, "status": {"S": status}, "submitted": {"BOOL": true},
            "created_at": {"S": "2026-01-01T00:00:00Z"}, "updated_at": {"S": "2026-01-01T00:00:00Z"},
            "version": {"N": "3"},
        }));
    }

    /// Changes a member of the tenant's profile.
    pub fn set_profile(&self, member: &str, value: Value) {
        let mut items = self.items.lock().unwrap();
        let profile = items
            .get_mut(&("PROFILE#acme".to_owned(), "PROFILE".to_owned()))
            .unwrap();
        profile[member] = value;
    }

    pub fn set_status(&self, status: &str) {
        self.set_profile("status", json!({"S": status}));
    }

    /// The items of the tenant whose sort keys begin with `prefix`, in their order.
    pub fn items(&self, prefix: &str) -> Vec<Value> {
        let items = self.items.lock().unwrap();
        let mut found: Vec<_> = items
            .iter()
            .filter(|((pk, sk), _)| pk == "TENANT#acme" && sk.starts_with(prefix))
            .collect();
        found.sort_by_key(|(key, _)| (*key).clone());
        found.into_iter().map(|(_, item)| item.clone()).collect()
    }

    /// The conversations in the table: sort key and Bedrock's id.
    pub fn sessions(&self) -> Vec<(String, String)> {
        let text = |item: &Value, member: &str| item[member]["S"].as_str().unwrap_or_default().to_owned();
        let sessions = self.items("SESSION#");
        sessions
            .iter()
            .map(|item| (text(item, "sk"), text(item, "knowledge_base_session")))
            .collect()
    }

    /// The turns in the table.
    pub fn turns(&self) -> Vec<bulkhead_core::turn::Turn> {
        let read = |item: Value| {
            let attributes = item.as_object().unwrap().iter();
            let plain = attributes.map(|(name, value)| (name.clone(), plain(value))).collect();
            serde_json::from_value(Value::Object(plain)).unwrap()
        };
        self.items("TURN#").into_iter().map(read).collect()
    }

    /// The requests of an operation.
    pub fn asked(&self, operation: &str) -> Vec<Value> {
        let asked = self.asked.lock().unwrap();
        let requests = asked.iter().filter(|(name, _)| *name == operation);
        requests.map(|(_, body)| body.clone()).collect()
    }

    /// Bedrock's operations that were called, in order.
    pub fn calls(&self) -> Vec<&'static str> {
        let asked = self.asked.lock().unwrap();
        let names = asked.iter().map(|(name, _)| *name);
        names.filter(|name| *name != ASSUME_ROLE).collect()
    }

    fn table(&self, operation: &str, request: &Value) -> Result<Value, ()> {
        let mut items = self.items.lock().unwrap();
        let condition = request["ConditionExpression"].as_str().unwrap_or_default();
        let operation = operation.trim_start_matches("DynamoDB_20120810.");
        if self.is_read_only.load(Ordering::Relaxed) && ["PutItem", "UpdateItem"].contains(&operation) {
            return Err(());
        }
        Ok(match operation {
            "GetItem" => match items.get(&key(&request["Key"])) {
                Some(item) => json!({"Item": item}),
                None => json!({}),
            },
            "PutItem" => {
                let key = key(&request["Item"]);
                if self.takes_no_turns.load(Ordering::Relaxed) && key.1.starts_with("TURN#") {
                    return Err(());
                }
                let holds = match condition {
                    "" => true,
                    "attribute_exists(pk)" => items.contains_key(&key),
                    "attribute_not_exists(pk)" => !items.contains_key(&key),
                    other => panic!("{other}"),
                };
                if !holds {
                    return Err(());
                }
                items.insert(key, request["Item"].clone());
                json!({})
            }
            "UpdateItem" => {
                let Some(item) = items.get_mut(&key(&request["Key"])) else {
                    return Err(());
                };
                let before = item.clone();
                let values = &request["ExpressionAttributeValues"];
                let update = request["UpdateExpression"].as_str().unwrap();
                if update.contains("expires_at = :time") {
                    item["expires_at"] = values[":time"].clone();
                }
                if request["ReturnValues"] == "ALL_OLD" {
                    return Ok(json!({"Attributes": before}));
                }
                if update.contains("ADD turns :one") {
                    let turns: u64 = item["turns"]["N"].as_str().unwrap_or("0").parse().unwrap();
                    item["turns"] = json!({"N": (turns + 1).to_string()});
                }
                for (member, value) in [
                    ("knowledge_base_session", ":session"),
                    ("knowledge_base_turns", ":seen"),
                ] {
                    if update.contains(value) {
                        item[member] = values[value].clone();
                    }
                }
                if update.contains("REMOVE knowledge_base_session") {
                    item.as_object_mut().unwrap().remove("knowledge_base_session");
                }
                json!({"Attributes": {"turns": item["turns"]}})
            }
            "Query" => {
                let values = &request["ExpressionAttributeValues"];
                let text = |name: &str| values[name]["S"].as_str().unwrap().to_owned();
                let (pk, prefix) = (text(":pk"), text(":prefix"));
                let matches = |key: &&(String, String)| key.0 == pk && key.1.starts_with(&prefix);
                let mut keys: Vec<_> = items.keys().filter(matches).cloned().collect();
                keys.sort();
                if request["ScanIndexForward"] == json!(false) {
                    keys.reverse();
                }
                if let Some(start) = request.get("ExclusiveStartKey") {
                    let start = keys.iter().position(|known| *known == key(start)).unwrap();
                    keys.drain(..=start);
                }
                let limit = request["Limit"]
                    .as_u64()
                    .map_or(keys.len(), |limit| usize::try_from(limit).unwrap());
                let found: Vec<&Value> = keys.iter().take(limit).map(|key| &items[key]).collect();
                json!({"Items": found})
            }
            "BatchGetItem" => {
                let keys = request["RequestItems"]["bulkhead"]["Keys"].as_array().unwrap();
                let found: Vec<&Value> = keys.iter().filter_map(|wanted| items.get(&key(wanted))).collect();
                json!({"Responses": {"bulkhead": found}, "UnprocessedKeys": {}})
            }
            "BatchWriteItem" => {
                for write in request["RequestItems"]["bulkhead"].as_array().unwrap() {
                    items.remove(&key(&write["DeleteRequest"]["Key"]));
                }
                json!({"UnprocessedItems": {}})
            }
            other => panic!("{other}"),
        })
    }

    fn bedrock(self: &Arc<Self>, operation: &'static str, body: Value) -> HttpConnectorFuture {
        self.asked.lock().unwrap().push((operation, body));
        let reply = {
            let mut scripts = self.script.lock().unwrap();
            let script = scripts
                .get_mut(operation)
                .unwrap_or_else(|| panic!("nobody expected {operation}"));
            let reply = script.pop_front().unwrap();
            if script.is_empty() {
                script.push_back(reply.clone());
            }
            reply
        };
        match reply {
            Reply::Answer(body) => HttpConnectorFuture::ready(Ok(respond(200, &body))),
            Reply::Stream(frames, end) => HttpConnectorFuture::ready(Ok(self.stream(operation, frames, end))),
            Reply::Refuse(status, code, message) => {
                let mut response = respond(status, &json!({"message": message}));
                response.headers_mut().insert("x-amzn-errortype", code);
                HttpConnectorFuture::ready(Ok(response))
            }
            Reply::Drop => HttpConnectorFuture::ready(Err(ConnectorError::io("connection reset".into()))),
            Reply::Never => HttpConnectorFuture::new(std::future::pending()),
            Reply::Panic => panic!("on purpose"),
        }
    }

    /// Assumes the role until the year 2100, unless the script says otherwise.
    fn sts(self: &Arc<Self>, body: &str) -> HttpConnectorFuture {
        self.asked.lock().unwrap().push((ASSUME_ROLE, Value::from(body)));
        let refused = self
            .script
            .lock()
            .unwrap()
            .get(ASSUME_ROLE)
            .and_then(|script| script.front().cloned());
        let (status, text) = match refused {
            Some(Reply::Refuse(status, code, message)) => (
                status,
                format!(
                    "<ErrorResponse><Error><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
                ),
            ),
            Some(other) => panic!("{other:?}"),
            None => (
                200,
                format!(
                    "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>{TENANT_KEY}</AccessKeyId>\
                     <SecretAccessKey>b</SecretAccessKey><SessionToken>c</SessionToken>\
                     <Expiration>2100-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"
                ),
            ),
        };
        let response = HttpResponse::new(status.try_into().unwrap(), SdkBody::from(text));
        HttpConnectorFuture::ready(Ok(response))
    }

    fn stream(self: &Arc<Self>, operation: &'static str, frames: Vec<Frame>, end: End) -> HttpResponse {
        let grain = self.grain.load(Ordering::Relaxed);
        let aws = Arc::clone(self);
        let chunks = frames.into_iter().flat_map(move |frame| {
            let bytes = match frame {
                Frame::Event(name, payload) => encode("event", ":event-type", name, &payload),
                Frame::Exception(name) => {
                    let payload = json!({"message": "Value 'How many compartments' at arn:aws:bedrock failed"});
                    encode("exception", ":exception-type", name, &payload)
                }
                Frame::Status(status) => {
                    aws.set_status(status);
                    Vec::new()
                }
            };
            let grain = if grain == 0 { bytes.len().max(1) } else { grain };
            bytes.chunks(grain).map(Bytes::copy_from_slice).collect::<Vec<_>>()
        });
        let dropped = Dropped(Arc::clone(&self.dropped));
        let chunks = futures::stream::iter(chunks).map(|chunk| Ok(BodyFrame::data(chunk)));
        let end = futures::stream::once(async move {
            let _dropped = dropped;
            match end {
                End::Close => None,
                End::Cut => Some(Err(std::io::Error::other("connection reset"))),
                End::Stall => std::future::pending().await,
            }
        });
        let body = StreamBody::new(chunks.chain(end.filter_map(std::future::ready)));
        let mut response = HttpResponse::new(200.try_into().unwrap(), SdkBody::from_body_1_x(body));
        response
            .headers_mut()
            .insert("content-type", "application/vnd.amazon.eventstream");
        if operation == ASK_STREAM {
            response
                .headers_mut()
                .insert("x-amzn-bedrock-knowledge-base-session-id", super::SESSION);
        }
        response
    }
}

/// Notes that a stream was dropped, be it at its end.
struct Dropped(Arc<AtomicBool>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl HttpConnector for Shared {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let signed = request.headers().get("authorization").unwrap();
        let signer = [OWN_KEY, TENANT_KEY].map(|key| signed.contains(&format!("Credential={key}/")));
        if request.uri() == "http://127.0.0.1:1/" && request.headers().get("x-amz-target").is_none() {
            assert_eq!(signer, [true, false]);
            let body = std::str::from_utf8(request.body().bytes().unwrap()).unwrap();
            return self.0.sts(body);
        }
        let body: Value = serde_json::from_slice(request.body().bytes().unwrap()).unwrap();
        let is_table = request.headers().get("x-amz-target").is_some();
        // The table is the tenant's business, and Bedrock the function's.
        assert_eq!(signer, [!is_table, is_table]);
        if let Some(operation) = request.headers().get("x-amz-target") {
            return HttpConnectorFuture::ready(Ok(match self.0.table(operation, &body) {
                Ok(answer) => respond(200, &answer),
                Err(()) => {
                    let mut response = respond(400, &json!({"message": "The conditional request failed"}));
                    let code = "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException";
                    response.headers_mut().insert("x-amzn-errortype", code);
                    response
                }
            }));
        }
        let path = request.uri().trim_start_matches("http://127.0.0.1:1");
        let operation = match path {
            "/retrieveAndGenerate" => ASK,
            "/retrieveAndGenerateStream" => ASK_STREAM,
            "/knowledgebases/KB12345678/retrieve" => RETRIEVE,
            "/guardrail/abc123/version/7/apply" => APPLY_GUARDRAIL,
            _ if path.starts_with("/model/") && path.ends_with("/converse") => CONVERSE,
            _ if path.starts_with("/model/") && path.ends_with("/converse-stream") => CONVERSE_STREAM,
            other => panic!("{other}"),
        };
        self.0.bedrock(operation, body)
    }
}

#[derive(Debug)]
struct Shared(Arc<Aws>);

/// The account that `aws` is.
pub fn sdk(aws: &Arc<Aws>) -> SdkConfig {
    let aws = Arc::clone(aws);
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-west-1"))
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
            OWN_KEY, "b", None, None, "test",
        )))
        .endpoint_url("http://127.0.0.1:1")
        .http_client(http_client_fn(move |_, _| {
            SharedHttpConnector::new(Shared(Arc::clone(&aws)))
        }))
        .build()
}

fn respond(status: u16, body: &Value) -> HttpResponse {
    let mut response = HttpResponse::new(status.try_into().unwrap(), SdkBody::from(body.to_string()));
    response.headers_mut().insert("x-amzn-requestid", "aws-1");
    response
}

fn encode(kind: &str, name_header: &'static str, name: &'static str, payload: &Value) -> Vec<u8> {
    let text = |text: &str| HeaderValue::String(text.to_owned().into());
    let message = Message::new(payload.to_string().into_bytes())
        .add_header(Header::new(":message-type", text(kind)))
        .add_header(Header::new(name_header, text(name)))
        .add_header(Header::new(":content-type", text("application/json")));
    let mut bytes = Vec::new();
    write_message_to(&message, &mut bytes).unwrap();
    bytes
}

fn key(item: &Value) -> (String, String) {
    let part = |name: &str| item[name]["S"].as_str().unwrap().to_owned();
    (part("pk"), part("sk"))
}

/// DynamoDB's value as plain JSON.
fn plain(value: &Value) -> Value {
    let (kind, value) = value.as_object().unwrap().iter().next().unwrap();
    match kind.as_str() {
        "N" => serde_json::from_str(value.as_str().unwrap()).unwrap(),
        "L" => value.as_array().unwrap().iter().map(plain).collect(),
        "M" => {
            let members = value.as_object().unwrap().iter();
            Value::Object(members.map(|(name, value)| (name.clone(), plain(value))).collect())
        }
        "NULL" => Value::Null,
        _ => value.clone(),
    }
}

pub fn passage(tenant: &str, document: &str) -> Value {
    passage_saying(tenant, document, "The hull has twelve compartments.")
}

pub fn passage_saying(tenant: &str, document: &str, text: &str) -> Value {
    json!({
        "content": {"type": "TEXT", "text": text},
        "location": {"type": "S3", "s3Location": {"uri": format!("s3://{BUCKET}/t/{tenant}/{document}.pdf")}},
        "metadata": {
            "tenantId": tenant, "audience": "*", "documentId": document, "title": "Handbook",
            "x-amz-bedrock-kb-source-uri": format!("s3://{BUCKET}/t/{tenant}/{document}.pdf"),
            "x-amz-bedrock-kb-data-source-id": "DS12345678",
        },
    })
}

/// What Retrieve finds.
pub fn found(passages: &[Value]) -> Reply {
    Reply::Answer(json!({"retrievalResults": passages}))
}

/// What Converse answers.
pub fn spoken(text: &str, stop: &str) -> Reply {
    Reply::Answer(json!({
        "output": {"message": {"role": "assistant", "content": [{"text": text}]}},
        "stopReason": stop,
        "usage": {"inputTokens": 100, "outputTokens": 10, "totalTokens": 110},
        "metrics": {"latencyMs": 1},
    }))
}

/// The frames of an answer of ConverseStream.
pub fn speaking(deltas: &[&str], stop: &str) -> Vec<Frame> {
    let mut frames = vec![Frame::Event("messageStart", json!({"role": "assistant"}))];
    frames.extend(deltas.iter().map(|text| {
        Frame::Event(
            "contentBlockDelta",
            json!({"contentBlockIndex": 0, "delta": {"text": text}}),
        )
    }));
    frames.push(Frame::Event("contentBlockStop", json!({"contentBlockIndex": 0})));
    frames.push(Frame::Event("messageStop", json!({"stopReason": stop})));
    frames.push(Frame::Event(
        "metadata",
        json!({
            "usage": {"inputTokens": 200, "outputTokens": 20, "totalTokens": 220},
            "metrics": {"latencyMs": 1},
        }),
    ));
    frames
}

/// An event of RetrieveAndGenerateStream with more of the text.
pub fn output(text: &str) -> Frame {
    Frame::Event("output", json!({"text": text}))
}

/// An event of RetrieveAndGenerateStream with what a part of the text rests on.
pub fn cited(text: &str, references: &[Value]) -> Frame {
    Frame::Event(
        "citation",
        json!({
            "generatedResponsePart": {"textResponsePart": {"text": text, "span": {"start": 0, "end": 1}}},
            "retrievedReferences": references,
        }),
    )
}
