//! Tenants, as operators see them: create, list, read, change, suspend, resume.
//!
//! Groups and attributes can only be added to: documents may name them, which nobody here can see.

use bulkhead_core::attribute::{Attribute, AttributeKind, AttributeName, MAX_ATTRIBUTES};
use bulkhead_core::error::Error;
use bulkhead_core::plan::{Plans, STANDARD};
use bulkhead_core::profile::{MAX_GROUPS, Profile, TenantStatus};
use bulkhead_core::request::Request;
use bulkhead_core::response::Response;
use bulkhead_core::store::PageRequest;
use bulkhead_core::tenant::{Group, OperatorContext, TenantId};
use bulkhead_core::time::Timestamp;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::State;
use crate::precondition::Precondition;

/// How often a change is tried that others get in the way of.
const ATTEMPTS: usize = 4;

/// The body of `POST /tenants`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateTenant {
    tenant: String,
    #[serde(default)]
    plan: Option<String>,
    #[serde(default)]
    groups: Option<Vec<String>>,
    #[serde(default)]
    attributes: Option<Vec<DeclareAttribute>>,
    #[serde(default)]
    transcripts: Option<bool>,
}

/// The body of `PATCH /tenants/{tenant}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateTenant {
    #[serde(default)]
    plan: Option<String>,
    #[serde(default)]
    groups: Option<Vec<String>>,
    #[serde(default)]
    attributes: Option<Vec<DeclareAttribute>>,
    #[serde(default)]
    transcripts: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeclareAttribute {
    name: String,
    kind: String,
}

/// What is to become of a profile. A member that is not there stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Change {
    plan: Option<String>,
    groups: Option<Vec<Group>>,
    attributes: Option<Vec<Attribute>>,
    transcripts: Option<bool>,
}

impl CreateTenant {
    /// Applies the rules: a tenant's id that is none and a limit exceeded are 400, what is not acceptable 422.
    fn parse(self, plans: &Plans, now: Timestamp) -> Result<Profile, Error> {
        let tenant =
            TenantId::parse(&self.tenant).map_err(|error| Error::invalid_at("/tenant", format!("{error}.")))?;
        let wanted = UpdateTenant {
            plan: Some(self.plan.unwrap_or_else(|| STANDARD.to_owned())),
            groups: self.groups,
            attributes: self.attributes,
            transcripts: self.transcripts,
        };
        wanted.parse(plans)?.apply(&Profile::new(tenant, Vec::new(), now))
    }
}

impl UpdateTenant {
    /// Applies the rules, as far as they do not depend on the tenant.
    fn parse(self, plans: &Plans) -> Result<Change, Error> {
        if let Some(plan) = &self.plan
            && !plans.contains(plan)
        {
            return Err(Error::unprocessable_at("/plan", "There is no such plan."));
        }
        Ok(Change {
            plan: self.plan,
            groups: self.groups.map(parse_groups).transpose()?,
            attributes: self.attributes.map(parse_attributes).transpose()?,
            transcripts: self.transcripts,
        })
    }
}

impl Change {
    /// The profile with the change.
    ///
    /// # Errors
    /// [`Error::Conflict`] if something were removed that documents may name, or became something else.
    fn apply(self, profile: &Profile) -> Result<Profile, Error> {
        let mut profile = profile.clone();
        if let Some(plan) = self.plan {
            profile.plan = plan;
        }
        if let Some(groups) = self.groups {
            if !profile.groups.iter().all(|group| groups.contains(group)) {
                return Err(Error::conflict(
                    "Groups can only be added: documents may be for those that are declared.",
                ));
            }
            profile.groups = groups;
        }
        if let Some(attributes) = self.attributes {
            if !profile
                .attributes
                .iter()
                .all(|attribute| attributes.contains(attribute))
            {
                return Err(Error::conflict(
                    "Attributes can only be added, and keep their kind: documents may have those that are declared.",
                ));
            }
            profile.attributes = attributes;
        }
        if let Some(transcripts) = self.transcripts {
            profile.transcripts = transcripts;
        }
        Ok(profile)
    }
}

fn parse_groups(names: Vec<String>) -> Result<Vec<Group>, Error> {
    if names.len() > MAX_GROUPS {
        return Err(Error::invalid_at("/groups", "At most four groups."));
    }
    let mut groups: Vec<Group> = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        let refuse = |detail: &'static str| Error::unprocessable_at(format!("/groups/{index}"), detail);
        let group =
            Group::parse(name).ok_or_else(|| refuse("1 to 32 of a-z and 0-9 in groups joined by single hyphens."))?;
        if groups.contains(&group) {
            return Err(refuse("The group stands here twice."));
        }
        groups.push(group);
    }
    Ok(groups)
}

