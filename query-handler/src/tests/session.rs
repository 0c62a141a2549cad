//! Conversations as their owners see them.

use bulkhead_core::request::Request;

use super::*;

const ROUTE: &str = "/sessions/{session_id}";

async fn call(aws: &Arc<Aws>, request: &Request) -> Result<Value, Error> {
    let response = state(aws, config()).handle(request).await?;
    Ok(serde_json::from_str(response.body()).unwrap_or(Value::Null))
}

async fn list(aws: &Arc<Aws>, query: Value) -> Result<Value, Error> {
    call(aws, &fixture::visit("GET", "/sessions", None, query, "")).await
}

async fn get(aws: &Arc<Aws>, session: &str, query: Value, groups: &str) -> Result<Value, Error> {
    call(aws, &fixture::visit("GET", ROUTE, Some(session), query, groups)).await
}

async fn delete(aws: &Arc<Aws>, session: &str) -> Result<Value, Error> {
    call(aws, &fixture::visit("DELETE", ROUTE, Some(session), json!({}), "")).await
}

/// Asks a question, in a conversation if there is one; its name.
async fn talk(aws: &Arc<Aws>, session: Option<&str>) -> String {
    let mut body = question();
    body["session_id"] = json!(session);
    ask(aws, body).await.unwrap()["sessionId"].as_str().unwrap().to_owned()
}

/// Changes the items whose sort keys begin with `prefix`.
fn change(aws: &Aws, prefix: &str, change: impl Fn(&mut Value)) {
    let mut items = aws.items.lock().unwrap();
    for ((_, sk), item) in items.iter_mut() {
        if sk.starts_with(prefix) {
            change(item);
        }
    }
}

#[tokio::test]
async fn a_conversation_holds_what_was_answered() {
    let aws = Aws::new(asked([good(SESSION)]));
    let id = talk(&aws, None).await;
    talk(&aws, Some(&id)).await;
    let whole = get(&aws, &id, json!({}), "").await.unwrap();
    let time = insta::dynamic_redaction(|value, _| {
        assert!(value.as_str().unwrap().ends_with('Z'));
        "[time]"
    });
    assert_eq!(whole["session_id"], id);
    insta::assert_json_snapshot!("session", whole, {
        ".session_id" => "[handle]",
        ".created_at" => "[time]", ".updated_at" => "[time]", ".expires_at" => "[time]",
        ".turns[].created_at" => "[time]", ".turns[].ended_at" => time,
    });
    // Bedrock's own name of it stays here.
    assert!(!whole.to_string().contains(SESSION));
    let listed = list(&aws, json!({})).await.unwrap();
    let mut session = whole;
    session.as_object_mut().unwrap().remove("turns");
    assert_eq!(listed, json!({"sessions": [session]}));
}

#[tokio::test]
async fn pages_follow_each_other() {
    let aws = Aws::new(asked([good(SESSION)]));
    let first = talk(&aws, None).await;
    let second = talk(&aws, None).await;
    talk(&aws, Some(&first)).await;
    let page = list(&aws, json!({"limit": ["1"]})).await.unwrap();
    assert_eq!(page["sessions"][0]["session_id"], second);
    let next = json!({"limit": ["1"], "cursor": [page["next_cursor"]]});
    let page = list(&aws, next.clone()).await.unwrap();
    assert_eq!(page["sessions"][0]["session_id"], first);
    assert_eq!(page.get("next_cursor"), None);

    let page = get(&aws, &first, json!({"limit": ["1"]}), "").await.unwrap();
    assert_eq!(
        (&page["turns"][0]["number"], &page["turn_count"]),
        (&json!(1), &json!(2))
    );
    let next_turn = json!({"limit": ["1"], "cursor": [page["next_cursor"]]});
    let page = get(&aws, &first, next_turn.clone(), "").await.unwrap();
    assert_eq!(page["turns"][0]["number"], 2);
    assert_eq!(page.get("next_cursor"), None);

    // A cursor is good for the list that it is from.
    assert_eq!(
        list(&aws, next_turn.clone()).await.unwrap_err().code(),
        Code::InvalidRequest
    );
    for cursor in [next, next_turn] {
        let error = get(&aws, &second, cursor, "").await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidRequest);
    }
    for limit in ["0", "101", "x", ""] {
        assert_eq!(
            list(&aws, json!({"limit": [limit]})).await.unwrap_err().code(),
            Code::InvalidRequest
        );
    }
}

