//! A process in a terminal of its own: what it draws, and what is typed.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use super::process::{in_session, signal_by_pid};
use super::wait::wait_until;

/// How long nobody reads at a time, where nobody does.
const NAP: Duration = Duration::from_millis(10);

/// What leads to the other screen, and back; and what shows the cursor.
const OTHER_SCREEN: &str = "\x1b[?1049h";
const FIRST_SCREEN: &str = "\x1b[?1049l";
const SHOWN_CURSOR: &str = "\x1b[?25h";

/// A terminal, and the process that has it. Killed when it is dropped.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    people: File,
    size: (u16, u16),
    written: Arc<Mutex<Vec<u8>>>,
    is_read: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Terminal {
    /// Starts `bazaar` in a terminal of so many columns and rows.
    pub fn start<S: AsRef<OsStr>>(
        size: (u16, u16),
        arguments: impl IntoIterator<Item = S>,
    ) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let people = openpt(flags).expect("there are pseudo-terminals");
        grantpt(&people).expect("it is this process's");
        unlockpt(&people).expect("it is this process's");
        let user = ioctl_tiocgptpeer(&people, flags).expect("it has another end");
        let end = || Stdio::from(user.try_clone().expect("there are file descriptors"));
        resize(&people, size);
        let child = in_session(arguments)
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .expect("the command under test starts");
        let people = File::from(people);
        let written = Arc::<Mutex<Vec<u8>>>::default();
        let is_read = Arc::new(AtomicBool::new(true));
        let reader = {
            let mut people = people.try_clone().expect("there are file descriptors");
            let (written, is_read) = (Arc::clone(&written), Arc::clone(&is_read));
            thread::spawn(move || read(&mut people, &written, &is_read))
        };
        Self {
            child,
            people,
            size,
            written,
            is_read,
            reader: Some(reader),
        }
    }

    /// What it has written, commands and all.
    pub fn written(&self) -> String {
        let written = self.written.lock().unwrap();
        String::from_utf8_lossy(&written).into_owned()
    }

    /// What is to be seen, a line each.
    pub fn screen(&self) -> String {
        screen(&self.written(), self.size)
    }

    pub fn wait_for(&self, text: &str) {
        wait_until(&format!("`{text}` on\n{}", self.screen()), || {
            self.screen().contains(text)
        });
    }

    /// As if somebody typed it.
    pub fn send(&mut self, keys: &str) {
        self.people.write_all(keys.as_bytes()).expect("it is open");
    }

    pub fn resize(&mut self, size: (u16, u16)) {
        resize(&self.people, size);
        self.size = size;
    }

    /// From now on it takes nothing any more, as one does that was stopped.
    pub fn stand_still(&self) {
        self.is_read.store(false, Ordering::Relaxed);
    }

    pub fn signal(&self, signal: Signal) {
        signal_by_pid(self.child.id(), signal);
    }

    /// Waits until the process has ended.
    pub fn wait(&mut self) -> ExitStatus {
        let child = &mut self.child;
        wait_until("the process in the terminal to end", || {
            child.try_wait().expect("it is a child").is_some()
        });
        // What it wrote last is read, too.
        self.is_read.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            reader.join().expect("it was read");
        }
        self.child.wait().expect("it is a child")
    }

    /// Whether lines are edited and seen as they are typed.
    pub fn is_line_wise(&self) -> bool {
        let modes = tcgetattr(&self.people)
            .expect("it is a terminal")
            .local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    /// Whether the other screen was taken.
    pub fn was_taken(&self) -> bool {
        self.written().contains(OTHER_SCREEN)
    }

    /// Whether the terminal was taken, and is as it was before.
    pub fn is_given_back(&self) -> bool {
        let written = self.written();
        let last = |command: &str| written.rfind(command);
        self.is_line_wise()
            && last(OTHER_SCREEN).is_some()
            && last(FIRST_SCREEN) > last(OTHER_SCREEN)
            && last(SHOWN_CURSOR) > last("\x1b[?25l")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        self.is_read.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            reader.join().ok();
        }
        if thread::panicking() {
            eprintln!("---- the terminal ----\n{}", self.screen());
        }
    }
}

fn resize(people: &impl std::os::fd::AsFd, (columns, rows): (u16, u16)) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(people, size).expect("it is a terminal");
}

/// Reads until nobody has the other end any more, which is an error.
fn read(people: &mut File, written: &Mutex<Vec<u8>>, is_read: &AtomicBool) {
    let mut bytes = [0; 4096];
    loop {
        if !is_read.load(Ordering::Relaxed) {
            thread::sleep(NAP);
            continue;
        }
        match people.read(&mut bytes) {
            Ok(0) => return,
            Ok(read) => written.lock().unwrap().extend_from_slice(&bytes[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// What a terminal makes of what is written: as much of it as is used here.
fn screen(written: &str, (columns, rows): (u16, u16)) -> String {
    let (columns, rows) = (usize::from(columns), usize::from(rows));
    let mut cells = vec![vec![' '; columns]; rows];
    let (mut row, mut column) = (0, 0);
    let mut chars = written.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\x1b' if chars.next_if_eq(&'[').is_some() => {
                let mut parameters = String::new();
                let last = loop {
                    match chars.next() {
                        Some(last @ '@'..='~') => break Some(last),
                        Some(char) => parameters.push(char),
                        None => break None,
                    }
                };
                let mut numbers = parameters
                    .split(';')
                    .map(|number| number.parse().unwrap_or(1));
                match last {
                    Some('H') => {
                        row = numbers.next().unwrap_or(1_usize).max(1) - 1;
                        column = numbers.next().unwrap_or(1).max(1) - 1;
                    }
                    Some('J') => cells.iter_mut().for_each(|row| row.fill(' ')),
                    _ => {}
                }
            }
            '\r' => column = 0,
            '\n' => row += 1,
            char => {
                if let Some(cell) = cells.get_mut(row).and_then(|row| row.get_mut(column)) {
                    *cell = char;
                }
                column += 1;
            }
        }
    }
    let lines = cells.iter().map(|row| row.iter().collect::<String>());
    let lines: Vec<_> = lines.map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}
