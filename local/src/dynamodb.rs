//! Amazon DynamoDB, as far as the functions use it, on the embedded `dynoxide` engine.
//!
//! Emulated: GetItem, PutItem, UpdateItem, DeleteItem, Query, BatchGetItem, BatchWriteItem and TransactWriteItems with
//! their expressions, conditions and cancellation reasons, and expiry by TTL (a sweep, as late as AWS's may be). Every
//! other operation is answered 501, and named: nothing scans, and tables are made by the stack and never by a request.
//!
//! Not emulated, without an error that would say so: eventual consistency (every read is consistent), capacity and
//! throttling, conflicts between transactions (the engine does one thing at a time; a fault can stand in for one). The
//! engine is called in the process and not over a port of its own, so that nothing gets around the signed front door.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{PoisonError, RwLock};

use anyhow::Context as _;
use bytes::Bytes;
use dynoxide::{Database, DynoxideError};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use s3s::crypto::Crc32;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::record::{Resource, TableKeys};

const TARGET_PREFIX: &str = "DynamoDB_20120810.";
const CONTENT_TYPE: &str = "application/x-amz-json-1.0";
/// Where faults of the protocol live, as opposed to those of the service.
const PROTOCOL: &str = "com.amazon.coral.service#";
const SERVICE: &str = "com.amazonaws.dynamodb.v20120810#";

/// A table as the stack makes it. Both keys are strings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSpec {
    /// The name.
    pub name: String,
    /// The name of the partition key.
    pub partition_key: String,
    /// The name of the sort key.
    pub sort_key: Option<String>,
    /// The attribute that holds the time of expiry in seconds since 1970.
    pub ttl: Option<String>,
}

/// The operations that are emulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    GetItem,
    PutItem,
    UpdateItem,
    DeleteItem,
    Query,
    BatchGetItem,
    BatchWriteItem,
    TransactWriteItems,
}

impl Operation {
    const ALL: [Self; 8] = [
        Self::GetItem,
        Self::PutItem,
        Self::UpdateItem,
        Self::DeleteItem,
        Self::Query,
        Self::BatchGetItem,
        Self::BatchWriteItem,
        Self::TransactWriteItems,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::GetItem => "GetItem",
            Self::PutItem => "PutItem",
            Self::UpdateItem => "UpdateItem",
            Self::DeleteItem => "DeleteItem",
            Self::Query => "Query",
            Self::BatchGetItem => "BatchGetItem",
            Self::BatchWriteItem => "BatchWriteItem",
            Self::TransactWriteItems => "TransactWriteItems",
        }
    }
}

/// The tables of the stack.
pub struct DynamoDb {
    database: Database,
    /// The name of the partition key of each table.
    partition_keys: RwLock<HashMap<String, String>>,
}

impl std::fmt::Debug for DynamoDb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DynamoDb")
            .field("partition_keys", &self.partition_keys)
            .finish_non_exhaustive()
    }
}

impl DynamoDb {
    /// Opens the tables in that file, or makes it.
    ///
    /// # Errors
    ///
    /// When the file is not one of the engine's or can't be written.
    pub fn open(file: &Path) -> anyhow::Result<Self> {
        let path = file
            .to_str()
            .with_context(|| format!("{} is not UTF-8", file.display()))?;
        let database = Database::new(path).with_context(|| format!("can't open {path}"))?;
        Ok(Self::new(database))
    }

    /// Opens tables that are gone when they are dropped.
    ///
    /// # Errors
    ///
    /// When the engine can't start.
    pub fn ephemeral() -> anyhow::Result<Self> {
        Ok(Self::new(Database::memory()?))
    }

    fn new(database: Database) -> Self {
        Self {
            database,
            partition_keys: RwLock::default(),
        }
    }

