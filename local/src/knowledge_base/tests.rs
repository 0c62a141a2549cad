//! The knowledge base over its wire protocol, on an object store in memory.

mod stream;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};

use http::{Method, StatusCode};
use serde_json::json;

use super::manner::{Injection, Scope, Usage};
use super::*;
use crate::guardrail::Guardrail;
use crate::model::script::Script;
use crate::model::speech::Failure;
use crate::object::{Object, ObjectEntry};

const KB: &str = "KB00000001";
const DS: &str = "DS00000001";

#[derive(Default)]
struct Bucket {
    objects: Mutex<BTreeMap<String, Bytes>>,
}

impl Bucket {
    fn put(&self, key: &str, bytes: impl Into<Bytes>) {
        self.objects.lock().unwrap().insert(key.to_owned(), bytes.into());
    }

    fn tag(&self, key: &str, tenant: &str) {
        let sidecar = json!({"metadataAttributes": {"tenantId": {"value": {"type": "STRING", "stringValue": tenant}}}});
        self.put(&format!("{key}.metadata.json"), sidecar.to_string());
    }

    fn delete(&self, key: &str) {
        self.objects.lock().unwrap().remove(key);
    }
}

fn etag(bytes: &Bytes) -> String {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("{:x}", hasher.finish())
}

impl ObjectStore for Bucket {
    fn get(&self, bucket: &str, key: &str) -> anyhow::Result<Option<Object>> {
        anyhow::ensure!(bucket == "documents", "no bucket {bucket}");
        let bytes = self.objects.lock().unwrap().get(key).cloned();
        Ok(bytes.map(|bytes| Object {
            etag: etag(&bytes),
            bytes,
            last_modified: OffsetDateTime::UNIX_EPOCH,
        }))
    }

    fn list(&self, bucket: &str, prefix: &str) -> anyhow::Result<Vec<ObjectEntry>> {
        anyhow::ensure!(bucket == "documents", "no bucket {bucket}");
        let objects = self.objects.lock().unwrap();
        let under = objects.iter().filter(|(key, _)| key.starts_with(prefix));
        Ok(under
            .map(|(key, bytes)| ObjectEntry {
                key: key.clone(),
                etag: etag(bytes),
                size: bytes.len() as u64,
                last_modified: OffsetDateTime::UNIX_EPOCH,
            })
            .collect())
    }
}

struct Fixture {
    bucket: Arc<Bucket>,
    base: KnowledgeBase,
    /// Seconds that the clock is ahead.
    ahead: Arc<AtomicI64>,
}

fn config() -> KnowledgeBaseConfig {
    KnowledgeBaseConfig {
        indexing_latency: Duration::from_millis(2),
        quotas: Quotas::unlimited(),
        ..KnowledgeBaseConfig::new("123456789012", "us-east-1", KB, DS, "documents", "t/")
    }
}

impl Fixture {
    fn start(config: KnowledgeBaseConfig) -> Self {
        Self::over(Arc::new(Bucket::default()), config)
    }

    fn over(bucket: Arc<Bucket>, mut config: KnowledgeBaseConfig) -> Self {
        let ahead = Arc::new(AtomicI64::new(0));
        let clock = Arc::clone(&ahead);
        config.clock =
            Arc::new(move || OffsetDateTime::now_utc() + time::Duration::seconds(clock.load(Ordering::SeqCst)));
        let base = KnowledgeBase::start(config, Arc::clone(&bucket) as Arc<dyn ObjectStore>).unwrap();
        Self { bucket, base, ahead }
    }

    async fn call(&self, method: Method, path: &str, body: Value) -> (StatusCode, Value, String) {
        let body = if body.is_null() {
            Bytes::new()
        } else {
            Bytes::from(body.to_string())
        };
        let request = http::Request::builder().method(method).uri(path).body(body).unwrap();
        let response = self.base.handle(request).await;
        let kind = response
            .headers()
            .get("x-amzn-errortype")
            .map(|kind| kind.to_str().unwrap().to_owned());
        let status = response.status();
        (
            status,
            serde_json::from_slice(&response.into_body().collect().await).unwrap(),
            kind.unwrap_or_default(),
        )
    }

    async fn ask_with(&self, change: impl FnOnce(&mut Value)) -> (StatusCode, Value, String) {
        let mut body = question(
            "Which episodes does season 2 have?",
            json!({"equals": {"key": "tenantId", "value": "test"}}),
        );
        change(&mut body);
        self.call(Method::POST, "/retrieveAndGenerate", body).await
    }

    async fn ask(&self, tenant: &str, text: &str) -> Value {
        let body = question(text, json!({"equals": {"key": "tenantId", "value": tenant}}));
        let (status, answer, _) = self.call(Method::POST, "/retrieveAndGenerate", body).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer
    }

