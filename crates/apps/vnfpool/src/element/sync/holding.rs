//! The level `commit` for connections: their first packets leave only after the successor holds
//! their entries ([decision 0024](../../../../../../docs/decisions/0024-first-packets-wait-in-a-queue.md)).

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use vnfpool_commit::{
    Commitment, Effects, Event, Input, Limits, Packet, Reason, Statistics, Status,
};
use vnfpool_conntrack::{
    Entry, Key, Layer4, ProtocolState, SctpInfo, TcpInfo, Zone, ZoneDirection, codec, protocol,
    tcp_flags,
};
use vnfpool_hold::{Connection, Held, HoldError, Holder, Options, Tuple};
use vnfpool_model::{SlotId, Time};
use vnfpool_statesync::class::{Bounds, Level};
use vnfpool_statesync::{Change, SenderInput};

use crate::element::downgrades::{Downgrade, Downgrades};
use crate::pulse::now;

/// The queue of the kernel; a number as good as any that nobody else uses.
const QUEUE: u16 = 7_402;

/// Packets that the queue holds; beyond it they pass, and that is a downgrade.
const QUEUE_LENGTH: u32 = 16_384;

/// Between two looks for packets that passed a full queue.
const COUNT_AGAIN: Duration = Duration::from_secs(1);

/// Packets held, and the machine that says when they may go.
pub(super) struct Holding {
    slot: SlotId,
    holder: Holder,
    machine: Commitment<Tuple>,
    effects: Effects,
    held: Vec<Held>,
    /// Packets that came and whose entry was not sent yet, oldest first.
    unsent: VecDeque<(u32, Connection)>,
    barrier: u64,
    buffer: BytesMut,
    overflowed: u64,
    count_at: Instant,
    downgrades: Downgrades,
}

/// How holding goes, for figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HoldingFigures {
    pub(crate) statistics: Statistics,
    /// When packets did not, or do not, wait for the successor.
    pub(crate) downgrades: Downgrades,
}

impl Holding {
    /// Holds from now on, and lets go at once until there is a successor in sync.
    pub(super) fn open(slot: SlotId, wait_max: Duration) -> Result<Self, HoldError> {
        let options = Options {
            queue: QUEUE,
            length: QUEUE_LENGTH,
            interfaces: Vec::new(),
        };
        let limits = Limits {
            wait_max,
            ..Limits::default()
        };
        Ok(Self {
            slot,
            holder: Holder::open(&options)?,
            machine: Commitment::new(now(), limits),
            effects: Effects::default(),
            held: Vec::new(),
            unsent: VecDeque::new(),
            barrier: 0,
            buffer: BytesMut::new(),
            overflowed: 0,
            count_at: Instant::now() + COUNT_AGAIN,
            downgrades: Downgrades::default(),
        })
    }

    /// Appends the entries of packets that are held since the last call, and a barrier after them.
    pub(super) fn read(&mut self, out: &mut Vec<SenderInput>) -> anyhow::Result<()> {
        let mut held = std::mem::take(&mut self.held);
        self.holder.read(&mut held);
        for Held { id, connection } in held.drain(..) {
            let input = match connection {
                Some(connection) => {
                    self.unsent.push_back((id, connection));
                    Input::Held(Packet {
                        id,
                        original: connection.original,
                        reply: connection.reply,
                    })
                }
                None => Input::Unknown { id },
            };
            self.machine.handle(now(), input, &mut self.effects);
        }
        self.held = held;
        self.count()?;
        self.handle(Input::Tick)?;
        self.send(out);
        // What was sent may let packets go.
        self.handle(Input::Tick)
    }

    /// The successor has, or will never be known to have, what went before the barrier.
    pub(super) fn reached(&mut self, barrier: u64, yes: bool) -> anyhow::Result<()> {
        match yes {
            true => self.handle(Input::Acknowledged(barrier)),
            false => self.successor(false),
        }
    }

    /// There is a successor in sync, or none any more.
    pub(super) fn successor(&mut self, is_present: bool) -> anyhow::Result<()> {
        self.handle(Input::Successor { is_present })
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.machine.deadline()
    }

    /// Whether packets wait for the successor.
    pub(super) fn is_waiting(&self) -> bool {
        self.machine.status().waiting > 0
    }

    /// Has the next packet make the descriptor readable; true if there is one already.
    pub(super) fn arm(&mut self) -> anyhow::Result<bool> {
        Ok(self.holder.arm()?)
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.holder.as_fd()
    }

    pub(super) fn figures(&self) -> HoldingFigures {
        let Status {
            downgrade: under_way,
            statistics,
            ..
        } = self.machine.status();
        // Its reason may have changed since it began.
        let now = under_way.map(|(reason, since)| downgrade(reason, since));
        HoldingFigures {
            statistics,
            downgrades: Downgrades {
                now,
                ..self.downgrades
            },
        }
    }

