//! Answers of functions: the headers that every one carries, JSON, redirections and problems.

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use lambda_http::Body;
use lambda_http::aws_lambda_events::apigw::ApiGatewayProxyResponse;
use serde::Serialize;

use crate::error::Error;

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    status: StatusCode,
    headers: HeaderMap,
    body: Option<String>,
}

impl Response {
    /// An answer without a body.
    pub fn empty(status: StatusCode) -> Self {
        let mut headers = HeaderMap::new();
        // Answers are one tenant's: no cache may keep them, and none that does may ignore who asked.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::VARY, HeaderValue::from_static("Authorization"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        // Bearer tokens only, no cookies: any page may ask that holds a token.
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        Self {
            status,
            headers,
            body: None,
        }
    }

    /// An answer with a JSON body.
    ///
    /// # Errors
    /// [`Error::Internal`] if `body` can't be written as JSON.
    pub fn json(status: StatusCode, body: &impl Serialize) -> Result<Self, Error> {
        let text = serde_json::to_string(body).map_err(Error::internal)?;
        Ok(Self::empty(status).with_body("application/json", text))
    }

    /// A redirection to `location`.
    ///
    /// # Errors
    /// [`Error::Internal`] if `location` can't be a header.
    pub fn redirect(location: &str) -> Result<Self, Error> {
        let value = HeaderValue::from_str(location).map_err(Error::internal)?;
        Ok(Self::empty(StatusCode::FOUND)
            .with_header(header::LOCATION, value)
            .exposing("Location"))
    }

    /// The problem that `error` is to a client.
    pub fn problem(error: &Error, request_id: &str) -> Self {
        let problem = error.problem(request_id);
        // A problem is made of texts and numbers; should it ever fail to serialise, the status still says what it is.
        let text = serde_json::to_string(&problem).unwrap_or_default();
        let mut response = Self::empty(error.code().status()).with_body("application/problem+json", text);
        if let Some(wait) = error.retry_after() {
            response = response
                .with_header(header::RETRY_AFTER, HeaderValue::from(wait.as_secs()))
                .exposing("Retry-After");
        }
        response
    }

    /// This answer with one more header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Lets pages of other origins read a header that CORS hides from them.
    fn exposing(self, name: &'static str) -> Self {
        self.with_header(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(name))
    }

    fn with_body(mut self, media_type: &'static str, body: String) -> Self {
        self.headers
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        self.body = Some(body);
        self
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The body, empty if there is none.
    pub fn body(&self) -> &str {
        self.body.as_deref().unwrap_or_default()
    }
}

impl From<Response> for ApiGatewayProxyResponse {
    fn from(response: Response) -> Self {
        let mut proxy = Self::default();
        proxy.status_code = i64::from(response.status.as_u16());
        proxy.headers = response.headers;
        proxy.body = response.body.map(Body::Text);
        proxy
    }
}
