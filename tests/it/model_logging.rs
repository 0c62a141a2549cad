//! Model invocation logging as a custom resource: the real function, with this test in CloudFormation's place. It sends
//! the events and listens where the answers go.
//!
//! The configuration is one for the whole Region, so every test has a stack of its own and does one thing after
//! another.

use std::sync::{Arc, Mutex};

use bulkhead_local::fault::{Effect, Fault, Matcher};
use bulkhead_local::lambda::Outcome;
use bulkhead_local::record;
use bulkhead_local::stack::Stack;
use bulkhead_local::template::LogicalId;
use integration_tests::fixture::{Fixture, config};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const FUNCTION: &str = "ModelLoggingFunction";
const STACK: &str = "arn:aws:cloudformation:us-east-1:123456789012:stack/bulkhead/6f3a1c20";
const GROUP: &str = "/bulkhead/bulkhead/model-invocations";
/// A part of the address that must be in no log, as the signature of a real one.
const SECRET: &str = "signature-3c5ad9";

/// Where answers go: a listener that keeps what is put to it.
struct Mailbox {
    url: String,
    received: Arc<Mutex<Vec<String>>>,
    /// Statuses of the next answers; 200 when there are none.
    statuses: Arc<Mutex<Vec<u16>>>,
}

impl Mailbox {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/?{SECRET}", listener.local_addr().unwrap());
        let (received, statuses) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<Mutex<Vec<u16>>>::default());
        let mailbox = Self {
            url,
            received: Arc::clone(&received),
            statuses: Arc::clone(&statuses),
        };
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut text = String::new();
                while !is_whole(&text) {
                    let mut buffer = [0; 4096];
                    let read = stream.read(&mut buffer).await.unwrap();
                    assert_ne!(read, 0, "a request that ends early: {text}");
                    text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
                }
                received.lock().unwrap().push(text);
                let status = statuses.lock().unwrap().pop().unwrap_or(200);
                let answer = format!("HTTP/1.1 {status} -\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        mailbox
    }

    /// The documents since the last look.
    fn documents(&self) -> Vec<Value> {
        let received = std::mem::take(&mut *self.received.lock().unwrap());
        received
            .iter()
            .map(|request| {
                let (head, body) = request.split_once("\r\n\r\n").unwrap();
                let head = head.to_ascii_lowercase();
                assert!(head.starts_with("put /?"), "{head}");
                // What the real address is signed for.
                assert!(head.lines().any(|line| line.trim_end() == "content-type:"), "{head}");
                serde_json::from_str(body).unwrap()
            })
            .collect()
    }
}

fn is_whole(request: &str) -> bool {
    request.split_once("\r\n\r\n").is_some_and(|(head, body)| {
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse::<usize>().unwrap())
        });
        body.len() == length.unwrap_or(0)
    })
}

/// A stack that has the resource, and its CloudFormation.
struct Scene {
    fixture: Arc<Fixture>,
    mailbox: Mailbox,
    parameter: String,
}

impl Scene {
    async fn new() -> Self {
        Self::with_earlier_role("").await
    }