    /// Makes a table. One that is there already stays as it is, if it has the same keys. Blocks.
    ///
    /// # Errors
    ///
    /// When the table is there with other keys, or its name or an attribute's breaks DynamoDB's rules.
    pub fn create_table(&self, table: &TableSpec) -> anyhow::Result<()> {
        let names: Vec<&str> = std::iter::once(table.partition_key.as_str())
            .chain(table.sort_key.as_deref())
            .collect();
        let definitions: Vec<Value> = names
            .iter()
            .map(|name| json!({ "AttributeName": name, "AttributeType": "S" }))
            .collect();
        let schema: Vec<Value> = names
            .iter()
            .zip(["HASH", "RANGE"])
            .map(|(name, kind)| json!({ "AttributeName": name, "KeyType": kind }))
            .collect();
        let described = self
            .database
            .describe_table(request(json!({ "TableName": table.name }))?);
        match described {
            Ok(found) => {
                let found = serde_json::to_value(&found)?;
                let keys = found.pointer("/Table/KeySchema");
                anyhow::ensure!(
                    keys == Some(&Value::Array(schema)),
                    "the table {} is there with other keys",
                    table.name
                );
            }
            Err(DynoxideError::ResourceNotFoundException(_)) => {
                self.database.create_table(request(json!({
                    "TableName": table.name,
                    "AttributeDefinitions": definitions,
                    "KeySchema": schema,
                    "BillingMode": "PAY_PER_REQUEST",
                }))?)?;
                if let Some(ttl) = &table.ttl {
                    self.database.update_time_to_live(request(json!({
                        "TableName": table.name,
                        "TimeToLiveSpecification": { "AttributeName": ttl, "Enabled": true },
                    }))?)?;
                }
            }
            Err(error) => return Err(error.into()),
        }
        self.partition_keys
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(table.name.clone(), table.partition_key.clone());
        Ok(())
    }

    /// Deletes what has expired and says how many items that were. Blocks.
    ///
    /// # Errors
    ///
    /// When the file can't be written.
    pub fn sweep(&self) -> anyhow::Result<usize> {
        Ok(self.database.sweep_ttl()?)
    }

    /// The tables and leading keys that a request names.
    pub(crate) fn resource(&self, operation: &str, body: &Value) -> Resource {
        let partition_keys = self.partition_keys.read().unwrap_or_else(PoisonError::into_inner);
        let Some(operation) = Operation::ALL.into_iter().find(|known| known.name() == operation) else {
            return Resource::None;
        };
        let mut found = Found {
            partition_keys: &partition_keys,
            tables: Vec::new(),
            unclear: Vec::new(),
        };
        match operation {
            Operation::GetItem | Operation::UpdateItem | Operation::DeleteItem => found.item(body, "Key"),
            Operation::PutItem => found.item(body, "Item"),
            Operation::Query => found.query(body),
            Operation::BatchGetItem => {
                for (table, request) in members(body.get("RequestItems")) {
                    for key in elements(request.get("Keys")) {
                        found.key(table, Some(key));
                    }
                }
            }
            Operation::BatchWriteItem => {
                for (table, requests) in members(body.get("RequestItems")) {
                    for request in elements(Some(requests)) {
                        let put = request.pointer("/PutRequest/Item");
                        found.key(table, put.or_else(|| request.pointer("/DeleteRequest/Key")));
                    }
                }
            }
            Operation::TransactWriteItems => {
                for item in elements(body.get("TransactItems")) {
                    for (kind, request) in members(Some(item)) {
                        found.item(request, if kind == "Put" { "Item" } else { "Key" });
                    }
                }
            }
        }
        Resource::Items(found.tables())
    }

