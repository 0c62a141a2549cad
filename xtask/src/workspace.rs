//! Where things are, and how other programs are called.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

/// The folder with the root `Cargo.toml`, and the one that builds go to.
#[derive(Debug)]
pub struct Workspace {
    /// Root of the repository.
    pub root: PathBuf,
    /// Cargo's target folder. What the tasks make for themselves is kept there too.
    pub target: PathBuf,
}

impl Workspace {
    /// Finds it from where this crate was built.
    ///
    /// # Errors
    /// If the crate has no parent folder.
    pub fn find() -> anyhow::Result<Self> {
        let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = crate_folder.parent().context("xtask lies in no workspace")?.to_owned();
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir));
        Ok(Self { root, target })
    }

    /// A program to be run in the root folder.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        command
    }

    /// The cargo that runs this task, so that the toolchain is the same.
    pub fn cargo_command(&self) -> Command {
        self.command(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")))
    }

    /// Runs cargo.
    ///
    /// # Errors
    /// If it can't be started or fails.
    pub fn cargo<const N: usize>(&self, arguments: [&str; N]) -> anyhow::Result<()> {
        check(self.cargo_command().args(arguments))
    }
}

/// Runs a command whose output goes to the terminal.
///
/// # Errors
/// If it can't be started or ends with anything but 0; the error names it.
pub fn check(command: &mut Command) -> anyhow::Result<()> {
    let name = display(command);
    let status = command.status().with_context(|| format!("cannot start `{name}`"))?;
    if !status.success() {
        bail!("`{name}`: {status}");
    }
    Ok(())
}

/// The command as one would type it, without quoting.
fn display(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut words = vec![program.file_name().unwrap_or(program.as_os_str()).to_string_lossy()];
    words.extend(command.get_args().map(OsStr::to_string_lossy));
    words.join(" ")
}
