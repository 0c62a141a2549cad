//! How long the model's first token takes to the client.
//!
//! From the moment at which the fake model has its first token to the moment at which the client has read the first
//! whole `delta`: once through the gateway, the Runtime API, the function and its checks, once through [`PassThrough`].
//! Everything but the functions runs in this process, so that both moments are of one clock. What comes before the
//! model's first token (authorizer, retrieval, the firewall) is not measured here.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use aws_sdk_bedrockruntime::Client;
use aws_sdk_bedrockruntime::config::{BehaviorVersion, Credentials, Region};
use bulkhead_cli::deployment::{Call, Deployment};
use bulkhead_local::credential::Caller;
use bulkhead_local::function::{self, Profile};
use bulkhead_local::identity::TokenRequest;
use bulkhead_local::knowledge_base::quota::Quotas;
use bulkhead_local::model::script::Script;
use bulkhead_local::stack::{Stack, StackConfig, wait_until};
use bulkhead_local::template::{Settings, Template};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::pass_through::PassThrough;
use crate::spread::Spread;

/// The tenant whose question goes through the gateway.
const TENANT: &str = "bench";
/// Whom the fakes take the pass-through for.
const BARE: &str = "bare";
/// A sentence of it answers the question.
const DOCUMENT: &str = "The archive opens at nine in the morning and closes at five in the afternoon.";
const QUESTION: &str = "When does the archive open in the morning?";
/// What the model says, in both cases. The first piece could not become a marker, which the gateway would hold back.
const ANSWER: [&str; 6] = ["The archive ", "opens ", "at ", "nine ", "[1]", "."];
/// Rounds that are not counted: connections, processes and caches come into being in them.
const WARM_UP: u16 = 3;
const PATIENCE: Duration = Duration::from_secs(60);

/// The command line.
#[derive(clap::Args)]
pub struct Arguments {
    /// How often each of the two is measured, in turns
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Builds the functions as for tests, which is quicker and says less
    #[arg(long)]
    debug: bool,
}

/// Runs the bench and shows what it found.
///
/// # Errors
/// If the functions don't build, the stack does not start, or an answer is not one.
pub async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let (stack, functions) = start(arguments).await?;
    let measured = measure(&stack, arguments.rounds).await;
    stack.stop().await;
    report(&measured?, &functions)
}

/// The stack, and which binaries it runs.
async fn start(arguments: &Arguments) -> anyhow::Result<(Stack, String)> {
    let mut config = StackConfig::new("");
    let packages = Template::load(&config.template, &Settings::default())?.packages();
    let profile = if arguments.debug {
        Profile::Debug
    } else {
        Profile::Release
    };
    config.binaries = tokio::task::spawn_blocking(move || function::binaries(&packages, profile)).await??;
    config.variables = BTreeMap::from([("BULKHEAD_INGESTION_STATUS_MAX_AGE_SECS".to_owned(), "0".to_owned())]);
    // What a guardrail takes is Bedrock's time.
    config
        .parameters
        .insert("CreateGuardrail".to_owned(), "false".to_owned());
    config.change_knowledge_base = Some(Box::new(|knowledge_base| knowledge_base.quotas = Quotas::unlimited()));
    let functions = config.binaries.display().to_string();
    Ok((Stack::start(config).await?, functions))
}

/// Microseconds from token to delta, round by round.
#[derive(Default)]
struct Measured {
    bare: Vec<f64>,
    gateway: Vec<f64>,
}

async fn measure(stack: &Stack, rounds: u16) -> anyhow::Result<Measured> {
    let token = prepare(stack).await?;
    let pass_through = PassThrough::start(client(stack), model(stack)?).await?;
    // Connections are kept, as a browser keeps them.
    let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
    let bare = || http.post(pass_through.url());
    let gateway = || {
        http.post(format!("{}/genai/query/stream", stack.base_url()))
            .bearer_auth(&token)
            .json(&json!({"user_query": QUESTION}))
    };
    let mut measured = Measured::default();
    for round in 0..rounds.saturating_add(WARM_UP) {
        // Neither has always the other's heat before it.
        let (of_bare, of_gateway);
        if round % 2 == 0 {
            of_bare = once(stack, BARE, bare()).await.context("the pass-through")?;
            of_gateway = once(stack, TENANT, gateway()).await.context("the gateway")?;
        } else {
            of_gateway = once(stack, TENANT, gateway()).await.context("the gateway")?;
            of_bare = once(stack, BARE, bare()).await.context("the pass-through")?;
        }
        if round >= WARM_UP {
            measured.bare.push(of_bare);
            measured.gateway.push(of_gateway);
        }
    }
    Ok(measured)
}

/// A tenant with one document, and a reader's token.
async fn prepare(stack: &Stack) -> anyhow::Result<String> {
    let deployment = Deployment::new(&stack.base_url())?;
    let token = |request: &TokenRequest| stack.identity().token(request);
    let operator = token(&TokenRequest::operator())?;
    let create = Call::new(Method::POST, "/tenants").token(operator);
    deployment.expect(&create.json(&json!({"tenant": TENANT})), 201).await?;
    let admin = token(&member(&["admin"]))?;
    let id = deployment
        .upload(&admin, "archive.txt", "text/plain", DOCUMENT.as_bytes())
        .await?;
    let look = Call::new(Method::GET, format!("/documents/{id}")).token(admin);
    wait_until("the document is indexed", PATIENCE, || async {
        let document = deployment.expect(&look, 200).await?.json();
        Ok((document.get("status").and_then(Value::as_str) == Some("indexed")).then_some(()))
    })
    .await?;
    for of in [TENANT, BARE] {
        stack.models().script(of, Script::new().say_all(ANSWER).every_time());
    }
    Ok(token(&member(&[]))?)
}

