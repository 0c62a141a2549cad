//! The directory in which a stack keeps its state between starts: one stack at a time.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// A directory that this stack alone uses, or none for a stack that forgets.
#[derive(Debug)]
pub struct DataDirectory {
    root: Option<PathBuf>,
    /// Held for as long as the stack runs; the system lets go of it even if the process is killed.
    _lock: Option<File>,
}

impl DataDirectory {
    /// Opens, and makes if need be, the directory.
    ///
    /// # Errors
    /// Another stack uses it, or it can't be written.
    pub fn open(root: Option<&Path>) -> anyhow::Result<Self> {
        let Some(root) = root else {
            return Ok(Self {
                root: None,
                _lock: None,
            });
        };
        fs::create_dir_all(root).with_context(|| format!("making {}", root.display()))?;
        let lock = File::create(root.join("lock")).with_context(|| format!("opening {}", root.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!("another stack uses {}", root.display()),
            Err(TryLockError::Error(error)) => return Err(error).context(format!("locking {}", root.display())),
        }
        Ok(Self {
            root: Some(root.to_path_buf()),
            _lock: Some(lock),
        })
    }

    /// A path below the directory.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.root.as_ref().map(|root| root.join(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_stack_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataDirectory::open(Some(folder.path())).unwrap();
        assert!(DataDirectory::open(Some(folder.path())).is_err());
        drop(first);
        assert!(DataDirectory::open(Some(folder.path())).is_ok());
    }
}