    async fn retrieve(&self, filter: Value) -> Vec<String> {
        let body = json!({
            "retrievalQuery": {"text": "anything"},
            "retrievalConfiguration": {"vectorSearchConfiguration": {"filter": filter, "numberOfResults": 100}},
        });
        let (status, answer, _) = self
            .call(Method::POST, &format!("/knowledgebases/{KB}/retrieve"), body)
            .await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let uris = answer["retrievalResults"].as_array().unwrap().iter();
        let mut uris: Vec<String> = uris
            .map(|result| result["location"]["s3Location"]["uri"].as_str().unwrap().to_owned())
            .collect();
        uris.sort();
        uris.dedup();
        uris
    }

    async fn ingest(&self, key: &str, with_sidecar: bool) -> (StatusCode, Value, String) {
        let mut document = json!({
            "content": {"dataSourceType": "S3", "s3": {"s3Location": {"uri": format!("s3://documents/{key}")}}},
        });
        if with_sidecar {
            let uri = format!("s3://documents/{key}.metadata.json");
            document["metadata"] = json!({"type": "S3_LOCATION", "s3Location": {"uri": uri}});
        }
        self.call(Method::PUT, &documents(""), json!({"documents": [document]}))
            .await
    }

    async fn detail(&self, key: &str) -> Value {
        let (status, body, _) = self
            .call(Method::POST, &documents("/getDocuments"), identifiers(key))
            .await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body["documentDetails"][0].clone()
    }

    /// Until a document rests, and what it says then.
    async fn settled(&self, key: &str) -> (String, String) {
        until(async || {
            let detail = self.detail(key).await;
            let text = |member: &str| detail[member].as_str().unwrap_or_default().to_owned();
            matches!(text("status").as_str(), "INDEXED" | "FAILED" | "NOT_FOUND")
                .then(|| (text("status"), text("statusReason")))
        })
        .await
    }

    async fn add(&self, key: &str, tenant: &str, text: &str) {
        self.bucket.tag(key, tenant);
        self.bucket.put(key, text.to_owned());
        self.ingest(key, true).await;
        assert_eq!(self.settled(key).await.0, "INDEXED");
    }

    async fn sync(&self) -> Value {
        let (status, body, _) = self.call(Method::PUT, &jobs(""), json!({})).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{body}");
        let id = body["ingestionJob"]["ingestionJobId"].as_str().unwrap().to_owned();
        until(async || {
            let (_, body, _) = self.call(Method::GET, &jobs(&id), Value::Null).await;
            let job = body["ingestionJob"].clone();
            (job["status"] == "COMPLETE" || job["status"] == "FAILED").then_some(job)
        })
        .await
    }
}

