//! Crash points: every call to AWS that a completion, a deletion and the looks after them make is cut off once.
//!
//! What to cut is not listed by hand. Each task is carried out undisturbed and its calls are recorded; then, for each of
//! them, a fresh tenant's task is cut off at that call, before or after it took effect. Wherever it was cut, a repetition
//! finishes it, or looks alone where it was answered that it is under way; and at no moment was there an object in the data
//! source without its sidecar.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_cli::deployment::{Answer, Call};
use bulkhead_local::fault::{Effect, Fault, Matcher};
use bulkhead_local::knowledge_base::catalogue::Status;
use bulkhead_local::object::ObjectStore as _;
use bulkhead_local::record::{self, Resource, Service};
use bulkhead_local::stack::{random_name, wait_until};
use futures::StreamExt as _;
use integration_tests::fixture::{Fixture, Tenant, config, patience};
use reqwest::Method;

use crate::documents::{complete, declaration, declare, id_of, put};

const QUESTION: &str = "Where was the crash of the cart heard?";

/// Cases that run side by side.
const LANES: usize = 4;

/// A request whose calls are cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    /// `POST …/complete`.
    Complete,
    /// The `GET` that finds a document indexed.
    SeeIndexed,
    /// `DELETE`.
    Delete,
    /// The `GET` that finds a document forgotten, and ends its deletion.
    SeeForgotten,
}

impl Task {
    const ALL: [Self; 4] = [Self::Complete, Self::SeeIndexed, Self::Delete, Self::SeeForgotten];

    /// Whether the document is to be gone in the end.
    fn ends_it(self) -> bool {
        match self {
            Self::Complete | Self::SeeIndexed => false,
            Self::Delete | Self::SeeForgotten => true,
        }
    }

    /// Some of the calls without which it would not be the task.
    fn essentials(self) -> &'static [&'static str] {
        match self {
            Self::Complete => &["PutObject", "CopyObject", "IngestKnowledgeBaseDocuments"],
            Self::SeeIndexed => &["GetKnowledgeBaseDocuments"],
            Self::Delete => &["DeleteObject", "DeleteKnowledgeBaseDocuments"],
            Self::SeeForgotten => &["GetKnowledgeBaseDocuments", "DeleteObject", "DeleteItem"],
        }
    }
}

/// What is cut off beside the call itself and its retries.
#[derive(Clone, Copy, Debug)]
enum Reach {
    /// Calls of the same operation that follow: one thing fails and the environment goes on.
    Operation,
    /// All that follow: the environment is dead.
    Everything,
}

/// One call of one task, and how it is cut off.
#[derive(Clone, Debug)]
struct Case {
    task: Task,
    /// The place of the call among the task's.
    place: usize,
    service: Service,
    operation: String,
    /// How many of the same operation come before it.
    ordinal: usize,
    effect: Effect,
    reach: Reach,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?}, call {} ({} {} no. {}), {:?}, {:?}",
            self.task,
            self.place,
            self.service,
            self.operation,
            self.ordinal + 1,
            self.effect,
            self.reach
        )
    }
}

impl Case {
    fn faults(&self, tenant: &str) -> Vec<Fault> {
        let of = |service, operation| Matcher {
            service,
            operation,
            tenant: Some(tenant.to_owned()),
            key: None,
        };
        let count = |number: usize| u32::try_from(number).unwrap();
        match self.reach {
            Reach::Operation => vec![Fault {
                matcher: of(Some(self.service), Some(self.operation.clone())),
                effect: self.effect.clone(),
                skip: count(self.ordinal),
                times: None,
            }],
            // A call that the first one cuts off does not reach the second one, which therefore skips as many.
            Reach::Everything => [(self.effect.clone(), Some(1)), (Effect::Drop, None)]
                .map(|(effect, times)| Fault {
                    matcher: of(None, None),
                    effect,
                    skip: count(self.place),
                    times,
                })
                .to_vec(),
        }
    }
}

/// A document of a tenant of its own.
struct Scene {
    tenant: Tenant,
    id: String,
    /// What only this document says.
    word: String,
}

