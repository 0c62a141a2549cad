//! Per-operation security, REQUEST authorizers, their cache, and what their answers lead to.

use super::*;

#[tokio::test]
async fn an_operation_without_security_is_public_whatever_the_root_says() {
    let fixture = Fixture::new().await;
    assert_eq!(status(fixture.get("/public")).await, 200);
    assert!(fixture.functions.calls("authorizer").is_empty());
    assert_eq!(fixture.last().authorizer, None);
}

#[tokio::test]
async fn with_caching_a_missing_or_blank_token_never_reaches_the_function() {
    let fixture = Fixture::new().await;
    assert_eq!(status(fixture.get("/items")).await, 401);
    for blank in ["", " ", "\t  "] {
        let (status, body) = fixture
            .raw("GET /test/items", &format!("Authorization:{blank}\r\n"))
            .await;
        assert_eq!(
            (status, body.as_str()),
            (401, "{\"message\":\"Unauthorized\"}"),
            "{blank:?}"
        );
    }
    assert!(fixture.functions.calls("authorizer").is_empty());
    assert_eq!(fixture.last().response_type, Some("UNAUTHORIZED"));
}

#[tokio::test]
async fn without_caching_the_function_is_asked_even_without_a_token() {
    let fixture = Fixture::new().await;
    assert_eq!(status(fixture.get("/operators")).await, 401);
    assert_eq!(fixture.functions.calls("authorizer").len(), 1);
    for _ in 0..2 {
        assert_eq!(status(fixture.get("/operators").bearer_auth("allow-x")).await, 200);
    }
    assert_eq!(fixture.functions.calls("authorizer").len(), 3);
    assert!(fixture.gateway.authorizer_cache().is_empty());
}

#[tokio::test]
async fn the_authorizer_gets_the_request_without_its_body_and_without_a_tenant() {
    let fixture = Fixture::new().await;
    let request = fixture
        .client
        .post(format!("{}/items?a=1&a=2", fixture.gateway.base_url()));
    let request = request
        .bearer_auth("allow-acme")
        .header("x-amz-tenant-id", "other")
        .body("secret");
    assert_eq!(status(request).await, 200);
    let call = fixture.functions.calls("authorizer").pop().unwrap();
    assert_eq!(call.tenant, None);
    let event = call.event;
    assert_eq!(event["type"], "REQUEST");
    assert_eq!(
        event["methodArn"],
        "arn:aws:execute-api:us-east-1:123456789012:bulkhead01/test/POST/items"
    );
    assert_eq!(
        (&event["resource"], &event["path"], &event["httpMethod"]),
        (&json!("/items"), &json!("/items"), &json!("POST"))
    );
    assert_eq!(event["headers"]["Authorization"], "Bearer allow-acme");
    assert_eq!(
        event["multiValueHeaders"]["Authorization"],
        json!(["Bearer allow-acme"])
    );
    assert_eq!(event["queryStringParameters"], json!({"a": "2"}));
    assert_eq!(event["multiValueQueryStringParameters"], json!({"a": ["1", "2"]}));
    assert_eq!(
        (&event["pathParameters"], &event["stageVariables"]),
        (&json!({}), &json!({}))
    );
    let context = &event["requestContext"];
    for (name, expect) in [
        ("accountId", "123456789012"),
        ("apiId", "bulkhead01"),
        ("httpMethod", "POST"),
        ("path", "/test/items"),
        ("resourcePath", "/items"),
        ("stage", "test"),
    ] {
        assert_eq!(context[name], expect, "{name}");
    }
    assert_eq!(context["identity"]["sourceIp"], "127.0.0.1");
    assert_eq!(context["requestId"], fixture.last().request_id);
    assert!(event.get("body").is_none() && context.get("authorizer").is_none());
}

#[tokio::test]
async fn a_cached_result_serves_every_method_of_the_stage() {
    let fixture = Fixture::new().await;
    let token = "allow-acme";
    for path in ["/items", "/items/7", "/items"] {
        assert_eq!(status(fixture.get(path).bearer_auth(token)).await, 200);
    }
    assert_eq!(fixture.functions.calls("authorizer").len(), 1);
    let hits: Vec<bool> = fixture
        .gateway
        .requests()
        .iter()
        .map(|entry| entry.authorizer.as_ref().unwrap().cache_hit)
        .collect();
    assert_eq!(hits, [false, true, true]);
    let cached = fixture.gateway.authorizer_cache().results();
    assert_eq!(cached.len(), 1);
    assert_eq!(
        (cached[0].authorizer.as_str(), cached[0].principal.as_str()),
        ("tenant", "user of acme")
    );
    assert_eq!(cached[0].context["tenantId"], "acme");
    assert!(cached[0].remaining.as_secs() <= 300);

    fixture.gateway.authorizer_cache().flush();
    assert_eq!(status(fixture.get("/items").bearer_auth(token)).await, 200);
    assert_eq!(fixture.functions.calls("authorizer").len(), 2);
}

#[tokio::test]
async fn other_tokens_and_repeated_headers_have_results_of_their_own() {
    let fixture = Fixture::new().await;
    let event = fixture.event(fixture.get("/items").bearer_auth("allow-acme")).await;
    assert_eq!(event["requestContext"]["authorizer"]["tenantId"], "acme");
    let event = fixture.event(fixture.get("/items").bearer_auth("allow-other")).await;
    assert_eq!(event["requestContext"]["authorizer"]["tenantId"], "other");
    assert_eq!(
        status(fixture.get("/items").header("authorization", "bearer allow-acme")).await,
        401
    );
    let twice = "Authorization: Bearer allow-acme\r\nAuthorization: Bearer allow-other\r\n";
    fixture.raw("GET /test/items", twice).await;
    assert_eq!(fixture.functions.calls("authorizer").len(), 4);
}

