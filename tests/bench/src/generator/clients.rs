//! Clients of a generator of this crate, all in one thread: each has a connection of its own, and one request under way.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::Figures;
use super::tally::Tally;
use crate::error::Error;

/// What to drive, by how many, and for how long.
#[derive(Debug, Clone, clap::Args)]
pub struct Clients {
    /// A server of the cluster
    #[arg(long)]
    pub address: SocketAddr,
    /// How many clients, each with a connection of its own
    #[arg(long)]
    pub connections: u32,
    /// For how long
    #[arg(long)]
    pub seconds: u64,
}

/// One of them, which is connected.
pub trait Client: Send + 'static {
    /// Sends its next request, and waits for the answer: whether that is success. After an error there are no figures.
    fn request(&mut self) -> impl Future<Output = io::Result<bool>> + Send;
}

impl Clients {
    /// Connects all of them, and has them send requests from this thread until the time is over. The program's name is for errors.
    pub fn drive<C: Client>(
        &self,
        program: &str,
        connect: impl AsyncFn(u32) -> io::Result<C>,
    ) -> Result<Figures, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::machine("cannot start a runtime"))?;
        let figures = runtime.block_on(self.measure(connect));
        figures.map_err(|error| Error::Failed {
            program: program.to_owned(),
            output: error.to_string(),
        })
    }

    async fn measure<C: Client>(
        &self,
        connect: impl AsyncFn(u32) -> io::Result<C>,
    ) -> io::Result<Figures> {
        let mut clients = Vec::new();
        for number in 0..self.connections {
            clients.push(connect(number).await?);
        }
        let start = Instant::now();
        let end = start + Duration::from_secs(self.seconds);
        let mut running = JoinSet::new();
        for client in clients {
            running.spawn(request_until(end, client));
        }
        let mut tally = Tally::new();
        while let Some(ended) = running.join_next().await {
            tally.add(&ended.map_err(io::Error::other)??);
        }
        Ok(tally.figures(start.elapsed()))
    }
}

async fn request_until<C: Client>(end: Instant, mut client: C) -> io::Result<Tally> {
    let mut tally = Tally::new();
    loop {
        let start = Instant::now();
        if start >= end {
            return Ok(tally);
        }
        if client.request().await? {
            tally.count(start.elapsed());
        } else {
            tally.refuse();
        }
    }
}
