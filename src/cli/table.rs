//! Tables that fit 80 columns on a terminal: no borders, nothing cut off, ids whole. What goes elsewhere is read by
//! programs, so a row is one line there, however long.

use std::io::IsTerminal;

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, presets};

use super::output::{BOLD, GREEN, RED, RESET, YELLOW};
use crate::model::state::State;

/// The width that everything fits on a terminal, but for an id that a client made longer.
pub const WIDTH: u16 = 80;

/// The longest id that has a place in its column: those that taskd makes. A longer one of a client stands
/// on a line of its own above its row, so that the other rows stay as they are.
const LONGEST: usize = 36;

/// Stands in the table for an id that is too long; no name has it.
const ELSEWHERE: char = '\u{e000}';

/// A narrower one leaves no room for words.
const NARROWEST: u16 = 40;

/// The width of what is printed: `COLUMNS` where it is set, [`WIDTH`] on a terminal; none elsewhere.
fn width() -> Option<u16> {
    if cfg!(test) {
        // Tests look at what a terminal shows, wherever they run.
        return Some(WIDTH);
    }
    let asked = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok());
    asked.map(|c: u16| c.max(NARROWEST)).or_else(|| std::io::stdout().is_terminal().then_some(WIDTH))
}

fn empty(width: Option<u16>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    match width {
        Some(width) => table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width),
        None => table.set_content_arrangement(ContentArrangement::Disabled),
    };
    table
}

