//! The operations of S3 that are emulated, between the types of `s3s` and the store.

use std::sync::Arc;

use bytes::BytesMut;
use data_encoding::{BASE64, BASE64URL_NOPAD};
use futures::TryStreamExt as _;
use http::{HeaderMap, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::auth::{S3Auth, SecretKey};
use s3s::crypto::{Checksum as Algorithm, Crc32, Crc32c, Crc64Nvme, Md5, Sha1, Sha256};
use s3s::dto;
use s3s::dto::{ETag, ETagCondition};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};
use time::OffsetDateTime;

use super::store::{After, Attributes, Listing, Precondition, S3Store, StoreError, Stored, StoredChecksum};
use crate::credential::Credentials;

/// The most that one PutObject takes, in bytes. S3's own limit is 5 GB; nothing here is larger than a document.
const MAX_OBJECT: usize = 64 * 1024 * 1024;
/// User metadata, names and values together, in bytes.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html>
const MAX_METADATA: usize = 2048;
/// The most that one page of a listing holds.
const MAX_KEYS: i32 = 1000;
const CHECKSUM_HEADERS: [(&str, &str); 5] = [
    ("CRC32", "x-amz-checksum-crc32"),
    ("CRC32C", "x-amz-checksum-crc32c"),
    ("CRC64NVME", "x-amz-checksum-crc64nvme"),
    ("SHA1", "x-amz-checksum-sha1"),
    ("SHA256", "x-amz-checksum-sha256"),
];
/// What `encoding-type=url` leaves as it is.
const LISTED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'/');

/// The secrets, for the signatures that `s3s` verifies.
pub(super) struct Keys(Credentials);

impl Keys {
    pub(super) fn new(credentials: Credentials) -> Self {
        Self(credentials)
    }
}

#[async_trait::async_trait]
impl S3Auth for Keys {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        match self.0.find(access_key) {
            Some(held) => Ok(SecretKey::from(held.credential.secret_access_key)),
            None => Err(s3_error!(InvalidAccessKeyId)),
        }
    }
}

/// The operations.
pub(super) struct Backend {
    store: Arc<S3Store>,
}

impl Backend {
    pub(super) fn new(store: Arc<S3Store>) -> Self {
        Self { store }
    }

    /// Runs what blocks on files and the index where it may.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&S3Store) -> S3Result<T> + Send + 'static,
    ) -> S3Result<T> {
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || work(&store))
            .await
            .map_err(|error| S3Error::with_source(S3ErrorCode::InternalError, Box::new(error)))?
    }
}

impl From<StoreError> for S3Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoSuchBucket => s3_error!(NoSuchBucket, "The specified bucket does not exist"),
            StoreError::NoSuchKey => s3_error!(NoSuchKey, "The specified key does not exist."),
            StoreError::PreconditionFailed => precondition_failed(),
            StoreError::Failed(error) => {
                tracing::error!(error = format!("{error:#}"), "the object store failed");
                s3_error!(InternalError, "We encountered an internal error. Please try again.")
            }
        }
    }
}

