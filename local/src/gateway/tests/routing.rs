//! Stage, paths, methods, limits, and the access log.

use super::*;

#[tokio::test]
async fn the_base_url_leads_to_the_stage() {
    let fixture = Fixture::new().await;
    assert_eq!(
        fixture.gateway.base_url(),
        format!("http://{}/test", fixture.gateway.address())
    );
    assert_eq!(status(fixture.get("/health")).await, 200);
    let (status, body) = fixture.raw("GET /other/health", "").await;
    assert_eq!((status, body.as_str()), (403, "{\"message\":\"Forbidden\"}"));
}

#[tokio::test]
async fn unknown_paths_and_methods_have_no_authentication_token() {
    let fixture = Fixture::new().await;
    for (line, headers) in [
        ("GET /test/nothing", ""),
        ("DELETE /test/items", ""),
        ("HEAD /test/items", ""),
        ("GET /test/nothing", "Authorization: Bearer allow-acme\r\n"),
    ] {
        let (status, body) = fixture.raw(line, headers).await;
        assert_eq!(status, 403, "{line}");
        if !line.starts_with("HEAD") {
            assert_eq!(body, "{\"message\":\"Missing Authentication Token\"}", "{line}");
        }
        let entry = fixture.last();
        assert_eq!(
            (entry.status, entry.response_type, entry.resource),
            (403, Some("MISSING_AUTHENTICATION_TOKEN"), None)
        );
    }
    assert!(fixture.functions.calls("authorizer").is_empty());
}

#[tokio::test]
async fn no_spelling_of_a_path_passes_the_authorizer_by() {
    let fixture = Fixture::new().await;
    for path in [
        "/items",
        "/items/",
        "//items",
        "/items//",
        "/./items",
        "/health/../items",
        "/public/../items",
        "/items/.",
        "/items/..",
        "/items/%2e",
        "/items%2f",
        "/items%2f7",
        "/%69tems",
        "/items;x",
        "/items/;x",
        "/items/7;x=1",
        "/ITEMS",
        "/items/7%00",
        "/health%2f..%2fitems",
        "/public/%2e%2e/items",
        "/items?x=/health",
        "/items#/health",
        "/items/7/../../public",
    ] {
        let (status, body) = fixture.raw(&format!("GET /test{path}"), "").await;
        assert!([400, 401, 403].contains(&status), "{path} got {status}: {body}");
    }
    assert!(fixture.functions.calls("isolated").is_empty() && fixture.functions.calls("plain").is_empty());
}

#[tokio::test]
async fn the_event_has_the_path_as_sent_and_parameters_decoded() {
    let fixture = Fixture::new().await;
    let token = "Authorization: Bearer allow-acme\r\n";
    for (sent, id) in [
        ("7", "7"),
        ("a%20b", "a b"),
        ("a%2Fb", "a/b"),
        ("a%252Fb", "a%2Fb"),
        ("..", ".."),
        ("%C3%A9", "é"),
        ("7/", "7"),
    ] {
        let (status, body) = fixture.raw(&format!("GET /test/items/{sent}?x=1"), token).await;
        assert_eq!(status, 200, "{sent}: {body}");
        let event: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(event["path"], format!("/items/{sent}"));
        assert_eq!(event["requestContext"]["path"], format!("/test/items/{sent}"));
        assert_eq!(event["requestContext"]["resourcePath"], "/items/{id}");
        assert_eq!(event["resource"], "/items/{id}");
        assert_eq!(event["pathParameters"], json!({"id": id}));
    }
}

#[tokio::test]
async fn a_method_override_counts_for_routing_and_authorization_alike() {
    let fixture = Fixture::new().await;
    let request = fixture
        .get("/items")
        .header("x-http-method-override", "POST")
        .bearer_auth("only-GET/items");
    assert_eq!(status(request).await, 403);
    assert_eq!(fixture.last().operation.as_deref(), Some("add_item"));
    let request = fixture
        .post("/items")
        .header("x-http-method-override", "GET")
        .bearer_auth("only-GET/items");
    let event = fixture.event(request).await;
    assert_eq!(event["httpMethod"], "GET");
    assert_eq!(event["headers"].get("x-http-method-override"), None);
}

