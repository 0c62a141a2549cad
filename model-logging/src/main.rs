//! The process behind the custom resource: wiring only.

use bulkhead_core::config::Environment;
use bulkhead_core::time::Clock;
use bulkhead_core::{aws, telemetry};
use lambda_runtime::{LambdaEvent, service_fn};
use model_logging::State;
use model_logging::config::Config;
use serde_json::Value;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let environment = Environment::from_process();
    telemetry::init(&environment);
    let config = Config::from_env(&environment)?;
    let state = State::new(config, &aws::configuration().await, Clock::system());
    let state = &state;
    lambda_runtime::run(service_fn(|event: LambdaEvent<Value>| async move {
        state.handle(&event.payload, event.context.deadline()).await
    }))
    .await
}
