//! Gateway responses as the contract customises them.

use super::*;

fn with(responses: Value) -> Value {
    let mut document = contract();
    document["x-amazon-apigateway-gateway-responses"] = responses;
    document
}

async fn fixture(responses: Value) -> Fixture {
    let functions = Functions::default()
        .with("authorizer", authorizer)
        .with("plain", |_| failure("x"))
        .with("isolated", echo);
    Fixture::start(with(responses), functions).await
}

#[tokio::test]
async fn status_headers_and_body_are_the_contracts() {
    let fixture = fixture(json!({
        "ACCESS_DENIED": {
            "statusCode": "403",
            "responseParameters": {
                "gatewayresponse.header.Access-Control-Allow-Origin": "'*'",
                "gatewayresponse.header.X-Code": "context.authorizer.code",
                "gatewayresponse.header.X-Sent": "method.request.header.X-Sent",
            },
            "responseTemplates": {
                "application/problem+json":
                    "{\"code\":\"$context.authorizer.code\",\"id\":\"$context.requestId\",\"m\":$context.error.messageString,\"t\":\"$context.error.responseType\"}",
            },
        },
        "UNAUTHORIZED": {"responseParameters": {"gatewayresponse.header.WWW-Authenticate": "'Bearer'"}},
        "MISSING_AUTHENTICATION_TOKEN": {"statusCode": 404, "responseTemplates": {"application/json": "{\"path\":\"$context.path\"}"}},
    }))
    .await;
    let (status, headers, body) = send(
        fixture
            .get("/items")
            .bearer_auth("deny-tenant_suspended")
            .header("x-sent", "y"),
    )
    .await;
    assert_eq!(status, 403);
    assert_eq!(headers["content-type"], "application/problem+json");
    assert_eq!(headers["access-control-allow-origin"], "*");
    assert_eq!(headers["x-code"], "tenant_suspended");
    assert_eq!(headers["x-sent"], "y");
    let body: Value = serde_json::from_str(&body).unwrap();
    let message = "User is not authorized to access this resource with an explicit deny";
    let id = fixture.last().request_id;
    assert_eq!(
        body,
        json!({"code": "tenant_suspended", "id": id, "m": message, "t": "ACCESS_DENIED"})
    );
    assert_eq!(headers["x-amzn-requestid"], id.as_str());

    // An implicit denial has the context of the authorizer's answer as well, from the cache too.
    for _ in 0..2 {
        let (_, headers, _) = send(fixture.get("/items/7").bearer_auth("only-GET/items")).await;
        assert_eq!(headers["x-code"], "forbidden");
    }

    let (status, headers, body) = send(fixture.get("/items")).await;
    assert_eq!((status, body.as_str()), (401, "{\"message\":\"Unauthorized\"}"));
    assert_eq!(headers["www-authenticate"], "Bearer");

    let (status, _, body) = send(fixture.get("/nothing")).await;
    assert_eq!((status, body.as_str()), (404, "{\"path\":\"/test/nothing\"}"));
}

#[tokio::test]
async fn defaults_stand_in_for_types_that_are_not_customised() {
    let fixture = fixture(json!({
        "DEFAULT_4XX": {"responseTemplates": {"application/json": "{\"four\":\"$context.error.message\"}"}},
        "DEFAULT_5XX": {"responseTemplates": {"application/json": "{\"five\":\"$context.error.message\"}"}},
        "UNAUTHORIZED": {"statusCode": 401},
    }))
    .await;
    let (status, _, body) = send(fixture.get("/nothing")).await;
    assert_eq!(
        (status, body.as_str()),
        (403, "{\"four\":\"Missing Authentication Token\"}")
    );
    let (status, _, body) = send(fixture.get("/public")).await;
    assert_eq!((status, body.as_str()), (502, "{\"five\":\"Internal server error\"}"));
    // A type of its own does not inherit the default's template.
    let (status, _, body) = send(fixture.get("/items")).await;
    assert_eq!((status, body.as_str()), (401, "{\"message\":\"Unauthorized\"}"));
}

#[tokio::test]
async fn a_status_on_a_default_rewrites_its_class() {
    let fixture = fixture(json!({
        "DEFAULT_4XX": {"statusCode": 418},
        "DEFAULT_5XX": {"statusCode": 503},
        "UNAUTHORIZED": {"statusCode": 401},
        "ACCESS_DENIED": {},
    }))
    .await;
    assert_eq!(status(fixture.get("/nothing")).await, 418);
    assert_eq!(status(fixture.get("/items").bearer_auth("deny-x")).await, 418);
    assert_eq!(status(fixture.get("/items")).await, 401);
    assert_eq!(status(fixture.get("/public")).await, 503);
    assert_eq!(status(fixture.get("/items").bearer_auth("error-x")).await, 503);
}

#[tokio::test]
async fn a_body_too_large_can_not_be_customised() {
    let fixture = fixture(json!({
        "DEFAULT_4XX": {"statusCode": 418, "responseTemplates": {"application/json": "{}"}},
        "REQUEST_TOO_LARGE": {"statusCode": 400, "responseTemplates": {"application/json": "{}"}},
    }))
    .await;
    let (status, _, body) = send(fixture.post("/public").body(vec![b'a'; 10_485_761])).await;
    assert_eq!(status, 413);
    assert!(body.contains("message"), "{body}");
    let (status, body) = fixture.raw("GET /elsewhere/items", "").await;
    assert_eq!((status, body.as_str()), (403, "{\"message\":\"Forbidden\"}"));
}

#[tokio::test]
async fn the_template_is_chosen_by_the_first_accepted_type() {
    let templates = json!({"application/xml": "<m/>", "application/json": "{}"});
    let fixture = fixture(json!({"DEFAULT_4XX": {"responseTemplates": templates}})).await;
    for (accept, media_type, expect) in [
        ("application/xml", "application/xml", "<m/>"),
        ("application/json, application/xml", "application/json", "{}"),
        ("text/html", "application/json", "{}"),
    ] {
        let (_, headers, body) = send(fixture.get("/nothing").header("accept", accept)).await;
        assert_eq!(
            (headers["content-type"].to_str().unwrap(), body.as_str()),
            (media_type, expect),
            "{accept}"
        );
    }
}
