//! One process from its start to its end.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::serve::ListenerExt;
use bytes::Bytes;
use serde_json::json;
use time::OffsetDateTime;
use tokio::io::BufReader;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant};
use uuid::Uuid;

use super::log::read_lines;
use super::pool::{Job, Pool};
use super::runtime_api::{self, Answer, Call, Event};
use super::{End, LogLine, LogStream, Outcome, ProcessId, ProcessState, Shared};

/// How long output may still come from a process that has ended: something it started may hold the pipe open.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Starts a process for the pool, feeds it, and counts it out when it has ended.
pub(super) async fn run(shared: Arc<Shared>, pool: Arc<Pool>, id: ProcessId) {
    let (end, vacant) = match Process::start(&shared, &pool, id).await {
        Ok(process) => process.supervise().await,
        Err(error) => {
            if let Some(job) = pool.oldest() {
                let message = format!("{} can't be started: {error}", pool.function.package);
                reply(job, Err(super::InvokeError::Service(message)));
            }
            (End::NeverReady, Vacancy::Vacant)
        }
    };
    shared.record(id, |record| record.state = ProcessState::Ended(end));
    let missing = match vacancy_count(vacant) {
        Some(vacant) => pool.ended(vacant),
        None => 0,
    };
    shared.start_processes(&pool, missing);
    shared
        .running
        .send_modify(|running| *running = running.saturating_sub(1));
}

/// How the pool counts a process that ends.
#[derive(Clone, Copy)]
enum Vacancy {
    Vacant,
    Busy,
    /// It has counted itself out already.
    Left,
}

fn vacancy_count(vacancy: Vacancy) -> Option<bool> {
    match vacancy {
        Vacancy::Vacant => Some(true),
        Vacancy::Busy => Some(false),
        Vacancy::Left => None,
    }
}

/// What the process is doing, and until when it may.
enum Phase {
    Starting {
        until: Instant,
    },
    Idle {
        next: oneshot::Sender<Event>,
        until: Instant,
    },
    Busy {
        job: Job,
        until: Instant,
    },
    /// It has answered and not asked for the next event yet; the time of its event goes on.
    Answered {
        until: Instant,
    },
}

struct Process<'a> {
    shared: &'a Arc<Shared>,
    pool: &'a Arc<Pool>,
    id: ProcessId,
    child: Child,
    calls: mpsc::Receiver<Call>,
    /// The Runtime API's server, and the readers of the two streams.
    server: JoinHandle<io::Result<()>>,
    output: [JoinHandle<()>; 2],
    started: Instant,
}

