//! Bulkhead on one machine: `cargo run`.

use std::io::Write as _;
use std::process::ExitCode;

use bulkhead_local::command::Arguments;
use clap::Parser as _;
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> ExitCode {
    // What the emulators find odd. s3s reports every refusal as an error, and refusals are everyday life.
    let filter = EnvFilter::new("warn,s3s=off");
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    match Arguments::parse().run().await {
        Ok(code) => code,
        Err(error) => {
            // For the person at the keyboard: what went wrong and why, not where in the code.
            let _ = writeln!(std::io::stderr().lock(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
