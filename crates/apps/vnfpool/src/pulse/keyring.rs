//! The datagram keys of each peer, across reconnections.
//!
//! A new connection brings new keys. Its two ends learn them at slightly different moments, so
//! the previous key still opens, and the side that was called goes on sealing with it until the
//! caller has shown that it has the new one. Connections that are given up half-made, one after the
//! other, do not push out the key that is in use.
//!
//! A keyring may be kept in memory that outlives the process ([`Keyring::keep_in`]), so that the
//! next process of the same life goes on with it. A sequence that seals is reserved there before
//! it is used, many at a time; those that were accepted are written down once a round.

use serde::{Deserialize, Serialize};
use vnfpool_inheritance::Cell;
use vnfpool_model::SlotId;
use vnfpool_transport::datagram::{self, HELLO_KIND, Header, OpenError, OpenKey, SealKey, Side};
use vnfpool_wire::datagram::{BODY_BYTES_MAX, Message, NodeId};

/// So many sequences are reserved at once, and skipped by the next process.
const RESERVED_AT_ONCE: u64 = 4_096;

/// Changes with the form in which a keyring is kept; a test says when that has happened.
const LAYOUT: u32 = 1;

/// Longest form of a keyring that is kept.
const KEPT_BYTES_MAX: usize = 24 * 1024;

/// What the keys of a connection are derived from.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Origin {
    secret: [u8; 32],
    is_initiator: bool,
}

impl Origin {
    fn derive(self) -> Result<(SealKey, OpenKey), datagram::DeriveError> {
        let side = match self.is_initiator {
            true => Side::Initiator,
            false => Side::Responder,
        };
        datagram::derive(&self.secret, side)
    }
}

impl std::fmt::Debug for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Origin(…)")
    }
}

#[derive(Debug)]
struct Sealing {
    key: SealKey,
    origin: Origin,
    /// The next process goes on after this sequence.
    reserved: u64,
}

#[derive(Debug)]
struct Unsealing {
    key: OpenKey,
    origin: Origin,
}

#[derive(Debug)]
struct PeerKeys {
    node: NodeId,
    seal: Sealing,
    /// Used from the moment its counterpart is seen.
    seal_next: Option<Sealing>,
    open: Unsealing,
    /// Whether the peer has shown that it has the counterpart of `open`.
    is_open_used: bool,
    open_previous: Option<Unsealing>,
}

/// The form in which a keyring is kept.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    layout: u32,
    peers: Vec<KeptPeer>,
}

#[derive(Debug, Serialize, Deserialize)]
struct KeptPeer {
    node: NodeId,
    /// Each with a sequence: reserved for sealing, or the newest accepted.
    seal: (Origin, u64),
    seal_next: Option<(Origin, u64)>,
    open: (Origin, u64),
    is_open_used: bool,
    open_previous: Option<(Origin, u64)>,
}

fn sealing((origin, sequence): (Origin, u64)) -> Result<Sealing, datagram::DeriveError> {
    let (mut key, _) = origin.derive()?;
    key.skip_to(sequence);
    Ok(Sealing {
        key,
        origin,
        reserved: sequence,
    })
}

fn unsealing((origin, newest): (Origin, u64)) -> Result<Unsealing, datagram::DeriveError> {
    let (_, mut key) = origin.derive()?;
    key.skip_to(newest);
    Ok(Unsealing { key, origin })
}

/// What came in a datagram.
#[derive(Debug)]
pub(crate) enum Opening {
    /// A message that authenticates.
    Message {
        /// Who sealed it.
        from: NodeId,
        /// The slot it is about.
        slot: SlotId,
        /// What it says.
        message: Message,
    },
    /// A further copy of what came over another path.
    Copy,
    /// The hello of a peer that has no keys for us yet: only a sign of life.
    Hello,
    /// Nothing that authenticates: only a sign of life.
    Rejected,
}

/// What happened to incoming datagrams.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KeyringCounters {
    /// Accepted.
    pub(crate) accepted: u64,
    /// Copies over further paths, and replays.
    pub(crate) copies: u64,
    /// Of peers without keys.
    pub(crate) hellos: u64,
    /// Without a known key, forged, truncated, of another version or not decodable.
    pub(crate) rejected: u64,
}

/// All keys of one thread.
#[derive(Debug, Default)]
pub(crate) struct Keyring {
    peers: Vec<PeerKeys>,
    pub(crate) counters: KeyringCounters,
    kept: Option<Cell>,
    is_changed: bool,
}

