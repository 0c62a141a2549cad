//! The models of Amazon Bedrock: Converse and ConverseStream.
//!
//! <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html> and
//! <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html>. Every model id leads to the
//! same model: the extractive one, or one behind a server that speaks OpenAI's protocol; for single tenants a test can
//! write the answers itself ([`script::Script`]).
//!
//! InvokeModel and CountTokens are not here, and no quotas: throttling is switched on with [`Models::throttle`]. Which
//! models a caller may invoke is decided before it.

pub mod extractive;
pub mod open_ai;
pub mod prompt;
mod reply;
mod request;
pub mod script;
pub mod speech;
pub mod token;

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::credential::Caller;
use crate::event_stream::Pace;
use crate::front_door::{RestService, ServiceBody};
use crate::guardrail::Guardrails;
use crate::knowledge_base::manner::Scope;
use crate::shape::is_model;

use extractive::Extractive;
use prompt::{Prompt, Purpose};
use request::Request;
use script::Script;
use speech::{Failure, Model, StopReason, Usage};

/// Everything that can be set.
pub struct ModelsConfig {
    /// The Region. The ARN of a model in another one is refused.
    pub region: String,
    /// How fast the extractive model speaks; a piece is a token.
    pub pace: Pace,
    /// What answers instead of the extractive model.
    pub model: Option<Arc<dyn Model>>,
    /// The guardrails that exist.
    pub guardrails: Guardrails,
    /// How many requests [`Models::calls`] remembers.
    pub remembered_calls: usize,
}

impl ModelsConfig {
    /// The extractive model, saying all at once, and no guardrail.
    #[must_use]
    pub fn new(region: impl Into<String>) -> Self {
        Self {
            region: region.into(),
            pace: Pace::AT_ONCE,
            model: None,
            guardrails: Guardrails::default(),
            remembered_calls: 10_000,
        }
    }
}

/// A request as it came in, and what became of it so far.
#[derive(Debug, Clone)]
pub struct ModelCall {
    /// When it came.
    pub at: OffsetDateTime,
    /// When it came, by the clock that measures.
    pub received: Instant,
    /// `Converse` or `ConverseStream`.
    pub operation: &'static str,
    /// The model's id, decoded.
    pub model: String,
    /// What it was for, if its form was right.
    pub purpose: Option<Purpose>,
    /// Who signed it, if it came through the front door.
    pub caller: Option<Caller>,
    /// The body; `null` if it was no JSON.
    pub body: Value,
    /// The status code of the answer, or `None` while there is none.
    pub status: Option<u16>,
    /// When the model had its first piece of text, before any guardrail.
    pub first_token: Option<Instant>,
    /// When and how the answer ended, or `None` while it has not.
    pub ended: Option<(Instant, Ending)>,
    /// What it has cost, as the answer says it.
    pub usage: Option<Usage>,
}

impl ModelCall {
    /// The tenant whose environment asked.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        self.caller.as_ref()?.tenant.as_deref()
    }
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// To its end, for this reason.
    Complete(StopReason),
    /// By an error response, or an exception in the stream.
    Failed,
    /// In the middle, without a word: the model was cut off.
    Cut,
    /// The client left before it was over, and the model was dropped.
    Abandoned,
}

/// Calls, of which the newest are kept.
#[derive(Default)]
struct Calls {
    /// How many there have been.
    pushed: u64,
    kept: VecDeque<ModelCall>,
}

/// What is set for single tenants.
#[derive(Default)]
struct Switches {
    scripts: Vec<(String, Script)>,
    throttled: Vec<(Scope, u32)>,
}

struct Inner {
    region: String,
    extractive: Extractive,
    model: Arc<dyn Model>,
    guardrails: Guardrails,
    remembered_calls: usize,
    switches: Mutex<Switches>,
    calls: Mutex<Calls>,
}

impl Inner {
    fn switches(&self) -> MutexGuard<'_, Switches> {
        self.switches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The models. Clones are the same ones.
#[derive(Clone)]
pub struct Models {
    inner: Arc<Inner>,
}

impl fmt::Debug for Models {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Models")
            .field("model", &self.inner.model.name())
            .finish_non_exhaustive()
    }
}

impl Models {
    /// Models that are set up like this.
    #[must_use]
    pub fn new(config: ModelsConfig) -> Self {
        let extractive = Extractive::new(config.pace);
        let model = config.model.unwrap_or_else(|| Arc::new(extractive.clone()));
        Self {
            inner: Arc::new(Inner {
                region: config.region,
                extractive,
                model,
                guardrails: config.guardrails,
                remembered_calls: config.remembered_calls,
                switches: Mutex::default(),
                calls: Mutex::default(),
            }),
        }
    }

