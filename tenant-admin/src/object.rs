//! The tenant's objects in the bucket: the one place that calls S3.
//!
//! Keys are derived from the context's tenant (or the shared owner, to read) and the document's id, never from a name. What
//! arrives stands under `u/`, which the knowledge base does not read; documents and their sidecars stand under `t/`, which it
//! does.
//!
//! A tenant's credentials can't list the bucket, and to those S3 answers 403 and not 404 for an object that is not there
//! (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html>). So a refused read of one of the tenant's own keys
//! says that nothing is there. A write that is refused is an error in any case.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::ResponseChecksumValidation;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ChecksumMode;
use bulkhead_core::credential::{ASSURED, TenantCredentials};
use bulkhead_core::document::{Document, ObjectKey};
use bulkhead_core::error::Error;
use bulkhead_core::request::LONGEST;
use bulkhead_core::store::SharedCorpus;
use bulkhead_core::tenant::{TenantContext, TenantId};
use data_encoding::{BASE64, HEXLOWER};
use sha2::{Digest as _, Sha256};

use crate::format::BEGINNING;
use crate::sidecar::Sidecar;

/// How long a link to content lasts.
const LINK_LIFETIME: Duration = Duration::from_secs(5 * 60);

/// A link ends with the credentials that it was signed with, which were looked at when the call began.
const _: () = assert!(LINK_LIFETIME.as_secs() + LONGEST.as_secs() <= ASSURED.as_secs());

/// The product's bucket. It can't be asked anything: [`Objects`] can.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    client: Client,
    name: String,
}

impl Bucket {
    /// The bucket `name`, for the tenant whose credentials these are.
    pub(crate) fn new(credentials: &TenantCredentials, name: &str) -> Self {
        Self::over(credentials.configuration(), name)
    }

    fn over(configuration: &SdkConfig, name: &str) -> Self {
        let configuration = aws_sdk_s3::config::Builder::from(configuration)
            // A checksum is of a whole object: it can't be compared with the beginning of one, and a link that asked for
            // it would not work in a browser.
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .build();
        Self {
            client: Client::from_conf(configuration),
            name: name.to_owned(),
        }
    }

    /// The objects of the context's tenant.
    pub(crate) fn of(&self, context: &TenantContext) -> Objects {
        Objects {
            bucket: self.clone(),
            tenant: context.tenant().clone(),
        }
    }

    /// The objects of the documents that the vendor shares, for who may read those.
    pub(crate) fn shared(&self, _proof: SharedCorpus) -> SharedObjects {
        SharedObjects { bucket: self.clone() }
    }

    /// A link to an object that lasts five minutes.
    async fn link(&self, key: &ObjectKey, document: &Document, disposition: &str) -> Result<String, Error> {
        let lifetime = PresigningConfig::expires_in(LINK_LIFETIME).map_err(Error::internal)?;
        let link = self
            .client
            .get_object()
            .bucket(&self.name)
            .key(key.as_str())
            .response_content_disposition(disposition)
            .response_content_type(document.media_type.as_str())
            .response_cache_control("private, no-store")
            .presigned(lifetime)
            .await
            .map_err(failed)?;
        Ok(link.uri().to_owned())
    }
}

/// The objects of one tenant.
#[derive(Debug)]
pub(crate) struct Objects {
    bucket: Bucket,
    tenant: TenantId,
}

/// The objects of the documents that the vendor shares. They can only be read.
#[derive(Debug)]
pub(crate) struct SharedObjects {
    bucket: Bucket,
}

impl SharedObjects {
    /// As [`Objects::link`].
    ///
    /// # Errors
    /// [`Error::Internal`] if it can't be signed.
    pub(crate) async fn link(&self, document: &Document, disposition: &str) -> Result<String, Error> {
        let key = document.key(&TenantId::shared());
        self.bucket.link(&key, document, disposition).await
    }
}

/// What has arrived as a document's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Upload {
    /// Its size in bytes.
    pub(crate) size: u64,
    /// Its SHA-256 as S3 computed it, in lower-case hexadecimal digits.
    pub(crate) sha256: String,
    /// Its first bytes, at most [`BEGINNING`].
    pub(crate) beginning: Vec<u8>,
    /// Names exactly what was looked at.
    pub(crate) etag: String,
}

/// Where the knowledge base finds a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    /// The URI of the object.
    pub(crate) document: String,
    /// The URI of its sidecar.
    pub(crate) sidecar: String,
}