async fn until<T>(attempt: impl AsyncFn() -> Option<T>) -> T {
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = attempt().await {
            return found;
        }
        assert!(std::time::Instant::now() < deadline, "it did not happen in time");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn documents(rest: &str) -> String {
    format!("/knowledgebases/{KB}/datasources/{DS}/documents{rest}")
}

fn jobs(id: &str) -> String {
    format!("/knowledgebases/{KB}/datasources/{DS}/ingestionjobs/{id}")
}

fn identifiers(key: &str) -> Value {
    json!({"documentIdentifiers": [{"dataSourceType": "S3", "s3": {"uri": format!("s3://documents/{key}")}}]})
}

fn question(text: &str, filter: Value) -> Value {
    json!({
        "input": {"text": text},
        "retrieveAndGenerateConfiguration": {
            "type": "KNOWLEDGE_BASE",
            "knowledgeBaseConfiguration": {
                "knowledgeBaseId": KB,
                "modelArn": "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.example.model-v1:0",
                "retrievalConfiguration": {"vectorSearchConfiguration": {
                    "filter": filter, "numberOfResults": 5, "overrideSearchType": "SEMANTIC",
                }},
                "generationConfiguration": {
                    "promptTemplate": {"textPromptTemplate": "$search_results$ $output_format_instructions$"},
                    "inferenceConfig": {"textInferenceConfig": {"maxTokens": 1024, "temperature": 0}},
                },
                "orchestrationConfiguration": {
                    "promptTemplate": {"textPromptTemplate": "$conversation_history$ $output_format_instructions$"},
                },
            },
        },
    })
}

fn episodes(seasons: &[u32]) -> String {
    let mut text = "The Lighthouse Keepers: episodes\n\n".to_owned();
    for season in seasons {
        for episode in 1..=9 {
            text.push_str(&format!(
                "Season {season}, Episode {episode}: Story {season}x{episode} (aired May {episode}, 201{season})\n"
            ));
        }
    }
    text
}

fn said(answer: &Value) -> &str {
    answer["output"]["text"].as_str().unwrap()
}

const CONFIGURATION: &str = "/retrieveAndGenerateConfiguration/knowledgeBaseConfiguration";

fn set(body: &mut Value, pointer: &str, value: Value) {
    let (parent, member) = pointer.rsplit_once('/').unwrap();
    body.pointer_mut(parent).unwrap()[member] = value;
}

#[tokio::test]
async fn each_tenant_gets_answers_from_its_own_documents() {
    let fixture = Fixture::start(config());
    fixture.add("t/test/a.txt", "test", &episodes(&[1, 2, 3])).await;
    fixture.add("t/demo/a.txt", "demo", &episodes(&[1])).await;
    let answer = fixture.ask("test", "Which episodes does season 2 have?").await;
    assert_eq!(said(&answer).lines().count(), 9);
    assert_eq!(answer["guardrailAction"], "NONE");
    let text: Vec<char> = said(&answer).chars().collect();
    for citation in answer["citations"].as_array().unwrap() {
        let part = &citation["generatedResponsePart"]["textResponsePart"];
        let bound = |side: &str| usize::try_from(part["span"][side].as_u64().unwrap()).unwrap();
        let covered: String = text[bound("start")..=bound("end")].iter().collect();
        assert_eq!(covered, part["text"].as_str().unwrap());
        let reference = &citation["retrievedReferences"][0];
        assert_eq!(
            reference["location"],
            json!({"type": "S3", "s3Location": {"uri": "s3://documents/t/test/a.txt"}})
        );
        assert_eq!(reference["metadata"]["tenantId"], "test");
        assert_eq!(
            reference["metadata"]["x-amz-bedrock-kb-source-uri"],
            "s3://documents/t/test/a.txt"
        );
        assert_eq!(reference["metadata"].get("x-amz-bedrock-kb-document-page-number"), None);
        assert_eq!(reference["content"]["type"], "TEXT");
    }
    assert_eq!(
        said(&fixture.ask("demo", "Which episodes does season 1 have?").await)
            .lines()
            .count(),
        9
    );
    for (tenant, text) in [
        ("demo", "Which episodes does season 2 have?"),
        ("dummy", "Which episodes does season 1 have?"),
    ] {
        let answer = fixture.ask(tenant, text).await;
        assert_eq!(said(&answer), generation::NO_ANSWER);
        assert_eq!(answer["citations"].as_array().unwrap().len(), 1);
        assert_eq!(answer["citations"][0]["retrievedReferences"], json!([]));
    }
}

#[tokio::test]
async fn a_document_without_its_sidecar_is_untagged() {
    let fixture = Fixture::start(config());
    fixture.bucket.tag("t/a.txt", "test");
    fixture.bucket.put("t/a.txt", "Anything.");
    let (status, body, _) = fixture.ingest("t/a.txt", false).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert_eq!(body["documentDetails"][0]["status"], "STARTING");
    assert_eq!(fixture.settled("t/a.txt").await.0, "INDEXED");
    assert!(
        fixture
            .retrieve(json!({"equals": {"key": "tenantId", "value": "test"}}))
            .await
            .is_empty()
    );
    assert_eq!(
        fixture
            .retrieve(json!({"notEquals": {"key": "tenantId", "value": "other"}}))
            .await
            .len(),
        1
    );
    fixture.ingest("t/a.txt", true).await;
    assert_eq!(fixture.settled("t/a.txt").await.0, "INDEXED");
    assert_eq!(
        fixture
            .retrieve(json!({"equals": {"key": "tenantId", "value": "test"}}))
            .await
            .len(),
        1
    );
    assert!(
        fixture
            .retrieve(json!({"notEquals": {"key": "tenantId", "value": "test"}}))
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn a_sync_takes_what_changed_and_drops_what_is_gone() {
    let fixture = Fixture::start(config());
    for (key, tenant) in [("t/a/1.txt", "a"), ("t/b/1.md", "b")] {
        fixture.bucket.tag(key, tenant);
        fixture.bucket.put(key, "Some text.");
    }
    fixture.bucket.put("t/b/2.txt", "Its sidecar is misnamed.");
    fixture.bucket.put(
        "t/b/2.metadata.json",
        json!({"metadataAttributes": {"tenantId": "b"}}).to_string(),
    );
    fixture.bucket.put("t/b/3.exe", "Nobody reads this.");
    fixture.bucket.put("u/b/4.txt", "Outside the prefix.");
    let job = fixture.sync().await;
    assert_eq!(job["status"], "COMPLETE");
    let expected = json!({
        "numberOfDocumentsScanned": 4, "numberOfMetadataDocumentsScanned": 2, "numberOfNewDocumentsIndexed": 3,
        "numberOfModifiedDocumentsIndexed": 0, "numberOfMetadataDocumentsModified": 0, "numberOfDocumentsDeleted": 0,
        "numberOfDocumentsFailed": 1,
    });
    assert_eq!(job["statistics"], expected);
    assert!(job["failureReasons"][0].as_str().unwrap().contains("t/b/3.exe"));
    let of = |tenant: &str| json!({"equals": {"key": "tenantId", "value": tenant}});
    assert_eq!(fixture.retrieve(of("b")).await, ["s3://documents/t/b/1.md"]);
    assert_eq!(
        fixture
            .retrieve(json!({"notEquals": {"key": "tenantId", "value": "zzz"}}))
            .await
            .len(),
        3
    );

    fixture.bucket.delete("t/b/3.exe");
    fixture.bucket.delete("t/a/1.txt");
    fixture.bucket.tag("t/b/1.md", "c");
    fixture.bucket.put("t/b/2.txt", "Changed.");
    let statistics = fixture.sync().await["statistics"].clone();
    assert_eq!(statistics["numberOfMetadataDocumentsModified"], 1);
    assert_eq!(statistics["numberOfModifiedDocumentsIndexed"], 1);
    assert_eq!(statistics["numberOfDocumentsDeleted"], 2);
    assert_eq!(fixture.settled("t/a/1.txt").await.0, "NOT_FOUND");
    assert!(fixture.retrieve(of("b")).await.is_empty());
    assert_eq!(fixture.retrieve(of("c")).await, ["s3://documents/t/b/1.md"]);

    let statistics = fixture.sync().await["statistics"].clone();
    assert_eq!(statistics["numberOfDocumentsScanned"], 2);
    assert_eq!(statistics["numberOfNewDocumentsIndexed"], 0);
    assert_eq!(statistics["numberOfModifiedDocumentsIndexed"], 0);
}

#[tokio::test]
async fn what_cannot_be_read_fails_alone() {
    let fixture = Fixture::start(config());
    fixture.bucket.put("t/good.txt", "Good.");
    fixture.bucket.put("t/cut.pdf", "%PDF-1.4\n1 0 obj\n<< /Type /Catalog");
    fixture.bucket.put("t/old.doc", "x");
    fixture.bucket.put("t/fat.txt", "Fat.");
    let fat = json!({"metadataAttributes": {"tenantId": "a", "note": "x".repeat(1_100)}});
    fixture.bucket.put("t/fat.txt.metadata.json", fat.to_string());
    for (key, with_sidecar, status, reason) in [
        ("t/cut.pdf", false, "FAILED", "end of the PDF is missing"),
        ("t/old.doc", false, "FAILED", ".doc"),
        ("t/fat.txt", true, "FAILED", "1024 bytes of metadata"),
        ("t/absent.txt", false, "FAILED", "does not exist"),
        ("t/good.txt", true, "FAILED", "metadata file"),
        ("t/good.txt", false, "INDEXED", ""),
    ] {
        fixture.ingest(key, with_sidecar).await;
        let (found, because) = fixture.settled(key).await;
        assert_eq!(found, status, "{key}: {because}");
        assert!(because.contains(reason), "{key}: {because}");
    }
    assert_eq!(
        fixture.retrieve(json!({"notEquals": {"key": "a", "value": "b"}})).await,
        ["s3://documents/t/good.txt"]
    );
}

#[tokio::test]
async fn a_deleted_document_is_gone() {
    let fixture = Fixture::start(config());
    fixture.add("t/a.txt", "a", "Text.").await;
    let (status, body, _) = fixture
        .call(Method::POST, &documents("/deleteDocuments"), identifiers("t/a.txt"))
        .await;
    assert_eq!(
        (status, &body["documentDetails"][0]["status"]),
        (StatusCode::ACCEPTED, &json!("DELETING"))
    );
    assert_eq!(fixture.settled("t/a.txt").await.0, "NOT_FOUND");
    assert!(
        fixture
            .retrieve(json!({"equals": {"key": "tenantId", "value": "a"}}))
            .await
            .is_empty()
    );
    let (_, body, _) = fixture
        .call(Method::POST, &documents("/deleteDocuments"), identifiers("t/b.txt"))
        .await;
    assert_eq!(body["documentDetails"][0]["status"], "NOT_FOUND");
}

#[tokio::test]
async fn vectors_appear_and_vanish_late() {
    let fixture = Fixture::start(KnowledgeBaseConfig {
        visibility_latency: Duration::from_secs(60),
        ..config()
    });
    let mine = || json!({"equals": {"key": "tenantId", "value": "a"}});
    fixture.add("t/a.txt", "a", "Text.").await;
    assert!(fixture.retrieve(mine()).await.is_empty());
    fixture.ahead.store(61, Ordering::SeqCst);
    assert_eq!(fixture.retrieve(mine()).await.len(), 1);
    // A re-tagged document keeps its old tag for a while.
    fixture.add("t/a.txt", "b", "Text.").await;
    assert_eq!(fixture.retrieve(mine()).await.len(), 1);
    fixture.ahead.store(122, Ordering::SeqCst);
    assert!(fixture.retrieve(mine()).await.is_empty());
    fixture
        .call(Method::POST, &documents("/deleteDocuments"), identifiers("t/a.txt"))
        .await;
    assert_eq!(fixture.settled("t/a.txt").await.0, "NOT_FOUND");
    let theirs = || json!({"equals": {"key": "tenantId", "value": "b"}});
    assert_eq!(fixture.retrieve(theirs()).await.len(), 1);
    fixture.ahead.store(190, Ordering::SeqCst);
    assert!(fixture.retrieve(theirs()).await.is_empty());
}

#[tokio::test]
async fn requests_out_of_form_are_refused_as_bedrock_does() {
    let fixture = Fixture::start(KnowledgeBaseConfig {
        guardrails: Guardrails::new(vec![Guardrail::blocking("known1", &[])]),
        ..config()
    });
    let search = format!("{CONFIGURATION}/retrievalConfiguration/vectorSearchConfiguration");
    let generation = format!("{CONFIGURATION}/generationConfiguration");
    let orchestration = format!("{CONFIGURATION}/orchestrationConfiguration/promptTemplate/textPromptTemplate");
    let guardrail = |id: &str| json!({"guardrailId": id, "guardrailVersion": "1"});
    let leaf = json!({"equals": {"key": "tenantId", "value": "test"}});
    let cases = [
        ("/input/text".to_owned(), json!("x".repeat(1_000)), 200),
        ("/input/text".to_owned(), json!("x".repeat(1_001)), 400),
        ("/input/text".to_owned(), json!("\u{1F600}".repeat(501)), 400),
        ("/input/text".to_owned(), json!(""), 400),
        ("/input".to_owned(), Value::Null, 400),
        ("/sessionId".to_owned(), json!("no such session"), 400),
        (
            "/sessionId".to_owned(),
            json!("11111111-2222-3333-4444-555555555555"),
            400,
        ),
        (format!("{search}/numberOfResults"), json!(0), 400),
        (format!("{search}/numberOfResults"), json!(100), 200),
        (format!("{search}/numberOfResults"), json!(101), 400),
        (format!("{search}/numberOfResults"), json!(2.5), 400),
        (format!("{search}/overrideSearchType"), json!("HYBRID"), 400),
        (format!("{search}/overrideSearchType"), json!("OTHER"), 400),
        (format!("{search}/filter"), json!({"andAll": [leaf]}), 400),
        (
            format!("{search}/filter"),
            json!({"startsWith": {"key": "tenantId", "value": "t"}}),
            400,
        ),
        (format!("{search}/filter"), Value::Null, 200),
        (format!("{search}/rerankingConfiguration"), json!({}), 501),
        (format!("{search}/implicitFilterConfiguration"), json!({}), 501),
        (
            format!("{generation}/promptTemplate/textPromptTemplate"),
            json!("no placeholder"),
            400,
        ),
        (
            format!("{generation}/promptTemplate/textPromptTemplate"),
            json!(format!("$search_results${}", "x".repeat(3_984))),
            200,
        ),
        (
            format!("{generation}/promptTemplate/textPromptTemplate"),
            json!(format!("$search_results${}", "x".repeat(3_985))),
            400,
        ),
        (
            format!("{generation}/inferenceConfig/textInferenceConfig/temperature"),
            json!(1.1),
            400,
        ),
        (
            format!("{generation}/inferenceConfig/textInferenceConfig/temperature"),
            json!(1),
            200,
        ),
        (format!("{generation}/guardrailConfiguration"), guardrail("known1"), 200),
        (
            format!("{generation}/guardrailConfiguration"),
            guardrail("unknown"),
            400,
        ),
        (
            format!("{generation}/guardrailConfiguration"),
            json!({"guardrailId": "known1"}),
            400,
        ),
        (orchestration.clone(), json!("$output_format_instructions$"), 400),
        (orchestration, json!("$conversation_history$"), 400),
        (format!("{CONFIGURATION}/modelArn"), json!("not a model"), 400),
        (format!("{CONFIGURATION}/knowledgeBaseId"), json!("OTHER00000"), 404),
        (format!("{CONFIGURATION}/unknownMember"), json!(1), 200),
        (
            "/retrieveAndGenerateConfiguration/type".to_owned(),
            json!("EXTERNAL_SOURCES"),
            501,
        ),
    ];
    for (pointer, value, expected) in cases {
        let shown: String = value.to_string().chars().take(60).collect();
        let (status, body, kind) = fixture.ask_with(|body| set(body, &pointer, value)).await;
        assert_eq!(status.as_u16(), expected, "{pointer} {shown}: {body}");
        let expected_kind = match expected {
            400 => "ValidationException",
            404 => "ResourceNotFoundException",
            501 => "NotImplementedException",
            _ => "",
        };
        assert_eq!(kind, expected_kind, "{pointer} {shown}");
        assert_eq!(body["message"].is_string(), expected != 200, "{pointer} {shown}");
    }
    let (_, body, _) = fixture.ask_with(|body| body["sessionId"] = json!("abc")).await;
    assert_eq!(
        body["message"],
        "Session with Id abc is not valid. Please check and try again."
    );
    assert_eq!(
        fixture
            .base
            .requests()
            .iter()
            .flat_map(|request| request.unknown_members.clone())
            .collect::<Vec<_>>(),
        ["retrieveAndGenerateConfiguration.knowledgeBaseConfiguration.unknownMember"]
    );
}

#[tokio::test]
async fn documents_out_of_form_are_refused() {
    let fixture = Fixture::start(config());
    let content = |uri: &str| json!({"dataSourceType": "S3", "s3": {"s3Location": {"uri": uri}}});
    let good = json!({"content": content("s3://documents/t/a.txt")});
    let inline = json!({"content": content("s3://documents/t/a.txt"), "metadata": {"type": "IN_LINE_ATTRIBUTE", "inlineAttributes": []}});
    let long = format!("s3://documents/t/{}", "x".repeat(118));
    for (list, expected) in [
        (json!([]), 400),
        (json!(vec![good.clone(); 2]), 400),
        (json!(vec![good.clone(); 11]), 400),
        (json!([inline]), 400),
        (json!([{"content": content("s3://other/t/a.txt")}]), 400),
        (json!([{"content": content("s3://documents/u/a.txt")}]), 400),
        (json!([{"content": content(&long)}]), 400),
        (json!([{"content": {"dataSourceType": "CUSTOM", "custom": {}}}]), 400),
        (
            json!([{"metadata": {"type": "S3_LOCATION"}, "content": content("s3://documents/t/a.txt")}]),
            400,
        ),
        (json!([good]), 202),
    ] {
        let (status, body, _) = fixture
            .call(Method::PUT, &documents("/"), json!({"documents": list}))
            .await;
        assert_eq!(status.as_u16(), expected, "{list}: {body}");
    }
    let path = format!("/knowledgebases/{KB}/datasources/OTHER00000/documents");
    assert_eq!(
        fixture.call(Method::PUT, &path, json!({"documents": [good]})).await.0,
        StatusCode::NOT_FOUND
    );
    for (token, expected) in [("x".repeat(32), 400), ("_".repeat(40), 400), ("x".repeat(33), 202)] {
        let (status, ..) = fixture
            .call(Method::PUT, &jobs(""), json!({"clientToken": token}))
            .await;
        assert_eq!(status.as_u16(), expected, "{token}");
    }
}

#[tokio::test]
async fn one_job_at_a_time_and_no_direct_ingestion_beside_it() {
    let fixture = Fixture::start(KnowledgeBaseConfig {
        indexing_latency: Duration::from_secs(3_600),
        ..config()
    });
    let token = "0123456789abcdef0123456789abcdef0";
    let (status, first, _) = fixture
        .call(
            Method::PUT,
            &jobs(""),
            json!({"clientToken": token, "description": "d"}),
        )
        .await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert_eq!(first["ingestionJob"]["status"], "STARTING");
    let (status, again, _) = fixture
        .call(Method::PUT, &jobs(""), json!({"clientToken": token}))
        .await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert_eq!(
        again["ingestionJob"]["ingestionJobId"],
        first["ingestionJob"]["ingestionJobId"]
    );
    for (status, _, kind) in [
        fixture.call(Method::PUT, &jobs(""), json!({})).await,
        fixture.ingest("t/a.txt", false).await,
        fixture
            .call(Method::POST, &documents("/deleteDocuments"), identifiers("t/a.txt"))
            .await,
    ] {
        assert_eq!((status, kind.as_str()), (StatusCode::CONFLICT, "ConflictException"));
    }
    assert_eq!(fixture.detail("t/a.txt").await["status"], "NOT_FOUND");
    let (status, ..) = fixture.call(Method::GET, &jobs("OTHER00000"), Value::Null).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    fixture.base.shutdown().await;
}

#[tokio::test]
async fn more_requests_than_the_quota_are_throttled() {
    let now = OffsetDateTime::now_utc();
    let clock: Clock = Arc::new(move || now);
    let config = KnowledgeBaseConfig {
        quotas: Quotas::default(),
        clock,
        ..config()
    };
    let base = KnowledgeBase::start(config, Arc::new(Bucket::default())).unwrap();
    let mut codes = Vec::new();
    for _ in 0..21 {
        let body = json!({"retrievalQuery": {"text": "x"}}).to_string();
        let request = http::Request::post(format!("/knowledgebases/{KB}/retrieve"))
            .body(body.into())
            .unwrap();
        codes.push(base.handle(request).await.status().as_u16());
    }
    assert_eq!(codes.iter().filter(|code| **code == 200).count(), 20);
    assert_eq!(codes.last(), Some(&429));
}

#[tokio::test]
async fn bad_manners_concern_one_tenant() {
    let fixture = Fixture::start(config());
    fixture.add("t/a.txt", "a", "The code of a is alpha-1.").await;
    fixture.add("t/b.txt", "b", "The code of b is beta-2.").await;
    let manners = fixture.base.manners();
    let of = |tenant: &str| json!({"equals": {"key": "tenantId", "value": tenant}});

    manners.ignore_filter(Scope::tenant("a"), true);
    assert_eq!(fixture.retrieve(of("a")).await.len(), 2);
    assert_eq!(fixture.retrieve(of("b")).await.len(), 1);
    manners.ignore_filter(Scope::tenant("a"), false);
    assert_eq!(fixture.retrieve(of("a")).await.len(), 1);

    manners.throttle(Scope::tenant("a"), 1);
    let body = || question("What is the code?", of("a"));
    fixture.ask("b", "What is the code?").await;
    let (status, _, kind) = fixture.call(Method::POST, "/retrieveAndGenerate", body()).await;
    assert_eq!((status.as_u16(), kind.as_str()), (429, "ThrottlingException"));

    let session = fixture.ask("a", "What is the code?").await["sessionId"].clone();
    let again = || {
        let mut body = body();
        body["sessionId"] = session.clone();
        fixture.call(Method::POST, "/retrieveAndGenerate", body)
    };
    assert_eq!(again().await.0, StatusCode::OK);
    manners.end_sessions(Scope::tenant("a"));
    assert_eq!(again().await.2, "ValidationException");
    manners.reset(&Scope::tenant("a"));
    assert_eq!(again().await.0, StatusCode::OK);
    assert!(fixture.base.end_session(session.as_str().unwrap()));
    assert_eq!(again().await.2, "ValidationException");

    let injection = |usage| Injection {
        text: "Foreign words.".to_owned(),
        uri: "s3://documents/t/b.txt".to_owned(),
        attributes: [("tenantId".to_owned(), json!("b"))].into(),
        usage,
    };
    for (usage, text, citations, foreign) in [
        (Usage::Cited, true, 2, 1),
        (Usage::WithoutReference, true, 2, 0),
        (Usage::Hidden, true, 1, 0),
        (Usage::CitedBesideOthers, false, 1, 1),
    ] {
        manners.reset(&Scope::tenant("a"));
        manners.inject(Scope::tenant("a"), injection(usage));
        let answer = fixture.ask("a", "What is the code?").await;
        assert_eq!(said(&answer).contains("Foreign words."), text, "{usage:?}");
        let list = answer["citations"].as_array().unwrap();
        assert_eq!(list.len(), citations, "{usage:?}");
        let references = list
            .iter()
            .flat_map(|citation| citation["retrievedReferences"].as_array().unwrap());
        assert_eq!(
            references
                .filter(|reference| reference["metadata"]["tenantId"] == "b")
                .count(),
            foreign,
            "{usage:?}"
        );
    }
    assert!(!said(&fixture.ask("b", "What is the code?").await).contains("Foreign"));
}

#[tokio::test]
async fn a_session_belongs_to_whoever_knows_its_id_for_a_day() {
    let fixture = Fixture::start(config());
    fixture.add("t/a.txt", "a", &episodes(&[1, 2])).await;
    let session = fixture.ask("a", "Which episodes does season 1 have?").await["sessionId"].clone();
    let ask = async |tenant: &str, text: &str| {
        let mut body = question(text, json!({"equals": {"key": "tenantId", "value": tenant}}));
        body["sessionId"] = session.clone();
        fixture.call(Method::POST, "/retrieveAndGenerate", body).await
    };
    let (_, answer, _) = ask("a", "And season 2?").await;
    assert!(said(&answer).starts_with("Season 2, Episode 1"), "{answer}");
    assert_eq!(answer["sessionId"], session);
    // Another tenant with the id gets the conversation, which is why the id must never leave.
    let (_, answer, _) = ask("b", "What was my last question?").await;
    assert!(said(&answer).contains("And season 2?"), "{answer}");
    fixture.ahead.store(24 * 60 * 60 - 60, Ordering::SeqCst);
    assert_eq!(ask("a", "And season 2?").await.0, StatusCode::OK);
    fixture.ahead.store(24 * 60 * 60, Ordering::SeqCst);
    assert_eq!(ask("a", "And season 2?").await.2, "ValidationException");
}

#[tokio::test]
async fn without_output_instructions_nothing_is_cited() {
    let fixture = Fixture::start(config());
    fixture.add("t/a.txt", "test", &episodes(&[2])).await;
    let template = format!("{CONFIGURATION}/generationConfiguration/promptTemplate/textPromptTemplate");
    let (_, answer, _) = fixture
        .ask_with(|body| set(body, &template, json!("$search_results$")))
        .await;
    assert_eq!(said(&answer).lines().count(), 9);
    assert_eq!(answer["citations"], json!([]));
}

#[tokio::test]
async fn a_restart_finds_everything_and_finishes_what_was_begun() {
    let directory = tempfile::tempdir().unwrap();
    let kept = || KnowledgeBaseConfig {
        data: Some(directory.path().to_owned()),
        ..config()
    };
    let bucket = Arc::new(Bucket::default());
    let session = {
        let fixture = Fixture::over(Arc::clone(&bucket), kept());
        fixture.add("t/a.txt", "a", &episodes(&[1])).await;
        let answer = fixture.ask("a", "Which episodes does season 1 have?").await;
        fixture.base.shutdown().await;
        answer["sessionId"].clone()
    };
    {
        let slow = KnowledgeBaseConfig {
            indexing_latency: Duration::from_secs(3_600),
            ..kept()
        };
        let fixture = Fixture::over(Arc::clone(&bucket), slow);
        bucket.tag("t/b.txt", "b");
        bucket.put("t/b.txt", "The code is beta-2.");
        fixture.ingest("t/b.txt", true).await;
        assert_eq!(fixture.detail("t/b.txt").await["status"], "STARTING");
        let body = question("x", json!({"equals": {"key": "tenantId", "value": "a"}}));
        assert_eq!(
            fixture.call(Method::POST, "/retrieveAndGenerate", body).await.0,
            StatusCode::OK
        );
        fixture.base.shutdown().await;
    }
    let fixture = Fixture::over(bucket, kept());
    assert_eq!(fixture.settled("t/b.txt").await.0, "INDEXED");
    assert_eq!(
        said(&fixture.ask("b", "What is the code?").await),
        "The code is beta-2."
    );
    let mut body = question(
        "Which episodes does season 1 have?",
        json!({"equals": {"key": "tenantId", "value": "a"}}),
    );
    body["sessionId"] = session;
    let (status, answer, _) = fixture.call(Method::POST, "/retrieveAndGenerate", body).await;
    assert_eq!((status, said(&answer).lines().count()), (StatusCode::OK, 9));
    assert_eq!(fixture.sync().await["statistics"]["numberOfNewDocumentsIndexed"], 0);
}

#[tokio::test]
async fn operations_are_known_with_and_without_a_slash_and_all_requests_are_remembered() {
    for (method, path, operation) in [
        (
            Method::POST,
            "/retrieveAndGenerate".to_owned(),
            Some("RetrieveAndGenerate"),
        ),
        (
            Method::POST,
            "/retrieveAndGenerate/".to_owned(),
            Some("RetrieveAndGenerate"),
        ),
        (Method::POST, format!("/knowledgebases/{KB}/retrieve"), Some("Retrieve")),
        (Method::PUT, documents(""), Some("IngestKnowledgeBaseDocuments")),
        (
            Method::POST,
            documents("/getDocuments/"),
            Some("GetKnowledgeBaseDocuments"),
        ),
        (
            Method::POST,
            documents("/deleteDocuments"),
            Some("DeleteKnowledgeBaseDocuments"),
        ),
        (Method::PUT, jobs(""), Some("StartIngestionJob")),
        (Method::GET, jobs("ABCDEFGHIJ"), Some("GetIngestionJob")),
        (
            Method::POST,
            "/retrieveAndGenerateStream".to_owned(),
            Some("RetrieveAndGenerateStream"),
        ),
        (Method::POST, "/rerank".to_owned(), None),
        (Method::POST, documents(""), None),
        (Method::GET, format!("/knowledgebases/{KB}"), None),
    ] {
        assert_eq!(KnowledgeBase::operation(&method, &path), operation, "{method} {path}");
    }
    let fixture = Fixture::start(config());
    let (status, body, kind) = fixture.call(Method::POST, "/rerank", json!({})).await;
    assert_eq!((status.as_u16(), kind.as_str()), (501, "NotImplementedException"));
    assert!(body["message"].as_str().unwrap().contains("/rerank"));
    fixture.ask("acme", "What?").await;
    let requests = fixture.base.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!((requests[0].operation, requests[0].status), (None, 501));
    assert_eq!(requests[1].tenant.as_deref(), Some("acme"));
    let search = format!("{CONFIGURATION}/retrievalConfiguration/vectorSearchConfiguration/filter");
    assert_eq!(
        requests[1].body.pointer(&search),
        Some(&json!({"equals": {"key": "tenantId", "value": "acme"}}))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_language_model_may_write_the_answers() {
    let generator = |script: Script| {
        Fixture::start(KnowledgeBaseConfig {
            generator: Some(Arc::new(script)),
            ..config()
        })
    };
    let fixture = generator(Script::new().say("The pier is ").say("made of oak [1]. I like oak."));
    fixture.add("t/1.txt", "a", "The pier is made of oak.").await;
    let answer = fixture.ask("a", "What is the pier made of?").await;
    assert_eq!(answer["output"]["text"], "The pier is made of oak. I like oak.");
    let references = |at: usize| answer["citations"][at]["retrievedReferences"].as_array().unwrap().len();
    assert_eq!((references(0), references(1)), (1, 0));

    let throttled = Failure::Throttled("slow down".to_owned());
    let (status, _, kind) = generator(Script::new().fail(throttled)).ask_with(|_| {}).await;
    assert_eq!(
        (status, kind.as_str()),
        (StatusCode::TOO_MANY_REQUESTS, "ThrottlingException")
    );
    let (status, _, kind) = generator(Script::new().say("The").cut()).ask_with(|_| {}).await;
    assert_eq!(
        (status, kind.as_str()),
        (StatusCode::FAILED_DEPENDENCY, "DependencyFailedException")
    );
}
