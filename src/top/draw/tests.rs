use std::time::{Duration, Instant};

use ratatui_core::backend::TestBackend;
use ratatui_core::style::Color;
use ratatui_core::terminal::Terminal;
use serde_json::{Value, json};

use super::super::model::{Key, Period};
use super::super::stream::News;
use super::super::text::make_harmless;
use super::*;

fn parsed<T: serde::de::DeserializeOwned>(mut said: Value) -> T {
    make_harmless(&mut said);
    serde_json::from_value(said).unwrap()
}

/// A histogram with so many in one bucket.
fn histogram(place: usize, many: u64) -> Value {
    let mut buckets = vec![0; 20];
    buckets[place] = many;
    json!(buckets)
}

/// What a gateway counts: so many of each, trades among them slow.
fn counted(many: u64) -> Value {
    json!({
        "bazaar_request_duration_seconds": [
            [["stock", "hit", "2xx"], 1, histogram(3, 9 * many)], [["stock", "miss", "2xx"], 1, histogram(3, many)],
            [["trade", "none", "2xx"], 1, histogram(15, 2 * many)], [["trade", "none", "5xx"], 1, histogram(15, many / 10)],
        ],
        "bazaar_cache_lookups_total": [[["stock", "hit"], 9 * many], [["stock", "miss"], many]],
        "bazaar_trades_total": [[["traded"], 2 * many], [["refused"], 0], [["unavailable"], many / 10]],
        "bazaar_trade_stage_seconds": [[["place"], 1, histogram(15, 2 * many)]],
        "bazaar_policy_decisions_total": [[["d1", "decided"], 12 * many]],
        "process_start_time_seconds": [[[], 999_999_000.0]],
    })
}

fn replica(id: u32, more: Value) -> Value {
    let mut replica = json!({
        "id": id, "healthy": true, "role": "follower", "epoch": 7, "orders": 1234, "rows": 1240, "chain_hash": "abcdef0123456789",
        "reaches_catalog": true, "round_trip_us": 80, "said": { "ready": true, "says": "follower", "figures": {} },
    });
    let more = more.as_object().unwrap().clone();
    replica.as_object_mut().unwrap().extend(more);
    replica
}

fn moment(at_ms: u64, many: u64) -> Value {
    json!({
        "at_ms": at_ms, "journal": "30313233343536373839616263646566", "protocol": 2, "epoch": 7, "leader": 3, "gateways_known": true,
        "catalog": { "reachable": true, "journal_rows": 1240, "stock_changes": 6, "chain_hash": "abcdef0123456789", "in_sync": [1, 3] },
        "catalogs": [{ "url": "http://127.0.0.1:56892", "role": "active", "release": "0.2.0",
                       "said": { "ready": true, "says": "active", "figures": { "bazaar_catalog_sessions": [[[], 1]] } } }],
        "replicas": [
            replica(3, json!({ "role": "leader" })),
            replica(2, json!({ "healthy": false, "role": null, "epoch": null, "orders": null, "rows": null, "said": null })),
            replica(1, json!({ "said": { "ready": true, "says": "follower", "figures":
                { "bazaar_order_lag_rows": [[[], 1200]], "bazaar_order_lag_seconds": [[[], 9]] } } })),
        ],
        "gateways": [{ "key": "127.0.0.1:8080 at host", "own": true, "release": "0.2.0", "report": {
            "why_not_ready": null, "epoch": 7, "lease": { "length_ms": 2000 }, "active_ms": 61_000, "figures": counted(many) } }],
    })
}

fn version(name: &str, more: Value) -> Value {
    let mut version = json!({ "digest": "d1", "name": name, "version": "1.0", "stage": "active" });
    let more = more.as_object().unwrap().clone();
    version.as_object_mut().unwrap().extend(more);
    version
}

