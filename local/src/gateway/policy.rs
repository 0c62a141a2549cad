//! The policy in an authorizer's answer: read strictly, and evaluated against the ARN of one method.
//!
//! A `*` in the resource of an Allow reaches from where it stands to the end of the ARN, whatever follows it in the
//! expression: that is what API Gateway documents ("applies the wildcard to the rest of the expression"), and a policy
//! that counts on more must not look sound here. In a Deny it matches as IAM's does, so that nothing is denied by
//! accident of this reading. A Condition, NotAction or NotResource can't be evaluated and makes the answer unusable.
//!
//! Rules:
//! <https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-control-access-using-iam-policies-to-invoke-api.html>.

use serde::Deserialize;
use serde_json::Value;

/// Characters of a resource expression.
const RESOURCE_LIMIT: usize = 512;

/// An authorizer's policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    statements: Vec<Statement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Statement {
    allows: bool,
    actions: Vec<String>,
    resources: Vec<String>,
}

/// What a policy says about a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Allow,
    ExplicitDeny,
    ImplicitDeny,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct RawPolicy {
    version: Option<String>,
    #[serde(rename = "Id")]
    _id: Option<String>,
    statement: OneOrMore<RawStatement>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct RawStatement {
    #[serde(rename = "Sid")]
    _sid: Option<String>,
    effect: String,
    action: OneOrMore<String>,
    resource: OneOrMore<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore<T> {
    One(T),
    More(Vec<T>),
}

impl<T> OneOrMore<T> {
    fn list(self) -> Vec<T> {
        match self {
            Self::One(item) => vec![item],
            Self::More(items) => items,
        }
    }
}

impl Policy {
    /// Reads a policy document; the error says what is wrong with it, for the log.
    pub(super) fn parse(document: &Value) -> Result<Self, String> {
        let raw = RawPolicy::deserialize(document).map_err(|error| format!("policyDocument: {error}"))?;
        if raw
            .version
            .is_some_and(|version| version != "2012-10-17" && version != "2008-10-17")
        {
            return Err("policyDocument: unknown Version".to_owned());
        }
        let mut statements = Vec::new();
        for raw in raw.statement.list() {
            let allows = match raw.effect.as_str() {
                "Allow" => true,
                "Deny" => false,
                other => return Err(format!("policyDocument: Effect {other}")),
            };
            let (actions, resources) = (raw.action.list(), raw.resource.list());
            if let Some(long) = resources
                .iter()
                .find(|resource| resource.chars().count() > RESOURCE_LIMIT)
            {
                return Err(format!(
                    "policyDocument: a Resource of {} characters",
                    long.chars().count()
                ));
            }
            if actions.is_empty() || resources.is_empty() {
                return Err("policyDocument: a statement without Action or Resource".to_owned());
            }
            statements.push(Statement {
                allows,
                actions,
                resources,
            });
        }
        if statements.is_empty() {
            return Err("policyDocument: no Statement".to_owned());
        }
        Ok(Self { statements })
    }

    /// Evaluates the policy for `execute-api:Invoke` on a method ARN. A Deny wins over every Allow.
    pub(super) fn evaluate(&self, method_arn: &str) -> Decision {
        let applies = |statement: &&Statement| {
            let action = statement
                .actions
                .iter()
                .any(|action| glob(&action.to_ascii_lowercase(), "execute-api:invoke"));
            action
                && statement
                    .resources
                    .iter()
                    .any(|resource| covers(resource, method_arn, statement.allows))
        };
        let mut allowed = false;
        for statement in self.statements.iter().filter(applies) {
            if !statement.allows {
                return Decision::ExplicitDeny;
            }
            allowed = true;
        }
        if allowed {
            Decision::Allow
        } else {
            Decision::ImplicitDeny
        }
    }
}

fn covers(resource: &str, method_arn: &str, allows: bool) -> bool {
    let rest_is_free = allows
        && resource
            .split_once('*')
            .is_some_and(|(head, _)| glob(&format!("{head}*"), method_arn));
    rest_is_free || glob(resource, method_arn)
}

/// Matches `*` (any characters) and `?` (one character) in time proportional to the product of the lengths.
fn glob(pattern: &str, text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    // Whether what was read of the pattern matches each beginning of the text.
    let mut reached: Vec<bool> = std::iter::once(true).chain(text.iter().map(|_| false)).collect();
    for wanted in pattern.chars() {
        let mut next = Vec::with_capacity(reached.len());
        let mut previous = false;
        for (at, &here) in reached.iter().enumerate() {
            let matched = if wanted == '*' {
                here || next.last().copied().unwrap_or(false)
            } else {
                let sent = at.checked_sub(1).and_then(|before| text.get(before));
                previous && sent.is_some_and(|sent| wanted == '?' || *sent == wanted)
            };
            next.push(matched);
            previous = here;
        }
        reached = next;
    }
    reached.last().copied().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ARN: &str = "arn:aws:execute-api:us-east-1:123456789012:abcdef123/test/GET/items/7";

    fn decide(statements: &Value) -> Decision {
        Policy::parse(&json!({"Version": "2012-10-17", "Statement": statements}))
            .unwrap()
            .evaluate(ARN)
    }

    fn allow(resource: &str) -> Decision {
        decide(&json!([{"Effect": "Allow", "Action": "execute-api:Invoke", "Resource": resource}]))
    }

    #[test]
    fn an_allow_covers_exact_arns_and_wildcards() {
        let base = "arn:aws:execute-api:us-east-1:123456789012:abcdef123/test";
        for (resource, expect) in [
            (format!("{base}/GET/items/7"), Decision::Allow),
            (format!("{base}/GET/items/*"), Decision::Allow),
            (format!("{base}/GET/items/?"), Decision::Allow),
            (format!("{base}/GET/items/7*"), Decision::Allow),
            (format!("{base}/*"), Decision::Allow),
            ("*".to_owned(), Decision::Allow),
            // The wildcard applies to the rest of the expression.
            (format!("{base}/*/GET/admin"), Decision::Allow),
            (format!("{base}/GET/items/7/"), Decision::ImplicitDeny),
            (format!("{base}/GET/items"), Decision::ImplicitDeny),
            (format!("{base}/GET/items/??"), Decision::ImplicitDeny),
            (format!("{base}/POST/*"), Decision::ImplicitDeny),
            (format!("{base}/get/items/7"), Decision::ImplicitDeny),
            (
                "arn:aws:execute-api:us-east-1:123456789012:other/*".to_owned(),
                Decision::ImplicitDeny,
            ),
        ] {
            assert_eq!(allow(&resource), expect, "{resource}");
        }
    }

    #[test]
    fn a_deny_wins_and_is_taken_literally() {
        let both = |deny: &str| {
            decide(&json!([
                {"Effect": "Deny", "Action": ["execute-api:*"], "Resource": [deny]},
                {"Effect": "Allow", "Action": ["execute-api:Invoke"], "Resource": ["*"]},
            ]))
        };
        assert_eq!(both("*"), Decision::ExplicitDeny);
        assert_eq!(both("arn:aws:execute-api:*/GET/items/*"), Decision::ExplicitDeny);
        assert_eq!(both("arn:aws:execute-api:*/POST/items"), Decision::Allow);
    }

    #[test]
    fn actions_count_too() {
        for (action, expect) in [
            ("*", Decision::Allow),
            ("execute-api:Inv*", Decision::Allow),
            ("EXECUTE-API:INVOKE", Decision::Allow),
            ("execute-api:ManageConnections", Decision::ImplicitDeny),
            ("s3:*", Decision::ImplicitDeny),
        ] {
            let statement = json!({"Effect": "Allow", "Action": action, "Resource": "*"});
            assert_eq!(decide(&statement), expect, "{action}");
        }
    }

    #[test]
    fn what_can_not_be_evaluated_is_unusable() {
        for document in [
            json!(null),
            json!({}),
            json!({"Statement": []}),
            json!({"Statement": [{"Effect": "allow", "Action": "*", "Resource": "*"}]}),
            json!({"Statement": [{"Effect": "Allow", "Resource": "*"}]}),
            json!({"Statement": [{"Effect": "Allow", "Action": [], "Resource": "*"}]}),
            json!({"Statement": [{"Effect": "Allow", "NotAction": "x", "Action": "*", "Resource": "*"}]}),
            json!({"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {}}]}),
            json!({"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "x".repeat(513)}]}),
            json!({"Version": "2020-01-01", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}),
        ] {
            assert!(Policy::parse(&document).is_err(), "{document}");
        }
        let longest = json!({"Statement": {"Effect": "Allow", "Action": "*", "Resource": "x".repeat(512)}});
        assert!(Policy::parse(&longest).is_ok());
    }

    #[test]
    fn a_hostile_pattern_takes_no_time() {
        assert!(!glob(&"*a".repeat(250), &"a".repeat(249)));
        assert!(glob(&"*a".repeat(250), &"a".repeat(250)));
    }
}
