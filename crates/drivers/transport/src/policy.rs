//! Who may be at the other end of a connection.

use vnfpool_model::{ElementId, PoolHandle};

use crate::identity::{Identity, SpiffeId};
use crate::rejection::Rejection;

/// Whom a member calls, or lets call. The trust domain has to be the member's own in any case.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerPolicy {
    /// A manager: whom elements and operators call.
    Manager,
    /// Any element of this pool: whom an element lets call.
    ElementOf(PoolHandle),
    /// This one element: whom an element calls.
    Element {
        /// Its pool.
        pool: PoolHandle,
        /// Its name.
        element: ElementId,
    },
    /// Managers, and elements of any pool: whom a manager lets call its control port.
    Members,
    /// Operators and service control entities: whom a manager lets call its HTTPS port. What each
    /// may do there is the API's to decide.
    Clients,
}

impl PeerPolicy {
    /// Whether `peer` may talk to the member `own`.
    ///
    /// # Errors
    /// The reason why not.
    pub fn judge(&self, own: &SpiffeId, peer: &SpiffeId) -> Result<(), Rejection> {
        if peer.trust_domain != own.trust_domain {
            return Err(Rejection::WrongTrustDomain);
        }
        self.judge_role(&peer.identity)
    }

    pub(crate) fn judge_role(&self, peer: &Identity) -> Result<(), Rejection> {
        let judge_element = |pool: &PoolHandle, named: Option<&ElementId>| match peer {
            Identity::Element { pool: theirs, .. } if theirs != pool => Err(Rejection::WrongPool),
            Identity::Element { element, .. } if named.is_some_and(|named| named != element) => {
                Err(Rejection::WrongPeer)
            }
            Identity::Element { .. } => Ok(()),
            _ => Err(Rejection::WrongRole),
        };
        let allowed = match self {
            Self::ElementOf(pool) => return judge_element(pool, None),
            Self::Element { pool, element } => return judge_element(pool, Some(element)),
            Self::Manager => matches!(peer, Identity::Manager { .. }),
            Self::Members => matches!(peer, Identity::Manager { .. } | Identity::Element { .. }),
            Self::Clients => matches!(peer, Identity::Operator { .. } | Identity::Sce { .. }),
        };
        if allowed {
            Ok(())
        } else {
            Err(Rejection::WrongRole)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the whole table of policies and roles.
    #[test]
    fn every_role_meets_every_policy() {
        let own: SpiffeId = "spiffe://lab.example/pool/edge/element/gw1"
            .parse()
            .unwrap();
        let edge: PoolHandle = "edge".parse().unwrap();
        let gw2 = PeerPolicy::Element {
            pool: edge.clone(),
            element: "gw2".parse().unwrap(),
        };
        let role = Err(Rejection::WrongRole);
        let pool = Err(Rejection::WrongPool);
        let peer = Err(Rejection::WrongPeer);
        let rows = [
            // peer, Manager, ElementOf(edge), Element(edge, gw2), Members, Clients
            ("manager/m1", [Ok(()), role, role, Ok(()), role]),
            (
                "pool/edge/element/gw2",
                [role, Ok(()), Ok(()), Ok(()), role],
            ),
            ("pool/edge/element/gw3", [role, Ok(()), peer, Ok(()), role]),
            ("pool/core/element/gw2", [role, pool, pool, Ok(()), role]),
            ("sce/s", [role, role, role, role, Ok(())]),
            ("operator/o", [role, role, role, role, Ok(())]),
        ];
        let policies = [
            PeerPolicy::Manager,
            PeerPolicy::ElementOf(edge),
            gw2,
            PeerPolicy::Members,
            PeerPolicy::Clients,
        ];
        for (path, expected) in rows {
            let id: SpiffeId = format!("spiffe://lab.example/{path}").parse().unwrap();
            let foreign: SpiffeId = format!("spiffe://else.example/{path}").parse().unwrap();
            for (policy, expected) in policies.iter().zip(expected) {
                assert_eq!(policy.judge(&own, &id), expected, "{policy:?} {path}");
                assert_eq!(
                    policy.judge(&own, &foreign),
                    Err(Rejection::WrongTrustDomain)
                );
            }
        }
    }
}
