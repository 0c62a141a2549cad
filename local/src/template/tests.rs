use serde_json::json;

use super::*;

/// A small stack with everything that the interpreter knows; `contract.yaml` is included from a folder of its own.
const STACK: &str = r#"
AWSTemplateFormatVersion: "2010-09-09"
Transform: AWS::Serverless-2016-10-31
Parameters:
  Name: {Type: String, Default: bulkhead, MaxLength: 24}
  Parser: {Type: String, Default: none, AllowedValues: [none, smart]}
  Memory: {Type: Number, Default: 256, MinValue: 128}
  Arns: {Type: CommaDelimitedList, Default: "a, b"}
  Guardrail: {Type: String, Default: ""}
Rules:
  Whole:
    Assertions:
      - Assert: !Equals [!Equals [!Ref Guardrail, broken], "false"]
        AssertDescription: The guardrail is broken.
Conditions:
  Smart: !Not [!Equals [!Ref Parser, none]]
  Guarded: !And [!Condition Smart, !Not [!Equals [!Ref Guardrail, ""]]]
Globals:
  Function:
    Runtime: provided.al2023
    Timeout: 28
    MemorySize: !Ref Memory
    LoggingConfig: {LogFormat: JSON}
    Environment: {Variables: {BULKHEAD_TABLE_NAME: !Ref Table, BULKHEAD_MODE: global}}
Resources:
  Api:
    Type: AWS::Serverless::Api
    Properties:
      StageName: v1
      DefinitionBody:
        Fn::Transform: {Name: "AWS::Include", Parameters: {Location: contract.yaml}}
      MethodSettings: [{ResourcePath: "/*", HttpMethod: "*", MetricsEnabled: true}]
  AskFunction:
    Type: AWS::Serverless::Function
    Metadata: {BuildMethod: rust-cargolambda, BuildProperties: {Binary: ask}}
    Properties:
      CodeUri: ..
      Handler: bootstrap
      Role: !GetAtt AskRole.Arn
      TenancyConfig: {TenantIsolationMode: PER_TENANT}
      LoggingConfig: {LogGroup: !Ref AskLogs}
      Environment:
        Variables:
          BULKHEAD_MODE: own
          BULKHEAD_BUCKET_NAME: !Ref Bucket
          BULKHEAD_KNOWLEDGE_BASE_ID: !Ref KnowledgeBase
          BULKHEAD_PARSER: !If [Smart, yes, no]
          BULKHEAD_LIST: !Join [";", !Ref Arns]
          BULKHEAD_URL: !Sub ["${Host}/${!literal}/${Stage}", {Host: !Sub "https://${Api}", Stage: !Ref Api.Stage}]
  PlainFunction:
    Type: AWS::Serverless::Function
    Properties: {CodeUri: ../plain/, Handler: bootstrap, Timeout: "7", Policies: [{Statement: [{Resource: !GetAtt Table.Arn}]}]}
  AskPermission:
    Type: AWS::Lambda::Permission
    Properties:
      Action: lambda:InvokeFunction
      FunctionName: !Ref AskFunction
      Principal: apigateway.amazonaws.com
      SourceArn: !Sub "arn:${AWS::Partition}:execute-api:${AWS::Region}:${AWS::AccountId}:${Api}/v1/*"
  AskRole:
    Type: AWS::IAM::Role
    Properties:
      Policies:
        - PolicyDocument: {Statement: [{Effect: Allow, Resource: !Sub "${Bucket.Arn}/t/*"}, !If [Smart, {Sid: Smart}, !Ref "AWS::NoValue"]]}
  AskLogs: {Type: "AWS::Logs::LogGroup", Properties: {RetentionInDays: 30}}
  Table:
    Type: AWS::DynamoDB::Table
    Properties:
      AttributeDefinitions: [{AttributeName: pk, AttributeType: S}, {AttributeName: sk, AttributeType: S}]
      KeySchema: [{AttributeName: pk, KeyType: HASH}, {AttributeName: sk, KeyType: RANGE}]
      TimeToLiveSpecification: {AttributeName: ttl, Enabled: true}
  Bucket:
    Type: AWS::S3::Bucket
    Properties: {BucketName: !Sub "${Name}-${AWS::AccountId}-${AWS::Region}"}
  Spare: {Type: "AWS::S3::Bucket"}
  Never: {Type: "AWS::S3::Bucket", Condition: Guarded}
  VectorBucket: {Type: "AWS::S3Vectors::VectorBucket"}
  VectorIndex: {Type: "AWS::S3Vectors::Index", Properties: {VectorBucketArn: !GetAtt VectorBucket.VectorBucketArn, IndexName: docs}}
  KnowledgeBase:
    Type: AWS::Bedrock::KnowledgeBase
    Properties: {Name: kb, StorageConfiguration: {S3VectorsConfiguration: {IndexArn: !GetAtt VectorIndex.IndexArn}}}
  DataSource:
    Type: AWS::Bedrock::DataSource
    Properties:
      KnowledgeBaseId: !Ref KnowledgeBase
      DataSourceConfiguration: {Type: S3, S3Configuration: {BucketArn: !GetAtt Bucket.Arn, InclusionPrefixes: [t/]}}
  Rail:
    Type: AWS::Bedrock::Guardrail
    Properties:
      Name: rail
      BlockedInputMessaging: Not this question.
      BlockedOutputsMessaging: Not this answer.
      WordPolicyConfig: {WordsConfig: [{Text: dynamite}, {Text: top secret, InputAction: NONE}, {Text: tnt, OutputEnabled: false}]}
      SensitiveInformationPolicyConfig: {PiiEntitiesConfig: [{Type: EMAIL, Action: ANONYMIZE}]}
  RailVersion: {Type: "AWS::Bedrock::GuardrailVersion", Properties: {GuardrailIdentifier: !GetAtt Rail.GuardrailId}}
