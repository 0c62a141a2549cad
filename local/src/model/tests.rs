//! The models over their wire protocol.

use aws_smithy_eventstream::frame::{DecodedFrame, MessageFrameDecoder};
use bytes::BytesMut;
use futures::StreamExt as _;
use serde_json::json;

use super::script::Gate;
use super::*;
use crate::guardrail::{Action, Actions, Guardrail};

const MODEL: &str = "amazon.nova-lite-v1:0";

fn caller(tenant: &str) -> Caller {
    Caller {
        principal: "QueryHandlerFunction".to_owned(),
        tenant: Some(tenant.to_owned()),
        ..Caller::default()
    }
}

/// A guardrail that blocks `osprey` and masks what a model says of addresses.
fn guardrails() -> Guardrails {
    Guardrails::new(vec![Guardrail {
        emails: Some(Actions {
            input: Action::None,
            output: Action::Mask,
        }),
        blocked_input: "No question.".to_owned(),
        blocked_output: "No answer.".to_owned(),
        ..Guardrail::blocking("abc123", &["osprey"])
    }])
}

fn models() -> Models {
    Models::new(ModelsConfig {
        guardrails: guardrails(),
        ..ModelsConfig::new("us-east-1")
    })
}

async fn send(models: &Models, model: &str, operation: &str, body: &Value) -> Response<ServiceBody> {
    let request = http::Request::post(format!("/model/{model}/{operation}"))
        .body(Bytes::from(body.to_string()))
        .unwrap();
    models.handle(request, Some(caller("acme"))).await
}

/// Status, body and kind of error of Converse's answer.
async fn converse_with(models: &Models, model: &str, body: &Value) -> (u16, Value, String) {
    let response = send(models, model, "converse", body).await;
    let kind = response
        .headers()
        .get("x-amzn-errortype")
        .map(|kind| kind.to_str().unwrap().to_owned())
        .unwrap_or_default();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await;
    (status, serde_json::from_slice(&body).unwrap(), kind)
}

