//! `up`: builds the functions, starts the stack, shows the main job and stays.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::client::Client;
use super::{ModelArguments, UpArguments, demo, say};
use crate::function::{self, Profile};
use crate::ready::{Endpoints, Ready};
use crate::stack::{Stack, StackConfig};
use crate::template::{Settings, Template};

/// Tokens per second of a stack that somebody looks at: slow enough to see that an answer is streamed.
const PACE: u32 = 50;

pub(super) async fn run(arguments: UpArguments, model: &ModelArguments) -> anyhow::Result<ExitCode> {
    let data = if arguments.ephemeral {
        None
    } else {
        Some(
            arguments
                .data
                .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../.bulkhead")),
        )
    };
    let binaries = binaries().await?;
    let begun = std::time::Instant::now();
    let mut config = StackConfig {
        port: arguments.port,
        log_file: data.as_ref().map(|data| data.join("functions.log")),
        data,
        variables: variables(),
        ..StackConfig::new(binaries)
    };
    model.apply(&mut config, PACE)?;
    let stack = Stack::start(config).await?;
    let ready = ready(&stack);
    let client = Client::new(ready.clone())?;
    let done = async {
        demo::synchronise(&client).await?;
        if arguments.no_demo {
            let operator = client.operator_token().await?;
            demo::create_tenants(&client, &operator, arguments.tenant.iter().map(String::as_str)).await?;
        } else {
            demo::prepare(&client, &arguments.tenant).await?;
        }
        ready.write(arguments.ready_file.as_deref())?;
        let took = begun.elapsed().as_secs_f64();
        if !arguments.no_demo {
            demo::show(&client, &stack).await?;
        }
        if let (Some(name), Some(url)) = (&model.model_name, &model.model_url) {
            say!("\nAnswers are written by {name} at {url}.");
        }
        introduce(&client, &ready, &arguments.tenant, arguments.no_demo, took).await?;
        stop_requested().await
    }
    .await;
    ready.remove(arguments.ready_file.as_deref());
    stack.stop().await;
    done?;
    Ok(ExitCode::SUCCESS)
}

/// Builds the functions, or takes ready-made ones, and gives the folder of the binaries.
pub(super) async fn binaries() -> anyhow::Result<PathBuf> {
    let template = Template::load(&StackConfig::new("").template, &Settings::default())?;
    let packages = template.packages();
    Ok(tokio::task::spawn_blocking(move || function::binaries(&packages, Profile::Debug)).await??)
}

/// What functions are given over the template's values: the variables of our own environment but those for the stack
/// itself, and looks at a document's status every second, because here nobody else uses up Bedrock's quota.
pub(super) fn variables() -> BTreeMap<String, String> {
    let often = ("BULKHEAD_INGESTION_STATUS_MAX_AGE_SECS".to_owned(), "1".to_owned());
    let is_ours = |name: &str| name == function::FUNCTIONS_VARIABLE || name.starts_with("BULKHEAD_LOCAL_");
    let ours = std::env::vars().filter(|(name, _)| name.starts_with("BULKHEAD_") && !is_ours(name));
    std::iter::once(often).chain(ours).collect()
}

/// Where a stack listens.
pub(super) fn ready(stack: &Stack) -> Ready {
    Ready {
        base_url: stack.base_url(),
        issuer: stack.identity().issuer().to_owned(),
        endpoints: Endpoints {
            aws: stack.front_door().endpoint(),
            identity: stack.identity().issuer().to_owned(),
        },
        pid: std::process::id(),
        token_secret: stack.identity().secret().to_owned(),
    }
}

async fn introduce(client: &Client, ready: &Ready, further: &[String], no_demo: bool, took: f64) -> anyhow::Result<()> {
    let base_url = &ready.base_url;
    say!("\nReady in {took:.1} s: {base_url}   (Ctrl-C stops it)");
    let demo_tenants = demo::TENANTS.iter().map(|(tenant, _)| *tenant).filter(|_| !no_demo);
    let tenants: Vec<&str> = demo_tenants.chain(further.iter().map(String::as_str)).collect();
    say!("\nTokens, good for an hour:");
    for tenant in &tenants {
        for role in ["reader", "admin"] {
            say!("{tenant} {role}\n  {}", client.tenant_token(tenant, role).await?);
        }
    }
    let operator = client.operator_token().await?;
    say!("operator\n  {operator}");
    say!("\nTry, in another terminal:");
    if let Some(tenant) = tenants.first() {
        let token = client.tenant_token(tenant, "reader").await?;
        for (curl, path) in [("curl -s", "/genai/query"), ("curl -N", "/genai/query/stream")] {
            say!(
                "  {curl} {base_url}{path} -H 'Authorization: Bearer {token}' \\\n    \
                 -H 'Content-Type: application/json' -d '{{\"user_query\":\"List the episodes of season 2.\"}}'"
            );
        }
    }
    say!("  curl -s {base_url}/tenants -H 'Authorization: Bearer {operator}'");
    let tenant = tenants.first().copied().unwrap_or("ID");
    say!("  cargo run -- upload --tenant {tenant} FILE…\n  cargo run -- ask --stream --tenant {tenant} \"A question\"");
    Ok(())
}

/// Returns when somebody asks the stack to stop.
async fn stop_requested() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::select! {
        interrupt = tokio::signal::ctrl_c() => interrupt?,
        _ = terminate.recv() => {}
        _ = hang_up.recv() => {}
    }
    Ok(())
}