Outputs:
  Url: {Value: !Sub "https://${Api}.execute-api.${AWS::Region}.${AWS::URLSuffix}/v1"}
  Source: {Value: !Ref DataSource}
  Never: {Condition: Guarded, Value: !Ref Never}
"#;

const CONTRACT: &str = r#"
openapi: 3.0.1
paths:
  /ask:
    post:
      responses: {200: {description: ok}}
      x-amazon-apigateway-integration:
        uri: {"Fn::Sub": "arn:${AWS::Partition}:apigateway:${AWS::Region}:lambda:path/2015-03-31/functions/${AskFunction.Arn}/invocations"}
        requestParameters: {integration.request.header.X-Amz-Tenant-Id: context.authorizer.tenantId}
components:
  schemas: {Ask: {$ref: '#/components/schemas/Question'}}
"#;

fn interpret(template: &str, contract: &str, settings: &Settings) -> Result<Template, TemplateError> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("contract.yaml"), contract).unwrap();
    let path = folder.path().join("template.yaml");
    std::fs::write(&path, template).unwrap();
    Template::load(&path, settings)
}

fn stack() -> Template {
    interpret(STACK, CONTRACT, &Settings::default()).unwrap()
}

/// The error for the stack with one line changed.
fn refusal(from: &str, to: &str) -> String {
    assert!(STACK.contains(from), "{from} is not in the fixture");
    interpret(&STACK.replacen(from, to, 1), CONTRACT, &Settings::default())
        .unwrap_err()
        .to_string()
}

fn with_parameter(name: &str, value: &str) -> Result<Template, TemplateError> {
    let settings = Settings {
        parameters: BTreeMap::from([(name.to_owned(), value.to_owned())]),
        ..Settings::default()
    };
    interpret(STACK, CONTRACT, &settings)
}

fn function(template: &Template, id: &str) -> Function {
    template.function(&LogicalId::new(id)).unwrap().clone()
}

