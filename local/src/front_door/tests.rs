mod authority;

use super::signature::tests::Signing;
use super::*;
use crate::credential::IssuedCredential;
use crate::dynamodb::TableSpec;
use crate::event_stream;
use crate::fault::{Fault, Matcher, StreamEffect};
use crate::object::ObjectStore as _;
use crate::record::StreamEnd;
use data_encoding::BASE64;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

const BUCKET: &str = "documents";
const TABLE: &str = "bulkhead";

/// How many events a stream has.
const EVENTS: usize = 3;

/// A Bedrock that knows one operation and answers who asked; and one whose answer is a stream, which goes on, and at last
/// ends, each time that it is told to.
struct Echo {
    go_on: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<()>>>,
}

impl RestService for Echo {
    fn operation(&self, method: &Method, path: &str) -> Option<&'static str> {
        match path {
            _ if method != Method::POST => None,
            "/retrieveAndGenerate" => Some("RetrieveAndGenerate"),
            "/retrieveAndGenerateStream" => Some("RetrieveAndGenerateStream"),
            _ => None,
        }
    }

    fn handle(&self, request: Request<Bytes>, caller: Caller) -> BoxFuture<'_, Response<ServiceBody>> {
        let tenant = caller.tenant.unwrap_or_default();
        let go_on = Arc::clone(&self.go_on);
        Box::pin(async move {
            if request.uri().path() == "/retrieveAndGenerate" {
                return Response::new(Bytes::from(tenant).into());
            }
            event_stream::response(futures::stream::unfold(0, move |number| {
                let go_on = Arc::clone(&go_on);
                async move {
                    go_on.lock().await.recv().await;
                    let event = event_stream::event("output", &json!({ "n": number }));
                    (number < EVENTS).then_some((event, number + 1))
                }
            }))
        })
    }
}

struct Fixture {
    door: FrontDoor,
    credential: IssuedCredential,
    /// Makes the stream go on.
    more: mpsc::UnboundedSender<()>,
    go_on: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<()>>>,
}

impl Fixture {
    async fn new() -> Self {
        let (s3, dynamodb) = (S3Store::ephemeral().unwrap(), DynamoDb::ephemeral().unwrap());
        s3.create_bucket(BUCKET).unwrap();
        let table = TableSpec {
            name: TABLE.to_owned(),
            partition_key: "pk".to_owned(),
            sort_key: Some("sk".to_owned()),
            ttl: None,
        };
        dynamodb.create_table(&table).unwrap();
        let (more, go_on) = mpsc::unbounded_channel();
        let go_on = Arc::new(tokio::sync::Mutex::new(go_on));
        let services = Services {
            s3: Arc::new(s3),
            dynamodb: Arc::new(dynamodb),
            bedrock: vec![Arc::new(Echo {
                go_on: Arc::clone(&go_on),
            })],
            ssm: Arc::new(ParameterStore::new("000000000000", "eu-central-1")),
        };
        let door = FrontDoor::start(FrontDoorConfig::default(), services).await.unwrap();
        let credential = door.credentials().issue(Caller {
            principal: "TenantAdminFunction".to_owned(),
            tenant: Some("acme".to_owned()),
            ..Caller::default()
        });
        Self {
            door,
            credential,
            more,
            go_on,
        }
    }

    /// Takes back what no stream has used.
    fn drain(&self) {
        let mut go_on = self.go_on.try_lock().unwrap();
        while go_on.try_recv().is_ok() {}
    }

