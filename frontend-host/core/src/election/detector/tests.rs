//! The detector against traces of what a replica, the network and this gateway's machine do.

use domain::{ChainHash, Epoch, ReplicaId, Role, RowNumber};
use fastrand::Rng;

use super::*;

const MS: fn(u64) -> Duration = Duration::from_millis;
const START: BootTime = BootTime::from_millis(10_000);

/// In which a silent replica is to be found silent where nothing else is the matter: failover has 250 ms, and needs
/// some 30 for the election and for catching up.
const FOUND_WITHIN: Duration = Duration::from_millis(220);

/// How TCP's pauses add up: when a packet is sent again that was lost, and when the connection is given up.
const SENT_AGAIN_MS: [u64; 3] = [0, 205, 615];
const GIVEN_UP: Duration = Duration::from_millis(1_000);

/// What comes of a probe, and after how long; never where there is nothing.
type Answer = Option<(Duration, Result<(), ProbeFailure>)>;

const PROMPT: Answer = Some((Duration::from_micros(300), Ok(())));

/// A replica that is watched by a gateway which hears others, too.
struct Trace {
    now: BootTime,
    detector: Detector,
    contact: Contact,
    probed: Probed,
    calls: [Answer; 2],
    /// Whether others are heard.
    is_connected: bool,
    noted: Vec<(BootTime, Unanswered)>,
}

impl Trace {
    fn new() -> Self {
        Self {
            now: START,
            detector: Detector::new(START),
            contact: Contact::new(START),
            probed: Probed::unknown(ReplicaId::new(1).unwrap()),
            calls: [None; 2],
            is_connected: true,
            noted: Vec::new(),
        }
    }

    /// One whose replica has answered at once for a while.
    fn calm() -> Self {
        let mut trace = Self::new();
        trace.run(MS(7_777), |_| PROMPT);
        assert_eq!(trace.noted, []);
        trace
    }

    fn run(&mut self, time: Duration, answer: impl FnMut(Way) -> Answer) {
        self.run_late(time, answer, || Duration::ZERO);
    }

    /// Time passes. `answer` is asked of each probe, and `late` how late this gateway's timers are.
    fn run_late(
        &mut self,
        time: Duration,
        mut answer: impl FnMut(Way) -> Answer,
        mut late: impl FnMut() -> Duration,
    ) {
        let end = self.now + time;
        while self.now < end {
            let wait = loop {
                match self.detector.next(self.now, &self.probed, &self.contact) {
                    Watch::Probe(way) => {
                        let never = (MS(500), Err(ProbeFailure::Silent));
                        // The caller gives it up; what comes later on that connection answers the next one.
                        let outcome = answer(way).unwrap_or(never);
                        self.calls[way as usize] = Some(outcome);
                    }
                    Watch::Note(unanswered) => {
                        self.noted.push((self.now, unanswered));
                        self.probed.note(Err(unanswered), self.now, None, self.now);
                    }
                    Watch::Wait(until) => break until.since(self.now),
                }
            };
            let called = self.calls.iter().flatten().map(|(left, _)| *left);
            let wait = called.fold(wait, Duration::min).min(MS(20));
            let passed = wait + late();
            self.now = self.now + passed;
            if self.is_connected {
                self.contact.heard(self.now);
            }
            for way in [Way::Main, Way::Spare] {
                let Some((left, outcome)) = self.calls[way as usize].take() else {
                    continue;
                };
                let left = left.saturating_sub(passed);
                if left.is_zero() {
                    self.over(way, outcome.map(|()| status()));
                } else {
                    self.calls[way as usize] = Some((left, outcome));
                }
            }
        }
    }

    /// The probes that are under way are answered after all.
    fn answer_what_waits(&mut self) {
        for call in self.calls.iter_mut().flatten() {
            *call = (Duration::ZERO, Ok(()));
        }
    }

    fn over(&mut self, way: Way, answer: Result<Status, ProbeFailure>) {
        let (asked, said) = self.detector.over(way, answer, self.now, 0);
        let Some(said) = said else {
            return;
        };
        self.contact.heard(self.now);
        let news = self.probed.note(said, asked, None, self.now);
        if let (true, Err(unanswered)) = (news, said) {
            self.noted.push((self.now, unanswered));
        }
    }

    fn is_noted(&self, unanswered: Unanswered) -> bool {
        self.noted.iter().any(|(_, noted)| *noted == unanswered)
    }

    /// How long it takes from now on to find the replica silent, which it is.
    fn time_to_silent(&mut self) -> Duration {
        let from = self.now;
        self.noted.clear();
        while !self.is_noted(Unanswered::Silent) {
            self.run(MS(1), |_| None);
            assert!(self.now.since(from) < MS(60_000), "it is not found out");
        }
        self.now.since(from)
    }
}

fn status() -> Status {
    Status {
        role: Role::Leader,
        epoch: Epoch(1),
        leader: None,
        rows: RowNumber(0),
        stock_changes: 0,
        chain: ChainHash::EMPTY,
        reaches_catalog: true,
    }
}

/// Of a probe of which, and of whose answer, packets are lost with this probability.
fn lossy(random: &mut Rng, lost: f64) -> Answer {
    let arrives = |_: &&u64| random.f64() >= lost && random.f64() >= lost;
    match SENT_AGAIN_MS.iter().find(arrives) {
        Some(after) => Some((MS(*after) + MS(1), Ok(()))),
        None => Some((GIVEN_UP, Err(ProbeFailure::Silent))),
    }
}

#[test]
fn a_replica_that_falls_silent_is_found_silent_in_time_for_a_failover() {
    for phase in 0..60 {
        let mut trace = Trace::calm();
        trace.run(MS(phase), |_| PROMPT);
        let found = trace.time_to_silent();
        assert!((MS(160)..FOUND_WITHIN).contains(&found), "{found:?}");
    }
}

