//! Buckets on disk: an index in SQLite, and the contents in files that are named by their SHA-256.
//!
//! A key is a string and nothing else: it never becomes a path, so `t1/../t2/x` is an object of its own. One lock holds the
//! index, so that a condition and the write that it guards are one step. Contents are written beside and renamed into
//! place before the index names them: what a crash leaves behind is a file without a name, never a name without a file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use bytes::Bytes;
use data_encoding::HEXLOWER;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use s3s::crypto::{Checksum as _, Md5};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::object::{Object, ObjectEntry, ObjectStore};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS bucket (name TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS object (
        bucket TEXT NOT NULL REFERENCES bucket (name),
        key BLOB NOT NULL,
        blob TEXT NOT NULL,
        size INTEGER NOT NULL,
        etag TEXT NOT NULL,
        last_modified INTEGER NOT NULL,
        attributes TEXT NOT NULL,
        checksum TEXT NOT NULL,
        PRIMARY KEY (bucket, key)
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS object_blob ON object (blob);
";
const COLUMNS: &str = "key, blob, size, etag, last_modified, attributes, checksum";

/// What is kept with an object besides its contents, and what a copy takes over or replaces as one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attributes {
    pub(crate) content_type: Option<String>,
    pub(crate) content_disposition: Option<String>,
    pub(crate) content_encoding: Option<String>,
    pub(crate) content_language: Option<String>,
    pub(crate) cache_control: Option<String>,
    /// User metadata: names without `x-amz-meta-`.
    pub(crate) metadata: BTreeMap<String, String>,
}

/// A checksum that was verified when the object was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredChecksum {
    /// The algorithm as S3 writes it: `SHA256`.
    pub(crate) algorithm: String,
    /// The digest in base64.
    pub(crate) value: String,
}

/// An object without its contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) key: String,
    blob: String,
    pub(crate) size: u64,
    /// Without quotes.
    pub(crate) etag: String,
    pub(crate) last_modified: OffsetDateTime,
    pub(crate) attributes: Attributes,
    pub(crate) checksum: StoredChecksum,
}

/// What has to hold for a write to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Precondition {
    Nothing,
    /// `If-None-Match: *`.
    Absent,
    /// `If-Match`, an entity tag without quotes.
    Etag(String),
}

/// Why a store refuses.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("there is no such bucket")]
    NoSuchBucket,
    #[error("there is no such key")]
    NoSuchKey,
    #[error("the precondition does not hold")]
    PreconditionFailed,
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// Where a listing goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum After {
    /// Behind this key.
    Key(String),
    /// Behind every key that begins with this.
    Prefix(String),
}

/// What a listing asks for.
#[derive(Debug, Clone)]
pub(crate) struct Listing<'a> {
    pub(crate) prefix: &'a str,
    /// Empty: none.
    pub(crate) delimiter: &'a str,
    pub(crate) after: Option<After>,
    pub(crate) limit: usize,
}

/// One page of a listing.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) objects: Vec<Stored>,
    pub(crate) prefixes: Vec<String>,
    /// Where the next page begins, if there is one.
    pub(crate) next: Option<After>,
}

/// The buckets of the stack. All methods block: call them from `tokio::task::spawn_blocking`.
#[derive(Debug)]
pub struct S3Store {
    index: Mutex<Connection>,
    blobs: PathBuf,
    _temporary: Option<TempDir>,
}

impl S3Store {
    /// Opens the store in that directory, or makes it.
    ///
    /// # Errors
    ///
    /// When the directory can't be made or the index can't be opened.
    pub fn open(directory: &Path) -> anyhow::Result<Self> {
        let blobs = directory.join("blobs");
        fs::create_dir_all(&blobs).with_context(|| format!("can't make {}", blobs.display()))?;
        let path = directory.join("index.sqlite");
        let index = Connection::open(&path).with_context(|| format!("can't open {}", path.display()))?;
        index.pragma_update(None, "journal_mode", "WAL")?;
        index.pragma_update(None, "synchronous", "NORMAL")?;
        index.pragma_update(None, "foreign_keys", true)?;
        index.execute_batch(SCHEMA)?;
        Ok(Self {
            index: Mutex::new(index),
            blobs,
            _temporary: None,
        })
    }