    /// As [`Self::new`], and the deployment says which role Bedrock logs with already.
    async fn with_earlier_role(role: &str) -> Self {
        let mut config = config();
        let parameters = [
            ("ModelInvocationLogging", "true"),
            ("EarlierInvocationLoggingRole", role),
        ];
        let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned()));
        config.parameters.extend(parameters);
        let fixture = Fixture::start(config).await;
        let function = fixture.stack.template().function(&LogicalId::new(FUNCTION)).unwrap();
        let parameter = function.environment["BULKHEAD_PARAMETER_NAME"].clone();
        Self {
            fixture,
            mailbox: Mailbox::open().await,
            parameter,
        }
    }

    fn stack(&self) -> &Stack {
        &self.fixture.stack
    }

    fn event(&self, request_type: &str) -> Value {
        let mut event = json!({
            "RequestType": request_type,
            "ResponseURL": self.mailbox.url,
            "StackId": STACK,
            "RequestId": format!("request-{request_type}"),
            "ServiceToken": "arn:aws:lambda:us-east-1:123456789012:function:model-logging",
            "ResourceType": "Custom::ModelInvocationLogging",
            "LogicalResourceId": "ModelInvocationLoggingSetting",
            "ResourceProperties": {
                "ServiceToken": "arn:aws:lambda:us-east-1:123456789012:function:model-logging",
                "ServiceTimeout": "900",
                "LogGroupName": GROUP,
                "RoleArn": self.role(),
            },
        });
        if request_type != "Create" {
            event["PhysicalResourceId"] = json!(self.parameter);
        }
        if request_type == "Update" {
            event["OldResourceProperties"] = json!({"LogGroupName": GROUP});
        }
        event
    }

    fn role(&self) -> String {
        let mut roles = self.stack().template().roles.iter();
        let role = roles.find(|role| role.logical_id.as_str() == "ModelInvocationLogsRole");
        role.unwrap().arn.clone()
    }

    async fn invoke(&self, event: &Value) -> Outcome {
        let payload = event.to_string().into();
        let function = LogicalId::new(FUNCTION);
        self.stack().lambda().invoke(&function, None, payload).await.unwrap()
    }

    /// Sends an event and gives the one answer to it: its status and reason.
    async fn tell(&self, event: &Value) -> (String, String) {
        let outcome = self.invoke(event).await;
        assert!(matches!(outcome, Outcome::Buffered(_)), "{outcome:?}");
        let [document] = self.mailbox.documents().try_into().unwrap();
        assert_eq!(document["PhysicalResourceId"], self.parameter, "{document}");
        for member in ["StackId", "RequestId", "LogicalResourceId"] {
            assert_eq!(document[member], event[member], "{document}");
        }
        let text = |member: &str| document[member].as_str().unwrap().to_owned();
        (text("Status"), text("Reason"))
    }

    async fn succeed(&self, request_type: &str) -> String {
        let (status, reason) = self.tell(&self.event(request_type)).await;
        assert_eq!(status, "SUCCESS", "{request_type}: {reason}");
        reason
    }

    async fn fail(&self, request_type: &str) -> String {
        let (status, reason) = self.tell(&self.event(request_type)).await;
        assert_eq!(status, "FAILED", "{request_type}: {reason}");
        reason
    }

    fn configured(&self) -> Option<Value> {
        self.stack().invocation_logging().configured()
    }

    fn kept(&self) -> Option<Value> {
        let value = self.stack().parameters().value(&self.parameter)?;
        Some(serde_json::from_str(&value).unwrap())
    }

    fn ours(&self) -> Value {
        json!({
            "cloudWatchConfig": {"logGroupName": GROUP, "roleArn": self.role()},
            "textDataDeliveryEnabled": true,
            "imageDataDeliveryEnabled": false,
            "embeddingDataDeliveryEnabled": false,
            "videoDataDeliveryEnabled": false,
            "audioDataDeliveryEnabled": false,
        })
    }

    /// As if nothing had ever been here but what somebody else configured.
    fn begin_with(&self, before: Option<&Value>) {
        self.stack().invocation_logging().configure(before.cloned());
        self.stack().parameters().set(&self.parameter, None);
    }

    fn is_as_it_was(&self, before: Option<&Value>) {
        assert_eq!(self.configured().as_ref(), before);
        assert_eq!(self.kept(), None);
    }

    /// What the function has asked of AWS so far.
    fn calls(&self) -> Vec<record::Call> {
        let mut calls = self.stack().front_door().recorder().calls();
        calls.retain(|call| {
            let caller = call.caller.as_ref();
            caller.is_some_and(|caller| caller.principal == FUNCTION)
        });
        calls
    }

    fn inject(&self, operation: &str, effect: Effect, skip: usize, times: Option<u32>) {
        self.stack().front_door().faults().inject(Fault {
            matcher: Matcher {
                operation: Some(operation.to_owned()),
                ..Matcher::default()
            },
            effect,
            skip: u32::try_from(skip).unwrap(),
            times,
        });
    }
}

fn audit() -> Value {
    json!({"s3Config": {"bucketName": "audit", "keyPrefix": "models"}, "textDataDeliveryEnabled": true})
}

fn refusal(status: u16, code: &str) -> Effect {
    Effect::Status {
        status,
        code: code.to_owned(),
        message: "Failed to validate permissions for log group".to_owned(),
    }
}

const PUT: &str = "PutModelInvocationLoggingConfiguration";

