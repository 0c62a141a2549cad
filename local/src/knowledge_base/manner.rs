//! The real service's bad manners, to be switched on by a test: for one tenant, so that tests can run side by side, or
//! for everybody.
//!
//! The tenant of a request is the one that its filter names, or else the one whose environment asks. A request with
//! neither has none, and only what is set for everybody applies to it.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use super::retrieval::Attributes;
use crate::event_stream::Pace;

/// Whom a manner concerns.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Every request.
    Everybody,
    /// Requests of this tenant.
    Tenant(String),
}

impl Scope {
    /// Requests of this tenant.
    #[must_use]
    pub fn tenant(tenant: impl Into<String>) -> Self {
        Self::Tenant(tenant.into())
    }

    pub(crate) fn covers(&self, tenant: Option<&str>) -> bool {
        match self {
            Self::Everybody => true,
            Self::Tenant(name) => Some(name.as_str()) == tenant,
        }
    }
}

/// How an injected passage shows in RetrieveAndGenerate's answer. In Retrieve's it is one more result in every case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// Its text is a part of the answer and it is cited there.
    Cited,
    /// Its text is a part of the answer whose list of references is empty.
    WithoutReference,
    /// Its text is in the answer and no citation covers it.
    Hidden,
    /// It is cited for a part of the answer that is not from it.
    CitedBesideOthers,
}

/// A passage from nowhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Injection {
    /// The text.
    pub text: String,
    /// The S3 URI that it claims to come from.
    pub uri: String,
    /// The attributes that it claims to have.
    pub attributes: Attributes,
    /// How it shows.
    pub usage: Usage,
}

#[derive(Default)]
struct State {
    ignoring_filter: BTreeSet<Scope>,
    injections: Vec<(Scope, usize, Injection)>,
    paces: Vec<(Scope, Pace)>,
    throttled: Vec<(Scope, u32)>,
    ended: BTreeSet<Scope>,
}

/// The switches. All take effect with the next request.
#[derive(Default)]
pub struct Manners {
    state: Mutex<State>,
}

impl Manners {
    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes retrieval ignore the filter (its form is still checked), or stops that.
    pub fn ignore_filter(&self, scope: Scope, ignore: bool) {
        self.with(|state| {
            if ignore {
                state.ignoring_filter.insert(scope)
            } else {
                state.ignoring_filter.remove(&scope)
            }
        });
    }

    /// Puts a passage into every answer, behind all others.
    pub fn inject(&self, scope: Scope, injection: Injection) {
        self.inject_at(scope, usize::MAX, injection);
    }

    /// Puts a passage into every answer, at this position among the passages (of Retrieve) or the parts (of
    /// RetrieveAndGenerate), from 0; behind all others where there are fewer.
    pub fn inject_at(&self, scope: Scope, position: usize, injection: Injection) {
        self.with(|state| state.injections.push((scope, position, injection)));
    }

    /// Makes the model of RetrieveAndGenerateStream speak at this pace; the newest that covers a request holds.
    pub fn speak(&self, scope: Scope, pace: Pace) {
        self.with(|state| state.paces.push((scope, pace)));
    }

    /// Answers the next requests with ThrottlingException. Counts attempts, so an SDK's retries use it up.
    pub fn throttle(&self, scope: Scope, requests: u32) {
        self.with(|state| state.throttled.push((scope, requests)));
    }

    /// Ends every session that is used in a request, as if its time were over. Sessions begun later are ended as well,
    /// until [`Manners::reset`].
    pub fn end_sessions(&self, scope: Scope) {
        self.with(|state| state.ended.insert(scope));
    }

    /// Good manners again, for exactly that scope.
    pub fn reset(&self, scope: &Scope) {
        self.with(|state| {
            state.ignoring_filter.remove(scope);
            state.ended.remove(scope);
            state.injections.retain(|(of, ..)| of != scope);
            state.paces.retain(|(of, _)| of != scope);
            state.throttled.retain(|(of, _)| of != scope);
        });
    }

    pub(super) fn ignores_filter(&self, tenant: Option<&str>) -> bool {
        self.with(|state| state.ignoring_filter.iter().any(|scope| scope.covers(tenant)))
    }

    pub(super) fn pace(&self, tenant: Option<&str>) -> Option<Pace> {
        self.with(|state| {
            let mut newest = state.paces.iter().rev();
            newest.find(|(scope, _)| scope.covers(tenant)).map(|(_, pace)| *pace)
        })
    }

    /// Passages with their positions.
    pub(super) fn injections(&self, tenant: Option<&str>) -> Vec<(usize, Injection)> {
        self.with(|state| {
            state
                .injections
                .iter()
                .filter(|(scope, ..)| scope.covers(tenant))
                .map(|(_, position, injection)| (*position, injection.clone()))
                .collect()
        })
    }

    pub(super) fn throttles(&self, tenant: Option<&str>) -> bool {
        self.with(|state| {
            let found = state
                .throttled
                .iter_mut()
                .find(|(scope, left)| *left > 0 && scope.covers(tenant));
            match found {
                Some((_, left)) => {
                    *left -= 1;
                    true
                }
                None => false,
            }
        })
    }

    pub(super) fn ends_sessions(&self, tenant: Option<&str>) -> bool {
        self.with(|state| state.ended.iter().any(|scope| scope.covers(tenant)))
    }
}
