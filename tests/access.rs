//! Who may call which method: what the protos have and what the services' tables say, against a table that is made of neither.

use std::collections::BTreeSet;

use prost::Message as _;
use prost_types::FileDescriptorSet;
use rpc::access::Access;
use tls::Principal;
use tls::Role::{self, Gateway, Operator, Order, Viewer};

/// Every method, and the roles that may call it: as SECURITY.md tells it. Of a service's own health, figures and protos
/// everybody may ask who proves who they are.
pub const EXPECTED: [(&str, &[Role]); 25] = [
    ("/catalog.v1.Catalog/GetStock", &[Gateway]),
    ("/catalog.v1.Catalog/ListStocks", &[Gateway]),
    ("/catalog.v1.Catalog/TakeMany", &[Gateway]),
    ("/catalog.v1.Catalog/Session", &[Gateway]),
    ("/catalog.v1.Catalog/ListGateways", &[Gateway]),
    ("/catalog.v1.Catalog/Elect", &[Gateway]),
    ("/catalog.v1.Catalog/RaiseProtocol", &[Gateway]),
    ("/catalog.v1.Catalog/GetLeadership", &Role::ALL),
    ("/catalog.v1.Catalog/ReadJournal", &[Order, Operator]),
    ("/catalog.v1.Catalog/TradeMany", &[Order]),
    ("/catalog.v1.Catalog/SetInSync", &[Order]),
    ("/catalog.v1.Catalog/ReportLedger", &[Order]),
    ("/catalog.v1.Catalog/PutBack", &[Order]),
    ("/catalog.v1.Catalog/ReportMissing", &[Order]),
    ("/order.v1.Orders/PlaceMany", &[Gateway]),
    ("/order.v1.Orders/Get", &[Gateway]),
    ("/order.v1.Orders/List", &[Gateway]),
    ("/order.v1.Orders/Announce", &[Gateway]),
    (
        "/order.v1.Orders/Status",
        &[Gateway, Order, Operator, Viewer],
    ),
    ("/order.v1.Replication/AppendMany", &[Order]),
    ("/order.v1.Replication/Fetch", &[Order]),
    ("/monitor.v1.Monitor/GetFigures", &Role::ALL),
    ("/grpc.health.v1.Health/Check", &Role::ALL),
    ("/grpc.health.v1.Health/Watch", &Role::ALL),
    (
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        &Role::ALL,
    ),
];

/// What a service itself has beside what every service has.
const TABLES: [(&str, Access); 2] = [
    ("/catalog.v1.", catalog::access::ACCESS),
    ("/order.v1.", order::access::ACCESS),
];

/// Whoever has that role.
fn caller(role: Role) -> Principal {
    Principal::new(role, "1").unwrap()
}

#[test]
fn every_method_of_every_service_is_expected_of_somebody() {
    let mut methods = BTreeSet::new();
    for protos in [
        wire::DESCRIPTORS,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
    ] {
        for file in FileDescriptorSet::decode(protos).unwrap().file {
            for service in &file.service {
                let path = format!("/{}.{}", file.package(), service.name());
                let of_service = service.method.iter();
                methods.extend(of_service.map(|method| format!("{path}/{}", method.name())));
            }
        }
    }
    let expected: BTreeSet<_> = EXPECTED
        .iter()
        .map(|(method, _)| (*method).to_owned())
        .collect();
    assert_eq!(expected, methods);
}

#[test]
fn each_role_may_call_what_is_expected_of_it_and_nothing_else() {
    for (place, table) in TABLES {
        let own = table.0.iter().map(|(method, _)| *method);
        let listed: BTreeSet<_> = own.clone().collect();
        assert_eq!(own.count(), listed.len(), "each is in the table once");
        for (method, roles) in EXPECTED {
            let is_elsewhere = TABLES
                .iter()
                .any(|(other, _)| *other != place && method.starts_with(other));
            for role in Role::ALL {
                let may = roles.contains(&role) && !is_elsewhere;
                let checked = table.check(method, &caller(role));
                assert_eq!(checked.is_ok(), may, "{role:?} calls {method} of {place}");
            }
        }
    }
}

/// As one would be that a later release adds, and has not said of who may call it.
#[test]
fn nobody_may_call_what_is_in_no_table() {
    for method in [
        "/monitor.v1.Monitor/Reset",
        "/grpc.health.v1.Health/Set",
        "/grpc.reflection.v1.ServerReflection/Other",
        "/monitor.v1.Monitor/",
        "/monitor.v1.Monitor/GetFigures/",
        "/monitor.v1.Monitor/GetFigures?",
        "//monitor.v1.Monitor/GetFigures",
        "/catalog.v1.Catalog/Other",
        "/order.v1.Replication/",
        "",
    ] {
        for (_, table) in TABLES {
            for role in Role::ALL {
                let refused = table.check(method, &caller(role)).unwrap_err();
                assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{method}");
            }
        }
    }
}
