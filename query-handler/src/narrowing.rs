//! What a caller narrows a search by: the small algebra of the contract's `filter` over the attributes that the tenant
//! declared.
//!
//! Three steps, each only reachable through the one before: the shape, which deserialising checks; a [`Narrowing`], which
//! the profile has agreed to; and what [`crate::filter`] makes of it, always beside the tenant and never instead.

use bulkhead_core::attribute::{AttributeKind, AttributeName, AttributeValue, Number};
use bulkhead_core::error::Error;
use bulkhead_core::profile::Profile;
use serde::Deserialize;

/// The most conditions that must all hold. Beside the tenant and the audience they fill what one of Bedrock's groups
/// takes (<https://docs.aws.amazon.com/bedrock/latest/APIReference/API_agent-runtime_RetrievalFilter.html>).
pub const MAX_ALL: usize = 3;
/// The most conditions of which one must hold: a group of Bedrock's.
pub const MAX_ANY: usize = 5;

/// Where the `filter` stands in a request's body.
const POINTER: &str = "/filter";

/// A `filter` as it arrives: of the right shape, over attributes that nobody has looked up yet.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "FilterShape")]
pub enum UnverifiedNarrowing {
    /// One condition.
    Leaf(UnverifiedLeaf),
    /// The attribute has one of the values.
    In(UnverifiedValues),
    /// All conditions hold.
    All(Vec<UnverifiedLeaf>),
    /// One of the conditions holds.
    Any(Vec<UnverifiedLeaf>),
}

/// One condition as it arrives.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "LeafShape")]
pub enum UnverifiedLeaf {
    /// The attribute has the value.
    Equals(UnverifiedEquals),
    /// The attribute lies between two numbers.
    Range(UnverifiedRange),
}

/// `equals` as it arrives.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnverifiedEquals {
    key: String,
    value: AttributeValue,
}

/// `range` as it arrives: it has one end at least.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RangeShape")]
pub struct UnverifiedRange {
    key: String,
    ends: Ends,
}

