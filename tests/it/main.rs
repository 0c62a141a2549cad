//! The integration suite: one binary, over HTTP, against the local stack that runs the real function binaries.
//!
//! Every test has tenants of its own in one shared stack; what changes the stack itself gets a stack of its own.

mod aws;
mod canary;
mod chat;
mod contract;
mod crash;
mod documents;
mod fuzz;
mod guardrails;
mod isolation;
mod locks;
mod model_logging;
mod narrowing;
mod package;
mod questions;
mod restart;
mod sessions;
mod smoke;
mod storage;
mod streams;
mod suspension;
mod template;
mod tenants;
mod workspace;
