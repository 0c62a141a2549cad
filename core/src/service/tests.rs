//! The frame on the wire: this test binary once more, as a function's process, against a small fake of the Runtime API.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::SystemTime;

use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::IntervalStream;
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context as LayerContext, Layer as LogLayer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

use super::*;
use crate::config::Environment;

/// How long the parent waits for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

// The function.

#[derive(Default)]
struct Function {
    background: Background,
    runtime_api: String,
}

impl Handler for Function {
    const STREAMED: &'static [(&'static str, &'static str)] = &[("POST", "/stream"), ("POST", "/problem")];

    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        match request.route() {
            ("POST", "/stream") if request.body() == b"endless" => Ok(self.endless()),
            ("POST", "/stream" | "/buffered") => {
                let pieces =
                    ["data: 1\n\n", "", "data: \u{2028}\n\n"].map(|piece| Bytes::from_static(piece.as_bytes()));
                Ok(Response::event_stream(tokio_stream::iter(pieces)))
            }
            ("POST", "/problem") => Err(Error::UpstreamThrottled("too many".into())),
            _ => Response::json(StatusCode::OK, &json!({"plain": true})),
        }
    }

    fn background(&self) -> Option<&Background> {
        Some(&self.background)
    }
}

impl Function {
    /// One piece, and then empty ones until nobody takes them. That is noticed in the background, where something is left
    /// to be done that takes a while.
    fn endless(&self) -> Response {
        let (taken, gone) = oneshot::channel::<()>();
        let runtime_api = self.runtime_api.clone();
        self.background.spawn(async move {
            gone.await.unwrap_err();
            // In threads, so that only who waits for the background waits for them.
            let ask = |path: &'static str| {
                let runtime_api = runtime_api.clone();
                tokio::task::spawn_blocking(move || exchange(&runtime_api, path))
            };
            for _ in 0..200 {
                ask("/permit").await.unwrap();
            }
            ask("/finished").await.unwrap();
        });
        let probes = IntervalStream::new(tokio::time::interval(Duration::from_millis(5))).map(move |_| {
            let _taken = &taken;
            Bytes::new()
        });
        Response::event_stream(tokio_stream::once(Bytes::from_static(b"data: 1\n\n")).chain(probes))
    }
}

/// The function's process; without a Runtime API, as the suite runs it, it is none.
#[tokio::test]
async fn process() {
    let environment = Environment::from_process();
    let Some(runtime_api) = environment.optional("AWS_LAMBDA_RUNTIME_API") else {
        return;
    };
    let function = Function {
        background: Background::new(),
        runtime_api: runtime_api.to_owned(),
    };
    let outcome = run(function, Clock::system()).await;
    assert!(outcome.is_err(), "only a Runtime API that has gone ends it");
    exchange(runtime_api, "/ended");
}

fn exchange(address: &str, path: &str) {
    let mut connection = TcpStream::connect(address).unwrap();
    write!(
        connection,
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

// The fake.

/// What the fake does with an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Takes it to its end.
    Take,
    /// Hangs up in the middle of its body.
    HangUp,
    /// Answers in the middle of its body that it takes no more of it.
    Refuse,
}

/// What the function's process asked of the fake.
#[derive(Debug)]
enum Seen {
    Path(String),
    Answer { head: String, body: Vec<u8> },
}

struct RuntimeApi {
    seen: Receiver<Seen>,
    process: Child,
}

impl RuntimeApi {
    /// Starts the function, hands it one event after another, and treats its answers in that manner.
    fn start(events: impl IntoIterator<Item = Value>, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let events: Arc<Mutex<VecDeque<Value>>> = Arc::new(Mutex::new(events.into_iter().collect()));
        let (sender, seen) = channel();
        thread::spawn(move || {
            for connection in listener.incoming() {
                let (events, sender) = (Arc::clone(&events), sender.clone());
                // A connection ends with the process, or with the test that no longer listens.
                thread::spawn(move || while serve(connection.as_ref().unwrap(), &events, &sender, manner).is_some() {});
            }
        });
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "service::tests::process"])
            .env("AWS_LAMBDA_RUNTIME_API", address)
            .env("AWS_LAMBDA_FUNCTION_NAME", "function")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { seen, process }
    }

    fn next(&self) -> Seen {
        self.seen.recv_timeout(PATIENCE).expect("nothing more is asked")
    }

    /// The next thing that is not a request for an event.
    fn answer(&self) -> (String, Vec<u8>) {
        loop {
            match self.next() {
                Seen::Path(path) if path.ends_with("/next") => {}
                Seen::Path(path) => panic!("{path}"),
                Seen::Answer { head, body } => return (head, body),
            }
        }
    }

    /// What is asked for until `last`, but for what the work in the background asks for while it is under way.
    fn paths_until(&self, last: &str) -> Vec<String> {
        let mut paths = Vec::new();
        while paths.last().is_none_or(|path| path != last) {
            paths.push(match self.next() {
                Seen::Path(path) if path == "/permit" => continue,
                Seen::Path(path) => path.rsplit('/').next().unwrap().to_owned(),
                Seen::Answer { .. } => "answer".to_owned(),
            });
        }
        paths
    }
}