#[test]
fn a_function_has_the_globals_under_its_own_properties() {
    let template = stack();
    let ask = function(&template, "AskFunction");
    assert_eq!(ask.package, "ask");
    assert!(ask.per_tenant);
    assert_eq!(ask.timeout, Duration::from_secs(28));
    assert_eq!(ask.memory_mb, 256);
    assert_eq!(ask.role, LogicalId::new("AskRole"));
    assert_eq!(ask.log_format.as_deref(), Some("JSON"));
    assert!(ask.log_group.starts_with("bulkhead-AskLogs-"), "{}", ask.log_group);
    let api = template.api.as_ref().unwrap();
    let expected = [
        ("BULKHEAD_BUCKET_NAME", "bulkhead-123456789012-us-east-1".to_owned()),
        ("BULKHEAD_KNOWLEDGE_BASE_ID", template.knowledge_bases[0].id.clone()),
        ("BULKHEAD_LIST", "a;b".to_owned()),
        ("BULKHEAD_MODE", "own".to_owned()),
        ("BULKHEAD_PARSER", "no".to_owned()),
        ("BULKHEAD_TABLE_NAME", template.tables[0].name.clone()),
        ("BULKHEAD_URL", format!("https://{}/${{literal}}/v1", api.id)),
    ];
    assert_eq!(
        ask.environment,
        BTreeMap::from(expected.map(|(k, v)| (k.to_owned(), v)))
    );

    let plain = function(&template, "PlainFunction");
    assert_eq!(plain.package, "plain");
    assert!(!plain.per_tenant);
    assert_eq!(plain.timeout, Duration::from_secs(7));
    assert_eq!(plain.role, LogicalId::new("PlainFunctionRole"));
    assert_eq!(plain.environment["BULKHEAD_MODE"], "global");
    assert_eq!(plain.log_group, format!("/aws/lambda/{}", plain.name));
    assert_eq!(
        template.packages(),
        BTreeSet::from(["ask".to_owned(), "plain".to_owned()])
    );
}

#[test]
fn resources_are_typed_and_named() {
    let template = stack();
    let table = &template.tables[0];
    assert_eq!(table.ttl_attribute.as_deref(), Some("ttl"));
    assert_eq!(
        table.key,
        [("pk", KeyType::Hash), ("sk", KeyType::Range)].map(|(name, key_type)| Key {
            name: name.to_owned(),
            key_type,
            attribute_type: "S".to_owned()
        })
    );
    // `Never` has a condition that is false.
    let buckets: Vec<&str> = template.buckets.iter().map(|bucket| bucket.name.as_str()).collect();
    assert_eq!(buckets.len(), 2);
    assert_eq!(buckets[0], "bulkhead-123456789012-us-east-1");
    assert!(buckets[1].starts_with("bulkhead-spare-"), "{}", buckets[1]);

    let base = &template.knowledge_bases[0];
    let source = &template.data_sources[0];
    for id in [&base.id, &source.id] {
        assert_eq!(id.len(), 10);
        assert!(id.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit()), "{id}");
    }
    assert_eq!(source.knowledge_base, base.id);
    assert_eq!(source.bucket, buckets[0]);
    assert_eq!(source.inclusion_prefix.as_deref(), Some("t/"));
    let index = base
        .properties
        .pointer("/StorageConfiguration/S3VectorsConfiguration/IndexArn");
    assert!(index.unwrap().as_str().unwrap().ends_with("/index/docs"));
    assert_eq!(template.outputs["Source"], json!(format!("{}|{}", base.id, source.id)));
    let [rail] = template.guardrails.as_slice() else {
        panic!("{:?}", template.guardrails)
    };
    assert_eq!(
        (rail.versions.as_slice(), rail.blocked_input.as_str()),
        (["1".to_owned()].as_slice(), "Not this question.")
    );
    let words: Vec<_> = rail
        .words
        .iter()
        .map(|word| (word.text.as_str(), word.actions))
        .collect();
    let (block, none) = (Action::Block, Action::None);
    assert_eq!(
        words,
        [
            ("dynamite", Actions::both(block)),
            (
                "top secret",
                Actions {
                    input: none,
                    output: block
                }
            ),
            (
                "tnt",
                Actions {
                    input: block,
                    output: none
                }
            ),
        ]
    );
    assert_eq!(rail.emails, Some(Actions::both(Action::Mask)));
    assert!(!template.outputs.contains_key("Never"));

    let ask = function(&template, "AskFunction");
    let api = template.api.as_ref().unwrap();
    let permission = &template.permissions[0];
    assert_eq!(permission.function, ask.logical_id);
    assert_eq!(permission.principal, "apigateway.amazonaws.com");
    assert_eq!(
        permission.source_arn,
        Some(format!("arn:aws:execute-api:us-east-1:123456789012:{}/v1/*", api.id))
    );
    let role = template.roles.iter().find(|role| role.logical_id == ask.role).unwrap();
    assert_eq!(
        role.properties.pointer("/Policies/0/PolicyDocument/Statement"),
        Some(&json!([{"Effect": "Allow", "Resource": format!("arn:aws:s3:::{}/t/*", buckets[0])}]))
    );
}

