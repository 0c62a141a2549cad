//! Lock 5 alone: a handler that has gone wrong (`tests/probe`) asks for another tenant's items and objects with the
//! template's own roles. Locks 1 to 4 are not in its way: it has no token, no context, no filter and no firewall.

use std::collections::BTreeSet;
use std::process::Stdio;

use bulkhead_local::record::{Resource, Service};
use bulkhead_local::stack::random_name;
use bulkhead_local::template::LogicalId;
use integration_tests::fixture::{Fixture, Tenant};
use integration_tests::repository;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

/// The isolated functions, each with the role of its tenants' data.
const FUNCTIONS: [(&str, &str); 2] = [
    ("QueryHandlerFunction", "QueryHandlerDataRole"),
    ("TenantAdminFunction", "TenantAdminDataRole"),
];

/// The probe in place of one function.
struct Probe<'a> {
    fixture: &'a Fixture,
    function: &'a str,
}

impl Probe<'_> {
    /// What comes of `calls`, made as `session` (the function itself if there is none).
    async fn attempt(&self, session: Option<&Value>, calls: &[Value]) -> Vec<Value> {
        let stack = &self.fixture.stack;
        let attempts: Vec<_> = calls
            .iter()
            .map(|call| json!({"session": session, "call": call}))
            .collect();
        let credential = stack
            .function_credential(&LogicalId::new(self.function))
            .expect("a function of the template");
        let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_probe"))
            .env_clear()
            .env("AWS_ENDPOINT_URL", stack.front_door().endpoint())
            .env("AWS_REGION", stack.front_door().region())
            .env("AWS_ACCESS_KEY_ID", &credential.access_key_id)
            .env("AWS_SECRET_ACCESS_KEY", &credential.secret_access_key)
            .env("AWS_SESSION_TOKEN", &credential.session_token)
            .env("BULKHEAD_BUCKET_NAME", &stack.template().buckets[0].name)
            .env("BULKHEAD_TABLE_NAME", &stack.template().tables[0].name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let text = serde_json::to_vec(&attempts).unwrap();
        child.stdin.take().unwrap().write_all(&text).await.unwrap();
        let output = child.wait_with_output().await.unwrap();
        assert!(output.status.success());
        let outcomes: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(outcomes.len(), calls.len());
        outcomes
    }
}

/// The session that a function assumes for a tenant.
fn session(role: &str, tenant: &str) -> Value {
    json!({"role_arn": role_arn(role), "tags": [["tenant", tenant]]})
}

fn role_arn(role: &str) -> String {
    let template = repository::template();
    let roles = &template.roles;
    let role = roles.iter().find(|candidate| candidate.logical_id.as_str() == role);
    role.expect("a role of the template").arn.clone()
}

/// Whether IAM refused, and nothing else did.
fn is_refused(outcome: &Value) -> bool {
    let code = outcome["refused"]["code"].as_str();
    match outcome["refused"]["status"].as_u64() {
        Some(400) => code == Some("AccessDeniedException"),
        // A HEAD's answer has no body, and so no code.
        Some(403) => code.is_none_or(|code| code.starts_with("AccessDenied")),
        _ => false,
    }
}

fn assert_refused(calls: &[Value], outcomes: &[Value], who: &str) {
    for (call, outcome) in calls.iter().zip(outcomes) {
        assert!(is_refused(outcome), "{who}: {call}: {outcome}");
    }
}

/// Two tenants of which one's id begins with the other's, and a word that only the second has: in a document and in a
/// conversation.
async fn neighbours(fixture: &std::sync::Arc<Fixture>) -> (Tenant, Tenant, String) {
    let id = random_name("acme");
    let own = fixture.named_tenant(&id, &[]).await;
    let other = fixture.named_tenant(&format!("{id}-2"), &[]).await;
    let canary = random_name("canary");
    own.upload("a.txt", "The lighthouse is called Alder Point.").await;
    let text = format!("The lighthouse is called {canary}.");
    other.upload("b.txt", &text).await;
    let answer = other.ask("What is the lighthouse called?").await.json();
    assert_eq!(answer["output"]["text"], text, "{answer}");
    (own, other, canary)
}

