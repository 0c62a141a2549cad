//! Retrieval filters, and what they are evaluated on.
//!
//! [`Filter`] is Bedrock's `RetrievalFilter` with the limits that Bedrock documents (2 to 5 members per group, 5 groups,
//! one level of embedding) and those of S3 Vectors (no `startsWith`, no `stringContains`). It keeps Bedrock's traps:
//!
//! * `notEquals` and `notIn` match documents that don't have the attribute at all;
//! * `equals` on a list is true if any of its members is equal.

use std::collections::BTreeMap;

use serde_json::Value;

/// The attributes of a document: scalars and lists of strings.
pub type Attributes = BTreeMap<String, Value>;

/// Members of a group, and groups of a filter.
const MEMBERS: usize = 5;

/// A comparison of one attribute with a value.
#[derive(Debug, Clone, PartialEq)]
pub enum Comparison {
    /// Equal, or a list with an equal member.
    Equals(Value),
    /// Not equal, or absent.
    NotEquals(Value),
    /// A larger number.
    GreaterThan(f64),
    /// A larger number or the same.
    GreaterThanOrEquals(f64),
    /// A smaller number.
    LessThan(f64),
    /// A smaller number or the same.
    LessThanOrEquals(f64),
    /// One of these.
    In(Vec<Value>),
    /// None of these, or absent.
    NotIn(Vec<Value>),
    /// A list that contains this.
    ListContains(Value),
}

/// A filter that obeys the limits.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// A condition on the attribute of that name.
    Leaf(String, Comparison),
    /// All of these.
    AndAll(Vec<Filter>),
    /// At least one of these.
    OrAll(Vec<Filter>),
}

impl Filter {
    /// Reads a filter.
    ///
    /// # Errors
    ///
    /// What a ValidationException says about it.
    pub fn parse(filter: &Value) -> Result<Self, String> {
        let mut groups = 0;
        Self::parse_at(filter, 0, &mut groups)
    }

    fn parse_at(filter: &Value, depth: usize, groups: &mut usize) -> Result<Self, String> {
        let Some((operator, operand)) = filter
            .as_object()
            .filter(|members| members.values().filter(|value| !value.is_null()).count() == 1)
            .and_then(|members| members.iter().find(|(_, value)| !value.is_null()))
        else {
            return Err("The retrieval filter must have exactly one operator at each place.".to_owned());
        };
        if operator == "andAll" || operator == "orAll" {
            *groups += 1;
            if *groups > MEMBERS {
                return Err(format!("The retrieval filter has more than {MEMBERS} groups."));
            }
            if depth > 1 {
                return Err("The retrieval filter is nested more than one level deep.".to_owned());
            }
            let members = operand.as_array().map(Vec::as_slice).unwrap_or_default();
            if !(2..=MEMBERS).contains(&members.len()) {
                return Err(format!(
                    "The operator {operator} must have 2 to {MEMBERS} conditions, and has {}.",
                    members.len()
                ));
            }
            let members: Result<Vec<Self>, String> = members
                .iter()
                .map(|member| Self::parse_at(member, depth + 1, groups))
                .collect();
            return Ok(if operator == "andAll" {
                Self::AndAll(members?)
            } else {
                Self::OrAll(members?)
            });
        }
        let key = operand.get("key").and_then(Value::as_str).unwrap_or_default();
        if !(1..=100).contains(&key.chars().count()) {
            return Err(format!("The key of {operator} must have 1 to 100 characters."));
        }
        let value = operand.get("value").cloned().unwrap_or(Value::Null);
        let scalar = || match value {
            Value::String(_) | Value::Number(_) | Value::Bool(_) => Ok(value.clone()),
            _ => Err(format!(
                "The value of {operator} must be a string, a number or a boolean."
            )),
        };
        let number = || {
            value
                .as_f64()
                .ok_or_else(|| format!("The value of {operator} must be a number."))
        };
        let list = || match &value {
            Value::Array(values) if !values.is_empty() && values.iter().all(Value::is_string) => Ok(values.clone()),
            _ => Err(format!("The value of {operator} must be a list of strings.")),
        };
        let comparison = match operator.as_str() {
            "equals" => Comparison::Equals(scalar()?),
            "notEquals" => Comparison::NotEquals(scalar()?),
            "greaterThan" => Comparison::GreaterThan(number()?),
            "greaterThanOrEquals" => Comparison::GreaterThanOrEquals(number()?),
            "lessThan" => Comparison::LessThan(number()?),
            "lessThanOrEquals" => Comparison::LessThanOrEquals(number()?),
            "in" => Comparison::In(list()?),
            "notIn" => Comparison::NotIn(list()?),
            "listContains" => Comparison::ListContains(scalar()?),
            "startsWith" | "stringContains" => {
                return Err(format!(
                    "The operator {operator} is not supported for S3 vector stores."
                ));
            }
            other => return Err(format!("The retrieval filter has no operator {other}.")),
        };
        Ok(Self::Leaf(key.to_owned(), comparison))
    }