    /// The name of the operation that a request is for, or `None` if it is not known here.
    #[must_use]
    pub fn operation(method: &Method, path: &str) -> Option<&'static str> {
        Route::find(method, path).map(|route| route.operation())
    }

    /// Answers one request, whose signature and permission have been checked.
    pub async fn handle(&self, request: http::Request<Bytes>, caller: Option<Caller>) -> Response<ServiceBody> {
        let (parts, body) = request.into_parts();
        let Some(route) = Route::find(&parts.method, parts.uri.path()) else {
            let asked = format!("the operation {} {}", parts.method, parts.uri.path());
            return Refusal::NotImplemented(asked).into_response();
        };
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let call = self.begin_call(&route, &body, caller.clone());
        let tenant = caller.and_then(|caller| caller.tenant);
        let answered = self.answer(&route, &body, tenant.as_deref(), &call).await;
        let response = answered.unwrap_or_else(|refusal| {
            call.ended(Ending::Failed, None);
            refusal.into_response()
        });
        call.change(|call| call.status = Some(response.status().as_u16()));
        response
    }

    async fn answer(
        &self,
        route: &Route,
        body: &Value,
        tenant: Option<&str>,
        call: &CallRecord,
    ) -> Result<Response<ServiceBody>, Refusal> {
        if self.throttles(tenant) {
            return Err(Refusal::Throttling(
                "Too many requests, please wait before trying again.".to_owned(),
            ));
        }
        self.check_model(&route.model)?;
        if body.is_null() {
            return Err(Refusal::Validation("The request body is not valid JSON.".to_owned()));
        }
        let request = Request::read(body, route.streamed)?;
        let guardrail = match &request.guardrail {
            Some(named) => {
                let found = self.inner.guardrails.find(&named.id, &named.version);
                let unknown = "The guardrail identifier or version provided in the request does not exist.";
                Some(found.ok_or_else(|| Refusal::Validation(unknown.to_owned()))?.clone())
            }
            None => None,
        };
        let purpose = Prompt::of(&request.conversation).purpose();
        call.change(|call| call.purpose = Some(purpose));
        let script = tenant.and_then(|tenant| self.take_script(tenant, purpose));
        let bytes_at_once = script.as_ref().and_then(|script| script.bytes_at_once);
        let model = script.map_or_else(
            || Arc::clone(&self.inner.model),
            |script| Arc::new(script) as Arc<dyn Model>,
        );
        let reply = reply::Reply::begin(model, request, guardrail, call.clone()).await?;
        if route.streamed {
            Ok(reply.stream(bytes_at_once))
        } else {
            reply.whole().await
        }
    }

    /// A model's id, or the ARN of a model or an inference profile of this Region.
    fn check_model(&self, id: &str) -> Result<(), Refusal> {
        let region = id
            .strip_prefix("arn:")
            .map(|rest| rest.split(':').nth(2).unwrap_or_default());
        if is_model(id) && region.is_none_or(|region| region == self.inner.region) {
            Ok(())
        } else {
            Err(Refusal::Validation(
                "The provided model identifier is invalid.".to_owned(),
            ))
        }
    }

    /// The pace of the extractive model, from the next answer on.
    pub fn set_pace(&self, pace: Pace) {
        self.inner.extractive.set_pace(pace);
    }

    /// What answers where no test says otherwise.
    #[must_use]
    pub fn model(&self) -> &Arc<dyn Model> {
        &self.inner.model
    }

    /// Lets a script answer the tenant's next request of its purpose. Several are taken in their order.
    pub fn script(&self, tenant: impl Into<String>, script: Script) {
        self.inner.switches().scripts.push((tenant.into(), script));
    }

    /// Forgets the scripts of a tenant.
    pub fn unscript(&self, tenant: &str) {
        self.inner.switches().scripts.retain(|(of, _)| of != tenant);
    }

    fn take_script(&self, tenant: &str, purpose: Purpose) -> Option<Script> {
        let mut switches = self.inner.switches();
        let scripts = &mut switches.scripts;
        let found = scripts
            .iter()
            .position(|(of, script)| of == tenant && script.purpose == purpose)?;
        if scripts.get(found).is_some_and(|(_, script)| script.stays) {
            scripts.get(found).map(|(_, script)| script.clone())
        } else {
            Some(scripts.remove(found).1)
        }
    }

    /// Answers that many requests of a tenant, or of everybody, with ThrottlingException; 0 stops that. Here a tenant is
    /// the one whose environment asks.
    pub fn throttle(&self, scope: Scope, times: u32) {
        let mut switches = self.inner.switches();
        switches.throttled.retain(|(of, _)| *of != scope);
        if times > 0 {
            switches.throttled.push((scope, times));
        }
    }

    fn throttles(&self, tenant: Option<&str>) -> bool {
        let mut switches = self.inner.switches();
        let found = switches
            .throttled
            .iter_mut()
            .find(|(scope, left)| *left > 0 && scope.covers(tenant));
        match found {
            Some((_, left)) => {
                *left -= 1;
                true
            }
            None => false,
        }
    }

    /// The last requests, oldest first.
    #[must_use]
    pub fn calls(&self) -> Vec<ModelCall> {
        self.inner.calls().kept.iter().cloned().collect()
    }

    /// Those of the last requests that this tenant's environments made, oldest first.
    #[must_use]
    pub fn calls_of(&self, tenant: &str) -> Vec<ModelCall> {
        let mut calls = self.calls();
        calls.retain(|call| call.tenant() == Some(tenant));
        calls
    }

    fn begin_call(&self, route: &Route, body: &Value, caller: Option<Caller>) -> CallRecord {
        let received = Instant::now();
        let mut calls = self.inner.calls();
        let number = calls.pushed;
        calls.pushed += 1;
        calls.kept.push_back(ModelCall {
            at: OffsetDateTime::now_utc(),
            received,
            operation: route.operation(),
            model: route.model.clone(),
            purpose: None,
            caller,
            body: body.clone(),
            status: None,
            first_token: None,
            ended: None,
            usage: None,
        });
        while calls.kept.len() > self.inner.remembered_calls {
            calls.kept.pop_front();
        }
        CallRecord {
            inner: Arc::clone(&self.inner),
            number,
            received,
        }
    }
}

