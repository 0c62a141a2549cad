//! AWS Lambda on one machine: the Runtime API, spoken to the real function binaries.
//!
//! A process is an execution environment: it gets only the environment variables that AWS would give it, one event at a
//! time, and its listener for the Runtime API is its own. Where the template says `PER_TENANT`, a process serves the
//! tenant of its first event and no other, which is not a check but the shape of the thing: processes take events from
//! the queue of one (function, tenant) pair.
//!
//! What AWS makes of a crash, a time-out, a failed start, an answer that is too large or a wrong tenant id is made of it
//! here too; [`Lambda::processes`] and [`Lambda::logs`] show what happened.
//!
//! A streamed response goes to its reader piece by piece. Whether a function that streams hears of a reader who has gone is
//! not documented beyond that Lambda doesn't stop it, so the stack does both ([`Departure`]).
//!
//! Not here: asynchronous invocation, versions and aliases, extensions, freezing between events, the size (200 MB) and
//! rate (2 MB/s after the first 6 MB) of a streamed response, and who may invoke (IAM).

mod connection;
mod log;
mod pool;
mod process;
mod runtime_api;
mod stream;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use time::OffsetDateTime;
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use crate::credential::IssuedCredential;
use crate::template::{Function, LogicalId};
use log::Log;
pub use log::{LogLine, LogStream};
use pool::{Job, Pool, Reply};
pub use stream::{ResponseStream, StreamError};

/// The largest event of a synchronous invocation, in bytes.
/// Source: AWS Lambda Developer Guide, "Lambda quotas": 6 MB each for request and response.
pub const MAX_EVENT_BYTES: usize = 6_291_456;

/// The largest buffered response, in bytes: what Lambda's own error message names, 100 bytes more than the event's.
pub const MAX_RESPONSE_BYTES: usize = 6_291_556;

/// All environment variables of a function together, names and values, in bytes.
/// Source: AWS Lambda Developer Guide, "Lambda quotas".
pub const MAX_ENVIRONMENT_BYTES: usize = 4_096;

/// Issues the credentials of a process that is about to start: for this function and, where it is isolated, this tenant.
pub type CredentialSource = Arc<dyn Fn(&Function, Option<&str>) -> IssuedCredential + Send + Sync>;

/// How the emulator runs functions.
#[derive(Clone)]
pub struct Settings {
    /// The folder that holds the binaries, each named as its function's package.
    pub binaries: PathBuf,
    /// `AWS_REGION` of the processes.
    pub region: String,
    /// `AWS_ENDPOINT_URL` of the processes: the one door to the other emulators.
    pub endpoint_url: Option<String>,
    /// Where processes get their credentials from.
    pub credentials: CredentialSource,
    /// The most processes of one function for one tenant (4).
    pub processes_per_tenant: usize,
    /// The most processes of one function that is not isolated by tenant (8).
    pub processes_per_function: usize,
    /// How many events may wait for a process of one pool before the next is refused (1,000). AWS would start more
    /// environments; one machine can't.
    pub waiting: usize,
    /// How long a process may be without an event before it is ended (5 minutes).
    pub idle: Duration,
    /// How long a process may take from its start to its first call for an event (20 s). Lambda's init phase is 10 s; it
    /// then tries again within the function's own time-out, which this stands for.
    pub start: Duration,
    /// How many bytes of the processes' output are kept for [`Lambda::logs`] (64 MB); the oldest lines go first.
    pub log_bytes: usize,
    /// A file that all output is appended to, one JSON object per line.
    pub log_file: Option<PathBuf>,
    /// What a streaming function notices of a reader who has gone; [`Lambda::set_departure`] changes it for a tenant.
    pub departure: Departure,
}

impl Settings {
    /// The defaults, for binaries in this folder.
    pub fn new(binaries: impl Into<PathBuf>, credentials: CredentialSource) -> Self {
        Self {
            binaries: binaries.into(),
            region: "us-east-1".to_owned(),
            endpoint_url: None,
            credentials,
            processes_per_tenant: 4,
            processes_per_function: 8,
            waiting: 1_000,
            idle: Duration::from_secs(300),
            start: Duration::from_secs(20),
            log_bytes: 64 << 20,
            log_file: None,
            departure: Departure::default(),
        }
    }
}

/// What becomes of a streamed response when its reader has gone. The function isn't stopped in either case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Departure {
    /// The function writes on and is told nothing; its bytes are dropped.
    #[default]
    Swallowed,
    /// The connection that it writes to is closed.
    Refused,
}

