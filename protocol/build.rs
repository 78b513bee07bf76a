//! Compiles the services' protos, which live with the services.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let includes = ["../catalog/proto", "../order/proto"];
    for include in includes {
        println!("cargo::rerun-if-changed={include}");
    }
    let files = protox::compile(
        ["catalog/v1/catalog.proto", "order/v1/order.proto"],
        includes,
    )?;
    tonic_prost_build::configure().compile_fds(files)?;
    Ok(())
}
