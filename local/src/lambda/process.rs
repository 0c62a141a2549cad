//! One process from its start to its end.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

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
use super::pool::{Job, Pool, Reply};
use super::runtime_api::{self, Answer, Api, Call, Event, StreamEnd};
use super::stream::{Ending, Reader, too_large};
use super::{End, LogLine, LogStream, Outcome, ProcessId, ProcessState, Shared, lock};

/// How long output may still come from a process that has ended: something it started may hold the pipe open.
const LAST_WORDS: Duration = Duration::from_secs(1);

const NO_ANSWER: &str = "Runtime asked for the next event without an answer";

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
    /// It is writing its answer.
    Streaming {
        request_id: Uuid,
        end: Ending,
        until: Instant,
    },
    /// The connection of its answer is broken. It may be at work still, and is asked nothing before it asks.
    Broken {
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
    server: JoinHandle<()>,
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
        let (departures, tenant) = (Arc::clone(&shared.departures), pool.tenant.clone());
        let api = Api {
            calls: sender,
            departure: Arc::new(move || lock(&departures).of(tenant.as_deref())),
        };
        let server = tokio::spawn(runtime_api::serve(listener, api));
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
                | Phase::Streaming { until, .. }
                | Phase::Broken { until }
                | Phase::Answered { until } => *until,
            };
            tokio::select! {
                // A call that has arrived counts, even if the process ended right after it.
                biased;
                // An error is the emulator's end, too.
                _ = stopping.wait_for(|stop| *stop) => {
                    let vacancy = vacancy(&phase);
                    match phase {
                        Phase::Busy { job, .. } => reply(job, Err(super::stopped())),
                        Phase::Streaming { request_id, end, .. } => {
                            end.fail(document("Runtime.ExitError", request_id, "The local stack is stopping"));
                        }
                        Phase::Starting { .. }
                        | Phase::Idle { .. }
                        | Phase::Broken { .. }
                        | Phase::Answered { .. } => {}
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
                        let outcome = failure("Runtime.ExitError", job.request_id, NO_ANSWER);
                        reply(job, Ok(Reply::Outcome(outcome)));
                    }
                    Phase::Streaming { request_id, end, .. } => {
                        self.pool.vacated();
                        end.fail(document("Runtime.ExitError", request_id, NO_ANSWER));
                    }
                    Phase::Broken { .. } => self.pool.vacated(),
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
                    Answer::TooLarge => Outcome::FunctionError(too_large()),
                };
                // Before the caller can come with its next event, which would start another process otherwise.
                self.pool.vacated();
                reply(job, Ok(Reply::Outcome(outcome)));
                // The process may have gone.
                let _ = accepted.send(true);
                Ok(Phase::Answered { until })
            }
            (Call::Answer { accepted, .. }, phase) => {
                let _ = accepted.send(false);
                Ok(phase)
            }
            (
                Call::Stream {
                    request_id,
                    pieces,
                    accepted,
                },
                Phase::Busy { job, until },
            ) if job.request_id.to_string() == request_id => {
                let request_id = job.request_id;
                let (reader, end) = Reader::new(pieces);
                reply(job, Ok(Reply::Stream(reader.into_stream())));
                let _ = accepted.send(true);
                Ok(Phase::Streaming { request_id, end, until })
            }
            (Call::Stream { accepted, .. }, phase) => {
                let _ = accepted.send(false);
                Ok(phase)
            }
            (Call::StreamEnded { end: how, seen }, Phase::Streaming { request_id, end, until }) => {
                let phase = match how {
                    StreamEnd::Complete => {
                        // As above: before the reader knows.
                        self.pool.vacated();
                        end.complete();
                        Phase::Answered { until }
                    }
                    StreamEnd::Error(error) => {
                        self.pool.vacated();
                        end.fail(error);
                        Phase::Answered { until }
                    }
                    StreamEnd::Broken => {
                        let message = "The response was cut off";
                        end.fail(document("Runtime.TruncatedResponse", request_id, message));
                        Phase::Broken { until }
                    }
                };
                let _ = seen.send(());
                Ok(phase)
            }
            // It asked for the next event meanwhile.
            (Call::StreamEnded { seen, .. }, phase) => {
                let _ = seen.send(());
                Ok(phase)
            }
            (Call::InitError { error, received }, Phase::Starting { .. }) => {
                let _ = received.send(());
                if let Some(job) = self.pool.oldest() {
                    reply(job, Ok(Reply::Outcome(Outcome::FunctionError(error))));
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
                    reply(job, Ok(Reply::Outcome(failure("Runtime.ExitError", request_id, &how))));
                }
                (End::NeverReady, vacancy)
            }
            Phase::Busy { job, .. } => {
                let request_id = job.request_id;
                reply(job, Ok(Reply::Outcome(failure("Runtime.ExitError", request_id, &how))));
                (End::Exited, vacancy)
            }
            Phase::Streaming { request_id, end, .. } => {
                end.fail(document("Runtime.ExitError", request_id, &how));
                (End::Exited, vacancy)
            }
            Phase::Idle { .. } | Phase::Broken { .. } | Phase::Answered { .. } => (End::Exited, vacancy),
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
                    let outcome = failure("Sandbox.Timedout", request_id, &message);
                    reply(job, Ok(Reply::Outcome(outcome)));
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
                let outcome = failure("Sandbox.Timedout", job.request_id, &self.timed_out());
                reply(job, Ok(Reply::Outcome(outcome)));
                Err((End::TimedOut, vacancy))
            }
            Phase::Streaming { request_id, end, .. } => {
                end.fail(document("Sandbox.Timedout", request_id, &self.timed_out()));
                Err((End::TimedOut, vacancy))
            }
            Phase::Broken { .. } | Phase::Answered { .. } => Err((End::TimedOut, vacancy)),
        }
    }

    fn timed_out(&self) -> String {
        let seconds = self.pool.function.timeout.as_secs_f64();
        format!("Task timed out after {seconds:.2} seconds")
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
        Phase::Busy { .. } | Phase::Streaming { .. } | Phase::Broken { .. } => Vacancy::Busy,
    }
}

/// The caller may have gone; nobody is told then, as on AWS.
fn reply(job: Job, result: Result<Reply, super::InvokeError>) {
    let _ = job.reply.send(result);
}

/// An error in Lambda's own words.
fn failure(error_type: &str, request_id: Uuid, message: &str) -> Outcome {
    Outcome::FunctionError(document(error_type, request_id, message))
}

fn document(error_type: &str, request_id: Uuid, message: &str) -> Bytes {
    let document = json!({
        "errorType": error_type,
        "errorMessage": format!("RequestId: {request_id} Error: {message}"),
    });
    Bytes::from(document.to_string())
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
