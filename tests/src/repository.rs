//! The repository's own files, as the suite reads them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use bulkhead_local::document::{self, ShortForm};
use bulkhead_local::template::{Settings, Template};
use serde_json::Value;

/// The workspace's root.
///
/// # Panics
/// The suite's folder has no parent.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the suite's folder has a parent")
        .to_path_buf()
}

/// The contract as it is written, intrinsics unresolved.
///
/// # Panics
/// It can't be read.
pub fn contract() -> Value {
    document::load(&root().join("openapi/gateway.yaml"), ShortForm::Refused).expect("the contract reads")
}

/// The template, resolved, with the contract in it.
///
/// # Panics
/// It can't be read.
pub fn template() -> Template {
    Template::load(&root().join("infra/template.yaml"), &Settings::default()).expect("the template reads")
}

/// As [`template`], with everything that a parameter can add.
///
/// # Panics
/// It can't be read.
pub fn whole_template() -> Template {
    let settings = Settings {
        parameters: BTreeMap::from([
            ("ModelInvocationLogging".to_owned(), "true".to_owned()),
            (
                "EarlierInvocationLoggingRole".to_owned(),
                "arn:aws:iam::123456789012:role/earlier".to_owned(),
            ),
        ]),
        ..Settings::default()
    };
    Template::load(&root().join("infra/template.yaml"), &settings).expect("the template reads")
}

/// A crate's Rust sources.
///
/// # Panics
/// They can't be listed.
pub fn sources(package: &str) -> Vec<PathBuf> {
    let mut folders = vec![root().join(package).join("src")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder lists") {
            let path = entry.expect("a folder lists").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files
}

/// The folder of the Python programs that `infra/requirements.txt` pins, installed if need be. Blocks until they are.
///
/// # Panics
/// They can't be installed.
pub fn python_tools() -> &'static Path {
    // Once in the process: tests that run side by side would install into one folder.
    static TOOLS: OnceLock<PathBuf> = OnceLock::new();
    TOOLS.get_or_init(|| installed("lint"))
}

/// The SAM CLI that `infra/requirements-sam.txt` pins, installed if need be. Blocks until it is.
///
/// # Panics
/// It can't be installed.
pub fn sam() -> PathBuf {
    installed("sam").join("sam")
}

/// The folder of a set of Python programs, as `cargo xtask python` names sets.
fn installed(tools: &str) -> PathBuf {
    let output = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--package", "xtask", "--", "python", tools])
        .current_dir(root())
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo xtask python {tools}: {}", output.status);
    let output = String::from_utf8(output.stdout).expect("a path in UTF-8");
    let python = Path::new(output.lines().last().expect("a path"));
    python.parent().expect("a folder").to_path_buf()
}
