//! Narrowing: which of a tenant's documents a question searches, by groups, attributes, plan and the caller's own filter.

use std::collections::BTreeSet;
use std::sync::Arc;

use bulkhead_cli::deployment::{Answer, Call};
use bulkhead_cli::event;
use bulkhead_local::knowledge_base::manner::{Injection, Scope, Usage};
use bulkhead_local::stack::{random_name, wait_until};
use integration_tests::fixture::{Fixture, Tenant, patience};
use reqwest::Method;
use serde_json::{Value, json};

use crate::documents::{declaration, id_of};

/// Uploads a text with what `members` say of it, as whoever `token` is; gives its id.
async fn upload(fixture: &Arc<Fixture>, token: &str, name: &str, text: &str, members: Value) -> String {
    let mut body = declaration(name, text.as_bytes());
    for (member, value) in members.as_object().unwrap() {
        body[member] = value.clone();
    }
    let declared = fixture
        .expect(201, &Call::new(Method::POST, "/documents").token(token).json(&body))
        .await;
    let id = id_of(&declared.json());
    let mut content = Call::new(Method::PUT, format!("/documents/{id}/content")).token(token);
    content.body = Some(("text/plain".to_owned(), text.as_bytes().to_vec()));
    fixture.expect(204, &content).await;
    fixture
        .expect(
            202,
            &Call::new(Method::POST, format!("/documents/{id}/complete")).token(token),
        )
        .await;
    let call = Call::new(Method::GET, format!("/documents/{id}")).token(token);
    wait_until("a document is indexed", patience(), || async {
        let document = fixture.expect(200, &call).await.json();
        Ok((document["status"] == "indexed").then_some(()))
    })
    .await
    .expect("an indexed document");
    id
}

/// What is asked of a route, as a token of the tenant.
async fn ask(tenant: &Tenant, token: &str, route: &str, question: &str, filter: &Value) -> Answer {
    let name = match route {
        RETRIEVE => "query",
        CHAT => "message",
        _ => "user_query",
    };
    let body = json!({name: question, "filter": filter, "number_of_results": 20});
    tenant
        .fixture()
        .send(&Call::new(Method::POST, route).token(token).json(&body))
        .await
}

const RETRIEVE: &str = "/genai/retrieve";
const QUERY: &str = "/genai/query";
const STREAM: &str = "/genai/query/stream";
const CHAT: &str = "/genai/chat";
/// The routes that answer: by `managed`, and by `verified` with and without a conversation.
const ANSWERING: [&str; 3] = [QUERY, STREAM, CHAT];

/// The references of an answer of any route.
fn references(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text());
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let cited = |citation: &Value| list(&citation["retrievedReferences"]);
    if answer.is_event_stream() {
        let events = event::read(&answer.body).expect("events");
        let citations = events.iter().filter(|event| event.name == "citation");
        return citations.flat_map(|citation| cited(&citation.data)).collect();
    }
    let body = answer.json();
    let mut references = list(&body["retrievalResults"]);
    references.extend(list(&body["citations"]).iter().flat_map(cited));
    references
}

/// The documents that an answer of any route shows.
fn documents(answer: &Answer) -> BTreeSet<String> {
    references(answer)
        .iter()
        .map(|reference| id_of(&reference["metadata"]))
        .collect()
}

fn equals(key: &str, value: Value) -> Value {
    json!({"equals": {"key": key, "value": value}})
}

fn range(from: Value, to: Value) -> Value {
    json!({"range": {"key": "season", "from": from, "to": to}})
}

