//! The integration suite's harness: the repository's own files, the contract as a check, stacks with random tenants,
//! and notes of which statements of the policies they used.

pub mod contract;
pub mod decision;
pub mod fixture;
pub mod repository;
