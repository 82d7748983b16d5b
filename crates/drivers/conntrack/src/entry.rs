//! The replicated form of a connection.

use std::net::IpAddr;

use crate::tuple::{Key, Layer4, Tuple, TupleError, Zone, protocol};

/// Longest helper name that is accepted, in bytes (`NF_CT_HELPER_NAME_LEN` with its NUL is 16).
pub const HELPER_NAME_BYTES_MAX: usize = 15;

/// A connection as one kernel knows it and as another can be told.
///
/// What belongs to one machine only (counters, the kernel's identifier, use count, TCP windows)
/// is left out; TCP windows are learnt by the other kernel from the packets that it sees, which
/// needs the window scale in [`TcpInfo`] and some lenience at first ([`TcpInfo::learning`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Tuple of the original direction and zone.
    pub key: Key,
    /// Tuple of the reply direction, after address translation.
    pub reply: Tuple,
    /// Status bits of the kernel.
    pub status: Status,
    /// Seconds until the entry expires; 0 when an event did not say.
    pub timeout_s: u32,
    /// The packet mark kept with the connection.
    pub mark: u32,
    /// State of the protocol. An UPDATE event leaves it out when it did not change.
    pub state: ProtocolState,
    /// Connection labels. An UPDATE event leaves them out when they did not change.
    pub labels: Option<[u8; 16]>,
    /// Sequence number adjustment of the original and the reply direction (NAT helpers).
    pub seq_adjust: [Option<SeqAdjust>; 2],
    /// Name of the connection's helper.
    pub helper: Option<HelperName>,
    /// Original tuple of the connection that announced this one, in the same zone. An UPDATE
    /// event leaves it out: see [`Entry::lacks_master`].
    pub master: Option<Tuple>,
}

/// State above layer 3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProtocolState {
    /// None, or not told.
    #[default]
    None,
    /// TCP.
    Tcp(TcpInfo),
    /// SCTP.
    Sctp(SctpInfo),
}

/// What strict TCP tracking has to know beforehand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// `enum tcp_conntrack`, for example 3 = ESTABLISHED.
    pub state: u8,
    /// Window scale of the original and the reply direction.
    pub window_scale: [u8; 2],
    /// Flags ([`tcp_flags`]) of the original and the reply direction.
    pub flags: [u8; 2],
}

impl TcpInfo {
    /// This state for a kernel that has not seen the connection's packets.
    ///
    /// Such a kernel takes the windows from the first packet of each direction, and would then be
    /// wrong for good about a connection that lost packets in the failover: the server repeats an
    /// old segment, the client acknowledges everything that it has received through the gateway
    /// before, and that acknowledgement of “data not seen yet” is invalid, as is every
    /// repetition of it. A lenient kernel lets it pass and is in step with the next new segment.
    /// [`crate::settle`] ends the lenience.
    ///
    /// To such a kernel the answer to a SYN, too, acknowledges data not seen yet. And it takes the
    /// scale of the SYN only together with one of the answer, so it is told that there is one: the
    /// answer itself, which is the first packet that can come of its direction, says what is true.
    #[must_use]
    pub fn learning(self) -> Self {
        let lent = self.lent_flags();
        let [original, reply] = self.flags.map(|flags| flags | lent);
        Self {
            flags: [original, reply | self.presumed_flags()],
            ..self
        }
    }

    /// This state without what [`TcpInfo::learning`] adds and without what this kernel
    /// knows of windows. As long as the scale of one direction is missing, the kernel takes none.
    #[must_use]
    pub fn learnt(self) -> Self {
        let own = self.lent_flags() | tcp_flags::IN_STEP;
        let [original, reply] = self.flags.map(|flags| flags & !own);
        let is_begun = self.state == tcp_state::SYN_SENT;
        let window_scale = match self.is_scaled() {
            [true, _] if is_begun => [self.window_scale[0], 0],
            [true, true] => self.window_scale,
            _ => [0; 2],
        };
        let presumed = match is_begun {
            true => tcp_flags::WINDOW_SCALE,
            false => 0,
        };
        Self {
            state: self.state,
            window_scale,
            flags: [original, reply & !presumed],
        }
    }