impl Drop for RuntimeApi {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Serves one request; none if the connection is over.
fn serve(connection: &TcpStream, events: &Mutex<VecDeque<Value>>, seen: &Sender<Seen>, manner: Manner) -> Option<()> {
    let mut reader = BufReader::new(connection);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let mut writer = connection;
    if path.ends_with("/next") {
        seen.send(Seen::Path(path)).ok()?;
        let event = events.lock().unwrap().pop_front();
        let Some(event) = event else {
            // No event comes any more: the process waits until it is ended.
            return reader.read(&mut [0]).ok().filter(|read| *read > 0).map(|_| ());
        };
        let event = event.to_string();
        let deadline = SystemTime::now() + Duration::from_secs(150);
        write!(
            writer,
            "HTTP/1.1 200 OK\r\nlambda-runtime-aws-request-id: i-1\r\nlambda-runtime-deadline-ms: {}\r\n\
             lambda-runtime-invoked-function-arn: arn\r\ncontent-length: {}\r\n\r\n{event}",
            deadline.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis(),
            event.len(),
        )
        .ok()
    } else if path.ends_with("/response") {
        let mut body = Vec::new();
        loop {
            match manner {
                Manner::HangUp if contains(&body, b"data: 1\n\n") => {
                    seen.send(Seen::Answer { head, body }).ok()?;
                    connection.shutdown(Shutdown::Both).unwrap();
                    return None;
                }
                Manner::Refuse if contains(&body, b"data: 1\n\n") => {
                    seen.send(Seen::Answer { head, body }).ok()?;
                    write!(
                        writer,
                        "HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
                    )
                    .ok()?;
                    connection.shutdown(Shutdown::Both).unwrap();
                    return None;
                }
                _ => {}
            }
            if !read_chunk(&mut reader, &head, &mut body)? {
                break;
            }
        }
        seen.send(Seen::Answer { head, body }).ok()?;
        write!(writer, "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").ok()
    } else {
        seen.send(Seen::Path(path)).ok()?;
        write!(writer, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()?;
        None
    }
}

/// Reads one more chunk of a body, or all of one that says how long it is; false at its end.
fn read_chunk(reader: &mut impl std::io::BufRead, head: &str, body: &mut Vec<u8>) -> Option<bool> {
    let head = head.to_ascii_lowercase();
    let length = if head.contains("transfer-encoding: chunked") {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        usize::from_str_radix(line.trim(), 16).ok()?
    } else {
        let (_, length) = head.split_once("content-length: ").unwrap();
        let mut whole = vec![0; length.lines().next().unwrap().parse().unwrap()];
        reader.read_exact(&mut whole).ok()?;
        body.append(&mut whole);
        return Some(false);
    };
    // With the line's end behind it.
    let mut chunk = vec![0; length + 2];
    reader.read_exact(&mut chunk).ok()?;
    chunk.truncate(length);
    body.append(&mut chunk);
    Some(length > 0)
}

fn contains(body: &[u8], part: &[u8]) -> bool {
    body.windows(part.len()).any(|window| window == part)
}

fn event(resource: &str, body: &str) -> Value {
    json!({
        "resource": resource,
        "path": resource,
        "httpMethod": "POST",
        "headers": {},
        "multiValueHeaders": {},
        "requestContext": {"requestId": "r-1", "httpMethod": "POST", "resourcePath": resource, "identity": {}},
        "body": body,
        "isBase64Encoded": false,
    })
}

/// A streamed body's prelude, and what stands behind the eight NULs.
fn split(body: &[u8]) -> (Value, &[u8]) {
    let end = body
        .windows(8)
        .position(|window| window == [0; 8])
        .expect("no eight NULs");
    assert!(end + 8 <= 16 * 1024, "the gateway looks no further");
    (serde_json::from_slice(&body[..end]).unwrap(), &body[end + 8..])
}

// The tests.

#[test]
fn a_stream_goes_out_in_the_format_that_the_gateway_reads() {
    let runtime_api = RuntimeApi::start([event("/stream", "words")], Manner::Take);
    let (head, body) = runtime_api.answer();
    let head = head.to_ascii_lowercase();
    assert!(
        head.starts_with("post /2018-06-01/runtime/invocation/i-1/response "),
        "{head}"
    );
    assert!(
        head.contains("lambda-runtime-function-response-mode: streaming\r\n"),
        "{head}"
    );
    assert!(
        head.contains("content-type: application/vnd.awslambda.http-integration-response\r\n"),
        "{head}"
    );
    let (prelude, payload) = split(&body);
    insta::assert_json_snapshot!(prelude, @r#"
    {
      "cookies": [],
      "headers": {
        "access-control-allow-origin": "*",
        "cache-control": "no-store",
        "content-type": "text/event-stream; charset=utf-8",
        "vary": "Authorization",
        "x-content-type-options": "nosniff"
      },
      "statusCode": 200
    }
    "#);
    // The empty piece between the two was not written: it would have ended the body.
    assert_eq!(payload, "data: 1\n\ndata: \u{2028}\n\n".as_bytes());
}

#[test]
fn a_problem_on_a_streamed_route_is_in_that_format_too() {
    let runtime_api = RuntimeApi::start([event("/problem", "")], Manner::Take);
    let (_, body) = runtime_api.answer();
    let (prelude, payload) = split(&body);
    assert_eq!(prelude["statusCode"], 503);
    assert_eq!(prelude["headers"]["content-type"], "application/problem+json");
    assert_eq!(prelude["headers"]["retry-after"], "2");
    assert!(
        prelude["headers"].as_object().unwrap().values().all(Value::is_string),
        "{prelude}"
    );
    let problem: Value = serde_json::from_slice(payload).unwrap();
    assert_eq!(
        (&problem["code"], &problem["request_id"]),
        (&json!("upstream_throttled"), &json!("r-1"))
    );
    // Also where the request can't even be read.
    let mut unreadable = event("/stream", "not base64");
    unreadable["isBase64Encoded"] = json!(true);
    let runtime_api = RuntimeApi::start([unreadable], Manner::Take);
    let (_, body) = runtime_api.answer();
    assert_eq!(split(&body).0["statusCode"], 500);
}

#[test]
fn other_routes_are_buffered_and_lose_no_body_to_a_stream() {
    let events = [event("/plain", ""), event("/buffered", "words")];
    let runtime_api = RuntimeApi::start(events, Manner::Take);
    let (head, body) = runtime_api.answer();
    assert!(!head.to_ascii_lowercase().contains("response-mode"), "{head}");
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (&answer["statusCode"], &answer["body"]),
        (&json!(200), &json!("{\"plain\":true}"))
    );
    let (_, body) = runtime_api.answer();
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(answer["statusCode"], 500);
    assert!(answer["body"].as_str().unwrap().contains("\"code\":\"internal\""));
}

#[test]
fn a_reader_who_has_gone_is_noticed_and_what_was_begun_is_finished_before_the_process_ends() {
    let runtime_api = RuntimeApi::start([event("/stream", "endless")], Manner::HangUp);
    let paths = runtime_api.paths_until("ended");
    assert_eq!(paths, ["next", "answer", "finished", "ended"]);
}

#[test]
fn what_was_begun_is_finished_before_the_next_event() {
    let events = [event("/stream", "endless"), event("/plain", "")];
    let runtime_api = RuntimeApi::start(events, Manner::Refuse);
    let paths = runtime_api.paths_until("finished");
    assert_eq!(paths, ["next", "answer", "finished"]);
    assert!(matches!(runtime_api.next(), Seen::Path(path) if path.ends_with("/next")));
    runtime_api.answer();
}

/// Notes what was logged, with the span around it.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> LogLayer<S> for Log {
    fn on_event(&self, event: &Event<'_>, context: LayerContext<'_, S>) {
        struct Message(String);
        impl tracing::field::Visit for Message {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                }
            }
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        let span = context.event_span(event).map_or("none", |span| span.name());
        self.0.lock().unwrap().push(format!("{span}: {}", message.0));
    }
}

impl Log {
    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

async fn streamed(body: &str) -> Pieces {
    let event: LambdaRequest = serde_json::from_value(event("/stream", body)).unwrap();
    let event = LambdaEvent::new(event, lambda_runtime::Context::default());
    match answer(&Function::default(), event, &Clock::system()).await {
        FunctionResponse::StreamingResponse(response) => response.stream,
        FunctionResponse::BufferedResponse(_) => panic!("buffered"),
    }
}

#[tokio::test]
async fn a_call_is_over_when_its_stream_is() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(log.clone()));
    let mut pieces = streamed("words").await;
    for _ in 0..3 {
        assert!(pieces.next().await.is_some());
    }
    assert_eq!(log.lines(), [""; 0]);
    assert!(pieces.next().await.is_none());
    assert_eq!(log.lines(), ["request: answered"]);
    assert!(pieces.next().await.is_none(), "an ended stream is not asked again");
    drop(pieces);
    assert_eq!(log.lines().len(), 1);

    let mut pieces = streamed("words").await;
    assert!(pieces.next().await.is_some());
    drop(pieces);
    assert_eq!(log.lines()[1..], ["request: the reader has gone"]);
}
