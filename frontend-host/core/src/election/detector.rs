//! Whether a replica is there: one gateway's failure detector for it.
//!
//! A connection that is refused is evidence at once. Silence is not: TCP sends a lost packet again after 200 ms at the
//! earliest, and then after pauses that double, and a busy machine answers when it gets round to it. So a replica is
//! accused of silence only where
//!
//! - it is silent on two connections, the second of which is tried when the first has been silent for so long that it
//!   is suspicious: what one waits for that was lost does not hold the other up;
//! - for longer than its answers were late lately ([`Patience`]);
//! - and this gateway was there to hear it: it was not late itself, and heard [others](Contact).

use std::time::Duration;

use domain::time::BootTime;

use super::contact::Contact;
use super::probing::ProbeTimer;
use super::{Probed, Status, Unanswered};
use crate::recurring::Recurring;
use crate::timing::{CALM, PATIENCE_MAX, PATIENCE_MIN, PROBE_INTERVAL, SPARE_PROBE_INTERVAL};

/// One of the two connections on which a replica is probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// The one that it is called on.
    Main,
    /// One that nothing else is sent on.
    Spare,
}

/// Why a probe was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeFailure {
    /// The connection was refused: nobody is there.
    Refused,
    /// The connection broke. That alone may be the network's doing.
    Broken,
    /// It took too long, or something else came of it that says nothing.
    Silent,
    /// What answers keeps another journal's ledger.
    Foreign,
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// Probe it on this connection, then say what [came of it](Detector::over).
    Probe(Way),
    /// [Note](Probed::note) that it does not answer.
    Note(Unanswered),
    /// Wait until a probe is over, somebody has a suspicion, or this time.
    Wait(BootTime),
}

/// Tells a replica that is gone from one that answers late.
#[derive(Debug)]
pub struct Detector {
    main: ProbeTimer,
    spare: Recurring,
    silence: [Silence; 2],
    patience: Patience,
    /// When it asked to be woken.
    expected: BootTime,
}

/// Of one connection.
#[derive(Debug, Clone, Default)]
struct Silence {
    /// When the probe under way was sent.
    asked: Option<BootTime>,
    /// When the first probe was sent since the last answer.
    since: Option<BootTime>,
    /// It broke, and has not been answered on since.
    is_broken: bool,
}

impl Detector {
    /// The first probe is due now.
    pub fn new(now: BootTime) -> Self {
        Self {
            main: ProbeTimer::new(now),
            spare: Recurring::due(now),
            silence: Default::default(),
            patience: Patience::new(now),
            expected: now,
        }
    }

    /// Whether somebody has a suspicion that was not looked into yet.
    pub fn is_hurried(&self) -> bool {
        self.main.is_hurried()
    }

    /// Somebody has a suspicion: the next probe comes soon.
    pub fn hurry(&mut self) {
        self.main.hurry();
    }

    /// What is to be done next, given what is known of the replica: asked again until it is to [wait](Watch::Wait).
    pub fn next(&mut self, now: BootTime, probed: &Probed, contact: &Contact) -> Watch {
        self.note_own_lateness(now);
        if self
            .silent_since(Way::Main, probed)
            .is_some_and(|since| now.since(since) >= self.patience.length)
        {
            self.spare.hurry();
        }
        if self.main.begin_if_due(now) {
            return self.begin(Way::Main, now);
        }
        if self.spare.begin_if_due(now) {
            return self.begin(Way::Spare, now);
        }
        let judged_at = self.judged_at(probed);
        if judged_at.is_some_and(|at| at <= now) {
            let unanswered = match contact.has_lasted(now, self.patience.length) {
                true => Unanswered::Silent,
                false => Unanswered::Unheard,
            };
            if probed.status != Err(unanswered) {
                return Watch::Note(unanswered);
            }
        }
        let suspicious = self.silent_since(Way::Main, probed);
        let suspicious = suspicious.map(|since| since + self.patience.length);
        let probes = [self.main.wake(), self.spare.wake()];
        let looks = [suspicious, judged_at].map(|at| at.filter(|at| *at > now));
        let wakes = probes.into_iter().chain(looks).flatten();
        let wake = wakes.fold(now + PROBE_INTERVAL, BootTime::min).max(now);
        self.expected = wake;
        Watch::Wait(wake)
    }

