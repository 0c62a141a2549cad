//! Conversations as their owners see them: listed, read, deleted, and what is left out of them in the meantime.

use bulkhead_cli::deployment::{Answer, Call};
use bulkhead_cli::event;
use bulkhead_local::stack::random_name;
use integration_tests::fixture::{Fixture, Tenant};
use reqwest::Method;
use serde_json::{Value, json};

use crate::documents;

const BUILT: &str = "When was the lighthouse built?";
const LAMP: &str = "What does the lamp of the lighthouse burn?";

async fn lighthouse(prefix: &str) -> (Tenant, String) {
    let tenant = Fixture::shared().tenant(prefix).await;
    let document = tenant
        .upload(
            "lighthouse.txt",
            "The lighthouse was built in 1862. The lamp of the lighthouse burns whale oil.",
        )
        .await;
    (tenant, document)
}

async fn ask(tenant: &Tenant, token: &str, question: &str, session: Option<&str>) -> Value {
    let answer = tenant
        .ask_as(token, json!({"user_query": question, "session_id": session}))
        .await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text());
    answer.json()
}

async fn get(tenant: &Tenant, token: &str, path: &str) -> Answer {
    tenant.fixture().send(&Call::new(Method::GET, path).token(token)).await
}

async fn read(tenant: &Tenant, token: &str, path: &str) -> Value {
    let answer = get(tenant, token, path).await;
    assert_eq!(answer.status.as_u16(), 200, "{path}: {}", answer.text());
    answer.json()
}

/// Uploads a text for a group's members and waits until it is indexed.
async fn upload_for(tenant: &Tenant, group: &str, content: &[u8]) {
    let mut body = documents::declaration("secret.txt", content);
    body["audience"] = json!(group);
    let id = documents::id_of(&documents::declare(tenant, &body).await.json());
    documents::put(tenant, &id, "text/plain", content).await;
    documents::complete(tenant, &id).await;
    assert_eq!(tenant.settled(&id).await["status"], "indexed");
}

#[tokio::test]
async fn a_conversation_is_listed_read_and_deleted() {
    let (tenant, _) = lighthouse("log").await;
    let token = tenant.reader();
    let first = ask(&tenant, &token, BUILT, None).await;
    let id = first["sessionId"].as_str().unwrap();
    let second = ask(&tenant, &token, LAMP, Some(id)).await;
    let other = ask(&tenant, &token, LAMP, None).await;

    let list = read(&tenant, &token, "/sessions").await;
    let listed: Vec<&Value> = list["sessions"].as_array().unwrap().iter().collect();
    assert_eq!(listed.len(), 2);
    let session = listed.iter().find(|session| session["session_id"] == id).unwrap();
    assert_eq!((&session["turn_count"], &session["title"]), (&json!(2), &json!(BUILT)));

    let path = format!("/sessions/{id}");
    let whole = read(&tenant, &token, &path).await;
    assert_eq!(whole["session_id"], id);
    let turns = whole["turns"].as_array().unwrap();
    assert_eq!(turns.len(), 2);
    for (turn, (n, question, answer)) in turns.iter().zip([(1, BUILT, &first), (2, LAMP, &second)]) {
        assert_eq!((&turn["number"], &turn["user_query"]), (&json!(n), &json!(question)));
        assert_eq!(turn["status"], "complete");
        // What is found there is what was answered.
        for (here, there) in [
            ("output", "output"),
            ("citations", "citations"),
            ("guardrail_action", "guardrailAction"),
            ("usage", "usage"),
        ] {
            assert_eq!(turn[here], answer[there], "{here}");
        }
    }

    let gone = Call::new(Method::DELETE, &path).token(&token);
    assert!(tenant.fixture().expect(204, &gone).await.body.is_empty());
    let missing = get(&tenant, &token, "/sessions/01JD0000000000000000000000").await;
    assert_eq!(missing.status.as_u16(), 404);
    assert_eq!(get(&tenant, &token, &path).await.fingerprint(), missing.fingerprint());
    assert_eq!(tenant.fixture().send(&gone).await.fingerprint(), missing.fingerprint());
    let again = json!({"user_query": BUILT, "session_id": id});
    assert_eq!(tenant.ask_as(&token, again).await.status.as_u16(), 404);
    let list = read(&tenant, &token, "/sessions").await;
    let left: Vec<&Value> = list["sessions"].as_array().unwrap().iter().collect();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0]["session_id"], other["sessionId"]);
}

#[tokio::test]
async fn a_conversation_is_its_users_alone() {
    let ((tenant, _), (stranger, _)) = (lighthouse("own").await, lighthouse("own").await);
    let rita = tenant.token("rita", &[]);
    let id = ask(&tenant, &rita, BUILT, None).await["sessionId"].clone();
    let path = format!("/sessions/{}", id.as_str().unwrap());
    let missing = get(&tenant, &rita, "/sessions/01JD0000000000000000000000")
        .await
        .fingerprint();
    for (whose, token) in [
        (&tenant, tenant.token("bob", &[])),
        (&tenant, tenant.admin()),
        (&stranger, stranger.token("rita", &[])),
    ] {
        assert_eq!(read(whose, &token, "/sessions").await["sessions"], json!([]));
        for method in [Method::GET, Method::DELETE] {
            let call = Call::new(method, &path).token(&token);
            assert_eq!(tenant.fixture().send(&call).await.fingerprint(), missing);
        }
    }
    for forged in ["x", "..%2F..%2Fx", "%00", &"A".repeat(300)] {
        let answer = get(&tenant, &rita, &format!("/sessions/{forged}")).await;
        assert_eq!(answer.fingerprint(), missing, "{forged}");
    }
    assert_eq!(read(&tenant, &rita, &path).await["turn_count"], 1);
}

