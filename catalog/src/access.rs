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
    ("/catalog.v1.Catalog/RaiseProtocol", &[Gateway]),
    ("/catalog.v1.Catalog/SetInSync", &[Order]),
    ("/catalog.v1.Catalog/ReadJournal", &[Order, Operator]),
    ("/catalog.v1.Catalog/ReportLedger", &[Order]),
    ("/catalog.v1.Catalog/PutBack", &[Order]),
    ("/catalog.v1.Catalog/ReportMissing", &[Order]),
    ("/catalog.v1.Catalog/TakeMany", &[Gateway]),
    ("/catalog.v1.Catalog/Session", &[Gateway]),
    ("/catalog.v1.Catalog/ListGateways", &[Gateway]),
]);
