//! What the control plane is told by its environment.

use bulkhead_core::config::{ConfigError, Environment};
use bulkhead_core::plan::Plans;

/// The configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `BULKHEAD_TABLE_NAME`: the product's table.
    pub table_name: String,
    /// `BULKHEAD_KNOWLEDGE_BASE_ID`: the knowledge base that all tenants share.
    pub knowledge_base_id: String,
    /// `BULKHEAD_DATA_SOURCE_ID`: the knowledge base's data source, the bucket.
    pub data_source_id: String,
    /// `BULKHEAD_PLANS`: the plans that tenants can have.
    pub plans: Plans,
}

impl Config {
    /// Reads it, once.
    ///
    /// # Errors
    /// A variable is missing or wrong; the error names it.
    pub fn from_env(environment: &Environment) -> Result<Self, ConfigError> {
        let required = |variable| environment.required(variable).map(str::to_owned);
        Ok(Self {
            table_name: required("BULKHEAD_TABLE_NAME")?,
            knowledge_base_id: required("BULKHEAD_KNOWLEDGE_BASE_ID")?,
            data_source_id: required("BULKHEAD_DATA_SOURCE_ID")?,
            plans: Plans::from_env(environment, "BULKHEAD_PLANS")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_is_required() {
        let all = [
            ("BULKHEAD_TABLE_NAME", "table"),
            ("BULKHEAD_KNOWLEDGE_BASE_ID", "KB12345678"),
            ("BULKHEAD_DATA_SOURCE_ID", "DS12345678"),
            ("BULKHEAD_PLANS", r#"{"standard":{}}"#),
        ];
        assert!(Config::from_env(&all.into_iter().collect()).is_ok());
        for (missing, _) in all {
            let rest = all.into_iter().filter(|(variable, _)| *variable != missing);
            assert_eq!(Config::from_env(&rest.collect()).unwrap_err().variable, missing);
        }
    }
}
