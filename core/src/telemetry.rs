//! Logs and metrics: JSON lines on standard output, which Lambda hands to CloudWatch.
//!
//! Field names are dotted (`tenant.id`). Never logged: tokens, questions, passages, answers, keys, file names.

use std::io::Write as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::Environment;
use crate::time::Clock;

/// Starts logging. The level comes from `AWS_LAMBDA_LOG_LEVEL`, which Lambda sets from the function's logging
/// configuration (<https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html>).
pub fn init(environment: &Environment) {
    let level = environment.optional("AWS_LAMBDA_LOG_LEVEL").unwrap_or("INFO");
    // The AWS SDK and hyper say at debug level what must never be logged, so a lower level is for our crates only.
    let filter = EnvFilter::try_new(format!(
        "warn,bulkhead_core={level},authorizer={level},query_handler={level},tenant_admin={level},control_plane={level}"
    ))
    .unwrap_or_else(|_| EnvFilter::new("info"));
    let mut lines = json_subscriber::JsonLayer::stdout();
    lines.with_timer("timestamp", tracing_subscriber::fmt::time::SystemTime);
    lines.with_level("level");
    lines.with_target("target");
    lines.with_flattened_event();
    lines.with_top_level_flattened_span_list();
    // A second call in one process (tests) keeps the first subscriber.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
}

/// A count that an alarm watches, in CloudWatch's embedded metric format
/// (<https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>).
/// The tenant is never a dimension: every value of one is billed as a metric of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// A lock held: something foreign or contradictory was refused.
    IsolationBreach,
    /// A `kid` stood twice in an issuer's key set, so that neither key is used.
    DuplicateKeyId,
    /// A function failed for a reason of its own or of a service that it calls.
    Fault,
}

impl Metric {
    /// The metric's name in CloudWatch.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IsolationBreach => "IsolationBreach",
            Self::DuplicateKeyId => "DuplicateKeyId",
            Self::Fault => "Fault",
        }
    }
}

/// Counts one `metric`. A lost metric stops nothing.
pub fn count(metric: Metric, clock: &Clock) {
    let name = metric.as_str();
    let record = serde_json::json!({
        "_aws": {
            "Timestamp": clock.now().as_unix().saturating_mul(1000),
            "CloudWatchMetrics": [{
                "Namespace": "Bulkhead",
                "Dimensions": [[]],
                "Metrics": [{"Name": name, "Unit": "Count"}],
            }],
        },
        name: 1,
    });
    let _ = writeln!(std::io::stdout().lock(), "{record}");
}