    /// Opens a store that is gone when it is dropped.
    ///
    /// # Errors
    ///
    /// When no temporary directory can be made.
    pub fn ephemeral() -> anyhow::Result<Self> {
        let directory = TempDir::with_prefix("bulkhead-s3-")?;
        let mut store = Self::open(directory.path())?;
        store._temporary = Some(directory);
        Ok(store)
    }

    /// Makes a bucket. One that is there already stays as it is.
    ///
    /// # Errors
    ///
    /// When the name breaks S3's rules
    /// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html>) or the index can't be written.
    pub fn create_bucket(&self, name: &str) -> anyhow::Result<()> {
        anyhow::ensure!(s3s::path::check_bucket_name(name), "{name:?} is no name for a bucket");
        self.index()
            .execute("INSERT OR IGNORE INTO bucket VALUES (?1)", [name])?;
        Ok(())
    }

    /// The names of all buckets, sorted.
    ///
    /// # Errors
    ///
    /// When the index can't be read.
    pub fn buckets(&self) -> anyhow::Result<Vec<String>> {
        let index = self.index();
        let mut statement = index.prepare("SELECT name FROM bucket ORDER BY name")?;
        let names = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok(names)
    }

    /// Writes an object if the precondition holds.
    pub(crate) fn put(
        &self,
        bucket: &str,
        key: &str,
        bytes: &[u8],
        attributes: Attributes,
        checksum: StoredChecksum,
        precondition: &Precondition,
    ) -> Result<Stored, StoreError> {
        let stored = Stored {
            key: key.to_owned(),
            blob: HEXLOWER.encode(&Sha256::digest(bytes)),
            size: u64::try_from(bytes.len()).map_err(anyhow::Error::from)?,
            etag: HEXLOWER.encode(&Md5::checksum(bytes)),
            last_modified: now(),
            attributes,
            checksum,
        };
        let written = self.write_beside(bytes)?;
        let index = self.index();
        if let Err(refused) = check(&index, bucket, key, precondition) {
            drop(index);
            fs::remove_file(&written).context("can't remove an unwanted file")?;
            return Err(refused);
        }
        let path = self.blob(&stored.blob);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).context("can't make a directory for contents")?;
        }
        fs::rename(&written, &path).context("can't move contents into place")?;
        self.insert(&index, bucket, &stored)?;
        Ok(stored)
    }

    /// Copies an object if the precondition holds for the target and `accept` agrees with the source.
    pub(crate) fn copy<E: From<StoreError>>(
        &self,
        source: (&str, &str),
        target: (&str, &str),
        precondition: &Precondition,
        accept: impl FnOnce(&Stored) -> Result<(Attributes, StoredChecksum), E>,
    ) -> Result<Stored, E> {
        let index = self.index();
        require_bucket(&index, source.0)?;
        let found = find(&index, source.0, source.1)?.ok_or(StoreError::NoSuchKey)?;
        let (attributes, checksum) = accept(&found)?;
        check(&index, target.0, target.1, precondition)?;
        let stored = Stored {
            key: target.1.to_owned(),
            last_modified: now(),
            attributes,
            checksum,
            ..found
        };
        self.insert(&index, target.0, &stored)?;
        Ok(stored)
    }

    /// What is known of an object.
    pub(crate) fn head(&self, bucket: &str, key: &str) -> Result<Stored, StoreError> {
        let index = self.index();
        require_bucket(&index, bucket)?;
        find(&index, bucket, key)?.ok_or(StoreError::NoSuchKey)
    }

    /// An object and its contents, as they were at one moment.
    pub(crate) fn open_object(&self, bucket: &str, key: &str) -> Result<(Stored, Contents), StoreError> {
        let index = self.index();
        require_bucket(&index, bucket)?;
        let stored = find(&index, bucket, key)?.ok_or(StoreError::NoSuchKey)?;
        // Opened under the lock: the file may lose its name afterwards, but not its contents.
        let file = File::open(self.blob(&stored.blob)).context("the contents of an object are missing")?;
        Ok((stored, Contents(file)))
    }

    /// Deletes an object. One that is not there is deleted already; `etag` is `If-Match`.
    pub(crate) fn delete(&self, bucket: &str, key: &str, etag: Option<&str>) -> Result<(), StoreError> {
        let index = self.index();
        require_bucket(&index, bucket)?;
        let Some(found) = find(&index, bucket, key)? else {
            return etag.map_or(Ok(()), |_| Err(StoreError::NoSuchKey));
        };
        if etag.is_some_and(|etag| etag != "*" && etag != found.etag) {
            return Err(StoreError::PreconditionFailed);
        }
        index.execute(
            "DELETE FROM object WHERE bucket = ?1 AND key = ?2",
            params![bucket, key.as_bytes()],
        )?;
        self.forget_blob(&index, &found.blob)?;
        Ok(())
    }

    /// A page of a bucket, sorted bytewise.
    pub(crate) fn page(&self, bucket: &str, listing: &Listing<'_>) -> Result<Page, StoreError> {
        let index = self.index();
        require_bucket(&index, bucket)?;
        let mut page = Page::default();
        if listing.limit == 0 {
            return Ok(page);
        }
        let mut statement = index.prepare(&format!(
            "SELECT {COLUMNS} FROM object WHERE bucket = ?1 AND key >= ?2 AND key > ?3 ORDER BY key"
        ))?;
        let (behind, skipped) = match &listing.after {
            None => ("", None),
            Some(After::Key(key)) => (key.as_str(), None),
            Some(After::Prefix(prefix)) => (prefix.as_str(), Some(prefix.as_str())),
        };
        let mut rows = statement.query(params![bucket, listing.prefix.as_bytes(), behind.as_bytes()])?;
        let mut last = None;
        while let Some(row) = rows.next()? {
            let stored = read(row)?;
            let Some(rest) = stored.key.strip_prefix(listing.prefix) else {
                break;
            };
            if skipped.is_some_and(|skipped| stored.key.starts_with(skipped)) {
                continue;
            }
            let common = match rest.split_once(listing.delimiter) {
                Some((head, _)) if !listing.delimiter.is_empty() => {
                    Some(format!("{}{head}{}", listing.prefix, listing.delimiter))
                }
                Some(_) | None => None,
            };
            if common.is_some() && common.as_ref() == page.prefixes.last() {
                continue;
            }
            if page.objects.len() + page.prefixes.len() == listing.limit {
                page.next = last;
                break;
            }
            if let Some(common) = common {
                last = Some(After::Prefix(common.clone()));
                page.prefixes.push(common);
            } else {
                last = Some(After::Key(stored.key.clone()));
                page.objects.push(stored);
            }
        }
        Ok(page)
    }

    fn index(&self) -> MutexGuard<'_, Connection> {
        // Every change is one statement, so a panic elsewhere leaves nothing half done.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn blob(&self, name: &str) -> PathBuf {
        self.blobs.join(name.get(..2).unwrap_or_default()).join(name)
    }

    fn write_beside(&self, bytes: &[u8]) -> anyhow::Result<PathBuf> {
        let path = self.blobs.join(format!("{}.tmp", Uuid::new_v4().simple()));
        fs::write(&path, bytes).context("can't write contents")?;
        Ok(path)
    }

    fn insert(&self, index: &Connection, bucket: &str, stored: &Stored) -> Result<(), StoreError> {
        let replaced = find(index, bucket, &stored.key)?;
        index.execute(
            &format!("INSERT OR REPLACE INTO object (bucket, {COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"),
            params![
                bucket,
                stored.key.as_bytes(),
                stored.blob,
                i64::try_from(stored.size).map_err(anyhow::Error::from)?,
                stored.etag,
                milliseconds(stored.last_modified),
                serde_json::to_string(&stored.attributes).map_err(anyhow::Error::from)?,
                serde_json::to_string(&stored.checksum).map_err(anyhow::Error::from)?,
            ],
        )?;
        if let Some(replaced) = replaced {
            self.forget_blob(index, &replaced.blob)?;
        }
        Ok(())
    }

    /// Removes contents that no object has any more.
    fn forget_blob(&self, index: &Connection, blob: &str) -> Result<(), StoreError> {
        let used: bool = index.query_row("SELECT EXISTS (SELECT 1 FROM object WHERE blob = ?1)", [blob], |row| {
            row.get(0)
        })?;
        if !used {
            fs::remove_file(self.blob(blob)).context("can't remove contents")?;
        }
        Ok(())
    }
}

