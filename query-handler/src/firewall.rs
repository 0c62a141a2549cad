//! What may leave: the fourth lock. Every passage that an answer rests on is checked again, whatever the filter did.
//!
//! Three steps, each only reachable through the one before: [`Firewall::check`] and [`Firewall::check_results`] refuse
//! everything if one passage is not of a document that the caller may see; [`Firewall::release`] and
//! [`Firewall::release_passages`] leave out what is being deleted; an answer is made of what they return only. Nothing
//! here uses the retrieval filter's code: a fault there must not be a fault here.
//!
//! RetrieveAndGenerate shows only passages that it cites. What it used without citing it can't be seen, so a part of the
//! text that cites nothing is not released. Retrieve shows every passage, before anything is made of them.

use std::collections::{BTreeSet, HashMap};

use aws_sdk_bedrockagentruntime::types::{
    Citation, KnowledgeBaseRetrievalResult, RetrievalResultContent, RetrievalResultContentType,
    RetrievalResultLocation, RetrievalResultLocationType,
};
use aws_smithy_types::{Document as Value, Number};
use bulkhead_core::document::{Audience, Document, DocumentId, DocumentStatus, ObjectKey};
use bulkhead_core::error::Error;
use bulkhead_core::plan::Plan;
use bulkhead_core::profile::Profile;
use bulkhead_core::store::{SharedCorpus, TenantStore};
use bulkhead_core::tenant::{TenantContext, TenantId};
use bulkhead_core::turn::{Origin, Turn, TurnPassage};

/// What Bedrock calls the page that a passage is on, where the store keeps it (OpenSearch Serverless and Aurora, PDF;
/// <https://docs.aws.amazon.com/bedrock/latest/userguide/kb-test-config.html>).
const PAGE: &str = "x-amz-bedrock-kb-document-page-number";

/// What passages are checked against.
#[derive(Clone, Copy)]
pub struct Firewall<'a> {
    context: &'a TenantContext,
    profile: &'a Profile,
    shared: bool,
    bucket: &'a str,
}

/// An answer whose passages are all of documents that the caller may see. Some may be of documents on their way out.
#[derive(Debug, PartialEq, Eq)]
pub struct Checked {
    parts: Vec<CheckedPart>,
    cites: bool,
}

/// Passages that are all of documents that the caller may see. Some may be of documents on their way out.
#[derive(Debug, PartialEq, Eq)]
pub struct CheckedPassages {
    passages: Vec<CheckedPassage>,
}

#[derive(Debug, PartialEq, Eq)]
struct CheckedPart {
    text: String,
    passages: Vec<CheckedPassage>,
}

#[derive(Debug, PartialEq, Eq)]
struct CheckedPassage {
    source: Source,
    text: String,
}

/// Where a passage is from, after everything about it was found to say the same.
#[derive(Debug, PartialEq, Eq)]
struct Source {
    document: DocumentId,
    origin: Origin,
    page: Option<u32>,
}

/// The documents whose records a release needs, each once, by where their records are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Documents {
    /// The tenant's.
    pub own: Vec<DocumentId>,
    /// The shared corpus'.
    pub shared: Vec<DocumentId>,
}

/// The records of [`Documents`]: those that there are.
#[derive(Clone, Debug, Default)]
pub struct Records {
    own: HashMap<DocumentId, Document>,
    shared: HashMap<DocumentId, Document>,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    /// The document that it is from.
    pub document: DocumentId,
    /// Whose document that is.
    pub origin: Origin,
    /// The document's title, or the name that it was uploaded under.
    pub title: String,
    /// The text.
    pub text: String,
    /// The page that it is on, where the knowledge base knows.
    pub page: Option<u32>,
}

impl<'a> Firewall<'a> {
    /// The firewall for one caller.
    ///
    /// # Errors
    /// [`Error::Isolation`] if the profile is another tenant's.
    pub fn new(context: &'a TenantContext, profile: &'a Profile, plan: &Plan, bucket: &'a str) -> Result<Self, Error> {
        if profile.tenant != *context.tenant() {
            return Err(Error::isolation("the profile is not the caller's tenant's"));
        }
        Ok(Self {
            context,
            profile,
            shared: plan.shared_corpus,
            bucket,
        })
    }

