//! What can go wrong, once, and the one mapping from it to an RFC 9457 problem.
//!
//! An error has two messages: the client reads the problem's constant or hand-written detail, the log reads the cause.
//! Not here: the gateway's own problems, which the contract holds.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::time::Duration;

use http::StatusCode;
use serde::{Deserialize, Serialize};

/// A cause for the log, never for the client.
pub type Cause = Box<dyn StdError + Send + Sync>;

/// What a function refuses or fails at. Reuse a variant before adding one: add only if a caller would act differently.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request can't be read: malformed JSON, an unknown field, a wrong type, a limit exceeded.
    #[error("invalid request: {detail}")]
    Invalid {
        /// What is wrong, for the client.
        detail: Cow<'static, str>,
        /// Where, as JSON pointers (RFC 6901).
        violations: Vec<Violation>,
    },
    /// The caller's token is no longer good.
    #[error("the token is no longer good")]
    Unauthorized,
    /// The caller lacks the role.
    #[error("role missing")]
    Forbidden,
    /// The caller's tenant does not exist.
    #[error("the tenant does not exist")]
    TenantUnknown,
    /// The caller's tenant is suspended.
    #[error("the tenant is suspended")]
    TenantSuspended,
    /// Not there, or not the caller's: the two must be indistinguishable.
    #[error("not found")]
    NotFound,
    /// The resource is in another state than the operation needs.
    #[error("conflict: {detail}")]
    Conflict {
        /// What is in the way, for the client.
        detail: Cow<'static, str>,
    },
    /// The resource is no longer what the caller has seen.
    #[error("precondition failed")]
    PreconditionFailed,
    /// A body larger than the operation takes.
    #[error("payload too large")]
    PayloadTooLarge,
    /// A body of another media type than was declared or is accepted.
    #[error("unsupported media type")]
    UnsupportedMediaType,
    /// Understood, but unacceptable.
    #[error("unprocessable: {detail}")]
    Unprocessable {
        /// Why, for the client.
        detail: Cow<'static, str>,
        /// Where, as JSON pointers (RFC 6901).
        violations: Vec<Violation>,
    },
    /// A lock held: something that isolation rests on was missing or contradicted itself. Alarms are raised on it.
    #[error("isolation: {reason}")]
    Isolation {
        /// What was seen, without any tenant's text.
        reason: &'static str,
    },
    /// The knowledge base answered something that may not be released.
    #[error("released nothing: {reason}")]
    Breach {
        /// What was seen, without any tenant's text.
        reason: &'static str,
    },
    /// A service that we call failed in a way that a retry would not mend.
    #[error("upstream failed: {0}")]
    UpstreamFailed(#[source] Cause),
    /// A service that we call throttled us and went on doing so.
    #[error("upstream throttled: {0}")]
    UpstreamThrottled(#[source] Cause),
    /// Something that we need is out of reach for now.
    #[error("unavailable: {0}")]
    Unavailable(#[source] Cause),
    /// The time that the function has is used up.
    #[error("out of time: {0}")]
    Timeout(#[source] Cause),
    /// A defect of ours.
    #[error("internal: {0}")]
    Internal(#[source] Cause),
}

impl Error {
    /// The request can't be read, with one sentence for the client.
    pub fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::Invalid {
            detail: detail.into(),
            violations: Vec::new(),
        }
    }

    /// One member of the request can't be read.
    pub fn invalid_at(pointer: impl Into<Cow<'static, str>>, detail: impl Into<Cow<'static, str>>) -> Self {
        let violation = Violation {
            pointer: pointer.into(),
            detail: detail.into(),
        };
        Self::Invalid {
            detail: Cow::Borrowed("The request is not valid."),
            violations: vec![violation],
        }
    }

    /// One member of the request is understood but unacceptable.
    pub fn unprocessable_at(pointer: impl Into<Cow<'static, str>>, detail: impl Into<Cow<'static, str>>) -> Self {
        let violation = Violation {
            pointer: pointer.into(),
            detail: detail.into(),
        };
        Self::Unprocessable {
            detail: Cow::Borrowed("The request can't be accepted."),
            violations: vec![violation],
        }
    }

    /// The resource is in another state than the operation needs.
    pub fn conflict(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::Conflict { detail: detail.into() }
    }

    /// Something that isolation rests on was missing or contradicted itself.
    pub const fn isolation(reason: &'static str) -> Self {
        Self::Isolation { reason }
    }

    /// A defect of ours.
    pub fn internal(cause: impl Into<Cause>) -> Self {
        Self::Internal(cause.into())
    }

    /// The code that clients act on.
    pub fn code(&self) -> Code {
        match self {
            Self::Invalid { .. } => Code::InvalidRequest,
            Self::Unauthorized => Code::Unauthorized,
            Self::Forbidden => Code::Forbidden,
            Self::TenantUnknown => Code::TenantUnknown,
            Self::TenantSuspended => Code::TenantSuspended,
            Self::NotFound => Code::NotFound,
            Self::Conflict { .. } => Code::Conflict,
            Self::PreconditionFailed => Code::PreconditionFailed,
            Self::PayloadTooLarge => Code::PayloadTooLarge,
            Self::UnsupportedMediaType => Code::UnsupportedMediaType,
            Self::Unprocessable { .. } => Code::Unprocessable,
            Self::Isolation { .. } | Self::Internal(_) => Code::Internal,
            Self::Breach { .. } | Self::UpstreamFailed(_) => Code::UpstreamFailed,
            Self::UpstreamThrottled(_) => Code::UpstreamThrottled,
            Self::Unavailable(_) => Code::Unavailable,
            Self::Timeout(_) => Code::Timeout,
        }
    }

    /// How long a client should wait before it asks again, where waiting helps.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::UpstreamThrottled(_) | Self::Unavailable(_) => Some(Duration::from_secs(2)),
            _ => None,
        }
    }

    /// Whether the log record is an error of ours rather than a refusal.
    pub fn is_fault(&self) -> bool {
        self.code().status().is_server_error()
    }

    /// The body that the client reads.
    pub fn problem<'a>(&'a self, request_id: &'a str) -> Problem<'a> {
        let code = self.code();
        let (detail, errors): (&str, &[Violation]) = match self {
            Self::Invalid { detail, violations } | Self::Unprocessable { detail, violations } => (detail, violations),
            Self::Conflict { detail } => (detail, &[]),
            _ => (code.detail(), &[]),
        };
        Problem {
            problem_type: code.problem_type(),
            title: code.title(),
            status: code.status().as_u16(),
            detail,
            code,
            request_id,
            errors,
        }
    }
}

/// One thing that is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Where in the request's body, as a JSON pointer (RFC 6901); a query parameter's as `?name`.
    pub pointer: Cow<'static, str>,
    /// What is wrong, for the client.
    pub detail: Cow<'static, str>,
}

