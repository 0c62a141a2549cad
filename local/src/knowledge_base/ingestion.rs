//! From S3 into the index: single documents on request, and syncs of the whole data source.
//!
//! Kept from Bedrock: everything is asynchronous; a document that is ingested directly has only the attributes of the
//! sidecar that the request names, and none if it names none; a sync finds sidecars by name alone and says nothing
//! about one that is misnamed; limits of S3 Vectors make a document fail; what is deleted, or replaced, can still be
//! found for a while.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::Value;

use super::catalogue::{Document, Job, JobStatus, Location, Revision, Statistics, Status};
use super::chunk::{self, Chunk};
use super::extraction::{self, Format};
use super::outline::Heading;
use super::retrieval::Attributes;
use super::{Inner, block};

/// What Bedrock puts behind a document's name for its sidecar's.
pub(super) const SIDECAR_SUFFIX: &str = ".metadata.json";

/// Size of a sidecar, in bytes.
const SIDECAR_BYTES: usize = 10 * 1024;

/// S3 Vectors' limits on custom attributes of a vector: bytes, and how many.
const ATTRIBUTE_BYTES: usize = 1_024;
const ATTRIBUTES: usize = 35;

/// Failure reasons that a job shows.
const REASONS: usize = 2_048;

/// What a piece of work found.
enum Outcome {
    Indexed,
    Failed(String),
    /// Newer work on the same document has begun.
    Overtaken,
}

/// Accepts a document for ingestion and begins.
pub(super) fn begin(inner: &Arc<Inner>, location: &Location, sidecar: Option<Location>) -> anyhow::Result<()> {
    let work = accept(inner, location, sidecar)?;
    let (inner_, location) = (Arc::clone(inner), location.clone());
    inner.tasks.spawn(async move {
        if let Err(error) = ingest(&inner_, &location, work).await {
            tracing::error!(error = format!("{error:#}"), "ingesting {} failed", location.uri());
        }
    });
    Ok(())
}

/// Accepts the deletion of a document and begins. Says whether there is one.
pub(super) fn begin_deletion(inner: &Arc<Inner>, location: &Location) -> anyhow::Result<bool> {
    let work = {
        let mut catalogue = inner.catalogue();
        let now = inner.now();
        let Some(document) = catalogue
            .documents
            .get_mut(location)
            .filter(|document| document.status != Status::NotFound)
        else {
            return Ok(false);
        };
        document.status = Status::Deleting;
        document.reason = None;
        document.updated = now;
        document.work += 1;
        let work = document.work;
        catalogue.save_document(location)?;
        work
    };
    let (inner_, location) = (Arc::clone(inner), location.clone());
    inner.tasks.spawn(async move {
        if let Err(error) = delete(&inner_, &location, work).await {
            tracing::error!(error = format!("{error:#}"), "deleting {} failed", location.uri());
        }
    });
    Ok(true)
}

/// Begins again what a stopped process left unfinished.
pub(super) fn resume(inner: &Arc<Inner>) -> anyhow::Result<()> {
    let unfinished: Vec<(Location, Document)> = {
        let mut catalogue = inner.catalogue();
        let now = inner.now();
        let stopped: Vec<String> = catalogue
            .jobs
            .iter_mut()
            .filter(|(_, job)| matches!(job.status, JobStatus::Starting | JobStatus::InProgress))
            .map(|(id, job)| {
                job.status = JobStatus::Failed;
                job.updated = now;
                job.reasons
                    .push("The knowledge base was stopped while the job ran.".to_owned());
                id.clone()
            })
            .collect();
        for id in stopped {
            catalogue.save_job(&id)?;
        }
        catalogue
            .documents
            .iter()
            .filter(|(_, document)| document.is_busy())
            .map(|(location, document)| (location.clone(), document.clone()))
            .collect()
    };
    for (location, document) in unfinished {
        match document.status {
            Status::Deleting | Status::DeleteInProgress => {
                begin_deletion(inner, &location)?;
            }
            Status::Starting | Status::InProgress => begin(inner, &location, document.sidecar)?,
            Status::Indexed | Status::Failed | Status::NotFound => {}
        }
    }
    Ok(())
}

