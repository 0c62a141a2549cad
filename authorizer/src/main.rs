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
    let table_name = config.table_name.clone();
    let registry = async { Registry::new(&Table::new(&aws::configuration().await, &table_name)) };
    let state = Arc::new(State::start(config, registry, Clock::system()).await);
    lambda_runtime::run(service_fn(move |event: LambdaEvent<Event>| {
        let state = Arc::clone(&state);
        async move { state.handle(&event.payload).await }
    }))
    .await
}