/// The stable name of an error; the contract lists them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// 400
    InvalidRequest,
    /// 401
    Unauthorized,
    /// 403
    Forbidden,
    /// 403
    TenantUnknown,
    /// 403
    TenantSuspended,
    /// 404
    NotFound,
    /// 409
    Conflict,
    /// 412
    PreconditionFailed,
    /// 413
    PayloadTooLarge,
    /// 415
    UnsupportedMediaType,
    /// 422
    Unprocessable,
    /// 429, the gateway's
    Throttled,
    /// 500
    Internal,
    /// 502
    UpstreamFailed,
    /// 503
    UpstreamThrottled,
    /// 503
    Unavailable,
    /// 504
    Timeout,
}

impl Code {
    /// Every code, in the contract's order.
    pub const ALL: [Self; 17] = [
        Self::InvalidRequest,
        Self::Unauthorized,
        Self::Forbidden,
        Self::TenantUnknown,
        Self::TenantSuspended,
        Self::NotFound,
        Self::Conflict,
        Self::PreconditionFailed,
        Self::PayloadTooLarge,
        Self::UnsupportedMediaType,
        Self::Unprocessable,
        Self::Throttled,
        Self::Internal,
        Self::UpstreamFailed,
        Self::UpstreamThrottled,
        Self::Unavailable,
        Self::Timeout,
    ];

