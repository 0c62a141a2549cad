//! The metadata file beside a document: what retrieval filters on, first of all whose the document is.
//!
//! It is built in one place from the caller's context. Of what a client sent only the names of declared attributes become
//! keys, and their grammar has none of ours. Bedrock reads it in its typed form, in which values are scalars
//! (<https://docs.aws.amazon.com/bedrock/latest/userguide/s3-data-source-connector.html>).

use std::collections::BTreeMap;

use bulkhead_core::attribute::{AttributeValue, Number};
use bulkhead_core::document::Document;
use bulkhead_core::error::Error;
use bulkhead_core::tenant::TenantContext;
use serde::Serialize;

/// The most bytes of a sidecar. S3 Vectors takes 1 KB of custom metadata with a vector
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/s3-vectors-bedrock-kb.html>).
const MAX_SIDECAR: usize = 1024;

/// A sidecar's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sidecar(Vec<u8>);

#[derive(Serialize)]
struct Shape<'a> {
    #[serde(rename = "metadataAttributes")]
    attributes: Attributes<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Attributes<'a> {
    tenant_id: Attribute<'a>,
    audience: Attribute<'a>,
    document_id: Attribute<'a>,
    title: Attribute<'a>,
    #[serde(flatten)]
    declared: BTreeMap<&'a str, Attribute<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Attribute<'a> {
    value: Value<'a>,
    /// Never: the attribute's name and value would be embedded with the text, and a question could then match an id.
    include_for_embedding: bool,
}

/// A scalar with its type. Never a list: `equals` on a list would be another question than on its one value.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "UPPERCASE", rename_all_fields = "camelCase")]
enum Value<'a> {
    String { string_value: &'a str },
    Number { number_value: Number },
    Boolean { boolean_value: bool },
}

impl<'a> Attribute<'a> {
    fn string(text: &'a str) -> Self {
        Self::scalar(Value::String { string_value: text })
    }

    fn declared(value: &'a AttributeValue) -> Self {
        Self::scalar(match value {
            AttributeValue::String(text) => Value::String { string_value: text },
            AttributeValue::Number(number) => Value::Number { number_value: *number },
            AttributeValue::Boolean(flag) => Value::Boolean { boolean_value: *flag },
        })
    }

    const fn scalar(value: Value<'a>) -> Self {
        Self {
            value,
            include_for_embedding: false,
        }
    }
}

impl Sidecar {
    /// The sidecar of a document of the context's tenant. A document without a title is called by its name; what is too
    /// long for a sidecar is cut.
    ///
    /// # Errors
    /// [`Error::Unprocessable`] if the attributes leave no room for a title at all, [`Error::Internal`] if it can't be
    /// written as JSON.
    pub(crate) fn new(context: &TenantContext, document: &Document) -> Result<Self, Error> {
        let write = |title: &str| {
            let declared = document
                .attributes
                .iter()
                .map(|(name, value)| (name.as_str(), Attribute::declared(value)));
            serde_json::to_vec(&Shape {
                attributes: Attributes {
                    tenant_id: Attribute::string(context.tenant().as_str()),
                    audience: Attribute::string(document.audience.as_str()),
                    document_id: Attribute::string(document.document_id.as_str()),
                    title: Attribute::string(title),
                    declared: declared.collect(),
                },
            })
            .map_err(Error::internal)
        };
        let room = MAX_SIDECAR.saturating_sub(write("")?.len());
        let title = document.title.as_deref().unwrap_or(&document.name);
        let bytes = write(&cut(title, room))?;
        if bytes.len() > MAX_SIDECAR {
            return Err(Error::unprocessable_at(
                "/attributes",
                "With what is kept of every document they take more than 1,024 bytes.",
            ));
        }
        Ok(Self(bytes))
    }

    /// The bytes.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// As much of `text` as takes `room` bytes inside a JSON string, ending in an ellipsis if that is not all.
fn cut(text: &str, room: usize) -> String {
    let width = |c: char| match c {
        '"' | '\\' => 2,
        c if c < ' ' => 6,
        c => c.len_utf8(),
    };
    if text.chars().map(width).sum::<usize>() <= room {
        return text.to_owned();
    }
    let mut left = room.saturating_sub('…'.len_utf8());
    let mut kept: String = text
        .chars()
        .take_while(|&c| match left.checked_sub(width(c)) {
            Some(rest) => {
                left = rest;
                true
            }
            None => false,
        })
        .collect();
    kept.push('…');
    kept
}

#[cfg(test)]
mod tests {
    use bulkhead_core::attribute::AttributeName;
    use bulkhead_core::document::{Audience, DocumentId, MediaType};
    use bulkhead_core::error::Code;
    use bulkhead_core::tenant::{Group, UnverifiedCaller, UserId};
    use bulkhead_core::time::{Clock, Timestamp};
    use proptest::prelude::*;

    use super::*;

    fn context(tenant: &str) -> TenantContext {
        let user = UserId::derive("https://issuer.example.com", "alice");
        let caller = UnverifiedCaller {
            tenant: Some(tenant.to_owned()),
            user: Some(user.as_str().to_owned()),
            roles: Some("admin,reader".to_owned()),
            groups: Some(String::new()),
            token_expiry: Some("4102444800".to_owned()),
            runtime_tenant: Some(tenant.to_owned()),
        };
        TenantContext::new(&caller, &Clock::system()).unwrap()
    }

