//! The answer to CloudFormation: a document that is put to the address in the event
//! (<https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref-responses.html>).
//!
//! Which address that is, is the invoker's to say, and invoking is what IAM protects; no rule about hosts here would
//! hold more. What is sent holds ids and a sentence, redirects are not followed, and of the answer only the status is
//! read. The address is signed, so it is in no log: an error that carries it is stripped of it.

use std::sync::OnceLock;
use std::time::Duration;

use aws_lambda_events::cloudformation::{
    CloudFormationCustomResourceResponse as Response, CloudFormationCustomResourceResponseStatus as Status,
};
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{StatusCode, redirect};

use crate::event::Envelope;

/// How long one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The pauses between attempts. All of it fits into [`crate::MARGIN`].
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(1)];
/// How many characters of a reason are sent: the document may have 4,096 bytes.
const MAX_REASON: usize = 500;

/// Why CloudFormation was not answered.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No answer, or no connection.
    #[error("no answer from the response URL: {0}")]
    Http(reqwest::Error),
    /// Something else than success.
    #[error("the response URL answered {0}")]
    Status(StatusCode),
    /// The document could not be written.
    #[error("the response is not JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl From<reqwest::Error> for SendError {
    fn from(error: reqwest::Error) -> Self {
        Self::Http(error.without_url())
    }
}

/// What CloudFormation is told.
pub(crate) fn response(envelope: &Envelope, id: &str, status: Status, reason: &str) -> Response {
    let mut response = Response::default();
    response.status = status;
    response.reason = Some(reason.chars().take(MAX_REASON).collect());
    response.physical_resource_id = id.to_owned();
    response.stack_id.clone_from(&envelope.stack_id);
    response.request_id.clone_from(&envelope.request_id);
    response.logical_resource_id.clone_from(&envelope.logical_resource_id);
    response
}

/// Sends answers.
#[derive(Debug, Default)]
pub(crate) struct Sender {
    /// Built when first used: it loads the machine's root certificates.
    client: OnceLock<reqwest::Client>,
}

impl Sender {
    /// Sends one, three times at most.
    pub(crate) async fn send(&self, url: &str, response: &Response) -> Result<(), SendError> {
        let body = serde_json::to_vec(response)?;
        for pause in PAUSES {
            match self.attempt(url, body.clone()).await {
                Err(error) if error.may_pass() => tracing::warn!(%error, "not answered yet"),
                outcome => return outcome,
            }
            tokio::time::sleep(pause).await;
        }
        self.attempt(url, body).await
    }

    async fn attempt(&self, url: &str, body: Vec<u8>) -> Result<(), SendError> {
        // The empty content type is what the address is signed for.
        let request = self
            .client()?
            .put(url)
            .header(CONTENT_TYPE, HeaderValue::from_static(""));
        let status = request.body(body).send().await?.status();
        if status.is_success() {
            Ok(())
        } else {
            Err(SendError::Status(status))
        }
    }

    fn client(&self) -> Result<&reqwest::Client, SendError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .no_proxy()
            .timeout(TIMEOUT)
            .pool_max_idle_per_host(0)
            .user_agent("bulkhead")
            .build()?;
        Ok(self.client.get_or_init(|| client))
    }
}

impl SendError {
    /// Whether another attempt may do better. A refusal (the address has expired) stays one.
    fn may_pass(&self) -> bool {
        match self {
            Self::Http(error) => !error.is_builder(),
            Self::Status(status) => status.is_server_error(),
            Self::Json(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn envelope() -> Envelope {
        Envelope::read(&json!({
            "ResponseURL": "https://responses.example.com/",
            "StackId": "stack",
            "RequestId": "request",
            "LogicalResourceId": "Logical",
        }))
        .unwrap()
    }

    #[test]
    fn the_document_has_what_cloudformation_wants_and_fits() {
        let long = "\u{1F6A2}".repeat(4096);
        let response = response(&envelope(), "id", Status::Failed, &long);
        let value = serde_json::to_value(&response).unwrap();
        for (member, expected) in [
            ("Status", "FAILED"),
            ("PhysicalResourceId", "id"),
            ("StackId", "stack"),
            ("RequestId", "request"),
            ("LogicalResourceId", "Logical"),
        ] {
            assert_eq!(value[member], expected);
        }
        assert!(serde_json::to_vec(&response).unwrap().len() < 4096);
    }

    #[tokio::test]
    async fn an_error_does_not_show_the_address() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let nobody = listener.local_addr().unwrap();
        drop(listener);
        for url in [
            "no address at all: secret",
            "ftp://127.0.0.1/?signature=secret",
            &format!("http://{nobody}/?signature=secret"),
        ] {
            let response = response(&envelope(), "id", Status::Success, "done");
            let error = Sender::default().send(url, &response).await.unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("secret"), "{shown}");
        }
    }
}
