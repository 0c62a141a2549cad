//! A document's content: arriving through the gateway, and leaving by a link.

use bulkhead_core::document::{Audience, Document, DocumentStatus, MediaType};
use bulkhead_core::error::Error;
use bulkhead_core::profile::Profile;
use bulkhead_core::request::Request;
use bulkhead_core::response::Response;
use bulkhead_core::tenant::{Role, TenantContext};
use data_encoding::HEXLOWER;
use http::StatusCode;
use sha2::{Digest as _, Sha256};

use crate::declaration::MAX_CONTENT;
use crate::{Readable, State};

/// `PUT /documents/{document_id}/content`. It may be repeated until the document is completed.
pub(crate) async fn put(state: &State, request: &Request) -> Result<Response, Error> {
    let visit = state.admit(state.caller(request, Role::Admin)?).await?;
    let (_, document) = visit.document(request).await?;
    check(&document, request.header("Content-Type")?, request.body())?;
    visit.objects.put_upload(&document, request.body()).await?;
    Ok(Response::empty(StatusCode::NO_CONTENT))
}

/// Whether that is the content that was declared.
fn check(document: &Document, content_type: Option<&str>, content: &[u8]) -> Result<(), Error> {
    if document.status != DocumentStatus::AwaitingUpload {
        return Err(Error::conflict("The document does not await its content."));
    }
    let size = u64::try_from(content.len()).unwrap_or(u64::MAX);
    if size > MAX_CONTENT {
        return Err(Error::PayloadTooLarge);
    }
    if content_type.and_then(MediaType::of_header) != Some(document.media_type) {
        return Err(Error::UnsupportedMediaType);
    }
    if size != document.size {
        return Err(Error::unprocessable_at(
            "",
            "The content has another size than was declared.",
        ));
    }
    if HEXLOWER.encode(&Sha256::digest(content)) != document.sha256 {
        return Err(Error::unprocessable_at(
            "",
            "The content has another SHA-256 than was declared.",
        ));
    }
    Ok(())
}

/// `GET /documents/{document_id}/content`.
pub(crate) async fn get(state: &State, request: &Request) -> Result<Response, Error> {
    let visit = state.admit(state.caller(request, Role::Reader)?).await?;
    let link = match visit.readable(request).await? {
        (profile, Readable::Own(document)) => {
            if !may_read(&document, &profile, &visit.context) {
                return Err(Error::NotFound);
            }
            visit.objects.link(&document, &disposition(&document.name)).await?
        }
        // For everyone, and there: else it would not be readable.
        (_, Readable::Shared { document, content }) => content.link(&document, &disposition(&document.name)).await?,
    };
    Response::redirect(&link)
}

/// Whether the caller is among the document's audience and its object is there. The rule is one for all: an admin of the
/// tenant who is not in the group reads no more of it than anybody else.
fn may_read(document: &Document, profile: &Profile, context: &TenantContext) -> bool {
    let is_audience = match &document.audience {
        Audience::Everyone => true,
        // A group counts only while the profile declares it, whatever a token says.
        Audience::Group(group) => profile.groups.contains(group) && context.groups().contains(group),
    };
    is_there(document) && is_audience
}

/// Whether the document's object is in the data source and is to stay there.
pub(crate) fn is_there(document: &Document) -> bool {
    match document.status {
        DocumentStatus::Processing | DocumentStatus::Indexed => true,
        DocumentStatus::AwaitingUpload | DocumentStatus::Failed | DocumentStatus::Deleting => false,
    }
}

/// A `Content-Disposition` that makes a browser save the content under its name and never show it: uploads are not to be
/// trusted with a page (RFC 6266; the name once for everybody and once as RFC 8187 has it).
fn disposition(name: &str) -> String {
    let plain: String = name
        .chars()
        .map(|c| match c {
            '"' | '\\' | '/' | '%' => '_',
            ' '..='~' => c,
            _ => '_',
        })
        .collect();
    let is_attribute = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte);
    let mut extended = String::with_capacity(name.len() * 3);
    for byte in name.bytes() {
        if is_attribute(byte) {
            extended.push(char::from(byte));
        } else {
            extended.push_str(&format!("%{byte:02X}"));
        }
    }
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{extended}")
}

#[cfg(test)]
mod tests {
    use bulkhead_core::error::Code;
    use bulkhead_core::tenant::{Group, TenantId, UnverifiedCaller, UserId};
    use bulkhead_core::time::{Clock, Timestamp};
    use proptest::prelude::*;

    use super::*;

