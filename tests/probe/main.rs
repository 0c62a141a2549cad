//! A handler gone wrong: it asks the table and the bucket whatever it is told, with the credentials of a function or of a
//! data role, so that nothing but IAM stands between it and another tenant.
//!
//! Reads one JSON array of attempts from standard input and writes one of outcomes, in the same order. The environment is
//! what Lambda gives a function: credentials, region, endpoint. Not here: any key, tenant or role of its own, and any
//! judgement of what came out.

#![expect(clippy::disallowed_methods, reason = "it goes round our gates on purpose")]

use std::io::{Read as _, Write as _};

use aws_config::SdkConfig;
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::{
    AttributeValue, ConditionCheck, Get, KeysAndAttributes, Put, PutRequest, TransactGetItem, TransactWriteItem,
    WriteRequest,
};
use serde::{Deserialize, Serialize};

type Item = std::collections::HashMap<String, AttributeValue>;

/// One call, and who makes it.
#[derive(Deserialize)]
struct Attempt {
    /// The session that is assumed for it; none for the function's own role.
    session: Option<Session>,
    call: Call,
}

/// A session of a data role.
#[derive(Deserialize)]
struct Session {
    role_arn: String,
    tags: Vec<(String, String)>,
}

/// A partition and sort key.
#[derive(Deserialize)]
struct Key {
    pk: String,
    sk: String,
}

/// What is asked. Names are those of AWS's operations.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Call {
    AssumeRole(Session),
    GetItem(Key),
    BatchGetItem(Vec<Key>),
    TransactGetItems(Vec<Key>),
    Query { pk: String },
    Scan,
    ExecuteStatement(String),
    PutItem(Key),
    UpdateItem(Key),
    DeleteItem(Key),
    BatchWriteItem(Vec<Key>),
    TransactWriteItems { puts: Vec<Key>, checks: Vec<Key> },
    GetObject(String),
    HeadObject(String),
    ListObjects { prefix: Option<String> },
    CopyObject { from: String, to: String },
    PutObject(String),
    DeleteObject(String),
}

/// What came of it.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// It was carried out; what came back, as text.
    Answered(String),
    /// It was refused, with this status and code (a HEAD's answer has no code).
    Refused { status: u16, code: Option<String> },
    /// There was no answer, or none that is understood.
    Failed(String),
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut attempts = String::new();
    std::io::stdin().read_to_string(&mut attempts).expect("attempts");
    let attempts: Vec<Attempt> = serde_json::from_str(&attempts).expect("an array of attempts");
    let own = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
    let table = std::env::var("BULKHEAD_TABLE_NAME").expect("BULKHEAD_TABLE_NAME");
    let bucket = std::env::var("BULKHEAD_BUCKET_NAME").expect("BULKHEAD_BUCKET_NAME");
    let mut outcomes = Vec::new();
    for attempt in attempts {
        let outcome = match attempt.session {
            None => Ok(own.clone()),
            Some(session) => assume(&own, session).await,
        };
        outcomes.push(match outcome {
            Ok(config) => ask(&config, &table, &bucket, attempt.call).await,
            Err(refused) => refused,
        });
    }
    serde_json::to_writer(std::io::stdout().lock(), &outcomes).expect("standard output");
    std::io::stdout().lock().flush().expect("standard output");
}

/// The configuration with a session's credentials in place of the function's.
async fn assume(own: &SdkConfig, session: Session) -> Result<SdkConfig, Outcome> {
    let mut call = aws_sdk_sts::Client::new(own)
        .assume_role()
        .role_arn(session.role_arn)
        .role_session_name("probe");
    for (key, value) in session.tags {
        let tag = aws_sdk_sts::types::Tag::builder().key(key).value(value).build();
        call = call.tags(tag.expect("a tag"));
    }
    let given = call.send().await.map_err(|error| outcome::<(), _>(Err(error)))?;
    let given = given
        .credentials
        .ok_or_else(|| Outcome::Failed("no credentials".to_owned()))?;
    let credentials = Credentials::new(
        given.access_key_id,
        given.secret_access_key,
        Some(given.session_token),
        None,
        "probe",
    );
    Ok(own
        .to_builder()
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build())
}

