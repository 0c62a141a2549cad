//! REST JSON: routes, validation, errors, and the bodies of answers.

mod answer;
mod model;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::catalogue::{Catalogue, Document, Job, JobStatus, Location, Statistics, Status};
use super::index::Hit;
use super::manner::Injection;
use super::retrieval::{Attributes, Filter};
use super::session::Session;
use super::{Inner, RecordedRequest, block, ingestion};
use crate::credential::Caller;
use crate::front_door::ServiceBody;
use crate::guardrail::{self, Guardrail, Verdict};

/// Results of a retrieval that does not say how many it wants.
const RESULTS: usize = 5;

/// What a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    Retrieve { knowledge_base: String },
    RetrieveAndGenerate,
    RetrieveAndGenerateStream,
    IngestDocuments(Source),
    GetDocuments(Source),
    DeleteDocuments(Source),
    StartJob(Source),
    GetJob(Source, String),
}

/// A data source, as a path names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    knowledge_base: String,
    data_source: String,
}

impl Route {
    pub(super) fn find(method: &Method, path: &str) -> Option<Self> {
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        let source = |knowledge_base: &str, data_source: &str| Source {
            knowledge_base: knowledge_base.to_owned(),
            data_source: data_source.to_owned(),
        };
        match (method.as_str(), segments.as_slice()) {
            ("POST", ["retrieveAndGenerate"]) => Some(Self::RetrieveAndGenerate),
            ("POST", ["retrieveAndGenerateStream"]) => Some(Self::RetrieveAndGenerateStream),
            ("POST", ["knowledgebases", id, "retrieve"]) => Some(Self::Retrieve {
                knowledge_base: (*id).to_owned(),
            }),
            (method, ["knowledgebases", id, "datasources", source_id, rest @ ..]) => {
                let source = source(id, source_id);
                match (method, rest) {
                    ("PUT", ["documents"]) => Some(Self::IngestDocuments(source)),
                    ("POST", ["documents", "getDocuments"]) => Some(Self::GetDocuments(source)),
                    ("POST", ["documents", "deleteDocuments"]) => Some(Self::DeleteDocuments(source)),
                    ("PUT", ["ingestionjobs"]) => Some(Self::StartJob(source)),
                    ("GET", ["ingestionjobs", job]) => Some(Self::GetJob(source, (*job).to_owned())),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    pub(super) fn operation(&self) -> &'static str {
        match self {
            Self::Retrieve { .. } => "Retrieve",
            Self::RetrieveAndGenerate => "RetrieveAndGenerate",
            Self::RetrieveAndGenerateStream => "RetrieveAndGenerateStream",
            Self::IngestDocuments(_) => "IngestKnowledgeBaseDocuments",
            Self::GetDocuments(_) => "GetKnowledgeBaseDocuments",
            Self::DeleteDocuments(_) => "DeleteKnowledgeBaseDocuments",
            Self::StartJob(_) => "StartIngestionJob",
            Self::GetJob(..) => "GetIngestionJob",
        }
    }

    fn shape(&self) -> &'static model::Shape {
        match self {
            Self::Retrieve { .. } => &model::RETRIEVE,
            Self::RetrieveAndGenerate | Self::RetrieveAndGenerateStream => &model::RETRIEVE_AND_GENERATE,
            Self::IngestDocuments(_) => &model::INGEST,
            Self::GetDocuments(_) | Self::DeleteDocuments(_) => &model::IDENTIFIERS,
            Self::StartJob(_) => &model::START_JOB,
            Self::GetJob(..) => &model::NOTHING,
        }
    }
}

/// Why a request is refused.
#[derive(Debug)]
enum Refusal {
    Validation(String),
    NotFound(String),
    Conflict(String),
    Throttling,
    /// The model behind it fails.
    DependencyFailed(String),
    /// The service does it and this one doesn't.
    NotImplemented(String),
    Internal(anyhow::Error),
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Self {
        Self::Internal(error)
    }
}

impl Refusal {
    fn into_response(self) -> Response<ServiceBody> {
        let (status, kind, message) = match self {
            Self::Validation(message) => (StatusCode::BAD_REQUEST, "ValidationException", message),
            Self::NotFound(message) => (StatusCode::NOT_FOUND, "ResourceNotFoundException", message),
            Self::Conflict(message) => (StatusCode::CONFLICT, "ConflictException", message),
            Self::Throttling => (
                StatusCode::TOO_MANY_REQUESTS,
                "ThrottlingException",
                "Your request rate is too high. Reduce the frequency of requests.".to_owned(),
            ),
            Self::DependencyFailed(message) => (StatusCode::FAILED_DEPENDENCY, "DependencyFailedException", message),
            Self::NotImplemented(what) => (
                StatusCode::NOT_IMPLEMENTED,
                "NotImplementedException",
                format!("The local knowledge base does not have {what}."),
            ),
            Self::Internal(error) => {
                tracing::error!(error = format!("{error:#}"), "the local knowledge base failed");
                (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "InternalServerException",
                    format!("{error:#}"),
                )
            }
        };
        let mut response = respond(status, &json!({ "message": message }));
        response
            .headers_mut()
            .insert("x-amzn-errortype", http::HeaderValue::from_static(kind));
        response
    }
}

fn respond(status: StatusCode, body: &Value) -> Response<ServiceBody> {
    let mut response = Response::new(ServiceBody::Whole(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    if let Ok(id) = http::HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()) {
        headers.insert("x-amzn-requestid", id);
    }
    response
}

/// Answers a request and remembers it.
pub(super) async fn handle(
    inner: &Arc<Inner>,
    request: http::Request<Bytes>,
    caller: Option<Caller>,
) -> Response<ServiceBody> {
    let inner = Arc::clone(inner);
    // Searching takes the processor and the database blocks.
    let answer = block(move || Ok(answer(&inner, &request, caller))).await;
    answer.unwrap_or_else(|error| Refusal::Internal(error).into_response())
}

fn answer(inner: &Arc<Inner>, request: &http::Request<Bytes>, caller: Option<Caller>) -> Response<ServiceBody> {
    let target = format!("{} {}", request.method(), request.uri().path());
    let route = Route::find(request.method(), request.uri().path());
    let body: Option<Value> = match request.body().as_ref() {
        b"" => Some(json!({})),
        bytes => serde_json::from_slice(bytes).ok(),
    };
    let filter = body.as_ref().and_then(|body| {
        body.pointer("/retrievalConfiguration/vectorSearchConfiguration/filter")
            .or_else(|| {
                body.pointer(
                    "/retrieveAndGenerateConfiguration/knowledgeBaseConfiguration/retrievalConfiguration\
                 /vectorSearchConfiguration/filter",
                )
            })
    });
    let filter = filter.filter(|filter| !filter.is_null()).map(Filter::parse);
    let tenant = match &filter {
        Some(Ok(filter)) => filter.equal_to(&inner.config.tenant_attribute).map(ToOwned::to_owned),
        _ => None,
    };
    let tenant = tenant.or_else(|| caller.as_ref()?.tenant.clone());
    let mut findings = model::Findings::default();
    let result = match (&route, &body) {
        (None, _) => Err(Refusal::NotImplemented(format!("the operation {target}"))),
        (Some(route), _)
            if !inner.meter.admit(route.operation(), inner.now()) || inner.manners.throttles(tenant.as_deref()) =>
        {
            Err(Refusal::Throttling)
        }
        (Some(_), None) => Err(Refusal::Validation("The request body is not valid JSON.".to_owned())),
        (Some(route), Some(body)) => {
            model::check(route.shape(), body, "", &mut findings);
            if findings.errors.is_empty() {
                let call = Call {
                    inner,
                    body,
                    tenant: tenant.as_deref(),
                };
                match filter.transpose() {
                    Ok(filter) => call.perform(route, filter.as_ref()),
                    Err(message) => Err(Refusal::Validation(message)),
                }
            } else {
                let count = findings.errors.len();
                let noun = if count == 1 { "error" } else { "errors" };
                Err(Refusal::Validation(format!(
                    "{count} validation {noun} detected: {}",
                    findings.errors.join("; ")
                )))
            }
        }
    };
    let response = result.unwrap_or_else(Refusal::into_response);
    let mut requests = inner.requests.lock().unwrap_or_else(PoisonError::into_inner);
    if requests.len() >= inner.config.remembered_requests {
        requests.pop_front();
    }
    requests.push_back(RecordedRequest {
        at: inner.now(),
        operation: route.as_ref().map(Route::operation),
        target,
        body: body.unwrap_or(Value::Null),
        unknown_members: findings.unknown,
        tenant,
        caller,
        status: response.status().as_u16(),
    });
    response
}

/// A request whose form is right.
struct Call<'a> {
    inner: &'a Arc<Inner>,
    body: &'a Value,
    tenant: Option<&'a str>,
}

impl Call<'_> {
    fn perform(&self, route: &Route, filter: Option<&Filter>) -> Result<Response<ServiceBody>, Refusal> {
        match route {
            Route::Retrieve { knowledge_base } => self.retrieve(knowledge_base, filter),
            Route::RetrieveAndGenerate => self.retrieve_and_generate(filter),
            Route::RetrieveAndGenerateStream => self.retrieve_and_generate_stream(filter),
            Route::IngestDocuments(source) => self.ingest(source),
            Route::GetDocuments(source) => self.documents(
                source,
                |location| Ok(self.inner.catalogue().documents.get(location).cloned()),
                StatusCode::OK,
            ),
            Route::DeleteDocuments(source) => self.documents(
                source,
                |location| {
                    ingestion::begin_deletion(self.inner, location)?;
                    Ok(self.inner.catalogue().documents.get(location).cloned())
                },
                StatusCode::ACCEPTED,
            ),
            Route::StartJob(source) => self.start_job(source),
            Route::GetJob(source, id) => self.job(source, id),
        }
    }

    fn string(&self, pointer: &str) -> Option<&str> {
        self.body.pointer(pointer).and_then(Value::as_str)
    }

    fn is_given(&self, pointer: &str) -> bool {
        self.body.pointer(pointer).is_some_and(|value| !value.is_null())
    }

    fn check_knowledge_base(&self, id: &str) -> Result<(), Refusal> {
        if id == self.inner.config.knowledge_base_id {
            Ok(())
        } else {
            Err(Refusal::NotFound(format!("Knowledge Base with id {id} does not exist")))
        }
    }

    fn check_source(&self, source: &Source) -> Result<(), Refusal> {
        self.check_knowledge_base(&source.knowledge_base)?;
        if source.data_source == self.inner.config.data_source_id {
            Ok(())
        } else {
            Err(Refusal::NotFound(format!(
                "DataSource with id {} does not exist",
                source.data_source
            )))
        }
    }

    /// The guardrail that a configuration names.
    fn guardrail(&self, pointer: &str) -> Result<Option<&Guardrail>, Refusal> {
        let text = |member: &str| self.string(&format!("{pointer}/{member}"));
        let Some(id) = text("guardrailId") else {
            return Ok(None);
        };
        let version = text("guardrailVersion").unwrap_or_default();
        let found = self.inner.config.guardrails.find(id, version);
        found.map(Some).ok_or_else(|| {
            Refusal::Validation(format!(
                "The guardrail identifier or version provided in the request is not valid: {id}"
            ))
        })
    }

    /// The configuration of a vector search: how many results.
    fn check_search(&self, pointer: &str) -> Result<usize, Refusal> {
        let search = format!("{pointer}/vectorSearchConfiguration");
        for member in ["implicitFilterConfiguration", "rerankingConfiguration"] {
            if self.is_given(&format!("{search}/{member}")) {
                return Err(Refusal::NotImplemented(member.to_owned()));
            }
        }
        if self.string(&format!("{search}/overrideSearchType")) == Some("HYBRID") {
            return Err(Refusal::Validation(
                "HYBRID search type is not supported for search operation on index of type S3_VECTORS.".to_owned(),
            ));
        }
        let wanted = self
            .body
            .pointer(&format!("{search}/numberOfResults"))
            .and_then(Value::as_u64);
        Ok(wanted
            .and_then(|wanted| usize::try_from(wanted).ok())
            .unwrap_or(RESULTS))
    }

    fn search(&self, question: &str, filter: Option<&Filter>, results: usize) -> anyhow::Result<Vec<Found>> {
        let now = self.inner.now();
        let filter = filter.filter(|_| !self.inner.manners.ignores_filter(self.tenant));
        // Evaluated before anything is ranked.
        let visible: BTreeMap<u64, (String, Attributes)> = {
            let catalogue = self.inner.catalogue();
            catalogue
                .documents
                .iter()
                .filter_map(|(location, document)| {
                    let revision = document.visible(now)?;
                    let attributes = self.with_builtin(&location.uri(), revision.attributes.clone());
                    filter
                        .is_none_or(|filter| filter.matches(&attributes))
                        .then(|| (revision.id, (location.uri(), attributes)))
                })
                .collect()
        };
        let revisions: Vec<u64> = visible.keys().copied().collect();
        let hits = self.inner.index.search(question, &revisions, results)?;
        Ok(hits
            .into_iter()
            .filter_map(|hit| {
                let (uri, attributes) = visible.get(&hit.revision)?;
                Some(Found {
                    uri: uri.clone(),
                    attributes: attributes.clone(),
                    hit,
                })
            })
            .collect())
    }

    fn with_builtin(&self, uri: &str, mut attributes: Attributes) -> Attributes {
        attributes.insert("x-amz-bedrock-kb-source-uri".to_owned(), json!(uri));
        attributes.insert(
            "x-amz-bedrock-kb-data-source-id".to_owned(),
            json!(self.inner.config.data_source_id),
        );
        attributes.insert("x-amz-bedrock-kb-source-file-modality".to_owned(), json!("TEXT"));
        attributes
    }

    fn reference(&self, found: &Found) -> Value {
        let mut metadata = found.attributes.clone();
        let chunk = &found.hit.chunk;
        let id = format!("1%3A0%3A{:08x}{:04x}", found.hit.revision, chunk.ordinal);
        metadata.insert("x-amz-bedrock-kb-chunk-id".to_owned(), json!(id));
        if let Some(page) = chunk.page.filter(|_| self.inner.config.page_numbers) {
            metadata.insert(
                "x-amz-bedrock-kb-document-page-number".to_owned(),
                json!(f64::from(page)),
            );
        }
        reference(&chunk.text, &found.uri, &metadata)
    }

    fn injected(&self, injection: &Injection) -> Value {
        reference(
            &injection.text,
            &injection.uri,
            &self.with_builtin(&injection.uri, injection.attributes.clone()),
        )
    }

    fn retrieve(&self, knowledge_base: &str, filter: Option<&Filter>) -> Result<Response<ServiceBody>, Refusal> {
        self.check_knowledge_base(knowledge_base)?;
        if self.string("/retrievalQuery/type") == Some("IMAGE") || self.is_given("/retrievalQuery/image") {
            return Err(Refusal::NotImplemented("queries by image".to_owned()));
        }
        if self.is_given("/nextToken") {
            return Err(Refusal::NotImplemented("further pages of results".to_owned()));
        }
        let guardrail = self.guardrail("/guardrailConfiguration")?;
        let results = self.check_search("/retrievalConfiguration")?;
        let question = self
            .string("/retrievalQuery/text")
            .ok_or_else(|| Refusal::Validation("The retrieval query has no text.".to_owned()))?;
        // The question is looked at, what is found is not.
        let verdict = guardrail.map(|guardrail| guardrail.check(question, guardrail::Source::Input).verdict);
        let (question, action) = match &verdict {
            Some(Verdict::Blocked(_)) => {
                let body = json!({ "retrievalResults": [], "guardrailAction": "INTERVENED" });
                return Ok(respond(StatusCode::OK, &body));
            }
            Some(Verdict::Masked(masked)) => (masked.as_str(), "INTERVENED"),
            Some(Verdict::Passed) | None => (question, "NONE"),
        };
        let mut list: Vec<Value> = Vec::new();
        for found in self.search(question, filter, results)? {
            let mut result = self.reference(&found);
            if let Some(result) = result.as_object_mut() {
                // Not BM25's scale, but that of a similarity: 0 to 1.
                let score = f64::from(found.hit.score);
                result.insert("score".to_owned(), json!(0.3 + 0.7 * score / (score + 5.0)));
            }
            list.push(result);
        }
        for (position, injection) in self.inner.manners.injections(self.tenant) {
            list.insert(position.min(list.len()), self.injected(&injection));
        }
        Ok(respond(
            StatusCode::OK,
            &json!({ "retrievalResults": list, "guardrailAction": action }),
        ))
    }

    /// The conversation that the request names, or a new one.
    fn session(&self) -> Result<(String, Session), Refusal> {
        let now = self.inner.now();
        let Some(id) = self.string("/sessionId") else {
            return Ok((uuid::Uuid::new_v4().to_string(), Session::new(now)));
        };
        let session = self
            .inner
            .catalogue()
            .sessions
            .get(id)
            .filter(|session| !session.has_ended(now, self.inner.config.session_lifetime))
            .filter(|_| !self.inner.manners.ends_sessions(self.tenant))
            .cloned();
        match session {
            Some(session) => Ok((id.to_owned(), session)),
            None => Err(Refusal::Validation(format!(
                "Session with Id {id} is not valid. Please check and try again."
            ))),
        }
    }

    /// The document that an identifier or a content names.
    fn location(&self, kind: Option<&str>, uri: Option<&str>) -> Result<Location, Refusal> {
        if kind != Some("S3") {
            return Err(Refusal::Validation(
                "The data source type of the document does not match the data source, which is of type S3.".to_owned(),
            ));
        }
        let uri =
            uri.ok_or_else(|| Refusal::Validation("A document of type S3 must have an s3 location.".to_owned()))?;
        let config = &self.inner.config;
        Location::parse(uri)
            .filter(|location| {
                location.bucket == config.bucket && location.key.starts_with(config.inclusion_prefix.as_str())
            })
            .ok_or_else(|| Refusal::Validation(format!("The document {uri} does not belong to the data source.")))
    }

    fn ingest(&self, source: &Source) -> Result<Response<ServiceBody>, Refusal> {
        self.check_source(source)?;
        let mut accepted: Vec<(Location, Option<Location>)> = Vec::new();
        for document in self
            .body
            .get("documents")
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default()
        {
            let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str);
            let location = self.location(text("/content/dataSourceType"), text("/content/s3/s3Location/uri"))?;
            if accepted.iter().any(|(other, _)| *other == location) {
                return Err(Refusal::Validation(format!(
                    "The request names {} twice.",
                    location.uri()
                )));
            }
            let sidecar = match text("/metadata/type") {
                None => None,
                Some("S3_LOCATION") => {
                    let uri = text("/metadata/s3Location/uri").ok_or_else(|| {
                        Refusal::Validation("Metadata of type S3_LOCATION must have an s3Location.".to_owned())
                    })?;
                    Some(Location::parse(uri).ok_or_else(|| Refusal::Validation(format!("{uri} is no S3 URI.")))?)
                }
                Some(_) => {
                    return Err(Refusal::Validation(
                        "Documents of an S3 data source take metadata from an S3 location only.".to_owned(),
                    ));
                }
            };
            accepted.push((location, sidecar));
        }
        refuse_during_job(&self.inner.catalogue())?;
        let mut details = Vec::new();
        for (location, sidecar) in accepted {
            ingestion::begin(self.inner, &location, sidecar)?;
            let document = self.inner.catalogue().documents.get(&location).cloned();
            details.push(self.detail(&location, document.as_ref()));
        }
        Ok(respond(StatusCode::ACCEPTED, &json!({ "documentDetails": details })))
    }

