//! What may leave: the fourth lock. Every passage that an answer cites is checked again, whatever the filter did.
//!
//! Three steps, each only reachable through the one before: [`Firewall::check`] refuses the whole answer if one passage
//! is not the tenant's or not for the caller; [`Firewall::release`] leaves out what is being deleted; an answer is made
//! of [`Released`] only. Nothing here uses the retrieval filter's code: a fault there must not be a fault here.
//!
//! RetrieveAndGenerate shows only passages that it cites. What it used without citing it can't be seen, so a part of the
//! text that cites nothing is not released.

use std::collections::{BTreeSet, HashMap};

use aws_sdk_bedrockagentruntime::types::{
    Citation, RetrievalResultContent, RetrievalResultContentType, RetrievalResultLocationType, RetrievedReference,
};
use aws_smithy_types::Document as Value;
use bulkhead_core::document::{Audience, Document, DocumentId, DocumentStatus, ObjectKey};
use bulkhead_core::error::Error;
use bulkhead_core::profile::Profile;
use bulkhead_core::tenant::TenantContext;

/// What passages are checked against.
#[derive(Clone, Copy)]
pub struct Firewall<'a> {
    context: &'a TenantContext,
    profile: &'a Profile,
    bucket: &'a str,
}

/// An answer whose passages are all the tenant's and for the caller. Some may be of documents on their way out.
#[derive(Debug, PartialEq, Eq)]
pub struct Checked {
    parts: Vec<CheckedPart>,
    cites: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct CheckedPart {
    text: String,
    passages: Vec<CheckedPassage>,
}

#[derive(Debug, PartialEq, Eq)]
struct CheckedPassage {
    document: DocumentId,
    text: String,
}

/// What may leave: parts of the text, each with at least one passage.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Released {
    parts: Vec<Part>,
}

/// A part of the text that may leave.
#[derive(Debug, PartialEq, Eq)]
pub struct Part {
    /// The text.
    pub text: String,
    /// The passages that it rests on.
    pub passages: Vec<Passage>,
}

/// A passage that may leave.
#[derive(Debug, PartialEq, Eq)]
pub struct Passage {
    /// The document that it is from.
    pub document: DocumentId,
    /// The document's title, or the name that it was uploaded under.
    pub title: String,
    /// The text.
    pub text: String,
}

impl<'a> Firewall<'a> {
    /// The firewall for one caller.
    ///
    /// # Errors
    /// [`Error::Isolation`] if the profile is another tenant's.
    pub fn new(context: &'a TenantContext, profile: &'a Profile, bucket: &'a str) -> Result<Self, Error> {
        if profile.tenant != *context.tenant() {
            return Err(Error::isolation("the profile is not the caller's tenant's"));
        }
        Ok(Self {
            context,
            profile,
            bucket,
        })
    }

    /// Checks every passage of every part, also of parts that will not be released.
    ///
    /// # Errors
    /// [`Error::Breach`] if one is not the tenant's, or not for the caller, or does not say.
    pub fn check(&self, citations: &[Citation]) -> Result<Checked, Error> {
        let mut parts = Vec::with_capacity(citations.len());
        let mut cites = false;
        for citation in citations {
            let mut passages = Vec::new();
            for reference in citation.retrieved_references() {
                let document = self.document(reference)?;
                cites = true;
                // Documents are text; another kind of content could not be shown by what the contract says.
                if let Some(text) = reference.content().and_then(text) {
                    passages.push(CheckedPassage { document, text });
                }
            }
            let text = citation
                .generated_response_part()
                .and_then(|part| part.text_response_part())
                .and_then(|part| part.text())
                .unwrap_or_default();
            parts.push(CheckedPart {
                text: text.to_owned(),
                passages,
            });
        }
        Ok(Checked { parts, cites })
    }

