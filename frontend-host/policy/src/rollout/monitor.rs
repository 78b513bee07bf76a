//! Judges the decisions that a version in service failed or took long for.
//!
//! A thread of its own asks the version behind about the same input. Only where that one does better is
//! a failure held against a version (see `probation`), and time counted as wasted (see `breaker`).

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use daemon::tasks;
use domain::time::BootTime;

use super::breaker::{Instead, SharedBy};
use super::clients_seen::{ClientsSeen, TURN};
use super::health::{HealthWindow, Incident, Judgement, unix_ms};
use super::probation::{Evidence, Failed, Probation};
use super::slowness::{Asked, Known, SLOWER_BY_MIN};
use crate::decision::{Action, Decision, OnFailure};
use crate::evaluate::input::{DecisionInput, DecisionResult};
use crate::guest::failure::{Crash, Failure};
use crate::guest::thread::processor_time;
use crate::guest::version::{SharedVersion, Version};

/// Reports that wait to be judged. What does not fit is not judged: there is more where it came from.
const REPORTS_MAX: usize = 64;

/// What a report may take of memory beyond what is bounded for every request, in bytes.
const REPORT_BYTES_MAX: usize = 512 << 10;

/// How many times as long a decision takes at least, in a version that is slower.
const SLOWER_TIMES_MIN: u32 = 4;

/// What a trap costs beside the start of another instance: a backtrace, mostly.
const TRAP_COST: Duration = Duration::from_micros(100);

/// How much longer than it judged what is no fault the thread then rests, and how long at most.
const REST_TIMES: u32 = 2;
const REST_MAX: Duration = Duration::from_millis(50);

/// How many times as long as on a processor of its own the thread can be thought to take, at most.
const STARVED_MAX: u8 = 20;

/// What is wrong with a decision.
#[derive(Debug)]
pub(crate) enum Problem {
    /// There is none. It took so long to find out.
    Failure(Failure, Duration),
    /// It is a response of 500 that no backend is to blame for.
    ServerError,
    /// It seems to have taken long. It stands for so many.
    Slow(u32),
}

/// A decision that something is wrong with.
pub(crate) struct Report {
    pub(crate) version: SharedVersion,
    /// The version that decides where this one fails.
    pub(crate) behind: Option<SharedVersion>,
    pub(crate) health: Arc<HealthWindow>,
    pub(crate) input: DecisionInput,
    pub(crate) client: u64,
    /// How great a part of the clients the version serves.
    pub(crate) share: f64,
    pub(crate) problem: Problem,
}

/// A version against which too much is held.
pub(super) struct Condemned {
    /// Tells the version by its window.
    pub(super) health: Arc<HealthWindow>,
    /// In words, for the log of changes.
    pub(super) why: String,
    /// The last failure that was held against it.
    pub(super) incident: Incident,
}

/// Takes reports to the thread that judges them.
pub(crate) struct Monitor(SyncSender<Report>);