impl ObjectStore for S3Store {
    fn get(&self, bucket: &str, key: &str) -> anyhow::Result<Option<Object>> {
        match self.open_object(bucket, key) {
            Ok((stored, contents)) => Ok(Some(Object {
                bytes: contents.read(0..stored.size)?,
                etag: stored.etag,
                last_modified: stored.last_modified,
            })),
            Err(StoreError::NoSuchKey) => Ok(None),
            Err(error) => Err(anyhow::Error::new(error).context(format!("can't read from bucket {bucket}"))),
        }
    }

    fn list(&self, bucket: &str, prefix: &str) -> anyhow::Result<Vec<ObjectEntry>> {
        let listing = Listing {
            prefix,
            delimiter: "",
            after: None,
            limit: usize::MAX,
        };
        let page = self
            .page(bucket, &listing)
            .with_context(|| format!("can't list bucket {bucket}"))?;
        let entry = |stored: Stored| ObjectEntry {
            key: stored.key,
            etag: stored.etag,
            size: stored.size,
            last_modified: stored.last_modified,
        };
        Ok(page.objects.into_iter().map(entry).collect())
    }
}

/// The contents of an object, held open.
#[derive(Debug)]
pub(crate) struct Contents(File);

impl Contents {
    /// The bytes of that range, which has to lie within the object.
    pub(crate) fn read(mut self, range: Range<u64>) -> anyhow::Result<Bytes> {
        let length = range.end.saturating_sub(range.start);
        self.0.seek(SeekFrom::Start(range.start))?;
        let mut bytes = Vec::with_capacity(usize::try_from(length)?);
        self.0.take(length).read_to_end(&mut bytes)?;
        anyhow::ensure!(
            u64::try_from(bytes.len())? == length,
            "the contents of an object are too short"
        );
        Ok(Bytes::from(bytes))
    }
}

