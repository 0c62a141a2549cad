//! IAM policies as AWS evaluates them, as far as the template's are written.
//!
//! Statements are read once, when the stack starts; what is not understood there (an element, an operator, a variable)
//! stops the start, because a statement that is half obeyed proves nothing. Source: IAM User Guide, "Policy evaluation
//! logic", "IAM JSON policy elements" and its pages on conditions and variables
//! (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements.html>).
//!
//! Not here: which actions a request needs (`permission`), whose policies count ([`crate::authority`]), and
//! `NotAction`, `NotResource`, `NotPrincipal`, session policies, boundaries and organisations, which the template does not use.

mod condition;
mod pattern;

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use self::condition::Condition;
use self::pattern::{ArnPattern, Pattern};

/// The name of a statement: `Role/Policy/Sid`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatementName(String);

impl StatementName {
    /// The statement `sid` of a policy; `owner` is the logical id of the role or of the bucket policy.
    #[must_use]
    pub fn new(owner: &str, policy: &str, sid: &str) -> Self {
        Self(format!("{owner}/{policy}/{sid}"))
    }

    /// As it stands in logs and files.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StatementName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a policy can't be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct PolicyError {
    /// The policy, or the statement.
    pub place: String,
    /// What is wrong there, in words.
    pub problem: String,
}

/// What is known of a request besides action and resource: condition keys with their values. Keys are compared without
/// regard to case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Context(BTreeMap<String, Vec<String>>);

impl Context {
    /// Adds a key with its values. One without values is as good as absent.
    #[must_use]
    pub fn with<V: Into<String>>(mut self, key: &str, values: impl IntoIterator<Item = V>) -> Self {
        let values: Vec<String> = values.into_iter().map(Into::into).collect();
        if !values.is_empty() {
            self.0.insert(key.to_ascii_lowercase(), values);
        }
        self
    }

    fn get(&self, key: &str) -> Option<&[String]> {
        self.0.get(&key.to_ascii_lowercase()).map(Vec::as_slice)
    }

    /// The value of a key that has exactly one.
    fn one(&self, key: &str) -> Option<&str> {
        match self.get(key) {
            Some([value]) => Some(value),
            _ => None,
        }
    }
}

impl fmt::Display for Context {
    /// Keys and values as a policy's condition would name them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (key, values)) in self.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            write!(f, "{comma}{key}={}", values.join("|"))?;
        }
        Ok(())
    }
}

/// One thing to be allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// For example `dynamodb:GetItem`.
    pub action: String,
    /// An ARN, or `*` for an action that knows no resources.
    pub resource: String,
    /// What else is known.
    pub context: Context,
}

/// Allow or Deny.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Allow,
    Deny,
}

/// Who a statement of a resource's policy is about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Principals {
    /// A statement of an identity's own policy names none.
    Own,
    Everybody,
    Named(Vec<String>),
}

/// One statement, ready to be evaluated.
#[derive(Debug, Clone)]
pub struct Statement {
    name: StatementName,
    effect: Effect,
    principals: Principals,
    actions: Vec<Pattern>,
    /// None in a trust policy, which is about its role.
    resources: Option<Vec<ArnPattern>>,
    conditions: Vec<Condition>,
}

/// Which elements a policy must have and must not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyKind {
    /// Attached to a role: no principal.
    Identity,
    /// A role's trust policy: a principal, no resource.
    Trust,
    /// A bucket's: both.
    Resource,
}

/// What policies say about one need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Allowed by all of these, and denied by none.
    Allowed(Vec<StatementName>),
    /// Denied by these, whatever allows it.
    Denied(Vec<StatementName>),
    /// Nothing allows it.
    NotAllowed,
}

impl Statement {
    /// Reads the statements of a policy document that belongs to `owner`.
    ///
    /// # Errors
    /// An element, operator or variable is not known, or a statement has no `Sid` or a doubled one.
    pub fn read_all(document: &Value, owner: &str, policy: &str, kind: PolicyKind) -> Result<Vec<Self>, PolicyError> {
        let place = format!("{owner}/{policy}");
        let wrong = |problem: &str| PolicyError {
            place: place.clone(),
            problem: problem.to_owned(),
        };
        let members = document.as_object().ok_or_else(|| wrong("a policy is a mapping"))?;
        if let Some(name) = members
            .keys()
            .find(|name| !["Version", "Statement"].contains(&name.as_str()))
        {
            return Err(wrong(&format!("the element {name} is not known")));
        }
        // Variables are text in the older version.
        if document.get("Version").and_then(Value::as_str) != Some("2012-10-17") {
            return Err(wrong("Version must be 2012-10-17"));
        }
        let statements = match document.get("Statement") {
            Some(Value::Array(statements)) => statements.as_slice(),
            Some(statement @ Value::Object(_)) => std::slice::from_ref(statement),
            _ => return Err(wrong("it has no statements")),
        };
        let mut read: Vec<Self> = Vec::new();
        for statement in statements {
            let statement = Self::read(statement, owner, policy, kind)?;
            if read.iter().any(|other| other.name == statement.name) {
                return Err(wrong(&format!("{} stands there twice", statement.name)));
            }
            read.push(statement);
        }
        Ok(read)
    }

