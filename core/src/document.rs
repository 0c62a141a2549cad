//! Documents as the table, the bucket and the contract know them: ids, media types, keys, states.
//!
//! Not here: uploads, sidecars and ingestion (`tenant-admin`), and what an answer may cite (`query-handler`).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::attribute::{AttributeName, AttributeValue};
use crate::tenant::{Group, TenantId};
use crate::time::Timestamp;

/// The longest bucket name that leaves room for the longest key: direct ingestion takes `s3://bucket/key` of at most
/// 128 characters after the scheme, and a document's key has at most 74
/// (<https://docs.aws.amazon.com/bedrock/latest/APIReference/API_agent_S3Location.html>).
pub const MAX_BUCKET_NAME: usize = 53;

/// The suffix that Bedrock gives a document's metadata file, in the same prefix
/// (<https://docs.aws.amazon.com/bedrock/latest/userguide/s3-data-source-connector.html>).
pub const SIDECAR_SUFFIX: &str = ".metadata.json";

/// A document's id: a UUIDv7 as 26 characters of Crockford's base 32, so that ids sort by the time they were made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct DocumentId(String);

impl DocumentId {
    /// A new id.
    pub fn generate() -> Self {
        Self(ulid::Ulid::from(uuid::Uuid::now_v7().as_u128()).to_string())
    }

    /// Reads an id as this type writes it, and nothing that merely means the same.
    pub fn parse(text: &str) -> Option<Self> {
        let id = ulid::Ulid::from_string(text).ok()?.to_string();
        (id == text).then_some(Self(id))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for DocumentId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).ok_or_else(|| serde::de::Error::custom("not a document id"))
    }
}

/// The media types that may be uploaded: those that Bedrock's default parser reads
/// (<https://docs.aws.amazon.com/bedrock/latest/userguide/knowledge-base-ds.html>).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MediaType {
    /// Plain text.
    #[serde(rename = "text/plain")]
    Text,
    /// Markdown.
    #[serde(rename = "text/markdown")]
    Markdown,
    /// HTML.
    #[serde(rename = "text/html")]
    Html,
    /// Comma-separated values.
    #[serde(rename = "text/csv")]
    Csv,
    /// PDF.
    #[serde(rename = "application/pdf")]
    Pdf,
    /// Word before 2007.
    #[serde(rename = "application/msword")]
    Doc,
    /// Word.
    #[serde(rename = "application/vnd.openxmlformats-officedocument.wordprocessingml.document")]
    Docx,
    /// Excel before 2007.
    #[serde(rename = "application/vnd.ms-excel")]
    Xls,
    /// Excel.
    #[serde(rename = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet")]
    Xlsx,
}

impl MediaType {
    /// Every media type that may be uploaded.
    pub const ALL: [Self; 9] = [
        Self::Text,
        Self::Markdown,
        Self::Html,
        Self::Csv,
        Self::Pdf,
        Self::Doc,
        Self::Docx,
        Self::Xls,
        Self::Xlsx,
    ];

    /// Its name, without parameters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text/plain",
            Self::Markdown => "text/markdown",
            Self::Html => "text/html",
            Self::Csv => "text/csv",
            Self::Pdf => "application/pdf",
            Self::Doc => "application/msword",
            Self::Docx => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            Self::Xls => "application/vnd.ms-excel",
            Self::Xlsx => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        }
    }

    /// The extension of its documents' keys, by which Bedrock tells the format.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Text => "txt",
            Self::Markdown => "md",
            Self::Html => "html",
            Self::Csv => "csv",
            Self::Pdf => "pdf",
            Self::Doc => "doc",
            Self::Docx => "docx",
            Self::Xls => "xls",
            Self::Xlsx => "xlsx",
        }
    }

    /// The media type that a `Content-Type` header names, whatever its parameters and case (RFC 9110, 8.3.1).
    pub fn of_header(value: &str) -> Option<Self> {
        let essence = value.split(';').next().unwrap_or_default().trim();
        Self::ALL
            .into_iter()
            .find(|media_type| media_type.as_str().eq_ignore_ascii_case(essence))
    }
}