fn accept(inner: &Inner, location: &Location, sidecar: Option<Location>) -> anyhow::Result<u64> {
    let mut catalogue = inner.catalogue();
    let now = inner.now();
    let document = catalogue
        .documents
        .entry(location.clone())
        .or_insert_with(|| Document::new(now));
    document.status = Status::Starting;
    document.reason = None;
    document.updated = now;
    document.sidecar = sidecar;
    document.work += 1;
    let work = document.work;
    catalogue.save_document(location)?;
    Ok(work)
}

/// Changes a document if this work is still the latest on it, and says whether it is.
fn advance(inner: &Inner, location: &Location, work: u64, change: impl FnOnce(&mut Document)) -> anyhow::Result<bool> {
    let mut catalogue = inner.catalogue();
    let now = inner.now();
    let Some(document) = catalogue
        .documents
        .get_mut(location)
        .filter(|document| document.work == work)
    else {
        return Ok(false);
    };
    document.updated = now;
    change(document);
    catalogue.save_document(location)?;
    Ok(true)
}

/// Reads and indexes a document that was accepted.
async fn ingest(inner: &Arc<Inner>, location: &Location, work: u64) -> anyhow::Result<Outcome> {
    let half = inner.config.indexing_latency / 2;
    tokio::time::sleep(half).await;
    let _permit = inner.permits.acquire().await?;
    if !advance(inner, location, work, |document| document.status = Status::InProgress)? {
        return Ok(Outcome::Overtaken);
    }
    let read = read(inner, location).await;
    tokio::time::sleep(half).await;
    let outcome = match read {
        Ok(read) => store(inner, location, work, read).await,
        Err(reason) => {
            let is_latest = advance(inner, location, work, |document| {
                document.status = Status::Failed;
                document.reason = Some(reason.clone());
            })?;
            return Ok(if is_latest {
                Outcome::Failed(reason)
            } else {
                Outcome::Overtaken
            });
        }
    };
    if let Err(error) = &outcome {
        advance(inner, location, work, |document| {
            document.status = Status::Failed;
            document.reason = Some(format!("The vector store could not be written: {error:#}"));
        })?;
    }
    outcome
}

/// A document as it is to be indexed.
struct Read {
    chunks: Vec<Chunk>,
    attributes: Attributes,
    etags: (String, Option<String>),
}

/// Reads a document and its sidecar. The error is the status reason.
async fn read(inner: &Arc<Inner>, location: &Location) -> Result<Read, String> {
    let sidecar = inner
        .catalogue()
        .documents
        .get(location)
        .and_then(|document| document.sidecar.clone());
    let (from, to) = (Arc::clone(inner), location.clone());
    let objects = block(move || {
        // The sidecar first, as it is written first.
        let metadata = match &sidecar {
            Some(sidecar) => Some(
                from.store
                    .get(&sidecar.bucket, &sidecar.key)?
                    .with_context(|| format!("the metadata file {} does not exist", sidecar.uri()))?,
            ),
            None => None,
        };
        let object = from
            .store
            .get(&to.bucket, &to.key)?
            .with_context(|| format!("the object {} does not exist", to.uri()))?;
        Ok((object, metadata))
    })
    .await;
    let (object, metadata) = objects.map_err(|error| format!("{error:#}"))?;
    let (attributes, embedded) = match &metadata {
        Some(metadata) => parse_sidecar(&metadata.bytes)?,
        None => Default::default(),
    };
    let format = Format::of(&location.key)
        .filter(|_| !location.key.ends_with(SIDECAR_SUFFIX))
        .ok_or_else(|| "The file format is not supported.".to_owned())?;
    let pages = extraction::extract(format, object.bytes, inner.config.limits.clone())
        .await
        .map_err(|unreadable| unreadable.to_string())?;
    let mut chunks = block(move || chunk::split(&pages))
        .await
        .map_err(|error| format!("{error:#}"))?;
    for chunk in &mut chunks {
        for text in embedded.iter().rev() {
            chunk.path.insert(
                0,
                Heading {
                    level: 0,
                    text: text.clone(),
                },
            );
        }
    }
    Ok(Read {
        chunks,
        attributes,
        etags: (object.etag, metadata.map(|metadata| metadata.etag)),
    })
}