/// The [`Departure`] of each tenant.
struct Departures {
    default: Departure,
    by_tenant: HashMap<String, Departure>,
}

impl Departures {
    fn of(&self, tenant: Option<&str>) -> Departure {
        tenant
            .and_then(|tenant| self.by_tenant.get(tenant).copied())
            .unwrap_or(self.default)
    }
}

/// Why the emulator could not start.
#[derive(Debug, thiserror::Error)]
pub enum LambdaError {
    /// A function's binary is not where it should be.
    #[error("{function}: there is no binary {}", binary.display())]
    BinaryMissing {
        /// The function.
        function: LogicalId,
        /// Where it was looked for.
        binary: PathBuf,
    },
    /// A function's variables are more than Lambda takes.
    #[error("{function}: its environment variables have {bytes} bytes, and Lambda takes {MAX_ENVIRONMENT_BYTES}")]
    EnvironmentTooLarge {
        /// The function.
        function: LogicalId,
        /// Names and values together.
        bytes: usize,
    },
    /// The log file, or the folder of binaries, can't be opened.
    #[error(transparent)]
    File(#[from] std::io::Error),
}

/// What a function answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Its result.
    Buffered(Bytes),
    /// An error (`X-Amz-Function-Error`), as JSON with `errorType` and `errorMessage`: the function's own, or Lambda's
    /// when it crashed, ran out of time, or answered too much.
    FunctionError(Bytes),
}

/// Why an invocation did not reach a function. Each is an exception of the Lambda API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvokeError {
    /// There is no such function.
    #[error("Function not found: {0}")]
    ResourceNotFound(LogicalId),
    /// A tenant id is missing, malformed, or given to a function that is not isolated by tenant.
    #[error("{0}")]
    InvalidParameterValue(&'static str),
    /// The event is not JSON.
    #[error("Could not parse request body into json")]
    InvalidRequestContent,
    /// The event is larger than [`MAX_EVENT_BYTES`].
    #[error("Request must be smaller than {MAX_EVENT_BYTES} bytes for the InvokeFunction operation")]
    RequestTooLarge,
    /// All processes are busy and too many events are waiting.
    #[error("Rate Exceeded.")]
    TooManyRequests,
    /// The stack is stopping, or could not start a process.
    #[error("Service unavailable: {0}")]
    Service(String),
}

impl InvokeError {
    /// The exception's name in the Lambda API.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::ResourceNotFound(_) => "ResourceNotFoundException",
            Self::InvalidParameterValue(_) => "InvalidParameterValueException",
            Self::InvalidRequestContent => "InvalidRequestContentException",
            Self::RequestTooLarge => "RequestTooLargeException",
            Self::TooManyRequests => "TooManyRequestsException",
            Self::Service(_) => "ServiceException",
        }
    }

    /// The HTTP status of the Lambda API's answer.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::ResourceNotFound(_) => 404,
            Self::InvalidParameterValue(_) | Self::InvalidRequestContent => 400,
            Self::RequestTooLarge => 413,
            Self::TooManyRequests => 429,
            Self::Service(_) => 500,
        }
    }
}

/// The stack's own number of a process; the system's may be used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct ProcessId(u64);

impl fmt::Display for ProcessId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)
    }
}

/// What a process is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessState {
    /// It has not asked for an event yet.
    Starting,
    /// It waits for an event.
    Idle,
    /// It has an event.
    Busy,
    /// It is gone.
    Ended(End),
}

/// Why a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It could not be started, reported that it can't start, or took too long to.
    NeverReady,
    /// It ended by itself after its start.
    Exited,
    /// It was killed because an event took longer than the function's time-out.
    TimedOut,
    /// It was killed because it had nothing to do.
    Reaped,
    /// It was killed because the stack stopped.
    Stopped,
}

/// One process, running or ended.
#[derive(Debug, Clone)]
pub struct ProcessRecord {
    /// The stack's number of it.
    pub id: ProcessId,
    /// The function that it runs.
    pub function: LogicalId,
    /// The tenant that it was started for; none for functions that are not isolated.
    pub tenant: Option<String>,
    /// The tenants of the events that it was given. Recorded from each event, not from the process's own tenant: a test
    /// that compares the two can fail.
    pub tenants_served: BTreeSet<String>,
    /// The system's number of it, once it runs.
    pub pid: Option<u32>,
    /// What it is doing.
    pub state: ProcessState,
    /// How many events it was given.
    pub invocations: u64,
    /// When it was started.
    pub started_at: OffsetDateTime,
    /// How long it took from there to its first call for an event.
    pub ready_after: Option<Duration>,
}

