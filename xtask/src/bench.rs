//! Runs a bench of the package `bench`, which is compiled with optimisations for it.

use crate::workspace::{Workspace, check};

/// The model's first token until the client's first delta, beside a bare pass-through.
///
/// # Errors
/// If it does not build, or fails.
pub fn stream(workspace: &Workspace, rounds: u16, debug: bool) -> anyhow::Result<()> {
    let mut command = workspace.cargo_command();
    command.args(["run", "--quiet", "--package", "bench"]);
    if !debug {
        command.args(["--profile", "bench"]);
    }
    command.args(["--", "stream", "--rounds"]).arg(rounds.to_string());
    if debug {
        command.arg("--debug");
    }
    check(&mut command)
}
