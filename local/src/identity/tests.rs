use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};

use super::*;

async fn start() -> Identity {
    Identity::start(Settings::default()).await.unwrap()
}

async fn get_json(identity: &Identity, path: &str) -> Value {
    let response = reqwest::get(format!("{}{path}", identity.issuer())).await.unwrap();
    assert_eq!(response.status(), 200);
    response.json().await.unwrap()
}

async fn published(identity: &Identity) -> JwkSet {
    serde_json::from_value(get_json(identity, "/.well-known/jwks.json").await).unwrap()
}

/// Verifies as a relying party would, with the key set that it fetched.
async fn verify(identity: &Identity, token: &str) -> Result<Value, String> {
    let header = decode_header(token).map_err(|error| error.to_string())?;
    let keys = published(identity).await;
    let key = header
        .kid
        .as_deref()
        .and_then(|id| keys.find(id))
        .ok_or("unknown kid")?;
    let key = DecodingKey::from_jwk(key).map_err(|error| error.to_string())?;
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_audience(&[AUDIENCE]);
    validation.set_issuer(&[identity.issuer()]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    validation.validate_nbf = true;
    validation.leeway = 0;
    let verified = decode::<Value>(token, &key, &validation).map_err(|error| error.to_string())?;
    Ok(verified.claims)
}

#[tokio::test]
async fn a_token_verifies_with_what_discovery_leads_to() {
    let identity = start().await;
    let discovery = get_json(&identity, "/.well-known/openid-configuration").await;
    assert_eq!(discovery["issuer"], identity.issuer());
    assert_eq!(
        discovery["jwks_uri"],
        format!("{}/.well-known/jwks.json", identity.issuer())
    );
    let mut request = TokenRequest::member("acme", &["admin", "reader"]);
    request.groups = vec!["sales".to_owned()];
    let claims = verify(&identity, &identity.token(&request).unwrap()).await.unwrap();
    assert_eq!(claims["custom:tenant_id"], "acme");
    assert_eq!(claims["sub"], "alice");
    assert_eq!(claims["aud"], AUDIENCE);
    assert_eq!(claims["roles"], json!(["admin", "reader"]));
    assert_eq!(claims["groups"], json!(["sales"]));
    assert_eq!(
        claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(),
        LIFETIME_SECS
    );

    let claims = verify(&identity, &identity.token(&TokenRequest::operator()).unwrap())
        .await
        .unwrap();
    assert_eq!(claims.get("custom:tenant_id"), None);
    assert_eq!(claims["roles"], json!(["operator"]));
    assert_eq!(identity.requests(Endpoint::Discovery), 1);
    assert_eq!(identity.requests(Endpoint::Keys), 2);
}

#[tokio::test]
async fn the_key_set_has_public_halves_only() {
    let identity = start().await;
    let keys = get_json(&identity, "/.well-known/jwks.json").await;
    let key = &keys["keys"][0];
    let members: Vec<&String> = key.as_object().unwrap().keys().collect();
    assert_eq!(members, ["alg", "e", "kid", "kty", "n", "use"]);
    assert_eq!(key, &identity.public_key());
    assert_eq!(key["kid"], identity.key_id());
    assert_eq!(key["use"], "sig");
}

#[tokio::test]
async fn bad_tokens_can_be_made() {
    let identity = start().await;
    let stranger = start().await;
    let good = TokenRequest::member("acme", &["reader"]);
    let change = |name: &str, value: Value| TokenRequest {
        claims: Map::from_iter([(name.to_owned(), value)]),
        ..good.clone()
    };
    for (request, problem) in [
        (
            TokenRequest {
                lifetime_secs: Some(-1),
                ..good.clone()
            },
            "ExpiredSignature",
        ),
        (
            TokenRequest {
                audience: Some("other".to_owned()),
                ..good.clone()
            },
            "InvalidAudience",
        ),
        (change("iss", json!("https://idp.example.com")), "InvalidIssuer"),
        (change("sub", Value::Null), "Missing required claim: sub"),
        (change("nbf", json!(i64::MAX)), "ImmatureSignature"),
    ] {
        let error = verify(&identity, &identity.token(&request).unwrap()).await.unwrap_err();
        assert_eq!(error, problem);
    }

    let (header, claims) = (identity.header(&good), identity.claims(&good));
    let token = identity.sign(&header, &claims, Signer::Current).unwrap();
    assert!(verify(&identity, &token).await.is_ok());
    // Signed by another provider's key under this one's key id.
    let foreign = stranger.sign(&header, &claims, Signer::Current).unwrap();
    assert_eq!(verify(&identity, &foreign).await.unwrap_err(), "InvalidSignature");
    assert_eq!(
        verify(&identity, &stranger.token(&good).unwrap()).await.unwrap_err(),
        "unknown kid"
    );
    let confused = json!({"alg": "HS256", "typ": "JWT", "kid": identity.key_id()});
    let public = identity.public_key().to_string();
    let confused = identity
        .sign(&confused, &claims, Signer::Hmac(public.as_bytes()))
        .unwrap();
    assert_eq!(verify(&identity, &confused).await.unwrap_err(), "InvalidAlgorithm");
    let none = json!({"alg": "none", "kid": identity.key_id()});
    let unsigned = identity.sign(&none, &claims, Signer::Nobody).unwrap();
    assert!(unsigned.ends_with('.'));
    assert!(verify(&identity, &unsigned).await.is_err());
    let extra = TokenRequest {
        header: Map::from_iter([("crit".to_owned(), json!(["x"])), ("typ".to_owned(), Value::Null)]),
        ..good.clone()
    };
    let header = identity.header(&extra);
    assert_eq!(header["crit"], json!(["x"]));
    assert_eq!(header.get("typ"), None);
}

#[tokio::test]
async fn keys_rotate_and_can_be_withdrawn() {
    let identity = start().await;
    let request = TokenRequest::member("acme", &["reader"]);
    let first = identity.key_id();
    let old = identity.token(&request).unwrap();
    let second = identity.rotate(Predecessor::Published).await.unwrap();
    assert_ne!(first, second);
    assert_eq!(identity.key_id(), second);
    assert!(verify(&identity, &old).await.is_ok());
    assert!(verify(&identity, &identity.token(&request).unwrap()).await.is_ok());

    let third = identity.rotate(Predecessor::Withdrawn).await.unwrap();
    assert_eq!(verify(&identity, &old).await.unwrap_err(), "unknown kid");
    assert_eq!(published(&identity).await.keys.len(), 1);
    assert!(published(&identity).await.find(&third).is_some());
    // What a thief could still do.
    let header = identity.header(&request);
    let stolen = identity
        .sign(&header, &identity.claims(&request), Signer::Key(&first))
        .unwrap();
    assert_eq!(verify(&identity, &stolen).await.unwrap_err(), "InvalidSignature");
    let unknown = identity.sign(&header, &json!({}), Signer::Key("nothing")).unwrap_err();
    assert!(matches!(unknown, IdentityError::UnknownKey(_)));
}

#[tokio::test]
async fn the_key_and_the_port_outlive_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        port: 0,
        folder: Some(folder.path().join("data")),
    };
    let first = Identity::start(settings.clone()).await.unwrap();
    let (issuer, key) = (first.issuer().to_owned(), first.key_id());
    let secret = first.secret().to_owned();
    // While the port is in use another one is taken, and the key is the same.
    let beside = Identity::start(settings.clone()).await.unwrap();
    assert_ne!(beside.issuer(), issuer);
    assert_eq!(beside.key_id(), key);
    assert_ne!(beside.secret(), secret);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let file = folder.path().join("data/identity.json");
        assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let last = beside.issuer().to_owned();
    drop((first, beside));
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        // The listener closes when its task has seen the end.
        tokio::task::yield_now().await;
        let again = Identity::start(settings.clone()).await.unwrap();
        assert_eq!(again.key_id(), key);
        if again.issuer() == last {
            break;
        }
        assert!(std::time::Instant::now() < deadline);
    }
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = Identity::start(Settings { port, folder: None }).await.unwrap_err();
    assert!(matches!(error, IdentityError::Port { .. }), "{error}");
    std::fs::write(folder.path().join("data/identity.json"), "{").unwrap();
    let error = Identity::start(settings).await.unwrap_err();
    assert!(matches!(error, IdentityError::File { .. }), "{error}");
}

