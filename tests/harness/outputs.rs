//! Outputs that a process cannot write to.

use std::fs::File;
use std::io::{self, PipeReader, Write as _};
use std::process::Stdio;
use std::thread;

/// What is the matter with an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// Its disk is full.
    Full,
    /// It is a pipe whose reader is gone.
    ReaderGone,
    /// It is a pipe that is full, whose reader does not read.
    ReaderStandsStill,
    Closed,
}

/// Every kind of them.
pub const ALL_BROKEN: [Broken; 4] = [
    Broken::Full,
    Broken::ReaderGone,
    Broken::ReaderStandsStill,
    Broken::Closed,
];

impl Broken {
    /// For a process, and what must be kept for as long as it runs.
    ///
    /// # Panics
    /// Where it is to be closed, which is for a shell.
    pub fn open(self) -> (Stdio, Option<PipeReader>) {
        match self {
            Self::Full => {
                let full = File::options().write(true).open("/dev/full");
                (full.expect("Linux has /dev/full").into(), None)
            }
            Self::ReaderGone => {
                let (_, writer) = io::pipe().expect("there are pipes");
                (writer.into(), None)
            }
            Self::ReaderStandsStill => {
                let (reader, writer) = io::pipe().expect("there are pipes");
                let mut filler = writer.try_clone().expect("there are file descriptors");
                // Fills it, and waits for room until the reader is dropped.
                thread::spawn(move || while filler.write_all(&[b'x'; 4096]).is_ok() {});
                (writer.into(), Some(reader))
            }
            Self::Closed => panic!("a process is given no closed output"),
        }
    }
}
