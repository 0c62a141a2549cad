//! Documents: what is accepted, what is refused, and how long they are there. What crashes leave is in `crash`.

use bulkhead_cli::deployment::{Answer, Call};
use bulkhead_local::stack::{random_name, wait_until};
use data_encoding::HEXLOWER;
use integration_tests::fixture::{Fixture, Tenant, patience};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub(crate) fn declaration(name: &str, content: &[u8]) -> Value {
    json!({
        "name": name,
        "media_type": "text/plain",
        "size": content.len(),
        "sha256": HEXLOWER.encode(&Sha256::digest(content)),
    })
}

pub(crate) async fn declare(tenant: &Tenant, body: &Value) -> Answer {
    tenant
        .fixture()
        .send(&Call::new(Method::POST, "/documents").token(tenant.admin()).json(body))
        .await
}

pub(crate) async fn put(tenant: &Tenant, id: &str, media_type: &str, content: &[u8]) -> Answer {
    let mut call = Call::new(Method::PUT, format!("/documents/{id}/content")).token(tenant.admin());
    call.body = Some((media_type.to_owned(), content.to_vec()));
    tenant.fixture().send(&call).await
}

pub(crate) async fn complete(tenant: &Tenant, id: &str) -> Answer {
    tenant
        .fixture()
        .send(&Call::new(Method::POST, format!("/documents/{id}/complete")).token(tenant.admin()))
        .await
}

async fn list(tenant: &Tenant, query: &str) -> Answer {
    tenant
        .fixture()
        .send(&Call::new(Method::GET, format!("/documents{query}")).token(tenant.admin()))
        .await
}

