//! Carries out the policy's elections: asks the catalog who leads, has it elect whom the policy wants
//! where nobody does, and tells the replicas.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use daemon::tasks;
use domain::time::BootTime;
use domain::{ChainHash, Epoch, ReplicaId, RowNumber, Term};
use frontend_core::election::{CurrentLeader, ElectionCycle, ElectionTask, LeadershipAnswer};
use frontend_core::timing::{ANNOUNCE_TIME_MAX, CATALOG_TIME_MAX};
use rpc::retry::{RetryClass, RetryStatus as _};
use tokio::time::{sleep, timeout};
use tonic::Code;
use wire::catalog::v1::{self as catalog, ElectRequest, GetLeadershipRequest};
use wire::identity::{self, OTHER_JOURNAL};
use wire::order::v1::AnnounceRequest;

use super::replicas::{CatalogSaid, Journal, Replicas, Starting};

impl Replicas {
    /// Probes all replicas and elects; never ends.
    pub async fn watch(self: Arc<Self>) {
        let probe = |place| tasks::spawn("probe", Arc::clone(&self).probe(place));
        let _probes: Vec<_> = (0..self.all.len()).map(probe).collect();
        self.elect().await;
    }

    async fn elect(&self) {
        let mut cycle = ElectionCycle::new(BootTime::now());
        loop {
            let mut task = cycle.next(BootTime::now());
            while let Some(current) = task {
                task = self.carry_out(current, &mut cycle).await;
                self.publish(cycle.current());
            }
            let wake = cycle.wake().expect("nothing is under way");
            tokio::select! {
                () = sleep(wake.since(BootTime::now())) => {}
                () = self.changed.notified(), if !cycle.is_hurried() => cycle.hurry(),
            }
        }
    }

    async fn carry_out(
        &self,
        task: ElectionTask,
        cycle: &mut ElectionCycle,
    ) -> Option<ElectionTask> {
        match task {
            ElectionTask::AskCatalog => {
                let said = self.ask_catalog().await;
                cycle.catalog_said(said, self.probed(), BootTime::now(), fastrand::f64())
            }
            ElectionTask::AskPolicy(view) => {
                let wanted = self.policy.elect(unix_ms(), &view).ok().flatten();
                cycle.policy_wants(wanted, BootTime::now(), fastrand::f64())
            }
            ElectionTask::Elect {
                expected,
                candidate,
            } => {
                let elected = self.elect_at_catalog(expected, candidate).await;
                self.measured.elected(elected.is_some());
                cycle.elected(elected, &self.probed(), BootTime::now())
            }
            ElectionTask::Announce {
                epoch,
                leader,
                replicas,
            } => {
                self.announce(epoch, leader, &replicas, cycle).await;
                cycle.announced(&self.probed(), BootTime::now());
                None
            }
        }
    }

    /// Who leads, according to the catalog; notes how far its journal reaches.
    ///
    /// # Errors
    /// Where it does not answer, or is another bazaar's.
    pub async fn ask_catalog(&self) -> Result<LeadershipAnswer, RetryClass> {
        let mut catalog = self.catalog.clone();
        let asked = BootTime::now();
        let answer = timeout(
            CATALOG_TIME_MAX,
            catalog.get_leadership(GetLeadershipRequest {
                journal: self.own_journal.to_wire(),
            }),
        )
        .await;
        let answer = match answer {
            Ok(Ok(answer)) => Some(answer.into_inner())
                .filter(|answer| self.is_ours(answer))
                .ok_or(RetryClass::Elsewhere),
            Ok(Err(status)) => {
                let is_elsewhere = RetryClass::of(&status) == RetryClass::Elsewhere;
                let is_other_journal = status.code() == OTHER_JOURNAL && is_elsewhere;
                // Who is of a release that cannot be here is told so.
                if is_other_journal || status.code() == Code::FailedPrecondition {
                    self.note_foreign(status.message());
                }
                tracing::debug!(%status, "the catalog does not say who leads");
                Err(RetryClass::of(&status))
            }
            Err(_) => Err(RetryClass::Later),
        };
        if answer.is_ok() {
            self.heard_catalog();
        }
        let waits = answer.as_ref().ok().map(wire::leadership::start_waits);
        let starting = waits
            .filter(|waits| !waits.are_over())
            .map(|waits| Starting {
                heard: BootTime::now(),
                waits,
            });
        // One that has started and checks ledgers yet may go on from a later term, and begins another.
        let answer = answer.and_then(|answer| match answer.healed {
            true => Ok(answer),
            false => Err(RetryClass::Later),
        });
        let journal = answer.as_ref().ok().and_then(read_journal);
        let in_sync = journal.as_ref().map(|journal| journal.in_sync.clone());
        self.catalog_said.send_if_modified(|said| {
            // Nobody waits to hear that it still does not answer.
            let is_news = journal.is_some() || said.journal.is_some();
            *said = CatalogSaid {
                asked,
                journal,
                starting,
            };
            is_news
        });
        let answer = answer?;
        Ok(LeadershipAnswer {
            term: read_term(&answer),
            in_sync: in_sync.unwrap_or_default(),
        })
    }

