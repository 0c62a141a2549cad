//! Against real processes: `examples/echo.rs` on the real Rust runtime.

use std::time::Instant;

use serde_json::{Value, json};

use super::*;

mod streaming;

/// Far more than anything here takes; a test that reaches it fails.
const PATIENCE: Duration = Duration::from_secs(60);

fn function(id: &str, per_tenant: bool) -> Function {
    Function {
        logical_id: LogicalId::new(id),
        name: format!("stack-{id}"),
        arn: format!("arn:aws:lambda:us-east-1:123456789012:function:stack-{id}"),
        package: "echo".to_owned(),
        environment: BTreeMap::from([("BULKHEAD_SETTING".to_owned(), "x".to_owned())]),
        timeout: Duration::from_secs(30),
        memory_mb: 256,
        per_tenant,
        role: LogicalId::new("Role"),
        log_group: "/bulkhead/echo".to_owned(),
        log_format: Some("JSON".to_owned()),
        log_level: None,
    }
}

fn settings() -> Settings {
    // target/debug/deps/<this test> → target/debug/examples
    let here = std::env::current_exe().unwrap();
    let examples = here.parent().unwrap().parent().unwrap().join("examples");
    assert!(
        examples.join("echo").is_file(),
        "`cargo test -p bulkhead-local` builds examples/echo.rs, but with a filter or a target it does not"
    );
    Settings::new(
        examples,
        Arc::new(|function, tenant| IssuedCredential {
            access_key_id: format!("{}/{}", function.logical_id, tenant.unwrap_or("-")),
            secret_access_key: "secret".to_owned(),
            session_token: "token".to_owned(),
            expires: None,
        }),
    )
}

/// One isolated and one plain function.
fn lambda(settings: Settings) -> Lambda {
    Lambda::new(&[function("Isolated", true), function("Plain", false)], settings).unwrap()
}

fn with(change: impl FnOnce(&mut Function), settings: Settings) -> Lambda {
    let mut function = function("Isolated", true);
    change(&mut function);
    Lambda::new(&[function], settings).unwrap()
}

async fn call(lambda: &Lambda, id: &str, tenant: Option<&str>, event: Value) -> Result<Outcome, InvokeError> {
    let payload = Bytes::from(event.to_string());
    let id = LogicalId::new(id);
    let answer = lambda.invoke(&id, tenant, payload);
    tokio::time::timeout(PATIENCE, answer).await.unwrap()
}

async fn ask(lambda: &Lambda, tenant: &str, event: Value) -> Outcome {
    call(lambda, "Isolated", Some(tenant), event).await.unwrap()
}

fn ok(outcome: &Outcome) -> Value {
    match outcome {
        Outcome::Buffered(bytes) => serde_json::from_slice(bytes).unwrap(),
        Outcome::FunctionError(bytes) => panic!("{}", String::from_utf8_lossy(bytes)),
    }
}

/// The type and message of a function error, without the request id.
fn error(outcome: &Outcome) -> (String, String) {
    match outcome {
        Outcome::Buffered(bytes) => panic!("{}", String::from_utf8_lossy(bytes)),
        Outcome::FunctionError(bytes) => {
            let error: Value = serde_json::from_slice(bytes).unwrap();
            let message = error["errorMessage"].as_str().unwrap();
            let message = message.split_once(" Error: ").map_or(message, |(_, rest)| rest);
            (error["errorType"].as_str().unwrap().to_owned(), message.to_owned())
        }
    }
}

