//! What a system says about an overload: in its logs, and in its counters.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use super::bed::Bed;
use super::metrics::metrics;
use super::subject::Subject;
use crate::namespaces::Gateway;
use crate::rival::{ask_conntrackd, conntrackd_log};

/// Counters of what goes well are not about the overload.
const WORDS: [&str; 8] = [
    "overrun", "lost", "lagged", "resync", "repair", "drop", "digest", "in_sync",
];
/// So many lines of each log.
const LINES_MAX: usize = 5;

/// What was said before.
#[derive(Debug)]
pub(super) struct Told {
    logs: Vec<(PathBuf, usize)>,
    counters: BTreeMap<String, String>,
}

impl Told {
    pub(super) fn begin(bed: &Bed) -> Result<Self> {
        let length = |log: PathBuf| {
            let length = fs::read(&log).map_or(0, |text| text.len());
            (log, length)
        };
        Ok(Self {
            logs: logs(bed).into_iter().map(length).collect(),
            counters: counters(bed)?,
        })
    }

    /// What was said since.
    pub(super) fn end(self, bed: &Bed) -> Result<Vec<String>> {
        let mut told = Vec::new();
        for (log, length) in self.logs {
            let text = fs::read(&log).unwrap_or_default();
            let new = String::from_utf8_lossy(text.get(length..).unwrap_or_default()).into_owned();
            let name = log
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let lines: Vec<&str> = new.lines().filter(|line| is_complaint(line)).collect();
            told.extend(
                lines
                    .iter()
                    .take(LINES_MAX)
                    .map(|line| format!("{name}: {}", line.trim())),
            );
            if lines.len() > LINES_MAX {
                told.push(format!("{name}: {} more", lines.len() - LINES_MAX));
            }
        }
        for (name, value) in counters(bed)? {
            let before = self.counters.get(&name).map_or("none", String::as_str);
            if before != value {
                told.push(format!("{name}: {before} → {value}"));
            }
        }
        Ok(told)
    }
}

fn logs(bed: &Bed) -> Vec<PathBuf> {
    let lab = &bed.scene.lab;
    match &bed.subject {
        Subject::Vnfpool(_) => ["gw1-element.log", "gw2-element.log", "manager-manager.log"]
            .map(|log| lab.directory().join(log))
            .into(),
        Subject::Conntrackd(..) => Gateway::BOTH
            .map(|gateway| conntrackd_log(lab, gateway))
            .into(),
    }
}

/// vnfpool's logs name a level; conntrackd's, in square brackets, too.
fn is_complaint(line: &str) -> bool {
    [" WARN ", " ERROR ", "[warning]", "[ERROR]", "[error]"]
        .iter()
        .any(|level| line.contains(level))
        || WORDS.iter().any(|word| line.contains(word))
}

/// The counters of both gateways that are about losses.
fn counters(bed: &Bed) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for gateway in Gateway::BOTH {
        let text = match &bed.subject {
            Subject::Vnfpool(_) => metrics(bed.gateway(gateway)?)?,
            Subject::Conntrackd(..) => {
                let lab = &bed.scene.lab;
                let network = ask_conntrackd(lab, gateway, &["-s", "runtime"])?;
                network.replace('\t', " ")
            }
        };
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, value)) = line.trim().rsplit_once([' ', ':']) else {
                continue;
            };
            if WORDS.iter().any(|word| name.contains(word)) {
                all.insert(
                    format!("{gateway} {}", name.trim_end_matches([':', ' '])),
                    value.to_owned(),
                );
            }
        }
    }
    Ok(all)
}
