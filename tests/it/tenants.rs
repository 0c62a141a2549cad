//! What operators change of a tenant, and what comes of it: plans, groups, attributes, the documents that all may share.

use bulkhead_cli::deployment::Call;
use bulkhead_local::stack::{random_name, wait_until};
use integration_tests::fixture::{Fixture, Tenant, patience};
use reqwest::Method;
use serde_json::{Value, json};

use crate::documents::{declaration, declare};

/// Changes a tenant, whatever its version.
async fn change(tenant: &Tenant, body: Value) -> (u16, Value) {
    let fixture = tenant.fixture();
    let call = Call::new(Method::PATCH, format!("/tenants/{}", tenant.id))
        .token(fixture.operator())
        .json(&body);
    let answer = fixture.send(&call).await;
    (answer.status.as_u16(), answer.json())
}

/// Changes a tenant if it is of a version.
async fn change_if(tenant: &Tenant, version: &str, body: Value) -> u16 {
    let fixture = tenant.fixture();
    reqwest::Client::builder()
        .no_proxy()
        .build()
        .unwrap()
        .patch(format!("{}/tenants/{}", fixture.stack.base_url(), tenant.id))
        .bearer_auth(fixture.operator())
        .header("If-Match", version)
        .json(&body)
        .send()
        .await
        .unwrap()
        .status()
        .as_u16()
}

async fn read(tenant: &Tenant) -> Value {
    let fixture = tenant.fixture();
    let call = Call::new(Method::GET, format!("/tenants/{}", tenant.id)).token(fixture.operator());
    fixture.expect(200, &call).await.json()
}

/// What the list of all tenants says of one.
async fn listed(tenant: &Tenant) -> Value {
    let fixture = tenant.fixture();
    let mut path = "/tenants?limit=100".to_owned();
    loop {
        let call = Call::new(Method::GET, &path).token(fixture.operator());
        let page = fixture.expect(200, &call).await.json();
        let tenants = page["tenants"].as_array().unwrap();
        if let Some(found) = tenants.iter().find(|listed| listed["tenant"] == tenant.id) {
            return found.clone();
        }
        path = format!("/tenants?limit=100&cursor={}", page["next_cursor"].as_str().unwrap());
    }
}

fn season() -> Value {
    json!({"name": "season", "kind": "number"})
}

#[tokio::test]
async fn a_tenant_is_what_its_operator_says_and_the_list_follows() {
    let fixture = Fixture::shared();
    let plain = read(&fixture.tenant("plain").await).await;
    assert_eq!(
        (
            &plain["plan"],
            &plain["groups"],
            &plain["attributes"],
            &plain["transcripts"]
        ),
        (&json!("standard"), &json!([]), &json!([]), &json!(true))
    );

    let members = json!({"plan": "shared", "groups": ["board"], "attributes": [season()], "transcripts": false});
    let tenant = fixture.tenant_with("change", members.clone()).await;
    let created = read(&tenant).await;
    for (member, value) in members.as_object().unwrap() {
        assert_eq!(created[member], *value, "{member}");
    }
    assert_eq!(created["version"], 1);

    let draft = json!({"name": "draft", "kind": "boolean"});
    let more =
        json!({"plan": "verified", "groups": ["board", "staff"], "attributes": [season(), draft], "transcripts": true});
    let (status, changed) = change(&tenant, more.clone()).await;
    assert_eq!(status, 200, "{changed}");
    for (member, value) in more.as_object().unwrap() {
        assert_eq!(changed[member], *value, "{member}");
    }
    assert_eq!(changed["version"], 2);
    assert_eq!(read(&tenant).await, changed);
    assert_eq!(listed(&tenant).await, changed);
    // Nothing is a change of nothing.
    assert_eq!(change(&tenant, json!({})).await, (200, changed.clone()));
    assert_eq!(change(&tenant, more).await, (200, changed.clone()));

    for (body, refused) in [
        (json!({"groups": ["staff"]}), 409),
        (json!({"groups": []}), 409),
        (json!({"attributes": [season()]}), 409),
        (
            json!({"attributes": [{"name": "season", "kind": "string"}, draft]}),
            409,
        ),
        (json!({"plan": "silver"}), 422),
        (json!({"groups": ["board", "staff", "Board"]}), 422),
        (
            json!({"attributes": [season(), draft, {"name": "tenantId", "kind": "string"}]}),
            422,
        ),
        (json!({"groups": ["a", "b", "c", "d", "e"]}), 400),
        (json!({"tenant": "other"}), 400),
        (json!({"status": "suspended"}), 400),
        (json!({"version": 9}), 400),
        (json!([]), 400),
    ] {
        let (status, problem) = change(&tenant, body.clone()).await;
        assert_eq!(status, refused, "{body}: {problem}");
    }
    assert_eq!(read(&tenant).await, changed, "what is refused changes nothing");

    // Being suspended is another matter, and both count as changes.
    for (verb, status, version) in [("suspend", "suspended", 3), ("resume", "active", 4)] {
        let call = Call::new(Method::POST, format!("/tenants/{}/{verb}", tenant.id)).token(fixture.operator());
        let profile = fixture.expect(200, &call).await.json();
        assert_eq!(
            (profile["status"].as_str(), profile["version"].as_u64()),
            (Some(status), Some(version))
        );
        assert_eq!(profile["groups"], changed["groups"]);
        assert_eq!(listed(&tenant).await, profile);
    }
    let missing = Call::new(Method::PATCH, format!("/tenants/{}", random_name("missing")))
        .token(fixture.operator())
        .json(&json!({}));
    fixture.expect(404, &missing).await;
}

