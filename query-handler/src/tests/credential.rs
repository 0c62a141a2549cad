//! Whose credentials the function acts with, and what it does without any.

use super::aws::ASSUME_ROLE;
use super::*;

#[tokio::test]
async fn the_role_is_assumed_once_for_the_environments_tenant() {
    let aws = Aws::new(asked([good(SESSION)]));
    let state = state(&aws, config());
    let request = fixture::request("acme", &question().to_string());
    for _ in 0..3 {
        assert!(state.handle(&request).await.is_ok());
    }
    assert_eq!(
        aws.asked(ASSUME_ROLE),
        [
            "Action=AssumeRole&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fdata-role\
          &RoleSessionName=acme&DurationSeconds=3600&Tags.member.1.Key=tenant&Tags.member.1.Value=acme"
        ]
    );
    let request = fixture::request("umbrella", &question().to_string());
    let error = state.handle(&request).await.unwrap_err();
    assert!(matches!(error, Error::Isolation { .. }), "{error}");
    assert_eq!((aws.asked(ASSUME_ROLE).len(), aws.asked(ASK).len()), (1, 3));
}

#[tokio::test]
async fn what_is_refused_by_its_form_or_its_caller_assumes_no_role() {
    let aws = Aws::new(asked([good(SESSION)]));
    aws.set_status("suspended");
    for (request, code) in [
        (fixture::request("acme", r#"{"user_query": ""}"#), Code::InvalidRequest),
        (
            fixture::request("bulkhead-shared", &question().to_string()),
            Code::Forbidden,
        ),
        (
            fixture::visit("GET", "/sessions", None, json!({"limit": ["0"]}), ""),
            Code::InvalidRequest,
        ),
    ] {
        assert_eq!(state(&aws, config()).handle(&request).await.unwrap_err().code(), code);
    }
    assert!(aws.asked(ASSUME_ROLE).is_empty());
}

#[tokio::test(start_paused = true)]
async fn without_credentials_nothing_is_asked_of_anybody() {
    for (status, name, code) in [
        (403, "AccessDenied", Code::Internal),
        (503, "ServiceUnavailable", Code::Unavailable),
    ] {
        let aws = Aws::new(asked([good(SESSION)]));
        aws.instead(ASSUME_ROLE, Reply::Refuse(status, name, "no"));
        for request in [
            fixture::request("acme", &question().to_string()),
            fixture::request_to(
                "/genai/query/stream",
                "acme",
                &question().to_string(),
                Duration::from_secs(10),
            ),
            fixture::request_to("/genai/chat", "acme", r#"{"message": "Who?"}"#, Duration::from_secs(10)),
            fixture::request_to(
                "/genai/retrieve",
                "acme",
                r#"{"query": "Who?"}"#,
                Duration::from_secs(10),
            ),
            fixture::visit("GET", "/sessions", None, json!({}), ""),
            fixture::visit("DELETE", "/sessions/{session_id}", Some("x"), json!({}), ""),
        ] {
            let error = state(&aws, config()).handle(&request).await.unwrap_err();
            assert_eq!(error.code(), code, "{:?}", request.route());
        }
        assert!(aws.calls().is_empty());
    }
}
