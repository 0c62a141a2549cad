//! A guardrail on every way to an answer: what it blocks reaches nobody, whoever said it, and what is innocent goes on
//! being answered. Questions and answers pass it in Bedrock, passages by a call of their own.

use std::collections::BTreeSet;

use bulkhead_cli::deployment::Call;
use bulkhead_cli::event;
use bulkhead_local::model::prompt::Purpose;
use bulkhead_local::model::script::Script;
use integration_tests::fixture::{self, Fixture, GUARDRAIL, Tenant};
use reqwest::Method;
use serde_json::{Value, json};

/// The word that the guardrail blocks.
const WORD: &str = "dynamite";
const INNOCENT: &str = "What does the lamp of the lighthouse burn?";
/// A user says the word, of what an innocent document is about.
const IN_QUESTION: &str = "Does the lamp of the lighthouse burn dynamite?";
/// What answers this holds the word.
const IN_ANSWER: &str = "What does the quarry blast its granite with?";
/// What answers this stands beside the word, in the same passage.
const BESIDE: &str = "When was the quarry opened?";
const NO_ANSWER: &str = "No exact answer was found in your documents.";

/// A way to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Whole,
    Stream,
    Chat,
}

/// Every plan that names its engine, with every way to ask that it has an influence on.
const WAYS: [(&str, Route); 5] = [
    ("managed", Route::Whole),
    ("managed", Route::Stream),
    ("verified", Route::Whole),
    ("verified", Route::Stream),
    ("verified", Route::Chat),
];

/// What a client was told.
#[derive(Debug)]
struct Told {
    text: String,
    action: String,
    session: Option<String>,
}

async fn tenant(plan: &str) -> Tenant {
    let tenant = Fixture::guarded().tenant_with("guard", json!({"plan": plan})).await;
    for (name, text) in [
        (
            "lighthouse.txt",
            "The lamp of the lighthouse burns whale oil. The lighthouse was built in 1862.",
        ),
        (
            "quarry.txt",
            "The quarry blasts its granite with Dynamite. The quarry was opened in 1887.",
        ),
    ] {
        tenant.upload(name, text).await;
    }
    tenant
}

impl Route {
    /// Asks, and sees that not a byte of what comes back is the word, and that a stream says twice what a guardrail did.
    async fn ask(self, tenant: &Tenant, question: &str, session: Option<&str>) -> Told {
        let (path, mut body) = match self {
            Self::Whole => ("/genai/query", json!({ "user_query": question })),
            Self::Stream => ("/genai/query/stream", json!({ "user_query": question })),
            Self::Chat => ("/genai/chat", json!({ "message": question })),
        };
        if let Some(session) = session {
            body["session_id"] = json!(session);
        }
        self.send(tenant, path, &body).await
    }

    async fn send(self, tenant: &Tenant, path: &str, body: &Value) -> Told {
        let call = Call::new(Method::POST, path).token(tenant.reader()).json(body);
        let answer = tenant.fixture().expect(200, &call).await;
        let is_clean = |text: &str| !text.to_lowercase().contains(WORD);
        assert!(is_clean(&answer.text()), "{self:?}: {}", answer.text());
        if self == Self::Whole {
            let answer = answer.json();
            return Told {
                text: answer["output"]["text"].as_str().unwrap().to_owned(),
                action: answer["guardrailAction"].as_str().unwrap().to_owned(),
                session: answer["sessionId"].as_str().map(str::to_owned),
            };
        }
        // That there is one terminal event, and that it is the last, is what the contract's check has seen.
        let events = event::read(&answer.body).unwrap();
        let said = |name: &'static str| events.iter().filter(move |event| event.name == name);
        let deltas: String = said("delta").filter_map(|event| event.data["text"].as_str()).collect();
        assert!(is_clean(&deltas), "{self:?}: {deltas}");
        let end = events.last().unwrap();
        assert_eq!(end.name, "done", "{events:?}");
        let action = end.data["guardrail_action"].as_str().unwrap().to_owned();
        assert_eq!(
            said("guardrail").count(),
            usize::from(action == "INTERVENED"),
            "{events:?}"
        );
        Told {
            text: event::text(&events),
            action,
            session: said("session")
                .next()
                .map(|event| event.data["session_id"].as_str().unwrap().to_owned()),
        }
    }
}

