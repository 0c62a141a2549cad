//! Known answers: what AWS's pages on policy elements, variables and set operators say, case by case.

use super::*;
use serde_json::json;

const TABLE: &str = "arn:aws:dynamodb:us-east-1:123456789012:table/t";

fn statement(text: Value) -> Result<Vec<Statement>, PolicyError> {
    let document = json!({"Version": "2012-10-17", "Statement": [text]});
    Statement::read_all(&document, "Role", "policy", PolicyKind::Identity)
}

/// Whether a statement with these elements allows an action on a resource.
fn allows(elements: &Value, action: &str, resource: &str, context: Context) -> bool {
    let mut text = json!({"Sid": "A", "Effect": "Allow", "Action": "*", "Resource": "*"});
    for (name, value) in elements.as_object().unwrap() {
        text[name] = value.clone();
    }
    let need = Need {
        action: action.to_owned(),
        resource: resource.to_owned(),
        context,
    };
    evaluate(&statement(text).unwrap(), &need, &[]) != Verdict::NotAllowed
}

fn context(pairs: &[(&str, &[&str])]) -> Context {
    pairs.iter().fold(Context::default(), |context, (key, values)| {
        context.with(key, values.iter().copied())
    })
}

fn holds(condition: Value, pairs: &[(&str, &[&str])]) -> bool {
    allows(
        &json!({"Condition": condition}),
        "dynamodb:GetItem",
        TABLE,
        context(pairs),
    )
}

#[test]
fn actions_have_wildcards_and_no_case() {
    for (pattern, action, expected) in [
        ("dynamodb:GetItem", "dynamodb:GetItem", true),
        ("DynamoDB:getitem", "dynamodb:GetItem", true),
        ("dynamodb:Get*", "dynamodb:GetItem", true),
        ("dynamodb:Get*", "dynamodb:BatchGetItem", false),
        ("dynamodb:GetIte?", "dynamodb:GetItem", true),
        ("dynamodb:GetItem?", "dynamodb:GetItem", false),
        ("s3:*", "dynamodb:GetItem", false),
        ("*", "dynamodb:GetItem", true),
        ("dynamodb:GetItem", "dynamodb:GetItems", false),
    ] {
        let elements = json!({"Action": [pattern]});
        assert_eq!(
            allows(&elements, action, TABLE, Context::default()),
            expected,
            "{pattern} {action}"
        );
    }
}

#[test]
fn resources_have_wildcards_that_stay_within_their_part() {
    for (pattern, resource, expected) in [
        ("arn:aws:s3:::b/t/*", "arn:aws:s3:::b/t/acme/x.txt", true),
        ("arn:aws:s3:::b/t/*", "arn:aws:s3:::b/t/", true),
        ("arn:aws:s3:::b/t/*", "arn:aws:s3:::b/u/acme", false),
        ("arn:aws:s3:::b/t/*", "arn:aws:s3:::b", false),
        ("arn:aws:s3:::b", "arn:aws:s3:::b/x", false),
        ("arn:aws:s3:::*/x", "arn:aws:s3:::b/t/x", true),
        (
            "arn:aws:bedrock:*::foundation-model/m:0",
            "arn:aws:bedrock:us-east-1::foundation-model/m:0",
            true,
        ),
        (
            "arn:aws:bedrock:*::foundation-model/m:0",
            "arn:aws:bedrock:us-east-1:1:foundation-model/m:0",
            false,
        ),
        ("arn:aws:bedrock:*:1:x/*", "arn:aws:bedrock:us:2:1:x/y", false),
        ("arn:aws:s3:::B/x", "arn:aws:s3:::b/x", false),
        ("arn:aws:s3:::b/a?c", "arn:aws:s3:::b/abc", true),
        ("arn:aws:s3:::b/a${*}c", "arn:aws:s3:::b/abc", false),
        ("arn:aws:s3:::b/a${*}c", "arn:aws:s3:::b/a*c", true),
        ("*", "*", true),
        ("arn:aws:s3:::b/*", "*", false),
    ] {
        let elements = json!({"Resource": pattern});
        assert_eq!(
            allows(&elements, "s3:GetObject", resource, Context::default()),
            expected,
            "{pattern} {resource}"
        );
    }
}