    fn signing<'a>(&self, credential: &'a IssuedCredential, host: &'a str, service: &'a str) -> Signing<'a> {
        Signing {
            credential,
            host,
            region: "eu-central-1",
            service,
            time: OffsetDateTime::now_utc(),
            expires: None,
        }
    }

    /// Signs and asks, without a network: the path arrives exactly as it is written here.
    async fn ask(
        &self,
        service: &str,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response<Bytes>, Dropped> {
        let mut parts = self
            .signing(&self.credential, "127.0.0.1:1", service)
            .sign(method, target, headers, body);
        parts.headers.insert("content-length", body.len().into());
        let request = Request::from_parts(parts, Bytes::copy_from_slice(body));
        self.handle(request).await
    }

    /// Asks with what is signed already.
    async fn handle(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Dropped> {
        let response = self.door.inner.handle(request).await?;
        Ok(response.map(|body| match body {
            Outgoing::Whole(bytes) => bytes,
            Outgoing::Events(_) => panic!("streams are read over a connection"),
        }))
    }

    async fn s3(&self, method: &str, key: &str, headers: &[(&str, &str)], body: &[u8]) -> Response<Bytes> {
        let target = format!("/{BUCKET}/{key}");
        self.ask("s3", method, &target, headers, body).await.unwrap()
    }

    async fn dynamodb(&self, operation: &str, body: &Value) -> Result<(u16, Value), Dropped> {
        let target = format!("DynamoDB_20120810.{operation}");
        let headers = [
            ("x-amz-target", target.as_str()),
            ("content-type", "application/x-amz-json-1.0"),
        ];
        let response = self
            .ask("dynamodb", "POST", "/", &headers, body.to_string().as_bytes())
            .await?;
        Ok((
            response.status().as_u16(),
            serde_json::from_slice(response.body()).unwrap(),
        ))
    }
}

fn text(response: &Response<Bytes>) -> String {
    String::from_utf8_lossy(response.body()).into_owned()
}

fn header<'a>(response: &'a Response<Bytes>, name: &str) -> &'a str {
    response
        .headers()
        .get(name)
        .map(|value| value.to_str().unwrap())
        .unwrap_or_default()
}

#[track_caller]
fn check_error(response: &Response<Bytes>, status: u16, code: &str) {
    assert_eq!(response.status().as_u16(), status, "{}", text(response));
    assert!(
        text(response).contains(&format!("<Code>{code}</Code>")),
        "{}",
        text(response)
    );
}

#[tokio::test]
async fn an_object_is_put_and_got_with_all_that_belongs_to_it() {
    let fixture = Fixture::new().await;
    let headers = [
        ("content-type", "application/pdf"),
        ("content-disposition", "attachment"),
        ("x-amz-meta-document-id", "01ABC"),
    ];
    let put = fixture
        .s3("PUT", "t/acme/a%20b.pdf?x-id=PutObject", &headers, b"hello")
        .await;
    assert_eq!(put.status(), 200, "{}", text(&put));
    assert_eq!(header(&put, "etag"), "\"5d41402abc4b2a76b9719d911017c592\"");
    assert_eq!(header(&put, "x-amz-checksum-type"), "FULL_OBJECT");

    let got = fixture
        .s3("GET", "t/acme/a%20b.pdf", &[("x-amz-checksum-mode", "ENABLED")], b"")
        .await;
    assert_eq!((got.status().as_u16(), text(&got).as_str()), (200, "hello"));
    for (name, value) in headers {
        assert_eq!(header(&got, name), value);
    }
    assert_eq!(
        header(&got, "x-amz-checksum-crc64nvme"),
        header(&put, "x-amz-checksum-crc64nvme")
    );

    let head = fixture.s3("HEAD", "t/acme/a%20b.pdf", &[], b"").await;
    assert_eq!((head.status().as_u16(), header(&head, "content-length")), (200, "5"));
    assert_eq!(
        header(&head, "x-amz-checksum-crc64nvme"),
        "",
        "only when it is asked for"
    );

    let part = fixture
        .s3("GET", "t/acme/a%20b.pdf", &[("range", "bytes=1-3")], b"")
        .await;
    assert_eq!((part.status().as_u16(), text(&part).as_str()), (206, "ell"));
    assert_eq!(header(&part, "content-range"), "bytes 1-3/5");
    check_error(
        &fixture
            .s3("GET", "t/acme/a%20b.pdf", &[("range", "bytes=9-")], b"")
            .await,
        416,
        "InvalidRange",
    );

    assert_eq!(fixture.s3("DELETE", "t/acme/a%20b.pdf", &[], b"").await.status(), 204);
    check_error(&fixture.s3("GET", "t/acme/a%20b.pdf", &[], b"").await, 404, "NoSuchKey");
    assert_eq!(fixture.s3("DELETE", "t/acme/a%20b.pdf", &[], b"").await.status(), 204);
}

#[tokio::test]
async fn a_key_with_dots_stays_a_key_of_its_own() {
    let fixture = Fixture::new().await;
    fixture.s3("PUT", "t1/../t2/x", &[], b"dots").await;
    check_error(&fixture.s3("GET", "t2/x", &[], b"").await, 404, "NoSuchKey");
    fixture.s3("PUT", "t2/x", &[], b"plain").await;
    assert_eq!(text(&fixture.s3("GET", "t1/../t2/x", &[], b"").await), "dots");
    assert_eq!(text(&fixture.s3("GET", "t2/x", &[], b"").await), "plain");
    let keys: Vec<_> = fixture
        .door
        .s3()
        .list(BUCKET, "")
        .unwrap()
        .into_iter()
        .map(|entry| entry.key)
        .collect();
    assert_eq!(keys, ["t1/../t2/x", "t2/x"]);
}

