//! What is known and how it is looked at: news and keys come in, and a board to draw is there.

use std::time::{Duration, Instant};

use super::board::Board;
use super::figures::History;
use super::moment::{AllPolicies, Gone, Moment};
use super::seen::Seen;
use super::stream::News;

/// All there is to see, and how.
#[derive(Debug, Default)]
pub struct Model {
    history: History,
    latest: Option<Moment>,
    policies: AllPolicies,
    /// Gateways that were there, and those of them that are gone.
    seen: Seen,
    gone: Vec<Gone>,
    /// When the latest moment came.
    heard: Option<Instant>,
    pub shown: Option<Shown>,
    /// Why the gateway is not heard.
    pub lost: Option<String>,
    pub look: Look,
}

/// What is drawn.
#[derive(Debug)]
pub struct Shown {
    pub board: Board,
    /// When it was said.
    pub at: Instant,
}

/// How it is looked at.
#[derive(Debug, Clone, Default)]
pub struct Look {
    pub focus: Panel,
    /// Lines of each panel that are above what is seen of it.
    pub above: [usize; Panel::ALL.len()],
    pub sort: Sort,
    pub period: Period,
    /// What is shown stays.
    pub is_paused: bool,
    pub is_help: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Panel {
    Alarms,
    #[default]
    Services,
    Routes,
    Stages,
    Policy,
}

impl Panel {
    pub const ALL: [Self; 5] = [
        Self::Alarms,
        Self::Services,
        Self::Routes,
        Self::Stages,
        Self::Policy,
    ];

    /// Its place among all.
    pub fn place(self) -> usize {
        self as usize
    }

    fn moved(self, by: usize) -> Self {
        Self::ALL[(self.place() + by) % Self::ALL.len()]
    }
}

/// What routes are put in order by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sort {
    #[default]
    Rate,
    Slowest,
    Errors,
}

impl Sort {
    pub fn words(self) -> &'static str {
        match self {
            Self::Rate => "by rate",
            Self::Slowest => "the slowest first",
            Self::Errors => "most errors first",
        }
    }

    fn next(self) -> Self {
        match self {
            Self::Rate => Self::Slowest,
            Self::Slowest => Self::Errors,
            Self::Errors => Self::Rate,
        }
    }
}

/// Over which time requests and trades are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Period {
    #[default]
    Minute,
    SinceStart,
}

/// What somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    Quit,
    Escape,
    Help,
    Next,
    Previous,
    Up,
    Down,
    PageUp,
    PageDown,
    Top,
    Bottom,
    Sort,
    Period,
    Pause,
}

/// How much of a panel was drawn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    pub lines: usize,
    /// How many of them there is room for.
    pub room: usize,
}

impl Extent {
    /// Most lines above what is seen.
    pub fn above_max(self) -> usize {
        self.lines.saturating_sub(self.room)
    }
}

pub type Extents = [Extent; Panel::ALL.len()];

impl Model {
    /// Takes in what has come.
    pub fn take(&mut self, news: News, at: Instant) {
        match news {
            News::Lost(why) => self.lost = Some(why),
            News::Policies(policies) => {
                self.policies = policies;
                self.show();
            }
            News::Moment(now) => {
                self.lost = None;
                self.heard = Some(at);
                self.history.add(now.at(), now.sources());
                self.gone = self.seen.look(&now);
                self.latest = Some(*now);
                self.show();
            }
        }
    }

    /// Makes what is drawn of what is known.
    fn show(&mut self) {
        if self.look.is_paused {
            return;
        }
        let (Some(now), Some(at)) = (&self.latest, self.heard) else {
            return;
        };
        let gone = (&self.gone[..], self.seen.passed);
        let board = Board::new(now.clone(), &self.history, &self.policies, gone);
        self.shown = Some(Shown { board, at });
    }

    /// Of what is drawn, how old it is.
    pub fn age(&self, at: Instant) -> Option<Duration> {
        let shown = self.shown.as_ref()?;
        Some(at.saturating_duration_since(shown.at))
    }

