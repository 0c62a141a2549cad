//! Answers of functions: the headers that every one carries, JSON, redirections, problems and streams of events.
//!
//! Not here: what the events say (`query-handler`), and which routes stream ([`crate::service::Handler::STREAMED`]).

use std::fmt;
use std::pin::Pin;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use lambda_http::aws_lambda_events::apigw::ApiGatewayProxyResponse;
use lambda_runtime::{MetadataPrelude, StreamResponse};
use serde::Serialize;
use tokio_stream::Stream;

use crate::error::Error;

/// A body that comes in pieces. It can't fail: the runtime would write an error's text into the body, for the client to
/// read. An empty piece is not sent; it shows whether there still is somebody to send to, because a stream that nobody
/// takes from is dropped when it has one.
pub type EventStream = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

/// An answer.
#[derive(Debug)]
pub struct Response {
    status: StatusCode,
    headers: HeaderMap,
    body: Body,
}

enum Body {
    Empty,
    Text(String),
    Events(EventStream),
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
            body: Body::Empty,
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

    /// An answer whose body is a stream of server-sent events
    /// (<https://html.spec.whatwg.org/multipage/server-sent-events.html>), framed already. Only a route that the handler
    /// lists as streamed can have one.
    pub fn event_stream(stream: impl Stream<Item = Bytes> + Send + 'static) -> Self {
        let mut response = Self::empty(StatusCode::OK).with_header(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/event-stream; charset=utf-8"),
        );
        response.body = Body::Events(Box::pin(stream));
        response
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
        self.body = Body::Text(body);
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

    /// The body's text; empty if there is none, or if it comes in pieces.
    pub fn body(&self) -> &str {
        match &self.body {
            Body::Text(text) => text,
            Body::Empty | Body::Events(_) => "",
        }
    }

    /// The pieces of the body, if it comes in pieces.
    pub fn into_events(self) -> Option<EventStream> {
        match self.body {
            Body::Events(events) => Some(events),
            Body::Empty | Body::Text(_) => None,
        }
    }

    /// Whether the body comes in pieces.
    pub(crate) fn is_event_stream(&self) -> bool {
        matches!(self.body, Body::Events(_))
    }

    /// What a buffered integration takes. The pieces of a stream are lost, as they would be on their way through one.
    pub(crate) fn into_buffered(self) -> ApiGatewayProxyResponse {
        let mut proxy = ApiGatewayProxyResponse::default();
        proxy.status_code = i64::from(self.status.as_u16());
        proxy.headers = self.headers;
        proxy.body = match self.body {
            Body::Text(text) => Some(lambda_http::Body::Text(text)),
            Body::Empty | Body::Events(_) => None,
        };
        proxy
    }

    /// What a streaming integration takes: status and headers before the body. Each header stands there once, because the
    /// gateway answers 500 to a list of values
    /// (<https://docs.aws.amazon.com/apigateway/latest/developerguide/response-transfer-mode-lambda.html>); no method of
    /// this type adds a second value to one.
    pub(crate) fn into_streamed(self) -> StreamResponse<EventStream> {
        StreamResponse {
            metadata_prelude: MetadataPrelude {
                status_code: self.status,
                headers: self.headers,
                cookies: Vec::new(),
            },
            stream: match self.body {
                Body::Empty => Box::pin(tokio_stream::empty()),
                Body::Text(text) => Box::pin(tokio_stream::once(Bytes::from(text))),
                Body::Events(events) => events,
            },
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Text(text) => f.debug_tuple("Text").field(text).finish(),
            Self::Events(_) => f.write_str("Events"),
        }
    }
}
