//! Bulkhead on one machine: `cargo run`.

use std::io::Write as _;
use std::process::ExitCode;

use bulkhead_local::command::Arguments;
use clap::Parser as _;

#[tokio::main]
async fn main() -> ExitCode {
    match Arguments::parse().run().await {
        Ok(code) => code,
        Err(error) => {
            // For the person at the keyboard: what went wrong and why, not where in the code.
            let _ = writeln!(std::io::stderr().lock(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