impl RestService for Models {
    fn operation(&self, method: &Method, path: &str) -> Option<&'static str> {
        Self::operation(method, path)
    }

    fn handle(&self, request: http::Request<Bytes>, caller: Caller) -> BoxFuture<'_, Response<ServiceBody>> {
        Box::pin(Self::handle(self, request, Some(caller)))
    }
}

/// Where one request's progress is noted.
#[derive(Clone)]
struct CallRecord {
    inner: Arc<Inner>,
    number: u64,
    received: Instant,
}

impl CallRecord {
    fn change(&self, change: impl FnOnce(&mut ModelCall)) {
        let mut calls = self.inner.calls();
        // Forgotten already, it is not among those that are kept.
        let forgotten = calls.pushed - calls.kept.len() as u64;
        let call = self
            .number
            .checked_sub(forgotten)
            .and_then(|at| usize::try_from(at).ok())
            .and_then(|at| calls.kept.get_mut(at));
        if let Some(call) = call {
            change(call);
        }
    }

    fn spoke(&self) {
        self.change(|call| {
            call.first_token.get_or_insert_with(Instant::now);
        });
    }

    fn ended(&self, ending: Ending, usage: Option<Usage>) {
        self.change(|call| {
            call.ended.get_or_insert_with(|| (Instant::now(), ending));
            call.usage = call.usage.or(usage);
        });
    }
}

/// What a request is for.
struct Route {
    model: String,
    streamed: bool,
}

impl Route {
    fn find(method: &Method, path: &str) -> Option<Self> {
        let (model, operation) = path.trim_end_matches('/').strip_prefix("/model/")?.rsplit_once('/')?;
        let streamed = match operation {
            "converse" => false,
            "converse-stream" => true,
            _ => return None,
        };
        // An ARN's own slashes and colons may come encoded or not.
        let model = percent_decode_str(model).decode_utf8().ok()?.into_owned();
        (method == Method::POST && !model.is_empty()).then_some(Self { model, streamed })
    }

    fn operation(&self) -> &'static str {
        if self.streamed { "ConverseStream" } else { "Converse" }
    }
}

/// Why a request is refused.
#[derive(Debug)]
enum Refusal {
    Validation(String),
    Throttling(String),
    /// The model's own failure.
    Model {
        status: u16,
        message: String,
    },
    Unavailable(String),
    TimedOut(String),
    /// The service does it and this one doesn't.
    NotImplemented(String),
    Internal(String),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Throttled(message) => Self::Throttling(message),
            Failure::Refused(message) => Self::Validation(message),
            Failure::Failed { status, message } => Self::Model { status, message },
            Failure::Unavailable(message) => Self::Unavailable(message),
            Failure::TimedOut(message) => Self::TimedOut(message),
            Failure::Internal(message) => Self::Internal(message),
        }
    }
}

impl Refusal {
    /// <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html#API_runtime_Converse_Errors>
    fn into_response(self) -> Response<ServiceBody> {
        let (status, kind, body) = match self {
            Self::Validation(message) => (
                StatusCode::BAD_REQUEST,
                "ValidationException",
                json!({ "message": message }),
            ),
            Self::Throttling(message) => (
                StatusCode::TOO_MANY_REQUESTS,
                "ThrottlingException",
                json!({ "message": message }),
            ),
            Self::Model { status, message } => (
                StatusCode::FAILED_DEPENDENCY,
                "ModelErrorException",
                json!({ "message": message, "originalStatusCode": status }),
            ),
            Self::Unavailable(message) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "ServiceUnavailableException",
                json!({ "message": message }),
            ),
            Self::TimedOut(message) => (
                StatusCode::REQUEST_TIMEOUT,
                "ModelTimeoutException",
                json!({ "message": message }),
            ),
            Self::NotImplemented(what) => (
                StatusCode::NOT_IMPLEMENTED,
                "NotImplementedException",
                json!({ "message": format!("The local models do not have {what}.") }),
            ),
            Self::Internal(message) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "InternalServerException",
                json!({ "message": message }),
            ),
        };
        let mut response = respond(&body);
        *response.status_mut() = status;
        response
            .headers_mut()
            .insert("x-amzn-errortype", http::HeaderValue::from_static(kind));
        response
    }
}

fn respond(body: &Value) -> Response<ServiceBody> {
    let mut response = Response::new(ServiceBody::Whole(Bytes::from(body.to_string())));
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    response
}

#[cfg(test)]
mod tests;
