//! Tables for terminals, and ids short enough for them.

use std::io::{self, IsTerminal};

use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};
use uuid::Uuid;

use super::has_colour;

/// A table without lines. What is too long for the terminal wraps in the columns that `may_wrap`, and nothing is cut;
/// without a terminal every row is one line.
pub(super) fn plain<const N: usize>(header: [&str; N], may_wrap: impl Fn(usize) -> bool) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    if io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 1));
        if !may_wrap(at) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    if !has_colour() {
        table.force_no_tty();
    }
    table
}

/// As much of each id as tells it from the others here, and at least its time.
pub(super) fn short_ids(ids: impl IntoIterator<Item = Uuid>) -> Vec<String> {
    let ids: Vec<String> = ids.into_iter().map(|id| id.to_string()).collect();
    let begin = |id: &str, length: usize| id.get(..length).unwrap_or(id).to_owned();
    let short = |id: &String| {
        let alone = |length: &usize| ids.iter().filter(|other| other.starts_with(&begin(id, *length))).count() == 1;
        begin(id, [13, 18, 23].into_iter().find(alone).unwrap_or(36))
    };
    ids.iter().map(short).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_as_short_as_tells_them_apart() {
        let ids = [
            "01234567-89ab-7000-8000-000000000001",
            "01234567-89ab-7000-9000-000000000001",
            "01234567-89ac-7000-9000-000000000001",
            "01234567-89ad-7000-9000-000000000001",
            "01234567-89ad-7000-9000-000000000002",
        ];
        let expected = [
            "01234567-89ab-7000-8000",
            "01234567-89ab-7000-9000",
            "01234567-89ac",
            "01234567-89ad-7000-9000-000000000001",
            "01234567-89ad-7000-9000-000000000002",
        ];
        assert_eq!(short_ids(ids.map(|id| id.parse().unwrap())), expected);
    }
}
