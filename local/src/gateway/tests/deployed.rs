//! The contract that is deployed, executed: whatever of it the gateway did not know would stop it here.

use std::path::Path;

use super::*;
use crate::template::{Settings, Template};

async fn fixture() -> (Fixture, Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/template.yaml");
    let contract = Template::load(&path, &Settings::default())
        .unwrap()
        .api
        .unwrap()
        .contract;
    (Fixture::start(contract.clone(), Functions::default()).await, contract)
}

#[tokio::test]
async fn every_operation_but_health_and_preflights_wants_a_token() {
    let (fixture, contract) = fixture().await;
    let mut operations = 0;
    for (template, item) in contract["paths"].as_object().unwrap() {
        let path = template.replace(['{', '}'], "");
        for method in item.as_object().unwrap().keys().filter(|name| *name != "parameters") {
            let (status, body) = fixture.raw(&format!("{} /test{path}", method.to_uppercase()), "").await;
            let expect = match (template.as_str(), method.as_str()) {
                ("/health", "get") => 200,
                (_, "options") => 204,
                // The operators' authorizer is asked without a token too, and here there is none to ask.
                (path, _) if path.starts_with("/tenants") || path.starts_with("/ingestions") => 500,
                _ => 401,
            };
            assert_eq!(status, expect, "{method} {template}: {body}");
            operations += 1;
        }
    }
    assert!(operations > 17, "{operations}");
}

#[tokio::test]
async fn refusals_are_problems() {
    let (fixture, _) = fixture().await;
    for (path, expect, code) in [
        ("/documents", 401, "unauthorized"),
        ("/nothing", 404, "not_found"),
        ("/tenants", 500, "internal"),
    ] {
        let (status, headers, body) = send(fixture.get(path)).await;
        assert_eq!(status, expect, "{path}");
        assert_eq!(headers["content-type"], "application/problem+json");
        assert_eq!(headers["access-control-allow-origin"], "*");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((&body["code"], &body["status"]), (&json!(code), &json!(expect)));
        assert_eq!(body["request_id"], fixture.last().request_id);
    }
}
