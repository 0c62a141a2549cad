use serde_json::json;

use super::*;
use crate::fixture::server::{IssuerServer, Reply};
use crate::fixture::{EcSigner, FakeClock, NOW, RsaSigner};

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn limits() -> Limits {
    Limits {
        max_age: seconds(300),
        max_stale: seconds(3600),
        cooldown: seconds(10),
        // Of real time, which only tests of hanging servers spend. The bound itself is the configuration's.
        timeout: seconds(20),
    }
}

/// A server that publishes the key `a`, and a cache over it.
struct Case {
    server: IssuerServer,
    clock: FakeClock,
    cache: KeyCache,
    source: KeySource,
}

impl Case {
    async fn with(limits: Limits) -> Self {
        let server = IssuerServer::start().await;
        server.jwks(Reply::keys(&[RsaSigner::shared().jwk("a")]));
        let (clock, source) = (FakeClock::at(NOW), server.source());
        let cache = KeyCache::new([source.clone()], limits, clock.clock());
        Self {
            server,
            clock,
            cache,
            source,
        }
    }

    async fn new() -> Self {
        Self::with(limits()).await
    }

    async fn finds(&self, id: &str) -> bool {
        self.cache.find(&self.source, id).await.is_some()
    }

    fn fetches(&self) -> usize {
        self.server.hits().len()
    }
}

#[tokio::test]
async fn keys_are_fetched_once_and_kept() {
    let case = Case::new().await;
    case.cache.warm().await;
    assert_eq!(case.fetches(), 1);
    for _ in 0..100 {
        assert!(case.finds("a").await);
    }
    case.clock.advance(seconds(150));
    assert!(case.finds("a").await);
    assert_eq!(case.fetches(), 0);
}

#[tokio::test]
async fn fifty_cold_requests_make_one_fetch() {
    let case = Case::new().await;
    let found = join_all((0..50).map(|_| case.finds("a"))).await;
    assert!(found.into_iter().all(|found| found));
    assert_eq!(case.fetches(), 1);
}

#[tokio::test]
async fn keys_past_half_their_age_are_refreshed_by_one_request() {
    let case = Case::new().await;
    assert!(case.finds("a").await);
    case.clock.advance(seconds(151));
    let found = join_all((0..50).map(|_| case.finds("a"))).await;
    assert!(found.into_iter().all(|found| found));
    assert_eq!(case.fetches(), 2);
}

#[tokio::test]
async fn a_wall_clock_that_is_set_back_makes_keys_no_younger() {
    // The monotonic clock alone: a wall clock that stands still.
    let (passed, base) = (
        Arc::new(std::sync::Mutex::new(Duration::ZERO)),
        std::time::Instant::now(),
    );
    let shared = Arc::clone(&passed);
    let wall = time::OffsetDateTime::from_unix_timestamp(NOW.as_unix()).unwrap();
    let clock = Clock::from_fn(move || (wall, base + *shared.lock().unwrap()));
    let case = Case::new().await;
    let cache = KeyCache::new([case.source.clone()], limits(), clock);
    assert!(cache.find(&case.source, "a").await.is_some());
    *passed.lock().unwrap() = seconds(301);
    case.server.jwks(Reply::keys(&[RsaSigner::shared().jwk("b")]));
    assert!(cache.find(&case.source, "a").await.is_none());
}

#[tokio::test]
async fn a_new_key_is_found_after_the_cooldown_at_the_latest() {
    let case = Case::new().await;
    assert!(case.finds("a").await);
    case.server.jwks(Reply::keys(&[
        RsaSigner::shared().jwk("a"),
        EcSigner::shared().jwk("b"),
    ]));
    case.clock.advance(seconds(9));
    assert!(!case.finds("b").await, "within the cooldown");
    case.clock.advance(seconds(1));
    assert!(case.finds("b").await);
    assert!(case.finds("a").await);
    assert_eq!(case.fetches(), 2);
}

#[tokio::test]
async fn a_new_key_is_found_although_somebody_keeps_the_cooldown_busy() {
    let case = Case::new().await;
    assert!(case.finds("a").await);
    case.server.jwks(Reply::keys(&[EcSigner::shared().jwk("b")]));
    case.clock.advance(seconds(10));
    assert!(!case.finds("invented").await);
    assert!(case.finds("b").await, "the set was replaced whole");
    assert!(!case.finds("a").await);
    assert_eq!(case.fetches(), 2);
}