    /// A probe is over. Returns what is to be [noted](Probed::note) of the replica, if anything, and when the probe was
    /// sent. `changes` is how often something has changed by now, at any replica or in who leads.
    ///
    /// # Panics
    /// Where none is under way there.
    pub fn over(
        &mut self,
        way: Way,
        answer: Result<Status, ProbeFailure>,
        now: BootTime,
        changes: u64,
    ) -> (BootTime, Option<Result<Status, Unanswered>>) {
        let silence = &mut self.silence[way as usize];
        let asked = silence.asked.take().expect("a probe is under way");
        let breaks_first = answer == Err(ProbeFailure::Broken) && !silence.is_broken;
        silence.is_broken = answer == Err(ProbeFailure::Broken);
        match way {
            // Made anew, it is refused where nobody is there.
            _ if breaks_first => self.again(way, now),
            Way::Main => self.main.over(now, changes),
            Way::Spare => self.spare.pause(now, PROBE_INTERVAL, SPARE_PROBE_INTERVAL),
        }
        let said = match answer {
            Ok(status) => {
                self.patience.answered(self.longest_silence(now), now);
                Ok(status)
            }
            Err(ProbeFailure::Broken) if breaks_first => return (asked, None),
            Err(ProbeFailure::Silent) => return (asked, None),
            Err(ProbeFailure::Refused | ProbeFailure::Broken) => Err(Unanswered::Gone),
            Err(ProbeFailure::Foreign) => Err(Unanswered::Foreign),
        };
        self.silence[way as usize].since = None;
        (asked, Some(said))
    }

    fn begin(&mut self, way: Way, now: BootTime) -> Watch {
        let silence = &mut self.silence[way as usize];
        silence.asked = Some(now);
        silence.since.get_or_insert(now);
        Watch::Probe(way)
    }

    fn again(&mut self, way: Way, now: BootTime) {
        match way {
            Way::Main => self.main.again(now),
            Way::Spare => self.spare = Recurring::due(now),
        }
    }

    /// A gateway that was not woken in time did not hear what was said meanwhile: whoever seemed silent has all the
    /// time again, and more from now on.
    fn note_own_lateness(&mut self, now: BootTime) {
        let late = now.since(self.expected);
        self.expected = now;
        if self.patience.is_tried_by(late) {
            self.patience.answered(late, now);
            for silence in &mut self.silence {
                silence.since = silence.since.map(|_| now);
            }
        }
    }

    /// Since when nothing has been heard on a connection, nor otherwise, though it was asked.
    fn silent_since(&self, way: Way, probed: &Probed) -> Option<BootTime> {
        let since = self.silence[way as usize].since;
        since.map(|since| since.max(probed.heard))
    }

    /// When the replica has been silent for so long that it is suspicious no more, but silent.
    fn judged_at(&self, probed: &Probed) -> Option<BootTime> {
        let main = self.silent_since(Way::Main, probed)?;
        let spare = self.silent_since(Way::Spare, probed)?;
        let patience = self.patience.length;
        Some((main.min(spare) + patience * 2).max(main.max(spare) + patience))
    }

    /// What an answer ends, on either connection.
    fn longest_silence(&self, now: BootTime) -> Duration {
        let since = self.silence.iter().filter_map(|silence| silence.since);
        since
            .map(|since| now.since(since))
            .max()
            .unwrap_or_default()
    }
}

/// How long a replica may be silent on one connection before that is suspicious. It doubles with a suspicion that proves wrong,
/// or nearly comes up, and halves while there is none: as a local health multiplier does (Dadgar, Phillips and Currey,
/// "Lifeguard: Local Health Awareness for More Accurate Failure Detection", 2018).
///
/// A distribution of arrival times, as of phi accrual detectors (Hayashibara et al., 2004), or a mean with its deviation, as
/// of TCP, says less: an answer takes some 0.3 ms, and one in five 200, 600 or 1,400 where a tenth of the packets is lost. The normal
/// distribution that fits one such answer in a thousand expects all within some 40 ms.
#[derive(Debug, Clone)]
struct Patience {
    length: Duration,
    /// When it became as long as that.
    set: BootTime,
    /// When there was a suspicion last that proved wrong, or nearly one.
    tried: BootTime,
}

impl Patience {
    fn new(now: BootTime) -> Self {
        Self {
            length: PATIENCE_MIN,
            set: now,
            tried: now,
        }
    }

    /// Whether so much is near what is suspicious.
    fn is_tried_by(&self, late: Duration) -> bool {
        late * 2 > self.length
    }

    /// An answer came so late; or so late this gateway was itself. What comes together counts once.
    fn answered(&mut self, late: Duration, now: BootTime) {
        if self.is_tried_by(late) {
            self.tried = now;
            if now.since(self.set) >= self.length {
                self.set(self.length * 2, now);
            }
        } else if now.since(self.tried) >= CALM && now.since(self.set) >= CALM {
            self.set(self.length / 2, now);
        }
    }

    fn set(&mut self, length: Duration, now: BootTime) {
        self.length = length.clamp(PATIENCE_MIN, PATIENCE_MAX);
        self.set = now;
    }
}

#[cfg(test)]
mod tests;
