//! What the template must say so that functions find what they read, and nothing besides.

use std::collections::BTreeSet;

use bulkhead_local::document::{self, ShortForm};
use bulkhead_local::template::{Role, Template};
use data_encoding::HEXLOWER;
use integration_tests::repository;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// The template as it is written.
fn written() -> Value {
    document::load(&repository::root().join("infra/template.yaml"), ShortForm::Accepted).unwrap()
}

/// The variables that a crate reads, by their names in its text, and those that every function reads with the core's
/// telemetry.
fn variables_read(package: &str) -> BTreeSet<String> {
    let mut variables = BTreeSet::new();
    let mut files = repository::sources(package);
    files.push(repository::root().join("core/src/telemetry.rs"));
    for file in files {
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
    let template = repository::whole_template();
    let packages: BTreeSet<&str> = template
        .functions
        .iter()
        .map(|function| function.package.as_str())
        .collect();
    assert_eq!(
        packages,
        BTreeSet::from([
            "authorizer",
            "query-handler",
            "tenant-admin",
            "control-plane",
            "model-logging"
        ])
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
    let template = repository::whole_template();
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
    // CloudFormation invokes what is behind a custom resource as whoever deploys.
    assert_eq!(
        repository::whole_template().permissions.len(),
        template.permissions.len()
    );
}

#[test]
fn nothing_of_model_invocation_logging_is_made_unless_asked_for() {
    let of_logging = |template: &Template| -> BTreeSet<String> {
        let functions = template.functions.iter().map(|function| &function.logical_id);
        let roles = template.roles.iter().map(|role| &role.logical_id);
        let names = functions.chain(roles).map(ToString::to_string);
        names.filter(|name| name.starts_with("Model")).collect()
    };
    assert_eq!(of_logging(&repository::template()), BTreeSet::new());
    let expected = ["ModelInvocationLogsRole", "ModelLoggingFunction", "ModelLoggingRole"];
    assert_eq!(
        of_logging(&repository::whole_template()),
        expected.map(str::to_owned).into()
    );
}

/// One or several, as policies may say either.
fn list(value: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{value}")).to_owned();
    match value {
        Value::Null => Vec::new(),
        Value::Array(values) => values.iter().map(text).collect(),
        one => vec![text(one)],
    }
}

/// The statements of a role's own policies.
fn statements(role: &Role) -> Vec<&Value> {
    let policies = role.properties["Policies"].as_array().into_iter().flatten();
    let statements = policies.flat_map(|policy| policy["PolicyDocument"]["Statement"].as_array().unwrap());
    statements.collect()
}

/// The role that a function assumes for its tenants' data.
fn data_role<'a>(template: &'a Template, package: &str) -> &'a Role {
    let mut functions = template.functions.iter();
    let function = functions.find(|function| function.package == package).unwrap();
    let arn = &function.environment["BULKHEAD_DATA_ROLE_ARN"];
    template.roles.iter().find(|role| role.arn == *arn).unwrap()
}

#[test]
fn policies_name_their_actions_and_their_keys() {
    let template = repository::whole_template();
    let mut keyed = 0;
    for role in &template.roles {
        for statement in statements(role) {
            let name = format!("{}/{}", role.logical_id, statement["Sid"]);
            assert_eq!(statement["Effect"], "Allow", "{name}");
            let actions = list(&statement["Action"]);
            for action in &actions {
                assert!(!action.contains(['*', '?']), "{name}: {action}");
                let (service, operation) = action.split_once(':').unwrap();
                let is_keyless = ["Scan", "PartiQL", "Execute", "Search"]
                    .iter()
                    .any(|word| operation.contains(word));
                assert!(service != "dynamodb" || !is_keyless, "{name}: {action}");
            }
            if actions.iter().any(|action| action.starts_with("dynamodb:")) {
                keyed += 1;
                let condition = &statement["Condition"];
                // `ForAllValues` alone is true of a request without keys.
                assert_eq!(condition["Null"], json!({"dynamodb:LeadingKeys": "false"}), "{name}");
                let matches = ["ForAllValues:StringEquals", "ForAllValues:StringLike"];
                let keys: Vec<String> = matches
                    .iter()
                    .flat_map(|operator| list(&condition[operator]["dynamodb:LeadingKeys"]))
                    .collect();
                assert!(!keys.is_empty() && condition.as_object().unwrap().len() == 2, "{name}");
            }
        }
    }
    assert!(keyed > 8, "{keyed}");
}

