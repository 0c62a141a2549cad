//! The smoke test: what proves a deployment from outside, over HTTP alone, with two tenants of its own.
//!
//! `PARTS` is the list of what is tried, in order. A part is a module: its name, the parts that it builds on, and its checks,
//! each with the lock that a refusal is expected to rest on. What a deployment is later able to do adds a part.
//!
//! The tenants are `smoke-a` and `smoke-b`. They are created if they are missing, emptied at the beginning of what an earlier
//! run left, and emptied and suspended at the end, also after a failure or an interruption. One run at a time: two would
//! clear away each other's documents.
//!
//! Not here: tokens, which a command of the operator's prints ([`crate::token`]), and anything of AWS but one call to Amazon
//! Cognito, where it issues the tokens. No report holds a token, or a text that the smoke test has not made itself.

mod canary;
mod cognito;
mod document;
mod end;
mod gateway;
mod guardrail;
mod isolation;
mod question;
pub mod report;
mod stage;
mod stream;
mod suspension;
mod tenant;

use std::future::Future;
use std::time::Instant;

use futures::future::BoxFuture;

use crate::lock::Lock;
use report::{Finding, Outcome, Report};
use stage::Stage;

/// The tenant that is attacked.
pub const A: &str = "smoke-a";
/// The tenant that attacks, and that is suspended.
pub const B: &str = "smoke-b";

/// What the guardrail of a deployment blocks, unless it is said otherwise.
pub const GUARDRAIL_STRING: &str = "bulkhead-guardrail-test-string";

/// What the smoke test is to try, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The deployment's base URL, stage included.
    pub url: String,
    /// The command that prints tokens.
    pub token_command: String,
    /// A text that the deployment's guardrail blocks; none if it has no guardrail.
    pub guardrail_string: Option<String>,
    /// Whether to begin with a full synchronisation, which a deployment needs once before documents are uploaded.
    pub ingestion: bool,
    /// Amazon Cognito's endpoint. Without it, that of the tokens' issuer if that is Cognito.
    pub cognito_endpoint: Option<String>,
}

/// What a check that found nothing wrong says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is as it should be; perhaps with something that was measured.
    Sound(Option<String>),
    /// It could not be tried, and why that is no fault.
    Skipped(String),
}

impl Verdict {
    const SOUND: Self = Self::Sound(None);

    fn noting(note: impl Into<String>) -> Self {
        Self::Sound(Some(note.into()))
    }

    fn skipped(why: impl Into<String>) -> Self {
        Self::Skipped(why.into())
    }
}

/// One check. An error is what is wrong.
#[derive(Clone, Copy)]
struct Check {
    name: &'static str,
    /// What the refusal that it looks for rests on; none if it looks for none.
    rests_on: Option<Lock>,
    run: for<'a> fn(&'a mut Stage) -> BoxFuture<'a, anyhow::Result<Verdict>>,
}

/// What belongs together.
#[derive(Clone, Copy)]
struct Part {
    name: &'static str,
    /// The parts without which it makes no sense: if one of their checks is wrong, or they were left out themselves, this
    /// one's checks are skipped.
    needs: &'static [&'static str],
    checks: &'static [Check],
}

/// What is tried, in order. The isolation table's rightful caller comes last, because it deletes.
const PARTS: &[Part] = &[
    gateway::PART,
    tenant::PART,
    document::PART,
    question::PART,
    stream::PART,
    guardrail::PART,
    isolation::PART,
    suspension::PART,
    cognito::PART,
    isolation::OWNER,
];

/// Tries everything, tells each finding as soon as there is one, and clears away. When `interrupted` is ready, what is under
/// way is dropped, and only the clearing away is left.
///
/// # Errors
/// Nothing can be tried: the options make no sense, nobody answers, or there is no operator's token.
pub async fn run(
    options: Options,
    tell: &mut dyn FnMut(&Finding),
    interrupted: impl Future<Output = ()>,
) -> anyhow::Result<Report> {
    let begun = Instant::now();
    let mut stage = Stage::new(options)?;
    let mut report = Report::new(stage.deployment.base_url());
    stage.enter().await?;
    {
        let play = async {
            let mut broken = Vec::new();
            for part in PARTS {
                let missing = part.needs.iter().find(|name| broken.contains(*name));
                if let Some(missing) = missing {
                    skip(part, &format!("needs {missing}"), &mut report, tell);
                } else {
                    perform(part, &mut stage, &mut report, tell).await;
                }
                if missing.is_some() || report.is_wrong_in(part.name) {
                    broken.push(part.name);
                }
            }
        };
        tokio::select! {
            () = play => {}
            () = interrupted => report.interrupted = true,
        }
    }
    if report.interrupted {
        for part in PARTS {
            skip(part, "interrupted", &mut report, tell);
        }
    }
    perform(&end::PART, &mut stage, &mut report, tell).await;
    report.seconds = begun.elapsed().as_secs_f64();
    Ok(report)
}

/// Does a part's checks.
async fn perform(part: &Part, stage: &mut Stage, report: &mut Report, tell: &mut dyn FnMut(&Finding)) {
    for check in part.checks {
        let begun = Instant::now();
        let outcome = match (check.run)(stage).await {
            Ok(Verdict::Sound(note)) => Outcome::Ok(note),
            Ok(Verdict::Skipped(why)) => Outcome::Skipped(why),
            Err(error) => Outcome::Wrong(format!("{error:#}")),
        };
        let finding = Finding {
            part: part.name,
            check: check.name,
            rests_on: check.rests_on,
            outcome,
            seconds: begun.elapsed().as_secs_f64(),
        };
        tell(&finding);
        report.findings.push(finding);
    }
}

/// Notes that those of a part's checks that have no finding yet were not tried.
fn skip(part: &Part, why: &str, report: &mut Report, tell: &mut dyn FnMut(&Finding)) {
    for check in part.checks {
        let is_known = |finding: &Finding| (finding.part, finding.check) == (part.name, check.name);
        if report.findings.iter().any(is_known) {
            continue;
        }
        let finding = Finding {
            part: part.name,
            check: check.name,
            rests_on: check.rests_on,
            outcome: Outcome::Skipped(why.to_owned()),
            seconds: 0.0,
        };
        tell(&finding);
        report.findings.push(finding);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_check_has_a_name_of_its_own_and_parts_build_on_earlier_ones() {
        let (mut parts, mut checks) = (BTreeSet::new(), BTreeSet::new());
        for part in PARTS.iter().chain([&end::PART]) {
            assert!(part.needs.iter().all(|name| parts.contains(name)), "{}", part.name);
            assert!(parts.insert(part.name), "{}", part.name);
            for check in part.checks {
                assert!(checks.insert((part.name, check.name)), "{}", check.name);
                assert!(check.name.len() <= report::CHECK_WIDTH, "{} is too long", check.name);
            }
        }
    }
}