impl Objects {
    /// Where the knowledge base finds `document`.
    pub(crate) fn location(&self, document: &Document) -> Location {
        let key = document.key(&self.tenant);
        Location {
            sidecar: format!("s3://{}/{}", self.bucket.name, key.sidecar()),
            document: format!("s3://{}/{key}", self.bucket.name),
        }
    }

    /// Puts what arrived as a document's content; S3 computes its checksum too.
    ///
    /// # Errors
    /// [`Error::UpstreamThrottled`], [`Error::Unavailable`].
    pub(crate) async fn put_upload(&self, document: &Document, content: &[u8]) -> Result<(), Error> {
        let key = document.upload_key(&self.tenant);
        self.put(&key, content.to_vec(), document.media_type.as_str()).await
    }

    /// What has arrived as a document's content, if something has.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it was replaced at that moment, [`Error::UpstreamThrottled`], [`Error::Unavailable`].
    pub(crate) async fn upload(&self, document: &Document) -> Result<Option<Upload>, Error> {
        let key = document.upload_key(&self.tenant);
        let beginning = async {
            let call = self
                .bucket
                .client
                .get_object()
                .bucket(&self.bucket.name)
                .key(key.as_str())
                .range(format!("bytes=0-{}", BEGINNING - 1));
            let Some(answer) = found(call.send().await)? else {
                return Ok(None);
            };
            let bytes = answer
                .body
                .collect()
                .await
                .map_err(|error| Error::Unavailable(Box::new(error)))?
                .to_vec();
            Ok(Some((answer.e_tag, bytes)))
        };
        let (Some(head), Some((etag, beginning))) = tokio::try_join!(self.head_upload(document), beginning)? else {
            return Ok(None);
        };
        let etag = etag
            .filter(|etag| Some(etag) == head.e_tag.as_ref())
            .ok_or_else(|| Error::conflict("The content is being replaced; try again."))?;
        let checksum = head
            .checksum_sha256
            .ok_or_else(|| Error::internal("an upload without a checksum"))?;
        let digest = BASE64.decode(checksum.as_bytes()).map_err(Error::internal)?;
        Ok(Some(Upload {
            size: head
                .content_length
                .and_then(|length| length.try_into().ok())
                .unwrap_or_default(),
            sha256: HEXLOWER.encode(&digest),
            beginning,
            etag,
        }))
    }

    /// Puts a document's sidecar into the data source.
    ///
    /// # Errors
    /// [`Error::UpstreamThrottled`], [`Error::Unavailable`].
    pub(crate) async fn put_sidecar(&self, document: &Document, sidecar: Sidecar) -> Result<(), Error> {
        let key = document.key(&self.tenant).sidecar();
        self.put(&key, sidecar.into_bytes(), "application/json").await
    }

    /// Copies what arrived into the data source, if it is still what `etag` names; false if it is not. The sidecar must
    /// stand there.
    ///
    /// # Errors
    /// [`Error::UpstreamThrottled`], [`Error::Unavailable`].
    pub(crate) async fn copy_in(&self, document: &Document, etag: &str) -> Result<bool, Error> {
        let call = self
            .bucket
            .client
            .copy_object()
            .bucket(&self.bucket.name)
            .key(document.key(&self.tenant).as_str())
            // Neither a bucket's name nor our keys have characters to escape.
            .copy_source(format!("{}/{}", self.bucket.name, document.upload_key(&self.tenant)))
            .copy_source_if_match(etag);
        match call.send().await {
            Err(error) if status(&error) == Some(412) => Ok(false),
            // The source is not there, or the copy may not be put: S3 doesn't say which.
            Err(error) if is_refused(&error) => match self.head_upload(document).await? {
                Some(_) => Err(failed(error)),
                None => Ok(false),
            },
            answer => Ok(found(answer)?.is_some()),
        }
    }

    async fn head_upload(&self, document: &Document) -> Result<Option<HeadObjectOutput>, Error> {
        let call = self
            .bucket
            .client
            .head_object()
            .bucket(&self.bucket.name)
            .key(document.upload_key(&self.tenant).as_str())
            .checksum_mode(ChecksumMode::Enabled);
        found(call.send().await)
    }

    /// Deletes what arrived as a document's content.
    ///
    /// # Errors
    /// [`Error::UpstreamThrottled`], [`Error::Unavailable`].
    pub(crate) async fn delete_upload(&self, document: &Document) -> Result<(), Error> {
        self.delete(&document.upload_key(&self.tenant)).await
    }

    /// Deletes a document's object from the data source.
    ///
    /// # Errors
    /// [`Error::UpstreamThrottled`], [`Error::Unavailable`].
    pub(crate) async fn delete_object(&self, document: &Document) -> Result<(), Error> {
        self.delete(&document.key(&self.tenant)).await
    }