async fn until(lambda: &Lambda, what: impl Fn(&[ProcessRecord]) -> bool) -> Vec<ProcessRecord> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let processes = lambda.processes();
        if what(&processes) {
            return processes;
        }
        assert!(Instant::now() < deadline, "{processes:#?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn runs(pid: u32) -> bool {
    // A zombie has a status but no command line.
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

#[tokio::test]
async fn an_event_comes_with_the_context_that_lambda_gives() {
    let lambda = lambda(settings());
    let before = OffsetDateTime::now_utc();
    let answer = ok(&ask(&lambda, "acme", json!({"question": "ä"})).await);
    assert_eq!(answer["event"], json!({"question": "ä"}));
    let context = &answer["context"];
    assert_eq!(context["tenant_id"], "acme");
    assert_eq!(context["function_arn"], function("Isolated", true).arn);
    assert!(context["request_id"].as_str().unwrap().parse::<Uuid>().is_ok());
    assert!(context["trace_id"].as_str().unwrap().starts_with("Root=1-"));
    let deadline = context["deadline"].as_u64().unwrap();
    let earliest = u64::try_from(before.unix_timestamp_nanos() / 1_000_000).unwrap() + 30_000;
    assert!((earliest..earliest + 60_000).contains(&deadline), "{deadline}");

    let plain = call(&lambda, "Plain", None, json!({})).await.unwrap();
    assert_eq!(ok(&plain)["context"]["tenant_id"], Value::Null);
}

#[tokio::test]
async fn a_process_has_the_environment_of_a_function_and_nothing_of_ours() {
    let mut settings = settings();
    settings.endpoint_url = Some("http://127.0.0.1:1".to_owned());
    let binaries = settings.binaries.display().to_string();
    let lambda = lambda(settings);
    let mut environment = ok(&ask(&lambda, "acme", json!({"do": "environment"})).await);
    let environment = environment.as_object_mut().unwrap();
    let runtime_api = environment.remove("AWS_LAMBDA_RUNTIME_API").unwrap();
    assert!(runtime_api.as_str().unwrap().starts_with("127.0.0.1:"));
    // Set by the runtime for the event.
    environment.remove("_X_AMZN_TRACE_ID").unwrap();
    assert_eq!(
        Value::from(environment.clone()),
        json!({
            "AWS_ACCESS_KEY_ID": "Isolated/acme",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
            "AWS_LAMBDA_FUNCTION_NAME": "stack-Isolated",
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_FORMAT": "JSON",
            "AWS_LAMBDA_LOG_GROUP_NAME": "/bulkhead/echo",
            "AWS_LAMBDA_LOG_STREAM_NAME": "local/[$LATEST]1",
            "AWS_REGION": "us-east-1",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_SESSION_TOKEN": "token",
            "BULKHEAD_SETTING": "x",
            "LAMBDA_TASK_ROOT": binaries,
            "LANG": "en_US.UTF-8",
            "PATH": "/usr/local/bin:/usr/bin:/bin:/opt/bin",
            "TZ": ":UTC",
            "_HANDLER": "bootstrap",
        })
    );
}

#[tokio::test]
async fn a_process_serves_one_tenant_and_a_pool_has_a_limit() {
    let mut settings = settings();
    settings.processes_per_tenant = 2;
    let lambda = Arc::new(lambda(settings));
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..60 {
        let lambda = Arc::clone(&lambda);
        calls.spawn(async move {
            let tenant = ["acme", "acme-2", "globex"][number % 3];
            let answer = ok(&ask(&lambda, tenant, json!({"number": number})).await);
            assert_eq!(answer["event"]["number"], number);
            assert_eq!(answer["context"]["tenant_id"], tenant);
        });
    }
    calls.join_all().await;
    let processes = lambda.processes();
    assert!((3..=6).contains(&processes.len()), "{processes:#?}");
    for process in &processes {
        assert_eq!(
            process.tenants_served.iter().collect::<Vec<_>>(),
            process.tenant.iter().collect::<Vec<_>>()
        );
        assert!(process.ready_after.is_some());
    }
    assert_eq!(processes.iter().map(|process| process.invocations).sum::<u64>(), 60);
    assert_eq!(
        processes
            .iter()
            .filter(|process| process.tenant.as_deref() == Some("acme"))
            .count(),
        2
    );
}

#[tokio::test]
async fn events_of_a_function_without_isolation_share_processes() {
    let mut settings = settings();
    settings.processes_per_function = 1;
    let lambda = lambda(settings);
    let (first, second) = tokio::join!(
        call(&lambda, "Plain", None, json!(1)),
        call(&lambda, "Plain", None, json!(2))
    );
    assert_eq!(ok(&first.unwrap())["pid"], ok(&second.unwrap())["pid"]);
    let processes = lambda.processes();
    assert_eq!(processes.len(), 1);
    assert_eq!(processes[0].tenant, None);
    assert_eq!(processes[0].invocations, 2);
}

#[tokio::test]
async fn a_wrong_tenant_id_is_refused_and_starts_nothing() {
    let lambda = lambda(settings());
    let long = "x".repeat(257);
    for tenant in [
        None,
        Some(""),
        Some(" "),
        Some("a,b"),
        Some("a#b"),
        Some("ä"),
        Some("a\nb"),
        Some("a\"b"),
        Some(long.as_str()),
    ] {
        let refused = call(&lambda, "Isolated", tenant, json!({})).await.unwrap_err();
        assert_eq!(refused.code(), "InvalidParameterValueException", "{tenant:?}");
        assert_eq!(refused.status(), 400);
    }
    let refused = call(&lambda, "Plain", Some("acme"), json!({})).await.unwrap_err();
    assert_eq!(refused.code(), "InvalidParameterValueException");
    let refused = call(&lambda, "Nobody", None, json!({})).await.unwrap_err();
    assert_eq!(refused.code(), "ResourceNotFoundException");
    assert_eq!(lambda.processes().len(), 0);

    for tenant in ["a b", "a._:/=+-@Z9", &"x".repeat(256)] {
        assert_eq!(check_tenant(true, Some(tenant)), Ok(()), "{tenant}");
    }
}

#[tokio::test]
async fn a_failing_handler_keeps_its_process_and_a_crash_ends_it() {
    let lambda = lambda(settings());
    let failed = ask(&lambda, "acme", json!({"do": "fail"})).await;
    assert_eq!(error(&failed).1, "the event asked for it");
    let panicked = ask(&lambda, "acme", json!({"do": "panic"})).await;
    assert!(error(&panicked).1.contains("panicked"), "{panicked:?}");
    assert_eq!(lambda.processes().len(), 1);

    let exited = ask(&lambda, "acme", json!({"do": "exit", "code": 101})).await;
    assert_eq!(
        error(&exited),
        (
            "Runtime.ExitError".to_owned(),
            "Runtime exited with error: exit status 101".to_owned()
        )
    );
    let gone = until(&lambda, |processes| {
        processes[0].state == ProcessState::Ended(End::Exited)
    })
    .await;
    assert_eq!(gone[0].invocations, 3);

    let aborted = ask(&lambda, "acme", json!({"do": "abort"})).await;
    assert_eq!(error(&aborted).1, "Runtime exited with error: signal: aborted");
    ok(&ask(&lambda, "acme", json!({})).await);
    assert_eq!(lambda.processes().len(), 3);
}

#[tokio::test]
async fn a_time_out_kills_the_process() {
    let lambda = with(|function| function.timeout = Duration::from_secs(1), settings());
    ok(&ask(&lambda, "acme", json!({})).await);
    let hung = ask(&lambda, "acme", json!({"do": "hang"})).await;
    assert_eq!(
        error(&hung),
        (
            "Sandbox.Timedout".to_owned(),
            "Task timed out after 1.00 seconds".to_owned()
        )
    );
    let processes = until(&lambda, |processes| {
        processes[0].state == ProcessState::Ended(End::TimedOut)
    })
    .await;
    assert!(!runs(processes[0].pid.unwrap()));
    ok(&ask(&lambda, "acme", json!({})).await);
}

#[tokio::test]
async fn a_departed_caller_does_not_stop_the_function() {
    let lambda = with(|function| function.timeout = Duration::from_secs(1), settings());
    let payload = Bytes::from(json!({"do": "hang"}).to_string());
    let id = LogicalId::new("Isolated");
    {
        let departing = lambda.invoke(&id, Some("acme"), payload);
        let busy = until(&lambda, |processes| {
            processes.iter().any(|process| process.state == ProcessState::Busy)
        });
        tokio::select! {
            _ = departing => panic!("it hangs"),
            _ = busy => {}
        }
    }
    until(&lambda, |processes| {
        processes[0].state == ProcessState::Ended(End::TimedOut)
    })
    .await;
}

#[tokio::test]
async fn what_is_too_large_is_refused_on_both_ways() {
    let lambda = lambda(settings());
    let id = LogicalId::new("Isolated");
    let refused = lambda
        .invoke(&id, Some("acme"), Bytes::from(vec![b'1'; MAX_EVENT_BYTES + 1]))
        .await
        .unwrap_err();
    assert_eq!((refused.code(), refused.status()), ("RequestTooLargeException", 413));
    let refused = lambda
        .invoke(&id, Some("acme"), Bytes::from_static(b"{"))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), "InvalidRequestContentException");
    assert_eq!(lambda.processes().len(), 0);
    let padding = "x".repeat(MAX_EVENT_BYTES - r#"{"do":"log","pad":""}"#.len());
    let event = json!({"do": "log", "pad": padding});
    assert_eq!(event.to_string().len(), MAX_EVENT_BYTES);
    ok(&ask(&lambda, "acme", event).await);

    let largest = ask(&lambda, "acme", json!({"do": "big", "bytes": MAX_RESPONSE_BYTES - 2})).await;
    assert_eq!(ok(&largest).as_str().unwrap().len(), MAX_RESPONSE_BYTES - 2);
    let over = ask(&lambda, "acme", json!({"do": "big", "bytes": MAX_RESPONSE_BYTES - 1})).await;
    assert_eq!(
        error(&over),
        (
            "Function.ResponseSizeTooLarge".to_owned(),
            "Response payload size exceeded maximum allowed payload size (6291556 bytes).".to_owned()
        )
    );
    // None of it cost the process its life.
    ok(&ask(&lambda, "acme", json!({})).await);
    assert_eq!(lambda.processes().len(), 1);
}

