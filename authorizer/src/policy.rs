//! The answer to the gateway: a policy over routes, and the context that handlers see
//! (<https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-lambda-authorizer-output.html>).
//!
//! The gateway caches an answer by the token alone and applies it to every route, so a policy lists all routes that its
//! roles allow, whichever was called. Its ARNs are made of this module's table and the head of the method's ARN. The path
//! in that ARN is the caller's own text: echoed, a request for `/*` would buy a policy over everything.

use std::collections::BTreeSet;

use bulkhead_core::error::Code;
use bulkhead_core::tenant::{Role, UserId};
use serde::Serialize;

use crate::caller::Caller;

/// Which routes a role opens, each as it ends an ARN. A `*` stands at the end only: anywhere else API Gateway lets it run
/// over the rest of the expression
/// (<https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-control-access-using-iam-policies-to-invoke-api.html>).
///
/// A wildcard can't end before `/content`, so readers reach a document's description here; its handler asks for the role.
const ROUTES: &[(Role, &str)] = &[
    (Role::Reader, "POST/genai/query"),
    (Role::Reader, "POST/genai/query/stream"),
    (Role::Reader, "POST/genai/retrieve"),
    (Role::Reader, "POST/genai/chat"),
    (Role::Reader, "GET/sessions"),
    (Role::Reader, "GET/sessions/*"),
    (Role::Reader, "DELETE/sessions/*"),
    (Role::Reader, "GET/documents/*"),
    (Role::Admin, "GET/documents"),
    (Role::Admin, "POST/documents"),
    (Role::Admin, "POST/documents/*"),
    (Role::Admin, "PUT/documents/*"),
    (Role::Admin, "DELETE/documents/*"),
    (Role::Admin, "GET/tenant"),
    (Role::Operator, "GET/documents"),
    (Role::Operator, "GET/documents/*"),
    (Role::Operator, "POST/documents"),
    (Role::Operator, "POST/documents/*"),
    (Role::Operator, "PUT/documents/*"),
    (Role::Operator, "DELETE/documents/*"),
    (Role::Operator, "GET/tenants"),
    (Role::Operator, "GET/tenants/*"),
    (Role::Operator, "POST/tenants"),
    (Role::Operator, "POST/tenants/*"),
    (Role::Operator, "PATCH/tenants/*"),
    (Role::Operator, "POST/ingestions"),
    (Role::Operator, "GET/ingestions/*"),
];

/// An API's stage as an ARN: all of a method's ARN that the gateway and not the caller wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage(String);

impl Stage {
    /// The head of `arn:{partition}:execute-api:{region}:{account}:{api}/{stage}/{method}/{path}`; `None` if it is not one.
    pub fn parse(method_arn: &str) -> Option<Self> {
        let mut fields = method_arn.splitn(6, ':');
        let (scheme, partition, service) = (fields.next()?, fields.next()?, fields.next()?);
        let (region, account, resource) = (fields.next()?, fields.next()?, fields.next()?);
        let mut segments = resource.splitn(3, '/');
        let (api, stage, _method_and_path) = (segments.next()?, segments.next()?, segments.next()?);
        let made_of = |text: &str, max: usize, extra: &str| {
            (1..=max).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || extra.contains(c))
        };
        let fits = scheme == "arn"
            && made_of(partition, 16, "-")
            && service == "execute-api"
            && made_of(region, 32, "-")
            && account.len() == 12
            && account.bytes().all(|byte| byte.is_ascii_digit())
            && made_of(api, 32, "")
            && made_of(stage, 128, "-_");
        fits.then(|| Self(format!("arn:{partition}:execute-api:{region}:{account}:{api}/{stage}")))
    }
}