#[async_trait::async_trait]
impl s3s::S3 for Backend {
    async fn put_object(&self, req: S3Request<dto::PutObjectInput>) -> S3Result<S3Response<dto::PutObjectOutput>> {
        let precondition = write_condition(&req.headers)?;
        let input = req.input;
        let attributes = attributes(
            input.metadata,
            [
                input.content_type,
                input.content_disposition,
                input.content_encoding.map(without_chunking),
                input.content_language,
                input.cache_control,
            ],
        )?;
        let mut bytes = BytesMut::new();
        if let Some(mut body) = input.body {
            while let Some(chunk) = body.try_next().await.map_err(|error| broken_body(&error.to_string()))? {
                if bytes.len() + chunk.len() > MAX_OBJECT {
                    return Err(s3_error!(EntityTooLarge));
                }
                bytes.extend_from_slice(&chunk);
            }
        }
        let bytes = bytes.freeze();
        if input
            .content_length
            .is_some_and(|length| usize::try_from(length).ok() != Some(bytes.len()))
        {
            return Err(s3_error!(IncompleteBody));
        }
        check_md5(&req.headers, &bytes).map_err(refused)?;
        // Trailers are there once the body has been read.
        let trailers = req
            .trailing_headers
            .and_then(|trailers| trailers.take())
            .unwrap_or_default();
        let given = given_checksum(&req.headers, &trailers, &bytes).map_err(refused)?;
        if given.is_none() && req.headers.contains_key("x-amz-sdk-checksum-algorithm") {
            return Err(s3_error!(
                InvalidRequest,
                "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer \
                 headers were found."
            ));
        }
        let checksum = given.unwrap_or_else(|| default_checksum(&bytes));
        let stored = self
            .blocking(move |store| {
                Ok(store.put(&input.bucket, &input.key, &bytes, attributes, checksum, &precondition)?)
            })
            .await?;
        let sum = checksum_fields(Some(&stored.checksum));
        Ok(S3Response::new(dto::PutObjectOutput {
            e_tag: Some(ETag::Strong(stored.etag)),
            checksum_crc32: sum.checksum_crc32,
            checksum_crc32c: sum.checksum_crc32c,
            checksum_crc64nvme: sum.checksum_crc64nvme,
            checksum_sha1: sum.checksum_sha1,
            checksum_sha256: sum.checksum_sha256,
            checksum_type: sum.checksum_type,
            server_side_encryption: input.server_side_encryption,
            ..Default::default()
        }))
    }

