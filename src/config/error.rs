//! What is wrong with a configuration, told with file, line, column and the line itself.
//!
//! A line is shown only as far as it cannot hold a secret: up to the value of the first key on it that is not known to
//! be harmless. A typo in `password` must not print the password.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::schema;

/// Everything that is wrong with a configuration file.
#[derive(Debug)]
pub struct ConfigErrors {
    errors: Vec<ConfigError>,
}

/// One thing that is wrong.
#[derive(Debug)]
pub struct ConfigError {
    file: PathBuf,
    place: Option<Place>,
    words: String,
    help: String,
}

/// Something that works but is hardly meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    file: PathBuf,
    position: Option<Position>,
    words: String,
}

/// Where in the file, both counted from 1; a column is a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// How much may be shown of a line that no key starts.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Trust {
    /// The file was understood: such a line belongs to a list.
    Parsed,
    /// It was not: such a line may be the middle of a pasted key.
    Broken,
}

/// Characters of a line that are shown at most.
const MOST_SHOWN: usize = 200;

#[derive(Debug)]
struct Place {
    position: Position,
    shown: String,
    carets: usize,
}

impl ConfigErrors {
    /// The single things.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.errors.iter()
    }

    /// The file could not be read at all.
    pub fn unreadable(file: &Path, why: &dyn std::error::Error) -> Self {
        Self::new(vec![ConfigError::whole(file, format!("cannot be read: {why}"), String::new())])
    }

    pub(super) fn new(mut errors: Vec<ConfigError>) -> Self {
        errors.sort_by_key(|error| error.position().map(|at| (at.line, at.column)));
        Self { errors }
    }
}

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, error) in self.errors.iter().enumerate() {
            let gap = if nth == 0 { "" } else { "\n" };
            write!(f, "{gap}{error}")?;
        }
        Ok(())
    }
}

impl ConfigError {
    /// Where, unless it is about the file as a whole.
    pub fn position(&self) -> Option<Position> {
        self.place.as_ref().map(|place| place.position)
    }

    /// What is wrong.
    pub fn words(&self) -> &str {
        &self.words
    }

    /// What to write instead.
    pub fn help(&self) -> &str {
        &self.help
    }

    pub(super) fn whole(file: &Path, words: String, help: String) -> Self {
        Self { file: file.to_owned(), place: None, words, help }
    }

    /// `at` is a range of bytes of `text`; an empty one at 0 means that nothing in the file is to blame.
    pub(super) fn at(file: &Path, text: &str, at: &Range<usize>, trust: Trust, words: String, help: String) -> Self {
        let place = (*at != (0..0)).then(|| Place::new(text, at, trust));
        Self { file: file.to_owned(), place, words, help }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(Position { line, column }) = self.position() {
            write!(f, "{line}:{column}:")?;
        }
        writeln!(f, " {}", self.words)?;
        let mut margin = 2;
        if let Some(place) = &self.place {
            let number = place.position.line.to_string();
            margin += number.len();
            writeln!(f, "  {number} | {}", place.shown)?;
            // Tabs stay tabs, so that the caret stands below its character.
            let before = place.shown.chars().take(place.position.column - 1);
            let indent: String = before.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            writeln!(f, "{:margin$} | {indent}{}", "", "^".repeat(place.carets))?;
        }
        match self.help.is_empty() {
            true => Ok(()),
            false => writeln!(f, "{:margin$} = {}", "", self.help),
        }
    }
}

impl Warning {
    /// Where, unless it is about the file as a whole.
    pub fn position(&self) -> Option<Position> {
        self.position
    }

    /// What is strange.
    pub fn words(&self) -> &str {
        &self.words
    }

    pub(super) fn at(file: &Path, text: &str, at: &Range<usize>, words: String) -> Self {
        let position = (*at != (0..0)).then(|| position(text, at.start));
        Self { file: file.to_owned(), position, words }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(Position { line, column }) = self.position {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " warning: {}", self.words)
    }
}

