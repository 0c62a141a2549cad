//! What the contract must say, whatever it describes: rules that API Gateway would not enforce and that isolation needs.

use std::collections::BTreeSet;

use bulkhead_cli::isolation::{Access, ROWS};
use integration_tests::repository;
use serde_json::Value;

const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

/// Every operation: its method, path and description.
fn operations(contract: &Value) -> Vec<(String, String, &Value)> {
    let mut operations = Vec::new();
    for (path, item) in contract["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if METHODS.contains(&method.as_str()) {
                operations.push((method.to_uppercase(), path.clone(), operation));
            }
        }
    }
    operations
}

#[test]
fn every_operation_has_a_row_in_the_isolation_table() {
    let contract = repository::contract();
    let described: BTreeSet<(String, String, String)> = operations(&contract)
        .into_iter()
        .map(|(method, path, operation)| (operation["operationId"].as_str().unwrap().to_owned(), method, path))
        .collect();
    let rows: BTreeSet<(String, String, String)> = ROWS
        .iter()
        .map(|row| (row.operation.to_owned(), row.method.to_owned(), row.path.to_owned()))
        .collect();
    assert_eq!(described, rows);
}

#[test]
fn every_operation_names_its_own_security() {
    let contract = repository::contract();
    assert!(
        contract.get("security").is_none(),
        "API Gateway ignores security at the root"
    );
    for (method, path, operation) in operations(&contract) {
        let row = ROWS
            .iter()
            .find(|row| operation["operationId"] == row.operation)
            .unwrap();
        let scheme = match row.access {
            Access::Public => None,
            Access::Reader | Access::Admin => Some("tenantAuthorizer"),
            Access::Operator => Some("operatorAuthorizer"),
        };
        let schemes = operation["security"]
            .as_array()
            .unwrap_or_else(|| panic!("{method} {path} has no security"));
        let named: Vec<&str> = schemes
            .iter()
            .flat_map(|scheme| scheme.as_object().unwrap().keys())
            .map(String::as_str)
            .collect();
        assert_eq!(named, scheme.into_iter().collect::<Vec<_>>(), "{method} {path}");
    }
}

#[test]
fn the_tenant_header_comes_from_the_authorizer_and_stands_on_isolated_functions_only() {
    let template = repository::template();
    let contract = &template.api.as_ref().unwrap().contract;
    for (method, path, operation) in operations(contract) {
        let integration = &operation["x-amazon-apigateway-integration"];
        let parameters = integration
            .get("requestParameters")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default();
        for source in parameters.values() {
            assert!(
                !source.as_str().unwrap().starts_with("method.request."),
                "{method} {path} maps what clients send"
            );
        }
        let mapped = parameters
            .get("integration.request.header.X-Amz-Tenant-Id")
            .and_then(Value::as_str);
        let isolated = integration["uri"].as_str().is_some_and(|uri| {
            template
                .functions
                .iter()
                .any(|function| function.per_tenant && uri.contains(&function.arn))
        });
        assert_eq!(
            mapped,
            isolated.then_some("context.authorizer.tenantId"),
            "{method} {path}"
        );
    }
}

#[test]
fn what_answers_by_events_is_streamed_and_nothing_else() {
    let contract = repository::contract();
    let mut streamed = Vec::new();
    for (method, path, operation) in operations(&contract) {
        let integration = &operation["x-amazon-apigateway-integration"];
        let says = operation.pointer("/responses/200/content/text~1event-stream").is_some();
        assert_eq!(integration["responseTransferMode"] == "STREAM", says, "{method} {path}");
        let uri = integration["uri"].to_string();
        assert_eq!(uri.contains("/response-streaming-invocations"), says, "{method} {path}");
        assert_eq!(uri.contains("path/2021-11-15/"), says, "{method} {path}");
        if says {
            streamed.push(path);
        }
    }
    streamed.sort_unstable();
    assert_eq!(streamed, ["/genai/chat", "/genai/query/stream"]);
}

#[test]
fn authorizers_are_keyed_by_the_token_and_operators_are_never_cached() {
    let contract = repository::contract();
    let schemes = contract["components"]["securitySchemes"].as_object().unwrap();
    assert_eq!(schemes.len(), 2);
    for (name, scheme) in schemes {
        let authorizer = &scheme["x-amazon-apigateway-authorizer"];
        assert_eq!(authorizer["type"], "request", "{name}");
        assert_eq!(
            authorizer["identitySource"], "method.request.header.Authorization",
            "{name}"
        );
        let ttl = authorizer["authorizerResultTtlInSeconds"].as_u64().unwrap();
        assert_eq!(ttl, if name == "operatorAuthorizer" { 0 } else { 60 }, "{name}");
    }
}

#[test]
fn every_upload_type_reaches_the_functions_as_bytes() {
    let contract = repository::contract();
    let binary: BTreeSet<&str> = contract["x-amazon-apigateway-binary-media-types"]
        .as_array()
        .unwrap()
        .iter()
        .map(|media_type| media_type.as_str().unwrap())
        .collect();
    let upload: BTreeSet<&str> = contract["paths"]["/documents/{document_id}/content"]["put"]["requestBody"]["content"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(binary, upload);
}

#[test]
fn gateway_responses_are_problems() {
    let contract = repository::contract();
    let codes: Vec<&str> = contract["components"]["schemas"]["ProblemCode"]["enum"]
        .as_array()
        .unwrap()
        .iter()
        .map(|code| code.as_str().unwrap())
        .collect();
    for (name, response) in contract["x-amazon-apigateway-gateway-responses"].as_object().unwrap() {
        let templates = response["responseTemplates"]
            .as_object()
            .unwrap_or_else(|| panic!("{name} has no template"));
        for text in templates.values() {
            let text = text.as_str().unwrap().replace("$context.authorizer.code", "forbidden");
            let problem: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
            let code = problem["code"].as_str().unwrap();
            assert!(codes.contains(&code), "{name}: {code}");
            assert_eq!(problem["request_id"], "$context.requestId", "{name}");
        }
    }
}
