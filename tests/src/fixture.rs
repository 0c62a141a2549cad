//! A stack for tests: one shared by the whole binary, whose tests each have tenants of their own, and stacks of their own
//! for tests that change what everybody shares.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bulkhead_cli::deployment::{Answer, Call, Deployment};
use bulkhead_cli::event::{self, Event, Events};
use bulkhead_local::function::{self, Profile};
use bulkhead_local::guardrail::Guardrail;
use bulkhead_local::identity::TokenRequest;
use bulkhead_local::knowledge_base::quota::Quotas;
use bulkhead_local::stack::{Stack, StackConfig, random_name, wait_until};
use reqwest::Method;
use serde_json::{Value, json};

use crate::contract::Contract;
use crate::decision::{self, Note};
use crate::repository;

/// How long anything that a test waits for may take. Less where a statement was taken away, which is to be missed and not to
/// be waited for.
pub fn patience() -> Duration {
    Duration::from_secs(if decision::without().is_some() { 10 } else { 60 })
}

/// A guardrail that every stack of the tests has: it blocks the word "dynamite". Only the functions of
/// [`Fixture::guarded`] use it.
pub const GUARDRAIL: &str = "dynamite0000";

/// A running stack with what tests ask of it.
pub struct Fixture {
    /// The stack.
    pub stack: Stack,
    /// The deployment at its gateway.
    pub deployment: Deployment,
    /// The full sync that the stack began with, as every deployment does.
    pub ingestion: String,
    contract: Contract,
}

/// A tenant of a test's own.
pub struct Tenant {
    fixture: Arc<Fixture>,
    /// Its id.
    pub id: String,
}

/// The folder of the function binaries, built once per test run.
///
/// # Panics
/// They don't build.
pub fn binaries() -> PathBuf {
    static BINARIES: OnceLock<PathBuf> = OnceLock::new();
    BINARIES
        .get_or_init(|| {
            function::binaries(&repository::whole_template().packages(), Profile::Debug).expect("the functions build")
        })
        .clone()
}

/// A stack's configuration for tests: no quotas, and looks at a document's status as often as it is asked for.
pub fn config() -> StackConfig {
    let mut config = StackConfig::new(binaries());
    config.variables = BTreeMap::from([("BULKHEAD_INGESTION_STATUS_MAX_AGE_SECS".to_owned(), "0".to_owned())]);
    // Tests name the guardrail that they are about, and count what is asked of Bedrock.
    config
        .parameters
        .insert("CreateGuardrail".to_owned(), "false".to_owned());
    config.guardrails = vec![Guardrail::blocking(GUARDRAIL, &["dynamite"])];
    config.change_knowledge_base = Some(Box::new(|knowledge_base| knowledge_base.quotas = Quotas::unlimited()));
    config
}

impl Fixture {
    /// The stack that tests share.
    ///
    /// # Panics
    /// It does not start.
    pub fn shared() -> Arc<Self> {
        static SHARED: OnceLock<Arc<Fixture>> = OnceLock::new();
        Arc::clone(SHARED.get_or_init(|| Self::lasting(config())))
    }

    /// The stack that tests of guardrails share: questions, answers and passages pass [`GUARDRAIL`].
    ///
    /// # Panics
    /// It does not start.
    pub fn guarded() -> Arc<Self> {
        static GUARDED: OnceLock<Arc<Fixture>> = OnceLock::new();
        Arc::clone(GUARDED.get_or_init(|| {
            let mut config = config();
            let guardrail = config.guardrails.pop().expect("the guardrail");
            config.guard(guardrail);
            config
                .parameters
                .insert("GuardrailPassages".to_owned(), "true".to_owned());
            Self::lasting(config)
        }))
    }