/// Sees that the last turn of the conversation, if there is one, says of itself what the client was told.
async fn is_kept(tenant: &Tenant, told: &Told) {
    let Some(session) = &told.session else { return };
    let call = Call::new(Method::GET, format!("/sessions/{session}?limit=100")).token(tenant.reader());
    let conversation = tenant.fixture().expect(200, &call).await.json();
    let turn = conversation["turns"].as_array().unwrap().last().expect("a turn");
    assert_eq!(
        (&turn["status"], &turn["guardrail_action"], &turn["output"]["text"]),
        (&json!("complete"), &json!(told.action), &json!(told.text))
    );
    for part in [&turn["output"], &turn["citations"]] {
        assert!(!part.to_string().to_lowercase().contains(WORD), "{part}");
    }
}

/// Sees that it was stopped, says so wherever it is told, and has nothing of the document in it.
async fn is_stopped(tenant: &Tenant, told: &Told, way: (&str, Route)) {
    assert_eq!(told.action, "INTERVENED", "{way:?}: {told:?}");
    assert!(
        !told.text.is_empty() && !told.text.contains("whale") && !told.text.contains("granite"),
        "{way:?}: {told:?}"
    );
    is_kept(tenant, told).await;
}

async fn is_answered(tenant: &Tenant, told: &Told, answer: &str, way: (&str, Route)) {
    assert_eq!(told.action, "NONE", "{way:?}: {told:?}");
    assert!(told.text.contains(answer), "{way:?}: {told:?}");
    is_kept(tenant, told).await;
}

#[tokio::test]
async fn a_question_is_stopped_and_the_conversation_goes_on() {
    for way @ (plan, route) in WAYS {
        let tenant = tenant(plan).await;
        let first = route.ask(&tenant, INNOCENT, None).await;
        is_answered(&tenant, &first, "whale oil", way).await;
        let stopped = route.ask(&tenant, IN_QUESTION, None).await;
        is_stopped(&tenant, &stopped, way).await;
        for told in [first, stopped] {
            // A chat has none.
            let Some(session) = told.session.as_deref() else {
                continue;
            };
            let again = route.ask(&tenant, IN_QUESTION, Some(session)).await;
            is_stopped(&tenant, &again, way).await;
            let innocent = route.ask(&tenant, INNOCENT, Some(session)).await;
            is_answered(&tenant, &innocent, "whale oil", way).await;
        }
    }
}

#[tokio::test]
async fn an_answer_is_stopped_wherever_the_word_is_split() {
    for way @ (plan, route) in WAYS {
        let tenant = tenant(plan).await;
        if plan == "managed" {
            // Its model takes the word from the document.
            let told = route.ask(&tenant, IN_ANSWER, None).await;
            is_stopped(&tenant, &told, way).await;
        } else {
            for pieces in [
                vec!["The lamp burns whale oil [1] and dynamite [1]."],
                vec!["The lamp burns whale oil [1] and dyna", "mite", " [1]."],
                vec!["Dynamite [1].", " The lamp burns whale oil [1]."],
            ] {
                let script = Script::new().say_all(pieces);
                tenant.fixture().stack.models().script(&tenant.id, script);
                let told = route.ask(&tenant, INNOCENT, None).await;
                is_stopped(&tenant, &told, way).await;
            }
        }
        let innocent = route.ask(&tenant, INNOCENT, None).await;
        is_answered(&tenant, &innocent, "whale oil", way).await;
    }
}

#[tokio::test]
async fn a_passage_with_the_word_is_neither_shown_nor_read() {
    for way @ (plan, route) in WAYS {
        let tenant = tenant(plan).await;
        // The sentence itself is innocent; the passage that it would be cited from is not.
        let beside = route.ask(&tenant, BESIDE, None).await;
        is_answered(&tenant, &beside, NO_ANSWER, way).await;
        if plan == "verified" {
            let told = route.ask(&tenant, IN_ANSWER, None).await;
            is_answered(&tenant, &told, NO_ANSWER, way).await;
            for call in tenant.fixture().stack.models().calls_of(&tenant.id) {
                assert!(!call.body.to_string().contains("1887"), "{}", call.body);
            }
        }
    }
    let tenant = tenant("standard").await;
    for (query, found) in [
        (INNOCENT, true),
        (IN_QUESTION, true),
        (IN_ANSWER, false),
        (BESIDE, false),
    ] {
        let call = Call::new(Method::POST, "/genai/retrieve")
            .token(tenant.reader())
            .json(&json!({ "query": query }));
        let passages = tenant.fixture().expect(200, &call).await;
        let text = passages.text();
        assert!(
            !text.to_lowercase().contains(WORD) && !text.contains("1887"),
            "{query}: {text}"
        );
        if found {
            assert!(text.contains("whale oil"), "{query}: {text}");
        }
    }
}

