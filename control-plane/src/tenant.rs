//! Tenants, as operators see them: create, list, read, suspend, resume.

use bulkhead_core::error::Error;
use bulkhead_core::profile::{MAX_GROUPS, Profile, TenantStatus};
use bulkhead_core::request::Request;
use bulkhead_core::response::Response;
use bulkhead_core::store::PageRequest;
use bulkhead_core::tenant::{Group, OperatorContext, TenantId};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::State;

/// The body of `POST /tenants`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateTenant {
    tenant: String,
    #[serde(default)]
    groups: Option<Vec<String>>,
}

impl CreateTenant {
    /// Applies the rules: a tenant's id that is none and a limit exceeded are 400, groups that are not acceptable 422.
    fn parse(self) -> Result<(TenantId, Vec<Group>), Error> {
        let tenant =
            TenantId::parse(&self.tenant).map_err(|error| Error::invalid_at("/tenant", format!("{error}.")))?;
        let names = self.groups.unwrap_or_default();
        if names.len() > MAX_GROUPS {
            return Err(Error::invalid_at("/groups", "At most four groups."));
        }
        let mut groups: Vec<Group> = Vec::with_capacity(names.len());
        for (index, name) in names.iter().enumerate() {
            let refuse = |detail: &'static str| Error::unprocessable_at(format!("/groups/{index}"), detail);
            let group = Group::parse(name)
                .ok_or_else(|| refuse("1 to 32 of a-z and 0-9 in groups joined by single hyphens."))?;
            if groups.contains(&group) {
                return Err(refuse("The group stands here twice."));
            }
            groups.push(group);
        }
        Ok((tenant, groups))
    }
}

/// The body of `GET /tenants`.
#[derive(Debug, Serialize)]
struct TenantList<'a> {
    tenants: &'a [Profile],
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<&'a str>,
}

/// `POST /tenants`.
pub(crate) async fn create(state: &State, request: &Request) -> Result<Response, Error> {
    let operator = OperatorContext::new(request.caller(), &state.clock)?;
    let (tenant, groups) = request.json::<CreateTenant>()?.parse()?;
    let profile = Profile::new(tenant, groups, state.clock.now());
    state.registry.create_across_tenants(&operator, &profile).await?;
    Response::json(StatusCode::CREATED, &profile)
}

/// `GET /tenants`.
pub(crate) async fn list(state: &State, request: &Request) -> Result<Response, Error> {
    let operator = OperatorContext::new(request.caller(), &state.clock)?;
    let wanted = PageRequest::parse(request.query_parameter("limit")?, request.query_parameter("cursor")?)?;
    let page = state
        .registry
        .profiles_across_tenants(&operator, wanted.limit, wanted.cursor.as_ref())
        .await?;
    let body = TenantList {
        tenants: &page.items,
        next_cursor: page.next.as_ref().map(|next| next.as_str()),
    };
    Response::json(StatusCode::OK, &body)
}

/// `GET /tenants/{tenant}`.
pub(crate) async fn read(state: &State, request: &Request) -> Result<Response, Error> {
    let operator = OperatorContext::new(request.caller(), &state.clock)?;
    let profile = state
        .registry
        .profile_across_tenants(&operator, &named(request)?)
        .await?
        .ok_or(Error::NotFound)?;
    Response::json(StatusCode::OK, &profile)
}

/// `POST /tenants/{tenant}/suspend`.
pub(crate) async fn suspend(state: &State, request: &Request) -> Result<Response, Error> {
    set_status(state, request, TenantStatus::Suspended).await
}

/// `POST /tenants/{tenant}/resume`.
pub(crate) async fn resume(state: &State, request: &Request) -> Result<Response, Error> {
    set_status(state, request, TenantStatus::Active).await
}

async fn set_status(state: &State, request: &Request, status: TenantStatus) -> Result<Response, Error> {
    let operator = OperatorContext::new(request.caller(), &state.clock)?;
    let profile = state
        .registry
        .set_status_across_tenants(&operator, &named(request)?, status, state.clock.now())
        .await?;
    Response::json(StatusCode::OK, &profile)
}

/// The tenant that the path names. Operators may name any; what can't be a tenant's id names none.
fn named(request: &Request) -> Result<TenantId, Error> {
    TenantId::parse(request.path_parameter("tenant")?).map_err(|_| Error::NotFound)
}

#[cfg(test)]
mod tests {
    use bulkhead_core::error::Code;

    use super::*;

    fn parse(body: &str) -> Result<(TenantId, Vec<Group>), Code> {
        let body: CreateTenant = serde_json::from_str(body).map_err(|_| Code::InvalidRequest)?;
        body.parse().map_err(|error| error.code())
    }

    #[test]
    fn a_tenant_has_a_name_and_up_to_four_groups() {
        let (tenant, groups) = parse(r#"{"tenant":"acme","groups":["hr","legal-2"]}"#).unwrap();
        assert_eq!(tenant.as_str(), "acme");
        assert_eq!(groups, [Group::parse("hr").unwrap(), Group::parse("legal-2").unwrap()]);
        assert_eq!(parse(r#"{"tenant":"acme","groups":null}"#).unwrap().1, []);
        assert_eq!(parse(r#"{"tenant":"acme"}"#).unwrap().1, []);
    }

    #[test]
    fn what_is_malformed_is_400_and_what_is_unacceptable_is_422() {
        let check = |body: &str, code| assert_eq!(parse(body), Err(code), "{body}");
        check("{}", Code::InvalidRequest);
        check(r#"{"tenant":null}"#, Code::InvalidRequest);
        check(r#"{"tenant":"Acme"}"#, Code::InvalidRequest);
        check(r#"{"tenant":"a"}"#, Code::InvalidRequest);
        check(r#"{"tenant":"acme","plan":"gold"}"#, Code::InvalidRequest);
        check(r#"{"tenant":"bulkhead-shared"}"#, Code::InvalidRequest);
        check(r#"{"tenant":"acme","groups":"hr"}"#, Code::InvalidRequest);
        check(
            r#"{"tenant":"acme","groups":["a","b","c","d","e"]}"#,
            Code::InvalidRequest,
        );
        check(r#"{"tenant":"acme","groups":["*"]}"#, Code::Unprocessable);
        check(r#"{"tenant":"acme","groups":["HR"]}"#, Code::Unprocessable);
        check(r#"{"tenant":"acme","groups":["hr","hr"]}"#, Code::Unprocessable);
    }
}