pub(crate) fn id_of(document: &Value) -> String {
    document["document_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_document_goes_from_declared_to_indexed_to_gone() {
    let tenant = Fixture::shared().tenant("life").await;
    let content = b"The bell of the chapel weighs nine tonnes.";
    let declared = declare(&tenant, &declaration("bell.txt", content)).await;
    assert_eq!(declared.status.as_u16(), 201, "{}", declared.text());
    let declared = declared.json();
    let id = id_of(&declared);
    assert_eq!(
        (declared["status"].as_str(), declared["audience"].as_str()),
        (Some("awaiting_upload"), Some("*"))
    );
    assert_eq!(
        complete(&tenant, &id).await.status.as_u16(),
        409,
        "nothing was uploaded yet"
    );
    assert_eq!(put(&tenant, &id, "text/plain", content).await.status.as_u16(), 204);
    assert_eq!(
        put(&tenant, &id, "text/plain", content).await.status.as_u16(),
        204,
        "a repeated upload"
    );
    let completed = complete(&tenant, &id).await;
    assert_eq!(completed.status.as_u16(), 202, "{}", completed.text());
    assert_eq!(completed.json()["status"], "processing");
    assert_eq!(tenant.settled(&id).await["status"], "indexed");
    assert_eq!(
        complete(&tenant, &id).await.status.as_u16(),
        202,
        "a repeated completion"
    );
    assert_eq!(
        put(&tenant, &id, "text/plain", content).await.status.as_u16(),
        409,
        "content is final"
    );

    let question = "How much does the bell of the chapel weigh?";
    let answer = tenant.ask(question).await.json();
    assert!(
        answer["output"]["text"].as_str().unwrap().contains("nine tonnes"),
        "{answer}"
    );
    assert_eq!(
        answer["citations"][0]["retrievedReferences"][0]["metadata"]["document_id"],
        id.as_str()
    );

    let link = tenant
        .fixture()
        .expect(
            302,
            &Call::new(Method::GET, format!("/documents/{id}/content")).token(tenant.reader()),
        )
        .await;
    let location = link.headers["location"].to_str().unwrap();
    let fetched = reqwest::Client::builder()
        .no_proxy()
        .build()
        .unwrap()
        .get(location)
        .send()
        .await
        .unwrap();
    assert_eq!(fetched.status(), 200);
    assert!(
        fetched.headers()["content-disposition"]
            .to_str()
            .unwrap()
            .starts_with("attachment")
    );
    assert_eq!(fetched.bytes().await.unwrap().as_ref(), content);

    let path = format!("/documents/{id}");
    let deleted = tenant
        .fixture()
        .expect(202, &Call::new(Method::DELETE, &path).token(tenant.admin()))
        .await;
    assert_eq!(deleted.json()["status"], "deleting");
    // From this moment no answer holds it, whatever the index still does.
    assert!(!tenant.ask(question).await.text().contains("nine tonnes"));
    wait_until("a deleted document is gone", patience(), || async {
        let answer = tenant
            .fixture()
            .send(&Call::new(Method::GET, &path).token(tenant.admin()))
            .await;
        Ok((answer.status.as_u16() == 404).then_some(()))
    })
    .await
    .unwrap();
    let bucket = &tenant.fixture().stack.template().buckets[0].name;
    let left = bulkhead_local::object::ObjectStore::list(
        tenant.fixture().stack.front_door().s3().as_ref(),
        bucket,
        &format!("t/{}/", tenant.id),
    );
    assert!(left.unwrap().is_empty(), "object and sidecar are gone");
}

#[tokio::test]
async fn what_is_not_what_was_declared_is_refused() {
    let tenant = Fixture::shared().tenant("strict").await;
    let content = b"Honest content.";
    let id = id_of(&declare(&tenant, &declaration("honest.txt", content)).await.json());
    assert_eq!(put(&tenant, &id, "text/html", content).await.status.as_u16(), 415);
    assert_eq!(
        put(&tenant, &id, "text/plain", b"Another content")
            .await
            .status
            .as_u16(),
        422
    );
    assert_eq!(put(&tenant, &id, "text/plain", b"Short").await.status.as_u16(), 422);
    assert_eq!(put(&tenant, &id, "text/plain", content).await.status.as_u16(), 204);

    // A Windows program that says it is a PDF.
    let program = b"MZ\x90\x00\x03\x00\x00\x00\x04\x00\x00\x00\xff\xff\x00\x00";
    let mut body = declaration("invoice.pdf", program);
    body["media_type"] = json!("application/pdf");
    let id = id_of(&declare(&tenant, &body).await.json());
    assert_eq!(put(&tenant, &id, "application/pdf", program).await.status.as_u16(), 204);
    let refused = complete(&tenant, &id).await;
    assert_eq!(refused.status.as_u16(), 422, "{}", refused.text());
}

#[tokio::test]
async fn names_that_could_become_sidecars_or_headers_are_refused() {
    let tenant = Fixture::shared().tenant("names").await;
    for name in [
        "",
        " ",
        "x.pdf.metadata.json",
        "x.pdf.METADATA.JSON",
        "x.metadata.json ",
        "x.metadata\u{ff0e}json",
        "a\nb.txt",
        "a\0.txt",
        "a\u{7f}.txt",
        "a\u{85}.txt",
        &"n".repeat(256),
    ] {
        let answer = declare(&tenant, &declaration(name, b"x")).await;
        assert!(
            [400, 422].contains(&answer.status.as_u16()),
            "{name:?}: {}",
            answer.text()
        );
    }
    for (name, kept) in [
        ("Überblick.txt", "Überblick.txt"),
        ("U\u{308}berblick.txt", "Überblick.txt"),
        ("../x.txt", "../x.txt"),
    ] {
        let answer = declare(&tenant, &declaration(name, b"x")).await;
        // A path in a name is refused or kept as a name; in a key it never is.
        if answer.status.as_u16() == 201 {
            assert_eq!(answer.json()["name"], kept);
        } else {
            assert_eq!(answer.status.as_u16(), 422, "{name}: {}", answer.text());
        }
    }
    for (member, value) in [
        ("media_type", json!("application/x-msdownload")),
        ("size", json!(0)),
        ("size", json!(-1)),
        ("size", json!(50_000_001)),
        ("sha256", json!("ABC")),
        ("audience", json!("board")),
        ("document_id", json!("mine")),
        ("key", json!("t/other/x")),
    ] {
        let mut body = declaration("x.txt", b"x");
        body[member] = value;
        let answer = declare(&tenant, &body).await;
        assert!(
            [400, 415, 422].contains(&answer.status.as_u16()),
            "{body}: {}",
            answer.text()
        );
    }
}

#[tokio::test]
async fn an_idempotency_key_makes_one_document_however_often_it_is_sent() {
    let fixture = Fixture::shared();
    let (tenant, other) = (fixture.tenant("idem").await, fixture.tenant("idem").await);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let send = |token: String, body: Value| {
        client
            .post(format!("{}/documents", fixture.stack.base_url()))
            .bearer_auth(token)
            .header("Idempotency-Key", "one")
            .json(&body)
            .send()
    };
    let body = declaration("once.txt", b"once");
    let answers = futures::future::join_all((0..20).map(|_| send(tenant.admin(), body.clone()))).await;
    let mut bodies: Vec<Value> = Vec::new();
    for answer in answers {
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 201);
        bodies.push(answer.json().await.unwrap());
    }
    assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]), "{bodies:?}");
    assert_eq!(list(&tenant, "").await.json()["documents"].as_array().unwrap().len(), 1);
    assert_eq!(
        send(tenant.admin(), declaration("twice.txt", b"twice"))
            .await
            .unwrap()
            .status(),
        422
    );
    let elsewhere: Value = send(other.admin(), body).await.unwrap().json().await.unwrap();
    assert_ne!(elsewhere["document_id"], bodies[0]["document_id"]);
}