#[test]
fn the_contract_is_included_with_its_intrinsics_resolved() {
    let template = stack();
    let api = template.api.as_ref().unwrap();
    assert_eq!(api.stage, "v1");
    assert_eq!(api.properties["MethodSettings"][0]["MetricsEnabled"], true);
    let arn = &function(&template, "AskFunction").arn;
    assert_eq!(
        api.contract["paths"]["/ask"]["post"]["x-amazon-apigateway-integration"]["uri"],
        json!(format!(
            "arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/{arn}/invocations"
        ))
    );
    assert_eq!(
        template.function_by_arn(arn).unwrap().logical_id,
        LogicalId::new("AskFunction")
    );
    assert_eq!(
        api.contract["components"]["schemas"]["Ask"],
        json!({"$ref": "#/components/schemas/Question"})
    );
}

#[test]
fn ids_depend_on_the_stack_and_on_nothing_else() {
    let (first, second) = (stack(), stack());
    assert_eq!(first.knowledge_bases[0].id, second.knowledge_bases[0].id);
    assert_eq!(
        function(&first, "AskFunction").name,
        function(&second, "AskFunction").name
    );
    let other = Settings {
        stack: "other".to_owned(),
        ..Settings::default()
    };
    let other = interpret(STACK, CONTRACT, &other).unwrap();
    assert_ne!(first.knowledge_bases[0].id, other.knowledge_bases[0].id);
}

#[test]
fn parameters_are_given_and_checked() {
    let smart = with_parameter("Parser", "smart").unwrap();
    assert_eq!(function(&smart, "AskFunction").environment["BULKHEAD_PARSER"], "yes");
    for (name, value, problem) in [
        ("Parser", "x", "Parameters.Parser: `x` is not one of the allowed values"),
        ("Memory", "1", "Parameters.Memory: 1 is out of bounds"),
        ("Memory", "x", "Parameters.Memory: `x` is not a number"),
        ("Nmae", "x", "Parameters.Nmae: the template has no such parameter"),
        ("Guardrail", "broken", "Rules.Whole: The guardrail is broken."),
        (
            "Name",
            "abcdefghijklmnopqrstuvwxyz",
            "Parameters.Name: `abcdefghijklmnopqrstuvwxyz` has 26 characters, which is not allowed",
        ),
    ] {
        assert_eq!(with_parameter(name, value).unwrap_err().to_string(), problem);
    }
    assert_eq!(
        refusal("Name: {Type: String, Default: bulkhead,", "Name: {Type: String,"),
        "Parameters.Name: it has no default and no value was given"
    );
}

#[test]
fn what_the_stack_does_not_know_stops_the_start_by_name() {
    for (from, to, problem) in [
        (
            "BULKHEAD_MODE: own",
            "BULKHEAD_MODE: !ImportValue x",
            "AskFunction: the local stack doesn't know the intrinsic `Fn::ImportValue`",
        ),
        (
            "Spare: {Type: \"AWS::S3::Bucket\"}",
            "Spare: {Type: \"AWS::SQS::Queue\"}",
            "Spare: the local stack doesn't know the resource type `AWS::SQS::Queue`",
        ),
        (
            "Smart: !Not [!Equals [!Ref Parser, none]]",
            "Smart: !FindInMap [a, b, c]",
            "Conditions.Smart: the local stack doesn't know the intrinsic `Fn::FindInMap`",
        ),
        (
            "Handler: bootstrap\n      Role",
            "Events: {}\n      Role",
            "AskFunction: the property Events is not emulated",
        ),
        (
            "!Ref Bucket\n",
            "!Ref Bukcet\n",
            "`Bukcet` is no parameter and no resource",
        ),
        (
            "!GetAtt Table.Arn}",
            "!GetAtt Table.StreamArn}",
            "the attribute `Table.StreamArn`",
        ),
        ("Value: !Ref DataSource", "Value: !Ref Never", "Outputs.Source: `Never`"),
        (
            "Outputs:",
            "Mappings: {}\nOutputs:",
            "Mappings: the local stack doesn't know this section",
        ),
        (
            "Name: \"AWS::Include\"",
            "Name: \"AWS::Macro\"",
            "Api: the local stack doesn't know the transform AWS::Macro",
        ),
        ("Location: contract.yaml", "Location: missing.yaml", "missing.yaml: "),
        (
            "StageName: v1",
            "StageName: v1\n      Cors: '*'",
            "Api: Cors belongs into the contract",
        ),
        (
            "[{AttributeName: pk, KeyType: HASH}, ",
            "[",
            "Table: KeySchema must start with the HASH key",
        ),
        (
            "FunctionName: !Ref AskFunction",
            "FunctionName: other",
            "AskPermission: other is no function",
        ),
        ("Timeout: 28", "Timeout: 901", "Timeout must be 1 to 900 seconds"),
        (
            "TenantIsolationMode: PER_TENANT",
            "TenantIsolationMode: per_tenant",
            "AskFunction: TenantIsolationMode is PER_TENANT only",
        ),
    ] {
        let error = refusal(from, to);
        assert!(error.contains(problem), "{from} → {to} gave: {error}");
    }
}