    /// Checks every passage of every part, also of parts that will not be released.
    ///
    /// # Errors
    /// [`Error::Breach`] if one is not of a document that the caller may see, or does not say.
    pub fn check(&self, citations: &[Citation]) -> Result<Checked, Error> {
        let mut parts = Vec::with_capacity(citations.len());
        let mut cites = false;
        for citation in citations {
            let mut passages = Vec::new();
            for reference in citation.retrieved_references() {
                let source = self.source(reference.location(), reference.metadata())?;
                cites = true;
                passages.extend(passage(source, reference.content()));
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

    /// Checks every passage that a search found, also those that will not be released.
    ///
    /// # Errors
    /// [`Error::Breach`] if one is not of a document that the caller may see, or does not say.
    pub fn check_results(&self, results: &[KnowledgeBaseRetrievalResult]) -> Result<CheckedPassages, Error> {
        let mut passages = Vec::with_capacity(results.len());
        for result in results {
            let source = self.source(result.location(), result.metadata())?;
            passages.extend(passage(source, result.content()));
        }
        Ok(CheckedPassages { passages })
    }

    /// Leaves out the parts that rest on a passage of a document that is being deleted, is gone, or is not for the caller
    /// any more, and those that rest on none. `records` are the records of [`Checked::documents`].
    pub fn release(&self, checked: Checked, records: &Records) -> Released {
        let mut parts = Vec::new();
        for part in checked.parts {
            let all = part.passages.len();
            let passages: Vec<Passage> = self.standing(part.passages, records).collect();
            // The model has read those that don't stand any more, so that what it says may be theirs.
            if !passages.is_empty() && passages.len() == all && !part.text.trim().is_empty() {
                parts.push(Part {
                    text: part.text,
                    passages,
                });
            }
        }
        Released { parts }
    }

    /// Leaves out the passages of documents that are being deleted, are gone, or are not for the caller any more, and
    /// those of blanks only, on which nothing can rest. `records` are the records of [`CheckedPassages::documents`].
    pub fn release_passages(&self, checked: CheckedPassages, records: &Records) -> Vec<Passage> {
        self.standing(checked.passages, records)
            .filter(|passage| !passage.text.trim().is_empty())
            .collect()
    }

    /// A passage as an earlier answer showed it, if it may still be shown: it passed the firewall then, but its document
    /// may be on its way out by now, or the caller may have left its audience. `records` are the records of
    /// [`Documents::of_turns`].
    pub fn release_stored(&self, passage: TurnPassage, records: &Records) -> Option<Passage> {
        let source = Source {
            document: passage.document_id,
            origin: passage.origin,
            page: passage.page,
        };
        let text = passage.text;
        self.standing_passage(CheckedPassage { source, text }, records)
    }

    fn standing(&self, passages: Vec<CheckedPassage>, records: &Records) -> impl Iterator<Item = Passage> {
        passages
            .into_iter()
            .filter_map(|passage| self.standing_passage(passage, records))
    }

    fn standing_passage(&self, passage: CheckedPassage, records: &Records) -> Option<Passage> {
        let CheckedPassage { source, text } = passage;
        let Source { document, origin, page } = source;
        let record = records
            .of(origin, &document)
            .filter(|record| self.stands(origin, record))?;
        Some(Passage {
            document,
            origin,
            title: record.title.clone().unwrap_or_else(|| record.name.clone()),
            text,
            page,
        })
    }

    /// Where a passage is from, if everything about it says that the caller may see it.
    fn source(
        &self,
        location: Option<&RetrievalResultLocation>,
        metadata: Option<&HashMap<String, Value>>,
    ) -> Result<Source, Error> {
        let breach = |reason| Error::Breach { reason };
        let location = location
            .filter(|location| *location.r#type() == RetrievalResultLocationType::S3)
            .and_then(|location| location.s3_location())
            .and_then(|location| location.uri())
            .ok_or(breach("a passage from outside the bucket"))?;
        let key = location
            .strip_prefix("s3://")
            .and_then(|path| path.strip_prefix(self.bucket))
            .and_then(|path| path.strip_prefix('/'))
            .ok_or(breach("a passage from outside the bucket"))?;
        let (document, origin, owner) = self
            .owned(key)
            .ok_or(breach("a passage from outside the tenant's prefix"))?;
        let attribute = |name: &str| match metadata?.get(name)? {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        };
        if attribute("tenantId") != Some(owner.as_str()) {
            return Err(breach("a passage that is not tagged as the tenant's"));
        }
        if attribute("documentId") != Some(document.as_str()) {
            return Err(breach("a passage that is tagged as another document's"));
        }
        let audience = attribute("audience")
            .and_then(Audience::parse)
            .ok_or(breach("a passage without an audience"))?;
        if !self.may_read(origin, &audience) {
            return Err(breach("a passage for an audience that the caller is not in"));
        }
        let page = metadata.and_then(|metadata| metadata.get(PAGE)).and_then(page);
        Ok(Source { document, origin, page })
    }

    /// The document that `key` is of and whose it is, if it is the tenant's or, where the plan has it, of the shared
    /// corpus.
    fn owned(&self, key: &str) -> Option<(DocumentId, Origin, TenantId)> {
        let tenant = self.context.tenant();
        if let Some(document) = ObjectKey::document_of(key, tenant) {
            return Some((document, Origin::Tenant, tenant.clone()));
        }
        let owner = self.shared.then(TenantId::shared)?;
        let document = ObjectKey::document_of(key, &owner)?;
        Some((document, Origin::Shared, owner))
    }

    /// Whether the caller may read a document for `audience`. A group is one tenant's: what is shared is for everyone.
    fn may_read(&self, origin: Origin, audience: &Audience) -> bool {
        match (origin, audience) {
            (_, Audience::Everyone) => true,
            (Origin::Tenant, Audience::Group(group)) => {
                self.context.groups().contains(group) && self.profile.groups.contains(group)
            }
            (Origin::Shared, Audience::Group(_)) => false,
        }
    }

    /// Whether passages of a document may be shown, by its record, which is newer than the index.
    fn stands(&self, origin: Origin, record: &Document) -> bool {
        let stands = match record.status {
            DocumentStatus::Processing | DocumentStatus::Indexed | DocumentStatus::Failed => true,
            DocumentStatus::AwaitingUpload | DocumentStatus::Deleting => false,
        };
        let in_scope = match origin {
            Origin::Tenant => true,
            Origin::Shared => self.shared,
        };
        stands && in_scope && self.may_read(origin, &record.audience)
    }
}

impl Checked {
    /// The documents that the passages are from.
    pub fn documents(&self) -> Documents {
        Documents::of(self.parts.iter().flat_map(|part| &part.passages))
    }

    /// Whether any part cites anything, be it something that can't be shown.
    pub fn cites(&self) -> bool {
        self.cites
    }
}

impl CheckedPassages {
    /// The documents that the passages are from.
    pub fn documents(&self) -> Documents {
        Documents::of(self.passages.iter())
    }
}

impl Documents {
    /// The documents that the passages of stored answers are from.
    pub fn of_turns(turns: &[Turn]) -> Self {
        let citations = turns.iter().flat_map(|turn| &turn.citations);
        let passages = citations.flat_map(|citation| &citation.passages);
        Self::of_sources(passages.map(|passage| (passage.origin, &passage.document_id)))
    }

    fn of<'a>(passages: impl Iterator<Item = &'a CheckedPassage>) -> Self {
        Self::of_sources(passages.map(|passage| (passage.source.origin, &passage.source.document)))
    }

    fn of_sources<'a>(sources: impl Iterator<Item = (Origin, &'a DocumentId)>) -> Self {
        let sources: BTreeSet<(Origin, &DocumentId)> = sources.collect();
        let mut documents = Self::default();
        for (origin, document) in sources {
            match origin {
                Origin::Tenant => documents.own.push(document.clone()),
                Origin::Shared => documents.shared.push(document.clone()),
            }
        }
        documents
    }
}

impl Records {
    /// Reads the records of `documents`. `shared` is where those of the shared corpus are, if the plan has it.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn read(
        store: &TenantStore,
        shared: Option<&SharedCorpus>,
        documents: &Documents,
    ) -> Result<Self, Error> {
        let (own, shared) = tokio::join!(store.documents_by_id(&documents.own), async {
            match shared {
                Some(shared) => shared.documents_by_id(&documents.shared).await,
                None => Ok(HashMap::new()),
            }
        });
        Ok(Self {
            own: own?,
            shared: shared?,
        })
    }