async fn converse(models: &Models, body: &Value) -> Value {
    let (status, answer, _) = converse_with(models, MODEL, body).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

/// The events of ConverseStream's answer, with the time that it took left out.
async fn converse_stream(models: &Models, body: &Value) -> Vec<(String, Value)> {
    let response = send(models, MODEL, "converse-stream", body).await;
    assert_eq!(response.status(), 200);
    decode(&response.into_body().collect().await)
}

fn decode(bytes: &[u8]) -> Vec<(String, Value)> {
    let mut buffer = BytesMut::from(bytes);
    let mut decoder = MessageFrameDecoder::new();
    let mut events = Vec::new();
    while let DecodedFrame::Complete(message) = decoder.decode_frame(&mut buffer).unwrap() {
        let kind = message
            .headers()
            .iter()
            .find(|header| [":event-type", ":exception-type"].contains(&header.name().as_str()))
            .unwrap();
        let mut payload: Value = serde_json::from_slice(message.payload()).unwrap();
        if let Some(metrics) = payload.get_mut("metrics") {
            assert!(metrics["latencyMs"].is_u64());
            *metrics = json!({});
        }
        events.push((kind.value().as_string().unwrap().as_str().to_owned(), payload));
    }
    assert!(buffer.is_empty(), "half an event at the end");
    events
}

fn said(events: &[(String, Value)]) -> Vec<&str> {
    events
        .iter()
        .filter_map(|(_, event)| event.pointer("/delta/text")?.as_str())
        .collect()
}

fn kinds(events: &[(String, Value)]) -> Vec<&str> {
    events.iter().map(|(kind, _)| kind.as_str()).collect()
}

fn stop_reason(events: &[(String, Value)]) -> &str {
    let stop = events.iter().find(|(kind, _)| kind == "messageStop");
    stop.and_then(|(_, stop)| stop["stopReason"].as_str())
        .unwrap_or_default()
}

const PASSAGES: &str = "<passage number=\"1\">\nThe harbour master is called Quill.\n</passage>\n<passage \
                        number=\"2\">\nThe pier is made of oak.\n</passage>";

fn question(text: &str) -> Value {
    json!({
        "system": [{ "text": "Answer from the passages." }],
        "messages": [{ "role": "user", "content": [
            { "text": PASSAGES },
            { "guardContent": { "text": { "text": format!("<question>\n{text}\n</question>") } } },
        ] }],
        "inferenceConfig": { "maxTokens": 1024, "temperature": 0 },
    })
}

fn guarded(text: &str) -> Value {
    let mut body = question(text);
    body["guardrailConfig"] = json!({ "guardrailIdentifier": "abc123", "guardrailVersion": "1", "trace": "enabled" });
    body
}

#[tokio::test]
async fn an_answer_tells_its_text_its_reason_and_its_cost() {
    let models = models();
    let mut answer = converse(&models, &question("What is the harbour master called?")).await;
    assert!(answer["metrics"]["latencyMs"].is_u64());
    answer["metrics"] = json!({});
    let expected = json!({
        "output": { "message": {
            "role": "assistant",
            "content": [{ "text": "The harbour master is called Quill. [1]" }],
        } },
        "stopReason": "end_turn",
        "usage": { "inputTokens": 66, "outputTokens": 11, "totalTokens": 77 },
        "metrics": {},
    });
    assert_eq!(answer, expected);
}

#[tokio::test]
async fn a_stream_says_the_same_word_by_word() {
    let models = models();
    let events = converse_stream(&models, &question("What is the harbour master called?")).await;
    assert_eq!(
        said(&events),
        ["The", " harbour", " master", " is", " called", " Quill.", " [1]"]
    );
    let usage = models.calls().pop().unwrap().usage.unwrap();
    let ends = events.get(8..).unwrap();
    assert_eq!(
        events.first().unwrap(),
        &("messageStart".to_owned(), json!({ "role": "assistant" }))
    );
    assert_eq!(
        events.get(1).unwrap(),
        &(
            "contentBlockDelta".to_owned(),
            json!({ "contentBlockIndex": 0, "delta": { "text": "The" } })
        )
    );
    let metadata = json!({
        "usage": { "inputTokens": usage.input, "outputTokens": 11, "totalTokens": usage.input + 11 },
        "metrics": {},
    });
    assert_eq!(
        ends,
        [
            ("contentBlockStop".to_owned(), json!({ "contentBlockIndex": 0 })),
            ("messageStop".to_owned(), json!({ "stopReason": "end_turn" })),
            ("metadata".to_owned(), metadata),
        ]
    );
}

#[tokio::test]
async fn an_answer_is_no_longer_than_it_may_be() {
    let models = models();
    let mut body = question("What is the harbour master called?");
    body["inferenceConfig"]["maxTokens"] = json!(4);
    let answer = converse(&models, &body).await;
    assert_eq!(
        answer.pointer("/output/message/content/0/text").unwrap(),
        "The harbour master"
    );
    assert_eq!(answer["stopReason"], "max_tokens");
    assert_eq!(answer["usage"]["outputTokens"], 4);
    let events = converse_stream(&models, &body).await;
    assert_eq!(said(&events).concat(), "The harbour master");
    assert_eq!(stop_reason(&events), "max_tokens");
}

#[tokio::test]
async fn a_model_is_named_by_id_or_by_arn_of_the_region() {
    let models = models();
    let body = question("What is the pier made of?");
    for model in [
        MODEL,
        "eu.amazon.nova-lite-v1%3A0",
        "arn%3Aaws%3Abedrock%3Aus-east-1%3A%3Afoundation-model%2Famazon.nova-lite-v1%3A0",
        "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.amazon.nova-lite-v1:0",
    ] {
        let (status, answer, _) = converse_with(&models, model, &body).await;
        assert_eq!(status, 200, "{model}: {answer}");
    }
    assert_eq!(
        models.calls()[2].model,
        "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-lite-v1:0"
    );
    for model in [
        "arn%3Aaws%3Abedrock%3Aeu-west-1%3A%3Afoundation-model%2Famazon.nova-lite-v1%3A0",
        "Nova%20Lite",
    ] {
        let (status, _, kind) = converse_with(&models, model, &body).await;
        assert_eq!((status, kind.as_str()), (400, "ValidationException"), "{model}");
    }
    assert_eq!(
        Models::operation(&Method::POST, "/model/x/converse-stream"),
        Some("ConverseStream")
    );
    assert_eq!(Models::operation(&Method::GET, "/model/x/converse"), None);
    assert_eq!(Models::operation(&Method::POST, "/model/x/invoke"), None);
}

#[tokio::test]
async fn what_converse_does_not_take_is_refused_in_its_words() {
    let text = |text: &str| json!([{ "text": text }]);
    let user = |content: Value| json!({ "role": "user", "content": content });
    let assistant = json!({ "role": "assistant", "content": text("b") });
    let cases = [
        (json!({}), 400, "at least one message"),
        (
            json!({ "messages": [assistant] }),
            400,
            "must start with a user message",
        ),
        (
            json!({ "messages": [user(text("a")), user(text("b"))] }),
            400,
            "must alternate",
        ),
        (
            json!({ "messages": [user(text("a")), assistant] }),
            400,
            "must end with a user message",
        ),
        (json!({ "messages": [user(json!([]))] }), 400, "messages.0 is empty"),
        (
            json!({ "messages": [user(text(" \n"))] }),
            400,
            "messages.0.content.0 is blank",
        ),
        (
            json!({ "messages": [user(json!([{ "guardContent": { "text": { "text": "" } } }]))] }),
            400,
            "is blank",
        ),
        (
            json!({ "messages": [user(json!([{ "text": "a", "image": {} }]))] }),
            400,
            "Exactly one member",
        ),
        (
            json!({ "messages": [user(json!([{ "txt": "a" }]))] }),
            400,
            "Unknown member",
        ),
        (json!({ "messages": [user(json!([{ "image": {} }]))] }), 501, "image"),
        (
            json!({ "messages": [{ "role": "system", "content": text("a") }] }),
            400,
            "[user, assistant]",
        ),
        (
            json!({ "messages": [user(text("a"))], "system": "a" }),
            400,
            "must be a list",
        ),
        (
            json!({ "messages": [user(text("a"))], "system": [{ "text": "" }] }),
            400,
            "length greater",
        ),
        (
            json!({ "messages": [user(text("a"))], "inferenceConfig": { "maxTokens": 0 } }),
            400,
            "greater",
        ),
        (
            json!({ "messages": [user(text("a"))], "inferenceConfig": { "temperature": 1.1 } }),
            400,
            "less",
        ),
        (
            json!({ "messages": [user(text("a"))], "toolConfig": { "tools": [] } }),
            501,
            "toolConfig",
        ),
        (
            json!({ "messages": [user(text("a"))], "tenant": "acme" }),
            400,
            "Unknown member 'tenant'",
        ),
        (
            json!({ "messages": [user(text("a"))], "guardrailConfig": { "guardrailIdentifier": "abc123" } }),
            400,
            "guardrailConfig.guardrailVersion",
        ),
        (
            json!({ "messages": [user(text("a"))], "guardrailConfig": {
                "guardrailIdentifier": "abc123", "guardrailVersion": "2",
            } }),
            400,
            "does not exist",
        ),
        (
            json!({ "messages": [user(text("a"))], "guardrailConfig": {
                "guardrailIdentifier": "abc123", "guardrailVersion": "1", "streamProcessingMode": "sync",
            } }),
            400,
            "guardrailConfig.streamProcessingMode",
        ),
        (
            json!({ "messages": [user(text(&"a ".repeat(300_001)))] }),
            400,
            "Input is too long",
        ),
    ];
    let models = models();
    for (body, expected, words) in cases {
        let (status, answer, kind) = converse_with(&models, MODEL, &body).await;
        let message = answer["message"].as_str().unwrap();
        assert!(message.contains(words) && status == expected, "{status} {message}");
        if status == 400 {
            assert_eq!(kind, "ValidationException");
        }
    }
    assert!(
        models
            .calls()
            .iter()
            .all(|call| call.ended.unwrap().1 == Ending::Failed)
    );
}

#[tokio::test]
async fn a_guardrail_sees_what_it_is_given_to_see() {
    let models = models();
    // The passages are beside the guarded content.
    let mut body = guarded("What is the pier made of?");
    body["messages"][0]["content"][0]["text"] = json!(format!("{PASSAGES}<passage number=\"3\">osprey</passage>"));
    let answer = converse(&models, &body).await;
    assert_eq!(answer["stopReason"], "end_turn");
    assert_eq!(
        answer
            .pointer("/trace/guardrail/inputAssessment/abc123/invocationMetrics/guardrailCoverage/textCharacters/total")
            .unwrap(),
        "<question>\nWhat is the pier made of?\n</question>".len()
    );

    // Without guarded content all of the messages is looked at.
    body["messages"][0]["content"][1] = json!({ "text": "<question>What is the pier made of?</question>" });
    let answer = converse(&models, &body).await;
    assert_eq!(answer["stopReason"], "guardrail_intervened");

    let answer = converse(&models, &guarded("Who saw the osprey?")).await;
    assert_eq!(
        answer.pointer("/output/message/content/0/text").unwrap(),
        "No question."
    );
    assert_eq!(
        answer["usage"],
        json!({ "inputTokens": 0, "outputTokens": 0, "totalTokens": 0 })
    );
    let events = converse_stream(&models, &guarded("Who saw the osprey?")).await;
    assert_eq!(said(&events), ["No question."]);
    assert_eq!(stop_reason(&events), "guardrail_intervened");
}

#[tokio::test]
async fn what_is_blocked_does_not_leave_a_synchronous_stream() {
    let models = models();
    let lead = "Along the pier. ".repeat(10);
    let script = Script::new()
        .say(lead.as_str())
        .say("There is an os")
        .say("prey on it.")
        .say(" Really.");
    models.script("acme", script.clone().every_time());
    let body = guarded("What is there?");
    let answer = converse(&models, &body).await;
    assert_eq!(answer.pointer("/output/message/content/0/text").unwrap(), "No answer.");
    assert_eq!(answer["stopReason"], "guardrail_intervened");
    assert!(
        answer
            .pointer("/trace/guardrail/outputAssessments/abc123/0/wordPolicy")
            .is_some()
    );

    let events = converse_stream(&models, &body).await;
    let text = said(&events).concat();
    assert_eq!(stop_reason(&events), "guardrail_intervened");
    assert!(
        text.starts_with("Along the pier.") && text.ends_with("No answer."),
        "{text}"
    );
    assert!(!text.contains("There"), "{text}");
    assert_eq!(kinds(&events).last(), Some(&"metadata"));

    let mut body = body;
    body["guardrailConfig"]["streamProcessingMode"] = json!("async");
    let events = converse_stream(&models, &body).await;
    assert!(said(&events).concat().ends_with("There is an osprey on it.No answer."));
    assert_eq!(stop_reason(&events), "guardrail_intervened");
}

#[tokio::test]
async fn what_is_masked_leaves_masked() {
    let models = models();
    models.script(
        "acme",
        Script::new()
            .say_all(["Ask quill", "@example", ".com ", "now."])
            .every_time(),
    );
    let body = guarded("Whom?");
    let events = converse_stream(&models, &body).await;
    assert_eq!(said(&events).concat(), "Ask {EMAIL} now.");
    assert_eq!(stop_reason(&events), "guardrail_intervened");
    let answer = converse(&models, &body).await;
    assert_eq!(
        answer.pointer("/output/message/content/0/text").unwrap(),
        "Ask {EMAIL} now."
    );
}

#[tokio::test]
async fn an_answer_that_passes_a_guardrail_arrives_whole() {
    let models = models();
    let pieces = ["a", "\r\n", "ü\u{1f6a2}", " data: x\n\n", "\u{2028}"].repeat(30);
    models.script("acme", Script::new().say_all(pieces.clone()));
    let events = converse_stream(&models, &guarded("What?")).await;
    assert_eq!(said(&events).concat(), pieces.concat());
    assert_eq!(stop_reason(&events), "end_turn");
}

#[tokio::test]
async fn a_script_is_said_to_the_letter_and_once() {
    let models = models();
    let pieces = ["data: x\n\n", "\r", "\u{2028}", "ü", "event: done"];
    models.script("acme", Script::new().say_all(pieces));
    models.script("acme-2", Script::new().say("other"));
    let body = question("What is the pier made of?");
    assert_eq!(said(&converse_stream(&models, &body).await), pieces);
    assert_eq!(
        said(&converse_stream(&models, &body).await).concat(),
        "The pier is made of oak. [2]"
    );

    models.script("acme", Script::new().say("Which pier?").to(Purpose::Rewriting));
    assert_eq!(
        said(&converse_stream(&models, &body).await).concat(),
        "The pier is made of oak. [2]"
    );
    let rewriting =
        json!({ "messages": [{ "role": "user", "content": [{ "text": "<question>And it?</question>" }] }] });
    assert_eq!(said(&converse_stream(&models, &rewriting).await), ["Which pier?"]);
}

#[tokio::test]
async fn bytes_may_come_in_pieces_of_any_size() {
    let models = models();
    models.script("acme", Script::new().say("ü\u{1f6a2}").bytes_at_once(1));
    let response = send(&models, MODEL, "converse-stream", &question("What?")).await;
    let ServiceBody::Events(events) = response.into_body() else {
        panic!("no stream");
    };
    let pieces: Vec<Bytes> = events.collect().await;
    assert!(pieces.iter().all(|piece| piece.len() == 1));
    assert_eq!(said(&decode(&pieces.concat())), ["ü\u{1f6a2}"]);
}

#[tokio::test]
async fn an_answer_pauses_until_the_test_goes_on_and_ends_when_nobody_listens() {
    let models = models();
    let gate = Gate::new();
    models.script("acme", Script::new().say("One").pause(&gate).say(" two").every_time());
    let body = question("What?");
    let mut events = match send(&models, MODEL, "converse-stream", &body).await.into_body() {
        ServiceBody::Events(events) => events,
        ServiceBody::Whole(_) => panic!("no stream"),
    };
    let start = events.next().await.unwrap();
    let first = events.next().await.unwrap();
    assert_eq!(said(&decode(&[start, first].concat())), ["One"]);
    let call = models.calls().pop().unwrap();
    assert!(call.first_token.unwrap() >= call.received && call.ended.is_none());
    let ((), rest) = tokio::join!(
        async {
            gate.reached().await;
            gate.open();
        },
        events.next()
    );
    assert_eq!(said(&decode(&rest.unwrap())), [" two"]);
    drop(events);
    assert_eq!(models.calls().pop().unwrap().ended.unwrap().1, Ending::Abandoned);
    assert_eq!(models.calls_of("acme").len(), 1);
    assert!(models.calls_of("acme-2").is_empty());
}

#[tokio::test]
async fn a_failure_is_an_error_before_the_answer_and_an_exception_within() {
    let message = || "why".to_owned();
    let failed = Failure::Failed {
        status: 500,
        message: message(),
    };
    let cases = [
        (
            Failure::Throttled(message()),
            429,
            "ThrottlingException",
            "throttlingException",
        ),
        (
            Failure::Refused(message()),
            400,
            "ValidationException",
            "validationException",
        ),
        (failed, 424, "ModelErrorException", "modelStreamErrorException"),
        (
            Failure::Unavailable(message()),
            503,
            "ServiceUnavailableException",
            "serviceUnavailableException",
        ),
        (
            Failure::TimedOut(message()),
            408,
            "ModelTimeoutException",
            "modelStreamErrorException",
        ),
        (
            Failure::Internal(message()),
            500,
            "InternalServerException",
            "internalServerException",
        ),
    ];
    let models = models();
    let body = question("What?");
    for (failure, status, kind, exception) in cases {
        for operation in ["converse", "converse-stream"] {
            models.script("acme", Script::new().fail(failure.clone()));
            let response = send(&models, MODEL, operation, &body).await;
            assert_eq!(response.status(), status);
            assert_eq!(response.headers().get("x-amzn-errortype").unwrap(), kind);
        }
        models.script("acme", Script::new().say("One").fail(failure.clone()));
        let events = converse_stream(&models, &body).await;
        assert_eq!(kinds(&events), ["messageStart", "contentBlockDelta", exception]);
        assert_eq!(events.last().unwrap().1, json!({ "message": "why" }));
        models.script("acme", Script::new().say("One").fail(failure));
        let (found, _, _) = converse_with(&models, MODEL, &body).await;
        assert_eq!(found, status);
    }
    models.script("acme", Script::new().say("One").cut());
    assert_eq!(
        kinds(&converse_stream(&models, &body).await),
        ["messageStart", "contentBlockDelta"]
    );
    assert_eq!(models.calls().pop().unwrap().ended.unwrap().1, Ending::Cut);
}

#[tokio::test]
async fn throttling_concerns_whom_it_is_set_for() {
    let models = models();
    let body = question("What is the pier made of?");
    models.throttle(Scope::tenant("acme-2"), 1);
    converse(&models, &body).await;
    models.throttle(Scope::tenant("acme"), 2);
    for _ in 0..2 {
        let (status, _, kind) = converse_with(&models, MODEL, &body).await;
        assert_eq!((status, kind.as_str()), (429, "ThrottlingException"));
    }
    converse(&models, &body).await;
}

#[tokio::test]
async fn an_answer_without_a_word_has_no_content() {
    let models = models();
    models.script("acme", Script::new().every_time());
    let body = question("What?");
    let answer = converse(&models, &body).await;
    assert_eq!(answer.pointer("/output/message/content").unwrap(), &json!([]));
    let events = converse_stream(&models, &body).await;
    assert_eq!(kinds(&events), ["messageStart", "messageStop", "metadata"]);
}
