//! What the tenant admin is told by its environment.

use std::time::Duration;

use bulkhead_core::config::{ConfigError, Environment};
use bulkhead_core::credential::RoleArn;
use bulkhead_core::document::MAX_BUCKET_NAME;
use bulkhead_core::plan::Plans;
use bulkhead_core::profile::MAX_STATUS_AGE_SECS;

/// The longest that a document's status may be old before the knowledge base is asked again.
const MAX_INGESTION_STATUS_AGE_SECS: u64 = 300;

/// The configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `BULKHEAD_TABLE_NAME`: the product's table.
    pub table_name: String,
    /// `BULKHEAD_DATA_ROLE_ARN`: the role that the function assumes for a tenant's data.
    pub data_role: RoleArn,
    /// `BULKHEAD_STATUS_MAX_AGE_SECS` (20, at most 20): how old the tenant's status may be.
    pub status_max_age: Duration,
    /// `BULKHEAD_BUCKET_NAME`: the bucket, with a name of at most [`MAX_BUCKET_NAME`] characters.
    pub bucket_name: String,
    /// `BULKHEAD_KNOWLEDGE_BASE_ID`: the knowledge base that all tenants share.
    pub knowledge_base_id: String,
    /// `BULKHEAD_DATA_SOURCE_ID`: the knowledge base's data source, the bucket.
    pub data_source_id: String,
    /// `BULKHEAD_INGESTION_STATUS_MAX_AGE_SECS` (5): how old a document's status may be before the knowledge base is
    /// asked again.
    pub ingestion_status_max_age: Duration,
    /// `BULKHEAD_PLANS`: the plans that tenants can have.
    pub plans: Plans,
}

impl Config {
    /// Reads it, once.
    ///
    /// # Errors
    /// A variable is missing or wrong; the error names it. A bucket's name that is too long stops the start, because
    /// direct ingestion would refuse the longest keys in it, and only those.
    pub fn from_env(environment: &Environment) -> Result<Self, ConfigError> {
        let required = |variable| environment.required(variable).map(str::to_owned);
        let bucket_name = required("BULKHEAD_BUCKET_NAME")?;
        if bucket_name.len() > MAX_BUCKET_NAME {
            return Err(ConfigError::new(
                "BULKHEAD_BUCKET_NAME",
                format!("at most {MAX_BUCKET_NAME} characters"),
            ));
        }
        Ok(Self {
            table_name: required("BULKHEAD_TABLE_NAME")?,
            data_role: environment
                .required("BULKHEAD_DATA_ROLE_ARN")?
                .parse()
                .map_err(|error| ConfigError::new("BULKHEAD_DATA_ROLE_ARN", error))?,
            status_max_age: environment.seconds_or(
                "BULKHEAD_STATUS_MAX_AGE_SECS",
                MAX_STATUS_AGE_SECS,
                MAX_STATUS_AGE_SECS,
            )?,
            bucket_name,
            knowledge_base_id: required("BULKHEAD_KNOWLEDGE_BASE_ID")?,
            data_source_id: required("BULKHEAD_DATA_SOURCE_ID")?,
            ingestion_status_max_age: environment.seconds_or(
                "BULKHEAD_INGESTION_STATUS_MAX_AGE_SECS",
                5,
                MAX_INGESTION_STATUS_AGE_SECS,
            )?,
            plans: Plans::from_env(environment, "BULKHEAD_PLANS")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variable: &'static str, value: &str) -> Result<Config, ConfigError> {
        let mut variables = vec![
            ("BULKHEAD_TABLE_NAME", "table"),
            ("BULKHEAD_DATA_ROLE_ARN", "arn:aws:iam::123456789012:role/data-role"),
            ("BULKHEAD_BUCKET_NAME", "bucket"),
            ("BULKHEAD_KNOWLEDGE_BASE_ID", "KB12345678"),
            ("BULKHEAD_DATA_SOURCE_ID", "DS12345678"),
            ("BULKHEAD_PLANS", r#"{"standard":{}}"#),
        ];
        variables.push((variable, value));
        Config::from_env(&variables.into_iter().collect())
    }

    #[test]
    fn a_bucket_whose_objects_could_not_all_be_ingested_stops_the_start() {
        assert!(with("BULKHEAD_BUCKET_NAME", &"b".repeat(53)).is_ok());
        let error = with("BULKHEAD_BUCKET_NAME", &"b".repeat(54)).unwrap_err();
        assert_eq!(error.variable, "BULKHEAD_BUCKET_NAME");
    }

    #[test]
    fn the_tenants_status_is_never_older_than_its_bound() {
        let config = with("BULKHEAD_STATUS_MAX_AGE_SECS", "").unwrap();
        assert_eq!(config.status_max_age, Duration::from_secs(20));
        assert_eq!(config.ingestion_status_max_age, Duration::from_secs(5));
        assert!(with("BULKHEAD_STATUS_MAX_AGE_SECS", "21").is_err());
    }
}