    async fn get_object(&self, req: S3Request<dto::GetObjectInput>) -> S3Result<S3Response<dto::GetObjectOutput>> {
        let input = req.input;
        let conditions = ReadConditions {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since.map(Into::into),
            if_unmodified_since: input.if_unmodified_since.map(Into::into),
        };
        let (bucket, key, range) = (input.bucket, input.key, input.range);
        let (stored, bytes, content_range) = self
            .blocking(move |store| {
                let (stored, contents) = store.open_object(&bucket, &key)?;
                conditions.check(&stored).map_err(Unmet::into_read_error)?;
                let wanted = range
                    .map(|range| range.check(stored.size))
                    .transpose()
                    .map_err(|_| s3_error!(InvalidRange, "The requested range is not satisfiable"))?;
                let content_range = wanted
                    .as_ref()
                    .map(|range| format!("bytes {}-{}/{}", range.start, range.end.saturating_sub(1), stored.size));
                let bytes = contents
                    .read(wanted.unwrap_or(0..stored.size))
                    .map_err(StoreError::from)?;
                Ok((stored, bytes, content_range))
            })
            .await?;
        let whole = content_range.is_none();
        let wants_checksum = input
            .checksum_mode
            .is_some_and(|mode| mode.as_str() == dto::ChecksumMode::ENABLED);
        let sum = checksum_fields((whole && wants_checksum).then_some(&stored.checksum));
        Ok(S3Response::new(dto::GetObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: i64::try_from(bytes.len()).ok(),
            content_range,
            body: Some(s3s::Body::from(bytes).into()),
            content_type: stored.attributes.content_type,
            content_disposition: stored.attributes.content_disposition,
            content_encoding: stored.attributes.content_encoding,
            content_language: stored.attributes.content_language,
            cache_control: stored.attributes.cache_control,
            metadata: some_metadata(stored.attributes.metadata),
            e_tag: Some(ETag::Strong(stored.etag)),
            last_modified: Some(stored.last_modified.into()),
            checksum_crc32: sum.checksum_crc32,
            checksum_crc32c: sum.checksum_crc32c,
            checksum_crc64nvme: sum.checksum_crc64nvme,
            checksum_sha1: sum.checksum_sha1,
            checksum_sha256: sum.checksum_sha256,
            checksum_type: sum.checksum_type,
            ..Default::default()
        }))
    }

    async fn head_object(&self, req: S3Request<dto::HeadObjectInput>) -> S3Result<S3Response<dto::HeadObjectOutput>> {
        let input = req.input;
        if input.range.is_some() {
            return Err(s3_error!(NotImplemented, "HeadObject with a range is not emulated"));
        }
        let conditions = ReadConditions {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since.map(Into::into),
            if_unmodified_since: input.if_unmodified_since.map(Into::into),
        };
        let (bucket, key) = (input.bucket, input.key);
        let stored = self.blocking(move |store| Ok(store.head(&bucket, &key)?)).await?;
        conditions.check(&stored).map_err(Unmet::into_read_error)?;
        let wants_checksum = input
            .checksum_mode
            .is_some_and(|mode| mode.as_str() == dto::ChecksumMode::ENABLED);
        let sum = checksum_fields(wants_checksum.then_some(&stored.checksum));
        Ok(S3Response::new(dto::HeadObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: i64::try_from(stored.size).ok(),
            content_type: stored.attributes.content_type,
            content_disposition: stored.attributes.content_disposition,
            content_encoding: stored.attributes.content_encoding,
            content_language: stored.attributes.content_language,
            cache_control: stored.attributes.cache_control,
            metadata: some_metadata(stored.attributes.metadata),
            e_tag: Some(ETag::Strong(stored.etag)),
            last_modified: Some(stored.last_modified.into()),
            checksum_crc32: sum.checksum_crc32,
            checksum_crc32c: sum.checksum_crc32c,
            checksum_crc64nvme: sum.checksum_crc64nvme,
            checksum_sha1: sum.checksum_sha1,
            checksum_sha256: sum.checksum_sha256,
            checksum_type: sum.checksum_type,
            ..Default::default()
        }))
    }

    async fn copy_object(&self, req: S3Request<dto::CopyObjectInput>) -> S3Result<S3Response<dto::CopyObjectOutput>> {
        let precondition = write_condition(&req.headers)?;
        let input = req.input;
        let dto::CopySource::Bucket {
            bucket: source_bucket,
            key: source_key,
            version_id: None,
        } = input.copy_source
        else {
            return Err(s3_error!(
                NotImplemented,
                "CopyObject from a version or an access point is not emulated"
            ));
        };
        let replace = match input.metadata_directive.as_ref().map(dto::MetadataDirective::as_str) {
            None | Some(dto::MetadataDirective::COPY) => false,
            Some(dto::MetadataDirective::REPLACE) => true,
            Some(_) => return Err(s3_error!(InvalidArgument, "Unknown metadata directive.")),
        };
        let in_place = *source_bucket == *input.bucket && *source_key == *input.key;
        if in_place && !replace {
            return Err(s3_error!(
                InvalidRequest,
                "This copy request is illegal because it is trying to copy an object to itself without changing the \
                 object's metadata, storage class, website redirect location or encryption attributes."
            ));
        }
        let replacement = attributes(
            input.metadata,
            [
                input.content_type,
                input.content_disposition,
                input.content_encoding,
                input.content_language,
                input.cache_control,
            ],
        )?;
        let conditions = ReadConditions {
            if_match: input.copy_source_if_match,
            if_none_match: input.copy_source_if_none_match,
            if_modified_since: input.copy_source_if_modified_since.map(Into::into),
            if_unmodified_since: input.copy_source_if_unmodified_since.map(Into::into),
        };
        let algorithm = input.checksum_algorithm;
        let (bucket, key) = (input.bucket, input.key);
        let stored = self
            .blocking(move |store| {
                // A copy carries its checksum along unless another algorithm is asked for, and that needs the contents.
                let computed = match algorithm.as_ref().map(dto::ChecksumAlgorithm::as_str) {
                    None => None,
                    Some(name) => {
                        let (source, contents) = store.open_object(&source_bucket, &source_key)?;
                        let bytes = contents.read(0..source.size).map_err(StoreError::from)?;
                        let value = digest(name, &bytes)
                            .ok_or_else(|| s3_error!(InvalidRequest, "Checksum algorithm provided is unsupported."))?;
                        Some((source.etag, checksum(name, value)))
                    }
                };
                store.copy(
                    (&source_bucket, &source_key),
                    (&bucket, &key),
                    &precondition,
                    |source| {
                        conditions.check(source).map_err(|_| precondition_failed())?;
                        let sum = match computed {
                            Some((etag, sum)) if etag == source.etag => sum,
                            Some(_) => return Err(s3_error!(ConditionalRequestConflict)),
                            None => source.checksum.clone(),
                        };
                        let attributes = if replace {
                            replacement
                        } else {
                            source.attributes.clone()
                        };
                        Ok::<_, S3Error>((attributes, sum))
                    },
                )
            })
            .await?;
        let sum = checksum_fields(Some(&stored.checksum));
        Ok(S3Response::new(dto::CopyObjectOutput {
            copy_object_result: Some(dto::CopyObjectResult {
                e_tag: Some(ETag::Strong(stored.etag)),
                last_modified: Some(stored.last_modified.into()),
                checksum_crc32: sum.checksum_crc32,
                checksum_crc32c: sum.checksum_crc32c,
                checksum_crc64nvme: sum.checksum_crc64nvme,
                checksum_sha1: sum.checksum_sha1,
                checksum_sha256: sum.checksum_sha256,
                checksum_type: sum.checksum_type,
            }),
            ..Default::default()
        }))
    }

    async fn delete_object(
        &self,
        req: S3Request<dto::DeleteObjectInput>,
    ) -> S3Result<S3Response<dto::DeleteObjectOutput>> {
        let input = req.input;
        let etag = match input.if_match {
            None => None,
            Some(ETagCondition::Any) => Some("*".to_owned()),
            Some(ETagCondition::ETag(etag)) => Some(etag.into_value()),
        };
        self.blocking(move |store| Ok(store.delete(&input.bucket, &input.key, etag.as_deref())?))
            .await?;
        Ok(S3Response::with_status(
            dto::DeleteObjectOutput::default(),
            StatusCode::NO_CONTENT,
        ))
    }

    async fn delete_objects(
        &self,
        req: S3Request<dto::DeleteObjectsInput>,
    ) -> S3Result<S3Response<dto::DeleteObjectsOutput>> {
        let input = req.input;
        let quiet = input.delete.quiet == Some(true);
        let objects = input.delete.objects;
        if objects.is_empty() || objects.len() > 1000 {
            return Err(s3_error!(MalformedXML));
        }
        if objects
            .iter()
            .any(|object| object.version_id.is_some() || object.e_tag.is_some())
        {
            return Err(s3_error!(
                NotImplemented,
                "DeleteObjects with a version or a condition is not emulated"
            ));
        }
        let deleted = self
            .blocking(move |store| {
                for object in &objects {
                    store.delete(&input.bucket, &object.key, None)?;
                }
                let deleted = |object: dto::ObjectIdentifier| dto::DeletedObject {
                    key: Some(object.key),
                    ..Default::default()
                };
                Ok(objects.into_iter().map(deleted).collect::<Vec<_>>())
            })
            .await?;
        Ok(S3Response::new(dto::DeleteObjectsOutput {
            deleted: (!quiet).then_some(deleted),
            ..Default::default()
        }))
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<dto::ListObjectsV2Input>,
    ) -> S3Result<S3Response<dto::ListObjectsV2Output>> {
        let input = req.input;
        let max_keys = input.max_keys.unwrap_or(MAX_KEYS).min(MAX_KEYS);
        let limit = usize::try_from(max_keys).map_err(|_| {
            s3_error!(
                InvalidArgument,
                "Argument maxKeys must be an integer between 0 and 2147483647"
            )
        })?;
        let after = match (&input.continuation_token, &input.start_after) {
            (Some(token), _) => Some(read_token(token)?),
            (None, Some(key)) => Some(After::Key(key.clone())),
            (None, None) => None,
        };
        let encode = match input.encoding_type.as_ref().map(dto::EncodingType::as_str) {
            None => |text: String| text,
            Some(dto::EncodingType::URL) => |text: String| utf8_percent_encode(&text, LISTED).to_string(),
            Some(_) => {
                return Err(s3_error!(
                    InvalidArgument,
                    "Invalid Encoding Method specified in Request"
                ));
            }
        };
        let (bucket, prefix, delimiter) = (input.bucket.clone(), input.prefix.clone(), input.delimiter.clone());
        let page = self
            .blocking(move |store| {
                let listing = Listing {
                    prefix: prefix.as_deref().unwrap_or_default(),
                    delimiter: delimiter.as_deref().unwrap_or_default(),
                    after,
                    limit,
                };
                Ok(store.page(&bucket, &listing)?)
            })
            .await?;
        let next = page.next.map(|after| write_token(&after)).transpose()?;
        let contents: Vec<dto::Object> = page
            .objects
            .into_iter()
            .map(|stored| dto::Object {
                checksum_algorithm: Some(vec![dto::ChecksumAlgorithm::from(stored.checksum.algorithm)]),
                checksum_type: Some(dto::ChecksumType::from_static(dto::ChecksumType::FULL_OBJECT)),
                e_tag: Some(ETag::Strong(stored.etag)),
                key: Some(encode(stored.key)),
                last_modified: Some(stored.last_modified.into()),
                size: i64::try_from(stored.size).ok(),
                storage_class: Some(dto::ObjectStorageClass::from_static(dto::ObjectStorageClass::STANDARD)),
                ..Default::default()
            })
            .collect();
        let prefixes: Vec<dto::CommonPrefix> = page
            .prefixes
            .into_iter()
            .map(|prefix| dto::CommonPrefix {
                prefix: Some(encode(prefix)),
            })
            .collect();
        Ok(S3Response::new(dto::ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(encode(input.prefix.unwrap_or_default())),
            delimiter: input.delimiter.map(encode),
            max_keys: Some(max_keys),
            key_count: i32::try_from(contents.len() + prefixes.len()).ok(),
            is_truncated: Some(next.is_some()),
            continuation_token: input.continuation_token,
            next_continuation_token: next,
            start_after: input.start_after.map(encode),
            encoding_type: input.encoding_type,
            contents: Some(contents),
            common_prefixes: Some(prefixes),
            ..Default::default()
        }))
    }
}

