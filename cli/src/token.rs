//! Tokens of a deployment's identity provider, which a command of the operator's prints.
//!
//! The command is run by `sh -c`, as it would be if it were typed. What it is asked for is told in variables and never
//! becomes part of the command's text:
//!
//! | variable | |
//! | --- | --- |
//! | `BULKHEAD_TOKEN_ROLE` | `reader`, `admin` or `operator` |
//! | `BULKHEAD_TOKEN_TENANT` | the tenant; not set for operators |
//! | `BULKHEAD_TOKEN_USER` | a name for the user, different for every tenant and role |
//! | `BULKHEAD_TOKEN_USE` | `access` where an access token is needed, otherwise not set |
//!
//! It prints the token on its standard output and nothing else. Nothing that it prints there is shown by anybody, also when
//! it fails; its standard error is. Signatures are not verified here: a token is the deployment's to judge.

use std::collections::HashMap;
use std::fmt;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use data_encoding::BASE64URL_NOPAD;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

/// How long the command may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// A token that is good for less than this is not used any more: a part of the smoke test that has begun must end with it.
const MARGIN: Duration = Duration::from_secs(120);
/// The most that is read of what the command prints. A token has 8 KB at most.
const MAX_OUTPUT: u64 = 64 << 10;
/// The most that is shown of what the command says about its failure, in characters.
const MAX_COMPLAINT: usize = 2_000;

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// A plain member of a tenant.
    Reader,
    /// A tenant's admin.
    Admin,
    /// The vendor's operator.
    Operator,
}

impl Role {
    /// As the command is told.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Admin => "admin",
            Self::Operator => "operator",
        }
    }
}

/// Who a token is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caller {
    /// The tenant; none for operators.
    pub tenant: Option<&'static str>,
    /// The role.
    pub role: Role,
    /// Whether it must be an access token. Otherwise whatever the deployment takes.
    pub access: bool,
}

impl Caller {
    /// A member of a tenant.
    pub fn member(tenant: &'static str, role: Role) -> Self {
        Self {
            tenant: Some(tenant),
            role,
            access: false,
        }
    }

    /// An operator.
    pub fn operator() -> Self {
        Self {
            tenant: None,
            role: Role::Operator,
            access: false,
        }
    }

    /// The name of the user: `smoke-a-reader`, `smoke-operator`.
    pub fn user(&self) -> String {
        format!("{}-{}", self.tenant.unwrap_or("smoke"), self.role.name())
    }
}

