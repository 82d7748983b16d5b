//! Compiles the BPF program of the event ring.

fn main() -> Result<(), String> {
    vnfpool_bpf_build::compile("changes")
}
