//! `bulkhead`: checks a deployment from outside.

use std::io::Write as _;
use std::process::ExitCode;

use bulkhead_cli::deployment::Deployment;
use bulkhead_cli::smoke;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "bulkhead", about = "Checks a Bulkhead deployment from outside, over HTTP")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Is it up, and does it refuse strangers?
    Smoke {
        /// The deployment's base URL, stage included.
        #[arg(long)]
        base_url: String,
        /// A tenant user's token; with it a question is asked as well.
        #[arg(long, env = "BULKHEAD_TOKEN", hide_env_values = true)]
        token: Option<String>,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let Command::Smoke { base_url, token } = Arguments::parse().command;
    let checks = smoke::run(&Deployment::new(&base_url)?, token.as_deref()).await?;
    let mut out = std::io::stdout().lock();
    for (name, fault) in &checks {
        match fault {
            None => writeln!(out, "ok    {name}")?,
            Some(fault) => writeln!(out, "WRONG {name}: {fault}")?,
        }
    }
    let good = checks.iter().all(|(_, fault)| fault.is_none());
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