#[tokio::test]
async fn endpoints_misbehave_on_demand() {
    let identity = start().await;
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let url = format!("{}/.well-known/jwks.json", identity.issuer());
    let fetch = |fault: Option<Fault>| {
        identity.set_fault(Endpoint::Keys, fault);
        client.get(&url).timeout(Duration::from_millis(300)).send()
    };
    assert_eq!(fetch(Some(Fault::Status(503))).await.unwrap().status(), 503);
    assert!(fetch(Some(Fault::Hang)).await.unwrap_err().is_timeout());
    let body = fetch(Some(Fault::Body("<html>".to_owned()))).await.unwrap();
    assert_eq!(
        (body.status().as_u16(), body.text().await.unwrap()),
        (200, "<html>".to_owned())
    );
    let redirect = fetch(Some(Fault::Redirect("http://127.0.0.1:1/keys".to_owned())))
        .await
        .unwrap();
    assert_eq!(redirect.status(), 302);
    assert_eq!(redirect.headers()["location"], "http://127.0.0.1:1/keys");
    let huge = fetch(Some(Fault::Huge(100_000))).await.unwrap().bytes().await.unwrap();
    assert!(huge.len() > 100_000, "{}", huge.len());
    assert!(
        fetch(Some(Fault::Delay(Duration::from_millis(5))))
            .await
            .unwrap()
            .status()
            .is_success()
    );
    // The other endpoint is well.
    get_json(&identity, "/.well-known/openid-configuration").await;
    assert!(fetch(None).await.unwrap().status().is_success());
    assert_eq!(identity.requests(Endpoint::Keys), 7);
}

