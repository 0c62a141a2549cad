//! The repository's own files, as the suite reads them.

use std::path::{Path, PathBuf};

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
