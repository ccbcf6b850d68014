//! Evasions made visible: what a terminal is made to do so that whoever looks on, or reads later, sees less than its user.
//!
//! Follows colours, strings and the beginnings of lines, and does not know where anything stands on the screen. It tells
//! and changes nothing. Where terminals disagree about what bytes mean, nothing takes a suspicion off.

mod clipboard;
mod greeting;
mod scanner;
mod style;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use serde_json::{Value, json};

use self::clipboard::Command;
use self::greeting::Greeting;
use self::scanner::{Scanner, Screen};
use self::style::Style;
use super::{Fact, Outcome, Reading, Step, Stop};

/// The `type` of every event that is told here.
pub const KIND: &str = "ssh_evasion";

/// Follows what one terminal channel shows. It holds under a kilobyte, whatever comes.
#[derive(Debug)]
pub struct Disguise {
    client: Greeting,
    upstream: Greeting,
    is_opaque: bool,
    is_small: bool,
    scanner: Scanner,
    hidden: Hidden,
}

impl Default for Disguise {
    fn default() -> Self {
        Self {
            client: Greeting::within(greeting::LONGEST),
            upstream: Greeting::within(GREETING_WITHIN),
            is_opaque: false,
            is_small: false,
            scanner: Scanner::default(),
            hidden: Hidden::default(),
        }
    }
}

impl Reading for Disguise {
    fn input(&mut self, data: Bytes, _: bool, steps: &mut Vec<Step>) -> Result<(), Stop> {
        tell(steps, |facts| Disguise::input(self, &data, facts));
        steps.push(Step::Pass(data));
        Ok(())
    }

    fn output(&mut self, data: Bytes, _: bool, steps: &mut Vec<Step>) -> Result<(), Stop> {
        let mut facts = Vec::new();
        Disguise::output(self, &data, &mut facts);
        // What is told comes after what it is about.
        steps.push(Step::Pass(data));
        steps.extend(facts.into_iter().map(Step::Tell));
        Ok(())
    }

    fn is_between(&self) -> bool {
        false
    }

    fn resize(&mut self, cols: u32, rows: u32, steps: &mut Vec<Step>) {
        tell(steps, |facts| Disguise::resize(self, cols, rows, facts));
    }

    fn finish(&mut self, steps: &mut Vec<Step>) {
        tell(steps, |facts| Disguise::finish(self, facts));
    }
}

fn tell(steps: &mut Vec<Step>, look: impl FnOnce(&mut Vec<Fact>)) {
    let mut facts = Vec::new();
    look(&mut facts);
    steps.extend(facts.into_iter().map(Step::Tell));
}

impl Disguise {
    /// Looks at what the client sent: whether it speaks SSH itself.
    pub fn input(&mut self, data: &[u8], facts: &mut Vec<Fact>) {
        if !self.is_opaque && self.client.find(data).is_some() {
            self.inner_ssh("client", facts);
        }
    }

    /// Looks at what the terminal is made to show; appends what is worth telling. The same bytes give the same facts,
    /// however they are cut. Once the channel is opaque, nothing in it is looked at: what is encrypted looks like anything.
    pub fn output(&mut self, data: &[u8], facts: &mut Vec<Fact>) {
        if self.is_opaque {
            return;
        }
        let end = self.upstream.find(data);
        let shown = end.and_then(|end| data.get(..end)).unwrap_or(data);
        self.scanner.push(shown, &mut Watching { hidden: &mut self.hidden, facts });
        if end.is_some() {
            self.inner_ssh("upstream", facts);
        }
    }

    /// The terminal's size, at the beginning and whenever it changes. 0 is unknown.
    pub fn resize(&mut self, cols: u32, rows: u32, facts: &mut Vec<Fact>) {
        let is_small = (1..LEAST_COLS).contains(&cols) || (1..LEAST_ROWS).contains(&rows);
        if is_small && !self.is_small {
            self.hidden.tell(json!({"what": "small_window", "cols": cols, "rows": rows}), facts);
        }
        self.is_small = is_small;
    }

    /// The channel has ended: tells of what was hidden since it was told last, if it is enough.
    pub fn finish(&mut self, facts: &mut Vec<Fact>) {
        for way in WAYS {
            self.hidden.tally(way).is_told = false;
            self.hidden.tell_if_enough(way, facts);
        }
    }

    /// Whether the channel carries an SSH connection of its own, from which on nothing in it can be read.
    pub fn is_opaque(&self) -> bool {
        self.is_opaque
    }

    /// Told beside the limit: it happens once, and a flood must not hide it.
    fn inner_ssh(&mut self, from: &'static str, facts: &mut Vec<Fact>) {
        self.is_opaque = true;
        facts.push(fact(json!({"what": "inner_ssh", "carries": "ssh", "from": from})));
    }
}

/// Text that is shown and cannot be seen, and how much was told.
#[derive(Debug, Default)]
struct Hidden {
    style: Style,
    saved: Style,
    concealed: Tally,
    same_colour: Tally,
    told: usize,
}

