//! What the gateway answers by itself: the types of gateway responses, their statuses and error types, and how the
//! contract's customisation of them is applied.
//!
//! Rules: <https://docs.aws.amazon.com/apigateway/latest/developerguide/supported-gateway-response-types.html>. A status on
//! `DEFAULT_4XX` or `DEFAULT_5XX` rewrites every type of the class that has none of its own.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value, json};

use super::expression::{Scope, Source, Template};

/// A type of gateway response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    AccessDenied,
    ApiConfigurationError,
    AuthorizerConfigurationError,
    AuthorizerFailure,
    BadRequestBody,
    BadRequestParameters,
    Default4xx,
    Default5xx,
    ExpiredToken,
    IntegrationFailure,
    IntegrationTimeout,
    InvalidApiKey,
    InvalidSignature,
    MissingAuthenticationToken,
    QuotaExceeded,
    RequestTooLarge,
    ResourceNotFound,
    Throttled,
    Unauthorized,
    UnsupportedMediaType,
    WafFiltered,
}

impl Kind {
    const ALL: [(Self, &str); 21] = [
        (Self::AccessDenied, "ACCESS_DENIED"),
        (Self::ApiConfigurationError, "API_CONFIGURATION_ERROR"),
        (Self::AuthorizerConfigurationError, "AUTHORIZER_CONFIGURATION_ERROR"),
        (Self::AuthorizerFailure, "AUTHORIZER_FAILURE"),
        (Self::BadRequestBody, "BAD_REQUEST_BODY"),
        (Self::BadRequestParameters, "BAD_REQUEST_PARAMETERS"),
        (Self::Default4xx, "DEFAULT_4XX"),
        (Self::Default5xx, "DEFAULT_5XX"),
        (Self::ExpiredToken, "EXPIRED_TOKEN"),
        (Self::IntegrationFailure, "INTEGRATION_FAILURE"),
        (Self::IntegrationTimeout, "INTEGRATION_TIMEOUT"),
        (Self::InvalidApiKey, "INVALID_API_KEY"),
        (Self::InvalidSignature, "INVALID_SIGNATURE"),
        (Self::MissingAuthenticationToken, "MISSING_AUTHENTICATION_TOKEN"),
        (Self::QuotaExceeded, "QUOTA_EXCEEDED"),
        (Self::RequestTooLarge, "REQUEST_TOO_LARGE"),
        (Self::ResourceNotFound, "RESOURCE_NOT_FOUND"),
        (Self::Throttled, "THROTTLED"),
        (Self::Unauthorized, "UNAUTHORIZED"),
        (Self::UnsupportedMediaType, "UNSUPPORTED_MEDIA_TYPE"),
        (Self::WafFiltered, "WAF_FILTERED"),
    ];

    /// The type of this name, as it stands in the contract.
    pub(super) fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|(_, known)| *known == name)
            .map(|(kind, _)| kind)
    }

    /// `$context.error.responseType`.
    pub(super) fn name(self) -> &'static str {
        Self::ALL
            .into_iter()
            .find(|(kind, _)| *kind == self)
            .map_or("", |(_, name)| name)
    }
}

/// A request that the gateway answers by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The type whose customisation applies; `None` where there can't be any, as for 413 and for what the front answers
    /// before it knows the API.
    pub(super) kind: Option<Kind>,
    status: StatusCode,
    /// `x-amzn-ErrorType`.
    error_type: &'static str,
    /// `$context.error.message`; a few are null.
    message: Option<String>,
    /// `$context.error.validationErrorString`.
    validation: Option<String>,
}

impl Refusal {
    fn new(kind: Kind, status: StatusCode, error_type: &'static str, message: Option<&str>) -> Self {
        Self {
            kind: Some(kind),
            status,
            error_type,
            message: message.map(str::to_owned),
            validation: None,
        }
    }

    fn front(status: StatusCode, error_type: &'static str, message: &str) -> Self {
        Self {
            kind: None,
            status,
            error_type,
            message: Some(message.to_owned()),
            validation: None,
        }
    }

    /// No such path or method.
    pub(super) fn unknown_route() -> Self {
        let kind = Kind::MissingAuthenticationToken;
        let message = Some("Missing Authentication Token");
        Self::new(
            kind,
            StatusCode::FORBIDDEN,
            "MissingAuthenticationTokenException",
            message,
        )
    }

