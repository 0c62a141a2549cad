//! What a client declares of a document, and the rules for it. Pure: nothing here is read or written.
//!
//! A limit exceeded and a malformed value are 400; what is well formed but not accepted is 422.

use std::collections::BTreeMap;
use std::fmt;

use bulkhead_core::attribute::{AttributeName, AttributeValue};
use bulkhead_core::document::{Audience, Document, MediaType, SIDECAR_SUFFIX};
use bulkhead_core::error::Error;
use bulkhead_core::profile::Profile;
use bulkhead_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization as _;

/// The most bytes of a document (<https://docs.aws.amazon.com/bedrock/latest/userguide/knowledge-base-ds.html>).
const MAX_DOCUMENT: u64 = 50_000_000;
/// The most bytes of content that the gateway brings: as base64 they fit the 6 MB of a Lambda invocation
/// (<https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>).
pub(crate) const MAX_CONTENT: u64 = 4_000_000;
const MAX_NAME: usize = 255;
const MAX_TITLE: usize = 255;
const MAX_KEY: usize = 255;

/// The body of `POST /documents`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeclareDocument {
    name: String,
    media_type: String,
    size: u64,
    sha256: String,
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    audience: Option<String>,
    #[serde(default)]
    attributes: Option<GivenAttributes>,
}

/// Attributes as a client gives them: an object in which each name stands once.
#[derive(Debug, Default)]
struct GivenAttributes(BTreeMap<String, AttributeValue>);

impl<'de> Deserialize<'de> for GivenAttributes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = GivenAttributes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of attributes")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<GivenAttributes, A::Error> {
                let mut given = BTreeMap::new();
                while let Some((name, value)) = map.next_entry()? {
                    // A map would keep the last of two, and which of them counts would be a guess.
                    if given.insert(name, value).is_some() {
                        return Err(serde::de::Error::custom("an attribute stands there twice"));
                    }
                }
                Ok(GivenAttributes(given))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// A declaration that follows the rules. Two requests are the same if their declarations are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Declared {
    name: String,
    media_type: MediaType,
    size: u64,
    sha256: String,
    title: Option<String>,
    audience: Audience,
    attributes: BTreeMap<AttributeName, AttributeValue>,
}

impl DeclareDocument {
    /// Applies the rules; `profile` says which groups a document may be for and which attributes it may have.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::Unprocessable`], with the member.
    pub(crate) fn parse(self, profile: &Profile) -> Result<Declared, Error> {
        let media_type = MediaType::ALL
            .into_iter()
            .find(|media_type| media_type.as_str() == self.media_type)
            .ok_or_else(|| Error::unprocessable_at("/media_type", "Documents of this media type are not accepted."))?;
        if !(1..=MAX_DOCUMENT).contains(&self.size) {
            return Err(Error::invalid_at("/size", "1 to 50,000,000 bytes."));
        }
        if self.size > MAX_CONTENT {
            return Err(Error::unprocessable_at(
                "/size",
                "Content arrives through the gateway for now, which takes at most 4,000,000 bytes.",
            ));
        }
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if self.sha256.len() != 64 || !self.sha256.bytes().all(is_digit) {
            return Err(Error::invalid_at("/sha256", "64 lower-case hexadecimal digits."));
        }
        Ok(Declared {
            name: parse_name(&self.name)?,
            media_type,
            size: self.size,
            sha256: self.sha256,
            title: self.title.as_deref().map(parse_title).transpose()?,
            audience: self
                .audience
                .as_deref()
                .map_or(Some(Audience::Everyone), |text| parse_audience(text, profile))
                .ok_or_else(|| {
                    Error::unprocessable_at("/audience", "`*` or a group that the tenant's profile declares.")
                })?,
            attributes: parse_attributes(self.attributes.unwrap_or_default(), profile)?,
        })
    }
}

impl Declared {
    /// A new document's record.
    pub(crate) fn into_document(self, now: Timestamp) -> Document {
        Document {
            title: self.title,
            audience: self.audience,
            attributes: self.attributes,
            ..Document::declare(self.name, self.media_type, self.size, self.sha256, now)
        }
    }
}

fn parse_name(text: &str) -> Result<String, Error> {
    let name: String = text.nfc().collect();
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(Error::invalid_at("/name", "1 to 255 bytes of UTF-8."));
    }
    if name.chars().any(char::is_control) || name.trim().is_empty() {
        return Err(Error::unprocessable_at(
            "/name",
            "No control characters, and not only blanks.",
        ));
    }
    if names_a_sidecar(&name) {
        return Err(Error::unprocessable_at(
            "/name",
            "Names that end in .metadata.json are reserved.",
        ));
    }
    Ok(name)
}

