//! A Lambda function for tests of the local stack: it answers with its event and context, or misbehaves as the event asks.
//!
//! The event's member `do` chooses: `echo` (also when there is none), `environment`, `fail`, `panic`, `exit` (with
//! `code`), `abort`, `hang`, `big` (with `bytes`), `log` (with `text`), `stream`. The variable `ECHO_START` makes the start itself fail: `exit`,
//! `error` or `hang`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use lambda_runtime::streaming::{Body, channel};
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
            let (mut sender, body) = channel();
            sender.send_data("streamed".into()).await?;
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