    fn read(statement: &Value, owner: &str, policy: &str, kind: PolicyKind) -> Result<Self, PolicyError> {
        let mut place = format!("{owner}/{policy}");
        let wrong = |place: &str, problem: String| PolicyError {
            place: place.to_owned(),
            problem,
        };
        let text = |name: &str| statement.get(name).and_then(Value::as_str);
        let sid = text("Sid").ok_or_else(|| wrong(&place, "a statement has no Sid".to_owned()))?;
        let name = StatementName::new(owner, policy, sid);
        place = name.to_string();
        let known: &[&str] = match kind {
            PolicyKind::Identity => &["Sid", "Effect", "Action", "Resource", "Condition"],
            PolicyKind::Trust => &["Sid", "Effect", "Action", "Principal", "Condition"],
            PolicyKind::Resource => &["Sid", "Effect", "Action", "Resource", "Principal", "Condition"],
        };
        let elements = statement.as_object().into_iter().flatten();
        if let Some((element, _)) = elements.into_iter().find(|(name, _)| !known.contains(&name.as_str())) {
            return Err(wrong(&place, format!("the element {element} is not known here")));
        }
        let effect = match text("Effect") {
            Some("Allow") => Effect::Allow,
            Some("Deny") => Effect::Deny,
            _ => return Err(wrong(&place, "Effect is Allow or Deny".to_owned())),
        };
        let texts = |element: &str| {
            let values = texts(statement.get(element)).filter(|values| !values.is_empty());
            values.ok_or_else(|| wrong(&place, format!("{element} must be a string or a list of strings")))
        };
        let mut actions = Vec::new();
        for action in texts("Action")? {
            // Actions are compared without regard to case, and know no variables.
            if action.contains('$') {
                return Err(wrong(&place, format!("{action} is no action")));
            }
            actions.push(Pattern::wildcards(&action.to_ascii_lowercase()).map_err(|problem| wrong(&place, problem))?);
        }
        let resources = if kind == PolicyKind::Trust {
            None
        } else {
            let mut patterns = Vec::new();
            for resource in texts("Resource")? {
                patterns.push(ArnPattern::read(&resource).map_err(|problem| wrong(&place, problem))?);
            }
            Some(patterns)
        };
        let principals = match (kind, statement.get("Principal")) {
            (PolicyKind::Identity, _) => Principals::Own,
            (_, Some(Value::String(all))) if all == "*" => Principals::Everybody,
            (_, Some(Value::Object(kinds))) => {
                let mut named = Vec::new();
                for (kind, names) in kinds {
                    if kind != "AWS" && kind != "Service" {
                        return Err(wrong(&place, format!("principals of kind {kind} are not known")));
                    }
                    let names =
                        self::texts(Some(names)).ok_or_else(|| wrong(&place, "a principal is a string".to_owned()))?;
                    let known = |name: &String| !name.contains('*') && (kind == "Service" || name.contains(":role/"));
                    if let Some(name) = names.iter().find(|name| !known(name)) {
                        return Err(wrong(&place, format!("the principal {name} is no role and no service")));
                    }
                    named.extend(names);
                }
                Principals::Named(named)
            }
            _ => return Err(wrong(&place, "Principal is missing".to_owned())),
        };
        let conditions = condition::read_all(statement.get("Condition")).map_err(|problem| wrong(&place, problem))?;
        Ok(Self {
            name,
            effect,
            principals,
            actions,
            resources,
            conditions,
        })
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &StatementName {
        &self.name
    }

    /// Whether it speaks of this need. `principals` are the names that the caller goes by: a service's, or the ARNs of a role
    /// and its session.
    fn applies(&self, need: &Need, principals: &[&str]) -> bool {
        let principal = match &self.principals {
            Principals::Own | Principals::Everybody => true,
            Principals::Named(names) => names.iter().any(|name| principals.contains(&name.as_str())),
        };
        let action = need.action.to_ascii_lowercase();
        principal
            && self
                .actions
                .iter()
                .any(|pattern| pattern.matches(&action, &need.context))
            && self.resources.as_ref().is_none_or(|patterns| {
                patterns
                    .iter()
                    .any(|pattern| pattern.matches(&need.resource, &need.context))
            })
            && self.conditions.iter().all(|condition| condition.holds(&need.context))
    }
}

/// What all these statements say together: one Deny outweighs every Allow.
pub fn evaluate<'a>(statements: impl IntoIterator<Item = &'a Statement>, need: &Need, principals: &[&str]) -> Verdict {
    let (mut allowing, mut denying) = (Vec::new(), Vec::new());
    for statement in statements {
        if statement.applies(need, principals) {
            match statement.effect {
                Effect::Allow => allowing.push(statement.name.clone()),
                Effect::Deny => denying.push(statement.name.clone()),
            }
        }
    }
    if !denying.is_empty() {
        Verdict::Denied(denying)
    } else if allowing.is_empty() {
        Verdict::NotAllowed
    } else {
        Verdict::Allowed(allowing)
    }
}

/// A string, or a list of strings, as policies take either.
fn texts(value: Option<&Value>) -> Option<Vec<String>> {
    match value? {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
