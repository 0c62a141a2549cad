//! Streams: words as the model speaks them, one terminal event whatever happens, and what is kept of an answer.

use std::time::{Duration, Instant};

use bulkhead_cli::deployment::Call;
use bulkhead_cli::event::{self, Event, Events};
use bulkhead_local::fault::{Effect, Fault, Matcher, StreamEffect, StreamFault};
use bulkhead_local::knowledge_base::manner::{Injection, Scope, Usage};
use bulkhead_local::lambda::Departure;
use bulkhead_local::model::Ending;
use bulkhead_local::model::script::{Gate, Script};
use bulkhead_local::stack::{random_name, wait_until};
use integration_tests::fixture::{Fixture, Tenant, config, patience};
use reqwest::Method;
use serde_json::{Value, json};

const QUESTION: &str = "What does the lamp of the lighthouse burn?";

async fn lighthouse(prefix: &str, settings: Value) -> Tenant {
    keeper(&Fixture::shared(), prefix, settings).await
}

async fn keeper(fixture: &std::sync::Arc<Fixture>, prefix: &str, settings: Value) -> Tenant {
    let tenant = fixture.tenant_with(prefix, settings).await;
    tenant
        .upload(
            "lighthouse.txt",
            "The lamp of the lighthouse burns whale oil. The lighthouse was built in 1862.",
        )
        .await;
    tenant
}

fn ask(tenant: &Tenant, body: &Value) -> Call {
    Call::new(Method::POST, "/genai/query/stream")
        .token(tenant.reader())
        .json(body)
}

fn script(tenant: &Tenant, script: Script) {
    tenant.fixture().stack.models().script(&tenant.id, script);
}

/// The events up to the first words.
async fn first_words(stream: &mut Events) -> Vec<Event> {
    let mut events = Vec::new();
    while event::text(&events).is_empty() {
        events.push(stream.next().await.unwrap().expect("a delta"));
    }
    events
}

fn session_of(events: &[Event]) -> String {
    assert_eq!(events[0].name, "session", "{events:?}");
    events[0].data["session_id"].as_str().unwrap().to_owned()
}

/// The conversation, as its own user reads it.
async fn kept(tenant: &Tenant, session: &str) -> Value {
    let call = Call::new(Method::GET, format!("/sessions/{session}?limit=100")).token(tenant.reader());
    tenant.fixture().expect(200, &call).await.json()
}

fn turns(conversation: &Value) -> usize {
    conversation["turns"].as_array().unwrap().len()
}

fn last_turn(conversation: &Value) -> &Value {
    conversation["turns"].as_array().unwrap().last().expect("a turn")
}

#[tokio::test]
async fn words_arrive_as_the_model_speaks_them_and_the_answer_is_kept() {
    let tenant = lighthouse("words", json!({})).await;
    let gate = Gate::new();
    script(
        &tenant,
        Script::new()
            .say("The lamp")
            .pause(&gate)
            .say(" burns whale ")
            .say("oil [1]."),
    );
    let mut stream = tenant
        .fixture()
        .open(&ask(&tenant, &json!({"user_query": QUESTION})))
        .await;
    assert_eq!(
        stream.headers["content-type"].to_str().unwrap().split(';').next(),
        Some("text/event-stream")
    );
    assert_eq!(stream.headers["cache-control"], "no-store");
    let mut events = first_words(&mut stream).await;
    // The model has not gone on: this came before it had more to say.
    assert_eq!(event::text(&events), "The lamp");
    let session = session_of(&events);
    assert_eq!(last_turn(&kept(&tenant, &session).await)["status"], "answering");
    gate.open();
    events.extend(stream.rest().await.unwrap());
    tenant.fixture().contract().check_events(&events);
    assert_eq!(event::text(&events), "The lamp burns whale oil [1].");
    assert_eq!(events.last().unwrap().name, "done");
    let citation = events
        .iter()
        .find(|event| event.name == "citation")
        .expect("a citation");
    let reference = &citation.data["retrievedReferences"][0];
    assert_eq!(reference["metadata"]["number"], 1);
    assert!(reference["content"]["text"].as_str().unwrap().contains("whale oil"));
    let usage = &events.iter().find(|event| event.name == "usage").expect("usage").data;
    assert_eq!(
        (&usage["engine"], &usage["estimated"]),
        (&json!("verified"), &json!(false))
    );
    assert!(usage["output_tokens"].as_u64().unwrap() > 0);

    let conversation = kept(&tenant, &session).await;
    let turn = last_turn(&conversation);
    assert_eq!(turn["status"], "complete");
    assert_eq!(turn["user_query"], QUESTION);
    assert_eq!(turn["output"]["text"], "The lamp burns whale oil [1].");
    assert_eq!(turn["citations"], json!([citation.data]));
    assert_eq!(&turn["usage"], usage);
}

