//! The target `sdk` for libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(
    init: vnfpool_fuzz::Target::write_seeds("sdk"),
    |data: &[u8]| vnfpool_fuzz::sdk::run(data)
);
