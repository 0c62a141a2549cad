//! AWS's bad days on demand: faults that the front door injects before, or after, a request reaches its service.
//!
//! A fault names a tenant, an operation or a key, so that tests can run side by side on one stack. A request whose
//! signature does not verify never meets one. Faults inside a service (a filter that is ignored, an index that lags) are
//! not here: the service has them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::record::{Resource, Service};

/// Which requests a fault meets: those that every given part agrees with. An empty matcher meets all.
#[derive(Debug, Clone, Default)]
pub struct Matcher {
    /// The service.
    pub service: Option<Service>,
    /// The operation by AWS's name.
    pub operation: Option<String>,
    /// The tenant of the calling environment.
    pub tenant: Option<String>,
    /// A piece of text that one of the request's keys contains: an object key, a prefix, a leading key, a path.
    pub key: Option<String>,
}

impl Matcher {
    fn meets(&self, service: Service, operation: &str, tenant: Option<&str>, resource: &Resource) -> bool {
        let key = |wanted: &str| resource.names().iter().any(|name| name.contains(wanted));
        self.service.is_none_or(|wanted| wanted == service)
            && self.operation.as_deref().is_none_or(|wanted| wanted == operation)
            && self.tenant.as_deref().is_none_or(|wanted| tenant == Some(wanted))
            && self.key.as_deref().is_none_or(key)
    }
}

/// What a fault does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// The request is not carried out and answered with this error, in the service's own shape.
    Status {
        /// The HTTP status.
        status: u16,
        /// The error code, for example `InternalServerError`.
        code: String,
        /// The message.
        message: String,
    },
    /// The request is not carried out and answered as the service throttles: `SlowDown` 503,
    /// `ProvisionedThroughputExceededException` 400 or `ThrottlingException` 429.
    Throttle,
    /// The request is not carried out because another one is writing the same item: a cancelled transaction, a
    /// `TransactionConflictException`, or S3's `ConditionalRequestConflict`.
    TransactionConflict,
    /// The request waits for this long and is then carried out, or meets the next fault.
    Delay(Duration),
    /// The connection is cut and the request is not carried out.
    Drop,
    /// The request is carried out and the connection is cut before the answer.
    DropAnswer,
    /// The request is carried out, and its answer goes wrong on its way if it is a stream. Another answer is left alone.
    Stream(StreamFault),
}

/// What goes wrong within a streamed answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamFault {
    /// How many events go out first. A stream that has fewer ends by itself; with exactly as many, what follows is the
    /// effect and not the end.
    pub after: usize,
    /// What happens then.
    pub effect: StreamEffect,
}

/// How a streamed answer goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamEffect {
    /// The connection is cut, within the answer's body.
    Cut,
    /// The stream ends with this exception.
    Exception {
        /// The member of the operation's model: `throttlingException`, `modelStreamErrorException`,
        /// `internalServerException` and so on.
        kind: String,
        /// The message.
        message: String,
    },
    /// Nothing comes any more, and the connection stays until the client leaves.
    Stall,
}

/// One fault.
#[derive(Debug, Clone)]
pub struct Fault {
    /// The requests that it meets.
    pub matcher: Matcher,
    /// What it does to them.
    pub effect: Effect,
    /// How many requests that it would meet it lets pass first.
    pub skip: u32,
    /// How many requests it meets before it is gone, or `None` until it is removed.
    pub times: Option<u32>,
}

/// Names an injected fault, to remove it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultId(u64);

#[derive(Debug, Default)]
struct Injected {
    next: u64,
    faults: Vec<(FaultId, Fault)>,
}

/// The faults that are in force, oldest first. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    injected: Arc<Mutex<Injected>>,
}

impl Faults {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a fault in force, behind those that are.
    pub fn inject(&self, fault: Fault) -> FaultId {
        let mut injected = self.injected.lock().unwrap_or_else(PoisonError::into_inner);
        let id = FaultId(injected.next);
        injected.next += 1;
        injected.faults.push((id, fault));
        id
    }

    /// Removes a fault. One that is gone already is no error.
    pub fn remove(&self, id: FaultId) {
        self.injected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .faults
            .retain(|(held, _)| *held != id);
    }

    /// Removes all.
    pub fn clear(&self) {
        self.injected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .faults
            .clear();
    }