#[tokio::test]
async fn denials_are_cached_and_errors_never() {
    let fixture = Fixture::new().await;
    for (token, expect, calls) in [
        ("deny-tenant_unknown", 403, 1),
        ("none", 401, 2),
        ("error-boom", 500, 2),
        ("malformed-", 500, 2),
        ("throttled-", 500, 2),
    ] {
        let before = fixture.functions.calls("authorizer").len();
        for _ in 0..2 {
            assert_eq!(
                status(fixture.get("/items").bearer_auth(token)).await,
                expect,
                "{token}"
            );
        }
        assert_eq!(fixture.functions.calls("authorizer").len() - before, calls, "{token}");
    }
    assert_eq!(fixture.gateway.authorizer_cache().len(), 1);
}

#[tokio::test]
async fn only_the_exact_message_is_unauthorized() {
    let fixture = Fixture::new().await;
    for (token, expect, kind, error_type) in [
        ("error-Unauthorized", 401, "UNAUTHORIZED", "UnauthorizedException"),
        (
            "error-unauthorized",
            500,
            "AUTHORIZER_FAILURE",
            "AuthorizerFailureException",
        ),
        (
            "error-Unauthorized.",
            500,
            "AUTHORIZER_FAILURE",
            "AuthorizerFailureException",
        ),
        ("throttled-", 500, "AUTHORIZER_FAILURE", "AuthorizerFailureException"),
        (
            "malformed-",
            500,
            "AUTHORIZER_CONFIGURATION_ERROR",
            "AuthorizerConfigurationException",
        ),
        (
            "nested-",
            500,
            "AUTHORIZER_CONFIGURATION_ERROR",
            "AuthorizerConfigurationException",
        ),
        (
            "forbidden-",
            500,
            "AUTHORIZER_CONFIGURATION_ERROR",
            "AuthorizerConfigurationException",
        ),
    ] {
        let (status, headers, body) = send(fixture.get("/items").bearer_auth(token)).await;
        assert_eq!(status, expect, "{token}");
        assert_eq!(fixture.last().response_type, Some(kind), "{token}");
        assert_eq!(headers["x-amzn-errortype"], error_type, "{token}");
        assert_eq!(
            body,
            if expect == 401 {
                "{\"message\":\"Unauthorized\"}"
            } else {
                "{\"message\":null}"
            },
            "{token}"
        );
    }
    assert!(fixture.functions.calls("isolated").is_empty());
}

#[tokio::test]
async fn a_policy_decides_per_method_and_path() {
    let fixture = Fixture::new().await;
    for (pattern, path, expect) in [
        ("GET/items", "/items", 200),
        ("GET/items", "/items/", 403),
        ("GET/items", "/items/7", 403),
        ("GET/items/*", "/items/7", 200),
        ("GET/items/*", "/items", 403),
        ("POST/*", "/items", 403),
        ("*", "/items/7", 200),
    ] {
        let (status, _, body) = send(fixture.get(path).bearer_auth(format!("only-{pattern}"))).await;
        assert_eq!(status, expect, "{pattern} {path}: {body}");
        if expect == 403 {
            assert_eq!(body, "{\"message\":\"User is not authorized to access this resource\"}");
            assert_eq!(fixture.last().response_type, Some("ACCESS_DENIED"));
        }
    }
    let (_, headers, body) = send(fixture.get("/items").bearer_auth("deny-x")).await;
    assert_eq!(
        body,
        "{\"message\":\"User is not authorized to access this resource with an explicit deny\"}"
    );
    assert_eq!(headers["x-amzn-errortype"], "AccessDeniedException");
}

#[tokio::test]
async fn the_authorizers_context_reaches_the_function_as_strings() {
    let fixture = Fixture::new().await;
    let event = fixture.event(fixture.get("/items").bearer_auth("allow-acme")).await;
    let mut context = event["requestContext"]["authorizer"].clone();
    assert!(context["integrationLatency"].is_number());
    context.as_object_mut().unwrap().remove("integrationLatency");
    let expect =
        json!({"principalId": "user of acme", "tenantId": "acme", "expiry": "17", "flag": "true", "code": "forbidden"});
    assert_eq!(context, expect);
}

#[tokio::test]
async fn several_identity_sources_are_all_needed() {
    let mut document = contract();
    document["components"]["securitySchemes"]["tenant"]["x-amazon-apigateway-authorizer"]["identitySource"] =
        json!("method.request.header.Authorization, method.request.querystring.v, context.httpMethod");
    let functions = Functions::default()
        .with("authorizer", authorizer)
        .with("isolated", echo);
    let fixture = Fixture::start(document, functions).await;
    let with = |query: &str| fixture.get(&format!("/items{query}")).bearer_auth("allow-acme");
    assert_eq!(status(with("")).await, 401);
    assert_eq!(status(with("?v=")).await, 401);
    assert_eq!(status(with("?v=1")).await, 200);
    assert_eq!(status(with("?v=1")).await, 200);
    assert_eq!(fixture.functions.calls("authorizer").len(), 1);
    assert_eq!(status(with("?v=2")).await, 200);
    assert_eq!(fixture.functions.calls("authorizer").len(), 2);
}