#[tokio::test]
async fn every_engine_streams_what_it_would_answer_whole() {
    for plan in ["standard", "verified", "managed"] {
        let tenant = lighthouse("both", json!({"plan": plan})).await;
        let events = tenant.stream(QUESTION).await;
        let text = event::text(&events);
        assert!(text.contains("whale oil"), "{plan}: {events:?}");
        let engine = if plan == "managed" { "managed" } else { "verified" };
        let usage = &events.iter().find(|event| event.name == "usage").expect("usage").data;
        assert_eq!(usage["engine"], engine);
        if plan != "standard" {
            let whole = tenant.ask(QUESTION).await.json();
            assert_eq!(whole["output"]["text"], text.as_str(), "{plan}");
            assert_eq!(whole["usage"]["engine"], engine);
            let citations: Vec<&Value> = events
                .iter()
                .filter(|event| event.name == "citation")
                .map(|event| &event.data)
                .collect();
            assert_eq!(whole["citations"], json!(citations), "{plan}");
        }
        let nothing = tenant.stream("Who won the chess tournament in 1937?").await;
        assert_eq!(
            event::text(&nothing),
            "No exact answer was found in your documents.",
            "{plan}"
        );
        assert_eq!(
            nothing.last().unwrap().data,
            json!({"guardrail_action": "NONE"}),
            "{plan}: said once"
        );
        assert!(
            nothing.iter().all(|event| event.name != "citation"),
            "{plan}: {nothing:?}"
        );
    }
}

#[tokio::test]
async fn a_stream_that_breaks_anywhere_ends_once_and_its_turn_says_how() {
    let effects = [
        // Before its first event a connection that breaks is one that was not there.
        ("cut", StreamEffect::Cut, &["upstream_failed", "unavailable"][..]),
        (
            "throttled",
            StreamEffect::Exception {
                kind: "throttlingException".to_owned(),
                message: "Slow down.".to_owned(),
            },
            &["upstream_throttled"],
        ),
        (
            "failed",
            StreamEffect::Exception {
                kind: "internalServerException".to_owned(),
                message: "A secret of the service.".to_owned(),
            },
            &["upstream_failed"],
        ),
    ];
    for (plan, operation) in [("verified", "ConverseStream"), ("managed", "RetrieveAndGenerateStream")] {
        let tenant = lighthouse("break", json!({"plan": plan})).await;
        let session = session_of(&tenant.stream(QUESTION).await);
        let mut known = 1;
        for (name, effect, codes) in &effects {
            // Whether the answer had begun when it broke: later breaks come after its first word, too.
            let mut begun = false;
            for after in 0.. {
                let faults = tenant.fixture().stack.front_door().faults();
                let fault = faults.inject(Fault {
                    matcher: Matcher {
                        operation: Some(operation.to_owned()),
                        tenant: Some(tenant.id.clone()),
                        ..Matcher::default()
                    },
                    effect: Effect::Stream(StreamFault {
                        after,
                        effect: effect.clone(),
                    }),
                    skip: 0,
                    times: Some(1),
                });
                let body = json!({"user_query": QUESTION, "session_id": session});
                let answer = tenant.fixture().send(&ask(&tenant, &body)).await;
                faults.remove(fault);
                assert!(!answer.text().contains("secret of the service"), "{}", answer.text());
                let conversation = kept(&tenant, &session).await;
                let turn = last_turn(&conversation);
                if !answer.is_event_stream() {
                    let code = answer.code().expect("a problem");
                    assert!(codes.contains(&code.as_str()), "{plan} {name} after {after}: {code}");
                    assert!(!begun, "{plan} {name} after {after}: {code}");
                    // If anything is kept of what had not begun, it is how it ended.
                    if turns(&conversation) > known {
                        known += 1;
                        assert_eq!(
                            (&turn["status"], &turn["code"]),
                            (&json!("failed"), &json!(code)),
                            "{plan} {name}"
                        );
                    }
                    continue;
                }
                (begun, known) = (true, known + 1);
                assert_eq!(turns(&conversation), known, "{plan} {name} after {after}");
                // The contract's check has seen exactly one terminal event, and that it is the last.
                let end = event::read(&answer.body).unwrap().pop().unwrap();
                let code = (end.name == "error").then(|| end.data["code"].as_str().unwrap().to_owned());
                let Some(code) = code else {
                    // It had fewer events than that.
                    assert_eq!(turn["status"], "complete");
                    assert!(after > 2, "{plan} {name}: nothing was broken");
                    break;
                };
                assert!(codes.contains(&code.as_str()), "{plan} {name} after {after}: {code}");
                assert_eq!(
                    (&turn["status"], &turn["code"]),
                    (&json!("failed"), &json!(code)),
                    "{plan} {name} after {after}"
                );
            }
        }
    }
}

