//! The one door to the fakes of AWS: a listener on the loopback interface that verifies who asks before anything is
//! done.
//!
//! The service is the one that the signature's credential scope names (`s3`, `dynamodb`, `bedrock`, `sts`, `ssm`). Every
//! request is recorded. What does not verify, and what the caller's policies do not allow, is refused in the service's own words;
//! what is allowed may meet an injected fault. Not here: what policies mean ([`crate::authority`]), TLS and virtual-hosted
//! buckets; an SDK is pointed at the door with `AWS_ENDPOINT_URL` and path-style addresses.

mod flow;
mod signature;

use std::convert::Infallible;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Either, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use time::OffsetDateTime;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use uuid::Uuid;

use self::flow::Flow;
use self::signature::{Presented, Refusal};
use crate::authority::{Authority, Denial};
use crate::credential::{Caller, Credentials};
use crate::dynamodb::{self, DynamoDb};
use crate::fault::{Effect, Faults, StreamFault};
use crate::parameter_store::{self, ParameterStore};
use crate::permission::Asking;
use crate::policy::{Need, StatementName};
use crate::record::{Call, Recorder, Resource, Service, Streamed};
use crate::s3::{self, S3, S3Store};
use crate::sts;

/// The largest body that is read, in bytes: the largest document with room for the frame of `aws-chunked`.
const MAX_BODY: usize = 65 * 1024 * 1024;
/// JSON bodies above this many bytes are not kept in the records.
const MAX_RECORDED: usize = 64 * 1024;

/// A service that speaks REST with JSON and is not part of this module: Bedrock.
pub trait RestService: Send + Sync + 'static {
    /// The operation of a request by AWS's name, or `None` for one that the service does not have; that is answered 501.
    fn operation(&self, method: &Method, path: &str) -> Option<&'static str>;

    /// Answers a request whose signature was verified.
    fn handle(&self, request: Request<Bytes>, caller: Caller) -> BoxFuture<'_, Response<ServiceBody>>;
}

/// The body of a service's answer.
pub enum ServiceBody {
    /// All of it.
    Whole(Bytes),
    /// Events, each in its frame and each an item of its own ([`crate::event_stream`] makes them): faults count them. Every
    /// one is sent as soon as it is there. The stream is dropped when the client leaves.
    Events(BoxStream<'static, Bytes>),
}

impl ServiceBody {
    /// All of it, once it is there.
    pub async fn collect(self) -> Bytes {
        match self {
            Self::Whole(bytes) => bytes,
            Self::Events(events) => events.collect::<Vec<Bytes>>().await.concat().into(),
        }
    }
}

impl fmt::Debug for ServiceBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(bytes) => f.debug_tuple("Whole").field(bytes).finish(),
            Self::Events(_) => f.write_str("Events"),
        }
    }
}

impl From<Bytes> for ServiceBody {
    fn from(bytes: Bytes) -> Self {
        Self::Whole(bytes)
    }
}

/// What stands behind the door.
#[derive(Clone)]
pub struct Services {
    /// The buckets.
    pub s3: Arc<S3Store>,
    /// The tables.
    pub dynamodb: Arc<DynamoDb>,
    /// The parts of Bedrock. A request is for the first that has its operation, and answered 501 if none has.
    pub bedrock: Vec<Arc<dyn RestService>>,
    /// The parameters.
    pub ssm: Arc<ParameterStore>,
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services")
            .field("s3", &self.s3)
            .field("dynamodb", &self.dynamodb)
            .field("bedrock", &self.bedrock.len())
            .field("ssm", &self.ssm)
            .finish()
    }
}

/// How a door is made.
#[derive(Debug, Clone)]
pub struct FrontDoorConfig {
    /// The port on 127.0.0.1, or 0 for any that is free.
    pub port: u16,
    /// The region that requests have to be signed for.
    pub region: String,
    /// The account that owns everything: twelve digits.
    pub account: String,
    /// How often expired items are swept from the tables.
    pub ttl_sweep: Duration,
    /// How many records are kept.
    pub recorded_calls: usize,
    /// Who may do what; none for a door where everybody may do everything.
    pub authority: Option<Arc<Authority>>,
}

