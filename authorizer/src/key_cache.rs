//! Keeps issuers' keys: fetched once, refreshed in time, kept through an issuer's outage, and never fetched as often as
//! somebody who invents key ids would like.
//!
//! | age of the keys | what a request does |
//! | --- | --- |
//! | up to half of `max_age` | uses them |
//! | up to `max_age` | one request refreshes them, the others go on using them |
//! | up to `max_stale` | waits for a refresh; if that fails, uses them: the issuer is down |
//! | beyond | waits for a refresh; if that fails, no token verifies |
//!
//! A key that left the issuer's set therefore stops working within `max_age`, or `max_stale` while the issuer answers
//! nothing. An unknown key id fetches the set anew, at most once in `cooldown`. Every fetch replaces the whole set, so a
//! flood of invented ids can't delay a real new key by more than that.
//!
//! There is no background: an environment is frozen between invocations, so a refresh happens inside a request that needs
//! it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bulkhead_core::telemetry::{self, Metric};
use bulkhead_core::time::{Clock, Moment};
use futures::future::join_all;
use moka::future::Cache;
use moka::ops::compute::{CompResult, Op};
use reqwest::{StatusCode, header, redirect};
use serde::Deserialize;
use url::Url;

use crate::issuer::{self, KeySource};
use crate::key::{KeySet, VerificationKey};
use crate::token::shown;

/// The largest document that is read from an issuer, in bytes. Real key sets are below 20 KB.
const MAX_DOCUMENT: usize = 512 * 1024;

/// The bounds that the cache keeps. What they promise stands in the threat model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How old keys may get while the issuer answers.
    pub max_age: Duration,
    /// How old keys may get while it does not. Less than `max_age` counts as that.
    pub max_stale: Duration,
    /// The least time between two fetches that nothing but an unknown key id or a failure asks for.
    pub cooldown: Duration,
    /// How long one fetch may take altogether.
    pub timeout: Duration,
}

/// The keys of all configured issuers.
pub struct KeyCache {
    cache: Cache<KeySource, Arc<Snapshot>>,
    /// Whether a fetch is under way, for every address there is.
    under_way: BTreeMap<KeySource, AtomicBool>,
    fetcher: Fetcher,
    limits: Limits,
    clock: Clock,
}

impl KeyCache {
    /// An empty cache for `sources`. Nothing is fetched yet.
    pub fn new(sources: impl IntoIterator<Item = KeySource>, limits: Limits, clock: Clock) -> Self {
        Self {
            // Without a capacity: its keys are the configured addresses. Ages are this module's, not moka's: they need
            // both clocks.
            cache: Cache::builder().build(),
            under_way: sources
                .into_iter()
                .map(|source| (source, AtomicBool::new(false)))
                .collect(),
            fetcher: Fetcher {
                client: OnceLock::new(),
                timeout: limits.timeout,
            },
            limits,
            clock,
        }
    }

    /// Fetches the keys of every issuer at once, so that the first request finds them. A failure is forgotten: that
    /// request tries again.
    pub async fn warm(&self) {
        join_all(self.under_way.keys().map(|source| async move {
            if self
                .refresh(source, |_| false)
                .await
                .is_some_and(|snapshot| snapshot.failed)
            {
                self.cache.invalidate(source).await;
            }
        }))
        .await;
    }

    /// The key `id` of `source`; `None` if there is none that may be used.
    pub async fn find(&self, source: &KeySource, id: &str) -> Option<Arc<VerificationKey>> {
        let snapshot = self.current(source).await?;
        if let Some(key) = self.usable(&snapshot, id) {
            return Some(key);
        }
        if !self.rested(&snapshot) && !self.is_under_way(source) {
            return None;
        }
        let snapshot = self.refresh(source, |snapshot| self.rested(snapshot)).await?;
        self.usable(&snapshot, id)
    }