impl Monitor {
    /// Starts the thread, which ends when this is dropped. It may have to wait for a disk in
    /// `take_out_of_service`.
    pub(super) fn start(
        probation: Probation,
        seen: Arc<ClientsSeen>,
        take_out_of_service: impl Fn(&Condemned) + Send + 'static,
    ) -> io::Result<Self> {
        let (reports, queue) = sync_channel::<Report>(REPORTS_MAX);
        tasks::thread("policy-monitor", move || {
            let mut turned = BootTime::now();
            loop {
                match queue.recv_timeout(TURN) {
                    Ok(report) => {
                        let begun = Instant::now();
                        let judged = judge(report, probation, &seen);
                        if let Judged::Condemned(condemned) = &judged {
                            take_out_of_service(condemned);
                        }
                        if matches!(judged, Judged::Innocent) {
                            // What clients send must not keep a processor busy.
                            thread::sleep((begun.elapsed() * REST_TIMES).min(REST_MAX));
                        }
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
                if BootTime::now().since(turned) >= TURN {
                    turned = BootTime::now();
                    seen.turn();
                }
            }
        })?;
        Ok(Self(reports))
    }

    /// Has a decision judged, if there is time for it.
    pub(crate) fn report(&self, report: Report) {
        if report.input.bytes_beyond() <= REPORT_BYTES_MAX {
            let _ = self.0.try_send(report);
        }
    }
}

/// Since when something takes time, by the wall and by this thread's processor clock.
struct Watch {
    wall: Instant,
    processor: Duration,
}

impl Watch {
    fn begin() -> Self {
        Self {
            wall: Instant::now(),
            processor: processor_time(),
        }
    }

    /// How many times as long it takes as it would if the thread never waited for a processor.
    fn starved(&self) -> f64 {
        let processor = processor_time().saturating_sub(self.processor);
        times_as_long(self.wall.elapsed(), processor)
    }
}

/// Of what is too short to be told from the clocks' own time nothing is known.
fn times_as_long(wall: Duration, processor: Duration) -> f64 {
    if wall.min(processor) < SLOWER_BY_MIN {
        return 1.0;
    }
    let most = f64::from(STARVED_MAX);
    (wall.as_secs_f64() / processor.as_secs_f64()).clamp(1.0, most)
}

/// What becomes of a report.
enum Judged {
    /// Nothing is wrong with the decision.
    Innocent,
    /// It is held against the version, or what it cost is charged.
    Noted,
    /// It was one too many.
    Condemned(Box<Condemned>),
}

/// What a comparison with the version behind comes to.
enum Verdict {
    /// The version behind does better. So much time was wasted.
    Worse(Duration),
    /// It does for others on that path. So much time may have been wasted.
    WorseForOthers(Duration),
    /// It fails as well, or there is none. So much time was wasted.
    NoBetter(Duration),
    /// Nothing is wrong with the decision.
    Fine,
}

/// Compares with the version behind, and says whether it is one time too often that this one does
/// worse.
fn judge(report: Report, probation: Probation, seen: &ClientsSeen) -> Judged {
    let Report {
        version,
        health,
        input,
        client,
        problem,
        ..
    } = &report;
    let path = input.path_key();
    let watch = Watch::begin();
    let verdict = compare(&report, path);
    let starved = watch.starved();
    let refuses = version.manifest.on_failure == OnFailure::Refuse;
    let (wasted, instead) = match verdict {
        Verdict::WorseForOthers(wasted) => (wasted, Instead::StandIn),
        Verdict::Worse(wasted) if !refuses => (wasted, Instead::StandIn),
        Verdict::Worse(wasted) | Verdict::NoBetter(wasted) => (wasted, Instead::Refuse),
        Verdict::Fine => return Judged::Innocent,
    };
    let incident = incident(version, problem, input);
    if health.show(incident.clone()).is_power_of_two() {
        let Incident {
            kind,
            request,
            request_id,
            cause,
            output,
            backtrace,
            ..
        } = &incident;
        tracing::error!(policy = %version, kind, request, request_id, cause, output, backtrace, "what the policy failed at");
    }
    let now = BootTime::now();
    let mut judgement = health.judgement();
    let Judgement {
        evidence, breaker, ..
    } = &mut *judgement;
    let all = seen.estimate();
    // Of those whom the version serves.
    let served = (all as f64 * report.share).ceil() as u64;
    // On a busy machine this thread comes to judge as much less as it has to wait, so that what it does
    // judge stands for more.
    let stands_for = match problem {
        Problem::Slow(_) => wasted.mul_f64(starved),
        Problem::Failure(..) | Problem::ServerError => wasted,
    };
    breaker.charge_all(stands_for, now);
    // Where there is hardly anybody else, a version that fails one client fails.
    let shared_by = if Evidence::is_everybody(served) {
        SharedBy::Few
    } else {
        SharedBy::Many
    };
    let broken_off = match verdict {
        _ if wasted.is_zero() => None,
        Verdict::WorseForOthers(_) => breaker.charge_path(path, *client, shared_by, wasted, now),
        _ => breaker.charge(path, *client, shared_by, wasted, instead, now),
    };
    if let Some(broken_off) = broken_off {
        health.break_off(broken_off.clone());
        tracing::error!(policy = %version, request = %incident.request, cause = %incident.cause, %instead, "the policy wastes too much time over requests like this, and is not asked about them for a while");
    }
    // What is slow is broken off. Only where that does not help, since it is everywhere, it is a failure.
    let is_failure = match problem {
        Problem::Failure(..) | Problem::ServerError => true,
        Problem::Slow(_) => breaker.is_overrun(now),
    };
    if !(is_failure && matches!(verdict, Verdict::Worse(_))) {
        return Judged::Noted;
    }
    let failed = Failed {
        client: *client,
        input: input.key(&version.manifest.headers),
    };
    evidence.hold(failed, now, probation.window);
    health.set_held(evidence.failures());
    if !evidence.condemns(probation.failures_max, served, all) {
        return Judged::Noted;
    }
    let why = format!(
        "{} failures of {} clients within {} s, where {served} were served lately",
        evidence.failures(),
        evidence.clients(),
        probation.window.as_secs()
    );
    drop(judgement);
    let is_news = health.condemn();
    if refuses {
        if is_news {
            tracing::error!(policy = %version, why, "the policy fails too often; it stays, since it wants what it fails at refused: activate another one");
        }
        return Judged::Noted;
    }
    let health = Arc::clone(health);
    Judged::Condemned(Box::new(Condemned {
        health,
        why,
        incident,
    }))
}

fn compare(report: &Report, path: u64) -> Verdict {
    let behind = || {
        let behind = report.behind.as_ref()?;
        let (decided, took) = timed(behind, &report.input);
        Some((decided.ok()?, took))
    };
    match &report.problem {
        Problem::Failure(_, took) => {
            let wasted = (*took).max(TRAP_COST) + report.version.start_cost;
            match behind() {
                Some(_) => Verdict::Worse(wasted),
                None => Verdict::NoBetter(wasted),
            }
        }
        Problem::ServerError => match behind() {
            Some((decided, _)) if !is_server_error(&decided) => Verdict::Worse(Duration::ZERO),
            _ => Verdict::Fine,
        },
        Problem::Slow(stands_for) => {
            let Report { version, input, .. } = report;
            let asked = Asked {
                path,
                client: report.client,
                input: input.key(&version.manifest.headers),
            };
            let refuses = version.manifest.on_failure == OnFailure::Refuse;
            let known = report.health.judgement().slowness.known(asked, BootTime::now());
            let slower_by = match known {
                Some(Known::OfClient(slower_by)) => slower_by,
                // A path is refused to nobody, so here each client is looked at.
                Some(Known::OfOthers(slower_by)) if !refuses => {
                    return Verdict::WorseForOthers(slower_by * *stands_for);
                }
                Some(Known::OfOthers(_)) | None => {
                    let slower_by = match timed(version, input) {
                        (_, took) if took < SLOWER_BY_MIN => Duration::ZERO,
                        (_, took) => match behind() {
                            Some((_, best)) if took >= best * SLOWER_TIMES_MIN => took - best,
                            // Both are, or nobody else can: then it is the request.
                            _ => Duration::ZERO,
                        },
                    };
                    let mut judgement = report.health.judgement();
                    judgement.slowness.note(asked, slower_by, BootTime::now());
                    slower_by
                }
            };
            match slower_by < SLOWER_BY_MIN {
                true => Verdict::Fine,
                false => Verdict::Worse(slower_by * *stands_for),
            }
        }
    }
}

/// What a version decides, and how long it takes, in an instance that has started. Not even one that
/// has the host panic ends the thread.
fn timed(version: &Version, input: &DecisionInput) -> (Result<DecisionResult, Failure>, Duration) {
    let evaluate = || {
        let begun = processor_time();
        let decided = catch_unwind(AssertUnwindSafe(|| input.evaluate(version)));
        let decided = decided.unwrap_or_else(|_| Err(Failure::Trap("the host panicked".into())));
        (decided, processor_time().saturating_sub(begun))
    };
    let (decided, took) = evaluate();
    if decided.is_ok() && took >= SLOWER_BY_MIN {
        // The first may have had to start one.
        evaluate()
    } else {
        (decided, took)
    }
}

fn is_server_error(decided: &DecisionResult) -> bool {
    match decided {
        DecisionResult::Action(Decision {
            action: Action::Respond(reply),
            ..
        }) => reply.status.is_server_error(),
        _ => false,
    }
}

fn incident(version: &Version, problem: &Problem, input: &DecisionInput) -> Incident {
    let (kind, cause, crash) = match problem {
        Problem::Failure(failure, _) => (failure.kind(), failure.cause(), failure.crash()),
        Problem::ServerError => (
            "error",
            "it answered 500 where the version behind did not",
            None,
        ),
        Problem::Slow(_) => ("slow", "it took much longer than the version behind", None),
    };
    let Crash {
        output, backtrace, ..
    } = crash.cloned().unwrap_or_default();
    let shown = |text: &str| input.redact(&version.config.scrub(text));
    let output = input.redact_written(output); // without secrets of the configuration already
    Incident {
        at_ms: unix_ms(),
        kind: kind.to_owned(),
        request: input.redacted(),
        request_id: input.request_id().map(str::to_owned),
        cause: shown(cause),
        output: output.text.trim().to_owned(),
        backtrace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a busy machine the thread judges fewer decisions in a second than would show that all are slow.
    #[test]
    fn what_is_judged_on_a_busy_machine_stands_for_what_was_not() {
        const MS: Duration = Duration::from_millis(1);
        assert_eq!(times_as_long(80 * MS, 80 * MS), 1.0);
        assert_eq!(times_as_long(80 * MS, 20 * MS), 4.0);
        assert_eq!(times_as_long(80 * MS, MS), f64::from(STARVED_MAX));
        // Such a call was interrupted once, which says nothing of others.
        assert_eq!(times_as_long(80 * MS, MS / 2), 1.0, "too short to tell");
        assert_eq!(
            times_as_long(MS / 2, Duration::ZERO),
            1.0,
            "too short to tell"
        );
        assert_eq!(times_as_long(20 * MS, 80 * MS), 1.0, "clocks differ");
    }
}
