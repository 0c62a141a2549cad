//! The issuers whose tokens are taken, and what each of them may say: configuration, read once from `BULKHEAD_ISSUERS` and
//! `BULKHEAD_USER_POOL_ISSUER`.
//!
//! Whatever a token says of its issuer, nothing is looked up or fetched but what stands here. Not here: keys.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use bulkhead_core::config::{ConfigError, Environment};
use bulkhead_core::tenant::TenantId;
use serde::Deserialize;
use serde_json::Value;
use url::{Host, Url};

/// The variable that holds the issuers, a JSON array.
pub const VARIABLE: &str = "BULKHEAD_ISSUERS";

/// The variable that holds the issuer of the user pool that the stack made, a JSON array too; not set where it made none.
/// By itself, because a template can't add to an array that is text.
const USER_POOL_VARIABLE: &str = "BULKHEAD_USER_POOL_ISSUER";

/// What a Lambda function's variables may hold together, in bytes (AWS Lambda quotas).
const MAX_BYTES: usize = 4096;

/// The claim that names the tenant unless the issuer's entry says otherwise: Cognito's spelling of a custom attribute.
const DEFAULT_TENANT_CLAIM: &str = "custom:tenant_id";

/// A signature algorithm that a token may use (RFC 7518, section 3). There are no others: each further one is one more
/// way for a token and a key to disagree about what was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
}

impl Algorithm {
    /// The algorithm of that name, compared exactly as RFC 7515 demands.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "RS256" => Some(Self::Rs256),
            "ES256" => Some(Self::Es256),
            _ => None,
        }
    }
}

/// Where an issuer's keys are found. Two issuers with one address share what was fetched from it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeySource {
    /// A key set (RFC 7517) at a fixed address.
    Jwks(Url),
    /// An issuer whose discovery document (OpenID Connect Discovery 1.0) names the key set.
    Discovery(String),
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Jwks(url) => url.fmt(f),
            Self::Discovery(issuer) => issuer.fmt(f),
        }
    }
}

/// Which kind of token an Amazon Cognito user pool must have made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenUse {
    /// An ID token, whose audience is the app client.
    Id,
    /// An access token, which has no audience but names the app client in `client_id`.
    Access,
}

impl TokenUse {
    /// The value of the claim `token_use`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Access => "access",
        }
    }
}

/// The tenants that an issuer may speak for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tenants {
    /// All of them.
    Any,
    /// These.
    Listed(BTreeSet<TenantId>),
}

impl Tenants {
    /// Whether `tenant` is one of them.
    pub fn contains(&self, tenant: &TenantId) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(tenants) => tenants.contains(tenant),
        }
    }
}

/// One issuer.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// The exact value of the claim `iss`.
    pub name: String,
    /// Where its keys are.
    pub keys: KeySource,
    /// The audiences that are ours. Empty only for Cognito's access tokens.
    pub audiences: BTreeSet<String>,
    /// The algorithms it signs with.
    pub algorithms: BTreeSet<Algorithm>,
    /// The claim that names the tenant. No other claim of a similar name counts.
    pub tenant_claim: String,
    /// The claim that lists roles; without one, everybody is a reader.
    pub roles_claim: Option<String>,
    /// The claim that lists groups; without one, nobody is in any.
    pub groups_claim: Option<String>,
    /// The kind of token, where the issuer is Cognito.
    pub token_use: Option<TokenUse>,
    /// The app clients whose access tokens are taken, where the issuer is Cognito.
    pub client_ids: BTreeSet<String>,
    /// The tenants it may speak for.
    pub tenants: Tenants,
    /// Whether it may name operators.
    pub operators: bool,
}

/// All issuers, by their exact names.
#[derive(Clone, Debug)]
pub struct Issuers(BTreeMap<String, Issuer>);

impl Issuers {
    /// Reads the issuers from [`VARIABLE`].
    ///
    /// # Errors
    /// The variable is missing, longer than Lambda's environment, or an entry is wrong; the error says what was wanted.
    pub fn from_env(environment: &Environment) -> Result<Self, ConfigError> {
        let mut issuers = Self(BTreeMap::new());
        let user_pool = environment.optional(USER_POOL_VARIABLE);
        for (variable, text) in [
            (VARIABLE, Some(environment.required(VARIABLE)?)),
            (USER_POOL_VARIABLE, user_pool),
        ] {
            if let Some(text) = text {
                issuers.add(text).map_err(|wanted| ConfigError::new(variable, wanted))?;
            }
        }
        if issuers.0.is_empty() {
            return Err(ConfigError::new(VARIABLE, "at least one issuer"));
        }
        Ok(issuers)
    }

