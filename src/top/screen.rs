//! The terminal: taken, drawn on, listened to, and given back on every way out.

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, IsTerminal as _};
use std::mem::ManuallyDrop;
use std::os::fd::AsFd as _;
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use daemon::tasks;
use ratatui_core::terminal::Terminal;
use ratatui_crossterm::CrosstermBackend;
use ratatui_crossterm::crossterm::cursor::{Hide, Show};
use ratatui_crossterm::crossterm::event::{
    self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers,
};
use ratatui_crossterm::crossterm::execute;
use ratatui_crossterm::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use rustix::io::Errno;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::draw::draw;
use super::model::{Extents, Key, Model};
use super::stream::{self, News, Stream};
use super::table::Palette;
use crate::admin::{Admin, AdminError};
use crate::error::Error;
use crate::stop::StopSignals;

/// How often it is drawn while nothing comes: ages are shown.
const REDRAWN_EVERY: Duration = Duration::from_secs(1);

/// Keys and news that wait to be seen to.
const WAITING_MAX: usize = 16;

/// How long a terminal that takes nothing may keep this process, once it was told to stop.
const STUCK_TIME_MAX: Duration = Duration::from_secs(2);

/// Whether the terminal is taken.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// Shows what comes until somebody wants no more of it.
///
/// # Errors
/// Where there is no terminal to take, or the gateway refuses to go on.
pub async fn show(admin: Admin, stream: Stream, palette: Palette) -> Result<(), Error> {
    let stopped = stop_signals()?;
    let mut screen = match Screen::take() {
        Ok(screen) => screen,
        Err(error) if is_gone(&error) => return Ok(()),
        Err(error) => return Err(Error::Terminal(error)),
    };
    let (told, news) = mpsc::channel(WAITING_MAX);
    let (pressed, keys) = mpsc::channel(WAITING_MAX);
    tasks::thread("keys", move || listen(&pressed)).map_err(Error::Runtime)?;
    let following = tasks::spawn_for_caller(stream::follow(admin, stream, told));
    let shown = screen.show(news, keys, stopped, palette).await;
    drop(screen);
    match shown {
        Ok(Ended::Wanted) => Ok(()),
        // How large one is that is gone, nobody can say.
        Err(error) if is_gone(&error) || !is_there() => Ok(()),
        Err(error) => Err(Error::Terminal(error)),
        Ok(Ended::NoMoreNews) => Err(refused(following.await)),
    }
}

/// Why the gateway is not followed any more.
fn refused(ended: Result<Option<AdminError>, tokio::task::JoinError>) -> Error {
    match ended {
        Ok(Some(error)) => error.into(),
        // It has panicked, which is in the log.
        Ok(None) | Err(_) => {
            Error::Runtime(io::Error::other("the gateway is not followed any more"))
        }
    }
}

/// Whether it says that the terminal is not there any more: nobody sees what would be said of that.
fn is_gone(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    error.kind() == ErrorKind::BrokenPipe || errno == Some(Errno::IO)
}

/// Tells of the first signal that asks to stop.
fn stop_signals() -> Result<oneshot::Receiver<()>, Error> {
    let mut signals = StopSignals::catch()?;
    let (stop, stopped) = oneshot::channel();
    tasks::spawn_for_caller(async move {
        signals.next().await;
        stop.send(()).ok();
        // A terminal that stands still takes nothing, and nothing else is done meanwhile.
        sleep(STUCK_TIME_MAX).await;
        if IS_TAKEN.load(Ordering::Relaxed) {
            disable_raw_mode().ok();
            daemon::fail();
        }
    });
    Ok(stopped)
}

/// Why it is over.
enum Ended {
    Wanted,
    NoMoreNews,
}

/// The terminal, while it is taken.
struct Screen {
    /// Never dropped: it would write to a screen that is given back, and panic where there is none any more.
    terminal: ManuallyDrop<Terminal<CrosstermBackend<BufWriter<File>>>>,
}

impl Screen {
    fn take() -> io::Result<Self> {
        give_back_in_panics();
        enable_raw_mode()?;
        IS_TAKEN.store(true, Ordering::Relaxed);
        Self::begin().inspect_err(|_| give_back())
    }

    fn begin() -> io::Result<Self> {
        let mut output = BufWriter::with_capacity(64 << 10, output()?);
        execute!(output, EnterAlternateScreen, Hide)?;
        let terminal = Terminal::new(CrosstermBackend::new(output))?;
        let mut screen = Self {
            terminal: ManuallyDrop::new(terminal),
        };
        screen.clear()?;
        Ok(screen)
    }

    /// Has all of it drawn anew. `Terminal::clear` would ask the terminal where its cursor is, and wait for an answer among the keys.
    fn clear(&mut self) -> io::Result<()> {
        let size = self.terminal.size()?;
        self.terminal.resize(size.into())
    }

