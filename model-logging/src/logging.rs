//! The Region's configuration of model invocation logging, and the only place here that calls Bedrock.
//!
//! There is one configuration for the account in a Region, whoever it was set by
//! (<https://docs.aws.amazon.com/bedrock/latest/userguide/model-invocation-logging.html>).

use aws_config::SdkConfig;
use aws_sdk_bedrock::error::{BuildError, ProvideErrorMetadata as _};
use aws_sdk_bedrock::types::{CloudWatchConfig, LoggingConfig, S3Config};
use aws_sdk_bedrock::{Client, config};
use serde::{Deserialize, Serialize};

use crate::Trouble;
use crate::event::Properties;

/// A configuration, in AWS's own members: what is kept can be given to `aws bedrock
/// put-model-invocation-logging-configuration` as it is. Members that this SDK does not know are not kept.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Logging {
    #[serde(skip_serializing_if = "Option::is_none")]
    cloud_watch_config: Option<CloudWatch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    s3_config: Option<S3>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text_data_delivery_enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_data_delivery_enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding_data_delivery_enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    video_data_delivery_enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    audio_data_delivery_enabled: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CloudWatch {
    log_group_name: String,
    role_arn: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    large_data_delivery_s3_config: Option<S3>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct S3 {
    bucket_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_prefix: Option<String>,
}

impl Logging {
    /// Ours: text only, into the stack's log group. Every kind of data is named, because one that is left out need not be
    /// off.
    pub(crate) fn ours(properties: &Properties) -> Self {
        Self {
            cloud_watch_config: Some(CloudWatch {
                log_group_name: properties.log_group_name.clone(),
                role_arn: properties.role_arn.clone(),
                large_data_delivery_s3_config: None,
            }),
            s3_config: None,
            text_data_delivery_enabled: Some(true),
            image_data_delivery_enabled: Some(false),
            embedding_data_delivery_enabled: Some(false),
            video_data_delivery_enabled: Some(false),
            audio_data_delivery_enabled: Some(false),
        }
    }

    /// Whether it writes to this log group, whatever else it says.
    pub(crate) fn writes_to(&self, log_group_name: &str) -> bool {
        let cloud_watch = self.cloud_watch_config.as_ref();
        cloud_watch.is_some_and(|cloud_watch| cloud_watch.log_group_name == log_group_name)
    }

    fn of(config: LoggingConfig) -> Self {
        let s3 = |config: S3Config| S3 {
            bucket_name: config.bucket_name,
            key_prefix: config.key_prefix,
        };
        Self {
            cloud_watch_config: config.cloud_watch_config.map(|config| CloudWatch {
                log_group_name: config.log_group_name,
                role_arn: config.role_arn,
                large_data_delivery_s3_config: config.large_data_delivery_s3_config.map(s3),
            }),
            s3_config: config.s3_config.map(s3),
            text_data_delivery_enabled: config.text_data_delivery_enabled,
            image_data_delivery_enabled: config.image_data_delivery_enabled,
            embedding_data_delivery_enabled: config.embedding_data_delivery_enabled,
            video_data_delivery_enabled: config.video_data_delivery_enabled,
            audio_data_delivery_enabled: config.audio_data_delivery_enabled,
        }
    }

    fn to_sdk(&self) -> Result<LoggingConfig, BuildError> {
        let s3 = |config: &S3| {
            S3Config::builder()
                .bucket_name(&config.bucket_name)
                .set_key_prefix(config.key_prefix.clone())
                .build()
        };
        let cloud_watch = |config: &CloudWatch| {
            CloudWatchConfig::builder()
                .log_group_name(&config.log_group_name)
                .role_arn(&config.role_arn)
                .set_large_data_delivery_s3_config(config.large_data_delivery_s3_config.as_ref().map(s3).transpose()?)
                .build()
        };
        Ok(LoggingConfig::builder()
            .set_cloud_watch_config(self.cloud_watch_config.as_ref().map(cloud_watch).transpose()?)
            .set_s3_config(self.s3_config.as_ref().map(s3).transpose()?)
            .set_text_data_delivery_enabled(self.text_data_delivery_enabled)
            .set_image_data_delivery_enabled(self.image_data_delivery_enabled)
            .set_embedding_data_delivery_enabled(self.embedding_data_delivery_enabled)
            .set_video_data_delivery_enabled(self.video_data_delivery_enabled)
            .set_audio_data_delivery_enabled(self.audio_data_delivery_enabled)
            .build())
    }
}

/// Why a configuration was not set.
#[derive(Debug)]
pub(crate) enum PutError {
    /// Bedrock does not take it as it is, or not yet: it tries the role, which IAM may not know everywhere so soon.
    /// What it says of that.
    Invalid(String),
    /// Anything else.
    Other(Trouble),
}

/// The Region's one configuration.
#[derive(Clone, Debug)]
pub(crate) struct Region(Client);

impl Region {
    pub(crate) fn new(aws: &SdkConfig) -> Self {
        Self(Client::from_conf(config::Builder::from(aws).build()))
    }

    /// What is configured, or that nothing is.
    pub(crate) async fn get(&self) -> Result<Option<Logging>, Trouble> {
        let answer = self.0.get_model_invocation_logging_configuration().send().await;
        let answer =
            answer.map_err(|error| Trouble::service("bedrock:GetModelInvocationLoggingConfiguration", &error))?;
        Ok(answer.logging_config.map(Logging::of))
    }

    /// Sets the configuration.
    pub(crate) async fn put(&self, logging: &Logging) -> Result<(), PutError> {
        let operation = "bedrock:PutModelInvocationLoggingConfiguration";
        let config = logging.to_sdk().map_err(|error| PutError::Invalid(error.to_string()))?;
        let call = self.0.put_model_invocation_logging_configuration();
        match call.logging_config(config).send().await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some("ValidationException") => {
                Err(PutError::Invalid(error.message().unwrap_or_default().to_owned()))
            }
            Err(error) => Err(PutError::Other(Trouble::service(operation, &error))),
        }
    }

    /// Turns logging off. It is no error if it is off.
    pub(crate) async fn delete(&self) -> Result<(), Trouble> {
        let answer = self.0.delete_model_invocation_logging_configuration().send().await;
        answer.map_err(|error| Trouble::service("bedrock:DeleteModelInvocationLoggingConfiguration", &error))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_member_survives_being_kept_and_sent() {
        let bucket = json!({"bucketName": "bucket", "keyPrefix": "prefix"});
        let whole = json!({
            "cloudWatchConfig": {
                "logGroupName": "logs",
                "roleArn": "arn:aws:iam::123456789012:role/bedrock",
                "largeDataDeliveryS3Config": bucket,
            },
            "s3Config": {"bucketName": "other"},
            "textDataDeliveryEnabled": true,
            "imageDataDeliveryEnabled": false,
            "embeddingDataDeliveryEnabled": true,
            "videoDataDeliveryEnabled": false,
            "audioDataDeliveryEnabled": true,
        });
        for value in [whole, json!({"s3Config": bucket}), json!({})] {
            let logging: Logging = serde_json::from_value(value.clone()).unwrap();
            assert_eq!(Logging::of(logging.to_sdk().unwrap()), logging);
            assert_eq!(serde_json::to_value(&logging).unwrap(), value);
        }
    }

    #[test]
    fn what_is_unknown_is_not_silently_lost() {
        assert!(serde_json::from_value::<Logging>(json!({"documentDataDeliveryEnabled": true})).is_err());
    }

    #[test]
    fn ours_is_told_by_its_log_group() {
        let properties = |group: &str| Properties {
            log_group_name: group.to_owned(),
            role_arn: "role".to_owned(),
        };
        let ours = Logging::ours(&properties("logs"));
        assert!(ours.writes_to("logs"));
        assert!(!ours.writes_to("logs-2"));
        let others: Logging = serde_json::from_value(json!({"s3Config": {"bucketName": "logs"}})).unwrap();
        assert!(!others.writes_to("logs"));
    }
}
