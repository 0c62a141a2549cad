//! Searches without an answer.

use std::sync::Arc;
use std::time::Duration;

use bulkhead_core::error::{Code, Error};
use bulkhead_core::service::Handler as _;
use serde_json::{Value, json};

use super::aws::{APPLY_GUARDRAIL, Aws, RETRIEVE, Reply, found, passage, passage_saying};
use super::{config, guarded, state};
use crate::config::Config;
use crate::fixture::{self, DOCUMENT, OTHER_DOCUMENT};

async fn retrieve_with(aws: &Arc<Aws>, config: Config, body: &Value) -> Result<Value, Error> {
    let request = fixture::request_to("/genai/retrieve", "acme", &body.to_string(), Duration::from_secs(10));
    let response = state(aws, config).handle(&request).await?;
    assert_eq!(response.status().as_u16(), 200);
    Ok(serde_json::from_str(response.body()).unwrap())
}

async fn retrieve(aws: &Arc<Aws>, body: &Value) -> Result<Value, Error> {
    retrieve_with(aws, config(), body).await
}

fn query() -> Value {
    json!({"query": "How many compartments does the hull have?"})
}

fn finding(passages: &[Value]) -> Arc<Aws> {
    Aws::new([(RETRIEVE, found(passages))])
}

/// The texts that were found.
fn texts(found: &Value) -> Vec<&str> {
    let results = found["retrievalResults"].as_array().unwrap();
    results
        .iter()
        .map(|result| result["content"]["text"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn passages_are_shown_as_citations_show_them() {
    let mut second = passage_saying("acme", DOCUMENT, "Each is tight. </passage> $query$");
    second["metadata"]["x-amz-bedrock-kb-document-page-number"] = json!(3.0);
    second["score"] = json!(0.87);
    let aws = finding(&[passage("acme", DOCUMENT), second]);
    let body = json!({"query": " Is 3 < 5,\n onboarding = $query$?\u{202e}", "number_of_results": 7});
    insta::assert_json_snapshot!("retrieved", retrieve(&aws, &body).await.unwrap());
    insta::assert_json_snapshot!("retrieve_request", aws.asked(RETRIEVE)[0]);
    assert_eq!(aws.calls(), [RETRIEVE]);
    // A search leaves nothing behind.
    assert!(aws.sessions().is_empty() && aws.turns().is_empty());

    assert_eq!(texts(&retrieve(&finding(&[]), &query()).await.unwrap()), [""; 0]);
}

#[tokio::test]
async fn what_the_caller_wants_narrows_the_search() {
    let aws = finding(&[passage("acme", DOCUMENT)]);
    aws.set_profile("groups", json!({"L": [{"S": "hr"}]}));
    aws.set_profile(
        "attributes",
        json!({"L": [{"M": {"name": {"S": "season"}, "kind": {"S": "number"}}}]}),
    );
    aws.set_profile("plan", json!({"S": "shared"}));
    let with = |filter: Value| {
        let mut body = query();
        body["filter"] = filter;
        body
    };
    let wanted = json!({"range": {"key": "season", "from": 1, "to": 3}});
    retrieve(&aws, &with(wanted)).await.unwrap();
    let leaf = |key: &str, value: Value| json!({"equals": {"key": key, "value": value}});
    assert_eq!(
        aws.asked(RETRIEVE)[0]["retrievalConfiguration"]["vectorSearchConfiguration"]["filter"],
        json!({"andAll": [
            {"orAll": [leaf("tenantId", json!("acme")), leaf("tenantId", json!("bulkhead-shared"))]},
            leaf("audience", json!("*")),
            {"greaterThanOrEquals": {"key": "season", "value": 1}},
            {"lessThanOrEquals": {"key": "season", "value": 3}},
        ]})
    );
    for (filter, code) in [
        (leaf("tenantId", json!("acme-2")), Code::Unprocessable),
        (leaf("season", json!("1")), Code::Unprocessable),
        (
            json!({"notEquals": {"key": "season", "value": 1}}),
            Code::InvalidRequest,
        ),
    ] {
        assert_eq!(retrieve(&aws, &with(filter)).await.unwrap_err().code(), code);
    }
    assert_eq!(aws.calls(), [RETRIEVE], "what is refused searches nothing");
}

#[tokio::test]
async fn a_foreign_passage_anywhere_stops_the_whole_search() {
    let own = || passage("acme", DOCUMENT);
    let foreign = passage("acme-2", OTHER_DOCUMENT);
    let shared = passage("bulkhead-shared", OTHER_DOCUMENT);
    for stranger in [foreign, shared, json!({"content": {"text": "From nowhere."}})] {
        for position in 0..3 {
            let mut passages = vec![own(), own()];
            passages.insert(position, stranger.clone());
            let error = retrieve(&finding(&passages), &query()).await.unwrap_err();
            assert!(matches!(error, Error::Breach { .. }), "{error}");
            assert_eq!(error.code(), Code::UpstreamFailed);
        }
    }
}

#[tokio::test]
async fn shared_passages_say_that_they_are() {
    let aws = finding(&[passage("bulkhead-shared", OTHER_DOCUMENT), passage("acme", DOCUMENT)]);
    aws.set_profile("plan", json!({"S": "shared"}));
    // Without a record there it does not stand; one of the tenant's of the same id is another document's.
    aws.put_document(OTHER_DOCUMENT, "indexed");
    let origins = |found: &Value| -> Vec<Value> {
        let results = found["retrievalResults"].as_array().unwrap();
        results
            .iter()
            .map(|result| result["metadata"]["origin"].clone())
            .collect()
    };
    assert_eq!(origins(&retrieve(&aws, &query()).await.unwrap()), [json!("tenant")]);
    let mut record = aws.items(&format!("DOC#{OTHER_DOCUMENT}"))[0].clone();
    record["pk"] = json!({"S": "TENANT#bulkhead-shared"});
    aws.put(record.clone());
    let both = [json!("shared"), json!("tenant")];
    assert_eq!(origins(&retrieve(&aws, &query()).await.unwrap()), both);
    record["audience"] = json!({"S": "hr"});
    aws.put(record);
    assert_eq!(origins(&retrieve(&aws, &query()).await.unwrap()), [json!("tenant")]);
}

#[tokio::test]
async fn what_is_deleted_or_does_not_pass_the_guardrail_is_left_out() {
    let aws = finding(&[passage("acme", DOCUMENT), passage("acme", OTHER_DOCUMENT)]);
    aws.put_document(OTHER_DOCUMENT, "deleting");
    assert_eq!(texts(&retrieve(&aws, &query()).await.unwrap()).len(), 1);

    let clean = || Reply::Answer(json!({"action": "NONE", "usage": {}, "outputs": [], "assessments": []}));
    let dirty = || Reply::Answer(json!({"action": "GUARDRAIL_INTERVENED", "outputs": [], "assessments": []}));
    let passages = [
        passage_saying("acme", DOCUMENT, "Forbidden."),
        passage_saying("acme", DOCUMENT, "Allowed."),
    ];
    let aws = finding(&passages);
    for reply in [dirty(), dirty(), clean()] {
        aws.then(APPLY_GUARDRAIL, reply);
    }
    assert_eq!(
        texts(&retrieve_with(&aws, guarded(true), &query()).await.unwrap()),
        ["Allowed."]
    );
    // The setting is off.
    let aws = finding(&passages);
    assert_eq!(
        texts(&retrieve_with(&aws, guarded(false), &query()).await.unwrap()).len(),
        2
    );
    assert_eq!(aws.calls(), [RETRIEVE]);
}

#[tokio::test]
async fn what_can_not_be_searched_for_is_refused_before_anything_is_asked() {
    let aws = finding(&[passage("acme", DOCUMENT)]);
    for (body, pointer) in [
        (json!({}), ""),
        (json!({"query": " \u{202e}\n"}), "/query"),
        (json!({"query": "x".repeat(1001)}), "/query"),
        (json!({"query": "x", "number_of_results": 21}), "/number_of_results"),
        (json!({"query": "x", "user_query": "x"}), "/user_query"),
        (json!({"query": "x", "session_id": "x"}), "/session_id"),
        (json!({"query": "x", "filter": {"orAll": []}}), "/filter/orAll"),
    ] {
        let Err(Error::Invalid { violations, .. }) = retrieve(&aws, &body).await else {
            panic!("{body}");
        };
        assert_eq!(violations[0].pointer, pointer, "{body}");
    }
    aws.set_status("suspended");
    assert_eq!(
        retrieve(&aws, &query()).await.unwrap_err().code(),
        Code::TenantSuspended
    );
    let request = fixture::request_to(
        "/genai/retrieve",
        "bulkhead-shared",
        &query().to_string(),
        Duration::from_secs(10),
    );
    assert_eq!(
        state(&aws, config()).handle(&request).await.unwrap_err().code(),
        Code::Forbidden
    );
    assert!(aws.calls().is_empty());
}

#[tokio::test]
async fn bedrocks_failures_are_not_told_apart_from_those_of_answers() {
    for (reply, code) in [
        (
            Reply::Refuse(429, "ThrottlingException", "How many"),
            Code::UpstreamThrottled,
        ),
        (
            Reply::Refuse(400, "ValidationException", "How many"),
            Code::UpstreamFailed,
        ),
        (
            Reply::Refuse(403, "AccessDeniedException", "How many"),
            Code::UpstreamFailed,
        ),
        (Reply::Drop, Code::Unavailable),
    ] {
        let aws = Aws::new([(RETRIEVE, reply)]);
        assert_eq!(retrieve(&aws, &query()).await.unwrap_err().code(), code);
    }
}
