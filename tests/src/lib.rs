//! The integration suite's harness: the repository's own files, and a stack with random tenants.

pub mod repository;
