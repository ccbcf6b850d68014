//! `view=screen` where a terminal was: what a person saw.
//!
//! Lines are told once, when they scroll out or are cleared, and at the end. Programs that paint over what they showed
//! (vim, less, top, menus) scroll nothing out. So the screen is looked at whenever output pauses, and kept: when a later
//! look finds it changed beyond recognition, it is told as it was, whole. A line typed on grows, it does not change; a
//! single line that gave way to another one (a command line, a message) is told alone.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::time::Duration;

use avt::parser::{DecMode, DecModes, EdScope, Function};
use avt::{Line, Observation, Observer, Operation, ScreenKind, Terminal};

use super::page::Page;
use crate::record::export::escape::push_char;
use crate::record::export::screen::Screen;
use crate::record::observation::{Direction, What};

/// Shows output on a screen, and tells what goes from it.
#[derive(Default)]
pub struct Seen {
    screen: Screen,
    memory: Memory,
    /// When output came last.
    last: Duration,
}

impl Seen {
    pub fn observe(&mut self, at: Duration, what: &What, page: &mut Page) {
        if matches!(what, What::Bytes { direction: Direction::Output, .. } | What::Told { .. }) {
            self.output(at, page);
        }
        self.screen.observe_with(what, &mut Onlooker { at, memory: &mut self.memory, page });
    }

    pub fn finish(&mut self, page: &mut Page) {
        let terminal = self.screen.terminal();
        self.memory.leave(terminal, self.last, page);
        tell_lines(terminal, self.last, page);
        page.end_line();
        match self.screen.left_out() {
            0 => {}
            n => {
                page.own(
                    self.last,
                    &format!("{n} steps left out: the recording asks for far more work than it is long"),
                );
            }
        }
    }

    /// Looks at what stood, before more comes.
    fn output(&mut self, at: Duration, page: &mut Page) {
        let memory = &mut self.memory;
        let rests = at.saturating_sub(self.last) >= PAUSE || at.saturating_sub(memory.until) >= LONGEST;
        let changed = memory.changed.iter().filter(|changed| **changed).count();
        if changed == 0 {
            memory.until = at;
        } else if rests && self.screen.pay_for_a_look(changed) {
            memory.look(self.screen.terminal(), self.last, page);
            memory.until = at;
        }
        self.last = at;
    }
}

/// The screen as it stood when it was looked at last.
#[derive(Default)]
struct Memory {
    rows: VecDeque<Row>,
    size: (usize, usize),
    /// When it was looked at, and when something came after.
    looked: Duration,
    until: Duration,
    /// Which rows of the terminal may look different by now.
    changed: Vec<bool>,
    /// The rows of the screen that was told last.
    told: HashSet<String>,
    /// Rows that have changed since a screen was told.
    drift: usize,
}

struct Row {
    text: String,
    /// Whether it is in a screen that was told.
    told: bool,
}

impl Memory {
    /// Compares what stood with what stands, tells what is gone, and keeps what stands.
    fn look(&mut self, terminal: &Terminal, at: Duration, page: &mut Page) {
        let now = self.now(terminal);
        self.compare(&now, terminal.active_screen_kind() == ScreenKind::Alternate, page);
        self.keep(now, terminal.size(), at);
    }

    fn keep(&mut self, now: Vec<String>, size: (usize, usize), at: Duration) {
        let told = &self.told;
        self.rows = now.into_iter().map(|text| Row { told: told.contains(&text), text }).collect();
        self.size = size;
        self.looked = at;
        self.changed.clear();
    }

    /// The rows of the screen that is shown, without spaces at their ends.
    fn now(&self, terminal: &Terminal) -> Vec<String> {
        let row = |(n, line): (usize, &Line)| match (self.rows.get(n), self.changed.get(n)) {
            (Some(row), None | Some(false)) => row.text.clone(),
            _ => {
                let mut text = line.text();
                text.truncate(text.trim_end().len());
                text
            }
        };
        terminal.screen().visible_lines().enumerate().map(row).collect()
    }

    fn change(&mut self, rows: Range<usize>) {
        if self.changed.len() < rows.end {
            self.changed.resize(rows.end, false);
        }
        self.changed.get_mut(rows).unwrap_or_default().fill(true);
    }

