//! From verified claims to who calls: which tenant, which user, which roles. What verifies but names no usable tenant is
//! refused by name here, and a tenant is never guessed: its claim is taken as it stands or not at all.

use std::collections::BTreeSet;

use bulkhead_core::error::Code;
use bulkhead_core::tenant::{Group, Role, TenantId, UserId};
use bulkhead_core::time::Timestamp;
use serde_json::Value;

use crate::issuer::Issuer;
use crate::token::VerifiedClaims;

/// The most groups that a caller may be in. The gateway takes an answer of 8 KB, and a filter takes far fewer groups; a
/// cut list would show a user other documents from one day to the next, so a longer one is refused.
pub const MAX_GROUPS: usize = 64;

/// Somebody with a good token who may act for a tenant, or as an operator for the owner of the shared documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The tenant. Whether it exists and is active is not known yet.
    pub tenant: TenantId,
    /// The user.
    pub user: UserId,
    /// What they may do: [`Role::Operator`] alone, or [`Role::Reader`] and perhaps [`Role::Admin`].
    pub roles: BTreeSet<Role>,
    /// The groups that the token names.
    pub groups: BTreeSet<Group>,
    /// When the token expires.
    pub token_expiry: Timestamp,
}

/// Somebody with a good token who may do nothing, and what to tell them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The user.
    pub user: UserId,
    /// The code of the gateway's 403.
    pub code: Code,
}

impl Caller {
    /// Reads `claims` as `issuer`'s entry says.
    ///
    /// # Errors
    /// The tenant's claim is missing, not a tenant id or not one of the issuer's; or an operator has one.
    pub fn identify(issuer: &Issuer, claims: &VerifiedClaims) -> Result<Self, Denial> {
        let user = UserId::derive(&issuer.name, claims.subject());
        let deny = |code| Denial {
            user: user.clone(),
            code,
        };
        let names = |claim: &Option<String>| claim.as_ref().and_then(|claim| claims.get(claim)).map(names);
        let named: BTreeSet<Role> = names(&issuer.roles_claim)
            .unwrap_or_default()
            .into_iter()
            .filter_map(Role::parse)
            // Anybody can name the role; only some issuers are believed.
            .filter(|role| *role != Role::Operator || issuer.operators)
            .collect();
        let tenant = claims.get(&issuer.tenant_claim);
        let token_expiry = claims.expiry();
        if named.contains(&Role::Operator) {
            // An operator with a tenant would be one who reads its documents.
            if tenant.is_some() {
                return Err(deny(Code::Forbidden));
            }
            let roles = BTreeSet::from([Role::Operator]);
            return Ok(Self {
                tenant: TenantId::shared(),
                user,
                roles,
                groups: BTreeSet::new(),
                token_expiry,
            });
        }
        let tenant = tenant
            .and_then(Value::as_str)
            .and_then(|text| TenantId::parse(text).ok())
            .filter(|tenant| issuer.tenants.contains(tenant))
            .ok_or_else(|| deny(Code::TenantUnknown))?;
        let roles = named.into_iter().chain([Role::Reader]).collect();
        let groups: BTreeSet<Group> = names(&issuer.groups_claim)
            .unwrap_or_default()
            .into_iter()
            .filter_map(Group::parse)
            .collect();
        if groups.len() > MAX_GROUPS {
            return Err(deny(Code::Forbidden));
        }
        Ok(Self {
            tenant,
            user,
            roles,
            groups,
            token_expiry,
        })
    }
}

