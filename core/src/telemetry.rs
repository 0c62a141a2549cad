//! Logs and metrics: JSON lines on standard output, which Lambda hands to CloudWatch.
//!
//! Field names are dotted (`tenant.id`). Never logged: tokens, questions, passages, answers, keys, file names.

use std::io::Write as _;
use std::sync::OnceLock;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterFn, LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::Environment;
use crate::time::{Clock, Timestamp};

/// The variable that names the namespace of a stack's metrics, so that two stacks in one account don't ring each other's
/// alarms.
const NAMESPACE_VARIABLE: &str = "BULKHEAD_METRIC_NAMESPACE";
/// Where metrics go without it.
const DEFAULT_NAMESPACE: &str = "Bulkhead";

/// The namespace of this process's metrics.
static NAMESPACE: OnceLock<String> = OnceLock::new();

/// Starts logging and counting. The level comes from `AWS_LAMBDA_LOG_LEVEL`, which Lambda sets from the function's logging
/// configuration (<https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html>).
pub fn init(environment: &Environment) {
    if let Some(namespace) = environment.optional(NAMESPACE_VARIABLE) {
        // As below for a second call.
        let _ = NAMESPACE.set(namespace.to_owned());
    }
    let filter = filter(environment.optional("AWS_LAMBDA_LOG_LEVEL").unwrap_or("INFO"));
    let mut lines = json_subscriber::JsonLayer::stdout();
    lines.with_timer("timestamp", tracing_subscriber::fmt::time::SystemTime);
    lines.with_level("level");
    lines.with_target("target");
    lines.with_flattened_event();
    lines.with_top_level_flattened_span_list();
    // A second call in one process (tests) keeps the first subscriber.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
}

/// The crates that are ours, by their names in log records.
const OURS: [&str; 6] = [
    "bulkhead_core",
    "authorizer",
    "query_handler",
    "tenant_admin",
    "control_plane",
    "model_logging",
];
/// Where the runtime logs every error that a handler returns, and every panic.
const RUNTIME_ERRORS: &str = "lambda_runtime::layers::panic";

/// What is logged at Lambda's `level`. A function and not `EnvFilter`, whose regular expressions are a third of a megabyte
/// of every artefact.
fn filter(level: &str) -> FilterFn<impl Fn(&Metadata<'_>) -> bool + use<>> {
    let level = match level {
        // Lambda's word for the worst; there is none here.
        "FATAL" => LevelFilter::ERROR,
        name => name.parse().unwrap_or(LevelFilter::INFO),
    };
    filter_fn(move |metadata| {
        let target = metadata.target();
        if target == RUNTIME_ERRORS {
            // The authorizer returns an error for each bad token: whoever has none could fill the log with errors, among
            // which a real one is lost. We have logged the reason by then. A panic is told from it by the field that
            // carries it.
            metadata.fields().field("error").is_some()
        } else if OURS.contains(&target.split("::").next().unwrap_or_default()) {
            // Spans say whose a record is, at whatever level it is.
            metadata.is_span() || *metadata.level() <= level
        } else {
            // The AWS SDK and hyper say at debug level what must never be logged.
            *metadata.level() <= Level::WARN
        }
    })
}

/// A count that an alarm watches, in CloudWatch's embedded metric format
/// (<https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>).
/// The tenant is a property of the record and never a dimension: every value of one is billed as a metric of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// A lock held: something foreign or contradictory was refused.
    IsolationBreach,
    /// A `kid` stood twice in an issuer's key set, so that neither key is used.
    DuplicateKeyId,
    /// A function failed for a reason of its own or of a service that it calls.
    Fault,
    /// The authorizer could not decide, so that callers with good tokens are refused.
    AuthorizerError,
    /// A service refused for now what a function asked of it.
    Throttle,
    /// The knowledge base could not take a document, or a synchronisation failed or left documents out.
    IngestionFailure,
}

impl Metric {
    /// The metric's name in CloudWatch.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IsolationBreach => "IsolationBreach",
            Self::DuplicateKeyId => "DuplicateKeyId",
            Self::Fault => "Fault",
            Self::AuthorizerError => "AuthorizerError",
            Self::Throttle => "Throttle",
            Self::IngestionFailure => "IngestionFailure",
        }
    }
}

/// Counts one `metric` that is no tenant's, or nobody knows whose. A lost metric stops nothing.
pub fn count(metric: Metric, clock: &Clock) {
    write(metric, None, clock);
}

