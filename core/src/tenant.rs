//! Who asks: tenants, users, roles, and the contexts that handlers are given instead of bare ids.
//!
//! A tenant id has one source: the claim of a verified token, which the authorizer puts in its context and the gateway
//! maps onto the runtime's tenant id. [`TenantContext`] compares the two and has no other constructor. Not here: tokens.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::time::{Clock, Timestamp};

/// Names that begin so are the product's own; no token and no operator can name one.
const RESERVED_PREFIX: &str = "bulkhead";
/// The owner of documents that all tenants may share. Operators act as it on document operations.
const SHARED: &str = "bulkhead-shared";

/// A tenant's id: 2 to 40 characters, `[a-z0-9]+(-[a-z0-9]+)*`.
///
/// Narrower than Lambda's own grammar for tenant ids, so that one text is valid as a header, an S3 key segment, a table
/// key, a metadata value and a log field: no blank that a proxy trims, no `/`, `#`, `:` or `.` that a key could confuse,
/// no case that a store could fold. It is never changed to fit: it parses or it does not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct TenantId(String);

impl TenantId {
    /// Reads a tenant id that a customer may have.
    ///
    /// # Errors
    /// The text does not follow the grammar or begins with a reserved name.
    pub fn parse(text: &str) -> Result<Self, InvalidTenantId> {
        if text.starts_with(RESERVED_PREFIX) {
            return Err(InvalidTenantId);
        }
        Self::parse_any(text)
    }

    /// The owner of the documents that all tenants may share.
    pub fn shared() -> Self {
        Self(SHARED.to_owned())
    }

    /// Whether this is the owner of the shared documents.
    pub fn is_shared(&self) -> bool {
        self.0 == SHARED
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parse_any(text: &str) -> Result<Self, InvalidTenantId> {
        let fits = (2..=40).contains(&text.len())
            && text.split('-').all(|part| {
                !part.is_empty()
                    && part
                        .bytes()
                        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
            });
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidTenantId)
        }
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TenantId {
    /// Items that we wrote may name the shared owner as well.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == SHARED {
            Ok(Self::shared())
        } else {
            Self::parse(&text).map_err(serde::de::Error::custom)
        }
    }
}

/// The text is not a tenant id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a tenant id: 2 to 40 of a-z and 0-9 in groups joined by single hyphens, not beginning with `bulkhead`")]
pub struct InvalidTenantId;

/// A user within the world of issuers: 22 characters of base64url(SHA-256(issuer, 0, subject)), its first 128 bits.
///
/// Opaque on purpose: subjects are sometimes e-mail addresses, and the same subject of two issuers is two people.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct UserId(String);

impl UserId {
    /// The id of `subject` at `issuer`, both as the verified token spells them.
    pub fn derive(issuer: &str, subject: &str) -> Self {
        let digest = Sha256::new()
            .chain_update(issuer)
            .chain_update([0])
            .chain_update(subject)
            .finalize();
        Self(data_encoding::BASE64URL_NOPAD.encode(digest.get(..16).unwrap_or_default()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parse(text: &str) -> Option<Self> {
        let fits = text.len() == 22 && data_encoding::BASE64URL_NOPAD.decode(text.as_bytes()).is_ok();
        fits.then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Asks questions and reads the documents that answers cite. Every member of an active tenant has it.
    Reader,
    /// Manages the tenant's documents.
    Admin,
    /// Works for the vendor: manages tenants and the shared documents, and asks no tenant's questions.
    Operator,
}

impl Role {
    /// The role of that name, as tokens and the authorizer's context spell it.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "reader" => Some(Self::Reader),
            "admin" => Some(Self::Admin),
            "operator" => Some(Self::Operator),
            _ => None,
        }
    }

    /// The role's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Admin => "admin",
            Self::Operator => "operator",
        }
    }
}

/// A group of a tenant's users, which a document's audience may name: 1 to 32 characters, `[a-z0-9]+(-[a-z0-9]+)*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Group(String);

