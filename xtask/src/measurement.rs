//! How a function starts: the time until it asks for its first event, and its memory then.
//!
//! The runtime API here has one answer, none: it notes when `GET …/next` arrives and ends the process. Nothing of what the
//! function does with an event is measured; benches do that.

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// What a function is given at the start, all functions the same. Nobody is called before the first event, so no address
/// needs to exist.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
    ("AWS_DEFAULT_REGION", "us-east-1"),
    ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512"),
    ("AWS_LAMBDA_FUNCTION_NAME", "measured"),
    ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
    ("AWS_LAMBDA_HTTP_IGNORE_STAGE_IN_PATH", "true"),
    ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
    ("AWS_LAMBDA_LOG_FORMAT", "JSON"),
    ("AWS_REGION", "us-east-1"),
    ("AWS_SECRET_ACCESS_KEY", "secret-example"),
    ("AWS_SESSION_TOKEN", "token-example"),
    ("BULKHEAD_ANSWER_MAX_SECS", "120"),
    ("BULKHEAD_BUCKET_NAME", "bulkhead-123456789012-us-east-1"),
    ("BULKHEAD_DATA_ROLE_ARN", "arn:aws:iam::123456789012:role/data-role"),
    ("BULKHEAD_DATA_SOURCE_ID", "DSEXAMPLE1"),
    ("BULKHEAD_GUARDRAIL_ID", ""),
    ("BULKHEAD_GUARDRAIL_PASSAGES", "false"),
    ("BULKHEAD_GUARDRAIL_VERSION", ""),
    ("BULKHEAD_HEARTBEAT_SECS", "15"),
    ("BULKHEAD_INGESTION_STATUS_MAX_AGE_SECS", "5"),
    (
        "BULKHEAD_ISSUERS",
        r#"[{"issuer":"https://issuer.example.com","audiences":["bulkhead"],"algorithms":["RS256"],"tenants":"*"}]"#,
    ),
    ("BULKHEAD_JWKS_COOLDOWN_SECS", "10"),
    ("BULKHEAD_JWKS_MAX_AGE_SECS", "300"),
    ("BULKHEAD_JWKS_MAX_STALE_SECS", "3600"),
    ("BULKHEAD_JWKS_TIMEOUT_MS", "2500"),
    ("BULKHEAD_KNOWLEDGE_BASE_ID", "KBEXAMPLE1"),
    ("BULKHEAD_MAX_TOKENS", "1024"),
    ("BULKHEAD_METRIC_NAMESPACE", "Bulkhead/measured"),
    (
        "BULKHEAD_MODELS",
        r#"{"default":"arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-lite-v1:0"}"#,
    ),
    (
        "BULKHEAD_PARAMETER_NAME",
        "/bulkhead/bulkhead/model-invocation-logging/before",
    ),
    ("BULKHEAD_PLANS", r#"{"standard":{}}"#),
    ("BULKHEAD_QUERY_DECOMPOSITION", "false"),
    ("BULKHEAD_STATUS_MAX_AGE_SECS", "20"),
    ("BULKHEAD_STATUS_RECHECK_SECS", "20"),
    ("BULKHEAD_TABLE_NAME", "bulkhead"),
    ("BULKHEAD_TEMPERATURE", "0"),
    ("BULKHEAD_USER_POOL_ISSUER", ""),
];

/// How long a start may take before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// Medians over several starts.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    /// From the creation of the process to the arrival of its request for the first event.
    pub until_next: Duration,
    /// Resident memory at that point, in bytes; 0 where the system doesn't tell (it does on Linux).
    pub resident: u64,
}

/// Starts `binary` `runs` times, one after another.
///
/// # Errors
/// If a process ends, reports an error, or does not ask for an event within ten seconds.
pub fn start(binary: &Path, runs: u16) -> anyhow::Result<Start> {
    let mut times = Vec::new();
    let mut memory = Vec::new();
    for _ in 0..runs {
        let once = start_once(binary)?;
        times.push(once.until_next);
        memory.push(once.resident);
    }
    Ok(Start {
        until_next: median(times)?,
        resident: median(memory)?,
    })
}

