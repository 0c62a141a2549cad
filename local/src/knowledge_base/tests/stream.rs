//! RetrieveAndGenerateStream, and guardrails in both ways of asking.

use futures::StreamExt as _;

use super::*;
use crate::event_stream::Pace;
use crate::front_door::ServiceBody;

/// An event of a stream: its type (or exception type) and its payload.
fn events(body: &Bytes) -> Vec<(String, Value)> {
    let mut rest = body.clone();
    let mut events = Vec::new();
    while !rest.is_empty() {
        let message = aws_smithy_eventstream::frame::read_message_from(&mut rest).unwrap();
        let kind = message
            .headers()
            .iter()
            .find(|header| [":event-type", ":exception-type"].contains(&header.name().as_str()))
            .unwrap();
        let kind = kind.value().as_string().unwrap().as_str().to_owned();
        events.push((kind, serde_json::from_slice(message.payload()).unwrap()));
    }
    events
}

/// The text of a stream's outputs up to an event.
fn outputs(events: &[(String, Value)]) -> String {
    let outputs = events.iter().filter(|(kind, _)| kind == "output");
    outputs.map(|(_, payload)| payload["text"].as_str().unwrap()).collect()
}

impl Fixture {
    /// Three documents of tenant a, with an episode of either season each: an answer about a season has three parts.
    async fn add_three_episodes(&self) {
        for episode in 1..=3 {
            let line = |season| format!("Season {season}, Episode {episode}: Story {season}x{episode}");
            let text = format!("About a lighthouse\n\n{}\n{}\n", line(1), line(2));
            self.add(&format!("t/{episode}.txt"), "a", &text).await;
        }
    }

    async fn stream(&self, body: Value) -> (http::HeaderMap, Vec<(String, Value)>) {
        let request = http::Request::post("/retrieveAndGenerateStream")
            .body(body.to_string().into())
            .unwrap();
        let response = self.base.handle(request).await;
        assert_eq!(response.status(), StatusCode::OK);
        let headers = response.headers().clone();
        (headers, events(&response.into_body().collect().await))
    }
}

#[tokio::test]
async fn a_stream_tells_the_answer_in_pieces_and_each_citation_behind_its_text() {
    let fixture = Fixture::start(config());
    fixture.add_three_episodes().await;
    let asked = question(
        "Which episodes does season 2 have?",
        json!({"equals": {"key": "tenantId", "value": "a"}}),
    );
    let (_, whole, _) = fixture.call(Method::POST, "/retrieveAndGenerate", asked.clone()).await;
    let (headers, events) = fixture.stream(asked.clone()).await;
    assert_eq!(headers["content-type"], "application/vnd.amazon.eventstream");
    assert_eq!(outputs(&events), said(&whole));
    let citations: Vec<&Value> = events
        .iter()
        .filter(|(kind, _)| kind == "citation")
        .map(|(_, payload)| payload)
        .collect();
    assert_eq!(citations.len(), 3);
    for (streamed, whole) in citations.iter().zip(whole["citations"].as_array().unwrap()) {
        assert_eq!(streamed["citation"], *whole);
        assert_eq!(streamed["generatedResponsePart"], whole["generatedResponsePart"]);
        assert_eq!(streamed["retrievedReferences"], whole["retrievedReferences"]);
    }
    for (at, (kind, payload)) in events.iter().enumerate() {
        if kind == "citation" {
            let span = &payload["generatedResponsePart"]["textResponsePart"]["span"];
            let told = outputs(&events[..at]).chars().count();
            assert_eq!(span["end"].as_u64().unwrap(), told as u64 - 1, "told, and then cited");
        } else {
            assert_eq!(kind, "output", "no guardrail was named");
            assert!(
                payload["text"].as_str().unwrap().trim().split(' ').count() == 1,
                "{payload}"
            );
        }
    }

    // The conversation goes on in either way.
    let session = headers["x-amzn-bedrock-knowledge-base-session-id"].to_str().unwrap();
    let mut again = question("And season 1?", json!({"equals": {"key": "tenantId", "value": "a"}}));
    again["sessionId"] = json!(session);
    let (headers, events) = fixture.stream(again).await;
    assert_eq!(headers["x-amzn-bedrock-knowledge-base-session-id"], session);
    assert!(outputs(&events).contains("Season 1, Episode 1"), "{events:?}");

    let mut wrong = asked;
    wrong["sessionId"] = json!("not-a-session");
    let (status, _, kind) = fixture.call(Method::POST, "/retrieveAndGenerateStream", wrong).await;
    assert_eq!((status.as_u16(), kind.as_str()), (400, "ValidationException"));
}

