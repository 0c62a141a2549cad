//! The result cache of REQUEST authorizers.
//!
//! A result is kept under its authorizer and the values of the identity sources, and nothing else: it serves every method
//! of the stage, whatever request brought it about. Denials are kept like permissions; errors never get here. Keys are
//! digests, so that no token stays in memory or shows in a listing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::authorizer::Grant;
use super::contract::Authorizer;

/// Introspection and flushing of the result cache.
#[derive(Debug)]
pub struct AuthorizerCache {
    capacity: usize,
    state: Mutex<State>,
}

/// One cached result, without what it was found under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedResult {
    /// The security scheme.
    pub authorizer: String,
    /// The principal that the authorizer named.
    pub principal: String,
    /// The flat context that the authorizer gave, stringified.
    pub context: BTreeMap<String, String>,
    /// For how long the result will still be used.
    pub remaining: Duration,
}

/// A digest of an authorizer's name and the values of its identity sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key([u8; 32]);

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<Key, Entry>,
    /// Keys by age. A key that was replaced stands here more than once; its generation tells which is current.
    order: VecDeque<(u64, Key)>,
    generation: u64,
}

#[derive(Debug)]
struct Entry {
    grant: Arc<Grant>,
    authorizer: String,
    until: Instant,
    generation: u64,
}

impl Key {
    /// The key of these values. Each is preceded by its length, so that no two lists of values look alike.
    pub(super) fn new(authorizer: &Authorizer, values: &[String]) -> Self {
        let mut digest = Sha256::new();
        for part in std::iter::once(&authorizer.name).chain(values) {
            digest.update(part.len().to_be_bytes());
            digest.update(part.as_bytes());
        }
        Self(digest.finalize().into())
    }
}

impl AuthorizerCache {
    /// An empty cache for at most `capacity` results; the oldest give way.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            state: Mutex::default(),
        }
    }

    pub(super) fn get(&self, key: Key, now: Instant) -> Option<Arc<Grant>> {
        let state = self.lock();
        let entry = state.entries.get(&key)?;
        (now < entry.until).then(|| Arc::clone(&entry.grant))
    }

    pub(super) fn insert(&self, key: Key, authorizer: &Authorizer, grant: Arc<Grant>, now: Instant) {
        let mut state = self.lock();
        state.generation += 1;
        let generation = state.generation;
        let entry = Entry {
            grant,
            authorizer: authorizer.name.clone(),
            until: now + authorizer.ttl,
            generation,
        };
        state.entries.insert(key, entry);
        state.order.push_back((generation, key));
        // The second bound keeps keys that are replaced over and over from piling up in the order.
        while state.entries.len() > self.capacity || state.order.len() > self.capacity.saturating_mul(2) {
            let Some((generation, oldest)) = state.order.pop_front() else {
                break;
            };
            if state
                .entries
                .get(&oldest)
                .is_some_and(|entry| entry.generation == generation)
            {
                state.entries.remove(&oldest);
            }
        }
    }

    /// Forgets every result.
    pub fn flush(&self) {
        *self.lock() = State::default();
    }

    /// How many results would still be used.
    pub fn len(&self) -> usize {
        self.results().len()
    }

    /// Whether no result would be used.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The results that would still be used.
    pub fn results(&self) -> Vec<CachedResult> {
        let now = Instant::now();
        let state = self.lock();
        state
            .entries
            .values()
            .filter(|entry| now < entry.until)
            .map(|entry| CachedResult {
                authorizer: entry.authorizer.clone(),
                principal: entry.grant.principal.clone(),
                context: entry.grant.context.clone(),
                remaining: entry.until.saturating_duration_since(now),
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock; a poisoned one still guards whole data.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::authorizer::tests::grant;

    fn authorizer(name: &str) -> Authorizer {
        Authorizer {
            name: name.to_owned(),
            function_arn: String::new(),
            identity: Vec::new(),
            ttl: Duration::from_secs(60),
        }
    }

    fn key(name: &str, values: &[&str]) -> Key {
        Key::new(
            &authorizer(name),
            &values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>(),
        )
    }

    #[test]
    fn a_result_lives_exactly_as_long_as_its_ttl() {
        let cache = AuthorizerCache::new(10);
        let start = Instant::now();
        cache.insert(key("t", &["a"]), &authorizer("t"), Arc::new(grant("one")), start);
        let at = |millis: u64| {
            cache
                .get(key("t", &["a"]), start + Duration::from_millis(millis))
                .is_some()
        };
        assert!(at(0) && at(59_999));
        assert!(!at(60_000) && !at(60_001));
    }

    #[test]
    fn keys_differ_by_authorizer_and_by_each_value() {
        let keys = [
            key("t", &["a"]),
            key("o", &["a"]),
            key("t", &["A"]),
            key("t", &["a", ""]),
            key("t", &["", "a"]),
            key("ta", &[]),
            key("t", &["a,b"]),
            key("t", &["a", "b"]),
        ];
        for (at, one) in keys.iter().enumerate() {
            assert!(keys.iter().skip(at + 1).all(|other| one != other));
        }
    }

    #[test]
    fn the_oldest_results_give_way() {
        let cache = AuthorizerCache::new(2);
        let now = Instant::now();
        for value in ["a", "b", "a", "c"] {
            cache.insert(key("t", &[value]), &authorizer("t"), Arc::new(grant(value)), now);
        }
        let there = |value: &str| cache.get(key("t", &[value]), now).is_some();
        assert!(there("a") && there("c") && !there("b"));
        for _ in 0..100 {
            cache.insert(key("t", &["a"]), &authorizer("t"), Arc::new(grant("a")), now);
        }
        assert!(cache.lock().order.len() <= 4);
        assert!(there("a"));
        cache.flush();
        assert!(cache.is_empty() && !there("a"));
    }
}