#[tokio::test]
async fn keys_may_have_1024_bytes() {
    let fixture = Fixture::new().await;
    assert_eq!(fixture.s3("PUT", &"k".repeat(1024), &[], b"").await.status(), 200);
    check_error(
        &fixture.s3("PUT", &"k".repeat(1025), &[], b"").await,
        400,
        "KeyTooLongError",
    );
}

#[tokio::test]
async fn what_does_not_fit_its_checksum_is_not_stored() {
    let fixture = Fixture::new().await;
    let sha256 = BASE64.encode(&Sha256::digest(b"hello"));
    for (name, wrong) in [
        ("x-amz-checksum-sha256", BASE64.encode(&Sha256::digest(b"other"))),
        ("x-amz-checksum-crc32", "AAAAAA==".to_owned()),
        ("x-amz-checksum-crc64nvme", "AAAAAAAAAAA=".to_owned()),
        ("content-md5", BASE64.encode(&[0; 16])),
    ] {
        check_error(
            &fixture.s3("PUT", "k", &[(name, &wrong)], b"hello").await,
            400,
            "BadDigest",
        );
    }
    check_error(
        &fixture
            .s3("PUT", "k", &[("x-amz-checksum-sha256", "AAAA")], b"hello")
            .await,
        400,
        "InvalidRequest",
    );
    check_error(
        &fixture.s3("PUT", "k", &[("content-md5", "AAAA")], b"hello").await,
        400,
        "InvalidDigest",
    );
    check_error(&fixture.s3("GET", "k", &[], b"").await, 404, "NoSuchKey");

    let put = fixture
        .s3("PUT", "k", &[("x-amz-checksum-sha256", &sha256)], b"hello")
        .await;
    assert_eq!(
        (put.status().as_u16(), header(&put, "x-amz-checksum-sha256")),
        (200, sha256.as_str())
    );
}

