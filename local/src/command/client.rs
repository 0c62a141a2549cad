//! What talks to a running stack as its users do: through the gateway, with tokens of its identity provider.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use data_encoding::HEXLOWER;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{AskArguments, Target, TokenArguments, UploadArguments, question, say, telling};
use crate::ready::Ready;
use crate::stack::wait_until;

/// How long a document may take until it is indexed.
const INDEXING: Duration = Duration::from_secs(120);

/// How long a streamed answer may take, from the request to its end: longer than the function may.
const STREAM: Duration = Duration::from_secs(180);

/// The media types that the gateway takes, by a file's extension.
const MEDIA_TYPES: [(&str, &str); 11] = [
    ("txt", "text/plain"),
    ("md", "text/markdown"),
    ("markdown", "text/markdown"),
    ("html", "text/html"),
    ("htm", "text/html"),
    ("csv", "text/csv"),
    ("pdf", "application/pdf"),
    ("doc", "application/msword"),
    (
        "docx",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ),
    ("xls", "application/vnd.ms-excel"),
    (
        "xlsx",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ),
];

/// A running stack as somebody outside uses it.
pub(super) struct Client {
    ready: Ready,
    http: reqwest::Client,
}

/// A file on its way to a tenant's documents.
pub(super) struct Upload<'a> {
    /// The name that the tenant sees.
    pub(super) name: &'a str,
    /// Its bytes.
    pub(super) content: Vec<u8>,
}

impl Client {
    pub(super) fn new(ready: Ready) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(60))
            .build()?;
        Ok(Self { ready, http })
    }

    async fn of(target: &Target) -> anyhow::Result<Self> {
        let ready = match &target.ready_file {
            Some(path) => Ready::read(path)?,
            None => Ready::find(target.base_url.as_deref()).await?,
        };
        Self::new(ready)
    }

    /// A token of the stack's identity provider.
    pub(super) async fn token(&self, request: &Value) -> anyhow::Result<String> {
        let answer = self
            .http
            .post(format!("{}/token", self.ready.endpoints.identity))
            .bearer_auth(&self.ready.token_secret)
            .json(request)
            .send()
            .await
            .context("the identity provider does not answer")?;
        if answer.status() != StatusCode::OK {
            bail!("the identity provider refused: {}", answer.text().await?);
        }
        let answer: Value = answer.json().await?;
        Ok(text(&answer, "access_token")?.to_owned())
    }

    /// A token of a tenant's user.
    pub(super) async fn tenant_token(&self, tenant: &str, role: &str) -> anyhow::Result<String> {
        self.token(&json!({"tenant": tenant, "roles": [role], "user": "alice"}))
            .await
    }

    /// An operator's token.
    pub(super) async fn operator_token(&self) -> anyhow::Result<String> {
        self.token(&json!({"roles": ["operator"], "user": "olivia"})).await
    }

    /// Calls an operation; the answer's body is `Null` if it is not JSON.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        token: &str,
        body: Option<Value>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.ready.base_url))
            .bearer_auth(token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.context("the gateway does not answer")?;
        let status = answer.status();
        Ok((
            status,
            serde_json::from_slice(&answer.bytes().await?).unwrap_or(Value::Null),
        ))
    }

    /// Calls an operation whose answer is read while it comes.
    pub(super) async fn stream(&self, path: &str, token: &str, body: &Value) -> anyhow::Result<reqwest::Response> {
        let request = self.http.post(format!("{}{path}", self.ready.base_url));
        let request = request.bearer_auth(token).json(body).timeout(STREAM);
        request.send().await.context("the gateway does not answer")
    }

    /// Calls an operation that must answer with `status`.
    pub(super) async fn expect(
        &self,
        status: StatusCode,
        method: Method,
        path: &str,
        token: &str,
        body: Option<Value>,
    ) -> anyhow::Result<Value> {
        let (seen, answer) = self.call(method.clone(), path, token, body).await?;
        if seen != status {
            bail!("{method} {path} answered {seen}: {}", problem(&answer));
        }
        Ok(answer)
    }

    /// Uploads a document in the three steps that every application takes, and gives its id.
    pub(super) async fn upload(&self, token: &str, upload: &Upload<'_>) -> anyhow::Result<String> {
        let media_type = media_type(upload.name)?;
        let declaration = json!({
            "name": upload.name,
            "media_type": media_type,
            "size": upload.content.len(),
            "sha256": HEXLOWER.encode(&Sha256::digest(&upload.content)),
        });
        let declared = self
            .expect(
                StatusCode::CREATED,
                Method::POST,
                "/documents",
                token,
                Some(declaration),
            )
            .await
            .with_context(|| format!("declaring {}", upload.name))?;
        let id = text(&declared, "document_id")?.to_owned();
        let answer = self
            .http
            .put(format!("{}/documents/{id}/content", self.ready.base_url))
            .bearer_auth(token)
            .header(CONTENT_TYPE, media_type)
            .body(upload.content.clone())
            .send()
            .await
            .with_context(|| format!("sending {}", upload.name))?;
        if answer.status() != StatusCode::NO_CONTENT {
            let status = answer.status();
            let body = serde_json::from_slice(&answer.bytes().await?).unwrap_or(Value::Null);
            bail!("sending {} was answered {status}: {}", upload.name, problem(&body));
        }
        self.expect(
            StatusCode::ACCEPTED,
            Method::POST,
            &format!("/documents/{id}/complete"),
            token,
            None,
        )
        .await
        .with_context(|| format!("completing {}", upload.name))?;
        Ok(id)
    }

    /// Waits until a document is no longer being processed, and gives its record.
    pub(super) async fn indexed(&self, token: &str, id: &str) -> anyhow::Result<Value> {
        let path = format!("/documents/{id}");
        wait_until("a document is indexed", INDEXING, || async {
            let document = self.expect(StatusCode::OK, Method::GET, &path, token, None).await?;
            Ok((text(&document, "status")? != "processing").then_some(document))
        })
        .await
    }
}

