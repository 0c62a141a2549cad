//! Conversations: our own opaque handle for what Bedrock calls a session.
//!
//! Bedrock's id is a bearer handle that nothing binds to a tenant or user, so it never leaves the function.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// How long a conversation is kept after it began.
pub const SESSION_LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A conversation's handle: 22 characters of base64url over random bits. It is looked up under the caller's tenant and
/// user, so that somebody else's is simply a missing key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct SessionHandle(String);

impl SessionHandle {
    /// A new handle.
    pub fn generate() -> Self {
        Self(data_encoding::BASE64URL_NOPAD.encode(uuid::Uuid::new_v4().as_bytes()))
    }

    /// Reads a handle; `None` for what can't be one.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = text.len() == 22 && data_encoding::BASE64URL_NOPAD.decode(text.as_bytes()).is_ok();
        fits.then(|| Self(text.to_owned()))
    }

    /// The handle as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SessionHandle {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).ok_or_else(|| serde::de::Error::custom("not a session handle"))
    }
}

/// A conversation's record: the item in the tenant's partition, under the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its handle.
    pub handle: SessionHandle,
    /// Bedrock's id of it, which lives 24 hours
    /// (<https://docs.aws.amazon.com/bedrock/latest/userguide/kb-test-retrieve-generate.html>).
    pub knowledge_base_session: String,
    /// When it began.
    pub created_at: Timestamp,
    /// From when on it is as if it had never been.
    pub expires_at: Timestamp,
}

impl Session {
    /// A conversation that begins now.
    pub fn begin(knowledge_base_session: String, now: Timestamp) -> Self {
        Self {
            handle: SessionHandle::generate(),
            knowledge_base_session,
            created_at: now,
            expires_at: now.plus(SESSION_LIFETIME),
        }
    }
}
