//! The isolation table: one row per operation of the contract, each asked by every kind of stranger.
//!
//! Rows are data. A suite that has the contract compares its operations with [`ROWS`] and fails if one has no row. What
//! a kind of caller must be told follows from the row by one rule ([`expected`]); exceptions would be rows of their own.

use std::fmt;

use anyhow::Context as _;
use reqwest::Method;
use serde_json::{Value, json};

use crate::deployment::{Answer, Call, Deployment};
use crate::lock::Lock;

/// Who may call an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody.
    Public,
    /// Every member of an active tenant.
    Reader,
    /// The tenant's admins.
    Admin,
    /// The vendor's operators.
    Operator,
}

/// What an operation's path or body names, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Nothing: the operation speaks of the caller's tenant.
    None,
    /// A document of the tenant under attack, in the path.
    Document,
    /// A conversation of the tenant under attack, in the path or in the body.
    Session,
    /// A tenant, in the path.
    Tenant,
    /// An ingestion, in the path.
    Ingestion,
}

/// One operation.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The contract's `operationId`.
    pub operation: &'static str,
    /// The method.
    pub method: &'static str,
    /// The path as the contract spells it.
    pub path: &'static str,
    /// Who may.
    pub access: Access,
    /// What it names.
    pub target: Target,
    /// The statuses that its rightful caller may get. More than one where the target's state decides.
    pub own: &'static [u16],
}

/// Every operation of the contract.
pub const ROWS: &[Row] = &[
    row("get_health", "GET", "/health", Access::Public, Target::None, &[200]),
    row("query", "POST", "/genai/query", Access::Reader, Target::Session, &[200]),
    row(
        "stream_query",
        "POST",
        "/genai/query/stream",
        Access::Reader,
        Target::Session,
        &[200],
    ),
    row(
        "retrieve",
        "POST",
        "/genai/retrieve",
        Access::Reader,
        Target::None,
        &[200],
    ),
    row("chat", "POST", "/genai/chat", Access::Reader, Target::None, &[200]),
    row(
        "list_sessions",
        "GET",
        "/sessions",
        Access::Reader,
        Target::None,
        &[200],
    ),
    row(
        "get_session",
        "GET",
        "/sessions/{session_id}",
        Access::Reader,
        Target::Session,
        &[200],
    ),
    // After everything that needs the conversation.
    row(
        "delete_session",
        "DELETE",
        "/sessions/{session_id}",
        Access::Reader,
        Target::Session,
        &[204],
    ),
    row(
        "declare_document",
        "POST",
        "/documents",
        Access::Admin,
        Target::None,
        &[201],
    ),
    row(
        "list_documents",
        "GET",
        "/documents",
        Access::Admin,
        Target::None,
        &[200],
    ),
    row(
        "get_document",
        "GET",
        "/documents/{document_id}",
        Access::Admin,
        Target::Document,
        &[200],
    ),
    row(
        "put_document_content",
        "PUT",
        "/documents/{document_id}/content",
        Access::Admin,
        Target::Document,
        &[409],
    ),
    row(
        "complete_document",
        "POST",
        "/documents/{document_id}/complete",
        Access::Admin,
        Target::Document,
        &[202],
    ),
    row(
        "get_document_content",
        "GET",
        "/documents/{document_id}/content",
        Access::Reader,
        Target::Document,
        &[302],
    ),
    row("get_tenant", "GET", "/tenant", Access::Admin, Target::None, &[200]),
    // After everything that needs the document.
    row(
        "delete_document",
        "DELETE",
        "/documents/{document_id}",
        Access::Admin,
        Target::Document,
        &[202],
    ),
    row(
        "create_tenant",
        "POST",
        "/tenants",
        Access::Operator,
        Target::None,
        // The second where the tenant exists, as it does for whoever may not leave new ones behind.
        &[201, 409],
    ),
    row(
        "list_tenants",
        "GET",
        "/tenants",
        Access::Operator,
        Target::None,
        &[200],
    ),
    row(
        "read_tenant",
        "GET",
        "/tenants/{tenant}",
        Access::Operator,
        Target::Tenant,
        &[200],
    ),
    row(
        "update_tenant",
        "PATCH",
        "/tenants/{tenant}",
        Access::Operator,
        Target::Tenant,
        &[200],
    ),
    row(
        "start_ingestion",
        "POST",
        "/ingestions",
        Access::Operator,
        Target::None,
        &[202, 409],
    ),
    row(
        "get_ingestion",
        "GET",
        "/ingestions/{ingestion_id}",
        Access::Operator,
        Target::Ingestion,
        &[200],
    ),
    row(
        "suspend_tenant",
        "POST",
        "/tenants/{tenant}/suspend",
        Access::Operator,
        Target::Tenant,
        &[200],
    ),
    row(
        "resume_tenant",
        "POST",
        "/tenants/{tenant}/resume",
        Access::Operator,
        Target::Tenant,
        &[200],
    ),
];