impl Default for FrontDoorConfig {
    fn default() -> Self {
        Self {
            port: 0,
            region: "eu-central-1".to_owned(),
            account: "000000000000".to_owned(),
            ttl_sweep: Duration::from_secs(60),
            recorded_calls: 10_000,
            authority: None,
        }
    }
}

/// An open door. It closes when it is dropped.
#[derive(Debug)]
pub struct FrontDoor {
    address: SocketAddr,
    inner: Arc<Inner>,
    tasks: Vec<JoinHandle<()>>,
}

impl FrontDoor {
    /// Opens the door. Has to be called in a Tokio runtime.
    ///
    /// # Errors
    ///
    /// When the port is taken.
    pub async fn start(config: FrontDoorConfig, services: Services) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, config.port))
            .await
            .with_context(|| format!("can't listen on port {} of the loopback interface", config.port))?;
        let address = listener.local_addr()?;
        let inner = Arc::new(Inner::new(&config, services));
        let tasks = vec![
            tokio::spawn(accept(listener, Arc::clone(&inner))),
            tokio::spawn(sweep(Arc::clone(&inner.services.dynamodb), config.ttl_sweep)),
        ];
        Ok(Self { address, inner, tasks })
    }

    /// The base URL, for `AWS_ENDPOINT_URL`. Without a slash at its end.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The region that requests have to be signed for.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.inner.region
    }

    /// Who may enter. The same credentials for all clones.
    #[must_use]
    pub fn credentials(&self) -> &Credentials {
        &self.inner.credentials
    }

    /// The faults that requests meet.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.inner.faults
    }

    /// What was asked.
    #[must_use]
    pub fn recorder(&self) -> &Recorder {
        &self.inner.recorder
    }

    /// Who may do what.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.inner.authority
    }

    /// The buckets.
    #[must_use]
    pub fn s3(&self) -> &Arc<S3Store> {
        &self.inner.services.s3
    }

    /// The tables.
    #[must_use]
    pub fn dynamodb(&self) -> &Arc<DynamoDb> {
        &self.inner.services.dynamodb
    }

    /// Closes the door: open connections are cut, and what was being answered is not.
    pub async fn shutdown(mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
            // An aborted task has nothing to say; awaiting it makes sure that it is gone.
            drop(task.await);
        }
    }
}

