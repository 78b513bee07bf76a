//! Who may call which method, beside what the protos have.

use std::collections::BTreeSet;

use prost::Message as _;
use prost_types::FileDescriptorSet;

#[test]
fn every_method_of_the_protos_is_in_one_table_and_somebody_may_call_it() {
    let protos = FileDescriptorSet::decode(wire::DESCRIPTORS).unwrap();
    let mut methods = BTreeSet::new();
    for file in &protos.file {
        for service in &file.service {
            let path = format!("/{}.{}", file.package(), service.name());
            let of_service = service.method.iter();
            methods.extend(of_service.map(|method| format!("{path}/{}", method.name())));
        }
    }
    // How each service is, everybody may ask who proves who they are.
    methods.retain(|method| !rpc::access::is_of_every_service(method));
    assert!(!methods.is_empty());
    let rows: Vec<_> = [catalog::access::ACCESS, order::access::ACCESS]
        .into_iter()
        .flat_map(|table| table.0)
        .collect();
    let listed: BTreeSet<_> = rows
        .iter()
        .map(|(method, _)| (*method).to_owned())
        .collect();
    assert_eq!(listed, methods);
    assert_eq!(rows.len(), listed.len(), "each is there once");
    for (method, roles) in rows {
        assert!(!roles.is_empty(), "nobody may call {method}");
    }
}
