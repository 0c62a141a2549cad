//! The stack's own identity provider: OpenID discovery, signing keys and tokens, on a loopback listener.
//!
//! Its tokens are what the tokens of a real provider are to the authorizer, which knows it by `BULKHEAD_ISSUERS` only
//! ([`Identity::issuer_entry`]). For tests it can also sign anything at all, change its keys, and misbehave.
//!
//! Not here: users, passwords and the flows of OAuth. Whoever holds the stack's secret mints any token: `POST /token`.

use std::fmt;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use jsonwebtoken::jwk::{Jwk, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use uuid::Uuid;

/// The audience of the stack's tokens, unless a request names another.
pub const AUDIENCE: &str = "bulkhead";

/// How long a token is good for unless its request says otherwise, in seconds.
pub const LIFETIME_SECS: i64 = 3_600;

/// How the provider is started.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The port on 127.0.0.1. 0 is the one of the last start with the same folder, if that is free, or any: the issuer's
    /// name holds the port, and users' ids depend on the issuer's name.
    pub port: u16,
    /// Where the key and the port are kept between starts; none for a new key each time.
    pub folder: Option<PathBuf>,
}

/// Why the provider can't start or sign.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The port is taken.
    #[error("the identity provider can't listen on 127.0.0.1:{port}: {source}")]
    Port {
        /// Which one.
        port: u16,
        /// What the system said.
        source: io::Error,
    },
    /// The file with the key can't be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No key could be made, or signing failed.
    #[error("signing key: {0}")]
    Key(String),
    /// There is no key with this id.
    #[error("there is no key {0}")]
    UnknownKey(String),
}

/// What a token shall say. Everything is optional; the JSON form is the body of `POST /token`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenRequest {
    /// `custom:tenant_id`; none for operators, and for tokens that are to be refused.
    pub tenant: Option<String>,
    /// `sub`; `alice` if there is none.
    pub user: Option<String>,
    /// `roles`.
    pub roles: Vec<String>,
    /// `groups`.
    pub groups: Vec<String>,
    /// `aud`; [`AUDIENCE`] if there is none.
    pub audience: Option<String>,
    /// How long it is good for, in seconds; negative for one that has expired. [`LIFETIME_SECS`] if there is none.
    pub lifetime_secs: Option<i64>,
    /// Claims to put over the others; `null` takes one out.
    pub claims: Map<String, Value>,
    /// Header parameters to put over the others; `null` takes one out.
    pub header: Map<String, Value>,
}

impl TokenRequest {
    /// For a user of a tenant, with these roles.
    #[must_use]
    pub fn member(tenant: &str, roles: &[&str]) -> Self {
        Self {
            tenant: Some(tenant.to_owned()),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            ..Self::default()
        }
    }

    /// For an operator.
    #[must_use]
    pub fn operator() -> Self {
        Self {
            user: Some("operator".to_owned()),
            roles: vec!["operator".to_owned()],
            ..Self::default()
        }
    }
}

/// What signs a token in a test.
#[derive(Debug, Clone, Copy)]
pub enum Signer<'a> {
    /// The newest key.
    Current,
    /// The key with this id, withdrawn or not.
    Key(&'a str),
    /// HMAC-SHA256 with these bytes, for example with a public key.
    Hmac(&'a [u8]),
    /// Nothing: the signature is empty.
    Nobody,
}

/// What becomes of the present key when a new one takes its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Predecessor {
    /// It stays among the published keys.
    Published,
    /// It is not published any more, as after a theft.
    Withdrawn,
}

/// What the provider serves to everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// `/.well-known/openid-configuration`.
    Discovery,
    /// `/.well-known/jwks.json`.
    Keys,
}

/// How an endpoint misbehaves.
#[derive(Debug, Clone)]
pub enum Fault {
    /// It answers with this status.
    Status(u16),
    /// It never answers.
    Hang,
    /// It answers after this time.
    Delay(Duration),
    /// It answers 200 with this instead.
    Body(String),
    /// It redirects there.
    Redirect(String),
    /// It answers 200 with JSON that has this many bytes of white space before its end.
    Huge(usize),
}

/// A running provider; dropping it closes its listener.
pub struct Identity {
    inner: Arc<Inner>,
    address: SocketAddr,
    secret: String,
    /// Dropped with the provider, which ends the server.
    _stop: oneshot::Sender<()>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Identity")
            .field("issuer", &self.inner.issuer)
            .finish_non_exhaustive()
    }
}

