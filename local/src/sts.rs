//! AWS STS, as far as the functions use it: `AssumeRole` with tags, in AWS's query protocol (a form asks, XML answers).
//!
//! The limits are the service's (<https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>): a session lasts
//! 15 minutes to an hour, because whoever asks has a session already (role chaining). Who may assume a role is decided by
//! [`crate::authority`]. Not here: session policies, transitive tags, external ids, and every other operation, which is
//! answered 501 and named.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use quick_xml::escape::escape;
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use url::form_urlencoded;
use uuid::Uuid;

use crate::authority::{Assumption, Authority};
use crate::credential::{Caller, Credentials};
use crate::policy::StatementName;

/// The shortest and the longest session, in seconds.
const SECONDS: std::ops::RangeInclusive<i64> = 900..=3600;
/// The most tags of a session.
const MAX_TAGS: usize = 50;
/// The parameters that are understood, besides those of tags.
const PARAMETERS: [&str; 5] = ["Action", "Version", "RoleArn", "RoleSessionName", "DurationSeconds"];

/// What the parameters of tags begin with.
const TAGS: &str = "Tags.member.";

/// What a form asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The operation by AWS's name.
    pub(crate) operation: String,
    /// The role that it is about.
    pub(crate) role: Option<String>,
    parameters: BTreeMap<String, String>,
}

/// Why a form is refused before anybody is asked.
struct Refusal {
    code: &'static str,
    message: String,
}

impl Asked {
    pub(crate) fn read(body: &[u8]) -> Self {
        let parameters: BTreeMap<String, String> = form_urlencoded::parse(body).into_owned().collect();
        Self {
            operation: parameters
                .get("Action")
                .cloned()
                .unwrap_or_else(|| "a request without Action".to_owned()),
            role: parameters.get("RoleArn").cloned(),
            parameters,
        }
    }

