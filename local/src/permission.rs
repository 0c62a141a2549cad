//! What a request needs to be allowed: actions, resources and condition keys, read off the request as AWS reads them.
//!
//! What an operation needs beyond the action of its own name stands in one table, each row with its source. Not here:
//! whether anybody has it ([`crate::authority`]).

use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::policy::{Context, Need};
use crate::record::{Resource, Service};

/// What an operation of Bedrock acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum On {
    /// Nothing that a policy could name.
    Anything,
    /// The knowledge base that the request names.
    KnowledgeBase,
    /// The model, or the inference profile and the model behind it.
    Model,
    /// The inference profile, if the request names one.
    Profile,
    /// The guardrail, if the request names one.
    Guardrail,
    /// The role that the request hands to Bedrock, if it names one.
    PassedRole,
}

/// One permission that one operation takes.
struct Row {
    operation: &'static str,
    action: &'static str,
    on: On,
    #[cfg_attr(not(test), expect(dead_code, reason = "for whoever reads the table"))]
    source: &'static str,
}

const fn row(operation: &'static str, action: &'static str, on: On, source: &'static str) -> Row {
    Row {
        operation,
        action,
        on,
        source,
    }
}

/// <https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonbedrock.html>
const ACTIONS: &str = "service-authorization/latest/reference/list_amazonbedrock.html";
/// What asking a knowledge base takes.
const ASKING: &str = "bedrock/latest/userguide/knowledge-base-prereq-permissions-general.html";
/// What direct ingestion takes.
const INGESTION: &str = "bedrock/latest/userguide/kb-direct-ingestion-prereq.html";
/// What inference takes.
const INFERENCE: &str = "bedrock/latest/userguide/inference-prereq.html";
/// What inference through a profile takes.
const PROFILES: &str = "bedrock/latest/userguide/inference-profiles-prereq.html";
/// What a call with a guardrail takes.
const GUARDRAILS: &str = "bedrock/latest/userguide/guardrails-permissions-invoke.html";

/// What handing a role to a service takes.
const PASSING: &str = "IAM/latest/UserGuide/id_roles_use_passrole.html";