/// Who among a tenant's users may read a document.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Audience {
    /// All of them; `*` on the wire.
    #[default]
    Everyone,
    /// The members of one group that the tenant's profile declares.
    Group(Group),
}

impl Audience {
    /// Reads `*` or a group's name.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            Some(Self::Everyone)
        } else {
            Group::parse(text).map(Self::Group)
        }
    }

    /// The wire form, which is also the sidecar's value.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Everyone => "*",
            Self::Group(group) => group.as_str(),
        }
    }
}

impl Serialize for Audience {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Audience {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).ok_or_else(|| serde::de::Error::custom("not `*` or a group"))
    }
}

/// Where a document is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DocumentStatus {
    /// Declared; its content has not been completed.
    AwaitingUpload,
    /// In the bucket with its sidecar; the knowledge base has not indexed it yet.
    Processing,
    /// Answers may cite it.
    Indexed,
    /// The knowledge base could not read it.
    Failed,
    /// On its way out. Answers leave its passages out from now on.
    Deleting,
}

impl DocumentStatus {
    /// The wire form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AwaitingUpload => "awaiting_upload",
            Self::Processing => "processing",
            Self::Indexed => "indexed",
            Self::Failed => "failed",
            Self::Deleting => "deleting",
        }
    }

    /// The status of that wire form.
    pub fn parse(text: &str) -> Option<Self> {
        [
            Self::AwaitingUpload,
            Self::Processing,
            Self::Indexed,
            Self::Failed,
            Self::Deleting,
        ]
        .into_iter()
        .find(|status| status.as_str() == text)
    }
}

/// A document's record: the item in the tenant's partition. [`DocumentBody`] is what clients see of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// Its id.
    pub document_id: DocumentId,
    /// The name that the uploader gave it. Only metadata: keys are made by the server.
    pub name: String,
    /// Its media type.
    pub media_type: MediaType,
    /// Its size in bytes.
    pub size: u64,
    /// The SHA-256 of its content, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// A title for people, shown with citations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Who may read it.
    pub audience: Audience,
    /// What questions can be narrowed by: some of the attributes that the tenant's profile declares, of their kinds.
    #[serde(default)]
    pub attributes: BTreeMap<AttributeName, AttributeValue>,
    /// Where it is on its way.
    pub status: DocumentStatus,
    /// Why it failed, in words that may be shown to the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether a completion has begun that has not been seen to end: the data source may hold the document already,
    /// although it awaits its upload. Such a record does not clean itself up, and its deletion is a thorough one.
    #[serde(default)]
    pub completing: bool,
    /// Whether the knowledge base has accepted the request that the status asks for (ingestion or deletion). If not, the
    /// next look at the document asks again.
    #[serde(default)]
    pub submitted: bool,
    /// When the knowledge base was last asked for its status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checked_at: Option<Timestamp>,
    /// When it was declared.
    pub created_at: Timestamp,
    /// When the record last changed.
    pub updated_at: Timestamp,
    /// Counts the record's changes; the condition of every write.
    pub version: u64,
}

impl Document {
    /// A document that is declared `now`: it awaits its upload, has no title and no attributes, and is for everyone.
    pub fn declare(name: String, media_type: MediaType, size: u64, sha256: String, now: Timestamp) -> Self {
        Self {
            document_id: DocumentId::generate(),
            name,
            media_type,
            size,
            sha256,
            title: None,
            audience: Audience::Everyone,
            attributes: BTreeMap::new(),
            status: DocumentStatus::AwaitingUpload,
            reason: None,
            completing: false,
            submitted: false,
            checked_at: None,
            created_at: now,
            updated_at: now,
            version: 1,
        }
    }

    /// What clients see.
    pub fn body(&self) -> DocumentBody<'_> {
        DocumentBody {
            document_id: &self.document_id,
            name: &self.name,
            media_type: self.media_type,
            size: self.size,
            sha256: &self.sha256,
            title: self.title.as_deref(),
            audience: &self.audience,
            attributes: &self.attributes,
            status: self.status,
            reason: self.reason.as_deref(),
            created_at: self.created_at,
            updated_at: self.updated_at,
            version: self.version,
        }
    }

    /// The key of its object in the data source, under the tenant's prefix.
    pub fn key(&self, tenant: &TenantId) -> ObjectKey {
        ObjectKey(format!(
            "t/{tenant}/{}.{}",
            self.document_id,
            self.media_type.extension()
        ))
    }

    /// The key under which its content arrives, outside the data source.
    pub fn upload_key(&self, tenant: &TenantId) -> ObjectKey {
        ObjectKey(format!("u/{tenant}/{}", self.document_id))
    }
}

