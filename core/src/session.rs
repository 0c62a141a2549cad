//! Conversations: our own opaque handle for what Bedrock calls a session, and what is known of one.
//!
//! Bedrock's id is a bearer handle that nothing binds to a tenant or user, so it never leaves the function. Not here: the
//! turns of a conversation ([`crate::turn`]).

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// How long a conversation is kept after it began.
pub const SESSION_LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// The most characters that a conversation's title has.
const MAX_TITLE: usize = 80;

/// A conversation's handle: a UUIDv7 as 26 characters of Crockford's base 32, so that a user's conversations sort by the
/// time they began. It is looked up under the caller's tenant and user, so that somebody else's is simply a missing key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct SessionHandle(String);

impl SessionHandle {
    /// A new handle.
    pub fn generate() -> Self {
        Self(ulid::Ulid::from(uuid::Uuid::now_v7().as_u128()).to_string())
    }

    /// Reads a handle as this type writes it; `None` for what can't be one.
    pub fn parse(text: &str) -> Option<Self> {
        let handle = ulid::Ulid::from_string(text).ok()?.to_string();
        (handle == text).then_some(Self(handle))
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
    /// Bedrock's id of it, if Bedrock has seen it; it lives 24 hours
    /// (<https://docs.aws.amazon.com/bedrock/latest/userguide/kb-test-retrieve-generate.html>).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub knowledge_base_session: Option<String>,
    /// The number of the last turn that Bedrock's session has seen, 0 if it has seen none. Turns of the other engine are
    /// not written into Bedrock's history.
    #[serde(default)]
    pub knowledge_base_turns: u64,
    /// How many turns were begun: the number of the last.
    #[serde(default)]
    pub turns: u64,
    /// What it is about, for people; none where the tenant keeps no transcripts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// When it began.
    pub created_at: Timestamp,
    /// When its last turn began or Bedrock's id of it last changed.
    pub updated_at: Timestamp,
    /// From when on it is as if it had never been.
    pub expires_at: Timestamp,
}

impl Session {
    /// A conversation that begins now, without a turn.
    pub fn begin(now: Timestamp) -> Self {
        Self {
            handle: SessionHandle::generate(),
            knowledge_base_session: None,
            knowledge_base_turns: 0,
            turns: 0,
            title: None,
            created_at: now,
            updated_at: now,
            expires_at: now.plus(SESSION_LIFETIME),
        }
    }

    /// This conversation with its first question as its title: the first 80 characters, cut between words where there is
    /// a blank to cut at.
    #[must_use]
    pub fn titled(mut self, question: &str) -> Self {
        let question = question.trim();
        let mut title: String = question.chars().take(MAX_TITLE).collect();
        if title.len() < question.len() {
            if let Some((words, _)) = title.rsplit_once(char::is_whitespace) {
                title = words.trim_end().to_owned();
            }
            // One character, so that a title that was cut is no longer than the longest that was not, but for it.
            title.push('\u{2026}');
        }
        self.title = Some(title);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_sort_by_time_and_read_back_only_as_they_were_written() {
        let handles: Vec<SessionHandle> = (0..100).map(|_| SessionHandle::generate()).collect();
        assert!(handles.is_sorted());
        let handle = &handles[0];
        assert_eq!(handle.as_str().len(), 26);
        assert_eq!(SessionHandle::parse(handle.as_str()).as_ref(), Some(handle));
        for bad in [
            "",
            "x",
            "AAAAAAAAAAAAAAAAAAAAAA",
            &handle.as_str().to_lowercase(),
            &format!("{handle}0"),
        ] {
            assert_eq!(SessionHandle::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_title_is_cut_between_words() {
        let title = |question: &str| Session::begin(Timestamp::from_unix(0)).titled(question).title.unwrap();
        assert_eq!(title(" How thick is it? "), "How thick is it?");
        assert_eq!(title(&"\u{e4}".repeat(80)), "\u{e4}".repeat(80));
        assert_eq!(title(&"\u{e4}".repeat(81)), format!("{}\u{2026}", "\u{e4}".repeat(80)));
        assert_eq!(
            title(&"twelve letter".repeat(7)),
            format!(
                "{}\u{2026}",
                "twelve letter"
                    .repeat(6)
                    .trim_end_matches(" lettertwelve letter")
                    .to_owned()
                    + " lettertwelve"
            )
        );
    }
}