#[tokio::test]
async fn what_a_client_says_was_said_before_gets_no_word_past() {
    let tenant = tenant("verified").await;
    // Made self-contained, the question takes the word from its history.
    let body = json!({
        "message": "And when was it built?",
        "history": [
            {"role": "user", "content": "What was the lighthouse built with, dynamite?"},
            {"role": "assistant", "content": "Stone."},
        ],
    });
    let told = Route::Chat.send(&tenant, "/genai/chat", &body).await;
    is_stopped(&tenant, &told, ("verified", Route::Chat)).await;
}

#[tokio::test]
async fn every_call_of_a_model_names_the_guardrail_and_its_version() {
    let (mut operations, mut purposes) = (BTreeSet::new(), BTreeSet::new());
    for (plan, route) in WAYS {
        let tenant = tenant(plan).await;
        let first = route.ask(&tenant, INNOCENT, None).await;
        let follow_up = "And when was it built?";
        let second = match route {
            Route::Chat => {
                let history = json!([
                    {"role": "user", "content": INNOCENT},
                    {"role": "assistant", "content": first.text},
                ]);
                let body = json!({"message": follow_up, "history": history});
                route.send(&tenant, "/genai/chat", &body).await
            }
            Route::Whole | Route::Stream => route.ask(&tenant, follow_up, first.session.as_deref()).await,
        };
        is_answered(&tenant, &second, "1862", (plan, route)).await;
        let stack = &tenant.fixture().stack;
        for call in stack.models().calls_of(&tenant.id) {
            let named = &call.body["guardrailConfig"];
            assert_eq!(
                (&named["guardrailIdentifier"], &named["guardrailVersion"]),
                (&json!(GUARDRAIL), &json!("1")),
                "{plan} {route:?}: {}",
                call.body
            );
            if call.operation == "ConverseStream" {
                assert_eq!(named["streamProcessingMode"], "sync");
            }
            operations.insert(call.operation.to_owned());
            purposes.extend(call.purpose.map(|purpose| match purpose {
                Purpose::Answer => "answer",
                Purpose::Rewriting => "rewriting",
                Purpose::Unknown => "unknown",
            }));
        }
        let generation = "/retrieveAndGenerateConfiguration/knowledgeBaseConfiguration/generationConfiguration";
        for call in stack.front_door().recorder().calls_of(&tenant.id) {
            match call.operation.as_str() {
                "RetrieveAndGenerate" | "RetrieveAndGenerateStream" => assert_eq!(
                    call.request.pointer(&format!("{generation}/guardrailConfiguration")),
                    Some(&json!({"guardrailId": GUARDRAIL, "guardrailVersion": "1"})),
                    "{plan} {route:?}: {}",
                    call.request
                ),
                "ApplyGuardrail" => {
                    let path = call.resource.names().concat();
                    assert!(path.ends_with(&format!("/{GUARDRAIL}/version/1/apply")), "{path}");
                }
                _ => continue,
            }
            operations.insert(call.operation);
        }
    }
    assert_eq!(
        operations.iter().map(String::as_str).collect::<Vec<_>>(),
        [
            "ApplyGuardrail",
            "Converse",
            "ConverseStream",
            "RetrieveAndGenerate",
            "RetrieveAndGenerateStream"
        ]
    );
    assert_eq!(purposes.into_iter().collect::<Vec<_>>(), ["answer", "rewriting"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_has_a_guardrail_of_its_own() {
    let mut config = fixture::config();
    config.guardrails.clear();
    config.parameters.remove("CreateGuardrail");
    let fixture = Fixture::start(config).await;
    let tenant = fixture.tenant_with("own", json!({"plan": "verified"})).await;
    tenant
        .upload("lighthouse.txt", "The lamp of the lighthouse burns whale oil.")
        .await;
    let answered = Route::Whole.ask(&tenant, INNOCENT, None).await;
    assert_eq!(answered.action, "NONE", "{answered:?}");
    assert!(answered.text.contains("whale oil"), "{answered:?}");
    let question = "Does the lamp burn a bulkhead-guardrail-test-string?";
    let stopped = Route::Whole.ask(&tenant, question, None).await;
    assert_eq!(stopped.action, "INTERVENED", "{stopped:?}");
    assert!(!stopped.text.contains("whale oil"), "{stopped:?}");
}
