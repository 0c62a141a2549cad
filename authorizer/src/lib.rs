//! Who asks: the Lambda REQUEST authorizer that turns a bearer token into a policy and a tenant context.
//!
//! Its three kinds of answer are API Gateway's
//! (<https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-use-lambda-authorizer.html>):
//!
//! * the error `Unauthorized` (401) for whatever does not verify, whatever the reason;
//! * a policy: an Allow, or a Deny with a code (403) for who is known and may not. The gateway caches both;
//! * any other error (500) if we could not find out. Nothing caches it.
//!
//! The tenant id comes from a verified claim here and from nowhere else in the product.

pub mod caller;
pub mod config;
pub mod event;
#[cfg(test)]
mod fixture;
pub mod issuer;
mod json;
pub mod key;
pub mod key_cache;
pub mod policy;
pub mod status;
pub mod token;

use bulkhead_core::error::Code;
use bulkhead_core::profile::TenantStatus;
use bulkhead_core::telemetry::{self, Metric};
use bulkhead_core::time::Clock;
use lambda_runtime::Diagnostic;

use crate::caller::{Caller, Denial};
use crate::config::Config;
use crate::event::Event;
use crate::issuer::Issuers;
use crate::key_cache::KeyCache;
use crate::policy::{Answer, Stage};
use crate::status::{Directory, StatusCache};
use crate::token::{Refusal, UnverifiedToken, digest, shown};

/// Why there is no policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The token does not verify. API Gateway makes a 401 of exactly this text, and a 500 of any other.
    #[error("Unauthorized")]
    Unauthorized,
    /// The tenant's status can't be read for now. A Deny would be cached, so this must not be one.
    #[error("Unavailable")]
    Unavailable,
    /// The event is none that API Gateway sends.
    #[error("Malformed event")]
    Event,
}

impl From<Failure> for Diagnostic {
    fn from(failure: Failure) -> Self {
        Self {
            error_type: failure.to_string(),
            error_message: failure.to_string(),
        }
    }
}

/// What the function keeps between invocations.
pub struct State<D> {
    issuers: Issuers,
    keys: KeyCache,
    statuses: StatusCache<D>,
    clock: Clock,
}

impl<D: Directory> State<D> {
    /// Builds the state; the issuers' keys are on their way while `directory` is built. An issuer that is down delays the
    /// start by the time that a fetch may take, and nothing else.
    pub async fn start(config: Config, directory: impl Future<Output = D>, clock: Clock) -> Self {
        let keys = KeyCache::new(config.issuers.key_sources(), config.key_limits, clock.clone());
        let ((), directory) = tokio::join!(keys.warm(), directory);
        Self {
            keys,
            statuses: StatusCache::new(directory, config.status_max_age, clock.clone()),
            issuers: config.issuers,
            clock,
        }
    }

    /// Answers one request.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn handle(&self, event: &Event) -> Result<Answer, Failure> {
        let outcome = self.identify(event).await.map_err(|refusal| {
            log_refusal(event, refusal);
            Failure::Unauthorized
        })?;
        let stage = Stage::parse(event.method_arn()).ok_or_else(|| {
            telemetry::count(Metric::AuthorizerError, &self.clock);
            tracing::error!("event.method_arn" = shown(event.method_arn()), "not a method's ARN");
            Failure::Event
        })?;
        let caller = match outcome {
            Ok(caller) => caller,
            Err(denial) => return Ok(deny(&stage, &denial)),
        };
        let code = if caller.tenant.is_shared() {
            // The owner of the shared documents is nobody's tenant: it always exists and can't be suspended.
            None
        } else {
            match self.statuses.status(&caller.tenant).await {
                Ok(Some(TenantStatus::Active)) => None,
                Ok(Some(TenantStatus::Suspended)) => Some(Code::TenantSuspended),
                Ok(None) => Some(Code::TenantUnknown),
                Err(error) => {
                    telemetry::count(Metric::AuthorizerError, &self.clock);
                    tracing::error!("error.code" = error.code().as_str(), "error.cause" = %error, "status unreadable");
                    return Err(Failure::Unavailable);
                }
            }
        };
        if let Some(code) = code {
            return Ok(deny(
                &stage,
                &Denial {
                    user: caller.user,
                    code,
                },
            ));
        }
        tracing::info!("tenant.id" = %caller.tenant, "user.id" = %caller.user, "authorized");
        Ok(Answer::allow(&stage, &caller))
    }

    /// Whose token it is; the inner error is somebody who is known and may do nothing.
    async fn identify(&self, event: &Event) -> Result<Result<Caller, Denial>, Refusal> {
        let token = UnverifiedToken::parse(event.token()?)?;
        let issuer = token
            .issuer()
            .and_then(|name| self.issuers.find(name))
            .ok_or(Refusal::IssuerUnknown)?;
        let key = self
            .keys
            .find(&issuer.keys, token.key_id())
            .await
            .ok_or(Refusal::KeyUnknown)?;
        let claims = token.verify(issuer, &key, self.clock.now())?;
        Ok(Caller::identify(issuer, &claims))
    }
}

fn deny(stage: &Stage, denial: &Denial) -> Answer {
    tracing::info!("user.id" = %denial.user, "error.code" = denial.code.as_str(), "denied");
    Answer::deny(stage, &denial.user, denial.code)
}

/// Logs why a token was refused. The client is told nothing of it, and the log nothing of the token but what it claimed
/// to be.
fn log_refusal(event: &Event, refusal: Refusal) {
    let text = event.token().unwrap_or_default();
    let token = UnverifiedToken::parse(text).ok();
    let issuer = token.as_ref().and_then(UnverifiedToken::issuer).map(shown);
    let key = token.as_ref().map(|token| shown(token.key_id()));
    tracing::info!(
        "refusal.reason" = %refusal,
        "token.digest" = digest(text),
        "token.issuer" = issuer,
        "key.id" = key,
        "refused"
    );
}

#[cfg(test)]
mod tests;
