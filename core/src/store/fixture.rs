//! A table for tests of the gates: the real client, and in the place of the network an engine that knows DynamoDB's
//! expressions and conditions.

use std::sync::{Arc, Mutex};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;
use dynoxide::Database;
use serde_json::{Value, json};

use super::{Table, TenantTable};
use crate::plan::Plan;
use crate::tenant::{TenantContext, UnverifiedCaller, UserId};
use crate::time::Clock;

const NAME: &str = "bulkhead";

/// An engine, and what it was asked.
#[derive(Clone)]
pub(super) struct Engine {
    database: Arc<Mutex<Database>>,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
    before: Arc<Mutex<Option<Interruption>>>,
}

/// What happens once, before an operation is done.
type Interruption = (&'static str, Box<dyn FnOnce(&Database) + Send>);

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine")
    }
}

impl Engine {
    pub(super) fn new() -> Self {
        let database = Database::memory().unwrap();
        let table = json!({
            "TableName": NAME,
            "AttributeDefinitions": [
                {"AttributeName": "pk", "AttributeType": "S"},
                {"AttributeName": "sk", "AttributeType": "S"},
            ],
            "KeySchema": [
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": "sk", "KeyType": "RANGE"},
            ],
            "BillingMode": "PAY_PER_REQUEST",
        });
        database.create_table(serde_json::from_value(table).unwrap()).unwrap();
        Self {
            database: Arc::new(Mutex::new(database)),
            asked: Arc::default(),
            before: Arc::default(),
        }
    }

    /// The table as a tenant's data role reaches it; the engine looks at no credentials.
    pub(super) fn tenant_table(&self) -> TenantTable {
        let engine = self.clone();
        let configuration = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-west-1"))
            .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
                "a", "b", None, None, "test",
            )))
            .endpoint_url("http://127.0.0.1:1")
            .http_client(http_client_fn(move |_, _| SharedHttpConnector::new(engine.clone())))
            .build();
        TenantTable(Table::new(&configuration, NAME))
    }

    /// The operations that were asked for, in order.
    pub(super) fn operations(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|(operation, _)| operation.clone()).collect()
    }

    /// Every item, as DynamoDB writes it.
    pub(super) fn items(&self) -> Vec<Value> {
        let request = serde_json::from_value(json!({"TableName": NAME})).unwrap();
        let answer = serde_json::to_value(self.database.lock().unwrap().scan(request).unwrap()).unwrap();
        answer["Items"].as_array().unwrap().clone()
    }

    /// The sort keys of every item, in order.
    pub(super) fn sort_keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = self
            .items()
            .iter()
            .map(|item| item["sk"]["S"].as_str().unwrap().to_owned())
            .collect();
        keys.sort();
        keys
    }

    /// Lets something happen before the next operation of that name.
    pub(super) fn before(&self, operation: &'static str, happens: impl FnOnce(&Database) + Send + 'static) {
        *self.before.lock().unwrap() = Some((operation, Box::new(happens)));
    }

    fn run(&self, operation: &str, body: &Value) -> Result<String, (u16, String)> {
        let database = self.database.lock().unwrap();
        let mut before = self.before.lock().unwrap();
        if before.as_ref().is_some_and(|(awaited, _)| *awaited == operation) {
            let (_, happens) = before.take().unwrap();
            happens(&database);
        }
        drop(before);
        macro_rules! run {
            ($method:ident) => {
                match database.$method(serde_json::from_value(body.clone()).unwrap()) {
                    Ok(answer) => Ok(serde_json::to_string(&answer).unwrap()),
                    Err(error) => Err((error.status_code(), error.to_json())),
                }
            };
        }
        match operation {
            "GetItem" => run!(get_item),
            "PutItem" => run!(put_item),
            "UpdateItem" => run!(update_item),
            "Query" => run!(query),
            "BatchGetItem" => run!(batch_get_item),
            "BatchWriteItem" => run!(batch_write_item),
            other => panic!("{other}"),
        }
    }
}

impl HttpConnector for Engine {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let target = request.headers().get("x-amz-target").unwrap();
        let operation = target.strip_prefix("DynamoDB_20120810.").unwrap().to_owned();
        let body: Value = serde_json::from_slice(request.body().bytes().unwrap()).unwrap();
        let (status, answer) = match self.run(&operation, &body) {
            Ok(answer) => (200, answer),
            Err(refusal) => refusal,
        };
        self.asked.lock().unwrap().push((operation, body));
        let response = HttpResponse::new(status.try_into().unwrap(), SdkBody::from(answer));
        HttpConnectorFuture::ready(Ok(response))
    }
}

/// Puts an item there, in the middle of something else.
pub(super) fn put(database: &Database, item: Value) {
    let request = json!({"TableName": NAME, "Item": item});
    database.put_item(serde_json::from_value(request).unwrap()).unwrap();
}

pub(super) fn context(tenant: &str, user: &str) -> TenantContext {
    // None but operators act as the shared documents' owner.
    let role = if tenant == "bulkhead-shared" {
        "operator"
    } else {
        "reader"
    };
    let caller = UnverifiedCaller {
        tenant: Some(tenant.to_owned()),
        user: Some(UserId::derive("https://issuer.example.com", user).as_str().to_owned()),
        roles: Some(role.to_owned()),
        groups: None,
        token_expiry: Some("4102444800".to_owned()),
        runtime_tenant: Some(tenant.to_owned()),
    };
    TenantContext::new(&caller, &Clock::system()).unwrap()
}

pub(super) fn plan(shared_corpus: bool) -> Plan {
    Plan {
        shared_corpus,
        ..Plan::default()
    }
}
