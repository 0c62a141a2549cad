//! The caller's own tenant.

use bulkhead_core::error::Error;
use bulkhead_core::request::Request;
use bulkhead_core::response::Response;
use bulkhead_core::tenant::Role;
use http::StatusCode;

use crate::State;

/// `GET /tenant`.
pub(crate) async fn get(state: &State, request: &Request) -> Result<Response, Error> {
    let visit = state.admit(state.caller(request, Role::Admin)?).await?;
    Response::json(StatusCode::OK, &visit.profile().await?)
}
