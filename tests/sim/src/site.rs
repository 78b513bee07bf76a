//! Several catalogs over one database: what happens to them, and what must hold of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use catalog_core::Rule;
use simulated_disk::Death;

use crate::clockwork::{Clock, Clockwork};
use crate::effects::Effect;
use crate::member::{Member, Output};
use crate::messages::{Caller, FromGateway, Node, Purpose, Request, Run, Told};
use crate::plan::{Plan, Without};
use crate::postgres::{self, Cluster};
use crate::timeline::Happening;
use crate::world::World;

/// How often a process asks the catalog that it follows whether it is active, how long the answer may take until the
/// others are asked as well, and how long theirs may take: as `rpc::failover` has it.
const ASK_INTERVAL: Duration = Duration::from_millis(250);
const ANSWER_TIME_MAX: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(2);
const SEARCH_PAUSE: Duration = Duration::from_millis(50);

/// Catalogs and their database.
pub struct Site {
    pub works: Clockwork<Output>,
    pub cluster: Cluster,
    pub members: BTreeMap<usize, Member>,
    /// Who follows whom, and whether it looks for another one.
    searching: BTreeSet<Node>,
    /// The catalog that loaded last what is committed.
    newest: Option<Run>,
    /// How often the database had lost rows, as far as a catalog has put them back.
    healed: u64,
}

impl Site {
    pub fn new(plan: &Plan) -> Self {
        let mut cluster = Cluster::new();
        let without = Without::Catalog(Rule::WriterFence);
        cluster.has_no_fence = plan.without == Some(without);
        Self {
            works: Clockwork::new(),
            cluster,
            members: BTreeMap::new(),
            searching: BTreeSet::new(),
            newest: None,
            healed: 0,
        }
    }

    /// The catalog that loaded last, and the primary.
    pub fn store_link(&self) -> Option<(Node, Node)> {
        let primary = Node::Database(self.cluster.primary()?);
        Some((self.newest?.node, primary))
    }

    /// Whether the database has all that it acknowledged.
    pub fn is_whole(&self) -> bool {
        self.cluster.losses == self.healed
    }
}

impl World {
    fn site(&mut self) -> &mut Site {
        self.site.as_mut().expect("there are several catalogs")
    }

    /// Lets catalogs do what they do until the next thing happens elsewhere.
    pub fn run_catalogs(&mut self) {
        while let Some(next) = self.line.next_at()
            && let Some(site) = &self.site
            && site.works.run_until(next)
        {
            let now = site.works.now();
            self.line.advance(now);
            while let Some(output) = self.site().works.outbox.pop() {
                self.put_out(output);
            }
            self.mind_members();
        }
    }

    fn put_out(&mut self, output: Output) {
        let run = match &output {
            Output::Dial { client, .. } => Some(*client),
            Output::Sent { .. } => None,
            Output::Opened { run, .. }
            | Output::Active { run, .. }
            | Output::Committed { run, .. }
            | Output::Proposed { run, .. }
            | Output::Reply { run, .. }
            | Output::Session { run, .. }
            | Output::LacksRow(run)
            | Output::Ended { run, .. } => Some(*run),
        };
        // What a process said that was killed at that time is not heard.
        if run.is_some_and(|run| !self.line.runs(run)) {
            return;
        }
        match output {
            Output::Dial { client, host, made } => {
                let (line, site) = (&mut self.line, self.site.as_mut().expect("several"));
                site.cluster.dial(line, client, &host, made);
            }
            Output::Sent { connection, bytes } => {
                let (line, site) = (&mut self.line, self.site.as_mut().expect("several"));
                site.cluster.sent(line, connection, &bytes);
            }
            Output::Opened {
                run,
                state,
                rows,
                may_lack_rows,
                silent,
            } => {
                let restored = !self.site().is_whole();
                self.line.note(30, Some(run.node), || {
                    format!("{:?} takes over with {} orders", run.node, rows.len())
                });
                self.oracle
                    .catalog_opened(&state, restored, || rows.clone());
                let before = self.site().newest.replace(run);
                if before.is_some_and(|before| before.node != run.node) {
                    self.line.came(Effect::TakenOver);
                }
                let losses = self.site().cluster.losses;
                let given_up = self.oracle.silent();
                let member = self.member(run);
                (member.has_opened, member.losses) = (true, losses);
                member.knows_loss = may_lack_rows && given_up.is_empty();
                self.catalog_starts(run.node);
                let _ = silent.send(given_up); // it may be gone
            }
            Output::Active { run, serving } => {
                let Node::Member(index) = run.node else {
                    unreachable!("a catalog")
                };
                let site = self.site.as_mut().expect("several");
                let member = site.members.get_mut(&index).expect("it runs");
                member.activate(&site.works, serving);
            }
            Output::Committed { run, batch } => {
                // A late answer may be of rows that the database has lost since.
                let is_newest = self.site().newest == Some(run);
                if is_newest || self.site().cluster.losses == 0 {
                    self.oracle.committed(&batch, is_newest);
                }
            }
            Output::Proposed { run, caller, rows } => self.line.propose(run.node, caller, rows),
            Output::Reply {
                run,
                caller,
                told,
                is_healed,
                is_uncertain,
            } => {
                if is_uncertain {
                    self.line.came(Effect::AnswerWithheld);
                }
                if !is_healed || self.is_minded(run) {
                    self.line.reply(run.node, caller, told);
                }
            }
            Output::Session {
                run,
                stream,
                what,
                is_healed,
            } => {
                if is_healed && !self.is_minded(run) {
                    return;
                }
                match what {
                    Some(what) => self.line.send_down(stream, what),
                    None => self.line.break_stream(stream, Duration::from_micros(100)),
                }
            }
            Output::LacksRow(run) => {
                assert!(
                    self.oracle.was_apart(),
                    "a catalog believes that it lacks a row"
                );
                self.crash(run.node, Death::Killed);
            }
            Output::Ended {
                run,
                why,
                is_released,
            } => {
                self.line
                    .note(31, Some(run.node), || format!("{:?} ends: {why}", run.node));
                if is_released {
                    self.line.came(Effect::HandedOver);
                }
                self.crash(run.node, Death::Killed);
            }
        }
    }

