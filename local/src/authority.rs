//! Who may do what: the policies of the template's roles and buckets, and the sessions of its roles.
//!
//! A call is allowed when an identity policy of the calling role (or, for a bucket, the bucket's policy) allows every need
//! of it and none denies one. Which statements decided is kept, so that the suite can tell which of them it has tried.
//!
//! Stricter than AWS in one place: where the trust policy names a role of the same account, AWS would be content with it,
//! and here the caller's own policy must allow `sts:AssumeRole` (and `sts:TagSession`) as well. Not here: the account's
//! other users: but for its administrator, whom the policies are not about, nobody else may do anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use crate::credential::{ADMINISTRATOR, Caller};
use crate::policy::{self, Context, Need, PolicyError, PolicyKind, Statement, StatementName, Verdict};
use crate::template::{LogicalId, Template};

/// Is told of each statement that decides for the first time for a tenant, or for no tenant.
pub type OnDecision = Arc<dyn Fn(&str, Option<&str>) + Send + Sync>;

/// A role with its policies.
#[derive(Debug)]
struct Role {
    arn: String,
    identity: Vec<Statement>,
    trust: Vec<Statement>,
}

impl Role {
    fn name(&self) -> &str {
        self.arn.rsplit_once('/').map_or(self.arn.as_str(), |(_, name)| name)
    }
}

/// The policies in force.
pub struct Authority {
    account: String,
    roles: BTreeMap<LogicalId, Role>,
    functions: BTreeMap<LogicalId, LogicalId>,
    buckets: BTreeMap<String, Vec<Statement>>,
    decided: Mutex<BTreeMap<StatementName, BTreeSet<Option<String>>>>,
    on_decision: Option<OnDecision>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("roles", &self.roles.len())
            .finish_non_exhaustive()
    }
}

/// Why a call is refused, in AWS's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// Who asked, by ARN.
    pub caller: String,
    /// The role that lacks the permission, by its logical id.
    pub role: String,
    /// What is lacking.
    pub need: Need,
    /// The statements that deny it; none where nothing allows it.
    pub denied_by: Vec<StatementName>,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (action, resource) = (&self.need.action, &self.need.resource);
        let reason = if self.denied_by.is_empty() {
            format!("because no identity-based policy allows the {action} action")
        } else {
            "with an explicit deny".to_owned()
        };
        write!(
            f,
            "User: {} is not authorized to perform: {action} on resource: {resource} {reason}",
            self.caller
        )
    }
}

impl Denial {
    /// Writes the log line that says which statement is missing.
    pub(crate) fn log(&self) {
        tracing::warn!(
            role = self.role,
            action = self.need.action,
            resource = self.need.resource,
            conditions = %self.need.context,
            denied_by = ?self.denied_by.iter().map(StatementName::as_str).collect::<Vec<_>>(),
            "a call is refused: a statement of this role would have to allow it"
        );
    }
}

/// Assuming a role, as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assumption {
    /// The role's ARN.
    pub(crate) role_arn: String,
    /// What the session is called.
    pub(crate) session_name: String,
    /// Its tags.
    pub(crate) tags: BTreeMap<String, String>,
}

impl Authority {
    /// One without roles: everybody is the administrator.
    #[must_use]
    pub fn open(account: &str) -> Self {
        Self {
            account: account.to_owned(),
            roles: BTreeMap::new(),
            functions: BTreeMap::new(),
            buckets: BTreeMap::new(),
            decided: Mutex::default(),
            on_decision: None,
        }
    }