    fn document(content: &[u8]) -> Document {
        Document::declare(
            "handbook.txt".to_owned(),
            MediaType::Text,
            u64::try_from(content.len()).unwrap(),
            HEXLOWER.encode(&Sha256::digest(content)),
            Timestamp::from_unix(0),
        )
    }

    #[test]
    fn only_the_declared_content_is_taken() {
        let declared = document(b"content");
        let outcome = |document: &Document, content_type: Option<&str>, content: &[u8]| {
            check(document, content_type, content).map_err(|error| error.code())
        };
        let refused = |content_type: Option<&str>, content: &[u8], code| {
            assert_eq!(outcome(&declared, content_type, content), Err(code), "{content_type:?}");
        };
        assert_eq!(outcome(&declared, Some("text/plain"), b"content"), Ok(()));
        assert_eq!(
            outcome(&declared, Some("Text/Plain; charset=utf-8"), b"content"),
            Ok(())
        );
        refused(None, b"content", Code::UnsupportedMediaType);
        refused(Some("text/html"), b"content", Code::UnsupportedMediaType);
        refused(Some("application/octet-stream"), b"content", Code::UnsupportedMediaType);
        refused(Some("text/plain"), b"", Code::Unprocessable);
        refused(Some("text/plain"), b"content ", Code::Unprocessable);
        refused(Some("text/plain"), b"CONTENT", Code::Unprocessable);
        refused(Some("text/plain"), &vec![b' '; 4_000_001], Code::PayloadTooLarge);
        for status in [
            DocumentStatus::Processing,
            DocumentStatus::Indexed,
            DocumentStatus::Failed,
            DocumentStatus::Deleting,
        ] {
            let mut later = declared.clone();
            later.status = status;
            assert_eq!(outcome(&later, Some("text/plain"), b"content"), Err(Code::Conflict));
        }
    }

    #[test]
    fn a_document_is_its_audiences_only() {
        let group = |name| Group::parse(name).unwrap();
        let user = UserId::derive("https://issuer.example.com", "alice");
        let context = |groups: &str| {
            let caller = UnverifiedCaller {
                tenant: Some("acme".to_owned()),
                user: Some(user.as_str().to_owned()),
                roles: Some("admin,reader".to_owned()),
                groups: Some(groups.to_owned()),
                token_expiry: Some("4102444800".to_owned()),
                runtime_tenant: Some("acme".to_owned()),
            };
            TenantContext::new(&caller, &Clock::system()).unwrap()
        };
        let profile = Profile::new(
            TenantId::parse("acme").unwrap(),
            vec![group("hr")],
            Timestamp::from_unix(0),
        );
        let mut document = document(b"content");
        document.status = DocumentStatus::Indexed;
        assert!(may_read(&document, &profile, &context("")));
        document.audience = Audience::Group(group("hr"));
        assert!(may_read(&document, &profile, &context("hr,legal")));
        assert!(!may_read(&document, &profile, &context("legal")));
        assert!(!may_read(&document, &profile, &context("")));
        // The profile does not declare it.
        document.audience = Audience::Group(group("legal"));
        assert!(!may_read(&document, &profile, &context("hr,legal")));
        document.audience = Audience::Everyone;
        for status in [
            DocumentStatus::AwaitingUpload,
            DocumentStatus::Failed,
            DocumentStatus::Deleting,
        ] {
            document.status = status;
            assert!(!may_read(&document, &profile, &context("hr")), "{status:?}");
        }
    }

    #[test]
    fn content_is_saved_under_its_name() {
        assert_eq!(
            disposition("a b.pdf"),
            "attachment; filename=\"a b.pdf\"; filename*=UTF-8''a%20b.pdf"
        );
        assert_eq!(
            disposition("../\"Größe\"%.pdf"),
            "attachment; filename=\"..__Gr__e__.pdf\"; filename*=UTF-8''..%2F%22Gr%C3%B6%C3%9Fe%22%25.pdf"
        );
    }

    proptest! {
        #[test]
        fn no_name_leaves_its_parameter(name in "(?s).{0,64}") {
            let text = disposition(&name);
            let rest = text.strip_prefix("attachment; filename=\"").unwrap();
            let (plain, extended) = rest.split_once("\"; filename*=UTF-8''").unwrap();
            prop_assert!(plain.bytes().all(|byte| (b' '..=b'~').contains(&byte) && !b"\"\\/".contains(&byte)));
            prop_assert!(extended.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\/;,'".contains(&byte)));
        }
    }
}
