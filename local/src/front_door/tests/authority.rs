//! What policies refuse, on the wire: in each service's own form, before anything is done, and with the statements noted.

use std::path::Path;

use super::*;
use crate::template::{Settings, Template};

/// A function's role that may assume a data role for a tenant, and that data role; a bucket that locks a part of itself.
fn template() -> Template {
    let allow = |sid: &str, action: Value, resource: Value, condition: Value| json!({"Sid": sid, "Effect": "Allow", "Action": action, "Resource": resource, "Condition": condition});
    let policy = |statements: Value| json!({"Version": "2012-10-17", "Statement": statements});
    let table = "arn:aws:dynamodb:eu-central-1:000000000000:table/bulkhead";
    let own_keys = json!({
        "ForAllValues:StringEquals": {"dynamodb:LeadingKeys": ["TENANT#${aws:PrincipalTag/tenant}"]},
        "Null": {"dynamodb:LeadingKeys": "false"},
    });
    let own_objects = "arn:aws:s3:::documents/t/${aws:PrincipalTag/tenant}/*";
    let document = json!({"Resources": {
        "FunctionRole": {"Type": "AWS::IAM::Role", "Properties": {
            "RoleName": "function",
            "AssumeRolePolicyDocument": policy(json!([{
                "Sid": "Run", "Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole",
            }])),
        }},
        "DataRole": {"Type": "AWS::IAM::Role", "Properties": {
            "RoleName": "data",
            "AssumeRolePolicyDocument": policy(json!([{
                "Sid": "ForTenant",
                "Effect": "Allow",
                "Principal": {"AWS": {"Fn::GetAtt": ["FunctionRole", "Arn"]}},
                "Action": ["sts:AssumeRole", "sts:TagSession"],
                "Condition": {
                    "ForAllValues:StringEquals": {"aws:TagKeys": ["tenant"]},
                    "Null": {"aws:RequestTag/tenant": "false"},
                },
            }])),
            "Policies": [{"PolicyName": "data", "PolicyDocument": policy(json!([
                allow("Items", json!(["dynamodb:BatchGetItem", "dynamodb:GetItem"]), json!(table), own_keys),
                allow("Objects", json!(["s3:GetObject", "s3:PutObject"]), json!(own_objects), json!({})),
            ]))}],
        }},
        "Attached": {"Type": "AWS::IAM::Policy", "Properties": {
            "PolicyName": "assume",
            "Roles": [{"Ref": "FunctionRole"}],
            "PolicyDocument": policy(json!([allow(
                "Data", json!(["sts:AssumeRole", "sts:TagSession"]), json!({"Fn::GetAtt": ["DataRole", "Arn"]}), json!({}),
            )])),
        }},
        "Locks": {"Type": "AWS::S3::BucketPolicy", "Properties": {
            "Bucket": "documents",
            "PolicyDocument": policy(json!([{
                "Sid": "Locked", "Effect": "Deny", "Principal": "*", "Action": "s3:*",
                "Resource": "arn:aws:s3:::documents/t/acme/locked/*",
            }])),
        }},
    }});
    let settings = Settings {
        region: "eu-central-1".to_owned(),
        account: "000000000000".to_owned(),
        ..Settings::default()
    };
    Template::from_document(&document, Path::new("."), &settings).unwrap()
}

fn caller(principal: &str) -> Caller {
    Caller {
        principal: principal.to_owned(),
        ..Caller::default()
    }
}

/// A door with those policies, and its caller the function.
async fn guarded(without: &[String]) -> Fixture {
    let mut fixture = Fixture::new().await;
    let authority = Authority::new(&template(), without, None).unwrap();
    let config = FrontDoorConfig {
        authority: Some(Arc::new(authority)),
        ..FrontDoorConfig::default()
    };
    fixture.door = FrontDoor::start(config, fixture.door.inner.services.clone())
        .await
        .unwrap();
    fixture.credential = fixture.door.credentials().issue(caller("FunctionRole"));
    fixture
}

impl Fixture {
    async fn sts(&self, form: &str) -> Response<Bytes> {
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        self.ask("sts", "POST", "/", &headers, form.as_bytes()).await.unwrap()
    }

    /// Becomes a session of the data role.
    async fn assume(&mut self, tenant: &str) {
        let answer = self
            .sts(&assume(&format!(
                "&Tags.member.1.Key=tenant&Tags.member.1.Value={tenant}"
            )))
            .await;
        assert_eq!(answer.status(), 200, "{}", text(&answer));
        let body = text(&answer);
        let element = |name: &str| {
            let (_, rest) = body.split_once(&format!("<{name}>")).unwrap();
            rest.split_once('<').unwrap().0.to_owned()
        };
        assert!(body.contains("assumed-role/data/session</Arn>"), "{body}");
        self.credential = IssuedCredential {
            access_key_id: element("AccessKeyId"),
            secret_access_key: element("SecretAccessKey"),
            session_token: element("SessionToken"),
            expires: None,
        };
    }
}

