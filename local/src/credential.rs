//! Who may call the fakes of AWS: credentials that the stack itself issues, one per function environment.
//!
//! They are made at random when they are issued and live in memory, so none of them outlives the process and none is
//! written anywhere. What a caller may do is not here: see [`crate::authority`].

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use data_encoding::{BASE32_NOPAD, BASE64};
use time::OffsetDateTime;
use uuid::Uuid;

/// Who a credential was issued to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Caller {
    /// The logical id of a function, whose role it acts in, or of a role, of which it has a session; or [`ADMINISTRATOR`].
    /// Anybody else may do nothing.
    pub principal: String,
    /// The tenant that the function environment serves, or that the session is tagged with; `None` where there is none.
    pub tenant: Option<String>,
    /// What the session is called.
    pub session: Option<String>,
    /// The session's tags.
    pub tags: BTreeMap<String, String>,
}

/// The principal that may do everything: the account's owner, whom the template's policies are not about.
pub const ADMINISTRATOR: &str = "administrator";

impl Caller {
    /// The administrator, at work for a tenant or for none.
    #[must_use]
    pub fn administrator(tenant: Option<&str>) -> Self {
        Self {
            principal: ADMINISTRATOR.to_owned(),
            tenant: tenant.map(str::to_owned),
            ..Self::default()
        }
    }
}

/// One credential, in the three parts that every AWS SDK reads from its environment.
#[derive(Clone, PartialEq, Eq)]
pub struct IssuedCredential {
    /// `AWS_ACCESS_KEY_ID`. Begins with `ASIA`, as temporary ones do.
    pub access_key_id: String,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret_access_key: String,
    /// `AWS_SESSION_TOKEN`. A request without it, or with another one, is refused.
    pub session_token: String,
    /// When it stops being accepted, or `None` for as long as the stack runs.
    pub expires: Option<OffsetDateTime>,
}

impl fmt::Debug for IssuedCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedCredential")
            .field("access_key_id", &self.access_key_id)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// A credential with the caller whom it stands for.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) credential: IssuedCredential,
    pub(crate) caller: Caller,
}

/// The credentials that are in force. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    held: Arc<RwLock<HashMap<String, Held>>>,
}

impl Credentials {
    /// None issued yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Issues a credential that is good for as long as the stack runs.
    #[must_use]
    pub fn issue(&self, caller: Caller) -> IssuedCredential {
        self.issue_until(caller, None)
    }

    /// Issues a credential that is refused as expired from `expires` on.
    #[must_use]
    pub fn issue_until(&self, caller: Caller, expires: Option<OffsetDateTime>) -> IssuedCredential {
        let id = BASE32_NOPAD.encode(&random::<10>());
        let credential = IssuedCredential {
            access_key_id: format!("ASIA{id}"),
            secret_access_key: BASE64.encode(&random::<30>()),
            session_token: BASE64.encode(&random::<96>()),
            expires,
        };
        let held = Held {
            credential: credential.clone(),
            caller,
        };
        self.held
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(credential.access_key_id.clone(), held);
        credential
    }

    /// Takes a credential back. Its key is unknown from then on; revoking it twice changes nothing.
    pub fn revoke(&self, access_key_id: &str) {
        self.held
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(access_key_id);
    }

    /// The credential of that key, expired or not.
    pub(crate) fn find(&self, access_key_id: &str) -> Option<Held> {
        self.held
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(access_key_id)
            .cloned()
    }
}

/// Bytes from the operating system's generator, by way of version 4 UUIDs. Six bits in sixteen bytes are fixed in
/// those, which is why every caller asks for some more than it needs.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    for chunk in bytes.chunks_mut(16) {
        for (to, from) in chunk.iter_mut().zip(Uuid::new_v4().into_bytes()) {
            *to = from;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acme() -> Caller {
        Caller {
            principal: "QueryHandlerFunction".to_owned(),
            tenant: Some("acme".to_owned()),
            ..Caller::default()
        }
    }

    #[test]
    fn a_credential_leads_to_its_caller_until_it_is_revoked() {
        let credentials = Credentials::new();
        let issued = credentials.issue(acme());
        assert_eq!(credentials.find(&issued.access_key_id).unwrap().caller, acme());
        credentials.revoke(&issued.access_key_id);
        assert!(credentials.find(&issued.access_key_id).is_none());
    }

    #[test]
    fn two_credentials_of_one_caller_share_nothing() {
        let credentials = Credentials::new();
        let (one, two) = (credentials.issue(acme()), credentials.issue(acme()));
        assert_ne!(one.access_key_id, two.access_key_id);
        assert_ne!(one.secret_access_key, two.secret_access_key);
        assert_ne!(one.session_token, two.session_token);
    }

    #[test]
    fn a_key_has_the_form_of_a_temporary_one() {
        let issued = Credentials::new().issue(acme());
        assert_eq!(issued.access_key_id.len(), 20);
        assert!(issued.access_key_id.starts_with("ASIA"));
        assert_eq!(issued.secret_access_key.len(), 40);
        assert_eq!(issued.session_token.len(), 128);
    }

    #[test]
    fn printing_a_credential_shows_no_secret() {
        let issued = Credentials::new().issue(acme());
        let printed = format!("{issued:?}");
        assert!(!printed.contains(&issued.secret_access_key));
        assert!(!printed.contains(&issued.session_token));
    }
}