/// Whether somebody, or some file system, could take the name for a sidecar's. Names are never keys, so this keeps nothing
/// out of the data source; it keeps such files from being downloaded into one.
fn names_a_sidecar(name: &str) -> bool {
    let folded: String = name.nfkc().flat_map(char::to_lowercase).nfkc().collect();
    let trimmed = folded.trim_end_matches(|c: char| c == '.' || c.is_whitespace());
    trimmed.ends_with(SIDECAR_SUFFIX)
}

fn parse_title(text: &str) -> Result<String, Error> {
    let title: String = text.nfc().collect();
    if title.chars().count() > MAX_TITLE {
        return Err(Error::invalid_at("/title", "At most 255 characters."));
    }
    if title.chars().any(char::is_control) || title.trim().is_empty() {
        return Err(Error::unprocessable_at(
            "/title",
            "No control characters, and not only blanks.",
        ));
    }
    Ok(title)
}

fn parse_audience(text: &str, profile: &Profile) -> Option<Audience> {
    Audience::parse(text).filter(|audience| match audience {
        Audience::Everyone => true,
        Audience::Group(group) => profile.groups.contains(group),
    })
}

fn parse_attributes(
    given: GivenAttributes,
    profile: &Profile,
) -> Result<BTreeMap<AttributeName, AttributeValue>, Error> {
    let mut attributes = BTreeMap::new();
    for (name, value) in given.0 {
        let refuse = |detail: &'static str| {
            let pointer = format!("/attributes/{}", name.replace('~', "~0").replace('/', "~1"));
            Err(Error::unprocessable_at(pointer, detail))
        };
        let declared = AttributeName::parse(&name).and_then(|name| Some((profile.attribute(&name)?, name)));
        match declared {
            None => return refuse("The tenant's profile declares no such attribute."),
            Some((kind, _)) if kind != value.kind() => {
                return refuse("The tenant's profile declares another kind of value.");
            }
            Some((_, name)) => attributes.insert(name, value),
        };
    }
    Ok(attributes)
}

/// An `Idempotency-Key`: 1 to 255 visible ASCII characters.
///
/// # Errors
/// [`Error::Invalid`].
pub(crate) fn parse_key(text: &str) -> Result<&str, Error> {
    let fits = (1..=MAX_KEY).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then_some(text)
        .ok_or_else(|| Error::invalid("Idempotency-Key: 1 to 255 visible ASCII characters."))
}

#[cfg(test)]
mod tests {
    use bulkhead_core::attribute::{Attribute, AttributeKind};
    use bulkhead_core::error::Code;
    use bulkhead_core::tenant::{Group, TenantId};

    use super::*;

    fn parse(changes: serde_json::Value) -> Result<Declared, Code> {
        let mut body = serde_json::json!({
            "name": "handbook.pdf",
            "media_type": "application/pdf",
            "size": 3,
            "sha256": "0".repeat(64),
        });
        let members = body.as_object_mut().unwrap();
        members.extend(changes.as_object().unwrap().clone());
        members.retain(|_, value| value != "absent");
        let body: DeclareDocument = serde_json::from_value(body).map_err(|_| Code::InvalidRequest)?;
        let groups = vec![Group::parse("hr").unwrap()];
        let attribute = |name, kind| Attribute {
            name: AttributeName::parse(name).unwrap(),
            kind,
        };
        let profile = Profile {
            attributes: vec![
                attribute("season", AttributeKind::Number),
                attribute("studio", AttributeKind::String),
                attribute("draft", AttributeKind::Boolean),
            ],
            ..Profile::new(TenantId::parse("acme").unwrap(), groups, Timestamp::from_unix(0))
        };
        body.parse(&profile).map_err(|error| error.code())
    }

    fn check(member: &str, value: impl Into<serde_json::Value>, expected: Result<(), Code>) {
        let value = value.into();
        let mut changes = serde_json::Map::new();
        changes.insert(member.to_owned(), value.clone());
        assert_eq!(parse(changes.into()).map(|_| ()), expected, "{member}: {value}");
    }

    const BAD: Result<(), Code> = Err(Code::InvalidRequest);
    const UNACCEPTABLE: Result<(), Code> = Err(Code::Unprocessable);

    #[test]
    fn names_are_metadata_with_few_rules() {
        for good in [
            "a",
            "Größe.pdf",
            "../../etc/passwd",
            "a\\b",
            "metadata.json",
            "x.metadata.json.pdf",
            "‏مستند.pdf",
            &"a".repeat(255),
        ] {
            check("name", good, Ok(()));
        }
        for bad in ["absent", "", &"a".repeat(256), &"é".repeat(128)] {
            check("name", bad, BAD);
        }
        check("name", serde_json::Value::Null, BAD);
        check("name", 1, BAD);
        for unacceptable in [
            " ",
            "\u{a0}",
            "a\nb",
            "a\0",
            "a\u{7f}",
            "a\u{85}",
            "x.pdf.metadata.json",
            ".METADATA.JSON",
            "x.metadata.json ",
            "x.metadata.json. .",
            "x.metadata．json",
            "x.ＭＥＴＡＤＡＴＡ.json",
            "x.metadata.json\u{3000}",
        ] {
            check("name", unacceptable, UNACCEPTABLE);
        }
    }

