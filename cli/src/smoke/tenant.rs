//! The two tenants: there, active, empty, and the knowledge base ready for their documents.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use reqwest::Method;
use serde_json::{Value, json};

use super::stage::{Stage, look, poll, text};
use super::{A, B, Check, Part, Verdict};
use crate::deployment::Call;

/// How long a tenant that was resumed may go on being refused: the authorizer's knowledge may be 20 s old, and the gateway
/// keeps for 60 s what that made it say.
const RESUMING: Duration = Duration::from_secs(120);
/// How long the lease may be held by documents that others are handing over.
const LEASE: Duration = Duration::from_secs(90);
/// How long a synchronisation may take, which looks at every document of every tenant.
const SYNCHRONISATION: Duration = Duration::from_secs(600);
/// How long a document that is deleted may still be known to the knowledge base.
const DELETION: Duration = Duration::from_secs(300);

pub(super) const PART: Part = Part {
    name: "tenant",
    needs: &["gateway"],
    checks: &[
        Check {
            name: "smoke-a and smoke-b are there and active",
            rests_on: None,
            run: |stage| Box::pin(activate(stage)),
        },
        Check {
            name: "the knowledge base is synchronised",
            rests_on: None,
            run: |stage| Box::pin(synchronise(stage)),
        },
        Check {
            name: "what an earlier run left is cleared away",
            rests_on: None,
            run: |stage| Box::pin(empty(stage)),
        },
    ],
};

/// Creates the tenants that are missing, resumes those that are suspended, and waits until their admins are answered.
async fn activate(stage: &mut Stage) -> anyhow::Result<Verdict> {
    let mut done = Vec::new();
    for tenant in [A, B] {
        let create = Call::new(Method::POST, "/tenants")
            .token(stage.operator().await?)
            .json(&json!({ "tenant": tenant }));
        let answer = stage.deployment.send(&create).await?;
        match answer.status.as_u16() {
            201 => done.push(format!("{tenant} created")),
            409 => {
                if resume(stage, tenant).await? == Some(true) {
                    done.push(format!("{tenant} resumed"));
                }
            }
            _ => bail!("creating {tenant} was answered {}", answer.summary()),
        }
        answers(stage, tenant).await?;
    }
    Ok(Verdict::Sound((!done.is_empty()).then(|| done.join(", "))))
}

/// Resumes a tenant if it is suspended, and tells whether it was; `None` if there is no such tenant.
///
/// # Errors
/// The operator's calls are not answered as they should be.
pub(super) async fn resume(stage: &mut Stage, tenant: &'static str) -> anyhow::Result<Option<bool>> {
    let operator = stage.operator().await?;
    let read = Call::new(Method::GET, format!("/tenants/{tenant}")).token(&operator);
    let profile = stage.deployment.send(&read).await?;
    if profile.status.as_u16() == 404 {
        return Ok(None);
    }
    ensure!(
        profile.status.as_u16() == 200,
        "reading {tenant} was answered {}",
        profile.summary()
    );
    if text(&profile.json(), "status")? == "active" {
        return Ok(Some(false));
    }
    let resume = Call::new(Method::POST, format!("/tenants/{tenant}/resume")).token(&operator);
    stage.deployment.expect(&resume, 200).await?;
    Ok(Some(true))
}

/// Waits until both functions that the tenant's users call answer them.
///
/// # Errors
/// They go on refusing.
pub(super) async fn answers(stage: &mut Stage, tenant: &'static str) -> anyhow::Result<()> {
    let calls = [
        Call::new(Method::GET, "/tenant").token(stage.admin(tenant).await?),
        Call::new(Method::GET, "/sessions").token(stage.reader(tenant).await?),
    ];
    let deployment = &stage.deployment;
    for call in &calls {
        poll(RESUMING, || look(deployment, call, &[200], &[403]))
            .await?
            .with_context(|| format!("{tenant} is still refused after {} s", RESUMING.as_secs()))?;
    }
    Ok(())
}