async fn store(inner: &Arc<Inner>, location: &Location, work: u64, read: Read) -> anyhow::Result<Outcome> {
    let revision = inner.catalogue().revision();
    let Read {
        chunks,
        attributes,
        etags,
    } = read;
    let count = chunks.len();
    let writer = Arc::clone(inner);
    block(move || writer.index.replace(revision, &chunks, &[])).await?;
    let from = inner.now() + inner.config.visibility_latency;
    let is_latest = advance(inner, location, work, |document| {
        for older in &mut document.revisions {
            older.until = Some(older.until.map_or(from, |until| until.min(from)));
        }
        document.revisions.push(Revision {
            id: revision,
            attributes,
            from,
            until: None,
            chunks: count,
        });
        document.etags = Some(etags);
        document.status = Status::Indexed;
        document.reason = None;
    })?;
    if !is_latest {
        let writer = Arc::clone(inner);
        block(move || writer.index.remove(&[revision])).await?;
        return Ok(Outcome::Overtaken);
    }
    purge_later(inner);
    Ok(Outcome::Indexed)
}

async fn delete(inner: &Arc<Inner>, location: &Location, work: u64) -> anyhow::Result<()> {
    let half = inner.config.indexing_latency / 2;
    tokio::time::sleep(half).await;
    if !advance(inner, location, work, |document| {
        document.status = Status::DeleteInProgress
    })? {
        return Ok(());
    }
    tokio::time::sleep(half).await;
    let until = inner.now() + inner.config.visibility_latency;
    advance(inner, location, work, |document| {
        document.status = Status::NotFound;
        document.etags = None;
        for revision in &mut document.revisions {
            revision.until = Some(revision.until.map_or(until, |earlier| earlier.min(until)));
        }
    })?;
    purge_later(inner);
    Ok(())
}

/// Removes what can't be found any more, once it can't.
fn purge_later(inner: &Arc<Inner>) {
    let purged = Arc::clone(inner);
    inner.tasks.spawn(async move {
        tokio::time::sleep(purged.config.visibility_latency).await;
        let worker = Arc::clone(&purged);
        if let Err(error) = block(move || purge(&worker)).await {
            tracing::error!(error = format!("{error:#}"), "removing old vectors failed");
        }
    });
}

/// Removes what can't be found any more. Blocks.
pub(super) fn purge(inner: &Inner) -> anyhow::Result<()> {
    let now = inner.now();
    let expired: Vec<u64> = {
        let catalogue = inner.catalogue();
        let revisions = catalogue.documents.values().flat_map(|document| &document.revisions);
        revisions
            .filter(|revision| revision.until.is_some_and(|until| until <= now))
            .map(|revision| revision.id)
            .collect()
    };
    // The index first: what is still in the catalogue is purged again.
    inner.index.remove(&expired)?;
    let mut catalogue = inner.catalogue();
    let mut changed = Vec::new();
    catalogue.documents.retain(|location, document| {
        let before = document.revisions.len();
        document.revisions.retain(|revision| !expired.contains(&revision.id));
        let is_gone = document.status == Status::NotFound && document.revisions.is_empty();
        if is_gone || document.revisions.len() != before {
            changed.push(location.clone());
        }
        !is_gone
    });
    for location in changed {
        catalogue.save_document(&location)?;
    }
    Ok(())
}

/// Attributes of a sidecar, and the `key: value` lines that go into the embedding. The error is the status reason.
fn parse_sidecar(bytes: &[u8]) -> Result<(Attributes, Vec<String>), String> {
    if bytes.len() > SIDECAR_BYTES {
        return Err(format!("The metadata file is larger than {SIDECAR_BYTES} bytes."));
    }
    let invalid = |detail: &str| format!("The metadata file is not valid: {detail}.");
    let sidecar: Value = serde_json::from_slice(bytes).map_err(|error| invalid(&error.to_string()))?;
    let given = sidecar
        .get("metadataAttributes")
        .and_then(Value::as_object)
        .ok_or_else(|| invalid("it has no object metadataAttributes"))?;
    let mut attributes = Attributes::new();
    let mut embedded = Vec::new();
    for (key, value) in given {
        if key.is_empty() || key.starts_with("x-amz-bedrock") {
            return Err(invalid(&format!("the key {key:?} is reserved")));
        }
        let value = match value {
            Value::Object(typed) => {
                let value = typed_value(typed.get("value")).ok_or_else(|| invalid(&format!("the type of {key}")))?;
                if typed.get("includeForEmbedding").and_then(Value::as_bool) == Some(true) {
                    embedded.push(format!(
                        "{key}: {}",
                        value.as_str().map_or(value.to_string(), ToOwned::to_owned)
                    ));
                }
                value
            }
            Value::Null => return Err(invalid(&format!("{key} has no value"))),
            Value::Array(members) if !members.iter().all(Value::is_string) => {
                return Err(invalid(&format!("{key} is no list of strings")));
            }
            scalar => scalar.clone(),
        };
        attributes.insert(key.clone(), value);
    }
    let size = serde_json::to_vec(&attributes).map_or(usize::MAX, |bytes| bytes.len());
    if attributes.len() > ATTRIBUTES || size > ATTRIBUTE_BYTES {
        return Err(format!(
            "The vector store takes {ATTRIBUTE_BYTES} bytes of metadata and {ATTRIBUTES} keys per vector; the document has \
             {size} bytes and {} keys.",
            attributes.len()
        ));
    }
    Ok((attributes, embedded))
}