    /// The code's name on the wire.
    pub const fn as_str(self) -> &'static str {
        self.parts().0
    }

    /// The status that goes with it.
    pub const fn status(self) -> StatusCode {
        self.parts().1
    }

    const fn problem_type(self) -> &'static str {
        self.parts().2
    }

    const fn title(self) -> &'static str {
        self.parts().3
    }

    const fn detail(self) -> &'static str {
        self.parts().4
    }

    /// Name, status, type, title and the constant detail: one row a code, so that none can be half defined.
    const fn parts(self) -> (&'static str, StatusCode, &'static str, &'static str, &'static str) {
        match self {
            Self::InvalidRequest => (
                "invalid_request",
                StatusCode::BAD_REQUEST,
                "urn:bulkhead:problem:invalid_request",
                "Invalid request",
                "The request is not valid.",
            ),
            Self::Unauthorized => (
                "unauthorized",
                StatusCode::UNAUTHORIZED,
                "urn:bulkhead:problem:unauthorized",
                "Unauthorized",
                "A valid token is required.",
            ),
            Self::Forbidden => (
                "forbidden",
                StatusCode::FORBIDDEN,
                "urn:bulkhead:problem:forbidden",
                "Forbidden",
                "The caller may not do this.",
            ),
            Self::TenantUnknown => (
                "tenant_unknown",
                StatusCode::FORBIDDEN,
                "urn:bulkhead:problem:tenant_unknown",
                "Forbidden",
                "The caller may not do this.",
            ),
            Self::TenantSuspended => (
                "tenant_suspended",
                StatusCode::FORBIDDEN,
                "urn:bulkhead:problem:tenant_suspended",
                "Forbidden",
                "The caller may not do this.",
            ),
            Self::NotFound => (
                "not_found",
                StatusCode::NOT_FOUND,
                "urn:bulkhead:problem:not_found",
                "Not found",
                "There is no such resource.",
            ),
            Self::Conflict => (
                "conflict",
                StatusCode::CONFLICT,
                "urn:bulkhead:problem:conflict",
                "Conflict",
                "The resource is in another state.",
            ),
            Self::PreconditionFailed => (
                "precondition_failed",
                StatusCode::PRECONDITION_FAILED,
                "urn:bulkhead:problem:precondition_failed",
                "Precondition failed",
                "The resource changed in the meantime; read it and try again.",
            ),
            Self::PayloadTooLarge => (
                "payload_too_large",
                StatusCode::PAYLOAD_TOO_LARGE,
                "urn:bulkhead:problem:payload_too_large",
                "Payload too large",
                "The body is larger than this operation takes.",
            ),
            Self::UnsupportedMediaType => (
                "unsupported_media_type",
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "urn:bulkhead:problem:unsupported_media_type",
                "Unsupported media type",
                "The body is not of the media type that this operation takes.",
            ),
            Self::Unprocessable => (
                "unprocessable",
                StatusCode::UNPROCESSABLE_ENTITY,
                "urn:bulkhead:problem:unprocessable",
                "Unprocessable",
                "The request can't be accepted.",
            ),
            Self::Throttled => (
                "throttled",
                StatusCode::TOO_MANY_REQUESTS,
                "urn:bulkhead:problem:throttled",
                "Too many requests",
                "Too many requests; wait and ask again.",
            ),
            Self::Internal => (
                "internal",
                StatusCode::INTERNAL_SERVER_ERROR,
                "urn:bulkhead:problem:internal",
                "Internal error",
                "The request failed. The operator finds the cause under the request id.",
            ),
            Self::UpstreamFailed => (
                "upstream_failed",
                StatusCode::BAD_GATEWAY,
                "urn:bulkhead:problem:upstream_failed",
                "Upstream failed",
                "A service that this one needs failed. The operator finds the cause under the request id.",
            ),
            Self::UpstreamThrottled => (
                "upstream_throttled",
                StatusCode::SERVICE_UNAVAILABLE,
                "urn:bulkhead:problem:upstream_throttled",
                "Busy",
                "A service that this one needs is busy; wait and ask again.",
            ),
            Self::Unavailable => (
                "unavailable",
                StatusCode::SERVICE_UNAVAILABLE,
                "urn:bulkhead:problem:unavailable",
                "Unavailable",
                "A service that this one needs is out of reach; wait and ask again.",
            ),
            Self::Timeout => (
                "timeout",
                StatusCode::GATEWAY_TIMEOUT,
                "urn:bulkhead:problem:timeout",
                "Out of time",
                "The answer took too long.",
            ),
        }
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::ALL
            .into_iter()
            .find(|code| code.as_str() == name)
            .ok_or_else(|| serde::de::Error::custom("not a problem's code"))
    }
}

