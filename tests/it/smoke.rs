//! The smoke test against the local stack: it finds nothing wrong with a sound one, and what is wrong with others.

use std::collections::BTreeSet;

use bulkhead_cli::deployment::Call;
use bulkhead_cli::smoke::report::{Finding, Outcome, Report};
use bulkhead_cli::smoke::{self, GUARDRAIL_STRING, Options};
use bulkhead_local::event_stream::Pace;
use bulkhead_local::guardrail::Guardrail;
use bulkhead_local::identity::TokenRequest;
use bulkhead_local::knowledge_base::manner::Scope;
use bulkhead_local::stack::{StackConfig, wait_until};
use integration_tests::fixture::{Fixture, config, patience};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::Notify;

/// Caches that forget soon, so that a tenant that was suspended is not waited for.
fn hasty(change_contract: impl FnOnce(&mut Value) + Send + 'static) -> StackConfig {
    let mut config = config();
    // Pieces of a stream that come all at once may arrive as one.
    config.pace = Pace::per_second(100);
    config
        .variables
        .insert("BULKHEAD_STATUS_MAX_AGE_SECS".to_owned(), "1".to_owned());
    config.change_contract = Some(Box::new(|contract| {
        let authorizer = "/components/securitySchemes/tenantAuthorizer/x-amazon-apigateway-authorizer";
        contract.pointer_mut(authorizer).unwrap()["authorizerResultTtlInSeconds"] = json!(1);
        change_contract(contract);
    }));
    config
}

fn guarded(mut config: StackConfig) -> StackConfig {
    config.guard(Guardrail::blocking("smoke0000000", &[GUARDRAIL_STRING]));
    config
}

/// Runs the smoke test with a command that prints tokens of the fixture's.
async fn run(fixture: &Fixture, interrupted: &Notify, mut tell: impl FnMut(&Finding)) -> Report {
    let folder = tempfile::tempdir().unwrap();
    for tenant in [smoke::A, smoke::B] {
        for (role, roles) in [("reader", &[][..]), ("admin", &["admin"][..])] {
            let user = format!("{tenant}-{role}");
            let token = fixture.token(&TokenRequest {
                user: Some(user.clone()),
                ..TokenRequest::member(tenant, roles)
            });
            std::fs::write(folder.path().join(user), token).unwrap();
        }
    }
    std::fs::write(folder.path().join("smoke-operator"), fixture.operator()).unwrap();
    let options = Options {
        url: fixture.stack.base_url(),
        token_command: format!("cat '{}'/\"$BULKHEAD_TOKEN_USER\"", folder.path().display()),
        guardrail_string: Some(GUARDRAIL_STRING.to_owned()),
        ingestion: true,
        cognito_endpoint: None,
    };
    smoke::run(options, &mut tell, interrupted.notified()).await.unwrap()
}

fn wrong(report: &Report) -> BTreeSet<(&'static str, &'static str)> {
    report.wrong().map(|finding| (finding.part, finding.check)).collect()
}

/// Sees that both tenants are suspended and hold nothing.
async fn is_cleared_away(fixture: &Fixture) {
    for tenant in [smoke::A, smoke::B] {
        let operator = fixture.operator();
        let path = format!("/tenants/{tenant}");
        let profile = fixture
            .expect(200, &Call::new(Method::GET, &path).token(&operator))
            .await;
        assert_eq!(profile.json()["status"], "suspended", "{tenant}");
        let resume = Call::new(Method::POST, format!("{path}/resume")).token(&operator);
        fixture.expect(200, &resume).await;
        let roles: &[&str] = &["admin"];
        for (user, path, members) in [
            ("admin", "/documents", "documents"),
            ("admin", "/sessions", "sessions"),
            ("reader", "/sessions", "sessions"),
        ] {
            let token = fixture.token(&TokenRequest {
                user: Some(format!("{tenant}-{user}")),
                ..TokenRequest::member(tenant, roles)
            });
            let call = Call::new(Method::GET, path).token(token);
            let left = wait_until("the tenant is answered", patience(), || async {
                let answer = fixture.send(&call).await;
                Ok((answer.status.as_u16() == 200).then(|| answer.json()))
            });
            assert_eq!(left.await.unwrap()[members], json!([]), "{tenant} {path}");
        }
    }
}

