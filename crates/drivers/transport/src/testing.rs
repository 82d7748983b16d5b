//! A trust domain in a temporary directory, for the tests of this crate.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use crate::identity::SpiffeId;
use crate::pki::{Authority, CA_FILE, Credentials, Validity};
use crate::quic::{Endpoint, EndpointOptions};
use crate::rejection::RejectionCounters;

pub(crate) struct Domain {
    pub(crate) authority: Authority,
    dir: TempDir,
}

impl Domain {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority =
            Authority::create(&dir.path().join("ca"), &"lab.example".parse().unwrap()).unwrap();
        Self { authority, dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Credentials for a path such as `pool/edge/element/gw1`.
    pub(crate) fn member(&self, path: &str) -> Credentials {
        self.member_valid(path, Validity::standard())
    }

    /// Credentials whose time ended an hour ago.
    pub(crate) fn expired(&self, path: &str) -> Credentials {
        let hours = |n: u64| Duration::from_secs(n * 3600);
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let validity = Validity::between(now - hours(30), now - hours(1));
        self.member_valid(path, validity)
    }

    /// Credentials of this domain in the hands of somebody who trusts the other one: a forger.
    pub(crate) fn forger(&self, path: &str, other: &Self) -> Credentials {
        self.member(path);
        let dir = self.path(&path.replace('/', "_"));
        std::fs::copy(other.path("ca").join(CA_FILE), dir.join(CA_FILE)).unwrap();
        Credentials::load(&dir).unwrap()
    }

    fn member_valid(&self, path: &str, validity: Validity) -> Credentials {
        let id: SpiffeId = format!("spiffe://lab.example/{path}").parse().unwrap();
        let dir = self.path(&path.replace('/', "_"));
        self.authority
            .issue_local(&dir, &id.identity, &[], validity)
            .unwrap()
    }
}

pub(crate) fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// An endpoint on loopback with its counters and its address.
pub(crate) fn endpoint(
    credentials: &Credentials,
    options: EndpointOptions,
) -> (Endpoint, Arc<RejectionCounters>, SocketAddr) {
    let counters = Arc::new(RejectionCounters::default());
    let endpoint = Endpoint::bind(
        loopback(),
        credentials.clone(),
        options,
        Arc::clone(&counters),
    )
    .unwrap();
    let address = endpoint.local_address().unwrap();
    (endpoint, counters, address)
}
