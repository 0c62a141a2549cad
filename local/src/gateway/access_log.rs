//! What is remembered of every request. Never a header's value, a query or a body: no token gets here.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use time::OffsetDateTime;

/// One request and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLogEntry {
    /// `$context.requestId`, as the client got it in `x-amzn-RequestId`.
    pub request_id: String,
    /// When the request came in.
    pub received: OffsetDateTime,
    /// The method, after an override.
    pub method: String,
    /// The path as sent, stage included, without the query.
    pub path: String,
    /// The path template; `None` where there is none for the request.
    pub resource: Option<String>,
    /// The `operationId`.
    pub operation: Option<String>,
    /// The status that the client got.
    pub status: u16,
    /// The type of gateway response, where the gateway itself answered: `ACCESS_DENIED` and so on.
    pub response_type: Option<&'static str>,
    /// What the authorizer did; `None` where none was asked.
    pub authorizer: Option<AuthorizerLog>,
    /// The tenant that the function was called for; `None` where none was named, or no function was called.
    pub tenant: Option<String>,
    /// How long the integration took, of a streamed answer until its head; `None` where it was not reached.
    pub integration_latency: Option<Duration>,
    /// How long the whole request took, from its head to the answer, of a streamed one to its end.
    pub latency: Duration,
    /// How a streamed answer went; `None` for every other.
    pub stream: Option<StreamLog>,
}

/// A streamed answer, once it has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamLog {
    /// When the first byte of its body was passed on, from the request's head on; `None` if there was none.
    pub first_byte: Option<Duration>,
    /// Bytes of the body.
    pub bytes: u64,
    /// How it ended.
    pub end: StreamEnd,
}

/// How a streamed answer ended. All but the first cut the client's connection, as far as there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// The function came to its end.
    Complete,
    /// The client left, or the gateway was stopped.
    Abandoned,
    /// The integration's time was over.
    IntegrationTimeout,
    /// Nothing came for too long.
    Idle,
    /// The function failed, crashed or ran out of its time.
    FunctionFailed,
}

/// An authorizer's part in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizerLog {
    /// The security scheme.
    pub name: String,
    /// Whether the result came from the cache.
    pub cache_hit: bool,
    /// What the call took; zero where the function was not called.
    pub latency: Duration,
    /// The principal, where the authorizer named one.
    pub principal: Option<String>,
}

/// The latest requests.
#[derive(Debug)]
pub(super) struct AccessLog {
    capacity: usize,
    entries: Mutex<VecDeque<AccessLogEntry>>,
}

impl AccessLog {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            entries: Mutex::default(),
        }
    }

    pub(super) fn push(&self, entry: AccessLogEntry) {
        // Nothing panics while it holds the lock; a poisoned one still guards whole data.
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        while entries.len() >= self.capacity.max(1) {
            entries.pop_front();
        }
        entries.push_back(entry);
    }

    pub(super) fn entries(&self) -> Vec<AccessLogEntry> {
        self.entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }
}
