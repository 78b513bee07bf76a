//! What a compile bomb costs clients while it is compiled, and what clients cost a push: measured.
//!
//! Clients ask through stretches of time in which nothing is compiled, such in which a bomb is, and such in which
//! a process of the compiler's scheduling class only counts, by turns: so what a busy machine does to the one, it does to
//! the others, and what the last one costs is what *any* work costs there that takes no more than idle processors. `make bombs`
//! measures at full size, in a release build: `BAZAAR_BOMBS_PAIRS` stretches of each kind, of `BAZAAR_BOMBS_MS` each; p99
//! while a bomb is compiled at most `BAZAAR_BOMBS_P99_PERCENT` per cent of what it is without, where
//! that is given.

use std::env;
use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{
    Bazaar, Latencies, Options, Spread, alone, bombs, example, number, signal_by_pid, wait_until,
};

use super::clients::{Asked, Clients, Crowd};
use super::{compilers, pushing};

/// Without a pause: more than the gateway can serve at once.
const AT_FULL_SPEED: [Crowd; 2] = [
    Crowd {
        asked: Asked::Lookups,
        connections: 64,
        rate: None,
    },
    Crowd {
        asked: Asked::Trades,
        connections: 4,
        rate: None,
    },
];

/// Of what is looked up at full speed, what is where the machine is not busy; and trades in a second.
const MODERATE: f64 = 0.3;
const MODERATE_TRADES: f64 = 200.0;

/// Stretches that follow each other: steady, with a bomb, beside a process that only counts.
const KINDS: usize = 3;

/// How large a measurement is.
struct Size {
    /// Stretches of each kind.
    pairs: usize,
    stretch: Duration,
}

impl Size {
    fn from_env() -> Self {
        Self {
            pairs: number("BAZAAR_BOMBS_PAIRS", 1) as usize,
            stretch: Duration::from_millis(number("BAZAAR_BOMBS_MS", 300)),
        }
    }
}

#[test]
fn clients_are_served_while_a_bomb_is_compiled_and_its_cost_is_measured() {
    let _alone = alone();
    let size = Size::from_env();
    let mut bazaar = Bazaar::start(Options::default());
    let bomb = bombs::time_bomb();
    let full = Figures::of(&mut bazaar, AT_FULL_SPEED, &bomb, &size);
    let rate = (MODERATE * full.lookups_a_second(size.stretch)).max(1.0);
    let moderate = [
        Crowd {
            asked: Asked::Lookups,
            connections: 16,
            rate: Some(rate),
        },
        Crowd {
            asked: Asked::Trades,
            connections: 4,
            rate: Some(MODERATE_TRADES),
        },
    ];
    let name = format!("at {rate:.0} lookups/s and {MODERATE_TRADES:.0} trades/s");
    let moderate = Figures::of(&mut bazaar, moderate, &bomb, &size);
    let percents = [full.print("at full speed"), moderate.print(&name)].concat();
    if let Ok(most) = env::var("BAZAAR_BOMBS_P99_PERCENT") {
        let most: f64 = most.parse().expect("a number of per cent");
        assert!(percents.iter().all(|it| *it <= most), "{percents:?}");
    }
}

/// What was measured of one load.
struct Figures {
    /// One to begin with, which does not count; then [`KINDS`] by turns.
    stretches: Vec<[Latencies; 2]>,
    /// Of a processor, what the compiler had in each stretch with a bomb.
    shares: Vec<f64>,
}

impl Figures {
    fn of(bazaar: &mut Bazaar, crowds: [Crowd; 2], bomb: &[u8], size: &Size) -> Self {
        let clients = Clients::of(bazaar.address(), crowds, 1 + KINDS * size.pairs);
        let shares = clients.run(|| {
            thread::sleep(size.stretch);
            let turns = (0..size.pairs).map(|turn| {
                clients.enter(1 + KINDS * turn);
                thread::sleep(size.stretch);
                clients.enter(2 + KINDS * turn);
                let share = compile_for(bazaar, bomb, size.stretch);
                clients.enter(3 + KINDS * turn);
                count_for(size.stretch);
                clients.enter(0);
                share
            });
            turns.collect()
        });
        Self {
            stretches: clients.into_latencies(),
            shares,
        }
    }

    fn lookups_a_second(&self, stretch: Duration) -> f64 {
        let steady = self.stretches[1..].iter().step_by(KINDS);
        let lookups: Vec<_> = steady.map(|both| both[0].len() as f64).collect();
        lookups.iter().sum::<f64>() / lookups.len() as f64 / stretch.as_secs_f64()
    }