    fn compare(&mut self, now: &[String], alternate: bool, page: &mut Page) {
        let lost = self.lost(now);
        let replaced = |n: &usize| {
            let (old, new) = (self.rows.get(*n), now.get(*n));
            old.zip(new).is_none_or(|(old, new)| !similar(&old.text, new))
        };
        let replaced: Vec<usize> = lost.iter().copied().filter(replaced).collect();
        let filled = self.rows.iter().filter(|row| !row.text.is_empty()).count();
        let was_read = self.until.saturating_sub(self.looked) >= READ;
        self.drift += lost.len();
        if most(replaced.len(), filled) || (was_read && most(lost.len(), filled)) || (alternate && self.drift > filled)
        {
            return self.tell_screen(page);
        }
        for n in replaced {
            if let Some(row) = self.rows.get(n) {
                tell_row(&row.text, self.looked, page);
            }
        }
    }

    /// The rows that stood, were not told, and are nowhere any more.
    fn lost(&self, now: &[String]) -> Vec<usize> {
        let present: HashSet<&str> = now.iter().map(String::as_str).collect();
        let gone = |(n, row): &(usize, &Row)| {
            let there = row.told || row.text.is_empty() || present.contains(row.text.as_str());
            !there && !now.get(*n).is_some_and(|now| grown(&row.text, now))
        };
        self.rows.iter().enumerate().filter(gone).map(|(n, _)| n).collect()
    }

    /// Tells the screen as it stood.
    fn tell_screen(&mut self, page: &mut Page) {
        let filled = self.rows.iter().rposition(|row| !row.text.is_empty()).map_or(0, |last| last + 1);
        let characters = self.rows.iter().take(filled).map(|row| row.text.chars().count() + 1).sum();
        if filled > 0 && page.affords(self.looked, characters, filled) {
            let (cols, rows) = self.size;
            page.own(self.looked, &format!("screen {cols}x{rows}"));
            for row in self.rows.iter().take(filled) {
                page.recorded(row.text.chars().chain(['\n']));
            }
            page.own(self.until.max(self.looked), "end of screen");
        }
        self.drift = 0;
        self.told = self.rows.iter().map(|row| row.text.clone()).collect();
        self.rows.iter_mut().for_each(|row| row.told = true);
    }

    /// Tells what a painted screen shows before it is gone, unless it was told; forgets either screen.
    fn leave(&mut self, terminal: &Terminal, at: Duration, page: &mut Page) {
        let alternate = terminal.active_screen_kind() == ScreenKind::Alternate;
        if self.changed.contains(&true) {
            let now = self.now(terminal);
            if alternate && !self.lost(&now).is_empty() {
                // Programs tidy up before they leave, and nobody saw that: what stood counts, and what came new.
                self.until = at;
                self.tell_screen(page);
                let stood: HashSet<&str> = self.rows.iter().map(|row| row.text.as_str()).collect();
                let new = |text: &&String| !text.is_empty() && !stood.contains(text.as_str());
                let new: Vec<&String> = now.iter().filter(new).collect();
                if !most(new.len(), stood.len()) {
                    new.into_iter().for_each(|text| tell_row(text, at, page));
                    self.told.extend(now.iter().cloned());
                }
            } else {
                self.compare(&now, alternate, page);
            }
            self.keep(now, terminal.size(), at);
        }
        if alternate && self.rows.iter().any(|row| !row.told && !row.text.is_empty()) {
            self.until = at;
            self.tell_screen(page);
        }
        self.rows.clear();
    }
}

/// What `avt` tells about what it does.
struct Onlooker<'a> {
    at: Duration,
    memory: &'a mut Memory,
    page: &'a mut Page,
}