fn policies(why: &str) -> Value {
    let incident = json!({ "at_ms": 999_999_990_000_u64, "kind": "trap", "request": "GET /stocks/trap", "cause": "unreachable executed" });
    json!({ "127.0.0.1:8080 at host": {
        "policy": {
            "active": version("default", json!({ "incidents": [incident] })),
            "previous": null,
            "candidate": version("marked", json!({ "digest": "d2", "stage": "canary", "share": 0.05, "who": "alice", "rollout": {
                "state": "running", "step": 2, "steps": 4, "doing": "a canary of 5 %", "elapsed_ms": 12_000, "within_ms": 600_000,
                "samples": 30, "samples_min": 200, "measures": [{ "name": "errors", "judged": "open",
                    "seen": "something failed for 1 of 30 clients, and 0 of 31 of the active version",
                    "intervals": [{ "of": "difference", "low": -0.02, "high": 0.09, "limit": 0.01, "unit": "share" }] }] } })),
            "changes": [
                { "at_ms": 999_999_995_000_u64, "what": "rollback", "who": "probation", "why": why, "from": "d3", "from_name": "bad 2.0",
                  "to": "d1", "to_name": "default 1.0", "candidate": null },
                { "at_ms": 999_999_000_000_u64, "what": "activate", "who": "bob", "known_by": "token", "why": "a new one", "from": "d1",
                  "to": "d3", "candidate": null },
            ],
        },
        "differences": { "compared": 900, "different": 12, "dropped": 0, "kinds": {}, "examples": [], "groups": [
            { "route": "GET /stocks/*", "field": "headers.etag", "from": "a", "to": "b", "count": 12 }] },
    } })
}

/// A bazaar with something to say of each kind, half a minute long.
fn busy(at: Instant, why: &str) -> Model {
    let mut model = Model::default();
    let begun = 1_000_000_000_000 - 30_000;
    model.take(News::Moment(parsed(moment(begun, 0))), at);
    model.take(News::Policies(parsed(policies(why))), at);
    model.take(News::Moment(parsed(moment(1_000_000_000_000, 300))), at);
    model
}

fn lines(buffer: &Buffer) -> Vec<String> {
    let cells = buffer.content.chunks(buffer.area.width.max(1).into());
    let lines = cells.map(|line| line.iter().map(|cell| cell.symbol()).collect::<String>());
    lines.map(|line| line.trim_end().to_owned()).collect()
}

/// The screen as text.
fn screen(model: &Model, at: Instant, (columns, rows): (u16, u16)) -> String {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal
        .draw(|frame| {
            draw(model, at, Palette::Colours, frame.buffer_mut());
        })
        .unwrap();
    lines(terminal.backend().buffer()).join("\n")
}

fn has(screen: &str, parts: &[&str]) {
    for part in parts {
        assert!(screen.contains(part), "no `{part}` in\n{screen}");
    }
}

#[test]
fn a_large_screen_shows_who_does_what_and_why_all_at_once() {
    let at = Instant::now();
    let shown = screen(&busy(at, "3 of 5 decisions failed"), at, (120, 40));
    has(
        &shown,
        &[
            "replica 3 leads epoch 7",
            "live",
            "X critical: 4.8 % of requests (trading) are answered with 500 and above",
            "[BazaarRequestsFail]",
            "! warning: Replica 2 does not answer",
            "requests 121/s",
            "X failed 0.8 %",
            "hit ratio 90.0 %",
            "trade p99 995 ms",
            "replica 2 is down",
            "leader",
            "lags: 1,200 rows behind, for 9 s",
            "catalog 127.0.0",
            "trade (slowest)",
            "look up a stock",
            "at the gateway",
            "30 not answered in time",
            "default 1.0",
            "for 1 min",
            "canary: marked 1.0",
            "rollout, step 2 of 4",
            "difference: -2.0 % to 9.0 %, limit 1.0 %",
            "12 of 900 decisions that both made differ",
            "rolled back by the gateway itself",
            "3 of 5 decisions failed",
        ],
    );
}

#[test]
fn a_small_screen_says_what_matters() {
    let at = Instant::now();
    let model = busy(at, "3 of 5 decisions failed");
    has(
        &screen(&model, at, (80, 24)),
        &[
            "replica 3 leads epoch 7",
            "X critical: 4.8 % of requests",
            "X failed 0.8 %",
            "replica 2 is down",
            "trade (slowest)",
            "> Services",
            "Policy",
            "q quit",
        ],
    );
    has(
        &screen(&model, at, (40, 20)),
        &[
            "bazaar top",
            "live",
            "X critical:",
            "replica 2 is down",
            "> Services",
            "Requests",
            "Trades",
            "Policy",
            "does not answer",
        ],
    );
}

