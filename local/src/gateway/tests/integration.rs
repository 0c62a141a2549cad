//! Lambda proxy and MOCK integrations: events, tenants, bodies, answers, failures, validators.

use super::*;

fn plain(function: impl Fn(Value) -> Result<Outcome, InvokeError> + Send + Sync + 'static) -> Functions {
    Functions::default()
        .with("authorizer", authorizer)
        .with("plain", function)
        .with("isolated", echo)
}

#[tokio::test]
async fn a_proxy_event_has_everything_of_the_request() {
    let fixture = Fixture::new().await;
    let event = fixture
        .event(fixture.post("/public").header("x-a", "1").header("x-a", "2").body("{}"))
        .await;
    assert_eq!(
        (&event["resource"], &event["path"], &event["httpMethod"]),
        (&json!("/public"), &json!("/public"), &json!("POST"))
    );
    assert_eq!(
        (&event["headers"]["x-a"], &event["multiValueHeaders"]["x-a"]),
        (&json!("2"), &json!(["1", "2"]))
    );
    assert_eq!(
        (&event["body"], &event["isBase64Encoded"]),
        (&json!("{}"), &json!(false))
    );
    for absent in [
        "queryStringParameters",
        "multiValueQueryStringParameters",
        "pathParameters",
        "stageVariables",
    ] {
        assert_eq!(event[absent], json!(null), "{absent}");
    }
    let context = &event["requestContext"];
    assert_eq!(context["protocol"], "HTTP/1.1");
    assert_eq!(context["domainName"], fixture.gateway.address().to_string());
    assert_eq!(context["requestId"], fixture.last().request_id);
    assert_eq!(context["resourceId"].as_str().unwrap().len(), 6);
    assert!(context["requestTimeEpoch"].as_i64().unwrap() > 1_600_000_000_000);
    assert!(context["requestTime"].as_str().unwrap().ends_with(" +0000"));
    assert!(context["extendedRequestId"].is_string());
    assert!(context.get("authorizer").is_none());
    for dropped in ["content-length", "connection", "transfer-encoding"] {
        assert!(event["headers"].get(dropped).is_none(), "{dropped}");
    }
    assert_eq!(event["headers"]["X-Forwarded-For"], "127.0.0.1");
    let empty = fixture.event(fixture.get("/public")).await;
    assert_eq!(
        (&empty["body"], &empty["isBase64Encoded"]),
        (&json!(null), &json!(false))
    );
}

#[tokio::test]
async fn the_tenant_of_the_call_is_the_authorizers_and_never_the_clients() {
    let fixture = Fixture::new().await;
    let request = fixture
        .get("/items")
        .bearer_auth("allow-acme")
        .header("X-Amz-Tenant-Id", "other");
    assert_eq!(status(request).await, 200);
    assert_eq!(fixture.functions.calls("isolated")[0].tenant.as_deref(), Some("acme"));
    assert_eq!(fixture.last().tenant.as_deref(), Some("acme"));
    // Blanks around a header's value are not part of it.
    assert_eq!(status(fixture.get("/items").bearer_auth("padded-acme")).await, 200);
    assert_eq!(fixture.functions.calls("isolated")[1].tenant.as_deref(), Some("acme"));
}

#[tokio::test]
async fn without_the_mapping_an_isolated_function_is_not_called() {
    let fixture = Fixture::new().await;
    let request = || {
        fixture
            .get("/unmapped")
            .bearer_auth("allow-acme")
            .header("X-Amz-Tenant-Id", "acme")
    };
    let (status, _, body) = send(request()).await;
    assert_eq!(
        (status, body.as_str()),
        (500, "{\"message\":\"Internal server error\"}")
    );
    assert_eq!(fixture.last().tenant, None);
    assert!(fixture.functions.calls("isolated").is_empty());
    // Nor with a mapping that yields nothing.
    assert_eq!(send(fixture.get("/items").bearer_auth("notenant-")).await.0, 500);
    assert!(fixture.functions.calls("isolated").is_empty());
}

#[tokio::test]
async fn a_tenant_for_a_function_that_is_not_isolated_fails_too() {
    let mut document = contract();
    document["paths"]["/items"]["get"]["x-amazon-apigateway-integration"]["uri"] = json!(uri("plain"));
    let fixture = Fixture::start(document, plain(echo)).await;
    assert_eq!(status(fixture.get("/items").bearer_auth("allow-acme")).await, 500);
}

