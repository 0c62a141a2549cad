//! Plans: what the vendor sells, as configuration. A tenant's profile names one.
//!
//! Not here: what the aliases of models mean, and what an engine is (`query-handler`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::{ConfigError, Environment};
use crate::error::Error;
use crate::profile::Profile;

/// The plan of a tenant for which no other one was named, and of the shared owner.
pub const STANDARD: &str = "standard";
/// The longest name of a plan.
const MAX_NAME: usize = 32;

/// What makes an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineName {
    /// Bedrock's RetrieveAndGenerate.
    Managed,
    /// Retrieve, check every passage, then Converse.
    Verified,
}

impl EngineName {
    /// The wire form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Managed => "managed",
            Self::Verified => "verified",
        }
    }
}

/// A plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// What makes its tenants' answers. `None`: `managed` for whole answers, `verified` for streams.
    #[serde(default)]
    pub engine: Option<EngineName>,
    /// The alias of the model that answers; `None` for `default`.
    #[serde(default)]
    pub model: Option<String>,
    /// Whether its tenants' questions also search the documents that the vendor shares.
    #[serde(default)]
    pub shared_corpus: bool,
}

/// The plans that the vendor offers, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plans(BTreeMap<String, Plan>);

impl Plans {
    /// Reads `variable`: a JSON object from names, of the grammar of groups, to plans.
    ///
    /// # Errors
    /// It is not such an object, or `standard` is not in it.
    pub fn from_env(environment: &Environment, variable: &str) -> Result<Self, ConfigError> {
        let plans: BTreeMap<String, Plan> = environment.json(variable)?;
        if !plans.keys().all(|name| is_name(name)) {
            return Err(ConfigError::new(
                variable,
                "names of plans: 1 to 32 of a-z and 0-9 in groups joined by single hyphens",
            ));
        }
        if !plans.contains_key(STANDARD) {
            return Err(ConfigError::new(variable, format!("a plan named {STANDARD}")));
        }
        Ok(Self(plans))
    }

    /// The plan of a profile's tenant.
    ///
    /// # Errors
    /// [`Error::Internal`] if it is no longer offered: what a tenant may do is never guessed.
    pub fn of(&self, profile: &Profile) -> Result<&Plan, Error> {
        self.0
            .get(&profile.plan)
            .ok_or_else(|| Error::internal("a profile names a plan that is not configured"))
    }

    /// Whether there is a plan of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// All plans with their names, for what a function checks of each at its start.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Plan)> {
        self.0.iter().map(|(name, plan)| (name.as_str(), plan))
    }
}

fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len())
        && text.split('-').all(|part| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::TenantId;
    use crate::time::Timestamp;

    fn plans(json: &str) -> Result<Plans, ConfigError> {
        Plans::from_env(&[("PLANS", json)].into_iter().collect(), "PLANS")
    }

    #[test]
    fn a_tenants_plan_is_the_one_that_its_profile_names() {
        let plans =
            plans(r#"{"standard":{},"gold":{"engine":"verified","model":"large","shared_corpus":true}}"#).unwrap();
        let mut profile = Profile::new(TenantId::parse("acme").unwrap(), Vec::new(), Timestamp::from_unix(0));
        assert_eq!(plans.of(&profile).unwrap(), &Plan::default());
        profile.plan = "gold".to_owned();
        let gold = Plan {
            engine: Some(EngineName::Verified),
            model: Some("large".to_owned()),
            shared_corpus: true,
        };
        assert_eq!(plans.of(&profile).unwrap(), &gold);
        profile.plan = "silver".to_owned();
        assert!(matches!(plans.of(&profile), Err(Error::Internal(_))));
        assert!(plans.contains("gold") && !plans.contains("silver"));
        assert!(plans.of(&Profile::shared()).is_ok());
    }

    #[test]
    fn what_is_not_understood_stops_the_start() {
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"gold":{}}"#,
            r#"{"standard":{},"Gold":{}}"#,
            r#"{"standard":{},"":{}}"#,
            r#"{"standard":{"engine":"fast"}}"#,
            r#"{"standard":{"shared":true}}"#,
            r#"{"standard":null}"#,
        ] {
            assert_eq!(plans(bad).unwrap_err().variable, "PLANS", "{bad}");
        }
    }
}