/// The keys of items and the names of objects that functions have used for a tenant: all that it has.
fn possessions(fixture: &Fixture, tenant: &str) -> (BTreeSet<(String, String)>, BTreeSet<String>) {
    let (mut items, mut objects) = (BTreeSet::new(), BTreeSet::new());
    for call in fixture.stack.front_door().recorder().calls() {
        match (call.service, &call.resource) {
            (Service::DynamoDb, _) => collect_keys(&call.request, &mut items),
            (Service::S3, Resource::Objects { keys, source, .. }) => {
                objects.extend(keys.iter().cloned());
                objects.extend(source.iter().map(|(_, key)| key.clone()));
            }
            _ => {}
        }
    }
    items.retain(|(pk, _)| pk.ends_with(&format!("#{tenant}")));
    objects.retain(|key| key.contains(&format!("/{tenant}/")));
    (items, objects)
}

/// Those of the objects that their owner can read now.
async fn readable(fixture: &Fixture, owner: &str, objects: &BTreeSet<String>) -> Vec<String> {
    let probe = Probe {
        fixture,
        function: "TenantAdminFunction",
    };
    let calls: Vec<Value> = objects.iter().map(|name| json!({"get_object": name})).collect();
    let outcomes = probe
        .attempt(Some(&session("TenantAdminDataRole", owner)), &calls)
        .await;
    let there = objects
        .iter()
        .zip(&outcomes)
        .filter(|(_, outcome)| outcome["answered"].is_string());
    let there: Vec<String> = there.map(|(name, _)| name.clone()).collect();
    // The document and its sidecar.
    assert!(there.len() >= 2, "{outcomes:?}");
    there
}

/// Every partition and sort key that stands together anywhere in a request.
fn collect_keys(value: &Value, keys: &mut BTreeSet<(String, String)>) {
    if let (Some(pk), Some(sk)) = (value["pk"]["S"].as_str(), value["sk"]["S"].as_str()) {
        keys.insert((pk.to_owned(), sk.to_owned()));
    }
    match value {
        Value::Object(members) => members.values().for_each(|value| collect_keys(value, keys)),
        Value::Array(items) => items.iter().for_each(|value| collect_keys(value, keys)),
        _ => {}
    }
}

