//! What the rest of the stack may know of the object store: reading, from inside the process.
//!
//! The knowledge base reads documents and their sidecars here, as the real one reads S3 under a role of its own: no
//! signature, no fault and no record is involved. Everything that a function does goes through the front door instead.
//! Writing is not here: nothing but a function writes a document.

/// One object with its contents.
#[derive(Debug, Clone)]
pub struct Object {
    /// The contents.
    pub bytes: bytes::Bytes,
    /// The entity tag, without quotes.
    pub etag: String,
    /// When the object was last written.
    pub last_modified: time::OffsetDateTime,
}

/// One line of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectEntry {
    /// The whole key, prefix included.
    pub key: String,
    /// The entity tag, without quotes.
    pub etag: String,
    /// The size of the contents in bytes.
    pub size: u64,
    /// When the object was last written.
    pub last_modified: time::OffsetDateTime,
}

/// Read access to the buckets of the stack. Both methods block on a file or a database: call them from
/// `tokio::task::spawn_blocking`.
pub trait ObjectStore: Send + Sync {
    /// The object of that key, or `None` where there is none.
    ///
    /// # Errors
    ///
    /// When there is no such bucket, or the store can't be read.
    fn get(&self, bucket: &str, key: &str) -> anyhow::Result<Option<Object>>;

    /// All objects whose key starts with `prefix`, sorted bytewise by key. The prefix is text, not a folder.
    ///
    /// # Errors
    ///
    /// When there is no such bucket, or the store can't be read.
    fn list(&self, bucket: &str, prefix: &str) -> anyhow::Result<Vec<ObjectEntry>>;
}