#[tokio::test]
async fn a_contract_that_maps_a_clients_header_is_executed_as_it_is() {
    let mut document = contract();
    document["paths"]["/items"]["get"]["x-amazon-apigateway-integration"]["requestParameters"] =
        json!({"integration.request.header.x-amz-tenant-id": "method.request.header.X-Tenant"});
    let fixture = Fixture::start(document, plain(echo)).await;
    assert_eq!(
        status(
            fixture
                .get("/items")
                .bearer_auth("allow-acme")
                .header("x-tenant", "other")
        )
        .await,
        200
    );
    assert_eq!(fixture.functions.calls("isolated")[0].tenant.as_deref(), Some("other"));
}

#[tokio::test]
async fn only_bodies_of_binary_types_survive() {
    let fixture = Fixture::new().await;
    let bytes = vec![0x25, 0xff, 0x00, 0xfe];
    for (media_type, body, is_base64) in [
        ("application/pdf", "Jf8A/g==", true),
        ("Application/PDF; version=1", "Jf8A/g==", true),
        ("text/plain", "%\u{fffd}\0\u{fffd}", false),
        ("application/pdfx", "%\u{fffd}\0\u{fffd}", false),
    ] {
        let event = fixture
            .event(
                fixture
                    .post("/public")
                    .header("content-type", media_type)
                    .body(bytes.clone()),
            )
            .await;
        assert_eq!(
            (&event["body"], &event["isBase64Encoded"]),
            (&json!(body), &json!(is_base64)),
            "{media_type}"
        );
    }
}

#[tokio::test]
async fn base64_answers_are_decoded_by_the_first_accepted_type() {
    let result = json!({"body": "Jf8=", "isBase64Encoded": true, "headers": {"content-type": "application/pdf"}});
    let fixture = Fixture::start(contract(), plain(move |_| answer(&result))).await;
    for (accept, expect) in [
        ("application/pdf", &b"%\xff"[..]),
        ("application/pdf, text/html", b"%\xff"),
        ("application/pdf;q=0.5", b"%\xff"),
        ("text/html, application/pdf", b"Jf8="),
        ("*/*", b"Jf8="),
    ] {
        let response = fixture.get("/public").header("accept", accept).send().await.unwrap();
        assert_eq!(response.bytes().await.unwrap().as_ref(), expect, "{accept}");
    }
}

#[tokio::test]
async fn an_answer_keeps_its_status_headers_and_body() {
    let result = json!({
        "statusCode": 302,
        "headers": {"Location": "https://example.com/x", "WWW-Authenticate": "Bearer", "Date": "then"},
        "multiValueHeaders": {"x-a": ["1", "2"]},
        "body": "moved",
    });
    let fixture = Fixture::start(contract(), plain(move |_| answer(&result))).await;
    let (status, headers, body) = send(fixture.get("/public")).await;
    assert_eq!((status, body.as_str()), (302, "moved"));
    assert_eq!(headers["location"], "https://example.com/x");
    assert_eq!(headers["x-amzn-remapped-www-authenticate"], "Bearer");
    assert!(!headers.contains_key("www-authenticate"));
    assert_ne!(headers["date"], "then");
    assert_eq!(headers.get_all("x-a").iter().count(), 2);
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["x-amzn-requestid"], fixture.last().request_id);
    assert!(headers.contains_key("x-amz-apigw-id") && headers.contains_key("x-amzn-trace-id"));
    assert!(!headers.contains_key("x-amzn-errortype"));
}

#[tokio::test]
async fn an_answer_without_content_has_none() {
    let fixture = Fixture::start(
        contract(),
        plain(|_| answer(&json!({"statusCode": 204, "body": "ignored"}))),
    )
    .await;
    let (status, _, body) = send(fixture.get("/public")).await;
    assert_eq!((status, body.as_str()), (204, ""));
    assert_eq!(self::status(fixture.get("/public")).await, 204);
}