impl Keyring {
    /// The keyring that another process of this life has kept.
    ///
    /// # Errors
    /// It is not readable: of another version of the program, say.
    pub(crate) fn inherit(kept: &[u8]) -> anyhow::Result<Self> {
        let (layout, _) = postcard::take_from_bytes::<u32>(kept)?;
        anyhow::ensure!(layout == LAYOUT, "they are of another version");
        let kept: Kept = postcard::from_bytes(kept)?;
        let peer = |peer: KeptPeer| {
            anyhow::Ok(PeerKeys {
                node: peer.node,
                seal: sealing(peer.seal)?,
                seal_next: peer.seal_next.map(sealing).transpose()?,
                open: unsealing(peer.open)?,
                is_open_used: peer.is_open_used,
                open_previous: peer.open_previous.map(unsealing).transpose()?,
            })
        };
        let peers = kept.peers.into_iter().map(peer);
        Ok(Self {
            peers: peers.collect::<Result<_, _>>()?,
            ..Self::default()
        })
    }

    /// Keeps the keys in `cell` from now on.
    pub(crate) fn keep_in(&mut self, cell: Cell) {
        self.kept = Some(cell);
        self.keep();
    }

    /// Writes down what has changed in this round.
    pub(crate) fn keep_changes(&mut self) {
        if std::mem::take(&mut self.is_changed) {
            self.keep();
        }
    }

    fn keep(&mut self) {
        let Some(cell) = &mut self.kept else { return };
        let seal = |one: &Sealing| (one.origin, one.reserved);
        let open = |one: &Unsealing| (one.origin, one.key.newest());
        let peer = |peer: &PeerKeys| KeptPeer {
            node: peer.node,
            seal: seal(&peer.seal),
            seal_next: peer.seal_next.as_ref().map(seal),
            open: open(&peer.open),
            is_open_used: peer.is_open_used,
            open_previous: peer.open_previous.as_ref().map(open),
        };
        let kept = Kept {
            layout: LAYOUT,
            peers: self.peers.iter().map(peer).collect(),
        };
        let mut bytes = [0; KEPT_BYTES_MAX];
        let written = postcard::to_slice(&kept, &mut bytes).is_ok_and(|b| cell.write(b).is_ok());
        if !written {
            // Rather nothing than what is not true any more.
            cell.clear();
        }
    }

    /// Takes the keys of a new connection to `node`; `side` is ours.
    ///
    /// # Errors
    /// The cryptographic library fails.
    pub(crate) fn install(
        &mut self,
        node: NodeId,
        secret: &[u8; 32],
        side: Side,
    ) -> Result<(), datagram::DeriveError> {
        let origin = Origin {
            secret: *secret,
            is_initiator: side == Side::Initiator,
        };
        let (seal, open) = (sealing((origin, 0))?, unsealing((origin, 0))?);
        self.is_changed = true;
        let Some(index) = self.peers.iter().position(|p| p.node == node) else {
            let keys = PeerKeys {
                node,
                seal,
                seal_next: None,
                open,
                is_open_used: false,
                open_previous: None,
            };
            self.peers.push(keys);
            return Ok(());
        };
        let keys = &mut self.peers[index];
        let former = std::mem::replace(&mut keys.open, open);
        // A connection that was given up before its caller used it leaves nothing in its place:
        // the key before it is the one that the peer still seals with.
        if std::mem::take(&mut keys.is_open_used) || keys.open_previous.is_none() {
            keys.open_previous = Some(former);
        }
        match side {
            Side::Initiator => {
                keys.seal = seal;
                keys.seal_next = None;
            }
            Side::Responder => keys.seal_next = Some(seal),
        }
        Ok(())
    }

    /// Forgets `node`.
    pub(crate) fn remove(&mut self, node: NodeId) {
        self.peers.retain(|p| p.node != node);
        self.is_changed = true;
    }

