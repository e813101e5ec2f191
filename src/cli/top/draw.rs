//! Draws the screen. It fits into 80 columns and 24 lines.

use std::cmp::Ordering;

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Clear, Paragraph, Row, Sparkline, Table, TableState};

use super::model::{Cell, Model, View};

/// The keys, and what they do.
const KEYS: [(&str, &str); 9] = [
    ("1 2 3 4, Tab", "listeners, connections, endpoints, workers"),
    ("Left, Right", "sort by another column"),
    ("r", "reverse the order"),
    ("Up, Down, j, k", "move"),
    ("PgUp, PgDn, Home, End", "move far"),
    ("Space", "pause, or go on"),
    ("?, h", "show these keys"),
    ("q, Esc, Ctrl-C", "quit"),
    ("any key", "close this list"),
];

/// What is shown, and how.
pub(super) struct Screen {
    pub(super) view: View,
    pub(super) shows_keys: bool,
    pub(super) is_paused: bool,
    is_colored: bool,
    sorts: [Sort; View::ALL.len()],
    table: TableState,
}

/// The order of a view.
#[derive(Clone, Copy)]
pub(super) struct Sort {
    column: usize,
    is_reversed: bool,
    columns: usize,
}

impl Default for Screen {
    fn default() -> Screen {
        // https://no-color.org: set and not empty.
        let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Screen {
            view: View::default(),
            shows_keys: false,
            is_paused: false,
            is_colored: !is_plain,
            sorts: View::ALL.map(|view| Sort {
                column: view.first_sort(),
                is_reversed: false,
                columns: view.columns().len(),
            }),
            table: TableState::new().with_selected(0),
        }
    }
}

impl Screen {
    /// The order of the view.
    pub(super) fn sort_mut(&mut self) -> &mut Sort {
        &mut self.sorts[self.view as usize]
    }

    fn sort(&self) -> Sort {
        self.sorts[self.view as usize]
    }

    /// Shows another view.
    pub(super) fn turn(&mut self, view: View) {
        self.view = view;
        self.table.select(Some(0));
    }

    /// Moves the mark by so many rows.
    pub(super) fn scroll(&mut self, rows: isize) {
        let row = self.table.selected().unwrap_or_default();
        // One that is beyond the end is put back when it is drawn.
        self.table.select(Some(row.saturating_add_signed(rows)));
    }

    fn color(&self, color: Color) -> Style {
        if self.is_colored { Style::new().fg(color) } else { Style::new() }
    }
}

impl Sort {
    /// Sorts by another column.
    pub(super) fn shift(&mut self, places: isize) {
        self.column = (self.column as isize + places).rem_euclid(self.columns as isize) as usize;
    }

    /// Reverses the order.
    pub(super) fn reverse(&mut self) {
        self.is_reversed ^= true;
    }

    /// Large numbers and early letters come first.
    fn apply(self, rows: &mut [Vec<Cell>]) {
        rows.sort_by(|one, other| {
            let order = match (&one[self.column], &other[self.column]) {
                (Cell::Number(one, _), Cell::Number(other, _)) => other.total_cmp(one),
                (one, other) => one.shown().cmp(other.shown()),
            };
            if self.is_reversed { order.reverse() } else { order }
                .then_with(|| one[0].shown().cmp(other[0].shown()))
        });
    }
}

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, screen: &mut Screen, model: &Model) {
    let areas = Layout::vertical([
        Constraint::Length(3),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(3),
        Constraint::Length(1),
    ]);
    let [summary, plot, tabs, table, foot] = areas.areas(frame.area());
    let lines = model.summary().map(Line::from).to_vec();
    frame.render_widget(Paragraph::new(lines), summary);
    draw_plot(frame, plot, screen, model);
    draw_tabs(frame, tabs, screen);
    draw_table(frame, table, screen, model);
    let line = match model.trouble() {
        Some(trouble) => Line::styled(trouble, screen.color(Color::Red).bold()),
        None if screen.is_paused => Line::styled("paused: Space goes on", Style::new().bold()),
        None => Line::from("? keys   q quit"),
    };
    frame.render_widget(line, foot);
    if screen.shows_keys {
        draw_keys(frame);
    }
}

/// Bytes of all listeners, the last second at the right.
fn draw_plot(frame: &mut Frame<'_>, area: Rect, screen: &Screen, model: &Model) {
    let history = model.history();
    let skipped = history.len().saturating_sub(area.width.into());
    let shown = history.iter().skip(skipped).copied();
    let plot = Sparkline::default().data(shown.collect::<Vec<u64>>());
    frame.render_widget(plot.style(screen.color(Color::Cyan)), area);
}

fn draw_tabs(frame: &mut Frame<'_>, area: Rect, screen: &Screen) {
    let tab = |(index, view): (usize, View)| {
        let style = match view == screen.view {
            true => Style::new().add_modifier(Modifier::BOLD | Modifier::REVERSED),
            false => Style::new(),
        };
        [Span::styled(format!(" {} {} ", index + 1, view.name()), style), Span::raw(" ")]
    };
    let spans: Vec<Span<'_>> = View::ALL.into_iter().enumerate().flat_map(tab).collect();
    frame.render_widget(Line::from(spans), area);
}

fn draw_table(frame: &mut Frame<'_>, area: Rect, screen: &mut Screen, model: &Model) {
    let Some(mut rows) = model.rows(screen.view) else {
        let text = if model.trouble().is_some() { "" } else { "waiting for an answer" };
        return frame.render_widget(Paragraph::new(text), area);
    };
    let sort = screen.sort();
    sort.apply(&mut rows);
    if let Some(selected) = screen.table.selected() {
        screen.table.select(Some(selected.min(rows.len().saturating_sub(1))));
    }
    let columns = screen.view.columns();
    let aligned = |index: usize| if columns[index].2 { Alignment::Right } else { Alignment::Left };
    let head = columns.iter().enumerate().map(|(index, (name, ..))| {
        let mark = match index.cmp(&sort.column) {
            Ordering::Equal if sort.is_reversed => "^",
            Ordering::Equal => "v",
            _ => "",
        };
        Text::from(format!("{name}{mark}")).alignment(aligned(index))
    });
    let head = Row::new(head.collect::<Vec<_>>()).style(Style::new().bold());
    let cells = |row: &Vec<Cell>| {
        let cells = row.iter().enumerate().map(|(index, cell)| {
            let style = match cell.shown() {
                "failing" => screen.color(Color::Red),
                _ => Style::new(),
            };
            Text::styled(cell.shown().to_owned(), style).alignment(aligned(index))
        });
        Row::new(cells.collect::<Vec<_>>())
    };
    let rows: Vec<Row<'_>> = rows.iter().map(cells).collect();
    let widths = columns.iter().map(|&(_, width, _)| match width {
        0 => Constraint::Fill(1),
        _ => Constraint::Length(width),
    });
    let table = Table::new(rows, widths)
        .header(head)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    frame.render_stateful_widget(table, area, &mut screen.table);
}

/// The list of keys, in the middle.
fn draw_keys(frame: &mut Frame<'_>) {
    let lines: Vec<Line<'_>> =
        KEYS.iter().map(|(keys, what)| Line::from(format!(" {keys:<22} {what}"))).collect();
    let (width, height) = (70.min(frame.area().width), lines.len() as u16 + 2);
    let [area] = Layout::vertical([Constraint::Length(height)])
        .flex(ratatui::layout::Flex::Center)
        .areas(frame.area());
    let [area] = Layout::horizontal([Constraint::Length(width)])
        .flex(ratatui::layout::Flex::Center)
        .areas(area);
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" keys ")), area);
}