#[tokio::test]
async fn tokens_are_minted_for_who_knows_the_secret() {
    let identity = start().await;
    let client = reqwest::Client::new();
    let post = |secret: String, body: &'static str| {
        client
            .post(format!("{}/token", identity.issuer()))
            .header("authorization", secret)
            .body(body)
            .send()
    };
    let good = format!("Bearer {}", identity.secret());
    let body = r#"{"tenant": "acme", "roles": ["admin"], "user": "bob", "lifetime_secs": 60}"#;
    let answer = post(good.clone(), body).await.unwrap();
    assert_eq!(answer.status(), 200);
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["expires_in"], 60);
    let claims = verify(&identity, answer["access_token"].as_str().unwrap())
        .await
        .unwrap();
    assert_eq!(
        (&claims["sub"], &claims["custom:tenant_id"]),
        (&json!("bob"), &json!("acme"))
    );

    for wrong in ["Bearer x".to_owned(), identity.secret().to_owned(), format!("{good}x")] {
        assert_eq!(post(wrong, body).await.unwrap().status(), 401);
    }
    assert_eq!(post(good.clone(), r#"{"tenat": "acme"}"#).await.unwrap().status(), 400);
    assert!(!format!("{identity:?}").contains(identity.secret()));
}

#[tokio::test]
async fn the_issuer_entry_is_what_the_authorizer_reads() {
    let identity = start().await;
    assert_eq!(
        identity.issuer_entry(),
        json!({
            "issuer": format!("http://{}", identity.address()),
            "audiences": ["bulkhead"],
            "algorithms": ["RS256"],
            "roles_claim": "roles",
            "groups_claim": "groups",
            "tenants": "*",
            "operators": true,
        })
    );
}
