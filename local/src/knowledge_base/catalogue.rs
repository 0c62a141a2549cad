//! What the knowledge base knows about its documents, jobs and conversations, kept in SQLite beside the index.
//!
//! A document has *revisions*: what was indexed of it, with the attributes of that time. A revision can be queried from a
//! moment on and until another one, which is how vectors appear and vanish a while after Bedrock says so.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use rusqlite::{Connection, params};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::retrieval::Attributes;
use super::session::Session;

/// Where a document stands, in Bedrock's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// Accepted.
    Starting,
    /// Being read.
    InProgress,
    /// Done.
    Indexed,
    /// Given up, with a reason.
    Failed,
    /// Its deletion was accepted.
    Deleting,
    /// Being deleted.
    DeleteInProgress,
    /// Not there (any more).
    NotFound,
}

/// An S3 object: bucket and key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Location {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
}

impl Location {
    /// Reads `s3://bucket/key`.
    #[must_use]
    pub fn parse(uri: &str) -> Option<Self> {
        let (bucket, key) = uri.strip_prefix("s3://")?.split_once('/')?;
        (!bucket.is_empty() && !key.is_empty()).then(|| Self {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
        })
    }

    /// `s3://bucket/key`.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.key)
    }
}

/// One indexed version of a document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Revision {
    /// Its number in the index.
    pub id: u64,
    /// The document's attributes at that time.
    pub attributes: Attributes,
    /// When its passages can be found.
    #[serde(with = "time::serde::rfc3339")]
    pub from: OffsetDateTime,
    /// When they can't any more.
    #[serde(with = "time::serde::rfc3339::option")]
    pub until: Option<OffsetDateTime>,
    /// How many they are.
    pub chunks: usize,
}

/// One document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// Where it stands.
    pub status: Status,
    /// Why it failed.
    pub reason: Option<String>,
    /// When that changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated: OffsetDateTime,
    /// The sidecar that belongs to it, if any.
    pub sidecar: Option<Location>,
    /// Entity tags of the object and the sidecar as they were last read.
    pub etags: Option<(String, Option<String>)>,
    /// What was indexed.
    pub revisions: Vec<Revision>,
    /// Counts the pieces of work that were begun for it: only the latest may finish.
    pub work: u64,
}

impl Document {
    /// A document of which nothing is known yet.
    #[must_use]
    pub fn new(now: OffsetDateTime) -> Self {
        Self {
            status: Status::Starting,
            reason: None,
            updated: now,
            sidecar: None,
            etags: None,
            revisions: Vec::new(),
            work: 0,
        }
    }

    /// The revision that queries find now.
    #[must_use]
    pub fn visible(&self, now: OffsetDateTime) -> Option<&Revision> {
        self.revisions
            .iter()
            .rev()
            .find(|revision| revision.from <= now && revision.until.is_none_or(|until| until > now))
    }

    /// Whether work on it has begun and not ended.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        match self.status {
            Status::Starting | Status::InProgress | Status::Deleting | Status::DeleteInProgress => true,
            Status::Indexed | Status::Failed | Status::NotFound => false,
        }
    }
}

/// Where a job stands, in Bedrock's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum JobStatus {
    /// Accepted.
    Starting,
    /// Running.
    InProgress,
    /// Done, which single documents may not be.
    Complete,
    /// Given up.
    Failed,
}

/// What a job did, in Bedrock's words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Statistics {
    /// Documents under the inclusion prefix, sidecars not counted.
    pub number_of_documents_scanned: u64,
    /// Sidecars that belong to one of them.
    pub number_of_metadata_documents_scanned: u64,
    /// Indexed for the first time.
    pub number_of_new_documents_indexed: u64,
    /// Indexed again, because the document changed.
    pub number_of_modified_documents_indexed: u64,
    /// Indexed again, because only the sidecar changed.
    pub number_of_metadata_documents_modified: u64,
    /// Removed, because the object is gone.
    pub number_of_documents_deleted: u64,
    /// Given up.
    pub number_of_documents_failed: u64,
}