struct Inner {
    issuer: String,
    secret_hash: [u8; 32],
    folder: Option<PathBuf>,
    keys: Mutex<Keys>,
    /// The port, for the file.
    port: u16,
    discovery: Served,
    jwks: Served,
}

/// What became of one public endpoint.
#[derive(Default)]
struct Served {
    requests: AtomicU64,
    fault: Mutex<Option<Fault>>,
}

#[derive(Clone)]
struct SigningKey {
    id: String,
    pem: String,
    key: EncodingKey,
    jwk: Jwk,
    published: bool,
}

/// The newest key, and those before it.
struct Keys {
    newest: SigningKey,
    earlier: Vec<SigningKey>,
}

impl Keys {
    fn all(&self) -> impl Iterator<Item = &SigningKey> {
        std::iter::once(&self.newest).chain(&self.earlier)
    }
}

/// The file in the data folder.
#[derive(Serialize, Deserialize)]
struct Saved {
    port: u16,
    private_key: String,
}

impl Identity {
    /// Makes or loads the key and starts to listen.
    ///
    /// # Errors
    /// When the port is taken, or the folder can't be used.
    pub async fn start(settings: Settings) -> Result<Self, IdentityError> {
        let saved = settings.folder.as_deref().map(load).transpose()?.flatten();
        let (key, last_port) = match saved {
            Some(saved) => (SigningKey::from_pem(saved.private_key)?, saved.port),
            None => (SigningKey::generate().await?, 0),
        };
        let listener = match (settings.port, last_port) {
            (0, 0) => listen(0).await?,
            (0, last) => match listen(last).await {
                Ok(listener) => listener,
                Err(_) => listen(0).await?,
            },
            (port, _) => listen(port).await?,
        };
        let address = listener.local_addr().map_err(|source| IdentityError::Port {
            port: settings.port,
            source,
        })?;
        let secret = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let inner = Arc::new(Inner {
            issuer: format!("http://{address}"),
            secret_hash: Sha256::digest(&secret).into(),
            folder: settings.folder,
            keys: Mutex::new(Keys {
                newest: key,
                earlier: Vec::new(),
            }),
            port: address.port(),
            discovery: Served::default(),
            jwks: Served::default(),
        });
        inner.save()?;
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/.well-known/jwks.json", get(jwks))
            .route("/token", post(mint))
            .with_state(Arc::clone(&inner));
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(async move {
            let server = axum::serve(listener, router).with_graceful_shutdown(async {
                // An error is the provider's end: the sender is never used.
                let _ = stopped.await;
            });
            if let Err(error) = server.await {
                tracing::error!(%error, "the identity provider has stopped");
            }
        });
        Ok(Self {
            inner,
            address,
            secret,
            _stop: stop,
        })
    }

    /// The issuer's name, which is the URL that discovery starts from.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.inner.issuer
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The bearer secret of `POST /token`, new at each start.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// The entry for `BULKHEAD_ISSUERS` that makes the authorizer trust it, for all tenants and for operators.
    #[must_use]
    pub fn issuer_entry(&self) -> Value {
        json!({
            "issuer": self.issuer(),
            "audiences": [AUDIENCE],
            "algorithms": ["RS256"],
            "roles_claim": "roles",
            "groups_claim": "groups",
            "tenants": "*",
            "operators": true,
        })
    }

    /// A token as the request describes it, signed with the newest key.
    ///
    /// # Errors
    /// When signing fails.
    pub fn token(&self, request: &TokenRequest) -> Result<String, IdentityError> {
        self.inner.token(request)
    }

    /// Signs any header and claims. The header's `alg` may lie.
    ///
    /// # Errors
    /// When the key is unknown, or signing fails.
    pub fn sign(&self, header: &Value, claims: &Value, signer: Signer<'_>) -> Result<String, IdentityError> {
        self.inner.sign(header, claims, signer)
    }

    /// The header that the request's token has.
    #[must_use]
    pub fn header(&self, request: &TokenRequest) -> Value {
        self.inner.header(request)
    }

    /// The claims that the request's token has.
    #[must_use]
    pub fn claims(&self, request: &TokenRequest) -> Value {
        self.inner.claims(request)
    }

    /// The id of the newest key.
    #[must_use]
    pub fn key_id(&self) -> String {
        self.inner.current().id
    }

    /// The newest key's public half, as it stands in the key set.
    #[must_use]
    pub fn public_key(&self) -> Value {
        json!(self.inner.current().jwk)
    }