/// `in` as it arrives: it has one value at least.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "ValuesShape")]
pub struct UnverifiedValues {
    key: String,
    values: Vec<AttributeValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FilterShape {
    equals: Option<UnverifiedEquals>,
    range: Option<UnverifiedRange>,
    r#in: Option<UnverifiedValues>,
    all: Option<Vec<UnverifiedLeaf>>,
    any: Option<Vec<UnverifiedLeaf>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LeafShape {
    equals: Option<UnverifiedEquals>,
    range: Option<UnverifiedRange>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RangeShape {
    key: String,
    from: Option<f64>,
    to: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ValuesShape {
    key: String,
    values: Vec<AttributeValue>,
}

impl TryFrom<FilterShape> for UnverifiedNarrowing {
    type Error = &'static str;

    fn try_from(shape: FilterShape) -> Result<Self, Self::Error> {
        let FilterShape {
            equals,
            range,
            r#in,
            all,
            any,
        } = shape;
        let filled = |leaves: Vec<UnverifiedLeaf>| {
            if leaves.is_empty() {
                return Err("an empty list of conditions");
            }
            Ok(leaves)
        };
        match (equals, range, r#in, all, any) {
            (Some(equals), None, None, None, None) => Ok(Self::Leaf(UnverifiedLeaf::Equals(equals))),
            (None, Some(range), None, None, None) => Ok(Self::Leaf(UnverifiedLeaf::Range(range))),
            (None, None, Some(values), None, None) => Ok(Self::In(values)),
            (None, None, None, Some(leaves), None) => filled(leaves).map(Self::All),
            (None, None, None, None, Some(leaves)) => filled(leaves).map(Self::Any),
            _ => Err("exactly one of `equals`, `range`, `in`, `all` and `any`"),
        }
    }
}

impl TryFrom<LeafShape> for UnverifiedLeaf {
    type Error = &'static str;

    fn try_from(shape: LeafShape) -> Result<Self, Self::Error> {
        match (shape.equals, shape.range) {
            (Some(equals), None) => Ok(Self::Equals(equals)),
            (None, Some(range)) => Ok(Self::Range(range)),
            _ => Err("exactly one of `equals` and `range`"),
        }
    }
}

impl TryFrom<RangeShape> for UnverifiedRange {
    type Error = &'static str;

    fn try_from(shape: RangeShape) -> Result<Self, Self::Error> {
        let number = |end: f64| Number::new(end).ok_or("0, or from 1e-9 to 9007199254740991 either way");
        let ends = match (shape.from.map(number).transpose()?, shape.to.map(number).transpose()?) {
            (Some(from), None) => Ends::From(from),
            (None, Some(to)) => Ends::To(to),
            (Some(from), Some(to)) => Ends::Both(from, to),
            (None, None) => return Err("at least one of `from` and `to`"),
        };
        Ok(Self { key: shape.key, ends })
    }
}

impl TryFrom<ValuesShape> for UnverifiedValues {
    type Error = &'static str;

    fn try_from(shape: ValuesShape) -> Result<Self, Self::Error> {
        if shape.values.is_empty() {
            return Err("an empty list of values");
        }
        Ok(Self {
            key: shape.key,
            values: shape.values,
        })
    }
}

/// What narrows a search: conditions on declared attributes, few enough for Bedrock. There is no way to it but
/// [`UnverifiedNarrowing::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Narrowing(Form);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    All(Vec<Condition>),
    Any(Vec<Condition>),
}

/// How conditions count together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conditions<'a> {
    /// All must hold; at most [`MAX_ALL`].
    All(&'a [Condition]),
    /// One must hold; at most [`MAX_ANY`].
    Any(&'a [Condition]),
}

/// One comparison of one declared attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The attribute has the value.
    Equals(AttributeName, AttributeValue),
    /// The attribute is the number or a greater one.
    AtLeast(AttributeName, Number),
    /// The attribute is the number or a smaller one.
    AtMost(AttributeName, Number),
}

/// The ends of a range, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    From(Number),
    To(Number),
    Both(Number, Number),
}

impl Narrowing {
    /// The conditions.
    pub fn conditions(&self) -> Conditions<'_> {
        match &self.0 {
            Form::All(conditions) => Conditions::All(conditions),
            Form::Any(conditions) => Conditions::Any(conditions),
        }
    }
}

impl UnverifiedNarrowing {
    /// Holds it against what the tenant declared and against what Bedrock takes.
    ///
    /// # Errors
    /// [`Error::Unprocessable`] with a pointer: an attribute that is not declared, a value of another kind, more conditions
    /// than fit.
    pub fn verify(self, profile: &Profile) -> Result<Narrowing, Error> {
        let mut conditions = Vec::new();
        let form = match self {
            Self::Leaf(leaf) => {
                leaf.verify(profile, POINTER, &mut conditions)?;
                Form::All(conditions)
            }
            Self::All(leaves) => {
                let pointer = format!("{POINTER}/all");
                for (n, leaf) in leaves.into_iter().enumerate() {
                    leaf.verify(profile, &format!("{pointer}/{n}"), &mut conditions)?;
                }
                if conditions.len() > MAX_ALL {
                    let limit = "At most three conditions; a range with two ends counts as two.";
                    return Err(Error::unprocessable_at(pointer, limit));
                }
                Form::All(conditions)
            }
            Self::Any(leaves) => {
                let pointer = format!("{POINTER}/any");
                if leaves.len() > MAX_ANY {
                    return Err(Error::unprocessable_at(pointer, "At most five conditions."));
                }
                for (n, leaf) in leaves.into_iter().enumerate() {
                    let pointer = format!("{pointer}/{n}");
                    if leaf.has_two_ends() {
                        let nested = "A range in `any` has one end: Bedrock can't nest the two.";
                        return Err(Error::unprocessable_at(format!("{pointer}/range"), nested));
                    }
                    leaf.verify(profile, &pointer, &mut conditions)?;
                }
                Form::Any(conditions)
            }
            Self::In(UnverifiedValues { key, values }) => {
                let pointer = format!("{POINTER}/in");
                if values.len() > MAX_ANY {
                    return Err(Error::unprocessable_at(
                        format!("{pointer}/values"),
                        "At most five values.",
                    ));
                }
                let (name, kind) = declared(profile, &key, &pointer)?;
                for (n, value) in values.into_iter().enumerate() {
                    fits(&value, kind, || format!("{pointer}/values/{n}"))?;
                    conditions.push(Condition::Equals(name.clone(), value));
                }
                Form::Any(conditions)
            }
        };
        Ok(Narrowing(form))
    }
}

impl UnverifiedLeaf {
    fn has_two_ends(&self) -> bool {
        matches!(
            self,
            Self::Range(UnverifiedRange {
                ends: Ends::Both(..),
                ..
            })
        )
    }