impl Group {
    /// Reads a group's name; `None` if it does not follow the grammar.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=32).contains(&text.len())
            && text.split('-').all(|part| {
                !part.is_empty()
                    && part
                        .bytes()
                        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
            });
        fits.then(|| Self(text.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Group {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).ok_or_else(|| serde::de::Error::custom("not a group's name"))
    }
}

/// The authorizer's context as the gateway handed it on, together with the runtime's tenant id: claims about who asks
/// which nothing has compared yet. [`TenantContext::new`] and [`OperatorContext::new`] do.
#[derive(Clone, Debug, Default)]
pub struct UnverifiedCaller {
    /// `tenantId` of the authorizer's context.
    pub tenant: Option<String>,
    /// `userId` of the authorizer's context.
    pub user: Option<String>,
    /// `roles` of the authorizer's context, joined by commas.
    pub roles: Option<String>,
    /// `groups` of the authorizer's context, joined by commas.
    pub groups: Option<String>,
    /// `tokenExpiry` of the authorizer's context, in seconds since the Unix epoch.
    pub token_expiry: Option<String>,
    /// The tenant whose environment this is, as the Lambda runtime says.
    pub runtime_tenant: Option<String>,
}

impl UnverifiedCaller {
    fn identity(&self, clock: &Clock) -> Result<(TenantId, Identity), Error> {
        let claimed = self
            .tenant
            .as_deref()
            .ok_or(Error::isolation("authorizer context without a tenant"))?;
        let tenant = if claimed == SHARED {
            Ok(TenantId::shared())
        } else {
            TenantId::parse(claimed)
        }
        .map_err(|_| Error::isolation("authorizer context with a malformed tenant"))?;
        let user = self
            .user
            .as_deref()
            .and_then(UserId::parse)
            .ok_or(Error::isolation("authorizer context without a user"))?;
        let token_expiry = self
            .token_expiry
            .as_deref()
            .and_then(|text| text.parse().ok())
            .map(Timestamp::from_unix)
            .ok_or(Error::isolation("authorizer context without the token's expiry"))?;
        // The gateway's result cache outlives a token that expires in the meantime.
        if token_expiry <= clock.now() {
            return Err(Error::Unauthorized);
        }
        let list = |text: &Option<String>| -> Vec<String> {
            text.iter()
                .flat_map(|text| text.split(','))
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect()
        };
        let roles: BTreeSet<Role> = list(&self.roles).iter().filter_map(|name| Role::parse(name)).collect();
        let groups = list(&self.groups)
            .iter()
            .filter_map(|name| Group::parse(name))
            .collect();
        Ok((
            tenant,
            Identity {
                user,
                roles,
                groups,
                token_expiry,
            },
        ))
    }
}

#[derive(Clone, Debug)]
struct Identity {
    user: UserId,
    roles: BTreeSet<Role>,
    groups: BTreeSet<Group>,
    token_expiry: Timestamp,
}

/// Proof that this invocation may act for one tenant: the verified claim and the environment's tenant are the same.
#[derive(Clone, Debug)]
pub struct TenantContext {
    tenant: TenantId,
    identity: Identity,
}

impl TenantContext {
    /// Compares what the authorizer said with the environment that the call reached.
    ///
    /// # Errors
    /// [`Error::Isolation`] if either tenant is missing, malformed or they differ, so that a lost header mapping fails
    /// closed; [`Error::Unauthorized`] if the token expired while the gateway had its result cached; [`Error::Forbidden`]
    /// if the roles do not fit the tenant: operators act as the shared owner only, and nobody else does.
    pub fn new(caller: &UnverifiedCaller, clock: &Clock) -> Result<Self, Error> {
        let (tenant, identity) = caller.identity(clock)?;
        if caller.runtime_tenant.as_deref() != Some(tenant.as_str()) {
            return Err(Error::isolation("the environment's tenant is not the authorizer's"));
        }
        if tenant.is_shared() != identity.roles.contains(&Role::Operator) {
            return Err(Error::Forbidden);
        }
        Ok(Self { tenant, identity })
    }

    /// The tenant.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// The user.
    pub fn user(&self) -> &UserId {
        &self.identity.user
    }

    /// The groups that the token names. Which of them count is the tenant's profile's business.
    pub fn groups(&self) -> &BTreeSet<Group> {
        &self.identity.groups
    }

    /// When the caller's token expires.
    pub fn token_expiry(&self) -> Timestamp {
        self.identity.token_expiry
    }

    /// Refuses a caller without `role`. An operator has every right over the shared documents but asks no questions.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub fn require(&self, role: Role) -> Result<(), Error> {
        let roles = &self.identity.roles;
        let may = match role {
            Role::Reader => roles.contains(&Role::Reader) || roles.contains(&Role::Operator),
            Role::Admin => roles.contains(&Role::Admin) || roles.contains(&Role::Operator),
            Role::Operator => false,
        };
        if may { Ok(()) } else { Err(Error::Forbidden) }
    }
}

/// Proof that the caller works for the vendor. It opens what lies across tenants, and no tenant's own data.
#[derive(Clone, Debug)]
pub struct OperatorContext {
    identity: Identity,
}

impl OperatorContext {
    /// Checks what the authorizer said.
    ///
    /// # Errors
    /// [`Error::Isolation`] if the context is incomplete or the environment belongs to a tenant;
    /// [`Error::Unauthorized`] if the token expired; [`Error::Forbidden`] if the caller is not an operator.
    pub fn new(caller: &UnverifiedCaller, clock: &Clock) -> Result<Self, Error> {
        let (tenant, identity) = caller.identity(clock)?;
        if caller.runtime_tenant.is_some() {
            return Err(Error::isolation("an operator's call reached a tenant's environment"));
        }
        if !tenant.is_shared() || !identity.roles.contains(&Role::Operator) {
            return Err(Error::Forbidden);
        }
        Ok(Self { identity })
    }