#[tokio::test]
async fn bodies_end_at_ten_megabytes() {
    let fixture = Fixture::start(
        contract(),
        Functions::default().with("plain", |event| {
            answer(&json!({"body": event["body"].as_str().unwrap_or_default().len().to_string()}))
        }),
    )
    .await;
    let (status, _, body) = send(fixture.post("/public").body(vec![b'a'; 10_485_760])).await;
    assert_eq!((status, body.as_str()), (200, "10485760"));
    let (status, headers, body) = send(fixture.post("/public").body(vec![b'a'; 10_485_761])).await;
    assert_eq!(status, 413);
    assert!(body.contains("10485760"), "{body}");
    assert!(headers.contains_key("x-amzn-requestid"));
}

#[tokio::test]
async fn long_urls_headers_and_arns_are_refused() {
    let fixture = Fixture::new().await;
    assert_eq!(
        fixture
            .raw(&format!("GET /test/public?{}", "a".repeat(10_240)), "")
            .await
            .0,
        414
    );
    assert_eq!(
        fixture
            .raw("GET /test/public", &format!("x-long: {}\r\n", "a".repeat(20_480)))
            .await
            .0,
        431
    );
    let token = "Authorization: Bearer allow-acme\r\n";
    assert_eq!(
        fixture
            .raw(&format!("GET /test/items/{}", "a".repeat(1_400)), token)
            .await
            .0,
        200
    );
    assert_eq!(
        fixture
            .raw(&format!("GET /test/items/{}", "a".repeat(1_600)), token)
            .await
            .0,
        414
    );
}

#[tokio::test]
async fn a_query_with_unsupported_characters_is_refused() {
    let fixture = Fixture::new().await;
    for query in ["a=|", "a={b}", "a=%zz"] {
        assert_eq!(
            fixture.raw(&format!("GET /test/public?{query}"), "").await.0,
            400,
            "{query}"
        );
    }
    let (_, body) = fixture.raw("GET /test/public?a=1;b=2&a=3&c=x+y%7C", "").await;
    let event: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(event["queryStringParameters"], json!({"a": "3", "b": "2", "c": "x y|"}));
    assert_eq!(
        event["multiValueQueryStringParameters"],
        json!({"a": ["1", "3"], "b": ["2"], "c": ["x y|"]})
    );
}

#[tokio::test]
async fn the_access_log_is_bounded_and_has_no_token() {
    let functions = Arc::new(
        Functions::default()
            .with("authorizer", authorizer)
            .with("isolated", echo),
    );
    let config = GatewayConfig {
        access_log_capacity: 3,
        stage: "test".to_owned(),
        ..GatewayConfig::new(contract())
    };
    let gateway = Gateway::start(config, functions).await.unwrap();
    let client = reqwest::Client::new();
    for _ in 0..5 {
        let response = client
            .get(format!("{}/items?key=secret", gateway.base_url()))
            .bearer_auth("allow-acme")
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
    }
    let entries = gateway.requests();
    assert_eq!(entries.len(), 3);
    let shown = format!("{entries:?}");
    assert!(!shown.contains("allow-acme") && !shown.contains("secret"), "{shown}");
    let entry = &entries[0];
    assert_eq!(entry.operation.as_deref(), Some("list_items"));
    assert_eq!(entry.tenant.as_deref(), Some("acme"));
    assert_eq!(entry.path, "/test/items");
    let authorizer = entry.authorizer.as_ref().unwrap();
    assert_eq!((authorizer.name.as_str(), authorizer.cache_hit), ("tenant", true));
    assert!(entry.integration_latency.is_some());
}

#[tokio::test]
async fn after_a_shutdown_nobody_listens() {
    let fixture = Fixture::new().await;
    assert_eq!(status(fixture.get("/health")).await, 200);
    fixture.gateway.shutdown().await;
    assert!(TcpStream::connect(fixture.gateway.address()).await.is_err());
    fixture.gateway.shutdown().await;
}

#[tokio::test]
async fn a_contract_that_is_not_understood_does_not_start() {
    let mut document = contract();
    document["x-amazon-apigateway-minimum-compression-size"] = json!(0);
    let error = Gateway::start(GatewayConfig::new(document), Arc::new(Functions::default()))
        .await
        .err()
        .unwrap();
    assert!(format!("{error:#}").contains("x-amazon-apigateway-minimum-compression-size"));
    let config = GatewayConfig {
        stage: "a/b".to_owned(),
        ..GatewayConfig::new(contract())
    };
    assert!(Gateway::start(config, Arc::new(Functions::default())).await.is_err());
}