    fn add(&mut self, text: &str) -> Result<(), String> {
        if text.len() > MAX_BYTES {
            return Err(format!(
                "at most {MAX_BYTES} bytes, which is all that Lambda's environment holds"
            ));
        }
        let entries: Vec<Entry> = serde_json::from_str(text).map_err(|error| format!("a JSON array: {error}"))?;
        for (index, entry) in entries.into_iter().enumerate() {
            let issuer = entry.check().map_err(|wanted| format!("entry {index}: {wanted}"))?;
            if let Some(twice) = self.0.insert(issuer.name.clone(), issuer) {
                return Err(format!("entry {index}: each issuer once; {} stands twice", twice.name));
            }
        }
        Ok(())
    }

    /// The issuer of exactly that name.
    pub fn find(&self, name: &str) -> Option<&Issuer> {
        self.0.get(name)
    }

    /// Every address that keys come from, each once.
    pub fn key_sources(&self) -> BTreeSet<KeySource> {
        self.0.values().map(|issuer| issuer.keys.clone()).collect()
    }
}

/// An entry as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    issuer: String,
    jwks_uri: Option<String>,
    #[serde(default)]
    audiences: Vec<String>,
    algorithms: Option<Vec<String>>,
    tenant_claim: Option<String>,
    roles_claim: Option<String>,
    groups_claim: Option<String>,
    token_use: Option<TokenUse>,
    client_ids: Option<Vec<String>>,
    tenants: Value,
    #[serde(default)]
    operators: bool,
}

impl Entry {
    fn check(self) -> Result<Issuer, String> {
        let address = address(&self.issuer)
            .filter(|url| url.query().is_none())
            .ok_or("`issuer` must be an https address, or http on loopback, without query or fragment")?;
        let keys = match &self.jwks_uri {
            None => KeySource::Discovery(self.issuer.clone()),
            Some(text) => KeySource::Jwks(
                address_beside(&address, text)
                    .ok_or("`jwks_uri` must be an https address, or http on loopback where the issuer is")?,
            ),
        };
        let algorithms: BTreeSet<Algorithm> = match &self.algorithms {
            None => BTreeSet::from([Algorithm::Rs256]),
            Some(names) => names
                .iter()
                .map(|name| Algorithm::parse(name))
                .collect::<Option<_>>()
                .filter(|algorithms: &BTreeSet<_>| !algorithms.is_empty())
                .ok_or("`algorithms` must list RS256, ES256 or both")?,
        };
        let audiences = names(self.audiences)
            .ok_or("`audiences` must list exact audiences; a wildcard would take tokens made for others")?;
        let client_ids =
            names(self.client_ids.unwrap_or_default()).ok_or("`client_ids` must list exact app clients")?;
        match self.token_use {
            Some(TokenUse::Access) if client_ids.is_empty() => {
                return Err("`client_ids` must list at least one app client where `token_use` is access".to_owned());
            }
            Some(TokenUse::Id) | None if !client_ids.is_empty() => {
                return Err("`client_ids` goes with `token_use` access only; others have `audiences`".to_owned());
            }
            Some(TokenUse::Id) | None if audiences.is_empty() => {
                return Err("`audiences` must list at least one audience".to_owned());
            }
            Some(_) | None => {}
        }
        let claim = |name: Option<String>, member: &str| match name {
            Some(name) if name.trim().is_empty() => Err(format!("`{member}` must name a claim")),
            name => Ok(name),
        };
        let tenants = tenants(&self.tenants)?;
        if !self.operators && tenants == Tenants::Listed(BTreeSet::new()) {
            return Err("`tenants` may only be empty where `operators` is true".to_owned());
        }
        Ok(Issuer {
            keys,
            audiences,
            algorithms,
            tenant_claim: claim(self.tenant_claim, "tenant_claim")?.unwrap_or_else(|| DEFAULT_TENANT_CLAIM.to_owned()),
            roles_claim: claim(self.roles_claim, "roles_claim")?,
            groups_claim: claim(self.groups_claim, "groups_claim")?,
            token_use: self.token_use,
            client_ids,
            tenants,
            operators: self.operators,
            name: self.issuer,
        })
    }
}