fn require_bucket(index: &Connection, bucket: &str) -> Result<(), StoreError> {
    let found: bool = index.query_row(
        "SELECT EXISTS (SELECT 1 FROM bucket WHERE name = ?1)",
        [bucket],
        |row| row.get(0),
    )?;
    if found { Ok(()) } else { Err(StoreError::NoSuchBucket) }
}

fn find(index: &Connection, bucket: &str, key: &str) -> Result<Option<Stored>, StoreError> {
    let found = index
        .prepare_cached(&format!("SELECT {COLUMNS} FROM object WHERE bucket = ?1 AND key = ?2"))?
        .query_row(params![bucket, key.as_bytes()], |row| Ok(read(row)))
        .optional()?;
    found.transpose()
}

fn check(index: &Connection, bucket: &str, key: &str, precondition: &Precondition) -> Result<(), StoreError> {
    require_bucket(index, bucket)?;
    match (precondition, find(index, bucket, key)?) {
        (Precondition::Nothing, _) | (Precondition::Absent, None) => Ok(()),
        (Precondition::Etag(wanted), Some(found)) if *wanted == found.etag => Ok(()),
        // S3 tells a missing object from one that changed.
        (Precondition::Etag(_), None) => Err(StoreError::NoSuchKey),
        (Precondition::Absent | Precondition::Etag(_), Some(_)) => Err(StoreError::PreconditionFailed),
    }
}

