//! Ports that no other test has.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process;
use std::sync::atomic::{AtomicU16, Ordering};

/// Ports of one block.
const BLOCK: u16 = 32;

/// Blocks are taken from here on. All are below what Linux gives to outgoing connections, so
/// that the port of a killed process is still free when it comes back.
const FIRST: u16 = 16_000;
const BLOCKS: u16 = 500;

/// The block's last port is never listened on: holding it for UDP claims the block, also
/// against other processes that test.
const CLAIM: u16 = BLOCK - 1;

/// A block of ports, until it is dropped.
#[derive(Debug)]
pub struct Ports {
    first: u16,
    _claim: UdpSocket,
}

impl Ports {
    /// Claims a block in which every port is free.
    pub fn claim() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let offset = (process::id() % u32::from(BLOCKS)) as u16;
        for _ in 0..BLOCKS {
            let block = (offset + NEXT.fetch_add(1, Ordering::Relaxed) % BLOCKS) % BLOCKS;
            let first = FIRST + block * BLOCK;
            let Ok(claim) = UdpSocket::bind((Ipv4Addr::LOCALHOST, first + CLAIM)) else {
                continue;
            };
            if (first..first + CLAIM)
                .all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
            {
                return Self {
                    first,
                    _claim: claim,
                };
            }
        }
        panic!("no block of {BLOCK} free ports from {FIRST} on");
    }

    /// A loopback address with one of the block's ports.
    pub fn address(&self, index: u16) -> SocketAddr {
        assert!(index < CLAIM, "a block has {CLAIM} ports");
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.first + index))
    }
}