    /// Whether a catalog's answer is about this gateway's journal, which a new gateway takes from it, by a protocol that it
    /// speaks.
    fn is_ours(&self, leadership: &catalog::Leadership) -> bool {
        let heard = match identity::named(&leadership.journal) {
            Ok(journal) => self
                .own_journal
                .note_catalog(journal)
                .map_err(|other| other.to_string()),
            Err(unnamed) => Err(unnamed.to_string()),
        };
        let heard = heard.and_then(|()| {
            let protocol = wire::leadership::protocol(leadership);
            let protocol = protocol.map_err(|other| other.to_string())?;
            self.protocol.set(protocol);
            Ok(())
        });
        match heard {
            Ok(()) => {
                self.foreign.store(false, Ordering::Relaxed);
                true
            }
            Err(why) => {
                self.note_foreign(&why);
                false
            }
        }
    }

    /// Says once that a catalog is there which is not to be followed.
    fn note_foreign(&self, why: &str) {
        if !self.foreign.swap(true, Ordering::Relaxed) {
            tracing::error!(
                why,
                "the catalog is another bazaar's, or of other releases: nothing of it is served"
            );
        }
    }

    async fn elect_at_catalog(&self, expected: Epoch, candidate: ReplicaId) -> Option<Term> {
        let mut catalog = self.catalog.clone();
        let request = ElectRequest {
            expected_epoch: expected.0,
            candidate: candidate.get(),
            journal: self.own_journal.to_wire(),
        };
        match timeout(CATALOG_TIME_MAX, catalog.elect(request)).await {
            Ok(Ok(elected)) => {
                let elected = read_term(&elected.into_inner());
                tracing::info!(epoch = %elected.epoch, leader = elected.leader.map(tracing::field::display), wanted = %candidate, "elected");
                Some(elected)
            }
            Ok(Err(status)) => {
                tracing::warn!(%status, "election failed");
                None
            }
            Err(_) => {
                tracing::warn!("election not answered in time");
                None
            }
        }
    }

    /// Tells replicas who leads.
    async fn announce(
        &self,
        epoch: Epoch,
        leader: ReplicaId,
        replicas: &[ReplicaId],
        cycle: &mut ElectionCycle,
    ) {
        let asked = BootTime::now();
        let request = AnnounceRequest {
            epoch: epoch.0,
            leader: leader.get(),
            journal: self.own_journal.to_wire(),
        };
        let mut announcements = tokio::task::JoinSet::new();
        for (place, replica) in self.all.iter().enumerate() {
            if replicas.contains(&replica.id) {
                let mut client = replica.orders.clone();
                let request = request.clone();
                #[expect(clippy::disallowed_methods, reason = "joined below")]
                announcements.spawn(async move {
                    (
                        place,
                        timeout(ANNOUNCE_TIME_MAX, client.announce(request)).await,
                    )
                });
            }
        }
        while let Some(announced) = announcements.join_next().await {
            let Ok((place, Ok(answer))) = announced else {
                continue;
            };
            let id = self.all[place].id;
            match answer {
                Ok(status) => {
                    if let Ok(status) = self.read_status(status.into_inner()) {
                        self.note(place, Ok(status), asked, None);
                    }
                }
                Err(status) if cycle.announcement_failed(id, RetryClass::of(&status)) => {
                    tracing::info!(replica = %id, %epoch, %status, "will not lead this epoch");
                }
                Err(status) => tracing::debug!(replica = %id, %status, "announcement failed"),
            }
        }
    }

    fn publish(&self, led: CurrentLeader) {
        self.leader.send_if_modified(|before| {
            let is_news = led.is_news_after(before);
            if is_news {
                *before = led;
                self.changes.fetch_add(1, Ordering::Relaxed);
            }
            is_news
        });
    }
}

fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

fn read_term(leadership: &catalog::Leadership) -> Term {
    Term {
        epoch: Epoch(leadership.epoch),
        leader: ReplicaId::new(leadership.leader),
    }
}

fn read_journal(leadership: &catalog::Leadership) -> Option<Journal> {
    let in_sync = leadership.in_sync.iter().copied();
    let in_sync = in_sync.filter_map(ReplicaId::new);
    Some(Journal {
        rows: RowNumber(leadership.journal_rows),
        stock_changes: leadership.stock_changes,
        commits_fail: leadership.commits_fail,
        chain: ChainHash::try_from(leadership.chain_hash.as_slice()).ok()?,
        in_sync: in_sync.collect(),
    })
}
