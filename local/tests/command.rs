//! The command line as a newcomer types it: the real binary, the real functions.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bulkhead_local::ready::Ready;

const PROGRAM: &str = env!("CARGO_BIN_EXE_bulkhead-local");

#[test]
fn the_demonstration_ends_well() {
    let output = Command::new(PROGRAM)
        .arg("demo")
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    for expected in ["The Piggyback", "No exact answer", "tenant_unknown"] {
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn a_stack_that_is_up_takes_an_upload_answers_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let ready_file = folder.path().join("ready.json");
    let mut up = Command::new(PROGRAM)
        .args(["up", "--port", "0", "--no-demo", "--tenant", "harbour", "--data"])
        .arg(folder.path().join("data"))
        .arg("--ready-file")
        .arg(&ready_file)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let lines = BufReader::new(up.stdout.take().unwrap()).lines();
    // Printed after everything is ready; the pipe is read to here so that nothing is guessed at.
    let printed: Vec<String> = lines
        .map_while(Result::ok)
        .take_while(|line| !line.contains("cargo run -- ask"))
        .collect();
    assert!(printed.iter().any(|line| line.starts_with("Ready in")), "{printed:?}");
    let ready = Ready::read(&ready_file).unwrap();
    assert_eq!(ready.pid, up.id());

    let run = |arguments: &[&str]| {
        let output = Command::new(PROGRAM)
            .args(arguments)
            .arg("--ready-file")
            .arg(&ready_file)
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let document = folder.path().join("harbour.md");
    std::fs::write(&document, "# Harbour\n\nThe harbour master is called Quill.\n").unwrap();
    let (good, text) = run(&["upload", "--tenant", "harbour", document.to_str().unwrap()]);
    assert!(good && text.contains("indexed"), "{text}");
    let (good, text) = run(&["ask", "--tenant", "harbour", "What is the harbour master called?"]);
    assert!(good && text.contains("Quill") && text.contains("harbour.md"), "{text}");
    let (good, text) = run(&["token", "--tenant", "harbour", "--role", "admin"]);
    assert!(good && text.trim().split('.').count() == 3, "{text}");
    let second = Command::new(PROGRAM)
        .args(["up", "--port", "0", "--no-demo", "--data"])
        .arg(folder.path().join("data"))
        .output()
        .unwrap();
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("another stack uses"), "{said}");

    let listed = Command::new("ps")
        .args(["-o", "pid=", "--ppid", &up.id().to_string()])
        .output()
        .unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let children: Vec<&str> = listed.split_whitespace().collect();
    assert!(!children.is_empty());
    assert!(
        Command::new("kill")
            .args(["-INT", &up.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    let begun = Instant::now();
    while up.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(30), "Ctrl-C does not stop it");
        std::thread::yield_now();
    }
    assert!(up.wait().unwrap().success());
    for child in children {
        assert!(
            !std::path::Path::new(&format!("/proc/{child}")).exists(),
            "process {child} was left behind"
        );
    }
    assert!(!ready_file.exists());
}