fn typed_value(value: Option<&Value>) -> Option<Value> {
    let value = value?;
    let (member, is_right): (&str, fn(&Value) -> bool) = match value.get("type").and_then(Value::as_str)? {
        "STRING" => ("stringValue", Value::is_string),
        "NUMBER" => ("numberValue", Value::is_number),
        "BOOLEAN" => ("booleanValue", Value::is_boolean),
        "STRING_LIST" => ("stringListValue", |value| {
            value
                .as_array()
                .is_some_and(|members| !members.is_empty() && members.iter().all(Value::is_string))
        }),
        _ => return None,
    };
    value.get(member).filter(|value| is_right(value)).cloned()
}

/// Begins a sync that was written into the catalogue.
pub(super) fn begin_job(inner: &Arc<Inner>, id: String) {
    let worker = Arc::clone(inner);
    inner.tasks.spawn(async move {
        let result = run_job(&worker, &id).await;
        let finished = change_job(&worker, &id, |job| match &result {
            Ok(()) => job.status = JobStatus::Complete,
            Err(error) => {
                job.status = JobStatus::Failed;
                job.reasons.push(format!("{error:#}"));
            }
        });
        if let Err(error) = finished {
            tracing::error!(error = format!("{error:#}"), "ending the ingestion job {id} failed");
        }
    });
}

fn change_job(inner: &Inner, id: &str, change: impl FnOnce(&mut Job)) -> anyhow::Result<()> {
    let mut catalogue = inner.catalogue();
    let now = inner.now();
    if let Some(job) = catalogue.jobs.get_mut(id) {
        change(job);
        job.updated = now;
        job.reasons.truncate(REASONS);
    }
    catalogue.save_job(id)
}

/// Why a sync ingests a document.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    New,
    Modified,
    MetadataModified,
}

