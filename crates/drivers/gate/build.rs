//! Compiles the gate's BPF program.

fn main() -> Result<(), String> {
    vnfpool_bpf_build::compile("gate")
}