    /// Deletes a document's sidecar. The object must be gone.
    ///
    /// # Errors
    /// [`Error::UpstreamThrottled`], [`Error::Unavailable`].
    pub(crate) async fn delete_sidecar(&self, document: &Document) -> Result<(), Error> {
        self.delete(&document.key(&self.tenant).sidecar()).await
    }

    /// A link to a document's content that lasts five minutes, as a download with `disposition`.
    ///
    /// # Errors
    /// [`Error::Internal`] if it can't be signed.
    pub(crate) async fn link(&self, document: &Document, disposition: &str) -> Result<String, Error> {
        self.bucket
            .link(&document.key(&self.tenant), document, disposition)
            .await
    }

    async fn put(&self, key: &ObjectKey, body: Vec<u8>, media_type: &str) -> Result<(), Error> {
        let call = self
            .bucket
            .client
            .put_object()
            .bucket(&self.bucket.name)
            .key(key.as_str())
            .content_type(media_type)
            .checksum_sha256(BASE64.encode(&Sha256::digest(&body)))
            .body(ByteStream::from(body));
        call.send().await.map_err(failed)?;
        Ok(())
    }

    /// Deleting what is not there is no error to S3.
    async fn delete(&self, key: &ObjectKey) -> Result<(), Error> {
        let call = self
            .bucket
            .client
            .delete_object()
            .bucket(&self.bucket.name)
            .key(key.as_str());
        call.send().await.map_err(failed)?;
        Ok(())
    }
}

fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

/// Whether S3 said that this may not be done. What it says to a HEAD has no body, and so no code
/// (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html>).
fn is_refused<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    status(error) == Some(403) && matches!(error.code(), None | Some("AccessDenied"))
}

/// What a read of one of the tenant's own keys answers, or `None` for an object that is not there.
fn found<T, E>(answer: Result<T, SdkError<E, HttpResponse>>) -> Result<Option<T>, Error>
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    match answer {
        Ok(answer) => Ok(Some(answer)),
        // A bucket that is not there is a mistake of ours, and not the client's.
        Err(error) if status(&error) == Some(404) && error.code() != Some("NoSuchBucket") => Ok(None),
        Err(error) if is_refused(&error) => {
            // Before an upload this is as it should be; at any other time it may be a wrong key, or a permission that is gone.
            tracing::info!("a refused read is taken for an object that is not there");
            Ok(None)
        }
        Err(error) => Err(failed(error)),
    }
}

/// What a failed call is to the caller.
fn failed<E>(error: SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    match (error.code(), status(&error)) {
        (Some("SlowDown" | "ThrottlingException" | "RequestLimitExceeded"), _) | (_, Some(429)) => {
            Error::UpstreamThrottled(Box::new(error))
        }
        (_, Some(400..=499)) => Error::internal(error),
        _ => Error::Unavailable(Box::new(error)),
    }
}

#[cfg(test)]
mod tests {
    use aws_config::{BehaviorVersion, Region};
    use aws_sdk_s3::config::{Credentials, SharedCredentialsProvider};
    use aws_smithy_runtime_api::client::http::{
        HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
    };
    use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
    use aws_smithy_types::body::SdkBody;
    use bulkhead_core::document::{DocumentId, DocumentStatus, MediaType};
    use bulkhead_core::error::Code;
    use bulkhead_core::time::Timestamp;

    use super::*;

    fn configuration(endpoint: &str) -> aws_config::SdkConfig {
        let credentials = Credentials::new("AKIDEXAMPLE", "secret", None, None, "test");
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(endpoint)
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .build()
    }

    fn bucket(endpoint: &str) -> Bucket {
        Bucket::over(&configuration(endpoint), "bucket")
    }

    /// An S3 that answers each method so: status and code. HEAD has no body, and so no code.
    #[derive(Clone, Copy, Debug)]
    struct Canned {
        head: u16,
        get: (u16, &'static str),
        put: (u16, &'static str),
    }

    impl Canned {
        fn objects(self) -> Objects {
            let aws = configuration("http://127.0.0.1:9")
                .into_builder()
                .http_client(http_client_fn(move |_, _| SharedHttpConnector::new(self)))
                .build();
            Objects {
                bucket: Bucket::over(&aws, "bucket"),
                tenant: TenantId::parse("acme").unwrap(),
            }
        }
    }

    impl HttpConnector for Canned {
        fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
            let (status, code) = match request.method() {
                "HEAD" => (self.head, ""),
                "GET" => self.get,
                "PUT" => self.put,
                other => panic!("{other}"),
            };
            let body = match code {
                "" => String::new(),
                code => format!("<Error><Code>{code}</Code><Message>no</Message></Error>"),
            };
            let mut response = HttpResponse::new(status.try_into().unwrap(), SdkBody::from(body));
            let checksum = BASE64.encode(&[0; 32]);
            response.headers_mut().insert("x-amz-checksum-sha256", checksum);
            response.headers_mut().insert("etag", "\"e\"");
            HttpConnectorFuture::ready(Ok(response))
        }
    }