/// A token, which shows in no debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The token as it is sent.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What the token says, without any trust in it: nobody has verified it.
    ///
    /// # Errors
    /// It is not a JWT.
    pub fn unverified_claims(&self) -> anyhow::Result<Value> {
        let parts: Vec<&str> = self.0.split('.').collect();
        let is_encoded = |part: &&str| part.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
        let (true, [_, claims, _]) = (parts.iter().all(is_encoded), parts.as_slice()) else {
            bail!("not a JWT: it is not three parts of base64url");
        };
        let claims = BASE64URL_NOPAD
            .decode(claims.as_bytes())
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
            .filter(Value::is_object);
        // The error of a parser might quote the token.
        claims.context("not a JWT: its claims are not base64url of a JSON object")
    }

    /// The same token with other claims, and so with a signature that is not theirs.
    ///
    /// # Errors
    /// It is not a JWT.
    pub fn altered(&self, change: impl FnOnce(&mut Value)) -> anyhow::Result<Self> {
        let mut claims = self.unverified_claims()?;
        change(&mut claims);
        let claims = BASE64URL_NOPAD.encode(claims.to_string().as_bytes());
        let mut parts = self.0.split('.');
        let (header, signature) = (parts.next().unwrap_or_default(), parts.next_back().unwrap_or_default());
        Ok(Self(format!("{header}.{claims}.{signature}")))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// The command, and the tokens that it has given.
#[derive(Debug)]
pub struct Tokens {
    command: String,
    patience: Duration,
    given: HashMap<Caller, (Token, SystemTime)>,
}

impl Tokens {
    /// Tokens that `command` prints.
    pub fn new(command: &str) -> Self {
        Self {
            command: command.to_owned(),
            patience: PATIENCE,
            given: HashMap::new(),
        }
    }

    /// A token for a caller: the one that was given before, unless it is about to expire.
    ///
    /// # Errors
    /// The command can't be run, fails, takes more than a minute, or prints what is no JWT with an expiry to come.
    pub async fn get(&mut self, caller: &Caller) -> anyhow::Result<Token> {
        let now = SystemTime::now();
        let lasts = |expiry: SystemTime| expiry.duration_since(now).is_ok_and(|left| left > MARGIN);
        if let Some((token, _)) = self.given.get(caller).filter(|(_, expiry)| lasts(*expiry)) {
            return Ok(token.clone());
        }
        let (token, expiry) = self
            .ask(caller)
            .await
            .with_context(|| format!("the token command, asked for {}", caller.user()))?;
        anyhow::ensure!(
            expiry > now,
            "the token command printed a token for {} that has expired",
            caller.user()
        );
        self.given.insert(caller.clone(), (token.clone(), expiry));
        Ok(token)
    }

    async fn ask(&self, caller: &Caller) -> anyhow::Result<(Token, SystemTime)> {
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(&self.command)
            .env("BULKHEAD_TOKEN_ROLE", caller.role.name())
            .env("BULKHEAD_TOKEN_USER", caller.user())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        // Whatever our own environment says.
        match caller.tenant {
            Some(tenant) => command.env("BULKHEAD_TOKEN_TENANT", tenant),
            None => command.env_remove("BULKHEAD_TOKEN_TENANT"),
        };
        match caller.access {
            true => command.env("BULKHEAD_TOKEN_USE", "access"),
            false => command.env_remove("BULKHEAD_TOKEN_USE"),
        };
        let mut child = command.spawn().context("sh can't be run")?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let ended = async { tokio::join!(child.wait(), output(stdout), output(stderr)) };
        let (status, printed, complaint) = tokio::time::timeout(self.patience, ended)
            .await
            .with_context(|| format!("it has not ended after {} s", self.patience.as_secs()))?;
        let status = status.context("it can't be waited for")?;
        if !status.success() {
            let complaint: String = complaint.trim().chars().take(MAX_COMPLAINT).collect();
            bail!("it ended with {status}: {complaint}");
        }
        let token = Token(printed.trim().to_owned());
        let claims = token.unverified_claims().context("what it printed is")?;
        let expiry = claims
            .get("exp")
            .and_then(Value::as_f64)
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .and_then(|since| UNIX_EPOCH.checked_add(since))
            .context("it printed a token without an expiry")?;
        Ok((token, expiry))
    }
}

/// What arrives, as far as it is read, whatever bytes it holds.
async fn output(from: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        // What could not be read is missing, and then it is no token.
        let _ = from.take(MAX_OUTPUT).read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    /// A token that says it expires in `seconds`, signed by nobody.
    fn token(seconds: i64) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let part = |value: Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let claims = json!({"exp": i64::try_from(now).unwrap() + seconds, "custom:tenant_id": "smoke-a"});
        format!("{}.{}.c2lnbmVk", part(json!({"alg": "RS256"})), part(claims))
    }

    /// A command that notes in `folder` what it was asked for.
    fn noting(folder: &Path, token: &str) -> String {
        format!(
            "echo \"$BULKHEAD_TOKEN_ROLE ${{BULKHEAD_TOKEN_TENANT-none}} $BULKHEAD_TOKEN_USER ${{BULKHEAD_TOKEN_USE-any}}\" \
             >> '{}/asked'; echo '{token}'",
            folder.display()
        )
    }

    fn asked(folder: &Path) -> Vec<String> {
        let asked = std::fs::read_to_string(folder.join("asked")).unwrap();
        asked.lines().map(str::to_owned).collect()
    }

    fn reader() -> Caller {
        Caller::member("smoke-a", Role::Reader)
    }

    #[tokio::test]
    async fn a_token_is_asked_for_once_until_it_is_about_to_expire() {
        let folder = tempfile::tempdir().unwrap();
        let mut tokens = Tokens::new(&noting(folder.path(), &token(3_600)));
        for _ in 0..2 {
            tokens.get(&reader()).await.unwrap();
            tokens.get(&Caller::operator()).await.unwrap();
        }
        let access = Caller {
            access: true,
            ..reader()
        };
        tokens.get(&access).await.unwrap();
        assert_eq!(
            asked(folder.path()),
            [
                "reader smoke-a smoke-a-reader any",
                "operator none smoke-operator any",
                "reader smoke-a smoke-a-reader access"
            ]
        );

        let folder = tempfile::tempdir().unwrap();
        let mut tokens = Tokens::new(&noting(folder.path(), &token(100)));
        for _ in 0..2 {
            tokens.get(&reader()).await.unwrap();
        }
        assert_eq!(asked(folder.path()).len(), 2);
    }

    #[tokio::test]
    async fn a_command_that_fails_is_quoted_without_what_it_printed() {
        let secret = token(3_600);
        for (command, said) in [
            (
                format!("echo {secret}; echo no such user >&2; exit 3"),
                "exit status: 3: no such user",
            ),
            (format!("echo not {secret}"), "not a JWT"),
            ("echo e30.WzFd.e30".to_owned(), "not a JWT"),
            ("echo e30.e30.e30".to_owned(), "without an expiry"),
            (format!("echo {}", token(-1)), "has expired"),
            ("true".to_owned(), "not a JWT"),
        ] {
            let error = Tokens::new(&command).get(&reader()).await.unwrap_err();
            let error = format!("{error:#}");
            assert!(error.contains("smoke-a-reader") && error.contains(said), "{error}");
            assert!(!error.contains("eyJ"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_given_up() {
        let mut tokens = Tokens::new("exec tail -f /dev/null");
        tokens.patience = Duration::from_millis(50);
        let error = tokens.get(&reader()).await.unwrap_err();
        assert!(format!("{error:#}").contains("has not ended"), "{error:#}");
    }

    #[test]
    fn an_altered_token_keeps_its_signature_and_no_token_shows() {
        let token = Token(token(60));
        let altered = token
            .altered(|claims| claims["custom:tenant_id"] = json!("smoke-b"))
            .unwrap();
        assert_eq!(altered.unverified_claims().unwrap()["custom:tenant_id"], "smoke-b");
        assert!(altered.reveal().ends_with(".c2lnbmVk"));
        assert_ne!(altered, token);
        assert_eq!(format!("{token:?}"), "Token(…)");
    }
}
