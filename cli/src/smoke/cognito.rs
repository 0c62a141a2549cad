//! Amazon Cognito, where it issues the tokens: a user can't move to another tenant.
//!
//! A user whose app client may write `custom:tenant_id` changes it with their own access token
//! (<https://docs.aws.amazon.com/cognito-user-identity-pools/latest/APIReference/API_UpdateUserAttributes.html>), and then
//! every lock opens for them. Whether the client may is not the deployment's to say, so it is tried.

use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::stage::Stage;
use super::{A, B, Check, Part, Verdict};
use crate::lock::Lock;
use crate::token::{Caller, Role, Token};

/// The attribute that names a user's tenant.
const ATTRIBUTE: &str = "custom:tenant_id";

pub(super) const PART: Part = Part {
    name: "cognito",
    needs: &[],
    checks: &[Check {
        name: "a user can't change their own custom:tenant_id",
        rests_on: Some(Lock::IdentityProvider),
        run: |stage| Box::pin(rename(stage)),
    }],
};

/// What Cognito said.
#[derive(Debug, PartialEq, Eq)]
enum Reply {
    /// It did it.
    Done,
    /// It did not, because that attribute can't be written by that client.
    Refused,
    /// It did not, for a reason that says nothing about the attribute.
    Unrelated(String),
}

async fn rename(stage: &mut Stage) -> anyhow::Result<Verdict> {
    let member = Caller::member(A, Role::Reader);
    let token = stage.tokens.get(&member).await?;
    let claims = token.unverified_claims()?;
    let issuer = claims.get("iss").and_then(Value::as_str).unwrap_or_default();
    let Some(endpoint) = stage.options.cognito_endpoint.clone().or_else(|| endpoint(issuer)) else {
        return Ok(Verdict::skipped("the tokens' issuer is not Amazon Cognito"));
    };
    let is_access = |token: &Token| -> anyhow::Result<bool> {
        Ok(token.unverified_claims()?.get("token_use") == Some(&Value::from("access")))
    };
    let token = if is_access(&token)? {
        token
    } else {
        let access = stage.tokens.get(&Caller { access: true, ..member }).await?;
        if !is_access(&access)? {
            return Ok(Verdict::skipped(
                "it takes an access token, and the token command printed none for BULKHEAD_TOKEN_USE=access",
            ));
        }
        access
    };
    match update(&endpoint, &token, B).await? {
        Reply::Refused => Ok(Verdict::SOUND),
        Reply::Unrelated(why) if why == "scope" => Ok(Verdict::skipped(
            "the access token lacks the scope aws.cognito.signin.user.admin, so it proves nothing",
        )),
        Reply::Unrelated(why) => bail!("Cognito answered {why}, which does not tell whether it is possible"),
        Reply::Done => {
            // The user is the smoke test's own; it goes back to where it was.
            let back = update(&endpoint, &token, A).await;
            let state = if matches!(back, Ok(Reply::Done)) {
                "and back"
            } else {
                "and NOT back"
            };
            bail!(
                "{}'s {ATTRIBUTE} was changed to {B} ({state}) with their own access token: take it out of the app client's \
                 WriteAttributes",
                Caller::member(A, Role::Reader).user()
            )
        }
    }
}

/// Cognito's endpoint, if `issuer` is one of its user pools: `https://cognito-idp.{region}.amazonaws.com/{pool}`.
fn endpoint(issuer: &str) -> Option<String> {
    let url = reqwest::Url::parse(issuer).ok()?;
    let host = url.host_str()?;
    let region = host.strip_prefix("cognito-idp.").and_then(|host| {
        host.strip_suffix(".amazonaws.com")
            .or_else(|| host.strip_suffix(".amazonaws.com.cn"))
    })?;
    let is_region = !region.is_empty() && region.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    (url.scheme() == "https" && is_region).then(|| format!("https://{host}/"))
}

/// Asks Cognito to change the tenant of the token's user.
async fn update(endpoint: &str, token: &Token, tenant: &str) -> anyhow::Result<Reply> {
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(Duration::from_secs(30))
        .build()?;
    let body = json!({
        "AccessToken": token.reveal(),
        "UserAttributes": [{"Name": ATTRIBUTE, "Value": tenant}],
    });
    let answer = client
        .post(endpoint)
        .header(CONTENT_TYPE, "application/x-amz-json-1.1")
        .header("X-Amz-Target", "AWSCognitoIdentityProviderService.UpdateUserAttributes")
        .body(body.to_string())
        .send()
        .await
        .with_context(|| format!("Cognito at {endpoint}"))?;
    let status = answer.status().as_u16();
    let body: Value = serde_json::from_slice(&answer.bytes().await?).unwrap_or_default();
    Ok(reply(status, &body))
}