fn assume(more: &str) -> String {
    format!(
        "Action=AssumeRole&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A000000000000%3Arole%2Fdata\
         &RoleSessionName=session{more}"
    )
}

#[tokio::test]
async fn a_session_reaches_what_its_tag_says_and_nothing_beside() {
    let mut fixture = guarded(&[]).await;
    fixture.assume("acme").await;
    let get = |pk: &str| json!({"TableName": TABLE, "Key": {"pk": {"S": pk}, "sk": {"S": "x"}}});
    let (status, _) = fixture.dynamodb("GetItem", &get("TENANT#acme")).await.unwrap();
    assert_eq!(status, 200);
    let (status, body) = fixture.dynamodb("GetItem", &get("TENANT#acme-2")).await.unwrap();
    assert_eq!(status, 400);
    assert!(
        body["__type"].as_str().unwrap().ends_with("#AccessDeniedException"),
        "{body}"
    );
    let message = "User: arn:aws:sts::000000000000:assumed-role/data/session is not authorized to perform: dynamodb:GetItem on \
                   resource: arn:aws:dynamodb:eu-central-1:000000000000:table/bulkhead because no identity-based policy \
                   allows the dynamodb:GetItem action";
    let told = body["message"].as_str().or(body["Message"].as_str());
    assert_eq!(told, Some(message), "{body}");
    // What the door does not emulate is refused as well, and not as unknown.
    let (status, body) = fixture.dynamodb("Scan", &json!({"TableName": TABLE})).await.unwrap();
    assert!(status == 400 && body.to_string().contains("dynamodb:Scan"), "{body}");

    assert_eq!(fixture.s3("PUT", "t/acme/a", &[], b"x").await.status(), 200);
    assert_eq!(fixture.s3("GET", "t/acme/a", &[], b"").await.status(), 200);
    check_error(&fixture.s3("PUT", "t/acme-2/a", &[], b"x").await, 403, "AccessDenied");
    check_error(
        &fixture.s3("GET", "t/acme/../acme-2/a", &[], b"").await,
        403,
        "AccessDenied",
    );

    let calls = fixture.door.recorder().calls_of("acme");
    let decided = |number: usize| -> Vec<&str> { calls[number].decided_by.iter().map(StatementName::as_str).collect() };
    assert_eq!(decided(0), ["DataRole/data/Items"]);
    let all = fixture.door.recorder().calls();
    let assumed: Vec<_> = all[0].decided_by.iter().map(StatementName::as_str).collect();
    assert_eq!(all[0].operation, "AssumeRole");
    assert_eq!(all[0].request["Tags"], json!({"tenant": "acme"}));
    for statement in ["FunctionRole/assume/Data", "DataRole/trust/ForTenant"] {
        assert!(assumed.contains(&statement), "{assumed:?}");
    }
    assert!(decided(1).is_empty() && !calls[1].carried_out, "{:?}", calls[1]);
    assert_eq!(decided(3), ["DataRole/data/Objects"]);
}

#[tokio::test]
async fn a_missing_object_is_forbidden_to_who_may_not_list() {
    let mut fixture = guarded(&[]).await;
    fixture.assume("acme").await;
    check_error(&fixture.s3("GET", "t/acme/none", &[], b"").await, 403, "AccessDenied");
    assert_eq!(fixture.s3("HEAD", "t/acme/none", &[], b"").await.status(), 403);
    let source = [("x-amz-copy-source", "/documents/t/acme/none")];
    check_error(
        &fixture.s3("PUT", "t/acme/copy", &source, b"").await,
        403,
        "AccessDenied",
    );
    fixture.credential = fixture.door.credentials().issue(caller("administrator"));
    check_error(&fixture.s3("GET", "t/acme/none", &[], b"").await, 404, "NoSuchKey");
}

#[tokio::test]
async fn a_buckets_deny_outweighs_a_roles_allow() {
    let mut fixture = guarded(&[]).await;
    fixture.assume("acme").await;
    let answer = fixture.s3("PUT", "t/acme/locked/a", &[], b"x").await;
    check_error(&answer, 403, "AccessDenied");
    assert!(text(&answer).contains("with an explicit deny"), "{}", text(&answer));
    let calls = fixture.door.recorder().calls_of("acme");
    assert_eq!(calls.last().unwrap().decided_by[0].as_str(), "Locks/policy/Locked");
    let decisions = fixture.door.authority().decisions();
    let statement = StatementName::new("Locks", "policy", "Locked");
    assert!(
        decisions[&statement].contains(&Some("acme".to_owned())),
        "{decisions:?}"
    );
}

