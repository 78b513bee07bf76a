//! What a policy finds of WASI 0.2: all of the standard interfaces, with nothing in them.
//!
//! Any toolchain's component links (CPython's asks for files and sockets), and finds no file,
//! no socket, no argument and no environment. Clocks stand still during a decision and
//! randomness comes from a seed, so a decision can be replayed. Output goes to the log,
//! bounded. No call blocks: sleeping ends at once. (wasmtime-wasi's synchronous functions
//! block on tokio and panic when a worker of tokio calls them, which is where decisions are
//! made.) What is not defined here traps when it is called; no honest guest gets that far,
//! because every such function needs a file or a socket.

use wasmtime::component::{
    Component, Linker, LinkerInstance, Resource, ResourceType, Val, WasmList,
};
use wasmtime::{Result, StoreContextMut, bail};

use self::abi::StreamError;
use super::written::Written;
use crate::limits;

/// The interfaces that a component may import, at any version 0.2.
const GRANTED: [&str; 27] = [
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
    "wasi:sockets/instance-network",
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/network",
    "wasi:sockets/tcp",
    "wasi:sockets/tcp-create-socket",
    "wasi:sockets/udp",
    "wasi:sockets/udp-create-socket",
];

/// The types of the policy world: an import without functions.
const POLICY_TYPES: &str = "bazaar:policy/types";

/// The state behind one instance's imports.
pub(crate) struct Wasi {
    now_ms: u64,
    random: fastrand::Rng,
    output: Vec<u8>,
    output_dropped: usize,
    calls: u32,
    handles: u32,
}

impl Wasi {
    /// Of an instance that has not decided anything yet.
    pub(crate) fn new() -> Self {
        Self {
            now_ms: 0,
            random: fastrand::Rng::with_seed(0),
            output: Vec::new(),
            output_dropped: 0,
            calls: 0,
            handles: 0,
        }
    }

    /// Sets clock and randomness for one decision.
    pub(crate) fn begin(&mut self, now_ms: u64, seed: u64) {
        self.now_ms = now_ms;
        self.random.seed(seed);
        self.calls = 0;
    }

    /// What was written since the last call.
    pub(crate) fn take_output(&mut self) -> Option<Written> {
        if self.output.is_empty() {
            return None;
        }
        let output = std::mem::take(&mut self.output);
        Some(Written::new(
            &output,
            std::mem::take(&mut self.output_dropped),
        ))
    }

    /// Whether the instance had so many handles that it should be replaced.
    pub(crate) fn is_worn(&self) -> bool {
        self.handles >= limits::HANDLES_MAX / 2
    }

    fn count_call(&mut self) -> Result<()> {
        self.calls += 1;
        if self.calls > limits::HOST_CALLS_MAX {
            bail!(
                "more than {} calls out of the sandbox in one decision",
                limits::HOST_CALLS_MAX
            );
        }
        Ok(())
    }

    fn count_handle(&mut self) -> Result<()> {
        self.count_call()?;
        self.handles += 1;
        if self.handles > limits::HANDLES_MAX {
            bail!(
                "more than {} handles in the life of one instance",
                limits::HANDLES_MAX
            );
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) {
        let room = limits::OUTPUT_BYTES_MAX - self.output.len();
        let kept = bytes.len().min(room);
        self.output.extend_from_slice(&bytes[..kept]);
        self.output_dropped += bytes.len() - kept;
    }

    fn random_bytes(&mut self, count: u64) -> Result<Vec<u8>> {
        if count > limits::RANDOM_BYTES_MAX {
            bail!(
                "{count} random bytes asked for; {} are allowed",
                limits::RANDOM_BYTES_MAX
            );
        }
        let mut bytes = vec![0; count as usize];
        self.random.fill(&mut bytes);
        Ok(bytes)
    }
}

/// A store's data that has a [`Wasi`] in it.
pub(crate) trait HasWasi: 'static {
    fn wasi(&mut self) -> &mut Wasi;
}

/// An import that is not granted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it imports `{0}`, which a policy is not given: only WASI 0.2's cli, clocks, filesystem, io, random and sockets are there, with nothing in them"
)]
pub struct NotGranted(pub String);

// What handles stand for. None of them has any state of its own.
struct InputStream;
struct OutputStream;
struct Pollable;
struct IoError;
struct TerminalInput;
struct TerminalOutput;
struct Descriptor;
struct Network;

/// The one handle that there is of each kind.
const REP: u32 = 1;

/// The interface that an import names, where a policy is given it.
fn granted(name: &str) -> Option<&str> {
    let (interface, version) = name.split_once('@').unwrap_or((name, ""));
    let granted = GRANTED.contains(&interface) && version.starts_with("0.2.");
    (granted || interface == POLICY_TYPES).then_some(interface)
}

