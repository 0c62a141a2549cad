//! Which passages a search may see: the third lock.
//!
//! Bedrock applies a filter to one request, not to a session, and without one it searches all tenants' documents. So a
//! search takes a [`RetrievalFilter`], and there is none without a [`TenantContext`]. What the caller asks for
//! ([`crate::narrowing`]) stands beside the tenant in it and can only take passages away.

use aws_sdk_bedrockagentruntime::types::{self as sdk, FilterAttribute};
use aws_smithy_types::{Document as Value, Number as SdkNumber};
use bulkhead_core::attribute::{AttributeValue, Number};
use bulkhead_core::error::Error;
use bulkhead_core::plan::Plan;
use bulkhead_core::profile::Profile;
use bulkhead_core::tenant::{Group, TenantContext, TenantId};

use crate::narrowing::{Condition, Conditions, Narrowing};

/// The sidecar's attribute that says whose a document is.
pub const TENANT: &str = "tenantId";
/// The sidecar's attribute that says who of the tenant may read a document.
pub const AUDIENCE: &str = "audience";
/// The audience of a document that all users of the tenant may read.
const EVERYONE: &str = "*";

/// The members that Bedrock wants a group to have
/// (<https://docs.aws.amazon.com/bedrock/latest/APIReference/API_agent-runtime_RetrievalFilter.html>).
const MEMBERS: std::ops::RangeInclusive<usize> = 2..=5;
/// The groups that Bedrock takes in all, and how deep they may stand in each other
/// (<https://docs.aws.amazon.com/bedrock/latest/userguide/kb-test-config.html>).
const MAX_GROUPS: usize = 5;
const MAX_DEPTH: usize = 2;

/// The passages that one caller may see: those of the tenant and, where the plan says so, of the shared corpus; of them
/// those for everyone or for a group that the caller is in and the tenant declares; of those what the caller wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetrievalFilter {
    tenant: TenantId,
    shared: bool,
    audience: Option<Vec<Group>>,
    narrowing: Option<Narrowing>,
}

impl RetrievalFilter {
    /// What the caller may see, and of it what `narrowing` leaves.
    ///
    /// # Errors
    /// [`Error::Isolation`] if the profile is another tenant's.
    pub fn new(
        context: &TenantContext,
        profile: &Profile,
        plan: &Plan,
        narrowing: Option<Narrowing>,
    ) -> Result<Self, Error> {
        if profile.tenant != *context.tenant() {
            return Err(Error::isolation("the profile is not the caller's tenant's"));
        }
        // Where no groups are declared, no document can be for one, and the tenant alone says it all.
        let audience = (!profile.groups.is_empty()).then(|| {
            let declared = |group: &&Group| profile.groups.contains(group);
            context.groups().iter().filter(declared).cloned().collect()
        });
        Ok(Self {
            tenant: context.tenant().clone(),
            shared: plan.shared_corpus,
            audience,
            narrowing,
        })
    }

    /// The filter in Bedrock's terms. Only `equals`, comparisons of numbers, `andAll` and `orAll`: `notEquals` would match
    /// documents that lost their sidecar, and S3 Vectors does not have the rest.
    ///
    /// # Errors
    /// [`Error::Internal`] if Bedrock would not take it.
    pub fn compile(&self) -> Result<sdk::RetrievalFilter, Error> {
        let shared = TenantId::shared();
        let owners = std::iter::once(&self.tenant).chain(self.shared.then_some(&shared));
        let mut members = vec![either(owners.map(|owner| equals(TENANT, text(owner.as_str()))))?];
        if let Some(groups) = &self.audience {
            let audiences = std::iter::once(EVERYONE).chain(groups.iter().map(Group::as_str));
            members.push(either(audiences.map(|audience| equals(AUDIENCE, text(audience))))?);
        }
        match self.narrowing.as_ref().map(Narrowing::conditions) {
            None => {}
            Some(Conditions::All(conditions)) => {
                for condition in conditions {
                    members.push(comparison(condition)?);
                }
            }
            Some(Conditions::Any(conditions)) => members.push(either(conditions.iter().map(comparison))?),
        }
        let filter = group(members, sdk::RetrievalFilter::AndAll)?;
        acceptable(&filter)?;
        Ok(filter)
    }
}

