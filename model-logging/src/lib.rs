//! Bedrock's model invocation logging as a resource of the stack: the Lambda function behind a custom resource, because
//! CloudFormation has no resource for it.
//!
//! The setting is one for the account in a Region. So what was configured before is kept in a parameter and restored
//! when the resource goes, unless somebody has changed it since. Nothing of any tenant passes through here: the
//! function changes where Bedrock logs to, and reads no log.
//!
//! Every event is answered, and within the function's time limit: CloudFormation waits for an answer, not for the
//! function (<https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/template-custom-resources.html>).

pub mod config;
mod decision;
mod event;
mod logging;
mod record;
mod response;

use std::error::Error as StdError;
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_lambda_events::cloudformation::CloudFormationCustomResourceResponseStatus as Status;
use aws_sdk_ssm::error::{ProvideErrorMetadata, SdkError};
use bulkhead_core::telemetry::{self, Metric};
use bulkhead_core::time::Clock;
use lambda_runtime::Diagnostic;
use serde_json::Value;
use tokio::time::Instant;

use self::config::Config;
use self::decision::{Present, STAYS_KEPT, Step};
use self::event::{Envelope, Wish};
use self::logging::{Logging, PutError, Region};
use self::record::Parameter;
pub use self::response::SendError;
use self::response::{Sender, response};

/// What is left of an invocation's time to answer in, when the work is not done by then.
const MARGIN: Duration = Duration::from_secs(20);
/// For how long a role that Bedrock does not accept is tried again. IAM is eventually consistent, and Bedrock tries a
/// role that the same deployment made seconds ago.
const PROPAGATION: Duration = Duration::from_secs(60);
/// The first pause between two such attempts; every further one is twice as long, up to eight seconds.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// Why an invocation failed. Lambda repeats it, twice.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// There is nobody to answer to.
    #[error("the event names no response URL")]
    Event,
    /// The answer could not be sent. What it is about has been done, and may be done again.
    #[error(transparent)]
    Unanswered(#[from] SendError),
}

impl From<Failure> for Diagnostic {
    fn from(failure: Failure) -> Self {
        let error_type = match failure {
            Failure::Event => "Malformed event",
            Failure::Unanswered(_) => "Unanswered",
        };
        Self {
            error_type: error_type.to_owned(),
            error_message: failure.to_string(),
        }
    }
}

/// Why what was wished was not done. CloudFormation shows it to whoever deploys.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    /// The event is none that the template's resource can be the reason of.
    #[error("the event can't be read")]
    Event,
    /// It was decided against.
    #[error("{0}")]
    Refused(&'static str),
    /// What is configured now could not be restored later.
    #[error(
        "what is configured now could not be restored later, so it was left as it is (is its role in the parameter \
         EarlierInvocationLoggingRole?); {0}"
    )]
    NotRestorable(Box<Trouble>),
    /// An AWS service said no, or nothing.
    #[error("{operation}: {said}")]
    Service {
        /// As in a policy.
        operation: &'static str,
        /// Code and message, or that there was no answer.
        said: String,
    },
    /// The time was over.
    #[error("it took too long")]
    Time,
}

impl Trouble {
    fn service<E, R>(operation: &'static str, error: &SdkError<E, R>) -> Self
    where
        SdkError<E, R>: ProvideErrorMetadata + StdError,
    {
        let said = match (error.code(), error.message()) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            (Some(code), None) => code.to_owned(),
            (None, _) => "no answer".to_owned(),
        };
        Self::Service { operation, said }
    }
}

/// What the function keeps between invocations.
#[derive(Debug)]
pub struct State {
    config: Config,
    region: Region,
    parameter: Parameter,
    sender: Sender,
    clock: Clock,
}

impl State {
    /// The state of a function so configured, in the account that `aws` reaches.
    pub fn new(config: Config, aws: &SdkConfig, clock: Clock) -> Self {
        Self {
            region: Region::new(aws),
            parameter: Parameter::new(aws, &config.parameter_name),
            sender: Sender::default(),
            clock,
            config,
        }
    }

