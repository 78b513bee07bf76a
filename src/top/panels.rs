//! What each panel says, in lines of so many columns.

use frontend_policy::rollout::Progress;
use jiff::Timestamp;
use ratatui_core::text::{Line, Span};

use super::alarms::Alarm;
use super::board::{Board, Decided, PolicyShown, Service, State, Traffic, leading};
use super::figures::{Route, Stage};
use super::model::{Look, Panel, Period, Sort};
use super::moment::{Moment, Told, is_by_itself};
use super::table::{Cell, Column, Fit, Palette, Tone, mark, table};
use super::text::{
    UNKNOWN, ago, count, counted, known, lately, rate, share, short, span as long, time, wrapped,
};
use crate::admin::{Change, Incident, Policies, Policy};

/// Lines of an alarm: where alarms are looked at, else; and on narrow screens, which these are.
const ALARM_LINES_MAX: usize = 4;
const ALARM_LINES: usize = 1;
const ALARM_LINES_NARROW: usize = 2;
const NARROW_MAX: usize = 79;

/// Lines of a reason, and of other texts of others.
const WHY_LINES_MAX: usize = 3;

/// Changes and failures that are shown of each gateway's policy, and groups of differences.
const CHANGES_MAX: usize = 5;
const INCIDENTS_MAX: usize = 3;
const GROUPS_MAX: usize = 3;

/// A panel: what it is about, and what it says.
#[derive(Debug, Clone)]
pub struct Said {
    pub title: String,
    pub lines: Vec<Line<'static>>,
}

/// What a panel says of a board.
pub fn said(panel: Panel, board: &Board, look: &Look, columns: usize, palette: Palette) -> Said {
    let write = Writer { columns, palette };
    match panel {
        Panel::Alarms => write.alarms(&board.alarms, look.focus == Panel::Alarms),
        Panel::Services => write.services(board),
        Panel::Routes => write.routes(board, look),
        Panel::Stages => write.stages(board, look),
        Panel::Policy => write.policies(board),
    }
}

/// Requests and trades over the time that is looked at, and which that is.
fn traffic(board: &Board, look: &Look) -> (Option<Traffic>, String) {
    match look.period {
        Period::SinceStart => (Some(board.since_start.clone()), "since start".to_owned()),
        Period::Minute => {
            let seconds = board.minute.as_ref().and_then(|minute| minute.seconds);
            (board.minute.clone(), lately(seconds))
        }
    }
}

/// Writes lines of so many columns.
#[derive(Debug, Clone, Copy)]
struct Writer {
    columns: usize,
    palette: Palette,
}

