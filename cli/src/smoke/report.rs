//! What came of a smoke test: as lines for people, and as JSON for pipelines.

use std::fmt;

use serde_json::{Value, json};

use crate::lock::Lock;

/// The widths of the columns of [`Finding`]'s text.
const PART_WIDTH: usize = 10;
pub(super) const CHECK_WIDTH: usize = 62;
const OUTCOME_WIDTH: usize = 8;
const LOCK_WIDTH: usize = 18;

/// How a check came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should; perhaps with something that was measured.
    Ok(Option<String>),
    /// Not as it should.
    Wrong(String),
    /// It was not tried.
    Skipped(String),
}

impl Outcome {
    fn name(&self) -> &'static str {
        match self {
            Self::Ok(_) => "ok",
            Self::Wrong(_) => "WRONG",
            Self::Skipped(_) => "skipped",
        }
    }

    fn note(&self) -> Option<&str> {
        match self {
            Self::Ok(note) => note.as_deref(),
            Self::Wrong(note) | Self::Skipped(note) => Some(note),
        }
    }
}

/// One check's outcome. Its text is one line, and a second one if there is more to say.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The part of the smoke test.
    pub part: &'static str,
    /// The check.
    pub check: &'static str,
    /// What the refusal that was looked for is expected to rest on; none if none was looked for.
    pub rests_on: Option<Lock>,
    /// How it came out.
    pub outcome: Outcome,
    /// How long it took, in seconds.
    pub seconds: f64,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lock = self.rests_on.map_or("", Lock::name);
        let (outcome, seconds) = (self.outcome.name(), self.seconds);
        write!(
            f,
            "{:PART_WIDTH$}  {:CHECK_WIDTH$}  {outcome:OUTCOME_WIDTH$}  {lock:LOCK_WIDTH$}{seconds:7.1} s",
            self.part, self.check
        )?;
        match self.outcome.note() {
            Some(note) => write!(f, "\n{:PART_WIDTH$}    {}", "", note.replace('\n', " ")),
            None => Ok(()),
        }
    }
}

/// What came of it all.
#[derive(Clone, Debug)]
pub struct Report {
    /// The deployment's base URL.
    pub deployment: String,
    /// Every check, in the order in which they were done.
    pub findings: Vec<Finding>,
    /// Whether it was interrupted.
    pub interrupted: bool,
    /// How long it took, in seconds.
    pub seconds: f64,
}

impl Report {
    pub(super) fn new(deployment: &str) -> Self {
        Self {
            deployment: deployment.to_owned(),
            findings: Vec::new(),
            interrupted: false,
            seconds: 0.0,
        }
    }

    /// The heading of the findings' lines.
    pub fn heading() -> String {
        format!(
            "{:PART_WIDTH$}  {:CHECK_WIDTH$}  {:OUTCOME_WIDTH$}  {:LOCK_WIDTH$}{:>9}",
            "part", "check", "result", "rests on", "time"
        )
    }

    /// What is wrong.
    pub fn wrong(&self) -> impl Iterator<Item = &Finding> {
        let is_wrong = |finding: &&Finding| matches!(finding.outcome, Outcome::Wrong(_));
        self.findings.iter().filter(is_wrong)
    }

    pub(super) fn is_wrong_in(&self, part: &str) -> bool {
        self.wrong().any(|finding| finding.part == part)
    }

    fn count(&self, name: &str) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.outcome.name() == name)
            .count()
    }

    /// The same for machines.
    pub fn json(&self) -> Value {
        let checks = self.findings.iter().map(|finding| {
            json!({
                "part": finding.part,
                "check": finding.check,
                "result": finding.outcome.name().to_lowercase(),
                "note": finding.outcome.note(),
                "rests_on": finding.rests_on.map(Lock::name),
                "seconds": finding.seconds,
            })
        });
        json!({
            "deployment": self.deployment,
            "interrupted": self.interrupted,
            "ok": self.count("ok"),
            "wrong": self.count("WRONG"),
            "skipped": self.count("skipped"),
            "seconds": self.seconds,
            "checks": checks.collect::<Vec<_>>(),
        })
    }
}

/// The last line: the counts.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} checks: {} ok, {} WRONG, {} skipped, in {:.1} s",
            self.findings.len(),
            self.count("ok"),
            self.count("WRONG"),
            self.count("skipped"),
            self.seconds
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(outcome: Outcome) -> Finding {
        Finding {
            part: "gateway",
            check: "health",
            rests_on: Some(Lock::Identity),
            outcome,
            seconds: 0.25,
        }
    }

    #[test]
    fn people_and_machines_are_told_the_same() {
        let mut report = Report::new("http://127.0.0.1/v1");
        for outcome in [
            Outcome::Ok(None),
            Outcome::Wrong("500 instead\nof 200".to_owned()),
            Outcome::Skipped("needs tenant".to_owned()),
        ] {
            report.findings.push(finding(outcome));
        }
        assert!(report.is_wrong_in("gateway") && !report.is_wrong_in("tenant"));
        assert_eq!(report.to_string(), "3 checks: 1 ok, 1 WRONG, 1 skipped, in 0.0 s");
        let text: Vec<String> = report.findings.iter().map(Finding::to_string).collect();
        assert_eq!(text[0].len(), Report::heading().len());
        assert!(text[1].ends_with("\n              500 instead of 200"), "{}", text[1]);
        let json = report.json();
        assert_eq!(
            (&json["ok"], &json["wrong"], &json["skipped"]),
            (&json!(1), &json!(1), &json!(1))
        );
        assert_eq!(
            json["checks"][1],
            json!({
                "part": "gateway", "check": "health", "result": "wrong", "note": "500 instead\nof 200",
                "rests_on": "1 identity", "seconds": 0.25,
            })
        );
    }
}