    /// Adds what `self`, which stands at `pointer`, asks for to `conditions`.
    fn verify(self, profile: &Profile, pointer: &str, conditions: &mut Vec<Condition>) -> Result<(), Error> {
        match self {
            Self::Equals(UnverifiedEquals { key, value }) => {
                let pointer = format!("{pointer}/equals");
                let (name, kind) = declared(profile, &key, &pointer)?;
                fits(&value, kind, || format!("{pointer}/value"))?;
                conditions.push(Condition::Equals(name, value));
            }
            Self::Range(UnverifiedRange { key, ends }) => {
                let pointer = format!("{pointer}/range");
                let (name, kind) = declared(profile, &key, &pointer)?;
                if kind != AttributeKind::Number {
                    return Err(Error::unprocessable_at(
                        format!("{pointer}/key"),
                        "A range is over an attribute that is a number.",
                    ));
                }
                match ends {
                    Ends::From(from) => conditions.push(Condition::AtLeast(name, from)),
                    Ends::To(to) => conditions.push(Condition::AtMost(name, to)),
                    Ends::Both(from, to) if from > to => {
                        return Err(Error::unprocessable_at(
                            pointer,
                            "`from` must not be greater than `to`.",
                        ));
                    }
                    Ends::Both(from, to) => {
                        conditions.push(Condition::AtLeast(name.clone(), from));
                        conditions.push(Condition::AtMost(name, to));
                    }
                }
            }
        }
        Ok(())
    }
}

/// The declared attribute that `key`, a member of what stands at `pointer`, names. What is no attribute's name at all is
/// answered like one that is not declared: neither is there.
fn declared(profile: &Profile, key: &str, pointer: &str) -> Result<(AttributeName, AttributeKind), Error> {
    AttributeName::parse(key)
        .and_then(|name| profile.attribute(&name).map(|kind| (name, kind)))
        .ok_or_else(|| Error::unprocessable_at(format!("{pointer}/key"), "Not an attribute that the tenant declares."))
}

fn fits(value: &AttributeValue, kind: AttributeKind, pointer: impl Fn() -> String) -> Result<(), Error> {
    if value.kind() == kind {
        return Ok(());
    }
    let detail = match kind {
        AttributeKind::String => "The attribute is a string.",
        AttributeKind::Number => "The attribute is a number.",
        AttributeKind::Boolean => "The attribute is a boolean.",
    };
    Err(Error::unprocessable_at(pointer(), detail))
}

#[cfg(test)]
mod tests {
    use bulkhead_core::attribute::Attribute;
    use serde_json::{Value, json};

    use super::*;
    use crate::fixture;

    fn profile() -> Profile {
        let attribute = |(name, kind)| Attribute {
            name: AttributeName::parse(name).unwrap(),
            kind,
        };
        Profile {
            attributes: [
                ("season", AttributeKind::Number),
                ("kind", AttributeKind::String),
                ("public", AttributeKind::Boolean),
            ]
            .map(attribute)
            .into(),
            ..fixture::profile("acme", &[])
        }
    }

    /// The status and the pointer that a filter is refused with.
    fn refusal(filter: &Value) -> Option<(u16, String)> {
        let body = json!({"user_query": "Who?", "filter": filter}).to_string();
        let question = crate::question::Question::read(&fixture::request("acme", &body));
        let error = question
            .and_then(|question| question.filter.map(|filter| filter.verify(&profile())).transpose())
            .err()?;
        let (Error::Invalid { violations, .. } | Error::Unprocessable { violations, .. }) = &error else {
            panic!("{error}");
        };
        Some((
            error.code().status().as_u16(),
            violations[0].pointer.clone().into_owned(),
        ))
    }

    fn equals(key: &str, value: Value) -> Value {
        json!({"equals": {"key": key, "value": value}})
    }

    fn range(from: i64, to: i64) -> Value {
        json!({"range": {"key": "season", "from": from, "to": to}})
    }