/// Sources are pages of <https://docs.aws.amazon.com/>.
const BEDROCK: [Row; 29] = [
    row("Retrieve", "bedrock:Retrieve", On::KnowledgeBase, ASKING),
    row("Retrieve", "bedrock:ApplyGuardrail", On::Guardrail, GUARDRAILS),
    row(
        "RetrieveAndGenerate",
        "bedrock:RetrieveAndGenerate",
        On::Anything,
        ACTIONS,
    ),
    row("RetrieveAndGenerate", "bedrock:Retrieve", On::KnowledgeBase, ASKING),
    row("RetrieveAndGenerate", "bedrock:InvokeModel", On::Model, ASKING),
    row(
        "RetrieveAndGenerate",
        "bedrock:GetInferenceProfile",
        On::Profile,
        PROFILES,
    ),
    row(
        "RetrieveAndGenerate",
        "bedrock:ApplyGuardrail",
        On::Guardrail,
        GUARDRAILS,
    ),
    // The stream has no action of its own.
    row(
        "RetrieveAndGenerateStream",
        "bedrock:RetrieveAndGenerate",
        On::Anything,
        ACTIONS,
    ),
    row(
        "RetrieveAndGenerateStream",
        "bedrock:Retrieve",
        On::KnowledgeBase,
        ASKING,
    ),
    row(
        "RetrieveAndGenerateStream",
        "bedrock:InvokeModelWithResponseStream",
        On::Model,
        INFERENCE,
    ),
    row(
        "RetrieveAndGenerateStream",
        "bedrock:GetInferenceProfile",
        On::Profile,
        PROFILES,
    ),
    row(
        "RetrieveAndGenerateStream",
        "bedrock:ApplyGuardrail",
        On::Guardrail,
        GUARDRAILS,
    ),
    row("Converse", "bedrock:InvokeModel", On::Model, INFERENCE),
    row("Converse", "bedrock:GetInferenceProfile", On::Profile, PROFILES),
    row("Converse", "bedrock:ApplyGuardrail", On::Guardrail, GUARDRAILS),
    row(
        "ConverseStream",
        "bedrock:InvokeModelWithResponseStream",
        On::Model,
        INFERENCE,
    ),
    row("ConverseStream", "bedrock:GetInferenceProfile", On::Profile, PROFILES),
    row("ConverseStream", "bedrock:ApplyGuardrail", On::Guardrail, GUARDRAILS),
    row("ApplyGuardrail", "bedrock:ApplyGuardrail", On::Guardrail, GUARDRAILS),
    row(
        "IngestKnowledgeBaseDocuments",
        "bedrock:IngestKnowledgeBaseDocuments",
        On::KnowledgeBase,
        INGESTION,
    ),
    row(
        "IngestKnowledgeBaseDocuments",
        "bedrock:StartIngestionJob",
        On::KnowledgeBase,
        INGESTION,
    ),
    row(
        "DeleteKnowledgeBaseDocuments",
        "bedrock:DeleteKnowledgeBaseDocuments",
        On::KnowledgeBase,
        INGESTION,
    ),
    row(
        "GetKnowledgeBaseDocuments",
        "bedrock:GetKnowledgeBaseDocuments",
        On::KnowledgeBase,
        INGESTION,
    ),
    row(
        "StartIngestionJob",
        "bedrock:StartIngestionJob",
        On::KnowledgeBase,
        ACTIONS,
    ),
    row("GetIngestionJob", "bedrock:GetIngestionJob", On::KnowledgeBase, ACTIONS),
    row(
        "GetModelInvocationLoggingConfiguration",
        "bedrock:GetModelInvocationLoggingConfiguration",
        On::Anything,
        ACTIONS,
    ),
    row(
        "DeleteModelInvocationLoggingConfiguration",
        "bedrock:DeleteModelInvocationLoggingConfiguration",
        On::Anything,
        ACTIONS,
    ),
    row(
        "PutModelInvocationLoggingConfiguration",
        "bedrock:PutModelInvocationLoggingConfiguration",
        On::Anything,
        ACTIONS,
    ),
    row(
        "PutModelInvocationLoggingConfiguration",
        "iam:PassRole",
        On::PassedRole,
        PASSING,
    ),
];

/// What the items of a transaction take, each by itself.
/// Source: DynamoDB Developer Guide, "Using IAM with DynamoDB transactions"
/// (<https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis-iam.html>).
const TRANSACTION: [(&str, &str); 5] = [
    ("ConditionCheck", "ConditionCheckItem"),
    ("Delete", "DeleteItem"),
    ("Get", "GetItem"),
    ("Put", "PutItem"),
    ("Update", "UpdateItem"),
];

/// A request, as far as permission depends on it.
pub(crate) struct Asking<'a> {
    /// Whose operation it is.
    pub(crate) service: Service,
    /// By AWS's name.
    pub(crate) operation: &'a str,
    /// What it is about.
    pub(crate) resource: &'a Resource,
    /// The whole body of a JSON service.
    pub(crate) body: &'a Value,
    /// Where everything is.
    pub(crate) region: &'a str,
    /// Who owns it.
    pub(crate) account: &'a str,
}

