//! Components that nobody would write: `wasm-smith` makes them of random bytes, from seeds.
//!
//! `BAZAAR_BOMBS_SEEDS` says how many; a failure names the seed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use arbitrary::Unstructured;
use fastrand::Rng;
use wasm_smith::{Component, Config, InstructionKind, InstructionKinds, Module};

use crate::harness::{Bazaar, Options, Raise, number};

use super::{GATEWAY, compilers, served};

/// Of what a component is made, in bytes: it is about as large.
const BYTES: usize = 256 << 10;

/// How often other bytes are tried.
const TRIES_MAX: u32 = 100;

/// What the gateway may keep of all of them, in KiB.
const KEPT_KIB_MAX: u64 = 32 << 10;

/// What is large in a component.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Functions, and the types and tables that they use.
    Functions,
    /// Blocks, loops and tables of branches, and the locals that change in them.
    Branches,
    /// Whatever a module may be, also with what wasmtime does not support.
    Anything,
    /// Types, instances and aliases of components.
    Nested,
}

const KINDS: [Kind; 4] = [
    Kind::Functions,
    Kind::Branches,
    Kind::Anything,
    Kind::Nested,
];

/// A component of a kind, always the same of the same seed.
fn generated(kind: Kind, seed: u64) -> Vec<u8> {
    let large = Config {
        min_types: 100,
        max_types: 1_000,
        min_funcs: 20,
        max_funcs: 1_000,
        max_instructions: 20_000,
        max_tables: 50,
        max_memories: 4,
        ..Config::default()
    };
    // What wasmtime takes as it is set up here: others are refused before they are compiled.
    let supported = Config {
        gc_enabled: false,
        reference_types_enabled: false,
        exceptions_enabled: false,
        threads_enabled: false,
        relaxed_simd_enabled: false,
        wide_arithmetic_enabled: false,
        compact_imports_enabled: false,
        max_imports: 0,
        ..large.clone()
    };
    let module = |config: Config| {
        let make = |bytes: &mut Unstructured<'_>| Module::new(config.clone(), bytes);
        of_module(&made(seed, make).to_bytes())
    };
    match kind {
        Kind::Functions => module(supported),
        Kind::Branches => {
            let kinds = [
                InstructionKind::Control,
                InstructionKind::Parametric,
                InstructionKind::Variable,
            ];
            module(Config {
                allowed_instructions: InstructionKinds::new(&kinds),
                ..supported
            })
        }
        Kind::Anything => module(large),
        Kind::Nested => {
            let make = |bytes: &mut Unstructured<'_>| Component::new(Config::default(), bytes);
            made(seed, make).to_bytes()
        }
    }
}

/// What is made of the first random bytes that will do: of some, nothing can be made.
fn made<T>(seed: u64, make: impl Fn(&mut Unstructured<'_>) -> arbitrary::Result<T>) -> T {
    let mut random = Rng::with_seed(seed);
    let mut bytes = vec![0; BYTES];
    let mut tries = (0..TRIES_MAX).filter_map(|_| {
        random.fill(&mut bytes);
        make(&mut Unstructured::new(&bytes)).ok()
    });
    tries.next().expect("most bytes will do")
}

/// A component that has a core module, and nothing else.
fn of_module(module: &[u8]) -> Vec<u8> {
    const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
    const CORE_MODULE_SECTION: u8 = 1;
    let mut component = [COMPONENT, &[CORE_MODULE_SECTION]].concat();
    // Its length in LEB128: seven bits a byte, and the eighth where more follow.
    let mut left = module.len();
    while left >= 0x80 {
        component.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    component.push(left as u8);
    component.extend_from_slice(module);
    component
}

#[test]
fn components_made_at_random_are_refused_and_clients_are_served_meanwhile() {
    let seeds = number("BAZAAR_BOMBS_SEEDS", 24);
    let mut bazaar = Bazaar::start(Options::default());
    served(&bazaar);
    let before = bazaar.server(GATEWAY).resident_kib();
    let over = AtomicBool::new(false);
    let (shared, over) = (&bazaar, &over);
    let (mut compiled, mut too_costly) = (0, 0);
    thread::scope(|scope| {
        let _raise = Raise(over);
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                served(shared);
                thread::sleep(Duration::from_millis(5));
            }
        });
        for seed in 0..seeds {
            let kind = KINDS[seed as usize % KINDS.len()];
            let answer = shared.admin("PUT", "/policy", &generated(kind, seed));
            let (code, message) = answer.error();
            assert_eq!(code, 422, "seed {seed}, {kind:?}: {message}");
            too_costly += u64::from(message.contains("too costly to compile"));
            compiled += u64::from(message.contains("does not export"));
        }
    });
    let more = bazaar.server(GATEWAY).resident_kib().saturating_sub(before);
    println!(
        "{seeds} components made at random: {compiled} were compiled, {too_costly} were too costly \
         to be, the others are none; the gateway has {more} KiB more"
    );
    assert!(compiled * 4 >= seeds, "{compiled} of {seeds} were compiled");
    assert!(more < KEPT_KIB_MAX, "{more} KiB more");
    assert!(compilers(&mut bazaar).is_empty());
}