    /// Whether this kernel knows the windows of both directions: tracking can be strict.
    #[must_use]
    pub fn is_in_step(self) -> bool {
        let in_step = |flags: &u8| flags & tcp_flags::IN_STEP != 0;
        self.flags.iter().all(in_step)
    }

    /// Whether the kernel is lenient because it was told so, and not because it picked the
    /// connection up in the middle: then it would know of no option of a SYN.
    #[must_use]
    pub fn is_learning(self) -> bool {
        let lent = self.lent_flags();
        self.flags.iter().any(|flags| flags & lent != 0)
    }

    /// Whether the answer refused the scale of the SYN, which the kernel was told ([`TcpInfo::learning`])
    /// and does not forget by itself.
    pub(crate) fn is_scale_refused(self) -> bool {
        self.state != tcp_state::SYN_SENT && self.is_scaled() == [true, false]
    }

    fn lent_flags(self) -> u8 {
        const OF_A_SYN: u8 = tcp_flags::WINDOW_SCALE | tcp_flags::SACK_PERM;
        match self.flags.iter().any(|flags| flags & OF_A_SYN != 0) {
            true => tcp_flags::BE_LIBERAL,
            false => 0,
        }
    }

    /// What the answer to a SYN is taken to have before it comes.
    fn presumed_flags(self) -> u8 {
        match self.state {
            tcp_state::SYN_SENT => self.flags[0] & tcp_flags::WINDOW_SCALE,
            _ => 0,
        }
    }

    fn is_scaled(self) -> [bool; 2] {
        self.flags.map(|flags| flags & tcp_flags::WINDOW_SCALE != 0)
    }
}

/// `enum tcp_conntrack` up to `TCP_CONNTRACK_MAX`.
pub mod tcp_state {
    /// SYN seen.
    pub const SYN_SENT: u8 = 1;
    /// SYN and its answer seen.
    pub const SYN_RECV: u8 = 2;
    /// Handshake complete.
    pub const ESTABLISHED: u8 = 3;
    /// Both FINs seen, the last acknowledgement is missing.
    pub const LAST_ACK: u8 = 6;
    /// Closed in order.
    pub const TIME_WAIT: u8 = 7;
    /// Reset.
    pub const CLOSE: u8 = 8;
    /// First value that the kernel refuses.
    pub const MAX: u8 = 10;
}

/// `IP_CT_TCP_FLAG_*`.
pub mod tcp_flags {
    /// Window scale option was negotiated.
    pub const WINDOW_SCALE: u8 = 0x01;
    /// Selective acknowledgement was negotiated.
    pub const SACK_PERM: u8 = 0x02;
    /// This side closed first.
    pub const CLOSE_INIT: u8 = 0x04;
    /// Windows of this side are not checked. The kernel sets it on connections that it picked up
    /// in the middle, because it does not know their window scale: those keep it, and have neither of
    /// the first two. To others it is
    /// lent for a while ([`super::TcpInfo::learning`]).
    pub const BE_LIBERAL: u8 = 0x08;
    /// This kernel has taken an acknowledgement of this side as valid, so it knows what the other
    /// side has sent (`MAXACK_SET`). Set on both sides by each handshake that the kernel saw; it
    /// says nothing to another kernel.
    pub const IN_STEP: u8 = 0x20;
    /// The flags that make sense in another kernel. The rest speaks of windows.
    pub const REPLICATED: u8 = WINDOW_SCALE | SACK_PERM | CLOSE_INIT | BE_LIBERAL;
}

/// State of an SCTP association.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SctpInfo {
    /// `enum sctp_conntrack`.
    pub state: u8,
    /// Verification tag of the original and the reply direction.
    pub tags: [u32; 2],
}

/// First `enum sctp_conntrack` that does not exist.
pub(crate) const SCTP_STATE_MAX: u8 = 10;

/// Sequence number adjustment of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeqAdjust {
    /// Position of the last correction.
    pub correction_position: u32,
    /// Offset before it (two's complement).
    pub offset_before: u32,
    /// Offset after it (two's complement).
    pub offset_after: u32,
}