/// The names in a claim: a list of strings, or one string with blanks between them, as OAuth writes scopes. Anything else
/// names nothing, also a list in which only one element is no string: what grants rights is not repaired.
fn names(claim: &Value) -> Vec<&str> {
    match claim {
        Value::String(text) => text.split(' ').filter(|name| !name.is_empty()).collect(),
        Value::Array(elements) => elements
            .iter()
            .map(Value::as_str)
            .collect::<Option<_>>()
            .unwrap_or_default(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixture::{self, RsaSigner};
    use crate::token::UnverifiedToken;

    fn identify(issuer: &Issuer, changes: &[(&str, Value)]) -> Result<Caller, Code> {
        let text = RsaSigner::shared().token(&fixture::header(), &fixture::claims(changes));
        let token = UnverifiedToken::parse(&text).unwrap();
        let claims = token.verify(issuer, &RsaSigner::shared().key(), fixture::NOW).unwrap();
        Caller::identify(issuer, &claims).map_err(|denial| denial.code)
    }

    fn roles(caller: Result<Caller, Code>) -> Vec<&'static str> {
        caller.unwrap().roles.iter().map(|role| role.as_str()).collect()
    }

    #[test]
    fn a_tenants_user_is_a_reader_at_least() {
        let caller = identify(&fixture::issuer(), &[]).unwrap();
        assert_eq!(caller.tenant.as_str(), "acme");
        assert_eq!(caller.user, UserId::derive(fixture::ISSUER, "alice"));
        assert_eq!(caller.roles, BTreeSet::from([Role::Reader]));
        assert_eq!(caller.token_expiry, Timestamp::from_unix(fixture::NOW.as_unix() + 3600));
    }

    #[test]
    fn a_tenant_claim_is_taken_as_it_stands_or_not_at_all() {
        let tenant = |value: Value| identify(&fixture::issuer(), &[("custom:tenant_id", value)]);
        assert_eq!(tenant(json!("acme-2")).unwrap().tenant.as_str(), "acme-2");
        for bad in [
            Value::Null,
            json!(5),
            json!(true),
            json!([]),
            json!(["acme"]),
            json!({"id": "acme"}),
            json!(""),
            json!("a"),
            json!("acme "),
            json!(" acme"),
            json!("Acme"),
            json!("ACME"),
            json!("acme\r\n"),
            json!("acme\0"),
            json!("acme\t"),
            json!("acme\u{7f}"),
            json!("acme\u{1b}"),
            json!("acme\u{a0}"),
            json!("acme\u{200b}"),
            json!("\u{202e}acme"),
            json!("аcme"),
            json!("ａｃｍｅ"),
            json!("acme\u{301}"),
            json!("acme🙂"),
            json!("acme,other"),
            json!("acme/other"),
            json!("../acme"),
            json!("acme#x"),
            json!("acme:x"),
            json!("acme.x"),
            json!("acme_x"),
            json!("*"),
            json!("\"acme\""),
            json!("$query$"),
            json!("%61cme"),
            json!("acme%2fother"),
            json!("bulkhead-shared"),
            json!("bulkhead"),
            json!("bulkheadx"),
            json!("a".repeat(41)),
        ] {
            assert_eq!(tenant(bad.clone()), Err(Code::TenantUnknown), "{bad}");
        }
        assert_eq!(
            identify(&fixture::issuer(), &[("custom:tenant_id", fixture::absent())]),
            Err(Code::TenantUnknown)
        );
    }

    #[test]
    fn only_the_configured_claim_names_the_tenant() {
        let others = [
            ("tenantId", json!("other")),
            ("tenant", json!("other")),
            ("custom:tenantId", json!("other")),
        ];
        assert_eq!(identify(&fixture::issuer(), &others).unwrap().tenant.as_str(), "acme");
        let mut without = others.to_vec();
        without.push(("custom:tenant_id", fixture::absent()));
        assert_eq!(identify(&fixture::issuer(), &without), Err(Code::TenantUnknown));
    }

    #[test]
    fn an_issuer_speaks_for_its_own_tenants() {
        let mut issuer = fixture::issuer();
        issuer.tenants = crate::issuer::Tenants::Listed([TenantId::parse("acme-2").unwrap()].into());
        assert_eq!(identify(&issuer, &[]), Err(Code::TenantUnknown));
        assert!(identify(&issuer, &[("custom:tenant_id", json!("acme-2"))]).is_ok());
    }

    #[test]
    fn roles_are_those_we_know() {
        let of = |value: Value| roles(identify(&fixture::issuer(), &[("roles", value)]));
        assert_eq!(
            of(json!(["admin", "superuser", "Admin", "admin,operator"])),
            ["reader", "admin"]
        );
        assert_eq!(of(json!("profile admin")), ["reader", "admin"]);
        assert_eq!(of(json!("admin")), ["reader", "admin"]);
        for none in [
            json!([]),
            json!(""),
            json!(["admin", 5]),
            json!({"admin": true}),
            json!(true),
            Value::Null,
        ] {
            assert_eq!(of(none.clone()), ["reader"], "{none}");
        }
        let mut issuer = fixture::issuer();
        issuer.roles_claim = None;
        assert_eq!(roles(identify(&issuer, &[("roles", json!(["admin"]))])), ["reader"]);
    }

    #[test]
    fn an_operator_has_no_tenant_and_an_issuer_that_may_name_one() {
        let operator = ("roles", json!(["operator", "admin"]));
        let nobody = ("custom:tenant_id", fixture::absent());
        let mut issuer = fixture::issuer();
        // An issuer that may not: the role is unknown.
        assert_eq!(
            identify(&issuer, &[operator.clone(), nobody.clone()]),
            Err(Code::TenantUnknown)
        );
        assert_eq!(
            roles(identify(&issuer, std::slice::from_ref(&operator))),
            ["reader", "admin"]
        );
        issuer.operators = true;
        let caller = identify(&issuer, &[operator.clone(), nobody.clone(), ("groups", json!(["hr"]))]).unwrap();
        assert!(caller.tenant.is_shared());
        assert_eq!(
            (caller.roles, caller.groups),
            (BTreeSet::from([Role::Operator]), BTreeSet::new())
        );
        for tenant in [json!("acme"), json!("bulkhead-shared"), json!(""), Value::Null] {
            let claims = [operator.clone(), ("custom:tenant_id", tenant)];
            assert_eq!(identify(&issuer, &claims), Err(Code::Forbidden));
        }
        assert_eq!(identify(&issuer, &[nobody]), Err(Code::TenantUnknown));
    }

    #[test]
    fn groups_that_could_be_misread_are_left_out() {
        let groups = |value: Value| {
            let caller = identify(&fixture::issuer(), &[("groups", value)])?;
            Ok(caller
                .groups
                .iter()
                .map(|group| group.as_str().to_owned())
                .collect::<Vec<_>>())
        };
        assert_eq!(
            groups(json!(["sales", "hr", "hr", "a,b", "*", "Sales", "", "x y"])),
            Ok(vec!["hr".into(), "sales".into()])
        );
        assert_eq!(groups(json!(["hr", 5])), Ok(vec![]));
        let many: Vec<String> = (0..=MAX_GROUPS).map(|n| format!("g{n}")).collect();
        assert_eq!(groups(json!(many)), Err(Code::Forbidden));
    }
}
