//! Amazon Bedrock Knowledge Bases: one knowledge base on an S3 Vectors index, with one S3 data source.
//!
//! Speaks the wire protocol of `bedrock-agent` (ingestion) and `bedrock-agent-runtime` (Retrieve, RetrieveAndGenerate), as
//! far as [`KnowledgeBase::operation`] knows the operation; everything else is answered 501 and named. Behind it: real
//! text extraction, passages, a full-text index, and a generator that can only repeat what it was given.
//!
//! What the service does badly it does badly here: documents are untagged when their sidecar is misnamed or not named,
//! `notEquals` matches absent keys, a session belongs to whoever knows its id. More can be switched on with
//! [`KnowledgeBase::manners`].
//!
//! Who may call it is decided before it: there is no credential here. Its ranking is lexical, not by meaning, and prompt
//! templates have no effect on answers.

pub mod chunk;
pub mod extraction;
pub mod generation;
pub mod index;
pub mod outline;
pub mod retrieval;
pub mod session;
pub mod term;