    /// Leaves out the passages of documents that are being deleted, are gone, or are not for the caller any more, and
    /// then the parts that rest on none. `records` are the records of [`Checked::documents`].
    pub fn release(&self, checked: Checked, records: &HashMap<DocumentId, Document>) -> Released {
        let mut parts = Vec::new();
        for part in checked.parts {
            let passages: Vec<Passage> = part
                .passages
                .into_iter()
                .filter_map(|passage| {
                    let record = records.get(&passage.document).filter(|record| self.stands(record))?;
                    Some(Passage {
                        document: passage.document,
                        title: record.title.clone().unwrap_or_else(|| record.name.clone()),
                        text: passage.text,
                    })
                })
                .collect();
            if !passages.is_empty() && !part.text.trim().is_empty() {
                parts.push(Part {
                    text: part.text,
                    passages,
                });
            }
        }
        Released { parts }
    }

    /// The document that a passage is from, if everything about the passage says that the caller may see it.
    fn document(&self, reference: &RetrievedReference) -> Result<DocumentId, Error> {
        let breach = |reason| Error::Breach { reason };
        let location = reference
            .location()
            .filter(|location| *location.r#type() == RetrievalResultLocationType::S3)
            .and_then(|location| location.s3_location())
            .and_then(|location| location.uri())
            .ok_or(breach("a passage from outside the bucket"))?;
        let key = location
            .strip_prefix("s3://")
            .and_then(|path| path.strip_prefix(self.bucket))
            .and_then(|path| path.strip_prefix('/'))
            .ok_or(breach("a passage from outside the bucket"))?;
        let document = ObjectKey::document_of(key, self.context.tenant())
            .ok_or(breach("a passage from outside the tenant's prefix"))?;
        let attribute = |name: &str| match reference.metadata()?.get(name)? {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        };
        if attribute("tenantId") != Some(self.context.tenant().as_str()) {
            return Err(breach("a passage that is not tagged as the tenant's"));
        }
        if attribute("documentId") != Some(document.as_str()) {
            return Err(breach("a passage that is tagged as another document's"));
        }
        let audience = attribute("audience")
            .and_then(Audience::parse)
            .ok_or(breach("a passage without an audience"))?;
        if !self.may_read(&audience) {
            return Err(breach("a passage for an audience that the caller is not in"));
        }
        Ok(document)
    }

    fn may_read(&self, audience: &Audience) -> bool {
        match audience {
            Audience::Everyone => true,
            Audience::Group(group) => self.context.groups().contains(group) && self.profile.groups.contains(group),
        }
    }

    /// Whether passages of a document may be shown, by its record, which is newer than the index.
    fn stands(&self, record: &Document) -> bool {
        let stands = match record.status {
            DocumentStatus::Processing | DocumentStatus::Indexed | DocumentStatus::Failed => true,
            DocumentStatus::AwaitingUpload | DocumentStatus::Deleting => false,
        };
        stands && self.may_read(&record.audience)
    }
}

impl Checked {
    /// The documents that the passages are from, each once.
    pub fn documents(&self) -> Vec<DocumentId> {
        let passages = self.parts.iter().flat_map(|part| &part.passages);
        let documents: BTreeSet<&DocumentId> = passages.map(|passage| &passage.document).collect();
        documents.into_iter().cloned().collect()
    }

    /// Whether any part cites anything, be it something that can't be shown.
    pub fn cites(&self) -> bool {
        self.cites
    }
}

impl Released {
    /// What tests release without a firewall.
    #[cfg(test)]
    pub fn from_parts(parts: Vec<Part>) -> Self {
        Self { parts }
    }

