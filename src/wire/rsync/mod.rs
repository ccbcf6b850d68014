//! rsync over a command: which files are copied, read along.
//!
//! Nothing here decides: that was done by the direction, which the command says. So where something is not understood,
//! it goes on unread, is told to be so, and the transfer is not held up. Only arguments that come in the stream are held
//! back and judged as those of the command are.
//!
//! Files with contents are always seen. Removals, and directories and links that are made, are on the wire only where the
//! client wants to show them (`-v`, `-i`).

mod arguments;
mod cursor;
mod facts;
mod frames;
mod list;
mod opening;
mod options;
mod order;
mod sender;
mod spans;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use serde_json::json;

use super::told::{self, Keep, Totals};
use super::{Outcome, Reading, Step, Stop};
use cursor::{Cursor, Trouble};
use frames::Frames;
use opening::{Agreed, Opening, Side, TOO_EARLY, Word};
pub use options::Options;
use sender::Sender;
use spans::{Class, Spans};

/// Follows one `rsync --server`.
pub struct Files {
    options: Options,
    keep: Keep,
    opening: Opening,
    agreed: Option<Agreed>,
    client: Lane,
    server: Lane,
    /// Why nothing is read any more.
    unclear: Option<&'static str>,
    /// Arguments that come in the stream, until they are whole.
    arguments: Option<Vec<u8>>,
    totals: Totals,
    listed: u64,
    errors: u32,
    /// How much the sender said.
    carried: u64,
}

/// One side's bytes.
#[derive(Default)]
struct Lane {
    frames: Frames,
    /// The beginning of something that is not whole.
    pending: Vec<u8>,
    stage: Stage,
}

/// What a side is at.
#[derive(Default)]
enum Stage {
    #[default]
    Opening,
    Sender(Box<Sender>),
    /// Nothing that we need: what is asked for, checksums of what is there.
    Rest,
}

impl Files {
    /// For a command that [`super::transfer::recognise`] found.
    pub fn new(options: Options, keep: Keep) -> Self {
        let arguments = options.secluded.then(Vec::new);
        Self {
            options,
            keep,
            opening: Opening::default(),
            agreed: None,
            client: Lane::default(),
            server: Lane::default(),
            unclear: None,
            arguments,
            totals: Totals::default(),
            listed: 0,
            errors: 0,
            carried: 0,
        }
    }

    fn read(&mut self, side: Side, data: Bytes, steps: &mut Vec<Step>) {
        if side == self.sending() {
            self.carried = self.carried.saturating_add(data.len() as u64);
        }
        let mut spans = Spans::new(data, self.keep);
        let mut facts = Vec::new();
        while self.unclear.is_none() && !spans.rest().is_empty() {
            match self.piece(side, spans.rest(), &mut facts) {
                Ok((count @ 1.., class)) => spans.take(count, class, steps),
                Ok(_) | Err(Trouble::More) => self.give_up("nothing came of it", &mut facts),
                Err(Trouble::Unclear(why)) => self.give_up(why, &mut facts),
            }
            if !facts.is_empty() {
                spans.finish(steps);
                steps.append(&mut facts);
            }
        }
        let left = spans.rest().len();
        spans.take(left, Class::Contents, steps);
        spans.finish(steps);
    }

    /// Reads from the beginning of `data`, as far as one thing goes.
    fn piece(&mut self, side: Side, data: &[u8], facts: &mut Vec<Step>) -> cursor::Result<(usize, Class)> {
        self.settle(side)?;
        let (taken, told) = self.lane(side).frames.take(data).ok_or(Trouble::Unclear("this is no message of rsync"))?;
        if let Some(told) = told {
            self.message(side, told, facts);
        }
        if taken > 0 {
            return Ok((taken, Class::Control));
        }
        let available = self.lane(side).frames.stream(data.len());
        let stream = data.get(..available).unwrap_or_default();
        let (count, class) = self.stream(side, stream, facts)?;
        self.lane(side).frames.consume(count);
        Ok((count, class))
    }

    /// Goes on behind the opening, where a side has nothing more to say for it.
    fn settle(&mut self, side: Side) -> cursor::Result<()> {
        if !matches!(self.lane(side).stage, Stage::Opening) {
            return Ok(());
        }
        let next = self.opening.next(side, &self.options).ok_or(TOO_EARLY)?;
        if next != Word::Nothing {
            return Ok(());
        }
        let agreed = self.opening.agreed(&self.options)?;
        self.agreed = Some(agreed);
        let protocol = agreed.form.protocol;
        // What a server receives before protocol 31 is asked for by bare names, if it reads them from a file of its own.
        let is_bare = !self.options.sender && self.options.files_from && protocol < 31;
        let is_framed = match side {
            // What a client asks for is not read.
            Side::Client => protocol >= 30 && !self.options.sender,
            Side::Server => !is_bare,
        };
        let stage = match side == self.sending() {
            true => Stage::Sender(Box::new(Sender::new(agreed, self.has_rules(protocol)))),
            false => Stage::Rest,
        };
        let lane = self.lane(side);
        lane.stage = stage;
        lane.frames = if is_framed { Frames::on() } else { Frames::Off };
        Ok(())
    }

