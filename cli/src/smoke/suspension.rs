//! Suspension: a tenant that is suspended gets nothing any more after a minute, and what it had when it is resumed.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use reqwest::Method;

use super::canary::QUESTION;
use super::stage::{Stage, look, poll};
use super::{B, Check, Part, Verdict, isolation, tenant};
use crate::deployment::Call;
use crate::lock::Lock;

/// How long a suspended tenant may still be served.
const BOUND: Duration = Duration::from_secs(60);

pub(super) const PART: Part = Part {
    name: "suspension",
    needs: &["document"],
    checks: &[
        Check {
            name: "smoke-b's questions and documents are refused within 60 s",
            rests_on: Some(Lock::Identity),
            run: |stage| Box::pin(suspend(stage)),
        },
        Check {
            name: "every operation, suspended tenant",
            rests_on: Some(Lock::Identity),
            run: |stage| Box::pin(everything(stage)),
        },
        Check {
            name: "smoke-b is answered again when it is resumed",
            rests_on: None,
            run: |stage| Box::pin(resume(stage)),
        },
    ],
};

async fn suspend(stage: &mut Stage) -> anyhow::Result<Verdict> {
    // Answered just before, so that every cache holds that it may.
    tenant::answers(stage, B).await?;
    let calls = [
        stage.asking(B, "/genai/retrieve", QUESTION).await?,
        Call::new(Method::GET, "/documents").token(stage.admin(B).await?),
    ];
    for call in &calls {
        stage.deployment.expect(call, 200).await?;
    }
    let suspend = Call::new(Method::POST, format!("/tenants/{B}/suspend")).token(stage.operator().await?);
    stage.deployment.expect(&suspend, 200).await?;
    let begun = Instant::now();
    stage.suspended_at = Some(begun);
    let deployment = &stage.deployment;
    for call in &calls {
        let left = BOUND.saturating_sub(begun.elapsed());
        let refused = poll(left, || look(deployment, call, &[403], &[200])).await?;
        let refused = refused.with_context(|| format!("it is still served after {} s", BOUND.as_secs()))?;
        ensure!(
            refused.code().as_deref() == Some("tenant_suspended"),
            "{} instead of 403 tenant_suspended",
            refused.summary()
        );
    }
    Ok(Verdict::noting(format!("after {:.1} s", begun.elapsed().as_secs_f64())))
}

/// Another environment of a function may have looked at the tenant's status a little later than the one that was asked.
async fn everything(stage: &mut Stage) -> anyhow::Result<Verdict> {
    let at = stage.suspended_at.context("smoke-b is not suspended")?;
    loop {
        let asked_in_time = at.elapsed() < BOUND;
        match isolation::suspended(stage).await {
            Err(_) if asked_in_time => tokio::time::sleep(Duration::from_secs(1)).await,
            outcome => return outcome,
        }
    }
}

async fn resume(stage: &mut Stage) -> anyhow::Result<Verdict> {
    let begun = Instant::now();
    ensure!(
        tenant::resume(stage, B).await? == Some(true),
        "smoke-b is not suspended"
    );
    stage.suspended_at = None;
    tenant::answers(stage, B).await?;
    let call = stage.asking(B, "/genai/retrieve", QUESTION).await?;
    let answer = stage.deployment.expect(&call, 200).await?;
    ensure!(
        answer.text().contains(&stage.canary(B, QUESTION)?.word),
        "it does not find its own document any more"
    );
    Ok(Verdict::noting(format!("after {:.1} s", begun.elapsed().as_secs_f64())))
}