#[tokio::test]
async fn passages_that_may_not_be_shown_any_more_are_left_out() {
    let aws = Aws::new(asked([good(SESSION)]));
    let id = talk(&aws, None).await;
    let citations = |session: &Value| session["turns"][0]["citations"].as_array().unwrap().len();
    assert_eq!(citations(&get(&aws, &id, json!({}), "").await.unwrap()), 1);

    // A group's: its members see it, and who is in it no longer or what is no group any more does not.
    aws.set_profile("groups", json!({"L": [{"S": "crew"}]}));
    change(&aws, "DOC#", |document| document["audience"] = json!({"S": "crew"}));
    assert_eq!(citations(&get(&aws, &id, json!({}), "crew").await.unwrap()), 1);
    assert_eq!(citations(&get(&aws, &id, json!({}), "").await.unwrap()), 0);
    aws.set_profile("groups", json!({"L": []}));
    assert_eq!(citations(&get(&aws, &id, json!({}), "crew").await.unwrap()), 0);

    aws.put_document(DOCUMENT, "deleting");
    let left = get(&aws, &id, json!({}), "").await.unwrap();
    assert_eq!(citations(&left), 0);
    assert_eq!(left["turns"][0]["output"]["text"], "It has twelve.");
    assert!(!left.to_string().contains(DOCUMENT));

    // A title is what the document is called now.
    aws.put_document(DOCUMENT, "indexed");
    change(&aws, "DOC#", |document| document["title"] = json!({"S": "Manual"}));
    let now = get(&aws, &id, json!({}), "").await.unwrap();
    let reference = &now["turns"][0]["citations"][0]["retrievedReferences"][0];
    assert_eq!(reference["metadata"]["title"], "Manual");

    let key = ("TENANT#acme".to_owned(), format!("DOC#{DOCUMENT}"));
    aws.items.lock().unwrap().remove(&key);
    assert_eq!(citations(&get(&aws, &id, json!({}), "").await.unwrap()), 0);
}

#[tokio::test]
async fn a_turn_that_nobody_ended_has_failed() {
    let aws = Aws::new(asked([good(SESSION)]));
    let id = talk(&aws, None).await;
    change(&aws, "TURN#", |turn| {
        turn["status"] = json!({"S": "answering"});
        turn.as_object_mut().unwrap().remove("ended_at");
    });
    let turn = get(&aws, &id, json!({}), "").await.unwrap()["turns"][0].clone();
    assert_eq!((&turn["status"], turn.get("code")), (&json!("answering"), None));
    change(&aws, "TURN#", |turn| {
        turn["created_at"] = json!({"S": "2026-01-01T00:00:00Z"})
    });
    let turn = get(&aws, &id, json!({}), "").await.unwrap()["turns"][0].clone();
    assert_eq!((&turn["status"], &turn["code"]), (&json!("failed"), &json!("timeout")));
    assert_eq!(turn.get("ended_at"), None);
}

#[tokio::test]
async fn a_deleted_conversation_is_gone_for_every_operation() {
    let aws = Aws::new(asked([good(SESSION)]));
    let (id, other) = (talk(&aws, None).await, talk(&aws, None).await);
    assert_eq!(aws.items("TURN#").len(), 2);
    assert_eq!(delete(&aws, &id).await.unwrap(), Value::Null);
    assert_eq!((aws.items("SESSION#").len(), aws.items("TURN#").len()), (1, 1));
    assert_eq!(delete(&aws, &id).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(get(&aws, &id, json!({}), "").await.unwrap_err().code(), Code::NotFound);
    let mut next = question();
    next["session_id"] = json!(id);
    assert_eq!(ask(&aws, next).await.unwrap_err().code(), Code::NotFound);
    let listed = list(&aws, json!({})).await.unwrap();
    assert_eq!(listed["sessions"][0]["session_id"], other);
}

#[tokio::test]
async fn what_is_not_there_is_not_found_and_what_is_expired_is_not_there() {
    let aws = Aws::new(asked([good(SESSION)]));
    let id = talk(&aws, None).await;
    change(&aws, "SESSION#", |session| {
        session["expires_at"] = json!({"S": "2026-01-01T00:00:00Z"})
    });
    let nobodys = bulkhead_core::session::SessionHandle::generate();
    for session in [id.as_str(), nobodys.as_str(), "x", "", "../x", &"0".repeat(26)] {
        for query in [json!({}), json!({"cursor": ["x"]})] {
            let error = get(&aws, session, query, "").await.unwrap_err();
            assert_eq!(error.code(), Code::NotFound, "{session}");
        }
        assert_eq!(
            delete(&aws, session).await.unwrap_err().code(),
            Code::NotFound,
            "{session}"
        );
    }
}

#[tokio::test]
async fn a_suspended_tenant_learns_nothing_of_its_conversations_and_operators_have_none() {
    let aws = Aws::new(asked([good(SESSION)]));
    let id = talk(&aws, None).await;
    aws.set_status("suspended");
    for session in [id.as_str(), "x"] {
        let error = get(&aws, session, json!({}), "").await.unwrap_err();
        assert_eq!(error.code(), Code::TenantSuspended);
        assert_eq!(delete(&aws, session).await.unwrap_err().code(), Code::TenantSuspended);
    }
    assert_eq!(list(&aws, json!({})).await.unwrap_err().code(), Code::TenantSuspended);
    assert_eq!(aws.items("TURN#").len(), 1);
    for (method, route, session) in [
        ("GET", "/sessions", None),
        ("GET", ROUTE, Some("x")),
        ("DELETE", ROUTE, Some("x")),
    ] {
        let request = fixture::operators_visit(method, route, session);
        assert_eq!(call(&aws, &request).await.unwrap_err().code(), Code::Forbidden);
    }
}

#[tokio::test]
async fn without_transcripts_there_are_no_turns_to_see() {
    let aws = Aws::new(asked([good(SESSION)]));
    aws.set_profile("transcripts", json!({"BOOL": false}));
    let id = talk(&aws, None).await;
    let session = get(&aws, &id, json!({}), "").await.unwrap();
    assert_eq!((&session["turns"], &session["turn_count"]), (&json!([]), &json!(1)));
    assert_eq!(session.get("title"), None);
}