/// `IPS_*` bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status(pub u32);

impl Status {
    /// Was announced on another connection, the master.
    pub const EXPECTED: u32 = 1 << 0;
    /// Packets were seen in both directions.
    pub const SEEN_REPLY: u32 = 1 << 1;
    /// Not thrown away early when the table is full.
    pub const ASSURED: u32 = 1 << 2;
    /// In the table; the kernel refuses requests that say otherwise.
    pub const CONFIRMED: u32 = 1 << 3;
    /// The source is translated.
    pub const SRC_NAT: u32 = 1 << 4;
    /// The destination is translated.
    pub const DST_NAT: u32 = 1 << 5;

    /// Sequence numbers are adjusted.
    pub const SEQ_ADJUST: u32 = 1 << 6;
    /// Packets do not prolong it.
    pub const FIXED_TIMEOUT: u32 = 1 << 10;

    /// The bits that mean the same in another kernel: those above. The rest says how far this
    /// kernel's own work on it is.
    pub const REPLICATED: u32 = Self::EXPECTED
        | Self::SEEN_REPLY
        | Self::ASSURED
        | Self::CONFIRMED
        | Self::SRC_NAT
        | Self::DST_NAT
        | Self::SEQ_ADJUST
        | Self::FIXED_TIMEOUT;

    /// These bits without those that mean nothing elsewhere.
    #[must_use]
    pub const fn replicated(self) -> Self {
        Self(self.0 & Self::REPLICATED)
    }

    /// Whether all bits of `bits` are set.
    #[must_use]
    pub const fn has(self, bits: u32) -> bool {
        self.0 & bits == bits
    }
}

/// Name of a connection tracking helper.
pub type HelperName = Name<HELPER_NAME_BYTES_MAX>;

/// A name of the kernel's: 1 to `BYTES_MAX` (at most 255) printable ASCII bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Name<const BYTES_MAX: usize> {
    bytes: [u8; BYTES_MAX],
    length: u8,
}

impl<const BYTES_MAX: usize> Name<BYTES_MAX> {
    /// Accepts `name` if the kernel could have given it.
    #[must_use]
    pub fn new(name: &[u8]) -> Option<Self> {
        if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) {
            return None;
        }
        let mut bytes = [0; BYTES_MAX];
        bytes.get_mut(..name.len())?.copy_from_slice(name);
        Some(Self {
            bytes,
            length: u8::try_from(name.len()).ok()?,
        })
    }

    /// The name, without NUL.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes
            .get(..usize::from(self.length))
            .unwrap_or_default()
    }
}

/// Why an entry cannot be one of the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// A tuple is impossible.
    #[error("a tuple of the entry is impossible: {0}")]
    Tuple(#[from] TupleError),
    /// Protocol or address family differ between the directions.
    #[error("the two directions of the entry differ in protocol or address family")]
    Directions,
    /// The master is of another address family.
    #[error("the entry and its master differ in address family")]
    Master,
    /// Protocol state of another protocol, or an unknown state number.
    #[error("the protocol state of the entry is not one of protocol {protocol}")]
    State {
        /// The protocol number.
        protocol: u8,
    },
}

/// A translation that turns the untranslated reply into [`Entry::reply`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Address put in.
    pub address: IpAddr,
    /// Port or ICMP identifier put in; none when it is left alone.
    pub port: Option<u16>,
}

impl Entry {
    /// Accepts the entry if the kernel could hold it.
    ///
    /// # Errors
    /// [`EntryError`] names the first thing that is wrong.
    pub fn check(&self) -> Result<(), EntryError> {
        let original = self.key.original;
        original.check()?;
        self.reply.check()?;
        if original.protocol != self.reply.protocol
            || original.src.is_ipv4() != self.reply.src.is_ipv4()
        {
            return Err(EntryError::Directions);
        }
        if let Some(master) = self.master {
            master.check()?;
            if master.src.is_ipv4() != original.src.is_ipv4() {
                return Err(EntryError::Master);
            }
        }
        let fits = match self.state {
            ProtocolState::None => true,
            ProtocolState::Tcp(tcp) => {
                original.protocol == protocol::TCP && tcp.state < tcp_state::MAX
            }
            ProtocolState::Sctp(sctp) => {
                original.protocol == protocol::SCTP && sctp.state < SCTP_STATE_MAX
            }
        };
        if fits {
            Ok(())
        } else {
            Err(EntryError::State {
                protocol: original.protocol,
            })
        }
    }

