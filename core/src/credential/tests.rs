//! The cache against a canned STS, and a table that only notes who asks.

use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use ::time::OffsetDateTime;
use ::time::format_description::well_known::Rfc3339;
use aws_config::{BehaviorVersion, Region};
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;

use super::*;
use crate::error::Code;
use crate::store::{Registry, TenantTable};
use crate::tenant::{UnverifiedCaller, UserId};

const ROLE: &str = "arn:aws:iam::123456789012:role/data-role";

/// What STS does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    /// Credentials that expire after so many seconds.
    Seconds(i64),
    Refuse(u16, &'static str),
}

/// An environment, its clocks, its STS and its table. It begins now: the SDK has a clock of its own.
struct World {
    wall: AtomicI64,
    monotonic: AtomicU64,
    begun: Instant,
    reply: Mutex<Reply>,
    asked: Mutex<Vec<String>>,
    opened: AtomicUsize,
    /// The access key of the table's last caller.
    caller: Mutex<String>,
}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            wall: AtomicI64::new(OffsetDateTime::now_utc().unix_timestamp()),
            monotonic: AtomicU64::new(0),
            begun: Instant::now(),
            reply: Mutex::new(Reply::Seconds(3600)),
            asked: Mutex::default(),
            opened: AtomicUsize::new(0),
            caller: Mutex::default(),
        })
    }

    fn cache(self: &Arc<Self>, background: &Background) -> CredentialCache<TenantTable> {
        let (aws, clocks, opened) = (Arc::clone(self), Arc::clone(self), Arc::clone(self));
        let own = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-west-1"))
            .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
                "OWN", "b", None, None, "test",
            )))
            .http_client(http_client_fn(move |_, _| {
                SharedHttpConnector::new(Aws(Arc::clone(&aws)))
            }))
            .build();
        let clock = Clock::from_fn(move || {
            let wall = OffsetDateTime::from_unix_timestamp(clocks.wall.load(Ordering::SeqCst)).unwrap();
            let monotonic = Duration::from_secs(clocks.monotonic.load(Ordering::SeqCst));
            (wall, clocks.begun + monotonic)
        });
        let open = move |credentials: &TenantCredentials| {
            opened.opened.fetch_add(1, Ordering::SeqCst);
            TenantTable::new(credentials, "table")
        };
        CredentialCache::new(ROLE.parse().unwrap(), &own, open, background, clock)
    }

    /// The access key that the tenant's clients sign with.
    async fn key(&self, table: &TenantTable) -> String {
        let registry = Registry::new(table.table());
        assert!(
            registry
                .profile(&TenantId::parse("acme").unwrap())
                .await
                .unwrap()
                .is_none()
        );
        self.caller.lock().unwrap().clone()
    }

    /// What a call of the tenant's signs with, once no work of it is left.
    async fn visit(&self, cache: &CredentialCache<TenantTable>, background: &Background) -> Result<String, Error> {
        let table = cache.of(&context("acme")).await;
        assert!(background.drain(Duration::from_secs(60)).await);
        Ok(self.key(table?.as_ref()).await)
    }

    fn pass(&self, seconds: i64) {
        self.wall.fetch_add(seconds, Ordering::SeqCst);
        self.monotonic.fetch_add(seconds.try_into().unwrap(), Ordering::SeqCst);
    }

    fn replies(&self, reply: Reply) {
        *self.reply.lock().unwrap() = reply;
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

#[derive(Debug)]
struct Aws(Arc<World>);

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}

impl HttpConnector for Aws {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let world = Arc::clone(&self.0);
        let signed = request.headers().get("authorization").unwrap();
        let (_, caller) = signed.split_once("Credential=").unwrap();
        let caller = caller.split('/').next().unwrap();
        if request.uri() == "https://dynamodb.eu-west-1.amazonaws.com/" {
            let token = request.headers().get("x-amz-security-token").unwrap();
            assert_eq!(token.strip_prefix("token"), caller.strip_prefix("KEY"));
            *world.caller.lock().unwrap() = caller.to_owned();
            let nothing = HttpResponse::new(200.try_into().unwrap(), SdkBody::from("{}"));
            return HttpConnectorFuture::ready(Ok(nothing));
        }
        assert_eq!(request.uri(), "https://sts.eu-west-1.amazonaws.com/");
        assert_eq!(caller, "OWN");
        let body = std::str::from_utf8(request.body().bytes().unwrap()).unwrap().to_owned();
        HttpConnectorFuture::new(async move {
            // Whoever asks beside this one does so before there is an answer.
            tokio::task::yield_now().await;
            let number = {
                let mut asked = world.asked.lock().unwrap();
                asked.push(body);
                asked.len()
            };
            let (status, text) = match *world.reply.lock().unwrap() {
                Reply::Refuse(status, code) => (
                    status,
                    format!(
                        "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>No.</Message></Error>\
                         <RequestId>r-1</RequestId></ErrorResponse>"
                    ),
                ),
                Reply::Seconds(seconds) => {
                    let expiry = world.wall.load(Ordering::SeqCst) + seconds;
                    let expiry = OffsetDateTime::from_unix_timestamp(expiry).unwrap();
                    (
                        200,
                        format!(
                            "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>KEY{number}</AccessKeyId>\
                             <SecretAccessKey>secret</SecretAccessKey><SessionToken>token{number}</SessionToken>\
                             <Expiration>{}</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>",
                            expiry.format(&Rfc3339).unwrap()
                        ),
                    )
                }
            };
            Ok(HttpResponse::new(status.try_into().unwrap(), SdkBody::from(text)))
        })
    }
}

