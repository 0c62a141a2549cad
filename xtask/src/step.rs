//! Named steps that run one after another, and the table of how they went.
//!
//! A failed step does not stop the next ones: whoever waited minutes for the first finding wants the others too.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::workspace::Workspace;

/// One check.
#[derive(Clone, Copy)]
pub struct Step {
    /// What the table calls it.
    pub name: &'static str,
    /// Does it. Its output goes to the terminal as it comes.
    pub run: fn(&Workspace) -> anyhow::Result<()>,
}

/// Runs all steps and prints how each of them went; a failure of one is a failure of all.
///
/// # Errors
/// Only if standard output is gone.
pub fn run_all(workspace: &Workspace, steps: &[Step]) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let mut outcomes = Vec::with_capacity(steps.len());
    for (index, step) in steps.iter().enumerate() {
        writeln!(
            std::io::stdout().lock(),
            "\n==> {} ({} of {})",
            step.name,
            index + 1,
            steps.len()
        )?;
        let started = Instant::now();
        let result = (step.run)(workspace);
        let seconds = started.elapsed();
        if let Err(error) = &result {
            writeln!(std::io::stdout().lock(), "{} failed: {error:#}", step.name)?;
        }
        outcomes.push((step.name, result.is_ok(), seconds));
    }
    let mut out = std::io::stdout().lock();
    write!(out, "\n{}", table(&outcomes, begun.elapsed()))?;
    Ok(if outcomes.iter().all(|(_, passed, _)| *passed) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A line per step, and one for all.
fn table(outcomes: &[(&str, bool, Duration)], total: Duration) -> String {
    let mut lines = String::new();
    for (name, passed, time) in outcomes {
        let verdict = if *passed { "ok" } else { "FAILED" };
        lines.push_str(&format!("{name:<12} {verdict:<7} {:>7.1} s\n", time.as_secs_f64()));
    }
    let failed = outcomes.iter().filter(|(_, passed, _)| !passed).count();
    let verdict = if failed == 0 {
        "ok".to_owned()
    } else {
        format!("{failed} failed")
    };
    lines.push_str(&format!("{:<12} {verdict:<7} {:>7.1} s\n", "all", total.as_secs_f64()));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_what_failed() {
        let second = Duration::from_secs(1);
        let table = table(&[("format", true, second), ("clippy", false, second)], second * 2);
        assert_eq!(
            table,
            "format       ok          1.0 s\nclippy       FAILED      1.0 s\nall          1 failed     2.0 s\n"
        );
    }
}
