//! Bulkhead on one machine: `cargo run`.

use std::process::ExitCode;

use bulkhead_local::command::Arguments;
use clap::Parser as _;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    Arguments::parse().run().await
}