#[test]
fn a_tenants_data_is_the_data_roles_business_and_only_the_tenants() {
    let template = repository::template();
    let own = "${aws:PrincipalTag/tenant}";
    let reads = ["dynamodb:BatchGetItem", "dynamodb:GetItem", "s3:GetObject"];
    let bucket = &template.buckets[0].name;
    for package in ["query-handler", "tenant-admin"] {
        let role = data_role(&template, package);
        for statement in statements(role) {
            let name = format!("{}/{}", role.logical_id, statement["Sid"]);
            let actions = list(&statement["Action"]);
            let is_read = actions.iter().all(|action| reads.contains(&action.as_str()));
            let keys = list(&statement["Condition"]["ForAllValues:StringEquals"]["dynamodb:LeadingKeys"]);
            for key in &keys {
                let allowed = match key.as_str() {
                    "LEASE#ingestion" => package == "tenant-admin",
                    "TENANT#bulkhead-shared" => is_read,
                    key if key == format!("PROFILE#{own}") => actions == ["dynamodb:GetItem"],
                    key => key == format!("TENANT#{own}"),
                };
                assert!(allowed, "{name}: {actions:?} on {key}");
            }
            if keys.is_empty() {
                assert!(
                    actions
                        .iter()
                        .all(|action| action.starts_with("s3:") && action.ends_with("Object"))
                );
                for resource in list(&statement["Resource"]) {
                    let key = resource.strip_prefix(&format!("arn:aws:s3:::{bucket}/")).unwrap();
                    let is_own = ["t", "u"].iter().any(|folder| key == format!("{folder}/{own}/*"));
                    assert!(
                        is_own || (key == "t/bulkhead-shared/*" && is_read),
                        "{name}: {actions:?} on {key}"
                    );
                }
            }
        }
    }
    // Nobody else touches what tenants keep: functions themselves have their logs and Bedrock.
    let data: Vec<&str> = ["query-handler", "tenant-admin"]
        .map(|package| data_role(&template, package).arn.as_str())
        .to_vec();
    for role in template.roles.iter().filter(|role| !data.contains(&role.arn.as_str())) {
        for statement in statements(role) {
            let keys = list(&statement["Condition"]["ForAllValues:StringLike"]["dynamodb:LeadingKeys"]);
            assert!(
                !keys
                    .iter()
                    .any(|key| key.starts_with("TENANT#") || key.starts_with('*')),
                "{statement}"
            );
        }
    }
    for function in template.functions.iter().filter(|function| function.per_tenant) {
        let role = template
            .roles
            .iter()
            .find(|role| role.logical_id == function.role)
            .unwrap();
        for action in statements(role).iter().flat_map(|statement| list(&statement["Action"])) {
            assert!(
                action.starts_with("logs:") || action.starts_with("bedrock:"),
                "{action}"
            );
        }
    }
}

#[test]
fn only_its_function_assumes_a_data_role_and_only_for_one_tenant() {
    let template = repository::template();
    for (package, owners) in [
        ("query-handler", &["AssumeForTenant"][..]),
        ("tenant-admin", &["AssumeForTenant", "AssumeForSharedOwner"]),
    ] {
        let mut functions = template.functions.iter();
        let function = functions.find(|function| function.package == package).unwrap();
        let own = template
            .roles
            .iter()
            .find(|role| role.logical_id == function.role)
            .unwrap();
        let trust = &data_role(&template, package).properties["AssumeRolePolicyDocument"];
        let statements = trust["Statement"].as_array().unwrap();
        let names: Vec<&str> = statements
            .iter()
            .map(|statement| statement["Sid"].as_str().unwrap())
            .collect();
        assert_eq!(names, owners);
        for statement in statements {
            assert_eq!(statement["Principal"], json!({"AWS": own.arn}));
            assert_eq!(statement["Action"], json!(["sts:AssumeRole", "sts:TagSession"]));
            let condition = &statement["Condition"];
            assert_eq!(
                condition["ForAllValues:StringEquals"],
                json!({"aws:TagKeys": ["tenant"]})
            );
            let is_present = condition["Null"] == json!({"aws:RequestTag/tenant": "false"});
            let is_shared = condition["StringEquals"] == json!({"aws:RequestTag/tenant": "bulkhead-shared"});
            assert!(is_present != is_shared, "{statement}");
            let refused = list(&condition["StringNotLike"]["aws:RequestTag/tenant"]);
            assert!(
                is_shared || refused.iter().any(|pattern| pattern == "bulkhead*"),
                "{statement}"
            );
        }
    }
}

#[test]
fn a_changed_guardrail_has_a_new_version() {
    let text = std::fs::read_to_string(repository::root().join("infra/template.yaml")).unwrap();
    let guardrail = text.split("\n  Guardrail:\n").nth(1).unwrap();
    let guardrail = guardrail.split("\n  GuardrailSnapshot:\n").next().unwrap();
    let digest = HEXLOWER.encode(&Sha256::digest(guardrail));
    let template = written();
    let named = template.pointer("/Resources/GuardrailSnapshot/Properties/Description");
    assert_eq!(
        named,
        Some(&Value::from(digest)),
        "the description must be the right one"
    );
}

#[test]
fn users_cannot_choose_their_tenant() {
    let template = written();
    let resource = |id: &str| template.pointer(&format!("/Resources/{id}/Properties")).unwrap();
    let pool = resource("UserPool");
    assert_eq!(pool["AdminCreateUserConfig"]["AllowAdminCreateUserOnly"], true);
    let schema = pool["Schema"].as_array().unwrap();
    let tenant = schema
        .iter()
        .find(|attribute| attribute["Name"] == "tenant_id")
        .unwrap();
    assert_eq!(tenant["Mutable"], false);
    let writable = resource("UserPoolClient")["WriteAttributes"].as_array().unwrap();
    assert!(
        !writable.is_empty(),
        "an empty list might be taken for none, which is all"
    );
    assert!(!writable.contains(&Value::from("custom:tenant_id")), "{writable:?}");
    let clients = template["Resources"].as_object().unwrap().values();
    let clients = clients.filter(|resource| resource["Type"] == "AWS::Cognito::UserPoolClient");
    assert_eq!(clients.count(), 1, "each client has a list of its own");
}

