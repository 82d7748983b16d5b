//! What happened: a number for all of it, and lines for who wants to read.

use std::collections::VecDeque;

/// The newest lines are kept.
const LINES_MAX: usize = 20_000;

/// The trace of one history.
#[derive(Debug)]
pub struct Trace {
    digest: u64,
    lines: Option<VecDeque<String>>,
    aloud: bool,
}

impl Trace {
    /// With `lines`, the timeline is kept; it costs much time.
    #[must_use]
    pub fn new(lines: bool, aloud: bool) -> Self {
        Self {
            digest: 0xcbf2_9ce4_8422_2325,
            lines: lines.then(VecDeque::new),
            aloud,
        }
    }

    /// Equal for equal histories, and for others not.
    #[must_use]
    pub const fn digest(&self) -> u64 {
        self.digest
    }

    /// The timeline, oldest line first.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().flatten().map(String::as_str)
    }

    #[inline]
    pub(crate) const fn add(&mut self, word: u64) {
        let mixed = (self.digest ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.digest = mixed ^ (mixed >> 29);
    }

    #[inline]
    pub(crate) fn note(&mut self, now: u64, text: impl FnOnce() -> String) {
        let Some(lines) = &mut self.lines else { return };
        let (millis, micros) = (now / 1_000_000, now / 1_000 % 1_000);
        let line = format!("{millis:>9}.{micros:03} ms  {}", text());
        if self.aloud {
            print(&line);
        }
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

#[expect(clippy::print_stdout, reason = "who asked for the timeline reads it")]
fn print(line: &str) {
    println!("{line}");
}
