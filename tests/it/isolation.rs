//! The isolation table against the local stack: every operation asked by every kind of stranger.

use bulkhead_cli::deployment::Call;
use bulkhead_cli::isolation::{self, Missing, Scene};
use bulkhead_local::identity::{AUDIENCE, Identity, Predecessor, Signer, TokenRequest};
use bulkhead_local::stack::{random_name, wait_until};
use integration_tests::fixture::{Fixture, config, patience};
use reqwest::Method;
use serde_json::json;

#[tokio::test]
async fn every_operation_tells_every_stranger_what_it_must() {
    let fixture = Fixture::shared();
    let (tenant, other, suspended) = (
        fixture.tenant("table").await,
        fixture.tenant("other").await,
        fixture.tenant("gone").await,
    );
    let canary = random_name("canary");
    let document = tenant
        .upload("table.txt", &format!("The password of the table is {canary}."))
        .await;
    other
        .upload("other.txt", "The table of the other tenant is made of oak.")
        .await;
    let question = "What is the password of the table?";
    let answer = tenant.ask(question).await.json();
    assert!(answer["output"]["text"].as_str().unwrap().contains(&canary), "{answer}");
    let session = answer["sessionId"].as_str().unwrap().to_owned();
    let operator = fixture.operator();
    let suspend = format!("/tenants/{}/suspend", suspended.id);
    fixture
        .expect(200, &Call::new(Method::POST, suspend).token(&operator))
        .await;

    let stranger = Identity::start(Default::default()).await.unwrap();
    let admin = TokenRequest::member(&tenant.id, &["admin"]);
    let scene = Scene {
        tenant: tenant.id.clone(),
        reader: tenant.reader(),
        admin: tenant.admin(),
        other: other.admin(),
        other_tenant: other.id.clone(),
        suspended: Some(suspended.admin()),
        operator,
        expired: Some(fixture.token(&TokenRequest {
            lifetime_secs: Some(-3600),
            ..admin.clone()
        })),
        wrong_issuer: Some(stranger.token(&admin).unwrap()),
        document,
        canary,
        question: question.to_owned(),
        session,
        ingestion: fixture.ingestion.clone(),
        new_tenant: random_name("new"),
        missing: Missing::new(random_name("missing")),
    };
    let cells = isolation::run(&fixture.deployment, &scene, |_, _| true).await.unwrap();
    let faults: Vec<String> = cells
        .iter()
        .filter_map(|cell| {
            let answers: Vec<String> = cell.answers.iter().map(|answer| answer.text()).collect();
            let fault = cell.fault.as_ref()?;
            Some(format!("{} as {}: {fault}: {answers:?}", cell.operation, cell.stranger))
        })
        .collect();
    assert!(
        faults.is_empty(),
        "\n{}\n\n{}",
        isolation::grid(&cells),
        faults.join("\n")
    );
}

#[tokio::test]
async fn reading_an_unknown_path_is_not_told_from_reading_a_missing_document() {
    let fixture = Fixture::shared();
    let tenant = fixture.tenant("path").await;
    let missing = Call::new(Method::GET, "/documents/01JD0000000000000000000000").token(tenant.admin());
    let missing = fixture.expect(404, &missing).await;
    let unknown = fixture
        .deployment
        .send(&Call::new(Method::GET, "/nothing").token(tenant.admin()))
        .await
        .unwrap();
    let (mut missing, mut unknown) = (missing.fingerprint(), unknown.fingerprint());
    // The gateway names the kind of its own answers in a header that can't be left out.
    missing.1.remove("x-amzn-errortype");
    unknown.1.remove("x-amzn-errortype");
    assert_eq!(missing, unknown);
}

#[tokio::test]
async fn a_tenant_named_by_a_client_changes_nothing() {
    let fixture = Fixture::shared();
    let (a, b) = (fixture.tenant("spoof-a").await, fixture.tenant("spoof-b").await);
    let secret = random_name("secret");
    b.upload("b.txt", &format!("The colour of the vault is {secret}."))
        .await;
    a.upload("a.txt", "The colour of the vault is plain grey.").await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for header in [
        "X-Amz-Tenant-Id",
        "X-Tenant-Id",
        "Lambda-Runtime-Aws-Tenant-Id",
        "X-Amzn-Tenant-Id",
    ] {
        let answer = client
            .post(format!(
                "{}/genai/query?tenant={}&tenantId={}",
                fixture.stack.base_url(),
                b.id,
                b.id
            ))
            .bearer_auth(a.reader())
            .header(header, &b.id)
            .json(&json!({"user_query": "What is the colour of the vault?"}))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        let text = answer.text().await.unwrap();
        assert!(
            text.contains("plain grey") && !text.contains(&secret),
            "{header}: {text}"
        );
    }
    for member in [
        "tenant",
        "tenant_id",
        "tenantId",
        "filter",
        "retrievalConfiguration",
        "modelArn",
    ] {
        let body = json!({"user_query": "What is the colour of the vault?", member: b.id});
        let answer = a.ask_as(&a.reader(), body).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_deref()),
            (400, Some("invalid_request")),
            "{member}"
        );
    }
}

