//! Whole requests, against an issuer on loopback.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use bulkhead_core::error::Error;
use bulkhead_core::tenant::{TenantId, UserId};
use serde_json::{Value, json};

use super::*;
use crate::fixture::server::{IssuerServer, Reply};
use crate::fixture::{self, EcSigner, FakeClock, METHOD_ARN, NOW, RsaSigner, absent, change};
use crate::key_cache::Limits;

/// Tenants by their status; `None` is one that can't be read.
struct Tenants(Mutex<BTreeMap<&'static str, Option<TenantStatus>>>);

impl Directory for Tenants {
    async fn status(&self, tenant: &TenantId) -> Result<Option<TenantStatus>, Error> {
        match self.0.lock().unwrap().get(tenant.as_str()) {
            None => Ok(None),
            Some(None) => Err(Error::Unavailable("the table is down".into())),
            Some(status) => Ok(*status),
        }
    }
}

struct Case {
    server: IssuerServer,
    clock: FakeClock,
    state: State<Tenants>,
}

impl Case {
    /// One issuer on loopback with the keys `rsa` and `ec`, its entry changed as given.
    async fn with(changes: &[(&str, Value)]) -> Self {
        let server = IssuerServer::start().await;
        server.jwks(Reply::keys(&[
            RsaSigner::shared().jwk("rsa"),
            EcSigner::shared().jwk("ec"),
        ]));
        let own = [
            ("issuer", json!(server.issuer())),
            ("jwks_uri", json!(server.url("/jwks"))),
        ];
        let entry = change(fixture::entry(&own), changes);
        let clock = FakeClock::at(NOW);
        let state = State::start(config(&[entry]), async { tenants() }, clock.clock()).await;
        Self { server, clock, state }
    }

    async fn new() -> Self {
        Self::with(&[]).await
    }

    fn claims(&self, changes: &[(&str, Value)]) -> Value {
        change(fixture::claims(&[("iss", json!(self.server.issuer()))]), changes)
    }

    fn token(&self, changes: &[(&str, Value)]) -> String {
        RsaSigner::shared().token(&fixture::header(), &self.claims(changes))
    }

    async fn ask(&self, token: &str) -> Result<Value, Failure> {
        let event = event(json!({"headers": {"Authorization": format!("Bearer {token}")}}));
        self.state
            .handle(&event)
            .await
            .map(|answer| serde_json::to_value(answer).unwrap())
    }

    fn set_status(&self, tenant: &'static str, status: TenantStatus) {
        self.state
            .statuses
            .directory()
            .0
            .lock()
            .unwrap()
            .insert(tenant, Some(status));
    }

    async fn ask_with(&self, changes: &[(&str, Value)]) -> Result<Value, Failure> {
        self.ask(&self.token(changes)).await
    }
}

fn config(entries: &[Value]) -> Config {
    Config {
        table_name: "bulkhead".to_owned(),
        status_max_age: Duration::from_secs(20),
        issuers: fixture::issuers(entries),
        key_limits: Limits {
            max_age: Duration::from_secs(300),
            max_stale: Duration::from_secs(3600),
            cooldown: Duration::from_secs(10),
            timeout: Duration::from_secs(20),
        },
    }
}

fn tenants() -> Tenants {
    Tenants(Mutex::new(BTreeMap::from([
        ("acme", Some(TenantStatus::Active)),
        ("acme-2", Some(TenantStatus::Active)),
        ("asleep", Some(TenantStatus::Suspended)),
        ("unreadable", None),
    ])))
}

fn event(changes: Value) -> Event {
    let mut event = json!({"type": "REQUEST", "methodArn": METHOD_ARN, "httpMethod": "POST", "path": "/genai/query"});
    for (name, value) in changes.as_object().unwrap() {
        event[name] = value.clone();
    }
    serde_json::from_value(event).unwrap()
}

fn effect(answer: &Value) -> &str {
    answer["policyDocument"]["Statement"][0]["Effect"].as_str().unwrap()
}

fn denied(answer: Result<Value, Failure>, code: &str) {
    let answer = answer.unwrap();
    assert_eq!((effect(&answer), &answer["context"]), ("Deny", &json!({"code": code})));
    assert_eq!(answer["principalId"].as_str().unwrap().len(), 22);
}

#[tokio::test]
async fn a_good_token_of_an_active_tenant_is_allowed() {
    let case = Case::new().await;
    let changes = [
        ("roles", json!(["admin"])),
        ("groups", json!(["sales", "hr"])),
        ("sub", json!("alice@example.com")),
    ];
    let answer = case.ask_with(&changes).await.unwrap();
    let user = UserId::derive(&case.server.issuer(), "alice@example.com");
    assert_eq!(effect(&answer), "Allow");
    assert_eq!(answer["principalId"], user.as_str());
    let context = json!({
        "code": "forbidden", "tenantId": "acme", "userId": user.as_str(), "roles": "admin,reader", "groups": "hr,sales",
        "tokenExpiry": (NOW.as_unix() + 3600).to_string(),
    });
    assert_eq!(answer["context"], context);
    assert!(!answer.to_string().contains("alice") && !answer.to_string().contains("usageIdentifierKey"));
}

#[tokio::test]
async fn the_header_decides_whatever_its_spelling() {
    let case = Case::new().await;
    let token = case.token(&[]);
    for headers in [
        json!({"headers": {"authorization": format!("bearer {token}")}}),
        json!({"headers": {"AUTHORIZATION": format!("BEARER {token}")}}),
        json!({"multiValueHeaders": {"Authorization": [format!("Bearer {token}")]}}),
    ] {
        assert!(case.state.handle(&event(headers)).await.is_ok());
    }
    for headers in [
        json!({}),
        json!({"headers": {"Authorization": ""}}),
        json!({"headers": {"Authorization": token}}),
        json!({"headers": {"Authorization": format!("Basic {token}")}}),
        json!({"headers": {"Authorization": format!("Bearer {token}, Bearer {token}")}}),
        json!({"headers": {"Authorization": format!("Bearer {token} {token}")}}),
        json!({"headers": {"Authorization": format!("Bearer {token}"), "authorization": "Bearer x"}}),
        json!({"multiValueHeaders": {"Authorization": [format!("Bearer {token}"), "Bearer x"]}}),
        json!({"headers": {"X-Forwarded-Authorization": format!("Bearer {token}"), "Cookie": token}}),
        json!({"queryStringParameters": {"access_token": token, "Authorization": format!("Bearer {token}")}}),
    ] {
        let outcome = case.state.handle(&event(headers.clone())).await;
        assert_eq!(outcome.map(|_| ()), Err(Failure::Unauthorized), "{headers}");
    }
}

#[tokio::test]
async fn unauthorized_is_the_whole_message_for_every_reason() {
    let case = Case::new().await;
    let stranger = RsaSigner::new();
    let signed = fixture::signed(fixture::header().to_string(), case.claims(&[]).to_string());
    for text in [
        String::new(),
        "x".to_owned(),
        "a.b.c".to_owned(),
        "x".repeat(100_000),
        format!("{signed}."),
        case.token(&[("exp", json!(NOW.as_unix() - 1))]),
        case.token(&[("iss", json!("https://evil.example.com"))]),
        case.token(&[("aud", json!("other"))]),
        case.token(&[("sub", absent())]),
        stranger.token(&fixture::header(), &case.claims(&[])),
        RsaSigner::shared().token(&change(fixture::header(), &[("kid", json!("none"))]), &case.claims(&[])),
        RsaSigner::shared().token(&change(fixture::header(), &[("alg", json!("none"))]), &case.claims(&[])),
    ] {
        let failure = case.ask(&text).await.unwrap_err();
        let diagnostic = serde_json::to_value(Diagnostic::from(failure)).unwrap();
        assert_eq!(
            diagnostic,
            json!({"errorType": "Unauthorized", "errorMessage": "Unauthorized"}),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_good_token_without_a_usable_tenant_is_denied_by_name() {
    let case = Case::new().await;
    let tenant = |value: Value| [("custom:tenant_id", value)];
    denied(case.ask_with(&tenant(absent())).await, "tenant_unknown");
    denied(case.ask_with(&tenant(json!(["acme"]))).await, "tenant_unknown");
    denied(case.ask_with(&tenant(json!("acme "))).await, "tenant_unknown");
    denied(case.ask_with(&tenant(json!("bulkhead-shared"))).await, "tenant_unknown");
    denied(case.ask_with(&tenant(json!("nobody"))).await, "tenant_unknown");
    denied(case.ask_with(&tenant(json!("asleep"))).await, "tenant_suspended");
}

#[tokio::test]
async fn a_status_that_cannot_be_read_is_no_denial() {
    let case = Case::new().await;
    let failure = case
        .ask_with(&[("custom:tenant_id", json!("unreadable"))])
        .await
        .unwrap_err();
    assert_eq!(failure, Failure::Unavailable);
    assert_ne!(Diagnostic::from(failure).error_message, "Unauthorized");
}

#[tokio::test]
async fn a_suspension_is_seen_within_the_status_age() {
    let case = Case::new().await;
    assert_eq!(effect(&case.ask_with(&[]).await.unwrap()), "Allow");
    case.set_status("acme", TenantStatus::Suspended);
    case.clock.advance(Duration::from_secs(20));
    denied(case.ask_with(&[]).await, "tenant_suspended");
}

#[tokio::test]
async fn an_operator_acts_for_the_owner_of_the_shared_documents() {
    let operator = [("roles", json!(["operator"])), ("custom:tenant_id", absent())];
    let case = Case::with(&[("operators", json!(true)), ("tenants", json!([]))]).await;
    let answer = case.ask_with(&operator).await.unwrap();
    assert_eq!(effect(&answer), "Allow");
    assert_eq!(answer["context"]["tenantId"], "bulkhead-shared");
    assert_eq!(answer["context"]["roles"], "operator");
    denied(case.ask_with(&[("roles", json!(["operator"]))]).await, "forbidden");
    denied(case.ask_with(&[]).await, "tenant_unknown");
    denied(Case::new().await.ask_with(&operator).await, "tenant_unknown");
}

#[tokio::test]
async fn an_issuer_speaks_for_its_own_tenants_with_its_own_keys() {
    let (one, two) = (IssuerServer::start().await, IssuerServer::start().await);
    let other = RsaSigner::new();
    // Both call their keys the same.
    one.jwks(Reply::keys(&[RsaSigner::shared().jwk("rsa")]));
    two.jwks(Reply::keys(&[other.jwk("rsa")]));
    let entry = |server: &IssuerServer, tenant: &str| {
        fixture::entry(&[
            ("issuer", json!(server.issuer())),
            ("jwks_uri", json!(server.url("/jwks"))),
            ("tenants", json!([tenant])),
        ])
    };
    let clock = FakeClock::at(NOW);
    let state = State::start(
        config(&[entry(&one, "acme"), entry(&two, "acme-2")]),
        async { tenants() },
        clock.clock(),
    )
    .await;
    let ask = async |signer: &RsaSigner, issuer: &IssuerServer, tenant: &str| {
        let claims = fixture::claims(&[("iss", json!(issuer.issuer())), ("custom:tenant_id", json!(tenant))]);
        let token = signer.token(&fixture::header(), &claims);
        let answer = state
            .handle(&event(json!({"headers": {"Authorization": format!("Bearer {token}")}})))
            .await;
        answer.map(|answer| serde_json::to_value(answer).unwrap())
    };
    assert_eq!(effect(&ask(RsaSigner::shared(), &one, "acme").await.unwrap()), "Allow");
    assert_eq!(effect(&ask(&other, &two, "acme-2").await.unwrap()), "Allow");
    denied(ask(RsaSigner::shared(), &one, "acme-2").await, "tenant_unknown");
    denied(ask(&other, &two, "acme").await, "tenant_unknown");
    assert_eq!(
        ask(RsaSigner::shared(), &two, "acme-2").await,
        Err(Failure::Unauthorized)
    );
    assert_eq!(ask(&other, &one, "acme").await, Err(Failure::Unauthorized));
}

#[tokio::test]
async fn nothing_is_fetched_for_an_issuer_that_is_not_ours() {
    let case = Case::new().await;
    let elsewhere = IssuerServer::start().await;
    for issuer in [
        elsewhere.issuer(),
        format!("{}/", case.server.issuer()),
        case.server.issuer().to_uppercase(),
    ] {
        assert_eq!(
            case.ask_with(&[("iss", json!(issuer))]).await,
            Err(Failure::Unauthorized)
        );
    }
    let jku = change(
        fixture::header(),
        &[
            ("jku", json!(elsewhere.url("/jwks"))),
            ("x5u", json!(elsewhere.url("/x"))),
        ],
    );
    assert!(
        case.ask(&RsaSigner::shared().token(&jku, &case.claims(&[])))
            .await
            .is_ok()
    );
    assert!(elsewhere.hits().is_empty());
    assert_eq!(case.server.hits(), ["/jwks"]);
}

#[tokio::test]
async fn a_good_token_before_it_helps_no_forgery() {
    let case = Case::new().await;
    let good = case.token(&[]);
    assert!(case.ask(&good).await.is_ok());
    let (rest, signature) = good.rsplit_once('.').unwrap();
    let payload = fixture::signed("{}", case.claims(&[("custom:tenant_id", json!("acme-2"))]).to_string());
    let forged = format!(
        "{}.{}.{signature}",
        rest.split_once('.').unwrap().0,
        payload.split_once('.').unwrap().1
    );
    assert_eq!(case.ask(&forged).await, Err(Failure::Unauthorized));
    let flipped = if signature.starts_with('A') { 'B' } else { 'A' };
    assert_eq!(
        case.ask(&format!("{rest}.{flipped}{}", signature.split_at(1).1)).await,
        Err(Failure::Unauthorized)
    );
    assert!(case.ask(&good).await.is_ok());
    case.clock.advance(Duration::from_secs(3600));
    assert_eq!(case.ask(&good).await, Err(Failure::Unauthorized));
}

#[tokio::test]
async fn an_issuer_without_keys_is_a_401_and_not_a_fault() {
    let case = Case::new().await;
    case.server.jwks(Reply::Close);
    case.clock.advance(Duration::from_secs(3601));
    let now = NOW.as_unix() + 3601;
    let changes = [("iat", json!(now)), ("exp", json!(now + 60))];
    assert_eq!(case.ask_with(&changes).await, Err(Failure::Unauthorized));
    case.server.jwks(Reply::keys(&[RsaSigner::shared().jwk("rsa")]));
    case.clock.advance(Duration::from_secs(10));
    assert!(case.ask_with(&changes).await.is_ok());
}

#[tokio::test]
async fn the_callers_path_is_not_in_the_policy() {
    let case = Case::new().await;
    let token = case.token(&[]);
    let head = METHOD_ARN.split_once("/POST").unwrap().0;
    let mut answers = std::collections::BTreeSet::new();
    for path in [
        "/POST/genai/query",
        "/GET/*",
        "/*/*",
        "/GET/tenants/other",
        "/DELETE/documents/x/../../*",
    ] {
        let event = event(json!({
            "headers": {"Authorization": format!("Bearer {token}")}, "methodArn": format!("{head}{path}"),
        }));
        answers.insert(serde_json::to_string(&case.state.handle(&event).await.unwrap()).unwrap());
    }
    assert_eq!(answers.len(), 1, "one answer whatever was called");
    for bad in [json!(""), json!(null), json!("arn:aws:execute-api:*:*:*/*/*"), json!(5)] {
        let odd = event(json!({"headers": {"Authorization": format!("Bearer {token}")}, "methodArn": bad}));
        assert_eq!(case.state.handle(&odd).await.map(|_| ()), Err(Failure::Event));
        // Whoever does not verify is told so first.
        let odd = event(json!({"headers": {"Authorization": "Bearer a.b.c"}, "methodArn": bad}));
        assert_eq!(case.state.handle(&odd).await.map(|_| ()), Err(Failure::Unauthorized));
    }
}