#[tokio::test]
async fn a_role_is_assumed_by_whom_both_sides_allow() {
    let tag = "&Tags.member.1.Key=tenant&Tags.member.1.Value=acme";
    let fixture = guarded(&[]).await;
    for more in [
        "",
        "&Tags.member.1.Key=team&Tags.member.1.Value=red",
        &format!("{tag}&Tags.member.2.Key=team&Tags.member.2.Value=red"),
    ] {
        check_error(&fixture.sts(&assume(more)).await, 403, "AccessDenied");
    }
    let nobody = assume(tag).replace("role%2Fdata", "role%2Fnone");
    check_error(&fixture.sts(&nobody).await, 403, "AccessDenied");
    for statement in ["FunctionRole/assume/Data", "DataRole/trust/ForTenant"] {
        let fixture = guarded(&[statement.to_owned()]).await;
        check_error(&fixture.sts(&assume(tag)).await, 403, "AccessDenied");
    }
    // Nor by a session of its own, nor by an administrator, whom the role does not trust.
    let mut fixture = guarded(&[]).await;
    fixture.assume("acme").await;
    check_error(&fixture.sts(&assume(tag)).await, 403, "AccessDenied");
    fixture.credential = fixture.door.credentials().issue(caller("administrator"));
    check_error(&fixture.sts(&assume(tag)).await, 403, "AccessDenied");
}

#[tokio::test]
async fn sts_has_the_services_limits() {
    let fixture = guarded(&[]).await;
    let tag = "&Tags.member.1.Key=tenant&Tags.member.1.Value=acme";
    let many: String = (1..=51)
        .map(|n| format!("&Tags.member.{n}.Key=k{n}&Tags.member.{n}.Value=v"))
        .collect();
    for (form, code) in [
        (assume(&format!("{tag}&DurationSeconds=3601")), "ValidationError"),
        (assume(&format!("{tag}&DurationSeconds=899")), "ValidationError"),
        (assume(&format!("{tag}&DurationSeconds=x")), "ValidationError"),
        (
            assume("&Tags.member.1.Key=tenant&Tags.member.1.Value=a%2A"),
            "ValidationError",
        ),
        (assume(&many), "ValidationError"),
        // A tag that is left over would be one that nobody looked at.
        (assume(&tag.replace("member.1", "member.2")), "ValidationError"),
        (assume(&format!("{tag}&Tags.member.2.Key=team")), "ValidationError"),
        (
            assume(&format!("{tag}&Tags.member.2.Key=Tenant&Tags.member.2.Value=b")),
            "InvalidParameterValue",
        ),
        (assume(tag).replace("=session", "=s"), "ValidationError"),
        (assume(tag).replace("=session", "=a%2Fb"), "ValidationError"),
        (assume(tag).replace("RoleArn", "Role"), "NotImplemented"),
        (assume(&format!("{tag}&Policy=%7B%7D")), "NotImplemented"),
        ("Action=GetSessionToken".to_owned(), "NotImplemented"),
    ] {
        let answer = fixture.sts(&form).await;
        let status = if code == "NotImplemented" { 501 } else { 400 };
        check_error(&answer, status, code);
    }
    assert_eq!(
        fixture
            .sts(&assume(&format!("{tag}&DurationSeconds=900")))
            .await
            .status(),
        200
    );
}

#[tokio::test]
async fn a_batch_is_for_one_partition_only_if_all_of_it_can_be_told() {
    let mut fixture = guarded(&[]).await;
    fixture.assume("acme").await;
    let own = json!({"pk": {"S": "TENANT#acme"}, "sk": {"S": "x"}});
    for other in [
        json!({"sk": {"S": "x"}}),
        json!({"pk": {"L": []}, "sk": {"S": "x"}}),
        json!(7),
    ] {
        let body = json!({"RequestItems": {TABLE: {"Keys": [own, other]}}});
        let (status, answer) = fixture.dynamodb("BatchGetItem", &body).await.unwrap();
        assert!(status == 400 && answer.to_string().contains("AccessDenied"), "{answer}");
    }
}

#[tokio::test]
async fn who_is_no_role_of_the_template_may_do_nothing() {
    let mut fixture = guarded(&[]).await;
    for (principal, status) in [
        ("administrator", 200),
        ("Administrator", 403),
        ("NoRole", 403),
        ("", 403),
    ] {
        fixture.credential = fixture.door.credentials().issue(caller(principal));
        let answer = fixture.s3("PUT", "t/acme/a", &[], b"x").await;
        assert_eq!(answer.status().as_u16(), status, "{principal}: {}", text(&answer));
    }
}

#[tokio::test]
async fn what_no_statement_is_called_stops_the_start() {
    let error = Authority::new(&template(), &["DataRole/data/Nothing".to_owned()], None).unwrap_err();
    assert!(error.to_string().starts_with("DataRole/data/Nothing"), "{error}");
    let names = Authority::new(&template(), &[], None).unwrap().statements();
    assert_eq!(names.len(), 6, "{names:?}");
}
