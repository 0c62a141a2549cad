//! What an operator's `sam package` uploads, to the stack's own S3: the contract and the code, byte for byte.
//!
//! The SAM CLI rewrites a template's paths to where it has put the files. A contract that it had parsed and written again
//! would be another one than the stack has executed.

use std::collections::BTreeMap;
use std::io::{Cursor, Write as _};
use std::path::Path;

use bulkhead_local::credential::Caller;
use bulkhead_local::document::{self, ShortForm};
use data_encoding::HEXLOWER;
use integration_tests::fixture::Fixture;
use integration_tests::repository;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::process::Command;

/// Prints the SHA-256 of every object under a prefix, by its key.
const DIGESTS: &str = "
import boto3, hashlib, json, sys
s3 = boto3.client('s3')
bucket, prefix = sys.argv[1:]
found = s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get('Contents', [])
read = lambda key: s3.get_object(Bucket=bucket, Key=key)['Body'].read()
print(json.dumps({item['Key']: hashlib.sha256(read(item['Key'])).hexdigest() for item in found}))
";

/// Not under the data source's prefix.
const PREFIX: &str = "packaged";

fn digest(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes))
}

/// An archive as Lambda takes it, other for every function.
fn archive(function: &str) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file(
        "bootstrap",
        zip::write::SimpleFileOptions::default().unix_permissions(0o755),
    )
    .unwrap();
    write!(zip, "the code of {function}").unwrap();
    zip.finish().unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn sam_uploads_the_contract_and_the_code_as_they_are() {
    let fixture = Fixture::shared();
    let stack = &fixture.stack;
    let bucket = stack.template().buckets[0].name.clone();
    let sam = tokio::task::spawn_blocking(repository::sam).await.unwrap();
    let python = sam.with_file_name("python");

    // The template and the contract where they lie to each other, and the code as `sam build` leaves it.
    let folder = tempfile::tempdir().unwrap();
    for name in ["infra", "openapi", "home"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    let contract = std::fs::read(repository::root().join("openapi/gateway.yaml")).unwrap();
    std::fs::write(folder.path().join("openapi/gateway.yaml"), &contract).unwrap();
    let mut template = std::fs::read_to_string(repository::root().join("infra/template.yaml")).unwrap();
    let mut code = BTreeMap::new();
    // What has a condition is uploaded too.
    for function in &repository::whole_template().functions {
        let package = &function.package;
        let location = format!("      CodeUri: ../{package}\n");
        assert_eq!(template.matches(&location).count(), 1, "{package}");
        template = template.replace(&location, &format!("      CodeUri: ../{package}.zip\n"));
        let archive = archive(package);
        code.insert(function.logical_id.as_str().to_owned(), digest(&archive));
        std::fs::write(folder.path().join(format!("{package}.zip")), archive).unwrap();
    }
    std::fs::write(folder.path().join("infra/template.yaml"), template).unwrap();

    // Whoever deploys is an administrator.
    let credential = stack.front_door().credentials().issue(Caller::administrator(None));
    let command = |program: &Path| {
        let mut command = Command::new(program);
        command
            .current_dir(folder.path())
            .env("HOME", folder.path().join("home"))
            .env("AWS_ENDPOINT_URL", stack.front_door().endpoint())
            .env("AWS_REGION", stack.front_door().region())
            .env("AWS_DEFAULT_REGION", stack.front_door().region())
            .env("AWS_ACCESS_KEY_ID", &credential.access_key_id)
            .env("AWS_SECRET_ACCESS_KEY", &credential.secret_access_key)
            .env("AWS_SESSION_TOKEN", &credential.session_token)
            .env("NO_PROXY", "127.0.0.1")
            // Nothing is reported to anybody.
            .env("SAM_CLI_TELEMETRY", "0")
            .env("SAM_CLI_CHECK_NEW_VERSION", "0");
        command
    };
    let output = command(&sam)
        .args(["package", "--template-file", "infra/template.yaml"])
        .args(["--output-template-file", "packaged.yaml", "--no-progressbar"])
        .args(["--s3-bucket", &bucket, "--s3-prefix", PREFIX])
        .output()
        .await
        .unwrap();
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );

    let output = command(&python)
        .args(["-c", DIGESTS, &bucket, PREFIX])
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stored: BTreeMap<String, String> = serde_json::from_slice::<BTreeMap<String, String>>(&output.stdout)
        .unwrap()
        .into_iter()
        .map(|(key, digest)| (format!("s3://{bucket}/{key}"), digest))
        .collect();

    let packaged = document::load(&folder.path().join("packaged.yaml"), ShortForm::Accepted).unwrap();
    let at = |pointer: &str| packaged.pointer(pointer).and_then(Value::as_str).unwrap().to_owned();
    let include = at("/Resources/Api/Properties/DefinitionBody/Fn::Transform/Parameters/Location");
    assert_eq!(stored.get(&include), Some(&digest(&contract)), "{include}");
    for (function, digest) in &code {
        let location = at(&format!("/Resources/{function}/Properties/CodeUri"));
        assert_eq!(stored.get(&location), Some(digest), "{function} is at {location}");
    }
    assert_eq!(stored.len(), code.len() + 1, "{stored:?}");
}
