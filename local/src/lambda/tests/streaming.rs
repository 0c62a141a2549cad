//! Streamed responses of the real runtime.

use futures::StreamExt as _;

use super::*;

/// What the Rust runtime writes before the first piece.
const PRELUDE: &str =
    "{\"statusCode\":200,\"headers\":{\"content-type\":\"application/octet-stream\"},\"cookies\":[]}\0\0\0\0\0\0\0\0";

async fn begin(lambda: &Lambda, event: Value) -> ResponseStream {
    let (id, payload) = (LogicalId::new("Isolated"), Bytes::from(event.to_string()));
    let begun = lambda.invoke_with_response_stream(&id, Some("acme"), payload);
    tokio::time::timeout(PATIENCE, begun).await.unwrap().unwrap()
}

/// Everything up to the moment when it ends with this text.
async fn read_until(stream: &mut ResponseStream, text: &str) -> String {
    let mut read = Vec::new();
    while !read.ends_with(text.as_bytes()) {
        let piece = tokio::time::timeout(PATIENCE, stream.next()).await;
        read.extend_from_slice(&piece.unwrap().expect(text).unwrap());
    }
    String::from_utf8(read).unwrap()
}

async fn rest(stream: &mut ResponseStream) -> (String, Option<String>) {
    let mut read = Vec::new();
    while let Some(piece) = tokio::time::timeout(PATIENCE, stream.next()).await.unwrap() {
        match piece {
            Ok(piece) => read.extend_from_slice(&piece),
            Err(error) => {
                assert!(stream.next().await.is_none());
                let document: Value = serde_json::from_slice(&error.document).unwrap();
                let error_type = document["errorType"].as_str().unwrap().to_owned();
                return (String::from_utf8(read).unwrap(), Some(error_type));
            }
        }
    }
    (String::from_utf8(read).unwrap(), None)
}

/// The file by which a function is told to go on.
struct Turn(tempfile::NamedTempFile);

impl Turn {
    fn new() -> Self {
        Self(tempfile::NamedTempFile::new().unwrap())
    }

    fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    fn next(&self) {
        use std::io::Write as _;
        self.0.as_file().write_all(b".").unwrap();
    }
}

