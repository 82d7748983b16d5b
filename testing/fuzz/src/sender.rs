//! What a standby answers, as the active hears it: acknowledgements and complaints.

use vnfpool_statesync::wire::Decoder;

use crate::Script;
use crate::active::Active;
use crate::receiver::conversation;
use crate::standby::Standby;
use crate::stream::next_begin;

/// What standbys say, over one link after the other, to an active that has a script of its own. A
/// witness hears what the active says: whatever it is answered, that has to be a stream without gap.
///
/// # Panics
/// When the sender breaks its protocol or its bounds.
pub fn run(input: &[u8]) {
    let (script, mut wire) = Script::split(input);
    let (calm, _) = Script::split(&[]);
    let mut active = Active::new(script);
    let mut witness = Standby::new(calm);
    while !wire.is_empty() {
        let mut decoder = Decoder::new();
        decoder.push(wire);
        let mut understood = 0;
        while active.is_connected() {
            let Ok(Some(frame)) = decoder.next_frame() else {
                break;
            };
            understood += frame.encode(&mut bytes::BytesMut::new());
            active.hear(frame);
            witness.hear(&active.said());
            assert_eq!(witness.refused(), None, "what the active said");
        }
        wire = next_begin(&wire[understood.min(wire.len() - 1)..]);
        active.disconnect();
        active.goes_on();
        active.connect();
        witness.connect();
    }
}

/// Answers of an honest standby to an active in calm and in trouble.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    const FRAMES_MAX: usize = 40;
    let of = |faults: u8| {
        let (_, wire) = conversation(faults, FRAMES_MAX);
        Script::input(faults, &wire)
    };
    [0, 1, 2, 4, 8, 16, 32, 64, 0b111_1111].map(of).into()
}
