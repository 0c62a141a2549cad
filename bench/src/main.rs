//! Benches: what a request costs through the whole gateway, beside the least that could serve it.
//!
//! Both sides of a comparison run in one process, in turns, against the same fakes, so that what they share cancels out
//! and a ratio means something on any machine. Nothing is asserted: a time depends on the machine, and its reader knows
//! which it was. Results are printed, and written to `target/bench/`.
//!
//! Not here: the time to start (`cargo xtask package --measure`), and load.

mod pass_through;
mod spread;
mod stream;

use clap::{Parser, Subcommand};

/// The command line.
#[derive(Parser)]
#[command(name = "bench", about = "What a request costs", disable_version_flag = true)]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// The model's first token until the client's first delta, beside a bare pass-through
    Stream(stream::Arguments),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Arguments::parse().bench {
        Bench::Stream(arguments) => stream::run(&arguments).await,
    }
}