    fn document(name: &str, title: Option<&str>, audience: Audience) -> Document {
        Document {
            document_id: DocumentId::parse("01JZZZZZZZZZZZZZZZZZZZZZZZ").unwrap(),
            title: title.map(str::to_owned),
            audience,
            completing: true,
            ..Document::declare(
                name.to_owned(),
                MediaType::Pdf,
                1,
                "0".repeat(64),
                Timestamp::from_unix(0),
            )
        }
    }

    fn attributes(values: &[(&str, AttributeValue)]) -> BTreeMap<AttributeName, AttributeValue> {
        values
            .iter()
            .map(|(name, value)| (AttributeName::parse(name).unwrap(), value.clone()))
            .collect()
    }

    #[test]
    fn a_sidecar_is_bedrocks_typed_form() {
        let mut document = document("handbook.pdf", Some("Handbook"), Audience::Everyone);
        document.attributes = attributes(&[
            ("season", AttributeValue::number(2.0).unwrap()),
            ("draft", AttributeValue::Boolean(false)),
            ("studio", AttributeValue::text("North").unwrap()),
        ]);
        let sidecar = Sidecar::new(&context("acme"), &document).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&sidecar.into_bytes()).unwrap();
        insta::assert_json_snapshot!(json, @r#"
        {
          "metadataAttributes": {
            "audience": {
              "includeForEmbedding": false,
              "value": {
                "stringValue": "*",
                "type": "STRING"
              }
            },
            "documentId": {
              "includeForEmbedding": false,
              "value": {
                "stringValue": "01JZZZZZZZZZZZZZZZZZZZZZZZ",
                "type": "STRING"
              }
            },
            "draft": {
              "includeForEmbedding": false,
              "value": {
                "booleanValue": false,
                "type": "BOOLEAN"
              }
            },
            "season": {
              "includeForEmbedding": false,
              "value": {
                "numberValue": 2,
                "type": "NUMBER"
              }
            },
            "studio": {
              "includeForEmbedding": false,
              "value": {
                "stringValue": "North",
                "type": "STRING"
              }
            },
            "tenantId": {
              "includeForEmbedding": false,
              "value": {
                "stringValue": "acme",
                "type": "STRING"
              }
            },
            "title": {
              "includeForEmbedding": false,
              "value": {
                "stringValue": "Handbook",
                "type": "STRING"
              }
            }
          }
        }
        "#);
    }

    proptest! {
        #[test]
        fn whatever_a_client_sends_the_tenant_is_the_contexts(
            tenant in "[a-z0-9]{1,20}-[a-z0-9]{1,19}",
            name in "\\PC{1,255}",
            title in proptest::option::of("(?s).{1,255}"),
            group in proptest::option::of("[a-z0-9]{1,15}-[a-z0-9]{1,16}"),
            declared in proptest::collection::btree_map("[a-z_A-Z]{1,32}", "\\PC{1,100}", 0..5),
        ) {
            prop_assume!(!tenant.starts_with("bulkhead"));
            let declared: BTreeMap<AttributeName, AttributeValue> = declared
                .iter()
                .filter_map(|(name, text)| Some((AttributeName::parse(name)?, AttributeValue::text(text).ok()?)))
                .collect();
            let audience = group.and_then(|group| Group::parse(&group)).map_or(Audience::Everyone, Audience::Group);
            let mut document = document(&name, title.as_deref(), audience.clone());
            document.attributes = declared.clone();
            let Ok(sidecar) = Sidecar::new(&context(&tenant), &document) else {
                prop_assert!(declared.len() > 1);
                return Ok(());
            };
            let bytes = sidecar.into_bytes();
            prop_assert!(bytes.len() <= MAX_SIDECAR);
            let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            let attributes = json["metadataAttributes"].as_object().unwrap();
            prop_assert_eq!(attributes.len(), 4 + declared.len());
            let value = |name: &str| attributes[name]["value"]["stringValue"].as_str().unwrap();
            prop_assert_eq!(value("tenantId"), tenant);
            prop_assert_eq!(value("audience"), audience.as_str());
            let wanted = title.as_deref().unwrap_or(&name);
            let shown = value("title");
            prop_assert!(shown == wanted || wanted.starts_with(shown.strip_suffix('…').unwrap()));
        }
    }

    #[test]
    fn attributes_that_leave_no_room_are_refused() {
        let mut document = document("a", None, Audience::Everyone);
        let names: Vec<String> = (0..10).map(|n| format!("a{n}")).collect();
        let code = |document: &Document| {
            Sidecar::new(&context("acme"), document)
                .map(|sidecar| sidecar.into_bytes().len())
                .map_err(|error| error.code())
        };
        let text = AttributeValue::text(&"x".repeat(100)).unwrap();
        let values = |count: usize| -> Vec<(&str, AttributeValue)> {
            names
                .iter()
                .take(count)
                .map(|name| (name.as_str(), text.clone()))
                .collect()
        };
        document.attributes = attributes(&values(3));
        assert!(code(&document).is_ok());
        document.attributes = attributes(&values(4));
        assert_eq!(code(&document), Err(Code::Unprocessable));
        // To the byte: the name takes what is left.
        document.attributes = attributes(&values(3));
        document.name = "n".repeat(255);
        assert_eq!(code(&document), Ok(MAX_SIDECAR));
    }

    #[test]
    fn a_title_that_fits_is_not_cut() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdefg", 6), "abc…");
        assert_eq!(cut("\"\"\"", 6), "\"\"\"");
        assert_eq!(cut("\"\"\"\"", 6), "\"…");
    }
}