    fn documents(
        &self,
        source: &Source,
        act: impl Fn(&Location) -> anyhow::Result<Option<Document>>,
        status: StatusCode,
    ) -> Result<Response<ServiceBody>, Refusal> {
        self.check_source(source)?;
        let identifiers = self.body.get("documentIdentifiers").and_then(Value::as_array);
        let mut locations = Vec::new();
        for identifier in identifiers.map(Vec::as_slice).unwrap_or_default() {
            let text = |pointer: &str| identifier.pointer(pointer).and_then(Value::as_str);
            locations.push(self.location(text("/dataSourceType"), text("/s3/uri"))?);
        }
        if status == StatusCode::ACCEPTED {
            refuse_during_job(&self.inner.catalogue())?;
        }
        let mut details = Vec::new();
        for location in locations {
            let document = act(&location)?;
            details.push(self.detail(&location, document.as_ref()));
        }
        Ok(respond(status, &json!({ "documentDetails": details })))
    }

    fn detail(&self, location: &Location, document: Option<&Document>) -> Value {
        let mut detail = json!({
            "knowledgeBaseId": self.inner.config.knowledge_base_id,
            "dataSourceId": self.inner.config.data_source_id,
            "identifier": { "dataSourceType": "S3", "s3": { "uri": location.uri() } },
            "status": document.map_or(Status::NotFound, |document| document.status),
            "updatedAt": timestamp(document.map_or_else(|| self.inner.now(), |document| document.updated)),
        });
        if let (Some(detail), Some(reason)) = (
            detail.as_object_mut(),
            document.and_then(|document| document.reason.as_ref()),
        ) {
            detail.insert("statusReason".to_owned(), json!(reason));
        }
        detail
    }

