//! What the authorizer reads from its environment, once.

use std::time::Duration;

use bulkhead_core::config::{ConfigError, Environment};
use bulkhead_core::profile::MAX_STATUS_AGE_SECS;

use crate::issuer::Issuers;
use crate::key_cache::Limits;

/// The function's configuration. Every duration has an upper bound that the promises in the threat model rest on; tests
/// lower them.
#[derive(Clone, Debug)]
pub struct Config {
    /// `BULKHEAD_TABLE_NAME`: the table that holds tenants' profiles.
    pub table_name: String,
    /// `BULKHEAD_STATUS_MAX_AGE_SECS`: how old a tenant's status may be, 20 by default and at most.
    pub status_max_age: Duration,
    /// `BULKHEAD_ISSUERS`: whose tokens are taken.
    pub issuers: Issuers,
    /// `BULKHEAD_JWKS_MAX_AGE_SECS` (300, at most 600), `BULKHEAD_JWKS_MAX_STALE_SECS` (3600, at most that),
    /// `BULKHEAD_JWKS_COOLDOWN_SECS` (10, at most 30) and `BULKHEAD_JWKS_TIMEOUT_MS` (2500, at most 3000): how issuers'
    /// keys are kept.
    pub key_limits: Limits,
}

impl Config {
    /// Reads the configuration.
    ///
    /// # Errors
    /// A variable is missing or wrong; the error names it and says what was wanted.
    pub fn from_env(environment: &Environment) -> Result<Self, ConfigError> {
        let timeout: u64 = environment.parsed_or("BULKHEAD_JWKS_TIMEOUT_MS", 2500)?;
        if !(1..=3000).contains(&timeout) {
            return Err(ConfigError::new(
                "BULKHEAD_JWKS_TIMEOUT_MS",
                "between 1 and 3000 milliseconds",
            ));
        }
        Ok(Self {
            table_name: environment.required("BULKHEAD_TABLE_NAME")?.to_owned(),
            status_max_age: environment.seconds_or(
                "BULKHEAD_STATUS_MAX_AGE_SECS",
                MAX_STATUS_AGE_SECS,
                MAX_STATUS_AGE_SECS,
            )?,
            issuers: Issuers::from_env(environment)?,
            key_limits: Limits {
                max_age: environment.seconds_or("BULKHEAD_JWKS_MAX_AGE_SECS", 300, 600)?,
                max_stale: environment.seconds_or("BULKHEAD_JWKS_MAX_STALE_SECS", 3600, 3600)?,
                cooldown: environment.seconds_or("BULKHEAD_JWKS_COOLDOWN_SECS", 10, 30)?,
                timeout: Duration::from_millis(timeout),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISSUERS: &str = r#"[{"issuer":"https://issuer.example.com","audiences":["bulkhead"],"tenants":"*"}]"#;

    fn from(changes: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let minimal = [("BULKHEAD_TABLE_NAME", "bulkhead"), ("BULKHEAD_ISSUERS", ISSUERS)];
        Config::from_env(&minimal.iter().chain(changes).copied().collect())
    }

    #[test]
    fn the_defaults_are_those_of_the_threat_model() {
        let config = from(&[]).unwrap();
        assert_eq!(config.table_name, "bulkhead");
        assert_eq!(config.status_max_age, Duration::from_secs(20));
        let expected = Limits {
            max_age: Duration::from_secs(300),
            max_stale: Duration::from_secs(3600),
            cooldown: Duration::from_secs(10),
            timeout: Duration::from_millis(2500),
        };
        assert_eq!(config.key_limits, expected);
    }

    #[test]
    fn durations_can_be_lowered_and_not_raised() {
        for (variable, bound) in [
            ("BULKHEAD_STATUS_MAX_AGE_SECS", 20),
            ("BULKHEAD_JWKS_MAX_AGE_SECS", 600),
            ("BULKHEAD_JWKS_MAX_STALE_SECS", 3600),
            ("BULKHEAD_JWKS_COOLDOWN_SECS", 30),
            ("BULKHEAD_JWKS_TIMEOUT_MS", 3000),
        ] {
            assert!(from(&[(variable, "1")]).is_ok());
            assert!(from(&[(variable, &bound.to_string())]).is_ok());
            for bad in [(bound + 1).to_string(), "-1".to_owned(), "soon".to_owned()] {
                assert_eq!(from(&[(variable, &bad)]).unwrap_err().variable, variable);
            }
        }
        assert!(from(&[("BULKHEAD_JWKS_TIMEOUT_MS", "0")]).is_err());
    }

    #[test]
    fn what_must_be_set_is_named() {
        assert_eq!(
            from(&[("BULKHEAD_TABLE_NAME", "")]).unwrap_err().variable,
            "BULKHEAD_TABLE_NAME"
        );
        assert_eq!(
            from(&[("BULKHEAD_ISSUERS", "")]).unwrap_err().variable,
            "BULKHEAD_ISSUERS"
        );
    }
}
