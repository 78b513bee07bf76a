//! Who may call what, where callers prove who they are.

use rpc::access::Access;
use tls::Role::{Gateway, Operator, Order, Viewer};

/// By roles. Beyond it a replica appends as nobody but itself: see
/// [`RequestError::OtherReplica`](crate::error::RequestError::OtherReplica).
pub const ACCESS: Access = Access(&[
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
]);
