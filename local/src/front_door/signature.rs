//! AWS Signature Version 4 as a server sees it: the request is signed again with the `aws-sigv4` crate and the secret
//! that was issued, and the two signatures are compared.
//!
//! Signed headers and presigned URLs are accepted; Signature Version 2, SigV4a and browser forms are not here. The
//! signatures of single chunks of an `aws-chunked` body are verified by the S3 service, which unpacks it.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials as SigningCredentials;
use aws_sigv4::http_request::{
    PercentEncodingMode, SignableBody, SignableRequest, SignatureLocation, SigningSettings, UriPathNormalizationMode,
    sign,
};
use aws_sigv4::sign::v4;
use http::request::Parts;
use http::{HeaderMap, HeaderName};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use time::format_description::FormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};
use url::form_urlencoded;

use crate::credential::{Caller, Credentials, Held};
use crate::record::Service;

/// How far a request's time may be from ours, either way.
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-auth-using-authorization-header.html>
const MAX_SKEW: time::Duration = time::Duration::minutes(15);
/// The longest life of a presigned URL, in seconds: seven days.
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html>
const MAX_EXPIRES: u64 = 604_800;
const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const AMZ_DATE: &[FormatItem<'_>] = format_description!("[year][month][day]T[hour][minute][second]Z");
const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";
const SIGNING_PARAMETERS: [&str; 7] = [
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-SignedHeaders",
    "X-Amz-Signature",
    "X-Amz-Security-Token",
];

/// Why a request is refused before anything looks at what it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no signature.
    Unsigned,
    /// There is a signature header or query that can't be read; the text says what is wrong.
    Malformed(&'static str),
    /// The access key is not one that was issued, or was revoked.
    UnknownKey,
    /// The signature is not the one that the secret gives.
    WrongSignature,
    /// An `x-amz-*` header is not covered by the signature.
    HeaderNotSigned,
    /// The session token is missing or not the one that was issued with the key.
    WrongToken,
    /// The credential has expired.
    ExpiredCredential,
    /// The request's time is more than 15 minutes from ours.
    Skewed,
    /// A presigned URL was used after its time.
    ExpiredUrl,
    /// The scope names another region.
    WrongRegion,
    /// The body is not the one whose hash was signed.
    WrongPayload,
}

/// Where the signature stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Headers,
    /// A presigned URL, good for this many seconds.
    Query(u64),
}

/// A signature as the request presents it, not verified yet.
#[derive(Debug)]
pub struct Presented {
    place: Place,
    access_key_id: String,
    scope_date: String,
    region: String,
    scope: String,
    time: OffsetDateTime,
    signed_headers: Vec<String>,
    signature: String,
    session_token: Option<String>,
}