#[test]
fn a_circle_is_an_error_and_no_overflow() {
    let error = refusal(
        "{BucketName: !Sub \"${Name}-${AWS::AccountId}-${AWS::Region}\"}",
        "{BucketName: !Sub \"x-${Bucket}\"}",
    );
    assert!(error.contains("the name of Bucket depends on itself"), "{error}");
    let error = refusal(
        "Smart: !Not [!Equals [!Ref Parser, none]]",
        "Smart: !Not [!Condition Guarded]",
    );
    assert!(error.contains("depends on itself"), "{error}");
    let circle = "a: {\"Fn::Transform\": {Name: \"AWS::Include\", Parameters: {Location: contract.yaml}}}";
    let error = interpret(STACK, circle, &Settings::default()).unwrap_err().to_string();
    assert!(error.contains("depends on itself"), "{error}");
}

#[test]
fn a_short_form_in_the_contract_is_refused_as_by_the_include_transform() {
    let contract = CONTRACT.replace(
        "{\"Fn::Sub\": \"arn:${AWS::Partition}",
        "!Sub \"${AskFunction.Arn}\" # {\"",
    );
    let error = interpret(STACK, &contract, &Settings::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("contract.yaml:8: `!Sub` is a short form"), "{error}");
}

#[test]
fn variables_are_put_over_those_that_functions_declare() {
    let mut template = stack();
    let unused = template.override_environment(&BTreeMap::from(
        [
            ("BULKHEAD_MODE", "outer"),
            ("BULKHEAD_LIST", "x"),
            ("BULKHEAD_OTHER", "y"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    ));
    assert_eq!(unused, ["BULKHEAD_OTHER"]);
    let ask = function(&template, "AskFunction");
    assert_eq!(ask.environment["BULKHEAD_MODE"], "outer");
    assert_eq!(ask.environment["BULKHEAD_LIST"], "x");
    let plain = function(&template, "PlainFunction");
    assert_eq!(plain.environment["BULKHEAD_MODE"], "outer");
    assert!(!plain.environment.contains_key("BULKHEAD_LIST"));
}

#[test]
fn the_deployed_template_is_understood() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/template.yaml");
    let template = Template::load(&path, &Settings::default()).unwrap();
    let isolated = |per_tenant: bool| -> BTreeSet<&str> {
        let functions = template.functions.iter();
        functions
            .filter(|function| function.per_tenant == per_tenant)
            .map(|function| function.package.as_str())
            .collect()
    };
    assert_eq!(isolated(true), BTreeSet::from(["query-handler", "tenant-admin"]));
    assert_eq!(isolated(false), BTreeSet::from(["authorizer", "control-plane"]));
    assert_eq!(template.buckets[0].name, "bulkhead-123456789012-us-east-1");
    assert_eq!(template.tables[0].ttl_attribute.as_deref(), Some("ttl"));
    assert_eq!(template.data_sources[0].bucket, template.buckets[0].name);
    assert_eq!(template.data_sources[0].inclusion_prefix.as_deref(), Some("t/"));
    // Every function that the contract calls is one of the template's, and API Gateway may call it.
    let api = template.api.as_ref().unwrap();
    let contract = api.contract.to_string();
    for function in &template.functions {
        assert!(contract.contains(&function.arn), "{}", function.logical_id);
        let allowed = |permission: &Permission| {
            permission.function == function.logical_id && permission.principal == "apigateway.amazonaws.com"
        };
        assert!(template.permissions.iter().any(allowed), "{}", function.logical_id);
    }
}

/// The deployed template with parameters.
fn deployed(parameters: &[(&str, &str)]) -> Result<Template, TemplateError> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/template.yaml");
    let parameters = parameters
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Template::load(
        &path,
        &Settings {
            parameters: parameters.collect(),
            ..Settings::default()
        },
    )
}