/// Conditions on reading an object.
struct ReadConditions {
    if_match: Option<ETagCondition>,
    if_none_match: Option<ETagCondition>,
    if_modified_since: Option<OffsetDateTime>,
    if_unmodified_since: Option<OffsetDateTime>,
}

/// Which kind of condition does not hold.
enum Unmet {
    /// The reader has it already.
    NotModified(Box<Stored>),
    Failed,
}

impl ReadConditions {
    /// RFC 9110, section 13.2.2: an entity tag outweighs a date.
    fn check(&self, stored: &Stored) -> Result<(), Unmet> {
        let matches = |condition: &ETagCondition| match condition {
            ETagCondition::Any => true,
            ETagCondition::ETag(etag) => etag.value() == stored.etag,
        };
        // The header that told the client has no fractions of a second.
        let modified = stored
            .last_modified
            .replace_nanosecond(0)
            .unwrap_or(stored.last_modified);
        match (&self.if_match, self.if_unmodified_since) {
            (Some(condition), _) if !matches(condition) => return Err(Unmet::Failed),
            (None, Some(since)) if modified > since => return Err(Unmet::Failed),
            (Some(_), _) | (None, _) => {}
        }
        match (&self.if_none_match, self.if_modified_since) {
            (Some(condition), _) if matches(condition) => Err(Unmet::NotModified(Box::new(stored.clone()))),
            (None, Some(since)) if modified <= since => Err(Unmet::NotModified(Box::new(stored.clone()))),
            (Some(_), _) | (None, _) => Ok(()),
        }
    }
}