    /// An identity source is missing, or the authorizer said exactly `Unauthorized`.
    pub(super) fn unauthorized() -> Self {
        Self::new(
            Kind::Unauthorized,
            StatusCode::UNAUTHORIZED,
            "UnauthorizedException",
            Some("Unauthorized"),
        )
    }

    /// The authorizer's policy denies the method, explicitly or by not naming it.
    pub(super) fn access_denied(explicitly: bool) -> Self {
        let message = if explicitly {
            "User is not authorized to access this resource with an explicit deny"
        } else {
            "User is not authorized to access this resource"
        };
        Self::new(
            Kind::AccessDenied,
            StatusCode::FORBIDDEN,
            "AccessDeniedException",
            Some(message),
        )
    }

    /// The authorizer failed.
    pub(super) fn authorizer_failure() -> Self {
        let kind = Kind::AuthorizerFailure;
        Self::new(
            kind,
            StatusCode::INTERNAL_SERVER_ERROR,
            "AuthorizerFailureException",
            None,
        )
    }

    /// The authorizer can't be called, or its answer can't be used.
    pub(super) fn authorizer_configuration() -> Self {
        let kind = Kind::AuthorizerConfigurationError;
        Self::new(
            kind,
            StatusCode::INTERNAL_SERVER_ERROR,
            "AuthorizerConfigurationException",
            None,
        )
    }

    /// Required parameters are missing or blank.
    pub(super) fn missing_parameters(names: &[&str]) -> Self {
        let message = format!("Missing required request parameters: [{}]", names.join(", "));
        let kind = Kind::BadRequestParameters;
        let mut refusal = Self::new(kind, StatusCode::BAD_REQUEST, "BadRequestException", Some(&message));
        refusal.validation = Some(message);
        refusal
    }

    /// The body is not what its model says.
    pub(super) fn invalid_body(errors: &[String]) -> Self {
        let kind = Kind::BadRequestBody;
        let mut refusal = Self::new(
            kind,
            StatusCode::BAD_REQUEST,
            "BadRequestException",
            Some("Invalid request body"),
        );
        refusal.validation = Some(format!("[{}]", errors.join(", ")));
        refusal
    }

    /// No template for the request's media type, and no passing through.
    pub(super) fn unsupported_media_type() -> Self {
        let kind = Kind::UnsupportedMediaType;
        let message = Some("Unsupported Media Type");
        Self::new(kind, StatusCode::UNSUPPORTED_MEDIA_TYPE, "BadRequestException", message)
    }

