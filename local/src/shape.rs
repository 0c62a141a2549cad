//! Shapes of JSON requests, and comparing a request with one, as AWS's front ends do before anything else.
//!
//! Lengths are counted in UTF-16 units, the stricter reading of Smithy's "length of a string". Rules about more than one
//! member are not here: they belong to the operation.

use serde_json::Value;

/// What a value must be.
pub(crate) enum Shape {
    Text {
        min: usize,
        max: usize,
        is_valid: fn(&str) -> bool,
    },
    Choice(&'static [&'static str]),
    Integer {
        min: i64,
        max: i64,
    },
    Number {
        min: f64,
        max: f64,
    },
    /// Checked elsewhere, or not at all.
    Any,
    List {
        of: &'static Shape,
        min: usize,
        max: usize,
    },
    Structure(&'static [Member]),
    /// A structure of which exactly one member is given.
    Union(&'static [Member]),
    /// Texts by name.
    Map {
        min: usize,
        max: usize,
        /// Longest name.
        name: usize,
        /// Longest text.
        value: usize,
    },
}

/// A member of a structure.
pub(crate) struct Member {
    name: &'static str,
    required: bool,
    shape: Shape,
}

pub(crate) const fn must(name: &'static str, shape: Shape) -> Member {
    Member {
        name,
        required: true,
        shape,
    }
}

pub(crate) const fn may(name: &'static str, shape: Shape) -> Member {
    Member {
        name,
        required: false,
        shape,
    }
}

pub(crate) const fn text(min: usize, max: usize) -> Shape {
    Shape::Text {
        min,
        max,
        is_valid: |_| true,
    }
}

/// What was found in a request.
#[derive(Default)]
pub(crate) struct Findings {
    /// Constraints that do not hold.
    pub(crate) errors: Vec<String>,
    /// Members that the shape does not have.
    pub(crate) unknown: Vec<String>,
}

/// Compares a value with a shape.
pub(crate) fn check(shape: &Shape, value: &Value, path: &str, findings: &mut Findings) {
    let mut fail = |constraint: String| {
        findings
            .errors
            .push(format!("Value at '{path}' failed to satisfy constraint: {constraint}"));
    };
    match shape {
        Shape::Any => {}
        Shape::Text { min, max, is_valid } => match value.as_str() {
            None => fail("Member must be a string".to_owned()),
            Some(text) => {
                let length = text.encode_utf16().count();
                if length < *min {
                    fail(format!("Member must have length greater than or equal to {min}"));
                } else if length > *max {
                    fail(format!("Member must have length less than or equal to {max}"));
                } else if !is_valid(text) {
                    fail("Member must satisfy regular expression pattern".to_owned());
                }
            }
        },
        Shape::Choice(choices) => {
            if !value.as_str().is_some_and(|text| choices.contains(&text)) {
                fail(format!("Member must satisfy enum value set: [{}]", choices.join(", ")));
            }
        }
        Shape::Integer { min, max } => match value.as_i64() {
            None => fail("Member must be an integer".to_owned()),
            Some(number) if number < *min => fail(format!("Member must have value greater than or equal to {min}")),
            Some(number) if number > *max => fail(format!("Member must have value less than or equal to {max}")),
            Some(_) => {}
        },
        Shape::Number { min, max } => match value.as_f64() {
            None => fail("Member must be a number".to_owned()),
            Some(number) if number < *min => fail(format!("Member must have value greater than or equal to {min}")),
            Some(number) if number > *max => fail(format!("Member must have value less than or equal to {max}")),
            Some(_) => {}
        },
        Shape::List { of, min, max } => match value.as_array() {
            None => fail("Member must be a list".to_owned()),
            Some(members) if members.len() < *min => {
                fail(format!("Member must have length greater than or equal to {min}"));
            }
            Some(members) if members.len() > *max => {
                fail(format!("Member must have length less than or equal to {max}"))
            }
            Some(members) => {
                for (index, member) in members.iter().enumerate() {
                    check(of, member, &format!("{path}.{}.member", index + 1), findings);
                }
            }
        },
        Shape::Map {
            min,
            max,
            name: name_length,
            value: value_length,
        } => match value.as_object() {
            None => fail("Member must be a map".to_owned()),
            Some(object) if !(*min..=*max).contains(&object.len()) => {
                fail(format!("Member must have length between {min} and {max}"));
            }
            Some(object) => {
                for (name, value) in object {
                    let of = |length: usize| Shape::Text {
                        min: 0,
                        max: length,
                        is_valid: |_| true,
                    };
                    check(
                        &of(*name_length),
                        &Value::String(name.clone()),
                        &format!("{path}.key"),
                        findings,
                    );
                    check(&of(*value_length), value, &format!("{path}.value"), findings);
                }
            }
        },
        Shape::Union(members) => {
            let given = value
                .as_object()
                .map_or(0, |object| object.values().filter(|value| !value.is_null()).count());
            if given == 1 {
                check(&Shape::Structure(members), value, path, findings);
            } else {
                fail("Exactly one member of the union must be set".to_owned());
            }
        }
        Shape::Structure(members) => match value.as_object() {
            None => fail("Member must be a structure".to_owned()),
            Some(object) => {
                let below = |name: &str| {
                    if path.is_empty() {
                        name.to_owned()
                    } else {
                        format!("{path}.{name}")
                    }
                };
                for member in *members {
                    match object.get(member.name).filter(|value| !value.is_null()) {
                        Some(value) => check(&member.shape, value, &below(member.name), findings),
                        None if member.required => findings.errors.push(format!(
                            "Value null at '{}' failed to satisfy constraint: Member must not be null",
                            below(member.name)
                        )),
                        None => {}
                    }
                }
                let is_unknown = |name: &&String| !members.iter().any(|member| member.name == name.as_str());
                findings
                    .unknown
                    .extend(object.keys().filter(is_unknown).map(|name| below(name)));
            }
        },
    }
}

/// The model's pattern allows ids of foundation models, and ARNs of models and inference profiles.
pub(crate) fn is_model(text: &str) -> bool {
    let is_name = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-:/".contains(&byte))
    };
    match text.strip_prefix("arn:aws") {
        None => is_name(text),
        Some(rest) => {
            let parts: Vec<&str> = rest.splitn(5, ':').collect();
            match parts.as_slice() {
                [partition, service, region, account, resource] => {
                    (partition.is_empty() || partition.starts_with('-'))
                        && matches!(*service, "bedrock" | "sagemaker")
                        && !region.is_empty()
                        && (account.is_empty()
                            || account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit()))
                        && is_name(resource)
                }
                _ => false,
            }
        }
    }
}

pub(crate) fn is_guardrail_version(text: &str) -> bool {
    text == "DRAFT" || !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit())
}
