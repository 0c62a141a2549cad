//! API Gateway: a REST API executed from its contract, the OpenAPI document with `x-amazon-apigateway-*` extensions that a
//! deployment imports too.
//!
//! Emulated: routing in one stage, per-operation security with REQUEST authorizers and their result cache, the policies
//! they answer, request validators, Lambda proxy and MOCK integrations, whole and streamed answers, the mapping of
//! `X-Amz-Tenant-Id`, binary media types, gateway responses, limits of size and time. What the real one ignores is ignored,
//! what it refuses is refused, and what is not known here stops the start with its name. Not here: usage plans, API keys,
//! IAM and resource policies, VTL beyond substitution, HTTP integrations, caches of answers, compression, throttling.
//!
//! It knows no function: [`Invoke`] is the seam to whatever runs them.
//!
//! What AWS does not document, and how it is taken here: path parameters are percent-decoded once, `path` and the method
//! ARN keep the spelling of the request with its escapes and trailing slash; an identity source's header matches in any
//! case; nulls in an authorizer's answer make it unusable; a malformed proxy response is a `DEFAULT_5XX` with status 502,
//! a throttled function an `INTEGRATION_FAILURE` with 500, a missing or unwanted tenant an `API_CONFIGURATION_ERROR`. A `*`
//! in an Allow reaches to the end of the ARN, which AWS does document. A function that fails before the end of its prelude is
//! answered as on a buffered route; an integration's time-out counts to the end of a stream, which is then cut.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

mod access_log;
mod authorizer;
mod cache;
mod contract;
mod event;
mod expression;
mod integration;
mod invoke;
mod policy;
mod refusal;
mod request;
mod response;
mod route;
mod serve;
mod stream;
mod validation;

#[cfg(test)]
mod tests;

pub use access_log::{AccessLogEntry, AuthorizerLog, StreamEnd, StreamLog};
pub use cache::{AuthorizerCache, CachedResult};
pub use invoke::{FunctionFailed, Invoke, InvokeError, Outcome, PayloadStream};

use access_log::AccessLog;
use contract::Contract;
use event::Deployment;
use route::Router;
use serve::Service;

/// How a gateway is set up.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Where to listen; port 0 takes any free one.
    pub listen: SocketAddr,
    /// The stage, the first segment of every path.
    pub stage: String,
    /// The account in ARNs and request contexts, 12 digits.
    pub account: String,
    /// The region in ARNs.
    pub region: String,
    /// The API's id in ARNs and request contexts.
    pub api_id: String,
    /// The OpenAPI document, with all intrinsic functions resolved.
    pub contract: Value,
    /// Variables of the stage.
    pub stage_variables: BTreeMap<String, String>,
    /// How many authorizer results are kept at most.
    pub authorizer_cache_capacity: usize,
    /// How many requests the access log remembers.
    pub access_log_capacity: usize,
    /// How long nothing may come of a streamed answer before it is cut.
    pub stream_idle: Duration,
}

/// What API Gateway has for regional and private APIs; an edge-optimised one has 30 s.
/// Source: <https://docs.aws.amazon.com/apigateway/latest/developerguide/response-transfer-mode.html>.
const STREAM_IDLE: Duration = Duration::from_secs(300);

impl GatewayConfig {
    /// A gateway on any free loopback port, for the stage `local` of a made-up account.
    pub fn new(contract: Value) -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            stage: "local".to_owned(),
            account: "123456789012".to_owned(),
            region: "us-east-1".to_owned(),
            api_id: "bulkhead01".to_owned(),
            contract,
            stage_variables: BTreeMap::new(),
            authorizer_cache_capacity: 10_000,
            access_log_capacity: 10_000,
            stream_idle: STREAM_IDLE,
        }
    }
}

/// A running gateway. It stops accepting when it is dropped; [`Gateway::shutdown`] also waits for what is under way.
pub struct Gateway {
    address: SocketAddr,
    service: Arc<Service>,
    stop: watch::Sender<bool>,
    server: Mutex<Option<JoinHandle<()>>>,
}

impl Gateway {
    /// Reads the contract and starts to serve it.
    ///
    /// # Errors
    /// Where the contract is malformed, would not be imported by API Gateway or has something that is not emulated (the
    /// message names it), where the stage's name is not valid, and where the address can't be listened on.
    pub async fn start(config: GatewayConfig, invoke: Arc<dyn Invoke>) -> Result<Self> {
        let GatewayConfig {
            listen,
            stage,
            account,
            region,
            api_id,
            contract,
            stage_variables,
            ..
        } = config;
        let named = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if stage.is_empty() || stage.len() > 128 || !stage.chars().all(named) {
            bail!("the stage {stage:?} has a name other than 1 to 128 letters, digits, hyphens and underscores");
        }
        let contract = Contract::parse(&contract).context("the contract can't be executed")?;
        let router = Router::new(contract.resources).context("the contract can't be executed")?;
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("listening on {listen}"))?;
        let address = listener.local_addr().context("the gateway's own address")?;
        let port = address.port();
        let service = Arc::new(Service {
            deployment: Deployment {
                account,
                region,
                api_id,
                stage,
                stage_variables,
                port,
            },
            router,
            replies: contract.replies,
            binary: contract.binary,
            cache: AuthorizerCache::new(config.authorizer_cache_capacity),
            log: AccessLog::new(config.access_log_capacity),
            invoke,
            stream_idle: config.stream_idle,
        });
        let (stop, stopped) = watch::channel(false);
        let server = tokio::spawn(serve::run(listener, Arc::clone(&service), stopped));
        Ok(Self {
            address,
            service,
            stop,
            server: Mutex::new(Some(server)),
        })
    }

    /// Where the gateway listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL that paths of the contract are appended to: scheme, address and stage, without a slash at the end.
    pub fn base_url(&self) -> String {
        format!("http://{}/{}", self.address, self.service.deployment.stage)
    }

    /// The result cache of the authorizers.
    pub fn authorizer_cache(&self) -> &AuthorizerCache {
        &self.service.cache
    }

    /// The latest requests, oldest first. A request is there before its client has the answer; a streamed one before its
    /// client has the end.
    pub fn requests(&self) -> Vec<AccessLogEntry> {
        self.service.log.entries()
    }

    /// Stops accepting, lets open requests come to their end for a few seconds, and closes what is left.
    pub async fn shutdown(&self) {
        self.stop.send_replace(true);
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(server) = server
            && let Err(error) = server.await
        {
            tracing::warn!(%error, "the gateway's server ended badly");
        }
    }
}
