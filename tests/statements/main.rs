//! Whether every statement of the template's policies is needed, and would be missed.
//!
//! Reads what one run of the suite has noted (`integration_tests::decision`): which statements decided a call, and for which
//! tests. Every other statement stands in `infra/unused-statements.yaml` with a reason. Then some random ones of the used
//! are taken away, one at a time, and the tests that used them run again: they have to fail. Not here: whether a statement
//! is wide (that is read in the template), and a run of the whole suite.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use bulkhead_local::authority::Authority;
use bulkhead_local::document::{self, ShortForm};
use clap::Parser;
use integration_tests::{decision, repository};

/// How many of the tests that used a statement run without it.
const TESTS: usize = 2;
/// Modules whose tests take long, because they begin many stacks or ask very often. They are taken where no other used a
/// statement.
const SLOW: [&str; 6] = ["canary::", "crash::", "fuzz::", "restart::", "smoke::", "isolation::"];

#[derive(Parser)]
#[command(
    about = "Are the template's statements used, and missed?",
    disable_version_flag = true
)]
struct Arguments {
    /// What the suite noted
    #[arg(long)]
    decisions: PathBuf,
    /// The suite's binary
    #[arg(long)]
    suite: PathBuf,
    /// How many statements to take away
    #[arg(long, default_value_t = 5)]
    count: usize,
    /// Take these away instead
    #[arg(long)]
    without: Vec<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let used = decision::read(&arguments.decisions);
    let mut out = std::io::stdout().lock();
    let authority = Authority::new(&repository::whole_template(), &[], None).expect("the policies are understood");
    let all: BTreeSet<String> = authority.statements().iter().map(ToString::to_string).collect();
    let excused = excused();
    let mut wrong = Vec::new();
    for statement in &all {
        match (used.contains_key(statement), excused.get(statement)) {
            (false, None) => wrong.push(format!(
                "{statement}: no test used it; infra/unused-statements.yaml has no reason"
            )),
            (true, Some(_)) => wrong.push(format!(
                "{statement}: it is used; take it out of infra/unused-statements.yaml"
            )),
            _ => {}
        }
    }
    for statement in excused.keys().filter(|statement| !all.contains(*statement)) {
        wrong.push(format!(
            "{statement}: no such statement; take it out of infra/unused-statements.yaml"
        ));
    }
    let _ = writeln!(
        out,
        "{} statements, {} used, {} excused",
        all.len(),
        all.iter().filter(|statement| used.contains_key(*statement)).count(),
        excused.len()
    );

    let chosen = if arguments.without.is_empty() {
        shuffled(
            used.keys()
                .filter(|statement| all.contains(*statement))
                .cloned()
                .collect(),
        )
        .into_iter()
        .take(arguments.count)
        .collect()
    } else {
        arguments.without
    };
    for statement in chosen {
        let tests = used.get(&statement).map(quick).unwrap_or_default();
        if tests.is_empty() {
            wrong.push(format!("{statement}: used, and no test is known to have done so"));
            continue;
        }
        let begun = Instant::now();
        // A test that is red by itself would show nothing.
        if !run(&arguments.suite, None, &tests).0 {
            wrong.push(format!("{statement}: its tests are red with it: {}", tests.join(", ")));
            continue;
        }
        let missed = is_missed(&arguments.suite, &statement, &tests);
        let _ = writeln!(
            out,
            "without {statement}: {} in {:.1} s ({})",
            if missed { "red" } else { "STILL GREEN" },
            begun.elapsed().as_secs_f64(),
            tests.join(", ")
        );
        if !missed {
            wrong.push(format!("{statement}: nothing went red without it"));
        }
    }
    for line in &wrong {
        let _ = writeln!(out, "WRONG {line}");
    }
    if wrong.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The statements that no test uses, with the reason of each.
fn excused() -> BTreeMap<String, String> {
    let file = repository::root().join("infra/unused-statements.yaml");
    let document = document::load(&file, ShortForm::Refused).expect("infra/unused-statements.yaml reads");
    let reasons = document.as_object().expect("a mapping from statement to reason");
    let reasons = reasons.iter().map(|(statement, reason)| {
        let reason = reason.as_str().filter(|reason| reason.len() >= 20);
        (statement.clone(), reason.expect("a reason that says why").to_owned())
    });
    reasons.collect()
}

/// A few of the tests, quick ones if there are any.
fn quick(tests: &BTreeSet<String>) -> Vec<String> {
    let (slow, quick): (Vec<String>, Vec<String>) = tests
        .iter()
        .cloned()
        .partition(|test| SLOW.iter().any(|module| test.starts_with(module)));
    let tests = if quick.is_empty() { slow } else { quick };
    shuffled(tests).into_iter().take(TESTS).collect()
}

/// Whether at least one of the tests fails without the statement.
fn is_missed(suite: &Path, statement: &str, tests: &[String]) -> bool {
    let (green, text) = run(suite, Some(statement), tests);
    // Not "ended badly": a suite that can't begin at all has shown nothing.
    !green && text.contains("test result: FAILED")
}

/// Runs some of the tests, and says whether all are green.
fn run(suite: &Path, without: Option<&str>, tests: &[String]) -> (bool, String) {
    let output = Command::new(suite)
        .arg("--exact")
        .args(tests)
        .current_dir(repository::root().join("tests"))
        .env(decision::WITHOUT_VARIABLE, without.unwrap_or_default())
        .env_remove(decision::LOG_VARIABLE)
        .stdin(Stdio::null())
        .output()
        .expect("the suite runs");
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

/// In an order of no meaning, by random hashes.
fn shuffled(mut items: Vec<String>) -> Vec<String> {
    use std::hash::{BuildHasher as _, RandomState};
    let order = RandomState::new();
    items.sort_by_key(|item| order.hash_one(item));
    items
}