#[test]
fn a_panel_that_is_looked_at_has_room_and_is_scrolled() {
    let at = Instant::now();
    let mut model = busy(at, "3 of 5 decisions failed");
    let mut buffer = Buffer::empty(Rect::new(0, 0, 40, 20));
    for _ in 0..3 {
        let extents = draw(&model, at, Palette::Plain, &mut buffer);
        model.press(Key::Next, &extents);
    }
    assert_eq!(model.look.focus, Panel::Policy);
    let first = screen(&model, at, (40, 20));
    has(&first, &["> Policy", "active: default 1.0", " below"]);
    let extents = draw(&model, at, Palette::Plain, &mut buffer);
    model.press(Key::Bottom, &extents);
    let last = screen(&model, at, (40, 20));
    has(&last, &["> Policy", " above", "unreachable"]);
    assert!(!last.contains("active: default 1.0"), "{last}");
}

#[test]
fn routes_are_in_the_order_that_is_asked_for_over_the_time_that_is() {
    let at = Instant::now();
    let mut model = busy(at, "");
    let first = |model: &Model| {
        let shown = screen(model, at, (120, 40));
        let place = |name: &str| {
            shown
                .find(name)
                .unwrap_or_else(|| panic!("no {name} in\n{shown}"))
        };
        if place("look up a stock") < place("trade (slowest)") {
            "stock"
        } else {
            "trade"
        }
    };
    let none = Extents::default();
    assert_eq!(first(&model), "stock");
    model.press(Key::Sort, &none);
    assert_eq!(first(&model), "trade");
    model.press(Key::Sort, &none);
    assert_eq!(first(&model), "trade");
    model.press(Key::Period, &none);
    assert_eq!(model.look.period, Period::SinceStart);
    has(
        &screen(&model, at, (120, 40)),
        &["Requests · since start", "3,000"],
    );
}

#[test]
fn what_is_not_up_to_date_says_how_old_it_is() {
    let at = Instant::now();
    let mut model = busy(at, "");
    let later = at + Duration::from_secs(12);
    has(&screen(&model, later, (80, 24)), &["12 s old"]);
    model.take(News::Lost("nothing has come for 10 s".to_owned()), later);
    has(
        &screen(&model, later, (80, 24)),
        &[
            "NOT LIVE",
            "What is shown is 12 s old, trying again: nothing has come for 10 s",
        ],
    );
    model.press(Key::Pause, &Extents::default());
    model.take(News::Moment(parsed(moment(1_000_000_012_000, 300))), later);
    has(&screen(&model, later, (80, 24)), &["paused, 12 s old"]);
    let mut unheard = Model::default();
    has(
        &screen(&unheard, at, (80, 24)),
        &["connecting", "waiting for the first look"],
    );
    unheard.take(News::Lost("nobody listens".to_owned()), at);
    has(
        &screen(&unheard, at, (80, 24)),
        &["NOT LIVE", "does not answer yet: nobody listens"],
    );
}

#[test]
fn what_is_old_and_who_is_not_shown_is_said() {
    let at = Instant::now();
    let mut model = busy(at, "");
    let mut now = moment(1_000_000_001_000, 300);
    let mut other = now["gateways"][0].clone();
    other["key"] = json!("other at host");
    other["own"] = json!(false);
    other["age_ms"] = json!(12_000);
    now["gateways"][0]["report"]["policy_age_ms"] = json!(7_000);
    now["gateways"].as_array_mut().unwrap().push(other);
    now["gateways_left_out"] = json!(3);
    model.take(News::Moment(parsed(now)), at);
    has(
        &screen(&model, at, (200, 60)),
        &[
            "last heard 12 s ago",
            "ready, ",
            "gateways: 3 more have a session, and no place here",
            "What is shown here is 7 s old",
        ],
    );
}

#[test]
fn help_takes_the_place_of_panels() {
    let at = Instant::now();
    let mut model = busy(at, "");
    model.press(Key::Help, &Extents::default());
    for size in [(120, 40), (80, 24), (40, 20)] {
        let shown = screen(&model, at, size);
        has(&shown, &["q, Esc, Ctrl-C   end", "order of routes"]);
        assert!(!shown.contains("Services"), "{shown}");
    }
}

