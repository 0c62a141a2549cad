//! Release builds of the functions: as they are deployed, by the SAM CLI, and for this machine, to be measured.
//!
//! What is deployed is built for Lambda's processor by `sam build`, which has cargo-lambda cross-compile; an operator types
//! the same. It runs on no other machine, so that what is measured, and what the suite runs against release builds with
//! (`BULKHEAD_FUNCTIONS`), is built by cargo alone from the same profile.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use zip::write::SimpleFileOptions;

use crate::python::Tools;
use crate::workspace::{Workspace, check};
use crate::{function, measurement};

/// A processor that Lambda has, by the names that it gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Architecture {
    /// AWS Graviton
    Arm64,
    /// Intel and AMD
    #[value(name = "x86_64")]
    X8664,
}

/// Builds what is deployed, with the same two programs as `sam build` has elsewhere, and prints its sizes.
///
/// # Errors
/// If the programs can't be installed, a build fails, or a file can't be written.
pub fn deployable(workspace: &Workspace, architecture: Architecture) -> anyhow::Result<()> {
    let programs = Tools::Deployment.programs(workspace)?;
    let mut path = OsString::from(&programs);
    if let Some(inherited) = std::env::var_os("PATH") {
        path.push(":");
        path.push(inherited);
    }
    let mut build = workspace.command(programs.join("sam"));
    build.arg("build").env("PATH", path).env("SAM_CLI_TELEMETRY", "0");
    // The template's own default is arm64.
    if architecture == Architecture::X8664 {
        build.args(["--parameter-overrides", "Architecture=x86_64"]);
    }
    check(&mut build)?;
    let built = workspace.root.join(".aws-sam/build");
    let mut functions: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(&built).with_context(|| built.display().to_string())? {
        let folder = entry?.path();
        if folder.join("bootstrap").is_file() {
            functions.push(folder);
        }
    }
    functions.sort();
    if functions.len() != FUNCTIONS.len() {
        bail!("{} functions were built, not {}", functions.len(), FUNCTIONS.len());
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{:<22} {:>9} {:>9}", "function", "binary MB", "zip MB")?;
    for folder in functions {
        let (name, binary) = (folder.file_name().unwrap_or_default(), folder.join("bootstrap"));
        let archive = tempfile::NamedTempFile::new()?;
        zip_as_bootstrap(&binary, archive.path())?;
        let size = megabytes(std::fs::metadata(&binary)?.len());
        let zipped = megabytes(std::fs::metadata(archive.path())?.len());
        writeln!(out, "{:<22} {size:>9.2} {zipped:>9.2}", name.to_string_lossy())?;
    }
    writeln!(out, "\nDeploy it with: sam deploy --guided")?;
    Ok(())
}

/// The functions, each a package with a binary of the same name.
const FUNCTIONS: [&str; 5] = [
    "authorizer",
    "query-handler",
    "tenant-admin",
    "control-plane",
    "model-logging",
];

/// Builds and zips all functions for this machine, and prints their figures, each started `runs` times.
///
/// # Errors
/// If a build fails, a file can't be written, or a function ends before it asks for an event.
pub fn measured(workspace: &Workspace, runs: u16) -> anyhow::Result<()> {
    let packages = FUNCTIONS.map(str::to_owned).into();
    let binaries = function::binaries(&packages, function::Profile::Release)?;
    let folder = workspace.target.join("package");
    std::fs::create_dir_all(&folder)?;
    let mut table = String::new();
    for name in FUNCTIONS {
        let binary = binaries.join(name);
        let archive = folder.join(format!("{name}.zip"));
        zip_as_bootstrap(&binary, &archive).with_context(|| archive.display().to_string())?;
        let size = megabytes(std::fs::metadata(&binary)?.len());
        let zipped = megabytes(std::fs::metadata(&archive)?.len());
        table.push_str(&format!("{name:<14} {size:>9.2} {zipped:>9.2}"));
        let start = measurement::start(&binary, runs).with_context(|| format!("starting {name}"))?;
        let (milliseconds, memory) = (start.until_next.as_secs_f64() * 1e3, megabytes(start.resident));
        table.push_str(&format!(" {milliseconds:>12.1} {memory:>14.2}\n"));
    }
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{:<14} {:>9} {:>9} {:>12} {:>14}   (median of {runs})",
        "function", "binary MB", "zip MB", "to /next ms", "resident MB"
    )?;
    write!(out, "{table}")?;
    writeln!(
        out,
        "\nTo run the suite against these: BULKHEAD_FUNCTIONS={} cargo test --workspace",
        binaries.display()
    )?;
    Ok(())
}

/// One executable, named as the `provided` runtimes want it.
fn zip_as_bootstrap(binary: &Path, archive: &Path) -> anyhow::Result<()> {
    let mut writer = zip::ZipWriter::new(File::create(archive)?);
    writer.start_file("bootstrap", SimpleFileOptions::default().unix_permissions(0o755))?;
    std::io::copy(&mut File::open(binary)?, &mut writer)?;
    writer.finish()?;
    Ok(())
}

/// Millions of bytes.
#[expect(clippy::cast_precision_loss, reason = "two decimals are printed")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
