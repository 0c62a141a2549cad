//! Is it up, and does it refuse who has no token of its identity provider's?

use anyhow::ensure;
use reqwest::Method;
use serde_json::{Value, json};

use super::stage::Stage;
use super::{A, B, Check, Part, Verdict};
use crate::deployment::Call;
use crate::lock::Lock;
use crate::token::{Caller, Role};

pub(super) const PART: Part = Part {
    name: "gateway",
    needs: &[],
    checks: &[
        Check {
            name: "GET /health answers",
            rests_on: None,
            run: |stage| Box::pin(health(stage)),
        },
        Check {
            name: "an unknown path is not there, with a token and without",
            rests_on: Some(Lock::Gateway),
            run: |stage| Box::pin(unknown_path(stage)),
        },
        Check {
            name: "a question without a token is refused",
            rests_on: Some(Lock::Gateway),
            run: |stage| Box::pin(anonymous(stage)),
        },
        Check {
            name: "a question with something that is no token is refused",
            rests_on: Some(Lock::Identity),
            run: |stage| Box::pin(malformed(stage)),
        },
        Check {
            name: "a token altered to name the other tenant is refused",
            rests_on: Some(Lock::Identity),
            run: |stage| Box::pin(altered(stage)),
        },
    ],
};

async fn health(stage: &mut Stage) -> anyhow::Result<Verdict> {
    stage.deployment.expect(&Call::new(Method::GET, "/health"), 200).await?;
    Ok(Verdict::SOUND)
}

async fn unknown_path(stage: &mut Stage) -> anyhow::Result<Verdict> {
    let call = Call::new(Method::GET, "/nothing");
    let operator = stage.operator().await?;
    refused(stage, &call, 404, "not_found").await?;
    refused(stage, &call.token(operator), 404, "not_found").await
}

async fn anonymous(stage: &mut Stage) -> anyhow::Result<Verdict> {
    refused(stage, &question(), 401, "unauthorized").await
}

async fn malformed(stage: &mut Stage) -> anyhow::Result<Verdict> {
    refused(stage, &question().token("not.a.token"), 401, "unauthorized").await
}

async fn altered(stage: &mut Stage) -> anyhow::Result<Verdict> {
    let token = stage.tokens.get(&Caller::member(A, Role::Admin)).await?;
    let altered = token.altered(|claims| {
        // Which claim names the tenant is the deployment's to know.
        for claim in claims
            .as_object_mut()
            .into_iter()
            .flat_map(|claims| claims.values_mut())
        {
            if claim == A {
                *claim = Value::from(B);
            }
        }
    })?;
    ensure!(
        altered.unverified_claims()? != token.unverified_claims()?,
        "no claim of the token for {A} is {A}: is the token command's user a member of it?"
    );
    refused(stage, &question().token(altered.reveal()), 401, "unauthorized").await
}

fn question() -> Call {
    Call::new(Method::POST, "/genai/query").json(&json!({"user_query": "Is anybody there?"}))
}

async fn refused(stage: &Stage, call: &Call, status: u16, code: &str) -> anyhow::Result<Verdict> {
    let answer = stage.deployment.expect(call, status).await?;
    ensure!(
        answer.code().as_deref() == Some(code),
        "{} instead of {status} {code}",
        answer.summary()
    );
    Ok(Verdict::SOUND)
}