#[tokio::test]
async fn a_foreign_passage_stands_where_it_is_put() {
    let fixture = Fixture::start(config());
    fixture.add_three_episodes().await;
    let of = json!({"equals": {"key": "tenantId", "value": "a"}});
    let manners = fixture.base.manners();
    for (usage, cited) in [(Usage::Cited, true), (Usage::Hidden, false)] {
        for position in [0, 1, 99] {
            let scope = Scope::tenant("a");
            manners.reset(&scope);
            let injection = Injection {
                text: "Foreign words.".to_owned(),
                uri: "s3://documents/t/b.txt".to_owned(),
                attributes: [("tenantId".to_owned(), json!("b"))].into(),
                usage,
            };
            manners.inject_at(scope, position, injection);
            let asked = question("Which episodes does season 2 have?", of.clone());
            let (_, events) = fixture.stream(asked).await;
            let text = outputs(&events);
            let line = text.lines().position(|line| line == "Foreign words.").unwrap();
            assert_eq!(line, position.min(3));
            let citations: Vec<&Value> = events
                .iter()
                .filter(|(kind, _)| kind == "citation")
                .map(|(_, payload)| &payload["retrievedReferences"][0]["metadata"]["tenantId"])
                .collect();
            assert_eq!(citations.len(), 3 + usize::from(cited));
            assert_eq!(
                citations.iter().position(|tenant| **tenant == "b"),
                cited.then_some(line)
            );

            let asked = json!({
                "retrievalQuery": {"text": "season"},
                "retrievalConfiguration": {"vectorSearchConfiguration": {"filter": of}},
            });
            let path = format!("/knowledgebases/{KB}/retrieve");
            let (_, found, _) = fixture.call(Method::POST, &path, asked).await;
            let results = found["retrievalResults"].as_array().unwrap();
            let at = results.iter().position(|result| result["metadata"]["tenantId"] == "b");
            assert_eq!((results.len(), at), (4, Some(position.min(3))));
        }
    }
}

#[tokio::test]
async fn a_guardrail_looks_at_questions_and_answers_and_not_at_passages() {
    let guardrail = Guardrail {
        blocked_input: "Not this question.".to_owned(),
        blocked_output: "Not this answer.".to_owned(),
        ..Guardrail::blocking("known1", &["lighthouse", "Story 2x2"])
    };
    let fixture = Fixture::start(KnowledgeBaseConfig {
        guardrails: Guardrails::new(vec![guardrail]),
        ..config()
    });
    // The passages hold all of these words.
    fixture.add_three_episodes().await;
    let asked = |text: &str| {
        let mut body = question(text, json!({"equals": {"key": "tenantId", "value": "a"}}));
        let configuration = json!({"guardrailId": "known1", "guardrailVersion": "1"});
        set(
            &mut body,
            &format!("{CONFIGURATION}/generationConfiguration/guardrailConfiguration"),
            configuration,
        );
        body
    };
    let first_season = "Which episodes does season 1 have?";
    let second_season = "Which episodes does season 2 have?";
    for (text, action, answer) in [
        (first_season, "NONE", "Season 1, Episode"),
        (
            "What is the LIGHTHOUSE of season 1?",
            "INTERVENED",
            "Not this question.",
        ),
        (second_season, "INTERVENED", "Not this answer."),
    ] {
        let (_, whole, _) = fixture.call(Method::POST, "/retrieveAndGenerate", asked(text)).await;
        assert_eq!(whole["guardrailAction"], action, "{text}");
        assert!(said(&whole).starts_with(answer), "{text}: {whole}");
        if action == "INTERVENED" {
            assert_eq!(said(&whole), answer);
            assert_eq!(whole["citations"][0]["retrievedReferences"], json!([]));
        }
        let (_, events) = fixture.stream(asked(text)).await;
        assert_eq!(
            events.last().unwrap(),
            &("guardrail".to_owned(), json!({"action": action}))
        );
        assert!(outputs(&events).contains(answer), "{text}: {events:?}");
        assert!(!outputs(&events).contains("Story 2x2"), "{text}: {events:?}");
    }
    // What comes before the word is told, and is cited.
    let (_, events) = fixture.stream(asked(second_season)).await;
    let told = outputs(&events);
    let parts = told.lines().filter(|line| line.contains("Season 2")).count();
    assert_eq!(events.iter().filter(|(kind, _)| kind == "citation").count(), parts);
    assert!(told.ends_with("Not this answer."), "{told}");
}

#[tokio::test]
async fn where_no_filter_names_a_tenant_manners_go_by_who_asks() {
    let fixture = Fixture::start(config());
    fixture.add("t/a.txt", "a", "The code of a is alpha-1.").await;
    fixture.base.manners().throttle(Scope::tenant("a"), 1);
    let asked = question("What is the code?", Value::Null);
    let mut statuses = Vec::new();
    for tenant in ["b", "a", "a"] {
        let caller = Caller {
            principal: "F".to_owned(),
            tenant: Some(tenant.to_owned()),
            ..Caller::default()
        };
        let request = http::Request::post("/retrieveAndGenerateStream")
            .body(asked.to_string().into())
            .unwrap();
        let response = RestService::handle(&fixture.base, request, caller).await;
        statuses.push(response.status().as_u16());
    }
    assert_eq!(statuses, [200, 429, 200]);
}

#[tokio::test]
async fn a_model_speaks_at_its_pace() {
    let fixture = Fixture::start(config());
    fixture.add("t/a.txt", "a", "The code of a is alpha-1.").await;
    let scope = Scope::tenant("a");
    let never = Pace {
        first: Duration::ZERO,
        next: Duration::from_secs(3_600),
    };
    fixture.base.manners().speak(scope.clone(), never);
    let asked = question(
        "What is the code of a?",
        json!({"equals": {"key": "tenantId", "value": "a"}}),
    );
    let request = http::Request::post("/retrieveAndGenerateStream")
        .body(asked.to_string().into())
        .unwrap();
    let ServiceBody::Events(mut stream) = fixture.base.handle(request).await.into_body() else {
        panic!("a stream")
    };
    assert!(stream.next().await.is_some());
    assert!(futures::poll!(stream.next()).is_pending());
    fixture.base.manners().reset(&scope);
    assert_eq!(outputs(&fixture.stream(asked).await.1), "The code of a is alpha-1.");
}