#[tokio::test]
async fn functions_that_fail_are_a_bad_gateway_and_say_nothing() {
    type Case = (fn(Value) -> Result<Outcome, InvokeError>, u16, &'static str);
    let cases: [Case; 8] = [
        (|_| failure("secret cause"), 502, "DEFAULT_5XX"),
        (|_| Err(InvokeError::TimedOut), 502, "DEFAULT_5XX"),
        (|_| answer(&json!({"errorMessage": "secret cause"})), 502, "DEFAULT_5XX"),
        (
            |_| Ok(Outcome::Buffered(Bytes::from_static(b"secret cause"))),
            502,
            "DEFAULT_5XX",
        ),
        (|_| Err(InvokeError::TooManyRequests), 500, "INTEGRATION_FAILURE"),
        (
            |_| Err(InvokeError::Service("secret cause".to_owned())),
            500,
            "INTEGRATION_FAILURE",
        ),
        (|_| Err(InvokeError::AccessDenied), 500, "API_CONFIGURATION_ERROR"),
        (|_| Err(InvokeError::NotFound), 500, "API_CONFIGURATION_ERROR"),
    ];
    for (function, expect, kind) in cases {
        let fixture = Fixture::start(contract(), plain(function)).await;
        let (status, headers, body) = send(fixture.get("/public")).await;
        assert_eq!(
            (status, body.as_str()),
            (expect, "{\"message\":\"Internal server error\"}")
        );
        assert_eq!(headers["x-amzn-errortype"], "InternalServerErrorException");
        assert_eq!(fixture.last().response_type, Some(kind));
    }
    let fixture = Fixture::start(contract(), plain(|_| Err(InvokeError::RequestTooLarge))).await;
    let (status, _, body) = send(fixture.get("/public")).await;
    assert_eq!((status, body.as_str()), (413, "{\"message\":\"Request Too Long\"}"));
}

#[tokio::test]
async fn a_panic_of_the_function_runner_is_contained() {
    let fixture = Fixture::start(contract(), plain(|_| panic!("expected in this test"))).await;
    assert_eq!(status(fixture.get("/public")).await, 500);
    assert_eq!(status(fixture.get("/health")).await, 200);
}

#[tokio::test]
async fn an_integration_has_only_its_time() {
    let mut document = contract();
    document["paths"]["/public"]["x-amazon-apigateway-any-method"]["x-amazon-apigateway-integration"]["timeoutInMillis"] =
        json!(50);
    let fixture = Fixture::start(document, Functions::default().never_answering("plain")).await;
    let (status, _, body) = send(fixture.get("/public")).await;
    assert_eq!(
        (status, body.as_str()),
        (504, "{\"message\":\"Endpoint request timed out\"}")
    );
    assert_eq!(fixture.last().response_type, Some("INTEGRATION_TIMEOUT"));
}

#[tokio::test]
async fn a_departed_client_does_not_end_the_invocation() {
    let (done, mut finished) = tokio::sync::mpsc::unbounded_channel();
    let release = Arc::new(tokio::sync::Notify::new());
    let mut functions = Functions::default();
    let held = Arc::clone(&release);
    functions.by_name.insert(
        "plain".to_owned(),
        Box::new(move |_event| {
            let (held, done) = (Arc::clone(&held), done.clone());
            async move {
                done.send("called").unwrap();
                held.notified().await;
                done.send("finished").unwrap();
                answer(&json!({}))
            }
            .boxed()
        }),
    );
    let fixture = Fixture::start(contract(), functions).await;
    let mut stream = TcpStream::connect(fixture.gateway.address()).await.unwrap();
    stream
        .write_all(b"GET /test/public HTTP/1.1\r\nHost: example.com\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(finished.recv().await, Some("called"));
    drop(stream);
    // The server has noticed once another connection was served in full.
    fixture.raw("GET /test/health", "").await;
    release.notify_one();
    assert_eq!(finished.recv().await, Some("finished"));
    let logged = async {
        while !fixture
            .gateway
            .requests()
            .iter()
            .any(|entry| entry.operation.as_deref() == Some("public"))
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), logged)
        .await
        .unwrap();
}

#[tokio::test]
async fn mock_answers_from_its_templates() {
    let fixture = Fixture::new().await;
    let (status, headers, body) = send(fixture.get("/health")).await;
    assert_eq!(status, 200);
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body, json!({"status": "ok", "id": fixture.last().request_id}));
    assert_eq!(headers["cache-control"], "no-store");
    assert_eq!(headers["content-type"], "application/json");

    let preflight = fixture.client.request(
        reqwest::Method::OPTIONS,
        format!("{}/items", fixture.gateway.base_url()),
    );
    let (status, headers, body) = send(preflight.header("origin", "https://example.com")).await;
    assert_eq!((status, body.as_str()), (204, ""));
    assert_eq!(headers["access-control-allow-origin"], "*");
    assert_eq!(headers["access-control-allow-methods"], "GET,OPTIONS");
    assert!(fixture.functions.calls.lock().unwrap().is_empty());
}