    /// Writes the sealed message for `node`; none without a key. The same bytes go over all
    /// paths: the receiver's replay window keeps the first copy.
    pub(crate) fn seal<'a>(
        &mut self,
        node: NodeId,
        slot: SlotId,
        message: &Message,
        datagram: &'a mut [u8],
    ) -> Option<&'a [u8]> {
        let at = self.peers.iter().position(|p| p.node == node)?;
        let seal = &mut self.peers[at].seal;
        if self.kept.is_some() && seal.key.sequence() >= seal.reserved {
            // Before it is used: a nonce must never serve twice, in no process.
            seal.reserved = seal.key.sequence() + RESERVED_AT_ONCE;
            self.keep();
        }
        let keys = self.peers.get_mut(at)?;
        let mut body = [0; BODY_BYTES_MAX];
        let length = message.encode(slot, &mut body);
        let length = keys
            .seal
            .key
            .seal(message.kind(), &body[..length], datagram)
            .ok()?;
        datagram.get(..length)
    }

    /// Opens a datagram in place and counts what it was.
    pub(crate) fn open(&mut self, datagram: &mut [u8]) -> Opening {
        let opening = self.try_open(datagram);
        match opening {
            Opening::Message { .. } => self.counters.accepted += 1,
            Opening::Copy => self.counters.copies += 1,
            Opening::Hello => self.counters.hellos += 1,
            Opening::Rejected => self.counters.rejected += 1,
        }
        opening
    }

    fn try_open(&mut self, datagram: &mut [u8]) -> Opening {
        let Ok(header) = Header::read(datagram) else {
            return Opening::Rejected;
        };
        if header.kind == HELLO_KIND {
            return Opening::Hello;
        }
        for keys in &mut self.peers {
            let newest = keys.open.key.key_id() == header.key_id;
            let key = match &mut keys.open_previous {
                _ if newest => &mut keys.open,
                Some(previous) if previous.key.key_id() == header.key_id => previous,
                _ => continue,
            };
            let opened = match key.key.open(datagram) {
                Ok(opened) => opened,
                Err(OpenError::Replayed { .. }) => return Opening::Copy,
                Err(_) => return Opening::Rejected,
            };
            self.is_changed = true;
            if newest {
                keys.is_open_used = true;
                if let Some(next) = keys.seal_next.take() {
                    keys.seal = next;
                }
            }
            return match Message::decode(opened.kind, opened.body) {
                Ok((slot, message)) => Opening::Message {
                    from: keys.node,
                    slot,
                    message,
                },
                Err(_) => Opening::Rejected,
            };
        }
        Opening::Rejected
    }
}

#[cfg(test)]
mod tests {
    use vnfpool_inheritance::{CellName, Memory};
    use vnfpool_model::{Epoch, Incarnation, Time};
    use vnfpool_wire::datagram::Handover;

    use super::*;

    const SLOT: SlotId = SlotId(3);

    fn message() -> Message {
        Message::Handover(Handover {
            epoch: Epoch::first_of(1),
            incarnation: Incarnation(1),
            sent_at: Time(5),
            echo: Time::ZERO,
        })
    }

    fn pass(from: &mut Keyring, to_node: u32, to: &mut Keyring) -> Opening {
        let mut buffer = [0; 256];
        let length = from
            .seal(NodeId(to_node), SLOT, &message(), &mut buffer)
            .unwrap()
            .len();
        to.open(&mut buffer[..length])
    }

    fn is_message(opening: &Opening, node: u32) -> bool {
        matches!(opening, Opening::Message { from, slot: SLOT, .. } if *from == NodeId(node))
    }

    #[test]
    fn new_keys_lose_no_datagram() {
        let (mut caller, mut called) = (Keyring::default(), Keyring::default());
        for secret in [[1; 32], [2; 32], [3; 32]] {
            // The called side has the keys first; nothing that it seals meanwhile is lost.
            called.install(NodeId(1), &secret, Side::Responder).unwrap();
            if secret != [1; 32] {
                assert!(is_message(&pass(&mut called, 1, &mut caller), 2));
                assert!(is_message(&pass(&mut caller, 2, &mut called), 1));
            }
            caller.install(NodeId(2), &secret, Side::Initiator).unwrap();
            assert!(is_message(&pass(&mut called, 1, &mut caller), 2));
            assert!(is_message(&pass(&mut caller, 2, &mut called), 1));
            assert!(is_message(&pass(&mut called, 1, &mut caller), 2));
        }
    }

    /// Goal: keys in use outlive connections of which the caller never heard. Method: the called
    /// side installs the keys of three, and each time both still understand each other.
    #[test]
    fn half_made_connections_do_not_push_out_the_key_in_use() {
        let (mut caller, mut called) = (Keyring::default(), Keyring::default());
        called
            .install(NodeId(1), &[1; 32], Side::Responder)
            .unwrap();
        caller
            .install(NodeId(2), &[1; 32], Side::Initiator)
            .unwrap();
        for secret in [[2; 32], [3; 32], [4; 32]] {
            called.install(NodeId(1), &secret, Side::Responder).unwrap();
            assert!(is_message(&pass(&mut caller, 2, &mut called), 1));
            assert!(is_message(&pass(&mut called, 1, &mut caller), 2));
        }
        caller
            .install(NodeId(2), &[4; 32], Side::Initiator)
            .unwrap();
        assert!(is_message(&pass(&mut caller, 2, &mut called), 1));
        assert!(is_message(&pass(&mut called, 1, &mut caller), 2));
    }