    /// Does what somebody wants; whether that is the end. `extents` are of what they see.
    pub fn press(&mut self, key: Key, extents: &Extents) -> bool {
        let look = &mut self.look;
        let place = look.focus.place();
        let Extent { room, .. } = extents[place];
        let above = look.above[place].min(extents[place].above_max());
        match key {
            Key::Quit => return true,
            Key::Escape if !look.is_help => return true,
            Key::Escape => look.is_help = false,
            Key::Help => look.is_help = !look.is_help,
            Key::Next => look.focus = look.focus.moved(1),
            Key::Previous => look.focus = look.focus.moved(Panel::ALL.len() - 1),
            Key::Up => look.above[place] = above.saturating_sub(1),
            Key::Down => look.above[place] = above + 1,
            Key::PageUp => look.above[place] = above.saturating_sub(room.max(1)),
            Key::PageDown => look.above[place] = above + room.max(1),
            Key::Top => look.above[place] = 0,
            Key::Bottom => look.above[place] = usize::MAX,
            Key::Sort => look.sort = look.sort.next(),
            Key::Period => {
                look.period = match look.period {
                    Period::Minute => Period::SinceStart,
                    Period::SinceStart => Period::Minute,
                }
            }
            Key::Pause => {
                look.is_paused = !look.is_paused;
                self.show();
                return false;
            }
        }
        let look = &mut self.look;
        look.above[place] = look.above[place].min(extents[place].above_max());
        false
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn moment(at_ms: u64, more: Value) -> News {
        let mut moment = json!({ "at_ms": at_ms, "catalog": {}, "gateways_known": true });
        let fields = more.as_object().unwrap().clone();
        moment.as_object_mut().unwrap().extend(fields);
        News::Moment(serde_json::from_value(moment).unwrap())
    }

    fn gateway(key: &str) -> Value {
        json!({ "key": key, "release": "1", "report": { "figures": {} } })
    }

    #[test]
    fn what_is_paused_stays_and_what_came_meanwhile_is_there_afterwards() {
        let mut model = Model::default();
        let at = Instant::now();
        let second = Duration::from_secs(1);
        model.take(moment(1000, json!({ "epoch": 1 })), at);
        let epoch = |model: &Model| model.shown.as_ref().unwrap().board.now.epoch;
        assert_eq!(epoch(&model), 1);
        model.press(Key::Pause, &Extents::default());
        model.take(moment(2000, json!({ "epoch": 2 })), at + second);
        assert_eq!(epoch(&model), 1);
        assert_eq!(model.age(at + 2 * second), Some(2 * second));
        model.press(Key::Pause, &Extents::default());
        assert_eq!(epoch(&model), 2);
        assert_eq!(model.age(at + 2 * second), Some(second));
    }

    #[test]
    fn what_was_said_stays_with_its_age_while_the_gateway_is_not_heard() {
        let mut model = Model::default();
        let at = Instant::now();
        model.take(News::Lost("nobody listens".to_owned()), at);
        assert!(model.shown.is_none());
        model.take(moment(1000, json!({})), at);
        assert!(model.lost.is_none());
        model.take(News::Lost("it fell silent".to_owned()), at);
        assert_eq!(model.lost.as_deref(), Some("it fell silent"));
        let age = Duration::from_secs(7);
        assert_eq!(model.age(at + age), Some(age));
    }

    #[test]
    fn a_gateway_that_is_gone_is_shown_for_a_while_and_so_many_of_them() {
        let mut model = Model::default();
        let at = Instant::now();
        model.take(
            moment(0, json!({ "gateways": [gateway("a"), gateway("b")] })),
            at,
        );
        let gone = |model: &Model| -> Vec<String> {
            let services = &model.shown.as_ref().unwrap().board.services;
            let gone = services.iter().filter(|service| service.role == "gone");
            gone.map(|service| service.name.clone()).collect()
        };
        assert!(gone(&model).is_empty());
        model.take(moment(1000, json!({ "gateways": [gateway("a")] })), at);
        assert_eq!(gone(&model), ["gateway b"]);
        let unknown = json!({ "gateways": [gateway("a")], "gateways_known": false });
        model.take(moment(2000, unknown), at);
        assert!(gone(&model).is_empty());
        model.take(moment(601_000, json!({ "gateways": [gateway("a")] })), at);
        assert!(gone(&model).is_empty());
        for place in 0..1000 {
            let gateways = json!({ "gateways": [gateway(&place.to_string())] });
            model.take(moment(601_000 + place, gateways), at);
        }
        assert_eq!(gone(&model).len(), 8);
        assert_eq!(gone(&model)[0], "gateway a");
    }

    #[test]
    fn keys_move_within_what_there_is_to_see() {
        let mut model = Model::default();
        let mut extents = Extents::default();
        extents[Panel::Services.place()] = Extent { lines: 9, room: 4 };
        let above = |model: &Model| model.look.above[Panel::Services.place()];
        for (key, expected) in [
            (Key::Up, 0),
            (Key::Down, 1),
            (Key::PageDown, 5),
            (Key::Down, 5),
            (Key::PageUp, 1),
            (Key::Bottom, 5),
            (Key::Top, 0),
        ] {
            assert!(!model.press(key, &extents));
            assert_eq!(above(&model), expected, "{key:?}");
        }
        model.press(Key::Next, &extents);
        assert_eq!(model.look.focus, Panel::Routes);
        model.press(Key::Down, &extents);
        assert_eq!(model.look.above, [0; 5]);
        for _ in 0..2 {
            model.press(Key::Previous, &extents);
        }
        assert_eq!(model.look.focus, Panel::Alarms);
        for _ in 0..3 {
            model.press(Key::Sort, &extents);
        }
        assert_eq!(model.look.sort, Sort::Rate);
    }

    #[test]
    fn escape_closes_the_help_first() {
        let mut model = Model::default();
        let none = Extents::default();
        assert!(!model.press(Key::Help, &none));
        assert!(!model.press(Key::Escape, &none));
        assert!(model.press(Key::Escape, &none));
        assert!(model.press(Key::Quit, &none));
    }
}
