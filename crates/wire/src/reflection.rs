//! What the protos say, for those who ask a running service: `grpc.reflection.v1`.

use tonic_reflection::server::Builder;
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};

/// Answers about these gRPC services, by their full names.
///
/// # Panics
/// Where the protos that this was built from cannot be read.
pub fn reflection(services: &[&str]) -> ServerReflectionServer<impl ServerReflection> {
    let mut builder = Builder::configure()
        .register_encoded_file_descriptor_set(crate::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
    for service in services {
        builder = builder.with_service_name(*service);
    }
    let built = builder.build_v1();
    built.expect("the protos were read when this was built")
}