/// A problem details object (RFC 9457) with our members `code`, `request_id` and `errors`.
#[derive(Clone, Debug, Serialize)]
pub struct Problem<'a> {
    /// The problem's type, a URN.
    #[serde(rename = "type")]
    pub problem_type: &'static str,
    /// The type's title.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What happened, for the client.
    pub detail: &'a str,
    /// The stable code.
    pub code: Code,
    /// The gateway's request id, under which the log holds the cause.
    pub request_id: &'a str,
    /// What is wrong with the request, where it is the request's fault.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub errors: &'a [Violation],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_faults_say_nothing_of_their_cause() {
        let cause = || Cause::from("arn:aws:s3:::secret-bucket/t/acme at src/lib.rs:1");
        for error in [
            Error::Isolation { reason: "secret" },
            Error::Breach { reason: "secret" },
            Error::UpstreamFailed(cause()),
            Error::UpstreamThrottled(cause()),
            Error::Unavailable(cause()),
            Error::Timeout(cause()),
            Error::Internal(cause()),
        ] {
            assert!(error.is_fault());
            let body = serde_json::to_string(&error.problem("r-1")).unwrap();
            assert!(
                !body.contains("secret") && !body.contains("arn:") && !body.contains(".rs"),
                "{body}"
            );
        }
    }

    #[test]
    fn a_problem_has_the_members_of_rfc_9457() {
        let error = Error::invalid_at("/user_query", "At most 1,000 characters.");
        insta::assert_json_snapshot!(error.problem("r-1"), @r#"
        {
          "type": "urn:bulkhead:problem:invalid_request",
          "title": "Invalid request",
          "status": 400,
          "detail": "The request is not valid.",
          "code": "invalid_request",
          "request_id": "r-1",
          "errors": [
            {
              "pointer": "/user_query",
              "detail": "At most 1,000 characters."
            }
          ]
        }
        "#);
    }

    #[test]
    fn the_contract_lists_exactly_these_codes() {
        let contract = include_str!("../../openapi/gateway.yaml");
        let (_, schema) = contract.split_once("\n    ProblemCode:\n").unwrap();
        let (_, list) = schema.split_once("enum:").unwrap();
        let list = list.split("\n    Problem").next().unwrap();
        let mut listed: Vec<&str> = list
            .split(|c: char| !(c.is_ascii_lowercase() || c == '_'))
            .filter(|word| !word.is_empty())
            .collect();
        let mut codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        listed.sort_unstable();
        codes.sort_unstable();
        assert_eq!(listed, codes);
    }
}
