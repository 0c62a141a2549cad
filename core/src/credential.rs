//! Credentials for one tenant's data: the fifth lock. An isolated function has no access to the table or the bucket itself;
//! it assumes a data role, tagged with its tenant, whose policies name that tenant's partitions and prefixes only.
//!
//! It catches a wrong key, not a wrong [`TenantId`]: the tag and the keys come from the same context. Not here: what the
//! role may do, which the template says, and Bedrock, which is called as the function itself.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use aws_config::SdkConfig;
use aws_config::identity::IdentityCache;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_sdk_sts::Client;
use aws_sdk_sts::config::http::HttpResponse;
use aws_sdk_sts::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sts::types::Tag;

use crate::background::Background;
use crate::error::Error;
use crate::tenant::{TenantContext, TenantId};
use crate::time::{Clock, Moment};

/// How long credentials are asked for. It is also the longest that AWS gives a role that was assumed with the credentials of
/// another, as a function's are (<https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles.html#iam-term-role-chaining>).
const LIFETIME: Duration = Duration::from_secs(60 * 60);
/// With less than this left, credentials are renewed beside the call's work.
const RENEWAL: Duration = Duration::from_secs(10 * 60);
/// How long the credentials that a call gets are good for at least: longer than any call, and long enough that a link to
/// content, made at the end of one, lasts as long as it says. With less left the call waits for the renewal.
pub const ASSURED: Duration = Duration::from_secs(6 * 60);

/// The session tag that the data roles' policies compare keys with, as `aws:PrincipalTag/tenant`.
const TAG: &str = "tenant";

const _: () = assert!(ASSURED.as_secs() < RENEWAL.as_secs() && RENEWAL.as_secs() < LIFETIME.as_secs());

/// The ARN of an IAM role (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-arns>).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleArn(String);

impl FromStr for RoleArn {
    type Err = InvalidRoleArn;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        match parts.as_slice() {
            ["arn", partition, "iam", "", account, role]
                if !partition.is_empty()
                    && account.len() == 12
                    && account.bytes().all(|byte| byte.is_ascii_digit())
                    && role.strip_prefix("role/").is_some_and(|name| !name.is_empty()) =>
            {
                Ok(Self(text.to_owned()))
            }
            _ => Err(InvalidRoleArn),
        }
    }
}

/// The text is not a role's ARN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an IAM role's ARN")]
pub struct InvalidRoleArn;

/// The right to one tenant's data. Only [`CredentialCache::of`] makes it, from a [`TenantContext`]; the clients of the table
/// and the bucket are built from it.
///
/// It stays good while its environment lives: what is renewed is what it signs with, so that a client and its connections are
/// built once, and a stream that outlasts its credentials goes on with the next. It is never another tenant's.
#[derive(Clone)]
pub struct TenantCredentials {
    tenant: TenantId,
    configuration: SdkConfig,
}

impl TenantCredentials {
    fn new(tenant: &TenantId, signer: &Signer, own: &SdkConfig) -> Self {
        let configuration = own
            .to_builder()
            .credentials_provider(SharedCredentialsProvider::new(signer.clone()))
            // The SDK would go on with what it has seen until that expires, and count on one clock only.
            .identity_cache(IdentityCache::no_cache())
            .build();
        Self {
            tenant: tenant.clone(),
            configuration,
        }
    }

    /// Whose data they open.
    pub const fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// What a client that acts for the tenant is built from.
    pub const fn configuration(&self) -> &SdkConfig {
        &self.configuration
    }
}

impl fmt::Debug for TenantCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TenantCredentials({})", self.tenant)
    }
}

/// The credentials of the one tenant that an isolated environment serves, and the clients `T` that act with them.
///
/// Their age is read off both clocks: an environment is frozen between calls, and its monotonic clock may be too.
pub struct CredentialCache<T> {
    inner: Arc<Inner<T>>,
    background: Background,
}

struct Inner<T> {
    sts: Client,
    role: RoleArn,
    own: SdkConfig,
    open: Box<dyn Fn(&TenantCredentials) -> T + Send + Sync>,
    clock: Clock,
    held: OnceLock<Arc<Held<T>>>,
}

/// What the environment has of its tenant.
struct Held<T> {
    credentials: TenantCredentials,
    signer: Signer,
    opened: OnceLock<Arc<T>>,
    /// Held by whoever asks STS, so that only one does.
    asking: tokio::sync::Mutex<()>,
}

