//! Which passages a search may see: the third lock.
//!
//! Bedrock applies a filter to one request, not to a session, and without one it searches all tenants' documents. So a
//! search takes a [`RetrievalFilter`], and there is none without a [`TenantContext`].

use aws_sdk_bedrockagentruntime::types::{self as sdk, FilterAttribute};
use aws_smithy_types::Document as Value;
use bulkhead_core::error::Error;
use bulkhead_core::profile::Profile;
use bulkhead_core::tenant::{Group, TenantContext, TenantId};

/// The sidecar's attribute that says whose a document is.
pub const TENANT: &str = "tenantId";
/// The sidecar's attribute that says who of the tenant may read a document.
pub const AUDIENCE: &str = "audience";
/// The audience of a document that all users of the tenant may read.
const EVERYONE: &str = "*";

/// The members that Bedrock wants a group to have
/// (<https://docs.aws.amazon.com/bedrock/latest/APIReference/API_agent-runtime_RetrievalFilter.html>).
const MEMBERS: std::ops::RangeInclusive<usize> = 2..=5;

/// The passages that one caller may see: those of the tenant, and of them those for everyone or for a group that the
/// caller is in and the tenant declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetrievalFilter {
    tenant: TenantId,
    audience: Option<Vec<Group>>,
}

impl RetrievalFilter {
    /// What the caller may see.
    ///
    /// # Errors
    /// [`Error::Isolation`] if the profile is another tenant's.
    pub fn new(context: &TenantContext, profile: &Profile) -> Result<Self, Error> {
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
            audience,
        })
    }

    /// The filter in Bedrock's terms. Only `equals`, `andAll` and `orAll`: `notEquals` would match documents that lost
    /// their sidecar.
    ///
    /// # Errors
    /// [`Error::Internal`] if Bedrock would not take it.
    pub fn compile(&self) -> Result<sdk::RetrievalFilter, Error> {
        let tenant = equals(TENANT, self.tenant.as_str())?;
        let Some(groups) = &self.audience else {
            return Ok(tenant);
        };
        let audience: Vec<_> = std::iter::once(EVERYONE)
            .chain(groups.iter().map(Group::as_str))
            .map(|audience| equals(AUDIENCE, audience))
            .collect::<Result<_, Error>>()?;
        let filter = group(
            vec![tenant, group(audience, sdk::RetrievalFilter::OrAll)?],
            sdk::RetrievalFilter::AndAll,
        )?;
        acceptable(&filter)?;
        Ok(filter)
    }
}