#[test]
fn one_that_was_never_heard_is_found_silent_too() {
    assert!(Trace::new().time_to_silent() < FOUND_WITHIN);
}

#[test]
fn a_connection_that_is_refused_is_evidence_at_once_and_one_that_breaks_when_the_next_one_does() {
    use ProbeFailure::{Broken, Refused};
    let soon = MS(1);
    for (first, second, is_gone) in [
        (Err(Refused), Err(Refused), true),
        (Err(Broken), Err(Refused), true),
        (Err(Broken), Err(Broken), true),
        (Err(Broken), Ok(()), false),
    ] {
        let mut trace = Trace::calm();
        let mut answers = [first, second].into_iter();
        let before = trace.now;
        trace.run(MS(60), |way| match way {
            Way::Main => Some((soon, answers.next().unwrap_or(second))),
            Way::Spare => None,
        });
        let gone = trace.noted.iter().map(|(at, why)| (at.since(before), *why));
        let gone: Vec<_> = gone.collect();
        match gone[..] {
            [] => assert!(!is_gone, "{first:?} {second:?}"),
            [(after, Unanswered::Gone)] => assert!(is_gone && after <= PROBE_INTERVAL + soon * 2),
            _ => panic!("{first:?} {second:?}: {gone:?}"),
        }
    }
}

#[test]
fn a_packet_that_is_lost_accuses_nobody() {
    for way in [Way::Main, Way::Spare] {
        let mut trace = Trace::calm();
        for _ in 0..20 {
            let mut lost = Some(lossy(&mut Rng::with_seed(0), 0.0).map(|_| (MS(205), Ok(()))));
            trace.run(MS(10_000), |probed| match lost.take_if(|_| probed == way) {
                Some(late) => late,
                None => PROMPT,
            });
        }
        assert_eq!(trace.noted, []);
    }
}

/// A connection on which nothing comes any more, while others get through.
#[test]
fn a_connection_that_is_dead_accuses_nobody_whose_other_one_lives() {
    let mut trace = Trace::calm();
    trace.run(MS(5_000), |way| match way {
        Way::Main => None,
        Way::Spare => PROMPT,
    });
    assert_eq!(trace.noted, []);
}

#[test]
fn a_tenth_of_all_packets_lost_for_an_hour_accuses_next_to_nobody_and_the_silent_are_found() {
    let mut accused = 0;
    for seed in 0..20 {
        let mut random = Rng::with_seed(seed);
        let mut trace = Trace::calm();
        trace.run(MS(180_000), |_| lossy(&mut random, 0.1));
        accused += trace.noted.len();
        let found = trace.time_to_silent();
        // An answer may have been under way still.
        assert!(found <= PATIENCE_MAX * 2 + GIVEN_UP, "{found:?}");
        // The network is well again.
        trace.run(MS(30_000), |_| PROMPT);
        assert!(trace.time_to_silent() < FOUND_WITHIN, "after a while");
    }
    println!("accused in an hour: {accused}");
    assert!(accused <= 30, "{accused} times");
}

/// Its timers are late by up to 300 ms, and so is what it hears.
#[test]
fn a_gateway_that_is_starved_accuses_nobody() {
    for seed in 0..20 {
        let mut random = Rng::with_seed(seed);
        let mut trace = Trace::calm();
        let late = || MS(random.choice([0, 0, 0, 50, 100, 300]).unwrap());
        trace.run_late(MS(60_000), |_| PROMPT, late);
        assert!(!trace.is_noted(Unanswered::Silent), "{:?}", trace.noted);
    }
    // Nor one that was suspended.
    let mut trace = Trace::calm();
    let mut suspended = [MS(0), MS(0), MS(5_000)].into_iter();
    let late = || suspended.next().unwrap_or_default();
    trace.run_late(MS(10_000), |_| Some((MS(10), Ok(()))), late);
    assert_eq!(trace.noted, []);
}

/// Each answer takes its share of up to 300 ms.
#[test]
fn a_starved_replica_is_soon_given_the_time_that_it_takes() {
    let mut accused = 0;
    for seed in 0..20 {
        let mut random = Rng::with_seed(seed);
        let mut trace = Trace::calm();
        trace.run(MS(60_000), |_| Some((MS(random.u64(0..300)), Ok(()))));
        accused += trace.noted.len();
    }
    assert!(accused <= 10, "{accused} times in 20 minutes");
}

#[test]
fn a_gateway_that_hears_nobody_for_a_while_accuses_nobody_then_nor_when_it_is_back() {
    for outage in [100, 170, 250, 400, 900, 3_000, 20_000] {
        for phase in 0..10 {
            let mut trace = Trace::calm();
            trace.run(MS(phase * 7), |_| PROMPT);
            trace.is_connected = false;
            trace.run(MS(outage), |_| None);
            assert!(!trace.is_noted(Unanswered::Silent), "{:?}", trace.noted);
            // Others are back at once, this one's connections when TCP tries again, or when they are made anew.
            trace.is_connected = true;
            trace.run(MS(outage.min(900)), |_| None);
            trace.answer_what_waits();
            trace.run(MS(10_000), |_| PROMPT);
            assert!(!trace.is_noted(Unanswered::Silent), "{:?}", trace.noted);
        }
    }
}

#[test]
fn a_leader_that_died_while_nobody_was_heard_is_found_silent_afterwards() {
    let mut trace = Trace::calm();
    trace.is_connected = false;
    trace.run(MS(3_000), |_| None);
    assert!(trace.is_noted(Unanswered::Unheard));
    trace.is_connected = true;
    assert!(trace.time_to_silent() < MS(1_300));
}
