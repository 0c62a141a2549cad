//! The contract as a machine reads it: schemathesis makes requests from it, good and bad ones, and holds every answer
//! against it.

use std::process::Stdio;

use integration_tests::fixture::{Fixture, config};
use integration_tests::repository;

/// What every answer must pass. Not here, because they contradict what the contract says in words: that valid data is
/// accepted (a cursor must be the list's, a checksum the content's) and invalid data is not (`null` counts as absent), and
/// that unknown methods are 405 (API Gateway says what it says of unknown paths).
const CHECKS: [&str; 6] = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "ignored_auth",
];

/// Takes the lease on the data source, for which documents would then wait. The isolation table has it.
const LEFT_OUT: &str = "start_ingestion";

/// The most requests of one phase for one operation.
const EXAMPLES: &str = "20";

/// Runs schemathesis with a token; its report is what a failure shows.
async fn run(fixture: &Fixture, role: &str, token: &str) {
    // Where it leaves its own folders.
    let folder = tempfile::tempdir().unwrap();
    let output = tokio::process::Command::new(repository::python_tools().join("schemathesis"))
        .arg("run")
        .arg(repository::root().join("openapi/gateway.yaml"))
        .args(["--url", &fixture.stack.base_url()])
        .args(["--header", &format!("Authorization: Bearer {token}")])
        .args(["--checks", &CHECKS.join(",")])
        .args(["--exclude-operation-id", LEFT_OUT])
        .args(["--max-examples", EXAMPLES])
        // The same requests each time; what follows from ids in answers differs all the same.
        .args(["--generation-deterministic", "--continue-on-failure", "--no-shrink"])
        .args(["--warnings", "off", "--no-color"])
        .env("NO_PROXY", "*")
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "as {role}:\n{report}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let operations = repository::contract()["paths"]
        .as_object()
        .unwrap()
        .values()
        .map(|path| path.as_object().unwrap().len())
        .sum::<usize>();
    let tested = format!("Tested: {}", operations - 1);
    assert!(report.contains(&tested), "as {role}, {tested}:\n{report}");
}

#[tokio::test]
async fn every_answer_to_whatever_the_contract_lets_one_make_up_is_one_that_it_describes() {
    // A stack of its own: operators suspend tenants that they find in the list.
    let fixture = Fixture::start(config()).await;
    let tenant = fixture.named_tenant("fuzz", &["board", "staff"]).await;
    let (reader, admin) = (tenant.reader(), tenant.admin());
    futures::join!(run(&fixture, "reader", &reader), run(&fixture, "admin", &admin));
    run(&fixture, "operator", &fixture.operator()).await;
}