#[tokio::test]
async fn a_trailing_checksum_is_verified_before_anything_is_stored() {
    let fixture = Fixture::new().await;
    let put = |key: &'static str, crc: &'static str| {
        let body = format!("5\r\nhello\r\n0\r\nx-amz-checksum-crc32:{crc}\r\n\r\n");
        let fixture = &fixture;
        async move {
            let headers = [
                ("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
                ("x-amz-trailer", "x-amz-checksum-crc32"),
                ("x-amz-decoded-content-length", "5"),
                ("content-encoding", "aws-chunked"),
            ];
            fixture.s3("PUT", key, &headers, body.as_bytes()).await
        }
    };
    let good = put("good", "NhCmhg==").await;
    assert_eq!(good.status(), 200, "{}", text(&good));
    let got = fixture
        .s3("GET", "good", &[("x-amz-checksum-mode", "ENABLED")], b"")
        .await;
    assert_eq!(
        (text(&got).as_str(), header(&got, "x-amz-checksum-crc32")),
        ("hello", "NhCmhg==")
    );
    assert_eq!(header(&got, "content-encoding"), "");
    check_error(&put("bad", "AAAAAA==").await, 400, "BadDigest");
    check_error(&fixture.s3("GET", "bad", &[], b"").await, 404, "NoSuchKey");
}

#[tokio::test]
async fn writes_and_reads_can_depend_on_what_is_there() {
    let fixture = Fixture::new().await;
    let absent = [("if-none-match", "*")];
    let first = fixture.s3("PUT", "k", &absent, b"1").await;
    assert_eq!(first.status(), 200);
    check_error(&fixture.s3("PUT", "k", &absent, b"2").await, 412, "PreconditionFailed");
    check_error(
        &fixture.s3("PUT", "none", &[("if-match", "\"0\"")], b"2").await,
        404,
        "NoSuchKey",
    );
    check_error(
        &fixture.s3("PUT", "k", &[("if-match", "\"0\"")], b"2").await,
        412,
        "PreconditionFailed",
    );
    let etag = header(&first, "etag");
    assert_eq!(fixture.s3("GET", "k", &[("if-match", etag)], b"").await.status(), 200);
    check_error(
        &fixture.s3("GET", "k", &[("if-match", "\"0\"")], b"").await,
        412,
        "PreconditionFailed",
    );
    let unchanged = fixture.s3("GET", "k", &[("if-none-match", etag)], b"").await;
    assert_eq!((unchanged.status().as_u16(), text(&unchanged).as_str()), (304, ""));
    assert_eq!(header(&unchanged, "etag"), etag);
    assert_eq!(fixture.s3("PUT", "k", &[("if-match", etag)], b"2").await.status(), 200);
    assert_eq!(text(&fixture.s3("GET", "k", &[], b"").await), "2");
}

#[tokio::test]
async fn a_copy_keeps_or_replaces_what_belongs_to_the_object() {
    let fixture = Fixture::new().await;
    let sha256 = BASE64.encode(&Sha256::digest(b"hello"));
    let put = [
        ("content-type", "application/pdf"),
        ("x-amz-meta-a", "1"),
        ("x-amz-checksum-sha256", sha256.as_str()),
    ];
    fixture.s3("PUT", "u/acme/1%2B2", &put, b"hello").await;
    let source = ("x-amz-copy-source", "documents/u/acme/1%2B2");

    let copied = fixture.s3("PUT", "t/acme/1.pdf", &[source], b"").await;
    assert_eq!(copied.status(), 200, "{}", text(&copied));
    assert!(
        text(&copied).contains(&sha256),
        "the checksum is carried: {}",
        text(&copied)
    );
    let checksum = ("x-amz-checksum-mode", "ENABLED");
    let head = fixture.s3("HEAD", "t/acme/1.pdf", &[checksum], b"").await;
    assert_eq!(header(&head, "x-amz-checksum-sha256"), sha256);
    assert_eq!(
        (header(&head, "content-type"), header(&head, "x-amz-meta-a")),
        ("application/pdf", "1")
    );

    let replace = [source, ("x-amz-metadata-directive", "REPLACE"), ("x-amz-meta-b", "2")];
    fixture.s3("PUT", "t/acme/2.pdf", &replace, b"").await;
    let head = fixture.s3("HEAD", "t/acme/2.pdf", &[], b"").await;
    assert_eq!(
        (header(&head, "content-type"), header(&head, "x-amz-meta-a")),
        ("binary/octet-stream", "")
    );
    assert_eq!(header(&head, "x-amz-meta-b"), "2");

    let stale = [source, ("x-amz-copy-source-if-match", "\"0\"")];
    check_error(
        &fixture.s3("PUT", "t/acme/3.pdf", &stale, b"").await,
        412,
        "PreconditionFailed",
    );
    let absent = [source, ("if-none-match", "*")];
    check_error(
        &fixture.s3("PUT", "t/acme/2.pdf", &absent, b"").await,
        412,
        "PreconditionFailed",
    );
    let missing = [("x-amz-copy-source", "documents/nothing")];
    check_error(
        &fixture.s3("PUT", "t/acme/3.pdf", &missing, b"").await,
        404,
        "NoSuchKey",
    );
    check_error(
        &fixture.s3("PUT", "u/acme/1%2B2", &[source], b"").await,
        400,
        "InvalidRequest",
    );
}

#[tokio::test]
async fn a_bucket_is_listed_and_emptied() {
    let fixture = Fixture::new().await;
    for key in ["t/acme/1", "t/acme-2/1", "t/acme/2", "u/acme/1"] {
        fixture.s3("PUT", key, &[], b"x").await;
    }
    let listed = text(
        &fixture
            .s3("GET", "?list-type=2&prefix=t%2Facme%2F&max-keys=1", &[], b"")
            .await,
    );
    assert!(
        listed.contains("<Key>t/acme/1</Key>") && !listed.contains("<Key>t/acme/2</Key>"),
        "{listed}"
    );
    let token = listed
        .split("<NextContinuationToken>")
        .nth(1)
        .unwrap()
        .split('<')
        .next()
        .unwrap();
    let next = format!("?list-type=2&prefix=t%2Facme%2F&max-keys=1&continuation-token={token}");
    let listed = text(&fixture.s3("GET", &next, &[], b"").await);
    assert!(
        listed.contains("<Key>t/acme/2</Key>") && listed.contains("<IsTruncated>false"),
        "{listed}"
    );
    let folders = text(
        &fixture
            .s3("GET", "?list-type=2&prefix=t%2F&delimiter=%2F", &[], b"")
            .await,
    );
    assert!(folders.contains("<Prefix>t/acme/</Prefix>") && folders.contains("<Prefix>t/acme-2/</Prefix>"));

    let delete = b"<Delete><Object><Key>t/acme/1</Key></Object><Object><Key>none</Key></Object></Delete>";
    check_error(&fixture.s3("POST", "?delete", &[], delete).await, 400, "InvalidRequest");
    let md5 = BASE64.encode(&<s3s::crypto::Md5 as s3s::crypto::Checksum>::checksum(delete));
    let deleted = fixture.s3("POST", "?delete", &[("content-md5", &md5)], delete).await;
    assert_eq!(deleted.status(), 200, "{}", text(&deleted));
    assert!(
        text(&deleted).contains("<Deleted><Key>none</Key></Deleted>"),
        "{}",
        text(&deleted)
    );
    check_error(&fixture.s3("GET", "t/acme/1", &[], b"").await, 404, "NoSuchKey");
    assert_eq!(fixture.s3("GET", "t/acme-2/1", &[], b"").await.status(), 200);
}

#[tokio::test]
async fn what_is_not_emulated_is_501_and_named() {
    let fixture = Fixture::new().await;
    for (method, key, headers, named) in [
        ("PUT", "k?tagging", &[][..], "PutObjectTagging"),
        ("POST", "k?uploads", &[], "CreateMultipartUpload"),
        ("PUT", "", &[], "CreateBucket"),
        ("GET", "k?versionId=1", &[], "versionId"),
        ("PUT", "k", &[("x-amz-acl", "public-read")], "x-amz-acl"),
        ("PUT", "k", &[("if-none-match", "\"1\"")], "not implemented"),
    ] {
        let response = fixture.s3(method, key, headers, b"").await;
        check_error(&response, 501, "NotImplemented");
        assert!(text(&response).contains(named), "{}", text(&response));
    }
    let (status, scan) = fixture.dynamodb("Scan", &json!({ "TableName": TABLE })).await.unwrap();
    assert_eq!(
        (status, scan["message"].as_str().unwrap()),
        (501, "Scan is not emulated")
    );
    let unknown = fixture.ask("bedrock", "POST", "/agents", &[], b"{}").await.unwrap();
    assert_eq!(unknown.status(), 501);
    assert!(text(&unknown).contains("POST /agents"));
}

#[tokio::test]
async fn an_account_that_does_not_own_the_bucket_is_told_so() {
    let fixture = Fixture::new().await;
    let (ours, other) = ("000000000000", "111111111111");
    let owner = |account| [("x-amz-expected-bucket-owner", account)];
    assert_eq!(fixture.s3("PUT", "k", &owner(ours), b"").await.status(), 200);
    check_error(&fixture.s3("GET", "k", &owner(other), b"").await, 403, "AccessDenied");
}

#[tokio::test]
async fn a_presigned_url_overrides_the_headers_of_the_answer() {
    let fixture = Fixture::new().await;
    fixture.s3("PUT", "k", &[("content-type", "text/html")], b"<p>").await;
    let host = fixture.door.address.to_string();
    let mut signing = fixture.signing(&fixture.credential, &host, "s3");
    signing.expires = Some(300);
    let disposition = "attachment%3B%20filename%3D%22a%20b.pdf%22";
    let target = format!("/{BUCKET}/k?response-content-disposition={disposition}&response-content-type=text%2Fplain");
    let url = signing.sign("GET", &target, &[], b"").uri.to_string();
    let response = reqwest::get(&url).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/plain");
    assert_eq!(
        response.headers()["content-disposition"],
        "attachment; filename=\"a b.pdf\""
    );
    assert_eq!(response.text().await.unwrap(), "<p>");
    let other = reqwest::get(url.replace("/k?", "/other?")).await.unwrap();
    assert_eq!(other.status(), 403);
    assert!(other.text().await.unwrap().contains("SignatureDoesNotMatch"));
}

#[tokio::test]
async fn strangers_are_refused_in_the_words_of_the_service() {
    let fixture = Fixture::new().await;
    let unsigned = |target: Option<&str>, path: &str| {
        let mut request = Request::post(format!("http://127.0.0.1:1{path}")).header("host", "127.0.0.1:1");
        if let Some(target) = target {
            request = request.header("x-amz-target", target);
        }
        fixture.handle(request.body(Bytes::new()).unwrap())
    };
    check_error(&unsigned(None, "/documents/k").await.unwrap(), 403, "AccessDenied");
    let dynamodb = unsigned(Some("DynamoDB_20120810.GetItem"), "/").await.unwrap();
    assert_eq!(dynamodb.status(), 400);
    assert!(text(&dynamodb).contains("#MissingAuthenticationTokenException"));
    let bedrock = unsigned(None, "/retrieveAndGenerate").await.unwrap();
    assert_eq!(bedrock.status(), 403);
    assert_eq!(
        header(&bedrock, "x-amzn-errortype"),
        "MissingAuthenticationTokenException"
    );

    let mut wrong = fixture.credential.clone();
    wrong.secret_access_key.push('x');
    let mut unknown = fixture.credential.clone();
    unknown.access_key_id = "ASIAAAAAAAAAAAAAAAAA".to_owned();
    let ask = |credential: IssuedCredential, service: &'static str, path: &'static str| {
        let headers: &[_] = if service == "dynamodb" {
            &[("x-amz-target", "DynamoDB_20120810.GetItem")]
        } else {
            &[]
        };
        let parts = fixture
            .signing(&credential, "127.0.0.1:1", service)
            .sign("POST", path, headers, b"{}");
        fixture.handle(Request::from_parts(parts, Bytes::from_static(b"{}")))
    };
    check_error(
        &ask(wrong.clone(), "s3", "/documents/k").await.unwrap(),
        403,
        "SignatureDoesNotMatch",
    );
    check_error(
        &ask(unknown.clone(), "s3", "/documents/k").await.unwrap(),
        403,
        "InvalidAccessKeyId",
    );
    let answer = ask(wrong.clone(), "dynamodb", "/").await.unwrap();
    assert!(answer.status() == 400 && text(&answer).contains("#InvalidSignatureException"));
    let answer = ask(unknown, "dynamodb", "/").await.unwrap();
    assert!(answer.status() == 400 && text(&answer).contains("#UnrecognizedClientException"));
    let answer = ask(wrong, "bedrock", "/retrieveAndGenerate").await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), header(&answer, "x-amzn-errortype")),
        (403, "InvalidSignatureException")
    );

    let calls = fixture.door.recorder().calls();
    assert!(calls.iter().all(|call| call.caller.is_none()), "{calls:?}");
}