#[tokio::test]
async fn lists_go_on_where_they_ended() {
    let (tenant, _) = lighthouse("page").await;
    let token = tenant.reader();
    let mut asked = Vec::new();
    for _ in 0..3 {
        asked.push(ask(&tenant, &token, BUILT, None).await["sessionId"].clone());
    }
    let id = asked[0].as_str().unwrap().to_owned();
    ask(&tenant, &token, LAMP, Some(&id)).await;
    ask(&tenant, &token, BUILT, Some(&id)).await;

    let mut listed = Vec::new();
    let mut path = "/sessions?limit=2".to_owned();
    loop {
        let page = read(&tenant, &token, &path).await;
        let sessions = page["sessions"].as_array().unwrap();
        assert!(sessions.len() <= 2);
        listed.extend(sessions.iter().map(|session| session["session_id"].clone()));
        match page.get("next_cursor").and_then(Value::as_str) {
            Some(next) => path = format!("/sessions?limit=2&cursor={next}"),
            None => break,
        }
    }
    asked.reverse();
    assert_eq!(listed, asked, "the newest first");

    let mut numbers = Vec::new();
    let base = format!("/sessions/{id}?limit=1");
    let mut path = base.clone();
    loop {
        let page = read(&tenant, &token, &path).await;
        assert_eq!(page["turn_count"], 3);
        let turns = page["turns"].as_array().unwrap();
        assert_eq!(turns.len(), 1);
        numbers.push(turns[0]["number"].as_u64().unwrap());
        match page.get("next_cursor").and_then(Value::as_str) {
            Some(next) => path = format!("{base}&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(numbers, [1, 2, 3], "the oldest first");

    for bad in ["limit=0", "limit=101", "limit=x", "cursor=x"] {
        for path in ["/sessions".to_owned(), format!("/sessions/{id}")] {
            let answer = get(&tenant, &token, &format!("{path}?{bad}")).await;
            assert_eq!(answer.status.as_u16(), 400, "{path}?{bad}");
        }
    }
}

#[tokio::test]
async fn passages_of_a_document_that_is_deleted_are_left_out() {
    let (tenant, document) = lighthouse("drop").await;
    let token = tenant.reader();
    let answer = ask(&tenant, &token, BUILT, None).await;
    let path = format!("/sessions/{}", answer["sessionId"].as_str().unwrap());
    let before = read(&tenant, &token, &path).await;
    assert_ne!(before["turns"][0]["citations"], json!([]));

    let delete = Call::new(Method::DELETE, format!("/documents/{document}")).token(tenant.admin());
    tenant.fixture().expect(202, &delete).await;
    let after = read(&tenant, &token, &path).await;
    assert_eq!(after["turns"][0]["citations"], json!([]));
    assert_eq!(after["turns"][0]["output"], before["turns"][0]["output"]);
    assert!(!after.to_string().contains(&document));
}

#[tokio::test]
async fn passages_for_a_group_that_the_caller_has_left_are_left_out() {
    let fixture = Fixture::shared();
    let tenant = fixture.named_tenant(&random_name("left"), &["keepers"]).await;
    upload_for(&tenant, "keepers", b"The lighthouse was built in 1862.").await;

    let keeper = tenant.group_token("rita", &["keepers"]);
    let answer = ask(&tenant, &keeper, BUILT, None).await;
    assert_ne!(answer["citations"], json!([]));
    let path = format!("/sessions/{}", answer["sessionId"].as_str().unwrap());
    let as_keeper = read(&tenant, &keeper, &path).await;
    assert_eq!(as_keeper["turns"][0]["citations"], answer["citations"]);
    let later = read(&tenant, &tenant.group_token("rita", &[]), &path).await;
    assert_eq!(later["turns"][0]["citations"], json!([]));
}

#[tokio::test]
async fn a_streamed_answer_is_found_in_its_conversation() {
    let (tenant, _) = lighthouse("heard").await;
    let token = tenant.reader();
    let events = tenant.stream(BUILT).await;
    let data = |name: &str| &events.iter().find(|event| event.name == name).unwrap().data;
    let path = format!("/sessions/{}", data("session")["session_id"].as_str().unwrap());
    // It is stored before its end is said.
    let turn = read(&tenant, &token, &path).await["turns"][0].clone();
    assert_eq!(turn["status"], "complete");
    assert_eq!(turn["output"]["text"], event::text(&events));
    assert_eq!(turn["citations"], json!([data("citation")]));
    assert_eq!(&turn["usage"], data("usage"));
}

#[tokio::test]
async fn a_tenant_that_keeps_no_transcripts_has_conversations_without_turns() {
    let (tenant, _) = lighthouse("mute").await;
    let change = Call::new(Method::PATCH, format!("/tenants/{}", tenant.id))
        .token(tenant.fixture().operator())
        .json(&json!({"transcripts": false}));
    tenant.fixture().expect(200, &change).await;
    let token = tenant.reader();
    let answer = ask(&tenant, &token, BUILT, None).await;
    let path = format!("/sessions/{}", answer["sessionId"].as_str().unwrap());
    let session = read(&tenant, &token, &path).await;
    assert_eq!((&session["turns"], &session["turn_count"]), (&json!([]), &json!(1)));
    assert_eq!(session.get("title"), None);
    assert!(!session.to_string().contains("lighthouse"));
}