#[tokio::test]
async fn a_sound_stack_has_nothing_wrong() {
    let fixture = Fixture::start(guarded(hasty(|_| {}))).await;
    let mut told = 0;
    let report = run(&fixture, &Notify::new(), |_| told += 1).await;
    assert!(report.wrong().next().is_none(), "{:#}", report.json());
    assert_eq!(told, report.findings.len());
    let skipped: Vec<&str> = report
        .findings
        .iter()
        .filter(|finding| matches!(finding.outcome, Outcome::Skipped(_)))
        .map(|finding| finding.check)
        .collect();
    assert_eq!(
        skipped,
        [
            "every operation, expired token",
            "every operation, token of a wrong issuer",
            "a user can't change their own custom:tenant_id"
        ]
    );
    let json = report.json();
    assert_eq!((&json["wrong"], &json["interrupted"]), (&json!(0), &json!(false)));
    assert!(!json.to_string().contains("eyJ"), "a token in the report");
    is_cleared_away(&fixture).await;
}

#[tokio::test]
async fn a_contract_without_the_tenants_mapping_is_found_at_once() {
    let fixture = Fixture::start(hasty(|contract| {
        for item in contract["paths"].as_object_mut().unwrap().values_mut() {
            for operation in item.as_object_mut().unwrap().values_mut() {
                if let Some(integration) = operation["x-amazon-apigateway-integration"].as_object_mut() {
                    integration.remove("requestParameters");
                }
            }
        }
    }))
    .await;
    let report = run(&fixture, &Notify::new(), |_| {}).await;
    assert_eq!(
        wrong(&report),
        BTreeSet::from([
            ("tenant", "smoke-a and smoke-b are there and active"),
            ("tenant", "what an earlier run left is cleared away"),
            ("end", "smoke-a and smoke-b are emptied"),
        ])
    );
}

#[tokio::test]
async fn a_guardrail_that_is_not_there_and_an_operation_without_authorizer_are_found() {
    let fixture = Fixture::start(hasty(|contract| {
        contract["paths"]["/documents/{document_id}/content"]["get"]["security"] = json!([]);
    }))
    .await;
    let interrupted = Notify::new();
    // What comes after waits for a minute whether the suspension takes effect on that operation too.
    let report = run(&fixture, &interrupted, |finding| {
        if finding.check == "documents and conversations, other tenant" {
            interrupted.notify_one();
        }
    })
    .await;
    assert_eq!(
        wrong(&report),
        BTreeSet::from([
            ("guardrail", "it intervenes in /genai/query"),
            ("guardrail", "it intervenes in /genai/query/stream"),
            ("guardrail", "it intervenes in /genai/chat"),
            ("isolation", "every operation, anonymous"),
            ("isolation", "every operation, malformed token"),
            ("isolation", "every operation, wrong role"),
            ("isolation", "documents and conversations, other tenant"),
        ]),
        "{:#}",
        report.json()
    );
    for finding in report.wrong().filter(|finding| finding.part == "isolation") {
        assert!(finding.to_string().contains("get_document_content"), "{finding}");
    }
}

#[tokio::test]
async fn a_knowledge_base_that_ignores_the_filter_is_found_and_an_interruption_clears_away() {
    let fixture = Fixture::start(guarded(hasty(|_| {}))).await;
    let interrupted = Notify::new();
    let report = run(&fixture, &interrupted, |finding| {
        let manners = fixture.stack.knowledge_base().manners();
        match finding.check {
            "all documents are found, the long one by its middle" => manners.ignore_filter(Scope::Everybody, true),
            "a search for the other tenant's word finds nothing of it" => interrupted.notify_one(),
            _ => {}
        }
    })
    .await;
    let routes = ["query", "query/stream", "retrieve", "chat"];
    let is_found = |route: &str| {
        let check = format!("/genai/{route} tells each tenant its own, not the other's");
        report.wrong().any(|finding| finding.check == check)
    };
    assert!(routes.into_iter().all(is_found), "{:#}", report.json());
    assert!(report.interrupted);
    let is_skipped = |finding: &Finding| matches!(finding.outcome, Outcome::Skipped(_));
    let last_parts = ["isolation", "suspension", "owner"];
    assert!(
        report
            .findings
            .iter()
            .filter(|finding| last_parts.contains(&finding.part))
            .all(is_skipped)
    );
    fixture.stack.knowledge_base().manners().reset(&Scope::Everybody);
    is_cleared_away(&fixture).await;
}
