//! What no server can do for less: one thread, epoll, one read and one write for each request, whose answer is a constant. It does
//! not even look what is asked for.
//!
//! The parent runs it as a process of its own, `bench responder`.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;

use crate::error::Error;
use crate::origin::BODY;

/// How many connections are told of at a time.
const EVENTS: usize = 512;

/// The longest request.
const REQUEST_BYTES_MAX: usize = 4096;

/// Of all connections the listener has this number; the others have their places.
const LISTENER: u64 = u64::MAX;

/// Where it listens.
#[derive(Debug, Clone, clap::Args)]
pub struct Responder {
    #[arg(long)]
    pub listen: SocketAddr,
}

impl Responder {
    /// Serves until this process is ended.
    pub fn serve(&self) -> Result<(), Error> {
        let failed = || Error::machine("cannot serve as the responder");
        let listener = TcpListener::bind(self.listen).map_err(failed())?;
        let served = Server::of(listener).and_then(Server::run);
        served.map_err(failed())
    }
}

struct Server {
    listener: TcpListener,
    epoll: OwnedFd,
    /// By their numbers in events.
    connections: Vec<Option<TcpStream>>,
    /// Places in it that are empty.
    free: Vec<usize>,
    /// What has come last.
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Server {
    fn of(listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let number = EventData::new_u64(LISTENER);
        epoll::add(&epoll, &listener, number, EventFlags::IN)?;
        let length = BODY.len();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json";
        Ok(Self {
            listener,
            epoll,
            connections: Vec::new(),
            free: Vec::new(),
            request: vec![0; REQUEST_BYTES_MAX],
            answer: format!("{head}\r\ncontent-length: {length}\r\n\r\n{BODY}").into_bytes(),
        })
    }

    fn run(mut self) -> io::Result<()> {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS);
        loop {
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in events.drain(..) {
                let number = event.data;
                match number.u64() {
                    LISTENER => self.accept()?,
                    place => self.answer(place as usize),
                }
            }
        }
    }

    /// Takes all who wait.
    fn accept(&mut self) -> io::Result<()> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let place = self.free.pop().unwrap_or(self.connections.len());
            let number = EventData::new_u64(place as u64);
            epoll::add(&self.epoll, &stream, number, EventFlags::IN)?;
            match self.connections.get_mut(place) {
                Some(free) => *free = Some(stream),
                None => self.connections.push(Some(stream)),
            }
        }
    }

    /// Answers a request that has come as a whole; whoever sends anything else is cut off.
    fn answer(&mut self, place: usize) {
        let Some(stream) = &mut self.connections[place] else {
            return;
        };
        let is_answered = match stream.read(&mut self.request) {
            Ok(count) if self.request[..count].ends_with(b"\r\n\r\n") => {
                stream.write_all(&self.answer).is_ok()
            }
            _ => false,
        };
        if !is_answered {
            self.connections[place] = None;
            self.free.push(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::thread;

    use super::*;

    #[test]
    fn every_request_has_the_answer_that_all_are_compared_on() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || Server::of(listener).and_then(Server::run));
        for _ in 0..3 {
            let mut client = TcpStream::connect(address).unwrap();
            for _ in 0..2 {
                client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
                let mut answer = [0; 1024];
                let count = client.read(&mut answer).unwrap();
                assert!(answer[..count].ends_with(BODY.as_bytes()));
            }
            client.write_all(b"nonsense").unwrap();
            assert_eq!(client.read(&mut [0; 16]).unwrap(), 0);
        }
    }
}
