//! Lines of columns, in as many columns of a terminal as there are.

use ratatui_core::style::{Color, Modifier, Style};
use ratatui_core::text::{Line, Span};

use super::board::State;
use super::text::{cut, spaces, width};

const GAP: usize = 2;

/// What a text is like. Colours only add to what words and marks say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tone {
    #[default]
    Plain,
    Quiet,
    Strong,
    Of(State),
}

/// How texts are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Palette {
    Colours,
    /// As `NO_COLOR` asks for.
    Plain,
}

impl Palette {
    pub fn style(self, tone: Tone) -> Style {
        let style = Style::new();
        let (colour, modifier) = match tone {
            Tone::Plain => return style,
            Tone::Quiet => return style.add_modifier(Modifier::DIM),
            Tone::Strong => return style.add_modifier(Modifier::BOLD),
            Tone::Of(State::Well) => (Color::Green, Modifier::empty()),
            Tone::Of(State::Warning) => (Color::Yellow, Modifier::BOLD),
            Tone::Of(State::Bad) => (Color::Red, Modifier::BOLD),
            Tone::Of(State::Off) => return style.add_modifier(Modifier::DIM),
        };
        let style = style.add_modifier(modifier);
        match self {
            Self::Colours => style.fg(colour),
            Self::Plain => style,
        }
    }

    pub fn span(self, text: impl Into<String>, tone: Tone) -> Span<'static> {
        Span::styled(text.into(), self.style(tone))
    }
}

/// What stands for a state where there are no colours.
pub fn mark(state: State) -> &'static str {
    match state {
        State::Well => "·",
        State::Warning => "!",
        State::Bad => "X",
        State::Off => "-",
    }
}

/// A column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    pub heading: &'static str,
    /// Columns of higher numbers give way first, where there is no room; those of 0 never.
    pub rank: u8,
    pub fit: Fit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    Left,
    Right,
    /// To the left, and down to so many columns where there is not more room.
    Least(usize),
}

impl Column {
    pub const fn new(heading: &'static str, rank: u8, fit: Fit) -> Self {
        Self { heading, rank, fit }
    }
}

#[derive(Debug, Clone, Default)]
pub struct Cell {
    pub text: String,
    pub tone: Tone,
}

impl Cell {
    pub fn new(text: impl Into<String>, tone: Tone) -> Self {
        let text = text.into();
        Self { text, tone }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Tone::Plain)
    }
}

/// The lines of a table, headings first. None is wider than `columns`.
pub fn table<const N: usize>(
    headings: &[Column; N],
    rows: &[[Cell; N]],
    columns: usize,
    palette: Palette,
) -> Vec<Line<'static>> {
    let wanted: Vec<usize> = (0..N)
        .map(|place| {
            let cells = rows.iter().map(|row| width(&row[place].text));
            cells.max().unwrap_or(0).max(width(headings[place].heading))
        })
        .collect();
    let places = fitting(headings, &wanted, columns);
    let widths = widths(headings, &wanted, &places, columns);
    let line = |cells: [(&str, Tone); N]| {
        let mut spans = Vec::new();
        for (at, (place, room)) in places.iter().zip(&widths).enumerate() {
            let (text, tone) = cells[*place];
            let text = cut(text, *room);
            let padding = spaces(room - width(&text));
            if at > 0 {
                spans.push(Span::raw(spaces(GAP)));
            }
            let text = match headings[*place].fit {
                Fit::Right => padding + &text,
                Fit::Left | Fit::Least(_) => text + &padding,
            };
            spans.push(palette.span(text, tone));
        }
        Line::from(spans)
    };
    let head = headings.map(|column| (column.heading, Tone::Quiet));
    let rows = rows.iter();
    let rows = rows.map(|row| line(std::array::from_fn(|at| (&*row[at].text, row[at].tone))));
    std::iter::once(line(head)).chain(rows).collect()
}

/// The columns for which there is room.
fn fitting(headings: &[Column], wanted: &[usize], columns: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..headings.len()).collect();
    loop {
        let least = places
            .iter()
            .map(|place| least(headings[*place], wanted[*place]));
        let least: usize = least.sum::<usize>() + gaps(places.len());
        let last = places.iter().max_by_key(|place| headings[**place].rank);
        let last = last.copied().filter(|last| headings[*last].rank > 0);
        match last {
            Some(last) if least > columns => places.retain(|place| *place != last),
            _ => return places,
        }
    }
}

fn least(column: Column, wanted: usize) -> usize {
    match column.fit {
        Fit::Least(least) => wanted.min(least),
        Fit::Left | Fit::Right => wanted,
    }
}

fn gaps(columns: usize) -> usize {
    GAP * columns.saturating_sub(1)
}

/// How wide each of them is.
fn widths(headings: &[Column], wanted: &[usize], places: &[usize], columns: usize) -> Vec<usize> {
    let mut widths: Vec<usize> = places
        .iter()
        .map(|place| least(headings[*place], wanted[*place]))
        .collect();
    let used = widths.iter().sum::<usize>() + gaps(places.len());
    let mut spare = columns.saturating_sub(used);
    let mut excess = used.saturating_sub(columns);
    // What is at the right says more.
    for (room, place) in widths.iter_mut().zip(places).rev() {
        let more = spare.min(wanted[*place] - *room);
        *room += more;
        spare -= more;
    }
    // Not even what must be there has room: what is at the right gives way.
    for room in widths.iter_mut().rev() {
        let less = excess.min(*room);
        *room -= less;
        excess -= less;
    }
    widths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_shrink_then_give_way_and_nothing_is_too_wide() {
        let headings = [
            Column::new("name", 0, Fit::Least(4)),
            Column::new("count", 1, Fit::Right),
            Column::new("note", 2, Fit::Left),
        ];
        let row = |cells: [&str; 3]| cells.map(Cell::from);
        let rows = [row(["a long name", "7", "noted"]), row(["b", "1,000", ""])];
        let text = |columns| -> Vec<String> {
            let lines = table(&headings, &rows, columns, Palette::Plain);
            let lines = lines
                .iter()
                .map(|line| line.to_string().trim_end().to_owned());
            lines.collect()
        };
        for (columns, expected) in [
            (
                30,
                [
                    "name         count  note",
                    "a long name      7  noted",
                    "b            1,000",
                ],
            ),
            (
                20,
                [
                    "name    count  note",
                    "a lon…      7  noted",
                    "b       1,000",
                ],
            ),
            (14, ["name     count", "a long…      7", "b        1,000"]),
            (9, ["name", "a long n…", "b"]),
            (3, ["na…", "a …", "b"]),
            (0, ["", "", ""]),
        ] {
            assert_eq!(text(columns), expected, "{columns} columns");
        }
    }

    #[test]
    fn without_colours_there_are_none() {
        for state in [State::Well, State::Warning, State::Bad, State::Off] {
            let tone = Tone::Of(state);
            assert_eq!(Palette::Plain.style(tone).fg, None);
            assert_ne!(mark(state), "");
        }
        assert_eq!(
            Palette::Colours.style(Tone::Of(State::Bad)).fg,
            Some(Color::Red)
        );
    }
}