impl Scene {
    /// A document that is where the task begins.
    async fn before(task: Task, fixture: &Arc<Fixture>) -> Self {
        let tenant = fixture.tenant("crash").await;
        let word = random_name("word").replace('-', "");
        let content = format!("The crash of the cart was heard in {word}.").into_bytes();
        let id = id_of(&declare(&tenant, &declaration("crash.txt", &content)).await.json());
        let scene = Self { tenant, id, word };
        let uploaded = put(&scene.tenant, &scene.id, "text/plain", &content).await;
        assert_eq!(uploaded.status.as_u16(), 204, "{}", uploaded.text());
        if task != Task::Complete {
            assert_eq!(complete(&scene.tenant, &scene.id).await.status.as_u16(), 202);
            scene.known_as(Status::Indexed).await;
        }
        if task.ends_it() {
            assert_eq!(scene.tenant.settled(&scene.id).await["status"], "indexed");
        }
        if task == Task::SeeForgotten {
            assert_eq!(scene.perform(Task::Delete).await.status.as_u16(), 202);
            scene.known_as(Status::NotFound).await;
        }
        // Whether the task meets an environment that has its credentials and knows the tenant's status must not be chance:
        // which of its calls is cut off is counted.
        let call = Call::new(Method::GET, "/tenant").token(scene.tenant.admin());
        scene.tenant.fixture().expect(200, &call).await;
        scene
    }

    /// Waits until the knowledge base says so, without a look at the document.
    async fn known_as(&self, status: Status) {
        let stack = &self.tenant.fixture().stack;
        let uri = format!("s3://{}/t/{}/{}.txt", self.bucket(), self.tenant.id, self.id);
        let what = format!("the knowledge base says {status:?}");
        wait_until(&what, patience(), || async {
            Ok((stack.knowledge_base().document_status(&uri) == status).then_some(()))
        })
        .await
        .unwrap();
    }

    fn bucket(&self) -> &str {
        &self.tenant.fixture().stack.template().buckets[0].name
    }

    fn calls(&self) -> Vec<record::Call> {
        let recorder = self.tenant.fixture().stack.front_door().recorder();
        recorder.calls_of(&self.tenant.id)
    }

    async fn perform(&self, task: Task) -> Answer {
        let method = match task {
            Task::Complete => return complete(&self.tenant, &self.id).await,
            Task::SeeIndexed | Task::SeeForgotten => Method::GET,
            Task::Delete => Method::DELETE,
        };
        let call = Call::new(method, format!("/documents/{}", self.id)).token(self.tenant.admin());
        self.tenant.fixture().send(&call).await
    }

    async fn is_told(&self) -> bool {
        let answer = self.tenant.ask(QUESTION).await;
        assert_eq!(answer.status.as_u16(), 200, "{}", answer.text());
        answer.text().contains(&self.word)
    }

    /// What was cut off is finished: by its repetition, or by looks at the document alone.
    async fn finish(&self, task: Task, answered: u16, repeat: bool) {
        if task.ends_it() {
            // Whoever was told that it is being deleted reads nothing of it any more.
            let was_told = task == Task::SeeForgotten || answered == 202;
            assert!(!(was_told && self.is_told().await), "told after it was deleted");
            if repeat {
                let repeated = self.perform(Task::Delete).await.status.as_u16();
                assert!([202, 404].contains(&repeated), "repeated: {repeated}");
                assert!(
                    was_told || !self.is_told().await,
                    "told after its deletion was repeated"
                );
            }
            wait_until("a deleted document is gone", patience(), || async {
                let seen = self.perform(Task::SeeForgotten).await;
                Ok((seen.status.as_u16() == 404).then_some(()))
            })
            .await
            .unwrap();
            self.known_as(Status::NotFound).await;
            let store = self.tenant.fixture().stack.front_door().s3();
            for folder in ["t", "u"] {
                let prefix = format!("{folder}/{}/", self.tenant.id);
                let left = store.list(self.bucket(), &prefix).unwrap();
                assert!(left.is_empty(), "{left:?}");
            }
            assert!(!self.is_told().await, "told after it is gone");
        } else {
            if repeat {
                let repeated = self.perform(Task::Complete).await;
                assert_eq!(repeated.status.as_u16(), 202, "{}", repeated.text());
            }
            let settled = self.tenant.settled(&self.id).await;
            assert_eq!(settled["status"], "indexed", "{settled}");
            assert!(self.is_told().await, "not told although it is indexed");
        }
    }