    /// The operator.
    pub fn user(&self) -> &UserId {
        &self.identity.user
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A caller whom everything says the same of.
    fn caller(tenant: &str, roles: &str) -> UnverifiedCaller {
        UnverifiedCaller {
            tenant: Some(tenant.to_owned()),
            user: Some(
                UserId::derive("https://issuer.example.com", "alice")
                    .as_str()
                    .to_owned(),
            ),
            roles: Some(roles.to_owned()),
            groups: Some(String::new()),
            token_expiry: Some("4102444800".to_owned()),
            runtime_tenant: Some(tenant.to_owned()),
        }
    }

    #[test]
    fn tenant_ids_follow_the_grammar() {
        for good in ["ab", "acme", "acme-2", "0-0", &"a".repeat(40)] {
            assert!(TenantId::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "a",
            "-a",
            "a-",
            "a--b",
            "A1",
            "acme ",
            " acme",
            "a.b",
            "a/b",
            "a#b",
            "ac\u{301}me",
            "ａｃｍｅ",
            "a_b",
            "a\nb",
            "bulkhead",
            "bulkhead-shared",
            "bulkheads",
            &"a".repeat(41),
        ] {
            assert!(TenantId::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_parses_is_safe_wherever_ids_go(text in "\\PC{0,48}") {
            if let Ok(tenant) = TenantId::parse(&text) {
                prop_assert_eq!(tenant.as_str(), &text);
                prop_assert!(text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'));
                prop_assert!(!text.contains("--") && text.len() <= 40);
            }
        }
    }

    #[test]
    fn a_user_is_an_issuer_and_a_subject() {
        let one = UserId::derive("https://a.example.com", "x");
        assert_eq!(one.as_str().len(), 22);
        assert_ne!(one, UserId::derive("https://a.example.co", "mx"));
        assert_ne!(one, UserId::derive("https://b.example.com", "x"));
    }

    #[test]
    fn a_context_needs_both_tenants_to_agree() {
        let good = caller("acme", "reader");
        let context = TenantContext::new(&good, &Clock::system()).unwrap();
        assert_eq!(context.tenant().as_str(), "acme");
        let isolation = |change: &dyn Fn(&mut UnverifiedCaller)| {
            let mut caller = good.clone();
            change(&mut caller);
            assert!(
                matches!(
                    TenantContext::new(&caller, &Clock::system()),
                    Err(Error::Isolation { .. })
                ),
                "{caller:?}"
            );
        };
        isolation(&|caller| caller.runtime_tenant = None);
        isolation(&|caller| caller.runtime_tenant = Some("acme-2".to_owned()));
        isolation(&|caller| caller.runtime_tenant = Some("Acme".to_owned()));
        isolation(&|caller| caller.tenant = None);
        isolation(&|caller| caller.tenant = Some("acme ".to_owned()));
        isolation(&|caller| caller.user = None);
        isolation(&|caller| caller.user = Some("alice@example.com".to_owned()));
        isolation(&|caller| caller.token_expiry = None);
        isolation(&|caller| caller.token_expiry = Some("soon".to_owned()));
    }

    #[test]
    fn an_expired_token_is_refused_although_the_gateway_cached_its_result() {
        let mut caller = caller("acme", "reader");
        caller.token_expiry = Some("1000".to_owned());
        assert!(matches!(
            TenantContext::new(&caller, &Clock::system()),
            Err(Error::Unauthorized)
        ));
    }

    #[test]
    fn roles_open_what_they_name() {
        let of = |tenant, roles| TenantContext::new(&caller(tenant, roles), &Clock::system());
        let reader = of("acme", "reader").unwrap();
        assert!(reader.require(Role::Reader).is_ok());
        assert!(reader.require(Role::Admin).is_err());
        assert!(of("acme", "admin,reader").unwrap().require(Role::Admin).is_ok());
        assert!(of("acme", "").unwrap().require(Role::Reader).is_err());
        assert!(matches!(of("acme", "operator"), Err(Error::Forbidden)));
        assert!(matches!(of(SHARED, "admin,reader"), Err(Error::Forbidden)));
        assert!(of(SHARED, "operator").unwrap().require(Role::Admin).is_ok());
    }

    #[test]
    fn operators_come_without_a_tenant_environment() {
        let mut operator = caller(SHARED, "operator");
        assert!(OperatorContext::new(&operator, &Clock::system()).is_err());
        operator.runtime_tenant = None;
        assert!(OperatorContext::new(&operator, &Clock::system()).is_ok());
        operator.roles = Some("admin,reader".to_owned());
        assert!(OperatorContext::new(&operator, &Clock::system()).is_err());
        let mut tenant = caller("acme", "operator");
        tenant.runtime_tenant = None;
        assert!(OperatorContext::new(&tenant, &Clock::system()).is_err());
    }
}