async fn ask(config: &SdkConfig, table: &str, bucket: &str, call: Call) -> Outcome {
    let dynamodb = aws_sdk_dynamodb::Client::new(config);
    let s3 = aws_sdk_s3::Client::from_conf(aws_sdk_s3::config::Builder::from(config).force_path_style(true).build());
    match call {
        Call::AssumeRole(session) => match assume(config, session).await {
            Ok(_) => Outcome::Answered("assumed".to_owned()),
            Err(outcome) => outcome,
        },
        Call::GetItem(at) => outcome(
            dynamodb
                .get_item()
                .table_name(table)
                .set_key(Some(key(at)))
                .send()
                .await,
        ),
        Call::BatchGetItem(keys) => {
            let keys = keys
                .into_iter()
                .fold(KeysAndAttributes::builder(), |keys, at| keys.keys(key(at)));
            let keys = keys.build().expect("keys");
            outcome(dynamodb.batch_get_item().request_items(table, keys).send().await)
        }
        Call::TransactGetItems(keys) => {
            let mut call = dynamodb.transact_get_items();
            for at in keys {
                let get = Get::builder().table_name(table).set_key(Some(key(at))).build();
                call = call.transact_items(TransactGetItem::builder().get(get.expect("a get")).build());
            }
            outcome(call.send().await)
        }
        Call::Query { pk } => outcome(
            dynamodb
                .query()
                .table_name(table)
                .key_condition_expression("pk = :pk")
                .expression_attribute_values(":pk", AttributeValue::S(pk))
                .send()
                .await,
        ),
        Call::Scan => outcome(dynamodb.scan().table_name(table).send().await),
        Call::ExecuteStatement(statement) => outcome(dynamodb.execute_statement().statement(statement).send().await),
        Call::PutItem(at) => outcome(
            dynamodb
                .put_item()
                .table_name(table)
                .set_item(Some(key(at)))
                .send()
                .await,
        ),
        Call::UpdateItem(at) => outcome(
            dynamodb
                .update_item()
                .table_name(table)
                .set_key(Some(key(at)))
                .update_expression("SET probed = :probed")
                .expression_attribute_values(":probed", AttributeValue::Bool(true))
                .send()
                .await,
        ),
        Call::DeleteItem(at) => outcome(
            dynamodb
                .delete_item()
                .table_name(table)
                .set_key(Some(key(at)))
                .send()
                .await,
        ),
        Call::BatchWriteItem(keys) => {
            let put = |at| PutRequest::builder().set_item(Some(key(at))).build().expect("a put");
            let writes = keys
                .into_iter()
                .map(|at| WriteRequest::builder().put_request(put(at)).build());
            outcome(
                dynamodb
                    .batch_write_item()
                    .request_items(table, writes.collect())
                    .send()
                    .await,
            )
        }
        Call::TransactWriteItems { puts, checks } => {
            let mut call = dynamodb.transact_write_items();
            for at in puts {
                let put = Put::builder().table_name(table).set_item(Some(key(at))).build();
                call = call.transact_items(TransactWriteItem::builder().put(put.expect("a put")).build());
            }
            for at in checks {
                let check = ConditionCheck::builder()
                    .table_name(table)
                    .set_key(Some(key(at)))
                    .condition_expression("attribute_exists(pk)")
                    .build();
                let check = check.expect("a check");
                call = call.transact_items(TransactWriteItem::builder().condition_check(check).build());
            }
            outcome(call.send().await)
        }
        Call::GetObject(name) => match s3.get_object().bucket(bucket).key(name).send().await {
            Ok(object) => match object.body.collect().await {
                Ok(bytes) => Outcome::Answered(String::from_utf8_lossy(&bytes.into_bytes()).into_owned()),
                Err(error) => Outcome::Failed(error.to_string()),
            },
            Err(error) => outcome::<(), _>(Err(error)),
        },
        Call::HeadObject(name) => outcome(s3.head_object().bucket(bucket).key(name).send().await),
        Call::ListObjects { prefix } => outcome(s3.list_objects_v2().bucket(bucket).set_prefix(prefix).send().await),
        Call::CopyObject { from, to } => outcome(
            s3.copy_object()
                .bucket(bucket)
                .key(to)
                .copy_source(format!("{bucket}/{from}"))
                .send()
                .await,
        ),
        Call::PutObject(name) => outcome(
            s3.put_object()
                .bucket(bucket)
                .key(name)
                .body(b"probed".to_vec().into())
                .send()
                .await,
        ),
        Call::DeleteObject(name) => outcome(s3.delete_object().bucket(bucket).key(name).send().await),
    }
}

fn key(at: Key) -> Item {
    Item::from([
        ("pk".to_owned(), AttributeValue::S(at.pk)),
        ("sk".to_owned(), AttributeValue::S(at.sk)),
    ])
}

fn outcome<T: std::fmt::Debug, E: ProvideErrorMetadata + std::fmt::Debug>(
    answer: Result<T, SdkError<E, aws_sdk_dynamodb::config::http::HttpResponse>>,
) -> Outcome {
    match answer {
        Ok(answer) => Outcome::Answered(format!("{answer:?}")),
        Err(error) => match error.raw_response() {
            Some(response) => Outcome::Refused {
                status: response.status().as_u16(),
                code: error.code().map(str::to_owned),
            },
            None => Outcome::Failed(format!("{error:?}")),
        },
    }
}