/// How a column is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Never wrapped: ids, states.
    Whole(&'static str),
    /// Wrapped where it must be.
    Text(&'static str),
    /// To the right, never wrapped.
    Number(&'static str),
}

impl Column {
    const fn title(self) -> &'static str {
        match self {
            Self::Whole(t) | Self::Text(t) | Self::Number(t) => t,
        }
    }
}

/// Rows under a heading, each line ended. Colors stand around states and the heading; the writer takes
/// them out where they are not wanted.
#[must_use]
pub fn render(columns: &[Column], rows: Vec<Vec<String>>) -> String {
    render_within(width(), columns, rows)
}

fn render_within(width: Option<u16>, columns: &[Column], rows: Vec<Vec<String>>) -> String {
    let mut table = empty(width);
    table.set_header(columns.iter().map(|c| c.title()));
    let mut long = std::collections::VecDeque::new();
    let first_is_whole = matches!(columns.first(), Some(Column::Whole(_)));
    for row in rows {
        table.add_row(row.iter().enumerate().map(|(at, cell)| {
            let cell = super::output::clean(cell);
            if at > 0 || !first_is_whole || cell.chars().count() <= LONGEST {
                return cell;
            }
            long.push_back(cell);
            ELSEWHERE.to_string()
        }));
    }
    let last = columns.len().saturating_sub(1);
    for (at, kind) in columns.iter().enumerate() {
        let Some(column) = table.column_mut(at) else { continue };
        column.set_padding((0, if at == last { 0 } else { 2 }));
        match kind {
            Column::Text(_) => {}
            Column::Whole(_) => {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
            Column::Number(_) => {
                column.set_constraint(ColumnConstraint::ContentWidth);
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    let mut text = String::new();
    let mut lines = table.lines();
    if let Some(heading) = lines.next() {
        text.push_str(&format!("{BOLD}{}{RESET}\n", heading.trim_end()));
    }
    for line in lines {
        let id = if line.starts_with(ELSEWHERE) { long.pop_front() } else { None };
        if let Some(id) = &id {
            text.push_str(&format!("{id}\n"));
        }
        let line = if id.is_some() { line.replacen(ELSEWHERE, " ", 1) } else { line };
        text.push_str(&paint(line.trim_end()));
        text.push('\n');
    }
    text
}

/// The line with its state, if it shows one, in color. States stand alone between blanks.
fn paint(line: &str) -> String {
    for word in line.split(' ') {
        let Some(state) = crate::model::state::ALL.into_iter().find(|s| s.name() == word) else { continue };
        if let Some((before, after)) = line.split_once(word) {
            return format!("{before}{}{after}", state_styled(state));
        }
    }
    line.to_owned()
}

/// A state's name in its color.
#[must_use]
pub fn state_styled(state: State) -> String {
    let style = match state {
        State::Success => GREEN,
        State::Failure | State::Dead => RED,
        State::Revoked | State::Expired | State::Retry => YELLOW,
        State::Running => BOLD,
        State::Scheduled | State::Waiting => return state.to_string(),
    };
    format!("{style}{state}{RESET}")
}

/// Lines of a name and what it is, the names of one width, wrapped as tables are.
#[must_use]
pub fn pairs(pairs: &[(&str, String)]) -> String {
    let mut table = empty(width());
    for (name, value) in pairs {
        table.add_row([(*name).to_owned(), super::output::clean(value)]);
    }
    for at in 0..2 {
        let Some(column) = table.column_mut(at) else { continue };
        column.set_padding((0, if at == 0 { 2 } else { 0 }));
        if at == 0 {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for line in table.lines() {
        // Names are ours and ASCII.
        let (name, value) = line.split_at_checked(width).unwrap_or(("", &line));
        text.push_str(&format!("{BOLD}{name}{RESET}{}\n", paint(value.trim_end())));
    }
    text
}

/// A count of bytes, to three figures: `812B`, `12.4M`.
#[must_use]
pub fn size(bytes: u64) -> String {
    let mut unit = 1_u64;
    for name in ["B", "K", "M", "G"] {
        if bytes / unit < 1024 {
            let tenths = bytes % unit * 10 / unit;
            let whole = bytes / unit;
            return if whole < 100 && unit > 1 {
                format!("{whole}.{tenths}{name}")
            } else {
                format!("{whole}{name}")
            };
        }
        unit *= 1024;
    }
    format!("{}T", bytes / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn a_table_fits_and_keeps_ids_and_text_whole() {
        let id = "0198f0aa-7c1e-7b5e-9f3a-2f6b1c9d8e7f";
        let task = "a.very.long.task.name.that.does.not.fit.the.column";
        let text = plain(&render_within(
            Some(WIDTH),
            &[Column::Whole("ID"), Column::Whole("STATE"), Column::Text("TASK"), Column::Number("WHEN")],
            vec![vec![id.into(), "SCHEDULED".into(), task.into(), "12m 30s ago".into()]],
        ));
        assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
        assert!(text.contains(id));
        let wrapped: String = text.lines().skip(1).flat_map(|l| l.chars().skip(38 + 11).take(19)).collect();
        assert!(wrapped.replace(' ', "").starts_with(task.get(..30).unwrap()), "{text}");
    }

    #[test]
    fn a_long_id_of_a_client_is_whole_and_spoils_no_other_row() {
        let (id, own) = ("x".repeat(128), "0198f0aa-7c1e-7b5e-9f3a-2f6b1c9d8e7f");
        let row = |id: &str| vec![id.to_owned(), "WAITING".to_owned(), "mail".to_owned()];
        let text = plain(&render_within(
            Some(WIDTH),
            &[Column::Whole("ID"), Column::Whole("STATE"), Column::Text("TASK")],
            vec![row(own), row(&id), row(own)],
        ));
        let own = format!("{own}  WAITING  mail");
        let below = format!("{:36}  WAITING  mail", "");
        assert_eq!(text.lines().skip(1).collect::<Vec<_>>(), [&own, &id, &below, &own]);
    }

    #[test]
    fn a_row_is_one_line_where_no_terminal_reads_it() {
        let (task, error) = ("task.".repeat(40), "words that say why ".repeat(20));
        let columns = [Column::Whole("STATE"), Column::Text("TASK"), Column::Text("WHY")];
        let rows = vec![vec!["FAILURE".to_owned(), task.clone(), error.trim_end().to_owned()]];
        let text = plain(&render_within(None, &columns, rows.clone()));
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains(&task) && text.contains(error.trim_end()));
        assert!(plain(&render_within(Some(WIDTH), &columns, rows)).lines().count() > 2);
    }

    #[test]
    fn states_are_colored_and_words_like_them_are_not() {
        assert_eq!(paint("id  FAILURE  mail"), format!("id  {RED}FAILURE{RESET}  mail"));
        assert_eq!(paint("id  WAITING  mail"), "id  WAITING  mail");
        assert_eq!(paint("MY_FAILURE"), "MY_FAILURE");
    }

    #[test]
    fn sizes() {
        assert_eq!([size(0), size(1023), size(1536), size(300 << 20)], ["0B", "1023B", "1.5K", "300M"]);
    }
}