    fn document() -> Document {
        Document {
            document_id: DocumentId::parse("01JZZZZZZZZZZZZZZZZZZZZZZZ").unwrap(),
            status: DocumentStatus::Indexed,
            submitted: true,
            ..Document::declare(
                "../acme-2/x.pdf".to_owned(),
                MediaType::Pdf,
                1,
                "0".repeat(64),
                Timestamp::from_unix(0),
            )
        }
    }

    #[tokio::test]
    async fn a_link_is_good_for_one_object_and_five_minutes() {
        // By address and not by name, as on one machine: then the bucket stands in the path.
        let bucket = bucket("http://127.0.0.1:9");
        let objects = Objects {
            bucket,
            tenant: TenantId::parse("acme").unwrap(),
        };
        let link = objects
            .link(&document(), "attachment; filename=\"x.pdf\"")
            .await
            .unwrap();
        let (address, query) = link.split_once('?').unwrap();
        assert_eq!(
            address,
            "http://127.0.0.1:9/bucket/t/acme/01JZZZZZZZZZZZZZZZZZZZZZZZ.pdf"
        );
        let parameters: Vec<&str> = query.split('&').collect();
        assert!(parameters.contains(&"X-Amz-Expires=300"), "{query}");
        assert!(
            parameters.contains(&"response-content-type=application%2Fpdf"),
            "{query}"
        );
        assert!(
            parameters.contains(&"response-content-disposition=attachment%3B%20filename%3D%22x.pdf%22"),
            "{query}"
        );
        // Nothing but the host: a browser sends no header that S3 would have to see.
        assert!(parameters.contains(&"X-Amz-SignedHeaders=host"), "{query}");
    }

    #[tokio::test]
    async fn a_refused_read_of_an_own_key_finds_nothing() {
        for (head, get, expected) in [
            (200, (200, ""), Ok(true)),
            (404, (404, "NoSuchKey"), Ok(false)),
            (403, (403, "AccessDenied"), Ok(false)),
            (200, (403, "AccessDenied"), Ok(false)),
            // Refused for another reason than that it is not there.
            (403, (403, "SignatureDoesNotMatch"), Err(Code::Internal)),
            (403, (403, "InvalidAccessKeyId"), Err(Code::Internal)),
            (404, (404, "NoSuchBucket"), Err(Code::Internal)),
        ] {
            let put = (200, "");
            let found = Canned { head, get, put }.objects().upload(&document()).await;
            let found = found.map(|found| found.is_some()).map_err(|error| error.code());
            assert_eq!(found, expected, "{head} {get:?}");
        }
    }

    #[tokio::test]
    async fn a_write_that_is_refused_is_an_error() {
        for (head, put, expected) in [
            (200, (412, "PreconditionFailed"), Ok(false)),
            (404, (404, "NoSuchKey"), Ok(false)),
            (403, (403, "AccessDenied"), Ok(false)),
            // The source is there, so it is the copy that may not be put.
            (200, (403, "AccessDenied"), Err(Code::Internal)),
            (403, (403, "SignatureDoesNotMatch"), Err(Code::Internal)),
        ] {
            let get = (200, "");
            let objects = Canned { head, get, put }.objects();
            let copied = objects.copy_in(&document(), "\"e\"").await;
            assert_eq!(copied.map_err(|error| error.code()), expected, "{head} {put:?}");
        }
        let refused = Canned {
            head: 200,
            get: (200, ""),
            put: (403, "AccessDenied"),
        };
        let put = refused.objects().put_upload(&document(), b"x").await;
        assert_eq!(put.map_err(|error| error.code()), Err(Code::Internal));
    }

    #[test]
    fn the_knowledge_base_is_told_of_the_document_and_its_sidecar() {
        let bucket = bucket("http://127.0.0.1:9");
        let objects = Objects {
            bucket,
            tenant: TenantId::parse("acme").unwrap(),
        };
        let location = objects.location(&document());
        assert_eq!(location.document, "s3://bucket/t/acme/01JZZZZZZZZZZZZZZZZZZZZZZZ.pdf");
        assert_eq!(location.sidecar, format!("{}.metadata.json", location.document));
    }
}
