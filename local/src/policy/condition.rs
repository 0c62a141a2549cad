//! Conditions of a statement.
//!
//! Known are `StringEquals`, `StringNotEquals`, `StringLike`, `StringNotLike`, `ArnEquals`, `ArnLike`, `Bool` and `Null`,
//! the first four also with `ForAllValues:` and `ForAnyValue:`, all but `Null` also with `IfExists`. Source: IAM User Guide,
//! "IAM JSON policy elements: Condition operators"
//! (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html>) and "Set
//! operators for multivalued context keys".

use serde_json::Value;

use super::pattern::{ArnPattern, Pattern};
use super::{Context, texts};

/// Keys that can have several values. AWS demands a set operator for them, and gives it no meaning for others.
const MULTIVALUED: [&str; 2] = ["dynamodb:leadingkeys", "aws:tagkeys"];

/// The keys that requests here can have, in lower case; a slash at the end stands for all that begin so. Any other
/// would never be there, so that what is misspelt would hold, or not, whatever is asked.
const KEYS: [&str; 12] = [
    "aws:principalaccount",
    "aws:principalarn",
    "aws:principaltag/",
    "aws:requesttag/",
    "aws:resourceaccount",
    "aws:securetransport",
    "aws:sourceaccount",
    "aws:sourcearn",
    "aws:tagkeys",
    "dynamodb:leadingkeys",
    "iam:passedtoservice",
    "s3:prefix",
];

/// One key under one operator.
#[derive(Debug, Clone)]
pub(super) struct Condition {
    key: String,
    set: Option<Set>,
    if_exists: bool,
    test: Test,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Set {
    All,
    Any,
}

#[derive(Debug, Clone)]
enum Test {
    /// Any of the patterns fits.
    Text(Vec<Pattern>),
    /// None of them does.
    NotText(Vec<Pattern>),
    Arn(Vec<ArnPattern>),
    Bool(bool),
    /// Whether the key has to be absent.
    Null(bool),
}

/// Reads a statement's `Condition`.
pub(super) fn read_all(block: Option<&Value>) -> Result<Vec<Condition>, String> {
    let mut conditions = Vec::new();
    let Some(block) = block else { return Ok(conditions) };
    let operators = block.as_object().ok_or("Condition must be a mapping")?;
    for (operator, keys) in operators {
        let keys = keys
            .as_object()
            .ok_or_else(|| format!("{operator} must be a mapping"))?;
        for (key, values) in keys {
            conditions.push(read(operator, key, values)?);
        }
    }
    Ok(conditions)
}

fn read(operator: &str, key: &str, values: &Value) -> Result<Condition, String> {
    let (set, rest) = match operator.split_once(':') {
        Some(("ForAllValues", rest)) => (Some(Set::All), rest),
        Some(("ForAnyValue", rest)) => (Some(Set::Any), rest),
        Some(_) => return Err(format!("the operator {operator} is not known")),
        None => (None, operator),
    };
    let (if_exists, name) = match rest.strip_suffix("IfExists") {
        Some(name) => (true, name),
        None => (false, rest),
    };
    // CloudFormation takes true for "true".
    let values = match values {
        Value::Bool(flag) => vec![flag.to_string()],
        values => texts(Some(values)).ok_or_else(|| format!("{operator}: {key} must be a string or strings"))?,
    };
    let flag = || match values.as_slice() {
        [value] => value
            .parse::<bool>()
            .map_err(|_| format!("{operator}: {key} must be true or false")),
        _ => Err(format!("{operator}: {key} must be true or false")),
    };
    let patterns = |read: fn(&str) -> Result<Pattern, String>| -> Result<Vec<Pattern>, String> {
        values.iter().map(|value| read(value)).collect()
    };
    let test = match name {
        "StringEquals" => Test::Text(patterns(Pattern::literal)?),
        "StringLike" => Test::Text(patterns(Pattern::wildcards)?),
        "StringNotEquals" => Test::NotText(patterns(Pattern::literal)?),
        "StringNotLike" => Test::NotText(patterns(Pattern::wildcards)?),
        "ArnEquals" | "ArnLike" => Test::Arn(
            values
                .iter()
                .map(|value| ArnPattern::read(value))
                .collect::<Result<_, _>>()?,
        ),
        "Bool" => Test::Bool(flag()?),
        "Null" if !if_exists => Test::Null(flag()?),
        _ => return Err(format!("the operator {operator} is not known")),
    };
    let lower = key.to_ascii_lowercase();
    if !KEYS
        .iter()
        .any(|known| lower == *known || (known.ends_with('/') && lower.starts_with(known)))
    {
        return Err(format!("the key {key} is not known"));
    }
    // Without a value it would be true of everything.
    if matches!(&test, Test::NotText(patterns) if patterns.iter().any(Pattern::has_variable)) {
        return Err(format!("{operator}: a variable is not known here"));
    }
    let multivalued = MULTIVALUED.contains(&lower.as_str());
    match (&test, set) {
        (Test::Null(_), None) => {}
        (Test::Text(_) | Test::NotText(_), Some(_)) if multivalued => {}
        (_, None) if !multivalued => {}
        _ => return Err(format!("{operator} is not for {key}")),
    }
    Ok(Condition {
        key: key.to_owned(),
        set,
        if_exists,
        test,
    })
}

impl Condition {
    pub(super) fn holds(&self, context: &Context) -> bool {
        let values = context.get(&self.key);
        if let Test::Null(absent) = self.test {
            return values.is_none() == absent;
        }
        let holds = |value: &String| match &self.test {
            Test::Text(patterns) => patterns.iter().any(|pattern| pattern.matches(value, context)),
            Test::NotText(patterns) => !patterns.iter().any(|pattern| pattern.matches(value, context)),
            Test::Arn(patterns) => patterns.iter().any(|pattern| pattern.matches(value, context)),
            Test::Bool(wanted) => value.eq_ignore_ascii_case(if *wanted { "true" } else { "false" }),
            Test::Null(_) => false,
        };
        match (values, self.set) {
            // True of no values at all: whoever means "these and no others" demands the key with `Null` as well.
            (None, Some(Set::All)) => true,
            (None, Some(Set::Any)) => self.if_exists,
            (None, None) => self.if_exists || matches!(self.test, Test::NotText(_)),
            (Some(values), Some(Set::All)) => values.iter().all(holds),
            (Some(values), Some(Set::Any) | None) => values.iter().any(holds),
        }
    }
}