    /// Whether a document with these attributes passes.
    #[must_use]
    pub fn matches(&self, attributes: &Attributes) -> bool {
        match self {
            Self::AndAll(members) => members.iter().all(|member| member.matches(attributes)),
            Self::OrAll(members) => members.iter().any(|member| member.matches(attributes)),
            Self::Leaf(key, comparison) => {
                let present = attributes.get(key);
                let compare = |compare: fn(f64, f64) -> bool, bound: f64| {
                    present
                        .and_then(Value::as_f64)
                        .is_some_and(|number| compare(number, bound))
                };
                match comparison {
                    Comparison::Equals(value) => present.is_some_and(|present| is_or_contains(present, value)),
                    Comparison::NotEquals(value) => !present.is_some_and(|present| is_or_contains(present, value)),
                    Comparison::GreaterThan(bound) => compare(|number, bound| number > bound, *bound),
                    Comparison::GreaterThanOrEquals(bound) => compare(|number, bound| number >= bound, *bound),
                    Comparison::LessThan(bound) => compare(|number, bound| number < bound, *bound),
                    Comparison::LessThanOrEquals(bound) => compare(|number, bound| number <= bound, *bound),
                    Comparison::In(values) => {
                        present.is_some_and(|present| values.iter().any(|value| is_or_contains(present, value)))
                    }
                    Comparison::NotIn(values) => {
                        !present.is_some_and(|present| values.iter().any(|value| is_or_contains(present, value)))
                    }
                    Comparison::ListContains(value) => present
                        .and_then(Value::as_array)
                        .is_some_and(|members| members.iter().any(|member| same(member, value))),
                }
            }
        }
    }

    /// The first value that the filter wants the attribute `key` to be equal to: whose request this is, if `key` is the
    /// tenant's attribute.
    #[must_use]
    pub fn equal_to(&self, key: &str) -> Option<&str> {
        match self {
            Self::Leaf(name, Comparison::Equals(Value::String(value))) if name == key => Some(value),
            Self::Leaf(..) => None,
            Self::AndAll(members) | Self::OrAll(members) => members.iter().find_map(|member| member.equal_to(key)),
        }
    }
}

fn is_or_contains(present: &Value, value: &Value) -> bool {
    match present {
        Value::Array(members) => members.iter().any(|member| same(member, value)),
        _ => same(present, value),
    }
}