const fn row(
    operation: &'static str,
    method: &'static str,
    path: &'static str,
    access: Access,
    target: Target,
    own: &'static [u16],
) -> Row {
    Row {
        operation,
        method,
        path,
        access,
        target,
        own,
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stranger {
    /// Without a token.
    Anonymous,
    /// With something that is no token.
    Malformed,
    /// With a token that has expired.
    Expired,
    /// With a token of an issuer that nobody configured.
    WrongIssuer,
    /// With a good token of another tenant, naming what is this tenant's.
    OtherTenant,
    /// With a good token of this tenant, or an operator's, that lacks the role.
    WrongRole,
    /// With a good token of a tenant that is suspended.
    Suspended,
    /// With the right token.
    Own,
}

impl Stranger {
    /// Every kind of caller; the rightful one last, because it changes things.
    pub const ALL: [Self; 8] = [
        Self::Anonymous,
        Self::Malformed,
        Self::Expired,
        Self::WrongIssuer,
        Self::OtherTenant,
        Self::WrongRole,
        Self::Suspended,
        Self::Own,
    ];
}

impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Anonymous => "anonymous",
            Self::Malformed => "malformed",
            Self::Expired => "expired",
            Self::WrongIssuer => "wrong issuer",
            Self::OtherTenant => "other tenant",
            Self::WrongRole => "wrong role",
            Self::Suspended => "suspended",
            Self::Own => "own",
        };
        f.pad(name)
    }
}