#[test]
fn the_deployed_templates_guardrail_is_its_own_another_or_none() {
    let guardrail = |parameters: &[(&str, &str)]| {
        let template = deployed(parameters).unwrap();
        let environment = function(&template, "QueryHandlerFunction").environment;
        let named = ["BULKHEAD_GUARDRAIL_ID", "BULKHEAD_GUARDRAIL_VERSION"].map(|name| environment[name].clone());
        let roles = serde_json::to_string(&template.roles.iter().map(|role| &role.properties).collect::<Vec<_>>());
        (
            named,
            template.guardrails,
            roles.unwrap().contains("bedrock:ApplyGuardrail"),
        )
    };
    let ([id, version], own, applied) = guardrail(&[]);
    let [made] = own.as_slice() else { panic!("{own:?}") };
    assert_eq!((&id, version.as_str(), applied), (&made.id, "1", true));
    assert_eq!(made.versions, ["1"]);
    assert_eq!(made.words[0].text, "bulkhead-guardrail-test-string");

    let (named, made, applied) = guardrail(&[("GuardrailId", "abc123"), ("GuardrailVersion", "7")]);
    assert_eq!(
        (named, made.len(), applied),
        (["abc123", "7"].map(str::to_owned), 0, true)
    );

    let (named, made, applied) = guardrail(&[("CreateGuardrail", "false")]);
    assert_eq!((named, made.len(), applied), (["", ""].map(str::to_owned), 0, false));
}

#[test]
fn the_deployed_templates_user_pool_is_an_issuer() {
    let issuer = |parameters: &[(&str, &str)]| {
        let template = deployed(parameters).unwrap();
        function(&template, "AuthorizerFunction").environment["BULKHEAD_USER_POOL_ISSUER"].clone()
    };
    assert_eq!(issuer(&[]), "");
    let entry: Value = serde_json::from_str(&issuer(&[("CreateUserPool", "true")])).unwrap();
    let pool = entry[0]["issuer"].as_str().unwrap();
    assert!(
        pool.starts_with("https://cognito-idp.us-east-1.amazonaws.com/us-east-1_"),
        "{pool}"
    );
    assert_eq!(entry[0]["audiences"][0].as_str().map(str::len), Some(26));
    assert_eq!(entry[0]["roles_claim"], "cognito:groups");
    assert_eq!(entry.as_array().map(Vec::len), Some(1));
}

#[test]
fn what_a_guardrail_is_not_emulated_for_is_known_by_name() {
    for (text, problem) in [
        (
            "ContentPolicyConfig: {FiltersConfig: [{Type: HATE, InputStrength: LOW, OutputStrength: NONE}]}",
            "HATE",
        ),
        (
            "ContentPolicyConfig: {FiltersConfig: [{Type: PROMPT_ATTACK, InputStrength: HIGH, OutputStrength: HIGH}]}",
            "OutputStrength of PROMPT_ATTACK can't be HIGH",
        ),
        (
            "ContextualGroundingPolicyConfig: {FiltersConfig: [{Type: GROUNDING}]}",
            "Threshold is missing",
        ),
        (
            "TopicPolicyConfig: {TopicsConfig: []}",
            "TopicPolicyConfig is not emulated",
        ),
    ] {
        let error = refusal("Name: rail\n", &format!("Name: rail\n      {text}\n"));
        assert!(error.contains(problem), "{text} gave: {error}");
    }
    let error = refusal("Type: EMAIL", "Type: SHOE_SIZE");
    assert!(error.contains("SHOE_SIZE"), "{error}");
}
