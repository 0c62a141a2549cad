//! How every AWS client is set up: region, credentials and endpoint from the environment, retries and time limits.
//!
//! Functions never ask where they run: `AWS_ENDPOINT_URL` is the SDK's own variable.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};

/// The configuration that clients of quick services are built from: the table, the bucket, ingestion. Three attempts in
/// all, and no attempt that eats a request's whole time; the SDK itself sets no time limit on an operation.
pub async fn configuration() -> SdkConfig {
    aws_config::defaults(BehaviorVersion::latest())
        .retry_config(
            RetryConfig::standard()
                .with_max_attempts(3)
                .with_initial_backoff(Duration::from_millis(50)),
        )
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(Duration::from_secs(2))
                .operation_attempt_timeout(Duration::from_secs(5))
                .operation_timeout(Duration::from_secs(12))
                .build(),
        )
        .load()
        .await
}
