//! Streams: what a reader sees of them, however they go.

use std::sync::atomic::Ordering;

use bulkhead_core::turn::Turn;
use bytes::Bytes;
use futures::StreamExt as _;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::aws::{ASK_STREAM, CONVERSE_STREAM, End, Frame, cited, output, speaking};
use super::*;

const STREAM: &str = "/genai/query/stream";
const QUESTION: &str = r#"{"user_query": "How many compartments does the hull have?"}"#;

/// An event as a reader takes it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Event {
    pub(super) name: String,
    pub(super) data: Value,
}

/// Reads a stream as the standard says, and that events are numbered and each is one line of JSON.
pub(super) fn events(bytes: &[u8]) -> Vec<Event> {
    let text = std::str::from_utf8(bytes).unwrap();
    assert!(!text.contains('\r'), "{text:?}");
    let mut events = Vec::new();
    for block in text.split_terminator("\n\n") {
        let lines: Vec<&str> = block.split('\n').collect();
        if lines == [": "] {
            continue;
        }
        let [id, name, data] = lines[..] else {
            panic!("{block:?}");
        };
        assert_eq!(id, format!("id: {}", events.len() + 1));
        events.push(Event {
            name: name.strip_prefix("event: ").unwrap().to_owned(),
            data: serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap(),
        });
    }
    events
}

pub(super) fn names(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.name.as_str()).collect()
}

/// What a reader has in hand at the end.
pub(super) fn text(events: &[Event]) -> String {
    let mut text = String::new();
    for event in events {
        match (event.name.as_str(), event.data["text"].as_str()) {
            ("delta", Some(more)) => text.push_str(more),
            ("guardrail" | "done", Some(instead)) => instead.clone_into(&mut text),
            _ => {}
        }
    }
    text
}

/// A stream has exactly one end, it is the last event, and the conversation is named first.
fn end(events: &[Event]) -> &Event {
    let is_end = |event: &&Event| event.name == "done" || event.name == "error";
    assert_eq!(events.iter().filter(is_end).count(), 1, "{events:?}");
    assert_eq!(events[0].name, "session");
    events.last().filter(is_end).expect("an end at the end")
}

/// The answer to a question that streams: its bytes, or the problem.
async fn listen_to(state: &State, body: &str) -> Result<Vec<u8>, Error> {
    listen_at(state, STREAM, body).await
}