fn read(row: &Row<'_>) -> Result<Stored, StoreError> {
    let milliseconds: i64 = row.get("last_modified")?;
    Ok(Stored {
        key: String::from_utf8(row.get("key")?).map_err(anyhow::Error::from)?,
        blob: row.get("blob")?,
        size: u64::try_from(row.get::<_, i64>("size")?).map_err(anyhow::Error::from)?,
        etag: row.get("etag")?,
        last_modified: OffsetDateTime::from_unix_timestamp_nanos(i128::from(milliseconds) * 1_000_000)
            .map_err(anyhow::Error::from)?,
        attributes: serde_json::from_str(&row.get::<_, String>("attributes")?).map_err(anyhow::Error::from)?,
        checksum: serde_json::from_str(&row.get::<_, String>("checksum")?).map_err(anyhow::Error::from)?,
    })
}

/// The time in the precision that the index keeps.
fn now() -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    now.replace_millisecond(now.millisecond()).unwrap_or(now)
}

fn milliseconds(time: OffsetDateTime) -> i64 {
    time.unix_timestamp() * 1000 + i64::from(time.millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    const BUCKET: &str = "documents";

    fn store() -> S3Store {
        let store = S3Store::ephemeral().unwrap();
        store.create_bucket(BUCKET).unwrap();
        store
    }

    fn sum() -> StoredChecksum {
        StoredChecksum {
            algorithm: "CRC32".to_owned(),
            value: "AAAAAA==".to_owned(),
        }
    }

    fn put(store: &S3Store, key: &str, bytes: &[u8], precondition: &Precondition) -> Result<Stored, StoreError> {
        store.put(BUCKET, key, bytes, Attributes::default(), sum(), precondition)
    }

    fn files(store: &S3Store) -> usize {
        let count = |path: PathBuf| {
            if path.is_dir() {
                fs::read_dir(path).unwrap().count()
            } else {
                1
            }
        };
        fs::read_dir(&store.blobs)
            .unwrap()
            .map(|entry| count(entry.unwrap().path()))
            .sum()
    }

    #[test]
    fn keys_are_strings_and_never_paths() {
        let store = store();
        let keys = [
            "t1/../t2/x",
            "t2/x",
            "./t2/x",
            "t2//x",
            "/t2/x",
            "t2/x/",
            "../../../etc/passwd",
            "a\0b",
        ];
        for key in keys {
            put(&store, key, key.as_bytes(), &Precondition::Nothing).unwrap();
        }
        for key in keys {
            assert_eq!(
                store.get(BUCKET, key).unwrap().unwrap().bytes,
                key.as_bytes(),
                "{key:?}"
            );
        }
        let listed: Vec<_> = store
            .list(BUCKET, "t2/")
            .unwrap()
            .into_iter()
            .map(|entry| entry.key)
            .collect();
        assert_eq!(listed, ["t2//x", "t2/x", "t2/x/"]);
    }

    #[test]
    fn listings_are_sorted_bytewise() {
        let store = store();
        for key in ["b", "a", "Z", "ä", "a/b", "a-b", "\u{10000}", "\u{ffff}"] {
            put(&store, key, b"", &Precondition::Nothing).unwrap();
        }
        let listed: Vec<_> = store
            .list(BUCKET, "")
            .unwrap()
            .into_iter()
            .map(|entry| entry.key)
            .collect();
        assert_eq!(listed, ["Z", "a", "a-b", "a/b", "b", "ä", "\u{ffff}", "\u{10000}"]);
    }

    #[test]
    fn pages_with_a_delimiter_name_every_key_or_prefix_once() {
        let store = store();
        let keys = ["a/1", "a/2", "b", "c/1", "c/2", "c/3", "d"];
        for key in keys {
            put(&store, key, b"", &Precondition::Nothing).unwrap();
        }
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let listing = Listing {
                prefix: "",
                delimiter: "/",
                after,
                limit: 1,
            };
            let page = store.page(BUCKET, &listing).unwrap();
            seen.extend(page.prefixes);
            seen.extend(page.objects.into_iter().map(|stored| stored.key));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, ["a/", "b", "c/", "d"]);
    }

    #[test]
    fn of_many_writers_who_ask_for_an_absent_key_one_wins() {
        let store = store();
        let barrier = Barrier::new(8);
        let won = std::thread::scope(|scope| {
            let write = |n: u8| {
                barrier.wait();
                put(&store, "k", &[n], &Precondition::Absent).is_ok()
            };
            let writers: Vec<_> = (0..8).map(|n| scope.spawn(move || write(n))).collect();
            writers
                .into_iter()
                .map(|writer| writer.join().unwrap())
                .filter(|won| *won)
                .count()
        });
        assert_eq!(won, 1);
    }

    #[test]
    fn a_write_can_depend_on_the_entity_tag() {
        let store = store();
        let wanted = Precondition::Etag("0".to_owned());
        assert!(matches!(put(&store, "k", b"1", &wanted), Err(StoreError::NoSuchKey)));
        let first = put(&store, "k", b"1", &Precondition::Nothing).unwrap();
        assert!(matches!(
            put(&store, "k", b"2", &wanted),
            Err(StoreError::PreconditionFailed)
        ));
        put(&store, "k", b"2", &Precondition::Etag(first.etag)).unwrap();
        assert_eq!(store.get(BUCKET, "k").unwrap().unwrap().bytes, "2");
    }

    #[test]
    fn contents_are_kept_as_long_as_an_object_has_them() {
        let store = store();
        put(&store, "a", b"same", &Precondition::Nothing).unwrap();
        put(&store, "b", b"same", &Precondition::Nothing).unwrap();
        assert_eq!(files(&store), 1);
        store.delete(BUCKET, "a", None).unwrap();
        assert_eq!(store.get(BUCKET, "b").unwrap().unwrap().bytes, "same");
        store.delete(BUCKET, "b", None).unwrap();
        put(&store, "c", b"old", &Precondition::Nothing).unwrap();
        put(&store, "c", b"new", &Precondition::Nothing).unwrap();
        put(&store, "c", b"never", &Precondition::Absent).unwrap_err();
        assert_eq!(files(&store), 1, "only the newest contents are left");
        assert_eq!(store.get(BUCKET, "c").unwrap().unwrap().bytes, "new");
    }

    #[test]
    fn a_store_is_found_again_in_its_directory() {
        let directory = TempDir::new().unwrap();
        let store = S3Store::open(directory.path()).unwrap();
        store.create_bucket(BUCKET).unwrap();
        let written = put(&store, "k", b"1", &Precondition::Nothing).unwrap();
        drop(store);
        let store = S3Store::open(directory.path()).unwrap();
        store.create_bucket(BUCKET).unwrap();
        assert_eq!(store.head(BUCKET, "k").unwrap(), written);
    }

    #[test]
    fn a_missing_bucket_is_an_error_and_a_missing_object_is_none() {
        let store = store();
        assert!(store.get(BUCKET, "k").unwrap().is_none());
        assert!(store.get("elsewhere", "k").is_err());
        assert!(store.list("elsewhere", "").is_err());
        assert!(store.create_bucket("No_Bucket").is_err());
    }
}