    /// Goal: the next process goes on with the keys, seals nothing twice and accepts nothing twice.
    /// Method: a keyring is read back from the memory in which the first one was kept.
    #[test]
    fn another_process_goes_on_with_the_keys() {
        let memory = Memory::adopt(Memory::create().unwrap()).unwrap();
        let (mut kept, mut peer) = (Keyring::default(), Keyring::default());
        kept.keep_in(memory.cell(CellName::Keys).unwrap());
        peer.install(NodeId(1), &[1; 32], Side::Responder).unwrap();
        kept.install(NodeId(2), &[1; 32], Side::Initiator).unwrap();
        let mut recorded = [0; 256];
        let length = peer.seal(NodeId(1), SLOT, &message(), &mut recorded);
        let length = length.unwrap().len();
        let mut replayed = recorded;
        assert!(is_message(&kept.open(&mut recorded[..length]), 2));
        for _ in 0..10 {
            assert!(is_message(&pass(&mut kept, 2, &mut peer), 1));
        }
        kept.keep_changes();
        // Sealed after that, and never written down one by one.
        assert!(is_message(&pass(&mut kept, 2, &mut peer), 1));
        drop(kept);
        let cell = memory.cell(CellName::Keys).unwrap();
        let mut next = Keyring::inherit(&cell.read().unwrap()).unwrap();
        next.keep_in(cell);
        assert!(matches!(next.open(&mut replayed[..length]), Opening::Copy));
        for _ in 0..10 {
            assert!(is_message(&pass(&mut next, 2, &mut peer), 1));
            assert!(is_message(&pass(&mut peer, 1, &mut next), 2));
        }
    }

    /// Goal: a program never takes keys that were kept in another form for its own, and reserves from
    /// a wrong number. If this fails, raise [`LAYOUT`] and take the new bytes.
    #[test]
    fn the_form_has_not_changed_without_its_number() {
        let one = |number| {
            let origin = Origin {
                secret: [number; 32],
                is_initiator: true,
            };
            (origin, u64::from(number) * 1_000)
        };
        let kept = Kept {
            layout: LAYOUT,
            peers: vec![KeptPeer {
                node: NodeId(2),
                seal: one(1),
                seal_next: Some(one(2)),
                open: one(3),
                is_open_used: true,
                open_previous: Some(one(4)),
            }],
        };
        let bytes = postcard::to_allocvec(&kept).unwrap();
        let sum = |sum: u32, byte: &u8| sum.wrapping_mul(31).wrapping_add(u32::from(*byte));
        assert_eq!(
            (LAYOUT, bytes.len(), bytes.iter().fold(0, sum)),
            (1, 146, 2_141_294_365)
        );
    }

    #[test]
    fn copies_and_strangers_are_counted() {
        let (mut one, mut other) = (Keyring::default(), Keyring::default());
        one.install(NodeId(2), &[7; 32], Side::Initiator).unwrap();
        other.install(NodeId(1), &[7; 32], Side::Responder).unwrap();
        let mut buffer = [0; 256];
        let length = one
            .seal(NodeId(2), SLOT, &message(), &mut buffer)
            .unwrap()
            .len();
        let mut copy = buffer;
        assert!(is_message(&other.open(&mut buffer[..length]), 1));
        assert!(matches!(other.open(&mut copy[..length]), Opening::Copy));
        assert!(matches!(other.open(&mut [0x55; 80]), Opening::Rejected));
        assert!(matches!(other.open(&mut []), Opening::Rejected));
        assert!(matches!(other.open(&mut datagram::hello()), Opening::Hello));
        let mut stranger = Keyring::default();
        stranger
            .install(NodeId(2), &[8; 32], Side::Initiator)
            .unwrap();
        assert!(matches!(
            pass(&mut stranger, 2, &mut other),
            Opening::Rejected
        ));
        let counters = other.counters;
        assert_eq!(
            (counters.accepted, counters.copies, counters.rejected),
            (1, 1, 3)
        );
    }
}