impl Asking<'_> {
    /// All that it needs, at least one thing. `items` says which partitions an operation on one item names.
    pub(crate) fn needs(&self, items: impl Fn(&str, &Value) -> Resource) -> Vec<Need> {
        let needs = match self.service {
            Service::S3 => self.s3(),
            Service::DynamoDb => self.dynamodb(items),
            Service::Bedrock => self.bedrock(),
            // Who may assume a role is the role's word too: see `Authority::assume_role`.
            Service::Sts => Vec::new(),
            Service::Ssm => self.ssm(),
        };
        if needs.is_empty() {
            // What is not understood takes an action that no policy grants.
            let action = format!("{}:{}", self.service, self.operation);
            return vec![self.need(&action, "*".to_owned(), Context::default())];
        }
        needs
    }

    fn need(&self, action: &str, resource: String, context: Context) -> Need {
        let context = context.with("aws:ResourceAccount", [self.account]);
        Need {
            action: action.to_owned(),
            resource,
            context,
        }
    }

    /// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html>
    fn s3(&self) -> Vec<Need> {
        let object = |action: &str, bucket: &str, key: &str| {
            self.need(action, format!("arn:aws:s3:::{bucket}/{key}"), Context::default())
        };
        let action = match self.operation {
            "GetObject" | "HeadObject" => "s3:GetObject".to_owned(),
            "CopyObject" => "s3:PutObject".to_owned(),
            "DeleteObjects" => "s3:DeleteObject".to_owned(),
            "ListObjectsV2" => "s3:ListBucket".to_owned(),
            other => format!("s3:{other}"),
        };
        match self.resource {
            Resource::Objects { bucket, keys, source } => {
                let mut needs: Vec<Need> = keys.iter().map(|key| object(&action, bucket, key)).collect();
                match source {
                    Some((bucket, key)) => needs.push(object("s3:GetObject", bucket, key)),
                    // A source that can't be read must not pass for none.
                    None if self.operation == "CopyObject" => {
                        needs.push(self.need("s3:GetObject", "*".to_owned(), Context::default()));
                    }
                    None => {}
                }
                needs
            }
            Resource::Bucket { bucket, prefix } => {
                let context = Context::default().with("s3:prefix", prefix.iter());
                vec![self.need(&action, format!("arn:aws:s3:::{bucket}"), context)]
            }
            _ => Vec::new(),
        }
    }

    /// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/specifying-conditions.html>
    fn dynamodb(&self, items: impl Fn(&str, &Value) -> Resource) -> Vec<Need> {
        if self.operation.starts_with("Transact") {
            let entries = self.body.get("TransactItems").and_then(Value::as_array);
            let entries = entries.into_iter().flatten().filter_map(Value::as_object).flatten();
            let needs = entries.map(|(kind, request)| {
                let operation = TRANSACTION
                    .iter()
                    .find(|(name, _)| name == kind)
                    .map(|(_, operation)| *operation);
                // A check and a get name their key as a deletion does.
                let named = if kind == "Put" { "PutItem" } else { "DeleteItem" };
                self.items(operation.unwrap_or(kind), &items(named, request))
            });
            return needs.flatten().collect();
        }
        match self.operation {
            "ExecuteStatement" | "BatchExecuteStatement" | "ExecuteTransaction" => {
                vec![self.need("dynamodb:PartiQLSelect", self.table("*"), Context::default())]
            }
            operation => match self.resource {
                Resource::None => {
                    let table = self.body.get("TableName").and_then(Value::as_str).unwrap_or("*");
                    vec![self.need(&format!("dynamodb:{operation}"), self.table(table), Context::default())]
                }
                resource => self.items(operation, resource),
            },
        }
    }

    fn items(&self, operation: &str, resource: &Resource) -> Vec<Need> {
        let Resource::Items(tables) = resource else {
            return Vec::new();
        };
        let needs = tables.iter().map(|table| {
            let context = Context::default().with("dynamodb:LeadingKeys", table.leading_keys.iter());
            self.need(&format!("dynamodb:{operation}"), self.table(&table.table), context)
        });
        needs.collect()
    }

    fn table(&self, name: &str) -> String {
        if name.starts_with("arn:") {
            return name.to_owned();
        }
        format!("arn:aws:dynamodb:{}:{}:table/{name}", self.region, self.account)
    }

    fn bedrock(&self) -> Vec<Need> {
        let rows = BEDROCK.iter().filter(|row| row.operation == self.operation);
        let needs = rows.flat_map(|row| {
            let resources = match row.on {
                On::Anything => vec!["*".to_owned()],
                On::KnowledgeBase => self.knowledge_base().into_iter().collect(),
                On::Model => self.models(),
                On::Profile => self.models().into_iter().filter(|arn| is_profile(arn)).collect(),
                On::Guardrail => self.guardrail().into_iter().collect(),
                On::PassedRole => self.passed_role().into_iter().collect(),
            };
            let context = || match row.on {
                On::PassedRole => Context::default().with("iam:PassedToService", ["bedrock.amazonaws.com"]),
                _ => Context::default(),
            };
            resources
                .into_iter()
                .map(move |resource| self.need(row.action, resource, context()))
        });
        needs.collect()
    }

    fn passed_role(&self) -> Option<String> {
        let role = self.body.pointer("/loggingConfig/cloudWatchConfig/roleArn");
        role.and_then(Value::as_str).map(str::to_owned)
    }

    /// <https://docs.aws.amazon.com/systems-manager/latest/userguide/sysman-paramstore-access.html>
    fn ssm(&self) -> Vec<Need> {
        let Resource::Parameter(name) = self.resource else {
            return Vec::new();
        };
        let name = name.trim_start_matches('/');
        let arn = format!("arn:aws:ssm:{}:{}:parameter/{name}", self.region, self.account);
        vec![self.need(&format!("ssm:{}", self.operation), arn, Context::default())]
    }

    fn path(&self) -> Vec<&str> {
        match self.resource {
            Resource::Path(path) => path.trim_matches('/').split('/').collect(),
            _ => Vec::new(),
        }
    }

    fn configured(&self, name: &str) -> Option<&str> {
        let all = "/retrieveAndGenerateConfiguration/knowledgeBaseConfiguration";
        self.body.pointer(&format!("{all}/{name}")).and_then(Value::as_str)
    }

    fn knowledge_base(&self) -> Option<String> {
        let id = match self.path().as_slice() {
            ["knowledgebases", id, ..] => Some(*id),
            _ => self.configured("knowledgeBaseId"),
        };
        id.map(|id| format!("arn:aws:bedrock:{}:{}:knowledge-base/{id}", self.region, self.account))
    }

    /// The model, by its ARN; for an inference profile the profile and, where its id says it, the model that it leads to.
    fn models(&self) -> Vec<String> {
        let named = match self.path().as_slice() {
            ["model", id, _] => percent_decode_str(id).decode_utf8().ok().map(|id| id.into_owned()),
            _ => self.configured("modelArn").map(str::to_owned),
        };
        let Some(named) = named else { return Vec::new() };
        let id = named.rsplit_once('/').map_or(named.as_str(), |(_, id)| id);
        let (region, account) = (self.region, self.account);
        let model = |id: &str| format!("arn:aws:bedrock:{region}::foundation-model/{id}");
        // `us.amazon.nova-lite-v1:0`: where it runs, and what.
        let behind = id
            .split_once('.')
            .filter(|(place, _)| ["us", "eu", "apac", "global", "jp", "au", "ca", "us-gov"].contains(place))
            .map(|(_, id)| model(id));
        if named.starts_with("arn:") {
            let mut models = vec![named.clone()];
            if is_profile(&named) {
                models.extend(behind);
            }
            models
        } else if let Some(behind) = behind {
            vec![
                format!("arn:aws:bedrock:{region}:{account}:inference-profile/{id}"),
                behind,
            ]
        } else {
            vec![model(id)]
        }
    }

    fn guardrail(&self) -> Option<String> {
        let path = self.path();
        let in_body = |pointer| self.body.pointer(pointer).and_then(Value::as_str);
        let id = match path.as_slice() {
            ["guardrail", id, ..] => percent_decode_str(id).decode_utf8().ok().map(|id| id.into_owned()),
            _ => self
                .configured("generationConfiguration/guardrailConfiguration/guardrailId")
                .or_else(|| in_body("/guardrailConfiguration/guardrailId"))
                .or_else(|| in_body("/guardrailConfig/guardrailIdentifier"))
                .map(str::to_owned),
        }?;
        if id.starts_with("arn:") {
            return Some(id);
        }
        Some(format!(
            "arn:aws:bedrock:{}:{}:guardrail/{id}",
            self.region, self.account
        ))
    }
}

