//! The smoke test: a few calls that tell whether a deployment is up and refuses strangers. It changes nothing.

use reqwest::Method;
use serde_json::json;

use crate::deployment::{Call, Deployment};

/// One check's name, and what is wrong if anything is.
pub type Check = (&'static str, Option<String>);

/// Runs the smoke test; with a tenant user's token it asks a question as well.
///
/// # Errors
/// The deployment does not answer at all.
pub async fn run(deployment: &Deployment, token: Option<&str>) -> anyhow::Result<Vec<Check>> {
    let mut checks = Vec::new();
    let mut check = |name, answer: &crate::deployment::Answer, status: u16| {
        let fault = (answer.status.as_u16() != status).then(|| format!("{} instead of {status}", answer.status));
        checks.push((name, fault));
    };
    check(
        "health",
        &deployment.send(&Call::new(Method::GET, "/health")).await?,
        200,
    );
    let question = json!({"user_query": "Is anybody there?"});
    let ask = Call::new(Method::POST, "/genai/query").json(&question);
    check(
        "a question without a token is refused",
        &deployment.send(&ask).await?,
        401,
    );
    check(
        "a question with a forged token is refused",
        &deployment.send(&ask.clone().token("a.b.c")).await?,
        401,
    );
    check(
        "an unknown path is not there",
        &deployment.send(&Call::new(Method::GET, "/nothing")).await?,
        404,
    );
    if let Some(token) = token {
        check(
            "a question is answered",
            &deployment.send(&ask.clone().token(token)).await?,
            200,
        );
        let mut forged = ask;
        forged.path = "/tenants".to_owned();
        forged.method = Method::GET;
        check(
            "a tenant is no operator",
            &deployment.send(&forged.token(token)).await?,
            403,
        );
    }
    Ok(checks)
}