impl<'a> Process<'a> {
    async fn start(shared: &'a Arc<Shared>, pool: &'a Arc<Pool>, id: ProcessId) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (sender, calls) = mpsc::channel(4);
        let mut child = command(shared, pool, id, &address.to_string()).spawn()?;
        let started = Instant::now();
        let pid = child.id();
        shared.record(id, |record| record.pid = pid);
        let output = [
            child
                .stdout
                .take()
                .map(|pipe| capture(shared, pool, id, LogStream::Stdout, pipe)),
            child
                .stderr
                .take()
                .map(|pipe| capture(shared, pool, id, LogStream::Stderr, pipe)),
        ]
        .map(|reader| reader.unwrap_or_else(|| tokio::spawn(async {})));
        // Without this a response waits for the acknowledgement of its head.
        let listener = listener.tap_io(|stream| {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "a connection to the Runtime API has no TCP_NODELAY");
            }
        });
        let server = tokio::spawn(async move { axum::serve(listener, runtime_api::router(sender)).await });
        Ok(Self {
            shared,
            pool,
            id,
            child,
            calls,
            server,
            output,
            started,
        })
    }

    /// Runs until the process is gone.
    async fn supervise(mut self) -> (End, Vacancy) {
        let mut phase = Phase::Starting {
            until: self.started + self.shared.settings.start,
        };
        let mut stopping = self.shared.stopping.clone();
        let (end, vacancy) = loop {
            phase = match phase {
                Phase::Idle { next, until } => match self.pool.take() {
                    Some(job) => self.hand_over(job, next),
                    None => Phase::Idle { next, until },
                },
                other => other,
            };
            let until = match &phase {
                Phase::Starting { until }
                | Phase::Idle { until, .. }
                | Phase::Busy { until, .. }
                | Phase::Answered { until } => *until,
            };
            tokio::select! {
                // A call that has arrived counts, even if the process ended right after it.
                biased;
                // An error is the emulator's end, too.
                _ = stopping.wait_for(|stop| *stop) => {
                    let vacancy = vacancy(&phase);
                    if let Phase::Busy { job, .. } = phase {
                        reply(job, Err(super::stopped()));
                    }
                    break (End::Stopped, vacancy);
                }
                Some(call) = self.calls.recv() => match self.answer(call, phase) {
                    Ok(next) => phase = next,
                    Err(end) => break end,
                },
                status = self.child.wait() => break self.exited(phase, status),
                () = self.pool.arrived.notified(), if matches!(phase, Phase::Idle { .. }) => {}
                () = tokio::time::sleep_until(until) => match self.out_of_time(phase) {
                    Ok(next) => phase = next,
                    Err(end) => break end,
                },
            }
        };
        self.clean_up().await;
        (end, vacancy)
    }

    /// Gives an event to the process.
    fn hand_over(&self, job: Job, next: oneshot::Sender<Event>) -> Phase {
        let timeout = self.pool.function.timeout;
        let until = Instant::now() + timeout;
        match next.send(event(self.pool, &job, SystemTime::now() + timeout)) {
            Ok(()) => {
                self.shared.record(self.id, |record| {
                    record.state = ProcessState::Busy;
                    record.invocations += 1;
                    record.tenants_served.extend(job.tenant.clone());
                });
                Phase::Busy { job, until }
            }
            // Its connection is closed: the process is ending.
            Err(_) => {
                self.pool.put_back(job);
                Phase::Answered { until }
            }
        }
    }

    fn answer(&self, call: Call, phase: Phase) -> Result<Phase, (End, Vacancy)> {
        match (call, phase) {
            (Call::Next(next), phase) => {
                match phase {
                    Phase::Starting { .. } => {
                        let ready_after = self.started.elapsed();
                        self.shared
                            .record(self.id, |record| record.ready_after = Some(ready_after));
                    }
                    // It asked before, on a connection that it gave up.
                    Phase::Idle { .. } | Phase::Answered { .. } => {}
                    Phase::Busy { job, .. } => {
                        self.pool.vacated();
                        let message = "Runtime asked for the next event without an answer";
                        let outcome = failure("Runtime.ExitError", job.request_id, message);
                        reply(job, Ok(outcome));
                    }
                }
                self.shared.record(self.id, |record| record.state = ProcessState::Idle);
                Ok(Phase::Idle {
                    next,
                    until: Instant::now() + self.shared.settings.idle,
                })
            }
            (
                Call::Answer {
                    request_id,
                    answer,
                    accepted,
                },
                Phase::Busy { job, until },
            ) if job.request_id.to_string() == request_id => {
                let outcome = match answer {
                    Answer::Response(bytes) => Outcome::Buffered(bytes),
                    Answer::Error(bytes) => Outcome::FunctionError(bytes),
                    Answer::TooLarge => Outcome::FunctionError(json_bytes(&json!({
                        "errorType": "Function.ResponseSizeTooLarge",
                        "errorMessage": format!(
                            "Response payload size exceeded maximum allowed payload size ({} bytes).",
                            super::MAX_RESPONSE_BYTES
                        ),
                    }))),
                    Answer::Streamed => failure(
                        "Runtime.StreamingNotSupported",
                        job.request_id,
                        "The local stack has no route that carries a streamed response",
                    ),
                };
                // Before the caller can come with its next event, which would start another process otherwise.
                self.pool.vacated();
                reply(job, Ok(outcome));
                // The process may have gone.
                let _ = accepted.send(true);
                Ok(Phase::Answered { until })
            }
            (Call::Answer { accepted, .. }, phase) => {
                let _ = accepted.send(false);
                Ok(phase)
            }
            (Call::InitError { error, received }, Phase::Starting { .. }) => {
                let _ = received.send(());
                if let Some(job) = self.pool.oldest() {
                    reply(job, Ok(Outcome::FunctionError(error)));
                }
                Err((End::NeverReady, Vacancy::Vacant))
            }
            // Too late to say so; on AWS this is refused as well.
            (Call::InitError { received, .. }, phase) => {
                drop(received);
                Ok(phase)
            }
        }
    }

    fn exited(&self, phase: Phase, status: io::Result<ExitStatus>) -> (End, Vacancy) {
        let vacancy = vacancy(&phase);
        let how = match status {
            Ok(status) => describe(status),
            Err(error) => format!("Runtime exited: {error}"),
        };
        match phase {
            Phase::Starting { .. } => {
                if let Some(job) = self.pool.oldest() {
                    let request_id = job.request_id;
                    reply(job, Ok(failure("Runtime.ExitError", request_id, &how)));
                }
                (End::NeverReady, vacancy)
            }
            Phase::Busy { job, .. } => {
                let request_id = job.request_id;
                reply(job, Ok(failure("Runtime.ExitError", request_id, &how)));
                (End::Exited, vacancy)
            }
            Phase::Idle { .. } | Phase::Answered { .. } => (End::Exited, vacancy),
        }
    }

    fn out_of_time(&self, phase: Phase) -> Result<Phase, (End, Vacancy)> {
        let vacancy = vacancy(&phase);
        match phase {
            Phase::Starting { .. } => {
                if let Some(job) = self.pool.oldest() {
                    let request_id = job.request_id;
                    let seconds = self.shared.settings.start.as_secs_f64();
                    let message = format!("Init phase timed out after {seconds:.2} seconds");
                    reply(job, Ok(failure("Sandbox.Timedout", request_id, &message)));
                }
                Err((End::NeverReady, vacancy))
            }
            Phase::Idle { next, until } => {
                if self.pool.leave() {
                    Err((End::Reaped, Vacancy::Left))
                } else {
                    Ok(Phase::Idle { next, until })
                }
            }
            Phase::Busy { job, .. } => {
                let request_id = job.request_id;
                let seconds = self.pool.function.timeout.as_secs_f64();
                let message = format!("Task timed out after {seconds:.2} seconds");
                reply(job, Ok(failure("Sandbox.Timedout", request_id, &message)));
                Err((End::TimedOut, vacancy))
            }
            Phase::Answered { .. } => Err((End::TimedOut, vacancy)),
        }
    }

    /// Kills what is still there, and reads the last of its output.
    async fn clean_up(mut self) {
        self.server.abort();
        // It has no number any more once its end was seen.
        if self.child.id().is_some()
            && let Err(error) = self.child.kill().await
        {
            tracing::warn!(%error, process = %self.id, "a function's process can't be killed");
        }
        for reader in &mut self.output {
            if tokio::time::timeout(LAST_WORDS, &mut *reader).await.is_err() {
                reader.abort();
            }
        }
    }
}