#[tokio::test]
async fn what_was_configured_before_comes_back() {
    let scene = Scene::new().await;
    for before in [None, Some(audit())] {
        scene.begin_with(before.as_ref());
        for request_type in ["Create", "Update", "Create"] {
            scene.succeed(request_type).await;
            assert_eq!(scene.configured(), Some(scene.ours()));
            assert_eq!(scene.kept(), Some(json!({"stack": STACK, "before": before})));
        }
        for _ in 0..2 {
            scene.succeed("Delete").await;
            scene.is_as_it_was(before.as_ref());
        }
    }

    // Somebody sets theirs meanwhile: it stays, and what was before it is not lost.
    scene.begin_with(Some(&audit()));
    scene.succeed("Create").await;
    let theirs = json!({"s3Config": {"bucketName": "theirs"}});
    scene.stack().invocation_logging().configure(Some(theirs.clone()));
    let reason = scene.succeed("Delete").await;
    assert!(
        reason.contains("left as it is") && reason.contains("parameter"),
        "{reason}"
    );
    assert_eq!(scene.configured(), Some(theirs.clone()));
    assert_eq!(scene.kept(), Some(json!({"stack": STACK, "before": audit()})));
    // Wanted again, it is theirs that is kept and comes back.
    let reason = scene.succeed("Create").await;
    assert!(reason.contains("is kept, to be restored"), "{reason}");
    scene.succeed("Delete").await;
    scene.is_as_it_was(Some(&theirs));

    let logs = scene.stack().lambda().logs();
    assert!(logs.iter().any(|line| line.text.contains("request.type")), "{logs:?}");
    for line in logs {
        for secret in [SECRET, "audit", "theirs"] {
            assert!(!line.text.contains(secret), "{}", line.text);
        }
    }
}

#[tokio::test]
async fn wherever_it_was_cut_off_what_was_before_comes_back() {
    let scene = Scene::new().await;
    let before = audit();
    scene.begin_with(Some(&before));
    let mut cases = Vec::new();
    for request_type in ["Create", "Delete"] {
        let earlier = scene.calls().len();
        scene.succeed(request_type).await;
        let calls = scene.calls().split_off(earlier);
        for (place, call) in calls.iter().enumerate() {
            let is_same = |earlier: &&record::Call| earlier.operation == call.operation;
            let ordinal = calls[..place].iter().filter(is_same).count();
            for effect in [Effect::Drop, Effect::DropAnswer] {
                cases.push((request_type, call.operation.clone(), ordinal, effect));
            }
        }
    }
    scene.is_as_it_was(Some(&before));
    assert_eq!(cases.len(), 2 * (5 + 4), "{cases:?}");
    for (request_type, operation, ordinal, effect) in cases {
        // CloudFormation, told that a creation failed, deletes what there may be; an event that was not answered is
        // sent again, and so is a deletion that whoever deploys tries once more.
        let ways = if request_type == "Create" {
            &[true, false][..]
        } else {
            &[true]
        };
        for is_repeated in ways {
            let case = format!("{request_type}, {operation} no. {ordinal}, {effect:?}, {is_repeated}");
            scene.begin_with(Some(&before));
            if request_type == "Delete" {
                scene.succeed("Create").await;
            }
            scene.inject(&operation, effect.clone(), ordinal, None);
            let reason = scene.fail(request_type).await;
            assert!(reason.contains(&operation), "{case}: {reason}");
            scene.stack().front_door().faults().clear();
            if *is_repeated && request_type == "Create" {
                scene.succeed("Create").await;
                assert_eq!(scene.configured(), Some(scene.ours()), "{case}");
            }
            scene.succeed("Delete").await;
            assert_eq!(scene.configured().as_ref(), Some(&before), "{case}");
            assert_eq!(scene.kept(), None, "{case}");
        }
    }
}

#[tokio::test]
async fn a_role_that_bedrock_does_not_know_yet_is_tried_again() {
    let scene = Scene::new().await;
    scene.inject(PUT, refusal(400, "ValidationException"), 0, Some(2));
    scene.succeed("Create").await;
    assert_eq!(scene.configured(), Some(scene.ours()));
    let tries = scene.calls().iter().filter(|call| call.operation == PUT).count();
    assert_eq!(tries, 3);
}

