//! Questions: what is asked, what is answered, and what becomes of conversations.

use bulkhead_local::knowledge_base::manner::Scope;
use integration_tests::fixture::{Fixture, Tenant};
use serde_json::{Value, json};

async fn lighthouse(prefix: &str) -> Tenant {
    let tenant = Fixture::shared().tenant(prefix).await;
    tenant
        .upload(
            "lighthouse.txt",
            "The lighthouse was built in 1862. The lamp of the lighthouse burns whale oil.",
        )
        .await;
    tenant
}

#[tokio::test]
async fn an_answer_cites_our_ids_and_nothing_of_the_platform() {
    let tenant = lighthouse("cite").await;
    let answer = tenant.ask("When was the lighthouse built?").await;
    assert_eq!(answer.status.as_u16(), 200);
    let text = answer.text();
    let bucket = &tenant.fixture().stack.template().buckets[0].name;
    let knowledge_base = &tenant.fixture().stack.template().knowledge_bases[0].id;
    for secret in ["s3://", "arn:", "x-amz-", "score", bucket, knowledge_base, &tenant.id] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    insta::assert_json_snapshot!(answer.json(), {
        ".sessionId" => insta::dynamic_redaction(|value, _| {
            assert_eq!(value.as_str().unwrap().len(), 26);
            "[session]"
        }),
        ".**.id" => "[document]",
        ".**.document_id" => "[document]",
        ".**.content_url" => insta::dynamic_redaction(|value, _| {
            assert!(value.as_str().unwrap().starts_with("/documents/"));
            "[path]"
        }),
    });
    assert_eq!(answer.headers["cache-control"], "no-store");
}

#[tokio::test]
async fn where_nothing_matches_the_answer_says_so_and_cites_nothing() {
    let tenant = lighthouse("none").await;
    let answer = tenant.ask("Who won the chess tournament in 1937?").await.json();
    assert_eq!(answer["citations"], json!([]));
    assert!(
        answer["output"]["text"].as_str().unwrap().contains("No exact answer"),
        "{answer}"
    );
}

#[tokio::test]
async fn what_can_not_be_read_is_refused_with_a_pointer() {
    let tenant = lighthouse("bad").await;
    let token = tenant.reader();
    for (body, pointer) in [
        (json!({}), ""),
        (json!({"user_query": ""}), "/user_query"),
        (json!({"user_query": "   "}), "/user_query"),
        (json!({"user_query": "x".repeat(1001)}), "/user_query"),
        (json!({"user_query": "😀".repeat(501)}), "/user_query"),
        (json!({"user_query": 5}), "/user_query"),
        (json!({"user_query": "x", "context": "x".repeat(2001)}), "/context"),
        (json!({"user_query": "x", "number_of_results": 0}), "/number_of_results"),
        (
            json!({"user_query": "x", "number_of_results": 21}),
            "/number_of_results",
        ),
        (json!({"user_query": "x", "temperature": 1}), "/temperature"),
    ] {
        let answer = tenant.ask_as(&token, body.clone()).await;
        assert_eq!(answer.status.as_u16(), 400, "{body}: {}", answer.text());
        let pointers: Vec<Value> = answer.json()["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|error| error["pointer"].clone())
            .collect();
        assert!(pointers.contains(&json!(pointer)), "{body}: {pointers:?}");
    }
    let absent = json!({"user_query": "When was the lighthouse built?", "session_id": null, "context": null});
    assert_eq!(
        tenant.ask_as(&token, absent).await.status.as_u16(),
        200,
        "null counts as absent"
    );
}

#[tokio::test]
async fn a_conversation_goes_on_for_its_user_and_for_nobody_else() {
    let (tenant, other) = (lighthouse("talk").await, lighthouse("talk").await);
    let (rita, bob) = (tenant.token("rita", &[]), tenant.token("bob", &[]));
    let first = tenant
        .ask_as(&rita, json!({"user_query": "When was the lighthouse built?"}))
        .await
        .json();
    let session = first["sessionId"].clone();
    let again = json!({"user_query": "What does the lamp of the lighthouse burn?", "session_id": session});
    let second = tenant.ask_as(&rita, again.clone()).await.json();
    assert_eq!(second["sessionId"], session);
    assert!(
        second["output"]["text"].as_str().unwrap().contains("whale oil"),
        "{second}"
    );
    assert_eq!(second.get("context_reset"), None);

    let missing = json!({"user_query": again["user_query"], "session_id": "01JZ8Q4T9M5X7R2V6C3B1N0K8D"});
    let missing = tenant.ask_as(&rita, missing).await.fingerprint();
    assert_eq!(missing.0, 404);
    assert_eq!(
        tenant.ask_as(&bob, again.clone()).await.fingerprint(),
        missing,
        "another user's"
    );
    assert_eq!(
        other
            .ask_as(&other.token("rita", &[]), again.clone())
            .await
            .fingerprint(),
        missing,
        "another tenant's"
    );
    for forged in ["", "x", "../../x", "00000000-0000-4000-8000-000000000000"] {
        let body = json!({"user_query": "x", "session_id": forged});
        assert_eq!(tenant.ask_as(&rita, body).await.fingerprint(), missing, "{forged}");
    }
}

#[tokio::test]
async fn a_conversation_that_bedrock_has_ended_begins_again_and_says_so() {
    let tenant = lighthouse("ended").await;
    let token = tenant.reader();
    let first = tenant
        .ask_as(&token, json!({"user_query": "When was the lighthouse built?"}))
        .await
        .json();
    let scope = Scope::tenant(&tenant.id);
    let manners = tenant.fixture().stack.knowledge_base().manners();
    manners.end_sessions(scope.clone());
    let body = json!({"user_query": "What does the lamp of the lighthouse burn?", "session_id": first["sessionId"]});
    let second = tenant.ask_as(&token, body.clone()).await;
    manners.reset(&scope);
    assert_eq!(second.status.as_u16(), 200, "{}", second.text());
    let second = second.json();
    assert_eq!(
        (&second["context_reset"], &second["sessionId"]),
        (&json!(true), &first["sessionId"])
    );
    let third = tenant.ask_as(&token, body).await.json();
    assert_eq!(third.get("context_reset"), None, "the new one is kept");
}

#[tokio::test]
async fn a_throttled_knowledge_base_is_503_with_a_time_to_wait() {
    let tenant = lighthouse("busy").await;
    let scope = Scope::tenant(&tenant.id);
    let manners = tenant.fixture().stack.knowledge_base().manners();
    manners.throttle(scope.clone(), 1);
    assert_eq!(
        tenant.ask("When was the lighthouse built?").await.status.as_u16(),
        200,
        "one is retried"
    );
    manners.reset(&scope);
    manners.throttle(scope.clone(), 100);
    let answer = tenant.ask("When was the lighthouse built?").await;
    manners.reset(&scope);
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_deref()),
        (503, Some("upstream_throttled"))
    );
    assert!(answer.headers.contains_key("retry-after"));
}