#[tokio::test]
async fn requests_for_a_new_key_wait_for_one_fetch() {
    let case = Case::new().await;
    assert!(case.finds("a").await);
    case.server.jwks(Reply::keys(&[EcSigner::shared().jwk("b")]));
    case.clock.advance(seconds(10));
    let found = join_all((0..50).map(|_| case.finds("b"))).await;
    assert!(found.into_iter().all(|found| found));
    assert_eq!(case.fetches(), 2);
}

#[tokio::test]
async fn a_key_that_left_the_set_stops_working_within_the_age() {
    let case = Case::new().await;
    assert!(case.finds("a").await);
    case.server.jwks(Reply::keys(&[EcSigner::shared().jwk("b")]));
    case.clock.advance(seconds(150));
    assert!(case.finds("a").await, "not looked at yet");
    case.clock.advance(seconds(1));
    assert!(!case.finds("a").await);
}

#[tokio::test]
async fn a_flood_of_invented_ids_makes_few_fetches_and_delays_nobody() {
    let case = Case::new().await;
    assert!(case.finds("a").await);
    case.clock.advance(seconds(10));
    for n in 0..300 {
        assert!(!case.finds(&format!("invented-{n}")).await);
        assert!(case.finds("a").await);
    }
    assert_eq!(case.fetches(), 2);
    let case = Case::new().await;
    let found = join_all((0..300).map(async |n| case.finds(&format!("invented-{n}")).await)).await;
    assert!(found.into_iter().all(|found| !found));
    assert!(case.fetches() <= 3);
}