    /// Answers a request whose signature was verified. Blocks.
    pub(crate) fn handle(&self, operation: &str, body: &[u8]) -> Response<Bytes> {
        let Some(known) = Operation::ALL.into_iter().find(|known| known.name() == operation) else {
            return error(
                StatusCode::NOT_IMPLEMENTED,
                "NotImplemented",
                &format!("{operation} is not emulated"),
            );
        };
        let db = &self.database;
        let answer = match known {
            Operation::GetItem => run(body, |request| db.get_item(request)),
            Operation::PutItem => run(body, |request| db.put_item(request)),
            Operation::UpdateItem => run(body, |request| db.update_item(request)),
            Operation::DeleteItem => run(body, |request| db.delete_item(request)),
            Operation::Query => run(body, |request| db.query(request)),
            Operation::BatchGetItem => run(body, |request| db.batch_get_item(request)),
            Operation::BatchWriteItem => run(body, |request| db.batch_write_item(request)),
            Operation::TransactWriteItems => run(body, |request| db.transact_write_items(request)),
        };
        match answer {
            Ok(json) => answer_json(StatusCode::OK, json),
            Err(error) => {
                let status = StatusCode::from_u16(error.status_code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                if status.is_server_error() {
                    tracing::error!(operation, error = %error, "the table store failed");
                }
                answer_json(status, error.to_json())
            }
        }
    }
}

/// The operation of a request: the last part of `X-Amz-Target`, or nothing where that is none of DynamoDB's.
pub(crate) fn operation(headers: &HeaderMap) -> Option<&str> {
    headers.get("x-amz-target")?.to_str().ok()?.strip_prefix(TARGET_PREFIX)
}

/// An error in the form of DynamoDB.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html>
pub(crate) fn error(status: StatusCode, code: &str, message: &str) -> Response<Bytes> {
    // The SDKs read what stands behind the `#`.
    let of_service = matches!(
        code,
        "ProvisionedThroughputExceededException" | "TransactionConflictException" | "TransactionInProgressException"
    );
    let namespace = if of_service { SERVICE } else { PROTOCOL };
    answer_json(
        status,
        json!({ "__type": format!("{namespace}{code}"), "message": message }).to_string(),
    )
}

/// What a write is answered while another transaction holds one of its items.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis.html#transaction-conflict-handling>
pub(crate) fn transaction_conflict(operation: &str, body: &Value) -> Response<Bytes> {
    const MESSAGE: &str = "Transaction is ongoing for the item";
    if operation != Operation::TransactWriteItems.name() {
        return error(StatusCode::BAD_REQUEST, "TransactionConflictException", MESSAGE);
    }
    let others = elements(body.get("TransactItems")).len().saturating_sub(1);
    let mut codes = vec!["TransactionConflict"];
    codes.extend(std::iter::repeat_n("None", others));
    let reasons: Vec<Value> = codes
        .iter()
        .map(|code| match *code {
            "None" => json!({ "Code": code }),
            _ => json!({ "Code": code, "Message": MESSAGE }),
        })
        .collect();
    let body = json!({
        "__type": format!("{SERVICE}TransactionCanceledException"),
        "Message": format!(
            "Transaction cancelled, please refer cancellation reasons for specific reasons [{}]",
            codes.join(", ")
        ),
        "CancellationReasons": reasons,
    });
    answer_json(StatusCode::BAD_REQUEST, body.to_string())
}

fn answer_json(status: StatusCode, body: String) -> Response<Bytes> {
    let crc32 = Crc32::checksum_u32(body.as_bytes());
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    headers.insert("x-amz-crc32", HeaderValue::from(crc32));
    if let Ok(id) = HeaderValue::try_from(Uuid::new_v4().simple().to_string().to_uppercase()) {
        headers.insert("x-amzn-requestid", id);
    }
    response
}

fn run<Q: DeserializeOwned, A: Serialize>(
    body: &[u8],
    work: impl FnOnce(Q) -> dynoxide::Result<A>,
) -> dynoxide::Result<String> {
    let request = serde_json::from_slice(body).map_err(|error| unreadable(&error.to_string()))?;
    serde_json::to_string(&work(request)?).map_err(|error| DynoxideError::InternalServerError(error.to_string()))
}

/// The engine's request types mark what DynamoDB calls a validation error with a prefix, and leave the position in.
fn unreadable(message: &str) -> DynoxideError {
    let (kind, text) = message.split_once(':').unwrap_or(("", message));
    let text = text.rsplit_once(" at line ").map_or(text, |(text, _)| text).to_owned();
    match kind {
        "VALIDATION" | "VALIDATION_REQUEST" | "VALIDATION_AS_READ" => DynoxideError::ValidationException(text),
        "SERIALIZATION" | "SERIALIZATION_AS_READ" => DynoxideError::SerializationException(text),
        _ if [
            "missing field",
            "unknown variant",
            "Supplied AttributeValue",
            "empty AttributeValue",
        ]
        .iter()
        .any(|part| message.contains(part)) =>
        {
            DynoxideError::ValidationException(message.to_owned())
        }
        _ => DynoxideError::SerializationException(message.to_owned()),
    }
}

fn request<Q: DeserializeOwned>(value: Value) -> anyhow::Result<Q> {
    Ok(serde_json::from_value(value)?)
}

/// The partitions that were found in a request so far.
struct Found<'a> {
    partition_keys: &'a HashMap<String, String>,
    tables: Vec<TableKeys>,
    /// The tables of which an item is named whose partition could not be found.
    unclear: Vec<String>,
}