async fn logged(lambda: &Lambda, text: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !lambda.logs().iter().any(|line| line.text == text) {
        assert!(Instant::now() < deadline, "{:#?}", lambda.logs());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn pieces_come_one_by_one_while_the_function_is_at_work() {
    let lambda = lambda(settings());
    let turn = Turn::new();
    let pieces = ["one", "two\r\n", "\u{2028}drei", ""];
    let mut stream = begin(&lambda, json!({"do": "stream", "pieces": pieces, "turn": turn.path()})).await;
    assert_eq!(read_until(&mut stream, "one").await, format!("{PRELUDE}one"));
    assert_eq!(lambda.processes()[0].state, ProcessState::Busy);
    turn.next();
    assert_eq!(read_until(&mut stream, "\r\n").await, "two\r\n");
    // Its process is not given another event meanwhile.
    ok(&ask(&lambda, "acme", json!({})).await);
    assert_eq!(lambda.processes().len(), 2);
    turn.next();
    assert_eq!(read_until(&mut stream, "drei").await, "\u{2028}drei");
    turn.next();
    assert_eq!(rest(&mut stream).await, (String::new(), None));
    // It counts as vacant before its reader knows of the end.
    let others = [ask(&lambda, "acme", json!({})), ask(&lambda, "acme", json!({}))];
    futures::future::join_all(others).await.iter().for_each(|outcome| {
        ok(outcome);
    });
    assert_eq!(lambda.processes().len(), 2);
}

#[tokio::test]
async fn a_buffered_answer_is_one_piece_and_an_error_the_end() {
    let lambda = lambda(settings());
    let (answer, end) = rest(&mut begin(&lambda, json!({})).await).await;
    assert_eq!(
        serde_json::from_str::<Value>(&answer).unwrap()["context"]["tenant_id"],
        "acme"
    );
    assert_eq!(end, None);
    let mut failed = begin(&lambda, json!({"do": "fail"})).await;
    let (nothing, end) = rest(&mut failed).await;
    assert_eq!(nothing, "");
    assert!(end.is_some());
    let refused = lambda
        .invoke_with_response_stream(&LogicalId::new("Isolated"), None, Bytes::from_static(b"{}"))
        .await
        .map(|_| ())
        .unwrap_err();
    assert_eq!(refused.code(), "InvalidParameterValueException");
}

#[tokio::test]
async fn invoked_for_a_whole_answer_a_streamed_one_is_put_together() {
    let lambda = lambda(settings());
    let whole = ask(&lambda, "acme", json!({"do": "stream", "pieces": ["a", "b"]})).await;
    assert_eq!(whole, Outcome::Buffered(Bytes::from(format!("{PRELUDE}ab"))));
    let large = "x".repeat(MAX_RESPONSE_BYTES / 4);
    let event = json!({"do": "stream", "pieces": [large], "times": 4});
    let over = ask(&lambda, "acme", event.clone()).await;
    assert_eq!(error(&over).0, "Function.ResponseSizeTooLarge");
    // As a stream it has its place.
    let (streamed, end) = rest(&mut begin(&lambda, event).await).await;
    assert_eq!((streamed.len(), end), (PRELUDE.len() + 4 * large.len(), None));
    assert_eq!(lambda.processes().len(), 1);
}

#[tokio::test]
async fn a_stream_that_is_not_whole_ends_with_an_error() {
    let lambda = with(|function| function.timeout = Duration::from_secs(1), settings());
    let event = |then: &str| json!({"do": "stream", "pieces": ["a"], "then": then});
    let mut hung = begin(&lambda, event("hang")).await;
    assert_eq!(
        rest(&mut hung).await,
        (format!("{PRELUDE}a"), Some("Sandbox.Timedout".to_owned()))
    );
    until(&lambda, |processes| {
        processes[0].state == ProcessState::Ended(End::TimedOut)
    })
    .await;
    let mut ended = begin(&lambda, event("exit")).await;
    let (text, error) = rest(&mut ended).await;
    assert_eq!(text, format!("{PRELUDE}a"));
    // Whichever is seen first, the broken connection or the end of the process.
    assert!(
        ["Runtime.TruncatedResponse", "Runtime.ExitError"].contains(&error.as_deref().unwrap()),
        "{error:?}"
    );
    let mut stopped = begin(&lambda, event("hang")).await;
    read_until(&mut stopped, "a").await;
    lambda.stop().await;
    assert_eq!(
        rest(&mut stopped).await,
        (String::new(), Some("Runtime.ExitError".to_owned()))
    );
}

#[tokio::test]
async fn a_departed_reader_is_swallowed() {
    let lambda = lambda(settings());
    let turn = Turn::new();
    let event = json!({"do": "stream", "pieces": ["a", "b", "c"], "turn": turn.path()});
    let mut stream = begin(&lambda, event).await;
    read_until(&mut stream, "a").await;
    drop(stream);
    turn.next();
    turn.next();
    logged(&lambda, "all pieces were taken").await;
    until(&lambda, |processes| processes[0].state == ProcessState::Idle).await;
    ok(&ask(&lambda, "acme", json!({})).await);
    assert_eq!(lambda.processes().len(), 1);
}

#[tokio::test]
async fn a_departed_reader_is_refused_where_that_is_asked_for() {
    let lambda = lambda(settings());
    lambda.set_departure("acme", Departure::Refused);
    let turn = Turn::new();
    let event = json!({"do": "stream", "pieces": ["a", "b"], "turn": turn.path()});
    let mut stream = begin(&lambda, event).await;
    read_until(&mut stream, "a").await;
    drop(stream);
    // The runtime itself gives up, although nothing more was written.
    let processes = until(&lambda, |processes| {
        processes[0].state == ProcessState::Ended(End::Exited)
    })
    .await;
    assert_eq!(processes.len(), 1);
    // What is read to its end is not refused.
    let whole = ask(&lambda, "acme", json!({"do": "stream", "pieces": ["a"]})).await;
    assert_eq!(whole, Outcome::Buffered(Bytes::from(format!("{PRELUDE}a"))));
}