    /// What is known of `source`, after a refresh if its age asks for one.
    async fn current(&self, source: &KeySource) -> Option<Arc<Snapshot>> {
        let due = |snapshot: &Snapshot| match snapshot.age(self.now()) {
            Some(age) => age > self.limits.max_age / 2 && (!snapshot.failed || self.rested(snapshot)),
            None => self.rested(snapshot),
        };
        if let Some(snapshot) = self.cache.get(source).await {
            let known_outage = snapshot.failed && snapshot.tried.age(self.now()) <= self.limits.max_age;
            let age = snapshot.age(self.now());
            let good = age.is_some_and(|age| age <= self.limits.max_age || known_outage);
            if !due(&snapshot) || (good && self.is_under_way(source)) {
                return Some(snapshot);
            }
        }
        self.refresh(source, due).await
    }

    /// Fetches `source` if `due` says so of what is known by then. Calls for one address run one after another, so those
    /// that waited find what the first one brought.
    async fn refresh(&self, source: &KeySource, due: impl Fn(&Snapshot) -> bool) -> Option<Arc<Snapshot>> {
        let due = &due;
        let result = self
            .cache
            .entry_by_ref(source)
            .and_compute_with(|entry| async move {
                let before = entry.map(moka::Entry::into_value);
                if before.as_deref().is_some_and(|snapshot| !due(snapshot)) {
                    return Op::Nop;
                }
                let _flag = self.under_way.get(source).map(Flag::raise);
                Op::Put(Arc::new(self.attempt(source, before.as_deref()).await))
            })
            .await;
        match result {
            CompResult::Inserted(entry) | CompResult::ReplacedWith(entry) | CompResult::Unchanged(entry) => {
                Some(entry.into_value())
            }
            CompResult::StillNone(_) | CompResult::Removed(_) => None,
        }
    }

    async fn attempt(&self, source: &KeySource, before: Option<&Snapshot>) -> Snapshot {
        // Both ages count from before the fetch: what it brings may be that old.
        let tried = self.now();
        let key_set = before.and_then(|before| before.key_set.as_ref());
        match self.fetcher.key_set(source, key_set.map(|key_set| &key_set.url)).await {
            Ok((url, keys)) => {
                if !keys.ambiguous.is_empty() {
                    telemetry::count(Metric::DuplicateKeyId, &self.clock);
                    let ids = keys.ambiguous.iter().map(|id| shown(id)).collect::<Vec<_>>().join(" ");
                    tracing::warn!("keys.source" = %source, "key.ids" = ids, "keys that share an id are not used");
                }
                tracing::info!("keys.source" = %source, usable = keys.len(), skipped = keys.skipped, "keys fetched");
                Snapshot {
                    key_set: Some(Arc::new(Fetched { keys, url, at: tried })),
                    tried,
                    failed: false,
                }
            }
            Err(error) => {
                let kept = key_set.map_or(0, |key_set| key_set.keys.len());
                tracing::warn!("keys.source" = %source, "error.cause" = %error, kept, "keys could not be fetched");
                Snapshot {
                    key_set: key_set.cloned(),
                    tried,
                    failed: true,
                }
            }
        }
    }

    fn usable(&self, snapshot: &Snapshot, id: &str) -> Option<Arc<VerificationKey>> {
        let key_set = snapshot.key_set.as_ref()?;
        let bound = self.limits.max_stale.max(self.limits.max_age);
        (key_set.at.age(self.now()) <= bound).then(|| key_set.keys.find(id))?
    }

    fn rested(&self, snapshot: &Snapshot) -> bool {
        snapshot.tried.age(self.now()) >= self.limits.cooldown
    }

    fn is_under_way(&self, source: &KeySource) -> bool {
        self.under_way
            .get(source)
            .is_some_and(|flag| flag.load(Ordering::Acquire))
    }

    fn now(&self) -> Moment {
        Moment::now(&self.clock)
    }
}

/// Raised while a fetch runs, lowered also when its request is dropped.
struct Flag<'a>(&'a AtomicBool);

impl<'a> Flag<'a> {
    fn raise(flag: &'a AtomicBool) -> Self {
        flag.store(true, Ordering::Release);
        Self(flag)
    }
}

impl Drop for Flag<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// What is known of one address.
struct Snapshot {
    /// The last good set, if there ever was one.
    key_set: Option<Arc<Fetched>>,
    /// When it was last asked.
    tried: Moment,
    /// Whether that failed.
    failed: bool,
}