fn member(roles: &[&str]) -> TokenRequest {
    TokenRequest {
        user: Some("alice".to_owned()),
        ..TokenRequest::member(TENANT, roles)
    }
}

/// The SDK's client with credentials of the stack's own.
fn client(stack: &Stack) -> Client {
    let issued = stack
        .front_door()
        .credentials()
        .issue(Caller::administrator(Some(BARE)));
    let credentials = Credentials::new(
        issued.access_key_id,
        issued.secret_access_key,
        Some(issued.session_token),
        None,
        "the local stack",
    );
    let config = aws_sdk_bedrockruntime::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(stack.template().region.clone()))
        .endpoint_url(stack.front_door().endpoint())
        .credentials_provider(credentials)
        .build();
    Client::from_conf(config)
}

/// The model that the query handler asks where no plan names another.
fn model(stack: &Stack) -> anyhow::Result<String> {
    let models = stack
        .template()
        .functions
        .iter()
        .find_map(|function| function.environment.get("BULKHEAD_MODELS"))
        .context("no function has BULKHEAD_MODELS")?;
    let models: BTreeMap<String, String> = serde_json::from_str(models)?;
    models.get("default").cloned().context("no model is the default one")
}

/// One answer; microseconds from the model's first token to the client's first delta.
async fn once(stack: &Stack, of: &str, request: RequestBuilder) -> anyhow::Result<f64> {
    let asked = stack.models().calls_of(of).len();
    let mut response = request.send().await?;
    let status = response.status();
    let (mut text, mut arrived) = (Vec::new(), None);
    while let Some(piece) = response.chunk().await? {
        text.extend_from_slice(&piece);
        if arrived.is_none() && has_delta(&text) {
            arrived = Some(Instant::now());
        }
    }
    let text = String::from_utf8_lossy(&text);
    ensure!(status.is_success(), "{status}: {text}");
    let arrived = arrived.with_context(|| format!("an answer without a delta: {text}"))?;
    let calls = stack.models().calls_of(of);
    let asked = calls.get(asked..).unwrap_or_default();
    let [call] = asked else {
        anyhow::bail!("the model was asked {} times instead of once", asked.len())
    };
    let said = call.first_token.context("the model said nothing")?;
    let taken = arrived.checked_duration_since(said);
    Ok(taken.context("the delta came before its token")?.as_secs_f64() * 1e6)
}

/// Whether a first `delta` is there to its end.
fn has_delta(text: &[u8]) -> bool {
    const NAME: &[u8] = b"event: delta\n";
    const END: &[u8] = b"\n\n";
    let named = text.windows(NAME.len()).position(|window| window == NAME);
    let rest = named.and_then(|at| text.get(at..)).unwrap_or_default();
    rest.windows(END.len()).any(|window| window == END)
}

fn report(measured: &Measured, functions: &str) -> anyhow::Result<()> {
    let ratios: Vec<f64> = measured
        .gateway
        .iter()
        .zip(&measured.bare)
        .map(|(gateway, bare)| gateway / bare)
        .collect();
    let rows = [
        ("bare pass-through, µs", Spread::of(&measured.bare)?),
        ("gateway, µs", Spread::of(&measured.gateway)?),
        ("gateway / bare", Spread::of(&ratios)?),
    ];
    let optimised = !cfg!(debug_assertions);
    let [(_, bare), (_, gateway), (_, ratio)] = &rows;
    let results = json!({
        "bench": "stream",
        "what": "from the model's first token to the client's first delta",
        "rounds": measured.bare.len(),
        "functions": functions,
        "stack_optimised": optimised,
        "microseconds": {
            "bare": {"spread": bare, "rounds": measured.bare},
            "gateway": {"spread": gateway, "rounds": measured.gateway},
        },
        "ratio": ratio,
    });
    let folder = function::workspace().join("target/bench");
    std::fs::create_dir_all(&folder)?;
    let file = folder.join("stream.json");
    std::fs::write(&file, serde_json::to_vec_pretty(&results)?)?;
    print(&rows, measured.bare.len(), functions, optimised, &file)?;
    Ok(())
}

fn print(rows: &[(&str, Spread)], rounds: usize, functions: &str, optimised: bool, file: &Path) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let stack = if optimised { "optimised" } else { "not optimised" };
    writeln!(
        out,
        "The model's first token to the client's first delta, {rounds} rounds in turns"
    )?;
    writeln!(out, "functions: {functions}; stack and pass-through: {stack}\n")?;
    writeln!(out, "{:<24} {:>10} {:>10} {:>10}", "", "min", "median", "max")?;
    for (name, Spread { min, median, max }) in rows {
        writeln!(out, "{name:<24} {min:>10.1} {median:>10.1} {max:>10.1}")?;
    }
    writeln!(out, "\n{}", file.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delta_counts_when_it_is_whole() {
        let text = b"id: 1\nevent: session\ndata: {}\n\nid: 2\nevent: delta\ndata: {\"text\":\"a\"}\n\nid: 3";
        let whole = text.len() - 5;
        for length in 0..=text.len() {
            assert_eq!(has_delta(&text[..length]), length >= whole, "{length}");
        }
    }
}