/// How text is hidden.
#[derive(Clone, Copy, Debug)]
enum Way {
    Concealed,
    SameColour,
}

const WAYS: [Way; 2] = [Way::Concealed, Way::SameColour];

#[derive(Debug, Default)]
struct Tally {
    /// Whether text is hidden so now.
    is_on: bool,
    /// Whether that was told since it was on without a break.
    is_told: bool,
    /// Characters since it was told last.
    characters: u64,
}

impl Hidden {
    fn tally(&mut self, way: Way) -> &mut Tally {
        match way {
            Way::Concealed => &mut self.concealed,
            Way::SameColour => &mut self.same_colour,
        }
    }

    fn wear(&mut self, style: Style) {
        self.style = style;
        for (way, is_on) in WAYS.into_iter().zip([style.is_concealed(), style.is_same_colour()]) {
            let tally = self.tally(way);
            tally.is_on = is_on;
            tally.is_told &= is_on;
        }
    }

    fn tell_if_enough(&mut self, way: Way, facts: &mut Vec<Fact>) {
        let tally = self.tally(way);
        if tally.is_told || tally.characters < ENOUGH {
            return;
        }
        let characters = std::mem::take(&mut tally.characters);
        tally.is_told = true;
        let what = match way {
            Way::Concealed => "concealed_text",
            Way::SameColour => "same_colour_text",
        };
        self.tell(json!({"what": what, "characters": characters}), facts);
    }

    fn tell(&mut self, about: Value, facts: &mut Vec<Fact>) {
        self.told = self.told.saturating_add(1);
        if self.told <= MOST {
            facts.push(fact(about));
        } else if self.told == MOST + 1 {
            facts.push(fact(json!({"what": "more_not_told", "limit": MOST})));
        }
    }
}

/// [`Hidden`] while bytes come.
struct Watching<'a> {
    hidden: &'a mut Hidden,
    facts: &'a mut Vec<Fact>,
}

impl Screen for Watching<'_> {
    fn is_watching(&self) -> bool {
        self.hidden.concealed.is_on || self.hidden.same_colour.is_on
    }

    fn show(&mut self, c: u32) {
        if !is_text(c) {
            return;
        }
        for way in WAYS {
            let tally = self.hidden.tally(way);
            if tally.is_on {
                tally.characters = tally.characters.saturating_add(1);
                self.hidden.tell_if_enough(way, self.facts);
            }
        }
    }

    fn escape(&mut self, end: u8) {
        match end {
            b'7' => self.hidden.saved = self.hidden.style,
            b'8' => self.hidden.wear(self.hidden.saved),
            b'c' => {
                self.hidden.saved = Style::default();
                self.hidden.wear(Style::default());
            }
            _ => {}
        }
    }

    fn sequence(&mut self, parameters: &[u8], end: u8, is_sure: bool) {
        match (parameters, end) {
            (_, b'm') => {
                let style = self.hidden.style.with(parameters);
                if is_sure || style.is_concealed() || style.is_same_colour() {
                    self.hidden.wear(style);
                }
            }
            // Doubtful, it is not believed, for it may take a suspicion off.
            _ if !is_sure => {}
            (b"", b's') | (b"?1048" | b"?1049", b'h') => self.escape(b'7'),
            (b"", b'u') | (b"?1048" | b"?1049", b'l') => self.escape(b'8'),
            (b"!", b'p') => self.escape(b'c'),
            _ => {}
        }
    }

    fn command(&mut self, command: &Command) {
        if let Some(about) = command.clipboard() {
            self.hidden.tell(about, self.facts);
        }
    }
}

fn fact(about: Value) -> Fact {
    Fact { kind: KIND, outcome: Outcome::Done, about }
}

/// Whether a character can be read. Programs draw pictures with blocks, lines and symbols in one colour on itself, and
/// nobody reads those; nor spaces of any kind.
fn is_text(c: u32) -> bool {
    match c {
        0x21..=0x7e => true,
        0..=0xa0 | 0xad => false,
        // Spaces, joiners, marks of direction.
        0x2000..=0x200f | 0x2028..=0x202f | 0x205f..=0x206f | 0x3000 | 0xfe00..=0xfe0f | 0xfeff | 0xfffd => false,
        // Lines, blocks, shapes, Braille, what fonts put into private use, mosaics.
        0x2500..=0x25ff | 0x2800..=0x28ff | 0xe000..=0xf8ff | 0x1_fb00..=0x1_fbff | 0xf_0000.. => false,
        _ => true,
    }
}

/// Some programs hide a character or two (vim, mc); so many in total are told.
const ENOUGH: u64 = 8;
/// Facts of one channel, beside the one that it carries SSH.
const MOST: usize = 50;
/// A server may greet after other lines (RFC 4253, section 4.2), and a shell before it prints some.
const GREETING_WITHIN: usize = 64 * 1024;
/// Nobody works in a smaller window.
const LEAST_COLS: u32 = 20;
const LEAST_ROWS: u32 = 5;
