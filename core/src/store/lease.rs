//! The lease on the data source: a full sync and direct ingestion never run side by side, because Bedrock's sync undoes
//! what direct ingestion did (<https://docs.aws.amazon.com/bedrock/latest/userguide/kb-direct-ingestion.html>).
//!
//! One item. Direct ingestions share it for seconds and need not give it back; a sync holds it alone until its job is seen
//! to have ended: whoever wants the lease in the meantime asks the knowledge base. It names no tenant.

use std::future::Future;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Table, condition_failed, failed, item, key, number, read, text};
use crate::error::Error;
use crate::time::{Clock, Timestamp};

const PK: &str = "LEASE#ingestion";
const SK: &str = "LEASE";
/// Longer than one call to the knowledge base can take, retries included.
const DIRECT: Duration = Duration::from_secs(30);
/// How long a sync holds the lease whose job nobody noted, longer than a sync should take: the job may run all the same. One
/// whose job is known holds it until the job has ended.
const SYNC: Duration = Duration::from_secs(60 * 60);
/// Longer than starting a job can take, retries included. An attempt that is older and has none died on the way.
const START: Duration = Duration::from_secs(30);

/// Whoever ingests asks here first.
#[derive(Clone, Debug)]
pub struct IngestionLease {
    table: Table,
    clock: Clock,
}

/// The lease is held for direct ingestion, for half a minute from now.
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
    /// Whether an earlier attempt held it, which may have started the job.
    #[serde(skip)]
    taken_over: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Direct,
    Sync,
}

impl JobLease {
    /// Whether the attempt died before its job was noted.
    fn is_abandoned(&self, now: Timestamp) -> bool {
        let taken = Timestamp::from_unix(self.until).minus(SYNC);
        self.job.is_none() && taken.plus(START) <= now
    }

    /// Whether an earlier attempt held this lease, which may have started a job under its token: a refusal of another start
    /// does not say that none is running.
    pub fn is_taken_over(&self) -> bool {
        self.taken_over
    }

    /// Whether the lease still stands.
    fn stands(&self, now: Timestamp) -> bool {
        self.job.is_some() || self.until > now.as_unix()
    }
}

impl IngestionLease {
    /// The lease in `table`.
    pub fn new(table: &Table, clock: &Clock) -> Self {
        Self {
            table: table.clone(),
            clock: clock.clone(),
        }
    }

    /// Takes the lease for direct ingestion; `None` while a sync holds it. `has_ended` asks the knowledge base whether a
    /// job has ended.
    ///
    /// # Errors
    /// [`Error::Unavailable`], and those of `has_ended`.
    pub async fn take_direct<F, A>(&self, has_ended: F) -> Result<Option<Direct>, Error>
    where
        F: FnOnce(String) -> A + Send,
        A: Future<Output = Result<bool, Error>> + Send,
    {
        if let Some(direct) = self.try_direct().await? {
            return Ok(Some(direct));
        }
        match self.sync().await? {
            Some(lease) if self.release_ended(&lease, has_ended).await? => self.try_direct().await,
            _ => Ok(None),
        }
    }

    /// Takes the lease for a sync; `None` while anything else holds it. `has_ended` asks the knowledge base whether a job
    /// has ended. An attempt that died before its job was known is taken over: its token finds the job, if there is one.
    ///
    /// # Errors
    /// [`Error::Unavailable`], and those of `has_ended`.
    pub async fn take_sync<F, A>(&self, has_ended: F) -> Result<Option<JobLease>, Error>
    where
        F: FnOnce(String) -> A + Send,
        A: Future<Output = Result<bool, Error>> + Send,
    {
        if let Some(lease) = self.try_sync().await? {
            return Ok(Some(lease));
        }
        match self.sync().await? {
            Some(lease) if lease.is_abandoned(self.clock.now()) => Ok(Some(JobLease {
                taken_over: true,
                ..lease
            })),
            Some(lease) if self.release_ended(&lease, has_ended).await? => self.try_sync().await,
            _ => Ok(None),
        }
    }

    /// Gives the lease of a sync back whose job has ended; false if it has not.
    async fn release_ended<F, A>(&self, lease: &JobLease, has_ended: F) -> Result<bool, Error>
    where
        F: FnOnce(String) -> A + Send,
        A: Future<Output = Result<bool, Error>> + Send,
    {
        let ended = match &lease.job {
            Some(job) => has_ended(job.clone()).await?,
            None => false,
        };
        if ended {
            self.release(lease).await?;
        }
        Ok(ended)
    }

    async fn try_direct(&self) -> Result<Option<Direct>, Error> {
        let now = self.clock.now();
        #[expect(clippy::disallowed_methods, reason = "the gate to the lease")]
        let call = self
            .table
            .client
            .update_item()
            .table_name(&self.table.name)
            .set_key(Some(key(PK, SK)))
            .update_expression("SET #mode = :direct, #until = :until REMOVE #token, job")
            .condition_expression(
                "attribute_not_exists(pk) OR #mode = :direct OR (#until <= :now AND attribute_not_exists(job))",
            )
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

    async fn try_sync(&self) -> Result<Option<JobLease>, Error> {
        let now = self.clock.now();
        let lease = JobLease {
            mode: Mode::Sync,
            until: now.plus(SYNC).as_unix(),
            token: uuid::Uuid::new_v4().to_string(),
            job: None,
            taken_over: false,
        };
        #[expect(clippy::disallowed_methods, reason = "the gate to the lease")]
        let call = self
            .table
            .client
            .put_item()
            .table_name(&self.table.name)
            .set_item(Some(item(PK, SK, &lease, None)?))
            .condition_expression("attribute_not_exists(pk) OR (#until <= :now AND attribute_not_exists(job))")
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
        Ok(Some(lease).filter(|lease| lease.stands(self.clock.now())))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_holds_the_lease_until_its_job_has_ended() {
        let at = Timestamp::from_unix;
        let mut lease = JobLease {
            mode: Mode::Sync,
            until: at(0).plus(SYNC).as_unix(),
            token: "t".to_owned(),
            job: None,
            taken_over: false,
        };
        assert!(!lease.is_abandoned(at(29)));
        assert!(lease.is_abandoned(at(30)));
        assert!(lease.stands(at(3599)));
        assert!(!lease.stands(at(3600)));
        lease.job = Some("JOB1234567".to_owned());
        assert!(!lease.is_abandoned(at(1_000_000)));
        assert!(lease.stands(at(1_000_000)));
    }
}