fn tenants(value: &Value) -> Result<Tenants, String> {
    let listed = match value {
        Value::String(text) if text == "*" => return Ok(Tenants::Any),
        Value::Array(elements) => elements
            .iter()
            .map(|element| element.as_str().and_then(|text| TenantId::parse(text).ok()))
            .collect::<Option<BTreeSet<_>>>(),
        _ => None,
    };
    listed
        .map(Tenants::Listed)
        .ok_or_else(|| "`tenants` must be \"*\" or a list of tenant ids".to_owned())
}

fn names(texts: Vec<String>) -> Option<BTreeSet<String>> {
    let exact = |text: &String| !text.trim().is_empty() && !text.contains('*');
    texts.iter().all(exact).then(|| texts.into_iter().collect())
}

/// An address that keys may be fetched from: https, or http on loopback, where nobody can stand in between.
fn address(text: &str) -> Option<Url> {
    // `Url` drops blanks and control characters silently; an issuer is compared byte by byte.
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let url = Url::parse(text).ok()?;
    let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    let safe = url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url));
    (plain && safe && url.host().is_some()).then_some(url)
}

/// An address that `issuer` may name for its keys: as [`address`], but an issuer on the network can't point at loopback.
pub(crate) fn address_beside(issuer: &Url, text: &str) -> Option<Url> {
    address(text).filter(|url| url.scheme() == "https" || is_loopback(issuer))
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => IpAddr::V4(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::V6(ip).is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry() -> Value {
        json!({"issuer": "https://issuer.example.com", "audiences": ["bulkhead"], "tenants": "*"})
    }

    fn with(changes: &[(&str, Value)]) -> String {
        let mut entry = entry();
        for (member, value) in changes {
            entry[member] = value.clone();
        }
        json!([entry]).to_string()
    }

    fn from(text: &str, user_pool: &str) -> Result<Issuers, ConfigError> {
        Issuers::from_env(
            &[(VARIABLE, text), (USER_POOL_VARIABLE, user_pool)]
                .into_iter()
                .collect(),
        )
    }

    #[test]
    fn the_user_pool_stands_beside_the_others_and_for_them() {
        let pool = r#"[{"issuer":"https://pool.example.com/a_1","token_use":"id","audiences":["client"],
            "roles_claim":"cognito:groups","tenants":"*","operators":true}]"#;
        let both = from(&with(&[]), pool).unwrap();
        assert_eq!(both.0.len(), 2);
        let issuer = both.find("https://pool.example.com/a_1").unwrap();
        assert_eq!((issuer.token_use, issuer.operators), (Some(TokenUse::Id), true));
        assert_eq!(issuer.tenant_claim, "custom:tenant_id");
        assert_eq!(from("[]", pool).unwrap().0.len(), 1);
        let refused = |text: &str, pool: &str| from(text, pool).unwrap_err().to_string();
        assert!(refused(pool, pool).contains("BULKHEAD_USER_POOL_ISSUER: entry 0: each issuer once"));
        assert!(refused("[]", "[5]").contains("BULKHEAD_USER_POOL_ISSUER"));
        assert!(refused("[]", "[]").contains("at least one issuer"));
    }

    #[test]
    fn defaults_are_the_narrow_ones() {
        let issuers = from(&with(&[]), "").unwrap();
        let issuer = issuers.find("https://issuer.example.com").unwrap();
        assert_eq!(
            issuer.keys,
            KeySource::Discovery("https://issuer.example.com".to_owned())
        );
        assert_eq!(issuer.algorithms, BTreeSet::from([Algorithm::Rs256]));
        assert_eq!(issuer.tenant_claim, "custom:tenant_id");
        assert_eq!((&issuer.roles_claim, &issuer.groups_claim), (&None, &None));
        assert!(!issuer.operators);
        assert!(issuers.find("https://issuer.example.com/").is_none());
        assert!(issuers.find("https://ISSUER.example.com").is_none());
    }

    #[test]
    fn everything_can_be_said() {
        let text = with(&[
            ("issuer", json!("http://127.0.0.1:8080/issuer")),
            ("jwks_uri", json!("http://127.0.0.1:8080/issuer/jwks?p=1")),
            ("algorithms", json!(["ES256", "RS256"])),
            ("tenant_claim", json!("tenant")),
            ("roles_claim", json!("roles")),
            ("groups_claim", json!("groups")),
            ("token_use", json!("access")),
            ("client_ids", json!(["app"])),
            ("audiences", json!([])),
            ("tenants", json!(["acme", "acme-2"])),
            ("operators", json!(true)),
        ]);
        let issuers = from(&text, "").unwrap();
        let issuer = issuers.find("http://127.0.0.1:8080/issuer").unwrap();
        assert_eq!(issuer.algorithms.len(), 2);
        assert_eq!(issuer.token_use, Some(TokenUse::Access));
        assert!(issuer.tenants.contains(&TenantId::parse("acme-2").unwrap()));
        assert!(!issuer.tenants.contains(&TenantId::parse("acme-3").unwrap()));
        assert_eq!(issuers.key_sources().len(), 1);
    }

    #[test]
    fn a_wrong_entry_stops_the_start_and_says_what_was_wanted() {
        let refused = |text: &str, wanted: &str| {
            let environment: Environment = [(VARIABLE, text)].into_iter().collect();
            let error = Issuers::from_env(&environment).expect_err(text).to_string();
            assert!(error.starts_with("environment variable BULKHEAD_ISSUERS: "), "{error}");
            assert!(error.contains(wanted), "{error} should name {wanted}");
        };
        refused("", "must be set");
        refused("[]", "at least one issuer");
        refused("{}", "array");
        refused("[5]", "expected struct");
        refused(
            &with(&[("jwks_url", json!("https://issuer.example.com/jwks"))]),
            "jwks_url",
        );
        refused(&json!([entry(), entry()]).to_string(), "stands twice");
        refused(
            &json!([{"issuer": "https://issuer.example.com", "audiences": ["a"]}]).to_string(),
            "tenants",
        );
        refused(&format!("[{}{}]", entry(), " ".repeat(MAX_BYTES)), "4096");
        refused(
            r#"[{"issuer":"https://a.example.com","issuer":"https://b.example.com","audiences":["a"],"tenants":"*"}]"#,
            "issuer",
        );
        for issuer in [
            "http://issuer.example.com",
            "http://127.0.0.1.example.com",
            "http://localhost.example.com",
            "http://10.0.0.1",
            "ftp://127.0.0.1",
            "issuer.example.com",
            "https://",
            " https://issuer.example.com",
            "https://issuer.example.com\n",
            "https://user:secret@issuer.example.com",
            "https://issuer.example.com?tenant=acme",
            "https://issuer.example.com#a",
            "",
        ] {
            refused(&with(&[("issuer", json!(issuer))]), "issuer");
        }
        for uri in [
            "http://issuer.example.com/jwks",
            "http://127.0.0.1/jwks",
            "file:///etc/passwd",
            "jwks",
        ] {
            refused(&with(&[("jwks_uri", json!(uri))]), "jwks_uri");
        }
        for audiences in [
            json!([]),
            json!(["*"]),
            json!(["bulkhead*"]),
            json!([""]),
            json!("bulkhead"),
            json!([5]),
        ] {
            refused(&with(&[("audiences", audiences)]), "");
        }
        for algorithms in [
            json!([]),
            json!(["HS256"]),
            json!(["none"]),
            json!(["rs256"]),
            json!(["RS256", "PS256"]),
        ] {
            refused(&with(&[("algorithms", algorithms)]), "algorithms");
        }
        for tenants in [
            json!([]),
            json!("acme"),
            json!(["*"]),
            json!(["Acme"]),
            json!(["bulkhead-shared"]),
            json!(5),
        ] {
            refused(&with(&[("tenants", tenants)]), "tenants");
        }
        refused(&with(&[("token_use", json!("refresh"))]), "refresh");
        refused(&with(&[("token_use", json!("access"))]), "client_ids");
        refused(&with(&[("client_ids", json!(["app"]))]), "client_ids");
        refused(
            &with(&[("token_use", json!("id")), ("client_ids", json!(["app"]))]),
            "client_ids",
        );
        refused(&with(&[("tenant_claim", json!(" "))]), "tenant_claim");
        refused(&with(&[("operators", json!("yes"))]), "boolean");
    }
}
