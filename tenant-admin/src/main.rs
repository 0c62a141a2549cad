//! The tenant admin's Lambda function: wiring only.

use bulkhead_core::config::Environment;
use bulkhead_core::time::Clock;
use bulkhead_core::{aws, service, telemetry};
use tenant_admin::State;
use tenant_admin::config::Config;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let environment = Environment::from_process();
    telemetry::init(&environment);
    let config = Config::from_env(&environment)?;
    let clock = Clock::system();
    let state = State::new(&config, &aws::configuration().await, clock.clone());
    service::run(state, clock).await
}