pub(super) async fn token(arguments: TokenArguments) -> anyhow::Result<ExitCode> {
    let is_operator = arguments.operator || arguments.role.iter().any(|role| role == "operator");
    if arguments.tenant.is_none() && !is_operator {
        bail!("whose token? --tenant ID, or --operator");
    }
    let client = Client::of(&arguments.target).await?;
    let roles = if arguments.operator {
        vec!["operator".to_owned()]
    } else {
        arguments.role
    };
    let request = json!({
        "tenant": arguments.tenant,
        "roles": roles,
        "groups": arguments.group,
        "user": arguments.user,
    });
    say!("{}", client.token(&request).await?);
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn upload(arguments: UploadArguments) -> anyhow::Result<ExitCode> {
    let client = Client::of(&arguments.target).await?;
    let token = client.tenant_token(&arguments.tenant, "admin").await?;
    let mut good = true;
    for path in &arguments.files {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .context("a file without a name")?;
        let begun = std::time::Instant::now();
        let document = match upload_file(&client, &token, path, name).await {
            Ok(document) => document,
            Err(error) => {
                good = false;
                say!("{name}: {error:#}");
                continue;
            }
        };
        let status = text(&document, "status")?;
        let reason = document.get("reason").and_then(Value::as_str).unwrap_or_default();
        good &= status == "indexed";
        say!("{name}: {status} in {:.1} s {reason}", begun.elapsed().as_secs_f64());
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn upload_file(client: &Client, token: &str, path: &Path, name: &str) -> anyhow::Result<Value> {
    let content = tokio::fs::read(path)
        .await
        .with_context(|| format!("reading {}", path.display()))?;
    let id = client.upload(token, &Upload { name, content }).await?;
    client.indexed(token, &id).await
}

pub(super) async fn ask(arguments: AskArguments) -> anyhow::Result<ExitCode> {
    let client = Client::of(&arguments.target).await?;
    let token = client.tenant_token(&arguments.tenant, "reader").await?;
    if arguments.stream {
        let good = telling::ask(&client, &token, &arguments.question).await?;
        return Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let answer = question::ask(&client, &token, &arguments.question).await?;
    say!("{answer}");
    Ok(if answer.status == StatusCode::OK {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn media_type(name: &str) -> anyhow::Result<&'static str> {
    let extension = Path::new(name)
        .extension()
        .and_then(|extension| extension.to_str())
        .unwrap_or_default();
    MEDIA_TYPES
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(extension))
        .map(|(_, media_type)| *media_type)
        .with_context(|| format!("{name}: the gateway takes txt, md, html, csv, pdf, doc, docx, xls and xlsx"))
}

pub(super) fn text<'a>(value: &'a Value, member: &str) -> anyhow::Result<&'a str> {
    value
        .get(member)
        .and_then(Value::as_str)
        .with_context(|| format!("an answer without {member}"))
}

/// A problem in one line.
pub(super) fn problem(body: &Value) -> String {
    let member = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
    let errors = body
        .get("errors")
        .map(|errors| format!(" {errors}"))
        .unwrap_or_default();
    format!("{} ({}){errors}", member("detail"), member("code"))
}
