//! The local AWS services alone: S3 with one bucket and DynamoDB with one table, behind their signed front door, in memory.
//!
//! `cargo run -p bulkhead-local --example aws` prints the variables that an SDK or the AWS CLI needs and waits for Ctrl-C.
//! With a command behind `--` it runs that command with the variables set and exits with its exit code:
//! `cargo run -p bulkhead-local --example aws -- python3 tests/boto3/check.py`.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use bulkhead_local::credential::Caller;
use bulkhead_local::dynamodb::{DynamoDb, TableSpec};
use bulkhead_local::front_door::{FrontDoor, FrontDoorConfig, Services};
use bulkhead_local::parameter_store::ParameterStore;
use bulkhead_local::s3::S3Store;

const BUCKET: &str = "bulkhead-documents";
const TABLE: &str = "bulkhead";

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let (s3, dynamodb) = (S3Store::ephemeral()?, DynamoDb::ephemeral()?);
    s3.create_bucket(BUCKET)?;
    dynamodb.create_table(&TableSpec {
        name: TABLE.to_owned(),
        partition_key: "pk".to_owned(),
        sort_key: Some("sk".to_owned()),
        ttl: Some("ttl".to_owned()),
    })?;
    let services = Services {
        s3: Arc::new(s3),
        dynamodb: Arc::new(dynamodb),
        bedrock: Vec::new(),
        ssm: Arc::new(ParameterStore::new("000000000000", "eu-central-1")),
    };
    let door = FrontDoor::start(FrontDoorConfig::default(), services).await?;
    let credential = door.credentials().issue(Caller::administrator(None));
    let variables = [
        ("AWS_ENDPOINT_URL", door.endpoint()),
        ("AWS_REGION", door.region().to_owned()),
        ("AWS_DEFAULT_REGION", door.region().to_owned()),
        ("AWS_ACCESS_KEY_ID", credential.access_key_id),
        ("AWS_SECRET_ACCESS_KEY", credential.secret_access_key),
        ("AWS_SESSION_TOKEN", credential.session_token),
        ("BULKHEAD_BUCKET_NAME", BUCKET.to_owned()),
        ("BULKHEAD_TABLE_NAME", TABLE.to_owned()),
    ];
    let mut arguments = std::env::args_os().skip(1);
    let code = if let Some(program) = arguments.next() {
        let status = tokio::process::Command::new(&program)
            .args(arguments)
            .envs(variables)
            .status()
            .await
            .with_context(|| format!("can't run {}", program.display()))?;
        status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .map_or(ExitCode::FAILURE, ExitCode::from)
    } else {
        let mut out = std::io::stdout().lock();
        for (name, value) in variables {
            writeln!(out, "export {name}={value}")?;
        }
        out.flush()?;
        drop(out);
        tokio::signal::ctrl_c().await?;
        ExitCode::SUCCESS
    };
    door.shutdown().await;
    Ok(code)
}