#[tokio::test]
async fn a_list_goes_on_where_it_stopped_and_only_for_its_tenant() {
    let fixture = Fixture::shared();
    let (tenant, other) = (fixture.tenant("list").await, fixture.tenant("list").await);
    let mut made = Vec::new();
    for number in 0..5 {
        made.push(id_of(
            &declare(&tenant, &declaration(&format!("{number}.txt"), b"x"))
                .await
                .json(),
        ));
    }
    declare(&other, &declaration("other.txt", b"x")).await;
    let (mut seen, mut query) = (Vec::new(), "?limit=2".to_owned());
    loop {
        let page = list(&tenant, &query).await.json();
        let documents = page["documents"].as_array().unwrap();
        assert!(documents.len() <= 2);
        seen.extend(documents.iter().map(id_of));
        let Some(cursor) = page["next_cursor"].as_str() else {
            break;
        };
        query = format!("?limit=2&cursor={cursor}");
        assert_eq!(
            list(&other, &query).await.status.as_u16(),
            400,
            "another tenant's cursor"
        );
    }
    made.reverse();
    assert_eq!(seen, made, "newest first, each once");
    assert_eq!(list(&tenant, "?status=indexed").await.json()["documents"], json!([]));
    assert_eq!(
        list(&tenant, "?status=awaiting_upload").await.json()["documents"]
            .as_array()
            .unwrap()
            .len(),
        5
    );
    for query in [
        "?limit=0",
        "?limit=101",
        "?limit=x",
        "?cursor=nonsense",
        "?status=lost",
        "?limit=1&limit=2",
    ] {
        assert_eq!(list(&tenant, query).await.status.as_u16(), 400, "{query}");
    }
}

#[tokio::test]
async fn an_audience_is_for_its_group_only() {
    let fixture = Fixture::shared();
    let tenant = fixture.named_tenant(&random_name("groups"), &["board", "staff"]).await;
    let content = b"The merger is planned for the spring.";
    let mut body = declaration("merger.txt", content);
    body["audience"] = json!("board");
    let id = id_of(&declare(&tenant, &body).await.json());
    put(&tenant, &id, "text/plain", content).await;
    complete(&tenant, &id).await;
    assert_eq!(tenant.settled(&id).await["status"], "indexed");
    let path = format!("/documents/{id}/content");
    let question = json!({"user_query": "When is the merger planned?"});
    for (groups, may) in [
        (&["board"][..], true),
        (&["staff"], false),
        (&[], false),
        (&["board", "staff"], true),
        (&["*"], false),
    ] {
        let token = tenant.group_token("gina", groups);
        let answer = tenant.ask_as(&token, question.clone()).await;
        assert_eq!(
            answer.text().contains("the spring"),
            may,
            "{groups:?}: {}",
            answer.text()
        );
        let content = tenant
            .fixture()
            .send(&Call::new(Method::GET, &path).token(&token))
            .await;
        assert_eq!(content.status.as_u16(), if may { 302 } else { 404 }, "{groups:?}");
    }
}