impl Unmet {
    fn into_read_error(self) -> S3Error {
        match self {
            Self::Failed => precondition_failed(),
            Self::NotModified(stored) => {
                let mut error = s3_error!(NotModified, "Not Modified");
                let mut headers = HeaderMap::new();
                if let Ok(etag) = ETag::Strong(stored.etag).to_http_header() {
                    headers.insert(http::header::ETAG, etag);
                }
                error.set_headers(headers);
                error
            }
        }
    }
}

fn precondition_failed() -> S3Error {
    s3_error!(
        PreconditionFailed,
        "At least one of the pre-conditions you specified did not hold"
    )
}

/// Conditions on writing: S3 knows `If-None-Match: *` and `If-Match: etag`.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html>
fn write_condition(headers: &HeaderMap) -> S3Result<Precondition> {
    let value = |name| {
        headers
            .get(name)
            .map(|value: &http::HeaderValue| value.to_str().unwrap_or_default())
    };
    match (value("if-none-match"), value("if-match")) {
        (None, None) => Ok(Precondition::Nothing),
        (Some("*"), None) => Ok(Precondition::Absent),
        (None, Some(etag)) if etag != "*" => Ok(Precondition::Etag(etag.trim_matches('"').to_owned())),
        (Some(_), _) | (None, Some(_)) => Err(s3_error!(
            NotImplemented,
            "A header you provided implies functionality that is not implemented."
        )),
    }
}