    /// What tests have read without a table.
    #[cfg(test)]
    pub fn new(own: HashMap<DocumentId, Document>, shared: HashMap<DocumentId, Document>) -> Self {
        Self { own, shared }
    }

    /// The record of one document. An id names nothing without its owner.
    fn of(&self, origin: Origin, document: &DocumentId) -> Option<&Document> {
        match origin {
            Origin::Tenant => self.own.get(document),
            Origin::Shared => self.shared.get(document),
        }
    }
}

impl Released {
    /// What tests release without a firewall.
    #[cfg(test)]
    pub fn from_parts(parts: Vec<Part>) -> Self {
        Self { parts }
    }

    /// The parts, in the text's order, to be said.
    pub fn into_parts(self) -> Vec<Part> {
        self.parts
    }
}

/// The passage from `source`, if it is one of text. Documents are; another kind of content could not be shown by what
/// the contract says.
fn passage(source: Source, content: Option<&RetrievalResultContent>) -> Option<CheckedPassage> {
    let content = content?;
    match content.r#type() {
        None | Some(RetrievalResultContentType::Text) => Some(CheckedPassage {
            source,
            text: content.text().to_owned(),
        }),
        Some(_) => None,
    }
}

/// The page that `value` is, if it is one: Bedrock writes whole numbers as fractions.
fn page(value: &Value) -> Option<u32> {
    match value {
        Value::Number(Number::PosInt(page)) => u32::try_from(*page).ok(),
        Value::Number(Number::Float(page)) => {
            (page.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(page)).then_some(*page as u32)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_bedrockagentruntime::types::{
        RetrievalResultCustomDocumentLocation, RetrievalResultS3Location, RetrievedReference,
    };
    use bulkhead_core::turn::TurnCitation;

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

    fn shared(document: &str) -> RetrievalResultLocation {
        s3(&format!("s3://{BUCKET}/t/bulkhead-shared/{document}.pdf"))
    }

    /// What a document of the shared corpus is tagged with.
    fn shared_metadata(changes: &[(&str, Value)]) -> Metadata {
        let mut all = vec![("tenantId", string("bulkhead-shared"))];
        all.extend(changes.iter().cloned());
        metadata(&all)
    }

    fn reference(location: Option<RetrievalResultLocation>, metadata: Option<Metadata>) -> RetrievedReference {
        RetrievedReference::builder()
            .content(RetrievalResultContent::builder().text("A passage.").build())
            .set_location(location)
            .set_metadata(metadata)
            .build()
    }

    /// The same passage as a search finds it.
    fn result(reference: &RetrievedReference) -> KnowledgeBaseRetrievalResult {
        KnowledgeBaseRetrievalResult::builder()
            .set_content(reference.content().cloned())
            .set_location(reference.location().cloned())
            .set_metadata(reference.metadata().cloned())
            .score(0.9)
            .build()
    }

    fn good() -> RetrievedReference {
        reference(Some(own(DOCUMENT)), Some(metadata(&[])))
    }

    fn plan(shared_corpus: bool) -> Plan {
        Plan {
            shared_corpus,
            ..Plan::default()
        }
    }

    fn check(references: Vec<Vec<RetrievedReference>>, shared: bool) -> Result<Checked, Error> {
        let context = fixture::context("acme", &["hr", "it"]);
        let profile = fixture::profile("acme", &["hr", "legal"]);
        let plan = plan(shared);
        let firewall = Firewall::new(&context, &profile, &plan, BUCKET).unwrap();
        let results: Vec<_> = references.iter().flatten().map(result).collect();
        let citations: Vec<Citation> = references
            .into_iter()
            .map(|references| fixture::citation("A part.", references))
            .collect();
        let checked = firewall.check(&citations);
        // Whatever holds of an answer's passages holds of the same ones when a search finds them.
        match (&checked, firewall.check_results(&results)) {
            (Ok(checked), Ok(found)) => {
                assert_eq!(found.documents(), checked.documents());
                assert!(
                    found
                        .passages
                        .iter()
                        .eq(checked.parts.iter().flat_map(|part| &part.passages))
                );
            }
            (Err(Error::Breach { reason }), Err(Error::Breach { reason: found })) => assert_eq!(*reason, found),
            (checked, found) => panic!("{checked:?}, {found:?}"),
        }
        checked
    }

    fn breach(checked: Result<Checked, Error>) -> Option<&'static str> {
        match checked {
            Ok(_) => None,
            Err(Error::Breach { reason }) => Some(reason),
            Err(error) => panic!("{error}"),
        }
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
            let passages = vec![vec![good()], vec![], vec![good(), reference]];
            assert_eq!(breach(check(passages.clone(), false)), expected, "{described}");
            // The shared corpus opens nothing else.
            assert_eq!(breach(check(passages, true)), expected, "{described}");
        }
    }

    #[test]
    fn a_shared_passage_leaves_only_where_the_plan_has_it_and_if_it_is_for_everyone() {
        let at = |uri: &str| reference(Some(s3(uri)), Some(shared_metadata(&[])));
        let tagged = |changes: &[(&str, Value)]| reference(Some(shared(DOCUMENT)), Some(shared_metadata(changes)));
        let outside = "a passage from outside the bucket";
        let prefix = "a passage from outside the tenant's prefix";
        let untagged = "a passage that is not tagged as the tenant's";
        let mixed = "a passage that is tagged as another document's";
        let unread = "a passage without an audience";
        let private = "a passage for an audience that the caller is not in";
        for (reference, expected) in [
            (tagged(&[]), None),
            (tagged(&[("title", string("Statutes"))]), None),
            // Of one by its key, of the other by its tag: neither.
            (tagged(&[("tenantId", string("acme"))]), Some(untagged)),
            (
                reference(Some(own(DOCUMENT)), Some(shared_metadata(&[]))),
                Some(untagged),
            ),
            (tagged(&[("tenantId", Value::Null)]), Some(untagged)),
            (tagged(&[("tenantId", string("acme-2"))]), Some(untagged)),
            (tagged(&[("tenantId", string("bulkhead"))]), Some(untagged)),
            (tagged(&[("tenantId", string("Bulkhead-Shared"))]), Some(untagged)),
            (
                tagged(&[("tenantId", Value::Array(vec![string("bulkhead-shared")]))]),
                Some(untagged),
            ),
            (reference(Some(shared(DOCUMENT)), None), Some(untagged)),
            (tagged(&[("documentId", Value::Null)]), Some(mixed)),
            (tagged(&[("documentId", string(OTHER_DOCUMENT))]), Some(mixed)),
            (tagged(&[("audience", Value::Null)]), Some(unread)),
            (tagged(&[("audience", Value::Array(vec![string("*")]))]), Some(unread)),
            // Groups are a tenant's own: the caller's `hr` is nobody's here.
            (tagged(&[("audience", string("hr"))]), Some(private)),
            (tagged(&[("audience", string("legal"))]), Some(private)),
            (
                at(&format!("s3://{BUCKET}-2/t/bulkhead-shared/{DOCUMENT}.pdf")),
                Some(outside),
            ),
            (
                at(&format!("s3://elsewhere/t/bulkhead-shared/{DOCUMENT}.pdf")),
                Some(outside),
            ),
            (
                at(&format!("s3://{BUCKET}/t/bulkhead-shared-2/{DOCUMENT}.pdf")),
                Some(prefix),
            ),
            (at(&format!("s3://{BUCKET}/t/bulkhead/{DOCUMENT}.pdf")), Some(prefix)),
            (at(&format!("s3://{BUCKET}/u/bulkhead-shared/{DOCUMENT}")), Some(prefix)),
            (
                at(&format!("s3://{BUCKET}/bulkhead-shared/{DOCUMENT}.pdf")),
                Some(prefix),
            ),
            (
                at(&format!("s3://{BUCKET}/t/acme/../bulkhead-shared/{DOCUMENT}.pdf")),
                Some(prefix),
            ),
            (
                at(&format!("s3://{BUCKET}/t/bulkhead-shared/{DOCUMENT}.pdf.metadata.json")),
                Some(prefix),
            ),
            (at(&format!("s3://{BUCKET}/t/acme-2/{DOCUMENT}.pdf")), Some(prefix)),
        ] {
            let described = format!("{reference:?}");
            let is_shared = reference.location() == Some(&shared(DOCUMENT));
            let passages = vec![vec![good()], vec![], vec![good(), reference]];
            assert_eq!(breach(check(passages.clone(), true)), expected, "{described}");
            // Without the shared corpus its documents are any stranger's.
            let strange = if is_shared { Some(prefix) } else { expected };
            assert_eq!(breach(check(passages, false)), strange, "{described}");
        }
    }

    #[test]
    fn a_page_is_a_whole_number_or_not_there() {
        let number = |number| Value::Number(number);
        for (value, expected) in [
            (number(Number::PosInt(3)), Some(3)),
            (number(Number::Float(3.0)), Some(3)),
            (number(Number::PosInt(u64::MAX)), None),
            (number(Number::NegInt(-1)), None),
            (number(Number::Float(3.5)), None),
            (number(Number::Float(f64::NAN)), None),
            (number(Number::Float(1e300)), None),
            (string("3"), None),
            (Value::Null, None),
        ] {
            let described = format!("{value:?}");
            let on = reference(Some(own(DOCUMENT)), Some(metadata(&[(PAGE, value)])));
            let checked = check(vec![vec![on]], false).unwrap();
            assert_eq!(checked.parts[0].passages[0].source.page, expected, "{described}");
        }
    }

    #[test]
    fn what_is_no_text_can_not_be_shown_and_is_checked_all_the_same() {
        let picture = |location| {
            let content = RetrievalResultContent::builder()
                .r#type(RetrievalResultContentType::Image)
                .text("A passage.")
                .build();
            RetrievedReference::builder()
                .content(content)
                .location(location)
                .metadata("tenantId", string("acme"))
                .metadata("documentId", string(DOCUMENT))
                .metadata("audience", string("*"))
                .build()
        };
        let checked = check(vec![vec![picture(own(DOCUMENT))]], false).unwrap();
        assert!(checked.cites() && checked.documents() == Documents::default());
        assert!(check(vec![vec![picture(shared(DOCUMENT))]], false).is_err());
    }

    #[test]
    fn documents_are_looked_up_once_each_where_their_records_are() {
        let other = reference(
            Some(own(OTHER_DOCUMENT)),
            Some(metadata(&[("documentId", string(OTHER_DOCUMENT))])),
        );
        // Of the same id, and another document.
        let shared = reference(Some(shared(DOCUMENT)), Some(shared_metadata(&[])));
        let passages = vec![vec![good(), other, shared.clone()], vec![good(), shared], vec![]];
        let checked = check(passages, true).unwrap();
        let id = |text| DocumentId::parse(text).unwrap();
        let documents = Documents {
            own: vec![id(DOCUMENT), id(OTHER_DOCUMENT)],
            shared: vec![id(DOCUMENT)],
        };
        assert_eq!(checked.documents(), documents);
        assert!(checked.cites());
        assert!(!check(vec![vec![], vec![]], true).unwrap().cites());
    }

    #[test]
    fn what_is_on_its_way_out_stays_behind_with_what_rests_on_it() {
        let context = fixture::context("acme", &["hr"]);
        let profile = fixture::profile("acme", &["hr", "legal"]);
        let plan = plan(true);
        let firewall = Firewall::new(&context, &profile, &plan, BUCKET).unwrap();
        let with = |status, audience: &str| {
            Some(Document {
                status,
                audience: Audience::parse(audience).unwrap(),
                ..fixture::document(DOCUMENT)
            })
        };
        let all: &[_] = &[("Of one.", 1), ("Of both.", 2), ("Of the other.", 1)];
        let less: &[_] = &[("Of the other.", 1)];
        for (record, own, shared) in [
            (with(DocumentStatus::Indexed, "*"), all, all),
            (with(DocumentStatus::Processing, "hr"), all, less),
            (with(DocumentStatus::Failed, "*"), all, all),
            (with(DocumentStatus::Deleting, "*"), less, less),
            (with(DocumentStatus::AwaitingUpload, "*"), less, less),
            (with(DocumentStatus::Indexed, "legal"), less, less),
            (None, less, less),
        ] {
            for (origin, expected) in [(Origin::Tenant, own), (Origin::Shared, shared)] {
                let passage = |document: &str| CheckedPassage {
                    source: Source {
                        document: DocumentId::parse(document).unwrap(),
                        // The other document is always the tenant's.
                        origin: if document == DOCUMENT { origin } else { Origin::Tenant },
                        page: Some(3),
                    },
                    text: "A passage.".to_owned(),
                };
                let part = |text: &str, documents: &[&str]| CheckedPart {
                    text: text.to_owned(),
                    passages: documents.iter().copied().map(passage).collect(),
                };
                let checked = Checked {
                    parts: vec![
                        part("Uncited.", &[]),
                        part("Of one.", &[DOCUMENT]),
                        part("Of both.", &[DOCUMENT, OTHER_DOCUMENT]),
                        part("Of the other.", &[OTHER_DOCUMENT]),
                        part(" ", &[OTHER_DOCUMENT]),
                    ],
                    cites: true,
                };
                let other = fixture::document(OTHER_DOCUMENT);
                let mut records = Records::new([(other.document_id.clone(), other)].into(), HashMap::new());
                // A record of the same id under the other owner is another document's, and good for nothing here.
                let (mine, theirs) = match origin {
                    Origin::Tenant => (&mut records.own, &mut records.shared),
                    Origin::Shared => (&mut records.shared, &mut records.own),
                };
                let id = DocumentId::parse(DOCUMENT).unwrap();
                theirs.insert(id.clone(), fixture::document(DOCUMENT));
                mine.extend(record.clone().map(|record| (id, record)));
                let released = firewall.release(checked, &records);
                let parts: Vec<_> = released
                    .parts
                    .iter()
                    .map(|part| (part.text.as_str(), part.passages.len()))
                    .collect();
                assert_eq!(parts, expected, "{origin:?} {record:?}");

                let mut blank = passage(OTHER_DOCUMENT);
                blank.text = " \n".to_owned();
                let found = CheckedPassages {
                    passages: vec![passage(DOCUMENT), blank, passage(OTHER_DOCUMENT)],
                };
                let released = firewall.release_passages(found, &records);
                let mut documents: Vec<&str> = released.iter().map(|passage| passage.document.as_str()).collect();
                assert_eq!(documents.pop(), Some(OTHER_DOCUMENT));
                assert_eq!(documents.len(), usize::from(expected == all), "{origin:?} {record:?}");
                assert!(
                    released
                        .iter()
                        .all(|passage| passage.title == "Handbook" && passage.page == Some(3))
                );
                assert!(documents.is_empty() || released.first().is_some_and(|passage| passage.origin == origin));

                let stored = TurnPassage {
                    document_id: DocumentId::parse(DOCUMENT).unwrap(),
                    origin,
                    text: "A passage.".to_owned(),
                    page: Some(3),
                    number: Some(1),
                };
                let mut turn = fixture::turn("Who?");
                turn.citations.push(TurnCitation {
                    text: "Me.".to_owned(),
                    start: 0,
                    end: 2,
                    passages: vec![stored.clone(), stored.clone()],
                });
                let mut documents = Documents::default();
                match origin {
                    Origin::Tenant => &mut documents.own,
                    Origin::Shared => &mut documents.shared,
                }
                .push(stored.document_id.clone());
                assert_eq!(Documents::of_turns(&[turn.clone(), turn]), documents);
                let released = firewall.release_stored(stored.clone(), &records);
                assert_eq!(released.is_some(), expected == all, "{origin:?} {record:?}");
                // What was shared with the tenant once is no longer when the plan says so.
                let plain = Firewall::new(&context, &profile, &Plan::default(), BUCKET).unwrap();
                let released = plain.release_stored(stored, &records);
                assert_eq!(released.is_some(), expected == all && origin == Origin::Tenant);
            }
        }
    }
}
