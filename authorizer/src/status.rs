//! Whether a tenant exists and may use the gateway, as the registry said a moment ago.
//!
//! This look keeps strangers from starting environments: those of isolated functions are limited in number, and an unknown
//! tenant's would be one more. It does not make a suspension prompt; the handlers' own look does.

use std::future::Future;
use std::time::Duration;

use bulkhead_core::error::Error;
use bulkhead_core::profile::TenantStatus;
use bulkhead_core::store::Registry;
use bulkhead_core::tenant::TenantId;
use bulkhead_core::time::{Clock, Moment};
use moka::future::Cache;

/// How many tenants are remembered at once. An entry is below 200 bytes.
const CAPACITY: u64 = 10_000;

/// How long one read may take, well within the function's own time: an authorizer that times out loses its environment.
const READ_TIMEOUT: Duration = Duration::from_secs(4);

/// Where statuses are read.
pub trait Directory: Send + Sync + 'static {
    /// A tenant's status; `None` if there is no such tenant.
    ///
    /// # Errors
    /// It can't be read now.
    fn status(&self, tenant: &TenantId) -> impl Future<Output = Result<Option<TenantStatus>, Error>> + Send;
}

impl Directory for Registry {
    async fn status(&self, tenant: &TenantId) -> Result<Option<TenantStatus>, Error> {
        Ok(self.profile(tenant).await?.map(|profile| profile.status))
    }
}

/// The statuses of tenants that were asked for lately. Only tenants that exist are remembered: one that was created a
/// moment ago is found at once, and names that somebody invents fill no memory.
pub struct StatusCache<D> {
    cache: Cache<TenantId, (Moment, TenantStatus)>,
    directory: D,
    max_age: Duration,
    clock: Clock,
}

impl<D: Directory> StatusCache<D> {
    /// An empty cache over `directory` whose entries live at most `max_age`.
    pub fn new(directory: D, max_age: Duration, clock: Clock) -> Self {
        Self {
            cache: Cache::builder().max_capacity(CAPACITY).build(),
            directory,
            max_age,
            clock,
        }
    }

    /// What it reads from.
    #[cfg(test)]
    pub(crate) fn directory(&self) -> &D {
        &self.directory
    }

    /// The tenant's status; `None` if there is no such tenant.
    ///
    /// # Errors
    /// It can't be read: an unreadable status is neither a good one nor a bad one, and the gateway would cache either.
    pub async fn status(&self, tenant: &TenantId) -> Result<Option<TenantStatus>, Error> {
        // The age counts from before the read: what it saw may be that old.
        let now = Moment::now(&self.clock);
        if let Some((at, status)) = self.cache.get(tenant).await
            && at.age(now) < self.max_age
        {
            return Ok(Some(status));
        }
        let status = tokio::time::timeout(READ_TIMEOUT, self.directory.status(tenant))
            .await
            .unwrap_or_else(|elapsed| Err(Error::Timeout(elapsed.into())))?;
        match status {
            Some(status) => self.cache.insert(tenant.clone(), (now, status)).await,
            None => self.cache.invalidate(tenant).await,
        }
        Ok(status)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use super::*;
    use crate::fixture::{self, FakeClock};

    /// A directory that counts its reads, and fails where a tenant's entry is `None`.
    #[derive(Default)]
    struct Tenants {
        statuses: Mutex<BTreeMap<String, Option<TenantStatus>>>,
        reads: Mutex<usize>,
    }

    impl Tenants {
        fn set(&self, tenant: &str, status: Option<TenantStatus>) {
            self.statuses.lock().unwrap().insert(tenant.to_owned(), status);
        }

        fn reads(&self) -> usize {
            std::mem::take(&mut *self.reads.lock().unwrap())
        }
    }

    impl Directory for Tenants {
        async fn status(&self, tenant: &TenantId) -> Result<Option<TenantStatus>, Error> {
            *self.reads.lock().unwrap() += 1;
            match self.statuses.lock().unwrap().get(tenant.as_str()) {
                None => Ok(None),
                Some(None) => Err(Error::Unavailable("down".into())),
                Some(status) => Ok(*status),
            }
        }
    }

    #[tokio::test]
    async fn a_status_is_trusted_for_its_age_and_no_longer() {
        let clock = FakeClock::at(fixture::NOW);
        let cache = StatusCache::new(Tenants::default(), Duration::from_secs(20), clock.clock());
        let acme = TenantId::parse("acme").unwrap();
        cache.directory.set("acme", Some(TenantStatus::Active));
        assert_eq!(cache.status(&acme).await.unwrap(), Some(TenantStatus::Active));
        cache.directory.set("acme", Some(TenantStatus::Suspended));
        clock.advance(Duration::from_secs(19));
        assert_eq!(cache.status(&acme).await.unwrap(), Some(TenantStatus::Active));
        assert_eq!(cache.directory.reads(), 1);
        clock.advance(Duration::from_secs(1));
        assert_eq!(cache.status(&acme).await.unwrap(), Some(TenantStatus::Suspended));
        cache.directory.statuses.lock().unwrap().clear();
        clock.advance(Duration::from_secs(20));
        assert_eq!(cache.status(&acme).await.unwrap(), None);
    }

    #[tokio::test]
    async fn unknown_tenants_and_failures_are_not_remembered() {
        let clock = FakeClock::at(fixture::NOW);
        let cache = StatusCache::new(Tenants::default(), Duration::from_secs(20), clock.clock());
        let acme = TenantId::parse("acme").unwrap();
        assert_eq!(cache.status(&acme).await.unwrap(), None);
        cache.directory.set("acme", None);
        assert!(cache.status(&acme).await.is_err());
        cache.directory.set("acme", Some(TenantStatus::Active));
        assert_eq!(cache.status(&acme).await.unwrap(), Some(TenantStatus::Active));
        assert_eq!(cache.directory.reads(), 3);
        // A failure beyond the age is a failure: no status is served stale.
        cache.directory.set("acme", None);
        clock.advance(Duration::from_secs(20));
        assert!(cache.status(&acme).await.is_err());
    }

    #[tokio::test]
    async fn tenants_do_not_share_a_status() {
        let cache = StatusCache::new(Tenants::default(), Duration::from_secs(20), Clock::system());
        cache.directory.set("acme", Some(TenantStatus::Active));
        cache.directory.set("acme-2", Some(TenantStatus::Suspended));
        let status = async |tenant: &str| cache.status(&TenantId::parse(tenant).unwrap()).await.unwrap();
        assert_eq!(status("acme").await, Some(TenantStatus::Active));
        assert_eq!(status("acme-2").await, Some(TenantStatus::Suspended));
        assert_eq!(status("acme-3").await, None);
    }
}
