//! What proves a deployment from outside, over HTTP alone: the isolation table and the smoke test.
//!
//! Works on any deployment, the local stack or one on AWS, because it knows nothing but the contract, and one call to
//! Amazon Cognito where that issues the tokens. Not here: anything of the functions' code, so that a mistake there can't
//! agree with itself.

pub mod deployment;
pub mod event;
pub mod isolation;
pub mod lock;
pub mod smoke;
pub mod token;