#[test]
fn a_variable_stands_for_itself_and_for_nothing_without_a_value() {
    let pattern = json!({"Resource": "arn:aws:s3:::b/t/${aws:PrincipalTag/tenant}/*"});
    for (tag, resource, expected) in [
        (Some("acme"), "arn:aws:s3:::b/t/acme/x", true),
        (Some("acme"), "arn:aws:s3:::b/t/acme/x/y", true),
        (Some("acme"), "arn:aws:s3:::b/t/acme-2/x", false),
        (Some("acme"), "arn:aws:s3:::b/t/acm/x", false),
        (Some("*"), "arn:aws:s3:::b/t/acme/x", false),
        (Some("a?me"), "arn:aws:s3:::b/t/acme/x", false),
        (Some(""), "arn:aws:s3:::b/t//x", true),
        (None, "arn:aws:s3:::b/t//x", false),
        (None, "arn:aws:s3:::b/t/${aws:PrincipalTag/tenant}/x", false),
    ] {
        let context = Context::default().with("aws:PrincipalTag/tenant", tag);
        assert_eq!(
            allows(&pattern, "s3:GetObject", resource, context),
            expected,
            "{tag:?} {resource}"
        );
    }
    let condition =
        json!({"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": ["TENANT#${aws:principaltag/tenant}"]}});
    let keys = |keys: &'static [&'static str], tag: &'static [&'static str]| {
        holds(
            condition.clone(),
            &[("dynamodb:LeadingKeys", keys), ("aws:PrincipalTag/tenant", tag)],
        )
    };
    assert!(keys(&["TENANT#acme"], &["acme"]));
    assert!(!keys(&["TENANT#acme-2"], &["acme"]));
    assert!(!keys(&["TENANT#acme", "TENANT#acme-2"], &["acme"]));
    assert!(!keys(&["TENANT#"], &[]));
    assert!(!keys(&["TENANT#x"], &["*"]));
}

#[test]
fn operators_compare_as_documented() {
    let key = "aws:requesttag/tenant";
    let cases: [(Value, &[&str], bool); 20] = [
        (json!({"StringEquals": {key: "a"}}), &["a"], true),
        (json!({"StringEquals": {key: "A"}}), &["a"], false),
        (json!({"StringEquals": {key: ["x", "a"]}}), &["a"], true),
        (json!({"StringEquals": {key: "*"}}), &["a"], false),
        (json!({"StringEquals": {key: "a"}}), &[], false),
        (json!({"StringEqualsIfExists": {key: "a"}}), &[], true),
        (json!({"StringEqualsIfExists": {key: "a"}}), &["b"], false),
        (json!({"StringNotEquals": {key: ["x", "a"]}}), &["a"], false),
        (json!({"StringNotEquals": {key: ["x", "y"]}}), &["a"], true),
        (json!({"StringNotEquals": {key: "a"}}), &[], true),
        (json!({"StringLike": {key: "a*"}}), &["abc"], true),
        (json!({"StringLike": {key: "?*"}}), &[""], false),
        (json!({"StringLike": {key: "*${*}*"}}), &["a*b"], true),
        (json!({"StringLike": {key: "*${*}*"}}), &["ab"], false),
        (json!({"StringNotLike": {key: ["*/*", "*#*"]}}), &["a/b"], false),
        (json!({"StringNotLike": {key: ["*/*", "*#*"]}}), &["ab"], true),
        (json!({"Null": {key: "true"}}), &[], true),
        (json!({"Null": {key: "true"}}), &["a"], false),
        (json!({"Null": {key: false}}), &["a"], true),
        (json!({"Null": {key: "false"}}), &[], false),
    ];
    for (condition, values, expected) in cases {
        let got = holds(condition.clone(), &[("aws:RequestTag/tenant", values)]);
        assert_eq!(got, expected, "{condition} {values:?}");
    }
    assert!(holds(
        json!({"Bool": {"aws:SecureTransport": "true"}}),
        &[("aws:SecureTransport", &["true"])]
    ));
    assert!(!holds(
        json!({"Bool": {"aws:SecureTransport": "false"}}),
        &[("aws:SecureTransport", &["true"])]
    ));
    let arn = json!({"ArnLike": {"aws:SourceArn": "arn:aws:bedrock:us-east-1:1:knowledge-base/*"}});
    assert!(holds(
        arn.clone(),
        &[("aws:SourceArn", &["arn:aws:bedrock:us-east-1:1:knowledge-base/KB"])]
    ));
    assert!(!holds(
        arn,
        &[("aws:SourceArn", &["arn:aws:bedrock:us-east-1:2:knowledge-base/KB"])]
    ));
}

#[test]
fn set_operators_count_all_values_or_any() {
    let key = "dynamodb:LeadingKeys";
    let cases: [(Value, &[&str], bool); 10] = [
        (
            json!({"ForAllValues:StringEquals": {key: ["a", "b"]}}),
            &["a", "b"],
            true,
        ),
        (
            json!({"ForAllValues:StringEquals": {key: ["a", "b"]}}),
            &["a", "c"],
            false,
        ),
        // The trap: nothing is all of it.
        (json!({"ForAllValues:StringEquals": {key: ["a"]}}), &[], true),
        (
            json!({"ForAllValues:StringEquals": {key: ["a"]}, "Null": {key: "false"}}),
            &[],
            false,
        ),
        (json!({"ForAllValues:StringLike": {key: ["a*"]}}), &["ab", "ac"], true),
        (json!({"ForAnyValue:StringEquals": {key: ["a"]}}), &["a", "c"], true),
        (json!({"ForAnyValue:StringEquals": {key: ["a"]}}), &["b", "c"], false),
        (json!({"ForAnyValue:StringEquals": {key: ["a"]}}), &[], false),
        (
            json!({"ForAllValues:StringNotEquals": {key: ["a"]}}),
            &["b", "a"],
            false,
        ),
        (json!({"ForAnyValue:StringNotEquals": {key: ["a"]}}), &["b", "a"], true),
    ];
    for (condition, values, expected) in cases {
        assert_eq!(
            holds(condition.clone(), &[(key, values)]),
            expected,
            "{condition} {values:?}"
        );
    }
}

