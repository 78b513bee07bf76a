//! One screen of what is known: the head, the key figures, and panels that share what room there is.

use std::time::{Duration, Instant};

use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;
use ratatui_core::style::{Modifier, Style};
use ratatui_core::text::{Line, Span};

use super::board::{Board, State, leading};
use super::model::{Extent, Extents, Look, Model, Panel};
use super::panels::{Said, said};
use super::table::{Palette, Tone, mark};
use super::text::{cut, spaces, span as long, width};

/// From how many columns on there are two columns of panels.
const TWO_COLUMNS_MIN: u16 = 110;

/// What is older is said to be.
const FRESH: Duration = Duration::from_secs(3);

/// Columns between two panels beside each other.
const GAP: u16 = 2;

const HELP: [&str; 12] = [
    "q, Esc, Ctrl-C   end",
    "Tab, Shift-Tab   another panel: it gets what room it wants",
    "j k, arrows      scroll it; PgDn PgUp, g G: further",
    "s                order of routes: by rate, the slowest, most errors",
    "t                requests and trades of the last minute, or since start",
    "p                pause: what is shown stays",
    "Ctrl-L           draw anew",
    "",
    "X bad  ! warning  · well  - gone.   = behind a hash: the journal's",
    "Alarms have the names of docs/OPERATING.md, \"Alarms\", which says what to do.",
    "Nothing is changed from here: `bazaar policy` does that, or the console.",
    "?                close this",
];

/// Draws all of it; how much of each panel there was room for.
pub fn draw(model: &Model, at: Instant, palette: Palette, buffer: &mut Buffer) -> Extents {
    let area = buffer.area;
    let mut page = Page { buffer, rest: area };
    let mut extents = Extents::default();
    if area.is_empty() {
        return extents;
    }
    page.line(&head(model, at, palette, area.width));
    if let Some(why) = &model.lost {
        let text = not_live(model, at, why);
        page.line(&Line::styled(
            cut(&text, area.width.into()),
            palette
                .style(Tone::Of(State::Bad))
                .add_modifier(Modifier::REVERSED),
        ));
    }
    let Some(shown) = &model.shown else {
        page.line(&Line::raw(cut(
            "waiting for the first look",
            area.width.into(),
        )));
        return extents;
    };
    let board = &shown.board;
    let footer = page.bottom();
    for line in tiles(board, palette, area.width.into()) {
        page.line(&line);
    }
    if model.look.is_help {
        for line in HELP {
            page.line(&Line::raw(cut(line, area.width.into())));
        }
    } else {
        panels(&mut page, board, &model.look, palette, &mut extents);
    }
    if let Some(footer) = footer {
        let keys = "q quit  ? help  Tab panel  j/k scroll  s sort  t time  p pause";
        let keys = Line::styled(cut(keys, area.width.into()), palette.style(Tone::Quiet));
        page.buffer
            .set_line(footer.x, footer.y, &keys, footer.width);
    }
    extents
}

/// The same as text of so many columns, all of every panel.
pub fn as_text(board: &Board, look: &Look, columns: usize) -> String {
    let palette = Palette::Plain;
    let title = format!("bazaar top  {}  {}", leading(&board.now), journal(board));
    let mut lines = vec![Line::raw(cut(title.trim_end(), columns))];
    lines.extend(tiles(board, palette, columns));
    for panel in Panel::ALL {
        // As if it were looked at: all that it says.
        let look = Look {
            focus: panel,
            ..look.clone()
        };
        let Said { title, lines: more } = said(panel, board, &look, columns, palette);
        lines.push(Line::raw(String::new()));
        lines.push(Line::raw(cut(&title, columns)));
        lines.extend(more);
    }
    let lines = lines
        .iter()
        .map(|line| line.to_string().trim_end().to_owned() + "\n");
    lines.collect()
}

fn journal(board: &Board) -> String {
    let journal = board.now.journal.as_ref();
    journal.map_or_else(String::new, |journal| format!("journal {journal}"))
}

// ---- the head ----

fn head(model: &Model, at: Instant, palette: Palette, columns: u16) -> Line<'static> {
    let columns = usize::from(columns);
    let (live, tone) = link(model, at);
    let live = cut(&live, columns);
    let room = columns.saturating_sub(width(&live) + 1);
    let (name, rest) = match &model.shown {
        None => (" bazaar top ", String::new()),
        Some(shown) => {
            let board = &shown.board;
            (
                " bazaar top ",
                format!(" {}  {}", leading(&board.now), journal(board)),
            )
        }
    };
    let name = cut(name, room);
    let rest = cut(&rest, room - width(&name));
    let padding = spaces(columns - width(&name) - width(&rest) - width(&live));
    let bold = Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD);
    Line::from(vec![
        Span::styled(name, bold),
        Span::raw(rest),
        Span::raw(padding),
        palette.span(live, tone),
    ])
}