impl Writer {
    fn line(self, text: impl Into<String>, tone: Tone) -> Line<'static> {
        self.joined([Cell::new(text, tone)])
    }

    /// Texts one behind the other, as far as there is room.
    fn joined(self, cells: impl IntoIterator<Item = Cell>) -> Line<'static> {
        let mut room = self.columns;
        let spans = cells.into_iter().map(|Cell { text, tone }| {
            let text = super::text::cut(&text, room);
            room -= super::text::width(&text);
            self.palette.span(text, tone)
        });
        Line::from(spans.collect::<Vec<_>>())
    }

    /// A text over several lines, each behind an indent.
    fn text(self, text: &str, indent: usize, lines_max: usize, tone: Tone) -> Vec<Line<'static>> {
        let room = self.columns.saturating_sub(indent);
        let lines = wrapped(text, room, lines_max).into_iter();
        let lines = lines.map(|line| {
            let indent = Span::raw(super::text::spaces(indent.min(self.columns)));
            Line::from(vec![indent, self.palette.span(line, tone)])
        });
        lines.collect()
    }

    // ---- alarms ----

    fn alarms(self, alarms: &[Alarm], are_looked_at: bool) -> Said {
        let lines_max = match are_looked_at {
            true => ALARM_LINES_MAX,
            false if self.columns <= NARROW_MAX => ALARM_LINES_NARROW,
            false => ALARM_LINES,
        };
        let title = match alarms.len() {
            0 => "All is well".to_owned(),
            many => counted(many as u64, "alarm"),
        };
        let lines = alarms.iter().flat_map(|alarm| self.alarm(alarm, lines_max));
        Said {
            title,
            lines: lines.collect(),
        }
    }

    fn alarm(self, alarm: &Alarm, lines_max: usize) -> Vec<Line<'static>> {
        let Alarm {
            severity,
            name,
            words,
            what,
        } = alarm;
        let state = State::from(*severity);
        let head = format!("{} {}: ", mark(state), severity.name());
        let text = format!("{head}{words} [{name}]. {what}");
        let room = self.columns.saturating_sub(2);
        let mut lines = wrapped(&text, room, lines_max).into_iter();
        let first = lines.next().map(|line| {
            // What is wrong stands out of what it means.
            let loud = head.len() + words.len();
            let end = (0..=loud.min(line.len()))
                .rev()
                .find(|end| line.is_char_boundary(*end));
            let (loud, rest) = line.split_at(end.unwrap_or(0));
            let loud = self.palette.span(loud, Tone::Of(state));
            Line::from(vec![loud, Span::raw(rest.to_owned())])
        });
        first
            .into_iter()
            .chain(lines.map(|line| self.line(format!("  {line}"), Tone::Plain)))
            .collect()
    }

    // ---- services ----

    fn services(self, board: &Board) -> Said {
        let now = &board.now;
        let mut title = format!("Services · {}", leading(now));
        if let Some(protocol) = now.protocol {
            title += &format!(" · protocol {protocol}");
        }
        if !now.gateways_known {
            title += " · other gateways are not known";
        }
        let headings = [
            Column::new("", 0, Fit::Left),
            Column::new("service", 0, Fit::Least(16)),
            Column::new("role", 1, Fit::Left),
            Column::new("how it does", 0, Fit::Least(28)),
            Column::new("epoch", 2, Fit::Right),
            Column::new("lag", 4, Fit::Left),
            Column::new("lease", 3, Fit::Left),
            Column::new("orders", 5, Fit::Right),
            Column::new("last hash", 8, Fit::Left),
            Column::new("up", 6, Fit::Right),
            Column::new("release", 7, Fit::Left),
        ];
        let rows: Vec<_> = board.services.iter().map(service).collect();
        let mut lines = table(&headings, &rows, self.columns, self.palette);
        let others = board.others.iter();
        lines.extend(others.map(|words| self.line(format!("gateways: {words}"), Tone::Quiet)));
        Said { title, lines }
    }

    // ---- requests ----

    fn routes(self, board: &Board, look: &Look) -> Said {
        let (traffic, over) = traffic(board, look);
        let title = format!("Requests · {over}, all gateways · {}", look.sort.words());
        let Traffic {
            seconds, routes, ..
        } = traffic.unwrap_or_default();
        let mut routes: Vec<_> = routes
            .into_iter()
            .filter(|route| route.count > 0.0)
            .collect();
        if routes.is_empty() {
            let lines = vec![self.line("nothing was asked", Tone::Quiet)];
            return Said { title, lines };
        }
        let finite = |p99: Option<f64>| p99.unwrap_or(0.0);
        let slowest = routes.iter().map(|route| finite(route.p99));
        let slowest = slowest.fold(0.0, f64::max);
        let key = |route: &Route| match look.sort {
            Sort::Rate => route.count,
            Sort::Slowest => finite(route.p99),
            Sort::Errors => route.failed,
        };
        routes.sort_by(|one, other| key(other).total_cmp(&key(one)));
        let how_often = match seconds {
            Some(_) => "per s",
            None => "count",
        };
        let headings = [
            Column::new("route", 0, Fit::Least(12)),
            Column::new(how_often, 1, Fit::Right),
            Column::new("hits", 3, Fit::Right),
            Column::new("4xx", 4, Fit::Right),
            Column::new("5xx", 2, Fit::Right),
            Column::new("p50", 5, Fit::Right),
            Column::new("p90", 6, Fit::Right),
            Column::new("p99", 1, Fit::Right),
        ];
        let rows: Vec<_> = routes
            .iter()
            .map(|route| {
                let is_slowest = slowest > 0.0 && finite(route.p99) == slowest;
                route_row(route, seconds, is_slowest)
            })
            .collect();
        Said {
            title,
            lines: table(&headings, &rows, self.columns, self.palette),
        }
    }

    // ---- trades ----

    fn stages(self, board: &Board, look: &Look) -> Said {
        let (traffic, over) = traffic(board, look);
        let title = format!("Trades by stage · {over}, all gateways");
        let traffic = traffic.unwrap_or_default();
        let trades = traffic.trades;
        let missed = match trades.unavailable > 0.0 {
            true => Tone::Of(State::Bad),
            false => Tone::Plain,
        };
        let [traded, refused, unavailable] =
            [trades.traded, trades.refused, trades.unavailable].map(|all| count(all as u64));
        let became = self.joined([
            Cell::from(format!("{traded} traded · {refused} refused · ")),
            Cell::new(format!("{unavailable} not answered in time"), missed),
        ]);
        let headings = [
            Column::new("stage", 0, Fit::Least(14)),
            Column::new("count", 2, Fit::Right),
            Column::new("p50", 1, Fit::Right),
            Column::new("p99", 0, Fit::Right),
        ];
        let rows: Vec<_> = traffic.stages.iter().map(stage_row).collect();
        let mut lines = vec![became];
        lines.extend(table(&headings, &rows, self.columns, self.palette));
        Said { title, lines }
    }

    // ---- policies ----

    fn policies(self, board: &Board) -> Said {
        let title = match &*board.policies {
            [one] => format!("Policy · gateway {}", one.key),
            _ => "Policies, by gateway".to_owned(),
        };
        let mut lines = Vec::new();
        for shown in &board.policies {
            if board.policies.len() > 1 {
                lines.push(self.line(format!("gateway {}", shown.key), Tone::Strong));
            }
            match &shown.told.policy {
                Told::Policies(policies) => {
                    lines.extend(self.policy(policies, shown, &board.now));
                }
                Told::Nothing if shown.is_cut => {
                    let cut =
                        "It is too long to be sent: see it at that gateway's own admin address.";
                    lines.extend(self.text(cut, 0, WHY_LINES_MAX, Tone::Quiet));
                }
                Told::Nothing => lines.push(self.line("not known yet", Tone::Quiet)),
                Told::Unclear => {
                    let unclear = "What it says of its policy is not in its form.";
                    lines.extend(self.text(unclear, 0, WHY_LINES_MAX, Tone::Of(State::Warning)));
                }
            }
        }
        Said { title, lines }
    }

    fn policy(self, policies: &Policies, shown: &PolicyShown, now: &Moment) -> Vec<Line<'static>> {
        let mut lines = Vec::new();
        if let Some(closed) = &policies.closed {
            let text = format!("X nobody is served: {closed}");
            lines.extend(self.text(&text, 0, WHY_LINES_MAX, Tone::Of(State::Bad)));
        }
        if let Some(age) = shown.age {
            let text = format!(
                "What is shown here is {} old: whoever changes the policy waits for that gateway's disk.",
                long(age)
            );
            lines.extend(self.text(&text, 0, WHY_LINES_MAX, Tone::Of(State::Warning)));
        }
        let [of_active, of_candidate] = &shown.decided;
        if let Some(active) = &policies.active {
            let since = known(shown.active, |seconds| format!("for {}", long(seconds)));
            lines.extend(self.version("active", active, &since, of_active.as_ref()));
        }
        if let Some(candidate) = &policies.candidate {
            let part = candidate.share.map_or_else(String::new, share);
            let who = candidate.who.as_ref();
            let who = who.map_or_else(String::new, |who| format!(", by {who}"));
            let terms = format!("{part}{who}");
            lines.extend(self.version(&candidate.stage, candidate, &terms, of_candidate.as_ref()));
            if let Some(rollout) = &candidate.rollout {
                lines.extend(self.rollout(rollout));
            }
            lines.extend(self.differences(shown));
        }
        for change in policies.changes.iter().take(CHANGES_MAX) {
            lines.extend(self.change(change, now));
        }
        lines.extend(self.incidents(policies, now));
        lines
    }

    /// What decides, or would.
    fn version(
        self,
        stage: &str,
        version: &Policy,
        terms: &str,
        decided: Option<&Decided>,
    ) -> Vec<Line<'static>> {
        let Policy {
            name,
            version: number,
            digest,
            ..
        } = version;
        let mut cells = vec![
            Cell::from(format!("{stage}: ")),
            Cell::new(format!("{name} {number}"), Tone::Strong),
            Cell::new(format!(" {} {terms}", short(digest)), Tone::Quiet),
        ];
        if version.on_probation {
            cells.push(Cell::new(" on probation", Tone::Of(State::Warning)));
        }
        if version.condemned {
            cells.push(Cell::new(" fails too often", Tone::Of(State::Bad)));
        }
        let mut lines = vec![self.joined(cells)];
        if let Some(decided) = decided {
            let failed = match decided.failed > 0.0 {
                true => Tone::Of(State::Bad),
                false => Tone::Plain,
            };
            let mut cells = vec![
                Cell::from(format!(
                    "  {} decisions/s, p99 {}, ",
                    rate(decided.per_second),
                    known(decided.p99, time)
                )),
                Cell::new(format!("{} failed", count(decided.failed as u64)), failed),
            ];
            if decided.impure > 0.0 {
                let impure = format!(", {} came out differently", count(decided.impure as u64));
                cells.push(Cell::new(impure, Tone::Of(State::Warning)));
            }
            if version.held > 0 {
                let held = format!(", {} held against it", counted(version.held, "failure"));
                cells.push(Cell::new(held, Tone::Of(State::Warning)));
            }
            lines.push(self.joined(cells));
        }
        lines
    }

    /// How far a rollout is, and what is seen with the intervals that it is judged by.
    fn rollout(self, rollout: &Progress) -> Vec<Line<'static>> {
        let state = match rollout.state.as_str() {
            "running" => Tone::Plain,
            _ => Tone::Of(State::Warning),
        };
        let doing = match rollout.state.as_str() {
            "gate" => "waits for its gate",
            state => state,
        };
        let (elapsed, within) = (rollout.elapsed_ms as f64, rollout.within_ms as f64);
        let text = format!(
            "rollout, step {} of {}, {}: {doing}, {} of {}, {} of {} samples",
            rollout.step,
            rollout.steps,
            rollout.doing,
            long(elapsed / 1000.0),
            long(within / 1000.0),
            count(rollout.samples),
            count(rollout.samples_min),
        );
        let mut lines = self.text(&text, 2, WHY_LINES_MAX, state);
        if let Some(why) = &rollout.why {
            lines.extend(self.text(why, 2, WHY_LINES_MAX, Tone::Of(State::Warning)));
        }
        for measure in &rollout.measures {
            let (words, tone) = match measure.judged.as_str() {
                "within" => ("within its limit", Tone::Of(State::Well)),
                "beyond" => ("beyond its limit", Tone::Of(State::Bad)),
                _ => ("not shown yet", Tone::Plain),
            };
            let text = format!("{} {words}: {}", measure.name, measure.seen);
            lines.extend(self.text(&text, 4, 2, tone));
            for interval in &measure.intervals {
                let value = |value: f64| shown_value(value, &interval.unit);
                let high = known(interval.high, value);
                let limit = interval.limit;
                let limit = limit.map_or_else(String::new, |it| format!(", limit {}", value(it)));
                let text = format!("{}: {} to {high}{limit}", interval.of, value(interval.low));
                lines.extend(self.text(&text, 6, 1, Tone::Quiet));
            }
        }
        lines
    }

    fn differences(self, shown: &PolicyShown) -> Vec<Line<'static>> {
        let Some(found) = shown.told.differences.as_ref().filter(|it| it.compared > 0) else {
            return Vec::new();
        };
        let (different, compared) = (count(found.different), count(found.compared));
        let text = format!("{different} of {compared} decisions that both made differ");
        let mut lines = self.text(&text, 2, 2, Tone::Plain);
        for group in found.groups.iter().take(GROUPS_MAX) {
            let part = |text: &str| match text {
                "" => "…".to_owned(),
                text => text.to_owned(),
            };
            let (from, to) = (part(&group.from), part(&group.to));
            let (times, route) = (count(group.count), &group.route);
            let text = format!("{times} × {route} {}: {from} → {to}", group.field);
            lines.extend(self.text(&text, 4, 1, Tone::Quiet));
        }
        lines
    }

    fn change(self, change: &Change, now: &Moment) -> Vec<Line<'static>> {
        let Change { who, why, .. } = change;
        let what = what_was_done(&change.what);
        let seconds = now.seconds_since(change.at_ms);
        let (by, tone) = match is_by_itself(change) {
            true => ("by the gateway itself".to_owned(), Tone::Of(State::Bad)),
            false => (format!("by {who}"), Tone::Strong),
        };
        let mut lines = vec![self.joined([
            Cell::new(format!("{what} {by}"), tone),
            Cell::new(
                format!(" {}, {}", at(change.at_ms), ago(seconds)),
                Tone::Quiet,
            ),
        ])];
        let why = match why.as_str() {
            "not said" => "without a reason",
            why => why,
        };
        lines.extend(self.text(why, 2, WHY_LINES_MAX, Tone::Plain));
        let (from, to) = (&change.from, &change.to);
        let named = |name: &Option<String>, digest: &str| match name {
            Some(name) => format!("{name} {}", short(digest)),
            None => short(digest),
        };
        let to = named(&change.to_name, to);
        let mut versions = match change.from == change.to {
            true => to,
            false => format!("{} → {to}", named(&change.from_name, from)),
        };
        if let Some(candidate) = &change.candidate {
            versions += &format!(", candidate {}", named(&change.candidate_name, candidate));
        }
        lines.extend(self.text(&versions, 2, 2, Tone::Quiet));
        if let Some(incident) = &change.incident {
            lines.extend(self.incident(incident, 2));
        }
        lines
    }

    /// Decisions that failed, the newest first.
    fn incidents(self, policies: &Policies, now: &Moment) -> Vec<Line<'static>> {
        let versions = [&policies.active, &policies.candidate]
            .into_iter()
            .flatten();
        let all =
            versions.flat_map(|version| version.incidents.iter().map(move |it| (version, it)));
        let mut all: Vec<_> = all.collect();
        all.sort_by_key(|(_, incident)| std::cmp::Reverse(incident.at_ms));
        let all = all.into_iter().take(INCIDENTS_MAX);
        all.flat_map(|(version, incident)| {
            let ago = ago(now.seconds_since(incident.at_ms));
            let text = format!("failure of {} {}, {ago}", version.name, version.version);
            let mut lines = vec![self.line(text, Tone::Of(State::Bad))];
            lines.extend(self.incident(incident, 2));
            lines
        })
        .collect()
    }

    fn incident(self, incident: &Incident, indent: usize) -> Vec<Line<'static>> {
        let Incident {
            kind,
            request,
            cause,
            ..
        } = incident;
        let kind = match kind.as_str() {
            "trap" => "trapped",
            "overrun" => "took too long",
            "invalid" => "answered what makes no sense",
            "slow" => "wasted time",
            "error" => "answered 500",
            kind => kind,
        };
        self.text(
            &format!("{kind} at {request}: {cause}"),
            indent,
            2,
            Tone::Quiet,
        )
    }
}