fn is_profile(arn: &str) -> bool {
    arn.contains("inference-profile/")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::record::TableKeys;

    fn needs(service: Service, operation: &str, resource: &Resource, body: &Value) -> Vec<(String, String)> {
        let asking = Asking {
            service,
            operation,
            resource,
            body,
            region: "us-east-1",
            account: "123456789012",
        };
        let items = |_: &str, request: &Value| {
            Resource::Items(vec![TableKeys {
                table: "t".to_owned(),
                leading_keys: vec![request["pk"].as_str().unwrap_or_default().to_owned()],
            }])
        };
        let needs = asking.needs(items);
        assert!(!needs.is_empty(), "{operation} needs nothing");
        needs
            .into_iter()
            .map(|need| {
                let arn = need.resource.replace("arn:aws:bedrock:us-east-1:123456789012:", "");
                (need.action, arn.replace("arn:aws:bedrock:us-east-1::", ""))
            })
            .collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(action, arn)| ((*action).to_owned(), (*arn).to_owned()))
            .collect()
    }

    fn path(path: &str) -> Resource {
        Resource::Path(path.to_owned())
    }

    #[test]
    fn an_answer_takes_what_is_done_for_it() {
        let body = json!({"retrieveAndGenerateConfiguration": {"knowledgeBaseConfiguration": {
            "knowledgeBaseId": "KB1",
            "modelArn": "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.amazon.nova-lite-v1:0",
            "generationConfiguration": {"guardrailConfiguration": {"guardrailId": "g1", "guardrailVersion": "1"}},
        }}});
        let got = needs(
            Service::Bedrock,
            "RetrieveAndGenerate",
            &path("/retrieveAndGenerate"),
            &body,
        );
        let profile = "inference-profile/us.amazon.nova-lite-v1:0";
        let wanted = [
            ("bedrock:RetrieveAndGenerate", "*"),
            ("bedrock:Retrieve", "knowledge-base/KB1"),
            ("bedrock:InvokeModel", profile),
            ("bedrock:InvokeModel", "foundation-model/amazon.nova-lite-v1:0"),
            ("bedrock:GetInferenceProfile", profile),
            ("bedrock:ApplyGuardrail", "guardrail/g1"),
        ];
        assert_eq!(got, pairs(&wanted));
    }

    #[test]
    fn a_stream_of_a_model_takes_the_action_for_streams() {
        let asked = path("/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A%3Afoundation-model%2Fm%3A0/converse-stream");
        let body = json!({"guardrailConfig": {"guardrailIdentifier": "g1"}});
        let wanted = [
            ("bedrock:InvokeModelWithResponseStream", "foundation-model/m:0"),
            ("bedrock:ApplyGuardrail", "guardrail/g1"),
        ];
        assert_eq!(needs(Service::Bedrock, "ConverseStream", &asked, &body), pairs(&wanted));
        let wanted = [("bedrock:InvokeModel", "foundation-model/m:0")];
        let asked = path("/model/m%3A0/converse");
        assert_eq!(needs(Service::Bedrock, "Converse", &asked, &json!({})), pairs(&wanted));
    }

    #[test]
    fn direct_ingestion_takes_a_job_too() {
        let asked = path("/knowledgebases/KB1/datasources/DS1/documents");
        let wanted = [
            ("bedrock:IngestKnowledgeBaseDocuments", "knowledge-base/KB1"),
            ("bedrock:StartIngestionJob", "knowledge-base/KB1"),
        ];
        assert_eq!(
            needs(Service::Bedrock, "IngestKnowledgeBaseDocuments", &asked, &Value::Null),
            pairs(&wanted)
        );
    }

    #[test]
    fn configuring_a_log_takes_handing_over_its_role() {
        let role = "arn:aws:iam::123456789012:role/bedrock";
        let asked = path("/logging/modelinvocations");
        let operation = "PutModelInvocationLoggingConfiguration";
        let own = ("bedrock:PutModelInvocationLoggingConfiguration", "*");
        let body = json!({"loggingConfig": {"cloudWatchConfig": {"logGroupName": "logs", "roleArn": role}}});
        let wanted = pairs(&[own, ("iam:PassRole", role)]);
        assert_eq!(needs(Service::Bedrock, operation, &asked, &body), wanted);
        let body = json!({"loggingConfig": {"s3Config": {"bucketName": "audit"}}});
        assert_eq!(needs(Service::Bedrock, operation, &asked, &body), pairs(&[own]));

        let parameter = Resource::Parameter("/bulkhead/stack/before".to_owned());
        let arn = "arn:aws:ssm:us-east-1:123456789012:parameter/bulkhead/stack/before";
        let got = needs(Service::Ssm, "GetParameter", &parameter, &Value::Null);
        assert_eq!(got, pairs(&[("ssm:GetParameter", arn)]));
    }

    #[test]
    fn a_copy_takes_reading_and_a_head_is_a_read() {
        let copy = Resource::Objects {
            bucket: "b".to_owned(),
            keys: vec!["t/a".to_owned()],
            source: Some(("b".to_owned(), "u/a".to_owned())),
        };
        let wanted = [
            ("s3:PutObject", "arn:aws:s3:::b/t/a"),
            ("s3:GetObject", "arn:aws:s3:::b/u/a"),
        ];
        assert_eq!(needs(Service::S3, "CopyObject", &copy, &Value::Null), pairs(&wanted));
        let head = Resource::Objects {
            bucket: "b".to_owned(),
            keys: vec!["t/a".to_owned()],
            source: None,
        };
        let wanted = [("s3:PutObject", "arn:aws:s3:::b/t/a"), ("s3:GetObject", "*")];
        assert_eq!(needs(Service::S3, "CopyObject", &head, &Value::Null), pairs(&wanted));
        let wanted = [("s3:GetObject", "arn:aws:s3:::b/t/a")];
        assert_eq!(needs(Service::S3, "HeadObject", &head, &Value::Null), pairs(&wanted));
    }

    #[test]
    fn a_transaction_takes_what_its_items_take() {
        let body = json!({"TransactItems": [
            {"Put": {"pk": "a"}}, {"ConditionCheck": {"pk": "b"}}, {"Update": {"pk": "c"}}, {"Frobnicate": {"pk": "d"}},
        ]});
        let got = needs(
            Service::DynamoDb,
            "TransactWriteItems",
            &Resource::Items(Vec::new()),
            &body,
        );
        let table = "arn:aws:dynamodb:us-east-1:123456789012:table/t";
        let wanted = [
            ("dynamodb:PutItem", table),
            ("dynamodb:ConditionCheckItem", table),
            ("dynamodb:UpdateItem", table),
            ("dynamodb:Frobnicate", table),
        ];
        assert_eq!(got, pairs(&wanted));
    }

    #[test]
    fn what_is_not_understood_takes_an_action_that_nobody_has() {
        for (service, operation) in [
            (Service::Bedrock, "GET /nothing"),
            (Service::DynamoDb, "TransactWriteItems"),
            (Service::S3, "ListBuckets"),
        ] {
            let got = needs(service, operation, &Resource::None, &Value::Null);
            assert_eq!(got, pairs(&[(&format!("{service}:{operation}"), "*")]));
        }
        let table = "arn:aws:dynamodb:us-east-1:123456789012:table/t";
        let got = needs(Service::DynamoDb, "Scan", &Resource::None, &json!({"TableName": "t"}));
        assert_eq!(got, pairs(&[("dynamodb:Scan", table)]));
    }

    #[test]
    fn every_row_names_its_page() {
        for row in &BEDROCK {
            assert!(row.source.ends_with(".html"), "{} {}", row.operation, row.action);
            assert!(row.action.starts_with("bedrock:") || row.action == "iam:PassRole");
        }
    }
}