#[test]
fn one_deny_outweighs_every_allow() {
    let allow = statement(json!({"Sid": "A", "Effect": "Allow", "Action": "s3:*", "Resource": "*"})).unwrap();
    let deny = statement(json!({"Sid": "D", "Effect": "Deny", "Action": "s3:PutObject", "Resource": "*"})).unwrap();
    let all: Vec<Statement> = [allow.clone(), deny].concat();
    let need = |action: &str| Need {
        action: action.to_owned(),
        resource: "arn:aws:s3:::b/x".to_owned(),
        context: Context::default(),
    };
    let named = |sid| vec![StatementName::new("Role", "policy", sid)];
    assert_eq!(evaluate(&all, &need("s3:PutObject"), &[]), Verdict::Denied(named("D")));
    assert_eq!(evaluate(&all, &need("s3:GetObject"), &[]), Verdict::Allowed(named("A")));
    assert_eq!(evaluate(&allow, &need("sqs:SendMessage"), &[]), Verdict::NotAllowed);
}

#[test]
fn what_is_not_known_is_an_error() {
    let good = json!({"Sid": "A", "Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"});
    assert!(statement(good.clone()).is_ok());
    for (name, value, problem) in [
        ("Sid", Value::Null, "no Sid"),
        ("Effect", json!("allow"), "Effect"),
        ("NotAction", json!("s3:PutObject"), "NotAction"),
        ("NotResource", json!("*"), "NotResource"),
        ("Principal", json!("*"), "Principal"),
        ("Action", json!([]), "Action"),
        ("Action", json!("s3:${aws:PrincipalTag/x}"), "no action"),
        ("Resource", json!("bucket"), "no ARN"),
        ("Resource", json!("arn:aws:s3:::${aws:username}"), "aws:username"),
        ("Resource", json!("arn:aws:s3:::${aws:PrincipalTag/t, 'x'}"), "variable"),
        ("Resource", json!("arn:aws:s3:${aws:PrincipalTag/t}::x"), "variable"),
        ("Resource", json!("arn:aws:s3:::${aws:PrincipalTag/t"), "variable"),
        ("Condition", json!({"StringLook": {"a": "b"}}), "StringLook"),
        ("Condition", json!({"ForSome:StringEquals": {"a": "b"}}), "ForSome"),
        ("Condition", json!({"NullIfExists": {"a": "true"}}), "NullIfExists"),
        ("Condition", json!({"Null": {"a": "yes"}}), "true or false"),
        (
            "Condition",
            json!({"StringNotEquals": {"aws:SourceAcount": "1"}}),
            "aws:SourceAcount is not known",
        ),
        ("Resource", json!("arn:aws:s*:::b"), "wildcard"),
        // AWS gives a set operator on one value no meaning, and needs one for several.
        (
            "Condition",
            json!({"ForAllValues:StringEquals": {"aws:SourceArn": "b"}}),
            "is not for",
        ),
        (
            "Condition",
            json!({"StringEquals": {"dynamodb:LeadingKeys": "b"}}),
            "is not for",
        ),
        (
            "Condition",
            json!({"StringNotEquals": {"aws:SourceArn": "${aws:PrincipalTag/t}"}}),
            "variable",
        ),
        (
            "Condition",
            json!({"DateLessThan": {"aws:CurrentTime": "2026-01-01"}}),
            "DateLessThan",
        ),
    ] {
        let mut text = good.clone();
        text[name] = value;
        if text[name].is_null() {
            text.as_object_mut().unwrap().remove(name);
        }
        let error = statement(text.clone()).unwrap_err().to_string();
        assert!(error.contains(problem), "{text}: {error}");
    }
    let twice = json!({"Version": "2012-10-17", "Statement": [good, good]});
    let error = Statement::read_all(&twice, "Role", "policy", PolicyKind::Identity).unwrap_err();
    assert!(error.to_string().contains("twice"), "{error}");
    let old = json!({"Version": "2008-10-17", "Statement": []});
    assert!(Statement::read_all(&old, "Role", "policy", PolicyKind::Identity).is_err());
}
