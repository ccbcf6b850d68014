//! Collects what is wrong while a file is read, so that all of it is told at once.

use std::collections::HashSet;
use std::fmt::Display;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;

use super::error::{ConfigError, ConfigErrors, Trust, Warning};
use super::schema;

/// The file and what was found in it so far.
pub struct Report<'a> {
    file: &'a Path,
    text: &'a str,
    errors: Vec<ConfigError>,
    warnings: Vec<Warning>,
    /// Tables (by where they start) and keys of theirs that are told already: they are not missing as well.
    told: HashSet<(usize, String)>,
}

impl<'a> Report<'a> {
    /// Nothing found yet.
    pub fn new(file: &'a Path, text: &'a str) -> Self {
        Self { file, text, errors: Vec::new(), warnings: Vec::new(), told: HashSet::new() }
    }

    /// Something is wrong at this place; `help` says what to write instead.
    pub fn error(&mut self, at: &Range<usize>, words: impl Into<String>, help: impl Into<String>) {
        self.errors.push(ConfigError::at(self.file, self.text, at, Trust::Parsed, words.into(), help.into()));
    }

    /// The file is not TOML.
    pub fn syntax(&mut self, at: &Range<usize>, words: impl Into<String>) {
        let help = "see https://toml.io for how TOML is written";
        self.errors.push(ConfigError::at(self.file, self.text, at, Trust::Broken, words.into(), help.into()));
    }

    /// Something is strange at this place.
    pub fn warn(&mut self, at: &Range<usize>, words: impl Into<String>) {
        self.warnings.push(Warning::at(self.file, self.text, at, words.into()));
    }

    /// This key of the table that starts there was told about.
    pub fn told(&mut self, table: &Range<usize>, key: &str) {
        self.told.insert((table.start, key.to_owned()));
    }

    /// A key that must be there and is not, with an example of how to write it. Of several `keys` one must be there.
    pub fn missing(&mut self, table: &Range<usize>, path: &str, keys: &[&str], example: &str) {
        let told = keys.iter().any(|key| self.told.contains(&(table.start, (*key).to_owned())));
        if let (false, Some(key)) = (told, keys.first()) {
            let words = format!("`{key}` is missing in {}", schema::written(path));
            self.error(table, words, format!("write {key} = {example}"));
        }
    }

    /// The value, or what was wrong with it at its place.
    pub fn value<T, V, E: Display>(&mut self, typed: &Spanned<T>, value: Result<V, E>, help: &str) -> Option<V> {
        value.map_err(|error| self.error(&typed.span(), error.to_string(), help)).ok()
    }

    /// Whether anything is wrong so far.
    pub fn is_bad(&self) -> bool {
        !self.errors.is_empty()
    }

    /// The end of it.
    pub fn finish<T>(self, value: Option<T>) -> Result<(T, Vec<Warning>), ConfigErrors> {
        match value {
            Some(value) if self.errors.is_empty() => Ok((value, self.warnings)),
            _ => Err(ConfigErrors::new(self.errors)),
        }
    }
}
