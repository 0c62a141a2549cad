//! The end: both tenants are emptied and suspended, whatever came before.

use anyhow::bail;
use reqwest::Method;

use super::stage::Stage;
use super::{A, B, Check, Part, Verdict, tenant};
use crate::deployment::Call;

pub(super) const PART: Part = Part {
    name: "end",
    needs: &[],
    checks: &[
        Check {
            name: "smoke-a and smoke-b are emptied",
            rests_on: None,
            run: |stage| Box::pin(empty(stage)),
        },
        Check {
            name: "smoke-a and smoke-b are suspended",
            rests_on: None,
            run: |stage| Box::pin(suspend(stage)),
        },
    ],
};

async fn empty(stage: &mut Stage) -> anyhow::Result<Verdict> {
    let (mut count, mut faults) = (0, Vec::new());
    // One that can't be emptied is no reason to leave the other as it is.
    for tenant in [A, B] {
        match cleared(stage, tenant).await {
            Ok(cleared) => count += cleared,
            Err(error) => faults.push(format!("{tenant}: {error:#}")),
        }
    }
    if !faults.is_empty() {
        bail!("{}", faults.join("; "));
    }
    Ok(Verdict::noting(format!("{count} documents and conversations deleted")))
}

async fn cleared(stage: &mut Stage, of: &'static str) -> anyhow::Result<usize> {
    let Some(was_suspended) = tenant::resume(stage, of).await? else {
        // Nothing was created.
        return Ok(0);
    };
    if was_suspended {
        tenant::answers(stage, of).await?;
    }
    tenant::clear(stage, of).await
}

async fn suspend(stage: &mut Stage) -> anyhow::Result<Verdict> {
    for tenant in [A, B] {
        let suspend = Call::new(Method::POST, format!("/tenants/{tenant}/suspend")).token(stage.operator().await?);
        let answer = stage.deployment.send(&suspend).await?;
        if !matches!(answer.status.as_u16(), 200 | 404) {
            bail!("suspending {tenant} was answered {}", answer.summary());
        }
    }
    Ok(Verdict::SOUND)
}