impl Found<'_> {
    fn item(&mut self, request: &Value, member: &str) {
        if let Some(table) = request.get("TableName").and_then(Value::as_str) {
            self.key(table, request.get(member));
        }
    }

    /// Takes the leading key out of an item or a key.
    fn key(&mut self, table: &str, item: Option<&Value>) {
        let name = table_name(table);
        let value = self
            .partition_keys
            .get(name)
            .and_then(|partition_key| item?.get(partition_key))
            .and_then(scalar);
        self.add(name, value);
    }

    fn query(&mut self, body: &Value) {
        let Some(table) = body.get("TableName").and_then(Value::as_str) else {
            return;
        };
        let name = table_name(table);
        let value = self.partition_keys.get(name).and_then(|partition_key| {
            // An index has a leading key of its own.
            if body.get("IndexName").is_some_and(|index| !index.is_null()) {
                return None;
            }
            equal_to(body, partition_key)
        });
        self.add(name, value);
    }

    fn add(&mut self, table: &str, value: Option<String>) {
        let index = self
            .tables
            .iter()
            .position(|found| found.table == table)
            .unwrap_or_else(|| {
                self.tables.push(TableKeys {
                    table: table.to_owned(),
                    leading_keys: Vec::new(),
                });
                self.tables.len() - 1
            });
        match (self.tables.get_mut(index), value) {
            (Some(found), Some(value)) if !found.leading_keys.contains(&value) => found.leading_keys.push(value),
            (_, None) => self.unclear.push(table.to_owned()),
            _ => {}
        }
    }

    /// All tables that are named. Of one where a single partition is unclear none is told: the others are not all of them.
    fn tables(mut self) -> Vec<TableKeys> {
        for table in &mut self.tables {
            if self.unclear.contains(&table.table) {
                table.leading_keys.clear();
            }
        }
        self.tables
    }
}

/// A table may be named by its ARN.
fn table_name(table: &str) -> &str {
    table.rsplit_once(":table/").map_or(table, |(_, name)| name)
}

fn members(value: Option<&Value>) -> impl Iterator<Item = (&str, &Value)> {
    value
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.as_str(), value))
}

