//! The tenants: their profiles, and the list of them.

use aws_sdk_dynamodb::types::{Put, ReturnValue, TransactWriteItem};

use super::{Cursor, MAX_PAGE, Page, Table, condition_failed, failed, item, key, number, read, text};
use crate::error::Error;
use crate::profile::{Profile, TenantStatus};
use crate::tenant::{OperatorContext, TenantId};
use crate::time::Timestamp;

/// The partition that lists all tenants.
const LIST: &str = "TENANTS";
const PROFILE: &str = "PROFILE";

/// The tenants. Any function may read one profile by its id; only operators see or change more.
#[derive(Clone, Debug)]
pub struct Registry {
    table: Table,
}

impl Registry {
    /// The registry in `table`.
    pub fn new(table: &Table) -> Self {
        Self { table: table.clone() }
    }

    /// A tenant's profile. The shared owner's always exists.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn profile(&self, tenant: &TenantId) -> Result<Option<Profile>, Error> {
        if tenant.is_shared() {
            return Ok(Some(Profile::shared()));
        }
        #[expect(clippy::disallowed_methods, reason = "the gate to profiles")]
        let call = self
            .table
            .client
            .get_item()
            .table_name(&self.table.name)
            .set_key(Some(key(&partition(tenant), PROFILE)))
            .consistent_read(true);
        call.send().await.map_err(failed)?.item.map(read).transpose()
    }

    /// Creates a tenant: its profile and its line in the list, both or neither.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it exists, [`Error::Unavailable`].
    pub async fn create_across_tenants(&self, _operator: &OperatorContext, profile: &Profile) -> Result<(), Error> {
        let put = |pk: &str, sk: &str| -> Result<TransactWriteItem, Error> {
            let put = Put::builder()
                .table_name(&self.table.name)
                .set_item(Some(item(pk, sk, profile, None)?))
                .condition_expression("attribute_not_exists(pk)")
                .build()
                .map_err(Error::internal)?;
            Ok(TransactWriteItem::builder().put(put).build())
        };
        #[expect(clippy::disallowed_methods, reason = "the gate to profiles")]
        let call = self
            .table
            .client
            .transact_write_items()
            .transact_items(put(&partition(&profile.tenant), PROFILE)?)
            .transact_items(put(LIST, profile.tenant.as_str())?);
        match call.send().await {
            Ok(_) => Ok(()),
            Err(error) => {
                let exists = error
                    .as_service_error()
                    .and_then(|error| match error {
                        aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError::TransactionCanceledException(canceled) => {
                            Some(canceled.cancellation_reasons())
                        }
                        _ => None,
                    })
                    .is_some_and(|reasons| {
                        reasons.iter().any(|reason| reason.code() == Some("ConditionalCheckFailed"))
                    });
                if exists {
                    Err(Error::conflict("The tenant exists."))
                } else {
                    Err(failed(error))
                }
            }
        }
    }

    /// A part of the list of tenants, by id. What it says may be a moment behind the profiles.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a cursor of another list, [`Error::Unavailable`].
    pub async fn profiles_across_tenants(
        &self,
        _operator: &OperatorContext,
        limit: usize,
        cursor: Option<&Cursor>,
    ) -> Result<Page<Profile>, Error> {
        let start = cursor.map(|cursor| cursor.sort_key(LIST, "")).transpose()?;
        let limit = limit.clamp(1, MAX_PAGE);
        #[expect(clippy::disallowed_methods, reason = "the gate to profiles")]
        let call = self
            .table
            .client
            .query()
            .table_name(&self.table.name)
            .consistent_read(true)
            .key_condition_expression("pk = :pk")
            .expression_attribute_values(":pk", text(LIST))
            .limit(i32::try_from(limit + 1).unwrap_or(i32::MAX))
            .set_exclusive_start_key(start.map(|sk| key(LIST, &sk)));
        let answer = call.send().await.map_err(failed)?;
        let mut items: Vec<Profile> = answer
            .items
            .unwrap_or_default()
            .into_iter()
            .map(read)
            .collect::<Result<_, Error>>()?;
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items
            .last()
            .filter(|_| more)
            .map(|last| Cursor::new(LIST, last.tenant.as_str()));
        Ok(Page { items, next })
    }

    /// Sets a tenant's status. Setting the one it has changes nothing.
    ///
    /// The profile is written first: it is what requests are checked against; the list follows and only informs.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such tenant, [`Error::Unavailable`].
    pub async fn set_status_across_tenants(
        &self,
        operator: &OperatorContext,
        tenant: &TenantId,
        status: TenantStatus,
        now: Timestamp,
    ) -> Result<Profile, Error> {
        let profile = match self.write_status(tenant, status, now).await? {
            Some(profile) => profile,
            None => self
                .profile_across_tenants(operator, tenant)
                .await?
                .ok_or(Error::NotFound)?,
        };
        self.list(&profile).await?;
        Ok(profile)
    }

    /// Makes `changed` of the profile `seen`, if it is still what was seen, and gives it the next version and time.
    /// Without a change only the list is brought up to date, which an earlier call may not have come to.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the profile changed in the meantime or is gone, [`Error::Unavailable`].
    pub async fn update_across_tenants(
        &self,
        _operator: &OperatorContext,
        seen: &Profile,
        mut changed: Profile,
        now: Timestamp,
    ) -> Result<Profile, Error> {
        if changed != *seen {
            changed.version = seen.version.saturating_add(1);
            changed.updated_at = now;
            #[expect(clippy::disallowed_methods, reason = "the gate to profiles")]
            let call = self
                .table
                .client
                .put_item()
                .table_name(&self.table.name)
                .set_item(Some(item(&partition(&seen.tenant), PROFILE, &changed, None)?))
                .condition_expression("version = :seen")
                .expression_attribute_values(":seen", number(seen.version));
            match call.send().await {
                Ok(_) => {}
                Err(error) if condition_failed(&error) => {
                    return Err(Error::conflict(
                        "The tenant changed in the meantime; read it and try again.",
                    ));
                }
                Err(error) => return Err(failed(error)),
            }
        }
        self.list(&changed).await?;
        Ok(changed)
    }

    /// Any tenant's profile.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn profile_across_tenants(
        &self,
        _operator: &OperatorContext,
        tenant: &TenantId,
    ) -> Result<Option<Profile>, Error> {
        self.profile(tenant).await
    }

    /// Writes a status where another one stands; `None` if there is no profile or it stands already.
    async fn write_status(
        &self,
        tenant: &TenantId,
        status: TenantStatus,
        now: Timestamp,
    ) -> Result<Option<Profile>, Error> {
        let status: String = match status {
            TenantStatus::Active => "active".to_owned(),
            TenantStatus::Suspended => "suspended".to_owned(),
        };
        #[expect(clippy::disallowed_methods, reason = "the gate to profiles")]
        let call = self
            .table
            .client
            .update_item()
            .table_name(&self.table.name)
            .set_key(Some(key(&partition(tenant), PROFILE)))
            .update_expression("SET #status = :status, updated_at = :now ADD version :one")
            .condition_expression("attribute_exists(pk) AND #status <> :status")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":status", text(status))
            .expression_attribute_values(":now", text(now.to_string()))
            .expression_attribute_values(":one", number(1))
            .return_values(ReturnValue::AllNew);
        match call.send().await {
            Ok(answer) => answer.attributes.map(read).transpose(),
            Err(error) if condition_failed(&error) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Has the list say of a tenant what its profile says, unless it says something newer.
    async fn list(&self, profile: &Profile) -> Result<(), Error> {
        #[expect(clippy::disallowed_methods, reason = "the gate to profiles")]
        let call = self
            .table
            .client
            .put_item()
            .table_name(&self.table.name)
            .set_item(Some(item(LIST, profile.tenant.as_str(), profile, None)?))
            .condition_expression("version < :version")
            .expression_attribute_values(":version", number(profile.version));
        match call.send().await {
            Ok(_) => Ok(()),
            Err(error) if condition_failed(&error) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }
}

fn partition(tenant: &TenantId) -> String {
    format!("PROFILE#{tenant}")
}