#[tokio::test]
async fn no_spelling_of_a_path_goes_round_the_authorizer() {
    let fixture = Fixture::shared();
    let base_url = reqwest::Url::parse(&fixture.stack.base_url()).unwrap();
    let address = format!("{}:{}", base_url.host_str().unwrap(), base_url.port().unwrap());
    let stage = base_url.path().trim_matches('/').to_owned();
    for path in [
        "documents",
        "documents/",
        "/documents",
        "documents//",
        "documents/.",
        "./documents",
        "documents%2f",
        "documents;x",
        "DOCUMENTS",
        "documents/*",
        "*",
        "%64ocuments",
        "health/../documents",
        "health/..%2fdocuments",
        "tenants",
        "tenants/",
    ] {
        let status = raw_get(&address, &format!("/{stage}/{path}")).await;
        assert!([400, 401, 403, 404].contains(&status), "{path}: {status}");
    }
}

/// A GET whose path nobody normalises on the way; gives the status.
async fn raw_get(address: &str, path: &str) -> u16 {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer)
        .split(' ')
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}

#[tokio::test]
async fn a_policy_that_covers_a_path_does_not_open_it_to_readers() {
    let fixture = Fixture::shared();
    let tenant = fixture.tenant("cover").await;
    let document = tenant.upload("a.txt", "The roof of the mill is green.").await;
    // Readers may GET /documents/*, for content: the gateway lets all of these through, and the function refuses.
    for path in [
        "/documents/".to_owned(),
        format!("/documents/{document}"),
        format!("/documents/{document}/"),
        "/documents/01JD0000000000000000000000".to_owned(),
    ] {
        let call = Call::new(Method::GET, &path);
        let refused = fixture.expect(403, &call.clone().token(tenant.reader())).await;
        assert_eq!(refused.code().as_deref(), Some("forbidden"), "{path}");
        // Who may reads there what stands there: the path is not simply unknown.
        let answered = fixture.send(&call.token(tenant.admin())).await.status.as_u16();
        assert_eq!(answered, if path.contains("01JD0000") { 404 } else { 200 }, "{path}");
    }
}

#[tokio::test]
async fn an_issuer_of_one_tenant_speaks_for_nobody_else_and_its_withdrawn_keys_stop_working() {
    let outside = Identity::start(Default::default()).await.unwrap();
    let (own, other) = (random_name("guest"), random_name("host"));
    let mut config = config();
    let entry = json!([{
        "issuer": outside.issuer(),
        "audiences": [AUDIENCE],
        "roles_claim": "roles",
        "tenants": [own],
        "operators": false,
    }]);
    for (variable, value) in [
        ("BULKHEAD_ISSUERS", entry.to_string()),
        ("BULKHEAD_JWKS_MAX_AGE_SECS", "2".to_owned()),
        ("BULKHEAD_JWKS_COOLDOWN_SECS", "1".to_owned()),
    ] {
        config.variables.insert(variable.to_owned(), value);
    }
    let fixture = Fixture::start(config).await;
    fixture.named_tenant(&own, &[]).await;
    let host = fixture.named_tenant(&other, &[]).await;
    let documents = |token: String| Call::new(Method::GET, "/documents").token(token);
    let said_outside = |request: TokenRequest| outside.token(&request).unwrap();

    let admin = TokenRequest::member(&own, &["admin"]);
    fixture.expect(200, &documents(said_outside(admin.clone()))).await;
    fixture.expect(200, &documents(fixture.token(&admin))).await;
    fixture.expect(200, &documents(host.admin())).await;
    let foreign = said_outside(TokenRequest::member(&other, &["admin"]));
    let refused = fixture.expect(403, &documents(foreign)).await;
    // It may not even learn that there is such a tenant.
    assert_eq!(refused.code().as_deref(), Some("tenant_unknown"));
    let (member, nobody) = (TokenRequest::member(&own, &["operator"]), TokenRequest::operator());
    for (operator, code) in [(member, "forbidden"), (nobody, "tenant_unknown")] {
        for (method, path) in [(Method::GET, "/tenants"), (Method::POST, "/ingestions")] {
            let call = Call::new(method, path).token(said_outside(operator.clone()));
            let refused = fixture.expect(403, &call).await;
            assert_eq!(refused.code().as_deref(), Some(code));
        }
    }

    let old = outside.key_id();
    // A user each time: the gateway keeps what it was told of a token.
    let mut number = 0;
    let mut signed_by = |key: &str| {
        number += 1;
        let request = TokenRequest {
            user: Some(format!("user-{number}")),
            header: json!({"kid": key}).as_object().unwrap().clone(),
            ..admin.clone()
        };
        let (header, claims) = (outside.header(&request), outside.claims(&request));
        documents(outside.sign(&header, &claims, Signer::Key(key)).unwrap())
    };
    let new = outside.rotate(Predecessor::Withdrawn).await.unwrap();
    for (key, status) in [(&new, 200), (&old, 401)] {
        wait_until("a new key is known and a withdrawn one is not", patience(), || {
            let call = signed_by(key);
            let fixture = &fixture;
            async move { Ok((fixture.send(&call).await.status.as_u16() == status).then_some(())) }
        })
        .await
        .unwrap();
    }
    fixture.expect(200, &signed_by(&new)).await;
    fixture.expect(200, &documents(fixture.token(&admin))).await;
}

#[tokio::test]
async fn an_unknown_tenant_is_refused_before_any_environment_is_started() {
    let fixture = Fixture::shared();
    let nobody = random_name("nobody");
    let token = fixture.token(&TokenRequest::member(&nobody, &[]));
    let call = Call::new(Method::POST, "/genai/query")
        .token(token)
        .json(&json!({"user_query": "Anybody?"}));
    let answer = fixture.expect(403, &call).await;
    assert_eq!(answer.code().as_deref(), Some("tenant_unknown"));
    let processes = fixture.stack.lambda().processes();
    assert!(
        processes
            .iter()
            .all(|process| process.tenant.as_deref() != Some(&nobody))
    );
}
