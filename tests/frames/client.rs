//! A client that says and does frame by frame what a test wants.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::frames::{
    ACK, DATA, Frame, PING, SETTINGS, WINDOW_UPDATE, frame, opening, stream, take_frame,
};

/// Longest wait for what should take a few seconds, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How soon something is looked at again.
pub const PAUSE: Duration = Duration::from_millis(100);

/// What a piece of a body has here.
pub const PIECE: usize = 10_000;

/// One connection of a client.
pub struct Client {
    socket: TcpStream,
    read: Vec<u8>,
    /// Frames that came while it was sending.
    kept: VecDeque<Frame>,
    /// How much of bodies it may send.
    window: usize,
}

impl Client {
    /// One that takes so much of an answer before it says more.
    pub async fn open(gateway: SocketAddr, window: Option<u32>) -> Self {
        let mut client = Self {
            socket: TcpStream::connect(gateway).await.unwrap(),
            read: Vec::new(),
            kept: VecDeque::new(),
            window: 65_535,
        };
        client.send(&opening(window)).await;
        client
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        assert!(self.can_send(bytes).await, "the connection is open");
    }

    /// Sends where the connection has not ended.
    pub async fn can_send(&mut self, bytes: &[u8]) -> bool {
        self.socket.write_all(bytes).await.is_ok()
    }

    /// Sends a piece of a body, once its window has room for it; returns whether it had in time.
    pub async fn send_piece(&mut self, number: usize, time_max: Duration) -> bool {
        let room = async {
            while self.window < PIECE {
                let received = self.receive().await.expect("the connection is open");
                self.kept.push_back(received);
            }
        };
        if timeout(time_max, room).await.is_err() {
            return false;
        }
        self.window -= PIECE;
        let piece = frame(DATA, 0, stream(number), &[b'x'; PIECE]);
        self.send(&piece).await;
        true
    }

    /// The next frame, or none once the connection has ended.
    pub async fn next(&mut self) -> Option<Frame> {
        match self.kept.pop_front() {
            Some(kept) => Some(kept),
            None => self.receive().await,
        }
    }

    /// Acknowledges settings and pings.
    pub async fn receive(&mut self) -> Option<Frame> {
        loop {
            if let Some(received) = take_frame(&mut self.read) {
                match (received.kind, received.stream) {
                    (SETTINGS | PING, _) if received.flags & ACK == 0 => {
                        let payload = match received.kind {
                            PING => &received.payload[..],
                            _ => &[],
                        };
                        let answer = frame(received.kind, ACK, 0, payload);
                        let _ = self.socket.write_all(&answer).await;
                    }
                    (WINDOW_UPDATE, 0) => {
                        let more = received.payload[..].try_into().expect("4 bytes");
                        self.window += u32::from_be_bytes(more) as usize;
                    }
                    _ => {}
                }
                return Some(received);
            }
            let read = timeout(PATIENCE, self.socket.read_buf(&mut self.read)).await;
            match read.expect("there is something to read") {
                Ok(1..) => {}
                Ok(0) | Err(_) => return None,
            }
        }
    }

    /// Reads on until there is such a frame.
    pub async fn until(&mut self, wanted: impl Fn(&Frame) -> bool) -> Frame {
        loop {
            let next = self.next().await;
            let frame = next.expect("the connection is open");
            if wanted(&frame) {
                return frame;
            }
        }
    }

    /// Pings until the connection has ended; returns what came before that.
    pub async fn ping_to_the_end(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        loop {
            let ping = frame(PING, 0, 0, &[7; 8]);
            let _ = self.socket.write_all(&ping).await;
            // Answers to pings among it.
            while let Ok(next) = timeout(PAUSE, self.next()).await {
                match next {
                    Some(frame) => frames.push(frame),
                    None => return frames,
                }
            }
        }
    }
}