/// The imports of a component that are not granted.
pub(crate) fn not_granted(component: &Component) -> impl Iterator<Item = NotGranted> {
    let engine = component.engine();
    let imports = component.component_type();
    let names: Vec<_> = imports
        .imports(engine)
        .filter(|(name, _)| granted(name).is_none())
        .map(|(name, _)| NotGranted(name.to_owned()))
        .collect();
    names.into_iter()
}

/// Defines every import of a component, under the names it uses. All must be granted.
pub(crate) fn link<T: HasWasi>(linker: &mut Linker<T>, component: &Component) -> Result<()> {
    for (name, _) in component.component_type().imports(component.engine()) {
        match granted(name) {
            None => bail!("`{name}` is not granted"),
            Some(POLICY_TYPES) => {}
            Some(interface) => define(&mut linker.instance(name)?, interface)?,
        }
    }
    linker.define_unknown_imports_as_traps(component)
}

fn define<T: HasWasi>(instance: &mut LinkerInstance<'_, T>, interface: &str) -> Result<()> {
    resources(instance)?;
    match interface {
        "wasi:cli/environment" => environment(instance),
        "wasi:cli/exit" => exit(instance),
        "wasi:cli/stdin" => handle::<T, InputStream>(instance, "get-stdin"),
        "wasi:cli/stdout" => handle::<T, OutputStream>(instance, "get-stdout"),
        "wasi:cli/stderr" => handle::<T, OutputStream>(instance, "get-stderr"),
        "wasi:cli/terminal-stdin" => no_handle::<T, TerminalInput>(instance, "get-terminal-stdin"),
        "wasi:cli/terminal-stdout" => {
            no_handle::<T, TerminalOutput>(instance, "get-terminal-stdout")
        }
        "wasi:cli/terminal-stderr" => {
            no_handle::<T, TerminalOutput>(instance, "get-terminal-stderr")
        }
        "wasi:clocks/monotonic-clock" => monotonic_clock(instance),
        "wasi:clocks/wall-clock" => wall_clock(instance),
        "wasi:filesystem/preopens" => preopens(instance),
        "wasi:io/poll" => poll(instance),
        "wasi:io/streams" => streams(instance),
        "wasi:random/random" => random(instance, "get-random-bytes", "get-random-u64"),
        "wasi:random/insecure" => random(
            instance,
            "get-insecure-random-bytes",
            "get-insecure-random-u64",
        ),
        "wasi:random/insecure-seed" => insecure_seed(instance),
        "wasi:sockets/instance-network" => handle::<T, Network>(instance, "instance-network"),
        "wasi:sockets/ip-name-lookup" => denied(instance, "resolve-addresses"),
        "wasi:sockets/tcp-create-socket" => denied(instance, "create-tcp-socket"),
        "wasi:sockets/udp-create-socket" => denied(instance, "create-udp-socket"),
        _ => Ok(()),
    }
}

/// The types of all handles that are given. Every interface gets them: those that use a type of
/// another interface import it again, under the same name.
fn resources<T: HasWasi>(instance: &mut LinkerInstance<'_, T>) -> Result<()> {
    let types = [
        ("descriptor", ResourceType::host::<Descriptor>()),
        ("error", ResourceType::host::<IoError>()),
        ("input-stream", ResourceType::host::<InputStream>()),
        ("network", ResourceType::host::<Network>()),
        ("output-stream", ResourceType::host::<OutputStream>()),
        ("pollable", ResourceType::host::<Pollable>()),
        ("terminal-input", ResourceType::host::<TerminalInput>()),
        ("terminal-output", ResourceType::host::<TerminalOutput>()),
    ];
    for (name, resource) in types {
        instance.resource(name, resource, |_, _| Ok(()))?;
    }
    Ok(())
}

/// A function that gives a handle.
fn handle<T: HasWasi, R: 'static>(instance: &mut LinkerInstance<'_, T>, name: &str) -> Result<()> {
    instance.func_wrap(name, |mut store: StoreContextMut<'_, T>, (): ()| {
        store.data_mut().wasi().count_handle()?;
        Ok((Resource::<R>::new_own(REP),))
    })
}

/// A function that might give a handle, and does not.
fn no_handle<T: HasWasi, R: 'static>(
    instance: &mut LinkerInstance<'_, T>,
    name: &str,
) -> Result<()> {
    instance.func_wrap(name, |mut store: StoreContextMut<'_, T>, (): ()| {
        store.data_mut().wasi().count_call()?;
        Ok((None::<Resource<R>>,))
    })
}

/// A function of the sockets that answers `access-denied`.
fn denied<T: HasWasi>(instance: &mut LinkerInstance<'_, T>, name: &str) -> Result<()> {
    instance.func_new(name, |mut store: StoreContextMut<'_, T>, _, _, results| {
        store.data_mut().wasi().count_call()?;
        // The type is as the component declares it, and need not be WASI's.
        let Some(result) = results.first_mut() else {
            bail!("a function of the sockets was imported without its result");
        };
        *result = Val::Result(Err(Some(Box::new(Val::Enum("access-denied".into())))));
        Ok(())
    })
}