    /// The integration can't be called at all: permissions, a missing function, a missing or unwanted tenant id.
    pub(super) fn api_configuration() -> Self {
        Self::internal(Kind::ApiConfigurationError, StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The function failed, or its result is not a proxy response.
    pub(super) fn malformed_response() -> Self {
        Self::internal(Kind::Default5xx, StatusCode::BAD_GATEWAY)
    }

    /// What a function streams does not begin with a prelude.
    pub(super) fn malformed_stream() -> Self {
        Self::internal(Kind::Default5xx, StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// A MOCK integration's templates don't lead to an answer.
    pub(super) fn mock_configuration() -> Self {
        Self::internal(Kind::Default5xx, StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Lambda throttled the call, or could not carry it out. Where the type has no status of its own, clients see 500 and
    /// not the 504 of the type's table.
    pub(super) fn integration_failure() -> Self {
        Self::internal(Kind::IntegrationFailure, StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The integration took longer than its time-out.
    pub(super) fn integration_timeout() -> Self {
        let mut refusal = Self::internal(Kind::IntegrationTimeout, StatusCode::GATEWAY_TIMEOUT);
        refusal.message = Some("Endpoint request timed out".to_owned());
        refusal
    }

    fn internal(kind: Kind, status: StatusCode) -> Self {
        Self::new(
            kind,
            status,
            "InternalServerErrorException",
            Some("Internal server error"),
        )
    }

    /// The body is longer than the front takes. Can't be customised.
    pub(super) fn body_too_large() -> Self {
        let message = "HTTP content length exceeded 10485760 bytes.";
        Self::front(StatusCode::PAYLOAD_TOO_LARGE, "RequestTooLargeException", message)
    }

    /// The event is longer than Lambda takes. Can't be customised.
    pub(super) fn event_too_large() -> Self {
        Self::front(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestTooLargeException",
            "Request Too Long",
        )
    }

    /// The URL, or the method's ARN, is too long.
    pub(super) fn uri_too_long() -> Self {
        Self::front(
            StatusCode::URI_TOO_LONG,
            "RequestTooLargeException",
            "Request URI too long",
        )
    }

    /// The headers are too long. Which status API Gateway gives is not documented.
    pub(super) fn headers_too_large() -> Self {
        let message = "Request header fields too large";
        Self::front(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "RequestTooLargeException",
            message,
        )
    }

    /// The request can't be read.
    pub(super) fn bad_request() -> Self {
        Self::front(StatusCode::BAD_REQUEST, "BadRequestException", "Bad Request")
    }

    /// The body did not come in time.
    pub(super) fn request_timeout() -> Self {
        Self::front(
            StatusCode::REQUEST_TIMEOUT,
            "RequestTimeoutException",
            "Request Timeout",
        )
    }

    /// The path's first segment is not the stage.
    pub(super) fn unknown_stage() -> Self {
        Self::front(StatusCode::FORBIDDEN, "ForbiddenException", "Forbidden")
    }

    /// `$context.error`.
    fn context(&self) -> Value {
        json!({
            "message": self.message,
            "messageString": Value::from(self.message.clone()).to_string(),
            "responseType": self.kind.map(Kind::name),
            "validationErrorString": self.validation,
        })
    }
}

/// How the contract wants one type of gateway response.
#[derive(Clone, Debug, Default)]
pub(super) struct Reply {
    pub(super) status: Option<StatusCode>,
    pub(super) headers: Vec<(HeaderName, Source)>,
    /// By media type, in the contract's order.
    pub(super) templates: Vec<(String, Template)>,
}

/// All gateway responses of the contract.
#[derive(Clone, Debug, Default)]
pub(super) struct Replies {
    pub(super) by_kind: BTreeMap<Kind, Reply>,
}

impl Replies {
    /// Renders a refusal as the contract wants it.
    pub(super) fn render(&self, refusal: &Refusal, scope: Scope<'_>) -> Response<Bytes> {
        let mut context: Map<String, Value> = scope.context.clone();
        context.insert("error".to_owned(), refusal.context());
        let scope = Scope {
            context: &context,
            ..scope
        };
        let class = if refusal.status.is_server_error() {
            Kind::Default5xx
        } else {
            Kind::Default4xx
        };
        let default = refusal.kind.and_then(|_| self.by_kind.get(&class));
        let own = refusal.kind.and_then(|kind| self.by_kind.get(&kind));
        let reply = own.or(default);
        let status = own
            .and_then(|reply| reply.status)
            .or_else(|| default.and_then(|reply| reply.status))
            .unwrap_or(refusal.status);
        let (media_type, body) = reply.and_then(|reply| reply.body(scope)).unwrap_or_else(|| {
            let message = Value::from(refusal.message.clone());
            ("application/json".to_owned(), format!("{{\"message\":{message}}}"))
        });
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        if let Ok(value) = HeaderValue::from_str(&media_type) {
            headers.insert(header::CONTENT_TYPE, value);
        }
        headers.insert("x-amzn-errortype", HeaderValue::from_static(refusal.error_type));
        for (name, source) in reply.iter().flat_map(|reply| &reply.headers) {
            if let Some(value) = source
                .evaluate(scope)
                .and_then(|value| HeaderValue::from_str(&value).ok())
            {
                headers.insert(name.clone(), value);
            }
        }
        response
    }
}

impl Reply {
    /// The body and its media type: the template that the client accepts first, else JSON's, else the first one.
    fn body(&self, scope: Scope<'_>) -> Option<(String, String)> {
        let accepts = scope.request.accepts().unwrap_or_default();
        let of = |wanted: &str| self.templates.iter().find(|(media_type, _)| media_type == wanted);
        let (media_type, template) = of(&accepts)
            .or_else(|| of("application/json"))
            .or_else(|| self.templates.first())?;
        Some((media_type.clone(), template.render(scope)))
    }
}