    /// Signs with a new key from now on, and returns its id.
    ///
    /// # Errors
    /// When no key can be made or saved.
    pub async fn rotate(&self, predecessor: Predecessor) -> Result<String, IdentityError> {
        let key = SigningKey::generate().await?;
        let id = key.id.clone();
        {
            let mut keys = lock(&self.inner.keys);
            let old = std::mem::replace(&mut keys.newest, key);
            keys.earlier.push(old);
            if predecessor == Predecessor::Withdrawn {
                for old in &mut keys.earlier {
                    old.published = false;
                }
            }
        }
        self.inner.save()?;
        Ok(id)
    }

    /// Lets an endpoint misbehave until it is told otherwise.
    pub fn set_fault(&self, endpoint: Endpoint, fault: Option<Fault>) {
        *lock(&self.inner.served(endpoint).fault) = fault;
    }

    /// How many requests an endpoint has had, those with faults included.
    #[must_use]
    pub fn requests(&self, endpoint: Endpoint) -> u64 {
        self.inner.served(endpoint).requests.load(Ordering::Relaxed)
    }
}

impl Inner {
    fn served(&self, endpoint: Endpoint) -> &Served {
        match endpoint {
            Endpoint::Discovery => &self.discovery,
            Endpoint::Keys => &self.jwks,
        }
    }

    fn current(&self) -> SigningKey {
        lock(&self.keys).newest.clone()
    }

    fn header(&self, request: &TokenRequest) -> Value {
        let header = json!({"alg": "RS256", "typ": "JWT", "kid": self.current().id});
        overlaid(header, &request.header)
    }

    fn claims(&self, request: &TokenRequest) -> Value {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let lifetime = request.lifetime_secs.unwrap_or(LIFETIME_SECS);
        // One that has expired was issued before that.
        let issued = match lifetime {
            ..0 => now.saturating_add(lifetime).saturating_sub(LIFETIME_SECS),
            0.. => now,
        };
        let mut claims = json!({
            "iss": self.issuer,
            "sub": request.user.as_deref().unwrap_or("alice"),
            "aud": request.audience.as_deref().unwrap_or(AUDIENCE),
            "iat": issued,
            "nbf": issued,
            "exp": now.saturating_add(lifetime),
            "jti": Uuid::new_v4(),
            "roles": request.roles,
            "groups": request.groups,
        });
        if let (Some(tenant), Some(claims)) = (&request.tenant, claims.as_object_mut()) {
            claims.insert("custom:tenant_id".to_owned(), Value::from(tenant.as_str()));
        }
        overlaid(claims, &request.claims)
    }

    fn token(&self, request: &TokenRequest) -> Result<String, IdentityError> {
        self.sign(&self.header(request), &self.claims(request), Signer::Current)
    }

    fn sign(&self, header: &Value, claims: &Value, signer: Signer<'_>) -> Result<String, IdentityError> {
        let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let message = format!("{}.{}", part(header), part(claims));
        let (key, algorithm) = match signer {
            Signer::Current => (self.current().key, Algorithm::RS256),
            Signer::Key(id) => {
                let keys = lock(&self.keys);
                let key = keys.all().find(|key| key.id == id);
                let key = key.ok_or_else(|| IdentityError::UnknownKey(id.to_owned()))?;
                (key.key.clone(), Algorithm::RS256)
            }
            Signer::Hmac(secret) => (EncodingKey::from_secret(secret), Algorithm::HS256),
            Signer::Nobody => return Ok(format!("{message}.")),
        };
        let signature =
            crypto::sign(message.as_bytes(), &key, algorithm).map_err(|error| IdentityError::Key(error.to_string()))?;
        Ok(format!("{message}.{signature}"))
    }

    /// Keeps the newest key and the port, readable by their owner only.
    fn save(&self) -> Result<(), IdentityError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let path = file(folder);
        let saved = Saved {
            port: self.port,
            private_key: self.current().pem,
        };
        let written = std::fs::create_dir_all(folder).and_then(|()| {
            // Made with its final permissions (a temporary file has 0600) and put in place in one step.
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            serde_json::to_writer(&mut file, &saved)?;
            file.flush()?;
            file.persist(&path).map_err(|error| error.error)?;
            Ok(())
        });
        written.map_err(|source| IdentityError::File { path, source })
    }
}