/// What the gateway is told. Members without a value are left out: whether it takes nulls is nowhere written.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    principal_id: UserId,
    policy_document: PolicyDocument,
    context: Context,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct PolicyDocument {
    version: &'static str,
    statement: [Statement; 1],
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Statement {
    action: &'static str,
    effect: Effect,
    resource: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
enum Effect {
    Allow,
    Deny,
}

/// Strings only: the gateway turns everything into one, and fails on objects and lists.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Context {
    /// What the gateway's 403 says where the policy does not let the caller through.
    code: Code,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    identity: Option<Identity>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    tenant_id: String,
    user_id: UserId,
    roles: String,
    groups: String,
    token_expiry: String,
}

impl Answer {
    /// Lets `caller` use the routes that their roles open, and no others.
    pub fn allow(stage: &Stage, caller: &Caller) -> Self {
        let identity = Identity {
            tenant_id: caller.tenant.as_str().to_owned(),
            user_id: caller.user.clone(),
            roles: joined(caller.roles.iter().map(|role| role.as_str())),
            groups: joined(caller.groups.iter().map(|group| group.as_str())),
            token_expiry: caller.token_expiry.as_unix().to_string(),
        };
        let routes = ROUTES
            .iter()
            .filter(|(role, _)| caller.roles.contains(role))
            .map(|(_, route)| *route);
        Self::new(
            stage,
            &caller.user,
            Effect::Allow,
            routes,
            Context {
                code: Code::Forbidden,
                identity: Some(identity),
            },
        )
    }

    /// Refuses somebody whose token is good, with the reason that the client may know.
    pub fn deny(stage: &Stage, user: &UserId, code: Code) -> Self {
        Self::new(stage, user, Effect::Deny, ["*"], Context { code, identity: None })
    }

    fn new<'a>(
        stage: &Stage,
        user: &UserId,
        effect: Effect,
        routes: impl IntoIterator<Item = &'a str>,
        context: Context,
    ) -> Self {
        let resource = routes.into_iter().map(|route| format!("{}/{route}", stage.0)).collect();
        Self {
            principal_id: user.clone(),
            policy_document: PolicyDocument {
                version: "2012-10-17",
                statement: [Statement {
                    action: "execute-api:Invoke",
                    effect,
                    resource,
                }],
            },
            context,
        }
    }
}

