//! The gateway's HTTP server and the way of a request through it: head, body, route, authorizer, validator, integration,
//! answer, access log.
//!
//! A request is worked on in a task of its own: a client that leaves does not take the function's invocation with it,
//! just as on AWS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Map, Value};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::access_log::{AccessLog, AccessLogEntry, AuthorizerLog};
use super::authorizer::Gate;
use super::cache::AuthorizerCache;
use super::contract::{BinaryTypes, Integration};
use super::event::{Deployment, authorizer_context};
use super::expression::Scope;
use super::integration::{Call, Content};
use super::invoke::Invoke;
use super::refusal::{Refusal, Replies};
use super::request::Request;
use super::route::{Route, Router};
use super::stream::{Cut, Record};

/// Bytes of a request's body.
const BODY_LIMIT: usize = 10_485_760;

/// How much of a body that is too long is read all the same, so that its sender hears the answer.
const DRAIN_LIMIT: usize = 4 * BODY_LIMIT;

/// How long the head of a request, and then its body, may take.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// How long open connections may go on after a shutdown began.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Characters of a method's ARN.
const METHOD_ARN_LIMIT: usize = 1_600;

/// Header fields of a request that are read at all, and the bytes of its whole head: above the limits of the service, so
/// that those can be answered properly.
const MAX_HEADERS: usize = 1_024;
const MAX_HEAD: usize = 131_072;

/// Everything that requests are answered from.
pub(super) struct Service {
    pub(super) deployment: Deployment,
    pub(super) router: Router,
    pub(super) replies: Replies,
    pub(super) binary: BinaryTypes,
    pub(super) cache: AuthorizerCache,
    pub(super) log: AccessLog,
    pub(super) invoke: Arc<dyn Invoke>,
    /// How long nothing may come of a stream.
    pub(super) stream_idle: Duration,
}

/// A response's body: whole, or a stream that ends or is cut.
type Answer = UnsyncBoxBody<Bytes, Cut>;

/// What is known of a request so far, for templates and the access log.
#[derive(Default)]
struct Trail {
    context: Map<String, Value>,
    route: Option<Route>,
    authorizer: Option<AuthorizerLog>,
    tenant: Option<String>,
    integration_latency: Option<Duration>,
}