    /// At no moment there was an object in the data source whose sidecar was not, and every ingestion named its sidecar.
    fn was_always_tagged(&self) {
        let (mut objects, mut sidecars) = (BTreeSet::new(), BTreeSet::new());
        let prefix = format!("t/{}/", self.tenant.id);
        for call in self.calls().into_iter().filter(|call| call.carried_out) {
            if call.operation == "IngestKnowledgeBaseDocuments" {
                for document in call.request["documents"].as_array().unwrap() {
                    let uri = |pointer: &str| document.pointer(pointer).unwrap().as_str().unwrap();
                    assert_eq!(document["metadata"]["type"], "S3_LOCATION", "{document}");
                    assert_eq!(
                        uri("/metadata/s3Location/uri"),
                        format!("{}.metadata.json", uri("/content/s3/s3Location/uri"))
                    );
                }
            }
            let Resource::Objects { keys, .. } = &call.resource else {
                continue;
            };
            for key in keys.iter().filter(|key| key.starts_with(&prefix)) {
                match (call.operation.as_str(), key.strip_suffix(".metadata.json")) {
                    ("PutObject", Some(object)) => {
                        sidecars.insert(object.to_owned());
                    }
                    ("CopyObject", None) => {
                        objects.insert(key.clone());
                    }
                    ("DeleteObject", Some(object)) => {
                        sidecars.remove(object);
                    }
                    ("DeleteObject", None) => {
                        objects.remove(key);
                    }
                    ("HeadObject" | "GetObject", _) => {}
                    (operation, _) => panic!("{operation} of {key}"),
                }
                let untagged: Vec<&String> = objects.difference(&sidecars).collect();
                assert!(untagged.is_empty(), "{untagged:?} without sidecar after {call:?}");
            }
        }
    }
}

/// Every case of a task, from one undisturbed run.
async fn cases(task: Task, fixture: &Arc<Fixture>) -> Vec<Case> {
    let scene = Scene::before(task, fixture).await;
    let earlier = scene.calls().len();
    let answer = scene.perform(task).await;
    let calls = scene.calls().split_off(earlier);
    scene.finish(task, answer.status.as_u16(), false).await;
    scene.was_always_tagged();
    for essential in task.essentials() {
        assert!(
            calls.iter().any(|call| call.operation == *essential),
            "{task:?}: {calls:?}"
        );
    }
    let mut cases = Vec::new();
    for (place, call) in calls.iter().enumerate() {
        let is_same =
            |earlier: &&record::Call| (earlier.service, &earlier.operation) == (call.service, &call.operation);
        for effect in [Effect::Drop, Effect::DropAnswer] {
            for reach in [Reach::Operation, Reach::Everything] {
                cases.push(Case {
                    task,
                    place,
                    service: call.service,
                    operation: call.operation.clone(),
                    ordinal: calls[..place].iter().filter(is_same).count(),
                    effect: effect.clone(),
                    reach,
                });
            }
        }
    }
    cases
}

async fn run(case: &Case, fixture: &Arc<Fixture>) {
    let scene = Scene::before(case.task, fixture).await;
    let faults = fixture.stack.front_door().faults();
    let injected: Vec<_> = case
        .faults(&scene.tenant.id)
        .into_iter()
        .map(|fault| faults.inject(fault))
        .collect();
    let answered = scene.perform(case.task).await;
    for fault in injected {
        faults.remove(fault);
    }
    assert!(scene.calls().iter().any(|call| call.faulted), "nothing was cut off");
    scene.was_always_tagged();
    let status = answered.status.as_u16();
    assert!([200, 202, 404, 503].contains(&status), "{status}: {}", answered.text());
    let repeat = match case.reach {
        // Who was answered that it is under way need not ask again.
        Reach::Operation => status == 503,
        Reach::Everything => true,
    };
    scene.finish(case.task, status, repeat).await;
    scene.was_always_tagged();
}

#[tokio::test]
async fn what_is_cut_off_at_any_call_is_finished_and_never_there_without_its_tag() {
    let mut config = config();
    config.change_lambda = Some(Box::new(|lambda| {
        // Every case starts environments of its own and is done with them soon.
        lambda.idle = Duration::from_secs(5);
    }));
    let fixture = Fixture::start(config).await;
    let mut all = Vec::new();
    for task in Task::ALL {
        all.extend(cases(task, &fixture).await);
    }
    let total = all.len();
    let failed: Vec<String> = futures::stream::iter(all)
        .map(|case| {
            let (name, fixture) = (case.to_string(), Arc::clone(&fixture));
            // A task each, so that one that panics does not keep the others from being tried.
            let run = tokio::spawn(async move { run(&case, &fixture).await });
            async move { Some(format!("{name}: {}", run.await.err()?)) }
        })
        .buffer_unordered(LANES)
        .filter_map(std::future::ready)
        .collect()
        .await;
    assert!(
        failed.is_empty(),
        "{} of {total} cases:\n{}",
        failed.len(),
        failed.join("\n")
    );
}