    /// A stack that lives in a thread of its own, because the tests' runtimes come and go, and as long as the process; its
    /// children end when it does, because what they ask for events is gone.
    fn lasting(config: StackConfig) -> Arc<Self> {
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async move {
                sender
                    .send(Fixture::start(config).await)
                    .expect("somebody waits for the stack");
                std::future::pending::<()>().await;
            });
        });
        receiver.recv().expect("the stack starts")
    }

    /// A stack of a test's own.
    ///
    /// # Panics
    /// It does not start.
    pub async fn start(mut config: StackConfig) -> Arc<Self> {
        let name = random_name("stack");
        if let Some(test) = decision::test() {
            decision::note(&Note::Stack {
                test,
                stack: name.clone(),
            });
        }
        if decision::log().is_some() {
            config.on_decision = Some(Arc::new(move |statement, tenant| {
                decision::note(&Note::Decided {
                    statement: statement.to_owned(),
                    tenant: tenant.map(str::to_owned),
                    stack: name.clone(),
                });
            }));
        }
        config.without_statements.extend(decision::without());
        let stack = Stack::start(config).await.expect("the stack starts");
        let deployment = Deployment::new(&stack.base_url()).expect("a deployment");
        let mut fixture = Self {
            stack,
            deployment,
            ingestion: String::new(),
            contract: Contract::load(),
        };
        fixture.ingestion = fixture.synchronise().await;
        Arc::new(fixture)
    }

    /// Sends a request and checks the answer against the contract.
    ///
    /// # Panics
    /// There is no answer, or the contract does not know it.
    pub async fn send(&self, call: &Call) -> Answer {
        let answer = self.deployment.send(call).await.expect("an answer");
        self.contract.check(call, &answer);
        answer
    }

    /// As [`Fixture::send`], and demands a status.
    ///
    /// # Panics
    /// The answer has another one.
    pub async fn expect(&self, status: u16, call: &Call) -> Answer {
        let answer = self.send(call).await;
        assert_eq!(
            answer.status.as_u16(),
            status,
            "{} {}: {}",
            call.method,
            call.path,
            answer.text()
        );
        answer
    }

    /// Sends a request, demands that it is answered by events, and reads them to their end.
    ///
    /// # Panics
    /// The answer is another one, or its events are not as the contract says.
    pub async fn events(&self, call: &Call) -> Vec<Event> {
        let answer = self.expect(200, call).await;
        assert!(
            answer.is_event_stream(),
            "{} {}: {}",
            call.method,
            call.path,
            answer.text()
        );
        event::read(&answer.body).expect("events")
    }

    /// Sends a request, demands that it is answered by events, and leaves them to be read one by one.
    ///
    /// # Panics
    /// The answer is another one.
    pub async fn open(&self, call: &Call) -> Events {
        let events = self.deployment.stream(call).await.expect("an answer");
        assert_eq!(events.status.as_u16(), 200, "{} {}", call.method, call.path);
        events
    }

    /// The contract.
    pub fn contract(&self) -> &Contract {
        &self.contract
    }

    /// A token of the stack's identity provider.
    ///
    /// # Panics
    /// It can't be signed.
    pub fn token(&self, request: &TokenRequest) -> String {
        self.stack.identity().token(request).expect("a token")
    }

    /// An operator's token.
    pub fn operator(&self) -> String {
        self.token(&TokenRequest::operator())
    }

    /// A new tenant with a random id, created through the control plane.
    pub async fn tenant(self: &Arc<Self>, prefix: &str) -> Tenant {
        self.named_tenant(&random_name(prefix), &[]).await
    }

    /// A new tenant with groups.
    pub async fn named_tenant(self: &Arc<Self>, id: &str, groups: &[&str]) -> Tenant {
        let body = json!({"tenant": id, "groups": groups});
        self.expect(
            201,
            &Call::new(Method::POST, "/tenants").token(self.operator()).json(&body),
        )
        .await;
        self.made(id)
    }

    /// A new tenant with a random id, and with what `members` of the request say: its plan, groups, attributes.
    pub async fn tenant_with(self: &Arc<Self>, prefix: &str, members: Value) -> Tenant {
        let mut body = json!({"tenant": random_name(prefix)});
        for (member, value) in members.as_object().into_iter().flatten() {
            body[member] = value.clone();
        }
        let call = Call::new(Method::POST, "/tenants").token(self.operator()).json(&body);
        let created = self.expect(201, &call).await.json();
        self.made(created["tenant"].as_str().unwrap_or_default())
    }

    /// A tenant that is there now, of the test that runs.
    fn made(self: &Arc<Self>, id: &str) -> Tenant {
        if let Some(test) = decision::test() {
            let tenant = id.to_owned();
            decision::note(&Note::Tenant { test, tenant });
        }
        Tenant {
            fixture: Arc::clone(self),
            id: id.to_owned(),
        }
    }

    /// Runs a full sync to its end, as soon as the lease is free; gives its id.
    ///
    /// # Panics
    /// It does not end.
    pub async fn synchronise(&self) -> String {
        let operator = self.operator();
        let started = wait_until("the lease is free", patience(), || async {
            let answer = self
                .send(&Call::new(Method::POST, "/ingestions").token(&operator))
                .await;
            assert!([202, 409].contains(&answer.status.as_u16()), "{}", answer.text());
            Ok((answer.status.as_u16() == 202).then(|| answer.json()))
        })
        .await
        .expect("a free lease");
        let id = started["ingestion_id"].as_str().expect("an id").to_owned();
        let path = format!("/ingestions/{id}");
        wait_until("the sync ends", patience(), || async {
            let ingestion = self
                .expect(200, &Call::new(Method::GET, &path).token(&operator))
                .await
                .json();
            Ok((ingestion["status"] == "complete").then_some(()))
        })
        .await
        .expect("a sync that ends");
        id
    }
}