/// How up to date it is.
fn link(model: &Model, at: Instant) -> (String, Tone) {
    let age = model.age(at);
    let old = age.filter(|age| *age >= FRESH);
    let old = old.map(|age| format!("{} old", long(age.as_secs_f64())));
    match (&model.lost, model.look.is_paused, old) {
        (Some(_), _, _) => ("NOT LIVE".to_owned(), Tone::Of(State::Bad)),
        (None, true, None) => ("paused".to_owned(), Tone::Of(State::Warning)),
        (None, true, Some(old)) => (format!("paused, {old}"), Tone::Of(State::Warning)),
        (None, false, Some(old)) => (old, Tone::Of(State::Warning)),
        (None, false, None) if age.is_none() => ("connecting".to_owned(), Tone::Quiet),
        (None, false, None) => ("live".to_owned(), Tone::Of(State::Well)),
    }
}

fn not_live(model: &Model, at: Instant, why: &str) -> String {
    match model.age(at) {
        None => format!("The gateway does not answer yet: {why}. Trying again"),
        Some(age) => {
            let age = long(age.as_secs_f64());
            format!("What is shown is {age} old, trying again: {why}")
        }
    }
}

/// Key figures, as many beside each other as there is room for.
fn tiles(board: &Board, palette: Palette, columns: usize) -> Vec<Line<'static>> {
    let mut lines: Vec<Line<'static>> = Vec::new();
    let mut used = columns;
    for tile in &board.tiles {
        let mark = match tile.state {
            State::Well | State::Off => String::new(),
            state => format!("{} ", mark(state)),
        };
        let name = format!("{mark}{} ", tile.name);
        let all = width(&name) + width(&tile.value);
        let gap = 3;
        if used + gap + all > columns {
            lines.push(Line::default());
            used = 0;
        } else {
            lines
                .last_mut()
                .expect("there is one")
                .push_span(Span::raw(spaces(gap)));
            used += gap;
        }
        let line = lines.last_mut().expect("there is one");
        let name = cut(&name, columns);
        let value = cut(&tile.value, columns - width(&name));
        let tone = match tile.state {
            State::Well => Tone::Strong,
            state => Tone::Of(state),
        };
        line.push_span(palette.span(name, Tone::Quiet));
        line.push_span(palette.span(value, tone));
        used += all;
    }
    lines
}

// ---- panels ----

/// What is left of the screen.
struct Page<'a> {
    buffer: &'a mut Buffer,
    rest: Rect,
}

impl Page<'_> {
    /// The next line, where there is room for it.
    fn line(&mut self, line: &Line<'_>) {
        if self.rest.height > 0 {
            let Rect { x, y, width, .. } = self.rest;
            self.buffer.set_line(x, y, line, width);
            self.rest = Rect {
                y: y + 1,
                height: self.rest.height - 1,
                ..self.rest
            };
        }
    }

    /// Sets the last line aside, where there are lines to spare.
    fn bottom(&mut self) -> Option<Rect> {
        let Rect {
            x,
            y,
            width,
            height,
        } = self.rest;
        (height > 6).then(|| {
            self.rest.height -= 1;
            Rect::new(x, y + height - 1, width, 1)
        })
    }
}

fn panels(
    page: &mut Page<'_>,
    board: &Board,
    look: &Look,
    palette: Palette,
    extents: &mut Extents,
) {
    let all = page.rest;
    if all.width < TWO_COLUMNS_MIN {
        column(page, all, &Panel::ALL, (board, look, palette), extents);
        return;
    }
    // Alarms go over all of it, up to a third.
    let alarms = said(Panel::Alarms, board, look, all.width.into(), palette);
    let height = lines_wanted(&alarms).min((all.height / 3).max(2));
    let (top, below) = split(all, height.min(all.height));
    column(page, top, &[Panel::Alarms], (board, look, palette), extents);
    // Who does what takes more words than figures do.
    let left = Rect {
        width: (below.width - GAP) * 3 / 5,
        ..below
    };
    let right = Rect {
        x: left.right() + GAP,
        width: below.width - GAP - left.width,
        ..below
    };
    let (left_panels, right_panels) = (
        [Panel::Services, Panel::Policy],
        [Panel::Routes, Panel::Stages],
    );
    column(page, left, &left_panels, (board, look, palette), extents);
    column(page, right, &right_panels, (board, look, palette), extents);
}