fn parse_attributes(declared: Vec<DeclareAttribute>) -> Result<Vec<Attribute>, Error> {
    if declared.len() > MAX_ATTRIBUTES {
        return Err(Error::invalid_at("/attributes", "At most ten attributes."));
    }
    let mut attributes: Vec<Attribute> = Vec::with_capacity(declared.len());
    for (index, DeclareAttribute { name, kind }) in declared.iter().enumerate() {
        let refuse = |member: &str, detail: &'static str| {
            Error::unprocessable_at(format!("/attributes/{index}/{member}"), detail)
        };
        let name = AttributeName::parse(name).ok_or_else(|| {
            refuse(
                "name",
                "1 to 32 of a-z, 0-9 and _, beginning with a letter; not audience and not title.",
            )
        })?;
        if attributes.iter().any(|attribute| attribute.name == name) {
            return Err(refuse("name", "The attribute stands here twice."));
        }
        let kind = AttributeKind::parse(kind).ok_or_else(|| refuse("kind", "string, number or boolean."))?;
        attributes.push(Attribute { name, kind });
    }
    Ok(attributes)
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
    let profile = request.json::<CreateTenant>()?.parse(&state.plans, state.clock.now())?;
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

/// `PATCH /tenants/{tenant}`. Functions see the change when they next look, within 20 seconds.
pub(crate) async fn update(state: &State, request: &Request) -> Result<Response, Error> {
    let operator = OperatorContext::new(request.caller(), &state.clock)?;
    let tenant = named(request)?;
    let precondition = Precondition::parse(request.header("If-Match")?)?;
    let change = request.json::<UpdateTenant>()?.parse(&state.plans)?;
    for _ in 0..ATTEMPTS {
        let seen = state
            .registry
            .profile_across_tenants(&operator, &tenant)
            .await?
            .ok_or(Error::NotFound)?;
        precondition.check(seen.version)?;
        let changed = change.clone().apply(&seen)?;
        let update = state
            .registry
            .update_across_tenants(&operator, &seen, changed, state.clock.now());
        match update.await {
            // Somebody else was faster: the change may still be good for what they made of it, if any version will do.
            Err(Error::Conflict { .. }) => {}
            profile => return Response::json(StatusCode::OK, &profile?),
        }
    }
    Err(Error::conflict("The tenant is being changed; try again."))
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

    const PLANS: &str = r#"{"standard":{},"gold":{"shared_corpus":true}}"#;

    fn plans() -> Plans {
        Plans::from_env(&[("PLANS", PLANS)].into_iter().collect(), "PLANS").unwrap()
    }

    fn parse(body: &str) -> Result<Profile, Code> {
        let body: CreateTenant = serde_json::from_str(body).map_err(|_| Code::InvalidRequest)?;
        body.parse(&plans(), Timestamp::from_unix(0))
            .map_err(|error| error.code())
    }

    fn update(profile: &Profile, body: &str) -> Result<Profile, Code> {
        let body: UpdateTenant = serde_json::from_str(body).map_err(|_| Code::InvalidRequest)?;
        body.parse(&plans())
            .and_then(|change| change.apply(profile))
            .map_err(|error| error.code())
    }

    #[test]
    fn a_tenant_has_a_name_and_what_its_operator_says() {
        let profile = parse(
            r#"{"tenant":"acme","plan":"gold","groups":["hr","legal-2"],"transcripts":false,
                "attributes":[{"name":"season","kind":"number"}]}"#,
        )
        .unwrap();
        assert_eq!(profile.tenant.as_str(), "acme");
        assert_eq!(profile.plan, "gold");
        assert_eq!(
            profile.groups,
            [Group::parse("hr").unwrap(), Group::parse("legal-2").unwrap()]
        );
        assert_eq!(
            profile.attribute(&AttributeName::parse("season").unwrap()),
            Some(AttributeKind::Number)
        );
        assert!(!profile.transcripts);
        let plain = parse(r#"{"tenant":"acme"}"#).unwrap();
        assert_eq!(
            plain,
            Profile::new(TenantId::parse("acme").unwrap(), Vec::new(), Timestamp::from_unix(0))
        );
        let nulls = r#"{"tenant":"acme","plan":null,"groups":null,"attributes":null,"transcripts":null}"#;
        assert_eq!(parse(nulls).unwrap(), plain);
    }

    #[test]
    fn what_is_malformed_is_400_and_what_is_unacceptable_is_422() {
        let check = |body: &str, code| assert_eq!(parse(body), Err(code), "{body}");
        check("{}", Code::InvalidRequest);
        check(r#"{"tenant":null}"#, Code::InvalidRequest);
        check(r#"{"tenant":"Acme"}"#, Code::InvalidRequest);
        check(r#"{"tenant":"a"}"#, Code::InvalidRequest);
        check(r#"{"tenant":"acme","status":"suspended"}"#, Code::InvalidRequest);
        check(r#"{"tenant":"bulkhead-shared"}"#, Code::InvalidRequest);
        check(r#"{"tenant":"acme","plan":1}"#, Code::InvalidRequest);
        check(r#"{"tenant":"acme","plan":"silver"}"#, Code::Unprocessable);
        check(r#"{"tenant":"acme","groups":"hr"}"#, Code::InvalidRequest);
        check(
            r#"{"tenant":"acme","groups":["a","b","c","d","e"]}"#,
            Code::InvalidRequest,
        );
        check(r#"{"tenant":"acme","groups":["*"]}"#, Code::Unprocessable);
        check(r#"{"tenant":"acme","groups":["HR"]}"#, Code::Unprocessable);
        check(r#"{"tenant":"acme","groups":["hr","hr"]}"#, Code::Unprocessable);
        let attributes = |list: &str| format!(r#"{{"tenant":"acme","attributes":[{list}]}}"#);
        let number = |name: &str| format!(r#"{{"name":"{name}","kind":"number"}}"#);
        let ten: Vec<String> = (0..10).map(|n| number(&format!("a{n}"))).collect();
        assert!(parse(&attributes(&ten.join(","))).is_ok());
        check(
            &attributes(&format!("{},{}", ten.join(","), number("b"))),
            Code::InvalidRequest,
        );
        check(&attributes(r#"{"name":"a"}"#), Code::InvalidRequest);
        check(
            &attributes(r#"{"name":"a","kind":"number","x":1}"#),
            Code::InvalidRequest,
        );
        check(&attributes(r#"{"name":"a","kind":"list"}"#), Code::Unprocessable);
        check(
            &attributes(&format!("{},{}", number("a"), number("a"))),
            Code::Unprocessable,
        );
        for name in ["", "A", "tenantId", "audience", "title", "a-b", "a.b"] {
            check(&attributes(&number(name)), Code::Unprocessable);
        }
    }

    #[test]
    fn groups_and_attributes_can_only_be_added() {
        let profile =
            parse(r#"{"tenant":"acme","groups":["hr"],"attributes":[{"name":"season","kind":"number"}]}"#).unwrap();
        for same in [
            "{}",
            r#"{"groups":["hr"]}"#,
            r#"{"plan":"standard","transcripts":null}"#,
        ] {
            assert_eq!(update(&profile, same).as_ref(), Ok(&profile), "{same}");
        }
        let more = r#"{"groups":["legal","hr"],"attributes":
            [{"name":"season","kind":"number"},{"name":"draft","kind":"boolean"}],"plan":"gold","transcripts":false}"#;
        let changed = update(&profile, more).unwrap();
        assert_eq!((changed.groups.len(), changed.attributes.len()), (2, 2));
        assert_eq!((changed.plan.as_str(), changed.transcripts), ("gold", false));
        assert_eq!(changed.version, profile.version, "the registry counts");
        for removal in [
            r#"{"groups":[]}"#,
            r#"{"groups":["legal"]}"#,
            r#"{"attributes":[]}"#,
            r#"{"attributes":[{"name":"draft","kind":"boolean"}]}"#,
            r#"{"attributes":[{"name":"season","kind":"string"}]}"#,
        ] {
            assert_eq!(update(&profile, removal), Err(Code::Conflict), "{removal}");
        }
        assert_eq!(update(&profile, r#"{"plan":"silver"}"#), Err(Code::Unprocessable));
        for member in ["tenant", "status", "version", "created_at"] {
            let body = format!(r#"{{"{member}":null}}"#);
            assert_eq!(update(&profile, &body), Err(Code::InvalidRequest), "{member}");
        }
    }
}
