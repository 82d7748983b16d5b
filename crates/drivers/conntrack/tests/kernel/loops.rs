//! What was brought into a kernel from another element does not go back.

use bytes::BytesMut;
use vnfpool_conntrack::{
    EVENT_BUFFER_BYTES, Injector, ReadOutcome, Scope, Sink, Source, codec, enable_events, protocol,
};
use vnfpool_statesync::{Change, Item, SenderInput};

use crate::inject::entry;
use vnfpool_netns::Namespace;

fn encoded(port: u16) -> Item {
    codec::item(&entry(false, protocol::TCP, port), &mut BytesMut::new())
}

fn changes(source: &mut Source) -> Vec<Change> {
    let mut inputs = Vec::new();
    while source.read(&mut inputs).unwrap() != ReadOutcome::Drained {}
    let change = |input| match input {
        SenderInput::Change(change) => change,
        other => panic!("unexpected {other:?}"),
    };
    inputs.into_iter().map(change).collect()
}

/// Goal: an element that is active for one slot and standby for another, or the former active
/// whose source is still open, sends back nothing of what its sink did, and all that others did.
#[test]
fn what_a_sink_does_is_no_change_of_the_source_beside_it() {
    let gateway = Namespace::new("gw");
    gateway.enter(|| {
        enable_events().unwrap();
        let mut sink = Sink::open(Scope::default()).unwrap();
        let mut source = Source::open(Scope::default(), EVENT_BUFFER_BYTES).unwrap();
        source.ignore(sink.port().unwrap());

        sink.put(&encoded(1), true).unwrap();
        sink.put(&encoded(2), true).unwrap();
        sink.flush().unwrap();
        sink.put(&encoded(1), false).unwrap();
        sink.delete(&encoded(2).key).unwrap();
        sink.flush().unwrap();
        assert_eq!(changes(&mut source), []);

        let mut somebody = Injector::open().unwrap();
        somebody
            .upsert(entry(false, protocol::TCP, 3), true)
            .unwrap();
        somebody.delete(entry(false, protocol::TCP, 1).key).unwrap();
        somebody.flush().unwrap();
        let changes = changes(&mut source);
        assert!(
            matches!(
                changes[..],
                [Change::Put { is_new: true, .. }, Change::Delete { .. }]
            ),
            "{changes:?}"
        );
    });
}