fn joined<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use bulkhead_core::tenant::{Group, TenantId};
    use bulkhead_core::time::Timestamp;
    use serde_json::Value;

    use super::*;

    const ARN: &str = "arn:aws:execute-api:eu-central-1:123456789012:a1b2c3d4e5/live/GET/documents/x";

    fn caller(tenant: TenantId, roles: &[Role], groups: &[&str]) -> Caller {
        Caller {
            tenant,
            user: UserId::derive("https://issuer.example.com", "alice"),
            roles: roles.iter().copied().collect(),
            groups: groups.iter().map(|name| Group::parse(name).unwrap()).collect(),
            token_expiry: Timestamp::from_unix(1_767_229_200),
        }
    }

    fn acme() -> TenantId {
        TenantId::parse("acme").unwrap()
    }

    fn stage() -> Stage {
        Stage::parse(ARN).unwrap()
    }

    #[test]
    fn a_reader_may_ask_and_read() {
        insta::assert_json_snapshot!(Answer::allow(&stage(), &caller(acme(), &[Role::Reader], &[])));
    }

    #[test]
    fn an_admin_may_manage_documents_too() {
        let roles = [Role::Reader, Role::Admin];
        insta::assert_json_snapshot!(Answer::allow(&stage(), &caller(acme(), &roles, &["sales", "hr"])));
    }

    #[test]
    fn an_operator_may_manage_tenants_and_shared_documents_but_ask_nothing() {
        insta::assert_json_snapshot!(Answer::allow(
            &stage(),
            &caller(TenantId::shared(), &[Role::Operator], &[])
        ));
    }

    #[test]
    fn a_refusal_denies_the_whole_stage_and_says_why() {
        let user = UserId::derive("https://issuer.example.com", "alice");
        insta::assert_json_snapshot!(Answer::deny(&stage(), &user, Code::TenantSuspended));
    }

    #[test]
    fn the_head_of_the_arn_is_all_that_is_taken_of_it() {
        let head = "arn:aws:execute-api:eu-central-1:123456789012:a1b2c3d4e5/live";
        for path in [
            "/GET/",
            "/GET/x",
            "/GET/x/*",
            "/*/*",
            "/GET/a:b/c?d",
            "/GET//..//%2f",
            "/",
        ] {
            assert_eq!(Stage::parse(&format!("{head}{path}")).unwrap().0, head, "{path}");
        }
        assert!(Stage::parse("arn:aws-us-gov:execute-api:us-gov-west-1:000000000000:local/v_1-a/GET/").is_some());
    }

    #[test]
    fn an_arn_whose_head_is_not_the_gateways_is_none() {
        for bad in [
            "",
            "arn:aws:execute-api:eu-central-1:123456789012:a1b2c3d4e5",
            "arn:aws:execute-api:eu-central-1:123456789012:a1b2c3d4e5/live",
            "arn:aws:execute-api:eu-central-1:123456789012:*/live/GET/x",
            "arn:aws:execute-api:eu-central-1:123456789012:a1b2c3d4e5/*/GET/x",
            "arn:aws:execute-api:*:123456789012:a1b2c3d4e5/live/GET/x",
            "arn:aws:execute-api:eu-central-1:*:a1b2c3d4e5/live/GET/x",
            "arn:aws:execute-api:eu-central-1:12345:a1b2c3d4e5/live/GET/x",
            "arn:*:execute-api:eu-central-1:123456789012:a1b2c3d4e5/live/GET/x",
            "arn:aws:lambda:eu-central-1:123456789012:a1b2c3d4e5/live/GET/x",
            "arn:aws:execute-api:eu-central-1:123456789012:/live/GET/x",
            "arn:aws:execute-api:eu-central-1:123456789012:a1b2c3d4e5//GET/x",
            "arn:aws:execute-api::123456789012:a1b2c3d4e5/live/GET/x",
            "urn:aws:execute-api:eu-central-1:123456789012:a1b2c3d4e5/live/GET/x",
        ] {
            assert_eq!(Stage::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn answers_stay_within_the_gateways_limits() {
        let longest = Stage::parse(&format!(
            "arn:{}:execute-api:{}:123456789012:{}/{}/GET/x",
            "p".repeat(16),
            "r".repeat(32),
            "i".repeat(32),
            "s".repeat(128)
        ))
        .unwrap();
        for roles in [vec![Role::Reader, Role::Admin], vec![Role::Operator]] {
            let groups: Vec<String> = (0..crate::caller::MAX_GROUPS).map(|n| format!("{n:0>32}")).collect();
            let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
            let answer = serde_json::to_value(Answer::allow(&longest, &caller(acme(), &roles, &groups))).unwrap();
            let resources = answer["policyDocument"]["Statement"][0]["Resource"].as_array().unwrap();
            assert!(resources.iter().all(|arn| arn.as_str().unwrap().len() <= 512));
            assert!(answer.to_string().len() < 8 * 1024, "{}", answer.to_string().len());
        }
    }

    #[test]
    fn the_context_is_flat_strings() {
        let answer = Answer::allow(&stage(), &caller(acme(), &[Role::Reader], &["hr"]));
        let answer = serde_json::to_value(answer).unwrap();
        assert!(
            answer["context"].as_object().unwrap().values().all(Value::is_string),
            "{answer}"
        );
    }

    #[test]
    fn wildcards_stand_at_the_end_only_and_only_operators_reach_the_control_plane() {
        for (role, route) in ROUTES {
            assert!(!route.trim_end_matches("/*").contains('*'), "{route}");
            let control_plane = route.contains("/tenants") || route.contains("/ingestions");
            assert!(!control_plane || *role == Role::Operator, "{route}");
            assert!(!route.contains("genai") || *role == Role::Reader, "{route}");
        }
    }
}
