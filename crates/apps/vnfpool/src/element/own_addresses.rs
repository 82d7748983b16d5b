//! The addresses of this machine, whose connections are not service state.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use vnfpool_config::ElementConfig;
use vnfpool_conntrack::{OwnAddresses, Scope};
use vnfpool_linux::address_watch::AddressWatch;

use super::plane;

/// Connections of the element's machine are not service state, on whatever interface they are.
pub(super) fn scope(config: &ElementConfig) -> anyhow::Result<Scope> {
    let watch =
        AddressWatch::open(&plane::owner(config)).context("watch this machine's addresses")?;
    let paths = config.paths.iter().map(|path| path.address);
    let configured = config.lans.iter().map(|lan| lan.address).chain(paths);
    let machine = Machine {
        configured: configured.collect(),
        watched: Mutex::new((watch, Arc::default())),
    };
    Ok(Scope::watching(Arc::new(machine))?)
}

#[derive(Debug)]
struct Machine {
    /// These are ours also while their interface is gone.
    configured: HashSet<IpAddr>,
    watched: Mutex<(AddressWatch, Arc<HashSet<IpAddr>>)>,
}

impl OwnAddresses for Machine {
    fn current(&self) -> io::Result<Arc<HashSet<IpAddr>>> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let (watch, known) = &mut *watched;
        if let Some(mut news) = watch.news().map_err(io::Error::other)? {
            news.extend(&self.configured);
            *known = Arc::new(news);
        }
        Ok(Arc::clone(known))
    }
}
