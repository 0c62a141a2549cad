//! What tests are made of: callers, profiles, requests, passages.

use std::time::{Duration, SystemTime};

use aws_sdk_bedrockagentruntime::types::{Citation, GeneratedResponsePart, RetrievedReference, TextResponsePart};
use bulkhead_core::document::{Document, DocumentId, DocumentStatus, MediaType};
use bulkhead_core::plan::EngineName;
use bulkhead_core::profile::Profile;
use bulkhead_core::request::Request;
use bulkhead_core::tenant::{Group, TenantContext, TenantId, UnverifiedCaller, UserId};
use bulkhead_core::time::{Clock, Timestamp};
use bulkhead_core::turn::{Origin, Turn};
use lambda_http::request::LambdaRequest;
use lambda_runtime::{Context, LambdaEvent};
use serde_json::{Value, json};

use crate::firewall::{Part, Passage, Released};

pub const BUCKET: &str = "bulkhead-documents";
pub const DOCUMENT: &str = "01JZ8Q4T9M5X7R2V6C3B1N0K8D";
pub const OTHER_DOCUMENT: &str = "01JZ8Q4T9M5X7R2V6C3B1N0K9E";

pub fn user() -> UserId {
    UserId::derive("https://issuer.example.com", "alice")
}

pub fn context(tenant: &str, groups: &[&str]) -> TenantContext {
    let caller = UnverifiedCaller {
        tenant: Some(tenant.to_owned()),
        user: Some(user().as_str().to_owned()),
        roles: Some("reader".to_owned()),
        groups: Some(groups.join(",")),
        token_expiry: Some("4102444800".to_owned()),
        runtime_tenant: Some(tenant.to_owned()),
    };
    TenantContext::new(&caller, &Clock::system()).unwrap()
}

pub fn profile(tenant: &str, groups: &[&str]) -> Profile {
    let groups = groups.iter().map(|group| Group::parse(group).unwrap()).collect();
    Profile::new(TenantId::parse(tenant).unwrap(), groups, Timestamp::from_unix(0))
}

/// A question of a reader of `tenant`, with ten seconds to answer it.
pub fn request(tenant: &str, body: &str) -> Request {
    request_within(tenant, body, Duration::from_secs(10))
}

/// A question of a reader of `tenant`, with `time` until the function is stopped.
pub fn request_within(tenant: &str, body: &str, time: Duration) -> Request {
    request_to("/genai/query", tenant, body, time)
}

/// A call of `route` by a reader of `tenant`, with `time` until the function is stopped.
pub fn request_to(route: &str, tenant: &str, body: &str, time: Duration) -> Request {
    call("POST", route, json!({}), tenant, json!({"body": body}), time)
}

/// A call of `route` without a body, by a reader of `acme` who is in `groups`.
pub fn visit(method: &str, route: &str, session: Option<&str>, query: Value, groups: &str) -> Request {
    let more = json!({
        "pathParameters": session.map(|session| json!({"session_id": session})),
        "multiValueQueryStringParameters": query,
    });
    call(
        method,
        route,
        json!({"groups": groups}),
        "acme",
        more,
        Duration::from_secs(10),
    )
}

/// A call of `route` without a body, by an operator.
pub fn operators_visit(method: &str, route: &str, session: Option<&str>) -> Request {
    let more = json!({"pathParameters": session.map(|session| json!({"session_id": session}))});
    let time = Duration::from_secs(10);
    call(method, route, json!({}), "bulkhead-shared", more, time)
}

/// A call with members of the authorizer's context and of the event that differ from those of most calls.
fn call(method: &str, route: &str, claims: Value, tenant: &str, more: Value, time: Duration) -> Request {
    let mut event = json!({
        "resource": route,
        "path": route,
        "httpMethod": method,
        "headers": {"content-type": "application/json"},
        "multiValueHeaders": {"content-type": ["application/json"]},
        "requestContext": {
            "requestId": "r-1",
            "httpMethod": method,
            "resourcePath": route,
            "identity": {},
            "authorizer": {
                "tenantId": tenant,
                "userId": user(),
                "roles": if tenant == "bulkhead-shared" { "operator" } else { "reader" },
                "groups": "",
                "tokenExpiry": "4102444800",
            },
        },
        "isBase64Encoded": false,
    });
    let with = |target: &mut Value, more: Value| {
        for (name, value) in more.as_object().unwrap() {
            target[name] = value.clone();
        }
    };
    with(&mut event["requestContext"]["authorizer"], claims);
    with(&mut event, more);
    let mut context = Context::default();
    context.tenant_id = Some(tenant.to_owned());
    let deadline = SystemTime::now() + time;
    let since_epoch = deadline.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    context.deadline = u64::try_from(since_epoch.as_millis()).unwrap();
    let event: LambdaRequest = serde_json::from_value(event).unwrap();
    Request::new(LambdaEvent::new(event, context)).unwrap()
}

pub fn document(id: &str) -> Document {
    Document {
        document_id: DocumentId::parse(id).unwrap(),
        title: Some("Handbook".to_owned()),
        status: DocumentStatus::Indexed,
        submitted: true,
        version: 3,
        ..Document::declare(
            "handbook.pdf".to_owned(),
            MediaType::Pdf,
            1,
            "0".repeat(64),
            Timestamp::from_unix(0),
        )
    }
}

pub fn citation(text: &str, references: Vec<RetrievedReference>) -> Citation {
    Citation::builder()
        .generated_response_part(
            GeneratedResponsePart::builder()
                .text_response_part(TextResponsePart::builder().text(text).build())
                .build(),
        )
        .set_retrieved_references(Some(references))
        .build()
}

/// Parts that may leave, each with one passage; the first document has a title.
pub fn released(parts: &[&str]) -> Released {
    let part = |(n, text): (usize, &&str)| Part {
        text: (*text).to_owned(),
        passages: vec![Passage {
            document: DocumentId::parse(if n == 0 { DOCUMENT } else { OTHER_DOCUMENT }).unwrap(),
            origin: Origin::Tenant,
            title: if n == 0 { "Handbook" } else { "notes.pdf" }.to_owned(),
            text: format!("Passage {n}."),
            page: None,
        }],
    };
    Released::from_parts(parts.iter().enumerate().map(part).collect())
}

/// A turn whose answer begins.
pub fn turn(question: &str) -> Turn {
    Turn::begin(
        1,
        question.to_owned(),
        EngineName::Verified,
        "default".to_owned(),
        Timestamp::from_unix(0),
    )
}
