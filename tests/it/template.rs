//! What the template must say so that functions find what they read, and nothing besides.

use std::collections::BTreeSet;

use integration_tests::repository;

/// The variables that a crate reads, by their names in its text.
fn variables_read(package: &str) -> BTreeSet<String> {
    let mut variables = BTreeSet::new();
    for file in repository::sources(package) {
        let text = std::fs::read_to_string(&file).unwrap();
        // Unit tests may make up names.
        let text = text.split("#[cfg(test)]").next().unwrap();
        let name = |part: &&str| {
            part.starts_with("BULKHEAD_") && part.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
        };
        variables.extend(text.split('"').filter(name).map(str::to_owned));
    }
    variables
}

#[test]
fn functions_and_binaries_are_the_same_set_and_each_is_given_the_variables_it_reads() {
    let template = repository::template();
    let packages: BTreeSet<&str> = template
        .functions
        .iter()
        .map(|function| function.package.as_str())
        .collect();
    assert_eq!(
        packages,
        BTreeSet::from(["authorizer", "query-handler", "tenant-admin", "control-plane"])
    );
    for function in &template.functions {
        let given: BTreeSet<String> = function
            .environment
            .keys()
            .filter(|name| name.starts_with("BULKHEAD_"))
            .cloned()
            .collect();
        let read = variables_read(&function.package);
        let unset: Vec<&String> = read.difference(&given).collect();
        assert_eq!(
            unset,
            Vec::<&String>::new(),
            "{} reads what the template does not set",
            function.package
        );
        let unread: Vec<&String> = given.difference(&read).collect();
        assert_eq!(
            unread,
            Vec::<&String>::new(),
            "{} is given what it does not read",
            function.package
        );
    }
}

#[test]
fn exactly_the_functions_that_touch_a_tenants_data_are_isolated() {
    let template = repository::template();
    let isolated: BTreeSet<&str> = template
        .functions
        .iter()
        .filter(|function| function.per_tenant)
        .map(|function| function.package.as_str())
        .collect();
    assert_eq!(isolated, BTreeSet::from(["query-handler", "tenant-admin"]));
}

#[test]
fn nobody_but_api_gateway_may_invoke_a_function() {
    let template = repository::template();
    for permission in &template.permissions {
        assert_eq!(permission.principal, "apigateway.amazonaws.com");
        assert!(
            permission
                .source_arn
                .as_deref()
                .is_some_and(|arn| arn.contains(":execute-api:")),
            "{permission:?}"
        );
    }
    assert_eq!(template.permissions.len(), template.functions.len());
}
