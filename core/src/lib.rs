//! What every Bulkhead function shares: identities, errors, configuration, telemetry, a tenant's credentials and the only door
//! to DynamoDB.
//!
//! Nothing enters this crate unless two functions use it or it is an invariant that isolation rests on. Not here: token
//! verification (`authorizer`), retrieval filters and prompts (`query-handler`), S3 and ingestion (`tenant-admin`).

pub mod attribute;
pub mod aws;
pub mod background;
pub mod config;
pub mod credential;
pub mod document;
pub mod error;
pub mod plan;
pub mod profile;
pub mod request;
pub mod response;
pub mod service;
pub mod session;
pub mod store;
pub mod telemetry;
pub mod tenant;
pub mod time;
pub mod turn;