fn attributes(metadata: Option<dto::Metadata>, texts: [Option<String>; 5]) -> S3Result<Attributes> {
    let metadata = metadata.unwrap_or_default();
    let size: usize = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    if size > MAX_METADATA {
        return Err(s3_error!(
            MetadataTooLarge,
            "Your metadata headers exceed the maximum allowed metadata size"
        ));
    }
    let [
        content_type,
        content_disposition,
        content_encoding,
        content_language,
        cache_control,
    ] = texts;
    Ok(Attributes {
        content_type: content_type.or_else(|| Some("binary/octet-stream".to_owned())),
        content_disposition,
        content_encoding: content_encoding.filter(|encoding| !encoding.is_empty()),
        content_language,
        cache_control,
        metadata: metadata.into_iter().collect(),
    })
}

/// `aws-chunked` is how the body travelled, not what it is.
fn without_chunking(encoding: String) -> String {
    let kept: Vec<&str> = encoding
        .split(',')
        .map(str::trim)
        .filter(|part| *part != "aws-chunked")
        .collect();
    kept.join(",")
}

fn some_metadata(metadata: std::collections::BTreeMap<String, String>) -> Option<dto::Metadata> {
    (!metadata.is_empty()).then(|| metadata.into_iter().collect())
}

fn broken_body(error: &str) -> S3Error {
    if error.contains("SignatureMismatch") {
        s3_error!(
            SignatureDoesNotMatch,
            "The request signature we calculated does not match the signature you provided."
        )
    } else {
        s3_error!(IncompleteBody, "The request body terminated unexpectedly")
    }
}

/// An error code and a message.
type Refused = (&'static str, &'static str);

fn refused((code, message): Refused) -> S3Error {
    let code = S3ErrorCode::from_bytes(code.as_bytes()).unwrap_or(S3ErrorCode::InvalidRequest);
    S3Error::with_message(code, message)
}

/// Whether the body of a DeleteObjects is whole, which S3 insists on being able to tell.
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html>
pub(super) fn check_body(headers: &HeaderMap, body: &[u8]) -> Result<(), Refused> {
    check_md5(headers, body)?;
    let given = given_checksum(headers, &HeaderMap::new(), body)?;
    if given.is_none() && !headers.contains_key("content-md5") {
        return Err((
            "InvalidRequest",
            "Missing required header for this request: Content-MD5",
        ));
    }
    Ok(())
}

fn check_md5(headers: &HeaderMap, body: &[u8]) -> Result<(), Refused> {
    let Some(value) = headers.get("content-md5") else {
        return Ok(());
    };
    match BASE64.decode(value.as_bytes()) {
        Ok(md5) if md5.len() != 16 => Err(("InvalidDigest", "The Content-MD5 you specified was invalid.")),
        Err(_) => Err(("InvalidDigest", "The Content-MD5 you specified was invalid.")),
        Ok(md5) if md5 == Md5::checksum(body) => Ok(()),
        Ok(_) => Err((
            "BadDigest",
            "The Content-MD5 you specified did not match what we received.",
        )),
    }
}

