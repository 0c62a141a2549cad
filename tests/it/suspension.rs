//! Suspension: both caches are full when it comes, and still the last answer leaves in time.

use std::time::{Duration, Instant};

use bulkhead_cli::deployment::Call;
use bulkhead_local::stack::wait_until;
use integration_tests::fixture::{Fixture, config};
use reqwest::Method;

/// What the template's durations are lowered to.
const STATUS_MAX_AGE: Duration = Duration::from_secs(2);
/// The longest that answers may go on: a look at the profile just before the suspension, and what one answer takes.
const BOUND: Duration = Duration::from_secs(4);

#[tokio::test]
async fn the_last_answer_leaves_within_the_bound_although_every_cache_was_full() {
    let mut config = config();
    let seconds = STATUS_MAX_AGE.as_secs().to_string();
    config
        .variables
        .insert("BULKHEAD_STATUS_MAX_AGE_SECS".to_owned(), seconds);
    let fixture = Fixture::start(config).await;
    let tenant = fixture.tenant("halt").await;
    tenant.upload("a.txt", "The ferry leaves at noon.").await;
    let token = tenant.reader();
    let ask = || tenant.ask_as(&token, serde_json::json!({"user_query": "When does the ferry leave?"}));
    // The gateway's result cache lives for 60 s, so that only the handler's own look can end it in time.
    assert_eq!(ask().await.status.as_u16(), 200);
    let path = format!("/tenants/{}/suspend", tenant.id);
    let suspended = fixture
        .expect(200, &Call::new(Method::POST, &path).token(fixture.operator()))
        .await;
    assert_eq!(suspended.json()["status"], "suspended");
    let (begun, mut last) = (Instant::now(), None);
    let refusal = wait_until("answers end", Duration::from_secs(20), || async {
        let answer = ask().await;
        Ok((answer.status.as_u16() != 200).then_some(answer))
    });
    let refusal = refusal.await.unwrap();
    last.get_or_insert(begun.elapsed());
    assert_eq!(
        (refusal.status.as_u16(), refusal.code().as_deref()),
        (403, Some("tenant_suspended"))
    );
    assert!(last.unwrap() <= BOUND, "{last:?}");

    let path = format!("/tenants/{}/resume", tenant.id);
    let resumed = fixture
        .expect(200, &Call::new(Method::POST, &path).token(fixture.operator()))
        .await;
    assert_eq!(resumed.json()["status"], "active");
    wait_until("answers come again", Duration::from_secs(20), || async {
        Ok((ask().await.status.as_u16() == 200).then_some(()))
    })
    .await
    .unwrap();
}