    fn start_job(&self, source: &Source) -> Result<Response<ServiceBody>, Refusal> {
        self.check_source(source)?;
        let token = self.string("/clientToken");
        let now = self.inner.now();
        let id: String = uuid::Uuid::new_v4()
            .simple()
            .to_string()
            .to_uppercase()
            .chars()
            .take(10)
            .collect();
        let job = Job {
            token: token.map(ToOwned::to_owned),
            description: self.string("/description").map(ToOwned::to_owned),
            status: JobStatus::Starting,
            statistics: Statistics::default(),
            reasons: Vec::new(),
            started: now,
            updated: now,
        };
        {
            let mut catalogue = self.inner.catalogue();
            let known = catalogue
                .jobs
                .iter()
                .find(|(_, job)| token.is_some() && job.token.as_deref() == token);
            if let Some((id, job)) = known {
                return Ok(respond(
                    StatusCode::ACCEPTED,
                    &json!({ "ingestionJob": self.job_body(id, job) }),
                ));
            }
            refuse_during_job(&catalogue)?;
            catalogue.jobs.insert(id.clone(), job.clone());
            catalogue.save_job(&id)?;
        }
        ingestion::begin_job(self.inner, id.clone());
        Ok(respond(
            StatusCode::ACCEPTED,
            &json!({ "ingestionJob": self.job_body(&id, &job) }),
        ))
    }

