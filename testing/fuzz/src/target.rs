//! The list of what is fuzzed.

use std::path::Path;

use crate::{conntrack, receiver, sdk, sender};

/// Something that reads hostile bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// In the names of its binary and its folders.
    pub name: &'static str,
    /// Reads bytes; panics when something is wrong.
    pub run: fn(&[u8]),
    /// What it begins with, made by the real encoders.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self {
            name: "receiver",
            run: receiver::run,
            seeds: receiver::seeds,
        },
        Self {
            name: "sender",
            run: sender::run,
            seeds: sender::seeds,
        },
        Self {
            name: "conntrack",
            run: conntrack::run,
            seeds: conntrack::seeds,
        },
        Self {
            name: "sdk",
            run: sdk::run,
            seeds: sdk::seeds,
        },
    ];

    /// Writes what the target `name` begins with into the folder that `VNFPOOL_FUZZ_SEEDS` names, for
    /// libFuzzer; nothing without it, for the replay of a finding.
    ///
    /// # Panics
    /// When they cannot be written.
    pub fn write_seeds(name: &str) {
        let Some(folder) = std::env::var_os("VNFPOOL_FUZZ_SEEDS") else {
            return;
        };
        let target = Self::ALL.into_iter().find(|target| target.name == name);
        let seeds = target.map(|target| (target.seeds)()).unwrap_or_default();
        for (number, seed) in seeds.iter().enumerate() {
            let file = Path::new(&folder).join(format!("seed-{number:03}"));
            std::fs::write(file, seed).expect("the folder of VNFPOOL_FUZZ_SEEDS is writable");
        }
    }
}
