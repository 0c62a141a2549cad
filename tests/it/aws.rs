//! Third-party truth about the fake AWS: unmodified boto3 against the running stack's front door.

use bulkhead_local::credential::Caller;
use bulkhead_local::fault::{Effect, Fault, Matcher, StreamEffect, StreamFault};
use integration_tests::fixture::{Fixture, GUARDRAIL};
use integration_tests::repository;

#[tokio::test]
async fn boto3_finds_the_services_as_it_knows_them() {
    let fixture = Fixture::shared();
    let stack = &fixture.stack;
    let tenant = fixture.tenant("boto3").await;
    tenant
        .upload("lighthouse.txt", "The lighthouse was built in 1862.")
        .await;
    let throttled = StreamEffect::Exception {
        kind: "throttlingException".to_owned(),
        message: "Slow down.".to_owned(),
    };
    for (model, effect) in [("example.throttled", throttled), ("example.cut", StreamEffect::Cut)] {
        stack.front_door().faults().inject(Fault {
            matcher: Matcher {
                tenant: Some(tenant.id.clone()),
                key: Some(model.to_owned()),
                ..Matcher::default()
            },
            effect: Effect::Stream(StreamFault { after: 2, effect }),
            skip: 0,
            times: None,
        });
    }
    let administrator = Caller::administrator(Some(&tenant.id));
    let credential = stack.front_door().credentials().issue(administrator);
    let output = tokio::process::Command::new(repository::python_tools().join("python"))
        .arg(repository::root().join("tests/boto3/check.py"))
        .env("AWS_ENDPOINT_URL", stack.front_door().endpoint())
        .env("AWS_REGION", stack.front_door().region())
        .env("AWS_DEFAULT_REGION", stack.front_door().region())
        .env("AWS_ACCESS_KEY_ID", &credential.access_key_id)
        .env("AWS_SECRET_ACCESS_KEY", &credential.secret_access_key)
        .env("AWS_SESSION_TOKEN", &credential.session_token)
        .env("BULKHEAD_BUCKET_NAME", &stack.template().buckets[0].name)
        .env("BULKHEAD_TABLE_NAME", &stack.template().tables[0].name)
        .env("BULKHEAD_KNOWLEDGE_BASE_ID", &stack.template().knowledge_bases[0].id)
        .env("BULKHEAD_TENANT", &tenant.id)
        .env("BULKHEAD_GUARDRAIL_ID", GUARDRAIL)
        .output()
        .await
        .unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{report}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(report.lines().count() >= 29, "{report}");
}
