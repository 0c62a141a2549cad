//! What a run works with and what it has made so far: the deployment, tokens, the tenants' words, ids.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use reqwest::Method;
use serde_json::{Value, json};

use super::canary::{self, Canary};
use super::{A, Options};
use crate::deployment::{Answer, Call, Deployment};
use crate::token::{Caller, Role, Token, Tokens};

/// How often something is looked at that is waited for.
const INTERVAL: Duration = Duration::from_millis(500);

/// The stage of a run.
pub(super) struct Stage {
    pub(super) deployment: Deployment,
    pub(super) tokens: Tokens,
    pub(super) options: Options,
    /// The tenants' documents, each with a word of its own.
    pub(super) canaries: Vec<Canary>,
    /// A conversation of `smoke-a`'s reader, once a question was asked.
    pub(super) session: Option<String>,
    /// The synchronisation of this run, if it started one.
    pub(super) ingestion: Option<String>,
    /// When `smoke-b` was suspended, if it was.
    pub(super) suspended_at: Option<Instant>,
}

impl Stage {
    /// A stage where nothing has happened yet.
    ///
    /// # Errors
    /// The URL can't be used.
    pub(super) fn new(options: Options) -> anyhow::Result<Self> {
        let url = reqwest::Url::parse(&options.url).with_context(|| format!("--url {}", options.url))?;
        let is_loopback = matches!(url.host_str(), Some("127.0.0.1" | "localhost" | "[::1]"));
        anyhow::ensure!(
            url.scheme() == "https" || (url.scheme() == "http" && is_loopback),
            "--url {}: tokens are sent over https only, but for the local stack",
            options.url
        );
        anyhow::ensure!(
            url.query().is_none() && url.fragment().is_none() && url.username().is_empty(),
            "--url is the base URL with the stage, and nothing else"
        );
        Ok(Self {
            deployment: Deployment::new(&options.url)?,
            tokens: Tokens::new(&options.token_command),
            options,
            canaries: canary::hatch(),
            session: None,
            ingestion: None,
            suspended_at: None,
        })
    }

    /// Sees that anybody answers and that there are tokens.
    ///
    /// # Errors
    /// Not.
    pub(super) async fn enter(&mut self) -> anyhow::Result<()> {
        self.deployment
            .send(&Call::new(Method::GET, "/health"))
            .await
            .context("the deployment does not answer")?;
        self.tokens.get(&Caller::operator()).await?;
        Ok(())
    }

    pub(super) async fn operator(&mut self) -> anyhow::Result<String> {
        self.token(&Caller::operator()).await
    }

    pub(super) async fn reader(&mut self, tenant: &'static str) -> anyhow::Result<String> {
        self.token(&Caller::member(tenant, Role::Reader)).await
    }

    pub(super) async fn admin(&mut self, tenant: &'static str) -> anyhow::Result<String> {
        self.token(&Caller::member(tenant, Role::Admin)).await
    }

    async fn token(&mut self, caller: &Caller) -> anyhow::Result<String> {
        self.tokens
            .get(caller)
            .await
            .map(|token: Token| token.reveal().to_owned())
    }

    /// The document that answers a question about a tenant's documents.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn canary(&self, tenant: &str, question: &str) -> anyhow::Result<&Canary> {
        self.canaries
            .iter()
            .find(|canary| canary.source.tenant == tenant && canary.source.question == question)
            .context("a question that no document answers")
    }

    /// Sees that a text that was told to `tenant` holds no word of the other's.
    ///
    /// # Errors
    /// It does.
    pub(super) fn holds_nothing_foreign(&self, tenant: &str, told: &str) -> anyhow::Result<()> {
        let mut foreign = self.canaries.iter().filter(|canary| canary.source.tenant != tenant);
        if foreign.any(|canary| told.contains(&canary.word)) {
            bail!("{tenant} was told a word of the other tenant's");
        }
        Ok(())
    }

    /// A call as the tenant's reader.
    pub(super) async fn read(&mut self, tenant: &'static str, method: Method, path: &str) -> anyhow::Result<Call> {
        Ok(Call::new(method, path).token(self.reader(tenant).await?))
    }

    /// A question of the tenant's reader, on one of the answering routes.
    pub(super) async fn asking(&mut self, tenant: &'static str, path: &str, question: &str) -> anyhow::Result<Call> {
        let member = match path {
            "/genai/retrieve" => "query",
            "/genai/chat" => "message",
            _ => "user_query",
        };
        let call = self.read(tenant, Method::POST, path).await?;
        Ok(call.json(&json!({ member: question })))
    }

    /// The conversation of `smoke-a`'s reader; asks for one if there is none yet.
    pub(super) async fn conversation(&mut self) -> anyhow::Result<String> {
        if let Some(session) = &self.session {
            return Ok(session.clone());
        }
        let call = self.asking(A, "/genai/query", canary::QUESTION).await?;
        let answer = self.deployment.expect(&call, 200).await?.json();
        let session = text(&answer, "sessionId")?;
        self.session = Some(session.clone());
        Ok(session)
    }
}

/// A member that is a text.
///
/// # Errors
/// There is none.
pub(super) fn text(value: &Value, member: &str) -> anyhow::Result<String> {
    let text = value.get(member).and_then(Value::as_str);
    text.map(str::to_owned)
        .with_context(|| format!("an answer without {member}"))
}

/// Looks again and again until there is something; `None` if there is nothing within `patience`.
///
/// # Errors
/// What a look fails with: that is no reason to look again.
pub(super) async fn poll<T, F>(patience: Duration, mut look: impl FnMut() -> F) -> anyhow::Result<Option<T>>
where
    F: Future<Output = anyhow::Result<Option<T>>>,
{
    let begun = Instant::now();
    loop {
        let seen = look().await?;
        if seen.is_some() || begun.elapsed() >= patience {
            return Ok(seen);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// The answer, if its status is one of `wanted`; `None` if it is one of `pending`, or says to come again later.
///
/// # Errors
/// There is no answer, or one of any other status.
pub(super) async fn look(
    deployment: &Deployment,
    call: &Call,
    wanted: &[u16],
    pending: &[u16],
) -> anyhow::Result<Option<Answer>> {
    /// Throttled, here or in a service behind.
    const LATER: [u16; 2] = [429, 503];
    let answer = deployment.send(call).await?;
    let status = answer.status.as_u16();
    if wanted.contains(&status) {
        return Ok(Some(answer));
    }
    ensure!(
        pending.contains(&status) || LATER.contains(&status),
        "{} {} answered {} instead of {wanted:?}",
        call.method,
        call.path,
        answer.summary()
    );
    Ok(None)
}