/// The emulator. Dropping it kills all processes; [`Lambda::stop`] also waits until they are gone.
pub struct Lambda {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
}

impl fmt::Debug for Lambda {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Lambda").finish_non_exhaustive()
    }
}

/// A function, and the tenant where it is isolated.
type PoolKey = (LogicalId, Option<String>);

/// What all processes of the emulator share.
struct Shared {
    settings: Settings,
    functions: BTreeMap<LogicalId, Arc<Function>>,
    pools: Mutex<HashMap<PoolKey, Arc<Pool>>>,
    records: Mutex<BTreeMap<ProcessId, ProcessRecord>>,
    log: Arc<Log>,
    departures: Arc<Mutex<Departures>>,
    last_process: AtomicU64,
    /// How many processes run, so that stopping can wait for none.
    running: watch::Sender<usize>,
    stopping: watch::Receiver<bool>,
}

impl Lambda {
    /// Makes ready for the functions of a template; processes are started when events come.
    ///
    /// # Errors
    /// When a binary is missing, a function has too many variables, or the log file can't be opened.
    pub fn new(functions: &[Function], mut settings: Settings) -> Result<Self, LambdaError> {
        // The processes have another working directory.
        settings.binaries = std::path::absolute(&settings.binaries)?;
        for function in functions {
            let binary = settings.binaries.join(&function.package);
            if !binary.is_file() {
                return Err(LambdaError::BinaryMissing {
                    function: function.logical_id.clone(),
                    binary,
                });
            }
            let bytes = function
                .environment
                .iter()
                .map(|(name, value)| name.len() + value.len())
                .sum();
            if bytes > MAX_ENVIRONMENT_BYTES {
                return Err(LambdaError::EnvironmentTooLarge {
                    function: function.logical_id.clone(),
                    bytes,
                });
            }
        }
        let log = Log::open(settings.log_bytes, settings.log_file.as_deref())?;
        let (stop, stopping) = watch::channel(false);
        let departures = Departures {
            default: settings.departure,
            by_tenant: HashMap::new(),
        };
        let shared = Shared {
            settings,
            functions: functions
                .iter()
                .map(|function| (function.logical_id.clone(), Arc::new(function.clone())))
                .collect(),
            pools: Mutex::default(),
            records: Mutex::default(),
            log: Arc::new(log),
            departures: Arc::new(Mutex::new(departures)),
            last_process: AtomicU64::new(0),
            running: watch::Sender::new(0),
            stopping,
        };
        Ok(Self {
            shared: Arc::new(shared),
            stop,
        })
    }

    /// Gives an event to a function and waits for its answer (the `Invoke` operation with `RequestResponse`). A streamed
    /// response is there when it has ended, as the function wrote it.
    ///
    /// Dropping the future doesn't stop a function that has begun, as a departed caller doesn't on AWS.
    ///
    /// # Errors
    /// When the event did not reach the function; what the function itself got wrong is an [`Outcome`].
    pub async fn invoke(
        &self,
        function: &LogicalId,
        tenant: Option<&str>,
        payload: Bytes,
    ) -> Result<Outcome, InvokeError> {
        match self.begin(function, tenant, payload).await? {
            Reply::Outcome(outcome) => Ok(outcome),
            Reply::Stream(stream) => Ok(stream::collect(stream).await),
        }
    }

    /// Gives an event to a function and waits until its answer begins (the `InvokeWithResponseStream` operation). The
    /// answer of a function that doesn't stream is one piece.
    ///
    /// Dropping the future or the stream doesn't stop a function that has begun; [`Departure`] says what it notices.
    ///
    /// # Errors
    /// When the event did not reach the function; what the function itself got wrong is the end of the stream.
    pub async fn invoke_with_response_stream(
        &self,
        function: &LogicalId,
        tenant: Option<&str>,
        payload: Bytes,
    ) -> Result<ResponseStream, InvokeError> {
        match self.begin(function, tenant, payload).await? {
            Reply::Outcome(outcome) => Ok(stream::of_outcome(outcome)),
            Reply::Stream(stream) => Ok(stream),
        }
    }

    /// From now on, what the functions that stream for this tenant notice of a reader who has gone.
    pub fn set_departure(&self, tenant: &str, departure: Departure) {
        lock(&self.shared.departures)
            .by_tenant
            .insert(tenant.to_owned(), departure);
    }