    fn member(&mut self, run: Run) -> &mut Member {
        let Node::Member(index) = run.node else {
            unreachable!("a catalog")
        };
        self.site().members.get_mut(&index).expect("it runs")
    }

    /// Before anything is heard of a catalog that serves from now on: whether it goes on.
    fn is_minded(&mut self, run: Run) -> bool {
        let is_newest = self.site().newest == Some(run);
        let member = self.member(run);
        if member.is_judged || !is_newest || !member.is_healed() {
            return true;
        }
        member.is_judged = true;
        let losses = member.losses;
        if !self.oracle.is_apart() {
            return true;
        }
        if self.oracle.lacks_acknowledged() {
            self.stop_unnoticed_member(run);
            return false;
        }
        if self.member(run).has_put_back() {
            self.line.came(Effect::DatabaseHealed);
        }
        self.oracle.opened();
        self.site().healed = losses;
        true
    }

    /// A catalog that lacks what was acknowledged has waited for replicas in vain: it says so, and is stopped before it
    /// serves. That is all that is excused, and only where somebody who has it could not tell it, and nothing said that the
    /// database came back, as of an older copy on the same timeline.
    fn stop_unnoticed_member(&mut self, run: Run) {
        assert!(
            !self.member(run).knows_loss,
            "a catalog would serve a database that it knows to have come back without what was acknowledged"
        );
        let ledgers = self.operator.ledgers.clone();
        let rows = self.member(run).rows();
        for (id, ledger) in ledgers {
            let hindered = &self.operator.hindered;
            let nodes = [run.node, Node::Replica(id)];
            let was_hindered = nodes.iter().any(|node| hindered.contains(node));
            let may_be = was_hindered && !self.member(run).heard.contains(&id);
            assert!(
                ledger <= rows || may_be,
                "a catalog would serve {rows} orders, and replica {id} has {ledger}"
            );
        }
        self.line.came(Effect::LossUnnoticed);
        self.crash(run.node, Death::Killed);
    }

    /// What must hold of all catalogs together.
    fn mind_members(&mut self) {
        if let Some(newest) = self.site().newest.filter(|&run| self.line.runs(run)) {
            self.is_minded(newest);
        }
        let (site, line) = (self.site.as_mut().expect("several"), &self.line);
        for member in site.members.values_mut() {
            member.check();
            member.let_in(&site.works);
        }
        let answering = site.members.values();
        let answering: Vec<Run> = answering
            .filter(|member| member.may_answer(line.clock(member.run.node)))
            .map(|member| member.run)
            .collect();
        assert!(
            answering.len() <= 1,
            "several catalogs answer at a time: {answering:?}"
        );
        self.oracle.checks += 1;
    }