#[tokio::test]
async fn attributes_are_what_the_profile_declares_and_stand_in_the_sidecar() {
    let fixture = Fixture::shared();
    let declared = json!([
        {"name": "season", "kind": "number"},
        {"name": "studio", "kind": "string"},
        {"name": "draft", "kind": "boolean"},
        {"name": "note", "kind": "string"},
        {"name": "remark", "kind": "string"},
        {"name": "source", "kind": "string"},
    ]);
    let tenant = fixture.tenant_with("attributes", json!({"attributes": declared})).await;
    let content = b"The second season was shot in winter.";
    let with = |attributes: Value| {
        let mut body = declaration("season.txt", content);
        body["attributes"] = attributes;
        body
    };
    let attributes = json!({"season": 2, "studio": "Größe", "draft": false});
    let document = declare(&tenant, &with(attributes.clone())).await;
    assert_eq!(document.status.as_u16(), 201, "{}", document.text());
    let id = id_of(&document.json());
    assert_eq!(document.json()["attributes"], attributes);
    put(&tenant, &id, "text/plain", content).await;
    complete(&tenant, &id).await;
    let settled = tenant.settled(&id).await;
    assert_eq!(
        (&settled["status"], &settled["attributes"]),
        (&json!("indexed"), &attributes)
    );
    let bucket = &fixture.stack.template().buckets[0].name;
    let store = fixture.stack.front_door().s3();
    let sidecar = bulkhead_local::object::ObjectStore::get(
        store.as_ref(),
        bucket,
        &format!("t/{}/{id}.txt.metadata.json", tenant.id),
    );
    let sidecar: Value = serde_json::from_slice(&sidecar.unwrap().unwrap().bytes).unwrap();
    let scalar = |value: Value| json!({"value": value, "includeForEmbedding": false});
    for (name, value) in [
        ("season", json!({"type": "NUMBER", "numberValue": 2})),
        ("studio", json!({"type": "STRING", "stringValue": "Größe"})),
        ("draft", json!({"type": "BOOLEAN", "booleanValue": false})),
        ("tenantId", json!({"type": "STRING", "stringValue": tenant.id})),
        ("audience", json!({"type": "STRING", "stringValue": "*"})),
    ] {
        assert_eq!(sidecar["metadataAttributes"][name], scalar(value), "{name}");
    }

    let long = "x".repeat(100);
    for (attributes, status) in [
        (json!({"year": 2}), 422),
        (json!({"tenantId": "other"}), 422),
        (json!({"season": "2"}), 422),
        (json!({"season": null}), 400),
        (json!({"season": [2]}), 400),
        (json!({"studio": "x".repeat(101)}), 400),
        (json!({"studio": long, "note": long, "remark": long}), 201),
        (
            json!({"studio": long, "note": long, "remark": long, "source": long}),
            422,
        ),
        (json!({}), 201),
        (json!(null), 201),
    ] {
        let answer = declare(&tenant, &with(attributes.clone())).await;
        assert_eq!(answer.status.as_u16(), status, "{attributes}: {}", answer.text());
    }
    // Another tenant declares its own.
    let other = fixture.tenant("attributes").await;
    assert_eq!(declare(&other, &with(attributes)).await.status.as_u16(), 422);
}

#[tokio::test]
async fn a_truncated_pdf_fails_and_nothing_else_suffers() {
    let tenant = Fixture::shared().tenant("half").await;
    let whole = std::fs::read(integration_tests::repository::root().join("local/samples/episodes.pdf")).unwrap();
    let half = &whole[..whole.len() / 2];
    let good = tenant
        .fixture()
        .deployment
        .upload(&tenant.admin(), "whole.pdf", "application/pdf", &whole)
        .await
        .unwrap();
    let bad = tenant
        .fixture()
        .deployment
        .upload(&tenant.admin(), "half.pdf", "application/pdf", half)
        .await
        .unwrap();
    let failed = tenant.settled(&bad).await;
    assert_eq!(failed["status"], "failed", "{failed}");
    assert!(
        failed["reason"].as_str().is_some_and(|reason| !reason.is_empty()),
        "{failed}"
    );
    assert_eq!(tenant.settled(&good).await["status"], "indexed");
    let answer = tenant.ask("List the episodes of season 2.").await.json();
    assert!(
        answer["output"]["text"].as_str().unwrap().contains("The Pollywog"),
        "{answer}"
    );
    let cited = answer
        .pointer("/citations/0/retrievedReferences/0/metadata/document_id")
        .unwrap();
    assert_eq!(cited, good.as_str());
}

#[tokio::test]
async fn what_a_full_sync_finds_is_what_direct_ingestion_left() {
    let fixture = Fixture::start(integration_tests::fixture::config()).await;
    let tenant = fixture.tenant("sync").await;
    tenant
        .upload("a.txt", "The key to the tower hangs in the kitchen.")
        .await;
    fixture.synchronise().await;
    let answer = tenant.ask("Where hangs the key to the tower?").await.json();
    assert!(
        answer["output"]["text"].as_str().unwrap().contains("kitchen"),
        "{answer}"
    );
    // While a sync holds the lease, a completion waits for it and is finished by a later look.
    fixture.synchronise().await;
    tenant.upload("b.txt", "The key to the cellar hangs in the hall.").await;
    let answer = tenant.ask("Where hangs the key to the cellar?").await.json();
    assert!(answer["output"]["text"].as_str().unwrap().contains("hall"), "{answer}");
}
