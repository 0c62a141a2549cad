//! The event of a REQUEST authorizer
//! (<https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-lambda-authorizer-input.html>), as far as we
//! look at it: the `Authorization` header and the method's ARN.
//!
//! It is read leniently, because an event that can't be read fails the function, and a bad token must never look like a
//! broken function. Not here: anything else of the request. Whatever a caller could choose has no say in who they are.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::token::Refusal;

/// What we read of the event.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Event {
    /// The ARN of the method that is called. Its end is the caller's, its head the gateway's.
    method_arn: Value,
    /// Each header's last value.
    headers: Value,
    /// Each header's values.
    multi_value_headers: Value,
}

impl Event {
    /// The ARN of the method that is called; empty if there is none.
    pub fn method_arn(&self) -> &str {
        self.method_arn.as_str().unwrap_or_default()
    }

    /// The one bearer token (RFC 6750, section 2.1).
    ///
    /// # Errors
    /// There is none, or more than one value, or another scheme. Neither the first nor the last of two wins: whoever
    /// stands between the caller and us may have looked at the other one.
    pub fn token(&self) -> Result<&str, Refusal> {
        let value = self.authorization()?;
        if value.is_empty() {
            return Err(Refusal::Missing);
        }
        let (scheme, token) = value.split_once(' ').ok_or(Refusal::Scheme)?;
        if !scheme.eq_ignore_ascii_case("Bearer") {
            return Err(Refusal::Scheme);
        }
        let token = token.trim_start_matches(' ');
        if token.is_empty() {
            Err(Refusal::Missing)
        } else {
            Ok(token)
        }
    }

    fn authorization(&self) -> Result<&str, Refusal> {
        let mut values = Vec::new();
        for value in named(&self.headers) {
            values.push(value.as_str().ok_or(Refusal::Ambiguous)?);
        }
        let mut all = Vec::new();
        for list in named(&self.multi_value_headers) {
            for value in list.as_array().ok_or(Refusal::Ambiguous)? {
                all.push(value.as_str().ok_or(Refusal::Ambiguous)?);
            }
        }
        match (values.as_slice(), all.as_slice()) {
            ([], []) => Err(Refusal::Missing),
            ([value], []) | ([], [value]) => Ok(value),
            ([value], [same]) if value == same => Ok(value),
            _ => Err(Refusal::Ambiguous),
        }
    }
}

/// What stands under `Authorization` in any spelling (RFC 9110, section 5.1); null is nothing.
fn named(headers: &Value) -> impl Iterator<Item = &Value> {
    headers
        .as_object()
        .into_iter()
        .flat_map(Map::iter)
        .filter(|(name, value)| name.eq_ignore_ascii_case("Authorization") && !value.is_null())
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(value: Value) -> Event {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn one_bearer_token_is_found_however_its_header_is_spelled() {
        for headers in [
            json!({"headers": {"Authorization": "Bearer a.b.c"}}),
            json!({"headers": {"authorization": "bearer a.b.c"}}),
            json!({"headers": {"AUTHORIZATION": "BEARER   a.b.c"}, "multiValueHeaders": null}),
            json!({"headers": null, "multiValueHeaders": {"Authorization": ["Bearer a.b.c"]}}),
            json!({"headers": {"Authorization": "Bearer a.b.c"}, "multiValueHeaders": {"authorization": ["Bearer a.b.c"]}}),
            json!({"headers": {"Authorization": "Bearer a.b.c", "Host": 5, "X": null}, "type": "REQUEST", "new": {}}),
        ] {
            assert_eq!(event(headers.clone()).token(), Ok("a.b.c"), "{headers}");
        }
    }

    #[test]
    fn no_token_or_two_are_refused() {
        let refused = |headers: Value, refusal: Refusal| {
            assert_eq!(event(headers.clone()).token(), Err(refusal), "{headers}");
        };
        let header = |text: &str| json!({"headers": {"Authorization": text}});
        refused(json!({}), Refusal::Missing);
        refused(json!({"headers": null, "multiValueHeaders": null}), Refusal::Missing);
        refused(json!({"headers": [], "multiValueHeaders": "x"}), Refusal::Missing);
        refused(json!({"headers": {"Authorization": null}}), Refusal::Missing);
        refused(json!({"multiValueHeaders": {"Authorization": []}}), Refusal::Missing);
        refused(header(""), Refusal::Missing);
        refused(header("Bearer "), Refusal::Missing);
        refused(header("Bearer   "), Refusal::Missing);
        for text in [
            "Bearer",
            " ",
            "Basic YTpi",
            "JWT a.b.c",
            "Bearera.b.c",
            "Bearer%20a.b.c",
            " Bearer a.b.c",
            "Bearer\ta.b.c",
            "a.b.c",
            "Bearer:a.b.c",
            "Ｂearer a.b.c",
            "\u{feff}Bearer a.b.c",
        ] {
            refused(header(text), Refusal::Scheme);
        }
        for headers in [
            json!({"headers": {"Authorization": "Bearer a.b.c", "authorization": "Bearer a.b.c"}}),
            json!({"multiValueHeaders": {"Authorization": ["Bearer a.b.c", "Bearer a.b.c"]}}),
            json!({"multiValueHeaders": {"Authorization": ["Bearer a.b.c"], "authorization": ["Bearer d.e.f"]}}),
            json!({"headers": {"Authorization": "Bearer d.e.f"}, "multiValueHeaders": {"Authorization": ["Bearer a.b.c"]}}),
            json!({"headers": {"Authorization": "Bearer d.e.f"}, "multiValueHeaders": {"Authorization": ["Bearer a.b.c", "Bearer d.e.f"]}}),
            json!({"headers": {"Authorization": 5}}),
            json!({"headers": {"Authorization": ["Bearer a.b.c"]}}),
            json!({"multiValueHeaders": {"Authorization": "Bearer a.b.c"}}),
            json!({"multiValueHeaders": {"Authorization": [null]}}),
        ] {
            refused(headers, Refusal::Ambiguous);
        }
        for elsewhere in [
            json!({"queryStringParameters": {"Authorization": "Bearer a.b.c", "token": "a.b.c"}}),
            json!({"headers": {"Cookie": "Authorization=Bearer a.b.c", "X-Forwarded-Authorization": "Bearer a.b.c"}}),
            json!({"headers": {"X-Amzn-Remapped-Authorization": "Bearer a.b.c", "Proxy-Authorization": "Bearer a.b.c"}}),
            json!({"authorizationToken": "Bearer a.b.c"}),
        ] {
            refused(elsewhere, Refusal::Missing);
        }
    }

    #[test]
    fn an_odd_event_is_read_all_the_same() {
        for odd in [
            json!({"methodArn": 5}),
            json!({"methodArn": null}),
            json!({}),
            json!({"headers": 5}),
        ] {
            assert_eq!(event(odd).method_arn(), "");
        }
    }
}