    fn job(&self, source: &Source, id: &str) -> Result<Response<ServiceBody>, Refusal> {
        self.check_source(source)?;
        let job = self.inner.catalogue().jobs.get(id).cloned();
        let job = job.ok_or_else(|| Refusal::NotFound(format!("Ingestion job with id {id} does not exist")))?;
        Ok(respond(
            StatusCode::OK,
            &json!({ "ingestionJob": self.job_body(id, &job) }),
        ))
    }

    fn job_body(&self, id: &str, job: &Job) -> Value {
        let mut body = json!({
            "knowledgeBaseId": self.inner.config.knowledge_base_id,
            "dataSourceId": self.inner.config.data_source_id,
            "ingestionJobId": id,
            "status": job.status,
            "statistics": job.statistics,
            "startedAt": timestamp(job.started),
            "updatedAt": timestamp(job.updated),
        });
        if let Some(body) = body.as_object_mut() {
            if let Some(description) = &job.description {
                body.insert("description".to_owned(), json!(description));
            }
            if !job.reasons.is_empty() {
                body.insert("failureReasons".to_owned(), json!(job.reasons));
            }
        }
        body
    }
}

/// One job at a time, and no direct ingestion beside it.
fn refuse_during_job(catalogue: &Catalogue) -> Result<(), Refusal> {
    let is_running = |job: &Job| matches!(job.status, JobStatus::Starting | JobStatus::InProgress);
    match catalogue.jobs.iter().find(|(_, job)| is_running(job)) {
        Some((id, _)) => Err(Refusal::Conflict(format!(
            "The ingestion job {id} of the knowledge base is running: wait until it is complete and try again."
        ))),
        None => Ok(()),
    }
}

/// A passage with its document.
struct Found {
    uri: String,
    attributes: Attributes,
    hit: Hit,
}

fn reference(text: &str, uri: &str, metadata: &Attributes) -> Value {
    json!({
        "content": { "text": text, "type": "TEXT" },
        "location": { "type": "S3", "s3Location": { "uri": uri } },
        "metadata": metadata,
    })
}

fn timestamp(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_default()
}
