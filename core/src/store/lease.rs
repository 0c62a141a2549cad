//! The lease on the data source: a full sync and direct ingestion never run side by side, because Bedrock's sync undoes
//! what direct ingestion did (<https://docs.aws.amazon.com/bedrock/latest/userguide/kb-direct-ingestion.html>).
//!
//! One item. Direct ingestions share it for seconds and need not give it back; a sync holds it alone until its job has
//! ended or the lease has. It names no tenant.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Table, condition_failed, failed, item, key, number, read, text};
use crate::error::Error;
use crate::time::Clock;

const PK: &str = "LEASE#ingestion";
const SK: &str = "LEASE";
/// Longer than one call to the knowledge base can take, retries included.
const DIRECT: Duration = Duration::from_secs(30);
/// Longer than a sync should take. One that takes longer loses the lease: its job is then asked about first.
const SYNC: Duration = Duration::from_secs(60 * 60);

/// Whoever ingests asks here first.
#[derive(Clone, Debug)]
pub struct IngestionLease {
    table: Table,
    clock: Clock,
}

/// The lease is held for direct ingestion, for [`DIRECT`] from now.
#[derive(Debug)]
#[must_use]
pub struct Direct(());

/// The lease is held for a sync: under this token until its job is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobLease {
    mode: Mode,
    until: i64,
    /// Names this attempt; the job's client token, so that a repeated start finds the job that it started.
    pub token: String,
    /// The job, once it was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Direct,
    Sync,
}

impl IngestionLease {
    /// The lease in `table`.
    pub fn new(table: &Table, clock: &Clock) -> Self {
        Self {
            table: table.clone(),
            clock: clock.clone(),
        }
    }

    /// Takes the lease for direct ingestion; `None` while a sync holds it.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn take_direct(&self) -> Result<Option<Direct>, Error> {
        let now = self.clock.now();
        #[expect(clippy::disallowed_methods, reason = "the gate to the lease")]
        let call = self
            .table
            .client
            .update_item()
            .table_name(&self.table.name)
            .set_key(Some(key(PK, SK)))
            .update_expression("SET #mode = :direct, #until = :until REMOVE #token, job")
            .condition_expression("attribute_not_exists(pk) OR #mode = :direct OR #until <= :now")
            .expression_attribute_names("#mode", "mode")
            .expression_attribute_names("#until", "until")
            .expression_attribute_names("#token", "token")
            .expression_attribute_values(":direct", text("direct"))
            .expression_attribute_values(":until", number(now.plus(DIRECT).as_unix()))
            .expression_attribute_values(":now", number(now.as_unix()));
        match call.send().await {
            Ok(_) => Ok(Some(Direct(()))),
            Err(error) if condition_failed(&error) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Takes the lease for a sync; `None` while anything else holds it.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn take_sync(&self) -> Result<Option<JobLease>, Error> {
        let now = self.clock.now();
        let lease = JobLease {
            mode: Mode::Sync,
            until: now.plus(SYNC).as_unix(),
            token: uuid::Uuid::new_v4().to_string(),
            job: None,
        };
        #[expect(clippy::disallowed_methods, reason = "the gate to the lease")]
        let call = self
            .table
            .client
            .put_item()
            .table_name(&self.table.name)
            .set_item(Some(item(PK, SK, &lease, None)?))
            .condition_expression("attribute_not_exists(pk) OR #until <= :now")
            .expression_attribute_names("#until", "until")
            .expression_attribute_values(":now", number(now.as_unix()));
        match call.send().await {
            Ok(_) => Ok(Some(lease)),
            Err(error) if condition_failed(&error) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Notes which job the sync started.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the lease was lost in the meantime, [`Error::Unavailable`].
    pub async fn note_job(&self, lease: &JobLease, job: &str) -> Result<(), Error> {
        #[expect(clippy::disallowed_methods, reason = "the gate to the lease")]
        let call = self
            .table
            .client
            .update_item()
            .table_name(&self.table.name)
            .set_key(Some(key(PK, SK)))
            .update_expression("SET job = :job")
            .condition_expression("#token = :token")
            .expression_attribute_names("#token", "token")
            .expression_attribute_values(":job", text(job))
            .expression_attribute_values(":token", text(&lease.token));
        match call.send().await {
            Ok(_) => Ok(()),
            Err(error) if condition_failed(&error) => Err(Error::conflict("Another ingestion took over.")),
            Err(error) => Err(failed(error)),
        }
    }

    /// The sync that holds the lease, if one does.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn sync(&self) -> Result<Option<JobLease>, Error> {
        #[expect(clippy::disallowed_methods, reason = "the gate to the lease")]
        let call = self
            .table
            .client
            .get_item()
            .table_name(&self.table.name)
            .set_key(Some(key(PK, SK)))
            .consistent_read(true);
        let Some(item) = call.send().await.map_err(failed)?.item else {
            return Ok(None);
        };
        if item.get("mode").and_then(|mode| mode.as_s().ok()).map(String::as_str) != Some("sync") {
            return Ok(None);
        }
        let lease: JobLease = read(item)?;
        Ok(Some(lease).filter(|lease| lease.until > self.clock.now().as_unix()))
    }

    /// Gives a sync's lease back: its job has ended, or never began.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn release(&self, lease: &JobLease) -> Result<(), Error> {
        #[expect(clippy::disallowed_methods, reason = "the gate to the lease")]
        let call = self
            .table
            .client
            .delete_item()
            .table_name(&self.table.name)
            .set_key(Some(key(PK, SK)))
            .condition_expression("#token = :token")
            .expression_attribute_names("#token", "token")
            .expression_attribute_values(":token", text(&lease.token));
        match call.send().await {
            Ok(_) => Ok(()),
            // Somebody else holds it by now, and keeps it.
            Err(error) if condition_failed(&error) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }
}
