//! Writing and reading the bodies.

use vnfpool_model::{Epoch, Incarnation, Pace, SlotId, Time};

use super::{
    Ack, BODY_BYTES_MAX, DecodeError, Gossip, Handover, Heartbeat, Info, LEASE_MS_MAX, Member,
    Message, NodeId, Record, Request, Split, Token,
};

const HEARTBEAT: u8 = 1;
const ACK: u8 = 2;
const HANDOVER: u8 = 3;
const REQUEST: u8 = 4;
const INFO: u8 = 5;
const SPLIT: u8 = 6;
const GOSSIP: u8 = 7;

impl Message {
    /// The kind byte for the datagram's header.
    #[must_use]
    pub const fn kind(&self) -> u8 {
        match self {
            Self::Heartbeat(_) => HEARTBEAT,
            Self::Ack(_) => ACK,
            Self::Handover(_) => HANDOVER,
            Self::Request(_) => REQUEST,
            Self::Info(_) => INFO,
            Self::Split(_) => SPLIT,
            Self::Gossip(_) => GOSSIP,
        }
    }

    /// Writes the body about `slot` and returns its length.
    pub fn encode(&self, slot: SlotId, body: &mut [u8; BODY_BYTES_MAX]) -> usize {
        let mut w = Writer { body, length: 0 };
        w.u32(slot.0);
        match self {
            Self::Heartbeat(m) => {
                w.u16(m.turn);
                w.record(Some(m.record));
                w.time(m.sent_at);
                w.time(m.echo);
            }
            Self::Ack(m) => {
                w.epoch(m.epoch);
                w.u64(m.incarnation.0);
                w.time(m.sent_at);
                w.time(m.echo);
                w.flags(&[m.promise, m.able]);
            }
            Self::Handover(m) => {
                w.epoch(m.epoch);
                w.u64(m.incarnation.0);
                w.time(m.sent_at);
                w.time(m.echo);
            }
            Self::Request(m) => {
                w.epoch(m.epoch);
                w.u64(m.incarnation.0);
                w.time(m.sent_at);
                w.flags(&[m.heard_manager, m.able, m.renounces]);
                w.member(m.candidate);
            }
            Self::Info(m) => {
                w.record(m.record);
                w.token(m.token);
                w.time(m.echo);
                w.flags(&[m.grant]);
            }
            Self::Split(m) => {
                w.u64(m.term);
                w.u64(m.incarnation.0);
                w.time(m.sent_at);
                w.token(m.token);
                w.flags(&[m.able]);
            }
            Self::Gossip(m) => {
                w.epoch(m.epoch);
                w.u64(m.incarnation.0);
                w.time(m.sent_at);
                w.time(m.echo);
                w.u32(m.manager_silence_ms);
                w.flags(&[m.able]);
            }
        }
        w.length
    }

    /// Reads a body of `kind`.
    ///
    /// # Errors
    /// [`DecodeError`] for every byte string that [`Message::encode`] cannot have written.
    pub fn decode(kind: u8, body: &[u8]) -> Result<(SlotId, Self), DecodeError> {
        let mut r = Reader {
            kind,
            whole: body.len(),
            rest: body,
        };
        let slot = SlotId(r.u32()?);
        let message = match kind {
            HEARTBEAT => Self::Heartbeat(Heartbeat {
                turn: r.u16()?,
                record: r.record()?.ok_or(DecodeError::Field { kind })?,
                sent_at: r.time()?,
                echo: r.time()?,
            }),
            ACK => {
                let (epoch, incarnation, sent_at, echo) =
                    (r.epoch()?, r.incarnation()?, r.time()?, r.time()?);
                let [promise, able] = r.flags()?;
                Self::Ack(Ack {
                    epoch,
                    incarnation,
                    sent_at,
                    echo,
                    promise,
                    able,
                })
            }
            HANDOVER => Self::Handover(Handover {
                epoch: r.epoch()?,
                incarnation: r.incarnation()?,
                sent_at: r.time()?,
                echo: r.time()?,
            }),
            REQUEST => {
                let (epoch, incarnation, sent_at) = (r.epoch()?, r.incarnation()?, r.time()?);
                let [heard_manager, able, renounces] = r.flags()?;
                let candidate = r.member()?;
                Self::Request(Request {
                    epoch,
                    incarnation,
                    sent_at,
                    heard_manager,
                    able,
                    renounces,
                    candidate,
                })
            }
            INFO => {
                let (record, token, echo) = (r.record()?, r.token()?, r.time()?);
                let [grant] = r.flags()?;
                Self::Info(Info {
                    record,
                    token,
                    echo,
                    grant,
                })
            }
            SPLIT => {
                let (term, incarnation, sent_at, token) =
                    (r.u64()?, r.incarnation()?, r.time()?, r.token()?);
                let [able] = r.flags()?;
                Self::Split(Split {
                    term,
                    incarnation,
                    sent_at,
                    token,
                    able,
                })
            }
            GOSSIP => {
                let (epoch, incarnation, sent_at, echo) =
                    (r.epoch()?, r.incarnation()?, r.time()?, r.time()?);
                let manager_silence_ms = r.u32()?;
                let [able] = r.flags()?;
                Self::Gossip(Gossip {
                    epoch,
                    incarnation,
                    sent_at,
                    echo,
                    manager_silence_ms,
                    able,
                })
            }
            _ => return Err(DecodeError::UnknownKind { kind }),
        };
        if r.rest.is_empty() {
            Ok((slot, message))
        } else {
            Err(r.wrong_length())
        }
    }
}