#[tokio::test]
async fn a_filter_takes_away_and_adds_nothing() {
    let fixture = Fixture::shared();
    let attributes = json!([
        {"name": "season", "kind": "number"},
        {"name": "studio", "kind": "string"},
        {"name": "draft", "kind": "boolean"},
    ]);
    let members = json!({"attributes": attributes});
    let tenant = fixture.tenant_with("narrow", members.clone()).await;
    let other = fixture.tenant_with("narrow-other", members).await;
    let text = "The pilot of the harbour is called Ines.";
    let with = |season: Value, studio: &str, draft: bool| json!({"attributes": {"season": season, "studio": studio, "draft": draft}});
    let mut ids = Vec::new();
    for (name, attributes) in [
        ("one.txt", with(json!(1), "Größe", false)),
        ("two.txt", with(json!(2), "north", false)),
        ("three.txt", with(json!(2.5), "north", true)),
        ("bare.txt", json!({})),
    ] {
        ids.push(upload(&fixture, &tenant.admin(), name, text, attributes).await);
    }
    // Everything that the filters below ask for, in the other tenant's hands.
    let strange = upload(
        &fixture,
        &other.admin(),
        "two.txt",
        text,
        with(json!(2), "north", false),
    )
    .await;
    let question = "What is the pilot of the harbour called?";
    let (all, reader) = (&[0, 1, 2, 3][..], tenant.reader());
    for (filter, expected) in [
        (Value::Null, all),
        (equals("season", json!(2)), &[1]),
        (equals("season", json!(2.5)), &[2]),
        (equals("studio", json!("north")), &[1, 2]),
        // However it is spelt.
        (equals("studio", json!("Gro\u{308}\u{df}e")), &[0]),
        (equals("draft", json!(false)), &[0, 1]),
        (range(json!(2), Value::Null), &[1, 2]),
        (range(Value::Null, json!(2)), &[0, 1]),
        (range(json!(1.5), json!(2.25)), &[1]),
        (json!({"in": {"key": "season", "values": [1, 2.5, 7]}}), &[0, 2]),
        (
            json!({"all": [range(json!(1), json!(2)), equals("studio", json!("north"))]}),
            &[1],
        ),
        (json!({"all": [equals("studio", json!("north"))]}), &[1, 2]),
        (
            json!({"any": [range(json!(2.5), Value::Null), equals("studio", json!("Größe"))]}),
            &[0, 2],
        ),
        (equals("season", json!(9)), &[]),
    ] {
        let expected: BTreeSet<String> = expected.iter().map(|n| ids[*n].clone()).collect();
        let found = documents(&ask(&tenant, &reader, RETRIEVE, question, &filter).await);
        assert_eq!(found, expected, "{filter}");
        for route in ANSWERING {
            let cited = documents(&ask(&tenant, &reader, route, question, &filter).await);
            assert!(cited.is_subset(&expected), "{route} {filter}: {cited:?}");
            assert_eq!(cited.is_empty(), expected.is_empty(), "{route} {filter}: {cited:?}");
        }
    }
    assert_eq!(
        documents(&ask(&other, &other.reader(), RETRIEVE, question, &equals("season", json!(2))).await),
        BTreeSet::from([strange])
    );
    for (filter, status, pointer) in [
        (equals("tenantId", json!(other.id)), 422, "/filter/equals/key"),
        (equals("audience", json!("*")), 422, "/filter/equals/key"),
        (equals("year", json!(2)), 422, "/filter/equals/key"),
        (equals("season", json!("2")), 422, "/filter/equals/value"),
        (
            json!({"any": [equals("season", json!(2)), equals("tenantId", json!(other.id))]}),
            422,
            "/filter/any/1/equals/key",
        ),
        (json!({"any": [range(json!(1), json!(2))]}), 422, "/filter/any/0/range"),
        (json!({"all": vec![range(json!(1), json!(2)); 2]}), 422, "/filter/all"),
        (
            json!({"in": {"key": "season", "values": [1, 2, 3, 4, 5, 6]}}),
            422,
            "/filter/in/values",
        ),
        (
            json!({"orAll": [equals("tenantId", json!(other.id))]}),
            400,
            "/filter/orAll",
        ),
        (
            json!({"notEquals": {"key": "season", "value": 9}}),
            400,
            "/filter/notEquals",
        ),
        (json!({}), 400, "/filter"),
    ] {
        for route in [RETRIEVE, QUERY, STREAM, CHAT] {
            let answer = ask(&tenant, &reader, route, question, &filter).await;
            let problem = answer.json();
            assert_eq!(
                (answer.status.as_u16(), problem["errors"][0]["pointer"].as_str()),
                (status, Some(pointer)),
                "{route} {filter}"
            );
        }
    }
}

