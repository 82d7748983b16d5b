//! Where the time of a takeover went, as the daemons tell it in their logs.

use std::fs;
use std::path::Path;

use serde::Serialize;

use super::Watermark;

/// The steps of one takeover, in ms, each from the end of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TakeoverSteps {
    /// From the last word of the former active until the vote; 0 after a handover.
    pub silence_ms: f64,
    /// Until the manager's answer; 0 after a handover.
    pub answer_ms: f64,
    /// Of that, the manager's disk.
    pub disk_ms: f64,
    /// The record was on its way to that disk before the vote.
    pub prepared: bool,
    /// Until the gate was open.
    pub opening_ms: f64,
    /// Until the LANs were told.
    pub telling_ms: f64,
}

/// How long the logs were before a fault: what comes after is about it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Marks {
    elements: [usize; 2],
    manager: usize,
}

impl Marks {
    pub(super) fn set(elements: [&Path; 2], manager: &Path) -> Self {
        Self {
            elements: elements.map(|log| read(log).len()),
            manager: read(manager).len(),
        }
    }

    /// The steps of the first takeover since then by the element with this index and log.
    pub(super) fn steps(
        &self,
        index: usize,
        element: &Path,
        manager: &Path,
    ) -> Option<TakeoverSteps> {
        let since = |log: &str, mark: usize| log.get(mark..).unwrap_or_default().to_owned();
        let element = since(&read(element), self.elements[index]);
        let manager = since(&read(manager), self.manager);
        parse(&element, &manager)
    }

    /// What the element with this index has said since then of what it may not have.
    pub(super) fn watermark(&self, index: usize, element: &Path) -> Option<Watermark> {
        Watermark::parse(read(element).get(self.elements[index]..)?)
    }

    /// How many records the manager has written since then: each names a pair anew, or takes a
    /// successor's right away.
    pub(super) fn records(&self, manager: &Path) -> usize {
        let log = read(manager);
        let since = log.get(self.manager..).unwrap_or_default();
        since.lines().filter(|line| line.contains(RECORD)).count()
    }
}

/// What the manager says when a record is in force.
const RECORD: &str = "a record is on disk";

fn read(log: &Path) -> String {
    fs::read_to_string(log).unwrap_or_default()
}

fn parse(element: &str, manager: &str) -> Option<TakeoverSteps> {
    let told = "the gate is open, the LANs are told";
    let line = element.lines().find(|line| line.contains(told))?;
    let answer_ms = millis(line, "answer_us=")?;
    // A handover needs no record; one that is written meanwhile is of something else.
    let record = manager
        .lines()
        .find(|line| line.contains(RECORD) && answer_ms > 0.0);
    Some(TakeoverSteps {
        silence_ms: millis(line, "silence_us=")?,
        answer_ms,
        disk_ms: record
            .and_then(|line| millis(line, "disk_us="))
            .unwrap_or(0.0),
        prepared: record.is_some_and(|line| line.contains("prepared=true")),
        opening_ms: millis(line, "opening_us=")?,
        telling_ms: millis(line, "telling_us=")?,
    })
}

fn millis(line: &str, key: &str) -> Option<f64> {
    let value = line
        .split_whitespace()
        .find_map(|word| word.strip_prefix(key))?;
    let micros: u32 = value.parse().ok()?;
    Some(f64::from(micros) / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_takeover_is_read_with_its_record() {
        let element = "12:00 INFO role slot=\"main\"\n\
            12:00 INFO the gate is open, the LANs are told slot=1 epoch=3.0 silence_us=50012 \
            answer_us=1500 opening_us=7 telling_us=120\n\
            12:01 INFO the gate is open, the LANs are told slot=1 epoch=5.0 silence_us=1 \
            answer_us=1 opening_us=1 telling_us=1\n";
        let manager = "12:00 INFO a record is on disk slot=1 term=3 disk_us=400 prepared=true\n";
        let steps = parse(element, manager).unwrap();
        assert_eq!(
            steps,
            TakeoverSteps {
                silence_ms: 50.012,
                answer_ms: 1.5,
                disk_ms: 0.4,
                prepared: true,
                opening_ms: 0.007,
                telling_ms: 0.12,
            }
        );
        assert_eq!(parse("", manager), None);
    }
}