    /// What this request meets: any number of delays, then at most one effect that ends it.
    pub(crate) fn meet(
        &self,
        service: Service,
        operation: &str,
        tenant: Option<&str>,
        resource: &Resource,
    ) -> Vec<Effect> {
        let mut injected = self.injected.lock().unwrap_or_else(PoisonError::into_inner);
        let mut met = Vec::new();
        let mut ended = false;
        injected.faults.retain_mut(|(_, fault)| {
            if ended || fault.times == Some(0) || !fault.matcher.meets(service, operation, tenant, resource) {
                return fault.times != Some(0);
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                return true;
            }
            ended = !matches!(fault.effect, Effect::Delay(_));
            met.push(fault.effect.clone());
            match &mut fault.times {
                None => true,
                Some(left) => {
                    *left -= 1;
                    *left > 0
                }
            }
        });
        met
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(faults: &Faults, tenant: &str, key: &str) -> Vec<Effect> {
        let resource = Resource::Objects {
            bucket: "documents".to_owned(),
            keys: vec![key.to_owned()],
            source: None,
        };
        faults.meet(Service::S3, "PutObject", Some(tenant), &resource)
    }

    fn of_tenant(tenant: &str) -> Matcher {
        Matcher {
            tenant: Some(tenant.to_owned()),
            ..Matcher::default()
        }
    }

    #[test]
    fn a_fault_meets_only_its_tenant_and_ends_after_its_times() {
        let faults = Faults::new();
        faults.inject(Fault {
            matcher: of_tenant("acme"),
            effect: Effect::Drop,
            skip: 0,
            times: Some(2),
        });
        assert_eq!(put(&faults, "acme-2", "k"), []);
        assert_eq!(put(&faults, "acme", "k"), [Effect::Drop]);
        assert_eq!(put(&faults, "acme", "k"), [Effect::Drop]);
        assert_eq!(put(&faults, "acme", "k"), []);
    }

    #[test]
    fn a_fault_without_times_lasts_until_it_is_removed() {
        let faults = Faults::new();
        let id = faults.inject(Fault {
            matcher: Matcher::default(),
            effect: Effect::Throttle,
            skip: 0,
            times: None,
        });
        for _ in 0..3 {
            assert_eq!(put(&faults, "acme", "k"), [Effect::Throttle]);
        }
        faults.remove(id);
        assert_eq!(put(&faults, "acme", "k"), []);
    }

    #[test]
    fn delays_add_up_before_the_first_effect_that_ends_the_request() {
        let faults = Faults::new();
        let delay = Effect::Delay(Duration::from_millis(1));
        for effect in [delay.clone(), delay.clone(), Effect::Drop, Effect::Throttle] {
            faults.inject(Fault {
                matcher: Matcher::default(),
                effect,
                skip: 0,
                times: Some(1),
            });
        }
        assert_eq!(put(&faults, "acme", "k"), [delay.clone(), delay, Effect::Drop]);
        assert_eq!(put(&faults, "acme", "k"), [Effect::Throttle]);
    }

    #[test]
    fn a_fault_lets_pass_what_it_skips_and_counts_only_what_reaches_it() {
        let faults = Faults::new();
        faults.inject(Fault {
            matcher: of_tenant("acme"),
            effect: Effect::DropAnswer,
            skip: 1,
            times: Some(1),
        });
        faults.inject(Fault {
            matcher: of_tenant("acme"),
            effect: Effect::Drop,
            skip: 1,
            times: None,
        });
        assert_eq!(put(&faults, "acme-2", "k"), [], "another tenant's are not counted");
        assert_eq!(put(&faults, "acme", "k"), []);
        // The second fault sees neither this one nor counts it: the first one ended it.
        assert_eq!(put(&faults, "acme", "k"), [Effect::DropAnswer]);
        for _ in 0..2 {
            assert_eq!(put(&faults, "acme", "k"), [Effect::Drop]);
        }
    }

    #[test]
    fn a_fault_can_name_a_key() {
        let faults = Faults::new();
        faults.inject(Fault {
            matcher: Matcher {
                key: Some(".metadata.json".to_owned()),
                ..Matcher::default()
            },
            effect: Effect::Drop,
            skip: 0,
            times: None,
        });
        assert_eq!(put(&faults, "acme", "t/acme/1.pdf"), []);
        assert_eq!(put(&faults, "acme", "t/acme/1.pdf.metadata.json"), [Effect::Drop]);
    }
}