/// Bedrock wants a synchronisation after the data source was made, before single documents are ingested.
async fn synchronise(stage: &mut Stage) -> anyhow::Result<Verdict> {
    if !stage.options.ingestion {
        return Ok(Verdict::skipped("--no-ingestion"));
    }
    let start = Call::new(Method::POST, "/ingestions").token(stage.operator().await?);
    let deployment = &stage.deployment;
    // Documents that were handed over in the last half minute are in the way (409), and Bedrock starts one in ten seconds.
    let Some(started) = poll(LEASE, || look(deployment, &start, &[202], &[409])).await? else {
        return Ok(Verdict::skipped("others' documents are being ingested all the time"));
    };
    let started = text(&started.json(), "ingestion_id")?;
    stage.ingestion = Some(started.clone());
    let read = Call::new(Method::GET, format!("/ingestions/{started}")).token(stage.operator().await?);
    let deployment = &stage.deployment;
    let status = poll(SYNCHRONISATION, || async {
        let Some(answer) = look(deployment, &read, &[200], &[]).await? else {
            return Ok(None);
        };
        let status = text(&answer.json(), "status")?;
        Ok((!matches!(status.as_str(), "starting" | "in_progress" | "stopping")).then_some(status))
    });
    let status = status
        .await?
        .with_context(|| format!("it has not ended after {} s", SYNCHRONISATION.as_secs()))?;
    ensure!(status == "complete", "the synchronisation ended as {status}");
    Ok(Verdict::SOUND)
}

async fn empty(stage: &mut Stage) -> anyhow::Result<Verdict> {
    let mut count = 0;
    for tenant in [A, B] {
        count += clear(stage, tenant).await?;
    }
    Ok(Verdict::noting(format!("{count} documents and conversations deleted")))
}

/// Deletes all documents and conversations of a tenant, waits until the documents are gone, and tells how many there were.
///
/// # Errors
/// Something can't be deleted.
pub(super) async fn clear(stage: &mut Stage, tenant: &'static str) -> anyhow::Result<usize> {
    let (admin, reader) = (stage.admin(tenant).await?, stage.reader(tenant).await?);
    let deployment = &stage.deployment;
    let documents = list(stage, "/documents", "documents", "document_id", &admin).await?;
    let lasting = |document: &str| format!("{document} is still there after {} s", DELETION.as_secs());
    for document in &documents {
        let delete = Call::new(Method::DELETE, document).token(&admin);
        poll(DELETION, || look(deployment, &delete, &[202, 404], &[409]))
            .await?
            .with_context(|| lasting(document))?;
    }
    for document in &documents {
        let read = Call::new(Method::GET, document).token(&admin);
        poll(DELETION, || look(deployment, &read, &[404], &[200]))
            .await?
            .with_context(|| lasting(document))?;
    }
    let mut count = documents.len();
    for token in [&reader, &admin] {
        let sessions = list(stage, "/sessions", "sessions", "session_id", token).await?;
        for session in &sessions {
            let delete = Call::new(Method::DELETE, session).token(token);
            look(deployment, &delete, &[204, 404], &[])
                .await?
                .context("a conversation can't be deleted now")?;
        }
        count += sessions.len();
    }
    Ok(count)
}

/// The paths of everything in a list, page by page.
async fn list(stage: &Stage, path: &str, members: &str, id: &str, token: &str) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut page = format!("{path}?limit=100");
    loop {
        let answer = stage
            .deployment
            .expect(&Call::new(Method::GET, &page).token(token), 200)
            .await?;
        let answer = answer.json();
        for member in answer.get(members).and_then(Value::as_array).into_iter().flatten() {
            found.push(format!("{path}/{}", text(member, id)?));
        }
        match answer.get("next_cursor").and_then(Value::as_str) {
            Some(cursor) => page = format!("{path}?limit=100&cursor={cursor}"),
            None => return Ok(found),
        }
    }
}
