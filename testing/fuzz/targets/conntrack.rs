//! The target `conntrack` for libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(
    init: vnfpool_fuzz::Target::write_seeds("conntrack"),
    |data: &[u8]| vnfpool_fuzz::conntrack::run(data)
);
