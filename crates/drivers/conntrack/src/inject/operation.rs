//! What is to be done about one connection, and in which messages.

use crate::entry::{Entry, ProtocolState};
use crate::netlink::build::{self, CreateOptions, UpdatedTime};
use crate::tuple::Key;

#[derive(Debug)]
pub(super) struct Operation {
    pub(super) key: Key,
    /// None: delete.
    pub(super) entry: Option<Entry>,
    pub(super) step: Step,
    pub(super) helper: bool,
    pub(super) master: Master,
}

/// What a creation does about the master of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Master {
    /// Names it.
    Named,
    /// Names it once more: it may come in the same batch, later.
    Awaited,
    /// Does without.
    Without,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Create,
    Replace,
    ReplaceBoth,
    Update,
    /// All but the time that is left.
    UpdateFixed,
    MakeStrict,
    Delete,
}

/// A message of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    DeleteInTheWay,
    DeleteReplyInTheWay,
    ForgetScales,
    Create,
    Update,
    UpdateFixed,
    MakeStrict,
    Delete,
}

impl Part {
    /// Whether the operation failed if this message did.
    pub(super) const fn decides(self) -> bool {
        !matches!(
            self,
            Self::DeleteInTheWay | Self::DeleteReplyInTheWay | Self::ForgetScales
        )
    }
}

impl Operation {
    pub(super) fn messages(&self) -> &'static [Part] {
        match self.step {
            Step::Create => &[Part::Create],
            Step::Replace => &[Part::DeleteInTheWay, Part::Create],
            Step::ReplaceBoth => &[
                Part::DeleteInTheWay,
                Part::DeleteReplyInTheWay,
                Part::Create,
            ],
            Step::Update if self.is_scale_refused() => &[Part::ForgetScales, Part::Update],
            Step::Update => &[Part::Update],
            Step::UpdateFixed => &[Part::UpdateFixed],
            Step::MakeStrict => &[Part::MakeStrict],
            Step::Delete => &[Part::Delete],
        }
    }

    pub(super) fn build(&self, part: Part, out: &mut Vec<u8>, sequence: u32) {
        let options = CreateOptions {
            helper: self.helper,
            master: self.master != Master::Without,
        };
        match (part, &self.entry) {
            (Part::Create, Some(entry)) => build::create(out, sequence, entry, options),
            (Part::Update, Some(entry)) => {
                build::update(out, sequence, entry, UpdatedTime::Told);
            }
            (Part::UpdateFixed, Some(entry)) => {
                build::update(out, sequence, entry, UpdatedTime::Kept);
            }
            (Part::DeleteReplyInTheWay, Some(entry)) => {
                build::delete_by_reply(out, sequence, &entry.reply, entry.key.zone);
            }
            (Part::ForgetScales, _) => build::forget_scales(out, sequence, &self.key),
            (Part::MakeStrict, _) => build::make_strict(out, sequence, &self.key),
            _ => build::delete(out, sequence, &self.key),
        }
    }
    fn is_scale_refused(&self) -> bool {
        let state = self.entry.as_ref().map(|entry| entry.state);
        matches!(state, Some(ProtocolState::Tcp(tcp)) if tcp.is_scale_refused())
    }
}
