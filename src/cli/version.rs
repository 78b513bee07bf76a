//! What `bazaar --version` says.

use std::sync::LazyLock;

/// The release, and what decides whether another one understands its data, its services and its policies.
pub(super) fn long() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let schema = catalog::schema_versions();
        format!(
            "{release}\n\
             services    catalog.v1, order.v1, versions {protocols} of their protocol\n\
             databases   catalog {catalog}, order replica {order}, PostgreSQL {postgres}\n\
             policies    {worlds}\n\
             wasmtime    {wasmtime}",
            release = env!("CARGO_PKG_VERSION"),
            protocols = domain::Protocols::OWN,
            catalog = schema.sqlite,
            order = order::SCHEMA_VERSION,
            postgres = schema.postgres,
            worlds = frontend_policy::WORLDS.join(", "),
            wasmtime = env!("BAZAAR_WASMTIME"),
        )
    });
    &TEXT
}
