//! What the function is told by its environment. What is to be configured stands in the resource's properties instead:
//! CloudFormation sends an event when those change, and none when a variable does.

use bulkhead_core::config::{ConfigError, Environment};

/// The configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `BULKHEAD_PARAMETER_NAME`: the parameter that keeps what was configured before. It is the resource's physical id
    /// too, and must therefore never change in the life of a stack: CloudFormation would take another id for another
    /// resource, and delete the one before.
    pub parameter_name: String,
}

impl Config {
    /// Reads it, once.
    ///
    /// # Errors
    /// The variable is missing; the error names it.
    pub fn from_env(environment: &Environment) -> Result<Self, ConfigError> {
        Ok(Self {
            parameter_name: environment.required("BULKHEAD_PARAMETER_NAME")?.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameter_is_required() {
        let name = "BULKHEAD_PARAMETER_NAME";
        let config = Config::from_env(&[(name, "/bulkhead/stack/before")].into_iter().collect()).unwrap();
        assert_eq!(config.parameter_name, "/bulkhead/stack/before");
        assert_eq!(
            Config::from_env(&[(name, " ")].into_iter().collect())
                .unwrap_err()
                .variable,
            name
        );
    }
}