    async fn begin(&self, function: &LogicalId, tenant: Option<&str>, payload: Bytes) -> Result<Reply, InvokeError> {
        let function = self
            .shared
            .functions
            .get(function)
            .ok_or_else(|| InvokeError::ResourceNotFound(function.clone()))?;
        check_tenant(function.per_tenant, tenant)?;
        if payload.len() > MAX_EVENT_BYTES {
            return Err(InvokeError::RequestTooLarge);
        }
        if serde_json::from_slice::<serde::de::IgnoredAny>(&payload).is_err() {
            return Err(InvokeError::InvalidRequestContent);
        }
        let (reply, answer) = oneshot::channel();
        let pool = self.shared.pool(function, tenant)?;
        let missing = pool.push(Job {
            request_id: Uuid::new_v4(),
            tenant: tenant.map(ToOwned::to_owned),
            payload,
            reply,
        })?;
        self.shared.start_processes(&pool, missing);
        // Nobody is left to answer only when the emulator was dropped.
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// All processes since the start, those that ended included, in the order of their start.
    #[must_use]
    pub fn processes(&self) -> Vec<ProcessRecord> {
        lock(&self.shared.records).values().cloned().collect()
    }

    /// What the processes wrote to their standard output and error, oldest first, as far as it is kept.
    #[must_use]
    pub fn logs(&self) -> Vec<LogLine> {
        self.shared.log.lines()
    }

    /// Refuses new events, kills all processes and waits until they are gone.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        let pools: Vec<Arc<Pool>> = lock(&self.shared.pools).values().cloned().collect();
        for pool in pools {
            pool.close(&stopped());
        }
        let mut running = self.shared.running.subscribe();
        // The sender lives as long as `self`.
        let _ = running.wait_for(|count| *count == 0).await;
    }
}

fn stopped() -> InvokeError {
    InvokeError::Service("the local stack is stopping".to_owned())
}

impl Shared {
    fn pool(&self, function: &Arc<Function>, tenant: Option<&str>) -> Result<Arc<Pool>, InvokeError> {
        let key = (function.logical_id.clone(), tenant.map(ToOwned::to_owned));
        let mut pools = lock(&self.pools);
        // Under the lock, so that no pool is made after the last one was closed.
        if *self.stopping.borrow() {
            return Err(stopped());
        }
        let pool = pools.entry(key).or_insert_with(|| {
            let processes = if function.per_tenant {
                self.settings.processes_per_tenant
            } else {
                self.settings.processes_per_function
            };
            Arc::new(Pool::new(
                Arc::clone(function),
                tenant.map(ToOwned::to_owned),
                processes,
                self.settings.waiting,
            ))
        });
        Ok(Arc::clone(pool))
    }

    /// Starts as many processes as the pool has counted already.
    fn start_processes(self: &Arc<Self>, pool: &Arc<Pool>, count: usize) {
        for _ in 0..count {
            let id = ProcessId(self.last_process.fetch_add(1, Ordering::Relaxed) + 1);
            lock(&self.records).insert(
                id,
                ProcessRecord {
                    id,
                    function: pool.function.logical_id.clone(),
                    tenant: pool.tenant.clone(),
                    tenants_served: BTreeSet::new(),
                    pid: None,
                    state: ProcessState::Starting,
                    invocations: 0,
                    started_at: OffsetDateTime::now_utc(),
                    ready_after: None,
                },
            );
            self.running.send_modify(|running| *running += 1);
            tokio::spawn(process::run(Arc::clone(self), Arc::clone(pool), id));
        }
    }

    fn record(&self, id: ProcessId, change: impl FnOnce(&mut ProcessRecord)) {
        if let Some(record) = lock(&self.records).get_mut(&id) {
            change(record);
        }
    }
}

/// Locks, also after a panic elsewhere: everything behind these locks is changed in one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lambda's rules for the tenant id of an invocation.
/// Source: AWS Lambda API, `Invoke`, `TenantId`; Developer Guide, "Troubleshooting tenant isolation".
fn check_tenant(per_tenant: bool, tenant: Option<&str>) -> Result<(), InvokeError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._:/=+-@ ".contains(c);
    match (per_tenant, tenant) {
        (false, None) => Ok(()),
        (false, Some(_)) => Err(InvokeError::InvalidParameterValue(
            "The invoked function is not enabled with tenancy configuration. Remove the tenant ID from your request and \
             try again.",
        )),
        (true, Some(tenant))
            if (1..=256).contains(&tenant.len()) && tenant.chars().all(allowed) && !tenant.trim().is_empty() =>
        {
            Ok(())
        }
        (true, _) => Err(InvokeError::InvalidParameterValue(
            "The invoked function is enabled with tenancy configuration. Add a valid tenant ID in your request and try \
             again.",
        )),
    }
}

#[cfg(test)]
mod tests;
