//! Helpers to fill a registry afresh for each scrape: what is measured lives elsewhere, so a
//! metric can neither be forgotten nor be stale.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;

/// Label names and values of one sample.
pub(crate) type Labels = Vec<(&'static str, String)>;

/// One scrape.
#[derive(Debug, Default)]
pub(crate) struct Scrape(Registry);

impl Scrape {
    /// A counter with one sample for each set of labels.
    pub(crate) fn counter(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels, u64)>,
    ) {
        let family = Family::<Labels, Counter>::default();
        for (labels, value) in samples {
            family.get_or_create(&labels).inc_by(value);
        }
        self.0.register(name, help, family);
    }

    /// A gauge with one sample for each set of labels.
    pub(crate) fn gauge(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        let family = Family::<Labels, Gauge<f64, AtomicU64>>::default();
        for (labels, value) in samples {
            family.get_or_create(&labels).set(value);
        }
        self.0.register(name, help, family);
    }

    /// The text of the scrape.
    pub(crate) fn text(&self) -> String {
        vnfpool_northbound::metrics::encode(&self.0)
    }
}