/// A caller's condition. Its name is an attribute's, which the grammar keeps from being any key of ours.
fn comparison(condition: &Condition) -> Result<sdk::RetrievalFilter, Error> {
    match condition {
        Condition::Equals(name, value) => equals(name.as_str(), of(value)),
        Condition::AtLeast(name, least) => {
            attribute(name.as_str(), number(*least)).map(sdk::RetrievalFilter::GreaterThanOrEquals)
        }
        Condition::AtMost(name, most) => {
            attribute(name.as_str(), number(*most)).map(sdk::RetrievalFilter::LessThanOrEquals)
        }
    }
}

fn of(value: &AttributeValue) -> Value {
    match value {
        AttributeValue::String(value) => text(value),
        AttributeValue::Number(value) => number(*value),
        AttributeValue::Boolean(value) => Value::Bool(*value),
    }
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

/// A number as sidecars write it: an integer where it is one, which is below 2^53 and so fits either type.
fn number(number: Number) -> Value {
    let number = number.get();
    Value::Number(if number.fract() != 0.0 {
        SdkNumber::Float(number)
    } else if number < 0.0 {
        SdkNumber::NegInt(number as i64)
    } else {
        SdkNumber::PosInt(number as u64)
    })
}

fn equals(key: &str, value: Value) -> Result<sdk::RetrievalFilter, Error> {
    attribute(key, value).map(sdk::RetrievalFilter::Equals)
}

fn attribute(key: &str, value: Value) -> Result<FilterAttribute, Error> {
    FilterAttribute::builder()
        .key(key)
        .value(value)
        .build()
        .map_err(Error::internal)
}

/// That one of `members` matches.
fn either(members: impl Iterator<Item = Result<sdk::RetrievalFilter, Error>>) -> Result<sdk::RetrievalFilter, Error> {
    group(members.collect::<Result<_, Error>>()?, sdk::RetrievalFilter::OrAll)
}

/// A group of `members`, or the only one itself: Bedrock refuses groups of one.
fn group(
    mut members: Vec<sdk::RetrievalFilter>,
    make: fn(Vec<sdk::RetrievalFilter>) -> sdk::RetrievalFilter,
) -> Result<sdk::RetrievalFilter, Error> {
    match members.len() {
        0 => Err(Error::internal("a filter of nothing")),
        1 => members.pop().ok_or(Error::internal("a filter of nothing")),
        _ => Ok(make(members)),
    }
}

/// Checks the finished filter, not its parts: wrapping adds members and levels.
fn acceptable(filter: &sdk::RetrievalFilter) -> Result<(), Error> {
    /// How deep groups stand in `filter`, and how many they are.
    fn measure(filter: &sdk::RetrievalFilter) -> Result<(usize, usize), Error> {
        match filter {
            sdk::RetrievalFilter::Equals(_)
            | sdk::RetrievalFilter::GreaterThanOrEquals(_)
            | sdk::RetrievalFilter::LessThanOrEquals(_) => Ok((0, 0)),
            sdk::RetrievalFilter::AndAll(members) | sdk::RetrievalFilter::OrAll(members) => {
                if !MEMBERS.contains(&members.len()) {
                    return Err(Error::internal("a filter with a group of too few or too many"));
                }
                let (mut depth, mut groups) = (0, 0);
                for member in members {
                    let (deep, within) = measure(member)?;
                    depth = depth.max(deep);
                    groups += within;
                }
                Ok((depth + 1, groups + 1))
            }
            _ => Err(Error::internal("a filter with an operator that we never use")),
        }
    }
    let (depth, groups) = measure(filter)?;
    if depth > MAX_DEPTH {
        return Err(Error::internal("a filter with groups in groups in groups"));
    }
    if groups > MAX_GROUPS {
        return Err(Error::internal("a filter of too many groups"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use bulkhead_core::attribute::{Attribute, AttributeKind, AttributeName};
    use proptest::prelude::*;
    use proptest::sample::{select, subsequence};
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::fixture;
    use crate::narrowing::UnverifiedNarrowing;

    type Metadata = HashMap<String, Value>;

    const NAMES: [&str; 5] = ["hr", "legal", "board", "it", "sales"];
    const ATTRIBUTES: [(&str, AttributeKind); 3] = [
        ("season", AttributeKind::Number),
        ("kind", AttributeKind::String),
        ("public", AttributeKind::Boolean),
    ];

    fn profile(declared: &[&str], attributes: &[(&str, AttributeKind)]) -> Profile {
        let attributes = attributes.iter().map(|(name, kind)| Attribute {
            name: AttributeName::parse(name).unwrap(),
            kind: *kind,
        });
        Profile {
            attributes: attributes.collect(),
            ..fixture::profile("acme", declared)
        }
    }

    fn plan(shared_corpus: bool) -> Plan {
        Plan {
            shared_corpus,
            ..Plan::default()
        }
    }

    /// The filter of a question of a reader of `acme`, if the question may be asked.
    fn asked(profile: &Profile, groups: &[&str], shared: bool, filter: &Json) -> Option<sdk::RetrievalFilter> {
        let narrowing: Option<UnverifiedNarrowing> = serde_json::from_value(filter.clone()).ok()?;
        let narrowing = narrowing.map(|filter| filter.verify(profile)).transpose().ok()?;
        let context = fixture::context("acme", groups);
        let filter = RetrievalFilter::new(&context, profile, &plan(shared), narrowing).unwrap();
        // What was verified can always be searched for.
        Some(filter.compile().unwrap())
    }

    /// A short form for reading: `tenantId=acme`, `season>=2`, `and(…)`, `or(…)`.
    fn show(filter: &sdk::RetrievalFilter) -> String {
        let list = |members: &[sdk::RetrievalFilter]| members.iter().map(show).collect::<Vec<_>>().join(", ");
        let leaf = |leaf: &FilterAttribute, sign: &str| {
            let value = match leaf.value() {
                Value::String(text) => text.clone(),
                Value::Bool(value) => value.to_string(),
                Value::Number(SdkNumber::PosInt(number)) => number.to_string(),
                Value::Number(SdkNumber::NegInt(number)) => number.to_string(),
                Value::Number(SdkNumber::Float(number)) => number.to_string(),
                other => panic!("{other:?}"),
            };
            format!("{}{sign}{value}", leaf.key())
        };
        match filter {
            sdk::RetrievalFilter::Equals(attribute) => leaf(attribute, "="),
            sdk::RetrievalFilter::GreaterThanOrEquals(attribute) => leaf(attribute, ">="),
            sdk::RetrievalFilter::LessThanOrEquals(attribute) => leaf(attribute, "<="),
            sdk::RetrievalFilter::AndAll(members) => format!("and({})", list(members)),
            sdk::RetrievalFilter::OrAll(members) => format!("or({})", list(members)),
            other => panic!("{other:?}"),
        }
    }

    /// Bedrock's meaning of a filter, from its documentation and from nothing above: what has no such key, or a value of
    /// another type, matches no comparison.
    fn matches(filter: &sdk::RetrievalFilter, metadata: &Metadata) -> bool {
        let compare = |leaf: &FilterAttribute, holds: fn(&f64, &f64) -> bool| {
            let (Some(Value::Number(is)), Value::Number(bound)) = (metadata.get(leaf.key()), leaf.value()) else {
                return false;
            };
            holds(&is.to_f64_lossy(), &bound.to_f64_lossy())
        };
        match filter {
            sdk::RetrievalFilter::Equals(leaf) if matches!(leaf.value(), Value::Number(_)) => compare(leaf, f64::eq),
            sdk::RetrievalFilter::Equals(leaf) => metadata.get(leaf.key()) == Some(leaf.value()),
            sdk::RetrievalFilter::GreaterThanOrEquals(leaf) => compare(leaf, f64::ge),
            sdk::RetrievalFilter::LessThanOrEquals(leaf) => compare(leaf, f64::le),
            sdk::RetrievalFilter::AndAll(members) => members.iter().all(|member| matches(member, metadata)),
            sdk::RetrievalFilter::OrAll(members) => members.iter().any(|member| matches(member, metadata)),
            other => panic!("{other:?}"),
        }
    }

    /// The contract's meaning of a caller's `filter`, read from the JSON itself.
    fn wants(filter: &Json, metadata: &Metadata) -> bool {
        let has = |key: &Json, value: &Json| match (metadata.get(key.as_str().unwrap()), value) {
            (Some(Value::String(is)), Json::String(wanted)) => is == wanted,
            (Some(Value::Bool(is)), Json::Bool(wanted)) => is == wanted,
            (Some(Value::Number(is)), Json::Number(wanted)) => is.to_f64_lossy() == wanted.as_f64().unwrap(),
            _ => false,
        };
        let (form, with) = match filter {
            Json::Null => return true,
            filter => filter.as_object().unwrap().iter().next().unwrap(),
        };
        match form.as_str() {
            "equals" => has(&with["key"], &with["value"]),
            "in" => with["values"]
                .as_array()
                .unwrap()
                .iter()
                .any(|value| has(&with["key"], value)),
            "range" => match metadata.get(with["key"].as_str().unwrap()) {
                Some(Value::Number(is)) => {
                    let is = is.to_f64_lossy();
                    with["from"].as_f64().is_none_or(|from| from <= is) && with["to"].as_f64().is_none_or(|to| is <= to)
                }
                _ => false,
            },
            "all" => with.as_array().unwrap().iter().all(|leaf| wants(leaf, metadata)),
            "any" => with.as_array().unwrap().iter().any(|leaf| wants(leaf, metadata)),
            other => panic!("{other}"),
        }
    }

    /// Bedrock's limits: groups of two to five, five groups, one level of embedding, keys of 1 to 100 characters. Returns
    /// how many groups there are.
    fn within_limits(filter: &sdk::RetrievalFilter, level: usize) -> usize {
        match filter {
            sdk::RetrievalFilter::AndAll(members) | sdk::RetrievalFilter::OrAll(members) => {
                assert!((2..=5).contains(&members.len()) && level < 2, "{}", show(filter));
                let groups = 1 + members
                    .iter()
                    .map(|member| within_limits(member, level + 1))
                    .sum::<usize>();
                assert!(groups <= 5);
                groups
            }
            sdk::RetrievalFilter::Equals(leaf)
            | sdk::RetrievalFilter::GreaterThanOrEquals(leaf)
            | sdk::RetrievalFilter::LessThanOrEquals(leaf) => {
                assert!((1..=100).contains(&leaf.key().chars().count()));
                0
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_filter_has_the_form_that_the_design_says() {
        let bare = |declared: &[&str], groups: &[&str], shared| {
            show(&asked(&profile(declared, &[]), groups, shared, &Json::Null).unwrap())
        };
        for (declared, groups, shared, expected) in [
            (&[][..], &[][..], false, "tenantId=acme"),
            // A token may name what it likes: only declared groups count.
            (&[], &["hr"], false, "tenantId=acme"),
            (&["hr"], &[], false, "and(tenantId=acme, audience=*)"),
            (&["hr"], &["legal"], false, "and(tenantId=acme, audience=*)"),
            (
                &["hr", "legal"],
                &["hr", "it"],
                false,
                "and(tenantId=acme, or(audience=*, audience=hr))",
            ),
            (
                &["hr", "legal", "board", "it"],
                &["board", "hr", "it", "legal"],
                false,
                "and(tenantId=acme, or(audience=*, audience=board, audience=hr, audience=it, audience=legal))",
            ),
            (&[], &["hr"], true, "or(tenantId=acme, tenantId=bulkhead-shared)"),
            (
                &["hr"],
                &["hr"],
                true,
                "and(or(tenantId=acme, tenantId=bulkhead-shared), or(audience=*, audience=hr))",
            ),
        ] {
            assert_eq!(bare(declared, groups, shared), expected);
        }
    }

    #[test]
    fn what_the_caller_wants_stands_beside_the_tenant() {
        let equals = |key: &str, value: Json| json!({"equals": {"key": key, "value": value}});
        let range = |from: Json, to: Json| json!({"range": {"key": "season", "from": from, "to": to}});
        for (filter, expected) in [
            (equals("season", json!(2)), "season=2"),
            (equals("season", json!(2.0)), "season=2"),
            (equals("season", json!(-2.5)), "season=-2.5"),
            (equals("season", json!(-3)), "season=-3"),
            (equals("kind", json!("acme-2")), "kind=acme-2"),
            (equals("public", json!(false)), "public=false"),
            (range(json!(1), Json::Null), "season>=1"),
            (range(json!(1), json!(3)), "season>=1, season<=3"),
            (
                json!({"all": [range(json!(1), json!(3)), equals("public", json!(true))]}),
                "season>=1, season<=3, public=true",
            ),
            (json!({"all": [equals("kind", json!("a"))]}), "kind=a"),
            (json!({"any": [equals("kind", json!("a"))]}), "kind=a"),
            (json!({"in": {"key": "kind", "values": ["a"]}}), "kind=a"),
            (
                json!({"in": {"key": "season", "values": [1, 2, 3, 4, 5]}}),
                "or(season=1, season=2, season=3, season=4, season=5)",
            ),
            (
                json!({"any": [range(Json::Null, json!(3)), equals("kind", json!("a"))]}),
                "or(season<=3, kind=a)",
            ),
        ] {
            let show = |declared: &[&str], shared| {
                show(&asked(&profile(declared, &ATTRIBUTES), &NAMES, shared, &filter).unwrap())
            };
            assert_eq!(show(&[], false), format!("and(tenantId=acme, {expected})"));
            let begins = "and(or(tenantId=acme, tenantId=bulkhead-shared), or(audience=*, audience=hr), ";
            assert_eq!(show(&["hr"], true), format!("{begins}{expected})"));
        }
    }

    #[test]
    fn another_tenants_profile_opens_nothing() {
        let context = fixture::context("acme", &[]);
        assert!(matches!(
            RetrievalFilter::new(&context, &fixture::profile("acme-2", &[]), &plan(true), None),
            Err(Error::Isolation { .. })
        ));
    }

    #[test]
    fn what_bedrock_would_not_take_is_never_sent() {
        let context = fixture::context("acme", &NAMES);
        let filter = RetrievalFilter::new(&context, &profile(&NAMES, &[]), &plan(false), None).unwrap();
        assert!(filter.compile().is_err());
        let leaf = || equals(TENANT, text("acme")).unwrap();
        let and = |members| sdk::RetrievalFilter::AndAll(members);
        let pair = || and(vec![leaf(), leaf()]);
        assert!(acceptable(&and(vec![leaf(), pair()])).is_ok());
        assert!(acceptable(&and(vec![pair(), pair(), pair(), pair()])).is_ok());
        assert!(acceptable(&and(vec![pair(), pair(), pair(), pair(), pair()])).is_err());
        assert!(acceptable(&and(vec![leaf()])).is_err());
        assert!(acceptable(&and(vec![leaf(), and(vec![leaf(), pair()])])).is_err());
        let attribute = attribute(TENANT, Value::Null).unwrap();
        assert!(acceptable(&sdk::RetrievalFilter::NotEquals(attribute)).is_err());
    }

    fn attribute_value() -> impl Strategy<Value = Json> {
        prop_oneof![
            (-1_i64..4).prop_map(|number| json!(number)),
            Just(json!(1.5)),
            select(["a", "b", "*", "acme", "acme-2", "bulkhead-shared", "hr"].as_slice()).prop_map(|text| json!(text)),
            any::<bool>().prop_map(|value| json!(value)),
        ]
    }

    fn key() -> impl Strategy<Value = &'static str> {
        prop_oneof![
            4 => select(["season", "kind", "public"].as_slice()),
            1 => select([TENANT, AUDIENCE, "documentId", "title", "tenantid", "", "x-amz-bedrock-kb-source-uri"].as_slice()),
        ]
    }

    /// A condition of the right form, over any key.
    fn leaf() -> impl Strategy<Value = Json> {
        prop_oneof![
            // Kinds that fit, so that many get through.
            (-1_i64..4).prop_map(|number| json!({"equals": {"key": "season", "value": number}})),
            select(["a", "b", "acme-2"].as_slice()).prop_map(|text| json!({"equals": {"key": "kind", "value": text}})),
            any::<bool>().prop_map(|value| json!({"equals": {"key": "public", "value": value}})),
            (-1_i64..3, 0_i64..3)
                .prop_map(|(from, more)| json!({"range": {"key": "season", "from": from, "to": from + more}})),
            (-1_i64..3).prop_map(|from| json!({"range": {"key": "season", "from": from}})),
            (-1_i64..3).prop_map(|to| json!({"range": {"key": "season", "to": to, "from": null}})),
            (key(), attribute_value()).prop_map(|(key, value)| json!({"equals": {"key": key, "value": value}})),
        ]
    }

    /// What a caller may send as `filter`: of the contract's forms, and of others.
    fn filter() -> impl Strategy<Value = Json> {
        let leaves = |most| proptest::collection::vec(leaf(), 0..=most);
        let hostile = [
            json!({}),
            json!([]),
            json!({"notEquals": {"key": "season", "value": 9}}),
            json!({"not": {"equals": {"key": TENANT, "value": "acme"}}}),
            json!({"orAll": [{"equals": {"key": TENANT, "value": "acme-2"}}]}),
            json!({"any": [{"any": [{"equals": {"key": "kind", "value": "a"}}]}]}),
            json!({"all": [{"in": {"key": "kind", "values": ["a"]}}]}),
            json!({"equals": {"key": "kind", "value": "a"}, "any": []}),
            json!({"equals": {"key": "kind", "value": ["a"]}}),
            json!({"equals": {"key": "kind", "value": {"$ne": 1}}}),
            json!({"equals": {"key": "kind", "value": "a", "or": true}}),
            json!({"range": {"key": "season"}}),
        ];
        prop_oneof![
            2 => Just(Json::Null),
            4 => leaf(),
            4 => leaves(4).prop_map(|leaves| json!({"all": leaves})),
            4 => leaves(6).prop_map(|leaves| json!({"any": leaves})),
            2 => proptest::collection::vec(-1_i64..4, 0..=6)
                .prop_map(|values| json!({"in": {"key": "season", "values": values}})),
            2 => (key(), proptest::collection::vec(attribute_value(), 0..=6))
                .prop_map(|(key, values)| json!({"in": {"key": key, "values": values}})),
            1 => proptest::sample::select(hostile.to_vec()),
        ]
    }

    /// What a document may be tagged with, by us or by whoever got into the bucket.
    fn metadata() -> impl Strategy<Value = Metadata> {
        let text =
            |texts: &'static [&'static str]| select(texts).prop_map(|text| Value::String(text.to_owned())).boxed();
        let odd = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            "\\PC{0,8}".prop_map(Value::String),
            proptest::collection::vec(text(&["acme", "*", "hr"]), 0..3).prop_map(Value::Array),
        ]
        .boxed();
        let owner = prop_oneof![
            9 => text(&["acme", "acme", "acme-2", "bulkhead-shared", "Acme", "acme ", "*"]),
            1 => odd.clone()
        ];
        let audience =
            prop_oneof![9 => text(&["*", "*", "hr", "legal", "board", "it", "sales", "**"]), 1 => odd.clone()];
        let number = prop_oneof![
            (0_u64..4).prop_map(|number| Value::Number(SdkNumber::PosInt(number))),
            (-1_i32..4).prop_map(|number| Value::Number(SdkNumber::Float(f64::from(number)))),
            Just(Value::Number(SdkNumber::Float(1.5))),
        ];
        let maybe = |value: BoxedStrategy<Value>| proptest::option::weighted(0.8, value);
        (
            proptest::option::weighted(0.95, owner),
            proptest::option::weighted(0.95, audience),
            maybe(prop_oneof![9 => number, 1 => odd.clone()].boxed()),
            maybe(prop_oneof![9 => text(&["a", "b", "acme-2", "*"]), 1 => odd].boxed()),
            maybe(any::<bool>().prop_map(Value::Bool).boxed()),
        )
            .prop_map(|(owner, audience, season, kind, public)| {
                [
                    (TENANT, owner),
                    (AUDIENCE, audience),
                    ("season", season),
                    ("kind", kind),
                    ("public", public),
                ]
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), value?)))
                .collect()
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn every_match_is_the_tenants_and_for_the_caller_and_wanted(
            declared in subsequence(NAMES.as_slice(), 0..=4),
            groups in subsequence(NAMES.as_slice(), 0..=5),
            attributes in subsequence(ATTRIBUTES.as_slice(), 1..=3),
            shared: bool,
            filter in filter(),
            documents in proptest::collection::vec(metadata(), 1..24),
        ) {
            let profile = profile(&declared, &attributes);
            // What is refused searches nothing.
            let Some(compiled) = asked(&profile, &groups, shared, &filter) else { return Ok(()) };
            within_limits(&compiled, 0);
            for metadata in documents {
                let text = |key: &str| metadata.get(key).and_then(Value::as_string);
                let owned = match text(TENANT) {
                    Some("acme") => true,
                    Some("bulkhead-shared") => shared,
                    _ => false,
                };
                let readable = match text(AUDIENCE) {
                    Some("*") => true,
                    Some(group) => declared.contains(&group) && groups.contains(&group),
                    None => false,
                };
                // A tenant that declares no groups has no document for one: its documents are told by their owner alone.
                let expected = owned && (readable || declared.is_empty()) && wants(&filter, &metadata);
                prop_assert_eq!(matches(&compiled, &metadata), expected, "{} {:?}", show(&compiled), metadata);
            }
        }

        /// Over the documents that can be: those for everyone, and those for a group that their own tenant declares.
        #[test]
        fn without_a_group_nobody_sees_what_is_for_one(
            declared in subsequence(NAMES.as_slice(), 0..=4),
            groups in subsequence(NAMES.as_slice(), 0..=5),
            shared: bool,
            filter in filter(),
            others in proptest::collection::vec((select(["acme-2", "acme"].as_slice()), select(NAMES.as_slice())), 0..16),
        ) {
            let profile = profile(&declared, &ATTRIBUTES);
            let Some(compiled) = asked(&profile, &groups, shared, &filter) else { return Ok(()) };
            for (owner, audience) in others {
                let undeclared = owner == "acme" && !declared.contains(&audience);
                let readable = owner == "acme" && groups.contains(&audience);
                let metadata = Metadata::from([
                    (TENANT.to_owned(), text(owner)),
                    (AUDIENCE.to_owned(), text(audience)),
                    ("season".to_owned(), Value::Number(SdkNumber::PosInt(1))),
                    ("kind".to_owned(), text("a")),
                    ("public".to_owned(), Value::Bool(true)),
                ]);
                prop_assert!(undeclared || readable || !matches(&compiled, &metadata));
            }
        }
    }
}
