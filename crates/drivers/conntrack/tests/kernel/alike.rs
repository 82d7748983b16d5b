//! Whether a copy is, entry by entry, what a scan of the original tells: what sweeps compare.

use std::collections::BTreeMap;

use bytes::Bytes;
use vnfpool_conntrack::{Scope, Sink, Source};
use vnfpool_netns::Namespace;
use vnfpool_statesync::{Item, ReceiverInput, SenderInput};

type Items = BTreeMap<Bytes, Bytes>;

/// What a sender would be told of the table of `namespace`.
pub(crate) fn told(namespace: &Namespace) -> Items {
    let mut told = Vec::new();
    namespace.enter(|| {
        let mut source = Source::open(Scope::default(), 1 << 20).unwrap();
        source.start_scan(1).unwrap();
        while let Some(chunk) = source.read_chunk().unwrap() {
            let SenderInput::ScanChunk { items, .. } = chunk else {
                panic!("unexpected {chunk:?}");
            };
            told.extend(items);
        }
    });
    by_key(told)
}

/// What a receiver would be told that the table of `namespace` holds.
pub(crate) fn held(namespace: &Namespace) -> Items {
    namespace.enter(|| swept(&mut Sink::open(Scope::default()).unwrap()))
}

/// The same, of the table of the thread's namespace.
pub(crate) fn swept(sink: &mut Sink) -> Items {
    let mut held = Vec::new();
    sink.start_sweep(1).unwrap();
    while let Some(input) = sink.read_sweep().unwrap() {
        let ReceiverInput::SweepChunk {
            sweep: 1, items, ..
        } = input
        else {
            panic!("unexpected {input:?}");
        };
        held.extend(items);
    }
    by_key(held)
}

fn by_key(items: Vec<Item>) -> Items {
    let pairs = items.into_iter().map(|item| (item.key, item.value));
    pairs.collect()
}
