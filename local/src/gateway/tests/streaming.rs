//! Transfer mode STREAM: preludes, pieces, ends.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use tokio::sync::mpsc;

use super::*;

/// What a test writes as the function.
type Pieces = mpsc::UnboundedSender<Result<Bytes, FunctionFailed>>;

/// The contract, with a streamed operation for anybody and one of a tenant.
fn streaming_contract() -> Value {
    let mut document = contract();
    for (path, function) in [("/public", "plain"), ("/items", "isolated")] {
        let item = document["paths"][path].as_object_mut().unwrap();
        let operation = item.values_mut().next().unwrap();
        let arn = format!("arn:aws:lambda:us-east-1:123456789012:function:{function}");
        let integration = &mut operation["x-amazon-apigateway-integration"];
        integration["uri"] = json!(format!(
            "arn:aws:apigateway:us-east-1:lambda:path/2021-11-15/functions/{arn}/response-streaming-invocations"
        ));
        integration["responseTransferMode"] = json!("STREAM");
    }
    document
}

fn failed() -> FunctionFailed {
    FunctionFailed {
        document: Bytes::from_static(b"{\"errorType\":\"Sandbox.Timedout\"}"),
    }
}

/// A function that writes these pieces and ends.
fn writing(pieces: &[&[u8]]) -> Functions {
    let pieces: Vec<Bytes> = pieces.iter().map(|piece| Bytes::copy_from_slice(piece)).collect();
    let function = move |_event| Ok(stream::iter(pieces.clone().into_iter().map(Ok)).boxed());
    Functions::default()
        .with("authorizer", authorizer)
        .streaming("plain", function.clone())
        .streaming("isolated", function)
}

/// A function that writes what the test sends, for one request.
fn held() -> (Functions, Pieces) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let receiver = Mutex::new(Some(receiver));
    let functions = Functions::default().streaming("plain", move |_event| {
        let receiver = receiver.lock().unwrap().take().unwrap();
        let pieces = stream::unfold(receiver, |mut receiver: mpsc::UnboundedReceiver<_>| async {
            receiver.recv().await.map(|piece| (piece, receiver))
        });
        Ok(pieces.boxed())
    });
    (functions, sender)
}

async fn start(functions: Functions) -> Fixture {
    Fixture::start(streaming_contract(), functions).await
}

const HEAD: &[u8] = b"{\"statusCode\":201,\"headers\":{\"content-type\":\"text/event-stream\"}}\0\0\0\0\0\0\0\0";

fn write(pieces: &Pieces, piece: &'static [u8]) {
    pieces.send(Ok(Bytes::from_static(piece))).unwrap();
}