#[tokio::test]
async fn nothing_of_another_tenant_is_readable() {
    let fixture = Fixture::shared();
    let (own, other, canary) = neighbours(&fixture).await;
    let (items, objects) = possessions(&fixture, &other.id);
    for kind in ["DOC#", "SESSION#", "TURN#", "PROFILE"] {
        assert!(items.iter().any(|(_, sk)| sk.starts_with(kind)), "no {kind}: {items:?}");
    }
    assert!(objects.iter().any(|key| key.starts_with("t/")), "{objects:?}");
    assert!(objects.iter().any(|key| key.ends_with(".metadata.json")), "{objects:?}");

    let mut calls = Vec::new();
    let (own_profile, mine) = (format!("PROFILE#{}", own.id), format!("TENANT#{}", own.id));
    for (pk, sk) in &items {
        let key = json!({"pk": pk, "sk": sk});
        calls.extend([
            json!({"get_item": key}),
            json!({"batch_get_item": [key]}),
            json!({"transact_get_items": [key]}),
            // One's own keys beside it change nothing.
            json!({"batch_get_item": [{"pk": mine, "sk": sk}, key]}),
            json!({"transact_get_items": [{"pk": own_profile, "sk": "PROFILE"}, key]}),
            json!({"query": {"pk": pk}}),
            // A condition tells something too.
            json!({"transact_write_items": {"puts": [{"pk": mine, "sk": "PROBE#1"}], "checks": [key]}}),
        ]);
    }
    // What isn't there would be refused whatever the policies say.
    for name in &readable(&fixture, &other.id, &objects).await {
        calls.extend([
            json!({"get_object": name}),
            json!({"head_object": name}),
            json!({"copy_object": {"from": name, "to": format!("t/{}/taken.txt", own.id)}}),
        ]);
    }
    let table = &fixture.stack.template().tables[0].name;
    calls.extend([
        json!("scan"),
        json!({"execute_statement": format!("SELECT * FROM \"{table}\"")}),
        json!({"execute_statement": format!("SELECT * FROM \"{table}\" WHERE pk = 'TENANT#{}'", other.id)}),
        json!({"list_objects": {}}),
        json!({"list_objects": {"prefix": format!("t/{}", own.id)}}),
        json!({"list_objects": {"prefix": format!("t/{}/", other.id)}}),
    ]);
    for (function, role) in FUNCTIONS {
        let probe = Probe {
            fixture: &fixture,
            function,
        };
        // A session that reaches nothing would pass what follows.
        let control = [json!({"get_item": {"pk": own_profile, "sk": "PROFILE"}})];
        let outcome = probe.attempt(Some(&session(role, &own.id)), &control).await;
        assert!(
            outcome[0]["answered"].as_str().unwrap().contains(&own.id),
            "{outcome:?}"
        );

        for session in [Some(session(role, &own.id)), None] {
            let outcomes = probe.attempt(session.as_ref(), &calls).await;
            assert_refused(&calls, &outcomes, role);
            assert!(!json!(outcomes).to_string().contains(&canary));
        }
        let outcome = probe.attempt(None, &control).await;
        assert_refused(&control, &outcome, function);
    }
}

#[tokio::test]
async fn nothing_of_another_tenant_is_writable() {
    let fixture = Fixture::shared();
    let (own, other, canary) = neighbours(&fixture).await;
    let (items, objects) = possessions(&fixture, &other.id);
    let (_, own_objects) = possessions(&fixture, &own.id);
    let own_objects = readable(&fixture, &own.id, &own_objects).await;
    let source = own_objects.first().expect("an object of one's own");
    let mine = json!({"pk": format!("TENANT#{}", own.id), "sk": "PROBE#1"});
    let mut calls = Vec::new();
    for (pk, sk) in &items {
        let key = json!({"pk": pk, "sk": sk});
        calls.extend([
            json!({"put_item": key}),
            json!({"update_item": key}),
            json!({"delete_item": key}),
            json!({"batch_write_item": [mine, key]}),
            json!({"transact_write_items": {"puts": [mine, key], "checks": []}}),
        ]);
    }
    let shared = json!({"pk": "TENANT#bulkhead-shared", "sk": "DOC#probe"});
    let profile = json!({"pk": format!("PROFILE#{}", own.id), "sk": "PROFILE"});
    for key in [&shared, &profile, &json!({"pk": "TENANTS", "sk": own.id})] {
        calls.extend([
            json!({"put_item": key}),
            json!({"update_item": key}),
            json!({"delete_item": key}),
        ]);
    }
    let names = objects.iter().map(String::as_str);
    for name in names.chain(["t/bulkhead-shared/probe.txt", "t/probe.txt", "probe.txt"]) {
        calls.extend([json!({"put_object": name}), json!({"delete_object": name})]);
        calls.push(json!({"copy_object": {"from": source, "to": name}}));
    }
    // What is refused of another's is carried out for one's own.
    let controls = [
        json!({"put_item": mine}),
        json!({"transact_write_items": {"puts": [mine], "checks": []}}),
    ];
    for (function, role) in FUNCTIONS {
        let probe = Probe {
            fixture: &fixture,
            function,
        };
        let outcomes = probe.attempt(Some(&session(role, &own.id)), &controls).await;
        assert!(
            outcomes.iter().all(|outcome| outcome["answered"].is_string()),
            "{role}: {outcomes:?}"
        );
        for session in [Some(session(role, &own.id)), None] {
            let outcomes = probe.attempt(session.as_ref(), &calls).await;
            assert_refused(&calls, &outcomes, role);
        }
    }
    let answer = other.ask("What is the lighthouse called?").await;
    assert!(answer.text().contains(&canary), "{}", answer.text());
}

