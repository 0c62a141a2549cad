//! A stack that keeps its state: what a second start finds, and who may use the directory.

use bulkhead_local::stack::Stack;
use integration_tests::fixture::{Fixture, config};

#[tokio::test]
async fn a_second_start_finds_the_documents_and_a_second_stack_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = || {
        let mut config = config();
        config.data = Some(folder.path().to_path_buf());
        config
    };
    let first = Fixture::start(at()).await;
    let tenant = first.tenant("kept").await;
    tenant.upload("a.txt", "The boat is moored at the third pier.").await;
    assert!(Stack::start(at()).await.is_err(), "two stacks on one directory");
    let id = tenant.id.clone();
    drop(tenant);
    std::sync::Arc::into_inner(first).unwrap().stack.stop().await;

    let second = Fixture::start(at()).await;
    let token = second.token(&bulkhead_local::identity::TokenRequest::member(&id, &[]));
    let body = serde_json::json!({"user_query": "Where is the boat moored?"});
    let call = bulkhead_cli::deployment::Call::new(reqwest::Method::POST, "/genai/query")
        .token(token)
        .json(&body);
    let answer = second.expect(200, &call).await.json();
    assert!(
        answer["output"]["text"].as_str().unwrap().contains("third pier"),
        "{answer}"
    );
}
