//! Compiles OTLP's protos, which are OpenTelemetry's own, as they are.

use std::error::Error;

const PROTOS: &str = "proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTOS}");
    let service = "opentelemetry/proto/collector/trace/v1/trace_service.proto";
    let files = protox::compile([service], [PROTOS])?;
    tonic_prost_build::configure().compile_fds(files)?;
    Ok(())
}