#[tokio::test]
async fn a_start_that_fails_fails_the_event_that_caused_it() {
    for (start, error_type, message) in [
        ("exit", "Runtime.ExitError", "Runtime exited with error: exit status 3"),
        ("error", "Echo.StartFailed", "the environment asked for it"),
        ("hang", "Sandbox.Timedout", "Init phase timed out after 0.30 seconds"),
    ] {
        let mut settings = settings();
        if start == "hang" {
            settings.start = Duration::from_millis(300);
        }
        let lambda = with(
            |function| {
                function.environment.insert("ECHO_START".to_owned(), start.to_owned());
            },
            settings,
        );
        // More events than processes: each failed start answers one, and the next is tried for the rest.
        let calls = (0..6).map(|_| ask(&lambda, "acme", json!({})));
        for outcome in futures::future::join_all(calls).await {
            assert_eq!(error(&outcome), (error_type.to_owned(), message.to_owned()));
        }
        let processes = until(&lambda, |processes| {
            processes
                .iter()
                .all(|process| process.state == ProcessState::Ended(End::NeverReady))
        })
        .await;
        assert_eq!(processes.len(), 6);
        assert!(processes.iter().all(|process| process.tenants_served.is_empty()));
    }
}

#[tokio::test]
async fn an_idle_process_is_reaped_and_the_next_event_starts_another() {
    let mut settings = settings();
    settings.idle = Duration::from_millis(30);
    let lambda = lambda(settings);
    ok(&ask(&lambda, "acme", json!({})).await);
    let processes = until(&lambda, |processes| {
        processes[0].state == ProcessState::Ended(End::Reaped)
    })
    .await;
    assert!(!runs(processes[0].pid.unwrap()));
    ok(&ask(&lambda, "acme", json!({})).await);
    assert_eq!(lambda.processes().len(), 2);
}