#[tokio::test]
async fn a_groups_documents_are_for_its_members() {
    let fixture = Fixture::shared();
    let members = json!({"groups": ["board", "staff"], "attributes": [{"name": "year", "kind": "number"}]});
    let tenant = fixture.tenant_with("members", members).await;
    let mut ids = Vec::new();
    for (name, audience) in [("all.txt", "*"), ("board.txt", "board"), ("staff.txt", "staff")] {
        let text = "The colour of the ferry is green.";
        let members = json!({"audience": audience, "attributes": {"year": ids.len()}});
        ids.push(upload(&fixture, &tenant.admin(), name, text, members).await);
    }
    let question = "What is the colour of the ferry?";
    for (groups, may) in [
        (&[][..], &[0][..]),
        (&["board"], &[0, 1]),
        (&["staff"], &[0, 2]),
        (&["board", "staff"], &[0, 1, 2]),
        // What the token names and nobody declared is nothing.
        (&["captains", "*"], &[0]),
    ] {
        let token = tenant.group_token("gina", groups);
        let allowed: BTreeSet<String> = may.iter().map(|n| ids[*n].clone()).collect();
        let found = documents(&ask(&tenant, &token, RETRIEVE, question, &Value::Null).await);
        assert_eq!(found, allowed, "{groups:?}");
        for route in ANSWERING {
            let cited = documents(&ask(&tenant, &token, route, question, &Value::Null).await);
            assert!(!cited.is_empty() && cited.is_subset(&allowed), "{route} {groups:?}");
        }
        // The caller's own filter opens no door.
        for (n, id) in ids.iter().enumerate() {
            let one = BTreeSet::from([id.clone()]);
            let found = documents(&ask(&tenant, &token, RETRIEVE, question, &equals("year", json!(n))).await);
            assert_eq!(
                found,
                if allowed.contains(id) { one } else { BTreeSet::new() },
                "{groups:?}"
            );
        }
    }
}

#[tokio::test]
async fn shared_documents_are_found_where_the_plan_has_them_and_say_so() {
    let fixture = Fixture::shared();
    let operator = fixture.operator();
    let word = random_name("statute");
    let text = format!("The statute {word} is of the year 1908.");
    let shared = upload(&fixture, &operator, "statute.txt", &text, json!({"title": "Statutes"})).await;
    let members = json!({"plan": "shared", "groups": ["board"], "attributes": [{"name": "year", "kind": "number"}]});
    let with = fixture.tenant_with("corpus", members).await;
    let without = fixture.tenant("no-corpus").await;
    let mut own = Vec::new();
    for tenant in [&with, &without] {
        own.push(upload(&fixture, &tenant.admin(), "own.txt", &text, json!({})).await);
    }
    let question = format!("Of which year is the statute {word}?");
    let origins = |answer: &Answer| -> BTreeSet<(String, String)> {
        let about = |reference: &Value| {
            (
                id_of(&reference["metadata"]),
                reference["metadata"]["origin"].as_str().unwrap().to_owned(),
            )
        };
        // Other tests share documents as well.
        let found = references(answer);
        found
            .iter()
            .filter(|reference| reference["content"]["text"].to_string().contains(&word))
            .map(about)
            .collect()
    };
    let of = |id: &String, origin: &str| (id.clone(), origin.to_owned());
    for route in [RETRIEVE, QUERY, STREAM, CHAT] {
        let answer = ask(&with, &with.reader(), route, &question, &Value::Null).await;
        let both = BTreeSet::from([of(&own[0], "tenant"), of(&shared, "shared")]);
        let shown = origins(&answer);
        assert!(
            if route == RETRIEVE {
                shown == both
            } else {
                shown.is_subset(&both) && !shown.is_empty()
            },
            "{}",
            answer.text()
        );
        assert!(
            !answer.text().contains("bulkhead-shared") && !answer.text().contains("score"),
            "{}",
            answer.text()
        );
        let answer = ask(&without, &without.reader(), route, &question, &Value::Null).await;
        assert_eq!(
            origins(&answer),
            BTreeSet::from([of(&own[1], "tenant")]),
            "{}",
            answer.text()
        );
    }
    // It has no year, whatever the tenant's own documents have.
    let narrowed = ask(&with, &with.reader(), RETRIEVE, &question, &equals("year", json!(1908))).await;
    assert_eq!(origins(&narrowed), BTreeSet::new());

    let path = format!("/documents/{shared}/content");
    for (tenant, status) in [(&with, 302), (&without, 404)] {
        fixture
            .expect(status, &Call::new(Method::GET, &path).token(tenant.reader()))
            .await;
    }
    // Alone, it is what an answer rests on.
    let path = format!("/documents/{}", own[0]);
    fixture
        .expect(202, &Call::new(Method::DELETE, &path).token(with.admin()))
        .await;
    let call = Call::new(Method::GET, &path).token(with.admin());
    wait_until("the tenant's own document is gone", patience(), || async {
        Ok((fixture.send(&call).await.status.as_u16() == 404).then_some(()))
    })
    .await
    .expect("a document that goes");
    let answer = ask(&with, &with.reader(), QUERY, &question, &Value::Null).await;
    assert!(
        answer.json()["output"]["text"].as_str().unwrap().contains("1908"),
        "{}",
        answer.text()
    );
    assert_eq!(origins(&answer), BTreeSet::from([of(&shared, "shared")]));
    // What its owner deletes is gone for all at once.
    fixture
        .expect(
            202,
            &Call::new(Method::DELETE, format!("/documents/{shared}")).token(&operator),
        )
        .await;
    assert_eq!(
        origins(&ask(&with, &with.reader(), RETRIEVE, &question, &Value::Null).await),
        BTreeSet::new()
    );
}

