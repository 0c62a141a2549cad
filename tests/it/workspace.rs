//! Who may depend on whom, and what no function may link: the rules that keep the locks apart, read from cargo itself.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use integration_tests::repository;
use serde_json::Value;

const FUNCTIONS: [&str; 5] = [
    "authorizer",
    "query-handler",
    "tenant-admin",
    "control-plane",
    "model-logging",
];

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(repository::root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn crates_depend_on_whom_they_may() {
    let metadata = metadata();
    let members: BTreeSet<&str> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| package["name"].as_str().unwrap())
        .collect();
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("bulkhead-core", &[][..]),
        ("authorizer", &["bulkhead-core"][..]),
        ("query-handler", &["bulkhead-core"][..]),
        ("tenant-admin", &["bulkhead-core"][..]),
        ("control-plane", &["bulkhead-core"][..]),
        ("model-logging", &["bulkhead-core"][..]),
        // A mistake in how we build a key must not be able to agree with itself.
        ("bulkhead-local", &[][..]),
        ("bulkhead-cli", &[][..]),
        ("integration-tests", &["bulkhead-local", "bulkhead-cli"][..]),
        ("bench", &["bulkhead-local", "bulkhead-cli"][..]),
        ("xtask", &["bulkhead-local"][..]),
    ]);
    assert_eq!(members, allowed.keys().copied().collect());
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        for dependency in package["dependencies"].as_array().unwrap() {
            let dependency = dependency["name"].as_str().unwrap();
            if members.contains(dependency) {
                assert!(
                    allowed[name].contains(&dependency),
                    "{name} may not depend on {dependency}"
                );
            }
        }
    }
}

#[test]
fn functions_link_one_tls_stack_and_one_jwt_back_end() {
    for function in FUNCTIONS {
        let output = Command::new(env!("CARGO"))
            .args([
                "tree",
                "--package",
                function,
                "--edges",
                "normal",
                "--prefix",
                "none",
                "--offline",
            ])
            .args(["--target", "x86_64-unknown-linux-gnu", "--format", "{p} {f}"])
            .current_dir(repository::root())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let tree = String::from_utf8(output.stdout).unwrap();
        let linked = |name: &str| -> BTreeSet<&str> {
            tree.lines()
                .filter(|line| line.split(' ').next() == Some(name))
                .filter_map(|line| line.split(' ').nth(1))
                .collect()
        };
        for banned in ["ring", "openssl", "native-tls", "rsa", "p256", "hyper-rustls-legacy"] {
            assert!(linked(banned).is_empty(), "{function} links {banned}");
        }
        assert!(linked("rustls").len() <= 1, "{function} links two TLS stacks");
        for line in tree.lines().filter(|line| line.starts_with("jsonwebtoken ")) {
            assert!(!line.contains("rust_crypto"), "{function}: {line}");
        }
    }
}

#[test]
fn one_place_reads_the_environment() {
    for package in FUNCTIONS.into_iter().chain(["core"]) {
        for file in repository::sources(package) {
            let text = std::fs::read_to_string(&file).unwrap();
            let reads = text.contains("std::env::var") || text.contains("env::vars") || text.contains("env!(");
            assert_eq!(reads, file.ends_with("core/src/config.rs"), "{}", file.display());
        }
    }
}

#[test]
fn functions_never_ask_where_they_run() {
    for package in FUNCTIONS.into_iter().chain(["core"]) {
        for file in repository::sources(package) {
            let text = std::fs::read_to_string(&file).unwrap().to_lowercase();
            for word in ["is_local", "if local", "localstack", "bulkhead_local"] {
                assert!(!text.contains(word), "{} holds {word}", file.display());
            }
        }
    }
}