#[tokio::test]
async fn an_outage_is_survived_for_an_hour_and_no_longer() {
    for outage in [
        Reply::Close,
        Reply::body("500 Internal Server Error", "{}"),
        Reply::body(
            "503 Service Unavailable",
            json!({"keys": [EcSigner::shared().jwk("b")]}).to_string(),
        ),
        Reply::body("404 Not Found", ""),
        Reply::body("204 No Content", ""),
        Reply::body(
            "201 Created",
            json!({"keys": [EcSigner::shared().jwk("b")]}).to_string(),
        ),
        Reply::body("200 OK", "<html>sorry</html>"),
        Reply::body("200 OK", ""),
        Reply::body("200 OK", "{}"),
        Reply::body("200 OK", "[]"),
        Reply::body("200 OK", r#"{"keys":null}"#),
        Reply::body("200 OK", r#"{"keys":[]}"#),
        Reply::body("200 OK", r#"{"keys":[{"kty":"oct","kid":"a","k":"c2VjcmV0"}]}"#),
        Reply::body("200 OK", r#"{"keys":[{"kty":"RSA","#),
        Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"keys\":[]}".to_vec()),
        Reply::Raw(b"\x16\x03\x01 not http\r\n\r\n".to_vec()),
    ] {
        let case = Case::new().await;
        assert!(case.finds("a").await);
        case.server.jwks(outage);
        for minute in 1..=60 {
            case.clock.advance(seconds(60));
            assert!(case.finds("a").await, "minute {minute}");
            assert!(!case.finds("b").await);
        }
        case.clock.advance(seconds(1));
        assert!(!case.finds("a").await, "beyond an hour");
        let fetches = case.fetches();
        assert!((2..=62).contains(&fetches), "{fetches}");
        // The issuer is back.
        case.server.jwks(Reply::keys(&[RsaSigner::shared().jwk("a")]));
        assert!(!case.finds("a").await, "within the cooldown");
        case.clock.advance(seconds(10));
        assert!(case.finds("a").await);
    }
}

#[tokio::test]
async fn without_stale_keys_an_outage_begins_at_the_age() {
    let case = Case::with(Limits {
        max_stale: Duration::ZERO,
        ..limits()
    })
    .await;
    assert!(case.finds("a").await);
    case.server.jwks(Reply::Close);
    case.clock.advance(seconds(300));
    assert!(case.finds("a").await);
    case.clock.advance(seconds(1));
    assert!(!case.finds("a").await);
}

#[tokio::test]
async fn an_outage_at_the_start_ends_with_the_cooldown() {
    let case = Case::new().await;
    case.server.jwks(Reply::Close);
    for _ in 0..100 {
        assert!(!case.finds("a").await);
    }
    assert_eq!(case.fetches(), 1);
    case.server.jwks(Reply::keys(&[RsaSigner::shared().jwk("a")]));
    case.clock.advance(seconds(10));
    assert!(case.finds("a").await);
}

#[tokio::test]
async fn a_failure_ahead_of_the_first_request_is_forgotten() {
    let case = Case::new().await;
    case.server.jwks(Reply::Close);
    case.cache.warm().await;
    case.server.jwks(Reply::keys(&[RsaSigner::shared().jwk("a")]));
    assert!(case.finds("a").await);
}

#[tokio::test]
async fn a_hanging_issuer_costs_one_request_the_timeout() {
    for hang in [Reply::Hang, Reply::Stall] {
        let case = Case::with(Limits {
            timeout: Duration::from_millis(200),
            ..limits()
        })
        .await;
        case.cache.warm().await;
        if !case.finds("a").await {
            continue; // The machine is too busy for 200 ms; the other tests show that keys are found.
        }
        case.server.hits();
        case.server.jwks(hang);
        case.clock.advance(seconds(200));
        let mut slow = 0;
        for _ in 0..100 {
            let begun = std::time::Instant::now();
            assert!(case.finds("a").await);
            slow += usize::from(begun.elapsed() >= Duration::from_millis(100));
            assert!(!case.finds("invented").await);
        }
        assert!(slow <= 5, "{slow} of 100 were slow");
        assert_eq!(case.fetches(), 1);
    }
}

#[tokio::test]
async fn others_do_not_wait_while_one_request_refreshes() {
    let case = Arc::new(
        Case::with(Limits {
            timeout: seconds(3600),
            ..limits()
        })
        .await,
    );
    assert!(case.finds("a").await);
    case.server.jwks(Reply::Hang);
    case.clock.advance(seconds(200));
    let first = Arc::clone(&case);
    let refreshing = tokio::spawn(async move { first.finds("a").await });
    let begins = async {
        while !case.cache.is_under_way(&case.source) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(seconds(20), begins).await.unwrap();
    for _ in 0..10 {
        assert_eq!(tokio::time::timeout(seconds(20), case.finds("a")).await, Ok(true));
    }
    assert!(!refreshing.is_finished());
    // A request that goes away in the middle of a refresh leaves nothing locked.
    refreshing.abort();
    assert!(refreshing.await.is_err());
    case.server.jwks(Reply::keys(&[EcSigner::shared().jwk("b")]));
    assert!(case.finds("b").await);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let case = Case::new().await;
    let elsewhere = IssuerServer::start().await;
    elsewhere.jwks(Reply::keys(&[RsaSigner::shared().jwk("a")]));
    case.server.jwks(Reply::redirect(&elsewhere.url("/jwks")));
    assert!(!case.finds("a").await);
    assert!(elsewhere.hits().is_empty());
    case.server
        .reply("/other", Reply::keys(&[RsaSigner::shared().jwk("a")]));
    case.server.jwks(Reply::redirect("/other"));
    case.clock.advance(seconds(10));
    assert!(!case.finds("a").await);
    assert_eq!(case.server.hits(), ["/jwks", "/jwks"]);
}

#[tokio::test]
async fn a_document_is_read_up_to_its_limit() {
    let case = Case::new().await;
    let padded = |length: usize| {
        let text = json!({"keys": [RsaSigner::shared().jwk("a")]}).to_string();
        Reply::body("200 OK", format!("{text}{}", " ".repeat(length - text.len())))
    };
    case.server.jwks(padded(MAX_DOCUMENT + 1));
    assert!(!case.finds("a").await);
    case.clock.advance(seconds(10));
    case.server.jwks(padded(MAX_DOCUMENT));
    assert!(case.finds("a").await);

    let case = Case::new().await;
    case.server.jwks(Reply::Endless);
    assert!(!case.finds("a").await);
    // What was sent beyond the limit lay in socket buffers.
    assert!(
        case.server.sent() < MAX_DOCUMENT + 32 * 1024 * 1024,
        "{}",
        case.server.sent()
    );
}

#[tokio::test]
async fn sources_do_not_share_keys() {
    let (one, two) = (Case::new().await, Case::new().await);
    two.server.jwks(Reply::keys(&[EcSigner::shared().jwk("b")]));
    let cache = KeyCache::new([one.source.clone(), two.source.clone()], limits(), one.clock.clock());
    cache.warm().await;
    assert!(cache.find(&one.source, "a").await.is_some());
    assert!(cache.find(&one.source, "b").await.is_none());
    assert!(cache.find(&two.source, "b").await.is_some());
    assert!(cache.find(&two.source, "a").await.is_none());
}

// Discovery.

const WELL_KNOWN: &str = "/.well-known/openid-configuration";

async fn discovering() -> Case {
    let mut case = Case::new().await;
    case.source = KeySource::Discovery(case.server.issuer());
    case.cache = KeyCache::new([case.source.clone()], limits(), case.clock.clock());
    document(
        &case,
        json!({"issuer": case.server.issuer(), "jwks_uri": case.server.url("/jwks"), "other": 5}),
    );
    case
}

fn document(case: &Case, document: serde_json::Value) {
    case.server.reply(WELL_KNOWN, Reply::json(&document));
}

#[tokio::test]
async fn keys_are_discovered_once() {
    let case = discovering().await;
    assert!(case.finds("a").await);
    assert_eq!(case.server.hits(), [WELL_KNOWN, "/jwks"]);
    case.clock.advance(seconds(200));
    assert!(case.finds("a").await);
    assert_eq!(case.server.hits(), ["/jwks"]);
}

#[tokio::test]
async fn keys_that_moved_are_discovered_again() {
    let case = discovering().await;
    assert!(case.finds("a").await);
    case.server.jwks(Reply::body("404 Not Found", ""));
    case.server.reply("/new", Reply::keys(&[EcSigner::shared().jwk("b")]));
    document(
        &case,
        json!({"issuer": case.server.issuer(), "jwks_uri": case.server.url("/new")}),
    );
    case.clock.advance(seconds(200));
    assert!(case.finds("b").await);
}

#[tokio::test]
async fn another_issuers_discovery_document_is_refused() {
    let case = discovering().await;
    let (issuer, jwks) = (case.server.issuer(), case.server.url("/jwks"));
    for bad in [
        json!({"issuer": format!("{issuer}/"), "jwks_uri": jwks}),
        json!({"issuer": "https://evil.example.com", "jwks_uri": jwks}),
        json!({"issuer": [issuer], "jwks_uri": jwks}),
        json!({"jwks_uri": jwks}),
        json!({"issuer": issuer}),
        json!({"issuer": issuer, "jwks_uri": 5}),
        json!({"issuer": issuer, "jwks_uri": "/jwks"}),
        json!({"issuer": issuer, "jwks_uri": "file:///etc/passwd"}),
        json!({"issuer": issuer, "jwks_uri": "http://keys.example.com/jwks"}),
        json!([]),
    ] {
        document(&case, bad.clone());
        assert!(!case.finds("a").await, "{bad}");
        assert_eq!(case.server.hits(), [WELL_KNOWN], "{bad}");
        case.clock.advance(seconds(10));
    }
    case.server.reply(WELL_KNOWN, Reply::redirect("/elsewhere"));
    assert!(!case.finds("a").await);
    assert_eq!(case.server.hits(), [WELL_KNOWN]);
}

#[tokio::test]
async fn an_issuer_with_a_path_is_discovered_under_it() {
    let case = discovering().await;
    let issuer = case.server.url("/pool/");
    let source = KeySource::Discovery(issuer.clone());
    let cache = KeyCache::new([source.clone()], limits(), case.clock.clock());
    let document = json!({"issuer": issuer, "jwks_uri": case.server.url("/jwks")});
    case.server
        .reply("/pool/.well-known/openid-configuration", Reply::json(&document));
    assert!(cache.find(&source, "a").await.is_some());
}
