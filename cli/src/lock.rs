//! What a refusal rests on: one of the five locks (docs/threat-model.md), or what stands before or beside them.

use std::fmt;

/// What a refusal is expected to rest on. Others hold behind it; this one comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// Lock 1: the tenant and the roles come from a verified token.
    Identity,
    /// Lock 2: an environment serves one tenant.
    Compute,
    /// Lock 3: every retrieval carries the tenant's filter.
    Retrieval,
    /// Lock 4: every passage is checked before it is released.
    Release,
    /// Lock 5: keys are derived from the tenant, and credentials reach no other.
    Storage,
    /// The gateway itself, before any function.
    Gateway,
    /// The web application firewall in front of the gateway. Where there is none, the functions refuse.
    Firewall,
    /// The guardrail.
    Guardrail,
    /// The identity provider, which is not part of the deployment.
    IdentityProvider,
}

impl Lock {
    /// Its name in reports; the five locks with their number.
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "1 identity",
            Self::Compute => "2 compute",
            Self::Retrieval => "3 retrieval",
            Self::Release => "4 release",
            Self::Storage => "5 storage",
            Self::Gateway => "gateway",
            Self::Firewall => "WAF",
            Self::Guardrail => "guardrail",
            Self::IdentityProvider => "identity provider",
        }
    }
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
