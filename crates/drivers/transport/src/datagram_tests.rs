use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

const SECRET: [u8; 32] = [42; 32];

fn pair() -> (SealKey, OpenKey) {
    let (seal, _) = derive(&SECRET, Side::Initiator).unwrap();
    let (_, open) = derive(&SECRET, Side::Responder).unwrap();
    (seal, open)
}

fn sealed(seal: &mut SealKey, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0; body.len() + OVERHEAD_BYTES];
    let length = seal.seal(kind, body, &mut out).unwrap();
    assert_eq!(length, out.len());
    out
}

#[test]
fn what_is_sealed_is_opened_once() {
    let (mut seal, mut open) = pair();
    let datagram = sealed(&mut seal, 3, b"beat");
    let mut second = datagram.clone();
    assert!(!datagram.windows(4).any(|part| part == b"beat"));
    let mut first = datagram;
    let opened = open.open(&mut first).unwrap();
    assert_eq!(
        (opened.kind, opened.sequence, opened.body),
        (3, 1, &b"beat"[..])
    );
    assert_eq!(
        open.open(&mut second),
        Err(OpenError::Replayed { sequence: 1 })
    );
}

/// Goal: a datagram sent back to its sender, or one of another session, opens nowhere.
#[test]
fn directions_and_sessions_do_not_mix() {
    let (mut seal, mut own_open) = derive(&SECRET, Side::Initiator).unwrap();
    let datagram = sealed(&mut seal, 0, b"x");
    assert!(matches!(
        own_open.open(&mut datagram.clone()),
        Err(OpenError::UnknownKey { .. })
    ));
    let (_, mut other) = derive(&[43; 32], Side::Responder).unwrap();
    assert!(matches!(
        other.open(&mut datagram.clone()),
        Err(OpenError::UnknownKey { .. })
    ));
    // Even with the right key id in the header the seal does not hold.
    let mut lied = datagram;
    lied[4..8].copy_from_slice(&other.key_id().to_be_bytes());
    assert_eq!(other.open(&mut lied), Err(OpenError::Forged));
}

#[test]
fn a_forged_sequence_does_not_move_the_window() {
    let (mut seal, mut open) = pair();
    let mut honest = sealed(&mut seal, 0, b"a");
    let mut forged = honest.clone();
    forged[8..16].copy_from_slice(&u64::MAX.to_be_bytes());
    assert_eq!(open.open(&mut forged), Err(OpenError::Forged));
    assert!(open.open(&mut honest).is_ok());
}

#[test]
fn other_versions_and_small_buffers_are_told_apart() {
    let (mut seal, mut open) = pair();
    let mut other = sealed(&mut seal, 0, b"a");
    other[2] = 1;
    assert_eq!(
        open.open(&mut other),
        Err(OpenError::Version { version: 1 })
    );
    assert_eq!(open.open(&mut []), Err(OpenError::Truncated { length: 0 }));
    assert_eq!(open.open(&mut [0; 64]), Err(OpenError::Foreign));
    assert_eq!(
        seal.seal(0, &[0; 8], &mut [0; 39]),
        Err(SealError::Space {
            needed: 40,
            available: 39
        })
    );
}

proptest! {
    /// Goal: any order of arrival, with doubles: each sequence opens exactly once, unless it is
    /// further behind than the window; the model is a set of those seen.
    #[test]
    fn each_sequence_opens_at_most_once(
        arrivals in proptest::collection::vec(0_usize..3000, 1..400),
    ) {
        let (mut seal, mut open) = pair();
        let mut seen = HashSet::new();
        let mut newest = 0;
        for index in arrivals {
            let sequence = index as u64 + 1;
            let expected = seen.contains(&sequence) || sequence + WINDOW_ENTRIES <= newest;
            seal.sequence = sequence - 1;
            let mut datagram = sealed(&mut seal, 0, &sequence.to_be_bytes());
            match open.open(&mut datagram) {
                Ok(opened) => {
                    prop_assert!(!expected);
                    prop_assert_eq!(opened.sequence, sequence);
                    seen.insert(sequence);
                    newest = newest.max(sequence);
                }
                Err(error) => {
                    prop_assert!(expected);
                    prop_assert_eq!(error, OpenError::Replayed { sequence });
                }
            }
        }
    }

    #[test]
    fn every_changed_bit_and_every_cut_is_noticed(
        body in proptest::collection::vec(any::<u8>(), 0..100),
        bit in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let (mut seal, mut open) = pair();
        let datagram = sealed(&mut seal, 9, &body);
        let mut changed = datagram.clone();
        let bit = bit.index(changed.len() * 8);
        changed[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(open.open(&mut changed).is_err());
        let mut short = datagram[..cut.index(datagram.len())].to_vec();
        prop_assert!(open.open(&mut short).is_err());
        let mut whole = datagram;
        prop_assert_eq!(open.open(&mut whole).unwrap().body, &body[..]);
    }

    #[test]
    fn random_bytes_are_refused(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
        honest_header in any::<bool>(),
    ) {
        let (_, mut open) = pair();
        if honest_header && bytes.len() >= HEADER_BYTES {
            let header = Header { kind: 0, key_id: open.key_id(), sequence: 5 };
            bytes[..HEADER_BYTES].copy_from_slice(&header.write());
        }
        prop_assert!(open.open(&mut bytes).is_err());
    }
}