fn service(service: &Service) -> [Cell; 11] {
    let Service {
        state,
        name,
        role,
        says,
        epoch,
        lag,
        lease,
        orders,
        hash,
        up,
        release,
    } = service;
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| UNKNOWN.to_owned());
    let number = |number: &Option<u64>| number.map_or_else(|| UNKNOWN.to_owned(), count);
    let tone = Tone::Of(*state);
    let says_tone = match state {
        State::Well => Tone::Plain,
        _ => tone,
    };
    let role_tone = match role.as_str() {
        "leader" | "active" => Tone::Strong,
        _ => Tone::Plain,
    };
    [
        Cell::new(mark(*state), tone),
        name.clone().into(),
        Cell::new(role.clone(), role_tone),
        Cell::new(says.clone(), says_tone),
        number(epoch).into(),
        or_dash(lag).into(),
        or_dash(lease).into(),
        number(orders).into(),
        or_dash(hash).into(),
        known(*up, long).into(),
        or_dash(release).into(),
    ]
}

fn route_row(route: &Route, seconds: Option<f64>, is_slowest: bool) -> [Cell; 8] {
    let name = match route.name.as_str() {
        "stock" => "look up a stock",
        "stocks" => "list stocks",
        "order" => "look up an order",
        "orders" => "list orders",
        "events" => "follow orders",
        "policy" => "by the policy itself",
        "refused" => "refused by HTTP",
        name => name,
    };
    let name = match is_slowest {
        true => Cell::new(format!("{name} (slowest)"), Tone::Strong),
        false => name.into(),
    };
    let hits = (route.lookups > 0.0).then(|| route.hits / route.lookups);
    let failed = match route.failed > 0.0 {
        true => Tone::Of(State::Bad),
        false => Tone::Plain,
    };
    let how_often = match seconds {
        Some(_) => rate(route.rate),
        None => count(route.count as u64),
    };
    [
        name,
        how_often.into(),
        known(hits, share).into(),
        count(route.refused as u64).into(),
        Cell::new(count(route.failed as u64), failed),
        known(route.p50, time).into(),
        known(route.p90, time).into(),
        known(route.p99, time).into(),
    ]
}