impl Place {
    fn new(text: &str, at: &Range<usize>, trust: Trust) -> Self {
        let position = position(text, at.start);
        let line = text.lines().nth(position.line - 1).unwrap_or_default();
        // Of a line that was not understood, what follows the mistake may be anything.
        let known = line.char_indices().nth(position.column - 1).filter(|_| trust == Trust::Broken);
        let known = known.and_then(|(end, _)| line.get(..end)).unwrap_or(line);
        let mut shown = harmless(known, trust);
        if known.len() < line.len() && !shown.ends_with("...") {
            shown.push_str("...");
        }
        let cut = shown.chars().count() < line.chars().count();
        if let Some((end, _)) = shown.char_indices().nth(MOST_SHOWN) {
            shown.truncate(end);
        }
        // Where the column itself was cut away, the caret stands at the cut.
        if cut && position.column <= MOST_SHOWN {
            shown = format!("{shown:width$}", width = position.column - 1);
        }
        let whole = text.get(at.clone()).unwrap_or_default();
        let width = whole.lines().next().unwrap_or_default().chars().count();
        let room = (shown.chars().count() + 1).saturating_sub(position.column + usize::from(cut));
        let carets = width.min(room).max(1);
        Self { position, shown, carets }
    }
}

/// The line and column of a byte.
fn position(text: &str, byte: usize) -> Position {
    let before = text.get(..byte.min(text.len())).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
    Position { line: before.matches('\n').count() + 1, column }
}

/// The part of a line that cannot hold a secret, with control characters taken out.
fn harmless(line: &str, trust: Trust) -> String {
    let clean =
        |part: &str| part.chars().map(|c| if c.is_control() && c != '\t' { '?' } else { c }).collect::<String>();
    let start = line.trim_start();
    let header = start.starts_with('[') && !start.contains(['"', '\'', '=']);
    let key = start.split(|c: char| c.is_whitespace() || c == '=').next().unwrap_or_default();
    if trust == Trust::Broken && !header && !key.split('.').all(schema::is_harmless) {
        return "...".to_owned();
    }
    let mut from = 0;
    while let Some(found) = line.get(from..).and_then(|rest| rest.find('=')) {
        let equals = from + found;
        let before = line.get(..equals).unwrap_or_default().trim_end();
        let key = before.rsplit(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-')).next();
        if !key.is_some_and(schema::is_harmless) {
            return clean(line.get(..=equals).unwrap_or_default()) + " ...";
        }
        from = equals + 1;
    }
    match trust == Trust::Broken && from == 0 && !header {
        true => clean(line.get(..line.len() - start.len() + key.len()).unwrap_or_default()) + " ...",
        false => clean(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_harmless_parts_of_a_line_are_shown() {
        use Trust::{Broken, Parsed};
        for (line, trust, expected) in [
            ("address = \"10.0.0.5\"", Parsed, "address = \"10.0.0.5\""),
            ("address = \"10.0.0.5", Broken, "address = \"10.0.0.5"),
            ("password = \"hunter2\"", Parsed, "password = ..."),
            ("password = hunter2", Broken, "..."),
            ("pasword = \"hunter2\"", Parsed, "pasword = ..."),
            ("adress = \"10.0.0.5\"", Parsed, "adress = ..."),
            ("adress = \"10.0.0.5", Broken, "..."),
            ("u = { address = \"x\", password = \"hunter2\" }", Parsed, "u = ..."),
            (
                "upstream = { address = \"x\", pw = \"hunter2\", kind = 1 }",
                Parsed,
                "upstream = { address = \"x\", pw = ...",
            ),
            ("upstream.password=\"hunter2\"", Parsed, "upstream.password= ..."),
            ("\"password\" = 'hunter2'", Parsed, "\"password\" = ..."),
            ("  \"SHA256:abc\",", Parsed, "  \"SHA256:abc\","),
            ("b3BlbnNzaC1rZXktdjEAAAA", Broken, "..."),
            ("b3BlbnNzaC1rZXktdjEAAAA==", Broken, "..."),
            ("address \"10.0.0.5\"", Broken, "address ..."),
            ("password hunter2", Broken, "..."),
            ("[socket.upstrea", Broken, "[socket.upstrea"),
            ("\tname = \"\x1b[2J\"", Parsed, "\tname = \"?[2J\""),
        ] {
            assert_eq!(harmless(line, trust), expected, "{line:?}");
        }
    }

    #[test]
    fn positions_count_characters() {
        let text = "a = 1\né = \"漢\" # x\n";
        for (byte, line, column) in [(0, 1, 1), (4, 1, 5), (6, 2, 1), (8, 2, 2), (11, 2, 5), (999, 3, 1)] {
            assert_eq!(position(text, byte), Position { line, column }, "{byte}");
        }
    }
}
