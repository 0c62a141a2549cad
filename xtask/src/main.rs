//! The project's own tasks, as `cargo xtask …`.
//!
//! * `test`: everything that must hold before a change lands, the README's test command.
//! * `lint`: the same without the tests.
//! * `statements`: the last part of `test` again, with other random statements.
//! * `python`: the Python environments of the two, for the tests that need boto3, schemathesis or the SAM CLI.
//! * `package`: what is deployed, built as `sam build` does; or release builds for this machine, measured.
//! * `bench`: what a request costs, beside the least that could serve it.
//!
//! Not here: deployment (AWS SAM does that, see docs/operations.md) and any logic that a test or the local stack could
//! hold.

mod bench;
mod expansion;
// The same source as the local stack's, and not that crate: it would have to be compiled, with all its emulators, before
// any check could begin, and once more with the features that the tests add.
#[cfg_attr(not(test), expect(dead_code, reason = "only release builds are packaged"))]
#[path = "../../local/src/function.rs"]
mod function;
mod lint;
mod measurement;
mod package;
mod python;
mod step;
mod suite;
mod template;
mod workspace;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::package::Architecture;
use crate::python::Tools;
use crate::step::Step;
use crate::workspace::Workspace;

/// The command line.
#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own tasks", disable_version_flag = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

/// One task.
#[derive(Subcommand)]
enum Task {
    /// Checks formatting, lints, documentation, dependencies, contract and template, and runs all tests
    Test,
    /// Checks all that `test` does but for the tests
    Lint,
    /// Takes some statements of the policies away and looks what goes red, after a run of the tests
    Statements,
    /// Prints which Python has a set of programs, and makes it if need be
    Python {
        /// The set
        #[arg(value_enum, default_value_t = Tools::Lint)]
        tools: Tools,
    },
    /// Builds the functions as they are deployed, by `sam build`
    Package {
        /// The processor to build for
        #[arg(long, value_enum, default_value_t = Architecture::Arm64, conflicts_with = "measure")]
        architecture: Architecture,
        /// Builds them for this machine instead, and prints each one's size, its time to the first `/next` and its memory
        /// then
        #[arg(long)]
        measure: bool,
        /// How often each function is started to be measured; the median counts
        #[arg(long, default_value_t = 21, value_parser = clap::value_parser!(u16).range(1..))]
        runs: u16,
    },
    /// Measures what a request costs, and writes it to target/bench/
    #[command(subcommand)]
    Bench(Bench),
}

/// One bench.
#[derive(Subcommand)]
enum Bench {
    /// The model's first token until the client's first delta, beside a bare pass-through
    Stream {
        /// How often each of the two is measured, in turns
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
        rounds: u16,
        /// Builds everything as for tests, which is quicker and says less
        #[arg(long)]
        debug: bool,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    let workspace = Workspace::find()?;
    match Arguments::parse().task {
        Task::Test => {
            let mut steps = lint::STEPS.to_vec();
            steps.push(Step {
                name: "test",
                run: suite::test,
            });
            steps.push(Step {
                name: "statements",
                run: suite::statements,
            });
            step::run_all(&workspace, &steps)
        }
        Task::Statements => step::run_all(
            &workspace,
            &[Step {
                name: "statements",
                run: suite::statements,
            }],
        ),
        Task::Lint => step::run_all(&workspace, lint::STEPS),
        Task::Python { tools } => {
            let python = tools.programs(&workspace)?.join("python");
            writeln!(std::io::stdout().lock(), "{}", python.display())?;
            Ok(ExitCode::SUCCESS)
        }
        Task::Package {
            architecture,
            measure,
            runs,
        } => {
            if measure {
                package::measured(&workspace, runs)?;
            } else {
                package::deployable(&workspace, architecture)?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Task::Bench(Bench::Stream { rounds, debug }) => {
            bench::stream(&workspace, rounds, debug)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