#[test]
fn the_firewall_leaves_prose_alone_and_nothing_else() {
    let template = written();
    let rules = template.pointer("/Resources/Firewall/Properties/Rules").unwrap();
    let rule = |name: &str| {
        let mut named = rules.as_array().unwrap().iter().filter(|rule| rule["Name"] == name);
        named.next().unwrap_or_else(|| panic!("no rule {name}")).clone()
    };
    let counted: BTreeSet<String> = rule("common")["Statement"]["ManagedRuleGroupStatement"]["RuleActionOverrides"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| change["Name"].as_str().unwrap().to_owned())
        .filter(|name| name.ends_with("_BODY"))
        .collect();
    let parts = rule("common-bodies")["Statement"]["AndStatement"]["Statements"].clone();
    // What is only counted there is blocked here by its label, but for two exceptions.
    let blocked: BTreeSet<String> = parts[0]["OrStatement"]["Statements"]
        .as_array()
        .unwrap()
        .iter()
        .map(|label| label["LabelMatchStatement"]["Key"].as_str().unwrap())
        .map(|key| key.rsplit(':').next().unwrap().replace("_Body", "_BODY"))
        .collect();
    assert_eq!(counted, blocked);
    assert_eq!(parts.as_array().unwrap().len(), 3);
    let content = &parts[1]["NotStatement"]["Statement"];
    let size = rule("body-size")["Statement"]["AndStatement"]["Statements"].clone();
    assert_eq!(
        size[1]["NotStatement"]["Statement"], *content,
        "one exception, written twice"
    );
    assert_eq!(
        size[0]["SizeConstraintStatement"]["FieldToMatch"]["Body"]["OversizeHandling"],
        "MATCH"
    );
    let priority = |name: &str| rule(name)["Priority"].as_u64().unwrap();
    assert!(
        priority("common") < priority("common-bodies"),
        "labels are set before they are looked at"
    );
}

#[test]
fn alarms_watch_what_functions_count() {
    let template = written();
    let source = std::fs::read_to_string(repository::root().join("core/src/telemetry.rs")).unwrap();
    let namespace = &template
        .pointer("/Resources/AuthorizerFunction/Properties/Environment/Variables")
        .unwrap()["BULKHEAD_METRIC_NAMESPACE"];
    let mut watched = BTreeSet::new();
    let mut look = |metric: &Value| {
        if metric["Namespace"] == *namespace {
            let name = metric["MetricName"].as_str().unwrap();
            assert!(source.contains(&format!("=> \"{name}\"")), "nobody counts {name}");
            assert_eq!(metric.get("Dimensions"), None, "functions write none");
            watched.insert(name.to_owned());
        }
    };
    let resources = template["Resources"].as_object().unwrap().values();
    let mut alarms = 0;
    for alarm in resources.filter(|resource| resource["Type"] == "AWS::CloudWatch::Alarm") {
        alarms += 1;
        let properties = &alarm["Properties"];
        assert_eq!(properties["TreatMissingData"], "notBreaching");
        assert_eq!(properties["AlarmActions"][0]["Ref"], "AlarmTopic");
        look(properties);
        for metric in properties["Metrics"].as_array().into_iter().flatten() {
            look(&metric["MetricStat"]["Metric"]);
        }
    }
    assert_eq!(alarms, 5);
    let expected = [
        "AuthorizerError",
        "Fault",
        "IngestionFailure",
        "IsolationBreach",
        "Throttle",
    ];
    assert_eq!(watched, expected.map(str::to_owned).into());
}

#[test]
fn the_access_log_has_no_header_no_query_and_no_path() {
    let template = written();
    let format = template
        .pointer("/Resources/Api/Properties/AccessLogSetting/Format")
        .unwrap();
    let format: Value = serde_json::from_str(format.as_str().unwrap()).unwrap();
    for value in format.as_object().unwrap().values() {
        let value = value.as_str().unwrap();
        for kept_out in ["path", "header", "query", "identity", "authorization", "customDomain"] {
            assert!(
                value == "$context.resourcePath" || !value.to_lowercase().contains(&kept_out.to_lowercase()),
                "{value}"
            );
        }
    }
}

#[test]
fn every_log_group_forgets_after_thirty_days() {
    let template = written();
    let resources = template["Resources"].as_object().unwrap();
    let groups = resources
        .values()
        .filter(|resource| resource["Type"] == "AWS::Logs::LogGroup");
    let mut count = 0;
    for group in groups {
        assert_eq!(group["Properties"]["RetentionInDays"], 30);
        count += 1;
    }
    // One of each function, and the gateway's.
    assert!(count > repository::template().functions.len());
}