    /// Reads the template's policies, but for the statements named in `without`.
    ///
    /// # Errors
    /// A policy holds what is not known, `without` names no statement, or Lambda or Bedrock may not assume the role that it is
    /// given.
    pub fn new(template: &Template, without: &[String], on_decision: Option<OnDecision>) -> Result<Self, PolicyError> {
        let mut authority = Self {
            on_decision,
            ..Self::open(&template.account)
        };
        let mut missing: BTreeSet<&str> = without.iter().map(String::as_str).collect();
        let mut keep = |statements: Vec<Statement>| -> Vec<Statement> {
            let mut kept = statements;
            kept.retain(|statement| {
                missing.remove(statement.name().as_str());
                !without.iter().any(|name| name == statement.name().as_str())
            });
            kept
        };
        for attached in &template.policies {
            for name in &attached.roles {
                if !template
                    .roles
                    .iter()
                    .any(|role| role.arn.ends_with(&format!(":role/{name}")))
                {
                    return Err(PolicyError {
                        place: attached.logical_id.to_string(),
                        problem: format!("{name} is no role of the template"),
                    });
                }
            }
        }
        for role in &template.roles {
            let owner = role.logical_id.as_str();
            let mut identity = Vec::new();
            let inline = role.policies().map_err(|error| PolicyError {
                place: owner.to_owned(),
                problem: error.to_string(),
            })?;
            for (name, document) in inline {
                identity.extend(Statement::read_all(&document, owner, &name, PolicyKind::Identity)?);
            }
            for attached in &template.policies {
                if attached
                    .roles
                    .iter()
                    .any(|name| role.arn.ends_with(&format!(":role/{name}")))
                {
                    let statements =
                        Statement::read_all(&attached.document, owner, &attached.name, PolicyKind::Identity)?;
                    identity.extend(statements);
                }
            }
            let trust = match role.properties.get("AssumeRolePolicyDocument") {
                Some(document) => Statement::read_all(document, owner, "trust", PolicyKind::Trust)?,
                None => Vec::new(),
            };
            authority.roles.insert(
                role.logical_id.clone(),
                Role {
                    arn: role.arn.clone(),
                    identity: keep(identity),
                    trust: keep(trust),
                },
            );
        }
        for policy in &template.bucket_policies {
            let owner = policy.logical_id.as_str();
            let statements = Statement::read_all(&policy.document, owner, "policy", PolicyKind::Resource)?;
            authority.buckets.insert(policy.bucket.clone(), keep(statements));
        }
        if let Some(name) = missing.first() {
            return Err(PolicyError {
                place: (*name).to_owned(),
                problem: "no statement of the template has this name".to_owned(),
            });
        }
        for function in &template.functions {
            authority.check_service(&function.role, "lambda.amazonaws.com", Context::default())?;
            authority
                .functions
                .insert(function.logical_id.clone(), function.role.clone());
        }
        for base in &template.knowledge_bases {
            let role = base
                .properties
                .get("RoleArn")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let context = Context::default().with("aws:SourceArn", [base.arn.as_str()]);
            let id = authority.role_by_arn(role).cloned().ok_or_else(|| PolicyError {
                place: base.logical_id.to_string(),
                problem: format!("{role} is no role of the template"),
            })?;
            authority.check_service(&id, "bedrock.amazonaws.com", context)?;
        }
        Ok(authority)
    }

    /// The statements in force, all of them.
    #[must_use]
    pub fn statements(&self) -> Vec<StatementName> {
        let roles = self
            .roles
            .values()
            .flat_map(|role| role.identity.iter().chain(&role.trust));
        let buckets = self.buckets.values().flatten();
        roles.chain(buckets).map(|statement| statement.name().clone()).collect()
    }