async fn run_job(inner: &Arc<Inner>, id: &str) -> anyhow::Result<()> {
    let half = inner.config.indexing_latency / 2;
    tokio::time::sleep(half).await;
    change_job(inner, id, |job| job.status = JobStatus::InProgress)?;
    let worker = Arc::clone(inner);
    let listing = block(move || {
        worker
            .store
            .list(&worker.config.bucket, &worker.config.inclusion_prefix)
    })
    .await?;
    let etags: BTreeMap<String, String> = listing.into_iter().map(|entry| (entry.key, entry.etag)).collect();
    let is_document = |key: &str| !key.ends_with(SIDECAR_SUFFIX) && !key.ends_with('/');
    let mut statistics = Statistics::default();
    let mut due: Vec<(Location, Option<Location>, Cause)> = Vec::new();
    let mut gone: Vec<Location> = Vec::new();
    {
        let catalogue = inner.catalogue();
        let bucket = &inner.config.bucket;
        for (key, etag) in etags.iter().filter(|(key, _)| is_document(key)) {
            statistics.number_of_documents_scanned += 1;
            let location = Location {
                bucket: bucket.clone(),
                key: key.clone(),
            };
            let sidecar_key = format!("{key}{SIDECAR_SUFFIX}");
            let sidecar = etags.get(&sidecar_key).map(|etag| {
                (
                    Location {
                        bucket: bucket.clone(),
                        key: sidecar_key,
                    },
                    etag,
                )
            });
            statistics.number_of_metadata_documents_scanned += u64::from(sidecar.is_some());
            let known = catalogue
                .documents
                .get(&location)
                .filter(|document| document.status != Status::NotFound);
            let cause = match known.map(|document| (document.status, &document.etags, &document.sidecar)) {
                Some((Status::Indexed, Some((of_object, of_sidecar)), named)) if of_object == etag => {
                    let is_same = of_sidecar.as_ref() == sidecar.as_ref().map(|(_, etag)| *etag)
                        && named.as_ref() == sidecar.as_ref().map(|(location, _)| location);
                    if is_same {
                        continue;
                    }
                    Cause::MetadataModified
                }
                Some((_, Some(_), _)) => Cause::Modified,
                _ => Cause::New,
            };
            due.push((location, sidecar.map(|(location, _)| location), cause));
        }
        let prefix = &inner.config.inclusion_prefix;
        gone.extend(
            catalogue
                .documents
                .iter()
                .filter(|(location, document)| {
                    document.status != Status::NotFound
                        && location.bucket == *bucket
                        && location.key.starts_with(prefix.as_str())
                        && !etags.contains_key(&location.key)
                })
                .map(|(location, _)| location.clone()),
        );
    }
    change_job(inner, id, |job| job.statistics = statistics)?;
    for location in &gone {
        if begin_deletion(inner, location)? {
            statistics.number_of_documents_deleted += 1;
        }
    }
    let mut work = Vec::new();
    for (location, sidecar, cause) in due {
        let number = accept(inner, &location, sidecar)?;
        let inner = Arc::clone(inner);
        work.push(async move {
            let outcome = ingest(&inner, &location, number).await;
            (location, cause, outcome)
        });
    }
    let mut reasons = Vec::new();
    for (location, cause, outcome) in futures::future::join_all(work).await {
        match outcome {
            Ok(Outcome::Indexed | Outcome::Overtaken) => match cause {
                Cause::New => statistics.number_of_new_documents_indexed += 1,
                Cause::Modified => statistics.number_of_modified_documents_indexed += 1,
                Cause::MetadataModified => statistics.number_of_metadata_documents_modified += 1,
            },
            Ok(Outcome::Failed(reason)) => {
                statistics.number_of_documents_failed += 1;
                reasons.push(format!("{}: {reason}", location.uri()));
            }
            Err(error) => {
                statistics.number_of_documents_failed += 1;
                reasons.push(format!("{}: {error:#}", location.uri()));
            }
        }
    }
    tokio::time::sleep(half).await;
    change_job(inner, id, |job| {
        job.statistics = statistics;
        job.reasons = reasons;
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(sidecar: &Value) -> Result<(Attributes, Vec<String>), String> {
        parse_sidecar(sidecar.to_string().as_bytes())
    }

    #[test]
    fn both_forms_of_sidecars_are_read() {
        let (attributes, embedded) = parse(&json!({"metadataAttributes": {
            "tenantId": "acme",
            "year": 2020,
            "tags": ["a", "b"],
            "title": {"value": {"type": "STRING", "stringValue": "Handbook"}, "includeForEmbedding": true},
            "draft": {"value": {"type": "BOOLEAN", "booleanValue": false}},
            "groups": {"value": {"type": "STRING_LIST", "stringListValue": ["x"]}, "includeForEmbedding": false},
        }}))
        .unwrap();
        let expected = json!({
            "tenantId": "acme", "year": 2020, "tags": ["a", "b"], "title": "Handbook", "draft": false, "groups": ["x"],
        });
        assert_eq!(serde_json::to_value(attributes).unwrap(), expected);
        assert_eq!(embedded, ["title: Handbook"]);
    }

    #[test]
    fn sidecars_over_a_limit_or_out_of_form_are_refused() {
        let many: BTreeMap<String, u32> = (0..36).map(|number| (format!("k{number}"), number)).collect();
        for sidecar in [
            json!({}),
            json!({"metadataAttributes": []}),
            json!({"metadataAttributes": {"a": null}}),
            json!({"metadataAttributes": {"a": [1]}}),
            json!({"metadataAttributes": {"x-amz-bedrock-kb-source-uri": "s3://b/k"}}),
            json!({"metadataAttributes": {"a": {"value": {"type": "STRING", "numberValue": 1}}}}),
            json!({"metadataAttributes": {"a": {"stringValue": "b"}}}),
            json!({"metadataAttributes": {"a": "x".repeat(1_020)}}),
            json!({"metadataAttributes": many}),
            json!({"metadataAttributes": {"a": "b"}, "comment": "x".repeat(11_000)}),
        ] {
            assert!(parse(&sidecar).is_err(), "{sidecar}");
        }
        assert!(parse(&json!({"metadataAttributes": {"a": "x".repeat(1_000)}})).is_ok());
    }
}
