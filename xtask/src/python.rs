//! The Python programs that check what no Rust crate does, each set in an environment of its own under the target folder.
//!
//! They are apart because their packages want different versions of the same ones.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::ValueEnum;

use crate::workspace::{Workspace, check};

/// A set of programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Tools {
    /// cfn-lint with AWS's translator of SAM, openapi-spec-validator, boto3 and schemathesis
    Lint,
    /// checkov
    Checkov,
    /// The AWS SAM CLI
    Sam,
    /// The AWS SAM CLI with cargo-lambda and its cross-compiler, as the pipeline has them
    Deployment,
}

impl Tools {
    /// The file that pins its packages.
    const fn requirements(self) -> &'static str {
        match self {
            Self::Lint => "infra/requirements.txt",
            Self::Checkov => "infra/requirements-checkov.txt",
            Self::Sam => "infra/requirements-sam.txt",
            Self::Deployment => ".github/workflows/requirements.txt",
        }
    }

    /// Its folder under the target folder.
    const fn folder(self) -> &'static str {
        match self {
            Self::Lint => "venv",
            Self::Checkov => "venv-checkov",
            Self::Sam => "venv-sam",
            Self::Deployment => "venv-deployment",
        }
    }

    /// The folder of its programs. The environment is made anew whenever the file that pins it has changed.
    ///
    /// # Errors
    /// If there is no Python 3.11 with `venv`, or the packages can't be installed.
    pub fn programs(self, workspace: &Workspace) -> anyhow::Result<PathBuf> {
        let requirements = workspace.root.join(self.requirements());
        let wanted = std::fs::read_to_string(&requirements).context(self.requirements())?;
        let venv = workspace.target.join(self.folder());
        // Written last, so that an environment which was interrupted is made again.
        let stamp = venv.join("installed.txt");
        let programs = venv.join("bin");
        if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
            return Ok(programs);
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
        let mut install = workspace.command(programs.join("python"));
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
        Ok(programs)
    }
}