#[tokio::test]
async fn mock_has_the_real_ones_pitfalls() {
    let fixture = Fixture::new().await;
    // No template for the request's media type, and no passing through.
    assert_eq!(
        status(fixture.get("/health").header("content-type", "text/plain")).await,
        415
    );
    // The client accepts a binary type first and the body is not to stay text: it is taken for base64.
    assert_eq!(
        status(fixture.get("/health").header("accept", "application/pdf")).await,
        500
    );
    let preflight = fixture.client.request(
        reqwest::Method::OPTIONS,
        format!("{}/items", fixture.gateway.base_url()),
    );
    assert_eq!(status(preflight.header("accept", "application/pdf")).await, 204);

    let mut document = contract();
    document["paths"]["/health"]["get"]["x-amazon-apigateway-integration"]["passthroughBehavior"] =
        json!("when_no_match");
    let fixture = Fixture::start(document, Functions::default()).await;
    assert_eq!(
        status(fixture.get("/health").header("content-type", "text/plain")).await,
        500
    );
}

#[tokio::test]
async fn required_parameters_are_there_and_not_blank() {
    let fixture = Fixture::new().await;
    let with = |query: &str| fixture.get(&format!("/search{query}")).header("x-lang", "en");
    assert_eq!(status(with("?q=a")).await, 200);
    assert_eq!(status(with("?q=%20")).await, 400);
    let (status, headers, body) = send(with("?page=1")).await;
    assert_eq!(
        (status, body.as_str()),
        (400, "{\"message\":\"Missing required request parameters: [q]\"}")
    );
    assert_eq!(headers["x-amzn-errortype"], "BadRequestException");
    assert_eq!(fixture.last().response_type, Some("BAD_REQUEST_PARAMETERS"));
    let (_, _, body) = send(fixture.get("/search")).await;
    assert!(body.contains("[x-lang, q]"), "{body}");
}

#[tokio::test]
async fn a_body_is_held_against_its_model_where_there_is_one_for_its_type() {
    let fixture = Fixture::new().await;
    let with = |media_type: &str, body: &str| {
        fixture
            .post("/orders")
            .header("content-type", media_type)
            .body(body.to_owned())
    };
    for (media_type, body, expect) in [
        ("application/json", "{\"count\": 1}", 200),
        ("application/json; charset=utf-8", "{\"count\": 0}", 400),
        ("application/json", "{\"count\": 1, \"more\": 1}", 400),
        ("application/json", "{}", 400),
        ("application/json", "", 400),
        ("application/json", "{", 400),
        // Not enforced by the import.
        ("application/json", "{\"count\": 1, \"tags\": [1, 2]}", 200),
        // No model, no validation.
        ("text/plain", "{}", 200),
    ] {
        let (status, _, answer) = send(with(media_type, body)).await;
        assert_eq!(status, expect, "{media_type} {body}: {answer}");
        if expect == 400 {
            assert_eq!(answer, "{\"message\":\"Invalid request body\"}");
        }
    }
    // Elsewhere the body is not looked at.
    assert_eq!(
        status(
            fixture
                .post("/public")
                .header("content-type", "application/json")
                .body("{")
        )
        .await,
        200
    );
}

#[tokio::test]
async fn the_authorizer_comes_before_the_validator() {
    let mut document = contract();
    document["paths"]["/search"]["get"]["security"] = json!([{"tenant": []}]);
    let fixture = Fixture::start(document, plain(echo)).await;
    assert_eq!(status(fixture.get("/search")).await, 401);
    assert_eq!(status(fixture.get("/search").bearer_auth("allow-acme")).await, 400);
}