/// The answer of a route that streams: its bytes, or the problem.
pub(super) async fn listen_at(state: &State, route: &str, body: &str) -> Result<Vec<u8>, Error> {
    let request = fixture::request_to(route, "acme", body, Duration::from_secs(150));
    let response = state.handle(&request).await?;
    assert_eq!(response.status().as_u16(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    let chunks: Vec<Bytes> = response.into_events().unwrap().collect().await;
    // What the answer leaves to do is done by then.
    assert!(state.background().unwrap().drain(Duration::from_secs(130)).await);
    Ok(chunks.concat())
}

async fn listen(aws: &Arc<Aws>, config: Config) -> Result<Vec<Event>, Error> {
    listen_to(&state(aws, config), QUESTION)
        .await
        .map(|bytes| events(&bytes))
}

/// `verified`, which finds one passage and then says `frames`.
fn verified(frames: Vec<Frame>, end: End) -> Arc<Aws> {
    Aws::new([
        (RETRIEVE, found(&[passage("acme", DOCUMENT)])),
        (CONVERSE_STREAM, Reply::Stream(frames, end)),
    ])
}

/// `managed`, which says `frames`.
fn managed(frames: Vec<Frame>, end: End) -> Arc<Aws> {
    let aws = Aws::new([(ASK_STREAM, Reply::Stream(frames, end))]);
    aws.set_profile("plan", json!({"S": "managed"}));
    aws
}

fn turn(aws: &Aws) -> Turn {
    let mut turns = aws.turns();
    assert_eq!(turns.len(), 1);
    turns.pop().unwrap()
}

#[tokio::test(start_paused = true)]
async fn words_arrive_as_they_are_said() {
    let aws = verified(
        speaking(&["It has", " twelve [", "1]. Each", " dry [1]."], "end_turn"),
        End::Close,
    );
    let heard = listen(&aws, guarded(false)).await.unwrap();
    assert_eq!(
        names(&heard),
        [
            "session", "delta", "delta", "delta", "citation", "delta", "delta", "delta", "citation", "delta", "usage",
            "done"
        ]
    );
    insta::assert_json_snapshot!(
        "stream",
        heard.iter().map(|event| json!({&event.name: event.data})).collect::<Vec<_>>(),
        {"[0].session.session_id" => "[handle]"}
    );
    insta::assert_json_snapshot!("converse_stream", aws.asked(CONVERSE_STREAM)[0], {".system" => "[rules]"});
    let turn = turn(&aws);
    assert_eq!(
        (turn.status, turn.text.as_str()),
        (TurnStatus::Complete, "It has twelve [1]. Each dry [1].")
    );
    assert_eq!((turn.input_tokens, turn.citations.len()), (Some(200), 2));
    assert_eq!(heard[0].data["session_id"], aws.items("SESSION#")[0]["handle"]["S"]);
}

#[tokio::test(start_paused = true)]
async fn managed_text_waits_for_its_citation() {
    let own = || [passage("acme", DOCUMENT)];
    let frames = vec![
        output("It has "),
        output("twelve. From"),
        cited("It has twelve.", &own()),
        output(" nowhere.\n- Dry.\n"),
        cited("From nowhere.", &[]),
        cited("- Dry.", &own()),
        output("More from nowhere."),
    ];
    let aws = managed(frames, End::Close);
    let heard = listen(&aws, config()).await.unwrap();
    assert_eq!(
        names(&heard),
        ["session", "delta", "citation", "delta", "citation", "usage", "done"]
    );
    assert_eq!(text(&heard), "It has twelve.\n- Dry.");
    assert_eq!(
        heard[5].data,
        json!({"engine": "managed", "model": "default", "estimated": true})
    );
    let request = &aws.asked(ASK_STREAM)[0];
    insta::assert_json_snapshot!("request_stream", request, {
        ".retrieveAndGenerateConfiguration.knowledgeBaseConfiguration.*.promptTemplate.textPromptTemplate" => "[prompt]",
    });
    assert_eq!(aws.sessions()[0].1, SESSION);
    assert_eq!(turn(&aws).text, "It has twelve.\n- Dry.");
}

#[tokio::test(start_paused = true)]
async fn nothing_found_and_nothing_cited_say_so() {
    let aws = Aws::new([(RETRIEVE, found(&[]))]);
    let heard = listen(&aws, config()).await.unwrap();
    assert_eq!(names(&heard), ["session", "delta", "usage", "done"]);
    assert_eq!(text(&heard), NO_ANSWER);

    let aws = verified(speaking(&["From what I know: nine."], "end_turn"), End::Close);
    let heard = listen(&aws, config()).await.unwrap();
    assert_eq!(end(&heard).data, json!({"guardrail_action": "NONE", "text": NO_ANSWER}));
    assert_eq!(turn(&aws).text, NO_ANSWER);

    // What is said already need not be said instead of itself.
    let words: Vec<&str> = NO_ANSWER.split_inclusive(' ').collect();
    let aws = verified(speaking(&words, "end_turn"), End::Close);
    let heard = listen(&aws, config()).await.unwrap();
    assert_eq!(text(&heard), NO_ANSWER);
    assert_eq!(end(&heard).data, json!({"guardrail_action": "NONE"}));
    assert_eq!(turn(&aws).text, NO_ANSWER);

    let aws = managed(vec![output("It has nine."), cited("It has nine.", &[])], End::Close);
    let heard = listen(&aws, config()).await.unwrap();
    assert_eq!(text(&heard), NO_ANSWER);
}

#[tokio::test(start_paused = true)]
async fn wherever_the_upstream_breaks_a_stream_has_one_end_and_its_turn_says_which() {
    let spoken = speaking(&["It has", " twelve [1]", ".", " Dry [1]."], "end_turn");
    let own = || [passage("acme", DOCUMENT)];
    let asked = vec![
        output("It has twelve."),
        cited("It has twelve.", &own()),
        output(" Dry."),
        cited("Dry.", &own()),
    ];
    type Make = fn(Vec<Frame>, End) -> Arc<Aws>;
    for (make, frames, whole_from) in [
        // All words are there once the model has said that it stopped.
        (verified as Make, spoken, Some(7)),
        (managed as Make, asked, None),
    ] {
        for kept in 0..=frames.len() {
            for (exception, code) in [
                (None, Code::Unavailable),
                (Some("throttlingException"), Code::UpstreamThrottled),
                (Some("internalServerException"), Code::UpstreamFailed),
                (Some("modelStreamErrorException"), Code::UpstreamFailed),
            ] {
                let mut said = frames[..kept].to_vec();
                said.extend(exception.map(Frame::Exception));
                let is_whole = whole_from.is_some_and(|from| kept >= from);
                let aws = make(said, End::Cut);
                let heard = match listen(&aws, config()).await {
                    Ok(heard) => heard,
                    Err(error) => {
                        // Nothing had been said: an ordinary problem.
                        assert_eq!(error.code(), code, "{kept} {exception:?}");
                        let turn = turn(&aws);
                        assert_eq!((turn.status, turn.code), (TurnStatus::Failed, Some(code)));
                        assert_eq!(turn.text, "");
                        continue;
                    }
                };
                let turn = turn(&aws);
                assert!(turn.ended_at.is_some());
                assert_eq!(turn.text, text(&heard));
                if is_whole {
                    assert_eq!(end(&heard).name, "done");
                    assert_eq!(turn.status, TurnStatus::Complete);
                } else {
                    let end = end(&heard);
                    assert_eq!(
                        (end.name.as_str(), end.data["code"].as_str()),
                        ("error", Some(code.as_str()))
                    );
                    assert_eq!((turn.status, turn.code), (TurnStatus::Failed, Some(code)));
                    // The client learns nothing of what Bedrock said.
                    assert!(!end.data.to_string().contains("arn:"), "{end:?}");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_without_its_end_is_no_answer() {
    let mut frames = speaking(&["It has twelve [1]."], "end_turn");
    frames.truncate(3);
    let heard = listen(&verified(frames, End::Close), config()).await.unwrap();
    assert_eq!(end(&heard).data["code"], "upstream_failed");
}

#[tokio::test(start_paused = true)]
async fn what_fails_before_the_first_word_is_an_ordinary_problem() {
    for (operation, reply, code) in [
        (
            RETRIEVE,
            Reply::Refuse(429, "ThrottlingException", "no"),
            Code::UpstreamThrottled,
        ),
        (RETRIEVE, Reply::Drop, Code::Unavailable),
        (
            CONVERSE_STREAM,
            Reply::Refuse(400, "ValidationException", "no"),
            Code::UpstreamFailed,
        ),
        (
            CONVERSE_STREAM,
            Reply::Refuse(408, "ModelTimeoutException", "no"),
            Code::Timeout,
        ),
        (CONVERSE_STREAM, Reply::Panic, Code::Internal),
    ] {
        let aws = verified(Vec::new(), End::Close);
        aws.instead(operation, reply);
        let error = listen(&aws, config()).await.unwrap_err();
        assert_eq!(error.code(), code);
        // Nothing of it is kept: there is no conversation that the caller could know.
        assert!(aws.items("SESSION#").is_empty() && aws.turns().is_empty());
    }
    let aws = verified(Vec::new(), End::Close);
    for body in [r#"{"user_query": ""}"#, r#"{"user_query": "?", "session_id": "x"}"#] {
        assert!(listen_to(&state(&aws, config()), body).await.is_err());
    }
    aws.set_status("suspended");
    assert_eq!(listen(&aws, config()).await.unwrap_err().code(), Code::TenantSuspended);
    assert!(aws.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_a_stream_with_an_error() {
    let (mut feed, body) = crate::event::stream(
        Some(bulkhead_core::session::SessionHandle::generate()),
        "r-1",
        &bulkhead_core::tenant::TenantId::parse("acme").unwrap(),
        Duration::from_secs(15),
        &Clock::system(),
    );
    let work = tokio::spawn(async move {
        feed.send(crate::answer::Piece::Delta("It has".to_owned()), true).await;
        panic!("on purpose");
    });
    let chunks: Vec<Bytes> = body.collect().await;
    assert!(work.await.is_err());
    let heard = events(&chunks.concat());
    assert_eq!(heard[0].data["context_reset"], true);
    assert_eq!(end(&heard).data["code"], "internal");

    // One in the middle of an answer, which the turn tells as well.
    let aws = managed(
        vec![
            output("It has twelve."),
            cited("It has twelve.", &[passage("acme", DOCUMENT)]),
        ],
        End::Stall,
    );
    let mut config = guarded(true);
    config.streams.heartbeat = Duration::from_secs(1);
    aws.then(APPLY_GUARDRAIL, Reply::Panic);
    let error = listen(&aws, config).await.unwrap_err();
    assert_eq!(error.code(), Code::Internal);
    assert_eq!(turn(&aws).code, Some(Code::Internal));
}

#[tokio::test(start_paused = true)]
async fn a_silent_upstream_is_lost_after_a_while_and_heartbeats_fill_it() {
    let mut frames = speaking(&["It has twelve [1]."], "end_turn");
    frames.truncate(2);
    let aws = verified(frames, End::Stall);
    let bytes = listen_to(&state(&aws, config()), QUESTION).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes).matches("\n\n: \n\n").count(), 1);
    let heard = events(&bytes);
    assert_eq!(end(&heard).data["code"], "timeout");
    assert!(aws.dropped.load(Ordering::Relaxed));
    assert_eq!(turn(&aws).code, Some(Code::Timeout));

    // One that does not even begin holds the first byte back for one heartbeat only.
    let aws = verified(Vec::new(), End::Close);
    aws.instead(RETRIEVE, Reply::Never);
    let bytes = listen_to(&state(&aws, config()), QUESTION).await.unwrap();
    assert!(bytes.starts_with(b": \n\n: \n\n"));
    let heard = events(&bytes);
    assert_eq!(names(&heard), ["session", "error"]);
    assert_eq!(heard[1].data["code"], "timeout");
}

#[tokio::test(start_paused = true)]
async fn a_suspension_ends_a_stream() {
    for reply in ["suspended", "gone"] {
        let mut frames = speaking(&["It has"], "end_turn");
        frames.truncate(2);
        frames.push(Frame::Status("suspended"));
        let aws = verified(frames, End::Stall);
        let state = state(&aws, config());
        let request = fixture::request_to(STREAM, "acme", QUESTION, Duration::from_secs(150));
        let begun = tokio::time::Instant::now();
        let body = state.handle(&request).await.unwrap().into_events().unwrap();
        if reply == "gone" {
            aws.items.lock().unwrap().retain(|(pk, _), _| pk != "PROFILE#acme");
        }
        let chunks: Vec<Bytes> = body.collect().await;
        let heard = events(&chunks.concat());
        let code = if reply == "gone" {
            Code::TenantUnknown
        } else {
            Code::TenantSuspended
        };
        assert_eq!(end(&heard).data["code"], code.as_str());
        assert_eq!(begun.elapsed().as_secs(), 20);
        assert_eq!(turn(&aws).code, Some(code));
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_a_reader_is_finished_where_somebody_may_look_for_it() {
    // Kept: it is finished and stored.
    let aws = verified(speaking(&["It has", " twelve [1]."], "end_turn"), End::Close);
    let state = state(&aws, config());
    let request = fixture::request_to(STREAM, "acme", QUESTION, Duration::from_secs(150));
    let mut body = state.handle(&request).await.unwrap().into_events().unwrap();
    assert!(body.next().await.unwrap().starts_with(b"id: 1\nevent: session"));
    drop(body);
    assert!(state.background().unwrap().drain(Duration::from_secs(1)).await);
    assert_eq!(
        (turn(&aws).status, turn(&aws).text.as_str()),
        (TurnStatus::Complete, "It has twelve [1].")
    );

    // Not kept: the model is stopped within a second.
    let mut frames = speaking(&["It has"], "end_turn");
    frames.truncate(2);
    let aws = verified(frames, End::Stall);
    aws.set_profile("transcripts", json!({"BOOL": false}));
    let state = super::state(&aws, config());
    let mut body = state.handle(&request).await.unwrap().into_events().unwrap();
    body.next().await.unwrap();
    body.next().await.unwrap();
    // A departed reader is noticed by the pieces that can't be sent: an empty one comes twice a second.
    let begun = tokio::time::Instant::now();
    assert!(body.next().await.unwrap().is_empty());
    assert!(begun.elapsed() <= Duration::from_millis(501));
    assert!(!aws.dropped.load(Ordering::Relaxed));
    drop(body);
    assert!(state.background().unwrap().drain(Duration::from_millis(400)).await);
    assert!(aws.dropped.load(Ordering::Relaxed));
    assert!(aws.turns().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_stored_does_not_end_well() {
    let aws = verified(speaking(&["It has", " twelve [1]."], "end_turn"), End::Close);
    aws.is_read_only.store(true, Ordering::Relaxed);
    match listen(&aws, config()).await {
        Ok(heard) => assert_eq!(end(&heard).data["code"], "internal"),
        Err(error) => assert_eq!(error.code(), Code::Internal),
    }
}

#[tokio::test(start_paused = true)]
async fn a_guardrail_replaces_what_was_said() {
    let aws = verified(speaking(&["It has [1]", " Sorry."], "guardrail_intervened"), End::Close);
    let heard = listen(&aws, guarded(false)).await.unwrap();
    assert_eq!(names(&heard)[heard.len() - 3..], ["guardrail", "usage", "done"]);
    assert_eq!(text(&heard), BLOCKED);
    assert_eq!(end(&heard).data, json!({"guardrail_action": "INTERVENED"}));
    let turn_of = turn(&aws);
    assert!(turn_of.guardrail_intervened && turn_of.citations.is_empty() && turn_of.text == BLOCKED);

    let own = || [passage("acme", DOCUMENT)];
    let intervened = || Frame::Event("guardrail", json!({"action": "INTERVENED"}));
    let frames = vec![
        output("Twelve."),
        cited("Twelve.", &own()),
        intervened(),
        output("Sorry."),
    ];
    let heard = listen(&managed(frames, End::Close), guarded(false)).await.unwrap();
    assert_eq!(text(&heard), BLOCKED);
    let frames = vec![intervened(), output("Ask {NAME}."), cited("Ask {NAME}.", &own())];
    let heard = listen(&managed(frames, End::Close), guarded(false)).await.unwrap();
    assert_eq!(names(&heard), ["session", "guardrail", "citation", "usage", "done"]);
    assert_eq!(text(&heard), "Ask {NAME}.");
    // Nothing that it says opens the firewall.
    let frames = vec![intervened(), cited("Nine.", &[passage("acme-2", OTHER_DOCUMENT)])];
    let error = listen(&managed(frames, End::Close), guarded(false)).await.unwrap_err();
    assert!(matches!(error, Error::Breach { .. }));
}

/// What a part says may be from any of the passages that it rests on.
#[tokio::test(start_paused = true)]
async fn a_managed_part_that_rests_on_a_forbidden_passage_too_is_not_released() {
    let judged = |action: &str| Reply::Answer(json!({"action": action, "usage": {}, "outputs": [], "assessments": []}));
    let mixed = [
        passage("acme", DOCUMENT),
        passage_saying("acme", DOCUMENT, "Forbidden."),
    ];
    let frames = vec![
        output("Twelve. Forbidden."),
        cited("Twelve.", &mixed[..1]),
        cited("Forbidden.", &mixed),
    ];
    let aws = managed(frames, End::Close);
    // The first part's passage; both of the second part's together, then each by itself.
    for action in ["NONE", "GUARDRAIL_INTERVENED", "NONE", "GUARDRAIL_INTERVENED"] {
        aws.then(APPLY_GUARDRAIL, judged(action));
    }
    let heard = listen(&aws, guarded(true)).await.unwrap();
    assert_eq!(text(&heard), "Twelve.");
    assert_eq!(turn(&aws).text, "Twelve.");
}

#[tokio::test(start_paused = true)]
async fn the_context_that_was_lost_is_told_with_the_conversation() {
    let good = || {
        Reply::Stream(
            vec![output("Twelve."), cited("Twelve.", &[passage("acme", DOCUMENT)])],
            End::Close,
        )
    };
    let aws = Aws::new([(ASK_STREAM, good()), (ASK_STREAM, gone()), (ASK_STREAM, good())]);
    aws.set_profile("plan", json!({"S": "managed"}));
    let first = listen(&aws, config()).await.unwrap();
    assert_eq!(first[0].data.get("context_reset"), None);
    let body = json!({"user_query": "And doors?", "session_id": first[0].data["session_id"]});
    let bytes = listen_to(&state(&aws, config()), &body.to_string()).await.unwrap();
    let second = events(&bytes);
    assert_eq!(second[0].data["context_reset"], true);
    assert_eq!(aws.asked(ASK_STREAM)[1]["sessionId"], SESSION);
    assert_eq!(aws.asked(ASK_STREAM)[2].get("sessionId"), None);
    let turns = aws.turns();
    assert_eq!(turns.iter().map(|turn| turn.number).collect::<Vec<_>>(), [1, 2]);
}

/// What Bedrock's session heard and nobody checked could be repeated by a later turn that cites something else.
#[tokio::test(start_paused = true)]
async fn a_session_that_was_not_checked_to_its_end_is_not_gone_on_with() {
    let frames = || {
        vec![
            output("It has twelve."),
            cited("It has twelve.", &[passage("acme", DOCUMENT)]),
            output(SECRET),
        ]
    };
    for upstream in [End::Cut, End::Stall] {
        let aws = managed(frames(), upstream);
        let heard = listen(&aws, config()).await.unwrap();
        assert_eq!(end(&heard).name, "error");
        assert_eq!(aws.sessions()[0].1, "");
    }
    // A reader who leaves before the citation comes, where nobody else will read it.
    let aws = managed(frames(), End::Stall);
    aws.set_profile("transcripts", json!({"BOOL": false}));
    let state = state(&aws, config());
    let request = fixture::request_to(STREAM, "acme", QUESTION, Duration::from_secs(150));
    let mut body = state.handle(&request).await.unwrap().into_events().unwrap();
    assert!(body.next().await.unwrap().starts_with(b"id: 1\nevent: session"));
    drop(body);
    assert!(state.background().unwrap().drain(Duration::from_secs(1)).await);
    assert_eq!(aws.sessions()[0].1, "");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_heard_what_was_refused_ends_although_its_turn_was_not_stored() {
    let own = || [passage("acme", DOCUMENT)];
    let foreign = [passage("acme-2", OTHER_DOCUMENT)];
    let aws = managed(vec![output("Twelve."), cited("Twelve.", &own())], End::Close);
    let first = listen(&aws, config()).await.unwrap();
    assert_eq!(aws.sessions()[0].1, SESSION);
    aws.takes_no_turns.store(true, Ordering::Relaxed);
    aws.instead(
        ASK_STREAM,
        Reply::Stream(vec![output(SECRET), cited(SECRET, &foreign)], End::Close),
    );
    let body = json!({"user_query": "And doors?", "session_id": first[0].data["session_id"]});
    let error = listen_to(&state(&aws, config()), &body.to_string()).await.unwrap_err();
    assert!(matches!(error, Error::Breach { .. }));
    assert_eq!(aws.sessions()[0].1, "");
}

#[tokio::test(start_paused = true)]
async fn text_arrives_byte_for_byte() {
    let said = "a\r\nb\rc\n\nd\u{2028}e\u{2029}f\ndata: x\nevent: done\n\n: y\u{0}\u{feff}\u{1f6a2}\u{e9}e\u{301} [1]";
    // Cut between all characters, and the frames between all bytes.
    let deltas: Vec<String> = said.chars().map(String::from).collect();
    let deltas: Vec<&str> = deltas.iter().map(String::as_str).collect();
    for (deltas, grain) in [(&deltas[..], 0), (&deltas[..], 1), (&[said][..], 1), (&[said][..], 7)] {
        let aws = verified(speaking(deltas, "end_turn"), End::Close);
        aws.grain.store(grain, Ordering::Relaxed);
        let heard = listen(&aws, config()).await.unwrap();
        assert_eq!(text(&heard), said);
        assert_eq!(end(&heard).name, "done");
        assert_eq!(turn(&aws).text, said);
    }
    let frames = vec![output(said), cited(said, &[passage("acme", DOCUMENT)])];
    let aws = managed(frames, End::Close);
    aws.grain.store(1, Ordering::Relaxed);
    assert_eq!(text(&listen(&aws, config()).await.unwrap()), said);
}

/// Passages that are not the caller's to see, whatever else they say.
fn foreign(text: &str) -> Vec<Value> {
    let own = || passage_saying("acme", DOCUMENT, text);
    let mut variants = vec![passage_saying("acme-2", OTHER_DOCUMENT, text)];
    for (path, value) in [
        ("/metadata/tenantId", json!("acme-2")),
        ("/metadata/tenantId", json!(["acme"])),
        ("/metadata/tenantId", Value::Null),
        ("/metadata/documentId", json!(OTHER_DOCUMENT)),
        ("/metadata/audience", json!("board")),
        ("/metadata/audience", Value::Null),
        (
            "/location/s3Location/uri",
            json!(format!("s3://{BUCKET}/t/acme-2/{DOCUMENT}.pdf")),
        ),
        (
            "/location/s3Location/uri",
            json!(format!("s3://elsewhere/t/acme/{DOCUMENT}.pdf")),
        ),
        ("/location", Value::Null),
    ] {
        let mut variant = own();
        *variant.pointer_mut(path).unwrap() = value;
        variants.push(variant);
    }
    variants
}

const SECRET: &str = "The secret is 42 barnacles.";

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
}

fn runs(cases: u32) -> TestRunner {
    TestRunner::new(ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    })
}

/// Where a foreign passage stands among how many, and which kind of foreign it is.
fn place(most: usize) -> impl Strategy<Value = (usize, usize, usize)> {
    (1..=most).prop_flat_map(|all| (Just(all), 0..all, 0..foreign("").len()))
}

#[test]
fn no_byte_of_a_foreign_passage_is_in_a_verified_stream() {
    let runtime = runtime();
    // A model that would say it all.
    let aws = verified(speaking(&[SECRET, " [1]"], "end_turn"), End::Close);
    let state = state(&aws, config());
    let tried = runs(1000).run(&place(20), |(all, position, kind)| {
        let mut passages = vec![passage("acme", DOCUMENT); all];
        passages[position] = foreign(SECRET).swap_remove(kind);
        aws.instead(RETRIEVE, found(&passages));
        let heard = runtime.block_on(listen_to(&state, QUESTION));
        let is_breach = matches!(heard, Err(Error::Breach { .. }));
        prop_assert!(is_breach);
        Ok(())
    });
    tried.unwrap();
    assert!(aws.asked(CONVERSE_STREAM).is_empty());
    assert!(aws.turns().is_empty());
}

#[test]
fn no_byte_of_a_cited_foreign_passage_is_in_a_managed_stream() {
    let runtime = runtime();
    let aws = managed(Vec::new(), End::Close);
    let state = state(&aws, config());
    let cases = (place(6), any::<bool>(), any::<bool>());
    let tried = runs(1000).run(&cases, |((all, position, kind), text_first, beside_own)| {
        let mut frames = Vec::new();
        for n in 0..all {
            let is_foreign = n == position;
            let text = if is_foreign {
                SECRET.to_owned()
            } else {
                format!("Part {n}.")
            };
            let mut references = vec![passage("acme", DOCUMENT); usize::from(!is_foreign || beside_own)];
            if is_foreign {
                references.push(foreign(SECRET).swap_remove(kind));
            }
            let mut pair = [output(&text), cited(&text, &references)];
            if !text_first {
                pair.reverse();
            }
            frames.extend(pair);
        }
        aws.instead(ASK_STREAM, Reply::Stream(frames, End::Close));
        match runtime.block_on(listen_to(&state, QUESTION)) {
            Err(error) => {
                let is_breach = matches!(error, Error::Breach { .. });
                prop_assert!(position == 0 && is_breach);
            }
            Ok(bytes) => {
                let whole = String::from_utf8(bytes.clone()).unwrap();
                prop_assert!(!whole.contains("secret") && !whole.contains("barnacles"), "{}", whole);
                let heard = events(&bytes);
                prop_assert_eq!(&end(&heard).data["code"], "upstream_failed");
                let before: Vec<String> = (0..position).map(|n| format!("Part {n}.")).collect();
                prop_assert_eq!(text(&heard).replace(' ', ""), before.concat().replace(' ', ""));
            }
        }
        Ok(())
    });
    tried.unwrap();
    let mut turns = aws.turns();
    assert!(
        turns
            .iter()
            .all(|turn| turn.status == TurnStatus::Failed && !turn.text.contains("secret"))
    );
    turns.clear();
}

/// What `managed` can't keep back, and why `verified` is what streams unless a plan says otherwise: Bedrock shows only
/// passages that it cites (docs/threat-model.md).
#[tokio::test(start_paused = true)]
async fn managed_repeats_a_foreign_passage_that_is_used_without_being_cited() {
    let said = format!("It has twelve. {SECRET}");
    let frames = vec![output(&said), cited(&said, &[passage("acme", DOCUMENT)])];
    let heard = listen(&managed(frames, End::Close), config()).await.unwrap();
    assert_eq!(text(&heard), said);
    // By itself, in a part that cites nothing, it stays behind.
    let frames = vec![
        output(&said),
        cited("It has twelve.", &[passage("acme", DOCUMENT)]),
        cited(SECRET, &[]),
    ];
    let heard = listen(&managed(frames, End::Close), config()).await.unwrap();
    assert_eq!(text(&heard), "It has twelve.");
}