/// One start of one process, which is ended in any case.
fn start_once(binary: &Path) -> anyhow::Result<Start> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    listener.set_nonblocking(true)?;
    let begun = Instant::now();
    let child = Command::new(binary)
        .env_clear()
        .envs(ENVIRONMENT.iter().copied())
        .env("AWS_LAMBDA_RUNTIME_API", listener.local_addr()?.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?;
    let mut child = Ended(child);
    // Open until the memory is read: a function that loses it would end.
    let (_connection, target, until_next) = first_request(&listener, begun, &mut child.0)?;
    if !target.ends_with("/runtime/invocation/next") {
        bail!("it called {target} instead of asking for an event");
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.0.id())).unwrap_or_default();
    Ok(Start {
        until_next,
        resident: resident_bytes(&status).unwrap_or(0),
    })
}

/// Kills and reaps its process when it goes.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Both fail only if the process has ended, which is what they are for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for the process's first request: its connection, its path, and how long after `begun` it came.
fn first_request(
    listener: &TcpListener,
    begun: Instant,
    child: &mut Child,
) -> anyhow::Result<(TcpStream, String, Duration)> {
    loop {
        match listener.accept() {
            Ok((mut stream, _)) => {
                let target = request_target(&mut stream)?;
                return Ok((stream, target, begun.elapsed()));
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(status) = child.try_wait()? {
            bail!("it ended: {status}");
        }
        if begun.elapsed() > PATIENCE {
            bail!("it asked for no event within {PATIENCE:?}");
        }
        // Polling costs at most this much of a measurement of milliseconds.
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// The path in the first line of a request.
fn request_target(stream: &mut TcpStream) -> anyhow::Result<String> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut head = Vec::new();
    while !head.contains(&b'\n') {
        let mut buffer = [0; 1024];
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            bail!("a connection without a request");
        }
        head.extend(buffer.iter().take(read));
    }
    let head = String::from_utf8_lossy(&head);
    Ok(head.split(' ').nth(1).context("a request without a path")?.to_owned())
}

/// `VmRSS` of a `/proc/…/status` (proc(5)), where it is in kibibytes.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The middle one; of an even number the upper of the two.
fn median<T: Ord + Copy>(mut values: Vec<T>) -> anyhow::Result<T> {
    values.sort_unstable();
    values.get(values.len() / 2).copied().context("no measurements")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// Starts a function that is a shell script; `$port` is the runtime API's.
    fn start_script(body: &str) -> anyhow::Result<Start> {
        let folder = tempfile::tempdir()?;
        let script = folder.path().join("bootstrap");
        std::fs::write(
            &script,
            format!("#!/bin/bash\nport=${{AWS_LAMBDA_RUNTIME_API#*:}}\n{body}\n"),
        )?;
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
        start(&script, 3)
    }

    const CALL: &str = r#"exec 3<>/dev/tcp/127.0.0.1/$port; printf "$1 HTTP/1.1\r\n\r\n" >&3; read -r -t 60 <&3"#;

    #[test]
    fn a_function_is_given_what_the_template_gives_it() {
        let template = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/template.yaml"));
        let template = template.unwrap();
        let named = template.lines().filter_map(|line| line.trim_start().split_once(':'));
        let wanted: Vec<&str> = named
            .map(|(name, _)| name)
            .filter(|name| name.starts_with("BULKHEAD_"))
            .collect();
        assert!(wanted.len() > 10, "{wanted:?}");
        for variable in wanted {
            assert!(ENVIRONMENT.iter().any(|(name, _)| *name == variable), "{variable}");
        }
    }

    /// One test, because a process that another thread starts meanwhile would hold the script open for writing.
    #[test]
    fn only_a_function_that_asks_for_an_event_is_measured() {
        let measured = start_script(&CALL.replace("$1", "GET /2018-06-01/runtime/invocation/next")).unwrap();
        assert!(measured.until_next > Duration::ZERO && measured.until_next < PATIENCE);
        assert!(!cfg!(target_os = "linux") || measured.resident > 0);

        let error = start_script(&CALL.replace("$1", "POST /2018-06-01/runtime/init/error")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "it called /2018-06-01/runtime/init/error instead of asking for an event"
        );

        assert_eq!(
            start_script("exit 3").unwrap_err().to_string(),
            "it ended: exit status: 3"
        );
    }

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(
            resident_bytes("Name:\tx\nVmHWM:\t 9 kB\nVmRSS:\t   15872 kB\n"),
            Some(15872 * 1024)
        );
        assert_eq!(resident_bytes("Name:\tx\n"), None);
    }

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median(vec![9, 1, 5]).unwrap(), 5);
        assert!(median(Vec::<u8>::new()).is_err());
    }
}
