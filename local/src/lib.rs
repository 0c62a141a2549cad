//! The local stack: one process, on the loopback interface only, that speaks AWS's wire protocols and starts the same
//! function binaries as production. It knows AWS and the contract and nothing of the functions' code: it links none of
//! the other crates, so that a bug in their key-building can't agree with itself.

pub mod authority;
pub mod command;
pub mod credential;
pub mod directory;
pub mod document;
pub mod dynamodb;
pub mod event_stream;
pub mod fault;
pub mod front_door;
pub mod function;
pub mod gateway;
pub mod guardrail;
pub mod identity;
pub mod invocation_logging;
pub mod knowledge_base;
pub mod lambda;
pub mod model;
pub mod object;
pub mod parameter_store;
mod permission;
pub mod policy;
pub mod ready;
pub mod record;
pub mod s3;
mod shape;
pub mod stack;
mod sts;
pub mod template;