#[tokio::test]
async fn too_many_waiting_events_are_refused() {
    let mut settings = settings();
    settings.processes_per_tenant = 1;
    settings.waiting = 1;
    let lambda = Arc::new(lambda(settings));
    let busy = tokio::spawn({
        let lambda = Arc::clone(&lambda);
        async move { call(&lambda, "Isolated", Some("acme"), json!({"do": "hang"})).await }
    });
    until(&lambda, |processes| {
        processes.iter().any(|process| process.state == ProcessState::Busy)
    })
    .await;
    let mut waiting = std::pin::pin!(call(&lambda, "Isolated", Some("acme"), json!({})));
    assert!(futures::poll!(&mut waiting).is_pending());
    let refused = call(&lambda, "Isolated", Some("acme"), json!({})).await.unwrap_err();
    assert_eq!((refused.code(), refused.status()), ("TooManyRequestsException", 429));
    // Another tenant has processes of its own.
    ok(&ask(&lambda, "globex", json!({})).await);

    lambda.stop().await;
    assert_eq!(busy.await.unwrap().unwrap_err().code(), "ServiceException");
    assert_eq!(waiting.await.unwrap_err().code(), "ServiceException");
}

#[tokio::test]
async fn stopping_leaves_no_process_behind() {
    let lambda = lambda(settings());
    ok(&ask(&lambda, "acme", json!({})).await);
    ok(&ask(&lambda, "globex", json!({})).await);
    let pids: Vec<u32> = lambda.processes().iter().filter_map(|process| process.pid).collect();
    assert!(pids.len() == 2 && pids.iter().all(|pid| runs(*pid)));
    lambda.stop().await;
    assert!(!pids.iter().any(|pid| runs(*pid)));
    let ended = ProcessState::Ended(End::Stopped);
    assert!(lambda.processes().iter().all(|process| process.state == ended));
    let refused = call(&lambda, "Isolated", Some("acme"), json!({})).await.unwrap_err();
    assert_eq!(refused.code(), "ServiceException");
    assert_eq!(lambda.processes().len(), 2);
}