struct Writer<'a> {
    body: &'a mut [u8; BODY_BYTES_MAX],
    length: usize,
}

impl Writer<'_> {
    fn bytes(&mut self, bytes: &[u8]) {
        self.body[self.length..self.length + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }
    fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }
    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }
    fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }
    fn time(&mut self, time: Time) {
        self.u64(time.0);
    }
    fn epoch(&mut self, epoch: Epoch) {
        self.u64(epoch.term);
        self.u16(epoch.turn);
    }
    fn token(&mut self, token: Token) {
        self.u64(token.boot);
        self.time(token.clock);
    }
    fn member(&mut self, member: Option<Member>) {
        let member = member.unwrap_or_default();
        self.u32(member.node.0);
        self.u64(member.incarnation.0);
    }
    fn record(&mut self, record: Option<Record>) {
        self.u64(record.map_or(0, |r| r.term));
        self.member(record.map(|r| r.first));
        self.member(record.and_then(|r| r.second));
        self.u32(record.map_or(0, |r| r.pace.heartbeat_interval_ms));
        self.u32(record.map_or(0, |r| r.pace.lease_ms));
    }
    fn flags<const N: usize>(&mut self, flags: &[bool; N]) {
        let bits = flags
            .iter()
            .enumerate()
            .map(|(place, flag)| u8::from(*flag) << place);
        self.bytes(&[bits.fold(0, |all, bit| all | bit)]);
    }
}

struct Reader<'a> {
    kind: u8,
    whole: usize,
    rest: &'a [u8],
}

impl Reader<'_> {
    fn wrong_length(&self) -> DecodeError {
        DecodeError::Length {
            kind: self.kind,
            length: self.whole,
        }
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self
            .rest
            .split_first_chunk()
            .ok_or_else(|| self.wrong_length())?;
        self.rest = rest;
        Ok(*head)
    }
    fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_le_bytes)
    }
    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }
    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }
    fn time(&mut self) -> Result<Time, DecodeError> {
        self.u64().map(Time)
    }
    fn incarnation(&mut self) -> Result<Incarnation, DecodeError> {
        self.u64().map(Incarnation)
    }
    fn epoch(&mut self) -> Result<Epoch, DecodeError> {
        Ok(Epoch {
            term: self.u64()?,
            turn: self.u16()?,
        })
    }
    fn token(&mut self) -> Result<Token, DecodeError> {
        Ok(Token {
            boot: self.u64()?,
            clock: self.time()?,
        })
    }
    fn member(&mut self) -> Result<Option<Member>, DecodeError> {
        let member = Member {
            node: NodeId(self.u32()?),
            incarnation: self.incarnation()?,
        };
        Ok((member != Member::default()).then_some(member))
    }
    fn record(&mut self) -> Result<Option<Record>, DecodeError> {
        let (term, first, second) = (self.u64()?, self.member()?, self.member()?);
        let pace = Pace {
            heartbeat_interval_ms: self.u32()?,
            lease_ms: self.u32()?,
        };
        match (
            term,
            first,
            second,
            (pace.heartbeat_interval_ms, pace.lease_ms),
        ) {
            (0, None, None, (0, 0)) => Ok(None),
            (1.., Some(first), second, (heartbeat @ 1.., lease @ ..=LEASE_MS_MAX))
                if heartbeat < lease =>
            {
                Ok(Some(Record {
                    term,
                    first,
                    second,
                    pace,
                }))
            }
            _ => Err(DecodeError::Field { kind: self.kind }),
        }
    }
    fn flags<const N: usize>(&mut self) -> Result<[bool; N], DecodeError> {
        let [byte] = self.array()?;
        if u32::from(byte) >= 1 << N {
            return Err(DecodeError::Field { kind: self.kind });
        }
        Ok(std::array::from_fn(|place| byte >> place & 1 != 0))
    }
}
