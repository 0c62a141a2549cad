//! The checks that run no code of ours.
//!
//! Cheap ones first. `doc` follows `clippy` because both use the dependencies as checked, not as compiled.

use std::path::PathBuf;

use crate::python::Tools;
use crate::step::Step;
use crate::template;
use crate::workspace::{Workspace, check};

/// All of them, in their order.
pub const STEPS: &[Step] = &[
    Step {
        name: "format",
        run: |workspace| workspace.cargo(["fmt", "--all", "--check"]),
    },
    Step {
        name: "contract",
        run: contract,
    },
    Step {
        name: "template",
        run: template::lint,
    },
    Step {
        name: "checkov",
        run: template::audit,
    },
    Step {
        name: "workflows",
        run: workflows,
    },
    Step {
        name: "deny",
        run: deny,
    },
    Step {
        name: "clippy",
        run: |workspace| workspace.cargo(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    },
    Step {
        name: "doc",
        run: |workspace| {
            let mut command = workspace.cargo_command();
            check(
                command
                    .args(["doc", "--workspace", "--no-deps"])
                    .env("RUSTDOCFLAGS", "-D warnings"),
            )
        },
    },
];

/// Which cargo-deny is installed where there is none.
const CARGO_DENY: &str = "cargo-deny@0.20.2";

/// Licences, sources and bans. The advisory database is not used: it is fetched from elsewhere than the registry.
fn deny(workspace: &Workspace) -> anyhow::Result<()> {
    let program = cargo_deny(workspace)?;
    let mut command = workspace.command(program);
    command.args([
        "--workspace",
        "--locked",
        "check",
        "--hide-inclusion-graph",
        "licenses",
        "sources",
        "bans",
    ]);
    check(&mut command)
}

/// The program, installed under the target folder unless it is there or on the path.
fn cargo_deny(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let tools = workspace.target.join("tools");
    let own = tools.join("bin/cargo-deny");
    if own.is_file() {
        return Ok(own);
    }
    if let Some(path) = std::env::var_os("PATH")
        && let Some(found) = std::env::split_paths(&path)
            .map(|dir| dir.join("cargo-deny"))
            .find(|file| file.is_file())
    {
        return Ok(found);
    }
    let mut install = workspace.cargo_command();
    // Its own target folder, as `cargo install` of elsewhere: with ours, the profile and features would mix.
    install
        .args(["install", "--locked", "--root"])
        .arg(&tools)
        .arg(CARGO_DENY)
        .env_remove("CARGO_TARGET_DIR");
    check(&mut install)?;
    Ok(own)
}

/// The contract as OpenAPI.
fn contract(workspace: &Workspace) -> anyhow::Result<()> {
    let tools = Tools::Lint.programs(workspace)?;
    check(
        workspace
            .command(tools.join("openapi-spec-validator"))
            .arg("openapi/gateway.yaml"),
    )
}

/// What the pipeline may do and what it trusts. Offline: what only GitHub knows is not looked up.
fn workflows(workspace: &Workspace) -> anyhow::Result<()> {
    let zizmor = Tools::Lint.programs(workspace)?.join("zizmor");
    check(
        workspace
            .command(zizmor)
            .args(["--offline", "--quiet", ".github/workflows"]),
    )
}
