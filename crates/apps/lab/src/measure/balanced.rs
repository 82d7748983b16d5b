//! What became of the connections through a load balancer.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use super::{Window, is_alive};
use crate::traffic::{ConnectionLog, TrafficLog};
use crate::vnfpool::BACKENDS;

/// Clients' ends of connections, and the backends that data came to on them.
pub(crate) type Visits = BTreeSet<(SocketAddr, IpAddr)>;

/// Connections through a load balancer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Balanced {
    /// All of them.
    pub total: usize,
    /// Those that live, and have been at one backend only since they began.
    pub kept: usize,
    /// How many of those are at each backend.
    pub at_backends: Vec<usize>,
}

impl Balanced {
    /// None was lost, and none has moved to another backend.
    pub fn is_kept(&self) -> bool {
        self.kept == self.total
    }

    /// How many are at each backend, for people.
    pub fn spread(&self) -> String {
        let each: Vec<String> = self.at_backends.iter().map(usize::to_string).collect();
        each.join(", ")
    }
}

/// Counts the connections through the load balancer; those that live at the end of `window` where there
/// is one.
pub(crate) fn balanced(window: Option<Window>, traffic: &TrafficLog, visits: &Visits) -> Balanced {
    let all = || {
        let connections = traffic.connections.iter();
        connections.filter_map(|log| log.by_balancer.map(|client| (client, log)))
    };
    let lives = |log: &ConnectionLog| window.is_none_or(|window| is_alive(window, log));
    let kept: Vec<IpAddr> = all()
        .filter(|(_, log)| lives(log))
        .filter_map(|(client, _)| sole_backend(client, visits))
        .collect();
    let at = |backend: IpAddr| kept.iter().filter(|known| **known == backend).count();
    Balanced {
        total: all().count(),
        kept: kept.len(),
        at_backends: BACKENDS.map(|backend| at(backend.into())).to_vec(),
    }
}

/// The backend of a connection; none if it has been at several, or at none.
fn sole_backend(client: SocketAddr, visits: &Visits) -> Option<IpAddr> {
    let mut backends = visits.iter().filter(|(from, _)| *from == client);
    match (backends.next(), backends.next()) {
        (Some((_, backend)), None) => Some(*backend),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::MILLISECOND;

    fn client(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 1, 0, 10], port))
    }

    fn connection(port: u16, last: u64) -> ConnectionLog {
        ConnectionLog {
            is_ipv6: false,
            by_balancer: (port != 0).then(|| client(port)),
            arrivals: vec![100 * MILLISECOND, last * MILLISECOND],
            ended: None,
        }
    }

    /// Goal: a connection counts as kept only while it lives and has been at one backend. Method: one
    /// that is, one that is silent after the window, one that has moved, and one that goes another way.
    #[test]
    fn only_what_lives_at_its_backend_is_kept() {
        let connections = [(1, 1100), (2, 900), (3, 1100), (0, 1100)];
        let traffic = TrafficLog {
            connections: connections
                .map(|(port, last)| connection(port, last))
                .into(),
            ..TrafficLog::default()
        };
        let [one, two, _] = BACKENDS.map(IpAddr::from);
        let visits = [(1, two), (2, one), (3, one), (3, two)];
        let visits = visits.map(|(port, backend)| (client(port), backend)).into();
        let window = Window {
            from: 150 * MILLISECOND,
            fault: 200 * MILLISECOND,
            to: 1000 * MILLISECOND,
        };
        let then = balanced(Some(window), &traffic, &visits);
        assert_eq!(
            (then.total, then.kept, then.spread().as_str()),
            (3, 1, "0, 1, 0")
        );
        assert!(!then.is_kept());
        // Before anything happens.
        let before = balanced(None, &traffic, &visits);
        assert_eq!((before.total, before.kept), (3, 2));
    }
}