impl Presented {
    /// Reads the signature of a request.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unsigned`] or [`Refusal::Malformed`].
    pub fn read(parts: &Parts) -> Result<Self, Refusal> {
        let query = parts.uri.query().unwrap_or_default();
        let in_query = form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name == "X-Amz-Signature");
        match (header(&parts.headers, "authorization")?, in_query) {
            (Some(_), true) => Err(Refusal::Malformed("only one authentication mechanism is allowed")),
            (Some(authorization), false) => Self::read_header(authorization, &parts.headers),
            (None, true) => Self::read_query(query),
            (None, false) => Err(Refusal::Unsigned),
        }
    }

    fn read_header(authorization: &str, headers: &HeaderMap) -> Result<Self, Refusal> {
        let fields = authorization
            .strip_prefix(ALGORITHM)
            .ok_or(Refusal::Malformed("the algorithm is not AWS4-HMAC-SHA256"))?;
        let (mut credential, mut signed_headers, mut signature) = (None, None, None);
        for field in fields.split(',') {
            match field.trim().split_once('=') {
                Some(("Credential", value)) => credential = Some(value),
                Some(("SignedHeaders", value)) => signed_headers = Some(value),
                Some(("Signature", value)) => signature = Some(value),
                _ => return Err(Refusal::Malformed("the authorization header has an unknown part")),
            }
        }
        let date = header(headers, "x-amz-date")?.ok_or(Refusal::Malformed("x-amz-date is missing"))?;
        let session_token = header(headers, "x-amz-security-token")?.map(str::to_owned);
        Self::new(
            Place::Headers,
            credential.unwrap_or_default(),
            date,
            signed_headers.unwrap_or_default(),
            signature.unwrap_or_default(),
            session_token,
        )
    }

    fn read_query(query: &str) -> Result<Self, Refusal> {
        let mut found: [Option<Cow<'_, str>>; SIGNING_PARAMETERS.len()] = Default::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let slot = SIGNING_PARAMETERS
                .iter()
                .zip(&mut found)
                .find(|(wanted, _)| **wanted == name);
            if let Some((_, slot)) = slot
                && slot.replace(value).is_some()
            {
                return Err(Refusal::Malformed("a signing parameter is given twice"));
            }
        }
        let [
            algorithm,
            credential,
            date,
            expires,
            signed_headers,
            signature,
            session_token,
        ] = found;
        if algorithm.as_deref() != Some(ALGORITHM) {
            return Err(Refusal::Malformed("X-Amz-Algorithm is not AWS4-HMAC-SHA256"));
        }
        let expires = expires
            .and_then(|text| text.parse().ok())
            .filter(|seconds| (1..=MAX_EXPIRES).contains(seconds))
            .ok_or(Refusal::Malformed("X-Amz-Expires is not between 1 and 604800"))?;
        Self::new(
            Place::Query(expires),
            &credential.unwrap_or_default(),
            &date.unwrap_or_default(),
            &signed_headers.unwrap_or_default(),
            &signature.unwrap_or_default(),
            session_token.map(Cow::into_owned),
        )
    }

    fn new(
        place: Place,
        credential: &str,
        date: &str,
        signed_headers: &str,
        signature: &str,
        session_token: Option<String>,
    ) -> Result<Self, Refusal> {
        let mut parts = credential.split('/');
        let (Some(key), Some(scope_date), Some(region), Some(scope), Some("aws4_request"), None) = (
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ) else {
            return Err(Refusal::Malformed(
                "the credential is not key/date/region/service/aws4_request",
            ));
        };
        let time = PrimitiveDateTime::parse(date, AMZ_DATE)
            .map_err(|_| Refusal::Malformed("the date is not of the form yyyymmddThhmmssZ"))?
            .assume_utc();
        let signed_headers: Vec<String> = signed_headers.split(';').map(str::to_owned).collect();
        if !signed_headers.iter().any(|name| name == "host") {
            return Err(Refusal::Malformed("the host header is not signed"));
        }
        if signature.is_empty() {
            return Err(Refusal::Malformed("the signature is missing"));
        }
        Ok(Self {
            place,
            access_key_id: key.to_owned(),
            scope_date: scope_date.to_owned(),
            region: region.to_owned(),
            scope: scope.to_owned(),
            time,
            signed_headers,
            signature: signature.to_owned(),
            session_token,
        })
    }

    /// The service that the credential scope names, or `None` for one that the stack does not have.
    #[must_use]
    pub fn service(&self) -> Option<Service> {
        Service::from_scope(&self.scope)
    }

    /// Verifies the signature over this request and says whose it is.
    ///
    /// # Errors
    ///
    /// Any [`Refusal`] but [`Refusal::Unsigned`].
    pub fn verify(
        &self,
        parts: &Parts,
        body: &[u8],
        credentials: &Credentials,
        region: &str,
        now: OffsetDateTime,
    ) -> Result<Caller, Refusal> {
        let Held { credential, caller } = credentials.find(&self.access_key_id).ok_or(Refusal::UnknownKey)?;
        self.check_time(now)?;
        if self.region != region {
            return Err(Refusal::WrongRegion);
        }
        self.check_headers(&parts.headers)?;
        let expected = self.sign_again(parts, body, &credential.secret_access_key)?;
        if !bool::from(expected.as_bytes().ct_eq(self.signature.as_bytes())) {
            return Err(Refusal::WrongSignature);
        }
        let token = self.session_token.as_deref().unwrap_or_default();
        if !bool::from(token.as_bytes().ct_eq(credential.session_token.as_bytes())) {
            return Err(Refusal::WrongToken);
        }
        if credential.expires.is_some_and(|expires| expires <= now) {
            return Err(Refusal::ExpiredCredential);
        }
        if self.service() == Some(Service::S3) {
            check_payload(&parts.headers, body)?;
        }
        Ok(caller)
    }

    fn check_time(&self, now: OffsetDateTime) -> Result<(), Refusal> {
        let age = now - self.time;
        match self.place {
            Place::Headers if age.abs() > MAX_SKEW => Err(Refusal::Skewed),
            Place::Query(_) if -age > MAX_SKEW => Err(Refusal::Skewed),
            Place::Query(expires) if age.whole_seconds().try_into().is_ok_and(|age: u64| age > expires) => {
                Err(Refusal::ExpiredUrl)
            }
            Place::Headers | Place::Query(_) => Ok(()),
        }
    }

    /// What is not signed could have been added on the way, so AWS refuses it. The exceptions are headers that the SDKs leave
    /// out of presigned URLs and whoever uses the URL may add.
    fn check_headers(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let free: &[&str] = match self.place {
            Place::Headers => &["x-amz-security-token"],
            Place::Query(_) => &["x-amz-user-agent", "x-amz-checksum-mode", "x-amz-content-sha256"],
        };
        let covered = |name: &str| self.signed_headers.iter().any(|signed| signed == name) || free.contains(&name);
        if headers
            .keys()
            .map(HeaderName::as_str)
            .any(|name| name.starts_with("x-amz-") && !covered(name))
        {
            return Err(Refusal::HeaderNotSigned);
        }
        Ok(())
    }

    fn sign_again(&self, parts: &Parts, body: &[u8], secret: &str) -> Result<String, Refusal> {
        // The crate takes every header that it is given as signed and adds these two itself.
        let mut headers = Vec::new();
        for name in &self.signed_headers {
            if self.place == Place::Headers && matches!(name.as_str(), "x-amz-date" | "x-amz-security-token") {
                continue;
            }
            for value in parts.headers.get_all(name.as_str()) {
                let value = std::str::from_utf8(value.as_bytes()).map_err(|_| Refusal::WrongSignature)?;
                headers.push((name.as_str(), value));
            }
        }
        let host = header(&parts.headers, "host")?.ok_or(Refusal::Malformed("the host header is missing"))?;
        let path = parts.uri.path();
        let query = self.query_without_signature(parts.uri.query().unwrap_or_default());
        let uri = format!("http://{host}{path}{}{query}", if query.is_empty() { "" } else { "?" });

        let s3 = self.service() == Some(Service::S3);
        let payload = match self.place {
            Place::Headers if s3 => {
                let hash = header(&parts.headers, "x-amz-content-sha256")?
                    .ok_or(Refusal::Malformed("x-amz-content-sha256 is missing"))?;
                SignableBody::Precomputed(hash.to_owned())
            }
            Place::Query(_) if s3 => SignableBody::UnsignedPayload,
            Place::Headers | Place::Query(_) => SignableBody::Bytes(body),
        };
        let mut settings = SigningSettings::default();
        settings.excluded_headers = None;
        if s3 {
            settings.percent_encoding_mode = PercentEncodingMode::Single;
            settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        }
        let token_signed = match self.place {
            Place::Headers => self.signed_headers.iter().any(|name| name == "x-amz-security-token"),
            Place::Query(expires) => {
                settings.signature_location = SignatureLocation::QueryParams;
                settings.expires_in = Some(Duration::from_secs(expires));
                true
            }
        };
        // The token as presented, so that a wrong one is told from a wrong signature.
        let token = self.session_token.clone().filter(|_| token_signed);
        let identity = SigningCredentials::new(&self.access_key_id, secret, token, None, "issued").into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(&self.scope)
            .time(SystemTime::from(self.time))
            .settings(settings)
            .build()
            .map_err(|_| Refusal::WrongSignature)?
            .into();
        // The scope's date is derived from the request's time; one that differs was not signed by any SDK.
        if !self
            .time
            .format(AMZ_DATE)
            .is_ok_and(|time| time.starts_with(&format!("{}T", self.scope_date)))
        {
            return Err(Refusal::WrongSignature);
        }
        let request = SignableRequest::new(parts.method.as_str(), uri, headers.into_iter(), payload)
            .map_err(|_| Refusal::WrongSignature)?;
        let (_, signature) = sign(request, &params)
            .map_err(|_| Refusal::WrongSignature)?
            .into_parts();
        Ok(signature)
    }

    /// The query as it was before a presigned URL was made of it; the crate adds the signing parameters again.
    fn query_without_signature<'a>(&self, query: &'a str) -> Cow<'a, str> {
        if self.place == Place::Headers {
            return Cow::Borrowed(query);
        }
        let kept: Vec<&str> = query
            .split('&')
            .filter(|pair| {
                form_urlencoded::parse(pair.as_bytes()).all(|(name, _)| !SIGNING_PARAMETERS.contains(&name.as_ref()))
            })
            .collect();
        Cow::Owned(kept.join("&"))
    }
}