fn environment<T: HasWasi>(instance: &mut LinkerInstance<'_, T>) -> Result<()> {
    instance.func_wrap(
        "get-environment",
        |mut store: StoreContextMut<'_, T>, (): ()| {
            store.data_mut().wasi().count_call()?;
            Ok((Vec::<(String, String)>::new(),))
        },
    )?;
    instance.func_wrap(
        "get-arguments",
        |mut store: StoreContextMut<'_, T>, (): ()| {
            store.data_mut().wasi().count_call()?;
            Ok((Vec::<String>::new(),))
        },
    )?;
    instance.func_wrap(
        "initial-cwd",
        |mut store: StoreContextMut<'_, T>, (): ()| {
            store.data_mut().wasi().count_call()?;
            Ok((None::<String>,))
        },
    )
}

fn exit<T: HasWasi>(instance: &mut LinkerInstance<'_, T>) -> Result<()> {
    instance.func_wrap(
        "exit",
        |_: StoreContextMut<'_, T>, (_,): (Result<(), ()>,)| -> Result<()> {
            bail!("the policy called exit")
        },
    )
}

fn preopens<T: HasWasi>(instance: &mut LinkerInstance<'_, T>) -> Result<()> {
    instance.func_wrap(
        "get-directories",
        |mut store: StoreContextMut<'_, T>, (): ()| {
            store.data_mut().wasi().count_call()?;
            Ok((Vec::<(Resource<Descriptor>, String)>::new(),))
        },
    )
}

const NANOS_PER_MS: u64 = 1_000_000;

fn monotonic_clock<T: HasWasi>(instance: &mut LinkerInstance<'_, T>) -> Result<()> {
    instance.func_wrap("now", |mut store: StoreContextMut<'_, T>, (): ()| {
        let wasi = store.data_mut().wasi();
        wasi.count_call()?;
        Ok((wasi.now_ms.saturating_mul(NANOS_PER_MS),))
    })?;
    instance.func_wrap("resolution", |mut store: StoreContextMut<'_, T>, (): ()| {
        store.data_mut().wasi().count_call()?;
        Ok((NANOS_PER_MS,))
    })?;
    for name in ["subscribe-instant", "subscribe-duration"] {
        instance.func_wrap(name, |mut store: StoreContextMut<'_, T>, (_,): (u64,)| {
            store.data_mut().wasi().count_handle()?;
            Ok((Resource::<Pollable>::new_own(REP),))
        })?;
    }
    Ok(())
}

fn wall_clock<T: HasWasi>(instance: &mut LinkerInstance<'_, T>) -> Result<()> {
    instance.func_wrap("now", |mut store: StoreContextMut<'_, T>, (): ()| {
        let wasi = store.data_mut().wasi();
        wasi.count_call()?;
        Ok((abi::Datetime {
            seconds: wasi.now_ms / 1000,
            nanoseconds: (wasi.now_ms % 1000 * NANOS_PER_MS) as u32,
        },))
    })?;
    instance.func_wrap("resolution", |mut store: StoreContextMut<'_, T>, (): ()| {
        store.data_mut().wasi().count_call()?;
        Ok((abi::Datetime {
            seconds: 0,
            nanoseconds: NANOS_PER_MS as u32,
        },))
    })
}

fn random<T: HasWasi>(
    instance: &mut LinkerInstance<'_, T>,
    bytes: &str,
    number: &str,
) -> Result<()> {
    instance.func_wrap(
        bytes,
        |mut store: StoreContextMut<'_, T>, (count,): (u64,)| {
            let wasi = store.data_mut().wasi();
            wasi.count_call()?;
            Ok((wasi.random_bytes(count)?,))
        },
    )?;
    instance.func_wrap(number, |mut store: StoreContextMut<'_, T>, (): ()| {
        let wasi = store.data_mut().wasi();
        wasi.count_call()?;
        Ok((wasi.random.u64(..),))
    })
}

fn insecure_seed<T: HasWasi>(instance: &mut LinkerInstance<'_, T>) -> Result<()> {
    instance.func_wrap(
        "insecure-seed",
        |mut store: StoreContextMut<'_, T>, (): ()| {
            let wasi = store.data_mut().wasi();
            wasi.count_call()?;
            Ok(((wasi.random.u64(..), wasi.random.u64(..)),))
        },
    )
}

