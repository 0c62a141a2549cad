//! A deployment under test: its base URL, an HTTP client, and answers in a form that can be compared.

use std::collections::BTreeMap;

use anyhow::Context as _;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::event::Events;

/// Headers that differ between two answers that are otherwise the same: ids and times of the request.
const VOLATILE: [&str; 8] = [
    "date",
    "x-amzn-requestid",
    "x-amz-apigw-id",
    "x-amzn-trace-id",
    "x-amz-cf-id",
    "x-amz-cf-pop",
    "via",
    "x-cache",
];

/// A deployment.
#[derive(Clone, Debug)]
pub struct Deployment {
    base_url: String,
    client: reqwest::Client,
}

/// A request to a deployment.
#[derive(Clone, Debug)]
pub struct Call {
    /// The method.
    pub method: Method,
    /// The path, with its query string if it has one.
    pub path: String,
    /// The token, if one is sent.
    pub token: Option<String>,
    /// The body with its media type, if one is sent.
    pub body: Option<(String, Vec<u8>)>,
}

impl Call {
    /// A request without token and body.
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            token: None,
            body: None,
        }
    }

    /// The request with a token.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// The request with a JSON body.
    #[must_use]
    pub fn json(mut self, body: &Value) -> Self {
        self.body = Some(("application/json".to_owned(), body.to_string().into_bytes()));
        self
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON; `Null` if it is not.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The body as text, whatever bytes it holds.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The `code` of a problem.
    pub fn code(&self) -> Option<String> {
        self.json().get("code")?.as_str().map(str::to_owned)
    }

    /// What may be said of an answer to anybody: its status, and of a problem its code and the request's id. Not a word of
    /// what it holds.
    pub fn summary(&self) -> String {
        let json = self.json();
        let is_name =
            |text: &&str| text.len() <= 64 && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_=".contains(c));
        let member = |name: &str| json.get(name).and_then(Value::as_str).filter(is_name);
        let mut summary = self.status.as_u16().to_string();
        if let Some(code) = member("code") {
            summary.push_str(&format!(" {code}"));
        }
        if let Some(request) = member("request_id") {
            summary.push_str(&format!(" (request {request})"));
        }
        summary
    }

    /// What two answers must have in common to be indistinguishable: status, headers and body, but for what names the
    /// request itself.
    pub fn fingerprint(&self) -> (u16, BTreeMap<String, Vec<String>>, String) {
        let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in &self.headers {
            if !VOLATILE.contains(&name.as_str()) {
                let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
                headers.entry(name.as_str().to_owned()).or_default().push(text);
            }
        }
        let mut json = self.json();
        let body = match json.as_object_mut() {
            Some(members) => {
                members.remove("request_id");
                json.to_string()
            }
            None => self.text(),
        };
        (self.status.as_u16(), headers, body)
    }
}

impl Deployment {
    /// The deployment at `base_url`, stage included.
    ///
    /// # Errors
    /// The HTTP client can't be made.
    pub fn new(base_url: &str) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder()
            // A redirection is an answer, and a proxy would be a third party.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            // A connection belongs to the runtime that opened it, and a deployment may outlive one: tests share it.
            .pool_max_idle_per_host(0)
            .timeout(std::time::Duration::from_secs(60))
            .build()?;
        Ok(Self {
            base_url: base_url.trim_end_matches('/').to_owned(),
            client,
        })
    }

    /// The base URL, stage included, without a slash at its end.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// Sends a request.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn send(&self, call: &Call) -> anyhow::Result<Answer> {
        let answer = self.request(call).await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        Ok(Answer {
            status,
            headers,
            body: answer.bytes().await?.to_vec(),
        })
    }

    /// Sends a request whose answer is read event by event.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn stream(&self, call: &Call) -> anyhow::Result<Events> {
        Ok(Events::new(self.request(call).await?))
    }

    /// Sends a request; what comes back is the client's own answer, of which nothing was read but the head.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn request(&self, call: &Call) -> anyhow::Result<reqwest::Response> {
        let url = format!("{}{}", self.base_url, call.path);
        let mut request = self.client.request(call.method.clone(), &url);
        if let Some(token) = &call.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some((media_type, bytes)) = &call.body {
            request = request.header(CONTENT_TYPE, media_type).body(bytes.clone());
        }
        request.send().await.with_context(|| format!("{} {url}", call.method))
    }

    /// Sends a request and demands a status.
    ///
    /// # Errors
    /// There is no answer, or one of another status.
    pub async fn expect(&self, call: &Call, status: u16) -> anyhow::Result<Answer> {
        let answer = self.send(call).await?;
        anyhow::ensure!(
            answer.status.as_u16() == status,
            "{} {} answered {} instead of {status}",
            call.method,
            call.path,
            answer.summary()
        );
        Ok(answer)
    }

    /// Uploads a document as an application would: declare, content, complete.
    ///
    /// # Errors
    /// One of the three is refused.
    pub async fn upload(&self, token: &str, name: &str, media_type: &str, content: &[u8]) -> anyhow::Result<String> {
        let declaration = serde_json::json!({
            "name": name,
            "media_type": media_type,
            "size": content.len(),
            "sha256": data_encoding::HEXLOWER.encode(&Sha256::digest(content)),
        });
        let declared = self
            .expect(
                &Call::new(Method::POST, "/documents").token(token).json(&declaration),
                201,
            )
            .await?
            .json();
        let id = declared
            .get("document_id")
            .and_then(Value::as_str)
            .context("a declared document without an id")?
            .to_owned();
        let mut put = Call::new(Method::PUT, format!("/documents/{id}/content")).token(token);
        put.body = Some((media_type.to_owned(), content.to_vec()));
        self.expect(&put, 204).await?;
        self.expect(
            &Call::new(Method::POST, format!("/documents/{id}/complete")).token(token),
            202,
        )
        .await?;
        Ok(id)
    }
}
