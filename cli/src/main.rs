//! `bulkhead`: checks a deployment from outside.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use bulkhead_cli::smoke::report::{Finding, Report};
use bulkhead_cli::smoke::{self, Options};
use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

/// Nothing could be tried. clap answers wrong arguments with the same.
const UNUSABLE: u8 = 2;
/// What a shell says of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

#[derive(Parser)]
#[command(name = "bulkhead", about = "Checks a Bulkhead deployment from outside, over HTTP")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Try a live deployment with two tenants of its own, smoke-a and smoke-b, which are emptied and suspended at the end.
    ///
    /// Exit status: 0 if nothing is WRONG, 1 if something is, 2 if nothing could be tried, 130 after Ctrl-C.
    Smoke(SmokeArguments),
}

#[derive(Args)]
struct SmokeArguments {
    /// The deployment's base URL, stage included.
    #[arg(long)]
    url: String,
    /// Prints a JWT on its standard output. Run by `sh -c`, with BULKHEAD_TOKEN_ROLE (reader, admin or operator),
    /// BULKHEAD_TOKEN_TENANT (not for operators) and BULKHEAD_TOKEN_USER (smoke-a-reader, smoke-operator, …).
    #[arg(long, value_name = "CMD")]
    token_command: String,
    /// A text that the deployment's guardrail blocks.
    #[arg(long, value_name = "TEXT", default_value = smoke::GUARDRAIL_STRING)]
    guardrail_string: String,
    /// The deployment has no guardrail.
    #[arg(long, conflicts_with = "guardrail_string")]
    no_guardrail: bool,
    /// Don't start a synchronisation of the knowledge base. Only where there has been one since its data source was made.
    #[arg(long)]
    no_ingestion: bool,
    /// Amazon Cognito's endpoint; without it, that of the tokens' issuer if that is Cognito.
    #[arg(long, value_name = "URL")]
    cognito_endpoint: Option<String>,
    /// Write the report to this file too, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Command::Smoke(arguments) = Arguments::parse().command;
    match smoke(arguments).await {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            let _ = writeln!(std::io::stderr().lock(), "bulkhead smoke: {error:#}");
            ExitCode::from(UNUSABLE)
        }
    }
}

async fn smoke(arguments: SmokeArguments) -> anyhow::Result<u8> {
    let options = Options {
        url: arguments.url,
        token_command: arguments.token_command,
        guardrail_string: (!arguments.no_guardrail).then_some(arguments.guardrail_string),
        ingestion: !arguments.no_ingestion,
        cognito_endpoint: arguments.cognito_endpoint,
    };
    let interrupted = Notify::new();
    let mut is_headed = false;
    let mut tell = |finding: &Finding| {
        if !is_headed {
            say(&Report::heading());
            is_headed = true;
        }
        say(&finding.to_string());
    };
    let run = smoke::run(options, &mut tell, interrupted.notified());
    tokio::pin!(run);
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut is_leaving = false;
    let report = loop {
        tokio::select! {
            report = &mut run => break report?,
            () = stop(&mut interrupt, &mut terminate) => {
                if is_leaving {
                    return Ok(INTERRUPTED);
                }
                is_leaving = true;
                let _ = writeln!(std::io::stderr().lock(), "clearing away; again to leave everything as it is");
                interrupted.notify_one();
            }
        }
    };
    say(&report.to_string());
    if let Some(file) = &arguments.json {
        let json = format!("{:#}\n", report.json());
        tokio::fs::write(file, json)
            .await
            .with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(match report.wrong().next() {
        _ if report.interrupted => INTERRUPTED,
        Some(_) => 1,
        None => 0,
    })
}

async fn stop(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// Writes a line to standard output. A reader that has gone (`| head`) is no reason not to clear away.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
