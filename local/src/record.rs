//! What was asked of the fakes of AWS: one record per request, in the order of arrival of the answers.
//!
//! Tests read here what left the functions: which tenant's environment named which key. The newest records are kept, a
//! bounded number of them. Secrets are not here: no signature, no key, no token.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use time::OffsetDateTime;

use crate::credential::Caller;
use crate::policy::StatementName;

/// A service of AWS, by the name in the credential scope of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// `s3`.
    S3,
    /// `dynamodb`.
    DynamoDb,
    /// `bedrock`: the agents' build-time and run-time operations and the models'; one signing name serves all of them.
    Bedrock,
    /// `sts`.
    Sts,
    /// `ssm`: Systems Manager, of which there is Parameter Store.
    Ssm,
}

impl Service {
    /// The signing name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::DynamoDb => "dynamodb",
            Self::Bedrock => "bedrock",
            Self::Sts => "sts",
            Self::Ssm => "ssm",
        }
    }

    /// The service of that signing name.
    #[must_use]
    pub fn from_scope(name: &str) -> Option<Self> {
        [Self::S3, Self::DynamoDb, Self::Bedrock, Self::Sts, Self::Ssm]
            .into_iter()
            .find(|service| service.as_str() == name)
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The partitions of one table that a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableKeys {
    /// The table.
    pub table: String,
    /// The values of the partition key, in the request's order, without duplicates. Empty when the request names none that
    /// could be found, which whoever decides on it has to take for "any".
    pub leading_keys: Vec<String>,
}

/// What a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// Nothing that could be told from the request.
    None,
    /// A bucket, or the part of it whose keys begin with a prefix.
    Bucket {
        /// The bucket.
        bucket: String,
        /// The prefix of a listing.
        prefix: Option<String>,
    },
    /// Objects of a bucket.
    Objects {
        /// The bucket.
        bucket: String,
        /// The keys, exactly as they were named.
        keys: Vec<String>,
        /// Where a copy is taken from: bucket and key.
        source: Option<(String, String)>,
    },
    /// Items of tables.
    Items(Vec<TableKeys>),
    /// A path of a REST service, without its query.
    Path(String),
    /// A role, by its ARN.
    Role(String),
    /// A parameter, by its name.
    Parameter(String),
}

impl Resource {
    /// Every key, prefix or path that is named.
    pub fn names(&self) -> Vec<&str> {
        match self {
            Self::None => Vec::new(),
            Self::Bucket { prefix, .. } => prefix.iter().map(String::as_str).collect(),
            Self::Objects { keys, source, .. } => keys
                .iter()
                .map(String::as_str)
                .chain(source.iter().map(|(_, key)| key.as_str()))
                .collect(),
            Self::Items(tables) => tables
                .iter()
                .flat_map(|table| table.leading_keys.iter().map(String::as_str))
                .collect(),
            Self::Path(name) | Self::Role(name) | Self::Parameter(name) => vec![name],
        }
    }
}

/// One request and what became of it.
#[derive(Debug, Clone)]
pub struct Call {
    /// When it was answered.
    pub at: OffsetDateTime,
    /// Who asked, or `None` where the signature did not verify.
    pub caller: Option<Caller>,
    /// The service that was asked.
    pub service: Service,
    /// The operation by AWS's name (`GetItem`), or method and path where it has none here.
    pub operation: String,
    /// What it is about.
    pub resource: Resource,
    /// The JSON body of a JSON service (`null` above 64 KiB or where it is none), the query and the `x-amz-*` headers of S3.
    pub request: serde_json::Value,
    /// The HTTP status of the answer, or `None` where the connection was cut instead.
    pub status: Option<u16>,
    /// The policies' statements that allowed it, or that denied it; none where nothing allowed it, and none for an
    /// administrator.
    pub decided_by: Vec<StatementName>,
    /// Whether an injected fault answered, delayed or cut it.
    pub faulted: bool,
    /// Whether it reached its service, whatever that made of it.
    pub carried_out: bool,
    /// How far the answer has come, if it is a stream. [`Call::at`] is when it began.
    pub stream: Option<Streamed>,
}

/// A streamed answer, so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Streamed {
    /// Events that went out.
    pub events: usize,
    /// When the first of them did.
    pub first: Option<OffsetDateTime>,
    /// When and how it ended, or `None` while it has not.
    pub ended: Option<(OffsetDateTime, StreamEnd)>,
}

/// How a streamed answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamEnd {
    /// With its last event.
    Complete,
    /// By an injected fault.
    Faulted,
    /// Before its last event, because the client left, or the door was closed.
    Abandoned,
}

/// Calls, of which the newest are kept.
#[derive(Debug, Default)]
struct Calls {
    /// How many there have been.
    pushed: u64,
    kept: VecDeque<Call>,
}

