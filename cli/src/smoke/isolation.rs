//! The isolation table ([`crate::isolation`]): `smoke-a` is attacked, `smoke-b` attacks.

use anyhow::{Context as _, bail};

use super::canary::QUESTION;
use super::stage::Stage;
use super::{A, B, Check, Part, Verdict};
use crate::isolation::{self, Missing, Row, Scene, Stranger};
use crate::lock::Lock;

pub(super) const PART: Part = Part {
    name: "isolation",
    needs: &["document"],
    checks: &[
        Check {
            name: "every operation, anonymous",
            rests_on: Some(Lock::Gateway),
            run: |stage| Box::pin(column(stage, Stranger::Anonymous, Lock::Gateway)),
        },
        Check {
            name: "every operation, malformed token",
            rests_on: Some(Lock::Identity),
            run: |stage| Box::pin(column(stage, Stranger::Malformed, Lock::Identity)),
        },
        Check {
            name: "every operation, expired token",
            rests_on: Some(Lock::Identity),
            run: |_| Box::pin(unavailable()),
        },
        Check {
            name: "every operation, token of a wrong issuer",
            rests_on: Some(Lock::Identity),
            run: |_| Box::pin(unavailable()),
        },
        Check {
            name: "every operation, wrong role",
            rests_on: Some(Lock::Identity),
            run: |stage| Box::pin(column(stage, Stranger::WrongRole, Lock::Identity)),
        },
        Check {
            name: "operators' operations, other tenant",
            rests_on: Some(Lock::Identity),
            run: |stage| Box::pin(column(stage, Stranger::OtherTenant, Lock::Identity)),
        },
        Check {
            name: "searches, other tenant",
            rests_on: Some(Lock::Retrieval),
            run: |stage| Box::pin(column(stage, Stranger::OtherTenant, Lock::Retrieval)),
        },
        Check {
            name: "documents and conversations, other tenant",
            rests_on: Some(Lock::Storage),
            run: |stage| Box::pin(column(stage, Stranger::OtherTenant, Lock::Storage)),
        },
    ],
};

/// What makes the refusals mean something: whoever may is answered. It deletes, and suspends `smoke-b` for a moment.
pub(super) const OWNER: Part = Part {
    name: "owner",
    needs: &["document"],
    checks: &[Check {
        name: "every operation, rightful caller",
        rests_on: None,
        run: |stage| Box::pin(own(stage)),
    }],
};

async fn unavailable() -> anyhow::Result<Verdict> {
    Ok(Verdict::skipped("the token command gives none"))
}

async fn column(stage: &mut Stage, stranger: Stranger, lock: Lock) -> anyhow::Result<Verdict> {
    let scene = scene(stage).await?;
    judge(stage, &scene, |row, of| {
        of == stranger && isolation::rests_on(row, of) == Some(lock)
    })
    .await
}

/// Every operation as an admin of `smoke-b`, which is suspended.
pub(super) async fn suspended(stage: &mut Stage) -> anyhow::Result<Verdict> {
    let mut scene = scene(stage).await?;
    scene.suspended = Some(scene.other.clone());
    judge(stage, &scene, |row, of| {
        of == Stranger::Suspended && isolation::rests_on(row, of).is_some()
    })
    .await
}

async fn own(stage: &mut Stage) -> anyhow::Result<Verdict> {
    let scene = scene(stage).await?;
    let (may_start, has_ingestion) = (stage.options.ingestion, stage.ingestion.is_some());
    judge(stage, &scene, |row, of| {
        let is_possible = match row.operation {
            "start_ingestion" => may_start,
            "get_ingestion" => has_ingestion,
            _ => true,
        };
        of == Stranger::Own && is_possible
    })
    .await
}

async fn judge(stage: &Stage, scene: &Scene, chosen: impl Fn(&Row, Stranger) -> bool) -> anyhow::Result<Verdict> {
    let cells = isolation::run(&stage.deployment, scene, chosen).await?;
    let faults: Vec<String> = cells
        .iter()
        .filter_map(|cell| Some(format!("{}: {}", cell.operation, cell.fault.as_ref()?)))
        .collect();
    if !faults.is_empty() {
        bail!("{}", faults.join("; "));
    }
    Ok(Verdict::noting(format!("{} operations", cells.len())))
}

async fn scene(stage: &mut Stage) -> anyhow::Result<Scene> {
    let session = stage.conversation().await?;
    let canary = stage.canary(A, QUESTION)?;
    let (document, word) = (canary.document.clone(), canary.word.clone());
    let missing = Missing::new("smoke-missing");
    Ok(Scene {
        tenant: A.to_owned(),
        reader: stage.reader(A).await?,
        admin: stage.admin(A).await?,
        other: stage.admin(B).await?,
        other_tenant: B.to_owned(),
        suspended: None,
        operator: stage.operator().await?,
        expired: None,
        wrong_issuer: None,
        document: document.context("the canary was not uploaded")?,
        canary: word,
        question: QUESTION.to_owned(),
        session,
        ingestion: stage.ingestion.clone().unwrap_or_else(|| missing.ingestion.clone()),
        // It exists: the smoke test leaves no further tenants behind.
        new_tenant: B.to_owned(),
        missing,
    })
}