#[tokio::test]
async fn a_service_that_is_not_there_is_refused() {
    let fixture = Fixture::new().await;
    let answer = fixture
        .ask("sqs", "POST", "/", &[], b"Action=SendMessage")
        .await
        .unwrap();
    check_error(&answer, 400, "AuthorizationHeaderMalformed");
}

#[tokio::test]
async fn bedrock_is_handed_to_its_module_with_the_caller() {
    let fixture = Fixture::new().await;
    let answer = fixture
        .ask("bedrock", "POST", "/retrieveAndGenerate", &[], b"{\"input\":1}")
        .await
        .unwrap();
    assert_eq!((answer.status().as_u16(), text(&answer).as_str()), (200, "acme"));
    let calls = fixture.door.recorder().calls();
    assert_eq!(calls[0].operation, "RetrieveAndGenerate");
    assert_eq!(calls[0].request, json!({ "input": 1 }));
}

#[tokio::test]
async fn every_call_is_recorded_with_its_caller_and_its_keys() {
    let fixture = Fixture::new().await;
    fixture.s3("PUT", "t/acme/1", &[], b"x").await;
    let item = json!({ "pk": { "S": "TENANT#acme" }, "sk": { "S": "DOC#1" } });
    fixture
        .dynamodb("PutItem", &json!({ "TableName": TABLE, "Item": item }))
        .await
        .unwrap();
    let calls = fixture.door.recorder().calls_of("acme");
    let seen: Vec<_> = calls
        .iter()
        .map(|call| {
            (
                call.service,
                call.operation.as_str(),
                call.resource.names(),
                call.status,
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            (Service::S3, "PutObject", vec!["t/acme/1"], Some(200)),
            (Service::DynamoDb, "PutItem", vec!["TENANT#acme"], Some(200)),
        ]
    );
    assert_eq!(fixture.door.recorder().calls_of("acme-2").len(), 0);
    let printed = format!("{calls:?}");
    assert!(!printed.contains(&fixture.credential.session_token));
}

#[tokio::test]
async fn faults_answer_instead_of_the_service() {
    let fixture = Fixture::new().await;
    let inject = |operation: &str, effect| {
        fixture.door.faults().inject(Fault {
            matcher: Matcher {
                operation: Some(operation.to_owned()),
                tenant: Some("acme".to_owned()),
                ..Matcher::default()
            },
            effect,
            skip: 0,
            times: Some(1),
        })
    };
    inject("PutObject", Effect::Throttle);
    check_error(&fixture.s3("PUT", "k", &[], b"x").await, 503, "SlowDown");
    check_error(&fixture.s3("GET", "k", &[], b"").await, 404, "NoSuchKey");
    assert_eq!(fixture.s3("PUT", "k", &[], b"x").await.status(), 200);

    let get = json!({ "TableName": TABLE, "Key": { "pk": { "S": "a" }, "sk": { "S": "b" } } });
    let status = Effect::Status {
        status: 500,
        code: "InternalServerError".to_owned(),
        message: "no".to_owned(),
    };
    inject("GetItem", status);
    assert_eq!(fixture.dynamodb("GetItem", &get).await.unwrap().0, 500);
    inject("GetItem", Effect::Drop);
    assert!(fixture.dynamodb("GetItem", &get).await.is_err());
    assert_eq!(fixture.dynamodb("GetItem", &get).await.unwrap().0, 200);
    inject("TransactWriteItems", Effect::TransactionConflict);
    let (status, cancelled) = fixture
        .dynamodb("TransactWriteItems", &json!({ "TransactItems": [{}] }))
        .await
        .unwrap();
    assert_eq!(
        (status, &cancelled["CancellationReasons"][0]["Code"]),
        (400, &json!("TransactionConflict"))
    );

    let statuses: Vec<_> = fixture
        .door
        .recorder()
        .calls()
        .iter()
        .map(|call| (call.faulted, call.carried_out, call.status))
        .collect();
    assert_eq!(statuses[0], (true, false, Some(503)));
    assert_eq!(statuses[1], (false, true, Some(404)));
    assert!(
        statuses.contains(&(true, false, None)),
        "a cut connection has no status"
    );
}

#[tokio::test]
async fn a_dropped_answer_leaves_the_work_done() {
    let fixture = Fixture::new().await;
    fixture.door.faults().inject(Fault {
        matcher: Matcher::default(),
        effect: Effect::DropAnswer,
        skip: 0,
        times: Some(1),
    });
    let host = fixture.door.address.to_string();
    let parts = fixture
        .signing(&fixture.credential, &host, "s3")
        .sign("PUT", "/documents/k", &[], b"x");
    let request = reqwest::Client::new()
        .put(parts.uri.to_string())
        .headers(parts.headers)
        .body("x");
    assert!(request.send().await.is_err(), "the connection is cut");
    assert!(fixture.door.s3().get(BUCKET, "k").unwrap().is_some());
    let call = fixture.door.recorder().calls().remove(0);
    assert_eq!((call.faulted, call.carried_out, call.status), (true, true, None));
}

#[tokio::test]
async fn a_revoked_credential_is_unknown() {
    let fixture = Fixture::new().await;
    assert_eq!(fixture.s3("PUT", "k", &[], b"x").await.status(), 200);
    fixture.door.credentials().revoke(&fixture.credential.access_key_id);
    check_error(&fixture.s3("GET", "k", &[], b"").await, 403, "InvalidAccessKeyId");
}

#[tokio::test]
async fn nobody_answers_after_the_door_was_closed() {
    let fixture = Fixture::new().await;
    let endpoint = fixture.door.endpoint();
    assert_eq!(
        reqwest::get(format!("{endpoint}/documents/k")).await.unwrap().status(),
        403
    );
    fixture.door.shutdown().await;
    assert!(reqwest::get(format!("{endpoint}/documents/k")).await.is_err());
}

/// Asks for the stream of [`Echo`], over a connection.
async fn stream(fixture: &Fixture) -> reqwest::Response {
    let host = fixture.door.address.to_string();
    let parts =
        fixture
            .signing(&fixture.credential, &host, "bedrock")
            .sign("POST", "/retrieveAndGenerateStream", &[], b"");
    let request = reqwest::Client::new()
        .post(parts.uri.to_string())
        .headers(parts.headers);
    request.send().await.unwrap()
}

fn stream_fault(after: usize, effect: StreamEffect) -> Fault {
    Fault {
        matcher: Matcher {
            tenant: Some("acme".to_owned()),
            ..Matcher::default()
        },
        effect: Effect::Stream(StreamFault { after, effect }),
        skip: 0,
        times: Some(1),
    }
}

/// What is noted of the newest stream, once it has ended.
async fn ended(fixture: &Fixture) -> (usize, StreamEnd) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        let call = fixture.door.recorder().calls().pop().unwrap();
        let stream = call.stream.unwrap();
        if let Some((_, end)) = stream.ended {
            assert_eq!(stream.first.is_some(), stream.events > 0);
            return (stream.events, end);
        }
        assert!(tokio::time::Instant::now() < deadline, "the stream has not ended");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_streams_events_arrive_one_by_one() {
    let fixture = Fixture::new().await;
    let mut response = stream(&fixture).await;
    assert_eq!(response.headers()["content-type"], event_stream::MEDIA_TYPE);
    for number in 0..EVENTS {
        // The next one is made only after this one was read.
        fixture.more.send(()).unwrap();
        let chunk = response.chunk().await.unwrap().unwrap();
        assert_eq!(chunk, event_stream::event("output", &json!({ "n": number })));
    }
    fixture.more.send(()).unwrap();
    assert_eq!(response.chunk().await.unwrap(), None);
    assert_eq!(ended(&fixture).await, (EVENTS, StreamEnd::Complete));
}

#[tokio::test]
async fn a_stream_is_cut_after_every_event() {
    let fixture = Fixture::new().await;
    for after in 0..=EVENTS {
        fixture.door.faults().inject(stream_fault(after, StreamEffect::Cut));
        for _ in 0..=EVENTS {
            fixture.more.send(()).unwrap();
        }
        let mut response = stream(&fixture).await;
        let mut seen = Vec::new();
        let end = loop {
            match response.chunk().await {
                Ok(Some(chunk)) => seen.extend_from_slice(&chunk),
                Ok(None) => break "complete",
                Err(_) => break "cut",
            }
        };
        let whole: Vec<Bytes> = (0..after)
            .map(|number| event_stream::event("output", &json!({ "n": number })))
            .collect();
        assert_eq!((seen, end), (whole.concat(), "cut"), "after {after}");
        assert_eq!(ended(&fixture).await, (after, StreamEnd::Faulted));
        assert!(fixture.door.recorder().calls().pop().unwrap().faulted);
        fixture.drain();
    }
}

#[tokio::test]
async fn a_stream_ends_with_an_exception() {
    let fixture = Fixture::new().await;
    let effect = StreamEffect::Exception {
        kind: "throttlingException".to_owned(),
        message: "Slow down.".to_owned(),
    };
    fixture.door.faults().inject(stream_fault(1, effect));
    fixture.more.send(()).unwrap();
    let body = stream(&fixture).await.bytes().await.unwrap();
    let expected = [
        event_stream::event("output", &json!({ "n": 0 })),
        event_stream::exception("throttlingException", "Slow down."),
    ];
    assert_eq!(body, expected.concat());
    assert_eq!(ended(&fixture).await, (2, StreamEnd::Faulted));
}

#[tokio::test]
async fn a_stalled_stream_ends_when_its_client_leaves() {
    let fixture = Fixture::new().await;
    fixture.door.faults().inject(stream_fault(1, StreamEffect::Stall));
    for _ in 0..EVENTS {
        fixture.more.send(()).unwrap();
    }
    let mut response = stream(&fixture).await;
    assert!(response.chunk().await.unwrap().is_some());
    assert!(futures::poll!(std::pin::pin!(response.chunk())).is_pending());
    drop(response);
    assert_eq!(ended(&fixture).await, (1, StreamEnd::Abandoned));
}

#[tokio::test]
async fn a_client_that_leaves_is_noted_before_the_next_event() {
    let fixture = Fixture::new().await;
    fixture.more.send(()).unwrap();
    let mut response = stream(&fixture).await;
    assert!(response.chunk().await.unwrap().is_some());
    drop(response);
    assert_eq!(ended(&fixture).await, (1, StreamEnd::Abandoned));
}

#[tokio::test]
async fn a_fault_on_streams_leaves_other_answers_alone() {
    let fixture = Fixture::new().await;
    fixture.door.faults().inject(stream_fault(0, StreamEffect::Cut));
    let answer = fixture
        .ask("bedrock", "POST", "/retrieveAndGenerate", &[], b"")
        .await
        .unwrap();
    assert_eq!(text(&answer), "acme");
}
