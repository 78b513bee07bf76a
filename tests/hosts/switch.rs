//! An Ethernet switch: each host's network device is a port of it, and what one host sends another is lost, late, or
//! overtaken, as it is [told](Switch::set).
//!
//! The kernel's own means for this, netem, is a module that many virtual machines lack.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

/// A host's number: the last byte of its addresses, IPv4 and Ethernet.
pub type HostNumber = u8;

/// The first bytes of every host's Ethernet address: one that is locally administered.
const ETHERNET: [u8; 5] = [2, 0, 0, 0, 0];

/// Frames have no more than that: 1,500 bytes behind an Ethernet header, with a tag.
const FRAME_BYTES_MAX: usize = 1518;

/// Frames that are late at a time. What is more is lost, as in any queue.
const LATE_MAX: usize = 20_000;

/// How frames fare from one host to another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Way {
    /// So many in a hundred are lost.
    pub lost: u8,
    /// How much later they arrive, at least.
    pub delay: Duration,
    /// And up to how much beyond that, each by itself: so they overtake each other.
    pub jitter: Duration,
}

impl Way {
    pub const CUT: Self = Self {
        lost: 100,
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
    };

    /// How late a frame is; none where it is lost.
    fn fate(self, random: &mut Rng) -> Option<Duration> {
        if random.u8(0..100) < self.lost {
            return None;
        }
        Some(self.delay + self.jitter.mul_f64(random.f64()))
    }
}

/// To whom a frame goes: one host, or every other one.
fn destination(frame: &[u8]) -> Option<HostNumber> {
    let address = frame.first_chunk::<6>()?;
    address.starts_with(&ETHERNET).then_some(address[5])
}

/// The Ethernet address of a host.
pub fn ethernet(host: HostNumber) -> String {
    let bytes = ETHERNET.iter().chain([&host]);
    let bytes: Vec<String> = bytes.map(|byte| format!("{byte:02x}")).collect();
    bytes.join(":")
}

#[derive(Default)]
struct Shared {
    ports: RwLock<BTreeMap<HostNumber, Arc<SyncDevice>>>,
    ways: RwLock<BTreeMap<(HostNumber, HostNumber), Way>>,
    late: Mutex<Late>,
    has_changed: Condvar,
}

#[derive(Default)]
struct Late {
    frames: BinaryHeap<Reverse<LateFrame>>,
    count: u64,
    is_over: bool,
}

/// Ordered by when it arrives, and then as it was sent.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct LateFrame {
    at: Instant,
    count: u64,
    to: HostNumber,
    frame: Vec<u8>,
}

/// Ends with its hosts: what is late then does not arrive.
pub struct Switch(Arc<Shared>);

impl Switch {
    pub fn start() -> Self {
        let shared = Arc::<Shared>::default();
        let own = Arc::clone(&shared);
        thread::spawn(move || own.deliver_late());
        Self(shared)
    }

    /// Makes a device for a host, in the network that this process is in. It is a port from now on, until the device is
    /// gone, or there is another one for that host.
    pub fn plug(&self, host: HostNumber, name: &str) -> io::Result<()> {
        let builder = DeviceBuilder::new().name(name).layer(Layer::L2);
        let device = Arc::new(builder.build_sync()?);
        write(&self.0.ports).insert(host, Arc::clone(&device));
        let shared = Arc::clone(&self.0);
        thread::spawn(move || shared.forward(host, &device));
        Ok(())
    }

    /// A host is without power: nothing that is sent to it arrives, and nothing that its kernel sends on behalf of
    /// processes that die.
    pub fn unplug(&self, host: HostNumber) {
        write(&self.0.ports).remove(&host);
    }

    /// From now on frames from one host to another fare like that.
    pub fn set(&self, from: HostNumber, to: HostNumber, way: Way) {
        let mut ways = write(&self.0.ways);
        if way == Way::default() {
            ways.remove(&(from, to));
        } else {
            ways.insert((from, to), way);
        }
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        lock(&self.0.late).is_over = true;
        self.0.has_changed.notify_one();
    }
}

