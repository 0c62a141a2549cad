//! The tests, and what the integration suite notes of the policies' statements while it runs.
//!
//! What is done with the notes is the suite's own program (`tests/statements`), because it needs the local stack. Not here:
//! any check of its own.

use std::num::NonZero;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::workspace::{Workspace, check};

/// The variable that names the file of notes.
const DECISIONS: &str = "SUITE_DECISIONS";

/// How many tests run at a time, of each test binary (<https://doc.rust-lang.org/rustc/tests/index.html>).
const THREADS: &str = "RUST_TEST_THREADS";

/// Every test of the workspace.
///
/// # Errors
/// If one fails.
pub fn test(workspace: &Workspace) -> anyhow::Result<()> {
    let notes = notes(workspace);
    if notes.exists() {
        std::fs::remove_file(&notes).with_context(|| notes.display().to_string())?;
    }
    // Many of them wait for what other processes do, so that two for each core are quicker and not too many.
    let threads = 2 * std::thread::available_parallelism().map_or(1, NonZero::get);
    let mut command = workspace.cargo_command();
    command.args(["test", "--workspace"]).env(DECISIONS, &notes);
    if std::env::var_os(THREADS).is_none() {
        command.env(THREADS, threads.to_string());
    }
    check(&mut command)
}

/// Whether the suite that ran last used every statement of the template's policies, and would miss some random ones.
///
/// # Errors
/// If it did not, or the suite has not run.
pub fn statements(workspace: &Workspace) -> anyhow::Result<()> {
    let notes = notes(workspace);
    if !notes.is_file() {
        bail!("{} is missing: the suite has not run", notes.display());
    }
    let built = workspace
        .cargo_command()
        .args(["test", "--workspace", "--no-run", "--message-format=json"])
        .stderr(Stdio::inherit())
        .output()?;
    if !built.status.success() {
        bail!("the tests don't build");
    }
    let program = executable(&built.stdout, "statements", "bin")?;
    let suite = executable(&built.stdout, "it", "test")?;
    let mut command = workspace.command(program);
    check(command.arg("--decisions").arg(notes).arg("--suite").arg(suite))
}

fn notes(workspace: &Workspace) -> PathBuf {
    workspace.target.join("decisions.jsonl")
}

/// Where cargo put a target, by its messages (<https://doc.rust-lang.org/cargo/reference/external-tools.html>).
fn executable(messages: &[u8], name: &str, kind: &str) -> anyhow::Result<PathBuf> {
    let messages = serde_json::Deserializer::from_slice(messages).into_iter::<Value>();
    for message in messages {
        let message = message.context("cargo's messages")?;
        let target = message.get("target");
        let is = |member: &str, value: Value| target.and_then(|target| target.get(member)) == Some(&value);
        if is("name", name.into())
            && is("kind", vec![kind].into())
            && let Some(path) = message.get("executable").and_then(Value::as_str)
        {
            return Ok(path.into());
        }
    }
    bail!("cargo built no {kind} `{name}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_found_by_name_and_kind() {
        let messages = br#"{"reason":"compiler-artifact","target":{"name":"it","kind":["lib"]},"executable":null}
            {"reason":"compiler-artifact","target":{"name":"it","kind":["test"]},"executable":"/x/it-1"}
            {"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages, "it", "test").unwrap(), PathBuf::from("/x/it-1"));
        assert!(executable(messages, "it", "bin").is_err());
        assert!(executable(b"{", "it", "test").is_err());
    }
}
