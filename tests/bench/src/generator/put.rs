//! etcd's own protocol: `etcdserverpb.KV/Put` over gRPC, one HTTP/2 connection for each client, as
//! etcd's `benchmark put --conns N --clients N` has it, which Debian does not package.
//!
//! The parent runs it as a process of its own, `bench put`, so that it is kept on the same
//! processor as wrk would be, and can take no other.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{IntoRequest, Status};
use tonic_prost::ProstCodec;

use super::clients::{Client, Clients};
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
    #[command(flatten)]
    pub clients: Clients,
    /// In every key, so that runs have keys of their own
    #[arg(long)]
    pub run: u64,
}

impl Puts {
    /// Drives the cluster from this thread.
    pub fn send(&self) -> Result<Figures, Error> {
        let url = format!("http://{}", self.clients.address);
        let numbers = Arc::new(AtomicU64::new(0));
        let connect = async |_: u32| {
            let endpoint = Endpoint::from_shared(url.clone()).map_err(io::Error::other)?;
            let channel = endpoint.connect().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>(Putter {
                etcd: Grpc::new(channel),
                run: self.run,
                numbers: Arc::clone(&numbers),
            })
        };
        self.clients.drive("put", connect)
    }
}

/// One client.
struct Putter {
    etcd: Grpc<Channel>,
    run: u64,
    /// Of all clients, for keys.
    numbers: Arc<AtomicU64>,
}

impl Client for Putter {
    async fn request(&mut self) -> io::Result<bool> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let request = PutRequest {
            key: format!("order-{:06}-{number:011}", self.run).into_bytes(),
            value: ORDER.as_bytes().to_vec(),
        };
        Ok(put(&mut self.etcd, request).await.is_ok())
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