fn vacancy(phase: &Phase) -> Vacancy {
    match phase {
        Phase::Starting { .. } | Phase::Idle { .. } | Phase::Answered { .. } => Vacancy::Vacant,
        Phase::Busy { .. } => Vacancy::Busy,
    }
}

/// The caller may have gone; nobody is told then, as on AWS.
fn reply(job: Job, result: Result<Outcome, super::InvokeError>) {
    let _ = job.reply.send(result);
}

/// An error in Lambda's own words.
fn failure(error_type: &str, request_id: Uuid, message: &str) -> Outcome {
    Outcome::FunctionError(json_bytes(&json!({
        "errorType": error_type,
        "errorMessage": format!("RequestId: {request_id} Error: {message}"),
    })))
}

fn json_bytes(value: &serde_json::Value) -> Bytes {
    Bytes::from(value.to_string())
}

/// How Lambda words an exit.
fn describe(status: ExitStatus) -> String {
    if status.success() {
        return "Runtime exited without providing a reason".to_owned();
    }
    if let Some(code) = status.code() {
        return format!("Runtime exited with error: exit status {code}");
    }
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        let name = match signal {
            6 => "aborted".to_owned(),
            9 => "killed".to_owned(),
            11 => "segmentation fault".to_owned(),
            15 => "terminated".to_owned(),
            other => other.to_string(),
        };
        return format!("Runtime exited with error: signal: {name}");
    }
    format!("Runtime exited with error: {status}")
}

