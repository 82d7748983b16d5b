//! What was brought into a kernel from another element does not go back.

use vnfpool_conntrack::{
    EVENT_BUFFER_BYTES, Injector, ReadOutcome, Scope, Sink, Source, codec, enable_events, protocol,
};
use vnfpool_statesync::{Change, SenderInput};

use crate::inject::entry;
use crate::namespace::Namespace;

fn encoded(port: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode_entry(&entry(false, protocol::TCP, port), &mut bytes);
    bytes
}

fn changes(source: &mut Source) -> Vec<Change> {
    let mut inputs = Vec::new();
    assert_eq!(source.read(&mut inputs).unwrap(), ReadOutcome::Drained);
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
        let mut sink = Sink::open().unwrap();
        let mut source = Source::open(Scope::default(), EVENT_BUFFER_BYTES).unwrap();
        source.ignore(sink.port().unwrap());

        sink.upsert(&encoded(1), true).unwrap();
        sink.upsert(&encoded(2), true).unwrap();
        sink.flush().unwrap();
        sink.upsert(&encoded(1), false).unwrap();
        let mut key = Vec::new();
        codec::encode_key(&entry(false, protocol::TCP, 2).key, &mut key);
        sink.delete(&key).unwrap();
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
            matches!(changes[..], [Change::New { .. }, Change::Delete { .. }]),
            "{changes:?}"
        );
    });
}