    /// The operation or parameter that is not emulated.
    pub(crate) fn unknown(&self) -> Option<String> {
        if self.operation != "AssumeRole" {
            return Some(self.operation.clone());
        }
        let known = |name: &str| PARAMETERS.contains(&name) || name.starts_with(TAGS);
        let parameter = self.parameters.keys().find(|name| !known(name))?;
        Some(format!("AssumeRole with the parameter {parameter}"))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    fn assumption(&self) -> Result<(Assumption, Duration), Refusal> {
        let invalid = |message: &str| Refusal {
            code: "ValidationError",
            message: message.to_owned(),
        };
        let session_name = self.get("RoleSessionName").unwrap_or_default();
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
        if !(2..=64).contains(&session_name.len()) || !session_name.chars().all(allowed) {
            return Err(invalid(
                "roleSessionName must satisfy regular expression pattern: [\\w+=,.@-]{2,64}",
            ));
        }
        let seconds = match self.get("DurationSeconds") {
            None => 3600,
            Some(text) => text.parse().map_err(|_| invalid("durationSeconds must be a number"))?,
        };
        if !SECONDS.contains(&seconds) {
            return Err(invalid(
                "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining, or is \
                 less than 900",
            ));
        }
        let mut tags = BTreeMap::new();
        for number in 1..=MAX_TAGS + 1 {
            let part = |part: &str| self.get(&format!("{TAGS}{number}.{part}"));
            let (Some(key), Some(value)) = (part("Key"), part("Value")) else {
                break;
            };
            let lower = key.to_lowercase();
            let fits = |c: char| c.is_alphanumeric() || c.is_whitespace() || "_.:/=+-@".contains(c);
            let lengths = (1..=128).contains(&key.chars().count()) && value.chars().count() <= 256;
            if number > MAX_TAGS || !lengths || !key.chars().chain(value.chars()).all(fits) {
                return Err(invalid("a tag's key or value does not satisfy its constraints"));
            }
            let doubled = tags.keys().any(|other: &String| other.to_lowercase() == lower);
            tags.insert(key.to_owned(), value.to_owned());
            if doubled {
                return Err(Refusal {
                    code: "InvalidParameterValue",
                    message: "Duplicate tag keys found. Please note that Tag keys are case insensitive.".to_owned(),
                });
            }
        }
        // None may be left over: a gap, or a key without a value.
        if self.parameters.keys().filter(|name| name.starts_with(TAGS)).count() != 2 * tags.len() {
            return Err(invalid("a tag has a key and a value, and tags are counted from one"));
        }
        let role_arn = self.role.clone().filter(|arn| arn.len() >= 20);
        let role_arn = role_arn.ok_or_else(|| invalid("roleArn must have length greater than or equal to 20"))?;
        let assumption = Assumption {
            role_arn,
            session_name: session_name.to_owned(),
            tags,
        };
        Ok((assumption, Duration::seconds(seconds)))
    }

    /// What is kept of the request: no secret is in it.
    pub(crate) fn summary(&self) -> Value {
        self.assumption().map_or(Value::Null, |(assumption, duration)| {
            json!({
                "RoleSessionName": assumption.session_name,
                "Tags": assumption.tags,
                "DurationSeconds": duration.whole_seconds(),
            })
        })
    }

    /// Decides on `AssumeRole`.
    pub(crate) fn decide(&self, caller: &Caller, authority: &Authority) -> Decision {
        let (assumption, duration) = match self.assumption() {
            Ok(asked) => asked,
            Err(refusal) => {
                return Decision {
                    outcome: Err(error(StatusCode::BAD_REQUEST, refusal.code, &refusal.message)),
                    by: Vec::new(),
                };
            }
        };
        match authority.assume_role(caller, &assumption) {
            Ok((session, by)) => Decision {
                outcome: Ok(Grant { session, duration }),
                by,
            },
            Err(denial) => {
                denial.log();
                Decision {
                    outcome: Err(error(StatusCode::FORBIDDEN, "AccessDenied", &denial.to_string())),
                    by: denial.denied_by,
                }
            }
        }
    }
}

/// What came of asking for a session.
pub(crate) struct Decision {
    /// The session, or the answer that refuses it.
    pub(crate) outcome: Result<Grant, Response<Bytes>>,
    /// The statements that allowed or denied it.
    pub(crate) by: Vec<StatementName>,
}

/// A session that was allowed.
#[derive(Debug)]
pub(crate) struct Grant {
    session: Caller,
    duration: Duration,
}

impl Grant {
    /// Issues the session's credentials.
    pub(crate) fn issue(self, authority: &Authority, credentials: &Credentials) -> Response<Bytes> {
        let arn = authority.arn_of(&self.session);
        let name = self.session.session.clone().unwrap_or_default();
        let expires = OffsetDateTime::now_utc() + self.duration;
        // STS tells whole seconds.
        let expires = expires.replace_nanosecond(0).unwrap_or(expires);
        let issued = credentials.issue_until(self.session, Some(expires));
        let expiration = expires.format(&Rfc3339).unwrap_or_default();
        let body = format!(
            "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult><Credentials>\
             <AccessKeyId>{}</AccessKeyId><SecretAccessKey>{}</SecretAccessKey><SessionToken>{}</SessionToken>\
             <Expiration>{expiration}</Expiration></Credentials><AssumedRoleUser><Arn>{}</Arn>\
             <AssumedRoleId>AROA{}:{}</AssumedRoleId></AssumedRoleUser></AssumeRoleResult>\
             <ResponseMetadata><RequestId>{}</RequestId></ResponseMetadata></AssumeRoleResponse>",
            issued.access_key_id,
            escape(issued.secret_access_key.as_str()),
            escape(issued.session_token.as_str()),
            escape(arn.as_str()),
            issued.access_key_id.trim_start_matches("ASIA"),
            escape(name.as_str()),
            Uuid::new_v4(),
        );
        answer(StatusCode::OK, body)
    }
}

/// An error in the form of the query protocol.
pub(crate) fn error(status: StatusCode, code: &str, message: &str) -> Response<Bytes> {
    let fault = if status.is_server_error() { "Receiver" } else { "Sender" };
    let body = format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>{fault}</Type><Code>{}</Code>\
         <Message>{}</Message></Error><RequestId>{}</RequestId></ErrorResponse>",
        escape(code),
        escape(message),
        Uuid::new_v4()
    );
    answer(status, body)
}

fn answer(status: StatusCode, body: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/xml"));
    response
}