/// Names and reasons are others': see also `stream`, where they come in.
#[test]
fn no_text_of_others_is_a_command_to_the_terminal() {
    let at = Instant::now();
    let model = busy(at, "\u{1b}]0;owned\u{7}\u{9b}2J\r\n\u{202e}txt");
    for size in [(120, 60), (80, 60), (40, 60)] {
        let shown = screen(&model, at, size);
        let plain = shown.replace('\n', "");
        assert!(plain.chars().all(|char| !char.is_control()), "{shown}");
        assert!(!plain.contains('\u{202e}'), "{shown}");
    }
    let board = &model.shown.as_ref().unwrap().board;
    let text = as_text(board, &Look::default(), 200);
    has(&text, &["\\u{1b}]0;owned\\u{7}\\u{9b}2J\\r\\n\\u{202e}txt"]);
    assert!(text.chars().all(|char| char == '\n' || !char.is_control()));
}

#[test]
fn any_screen_will_do() {
    let at = Instant::now();
    let mut model = busy(
        at,
        "a reason that is long enough to be broken into several lines",
    );
    let mut extents = Extents::default();
    for focus in Panel::ALL {
        model.look.focus = focus;
        for columns in (0..130).step_by(13) {
            for rows in (0..50).step_by(7) {
                let mut buffer = Buffer::empty(Rect::new(0, 0, columns, rows));
                extents = draw(&model, at, Palette::Colours, &mut buffer);
                let plain = draw(&model, at, Palette::Plain, &mut buffer);
                assert_eq!(extents, plain);
            }
        }
        model.press(Key::Bottom, &extents);
    }
    model.take(News::Lost("x".repeat(300)), at);
    model.press(Key::Help, &extents);
    for columns in (0..90).step_by(5) {
        let mut buffer = Buffer::empty(Rect::new(0, 0, columns, 9));
        draw(&model, at, Palette::Colours, &mut buffer);
        let board = &model.shown.as_ref().unwrap().board;
        for line in as_text(board, &Look::default(), columns.into()).lines() {
            assert!(width(line) <= columns.into(), "{columns} columns: {line}");
        }
    }
}

#[test]
fn without_colours_it_is_drawn_without_colours() {
    let at = Instant::now();
    let model = busy(at, "");
    let mut buffer = Buffer::empty(Rect::new(0, 0, 120, 40));
    let colours = |buffer: &Buffer| {
        let cells = buffer.content.iter();
        cells
            .filter(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
            .count()
    };
    draw(&model, at, Palette::Plain, &mut buffer);
    assert_eq!(colours(&buffer), 0);
    draw(&model, at, Palette::Colours, &mut buffer);
    assert!(colours(&buffer) > 0);
}

#[test]
fn panels_share_the_room_and_what_is_wrong_and_what_is_looked_at_come_first() {
    for (wanted, focus, room, expected) in [
        // Enough for all.
        (&[1, 5, 5][..], Some(1), 20, &[1, 5, 5][..]),
        // The one that is looked at gets what it wants.
        (&[1, 9, 9, 9], Some(2), 20, &[1, 7, 9, 3]),
        (&[1, 9, 9, 9], Some(1), 20, &[1, 9, 7, 3]),
        (&[20, 9, 9], Some(0), 20, &[18, 1, 1]),
        // Alarms have some, and more where nobody else needs it.
        (&[20, 9, 9], Some(1), 20, &[8, 9, 3]),
        (&[20, 2, 2], Some(1), 20, &[16, 2, 2]),
        // Not enough for all.
        (&[9, 9, 9], Some(2), 5, &[3, 1, 1]),
        (&[9, 9, 9], Some(2), 2, &[1, 0, 1]),
        (&[9, 9, 9], None, 0, &[0, 0, 0]),
    ] {
        let wishes = wanted.iter().map(|wanted| Wish {
            least: 3,
            wanted: *wanted,
        });
        let wishes: Vec<_> = wishes.collect();
        assert_eq!(
            shared_out(&wishes, focus, room),
            expected,
            "{wanted:?} in {room}"
        );
    }
}