#[tokio::test]
async fn a_search_shows_passages_and_nothing_of_the_platform() {
    let fixture = Fixture::shared();
    let tenant = fixture.tenant("search").await;
    tenant
        .upload("lamp.txt", "The lamp of the lighthouse burns whale oil.")
        .await;
    let question = "What does the lamp of the lighthouse burn?";
    let answer = ask(&tenant, &tenant.reader(), RETRIEVE, question, &Value::Null).await;
    let text = answer.text();
    let template = fixture.stack.template();
    let (bucket, knowledge_base) = (&template.buckets[0].name, &template.knowledge_bases[0].id);
    for secret in ["s3://", "arn:", "x-amz-", "score", bucket, knowledge_base, &tenant.id] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    insta::assert_json_snapshot!(answer.json(), {
        ".**.id" => "[document]",
        ".**.document_id" => "[document]",
        ".**.content_url" => insta::dynamic_redaction(|value, _| {
            assert!(value.as_str().unwrap().starts_with("/documents/"));
            "[path]"
        }),
    });
    assert_eq!(answer.headers["cache-control"], "no-store");
    // A search finds what is nearest, however far; where there is nothing, it finds nothing.
    let empty = fixture.tenant("search-empty").await;
    let nothing = ask(&empty, &empty.reader(), RETRIEVE, question, &Value::Null).await;
    assert_eq!(nothing.json(), json!({"retrievalResults": []}));
}

#[tokio::test]
async fn a_foreign_passage_anywhere_stops_the_whole_search() {
    let fixture = Fixture::shared();
    let tenant = fixture.tenant_with("firm", json!({"plan": "shared"})).await;
    let other = fixture.tenant("firm-other").await;
    let id = tenant
        .upload("lamp.txt", "The lamp of the lighthouse burns whale oil.")
        .await;
    tenant
        .upload("oil.txt", "The whale oil of the lighthouse is old.")
        .await;
    let bucket = &fixture.stack.template().buckets[0].name;
    let uri = |owner: &str| format!("s3://{bucket}/t/{owner}/{id}.txt");
    let tagged = |owner: &str, audience: &str| -> std::collections::BTreeMap<String, Value> {
        [("tenantId", owner), ("audience", audience), ("documentId", id.as_str())]
            .map(|(key, value)| (key.to_owned(), Value::from(value)))
            .into()
    };
    let (scope, shared) = (Scope::tenant(&tenant.id), "bulkhead-shared");
    let manners = fixture.stack.knowledge_base().manners();
    let question = "What does the lamp of the lighthouse burn?";
    for (uri, attributes) in [
        (uri(&other.id), tagged(&other.id, "*")),
        (uri(&tenant.id), tagged(&other.id, "*")),
        (uri(&other.id), tagged(&tenant.id, "*")),
        // Of one owner by its place and of another by its tag, or for a group that only its owner could have.
        (uri(shared), tagged(&tenant.id, "*")),
        (uri(&tenant.id), tagged(shared, "*")),
        (uri(shared), tagged(shared, "board")),
        (uri(&tenant.id), std::collections::BTreeMap::new()),
    ] {
        for position in 0..3 {
            let injection = Injection {
                text: "The foreign words.".to_owned(),
                uri: uri.clone(),
                attributes: attributes.clone(),
                usage: Usage::Cited,
            };
            manners.inject_at(scope.clone(), position, injection);
            let answer = ask(&tenant, &tenant.reader(), RETRIEVE, question, &Value::Null).await;
            manners.reset(&scope);
            assert_eq!(answer.status.as_u16(), 502, "{uri} {attributes:?}: {}", answer.text());
            assert!(!answer.text().contains("foreign words") && !answer.text().contains("whale"));
        }
    }
    let well = ask(&tenant, &tenant.reader(), RETRIEVE, question, &Value::Null).await;
    assert_eq!(documents(&well).len(), 2, "{}", well.text());
}
