//! The command line as a pipeline uses it: exit statuses, and what is printed where.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails as they do")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::{Command, Output};

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

fn smoke(url: &str, token_command: &str, further: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bulkhead"))
        .args(["smoke", "--url", url, "--token-command", token_command])
        .args(further)
        .output()
        .unwrap()
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// A server that has nothing but answers.
fn empty_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // No body is waited for: the head is all that is looked at.
            let head = BufReader::new(stream.try_clone().unwrap()).lines();
            head.map_while(Result::ok).take_while(|line| !line.is_empty()).count();
            let answer = "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
            // A client that has gone has nothing to be told.
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    url
}

#[test]
fn what_can_not_be_tried_is_2() {
    let empty = empty_server();
    for (url, token_command, why) in [
        ("http://api.example.com/v1", "true", "https only"),
        ("api.example.com", "true", "--url api.example.com"),
        ("http://127.0.0.1:9/v1", "true", "does not answer"),
        (
            &empty,
            "echo secret; echo nobody is called that >&2; exit 7",
            "exit status: 7: nobody is called that",
        ),
    ] {
        let (status, printed, complaint) = said(&smoke(url, token_command, &[]));
        assert_eq!((status, printed.as_str()), (Some(2), ""), "{complaint}");
        assert!(complaint.contains(why) && !complaint.contains("secret"), "{complaint}");
    }
    let (status, _, complaint) = said(&smoke(&empty, "true", &["--no-guardrail", "--guardrail-string", "x"]));
    assert_eq!(status, Some(2), "{complaint}");
}

#[test]
fn what_is_wrong_is_1_and_named_for_people_and_machines() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.json");
    let claims = BASE64URL_NOPAD.encode(json!({"exp": 4_102_444_800_u64}).to_string().as_bytes());
    let token_command = format!("echo e30.{claims}.c2ln");
    let output = smoke(&empty_server(), &token_command, &["--json", file.to_str().unwrap()]);
    let (status, printed, complaint) = said(&output);
    assert_eq!(status, Some(1), "{printed}{complaint}");
    let health = printed
        .lines()
        .find(|line| line.contains("GET /health answers"))
        .unwrap();
    assert!(health.contains("WRONG"), "{printed}");
    let report: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let result = |part: &str| checks.iter().find(|check| check["part"] == part).unwrap()["result"].clone();
    assert_eq!(
        (result("gateway"), result("isolation")),
        (json!("wrong"), json!("skipped"))
    );
    let counts = ["ok", "wrong", "skipped"].map(|count| report[count].as_u64().unwrap());
    assert_eq!(counts.iter().sum::<u64>(), checks.len() as u64);
    let last = printed.lines().last().unwrap();
    assert!(last.contains(&format!("{} WRONG", counts[1])), "{last}");
    assert!(!printed.contains(&claims) && !report.to_string().contains(&claims));
}
