//! The function binaries: built by the one piece of code that the stack, the test harness and xtask share.
//!
//! `cargo build -p … --bins --target-dir target/functions`, never `--workspace`: with all packages in one build, cargo
//! unifies their features, and the binaries would not be those that are shipped. A folder of its own keeps the two kinds
//! from overwriting each other.
//!
//! `BULKHEAD_FUNCTIONS=DIR` names ready-made binaries instead, for example release builds or those of an artefact.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// The variable that names a folder of ready-made binaries.
pub const FUNCTIONS_VARIABLE: &str = "BULKHEAD_FUNCTIONS";

/// How the binaries are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Quickly, for development and tests.
    Debug,
    /// As they are shipped.
    Release,
}

/// Why there are no binaries.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The folder that `BULKHEAD_FUNCTIONS` names lacks a binary.
    #[error("{FUNCTIONS_VARIABLE}: there is no {}", .0.display())]
    Missing(PathBuf),
    /// Cargo could not be run.
    #[error("{} can't be run ({source}); {FUNCTIONS_VARIABLE} may name a folder of ready-made binaries", program.display())]
    NoCargo {
        /// The program that was tried.
        program: OsString,
        /// What the system said.
        source: std::io::Error,
    },
    /// Cargo failed; it has said why on the standard error stream.
    #[error("the functions could not be built: cargo ended with {0}")]
    Failed(ExitStatus),
}

/// The folder that holds an up-to-date binary of each package, which is the one that `BULKHEAD_FUNCTIONS` names or else is
/// built now. Cargo shows its progress on the standard error stream. Blocks until it is done.
///
/// # Errors
/// When a ready-made binary is missing, or the build fails.
pub fn binaries(packages: &BTreeSet<String>, profile: Profile) -> Result<PathBuf, BuildError> {
    match std::env::var_os(FUNCTIONS_VARIABLE).filter(|folder| !folder.is_empty()) {
        Some(folder) => ready_made(PathBuf::from(folder), packages),
        None => build(&workspace(), packages, profile, Stdio::inherit()),
    }
}

/// The root of the workspace that this was compiled in.
#[must_use]
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

fn ready_made(folder: PathBuf, packages: &BTreeSet<String>) -> Result<PathBuf, BuildError> {
    for package in packages {
        let binary = folder.join(package);
        if !binary.is_file() {
            return Err(BuildError::Missing(binary));
        }
    }
    Ok(folder)
}

fn build(
    workspace: &Path,
    packages: &BTreeSet<String>,
    profile: Profile,
    progress: Stdio,
) -> Result<PathBuf, BuildError> {
    let target = workspace.join("target").join("functions");
    // The cargo that runs us, if one does; rustup's proxy otherwise.
    let program = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(&program);
    command.arg("build").arg("--bins").arg("--target-dir").arg(&target);
    for package in packages {
        command.arg("--package").arg(package);
    }
    if profile == Profile::Release {
        command.arg("--release");
    }
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_of_the_outer_build(name)) {
        command.env_remove(name);
    }
    let status = command
        .current_dir(workspace)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(progress)
        .status()
        .map_err(|source| BuildError::NoCargo { program, source })?;
    if !status.success() {
        return Err(BuildError::Failed(status));
    }
    Ok(target.join(match profile {
        Profile::Debug => "debug",
        Profile::Release => "release",
    }))
}

/// Whether a variable is one that cargo (or clippy) set for the process that we are. They differ between `cargo run`,
/// `cargo test` and xtask; what reads one at compile time or in a build script would be rebuilt at every change. What a
/// person sets for cargo (`RUSTFLAGS`, `CARGO_HOME`, `CARGO_BUILD_JOBS`, profiles, registries) stays.
fn is_of_the_outer_build(name: &OsStr) -> bool {
    const NAMES: [&str; 14] = [
        "CARGO",
        // Another target would put the binaries into another folder.
        "CARGO_BUILD_TARGET",
        "CARGO_CRATE_NAME",
        "CARGO_MAKEFLAGS",
        "CARGO_MANIFEST_DIR",
        "CARGO_MANIFEST_PATH",
        "CARGO_PRIMARY_PACKAGE",
        "CARGO_TARGET_DIR",
        "CARGO_TARGET_TMPDIR",
        "CLIPPY_ARGS",
        "OUT_DIR",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUST_RECURSION_COUNT",
        "MAKEFLAGS",
    ];
    const PREFIXES: [&str; 5] = ["CARGO_PKG_", "CARGO_BIN_", "CARGO_CFG_", "CARGO_FEATURE_", "DEP_"];
    name.to_str()
        .is_some_and(|name| NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packages(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn only_the_named_packages_are_built_and_a_second_build_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write(
            "Cargo.toml",
            "[workspace]\nresolver = \"3\"\nmembers = [\"one\", \"two\", \"other\"]\n",
        );
        for package in ["one", "two", "other"] {
            let manifest = format!("[package]\nname = \"{package}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n");
            write(&format!("{package}/Cargo.toml"), &manifest);
            write(
                &format!("{package}/src/main.rs"),
                "fn main() { let _ = option_env!(\"CARGO_MANIFEST_DIR\"); }\n",
            );
        }
        let built = build(folder.path(), &packages(&["one", "two"]), Profile::Debug, Stdio::null()).unwrap();
        assert_eq!(built, folder.path().join("target/functions/debug"));
        assert!(built.join("one").is_file() && built.join("two").is_file());
        assert!(!built.join("other").exists());

        let modified = || std::fs::metadata(built.join("one")).unwrap().modified().unwrap();
        let first = modified();
        build(folder.path(), &packages(&["one", "two"]), Profile::Debug, Stdio::null()).unwrap();
        assert_eq!(modified(), first);

        write("one/src/main.rs", "fn main() { broken }\n");
        let error = build(folder.path(), &packages(&["one"]), Profile::Debug, Stdio::null()).unwrap_err();
        assert!(matches!(error, BuildError::Failed(_)), "{error}");
    }

    #[test]
    fn ready_made_binaries_must_all_be_there() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("one"), "").unwrap();
        let found = ready_made(folder.path().to_owned(), &packages(&["one"])).unwrap();
        assert_eq!(found, folder.path());
        let error = ready_made(folder.path().to_owned(), &packages(&["one", "two"])).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "BULKHEAD_FUNCTIONS: there is no {}",
                folder.path().join("two").display()
            )
        );
    }

    #[test]
    fn variables_of_the_outer_build_are_told_from_those_of_a_person() {
        for name in [
            "CARGO_PKG_NAME",
            "CARGO_MANIFEST_DIR",
            "CARGO_BIN_EXE_it",
            "CARGO_TARGET_DIR",
            "OUT_DIR",
        ] {
            assert!(is_of_the_outer_build(OsStr::new(name)), "{name}");
        }
        for name in [
            "CARGO_HOME",
            "CARGO_BUILD_JOBS",
            "RUSTFLAGS",
            "CARGO_NET_OFFLINE",
            "PATH",
            "CARGO_PROFILE_DEV_DEBUG",
        ] {
            assert!(!is_of_the_outer_build(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn the_workspace_is_ours() {
        assert!(workspace().join("infra/template.yaml").is_file());
    }
}