fn elements(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn scalar(value: &Value) -> Option<String> {
    let text = ["S", "N", "B"].iter().find_map(|kind| value.get(kind))?;
    text.as_str().map(str::to_owned)
}

/// What a query's key condition compares the partition key with, in either of its two notations. DynamoDB itself demands
/// that it be an equality joined by `AND`, so the first one is the only one.
fn equal_to(body: &Value, partition_key: &str) -> Option<String> {
    if let Some(condition) = body
        .get("KeyConditions")
        .and_then(|conditions| conditions.get(partition_key))
    {
        return condition.pointer("/AttributeValueList/0").and_then(scalar);
    }
    let expression = body
        .get("KeyConditionExpression")?
        .as_str()?
        .replace('=', " = ")
        .replace(['(', ')'], " ");
    let words: Vec<&str> = expression.split_whitespace().collect();
    let names = body.get("ExpressionAttributeNames");
    let is_key = |word: &str| match word.strip_prefix('#') {
        Some(_) => names.and_then(|names| names.get(word)).and_then(Value::as_str) == Some(partition_key),
        None => word == partition_key,
    };
    let value = words.windows(3).find_map(|three| match three {
        [left, "=", right] if is_key(left) => Some(*right),
        [left, "=", right] if is_key(right) => Some(*left),
        _ => None,
    })?;
    body.get("ExpressionAttributeValues")?.get(value).and_then(scalar)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "bulkhead";

    fn tables() -> DynamoDb {
        let tables = DynamoDb::ephemeral().unwrap();
        tables.create_table(&spec()).unwrap();
        tables
    }

    fn spec() -> TableSpec {
        TableSpec {
            name: TABLE.to_owned(),
            partition_key: "pk".to_owned(),
            sort_key: Some("sk".to_owned()),
            ttl: Some("ttl".to_owned()),
        }
    }

    fn call(tables: &DynamoDb, operation: &str, body: &Value) -> (u16, Value) {
        let response = tables.handle(operation, body.to_string().as_bytes());
        (
            response.status().as_u16(),
            serde_json::from_slice(response.body()).unwrap(),
        )
    }

    fn item(pk: &str, sk: &str) -> Value {
        json!({ "pk": { "S": pk }, "sk": { "S": sk } })
    }

    #[track_caller]
    fn check_keys(operation: &str, body: &Value, expected: &[&str]) {
        let Resource::Items(found) = tables().resource(operation, body) else {
            panic!("no items are named")
        };
        let keys: Vec<_> = found.iter().flat_map(|table| &table.leading_keys).collect();
        assert_eq!(keys, expected, "{body}");
        assert!(found.iter().all(|table| table.table == TABLE), "{body}");
    }

    #[test]
    fn leading_keys_are_found_in_every_operation() {
        let (a, b) = (item("TENANT#acme", "DOC#1"), item("PROFILE#acme", "PROFILE"));
        for operation in ["GetItem", "UpdateItem", "DeleteItem"] {
            check_keys(operation, &json!({ "TableName": TABLE, "Key": a }), &["TENANT#acme"]);
        }
        check_keys("PutItem", &json!({ "TableName": TABLE, "Item": a }), &["TENANT#acme"]);
        check_keys(
            "BatchGetItem",
            &json!({ "RequestItems": { TABLE: { "Keys": [a, b, a] } } }),
            &["TENANT#acme", "PROFILE#acme"],
        );
        check_keys(
            "BatchWriteItem",
            &json!({ "RequestItems": { TABLE: [{ "PutRequest": { "Item": a } }, { "DeleteRequest": { "Key": b } }] } }),
            &["TENANT#acme", "PROFILE#acme"],
        );
        check_keys(
            "TransactWriteItems",
            &json!({ "TransactItems": [
                { "Put": { "TableName": TABLE, "Item": a } },
                { "ConditionCheck": { "TableName": TABLE, "Key": b } },
                { "Update": { "TableName": TABLE, "Key": item("QUOTA#q", "1") } },
                { "Delete": { "TableName": TABLE, "Key": item("TENANTS", "acme") } },
            ] }),
            &["TENANT#acme", "PROFILE#acme", "QUOTA#q", "TENANTS"],
        );
    }

    #[test]
    fn the_leading_key_of_a_query_is_what_its_condition_equals() {
        for (expression, names) in [
            ("pk = :p AND begins_with(sk, :s)", json!({})),
            ("#p=:p and #s > :s", json!({ "#p": "pk", "#s": "sk" })),
            ("begins_with(#s, :s) AND (:p = #p)", json!({ "#p": "pk", "#s": "sk" })),
        ] {
            let body = json!({
                "TableName": TABLE,
                "KeyConditionExpression": expression,
                "ExpressionAttributeNames": names,
                "ExpressionAttributeValues": { ":p": { "S": "TENANT#acme" }, ":s": { "S": "DOC#" } },
            });
            check_keys("Query", &body, &["TENANT#acme"]);
        }
        let legacy = json!({ "pk": { "ComparisonOperator": "EQ", "AttributeValueList": [{ "S": "TENANT#acme" }] } });
        check_keys(
            "Query",
            &json!({ "TableName": TABLE, "KeyConditions": legacy }),
            &["TENANT#acme"],
        );
    }

    #[test]
    fn a_query_without_a_partition_names_none() {
        let body = json!({
            "TableName": TABLE,
            "KeyConditionExpression": "sk = :p",
            "ExpressionAttributeValues": { ":p": { "S": "TENANT#acme" } },
        });
        check_keys("Query", &body, &[]);
        let index = json!({
            "TableName": TABLE,
            "IndexName": "by-time",
            "KeyConditionExpression": "pk = :p",
            "ExpressionAttributeValues": { ":p": { "S": "TENANT#acme" } },
        });
        check_keys("Query", &index, &[]);
    }

    #[test]
    fn items_are_written_and_read() {
        let tables = tables();
        let put = json!({ "TableName": TABLE, "Item": item("TENANT#acme", "DOC#1"),
            "ConditionExpression": "attribute_not_exists(pk)" });
        assert_eq!(call(&tables, "PutItem", &put).0, 200);
        let (status, refused) = call(&tables, "PutItem", &put);
        assert_eq!(status, 400);
        assert!(
            refused["__type"]
                .as_str()
                .unwrap()
                .ends_with("#ConditionalCheckFailedException")
        );
        let get = json!({ "TableName": TABLE, "Key": item("TENANT#acme", "DOC#1") });
        assert_eq!(
            call(&tables, "GetItem", &get),
            (200, json!({ "Item": item("TENANT#acme", "DOC#1") }))
        );
        let other = json!({ "TableName": TABLE, "Key": item("TENANT#acme-2", "DOC#1") });
        assert_eq!(call(&tables, "GetItem", &other), (200, json!({})));
    }

    #[test]
    fn a_cancelled_transaction_gives_its_reasons() {
        let tables = tables();
        let check = json!({ "ConditionCheck": { "TableName": TABLE, "Key": item("a", "b"),
            "ConditionExpression": "attribute_exists(pk)" } });
        let put = json!({ "Put": { "TableName": TABLE, "Item": item("c", "d") } });
        let (status, answer) = call(&tables, "TransactWriteItems", &json!({ "TransactItems": [put, check] }));
        assert_eq!(status, 400);
        let codes: Vec<_> = elements(answer.get("CancellationReasons"))
            .iter()
            .map(|reason| &reason["Code"])
            .collect();
        assert_eq!(codes, ["None", "ConditionalCheckFailed"]);
        let get = json!({ "TableName": TABLE, "Key": item("c", "d") });
        assert_eq!(call(&tables, "GetItem", &get), (200, json!({})));
    }

    #[test]
    fn other_operations_are_not_implemented_and_named() {
        for operation in [
            "Scan",
            "ExecuteStatement",
            "CreateTable",
            "TransactGetItems",
            "DescribeTable",
        ] {
            let (status, answer) = call(&tables(), operation, &json!({ "TableName": TABLE }));
            assert_eq!(status, 501);
            assert!(answer["message"].as_str().unwrap().contains(operation));
        }
    }

    #[test]
    fn what_has_expired_is_swept() {
        let tables = tables();
        for (sk, ttl) in [("old", "1"), ("new", "99999999999")] {
            let mut item = item("a", sk);
            item["ttl"] = json!({ "N": ttl });
            assert_eq!(
                call(&tables, "PutItem", &json!({ "TableName": TABLE, "Item": item })).0,
                200
            );
        }
        assert_eq!(tables.sweep().unwrap(), 1);
        let query = json!({ "TableName": TABLE, "KeyConditionExpression": "pk = :p",
            "ExpressionAttributeValues": { ":p": { "S": "a" } } });
        assert_eq!(call(&tables, "Query", &query).1["Count"], 1);
    }

    #[test]
    fn a_malformed_request_is_a_serialization_or_validation_error() {
        let tables = tables();
        let number = tables.handle("GetItem", b"{\"TableName\": 1}");
        assert_eq!(number.status(), 400);
        let not_json = tables.handle("GetItem", b"no");
        assert!(String::from_utf8_lossy(not_json.body()).contains("SerializationException"));
        let no_table = json!({ "TableName": "elsewhere", "Key": item("a", "b") });
        let (status, answer) = call(&tables, "GetItem", &no_table);
        assert_eq!(status, 400);
        assert!(
            answer["__type"]
                .as_str()
                .unwrap()
                .ends_with("#ResourceNotFoundException")
        );
    }

    #[test]
    fn tables_are_found_again_and_may_not_change_their_keys() {
        let directory = tempfile::TempDir::new().unwrap();
        let file = directory.path().join("tables.sqlite");
        let tables = DynamoDb::open(&file).unwrap();
        tables.create_table(&spec()).unwrap();
        let put = json!({ "TableName": TABLE, "Item": item("a", "b") });
        assert_eq!(call(&tables, "PutItem", &put).0, 200);
        drop(tables);
        let tables = DynamoDb::open(&file).unwrap();
        tables.create_table(&spec()).unwrap();
        let get = json!({ "TableName": TABLE, "Key": item("a", "b") });
        assert_eq!(call(&tables, "GetItem", &get).1, json!({ "Item": item("a", "b") }));
        let mut other = spec();
        other.sort_key = None;
        assert!(tables.create_table(&other).is_err());
    }

    #[test]
    fn a_conflict_takes_the_form_of_its_operation() {
        let body = json!({ "TransactItems": [{}, {}] });
        let cancelled = transaction_conflict("TransactWriteItems", &body);
        let cancelled: Value = serde_json::from_slice(cancelled.body()).unwrap();
        assert_eq!(cancelled["CancellationReasons"][0]["Code"], "TransactionConflict");
        assert_eq!(cancelled["CancellationReasons"][1]["Code"], "None");
        let single = transaction_conflict("PutItem", &json!({}));
        assert!(String::from_utf8_lossy(single.body()).contains("TransactionConflictException"));
    }
}
