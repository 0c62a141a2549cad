//! The one place that reads the environment. Each function's `Config::from_env` takes its values from here, once.
//!
//! Not here: which variables exist. Every function names its own.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::DeserializeOwned;

/// A variable that is missing or wrong. It names the variable and what was wanted, never the value: some hold secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("environment variable {variable}: {wanted}")]
pub struct ConfigError {
    /// The variable's name.
    pub variable: String,
    /// What it must be.
    pub wanted: String,
}

impl ConfigError {
    /// An error about `variable`.
    pub fn new(variable: impl Into<String>, wanted: impl fmt::Display) -> Self {
        Self {
            variable: variable.into(),
            wanted: wanted.to_string(),
        }
    }
}

/// The variables that the process was started with.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Reads the process's environment. Variables that are not Unicode are left out: nothing of ours may be one.
    pub fn from_process() -> Self {
        Self(
            std::env::vars_os()
                .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
                .collect(),
        )
    }

    /// A variable's value, if it is set and not blank: CloudFormation can't leave one out, only empty.
    pub fn optional(&self, variable: &str) -> Option<&str> {
        self.0
            .get(variable)
            .map(String::as_str)
            .filter(|value| !value.trim().is_empty())
    }

    /// A variable that must be set.
    ///
    /// # Errors
    /// It is not set, or blank.
    pub fn required(&self, variable: &str) -> Result<&str, ConfigError> {
        self.optional(variable)
            .ok_or_else(|| ConfigError::new(variable, "must be set"))
    }

    /// A variable read by `T`'s `FromStr`, or `default` if it is not set.
    ///
    /// # Errors
    /// It is set to something else.
    pub fn parsed_or<T: FromStr<Err: fmt::Display>>(&self, variable: &str, default: T) -> Result<T, ConfigError> {
        match self.optional(variable) {
            None => Ok(default),
            Some(value) => value.parse().map_err(|error| ConfigError::new(variable, error)),
        }
    }

    /// A duration in whole seconds, at most `bound`, or `default` if it is not set.
    ///
    /// # Errors
    /// It is not a whole number, or above the bound that the promises in the threat model rest on.
    pub fn seconds_or(&self, variable: &str, default: u64, bound: u64) -> Result<Duration, ConfigError> {
        let seconds: u64 = self.parsed_or(variable, default)?;
        if seconds > bound {
            return Err(ConfigError::new(variable, format!("at most {bound} seconds")));
        }
        Ok(Duration::from_secs(seconds))
    }

    /// A variable that must hold JSON of shape `T`.
    ///
    /// # Errors
    /// It is not set, or not such JSON.
    pub fn json<T: DeserializeOwned>(&self, variable: &str) -> Result<T, ConfigError> {
        serde_json::from_str(self.required(variable)?).map_err(|error| ConfigError::new(variable, error))
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(k, v)| (k.into(), v.into())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_variable_and_never_its_value() {
        let environment: Environment = [("A", "secret"), ("B", " "), ("C", "61")].into_iter().collect();
        let check = |error: ConfigError, expected: &str| {
            assert_eq!(error.to_string(), expected);
        };
        check(
            environment.required("B").unwrap_err(),
            "environment variable B: must be set",
        );
        check(
            environment.seconds_or("C", 1, 60).unwrap_err(),
            "environment variable C: at most 60 seconds",
        );
        assert!(
            !environment
                .parsed_or("A", 1_u64)
                .unwrap_err()
                .to_string()
                .contains("secret")
        );
        assert!(
            !environment
                .json::<Vec<String>>("A")
                .unwrap_err()
                .to_string()
                .contains("secret")
        );
        assert_eq!(environment.seconds_or("D", 20, 20).unwrap(), Duration::from_secs(20));
    }
}