/// A body whose hash was signed has to have that hash. `UNSIGNED-PAYLOAD` has none to compare, and the names of the
/// `aws-chunked` forms stand for signatures inside the body.
fn check_payload(headers: &HeaderMap, body: &[u8]) -> Result<(), Refusal> {
    match header(headers, "x-amz-content-sha256")? {
        None | Some(UNSIGNED_PAYLOAD) => Ok(()),
        Some(hash) if hash.starts_with("STREAMING-") => Ok(()),
        Some(hash) if hash == data_encoding::HEXLOWER.encode(&Sha256::digest(body)) => Ok(()),
        Some(_) => Err(Refusal::WrongPayload),
    }
}

/// The one value of a header. Two values of a header that a signature rests on are a way to show two readers two requests.
fn header<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).into_iter();
    let value = values.next();
    if values.next().is_some() {
        return Err(Refusal::Malformed("a header of the signature is given twice"));
    }
    value
        .map(|value| {
            value
                .to_str()
                .map_err(|_| Refusal::Malformed("a header of the signature is not text"))
        })
        .transpose()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::credential::IssuedCredential;

    const REGION: &str = "eu-central-1";
    const NOW: OffsetDateTime = time::macros::datetime!(2026-11-20 12:00 UTC);

    /// What a test asks of the signer.
    pub(crate) struct Signing<'a> {
        pub(crate) credential: &'a IssuedCredential,
        pub(crate) host: &'a str,
        pub(crate) region: &'a str,
        pub(crate) service: &'a str,
        pub(crate) time: OffsetDateTime,
        /// Seconds; a presigned URL if given.
        pub(crate) expires: Option<u64>,
    }

    impl Signing<'_> {
        /// Signs as an SDK does: the S3 way for S3.
        pub(crate) fn sign(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Parts {
            let mut settings = SigningSettings::default();
            let mut payload = SignableBody::Bytes(body);
            if self.service == "s3" {
                settings.percent_encoding_mode = PercentEncodingMode::Single;
                settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
                settings.payload_checksum_kind = aws_sigv4::http_request::PayloadChecksumKind::XAmzSha256;
            }
            if let Some(expires) = self.expires {
                settings.signature_location = SignatureLocation::QueryParams;
                settings.expires_in = Some(Duration::from_secs(expires));
                if self.service == "s3" {
                    payload = SignableBody::UnsignedPayload;
                }
            }
            if let Some((_, hash)) = headers.iter().find(|(name, _)| *name == "x-amz-content-sha256") {
                payload = SignableBody::Precomputed((*hash).to_owned());
            }
            let identity = SigningCredentials::new(
                &self.credential.access_key_id,
                &self.credential.secret_access_key,
                Some(self.credential.session_token.clone()),
                None,
                "test",
            )
            .into();
            let params = v4::SigningParams::builder()
                .identity(&identity)
                .region(self.region)
                .name(self.service)
                .time(self.time.into())
                .settings(settings)
                .build()
                .unwrap()
                .into();
            let uri = format!("http://{}{target}", self.host);
            let mut request = http::Request::builder()
                .method(method)
                .uri(&uri)
                .header("host", self.host);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let mut request = request.body(()).unwrap();
            let own: Vec<(String, String)> = request
                .headers()
                .iter()
                .filter(|(name, _)| *name != "x-amz-content-sha256")
                .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
                .collect();
            let pairs = own.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            let signable = SignableRequest::new(method, uri.as_str(), pairs, payload).unwrap();
            let (instructions, _) = sign(signable, &params).unwrap().into_parts();
            instructions.apply_to_request_http1x(&mut request);
            request.into_parts().0
        }
    }

    fn credentials() -> (Credentials, IssuedCredential) {
        let credentials = Credentials::new();
        let issued = credentials.issue(Caller {
            principal: "F".to_owned(),
            tenant: Some("acme".to_owned()),
            ..Caller::default()
        });
        (credentials, issued)
    }

    fn signing<'a>(credential: &'a IssuedCredential, service: &'a str) -> Signing<'a> {
        Signing {
            credential,
            host: "127.0.0.1:4566",
            region: REGION,
            service,
            time: NOW,
            expires: None,
        }
    }

    fn verify(credentials: &Credentials, parts: &Parts, body: &[u8]) -> Result<String, Refusal> {
        Presented::read(parts)?
            .verify(parts, body, credentials, REGION, NOW)
            .map(|caller| caller.tenant.unwrap())
    }

    #[test]
    fn signed_requests_of_every_service_verify() {
        let (credentials, issued) = credentials();
        for (service, method, target) in [
            ("s3", "PUT", "/documents/t/acme/a%20b%2Bc.pdf?x-id=PutObject"),
            ("s3", "GET", "/documents/t1/../t2//x"),
            ("dynamodb", "POST", "/"),
            ("bedrock", "POST", "/knowledgebases/KB12345678/retrieve"),
            ("bedrock", "GET", "/model/eu.amazon.nova-lite-v1%3A0/converse"),
        ] {
            let parts = signing(&issued, service).sign(method, target, &[("content-type", "text/plain")], b"body");
            assert_eq!(
                verify(&credentials, &parts, b"body"),
                Ok("acme".to_owned()),
                "{service} {target}"
            );
        }
    }

    #[test]
    fn presigned_urls_verify_until_they_expire() {
        let (credentials, issued) = credentials();
        let target = "/documents/t/acme/a.pdf?response-content-disposition=attachment%3B%20filename%3D%22a%20b.pdf%22";
        for (age, expected) in [
            (0, Ok("acme".to_owned())),
            (300, Ok("acme".to_owned())),
            (301, Err(Refusal::ExpiredUrl)),
            (-901, Err(Refusal::Skewed)),
        ] {
            let mut signing = signing(&issued, "s3");
            signing.expires = Some(300);
            signing.time = NOW - time::Duration::seconds(age);
            let parts = signing.sign("GET", target, &[], b"");
            assert_eq!(verify(&credentials, &parts, b""), expected, "{age}");
        }
    }

    #[test]
    fn a_presigned_url_covers_its_response_overrides() {
        let (credentials, issued) = credentials();
        let mut signing = signing(&issued, "s3");
        signing.expires = Some(300);
        let mut parts = signing.sign("GET", "/documents/k?response-content-type=text%2Fplain", &[], b"");
        let target = parts.uri.to_string().replace("text%2Fplain", "text%2Fhtml");
        parts.uri = target.parse().unwrap();
        assert_eq!(verify(&credentials, &parts, b""), Err(Refusal::WrongSignature));
    }

    #[test]
    fn what_was_changed_after_signing_is_refused() {
        let (credentials, issued) = credentials();
        let signed = || signing(&issued, "s3").sign("PUT", "/documents/t/acme/k?x-id=PutObject", &[], b"body");
        let mut method = signed();
        method.method = http::Method::DELETE;
        let mut path = signed();
        path.uri = "http://127.0.0.1:4566/documents/t/acme-2/k?x-id=PutObject"
            .parse()
            .unwrap();
        let mut query = signed();
        query.uri = "http://127.0.0.1:4566/documents/t/acme/k?x-id=CopyObject"
            .parse()
            .unwrap();
        let mut host = signed();
        host.headers.insert("host", "127.0.0.1:1".parse().unwrap());
        for parts in [method, path, query, host] {
            assert_eq!(
                verify(&credentials, &parts, b"body"),
                Err(Refusal::WrongSignature),
                "{parts:?}"
            );
        }
        assert_eq!(verify(&credentials, &signed(), b"other"), Err(Refusal::WrongPayload));
        let mut added = signed();
        added
            .headers
            .insert("x-amz-copy-source", "documents/t/acme-2/k".parse().unwrap());
        assert_eq!(verify(&credentials, &added, b"body"), Err(Refusal::HeaderNotSigned));
    }

    #[test]
    fn a_json_body_that_was_changed_is_a_wrong_signature() {
        let (credentials, issued) = credentials();
        let parts = signing(&issued, "dynamodb").sign("POST", "/", &[], b"{}");
        assert_eq!(verify(&credentials, &parts, b"{ }"), Err(Refusal::WrongSignature));
    }

    #[test]
    fn strangers_are_refused() {
        let (credentials, issued) = credentials();
        let unsigned = http::Request::get("http://127.0.0.1/documents/k")
            .body(())
            .unwrap()
            .into_parts()
            .0;
        assert_eq!(verify(&credentials, &unsigned, b""), Err(Refusal::Unsigned));

        let refused = |change: fn(&mut IssuedCredential)| {
            let mut changed = issued.clone();
            change(&mut changed);
            let header = signing(&changed, "s3").sign("GET", "/documents/k", &[], b"");
            let mut presigning = signing(&changed, "s3");
            presigning.expires = Some(60);
            let query = presigning.sign("GET", "/documents/k", &[], b"");
            let refusal = verify(&credentials, &header, b"").unwrap_err();
            assert_eq!(verify(&credentials, &query, b""), Err(refusal));
            refusal
        };
        assert_eq!(
            refused(|c| c.access_key_id = "ASIAAAAAAAAAAAAAAAAA".to_owned()),
            Refusal::UnknownKey
        );
        assert_eq!(refused(|c| c.secret_access_key.push('x')), Refusal::WrongSignature);
        assert_eq!(refused(|c| c.session_token = "x".to_owned()), Refusal::WrongToken);
    }

    #[test]
    fn a_request_without_its_session_token_is_refused() {
        let (credentials, issued) = credentials();
        let mut parts = signing(&issued, "s3").sign("GET", "/documents/k", &[], b"");
        parts.headers.remove("x-amz-security-token");
        assert_eq!(verify(&credentials, &parts, b""), Err(Refusal::WrongSignature));
    }

    #[test]
    fn time_and_region_are_checked() {
        let (credentials, issued) = credentials();
        for (minutes, refused) in [(15, false), (-15, false), (16, true), (-16, true)] {
            let mut signing = signing(&issued, "dynamodb");
            signing.time = NOW + time::Duration::minutes(minutes);
            let parts = signing.sign("POST", "/", &[], b"{}");
            assert_eq!(
                verify(&credentials, &parts, b"{}") == Err(Refusal::Skewed),
                refused,
                "{minutes}"
            );
        }
        let mut elsewhere = signing(&issued, "s3");
        elsewhere.region = "us-east-1";
        let parts = elsewhere.sign("GET", "/documents/k", &[], b"");
        assert_eq!(verify(&credentials, &parts, b""), Err(Refusal::WrongRegion));
    }

    #[test]
    fn an_expired_credential_is_refused() {
        let (credentials, _) = credentials();
        let caller = Caller {
            principal: "F".to_owned(),
            tenant: Some("acme".to_owned()),
            ..Caller::default()
        };
        let issued = credentials.issue_until(caller, Some(NOW));
        let parts = signing(&issued, "s3").sign("GET", "/documents/k", &[], b"");
        assert_eq!(verify(&credentials, &parts, b""), Err(Refusal::ExpiredCredential));
    }

    #[test]
    fn a_scope_with_another_date_is_refused() {
        let (credentials, issued) = credentials();
        let mut parts = signing(&issued, "s3").sign("GET", "/documents/k", &[], b"");
        let authorization = parts.headers["authorization"]
            .to_str()
            .unwrap()
            .replace("/20261120/", "/20261119/");
        parts.headers.insert("authorization", authorization.parse().unwrap());
        assert_eq!(verify(&credentials, &parts, b""), Err(Refusal::WrongSignature));
    }
}