/// What a caller must be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// One of these statuses.
    Status(&'static [u16]),
    /// This status with this `code`.
    Problem(u16, &'static str),
    /// To the letter what is said of something that does not exist, which is 404.
    SameAsMissing,
    /// Their own side of things, without a trace of the other tenant's.
    OwnSideOnly(&'static [u16]),
}

/// What `stranger` must be told by the operation of `row`.
pub fn expected(row: &Row, stranger: Stranger) -> Expectation {
    if row.access == Access::Public {
        return Expectation::Status(row.own);
    }
    match stranger {
        Stranger::Anonymous | Stranger::Malformed | Stranger::Expired | Stranger::WrongIssuer => {
            Expectation::Problem(401, "unauthorized")
        }
        Stranger::Suspended => Expectation::Problem(403, "tenant_suspended"),
        // Everybody in a tenant is a reader; who is not is an operator, to whom a tenant's document is another's.
        Stranger::WrongRole if row.access == Access::Reader && row.target == Target::Document => {
            Expectation::SameAsMissing
        }
        Stranger::WrongRole => Expectation::Problem(403, "forbidden"),
        Stranger::OtherTenant => match (row.access, row.target) {
            // A tenant's admin is no operator, whatever tenant the path names.
            (Access::Operator, _) => Expectation::Problem(403, "forbidden"),
            (_, Target::None) => Expectation::OwnSideOnly(row.own),
            _ => Expectation::SameAsMissing,
        },
        Stranger::Own => Expectation::Status(row.own),
    }
}

/// What a refusal rests on first, if `stranger` is to be refused what the operation of `row` would give its rightful caller.
pub fn rests_on(row: &Row, stranger: Stranger) -> Option<Lock> {
    if row.access == Access::Public {
        return None;
    }
    match stranger {
        Stranger::Own => None,
        // Without the header that names the caller the gateway does not ask the authorizer.
        Stranger::Anonymous => Some(Lock::Gateway),
        Stranger::Malformed | Stranger::Expired | Stranger::WrongIssuer | Stranger::WrongRole | Stranger::Suspended => {
            Some(Lock::Identity)
        }
        Stranger::OtherTenant => Some(match (row.access, row.target, row.operation) {
            (Access::Operator, ..) => Lock::Identity,
            (_, Target::None, "retrieve" | "chat") => Lock::Retrieval,
            // Ids are looked up, and lists made, under the caller's own partition.
            _ => Lock::Storage,
        }),
    }
}

/// What the run needs: tokens of every kind of caller, and things of the tenant under attack.
#[derive(Clone, Debug)]
pub struct Scene {
    /// The tenant under attack.
    pub tenant: String,
    /// A token of its plain member.
    pub reader: String,
    /// A token of its admin.
    pub admin: String,
    /// A token of another tenant's admin.
    pub other: String,
    /// The other tenant.
    pub other_tenant: String,
    /// A token of an admin of a suspended tenant, where there is one.
    pub suspended: Option<String>,
    /// An operator's token.
    pub operator: String,
    /// The admin's token, but expired, where one can be had.
    pub expired: Option<String>,
    /// A token of the admin that an unknown issuer signed, where one can be had.
    pub wrong_issuer: Option<String>,
    /// An indexed document of the tenant.
    pub document: String,
    /// A text that only the tenant's documents hold.
    pub canary: String,
    /// A question that the canary answers and that does not hold it: a model may repeat what it is asked.
    pub question: String,
    /// A conversation of the tenant's reader.
    pub session: String,
    /// An ingestion.
    pub ingestion: String,
    /// A tenant's id that `create_tenant` may take, and that operators' other operations then work on.
    pub new_tenant: String,
    /// Well-formed ids of the right kinds that name nothing: document, conversation, tenant, ingestion.
    pub missing: Missing,
}

/// Well-formed ids that name nothing.
#[derive(Clone, Debug)]
pub struct Missing {
    /// A document's.
    pub document: String,
    /// A conversation's.
    pub session: String,
    /// A tenant's.
    pub tenant: String,
    /// An ingestion's.
    pub ingestion: String,
}

impl Missing {
    /// Ids of the right form, and the name of a tenant that nobody has created.
    pub fn new(tenant: impl Into<String>) -> Self {
        Self {
            document: "01JD0000000000000000000000".to_owned(),
            session: "01JZ8Q4T9M5X7R2V6C3B1N0K8D".to_owned(),
            tenant: tenant.into(),
            ingestion: "AAAAAAAAAA".to_owned(),
        }
    }
}

/// How one cell of the table came out.
#[derive(Clone, Debug)]
pub struct Cell {
    /// The operation.
    pub operation: &'static str,
    /// Who asked.
    pub stranger: Stranger,
    /// What was answered.
    pub status: u16,
    /// What is wrong with it, without a word of the answer; `None` if nothing is.
    pub fault: Option<String>,
    /// The answer, and what was said of something that does not exist if the two had to be the same. They may hold what
    /// nobody else may read.
    pub answers: Vec<Answer>,
}

/// Runs the cells that are `chosen`, in order. What [`Stranger::Own`] is answered changes things: where that comes between
/// others it is theirs to bear.
///
/// # Errors
/// The deployment does not answer at all, or the scene has no token for one of the callers.
pub async fn run(
    deployment: &Deployment,
    scene: &Scene,
    chosen: impl Fn(&Row, Stranger) -> bool,
) -> anyhow::Result<Vec<Cell>> {
    let mut cells = Vec::new();
    for row in ROWS {
        for stranger in Stranger::ALL {
            if chosen(row, stranger) {
                cells.push(cell(deployment, scene, row, stranger).await?);
            }
        }
    }
    Ok(cells)
}

/// The table as text: an operation a line, a status for every kind of caller, `!` behind what is wrong.
pub fn grid(cells: &[Cell]) -> String {
    let mut text = format!("{:24}", "operation");
    for stranger in Stranger::ALL {
        text.push_str(&format!("{stranger:>14}"));
    }
    for row in ROWS {
        text.push_str(&format!("\n{:24}", row.operation));
        for cell in cells.iter().filter(|cell| cell.operation == row.operation) {
            let mark = if cell.fault.is_some() { "!" } else { "" };
            text.push_str(&format!("{:>14}", format!("{}{mark}", cell.status)));
        }
    }
    text
}

async fn cell(deployment: &Deployment, scene: &Scene, row: &Row, stranger: Stranger) -> anyhow::Result<Cell> {
    let token = token(scene, row, stranger)?;
    let answer = deployment
        .send(&call(scene, row, stranger, token.clone(), false)?)
        .await?;
    let status = answer.status.as_u16();
    let mut answers = vec![answer.clone()];
    let fault = match expected(row, stranger) {
        Expectation::Status(statuses) => status_fault(&answer, statuses),
        Expectation::Problem(wanted, code) => problem_fault(&answer, wanted, code),
        Expectation::SameAsMissing => {
            let missing = deployment.send(&call(scene, row, stranger, token, true)?).await?;
            let fault = difference(&answer, &missing).or_else(|| problem_fault(&answer, 404, "not_found"));
            answers.push(missing);
            fault
        }
        Expectation::OwnSideOnly(statuses) => status_fault(&answer, statuses),
    };
    // Whatever the status: nobody but the tenant itself and operators ever reads its words or its name.
    let may_read = matches!(stranger, Stranger::Own) || row.access == Access::Public;
    let fault = fault.or_else(|| if may_read { None } else { trace_of(&answer, scene) });
    Ok(Cell {
        operation: row.operation,
        stranger,
        status,
        fault,
        answers,
    })
}

fn status_fault(answer: &Answer, statuses: &[u16]) -> Option<String> {
    let is_wanted = statuses.contains(&answer.status.as_u16());
    (!is_wanted).then(|| format!("{} instead of {statuses:?}", answer.summary()))
}

fn problem_fault(answer: &Answer, status: u16, code: &str) -> Option<String> {
    let media_type = answer
        .headers
        .get("content-type")
        .map(|value| value.as_bytes().to_vec())
        .unwrap_or_default();
    if answer.status.as_u16() != status || answer.code().as_deref() != Some(code) {
        Some(format!("{} instead of {status} {code}", answer.summary()))
    } else if media_type != b"application/problem+json" {
        Some(format!(
            "a problem of media type {}",
            String::from_utf8_lossy(&media_type)
        ))
    } else {
        None
    }
}

/// In what the answer differs from the one about something that does not exist.
fn difference(answer: &Answer, missing: &Answer) -> Option<String> {
    let (seen, wanted) = (answer.fingerprint(), missing.fingerprint());
    let parts = [
        ("status", seen.0 != wanted.0),
        ("headers", seen.1 != wanted.1),
        ("body", seen.2 != wanted.2),
    ];
    let parts: Vec<&str> = parts
        .iter()
        .filter(|(_, differs)| *differs)
        .map(|(part, _)| *part)
        .collect();
    (!parts.is_empty()).then(|| {
        format!(
            "{} differs from {} for a missing one in {}",
            answer.summary(),
            missing.summary(),
            parts.join(", ")
        )
    })
}

fn trace_of(answer: &Answer, scene: &Scene) -> Option<String> {
    let text = answer.text();
    [scene.canary.as_str(), scene.document.as_str(), scene.session.as_str()]
        .into_iter()
        .find(|trace| text.contains(trace))
        .map(|_| "holds something of the other tenant's".to_owned())
}

fn token(scene: &Scene, row: &Row, stranger: Stranger) -> anyhow::Result<Option<String>> {
    // Without its token a caller would be anonymous, and refused for another reason.
    let rare = |token: &Option<String>| token.clone().with_context(|| format!("no token for: {stranger}"));
    let token = match stranger {
        Stranger::Anonymous => return Ok(None),
        Stranger::Malformed => "not.a.token".to_owned(),
        Stranger::Expired => rare(&scene.expired)?,
        Stranger::WrongIssuer => rare(&scene.wrong_issuer)?,
        Stranger::OtherTenant => scene.other.clone(),
        Stranger::Suspended => rare(&scene.suspended)?,
        Stranger::WrongRole => match row.access {
            Access::Public | Access::Reader => scene.operator.clone(),
            Access::Admin => scene.reader.clone(),
            Access::Operator => scene.admin.clone(),
        },
        Stranger::Own => match row.access {
            Access::Public | Access::Reader => scene.reader.clone(),
            Access::Admin => scene.admin.clone(),
            Access::Operator => scene.operator.clone(),
        },
    };
    Ok(Some(token))
}

fn call(scene: &Scene, row: &Row, stranger: Stranger, token: Option<String>, missing: bool) -> anyhow::Result<Call> {
    let pick = |real: &str, nothing: &str| if missing { nothing.to_owned() } else { real.to_owned() };
    // The operator works on a tenant that nobody else uses: a suspension would change what the others are told, at a time
    // that caches decide.
    let tenant = if stranger == Stranger::Own {
        &scene.new_tenant
    } else {
        &scene.tenant
    };
    let path = row
        .path
        .replace("{document_id}", &pick(&scene.document, &scene.missing.document))
        .replace("{session_id}", &pick(&scene.session, &scene.missing.session))
        .replace("{tenant}", &pick(tenant, &scene.missing.tenant))
        .replace("{ingestion_id}", &pick(&scene.ingestion, &scene.missing.ingestion));
    let method = Method::from_bytes(row.method.as_bytes()).context("a method")?;
    let mut call = Call {
        method,
        path,
        token,
        body: None,
    };
    let body: Option<Value> = match row.operation {
        "query" | "stream_query" => Some(json!({
            "user_query": "What do the documents say?",
            "session_id": pick(&scene.session, &scene.missing.session),
        })),
        "retrieve" => Some(json!({"query": scene.question})),
        "chat" => Some(json!({
            "message": scene.question,
            "history": [{"role": "assistant", "content": format!("I speak for {}.", scene.tenant)}],
        })),
        "declare_document" => Some(json!({
            "name": "table.txt",
            "media_type": "text/plain",
            "size": 5,
            "sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
        })),
        "create_tenant" => Some(json!({"tenant": scene.new_tenant})),
        "update_tenant" => Some(json!({"groups": ["table"]})),
        _ => None,
    };
    if let Some(body) = body {
        call = call.json(&body);
    }
    if row.operation == "put_document_content" {
        call.body = Some(("text/plain".to_owned(), b"hello".to_vec()));
    }
    Ok(call)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_operation_has_two_rows() {
        let mut names: Vec<&str> = ROWS.iter().map(|row| row.operation).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ROWS.len());
    }
}