#[tokio::test]
async fn what_could_not_be_restored_is_not_replaced() {
    let scene = Scene::new().await;
    let before = audit();
    scene.begin_with(Some(&before));
    scene.inject(PUT, refusal(403, "AccessDeniedException"), 0, Some(1));
    let reason = scene.fail("Create").await;
    assert!(reason.contains("EarlierInvocationLoggingRole"), "{reason}");
    scene.is_as_it_was(Some(&before));
    scene.succeed("Delete").await;
    scene.is_as_it_was(Some(&before));
}

const AUDIT_ROLE: &str = "arn:aws:iam::123456789012:role/audit";

/// A configuration that Bedrock writes with a role of its own.
fn audit_log() -> Value {
    json!({"cloudWatchConfig": {"logGroupName": "audit", "roleArn": AUDIT_ROLE}})
}

#[tokio::test]
async fn a_role_that_was_not_named_can_not_be_passed_again() {
    let scene = Scene::new().await;
    scene.begin_with(Some(&audit_log()));
    let reason = scene.fail("Create").await;
    assert!(reason.contains("iam:PassRole"), "{reason}");
    scene.is_as_it_was(Some(&audit_log()));
}

#[tokio::test]
async fn a_role_that_was_named_is_passed_again() {
    let scene = Scene::with_earlier_role(AUDIT_ROLE).await;
    scene.begin_with(Some(&audit_log()));
    scene.succeed("Create").await;
    assert_eq!(scene.configured(), Some(scene.ours()));
    scene.succeed("Delete").await;
    scene.is_as_it_was(Some(&audit_log()));
}

#[tokio::test]
async fn what_bedrock_does_not_take_back_is_kept_and_the_stack_can_go() {
    let scene = Scene::new().await;
    scene.begin_with(Some(&audit()));
    scene.succeed("Create").await;
    scene.inject(PUT, refusal(400, "ValidationException"), 0, None);
    for _ in 0..2 {
        let reason = scene.succeed("Delete").await;
        assert!(reason.contains("stays in the stack's parameter"), "{reason}");
        assert_eq!(scene.configured(), None);
        assert_eq!(scene.kept(), Some(json!({"stack": STACK, "before": audit()})));
    }
}

#[tokio::test]
async fn every_event_with_an_address_is_answered() {
    let scene = Scene::new().await;
    let mut event = scene.event("Create");
    event["ResourceProperties"] = json!({});
    assert_eq!(scene.tell(&event).await.0, "FAILED");
    // Its deletion has the same properties, and must not fail for ever.
    event["RequestType"] = json!("Delete");
    event["PhysicalResourceId"] = json!(scene.parameter);
    assert_eq!(scene.tell(&event).await.0, "SUCCESS");

    let outcome = scene
        .invoke(&json!({"ResponseURL": scene.mailbox.url, "RequestType": 7}))
        .await;
    assert!(matches!(outcome, Outcome::Buffered(_)), "{outcome:?}");
    let [document] = scene.mailbox.documents().try_into().unwrap();
    assert_eq!(document["Status"], "FAILED");

    // One that goes astray at first is sent again, and one that can't be sent fails, so that Lambda repeats the event.
    *scene.mailbox.statuses.lock().unwrap() = vec![200, 503];
    let outcome = scene.invoke(&scene.event("Create")).await;
    assert!(matches!(outcome, Outcome::Buffered(_)), "{outcome:?}");
    assert_eq!(scene.mailbox.documents().len(), 2);
    *scene.mailbox.statuses.lock().unwrap() = vec![403];
    let outcome = scene.invoke(&scene.event("Delete")).await;
    assert!(matches!(outcome, Outcome::FunctionError(_)), "{outcome:?}");
    assert_eq!(scene.mailbox.documents().len(), 1);
    scene.is_as_it_was(None);

    for event in [json!({}), json!("Create"), json!({"ResponseURL": ""})] {
        let outcome = scene.invoke(&event).await;
        assert!(matches!(outcome, Outcome::FunctionError(_)), "{event}: {outcome:?}");
    }
    assert_eq!(scene.mailbox.documents(), Vec::<Value>::new());
    for line in scene.stack().lambda().logs() {
        assert!(!line.text.contains(SECRET), "{}", line.text);
    }
}
