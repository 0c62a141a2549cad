//! A tenant's profile: whether it may use the gateway at all, its plan, its groups, what its documents can be told apart by.
//!
//! The control plane writes it; isolated functions and the authorizer read it through [`crate::store::Registry`].

use std::sync::Mutex;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::attribute::{Attribute, AttributeKind, AttributeName};
use crate::error::Error;
use crate::plan::STANDARD;
use crate::store::Registry;
use crate::tenant::{Group, TenantContext, TenantId};
use crate::time::{Clock, Moment, Timestamp};

/// The most groups that a profile declares: the retrieval filter holds one leaf for each, beside `*`, and a group of the
/// filter takes at most five (<https://docs.aws.amazon.com/bedrock/latest/APIReference/API_agent-runtime_RetrievalFilter.html>).
pub const MAX_GROUPS: usize = 4;

/// The longest that a profile may be trusted without another look: with the gateway's result cache it bounds how long a
/// suspended tenant is served.
pub const MAX_STATUS_AGE_SECS: u64 = 20;

/// Whether a tenant may use the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TenantStatus {
    /// It may.
    Active,
    /// An operator stopped it; nothing of it is lost.
    Suspended,
}

/// A tenant's profile: the item, and the body that clients see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Whose it is.
    pub tenant: TenantId,
    /// Whether it may use the gateway.
    pub status: TenantStatus,
    /// The name of its plan.
    pub plan: String,
    /// The groups that its documents' audiences may name, at most [`MAX_GROUPS`].
    pub groups: Vec<Group>,
    /// The attributes that its documents can have, at most [`crate::attribute::MAX_ATTRIBUTES`], each name once.
    #[serde(default)]
    pub attributes: Vec<Attribute>,
    /// Whether the turns of its users' conversations are kept.
    #[serde(default = "kept")]
    pub transcripts: bool,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Counts its changes.
    pub version: u64,
}

impl Profile {
    /// A new, active tenant's, of the standard plan, without attributes; its transcripts are kept.
    pub fn new(tenant: TenantId, groups: Vec<Group>, now: Timestamp) -> Self {
        Self {
            tenant,
            status: TenantStatus::Active,
            plan: STANDARD.to_owned(),
            groups,
            attributes: Vec::new(),
            transcripts: kept(),
            created_at: now,
            updated_at: now,
            version: 1,
        }
    }

    /// The shared owner's, which no item holds: it always exists and can't be suspended.
    pub fn shared() -> Self {
        Self::new(TenantId::shared(), Vec::new(), Timestamp::from_unix(0))
    }

    /// What the values of the attribute `name` are, if it is declared.
    pub fn attribute(&self, name: &AttributeName) -> Option<AttributeKind> {
        self.attributes
            .iter()
            .find(|attribute| attribute.name == *name)
            .map(|attribute| attribute.kind)
    }
}

/// Transcripts are kept unless an operator said otherwise; profiles that are older than the question did not say.
const fn kept() -> bool {
    true
}

/// The profile of the one tenant that an isolated environment serves, never older than its bound.
///
/// The gateway's and the authorizer's caches add up, so neither makes a suspension prompt; this look does. An environment is
/// frozen between calls, and its monotonic clock may be too.
pub struct ProfileCache {
    registry: Registry,
    max_age: Duration,
    clock: Clock,
    seen: Mutex<Option<(Moment, Profile)>>,
}

impl ProfileCache {
    /// A cache over `registry` whose entries live at most `max_age`.
    pub fn new(registry: Registry, max_age: Duration, clock: Clock) -> Self {
        Self {
            registry,
            max_age,
            clock,
            seen: Mutex::new(None),
        }
    }

    /// The profile of the caller's tenant, if it may use the gateway.
    ///
    /// # Errors
    /// [`Error::TenantUnknown`], [`Error::TenantSuspended`], or [`Error::Unavailable`] if it can't be read: an unreadable
    /// status is not a good one.
    pub async fn active(&self, context: &TenantContext) -> Result<Profile, Error> {
        // The age counts from before the read: what it saw may be that old.
        let asked = Moment::now(&self.clock);
        let profile = match self.fresh(context.tenant(), asked) {
            Some(profile) => profile,
            None => {
                let profile = self
                    .registry
                    .profile(context.tenant())
                    .await?
                    .ok_or(Error::TenantUnknown)?;
                if let Ok(mut seen) = self.seen.lock() {
                    *seen = Some((asked, profile.clone()));
                }
                profile
            }
        };
        match profile.status {
            TenantStatus::Active => Ok(profile),
            TenantStatus::Suspended => Err(Error::TenantSuspended),
        }
    }

    fn fresh(&self, tenant: &TenantId, now: Moment) -> Option<Profile> {
        let seen = self.seen.lock().ok()?;
        let (at, profile) = seen.as_ref()?;
        (at.age(now) < self.max_age && profile.tenant == *tenant).then(|| profile.clone())
    }
}