#[test]
fn dropping_the_emulator_or_its_runtime_kills_the_processes() {
    for drop_runtime_first in [false, true] {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let lambda = lambda(settings());
        let answer = runtime.block_on(ask(&lambda, "acme", json!({})));
        let pid = u32::try_from(ok(&answer)["pid"].as_u64().unwrap()).unwrap();
        assert!(runs(pid));
        if drop_runtime_first {
            drop(runtime);
            drop(lambda);
        } else {
            drop(lambda);
            // The supervisors have to run to see it.
            let deadline = Instant::now() + PATIENCE;
            while runs(pid) && Instant::now() < deadline {
                runtime.block_on(tokio::task::yield_now());
            }
        }
        let deadline = Instant::now() + PATIENCE;
        while runs(pid) {
            assert!(Instant::now() < deadline, "{pid} lives");
            std::thread::yield_now();
        }
    }
}

#[tokio::test]
async fn output_is_kept_with_its_function_tenant_and_process() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings();
    settings.log_file = Some(folder.path().join("functions.jsonl"));
    let lambda = lambda(settings);
    ask(&lambda, "acme", json!({"do": "log", "text": "of acme"})).await;
    ask(&lambda, "globex", json!({"do": "log", "text": "of globex"})).await;
    lambda.stop().await;
    for (process, tenant) in lambda.processes().iter().zip(["acme", "globex"]) {
        let own: Vec<(LogStream, String)> = lambda
            .logs()
            .into_iter()
            .filter(|line| line.process == process.id)
            .inspect(|line| {
                assert_eq!(line.tenant.as_deref(), Some(tenant));
                assert_eq!(line.function, LogicalId::new("Isolated"));
            })
            .map(|line| (line.stream, line.text))
            .collect();
        let text = format!("of {tenant}");
        assert!(own.contains(&(LogStream::Stdout, text.clone())), "{own:?}");
        assert!(own.contains(&(LogStream::Stderr, text)), "{own:?}");
    }
    let written = std::fs::read_to_string(folder.path().join("functions.jsonl")).unwrap();
    assert_eq!(written.lines().count(), lambda.logs().len());
}

#[test]
fn a_missing_binary_and_a_large_environment_stop_the_start() {
    let mut missing = function("Isolated", true);
    missing.package = "nothing".to_owned();
    let error = Lambda::new(&[missing], settings()).unwrap_err().to_string();
    assert!(error.starts_with("Isolated: there is no binary "), "{error}");

    let mut large = function("Isolated", true);
    large.environment = BTreeMap::from([("A".to_owned(), "x".repeat(MAX_ENVIRONMENT_BYTES))]);
    let error = Lambda::new(&[large.clone()], settings()).unwrap_err().to_string();
    assert_eq!(
        error,
        "Isolated: its environment variables have 4097 bytes, and Lambda takes 4096"
    );
    large.environment = BTreeMap::from([("A".to_owned(), "x".repeat(MAX_ENVIRONMENT_BYTES - 1))]);
    assert!(Lambda::new(&[large], settings()).is_ok());
}