impl Tenant {
    /// The fixture that it belongs to.
    pub fn fixture(&self) -> &Arc<Fixture> {
        &self.fixture
    }

    /// A token of one of its users.
    pub fn token(&self, user: &str, roles: &[&str]) -> String {
        self.fixture.token(&TokenRequest {
            user: Some(user.to_owned()),
            ..TokenRequest::member(&self.id, roles)
        })
    }

    /// A token of a user who is in groups.
    pub fn group_token(&self, user: &str, groups: &[&str]) -> String {
        self.fixture.token(&TokenRequest {
            user: Some(user.to_owned()),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            ..TokenRequest::member(&self.id, &[])
        })
    }

    /// A token of its reader.
    pub fn reader(&self) -> String {
        self.token("rita", &[])
    }

    /// A token of its admin.
    pub fn admin(&self) -> String {
        self.token("ada", &["admin"])
    }

    /// Uploads a text and waits until it is indexed; gives its id.
    ///
    /// # Panics
    /// It is not indexed.
    pub async fn upload(&self, name: &str, text: &str) -> String {
        let id = self
            .fixture
            .deployment
            .upload(&self.admin(), name, "text/plain", text.as_bytes())
            .await
            .expect("an upload");
        assert_eq!(self.settled(&id).await["status"], "indexed");
        id
    }

    /// Waits until a document is no longer being processed; gives its record.
    ///
    /// # Panics
    /// It goes on being processed.
    pub async fn settled(&self, id: &str) -> Value {
        let call = Call::new(Method::GET, format!("/documents/{id}")).token(self.admin());
        wait_until("a document settles", patience(), || async {
            let document = self.fixture.expect(200, &call).await.json();
            Ok((document["status"] != "processing").then_some(document))
        })
        .await
        .expect("a document that settles")
    }

    /// Asks a question as its reader.
    pub async fn ask(&self, question: &str) -> Answer {
        self.ask_as(&self.reader(), json!({"user_query": question})).await
    }

    /// Asks a question as its reader and reads the stream to its end.
    pub async fn stream(&self, question: &str) -> Vec<Event> {
        self.stream_as(&self.reader(), json!({"user_query": question})).await
    }

    /// Asks for a stream with a body and a token of the test's choice, and reads it to its end.
    pub async fn stream_as(&self, token: &str, body: Value) -> Vec<Event> {
        self.fixture
            .events(&Call::new(Method::POST, "/genai/query/stream").token(token).json(&body))
            .await
    }

    /// Asks with a body and a token of the test's choice.
    pub async fn ask_as(&self, token: &str, body: Value) -> Answer {
        self.fixture
            .send(&Call::new(Method::POST, "/genai/query").token(token).json(&body))
            .await
    }
}