    async fn show(
        &mut self,
        mut news: mpsc::Receiver<News>,
        mut keys: mpsc::Receiver<Pressed>,
        mut stopped: oneshot::Receiver<()>,
        palette: Palette,
    ) -> io::Result<Ended> {
        let mut model = Model::default();
        let mut ticks = interval(REDRAWN_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut extents = Extents::default();
            self.terminal.draw(|frame| {
                extents = draw(&model, Instant::now(), palette, frame.buffer_mut());
            })?;
            tokio::select! {
                _ = &mut stopped => return Ok(Ended::Wanted),
                pressed = keys.recv() => match pressed {
                    Some(Pressed::Key(key)) if model.press(key, &extents) => return Ok(Ended::Wanted),
                    Some(Pressed::Key(_) | Pressed::Resize) => {}
                    Some(Pressed::DrawAnew) => self.clear()?,
                    // Nobody can press anything any more.
                    None => return Ok(Ended::Wanted),
                },
                news = news.recv() => match news {
                    Some(news) => model.take(news, Instant::now()),
                    None => return Ok(Ended::NoMoreNews),
                },
                _ = ticks.tick() => {}
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Standard output, without the buffer and the lock of std's: whoever gives the terminal back in a panic must not wait for either.
fn output() -> io::Result<File> {
    let stdout = io::stdout();
    stdout.as_fd().try_clone_to_owned().map(File::from)
}

/// Gives the terminal back as it was, where it is taken.
fn give_back() {
    if IS_TAKEN.swap(false, Ordering::Relaxed) {
        if let Ok(mut output) = output() {
            execute!(output, LeaveAlternateScreen, Show).ok();
        }
        disable_raw_mode().ok();
    }
}

/// Before what a panic says is written, which would else be gone with the screen.
fn give_back_in_panics() {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        give_back();
        hook(panic);
    }));
}

/// Whether there are people to draw for.
pub fn is_there() -> bool {
    io::stdout().is_terminal()
}

// ---- keys ----

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pressed {
    Key(Key),
    DrawAnew,
    Resize,
}

/// Tells what is pressed until nobody listens, or nothing can be any more.
fn listen(to: &mpsc::Sender<Pressed>) {
    while let Ok(event) = event::read() {
        if let Some(pressed) = pressed(&event)
            && to.blocking_send(pressed).is_err()
        {
            return;
        }
    }
}

fn pressed(event: &Event) -> Option<Pressed> {
    let key = match event {
        Event::Resize(..) => return Some(Pressed::Resize),
        Event::Key(key) if key.kind != KeyEventKind::Release => key,
        _ => return None,
    };
    if *key == KeyEvent::new(KeyCode::Char('l'), KeyModifiers::CONTROL) {
        return Some(Pressed::DrawAnew);
    }
    self::key(key).map(Pressed::Key)
}

fn key(event: &KeyEvent) -> Option<Key> {
    if event.modifiers.contains(KeyModifiers::CONTROL) {
        return match event.code {
            KeyCode::Char('c' | 'd') => Some(Key::Quit),
            _ => None,
        };
    }
    Some(match event.code {
        KeyCode::Char('q') => Key::Quit,
        KeyCode::Esc => Key::Escape,
        KeyCode::Char('?' | 'h') => Key::Help,
        KeyCode::Tab => Key::Next,
        KeyCode::BackTab => Key::Previous,
        KeyCode::Up | KeyCode::Char('k') => Key::Up,
        KeyCode::Down | KeyCode::Char('j') => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown | KeyCode::Char(' ') => Key::PageDown,
        KeyCode::Home | KeyCode::Char('g') => Key::Top,
        KeyCode::End | KeyCode::Char('G') => Key::Bottom,
        KeyCode::Char('s') => Key::Sort,
        KeyCode::Char('t') => Key::Period,
        KeyCode::Char('p') => Key::Pause,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_do_what_the_help_says() {
        let press = |code, modifiers| pressed(&Event::Key(KeyEvent::new(code, modifiers)));
        let (none, control) = (KeyModifiers::NONE, KeyModifiers::CONTROL);
        for (code, modifiers, expected) in [
            (KeyCode::Char('q'), none, Some(Pressed::Key(Key::Quit))),
            (KeyCode::Char('c'), control, Some(Pressed::Key(Key::Quit))),
            (KeyCode::Char('c'), none, None),
            (KeyCode::Char('l'), control, Some(Pressed::DrawAnew)),
            (KeyCode::Char('q'), control, None),
            (KeyCode::Esc, none, Some(Pressed::Key(Key::Escape))),
            (
                KeyCode::Char('G'),
                KeyModifiers::SHIFT,
                Some(Pressed::Key(Key::Bottom)),
            ),
            (
                KeyCode::BackTab,
                KeyModifiers::SHIFT,
                Some(Pressed::Key(Key::Previous)),
            ),
        ] {
            assert_eq!(press(code, modifiers), expected, "{code:?}");
        }
        assert_eq!(pressed(&Event::Resize(1, 1)), Some(Pressed::Resize));
        assert_eq!(pressed(&Event::FocusGained), None);
    }

    /// Says in the environment of a process started by a test that it is to panic.
    const PANICS: &str = "PANICS_ON_SCREEN";

    #[test]
    fn a_panic_gives_the_terminal_back_before_it_is_said() {
        if std::env::var_os(PANICS).is_some() {
            IS_TAKEN.store(true, Ordering::Relaxed);
            give_back_in_panics();
            panic!("as it was told");
        }
        let test = "top::screen::tests::a_panic_gives_the_terminal_back_before_it_is_said";
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(PANICS, "1")
            .output()
            .unwrap();
        let written = String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success(), "{written}");
        assert!(written.contains("\x1b[?1049l\x1b[?25h"), "{written:?}");
    }

    #[test]
    fn a_terminal_that_is_gone_is_told_from_one_that_fails() {
        for (error, is) in [
            (io::Error::from(ErrorKind::BrokenPipe), true),
            (io::Error::from(Errno::IO), true),
            (io::Error::from(Errno::NOSPC), false),
            (io::Error::other("any"), false),
        ] {
            assert_eq!(is_gone(&error), is, "{error}");
        }
    }
}
