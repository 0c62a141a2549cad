//! Request validators at work: required parameters are there and not blank, and a body fits its model where the contract
//! asks for that.
//!
//! A body whose media type has no model is not looked at: that is what API Gateway does, and why functions validate
//! everything again.

use serde_json::Value;

use super::contract::{Place, Validation};
use super::refusal::Refusal;
use super::request::Request;
use super::route::Route;

impl Validation {
    /// Checks a request.
    pub(super) fn check(&self, request: &Request, route: &Route) -> Result<(), Refusal> {
        let missing: Vec<&str> = self
            .required
            .iter()
            .filter(|(place, name)| {
                let values = match place {
                    Place::Header => request.header_values(name),
                    Place::Query => request.query_values(name),
                    Place::Path => route.parameters.get(name).map(String::as_str).into_iter().collect(),
                };
                !values.iter().any(|value| !value.trim().is_empty())
            })
            .map(|(_, name)| name.as_str())
            .collect();
        if !missing.is_empty() {
            return Err(Refusal::missing_parameters(&missing));
        }
        self.check_body(request)
    }

    fn check_body(&self, request: &Request) -> Result<(), Refusal> {
        let media_type = request.media_type().unwrap_or_else(|| "application/json".to_owned());
        let Some(model) = self.models.get(&media_type).or_else(|| self.models.get("$default")) else {
            return Ok(());
        };
        if request.body.is_empty() && !self.body_required {
            return Ok(());
        }
        let body: Value = match serde_json::from_slice(&request.body) {
            Ok(body) => body,
            Err(error) => return Err(Refusal::invalid_body(&[error.to_string()])),
        };
        let errors: Vec<String> = model.iter_errors(&body).map(|error| error.to_string()).collect();
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Refusal::invalid_body(&errors))
        }
    }
}