fn reply(status: u16, body: &Value) -> Reply {
    let member = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
    // Some services put a name space before it.
    let kind = member("__type").rsplit('#').next().unwrap_or_default();
    let message = member("message").to_lowercase();
    match (status, kind) {
        (200, _) => Reply::Done,
        (400, "NotAuthorizedException") if message.contains("scope") => Reply::Unrelated("scope".to_owned()),
        (400, "NotAuthorizedException" | "InvalidParameterException") if message.contains("attribute") => {
            Reply::Refused
        }
        _ => Reply::Unrelated(format!("{status} {kind}")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use data_encoding::BASE64URL_NOPAD;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::smoke::Options;

    /// A Cognito that gives these answers in turn, and the bodies that it was sent.
    async fn cognito(answers: Vec<(u16, Value)>) -> (String, Arc<Mutex<Vec<Value>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}/", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&asked);
        tokio::spawn(async move {
            for (status, answer) in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = String::new();
                let body = loop {
                    let mut buffer = [0; 4_096];
                    let read = stream.read(&mut buffer).await.unwrap();
                    request.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
                    let Some((head, body)) = request.split_once("\r\n\r\n") else {
                        continue;
                    };
                    assert!(head.starts_with("POST / "), "{head}");
                    let head = head.to_lowercase();
                    assert!(
                        head.contains("x-amz-target: awscognitoidentityproviderservice.updateuserattributes"),
                        "{head}"
                    );
                    assert!(head.contains("content-type: application/x-amz-json-1.1"), "{head}");
                    if let Ok(body) = serde_json::from_str(body) {
                        break body;
                    }
                };
                notes.lock().unwrap().push(body);
                let answer = answer.to_string();
                let answer = format!(
                    "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{answer}",
                    answer.len()
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        (endpoint, asked)
    }

    /// A token that nobody signed.
    fn token(claims: &Value) -> String {
        let mut claims = claims.clone();
        claims["exp"] = json!(4_102_444_800_u64);
        format!("e30.{}.c2ln", BASE64URL_NOPAD.encode(claims.to_string().as_bytes()))
    }

    fn stage(endpoint: Option<String>, token_command: String) -> Stage {
        Stage::new(Options {
            url: "http://127.0.0.1:9/v1".to_owned(),
            token_command,
            guardrail_string: None,
            ingestion: false,
            cognito_endpoint: endpoint,
        })
        .unwrap()
    }

    fn refusal(message: &str) -> (u16, Value) {
        (400, json!({"__type": "NotAuthorizedException", "message": message}))
    }

    #[tokio::test]
    async fn an_attribute_that_can_be_written_is_found_and_put_back() {
        let access = token(&json!({"token_use": "access"}));
        let (endpoint, asked) = cognito(vec![(200, json!({})), (200, json!({}))]).await;
        let fault = rename(&mut stage(Some(endpoint), format!("echo {access}")))
            .await
            .unwrap_err();
        assert!(fault.to_string().contains("(and back)"), "{fault}");
        let asked = asked.lock().unwrap();
        let attribute = |tenant: &str| json!([{"Name": "custom:tenant_id", "Value": tenant}]);
        assert_eq!(
            asked[0],
            json!({"AccessToken": access, "UserAttributes": attribute("smoke-b")})
        );
        assert_eq!(asked[1]["UserAttributes"], attribute("smoke-a"));
    }

    #[tokio::test]
    async fn only_a_refusal_of_the_attribute_counts() {
        let (id, access) = (
            token(&json!({"token_use": "id"})),
            token(&json!({"token_use": "access"})),
        );
        // An id token where nothing was said of its use, an access token where one was asked for.
        let both = format!("test \"$BULKHEAD_TOKEN_USE\" = access && echo {access} || echo {id}");
        let (endpoint, _) = cognito(vec![
            refusal("A client attempted to write unauthorized attribute"),
            refusal("Access Token does not have required scopes"),
            refusal("Access Token has been revoked"),
            (500, json!({"__type": "InternalErrorException"})),
        ])
        .await;
        let mut stage = stage(Some(endpoint), both);
        assert_eq!(rename(&mut stage).await.unwrap(), Verdict::SOUND);
        assert!(matches!(rename(&mut stage).await.unwrap(), Verdict::Skipped(_)));
        for said in ["NotAuthorizedException", "InternalErrorException"] {
            let fault = rename(&mut stage).await.unwrap_err().to_string();
            assert!(fault.contains(said) && !fault.contains("e30."), "{fault}");
        }
    }

    #[tokio::test]
    async fn it_is_skipped_where_it_can_not_be_tried() {
        let id = token(&json!({"token_use": "id", "iss": "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_x"}));
        let other = token(&json!({"iss": "https://login.example.com/"}));
        for (token, why) in [(id, "access token"), (other, "not Amazon Cognito")] {
            match rename(&mut stage(None, format!("echo {token}"))).await.unwrap() {
                Verdict::Skipped(reason) => assert!(reason.contains(why), "{reason}"),
                verdict => panic!("{verdict:?}"),
            }
        }
    }

    #[test]
    fn tokens_go_to_cognito_and_to_nobody_who_looks_like_it() {
        assert_eq!(
            endpoint("https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Abc").as_deref(),
            Some("https://cognito-idp.eu-west-1.amazonaws.com/")
        );
        for issuer in [
            "https://login.example.com/",
            "http://cognito-idp.eu-west-1.amazonaws.com/x",
            "https://cognito-idp.eu-west-1.amazonaws.com.example.com/x",
            "https://cognito-idp.example.com.amazonaws.com/x",
            "https://cognito-idp..amazonaws.com/x",
            "",
        ] {
            assert_eq!(endpoint(issuer), None, "{issuer}");
        }
    }
}
