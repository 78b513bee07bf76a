//! Compiles the services' protos.

use std::error::Error;

const PROTOS: &str = "../../proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTOS}");
    let files = protox::compile(
        ["catalog/v1/catalog.proto", "order/v1/order.proto"],
        [PROTOS],
    )?;
    tonic_prost_build::configure().compile_fds(files)?;
    Ok(())
}