    /// Prints what it was like without and with a bomb. Returns p99 with one in per cent of that without,
    /// of lookups and of trades.
    fn print(&self, load: &str) -> Vec<f64> {
        let shares = Spread::of(self.shares.iter().map(|share| share * 100.0));
        println!("{load}, the compiler has {shares} % of a processor");
        let both = [(Asked::Lookups, 0), (Asked::Trades, 1)];
        let ratios = both.map(|(asked, index)| {
            let p99 = |stretch: &[Latencies; 2]| stretch[index].value_at_quantile(0.99) as f64;
            let p99s: Vec<f64> = self.stretches[1..].iter().map(p99).collect();
            let of = |kind: usize| p99s.iter().copied().skip(kind).step_by(KINDS);
            let steady: Vec<_> = of(0).collect();
            let percents = |kind| Spread::of(steady.iter().zip(of(kind)).map(|(steady, it)| 100.0 * it / steady));
            let (bombed, counted) = (percents(1), percents(2));
            println!(
                "  {asked:?}: p99 {} us steady, {} us while a bomb is compiled: {bombed} % of it; beside one that only counts {counted} %",
                Spread::of(steady.iter().copied()),
                Spread::of(of(1)),
            );
            let noise = steady.windows(2).map(|two| 100.0 * two[1] / two[0]);
            if steady.len() > 1 {
                println!("    the next steady stretch: {} %", Spread::of(noise));
            }
            bombed.median
        });
        ratios.into()
    }
}

/// Has a bomb compiled for so long, and returns how much of a processor that took.
fn compile_for(bazaar: &mut Bazaar, bomb: &[u8], time: Duration) -> f64 {
    let begun = Instant::now();
    let pushed = pushing(bazaar, bomb.to_vec());
    wait_until("it is being compiled", || !compilers(bazaar).is_empty());
    thread::sleep(time.saturating_sub(begun.elapsed()));
    let compiler = compilers(bazaar)[0];
    let stat = fs::read_to_string(format!("/proc/{compiler}/schedstat")).unwrap_or_default();
    let ns = stat.split(' ').next().and_then(|ns| ns.parse().ok());
    let ns: f64 = ns.expect("it is still being compiled");
    let share = ns / begun.elapsed().as_nanos() as f64;
    signal_by_pid(compiler, Signal::KILL);
    let answer = pushed.join().unwrap().unwrap();
    assert_eq!(answer.status, 422, "{answer:?}");
    share
}

/// Keeps a processor busy for so long that nobody else wants, in next to no memory.
fn count_for(time: Duration) {
    let begun = Instant::now();
    let mut counting = Command::new("chrt")
        .args(["--idle", "0", "sh", "-c", "while :; do :; done"])
        .stdin(Stdio::null())
        .spawn()
        .expect("chrt is there, as util-linux is everywhere");
    thread::sleep(time.saturating_sub(begun.elapsed()));
    counting
        .kill()
        .and_then(|()| counting.wait())
        .expect("it was started");
}

#[test]
fn a_push_is_done_while_clients_leave_it_no_time() {
    let _alone = alone();
    let size = Size::from_env();
    let bazaar = Bazaar::start(Options::default());
    let component = fs::read(example("default")).unwrap();
    let mut pushes = 0_u32;
    let mut push = || {
        pushes += 1;
        let begun = Instant::now();
        let pushed = pushing(&bazaar, marked(&component, pushes));
        let answer = pushed.join().unwrap().unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        begun.elapsed().as_millis() as f64
    };
    let alone = Spread::of((0..size.pairs).map(|_| push()));
    let clients = Clients::of(bazaar.address(), AT_FULL_SPEED, 1);
    let busy = clients.run(|| Spread::of((0..size.pairs).map(|_| push())));
    println!("a push takes {alone} ms alone, and {busy} ms among clients at full speed");
}

/// The same component, which no cache knows: with a section that says nothing.
fn marked(component: &[u8], mark: u32) -> Vec<u8> {
    const CUSTOM_SECTION: u8 = 0;
    let name = b"mark";
    let mark = mark.to_le_bytes();
    let length = 1 + name.len() + mark.len();
    let section = [CUSTOM_SECTION, length as u8, name.len() as u8];
    [component, &section, name, &mark].concat()
}
