//! etcd's own protocol: `etcdserverpb.KV/Put` over gRPC, one HTTP/2 connection for each client, as
//! etcd's `benchmark put --conns N --clients N` has it, which Debian does not package.
//!
//! The parent runs it as a process of its own, `bench put`, so that it is kept on the same
//! processor as wrk would be, and can take no other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{IntoRequest, Status};
use tonic_prost::ProstCodec;

use super::Figures;
use crate::error::Error;

/// What is put: the same as over the JSON gateway.
const VALUE: &[u8] = br#"{"name":"nvidia","type":"sell","quantity":1} "#;

/// The longest latency that is told from longer ones, and how many digits of each are kept.
const LATENCY_US_MAX: u64 = 60_000_000;
const DIGITS: u8 = 3;

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
        let mut latencies = histogram();
        let mut refused = 0;
        while let Some(ended) = running.join_next().await {
            let (theirs, their_refused) = ended.map_err(|error| failed(&error))?;
            latencies.add(theirs).expect("both have the same bounds");
            refused += their_refused;
        }
        Ok(Figures {
            requests: latencies.len() + refused,
            duration_us: start.elapsed().as_micros() as u64,
            p50_us: latencies.value_at_quantile(0.50) as f64,
            p99_us: latencies.value_at_quantile(0.99) as f64,
            max_us: latencies.max() as f64,
            refused,
            broken: 0,
        })
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(LATENCY_US_MAX, DIGITS).expect("the bounds are within the histogram's")
}

/// One client: latencies of what was put, and how much was refused.
async fn put_until(
    end: Instant,
    mut client: Grpc<Channel>,
    run: u64,
    numbers: Arc<AtomicU64>,
) -> (Histogram<u64>, u64) {
    let (mut latencies, mut refused) = (histogram(), 0);
    loop {
        let start = Instant::now();
        if start >= end {
            return (latencies, refused);
        }
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        let request = PutRequest {
            key: format!("order-{run:06}-{number:011}").into_bytes(),
            value: VALUE.to_vec(),
        };
        match put(&mut client, request).await {
            Ok(()) => latencies.saturating_record(start.elapsed().as_micros() as u64),
            Err(_) => refused += 1,
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
