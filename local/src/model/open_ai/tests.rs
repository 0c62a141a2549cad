//! Against a small server that speaks the protocol, on the loopback interface.

use std::sync::Mutex;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode as Status};
use axum::routing::post;
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::model::speech::Message;

type Asked = Arc<Mutex<Vec<Value>>>;

/// A server that gives every request this status and body, and what it was asked.
async fn server(status: Status, body: &'static str) -> (String, Asked) {
    let asked = Asked::default();
    let answer = move |State(asked): State<Asked>, request: axum::Json<Value>| async move {
        asked.lock().unwrap().push(request.0);
        Response::builder()
            .status(status)
            .header("content-type", "text/event-stream")
            .body(Body::from(body))
            .unwrap()
    };
    let router = Router::new()
        .route("/v1/chat/completions", post(answer))
        .with_state(Arc::clone(&asked));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, asked)
}

fn conversation() -> Arc<Conversation> {
    Arc::new(Conversation {
        system: vec!["Be short.".to_owned()],
        messages: vec![Message {
            role: Role::User,
            blocks: vec!["<passage number=\"1\">a</passage>".to_owned(), "Who?".to_owned()],
        }],
        max_tokens: Some(64),
        temperature: Some(0.0),
        ..Conversation::default()
    })
}

async fn ask(url: &str) -> Result<Vec<Result<Utterance, Failure>>, Failure> {
    let model = OpenAi::new(url, "tiny").unwrap();
    Ok(model.begin(conversation()).await?.collect().await)
}

fn text(text: &str) -> Result<Utterance, Failure> {
    Ok(Utterance::Text(text.to_owned()))
}

const STREAM: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n\
    data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Quill\\n\"},\"finish_reason\":null}],\"usage\":null}\n\n\
    data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\" [1]\u{2028}\"}}]}\n\n\
    data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n\
    data: {\"choices\":[],\"usage\":{\"prompt_tokens\":31,\"completion_tokens\":7,\"total_tokens\":38}}\n\n\
    data: [DONE]\n\n";

#[tokio::test]
async fn an_answer_is_streamed_with_the_servers_own_count() {
    let (url, asked) = server(Status::OK, STREAM).await;
    let said = ask(&url).await.unwrap();
    let end = Ok(Utterance::End {
        reason: StopReason::EndTurn,
        usage: Some(Usage { input: 31, output: 7 }),
    });
    assert_eq!(said, [text("Quill\n"), text(" [1]\u{2028}"), end]);
    let request = asked.lock().unwrap().pop().unwrap();
    let expected = json!({
        "model": "tiny",
        "messages": [
            { "role": "system", "content": "Be short." },
            { "role": "user", "content": "<passage number=\"1\">a</passage>\nWho?" },
        ],
        "stream": true,
        "stream_options": { "include_usage": true },
        "max_tokens": 64,
        "temperature": 0.0,
    });
    assert_eq!(request, expected);
}

#[tokio::test]
async fn a_server_that_does_not_count_is_counted_for() {
    let body = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"length\"}]}\n\n";
    let (url, _) = server(Status::OK, body).await;
    let end = Ok(Utterance::End {
        reason: StopReason::MaxTokens,
        usage: None,
    });
    assert_eq!(ask(&format!("{url}/v1/")).await.unwrap(), [text("a"), end]);
}

#[tokio::test]
async fn an_answer_that_is_cut_off_has_no_end() {
    let body = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata: {\"choices\":[{\"delta\":";
    let (url, _) = server(Status::OK, body).await;
    assert_eq!(ask(&url).await.unwrap(), [text("a")]);
}

#[tokio::test]
async fn errors_keep_their_kind_and_their_words() {
    let (url, _) = server(Status::TOO_MANY_REQUESTS, "{\"error\":{\"message\":\"slow down\"}}").await;
    assert_eq!(ask(&url).await, Err(Failure::Throttled("slow down".to_owned())));

    let (url, _) = server(Status::NOT_FOUND, "{\"error\":\"no model tiny\"}").await;
    let failed = |status, message: &str| Failure::Failed {
        status,
        message: message.to_owned(),
    };
    assert_eq!(ask(&url).await, Err(failed(404, "no model tiny")));

    let body = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata: {\"error\":{\"message\":\"out of memory\"}}\n\n";
    let (url, _) = server(Status::OK, body).await;
    assert_eq!(ask(&url).await.unwrap(), [text("a"), Err(failed(500, "out of memory"))]);

    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let refused = ask(&format!("http://{nobody}")).await;
    assert!(
        matches!(refused, Err(Failure::Failed { status: 502, .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn words_arrive_as_they_are_said_and_dropping_the_answer_hangs_up() {
    let (words, said) = mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let said = Arc::new(Mutex::new(Some(said)));
    let answer = move || {
        let said = said.lock().unwrap().take().unwrap();
        let body = stream::unfold(said, |mut said| async move { Some((said.recv().await?, said)) });
        async move { Response::new(Body::from_stream(body)) }
    };
    let router = Router::new().route("/v1/chat/completions", post(answer));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let model = OpenAi::new(&format!("http://{}", listener.local_addr().unwrap()), "tiny").unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut speech = model.begin(conversation()).await.unwrap();
    for word in ["One", " two"] {
        let event = format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{word}\"}}}}]}}\n\n");
        words.send(Ok(event.into())).await.unwrap();
        assert_eq!(speech.next().await, Some(text(word)));
    }
    drop(speech);
    // The server notices as soon as the connection is closed.
    words.closed().await;
}

#[test]
fn a_url_is_checked_before_anything_is_asked() {
    for url in [
        "127.0.0.1:11434",
        "ftp://example.com",
        "http://example.com/v1?key=1",
        "",
    ] {
        assert!(OpenAi::new(url, "tiny").is_err(), "{url}");
    }
    assert!(OpenAi::new("http://127.0.0.1:11434", " ").is_err());
    for (url, completions) in [
        ("http://127.0.0.1:11434", "http://127.0.0.1:11434/v1/chat/completions"),
        ("http://[::1]:8000/v1/", "http://[::1]:8000/v1/chat/completions"),
        ("https://example.com/a/v2", "https://example.com/a/v2/chat/completions"),
    ] {
        assert_eq!(OpenAi::new(url, "tiny").unwrap().completions.as_str(), completions);
    }
}
