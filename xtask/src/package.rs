//! Release builds of the functions, zipped as Lambda takes them.
//!
//! They are built for this machine. What is deployed is built for Lambda's processor by `sam build`; these are there to be
//! measured, and to run the suite against release builds (`BULKHEAD_FUNCTIONS`).

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use zip::write::SimpleFileOptions;

use crate::workspace::Workspace;
use crate::{function, measurement};

/// The functions, each a package with a binary of the same name.
const FUNCTIONS: [&str; 5] = [
    "authorizer",
    "query-handler",
    "tenant-admin",
    "control-plane",
    "model-logging",
];

/// Builds and zips all functions, and prints their figures if `runs` says how often to start each.
///
/// # Errors
/// If a build fails, a file can't be written, or a function ends before it asks for an event.
pub fn run(workspace: &Workspace, runs: Option<u16>) -> anyhow::Result<()> {
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
        if let Some(runs) = runs {
            let start = measurement::start(&binary, runs).with_context(|| format!("starting {name}"))?;
            let (milliseconds, memory) = (start.until_next.as_secs_f64() * 1e3, megabytes(start.resident));
            table.push_str(&format!(" {milliseconds:>12.1} {memory:>14.2}"));
        }
        table.push('\n');
    }
    let mut out = std::io::stdout().lock();
    let columns = runs.map(|runs| format!(" {:>12} {:>14}   (median of {runs})", "to /next ms", "resident MB"));
    writeln!(
        out,
        "{:<14} {:>9} {:>9}{}",
        "function",
        "binary MB",
        "zip MB",
        columns.unwrap_or_default()
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
