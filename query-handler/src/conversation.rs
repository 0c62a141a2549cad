//! Conversations: which of Bedrock's sessions a question goes on with, and what becomes of it.
//!
//! Clients know our handle only. It is looked up under the caller's tenant and user, so that a foreign, a forged and an
//! expired one are all simply not there.

use bulkhead_core::error::Error;
use bulkhead_core::session::{Session, SessionHandle};
use bulkhead_core::store::TenantStore;
use bulkhead_core::time::Timestamp;

use crate::question::Thread;

/// A conversation that a question belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conversation {
    /// It begins with the question.
    New,
    /// It goes on.
    Known(Session),
}

impl Conversation {
    /// The conversation that the caller named.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the caller has none of that name, [`Error::Unavailable`].
    pub async fn find(store: &TenantStore, thread: &Thread) -> Result<Self, Error> {
        match thread {
            Thread::New => Ok(Self::New),
            Thread::Impossible => Err(Error::NotFound),
            Thread::Named(handle) => store.session(handle).await?.map(Self::Known).ok_or(Error::NotFound),
        }
    }

    /// Bedrock's id of it, if Bedrock has seen it.
    pub fn knowledge_base_session(&self) -> Option<&str> {
        match self {
            Self::New => None,
            Self::Known(session) => session.knowledge_base_session.as_deref(),
        }
    }

    /// Notes under which id Bedrock knows it after an answer. What has not changed is not written.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn keep(
        self,
        store: &TenantStore,
        knowledge_base_session: String,
        now: Timestamp,
    ) -> Result<SessionHandle, Error> {
        let session = match self {
            Self::Known(session) if session.knowledge_base_session.as_ref() == Some(&knowledge_base_session) => {
                return Ok(session.handle);
            }
            Self::New => Session {
                knowledge_base_session: Some(knowledge_base_session),
                ..Session::begin(now)
            },
            Self::Known(session) => Session {
                knowledge_base_session: Some(knowledge_base_session),
                updated_at: now,
                ..session
            },
        };
        store.put_session(&session).await?;
        Ok(session.handle)
    }

    /// Ends it after an answer that had to be refused: Bedrock's history holds that answer, and what comes later could
    /// repeat it without citing anything. To the caller it is as if it had never been.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn end(self, store: &TenantStore, now: Timestamp) -> Result<(), Error> {
        match self {
            Self::New => Ok(()),
            Self::Known(session) => {
                let ended = Session {
                    expires_at: now,
                    ..session
                };
                store.put_session(&ended).await
            }
        }
    }
}
