//! Compiles the control messages and those of the SDK; needs no `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let control = protox::compile(["proto/control.proto"], ["proto"])?;
    prost_build::Config::new().compile_fds(control)?;
    let sdk = protox::compile(["proto/sdk.proto"], ["proto"])?;
    // Keys and values are slices of the message that they came in.
    prost_build::Config::new().bytes(["."]).compile_fds(sdk)?;
    println!("cargo::rerun-if-changed=proto");
    Ok(())
}
