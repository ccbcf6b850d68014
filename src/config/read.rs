//! Text to [`Raw`]: syntax, keys and types. Whatever is wrong is told and taken out, so that the rest is still read.

use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::raw::Raw;
use super::report::Report;
use super::schema;

/// Reads the file as typed. `None` where nothing can be said beyond the syntax.
pub fn read(text: &str, report: &mut Report<'_>) -> Option<Raw> {
    let (tree, errors) = DeTable::parse_recoverable(text);
    let mut lines = std::collections::HashSet::new();
    for error in errors {
        let at = error.span().unwrap_or(0..0);
        // One broken line makes several errors; the first tells it.
        let line = text.get(..at.start).unwrap_or_default().matches('\n').count();
        if lines.insert(line) {
            report.syntax(&at, format!("this is not TOML: {}", error.message()));
        }
    }
    if report.is_bad() {
        return None;
    }
    let span = tree.span();
    let mut tree = tree.into_inner();
    weed(&mut tree, &span, "", report);
    loop {
        let value = Spanned::new(span.clone(), DeValue::Table(tree.clone()));
        match Raw::deserialize(ValueDeserializer::from(value)) {
            Ok(raw) => return Some(raw),
            Err(error) => mistyped(&mut tree, &span, &error, report)?,
        }
    }
}

/// Takes out keys that are unknown or not built yet, here and below.
fn weed(table: &mut DeTable<'_>, span: &Range<usize>, path: &str, report: &mut Report<'_>) {
    // Tables with free keys (`tags`) have no schema.
    let Some(schema) = schema::at(path) else { return };
    let mut weeds = Vec::new();
    for (key, value) in table.iter_mut() {
        let (at, key) = (key.span(), key.get_ref().as_ref());
        if !schema.keys.contains(&key) {
            unknown(key, &at, schema, span, report);
            weeds.push(key.to_owned());
            continue;
        }
        let below = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        let value_span = value.span();
        match value.get_mut() {
            DeValue::Table(table) => weed(table, &value_span, &below, report),
            DeValue::Array(array) => {
                for item in array.iter_mut() {
                    let item_span = item.span();
                    if let DeValue::Table(table) = item.get_mut() {
                        weed(table, &item_span, &below, report);
                    }
                }
            }
            _ => {}
        }
    }
    for key in weeds {
        table.remove(key.as_str());
    }
}

fn unknown(key: &str, at: &Range<usize>, schema: &schema::Table, table: &Range<usize>, report: &mut Report<'_>) {
    let place = schema::written(schema.path);
    let shown = key.escape_debug();
    if schema.later.contains(&key) {
        return report.error(at, format!("`{shown}` in {place} is not built yet"), "leave it out");
    }
    let help = if let Some(meant) = schema::meant(key, schema.keys.iter().chain(schema.later).copied()) {
        report.told(table, meant);
        format!("did you mean `{meant}`?")
    } else if let Some(other) = schema::tables().iter().find(|other| other.keys.contains(&key)) {
        format!("`{shown}` belongs to {}", schema::written(other.path))
    } else if schema.keys.is_empty() {
        "leave it out: the table has no keys".to_owned()
    } else {
        format!("there are: {}", schema.keys.join(", "))
    };
    report.error(at, format!("unknown key `{shown}` in {place}"), help);
}

/// Tells of a value of the wrong type and takes it out. `None` where it cannot be found.
fn mistyped(
    tree: &mut DeTable<'_>,
    span: &Range<usize>,
    error: &toml::de::Error,
    report: &mut Report<'_>,
) -> Option<()> {
    let at = error.span().unwrap_or(0..0);
    // The message holds the value, which may be a secret; what was expected does not.
    let expected = error.message().rsplit_once("expected ").map_or("something else", |(_, expected)| expected);
    let expected = match expected.trim() {
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "u32" => "a whole number, 0 or more",
        "a map" => "a table",
        other if other.starts_with("struct ") => "a table",
        other => other,
    };
    let found = take(tree, span, &at);
    let (words, help) = match &found {
        Some((_, key)) if expected == "a list" && schema::list_called(key).is_some() => {
            let path = schema::list_called(key).unwrap_or_default();
            (format!("[{path}] can stand more than once"), format!("write [[{path}]]"))
        }
        Some((_, key)) => (format!("`{key}` has the wrong type"), format!("write {expected}")),
        None => ("this value has the wrong type".to_owned(), format!("write {expected}")),
    };
    report.error(&at, words, help);
    let (table, key) = found?;
    report.told(&table, &key);
    Some(())
}

/// Removes the value that is, or in a list holds, what stands at `at`; gives its table's span and its key.
fn take(table: &mut DeTable<'_>, span: &Range<usize>, at: &Range<usize>) -> Option<(Range<usize>, String)> {
    let mut found = None;
    for (key, value) in table.iter_mut() {
        let value_span = value.span();
        let here = value_span.start <= at.start && at.end <= value_span.end;
        let deeper = match value.get_mut() {
            DeValue::Table(table) => take(table, &value_span, at),
            DeValue::Array(array) => array.iter_mut().find_map(|item| {
                let item_span = item.span();
                match item.get_mut() {
                    DeValue::Table(table) => take(table, &item_span, at),
                    _ => None,
                }
            }),
            _ => None,
        };
        if deeper.is_some() {
            return deeper;
        }
        if here {
            found = Some(key.get_ref().to_string());
        }
    }
    let key = found?;
    table.remove(key.as_str())?;
    Some((span.clone(), key))
}
