//! Compiles the services' protos.

use std::error::Error;
use std::path::Path;
use std::{env, fs};

use prost::Message as _;

const PROTOS: &str = "../../proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTOS}");
    let files = protox::compile(
        [
            "catalog/v1/catalog.proto",
            "order/v1/order.proto",
            "monitor/v1/monitor.proto",
        ],
        [PROTOS],
    )?;
    let descriptors = Path::new(&env::var("OUT_DIR")?).join("descriptors");
    fs::write(descriptors, files.encode_to_vec())?;
    tonic_prost_build::configure()
        // What gateways say is handed on as it came: it is not copied for each who asks.
        .bytes(".catalog.v1.ListGatewaysResponse.Gateway.report")
        .compile_fds(files)?;
    Ok(())
}