/// A document as the contract shows it.
#[derive(Clone, Debug, Serialize)]
pub struct DocumentBody<'a> {
    document_id: &'a DocumentId,
    name: &'a str,
    media_type: MediaType,
    size: u64,
    sha256: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    audience: &'a Audience,
    attributes: &'a BTreeMap<AttributeName, AttributeValue>,
    status: DocumentStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    created_at: Timestamp,
    updated_at: Timestamp,
    version: u64,
}

/// An object's key in the bucket. Only ids go into one, never a name that somebody chose.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// The key of the metadata file beside this object.
    pub fn sidecar(&self) -> Self {
        Self(format!("{}{SIDECAR_SUFFIX}", self.0))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The document whose object this key is, if it is a key that [`Document::key`] makes for `tenant`; the extension may
    /// be that of any media type.
    pub fn document_of(key: &str, tenant: &TenantId) -> Option<DocumentId> {
        let name = key
            .strip_prefix("t/")?
            .strip_prefix(tenant.as_str())?
            .strip_prefix('/')?;
        let (id, extension) = name.split_once('.')?;
        MediaType::ALL
            .iter()
            .find(|media_type| media_type.extension() == extension)?;
        DocumentId::parse(id)
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn document() -> Document {
        Document::declare(
            "handbook.pdf".to_owned(),
            MediaType::Xlsx,
            1,
            "0".repeat(64),
            Timestamp::from_unix(0),
        )
    }

    #[test]
    fn an_id_reads_back_and_only_as_it_was_written() {
        let id = DocumentId::generate();
        assert_eq!(DocumentId::parse(id.as_str()), Some(id.clone()));
        assert_eq!(DocumentId::parse(&id.as_str().to_lowercase()), None);
        assert_eq!(DocumentId::parse("../../../../etc/passwd0000"), None);
        assert_eq!(DocumentId::parse(""), None);
    }

    #[test]
    fn the_longest_uri_fits_direct_ingestion() {
        let tenant = TenantId::parse(&"a".repeat(40)).unwrap();
        let key = document().key(&tenant);
        assert_eq!(key.as_str().len(), 74);
        assert!(MAX_BUCKET_NAME + 1 + key.as_str().len() <= 128);
    }

    #[test]
    fn a_key_names_its_document_for_its_tenant_only() {
        let (acme, acme2) = (TenantId::parse("acme").unwrap(), TenantId::parse("acme-2").unwrap());
        let document = document();
        let key = document.key(&acme);
        assert_eq!(
            ObjectKey::document_of(key.as_str(), &acme),
            Some(document.document_id.clone())
        );
        assert_eq!(ObjectKey::document_of(key.as_str(), &acme2), None);
        assert_eq!(ObjectKey::document_of(document.key(&acme2).as_str(), &acme), None);
        assert_eq!(ObjectKey::document_of(key.sidecar().as_str(), &acme), None);
        assert_eq!(ObjectKey::document_of(document.upload_key(&acme).as_str(), &acme), None);
    }

    proptest! {
        #[test]
        fn keys_of_two_tenants_never_share_a_prefix(a in "[a-z0-9]{1,6}(-[a-z0-9]{1,4}){0,2}", b in "[a-z0-9]{1,6}(-[a-z0-9]{1,4}){0,2}") {
            let (Ok(a), Ok(b)) = (TenantId::parse(&a), TenantId::parse(&b)) else { return Ok(()) };
            prop_assume!(a != b);
            let document = document();
            let prefix = format!("t/{a}/");
            prop_assert!(document.key(&a).as_str().starts_with(&prefix));
            prop_assert!(!document.key(&b).as_str().starts_with(&prefix));
        }
    }
}
