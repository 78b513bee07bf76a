//! Compilation in a process of its own.
//!
//! A component of half a megabyte can keep a compiler busy for minutes and fill gigabytes. So a gateway
//! has a child compile it, which bounds itself before it reads a byte of it: processor time, memory,
//! wall time, and that it lives no longer than the gateway. Nothing of a compilation stays in the
//! gateway's memory but the code.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use daemon::tasks;
use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};

use wasmtime::Config;

use super::thread::{processor_time_of_all, run_when_idle, yield_to_others};
use crate::limits;

/// What a child ends with where its wall time is over.
const OUT_OF_TIME: u8 = 124;

/// What a child ends with that got too little of a processor.
const STARVED: u8 = 123;

/// A child that waits for idle processors for so long is started anew among those that share them.
const IDLE_TIME_MAX: Duration = Duration::from_secs(2);

/// Of that time it needs one part in so many on a processor, to go on as it is.
const IDLE_PART_MIN: u32 = 5;

/// What is read of a child's last words, in bytes.
const WORDS_BYTES_MAX: u64 = 4 << 10;

/// How a child is started.
#[derive(Debug, Clone)]
pub struct Compiler {
    program: PathBuf,
    args: Vec<OsString>,
}

/// Why there is no code of a component.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// It is not one, or has what is not supported.
    #[error("{0}")]
    Invalid(String),
    /// It takes more than a component of its size may.
    #[error("{0}")]
    TooCostly(String),
    /// The compiler could not be run.
    #[error(transparent)]
    NotRun(#[from] io::Error),
}

impl Compiler {
    /// A program that does [`compile_as_child`] when it is started with these arguments.
    pub fn new(program: PathBuf, args: impl IntoIterator<Item = OsString>) -> Self {
        Self {
            program,
            args: args.into_iter().collect(),
        }
    }

    /// Machine code of a component. It is compiled while processors are idle; where they are not for long, anew, by
    /// taking a share of them. Its bounds hold for each of the two.
    pub(super) fn compile(&self, component: &[u8]) -> Result<Vec<u8>, CompileError> {
        match self.compile_at(Pace::Idle, component)? {
            Some(code) => Ok(code),
            None => {
                let code = self.compile_at(Pace::Share, component)?;
                code.ok_or_else(|| io::Error::other("the compiler says that it starved").into())
            }
        }
    }

    /// `None` where it got too little of a processor.
    fn compile_at(&self, pace: Pace, component: &[u8]) -> Result<Option<Vec<u8>>, CompileError> {
        let mut child = Command::new(&self.program)
            .args(&self.args)
            .arg(component.len().to_string())
            .arg(pace.name())
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let (code, words) = talk(&mut child, component);
        let ended = child.wait()?;
        if ended.success() {
            return Ok(Some(code?));
        }
        if pace == Pace::Idle && ended.code() == Some(STARVED.into()) {
            return Ok(None);
        }
        Err(failure(ended, &words, component.len()))
    }
}

/// How much of a processor a compilation has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// What nobody else wants: others notice nothing of it.
    Idle,
    /// A share that is less than that of those that serve.
    Share,
}

impl Pace {
    /// As a command line has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Share => "share",
        }
    }
}

impl FromStr for Pace {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = [Self::Idle, Self::Share];
        let named = known.into_iter().find(|pace| pace.name() == name);
        named.ok_or_else(|| format!("no pace is called {name}"))
    }
}

/// Gives a child its component, and takes what it writes.
fn talk(child: &mut Child, component: &[u8]) -> (io::Result<Vec<u8>>, String) {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        // A child that ends early does not read all of it: how it ends says why.
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(component)));
        let words = scope.spawn(move || {
            let mut words = Vec::new();
            if let Some(mut stderr) = stderr {
                let _ = stderr
                    .by_ref()
                    .take(WORDS_BYTES_MAX)
                    .read_to_end(&mut words);
                let _ = io::copy(&mut stderr, &mut io::sink());
            }
            String::from_utf8_lossy(&words).into_owned()
        });
        let mut code = Vec::new();
        let read = match stdout {
            Some(stdout) => stdout
                .take(limits::COMPILED_BYTES_MAX)
                .read_to_end(&mut code)
                .map(|_| code),
            None => Ok(code),
        };
        (read, words.join().unwrap_or_default())
    })
}

/// What it means that a child ended so.
fn failure(ended: ExitStatus, words: &str, component_bytes: usize) -> CompileError {
    let bounds = Bounds::of(component_bytes);
    let signal = ended.signal().and_then(Signal::from_named_raw);
    let line = words.split_whitespace().collect::<Vec<_>>().join(" ");
    if ended.code() == Some(1) {
        CompileError::Invalid(line.trim_start_matches("bazaar: ").to_owned())
    } else if signal == Some(Signal::XCPU) || ended.code() == Some(OUT_OF_TIME.into()) {
        let seconds = bounds.processor_time.as_secs();
        CompileError::TooCostly(format!("more than {seconds} s of processor time"))
    } else if line.contains("memory allocation") || signal == Some(Signal::KILL) {
        let mib = bounds.memory_bytes >> 20;
        CompileError::TooCostly(format!("more than {mib} MiB of memory"))
    } else {
        CompileError::TooCostly(format!("it ended the compiler, {ended}: {line}"))
    }
}

/// What the compilation of a component may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bounds {
    processor_time: Duration,
    wall_time: Duration,
    memory_bytes: u64,
}