    #[test]
    fn a_filter_of_another_shape_can_not_be_read() {
        for (filter, pointer) in [
            (json!({}), "/filter"),
            (json!([]), "/filter"),
            (json!("season = 1"), "/filter"),
            (json!({"equals": null}), "/filter"),
            (json!({"not": equals("kind", json!("a"))}), "/filter/not"),
            (
                json!({"equals": {"key": "kind", "value": "a"}, "range": {"key": "season", "from": 1}}),
                "/filter",
            ),
            (json!({"equals": {"key": "kind"}}), "/filter/equals"),
            (json!({"equals": {"key": 1, "value": 1}}), "/filter/equals/key"),
            (equals("kind", json!(null)), "/filter/equals/value"),
            (equals("kind", json!(["a"])), "/filter/equals/value"),
            (equals("kind", json!({"notEquals": "a"})), "/filter/equals/value"),
            (equals("kind", json!("")), "/filter/equals/value"),
            (equals("kind", json!("a".repeat(101))), "/filter/equals/value"),
            (
                json!({"equals": {"key": "kind", "value": "a", "operator": "or"}}),
                "/filter/equals/operator",
            ),
            (json!({"range": {"key": "season"}}), "/filter/range"),
            (
                json!({"range": {"key": "season", "from": null, "to": null}}),
                "/filter/range",
            ),
            (json!({"range": {"key": "season", "from": "1"}}), "/filter/range/from"),
            (json!({"range": {"key": "season", "from": 1e300}}), "/filter/range"),
            (json!({"in": {"key": "kind", "values": []}}), "/filter/in"),
            (json!({"in": {"key": "kind", "values": "a"}}), "/filter/in/values"),
            (
                json!({"in": {"key": "kind", "values": ["a", null]}}),
                "/filter/in/values/1",
            ),
            (json!({"all": []}), "/filter"),
            (json!({"any": []}), "/filter"),
            (json!({"any": {}}), "/filter/any"),
            (json!({"any": [equals("kind", json!("a")), {}]}), "/filter/any/1"),
            // Groups stand in no group.
            (json!({"any": [{"all": [range(1, 2)]}]}), "/filter/any/0/all"),
            (
                json!({"all": [{"in": {"key": "kind", "values": ["a"]}}]}),
                "/filter/all/0/in",
            ),
        ] {
            assert_eq!(refusal(&filter), Some((400, pointer.to_owned())), "{filter}");
        }
    }

    #[test]
    fn a_filter_over_what_is_not_there_is_unacceptable() {
        for (filter, pointer) in [
            (equals("tenantId", json!("acme-2")), "/filter/equals/key"),
            (equals("audience", json!("*")), "/filter/equals/key"),
            (equals("documentId", json!("x")), "/filter/equals/key"),
            (
                equals("x-amz-bedrock-kb-source-uri", json!("s3://x")),
                "/filter/equals/key",
            ),
            (equals("", json!("x")), "/filter/equals/key"),
            (equals("episode", json!(1)), "/filter/equals/key"),
            (equals("Season", json!(1)), "/filter/equals/key"),
            (equals("season", json!("1")), "/filter/equals/value"),
            (equals("kind", json!(1)), "/filter/equals/value"),
            (equals("public", json!("true")), "/filter/equals/value"),
            (json!({"range": {"key": "kind", "from": 1}}), "/filter/range/key"),
            (json!({"range": {"key": "episode", "from": 1}}), "/filter/range/key"),
            (range(2, 1), "/filter/range"),
            (
                json!({"in": {"key": "tenantId", "values": ["acme-2"]}}),
                "/filter/in/key",
            ),
            (
                json!({"in": {"key": "kind", "values": ["a", 1]}}),
                "/filter/in/values/1",
            ),
            (
                json!({"any": [equals("kind", json!("a")), equals("tenantId", json!("acme-2"))]}),
                "/filter/any/1/equals/key",
            ),
            (
                json!({"all": [equals("kind", json!("a")), equals("kind", json!(true))]}),
                "/filter/all/1/equals/value",
            ),
        ] {
            assert_eq!(refusal(&filter), Some((422, pointer.to_owned())), "{filter}");
        }
    }

    #[test]
    fn a_filter_is_no_longer_than_bedrock_takes() {
        let leaf = || equals("kind", json!("a"));
        let many = |n| vec![leaf(); n];
        for (filter, pointer) in [
            (json!({"all": many(3)}), None),
            (json!({"all": many(4)}), Some("/filter/all")),
            (json!({"all": [leaf(), range(1, 2)]}), None),
            (json!({"all": [leaf(), leaf(), range(1, 2)]}), Some("/filter/all")),
            (json!({"all": [range(1, 2), range(3, 4)]}), Some("/filter/all")),
            (json!({"any": many(5)}), None),
            (json!({"any": many(6)}), Some("/filter/any")),
            (json!({"any": [{"range": {"key": "season", "from": 1}}]}), None),
            (json!({"any": [leaf(), range(1, 2)]}), Some("/filter/any/1/range")),
            (json!({"in": {"key": "kind", "values": vec!["a"; 5]}}), None),
            (
                json!({"in": {"key": "kind", "values": vec!["a"; 6]}}),
                Some("/filter/in/values"),
            ),
            (Value::Null, None),
        ] {
            let expected = pointer.map(|pointer| (422, pointer.to_owned()));
            assert_eq!(refusal(&filter), expected, "{filter}");
        }
    }
}
