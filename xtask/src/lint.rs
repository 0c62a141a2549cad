//! The checks that run no code of ours.
//!
//! Cheap ones first. `doc` follows `clippy` because both use the dependencies as checked, not as compiled.

use std::path::PathBuf;

use anyhow::{Context as _, bail};

use crate::expansion;
use crate::step::Step;
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

/// The contract as OpenAPI, and the template as it is and with the contract in place of its include.
fn contract(workspace: &Workspace) -> anyhow::Result<()> {
    let tools = python_tools(workspace)?;
    check(
        workspace
            .command(tools.join("openapi-spec-validator"))
            .arg("openapi/gateway.yaml"),
    )?;

    let infra = workspace.root.join("infra");
    let template = std::fs::read_to_string(infra.join("template.yaml")).context("infra/template.yaml")?;
    let expanded = expansion::expand(&template, |location| {
        let path = infra.join(location);
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    })?;
    let folder = workspace.target.join("lint");
    std::fs::create_dir_all(&folder)?;
    let expanded_file = folder.join("template.yaml");
    std::fs::write(&expanded_file, expanded)?;
    check(
        workspace
            .command(tools.join("cfn-lint"))
            .args(["--template", "infra/template.yaml"]),
    )?;
    check(
        workspace
            .command(tools.join("cfn-lint"))
            .arg("--template")
            .arg(&expanded_file),
    )
}

/// What the pipeline may do and what it trusts. Offline: what only GitHub knows is not looked up.
fn workflows(workspace: &Workspace) -> anyhow::Result<()> {
    let zizmor = python_tools(workspace)?.join("zizmor");
    check(
        workspace
            .command(zizmor)
            .args(["--offline", "--quiet", ".github/workflows"]),
    )
}

/// The folder of programs of `target/venv`, which is made anew whenever `infra/requirements.txt` has changed.
///
/// # Errors
/// If there is no Python 3.11 with `venv`, or the packages can't be installed.
pub fn python_tools(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let requirements = workspace.root.join("infra/requirements.txt");
    let wanted = std::fs::read_to_string(&requirements).context("infra/requirements.txt")?;
    let venv = workspace.target.join("venv");
    // Written last, so that a venv which was interrupted is made again.
    let stamp = venv.join("installed.txt");
    let tools = venv.join("bin");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(tools);
    }
    let version = workspace
        .command("python3")
        .args(["-c", "import sys; sys.exit(sys.version_info < (3, 11))"])
        .status()
        .context("python3 is needed for the checks of the contract and the template")?;
    if !version.success() {
        bail!("python3 is older than 3.11");
    }
    check(workspace.command("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
    let mut install = workspace.command(tools.join("python"));
    install.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--requirement",
    ]);
    check(install.arg(&requirements))?;
    std::fs::write(&stamp, wanted)?;
    Ok(tools)
}