    /// The parts, in the text's order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }
}

fn text(content: &RetrievalResultContent) -> Option<String> {
    match content.r#type() {
        None | Some(RetrievalResultContentType::Text) => Some(content.text().to_owned()),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_bedrockagentruntime::types::{
        RetrievalResultContent, RetrievalResultCustomDocumentLocation, RetrievalResultLocation,
        RetrievalResultS3Location,
    };

    use super::*;
    use crate::fixture::{self, BUCKET, DOCUMENT, OTHER_DOCUMENT};

    type Metadata = HashMap<String, Value>;

    fn string(text: &str) -> Value {
        Value::String(text.to_owned())
    }

    fn metadata(changes: &[(&str, Value)]) -> Metadata {
        let mut metadata = Metadata::from([
            ("tenantId".to_owned(), string("acme")),
            ("audience".to_owned(), string("*")),
            ("documentId".to_owned(), string(DOCUMENT)),
            ("x-amz-bedrock-kb-source-uri".to_owned(), string("s3://elsewhere")),
        ]);
        metadata.extend(changes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        metadata.retain(|_, value| *value != Value::Null);
        metadata
    }

    fn s3(uri: &str) -> RetrievalResultLocation {
        RetrievalResultLocation::builder()
            .r#type(RetrievalResultLocationType::S3)
            .s3_location(RetrievalResultS3Location::builder().uri(uri).build())
            .build()
            .unwrap()
    }

    fn own(document: &str) -> RetrievalResultLocation {
        s3(&format!("s3://{BUCKET}/t/acme/{document}.pdf"))
    }

    fn reference(location: Option<RetrievalResultLocation>, metadata: Option<Metadata>) -> RetrievedReference {
        RetrievedReference::builder()
            .content(RetrievalResultContent::builder().text("A passage.").build())
            .set_location(location)
            .set_metadata(metadata)
            .build()
    }

    fn good() -> RetrievedReference {
        reference(Some(own(DOCUMENT)), Some(metadata(&[])))
    }

    fn check(references: Vec<Vec<RetrievedReference>>) -> Result<Checked, Error> {
        let context = fixture::context("acme", &["hr", "it"]);
        let profile = fixture::profile("acme", &["hr", "legal"]);
        let citations: Vec<Citation> = references
            .into_iter()
            .map(|references| fixture::citation("A part.", references))
            .collect();
        Firewall::new(&context, &profile, BUCKET).unwrap().check(&citations)
    }

    #[test]
    fn a_passage_leaves_only_if_all_of_it_says_that_it_may() {
        let at = |uri: &str| reference(Some(s3(uri)), Some(metadata(&[])));
        let tagged = |changes: &[(&str, Value)]| reference(Some(own(DOCUMENT)), Some(metadata(changes)));
        let custom = RetrievalResultLocation::builder()
            .r#type(RetrievalResultLocationType::Custom)
            .custom_document_location(RetrievalResultCustomDocumentLocation::builder().id(DOCUMENT).build())
            .build()
            .unwrap();
        let mistyped = RetrievalResultLocation::builder()
            .r#type(RetrievalResultLocationType::Web)
            .s3_location(own(DOCUMENT).s3_location().unwrap().clone())
            .build()
            .unwrap();
        let outside = "a passage from outside the bucket";
        let prefix = "a passage from outside the tenant's prefix";
        let untagged = "a passage that is not tagged as the tenant's";
        let mixed = "a passage that is tagged as another document's";
        let unread = "a passage without an audience";
        let private = "a passage for an audience that the caller is not in";
        for (reference, expected) in [
            (good(), None),
            (tagged(&[("audience", string("hr"))]), None),
            (tagged(&[("title", string("Handbook"))]), None),
            (reference(None, Some(metadata(&[]))), Some(outside)),
            (reference(Some(custom), Some(metadata(&[]))), Some(outside)),
            (reference(Some(mistyped), Some(metadata(&[]))), Some(outside)),
            (at(&format!("s3://{BUCKET}-2/t/acme/{DOCUMENT}.pdf")), Some(outside)),
            (at(&format!("s3://other/{BUCKET}/t/acme/{DOCUMENT}.pdf")), Some(outside)),
            (at(&format!("https://{BUCKET}/t/acme/{DOCUMENT}.pdf")), Some(outside)),
            (at(&format!("s3://{BUCKET}t/acme/{DOCUMENT}.pdf")), Some(outside)),
            (at(&format!("s3://{BUCKET}/t/acme-2/{DOCUMENT}.pdf")), Some(prefix)),
            (at(&format!("s3://{BUCKET}/u/acme/{DOCUMENT}")), Some(prefix)),
            (at(&format!("s3://{BUCKET}//t/acme/{DOCUMENT}.pdf")), Some(prefix)),
            (
                at(&format!("s3://{BUCKET}/t/acme-2/../acme/{DOCUMENT}.pdf")),
                Some(prefix),
            ),
            (
                at(&format!("s3://{BUCKET}/t/acme/{DOCUMENT}.pdf.metadata.json")),
                Some(prefix),
            ),
            (
                at(&format!("s3://{BUCKET}/t/acme/{DOCUMENT}.pdf?versionId=1")),
                Some(prefix),
            ),
            (reference(Some(own(DOCUMENT)), None), Some(untagged)),
            (tagged(&[("tenantId", Value::Null)]), Some(untagged)),
            (tagged(&[("tenantId", string("acme-2"))]), Some(untagged)),
            (tagged(&[("tenantId", string("Acme"))]), Some(untagged)),
            (
                tagged(&[("tenantId", Value::Array(vec![string("acme")]))]),
                Some(untagged),
            ),
            (tagged(&[("documentId", Value::Null)]), Some(mixed)),
            (tagged(&[("documentId", string(OTHER_DOCUMENT))]), Some(mixed)),
            (tagged(&[("audience", Value::Null)]), Some(unread)),
            (tagged(&[("audience", string(""))]), Some(unread)),
            (tagged(&[("audience", Value::Array(vec![string("*")]))]), Some(unread)),
            // Declared, but the caller is not in it; the caller is in it, but it is not declared.
            (tagged(&[("audience", string("legal"))]), Some(private)),
            (tagged(&[("audience", string("it"))]), Some(private)),
        ] {
            // Among good ones, in a part that has others, and last.
            let described = format!("{reference:?}");
            let reason = match check(vec![vec![good()], vec![], vec![good(), reference]]) {
                Ok(_) => None,
                Err(Error::Breach { reason }) => Some(reason),
                Err(error) => panic!("{error}"),
            };
            assert_eq!(reason, expected, "{described}");
        }
    }

    #[test]
    fn documents_are_looked_up_once_each() {
        let other = reference(
            Some(own(OTHER_DOCUMENT)),
            Some(metadata(&[("documentId", string(OTHER_DOCUMENT))])),
        );
        let checked = check(vec![vec![good(), other], vec![good()], vec![]]).unwrap();
        let documents: Vec<String> = checked.documents().iter().map(ToString::to_string).collect();
        assert_eq!(documents, [DOCUMENT, OTHER_DOCUMENT]);
        assert!(checked.cites());
        assert!(!check(vec![vec![], vec![]]).unwrap().cites());
    }

    #[test]
    fn what_is_on_its_way_out_stays_behind_with_what_rests_on_it() {
        let context = fixture::context("acme", &["hr"]);
        let profile = fixture::profile("acme", &["hr", "legal"]);
        let firewall = Firewall::new(&context, &profile, BUCKET).unwrap();
        let passage = |document: &str| CheckedPassage {
            document: DocumentId::parse(document).unwrap(),
            text: "A passage.".to_owned(),
        };
        let part = |text: &str, documents: &[&str]| CheckedPart {
            text: text.to_owned(),
            passages: documents.iter().copied().map(passage).collect(),
        };
        let released = |record: Option<Document>| -> Vec<(String, usize)> {
            let checked = Checked {
                parts: vec![
                    part("Uncited.", &[]),
                    part("Of one.", &[DOCUMENT]),
                    part("Of both.", &[DOCUMENT, OTHER_DOCUMENT]),
                    part(" ", &[OTHER_DOCUMENT]),
                ],
                cites: true,
            };
            let records = [Some(fixture::document(OTHER_DOCUMENT)), record]
                .into_iter()
                .flatten()
                .map(|record| (record.document_id.clone(), record))
                .collect();
            let released = firewall.release(checked, &records);
            released
                .parts
                .into_iter()
                .map(|part| (part.text, part.passages.len()))
                .collect()
        };
        let with = |status, audience: &str| {
            Some(Document {
                status,
                audience: Audience::parse(audience).unwrap(),
                ..fixture::document(DOCUMENT)
            })
        };
        let all = vec![("Of one.".to_owned(), 1), ("Of both.".to_owned(), 2)];
        let less = vec![("Of both.".to_owned(), 1)];
        for (record, expected) in [
            (with(DocumentStatus::Indexed, "*"), &all),
            (with(DocumentStatus::Processing, "hr"), &all),
            (with(DocumentStatus::Failed, "*"), &all),
            (with(DocumentStatus::Deleting, "*"), &less),
            (with(DocumentStatus::AwaitingUpload, "*"), &less),
            (with(DocumentStatus::Indexed, "legal"), &less),
            (None, &less),
        ] {
            assert_eq!(released(record.clone()), *expected, "{record:?}");
        }
    }
}
