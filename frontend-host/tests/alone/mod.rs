//! A gateway whose backends are not there, for tests of what clients can do to it.

use rpc::connect::Security;
use std::sync::Arc;
use std::time::Duration;

use frontend_host::Config;
use frontend_host::cache::{Cache, CacheBounds};
use frontend_host::handler::Gateway;
use frontend_host::journal::OwnJournal;
use frontend_host::upstream::backend::Backend;
use frontend_host::upstream::replicas::Replicas;
use frontend_host::upstream::takes::Takes;
use frontend_policy::{Engine, Probation, Upload, Versions};
use rpc::connect;
use rpc::failover::Endpoints;
use wire::catalog::v1::catalog_client::CatalogClient;

use crate::machine_code;

/// One with this policy.
pub fn gateway<'a>(policy: impl Into<Upload<'a>>) -> Arc<Gateway> {
    let engine = machine_code::kept(Engine::new(Duration::from_millis(200)).unwrap());
    let versions = Versions::new(engine, policy, Probation::default(), None).unwrap();
    let policy = Arc::new(versions);
    let nowhere = "http://127.0.0.1:1";
    let catalog = CatalogClient::new(connect::lazy(nowhere, &Security::NONE).unwrap());
    let journal = Arc::new(OwnJournal::open(None).unwrap());
    let backend = Backend {
        takes: Takes::new(
            Endpoints::one(nowhere, &Security::NONE).unwrap(),
            Arc::clone(&journal),
        ),
        catalog: catalog.clone(),
        spare_catalog: catalog.clone(),
        replicas: Arc::new(Replicas::new(
            Vec::new(),
            catalog,
            journal,
            Arc::clone(&policy),
        )),
        end_turn: Default::default(),
    };
    let cache = Arc::new(Cache::new(
        policy.published().active.manifest.cache,
        CacheBounds::default(),
    ));
    let config = Config::new(vec![nowhere.into()], Vec::new());
    Arc::new(Gateway::new(&config, policy, cache, backend))
}