/// Equality of scalars. 1 and 1.0 are the same number; "1" is none.
fn same(one: &Value, other: &Value) -> bool {
    match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => (one - other).abs() <= f64::EPSILON * one.abs().max(other.abs()),
        (None, None) => one == other,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn attributes(value: Value) -> Attributes {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn every_operator_does_what_bedrock_documents() {
        let document = attributes(json!({"tenantId": "acme", "year": 2020, "draft": false, "tags": ["a", "b"]}));
        let leaf = |operator: &str, key: &str, value: Value| {
            Filter::parse(&json!({operator: {"key": key, "value": value}}))
                .unwrap()
                .matches(&document)
        };
        for (operator, key, value, expected) in [
            ("equals", "tenantId", json!("acme"), true),
            ("equals", "tenantId", json!("acme-2"), false),
            ("equals", "absent", json!("acme"), false),
            ("equals", "year", json!(2020.0), true),
            ("equals", "year", json!("2020"), false),
            ("equals", "draft", json!(false), true),
            ("equals", "tags", json!("b"), true),
            ("notEquals", "tenantId", json!("acme"), false),
            ("notEquals", "tenantId", json!("other"), true),
            ("notEquals", "absent", json!("acme"), true),
            ("greaterThan", "year", json!(2020), false),
            ("greaterThan", "year", json!(2019), true),
            ("greaterThan", "tenantId", json!(1), false),
            ("greaterThanOrEquals", "year", json!(2020), true),
            ("lessThan", "year", json!(2020), false),
            ("lessThan", "absent", json!(2020), false),
            ("lessThanOrEquals", "year", json!(2020), true),
            ("in", "tenantId", json!(["x", "acme"]), true),
            ("in", "tenantId", json!(["x"]), false),
            ("notIn", "tenantId", json!(["acme"]), false),
            ("notIn", "absent", json!(["acme"]), true),
            ("listContains", "tags", json!("a"), true),
            ("listContains", "tags", json!("c"), false),
            ("listContains", "tenantId", json!("acme"), false),
        ] {
            assert_eq!(leaf(operator, key, value.clone()), expected, "{operator} {key} {value}");
        }
    }

    #[test]
    fn groups_obey_bedrocks_limits() {
        let leaf = json!({"equals": {"key": "tenantId", "value": "acme"}});
        let group = |operator: &str, count: usize| json!({operator: vec![leaf.clone(); count]});
        assert!(Filter::parse(&leaf).is_ok());
        for count in [0, 1, 6] {
            assert!(Filter::parse(&group("andAll", count)).is_err(), "{count}");
            assert!(Filter::parse(&group("orAll", count)).is_err(), "{count}");
        }
        for count in [2, 5] {
            assert!(Filter::parse(&group("andAll", count)).is_ok(), "{count}");
        }
        let one_level = json!({"andAll": [leaf, group("orAll", 5)]});
        assert!(Filter::parse(&one_level).is_ok());
        assert!(Filter::parse(&json!({"andAll": [leaf, one_level]})).is_err());
        assert!(Filter::parse(&json!({"andAll": vec![group("orAll", 2); 4]})).is_ok());
        assert!(Filter::parse(&json!({"andAll": vec![group("orAll", 2); 5]})).is_err());
        assert!(Filter::parse(&json!({"startsWith": {"key": "a", "value": "b"}})).is_err());
        assert!(Filter::parse(&json!({"stringContains": {"key": "a", "value": "b"}})).is_err());
        assert!(Filter::parse(&json!({"equals": {"key": "a", "value": ["b"]}})).is_err());
        assert!(Filter::parse(&json!({"equals": {"key": "", "value": "b"}})).is_err());
        assert!(Filter::parse(&json!({})).is_err());
        let two = json!({"equals": {"key": "a", "value": "b"}, "in": {"key": "a", "value": ["b"]}});
        assert!(Filter::parse(&two).is_err());
    }

    #[test]
    fn the_tenant_is_found_wherever_the_filter_names_it() {
        let filter = Filter::parse(&json!({"andAll": [
            {"orAll": [
                {"equals": {"key": "audience", "value": "*"}},
                {"equals": {"key": "tenantId", "value": "acme"}},
            ]},
            {"equals": {"key": "x", "value": 1}},
        ]}))
        .unwrap();
        assert_eq!(filter.equal_to("tenantId"), Some("acme"));
        assert_eq!(filter.equal_to("x"), None);
    }
}