/// A sync of the data source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The caller's token, which makes a repeated call the same job.
    pub token: Option<String>,
    /// The caller's description.
    pub description: Option<String>,
    /// Where it stands.
    pub status: JobStatus,
    /// What it did so far.
    pub statistics: Statistics,
    /// Why documents or the job itself failed.
    pub reasons: Vec<String>,
    /// When it was accepted.
    #[serde(with = "time::serde::rfc3339")]
    pub started: OffsetDateTime,
    /// When it last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated: OffsetDateTime,
}

/// Everything, in memory and in the database.
pub struct Catalogue {
    database: Connection,
    /// By location.
    pub documents: BTreeMap<Location, Document>,
    /// By id.
    pub jobs: BTreeMap<String, Job>,
    /// By id.
    pub sessions: BTreeMap<String, Session>,
    next_revision: u64,
}

impl Catalogue {
    /// Opens the database in that directory, or one in memory.
    ///
    /// # Errors
    ///
    /// When the database can't be read.
    pub fn open(directory: Option<&Path>) -> anyhow::Result<Self> {
        let database = match directory {
            None => Connection::open_in_memory()?,
            Some(directory) => {
                std::fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
                let database = Connection::open(directory.join("catalogue.sqlite3"))?;
                database.pragma_update(None, "journal_mode", "wal")?;
                database.pragma_update(None, "synchronous", "normal")?;
                database
            }
        };
        for table in ["documents", "jobs", "sessions"] {
            database.execute(
                &format!("create table if not exists {table} (id text primary key, body text)"),
                [],
            )?;
        }
        let documents: BTreeMap<Location, Document> = load(&database, "documents")?
            .into_iter()
            .filter_map(|(uri, document)| Location::parse(&uri).map(|location| (location, document)))
            .collect();
        let jobs = load(&database, "jobs")?;
        let sessions = load(&database, "sessions")?;
        let revisions = documents.values().flat_map(|document| &document.revisions);
        // Numbers of revisions that were begun and never finished may be taken again: writing one removes what is there.
        let next_revision = revisions.map(|revision| revision.id).max().unwrap_or(0) + 1;
        Ok(Self {
            database,
            documents,
            jobs,
            sessions,
            next_revision,
        })
    }

    /// A number for a new revision.
    pub fn revision(&mut self) -> u64 {
        let revision = self.next_revision;
        self.next_revision += 1;
        revision
    }

    /// Writes down what is in memory about a document.
    ///
    /// # Errors
    ///
    /// When the database can't be written.
    pub fn save_document(&self, location: &Location) -> anyhow::Result<()> {
        save(
            &self.database,
            "documents",
            &location.uri(),
            self.documents.get(location),
        )
    }

    /// Writes down what is in memory about a job.
    ///
    /// # Errors
    ///
    /// When the database can't be written.
    pub fn save_job(&self, id: &str) -> anyhow::Result<()> {
        save(&self.database, "jobs", id, self.jobs.get(id))
    }

    /// Writes down what is in memory about a conversation.
    ///
    /// # Errors
    ///
    /// When the database can't be written.
    pub fn save_session(&self, id: &str) -> anyhow::Result<()> {
        save(&self.database, "sessions", id, self.sessions.get(id))
    }
}

fn load<T: DeserializeOwned>(database: &Connection, table: &str) -> anyhow::Result<BTreeMap<String, T>> {
    let mut statement = database.prepare(&format!("select id, body from {table}"))?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    let mut loaded = BTreeMap::new();
    for row in rows {
        let (id, body) = row?;
        let body = serde_json::from_str(&body).with_context(|| format!("cannot read {table} {id}"))?;
        loaded.insert(id, body);
    }
    Ok(loaded)
}

fn save<T: Serialize>(database: &Connection, table: &str, id: &str, body: Option<&T>) -> anyhow::Result<()> {
    match body {
        Some(body) => {
            let body = serde_json::to_string(body)?;
            database.execute(
                &format!("insert into {table} values (?1, ?2) on conflict (id) do update set body = ?2"),
                params![id, body],
            )?;
        }
        None => {
            database.execute(&format!("delete from {table} where id = ?1"), params![id])?;
        }
    }
    Ok(())
}