impl SigningKey {
    /// Takes some tenths of a second, off the runtime's threads.
    async fn generate() -> Result<Self, IdentityError> {
        let generated = tokio::task::spawn_blocking(|| {
            let pair = KeyPair::generate(KeySize::Rsa2048).map_err(|error| IdentityError::Key(error.to_string()))?;
            let der = pair.as_der().map_err(|error| IdentityError::Key(error.to_string()))?;
            let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
            for line in BASE64.encode(der.as_ref()).as_bytes().chunks(64) {
                pem.push_str(&String::from_utf8_lossy(line));
                pem.push('\n');
            }
            pem.push_str("-----END PRIVATE KEY-----\n");
            Self::from_pem(pem)
        });
        generated.await.map_err(|error| IdentityError::Key(error.to_string()))?
    }

    fn from_pem(pem: String) -> Result<Self, IdentityError> {
        let failed = |error: jsonwebtoken::errors::Error| IdentityError::Key(error.to_string());
        let key = EncodingKey::from_rsa_pem(pem.as_bytes()).map_err(failed)?;
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::RS256).map_err(failed)?;
        // RFC 7638: an id that depends on the key and on nothing else.
        let id = jwk.thumbprint(ThumbprintHash::SHA256).map_err(failed)?;
        jwk.common.key_id = Some(id.clone());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        Ok(Self {
            id,
            pem,
            key,
            jwk,
            published: true,
        })
    }
}

fn file(folder: &Path) -> PathBuf {
    folder.join("identity.json")
}

fn load(folder: &Path) -> Result<Option<Saved>, IdentityError> {
    let path = file(folder);
    match std::fs::read(&path) {
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(saved) => Ok(Some(saved)),
            Err(error) => Err(IdentityError::File {
                path,
                source: error.into(),
            }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(IdentityError::File { path, source }),
    }
}

async fn listen(port: u16) -> Result<TcpListener, IdentityError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .map_err(|source| IdentityError::Port { port, source })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `base` with `over` put over it; `null` takes a member out.
fn overlaid(mut base: Value, over: &Map<String, Value>) -> Value {
    if let Some(members) = base.as_object_mut() {
        for (name, value) in over {
            if value.is_null() {
                members.remove(name);
            } else {
                members.insert(name.clone(), value.clone());
            }
        }
    }
    base
}

async fn discovery(State(inner): State<Arc<Inner>>) -> Response {
    let issuer = &inner.issuer;
    let document = json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/.well-known/jwks.json"),
        "token_endpoint": format!("{issuer}/token"),
        "response_types_supported": ["token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
    });
    serve(&inner.discovery, &document).await
}

async fn jwks(State(inner): State<Arc<Inner>>) -> Response {
    let keys: Vec<Jwk> = lock(&inner.keys)
        .all()
        .filter(|key| key.published)
        .map(|key| key.jwk.clone())
        .collect();
    serve(&inner.jwks, &json!({"keys": keys})).await
}

/// Answers with the document, or with the endpoint's fault.
async fn serve(served: &Served, document: &Value) -> Response {
    served.requests.fetch_add(1, Ordering::Relaxed);
    let json = [(header::CONTENT_TYPE, "application/json")];
    let fault = lock(&served.fault).clone();
    match fault {
        None => {}
        Some(Fault::Status(status)) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            return status.into_response();
        }
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Delay(time)) => tokio::time::sleep(time).await,
        Some(Fault::Body(body)) => return (json, body).into_response(),
        Some(Fault::Redirect(location)) => return (StatusCode::FOUND, [(header::LOCATION, location)]).into_response(),
        Some(Fault::Huge(bytes)) => {
            const CHUNK: usize = 64 << 10;
            let padding = Bytes::from(vec![b' '; CHUNK]);
            let chunks = (0..bytes.div_ceil(CHUNK)).map(move |_| padding.clone());
            let end = std::iter::once(Bytes::from(document.to_string()));
            let body = futures::stream::iter(chunks.chain(end).map(Ok::<_, std::convert::Infallible>));
            return (json, Body::from_stream(body)).into_response();
        }
    }
    (json, document.to_string()).into_response()
}

/// `POST /token`: a [`TokenRequest`] as JSON, the secret as bearer.
async fn mint(State(inner): State<Arc<Inner>>, headers: HeaderMap, body: Bytes) -> Response {
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .unwrap_or_default();
    // Hashes are compared: how long that takes says nothing about the secret.
    if <[u8; 32]>::from(Sha256::digest(given)) != inner.secret_hash {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let request: TokenRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    match inner.token(&request) {
        Ok(token) => axum::Json(json!({
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": request.lifetime_secs.unwrap_or(LIFETIME_SECS),
        }))
        .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests;