    /// The statements that have decided a call, each with the tenants for whose calls it did.
    #[must_use]
    pub fn decisions(&self) -> BTreeMap<StatementName, BTreeSet<Option<String>>> {
        self.decided.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Allows a caller's call, by all the statements that are given back, or refuses it.
    pub(crate) fn authorize(&self, caller: &Caller, needs: &[Need]) -> Result<Vec<StatementName>, Box<Denial>> {
        if self.is_administrator(caller) {
            return Ok(Vec::new());
        }
        let mut deciding = Vec::new();
        for need in needs {
            deciding.extend(self.allow(caller, need)?);
        }
        self.note(&deciding, caller.tenant.as_deref());
        Ok(deciding)
    }

    /// Whether the call would be allowed. Nothing is noted.
    pub(crate) fn would_allow(&self, caller: &Caller, action: &str, resource: &str) -> bool {
        let need = Need {
            action: action.to_owned(),
            resource: resource.to_owned(),
            context: Context::default().with("aws:ResourceAccount", [self.account.as_str()]),
        };
        self.is_administrator(caller) || self.allow(caller, &need).is_ok()
    }

    /// Allows what a service does in a role of its own.
    pub(crate) fn authorize_service(&self, role_arn: &str, action: &str, resource: &str) -> Result<(), Box<Denial>> {
        // Whoever has no role of the template may do nothing.
        let role = self.role_by_arn(role_arn).map_or(role_arn, LogicalId::as_str);
        let caller = Caller {
            principal: role.to_owned(),
            ..Caller::default()
        };
        let need = Need {
            action: action.to_owned(),
            resource: resource.to_owned(),
            context: Context::default().with("aws:ResourceAccount", [self.account.as_str()]),
        };
        self.authorize(&caller, &[need]).map(drop)
    }

    /// Lets a caller have a session of a role, whom its credentials stand for; and by which statements.
    pub(crate) fn assume_role(
        &self,
        caller: &Caller,
        assumption: &Assumption,
    ) -> Result<(Caller, Vec<StatementName>), Box<Denial>> {
        let context = |keys: bool| {
            let mut context = Context::default();
            for (key, value) in &assumption.tags {
                context = context.with(&format!("aws:RequestTag/{key}"), [value.as_str()]);
            }
            if keys {
                context = context.with("aws:TagKeys", assumption.tags.keys());
            }
            context
        };
        let actions: &[&str] = if assumption.tags.is_empty() {
            &["sts:AssumeRole"]
        } else {
            // A call with tags takes both, on both sides.
            &["sts:AssumeRole", "sts:TagSession"]
        };
        let needs: Vec<Need> = actions
            .iter()
            .map(|action| Need {
                action: (*action).to_owned(),
                resource: assumption.role_arn.clone(),
                context: context(true),
            })
            .collect();
        let denied = |need: &Need, denied_by| {
            Box::new(Denial {
                caller: self.arn_of(caller),
                role: assumption.role_arn.clone(),
                need: need.clone(),
                denied_by,
            })
        };
        let role = self
            .role_by_arn(&assumption.role_arn)
            .and_then(|id| Some((id, self.roles.get(id)?)));
        let Some((id, role)) = role else {
            // AWS does not say whether there is such a role.
            return Err(denied(needs.first().unwrap_or(&no_need()), Vec::new()));
        };
        let mut deciding = self.authorize(caller, &needs)?;
        let session = self.arn_of(caller);
        let role_arn = self
            .role_of(caller)
            .map(|(_, role)| role.arn.clone())
            .unwrap_or_default();
        for need in &needs {
            match policy::evaluate(&role.trust, need, &[&session, &role_arn]) {
                Verdict::Allowed(by) => deciding.extend(by),
                Verdict::Denied(by) => {
                    self.note(&by, caller.tenant.as_deref());
                    return Err(denied(need, by));
                }
                Verdict::NotAllowed => return Err(denied(need, Vec::new())),
            }
        }
        self.note(&deciding, caller.tenant.as_deref());
        let session = Caller {
            principal: id.as_str().to_owned(),
            tenant: assumption.tags.get("tenant").cloned(),
            session: Some(assumption.session_name.clone()),
            tags: assumption.tags.clone(),
        };
        Ok((session, deciding))
    }

    /// The caller's ARN.
    pub(crate) fn arn_of(&self, caller: &Caller) -> String {
        let name = caller.session.as_deref().unwrap_or(&caller.principal);
        match self.role_of(caller) {
            Some((_, role)) => format!("arn:aws:sts::{}:assumed-role/{}/{name}", self.account, role.name()),
            None => format!("arn:aws:iam::{}:user/{}", self.account, caller.principal),
        }
    }

    fn role_of(&self, caller: &Caller) -> Option<(&LogicalId, &Role)> {
        let id = LogicalId::new(caller.principal.as_str());
        self.roles.get_key_value(self.functions.get(&id).unwrap_or(&id))
    }

    fn role_by_arn(&self, arn: &str) -> Option<&LogicalId> {
        self.roles.iter().find(|(_, role)| role.arn == arn).map(|(id, _)| id)
    }

    fn is_administrator(&self, caller: &Caller) -> bool {
        self.roles.is_empty() || caller.principal == ADMINISTRATOR
    }

    fn allow(&self, caller: &Caller, need: &Need) -> Result<Vec<StatementName>, Box<Denial>> {
        let mut need = need.clone();
        let Some((id, role)) = self.role_of(caller) else {
            return Err(Box::new(Denial {
                caller: self.arn_of(caller),
                role: caller.principal.clone(),
                need,
                denied_by: Vec::new(),
            }));
        };
        let mut context = need
            .context
            .with("aws:PrincipalAccount", [self.account.as_str()])
            .with("aws:PrincipalArn", [role.arn.as_str()])
            // A connection within the machine stands for one with TLS: whoever could read it could read the processes' memory.
            .with("aws:SecureTransport", ["true"]);
        for (key, value) in &caller.tags {
            context = context.with(&format!("aws:PrincipalTag/{key}"), [value.as_str()]);
        }
        need.context = context;
        let bucket = need
            .resource
            .strip_prefix("arn:aws:s3:::")
            .and_then(|rest| rest.split('/').next());
        let of_bucket = bucket.and_then(|bucket| self.buckets.get(bucket)).into_iter().flatten();
        let statements = role.identity.iter().chain(of_bucket);
        let denied_by = match policy::evaluate(statements, &need, &[&self.arn_of(caller), &role.arn]) {
            Verdict::Allowed(by) => return Ok(by),
            Verdict::Denied(by) => {
                self.note(&by, caller.tenant.as_deref());
                by
            }
            Verdict::NotAllowed => Vec::new(),
        };
        Err(Box::new(Denial {
            caller: self.arn_of(caller),
            role: id.as_str().to_owned(),
            need,
            denied_by,
        }))
    }

    /// A service takes on the role that it was given, or the resource could not have been made.
    fn check_service(&self, id: &LogicalId, service: &str, context: Context) -> Result<(), PolicyError> {
        let role = self.roles.get(id).ok_or_else(|| PolicyError {
            place: id.to_string(),
            problem: "it is no role of the template".to_owned(),
        })?;
        let need = Need {
            action: "sts:AssumeRole".to_owned(),
            resource: role.arn.clone(),
            context: context.with("aws:SourceAccount", [self.account.as_str()]),
        };
        match policy::evaluate(&role.trust, &need, &[service]) {
            Verdict::Allowed(by) => {
                self.note(&by, None);
                Ok(())
            }
            Verdict::Denied(_) | Verdict::NotAllowed => Err(PolicyError {
                place: id.to_string(),
                problem: format!("{service} may not assume the role that it is given"),
            }),
        }
    }

    fn note(&self, statements: &[StatementName], tenant: Option<&str>) {
        let mut new = Vec::new();
        {
            let mut decided = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
            for statement in statements {
                let tenants = decided.entry(statement.clone()).or_default();
                if tenants.insert(tenant.map(str::to_owned)) {
                    new.push(statement);
                }
            }
        }
        if let Some(on_decision) = &self.on_decision {
            for statement in new {
                on_decision(statement.as_str(), tenant);
            }
        }
    }
}

fn no_need() -> Need {
    Need {
        action: "sts:AssumeRole".to_owned(),
        resource: "*".to_owned(),
        context: Context::default(),
    }
}