/// Everything is ready always: there is nothing to wait for.
fn poll<T: HasWasi>(instance: &mut LinkerInstance<'_, T>) -> Result<()> {
    instance.func_wrap(
        "[method]pollable.ready",
        |mut store: StoreContextMut<'_, T>, (_,): (Resource<Pollable>,)| {
            store.data_mut().wasi().count_call()?;
            Ok((true,))
        },
    )?;
    instance.func_wrap(
        "[method]pollable.block",
        |mut store: StoreContextMut<'_, T>, (_,): (Resource<Pollable>,)| {
            store.data_mut().wasi().count_call()
        },
    )?;
    instance.func_wrap(
        "poll",
        |mut store: StoreContextMut<'_, T>, (polled,): (WasmList<Resource<Pollable>>,)| {
            store.data_mut().wasi().count_call()?;
            let count = polled.len();
            if count > limits::HOST_CALLS_MAX as usize {
                bail!("{count} handles polled at once");
            }
            Ok(((0..count as u32).collect::<Vec<_>>(),))
        },
    )
}

fn streams<T: HasWasi>(instance: &mut LinkerInstance<'_, T>) -> Result<()> {
    input(instance)?;
    output(instance)?;
    subscribe::<T, InputStream>(instance, "[method]input-stream.subscribe")?;
    subscribe::<T, OutputStream>(instance, "[method]output-stream.subscribe")
}

fn subscribe<T: HasWasi, R: 'static>(
    instance: &mut LinkerInstance<'_, T>,
    name: &str,
) -> Result<()> {
    instance.func_wrap(
        name,
        |mut store: StoreContextMut<'_, T>, (_,): (Resource<R>,)| {
            store.data_mut().wasi().count_handle()?;
            Ok((Resource::<Pollable>::new_own(REP),))
        },
    )
}

/// Standard input is at its end.
fn input<T: HasWasi>(instance: &mut LinkerInstance<'_, T>) -> Result<()> {
    for name in [
        "[method]input-stream.read",
        "[method]input-stream.blocking-read",
    ] {
        instance.func_wrap(
            name,
            |mut store: StoreContextMut<'_, T>, (_, _): (Resource<InputStream>, u64)| {
                store.data_mut().wasi().count_call()?;
                Ok((Err::<Vec<u8>, _>(StreamError::Closed),))
            },
        )?;
    }
    for name in [
        "[method]input-stream.skip",
        "[method]input-stream.blocking-skip",
    ] {
        instance.func_wrap(
            name,
            |mut store: StoreContextMut<'_, T>, (_, _): (Resource<InputStream>, u64)| {
                store.data_mut().wasi().count_call()?;
                Ok((Err::<u64, _>(StreamError::Closed),))
            },
        )?;
    }
    Ok(())
}

/// Standard output and standard error take everything and keep the beginning.
fn output<T: HasWasi>(instance: &mut LinkerInstance<'_, T>) -> Result<()> {
    instance.func_wrap(
        "[method]output-stream.check-write",
        |mut store: StoreContextMut<'_, T>, (_,): (Resource<OutputStream>,)| {
            store.data_mut().wasi().count_call()?;
            Ok((Ok::<_, StreamError>(limits::OUTPUT_BYTES_MAX as u64),))
        },
    )?;
    for name in [
        "[method]output-stream.write",
        "[method]output-stream.blocking-write-and-flush",
    ] {
        instance.func_wrap(
            name,
            |mut store: StoreContextMut<'_, T>,
             (_, bytes): (Resource<OutputStream>, WasmList<u8>)| {
                store.data_mut().wasi().count_call()?;
                let kept = bytes.as_le_slice(&store);
                let length = kept.len();
                let kept = kept[..length.min(limits::OUTPUT_BYTES_MAX)].to_vec();
                let wasi = store.data_mut().wasi();
                wasi.output_dropped += length - kept.len();
                wasi.write(&kept);
                Ok((Ok::<_, StreamError>(()),))
            },
        )?;
    }
    for name in [
        "[method]output-stream.flush",
        "[method]output-stream.blocking-flush",
    ] {
        instance.func_wrap(
            name,
            |mut store: StoreContextMut<'_, T>, (_,): (Resource<OutputStream>,)| {
                store.data_mut().wasi().count_call()?;
                Ok((Ok::<_, StreamError>(()),))
            },
        )?;
    }
    Ok(())
}

/// Values that cross the boundary and have a type of their own in WASI.
#[allow(unsafe_code, reason = "derived")]
mod abi {
    use wasmtime::component::{ComponentType, Lower, Resource};

    #[derive(ComponentType, Lower)]
    #[component(variant)]
    pub(super) enum StreamError {
        #[component(name = "last-operation-failed")]
        #[expect(dead_code, reason = "no operation fails")]
        LastOperationFailed(Resource<super::IoError>),
        #[component(name = "closed")]
        Closed,
    }

    #[derive(ComponentType, Lower)]
    #[component(record)]
    pub(super) struct Datetime {
        pub(super) seconds: u64,
        pub(super) nanoseconds: u32,
    }
}