#[tokio::test]
async fn a_session_is_for_one_tenant_and_of_the_functions_own_role() {
    let fixture = Fixture::shared();
    let tenant = fixture.tenant("session").await.id;
    for (function, role) in FUNCTIONS {
        let probe = Probe {
            fixture: &fixture,
            function,
        };
        let good = json!({"assume_role": session(role, &tenant)});
        let outcome = probe.attempt(None, std::slice::from_ref(&good)).await;
        assert_eq!(outcome[0]["answered"], "assumed", "{outcome:?}");

        let assume = |role: &str, tags: Value| json!({"assume_role": {"role_arn": role_arn(role), "tags": tags}});
        let mut calls = vec![
            assume(role, json!([])),
            assume(role, json!([["team", tenant]])),
            assume(role, json!([["tenant", tenant], ["team", "red"]])),
        ];
        // One for each thing that the trust policy knows of a tenant's id.
        for tag in [
            "a",
            "acme/x",
            "a cme",
            "ac.me",
            "ac:me",
            "ac_me",
            "ac=me",
            "ac+me",
            "ac@me",
            "-acme",
            "acme-",
            "ac--me",
            "bulkhead-x",
        ] {
            calls.push(assume(role, json!([["tenant", tag]])));
        }
        if function == "QueryHandlerFunction" {
            calls.push(assume(role, json!([["tenant", "bulkhead-shared"]])));
        }
        for (_, other) in FUNCTIONS.iter().filter(|(name, _)| *name != function) {
            calls.push(assume(other, json!([["tenant", tenant]])));
        }
        for other in [
            "AuthorizerRole",
            "ControlPlaneRole",
            "KnowledgeBaseRole",
            "QueryHandlerRole",
        ] {
            calls.push(assume(other, json!([["tenant", tenant]])));
        }
        let outcomes = probe.attempt(None, &calls).await;
        assert_refused(&calls, &outcomes, function);
        // What would be a pattern or another key is no tag at all.
        let calls: Vec<Value> = ["*", "?x", "acme*", "acme#x", "${aws:userid}"]
            .iter()
            .map(|tag| assume(role, json!([["tenant", tag]])))
            .collect();
        for (call, outcome) in calls.iter().zip(probe.attempt(None, &calls).await) {
            assert_eq!(outcome["refused"]["code"], "ValidationError", "{call}");
        }
        // A session can't be exchanged for another tenant's.
        let exchange = [json!({"assume_role": session(role, "acme")})];
        let outcomes = probe.attempt(Some(&session(role, &tenant)), &exchange).await;
        assert_refused(&exchange, &outcomes, role);
    }
}

#[tokio::test]
async fn every_session_is_the_environments_tenants() {
    let fixture = Fixture::shared();
    let (own, other, _) = neighbours(&fixture).await;
    own.ask("What is the lighthouse called?").await;
    for tenant in [&own.id, &other.id] {
        let calls = fixture.stack.front_door().recorder().calls_of(tenant);
        let sessions: Vec<_> = calls.iter().filter(|call| call.operation == "AssumeRole").collect();
        // One per function; whoever asks has the environment's tenant, whatever it asks for.
        assert!(sessions.len() >= 2, "{sessions:?}");
        for call in sessions {
            assert_eq!(call.request["Tags"], json!({"tenant": tenant}), "{call:?}");
            assert_eq!(call.status, Some(200));
        }
        // Nothing reached the table or the bucket but with such a session.
        for call in calls
            .iter()
            .filter(|call| [Service::S3, Service::DynamoDb].contains(&call.service))
        {
            let caller = call.caller.as_ref().unwrap();
            assert!(
                caller.principal.ends_with("DataRole") && caller.tags["tenant"] == *tenant,
                "{call:?}"
            );
        }
    }
}