#[tokio::test]
async fn text_arrives_byte_for_byte_however_it_is_split() {
    let tenant = lighthouse("bytes", json!({})).await;
    let said = "a\r\nb\rc\n\nd\u{2028}e\u{2029}f\u{85}data: g\n\nevent: done\ndata: {}\n\n: h\u{1f6a2}\u{e9}\u{301}<b>&amp;\"\\\u{7f}\u{feff}\
                ]] [ [x] a[i] end [1].";
    for bytes in [1, 2, 3, 7, 64] {
        script(&tenant, Script::new().say(said).bytes_at_once(bytes));
        let events = tenant.stream(QUESTION).await;
        assert_eq!(event::text(&events), said, "{bytes} at once");
        assert_eq!(events.last().unwrap().name, "done");
    }
    let characters = said.chars().map(String::from);
    script(&tenant, Script::new().say_all(characters));
    let events = tenant.stream(QUESTION).await;
    assert_eq!(event::text(&events), said);
    let turn = kept(&tenant, &session_of(&events)).await;
    assert_eq!(last_turn(&turn)["output"]["text"], said);
}

#[tokio::test]
async fn what_is_wrong_before_the_first_word_is_a_problem_with_its_status() {
    let tenant = lighthouse("early", json!({})).await;
    for (body, status, code) in [
        (json!({}), 400, "invalid_request"),
        (json!({"user_query": " "}), 400, "invalid_request"),
        (json!({"user_query": QUESTION, "filter": {}}), 400, "invalid_request"),
        (
            json!({"user_query": QUESTION, "filter": {"equals": {"key": "season", "value": 1}}}),
            422,
            "unprocessable",
        ),
        (
            json!({"user_query": QUESTION, "session_id": "01JD0000000000000000000000"}),
            404,
            "not_found",
        ),
    ] {
        let answer = tenant.fixture().expect(status, &ask(&tenant, &body)).await;
        assert_eq!(answer.code().as_deref(), Some(code), "{body}");
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        assert_eq!(answer.headers["cache-control"], "no-store");
    }
    let models = tenant.fixture().stack.models();
    models.throttle(Scope::tenant(&tenant.id), 100);
    let throttled = ask(&tenant, &json!({"user_query": QUESTION}));
    let answer = tenant.fixture().expect(503, &throttled).await;
    models.throttle(Scope::tenant(&tenant.id), 0);
    assert_eq!(answer.code().as_deref(), Some("upstream_throttled"));
    assert!(answer.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn an_answer_is_finished_and_kept_although_its_reader_has_gone() {
    for departure in [Departure::Swallowed, Departure::Refused] {
        let tenant = lighthouse("gone", json!({})).await;
        tenant.fixture().stack.lambda().set_departure(&tenant.id, departure);
        let gate = Gate::new();
        script(
            &tenant,
            Script::new().say("It burns ").pause(&gate).say("whale oil [1]."),
        );
        let mut stream = tenant
            .fixture()
            .open(&ask(&tenant, &json!({"user_query": QUESTION})))
            .await;
        let events = first_words(&mut stream).await;
        let session = session_of(&events);
        drop(stream);
        gate.open();
        wait_until("the answer is finished", patience(), || async {
            let conversation = kept(&tenant, &session).await;
            let turn = last_turn(&conversation);
            assert_ne!(turn["status"], "failed", "{departure:?}: {turn}");
            Ok((turn["status"] == "complete" && turn["output"]["text"] == "It burns whale oil [1].").then_some(()))
        })
        .await
        .unwrap_or_else(|error| panic!("{departure:?}: {error}"));
    }
}

#[tokio::test]
async fn without_transcripts_the_model_is_dropped_when_the_reader_has_gone() {
    let tenant = lighthouse("drop", json!({"transcripts": false})).await;
    tenant
        .fixture()
        .stack
        .lambda()
        .set_departure(&tenant.id, Departure::Refused);
    let gate = Gate::new();
    script(
        &tenant,
        Script::new().say("It burns ").pause(&gate).say("whale oil [1]."),
    );
    let mut stream = tenant
        .fixture()
        .open(&ask(&tenant, &json!({"user_query": QUESTION})))
        .await;
    let events = first_words(&mut stream).await;
    let session = session_of(&events);
    drop(stream);
    let left = Instant::now();
    let ended = wait_until("the model is dropped", patience(), || async {
        let calls = tenant.fixture().stack.models().calls_of(&tenant.id);
        Ok(calls.last().and_then(|call| call.ended))
    })
    .await
    .unwrap();
    assert_eq!(ended.1, Ending::Abandoned);
    // A second, and what two busy cores add to it.
    assert!(ended.0.saturating_duration_since(left) < Duration::from_secs(3));
    assert_eq!(kept(&tenant, &session).await["turns"], json!([]));
}

#[tokio::test]
async fn a_suspension_ends_an_open_stream_and_silence_is_filled() {
    let mut config = config();
    for (variable, seconds) in [
        ("BULKHEAD_STATUS_MAX_AGE_SECS", "1"),
        ("BULKHEAD_STATUS_RECHECK_SECS", "1"),
        ("BULKHEAD_HEARTBEAT_SECS", "1"),
    ] {
        config.variables.insert(variable.to_owned(), seconds.to_owned());
    }
    let fixture = Fixture::start(config).await;
    let tenant = keeper(&fixture, "halt", json!({})).await;
    let gate = Gate::new();
    script(&tenant, Script::new().pause(&gate).say("Never heard [1]."));
    let call = ask(&tenant, &json!({"user_query": QUESTION}));
    let stream = fixture.deployment.send(&call);
    let suspend = async {
        gate.reached().await;
        let path = format!("/tenants/{}/suspend", tenant.id);
        fixture
            .expect(200, &Call::new(Method::POST, path).token(fixture.operator()))
            .await;
    };
    let (answer, ()) = tokio::join!(stream, suspend);
    let answer = answer.unwrap();
    // The status has gone out with the first event, before the suspension was noticed.
    let events = event::read(&answer.body).unwrap_or_default();
    if answer.is_event_stream() {
        fixture.contract().check_events(&events);
        assert_eq!(events.last().unwrap().data["code"], "tenant_suspended");
    } else {
        assert_eq!(answer.code().as_deref(), Some("tenant_suspended"), "{}", answer.text());
    }
    assert!(!answer.text().contains("Never heard"));

    let quiet = keeper(&fixture, "quiet", json!({})).await;
    let gate = Gate::new();
    script(&quiet, Script::new().pause(&gate).say("At last [1]."));
    let mut answer = fixture
        .deployment
        .request(&ask(&quiet, &json!({"user_query": QUESTION})))
        .await
        .unwrap();
    let mut received = Vec::new();
    while !received.windows(3).any(|bytes| bytes == b"\n: ") {
        received.extend(answer.chunk().await.unwrap().expect("a comment"));
    }
    gate.open();
    while let Some(chunk) = answer.chunk().await.unwrap() {
        received.extend(chunk);
    }
    assert_eq!(event::text(&event::read(&received).unwrap()), "At last [1].");
}

#[tokio::test]
async fn no_byte_of_a_foreign_passage_gets_into_a_stream() {
    let fixture = Fixture::shared();
    let bucket = fixture.stack.template().buckets[0].name.clone();
    for (plan, usages) in [
        (
            "verified",
            &[
                Usage::Cited,
                Usage::WithoutReference,
                Usage::Hidden,
                Usage::CitedBesideOthers,
            ][..],
        ),
        ("managed", &[Usage::Cited, Usage::WithoutReference, Usage::Hidden]),
    ] {
        let tenant = lighthouse("foreign", json!({"plan": plan})).await;
        let scope = Scope::tenant(&tenant.id);
        let manners = fixture.stack.knowledge_base().manners();
        for usage in usages {
            let secret = random_name("secret");
            manners.inject(
                scope.clone(),
                Injection {
                    text: format!("The lamp of the lighthouse burns {secret}."),
                    uri: format!("s3://{bucket}/t/acme-2/01JD0000000000000000000000.txt"),
                    attributes: [("tenantId", "acme-2"), ("audience", "*")]
                        .map(|(key, value)| (key.to_owned(), Value::from(value)))
                        .into(),
                    usage: *usage,
                },
            );
            for path in ["/genai/query/stream", "/genai/chat", "/genai/retrieve", "/genai/query"] {
                let body = match path {
                    "/genai/chat" => json!({"message": QUESTION}),
                    "/genai/retrieve" => json!({"query": QUESTION}),
                    _ => json!({"user_query": QUESTION}),
                };
                let call = Call::new(Method::POST, path).token(tenant.reader()).json(&body);
                let answer = fixture.send(&call).await;
                assert!(
                    !answer.text().contains(&secret),
                    "{plan} {path} {usage:?}: {}",
                    answer.text()
                );
                let refused = plan == "verified" || path == "/genai/chat" || path == "/genai/retrieve";
                if refused {
                    assert_eq!(
                        answer.code().as_deref(),
                        Some("upstream_failed"),
                        "{plan} {path} {usage:?}"
                    );
                }
            }
            manners.reset(&scope);
        }
        let released = tenant.stream(QUESTION).await;
        assert!(event::text(&released).contains("whale oil"), "{released:?}");
    }
}

#[tokio::test]
async fn a_conversation_goes_on_whichever_engine_answers() {
    let tenant = lighthouse("mixed", json!({})).await;
    let follow_up = "And when was it built?";
    // Whole answers are the managed engine's, streams the verified one's.
    let first = tenant
        .ask("What is the lamp of the lighthouse fed with? It burns what?")
        .await
        .json();
    let session = first["sessionId"].as_str().unwrap().to_owned();
    let second = tenant
        .stream_as(
            &tenant.reader(),
            json!({"user_query": follow_up, "session_id": session}),
        )
        .await;
    assert_eq!(session_of(&second), session);
    assert!(event::text(&second).contains("1862"), "{second:?}");
    let third = json!({"user_query": "What does the lamp of the lighthouse burn?", "session_id": session});
    let third = tenant.ask_as(&tenant.reader(), third).await.json();
    assert_eq!(third["sessionId"], session.as_str());
    assert!(
        third["output"]["text"].as_str().unwrap().contains("whale oil"),
        "{third}"
    );
    let conversation = kept(&tenant, &session).await;
    assert_eq!(conversation["turn_count"], 3);
    let engines: Vec<&Value> = conversation["turns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|turn| &turn["usage"]["engine"])
        .collect();
    assert_eq!(engines, ["managed", "verified", "managed"]);

    let scope = Scope::tenant(&tenant.id);
    let manners = tenant.fixture().stack.knowledge_base().manners();
    manners.end_sessions(scope.clone());
    let reset = json!({"user_query": QUESTION, "session_id": session});
    let reset = tenant.ask_as(&tenant.reader(), reset).await.json();
    manners.reset(&scope);
    assert_eq!(reset["context_reset"], true, "{reset}");
    assert_eq!(reset["sessionId"], session.as_str());
}