    /// Does what one event asks for and answers it, before `deadline`.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn handle(&self, event: &Value, deadline: SystemTime) -> Result<(), Failure> {
        let Some(envelope) = Envelope::read(event) else {
            tracing::error!("an event without a response URL");
            telemetry::count(Metric::Fault, &self.clock);
            return Err(Failure::Event);
        };
        let left = deadline.duration_since(SystemTime::now()).unwrap_or_default();
        // Boxed, because the nested futures of SDK calls are deeper than the compiler follows.
        let work = Box::pin(self.carry_out(event, &envelope.stack_id));
        let outcome = tokio::time::timeout(left.saturating_sub(MARGIN), work)
            .await
            .unwrap_or(Err(Trouble::Time));
        let (status, reason) = match outcome {
            Ok(note) => (Status::Success, note),
            Err(trouble) => (Status::Failed, trouble.to_string()),
        };
        let kind = event.get("RequestType").and_then(Value::as_str).unwrap_or_default();
        let request_id = envelope.request_id.as_str();
        match status {
            Status::Failed => {
                tracing::error!("request.type" = kind, request_id, reason, "failed");
                telemetry::count(Metric::Fault, &self.clock);
            }
            _ => tracing::info!("request.type" = kind, request_id, reason, "done"),
        }
        // An id that changes is another resource, and CloudFormation would delete the one before.
        let id = envelope.physical_resource_id.as_deref();
        let id = id.unwrap_or(&self.config.parameter_name);
        let response = response(&envelope, id, status, &reason);
        let sent = self.sender.send(&envelope.response_url, &response).await;
        sent.inspect_err(|error| {
            tracing::error!(%error, request_id, "CloudFormation was not answered");
            telemetry::count(Metric::Fault, &self.clock);
        })?;
        Ok(())
    }

    /// Does it, and says what whoever deploys should know.
    async fn carry_out(&self, event: &Value, stack: &str) -> Result<String, Trouble> {
        if stack.is_empty() {
            return Err(Trouble::Event);
        }
        let (wish, properties) = match Wish::read(event)? {
            Some(wish) => wish,
            None => return Ok("No resource was ever made with these properties.".to_owned()),
        };
        let present = Present::of(self.region.get().await?, &properties.log_group_name);
        let kept = self.parameter.read().await?;
        let decision = match wish {
            Wish::Made => decision::make(present, kept, stack).map_err(Trouble::Refused)?,
            Wish::Gone => decision::unmake(present, kept, stack),
        };
        let ours = Logging::ours(&properties);
        for step in &decision.steps {
            match step {
                Step::Rehearse(before) => match self.region.put(before).await {
                    Ok(()) => {}
                    Err(PutError::Other(trouble)) => return Err(Trouble::NotRestorable(Box::new(trouble))),
                    // Whoever has no use for it any more can delete it first.
                    Err(PutError::Invalid(said)) => {
                        let operation = "bedrock:PutModelInvocationLoggingConfiguration";
                        return Err(Trouble::NotRestorable(Box::new(Trouble::Service { operation, said })));
                    }
                },
                Step::Keep(record) => self.parameter.keep(record).await?,
                Step::Replace(record) => self.parameter.replace(record).await?,
                Step::Configure => self.configure(&ours).await?,
                Step::Restore(before) => match self.region.put(before).await {
                    Ok(()) => {}
                    Err(PutError::Other(trouble)) => return Err(trouble),
                    Err(PutError::Invalid(said)) => return self.give_up(&said).await,
                },
                Step::TurnOff => self.region.delete().await?,
                Step::Forget => self.parameter.forget().await?,
            }
        }
        Ok(decision.note.unwrap_or("Done.").to_owned())
    }

    /// Configures ours, and again for a while if Bedrock does not accept the role yet.
    async fn configure(&self, ours: &Logging) -> Result<(), Trouble> {
        let begun = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let said = match self.region.put(ours).await {
                Ok(()) => return Ok(()),
                Err(PutError::Other(trouble)) => return Err(trouble),
                Err(PutError::Invalid(said)) => said,
            };
            if begun.elapsed() + pause > PROPAGATION {
                let operation = "bedrock:PutModelInvocationLoggingConfiguration";
                return Err(Trouble::Service { operation, said });
            }
            tracing::info!("Bedrock does not accept the role yet");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// What was before is no longer valid, most likely because its bucket, log group or role has gone: no repetition
    /// would restore it. Ours can't stay, as its log group goes too. What was kept stays where it can be read.
    async fn give_up(&self, said: &str) -> Result<String, Trouble> {
        self.region.delete().await?;
        Ok(format!("{STAYS_KEPT} Bedrock did not accept it any more: {said}"))
    }
}

#[cfg(test)]
mod tests {
    use aws_config::{BehaviorVersion, Region as AwsRegion};
    use aws_credential_types::Credentials;
    use aws_credential_types::provider::SharedCredentialsProvider;
    use serde_json::json;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn cloudformation_is_answered_in_time_even_if_aws_is_not() {
        // Takes connections and says nothing.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let credentials = Credentials::new("AKIDEXAMPLE", "secret", None, None, "test");
        let aws = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(AwsRegion::new("us-east-1"))
            .endpoint_url(format!("http://{}", silent.local_addr().unwrap()))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .build();
        let config = Config {
            parameter_name: "/bulkhead/stack/before".to_owned(),
        };
        let state = State::new(config, &aws, Clock::system());

        let mailbox = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let event = json!({
            "RequestType": "Create",
            "ResponseURL": format!("http://{}/", mailbox.local_addr().unwrap()),
            "StackId": "stack",
            "RequestId": "request",
            "ResourceType": "Custom::ModelInvocationLogging",
            "LogicalResourceId": "Logical",
            "ResourceProperties": {"LogGroupName": "logs", "RoleArn": "role"},
        });
        let receive = async {
            let (mut stream, _) = mailbox.accept().await.unwrap();
            let mut request = String::new();
            while !request.ends_with('}') {
                let mut buffer = [0; 4096];
                let read = stream.read(&mut buffer).await.unwrap();
                assert_ne!(read, 0, "{request}");
                request.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
            }
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .await
                .unwrap();
            request
        };
        let deadline = SystemTime::now() + MARGIN + Duration::from_millis(200);
        let (handled, request) = tokio::join!(state.handle(&event, deadline), receive);
        handled.unwrap();
        assert!(SystemTime::now() < deadline);
        let (_, document) = request.split_once("\r\n\r\n").unwrap();
        let document: Value = serde_json::from_str(document).unwrap();
        assert_eq!(document["Status"], "FAILED");
        assert_eq!(document["Reason"], "it took too long");
        assert_eq!(document["PhysicalResourceId"], "/bulkhead/stack/before");
    }
}
