//! Who may call what, where callers prove who they are.

use rpc::access::Access;
use tls::Role::{Catalog, Gateway, Operator, Order, Viewer};

/// By roles. Beyond it a replica reports for itself alone, and trades and says who is in sync only while it leads: see
/// [`RequestError::OtherReplica`](crate::error::RequestError::OtherReplica) and
/// [`NotLeader`](catalog_core::NotLeader).
pub const ACCESS: Access = Access(&[
    ("/catalog.v1.Catalog/GetStock", &[Gateway]),
    ("/catalog.v1.Catalog/ListStocks", &[Gateway]),
    ("/catalog.v1.Catalog/TradeMany", &[Order]),
    (
        "/catalog.v1.Catalog/GetLeadership",
        &[Gateway, Order, Catalog, Operator, Viewer],
    ),
    ("/catalog.v1.Catalog/Elect", &[Gateway]),
    ("/catalog.v1.Catalog/SetInSync", &[Order]),
    ("/catalog.v1.Catalog/ReadJournal", &[Order, Operator]),
    ("/catalog.v1.Catalog/ReportLedger", &[Order]),
    ("/catalog.v1.Catalog/PutBack", &[Order]),
    ("/catalog.v1.Catalog/ReportMissing", &[Order]),
    ("/catalog.v1.Catalog/TakeMany", &[Gateway]),
    ("/catalog.v1.Catalog/Session", &[Gateway]),
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
                if ["catalog.v1.Catalog"].contains(&name.as_str()) {
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