#[tokio::test]
async fn a_change_is_made_to_the_version_that_was_seen() {
    let tenant = Fixture::shared().tenant("seen").await;
    assert_eq!(change_if(&tenant, "\"1\"", json!({"plan": "shared"})).await, 200);
    assert_eq!(change_if(&tenant, "\"1\"", json!({"plan": "verified"})).await, 412);
    assert_eq!(change_if(&tenant, "W/\"2\"", json!({"plan": "verified"})).await, 412);
    assert_eq!(change_if(&tenant, "2", json!({"plan": "verified"})).await, 400);
    assert_eq!(read(&tenant).await["plan"], "shared");
    assert_eq!(change_if(&tenant, "*", json!({"plan": "verified"})).await, 200);
    assert_eq!(change_if(&tenant, "\"3\"", json!({"plan": "standard"})).await, 200);
    // Who saw the same version: one of them changes it, and the others are told.
    let changes = ["a", "b", "c", "d"].map(|group| change_if(&tenant, "\"4\"", json!({"groups": [group]})));
    let mut statuses = futures::future::join_all(changes).await;
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412, 412, 412]);
    assert_eq!(read(&tenant).await["version"], 5);
}

#[tokio::test]
async fn changes_of_different_things_at_once_are_all_made() {
    let tenant = Fixture::shared().tenant("busy").await;
    let bodies = [
        json!({"plan": "shared"}),
        json!({"groups": ["board"]}),
        json!({"attributes": [season()]}),
        json!({"transcripts": false}),
    ];
    let changes = bodies.iter().map(|body| change(&tenant, body.clone()));
    for (status, profile) in futures::future::join_all(changes).await {
        assert_eq!(status, 200, "{profile}");
    }
    let profile = read(&tenant).await;
    for (member, value) in bodies.iter().flat_map(|body| body.as_object().unwrap()) {
        assert_eq!(profile[member], *value, "{member}");
    }
    assert_eq!(profile["version"], 5);
    assert_eq!(listed(&tenant).await, profile);
}

#[tokio::test]
async fn what_was_added_counts_within_seconds() {
    let tenant = Fixture::shared().tenant("grown").await;
    let mut body = declaration("minutes.txt", b"Minutes.");
    body["audience"] = json!("board");
    body["attributes"] = json!({"season": 2});
    assert_eq!(declare(&tenant, &body).await.status.as_u16(), 422);
    let (status, _) = change(&tenant, json!({"groups": ["board"], "attributes": [season()]})).await;
    assert_eq!(status, 200);
    // The environment may have looked at the profile just before.
    wait_until("the tenant's environment looks again", patience(), || async {
        Ok((declare(&tenant, &body).await.status.as_u16() == 201).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn shared_documents_are_read_by_the_tenants_whose_plan_has_them() {
    let fixture = Fixture::shared();
    let with = fixture.tenant_with("with", json!({"plan": "shared"})).await;
    let without = fixture.tenant("without").await;
    let text = b"The standard of the shared library is kept in Paris.";
    let operator = fixture.operator();
    let id = fixture
        .deployment
        .upload(&operator, "standard.txt", "text/plain", text)
        .await
        .unwrap();
    let path = format!("/documents/{id}");
    let described = Call::new(Method::GET, &path);
    let content = Call::new(Method::GET, format!("{path}/content"));
    wait_until("the shared document is indexed", patience(), || async {
        let document = fixture.expect(200, &described.clone().token(&operator)).await.json();
        Ok((document["status"] == "indexed").then_some(()))
    })
    .await
    .unwrap();

    let seen = fixture.expect(200, &described.clone().token(with.admin())).await.json();
    assert_eq!(
        (
            seen["document_id"].as_str(),
            seen["name"].as_str(),
            seen["audience"].as_str()
        ),
        (Some(id.as_str()), Some("standard.txt"), Some("*"))
    );
    fixture.expect(403, &described.clone().token(with.reader())).await;
    let link = fixture.expect(302, &content.clone().token(with.reader())).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let fetched = client
        .get(link.headers["location"].to_str().unwrap())
        .send()
        .await
        .unwrap();
    assert_eq!(fetched.status(), 200);
    assert_eq!(fetched.bytes().await.unwrap().as_ref(), text);
    // To anybody else it is missing to the letter.
    let missing = Call::new(Method::GET, "/documents/01JD0000000000000000000000").token(without.admin());
    let missing = fixture.expect(404, &missing).await.fingerprint();
    for call in [&described, &content] {
        let refused = fixture.expect(404, &call.clone().token(without.admin())).await;
        assert_eq!(refused.fingerprint(), missing);
    }
    // Sharing is reading.
    let mut put = Call::new(Method::PUT, format!("{path}/content"));
    put.body = Some(("text/plain".to_owned(), text.to_vec()));
    for call in [
        put,
        Call::new(Method::POST, format!("{path}/complete")),
        Call::new(Method::DELETE, &path),
    ] {
        fixture.expect(404, &call.token(with.admin())).await;
    }
    let list = Call::new(Method::GET, "/documents").token(with.admin());
    assert_eq!(fixture.expect(200, &list).await.json()["documents"], json!([]));

    // What answers may not cite yet, or any more, is not there.
    let declared = Call::new(Method::POST, "/documents")
        .token(&operator)
        .json(&declaration("later.txt", b"Later."));
    let later = fixture.expect(201, &declared).await.json();
    let later = Call::new(
        Method::GET,
        format!("/documents/{}", later["document_id"].as_str().unwrap()),
    );
    fixture.expect(404, &later.token(with.admin())).await;
    fixture
        .expect(202, &Call::new(Method::DELETE, &path).token(&operator))
        .await;
    for call in [described, content] {
        fixture.expect(404, &call.token(with.admin())).await;
    }
}