impl Drop for FrontDoor {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn accept(listener: TcpListener, inner: Arc<Inner>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, Arc::clone(&inner)));
                }
                Err(error) => {
                    // Out of file descriptors, most likely: wait until some are free again.
                    tracing::warn!(%error, "can't accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, inner: Arc<Inner>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "can't turn off Nagle's algorithm");
    }
    let service = service_fn(|request: Request<Incoming>| async {
        let head = request.method() == Method::HEAD;
        let response = match read_body(request).await {
            Ok(request) => inner.handle(request).await?,
            Err(refused) => refused.map(Outgoing::Whole),
        };
        Ok::<_, Dropped>(response.map(|body| match body {
            // The body of a HEAD is not sent, and its length is the one that the header gives.
            Outgoing::Whole(_) if head => Either::Left(Full::default()),
            Outgoing::Whole(bytes) => Either::Left(Full::new(bytes)),
            Outgoing::Events(events) => Either::Right(StreamBody::new(events.map_ok(Frame::data))),
        }))
    });
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn read_body(request: Request<Incoming>) -> Result<Request<Bytes>, Response<Bytes>> {
    let (parts, body) = request.into_parts();
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => Ok(Request::from_parts(parts, body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Err(s3::error(
            StatusCode::BAD_REQUEST,
            "EntityTooLarge",
            "Your proposed upload exceeds the maximum allowed size",
        )),
        Err(_) => Err(s3::error(
            StatusCode::BAD_REQUEST,
            "IncompleteBody",
            "The request body terminated unexpectedly",
        )),
    }
}

async fn sweep(dynamodb: Arc<DynamoDb>, every: Duration) {
    // A period of zero would panic; a sweep per millisecond is as good as none in between.
    let mut interval = tokio::time::interval(every.max(Duration::from_millis(1)));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let dynamodb = Arc::clone(&dynamodb);
        match tokio::task::spawn_blocking(move || dynamodb.sweep()).await {
            Ok(Ok(swept)) => tracing::debug!(swept, "swept expired items"),
            Ok(Err(error)) => tracing::warn!(error = format!("{error:#}"), "can't sweep expired items"),
            Err(error) => tracing::warn!(%error, "the sweep of expired items ended"),
        }
    }
}

/// The connection is cut instead of an answer.
#[derive(Debug, thiserror::Error)]
#[error("an injected fault cut the connection")]
struct Dropped;

impl From<Infallible> for Dropped {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// The body of an answer as it leaves.
enum Outgoing {
    Whole(Bytes),
    Events(Flow),
}

/// What a request met on its way.
#[derive(Default)]
struct Met {
    decided_by: Vec<StatementName>,
    faulted: bool,
    carried_out: bool,
    stream_fault: Option<StreamFault>,
}

/// What a request asks for, as far as it can be told without carrying it out.
struct Asked {
    service: Service,
    operation: String,
    resource: Resource,
    summary: Value,
    /// What is not emulated.
    unknown: Option<String>,
    /// What it takes to be allowed.
    needs: Vec<Need>,
    /// Where it is for STS.
    form: Option<sts::Asked>,
}

struct Inner {
    region: String,
    account: String,
    authority: Arc<Authority>,
    credentials: Credentials,
    faults: Faults,
    recorder: Recorder,
    services: Services,
    s3: S3,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner")
            .field("services", &self.services)
            .finish_non_exhaustive()
    }
}

impl Inner {
    fn new(config: &FrontDoorConfig, services: Services) -> Self {
        let credentials = Credentials::new();
        Self {
            region: config.region.clone(),
            account: config.account.clone(),
            authority: config
                .authority
                .clone()
                .unwrap_or_else(|| Arc::new(Authority::open(&config.account))),
            s3: S3::new(Arc::clone(&services.s3), credentials.clone(), config.account.clone()),
            credentials,
            faults: Faults::new(),
            recorder: Recorder::new(config.recorded_calls),
            services,
        }
    }

    async fn handle(&self, request: Request<Bytes>) -> Result<Response<Outgoing>, Dropped> {
        let (parts, body) = request.into_parts();
        let presented = Presented::read(&parts);
        let service = match &presented {
            Ok(presented) => presented.service().unwrap_or_else(|| self.guess(&parts)),
            Err(_) => self.guess(&parts),
        };
        let asked = self.ask(service, &parts, &body);
        let now = OffsetDateTime::now_utc();
        let verified = presented.and_then(|presented| match presented.service() {
            Some(_) => presented.verify(&parts, &body, &self.credentials, &self.region, now),
            None => Err(Refusal::Malformed(
                "the credential scope names a service that is not emulated",
            )),
        });
        let mut met = Met::default();
        let (caller, answer) = match verified {
            Ok(caller) => {
                let request = Request::from_parts(parts, body);
                let answer = self.answer(&asked, request, caller.clone(), &mut met).await;
                (Some(caller), answer)
            }
            Err(refusal) => {
                tracing::debug!(%service, ?refusal, operation = asked.operation, "refused a request");
                (None, Ok(refused(service, refusal).map(ServiceBody::Whole)))
            }
        };
        let streamed = matches!(&answer, Ok(response) if matches!(response.body(), ServiceBody::Events(_)));
        let record = self.recorder.push(Call {
            at: OffsetDateTime::now_utc(),
            caller,
            service,
            operation: asked.operation,
            resource: asked.resource,
            request: asked.summary,
            status: answer.as_ref().ok().map(|response| response.status().as_u16()),
            decided_by: met.decided_by,
            faulted: met.faulted,
            carried_out: met.carried_out,
            stream: streamed.then(Streamed::default),
        });
        let answer = answer?.map(|body| match body {
            ServiceBody::Whole(bytes) => Outgoing::Whole(bytes),
            ServiceBody::Events(events) => Outgoing::Events(Flow::new(events, met.stream_fault, record)),
        });
        Ok(with_request_id(answer))
    }

    /// The part of Bedrock that has an operation, and its name.
    fn bedrock(&self, method: &Method, path: &str) -> Option<(&Arc<dyn RestService>, &'static str)> {
        let mut parts = self.services.bedrock.iter();
        parts.find_map(|part| Some((part, part.operation(method, path)?)))
    }

    /// The service of a request whose signature does not say it, so that it is refused in the right form.
    fn guess(&self, parts: &Parts) -> Service {
        if dynamodb::operation(&parts.headers).is_some() {
            return Service::DynamoDb;
        }
        if parameter_store::operation(&parts.headers).is_some() {
            return Service::Ssm;
        }
        if self.bedrock(&parts.method, parts.uri.path()).is_some() {
            return Service::Bedrock;
        }
        Service::S3
    }

    fn ask(&self, service: Service, parts: &Parts, body: &[u8]) -> Asked {
        // Keys and names have to be found in large bodies too, of which nothing is kept.
        let whole: Value = match service {
            Service::DynamoDb | Service::Bedrock | Service::Ssm => serde_json::from_slice(body).unwrap_or_default(),
            Service::S3 | Service::Sts => Value::Null,
        };
        let form = (service == Service::Sts).then(|| sts::Asked::read(body));
        let (operation, resource, summary, unknown) = match (service, &form) {
            (Service::S3, _) => {
                let asked = s3::Asked::read(parts, body);
                (
                    asked.operation.into_owned(),
                    asked.resource,
                    asked.summary,
                    asked.unknown,
                )
            }
            (Service::DynamoDb, _) => {
                let operation = dynamodb::operation(&parts.headers).unwrap_or("a request without X-Amz-Target");
                let resource = self.services.dynamodb.resource(operation, &whole);
                (operation.to_owned(), resource, Value::Null, None)
            }
            (Service::Sts, Some(form)) => {
                let resource = form.role.clone().map_or(Resource::None, Resource::Role);
                (form.operation.clone(), resource, form.summary(), form.unknown())
            }
            (Service::Ssm, _) => {
                let operation = parameter_store::operation(&parts.headers).unwrap_or("a request without X-Amz-Target");
                let name = parameter_store::name(&whole).map(str::to_owned);
                let resource = name.map_or(Resource::None, Resource::Parameter);
                (operation.to_owned(), resource, Value::Null, None)
            }
            (Service::Bedrock | Service::Sts, _) => {
                let path = parts.uri.path();
                let known = self.bedrock(&parts.method, path).map(|(_, operation)| operation);
                let operation = known.map_or_else(|| format!("{} {path}", parts.method), str::to_owned);
                let unknown = known.is_none().then(|| operation.clone());
                (operation, Resource::Path(path.to_owned()), Value::Null, unknown)
            }
        };
        let asking = Asking {
            service,
            operation: &operation,
            resource: &resource,
            body: &whole,
            region: &self.region,
            account: &self.account,
        };
        let needs = asking.needs(|operation, request| self.services.dynamodb.resource(operation, request));
        Asked {
            service,
            operation,
            resource,
            summary: if summary.is_null() && body.len() <= MAX_RECORDED {
                whole
            } else {
                summary
            },
            unknown,
            needs,
            form,
        }
    }

    async fn answer(
        &self,
        asked: &Asked,
        request: Request<Bytes>,
        caller: Caller,
        met: &mut Met,
    ) -> Result<Response<ServiceBody>, Dropped> {
        let mut grant = None;
        match &asked.form {
            // STS asks the role as well, and decides on both together.
            Some(form) if asked.unknown.is_none() => {
                let decision = form.decide(&caller, &self.authority);
                met.decided_by = decision.by;
                match decision.outcome {
                    Ok(granted) => grant = Some(granted),
                    Err(refused) => return Ok(refused.map(ServiceBody::Whole)),
                }
            }
            Some(_) => {}
            None => match self.authority.authorize(&caller, &asked.needs) {
                Ok(by) => met.decided_by = by,
                Err(denial) => {
                    denial.log();
                    met.decided_by.clone_from(&denial.denied_by);
                    return Ok(access_denied(asked.service, &denial).map(ServiceBody::Whole));
                }
            },
        }
        let tenant = caller.tenant.as_deref();
        let effects = self
            .faults
            .meet(asked.service, &asked.operation, tenant, &asked.resource);
        met.faulted = !effects.is_empty();
        let mut answer_dropped = false;
        for effect in effects {
            match effect {
                Effect::Delay(delay) => tokio::time::sleep(delay).await,
                Effect::Drop => return Err(Dropped),
                Effect::DropAnswer => answer_dropped = true,
                Effect::Stream(fault) => met.stream_fault = Some(fault),
                Effect::Throttle => return Ok(throttled(asked.service).map(ServiceBody::Whole)),
                Effect::TransactionConflict => return Ok(conflict(asked, request.body()).map(ServiceBody::Whole)),
                Effect::Status { status, code, message } => {
                    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                    return Ok(error(asked.service, status, &code, &message).map(ServiceBody::Whole));
                }
            }
        }
        met.carried_out = true;
        let response = self.carry_out(asked, request, caller, grant).await;
        if answer_dropped { Err(Dropped) } else { Ok(response) }
    }

    async fn carry_out(
        &self,
        asked: &Asked,
        request: Request<Bytes>,
        caller: Caller,
        grant: Option<sts::Grant>,
    ) -> Response<ServiceBody> {
        let answer = match asked.service {
            Service::Bedrock => match self.bedrock(request.method(), request.uri().path()) {
                Some((bedrock, _)) => return bedrock.handle(request, caller).await,
                None => not_emulated(asked),
            },
            _ if asked.unknown.is_some() => not_emulated(asked),
            Service::S3 => match self.s3.handle(request).await {
                Ok(response) => self.hide_missing(asked, &caller, response),
                Err(failed) => internal_error(asked.service, &failed),
            },
            Service::Sts => match grant {
                Some(grant) => grant.issue(&self.authority, &self.credentials),
                None => not_emulated(asked),
            },
            Service::Ssm => self.services.ssm.handle(&asked.operation, request.body()),
            Service::DynamoDb => {
                let dynamodb = Arc::clone(&self.services.dynamodb);
                let operation = asked.operation.clone();
                let body = request.into_body();
                tokio::task::spawn_blocking(move || dynamodb.handle(&operation, &body))
                    .await
                    .unwrap_or_else(|failed| internal_error(asked.service, &failed.into()))
            }
        };
        answer.map(ServiceBody::Whole)
    }

    /// Who may not list a bucket is not told that an object of it is missing, but is refused.
    /// Source: <https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html>, "Permissions".
    fn hide_missing(&self, asked: &Asked, caller: &Caller, response: Response<Bytes>) -> Response<Bytes> {
        let bucket = match &asked.resource {
            Resource::Objects { bucket, source, .. } => source.as_ref().map_or(bucket, |(bucket, _)| bucket),
            _ => return response,
        };
        let reads = ["GetObject", "HeadObject", "CopyObject"].contains(&asked.operation.as_str());
        let may_list = || {
            self.authority
                .would_allow(caller, "s3:ListBucket", &format!("arn:aws:s3:::{bucket}"))
        };
        if reads && response.status() == StatusCode::NOT_FOUND && !may_list() {
            return error(asked.service, StatusCode::FORBIDDEN, "AccessDenied", "Access Denied");
        }
        response
    }
}

/// A refusal by policy in the form of its service.
fn access_denied(service: Service, denial: &Denial) -> Response<Bytes> {
    let (status, code) = match service {
        Service::S3 | Service::Sts => (StatusCode::FORBIDDEN, "AccessDenied"),
        Service::DynamoDb | Service::Ssm => (StatusCode::BAD_REQUEST, "AccessDeniedException"),
        Service::Bedrock => (StatusCode::FORBIDDEN, "AccessDeniedException"),
    };
    error(service, status, code, &denial.to_string())
}

fn not_emulated(asked: &Asked) -> Response<Bytes> {
    let unknown = asked.unknown.as_ref().unwrap_or(&asked.operation);
    tracing::warn!(service = %asked.service, operation = unknown, "an operation that is not emulated");
    error(
        asked.service,
        StatusCode::NOT_IMPLEMENTED,
        "NotImplemented",
        &format!("{unknown} is not emulated"),
    )
}

fn internal_error(service: Service, failed: &anyhow::Error) -> Response<Bytes> {
    tracing::error!(%service, error = format!("{failed:#}"), "a request failed");
    let (code, message) = match service {
        Service::S3 => ("InternalError", "We encountered an internal error. Please try again."),
        Service::DynamoDb => ("InternalServerError", "The request processing has failed."),
        Service::Bedrock => ("InternalServerException", "The request processing has failed."),
        Service::Sts => ("InternalFailure", "The request processing has failed."),
        Service::Ssm => ("InternalServerError", "The request processing has failed."),
    };
    error(service, StatusCode::INTERNAL_SERVER_ERROR, code, message)
}

/// Every service names its answers, in a header of its own.
fn with_request_id<B>(mut response: Response<B>) -> Response<B> {
    if let Ok(id) = HeaderValue::try_from(Uuid::new_v4().to_string()) {
        for name in ["x-amz-request-id", "x-amzn-requestid"] {
            response.headers_mut().entry(name).or_insert_with(|| id.clone());
        }
    }
    response
}

/// An error in the form of its service.
fn error(service: Service, status: StatusCode, code: &str, message: &str) -> Response<Bytes> {
    match service {
        Service::S3 => s3::error(status, code, message),
        Service::DynamoDb => dynamodb::error(status, code, message),
        Service::Sts => sts::error(status, code, message),
        Service::Ssm => parameter_store::error(status, code, message),
        Service::Bedrock => {
            let body = serde_json::json!({ "message": message }).to_string();
            let mut response = Response::new(Bytes::from(body));
            *response.status_mut() = status;
            let headers = response.headers_mut();
            headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            if let Ok(code) = HeaderValue::from_str(code) {
                headers.insert("x-amzn-errortype", code);
            }
            response
        }
    }
}

fn throttled(service: Service) -> Response<Bytes> {
    let (status, code, message) = match service {
        Service::S3 => (
            StatusCode::SERVICE_UNAVAILABLE,
            "SlowDown",
            "Please reduce your request rate.",
        ),
        Service::DynamoDb => (
            StatusCode::BAD_REQUEST,
            "ProvisionedThroughputExceededException",
            "The level of configured provisioned throughput for the table was exceeded.",
        ),
        Service::Bedrock => (
            StatusCode::TOO_MANY_REQUESTS,
            "ThrottlingException",
            "Too many requests, please wait before trying again.",
        ),
        Service::Sts => (StatusCode::BAD_REQUEST, "Throttling", "Rate exceeded"),
        Service::Ssm => (StatusCode::BAD_REQUEST, "ThrottlingException", "Rate exceeded"),
    };
    error(service, status, code, message)
}

fn conflict(asked: &Asked, body: &[u8]) -> Response<Bytes> {
    match asked.service {
        Service::DynamoDb => {
            dynamodb::transaction_conflict(&asked.operation, &serde_json::from_slice(body).unwrap_or_default())
        }
        Service::S3 => error(
            Service::S3,
            StatusCode::CONFLICT,
            "ConditionalRequestConflict",
            "A conflicting operation occurred during the request. Please try again.",
        ),
        service @ (Service::Bedrock | Service::Sts) => error(
            service,
            StatusCode::CONFLICT,
            "ConflictException",
            "A conflicting operation is in progress.",
        ),
        Service::Ssm => error(
            Service::Ssm,
            StatusCode::BAD_REQUEST,
            "TooManyUpdates",
            "There are concurrent updates for a resource that supports one update at a time.",
        ),
    }
}

/// What a service answers to a request that does not verify.
/// S3: <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>; the others:
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html>
fn refused(service: Service, refusal: Refusal) -> Response<Bytes> {
    const WRONG_SIGNATURE: &str = "The request signature we calculated does not match the signature you provided. Check \
                                   your AWS Secret Access Key and signing method.";
    const WRONG_TOKEN: &str = "The security token included in the request is invalid.";
    let (status, code, message) = match (service, refusal) {
        (Service::S3, Refusal::Unsigned) => (403, "AccessDenied", "Access Denied"),
        (Service::S3, Refusal::Malformed(what)) => (400, "AuthorizationHeaderMalformed", what),
        (Service::S3, Refusal::UnknownKey) => (
            403,
            "InvalidAccessKeyId",
            "The AWS Access Key Id you provided does not exist in our records.",
        ),
        (Service::S3, Refusal::WrongSignature) => (403, "SignatureDoesNotMatch", WRONG_SIGNATURE),
        (Service::S3, Refusal::HeaderNotSigned) => (
            403,
            "AccessDenied",
            "There were headers present in the request which were not signed",
        ),
        (Service::S3, Refusal::WrongToken) => (
            400,
            "InvalidToken",
            "The provided token is malformed or otherwise invalid.",
        ),
        (Service::S3, Refusal::ExpiredCredential) => (400, "ExpiredToken", "The provided token has expired."),
        (Service::S3, Refusal::Skewed) => (
            403,
            "RequestTimeTooSkewed",
            "The difference between the request time and the current time is too large.",
        ),
        (Service::S3, Refusal::ExpiredUrl) => (403, "AccessDenied", "Request has expired"),
        (Service::S3, Refusal::WrongRegion) => (
            400,
            "AuthorizationHeaderMalformed",
            "The authorization header is malformed; the region is wrong",
        ),
        (Service::S3, Refusal::WrongPayload) => (
            400,
            "XAmzContentSHA256Mismatch",
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
        ),
        (_, Refusal::Unsigned) => (
            0,
            "MissingAuthenticationTokenException",
            "Request is missing Authentication Token",
        ),
        (_, Refusal::Malformed(what)) => (0, "IncompleteSignatureException", what),
        (_, Refusal::UnknownKey | Refusal::WrongToken) => (0, "UnrecognizedClientException", WRONG_TOKEN),
        (_, Refusal::ExpiredCredential) => (
            0,
            "ExpiredTokenException",
            "The security token included in the request is expired",
        ),
        (_, Refusal::WrongSignature | Refusal::HeaderNotSigned | Refusal::WrongPayload) => {
            (0, "InvalidSignatureException", WRONG_SIGNATURE)
        }
        (_, Refusal::Skewed | Refusal::ExpiredUrl) => (
            0,
            "InvalidSignatureException",
            "Signature expired or not yet current: the time of the request is too far from ours",
        ),
        (_, Refusal::WrongRegion) => (
            0,
            "InvalidSignatureException",
            "Credential should be scoped to a valid region.",
        ),
    };
    let status = match (service, status) {
        (Service::DynamoDb | Service::Ssm, _) => StatusCode::BAD_REQUEST,
        (Service::S3, 400) => StatusCode::BAD_REQUEST,
        (Service::S3 | Service::Bedrock | Service::Sts, _) => StatusCode::FORBIDDEN,
    };
    error(service, status, code, message)
}

#[cfg(test)]
mod tests;