    /// Whether the entry is enough to create the connection elsewhere. An UPDATE event without
    /// protocol state is not: read the connection again ([`crate::Fetcher`]).
    #[must_use]
    pub fn is_complete(&self) -> bool {
        match self.key.original.protocol {
            protocol::TCP => matches!(self.state, ProtocolState::Tcp(_)),
            protocol::SCTP => matches!(self.state, ProtocolState::Sctp(_)),
            _ => true,
        }
    }

    /// Whether the entry has a master that it does not name, as in an UPDATE event. It can be
    /// created without: then it is an ordinary connection.
    #[must_use]
    pub const fn lacks_master(&self) -> bool {
        self.status.has(Status::EXPECTED) && self.master.is_none()
    }

    /// Source translation: what the original source becomes. None when it is left alone.
    #[must_use]
    pub fn source_translation(&self) -> Option<Translation> {
        let plain = self.key.original.inverse();
        let port = match (plain.layer4, self.reply.layer4) {
            (Layer4::Ports { dst: before, .. }, Layer4::Ports { dst: after, .. })
            | (Layer4::Icmp { id: before, .. }, Layer4::Icmp { id: after, .. }) => {
                Some((before, after))
            }
            _ => None,
        };
        translation(plain.dst, self.reply.dst, port)
    }

    /// Destination translation: what the original destination becomes. None when it is left
    /// alone. The identifier of ICMP belongs to the source.
    #[must_use]
    pub fn destination_translation(&self) -> Option<Translation> {
        let plain = self.key.original.inverse();
        let port = match (plain.layer4, self.reply.layer4) {
            (Layer4::Ports { src: before, .. }, Layer4::Ports { src: after, .. }) => {
                Some((before, after))
            }
            _ => None,
        };
        translation(plain.src, self.reply.src, port)
    }

    /// The translation that leaves the original destination as it is; none without ports.
    pub(crate) fn same_destination(&self) -> Option<Translation> {
        let original = self.key.original;
        match original.layer4 {
            Layer4::Ports { dst, .. } => Some(Translation {
                address: original.dst,
                port: Some(dst),
            }),
            Layer4::Icmp { .. } | Layer4::None => None,
        }
    }

    /// What of the entry another kernel can hold: the same here and in a kernel that was told of it.
    #[must_use]
    pub fn portable(self) -> Self {
        let state = match self.state {
            ProtocolState::Tcp(tcp) => ProtocolState::Tcp(tcp.learnt()),
            other => other,
        };
        let status = self.status.replicated();
        Self {
            status,
            state,
            ..self
        }
    }

    /// The zone of the connection.
    #[must_use]
    pub const fn zone(&self) -> Zone {
        self.key.zone
    }

    /// Takes from `older` what this entry (an UPDATE event) left out.
    pub fn fill_from(&mut self, older: &Self) {
        if self.state == ProtocolState::None {
            self.state = older.state;
        }
        self.labels = self.labels.or(older.labels);
        for (mine, theirs) in self.seq_adjust.iter_mut().zip(older.seq_adjust) {
            *mine = mine.or(theirs);
        }
        self.helper = self.helper.or(older.helper);
        self.master = self.master.or(older.master);
        if self.timeout_s == 0 {
            self.timeout_s = older.timeout_s;
        }
    }
}

/// With a port in the protocol the translation always names it, also when it did not change:
/// then the other kernel cannot choose another one.
fn translation(before: IpAddr, after: IpAddr, port: Option<(u16, u16)>) -> Option<Translation> {
    let port_changed = port.is_some_and(|(before, after)| before != after);
    (before != after || port_changed).then_some(Translation {
        address: after,
        port: port.map(|(_, after)| after),
    })
}
