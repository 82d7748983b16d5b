//! What may happen next.

use crate::letter::name;
use crate::world::{Kind, World};

/// One step of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// The first letter arrives.
    Deliver,
    /// A timer fires; 0 is the manager's.
    Beat(u8),
    /// A tick passes.
    Advance,
    /// The first letter is lost.
    Lose,
    /// The first letter is held.
    Hold,
    /// The first letter arrives, and once more later.
    Double,
    /// A held letter arrives.
    Arrive(u8),
    /// An agent dies.
    Crash(u8),
    /// An agent is killed in the middle of its effects; a node, and 16 for each effect that happened.
    Kill(u8),
    /// Another process goes on in the life of a killed agent.
    Resume(u8),
    /// A new life of an agent begins.
    Live(u8),
    /// The manager dies; a record on its way to the disk is lost, or written.
    CrashManager {
        /// It is written.
        written: bool,
    },
    /// A new life of the manager begins.
    LiveManager,
    /// Links are cut, by number in the world's list.
    Cut(u8),
    /// All links heal.
    Heal,
    /// A machine stands still.
    Freeze(u8),
    /// It goes on; its sockets have kept what came.
    Thaw(u8),
    /// It goes on; its sockets have lost what came.
    ThawDeaf(u8),
    /// A network function fails.
    Fail(u8),
    /// It is repaired.
    Repair(u8),
    /// The operator's switchover.
    HandOver(u8),
    /// No copy is proved any more.
    BreakStream,
    /// Copies are proved again.
    MendStream,
    /// An element is switched off, and the operator says so.
    Fence(u8),
    /// The manager prefers the other pace.
    OtherPace,
    /// A snapshot is taken.
    Save(u8),
    /// A virtual machine is put back to its snapshot.
    Restore(u8),
}

impl Move {
    /// As a number, to be kept for each state.
    #[must_use]
    pub const fn pack(self) -> u16 {
        let (kind, node) = match self {
            Self::Deliver => (0, 0),
            Self::Beat(n) => (1, n),
            Self::Advance => (2, 0),
            Self::Lose => (3, 0),
            Self::Hold => (4, 0),
            Self::Double => (5, 0),
            Self::Arrive(n) => (6, n),
            Self::Crash(n) => (7, n),
            Self::Live(n) => (8, n),
            Self::CrashManager { written } => (9, written as u8),
            Self::LiveManager => (10, 0),
            Self::Cut(n) => (11, n),
            Self::Heal => (12, 0),
            Self::Freeze(n) => (13, n),
            Self::Thaw(n) => (14, n),
            Self::ThawDeaf(n) => (15, n),
            Self::Fail(n) => (16, n),
            Self::Repair(n) => (17, n),
            Self::HandOver(n) => (18, n),
            Self::BreakStream => (19, 0),
            Self::MendStream => (20, 0),
            Self::Fence(n) => (21, n),
            Self::Save(n) => (22, n),
            Self::Restore(n) => (23, n),
            Self::Kill(n) => (24, n),
            Self::Resume(n) => (25, n),
            Self::OtherPace => (26, 0),
        };
        (kind << 8) | node as u16
    }

    /// The move of a number; the inverse of [`Move::pack`].
    #[must_use]
    pub const fn unpack(number: u16) -> Self {
        let node = (number & 0xff) as u8;
        match number >> 8 {
            0 => Self::Deliver,
            1 => Self::Beat(node),
            2 => Self::Advance,
            3 => Self::Lose,
            4 => Self::Hold,
            5 => Self::Double,
            6 => Self::Arrive(node),
            7 => Self::Crash(node),
            8 => Self::Live(node),
            9 => Self::CrashManager { written: node != 0 },
            10 => Self::LiveManager,
            11 => Self::Cut(node),
            12 => Self::Heal,
            13 => Self::Freeze(node),
            14 => Self::Thaw(node),
            15 => Self::ThawDeaf(node),
            16 => Self::Fail(node),
            17 => Self::Repair(node),
            18 => Self::HandOver(node),
            19 => Self::BreakStream,
            20 => Self::MendStream,
            21 => Self::Fence(node),
            22 => Self::Save(node),
            23 => Self::Restore(node),
            24 => Self::Kill(node),
            25 => Self::Resume(node),
            _ => Self::OtherPace,
        }
    }

    /// The kind of disturbance that it is, if it is one.
    #[must_use]
    pub const fn kind(self) -> Option<Kind> {
        match self {
            Self::Lose => Some(Kind::Lose),
            Self::Hold => Some(Kind::Hold),
            Self::Double => Some(Kind::Double),
            Self::Crash(_) => Some(Kind::Crash),
            Self::CrashManager { .. } => Some(Kind::ManagerCrash),
            Self::Cut(_) => Some(Kind::Cut),
            Self::Freeze(_) => Some(Kind::Freeze),
            Self::Fail(_) => Some(Kind::Fail),
            Self::HandOver(_) => Some(Kind::HandOver),
            Self::BreakStream => Some(Kind::Stream),
            Self::Fence(_) => Some(Kind::Fence),
            Self::Restore(_) => Some(Kind::Restore),
            Self::Kill(_) => Some(Kind::Kill),
            Self::OtherPace => Some(Kind::Pace),
            _ => None,
        }
    }

    /// In words.
    #[must_use]
    pub fn tell(self, world: &World) -> String {
        let who = |node: u8| name(usize::from(node));
        match self {
            Self::Deliver => "arrives".into(),
            Self::Beat(n) => format!("timer of {}", who(n)),
            Self::Advance => "a tick passes".into(),
            Self::Lose => "is lost".into(),
            Self::Hold => "is held".into(),
            Self::Double => "arrives, and will again".into(),
            Self::Arrive(_) => "arrives late".into(),
            Self::Crash(n) => format!("the agent of {} dies, its gate lives on", who(n)),
            Self::Kill(n) => format!(
                "{} is killed after {} effects of it, its gate lives on",
                who(n % 16),
                n / 16
            ),
            Self::Resume(n) => format!("{} goes on in another process", who(n)),
            Self::Live(n) => format!("{} begins a new life", who(n)),
            Self::CrashManager { written: true } => {
                "M dies; the record on its way to the disk is there".into()
            }
            Self::CrashManager { written: false } => "M dies".into(),
            Self::LiveManager => "M begins a new life from its disk".into(),
            Self::Cut(n) => format!("cut: {}", world.cuts[usize::from(n)].name),
            Self::Heal => "all links heal".into(),
            Self::Freeze(n) => format!("{} stands still", who(n)),
            Self::Thaw(n) => format!("{} goes on, with what waited in its sockets", who(n)),
            Self::ThawDeaf(n) => format!("{} goes on; what came meanwhile is lost", who(n)),
            Self::Fail(n) => format!("the function of {} fails", who(n)),
            Self::Repair(n) => format!("the function of {} works again", who(n)),
            Self::HandOver(n) => format!("the operator switches over from {}", who(n)),
            Self::BreakStream => "the state stream breaks".into(),
            Self::MendStream => "the state stream carries again".into(),
            Self::Fence(n) => format!("{} is switched off, and M is told", who(n)),
            Self::OtherPace => "M is to prefer the other pace".into(),
            Self::Save(n) => format!("a snapshot of {} is taken", who(n)),
            Self::Restore(n) => format!("{} is put back to its snapshot", who(n)),
        }
    }
}