fn stage_row(stage: &Stage) -> [Cell; 4] {
    let name = match stage.name {
        "place" => "at the gateway",
        "lead" => "  at the leader",
        "commit" => "    catalog, and back",
        "queue" => "      waits its turn",
        "store" => "      is made durable",
        "show" => "      caches let go",
        "append" => "    followers' disks",
        name => name,
    };
    [
        name.into(),
        count(stage.count).into(),
        known(stage.p50, time).into(),
        known(stage.p99, time).into(),
    ]
}

fn what_was_done(what: &str) -> &str {
    match what {
        "activate" => "activated",
        "configure" => "configured anew",
        "shadow" => "put in the shadow",
        "canary" => "put on trial as a canary",
        "drop" => "candidate dropped",
        "promote" => "promoted",
        "rollback" => "rolled back",
        "rollout" => "rollout begun",
        "step" => "rollout: next step",
        "pause" => "rollout paused",
        "resume" => "rollout resumed",
        "skip" => "rollout: step skipped",
        "fallback" => "started with another version",
        "record" => "recording of requests begun",
        "recorded" => "recording ended",
        "raise" => "protocol to be raised",
        "not-raised" => "protocol not raised",
        what => what,
    }
}

/// Of an interval: a share of 1, or a time in microseconds.
fn shown_value(value: f64, unit: &str) -> String {
    match unit {
        "us" => time(value / 1e6),
        _ if value < 0.0 => format!("-{}", share(-value)),
        _ => share(value),
    }
}

/// When, to the second.
fn at(at_ms: u64) -> String {
    let at = Timestamp::from_millisecond(at_ms.try_into().unwrap_or(i64::MAX));
    at.map_or_else(|_| UNKNOWN.to_owned(), |at| format!("{at:.0}"))
}
