//! Links for service state in the hands of a test: with certificates of the pool, and its own words.

use std::net::SocketAddr;
use std::path::PathBuf;

use bytes::{BufMut as _, BytesMut};
use vnfpool_lab::Gateway;
use vnfpool_statesync::class::{Bounds, ClassName, Demand, Level};
use vnfpool_statesync::wire::{Body, Frame};
use vnfpool_transport::PeerPolicy;
use vnfpool_transport::link::{self, Link, Received};
use vnfpool_transport::pki::Credentials;

use crate::daemon::wait;
use crate::site::Site;

/// The port of links.
pub(crate) const PORT: u16 = 7_402;

/// Where gw1 and gw2 are for each other.
pub(crate) const LINKS: [[u8; 4]; 2] = [[10, 3, 0, 1], [10, 3, 0, 2]];

/// Somebody with a certificate, who calls from a host.
pub(crate) struct Caller<'s> {
    site: &'s Site,
    host: &'static str,
    credentials: PathBuf,
}

impl<'s> Caller<'s> {
    /// In a host, with the certificate in a directory.
    pub(crate) const fn new(site: &'s Site, host: &'static str, credentials: PathBuf) -> Self {
        Self {
            site,
            host,
            credentials,
        }
    }

    /// With the certificate, and in the host, of a gateway.
    pub(crate) fn as_gateway(site: &'s Site, gateway: Gateway) -> Self {
        let credentials = site.lab.directory().join(gateway.name());
        Self::new(site, gateway.name(), credentials)
    }

    /// Calls a gateway at its link.
    pub(crate) fn call(&self, gateway: Gateway) -> anyhow::Result<Spoken> {
        let address = SocketAddr::from((LINKS[gateway.index()], PORT));
        let directory = &self.credentials;
        let connect = || {
            let credentials = Credentials::load(directory)?;
            let expected = PeerPolicy::Element {
                pool: "edge".parse()?,
                element: gateway.name().parse()?,
            };
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let link = runtime.block_on(link::connect(&credentials, expected, address));
            Ok(Spoken::new(link?))
        };
        self.site.lab.namespace(self.host).unwrap().run(connect)
    }
}

/// A link, and what came over it.
pub(crate) struct Spoken {
    link: Link,
    heard: BytesMut,
}

impl Spoken {
    pub(crate) fn new(link: Link) -> Self {
        let heard = BytesMut::new();
        Self { link, heard }
    }

    /// Says something, if the other end still listens.
    pub(crate) fn say(&mut self, bytes: &[u8]) {
        if self.link.send(bytes).is_ok() {
            wait("the network to take it", || {
                self.link.flush().map_or(Some(()), |all| all.then_some(()))
            });
        }
    }

    /// Takes what has come; true when nothing more will.
    pub(crate) fn is_over(&mut self) -> bool {
        loop {
            match self.link.receive(&mut self.heard) {
                Ok(Received::More) => {}
                Ok(Received::All) => return false,
                Ok(Received::Closed) | Err(_) => return true,
            }
        }
    }

    /// Everything that came until the other end has ended the link, which it has to do.
    pub(crate) fn hear_end(mut self) -> BytesMut {
        wait("the end of a link", || self.is_over().then_some(()));
        self.heard
    }
}

/// What a link begins with: the slot, and the life of the caller.
pub(crate) fn preface(slot: u32, incarnation: u64) -> BytesMut {
    let mut bytes = BytesMut::new();
    bytes.put_slice(b"VPSL");
    bytes.put_u32(slot);
    bytes.put_u64(incarnation);
    bytes
}

/// The first frame of a stream of `class`, of an epoch that is above all others.
pub(crate) fn hello(class: &str) -> Frame {
    let demand = Demand {
        class: ClassName::new(class).unwrap(),
        format: 1,
        schema: 1,
        level: Level::Bounded(Bounds::DEFAULT),
    };
    let hash_key = [7; 16];
    frame(0, 0, Body::Hello { demand, hash_key })
}

pub(crate) const fn frame(generation: u32, sequence: u64, body: Body) -> Frame {
    Frame {
        epoch: u64::MAX,
        generation,
        sequence,
        body,
    }
}

pub(crate) fn encoded(frame: &Frame) -> BytesMut {
    let mut bytes = BytesMut::new();
    frame.encode(&mut bytes);
    bytes
}

/// The number of the only slot, and of the life of a gateway's agent.
pub(crate) fn slot_and_life(site: &Site, gateway: Gateway) -> (u32, u64) {
    let slot = site.slot().unwrap()["id"].as_u64().unwrap();
    let file = site
        .lab
        .directory()
        .join(gateway.name())
        .join("incarnation");
    let life = std::fs::read_to_string(file).unwrap();
    (u32::try_from(slot).unwrap(), life.trim().parse().unwrap())
}

/// Waits until a gateway serves and calls every copy in sync. A machine that stood still for a lease may have
/// made the other one serve: then the slot is handed back.
pub(crate) fn wait_in_sync(site: &Site, active: Gateway) {
    wait(&format!("a copy of {active} in sync"), || {
        let text = site.metrics(active.name());
        let copies = text
            .lines()
            .filter(|line| line.starts_with("vnfpool_sync_standby_in_sync{"));
        let copies: Vec<_> = copies.collect();
        if !copies.is_empty() && copies.iter().all(|line| line.ends_with(" 1.0")) {
            return Some(());
        }
        if site.active().as_deref() == Some(active.other().name()) {
            // Refused until there is somebody to hand it to.
            site.try_operate(&["switchover", "edge", "--to", active.name()]);
        }
        None
    });
}

/// Waits until a successor is armed. Who has lost that place often, which these tests are about, is in
/// quarantine, and the operator ends it.
pub(crate) fn wait_armed_again(site: &Site) {
    wait("an armed successor", || {
        if site.slot()?["armed"] == true {
            return Some(());
        }
        for gateway in Gateway::BOTH {
            // Refused when there is nothing to pardon.
            site.try_operate(&["pardon", "edge", gateway.name()]);
        }
        None
    });
}