/// Lines of a panel that say something by themselves, its title included.
fn lines_min(panel: Panel) -> u16 {
    match panel {
        Panel::Stages => 2,
        Panel::Alarms | Panel::Policy => 3,
        Panel::Services | Panel::Routes => 4,
    }
}

fn lines_wanted(said: &Said) -> u16 {
    u16::try_from(said.lines.len() + 1).unwrap_or(u16::MAX)
}

fn split(area: Rect, height: u16) -> (Rect, Rect) {
    let top = Rect { height, ..area };
    let below = Rect {
        y: area.y + height,
        height: area.height - height,
        ..area
    };
    (top, below)
}

/// Panels below each other.
fn column(
    page: &mut Page<'_>,
    area: Rect,
    panels: &[Panel],
    (board, look, palette): (&Board, &Look, Palette),
    extents: &mut Extents,
) {
    let all: Vec<_> = panels
        .iter()
        .map(|panel| said(*panel, board, look, area.width.into(), palette))
        .collect();
    let wishes: Vec<_> = panels
        .iter()
        .zip(&all)
        .map(|(panel, said)| Wish {
            least: lines_min(*panel),
            wanted: lines_wanted(said),
        })
        .collect();
    let focus = panels.iter().position(|panel| *panel == look.focus);
    let heights = shared_out(&wishes, focus, area.height);
    let mut rest = area;
    for ((panel, said), height) in panels.iter().zip(all).zip(heights) {
        let (place, below) = split(rest, height);
        rest = below;
        let extent = Extent {
            lines: said.lines.len(),
            room: usize::from(height.saturating_sub(1)),
        };
        extents[panel.place()] = extent;
        if height > 0 {
            let above = look.above[panel.place()].min(extent.above_max());
            let is_focus = *panel == look.focus;
            let state = (*panel == Panel::Alarms).then(|| board.state());
            let title = title(
                &said.title,
                state,
                is_focus,
                (above, extent),
                palette,
                place.width,
            );
            page.buffer.set_line(place.x, place.y, &title, place.width);
            let lines = said.lines.iter().skip(above).take(extent.room);
            for (line, y) in lines.zip(place.y + 1..) {
                page.buffer.set_line(place.x, y, line, place.width);
            }
        }
    }
}

/// What a panel needs, and what it would like, in lines.
#[derive(Debug, Clone, Copy)]
struct Wish {
    least: u16,
    wanted: u16,
}

/// How many lines each of some panels gets. Where there is not enough for all, each has its title, the first one (alarms) a little
/// more, the one that is looked at all that it wants, and then the others some.
fn shared_out(wishes: &[Wish], focus: Option<usize>, room: u16) -> Vec<u16> {
    let mut rest = room;
    let mut heights = vec![0; wishes.len()];
    let mut give = |place: usize, up_to: u16| {
        let height: &mut u16 = &mut heights[place];
        let more = up_to.min(wishes[place].wanted).saturating_sub(*height);
        let more = more.min(rest);
        *height += more;
        rest -= more;
    };
    let in_order = 0..wishes.len();
    for place in std::iter::once(0).chain(focus).chain(in_order.clone()) {
        give(place, 1);
    }
    give(0, wishes[0].least);
    if let Some(focus) = focus {
        give(focus, u16::MAX);
    }
    for place in in_order.clone() {
        give(place, wishes[place].least);
    }
    give(0, room / 4);
    for place in in_order {
        give(place, u16::MAX);
    }
    heights
}

fn title(
    text: &str,
    state: Option<State>,
    is_focus: bool,
    (above, extent): (usize, Extent),
    palette: Palette,
    columns: u16,
) -> Line<'static> {
    let columns = usize::from(columns);
    let below = extent.lines.saturating_sub(above + extent.room);
    let more = match (above, below) {
        (0, 0) => String::new(),
        (above, 0) => format!(" {above} above"),
        (0, below) => format!(" {below} below"),
        (above, below) => format!(" {above} above, {below} below"),
    };
    let more = cut(&more, columns);
    let pointer = if is_focus { "> " } else { "" };
    let text = cut(&format!("{pointer}{text} "), columns - width(&more));
    let rule = columns - width(&more) - width(&text);
    let style = match state {
        Some(State::Well) | None => Style::new().add_modifier(Modifier::BOLD),
        Some(state) => palette.style(Tone::Of(state)),
    };
    let style = match is_focus {
        true => style.add_modifier(Modifier::REVERSED),
        false => style,
    };
    Line::from(vec![
        Span::styled(text, style),
        palette.span("─".repeat(rule), Tone::Quiet),
        palette.span(more, Tone::Quiet),
    ])
}

#[cfg(test)]
mod tests;