    #[test]
    fn names_and_titles_are_kept_in_nfc() {
        let declared = parse(serde_json::json!({"name": "Gro\u{308}ße", "title": "Gro\u{308}ße"})).unwrap();
        assert_eq!(declared.name, "Größe");
        assert_eq!(declared.title.as_deref(), Some("Größe"));
    }

    #[test]
    fn types_sizes_and_checksums_are_those_of_the_contract() {
        for media_type in MediaType::ALL {
            check("media_type", media_type.as_str(), Ok(()));
        }
        for unacceptable in ["image/png", "Application/PDF", "text/plain; charset=utf-8", ""] {
            check("media_type", unacceptable, UNACCEPTABLE);
        }
        check("media_type", "absent", BAD);
        check("size", 1, Ok(()));
        check("size", 4_000_000, Ok(()));
        check("size", 4_000_001, UNACCEPTABLE);
        check("size", 50_000_000, UNACCEPTABLE);
        for bad in [0, 50_000_001, -1] {
            check("size", bad, BAD);
        }
        check("size", "3", BAD);
        check("size", 3.5, BAD);
        check("sha256", "f".repeat(64), Ok(()));
        for bad in ["", &"f".repeat(63), &"F".repeat(64), &"g".repeat(64)] {
            check("sha256", bad, BAD);
        }
    }

    #[test]
    fn titles_and_audiences_may_be_left_out() {
        assert_eq!(
            parse(serde_json::json!({"title": null, "audience": null})),
            parse(serde_json::json!({}))
        );
        check("title", "a".repeat(255), Ok(()));
        check("title", "a".repeat(256), BAD);
        check("title", "a\tb", UNACCEPTABLE);
        check("title", " ", UNACCEPTABLE);
        check("audience", "*", Ok(()));
        check("audience", "hr", Ok(()));
        for unacceptable in ["legal", "HR", "", "* "] {
            check("audience", unacceptable, UNACCEPTABLE);
        }
        check("tenant", "acme-2", BAD);
        check("tenantId", "acme-2", BAD);
        check("document_id", "01JZZZZZZZZZZZZZZZZZZZZZZZ", BAD);
    }

    #[test]
    fn attributes_are_those_that_the_profile_declares() {
        use serde_json::{Value, json};

        let attributes = |value: Value, expected| check("attributes", value, expected);
        attributes(json!({}), Ok(()));
        attributes(json!({"season": 2, "studio": "North", "draft": false}), Ok(()));
        attributes(json!({"season": -2.5}), Ok(()));
        for unacceptable in [
            json!({"year": 2}),
            json!({"season": "2"}),
            json!({"studio": 2}),
            json!({"draft": "false"}),
            json!({"tenantId": "acme-2"}),
            json!({"audience": "*"}),
            json!({"title": "Another"}),
            json!({"": 1}),
        ] {
            attributes(unacceptable, UNACCEPTABLE);
        }
        for bad in [
            json!([]),
            json!("season"),
            json!({"season": null}),
            json!({"season": [2]}),
            json!({"season": {"value": 2}}),
            json!({"season": 1e300}),
            json!({"studio": ""}),
            json!({"studio": "x".repeat(101)}),
            json!({"studio": "a\nb"}),
        ] {
            attributes(bad, BAD);
        }
        assert_eq!(parse(json!({"attributes": null})), parse(json!({})));
        let twice =
            r#"{"name":"a","media_type":"text/plain","size":1,"sha256":"","attributes":{"season":1,"season":2}}"#;
        assert!(serde_json::from_str::<DeclareDocument>(twice).is_err());
    }

    #[test]
    fn a_refused_attribute_is_named() {
        let body = r#"{"name":"a","media_type":"text/plain","size":1,"sha256":"SHA","attributes":{"a/~b":1}}"#;
        let body: DeclareDocument = serde_json::from_str(&body.replace("SHA", &"0".repeat(64))).unwrap();
        match body.parse(&Profile::shared()) {
            Err(Error::Unprocessable { violations, .. }) => assert_eq!(violations[0].pointer, "/attributes/a~1~0b"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn idempotency_keys_are_visible_ascii() {
        for good in ["k", "!~", &"k".repeat(255)] {
            assert!(parse_key(good).is_ok(), "{good}");
        }
        for bad in ["", " ", "a b", "a\tb", "é", &"k".repeat(256)] {
            assert!(parse_key(bad).is_err(), "{bad}");
        }
    }
}