/// An event with the headers that the Runtime API has for it.
fn event(pool: &Pool, job: &Job, deadline: SystemTime) -> Event {
    let since_epoch = deadline.duration_since(UNIX_EPOCH).unwrap_or_default();
    let trace = Uuid::new_v4().simple().to_string();
    let (epoch, root): (u64, String) = (since_epoch.as_secs(), trace.chars().take(24).collect());
    let parent: String = trace.chars().skip(16).collect();
    let mut headers = vec![
        ("lambda-runtime-aws-request-id", job.request_id.to_string()),
        ("lambda-runtime-deadline-ms", since_epoch.as_millis().to_string()),
        ("lambda-runtime-invoked-function-arn", pool.function.arn.clone()),
        (
            "lambda-runtime-trace-id",
            format!("Root=1-{epoch:08x}-{root};Parent={parent};Sampled=0"),
        ),
        ("lambda-runtime-invocation-id", Uuid::new_v4().to_string()),
    ];
    if let Some(tenant) = &job.tenant {
        headers.push(("lambda-runtime-aws-tenant-id", tenant.clone()));
    }
    Event {
        payload: job.payload.clone(),
        headers,
    }
}

fn capture(
    shared: &Arc<Shared>,
    pool: &Arc<Pool>,
    process: ProcessId,
    stream: LogStream,
    pipe: impl tokio::io::AsyncRead + Unpin + Send + 'static,
) -> JoinHandle<()> {
    let log = Arc::clone(&shared.log);
    let pool = Arc::clone(pool);
    tokio::spawn(read_lines(BufReader::new(pipe), move |text| {
        log.push(LogLine {
            at: OffsetDateTime::now_utc(),
            function: pool.function.logical_id.clone(),
            tenant: pool.tenant.clone(),
            process,
            stream,
            text,
        });
    }))
}

/// The command that starts a process, with the environment that Lambda would give it and nothing of the stack's own.
fn command(shared: &Shared, pool: &Pool, id: ProcessId, runtime_api: &str) -> Command {
    let function = &pool.function;
    let settings = &shared.settings;
    let mut command = Command::new(settings.binaries.join(&function.package));
    command
        .env_clear()
        .current_dir(&settings.binaries)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    // A group of its own: the terminal's Ctrl-C reaches the stack, which then ends its processes in order. If the stack
    // is killed itself, its sockets close, and a runtime whose connection breaks ends.
    #[cfg(unix)]
    command.process_group(0);
    // The platform's own variables come last: a function can't choose its name, region or credentials.
    if let Some(endpoint) = &settings.endpoint_url {
        command.env("AWS_ENDPOINT_URL", endpoint);
    }
    command.envs(&function.environment);
    let credentials = (settings.credentials)(function, pool.tenant.as_deref());
    command
        .env("AWS_LAMBDA_RUNTIME_API", runtime_api)
        .env("AWS_LAMBDA_FUNCTION_NAME", &function.name)
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", function.memory_mb.to_string())
        .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
        .env("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand")
        .env("AWS_LAMBDA_LOG_GROUP_NAME", &function.log_group)
        .env("AWS_LAMBDA_LOG_STREAM_NAME", format!("local/[$LATEST]{id}"))
        .env("AWS_REGION", &settings.region)
        .env("AWS_DEFAULT_REGION", &settings.region)
        .env("AWS_ACCESS_KEY_ID", credentials.access_key_id)
        .env("AWS_SECRET_ACCESS_KEY", credentials.secret_access_key)
        .env("AWS_SESSION_TOKEN", credentials.session_token)
        .env("LAMBDA_TASK_ROOT", &settings.binaries)
        .env("LANG", "en_US.UTF-8")
        .env("PATH", "/usr/local/bin:/usr/bin:/bin:/opt/bin")
        .env("TZ", ":UTC")
        .env("_HANDLER", "bootstrap");
    if let Some(format) = &function.log_format {
        command.env("AWS_LAMBDA_LOG_FORMAT", format);
    }
    if let Some(level) = &function.log_level {
        command.env("AWS_LAMBDA_LOG_LEVEL", level);
    }
    command
}