impl<T: Send + Sync + 'static> CredentialCache<T> {
    /// A cache of what assuming `role` with the function's `own` credentials gives, and of what `open` builds for the
    /// tenant. What is renewed beside a call is waited for as `background` work.
    pub fn new(
        role: RoleArn,
        own: &SdkConfig,
        open: impl Fn(&TenantCredentials) -> T + Send + Sync + 'static,
        background: &Background,
        clock: Clock,
    ) -> Self {
        #[expect(clippy::disallowed_methods, reason = "the one client, which assumes the one role")]
        let sts = Client::new(own);
        Self {
            inner: Arc::new(Inner {
                sts,
                role,
                own: own.clone(),
                open: Box::new(open),
                clock,
                held: OnceLock::new(),
            }),
            background: background.clone(),
        }
    }

    /// The clients for the caller's tenant, with credentials that are good for [`ASSURED`] at least. A tenant's first call
    /// waits for them; later ones only if nobody called for most of an hour.
    ///
    /// # Errors
    /// [`Error::Isolation`] if the environment holds another tenant's, [`Error::Unavailable`] if they can't be had,
    /// [`Error::Internal`] if the role can't be assumed.
    pub async fn of(&self, context: &TenantContext) -> Result<Arc<T>, Error> {
        let held = self.inner.held(context)?;
        let left = held.signer.left(Moment::now(&self.inner.clock));
        if left < ASSURED {
            // The clients are built while STS is awaited.
            let (renewed, opened) = tokio::join!(self.inner.renew(held), async { self.inner.opened(held) });
            renewed?;
            return Ok(opened);
        }
        if left < RENEWAL {
            let (inner, held) = (Arc::clone(&self.inner), Arc::clone(held));
            self.background.spawn(async move {
                if let Err(error) = inner.renew(&held).await {
                    // Those that are there are good for a while yet. A later call tries again.
                    tracing::warn!(
                        "error.code" = error.code().as_str(),
                        "error.cause" = %error,
                        "credentials were not renewed"
                    );
                }
            });
        }
        Ok(self.inner.opened(held))
    }
}

impl<T> Inner<T> {
    /// What the environment has of the caller's tenant, perhaps without credentials yet.
    fn held(&self, context: &TenantContext) -> Result<&Arc<Held<T>>, Error> {
        let held = self.held.get_or_init(|| {
            let signer = Signer::default();
            Arc::new(Held {
                credentials: TenantCredentials::new(context.tenant(), &signer, &self.own),
                signer,
                opened: OnceLock::new(),
                asking: tokio::sync::Mutex::new(()),
            })
        });
        if held.credentials.tenant() == context.tenant() {
            Ok(held)
        } else {
            Err(Error::isolation("a second tenant reached the environment"))
        }
    }

    fn opened(&self, held: &Held<T>) -> Arc<T> {
        Arc::clone(held.opened.get_or_init(|| Arc::new((self.open)(&held.credentials))))
    }

    /// Asks STS, unless somebody else just did.
    async fn renew(&self, held: &Held<T>) -> Result<(), Error> {
        let _asking = held.asking.lock().await;
        if held.signer.left(Moment::now(&self.clock)) < RENEWAL {
            held.signer.set(self.assume(held.credentials.tenant()).await?);
        }
        Ok(())
    }

    async fn assume(&self, tenant: &TenantId) -> Result<Assumed, Error> {
        let tag = Tag::builder()
            .key(TAG)
            .value(tenant.as_str())
            .build()
            .map_err(Error::internal)?;
        // Their age counts from before they were made.
        let (since, now) = (Moment::now(&self.clock), self.clock.now());
        #[expect(
            clippy::disallowed_methods,
            reason = "the one role that is assumed, for the context's tenant"
        )]
        let call = self
            .sts
            .assume_role()
            .role_arn(&self.role.0)
            // CloudTrail has the tag only where the role was assumed, and this name with everything that was done since.
            // Every tenant's id is a valid one: 2 to 64 characters of a wider grammar.
            .role_session_name(tenant.as_str())
            .duration_seconds(i32::try_from(LIFETIME.as_secs()).map_err(Error::internal)?)
            .tags(tag);
        let answer = call.send().await.map_err(failed)?;
        let credentials = answer
            .credentials
            .ok_or_else(|| Error::internal("an assumed role without credentials"))?;
        let expiry = credentials.expiration.secs();
        // Never longer than was asked for, whatever the two machines' clocks say of each other.
        let given = u64::try_from(expiry.saturating_sub(now.as_unix())).unwrap_or_default();
        Ok(Assumed {
            since,
            lifetime: Duration::from_secs(given).min(LIFETIME),
            credentials: Credentials::new(
                credentials.access_key_id,
                credentials.secret_access_key,
                Some(credentials.session_token),
                UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(expiry).unwrap_or_default())),
                "AssumeRole",
            ),
        })
    }
}

/// What assuming the role gave.
struct Assumed {
    credentials: Credentials,
    since: Moment,
    lifetime: Duration,
}

/// What one tenant's clients sign with: the last credentials that were had for it, if any were.
#[derive(Clone, Default)]
struct Signer(Arc<Mutex<Option<Assumed>>>);

impl Signer {
    /// How long its credentials are still good for.
    fn left(&self, now: Moment) -> Duration {
        let assumed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        assumed.as_ref().map_or(Duration::ZERO, |assumed| {
            assumed.lifetime.saturating_sub(assumed.since.age(now))
        })
    }

    fn set(&self, assumed: Assumed) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(assumed);
    }
}

impl ProvideCredentials for Signer {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let assumed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        future::ProvideCredentials::ready(match assumed.as_ref() {
            Some(assumed) => Ok(assumed.credentials.clone()),
            None => Err(CredentialsError::not_loaded("no role was assumed yet")),
        })
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer")
    }
}

/// What a failed call is to the caller. A role that can't be assumed is a mistake of ours and not the client's.
fn failed<E>(error: SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    match error.code() {
        Some("AccessDenied" | "ValidationError" | "PackedPolicyTooLarge" | "RegionDisabledException") => {
            Error::internal(error)
        }
        _ => Error::Unavailable(Box::new(error)),
    }
}

#[cfg(test)]
mod tests;
