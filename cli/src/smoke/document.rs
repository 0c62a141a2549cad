//! Documents: small ones, one of a million bytes, and one full of what a firewall might take for an attack.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use reqwest::Method;

use super::canary::{ARCHIVE_QUESTION, COMPARISON_QUESTION, QUESTION};
use super::stage::{Stage, look, poll, text};
use super::{A, B, Check, Part, Verdict};
use crate::deployment::Call;

/// How long a document may be processed.
const INDEXING: Duration = Duration::from_secs(600);
/// How long the index may lag behind what the knowledge base says of itself.
const FINDING: Duration = Duration::from_secs(180);

pub(super) const PART: Part = Part {
    name: "document",
    needs: &["tenant"],
    checks: &[
        Check {
            name: "each tenant uploads its canary",
            rests_on: None,
            run: |stage| Box::pin(canaries(stage)),
        },
        Check {
            name: "1,000,000 bytes are not too large for a document",
            rests_on: None,
            run: |stage| Box::pin(upload(stage, A, ARCHIVE_QUESTION)),
        },
        Check {
            name: "`a < b > c`, markup and SQL are no attack in a document",
            rests_on: None,
            run: |stage| Box::pin(upload(stage, A, COMPARISON_QUESTION)),
        },
        Check {
            name: "all documents are indexed",
            rests_on: None,
            run: |stage| Box::pin(indexed(stage)),
        },
        Check {
            name: "all documents are found, the long one by its middle",
            rests_on: None,
            run: |stage| Box::pin(found(stage)),
        },
    ],
};

async fn canaries(stage: &mut Stage) -> anyhow::Result<Verdict> {
    for tenant in [A, B] {
        upload(stage, tenant, QUESTION).await?;
    }
    Ok(Verdict::SOUND)
}

async fn upload(stage: &mut Stage, tenant: &'static str, question: &str) -> anyhow::Result<Verdict> {
    let admin = stage.admin(tenant).await?;
    let canary = stage.canary(tenant, question)?;
    let content = (canary.source.text)(&canary.word);
    let (name, media_type) = (canary.source.name, canary.source.media_type);
    let id = stage
        .deployment
        .upload(&admin, name, media_type, content.as_bytes())
        .await?;
    for canary in &mut stage.canaries {
        if (canary.source.tenant, canary.source.question) == (tenant, question) {
            canary.document = Some(id.clone());
        }
    }
    Ok(Verdict::SOUND)
}

async fn indexed(stage: &mut Stage) -> anyhow::Result<Verdict> {
    let begun = Instant::now();
    let admins = [(A, stage.admin(A).await?), (B, stage.admin(B).await?)];
    for canary in &stage.canaries {
        let (tenant, name) = (canary.source.tenant, canary.source.name);
        let id = canary
            .document
            .as_ref()
            .with_context(|| format!("{name} was not uploaded"))?;
        let token = admins.iter().find(|(of, _)| *of == tenant).map(|(_, token)| token);
        let mut call = Call::new(Method::GET, format!("/documents/{id}"));
        call.token = token.cloned();
        let deployment = &stage.deployment;
        let status = poll(INDEXING, || async {
            let Some(answer) = look(deployment, &call, &[200], &[]).await? else {
                return Ok(None);
            };
            let status = text(&answer.json(), "status")?;
            Ok((status != "processing").then_some(status))
        });
        let status = status.await?.with_context(|| {
            format!(
                "{tenant}'s {name} is still being processed after {} s",
                INDEXING.as_secs()
            )
        })?;
        ensure!(status == "indexed", "{tenant}'s {name} is {status}");
    }
    Ok(Verdict::noting(format!("after {:.1} s", begun.elapsed().as_secs_f64())))
}

async fn found(stage: &mut Stage) -> anyhow::Result<Verdict> {
    let begun = Instant::now();
    let asked: Vec<_> = stage
        .canaries
        .iter()
        .map(|canary| (canary.source.tenant, canary.source.question, canary.word.clone()))
        .collect();
    for (tenant, question, word) in asked {
        let call = stage.asking(tenant, "/genai/retrieve", question).await?;
        let deployment = &stage.deployment;
        let found = poll(FINDING, || async {
            let passages = look(deployment, &call, &[200], &[]).await?;
            Ok(passages.filter(|passages| passages.text().contains(&word)))
        });
        found
            .await?
            .with_context(|| format!("{tenant} does not find what answers: {question}"))?;
    }
    Ok(Verdict::noting(format!("after {:.1} s", begun.elapsed().as_secs_f64())))
}