/// The checksum that came with a body, in a header or behind it, if it is the body's.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html>
fn given_checksum(headers: &HeaderMap, trailers: &HeaderMap, body: &[u8]) -> Result<Option<StoredChecksum>, Refused> {
    if let Some(promised) = headers.get("x-amz-trailer")
        && !promised
            .to_str()
            .is_ok_and(|names| names.split(',').all(|name| trailers.contains_key(name.trim())))
    {
        return Err((
            "MalformedTrailerError",
            "The request contained trailing data that was not well-formed.",
        ));
    }
    let mut given = None;
    for (algorithm, name) in CHECKSUM_HEADERS {
        for value in headers.get_all(name).into_iter().chain(trailers.get_all(name)) {
            if given.is_some() {
                return Err((
                    "InvalidRequest",
                    "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
                ));
            }
            given = Some((algorithm, value));
        }
    }
    let Some((algorithm, value)) = given else {
        return Ok(None);
    };
    let expected = digest(algorithm, body).unwrap_or_default();
    match BASE64.decode(value.as_bytes()) {
        Ok(value) if value.len() != expected.len() => {
            Err(("InvalidRequest", "Value for x-amz-checksum header is invalid."))
        }
        Err(_) => Err(("InvalidRequest", "Value for x-amz-checksum header is invalid.")),
        Ok(value) if value == expected => Ok(Some(checksum(algorithm, value))),
        Ok(_) => Err((
            "BadDigest",
            "The checksum you specified did not match the calculated checksum.",
        )),
    }
}

/// What S3 computes when no checksum is given.
fn default_checksum(bytes: &[u8]) -> StoredChecksum {
    checksum("CRC64NVME", Crc64Nvme::checksum(bytes).to_vec())
}

fn checksum(algorithm: &str, value: Vec<u8>) -> StoredChecksum {
    StoredChecksum {
        algorithm: algorithm.to_owned(),
        value: BASE64.encode(&value),
    }
}

fn digest(algorithm: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    match algorithm {
        "CRC32" => Some(Crc32::checksum(bytes).to_vec()),
        "CRC32C" => Some(Crc32c::checksum(bytes).to_vec()),
        "CRC64NVME" => Some(Crc64Nvme::checksum(bytes).to_vec()),
        "SHA1" => Some(Sha1::checksum(bytes).to_vec()),
        "SHA256" => Some(Sha256::checksum(bytes).to_vec()),
        _ => None,
    }
}

/// The fields that all answers have for checksums.
fn checksum_fields(stored: Option<&StoredChecksum>) -> dto::Checksum {
    let mut fields = dto::Checksum::default();
    let Some(stored) = stored else { return fields };
    let value = Some(stored.value.clone());
    match stored.algorithm.as_str() {
        "CRC32" => fields.checksum_crc32 = value,
        "CRC32C" => fields.checksum_crc32c = value,
        "CRC64NVME" => fields.checksum_crc64nvme = value,
        "SHA1" => fields.checksum_sha1 = value,
        "SHA256" => fields.checksum_sha256 = value,
        _ => return fields,
    }
    fields.checksum_type = Some(dto::ChecksumType::from_static(dto::ChecksumType::FULL_OBJECT));
    fields
}

fn write_token(after: &After) -> S3Result<String> {
    let json =
        serde_json::to_vec(after).map_err(|error| S3Error::with_source(S3ErrorCode::InternalError, error.into()))?;
    Ok(BASE64URL_NOPAD.encode(&json))
}

fn read_token(token: &str) -> S3Result<After> {
    BASE64URL_NOPAD
        .decode(token.as_bytes())
        .ok()
        .and_then(|json| serde_json::from_slice(&json).ok())
        .ok_or_else(|| s3_error!(InvalidArgument, "The continuation token provided is incorrect"))
}
