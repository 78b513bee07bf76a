//! Who may call what, where callers prove who they are.

use rpc::access::Access;
use tls::Role::{Gateway, Operator, Order, Viewer};

/// By roles. Beyond it a replica appends as nobody but itself: see
/// [`RequestError::OtherReplica`](crate::error::RequestError::OtherReplica).
pub const ACCESS: Access = Access(&[
    ("/order.v1.Orders/PlaceMany", &[Gateway]),
    ("/order.v1.Orders/Get", &[Gateway]),
    ("/order.v1.Orders/Announce", &[Gateway]),
    (
        "/order.v1.Orders/Status",
        &[Gateway, Order, Operator, Viewer],
    ),
    ("/order.v1.Replication/AppendMany", &[Order]),
    ("/order.v1.Replication/Fetch", &[Order]),
]);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;

    #[test]
    fn the_table_has_every_method_and_no_other() {
        let protos = FileDescriptorSet::decode(wire::DESCRIPTORS).unwrap();
        let mut methods = BTreeSet::new();
        for file in &protos.file {
            for service in &file.service {
                let name = format!("{}.{}", file.package(), service.name());
                if ["order.v1.Orders", "order.v1.Replication"].contains(&name.as_str()) {
                    let of_service = service.method.iter();
                    methods.extend(of_service.map(|method| format!("/{name}/{}", method.name())));
                }
            }
        }
        let table: Vec<_> = ACCESS
            .0
            .iter()
            .map(|(method, _)| (*method).to_owned())
            .collect();
        assert_eq!(BTreeSet::from_iter(table.clone()), methods);
        assert_eq!(table.len(), methods.len(), "each is there once");
        for (method, roles) in ACCESS.0 {
            assert!(!roles.is_empty(), "nobody may call {method}");
        }
    }
}
