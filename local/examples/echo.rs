//! A Lambda function for tests of the local stack: it answers with its event and context, or misbehaves as the event asks.
//!
//! The event's member `do` chooses: `echo` (also when there is none), `environment`, `fail`, `panic`, `exit` (with
//! `code`), `abort`, `hang`, `big` (with `bytes`), `log` (with `text`), `stream`. The variable `ECHO_START` makes the start
//! itself fail: `exit`, `error` or `hang`.
//!
//! `stream` writes its `pieces`, all of them `times` times (1). Each but the first waits until the file `turn`, if there is
//! one, has at least as many bytes as there are pieces before it, so that a test says when. `then` says how it goes on: it
//! ends (also when there is none), `exit` or `hang`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use lambda_runtime::streaming::{Body, Sender, channel};
use lambda_runtime::{Error, FunctionResponse, LambdaEvent, StreamResponse, service_fn};
use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    match std::env::var("ECHO_START").as_deref() {
        Ok("exit") => std::process::exit(3),
        Ok("error") => return Ok(report_start_failure()?),
        Ok("hang") => hang().await,
        _ => {}
    }
    lambda_runtime::run(service_fn(answer)).await
}

async fn answer(event: LambdaEvent<Value>) -> Result<FunctionResponse<Value, Body>, Error> {
    let (event, context) = event.into_parts();
    let number = |name: &str| event.get(name).and_then(Value::as_u64).unwrap_or_default();
    let answer = match event.get("do").and_then(Value::as_str).unwrap_or("echo") {
        "environment" => std::env::vars()
            .map(|(name, value)| (name, Value::from(value)))
            .collect(),
        "fail" => return Err("the event asked for it".into()),
        #[expect(clippy::panic, reason = "what a panic becomes is what the test wants to see")]
        "panic" => panic!("the event asked for it"),
        "exit" => std::process::exit(i32::try_from(number("code"))?),
        "abort" => std::process::abort(),
        "hang" => hang().await,
        "big" => Value::from("x".repeat(usize::try_from(number("bytes"))?)),
        "log" => {
            let text = event.get("text").and_then(Value::as_str).unwrap_or_default();
            writeln!(std::io::stdout(), "{text}")?;
            writeln!(std::io::stderr(), "{text}")?;
            Value::Null
        }
        "stream" => {
            let (sender, body) = channel();
            tokio::spawn(stream(event, sender));
            return Ok(FunctionResponse::StreamingResponse(StreamResponse::from(body)));
        }
        _ => json!({
            "event": event,
            "pid": std::process::id(),
            "context": {
                "request_id": context.request_id,
                "tenant_id": context.tenant_id,
                "deadline": context.deadline,
                "function_arn": context.invoked_function_arn,
                "trace_id": context.xray_trace_id,
            },
        }),
    };
    Ok(FunctionResponse::BufferedResponse(answer))
}

async fn stream(event: Value, mut sender: Sender) -> Result<(), Error> {
    let pieces = event
        .get("pieces")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let times = event.get("times").and_then(Value::as_u64).unwrap_or(1);
    let pieces = vec![pieces; usize::try_from(times)?].concat();
    for (number, piece) in pieces.iter().enumerate() {
        if let Some(turn) = event.get("turn").and_then(Value::as_str) {
            while std::fs::metadata(turn)?.len() < u64::try_from(number)? {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        let piece = piece.as_str().unwrap_or_default().to_owned();
        if sender.send_data(piece.into()).await.is_err() {
            writeln!(std::io::stdout(), "piece {number} was refused")?;
            return Ok(());
        }
    }
    writeln!(std::io::stdout(), "all pieces were taken")?;
    match event.get("then").and_then(Value::as_str) {
        Some("exit") => {
            // What was written must be on its way.
            tokio::time::sleep(Duration::from_millis(20)).await;
            std::process::exit(4)
        }
        Some("hang") => hang().await,
        _ => {}
    }
    Ok(())
}

async fn hang<T>() -> T {
    loop {
        tokio::time::sleep(Duration::from_secs(3600)).await;
    }
}

/// `init/error`, which the Rust runtime itself never calls.
fn report_start_failure() -> std::io::Result<()> {
    let body = r#"{"errorType":"Echo.StartFailed","errorMessage":"the environment asked for it"}"#;
    let address = std::env::var("AWS_LAMBDA_RUNTIME_API").unwrap_or_default();
    let mut stream = TcpStream::connect(address)?;
    write!(
        stream,
        "POST /2018-06-01/runtime/init/error HTTP/1.1\r\nhost: runtime\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(())
}