impl Service {
    async fn answer(self: Arc<Self>, request: http::Request<Incoming>, peer: SocketAddr) -> Response<Answer> {
        let started = Instant::now();
        let (parts, body) = request.into_parts();
        let (mut request, checked) = Request::parse(&parts, peer.ip(), &self.deployment.stage);
        let mut trail = Trail {
            context: self.deployment.context(&request, None),
            ..Trail::default()
        };
        // The body is read whatever else is wrong, because a client that is still sending would not hear the answer.
        let read = read(body).await;
        let outcome = match (checked, read) {
            (Err(refusal), _) | (Ok(()), Err(refusal)) => Err(refusal),
            (Ok(()), Ok(body)) => {
                request.body = body;
                self.process(&request, &mut trail).await
            }
        };
        let mut response_type = None;
        let mut response = outcome.unwrap_or_else(|refusal| {
            response_type = refusal.kind.map(super::refusal::Kind::name);
            let parameters = trail
                .route
                .as_ref()
                .map(|route| route.parameters.clone())
                .unwrap_or_default();
            let scope = Scope {
                context: &trail.context,
                stage_variables: &self.deployment.stage_variables,
                request: &request,
                path_parameters: &parameters,
            };
            self.replies.render(&refusal, scope).map(Content::Whole)
        });
        for (name, value) in [
            ("x-amzn-requestid", &request.id),
            ("x-amz-apigw-id", &request.extended_id),
        ] {
            if let Ok(value) = HeaderValue::from_str(value) {
                response.headers_mut().insert(name, value);
            }
        }
        if matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            *response.body_mut() = Content::Whole(Bytes::new());
        }
        let entry = AccessLogEntry {
            request_id: request.id,
            received: request.received,
            method: request.method,
            path: request.full_path,
            resource: trail.route.as_ref().map(|route| route.resource.clone()),
            operation: trail.route.as_ref().and_then(|route| route.operation.id.clone()),
            status: response.status().as_u16(),
            response_type,
            authorizer: trail.authorizer,
            tenant: trail.tenant,
            integration_latency: trail.integration_latency,
            latency: started.elapsed(),
            stream: None,
        };
        response.map(|content| match content {
            Content::Whole(bytes) => {
                self.log.push(entry);
                Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
            }
            Content::Streamed(streamed) => {
                let pieces = streamed.into_body(Record::new(Arc::clone(&self), started, entry));
                StreamBody::new(pieces.map(|piece| piece.map(Frame::data))).boxed_unsync()
            }
        })
    }

    async fn process(&self, request: &Request, trail: &mut Trail) -> Result<Response<Content>, Refusal> {
        let route = self.router.find(&request.method, &request.path)?;
        trail.route = Some(route.clone());
        trail.context = self.deployment.context(request, Some(&route));
        if self.deployment.method_arn(request).len() > METHOD_ARN_LIMIT {
            return Err(Refusal::uri_too_long());
        }
        let operation = Arc::clone(&route.operation);
        if let Some(authorizer) = &operation.authorizer {
            let gate = Gate {
                deployment: &self.deployment,
                cache: &self.cache,
                invoke: &self.invoke,
            };
            let verdict = gate.ask(authorizer, request, &route, &trail.context).await;
            trail.authorizer = Some(AuthorizerLog {
                name: authorizer.name.clone(),
                cache_hit: verdict.cache_hit,
                latency: verdict.latency,
                principal: verdict.grant.as_ref().map(|grant| grant.principal.clone()),
            });
            if let Some(grant) = &verdict.grant {
                trail
                    .context
                    .insert("authorizer".to_owned(), authorizer_context(grant, verdict.latency));
            }
            verdict.decision?;
        }
        operation.validation.check(request, &route)?;
        let started = Instant::now();
        let (deployment, binary) = (&self.deployment, &self.binary);
        let call = Call {
            deployment,
            binary,
            request,
            route: &route,
            context: &trail.context,
            stream_idle: self.stream_idle,
        };
        let outcome = match &operation.integration {
            Integration::Lambda(integration) => {
                trail.tenant = call.tenant(integration);
                call.lambda(&self.invoke, integration, trail.tenant.as_deref()).await
            }
            Integration::Mock(integration) => call.mock(integration).map(|response| response.map(Content::Whole)),
        };
        trail.integration_latency = Some(started.elapsed());
        outcome
    }
}

/// Reads a body whole, up to the limit.
async fn read(body: Incoming) -> Result<Bytes, Refusal> {
    let drained = tokio::time::timeout(READ_TIMEOUT, drain(body)).await;
    drained.unwrap_or_else(|_elapsed| Err(Refusal::request_timeout()))
}

async fn drain(mut body: Incoming) -> Result<Bytes, Refusal> {
    if body.size_hint().lower() > u64::try_from(DRAIN_LIMIT).unwrap_or(u64::MAX) {
        return Err(Refusal::body_too_large());
    }
    let mut whole = BytesMut::new();
    let mut length = 0_usize;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Refusal::bad_request())?.into_data() else {
            continue;
        };
        length = length.saturating_add(data.len());
        if length > DRAIN_LIMIT {
            break;
        }
        if length <= BODY_LIMIT {
            whole.extend_from_slice(&data);
        }
    }
    if length > BODY_LIMIT {
        Err(Refusal::body_too_large())
    } else {
        Ok(whole.freeze())
    }
}

/// Accepts connections until `stop` changes or its sender is gone.
pub(super) async fn run(listener: TcpListener, service: Arc<Service>, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = stop.changed() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(connection(stream, peer, Arc::clone(&service), stop.clone()));
                }
                Err(error) => {
                    // Mostly out of file descriptors: waiting a little lets some be closed.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_ended) = connections.join_next() => {}
        }
    }
    drop(listener);
    let ended = tokio::time::timeout(SHUTDOWN_TIMEOUT, async {
        while connections.join_next().await.is_some() {}
    })
    .await;
    if ended.is_err() {
        connections.shutdown().await;
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, service: Arc<Service>, mut stop: watch::Receiver<bool>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    let handler = service_fn(move |request| tokio::spawn(Arc::clone(&service).answer(request, peer)));
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(READ_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), handler));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = stop.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