impl Bounds {
    fn of(component_bytes: usize) -> Self {
        let mib = (component_bytes as u64).div_ceil(1 << 20);
        let processor_time = limits::COMPILE_TIME_MIN + limits::COMPILE_TIME_PER_MIB * mib as u32;
        Self {
            processor_time,
            wall_time: processor_time * limits::COMPILE_WALL_TIMES,
            memory_bytes: limits::COMPILE_BYTES_MIN + limits::COMPILE_BYTES_PER_MIB * mib,
        }
    }

    /// Holds this process to them.
    fn impose(self, pace: Pace) -> io::Result<()> {
        let at_most = |limit: u64| Rlimit {
            current: Some(limit),
            maximum: Some(limit + 1),
        };
        // Whoever waits for the code ended, so nobody does.
        set_parent_process_death_signal(Some(Signal::KILL))?;
        setrlimit(Resource::Core, at_most(0))?;
        setrlimit(Resource::Data, at_most(self.memory_bytes))?;
        setrlimit(Resource::Cpu, at_most(self.processor_time.as_secs()))?;
        match pace {
            Pace::Idle => run_when_idle(),
            Pace::Share => yield_to_others(),
        }
        tasks::thread("compile-clock", move || {
            let mut left = self.wall_time;
            while pace == Pace::Idle && left > IDLE_TIME_MAX {
                let before = processor_time_of_all();
                thread::sleep(IDLE_TIME_MAX);
                left -= IDLE_TIME_MAX;
                if processor_time_of_all() - before < IDLE_TIME_MAX / IDLE_PART_MIN {
                    end(STARVED);
                }
            }
            thread::sleep(left);
            end(OUT_OF_TIME);
        })?;
        Ok(())
    }
}

fn end(status: u8) -> ! {
    #[expect(clippy::disallowed_methods, reason = "there is nothing in the log")]
    std::process::exit(status.into())
}

/// What a child does: bounds itself to what a component of that size may take, reads it from standard
/// input, and writes its code to standard output. To be called first thing in a process that does
/// nothing else, which says on standard error why there is no code, and ends with 1 then.
///
/// # Errors
/// Where there is no code.
pub fn compile_as_child(component_bytes: usize, pace: Pace) -> Result<(), CompileError> {
    Bounds::of(component_bytes).impose(pace)?;
    let mut component = Vec::new();
    let most = component_bytes as u64 + 1;
    io::stdin().lock().take(most).read_to_end(&mut component)?;
    if component.len() != component_bytes {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    let mut config = wasmtime_config();
    // The other processors are left to those that serve.
    config.parallel_compilation(false);
    let invalid = |error: wasmtime::Error| CompileError::Invalid(causes(&error));
    let engine = wasmtime::Engine::new(&config).map_err(invalid)?;
    let code = engine.precompile_component(&component).map_err(invalid)?;
    let mut stdout = io::stdout().lock();
    stdout.write_all(&code)?;
    stdout.flush()?;
    Ok(())
}

/// What code is compiled for, and by.
pub(super) fn wasmtime_config() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .max_wasm_stack(limits::STACK_BYTES_MAX);
    config
}

/// An error of wasmtime and what caused it, on one line.
pub(crate) fn causes(error: &wasmtime::Error) -> String {
    let chain: Vec<_> = error.chain().map(ToString::to_string).collect();
    let words = chain.join(": ");
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(raw: i32) -> ExitStatus {
        ExitStatus::from_raw(raw)
    }

    #[test]
    fn how_a_child_ended_says_what_is_wrong_with_a_component() {
        let exited = |code: i32| ended(code << 8);
        let of = |ended, words| failure(ended, words, 1 << 20);
        assert!(
            matches!(of(exited(1), "bad magic"), CompileError::Invalid(why) if why == "bad magic")
        );
        let too_costly = |ended, words| match of(ended, words) {
            CompileError::TooCostly(why) => why,
            other => panic!("{other:?}"),
        };
        for (status, words, why) in [
            (ended(Signal::XCPU.as_raw()), "", "13 s of processor time"),
            (exited(OUT_OF_TIME.into()), "", "13 s of processor time"),
            (
                ended(Signal::ABORT.as_raw()),
                "memory allocation of 8 bytes failed",
                "288 MiB of memory",
            ),
            (ended(Signal::KILL.as_raw()), "", "288 MiB of memory"),
            (ended(Signal::SEGV.as_raw()), "", "ended the compiler"),
        ] {
            let said = too_costly(status, words);
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn what_starved_is_compiled_anew_with_a_share() {
        let says = |script: &str| {
            let script = format!("cat >/dev/null; {script}");
            Compiler::new("/bin/sh".into(), ["-c".into(), script.into()]).compile(b"\0asm")
        };
        let starved = format!("[ $1 = idle ] && exit {STARVED}; printf code");
        assert_eq!(says(&starved).unwrap(), b"code");
        // Whoever has a share cannot have starved.
        assert!(matches!(
            says(&format!("exit {STARVED}")),
            Err(CompileError::TooCostly(_))
        ));
    }

    #[test]
    fn a_compiler_that_is_not_there_is_no_fault_of_the_component() {
        let compiler = Compiler::new("/nowhere/to/be/found".into(), []);
        assert!(matches!(
            compiler.compile(b"\0asm"),
            Err(CompileError::NotRun(_))
        ));
    }
}