async fn ended(fixture: &Fixture) -> AccessLogEntry {
    let ended = async {
        loop {
            if let Some(entry) = fixture.gateway.requests().pop() {
                return entry;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap()
}

#[tokio::test]
async fn the_head_and_every_piece_leave_at_once() {
    let (functions, pieces) = held();
    let fixture = start(functions).await;
    write(&pieces, HEAD);
    let mut response = fixture.get("/public").send().await.unwrap();
    assert_eq!(response.status(), 201);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert!(response.headers().contains_key("x-amzn-requestid"));
    assert!(response.headers().contains_key("x-amzn-trace-id"));
    for piece in [b"data: 1\n\n".as_slice(), b"\xc3", b"\xa4\0\0\0\0\0\0\0\0", b"\r\n"] {
        write(&pieces, piece);
        assert_eq!(response.chunk().await.unwrap().unwrap(), piece);
        assert!(fixture.gateway.requests().is_empty());
    }
    drop(pieces);
    assert_eq!(response.chunk().await.unwrap(), None);
    let entry = fixture.last();
    let log = entry.stream.unwrap();
    assert_eq!((log.end, log.bytes, entry.status), (StreamEnd::Complete, 21, 201));
    let (head, first) = (entry.integration_latency.unwrap(), log.first_byte.unwrap());
    assert!(
        head <= first && first <= entry.latency,
        "{head:?} {first:?} {:?}",
        entry.latency
    );
}

#[tokio::test]
async fn a_prelude_may_come_in_any_pieces_and_with_the_first_bytes() {
    let whole = [HEAD, b"body"].concat();
    for at in 0..whole.len() {
        let (a, b) = whole.split_at(at);
        let fixture = start(writing(&[a, b, b"", b"."])).await;
        let (status, _, body) = send(fixture.get("/public")).await;
        assert_eq!((status, body.as_str()), (201, "body."), "{at}");
    }
    let bytes: Vec<&[u8]> = whole.chunks(1).collect();
    let fixture = start(writing(&bytes)).await;
    assert_eq!(send(fixture.get("/public")).await.2, "body");
}

#[tokio::test]
async fn a_prelude_has_its_members_and_its_place() {
    let nuls = "\0".repeat(8);
    let padded = |length: usize| {
        let blank = " ".repeat(length - nuls.len() - 2);
        format!("{{}}{blank}{nuls}.")
    };
    for (payload, expect) in [
        (format!("{{}}{nuls}."), Some((200, "."))),
        (format!("{{\"statusCode\":\"404\"}}{nuls}"), Some((404, ""))),
        // Nine are eight and a byte of the body.
        (format!("{{}}{nuls}\0."), Some((200, "\0."))),
        (padded(16_384), Some((200, "."))),
        (padded(16_385), None),
        ("{}\0\0\0\0\0\0\0".to_owned(), None),
        (nuls.clone(), None),
        (format!("[]{nuls}"), None),
        (format!("{{\"body\":\"x\"}}{nuls}."), None),
        (format!("{{\"isBase64Encoded\":false}}{nuls}."), None),
        (format!("{{\"statusCode\":99}}{nuls}."), None),
        // What the Rust runtime makes of a repeated header.
        (format!("{{\"headers\":{{\"x-a\":[\"1\",\"2\"]}}}}{nuls}."), None),
        (format!("{{\"cookies\":\"a\"}}{nuls}."), None),
        (format!("{{\"cookies\":[1]}}{nuls}."), None),
        // The buffered format.
        ("{\"statusCode\":200,\"body\":\"x\"}".to_owned(), None),
        (String::new(), None),
    ] {
        let fixture = start(writing(&[payload.as_bytes()])).await;
        let (status, headers, body) = send(fixture.get("/public")).await;
        match expect {
            Some((expect, text)) => {
                assert_eq!((status, body.as_str()), (expect, text), "{payload:?}");
                assert_eq!(headers["content-type"], "application/json");
            }
            None => {
                assert_eq!(
                    (status, body.as_str()),
                    (500, "{\"message\":\"Internal server error\"}"),
                    "{payload:?}"
                );
                assert_eq!(fixture.last().response_type, Some("DEFAULT_5XX"));
                assert_eq!(fixture.last().stream, None);
            }
        }
    }
}

#[tokio::test]
async fn a_preludes_headers_are_those_of_any_answer() {
    let prelude = json!({
        "headers": {"X-A": "1", "Content-Length": "7", "Transfer-Encoding": "identity"},
        "multiValueHeaders": {"x-b": ["1", "2"]},
        "cookies": ["a=1; Path=/", "b=2"],
    });
    let payload = format!("{prelude}\0\0\0\0\0\0\0\0body");
    let fixture = start(writing(&[payload.as_bytes()])).await;
    let (_, headers, body) = send(fixture.get("/public")).await;
    let all = |name: &str| -> Vec<&str> {
        headers
            .get_all(name)
            .iter()
            .map(|value| value.to_str().unwrap())
            .collect()
    };
    assert_eq!((all("x-a"), all("x-b")), (vec!["1"], vec!["1", "2"]));
    assert_eq!(all("set-cookie"), ["a=1; Path=/", "b=2"]);
    assert_eq!(all("x-amzn-remapped-content-length"), ["7"]);
    assert_eq!(all("transfer-encoding"), ["chunked"]);
    assert_eq!(body, "body");
}

#[tokio::test]
async fn the_tenant_and_the_refusals_are_those_of_a_buffered_operation() {
    let fixture = start(writing(&[HEAD, b"x"])).await;
    assert_eq!(send(fixture.get("/items").bearer_auth("allow-acme")).await.2, "x");
    assert_eq!(fixture.functions.calls("isolated")[0].tenant.as_deref(), Some("acme"));
    assert_eq!(fixture.last().tenant.as_deref(), Some("acme"));
    let (status, headers, _) = send(fixture.get("/items").bearer_auth("deny-forbidden")).await;
    assert_eq!(
        (status, headers["content-type"].to_str().unwrap()),
        (403, "application/json")
    );
    assert_eq!(send(fixture.get("/items")).await.0, 401);
    assert_eq!(send(fixture.get("/items").bearer_auth("notenant-")).await.0, 500);
    assert_eq!(fixture.functions.calls("isolated").len(), 1);

    for (error, expect) in [
        (InvokeError::TooManyRequests, 500),
        (InvokeError::TimedOut, 502),
        (InvokeError::RequestTooLarge, 413),
    ] {
        let fixture = start(Functions::default().streaming("plain", move |_| Err(error.clone()))).await;
        assert_eq!(status_of(&fixture).await, expect);
    }
}

async fn status_of(fixture: &Fixture) -> u16 {
    status(fixture.get("/public")).await
}

#[tokio::test]
async fn a_failure_before_the_end_of_the_prelude_is_answered_and_one_after_it_cuts() {
    let (functions, pieces) = held();
    let fixture = start(functions).await;
    write(&pieces, b"{}\0\0\0");
    pieces.send(Err(failed())).unwrap();
    assert_eq!(status_of(&fixture).await, 502);
    assert_eq!(fixture.last().stream, None);

    let (functions, pieces) = held();
    let fixture = start(functions).await;
    write(&pieces, HEAD);
    write(&pieces, b"half");
    pieces.send(Err(failed())).unwrap();
    let mut response = fixture.get("/public").send().await.unwrap();
    assert_eq!(response.status(), 201);
    assert_eq!(response.chunk().await.unwrap().unwrap(), "half");
    assert!(response.chunk().await.is_err());
    let log = fixture.last().stream.unwrap();
    assert_eq!((log.end, log.bytes), (StreamEnd::FunctionFailed, 4));
}

#[tokio::test]
async fn an_integrations_time_counts_to_the_end_of_the_stream() {
    let mut document = streaming_contract();
    document["paths"]["/public"]["x-amazon-apigateway-any-method"]["x-amazon-apigateway-integration"]["timeoutInMillis"] =
        json!(100);
    let (functions, pieces) = held();
    let fixture = Fixture::start(document.clone(), functions).await;
    write(&pieces, b"{}");
    assert_eq!(status_of(&fixture).await, 504);
    // Nobody reads any more.
    tokio::time::timeout(Duration::from_secs(10), pieces.closed())
        .await
        .unwrap();

    let (functions, pieces) = held();
    let fixture = Fixture::start(document, functions).await;
    write(&pieces, HEAD);
    let mut response = fixture.get("/public").send().await.unwrap();
    let writing = async {
        // Not idle for a moment, and cut all the same.
        while pieces.send(Ok(Bytes::from_static(b"."))).is_ok() {
            tokio::task::yield_now().await;
        }
    };
    let reading = async {
        while let Ok(piece) = response.chunk().await {
            assert!(piece.is_some(), "it was cut and looks whole");
        }
    };
    tokio::time::timeout(Duration::from_secs(10), async { tokio::join!(writing, reading) })
        .await
        .unwrap();
    assert_eq!(fixture.last().stream.unwrap().end, StreamEnd::IntegrationTimeout);
}

#[tokio::test]
async fn a_stream_may_not_be_idle() {
    let (functions, pieces) = held();
    let functions = Arc::new(functions);
    let config = GatewayConfig {
        stream_idle: Duration::from_millis(100),
        ..GatewayConfig::new(streaming_contract())
    };
    let gateway = Gateway::start(config, functions).await.unwrap();
    write(&pieces, HEAD);
    let mut response = reqwest::get(format!("{}/public", gateway.base_url())).await.unwrap();
    write(&pieces, b"x");
    assert_eq!(response.chunk().await.unwrap().unwrap(), "x");
    // No byte for the client.
    write(&pieces, b"");
    assert!(response.chunk().await.is_err());
    assert_eq!(gateway.requests()[0].stream.as_ref().unwrap().end, StreamEnd::Idle);
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_although_nothing_is_written() {
    let (functions, pieces) = held();
    let fixture = start(functions).await;
    write(&pieces, HEAD);
    write(&pieces, b"x");
    let mut response = fixture.get("/public").send().await.unwrap();
    assert_eq!(response.chunk().await.unwrap().unwrap(), "x");
    drop(response);
    tokio::time::timeout(Duration::from_secs(10), pieces.closed())
        .await
        .unwrap();
    assert_eq!(ended(&fixture).await.stream.unwrap().end, StreamEnd::Abandoned);
}

#[tokio::test]
async fn a_streamed_answer_on_a_buffered_route_loses_its_body() {
    let payload = [HEAD, b"body"].concat();
    let function = move |_event| Ok(Outcome::Buffered(Bytes::from(payload.clone())));
    let fixture = Fixture::start(contract(), Functions::default().with("plain", function)).await;
    let (status, headers, body) = send(fixture.get("/public")).await;
    assert_eq!((status, body.as_str()), (201, ""));
    assert_eq!(headers["content-type"], "text/event-stream");
    assert_eq!(headers["content-length"], "0");
    assert_eq!(fixture.last().stream, None);
}

#[tokio::test]
async fn an_answer_without_a_body_has_none() {
    let payload = b"{\"statusCode\":204}\0\0\0\0\0\0\0\0body";
    let fixture = start(writing(&[payload])).await;
    let (status, headers, body) = send(fixture.get("/public")).await;
    assert_eq!((status, body.as_str()), (204, ""));
    assert!(!headers.contains_key("transfer-encoding"));
}
