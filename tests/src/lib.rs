//! The integration suite's harness: the repository's own files, the contract as a check, and stacks with random tenants.

pub mod contract;
pub mod fixture;
pub mod repository;
