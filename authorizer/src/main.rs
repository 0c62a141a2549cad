//! The authorizer's process: wiring only.

use std::sync::Arc;

use authorizer::State;
use authorizer::config::Config;
use authorizer::event::Event;
use authorizer::token;
use bulkhead_core::aws;
use bulkhead_core::config::Environment;
use bulkhead_core::store::{Registry, Table};
use bulkhead_core::telemetry;
use bulkhead_core::time::Clock;
use lambda_runtime::{LambdaEvent, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let environment = Environment::from_process();
    telemetry::init(&environment);
    let config = Config::from_env(&environment)?;
    token::self_test()?;
    let aws = aws::configuration().await;
    let registry = Registry::new(&Table::new(&aws, &config.table_name));
    let state = Arc::new(State::new(config, registry, Clock::system()));
    state.warm().await;
    lambda_runtime::run(service_fn(move |event: LambdaEvent<Event>| {
        let state = Arc::clone(&state);
        async move { state.handle(&event.payload).await }
    }))
    .await
}
