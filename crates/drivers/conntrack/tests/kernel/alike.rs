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
        scan(&mut source, |item| told.push(item));
    });
    by_key(told)
}

/// Reads the whole table of the thread's namespace, which is the source's.
pub(crate) fn scan(source: &mut Source, mut take: impl FnMut(Item)) {
    source.start_scan(1).unwrap();
    loop {
        let chunk = source.read_chunk().unwrap();
        match chunk {
            Some(SenderInput::ScanChunk { items, is_last, .. }) => {
                items.into_iter().for_each(&mut take);
                if is_last {
                    return;
                }
            }
            Some(other) => panic!("unexpected {other:?}"),
            None => std::thread::yield_now(),
        }
    }
}

/// What a receiver would be told that the table of `namespace` holds.
pub(crate) fn held(namespace: &Namespace) -> Items {
    namespace.enter(|| swept(&mut Sink::open(Scope::default()).unwrap()))
}

/// The same, of the table of the thread's namespace.
pub(crate) fn swept(sink: &mut Sink) -> Items {
    let mut held = Vec::new();
    sink.start_sweep(1).unwrap();
    while sink.sweeps() {
        match sink.read_sweep().unwrap() {
            Some(ReceiverInput::SweepChunk {
                sweep: 1, items, ..
            }) => held.extend(items),
            Some(other) => panic!("unexpected {other:?}"),
            None => std::thread::yield_now(),
        }
    }
    by_key(held)
}

fn by_key(items: Vec<Item>) -> Items {
    let pairs = items.into_iter().map(|item| (item.key, item.value));
    pairs.collect()
}
