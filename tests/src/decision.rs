//! What the suite notes of the policies' statements while it runs, and how it runs without one of them.
//!
//! One file of JSON lines, which every stack of the run appends to: a statement that decided a call, with the tenant for
//! whom it did; a test that made a tenant; a test that began a stack of its own. Together they say which tests use a
//! statement.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// The variable that names the file. Nothing is noted without it. Not one of `BULKHEAD_…`, which the local stack's command
/// hands to functions.
pub const LOG_VARIABLE: &str = "SUITE_DECISIONS";
/// The variable that names a statement which every stack runs without.
pub const WITHOUT_VARIABLE: &str = "SUITE_WITHOUT_STATEMENT";

/// One line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Note {
    /// A statement decided a call in a stack.
    Decided {
        /// `Role/Policy/Sid`.
        statement: String,
        /// The tenant of the call, if it had one.
        tenant: Option<String>,
        /// The stack.
        stack: String,
    },
    /// A test made a tenant.
    Tenant {
        /// The test's name.
        test: String,
        /// The tenant's id.
        tenant: String,
    },
    /// A test began a stack.
    Stack {
        /// The test's name.
        test: String,
        /// The stack's name.
        stack: String,
    },
}

/// The file, if notes are wanted.
pub fn log() -> Option<PathBuf> {
    std::env::var_os(LOG_VARIABLE)
        .filter(|file| !file.is_empty())
        .map(PathBuf::from)
}

/// The statement that stacks run without.
pub fn without() -> Option<String> {
    std::env::var(WITHOUT_VARIABLE).ok().filter(|name| !name.is_empty())
}

/// The test that this thread runs: the test harness names threads so.
pub fn test() -> Option<String> {
    let thread = std::thread::current();
    thread.name().filter(|name| name.contains("::")).map(str::to_owned)
}

/// Appends a line, if notes are wanted.
///
/// # Panics
/// The file can't be written.
pub fn note(note: &Note) {
    static WRITING: Mutex<()> = Mutex::new(());
    let Some(file) = log() else { return };
    let mut line = serde_json::to_vec(note).expect("a line");
    line.push(b'\n');
    let _one_at_a_time = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let file = OpenOptions::new().create(true).append(true).open(file);
    file.and_then(|mut file| file.write_all(&line))
        .expect("notes of decisions");
}

/// The tests that used each statement.
///
/// # Panics
/// The file is missing, or was not written by this module.
pub fn read(file: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string(file).expect("notes of decisions");
    let notes: Vec<Note> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("a note"))
        .collect();
    let mut of_tenant: BTreeMap<&str, &str> = BTreeMap::new();
    let mut of_stack: BTreeMap<&str, &str> = BTreeMap::new();
    for note in &notes {
        match note {
            Note::Tenant { test, tenant } => of_tenant.insert(tenant, test),
            Note::Stack { test, stack } => of_stack.insert(stack, test),
            Note::Decided { .. } => None,
        };
    }
    // Operators and the authorizer have no tenant: every test that made a tenant has had them at work.
    let makers: BTreeSet<&str> = of_tenant.values().copied().collect();
    let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for note in &notes {
        let Note::Decided {
            statement,
            tenant,
            stack,
        } = note
        else {
            continue;
        };
        let tests = used.entry(statement.clone()).or_default();
        match (
            tenant.as_deref().and_then(|tenant| of_tenant.get(tenant)),
            of_stack.get(stack.as_str()),
        ) {
            (Some(test), _) | (None, Some(test)) => {
                tests.insert((*test).to_owned());
            }
            (None, None) if tenant.is_none() => tests.extend(makers.iter().map(|test| (*test).to_owned())),
            (None, None) => {}
        }
    }
    used
}