impl Snapshot {
    fn age(&self, now: Moment) -> Option<Duration> {
        self.key_set.as_ref().map(|key_set| key_set.at.age(now))
    }
}

struct Fetched {
    keys: KeySet,
    /// Where the set was found, so that a refresh need not discover it again.
    url: Url,
    at: Moment,
}

/// Why a fetch brought nothing.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("no answer in time")]
    Timeout,
    #[error("{0}")]
    Http(#[from] reqwest::Error),
    #[error("status {0} instead of 200")]
    Status(StatusCode),
    #[error("more than {MAX_DOCUMENT} bytes")]
    TooLarge,
    #[error("not a key set")]
    NotAKeySet,
    #[error("no usable key among {0}")]
    NoUsableKey(usize),
    #[error("not the issuer's discovery document")]
    Discovery,
}

/// Reads documents from issuers' addresses.
struct Fetcher {
    /// Built when first used: it loads the machine's root certificates, which a cold start should do beside other work.
    client: OnceLock<reqwest::Client>,
    timeout: Duration,
}

/// What we need of a discovery document (OpenID Connect Discovery 1.0, section 3).
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl Fetcher {
    /// The keys of `source` and where they were found; `known` is where they were found before.
    async fn key_set(&self, source: &KeySource, known: Option<&Url>) -> Result<(Url, KeySet), FetchError> {
        let fetch = async {
            match (source, known) {
                (KeySource::Jwks(url), _) => Ok((url.clone(), self.keys_at(url).await?)),
                (KeySource::Discovery(issuer), None) => self.discover(issuer).await,
                (KeySource::Discovery(issuer), Some(known)) => match self.keys_at(known).await {
                    Ok(keys) => Ok((known.clone(), keys)),
                    // The issuer may have moved its keys.
                    Err(_) => self.discover(issuer).await,
                },
            }
        };
        tokio::time::timeout(self.timeout, fetch)
            .await
            .map_err(|_| FetchError::Timeout)?
    }

    async fn discover(&self, issuer: &str) -> Result<(Url, KeySet), FetchError> {
        let base = Url::parse(issuer).map_err(|_| FetchError::Discovery)?;
        let address = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let document = self
            .document(&Url::parse(&address).map_err(|_| FetchError::Discovery)?)
            .await?;
        let document: Discovery = serde_json::from_slice(&document).map_err(|_| FetchError::Discovery)?;
        // A document that names another issuer belongs to one; its keys are not this issuer's (section 4.3).
        if document.issuer != issuer {
            return Err(FetchError::Discovery);
        }
        let url = issuer::address_beside(&base, &document.jwks_uri).ok_or(FetchError::Discovery)?;
        let keys = self.keys_at(&url).await?;
        Ok((url, keys))
    }

    async fn keys_at(&self, url: &Url) -> Result<KeySet, FetchError> {
        let keys = KeySet::parse(&self.document(url).await?).ok_or(FetchError::NotAKeySet)?;
        // Taken as a success, an empty set would throw every good key away at a slip of the issuer's.
        if keys.is_empty() {
            Err(FetchError::NoUsableKey(keys.skipped + keys.ambiguous.len()))
        } else {
            Ok(keys)
        }
    }

    async fn document(&self, url: &Url) -> Result<Vec<u8>, FetchError> {
        let client = match self.client.get() {
            Some(client) => client,
            None => {
                let client = self.build()?;
                self.client.get_or_init(|| client)
            }
        };
        let mut response = client
            .get(url.clone())
            .header(header::ACCEPT, "application/json")
            .send()
            .await?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > MAX_DOCUMENT {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn build(&self) -> Result<reqwest::Client, FetchError> {
        Ok(reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .no_proxy()
            .timeout(self.timeout)
            // Minutes lie between two fetches, and a connection that was open when the environment froze is a dead one.
            .pool_max_idle_per_host(0)
            .user_agent("bulkhead")
            .build()?)
    }
}

#[cfg(test)]
mod tests;
