//! A caller's conversations as the caller sees them: list, get with their turns, delete.
//!
//! A turn holds passages as an answer showed them, perhaps weeks ago. Each is checked against its document's record again
//! before it is shown: what is being deleted, is gone, or is not for the caller any more is left out, with the citations
//! that rest on nothing else. What the answer said stays: the caller has read it.
//!
//! Not here: how conversations come about ([`crate::conversation`]), and who else's they are: the store knows the
//! caller's only.

use bulkhead_core::error::{Code, Error};
use bulkhead_core::request::Request;
use bulkhead_core::response::Response;
use bulkhead_core::session::{Session, SessionHandle};
use bulkhead_core::store::{PageRequest, TenantStore};
use bulkhead_core::time::Timestamp;
use bulkhead_core::turn::{Turn, TurnStatus};
use http::StatusCode;
use serde::Serialize;

use crate::State;
use crate::answer::{Citation, GuardrailAction, Usage};
use crate::firewall::{Documents, Firewall, Records};
use crate::model::Tokens;

/// The body of `GET /sessions`.
#[derive(Serialize)]
struct SessionList {
    sessions: Vec<SessionBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// The body of `GET /sessions/{session_id}`.
#[derive(Serialize)]
struct SessionWithTurns {
    #[serde(flatten)]
    session: SessionBody,
    turns: Vec<TurnBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

#[derive(Serialize)]
struct SessionBody {
    session_id: SessionHandle,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    turn_count: u64,
    created_at: Timestamp,
    updated_at: Timestamp,
    expires_at: Timestamp,
}

#[derive(Serialize)]
struct TurnBody {
    number: u64,
    user_query: String,
    output: Output,
    citations: Vec<Citation>,
    guardrail_action: GuardrailAction,
    usage: Usage,
    status: TurnStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<Code>,
    created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<Timestamp>,
}

#[derive(Serialize)]
struct Output {
    text: String,
}

/// `GET /sessions`.
pub(crate) async fn list(state: &State, request: &Request) -> Result<Response, Error> {
    let context = state.caller(request)?;
    let wanted = page(request)?;
    let data = state.shared.data.of(&context).await?;
    let store = TenantStore::new(&data.table, &context, &state.shared.clock);
    // All are awaited and the tenant's status is looked at first, so that a suspended tenant learns nothing else.
    let (asker, page) = tokio::join!(state.asker(context, data), store.sessions(&wanted));
    asker?;
    let page = page?;
    let body = SessionList {
        next_cursor: page.next.map(|next| next.as_str().to_owned()),
        sessions: page.items.into_iter().map(SessionBody::from).collect(),
    };
    Response::json(StatusCode::OK, &body)
}

/// `GET /sessions/{session_id}`.
pub(crate) async fn get(state: &State, request: &Request) -> Result<Response, Error> {
    let context = state.caller(request)?;
    let wanted = page(request)?;
    let data = state.shared.data.of(&context).await?;
    let store = TenantStore::new(&data.table, &context, &state.shared.clock);
    let found = async {
        let handle = handle(request)?;
        let (session, turns) = tokio::join!(store.session(&handle), store.turns_page(&handle, &wanted));
        Ok::<_, Error>((session?.ok_or(Error::NotFound)?, turns?))
    };
    let (asker, found) = tokio::join!(state.asker(context, data), found);
    let (asker, (session, page)) = (asker?, found?);

    let documents = Documents::of_turns(&page.items);
    let records = Records::read(&asker.store, asker.shared.as_ref(), &documents).await?;
    let firewall = Firewall::new(
        &asker.context,
        &asker.profile,
        &asker.plan,
        &state.shared.engines.bucket,
    )?;
    let body = SessionWithTurns {
        session: session.into(),
        turns: page
            .items
            .into_iter()
            .map(|turn| TurnBody::new(turn, &firewall, &records))
            .collect(),
        next_cursor: page.next.map(|next| next.as_str().to_owned()),
    };
    Response::json(StatusCode::OK, &body)
}

/// `DELETE /sessions/{session_id}`.
pub(crate) async fn delete(state: &State, request: &Request) -> Result<Response, Error> {
    let context = state.caller(request)?;
    let data = state.shared.data.of(&context).await?;
    let asker = state.asker(context, data).await?;
    asker.store.delete_session(&handle(request)?).await?;
    Ok(Response::empty(StatusCode::NO_CONTENT))
}

fn page(request: &Request) -> Result<PageRequest, Error> {
    PageRequest::parse(request.query_parameter("limit")?, request.query_parameter("cursor")?)
}

/// The conversation that the path names. A name that none can have is as good as one that is not there.
fn handle(request: &Request) -> Result<SessionHandle, Error> {
    SessionHandle::parse(request.path_parameter("session_id")?).ok_or(Error::NotFound)
}

impl From<Session> for SessionBody {
    fn from(session: Session) -> Self {
        Self {
            session_id: session.handle,
            title: session.title,
            turn_count: session.turns,
            created_at: session.created_at,
            updated_at: session.updated_at,
            expires_at: session.expires_at,
        }
    }
}

impl TurnBody {
    fn new(turn: Turn, firewall: &Firewall<'_>, records: &Records) -> Self {
        let tokens = turn
            .input_tokens
            .zip(turn.output_tokens)
            .map(|(input, output)| Tokens { input, output });
        let citation = |citation| Citation::of_turn(citation, |passage| firewall.release_stored(passage, records));
        Self {
            number: turn.number,
            usage: Usage::new(turn.engine, &turn.model, tokens),
            guardrail_action: GuardrailAction::of(turn.guardrail_intervened),
            citations: turn.citations.into_iter().filter_map(citation).collect(),
            user_query: turn.user_query,
            output: Output { text: turn.text },
            status: turn.status,
            code: turn.code,
            created_at: turn.created_at,
            ended_at: turn.ended_at,
        }
    }
}
