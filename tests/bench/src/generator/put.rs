//! etcd's own protocol: `etcdserverpb.KV/Put` over gRPC, one HTTP/2 connection for each client, as
//! etcd's `benchmark put --conns N --clients N` has it, which Debian does not package.
//!
//! The parent runs it as a process of its own, `bench put`, so that it is kept on the same
//! processor as wrk would be, and can take no other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{IntoRequest, Status};
use tonic_prost::ProstCodec;

use super::tally::Tally;
use super::{Figures, ORDER};
use crate::error::Error;

/// `etcdserverpb.PutRequest`, as far as it is needed (etcd 3.4, `rpc.proto`).
#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `etcdserverpb.PutResponse`; nothing of it is needed.
#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

/// What to put, where, and for how long.
#[derive(Debug, Clone, clap::Args)]
pub struct Puts {
    /// A member of the cluster
    #[arg(long)]
    pub address: SocketAddr,
    /// How many clients, each with a connection of its own
    #[arg(long)]
    pub connections: u32,
    /// For how long
    #[arg(long)]
    pub seconds: u64,
    /// In every key, so that runs have keys of their own
    #[arg(long)]
    pub run: u64,
}

impl Puts {
    /// Drives the cluster from this thread.
    pub fn send(&self) -> Result<Figures, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::machine("cannot start a runtime"))?;
        runtime.block_on(self.drive())
    }

    async fn drive(&self) -> Result<Figures, Error> {
        let failed = |error: &dyn ToString| Error::Failed {
            program: "put".to_owned(),
            output: error.to_string(),
        };
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address))
            .map_err(|error| failed(&error))?;
        let mut clients = Vec::new();
        for _ in 0..self.connections {
            clients.push(endpoint.connect().await.map_err(|error| failed(&error))?);
        }
        let numbers = Arc::new(AtomicU64::new(0));
        let start = Instant::now();
        let end = start + Duration::from_secs(self.seconds);
        let mut running = JoinSet::new();
        for client in clients {
            running.spawn(put_until(
                end,
                Grpc::new(client),
                self.run,
                Arc::clone(&numbers),
            ));
        }
        let mut tally = Tally::new();
        while let Some(ended) = running.join_next().await {
            tally.add(&ended.map_err(|error| failed(&error))?);
        }
        Ok(tally.figures(start.elapsed()))
    }
}

/// One client.
async fn put_until(
    end: Instant,
    mut client: Grpc<Channel>,
    run: u64,
    numbers: Arc<AtomicU64>,
) -> Tally {
    let mut tally = Tally::new();
    loop {
        let start = Instant::now();
        if start >= end {
            return tally;
        }
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        let request = PutRequest {
            key: format!("order-{run:06}-{number:011}").into_bytes(),
            value: ORDER.as_bytes().to_vec(),
        };
        match put(&mut client, request).await {
            Ok(()) => tally.count(start.elapsed()),
            Err(_) => tally.refuse(),
        }
    }
}

async fn put(client: &mut Grpc<Channel>, request: PutRequest) -> Result<(), Status> {
    let ready = client.ready().await;
    ready.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
    let codec = ProstCodec::<PutRequest, PutResponse>::default();
    client.unary(request.into_request(), path, codec).await?;
    Ok(())
}