/// Counts one `metric` of the tenant that the process serves, by what the runtime calls it.
pub fn count_for(tenant: &str, metric: Metric, clock: &Clock) {
    write(metric, Some(tenant), clock);
}

fn write(metric: Metric, tenant: Option<&str>, clock: &Clock) {
    let namespace = NAMESPACE.get().map_or(DEFAULT_NAMESPACE, String::as_str);
    let record = record(namespace, metric, tenant, clock.now());
    let _ = writeln!(std::io::stdout().lock(), "{record}");
}

fn record(namespace: &str, metric: Metric, tenant: Option<&str>, now: Timestamp) -> serde_json::Value {
    let name = metric.as_str();
    let mut record = serde_json::json!({
        "_aws": {
            "Timestamp": now.as_unix().saturating_mul(1000),
            "CloudWatchMetrics": [{
                "Namespace": namespace,
                "Dimensions": [[]],
                "Metrics": [{"Name": name, "Unit": "Count"}],
            }],
        },
        name: 1,
    });
    if let (Some(tenant), Some(members)) = (tenant, record.as_object_mut()) {
        members.insert("tenant.id".to_owned(), tenant.into());
    }
    record
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{Event, Subscriber};
    use tracing_subscriber::layer::{Context, Layer};

    use super::*;

    /// Notes the targets of what was logged.
    #[derive(Clone, Default)]
    struct Notes(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Notes {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            self.0.lock().unwrap().push(event.metadata().target().to_owned());
        }
    }

    #[test]
    fn the_tenant_is_a_property_of_a_metric_and_never_a_dimension() {
        let now = Timestamp::from_unix(1_767_225_600);
        let record = |tenant| record("Bulkhead/test", Metric::IngestionFailure, tenant, now);
        assert_eq!(
            record(Some("acme")),
            serde_json::json!({
                "_aws": {
                    "Timestamp": 1_767_225_600_000_i64,
                    "CloudWatchMetrics": [{
                        "Namespace": "Bulkhead/test",
                        "Dimensions": [[]],
                        "Metrics": [{"Name": "IngestionFailure", "Unit": "Count"}],
                    }],
                },
                "IngestionFailure": 1,
                "tenant.id": "acme",
            })
        );
        assert_eq!(record(None).get("tenant.id"), None);
        assert_eq!(record(None)["_aws"], record(Some("acme"))["_aws"]);
    }

    fn logged(level: &str, log: impl FnOnce()) -> Vec<String> {
        let notes = Notes::default();
        let subscriber = tracing_subscriber::registry().with(filter(level)).with(notes.clone());
        tracing::subscriber::with_default(subscriber, log);
        let logged = notes.0.lock().unwrap();
        logged.clone()
    }

    #[test]
    fn a_returned_error_is_not_logged_twice_and_a_panic_is_not_lost() {
        let refused = || tracing::error!(target: "lambda_runtime::layers::panic", "{:?}", "Unauthorized");
        let panicked =
            || tracing::error!(target: "lambda_runtime::layers::panic", error = ?"boom", "user handler panicked");
        assert_eq!(logged("TRACE", refused), [""; 0]);
        assert_eq!(logged("INFO", panicked), ["lambda_runtime::layers::panic"]);
        assert_eq!(logged("FATAL", panicked), ["lambda_runtime::layers::panic"]);
        let other = || tracing::error!(target: "lambda_runtime::layers::api_client", "gone");
        assert_eq!(logged("INFO", other), ["lambda_runtime::layers::api_client"]);
    }

    #[test]
    fn no_level_opens_what_others_log() {
        for level in [
            "TRACE",
            "DEBUG",
            "INFO",
            "FATAL",
            "loud",
            "trace,aws_smithy_runtime=trace",
        ] {
            let others = || {
                tracing::info!(target: "aws_smithy_runtime", "a request");
                tracing::info!(target: "hyper", "a header");
            };
            assert_eq!(logged(level, others), [""; 0], "{level}");
        }
        let ours = || {
            tracing::error!(target: "authorizer", "e");
            tracing::info!(target: "query_handler::prompt", "i");
            tracing::debug!(target: "bulkhead_core", "d");
        };
        assert_eq!(logged("FATAL", ours).len(), 1);
        assert_eq!(logged("loud", ours).len(), 2);
        assert_eq!(logged("DEBUG", ours).len(), 3);
    }
}
