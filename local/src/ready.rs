//! The file that says where a stack listens: written when it is ready, read by the commands that talk to a running one.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

/// Where a stack listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// The gateway's base URL, stage included.
    pub base_url: String,
    /// The identity provider's issuer.
    pub issuer: String,
    /// The other listeners.
    pub endpoints: Endpoints,
    /// The process id of the stack.
    pub pid: u32,
    /// What the identity provider demands of whoever asks it for tokens. The file is readable by its owner only.
    pub token_secret: String,
}

/// The listeners beside the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// The fakes of AWS, for `AWS_ENDPOINT_URL`.
    pub aws: String,
    /// The identity provider.
    pub identity: String,
}

/// The folder of the ready files that are always written.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bulkhead")
}

impl Ready {
    /// Writes the ready files: the newest stack's, one of this process, and `extra` if it is named.
    ///
    /// # Errors
    /// One can't be written.
    pub fn write(&self, extra: Option<&Path>) -> anyhow::Result<()> {
        let folder = folder();
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let own = folder.join(format!("ready-{}.json", self.pid));
        for path in [Some(folder.join("ready.json").as_path()), Some(own.as_path()), extra]
            .into_iter()
            .flatten()
        {
            self.write_one(path)
                .with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }

    /// Removes what [`Ready::write`] left for others, when the stack stops.
    pub fn remove(&self, extra: Option<&Path>) {
        let folder = folder();
        let own = folder.join(format!("ready-{}.json", self.pid));
        for path in [Some(own.as_path()), extra].into_iter().flatten() {
            // Gone already is as good.
            let _ = fs::remove_file(path);
        }
        let newest = folder.join("ready.json");
        if Self::read(&newest).is_ok_and(|ready| ready == *self) {
            let _ = fs::remove_file(newest);
        }
    }

    /// Reads a ready file.
    ///
    /// # Errors
    /// It is not there, or not one.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_slice(&bytes).with_context(|| format!("{} is not a ready file", path.display()))
    }

    /// The newest stack that answers, or the one at `base_url`.
    ///
    /// # Errors
    /// None answers.
    pub async fn find(base_url: Option<&str>) -> anyhow::Result<Self> {
        let mut files: Vec<(std::time::SystemTime, PathBuf)> = Vec::new();
        if let Ok(entries) = fs::read_dir(folder()) {
            for entry in entries.flatten() {
                let changed = entry.metadata().and_then(|metadata| metadata.modified());
                if let Ok(changed) = changed
                    && entry.path().extension().is_some_and(|extension| extension == "json")
                {
                    files.push((changed, entry.path()));
                }
            }
        }
        files.sort();
        for (_, path) in files.iter().rev() {
            let Ok(ready) = Self::read(path) else { continue };
            let wanted = base_url.is_none_or(|base_url| base_url.trim_end_matches('/') == ready.base_url);
            if wanted && ready.answers().await {
                return Ok(ready);
            }
        }
        bail!("no running stack answers; start one with `cargo run`")
    }

    async fn answers(&self) -> bool {
        let Ok(client) = reqwest::Client::builder()
            .no_proxy()
            .timeout(std::time::Duration::from_secs(2))
            .build()
        else {
            return false;
        };
        client
            .get(format!("{}/health", self.base_url))
            .send()
            .await
            .is_ok_and(|answer| answer.status().is_success())
    }

    /// Writes beside the file and renames, so that nobody reads half of one.
    fn write_one(&self, path: &Path) -> anyhow::Result<()> {
        let partial = path.with_extension(format!("{}.partial", self.pid));
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&partial)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        fs::rename(&partial, path)?;
        Ok(())
    }
}
