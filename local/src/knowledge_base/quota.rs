//! Requests per second, as Bedrock counts them: per operation, for the whole account.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use time::OffsetDateTime;

/// How many requests per second each operation takes before it answers ThrottlingException.
#[derive(Debug, Clone)]
pub struct Quotas {
    /// Retrieve.
    pub retrieve: f64,
    /// RetrieveAndGenerate, and as many of its stream.
    pub retrieve_and_generate: f64,
    /// IngestKnowledgeBaseDocuments, GetKnowledgeBaseDocuments and DeleteKnowledgeBaseDocuments, each.
    pub documents: f64,
    /// StartIngestionJob.
    pub start_ingestion_job: f64,
    /// GetIngestionJob.
    pub get_ingestion_job: f64,
}

impl Default for Quotas {
    /// Those of the "Amazon Bedrock endpoints and quotas" page of the AWS General Reference.
    fn default() -> Self {
        Self {
            retrieve: 20.0,
            retrieve_and_generate: 20.0,
            documents: 5.0,
            start_ingestion_job: 0.1,
            get_ingestion_job: 10.0,
        }
    }
}

impl Quotas {
    /// No limit worth the name, for tests about something else.
    #[must_use]
    pub fn unlimited() -> Self {
        let many = 1_000_000.0;
        Self {
            retrieve: many,
            retrieve_and_generate: many,
            documents: many,
            start_ingestion_job: many,
            get_ingestion_job: many,
        }
    }

    fn of(&self, operation: &str) -> f64 {
        match operation {
            "Retrieve" => self.retrieve,
            "RetrieveAndGenerate" | "RetrieveAndGenerateStream" => self.retrieve_and_generate,
            "StartIngestionJob" => self.start_ingestion_job,
            "GetIngestionJob" => self.get_ingestion_job,
            _ => self.documents,
        }
    }
}

/// Buckets of requests that may still be made, one per operation; a bucket holds one second's worth, one request at
/// least.
pub(super) struct Meter {
    quotas: Quotas,
    buckets: Mutex<BTreeMap<&'static str, (f64, OffsetDateTime)>>,
}

impl Meter {
    pub(super) fn new(quotas: Quotas) -> Self {
        Self {
            quotas,
            buckets: Mutex::default(),
        }
    }

    /// Takes one request from an operation's bucket, or says that there is none.
    pub(super) fn admit(&self, operation: &'static str, now: OffsetDateTime) -> bool {
        let rate = self.quotas.of(operation);
        let size = rate.max(1.0);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, since) = buckets.entry(operation).or_insert((size, now));
        let elapsed = (now - *since).as_seconds_f64().max(0.0);
        *left = (*left + elapsed * rate).min(size);
        *since = now;
        if *left < 1.0 {
            return false;
        }
        *left -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::Duration;

    #[test]
    fn a_bucket_refills_at_its_rate() {
        let meter = Meter::new(Quotas::default());
        let start = OffsetDateTime::UNIX_EPOCH;
        assert!(meter.admit("StartIngestionJob", start));
        assert!(!meter.admit("StartIngestionJob", start + Duration::seconds(9)));
        assert!(meter.admit("StartIngestionJob", start + Duration::seconds(10)));
        let admitted = (0..30).filter(|_| meter.admit("Retrieve", start)).count();
        assert_eq!(admitted, 20);
        let admitted = (0..30)
            .filter(|_| meter.admit("Retrieve", start + Duration::milliseconds(500)))
            .count();
        assert_eq!(admitted, 10);
    }
}
