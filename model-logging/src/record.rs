//! What was configured before, in a parameter of Parameter Store, and the only place here that calls it.

use aws_config::SdkConfig;
use aws_sdk_ssm::types::ParameterType;
use aws_sdk_ssm::{Client, config};
use serde::{Deserialize, Serialize};

use crate::Trouble;
use crate::logging::Logging;

/// What was configured before a stack configured its own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// The stack's ARN. The parameter's name is the same for every stack of a name, and a stack that went without its
    /// record may have left it.
    pub(crate) stack: String,
    /// The configuration, or that there was none. One of the two is said: a record without it is none.
    #[serde(deserialize_with = "Option::deserialize")]
    pub(crate) before: Option<Logging>,
}

/// What the parameter holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// There is no parameter.
    Nothing,
    /// A record.
    Record(Record),
    /// Something else: somebody wrote it by hand, or a later version of this function did.
    Unreadable,
}

impl Kept {
    fn read(value: &str) -> Self {
        serde_json::from_str(value).map_or(Self::Unreadable, Self::Record)
    }
}

/// The parameter.
#[derive(Clone, Debug)]
pub(crate) struct Parameter {
    client: Client,
    name: String,
}

impl Parameter {
    pub(crate) fn new(aws: &SdkConfig, name: &str) -> Self {
        Self {
            client: Client::from_conf(config::Builder::from(aws).build()),
            name: name.to_owned(),
        }
    }

    /// What it holds.
    pub(crate) async fn read(&self) -> Result<Kept, Trouble> {
        match self.client.get_parameter().name(&self.name).send().await {
            Ok(answer) => {
                let value = answer.parameter.and_then(|parameter| parameter.value);
                Ok(value.map_or(Kept::Unreadable, |value| Kept::read(&value)))
            }
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|error| error.is_parameter_not_found()) =>
            {
                Ok(Kept::Nothing)
            }
            Err(error) => Err(Trouble::service("ssm:GetParameter", &error)),
        }
    }

    /// Writes a record where there is none. Where there is one by now, it stays: an event is delivered more than once,
    /// and the other delivery was first.
    pub(crate) async fn keep(&self, record: &Record) -> Result<(), Trouble> {
        match self.write(record, false).await {
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|error| error.is_parameter_already_exists()) =>
            {
                Ok(())
            }
            written => written
                .map(|_| ())
                .map_err(|error| Trouble::service("ssm:PutParameter", &error)),
        }
    }

    /// Writes a record over another stack's.
    pub(crate) async fn replace(&self, record: &Record) -> Result<(), Trouble> {
        let written = self.write(record, true).await;
        written.map_err(|error| Trouble::service("ssm:PutParameter", &error))?;
        Ok(())
    }

    async fn write(&self, record: &Record, overwrite: bool) -> Result<PutParameterOutput, PutParameterFailure> {
        // Two strings and a few members: this can't fail, and if it did, no parameter would be written.
        let value = serde_json::to_string(record).unwrap_or_default();
        let call = self.client.put_parameter().name(&self.name).value(value);
        call.r#type(ParameterType::String)
            .description("What Bulkhead found configured for Bedrock's model invocation logging, to restore it.")
            .overwrite(overwrite)
            .send()
            .await
    }

    /// Deletes it. It is no error if there is none.
    pub(crate) async fn forget(&self) -> Result<(), Trouble> {
        match self.client.delete_parameter().name(&self.name).send().await {
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|error| error.is_parameter_not_found()) =>
            {
                Ok(())
            }
            deleted => deleted
                .map(|_| ())
                .map_err(|error| Trouble::service("ssm:DeleteParameter", &error)),
        }
    }
}

type PutParameterOutput = aws_sdk_ssm::operation::put_parameter::PutParameterOutput;
type PutParameterFailure = aws_sdk_ssm::error::SdkError<
    aws_sdk_ssm::operation::put_parameter::PutParameterError,
    aws_sdk_ssm::config::http::HttpResponse,
>;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_comes_back_and_nothing_else_is_taken_for_one() {
        for before in [
            None,
            serde_json::from_value(json!({"textDataDeliveryEnabled": true})).unwrap(),
        ] {
            let record = Record {
                stack: "arn".to_owned(),
                before,
            };
            let value = serde_json::to_string(&record).unwrap();
            assert_eq!(Kept::read(&value), Kept::Record(record));
        }
        for value in [
            "",
            "null",
            "{}",
            r#"{"stack":"arn"}"#,
            r#"{"before":null}"#,
            r#"{"stack":"arn","before":{"new":1}}"#,
        ] {
            assert_eq!(Kept::read(value), Kept::Unreadable, "{value}");
        }
    }
}