impl Shared {
    /// Forwards what a host sends, until its device is gone, or is none of the switch's.
    fn forward(&self, from: HostNumber, device: &Arc<SyncDevice>) {
        let mut random = Rng::with_seed(u64::from(from));
        let mut frame = [0; FRAME_BYTES_MAX];
        while let Ok(length) = device.recv(&mut frame) {
            let own = read(&self.ports).get(&from).cloned();
            if own.is_none_or(|own| !Arc::ptr_eq(&own, device)) {
                return;
            }
            let frame = &frame[..length];
            match destination(frame) {
                Some(to) => self.forward_to(from, to, frame, &mut random),
                None => {
                    let all: Vec<HostNumber> = read(&self.ports).keys().copied().collect();
                    for to in all.into_iter().filter(|to| *to != from) {
                        self.forward_to(from, to, frame, &mut random);
                    }
                }
            }
        }
    }

    fn forward_to(&self, from: HostNumber, to: HostNumber, frame: &[u8], random: &mut Rng) {
        let way = read(&self.ways)
            .get(&(from, to))
            .copied()
            .unwrap_or_default();
        match way.fate(random) {
            None => {}
            Some(Duration::ZERO) => self.deliver(to, frame),
            Some(delay) => {
                let mut late = lock(&self.late);
                if late.frames.len() < LATE_MAX {
                    late.count += 1;
                    let late_frame = LateFrame {
                        at: Instant::now() + delay,
                        count: late.count,
                        to,
                        frame: frame.to_vec(),
                    };
                    late.frames.push(Reverse(late_frame));
                    self.has_changed.notify_one();
                }
            }
        }
    }

    /// To a device that is gone, or down, nothing arrives.
    fn deliver(&self, to: HostNumber, frame: &[u8]) {
        let port = read(&self.ports).get(&to).cloned();
        if let Some(port) = port {
            let _ = port.send(frame);
        }
    }

    fn deliver_late(&self) {
        let mut late = lock(&self.late);
        while !late.is_over {
            let now = Instant::now();
            let wait = late
                .frames
                .peek()
                .map(|Reverse(next)| next.at.saturating_duration_since(now));
            late = match wait {
                Some(Duration::ZERO) => {
                    let next = late.frames.pop();
                    drop(late);
                    if let Some(Reverse(next)) = next {
                        self.deliver(next.to, &next.frame);
                    }
                    lock(&self.late)
                }
                Some(wait) => {
                    let woken = self.has_changed.wait_timeout(late, wait);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let woken = self.has_changed.wait(late);
                    woken.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn frames_go_to_one_host_or_to_all_and_fare_as_their_way_says() {
    let mut random = Rng::with_seed(1);
    assert_eq!(ethernet(11), "02:00:00:00:00:0b");
    assert_eq!(destination(&[2, 0, 0, 0, 0, 11, 9, 9]), Some(11));
    assert_eq!(destination(&[0xff; 14]), None, "broadcast");
    assert_eq!(destination(&[2, 0]), None);
    assert_eq!(Way::default().fate(&mut random), Some(Duration::ZERO));
    assert_eq!(Way::CUT.fate(&mut random), None);
    let way = Way {
        lost: 10,
        delay: Duration::from_millis(20),
        jitter: Duration::from_millis(30),
    };
    let fates: Vec<_> = (0..10_000).map(|_| way.fate(&mut random)).collect();
    let lost = fates.iter().filter(|fate| fate.is_none()).count();
    assert!((800..1_200).contains(&lost), "{lost} of 10,000");
    let between = way.delay..way.delay + way.jitter;
    let arrived = || fates.iter().flatten();
    assert!(arrived().all(|fate| between.contains(fate)));
    assert!(!arrived().is_sorted(), "none overtakes another");
}