fn context(tenant: &str) -> TenantContext {
    let caller = UnverifiedCaller {
        tenant: Some(tenant.to_owned()),
        user: Some(
            UserId::derive("https://issuer.example.com", "alice")
                .as_str()
                .to_owned(),
        ),
        roles: Some("reader".to_owned()),
        groups: None,
        token_expiry: Some("4102444800".to_owned()),
        runtime_tenant: Some(tenant.to_owned()),
    };
    TenantContext::new(&caller, &Clock::system()).unwrap()
}

#[tokio::test]
async fn a_tenants_first_call_assumes_the_role_as_the_tenant_and_the_next_does_not() {
    let (world, background) = (World::new(), Background::new());
    let cache = world.cache(&background);
    assert_eq!(world.visit(&cache, &background).await.unwrap(), "KEY1");
    world.pass(60);
    assert_eq!(world.visit(&cache, &background).await.unwrap(), "KEY1");
    assert_eq!(
        *world.asked.lock().unwrap(),
        [
            "Action=AssumeRole&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fdata-role\
          &RoleSessionName=acme&DurationSeconds=3600&Tags.member.1.Key=tenant&Tags.member.1.Value=acme"
        ]
    );
    assert_eq!(world.opened.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn of_several_who_need_credentials_one_asks() {
    let (world, background) = (World::new(), Background::new());
    let cache = world.cache(&background);
    let context = context("acme");
    let (one, other) = tokio::join!(cache.of(&context), cache.of(&context));
    assert!(Arc::ptr_eq(&one.unwrap(), &other.unwrap()));
    assert_eq!((world.asked(), world.opened.load(Ordering::SeqCst)), (1, 1));
}

#[tokio::test]
async fn another_tenant_is_refused_and_gets_nothing() {
    let (world, background) = (World::new(), Background::new());
    let cache = world.cache(&background);
    world.visit(&cache, &background).await.unwrap();
    for other in ["acme-2", "umbrella"] {
        assert!(matches!(cache.of(&context(other)).await, Err(Error::Isolation { .. })));
    }
    assert_eq!(world.asked(), 1);
    // Nor does one that came first, but got no credentials, leave the environment to another.
    let world = World::new();
    let cache = world.cache(&background);
    world.replies(Reply::Refuse(403, "AccessDenied"));
    assert!(cache.of(&context("acme")).await.is_err());
    world.replies(Reply::Seconds(3600));
    assert!(matches!(
        cache.of(&context("acme-2")).await,
        Err(Error::Isolation { .. })
    ));
}

#[tokio::test]
async fn they_are_renewed_beside_a_call_with_less_than_ten_minutes_left() {
    let (world, background) = (World::new(), Background::new());
    let cache = world.cache(&background);
    world.visit(&cache, &background).await.unwrap();
    world.pass(3000);
    assert_eq!(
        world.visit(&cache, &background).await.unwrap(),
        "KEY1",
        "exactly ten are left"
    );
    assert_eq!(world.asked(), 1);
    world.pass(1);
    let table = cache.of(&context("acme")).await.unwrap();
    assert_eq!(
        (world.key(&table).await.as_str(), world.asked()),
        ("KEY1", 1),
        "the call does not wait"
    );
    assert!(background.drain(Duration::from_secs(60)).await);
    assert_eq!(world.key(&table).await, "KEY2", "clients go on with the new ones");
    assert_eq!(world.visit(&cache, &background).await.unwrap(), "KEY2");
    assert_eq!((world.asked(), world.opened.load(Ordering::SeqCst)), (2, 1));
}

#[tokio::test]
async fn a_call_waits_for_them_if_those_that_are_left_would_not_last_it() {
    let (world, background) = (World::new(), Background::new());
    let cache = world.cache(&background);
    world.visit(&cache, &background).await.unwrap();
    world.pass(3600 - 360);
    let table = cache.of(&context("acme")).await.unwrap();
    assert_eq!(world.key(&table).await, "KEY1", "exactly what is assured is left");
    // One second less.
    let (world, background) = (World::new(), Background::new());
    let cache = world.cache(&background);
    world.visit(&cache, &background).await.unwrap();
    world.pass(3600 - 359);
    let table = cache.of(&context("acme")).await.unwrap();
    assert_eq!((world.key(&table).await.as_str(), world.asked()), ("KEY2", 2));
}

#[tokio::test]
async fn a_renewal_that_fails_stops_no_call_while_the_old_ones_last() {
    let (world, background) = (World::new(), Background::new());
    let cache = world.cache(&background);
    world.visit(&cache, &background).await.unwrap();
    for reply in [
        Reply::Refuse(403, "AccessDenied"),
        Reply::Refuse(403, "ExpiredTokenException"),
    ] {
        world.replies(reply);
        world.pass(3600 - 420 - world.monotonic.load(Ordering::SeqCst).cast_signed());
        let asked = world.asked();
        assert_eq!(world.visit(&cache, &background).await.unwrap(), "KEY1");
        assert_eq!(world.asked(), asked + 1, "each call tries again");
    }
    // One second less than is assured.
    world.pass(61);
    assert_eq!(
        world.visit(&cache, &background).await.unwrap_err().code(),
        Code::Unavailable
    );
    world.replies(Reply::Refuse(403, "AccessDenied"));
    assert_eq!(
        world.visit(&cache, &background).await.unwrap_err().code(),
        Code::Internal
    );
    world.replies(Reply::Seconds(3600));
    assert_eq!(world.visit(&cache, &background).await.unwrap(), "KEY6");
}

#[tokio::test(start_paused = true)]
async fn without_credentials_there_is_no_call() {
    for (reply, code) in [
        (Reply::Refuse(400, "Throttling"), Code::Unavailable),
        (Reply::Refuse(503, "ServiceUnavailable"), Code::Unavailable),
        (Reply::Refuse(403, "AccessDenied"), Code::Internal),
        (Reply::Refuse(400, "ValidationError"), Code::Internal),
    ] {
        let (world, background) = (World::new(), Background::new());
        let cache = world.cache(&background);
        world.replies(reply);
        assert_eq!(
            world.visit(&cache, &background).await.unwrap_err().code(),
            code,
            "{reply:?}"
        );
        let provider = cache.inner.held.get().unwrap().credentials.configuration();
        let provider = provider.credentials_provider().unwrap();
        assert!(provider.provide_credentials().await.is_err(), "nothing is signed");
    }
}

#[tokio::test]
async fn the_clock_that_saw_more_time_pass_counts() {
    // Frozen for an hour: the monotonic clock stood still.
    let (world, background) = (World::new(), Background::new());
    let cache = world.cache(&background);
    world.visit(&cache, &background).await.unwrap();
    world.wall.fetch_add(3600, Ordering::SeqCst);
    assert_eq!(world.visit(&cache, &background).await.unwrap(), "KEY2");
    // The wall clock was set back.
    let world = World::new();
    let cache = world.cache(&background);
    world.visit(&cache, &background).await.unwrap();
    world.monotonic.fetch_add(3600, Ordering::SeqCst);
    world.wall.fetch_sub(10, Ordering::SeqCst);
    assert_eq!(world.visit(&cache, &background).await.unwrap(), "KEY2");
}

#[tokio::test]
async fn a_shorter_life_than_was_asked_for_counts_and_a_longer_one_does_not() {
    for (given, pass, asked) in [(1200, 600, 1), (1200, 601, 2), (9000, 3000, 1), (9000, 3001, 2)] {
        let (world, background) = (World::new(), Background::new());
        let cache = world.cache(&background);
        world.replies(Reply::Seconds(given));
        world.visit(&cache, &background).await.unwrap();
        world.pass(pass);
        world.visit(&cache, &background).await.unwrap();
        assert_eq!(world.asked(), asked, "{given} {pass}");
    }
}

#[test]
fn a_role_has_an_arn() {
    for good in [ROLE, "arn:aws-cn:iam::123456789012:role/path/name"] {
        assert!(good.parse::<RoleArn>().is_ok(), "{good}");
    }
    for bad in [
        "",
        "data-role",
        "arn:aws:iam::123456789012:role/",
        "arn:aws:iam::123456789012:user/x",
        "arn:aws:iam::12345:role/x",
        "arn:aws:sts::123456789012:assumed-role/x/acme",
        "arn::iam::123456789012:role/x",
    ] {
        assert_eq!(bad.parse::<RoleArn>(), Err(InvalidRoleArn), "{bad}");
    }
}

#[test]
fn nothing_of_them_is_printed() {
    let own = SdkConfig::builder().build();
    let tenant = TenantId::parse("acme").unwrap();
    let credentials = TenantCredentials::new(&tenant, &Signer::default(), &own);
    assert_eq!(format!("{credentials:?}"), "TenantCredentials(acme)");
}