impl Observer for Onlooker<'_> {
    type Output = ();

    fn before(&mut self, context: &mut Observation<'_>, operation: &Operation) {
        let terminal = context.terminal();
        let alternate = terminal.active_screen_kind() == ScreenKind::Alternate;
        let erases_all = match operation {
            Operation::Function(Function::Ed(EdScope::All)) => alternate,
            Operation::Function(Function::Ed(EdScope::Below)) => {
                let cursor = terminal.cursor();
                cursor.row == 0 && cursor.col == 0
            }
            Operation::Function(Function::Decset(modes)) => !alternate && switches(modes),
            Operation::Function(Function::Decrst(modes)) => alternate && switches(modes),
            Operation::Function(Function::Ris) => true,
            Operation::Resize { cols, rows } => (*cols, *rows) != terminal.size(),
            Operation::Function(_) => false,
        };
        if !erases_all {
            return;
        }
        self.memory.leave(terminal, self.at, self.page);
        let lines_go = match operation {
            Operation::Function(Function::Ed(EdScope::Below)) => !alternate,
            Operation::Function(Function::Ris) => true,
            _ => false,
        };
        if lines_go {
            tell_lines(terminal, self.at, self.page);
        }
    }

    fn dirty(&mut self, rows: Range<usize>) {
        self.memory.change(rows);
    }

    fn evicted(&mut self, context: &mut Observation<'_>, line: &Line) {
        tell_line(line, self.at, self.page);
        if context.terminal().active_screen_kind() == ScreenKind::Primary {
            self.memory.rows.pop_front();
            // The rows that are kept have moved.
            self.memory.change(0..context.terminal().size().1);
        }
    }

    fn end(&mut self, _context: &mut Observation<'_>) {}
}

fn switches(modes: &DecModes) -> bool {
    let switches = |mode: &DecMode| matches!(mode, DecMode::AltScreenBuffer | DecMode::SaveCursorAltScreenBuffer);
    modes.as_slice().iter().any(switches)
}

/// Tells a row that gave way to another one.
fn tell_row(text: &str, at: Duration, page: &mut Page) {
    if page.affords(at, text.chars().count(), 1) {
        let mut words = "gone: ".to_owned();
        text.chars().for_each(|c| push_char(&mut words, c));
        page.own(at, &words);
    }
}

/// Tells the lines of the primary screen, without the empty ones below.
fn tell_lines(terminal: &Terminal, at: Duration, page: &mut Page) {
    let lines = || terminal.primary_screen().visible_lines();
    let filled = lines().enumerate().filter(|(_, line)| line.chars().any(|c| c != ' ')).last();
    lines().take(filled.map_or(0, |(n, _)| n + 1)).for_each(|line| tell_line(line, at, page));
}

fn tell_line(line: &Line, at: Duration, page: &mut Page) {
    let last = line.chars().enumerate().filter(|(_, c)| *c != ' ').last().map_or(0, |(n, _)| n + 1);
    if !page.affords(at, last, 1) {
        return;
    }
    match line.is_wrapped() {
        true => page.recorded(line.chars()),
        false => page.recorded(line.chars().chain(['\n'])),
    }
}

/// Whether so many rows of so many are more than a detail.
fn most(rows: usize, of: usize) -> bool {
    rows >= 2 && rows * 3 >= of
}

/// Whether one text became the other by writing or deleting in one place, as people type.
fn grown(old: &str, new: &str) -> bool {
    let same = |pairs: &mut dyn Iterator<Item = (char, char)>| pairs.take_while(|(a, b)| a == b).count();
    let (old_len, new_len) = (old.chars().count(), new.chars().count());
    let head = same(&mut old.chars().zip(new.chars()));
    let tail = same(&mut old.chars().rev().zip(new.chars().rev()));
    head + tail >= old_len || (head + tail >= new_len && new_len * 2 >= old_len)
}

/// Whether at least three quarters of a text still stand where they stood. Counters count, clocks run: digits are alike.
fn similar(old: &str, new: &str) -> bool {
    let mut new = new.chars();
    let (mut all, mut same) = (0, 0);
    for c in old.chars() {
        let now = new.next();
        if c != ' ' {
            all += 1;
            same += usize::from(now == Some(c) || (c.is_ascii_digit() && now.is_some_and(|now| now.is_ascii_digit())));
        }
    }
    same * 4 >= all * 3
}

/// Output that stops for so long was looked at.
const PAUSE: Duration = Duration::from_millis(100);
/// A screen that does not rest for so long is looked at all the same.
const LONGEST: Duration = Duration::from_secs(1);
/// A screen that stood for so long was read.
const READ: Duration = Duration::from_millis(300);