    /// Something happens to servers.
    pub fn happen_to_database(&mut self, event: postgres::Event) {
        let (line, site) = (&mut self.line, self.site.as_mut().expect("several"));
        let Site { works, cluster, .. } = site;
        cluster.happen(line, event, works.handle(), &works.outbox);
    }

    pub fn start_member(&mut self, index: usize) {
        let run = self.line.run(Node::Member(index));
        let host = self.line.host(run.node).clone();
        let plan = self.plan;
        let site = self.site();
        let clock = Clock::new(site.works.began(), host);
        let member = Member::start(&site.works, clock, &plan, run);
        site.members.insert(index, member);
    }

    /// A catalog is told to stop. One that has nothing to let go of just ends.
    pub fn stop_member(&mut self, index: usize) {
        let site = self.site();
        let Some(member) = site.members.get_mut(&index) else {
            return;
        };
        if !member.is_stopping && !member.stop(&site.works) {
            self.crash(Node::Member(index), Death::Killed);
        }
    }

    /// Catalogs that wait for replicas are started again: one of them has nothing to tell any more.
    pub fn restart_healing_members(&mut self) {
        let Some(site) = &self.site else { return };
        let heals = |member: &&Member| member.has_opened && !member.is_healed();
        let healing: Vec<Node> = site
            .members
            .values()
            .filter(heals)
            .map(|it| it.run.node)
            .collect();
        for node in healing {
            self.crash(node, Death::Killed);
        }
    }

    pub fn ask_member(&mut self, index: usize, caller: Caller, request: Request) {
        let site = self.site.as_mut().expect("several");
        match site.members.get_mut(&index) {
            Some(member) => member.request(&site.works, caller, request),
            None if self.line.random.bool() => {
                self.line
                    .break_call(caller.call, Duration::from_micros(200));
            }
            None => {}
        }
    }

    pub fn stream_to_member(&mut self, index: usize, stream: u64, what: Option<FromGateway>) {
        let now = self.line.clock(Node::Member(index));
        let random = self.line.random.u64(..);
        let site = self.site.as_mut().expect("several");
        match site.members.get_mut(&index) {
            Some(member) => member.streamed(&site.works, stream, what, now, random),
            None => self.line.break_stream(stream, Duration::from_micros(200)),
        }
    }
}

/// Processes follow the catalog that says that it is active.
impl World {
    /// A process that starts follows any.
    pub fn begin_following(&mut self, run: Run) {
        if self.site.is_none() {
            return;
        }
        let any = self.line.random.usize(..self.plan.catalogs);
        self.site().searching.remove(&run.node);
        self.line.follows.insert(run.node, any);
        let now = self.line.now();
        self.line.schedule(now, Happening::Follow(run, any));
    }

    /// Asks a catalog whether it is active.
    pub fn follow(&mut self, run: Run, asked: usize) {
        let is_searching = self.site().searching.contains(&run.node);
        let follows = self.line.follows[&run.node];
        if !self.line.runs(run) || !is_searching && asked != follows {
            return;
        }
        let time_max = if is_searching {
            PATIENCE
        } else {
            ANSWER_TIME_MAX
        };
        let purpose = Purpose::AskIfActive(asked);
        let request = Request::GetLeadership;
        self.line
            .call(run, Node::Member(asked), request, time_max, purpose);
    }

    /// A catalog said whether it is.
    pub fn followed(&mut self, run: Run, asked: usize, told: &Told) {
        let follows = self.line.follows[&run.node];
        let is_searching = self.site().searching.contains(&run.node);
        if told.is_ok() && (is_searching || asked == follows) {
            self.site().searching.remove(&run.node);
            if asked != follows {
                self.line.follow(run, asked);
            }
            return self.line.after(ASK_INTERVAL, Happening::Follow(run, asked));
        }
        if is_searching {
            self.line.after(SEARCH_PAUSE, Happening::Follow(run, asked));
        } else if asked == follows {
            self.site().searching.insert(run.node);
            for other in 0..self.plan.catalogs {
                self.follow(run, other);
            }
        }
    }
}

/// In the end.
impl World {
    /// The database has what was promised.
    pub fn settle_database(&self) {
        let site = self.site.as_ref().expect("several");
        let chains = site.cluster.chains().expect("there is a primary");
        let journal = self.oracle.journal();
        let committed: Vec<Vec<u8>> = journal
            .iter()
            .map(|row| row.chain.as_bytes().to_vec())
            .collect();
        assert_eq!(chains, committed, "the database's journal");
        let stocks = site.cluster.stocks().expect("there is a primary");
        self.oracle.check_stocks(stocks);
    }
}