fn equals(key: &str, value: &str) -> Result<sdk::RetrievalFilter, Error> {
    let attribute = FilterAttribute::builder()
        .key(key)
        .value(Value::String(value.to_owned()))
        .build()
        .map_err(Error::internal)?;
    Ok(sdk::RetrievalFilter::Equals(attribute))
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

/// Checks the finished filter, not its parts: wrapping adds members and levels. Groups stand in one group at most.
fn acceptable(filter: &sdk::RetrievalFilter) -> Result<(), Error> {
    fn depth(filter: &sdk::RetrievalFilter) -> Result<usize, Error> {
        match filter {
            sdk::RetrievalFilter::Equals(_) => Ok(0),
            sdk::RetrievalFilter::AndAll(members) | sdk::RetrievalFilter::OrAll(members) => {
                if !MEMBERS.contains(&members.len()) {
                    return Err(Error::internal("a filter with a group of too few or too many"));
                }
                let depths: Vec<usize> = members.iter().map(depth).collect::<Result<_, Error>>()?;
                Ok(1 + depths.into_iter().max().unwrap_or_default())
            }
            _ => Err(Error::internal("a filter with an operator that we never use")),
        }
    }
    if depth(filter)? > 2 {
        return Err(Error::internal("a filter with groups in groups in groups"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use proptest::sample::{select, subsequence};

    use super::*;
    use crate::fixture;

    const NAMES: [&str; 5] = ["hr", "legal", "board", "it", "sales"];

    fn filter(tenant: &str, declared: &[&str], groups: &[&str]) -> RetrievalFilter {
        let context = fixture::context(tenant, groups);
        RetrievalFilter::new(&context, &fixture::profile(tenant, declared)).unwrap()
    }

    /// A short form for reading: `tenantId=acme`, `and(…)`, `or(…)`.
    fn show(filter: &sdk::RetrievalFilter) -> String {
        let list = |members: &[sdk::RetrievalFilter]| members.iter().map(show).collect::<Vec<_>>().join(", ");
        match filter {
            sdk::RetrievalFilter::Equals(leaf) => format!("{}={}", leaf.key(), leaf.value().as_string().unwrap()),
            sdk::RetrievalFilter::AndAll(members) => format!("and({})", list(members)),
            sdk::RetrievalFilter::OrAll(members) => format!("or({})", list(members)),
            other => panic!("{other:?}"),
        }
    }

    /// Bedrock's meaning of a filter.
    fn matches(filter: &sdk::RetrievalFilter, metadata: &HashMap<String, Value>) -> bool {
        match filter {
            sdk::RetrievalFilter::Equals(leaf) => metadata.get(leaf.key()) == Some(leaf.value()),
            sdk::RetrievalFilter::AndAll(members) => members.iter().all(|member| matches(member, metadata)),
            sdk::RetrievalFilter::OrAll(members) => members.iter().any(|member| matches(member, metadata)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_filter_has_the_form_that_the_design_says() {
        for (declared, groups, expected) in [
            (&[][..], &[][..], "tenantId=acme"),
            // A token may name what it likes: only declared groups count.
            (&[], &["hr"], "tenantId=acme"),
            (&["hr"], &[], "and(tenantId=acme, audience=*)"),
            (&["hr"], &["legal"], "and(tenantId=acme, audience=*)"),
            (
                &["hr", "legal"],
                &["hr", "it"],
                "and(tenantId=acme, or(audience=*, audience=hr))",
            ),
            (
                &["hr", "legal", "board", "it"],
                &["board", "hr", "it", "legal"],
                "and(tenantId=acme, or(audience=*, audience=board, audience=hr, audience=it, audience=legal))",
            ),
        ] {
            assert_eq!(show(&filter("acme", declared, groups).compile().unwrap()), expected);
        }
    }

    #[test]
    fn another_tenants_profile_opens_nothing() {
        let context = fixture::context("acme", &[]);
        assert!(matches!(
            RetrievalFilter::new(&context, &fixture::profile("acme-2", &[])),
            Err(Error::Isolation { .. })
        ));
    }

    #[test]
    fn what_bedrock_would_not_take_is_never_sent() {
        assert!(filter("acme", &NAMES, &NAMES).compile().is_err());
        let leaf = || equals(TENANT, "acme").unwrap();
        let and = |members| sdk::RetrievalFilter::AndAll(members);
        assert!(acceptable(&and(vec![leaf(), and(vec![leaf(), leaf()])])).is_ok());
        assert!(acceptable(&and(vec![leaf()])).is_err());
        assert!(acceptable(&and(vec![leaf(), and(vec![leaf(), and(vec![leaf(), leaf()])])])).is_err());
        let attribute = FilterAttribute::builder()
            .key(TENANT)
            .value(Value::Null)
            .build()
            .unwrap();
        assert!(acceptable(&sdk::RetrievalFilter::NotEquals(attribute)).is_err());
    }

    fn value() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            select(
                [
                    "acme", "acme-2", "*", "Acme", "acme ", "hr", "legal", "board", "it", "sales"
                ]
                .as_slice()
            )
            .prop_map(str::to_owned),
            "\\PC{0,8}",
        ];
        let text = text.prop_map(Value::String).boxed();
        prop_oneof![
            8 => text.clone(),
            1 => Just(Value::Null),
            1 => any::<bool>().prop_map(Value::Bool),
            1 => proptest::collection::vec(text, 0..3).prop_map(Value::Array),
        ]
    }

    proptest! {
        #[test]
        fn every_match_is_the_tenants_and_for_the_caller(
            declared in subsequence(NAMES.as_slice(), 0..=4),
            groups in subsequence(NAMES.as_slice(), 0..=5),
            metadata in proptest::collection::hash_map(
                select([TENANT, AUDIENCE, "documentId"].as_slice()).prop_map(str::to_owned),
                value(),
                0..4,
            ),
        ) {
            let compiled = filter("acme", &declared, &groups).compile().unwrap();
            if matches(&compiled, &metadata) {
                prop_assert_eq!(metadata.get(TENANT), Some(&Value::String("acme".to_owned())));
                if !declared.is_empty() {
                    let audience = metadata.get(AUDIENCE).and_then(Value::as_string).unwrap();
                    prop_assert!(audience == "*" || (declared.contains(&audience) && groups.contains(&audience)));
                }
            }
        }
    }
}