    /// Packets that a full queue let pass.
    fn count(&mut self) -> anyhow::Result<()> {
        if Instant::now() < self.count_at {
            return Ok(());
        }
        self.count_at = Instant::now() + COUNT_AGAIN;
        let overflowed = self.holder.statistics()?.overflowed;
        let packets = overflowed.saturating_sub(self.overflowed);
        self.overflowed = overflowed;
        match packets {
            0 => Ok(()),
            _ => self.handle(Input::Overflowed { packets }),
        }
    }

    fn send(&mut self, out: &mut Vec<SenderInput>) {
        let send = std::mem::take(&mut self.effects.send);
        let asks = std::mem::take(&mut self.effects.ask);
        let last = send.last().copied();
        if last.is_none() && !asks {
            return;
        }
        self.barrier += 1;
        let (id, sequence) = (self.barrier, self.barrier);
        for id in send {
            // In the order in which they came; those in between are not to be sent.
            while let Some((packet, connection)) = self.unsent.pop_front() {
                if packet == id {
                    let entry = entry(&connection, self.holder.ticks_per_second());
                    if entry.check().is_ok() {
                        let item = codec::item(&entry, &mut self.buffer);
                        let is_new = true;
                        out.push(SenderInput::Change(Change::Put { item, is_new }));
                    }
                    break;
                }
            }
            let sent = Input::Sent { id, sequence };
            self.machine.handle(now(), sent, &mut self.effects);
        }
        if let Some(last) = last {
            let is_older =
                |(packet, _): &mut (u32, Connection)| last.wrapping_sub(*packet).cast_signed() >= 0;
            while self.unsent.pop_front_if(is_older).is_some() {}
        }
        if asks {
            let asked = Input::Asked { sequence };
            self.machine.handle(now(), asked, &mut self.effects);
        }
        out.push(SenderInput::Barrier { id });
    }

    fn handle(&mut self, input: Input<Tuple>) -> anyhow::Result<()> {
        self.machine.handle(now(), input, &mut self.effects);
        if let Some(id) = self.effects.release_through.take() {
            self.holder.release_through(id)?;
        }
        for event in std::mem::take(&mut self.effects.events) {
            let slot = self.slot;
            match event {
                Event::DowngradeBegan { reason } => {
                    self.downgrades.begin(downgrade(reason, now()));
                    tracing::warn!(%slot, ?reason, "commit is downgraded: first packets do not wait for the successor");
                }
                Event::DowngradeEnded {
                    reason,
                    lasted,
                    unheld,
                } => {
                    self.downgrades.end(now(), unheld);
                    tracing::info!(%slot, ?reason, ?lasted, unheld, "commit holds again: first packets wait for the successor");
                }
            }
        }
        Ok(())
    }
}

fn downgrade(reason: Reason, began: Time) -> Downgrade {
    let reason = match reason {
        Reason::NoSuccessor => "there is no successor in sync that could hold the entries",
        Reason::SuccessorSlow => {
            "a first packet waited longer than commit_wait_ms for the successor"
        }
        Reason::Overflow => "more first packets came than can be held",
    };
    Downgrade {
        level: Level::Bounded(Bounds::DEFAULT).as_str(),
        reason,
        began,
    }
}

/// The entry that the kernel is about to have.
fn entry(connection: &Connection, ticks_per_second: u32) -> Entry {
    let original = tuple(&connection.original);
    let state = match original.protocol {
        protocol::TCP => ProtocolState::Tcp(TcpInfo {
            state: connection.state,
            window_scale: connection.window_scale,
            flags: connection.flags.map(|flags| flags & tcp_flags::REPLICATED),
        }),
        protocol::SCTP => ProtocolState::Sctp(SctpInfo {
            state: connection.state,
            tags: connection.tags,
        }),
        _ => ProtocolState::None,
    };
    let direction = match connection.zone_directions {
        1 => ZoneDirection::Original,
        2 => ZoneDirection::Reply,
        _ => ZoneDirection::Both,
    };
    let zone = match connection.zone {
        0 => Zone::default(),
        id => Zone { id, direction },
    };
    let status =
        vnfpool_conntrack::Status(connection.status | vnfpool_conntrack::Status::CONFIRMED);
    Entry {
        key: Key { original, zone },
        reply: tuple(&connection.reply),
        status: status.replicated(),
        timeout_s: (connection.timeout_ticks / ticks_per_second.max(1)).max(1),
        mark: connection.mark,
        state,
        labels: None,
        seq_adjust: [None; 2],
        helper: None,
        master: None,
    }
}

fn tuple(tuple: &Tuple) -> vnfpool_conntrack::Tuple {
    let (src, dst) = (tuple.src_port, tuple.dst_port);
    let layer4 = match tuple.protocol {
        protocol::ICMP | protocol::ICMPV6 => {
            let [kind, code] = dst.to_be_bytes();
            Layer4::Icmp {
                id: src,
                kind,
                code,
            }
        }
        number if vnfpool_conntrack::has_ports(number) => Layer4::Ports { src, dst },
        _ => Layer4::None,
    };
    vnfpool_conntrack::Tuple {
        src: tuple.src,
        dst: tuple.dst,
        protocol: tuple.protocol,
        layer4,
    }
}