/// The records. Clones share them.
#[derive(Debug, Clone)]
pub struct Recorder {
    calls: Arc<Mutex<Calls>>,
    capacity: usize,
}

/// Where one streamed answer's progress is noted.
pub(crate) struct StreamRecord {
    recorder: Recorder,
    number: u64,
}

impl StreamRecord {
    /// Another event went out.
    pub(crate) fn sent(&self) {
        self.change(|stream| {
            stream.events += 1;
            stream.first.get_or_insert_with(OffsetDateTime::now_utc);
        });
    }

    /// No more events go out.
    pub(crate) fn ended(&self, end: StreamEnd) {
        self.change(|stream| stream.ended = Some((OffsetDateTime::now_utc(), end)));
    }

    fn change(&self, change: impl FnOnce(&mut Streamed)) {
        let mut calls = self.recorder.lock();
        // Forgotten already, it is not among those that are kept.
        let forgotten = calls.pushed - calls.kept.len() as u64;
        let call = self
            .number
            .checked_sub(forgotten)
            .and_then(|at| usize::try_from(at).ok())
            .and_then(|at| calls.kept.get_mut(at));
        if let Some(stream) = call.and_then(|call| call.stream.as_mut()) {
            change(stream);
        }
    }
}

impl Recorder {
    /// None yet; the newest `capacity` will be kept.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            calls: Arc::default(),
            capacity,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a call; what comes back notes the progress of its answer, if that is a stream.
    pub(crate) fn push(&self, call: Call) -> StreamRecord {
        let mut calls = self.lock();
        let number = calls.pushed;
        calls.pushed += 1;
        calls.kept.push_back(call);
        while calls.kept.len() > self.capacity {
            calls.kept.pop_front();
        }
        StreamRecord {
            recorder: self.clone(),
            number,
        }
    }

    /// All that are kept, oldest first.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.lock().kept.iter().cloned().collect()
    }

    /// Those that were asked by this tenant's environments, oldest first.
    #[must_use]
    pub fn calls_of(&self, tenant: &str) -> Vec<Call> {
        let mut calls = self.calls();
        calls.retain(|call| {
            call.caller
                .as_ref()
                .is_some_and(|caller| caller.tenant.as_deref() == Some(tenant))
        });
        calls
    }

    /// Forgets all.
    pub fn clear(&self) {
        self.lock().kept.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(operation: &str, tenant: Option<&str>) -> Call {
        Call {
            at: OffsetDateTime::UNIX_EPOCH,
            caller: Some(Caller {
                principal: "F".to_owned(),
                tenant: tenant.map(str::to_owned),
                ..Caller::default()
            }),
            service: Service::S3,
            operation: operation.to_owned(),
            resource: Resource::None,
            request: serde_json::Value::Null,
            status: Some(200),
            decided_by: Vec::new(),
            faulted: false,
            carried_out: true,
            stream: None,
        }
    }

    #[test]
    fn the_newest_records_are_kept() {
        let recorder = Recorder::new(2);
        for operation in ["a", "b", "c"] {
            recorder.push(call(operation, None));
        }
        let kept: Vec<_> = recorder.calls().into_iter().map(|call| call.operation).collect();
        assert_eq!(kept, ["b", "c"]);
    }

    #[test]
    fn a_stream_is_noted_as_long_as_its_record_is_kept() {
        let recorder = Recorder::new(2);
        let streamed = |operation| {
            recorder.push(Call {
                stream: Some(Streamed::default()),
                ..call(operation, None)
            })
        };
        let (first, second) = (streamed("a"), streamed("b"));
        recorder.push(call("c", None));
        for record in [&first, &second] {
            record.sent();
            record.sent();
            record.ended(StreamEnd::Complete);
        }
        let streams: Vec<_> = recorder.calls().into_iter().map(|call| call.stream).collect();
        let [Some(noted), None] = streams.as_slice() else {
            panic!("{streams:?}")
        };
        assert_eq!(
            (noted.events, noted.ended.map(|(_, end)| end)),
            (2, Some(StreamEnd::Complete))
        );

        recorder.clear();
        recorder.push(Call {
            stream: Some(Streamed::default()),
            ..call("d", None)
        });
        second.sent();
        assert_eq!(recorder.calls()[0].stream, Some(Streamed::default()));
    }

    #[test]
    fn calls_are_found_by_tenant() {
        let recorder = Recorder::new(9);
        recorder.push(call("a", Some("acme")));
        recorder.push(call("b", Some("acme-2")));
        recorder.push(call("c", None));
        assert_eq!(recorder.calls_of("acme").len(), 1);
    }

    #[test]
    fn a_service_is_known_by_its_signing_name() {
        assert_eq!(Service::from_scope("dynamodb"), Some(Service::DynamoDb));
        assert_eq!(Service::from_scope("sts"), Some(Service::Sts));
        assert_eq!(Service::from_scope("iam"), None);
    }
}