    fn sending(&self) -> Side {
        if self.options.sender { Side::Server } else { Side::Client }
    }

    /// Whether the sender sends its filter rules: a server never does.
    fn has_rules(&self, protocol: u32) -> bool {
        let deletes = self.options.delete && (!self.options.delete_excluded || protocol >= 29);
        !self.options.sender && (self.options.prune_empty_dirs || deletes)
    }

    fn lane(&mut self, side: Side) -> &mut Lane {
        if side == Side::Client { &mut self.client } else { &mut self.server }
    }

    fn stream(&mut self, side: Side, data: &[u8], facts: &mut Vec<Step>) -> cursor::Result<(usize, Class)> {
        match &mut self.lane(side).stage {
            Stage::Rest => return Ok((data.len(), Class::Control)),
            Stage::Sender(sender) if sender.is_over() => return Ok((data.len(), Class::Control)),
            Stage::Sender(sender) if sender.contents() > 0 => {
                let count = usize::try_from(sender.contents()).unwrap_or(usize::MAX).min(data.len());
                sender.carried(count as u64);
                return Ok((count, Class::Contents));
            }
            Stage::Sender(_) | Stage::Opening => {}
        }
        let mut pending = std::mem::take(&mut self.lane(side).pending);
        if pending.is_empty() {
            match self.whole(side, data, facts) {
                Ok(count) => return Ok((count, Class::Control)),
                Err(Trouble::More) if data.len() <= MAX_PENDING => {}
                Err(Trouble::More) => return Err(TOO_LONG),
                Err(trouble) => return Err(trouble),
            }
        }
        let before = pending.len();
        let mut taken = 0;
        // More and more at a time, so that neither small pieces nor large ones are looked at again and again.
        while taken < data.len() {
            let end = data.len().min(taken + pending.len().max(64));
            pending.extend_from_slice(data.get(taken..end).unwrap_or_default());
            taken = end;
            match self.whole(side, &pending, facts) {
                Ok(count) => return Ok((count.saturating_sub(before), Class::Control)),
                Err(Trouble::More) if pending.len() > MAX_PENDING => return Err(TOO_LONG),
                Err(Trouble::More) => {}
                Err(trouble) => return Err(trouble),
            }
        }
        self.lane(side).pending = pending;
        Ok((taken, Class::Control))
    }

    /// Reads one thing if it is whole; gives its length.
    fn whole(&mut self, side: Side, data: &[u8], facts: &mut Vec<Step>) -> cursor::Result<usize> {
        let mut cursor = Cursor::new(data);
        let lane = if side == Side::Client { &mut self.client } else { &mut self.server };
        match &mut lane.stage {
            Stage::Sender(sender) => {
                let event = sender.step(&mut cursor, &self.options)?;
                self.listed = sender.listed;
                self.event(event, facts);
            }
            _ => {
                let word = self.opening.next(side, &self.options).ok_or(TOO_EARLY)?;
                self.opening.read(side, word, &mut cursor)?;
            }
        }
        Ok(cursor.at())
    }

    fn give_up(&mut self, why: &'static str, facts: &mut Vec<Step>) {
        self.unclear = Some(why);
        self.tell_unfinished(facts);
        let about = told::object(json!({ "operation": self.operation(), "unlisted": why }));
        facts.push(Step::Tell(told::file(Outcome::Done, about)));
    }
}

impl Reading for Files {
    fn input(&mut self, data: Bytes, may_write: bool, steps: &mut Vec<Step>) -> Result<(), Stop> {
        if self.options.writes() && !may_write {
            return Err(MAY_NOT_WRITE);
        }
        if let Some(rest) = self.arguments(data, may_write, steps)? {
            self.read(Side::Client, rest, steps);
        }
        Ok(())
    }

    fn output(&mut self, data: Bytes, _: bool, steps: &mut Vec<Step>) -> Result<(), Stop> {
        self.read(Side::Server, data, steps);
        Ok(())
    }

    fn is_between(&self) -> bool {
        self.server.frames.is_between()
    }

    fn finish(&mut self, steps: &mut Vec<Step>) {
        self.tell_unfinished(steps);
        let mut about = self.totals.about();
        about.insert("files_listed".to_owned(), self.listed.into());
        about.insert("bytes_carried".to_owned(), self.carried.into());
        about.insert("protocol".to_owned(), self.opening.protocol().into());
        about.insert("unlisted".to_owned(), self.unclear.into());
        steps.push(Step::Tell(told::files(about)));
    }
}

/// The longest thing is an entry with a name, a link and attributes.
const MAX_PENDING: usize = 32 * 1024;

const TOO_LONG: Trouble = Trouble::Unclear("something is longer than rsync makes it");

const MAY_NOT_WRITE: Stop = Stop { words: "changing files is not allowed here" };
